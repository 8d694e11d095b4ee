//! The checksum behind every value.

use leno_threads_core::store::{StoreError, Table};

/// Length of the checksum behind a value.
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// Bytes of a key that an error shows.
const SHOWN_BYTES_MAX: usize = 32;

/// Computes the checksum of a row.
///
/// Table and key are part of it, so that a page which was written to or read from the wrong place
/// does not pass.
pub(crate) fn checksum(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    // The port bounds keys well below 64 KiB; a longer one could only come from a damaged page.
    hasher.update(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// Takes the checksum off a stored value, and compares it.
pub(crate) fn open<'a>(table: Table, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], StoreError> {
    match stored.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((value, found)) if *found == checksum(table, key, value) => Ok(value),
        Some(_) | None => {
            let shown: String = key
                .iter()
                .take(SHOWN_BYTES_MAX)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            Err(StoreError::Corrupt {
                what: format!("table {}, row 0x{shown}: checksum", table.name()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
        [value, checksum(table, key, value).as_slice()].concat()
    }

    #[test]
    fn row_opens_at_its_own_place_only() {
        let stored = sealed(Table::Logs, b"ab", b"value");
        assert_eq!(open(Table::Logs, b"ab", &stored).unwrap(), b"value");
        for (table, key) in [
            (Table::Runs, &b"ab"[..]),
            (Table::Logs, b"a"),
            (Table::Logs, b"ac"),
        ] {
            let error = open(table, key, &stored).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let stored = sealed(Table::Documents, b"key", b"a value of some length");
        for bit in 0..stored.len() * 8 {
            let mut stored = stored.clone();
            stored[bit / 8] ^= 1 << (bit % 8);
            assert!(
                open(Table::Documents, b"key", &stored).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn checksum_is_pinned() {
        // Bytes at rest: this value never changes within a format.
        assert_eq!(checksum(Table::Runs, b"key", b"value"), PINNED);
    }

    const PINNED: [u8; 4] = [97, 64, 37, 186];

    #[test]
    fn too_short_a_row_names_its_table_and_key() {
        let error = open(Table::Outbox, &[1, 255], b"abc").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the store is damaged: table outbox, row 0x01ff: checksum"
        );
    }
}

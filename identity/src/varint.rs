//! Unsigned varints, as multicodec tags use them.
//!
//! Source: <https://github.com/multiformats/unsigned-varint>. Only the shortest form is read; no tag
//! of ours needs more than four bytes, and nine are the most that the specification allows.

use crate::key::KeyError;

/// Longest varint that is read, in bytes.
const VARINT_BYTES_MAX: usize = 9;

/// Appends `value`, below 2^63, in its shortest form.
pub(crate) fn write(mut value: u64, bytes: &mut Vec<u8>) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Reads a varint from the front of `bytes` and returns it with what follows.
pub(crate) fn read(bytes: &[u8]) -> Result<(u64, &[u8]), KeyError> {
    let mut value = 0;
    let mut rest = bytes;
    for at in 0..VARINT_BYTES_MAX {
        let (byte, tail) = rest.split_first().ok_or(KeyError::Truncated {
            needed: at + 1,
            had: at,
        })?;
        rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            // A last byte of zero adds nothing: the same number has a shorter form.
            if at > 0 && *byte == 0 {
                return Err(KeyError::TagNotMinimal);
            }
            return Ok((value, rest));
        }
    }
    Err(KeyError::TagTooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_round_trips_at_its_edges() {
        let check = |value: u64, expected: &[u8]| {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            assert_eq!(bytes, expected);
            assert_eq!(read(&bytes), Ok((value, &[][..])));
        };
        check(0, &[0]);
        check(0x7f, &[0x7f]);
        check(0x80, &[0x80, 1]);
        check(0xed, &[0xed, 1]);
        check(0x1200, &[0x80, 0x24]);
        check(
            (1 << 63) - 1,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        );
    }

    #[test]
    fn varint_in_another_form_is_refused() {
        let check = |bytes: &[u8], expected| assert_eq!(read(bytes), Err(expected));
        check(&[], KeyError::Truncated { needed: 1, had: 0 });
        check(&[0xed], KeyError::Truncated { needed: 2, had: 1 });
        check(&[0xed, 0x81, 0], KeyError::TagNotMinimal);
        check(&[0x80, 0], KeyError::TagNotMinimal);
        check(&[0x80; 9], KeyError::TagTooLong);
        check(&[0xff; 32], KeyError::TagTooLong);
    }
}

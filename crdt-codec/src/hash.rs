//! The hash by which replicas compare what they hold.

use sha2::{Digest, Sha256};

/// What the hashed bytes begin with, so that no other hash of this format equals this one.
pub const STATE_HASH_LABEL: &[u8] = b"leno/v1/state-hash\0";

/// Hashes the states of documents: collection name, encoded document id, encoded state.
///
/// Equal sets of documents give equal hashes and others do not, as far as SHA-256 goes.
///
/// # Shape
///
/// SHA-256 over [`STATE_HASH_LABEL`], then for each document, in ascending order of (collection,
/// document id) by their bytes: length of the collection as `u64` big-endian, its UTF-8 bytes, and
/// likewise the document id and the state.
///
/// # Panics
///
/// If the documents do not come in strictly ascending order; sorting them is up to the caller.
///
/// # Examples
///
/// ```
/// use leno_crdt_codec::state_hash;
///
/// let songs = [("songs", &b"\x61a"[..], &b"one"[..]), ("songs", b"\x61b", b"two")];
/// assert_ne!(state_hash(songs), state_hash([]));
/// ```
#[must_use]
pub fn state_hash<'a>(
    documents: impl IntoIterator<Item = (&'a str, &'a [u8], &'a [u8])>,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(STATE_HASH_LABEL);
    let mut previous = None;
    for (collection, document, state) in documents {
        assert!(
            previous < Some((collection, document)),
            "documents come in strictly ascending order"
        );
        previous = Some((collection, document));
        for part in [collection.as_bytes(), document, state] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let a = state_hash([("ab", &b"c"[..], &b"d"[..])]);
        assert_ne!(a, state_hash([("a", &b"bc"[..], &b"d"[..])]));
        assert_ne!(a, state_hash([("ab", &b"cd"[..], &b""[..])]));
        assert_eq!(a, state_hash([("ab", &b"c"[..], &b"d"[..])]));
    }

    #[test]
    fn nothing_has_the_hash_of_the_label() {
        let label: [u8; 32] = Sha256::digest(b"leno/v1/state-hash\0").into();
        assert_eq!(state_hash([]), label);
    }

    #[test]
    #[should_panic(expected = "strictly ascending")]
    fn documents_out_of_order_are_a_bug() {
        let _ = state_hash([("b", &b""[..], &b""[..]), ("a", b"", b"")]);
    }
}

//! Names of collections, and the keys under which documents rest.
//!
//! | row | key in the table of documents |
//! |---|---|
//! | document | thread: u32 \| collection \| 0x00 \| id |
//! | its further parts, from 1 | thread: u32 \| 0xff \| part: u32 \| collection \| 0x00 \| id |
//!
//! Numbers are big-endian. An id is 0x00 and the 16 bytes of a generated id, or 0x01 and the UTF-8
//! of a natural one: keys sort as (collection, [`DocumentId`]) do, and no collection begins with 0xff.

use std::sync::Arc;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Kind};
use leno_crdt_codec::json::{DOCUMENT_NAME_BYTES_MAX, DocumentId};

/// Longest name of a collection, in bytes.
pub const COLLECTION_BYTES_MAX: usize = 128;

/// Names a document in its thread: collection, 0x00, id.
pub(crate) type Key = Arc<[u8]>;

const GENERATED: u8 = 0;
const NATURAL: u8 = 1;

/// Stands where a collection would, in the keys of further parts.
const PARTS: u8 = 0xff;

/// Bytes of the thread's number in front of a [`Key`].
pub(crate) const THREAD_BYTES: usize = 4;

/// Tells whether a text may name a collection: 1 to [`COLLECTION_BYTES_MAX`] of the letters a to z
/// and A to Z, digits, and `_`, `-`, `/`, `.`.
///
/// # Examples
///
/// ```
/// use leno_threads_db::is_collection_name;
///
/// assert!(is_collection_name("songs/live-2.0"));
/// assert!(!is_collection_name("no spaces"));
/// ```
#[must_use]
pub fn is_collection_name(name: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'.');
    (1..=COLLECTION_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// A document id that borrows from where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IdRef<'a> {
    Generated(&'a [u8; 16]),
    Natural(&'a str),
}

impl<'a> IdRef<'a> {
    /// Reads it as [`DocumentId::decode`] does.
    pub(crate) fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        if decoder.peek()? == Kind::Bytes {
            return decoder.fixed().map(Self::Generated);
        }
        let offset = decoder.offset();
        let name = decoder.text()?;
        if name.is_empty() || name.len() > DOCUMENT_NAME_BYTES_MAX {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the length of a document id",
            });
        }
        Ok(Self::Natural(name))
    }
}

impl<'a> From<&'a DocumentId> for IdRef<'a> {
    fn from(id: &'a DocumentId) -> Self {
        match id.as_generated() {
            Some(id) => Self::Generated(id),
            None => Self::Natural(id.as_natural().unwrap_or_default()),
        }
    }
}

/// Writes a key in place of what `out` held.
pub(crate) fn write(out: &mut Vec<u8>, collection: &str, id: IdRef<'_>) {
    out.clear();
    out.extend_from_slice(collection.as_bytes());
    out.push(0);
    match id {
        IdRef::Generated(id) => {
            out.push(GENERATED);
            out.extend_from_slice(id);
        }
        IdRef::Natural(name) => {
            out.push(NATURAL);
            out.extend_from_slice(name.as_bytes());
        }
    }
}

pub(crate) fn of(collection: &str, id: &DocumentId) -> Vec<u8> {
    let mut key = Vec::with_capacity(collection.len() + 18);
    write(&mut key, collection, id.into());
    key
}

/// The name of the collection in a key, and the id as it stands there.
pub(crate) fn split(key: &[u8]) -> Option<(&str, &[u8])> {
    let at = key.iter().position(|byte| *byte == 0)?;
    let collection = std::str::from_utf8(key.get(..at)?).ok()?;
    Some((collection, key.get(at + 1..)?))
}

/// The id in a key.
pub(crate) fn id(key: &[u8]) -> Option<DocumentId> {
    let (tag, id) = split(key)?.1.split_first()?;
    match *tag {
        GENERATED => id.try_into().ok().map(DocumentId::generated),
        NATURAL => DocumentId::natural(std::str::from_utf8(id).ok()?).ok(),
        _ => None,
    }
}

/// The key of a document's first row.
pub(crate) fn row(thread: u32, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(THREAD_BYTES + key.len());
    row.extend_from_slice(&thread.to_be_bytes());
    row.extend_from_slice(key);
    row
}

/// The key of a further row of a document, counted from 1.
pub(crate) fn part(thread: u32, key: &[u8], part: u32) -> Vec<u8> {
    let mut row = thread.to_be_bytes().to_vec();
    row.push(PARTS);
    row.extend_from_slice(&part.to_be_bytes());
    row.extend_from_slice(key);
    row
}

/// The bounds of all keys of a collection: included, excluded.
pub(crate) fn bounds(collection: &str) -> (Vec<u8>, Vec<u8>) {
    let bound = |last| [collection.as_bytes(), &[last]].concat();
    (bound(0), bound(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_collections_and_ids_do() {
        let natural = |name: &str| DocumentId::natural(name).unwrap();
        let mut ids = [
            ("a", DocumentId::generated([0; 16])),
            ("a", DocumentId::generated([255; 16])),
            ("a", natural("a\0")),
            ("a", natural("aa")),
            ("a", natural("b")),
            ("a-", natural("a")),
            ("aa", DocumentId::generated([9; 16])),
        ];
        ids.sort();
        let keys: Vec<_> = ids
            .iter()
            .map(|(collection, id)| of(collection, id))
            .collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
        for ((collection, document), key) in ids.iter().zip(&keys) {
            assert_eq!(split(key).map(|it| it.0), Some(*collection));
            assert_eq!(id(key).as_ref(), Some(document));
        }
    }

    #[test]
    fn names_of_collections_are_bounded() {
        for good in ["a", "Songs_2/live.v-1", &"x".repeat(COLLECTION_BYTES_MAX)] {
            assert!(is_collection_name(good), "{good}");
        }
        for bad in ["", "a b", "ä", "a\0", &"x".repeat(COLLECTION_BYTES_MAX + 1)] {
            assert!(!is_collection_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_longest_key_fits_a_store() {
        let longest = of(
            &"c".repeat(COLLECTION_BYTES_MAX),
            &DocumentId::natural("n".repeat(DOCUMENT_NAME_BYTES_MAX)).unwrap(),
        );
        assert!(part(0, &longest, 1).len() <= leno_threads_core::store::KEY_BYTES_MAX);
    }
}

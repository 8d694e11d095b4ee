//! Names of documents.

use std::fmt;

use crate::cbor::{DecodeError, Decoder, Encoder, Kind};
use crate::json::ValueError;

/// Longest natural document id, in bytes.
pub const DOCUMENT_NAME_BYTES_MAX: usize = 256;

/// Crockford's base 32, whose texts sort as the bytes do.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Names a document within its collection.
///
/// # Shape
///
/// A generated id is a byte string of 16: 48 bits of milliseconds since the Unix epoch, big-endian,
/// then 80 bits of a hash, so that ids sort by time. A natural one is a text of 1 to
/// [`DOCUMENT_NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DocumentId(Id);

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Id {
    Generated([u8; 16]),
    Natural(Box<str>),
}

impl DocumentId {
    /// Takes 16 bytes as a generated id.
    #[must_use]
    pub fn generated(id: [u8; 16]) -> Self {
        Self(Id::Generated(id))
    }

    /// Takes a name that the app chose. Such an id gives nobody a claim to the document.
    ///
    /// # Errors
    ///
    /// [`ValueError::Count`] if it is empty or longer than [`DOCUMENT_NAME_BYTES_MAX`].
    pub fn natural(name: impl Into<Box<str>>) -> Result<Self, ValueError> {
        let name = name.into();
        if name.is_empty() || name.len() > DOCUMENT_NAME_BYTES_MAX {
            return Err(ValueError::Count {
                what: "bytes in a document id",
                count: name.len(),
                max: DOCUMENT_NAME_BYTES_MAX,
            });
        }
        Ok(Self(Id::Natural(name)))
    }

    /// Reads the text of a generated id: 26 digits of Crockford's base 32, upper case.
    ///
    /// # Examples
    ///
    /// ```
    /// use leno_crdt_codec::json::DocumentId;
    ///
    /// let id = DocumentId::generated([7; 16]);
    /// assert_eq!(DocumentId::parse_generated(&id.to_string()), Some(id));
    /// ```
    #[must_use]
    pub fn parse_generated(text: &str) -> Option<Self> {
        if text.len() != 26 {
            return None;
        }
        let value = text.bytes().try_fold(0_u128, |value, byte| {
            let digit = DIGITS.iter().position(|digit| *digit == byte)?;
            Some(value.checked_mul(32)? | digit as u128)
        })?;
        Some(Self::generated(value.to_be_bytes()))
    }

    /// The 16 bytes, if it was generated.
    #[must_use]
    pub fn as_generated(&self) -> Option<&[u8; 16]> {
        match &self.0 {
            Id::Generated(id) => Some(id),
            Id::Natural(_) => None,
        }
    }

    /// The name, if the app chose it.
    #[must_use]
    pub fn as_natural(&self) -> Option<&str> {
        match &self.0 {
            Id::Generated(_) => None,
            Id::Natural(name) => Some(name),
        }
    }

    /// When it was generated, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(&self) -> Option<u64> {
        let id = self.as_generated()?;
        let time = id.iter().take(6);
        Some(time.fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Encodes it by itself.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.encode_to(&mut encoder);
        encoder.into_vec()
    }

    /// Writes it.
    pub fn encode_to(&self, encoder: &mut Encoder) {
        match &self.0 {
            Id::Generated(id) => encoder.bytes(id),
            Id::Natural(name) => encoder.text(name),
        };
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is no document id.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if decoder.peek()? == Kind::Bytes {
            return Ok(Self::generated(*decoder.fixed()?));
        }
        let offset = decoder.offset();
        Self::natural(decoder.text()?).map_err(|_| DecodeError::OutOfBounds {
            offset,
            what: "the length of a document id",
        })
    }

    /// At least the length of its encoding.
    pub(super) fn encoded_len_max(&self) -> usize {
        match &self.0 {
            Id::Generated(id) => 1 + id.len(),
            Id::Natural(name) => 3 + name.len(),
        }
    }
}

/// Shows 26 digits that sort by time, or the name that the app chose.
impl fmt::Display for DocumentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Natural(name) => formatter.write_str(name),
            Id::Generated(id) => {
                let id = u128::from_be_bytes(*id);
                (0..26).rev().try_for_each(|at| {
                    let digit = DIGITS.get((id >> (5 * at)) as usize & 31);
                    write!(formatter, "{}", char::from(*digit.unwrap_or(&b'0')))
                })
            }
        }
    }
}

//! Strict dag-cbor, read and written one item at a time.
//!
//! One encoding per value: integers and lengths are minimal, floats are 64-bit and finite, maps have
//! text keys in length-first order without duplicates, the only tag is 42 (a link), nothing is
//! indefinite and nothing trails. [`Decoder`] borrows from its input and allocates nothing until a
//! caller asks for an owned value; a length is checked against the bytes that are left before it is
//! believed. `serde_ipld_dagcbor` is the oracle of this module in tests; it is not used on the hot
//! path because a record header is encoded once per record on both sides.
//!
//! Source: <https://ipld.io/specs/codecs/dag-cbor/spec/>; RFC 8949 §4.2.

mod decoder;
mod encoder;

pub use decoder::Decoder;
pub use encoder::Encoder;

use ipld_core::ipld::Ipld;

/// Deepest nesting of lists and maps that is decoded.
pub const DEPTH_MAX: usize = 32;

/// Longest map key that is decoded, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// Longest binary CID that is decoded in a link, in bytes, without the leading zero.
pub const LINK_BYTES_MAX: usize = 128;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const FLOAT64: u8 = 0xfb;

/// The first byte of the item that follows tells what it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// An integer that is not negative.
    Unsigned,
    /// An integer below zero.
    Negative,
    /// A byte string.
    Bytes,
    /// A text string.
    Text,
    /// A list.
    Array,
    /// A map.
    Map,
    /// A link (tag 42).
    Link,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
    /// A 64-bit float.
    Float,
}

/// Why bytes are not a value in strict dag-cbor. Offsets count from the start of the input.
#[derive(Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside an item.
    #[error("input ends at offset {offset}: {needed} bytes needed, {had} left")]
    Truncated {
        /// Where the item begins.
        offset: usize,
        /// Bytes that the item claims.
        needed: u64,
        /// Bytes that are left.
        had: usize,
    },
    /// An integer or a length is written longer than it must be.
    #[error("the number at offset {offset} is not in its shortest form")]
    NotMinimal {
        /// Where the number begins.
        offset: usize,
    },
    /// Another kind of item was expected.
    #[error("expected {expected} at offset {offset}")]
    Unexpected {
        /// Where the item begins.
        offset: usize,
        /// What the format has there.
        expected: &'static str,
    },
    /// A value is outside the bounds that the format gives it.
    #[error("{what} at offset {offset} is out of bounds")]
    OutOfBounds {
        /// Where the value begins.
        offset: usize,
        /// Which value.
        what: &'static str,
    },
    /// Indefinite lengths, half and single floats, and unassigned simple values do not exist here.
    #[error("the item at offset {offset} does not exist in dag-cbor")]
    Forbidden {
        /// Where the item begins.
        offset: usize,
    },
    /// A float is not finite, or is -0.0.
    #[error("the float at offset {offset} is not finite, or is negative zero")]
    BadFloat {
        /// Where the float begins.
        offset: usize,
    },
    /// A text is not UTF-8.
    #[error("the text at offset {offset} is not UTF-8")]
    NotUtf8 {
        /// Where the text begins.
        offset: usize,
    },
    /// A map key is out of order, or stands twice.
    #[error("the map key at offset {offset} is out of order or stands twice")]
    KeyOrder {
        /// Where the key begins.
        offset: usize,
    },
    /// Tag 42 does not hold a CID.
    #[error("the link at offset {offset} does not hold a CID")]
    BadLink {
        /// Where the link begins.
        offset: usize,
    },
    /// Lists and maps are nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} at offset {offset}")]
    TooDeep {
        /// Where the limit is passed.
        offset: usize,
    },
    /// Bytes follow the value.
    #[error("{had} bytes follow the value that ends at offset {offset}")]
    Trailing {
        /// Where the value ends.
        offset: usize,
        /// Bytes that follow.
        had: usize,
    },
}

/// The order of map keys in dag-cbor: shorter first, then by bytes.
#[must_use]
pub fn key_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.len()
        .cmp(&b.len())
        .then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

/// How many bytes the number before an item takes: its value, or how long the item is.
#[inline]
pub(crate) fn head_len(value: u64) -> usize {
    match value {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Encodes one value.
///
/// # Panics
///
/// As [`Encoder::ipld`].
#[must_use]
pub fn encode_ipld(value: &Ipld) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.ipld(value);
    encoder.into_vec()
}

/// Decodes one value, with nothing behind it.
///
/// # Errors
///
/// [`DecodeError`] says what is wrong and where.
pub fn decode_ipld(bytes: &[u8]) -> Result<Ipld, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.ipld()?;
    decoder.finish()?;
    Ok(value)
}

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

use std::collections::BTreeMap;

use cid::Cid;
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

/// Writes dag-cbor items to the end of a byte vector.
///
/// The caller writes what it announced: `array(2)` and then two items, and map keys in length-first
/// order. [`Encoder::ipld`] does both by itself.
///
/// # Examples
///
/// ```
/// use leno_crdt_codec::cbor::{Decoder, Encoder};
///
/// let mut encoder = Encoder::new();
/// encoder.array(2).uint(7).text("songs");
/// let bytes = encoder.into_vec();
///
/// let mut decoder = Decoder::new(&bytes);
/// decoder.array_of(2)?;
/// assert_eq!((decoder.uint()?, decoder.text()?), (7, "songs"));
/// decoder.finish()?;
/// # Ok::<(), leno_crdt_codec::cbor::DecodeError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// Makes an encoder that has written nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an encoder that writes behind `out`.
    #[must_use]
    pub fn append_to(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// Returns what was written.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// Borrows what was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.out
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Tells whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes an integer that is not negative.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value)
    }

    /// Writes any integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            Err(_) => self.head(NEGATIVE, !value.cast_unsigned()),
        }
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
        self
    }

    /// Writes a text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    /// Announces a list of `count` items.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(ARRAY, count as u64)
    }

    /// Announces a map of `count` keys, each followed by its value.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(MAP, count as u64)
    }

    /// Writes a truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { TRUE } else { FALSE });
        self
    }

    /// Writes null.
    pub fn null(&mut self) -> &mut Self {
        self.out.push(NULL);
        self
    }

    /// Writes a float; -0.0 is written as 0.0.
    ///
    /// # Panics
    ///
    /// If `value` is not finite: no decoder would take it back.
    pub fn float(&mut self, value: f64) -> &mut Self {
        assert!(value.is_finite(), "dag-cbor has finite floats only");
        // Adding positive zero turns -0.0 into 0.0 and leaves all else.
        self.out.push(FLOAT64);
        self.out
            .extend_from_slice(&(value + 0.0).to_bits().to_be_bytes());
        self
    }

    /// Writes a link.
    pub fn link(&mut self, cid: &Cid) -> &mut Self {
        let bytes = cid.to_bytes();
        self.link_bytes(&bytes)
    }

    /// Writes a link from the bytes of a CID.
    pub fn link_bytes(&mut self, cid: &[u8]) -> &mut Self {
        self.head(TAG, 42);
        self.head(BYTES, cid.len() as u64 + 1);
        self.out.push(0);
        self.out.extend_from_slice(cid);
        self
    }

    /// Writes a whole value.
    ///
    /// # Panics
    ///
    /// If a float is not finite, or an integer is outside -2^64 to 2^64 - 1.
    pub fn ipld(&mut self, value: &Ipld) -> &mut Self {
        match value {
            Ipld::Null => self.null(),
            Ipld::Bool(value) => self.bool(*value),
            Ipld::Integer(value) => match u64::try_from(*value) {
                Ok(value) => self.uint(value),
                Err(_) => {
                    let below = u64::try_from(-1 - *value);
                    self.head(
                        NEGATIVE,
                        below.expect("integers lie within -2^64 and 2^64 - 1"),
                    )
                }
            },
            Ipld::Float(value) => self.float(*value),
            Ipld::String(value) => self.text(value),
            Ipld::Bytes(value) => self.bytes(value),
            Ipld::List(items) => {
                self.array(items.len());
                for item in items {
                    self.ipld(item);
                }
                self
            }
            Ipld::Map(entries) => {
                self.map(entries.len());
                let mut keys: Vec<_> = entries.iter().collect();
                keys.sort_by(|(a, _), (b, _)| key_order(a, b));
                for (key, value) in keys {
                    self.text(key).ipld(value);
                }
                self
            }
            Ipld::Link(cid) => self.link(cid),
        }
    }

    /// Writes bytes that are already whole items.
    pub fn raw(&mut self, items: &[u8]) -> &mut Self {
        self.out.extend_from_slice(items);
        self
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        match value {
            0..24 => self.out.push(major | value as u8),
            24..0x100 => self.out.extend_from_slice(&[major | 24, value as u8]),
            0x100..0x1_0000 => self
                .out
                .extend_from_slice(&[major | 25, bytes[6], bytes[7]]),
            0x1_0000..0x1_0000_0000 => {
                self.out.push(major | 26);
                self.out.extend_from_slice(&bytes[4..]);
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend_from_slice(&bytes);
            }
        }
        self
    }
}

/// The order of map keys in dag-cbor: shorter first, then by bytes.
#[must_use]
pub fn key_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.len()
        .cmp(&b.len())
        .then_with(|| a.as_bytes().cmp(b.as_bytes()))
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

/// Reads dag-cbor items from the front of a byte slice.
///
/// After an error the position is unspecified; throw the decoder away.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// Begins at the start of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// Offset of the next item.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.input.len() - self.at
    }

    /// The bytes between an earlier [`Decoder::offset`] and this one.
    #[must_use]
    pub fn since(&self, offset: usize) -> &'a [u8] {
        self.input.get(offset..self.at).unwrap_or_default()
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Trailing`].
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            had => Err(DecodeError::Trailing {
                offset: self.at,
                had,
            }),
        }
    }

    /// Tells what the next item is without reading it.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] at the end, [`DecodeError::Forbidden`] if no such item exists.
    pub fn peek(&self) -> Result<Kind, DecodeError> {
        let first = *self.input.get(self.at).ok_or(self.truncated(1))?;
        match first >> 5 {
            UNSIGNED => Ok(Kind::Unsigned),
            NEGATIVE => Ok(Kind::Negative),
            BYTES => Ok(Kind::Bytes),
            TEXT => Ok(Kind::Text),
            ARRAY => Ok(Kind::Array),
            MAP => Ok(Kind::Map),
            TAG => Ok(Kind::Link),
            _ => match first {
                FALSE | TRUE => Ok(Kind::Bool),
                NULL => Ok(Kind::Null),
                FLOAT64 => Ok(Kind::Float),
                _ => Err(DecodeError::Forbidden { offset: self.at }),
            },
        }
    }

    /// Reads an integer that is not negative.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        self.head(UNSIGNED, "an unsigned integer")
    }

    /// Reads an unsigned integer of 32 bits.
    ///
    /// # Errors
    ///
    /// As [`Decoder::uint`], and [`DecodeError::OutOfBounds`] above `u32::MAX`.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        let offset = self.at;
        let value = self.uint()?;
        u32::try_from(value).map_err(|_| DecodeError::OutOfBounds {
            offset,
            what: "a 32-bit number",
        })
    }

    /// Reads an unsigned integer of 8 bits.
    ///
    /// # Errors
    ///
    /// As [`Decoder::uint`], and [`DecodeError::OutOfBounds`] above 255.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let offset = self.at;
        let value = self.uint()?;
        u8::try_from(value).map_err(|_| DecodeError::OutOfBounds {
            offset,
            what: "an 8-bit number",
        })
    }

    /// Reads any integer within i64.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else or does not fit.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        let offset = self.at;
        let bounds = DecodeError::OutOfBounds {
            offset,
            what: "a signed 64-bit number",
        };
        if self.peek()? == Kind::Negative {
            let value = self.head(NEGATIVE, "an integer")?;
            return i64::try_from(value).map(|it| !it).map_err(|_| bounds);
        }
        let value = self.head(UNSIGNED, "an integer")?;
        i64::try_from(value).map_err(|_| bounds)
    }

    /// Reads a byte string.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.head(BYTES, "a byte string")?;
        self.take(length)
    }

    /// Reads a byte string of exactly `N` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else or has another length.
    pub fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let offset = self.at;
        self.bytes()?
            .try_into()
            .map_err(|_| DecodeError::OutOfBounds {
                offset,
                what: "the length of a byte string",
            })
    }

    /// Reads a text string.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let offset = self.at;
        let length = self.head(TEXT, "a text")?;
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::NotUtf8 { offset })
    }

    /// Reads the head of a list and returns how many items follow.
    ///
    /// Each item has at least one byte, so the count never exceeds [`Decoder::remaining`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else or claims more than is left.
    pub fn array(&mut self) -> Result<usize, DecodeError> {
        let count = self.head(ARRAY, "a list")?;
        self.count(count, 1)
    }

    /// Reads the head of a list that must have `count` items.
    ///
    /// # Errors
    ///
    /// As [`Decoder::array`], and [`DecodeError::OutOfBounds`] for another count.
    pub fn array_of(&mut self, count: usize) -> Result<(), DecodeError> {
        let offset = self.at;
        if self.array()? == count {
            return Ok(());
        }
        Err(DecodeError::OutOfBounds {
            offset,
            what: "the length of a list",
        })
    }

    /// Reads the head of a list that must have at most `max` items.
    ///
    /// # Errors
    ///
    /// As [`Decoder::array`], and [`DecodeError::OutOfBounds`] for more.
    pub fn array_up_to(&mut self, max: usize) -> Result<usize, DecodeError> {
        let offset = self.at;
        match self.array()? {
            count if count <= max => Ok(count),
            _ => Err(DecodeError::OutOfBounds {
                offset,
                what: "the length of a list",
            }),
        }
    }

    /// Reads the head of a map and returns how many pairs follow.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else or claims more than is left.
    pub fn map(&mut self) -> Result<usize, DecodeError> {
        let count = self.head(MAP, "a map")?;
        self.count(count, 2)
    }

    /// Reads a map key that must come after `previous`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is not a text, too long, or not after `previous`.
    pub fn key(&mut self, previous: Option<&str>) -> Result<&'a str, DecodeError> {
        let offset = self.at;
        let key = self.text()?;
        if key.len() > KEY_BYTES_MAX {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the length of a map key",
            });
        }
        match previous {
            Some(previous) if key_order(previous, key).is_ge() => {
                Err(DecodeError::KeyOrder { offset })
            }
            _ => Ok(key),
        }
    }

    /// Reads a truth value.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        if self.peek()? == Kind::Bool {
            return Ok(self.byte() == TRUE);
        }
        Err(self.unexpected("a truth value"))
    }

    /// Reads null if it comes next, and tells whether it did.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if nothing is left.
    pub fn null(&mut self) -> Result<bool, DecodeError> {
        let found = self.peek()? == Kind::Null;
        self.at += usize::from(found);
        Ok(found)
    }

    /// Reads a float.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else, not finite, or -0.0.
    pub fn float(&mut self) -> Result<f64, DecodeError> {
        let offset = self.at;
        if self.peek()? != Kind::Float {
            return Err(self.unexpected("a float"));
        }
        self.at += 1;
        let mut bits = [0; 8];
        bits.copy_from_slice(self.take(8)?);
        let bits = u64::from_be_bytes(bits);
        let value = f64::from_bits(bits);
        if !value.is_finite() || bits == 1 << 63 {
            return Err(DecodeError::BadFloat { offset });
        }
        Ok(value)
    }

    /// Reads a link and returns the bytes of its CID, not yet parsed.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is something else or is not framed as a link.
    pub fn link_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let offset = self.at;
        let tag = self.head(TAG, "a link")?;
        if tag != 42 {
            return Err(DecodeError::Forbidden { offset });
        }
        match self.bytes()?.split_first() {
            Some((0, cid)) if cid.len() <= LINK_BYTES_MAX => Ok(cid),
            _ => Err(DecodeError::BadLink { offset }),
        }
    }

    /// Reads a link.
    ///
    /// # Errors
    ///
    /// As [`Decoder::link_bytes`], and [`DecodeError::BadLink`] if the bytes are no CID, or are not
    /// the one way to write it.
    pub fn link(&mut self) -> Result<Cid, DecodeError> {
        let offset = self.at;
        let bytes = self.link_bytes()?;
        let cid = Cid::try_from(bytes).map_err(|_| DecodeError::BadLink { offset })?;
        if cid.to_bytes() != bytes {
            return Err(DecodeError::BadLink { offset });
        }
        Ok(cid)
    }

    /// Reads any value.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; [`DecodeError::TooDeep`] below [`DEPTH_MAX`] levels.
    pub fn ipld(&mut self) -> Result<Ipld, DecodeError> {
        self.ipld_within(DEPTH_MAX)
    }

    /// Passes over any value, checked as strictly as if it were read.
    ///
    /// # Errors
    ///
    /// As [`Decoder::ipld`].
    pub fn skip(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        self.ipld()?;
        Ok(self.since(start))
    }

    fn ipld_within(&mut self, depth: usize) -> Result<Ipld, DecodeError> {
        let offset = self.at;
        Ok(match self.peek()? {
            Kind::Unsigned => Ipld::Integer(self.uint()?.into()),
            Kind::Negative => Ipld::Integer(-1 - i128::from(self.head(NEGATIVE, "an integer")?)),
            Kind::Bytes => Ipld::Bytes(self.bytes()?.to_vec()),
            Kind::Text => Ipld::String(self.text()?.to_owned()),
            Kind::Link => Ipld::Link(self.link()?),
            Kind::Bool => Ipld::Bool(self.bool()?),
            Kind::Null => {
                self.null()?;
                Ipld::Null
            }
            Kind::Float => Ipld::Float(self.float()?),
            Kind::Array => {
                let count = self.array()?;
                let depth = depth
                    .checked_sub(1)
                    .ok_or(DecodeError::TooDeep { offset })?;
                // Grown as items are proven, never by the claimed count.
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.ipld_within(depth)?);
                }
                Ipld::List(items)
            }
            Kind::Map => {
                let count = self.map()?;
                let depth = depth
                    .checked_sub(1)
                    .ok_or(DecodeError::TooDeep { offset })?;
                let mut entries = BTreeMap::new();
                let mut previous: Option<&str> = None;
                for _ in 0..count {
                    let key = self.key(previous)?;
                    entries.insert(key.to_owned(), self.ipld_within(depth)?);
                    previous = Some(key);
                }
                Ipld::Map(entries)
            }
        })
    }

    #[inline]
    fn head(&mut self, major: u8, expected: &'static str) -> Result<u64, DecodeError> {
        let offset = self.at;
        let first = *self.input.get(offset).ok_or(self.truncated(1))?;
        if first >> 5 != major {
            return Err(self.unexpected(expected));
        }
        let (value, least) = match first & 31 {
            small @ 0..24 => {
                self.at += 1;
                return Ok(small.into());
            }
            24 => (self.number::<1>()?, 24),
            25 => (self.number::<2>()?, 0x100),
            26 => (self.number::<4>()?, 0x1_0000),
            27 => (self.number::<8>()?, 0x1_0000_0000),
            _ => return Err(DecodeError::Forbidden { offset }),
        };
        if value < least {
            return Err(DecodeError::NotMinimal { offset });
        }
        Ok(value)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, DecodeError> {
        let tail = self
            .input
            .get(self.at + 1..self.at + 1 + N)
            .ok_or(self.truncated(1 + N as u64))?;
        self.at += 1 + N;
        Ok(tail
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn count(&self, count: u64, bytes_each: u64) -> Result<usize, DecodeError> {
        let needed = count.saturating_mul(bytes_each);
        if needed > self.remaining() as u64 {
            return Err(self.truncated(needed));
        }
        usize::try_from(count).map_err(|_| self.truncated(needed))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= rest.len())
            .ok_or(self.truncated(length))?;
        self.at += length;
        Ok(rest.get(..length).unwrap_or_default())
    }

    fn byte(&mut self) -> u8 {
        let byte = self.input.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        byte
    }

    fn truncated(&self, needed: u64) -> DecodeError {
        DecodeError::Truncated {
            offset: self.at,
            needed,
            had: self.remaining(),
        }
    }

    fn unexpected(&self, expected: &'static str) -> DecodeError {
        DecodeError::Unexpected {
            offset: self.at,
            expected,
        }
    }
}

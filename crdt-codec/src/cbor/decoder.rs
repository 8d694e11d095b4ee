//! Reading items.

use std::collections::BTreeMap;

use cid::Cid;
use ipld_core::ipld::Ipld;

use super::{
    ARRAY, BYTES, DEPTH_MAX, DecodeError, FALSE, FLOAT64, KEY_BYTES_MAX, Kind, LINK_BYTES_MAX, MAP,
    NEGATIVE, NULL, TAG, TEXT, TRUE, UNSIGNED, key_order,
};

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
        let first = *self.input.get(self.at).ok_or_else(|| self.truncated(1))?;
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

    /// Passes over any value, checked as strictly as if it were read, and returns its bytes.
    /// Allocates nothing.
    ///
    /// # Errors
    ///
    /// As [`Decoder::ipld`].
    pub fn skip(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        self.skip_within(DEPTH_MAX, |it| it.head(NEGATIVE, "an integer").map(|_| ()))?;
        Ok(self.since(start))
    }

    /// Passes over any value that nests at most `depth` deep; `negative` passes over integers below
    /// zero, whose bounds differ.
    pub(crate) fn skip_within(
        &mut self,
        depth: usize,
        negative: fn(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let offset = self.at;
        let inside = depth.checked_sub(1).ok_or(DecodeError::TooDeep { offset });
        match self.peek()? {
            Kind::Text => self.text().map(|_| ()),
            Kind::Unsigned => self.uint().map(|_| ()),
            Kind::Negative => negative(self),
            Kind::Bool => self.bool().map(|_| ()),
            Kind::Null => self.null().map(|_| ()),
            Kind::Float => self.float().map(|_| ()),
            Kind::Bytes => self.bytes().map(|_| ()),
            Kind::Link => self.link().map(|_| ()),
            Kind::Array => {
                let depth = inside?;
                for _ in 0..self.array()? {
                    self.skip_within(depth, negative)?;
                }
                Ok(())
            }
            Kind::Map => {
                let depth = inside?;
                let mut previous = None;
                for _ in 0..self.map()? {
                    previous = Some(self.key(previous)?);
                    self.skip_within(depth, negative)?;
                }
                Ok(())
            }
        }
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
        let first = *self.input.get(offset).ok_or_else(|| self.truncated(1))?;
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
            .ok_or_else(|| self.truncated(1 + N as u64))?;
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
            .ok_or_else(|| self.truncated(length))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::{decode_ipld, encode_ipld};

    fn refused(bytes: &[u8], expected: DecodeError) {
        assert_eq!(decode_ipld(bytes), Err(expected.clone()));
        assert_eq!(Decoder::new(bytes).skip().map(|_| ()), Err(expected));
    }

    #[test]
    fn longer_heads_than_needed_are_refused() {
        for bytes in [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255]] {
            refused(bytes, DecodeError::NotMinimal { offset: 0 });
        }
        refused(
            &[0x81, 0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
            DecodeError::NotMinimal { offset: 1 },
        );
    }

    #[test]
    fn what_dag_cbor_lacks_is_refused() {
        // Half, single, undefined, an unassigned simple value, an indefinite list, another tag.
        for bytes in [
            &[0xf9, 0, 0][..],
            &[0xfa, 0, 0, 0, 0],
            &[0xf7],
            &[0xe0],
            &[0x9f, 0xff],
            &[0xc1, 0],
        ] {
            refused(bytes, DecodeError::Forbidden { offset: 0 });
        }
    }

    #[test]
    fn floats_that_json_lacks_are_refused() {
        for float in [-0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let bytes = [&[0xfb][..], &float.to_bits().to_be_bytes()].concat();
            refused(&bytes, DecodeError::BadFloat { offset: 0 });
        }
    }

    #[test]
    fn keys_out_of_order_or_twice_are_refused() {
        refused(
            b"\xa2\x61b\x01\x61a\x02",
            DecodeError::KeyOrder { offset: 4 },
        );
        refused(
            b"\xa2\x61a\x01\x61a\x02",
            DecodeError::KeyOrder { offset: 4 },
        );
        refused(
            b"\xa2\x62aa\x01\x61b\x02",
            DecodeError::KeyOrder { offset: 5 },
        );
    }

    #[test]
    fn claims_beyond_the_input_are_refused_before_they_are_believed() {
        let claim = [0x9b, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        refused(
            &claim,
            DecodeError::Truncated {
                offset: 9,
                needed: 0xffff_ffff_ffff,
                had: 0,
            },
        );
        refused(
            &[0x44, 1, 2],
            DecodeError::Truncated {
                offset: 1,
                needed: 4,
                had: 2,
            },
        );
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x80]].concat();
        assert!(decode_ipld(&nested(DEPTH_MAX - 1)).is_ok());
        refused(
            &nested(DEPTH_MAX),
            DecodeError::TooDeep { offset: DEPTH_MAX },
        );
        refused(&nested(1 << 20), DecodeError::TooDeep { offset: DEPTH_MAX });
    }

    #[test]
    fn what_follows_a_value_is_refused() {
        let trailing = DecodeError::Trailing { offset: 1, had: 2 };
        assert_eq!(decode_ipld(&[1, 2, 3]), Err(trailing));
    }

    #[test]
    fn integers_reach_from_minus_two_to_the_64() {
        for value in [0, -1, i128::from(u64::MAX), -1 - i128::from(u64::MAX)] {
            let bytes = encode_ipld(&Ipld::Integer(value));
            assert_eq!(decode_ipld(&bytes), Ok(Ipld::Integer(value)));
        }
        let below = encode_ipld(&Ipld::Integer(i128::from(i64::MIN) - 1));
        let error = DecodeError::OutOfBounds {
            offset: 0,
            what: "a signed 64-bit number",
        };
        assert_eq!(Decoder::new(&below).int(), Err(error));
    }

    #[test]
    fn links_hold_one_cid() {
        refused(&[0xd8, 42, 0x41, 0], DecodeError::BadLink { offset: 0 });
        refused(&[0xd8, 42, 0x42, 1, 1], DecodeError::BadLink { offset: 0 });
    }
}

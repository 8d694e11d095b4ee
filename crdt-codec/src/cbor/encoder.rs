//! Writing items.

use cid::Cid;
use ipld_core::ipld::Ipld;

use super::{
    ARRAY, BYTES, FALSE, FLOAT64, MAP, NEGATIVE, NULL, TAG, TEXT, TRUE, UNSIGNED, key_order,
};

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

    /// Makes an encoder with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self::append_to(Vec::with_capacity(bytes))
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
    #[inline]
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value)
    }

    /// Writes any integer.
    #[inline]
    pub fn int(&mut self, value: i64) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            Err(_) => self.head(NEGATIVE, !value.cast_unsigned()),
        }
    }

    /// Writes a byte string.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
        self
    }

    /// Writes a text string.
    #[inline]
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    /// Announces a list of `count` items.
    #[inline]
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(ARRAY, count as u64)
    }

    /// Announces a map of `count` keys, each followed by its value.
    #[inline]
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(MAP, count as u64)
    }

    /// Writes a truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { TRUE } else { FALSE });
        self
    }

    /// Writes null.
    #[inline]
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
    #[inline]
    pub fn raw(&mut self, items: &[u8]) -> &mut Self {
        self.out.extend_from_slice(items);
        self
    }

    #[inline]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: impl FnOnce(&mut Encoder) -> &mut Encoder, expected: &[u8]) {
        let mut encoder = Encoder::new();
        write(&mut encoder);
        assert_eq!(encoder.as_slice(), expected);
    }

    #[test]
    fn heads_are_as_short_as_can_be() {
        check(|it| it.uint(23), &[23]);
        check(|it| it.uint(24), &[0x18, 24]);
        check(|it| it.uint(256), &[0x19, 1, 0]);
        check(|it| it.uint(1 << 16), &[0x1a, 0, 1, 0, 0]);
        check(|it| it.uint(1 << 32), &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]);
        check(|it| it.int(-24), &[0x37]);
        check(
            |it| it.int(i64::MIN),
            b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff",
        );
    }

    #[test]
    fn negative_zero_is_written_as_zero() {
        check(|it| it.float(-0.0), &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn keys_are_written_shorter_first() {
        let map = ipld_core::ipld!({"b": 1, "aa": 2, "a": 3});
        check(|it| it.ipld(&map), b"\xa3\x61a\x03\x61b\x01\x62aa\x02");
    }
}

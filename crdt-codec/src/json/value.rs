//! JSON values, checked once and kept in their one encoding.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use ipld_core::ipld::Ipld;

use super::position::PositionError;
use crate::cbor::{self, DEPTH_MAX, DecodeError, Decoder, Encoder, KEY_BYTES_MAX, Kind, head_len};

/// Longest encoding of one value, in bytes.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;

/// A JSON value that lies within the bounds of this format, in strict dag-cbor.
///
/// Integers lie within `i64::MIN..=u64::MAX`; floats are finite and never -0.0; bytes and links are
/// allowed because documents may carry them; map keys have at most [`KEY_BYTES_MAX`] bytes; lists
/// and maps nest at most [`DEPTH_MAX`] deep less the path of the value; the whole has at most
/// [`VALUE_BYTES_MAX`] bytes. Equal values have equal bytes, and `1` and `1.0` are not equal.
///
/// # Examples
///
/// ```
/// use ipld_core::{ipld, ipld::Ipld};
/// use leno_crdt_codec::json::Value;
///
/// let value = Value::new(&ipld!({"title": "Blue", "year": 1971}))?;
/// assert_eq!(value.to_ipld(), ipld!({"year": 1971, "title": "Blue"}));
/// assert!(Value::new(&Ipld::Float(f64::NAN)).is_err());
/// # Ok::<(), leno_crdt_codec::json::ValueError>(())
/// ```
// Bytes order is the order in which sets are shown; do not derive `Ord` anew.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Value(Box<[u8]>);

/// Why a value, or a change made of it, does not fit this format: a mistake of the caller.
#[derive(Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// JSON has neither infinities nor NaN.
    #[error("a float is not finite")]
    NotFinite,
    /// Integers lie within `i64::MIN..=u64::MAX`.
    #[error("the integer {value} lies outside -2^63 to 2^64 - 1")]
    IntegerRange {
        /// The integer.
        value: i128,
    },
    /// Lists and maps nest too deep, the path of the value included.
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// A map key or a segment of a path is too long.
    #[error("a key of {bytes} bytes, above {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A value or a link is too long.
    #[error("a value of {bytes} bytes, above {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest.
        bytes_max: usize,
    },
    /// The strategy of a field asks for another kind of value.
    #[error("expected {expected} at {path:?}")]
    Expected {
        /// Where.
        path: Vec<String>,
        /// What the strategy asks for.
        expected: &'static str,
    },
    /// A count is out of bounds.
    #[error("{count} {what}, above {max} or below the least")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The most.
        max: usize,
    },
    /// Two edits of one op touch the same thing.
    #[error("two edits of one op touch the same thing at {path:?}")]
    Duplicate {
        /// Where.
        path: Vec<String>,
    },
    /// An edit names replaced dots, but its change replaces nothing, or names a log twice.
    #[error("the change at {path:?} cannot replace what it names")]
    Seen {
        /// Where.
        path: Vec<String>,
    },
    /// Lives are counted from 1.
    #[error("a life is counted from 1")]
    Life,
    /// There is no position for a list element.
    #[error("no position for a list element")]
    Position(#[from] PositionError),
}

impl Value {
    /// Checks a value and encodes it; -0.0 becomes 0.0.
    ///
    /// # Errors
    ///
    /// [`ValueError`] says which bound is passed.
    pub fn new(value: &Ipld) -> Result<Self, ValueError> {
        // A value lies in a document at a path of at least one key.
        let bytes = check(value, DEPTH_MAX - 1)?;
        if bytes > VALUE_BYTES_MAX {
            return Err(ValueError::TooLarge {
                bytes,
                bytes_max: VALUE_BYTES_MAX,
            });
        }
        let mut encoder = Encoder::with_capacity(bytes);
        encoder.ipld(value);
        Ok(Self(encoder.into_vec().into()))
    }

    /// Makes a value of a text.
    ///
    /// # Errors
    ///
    /// [`ValueError::TooLarge`].
    pub fn text(value: &str) -> Result<Self, ValueError> {
        let mut encoder = Encoder::with_capacity(string_len(value.len()));
        encoder.text(value);
        Self::from_checked(encoder.into_vec().into())
    }

    /// Makes a value of an integer.
    #[must_use]
    pub fn int(value: i64) -> Self {
        let mut encoder = Encoder::new();
        encoder.int(value);
        Self(encoder.into_vec().into())
    }

    /// Reads one value, which may nest `depth` deep.
    pub(super) fn decode(decoder: &mut Decoder<'_>, depth: usize) -> Result<Self, DecodeError> {
        Ok(Self(scan_value(decoder, depth)?.into()))
    }

    /// Takes bytes that were scanned before.
    pub(super) fn from_scanned(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    fn from_checked(bytes: Box<[u8]>) -> Result<Self, ValueError> {
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(ValueError::TooLarge {
                bytes: bytes.len(),
                bytes_max: VALUE_BYTES_MAX,
            });
        }
        Ok(Self(bytes))
    }

    /// Borrows its strict dag-cbor.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Decodes it.
    #[must_use]
    pub fn to_ipld(&self) -> Ipld {
        cbor::decode_ipld(&self.0).expect("a value holds one checked item")
    }

    /// The number, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<Number> {
        let mut decoder = Decoder::new(&self.0);
        match decoder.peek().ok()? {
            Kind::Unsigned => decoder.uint().ok().map(|it| Number::Integer(it.into())),
            Kind::Negative => decoder.int().ok().map(|it| Number::Integer(it.into())),
            Kind::Float => decoder.float().ok().map(Number::Float),
            Kind::Bytes
            | Kind::Text
            | Kind::Array
            | Kind::Map
            | Kind::Link
            | Kind::Bool
            | Kind::Null => None,
        }
    }

    /// Tells whether lists and maps in it nest at most `depth` deep.
    pub(super) fn fits(&self, depth: usize) -> bool {
        depth + 1 >= DEPTH_MAX || scan(&mut Decoder::new(&self.0), depth).is_ok()
    }
}

/// Equal values have equal bytes, so that a map keyed by values is searched by bytes.
impl Borrow<[u8]> for Value {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Value({:?})", self.to_ipld())
    }
}

/// A number of a JSON value, compared exactly: no integer is rounded to a float.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// Within `i64::MIN..=u64::MAX`.
    Integer(i128),
    /// Finite.
    Float(f64),
}

impl Number {
    /// Compares by value; `1` and `1.0` are equal here.
    #[must_use]
    pub fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (Self::Integer(a), Self::Float(b)) => compare_mixed(a, b),
            (Self::Float(a), Self::Integer(b)) => compare_mixed(b, a).reverse(),
        }
    }
}

fn compare_mixed(integer: i128, float: f64) -> Ordering {
    // Truncation is exact below 2^127 and saturates above, where every integer here is smaller.
    let whole = float.trunc();
    integer
        .cmp(&(whole as i128))
        .then_with(|| whole.total_cmp(&float))
}

/// Checks a value and returns the length of its encoding.
fn check(value: &Ipld, depth: usize) -> Result<usize, ValueError> {
    Ok(match value {
        Ipld::Integer(value) => {
            integer(*value)?;
            // Of a negative number its complement is written.
            head_len((*value).max(-1 - *value) as u64)
        }
        Ipld::Float(value) if !value.is_finite() => return Err(ValueError::NotFinite),
        Ipld::List(items) => {
            let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
            let mut bytes = head_len(items.len() as u64);
            for item in items {
                bytes += check(item, depth)?;
            }
            bytes
        }
        Ipld::Map(entries) => {
            let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
            let mut bytes = head_len(entries.len() as u64);
            for (key, value) in entries {
                check_key(key)?;
                bytes += string_len(key.len()) + check(value, depth)?;
            }
            bytes
        }
        Ipld::Link(cid) if cid.encoded_len() > cbor::LINK_BYTES_MAX => {
            return Err(ValueError::TooLarge {
                bytes: cid.encoded_len(),
                bytes_max: cbor::LINK_BYTES_MAX,
            });
        }
        // A tag of two bytes, then a zero and the CID as a byte string.
        Ipld::Link(cid) => 2 + string_len(1 + cid.encoded_len()),
        Ipld::Null | Ipld::Bool(_) => 1,
        Ipld::Float(_) => 9,
        Ipld::String(text) => string_len(text.len()),
        Ipld::Bytes(bytes) => string_len(bytes.len()),
    })
}

fn string_len(bytes: usize) -> usize {
    head_len(bytes as u64) + bytes
}

pub(super) fn check_key(key: &str) -> Result<(), ValueError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(ValueError::KeyTooLong { bytes: key.len() });
    }
    Ok(())
}

fn integer(value: i128) -> Result<(), ValueError> {
    if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value) {
        return Ok(());
    }
    Err(ValueError::IntegerRange { value })
}

/// Passes over one value with all its bounds, allocating nothing, and returns its bytes.
pub(super) fn scan_value<'a>(
    decoder: &mut Decoder<'a>,
    depth: usize,
) -> Result<&'a [u8], DecodeError> {
    let offset = decoder.offset();
    scan(decoder, depth)?;
    let bytes = decoder.since(offset);
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(DecodeError::OutOfBounds {
            offset,
            what: "the length of a value",
        });
    }
    Ok(bytes)
}

/// Strict dag-cbor, but for integers below i64, which are no JSON here.
fn scan(decoder: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    decoder.skip_within(depth, |it| it.int().map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Ipld {
        (0..depth).fold(Ipld::Null, |inner, _| Ipld::List(vec![inner]))
    }

    #[test]
    fn bounds_are_refused_by_name() {
        let check = |value: Ipld, expected| assert_eq!(Value::new(&value), Err(expected));
        check(Ipld::Float(f64::NAN), ValueError::NotFinite);
        check(
            Ipld::List(vec![Ipld::Float(f64::INFINITY)]),
            ValueError::NotFinite,
        );
        let below = i128::from(i64::MIN) - 1;
        check(
            Ipld::Integer(below),
            ValueError::IntegerRange { value: below },
        );
        let above = i128::from(u64::MAX) + 1;
        check(
            Ipld::Integer(above),
            ValueError::IntegerRange { value: above },
        );
        check(nested(DEPTH_MAX), ValueError::TooDeep);
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        let map = Ipld::Map([(key, Ipld::Null)].into());
        check(map, ValueError::KeyTooLong { bytes: 257 });
        let text = Ipld::String("x".repeat(VALUE_BYTES_MAX));
        let bytes_max = VALUE_BYTES_MAX;
        let bytes = VALUE_BYTES_MAX + 5;
        check(text, ValueError::TooLarge { bytes, bytes_max });
    }

    #[test]
    fn what_lies_on_the_bounds_is_taken() {
        for value in [
            Ipld::Integer(i64::MIN.into()),
            Ipld::Integer(u64::MAX.into()),
            nested(DEPTH_MAX - 1),
            Ipld::Bytes(vec![0; 9]),
            Ipld::Map([("k".repeat(KEY_BYTES_MAX), Ipld::Null)].into()),
            Ipld::String("x".repeat(VALUE_BYTES_MAX - 5)),
        ] {
            assert_eq!(Value::new(&value).map(|it| it.to_ipld()), Ok(value));
        }
    }

    #[test]
    fn length_is_known_before_encoding() {
        let numbers = [
            0,
            23,
            24,
            255,
            256,
            65_535,
            65_536,
            u32::MAX.into(),
            1 << 32,
        ];
        let mut values = vec![
            Ipld::Null,
            Ipld::Bool(true),
            Ipld::Float(0.5),
            Ipld::Integer(i64::MIN.into()),
            Ipld::Integer(u64::MAX.into()),
        ];
        for number in numbers {
            values.extend([Ipld::Integer(number), Ipld::Integer(-1 - number)]);
        }
        for length in [0, 1, 23, 24, 255, 256] {
            values.push(Ipld::String("x".repeat(length)));
            values.push(Ipld::Bytes(vec![0; length]));
            values.push(Ipld::List(vec![Ipld::Null; length]));
            values.push(Ipld::Map([("k".repeat(length), Ipld::Null)].into()));
        }
        let hash = cid::multihash::Multihash::wrap(0x12, &[7; 32]).unwrap();
        values.push(Ipld::Link(cid::Cid::new_v1(0x71, hash)));
        values.push(Ipld::List(values.clone()));
        for value in values {
            let bytes = cbor::encode_ipld(&value).len();
            assert_eq!(check(&value, DEPTH_MAX - 1), Ok(bytes), "{value:?}");
        }
    }

    #[test]
    fn negative_zero_is_zero() {
        assert_eq!(
            Value::new(&Ipld::Float(-0.0)),
            Value::new(&Ipld::Float(0.0))
        );
    }

    #[test]
    fn numbers_compare_without_rounding() {
        use Number::{Float, Integer};
        let check = |a: Number, b: Number, expected| {
            assert_eq!(a.compare(b), expected, "{a:?} {b:?}");
            assert_eq!(b.compare(a), expected.reverse(), "{b:?} {a:?}");
        };
        // 2^53 + 1 has no float of its own.
        check(
            Integer((1 << 53) + 1),
            Float((1_u64 << 53) as f64),
            Ordering::Greater,
        );
        check(
            Integer(u64::MAX.into()),
            Float(u64::MAX as f64),
            Ordering::Less,
        );
        check(
            Integer(i64::MIN.into()),
            Float(i64::MIN as f64),
            Ordering::Equal,
        );
        check(Integer(1), Float(1.0), Ordering::Equal);
        check(Integer(1), Float(1.5), Ordering::Less);
        check(Integer(-1), Float(-1.5), Ordering::Greater);
        check(Integer(0), Float(f64::MIN_POSITIVE), Ordering::Less);
        check(Integer(u64::MAX.into()), Float(f64::MAX), Ordering::Less);
        check(Integer(i64::MIN.into()), Float(f64::MIN), Ordering::Greater);
    }
}

//! Which facet of each field a collection reads and writes.

use std::collections::BTreeMap;

use super::op::PATH_SEGMENTS_MAX;
use super::value::{ValueError, check_key};
use crate::cbor::{DecodeError, Decoder, Encoder, Kind, key_order};

/// Most fields in a definition, nested ones included.
pub const DEFINITION_FIELDS_MAX: usize = 1_024;

/// How concurrent changes of one field come together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Strategy {
    /// The last write wins as a whole; concurrent losers stay readable as conflicts.
    #[default]
    Register,
    /// Increments add up.
    Counter,
    /// A set that elements are only added to.
    GrowSet,
    /// A set; a concurrent add outlives a remove.
    Set,
    /// A map whose fields come together one by one.
    Map(Definition),
    /// A list; elements keep their places.
    List,
    /// The greatest number that was ever written.
    Max,
    /// The least number that was ever written.
    Min,
}

/// The strategies of the fields of a document, or of a map in one.
///
/// # Shape
///
/// Strict dag-cbor: `[{name: strategy, ..}, other or null]`. A strategy is its number: register 0,
/// counter 1, grow-only set 2, set 3, list 4, max 5, min 6; a map is its definition. Maps nest so
/// that no path exceeds [`PATH_SEGMENTS_MAX`]; at most [`DEFINITION_FIELDS_MAX`] fields in all.
///
/// # Examples
///
/// ```
/// use leno_crdt_codec::json::{Definition, Strategy};
///
/// let songs = Definition::default()
///     .field("plays", Strategy::Counter)
///     .field("tags", Strategy::Set);
/// assert_eq!(Definition::decode(&songs.encode())?, songs);
/// # Ok::<(), leno_crdt_codec::cbor::DecodeError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Definition {
    /// The fields that have a strategy of their own.
    pub fields: BTreeMap<String, Strategy>,
    /// The strategy of all other fields. `None` writes registers, and shows whatever facet such a
    /// field has: its register first.
    pub other: Option<Box<Strategy>>,
}

impl Definition {
    /// Declares one more field.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, strategy: Strategy) -> Self {
        self.fields.insert(name.into(), strategy);
        self
    }

    /// Declares the strategy of all other fields.
    #[must_use]
    pub fn other(mut self, strategy: Strategy) -> Self {
        self.other = Some(Box::new(strategy));
        self
    }

    /// The strategy of a field, if one is declared for it or for all others.
    #[must_use]
    pub fn of(&self, field: &str) -> Option<&Strategy> {
        self.fields.get(field).or(self.other.as_deref())
    }

    /// Checks that it is within bounds; only then will [`Definition::decode`] take its bytes.
    ///
    /// # Errors
    ///
    /// [`ValueError`] says which bound is passed.
    pub fn check(&self) -> Result<(), ValueError> {
        self.check_within(1, &mut 0)
    }

    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.encode_to(&mut encoder);
        encoder.into_vec()
    }

    /// Decodes it, strictly.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let definition = Self::decode_from(&mut decoder)?;
        decoder.finish()?;
        Ok(definition)
    }

    /// Writes it.
    pub fn encode_to(&self, encoder: &mut Encoder) {
        encoder.array(2).map(self.fields.len());
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_by(|(a, _), (b, _)| key_order(a, b));
        for (name, strategy) in fields {
            encoder.text(name);
            strategy.encode_to(encoder);
        }
        match &self.other {
            Some(strategy) => strategy.encode_to(encoder),
            None => {
                encoder.null();
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the next item is no definition.
    pub fn decode_from(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Self::decode_within(decoder, 1, &mut 0)
    }

    fn check_within(&self, segments: usize, count: &mut usize) -> Result<(), ValueError> {
        if segments > PATH_SEGMENTS_MAX {
            return Err(ValueError::Count {
                what: "segments in a path",
                count: segments,
                max: PATH_SEGMENTS_MAX,
            });
        }
        *count += self.fields.len();
        if *count > DEFINITION_FIELDS_MAX {
            return Err(ValueError::Count {
                what: "fields in a definition",
                count: *count,
                max: DEFINITION_FIELDS_MAX,
            });
        }
        self.fields.keys().try_for_each(|name| check_key(name))?;
        let strategies = self.fields.values().chain(self.other.as_deref());
        for strategy in strategies {
            if let Strategy::Map(definition) = strategy {
                definition.check_within(segments + 1, count)?;
            }
        }
        Ok(())
    }

    fn decode_within(
        decoder: &mut Decoder<'_>,
        segments: usize,
        count: &mut usize,
    ) -> Result<Self, DecodeError> {
        let offset = decoder.offset();
        if segments > PATH_SEGMENTS_MAX {
            return Err(DecodeError::TooDeep { offset });
        }
        decoder.array_of(2)?;
        let fields_here = decoder.map()?;
        *count = count.saturating_add(fields_here);
        if *count > DEFINITION_FIELDS_MAX {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the number of fields",
            });
        }
        let mut fields = BTreeMap::new();
        let mut previous = None;
        for _ in 0..fields_here {
            let name = decoder.key(previous)?;
            let strategy = Strategy::decode_within(decoder, segments, count)?;
            fields.insert(name.to_owned(), strategy);
            previous = Some(name);
        }
        let other = match decoder.null()? {
            true => None,
            false => Some(Box::new(Strategy::decode_within(decoder, segments, count)?)),
        };
        Ok(Self { fields, other })
    }
}

impl Strategy {
    fn encode_to(&self, encoder: &mut Encoder) {
        let number = match self {
            Self::Register => 0,
            Self::Counter => 1,
            Self::GrowSet => 2,
            Self::Set => 3,
            Self::List => 4,
            Self::Max => 5,
            Self::Min => 6,
            Self::Map(definition) => return definition.encode_to(encoder),
        };
        encoder.uint(number);
    }

    fn decode_within(
        decoder: &mut Decoder<'_>,
        segments: usize,
        count: &mut usize,
    ) -> Result<Self, DecodeError> {
        let offset = decoder.offset();
        if decoder.peek()? == Kind::Array {
            return Definition::decode_within(decoder, segments + 1, count).map(Self::Map);
        }
        Ok(match decoder.uint()? {
            0 => Self::Register,
            1 => Self::Counter,
            2 => Self::GrowSet,
            3 => Self::Set,
            4 => Self::List,
            5 => Self::Max,
            6 => Self::Min,
            _ => {
                return Err(DecodeError::OutOfBounds {
                    offset,
                    what: "the number of a strategy",
                });
            }
        })
    }
}

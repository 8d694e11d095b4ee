//! Definitions of collections, replicated as facts of the roster.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::json::{self, ValueError};
use leno_threads_core::RosterOp;

use crate::key::is_collection_name;

/// What the keys of facts about collections begin with.
pub const COLLECTION_FACT_PREFIX: &str = "collection/";

/// The layout of a fact's value.
const VERSION: u64 = 1;

/// How a collection's documents are written and shown.
///
/// State does not depend on it: peers who know different definitions hold the same state.
///
/// # Examples
///
/// ```
/// use leno_threads_core::RosterOp;
/// use leno_threads_db::{Definition, Strategies, Strategy};
///
/// let strategies = Strategies::default().field("plays", Strategy::Counter);
/// let definition = Definition { version: 1, strategies };
/// let RosterOp::Fact { key, version, value } = definition.to_fact("songs")? else { unreachable!() };
/// assert_eq!((key.as_str(), version), ("collection/songs", 1));
/// assert_eq!(Definition::from_fact(&key, version, &value)?, ("songs", definition));
/// # Ok::<(), leno_threads_db::DefinitionError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Definition {
    /// Of two definitions of a collection, the higher version counts.
    pub version: u64,
    /// How concurrent changes of each field come together.
    pub strategies: json::Definition,
}

/// Why a definition is not taken in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The bytes are no definition.
    #[error("the definition does not decode")]
    Decode(#[from] DecodeError),
    /// A later version of this program made it.
    #[error("the definition has the unknown layout {version}")]
    UnknownLayout {
        /// The layout.
        version: u64,
    },
    /// The strategies are out of bounds.
    #[error("the strategies are out of bounds")]
    Strategies(#[from] ValueError),
    /// The key of the fact, or the name given, names no collection.
    #[error("{name:?} names no collection")]
    Name {
        /// What should have been a name.
        name: String,
    },
}

impl Definition {
    /// Makes the fact that tells all members.
    ///
    /// # Shape
    ///
    /// Key [`COLLECTION_FACT_PREFIX`] and the name; value `[1, strategies]`, strict dag-cbor.
    ///
    /// # Errors
    ///
    /// [`DefinitionError::Name`], [`DefinitionError::Strategies`].
    pub fn to_fact(&self, collection: &str) -> Result<RosterOp, DefinitionError> {
        let key = format!("{COLLECTION_FACT_PREFIX}{collection}");
        collection_of(&key)?;
        self.strategies.check()?;
        Ok(RosterOp::Fact {
            key,
            version: self.version,
            value: self.encode(),
        })
    }

    /// Reads a fact: the name of the collection, and its definition.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`].
    pub fn from_fact<'a>(
        key: &'a str,
        version: u64,
        value: &[u8],
    ) -> Result<(&'a str, Self), DefinitionError> {
        Ok((collection_of(key)?, Self::decode(version, value)?))
    }

    /// The value of the fact.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(2).uint(VERSION);
        self.strategies.encode_to(&mut encoder);
        encoder.into_vec()
    }

    pub(crate) fn decode(version: u64, value: &[u8]) -> Result<Self, DefinitionError> {
        let mut decoder = Decoder::new(value);
        let offset = decoder.offset();
        let items = decoder.array()?;
        match decoder.uint()? {
            VERSION if items == 2 => {}
            VERSION => {
                let what = "the length of a definition";
                return Err(DecodeError::OutOfBounds { offset, what }.into());
            }
            version => return Err(DefinitionError::UnknownLayout { version }),
        }
        let strategies = json::Definition::decode_from(&mut decoder)?;
        decoder.finish()?;
        Ok(Self {
            version,
            strategies,
        })
    }
}

fn collection_of(key: &str) -> Result<&str, DefinitionError> {
    key.strip_prefix(COLLECTION_FACT_PREFIX)
        .filter(|name| is_collection_name(name))
        .ok_or_else(|| DefinitionError::Name {
            name: key.chars().take(200).collect(),
        })
}

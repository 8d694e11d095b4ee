//! `did:key`: a public key as text.
//!
//! Source: <https://w3c-ccg.github.io/did-key-spec/>. Only base58btc is read, which is what the
//! method prescribes; a DID with a path, a query or a fragment is not a key and is refused.

use std::{fmt, str::FromStr};

use crate::{KeyError, PublicKey};

/// Longest text of a [`Did`], in bytes: the prefix, and base58 of the longest key.
pub const DID_BYTES_MAX: usize = 57;

const PREFIX: &str = "did:key:z";

/// The name of a public key in text, such as `did:key:z6Mk…`.
///
/// There is one text for one key: what is parsed is what is shown.
///
/// # Examples
///
/// ```
/// use leno_identity::{Did, KeyKind};
///
/// let text = "did:key:zDnaerx9CtbPJ1q36T5Ln5wYt3MQYeGRG5ehnPAmxcf5mDZpv";
/// let did: Did = text.parse()?;
/// assert_eq!(did.public_key().kind(), KeyKind::P256);
/// assert_eq!(did.to_string(), text);
/// # Ok::<(), leno_identity::DidError>(())
/// ```
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Did(PublicKey);

impl Did {
    /// Returns the key that is named.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.0
    }
}

impl From<PublicKey> for Did {
    fn from(key: PublicKey) -> Self {
        Self(key)
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` keeps width and alignment working.
        let base58 = bs58::encode(self.0.to_bytes()).into_string();
        f.pad(&format!("{PREFIX}{base58}"))
    }
}

impl fmt::Debug for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Did({self})")
    }
}

impl FromStr for Did {
    type Err = DidError;

    /// Reads a DID.
    ///
    /// # Errors
    ///
    /// [`DidError`] says what is wrong. Nothing is trimmed, folded or repaired.
    fn from_str(text: &str) -> Result<Self, DidError> {
        if text.len() > DID_BYTES_MAX {
            return Err(DidError::TooLong { had: text.len() });
        }
        let base58 = text.strip_prefix(PREFIX).ok_or(DidError::NotDidKey)?;
        let bytes = bs58::decode(base58).into_vec();
        let bytes = bytes.map_err(|_| DidError::NotBase58)?;
        let did = Self(PublicKey::decode(&bytes)?);
        if did.to_string() != text {
            return Err(DidError::NotCanonical);
        }
        Ok(did)
    }
}

/// Why a text is not a `did:key`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DidError {
    /// The text is longer than any key that is understood.
    #[error("text of {had} bytes is longer than {DID_BYTES_MAX}")]
    TooLong {
        /// Bytes of the text.
        had: usize,
    },
    /// The text is another DID method, another multibase, or no DID at all.
    #[error("text does not begin with did:key:z")]
    NotDidKey,
    /// A character is not of the base58btc alphabet.
    #[error("text is not base58btc")]
    NotBase58,
    /// The decoded bytes are not a public key.
    #[error("text does not name a public key")]
    Key(#[from] KeyError),
    /// The same key has another text.
    #[error("text is not the one form of this key")]
    NotCanonical,
}

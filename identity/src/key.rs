//! Public keys and signatures of any kind, tagged with their multicodec.
//!
//! A tag is part of the bytes, so a key of one kind never passes for a key of another. Every kind
//! listed in [`KeyKind`] can be stored, compared and shown; only Ed25519 is verified today. A kind
//! that is not listed is a typed refusal, which a caller can hold back until it understands more.

use std::fmt;

use crate::{AgreementPublicKey, Did, Label, VerifyingKey, varint};

/// Longest encoding of a [`PublicKey`], in bytes: a tag of two, and 33 of the key.
pub const PUBLIC_KEY_BYTES_MAX: usize = 35;

/// Longest encoding of a [`Signature`], in bytes: a tag of three, and 65 of the
/// signature, or a tag of four and 64.
pub const SIGNATURE_BYTES_MAX: usize = 68;

const RAW_KEY_BYTES_MAX: usize = 33;

/// What a public key is a point of, and how it is written.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum KeyKind {
    /// Ed25519, 32 bytes: signs.
    Ed25519,
    /// X25519, 32 bytes: agrees on secrets, never signs.
    X25519,
    /// secp256k1, compressed, 33 bytes: signs, as Ethereum wallets do.
    Secp256k1,
    /// P-256, compressed, 33 bytes: signs, as passkeys do.
    P256,
}

impl KeyKind {
    /// Every kind that is understood.
    pub const ALL: &'static [Self] = &[Self::Ed25519, Self::X25519, Self::Secp256k1, Self::P256];

    /// Returns the multicodec that tags keys of this kind.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Ed25519 => 0xed,
            Self::X25519 => 0xec,
            Self::Secp256k1 => 0xe7,
            Self::P256 => 0x1200,
        }
    }

    /// Returns the length of a key of this kind without its tag, in bytes.
    #[must_use]
    pub const fn raw_bytes(self) -> usize {
        match self {
            Self::Ed25519 | Self::X25519 => 32,
            Self::Secp256k1 | Self::P256 => RAW_KEY_BYTES_MAX,
        }
    }

    /// Tells whether keys of this kind make signatures.
    #[must_use]
    pub const fn signs(self) -> bool {
        match self {
            Self::Ed25519 | Self::Secp256k1 | Self::P256 => true,
            Self::X25519 => false,
        }
    }

    fn from_code(code: u64) -> Result<Self, KeyError> {
        let mut kinds = Self::ALL.iter().copied();
        kinds
            .find(|kind| kind.code() == code)
            .ok_or(KeyError::UnknownKind { code })
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::X25519 => "X25519",
            Self::Secp256k1 => "secp256k1",
            Self::P256 => "P-256",
        })
    }
}

/// A public key of any kind, as it is stored, sent and named by a [`Did`].
///
/// The bytes have the right length and form for their kind. Whether they are a point of the curve,
/// and a safe one, is checked where the key is used: [`PublicKey::verify`],
/// [`PublicKey::to_verifying_key`]. Whoever verifies often keeps the [`VerifyingKey`].
///
/// # Shape
///
/// `multicodec: varint | key`: 34 bytes for Ed25519 and X25519, 35 for secp256k1 and P-256.
///
/// # Examples
///
/// ```
/// use leno_identity::{KeyKind, PublicKey};
///
/// let key = PublicKey::from_raw(KeyKind::X25519, &[9; 32])?;
/// assert_eq!(key.to_bytes()[..2], [0xec, 0x01]);
/// assert_eq!(PublicKey::decode(&key.to_bytes())?, key);
/// # Ok::<(), leno_identity::KeyError>(())
/// ```
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey {
    kind: KeyKind,
    // A shorter key is followed by zeros, so the derived comparisons see only the key.
    padded: [u8; RAW_KEY_BYTES_MAX],
}

impl PublicKey {
    /// Takes the bytes of a key without a tag.
    ///
    /// # Errors
    ///
    /// - [`KeyError::Length`] unless there are [`KeyKind::raw_bytes`] of them.
    /// - [`KeyError::NotCompressed`] if a secp256k1 or P-256 key does not begin with 2 or 3.
    pub fn from_raw(kind: KeyKind, raw: &[u8]) -> Result<Self, KeyError> {
        if raw.len() != kind.raw_bytes() {
            return Err(KeyError::Length {
                needed: kind.raw_bytes(),
                had: raw.len(),
            });
        }
        let first = raw.first().copied().unwrap_or_default();
        if matches!(kind, KeyKind::Secp256k1 | KeyKind::P256) && !matches!(first, 2 | 3) {
            return Err(KeyError::NotCompressed { first });
        }
        let mut padded = [0; RAW_KEY_BYTES_MAX];
        for (to, from) in padded.iter_mut().zip(raw) {
            *to = *from;
        }
        Ok(Self { kind, padded })
    }

    /// Reads a tagged key.
    ///
    /// # Errors
    ///
    /// - [`KeyError::Truncated`], [`KeyError::TagNotMinimal`], [`KeyError::TagTooLong`] if the tag is
    ///   not a varint in its shortest form.
    /// - [`KeyError::UnknownKind`] if the tag is none of [`KeyKind`].
    /// - As [`PublicKey::from_raw`]; bytes that follow the key count as a wrong length.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let (code, raw) = varint::read(bytes)?;
        Self::from_raw(KeyKind::from_code(code)?, raw)
    }

    /// Writes the tag and the key.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PUBLIC_KEY_BYTES_MAX);
        varint::write(self.kind.code(), &mut bytes);
        bytes.extend_from_slice(self.as_raw());
        bytes
    }

    /// Returns the kind of the key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Borrows the key without its tag.
    #[must_use]
    pub fn as_raw(&self) -> &[u8] {
        let raw = self.padded.get(..self.kind.raw_bytes());
        raw.expect("no kind is longer than the padded key")
    }

    /// Returns the key's name in text.
    #[must_use]
    pub fn to_did(&self) -> Did {
        Did::from(*self)
    }

    /// Proves that this is an Ed25519 key that signatures can be verified with.
    ///
    /// # Errors
    ///
    /// - [`VerifyError::UnsupportedKey`] for another kind.
    /// - [`VerifyError::Key`] if the key is not a point, not canonical, or of small order.
    pub fn to_verifying_key(&self) -> Result<VerifyingKey, VerifyError> {
        match (self.kind, self.as_raw().try_into()) {
            (KeyKind::Ed25519, Ok(raw)) => Ok(VerifyingKey::from_bytes(raw)?),
            (kind, _) => Err(VerifyError::UnsupportedKey { kind }),
        }
    }

    /// Verifies a signature over [`Label::message`].
    ///
    /// # Errors
    ///
    /// As [`PublicKey::verify_message`].
    pub fn verify(
        &self,
        label: Label,
        parts: &[&[u8]],
        signature: &Signature,
    ) -> Result<(), VerifyError> {
        self.verify_message(&label.message(parts), signature)
    }

    /// Verifies a signature over bytes that already begin with a label.
    ///
    /// # Errors
    ///
    /// - [`VerifyError::UnsupportedKey`] for every kind but Ed25519. It says nothing about the
    ///   signature: hold the statement back rather than throw it away.
    /// - [`VerifyError::WrongKind`] if a key of this kind does not make such a signature.
    /// - [`VerifyError::Key`] if the key is not a safe point of its curve.
    /// - [`VerifyError::Mismatch`] if the signature does not hold.
    pub fn verify_message(&self, message: &[u8], signature: &Signature) -> Result<(), VerifyError> {
        let key = self.to_verifying_key()?;
        match (signature.kind, signature.as_raw().try_into()) {
            (SignatureKind::Ed25519, Ok(raw)) => key.verify_message(message, raw),
            (signature, _) => Err(VerifyError::WrongKind {
                key: self.kind,
                signature,
            }),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_did())
    }
}

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        Self::from_raw(KeyKind::Ed25519, key.as_bytes()).expect("an Ed25519 key has 32 bytes")
    }
}

impl From<AgreementPublicKey> for PublicKey {
    fn from(key: AgreementPublicKey) -> Self {
        Self::from_raw(KeyKind::X25519, key.as_bytes()).expect("an X25519 key has 32 bytes")
    }
}

/// How a signature was made.
///
/// The codes are those that the multicodec table gives to signatures; they differ from those of keys,
/// because one key may sign in more than one way.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum SignatureKind {
    /// Ed25519 as in RFC 8032, 64 bytes.
    Ed25519,
    /// ECDSA on secp256k1 over the text form, prefixed as EIP-191 says, 65 bytes: r, s, v.
    Eip191,
    /// ECDSA on P-256 with SHA-256, 64 bytes: r, s.
    P256,
}

impl SignatureKind {
    /// Every kind that is understood.
    pub const ALL: &'static [Self] = &[Self::Ed25519, Self::Eip191, Self::P256];

    /// Returns the number that tags signatures of this kind.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Ed25519 => 0xd0ed,
            Self::Eip191 => 0xd191,
            Self::P256 => 0xd0_1200,
        }
    }

    /// Returns the length of a signature of this kind without its tag, in bytes.
    #[must_use]
    pub const fn raw_bytes(self) -> usize {
        match self {
            Self::Ed25519 | Self::P256 => 64,
            Self::Eip191 => 65,
        }
    }

    fn from_code(code: u64) -> Result<Self, KeyError> {
        let mut kinds = Self::ALL.iter().copied();
        kinds
            .find(|kind| kind.code() == code)
            .ok_or(KeyError::UnknownKind { code })
    }
}

impl fmt::Display for SignatureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::Eip191 => "EIP-191",
            Self::P256 => "P-256",
        })
    }
}

/// A signature of any kind, not yet verified.
///
/// # Shape
///
/// `code: varint | signature`, at most [`SIGNATURE_BYTES_MAX`] bytes; 67 for Ed25519.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Signature {
    kind: SignatureKind,
    raw: Vec<u8>,
}

impl Signature {
    /// Takes the bytes of a signature without a tag.
    ///
    /// # Errors
    ///
    /// [`KeyError::Length`] unless there are [`SignatureKind::raw_bytes`] of them.
    pub fn from_raw(kind: SignatureKind, raw: &[u8]) -> Result<Self, KeyError> {
        if raw.len() != kind.raw_bytes() {
            return Err(KeyError::Length {
                needed: kind.raw_bytes(),
                had: raw.len(),
            });
        }
        let raw = raw.to_vec();
        Ok(Self { kind, raw })
    }

    /// Reads a tagged signature.
    ///
    /// # Errors
    ///
    /// - [`KeyError::Truncated`], [`KeyError::TagNotMinimal`], [`KeyError::TagTooLong`] if the tag is
    ///   not a varint in its shortest form.
    /// - [`KeyError::UnknownKind`] if the tag is none of [`SignatureKind`].
    /// - [`KeyError::Length`] if the rest is shorter or longer than the kind says.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let (code, raw) = varint::read(bytes)?;
        Self::from_raw(SignatureKind::from_code(code)?, raw)
    }

    /// Writes the tag and the signature.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIGNATURE_BYTES_MAX);
        varint::write(self.kind.code(), &mut bytes);
        bytes.extend_from_slice(&self.raw);
        bytes
    }

    /// Returns how the signature was made.
    #[must_use]
    pub fn kind(&self) -> SignatureKind {
        self.kind
    }

    /// Borrows the signature without its tag.
    #[must_use]
    pub fn as_raw(&self) -> &[u8] {
        &self.raw
    }
}

impl From<[u8; 64]> for Signature {
    /// Tags an Ed25519 signature.
    fn from(raw: [u8; 64]) -> Self {
        let raw = raw.to_vec();
        let kind = SignatureKind::Ed25519;
        Self { kind, raw }
    }
}

/// Why bytes are not a key or a signature.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes end inside the tag.
    #[error("tag is cut short: {needed} bytes needed, {had} given")]
    Truncated {
        /// Fewest bytes that would go on.
        needed: usize,
        /// Bytes that were given.
        had: usize,
    },
    /// The tag is written longer than it must be.
    #[error("tag is not in its shortest form")]
    TagNotMinimal,
    /// The tag is longer than any varint.
    #[error("tag is longer than nine bytes")]
    TagTooLong,
    /// The tag names no kind that is understood; a later version may know it.
    #[error("kind 0x{code:x} is not known")]
    UnknownKind {
        /// The multicodec.
        code: u64,
    },
    /// The bytes are fewer or more than the kind has.
    #[error("length is {had} bytes instead of {needed}")]
    Length {
        /// Bytes that the kind has.
        needed: usize,
        /// Bytes that were given, without the tag.
        had: usize,
    },
    /// A point of a Weierstrass curve is not in compressed form.
    #[error("compressed point begins with {first} instead of 2 or 3")]
    NotCompressed {
        /// The first byte of the key.
        first: u8,
    },
    /// The bytes are not a point of the curve.
    #[error("key is not a point of its curve")]
    NotOnCurve,
    /// The point has another, shorter or smaller, encoding.
    #[error("key is not in its canonical encoding")]
    NotCanonical,
    /// The point has small order: anybody can sign for it, or agrees with it on a known secret.
    #[error("key has small order")]
    SmallOrder,
    /// A secret is all zeros, which no working generator gives.
    #[error("secret is all zeros")]
    ZeroSecret,
    /// A generator gave the same 32 bytes twice.
    #[error("the random generator repeats itself")]
    StuckGenerator,
    /// Stored secrets are of a version that is not known.
    #[error("version {version} of the secrets is not known")]
    UnknownVersion {
        /// The version they claim.
        version: u8,
    },
}

/// Why a signature does not stand.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Signatures of this kind of key cannot be verified here; a later version may.
    #[error("signatures of {kind} keys cannot be verified")]
    UnsupportedKey {
        /// The kind of the key.
        kind: KeyKind,
    },
    /// A key of one kind does not make signatures of the other.
    #[error("a signature of kind {signature} under a key of kind {key}")]
    WrongKind {
        /// The kind of the key.
        key: KeyKind,
        /// The kind of the signature.
        signature: SignatureKind,
    },
    /// The key is not a safe point of its curve.
    #[error("the verifying key is refused")]
    Key(#[from] KeyError),
    /// The signature is not of this message under this key, or is malleable.
    #[error("signature does not match")]
    Mismatch,
}

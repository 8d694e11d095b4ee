//! Ed25519: the only signatures that records, heads and devices are made with.
//!
//! One rule of acceptance: a canonical key that is not of small order, and `verify_strict`, which
//! refuses a small-order R and an S that is not reduced. The laxer equation and batch verification
//! accept signatures that this rule refuses, so two honest replicas could disagree about one record;
//! neither is reachable from here.
//!
//! Source: RFC 8032 §5.1; "Taming the many EdDSAs" (2020) on why the rule must be one.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use ed25519_dalek::Signer;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{KeyError, Label, PublicKey, VerifyError};

/// A secret Ed25519 key.
///
/// It is wiped when dropped, and its `Debug` shows nothing. It is not `Clone`: whoever needs a
/// second copy says so with [`SigningKey::duplicate`].
///
/// # Examples
///
/// ```
/// use leno_identity::{Label, SigningKey};
///
/// let key = SigningKey::from_secret_bytes(&[7; 32])?;
/// let signature = key.sign(Label::LOG_HEAD, &[b"head"]);
/// key.verifying_key().verify(Label::LOG_HEAD, &[b"head"], &signature)?;
/// assert!(key.verifying_key().verify(Label::SESSION_PROOF, &[b"head"], &signature).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Draws a key.
    ///
    /// # Errors
    ///
    /// [`KeyError::ZeroSecret`] if `rng` gives only zeros, as a generator without entropy may.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, KeyError> {
        Self::from_secret_bytes(&*draw(rng)?)
    }

    /// Takes the 32 bytes that RFC 8032 calls the private key.
    ///
    /// # Errors
    ///
    /// [`KeyError::ZeroSecret`] if all of them are zero.
    pub fn from_secret_bytes(secret: &[u8; 32]) -> Result<Self, KeyError> {
        refuse_zero(secret)?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(secret)))
    }

    /// Copies the 32 secret bytes, for a store that keeps secrets sealed.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Makes a second copy of the secret.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// Returns the public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs [`Label::message`].
    #[must_use]
    pub fn sign(&self, label: Label, parts: &[&[u8]]) -> [u8; 64] {
        self.sign_message(&label.message(parts))
    }

    /// Signs bytes as they are.
    ///
    /// # Security
    ///
    /// The caller owns the message and its label. Bytes chosen by a peer are never signed.
    #[must_use]
    pub fn sign_message(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// A public Ed25519 key that is proven to be a canonical point of large order.
///
/// It holds the decompressed point (some 200 bytes), so verifying with it again costs no square
/// root. It compares as its 32 bytes do.
#[derive(Clone, Copy)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Checks and decompresses a key.
    ///
    /// # Errors
    ///
    /// - [`KeyError::NotOnCurve`] if no point has these bytes.
    /// - [`KeyError::NotCanonical`] if the point is written otherwise.
    /// - [`KeyError::SmallOrder`] for the eight points whose signatures anybody can make.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes);
        let key = key.map_err(|_| KeyError::NotOnCurve)?;
        // Decompression reduces the coordinate; only compressing again shows that it was reduced.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NotCanonical);
        }
        if key.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        Ok(Self(key))
    }

    /// Borrows the 32 bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Copies the 32 bytes of the key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Verifies a signature over [`Label::message`].
    ///
    /// # Errors
    ///
    /// [`VerifyError::Mismatch`].
    pub fn verify(
        &self,
        label: Label,
        parts: &[&[u8]],
        signature: &[u8; 64],
    ) -> Result<(), VerifyError> {
        self.verify_message(&label.message(parts), signature)
    }

    /// Verifies a signature over bytes that already begin with a label.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Mismatch`].
    pub fn verify_message(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), VerifyError> {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        let verdict = self.0.verify_strict(message, &signature);
        verdict.map_err(|_| VerifyError::Mismatch)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", PublicKey::from(*self).to_did())
    }
}

impl Eq for VerifyingKey {}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Ord for VerifyingKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for VerifyingKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for VerifyingKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// Draws 32 secret bytes that are not all zero.
pub(crate) fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(secret.as_mut());
    refuse_zero(&secret)?;
    Ok(secret)
}

/// Refuses a secret of zeros, looking at every byte whatever they are.
pub(crate) fn refuse_zero(secret: &[u8; 32]) -> Result<(), KeyError> {
    match secret.iter().fold(0, |any, byte| any | byte) {
        0 => Err(KeyError::ZeroSecret),
        _ => Ok(()),
    }
}

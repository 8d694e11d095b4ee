//! X25519: how two devices come to share a secret.
//!
//! The same 32 bytes serve HPKE (RFC 9180, DHKEM X25519): [`AgreementKey::to_secret_bytes`] is the
//! serialized HPKE private key, [`AgreementPublicKey::as_bytes`] the serialized public key. Clamping
//! happens inside the multiplication, so the bytes are kept as they were drawn.
//!
//! Source: RFC 7748 §5 and §6.1.

use std::fmt;

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::{KeyError, ed25519};

/// A secret X25519 key.
///
/// It is wiped when dropped, and its `Debug` shows nothing.
///
/// # Examples
///
/// ```
/// use leno_identity::AgreementKey;
///
/// let alice = AgreementKey::from_secret_bytes(&[1; 32])?;
/// let bob = AgreementKey::from_secret_bytes(&[2; 32])?;
/// let one = alice.shared_secret(&bob.public_key())?;
/// let other = bob.shared_secret(&alice.public_key())?;
/// assert_eq!(one.as_bytes(), other.as_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AgreementKey {
    secret: StaticSecret,
    public: AgreementPublicKey,
}

impl AgreementKey {
    /// Draws a key.
    ///
    /// # Errors
    ///
    /// [`KeyError::ZeroSecret`] if `rng` gives only zeros, as a generator without entropy may.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, KeyError> {
        Self::from_secret_bytes(&*ed25519::draw(rng)?)
    }

    /// Takes 32 secret bytes, clamped or not.
    ///
    /// # Errors
    ///
    /// [`KeyError::ZeroSecret`] if all of them are zero.
    pub fn from_secret_bytes(secret: &[u8; 32]) -> Result<Self, KeyError> {
        ed25519::refuse_zero(secret)?;
        let secret = StaticSecret::from(*secret);
        let public = AgreementPublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Ok(Self { secret, public })
    }

    /// Copies the 32 secret bytes, for a store that keeps secrets sealed or for HPKE.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Returns the public half.
    #[must_use]
    pub fn public_key(&self) -> AgreementPublicKey {
        self.public
    }

    /// Agrees with the holder of `other`.
    ///
    /// # Errors
    ///
    /// [`AgreementError::NonContributory`] if the result would be all zeros whatever this key is.
    ///
    /// # Security
    ///
    /// The result is not uniform and names nobody: derive keys from it together with both public
    /// keys, under a [`Label`](crate::Label).
    pub fn shared_secret(
        &self,
        other: &AgreementPublicKey,
    ) -> Result<SharedSecret, AgreementError> {
        let other = x25519_dalek::PublicKey::from(other.0);
        let shared = self.secret.diffie_hellman(&other);
        if !shared.was_contributory() {
            return Err(AgreementError::NonContributory);
        }
        Ok(SharedSecret(Zeroizing::new(shared.to_bytes())))
    }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementKey")
    }
}

/// A public X25519 key: 32 bytes, the u coordinate in little-endian.
///
/// Any 32 bytes are one, as RFC 7748 asks. Those that agree with everybody on zeros are refused by
/// [`AgreementKey::shared_secret`], and in a device certificate when it is read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AgreementPublicKey([u8; 32]);

impl AgreementPublicKey {
    /// Takes the bytes of a key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Borrows the bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Copies the bytes of the key.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Refuses a key of small order.
    ///
    /// A clamped scalar is a multiple of the cofactor and never of the prime order, of the curve or
    /// of its twist: any one of them shows what all of them would.
    pub(crate) fn refuse_small_order(&self) -> Result<(), KeyError> {
        let probe = StaticSecret::from([0x55; 32]);
        let shared = probe.diffie_hellman(&x25519_dalek::PublicKey::from(self.0));
        match shared.was_contributory() {
            true => Ok(()),
            false => Err(KeyError::SmallOrder),
        }
    }
}

/// What two holders of agreement keys share: 32 bytes that are never all zero.
///
/// It is wiped when dropped, and its `Debug` shows nothing.
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    /// Borrows the secret bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret")
    }
}

/// Why no secret can be shared.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementError {
    /// The other key has small order, so that the secret would be zeros, known to everybody.
    #[error("the other key contributes nothing to the shared secret")]
    NonContributory,
}

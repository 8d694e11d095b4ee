//! The port behind which an identity's key lies: in memory, in a wallet, in a module, elsewhere.

use std::{error::Error, fmt, sync::Arc};

use async_trait::async_trait;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{KeyError, PublicKey, Signature, SigningKey, Statement, VerifyError};

/// `Send + Sync` where there are threads, and nothing on `wasm32`, where a wallet lives in the page.
///
/// Every type that can has it; it is never implemented by hand.
#[cfg(not(target_arch = "wasm32"))]
pub trait ThreadSafe: Send + Sync {}

/// `Send + Sync` where there are threads, and nothing on `wasm32`, where a wallet lives in the page.
///
/// Every type that can has it; it is never implemented by hand.
#[cfg(target_arch = "wasm32")]
pub trait ThreadSafe {}

#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + ?Sized> ThreadSafe for T {}

#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> ThreadSafe for T {}

/// Who writes, and can sign.
///
/// A port: the key may be anywhere, so signing is asynchronous and may take as long as a person
/// thinks. It is asked **once per device**, never per record. The checks that an implementation must
/// pass are in `testing`, behind the feature `test-util`.
///
/// # Examples
///
/// ```
/// use leno_identity::{Identity, IdentityError, PublicKey, Signature, Statement};
///
/// /// Asks a person before the key is used.
/// struct Asking<I>(I, fn(&str) -> bool);
///
/// #[async_trait::async_trait]
/// impl<I: Identity> Identity for Asking<I> {
///     fn public_key(&self) -> PublicKey {
///         self.0.public_key()
///     }
///
///     async fn sign(&self, statement: &Statement) -> Result<Signature, IdentityError> {
///         match (self.1)(&statement.to_line()) {
///             true => self.0.sign(statement).await,
///             false => Err(IdentityError::Declined),
///         }
///     }
/// }
/// ```
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait Identity: ThreadSafe {
    /// Returns the key that names the identity. It is the same on every call.
    fn public_key(&self) -> PublicKey;

    /// Signs [`Statement::to_bytes`], or for a wallet that signs text, [`Statement::to_line`].
    ///
    /// Signing twice is harmless, and dropping the future leaves nothing behind that a caller must
    /// undo. Whoever asks verifies the answer with [`Statement::verify`].
    ///
    /// # Errors
    ///
    /// - [`IdentityError::NotMine`] if the statement speaks for another identity.
    /// - [`IdentityError::Declined`] if the holder of the key does not want to.
    /// - [`IdentityError::Unreachable`] if the key cannot be reached; asking again may help.
    async fn sign(&self, statement: &Statement) -> Result<Signature, IdentityError>;
}

/// An identity whose Ed25519 key is in memory.
///
/// Its `Debug` shows nothing, not even who it is.
///
/// # Security
///
/// A key that lies on the device is lost with the device. Keep it where the device's thief is not,
/// or commit to a recovery key.
pub struct Ed25519Identity {
    key: SigningKey,
}

impl Ed25519Identity {
    /// Draws an identity.
    ///
    /// # Errors
    ///
    /// As [`SigningKey::generate`].
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, KeyError> {
        SigningKey::generate(rng).map(Self::from)
    }

    /// Restores an identity.
    ///
    /// # Errors
    ///
    /// As [`SigningKey::from_secret_bytes`].
    pub fn from_secret_bytes(secret: &[u8; 32]) -> Result<Self, KeyError> {
        SigningKey::from_secret_bytes(secret).map(Self::from)
    }

    /// Copies the 32 secret bytes, to be kept sealed.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.key.to_secret_bytes()
    }
}

impl From<SigningKey> for Ed25519Identity {
    fn from(key: SigningKey) -> Self {
        Self { key }
    }
}

impl fmt::Debug for Ed25519Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ed25519Identity")
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Identity for Ed25519Identity {
    fn public_key(&self) -> PublicKey {
        self.key.verifying_key().into()
    }

    async fn sign(&self, statement: &Statement) -> Result<Signature, IdentityError> {
        if *statement.identity() != self.public_key() {
            return Err(IdentityError::NotMine);
        }
        Ok(self.key.sign_message(&statement.to_bytes()).into())
    }
}

/// Why an identity did not sign.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The statement speaks for another identity: ask that one.
    #[error("the statement speaks for another identity")]
    NotMine,
    /// The holder of the key does not want to sign.
    #[error("the holder of the identity declined")]
    Declined,
    /// The key cannot be reached.
    #[error("the identity cannot be reached")]
    Unreachable(#[source] Arc<dyn Error + Send + Sync>),
    /// The identity gave a signature that does not stand.
    #[error("the identity gave a bad signature")]
    BadSignature(#[source] VerifyError),
}

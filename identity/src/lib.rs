//! Keys, `did:key`, the identity trait and device certificates of leno.
//!
//! ```
//! use futures_util::FutureExt;
//! use leno_identity::{Device, DeviceCertificate, Ed25519Identity, Identity, Label, Scope};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//! # let now_millis = 1_700_000_000_000;
//!
//! // An identity is a key that signs once per device. `rng` and `now_millis` come from the caller.
//! let alice = Ed25519Identity::generate(&mut rng)?;
//! let phone = Device::generate(&mut rng)?;
//! let issuing = DeviceCertificate::issue(&alice, &phone, Scope::All, now_millis, None);
//! let bytes = issuing.now_or_never().expect("a key in memory answers at once")?.to_bytes();
//!
//! // Whoever receives the certificate reads nothing of it until both signatures hold.
//! let verified = DeviceCertificate::decode(&bytes)?.verify(now_millis)?;
//! assert_eq!(*verified.identity(), alice.public_key());
//!
//! // From then on the device signs for itself, each thing under its own label.
//! let signature = phone.signing_key().sign(Label::SEAT_OFFER, &[b"seat"]);
//! verified.device().verify(Label::SEAT_OFFER, &[b"seat"], &signature)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ideas, in the order a reader needs them
//!
//! 1. **Any key is an identity.** A [`PublicKey`] carries its kind, and a [`Did`] is the same key as
//!    text. Every kind can be stored and compared; Ed25519 is the one that is verified today, the
//!    others answer [`VerifyError::UnsupportedKey`].
//! 2. **Every signature has a purpose.** [`Label`] is the one registry of purposes; what is signed
//!    for one never means anything for another.
//! 3. **One rule accepts Ed25519.** A [`VerifyingKey`] is proven safe when it is made, and verifies
//!    strictly, so that all replicas judge alike.
//! 4. **An identity signs a [`Statement`]**, never bytes that somebody else chose. [`Identity`] is a
//!    port: the key may lie in a wallet, behind a person who reads [`Statement::to_line`].
//! 5. **A [`Device`] acts for an identity** through a [`DeviceCertificate`] that both sign. Only a
//!    [`VerifiedCertificate`] tells who acts for whom.
//!
//! The crate does no I/O and owns no clock, randomness, threads or logging: `now_millis` and `rng`
//! are arguments. Secrets are wiped when dropped, and their `Debug` prints the name of the type.
//!
//! # Features
//!
//! - `test-util`: `testing`, the checks that every implementation of [`Identity`] passes.
//!
//! # Modules
//!
//! All names are at the root. They come from `labels` (purposes), `key` (tagged keys and signatures),
//! `did` (their text), `ed25519` (signing), `agreement` (X25519), `statement` (what is signed),
//! `scope` (where a device acts), `identity` (the port) and `device` (keys and certificates).

mod agreement;
mod device;
mod did;
mod ed25519;
mod identity;
mod key;
mod labels;
mod scope;
mod statement;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod varint;

pub use agreement::{AgreementError, AgreementKey, AgreementPublicKey, SharedSecret};
pub use device::{
    CERTIFICATE_BYTES_MAX, CertificateError, DEVICE_SECRET_BYTES, Device, DeviceCertificate,
    IssueError, NonceSecret, SKEW_MILLIS_MAX, VerifiedCertificate,
};
pub use did::{DID_BYTES_MAX, Did, DidError};
pub use ed25519::{SigningKey, VerifyingKey};
pub use identity::{Ed25519Identity, Identity, IdentityError, ThreadSafe};
pub use key::{
    KeyError, KeyKind, PUBLIC_KEY_BYTES_MAX, PublicKey, SIGNATURE_BYTES_MAX, Signature,
    SignatureKind, VerifyError,
};
pub use labels::Label;
pub use scope::{SCOPE_BYTES_MAX, Scope, ScopeError, ScopeName};
pub use statement::{ClaimError, DeviceClaim, MILLIS_MAX, Statement};

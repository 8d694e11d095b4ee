//! A machine's keys, and the certificate by which they act for an identity.
//!
//! The certificate is mutual. The identity signs that the device acts for it; the device signs that
//! it does so. Without the second signature anybody could claim a stranger's device as their own.
//! Both sign one body, each under its own label. Until both signatures and the lifetime are checked,
//! nothing of the body can be read.

use std::fmt;

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    AgreementKey, AgreementPublicKey, ClaimError, DeviceClaim, Identity, IdentityError, KeyError,
    Label, PublicKey, Scope, ScopeError, Signature, SigningKey, Statement, VerifyError,
    VerifyingKey, ed25519, statement,
};

/// Longest encoding of a [`DeviceCertificate`] that is decoded, in bytes.
///
/// What version 1 can hold stays below 480; the rest is room for the signatures of passkeys.
pub const CERTIFICATE_BYTES_MAX: usize = 2_048;

/// How far in the future a certificate may have been issued, in milliseconds: ten minutes, as for
/// stamps.
pub const SKEW_MILLIS_MAX: u64 = 600_000;

/// Length of [`Device::to_secret_bytes`].
pub const DEVICE_SECRET_BYTES: usize = 97;

const DEVICE_SECRET_VERSION: u8 = 1;

/// A machine's secret keys.
///
/// They are wiped when dropped, and their `Debug` shows nothing. A device signs and agrees for as
/// long as the identity lets it; see [`DeviceCertificate`].
pub struct Device {
    signing: SigningKey,
    agreement: AgreementKey,
    nonce: NonceSecret,
}

impl Device {
    /// Draws the keys of a new device: 96 bytes of `rng`.
    ///
    /// # Errors
    ///
    /// - [`KeyError::ZeroSecret`] if `rng` gives only zeros.
    /// - [`KeyError::StuckGenerator`] if it gives the same key twice.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, KeyError> {
        let (signing, agreement, nonce) = (
            ed25519::draw(rng)?,
            ed25519::draw(rng)?,
            ed25519::draw(rng)?,
        );
        Self::from_secrets(&signing, &agreement, &nonce)
    }

    /// Restores a device from [`Device::to_secret_bytes`].
    ///
    /// # Errors
    ///
    /// - [`KeyError::UnknownVersion`] if a later version wrote them.
    /// - [`KeyError::Length`] unless there are [`DEVICE_SECRET_BYTES`].
    /// - As [`Device::generate`] for secrets that no generator gives.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let length = KeyError::Length {
            needed: DEVICE_SECRET_BYTES,
            had: bytes.len(),
        };
        let (version, secrets) = bytes.split_first().ok_or(length)?;
        if *version != DEVICE_SECRET_VERSION {
            return Err(KeyError::UnknownVersion { version: *version });
        }
        match secrets.as_chunks() {
            ([signing, agreement, nonce], []) => Self::from_secrets(signing, agreement, nonce),
            _ => Err(length),
        }
    }

    /// Writes the secrets, for a store that keeps them sealed.
    ///
    /// # Shape
    ///
    /// `version: 1 | Ed25519: 32 bytes | X25519: 32 bytes | nonce secret: 32 bytes`.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Sized beforehand: growing would leave copies that are never wiped.
        let mut bytes = Zeroizing::new(Vec::with_capacity(DEVICE_SECRET_BYTES));
        bytes.push(DEVICE_SECRET_VERSION);
        bytes.extend_from_slice(self.signing.to_secret_bytes().as_slice());
        bytes.extend_from_slice(self.agreement.to_secret_bytes().as_slice());
        bytes.extend_from_slice(self.nonce.as_bytes());
        bytes
    }

    /// Borrows the key that the device signs with.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// Borrows the key that secrets for the device are wrapped to.
    #[must_use]
    pub fn agreement_key(&self) -> &AgreementKey {
        &self.agreement
    }

    /// Borrows the secret that nonces are derived from.
    #[must_use]
    pub fn nonce_secret(&self) -> &NonceSecret {
        &self.nonce
    }

    /// Returns the public half of [`Device::signing_key`].
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.signing.verifying_key()
    }

    /// Returns the public half of [`Device::agreement_key`].
    #[must_use]
    pub fn agreement_public_key(&self) -> AgreementPublicKey {
        self.agreement.public_key()
    }

    fn from_secrets(
        signing: &[u8; 32],
        agreement: &[u8; 32],
        nonce: &[u8; 32],
    ) -> Result<Self, KeyError> {
        let repeated = signing.ct_eq(agreement) | signing.ct_eq(nonce) | agreement.ct_eq(nonce);
        if repeated.into() {
            return Err(KeyError::StuckGenerator);
        }
        ed25519::refuse_zero(nonce)?;
        Ok(Self {
            signing: SigningKey::from_secret_bytes(signing)?,
            agreement: AgreementKey::from_secret_bytes(agreement)?,
            nonce: NonceSecret(Zeroizing::new(*nonce)),
        })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Device")
    }
}

/// The 32 secret bytes that a device derives nonces from, and that it uses for nothing else.
///
/// They keep nonces apart when the generator is stuck or a machine is cloned. They are wiped when
/// dropped, and their `Debug` shows nothing.
pub struct NonceSecret(Zeroizing<[u8; 32]>);

impl NonceSecret {
    /// Borrows the key of the MAC under [`Label::NONCE`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NonceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSecret")
    }
}

/// A device's right to act for an identity, signed by both, not yet verified.
///
/// ```text
/// bytes --decode--> DeviceCertificate --verify(now)--> VerifiedCertificate --> identity, device, …
/// ```
///
/// # Shape
///
/// dag-cbor list of nine: the seven fields of [`DeviceClaim`], then `identity signature: tagged |
/// device signature: 64 bytes`. The identity signs [`Statement::to_bytes`]; the device signs
/// [`DeviceClaim::to_bytes`] under [`Label::DEVICE_CERTIFICATE_DEVICE`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DeviceCertificate {
    claim: DeviceClaim,
    identity_signature: Signature,
    device_signature: [u8; 64],
}

// The order of the fields is the format.
#[derive(Deserialize, Serialize)]
struct Wire(
    u64,
    ByteBuf,
    ByteArray<32>,
    ByteArray<32>,
    Option<String>,
    u64,
    Option<u64>,
    ByteBuf,
    ByteArray<64>,
);

impl DeviceCertificate {
    /// Asks `identity` to let `device` act for it, and lets the device agree.
    ///
    /// Times are milliseconds since the Unix epoch, UTC. Without `expires_millis` the certificate
    /// stands until the identity ends it. The answer of the identity is verified: what is returned
    /// is good.
    ///
    /// # Errors
    ///
    /// - [`IssueError::Claim`] if keys or times are out of bounds; the identity is not asked.
    /// - [`IssueError::Identity`] if the identity does not sign, or signs something else.
    pub async fn issue(
        identity: &dyn Identity,
        device: &Device,
        scope: Scope,
        issued_millis: u64,
        expires_millis: Option<u64>,
    ) -> Result<Self, IssueError> {
        let claim = DeviceClaim::new(
            identity.public_key(),
            device,
            scope,
            issued_millis,
            expires_millis,
        )?;
        let device_signature = device
            .signing_key()
            .sign(Label::DEVICE_CERTIFICATE_DEVICE, &[&claim.to_bytes()]);
        let statement = Statement::DeviceCertificate(claim.clone());
        let identity_signature = identity.sign(&statement).await?;
        let verdict = statement.verify(&identity_signature);
        verdict.map_err(IdentityError::BadSignature)?;
        Ok(Self {
            claim,
            identity_signature,
            device_signature,
        })
    }

    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// - [`CertificateError::TooLarge`] above [`CERTIFICATE_BYTES_MAX`].
    /// - [`CertificateError::UnknownVersion`] if a later version wrote it.
    /// - [`CertificateError::Malformed`] if it is not the list that this version has.
    /// - [`CertificateError::Key`], [`CertificateError::Scope`] and [`CertificateError::Claim`] if a
    ///   field has no such value.
    /// - [`CertificateError::NotCanonical`] if the same certificate has another encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLarge { had: bytes.len() });
        }
        // A short list begins with one byte and a small number is one byte, so the version is read
        // before the fields are, which another version may have otherwise.
        if let [0x80..=0x97, version @ 0..=0x17, ..] = bytes
            && u64::from(*version) != statement::VERSION
        {
            let version = *version;
            return Err(CertificateError::UnknownVersion { version });
        }
        let wire = serde_ipld_dagcbor::from_slice(bytes);
        let wire: Wire = wire.map_err(|error| CertificateError::Malformed {
            reason: error.to_string(),
        })?;
        let certificate = Self::from_wire(&wire)?;
        if certificate.to_bytes() != bytes {
            return Err(CertificateError::NotCanonical);
        }
        Ok(certificate)
    }

    /// Writes the certificate.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let claim = &self.claim;
        statement::encode(&Wire(
            statement::VERSION,
            ByteBuf::from(claim.identity().to_bytes()),
            ByteArray::new(claim.device().to_bytes()),
            ByteArray::new(claim.agreement().to_bytes()),
            claim.scope().name().map(str::to_owned),
            claim.issued_millis(),
            claim.expires_millis(),
            ByteBuf::from(self.identity_signature.to_bytes()),
            ByteArray::new(self.device_signature),
        ))
    }

    /// Verifies both signatures, and that the certificate stands at `now_millis`.
    ///
    /// `now_millis` is milliseconds since the Unix epoch, UTC: the stamp of what the device did where
    /// replicas must agree, or the clock where they need not.
    ///
    /// # Errors
    ///
    /// - [`CertificateError::IdentitySignature`], [`CertificateError::DeviceSignature`] if one of
    ///   them does not stand. [`VerifyError::UnsupportedKey`] within says nothing about the
    ///   signature.
    /// - [`CertificateError::NotYetIssued`] if it was issued more than [`SKEW_MILLIS_MAX`] after
    ///   `now_millis`: hold it, and ask again later.
    /// - [`CertificateError::Expired`] from the moment it expires.
    pub fn verify(self, now_millis: u64) -> Result<VerifiedCertificate, CertificateError> {
        let claim = &self.claim;
        let verdict = claim.device().verify(
            Label::DEVICE_CERTIFICATE_DEVICE,
            &[&claim.to_bytes()],
            &self.device_signature,
        );
        verdict.map_err(CertificateError::DeviceSignature)?;
        let verdict = Statement::DeviceCertificate(claim.clone()).verify(&self.identity_signature);
        verdict.map_err(CertificateError::IdentitySignature)?;
        if claim.issued_millis() > now_millis.saturating_add(SKEW_MILLIS_MAX) {
            return Err(CertificateError::NotYetIssued {
                issued_millis: claim.issued_millis(),
                now_millis,
            });
        }
        if let Some(expires_millis) = claim.expires_millis().filter(|it| *it <= now_millis) {
            return Err(CertificateError::Expired {
                expires_millis,
                now_millis,
            });
        }
        Ok(VerifiedCertificate(self))
    }

    fn from_wire(wire: &Wire) -> Result<Self, CertificateError> {
        let Wire(_, identity, device, agreement, scope, issued, expires, by_identity, by_device) =
            wire;
        let scope = match scope {
            None => Scope::All,
            Some(name) => Scope::named(name)?,
        };
        let claim = DeviceClaim::from_parts(
            PublicKey::decode(identity)?,
            VerifyingKey::from_bytes(device)?,
            AgreementPublicKey::from_bytes(**agreement),
            scope,
            *issued,
            *expires,
        )?;
        Ok(Self {
            claim,
            identity_signature: Signature::decode(by_identity)?,
            device_signature: **by_device,
        })
    }
}

/// A certificate whose signatures hold and that stood when it was verified.
///
/// Only [`DeviceCertificate::verify`] makes one. Expiry is not looked at again: a caller that keeps
/// it compares [`DeviceClaim::expires_millis`] with the stamp of what it judges.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct VerifiedCertificate(DeviceCertificate);

impl VerifiedCertificate {
    /// Borrows what both sides signed: identity, device, keys, scope and lifetime.
    #[must_use]
    pub fn claim(&self) -> &DeviceClaim {
        &self.0.claim
    }

    /// Returns the identity that the device acts for.
    #[must_use]
    pub fn identity(&self) -> &PublicKey {
        self.claim().identity()
    }

    /// Returns the key that the device signs with.
    #[must_use]
    pub fn device(&self) -> &VerifyingKey {
        self.claim().device()
    }

    /// Returns the key that secrets for the device are wrapped to.
    #[must_use]
    pub fn agreement(&self) -> &AgreementPublicKey {
        self.claim().agreement()
    }

    /// Returns what the device acts in.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        self.claim().scope()
    }

    /// Borrows the certificate, to be stored or sent.
    #[must_use]
    pub fn certificate(&self) -> &DeviceCertificate {
        &self.0
    }
}

/// Why a certificate was not issued.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The certificate would state something that cannot be.
    #[error("the certificate cannot be stated")]
    Claim(#[from] ClaimError),
    /// The identity did not sign.
    #[error("the identity did not sign the certificate")]
    Identity(#[from] IdentityError),
}

/// Why bytes are not a certificate, or a certificate does not stand.
#[derive(Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The bytes are more than any certificate has.
    #[error("certificate of {had} bytes is larger than {CERTIFICATE_BYTES_MAX}")]
    TooLarge {
        /// Bytes that were given.
        had: usize,
    },
    /// Another version wrote the certificate.
    #[error("version {version} of the certificate is not known")]
    UnknownVersion {
        /// The version it claims.
        version: u8,
    },
    /// The bytes are not the list that a certificate is.
    #[error("certificate is malformed: {reason}")]
    Malformed {
        /// What the decoder met.
        reason: String,
    },
    /// The same certificate has another encoding, the only right one.
    #[error("certificate is not in its canonical encoding")]
    NotCanonical,
    /// A key or a signature has no such form.
    #[error("certificate holds a bad key or signature")]
    Key(#[from] KeyError),
    /// The scope has no such name.
    #[error("certificate holds a bad scope")]
    Scope(#[from] ScopeError),
    /// The fields contradict each other.
    #[error("certificate states what cannot be")]
    Claim(#[from] ClaimError),
    /// The identity's signature does not stand.
    #[error("the identity's signature does not stand")]
    IdentitySignature(#[source] VerifyError),
    /// The device's signature does not stand.
    #[error("the device's signature does not stand")]
    DeviceSignature(#[source] VerifyError),
    /// The certificate comes from the future.
    #[error("issued at {issued_millis} milliseconds, which is far after {now_millis}")]
    NotYetIssued {
        /// When it was issued, in milliseconds since the Unix epoch.
        issued_millis: u64,
        /// When it was verified, likewise.
        now_millis: u64,
    },
    /// The certificate's time is over.
    #[error("expired at {expires_millis} milliseconds, and it is {now_millis}")]
    Expired {
        /// When it expired, in milliseconds since the Unix epoch.
        expires_millis: u64,
        /// When it was verified, likewise.
        now_millis: u64,
    },
}

//! What an identity is asked to sign.
//!
//! A statement is structured and typed: no peer, server or app ever hands bytes to an identity. Each
//! has one canonical encoding, which an Ed25519 identity signs, and one line of text, which a wallet
//! shows and signs. The line ends with the digest of the canonical bytes, so both say the same.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    AgreementPublicKey, Device, KeyError, KeyKind, Label, PublicKey, Scope, Signature, VerifyError,
    VerifyingKey,
};

/// Latest point in time that is written, in milliseconds since the Unix epoch: what 48 bits hold,
/// the year 10889.
pub const MILLIS_MAX: u64 = (1 << 48) - 1;

/// Version of the certificate that a claim is the body of.
pub(crate) const VERSION: u64 = 1;

/// Something that an identity says, and signs once.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Statement {
    /// A device acts for the identity.
    DeviceCertificate(DeviceClaim),
}

impl Statement {
    /// Returns the identity that the statement speaks for.
    #[must_use]
    pub fn identity(&self) -> &PublicKey {
        match self {
            Self::DeviceCertificate(claim) => claim.identity(),
        }
    }

    /// Writes the canonical bytes that an Ed25519 identity signs; they begin with a [`Label`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::DeviceCertificate(claim) => {
                Label::DEVICE_CERTIFICATE_IDENTITY.message(&[&claim.to_bytes()])
            }
        }
    }

    /// Writes the statement as one line of ASCII for a person to read before agreeing.
    ///
    /// # Shape
    ///
    /// Times are UTC, to the second, rounded down. The line ends with the SHA-256 of
    /// [`Statement::to_bytes`] in hexadecimal, so it says all that the bytes say, to the millisecond.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = match self {
            Self::DeviceCertificate(claim) => claim.to_line(),
        };
        line.push_str(" [sha256 ");
        for byte in Sha256::digest(self.to_bytes()) {
            line.push_str(&format!("{byte:02x}"));
        }
        line.push(']');
        line
    }

    /// Verifies the signature of the identity that the statement speaks for.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::verify_message`].
    pub fn verify(&self, signature: &Signature) -> Result<(), VerifyError> {
        self.identity().verify_message(&self.to_bytes(), signature)
    }
}

/// The body of a device certificate: which keys act for which identity, in what, and until when.
///
/// # Shape
///
/// dag-cbor list of seven: `version: 1 | identity: tagged key | device key: 32 bytes | agreement key:
/// 32 bytes | scope: text or null | issued: milliseconds | expires: milliseconds or null`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DeviceClaim {
    identity: PublicKey,
    device: VerifyingKey,
    agreement: AgreementPublicKey,
    scope: Scope,
    issued_millis: u64,
    expires_millis: Option<u64>,
}

impl DeviceClaim {
    /// States that `device` acts for `identity` in `scope`.
    ///
    /// Times are milliseconds since the Unix epoch, UTC. Without `expires_millis` it stands until
    /// the identity ends it.
    ///
    /// # Errors
    ///
    /// As [`DeviceClaim::from_parts`].
    pub fn new(
        identity: PublicKey,
        device: &Device,
        scope: Scope,
        issued_millis: u64,
        expires_millis: Option<u64>,
    ) -> Result<Self, ClaimError> {
        let agreement = device.agreement_public_key();
        let device = device.verifying_key();
        Self::from_parts(
            identity,
            device,
            agreement,
            scope,
            issued_millis,
            expires_millis,
        )
    }

    /// States the same of a device that is known only by its public keys.
    ///
    /// # Errors
    ///
    /// - [`ClaimError::IdentityNeverSigns`] if keys of the identity's kind do not sign.
    /// - [`ClaimError::IdentityIsDevice`] if the device's key is the identity's.
    /// - [`ClaimError::AgreementKey`] if the agreement key has small order.
    /// - [`ClaimError::TimeTooLarge`] above [`MILLIS_MAX`].
    /// - [`ClaimError::EmptyLifetime`] if it expires no later than it is issued.
    pub fn from_parts(
        identity: PublicKey,
        device: VerifyingKey,
        agreement: AgreementPublicKey,
        scope: Scope,
        issued_millis: u64,
        expires_millis: Option<u64>,
    ) -> Result<Self, ClaimError> {
        if !identity.kind().signs() {
            let kind = identity.kind();
            return Err(ClaimError::IdentityNeverSigns { kind });
        }
        // One key in both places would sign all day what is meant to sign once per device.
        if identity == PublicKey::from(device) {
            return Err(ClaimError::IdentityIsDevice);
        }
        let latest_millis = expires_millis.unwrap_or_default().max(issued_millis);
        if latest_millis > MILLIS_MAX {
            return Err(ClaimError::TimeTooLarge {
                millis: latest_millis,
            });
        }
        if let Some(expires_millis) = expires_millis.filter(|it| *it <= issued_millis) {
            return Err(ClaimError::EmptyLifetime {
                issued_millis,
                expires_millis,
            });
        }
        let proof = agreement.refuse_small_order();
        proof.map_err(ClaimError::AgreementKey)?;
        Ok(Self {
            identity,
            device,
            agreement,
            scope,
            issued_millis,
            expires_millis,
        })
    }

    /// Returns the identity that the device acts for.
    #[must_use]
    pub fn identity(&self) -> &PublicKey {
        &self.identity
    }

    /// Returns the key that the device signs with.
    #[must_use]
    pub fn device(&self) -> &VerifyingKey {
        &self.device
    }

    /// Returns the key that secrets for the device are wrapped to.
    #[must_use]
    pub fn agreement(&self) -> &AgreementPublicKey {
        &self.agreement
    }

    /// Returns what the device acts in.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns when the claim was made, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn issued_millis(&self) -> u64 {
        self.issued_millis
    }

    /// Returns the first millisecond since the Unix epoch at which the claim no longer holds.
    #[must_use]
    pub fn expires_millis(&self) -> Option<u64> {
        self.expires_millis
    }

    /// Writes the canonical bytes that the identity and the device sign, each under its own label.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let identity = self.identity.to_bytes();
        encode(&(
            VERSION,
            serde_bytes::Bytes::new(&identity),
            serde_bytes::Bytes::new(self.device.as_bytes()),
            serde_bytes::Bytes::new(self.agreement.as_bytes()),
            self.scope.name(),
            self.issued_millis,
            self.expires_millis,
        ))
    }

    fn to_line(&self) -> String {
        let device = PublicKey::from(self.device).to_did();
        let agreement = PublicKey::from(self.agreement).to_did();
        let scope = match &self.scope {
            Scope::All => "everything".to_owned(),
            Scope::Named(name) => format!("\"{name}\""),
        };
        let until = match self.expires_millis {
            None => "until revoked".to_owned(),
            Some(millis) => format!("until {}", Utc(millis)),
        };
        format!(
            "leno: device {device} with {agreement} may act for {} in {scope} from {} {until}",
            self.identity.to_did(),
            Utc(self.issued_millis),
        )
    }
}

/// Writes plain fields as dag-cbor.
pub(crate) fn encode(fields: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(fields).expect("bytes, texts and integers always encode")
}

/// A point in time in milliseconds since the Unix epoch, at most [`MILLIS_MAX`], shown as UTC.
struct Utc(u64);

impl fmt::Display for Utc {
    /// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`,
    /// for days from 1970 on. Years begin in March there, so that the leap day comes last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let (month, later) = match month_from_march {
            0..10 => (month_from_march + 3, 0),
            _ => (month_from_march - 9, 1),
        };
        let year = era * 400 + year_of_era + later;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Why a claim cannot be made.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Keys of the identity's kind make no signatures.
    #[error("an identity cannot be a {kind} key, which never signs")]
    IdentityNeverSigns {
        /// The kind of the key.
        kind: KeyKind,
    },
    /// The device and the identity have the same key.
    #[error("the device's key is the identity's own")]
    IdentityIsDevice,
    /// The agreement key would give secrets that everybody knows.
    #[error("the agreement key is refused")]
    AgreementKey(#[source] KeyError),
    /// A time is out of bounds.
    #[error("time of {millis} milliseconds is above {MILLIS_MAX}")]
    TimeTooLarge {
        /// The time.
        millis: u64,
    },
    /// The claim would hold at no time.
    #[error("expires at {expires_millis} milliseconds, issued at {issued_millis}")]
    EmptyLifetime {
        /// When it is issued, in milliseconds since the Unix epoch.
        issued_millis: u64,
        /// When it expires, likewise.
        expires_millis: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_matches_known_dates() {
        let check = |millis, expected: &str| assert_eq!(Utc(millis).to_string(), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400_000, "2000-02-29T00:00:00Z");
        check(951_868_800_000, "2000-03-01T00:00:00Z");
        check(1_234_567_890_999, "2009-02-13T23:31:30Z");
        check(4_107_542_399_000, "2100-02-28T23:59:59Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00Z");
        check(MILLIS_MAX, "10889-08-02T05:31:50Z");
    }
}

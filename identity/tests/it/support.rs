//! Actors, generators and vector files that the other modules share.

use std::{convert::Infallible, path::Path};

use futures_util::FutureExt;
use leno_identity::{Device, DeviceCertificate, Ed25519Identity, IssueError, Scope};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;

/// 2023-11-14T22:13:20Z, when every certificate of these tests is issued.
pub(crate) const NOW: u64 = 1_700_000_000_000;

/// One day later, when they expire if they do.
pub(crate) const TOMORROW: u64 = NOW + 86_400_000;

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// The identity ALICE.
pub(crate) fn alice() -> Ed25519Identity {
    Ed25519Identity::from_secret_bytes(&[0xa1; 32]).unwrap()
}

/// The identity BOB.
pub(crate) fn bob() -> Ed25519Identity {
    Ed25519Identity::from_secret_bytes(&[0xb0; 32]).unwrap()
}

/// ALICE's phone.
pub(crate) fn phone() -> Device {
    Device::generate(&mut rng(1)).unwrap()
}

pub(crate) fn issue(
    identity: &Ed25519Identity,
    device: &Device,
    scope: Scope,
    expires: Option<u64>,
) -> Result<DeviceCertificate, IssueError> {
    DeviceCertificate::issue(identity, device, scope, NOW, expires)
        .now_or_never()
        .expect("an identity in memory answers at once")
}

/// A generator that gives one byte for ever.
pub(crate) struct Stuck(pub(crate) u8);

impl TryRng for Stuck {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes([self.0; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes([self.0; 8]))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(self.0);
        Ok(())
    }
}

impl TryCryptoRng for Stuck {}

pub(crate) fn vectors(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let text = std::fs::read_to_string(path.join(file)).expect("the vectors are in the crate");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    let text = value[field].as_str();
    text.unwrap_or_else(|| panic!("no text {field} in {value}"))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "hexadecimal comes in pairs");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads base64url without padding, as JWKs have it.
pub(crate) fn unbase64url(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes() {
        let digit = alphabet.iter().position(|it| *it == byte);
        bits = bits << 6 | u32::try_from(digit.expect("base64url")).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    bytes
}

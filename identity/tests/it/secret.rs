//! What holds a secret shows none of it.

use std::fmt::Debug;

use leno_identity::{AgreementKey, Ed25519Identity, SigningKey};

use crate::support::{alice, phone};

fn check(value: impl Debug, name: &str) {
    assert_eq!(format!("{value:?}"), name);
    assert_eq!(format!("{value:#?}"), name);
}

#[test]
fn debug_prints_the_name_of_the_type_only() {
    let device = phone();
    let other = AgreementKey::from_secret_bytes(&[3; 32]).unwrap();
    let shared = other.shared_secret(&device.agreement_public_key()).unwrap();
    check(
        SigningKey::from_secret_bytes(&[7; 32]).unwrap(),
        "SigningKey",
    );
    check(device.signing_key().duplicate(), "SigningKey");
    check(&other, "AgreementKey");
    check(shared, "SharedSecret");
    check(device.nonce_secret(), "NonceSecret");
    check(&device, "Device");
    check(alice(), "Ed25519Identity");
}

#[test]
fn debug_of_what_holds_a_secret_is_quiet_too() {
    let outcome: Result<Ed25519Identity, ()> = Ok(alice());
    assert_eq!(format!("{outcome:?}"), "Ok(Ed25519Identity)");
}

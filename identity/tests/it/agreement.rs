use leno_identity::{AgreementError, AgreementKey, AgreementPublicKey, KeyError};

use crate::support::{Stuck, rng, text, unhex, vectors};

#[test]
fn wycheproof_agreements_match() {
    let file = vectors("wycheproof/x25519_test.json");
    let (mut agreed, mut refused) = (0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        for case in group["tests"].as_array().unwrap() {
            let bytes = |field| -> [u8; 32] { unhex(text(case, field)).try_into().unwrap() };
            let secret = AgreementKey::from_secret_bytes(&bytes("private")).unwrap();
            let public = AgreementPublicKey::from_bytes(bytes("public"));
            let shared = secret.shared_secret(&public);
            let flags = case["flags"].as_array().unwrap();
            if flags.iter().any(|flag| flag == "ZeroSharedSecret") {
                let shared = shared.map(|it| *it.as_bytes());
                assert_eq!(shared, Err(AgreementError::NonContributory), "{case}");
                assert_eq!(bytes("shared"), [0; 32]);
                refused += 1;
            } else {
                assert_eq!(*shared.unwrap().as_bytes(), bytes("shared"), "{case}");
                agreed += 1;
            }
        }
    }
    assert_eq!(file["numberOfTests"], agreed + refused);
    assert_eq!(refused, 15);
}

#[test]
fn both_sides_agree() {
    let alice = AgreementKey::generate(&mut rng(1)).unwrap();
    let bob = AgreementKey::generate(&mut rng(2)).unwrap();
    let one = alice.shared_secret(&bob.public_key()).unwrap();
    let other = bob.shared_secret(&alice.public_key()).unwrap();
    assert_eq!(one.as_bytes(), other.as_bytes());
}

#[test]
fn secret_is_restored() {
    let key = AgreementKey::generate(&mut rng(1)).unwrap();
    let restored = AgreementKey::from_secret_bytes(&key.to_secret_bytes()).unwrap();
    assert_eq!(restored.public_key(), key.public_key());
    assert_eq!(*restored.to_secret_bytes(), *key.to_secret_bytes());
}

#[test]
fn generator_without_entropy_is_refused() {
    let key = AgreementKey::generate(&mut Stuck(0));
    assert_eq!(key.map(|_| ()), Err(KeyError::ZeroSecret));
}

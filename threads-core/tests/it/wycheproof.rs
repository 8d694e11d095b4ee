//! The primitives, as this crate calls them, against public vectors.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use hpke::{Deserializable, Kem, OpModeR};
use serde_json::Value;
use sha2::Sha256;

fn bytes(test: &Value, field: &str) -> Vec<u8> {
    let text = test[field].as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Runs each test of a file; `check` tells whether the primitive takes it.
fn each(file: &str, check: impl Fn(&Value, &Value) -> bool) {
    let file: Value = serde_json::from_str(file).unwrap();
    let mut count = 0;
    for group in file["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let valid = test["result"] == "valid";
            assert_eq!(
                check(group, test),
                valid,
                "{} {}",
                test["tcId"],
                test["comment"]
            );
            count += 1;
        }
    }
    assert!(count >= 30, "{count}");
}

fn opens<C: AeadInOut + KeyInit>(test: &Value) -> bool {
    let cipher = C::new_from_slice(&bytes(test, "key")).unwrap();
    let (nonce, tag) = (bytes(test, "iv"), bytes(test, "tag"));
    let (Ok(nonce), Ok(tag)) = (nonce.as_slice().try_into(), tag.as_slice().try_into()) else {
        return false;
    };
    let mut buffer = bytes(test, "ct");
    let opened = cipher.decrypt_inout_detached(
        nonce,
        &bytes(test, "aad"),
        InOutBuf::from(buffer.as_mut_slice()),
        tag,
    );
    opened.is_ok() && buffer == bytes(test, "msg")
}

#[test]
fn aes_256_gcm() {
    let file = include_str!("../vectors/wycheproof/aes_gcm_test.json");
    each(file, |_, test| opens::<Aes256Gcm>(test));
}

#[test]
fn chacha20_poly1305() {
    let file = include_str!("../vectors/wycheproof/chacha20_poly1305_test.json");
    each(file, |_, test| opens::<ChaCha20Poly1305>(test));
}

#[test]
fn hkdf_sha256() {
    let file = include_str!("../vectors/wycheproof/hkdf_sha256_test.json");
    each(file, |_, test| {
        let mut okm = vec![0; test["size"].as_u64().unwrap() as usize];
        let salt = bytes(test, "salt");
        Hkdf::<Sha256>::new(Some(&salt), &bytes(test, "ikm"))
            .expand(&bytes(test, "info"), &mut okm)
            .is_ok()
            && okm == bytes(test, "okm")
    });
}

#[test]
fn hmac_sha256() {
    let file = include_str!("../vectors/wycheproof/hmac_sha256_test.json");
    each(file, |group, test| {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&bytes(test, "key")).unwrap();
        mac.update(&bytes(test, "msg"));
        let bits = group["tagSize"].as_u64().unwrap() as usize;
        mac.finalize().into_bytes()[..bits / 8] == bytes(test, "tag")[..]
    });
}

/// The suite of key wraps, opened as `Wrap::open` does.
#[test]
fn hpke_base_mode() {
    type Suite = hpke::kem::X25519HkdfSha256;
    let file = include_str!("../vectors/hpke/rfc9180.json");
    let file: Value = serde_json::from_str(file).unwrap();
    let mut count = 0;
    for case in file.as_array().unwrap() {
        let secret = <Suite as Kem>::PrivateKey::from_bytes(&bytes(case, "skRm")).unwrap();
        let encapsulated = <Suite as Kem>::EncappedKey::from_bytes(&bytes(case, "enc")).unwrap();
        let info = bytes(case, "info");
        let mut context = hpke::setup_receiver::<
            hpke::aead::ChaCha20Poly1305,
            hpke::kdf::HkdfSha256,
            Suite,
        >(&OpModeR::Base, &secret, &encapsulated, &info)
        .unwrap();
        for it in case["encryptions"].as_array().unwrap() {
            let opened = context.open(&bytes(it, "ct"), &bytes(it, "aad")).unwrap();
            assert_eq!(opened, bytes(it, "pt"));
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
}

use leno_identity::{KeyError, Label, PublicKey, Signature, SigningKey, VerifyError, VerifyingKey};

use crate::support::{Stuck, rng, text, unhex, vectors};

#[test]
fn wycheproof_is_judged_strictly() {
    let file = vectors("wycheproof/ed25519_test.json");
    let mut judged = 0;
    for group in file["testGroups"].as_array().unwrap() {
        let key = unhex(text(&group["publicKey"], "pk"));
        let key = VerifyingKey::from_bytes(key.as_slice().try_into().unwrap()).unwrap();
        for case in group["tests"].as_array().unwrap() {
            let (message, signature) = (unhex(text(case, "msg")), unhex(text(case, "sig")));
            let verdict = match signature.as_slice().try_into() {
                Ok(signature) => key.verify_message(&message, signature),
                Err(_) => Err(VerifyError::Mismatch),
            };
            let expected = match text(case, "result") {
                "valid" => Ok(()),
                "invalid" => Err(VerifyError::Mismatch),
                other => panic!("no such result is expected: {other}"),
            };
            assert_eq!(verdict, expected, "case {}", case["tcId"]);

            // The tagged path agrees, and finds wrong lengths before it looks at the key.
            let tagged = Signature::from_raw(leno_identity::SignatureKind::Ed25519, &signature);
            match tagged {
                Ok(it) => assert_eq!(PublicKey::from(key).verify_message(&message, &it), expected),
                Err(error) => {
                    let (needed, had) = (64, signature.len());
                    assert_eq!(error, KeyError::Length { needed, had });
                }
            }
            judged += 1;
        }
    }
    assert_eq!(file["numberOfTests"], judged);
}

#[test]
fn key_of_small_order_is_refused() {
    // The eight points of the torsion subgroup, each in its canonical encoding.
    for point in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        let bytes = unhex(point);
        let key = VerifyingKey::from_bytes(bytes.as_slice().try_into().unwrap());
        assert_eq!(key, Err(KeyError::SmallOrder), "{point}");
        let key = PublicKey::from_raw(leno_identity::KeyKind::Ed25519, &bytes).unwrap();
        // R is the neutral element and S is zero: the lax equation holds for any message.
        let mut forged = [0; 64];
        forged[0] = 1;
        assert_eq!(
            key.verify(Label::LOG_HEAD, &[], &forged.into()),
            Err(VerifyError::Key(KeyError::SmallOrder))
        );
    }
}

#[test]
fn key_with_another_encoding_is_refused() {
    // y = p + n for every n that still fits 255 bits: points that exist are not canonical.
    let mut refused = 0;
    for low in 0xed..=0xff_u8 {
        for high in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            match VerifyingKey::from_bytes(&bytes) {
                Err(KeyError::NotCanonical) => refused += 1,
                other => assert_eq!(other, Err(KeyError::NotOnCurve)),
            }
        }
    }
    assert!(refused > 10, "only {refused} points were met");
    // x = 0 with the sign bit set.
    let mut bytes = [0; 32];
    (bytes[0], bytes[31]) = (1, 0x80);
    assert_eq!(
        VerifyingKey::from_bytes(&bytes),
        Err(KeyError::NotCanonical)
    );
}

#[test]
fn bytes_that_are_no_point_are_refused() {
    let mut bytes = [0; 32];
    bytes[0] = 2;
    assert_eq!(VerifyingKey::from_bytes(&bytes), Err(KeyError::NotOnCurve));
}

#[test]
fn signature_holds_for_its_label_and_parts_only() {
    let key = SigningKey::generate(&mut rng(1)).unwrap();
    let signature = key.sign(Label::LOG_HEAD, &[b"ab", b"c"]);
    let check = |label, parts: &[&[u8]], expected| {
        assert_eq!(
            key.verifying_key().verify(label, parts, &signature),
            expected
        );
    };
    check(Label::LOG_HEAD, &[b"ab", b"c"], Ok(()));
    check(Label::LOG_HEAD, &[b"a", b"bc"], Err(VerifyError::Mismatch));
    check(Label::LOG_HEAD, &[b"abc"], Err(VerifyError::Mismatch));
    check(
        Label::SESSION_PROOF,
        &[b"ab", b"c"],
        Err(VerifyError::Mismatch),
    );
    let other = SigningKey::generate(&mut rng(2)).unwrap().verifying_key();
    let verdict = other.verify(Label::LOG_HEAD, &[b"ab", b"c"], &signature);
    assert_eq!(verdict, Err(VerifyError::Mismatch));
}

#[test]
fn raw_message_is_what_the_label_builds() {
    let key = SigningKey::generate(&mut rng(1)).unwrap();
    let message = Label::SESSION_PROOF.message(&[b"act"]);
    assert_eq!(
        key.sign_message(&message),
        key.sign(Label::SESSION_PROOF, &[b"act"])
    );
}

#[test]
fn generator_without_entropy_is_refused() {
    let key = SigningKey::generate(&mut Stuck(0));
    assert_eq!(key.map(|_| ()), Err(KeyError::ZeroSecret));
    let key = SigningKey::from_secret_bytes(&[0; 32]);
    assert_eq!(key.map(|_| ()), Err(KeyError::ZeroSecret));
}

#[test]
fn secret_is_restored_and_duplicated() {
    let key = SigningKey::generate(&mut rng(3)).unwrap();
    let restored = SigningKey::from_secret_bytes(&key.to_secret_bytes()).unwrap();
    assert_eq!(restored.verifying_key(), key.verifying_key());
    assert_eq!(key.duplicate().sign_message(b"m"), key.sign_message(b"m"));
}

#[test]
fn keys_sort_as_their_bytes_do() {
    let mut keys: Vec<_> = (0..16)
        .map(|seed| {
            SigningKey::generate(&mut rng(seed))
                .unwrap()
                .verifying_key()
        })
        .collect();
    keys.sort();
    assert!(
        keys.windows(2)
            .all(|pair| pair[0].to_bytes() < pair[1].to_bytes())
    );
}

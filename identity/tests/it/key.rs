use leno_identity::{
    KeyError, KeyKind, Label, PUBLIC_KEY_BYTES_MAX, PublicKey, SIGNATURE_BYTES_MAX, Signature,
    SignatureKind, SigningKey, VerifyError,
};

use crate::support::rng;

fn key(kind: KeyKind) -> PublicKey {
    PublicKey::from_raw(kind, &vec![2; kind.raw_bytes()]).unwrap()
}

#[test]
fn tag_is_the_multicodec() {
    let check = |kind, tag: &[u8]| {
        let bytes = key(kind).to_bytes();
        assert_eq!(
            bytes.strip_prefix(tag).map(<[u8]>::len),
            Some(kind.raw_bytes())
        );
        assert!(bytes.len() <= PUBLIC_KEY_BYTES_MAX);
    };
    check(KeyKind::Ed25519, &[0xed, 0x01]);
    check(KeyKind::X25519, &[0xec, 0x01]);
    check(KeyKind::Secp256k1, &[0xe7, 0x01]);
    check(KeyKind::P256, &[0x80, 0x24]);

    let check = |kind: SignatureKind, tag: &[u8]| {
        let bytes = Signature::from_raw(kind, &vec![2; kind.raw_bytes()]).unwrap();
        let bytes = bytes.to_bytes();
        assert_eq!(
            bytes.strip_prefix(tag).map(<[u8]>::len),
            Some(kind.raw_bytes())
        );
        assert!(bytes.len() <= SIGNATURE_BYTES_MAX);
    };
    check(SignatureKind::Ed25519, &[0xed, 0xa1, 0x03]);
    check(SignatureKind::Eip191, &[0x91, 0xa3, 0x03]);
    check(SignatureKind::P256, &[0x80, 0xa4, 0xc0, 0x06]);
}

#[test]
fn malformed_key_is_refused() {
    let check = |bytes: &[u8], expected| assert_eq!(PublicKey::decode(bytes), Err(expected));
    let tagged = |tag: &[u8], raw: usize| [tag, &vec![2; raw]].concat();
    check(&[], KeyError::Truncated { needed: 1, had: 0 });
    check(&[0xed], KeyError::Truncated { needed: 2, had: 1 });
    check(&tagged(&[0xed, 0x81, 0], 32), KeyError::TagNotMinimal);
    check(&tagged(&[0xff; 10], 32), KeyError::TagTooLong);
    for (raw, had) in [(0, 0), (31, 31), (33, 33)] {
        check(
            &tagged(&[0xed, 1], raw),
            KeyError::Length { needed: 32, had },
        );
        check(
            &tagged(&[0xec, 1], raw),
            KeyError::Length { needed: 32, had },
        );
    }
    // The uncompressed form of a point has 65 bytes.
    for tag in [&[0xe7, 1], &[0x80, 0x24]] {
        for had in [32, 34, 65] {
            check(&tagged(tag, had), KeyError::Length { needed: 33, had });
        }
        for first in [0, 1, 4, 5] {
            let bytes = [tag.as_slice(), &[first], &[2; 32]].concat();
            check(&bytes, KeyError::NotCompressed { first });
        }
    }
}

#[test]
fn unknown_kind_is_named() {
    // P-384 is a key of a kind that may come; 0x12 is not a key at all.
    let check = |bytes: &[u8], code| {
        let expected = KeyError::UnknownKind { code };
        assert_eq!(PublicKey::decode(bytes), Err(expected));
        assert_eq!(Signature::decode(bytes), Err(expected));
    };
    check(&[&[0x81, 0x24][..], &[2; 49]].concat(), 0x1201);
    check(&[0x12, 0x20], 0x12);
    check(&[0], 0);
}

#[test]
fn malformed_signature_is_refused() {
    let check = |bytes: &[u8], expected| assert_eq!(Signature::decode(bytes), Err(expected));
    check(&[], KeyError::Truncated { needed: 1, had: 0 });
    for had in [0, 63, 65, 4_000] {
        let bytes = [&[0xed, 0xa1, 0x03][..], &vec![0; had]].concat();
        check(&bytes, KeyError::Length { needed: 64, had });
    }
}

#[test]
fn only_ed25519_is_verified() {
    let signature = Signature::from([0; 64]);
    for kind in [KeyKind::X25519, KeyKind::Secp256k1, KeyKind::P256] {
        let verdict = key(kind).verify(Label::SESSION_PROOF, &[], &signature);
        assert_eq!(verdict, Err(VerifyError::UnsupportedKey { kind }));
        let proven = key(kind).to_verifying_key();
        assert_eq!(proven, Err(VerifyError::UnsupportedKey { kind }));
    }
}

#[test]
fn signature_of_another_kind_is_refused() {
    let signing = SigningKey::generate(&mut rng(1)).unwrap();
    let key = PublicKey::from(signing.verifying_key());
    let raw = signing.sign(Label::SESSION_PROOF, &[b"act"]);
    assert_eq!(
        key.verify(Label::SESSION_PROOF, &[b"act"], &raw.into()),
        Ok(())
    );

    let relabelled = Signature::from_raw(SignatureKind::P256, &raw).unwrap();
    let expected = VerifyError::WrongKind {
        key: KeyKind::Ed25519,
        signature: SignatureKind::P256,
    };
    let verdict = key.verify(Label::SESSION_PROOF, &[b"act"], &relabelled);
    assert_eq!(verdict, Err(expected));
}

#[test]
fn same_bytes_of_another_kind_are_another_key() {
    let ed25519 = PublicKey::from_raw(KeyKind::Ed25519, &[9; 32]).unwrap();
    let x25519 = PublicKey::from_raw(KeyKind::X25519, &[9; 32]).unwrap();
    assert_ne!(ed25519, x25519);
    assert_ne!(ed25519.to_did(), x25519.to_did());
}

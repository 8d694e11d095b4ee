//! Laws that hold for every input.

use leno_identity::{
    Device, DeviceCertificate, Did, Ed25519Identity, KeyKind, Label, PublicKey, Scope, Signature,
    SignatureKind, SigningKey, VerifyingKey,
};
use proptest::{array::uniform32, collection::vec, prelude::*, sample::select};

use crate::support::{NOW, TOMORROW, issue, phone, rng};

fn public_key() -> impl Strategy<Value = PublicKey> {
    (select(KeyKind::ALL), vec(any::<u8>(), 33)).prop_map(|(kind, mut raw)| {
        raw[0] = if kind.raw_bytes() == 33 {
            2 | raw[0] & 1
        } else {
            raw[0]
        };
        PublicKey::from_raw(kind, &raw[..kind.raw_bytes()]).unwrap()
    })
}

fn certificate() -> impl Strategy<Value = DeviceCertificate> {
    let scope = prop_oneof![
        Just(Scope::All),
        "[a-zA-Z0-9._/:-]{1,128}".prop_map(|name| Scope::named(&name).unwrap()),
    ];
    let expires = proptest::option::of(NOW + 1..1 << 48);
    (1..=u64::MAX, scope, expires).prop_map(|(seed, scope, expires)| {
        let identity = Ed25519Identity::generate(&mut rng(seed)).unwrap();
        let device = Device::generate(&mut rng(!seed)).unwrap();
        issue(&identity, &device, scope, expires).unwrap()
    })
}

proptest! {
    #[test]
    fn public_key_round_trips(key in public_key()) {
        prop_assert_eq!(PublicKey::decode(&key.to_bytes()), Ok(key));
        prop_assert_eq!(key.to_did().to_string().parse(), Ok(key.to_did()));
        prop_assert_eq!(key.to_did().public_key(), key);
    }

    #[test]
    fn signature_round_trips(kind in select(SignatureKind::ALL), raw in vec(any::<u8>(), 65)) {
        let signature = Signature::from_raw(kind, &raw[..kind.raw_bytes()]).unwrap();
        prop_assert_eq!(Signature::decode(&signature.to_bytes()), Ok(signature));
    }

    #[test]
    fn accepted_key_is_written_as_it_was_read(
        tag in select(vec![&[0xed, 1][..], &[0xec, 1], &[0xe7, 1], &[0x80, 0x24], &[]]),
        raw in vec(any::<u8>(), 0..40),
    ) {
        let bytes = [tag, &raw].concat();
        if let Ok(key) = PublicKey::decode(&bytes) {
            prop_assert_eq!(key.to_bytes(), bytes);
        }
    }

    #[test]
    fn accepted_verifying_key_is_written_as_it_was_read(bytes in uniform32(any::<u8>())) {
        if let Ok(key) = VerifyingKey::from_bytes(&bytes) {
            prop_assert_eq!(key.to_bytes(), bytes);
        }
    }

    #[test]
    fn accepted_did_is_shown_as_it_was_read(text in "did:key:z[1-9A-Za-z]{0,50}|\\PC{0,60}") {
        if let Ok(did) = text.parse::<Did>() {
            prop_assert_eq!(did.to_string(), text);
        }
    }

    #[test]
    fn label_and_parts_have_one_message(
        one in vec(vec(any::<u8>(), 0..4), 0..4),
        other in vec(vec(any::<u8>(), 0..4), 0..4),
        labels in (select(Label::ALL), select(Label::ALL)),
    ) {
        let parts = |parts: &'_ [Vec<u8>], label: Label| {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            label.message(&parts)
        };
        let same = one == other && labels.0 == labels.1;
        prop_assert_eq!(parts(&one, labels.0) == parts(&other, labels.1), same);
    }

    #[test]
    fn flipped_bit_breaks_a_signature(
        seed in any::<u64>(),
        part in vec(any::<u8>(), 0..64),
        bit in 0..512_usize,
    ) {
        let key = SigningKey::generate(&mut rng(seed)).unwrap();
        let mut signature = key.sign(Label::LOG_HEAD, &[&part]);
        let public = key.verifying_key();
        prop_assert!(public.verify(Label::LOG_HEAD, &[&part], &signature).is_ok());
        signature[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(public.verify(Label::LOG_HEAD, &[&part], &signature).is_err());
    }

    #[test]
    fn certificate_round_trips(certificate in certificate()) {
        let bytes = certificate.to_bytes();
        prop_assert!(bytes.len() <= 480);
        let decoded = DeviceCertificate::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded, &certificate);
        prop_assert_eq!(decoded.to_bytes(), bytes);
        prop_assert!(decoded.verify(NOW).is_ok());
    }

    #[test]
    fn device_round_trips(seed in any::<u64>()) {
        let device = Device::generate(&mut rng(seed)).unwrap();
        let secrets = device.to_secret_bytes();
        let restored = Device::from_secret_bytes(&secrets).unwrap();
        prop_assert_eq!(restored.to_secret_bytes(), secrets);
    }

    #[test]
    fn decoding_anything_never_panics(bytes in vec(any::<u8>(), 0..600)) {
        for bytes in [bytes.clone(), [&[0x89, 1][..], &bytes].concat()] {
            if let Ok(certificate) = DeviceCertificate::decode(&bytes) {
                prop_assert_eq!(certificate.to_bytes(), bytes.clone());
            }
            if let Ok(signature) = Signature::decode(&bytes) {
                prop_assert_eq!(signature.to_bytes(), bytes.clone());
            }
            let _ = Device::from_secret_bytes(&bytes);
        }
    }

    #[test]
    fn certificate_with_bytes_replaced_never_panics(
        certificate in certificate(),
        at in any::<prop::sample::Index>(),
        patch in vec(any::<u8>(), 0..8),
        gap in 0..8_usize,
    ) {
        let bytes = certificate.to_bytes();
        let at = at.index(bytes.len());
        let after = bytes.get(at + gap..).unwrap_or_default();
        let patched = [&bytes[..at], &patch, after].concat();
        if let Ok(decoded) = DeviceCertificate::decode(&patched) {
            prop_assert_eq!(decoded.to_bytes(), &patched[..]);
            prop_assert_eq!(decoded.verify(NOW).is_ok(), patched == bytes);
        }
    }
}

/// Every bit of one certificate, not a sample of them.
#[test]
fn flipped_bit_breaks_a_certificate() {
    let identity = Ed25519Identity::from_secret_bytes(&[1; 32]).unwrap();
    let scope = Scope::named("songs").unwrap();
    let good = issue(&identity, &phone(), scope, Some(TOMORROW))
        .unwrap()
        .to_bytes();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let verdict = DeviceCertificate::decode(&bytes).and_then(|it| it.verify(NOW));
        assert!(verdict.is_err(), "bit {bit}");
    }
}

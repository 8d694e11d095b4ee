use leno_identity::{
    AgreementPublicKey, CERTIFICATE_BYTES_MAX, CertificateError, ClaimError, DEVICE_SECRET_BYTES,
    Device, DeviceCertificate, Identity, KeyError, KeyKind, Label, PublicKey, SKEW_MILLIS_MAX,
    Scope, ScopeError, SigningKey, Statement, VerifyError,
};
use serde::Serialize;
use serde_bytes::Bytes;

use crate::support::{NOW, Stuck, TOMORROW, alice, bob, hex, issue, phone, text, unhex, vectors};

/// The fields of a certificate, each free to be wrong.
#[derive(Clone)]
struct Parts {
    version: u64,
    identity: Vec<u8>,
    device: Vec<u8>,
    agreement: Vec<u8>,
    scope: Option<String>,
    issued: u64,
    expires: Option<u64>,
    by_identity: Vec<u8>,
    by_device: Vec<u8>,
}

impl Parts {
    /// The phone of ALICE, signed by both.
    fn good() -> Self {
        let mut parts = Self {
            version: 1,
            identity: alice().public_key().to_bytes(),
            device: phone().verifying_key().to_bytes().to_vec(),
            agreement: phone().agreement_public_key().to_bytes().to_vec(),
            scope: Some("songs".to_owned()),
            issued: NOW,
            expires: Some(TOMORROW),
            by_identity: Vec::new(),
            by_device: Vec::new(),
        };
        parts.sign(&signing(0xa1), phone().signing_key());
        parts
    }

    fn sign(&mut self, identity: &SigningKey, device: &SigningKey) {
        let body = self.body();
        let signature = identity.sign(Label::DEVICE_CERTIFICATE_IDENTITY, &[&body]);
        self.by_identity = leno_identity::Signature::from(signature).to_bytes();
        self.by_device = device
            .sign(Label::DEVICE_CERTIFICATE_DEVICE, &[&body])
            .to_vec();
    }

    fn body(&self) -> Vec<u8> {
        encode(&(
            self.version,
            Bytes::new(&self.identity),
            Bytes::new(&self.device),
            Bytes::new(&self.agreement),
            &self.scope,
            self.issued,
            self.expires,
        ))
    }

    fn bytes(&self) -> Vec<u8> {
        encode(&(
            self.version,
            Bytes::new(&self.identity),
            Bytes::new(&self.device),
            Bytes::new(&self.agreement),
            &self.scope,
            self.issued,
            self.expires,
            Bytes::new(&self.by_identity),
            Bytes::new(&self.by_device),
        ))
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).unwrap()
}

fn signing(byte: u8) -> SigningKey {
    SigningKey::from_secret_bytes(&[byte; 32]).unwrap()
}

/// Changes the good certificate and tells why it is refused at [`NOW`].
fn refusal(change: impl FnOnce(&mut Parts)) -> CertificateError {
    let mut parts = Parts::good();
    change(&mut parts);
    let certificate = DeviceCertificate::decode(&parts.bytes());
    certificate.and_then(|it| it.verify(NOW)).unwrap_err()
}

#[test]
fn certificate_binds_device_to_identity() {
    let scope = Scope::named("songs").unwrap();
    let certificate = issue(&alice(), &phone(), scope.clone(), Some(TOMORROW)).unwrap();
    assert_eq!(certificate.to_bytes(), Parts::good().bytes());

    let decoded = DeviceCertificate::decode(&certificate.to_bytes()).unwrap();
    assert_eq!(decoded, certificate);
    let verified = decoded.verify(NOW).unwrap();
    assert_eq!(*verified.identity(), alice().public_key());
    assert_eq!(*verified.device(), phone().verifying_key());
    assert_eq!(*verified.agreement(), phone().agreement_public_key());
    assert_eq!(*verified.scope(), scope);
    assert_eq!(verified.claim().issued_millis(), NOW);
    assert_eq!(verified.claim().expires_millis(), Some(TOMORROW));
    assert_eq!(*verified.certificate(), certificate);
}

#[test]
fn frozen_certificates_have_the_same_bytes() {
    let file = vectors("certificate.json");
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let identity: [u8; 32] = unhex(text(case, "identity_secret")).try_into().unwrap();
        let identity = leno_identity::Ed25519Identity::from_secret_bytes(&identity).unwrap();
        let device = Device::from_secret_bytes(&unhex(text(case, "device_secret"))).unwrap();
        let scope = match case["scope"].as_str() {
            None => Scope::All,
            Some(name) => Scope::named(name).unwrap(),
        };
        let issued = issue(&identity, &device, scope, case["expires_millis"].as_u64()).unwrap();
        assert_eq!(hex(&issued.to_bytes()), text(case, "certificate"));
        let decoded = DeviceCertificate::decode(&unhex(text(case, "certificate"))).unwrap();
        assert_eq!(decoded, issued);
        let verified = decoded.verify(NOW).unwrap();
        let statement = Statement::DeviceCertificate(verified.claim().clone());
        assert_eq!(hex(&statement.to_bytes()), text(case, "statement"));
        assert_eq!(statement.to_line(), text(case, "line"));
    }
    assert_eq!(cases.len(), 2);
}

#[test]
fn both_signatures_are_needed() {
    use CertificateError::{DeviceSignature, IdentitySignature};
    let mismatch = VerifyError::Mismatch;
    // MALLORY claims ALICE's phone, or ALICE's name for a phone of his own.
    let by_mallory = refusal(|it| it.sign(&signing(0xff), phone().signing_key()));
    assert_eq!(by_mallory, IdentitySignature(mismatch));
    let by_mallory = refusal(|it| it.sign(&signing(0xa1), &signing(0xff)));
    assert_eq!(by_mallory, DeviceSignature(mismatch));
    let absent = refusal(|it| it.by_device = vec![0; 64]);
    assert_eq!(absent, DeviceSignature(mismatch));
    // One signature never serves as the other, even of one key.
    let swapped = refusal(|it| {
        let body = it.body();
        let label = Label::DEVICE_CERTIFICATE_IDENTITY;
        it.by_device = phone().signing_key().sign(label, &[&body]).to_vec();
    });
    assert_eq!(swapped, DeviceSignature(mismatch));
    let swapped = refusal(|it| {
        let body = it.body();
        let signature = signing(0xa1).sign(Label::DEVICE_CERTIFICATE_DEVICE, &[&body]);
        it.by_identity = leno_identity::Signature::from(signature).to_bytes();
    });
    assert_eq!(swapped, IdentitySignature(mismatch));
}

#[test]
fn every_field_is_signed() {
    let check = |change: fn(&mut Parts)| {
        let mismatch = CertificateError::DeviceSignature(VerifyError::Mismatch);
        assert_eq!(refusal(change), mismatch);
        // With the device's consent, the identity's signature still covers the field.
        let refused = refusal(|it| {
            let before = it.by_identity.clone();
            change(it);
            it.sign(&signing(0xa1), phone().signing_key());
            it.by_identity = before;
        });
        assert_eq!(
            refused,
            CertificateError::IdentitySignature(VerifyError::Mismatch)
        );
    };
    check(|it| it.identity = bob().public_key().to_bytes());
    check(|it| it.agreement[0] ^= 1);
    check(|it| it.scope = None);
    check(|it| it.scope = Some("song".to_owned()));
    check(|it| it.issued += 1);
    check(|it| it.expires = None);
    check(|it| it.expires = Some(TOMORROW + 1));
}

#[test]
fn lifetime_is_checked_to_the_millisecond() {
    let verify = |now| {
        DeviceCertificate::decode(&Parts::good().bytes())
            .unwrap()
            .verify(now)
    };
    let check = |now, expected| assert_eq!(verify(now).map(|_| ()), expected, "{now}");
    let expires_millis = TOMORROW;
    let early = NOW - SKEW_MILLIS_MAX - 1;
    check(
        early,
        Err(CertificateError::NotYetIssued {
            issued_millis: NOW,
            now_millis: early,
        }),
    );
    check(early + 1, Ok(()));
    check(NOW, Ok(()));
    check(TOMORROW - 1, Ok(()));
    for now_millis in [TOMORROW, TOMORROW + 1, u64::MAX] {
        check(
            now_millis,
            Err(CertificateError::Expired {
                expires_millis,
                now_millis,
            }),
        );
    }
    let endless = issue(&alice(), &phone(), Scope::All, None).unwrap();
    assert!(endless.verify(u64::MAX).is_ok());
}

#[test]
fn field_without_meaning_is_refused() {
    use CertificateError::{Claim, Key, Scope};
    let check = |expected, change: fn(&mut Parts)| assert_eq!(refusal(change), expected);
    let length = |needed, had| Key(KeyError::Length { needed, had });
    check(Key(KeyError::UnknownKind { code: 0x1201 }), |it| {
        it.identity = [&[0x81, 0x24][..], &[2; 49]].concat();
    });
    check(length(32, 33), |it| it.identity.push(0));
    check(Key(KeyError::Truncated { needed: 1, had: 0 }), |it| {
        it.identity.clear()
    });
    check(Key(KeyError::SmallOrder), |it| it.device = vec![0; 32]);
    check(Key(KeyError::NotCanonical), |it| {
        it.device = vec![0xff; 32];
        (it.device[0], it.device[31]) = (0xee, 0x7f);
    });
    let small = ClaimError::AgreementKey(KeyError::SmallOrder);
    check(Claim(small), |it| it.agreement = vec![0; 32]);
    check(Claim(ClaimError::IdentityIsDevice), |it| {
        it.identity = PublicKey::from(phone().verifying_key()).to_bytes();
    });
    let kind = KeyKind::X25519;
    check(Claim(ClaimError::IdentityNeverSigns { kind }), |it| {
        it.identity = PublicKey::from(AgreementPublicKey::from_bytes([9; 32])).to_bytes();
    });
    let millis = u64::MAX;
    check(Claim(ClaimError::TimeTooLarge { millis }), |it| {
        it.issued = u64::MAX
    });
    let times = ClaimError::EmptyLifetime {
        issued_millis: NOW,
        expires_millis: NOW,
    };
    check(Claim(times), |it| it.expires = Some(NOW));
    check(Scope(ScopeError::Length { had: 0 }), |it| {
        it.scope = Some(String::new())
    });
    let character = '\n';
    check(Scope(ScopeError::Character { character }), |it| {
        it.scope = Some("a\nb".to_owned())
    });
    check(length(64, 65), |it| it.by_identity.push(0));
    check(Key(KeyError::UnknownKind { code: 0x34 }), |it| {
        it.by_identity = vec![0x34; 67]
    });
}

#[test]
fn identity_of_an_unsupported_kind_is_kept_apart_from_a_bad_signature() {
    for kind in [KeyKind::Secp256k1, KeyKind::P256] {
        let refused = refusal(|it| {
            it.identity = PublicKey::from_raw(kind, &[2; 33]).unwrap().to_bytes();
            it.sign(&signing(0xa1), phone().signing_key());
        });
        let unsupported = VerifyError::UnsupportedKey { kind };
        assert_eq!(refused, CertificateError::IdentitySignature(unsupported));
    }
}

#[test]
fn other_bytes_are_refused() {
    let good = Parts::good().bytes();
    let decode = |bytes: &[u8]| DeviceCertificate::decode(bytes).map(|_| ());
    let malformed = |bytes: &[u8]| {
        let refused = decode(bytes);
        assert!(
            matches!(refused, Err(CertificateError::Malformed { .. })),
            "{refused:?}"
        );
    };
    for length in 0..good.len() {
        malformed(&good[..length]);
    }
    malformed(&[&good[..], &[0]].concat());
    malformed(&encode(&Parts::good().body()));
    malformed(&encode(&"certificate"));
    let mut parts = Parts::good();
    parts.device.push(0);
    malformed(&parts.bytes());

    let had = CERTIFICATE_BYTES_MAX + 1;
    assert_eq!(
        decode(&vec![0x89; had]),
        Err(CertificateError::TooLarge { had })
    );
    malformed(&vec![0x89; CERTIFICATE_BYTES_MAX]);
}

#[test]
fn other_version_is_named() {
    for version in [0, 2, 23] {
        let refused = refusal(|it| it.version = version.into());
        assert_eq!(refused, CertificateError::UnknownVersion { version });
        // Another version may have other fields.
        let refused = DeviceCertificate::decode(&encode(&(version, "anything"))).unwrap_err();
        assert_eq!(refused, CertificateError::UnknownVersion { version });
    }
}

#[test]
fn other_encoding_of_the_same_certificate_is_refused() {
    let good = Parts::good().bytes();
    let check = |bytes: Vec<u8>| {
        use CertificateError::{Malformed, NotCanonical};
        let refused = DeviceCertificate::decode(&bytes);
        assert!(
            matches!(refused, Err(NotCanonical | Malformed { .. })),
            "{refused:?}"
        );
    };
    // The count, the version and a length in longer forms, and a list without a length.
    check([&[0x98, 9], &good[1..]].concat());
    check([&[0x89, 0x18, 1], &good[2..]].concat());
    check([&[0x89, 1, 0x59, 0, 34], &good[4..]].concat());
    check([&[0x9f], &good[1..], &[0xff]].concat());
    // A byte string as a list of numbers.
    let identity: Vec<u8> = alice().public_key().to_bytes();
    check([&[0x89, 1][..], &encode(&identity), &good[2 + 2 + 34..]].concat());
    // A version that is not one byte.
    check([&[0x89, 0x19, 1, 0], &good[2..]].concat());
}

#[test]
fn device_is_restored_from_its_secrets() {
    let device = phone();
    let secrets = device.to_secret_bytes();
    assert_eq!(secrets.len(), DEVICE_SECRET_BYTES);
    let restored = Device::from_secret_bytes(&secrets).unwrap();
    assert_eq!(restored.verifying_key(), device.verifying_key());
    assert_eq!(
        restored.agreement_public_key(),
        device.agreement_public_key()
    );
    assert_eq!(
        restored.nonce_secret().as_bytes(),
        device.nonce_secret().as_bytes()
    );
    assert_eq!(*restored.to_secret_bytes(), *secrets);
}

#[test]
fn other_secrets_are_refused() {
    let good = phone().to_secret_bytes();
    let check = |bytes: &[u8], expected| {
        assert_eq!(Device::from_secret_bytes(bytes).map(|_| ()), Err(expected));
    };
    for had in [0, 1, 33, 96] {
        check(&good[..had], KeyError::Length { needed: 97, had });
    }
    check(
        &[&good[..], &[0]].concat(),
        KeyError::Length {
            needed: 97,
            had: 98,
        },
    );
    for version in [0, 2, 255] {
        check(
            &[&[version], &good[1..]].concat(),
            KeyError::UnknownVersion { version },
        );
    }
    for at in [1, 33, 65] {
        let mut zeroed = good.to_vec();
        zeroed[at..at + 32].fill(0);
        check(&zeroed, KeyError::ZeroSecret);
    }
    for (from, to) in [(1, 33), (1, 65), (33, 65)] {
        let mut repeated = good.to_vec();
        repeated.copy_within(from..from + 32, to);
        check(&repeated, KeyError::StuckGenerator);
    }
}

#[test]
fn stuck_generator_is_refused() {
    let device = Device::generate(&mut Stuck(0));
    assert_eq!(device.map(|_| ()), Err(KeyError::ZeroSecret));
    let device = Device::generate(&mut Stuck(7));
    assert_eq!(device.map(|_| ()), Err(KeyError::StuckGenerator));
}

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use leno_identity::{
    ClaimError, Device, DeviceCertificate, DeviceClaim, Identity, IdentityError, IssueError,
    KeyError, KeyKind, PublicKey, Scope, ScopeError, Signature, SigningKey, Statement, VerifyError,
};

use crate::support::{NOW, TOMORROW, alice, bob, issue, phone};

fn statement(identity: &dyn Identity) -> Statement {
    let scope = Scope::named("songs").unwrap();
    let claim = DeviceClaim::new(identity.public_key(), &phone(), scope, NOW, Some(TOMORROW));
    Statement::DeviceCertificate(claim.unwrap())
}

#[test]
fn identity_signs_only_for_itself() {
    let signature = alice().sign(&statement(&alice())).now_or_never().unwrap();
    assert_eq!(statement(&alice()).verify(&signature.unwrap()), Ok(()));
    let refused = alice().sign(&statement(&bob())).now_or_never().unwrap();
    assert!(matches!(refused, Err(IdentityError::NotMine)));
}

#[test]
fn signature_of_another_statement_is_refused() {
    let signature = alice().sign(&statement(&alice())).now_or_never().unwrap();
    let key = alice().public_key();
    let other = DeviceClaim::new(key, &phone(), Scope::All, NOW, Some(TOMORROW)).unwrap();
    let verdict = Statement::DeviceCertificate(other).verify(&signature.unwrap());
    assert_eq!(verdict, Err(VerifyError::Mismatch));
}

#[test]
fn line_is_plain_and_says_everything() {
    let line = statement(&alice()).to_line();
    assert!(
        line.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "{line}"
    );
    let device = PublicKey::from(phone().verifying_key())
        .to_did()
        .to_string();
    for part in [
        "leno: device ",
        &device,
        &alice().public_key().to_did().to_string(),
        " in \"songs\" from 2023-11-14T22:13:20Z until 2023-11-15T22:13:20Z [sha256 ",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // A millisecond that the times do not show changes the digest.
    let claim = DeviceClaim::new(alice().public_key(), &phone(), Scope::All, NOW, None).unwrap();
    let later = DeviceClaim::new(alice().public_key(), &phone(), Scope::All, NOW + 1, None);
    let (line, later) = (
        Statement::DeviceCertificate(claim).to_line(),
        Statement::DeviceCertificate(later.unwrap()).to_line(),
    );
    assert!(line.contains(" in everything from 2023-11-14T22:13:20Z until revoked ["));
    assert_eq!(line.split('[').next(), later.split('[').next());
    assert_ne!(line, later);
}

#[test]
fn scope_cannot_break_out_of_the_line() {
    let check = |name: &str, expected| assert_eq!(Scope::named(name), Err(expected));
    check("", ScopeError::Length { had: 0 });
    check(&"a".repeat(129), ScopeError::Length { had: 129 });
    for character in [' ', '\n', '"', '\\', '\0', '\u{7f}', 'é', '\u{202e}'] {
        check(
            &format!("songs{character}"),
            ScopeError::Character { character },
        );
    }
    let longest = "a".repeat(128);
    assert_eq!(
        Scope::named(&longest).unwrap().name(),
        Some(longest.as_str())
    );
}

#[test]
fn claim_that_cannot_be_is_refused() {
    let device = phone();
    let check = |identity, issued, expires, expected| {
        let claim = DeviceClaim::new(identity, &device, Scope::All, issued, expires);
        assert_eq!(claim.map(|_| ()), Err(expected));
    };
    let key = alice().public_key();
    let agreement = PublicKey::from(device.agreement_public_key());
    let kind = KeyKind::X25519;
    check(
        agreement,
        NOW,
        None,
        ClaimError::IdentityNeverSigns { kind },
    );
    let own = PublicKey::from(device.verifying_key());
    check(own, NOW, None, ClaimError::IdentityIsDevice);
    let millis = 1 << 48;
    check(key, millis, None, ClaimError::TimeTooLarge { millis });
    check(key, NOW, Some(millis), ClaimError::TimeTooLarge { millis });
    for expires_millis in [0, NOW - 1, NOW] {
        let expected = ClaimError::EmptyLifetime {
            issued_millis: NOW,
            expires_millis,
        };
        check(key, NOW, Some(expires_millis), expected);
    }
}

#[test]
fn agreement_key_of_small_order_is_refused() {
    for byte in [0, 1] {
        let mut point = [0; 32];
        point[0] = byte;
        let claim = DeviceClaim::from_parts(
            alice().public_key(),
            phone().verifying_key(),
            leno_identity::AgreementPublicKey::from_bytes(point),
            Scope::All,
            NOW,
            None,
        );
        let expected = ClaimError::AgreementKey(KeyError::SmallOrder);
        assert_eq!(claim.map(|_| ()), Err(expected));
    }
}

/// An identity that answers with what it was given.
struct Scripted(Result<Signature, IdentityError>);

#[async_trait]
impl Identity for Scripted {
    fn public_key(&self) -> PublicKey {
        alice().public_key()
    }

    async fn sign(&self, _: &Statement) -> Result<Signature, IdentityError> {
        self.0.clone()
    }
}

fn issue_from(answer: Result<Signature, IdentityError>) -> Result<DeviceCertificate, IssueError> {
    let identity: Box<dyn Identity> = Box::new(Scripted(answer));
    let device = phone();
    let issuing = DeviceCertificate::issue(&*identity, &device, Scope::All, NOW, None);
    issuing.now_or_never().unwrap()
}

#[test]
fn bad_answer_of_an_identity_never_becomes_a_certificate() {
    let issued = issue_from(Ok([0; 64].into()));
    assert!(matches!(
        issued,
        Err(IssueError::Identity(IdentityError::BadSignature(
            VerifyError::Mismatch
        )))
    ));
    let other = SigningKey::from_secret_bytes(&[5; 32]).unwrap();
    let issued = issue_from(Ok(other.sign_message(b"anything").into()));
    assert!(matches!(
        issued,
        Err(IssueError::Identity(IdentityError::BadSignature(
            VerifyError::Mismatch
        )))
    ));
}

#[test]
fn refusal_of_an_identity_reaches_the_caller() {
    let issued = issue_from(Err(IdentityError::Declined));
    assert!(matches!(
        issued,
        Err(IssueError::Identity(IdentityError::Declined))
    ));

    let cause = Arc::new(std::io::Error::other("the wallet is locked"));
    let issued = issue_from(Err(IdentityError::Unreachable(cause)));
    let error: Box<dyn std::error::Error> = Box::new(issued.unwrap_err());
    let source = error.source().and_then(|it| it.source());
    assert_eq!(source.unwrap().to_string(), "the wallet is locked");
}

#[test]
fn identity_is_restored_from_its_secret() {
    let restored = leno_identity::Ed25519Identity::from_secret_bytes(&alice().to_secret_bytes());
    assert_eq!(restored.unwrap().public_key(), alice().public_key());
}

#[test]
fn issuing_can_cross_threads() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let (identity, device): (Arc<dyn Identity>, Device) = (Arc::new(alice()), phone());
    let issuing = assert_send(async move {
        DeviceCertificate::issue(&*identity, &device, Scope::All, NOW, None).await
    });
    let issued = std::thread::spawn(|| issuing.now_or_never())
        .join()
        .unwrap();
    let expected = issue(&alice(), &phone(), Scope::All, None).unwrap();
    assert_eq!(issued.unwrap().unwrap(), expected);
}

//! The contract of the [`Identity`] port, as checks that an implementation runs.

use crate::{
    AgreementPublicKey, DeviceClaim, Identity, IdentityError, PublicKey, Scope, SigningKey,
    Statement, VerifyingKey,
};

/// Runs every check on `identity`.
///
/// It signs twice; a person behind it must agree each time.
///
/// # Panics
///
/// With the clause of the contract that is broken.
pub async fn check_identity(identity: &dyn Identity) {
    public_key_is_stable_and_signs(identity);
    own_statement_is_signed_each_time(identity).await;
    statement_of_another_is_refused(identity).await;
}

fn public_key_is_stable_and_signs(identity: &dyn Identity) {
    let key = identity.public_key();
    assert_eq!(key, identity.public_key(), "the public key never changes");
    assert!(key.kind().signs(), "an identity has a key that signs");
}

async fn own_statement_is_signed_each_time(identity: &dyn Identity) {
    let statement = statement_of(identity.public_key());
    for _ in 0..2 {
        let signature = identity.sign(&statement).await;
        let signature = signature.expect("an identity signs what speaks for it, and again");
        let verdict = statement.verify(&signature);
        assert_eq!(verdict, Ok(()), "each signature is of the statement");
    }
}

async fn statement_of_another_is_refused(identity: &dyn Identity) {
    let answer = identity.sign(&statement_of(key(0x33).into())).await;
    assert!(
        matches!(answer, Err(IdentityError::NotMine)),
        "a statement that speaks for another identity is never signed"
    );
}

fn statement_of(identity: PublicKey) -> Statement {
    let agreement = AgreementPublicKey::from_bytes([9; 32]);
    let claim = DeviceClaim::from_parts(
        identity,
        key(0x44),
        agreement,
        Scope::All,
        1_000,
        Some(2_000),
    );
    Statement::DeviceCertificate(claim.expect("the parts are within bounds"))
}

fn key(byte: u8) -> VerifyingKey {
    let key = SigningKey::from_secret_bytes(&[byte; 32]);
    key.expect("the secret is not zero").verifying_key()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::Ed25519Identity;

    #[test]
    fn ed25519_identity_keeps_the_contract() {
        let identity = Ed25519Identity::from_secret_bytes(&[1; 32]).unwrap();
        let checks = check_identity(&identity).now_or_never();
        checks.expect("an identity in memory answers at once");
    }
}

//! Signed heads: the only signatures on a log.

use leno_crdt_codec::{LogId, Seq};
use leno_identity::{Label, SigningKey, VerifyingKey};

use crate::{RecordId, ThreadId};

/// A signed statement of a log's newest record. All that it covers is inside the hash chain.
///
/// # Examples
///
/// ```
/// use leno_identity::SigningKey;
/// use leno_threads_core::{LogId, RecordId, SignedHead, ThreadId};
///
/// let key = SigningKey::from_secret_bytes(&[1; 32])?;
/// let log = LogId(key.verifying_key().to_bytes());
/// let head = SignedHead::sign(&key, ThreadId([2; 32]), log, 7, RecordId([3; 32]));
/// assert_eq!(*head.verify()?.head(), head);
/// // The same signature says nothing of another record, place, log or thread.
/// assert!(SignedHead { seq: 8, ..head }.verify().is_err());
/// assert!(SignedHead { thread: ThreadId([4; 32]), ..head }.verify().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SignedHead {
    /// The thread.
    pub thread: ThreadId,
    /// The log.
    pub log: LogId,
    /// Place of the newest record.
    pub seq: Seq,
    /// Id of the newest record.
    pub id: RecordId,
    /// Ed25519 signature by the log key.
    pub signature: [u8; 64],
}

/// A signature does not hold, or the log id is no key that may sign.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[error("the head of log {log} at {seq} is not signed by the log's key")]
pub struct HeadError {
    /// The log.
    pub log: LogId,
    /// Place of the record that the head claims.
    pub seq: Seq,
}

impl SignedHead {
    /// Signs a head.
    #[must_use]
    pub fn sign(key: &SigningKey, thread: ThreadId, log: LogId, seq: Seq, id: RecordId) -> Self {
        let signature = key.sign(
            Label::LOG_HEAD,
            &[&thread.0, &log.0, &seq.to_be_bytes(), &id.0],
        );
        Self {
            thread,
            log,
            seq,
            id,
            signature,
        }
    }

    /// Checks the signature by the rules of RFC 8032 at their strictest.
    ///
    /// # Errors
    ///
    /// [`HeadError`].
    pub fn verify(self) -> Result<VerifiedHead, HeadError> {
        self.verify_by(VerifyingKey::from_bytes(&self.log.0).ok().as_ref())
    }

    /// As [`SignedHead::verify`], with the log's key made ready before, which takes a quarter of the
    /// time of a check; none if the log's id is no key.
    pub(crate) fn verify_by(self, key: Option<&VerifyingKey>) -> Result<VerifiedHead, HeadError> {
        let error = HeadError {
            log: self.log,
            seq: self.seq,
        };
        let key = key.filter(|key| *key.as_bytes() == self.log.0);
        let key = key.ok_or(error)?;
        let parts: [&[u8]; 4] = [
            &self.thread.0,
            &self.log.0,
            &self.seq.to_be_bytes(),
            &self.id.0,
        ];
        key.verify(Label::LOG_HEAD, &parts, &self.signature)
            .map_err(|_| error)?;
        Ok(VerifiedHead(self))
    }
}

/// A head whose signature holds. Exists only through [`SignedHead::verify`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VerifiedHead(SignedHead);

impl VerifiedHead {
    /// The head.
    #[must_use]
    pub fn head(&self) -> &SignedHead {
        &self.0
    }
}

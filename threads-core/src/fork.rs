//! Proofs that a log has two branches.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq};

use crate::{Header, RecordId, SignedHead, ThreadId};

/// Most headers on one side of a proof: a log has a signed head at least this often.
pub const BRANCH_HEADERS_MAX: usize = crate::RUN_RECORDS_MAX;

/// One branch of a forked log: a signed head, and the headers from the fork up to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Branch {
    /// The signed head.
    pub head: SignedHead,
    /// The headers, oldest first; the last one is that of the head.
    pub headers: Vec<Header>,
}

/// Two signed heads of one log that cannot lie on one chain. Holds for anybody, offline.
///
/// # Examples
///
/// ```
/// use leno_identity::SigningKey;
/// use leno_threads_core::fork::{Branch, ForkProof, ForkProofError};
/// use leno_threads_core::*;
///
/// let key = SigningKey::from_secret_bytes(&[1; 32])?;
/// let log = LogId(key.verifying_key().to_bytes());
/// let branch = |body: &[u8]| {
///     let context = SealContext {
///         thread: ThreadId([2; 32]),
///         log,
///         seq: 5,
///         prev: RecordId([3; 32]),
///         deps: Vec::new(),
///         control: Vec::new(),
///         stamp: Stamp(9),
///         key: KeyRef::Data { domain: THREAD_DOMAIN, epoch: EpochId([4; 32]) },
///     };
///     let header = Header { context, body: SealedPart::of(body), roster: None };
///     let head = SignedHead::sign(&key, header.context.thread, log, 5, header.id());
///     Branch { head, headers: vec![header] }
/// };
/// // One key signed two records at one place: anybody can see it, offline.
/// let proof = ForkProof::new(branch(b"to ann"), branch(b"to ben"))?;
/// assert_eq!((proof.log(), proof.seq()), (log, 5));
/// assert_eq!(ForkProof::decode(&proof.encode())?, proof);
/// // A record beside itself is no fork.
/// let same = ForkProof::new(branch(b"to ann"), branch(b"to ann"));
/// assert_eq!(same, Err(ForkProofError::NoFork));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForkProof {
    /// The branch with the lower id at the fork.
    pub lower: Branch,
    /// The other branch.
    pub higher: Branch,
}

/// Why something is no proof of a fork: whoever presented it lies or errs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForkProofError {
    /// A side has no headers, or too many, or they do not lead up to its head.
    #[error("the headers of a branch do not lead up to its head")]
    BrokenChain,
    /// A head is not signed by the log's key.
    #[error("the head of a branch is not signed")]
    NotSigned,
    /// The two sides are the same, or not of one log at one place.
    #[error("the two branches do not part at one place of one log")]
    NoFork,
}

impl ForkProof {
    /// Puts two branches together, if they prove a fork.
    ///
    /// # Errors
    ///
    /// [`ForkProofError`].
    pub fn new(a: Branch, b: Branch) -> Result<Self, ForkProofError> {
        let (first_a, first_b) = (a.check()?, b.check()?);
        let one_place = a.head.thread == b.head.thread
            && a.head.log == b.head.log
            && first_a.0 == first_b.0
            && first_a.1 != first_b.1;
        if !one_place {
            return Err(ForkProofError::NoFork);
        }
        let (lower, higher) = if first_a.1 < first_b.1 {
            (a, b)
        } else {
            (b, a)
        };
        Ok(Self { lower, higher })
    }

    /// The thread.
    #[must_use]
    pub fn thread(&self) -> ThreadId {
        self.lower.head.thread
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.lower.head.log
    }

    /// The first place at which this proof shows the branches to differ. The common prefix ends below
    /// it, or earlier: two chains that differ here are a fork wherever they parted.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.lower
            .headers
            .first()
            .map_or(0, |header| header.context.seq)
    }

    /// Encodes the proof: a list of two branches, each `[head signature, headers]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(2);
        for branch in [&self.lower, &self.higher] {
            encoder
                .array(2)
                .bytes(&branch.head.signature)
                .array(branch.headers.len());
            for header in &branch.headers {
                encoder.bytes(&header.encode());
            }
        }
        encoder.into_vec()
    }

    /// Decodes and checks a proof.
    ///
    /// # Errors
    ///
    /// [`ForkProofError`]; bytes that do not decode are [`ForkProofError::BrokenChain`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ForkProofError> {
        let broken = |_: DecodeError| ForkProofError::BrokenChain;
        let mut decoder = Decoder::new(bytes);
        decoder.array_of(2).map_err(broken)?;
        let lower = decode_branch(&mut decoder).map_err(broken)?;
        let higher = decode_branch(&mut decoder).map_err(broken)?;
        decoder.finish().map_err(broken)?;
        let proof = Self::new(lower.clone(), higher)?;
        if proof.lower != lower {
            return Err(ForkProofError::BrokenChain);
        }
        Ok(proof)
    }
}

fn decode_branch(decoder: &mut Decoder<'_>) -> Result<Branch, DecodeError> {
    let offset = decoder.offset();
    decoder.array_of(2)?;
    let signature = *decoder.fixed()?;
    let mut headers = Vec::new();
    for _ in 0..decoder.array_up_to(BRANCH_HEADERS_MAX)? {
        headers.push(Header::decode(decoder.bytes()?)?);
    }
    let last = headers.last().ok_or(DecodeError::OutOfBounds {
        offset,
        what: "a branch",
    })?;
    let (thread, log, seq) = (last.context.thread, last.context.log, last.context.seq);
    let head = SignedHead {
        thread,
        log,
        seq,
        id: last.id(),
        signature,
    };
    Ok(Branch { head, headers })
}

impl Branch {
    /// Checks the chain and the signature; returns place and id of the first header.
    fn check(&self) -> Result<(Seq, RecordId), ForkProofError> {
        let first = self.headers.first().ok_or(ForkProofError::BrokenChain)?;
        if self.headers.len() > BRANCH_HEADERS_MAX {
            return Err(ForkProofError::BrokenChain);
        }
        let mut before: Option<(Seq, RecordId)> = None;
        for header in &self.headers {
            let context = &header.context;
            let of_log = context.thread == self.head.thread && context.log == self.head.log;
            let follows =
                before.is_none_or(|(seq, id)| context.seq == seq + 1 && context.prev == id);
            if !of_log || !follows {
                return Err(ForkProofError::BrokenChain);
            }
            before = Some((context.seq, header.id()));
        }
        if before != Some((self.head.seq, self.head.id)) {
            return Err(ForkProofError::BrokenChain);
        }
        self.head.verify().map_err(|_| ForkProofError::NotSigned)?;
        Ok((first.context.seq, first.id()))
    }
}

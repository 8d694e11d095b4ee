//! Records on a store that several nodes share, so that any of them can serve any thread.
//!
//! A **segment** is runs of records as they travel, with the key wraps that came along, sealed under
//! the service key, put once and named by its content. The **heads** of a thread name its segments,
//! tell which records each holds, and carry the newest signed head of each log. They are one object,
//! replaced only by who knows its newest version
//! ([`SharedStore::replace_heads`](crate::store::SharedStore::replace_heads)).
//!
//! Here is what the objects hold, without I/O. Whoever reads and writes them keeps to three rules:
//!
//! 1. A segment is durable before heads name it.
//! 2. Heads are read before a segment is put that they are to name. If they were replaced meanwhile,
//!    the same segment may be named by the next ones only if nothing was collected in between
//!    ([`SharedHeads::collections`]); otherwise it is sealed anew, which gives it another name.
//! 3. Whoever collects what no heads name lists the segments first, then replaces the heads by
//!    [`SharedHeads::collect`], then deletes what was listed and is not named there.
//!
//! By 2 and 3 nothing is deleted that was or will be named, however slow anybody is. A time of grace
//! only spares those who are between the two steps of 1 another put.
//!
//! Nothing that comes back is believed: [`Segment::open`] compares name, seal and every signature,
//! [`SharedHeads::open`] the seal and all signed heads. What remains to a storage that lies is to show
//! an older state, or none.

mod body;
mod heads;
mod run;

use leno_crdt_codec::LogId;
use leno_crdt_codec::cbor::DecodeError;
use leno_identity::Label;

use crate::store::{ObjectError, SegmentId, ThreadPlace};
use crate::{Genesis, HeadError, OpenError, ServiceKey, ThreadId, VerifyError};

pub use body::{SEGMENT_PLAIN_BYTES_MAX, SEGMENT_RUNS_MAX, SEGMENT_WRAPS_MAX, Segment};
pub use heads::{SegmentEntry, SharedHeads};
pub use run::{Span, StoredRun};

/// A thread, and the key that opens its objects.
#[derive(Clone, Debug)]
pub struct SharedThread {
    id: ThreadId,
    service: ServiceKey,
    genesis: Option<Genesis>,
}

impl SharedThread {
    /// For who has the thread.
    #[must_use]
    pub fn new(genesis: &Genesis, service: ServiceKey) -> Self {
        Self {
            id: genesis.thread(),
            service,
            genesis: Some(genesis.clone()),
        }
    }

    /// For who was told of the thread and has nothing of it yet: reads, and cannot be the first to
    /// write.
    #[must_use]
    pub fn named(id: ThreadId, service: ServiceKey) -> Self {
        Self {
            id,
            service,
            genesis: None,
        }
    }

    /// The thread.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// What began it, if it is known here.
    #[must_use]
    pub fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    /// Where its objects lie. Without the service key nobody can tell which thread that is.
    #[must_use]
    pub fn place(&self) -> ThreadPlace {
        ThreadPlace(Label::SHARED_PLACE.hash(&[self.service.expose(), &self.id.0]))
    }

    pub(crate) fn service(&self) -> &ServiceKey {
        &self.service
    }
}

/// Why an object of a shared store does not count.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// It is not what its name says, or too long.
    #[error("the object is not the one that was asked for")]
    Object(#[from] ObjectError),
    /// It was not sealed by who holds the thread's service key, or not as this.
    #[error("it does not open under the thread's service key")]
    NotOpened(#[from] OpenError),
    /// It opened, and the bytes are none that leno writes.
    #[error("it does not decode")]
    Decode(#[from] DecodeError),
    /// A run in it is not what the log's key signed.
    #[error("a run of log {log} does not hold")]
    Run {
        /// The log.
        log: LogId,
        /// What is wrong with the run.
        #[source]
        source: VerifyError,
    },
    /// A head in it is not what the log's key signed.
    #[error("a head does not hold")]
    Head(#[from] HeadError),
    /// It is of another thread.
    #[error("it belongs to another thread")]
    OfAnotherThread,
    /// It holds other records than the heads say.
    #[error("segment {segment} does not hold what the heads say")]
    NotAsListed {
        /// Which one.
        segment: SegmentId,
    },
    /// What is to be written is longer than such objects may be; write it in parts, or, for heads,
    /// have segments merged first.
    #[error("{what} of {bytes} bytes is too long, at most {bytes_max} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest that is allowed.
        bytes_max: usize,
    },
}

//! What a node does with the segments and heads of threads on a shared store.

mod append;
mod collect;
mod compact;
mod load;
mod reading;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leno_threads_core::segment::{Segment, SegmentError, SharedHeads, SharedThread};
use leno_threads_core::store::{HeadsVersion, ObjectError, SegmentId, SharedStore, ThreadPlace};
use leno_threads_core::{LogId, NonceSecret, Seq};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

pub use append::Appended;
pub use load::Loaded;
pub use reading::Reading;

/// Bounds of a [`SegmentStore`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Most bytes of segments that a thread may have, sealed; 64 GiB unless set.
    pub thread_bytes_max: u64,
    /// How often a request is tried that meets other nodes or a medium that fails; 10 unless set.
    pub tries_max: u32,
    /// Pause before the second try, in milliseconds; each is twice as long as the one before, and a
    /// random part of that. 20 unless set.
    pub pause_millis: u64,
    /// Longest pause, in milliseconds; 5 seconds unless set.
    pub pause_millis_max: u64,
    /// How long a segment that no heads name is left alone, in milliseconds; 1 hour unless set.
    pub grace_millis: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            thread_bytes_max: 64 << 30,
            tries_max: 10,
            pause_millis: 20,
            pause_millis_max: 5_000,
            grace_millis: 3_600_000,
        }
    }
}

/// Why a shared store did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// The store failed, after as many tries as [`Limits::tries_max`] allows.
    #[error("the shared store failed")]
    Store(#[source] ObjectError),
    /// What the store gave back does not count.
    #[error("the heads of thread {thread} do not hold")]
    BadHeads {
        /// The thread.
        thread: leno_threads_core::ThreadId,
        /// What is wrong with them.
        #[source]
        source: Box<SegmentError>,
    },
    /// A segment does not hold, or is not there.
    #[error("segment {segment} does not hold")]
    BadSegment {
        /// Which one.
        segment: SegmentId,
        /// What is wrong with it; nothing if it is missing.
        #[source]
        source: Option<Box<SegmentError>>,
    },
    /// What is to be written does not fit an object.
    #[error("it does not fit the shared store")]
    TooLong(#[source] Box<SegmentError>),
    /// A run is of another thread.
    #[error("a run of log {log} belongs to another thread")]
    OfAnotherThread {
        /// The log.
        log: LogId,
    },
    /// Nothing of the thread is stored, and what began it is not known here: append with
    /// [`SharedThread::new`] first.
    #[error("nothing of the thread is stored, and its genesis is not known")]
    NoGenesis,
    /// The thread has as many bytes as it may; nothing was written.
    #[error("the thread would have {bytes} bytes of segments, at most {bytes_max} are allowed")]
    OverQuota {
        /// How many it would have.
        bytes: u64,
        /// How many it may have.
        bytes_max: u64,
    },
    /// Other nodes replaced the heads again and again; try later.
    #[error("the heads were replaced by others at each of {tries} tries")]
    Busy {
        /// How often it was tried.
        tries: u32,
    },
    /// The store shows an older state than it showed before: it lost objects, was restored from a
    /// copy, or lies. [`SegmentStore::forget`] takes it as it is; appending what one has heals it.
    #[error("the store shows log {log} up to {found}, and showed it up to {seen} before")]
    RolledBack {
        /// A log that is shorter than before.
        log: LogId,
        /// Its last record as the store shows it now; 0 if there is none.
        found: Seq,
        /// Its last record as the store showed it before.
        seen: Seq,
    },
}

/// The threads of a shared store, as a node reads and writes them. Clones are handles of one node.
#[derive(Clone)]
pub struct SegmentStore {
    shared: Arc<dyn SharedStore>,
    node: Arc<Node>,
    limits: Limits,
}

struct Node {
    secret: NonceSecret,
    rng: Mutex<ChaCha20Rng>,
    /// How far each log went when it was last read.
    seen: Mutex<BTreeMap<ThreadPlace, BTreeMap<LogId, Seq>>>,
}

impl fmt::Debug for SegmentStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SegmentStore")
            .field("shared", &self.shared)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Heads as they were read, and which version; none if there are none yet.
struct Read {
    heads: SharedHeads,
    version: Option<HeadsVersion>,
}

impl SegmentStore {
    /// Opens a shared store.
    ///
    /// `nonce_secret` is the device's, and hedges what `seed`, which must be random, is used for.
    #[must_use]
    pub fn new(shared: Arc<dyn SharedStore>, nonce_secret: [u8; 32], seed: [u8; 32]) -> Self {
        let node = Node {
            secret: NonceSecret::new(&nonce_secret),
            rng: Mutex::new(ChaCha20Rng::from_seed(seed)),
            seen: Mutex::default(),
        };
        Self {
            shared,
            node: Arc::new(node),
            limits: Limits::default(),
        }
    }

    /// Sets the bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The heads of a thread: which segments count, what they hold, and how far each log goes; nothing
    /// if nothing of it is stored.
    ///
    /// # Errors
    ///
    /// [`SharedError::Store`], [`SharedError::BadHeads`], [`SharedError::RolledBack`].
    pub async fn heads(&self, thread: &SharedThread) -> Result<Option<SharedHeads>, SharedError> {
        Ok(self.read_heads(thread).await?.map(|(heads, _)| heads))
    }

    /// Takes a thread as the store shows it from now on, also if it showed more of it before.
    pub fn forget(&self, thread: &SharedThread) {
        lock(&self.node.seen).remove(&thread.place());
    }

    async fn read_heads(
        &self,
        thread: &SharedThread,
    ) -> Result<Option<(SharedHeads, HeadsVersion)>, SharedError> {
        let place = thread.place();
        let found = self.retry(|| self.shared.heads(&place)).await?;
        let Some((sealed, version)) = found else {
            self.check_seen(thread, None)?;
            return Ok(None);
        };
        let heads = SharedHeads::open(thread, &sealed).map_err(|source| SharedError::BadHeads {
            thread: thread.id(),
            source: Box::new(source),
        })?;
        self.check_seen(thread, Some(&heads))?;
        Ok(Some((heads, version)))
    }

    /// The heads as they are, or as they are to begin.
    async fn read_or_begin(&self, thread: &SharedThread) -> Result<Read, SharedError> {
        if let Some((heads, version)) = self.read_heads(thread).await? {
            let version = Some(version);
            return Ok(Read { heads, version });
        }
        let genesis = thread.genesis().ok_or(SharedError::NoGenesis)?;
        Ok(Read {
            heads: SharedHeads::new(genesis.clone()),
            version: None,
        })
    }

    /// Replaces the heads that were read; [`ObjectError::Conflict`] if they are others by now.
    async fn replace(
        &self,
        thread: &SharedThread,
        heads: &SharedHeads,
        version: Option<&HeadsVersion>,
    ) -> Result<Result<(), ObjectError>, SharedError> {
        let sealed = {
            let mut rng = lock(&self.node.rng);
            heads.seal(thread, &self.node.secret, &mut *rng)
        };
        let sealed = sealed.map_err(|error| SharedError::TooLong(Box::new(error)))?;
        let place = thread.place();
        let replaced = self.shared.replace_heads(&place, sealed, version).await;
        if replaced.is_ok() {
            self.check_seen(thread, Some(heads))?;
        }
        Ok(replaced.map(|_| ()))
    }

    async fn put(
        &self,
        thread: &SharedThread,
        id: &SegmentId,
        sealed: &[u8],
    ) -> Result<(), SharedError> {
        let place = thread.place();
        self.retry(|| self.shared.put_segment(&place, id, sealed.to_vec()))
            .await
    }

    /// Reads a segment that heads name.
    async fn open_segment(
        &self,
        thread: &SharedThread,
        heads: &SharedHeads,
        id: SegmentId,
    ) -> Result<Segment, SharedError> {
        let place = thread.place();
        let bad = |source| SharedError::BadSegment {
            segment: id,
            source,
        };
        let found = self.retry(|| self.shared.segment(&place, &id)).await;
        let sealed = match found {
            Ok(sealed) => sealed.ok_or_else(|| bad(None))?,
            // The object is bad, not the store.
            Err(SharedError::Store(
                error @ (ObjectError::NotAsNamed { .. } | ObjectError::TooLong { .. }),
            )) => return Err(bad(Some(Box::new(error.into())))),
            Err(error) => return Err(error),
        };
        let opened = Segment::open(thread, &id, &sealed);
        let segment = opened.map_err(|source| bad(Some(Box::new(source))))?;
        let entry = heads.segment(&id);
        let is_as_listed = entry.is_some_and(|it| segment.spans().eq(it.spans.iter().copied()));
        if !is_as_listed {
            let source = SegmentError::NotAsListed { segment: id };
            return Err(bad(Some(Box::new(source))));
        }
        Ok(segment)
    }

    /// Asks again while the medium fails. Only for what does no harm if it is done twice.
    async fn retry<T, F: Future<Output = Result<T, ObjectError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, SharedError> {
        let mut tries = 1;
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(ObjectError::Medium { .. }) if tries < self.limits.tries_max => {
                    self.pause(tries).await;
                    tries += 1;
                }
                Err(error) => return Err(SharedError::Store(error)),
            }
        }
    }

    /// Waits before the next of several tries, so that those who met do not meet again.
    async fn pause(&self, tries: u32) {
        let doubled = 1_u64
            .checked_shl(tries.saturating_sub(1))
            .unwrap_or(u64::MAX);
        let longest = self.limits.pause_millis.saturating_mul(doubled);
        let longest = longest.min(self.limits.pause_millis_max);
        let drawn = lock(&self.node.rng).next_u64() % longest.max(1);
        let millis = longest / 2 + drawn / 2;
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// Checks that no log is shorter than it was, and remembers how long it is.
    fn check_seen(
        &self,
        thread: &SharedThread,
        heads: Option<&SharedHeads>,
    ) -> Result<(), SharedError> {
        let mut seen = lock(&self.node.seen);
        let seen = seen.entry(thread.place()).or_default();
        for (log, seq) in seen.iter() {
            let found = heads.and_then(|it| it.head(log)).map_or(0, |head| head.seq);
            if found < *seq {
                return Err(SharedError::RolledBack {
                    log: *log,
                    found,
                    seen: *seq,
                });
            }
        }
        let newest = heads.into_iter().flat_map(SharedHeads::heads);
        seen.extend(newest.map(|head| (head.log, head.seq)));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is half changed is behind these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

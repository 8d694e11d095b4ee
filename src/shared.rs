//! Threads on a store that several peers share.
//!
//! The driver never waits for that store: it hands rows out and takes runs in, a step at a time, and
//! whoever asked reads and writes the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leno_store_object::{Reading, SegmentStore, SharedError};
use leno_threads_core::segment::{SharedHeads, SharedThread, StoredRun};
use leno_threads_core::store::{Overlay, SEGMENT_BYTES_MAX, SegmentId, SharedStore, StoreError};
use leno_threads_core::sync::bundle::NotTaken;
use leno_threads_core::sync::shared::{Extent, Lacking, Part, Taken};
use leno_threads_core::{Genesis, LogId, Seq, ThreadId, Wrap};
use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::peer::Peer;
use crate::thread::Thread;
use crate::work::thread_mut;

/// Bytes of rows that are handed out or taken in by one step, about: others have their turn in between.
const STEP_BYTES: usize = 1 << 20;

/// Key wraps that are taken in by one step.
const STEP_WRAPS: usize = 1_024;

/// Bytes of rows that are appended at once, about.
const APPEND_BYTES: usize = 4 << 20;

/// Segments below this many bytes are small.
const SMALL_BYTES: u64 = SEGMENT_BYTES_MAX as u64 / 4;

/// So many small segments are merged.
const SMALL_MAX: usize = 64;

/// Most of what was refused that a load lists.
const REFUSED_MAX: usize = 64;

/// A store that several peers share: what one of them [saves](Shared::save), every other one can
/// [load](Shared::load), also if the first one and its disk are gone. A handle: cheap to clone.
///
/// All is sealed there under the thread's service key, which members and replicators hold; and nothing
/// that comes from there is believed unless a peer that sent it would be.
///
/// # Examples
///
/// A hub is lost with all that it had. Another one takes its place.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), leno::Error> {
/// use std::collections::BTreeMap;
/// use leno::{Objects, Peer, Role};
///
/// let objects = Objects::memory(); // or Objects::open("s3://bucket/prefix"), or Objects::folder(..)
/// let alice = Peer::builder().start().await?;
/// let band = alice.create_thread("band").await?;
/// let songs = band.collection("songs");
/// let id = songs.insert(&BTreeMap::from([("title".to_owned(), "Psalm 1".to_owned())])).await?;
/// let other = Peer::builder().start().await?;
/// let ticket = band.grant(&other.card("Bob").await?, Role::Writer).await?;
///
/// let saved = alice.shared(objects.clone()).await?.save(&band).await?;
/// assert_eq!(saved.records, band.status().await?.stored);
/// alice.close().await?;
///
/// let band = other.join(&ticket).await?;
/// let loaded = other.shared(objects).await?.load(&band).await?;
/// assert_eq!(loaded.records, saved.records);
/// let songs = band.collection::<BTreeMap<String, String>>("songs");
/// assert_eq!(songs.get(&id).await?.map(|song| song["title"].clone()), Some("Psalm 1".to_owned()));
/// # other.close().await
/// # }
/// ```
#[derive(Clone)]
pub struct Shared {
    peer: Peer,
    store: SegmentStore,
    /// What of each thread was saved by this handle and its clones.
    saved: Arc<Mutex<BTreeMap<ThreadId, Extent>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("peer", &self.peer)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// What a [`Shared::save`] came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Saved {
    /// Records that were not on the shared store before.
    pub records: u64,
    /// Key wraps that were not there before.
    pub wraps: u64,
    /// Whether the shared store has records that are not here: then [`Shared::load`].
    pub has_more: bool,
}

/// What a [`Shared::load`] came to.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Records that were not here before.
    pub records: u64,
    /// Records, of any log, that were admitted.
    pub admitted: u64,
    /// Segments that do not hold or are not there, each with the reason. Other peers may have what they
    /// held.
    pub damaged: Vec<(SegmentId, SharedError)>,
    /// What was not taken in, and why: the first 64 of it.
    pub refused: Vec<NotTaken>,
    /// Segments that hold records which could not be taken in: because what is before them is missing, or
    /// was refused.
    pub left: usize,
}

impl Peer {
    /// Opens a store that several peers share, such as [`Objects`](crate::Objects). Nothing is saved or
    /// loaded by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn shared(&self, store: impl SharedStore + 'static) -> Result<Shared, Error> {
        let store: Arc<dyn SharedStore> = Arc::new(store);
        let store = self
            .call(move |work| {
                let mut seed = Zeroizing::new([0; 32]);
                work.core.rng.fill_bytes(&mut *seed);
                let secret = work.core.device.nonce_secret();
                Ok(SegmentStore::new(store, *secret.as_bytes(), *seed))
            })
            .await?;
        Ok(Shared {
            peer: self.clone(),
            store,
            saved: Arc::default(),
        })
    }
}

impl Shared {
    /// Appends what the shared store lacks of a thread: records, and keys wrapped for its readers. Done
    /// means durable there, and seen by every peer that loads the thread later.
    ///
    /// Other peers may save the same thread at the same time. Doing it again costs one read. Also merges
    /// and clears away segments now and then.
    ///
    /// # Errors
    ///
    /// [`Error::Shared`]; what is unsaved stays so, and saving again is the thing to do.
    /// [`Error::NotSyncedYet`], or [`Error::NoSuchThread`].
    pub async fn save(&self, thread: &Thread) -> Result<Saved, Error> {
        let id = thread.id();
        let begun = self.peer.call(move |work| {
            work.publish();
            let extent = Extent::of(thread_mut(&mut work.core.replica, id)?);
            let target = work.core.replica.shared_thread(&id);
            Ok((target.ok_or(Error::NoSuchThread(id))?, extent))
        });
        let (target, extent) = begun.await?;
        let before = lock(&self.saved).get(&id).copied();
        let mut heads = self.heads(&target).await?;
        let mut saved = Saved::default();
        // The step of `begun` is durable by now, and the picture of a later one shows it.
        let compared = heads.clone();
        let mut lacking = self
            .peer
            .call(move |work| {
                work.publish();
                let view = Overlay::new(work.view, &work.changes.batch);
                let thread = thread_mut(&mut work.core.replica, id)?;
                Ok(Lacking::new(thread, &view, &compared)?)
            })
            .await?;
        saved.has_more = lacking.has_more();
        while !lacking.is_done() {
            let runs;
            (lacking, runs) = self.rows(id, lacking).await?;
            if runs.is_empty() {
                continue;
            }
            let appended = self.store.append(&target, runs, Vec::new()).await?;
            let spans = appended.stored.iter();
            saved.records += spans.map(|it| it.last + 1 - it.first).sum::<u64>();
            heads = appended.heads;
        }
        if before.is_none_or(|before| before.wraps != extent.wraps) {
            let missing = self.missing_wraps(id, &target).await?;
            saved.wraps = missing.len() as u64;
            if !missing.is_empty() {
                heads = self.store.append(&target, Vec::new(), missing).await?.heads;
            }
        }
        lock(&self.saved).insert(id, extent);
        self.tidy(&target, &heads).await;
        Ok(saved)
    }

    /// Takes in what the shared store has of a thread that is here, or was joined by a ticket.
    ///
    /// Nothing of it is believed by another rule than what a peer sends. That nothing of the thread is
    /// there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Shared`] if the store fails; what came before is taken in. [`Error::OtherGenesis`],
    /// [`Error::NoSuchThread`]. What is damaged or refused is no error: see [`Loaded`].
    pub async fn load(&self, thread: &Thread) -> Result<Loaded, Error> {
        let id = thread.id();
        let target = self.peer.call(move |work| {
            let target = work.core.replica.shared_thread(&id);
            target.ok_or(Error::NoSuchThread(id))
        });
        let mut reading = match self.store.read(&target.await?).await {
            Err(SharedError::NoGenesis) => return Ok(Loaded::default()),
            reading => reading?,
        };
        let mut loading = Loading {
            peer: &self.peer,
            id,
            genesis: reading.heads().genesis().clone(),
            known: BTreeMap::new(),
            shunned: BTreeSet::new(),
            loaded: Loaded::default(),
        };
        loading.take(Vec::new(), Vec::new()).await?;
        while let Some(segment) = reading.next(&loading.open()).await? {
            loading.take_runs(segment.runs().to_vec()).await?;
        }
        while let Some(segment) = reading.next_wraps().await? {
            let wraps: Vec<Wrap> = segment.wraps().collect();
            for wraps in wraps.chunks(STEP_WRAPS) {
                loading.take(Vec::new(), wraps.to_vec()).await?;
            }
        }
        Ok(loading.end(&reading))
    }

    /// The threads of which there is more here than this handle and its clones have saved.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn unsaved(&self) -> Result<Vec<ThreadId>, Error> {
        let extents = self.peer.call(|work| {
            work.publish();
            let threads = work.core.replica.threads();
            let extents: Vec<_> = threads.map(|it| (it.id(), Extent::of(it))).collect();
            Ok(extents)
        });
        let extents = extents.await?;
        let mut saved = lock(&self.saved);
        let here: BTreeSet<ThreadId> = extents.iter().map(|(id, _)| *id).collect();
        saved.retain(|id, _| here.contains(id));
        let unsaved = extents
            .into_iter()
            .filter(|(id, extent)| saved.get(id) != Some(extent));
        Ok(unsaved.map(|(id, _)| id).collect())
    }

    /// Takes a thread as the shared store shows it from now on, also if it showed more of it before
    /// ([`SharedError::RolledBack`]): the next save makes good what is lost there and is here.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`].
    pub async fn accept_older(&self, thread: &Thread) -> Result<(), Error> {
        let id = thread.id();
        let target = self.peer.call(move |work| {
            let target = work.core.replica.shared_thread(&id);
            target.ok_or(Error::NoSuchThread(id))
        });
        self.store.forget(&target.await?);
        lock(&self.saved).remove(&id);
        Ok(())
    }

    /// The heads, or what they would be if nothing is there.
    async fn heads(&self, target: &SharedThread) -> Result<SharedHeads, Error> {
        let found = self.store.heads(target).await?;
        let new = || target.genesis().cloned().map(SharedHeads::new);
        Ok(found.or_else(new).ok_or(SharedError::NoGenesis)?)
    }

    /// The next rows that are lacking, a few steps' worth, as runs.
    async fn rows(
        &self,
        id: ThreadId,
        mut lacking: Lacking,
    ) -> Result<(Lacking, Vec<StoredRun>), Error> {
        let (mut runs, mut length) = (Vec::new(), 0);
        while !lacking.is_done() && length < APPEND_BYTES {
            let rows;
            let next = self.peer.call(move |work| {
                work.publish();
                let view = Overlay::new(work.view, &work.changes.batch);
                let thread = thread_mut(&mut work.core.replica, id)?;
                let rows = lacking.next_rows(thread, &view, STEP_BYTES)?;
                Ok((lacking, rows))
            });
            (lacking, rows) = next.await?;
            for (log, row) in rows {
                length += row.len();
                let run = StoredRun::verify(id, log, row).map_err(|error| StoreError::Corrupt {
                    what: format!("a run of log {log}: {error}"),
                })?;
                runs.push(run);
            }
        }
        Ok((lacking, runs))
    }

    /// The wraps that are here and not on the shared store.
    async fn missing_wraps(&self, id: ThreadId, target: &SharedThread) -> Result<Vec<Wrap>, Error> {
        let here = self.peer.call(move |work| {
            let view = Overlay::new(work.view, &work.changes.batch);
            Ok(thread_mut(&mut work.core.replica, id)?.wraps(&view)?)
        });
        let mut missing = here.await?;
        if missing.is_empty() {
            return Ok(missing);
        }
        let mut reading = self.store.read(target).await?;
        let name = |wrap: &Wrap| (wrap.epoch, wrap.seat, wrap.encapsulated);
        while let Some(segment) = reading.next_wraps().await? {
            let there: BTreeSet<_> = segment.wraps().map(|wrap| name(&wrap)).collect();
            missing.retain(|wrap| !there.contains(&name(wrap)));
        }
        Ok(missing)
    }

    /// Merges small segments once there are many, and deletes what was merged before.
    async fn tidy(&self, target: &SharedThread, heads: &SharedHeads) {
        let segments = heads.segments();
        let small = segments.filter(|(_, entry)| entry.bytes < SMALL_BYTES);
        if small.count() < SMALL_MAX {
            return;
        }
        let tidied = async {
            self.store.compact(target).await?;
            let now = self.peer.call(|work| Ok(work.now_millis)).await?;
            self.store.collect(target, now).await?;
            Ok::<_, Error>(())
        };
        // What was saved is saved; the next save tries again.
        drop(tidied.await);
    }
}

/// A thread that is being taken in.
struct Loading<'a> {
    peer: &'a Peer,
    id: ThreadId,
    genesis: Genesis,
    known: BTreeMap<LogId, Seq>,
    /// Logs of which something was refused: nothing more of them is read.
    shunned: BTreeSet<LogId>,
    loaded: Loaded,
}

impl Loading<'_> {
    /// The logs that can be gone on with.
    fn open(&self) -> BTreeMap<LogId, Seq> {
        let mut open = self.known.clone();
        open.retain(|log, _| !self.shunned.contains(log));
        open
    }

    /// Takes in the runs of a segment, again as long as one of them opens a log for another.
    async fn take_runs(&mut self, mut runs: Vec<StoredRun>) -> Result<(), Error> {
        loop {
            let (mut waiting, before) = (Vec::new(), self.loaded.records);
            let mut rest = runs.into_iter().peekable();
            while rest.peek().is_some() {
                let (mut some, mut length) = (Vec::new(), 0);
                while let Some(run) = rest.next_if(|_| length < STEP_BYTES) {
                    length += run.row().len();
                    if !self.shunned.contains(&run.span().log) {
                        some.push(run);
                    }
                }
                waiting.extend(self.take(some, Vec::new()).await?);
            }
            if waiting.is_empty() || self.loaded.records == before {
                return Ok(());
            }
            runs = waiting;
        }
    }

    /// One step.
    async fn take(
        &mut self,
        runs: Vec<StoredRun>,
        wraps: Vec<Wrap>,
    ) -> Result<Vec<StoredRun>, Error> {
        let (id, genesis) = (self.id, self.genesis.clone());
        let step = self.peer.call(move |work| {
            let part = Part {
                genesis: &genesis,
                runs,
                wraps: &wraps,
            };
            let taken = work.take_shared(id, part)?;
            Ok((taken, work.core.replica.shared_known(&id)))
        });
        let (taken, known): (Taken, _) = step.await?;
        self.known = known;
        self.loaded.records += taken.stored;
        self.loaded.admitted += taken.admitted;
        for refused in taken.refused {
            if let NotTaken::Range(error) = &refused {
                self.shunned.extend(error.log());
            }
            if self.loaded.refused.len() < REFUSED_MAX {
                self.loaded.refused.push(refused);
            }
        }
        Ok(taken.waiting)
    }

    fn end(self, reading: &Reading) -> Loaded {
        let damaged = reading.damaged();
        Loaded {
            damaged: damaged.map(|(id, error)| (*id, error.clone())).collect(),
            left: reading.left(&self.known),
            ..self.loaded
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

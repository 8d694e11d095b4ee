//! Threads on a store that several nodes share: taking in what it holds, and what it lacks.
//!
//! Here is no I/O: [`crate::segment`] says what the objects hold, and whoever reads and writes them
//! hands over, step by step. What a shared store held is believed by no other rule than what a peer
//! sends: [`Replica::take_shared`] has it handled by the code that handles a session's ranges.
//!
//! # Examples
//!
//! A hub takes in a thread of which it has nothing but a ticket, and the store of which another hub filled.
//!
//! ```
//! use futures_executor::block_on;
//! use leno_threads_core::segment::{SharedHeads, StoredRun};
//! use leno_threads_core::store::{MemoryStore, Store};
//! use leno_threads_core::sync::{PeerKey, Replica};
//! use leno_threads_core::sync::shared::{Lacking, Part};
//! use leno_threads_core::thread::{Changes, Opened, Seat, Thread};
//! use leno_threads_core::*;
//! # use leno_identity::{AgreementKey, SigningKey};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//! # let mut new_seat = || -> Result<Seat, leno_identity::KeyError> {
//! #     let signing = SigningKey::generate(&mut rng)?;
//! #     let kem = AgreementKey::generate(&mut rng)?;
//! #     Ok(Seat { signing, kem })
//! # };
//! # let (alices, hubs) = (new_seat()?, new_seat()?);
//! # let (now_millis, suite) = (1_700_000_000_000, Suite::Aes256Gcm);
//! # let stores = [MemoryStore::new(), MemoryStore::new()];
//! # let (view, mut changes, secret) = (stores[0].view()?, Changes::new(), NonceSecret::new(&[1; 32]));
//! # let mut band =
//! #     Thread::create(&*view, 0, alices, secret, suite, &[], now_millis, &mut rng, &mut changes)?;
//! # band.append(&*view, THREAD_DOMAIN, &[0x62, b'h', b'i'], now_millis, &mut rng, &mut changes)?;
//! # band.publish(&mut changes);
//! # drop(view);
//! # block_on(stores[0].commit(changes.batch))?;
//! // `band` is a thread with records, of which nothing is shared yet.
//! let (view, nothing) = (stores[0].view()?, SharedHeads::new(band.genesis().clone()));
//! let mut lacking = Lacking::new(&band, &*view, &nothing)?;
//! let mut runs = Vec::new();
//! for (log, row) in lacking.next_rows(&band, &*view, 1 << 20)? {
//!     runs.push(StoredRun::verify(band.id(), log, row)?);
//! }
//! assert!(lacking.is_done());
//! # drop(view);
//!
//! // These were appended to the shared store there, and are loaded here.
//! let mut hub = Replica::load(&*stores[1].view()?, PeerKey([2; 32]), NonceSecret::new(&[2; 32]))?;
//! let (view, mut changes) = (stores[1].view()?, Changes::new());
//! hub.join(band.id(), band.service_key().clone(), hubs, &mut changes);
//! let part = Part { genesis: band.genesis(), runs, wraps: &[] };
//! let mut sink = |_: ThreadId, _: &Opened<'_>| panic!("it holds no key");
//! let taken = hub.take_shared(&*view, band.id(), part, now_millis, &mut rng, &mut changes, &mut sink)?;
//! let records: u64 = band.logs().map(|log| log.tip.seq).sum();
//! assert_eq!((taken.admitted, taken.waiting.len(), taken.refused.len()), (records, 0, 0));
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use leno_crdt_codec::{LogId, Seq};
use rand_core::CryptoRng;

use super::bundle::NotTaken;
use super::replica::{Replica, ReplicaSink};
use super::slot::Slot;
use super::step::{Step, TakenWraps};
use crate::segment::{SharedHeads, SharedThread, StoredRun};
use crate::store::{StoreError, View};
use crate::thread::{Changes, Opened, ReceiveError, Thread};
use crate::{Genesis, Now, SeatId, ThreadId, Wrap, decode_row};

/// Who hands over what lies on a shared store: nobody can tell which of its nodes put it there. It is
/// no reader, so what it hands over is as doubtful as what a replicator does.
const NOBODY: SeatId = SeatId([0; 32]);

/// How much of a thread is here: to tell quickly whether there is more by now.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Extent {
    /// Records that are here, of all logs.
    pub records: u64,
    /// Key wraps that were kept since the thread was loaded.
    pub wraps: u64,
}

impl Extent {
    /// How much of a thread is here now.
    #[must_use]
    pub fn of(thread: &Thread) -> Self {
        Self {
            records: thread.logs().map(|log| log.tip.seq).sum(),
            wraps: thread.wraps_kept(),
        }
    }
}

/// Goes through what a shared store lacks of a thread, step by step.
#[derive(Clone, Debug)]
pub struct Lacking {
    /// Logs, each with the first record that is lacking.
    logs: VecDeque<(LogId, Seq)>,
    has_more: bool,
}

impl Lacking {
    /// Compares a thread with the heads of a shared store.
    ///
    /// Of a log that has two branches, one here and one there, all is given out: the store keeps both.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the own store fails.
    pub fn new(thread: &Thread, view: &dyn View, heads: &SharedHeads) -> Result<Self, StoreError> {
        let mut logs = VecDeque::new();
        let mut has_more = false;
        for log in thread.logs() {
            let Some(head) = heads.head(&log.id) else {
                logs.push_back((log.id, 1));
                continue;
            };
            has_more |= head.seq > log.tip.seq;
            let here = thread.id_at(view, &log.id, head.seq)?;
            let is_other = here.is_some_and(|id| id != head.id) || thread.is_forked(&log.id);
            let is_same = here == Some(head.id) && head.seq == log.tip.seq;
            if is_other && !is_same {
                logs.push_back((log.id, 1));
            } else if log.tip.seq > head.seq {
                logs.push_back((log.id, head.seq + 1));
            }
        }
        let is_strange = |log: &LogId| thread.log(log).is_none();
        has_more |= heads.heads().any(|head| is_strange(&head.log));
        Ok(Self { logs, has_more })
    }

    /// Whether the shared store has records that are not here.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether all was given out.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.logs.is_empty()
    }

    /// The next rows, of at least `bytes` if there are so many, and hardly more; each with its log.
    /// The first of a log may begin before what is lacking.
    ///
    /// They are what the own store holds. Make [`StoredRun`]s of them where there is time for it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the own store fails.
    pub fn next_rows(
        &mut self,
        thread: &Thread,
        view: &dyn View,
        bytes: usize,
    ) -> Result<Vec<(LogId, Vec<u8>)>, StoreError> {
        let (mut rows, mut length) = (Vec::new(), 0);
        while let Some((log, from)) = self.logs.front().copied()
            && length < bytes
        {
            let mut next = None;
            let mut damaged = None;
            thread.scan_rows(view, &log, from, &mut |first, row| {
                if length >= bytes {
                    next = Some(first);
                    return ControlFlow::Break(());
                }
                match decode_row(row) {
                    // The one row before, if nothing lies behind it.
                    Ok((tip, run)) if tip.seq + (run.count() as u64) < from => {}
                    Ok(_) => {
                        length += row.len();
                        rows.push((log, row.to_vec()));
                    }
                    Err(error) => damaged = Some(error),
                }
                ControlFlow::Continue(())
            })?;
            if let Some(error) = damaged {
                return Err(StoreError::Corrupt {
                    what: format!("a run of log {log}: {error}"),
                });
            }
            self.logs.pop_front();
            if let Some(next) = next {
                self.logs.push_front((log, next));
            }
        }
        Ok(rows)
    }
}

/// Something that a shared store held of a thread.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// What began the thread, as the heads say.
    pub genesis: &'a Genesis,
    /// Runs, of a segment for instance.
    pub runs: Vec<StoredRun>,
    /// Key wraps. Which of them are of use shows once governance is here, so they are for the end.
    pub wraps: &'a [Wrap],
}

/// What a [`Part`] came to.
#[derive(Debug, Default)]
pub struct Taken {
    /// Records that were not here before.
    pub stored: u64,
    /// Records, of any log, that were admitted.
    pub admitted: u64,
    /// Runs of logs that are not open yet, or that wait for what is before them: hand them over again
    /// after others.
    pub waiting: Vec<StoredRun>,
    /// What is not taken in, and why.
    pub refused: Vec<NotTaken>,
}

/// Why nothing of a [`Part`] was taken in, or not all.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeSharedError {
    /// The thread is not here and was not joined.
    #[error("there is no thread {0} here")]
    NoSuchThread(ThreadId),
    /// The genesis is not what the thread's id is the hash of.
    #[error("the genesis is not the thread's")]
    WrongGenesis,
    /// The own store failed; what is in memory may hold a part of it, and must not be committed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Replica {
    /// How a shared store is asked for a thread; nothing if it is not here and was not joined.
    #[must_use]
    pub fn shared_thread(&self, id: &ThreadId) -> Option<SharedThread> {
        let slot = self.slots.get(id)?;
        let service = slot.service().clone();
        Some(match slot {
            Slot::Open(thread) => SharedThread::new(thread.genesis(), service),
            Slot::Joining(_) => SharedThread::named(*id, service),
        })
    }

    /// How far each log goes that is open here; nothing if the genesis is not here.
    #[must_use]
    pub fn shared_known(&self, id: &ThreadId) -> BTreeMap<LogId, Seq> {
        let logs = self.thread(id).into_iter().flat_map(Thread::logs);
        logs.map(|log| (log.id, log.tip.seq)).collect()
    }

    /// Takes in what a shared store held of a thread, as if a peer had sent it: every signature, chain
    /// and right is looked at again. What is here already is passed over, the genesis too.
    ///
    /// The work grows with what is handed over: about a MiB at once lets others have their turn.
    /// Key wraps count as handed over by one seat without a name that may not read.
    ///
    /// # Errors
    ///
    /// [`TakeSharedError`]. That something is refused is none.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, unlike things, no state to group"
    )]
    pub fn take_shared(
        &mut self,
        view: &dyn View,
        id: ThreadId,
        part: Part<'_>,
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
        sink: ReplicaSink<'_>,
    ) -> Result<Taken, TakeSharedError> {
        if !self.slots.contains_key(&id) {
            return Err(TakeSharedError::NoSuchThread(id));
        }
        let mut step = Step {
            peer: self.local(),
            replica: self,
            view,
            now: now.into(),
            rng,
            changes,
            sink,
        };
        if !step.open_genesis(id, &part.genesis.encode()) {
            return Err(TakeSharedError::WrongGenesis);
        }
        let mut taken = Taken::default();
        for run in part.runs {
            step.take_stored(id, run, &mut taken)?;
        }
        if !part.wraps.is_empty()
            && let Some(wraps) = step.take_wraps_of_nobody(id, part.wraps)?
        {
            if wraps.news {
                step.replica.touched(id);
            }
            taken.refused.extend(wraps.refused.map(NotTaken::from));
            step.wrap_due(id);
        }
        Ok(taken)
    }
}

impl Step<'_, '_> {
    fn take_stored(
        &mut self,
        id: ThreadId,
        stored: StoredRun,
        taken: &mut Taken,
    ) -> Result<(), TakeSharedError> {
        let span = *stored.span();
        let (_, run) = decode_row(stored.row()).map_err(|error| StoreError::Corrupt {
            what: format!("a run of log {}: {error}", span.log),
        })?;
        let Some(it) = self.take_runs(id, span.log, span.first, &[run]) else {
            return Ok(());
        };
        taken.stored += it.stored;
        taken.admitted += it.admitted;
        if it.stored > 0 || it.admitted > 0 {
            self.replica.touched(id);
        }
        self.after_runs(id, span.log, &it)?;
        match it.outcome {
            Ok(()) => {}
            Err(ReceiveError::Store(error)) => return Err(error.into()),
            Err(
                ReceiveError::UnknownLog { .. }
                | ReceiveError::Gap { .. }
                | ReceiveError::TooManyParked { .. }
                | ReceiveError::NotPublished { .. },
            ) => taken.waiting.push(stored),
            Err(error) => taken.refused.push(error.into()),
        }
        Ok(())
    }

    /// As [`Step::take_wraps`], of a giver whom no grant names and who is bounded like one.
    fn take_wraps_of_nobody(
        &mut self,
        id: ThreadId,
        wraps: &[Wrap],
    ) -> Result<Option<TakenWraps>, StoreError> {
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Ok(None);
        };
        let mut sink = |opened: &Opened<'_>| (self.sink)(id, opened);
        TakenWraps::take(thread, self.view, NOBODY, wraps, self.changes, &mut sink).map(Some)
    }
}

//! The disk of a simulated machine, and the store on it.
//!
//! A commit takes time. If the machine goes meanwhile, each commit that is under way is there as a
//! whole or not at all, and none without those before it; what was acknowledged is there. A disk that
//! fails does so as the port says: an error of the store, after which it answers nothing more until
//! it is opened again.

#[cfg(feature = "redb")]
mod file;
mod rows;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leno::store::{Batch, MemoryStore, Store, StoreError, View};

use crate::dice::Dice;
use crate::time::Time;
use rows::{FailingView, Rows};

/// What kind of a disk a machine has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum DiskKind {
    /// Rows in memory, with commits that are atomic by themselves.
    #[default]
    Rows,
    /// The store of `leno-store-redb` in a file which loses what was not synced, and tears it.
    #[cfg(feature = "redb")]
    Redb,
}

/// What goes wrong with a disk, until it is told otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DiskFaults {
    /// How long a commit takes.
    pub latency_micros: RangeInclusive<u64>,
    /// How many commits of a million fail. The batch may be there all the same.
    pub commit_errors_per_million: u32,
    /// How many reads of a million fail.
    pub read_errors_per_million: u32,
    /// No commit finds room.
    pub is_full: bool,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            latency_micros: 20..=200,
            commit_errors_per_million: 0,
            read_errors_per_million: 0,
            is_full: false,
        }
    }
}

/// What a disk came to so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiskCounts {
    /// Commits that were acknowledged.
    pub commits: u64,
    /// Commits that were refused for an error or for want of room.
    pub failed: u64,
    /// Those that were refused for want of room.
    pub full: u64,
    /// Writes to a file that were not synced and are not there after a crash.
    pub writes_lost: u64,
    /// Writes of which a crash left a part.
    pub writes_torn: u64,
    /// Commits that were under way when the machine went, and are not there.
    pub lost: u64,
    /// Those that are there all the same.
    pub kept: u64,
    /// Reads that failed.
    pub reads_failed: u64,
}

/// A disk of one machine; it outlives what runs on it. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    time: Time,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rows: Rows,
    /// Counts up with each crash, so that what ran before does not write any more.
    life: u64,
    /// A commit did not succeed in this life, or it was closed.
    is_poisoned: bool,
    faults: DiskFaults,
    dice: Dice,
    /// Commits under way, the oldest first, with their numbers.
    pending: Vec<(u64, Batch)>,
    /// The number of the next commit, and the time at which the last one is done.
    next: u64,
    busy_until: u64,
    backup: Option<Rows>,
    counts: DiskCounts,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(time: Time, seed: u64, name: &str, kind: DiskKind) -> Self {
        let state = State {
            rows: Rows::new(kind),
            life: 0,
            is_poisoned: false,
            faults: DiskFaults::default(),
            dice: Dice::new(seed, &format!("disk/{name}")),
            pending: Vec::new(),
            next: 0,
            busy_until: 0,
            backup: None,
            counts: DiskCounts::default(),
        };
        Self {
            time,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what goes wrong.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.lock().faults = faults;
    }

    /// What went wrong so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.lock().counts
    }

    /// Whether commits are under way.
    #[must_use]
    pub(crate) fn is_writing(&self) -> bool {
        !self.lock().pending.is_empty()
    }

    /// Nothing more reaches the disk from what runs now.
    pub(crate) fn pull_plug(&self) {
        let mut state = self.lock();
        state.life += 1;
    }

    /// The power goes, or the process is killed: decides what of the commits under way is there.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.life += 1;
        let State {
            rows,
            pending,
            dice,
            counts,
            ..
        } = &mut *state;
        let kept = dice.index(pending.len() + 1);
        for (at, (_, batch)) in pending.drain(..).enumerate() {
            if at < kept {
                counts.kept += 1;
                // A file that fails now is as it was before this commit.
                drop(rows.apply(batch));
            } else {
                counts.lost += 1;
                if at == kept {
                    rows.apply_in_part(batch, dice);
                }
            }
        }
        let (lost, torn) = rows.crash(dice);
        counts.writes_lost += lost;
        counts.writes_torn += torn;
    }

    /// Keeps a copy of everything as it is now.
    pub fn back_up(&self) {
        let mut state = self.lock();
        state.backup = Some(state.rows.copy());
    }

    /// Puts the copy back, if there is one. Nothing may run on the disk meanwhile.
    pub fn restore(&self) -> bool {
        let mut state = self.lock();
        state.life += 1;
        state.pending.clear();
        let Some(backup) = state.backup.as_ref().map(Rows::copy) else {
            return false;
        };
        state.rows = backup;
        true
    }

    /// Writes rows to the disk while nothing runs on it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not open or take them.
    pub fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.rows.open()?;
        state.rows.apply(batch)
    }

    /// Copies what is durable to a store in memory.
    pub(crate) fn copy_rows(&self) -> Result<MemoryStore, StoreError> {
        self.inspect(rows::copy)
    }

    /// Opens the store on the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it does not open.
    pub fn open(&self) -> Result<SimStore, StoreError> {
        let mut state = self.lock();
        state.rows.open()?;
        state.is_poisoned = false;
        Ok(SimStore {
            disk: self.clone(),
            life: state.life,
            rows: state.rows.store()?,
        })
    }

    /// Runs something on a picture of what is durable, faults or not.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not open.
    pub fn inspect<R>(&self, look: impl FnOnce(&dyn View) -> R) -> Result<R, StoreError> {
        let mut state = self.lock();
        state.rows.open()?;
        let store = state.rows.store()?;
        drop(state);
        let view = store.view()?;
        Ok(look(&*view))
    }
}

/// The store of a peer on a [`Disk`], until the machine crashes.
#[derive(Debug)]
pub struct SimStore {
    disk: Disk,
    life: u64,
    rows: Arc<dyn Store>,
}

impl SimStore {
    fn check(&self, state: &State) -> Result<(), StoreError> {
        match state.life == self.life && !state.is_poisoned {
            true => Ok(()),
            false => Err(StoreError::Poisoned),
        }
    }

    /// Puts a batch in line: its number, and when it is done.
    fn begin(&self, batch: Batch) -> Result<(u64, u64), StoreError> {
        let mut state = self.disk.lock();
        self.check(&state)?;
        batch.check()?;
        let State { faults, dice, .. } = &mut *state;
        let is_full = faults.is_full;
        let fails = is_full || dice.chance(faults.commit_errors_per_million);
        if fails {
            state.counts.failed += 1;
            state.counts.full += u64::from(is_full);
            state.is_poisoned = true;
            // Nobody knows what of it is there.
            if state.dice.coin() && !is_full {
                let pending: Vec<_> = state.pending.drain(..).collect();
                for (_, batch) in pending.into_iter().chain([(0, batch)]) {
                    state.rows.apply(batch)?;
                }
            }
            return Err(match is_full {
                true => StoreError::Full,
                false => medium("wrote a commit"),
            });
        }
        let range = state.faults.latency_micros.clone();
        let latency = state.dice.within(&range);
        let begins = state.busy_until.max(self.disk.time.micros());
        state.busy_until = begins.saturating_add(latency);
        state.next += 1;
        let number = state.next;
        state.pending.push((number, batch));
        Ok((number, state.busy_until))
    }

    /// Makes all commits durable up to this one.
    fn finish(&self, number: u64) -> Result<(), StoreError> {
        let mut state = self.disk.lock();
        self.check(&state)?;
        let done = state.pending.partition_point(|(it, _)| *it <= number);
        let done: Vec<_> = state.pending.drain(..done).collect();
        for (_, batch) in done {
            state.counts.commits += 1;
            let applied = state.rows.apply(batch);
            if applied.is_err() {
                state.counts.failed += 1;
                state.is_poisoned = true;
            }
            applied?;
        }
        Ok(())
    }
}

pub(crate) fn medium(doing: &'static str) -> StoreError {
    let source = Arc::new(std::io::Error::other("input/output error"));
    StoreError::Medium { doing, source }
}

#[async_trait]
impl Store for SimStore {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        let mut state = self.disk.lock();
        self.check(&state)?;
        let State { faults, dice, .. } = &mut *state;
        // Drawn for the picture as a whole: which of its reads fails, if any.
        let fails = dice.chance(faults.read_errors_per_million);
        let left = fails.then(|| dice.below(40));
        state.counts.reads_failed += u64::from(fails);
        drop(state);
        let view = self.rows.view()?;
        match left {
            None => Ok(view),
            left => Ok(Box::new(FailingView::new(view, left))),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let (number, at) = self.begin(batch)?;
        self.disk.time.sleep_until(at).await;
        self.finish(number)
    }

    async fn close(&self) -> Result<(), StoreError> {
        let mut state = self.disk.lock();
        if state.life != self.life {
            return Ok(());
        }
        let was_poisoned = std::mem::replace(&mut state.is_poisoned, true);
        let closed = state.rows.close();
        match was_poisoned {
            // It was told before.
            true => Ok(()),
            false => closed,
        }
    }
}

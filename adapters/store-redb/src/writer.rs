//! The thread that writes.
//!
//! Why a thread: a durable commit waits for the disk, milliseconds in which an executor inside
//! whose future it ran could do nothing else. Measured with commits of 300 bytes on a disk of 300
//! syncs a second: 286 a second inline and 288 through the thread; in memory, without the disk, the
//! way there and back costs 30 microseconds. So the thread costs nothing that shows, needs no
//! runtime, puts commits in the order of their calls, and lets those that wait share one sync.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use futures_channel::oneshot;
use leno_threads_core::store::{Batch, StoreError};
use redb::{Database, Durability};

use crate::error::{Doing, guard};
use crate::row;
use crate::store::Shared;
use crate::view::definition;

/// Batches that wait are put into one transaction up to this many bytes of keys and values.
const SHARED_BYTES_MAX: usize = 1 << 20;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Work for the thread.
pub(crate) enum Job {
    Commit(Batch, Answer<()>),
    Compact(Answer<bool>),
    Close(Answer<()>),
}

/// Does what is asked, in order, until asked to close or all handles are gone.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) settle_after: Option<Duration>,
    /// Whether an open after a kill at this moment is quick.
    pub(crate) settled: bool,
}

impl Writer {
    pub(crate) fn run(mut self) {
        let mut held_back = None;
        while let Some(job) = held_back.take().or_else(|| self.next()) {
            match job {
                Job::Commit(batch, answer) => held_back = self.commit(batch, answer),
                Job::Compact(answer) => {
                    let result = self.compact();
                    // A caller who went away needs no answer, here and below.
                    let _ = answer.send(result);
                }
                Job::Close(answer) => {
                    let result = self.close();
                    let _ = answer.send(result);
                    return;
                }
            }
        }
        // The handle was dropped: what redb says now has nobody to hear it, and loses nothing.
        let _ = self.close();
    }

    /// Waits for work; settles the file when none comes for a while.
    fn next(&mut self) -> Option<Job> {
        while let Some(pause) = self.settle_after.filter(|_| !self.settled) {
            match self.jobs.recv_timeout(pause) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.settle(),
            }
        }
        self.jobs.recv().ok()
    }

    /// Writes where free room lies, so that the next open need not read the whole file to learn it.
    ///
    /// Worth two syncs after a burst of commits: a peer on a phone ends by being killed.
    fn settle(&mut self) {
        let _ = self.write(Batch::new(), Kind::Settling);
        // Also after an error, which poisoned the store: it is not tried again.
        self.settled = true;
    }

    /// Commits a batch together with those that wait behind it; gives back other work it met.
    fn commit(&mut self, mut batch: Batch, answer: Answer<()>) -> Option<Job> {
        let mut answers = vec![answer];
        let mut bytes = bytes_of(&batch);
        let mut other = None;
        while bytes < SHARED_BYTES_MAX {
            match self.jobs.try_recv() {
                Ok(Job::Commit(later, answer)) => {
                    bytes = bytes.saturating_add(bytes_of(&later));
                    batch.extend(later);
                    answers.push(answer);
                }
                Ok(job) => {
                    other = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let result = if batch.is_empty() {
            self.shared.check()
        } else {
            self.settled = false;
            self.write(batch, Kind::Usual)
        };
        for answer in answers {
            let _ = answer.send(result.clone());
        }
        other
    }

    fn write(&self, batch: Batch, kind: Kind) -> Result<(), StoreError> {
        self.shared.check()?;
        let database = self.shared.read();
        let database = database.as_ref().ok_or(StoreError::Poisoned)?;
        let result = guard(Doing::Commit, || write(database, batch, kind));
        if result.is_err() {
            // No second try: after a failed sync the system may have dropped the pages and would
            // report the next one as good.
            self.shared.poison();
        }
        result
    }

    fn compact(&mut self) -> Result<bool, StoreError> {
        self.shared.check()?;
        let mut database = self.shared.write();
        let database = database.as_mut().ok_or(StoreError::Poisoned)?;
        self.settled = false;
        let result = guard(Doing::Compact, || match database.compact() {
            Ok(smaller) => Ok(smaller),
            Err(redb::CompactionError::TransactionInProgress) => Ok(false),
            Err(error) => Err(error.into()),
        });
        if result.is_err() {
            self.shared.poison();
        }
        result
    }

    fn close(&self) -> Result<(), StoreError> {
        let poisoned = self.shared.check().is_err();
        self.shared.poison();
        let database = self.shared.write().take();
        let result = guard(Doing::Close, || match database {
            Some(database) => Ok(database.close()?),
            None => Ok(()),
        });
        // What went wrong in a poisoned store was told before.
        if poisoned { Ok(()) } else { result }
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One sync; an open after a kill reads the whole file.
    Usual,
    /// Two syncs, and the state of the allocator; an open after a kill is quick.
    Settling,
}

/// Writes a batch as one transaction.
pub(crate) fn write(database: &Database, batch: Batch, kind: Kind) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(kind == Kind::Settling);
    let mut writes = batch.into_writes().peekable();
    while let Some(table) = writes.peek().map(|(table, ..)| *table) {
        let mut rows = transaction.open_table(definition(table))?;
        while let Some((_, key, value)) = writes.next_if(|(at, ..)| *at == table) {
            let Some(value) = value else {
                rows.remove(key.as_slice())?;
                continue;
            };
            let stored = value.len().saturating_add(row::CHECKSUM_BYTES);
            let mut place = rows.insert_reserve(key.as_slice(), stored)?;
            if let Some((body, end)) = place.as_mut().split_last_chunk_mut() {
                body.copy_from_slice(&value);
                *end = row::checksum(table, &key, &value);
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn bytes_of(batch: &Batch) -> usize {
    batch
        .writes()
        .map(|(_, key, value)| key.len() + value.map_or(0, <[u8]>::len))
        .sum()
}

//! The thread that writes.
//!
//! Why a thread: a durable commit waits for the disk, milliseconds in which an executor inside
//! whose future it ran could do nothing else. The way there and back costs 20 to 40 microseconds. The
//! thread needs no runtime, puts commits in the order of their calls, lets those that wait share one
//! sync, and moves rows from the journal to redb when nobody waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use futures_channel::oneshot;
use leno_threads_core::store::{Batch, StoreError};
use redb::{Database, Durability, WriteTransaction};

use crate::error::{Doing, guard};
use crate::journal::Journal;
use crate::row;
use crate::store::{Shared, write_lap};
use crate::view::{Picture, definition};

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
    /// There until closed.
    pub(crate) database: Option<Database>,
    pub(crate) journal: Journal,
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) settle_after: Option<Duration>,
    /// Whether nothing was written that is to be settled. What an open found in the journal waits for
    /// the first commit: whoever only reads writes nothing, and needs no room on a full disk.
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

    /// Moves all rows to redb, so that neither the next open has to, nor memory holds them.
    fn settle(&mut self) {
        self.move_on_unasked();
        self.journal.rest();
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
            self.write(batch)
        };
        for answer in answers {
            let _ = answer.send(result.clone());
        }
        // After the answers, and before there is need: whoever commits seldom never waits for it.
        if self.journal.is_nearly_full() {
            self.move_on_unasked();
        }
        other
    }

    /// Makes a batch durable, then visible.
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.settled = false;
        if !self.journal.has_room(&batch) {
            return self.poisoning(|it| it.move_on(&batch, Kind::Usual));
        }
        self.shared.check()?;
        self.poisoning(|it| guard(Doing::Commit, || Ok(it.journal.append(&batch)?)))?;
        if let Some(picture) = self.shared.lock().as_mut() {
            // Copies the rows if somebody still looks at them as they were.
            Arc::make_mut(&mut picture.fresh).extend(batch);
        }
        Ok(())
    }

    /// Moves all rows from the journal to redb, with a batch that comes after them. Its error must
    /// poison the store.
    fn move_on(&mut self, batch: &Batch, kind: Kind) -> Result<(), StoreError> {
        self.shared.check()?;
        let fresh = self.shared.picture()?.fresh;
        let lap = self.journal.lap().saturating_add(1);
        let database = self.database.as_ref().ok_or(StoreError::Poisoned)?;
        let picture = guard(Doing::Commit, || {
            write(database, &[&fresh, batch], lap, kind)?;
            Picture::of(database)
        })?;
        *self.shared.lock() = Some(picture);
        self.journal.begin(lap);
        Ok(())
    }

    /// Moves rows when nobody waits for it; whoever asks next is told of an error.
    fn move_on_unasked(&mut self) {
        if let Err(error) = self.move_on(&Batch::new(), Kind::Usual) {
            self.shared.poison(Some(error));
        }
    }

    fn compact(&mut self) -> Result<bool, StoreError> {
        self.settled = false;
        self.poisoning(|it| it.move_on(&Batch::new(), Kind::Usual))?;
        let shared = Arc::clone(&self.shared);
        self.poisoning(|it| {
            let database = it.database.as_mut().ok_or(StoreError::Poisoned)?;
            // Whoever wants a picture waits, and one that nobody looks at holds nothing back.
            let mut picture = shared.lock();
            *picture = None;
            guard(Doing::Compact, || {
                let smaller = match database.compact() {
                    Ok(smaller) => smaller,
                    Err(redb::CompactionError::TransactionInProgress) => false,
                    Err(error) => return Err(error.into()),
                };
                *picture = Some(Picture::of(database)?);
                Ok(smaller)
            })
        })
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let usable = self.shared.check();
        let is_poisoned = matches!(usable, Err(StoreError::Poisoned));
        let moved = match usable {
            Ok(()) if !self.journal.is_empty() => self.move_on(&Batch::new(), Kind::Closing),
            usable => usable,
        };
        self.shared.poison(None);
        *self.shared.lock() = None;
        let database = self.database.take();
        let closed = guard(Doing::Close, || match database {
            Some(database) => Ok(database.close()?),
            None => Ok(()),
        });
        // What went wrong in a poisoned store was told before.
        if is_poisoned {
            Ok(())
        } else {
            moved.and(closed)
        }
    }

    /// Does something after whose failure nothing is certain.
    fn poisoning<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = work(self);
        if result.is_err() {
            // No second try: after a failed sync the system may have dropped the pages and would
            // report the next one as good.
            self.shared.poison(None);
        }
        result
    }
}

/// How a transaction of redb ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Two syncs, and the state of the allocator: an open after a kill is quick, and damage to the
    /// newest commit does not look like a crash in the midst of it.
    Usual,
    /// One sync; what redb does when it is closed comes to the same.
    Closing,
}

/// Writes batches, the oldest first, as one transaction that ends a lap of the journal.
fn write(database: &Database, batches: &[&Batch], lap: u64, kind: Kind) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(kind == Kind::Usual);
    for batch in batches {
        write_rows(&transaction, batch)?;
    }
    write_lap(&transaction, lap)?;
    transaction.commit()?;
    Ok(())
}

fn write_rows(transaction: &WriteTransaction, batch: &Batch) -> Result<(), redb::Error> {
    let mut writes = batch.writes().peekable();
    while let Some(table) = writes.peek().map(|(table, ..)| *table) {
        let mut rows = transaction.open_table(definition(table))?;
        while let Some((_, key, value)) = writes.next_if(|(at, ..)| *at == table) {
            let Some(value) = value else {
                rows.remove(key)?;
                continue;
            };
            let stored = value.len().saturating_add(row::CHECKSUM_BYTES);
            let mut place = rows.insert_reserve(key, stored)?;
            if let Some((body, end)) = place.as_mut().split_last_chunk_mut() {
                body.copy_from_slice(value);
                *end = row::checksum(table, key, value);
            }
        }
    }
    Ok(())
}

fn bytes_of(batch: &Batch) -> usize {
    batch
        .writes()
        .map(|(_, key, value)| key.len() + value.map_or(0, <[u8]>::len))
        .sum()
}

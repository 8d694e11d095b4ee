//! The store itself.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use leno_threads_core::store::{Batch, Store, StoreError, View};
use redb::backends::InMemoryBackend;
use redb::{
    Database, ReadableDatabase, TableDefinition, TableError, TableHandle, WriteTransaction,
};

use crate::backend::Medium;
use crate::error::{Doing, guard};
use crate::journal::Journal;
use crate::options::RedbOptions;
use crate::view::{Picture, RedbView};
use crate::writer::{Job, Writer};

/// Newest format of the file that this version reads, and the one that it writes.
pub const FORMAT: u64 = 2;

/// Facts about the file itself. They are no rows of the port, so they have a table of their own.
const FILE: TableDefinition<'static, &'static str, u64> = TableDefinition::new("leno-store");

/// The lap of the journal whose frames are not in redb.
const LAP: &str = "lap";

/// A store in one file: a journal, and redb behind it.
///
/// Reading happens on the caller's thread; commits happen on one thread that the handle owns.
/// Dropping the handle waits for what was committed and closes the file; [`Store::close`] does the
/// same without blocking, and tells of errors.
///
/// A commit whose future is dropped after it was first polled happens all the same.
pub struct Redb {
    shared: Arc<Shared>,
    // Both are there until `drop`.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the handle and its thread have in common.
pub(crate) struct Shared {
    /// What views show; empty once closed.
    picture: RwLock<Option<Picture>>,
    poisoned: AtomicBool,
    /// What went wrong when nobody had asked, until somebody does.
    untold: Mutex<Option<StoreError>>,
}

impl Shared {
    pub(crate) fn new(picture: Picture) -> Self {
        Self {
            picture: RwLock::new(Some(picture)),
            poisoned: AtomicBool::new(false),
            untold: Mutex::new(None),
        }
    }

    /// Refuses every call after a commit that did not succeed, and after closing.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) {
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            Err(untold.take().unwrap_or(StoreError::Poisoned))
        } else {
            Ok(())
        }
    }

    /// Makes every later call fail, the first one with what nobody was told.
    pub(crate) fn poison(&self, untold: Option<StoreError>) {
        if untold.is_some() {
            *self.untold.lock().unwrap_or_else(PoisonError::into_inner) = untold;
        }
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn picture(&self) -> Result<Picture, StoreError> {
        let picture = self.picture.read().unwrap_or_else(PoisonError::into_inner);
        picture.clone().ok_or(StoreError::Poisoned)
    }

    /// Keeps others from taking pictures while it is held.
    pub(crate) fn lock(&self) -> RwLockWriteGuard<'_, Option<Picture>> {
        self.picture.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Redb {
    /// Opens the store in the file at `path` with the usual settings, and makes it if need be.
    ///
    /// # Errors
    ///
    /// As [`RedbOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::options().open(path)
    }

    /// Makes a store in memory, for tests: the same code without a file.
    ///
    /// # Errors
    ///
    /// [`StoreError::Medium`] if the system gives no thread.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::options().open_backend(InMemoryBackend::new())
    }

    /// Gives the usual settings, to change some.
    #[must_use]
    pub fn options() -> RedbOptions {
        RedbOptions::default()
    }

    /// Moves rows to the front of the file and gives the room behind them back to the system;
    /// tells whether that made it smaller.
    ///
    /// Nothing happens while a view is alive. Commits wait meanwhile, and so does taking a view, which
    /// blocks its thread: a matter of seconds for hundreds of megabytes, so for quiet moments.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`], with the same consequence.
    pub async fn compact(&self) -> Result<bool, StoreError> {
        self.ask(Job::Compact)
            .await
            .unwrap_or(Err(StoreError::Poisoned))
    }

    /// Starts the thread. `settled` tells that redb would open quickly as it is.
    pub(crate) fn start(
        database: Database,
        medium: Arc<Medium>,
        settle_after: Option<Duration>,
        settled: bool,
    ) -> Result<Self, StoreError> {
        let lap = guard(Doing::Open, || find_lap(&database))??;
        guard(Doing::Open, || Ok(medium.finish()?))?;
        let (journal, fresh) = Journal::open(medium, lap)?;
        let mut picture = guard(Doing::Open, || Picture::of(&database))?;
        picture.fresh = Arc::new(fresh);
        let shared = Arc::new(Shared::new(picture));
        let (jobs, received) = mpsc::channel();
        let writer = Writer {
            database: Some(database),
            journal,
            shared: Arc::clone(&shared),
            jobs: received,
            settle_after,
            settled,
        };
        let thread = thread::Builder::new()
            .name("leno-store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Medium {
                doing: "started its thread",
                source: Arc::new(error),
            })?;
        Ok(Self {
            shared,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Asks the thread; `None` if it has ended.
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.jobs.as_ref()?.send(job(answer)).ok()?;
        answered.await.ok()
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Redb")
            .field("usable", &self.shared.check().is_ok())
            .finish_non_exhaustive()
    }
}

impl Drop for Redb {
    fn drop(&mut self) {
        // The thread ends when nobody can ask it any more.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Waiting keeps the promise that the file can be opened again from here on.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for Redb {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        self.shared.check()?;
        Ok(Box::new(RedbView {
            shared: &self.shared,
            picture: self.shared.picture()?,
        }))
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.shared.check()?;
        batch.check()?;
        let done = self.ask(|answer| Job::Commit(batch, answer)).await;
        done.unwrap_or(Err(StoreError::Poisoned))
    }

    async fn close(&self) -> Result<(), StoreError> {
        // A thread that has ended has closed the file before.
        self.ask(Job::Close).await.unwrap_or(Ok(()))
    }
}

/// Reads which lap of the journal counts, and begins with the first in a new file.
fn find_lap(database: &Database) -> Result<Result<u64, StoreError>, redb::Error> {
    let transaction = database.begin_read()?;
    let strange = |why: String| StoreError::Corrupt {
        what: format!("the file's table leno-store: {why}"),
    };
    match transaction.open_table(FILE) {
        Ok(file) => {
            let lap = file.get(LAP)?.map(|lap| lap.value());
            Ok(lap.ok_or_else(|| strange("the lap of the journal is missing".to_owned())))
        }
        Err(TableError::TableDoesNotExist(_)) => {
            if let Some(table) = transaction.list_tables()?.next() {
                let why = format!("missing beside a table {:?}", table.name());
                return Ok(Err(strange(why)));
            }
            let mut transaction = database.begin_write()?;
            // So that an open after a kill is quick from the start.
            transaction.set_quick_repair(true);
            write_lap(&transaction, 1)?;
            transaction.commit()?;
            Ok(Ok(1))
        }
        Err(error) => Err(error.into()),
    }
}

/// Notes in a transaction that it holds all rows of earlier laps.
pub(crate) fn write_lap(transaction: &WriteTransaction, lap: u64) -> Result<(), redb::Error> {
    transaction.open_table(FILE)?.insert(LAP, lap)?;
    Ok(())
}

//! The store itself.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use leno_threads_core::store::{Batch, Store, StoreError, View};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, TableDefinition, TableError, TableHandle};

use crate::error::{Doing, guard};
use crate::options::RedbOptions;
use crate::view::RedbView;
use crate::writer::{Job, Writer};

/// Newest format of the file that this version reads, and the one that it writes.
pub const FORMAT: u64 = 1;

/// Facts about the file itself. They are no rows of the port, so they have a table of their own.
const FILE: TableDefinition<'static, &'static str, u64> = TableDefinition::new("leno-store");

/// A store in one redb file.
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
    /// Empty once closed.
    database: RwLock<Option<Database>>,
    poisoned: AtomicBool,
}

impl Shared {
    /// Refuses every call after a commit that did not succeed, and after closing.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) {
            Err(StoreError::Poisoned)
        } else {
            Ok(())
        }
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file's format, and writes it into a new file.
    fn check_format(&self) -> Result<(), StoreError> {
        let database = self.read();
        let database = database.as_ref().ok_or(StoreError::Poisoned)?;
        match guard(Doing::Open, || find(database))? {
            Found::Format(FORMAT) => Ok(()),
            Found::Nothing => guard(Doing::Open, || initialise(database)),
            Found::Format(found) if found > FORMAT => Err(StoreError::NewerFormat {
                found,
                known: FORMAT,
            }),
            Found::Format(found) => Err(strange(&format!("there never was a format {found}"))),
            Found::Strange(why) => Err(strange(&why)),
        }
    }
}

fn strange(why: &str) -> StoreError {
    StoreError::Corrupt {
        what: format!("the file's table leno-store: {why}"),
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let database = self.write().take();
        // Closing may panic like reading; nobody is left who could be told.
        let _ = guard(Doing::Close, || {
            drop(database);
            Ok(())
        });
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

    pub(crate) fn start(
        database: Database,
        settle_after: Option<Duration>,
        settled: bool,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(database)),
            poisoned: AtomicBool::new(false),
        });
        shared.check_format()?;
        let (jobs, received) = mpsc::channel();
        let writer = Writer {
            shared: Arc::clone(&shared),
            jobs: received,
            settle_after,
            settled,
        };
        let thread = thread::Builder::new()
            .name("leno-store-redb".to_owned())
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
        let database = self.shared.read();
        let database = database.as_ref().ok_or(StoreError::Poisoned)?;
        let transaction = guard(Doing::Read, || Ok(database.begin_read()?))?;
        Ok(Box::new(RedbView::new(transaction)))
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

/// What a file says about itself.
enum Found {
    Nothing,
    Format(u64),
    /// It is no store; why.
    Strange(String),
}

fn find(database: &Database) -> Result<Found, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(FILE) {
        Ok(file) => Ok(match file.get("format")? {
            Some(format) => Found::Format(format.value()),
            None => Found::Strange("the row format is missing".to_owned()),
        }),
        Err(TableError::TableDoesNotExist(_)) => {
            let stranger = transaction.list_tables()?.next();
            Ok(stranger.map_or(Found::Nothing, |table| {
                Found::Strange(format!("missing beside a table {:?}", table.name()))
            }))
        }
        Err(error) => Err(error.into()),
    }
}

fn initialise(database: &Database) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // So that an open after a kill is quick from the start.
    transaction.set_quick_repair(true);
    transaction.open_table(FILE)?.insert("format", FORMAT)?;
    Ok(transaction.commit()?)
}

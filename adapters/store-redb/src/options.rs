//! How to open a store.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leno_threads_core::store::StoreError;
use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use crate::backend::{Backend, Medium, START_BYTES_MAX, START_BYTES_MIN};
use crate::error::{Doing, guard};
use crate::journal::PAGE_BYTES;
use crate::store::Redb;

/// Memory that a store may use for pages of its file, in bytes, unless told otherwise: 4 MiB.
///
/// It is a bound: an open takes under 1 MiB of it; only one that must read the whole file, after a
/// crash while it was compacted or closed, takes all of it; measured at 1.0 and 5.2 MiB above a
/// process without a store. More did not make commits faster, only repeated reads.
pub const CACHE_BYTES: usize = 4 << 20;

/// Length of the journal of a new file, with the page of its header, in bytes: 2 MiB.
///
/// Commits are moved on when less than a quarter is left, which is after some 380 small ones. A
/// longer one made commits no faster.
pub const JOURNAL_BYTES: u64 = 2 << 20;

/// Pause after the last commit before a store empties its journal: 2 seconds.
pub const SETTLE_AFTER: Duration = Duration::from_secs(2);

/// Settings of a [`Redb`].
///
/// # Examples
///
/// ```
/// use leno_store_redb::Redb;
///
/// # let folder = std::env::temp_dir().join(format!("leno-redb-options-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let store = Redb::options()
///     .cache_bytes(16 << 20)
///     .on_repair(|done| println!("repairing: {:.0} %", done * 100.0))
///     .open(folder.join("songs.redb"))?;
/// # drop(store);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RedbOptions {
    cache_bytes: usize,
    check_on_open: bool,
    journal_bytes: u64,
    settle_after: Option<Duration>,
    on_repair: Box<dyn Fn(f64) + Send + Sync>,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES,
            check_on_open: false,
            journal_bytes: JOURNAL_BYTES,
            settle_after: Some(SETTLE_AFTER),
            on_repair: Box::new(|_| {}),
        }
    }
}

impl fmt::Debug for RedbOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RedbOptions")
            .field("cache_bytes", &self.cache_bytes)
            .field("check_on_open", &self.check_on_open)
            .field("journal_bytes", &self.journal_bytes)
            .field("settle_after", &self.settle_after)
            .finish_non_exhaustive()
    }
}

impl RedbOptions {
    /// Bounds the memory for pages of the file, in bytes; [`CACHE_BYTES`] unless set.
    ///
    /// More makes repeated reads of a large store faster.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Reads the whole file and compares every checksum when it is opened; off unless set.
    ///
    /// Costs as long as it takes to read the file.
    #[must_use]
    pub fn check_on_open(mut self, check: bool) -> Self {
        self.check_on_open = check;
        self
    }

    /// Sets how long the journal of a file is that is made anew; [`JOURNAL_BYTES`] unless set. A file
    /// that is there keeps the length that it has.
    ///
    /// Rows in the journal are also in memory. Whole pages of 4 KiB are taken, at least four and at
    /// most 1 GiB.
    #[must_use]
    pub fn journal_bytes(mut self, bytes: u64) -> Self {
        let pages = bytes.clamp(START_BYTES_MIN, START_BYTES_MAX) / PAGE_BYTES as u64;
        self.journal_bytes = pages.saturating_mul(PAGE_BYTES as u64);
        self
    }

    /// Sets the pause after the last commit before its rows are moved from the journal to redb;
    /// [`SETTLE_AFTER`] unless set, `None` for not before there is need.
    ///
    /// It costs two syncs of the disk after each burst of commits. Then the rows are no longer in
    /// memory, and an open after a kill reads nothing from the journal;
    /// [`Store::close`](leno_threads_core::store::Store::close) and dropping the handle do the same.
    #[must_use]
    pub fn settle_after(mut self, pause: Option<Duration>) -> Self {
        self.settle_after = pause;
        self
    }

    /// Shows progress, from 0 to 1, while an open repairs or checks the file.
    #[must_use]
    pub fn on_repair(mut self, show: impl Fn(f64) + Send + Sync + 'static) -> Self {
        self.on_repair = Box::new(show);
        self
    }

    /// Opens the store in the file at `path`, and makes it if there is none or it is empty.
    ///
    /// Blocks meanwhile: about a millisecond, 20 for a new file, whose journal is written once; and as
    /// long as it takes to read the journal if its process was killed. Only a crash while the file
    /// was compacted or closed may lead to reading it as a whole (0.5 seconds for 285 MB of small
    /// rows, on one computer of 2026).
    ///
    /// # Errors
    ///
    /// - [`StoreError::Locked`] if the file is open elsewhere, in this process or another.
    /// - [`StoreError::Corrupt`] if the file is damaged beyond repair or is none of ours. It is left
    ///   as it is.
    /// - [`StoreError::NewerFormat`] if a newer version wrote it, [`StoreError::OlderFormat`] if it is
    ///   a redb file without a journal, as the first version wrote it. It is left as it is.
    /// - [`StoreError::Full`] and [`StoreError::Medium`] if the disk does not do as asked.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Redb, StoreError> {
        let path = path.as_ref();
        // Opening creates the file; a name that exists is not synced again.
        let is_new = !path.try_exists().unwrap_or(true);
        let file = guard(Doing::Open, || {
            let mut options = File::options();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            Ok(FileBackend::new(file)?)
        })?;
        let redb = self.open_backend(file)?;
        if is_new {
            guard(Doing::Open, || Ok(sync_folder(path)?))?;
        }
        Ok(redb)
    }

    /// Opens the store in bytes that are kept elsewhere than in a file.
    ///
    /// # Errors
    ///
    /// As [`RedbOptions::open`].
    pub fn open_backend(self, backend: impl StorageBackend) -> Result<Redb, StoreError> {
        let repaired = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&repaired);
        let medium = Medium::new(backend, self.journal_bytes);
        let database = guard(Doing::Open, || {
            let mut builder = Database::builder();
            builder
                .set_cache_size(self.cache_bytes)
                .set_check_integrity_on_open(self.check_on_open)
                .set_repair_callback(move |session| {
                    seen.store(true, Ordering::Relaxed);
                    (self.on_repair)(session.progress());
                });
            Ok(builder.create_with_backend(Backend::new(Arc::clone(&medium)))?)
        })?;
        let settled = !repaired.load(Ordering::Relaxed);
        Redb::start(database, medium, self.settle_after, settled)
    }
}

/// Makes the name of a new file durable; its bytes are redb's care.
#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file, and names are the file system's care.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

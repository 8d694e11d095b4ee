//! The default on-disk store of leno: one redb file.
//!
//! ```
//! use leno_store_redb::Redb;
//! use leno_threads_core::store::{Batch, Store, Table};
//!
//! # let folder = std::env::temp_dir().join(format!("leno-redb-front-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let path = folder.join("songs.redb");
//! let store = Redb::open(&path)?;
//! let mut batch = Batch::new();
//! batch.put(Table::Application, b"colour".to_vec(), b"green".to_vec());
//! futures_executor::block_on(store.commit(batch))?; // Durable from here on.
//! drop(store);
//!
//! let store = Redb::open(&path)?;
//! assert_eq!(store.view()?.get(Table::Application, b"colour")?, Some(b"green".to_vec()));
//! # drop(store);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! - A commit is one redb transaction and is durable when it answers. Commits that wait together
//!   share one transaction, and so one sync of the disk; each stays whole and in its place.
//! - After a crash the file opens by itself, with every commit that was acknowledged.
//! - One process at a time: a second open gives [`StoreError::Locked`]. The lock is the operating
//!   system's and dies with its process.
//! - After a commit that did not succeed the handle answers [`StoreError::Poisoned`] and nothing
//!   else, because it is unknown what the disk holds. Opening the file again tells.
//! - A row that is read is the row that was written, at its key in its table: 32 bits of checksum
//!   lie behind every value, because redb itself compares checksums only while it repairs.
//!   A damaged row gives [`StoreError::Corrupt`] with its table and key. A panic of redb over a
//!   damaged file is caught and gives the same error (not where panics abort the process).
//!
//! # What it does not promise
//!
//! - Damage to the inner pages of a tree may hide rows: they read as absent. Only
//!   [`RedbOptions::check_on_open`] finds that, by reading the whole file, as an open after a crash
//!   does by itself.
//! - Damage to a page of the newest commit, in a file whose process was killed right after it, looks
//!   like a crash in the midst of that commit: the repair goes back to the one before. A file that
//!   settled ([`RedbOptions::settle_after`]) or was closed gives [`StoreError::Corrupt`] instead.
//! - An empty file opens as a new store, so a file cut to nothing reads as one.
//! - On a full disk a store that must be repaired may need room to open: [`StoreError::Full`].
//! - Deleted bytes stay in the file's free pages until those are used again.
//!
//! # Shape of the file
//!
//! One redb table per [`Table`], named by [`Table::name`], and one of its own, `leno-store`, with
//! the row `format`, a `u64`. Keys are the port's keys. A value is
//! `value | CRC-32 (IEEE, little-endian) of: table: u8 | key length: u16 little-endian | key | value`.
//!
//! A value that shares a page with no other takes a page of a power of two, at least 4 KiB, which
//! also holds the key and 16 bytes more. Values of `2^n - 64` bytes, for keys up to 48 bytes, waste
//! next to nothing; a few bytes more than fit double the room.
//!
//! # Index
//!
//! [`Redb`] is the store, [`RedbOptions`] its settings. [`StorageBackend`] is redb's port for the
//! bytes of a file, for those who keep them elsewhere.
//!
//! [`StoreError::Locked`]: leno_threads_core::store::StoreError::Locked
//! [`StoreError::Poisoned`]: leno_threads_core::store::StoreError::Poisoned
//! [`StoreError::Corrupt`]: leno_threads_core::store::StoreError::Corrupt
//! [`StoreError::Full`]: leno_threads_core::store::StoreError::Full
//! [`Table`]: leno_threads_core::store::Table
//! [`Table::name`]: leno_threads_core::store::Table::name

mod backend;
mod error;
mod frame;
mod journal;
mod options;
mod row;
mod store;
mod view;
mod writer;

pub use options::{CACHE_BYTES, JOURNAL_BYTES, RedbOptions, SETTLE_AFTER};
pub use redb::StorageBackend;
pub use store::{FORMAT, Redb};

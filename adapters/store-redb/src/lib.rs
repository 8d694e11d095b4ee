//! The default on-disk store of leno: one file, a journal and redb.
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
//! - A commit is whole and durable when it answers. It is one write to a journal at the front of the
//!   file and one sync of the disk; commits that wait together share both, and each stays in its
//!   place. Rows are moved from the journal to redb's trees by the hundred.
//! - After a crash the file opens by itself, at once, with every commit that was acknowledged.
//! - One process at a time: a second open gives [`StoreError::Locked`]. The lock is the operating
//!   system's and dies with its process.
//! - After a commit that did not succeed the handle answers [`StoreError::Poisoned`] and nothing
//!   else, because it is unknown what the disk holds. Opening the file again tells.
//! - A row that is read is the row that was written, at its key in its table: 32 bits of checksum
//!   lie behind every value, because redb itself compares checksums only while it repairs.
//!   A damaged row gives [`StoreError::Corrupt`] with its table and key. A panic of redb over a
//!   damaged file is caught and gives the same error (not where panics abort the process).
//! - A commit that is damaged in the journal gives [`StoreError::Corrupt`] when there are newer ones.
//!
//! # What it does not promise
//!
//! - Damage to the inner pages of a tree may hide rows: they read as absent. Only
//!   [`RedbOptions::check_on_open`] finds that, by reading the whole file.
//! - Damage to the newest commit in the journal of a process that was killed looks like a crash in
//!   the midst of that commit: it is not there any more. A file that settled
//!   ([`RedbOptions::settle_after`]) or was closed has nothing in its journal.
//! - A system that, after a failed sync, still shows what it could not write deceives the next open;
//!   start it anew first.
//! - An empty file opens as a new store, so a file cut to nothing reads as one.
//! - On a full disk, commits end with [`StoreError::Full`] when the journal is full too; those that
//!   were acknowledged are there at the next open, with or without room.
//! - Deleted bytes stay in the file's free pages, and in the journal, until those are used again.
//!
//! # Shape of the file
//!
//! Numbers are little-endian. A header, the journal, and from the place on that the header names a
//! redb file, unchanged but for its offset.
//!
//! The header is `"leno" 1a 0a a9 0d | format: u64, 2 | start of redb: u64, a multiple of 4096 |
//! zeros | CRC-32 of all before`, 512 bytes, and zeros up to 4096. While a new file is made,
//! `"leno: being made"` stands at 512: whoever opens such a file makes it anew.
//!
//! The journal is frames, each beginning at a multiple of 4096, from 4096 on. A frame is sectors of
//! 512 bytes: `lap: u64 | frame in the lap: u32 | sector in the frame: u32 | 492 bytes of content |
//! CRC-32 of the frame up to here, without its checksums`. The content is
//! `its length with this: u32 | rows`, and zeros to the end of the page. A row is
//! `table: u8 | key length: u16 | value length: u32 | key | value`; a length of `ffffffff` deletes
//! the row and has no value. Frames of a lap follow each other without a gap and count up from 0.
//! Those count whose lap is the one that redb names, up to the first that is not whole.
//!
//! In redb lies one table per [`Table`], named by [`Table::name`], and one of its own, `leno-store`,
//! with the row `lap`, a `u64`: all laps before it are in redb. Keys are the port's keys. A value is
//! `value | CRC-32 (IEEE) of: table: u8 | key length: u16 | key | value`.
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

//! Blocks and segments of leno in object stores: memory, local files, S3.
//!
//! A hub whose threads lie in one process's store is bound to one machine. Here they lie where all
//! its nodes reach them, sealed: any node loads any thread and serves it, and what nodes write at the
//! same time is all there.
//!
//! ```
//! use std::sync::Arc;
//!
//! use leno_store_object::{Objects, SegmentStore, SharedError};
//! use leno_threads_core::segment::{SharedThread, StoredRun};
//! # use leno_identity::{AgreementKey, SigningKey};
//! # use leno_threads_core::store::{MemoryStore, Store};
//! # use leno_threads_core::thread::{Changes, Seat, Thread};
//! # use leno_threads_core::{NonceSecret, Suite};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # use std::ops::ControlFlow;
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//! # let seat = Seat {
//! #     signing: SigningKey::generate(&mut rng).unwrap(),
//! #     kem: AgreementKey::generate(&mut rng).unwrap(),
//! # };
//! # let (store, mut changes, secret) = (MemoryStore::new(), Changes::new(), NonceSecret::new(&[7; 32]));
//! # let view = store.view().unwrap();
//! # let (suite, now) = (Suite::Aes256Gcm, 1_700_000_000_000_u64);
//! # let band = Thread::create(&*view, 0, seat, secret, suite, &[], now, &mut rng, &mut changes).unwrap();
//! # drop(view);
//! # futures_executor::block_on(store.commit(changes.batch)).unwrap();
//! # let view = store.view().unwrap();
//! # let (log, mut runs) = (band.seat().id().control_log(), Vec::new());
//! # band.scan_rows(&*view, &log, 1, &mut |_, row| {
//! #     runs.push(StoredRun::verify(band.id(), log, row.to_vec()).unwrap());
//! #     ControlFlow::Continue(())
//! # }).unwrap();
//! # futures_executor::block_on(async {
//!
//! // One node writes what it has of a thread, `band`: runs as its store keeps them.
//! let shared = Arc::new(Objects::memory());
//! let one = SegmentStore::new(shared.clone(), [1; 32], [2; 32]);
//! let thread = SharedThread::new(band.genesis(), band.service_key().clone());
//! one.append(&thread, runs, vec![]).await?;
//!
//! // Another node was told which thread it is to serve, and has nothing of it.
//! let other = SegmentStore::new(shared, [3; 32], [4; 32]);
//! let thread = SharedThread::named(band.id(), band.service_key().clone());
//! let mut records = 0;
//! let loaded = other
//!     .load(&thread, &Default::default(), |segment| {
//!         records += segment.runs().iter().map(|run| run.span().last).sum::<u64>();
//!     })
//!     .await?;
//! assert_eq!(records, 1);
//! assert_eq!(loaded.heads.head(&log).map(|head| head.seq), Some(1));
//! # Ok::<(), SharedError>(()) }).unwrap();
//! ```
//!
//! # What it promises
//!
//! - What [`SegmentStore::append`] acknowledged is durable, and named by the heads that every later
//!   read sees. A segment is durable before heads name it, and heads are replaced only by who knows
//!   their newest version, so nodes never lose each other's records.
//! - Appending again does no harm: what is there is not stored twice, also if the first time somebody
//!   crashed, lost the answer, or two nodes brought the same records at once.
//! - Whatever comes back is bounded, and verified before it is handed on. One object that is damaged
//!   is told, and keeps none of the others back.
//! - Nothing is deleted that is or will be named, however slow a node is; see
//!   [`leno_threads_core::segment`].
//!
//! # What it does not promise
//!
//! - Freshness: a storage that lies may show an older state. A node that has seen a newer one says so
//!   ([`SharedError::RolledBack`]); one that starts anew cannot know.
//! - Secrecy of how much is written and when. Which thread it is, who writes, and what, is sealed.
//! - A folder serves the processes of one machine, on a file system with locks.
//!
//! # Features
//!
//! - `files` (default): [`Objects::folder`]. Needs tokio.
//! - `s3`: `Objects::s3`. Needs tokio; brings along an HTTP client with TLS.
//!
//! # Index
//!
//! [`Objects`] is both ports on an object store, [`SegmentStore`] what nodes do with the one of
//! segments. [`object_store`] is re-exported for those who bring their own.

mod error;
#[cfg(feature = "files")]
mod files;
mod objects;
mod page;
mod segments;

pub use object_store;
pub use objects::Objects;
pub use segments::{Appended, Limits, Loaded, Reading, SegmentStore, SharedError};

//! Collections of documents on leno threads, without I/O.
//!
//! ```
//! use ipld_core::ipld;
//! use leno_crdt_codec::{LogId, Stamp};
//! use leno_threads_core::store::{MemoryStore, Store};
//! use leno_threads_core::thread::Appended;
//! use leno_threads_core::{OpRef, RecordId};
//! use leno_threads_db::{Documents, Transaction};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//! # let (alice, log) = (OpRef { record: RecordId([1; 32]), op: 0 }, LogId([2; 32]));
//!
//! let store = MemoryStore::new();
//! let view = store.view()?;
//! let mut documents = Documents::load(&*view, 0)?;
//!
//! // Writes are staged in a transaction, which reads them already.
//! let mut transaction = Transaction::new(alice, Some(log), 1_700_000_000_000);
//! let mut writer = documents.writer(&*view, &mut transaction, &mut rng);
//! let id = writer.put("songs", None, &ipld!({"title": "Blue", "plays": 1}))?.id;
//! writer.patch("songs", &id, &ipld!({"plays": 2}))?;
//!
//! // `Thread::append` seals its body as one record and tells where that stands.
//! let body = transaction.to_body().expect("there is something to write");
//! let appended = Appended { log, seq: 1, stamp: Stamp(7) };
//! documents.commit(&*view, transaction, &appended)?;
//! let song = documents.get(&*view, "songs", &id)?.expect("it was put");
//! assert_eq!(song.value, ipld!({"title": "Blue", "plays": 2}));
//! # assert_eq!(body[..8], *b"\x81\x82\x65songs");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ideas, in the order a reader needs them
//!
//! 1. **A document is what its ops add up to**, whatever their order: JSON state commutes. [`Documents`]
//!    holds the documents of one thread and folds each record into them as it comes.
//! 2. **A record is a transaction.** A [`Writer`] stages puts, patches, deletes and [`FieldEdit`]s in a
//!    [`Transaction`]; its body becomes one record, which counts as a whole or not at all.
//! 3. **Documents are a cache over rows.** What was folded is kept in memory until
//!    [`Documents::flush`] writes it, together with how far each log is folded; what a crash loses is
//!    replayed from the records. The contract of that is in the documentation of [`Documents`].
//! 4. **A [`Definition`] says how fields come together** and travels as a fact of the roster. It
//!    decides what is written and shown, never what the state is.
//! 5. **Nobody creates a document under an id of another member**: [`new_id`] makes ids of the author's
//!    number and a nonce, which the create shows. Natural ids are anybody's.
//! 6. **What cannot be folded is told**, as an [`Event`], and harms nothing else.
//!
//! The crate does no I/O and owns no clock, randomness, threads or logging: views, times and
//! generators are arguments. It has no features.
//!
//! # Modules
//!
//! All names are at the root. They come from `documents` (folding, folding again, flushing, reading), `transaction`
//! (writing), `definition`, `event`, `error`, `id` (ids of documents), `key` (names of collections and
//! keys of rows), `body` (the bytes of a record), `reduced` (the bytes of a row), `cursor` (which
//! records are folded) and `cache` (what is in memory).

mod body;
mod cache;
mod cursor;
mod definition;
mod documents;
mod error;
mod event;
mod id;
mod key;
mod reduced;
mod transaction;

pub use body::{BODY_COLLECTIONS_MAX, BODY_OPS_MAX, SkipReason};
pub use cache::Flushed;
pub use cursor::GAPS_MAX;
pub use definition::{COLLECTION_FACT_PREFIX, Definition, DefinitionError};
pub use documents::{CACHE_BYTES_DEFAULT, Document, Documents, FLUSH_BYTES, FLUSH_OPS, Refold};
pub use error::DbError;
pub use event::{EVENTS_MAX, Event, VoidReason};
pub use id::{is_of_member, new_id};
pub use key::{COLLECTION_BYTES_MAX, is_collection_name};
pub use leno_crdt_codec::json::{
    Conflict, Definition as Strategies, DocumentId, Strategy, ValueError,
};
pub use transaction::{FieldChange, FieldEdit, Transaction, Writer, Written};

//! Collections of documents on leno threads, without I/O.

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
pub use documents::{CACHE_BYTES_DEFAULT, Document, Documents, FLUSH_BYTES, FLUSH_OPS};
pub use error::DbError;
pub use event::{EVENTS_MAX, Event, VoidReason};
pub use id::{is_of_member, new_id};
pub use key::{COLLECTION_BYTES_MAX, is_collection_name};
pub use leno_crdt_codec::json::{
    Conflict, Definition as Strategies, DocumentId, Strategy, ValueError,
};
pub use transaction::{FieldChange, FieldEdit, Transaction, Writer, Written};

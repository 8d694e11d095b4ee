//! Local-first threads and documents: encrypted, signed, and the same on every peer.
//!
//! ```
//! use leno::{Peer, Role};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
//! struct Song {
//!     title: String,
//!     plays: u32,
//! }
//!
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), leno::Error> {
//! // In memory and without a network; `Peer::open("folder")` has both.
//! let peer = Peer::builder().start().await?;
//! let band = peer.create_thread("band").await?;
//! let songs = band.collection::<Song>("songs");
//! let id = songs.insert(&Song { title: "Psalm 1".to_owned(), plays: 0 }).await?;
//! songs.update(&id, |song| song.plays += 1).await?;
//! assert_eq!(songs.get(&id).await?.map(|song| song.plays), Some(1));
//! # peer.close().await
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! # Ideas
//!
//! 1. A [`Peer`] is a running instance: a store, a device's keys, perhaps a network. It works
//!    offline, and syncs when it can.
//! 2. A [`Thread`] is a set of logs, one per writing device, that share an id and keys. Who may do
//!    what in it is granted: [`Thread::grant`] gives a [`Role`] to the seat of a [`Card`], and the
//!    [`Ticket`] that it returns lets that peer in.
//! 3. A [`Collection`] holds documents of one type. Concurrent edits merge field by field, as its
//!    [`Definition`] says; values that lost are kept as conflicts.
//! 4. What was acknowledged is durable, and nothing leaves the machine before it is.
//! 5. Peers that never meet level by [bundles](bundle): [`Thread::export`] makes a file, [`Peer::import`]
//!    takes it in.
//! 6. [Signals](Thread::signal) say what counts now and rests nowhere: who is here, where a cursor is.
//! 7. The [`Driver`] is one future over ports: a [`Store`](store::Store), a
//!    [`Transport`](transport::Transport), a [`Clock`]. Bring your own, or take the defaults.
//!
//! # Features
//!
//! - `redb` (default): [`Redb`], the store in one file; [`Peer::folder`].
//! - `libp2p` (default): [`Libp2p`], the network; [`Builder::listen`].
//! - `ws`: `Ws`, web sockets, beside libp2p or alone; `Builder::listen_ws`.
//! - `tokio` (default): [`Builder::start`] spawns the driver; [`SystemClock`].
//! - `shared`: `Shared`, threads on an object store that several peers share; `Peer::shared`. `s3`:
//!   Amazon S3 and what speaks like it.
//!
//! Without features the crate is pure logic on the memory store, for any executor.

mod builder;
mod bundles;
mod clock;
mod collection;
mod convert;
mod driver;
mod error;
mod event;
mod generation;
mod govern;
mod member;
mod peer;
mod queue;
mod rendezvous;
mod replicate;
#[cfg(feature = "shared")]
mod shared;
mod signal;
mod text;
mod thread;
mod watch;
mod work;

pub use builder::Builder;
#[cfg(feature = "tokio")]
pub use clock::SystemClock;
pub use clock::{Clock, ManualClock};
pub use collection::Collection;
pub use convert::{from_ipld, to_ipld};
pub use driver::{Driver, SyncReport, Traffic};
pub use error::Error;
pub use event::{EVENTS_MAX, Event, Events};
#[cfg(feature = "redb")]
pub use generation::FileGeneration;
pub use generation::Generation;
pub use ipld_core::ipld::Ipld;
pub use leno_crdt_codec::json::{Conflict, Definition as Fields, DocumentId, Strategy};
pub use leno_identity as identity;
#[cfg(feature = "shared")]
pub use leno_store_object::{Objects, SharedError};
#[cfg(feature = "redb")]
pub use leno_store_redb::Redb;
pub use leno_threads_core::store;
pub use leno_threads_core::sync::bundle;
pub use leno_threads_core::sync::{SIGNAL_VALUE_BYTES_MAX, SPREAD_DEGREE, SignalError, SyncError};
pub use leno_threads_core::thread::Quota;
pub use leno_threads_core::{Padding, Role, SeatId, Suite, ThreadId};
pub use leno_threads_db::{Definition, FieldChange, FieldEdit};
#[cfg(feature = "libp2p")]
pub use leno_transport_libp2p::{Builder as Libp2pBuilder, Libp2p};
pub use leno_transport_trait as transport;
pub use leno_transport_trait::{Address, PeerId};
#[cfg(feature = "ws")]
pub use leno_transport_ws::{Builder as WsBuilder, ListenError as WsListenError, Ws};
pub use peer::Peer;
pub use replicate::Unsent;
#[cfg(feature = "shared")]
pub use shared::{Loaded, Saved, Shared};
pub use signal::{Presence, Signal, Signals};
pub use text::{Card, NAME_BYTES_MAX, TEXT_BYTES_MAX, TextError, Ticket};
pub use thread::{Member, Thread, ThreadStatus, Transaction};
pub use watch::{CHANGES_MAX, Change, Watch};

/// What governance says: ops, what they would do, and what became of them.
pub mod governance {
    pub use leno_threads_core::acl::VoidReason;
    pub use leno_threads_core::thread::{AuditedOp, Explained, Quarantine, Verdict};
    pub use leno_threads_core::{
        DeviceOp, EpochOp, FrameOp, GrantOp, OpenOp, RecordRef, RemoveOp, Scope, Stamp,
    };
}

/// Compiles the examples of the page that people see first.
#[cfg(all(doctest, feature = "redb", feature = "libp2p"))]
#[doc = include_str!("../README.md")]
mod readme {}

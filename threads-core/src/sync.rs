//! Sync: all threads of a peer, and a session with each peer that it is connected to.
//!
//! [`Replica`] does no I/O. Its contract, in four steps:
//!
//! 1. Tell it what happens: [`Replica::connected`], [`Replica::handle_message`],
//!    [`Replica::disconnected`], [`Replica::handle_timeout`], and local writes through
//!    [`Replica::thread_mut`] followed by [`Replica::touched`].
//! 2. Commit the [`Changes`] of the step.
//! 3. Only then ask [`Replica::poll_message`] for each peer that has room, with a view taken after
//!    the commit, and send what it returns; until it returns nothing.
//! 4. Call [`Replica::handle_timeout`] at [`Replica::poll_timeout`].
//!
//! Nothing polls per thread: a session looks only at threads that changed.
//!
//! [`Changes`]: crate::thread::Changes

mod error;
mod message;
mod offer;
mod refusal;
mod replica;
mod send;
mod session;
mod slot;
mod step;

pub use error::SyncError;
pub use message::{
    AckLog, EPOCHS_MAX, HaveLog, LOGS_MAX, LogName, Message, RANGE_BYTES, SHORT_HASH_BYTES,
    SYNC_MESSAGE_BYTES_MAX, SYNC_VERSION, TAGS_MAX, Tag, WRAPS_MAX,
};
pub use replica::{Level, Progress, Replica, ReplicaSink};
pub use slot::{Joining, Slot};

/// A peer: the Ed25519 key of its device, proven by the transport.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerKey(pub [u8; 32]);

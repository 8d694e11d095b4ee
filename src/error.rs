//! What the facade says when something does not go as asked.

use leno_identity::{ClaimError, IssueError, KeyError};
use leno_threads_core::store::StoreError;
use leno_threads_core::sync::SignalError;
use leno_threads_core::sync::bundle::BundleError;
use leno_threads_core::thread::AppendError;
use leno_threads_core::{SeatId, ThreadId};
use leno_threads_db::DbError;
use leno_transport_trait::TransportError;

use crate::text::TextError;

/// Why something did not go as asked. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer was closed, or its driver was dropped.
    #[error("the peer is closed")]
    Closed,
    /// The peer is paused; resume it first.
    #[error("the peer is paused")]
    Paused,
    /// The store failed, and what was asked for is not known to be durable. If it failed while the
    /// peer wrote, the peer has ended: open it again, what was acknowledged is there.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The network failed.
    #[error("the network failed")]
    Transport(#[from] TransportError),
    /// The peer has no network; give the builder a transport.
    #[error("the peer has no network")]
    NoTransport,
    /// The transport was made with the keys of another device.
    #[error("the transport is bound to another device's key")]
    TransportOfAnotherDevice,
    /// There is no such thread here; join or create it first.
    #[error("there is no thread {0} here")]
    NoSuchThread(ThreadId),
    /// The thread's first sync has not come, or not as far as the grant that the ticket names, or as a key
    /// to read with; sync with a member or replicator.
    #[error("thread {0} was not synced yet")]
    NotSyncedYet(ThreadId),
    /// The record could not be written.
    #[error("the write was refused")]
    Append(#[from] AppendError),
    /// The document could not be read or written.
    #[error("the document was refused")]
    Db(#[from] DbError),
    /// This seat may not read the thread, so there is nothing to show; it carries it for others.
    #[error("this seat may not read the thread")]
    MayNotRead,
    /// This data was restored from a copy: sync once, so that nothing is signed twice, then write.
    /// If there is nobody to sync with, see [`Thread::assume_newest`](crate::Thread::assume_newest).
    #[error("this data was restored from a copy; sync before writing")]
    Restored,
    /// The value has no form as a document: documents are maps of JSON-like values.
    #[error("the value has no form as a document: {reason}")]
    NotADocument {
        /// What is wrong with it.
        reason: String,
    },
    /// The document does not have the form of this type.
    #[error("the document has another form than the type: {reason}")]
    OtherForm {
        /// What is wrong with it.
        reason: String,
    },
    /// A ticket or card does not read.
    #[error("the text was refused")]
    Text(#[from] TextError),
    /// The ticket is for the card of another peer, or was used already.
    #[error("the ticket is not for a card of this peer")]
    TicketOfAnother,
    /// A bundle could not be made or taken in. What came before the part in question stays.
    #[error("the bundle was refused")]
    Bundle(#[from] BundleError),
    /// The signal was not sent.
    #[error("the signal was not sent")]
    Signal(#[from] SignalError),
    /// Keys of signals that begin with `leno/` are the peer's own.
    #[error("keys of signals that begin with leno/ are reserved")]
    ReservedKey,
    /// The definition would not count: give it a version above the known one, counting up from 1.
    #[error("version {version} of the definition does not count beside version {known}")]
    OldVersion {
        /// The version that was to be stated.
        version: u64,
        /// The version that counts, 0 if there is none.
        known: u64,
    },
    /// This peer's role does not reach for what was asked of governance.
    #[error("this seat's role does not reach for it")]
    MayNotGrant,
    /// The seat has no rights in this thread.
    #[error("seat {0} has no role in this thread")]
    NoSuchMember(SeatId),
    /// The member does not rank below this peer: owners end the rights of admins, and those more senior the
    /// rights of owners.
    #[error("seat {0} does not rank below this peer")]
    Outranked(SeatId),
    /// Nobody else is an owner: make somebody one first.
    #[error("this is the only owner")]
    LastOwner,
    /// The seat has no role but that of replicator to be removed from, or not even that.
    #[error("seat {0} is no replicator of this thread")]
    NotAReplicator(SeatId),
    /// Records of this peer are kept by no other one: sync first, or discard them.
    #[error("{records} records of this peer are kept by nobody else")]
    Unsent {
        /// How many.
        records: u64,
    },
    /// No key could be made: the source of randomness is broken.
    #[error("no key could be made")]
    Key(#[from] KeyError),
    /// The device could not be certified by the identity.
    #[error("the identity did not certify the device")]
    Issue(#[from] IssueError),
    /// A claim about the device is not acceptable.
    #[error("the device's claim is not acceptable")]
    Claim(#[from] ClaimError),
    /// There is no clock; give the builder one.
    #[error("there is no clock")]
    NoClock,
    /// The network could not be set up.
    #[cfg(feature = "libp2p")]
    #[error("the network could not be set up")]
    Listen(#[from] leno_transport_libp2p::ListenError),
    /// The web sockets could not be set up.
    #[cfg(feature = "ws")]
    #[error("the web sockets could not be set up")]
    ListenWs(#[from] leno_transport_ws::ListenError),
    /// The store that peers share did not do as asked.
    #[cfg(feature = "shared")]
    #[error("the shared store did not do as asked")]
    Shared(#[from] leno_store_object::SharedError),
    /// The shared store's heads do not begin with the thread's genesis.
    #[cfg(feature = "shared")]
    #[error("what the shared store holds is not thread {0}")]
    OtherGenesis(ThreadId),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    NoRandomness(String),
    /// A file beside the store could not be read or written.
    #[error("a file of the peer could not be used")]
    File(#[source] std::sync::Arc<std::io::Error>),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::File(std::sync::Arc::new(error))
    }
}

impl Error {
    /// Tells whether trying again later can help without anybody changing anything.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        #[cfg(feature = "shared")]
        if let Self::Shared(error) = self {
            use leno_store_object::SharedError;
            return matches!(error, SharedError::Store(_) | SharedError::Busy { .. });
        }
        matches!(
            self,
            Self::Transport(_) | Self::NotSyncedYet(_) | Self::Restored
        ) || matches!(
            self,
            Self::Append(AppendError::NoKey { .. })
                | Self::Signal(SignalError::NoKey | SignalError::TooFast { .. })
        )
    }
}

//! What goes wrong in a session, and whose fault it is.

use leno_crdt_codec::LogId;

use super::PeerKey;
use crate::store::StoreError;
use crate::thread::{ReceiveError, TakeWrapError};
use crate::{SeatId, ThreadId, VerifyError};

/// Why something that a peer sent is not taken in. Names the peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The message does not decode. The session is over.
    #[error("peer {} sent a message that does not decode", short(.peer))]
    Malformed {
        /// Who.
        peer: PeerKey,
        /// Why not.
        #[source]
        source: VerifyError,
    },
    /// The message comes out of turn, or names what was never named. The session is over.
    #[error("peer {} sent {what} out of turn", short(.peer))]
    OutOfTurn {
        /// Who.
        peer: PeerKey,
        /// Which message.
        what: &'static str,
    },
    /// The peer asks for more than it may. The session is over.
    #[error("peer {} sends {what} beyond the limit", short(.peer))]
    TooMany {
        /// Who.
        peer: PeerKey,
        /// What.
        what: &'static str,
    },
    /// The peer names more logs that are not open here than it may. No more ranges of this thread are
    /// taken from it in this session; other threads go on.
    #[error("peer {} names too many logs that are not open here", short(.peer))]
    TooManyLogs {
        /// Who.
        peer: PeerKey,
        /// The thread.
        thread: ThreadId,
    },
    /// The signature of a seat does not hold. The session is over.
    #[error("peer {} does not hold seat {seat}", short(.peer))]
    NotProven {
        /// Who.
        peer: PeerKey,
        /// The seat that it claimed.
        seat: SeatId,
    },
    /// A range is refused; other logs go on.
    ///
    /// A range that is here already is no error: it is passed over and acknowledged, so that a replay
    /// changes nothing.
    #[error("a range from peer {} is refused", short(.peer))]
    Range {
        /// Who sent it.
        peer: PeerKey,
        /// The thread.
        thread: ThreadId,
        /// Why.
        #[source]
        source: ReceiveError,
    },
    /// A key wrap is refused; others go on.
    #[error("a key wrap from peer {} is refused", short(.peer))]
    Wrap {
        /// Who sent it.
        peer: PeerKey,
        /// The thread.
        thread: ThreadId,
        /// Why.
        #[source]
        source: TakeWrapError,
    },
    /// A signal that its seat did not sign, or did not seal as it says. Others go on.
    #[error("a signal of seat {seat} from peer {} is refused", short(.peer))]
    Signal {
        /// Who sent it.
        peer: PeerKey,
        /// The thread.
        thread: ThreadId,
        /// Whose it claims to be.
        seat: SeatId,
    },
    /// A peer that was asked for its branch of a log has none that differs: what it sent before was
    /// made up. Nothing more of this log is taken from it.
    #[error("peer {} sent records of log {log} that its log does not have", short(.peer))]
    NoBranch {
        /// Who.
        peer: PeerKey,
        /// The thread.
        thread: ThreadId,
        /// The log.
        log: LogId,
    },
    /// The genesis of a thread is not what its id is the hash of.
    #[error("peer {} sent a genesis that is not the thread's", short(.peer))]
    WrongGenesis {
        /// Who.
        peer: PeerKey,
    },
    /// The store failed; nobody's fault but the machine's.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

fn short(peer: &PeerKey) -> LogId {
    LogId(peer.0)
}

impl SyncError {
    /// Tells whether the session ends: the caller hangs up.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::OutOfTurn { .. }
            | Self::TooMany { .. }
            | Self::NotProven { .. }
            | Self::WrongGenesis { .. } => true,
            Self::TooManyLogs { .. }
            | Self::Range { .. }
            | Self::Wrap { .. }
            | Self::Signal { .. }
            | Self::NoBranch { .. }
            | Self::Store(_) => false,
        }
    }
}

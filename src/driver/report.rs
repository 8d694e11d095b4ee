//! Whom the driver answers later: callers who wait to be level, and what it tells them.

use std::collections::BTreeSet;

use futures_channel::oneshot;
use leno_transport_trait::PeerId;

/// What [`Peer::sync_once`](crate::Peer::sync_once) came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SyncReport {
    /// Peers with which every shared thread is level: each has what the other had, and keeps it.
    pub level: BTreeSet<PeerId>,
    /// Peers with which something was still to be told when the time was up.
    pub behind: BTreeSet<PeerId>,
}

impl SyncReport {
    /// Tells whether at least one peer was there and all were level in time.
    ///
    /// # Examples
    ///
    /// ```
    /// use leno::{PeerId, SyncReport};
    ///
    /// let mut report = SyncReport::default();
    /// assert!(!report.is_complete(), "nobody was there");
    /// report.level.insert(PeerId([1; 32]));
    /// assert!(report.is_complete());
    /// report.behind.insert(PeerId([2; 32]));
    /// assert!(!report.is_complete());
    /// ```
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.level.is_empty() && self.behind.is_empty()
    }
}

/// Bytes of messages to and from peers since the peer was started, without the transport's framing.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// `sent / received`.
impl std::fmt::Display for Traffic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} / {}", self.sent, self.received)
    }
}

/// Who waits to be level, and until when.
pub(super) struct Waiter {
    pub(super) until_millis: u64,
    pub(super) reply: oneshot::Sender<SyncReport>,
}

use std::fmt;

use thiserror::Error;

use crate::{Address, LinkId, PeerId};

/// What a transport reports through [`Transport::next`](crate::Transport::next).
///
/// For every link the reports come in this order: one `Connected`, any number of `Message`, one
/// `Disconnected`; after that its [`LinkId`] is never seen again.
#[derive(Clone, Eq, PartialEq)]
pub enum Event {
    /// A link to `peer` is live, whoever dialled.
    Connected {
        /// The device at the other end, its key proven.
        peer: PeerId,
        /// The new link.
        link: LinkId,
    },
    /// The link is over; what was not received by now never will be.
    Disconnected {
        /// The device that was at the other end.
        peer: PeerId,
        /// The link that `Connected` named.
        link: LinkId,
        /// Why it is over.
        reason: DisconnectReason,
    },
    /// A message came in.
    Message {
        /// The device that sent it.
        from: PeerId,
        /// The link on which it came.
        link: LinkId,
        /// The message, 0 to [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX) bytes.
        bytes: Vec<u8>,
    },
    /// Somebody says, unasked, that a device is reachable at an address: on the local network, for
    /// instance.
    ///
    /// It concerns no link, and nobody has proven anything: who dials the address finds out who is
    /// there. A transport reports it only where it was asked to look around, and dials nobody for it.
    Discovered {
        /// The device that is said to be there.
        peer: PeerId,
        /// Where; it names the device.
        address: Address,
    },
}

impl fmt::Debug for Event {
    /// Writes the length of a message in place of its bytes, which may be a megabyte.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { peer, link } => f
                .debug_struct("Connected")
                .field("peer", peer)
                .field("link", link)
                .finish(),
            Self::Disconnected { peer, link, reason } => f
                .debug_struct("Disconnected")
                .field("peer", peer)
                .field("link", link)
                .field("reason", reason)
                .finish(),
            Self::Message { from, link, bytes } => f
                .debug_struct("Message")
                .field("from", from)
                .field("link", link)
                .field("len", &bytes.len())
                .finish(),
            Self::Discovered { peer, address } => f
                .debug_struct("Discovered")
                .field("peer", peer)
                .field("address", address)
                .finish(),
        }
    }
}

/// Why a link ended.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// This side called [`hang_up`](crate::Transport::hang_up).
    #[error("hung up by this side")]
    HungUp,
    /// The other side called [`hang_up`](crate::Transport::hang_up).
    #[error("hung up by the peer")]
    PeerHungUp,
    /// The other side closed its endpoint in good order.
    #[error("the peer closed its endpoint")]
    PeerClosed,
    /// The connection broke, or the peer stopped answering.
    #[error("the connection was lost: {detail}")]
    Lost {
        /// What the network said.
        detail: String,
    },
    /// The peer took nothing, or did not finish a message that it had begun, for too long.
    #[error("the peer made no progress for {millis} ms")]
    Stalled {
        /// The bound that was passed, in milliseconds.
        millis: u64,
    },
    /// The peer announced a message above the limit; none of it was stored.
    #[error("the peer announced a message of {len} bytes, more than {max}")]
    MessageTooLarge {
        /// The announced length in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The peer ended its stream within a message.
    #[error("the peer ended its stream within a message: {had} of {needed} bytes")]
    Truncated {
        /// The bytes that the message, or its length, needed.
        needed: u64,
        /// The bytes that came.
        had: u64,
    },
    /// The peer sent what the protocol does not have.
    #[error("the peer broke the protocol: {detail}")]
    Misbehaved {
        /// What it sent.
        detail: String,
    },
    /// The peer began anew on another connection, so this one is void.
    #[error("replaced by a newer connection of the same peer")]
    Replaced,
}

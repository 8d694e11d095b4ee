use thiserror::Error;

use crate::{Address, LinkId, PeerId};

/// Why a [`Transport`](crate::Transport) did not do what it was asked.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TransportError {
    /// The caller's mistake: the message is above the limit. Nothing was sent; split it.
    #[error("message has {len} bytes, more than {max}")]
    MessageTooLarge {
        /// The length of the refused message in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The caller's mistake: this transport cannot read the address. Nothing was dialled.
    #[error("address {address} is not understood: {detail}")]
    AddressNotUnderstood {
        /// The refused address.
        address: Address,
        /// What is wrong with it.
        detail: String,
    },
    /// The caller's mistake: the address is this endpoint's own.
    #[error("address {address} is this endpoint itself")]
    DialledSelf {
        /// The refused address.
        address: Address,
    },
    /// The caller's mistake: the endpoint was closed.
    #[error("the endpoint is closed")]
    Closed,
    /// The link ended, perhaps while waiting for room, or there never was one. Nothing was sent: what
    /// was meant for this link may mean nothing on the next.
    #[error("link {link} is over")]
    LinkOver {
        /// The link that was named.
        link: LinkId,
    },
    /// Nobody could be reached there, now; trying later may help.
    #[error("{address} cannot be reached: {detail}")]
    Unreachable {
        /// The dialled address.
        address: Address,
        /// What the network said.
        detail: String,
    },
    /// Another device than the address names answered there; the connection was dropped.
    #[error("expected {expected}, but {found} answered")]
    WrongIdentity {
        /// The device that the address names.
        expected: PeerId,
        /// The device that proved its key.
        found: PeerId,
    },
    /// The device that answered has no Ed25519 key, so it has no [`PeerId`].
    #[error("{address} is answered by a device without an Ed25519 key")]
    KeyTypeNotSupported {
        /// The dialled address.
        address: Address,
    },
    /// A limit of this endpoint forbids one more connection; hang up on somebody first.
    #[error("no more connections are allowed: {detail}")]
    TooManyConnections {
        /// Which limit.
        detail: String,
    },
}

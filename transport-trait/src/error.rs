use thiserror::Error;

use crate::{Address, PeerId};

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
    /// No link to the peer is live, or it ended while waiting. Dial, then try again.
    #[error("not connected to {peer}")]
    NotConnected {
        /// The peer without a link.
        peer: PeerId,
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

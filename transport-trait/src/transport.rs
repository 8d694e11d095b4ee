use std::sync::Arc;

use async_trait::async_trait;

use crate::{Address, Event, LinkId, PeerId, TransportError};

/// The longest message in bytes: a batch of 1 MiB and 64 KiB for what is around it.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// One endpoint of a network: it dials, sends, and reports what happens.
///
/// # Contract
///
/// 1. A [`PeerId`] comes out of a transport only after its key was proven.
/// 2. A peer has at most one live link. If two sides dial at once, both report the same one
///    connection; the other is closed without a word.
/// 3. Messages of one link arrive in the order in which their `send` calls were made, at most once,
///    without a gap. When a link ends, the messages not yet received are gone: none of them, nor one
///    that still waited for room, ever leaves or arrives on another link.
/// 4. Every queue is bounded, in bytes. A full queue makes [`send`](Self::send) wait; a peer that
///    takes nothing for longer than the stall bound (30 s unless configured) loses the link.
/// 5. Messages are received only as fast as [`next`](Self::next) is called. If nobody calls it,
///    links may end as stalled.
/// 6. An implementation may dial again by itself when a link it dialled was lost, until
///    [`hang_up`](Self::hang_up), from either side, or [`close`](Self::close); it then reports
///    `Connected` with a new [`LinkId`]. It never dials an address that it was not given.
/// 7. Dropping the endpoint ends everything that it started.
///
/// All methods may be called from many tasks at once. The checks in `testing` (feature `test-util`)
/// hold an implementation to these clauses.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait Transport: Send + Sync {
    /// Returns the identity that this endpoint proves to others.
    fn local(&self) -> PeerId;

    /// Lists where others can dial this endpoint now; empty if nowhere, or after [`close`](Self::close).
    ///
    /// What is most likely to lead here from elsewhere comes first: whoever passes on only a few takes
    /// the first ones. The list changes as network interfaces come and go. Each entry names this endpoint's identity
    /// where the address format allows it.
    fn addresses(&self) -> Vec<Address>;

    /// Reads from an address which device it leads to; `None` if it does not say so, or is not understood.
    ///
    /// Nothing is dialled. By default nothing is read.
    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        let _ = address;
        None
    }

    /// Connects to whoever is at the address and returns who that is.
    ///
    /// Resolves when the link is live, at once if it already was. Idempotent. Dropping the future
    /// gives up waiting; the link may come about all the same, and is then reported.
    ///
    /// # Errors
    ///
    /// - [`TransportError::AddressNotUnderstood`], [`TransportError::DialledSelf`]: the address.
    /// - [`TransportError::Unreachable`]: nobody answered there, or not in our protocol.
    /// - [`TransportError::WrongIdentity`], [`TransportError::KeyTypeNotSupported`]: who answered.
    /// - [`TransportError::TooManyConnections`]: a limit of this endpoint.
    /// - [`TransportError::Closed`] after `close`.
    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError>;

    /// Hands a message over for sending on a link, as soon as there is room for it.
    ///
    /// A link is named, not a peer: a message belongs to what was said before it on its link.
    ///
    /// `Ok` means queued, not delivered. An empty message is a message. Cancel-safe: a future dropped
    /// before it resolved sent nothing. Not idempotent. Two calls are ordered if the second began
    /// after the first resolved.
    ///
    /// # Errors
    ///
    /// - [`TransportError::MessageTooLarge`] above [`MESSAGE_BYTES_MAX`]; the link is unharmed.
    /// - [`TransportError::LinkOver`] if the link is not live, or ended while waiting for room.
    /// - [`TransportError::Closed`] after `close`.
    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError>;

    /// Waits for the next event; `None` once the endpoint is closed.
    ///
    /// Cancel-safe: a future dropped before it resolved consumed nothing. Each event is given to one
    /// caller. After [`close`](Self::close) events still queued are dropped, and the answer is `None`
    /// for good.
    async fn next(&self) -> Option<Event>;

    /// Ends the link to the peer, or a dial under way, and any wish to have it back.
    ///
    /// When it returns, the end is queued for [`next`](Self::next) with
    /// [`HungUp`](crate::DisconnectReason::HungUp), and `send` refuses. The other side receives what
    /// was sent before if it keeps reading, then
    /// [`PeerHungUp`](crate::DisconnectReason::PeerHungUp). Idempotent.
    async fn hang_up(&self, peer: PeerId);

    /// Ends every link, stops listening and makes [`next`](Self::next) return `None`.
    ///
    /// An implementation may take a bounded while to let queued messages out first. Idempotent.
    async fn close(&self);
}

/// For those who keep a handle of a transport of their own beside the peer that talks through it.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn local(&self) -> PeerId {
        (**self).local()
    }

    fn addresses(&self) -> Vec<Address> {
        (**self).addresses()
    }

    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        (**self).peer_of(address)
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        (**self).dial(address).await
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        (**self).send(link, message).await
    }

    async fn next(&self) -> Option<Event> {
        (**self).next().await
    }

    async fn hang_up(&self, peer: PeerId) {
        (**self).hang_up(peer).await;
    }

    async fn close(&self) {
        (**self).close().await;
    }
}

//! Being reached through a relay: another endpoint that passes connections on.
//!
//! A relay is dialled like any peer, and kept; whenever there is a link to it, a place there is asked
//! for. So a relay that was restarted is found again, and one on whom this side hung up is left alone
//! until it is dialled.

use std::ops::RangeInclusive;
use std::time::Duration;

use leno_transport_trait::{Backoff, PeerId};
use libp2p::Multiaddr;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use tokio::time::Instant;

use crate::peer::from_libp2p;

/// A relay through which this endpoint wants to be reached.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) peer: PeerId,
    /// Where the relay itself is dialled.
    pub(crate) place: Multiaddr,
    /// What is listened on: the place, the relay's name, and `/p2p-circuit`.
    pub(crate) circuit: Multiaddr,
    /// The listener, while there is one.
    pub(crate) listener: Option<ListenerId>,
    /// Whether others can come by it now.
    pub(crate) is_up: bool,
    backoff: Backoff,
    /// When to ask again, the link being there.
    pub(crate) due: Option<Instant>,
}

impl Relay {
    /// Reads `<place>/p2p/<relay>/p2p-circuit`; `None` if it is an address of another kind.
    pub(crate) fn read(address: &Multiaddr) -> Option<Result<Self, &'static str>> {
        let mut place = address.clone();
        if place.pop() != Some(Protocol::P2pCircuit) {
            return None;
        }
        let Some(Protocol::P2p(peer)) = place.pop() else {
            return Some(Err("before /p2p-circuit it does not name the relay"));
        };
        let Some(peer) = from_libp2p(&peer) else {
            return Some(Err("the relay named has no Ed25519 key"));
        };
        Some(Ok(Self {
            peer,
            place,
            circuit: address.clone(),
            listener: None,
            is_up: false,
            backoff: Backoff::default(),
            due: None,
        }))
    }

    /// The relay gives no place any more, or gave none.
    pub(crate) fn is_down(&mut self, waits: &RangeInclusive<Duration>) {
        (self.listener, self.is_up) = (None, false);
        // Without randomness all wait alike, which is no reason not to ask.
        let random = getrandom::u32().unwrap_or(0);
        self.due = Some(Instant::now() + self.backoff.next(waits, random));
    }

    /// The relay gave a place.
    pub(crate) fn is_up(&mut self) {
        self.is_up = true;
        self.backoff = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

    fn read(text: &str) -> Option<Result<Relay, &'static str>> {
        Relay::read(&text.parse().unwrap())
    }

    #[test]
    fn addresses_of_relays_are_told_from_others() {
        assert!(read("/ip4/127.0.0.1/tcp/1").is_none());
        assert!(read(&format!("/ip4/127.0.0.1/tcp/1/p2p/{RELAY}")).is_none());
        let relay = read(&format!("/ip4/127.0.0.1/tcp/1/p2p/{RELAY}/p2p-circuit"));
        let relay = relay.unwrap().unwrap();
        assert_eq!(relay.place, "/ip4/127.0.0.1/tcp/1".parse().unwrap());
        assert_eq!(Some(relay.peer), from_libp2p(&RELAY.parse().unwrap()));
        assert!(read("/ip4/127.0.0.1/tcp/1/p2p-circuit").unwrap().is_err());
    }
}

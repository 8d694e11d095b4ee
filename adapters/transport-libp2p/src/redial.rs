//! When to dial a lost peer again.

use std::ops::RangeInclusive;
use std::time::Duration;

use leno_transport_trait::Backoff;
use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// How many addresses of one peer are dialled again.
const ADDRESSES_PER_PEER_MAX: usize = 8;

/// A peer that this side dialled and wants to keep.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Where it was reached, the last one first.
    pub(crate) places: Vec<Multiaddr>,
    backoff: Backoff,
    /// When its link came up.
    up: Option<Instant>,
    /// When to dial it again.
    pub(crate) due: Option<Instant>,
    /// The connection that is being made for that.
    pub(crate) dialling: Option<ConnectionId>,
}

impl Wanted {
    /// Remembers where the peer was reached.
    pub(crate) fn remember(&mut self, place: Multiaddr) {
        self.places.retain(|it| *it != place);
        self.places.insert(0, place);
        self.places.truncate(ADDRESSES_PER_PEER_MAX);
        self.up.get_or_insert_with(Instant::now);
    }

    /// The peer has a link.
    pub(crate) fn is_up(&mut self) {
        *self = Self {
            up: Some(Instant::now()),
            due: None,
            dialling: None,
            ..std::mem::take(self)
        };
    }

    /// The peer lost its link, and shall have a new one.
    pub(crate) fn is_down(&mut self, waits: &RangeInclusive<Duration>) {
        if let Some(up) = self.up.take() {
            self.backoff.lived(up.elapsed());
        }
        self.schedule(waits);
    }

    /// Plans the next dial, `waits` being the shortest and the longest time until then.
    pub(crate) fn schedule(&mut self, waits: &RangeInclusive<Duration>) {
        // Without randomness all wait alike, which is no reason not to dial.
        let random = getrandom::u32().unwrap_or(0);
        self.due = Some(Instant::now() + self.backoff.next(waits, random));
    }
}

//! Decides which connection to a peer is the link.
//!
//! Two sides that dial at once, or one that dials twice, have more than one connection. The side with
//! the lower [`PeerId`] is the **arbiter** of the pair; the other one greets on every connection, and
//! the arbiter answers on one of them. That answer makes the connection the link for both.
//!
//! 1. The arbiter answers the first greeting when it has no link to the peer.
//! 2. It drops a connection whose greeting equals that of its link: a duplicate.
//! 3. It moves to a connection with any other greeting: for the peer, the link is over. The peer was
//!    restarted, or saw the end of a connection that this side still believes in.
//! 4. The other side moves wherever the arbiter answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_transport_trait::{Backoff, DisconnectReason, LinkId, Links, PeerId};
use tokio::time::Instant;

use crate::address::Place;
use crate::attempt::{Attempt, Refused};
use crate::connection::{Connection, Farewell};
use crate::wire::Greeting;

/// For how many peers the number of links that ended is remembered.
///
/// A peer that was forgotten starts anew, which costs at most one needless change of connection.
const GENERATIONS_MAX: usize = 4096;

/// How many addresses of one peer are dialled again.
const PLACES_PER_PEER_MAX: usize = 8;

/// The connection that is the link to a peer.
struct Live {
    number: u64,
    greeting: Greeting,
    connection: Arc<Connection>,
}

/// A peer that this side dialled and wants to keep.
pub(crate) struct Wanted {
    /// Tells this wish from an earlier one.
    pub(crate) number: u64,
    /// Where it was reached, the last one first.
    pub(crate) places: Vec<Place>,
    pub(crate) backoff: Backoff,
    /// Whether a task sees to it that it is dialled again.
    pub(crate) is_redialled: bool,
    up: Option<Instant>,
}

/// What the endpoint knows of its connections.
pub(crate) struct Table {
    local: PeerId,
    instance: u64,
    /// Numbers connections, attempts and wishes.
    counter: u64,
    live: BTreeMap<PeerId, Live>,
    /// All connections whose other end is proven.
    connections: BTreeMap<u64, PeerId>,
    /// Those of links that this side ended, until they are closed.
    lingering: BTreeMap<u64, PeerId>,
    generations: BTreeMap<PeerId, u64>,
    pub(crate) wanted: BTreeMap<PeerId, Wanted>,
    pub(crate) attempts: BTreeMap<u64, Arc<Attempt>>,
}

impl Table {
    pub(crate) fn new(local: PeerId, instance: u64) -> Self {
        Self {
            local,
            instance,
            counter: 0,
            live: BTreeMap::new(),
            connections: BTreeMap::new(),
            lingering: BTreeMap::new(),
            generations: BTreeMap::new(),
            wanted: BTreeMap::new(),
            attempts: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Notes a connection whose other end is proven, unless there are too many.
    pub(crate) fn enter(
        &mut self,
        peer: PeerId,
        max: u32,
        per_peer_max: u32,
    ) -> Result<u64, Refused> {
        let with_peer = self.connections_with(peer);
        let count = self.connections.len();
        for (count, max) in [(count, max), (with_peer, per_peer_max)] {
            if count >= max as usize {
                return Err(Refused::TooMany(format!("{max}")));
            }
        }
        let number = self.count();
        self.connections.insert(number, peer);
        Ok(number)
    }

    /// A connection is closed.
    pub(crate) fn leave(&mut self, number: u64) {
        self.connections.remove(&number);
        self.lingering.remove(&number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    pub(crate) fn connections_with(&self, peer: PeerId) -> usize {
        self.connections.values().filter(|it| **it == peer).count()
    }

    /// Whether messages sent to a peer before a hang-up may still be on the way.
    pub(crate) fn is_lingering(&self, peer: PeerId) -> bool {
        self.lingering.values().any(|it| *it == peer)
    }

    pub(crate) fn is_live(&self, peer: PeerId) -> bool {
        self.live.contains_key(&peer)
    }

    /// The connection of a link, unless the link is over.
    pub(crate) fn connection(&self, peer: PeerId, link: LinkId) -> Option<Arc<Connection>> {
        let live = self.live.get(&peer)?;
        (live.connection.link == link).then(|| live.connection.clone())
    }

    pub(crate) fn is_arbiter_for(&self, peer: PeerId) -> bool {
        self.local < peer
    }

    pub(crate) fn greeting_for(&self, peer: PeerId) -> Greeting {
        Greeting {
            instance: self.instance,
            generation: self.generations.get(&peer).copied().unwrap_or_default(),
        }
    }

    /// The other side greeted, or answered: makes the connection the link, by the rules above.
    pub(crate) fn greeted(
        &mut self,
        links: &Links,
        peer: PeerId,
        number: u64,
        greeting: Greeting,
        queue_bytes: usize,
    ) -> Result<Arc<Connection>, Refused> {
        let same = self.live.get(&peer).map(|it| it.greeting == greeting);
        if same == Some(true) && self.is_arbiter_for(peer) {
            return Err(Refused::Duplicate);
        }
        self.end(links, peer, DisconnectReason::Replaced);
        let link = links.begin(peer).map_err(Refused::Port)?;
        let connection = Connection::new(peer, link, queue_bytes);
        self.live.insert(
            peer,
            Live {
                number,
                greeting,
                connection: connection.clone(),
            },
        );
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            wanted.up = Some(Instant::now());
        }
        Ok(connection)
    }

    /// A connection ended, and its link if it was one. True if the peer is to be dialled again.
    pub(crate) fn ended(
        &mut self,
        links: &Links,
        connection: &Connection,
        reason: &DisconnectReason,
    ) -> bool {
        let peer = connection.peer;
        if self.connection(peer, connection.link).is_none() {
            return false;
        }
        self.end(links, peer, reason.clone());
        match reason {
            // The other side wants it so; and what speaks garbage will do so again.
            DisconnectReason::PeerHungUp
            | DisconnectReason::MessageTooLarge { .. }
            | DisconnectReason::Misbehaved { .. } => {
                self.wanted.remove(&peer);
                false
            }
            DisconnectReason::HungUp => false,
            DisconnectReason::Lost { .. }
            | DisconnectReason::PeerClosed
            | DisconnectReason::Replaced
            | DisconnectReason::Stalled { .. }
            | DisconnectReason::Truncated { .. }
            | _ => self.is_to_be_redialled(peer),
        }
    }

    fn is_to_be_redialled(&mut self, peer: PeerId) -> bool {
        let Some(wanted) = self.wanted.get_mut(&peer) else {
            return false;
        };
        if let Some(up) = wanted.up.take() {
            wanted.backoff.lived(up.elapsed());
        }
        !std::mem::replace(&mut wanted.is_redialled, true)
    }

    /// This side hangs up.
    pub(crate) fn hang_up(&mut self, links: &Links, peer: PeerId) {
        self.wanted.remove(&peer);
        let to_peer = self.attempts.values().filter(|it| it.peer() == Some(peer));
        to_peer.for_each(|it| it.end(Refused::Cancelled));
        if let Some(live) = self.end(links, peer, DisconnectReason::HungUp) {
            live.connection.bid_farewell(Farewell::HangUp);
            self.lingering.insert(live.number, peer);
        }
    }

    /// This endpoint closes.
    pub(crate) fn close(&mut self) {
        self.wanted.clear();
        let attempts = std::mem::take(&mut self.attempts);
        attempts
            .values()
            .for_each(|it| it.end(Refused::Port(leno_transport_trait::TransportError::Closed)));
        for live in std::mem::take(&mut self.live).values() {
            live.connection.bid_farewell(Farewell::Close);
        }
    }

    /// Takes the link to a peer out of use and reports its end, if there is one.
    fn end(&mut self, links: &Links, peer: PeerId, reason: DisconnectReason) -> Option<Live> {
        let live = self.live.remove(&peer)?;
        // A connection that replaces another one was begun with the greeting of before.
        if reason == DisconnectReason::Replaced {
            live.connection.bid_farewell(Farewell::Nothing);
        } else {
            self.count_end(peer);
        }
        links.end(live.connection.link, reason);
        Some(live)
    }

    fn count_end(&mut self, peer: PeerId) {
        if self.generations.len() >= GENERATIONS_MAX && !self.generations.contains_key(&peer) {
            self.generations.pop_first();
        }
        let generation = self.generations.entry(peer).or_default();
        *generation = generation.wrapping_add(1);
    }

    /// A peer was reached where this side dialled, and is to be kept.
    pub(crate) fn remember(&mut self, peer: PeerId, place: &Place) {
        let number = self.count();
        let is_live = self.is_live(peer);
        let wanted = self.wanted.entry(peer).or_insert_with(|| Wanted {
            number,
            places: Vec::new(),
            backoff: Backoff::default(),
            is_redialled: false,
            up: None,
        });
        wanted.places.retain(|it| it.address != place.address);
        wanted.places.insert(0, place.clone());
        wanted.places.truncate(PLACES_PER_PEER_MAX);
        if is_live {
            wanted.up.get_or_insert_with(Instant::now);
        }
    }
}

#[cfg(test)]
mod tests;

//! What the network reports, within a step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leno_threads_core::bug;
use leno_threads_core::sync::{PeerKey, SyncError};
use leno_transport_trait::{Address, Event as NetEvent, LinkId, PeerId, Transport};

use super::dial::Dials;
use super::stranger::{Place, Strangers};
use crate::event::Event;
use crate::work::{Core, Work};

/// Of how many peers it is remembered, until the next start, that they proved a seat.
const MET_MAX: usize = 4096;

/// A live connection to a peer.
#[derive(Debug)]
pub(super) struct Link {
    /// The transport's name of it.
    pub(super) id: LinkId,
    /// Whether a message is being sent.
    pub(super) is_sending: bool,
    /// Whether this side dialled the peer, whoever made the connection.
    is_dialled: bool,
}

/// The connections, and whom to hang up on at the end of the step.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) live: BTreeMap<PeerKey, Link>,
    pub(super) unwanted: Vec<PeerKey>,
    /// Peers that proved a seat in one of the threads here.
    met: BTreeSet<PeerKey>,
    /// Peers that were dialled, and whose link is not reported yet.
    reached: BTreeSet<PeerKey>,
    strangers: Strangers,
}

impl Links {
    /// The connection of this name, unless it is over.
    pub(super) fn link_mut(&mut self, peer: &PeerKey, id: LinkId) -> Option<&mut Link> {
        self.live.get_mut(peer).filter(|link| link.id == id)
    }

    /// This side dialled a peer, which is connected or about to be.
    pub(super) fn reach(&mut self, peer: PeerKey) {
        match self.live.get_mut(&peer) {
            Some(link) => link.is_dialled = true,
            None => drop(self.reached.insert(peer)),
        }
    }

    /// Makes room for members where strangers are too many.
    pub(super) fn part_from_strangers(&mut self, work: &mut Work<'_>) {
        let (live, replica) = (&self.live, &work.core.replica);
        let is_unknown = |(peer, id): &Place| {
            let link = live.get(peer).filter(|link| link.id == *id);
            link.is_some_and(|link| !link.is_dialled) && !replica.has_proved(peer)
        };
        let surplus = self.strangers.surplus(is_unknown, work.now_millis);
        for (peer, _) in surplus {
            self.hang_up(work, peer, "it proved no seat, and there are too many such");
        }
    }

    /// When there may be strangers too many.
    pub(super) fn wake_millis(&self) -> Option<u64> {
        self.strangers.wake_millis()
    }

    pub(super) fn clock_went_back(&mut self, millis: u64) {
        self.strangers.clock_went_back(millis);
    }

    /// Ends all sessions.
    pub(super) fn hang_up_all(&mut self, work: &mut Work<'_>) {
        for peer in self.live.keys().copied().collect::<Vec<_>>() {
            self.hang_up(work, peer, "this peer was paused");
        }
    }

    /// Ends a session: nothing more of it is looked at, and the transport hangs up after the step.
    fn hang_up(&mut self, work: &mut Work<'_>, peer: PeerKey, reason: &str) {
        self.unwanted.push(peer);
        self.end(work, peer, reason);
    }

    fn end(&mut self, work: &mut Work<'_>, peer: PeerKey, reason: &str) {
        self.live.remove(&peer);
        if self.met.len() < MET_MAX && work.core.replica.has_proved(&peer) {
            self.met.insert(peer);
        }
        work.core.replica.disconnected(&peer);
        work.core.told.retain(|(of, _), _| *of != peer);
        work.events.push(Event::Disconnected {
            peer: PeerId(peer.0),
            reason: reason.to_owned(),
        });
    }

    pub(super) fn handle(
        &mut self,
        work: &mut Work<'_>,
        dials: &mut Dials,
        transport: Option<&dyn Transport>,
        event: NetEvent,
    ) {
        match event {
            NetEvent::Connected { peer, .. } if work.core.paused => {
                self.unwanted.push(PeerKey(peer.0));
            }
            NetEvent::Connected { peer, link } => {
                let key = PeerKey(peer.0);
                let is_dialled = self.reached.remove(&key);
                if !is_dialled {
                    self.strangers.come((key, link), work.now_millis);
                }
                let link = Link {
                    id: link,
                    is_sending: false,
                    is_dialled,
                };
                self.live.insert(key, link);
                let Core { replica, rng, .. } = &mut *work.core;
                replica.connected(key, rng);
                work.core.signals.connected(work.now_millis);
                work.core.rendezvous.look_soon(work.now_millis);
                work.events.push(Event::Connected { peer });
            }
            NetEvent::Disconnected { peer, link, reason } => {
                let key = PeerKey(peer.0);
                // If it is not known, this side hung up.
                if self.link_mut(&key, link).is_some() {
                    self.end(work, key, &reason.to_string());
                    if !bug!(RedialForgotten) {
                        dials.lost(&key, work.now_millis);
                    }
                }
            }
            NetEvent::Message { from, link, bytes } => {
                let key = PeerKey(from.0);
                if self.link_mut(&key, link).is_some() {
                    self.message(work, key, &bytes);
                }
            }
            NetEvent::Discovered { peer, address } => {
                let remembered = work.core.addresses.iter();
                let mut peers = remembered.filter_map(|it| transport?.peer_of(it));
                let is_named = peers.any(|it| it == peer);
                self.discovered(work, dials, (peer, address), is_named);
            }
        }
    }

    /// Somebody says that a peer is at an address: it is dialled, once, if it is known and missing.
    pub(super) fn discovered(
        &mut self,
        work: &mut Work<'_>,
        dials: &mut Dials,
        (peer, address): (PeerId, Address),
        is_named: bool,
    ) {
        let key = PeerKey(peer.0);
        if self.live.contains_key(&key) {
            return;
        }
        // Known is who proved a seat here, and whom a remembered address names.
        if !is_named && !self.met.contains(&key) {
            work.events.push(Event::Discovered { peer, address });
        } else {
            dials.try_once(&address);
        }
    }

    fn message(&mut self, work: &mut Work<'_>, key: PeerKey, bytes: &[u8]) {
        let outcome = work.handle_message(key, bytes);
        // What is announced and what comes may share a step, so each message is looked at.
        for thread in work.core.replica.take_stirred(&key) {
            if !work.core.subscribers.is_empty() {
                work.note_progress(key, thread);
            }
        }
        let error = match outcome {
            Ok(()) => return,
            Err(SyncError::Store(error)) => {
                *work.broken = Some(error);
                return;
            }
            Err(error) => error,
        };
        let ends = error.ends_session();
        work.events.push(Event::Refused {
            peer: PeerId(key.0),
            error: Arc::new(error),
        });
        if ends {
            if work.core.replica.has_proved(&key) {
                work.core.rendezvous.leave_alone(key, work.now_millis);
            }
            self.hang_up(work, key, "it broke the protocol");
        }
    }
}

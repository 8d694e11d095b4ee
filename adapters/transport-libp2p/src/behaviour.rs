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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use leno_transport_trait::{DisconnectReason, Links, PeerId};
use libp2p::Multiaddr;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::DialFailure;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandlerInEvent, ToSwarm,
};

use crate::handler::{Accept, Handler, Told};
use crate::link::{self, Link, lock};
use crate::peer::from_libp2p;
use crate::wire::{Bounds, Counters, Greeting};

/// For how many peers the number of links that ended is remembered.
///
/// A peer that was forgotten starts anew, which costs at most one needless change of connection.
const GENERATIONS_MAX: usize = 4096;

/// What the handle and the swarm task share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) links: Links,
    pub(crate) live: link::Live,
    pub(crate) counters: Arc<Counters>,
}

/// What changed for the swarm task.
#[derive(Debug)]
pub(crate) enum Report {
    Up(PeerId),
    Down(PeerId, DisconnectReason),
    /// A connection of a link that this side ended is not needed any more.
    Parted(PeerId),
}

/// Refuses a device that has no Ed25519 key.
#[derive(Debug)]
pub(crate) struct NotEd25519;

impl fmt::Display for NotEd25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device has no Ed25519 key")
    }
}

impl std::error::Error for NotEd25519 {}

/// Refuses whoever comes while the endpoint closes.
#[derive(Debug)]
struct Closing;

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the endpoint is closing")
    }
}

impl std::error::Error for Closing {}

/// Refuses what came of a dial to a peer on whom this side hung up meanwhile.
#[derive(Debug)]
struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this side hung up meanwhile")
    }
}

impl std::error::Error for Cancelled {}

/// The connection that is the link to a peer.
struct Live {
    connection: ConnectionId,
    greeting: Greeting,
    link: Arc<Link>,
}

/// Keeps the links of this endpoint.
pub(crate) struct Behaviour {
    local: PeerId,
    instance: u64,
    bounds: Bounds,
    queue_bytes: usize,
    shared: Arc<Shared>,
    live: BTreeMap<PeerId, Live>,
    /// Connections of links that this side ended, until they are closed.
    lingering: BTreeMap<ConnectionId, PeerId>,
    /// Connections under way that are not wanted any more.
    cancelled: BTreeSet<ConnectionId>,
    generations: BTreeMap<PeerId, u64>,
    actions: VecDeque<ToSwarm<Report, Accept>>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(crate) fn new(
        local: PeerId,
        instance: u64,
        bounds: Bounds,
        queue_bytes: usize,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            local,
            instance,
            bounds,
            queue_bytes,
            shared,
            live: BTreeMap::new(),
            lingering: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            generations: BTreeMap::new(),
            actions: VecDeque::new(),
            waker: None,
        }
    }

    /// Ends the link to a peer on this side's wish; none of `under_way` shall become another.
    pub(crate) fn hang_up(
        &mut self,
        peer: PeerId,
        under_way: impl IntoIterator<Item = ConnectionId>,
    ) {
        self.cancelled.extend(under_way);
        if let Some(live) = self.end(peer, DisconnectReason::HungUp, true) {
            self.lingering.insert(live.connection, peer);
        }
    }

    /// Lets every peer know that this endpoint closes.
    pub(crate) fn close(&mut self) {
        let peers: Vec<PeerId> = self.live.keys().copied().collect();
        for peer in peers {
            self.end(peer, DisconnectReason::HungUp, false);
        }
    }

    /// Drops the link to a peer that does not answer.
    pub(crate) fn lose(&mut self, remote: libp2p::PeerId, connection: ConnectionId, detail: &str) {
        let reason = DisconnectReason::Lost {
            detail: detail.to_owned(),
        };
        self.on_connection_handler_event(remote, connection, Told::Ended(reason));
    }

    pub(crate) fn is_live(&self, peer: PeerId) -> bool {
        self.live.contains_key(&peer)
    }

    /// Whether messages sent to a peer before a hang-up may still be on the way.
    pub(crate) fn is_lingering(&self, peer: PeerId) -> bool {
        self.lingering.values().any(|it| *it == peer)
    }

    fn is_arbiter_for(&self, peer: PeerId) -> bool {
        self.local < peer
    }

    fn handler(&self, peer: &libp2p::PeerId, dialler: bool) -> Result<Handler, ConnectionDenied> {
        let peer = from_libp2p(peer).ok_or_else(|| ConnectionDenied::new(NotEd25519))?;
        if self.shared.links.is_closed() {
            return Err(ConnectionDenied::new(Closing));
        }
        let generation = self.generations.get(&peer).copied().unwrap_or_default();
        let greeting = Greeting {
            instance: self.instance,
            generation,
        };
        let counters = self.shared.counters.clone();
        Ok(Handler::new(
            dialler,
            self.is_arbiter_for(peer),
            greeting,
            self.bounds,
            counters,
        ))
    }

    fn greeted(
        &mut self,
        remote: libp2p::PeerId,
        peer: PeerId,
        connection: ConnectionId,
        greeting: Greeting,
    ) {
        let same = self.live.get(&peer).map(|it| it.greeting == greeting);
        let duplicate = same == Some(true) && self.is_arbiter_for(peer);
        let cancelled = self.cancelled.contains(&connection);
        if duplicate || cancelled {
            return self.close_connection(remote, connection);
        }
        if let Some(old) = self.end(peer, DisconnectReason::Replaced, false) {
            self.close_connection(remote, old.connection);
        }
        let begun = {
            // Held while it is reported, so that whoever reads of the link finds it.
            let mut live = lock(&self.shared.live);
            self.shared.links.begin(peer).map(|id| {
                let link = Link::new(id, self.queue_bytes);
                live.insert(id, link.clone());
                link
            })
        };
        let Ok(link) = begun else {
            return self.close_connection(remote, connection);
        };
        self.live.insert(
            peer,
            Live {
                connection,
                greeting,
                link: link.clone(),
            },
        );
        let shared = self.shared.clone();
        self.act(ToSwarm::NotifyHandler {
            peer_id: remote,
            handler: NotifyHandler::One(connection),
            event: Accept { link, shared },
        });
        self.act(ToSwarm::GenerateEvent(Report::Up(peer)));
    }

    /// Takes the link out of use and reports its end, if there is one.
    fn end(&mut self, peer: PeerId, reason: DisconnectReason, says_hang_up: bool) -> Option<Live> {
        let live = self.live.remove(&peer)?;
        lock(&self.shared.live).remove(&live.link.id);
        self.shared.links.end(live.link.id, reason.clone());
        live.link.end(says_hang_up);
        // A connection that replaces another one was begun with the greeting of before.
        if reason != DisconnectReason::Replaced {
            self.count_end(peer);
        }
        self.act(ToSwarm::GenerateEvent(Report::Down(peer, reason)));
        Some(live)
    }

    /// A connection has nothing to say any more.
    fn part(&mut self, connection: ConnectionId) {
        if let Some(peer) = self.lingering.remove(&connection) {
            self.act(ToSwarm::GenerateEvent(Report::Parted(peer)));
        }
    }

    fn count_end(&mut self, peer: PeerId) {
        if self.generations.len() >= GENERATIONS_MAX && !self.generations.contains_key(&peer) {
            self.generations.pop_first();
        }
        let generation = self.generations.entry(peer).or_default();
        *generation = generation.wrapping_add(1);
    }

    fn close_connection(&mut self, peer_id: libp2p::PeerId, connection: ConnectionId) {
        let connection = CloseConnection::One(connection);
        self.act(ToSwarm::CloseConnection {
            peer_id,
            connection,
        });
    }

    fn act(&mut self, action: ToSwarm<Report, Accept>) {
        self.actions.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Report;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.handler(&peer, false)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        if self.cancelled.remove(&connection) {
            return Err(ConnectionDenied::new(Cancelled));
        }
        self.handler(&peer, true)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::DialFailure(DialFailure { connection_id, .. }) = event {
            self.cancelled.remove(&connection_id);
        }
        if let FromSwarm::ConnectionClosed(closed) = event {
            let connection = closed.connection_id;
            self.cancelled.remove(&connection);
            self.part(connection);
            let Some(peer) = from_libp2p(&closed.peer_id) else {
                return;
            };
            if self
                .live
                .get(&peer)
                .is_some_and(|it| it.connection == connection)
            {
                let detail = closed
                    .cause
                    .map_or_else(|| "closed".to_owned(), ToString::to_string);
                self.end(peer, DisconnectReason::Lost { detail }, false);
            }
        }
    }

    fn on_connection_handler_event(
        &mut self,
        remote: libp2p::PeerId,
        connection: ConnectionId,
        told: Told,
    ) {
        let Some(peer) = from_libp2p(&remote) else {
            return;
        };
        match told {
            Told::Greeted(greeting) => self.greeted(remote, peer, connection, greeting),
            Told::Ended(reason) => {
                if self
                    .live
                    .get(&peer)
                    .is_some_and(|it| it.connection == connection)
                {
                    self.end(peer, reason, false);
                }
                self.part(connection);
                self.close_connection(remote, connection);
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

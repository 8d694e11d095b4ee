//! The task that owns the swarm: dials, dials again, keeps the list of addresses.

use std::collections::BTreeMap;
use std::future::pending;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use leno_transport_trait::{Address, DisconnectReason, Links, PeerId, TransportError};
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
#[cfg(feature = "mdns")]
use libp2p::mdns;
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, ping};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::behaviour::{Behaviour, Report, Shared};
use crate::builder::{Builder, ListenError};
use crate::dial::{Dial, DialReply, options};
use crate::handle::Libp2p;
use crate::link::{LINGER, lock};
use crate::peer::{Destination, destination, from_libp2p};
use crate::place::in_order;
use crate::redial::Wanted;
#[cfg(feature = "relay")]
use crate::relay::Relay;
use crate::swarm::{Protocols, ProtocolsEvent, not_set_up, swarm};
use crate::wire::Counters;

/// How long the first addresses may take to come up.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Dial {
        address: Address,
        reply: DialReply,
    },
    HangUp {
        peer: PeerId,
        reply: oneshot::Sender<()>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// Builds the swarm, waits until it listens, and spawns the task.
pub(crate) async fn start(builder: Builder) -> Result<Libp2p, ListenError> {
    let keypair = Keypair::ed25519_from_bytes(*builder.secret).map_err(not_set_up)?;
    let local = from_libp2p(&keypair.public().to_peer_id())
        .expect("the id of an Ed25519 key holds that key");
    let shared = Arc::new(Shared {
        links: Links::new(builder.queue_bytes),
        live: Mutex::default(),
        counters: Arc::<Counters>::default(),
    });
    let mut driver = Driver {
        local,
        swarm: swarm(&builder, keypair, local, shared.clone())?,
        shared: shared.clone(),
        addresses: Arc::default(),
        dials: BTreeMap::new(),
        postponed: Vec::new(),
        wanted: BTreeMap::new(),
        redial: builder.redial.clone(),
        announced: Vec::new(),
        #[cfg(feature = "relay")]
        is_relay: builder.relayed_max > 0,
        #[cfg(feature = "relay")]
        relays: Vec::new(),
    };
    driver.listen(&builder).await?;
    let addresses = driver.addresses.clone();
    let (commands, receiver) = mpsc::channel(64);
    let task = tokio::spawn(driver.run(receiver));
    Ok(Libp2p {
        local,
        shared,
        addresses,
        commands,
        task,
    })
}

struct Driver {
    local: PeerId,
    swarm: Swarm<Protocols>,
    shared: Arc<Shared>,
    addresses: Arc<Mutex<Vec<Address>>>,
    dials: BTreeMap<ConnectionId, Dial>,
    /// Dials that wait for the old connection to a peer to be over.
    postponed: Vec<Dial>,
    wanted: BTreeMap<PeerId, Wanted>,
    /// The shortest and the longest wait before dialling again.
    redial: RangeInclusive<Duration>,
    /// Where else others reach this endpoint, as whoever set it up says.
    announced: Vec<Multiaddr>,
    #[cfg(feature = "relay")]
    is_relay: bool,
    /// Through whom others reach this endpoint.
    #[cfg(feature = "relay")]
    relays: Vec<Relay>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let due = self.wanted.values().filter_map(|it| it.due);
            #[cfg(feature = "relay")]
            let due = due.chain(self.relays.iter().filter_map(|it| it.due));
            let due = due.min();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_event(event),
                () = timer => {
                    self.redial_due();
                    #[cfg(feature = "relay")]
                    self.ask_relays_due();
                }
                command = commands.recv() => match command {
                    Some(Command::Dial { address, reply }) => self.dial(address, reply),
                    Some(Command::HangUp { peer, reply }) => {
                        self.hang_up(peer);
                        let _ = reply.send(());
                    }
                    Some(Command::Close { reply }) => {
                        self.close().await;
                        // The swarm, and with it every socket, is gone before the answer.
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    /// Lets the peers know, and gives what was sent a bounded while to get through.
    async fn close(mut self) {
        for (_, dial) in std::mem::take(&mut self.dials) {
            let _ = dial.reply.send(Err(TransportError::Closed));
        }
        self.leno().close();
        let parting = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = timeout(LINGER, parting).await;
    }

    fn hang_up(&mut self, peer: PeerId) {
        let redial = self.wanted.remove(&peer).and_then(|it| it.dialling);
        let is_due = |it: &Dial| it.peer == Some(peer);
        let (under_way, others): (Vec<_>, _) = std::mem::take(&mut self.dials)
            .into_iter()
            .partition(|(_, it)| is_due(it));
        self.dials = others.into_iter().collect();
        let (postponed, others) = std::mem::take(&mut self.postponed)
            .into_iter()
            .partition(is_due);
        self.postponed = others;
        self.leno().hang_up(
            peer,
            redial
                .into_iter()
                .chain(under_way.iter().map(|(id, _)| *id)),
        );
        let under_way: Vec<Dial> = under_way.into_iter().map(|(_, it)| it).collect();
        for dial in under_way.into_iter().chain::<Vec<Dial>>(postponed) {
            dial.give_up("this side hung up");
        }
    }

    fn leno(&mut self) -> &mut Behaviour {
        &mut self.swarm.behaviour_mut().leno
    }
}

// Listening.
impl Driver {
    async fn listen(&mut self, builder: &Builder) -> Result<(), ListenError> {
        for text in &builder.announced {
            let place = parse(text)?;
            self.swarm.add_external_address(place.clone());
            self.announced.push(place);
        }
        let mut waiting = Vec::new();
        for text in &builder.listen_on {
            let place = parse(text)?;
            #[cfg(feature = "relay")]
            if let Some(relay) = Relay::read(&place) {
                self.relays
                    .push(relay.map_err(|detail| not_understood(text, detail))?);
                continue;
            }
            let listener =
                self.swarm
                    .listen_on(place)
                    .map_err(|error| ListenError::CannotListen {
                        address: text.clone(),
                        detail: error.to_string(),
                    })?;
            waiting.push(listener);
        }
        // An interface that is down is no reason not to start: its address is added when it comes.
        timeout(LISTEN_TIMEOUT, self.until_listening(waiting))
            .await
            .unwrap_or(Ok(()))?;
        #[cfg(feature = "relay")]
        self.begin_with_relays().await;
        self.list_addresses();
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the swarm has many more events, handled as ever"
    )]
    async fn until_listening(&mut self, mut waiting: Vec<ListenerId>) -> Result<(), ListenError> {
        while !waiting.is_empty() {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr {
                    listener_id,
                    address,
                } => {
                    waiting.retain(|it| *it != listener_id);
                    self.listens(listener_id, address);
                }
                SwarmEvent::ListenerClosed {
                    addresses,
                    reason: Err(error),
                    ..
                } => {
                    let address = addresses
                        .first()
                        .map_or_else(String::new, ToString::to_string);
                    return Err(ListenError::CannotListen {
                        address,
                        detail: error.to_string(),
                    });
                }
                event => self.handle_event(event),
            }
        }
        Ok(())
    }

    fn listens(&mut self, listener: ListenerId, address: Multiaddr) {
        #[cfg(feature = "relay")]
        {
            self.relay_is_up(listener);
            if self.is_relay {
                // Those whom it relays for tell others where it is.
                self.swarm.add_external_address(address);
            }
        }
        #[cfg(not(feature = "relay"))]
        let _ = (listener, address);
        self.list_addresses();
    }

    fn listens_no_more(&mut self, listener: ListenerId) {
        #[cfg(feature = "relay")]
        self.relay_is_down(listener);
        #[cfg(not(feature = "relay"))]
        let _ = listener;
        self.list_addresses();
    }

    fn list_addresses(&self) {
        if self.shared.links.is_closed() {
            return;
        }
        let local = *self.swarm.local_peer_id();
        let announced = self.announced.iter().cloned();
        let places = in_order(announced, self.swarm.listeners().cloned());
        let named = places.into_iter().filter_map(|it| it.with_p2p(local).ok());
        *lock(&self.addresses) = named.filter_map(|it| it.to_string().parse().ok()).collect();
    }
}

fn parse(text: &str) -> Result<Multiaddr, ListenError> {
    let parsed = text.parse();
    parsed.map_err(|error: libp2p::multiaddr::Error| not_understood(text, error))
}

fn not_understood(address: &str, detail: impl ToString) -> ListenError {
    ListenError::AddressNotUnderstood {
        address: address.to_owned(),
        detail: detail.to_string(),
    }
}

// Relays.
#[cfg(feature = "relay")]
impl Driver {
    /// Dials the relays, and waits a while for a place at each.
    async fn begin_with_relays(&mut self) {
        for relay in &self.relays {
            let wanted = self.wanted.entry(relay.peer).or_default();
            wanted.remember(relay.place.clone());
            wanted.due = Some(Instant::now());
        }
        self.redial_due();
        let waiting = async {
            while self.relays.iter().any(|it| !it.is_up) {
                let event = self.swarm.select_next_some().await;
                self.handle_event(event);
            }
        };
        // A relay that is not there now is tried again.
        let _ = timeout(LISTEN_TIMEOUT, waiting).await;
    }

    /// Asks a relay to which there is a link for a place, unless there is one.
    fn ask_relay(&mut self, peer: PeerId) {
        let Self {
            swarm,
            relays,
            redial,
            ..
        } = self;
        let asked = relays.iter_mut().filter(|it| it.peer == peer);
        for relay in asked.filter(|it| it.listener.is_none()) {
            relay.due = None;
            match swarm.listen_on(relay.circuit.clone()) {
                Ok(listener) => relay.listener = Some(listener),
                Err(_) => relay.is_down(redial),
            }
        }
    }

    fn ask_relays_due(&mut self) {
        let now = Instant::now();
        let is_due = |it: &&mut Relay| it.due.is_some_and(|due| due <= now);
        let due = self.relays.iter_mut().filter(is_due).map(|it| {
            it.due = None;
            it.peer
        });
        for peer in due.collect::<Vec<_>>() {
            // Without a link it is asked once there is one.
            if self.leno().is_live(peer) {
                self.ask_relay(peer);
            }
        }
    }

    fn relay_is_up(&mut self, listener: ListenerId) {
        let mut relays = self.relays.iter_mut();
        if let Some(relay) = relays.find(|it| it.listener == Some(listener)) {
            relay.is_up();
        }
    }

    fn relay_is_down(&mut self, listener: ListenerId) {
        let mut relays = self.relays.iter_mut();
        if let Some(relay) = relays.find(|it| it.listener == Some(listener)) {
            relay.is_down(&self.redial);
        }
    }
}

// Dialling.
impl Driver {
    fn dial(&mut self, address: Address, reply: DialReply) {
        match destination(&address) {
            Ok(Destination {
                peer: Some(peer), ..
            }) if peer == self.local => {
                let _ = reply.send(Err(TransportError::DialledSelf { address }));
            }
            Ok(Destination { place, peer }) => {
                self.begin(Dial {
                    address,
                    place,
                    peer,
                    established: false,
                    reply,
                });
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn begin(&mut self, dial: Dial) {
        if let Some(peer) = dial.peer {
            if self.leno().is_live(peer) {
                return self.succeed(dial, peer);
            }
            if self.leno().is_lingering(peer) {
                self.postponed.push(dial);
                return;
            }
        }
        let options = options(dial.peer, vec![dial.place.clone()]);
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, dial);
            }
            Err(error) => dial.fail(&error),
        }
    }

    fn succeed(&mut self, dial: Dial, peer: PeerId) {
        self.wanted.entry(peer).or_default().remember(dial.place);
        let _ = dial.reply.send(Ok(peer));
    }

    /// Takes out the dials for which `is_done`.
    fn take_dials(&mut self, is_done: impl Fn(&Dial) -> bool) -> Vec<Dial> {
        let dials = std::mem::take(&mut self.dials);
        let (done, open): (BTreeMap<_, _>, _) = dials.into_iter().partition(|(_, it)| is_done(it));
        self.dials = open;
        done.into_values().collect()
    }

    fn succeed_all(&mut self, peer: PeerId) {
        for dial in self.take_dials(|it| it.peer == Some(peer)) {
            self.succeed(dial, peer);
        }
    }

    fn connection_established(&mut self, connection: ConnectionId, peer: PeerId) {
        if let Some(dial) = self.dials.get_mut(&connection) {
            dial.peer = Some(peer);
            dial.established = true;
        }
        if self.leno().is_live(peer) {
            self.succeed_all(peer);
        }
    }

    /// A connection is over. If it was the last hope of a dial, so is the dial.
    fn connection_closed(&mut self, connection: ConnectionId, peer: PeerId, others: u32) {
        // While there are others, this one may have been a duplicate.
        if others == 0 {
            for dial in self.take_dials(|it| it.established && it.peer == Some(peer)) {
                dial.give_up("the connection ended before there was a link");
            }
        }
        self.redial_failed(connection);
    }

    /// What was sent to a peer before this side hung up is through, or given up.
    fn parted(&mut self, peer: PeerId) {
        let postponed = std::mem::take(&mut self.postponed);
        let (ready, others) = postponed.into_iter().partition(|it| it.peer == Some(peer));
        self.postponed = others;
        let ready: Vec<Dial> = ready;
        ready.into_iter().for_each(|it| self.begin(it));
    }
}

// Dialling again.
impl Driver {
    fn link_up(&mut self, peer: PeerId) {
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            wanted.is_up();
        }
        self.succeed_all(peer);
        #[cfg(feature = "relay")]
        self.ask_relay(peer);
    }

    fn link_down(&mut self, peer: PeerId, reason: &DisconnectReason) {
        match reason {
            // `hang_up` has seen to it.
            DisconnectReason::HungUp => {}
            // The other side wants it so; and what speaks garbage will do so again.
            DisconnectReason::PeerHungUp
            | DisconnectReason::MessageTooLarge { .. }
            | DisconnectReason::Misbehaved { .. } => {
                self.wanted.remove(&peer);
            }
            DisconnectReason::Lost { .. }
            | DisconnectReason::PeerClosed
            | DisconnectReason::Replaced
            | DisconnectReason::Stalled { .. }
            | DisconnectReason::Truncated { .. }
            | _ => {
                if let Some(wanted) = self.wanted.get_mut(&peer) {
                    wanted.is_down(&self.redial);
                }
            }
        }
    }

    fn redial_due(&mut self) {
        let now = Instant::now();
        let Self {
            swarm,
            wanted,
            redial,
            ..
        } = self;
        for (peer, wanted) in wanted.iter_mut() {
            if wanted.due.is_none_or(|it| it > now) {
                continue;
            }
            wanted.due = None;
            if swarm.behaviour().leno.is_live(*peer) {
                continue;
            }
            let options = options(Some(*peer), wanted.places.clone());
            let connection = options.connection_id();
            match swarm.dial(options) {
                Ok(()) => wanted.dialling = Some(connection),
                Err(_) => wanted.schedule(redial),
            }
        }
    }

    /// If the connection was made to dial a peer again, that did not help.
    fn redial_failed(&mut self, connection: ConnectionId) {
        let Self {
            swarm,
            wanted,
            redial,
            ..
        } = self;
        for (peer, wanted) in wanted.iter_mut() {
            if wanted.dialling == Some(connection) {
                wanted.dialling = None;
                if !swarm.behaviour().leno.is_live(*peer) {
                    wanted.schedule(redial);
                }
            }
        }
    }
}

// Events of the swarm.
impl Driver {
    fn handle_event(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                connection_id,
                peer_id,
                ..
            } => {
                if let Some(peer) = from_libp2p(&peer_id) {
                    self.connection_established(connection_id, peer);
                }
            }
            SwarmEvent::ConnectionClosed {
                connection_id,
                peer_id,
                num_established,
                ..
            } => {
                if let Some(peer) = from_libp2p(&peer_id) {
                    self.connection_closed(connection_id, peer, num_established);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(dial) = self.dials.remove(&connection_id) {
                    dial.fail(&error);
                }
                self.redial_failed(connection_id);
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Leno(Report::Up(peer))) => self.link_up(peer),
            SwarmEvent::Behaviour(ProtocolsEvent::Leno(Report::Down(peer, reason))) => {
                self.link_down(peer, &reason);
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Leno(Report::Parted(peer))) => self.parted(peer),
            SwarmEvent::Behaviour(ProtocolsEvent::Ping(event)) => self.handle_ping(event),
            #[cfg(feature = "mdns")]
            SwarmEvent::Behaviour(ProtocolsEvent::Mdns(mdns::Event::Discovered(found))) => {
                self.discovered(found);
            }
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => self.listens(listener_id, address),
            SwarmEvent::ListenerClosed { listener_id, .. } => self.listens_no_more(listener_id),
            SwarmEvent::ExpiredListenAddr { .. } => self.list_addresses(),
            _ => {}
        }
    }

    /// Passes on who is on the local network, and where.
    #[cfg(feature = "mdns")]
    fn discovered(&mut self, found: Vec<(libp2p::PeerId, Multiaddr)>) {
        for (peer, place) in found {
            let (name, place) = (from_libp2p(&peer), place.with_p2p(peer));
            let address = place.ok().and_then(|it| it.to_string().parse().ok());
            if let (Some(peer), Some(address)) = (name, address) {
                self.shared.links.discover(peer, address);
            }
        }
    }

    fn handle_ping(
        &mut self,
        ping::Event {
            peer,
            connection,
            result,
        }: ping::Event,
    ) {
        match result {
            // A device without the protocol is alive if it answers at all, which it did.
            Ok(_) | Err(ping::Failure::Unsupported) => {}
            Err(error @ (ping::Failure::Timeout | ping::Failure::Other { .. })) => {
                let detail = format!("no answer to a ping: {error}");
                self.leno().lose(peer, connection, &detail);
            }
        }
    }
}

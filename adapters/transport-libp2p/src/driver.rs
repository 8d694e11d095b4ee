//! The task that owns the swarm: dials, dials again, keeps the list of addresses.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use leno_transport_trait::{Address, DisconnectReason, PeerId, TransportError};
use libp2p::core::transport::ListenerId;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, connection_limits, noise, ping, tcp, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::behaviour::{Behaviour, NotEd25519, Report, Shared};
use crate::builder::{Builder, ListenError};
use crate::handle::Libp2p;
use crate::link::{Inbox, LINGER, lock};
use crate::peer::{Destination, destination, from_libp2p, to_libp2p};
use crate::wire::{Bounds, Counters};

/// How long the first addresses may take to come up.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How many addresses of one peer are dialled again.
const ADDRESSES_PER_PEER_MAX: usize = 8;

/// A link that lived this long was no failure, so that the next wait is the shortest again.
const PROVEN: Duration = Duration::from_secs(10);

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

type DialReply = oneshot::Sender<Result<PeerId, TransportError>>;

/// The protocols of a connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Protocols {
    // First, so that no other protocol sees a connection above the limit.
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    leno: Behaviour,
}

/// Builds the swarm, waits until it listens, and spawns the task.
pub(crate) async fn start(builder: Builder) -> Result<Libp2p, ListenError> {
    let keypair = Keypair::ed25519_from_bytes(*builder.secret).map_err(not_set_up)?;
    let local = from_libp2p(&keypair.public().to_peer_id())
        .expect("the id of an Ed25519 key holds that key");
    let shared = Arc::new(Shared {
        inbox: Arc::new(Inbox::new(builder.queue_bytes)),
        links: Mutex::default(),
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
        redial: (*builder.redial.start(), *builder.redial.end()),
    };
    driver.listen(&builder).await?;
    let addresses = driver.addresses.clone();
    let (commands, receiver) = mpsc::channel(64);
    let task = tokio::spawn(driver.run(receiver));
    let message_bytes_max = builder.message_bytes_max;
    Ok(Libp2p {
        local,
        message_bytes_max,
        shared,
        addresses,
        commands,
        task,
    })
}

fn swarm(
    builder: &Builder,
    keypair: Keypair,
    local: PeerId,
    shared: Arc<Shared>,
) -> Result<Swarm<Protocols>, ListenError> {
    let instance = getrandom::u64().map_err(not_set_up)?;
    let bounds = Bounds {
        message_bytes_max: builder.message_bytes_max,
        stall: builder.stall_timeout,
    };
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(builder.connections_max.clamp(1, 64)))
        .with_max_established(Some(builder.connections_max))
        .with_max_established_per_peer(Some(builder.connections_per_peer_max));
    let ping = ping::Config::new()
        .with_interval(builder.ping_interval)
        .with_timeout(builder.ping_interval.saturating_add(Duration::from_secs(5)));
    let protocols = Protocols {
        limits: connection_limits::Behaviour::new(limits),
        ping: ping::Behaviour::new(ping),
        leno: Behaviour::new(local, instance, bounds, builder.queue_bytes, shared),
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .map_err(not_set_up)?
        .with_quic()
        .with_behaviour(|_| protocols)
        .map_err(not_set_up)?
        .with_swarm_config(|config| {
            // We name one protocol per stream, so there is no need to wait for its confirmation.
            config
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
                .with_idle_connection_timeout(builder.idle_timeout)
        })
        .build();
    Ok(swarm)
}

fn not_set_up(error: impl ToString) -> ListenError {
    ListenError::NotSetUp {
        detail: error.to_string(),
    }
}

/// A dial of which the handle waits to hear.
struct Dial {
    address: Address,
    place: Multiaddr,
    /// Who should answer, or did.
    peer: Option<PeerId>,
    /// Whether there is, or was, a connection.
    established: bool,
    reply: DialReply,
}

/// A peer that this side dialled and wants to keep.
#[derive(Debug, Default)]
struct Wanted {
    /// Where it was reached, the last one first.
    places: Vec<Multiaddr>,
    /// How often it could not be reached, or not for long, in a row.
    failures: u32,
    /// When its link came up.
    up: Option<Instant>,
    /// When to dial it again.
    due: Option<Instant>,
    /// The connection that is being made for that.
    dialling: Option<ConnectionId>,
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
    redial: (Duration, Duration),
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let due = self.wanted.values().filter_map(|it| it.due).min();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_event(event),
                () = timer => self.redial_due(),
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
        self.swarm.behaviour_mut().leno.close();
        let parting = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = timeout(LINGER, parting).await;
    }

    fn hang_up(&mut self, peer: PeerId) {
        self.wanted.remove(&peer);
        self.swarm.behaviour_mut().leno.hang_up(peer);
    }
}

// Listening.
impl Driver {
    async fn listen(&mut self, builder: &Builder) -> Result<(), ListenError> {
        for text in &builder.announced {
            let place = parse(text)?;
            self.swarm.add_external_address(place);
        }
        let mut waiting = Vec::new();
        for text in &builder.listen_on {
            let listener =
                self.swarm
                    .listen_on(parse(text)?)
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
        self.list_addresses();
        Ok(())
    }

    async fn until_listening(&mut self, mut waiting: Vec<ListenerId>) -> Result<(), ListenError> {
        while !waiting.is_empty() {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    waiting.retain(|it| *it != listener_id);
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

    fn list_addresses(&self) {
        if self.shared.inbox.is_closed() {
            return;
        }
        let local = *self.swarm.local_peer_id();
        let places = self
            .swarm
            .external_addresses()
            .chain(self.swarm.listeners());
        let named = places.filter_map(|it| it.clone().with_p2p(local).ok());
        *lock(&self.addresses) = named.filter_map(|it| it.to_string().parse().ok()).collect();
    }
}

fn parse(text: &str) -> Result<Multiaddr, ListenError> {
    text.parse().map_err(
        |error: libp2p::multiaddr::Error| ListenError::AddressNotUnderstood {
            address: text.to_owned(),
            detail: error.to_string(),
        },
    )
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
            if self.swarm.behaviour().leno.is_live(peer) {
                return self.succeed(dial, peer);
            }
            if self.swarm.behaviour().leno.is_lingering(peer) {
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
            Err(error) => fail(dial, &error),
        }
    }

    fn succeed(&mut self, dial: Dial, peer: PeerId) {
        let wanted = self.wanted.entry(peer).or_default();
        wanted.places.retain(|it| *it != dial.place);
        wanted.places.insert(0, dial.place);
        wanted.places.truncate(ADDRESSES_PER_PEER_MAX);
        wanted.up.get_or_insert_with(Instant::now);
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
        if self.swarm.behaviour().leno.is_live(peer) {
            self.succeed_all(peer);
        }
    }

    /// A connection is over. If it was the last hope of a dial, so is the dial.
    fn connection_closed(&mut self, connection: ConnectionId, peer: PeerId, others: u32) {
        for dial in std::mem::take(&mut self.postponed) {
            self.begin(dial);
        }
        // While there are others, this one may have been a duplicate.
        if others == 0 {
            for dial in self.take_dials(|it| it.established && it.peer == Some(peer)) {
                let detail = "the connection ended before there was a link".to_owned();
                let error = TransportError::Unreachable {
                    address: dial.address,
                    detail,
                };
                let _ = dial.reply.send(Err(error));
            }
        }
        self.redial_failed(connection);
    }

    fn connection_failed(&mut self, connection: ConnectionId, error: &DialError) {
        if let Some(dial) = self.dials.remove(&connection) {
            fail(dial, error);
        }
        self.redial_failed(connection);
    }
}

fn options(peer: Option<PeerId>, places: Vec<Multiaddr>) -> DialOpts {
    // A TCP connection from the port that listens could meet the other side's own dial half-way, as
    // one connection that both believe to have dialled.
    let is_tcp = places
        .iter()
        .any(|it| it.iter().any(|part| matches!(part, Protocol::Tcp(_))));
    match (peer.and_then(to_libp2p), places) {
        (Some(peer), places) => {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(places);
            if is_tcp {
                options.allocate_new_port().build()
            } else {
                options.build()
            }
        }
        (None, mut places) => {
            let place = places.pop().unwrap_or_else(Multiaddr::empty);
            let options = DialOpts::unknown_peer_id().address(place);
            if is_tcp {
                options.allocate_new_port().build()
            } else {
                options.build()
            }
        }
    }
}

fn fail(dial: Dial, error: &DialError) {
    let _ = dial
        .reply
        .send(Err(dial_error(dial.address, dial.peer, error)));
}

/// Says in our words why a dial led nowhere.
fn dial_error(address: Address, expected: Option<PeerId>, error: &DialError) -> TransportError {
    match error {
        // An address always comes along, and the swarm strikes out only what it listens on itself.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => {
            TransportError::DialledSelf { address }
        }
        DialError::WrongPeerId { obtained, .. } => match (expected, from_libp2p(obtained)) {
            (Some(expected), Some(found)) => TransportError::WrongIdentity { expected, found },
            _ => TransportError::KeyTypeNotSupported { address },
        },
        DialError::Denied { cause } if cause.downcast_ref::<NotEd25519>().is_some() => {
            TransportError::KeyTypeNotSupported { address }
        }
        DialError::Denied { cause } => match cause.downcast_ref::<connection_limits::Exceeded>() {
            Some(exceeded) => TransportError::TooManyConnections {
                detail: exceeded.to_string(),
            },
            None => TransportError::Unreachable {
                address,
                detail: cause.to_string(),
            },
        },
        DialError::Transport(errors) => transport_error(address, errors),
        DialError::DialPeerConditionFalse(_) | DialError::Aborted => TransportError::Unreachable {
            address,
            detail: error.to_string(),
        },
    }
}

fn transport_error(
    address: Address,
    errors: &[(Multiaddr, libp2p::TransportError<std::io::Error>)],
) -> TransportError {
    match errors.first().map(|(_, error)| error) {
        Some(libp2p::TransportError::MultiaddrNotSupported(_)) => {
            let detail = "neither TCP nor QUIC to an IP address".to_owned();
            TransportError::AddressNotUnderstood { address, detail }
        }
        Some(libp2p::TransportError::Other(error)) => TransportError::Unreachable {
            address,
            detail: root_cause(error),
        },
        None => TransportError::Unreachable {
            address,
            detail: "no address".to_owned(),
        },
    }
}

/// The innermost error; what is around it only says which layer passed it on.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

// Dialling again.
impl Driver {
    fn link_up(&mut self, peer: PeerId) {
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            wanted.up = Some(Instant::now());
            wanted.due = None;
            wanted.dialling = None;
        }
        self.succeed_all(peer);
    }

    fn link_down(&mut self, peer: PeerId, reason: &DisconnectReason) {
        match reason {
            // This side, or the other, wants it so. What speaks garbage will do so again.
            DisconnectReason::HungUp
            | DisconnectReason::PeerHungUp
            | DisconnectReason::MessageTooLarge { .. }
            | DisconnectReason::Misbehaved { .. } => {
                self.wanted.remove(&peer);
            }
            _ => {
                let Some(wanted) = self.wanted.get_mut(&peer) else {
                    return;
                };
                if wanted.up.take().is_some_and(|it| it.elapsed() >= PROVEN) {
                    wanted.failures = 0;
                }
                wanted.schedule(self.redial);
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
                Err(_) => wanted.schedule(*redial),
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
                    wanted.schedule(*redial);
                }
            }
        }
    }
}

impl Wanted {
    fn schedule(&mut self, (shortest, longest): (Duration, Duration)) {
        let wait = backoff(self.failures, shortest, longest);
        // Without randomness all wait alike, which is no reason not to dial.
        let jitter = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + wait.mul_f64(1.0 - jitter / 2.0));
    }
}

/// The wait after so many failures: doubling, and no longer than the longest.
fn backoff(failures: u32, shortest: Duration, longest: Duration) -> Duration {
    // Beyond a day of doubling, the bound alone counts; `Instant` must not be run over.
    let longest = longest.min(Duration::from_secs(24 * 60 * 60));
    shortest
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(longest)
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
                self.connection_failed(connection_id, &error);
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Leno(Report::Up(peer))) => self.link_up(peer),
            SwarmEvent::Behaviour(ProtocolsEvent::Leno(Report::Down(peer, reason))) => {
                self.link_down(peer, &reason);
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Ping(event)) => self.handle_ping(event),
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ListenerClosed { .. } => self.list_addresses(),
            _ => {}
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
                self.swarm
                    .behaviour_mut()
                    .leno
                    .lose(peer, connection, &detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let (shortest, longest) = (Duration::from_millis(250), Duration::from_secs(60));
        let check = |failures, millis| {
            assert_eq!(
                backoff(failures, shortest, longest),
                Duration::from_millis(millis)
            );
        };
        check(0, 250);
        check(1, 500);
        check(7, 32_000);
        check(8, 60_000);
        check(u32::MAX, 60_000);
        assert_eq!(
            backoff(u32::MAX, Duration::MAX, Duration::MAX).as_secs(),
            86_400
        );
    }
}

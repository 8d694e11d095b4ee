//! The stack below: transports, limits, sign of life, and our protocol.

use std::sync::Arc;
use std::time::Duration;

use leno_transport_trait::{MESSAGE_BYTES_MAX, PeerId};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
#[cfg(feature = "mdns")]
use libp2p::mdns;
#[cfg(feature = "relay")]
use libp2p::relay;
#[cfg(any(feature = "mdns", feature = "relay"))]
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{SwarmBuilder, connection_limits, noise, ping, tcp, yamux};

use crate::behaviour::{Behaviour, Shared};
use crate::builder::{Builder, ListenError};
use crate::wire::Bounds;

/// How long a QUIC connection may be silent, and how often it gives a sign of life.
const QUIC_IDLE_MILLIS: u32 = 30_000;
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The protocols of a connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Protocols {
    // First, so that no other protocol sees a connection above the limit.
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    pub(crate) leno: Behaviour,
    #[cfg(feature = "mdns")]
    mdns: Toggle<mdns::tokio::Behaviour>,
    #[cfg(feature = "relay")]
    through_relays: relay::client::Behaviour,
    #[cfg(feature = "relay")]
    relay: Toggle<relay::Behaviour>,
}

/// Puts the stack together; it does not listen yet.
pub(crate) fn swarm(
    builder: &Builder,
    keypair: Keypair,
    local: PeerId,
    shared: Arc<Shared>,
) -> Result<Swarm<Protocols>, ListenError> {
    let instance = getrandom::u64().map_err(not_set_up)?;
    let bounds = Bounds {
        message_bytes_max: MESSAGE_BYTES_MAX,
        stall: builder.stall_timeout,
        greeting: builder.handshake_timeout,
    };
    let leno = Behaviour::new(local, instance, bounds, builder.queue_bytes, shared);
    #[cfg(feature = "mdns")]
    let mdns = mdns(builder, &keypair)?;
    #[cfg(feature = "relay")]
    let relay = relay(builder, &keypair);
    let networks = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .map_err(not_set_up)?
        .with_quic_config(|mut config| {
            config.handshake_timeout = builder.handshake_timeout;
            config.max_idle_timeout = QUIC_IDLE_MILLIS;
            config.keep_alive_interval = QUIC_KEEP_ALIVE;
            config
        });
    #[cfg(feature = "relay")]
    let networks = networks
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .map_err(not_set_up)?;
    #[cfg(feature = "relay")]
    let stack = networks.with_behaviour(|_, through_relays| Protocols {
        limits: limits(builder),
        ping: ping(builder),
        leno,
        #[cfg(feature = "mdns")]
        mdns,
        through_relays,
        relay,
    });
    #[cfg(not(feature = "relay"))]
    let stack = networks.with_behaviour(|_| Protocols {
        limits: limits(builder),
        ping: ping(builder),
        leno,
        #[cfg(feature = "mdns")]
        mdns,
    });
    let swarm = stack
        .map_err(not_set_up)?
        .with_swarm_config(|config| {
            // We name one protocol per stream, so there is no need to wait for its confirmation.
            config
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
                .with_idle_connection_timeout(builder.idle_timeout)
        })
        .with_connection_timeout(builder.handshake_timeout)
        .build();
    Ok(swarm)
}

fn limits(builder: &Builder) -> connection_limits::Behaviour {
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(builder.connections_max.clamp(1, 64)))
        .with_max_established(Some(builder.connections_max))
        .with_max_established_per_peer(Some(builder.connections_per_peer_max));
    connection_limits::Behaviour::new(limits)
}

fn ping(builder: &Builder) -> ping::Behaviour {
    let ping = ping::Config::new()
        .with_interval(builder.ping_interval)
        .with_timeout(builder.ping_interval.saturating_add(Duration::from_secs(5)));
    ping::Behaviour::new(ping)
}

#[cfg(feature = "mdns")]
fn mdns(
    builder: &Builder,
    keypair: &Keypair,
) -> Result<Toggle<mdns::tokio::Behaviour>, ListenError> {
    let local = keypair.public().to_peer_id();
    let found = builder.finds_neighbours.then(|| {
        let config = mdns::Config::default();
        mdns::tokio::Behaviour::new(config, local).map_err(not_set_up)
    });
    Ok(found.transpose()?.into())
}

/// A relay's own limits. Who comes through it has links that last, so that circuits are bounded by
/// their count and not, as by default, by two minutes and 128 KiB.
#[cfg(feature = "relay")]
fn relay(builder: &Builder, keypair: &Keypair) -> Toggle<relay::Behaviour> {
    let config = relay::Config {
        max_circuits: builder.relayed_max as usize,
        max_circuits_per_peer: (builder.relayed_max as usize).min(16),
        max_circuit_duration: Duration::from_secs(24 * 60 * 60),
        max_circuit_bytes: 0,
        ..relay::Config::default()
    };
    let local = keypair.public().to_peer_id();
    let is_relay = builder.relayed_max > 0;
    is_relay
        .then(|| relay::Behaviour::new(local, config))
        .into()
}

pub(crate) fn not_set_up(error: impl ToString) -> ListenError {
    ListenError::NotSetUp {
        detail: error.to_string(),
    }
}

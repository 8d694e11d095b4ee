//! The stack below: transports, limits, sign of life, and our protocol.

use std::sync::Arc;
use std::time::Duration;

use leno_transport_trait::{MESSAGE_BYTES_MAX, PeerId};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{SwarmBuilder, connection_limits, noise, ping, tcp, yamux};

use crate::behaviour::{Behaviour, Shared};
use crate::builder::{Builder, ListenError};
use crate::wire::Bounds;

/// The protocols of a connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Protocols {
    // First, so that no other protocol sees a connection above the limit.
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    pub(crate) leno: Behaviour,
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

pub(crate) fn not_set_up(error: impl ToString) -> ListenError {
    ListenError::NotSetUp {
        detail: error.to_string(),
    }
}

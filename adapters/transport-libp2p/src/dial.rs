//! One dial: how it is put to libp2p, and what its failure means.

use leno_transport_trait::{Address, PeerId, TransportError};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, connection_limits};
use tokio::sync::oneshot;

use crate::behaviour::NotEd25519;
use crate::peer::{from_libp2p, to_libp2p};

pub(crate) type DialReply = oneshot::Sender<Result<PeerId, TransportError>>;

/// A dial of which the handle waits to hear.
pub(crate) struct Dial {
    pub(crate) address: Address,
    pub(crate) place: Multiaddr,
    /// Who should answer, or did.
    pub(crate) peer: Option<PeerId>,
    /// Whether there is, or was, a connection.
    pub(crate) established: bool,
    pub(crate) reply: DialReply,
}

impl Dial {
    /// Answers that it led nowhere.
    pub(crate) fn fail(self, error: &DialError) {
        // Whoever asked may have given up waiting.
        let _ = self
            .reply
            .send(Err(dial_error(self.address, self.peer, error)));
    }

    /// Answers that there was a connection, or nearly, but no link.
    pub(crate) fn give_up(self, detail: &str) {
        let (address, detail) = (self.address, detail.to_owned());
        let _ = self
            .reply
            .send(Err(TransportError::Unreachable { address, detail }));
    }
}

/// Says to libp2p whom to dial, and where; only the last place if it is not said whom.
pub(crate) fn options(peer: Option<PeerId>, places: Vec<Multiaddr>) -> DialOpts {
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

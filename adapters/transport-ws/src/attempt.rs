//! One dial: whom it is for, and what became of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use leno_transport_trait::{Address, PeerId, TransportError};
use tokio::sync::Notify;

use crate::address::Place;

/// Why a connection did not become a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// Nobody was reached, or nobody who speaks as we do.
    Unreachable(String),
    /// Somebody else than expected.
    WrongIdentity { expected: PeerId, found: PeerId },
    /// This endpoint itself.
    OwnSelf,
    /// A limit of this endpoint.
    TooMany(String),
    /// There is another connection to the peer, which is the link.
    Duplicate,
    /// This side hung up meanwhile.
    Cancelled,
    /// What the port says of it.
    Port(TransportError),
}

impl Refused {
    pub(crate) fn into_error(self, address: &Address) -> TransportError {
        let address = address.clone();
        let detail = match self {
            Self::Unreachable(detail) => detail,
            Self::WrongIdentity { expected, found } => {
                return TransportError::WrongIdentity { expected, found };
            }
            Self::OwnSelf => return TransportError::DialledSelf { address },
            Self::TooMany(detail) => return TransportError::TooManyConnections { detail },
            Self::Duplicate => "the connection ended before there was a link".to_owned(),
            Self::Cancelled => "this side hung up".to_owned(),
            Self::Port(error) => return error,
        };
        TransportError::Unreachable { address, detail }
    }
}

/// A dial under way, shared by those who wait for it and the task that does it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) place: Place,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug)]
struct State {
    /// Who should answer, or did.
    peer: Option<PeerId>,
    refused: Option<Refused>,
}

impl Attempt {
    pub(crate) fn new(place: Place) -> Self {
        let state = State {
            peer: place.peer,
            refused: None,
        };
        Self {
            place,
            state: Mutex::new(state),
            ended: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.lock().peer
    }

    pub(crate) fn found(&self, peer: PeerId) {
        self.lock().peer = Some(peer);
    }

    /// What it came to, if it did not make a link; the first word counts.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.lock().refused.clone()
    }

    /// It leads nowhere: the task that dials stops.
    pub(crate) fn end(&self, refused: Refused) {
        self.lock().refused.get_or_insert(refused);
        self.ended.notify_one();
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Refused {
        loop {
            if let Some(refused) = self.refused() {
                return refused;
            }
            self.ended.notified().await;
        }
    }
}

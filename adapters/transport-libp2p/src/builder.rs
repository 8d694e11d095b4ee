use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

/// What an endpoint is to be like; see [`Libp2p::listen`](crate::Libp2p::listen).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use leno_transport_libp2p::Builder;
///
/// let builder = Builder::new([7; 32])
///     .listen_on(["/ip4/127.0.0.1/tcp/0"])
///     .connections_max(2_000)
///     .stall_timeout(Duration::from_secs(10));
/// assert!(!format!("{builder:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct Builder {
    pub(crate) secret: Zeroizing<[u8; 32]>,
    pub(crate) listen_on: Vec<String>,
    pub(crate) announced: Vec<String>,
    pub(crate) connections_max: u32,
    pub(crate) connections_per_peer_max: u32,
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) queue_bytes: usize,
    pub(crate) stall_timeout: Duration,
    pub(crate) redial: RangeInclusive<Duration>,
    #[cfg(feature = "mdns")]
    pub(crate) finds_neighbours: bool,
    #[cfg(feature = "relay")]
    pub(crate) relayed_max: u32,
}

impl Builder {
    /// Begins with the device's Ed25519 secret (the 32-byte seed) and the defaults named below.
    #[must_use]
    pub fn new(secret: impl Into<Zeroizing<[u8; 32]>>) -> Self {
        Self {
            secret: secret.into(),
            listen_on: ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"]
                .map(Into::into)
                .into(),
            announced: Vec::new(),
            connections_max: 512,
            connections_per_peer_max: 4,
            handshake_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(15),
            queue_bytes: 4 * 1024 * 1024,
            stall_timeout: Duration::from_secs(30),
            redial: Duration::from_millis(250)..=Duration::from_secs(60),
            #[cfg(feature = "mdns")]
            finds_neighbours: false,
            #[cfg(feature = "relay")]
            relayed_max: 0,
        }
    }

    /// Listens on these multiaddrs, and no others; by default on any free port of every IPv4
    /// interface, over TCP and over QUIC. None at all makes an endpoint that only dials.
    ///
    /// With the feature `relay`, `<relay's address>/p2p/<relay>/p2p-circuit` is listened on too: that
    /// relay is dialled and kept, as a peer like any other, and passes others on to this endpoint. A
    /// relay that is not there now is no error; it is tried again.
    #[must_use]
    pub fn listen_on(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.listen_on = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Announces this endpoint on the local network by mDNS, and reports who else is there as
    /// [`Discovered`](leno_transport_trait::Event::Discovered). Nobody found is dialled. Off by default:
    /// everybody on the network then sees the device's key and addresses.
    #[cfg(feature = "mdns")]
    #[must_use]
    pub fn find_neighbours(mut self) -> Self {
        self.finds_neighbours = true;
        self
    }

    /// Passes on up to so many connections between others at once, who are reached through this
    /// endpoint by listening on `<its address>/p2p-circuit`. It sees who talks to whom and how much,
    /// not what. None by default.
    #[cfg(feature = "relay")]
    #[must_use]
    pub fn relay_for_others(mut self, connections_max: u32) -> Self {
        self.relayed_max = connections_max;
        self
    }

    /// Also names these multiaddrs to others: where a router forwards from, or a fixed public address.
    #[must_use]
    pub fn announce(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.announced = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Allows at most so many connections, over all peers; 512 by default.
    #[must_use]
    pub fn connections_max(mut self, count: u32) -> Self {
        self.connections_max = count;
        self
    }

    /// Allows at most so many connections to one peer; 4 by default.
    ///
    /// Only one of them is the link. Two sides that dial at once, or a peer that comes back before the
    /// end of its old connection was noticed, need another one for a moment.
    #[must_use]
    pub fn connections_per_peer_max(mut self, count: u32) -> Self {
        self.connections_per_peer_max = count;
        self
    }

    /// Gives a connection so long to come up, and then the other side for its greeting; 30 s by default.
    ///
    /// The 10 s that libp2p has, and the 5 s of its QUIC, are too few for a network that needs a second
    /// each way and loses much.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Closes a connection on which no link came about after so long; 10 s by default.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Asks every peer for a sign of life so often; 15 s by default.
    ///
    /// A peer that does not answer within the same time, and 5 s more, loses its link.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// Holds so many bytes for each link to send, and as many, over all links, received and not yet
    /// taken by `next`; 4 MiB by default. One message always fits.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Cuts a link whose peer takes nothing, or does not go on with a message, for so long; 30 s by
    /// default.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Dials a lost peer again after the start of this range, doubling up to its end; 250 ms to 60 s
    /// by default. Each wait is shortened at random by up to half.
    #[must_use]
    pub fn redial(mut self, wait: RangeInclusive<Duration>) -> Self {
        self.redial = wait;
        self
    }
}

impl fmt::Debug for Builder {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listen_on", &self.listen_on)
            .finish_non_exhaustive()
    }
}

/// Why an endpoint could not be made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ListenError {
    /// The caller's mistake: not a multiaddr of TCP or QUIC.
    #[error("address {address} is not understood: {detail}")]
    AddressNotUnderstood {
        /// The refused text.
        address: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The system does not let this address be listened on; it may be in use.
    #[error("cannot listen on {address}: {detail}")]
    CannotListen {
        /// The refused address.
        address: String,
        /// What the system said.
        detail: String,
    },
    /// The network stack could not be set up.
    #[error("the network cannot be set up: {detail}")]
    NotSetUp {
        /// What went wrong.
        detail: String,
    },
}

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

/// What an endpoint is to be like; see [`Ws::listen`](crate::Ws::listen).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use leno_transport_ws::Builder;
///
/// let builder = Builder::new([7; 32])
///     .listen_on(["127.0.0.1:0"])
///     .announce(["ws://peer.example/leno"])
///     .stall_timeout(Duration::from_secs(10));
/// assert!(!format!("{builder:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct Builder {
    pub(crate) secret: Zeroizing<[u8; 32]>,
    pub(crate) listen_on: Vec<String>,
    pub(crate) announced: Vec<String>,
    #[cfg(feature = "tls")]
    pub(crate) trusted: Vec<Vec<u8>>,
    pub(crate) connections_max: u32,
    pub(crate) connections_per_peer_max: u32,
    pub(crate) strangers_max: u32,
    pub(crate) strangers_per_ip_max: u32,
    pub(crate) handshake_timeout: Duration,
    pub(crate) alive_interval: Duration,
    pub(crate) silence_timeout: Duration,
    pub(crate) queue_bytes: usize,
    pub(crate) stall_timeout: Duration,
    pub(crate) redial: RangeInclusive<Duration>,
}

impl Builder {
    /// Begins with the device's Ed25519 secret (the 32-byte seed) and the defaults named below. It
    /// listens nowhere: such an endpoint only dials, or takes what [`Ws::accept`](crate::Ws::accept)
    /// gives it.
    #[must_use]
    pub fn new(secret: impl Into<Zeroizing<[u8; 32]>>) -> Self {
        Self {
            secret: secret.into(),
            listen_on: Vec::new(),
            announced: Vec::new(),
            #[cfg(feature = "tls")]
            trusted: Vec::new(),
            connections_max: 512,
            connections_per_peer_max: 4,
            strangers_max: 64,
            strangers_per_ip_max: 16,
            handshake_timeout: Duration::from_secs(30),
            alive_interval: Duration::from_secs(15),
            silence_timeout: Duration::from_secs(45),
            queue_bytes: 4 * 1024 * 1024,
            stall_timeout: Duration::from_secs(30),
            redial: Duration::from_millis(250)..=Duration::from_secs(60),
        }
    }

    /// Listens on these socket addresses, `0.0.0.0:4001` or `[::]:0` for instance, and no others.
    #[must_use]
    pub fn listen_on(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.listen_on = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Also names these URLs to others, `wss://hub.example/leno` for instance: where a proxy or a
    /// router forwards from. Each ends in `/leno`.
    #[must_use]
    pub fn announce(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.announced = urls.into_iter().map(Into::into).collect();
        self
    }

    /// Believes these certificate authorities too, each one certificate in DER, besides Mozilla's.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn trust(mut self, certificates: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        self.trusted = certificates.into_iter().map(Into::into).collect();
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

    /// Holds at most so many connections that have not proven a device's key yet, over all, and from
    /// one IP address (of IPv6: one network of 64 bits); 64 and 16 by default. More are closed at once.
    #[must_use]
    pub fn strangers_max(mut self, total: u32, per_ip: u32) -> Self {
        self.strangers_max = total;
        self.strangers_per_ip_max = per_ip;
        self
    }

    /// Closes a connection on which no link came about after so long; 30 s by default.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Gives a sign of life so often if there is nothing else to say, 15 s by default, and takes a link
    /// for lost on which nothing came for `silence`, 45 s by default.
    #[must_use]
    pub fn alive(mut self, interval: Duration, silence: Duration) -> Self {
        self.alive_interval = interval;
        self.silence_timeout = silence;
        self
    }

    /// Holds about so many bytes for each link to send, and as many, over all links, received and not
    /// yet taken by `next`; 4 MiB by default. One message always fits.
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
            .field("announced", &self.announced)
            .finish_non_exhaustive()
    }
}

/// Why an endpoint could not be made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ListenError {
    /// The caller's mistake: not a socket address, or not a URL to announce.
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
    /// There is no randomness, or no use in the certificates to trust.
    #[error("the endpoint cannot be set up: {detail}")]
    NotSetUp {
        /// What went wrong.
        detail: String,
    },
}

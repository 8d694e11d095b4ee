use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leno_identity::SigningKey;
use leno_transport_trait::{Address, Event, LinkId, Links, PeerId, Transport, TransportError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::tungstenite::http;

use crate::address::{Place, named, of_socket};
use crate::builder::{Builder, ListenError};
use crate::connection::{Bounds, Counters};
use crate::endpoint::{Endpoint, Limits, lock};
use crate::gate::Gate;
use crate::listen::{bind, reachable, serve};
use crate::noise::Keys;
use crate::socket::answer;
use crate::table::Table;
use crate::tls::Tls;

/// An endpoint on web sockets.
///
/// Each connection is a task, which dropping this value ends. See the crate's front page.
pub struct Ws {
    endpoint: Arc<Endpoint>,
    listeners: Vec<AbortHandle>,
    listening: Vec<SocketAddr>,
    announced: Vec<Address>,
}

fn not_set_up(error: impl ToString) -> ListenError {
    ListenError::NotSetUp {
        detail: error.to_string(),
    }
}

impl Ws {
    /// Makes an endpoint and resolves when it listens.
    ///
    /// # Errors
    ///
    /// - [`ListenError::AddressNotUnderstood`] for an address to listen on, or a URL to announce.
    /// - [`ListenError::CannotListen`] if the system refuses one; none of the others is kept.
    /// - [`ListenError::NotSetUp`] without a source of randomness, or for a certificate to trust that
    ///   is none.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O.
    pub async fn listen(builder: Builder) -> Result<Self, ListenError> {
        let device = SigningKey::from_secret_bytes(&builder.secret).map_err(not_set_up)?;
        let local = PeerId(device.verifying_key().to_bytes());
        let announced = builder.announced.iter().map(|url| {
            named(url, local).map_err(|error| ListenError::AddressNotUnderstood {
                address: url.clone(),
                detail: error.to_string(),
            })
        });
        let announced = announced.collect::<Result<_, _>>()?;
        let mut listeners = Vec::new();
        for text in &builder.listen_on {
            listeners.push(bind(text).await?);
        }
        let endpoint = Arc::new(endpoint(&builder, &device, local)?);
        let mut ws = Self {
            endpoint: endpoint.clone(),
            listeners: Vec::new(),
            listening: Vec::new(),
            announced,
        };
        let mut tasks = JoinSet::new();
        for (listener, socket) in listeners {
            ws.listening.push(socket);
            let task = tasks.spawn(serve(endpoint.clone(), listener));
            ws.listeners.push(task);
        }
        *lock(&endpoint.tasks) = Some(tasks);
        Ok(ws)
    }

    /// Takes a connection that somebody else accepted, and answers HTTP's upgrade on it.
    ///
    /// `from` is who is at the other end, to count strangers by; `None` if that is not known, behind a
    /// proxy for instance. Resolves at once: if a device proves its key, a link is reported.
    ///
    /// # Errors
    ///
    /// [`TransportError::TooManyConnections`] if there are too many strangers,
    /// [`TransportError::Closed`] after `close`. The connection was dropped.
    pub fn accept(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        from: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        self.take(stream, from, false)
    }

    /// Takes a connection on which a web server of yours answered HTTP's upgrade, with the
    /// subprotocol `leno.1`, as [`Ws::answer`] says: so peers and pages can share a port.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn accept_upgraded(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        from: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        self.take(stream, from, true)
    }

    /// Answers a request for HTTP's upgrade that a web server of yours read, for
    /// [`accept_upgraded`](Self::accept_upgraded) to go on with the connection.
    ///
    /// # Errors
    ///
    /// The status to refuse it with: the path does not end in `/leno`, or it is no such request.
    ///
    /// # Examples
    ///
    /// ```
    /// use leno_transport_ws::{Ws, http};
    ///
    /// let request = http::Request::get("https://hub.example/leno")
    ///     .header("connection", "upgrade")
    ///     .header("upgrade", "websocket")
    ///     .header("sec-websocket-version", "13")
    ///     .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    ///     .header("sec-websocket-protocol", "leno.1")
    ///     .body(())?;
    /// let answer = Ws::answer(&request).map_err(|status| status.to_string())?;
    /// assert_eq!(answer.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    /// assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Source
    ///
    /// RFC 6455, section 4.2; the key and its answer are those of section 1.3.
    pub fn answer<B>(request: &http::Request<B>) -> Result<http::Response<()>, http::StatusCode> {
        answer(request)
    }

    fn take(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        from: Option<IpAddr>,
        upgraded: bool,
    ) -> Result<(), TransportError> {
        if self.endpoint.links.is_closed() {
            return Err(TransportError::Closed);
        }
        let taken = self.endpoint.accept(Box::new(stream), from, upgraded);
        taken.ok_or_else(|| TransportError::TooManyConnections {
            detail: "of which nobody knows yet who is there".to_owned(),
        })
    }

    /// Returns how many bytes this endpoint has sent and received, on all links so far.
    ///
    /// Encrypted messages are counted; handshakes and what web sockets, TLS, TCP and IP add are not.
    #[must_use]
    pub fn bytes_on_wire(&self) -> (u64, u64) {
        let counters = &self.endpoint.counters;
        (
            counters.sent.load(Ordering::Relaxed),
            counters.received.load(Ordering::Relaxed),
        )
    }
}

fn endpoint(
    builder: &Builder,
    device: &SigningKey,
    local: PeerId,
) -> Result<Endpoint, ListenError> {
    let instance = getrandom::u64().map_err(not_set_up)?;
    #[cfg(feature = "tls")]
    let tls = Tls::new(&builder.trusted).map_err(not_set_up)?;
    #[cfg(not(feature = "tls"))]
    let tls = Tls;
    Ok(Endpoint {
        local,
        keys: Keys::generate(device).map_err(not_set_up)?,
        tls,
        links: Links::new(builder.queue_bytes),
        counters: Arc::<Counters>::default(),
        gate: Gate::new(builder.strangers_max, builder.strangers_per_ip_max),
        bounds: Bounds {
            stall: builder.stall_timeout,
            alive: builder.alive_interval,
            silence: builder.silence_timeout,
        },
        limits: Limits {
            connections_max: builder.connections_max,
            connections_per_peer_max: builder.connections_per_peer_max,
            handshake: builder.handshake_timeout,
            queue_bytes: builder.queue_bytes,
            redial: builder.redial.clone(),
        },
        table: Mutex::new(Table::new(local, instance)),
        changed: Notify::new(),
        tasks: Mutex::default(),
    })
}

#[async_trait]
impl Transport for Ws {
    fn local(&self) -> PeerId {
        self.endpoint.local
    }

    fn addresses(&self) -> Vec<Address> {
        if self.endpoint.links.is_closed() {
            return Vec::new();
        }
        let listening = reachable(&self.listening);
        let listening = listening.into_iter().map(|it| of_socket(it, self.local()));
        self.announced.iter().cloned().chain(listening).collect()
    }

    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        Place::parse(address).ok()?.peer
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        if self.endpoint.links.is_closed() {
            return Err(TransportError::Closed);
        }
        let place = Place::parse(address)?;
        if place.peer == Some(self.endpoint.local) {
            let address = address.clone();
            return Err(TransportError::DialledSelf { address });
        }
        if let Some(peer) = place.peer {
            let mut table = lock(&self.endpoint.table);
            if table.is_live(peer) {
                table.remember(peer, &place);
                return Ok(peer);
            }
        }
        let attempt = self.endpoint.begin(place);
        self.endpoint.settled(&attempt).await
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        let peer = self.endpoint.links.check(link, &message)?;
        let connection = lock(&self.endpoint.table).connection(peer, link);
        let sent = match connection {
            Some(connection) => connection.outbox.push(message).await,
            None => false,
        };
        if sent {
            Ok(())
        } else {
            Err(TransportError::LinkOver { link })
        }
    }

    async fn next(&self) -> Option<Event> {
        self.endpoint.links.next().await
    }

    async fn hang_up(&self, peer: PeerId) {
        lock(&self.endpoint.table).hang_up(&self.endpoint.links, peer);
        self.endpoint.changed.notify_waiters();
    }

    async fn close(&self) {
        self.listeners.iter().for_each(AbortHandle::abort);
        self.endpoint.close().await;
    }
}

impl Drop for Ws {
    fn drop(&mut self) {
        // Dropping the tasks ends them, and with them every socket.
        let _ = lock(&self.endpoint.tasks).take();
    }
}

impl fmt::Debug for Ws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ws")
            .field("local", &self.endpoint.local)
            .field("listening", &self.listening)
            .finish_non_exhaustive()
    }
}

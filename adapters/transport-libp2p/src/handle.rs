use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leno_transport_trait::{Address, Event, LinkId, PeerId, Transport, TransportError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::behaviour::Shared;
use crate::builder::{Builder, ListenError};
use crate::driver::{Command, start};
use crate::link::lock;
use crate::peer::destination;

/// An endpoint on libp2p: TCP with Noise and Yamux, and QUIC.
///
/// The swarm runs in one task, which dropping this value ends. See the crate's front page.
pub struct Libp2p {
    pub(crate) local: PeerId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) addresses: Arc<Mutex<Vec<Address>>>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) task: JoinHandle<()>,
}

impl Libp2p {
    /// Makes an endpoint and resolves when it listens.
    ///
    /// # Errors
    ///
    /// - [`ListenError::AddressNotUnderstood`] for an address to listen on or to announce.
    /// - [`ListenError::CannotListen`] if the system refuses one; none of the others is kept.
    /// - [`ListenError::NotSetUp`] without a source of randomness or a usable network stack.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O.
    pub async fn listen(builder: Builder) -> Result<Self, ListenError> {
        start(builder).await
    }

    /// Returns how many bytes this endpoint has sent and received, on all links so far.
    ///
    /// Messages with their lengths and greetings are counted; what Noise, Yamux, QUIC, TCP and IP add
    /// is not.
    #[must_use]
    pub fn bytes_on_wire(&self) -> (u64, u64) {
        let counters = &self.shared.counters;
        (
            counters.sent.load(Ordering::Relaxed),
            counters.received.load(Ordering::Relaxed),
        )
    }

    /// Gives the swarm task a command and waits for its answer; `None` if the task is over.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

#[async_trait]
impl Transport for Libp2p {
    fn local(&self) -> PeerId {
        self.local
    }

    fn addresses(&self) -> Vec<Address> {
        lock(&self.addresses).clone()
    }

    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        destination(address).ok()?.peer
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        let address = address.clone();
        let answer = self.ask(|reply| Command::Dial { address, reply }).await;
        answer.unwrap_or(Err(TransportError::Closed))
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        self.shared.links.check(link, &message)?;
        let live = lock(&self.shared.live).get(&link).cloned();
        let sent = match live {
            Some(live) => live.outbox.push(message).await,
            None => false,
        };
        if sent {
            Ok(())
        } else {
            Err(TransportError::LinkOver { link })
        }
    }

    async fn next(&self) -> Option<Event> {
        self.shared.links.next().await
    }

    async fn hang_up(&self, peer: PeerId) {
        let _ = self.ask(|reply| Command::HangUp { peer, reply }).await;
    }

    async fn close(&self) {
        self.shared.links.close();
        lock(&self.addresses).clear();
        let _ = self.ask(|reply| Command::Close { reply }).await;
    }
}

impl Drop for Libp2p {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Libp2p {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libp2p")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

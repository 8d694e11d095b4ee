//! The endpoint: what all of its tasks share.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use leno_transport_trait::{Links, PeerId, TransportError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::address::Place;
use crate::attempt::{Attempt, Refused};
use crate::connection::{Bounds, Connection, Counters, LINGER, Receiver, Sender, run};
use crate::gate::{Gate, Pass};
use crate::noise::{Handshake, Keys, NoiseError, Opener, Sealer};
use crate::socket::{self, Io, Socket};
use crate::table::Table;
use crate::tls::Tls;
use crate::wire::{Frame, Greeting};

/// What the tasks of an endpoint share.
pub(crate) struct Endpoint {
    pub(crate) local: PeerId,
    pub(crate) keys: Keys,
    pub(crate) tls: Tls,
    pub(crate) links: Links,
    pub(crate) counters: Arc<Counters>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) bounds: Bounds,
    pub(crate) limits: Limits,
    pub(crate) table: Mutex<Table>,
    /// Something in the table changed that a dial may wait for.
    pub(crate) changed: Notify,
    /// All tasks; `None` once they are ended.
    pub(crate) tasks: Mutex<Option<JoinSet<()>>>,
}

pub(crate) struct Limits {
    pub(crate) connections_max: u32,
    pub(crate) connections_per_peer_max: u32,
    pub(crate) handshake: Duration,
    pub(crate) queue_bytes: usize,
    pub(crate) redial: RangeInclusive<Duration>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that became the link.
struct Agreed {
    connection: Arc<Connection>,
    receiver: Receiver,
    sender: Sender,
    /// What this side still has to say first.
    answer: Option<Greeting>,
    _entry: Entry,
}

/// A connection in the table, until it is dropped.
struct Entry {
    endpoint: Arc<Endpoint>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.endpoint.table).leave(self.number);
        self.endpoint.changed.notify_waiters();
    }
}

impl Endpoint {
    /// Runs a task until it or the endpoint ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = &mut *lock(&self.tasks) {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    /// Takes a connection from outside; `None` if there are too many strangers.
    pub(crate) fn accept(
        self: &Arc<Self>,
        io: Box<dyn Io>,
        from: Option<IpAddr>,
        upgraded: bool,
    ) -> Option<()> {
        let pass = self.gate.enter(from)?;
        let endpoint = self.clone();
        self.spawn(async move {
            // Whoever fails to become a peer hears nothing more, and nobody here needs to know.
            let _ = endpoint.serve(io, upgraded, pass).await;
        });
        Some(())
    }

    async fn serve(
        self: &Arc<Self>,
        io: Box<dyn Io>,
        upgraded: bool,
        pass: Pass,
    ) -> Result<(), Refused> {
        let agreeing = async {
            // Until there is a link it counts among the strangers.
            let _pass = pass;
            let socket = match upgraded {
                true => socket::adopt(io).await,
                false => socket::upgrade(io).await.map_err(Refused::Unreachable)?,
            };
            self.agree(socket, None).await
        };
        let agreed = self.in_time(agreeing).await?;
        self.carry(agreed).await;
        Ok(())
    }

    async fn in_time<T>(
        &self,
        agreeing: impl Future<Output = Result<T, Refused>>,
    ) -> Result<T, Refused> {
        let late = || Refused::Unreachable("no link came about in time".to_owned());
        let agreed = timeout(self.limits.handshake, agreeing).await;
        agreed.unwrap_or_else(|_| Err(late()))
    }

    /// Carries the link until it ends.
    async fn carry(self: &Arc<Self>, agreed: Agreed) {
        let Agreed {
            connection,
            receiver,
            sender,
            answer,
            _entry,
        } = agreed;
        let links = &self.links;
        let reason = run(&connection, links, receiver, sender, answer, self.bounds).await;
        connection.outbox.end();
        let again = lock(&self.table).ended(links, &connection, &reason);
        if again {
            self.spawn(self.clone().redial(connection.peer));
        }
    }

    /// Has both sides prove their keys, and agree that this connection is the link. Without an attempt
    /// the other side dialled.
    async fn agree(
        self: &Arc<Self>,
        mut socket: Socket,
        attempt: Option<&Attempt>,
    ) -> Result<Agreed, Refused> {
        let (peer, sealer, opener) = self.shake_hands(&mut socket, attempt).await?;
        let entry = self.enter(peer)?;
        self.until_parted(peer).await;
        let counters = &self.counters;
        let (sink, stream) = socket.split();
        let mut sender = Sender {
            sink,
            sealer,
            counters: counters.clone(),
        };
        let mut receiver = Receiver {
            stream,
            opener,
            counters: counters.clone(),
        };
        let (is_arbiter, greeting) = {
            let table = lock(&self.table);
            (table.is_arbiter_for(peer), table.greeting_for(peer))
        };
        if !is_arbiter {
            let greeted = sender
                .send(Frame::Greeting(greeting), self.bounds.stall)
                .await;
            greeted.map_err(|reason| Refused::Unreachable(reason.to_string()))?;
        }
        let theirs = receiver.greeting().await.map_err(Refused::Unreachable)?;
        let connection = {
            let mut table = lock(&self.table);
            if let Some(refused) = attempt.and_then(Attempt::refused) {
                return Err(refused);
            }
            let queue_bytes = self.limits.queue_bytes;
            let number = entry.number;
            let connection = table.greeted(&self.links, peer, number, theirs, queue_bytes)?;
            if let Some(attempt) = attempt {
                table.remember(peer, &attempt.place);
            }
            connection
        };
        self.changed.notify_waiters();
        Ok(Agreed {
            connection,
            receiver,
            sender,
            answer: is_arbiter.then_some(greeting),
            _entry: entry,
        })
    }

    fn enter(self: &Arc<Self>, peer: PeerId) -> Result<Entry, Refused> {
        let limits = &self.limits;
        let mut table = lock(&self.table);
        let number = table.enter(
            peer,
            limits.connections_max,
            limits.connections_per_peer_max,
        )?;
        Ok(Entry {
            endpoint: self.clone(),
            number,
        })
    }

    /// Waits until what was sent to a peer before this side hung up is through, or given up.
    async fn until_parted(&self, peer: PeerId) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if !lock(&self.table).is_lingering(peer) {
                return;
            }
            changed.await;
        }
    }

    /// Three messages, after which both sides know who is there.
    async fn shake_hands(
        &self,
        socket: &mut Socket,
        attempt: Option<&Attempt>,
    ) -> Result<(PeerId, Sealer, Opener), Refused> {
        let mut handshake = Handshake::new(&self.keys, attempt.is_some()).map_err(noise)?;
        let peer = match attempt {
            Some(attempt) => {
                write(socket, &mut handshake).await?;
                let peer = read(socket, &mut handshake).await?;
                let peer = self.expected(peer, attempt)?;
                write(socket, &mut handshake).await?;
                peer
            }
            None => {
                read(socket, &mut handshake).await?;
                write(socket, &mut handshake).await?;
                let peer = read(socket, &mut handshake).await?;
                peer.filter(|it| *it != self.local)
                    .ok_or(Refused::OwnSelf)?
            }
        };
        let (sealer, opener) = handshake.finish().map_err(noise)?;
        Ok((peer, sealer, opener))
    }

    /// Whether the device that answered is the one that was dialled.
    fn expected(&self, found: Option<PeerId>, attempt: &Attempt) -> Result<PeerId, Refused> {
        let found = found.ok_or_else(|| noise(NoiseError::NotProven))?;
        if let Some(expected) = attempt.place.peer.filter(|it| *it != found) {
            return Err(Refused::WrongIdentity { expected, found });
        }
        if found == self.local {
            return Err(Refused::OwnSelf);
        }
        attempt.found(found);
        Ok(found)
    }
}

fn noise(error: NoiseError) -> Refused {
    Refused::Unreachable(error.to_string())
}

async fn write(socket: &mut Socket, handshake: &mut Handshake<'_>) -> Result<(), Refused> {
    let message = handshake.write().map_err(noise)?;
    let sent = socket.send(Message::Binary(message.into())).await;
    sent.map_err(|error| Refused::Unreachable(error.to_string()))
}

async fn read(
    socket: &mut Socket,
    handshake: &mut Handshake<'_>,
) -> Result<Option<PeerId>, Refused> {
    let unreachable = |detail: &str| Refused::Unreachable(detail.to_owned());
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(message))) => return handshake.read(&message).map_err(noise),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                return Err(unreachable("a message of text in the handshake"));
            }
            Some(Ok(Message::Close(_))) | None => {
                return Err(unreachable("the connection ended in the handshake"));
            }
            Some(Err(error)) => return Err(Refused::Unreachable(error.to_string())),
        }
    }
}

// Dialling.
impl Endpoint {
    /// Begins a dial. It goes on whether or not anybody waits for it.
    pub(crate) fn begin(self: &Arc<Self>, place: Place) -> Arc<Attempt> {
        let attempt = Arc::new(Attempt::new(place));
        let number = {
            let mut table = lock(&self.table);
            let number = table.count();
            table.attempts.insert(number, attempt.clone());
            number
        };
        let (endpoint, dialling) = (self.clone(), attempt.clone());
        self.spawn(async move {
            let agreed = tokio::select! {
                biased;
                refused = dialling.ended() => Err(refused),
                agreed = endpoint.connect(&dialling) => agreed,
            };
            lock(&endpoint.table).attempts.remove(&number);
            match agreed {
                Ok(agreed) => {
                    endpoint.carry(agreed).await;
                    dialling.end(Refused::Duplicate);
                }
                Err(refused) => dialling.end(refused),
            }
            endpoint.changed.notify_waiters();
        });
        attempt
    }

    async fn connect(self: &Arc<Self>, attempt: &Attempt) -> Result<Agreed, Refused> {
        if let Some(peer) = attempt.peer() {
            self.until_parted(peer).await;
        }
        let connecting = async {
            let socket = socket::connect(&attempt.place, &self.tls).await;
            let socket = socket.map_err(Refused::Unreachable)?;
            self.agree(socket, Some(attempt)).await
        };
        self.in_time(connecting).await
    }

    /// Waits until a dial came to a link, by this connection or by another one, or to nothing.
    pub(crate) async fn settled(&self, attempt: &Attempt) -> Result<PeerId, TransportError> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(outcome) = self.outcome(attempt) {
                return outcome.map_err(|it| it.into_error(&attempt.place.address));
            }
            changed.await;
        }
    }

    fn outcome(&self, attempt: &Attempt) -> Option<Result<PeerId, Refused>> {
        if self.links.is_closed() {
            return Some(Err(Refused::Port(TransportError::Closed)));
        }
        let mut table = lock(&self.table);
        let (peer, refused) = (attempt.peer(), attempt.refused());
        if let Some(refused @ (Refused::Cancelled | Refused::WrongIdentity { .. })) = refused {
            return Some(Err(refused));
        }
        if let Some(peer) = peer.filter(|it| table.is_live(*it)) {
            table.remember(peer, &attempt.place);
            return Some(Ok(peer));
        }
        // While there are other connections, this one may have been a duplicate.
        let others = peer.map_or(0, |it| table.connections_with(it));
        refused.filter(|_| others == 0).map(Err)
    }

    /// Dials a lost peer until it has a link or nobody wants one any more.
    async fn redial(self: Arc<Self>, peer: PeerId) {
        let Some(number) = lock(&self.table).wanted.get(&peer).map(|it| it.number) else {
            return;
        };
        loop {
            // Without randomness all wait alike, which is no reason not to dial.
            let random = getrandom::u32().unwrap_or(0);
            let wait = {
                let mut table = lock(&self.table);
                let is_live = table.is_live(peer);
                let wanted = table.wanted.get_mut(&peer);
                let Some(wanted) = wanted.filter(|it| it.number == number) else {
                    return;
                };
                if is_live {
                    wanted.is_redialled = false;
                    return;
                }
                wanted.backoff.next(&self.limits.redial, random)
            };
            self.pause(wait).await;
            for mut place in self.places(peer, number) {
                // The peer is wanted, and nobody who has its address now.
                place.peer = Some(peer);
                let is_moot = self.places(peer, number).is_empty();
                if is_moot || self.settled(&self.begin(place)).await.is_ok() {
                    break;
                }
            }
        }
    }

    /// Where to dial a peer again: nowhere if it has a link, or the wish of this number is over.
    fn places(&self, peer: PeerId, number: u64) -> Vec<Place> {
        let table = lock(&self.table);
        let wanted = table.wanted.get(&peer).filter(|_| !table.is_live(peer));
        let wanted = wanted.filter(|it| it.number == number);
        wanted.map_or_else(Vec::new, |it| it.places.clone())
    }

    /// Waits so long, or until the endpoint closes.
    async fn pause(&self, wait: Duration) {
        let mut over = pin!(sleep(wait));
        while !self.links.is_closed() {
            let changed = self.changed.notified();
            tokio::select! {
                () = &mut over => return,
                () = changed => {}
            }
        }
    }

    /// Lets the peers know, and gives what was sent a bounded while to get through.
    pub(crate) async fn close(&self) {
        self.links.close();
        lock(&self.table).close();
        self.changed.notify_waiters();
        let parting = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                changed.as_mut().enable();
                if lock(&self.table).is_empty() {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout(LINGER, parting).await;
        let tasks = lock(&self.tasks).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }
}

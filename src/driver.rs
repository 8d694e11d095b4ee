//! The driver: one future that moves inputs into steps, steps into commits, commits onto the wire.
//!
//! A step takes all inputs that are there at once, up to a limit, so that writes which come together
//! share one signature and one commit. Nothing is told to anybody, and nothing is sent, before the
//! commit of its step is durable. A commit that does not succeed ends the driver: what is in memory
//! is thrown away, and opening the peer again finds the last good state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};
use futures_util::future::{Fuse, FusedFuture, FutureExt};
use futures_util::select_biased;
use futures_util::stream::{FuturesUnordered, StreamExt};
use leno_threads_core::ThreadId;
use leno_threads_core::store::Store;
use leno_threads_core::sync::{Level, PeerKey};
use leno_threads_core::thread::{Changes, ThreadEvent};
use leno_threads_db::Flushed;
use leno_transport_trait::{Address, Event as NetEvent, PeerId, Transport, TransportError};

use crate::clock::Clock;
use crate::error::Error;
use crate::event::Event;
use crate::watch::Watches;
use crate::work::{Core, Work};

#[cfg(not(target_arch = "wasm32"))]
type Boxed<T> = futures_util::future::BoxFuture<'static, T>;
#[cfg(target_arch = "wasm32")]
type Boxed<T> = futures_util::future::LocalBoxFuture<'static, T>;

/// Most commands that share a commit.
const COMMANDS_MAX: usize = 1024;

/// Most network events that share a commit: fewer, because each may carry a megabyte.
const NET_EVENTS_MAX: usize = 16;

/// Pauses before an address that did not answer is dialled again, doubled each time, in milliseconds.
const REDIAL_MILLIS_MIN: u64 = 500;
const REDIAL_MILLIS_MAX: u64 = 60_000;

/// What to do after a commit: tell the caller.
pub(crate) type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A caller's wish, run inside a step.
pub(crate) enum Command {
    /// Reads and writes.
    Work(Box<dyn FnOnce(&mut Work<'_>) -> Finish + Send>),
    /// Watches of documents.
    Watch(Box<dyn FnOnce(&mut Work<'_>, &mut Watches) + Send>),
    /// Dials.
    Connect(Address, oneshot::Sender<Result<PeerId, Error>>),
    /// Waits until level with all connected peers, or until the time.
    SyncOnce(u64, oneshot::Sender<SyncReport>),
    /// Stops or starts talking to peers.
    Pause(bool, oneshot::Sender<()>),
    /// Tells how many bytes went to and came from peers.
    Traffic(oneshot::Sender<Traffic>),
    /// Ends the driver.
    Close(oneshot::Sender<()>),
}

/// What [`Peer::sync_once`](crate::Peer::sync_once) came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SyncReport {
    /// Peers with which every shared thread is level.
    pub level: BTreeSet<PeerId>,
    /// Peers with which something was still to be told when the time was up.
    pub behind: BTreeSet<PeerId>,
}

impl SyncReport {
    /// Tells whether at least one peer was there and all were level in time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.level.is_empty() && self.behind.is_empty()
    }
}

/// Bytes of messages to and from peers since the peer was started, without the transport's framing.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// `sent / received`.
impl std::fmt::Display for Traffic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} / {}", self.sent, self.received)
    }
}

struct Waiter {
    until_millis: u64,
    /// Peers that exchange vectors again for this waiter.
    reply: oneshot::Sender<SyncReport>,
}

enum Done {
    Sent {
        peer: PeerKey,
        link: u64,
        outcome: Result<(), TransportError>,
    },
    Dialled {
        address: Address,
        reply: Option<oneshot::Sender<Result<PeerId, Error>>>,
        outcome: Result<PeerId, TransportError>,
    },
}

/// The future that runs a peer. Made by [`Builder::build`](crate::Builder::build); poll it with any
/// executor, or let [`Builder::start`](crate::Builder::start) spawn it.
pub struct Driver {
    pub(crate) core: Core,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) watches: Watches,
    links: BTreeMap<PeerKey, Link>,
    tasks: FuturesUnordered<Boxed<Done>>,
    waiters: Vec<Waiter>,
    redials: BTreeMap<Address, Redial>,
    dialling: BTreeSet<Address>,
    traffic: Traffic,
}

/// When an address that did not answer is dialled again.
#[derive(Default)]
struct Redial {
    at_millis: u64,
    wait_millis: u64,
}

struct Link {
    link: u64,
    sending: bool,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Driver")
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

/// What woke the driver.
enum Input {
    Command(Command),
    Net(NetEvent),
    Done(Done),
    Timer,
    Closed,
}

impl Driver {
    pub(crate) fn new(
        core: Core,
        store: Arc<dyn Store>,
        transport: Option<Arc<dyn Transport>>,
        clock: Arc<dyn Clock>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            core,
            store,
            transport,
            clock,
            commands,
            watches: Watches::default(),
            links: BTreeMap::new(),
            tasks: FuturesUnordered::new(),
            waiters: Vec::new(),
            redials: BTreeMap::new(),
            dialling: BTreeSet::new(),
            traffic: Traffic::default(),
        }
    }

    /// Runs until the peer is closed, its last handle is dropped, or its store fails.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if a commit did not succeed; open the peer again.
    pub async fn run(mut self) -> Result<(), Error> {
        let outcome = self.run_inner().await;
        if let Some(transport) = &self.transport {
            transport.close().await;
        }
        let closed = self.store.close().await;
        outcome?;
        Ok(closed?)
    }

    async fn run_inner(&mut self) -> Result<(), Error> {
        let transport = self.transport.clone();
        let mut net = next_event(transport.clone());
        for address in self.core.addresses.clone() {
            self.dial(address, None);
        }
        // What waited when the peer was last closed may be ready now.
        let mut inputs = vec![Input::Timer];
        loop {
            let close = self.step(&mut inputs).await?;
            if let Some(reply) = close {
                self.flush().await?;
                if let Some(reply) = reply {
                    // Whoever asked may have gone meanwhile.
                    let _ = reply.send(());
                }
                return Ok(());
            }
            self.send_all()?;
            self.answer_waiters();
            let mut timer = sleep(&self.clock, self.wake_millis());
            select_biased! {
                command = self.commands.next() => {
                    inputs.push(command.map_or(Input::Closed, Input::Command));
                }
                done = self.tasks.select_next_some() => inputs.push(Input::Done(done)),
                event = net => {
                    if let Some(event) = event {
                        inputs.push(Input::Net(event));
                        net = next_event(transport.clone());
                    }
                }
                () = timer => inputs.push(Input::Timer),
            }
            // What else is there already shares the commit.
            while inputs.len() < COMMANDS_MAX {
                match self.commands.try_recv() {
                    Ok(command) => inputs.push(Input::Command(command)),
                    Err(_) => break,
                }
            }
            let mut events = 0;
            while events < NET_EVENTS_MAX && !net.is_terminated() {
                let Some(event) = (&mut net).now_or_never() else {
                    break;
                };
                let Some(event) = event else { break };
                inputs.push(Input::Net(event));
                net = next_event(transport.clone());
                events += 1;
            }
        }
    }

    /// Runs inputs as one step and commits it. Returns whom to tell that the driver ends, if it does.
    #[allow(clippy::option_option, reason = "whether to end, and whom to tell")]
    async fn step(
        &mut self,
        inputs: &mut Vec<Input>,
    ) -> Result<Option<Option<oneshot::Sender<()>>>, Error> {
        let mut changes = Changes::new();
        let mut finishes: Vec<Finish> = Vec::new();
        let mut events = Vec::new();
        let mut gone = Vec::new();
        let mut dials = Vec::new();
        let mut done_tasks = Vec::new();
        let flushed;
        let mut close = None;
        {
            let view = self.store.view()?;
            let mut written = BTreeSet::new();
            for input in inputs.drain(..) {
                let mut work = Work {
                    core: &mut self.core,
                    view: &*view,
                    now_millis: self.clock.now_millis(),
                    changes: &mut changes,
                    written: &mut written,
                    events: &mut events,
                };
                match input {
                    Input::Command(Command::Work(command)) => finishes.push(command(&mut work)),
                    Input::Command(Command::Watch(command)) => {
                        command(&mut work, &mut self.watches);
                    }
                    Input::Command(Command::Connect(address, reply)) => {
                        work.remember_address(&address);
                        dials.push((address, reply));
                    }
                    Input::Command(Command::SyncOnce(until_millis, reply)) => {
                        for peer in self.links.keys() {
                            work.core.replica.refresh(peer);
                        }
                        self.waiters.push(Waiter {
                            until_millis,
                            reply,
                        });
                    }
                    Input::Command(Command::Pause(pause, reply)) => {
                        work.core.paused = pause;
                        if pause {
                            gone.extend(self.links.keys().copied());
                        } else {
                            for address in &work.core.addresses {
                                self.redials.insert(address.clone(), Redial::default());
                            }
                        }
                        let finish: Finish = Box::new(move |_| {
                            let _ = reply.send(());
                        });
                        finishes.push(finish);
                    }
                    Input::Command(Command::Traffic(reply)) => {
                        // Whoever asked may have gone meanwhile.
                        let _ = reply.send(self.traffic);
                    }
                    Input::Command(Command::Close(reply)) => close = Some(Some(reply)),
                    Input::Closed => close = close.or(Some(None)),
                    Input::Net(event) => {
                        if let NetEvent::Message { bytes, .. } = &event {
                            self.traffic.received += bytes.len() as u64;
                        }
                        handle_net(&mut self.links, &mut work, event, &mut gone);
                    }
                    Input::Done(done) => done_tasks.push(done),
                    Input::Timer => work.handle_timeout()?,
                }
            }
            let mut work = Work {
                core: &mut self.core,
                view: &*view,
                now_millis: self.clock.now_millis(),
                changes: &mut changes,
                written: &mut written,
                events: &mut events,
            };
            flushed = work.finish();
        }
        self.commit(changes, flushed, finishes, events).await?;
        for peer in gone {
            self.core.replica.disconnected(&peer);
            self.links.remove(&peer);
            if let Some(transport) = &self.transport {
                transport.hang_up(PeerId(peer.0)).await;
            }
        }
        for done in done_tasks {
            self.handle_done(done);
        }
        for (address, reply) in dials {
            self.dial(address, Some(reply));
        }
        self.redial();
        Ok(close)
    }

    async fn commit(
        &mut self,
        changes: Changes,
        flushed: Vec<(ThreadId, Flushed)>,
        finishes: Vec<Finish>,
        events: Vec<Event>,
    ) -> Result<(), Error> {
        let committed = if changes.batch.is_empty() {
            Ok(())
        } else {
            self.store.commit(changes.batch).await
        };
        if let Err(error) = committed {
            for finish in finishes {
                finish(Err(Error::Store(error.clone())));
            }
            return Err(error.into());
        }
        for (id, flushed) in flushed {
            if let Some(documents) = self.core.documents.get_mut(&id) {
                documents.settle(flushed);
            }
        }
        for finish in finishes {
            finish(Ok(()));
        }
        for (id, documents) in &mut self.core.documents {
            for event in documents.take_events() {
                if let Some(event) = self.watches.tell(*id, event) {
                    self.core
                        .subscribers
                        .tell(&Event::Documents { thread: *id, event });
                }
            }
        }
        if self.core.subscribers.is_empty() {
            return Ok(());
        }
        let touched: BTreeSet<_> = changes.events.iter().map(|(thread, _)| *thread).collect();
        for (thread, event) in changes.events {
            if let Some(event) = event_of(thread, event) {
                self.core.subscribers.tell(&event);
            }
        }
        for event in events {
            self.core.subscribers.tell(&event);
        }
        for peer in self.links.keys() {
            for thread in &touched {
                let Some(progress) = self.core.replica.progress(peer, thread) else {
                    continue;
                };
                let event = Event::Progress {
                    thread: *thread,
                    peer: PeerId(peer.0),
                    to_receive: progress.to_receive,
                    to_send: progress.to_send,
                };
                self.core.subscribers.tell(&event);
            }
        }
        Ok(())
    }

    /// Writes all dirty documents, so that the next start replays nothing.
    async fn flush(&mut self) -> Result<(), Error> {
        let mut changes = Changes::new();
        let mut flushed = Vec::new();
        for (id, documents) in &mut self.core.documents {
            flushed.push((*id, documents.flush(&mut changes.batch)));
        }
        self.commit(changes, flushed, Vec::new(), Vec::new()).await
    }

    /// Starts one send to each peer that has room and something coming.
    fn send_all(&mut self) -> Result<(), Error> {
        let Some(transport) = &self.transport else {
            return Ok(());
        };
        let idle: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| !link.sending)
            .map(|(peer, link)| (*peer, link.link))
            .collect();
        if idle.is_empty() {
            return Ok(());
        }
        let view = self.store.view()?;
        for (peer, link) in idle {
            let Some(bytes) = self.core.replica.poll_message(&*view, &peer)? else {
                continue;
            };
            self.traffic.sent += bytes.len() as u64;
            if let Some(link) = self.links.get_mut(&peer) {
                link.sending = true;
            }
            let transport = transport.clone();
            self.tasks.push(Box::pin(async move {
                let outcome = transport.send(PeerId(peer.0), bytes).await;
                Done::Sent {
                    peer,
                    link,
                    outcome,
                }
            }));
        }
        Ok(())
    }

    fn dial(&mut self, address: Address, reply: Option<oneshot::Sender<Result<PeerId, Error>>>) {
        let Some(transport) = self.transport.clone() else {
            if let Some(reply) = reply {
                // Whoever asked may have gone meanwhile.
                let _ = reply.send(Err(Error::NoTransport));
            }
            return;
        };
        self.dialling.insert(address.clone());
        self.tasks.push(Box::pin(async move {
            let outcome = transport.dial(&address).await;
            Done::Dialled {
                address,
                reply,
                outcome,
            }
        }));
    }

    /// Dials again what did not answer, when its pause is over.
    fn redial(&mut self) {
        if self.core.paused {
            return;
        }
        let now = self.clock.now_millis();
        let due: Vec<_> = self
            .redials
            .iter()
            .filter(|(address, redial)| {
                redial.at_millis <= now && !self.dialling.contains(*address)
            })
            .map(|(address, _)| address.clone())
            .collect();
        for address in due {
            self.dial(address, None);
        }
    }

    /// When there is something to do although nothing happens.
    fn wake_millis(&self) -> Option<u64> {
        let redial = self
            .redials
            .iter()
            .filter(|(address, _)| !self.core.paused && !self.dialling.contains(*address))
            .map(|(_, redial)| redial.at_millis)
            .min();
        let waiter = self.waiters.iter().map(|waiter| waiter.until_millis).min();
        [redial, waiter, self.core.replica.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Answers who waits to be level, and lifts the ban on writing from restored threads.
    fn answer_waiters(&mut self) {
        let core = &mut self.core;
        let links = &self.links;
        core.restored.retain(|thread| {
            !links
                .keys()
                .any(|peer| core.replica.level(peer, thread) == Level::Level)
        });
        if self.waiters.is_empty() {
            return;
        }
        let mut report = SyncReport::default();
        for peer in links.keys() {
            let level = core.replica.introduced(peer)
                && core
                    .replica
                    .ids()
                    .all(|thread| core.replica.level(peer, &thread) != Level::Behind);
            let side = if level {
                &mut report.level
            } else {
                &mut report.behind
            };
            side.insert(PeerId(peer.0));
        }
        let now = self.clock.now_millis();
        let done = report.is_complete() && self.dialling.is_empty();
        for waiter in std::mem::take(&mut self.waiters) {
            if done || waiter.until_millis <= now {
                // Whoever asked may have gone meanwhile.
                let _ = waiter.reply.send(report.clone());
            } else {
                self.waiters.push(waiter);
            }
        }
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Sent {
                peer,
                link,
                outcome,
            } => {
                // A send that did not succeed is followed by the end of its link.
                drop(outcome);
                if let Some(known) = self.links.get_mut(&peer).filter(|known| known.link == link) {
                    known.sending = false;
                }
            }
            Done::Dialled {
                address,
                reply,
                outcome,
            } => {
                self.dialling.remove(&address);
                match &outcome {
                    Ok(_) => {
                        self.redials.remove(&address);
                    }
                    Err(_) if self.core.addresses.contains(&address) => {
                        let redial = self.redials.entry(address).or_default();
                        redial.wait_millis =
                            (redial.wait_millis * 2).clamp(REDIAL_MILLIS_MIN, REDIAL_MILLIS_MAX);
                        redial.at_millis = self.clock.now_millis() + redial.wait_millis;
                    }
                    Err(_) => {}
                }
                if let Some(reply) = reply {
                    // Whoever asked may have gone meanwhile.
                    let _ = reply.send(outcome.map_err(Error::from));
                }
            }
        }
    }
}

fn handle_net(
    links: &mut BTreeMap<PeerKey, Link>,
    work: &mut Work<'_>,
    event: NetEvent,
    gone: &mut Vec<PeerKey>,
) {
    match event {
        NetEvent::Connected { peer, link } => {
            let key = PeerKey(peer.0);
            if work.core.paused {
                gone.push(key);
                return;
            }
            links.insert(
                key,
                Link {
                    link,
                    sending: false,
                },
            );
            let Core { replica, rng, .. } = &mut *work.core;
            replica.connected(key, rng);
            work.events.push(Event::Connected { peer });
        }
        NetEvent::Disconnected { peer, link, reason } => {
            let key = PeerKey(peer.0);
            if links.get(&key).is_some_and(|known| known.link == link) {
                links.remove(&key);
                work.core.replica.disconnected(&key);
            }
            work.events.push(Event::Disconnected {
                peer,
                reason: reason.to_string(),
            });
        }
        NetEvent::Message { from, link, bytes } => {
            let key = PeerKey(from.0);
            if links.get(&key).is_none_or(|known| known.link != link) {
                return;
            }
            if let Err(error) = work.handle_message(key, &bytes) {
                if error.ends_session() {
                    gone.push(key);
                }
                let error = with_causes(&error);
                work.events.push(Event::Refused { peer: from, error });
            }
        }
    }
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn event_of(thread: ThreadId, event: ThreadEvent) -> Option<Event> {
    Some(match event {
        ThreadEvent::Admitted { records, .. } => Event::Admitted { thread, records },
        ThreadEvent::GovernanceChanged | ThreadEvent::RosterChanged => {
            Event::GovernanceChanged { thread }
        }
        ThreadEvent::KeyCame { epoch, .. } => Event::KeyCame { thread, epoch },
        ThreadEvent::Waits { log, parked } => Event::Waits {
            thread,
            log,
            parked,
        },
        ThreadEvent::Quarantined { record, reason } => Event::Quarantined {
            thread,
            record,
            reason,
        },
        ThreadEvent::Forked { log } => Event::Forked { thread, log },
        ThreadEvent::OwnLogAhead { log } => Event::OwnLogAhead { thread, log },
        _ => return None,
    })
}

fn next_event(transport: Option<Arc<dyn Transport>>) -> Fuse<Boxed<Option<NetEvent>>> {
    match transport {
        Some(transport) => {
            let next: Boxed<_> = Box::pin(async move { transport.next().await });
            next.fuse()
        }
        None => Fuse::terminated(),
    }
}

fn sleep(clock: &Arc<dyn Clock>, until_millis: Option<u64>) -> Fuse<Boxed<()>> {
    match until_millis {
        Some(millis) => {
            let clock = clock.clone();
            let sleep: Boxed<_> = Box::pin(async move { clock.sleep_until(millis).await });
            sleep.fuse()
        }
        None => Fuse::terminated(),
    }
}

//! The driver: one future that moves inputs into steps, steps into commits, commits onto the wire.
//!
//! A step takes all inputs that are there at once, up to a limit, so that writes which come together
//! share one signature and one commit. Nothing is told to anybody, and nothing is sent, before the
//! commit of its step is durable. Rows that only note what peers keep may wait for the next commit,
//! see `held.rs`. A commit that does not succeed ends the driver: what is in memory
//! is thrown away, and opening the peer again finds the last good state. So does a store that fails
//! to read while something is written or taken in.

mod dial;
mod held;
mod link;
mod report;
mod stranger;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use futures_channel::{mpsc, oneshot};
use futures_util::future::{Fuse, FusedFuture, FutureExt};
use futures_util::select_biased;
use futures_util::stream::{FuturesUnordered, StreamExt};
use leno_threads_core::store::{Batch, Overlay, Store, StoreError, View};
use leno_threads_core::sync::PeerKey;
use leno_threads_core::thread::{Changes, ThreadEvent};
use leno_threads_core::{ThreadId, bug};
use leno_threads_db::Flushed;
use leno_transport_trait::{Address, Event as NetEvent, LinkId, PeerId, Transport, TransportError};

pub use report::{SyncReport, Traffic};

use crate::clock::Clock;
use crate::error::Error;
use crate::event::Event;
use crate::watch::{Told, Watches};
use crate::work::{Core, Work};
use dial::{Dialled, Dials};
use held::Held;
use link::Links;
use report::Waiter;

#[cfg(not(target_arch = "wasm32"))]
type Boxed<T> = futures_util::future::BoxFuture<'static, T>;
#[cfg(target_arch = "wasm32")]
type Boxed<T> = futures_util::future::LocalBoxFuture<'static, T>;

/// Most commands that share a commit.
const COMMANDS_MAX: usize = 1024;

/// Most network events that share a commit: fewer, because each may carry a megabyte.
const NET_EVENTS_MAX: usize = 16;

/// Most messages to one peer in a step: what comes in is waiting too.
const SENDS_MAX: u32 = 4;

/// What to do after a commit: tell the caller.
pub(crate) type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Who wants to know whether a peer was reached.
type DialReply = oneshot::Sender<Result<PeerId, Error>>;

/// A wish to watch, run inside a step.
pub(crate) type WatchCommand = Box<dyn FnOnce(&mut Work<'_>, &mut Watches) + Send>;

/// A caller's wish, run inside a step.
pub(crate) enum Command {
    /// Reads and writes.
    Work(Box<dyn FnOnce(&mut Work<'_>) -> Finish + Send>),
    /// Watches of documents.
    Watch(WatchCommand),
    /// Dials.
    Connect(Address, DialReply),
    /// Waits until level with all connected peers, or until the time.
    SyncOnce(u64, oneshot::Sender<SyncReport>),
    /// Stops or starts talking to peers.
    Pause(bool, oneshot::Sender<()>),
    /// Tells how many bytes went to and came from peers.
    Traffic(oneshot::Sender<Traffic>),
    /// Ends the driver.
    Close(oneshot::Sender<()>),
}

/// Something that was begun and is done.
enum Done {
    Sent {
        peer: PeerKey,
        link: LinkId,
    },
    Dialled {
        address: Address,
        reply: Option<DialReply>,
        outcome: Result<PeerId, TransportError>,
    },
}

/// The future that runs a peer. Made by [`Builder::build`](crate::Builder::build); poll it with any
/// executor, or let [`Builder::start`](crate::Builder::start) spawn it.
pub struct Driver {
    core: Core,
    store: Arc<dyn Store>,
    transport: Option<Arc<dyn Transport>>,
    clock: Arc<dyn Clock>,
    commands: mpsc::Receiver<Command>,
    watches: Watches,
    links: Links,
    dials: Dials,
    held: Held,
    tasks: FuturesUnordered<Boxed<Done>>,
    waiters: Vec<Waiter>,
    traffic: Traffic,
    /// What the clock showed in the last step.
    seen_millis: u64,
    /// Where callers read why there is no answer any more.
    ended: Arc<OnceLock<StoreError>>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Driver")
            .field("links", &self.links.live.len())
            .finish_non_exhaustive()
    }
}

/// What woke the driver.
enum Input {
    Command(Command),
    Net(NetEvent),
    Done(Done),
    Timer,
    /// The last handle is gone.
    Closed,
}

/// What a step leaves to be done once it is committed.
#[derive(Default)]
struct After {
    finishes: Vec<Finish>,
    events: Vec<Event>,
    dials: Vec<(Address, DialReply)>,
    close: Option<Close>,
}

/// The driver is to end; whoever asked for it is told when it has.
struct Close(Option<oneshot::Sender<()>>);

impl Driver {
    pub(crate) fn new(
        core: Core,
        store: Arc<dyn Store>,
        transport: Option<Arc<dyn Transport>>,
        clock: Arc<dyn Clock>,
        commands: mpsc::Receiver<Command>,
        ended: Arc<OnceLock<StoreError>>,
    ) -> Self {
        Self {
            core,
            store,
            transport,
            clock,
            commands,
            watches: Watches::default(),
            links: Links::default(),
            dials: Dials::default(),
            held: Held::default(),
            tasks: FuturesUnordered::new(),
            waiters: Vec::new(),
            traffic: Traffic::default(),
            seen_millis: 0,
            ended,
        }
    }

    /// Runs until the peer is closed, its last handle is dropped, or its store fails.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the store failed; open the peer again. Callers are told the same.
    pub async fn run(mut self) -> Result<(), Error> {
        let outcome = self.run_until_closed().await;
        // Nobody shall wait for an answer that will not come while the rest is closed.
        self.commands.close();
        if let Some(transport) = &self.transport {
            transport.close().await;
        }
        let closed = self.store.close().await;
        let Close(reply) = outcome?;
        if let Some(reply) = reply {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(());
        }
        Ok(closed?)
    }

    async fn run_until_closed(&mut self) -> Result<Close, Error> {
        let transport = self.transport.clone();
        let mut net = next_event(transport.clone());
        for address in self.core.addresses.clone() {
            self.dial(address, None, true);
        }
        // What waited when the peer was last closed may be ready now.
        let mut inputs = vec![Input::Timer];
        loop {
            if let Some(close) = self.step(&mut inputs).await? {
                self.flush().await?;
                return Ok(close);
            }
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
            // What else is there already shares the commit, and whoever is always there, such as
            // somebody who writes without a pause, keeps nobody else waiting.
            while inputs.len() < COMMANDS_MAX {
                match self.commands.try_recv() {
                    Ok(command) => inputs.push(Input::Command(command)),
                    Err(_) => break,
                }
            }
            while let Some(Some(done)) = self.tasks.next().now_or_never() {
                inputs.push(Input::Done(done));
            }
            let mut left = NET_EVENTS_MAX;
            while left > 0 && !net.is_terminated() {
                let Some(Some(event)) = (&mut net).now_or_never() else {
                    break;
                };
                inputs.push(Input::Net(event));
                net = next_event(transport.clone());
                left -= 1;
            }
            if left == 0 {
                // A flood never ends by itself, and what others send may come by a task of this thread.
                yield_once().await;
            }
            let now = self.clock.now_millis();
            if self.wake_millis().is_some_and(|at| at <= now) {
                inputs.push(Input::Timer);
            }
        }
    }

    /// Notes why the peer ends, so that all callers learn it.
    fn fail(&self, error: StoreError) -> Error {
        // The first reason counts.
        let _ = self.ended.set(error.clone());
        Error::Store(error)
    }

    /// Runs inputs as one step and commits it. Tells whether the driver is to end.
    async fn step(&mut self, inputs: &mut Vec<Input>) -> Result<Option<Close>, Error> {
        self.follow_clock();
        let mut changes = Changes::new();
        changes.batch = self.held.take();
        let mut after = After::default();
        let handled = {
            let store = self.store.clone();
            let view = store.view().map_err(|error| self.fail(error))?;
            self.handle_all(inputs, &*view, &mut changes, &mut after)
        };
        let flushed = handled.map_err(|error| self.fail(error))?;
        let batch = std::mem::take(&mut changes.batch);
        let batch = self.held.pass(batch, self.clock.now_millis());
        if bug!(SendBeforeCommit) {
            let store = self.store.clone();
            let view = store.view().map_err(|error| self.fail(error))?;
            self.send_from(&Overlay::new(&*view, &batch))?;
        }
        if bug!(TellBeforeCommit) {
            after.finishes.drain(..).for_each(|finish| finish(Ok(())));
        }
        let (dials, close) = (std::mem::take(&mut after.dials), after.close.take());
        self.commit(batch, &mut after.finishes).await?;
        // Who waits longest for others comes first: a watcher, who may wait for a write of another
        // peer, then the peers for a write of here, then the callers.
        self.tell_watchers(flushed);
        self.core.signals.tell();
        let sent = self.send_all();
        if matches!(sent, Ok(true)) && !after.finishes.is_empty() {
            // The connection's task writes before callers are woken, which takes as long.
            yield_once().await;
        }
        self.tell_callers(changes, after);
        sent?;
        if let Some(transport) = &self.transport {
            for peer in std::mem::take(&mut self.links.unwanted) {
                transport.hang_up(PeerId(peer.0)).await;
            }
        }
        for (address, reply) in dials {
            self.dial(address, Some(reply), true);
        }
        let to_dial = std::mem::take(&mut self.core.to_dial);
        if !self.core.paused {
            for address in to_dial {
                self.dial(address, None, true);
            }
            for address in self.dials.due(self.clock.now_millis()) {
                self.dial(address, None, false);
            }
        }
        Ok(close)
    }

    /// Brings forward what is planned by as much as the clock was set back: nobody waits longer for it.
    fn follow_clock(&mut self) {
        let now = self.clock.now_millis();
        let back = self.seen_millis.saturating_sub(now);
        self.seen_millis = now;
        if back > 0 {
            self.dials.clock_went_back(back);
            self.core.replica.clock_went_back(back);
            self.links.clock_went_back(back);
            self.core.signals.clock_went_back(back);
            self.core.rendezvous.clock_went_back(back);
            for waiter in &mut self.waiters {
                waiter.until_millis = waiter.until_millis.saturating_sub(back);
            }
        }
    }

    /// Runs inputs on a picture of the store.
    fn handle_all(
        &mut self,
        inputs: &mut Vec<Input>,
        view: &dyn View,
        changes: &mut Changes,
        after: &mut After,
    ) -> Result<Vec<(ThreadId, Flushed)>, StoreError> {
        let mut written = BTreeSet::new();
        let mut broken = None;
        for input in inputs.drain(..) {
            let mut events = Vec::new();
            let mut work = Work {
                core: &mut self.core,
                view,
                now_millis: self.clock.now_millis(),
                changes,
                written: &mut written,
                events: &mut events,
                broken: &mut broken,
            };
            match input {
                Input::Command(Command::Work(command)) => after.finishes.push(command(&mut work)),
                Input::Command(Command::Watch(command)) => command(&mut work, &mut self.watches),
                Input::Command(Command::Connect(address, reply)) => {
                    work.remember_address(&address);
                    if work.core.paused {
                        // Whoever asked may have gone meanwhile.
                        let _ = reply.send(Err(Error::Paused));
                    } else {
                        after.dials.push((address, reply));
                    }
                }
                Input::Command(Command::SyncOnce(until_millis, reply)) => {
                    for peer in self.links.live.keys() {
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
                        self.links.hang_up_all(&mut work);
                    } else {
                        self.dials.resume(&work.core.addresses);
                    }
                    after.finishes.push(Box::new(move |_| {
                        // Whoever asked may have gone meanwhile.
                        let _ = reply.send(());
                    }));
                }
                Input::Command(Command::Traffic(reply)) => {
                    // Whoever asked may have gone meanwhile.
                    let _ = reply.send(self.traffic);
                }
                Input::Command(Command::Close(reply)) => after.close = Some(Close(Some(reply))),
                Input::Closed => after.close = after.close.take().or(Some(Close(None))),
                Input::Net(event) => {
                    if let NetEvent::Message { bytes, .. } = &event {
                        self.traffic.received += bytes.len() as u64;
                    }
                    let transport = self.transport.as_deref();
                    self.links
                        .handle(&mut work, &mut self.dials, transport, event);
                }
                Input::Done(Done::Sent { peer, link }) => {
                    if let Some(link) = self.links.link_mut(&peer, link) {
                        link.is_sending = false;
                    }
                }
                Input::Done(Done::Dialled {
                    address,
                    reply,
                    outcome,
                }) => {
                    let key = outcome.as_ref().map(|peer| PeerKey(peer.0));
                    if let Ok(peer) = key {
                        self.links.reach(peer);
                    }
                    if let Dialled::Useless = self.dials.end(&address, key, work.now_millis) {
                        work.forget_address(&address);
                    }
                    if let Some(reply) = reply {
                        // Whoever asked may have gone meanwhile.
                        let _ = reply.send(outcome.map_err(Error::from));
                    }
                }
                Input::Timer => work.handle_timeout()?,
            }
            after.events.append(&mut events);
            if let Some(error) = broken.take() {
                return Err(error);
            }
        }
        let mut work = Work {
            core: &mut self.core,
            view,
            now_millis: self.clock.now_millis(),
            changes,
            written: &mut written,
            events: &mut after.events,
            broken: &mut broken,
        };
        self.links.part_from_strangers(&mut work);
        let flushed = work.finish();
        if let Some(error) = work.broken.take() {
            return Err(error);
        }
        let is_linked = |peer: &PeerKey| self.links.live.contains_key(peer);
        for found in work.found(self.links.live.len(), is_linked) {
            self.links
                .discovered(&mut work, &mut self.dials, found, true);
        }
        if !work.core.subscribers.is_empty() {
            let touched = work.changes.events.iter().map(|(thread, _)| *thread);
            for thread in touched.collect::<BTreeSet<_>>() {
                for peer in self.links.live.keys() {
                    work.note_progress(*peer, thread);
                }
            }
        }
        Ok(flushed)
    }

    /// Commits a batch. If that fails, the callers of the step are told.
    async fn commit(&mut self, batch: Batch, finishes: &mut Vec<Finish>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let committed = self.store.commit(batch).await;
        let Err(error) = committed.or_else(|it| {
            if bug!(CommitErrorIgnored) {
                Ok(())
            } else {
                Err(it)
            }
        }) else {
            return Ok(());
        };
        let reason = self.fail(error.clone());
        for finish in finishes.drain(..) {
            finish(Err(Error::Store(error.clone())));
        }
        Err(reason)
    }

    /// Tells watchers what changed, which is durable now.
    fn tell_watchers(&mut self, flushed: Vec<(ThreadId, Flushed)>) {
        for (id, flushed) in flushed {
            if let Some(documents) = self.core.documents.get_mut(&id) {
                documents.settle(flushed);
            }
        }
        for (id, documents) in &mut self.core.documents {
            for event in documents.take_events() {
                match self.watches.tell(*id, event) {
                    Told::Other(event) => {
                        let (thread, event) = (*id, *event);
                        let event = Event::Documents { thread, event };
                        self.core.subscribers.tell(&event);
                    }
                    Told::Change { collection, gone } => {
                        (0..gone).for_each(|_| documents.unwatch(&collection));
                    }
                }
            }
        }
    }

    /// Answers callers, whose step is durable, and tells subscribers what happened in it.
    fn tell_callers(&mut self, changes: Changes, after: After) {
        for finish in after.finishes {
            finish(Ok(()));
        }
        let events = changes.events.into_iter();
        for event in events.filter_map(|(thread, event)| event_of(thread, event)) {
            self.core.subscribers.tell(&event);
        }
        for event in after.events {
            self.core.subscribers.tell(&event);
        }
        if self.core.subscribers.is_empty() {
            self.core.told.clear();
        }
    }

    /// Writes what waits and all dirty documents, so that the next start replays nothing.
    async fn flush(&mut self) -> Result<(), Error> {
        let mut batch = self.held.take();
        let mut flushed = Vec::new();
        for (id, documents) in &mut self.core.documents {
            flushed.push((*id, documents.flush(&mut batch)));
        }
        self.commit(batch, &mut Vec::new()).await?;
        self.tell_watchers(flushed);
        Ok(())
    }

    /// Sends to each peer that has room what is coming to it. Tells whether anything was sent.
    fn send_all(&mut self) -> Result<bool, Error> {
        if self.transport.is_none() || self.links.live.values().all(|link| link.is_sending) {
            return Ok(false);
        }
        let store = self.store.clone();
        let view = store.view().map_err(|error| self.fail(error))?;
        self.send_from(&*view)
    }

    /// Sends what is coming to peers, as far as a picture of the store shows it.
    fn send_from(&mut self, view: &dyn View) -> Result<bool, Error> {
        let mut has_sent = false;
        let Some(transport) = &self.transport else {
            return Ok(has_sent);
        };
        for (peer, link) in &mut self.links.live {
            let mut count = 0;
            while !link.is_sending {
                let message = self.core.replica.poll_message(view, peer);
                let message = message.inspect_err(|error| {
                    // The first reason counts.
                    let _ = self.ended.set(error.clone());
                })?;
                let Some(bytes) = message else {
                    break;
                };
                has_sent = true;
                count += 1;
                self.traffic.sent += bytes.len() as u64;
                let (transport, peer, id) = (transport.clone(), *peer, link.id);
                let mut sending: Boxed<Done> = Box::pin(async move {
                    // A send that does not succeed is followed by the end of its link.
                    let _ = transport.send(id, bytes).await;
                    Done::Sent { peer, link: id }
                });
                // Mostly there is room; only a send that waits takes a turn of the loop.
                let waits = count == SENDS_MAX || (&mut sending).now_or_never().is_none();
                if waits {
                    link.is_sending = true;
                    self.tasks.push(sending);
                }
            }
        }
        Ok(has_sent)
    }

    fn dial(&mut self, address: Address, reply: Option<DialReply>, is_wanted: bool) {
        let Some(transport) = self.transport.clone() else {
            if let Some(reply) = reply {
                // Whoever asked may have gone meanwhile.
                let _ = reply.send(Err(Error::NoTransport));
            }
            return;
        };
        self.dials.begin(&address, is_wanted);
        self.tasks.push(Box::pin(async move {
            let outcome = transport.dial(&address).await;
            Done::Dialled {
                address,
                reply,
                outcome,
            }
        }));
    }

    /// When there is something to do although nothing happens.
    fn wake_millis(&self) -> Option<u64> {
        let redial = self.dials.wake_millis().filter(|_| !self.core.paused);
        let waiter = self.waiters.iter().map(|waiter| waiter.until_millis).min();
        let (held, timeout) = (self.held.wake_millis(), self.core.replica.poll_timeout());
        let signals = self.core.signals.wake_millis();
        let rendezvous = self.core.rendezvous.wake_millis();
        let links = self.links.wake_millis();
        let all = [redial, waiter, held, timeout, signals, rendezvous, links];
        all.into_iter().flatten().min()
    }

    /// Answers who waits to be level.
    fn answer_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let replica = &mut self.core.replica;
        let mut report = SyncReport::default();
        for peer in self.links.live.keys() {
            let side = if replica.is_level(peer) {
                &mut report.level
            } else {
                &mut report.behind
            };
            side.insert(PeerId(peer.0));
        }
        let now = self.clock.now_millis();
        let done = report.is_complete() && !self.dials.is_awaited();
        let is_over = |waiter: &mut Waiter| done || waiter.until_millis <= now;
        for waiter in self.waiters.extract_if(.., is_over) {
            // Whoever asked may have gone meanwhile.
            let _ = waiter.reply.send(report.clone());
        }
    }
}

/// Lets the tasks that this one woke go first.
async fn yield_once() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
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
        // Governance changed too then, and watchers of documents are told what it came to.
        ThreadEvent::Rejudged { .. } | _ => return None,
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

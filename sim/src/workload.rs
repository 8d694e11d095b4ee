//! Random but valid use of a peer's public methods, and what is known of it outside of the peers.

mod document;
mod membership;
mod watch;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leno::{Card, Error, Event, Peer, Quota, Role, SeatId, TextError, Thread, ThreadId, Ticket};
use leno_threads_core::sync::SyncError;
use leno_threads_core::thread::AppendError;

use crate::dice::Dice;
use crate::ledger::{Broken, Entry, Ledger};
use crate::tap::Heard;
use crate::world::is_expected_of_a_disk;
pub(crate) use document::SONGS;
pub(crate) use watch::Watcher;

/// What was done so far, kept outside of the peers.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) threads: Vec<ThreadModel>,
    /// Cards that nobody used yet, and whose they are.
    pub(crate) cards: Vec<(usize, Card)>,
    /// Tickets that nobody used yet.
    pub(crate) offers: Vec<Offer>,
    pub(crate) broken: Vec<Broken>,
    /// The machine that does not keep to the rules: nothing is owed to it.
    pub(crate) byzantine: Option<usize>,
    /// How often each method was called and did as asked.
    pub(crate) done: BTreeMap<&'static str, u64>,
    /// How often it was refused, for a reason that is expected.
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// The calls that are under way, and on which machines.
    pub(crate) under_way: Vec<(usize, &'static str)>,
    /// What watchers know, by a number of each.
    pub(crate) watchers: BTreeMap<u64, Watcher>,
    pub(crate) watchers_made: u64,
    /// What was shown to people: errors and events.
    pub(crate) shown: BTreeSet<String>,
    /// How many threads and grants each machine made: what others may rest on.
    pub(crate) governed: BTreeMap<usize, u64>,
    /// How many bytes of a thread replicators keep.
    pub(crate) quota: Option<u64>,
    /// Who keeps no more than that of which thread, once it is known that this holds.
    pub(crate) limited: BTreeMap<(usize, usize), Option<Limit>>,
    /// How often peers told of each kind of event.
    pub(crate) events: BTreeMap<&'static str, u64>,
}

/// How much of a thread a machine keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// What it was told to keep.
    pub(crate) quota: Quota,
    /// What it kept before.
    pub(crate) before: u64,
}

impl Limit {
    /// 39: what is wrong with keeping so many bytes of data, and in all.
    pub(crate) fn exceeded_by(&self, (data, all): (u64, u64)) -> Option<String> {
        let (bytes, with_governance) = (self.quota.bytes, self.quota.governance_bytes());
        let is_good = data <= bytes.max(self.before) && all <= with_governance.max(self.before);
        let what = format!("keeps {data} bytes of data and {all} in all, and may keep {bytes}");
        (!is_good).then_some(what)
    }
}

/// A thread, as it is known outside of the peers.
#[derive(Debug)]
pub(crate) struct ThreadModel {
    pub(crate) id: ThreadId,
    pub(crate) members: BTreeMap<usize, Member>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) role: Role,
    /// Its seat, if somebody gave it the role.
    pub(crate) seat: Option<SeatId>,
    /// The owner removed it, or began to: it goes on as long as it has not heard of that, and nothing of what
    /// it writes is owed to anybody.
    pub(crate) is_removed: bool,
    /// Its machine was told that it joined, and was not put back since.
    pub(crate) is_joined: bool,
}

/// What a machine's disk holds for sure: of each thread that it had joined, its own writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    threads: Vec<Option<BTreeSet<Entry>>>,
}

/// A ticket on its way to whom it is for.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) to: usize,
    pub(crate) thread: usize,
    pub(crate) role: Role,
    pub(crate) seat: SeatId,
    pub(crate) ticket: Ticket,
}

impl ThreadModel {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    /// A call begins.
    pub(crate) fn begin(&mut self, machine: usize, name: &'static str) {
        self.under_way.push((machine, name));
    }

    /// A call has ended, or is gone with its machine.
    pub(crate) fn end(&mut self, machine: usize, name: &'static str) {
        let mut calls = self.under_way.iter();
        if let Some(at) = calls.position(|call| *call == (machine, name)) {
            self.under_way.swap_remove(at);
        }
    }

    /// How many calls of a machine are under way.
    pub(crate) fn busy(&self, machine: usize) -> usize {
        let calls = self.under_way.iter();
        calls.filter(|(of, _)| *of == machine).count()
    }

    /// The threads in which a machine has a role that passes the test.
    pub(crate) fn threads_of(&self, machine: usize, test: impl Fn(Role) -> bool) -> Vec<usize> {
        let threads = self.threads.iter().enumerate();
        let of = threads.filter(|(_, thread)| {
            let member = thread.members.get(&machine);
            member.is_some_and(|it| it.is_joined && test(it.role))
        });
        of.map(|(at, _)| at).collect()
    }

    /// Notes that a rule did not hold on a machine.
    pub(crate) fn breaks(&mut self, machine: usize, broken: Broken) {
        if self.byzantine != Some(machine) {
            self.broken.push(broken);
        }
    }

    /// What is durable on a machine for sure.
    pub(crate) fn kept_by(&self, machine: usize) -> Kept {
        let threads = self.threads.iter().map(|thread| {
            let member = thread.members.get(&machine);
            let durable = thread.ledger().durable_of(machine);
            member.is_some_and(|it| it.is_joined).then_some(durable)
        });
        Kept {
            threads: threads.collect(),
        }
    }

    /// A machine's disk was put back to when only this was durable for sure.
    pub(crate) fn forget(&mut self, machine: usize, kept: &Kept, may_fork: bool) {
        let nothing = BTreeSet::new();
        for (at, thread) in self.threads.iter_mut().enumerate() {
            let durable = kept.threads.get(at).and_then(Option::as_ref);
            thread
                .ledger()
                .forget(machine, durable.unwrap_or(&nothing), may_fork);
            if let Some(member) = thread.members.get_mut(&machine) {
                // It may have joined later than that.
                member.is_joined &= durable.is_some();
            }
        }
        // What it was told to keep may be lost with the disk; or not.
        let limited = self
            .limited
            .iter_mut()
            .filter(|((of, _), _)| *of == machine);
        limited.for_each(|(_, limit)| *limit = None);
        self.cards.retain(|(of, _)| *of != machine);
        self.offers.retain(|offer| offer.to != machine);
    }
}

/// Why a call was refused, where that is no defect.
fn is_expected(error: &Error) -> bool {
    if let Some(error) = store_of(error) {
        return is_expected_of_a_disk(error);
    }
    matches!(
        error,
        Error::Closed
            | Error::Db(_)
            | Error::Paused
            | Error::NotSyncedYet(_)
            | Error::Restored
            | Error::Transport(_)
            | Error::TicketOfAnother
            | Error::OldVersion { .. }
            | Error::MayNotGrant
            // Somebody else gave another role, or took it, and that came first.
            | Error::Outranked(_)
            | Error::NoSuchMember(_)
            | Error::MayNotRead
            | Error::NoSuchThread(_)
            // The clock of whoever made the card is ahead, or this one behind.
            | Error::Text(TextError::NotVouched)
            | Error::Append(AppendError::NotWriter | AppendError::NoKey { .. })
    )
}

/// The store's error behind another one.
pub(crate) fn store_of<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a leno::store::StoreError> {
    let mut causes = std::iter::successors(Some(error), |it| it.source());
    causes.find_map(|cause| cause.downcast_ref())
}

/// A call by the peer of a machine.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) model: Rc<RefCell<Model>>,
    pub(crate) peer: Peer,
    pub(crate) machine: usize,
}

impl Call {
    /// Notes how a call ended, and passes on what it returned.
    fn end<T>(&self, name: &'static str, result: Result<T, Error>) -> Option<T> {
        let mut model = self.model.borrow_mut();
        let error = match result {
            Ok(value) => {
                *model.done.entry(name).or_default() += 1;
                return Some(value);
            }
            Err(error) => error,
        };
        *model.refused.entry(name).or_default() += 1;
        model.shown.insert(format!("{error} {error:?}"));
        if !is_expected(&error) {
            let invariant = if store_of(&error).is_some() { 8 } else { 48 };
            let what = format!("{name} on {} was refused: {error:?}", self.machine);
            model.breaks(self.machine, Broken { invariant, what });
        }
        None
    }

    /// The handle of a thread, if it is here.
    async fn thread(&self, at: usize) -> Option<Thread> {
        let id = self.model.borrow().threads.get(at)?.id;
        let thread = self.peer.thread(id).await;
        if let Err(Error::NoSuchThread(_)) = thread {
            let mut model = self.model.borrow_mut();
            let member = model.threads.get(at)?.members.get(&self.machine);
            if member.is_some_and(|it| it.is_joined) {
                let what = format!("{} lost thread {at}, which it had joined", self.machine);
                model.breaks(self.machine, Broken { invariant: 7, what });
            }
        }
        self.end("thread", thread)
    }

    pub(crate) async fn sync(self) {
        let deadline = Duration::from_secs(5);
        let report = self.peer.sync_once(deadline).await;
        self.end("sync", report);
    }

    pub(crate) async fn pause(self) {
        let paused = self.peer.pause().await;
        self.end("pause", paused);
    }

    pub(crate) async fn resume(self) {
        let resumed = self.peer.resume().await;
        self.end("resume", resumed);
    }

    pub(crate) async fn close(self) {
        let closed = self.peer.close().await;
        self.end("close", closed);
    }

    pub(crate) async fn connect(self, to: leno::PeerId) {
        if let Some(address) = crate::network::address_of(to) {
            let connected = self.peer.connect(&address).await;
            self.end("connect", connected);
        }
    }

    /// Looks at everything that is no document.
    pub(crate) async fn look(self, thread: usize) {
        let Some(thread) = self.thread(thread).await else {
            return;
        };
        self.end("status", thread.status().await);
        self.end("members", thread.members().await);
        self.end("quarantined", thread.quarantined().await);
        self.end("traffic", self.peer.traffic().await);
        self.end("state_hash", thread.state_hash().await);
    }

    /// Listens to what the peer tells by itself, until it ends.
    pub(crate) async fn listen(self, heard: Heard, judge: impl Fn(&Event) -> Option<Broken>) {
        let Some(mut events) = self.end("events", self.peer.events().await) else {
            return;
        };
        heard.listens(true);
        // Whoever listens must not keep the peer running.
        let Self {
            model,
            peer,
            machine,
        } = self;
        drop(peer);
        while let Some(event) = events.next().await {
            if let Event::Progress {
                peer, to_receive, ..
            } = &event
            {
                heard.told(*peer, *to_receive);
            } else if matches!(event, Event::Lagged { .. }) {
                heard.listens(false);
            }
            *model
                .borrow_mut()
                .events
                .entry(kind_of(&event))
                .or_default() += 1;
            model.borrow_mut().shown.insert(format!("{event:?}"));
            if let Some(broken) = judge(&event) {
                model.borrow_mut().breaks(machine, broken);
            }
        }
    }
}

/// What an event is of, for the totals.
fn kind_of(event: &Event) -> &'static str {
    if let Event::Refused { error, .. } = event {
        return match &**error {
            SyncError::NotProven { .. } => "refused a proof",
            SyncError::Signal { .. } => "refused a signal",
            SyncError::Range { .. } => "refused a range",
            SyncError::Wrap { .. } => "refused a wrap",
            SyncError::NoBranch { .. } => "refused a branch",
            SyncError::Malformed { .. } => "refused what is no message",
            SyncError::OutOfTurn { .. } => "refused out of turn",
            SyncError::TooMany { .. } | SyncError::TooManyLogs { .. } => "refused too many",
            SyncError::WrongGenesis { .. } => "refused a genesis",
            SyncError::Store(_) => "store",
            _ => "refused something else",
        };
    }
    match event {
        Event::Connected { .. } => "connected",
        Event::Disconnected { .. } => "disconnected",
        Event::Discovered { .. } => "discovered",
        Event::Admitted { .. } => "admitted",
        Event::Progress { .. } => "progress",
        Event::GovernanceChanged { .. } => "governance",
        Event::KeyCame { .. } => "key",
        Event::Waits { .. } => "waits",
        Event::Quarantined { .. } => "quarantined",
        Event::Forked { .. } => "forked",
        Event::OwnLogAhead { .. } => "own log ahead",
        Event::Documents { .. } => "documents",
        Event::Replicated { .. } => "replicated",
        Event::NoRoom { .. } => "no room",
        Event::Lagged { .. } => "lagged",
        Event::Refused { .. } | _ => "others",
    }
}

/// The role that a newcomer gets.
pub(crate) fn role(dice: &mut Dice) -> Role {
    match dice.below(10) {
        0 => Role::Admin,
        1 => Role::Reader,
        2 => Role::Replicator,
        _ => Role::Writer,
    }
}

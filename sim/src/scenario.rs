//! A small language for scenarios: synchronous, readable, and the same in every run.

mod actor;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use leno::{DocumentId, Error, Peer, Role, SyncReport, ThreadId};
use serde::de::DeserializeOwned;

use crate::machine::{MachineOptions, Power};
use crate::network::{Conditions, SimNetwork};
use crate::trace::TraceHash;
use crate::world::World;
pub use actor::Actor;

/// How long a call or an expectation may take, in simulated microseconds: two hours.
const PATIENCE_MICROS: u64 = 7_200_000_000;

/// A world in which named peers do what they are told, one thing after the other, while their drivers,
/// the network and time go on by themselves.
///
/// Methods panic, with a reason, if something does not go as the scenario says: they are for tests.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use leno::Role;
/// use leno_sim::Scenario;
///
/// let world = Scenario::new(7);
/// let (alice, bob) = (world.peer("alice"), world.peer("bob"));
/// let band = alice.creates("band");
/// alice.invites(band, &bob, Role::Writer);
///
/// world.partition(&alice, &bob);
/// alice.writes(band, "songs", "psalm 1", &[("key", "G")]);
/// bob.writes(band, "songs", "psalm 2", &[("key", "D")]);
/// world.run_for(Duration::from_secs(60));
/// bob.expect_missing(band, "songs", "psalm 1");
///
/// world.heal(&alice, &bob);
/// bob.crashes();
/// bob.starts();
/// world.expect_level();
/// world.expect_equal();
/// bob.expect(band, "songs", "psalm 1", &[("key", "G")]);
/// ```
///
/// Your own code runs against the peers as it would anywhere else, and time passes in it as it is
/// simulated:
///
/// ```
/// use std::collections::BTreeMap;
/// use leno::{Definition, Fields, Peer, Strategy};
/// use leno_sim::Scenario;
///
/// async fn count_plays(peer: Peer) -> Result<u64, leno::Error> {
///     let band = peer.create_thread("band").await?;
///     let strategies = Fields::default().field("plays", Strategy::Counter);
///     band.define("songs", &Definition { version: 1, strategies }).await?;
///     let songs = band.collection::<BTreeMap<String, u64>>("songs");
///     let id = songs.insert(&BTreeMap::from([("plays".to_owned(), 1)])).await?;
///     songs.update(&id, |song| *song.entry("plays".to_owned()).or_default() += 2).await?;
///     Ok(songs.get(&id).await?.and_then(|song| song.get("plays").copied()).unwrap_or(0))
/// }
///
/// let world = Scenario::new(1);
/// let alice = world.peer("alice");
/// assert_eq!(world.run(count_plays(alice.peer()))?, 3);
/// # Ok::<(), leno::Error>(())
/// ```
/// Rules and reducers of your own: a rule is checked on every peer whenever time passes, whatever the
/// network, the clocks and the disks do; a reducer is run over what each peer shows, and all must come
/// to the same. This one elects whoever has most votes, of which each has one:
///
/// ```
/// use std::collections::BTreeMap;
/// use leno::{DocumentId, Peer, Role};
/// use leno_sim::Scenario;
///
/// type Votes = BTreeMap<String, u32>;
///
/// fn count(votes: &mut Votes, _: &DocumentId, ballot: BTreeMap<String, String>) {
///     for name in ballot.into_values() {
///         *votes.entry(name).or_default() += 1;
///     }
/// }
///
/// let world = Scenario::new(3);
/// let (alice, bob) = (world.peer("alice"), world.peer("bob"));
/// let band = alice.creates("band");
/// world.rule("nobody has two votes", move |peer: Peer| async move {
///     // Who has not joined yet shows nothing.
///     let Ok(thread) = peer.thread(band).await else { return Ok(()) };
///     let ballots = thread.collection::<BTreeMap<String, String>>("votes");
///     let Ok(ballots) = ballots.list(None, 100).await else { return Ok(()) };
///     match ballots.iter().all(|(_, ballot)| ballot.len() == 1) {
///         true => Ok(()),
///         false => Err(format!("{ballots:?}")),
///     }
/// });
/// alice.invites(band, &bob, Role::Writer);
/// world.partition(&alice, &bob);
/// alice.writes(band, "votes", "of alice", &[("for", "bob")]);
/// bob.writes(band, "votes", "of bob", &[("for", "bob")]);
/// world.heal(&alice, &bob);
/// world.expect_level();
/// let votes: Votes = world.expect_reduced(band, "votes", count);
/// assert_eq!(votes, Votes::from([("bob".to_owned(), 2)]));
/// ```
#[derive(Clone, Debug)]
pub struct Scenario {
    world: Rc<RefCell<World>>,
    rules: Rules,
}

/// The rules of an application. Clones are the same.
#[derive(Clone, Default)]
struct Rules {
    all: Rc<RefCell<Vec<Rule>>>,
    /// One is being checked: what it does is not checked again.
    is_checking: Rc<Cell<bool>>,
}

#[derive(Clone)]
struct Rule {
    name: Rc<str>,
    check: Rc<dyn Fn(Peer) -> LocalBoxFuture<'static, Result<(), String>>>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all.borrow();
        let names = all.iter().map(|it| &it.name);
        formatter.debug_list().entries(names).finish()
    }
}

impl Scenario {
    /// An empty world. The order of what happens at once is drawn from the seed: run a scenario under
    /// several.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            world: Rc::new(RefCell::new(World::new(seed))),
            rules: Rules::default(),
        }
    }

    /// Adds a machine and starts its peer.
    ///
    /// # Panics
    ///
    /// If the peer does not start.
    #[must_use]
    pub fn peer(&self, name: &str) -> Actor {
        self.peer_with(name, MachineOptions::default())
    }

    /// As [`Scenario::peer`], on another kind of machine.
    ///
    /// # Panics
    ///
    /// If the peer does not start.
    #[must_use]
    pub fn peer_with(&self, name: &str, options: MachineOptions) -> Actor {
        let actor = self.machine(name, options);
        actor.starts();
        actor
    }

    /// Adds a machine and leaves it off, for example to take its clock away first.
    ///
    /// # Panics
    ///
    /// If its disk does not take the keys of its device.
    #[must_use]
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    pub fn machine(&self, name: &str, options: MachineOptions) -> Actor {
        let added = self.world.borrow_mut().add(name, options);
        match added {
            Ok(at) => Actor::new(self.clone(), at, name),
            Err(error) => panic!("{name} has no keys: {error:?}"),
        }
    }

    /// The network, for what has no word here.
    #[must_use]
    pub fn network(&self) -> SimNetwork {
        self.world.borrow().network().clone()
    }

    /// Changes the conditions of the whole network.
    pub fn conditions(&self, conditions: Conditions) {
        self.network().set_conditions(conditions);
    }

    /// Cuts two peers off from each other.
    pub fn partition(&self, a: &Actor, b: &Actor) {
        self.network().partition(a.id(), b.id());
    }

    /// Ends a partition.
    pub fn heal(&self, a: &Actor, b: &Actor) {
        self.network().heal(a.id(), b.id());
    }

    /// Lets nothing through from one peer to another; the way back goes on.
    pub fn silence(&self, from: &Actor, to: &Actor) {
        self.network().silence(from.id(), to.id());
    }

    /// Ends a silence.
    pub fn unsilence(&self, from: &Actor, to: &Actor) {
        self.network().unsilence(from.id(), to.id());
    }

    /// Lets time pass.
    pub fn run_for(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.world.borrow_mut().run_for(micros);
        self.check();
    }

    /// Runs a future to its end, while everything else goes on.
    ///
    /// # Panics
    ///
    /// If it has not ended two simulated hours later, or a driver panicked.
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let output = self.world.borrow_mut().run(future, PATIENCE_MICROS);
        self.check();
        output.unwrap_or_else(|| panic!("the scenario waits for what never comes"))
    }

    /// The true time since the world began.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.world.borrow().micros())
    }

    /// A hash of everything that happened: the same in each run of the same scenario under one seed.
    #[must_use]
    pub fn trace(&self) -> TraceHash {
        self.world.borrow().trace()
    }

    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    fn check(&self) {
        if let Some(words) = self.world.borrow().panics().first() {
            panic!("a task panicked: {words}");
        }
        if self.rules.is_checking.replace(true) {
            return;
        }
        let rules = self.rules.all.borrow().clone();
        for Rule { name, check } in rules {
            for actor in self.running() {
                if let Err(words) = self.run(check(actor.peer())) {
                    panic!("{name:?} does not hold at {}: {words}", actor.name());
                }
            }
        }
        self.rules.is_checking.set(false);
    }

    /// Adds a rule of the application: from now on it is checked at each peer that runs, whenever time
    /// has passed or a call has ended. A peer that does not know a thread yet is for the rule to pass
    /// over.
    ///
    /// # Panics
    ///
    /// Whatever lets time pass does, with the rule's name and what it says, where the rule does not hold.
    pub fn rule<F>(&self, name: &str, check: impl Fn(Peer) -> F + 'static)
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        let rule = Rule {
            name: name.into(),
            check: Rc::new(move |peer| check(peer).boxed_local()),
        };
        self.rules.all.borrow_mut().push(rule);
    }

    /// Reduces a collection by a reducer of the application, at each peer that runs and may read, and
    /// checks that all come to the same, which is returned. Documents come in the order of their ids.
    ///
    /// # Panics
    ///
    /// If two come to different states, a document is none of the application's, or nobody reads.
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    pub fn expect_reduced<T, S>(
        &self,
        thread: ThreadId,
        collection: &str,
        reduce: impl Fn(&mut S, &DocumentId, T),
    ) -> S
    where
        T: DeserializeOwned + Send + 'static,
        S: Default + fmt::Debug + PartialEq,
    {
        let mut first: Option<(String, S)> = None;
        for actor in self.threads().remove(&thread).unwrap_or_default() {
            let (peer, name) = (actor.peer(), collection.to_owned());
            let documents = self.run(async move {
                let thread = peer.thread(thread).await?;
                match thread.status().await?.role.is_some_and(Role::reads) {
                    true => thread.collection::<T>(&name).list(None, usize::MAX).await,
                    false => Err(Error::MayNotRead),
                }
            });
            let documents = match documents {
                Ok(documents) => documents,
                Err(Error::MayNotRead | Error::NotSyncedYet(_)) => continue,
                Err(error) => panic!("{} does not show {collection}: {error:?}", actor.name()),
            };
            let mut state = S::default();
            for (id, document) in documents {
                reduce(&mut state, &id, document);
            }
            match &first {
                None => first = Some((actor.name().to_owned(), state)),
                Some((other, expected)) => assert_eq!(
                    state,
                    *expected,
                    "{} and {other} reduce {collection} to different states",
                    actor.name()
                ),
            }
        }
        match first {
            Some((_, state)) => state,
            None => panic!("nobody who runs reads {thread}"),
        }
    }

    /// The peers that run.
    fn running(&self) -> Vec<Actor> {
        let world = self.world.borrow();
        let machines = world.machines().iter().enumerate();
        let on = machines.filter(|(_, machine)| matches!(machine.power(), Power::On(_)));
        on.map(|(at, machine)| Actor::new(self.clone(), at, machine.name()))
            .collect()
    }

    /// Waits until each peer that runs and shares a thread with another one that does is level with
    /// all to which it is connected, and at least with one.
    ///
    /// # Panics
    ///
    /// If that has not come about two simulated hours later.
    pub fn expect_level(&self) {
        let until = self.now() + Duration::from_micros(PATIENCE_MICROS);
        loop {
            let behind = self.behind();
            if behind.is_empty() {
                return;
            }
            assert!(self.now() < until, "not level: {behind:?}");
            self.run_for(Duration::from_secs(5));
        }
    }

    fn behind(&self) -> Vec<(String, Result<SyncReport, Error>)> {
        let shared: Vec<_> = self
            .threads()
            .into_values()
            .filter(|it| it.len() > 1)
            .collect();
        let mut behind = Vec::new();
        for actor in self.running() {
            if !shared.iter().flatten().any(|it| it.at() == actor.at()) {
                continue;
            }
            let peer = actor.peer();
            let report = self.run(async move { peer.sync_once(Duration::from_secs(60)).await });
            if !report.as_ref().is_ok_and(SyncReport::is_complete) {
                behind.push((actor.name().to_owned(), report));
            }
        }
        behind
    }

    /// The threads of the peers that run, and who has them.
    fn threads(&self) -> BTreeMap<ThreadId, Vec<Actor>> {
        let mut threads: BTreeMap<ThreadId, Vec<Actor>> = BTreeMap::new();
        for actor in self.running() {
            let peer = actor.peer();
            let own = self.run(async move { peer.threads().await });
            for thread in own.into_iter().flatten() {
                threads.entry(thread.id()).or_default().push(actor.clone());
            }
        }
        threads
    }

    /// Checks that all running peers that may read a thread show the same documents in it.
    ///
    /// # Panics
    ///
    /// If two differ.
    pub fn expect_equal(&self) {
        for (id, actors) in self.threads() {
            let mut first = None;
            for actor in actors {
                let peer = actor.peer();
                let state = self.run(async move {
                    let thread = peer.thread(id).await?;
                    let reads = thread.status().await?.role.is_some_and(Role::reads);
                    let state = reads.then_some(thread.state_hash());
                    match state {
                        Some(state) => state.await.map(Some),
                        None => Ok::<_, Error>(None),
                    }
                });
                let name = actor.name().to_owned();
                let state = match state {
                    Ok(Some(state)) => state,
                    Ok(None) => continue,
                    Err(error) => {
                        assert!(
                            matches!(error, Error::NotSyncedYet(_)),
                            "{name} does not show {id}: {error:?}"
                        );
                        continue;
                    }
                };
                let (other, expected) = first.get_or_insert_with(|| (name.clone(), state));
                assert_eq!(state, *expected, "{name} and {other} differ in thread {id}");
            }
        }
    }
}

//! A named peer of a scenario.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use leno::{DocumentId, Error, Peer, PeerId, Role, ThreadId, Ticket, to_ipld};
use serde::Serialize;

use super::Scenario;
use crate::clock::SimClock;
use crate::disk::Disk;
use crate::machine::Power;
use crate::network::address_of;

/// A named machine of a [`Scenario`] and the peer on it. A handle: cheap to clone.
#[derive(Clone, Debug)]
pub struct Actor {
    scenario: Scenario,
    at: usize,
    name: Rc<str>,
}

/// How long something is waited for that comes by itself.
const PATIENCE: Duration = Duration::from_secs(7_200);

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a peer may take to start, in simulated microseconds.
const START_MICROS: u64 = 60_000_000;

impl Actor {
    pub(super) fn new(scenario: Scenario, at: usize, name: &str) -> Self {
        Self {
            scenario,
            at,
            name: name.into(),
        }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The peer, for everything that has no word here.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    pub fn peer(&self) -> Peer {
        let world = self.scenario.world.borrow();
        let peer = world.machine(self.at).and_then(|it| it.peer().cloned());
        peer.unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// The id of its device.
    #[must_use]
    pub fn id(&self) -> PeerId {
        let world = self.scenario.world.borrow();
        world.machine(self.at).map_or(PeerId([0; 32]), |it| it.id())
    }

    /// Its clock.
    ///
    /// # Panics
    ///
    /// Never: a scenario keeps its machines.
    #[must_use]
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    pub fn clock(&self) -> SimClock {
        let world = self.scenario.world.borrow();
        let clock = world.machine(self.at).map(|it| it.clock().clone());
        clock.unwrap_or_else(|| panic!("{} is no machine", self.name))
    }

    /// Its disk.
    ///
    /// # Panics
    ///
    /// Never: a scenario keeps its machines.
    #[must_use]
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    pub fn disk(&self) -> Disk {
        let world = self.scenario.world.borrow();
        let disk = world.machine(self.at).map(|it| it.disk().clone());
        disk.unwrap_or_else(|| panic!("{} is no machine", self.name))
    }

    /// Runs a call of the peer, which must succeed.
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    fn does<T: 'static, F: Future<Output = Result<T, Error>> + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(Peer) -> F,
    ) -> T {
        let done = self.scenario.run(call(self.peer()));
        done.unwrap_or_else(|error| panic!("{} {what}: {error:?}", self.name))
    }
}

// The machine.
impl Actor {
    /// Starts the peer and waits until it runs.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn starts(&self) {
        let until = {
            let mut world = self.scenario.world.borrow_mut();
            world.start(self.at);
            world.micros().saturating_add(START_MICROS)
        };
        while !self.is_on() {
            let stepped = self.scenario.world.borrow_mut().step(until);
            assert!(stepped, "{} does not start", self.name);
        }
    }

    fn is_on(&self) -> bool {
        let world = self.scenario.world.borrow();
        let machine = world.machine(self.at);
        machine.is_some_and(|it| matches!(it.power(), Power::On(_)))
    }

    /// The machine is gone at once, with all that was not durable.
    pub fn crashes(&self) {
        self.scenario.world.borrow_mut().crash(self.at);
    }

    /// Closes the peer in good order.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn closes(&self) {
        self.does("closes", async |peer| peer.close().await);
        // Its driver says so in a step of its own.
        self.scenario.run_for(Duration::from_millis(1));
    }

    /// Hangs up on all peers and talks to none.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn pauses(&self) {
        self.does("pauses", async |peer| peer.pause().await);
    }

    /// Talks to peers again.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn resumes(&self) {
        self.does("resumes", async |peer| peer.resume().await);
    }

    /// Stands still, as a laptop that sleeps.
    pub fn freezes(&self) {
        self.scenario.world.borrow_mut().stop(self.at);
    }

    /// Goes on.
    pub fn thaws(&self) {
        self.scenario.world.borrow_mut().go_on(self.at);
    }

    /// Connects to another peer.
    ///
    /// # Panics
    ///
    /// If it is not reached.
    pub fn connects(&self, other: &Self) {
        let address = address_of(other.id());
        self.does("connects", async move |peer: Peer| match address {
            Some(address) => peer.connect(&address).await,
            None => Err(Error::NoTransport),
        });
    }
}

// Threads and documents.
impl Actor {
    /// Makes a thread.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub fn creates(&self, name: &str) -> ThreadId {
        let name = name.to_owned();
        self.does("creates a thread", async move |peer: Peer| {
            Ok(peer.create_thread(&name).await?.id())
        })
    }

    /// Grants a role to another peer, which joins and has the grant.
    ///
    /// # Panics
    ///
    /// If it is refused, or the two do not reach each other.
    pub fn invites(&self, thread: ThreadId, other: &Self, role: Role) {
        let ticket = self.grants(thread, other, role);
        other.joins(&ticket);
    }

    /// Grants a role to a new card of another peer; the ticket is for that one to join with.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[must_use]
    pub fn grants(&self, thread: ThreadId, other: &Self, role: Role) -> Ticket {
        let name = other.name.to_string();
        let card = other.does("makes a card", async move |peer: Peer| {
            peer.card(&name).await
        });
        self.does("grants a role", async move |peer: Peer| {
            peer.thread(thread).await?.grant(&card, role).await
        })
    }

    /// Joins a thread, and waits until its grant has come.
    ///
    /// # Panics
    ///
    /// If it is refused, or the grant does not come within two simulated hours.
    pub fn joins(&self, ticket: &Ticket) {
        let ticket = ticket.clone();
        let mut thread = self.does("joins", async move |peer: Peer| peer.join(&ticket).await);
        let until = self.scenario.now() + PATIENCE;
        loop {
            let asked = thread.clone();
            let status = self.scenario.run(async move { asked.status().await });
            if status.is_ok_and(|status| status.role.is_some()) {
                return;
            }
            let waited = self.scenario.now();
            assert!(waited < until, "the grant does not come to {}", self.name);
            self.scenario.run_for(PAUSE);
            let id = thread.id();
            thread = self.does("joined", async move |peer: Peer| peer.thread(id).await);
        }
    }

    /// Makes a document show fields, as soon as the peer can: a newcomer waits for the key.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[expect(
        clippy::panic,
        reason = "for tests: a scenario that cannot go on fails"
    )]
    pub fn writes<K: AsRef<str>, V: Serialize>(
        &self,
        thread: ThreadId,
        collection: &str,
        id: &str,
        fields: &[(K, V)],
    ) {
        let (name, id, value) = (collection.to_owned(), id.to_owned(), document(fields));
        let until = self.scenario.now() + PATIENCE;
        loop {
            let (peer, name, id) = (self.peer(), name.clone(), id.clone());
            let value = value.clone();
            let wrote = self.scenario.run(async move {
                let id = natural(&id)?;
                let collection = peer.thread(thread).await?.collection(&name);
                collection.put(&id, &value).await
            });
            match wrote {
                Ok(_) => return,
                // The key may be under way.
                Err(error) if error.may_retry() && self.scenario.now() < until => {
                    self.scenario.run_for(PAUSE);
                }
                Err(error) => panic!("{} writes: {error:?}", self.name),
            }
        }
    }

    /// Deletes a document.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub fn deletes(&self, thread: ThreadId, collection: &str, id: &str) {
        let (name, id) = (collection.to_owned(), id.to_owned());
        self.does("deletes", async move |peer: Peer| {
            let id = natural(&id)?;
            let collection = peer.thread(thread).await?.collection::<leno::Ipld>(&name);
            collection.delete(&id).await
        });
    }

    /// What a document shows.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn reads(&self, thread: ThreadId, collection: &str, id: &str) -> Option<leno::Ipld> {
        let (name, id) = (collection.to_owned(), id.to_owned());
        self.does("reads", async move |peer: Peer| {
            let id = natural(&id)?;
            peer.thread(thread).await?.collection(&name).get(&id).await
        })
    }

    /// Checks what a document shows.
    ///
    /// # Panics
    ///
    /// If it shows something else.
    pub fn expect<K: AsRef<str>, V: Serialize>(
        &self,
        thread: ThreadId,
        collection: &str,
        id: &str,
        fields: &[(K, V)],
    ) {
        let shown = self.reads(thread, collection, id);
        let name = &self.name;
        assert_eq!(shown, Some(document(fields)), "{name}, {collection}/{id}");
    }

    /// Checks that a document does not show.
    ///
    /// # Panics
    ///
    /// If it does.
    pub fn expect_missing(&self, thread: ThreadId, collection: &str, id: &str) {
        let shown = self.reads(thread, collection, id);
        assert_eq!(shown, None, "{}, {collection}/{id}", self.name);
    }

    /// How many documents a collection has.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn count(&self, thread: ThreadId, collection: &str) -> u64 {
        let name = collection.to_owned();
        self.does("counts", async move |peer: Peer| {
            let thread = peer.thread(thread).await?;
            thread.collection::<leno::Ipld>(&name).count().await
        })
    }
}

fn natural(id: &str) -> Result<DocumentId, Error> {
    DocumentId::natural(id).map_err(|error| Error::NotADocument {
        reason: error.to_string(),
    })
}

#[expect(
    clippy::panic,
    reason = "for tests: a scenario that cannot go on fails"
)]
fn document<K: AsRef<str>, V: Serialize>(fields: &[(K, V)]) -> leno::Ipld {
    let fields = fields.iter().map(|(key, value)| (key.as_ref(), value));
    let fields: std::collections::BTreeMap<_, _> = fields.collect();
    to_ipld(&fields).unwrap_or_else(|error| panic!("no document: {error}"))
}

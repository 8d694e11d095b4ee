//! Peers on one executor, one network and one clock that stands; all randomness from seeds.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;
use leno::store::{MemoryStore, Store};
use leno::transport::memory::{Conditions, MemoryNetwork};
use leno::{Builder, Collection, DocumentId, Error, ManualClock, Peer, Role, Thread};
use serde::{Deserialize, Serialize};

/// Long enough for everything, on a clock that stands.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

pub(crate) const NOW_MILLIS: u64 = 1_800_000_000_000;

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Song {
    pub(crate) title: String,
    pub(crate) plays: u32,
}

pub(crate) fn song(title: &str) -> Song {
    Song {
        title: title.to_owned(),
        plays: 0,
    }
}

pub(crate) fn id(text: &str) -> DocumentId {
    DocumentId::natural(text).unwrap()
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) network: MemoryNetwork,
    pub(crate) clock: ManualClock,
    spawner: LocalSpawner,
    seeds: Rc<Cell<u8>>,
}

/// How a driver ended, once it has.
pub(crate) type Ended = oneshot::Receiver<Result<(), Error>>;

pub(crate) struct Running {
    pub(crate) peer: Peer,
    pub(crate) ended: Ended,
}

/// Runs a test until nothing can go on any more. That it came to its end by then is checked, so that
/// what waits for ever is a failure and not a test that hangs.
pub(crate) fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce(World) -> F) {
    let mut pool = LocalPool::new();
    let world = World {
        network: MemoryNetwork::new(7, Conditions::default()),
        clock: ManualClock::new(NOW_MILLIS),
        spawner: pool.spawner(),
        seeds: Rc::default(),
    };
    let is_done = Rc::new(Cell::new(false));
    let done = is_done.clone();
    let test = test(world);
    pool.spawner()
        .spawn_local(async move {
            test.await;
            done.set(true);
        })
        .unwrap();
    pool.run_until_stalled();
    assert!(is_done.get(), "the test waits for what never comes");
}

impl World {
    /// A fresh seed: what is restarted must not draw the same keys again.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.seeds.set(self.seeds.get() + 1);
        [self.seeds.get(); 32]
    }

    pub(crate) fn builder(&self, store: impl Store + 'static) -> Builder {
        Peer::builder()
            .store(store)
            .clock(self.clock.clone())
            .seed(self.seed())
    }

    /// Builds a peer and runs its driver.
    pub(crate) async fn start(&self, builder: Builder) -> Result<Running, Error> {
        let (peer, driver) = builder.build().await?;
        let (tell, ended) = oneshot::channel();
        let run = async move {
            let _ = tell.send(driver.run().await);
        };
        self.spawner.spawn_local(run).unwrap();
        Ok(Running { peer, ended })
    }

    /// A peer without a network.
    pub(crate) async fn offline(&self, store: impl Store + 'static) -> Running {
        self.start(self.builder(store)).await.unwrap()
    }

    /// A peer on the network.
    pub(crate) async fn online(&self, store: impl Store + Clone + 'static) -> Running {
        let builder = self.networked(store).await;
        self.start(builder).await.unwrap()
    }

    /// A builder with the network and the device's own endpoint.
    pub(crate) async fn networked(&self, store: impl Store + Clone + 'static) -> Builder {
        // The device is drawn by the first start.
        let (peer, driver) = self.builder(store.clone()).build().await.unwrap();
        let endpoint = self.network.endpoint(peer.id());
        drop((peer, driver));
        self.builder(store).transport(endpoint)
    }

    pub(crate) async fn fresh(&self) -> Peer {
        self.online(MemoryStore::new()).await.peer
    }
}

/// Two peers who share a thread, connected and level.
pub(crate) struct Pair {
    pub(crate) alice: Peer,
    pub(crate) bob: Peer,
    pub(crate) alices: Thread,
    pub(crate) bobs: Thread,
}

impl Pair {
    /// Alice owns the thread, Bob has the role.
    pub(crate) async fn new(world: &World, role: Role) -> Self {
        Self::of(world.fresh().await, world.fresh().await, role).await
    }

    pub(crate) async fn of(alice: Peer, bob: Peer, role: Role) -> Self {
        let alices = alice.create_thread("band").await.unwrap();
        let bobs = join(&alices, &bob, role).await;
        level(&bob).await;
        level(&alice).await;
        Self {
            alice,
            bob,
            alices,
            bobs,
        }
    }

    pub(crate) fn songs(&self) -> (Collection<Song>, Collection<Song>) {
        (
            self.alices.collection("songs"),
            self.bobs.collection("songs"),
        )
    }

    /// Waits until both have everything and checks that they show the same.
    pub(crate) async fn converge(&self) {
        level(&self.alice).await;
        level(&self.bob).await;
        assert_eq!(
            self.alices.state_hash().await.unwrap(),
            self.bobs.state_hash().await.unwrap(),
            "equal states"
        );
    }

    /// Has both work without each other.
    pub(crate) async fn part(&self) {
        self.bob.pause().await.unwrap();
    }

    pub(crate) async fn meet(&self) {
        self.bob.resume().await.unwrap();
        connect(&self.bob, &self.alice).await;
    }
}

/// Grants a role to a new card of a peer, which joins.
pub(crate) async fn join(thread: &Thread, peer: &Peer, role: Role) -> Thread {
    let card = peer.card("somebody").await.unwrap();
    let ticket = thread.grant(&card, role).await.unwrap();
    peer.join(&ticket).await.unwrap()
}

pub(crate) async fn level(peer: &Peer) {
    let report = peer.sync_once(DEADLINE).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
}

pub(crate) async fn connect(from: &Peer, to: &Peer) {
    let address = to.addresses().into_iter().next().unwrap();
    assert_eq!(from.connect(&address).await.unwrap(), to.id());
}

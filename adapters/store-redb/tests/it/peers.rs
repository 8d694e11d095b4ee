//! Whole peers on a disk that loses power: what was acknowledged to the application is there, and no
//! log forks, whatever another peer was sent before the crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use futures_executor::{LocalPool, LocalSpawner};
use futures_util::FutureExt;
use futures_util::task::LocalSpawnExt;
use leno::transport::memory::{Conditions, MemoryNetwork};
use leno::{
    Collection, DocumentId, Error, Event, Events, ManualClock, Peer, Role, Thread, ThreadId,
};
use leno_store_redb::Redb;
use leno_threads_core::store::{Batch, MemoryStore, Store, StoreError, View};

use crate::disk::{Disk, Loss, Trouble};
use crate::workload::{Dice, SMALL_JOURNAL, is_long};

/// Long enough for everything, on a clock that stands.
const DEADLINE: Duration = Duration::from_secs(1);

/// Peers on one executor, one network and one clock that stands.
struct World {
    network: MemoryNetwork,
    clock: ManualClock,
    spawner: LocalSpawner,
    dice: Dice,
}

/// A peer, and how its driver ends.
struct Running {
    peer: Peer,
    ended: oneshot::Receiver<Result<(), Error>>,
}

/// Runs a test to its end, waiting for the stores' threads where it must.
fn run<T>(seed: u64, test: impl AsyncFnOnce(World) -> T) -> T {
    let mut pool = LocalPool::new();
    let world = World {
        network: MemoryNetwork::new(7, Conditions::default()),
        clock: ManualClock::new(1_800_000_000_000),
        spawner: pool.spawner(),
        dice: Dice::new(seed),
    };
    pool.run_until(test(world))
}

impl World {
    async fn start(&mut self, store: impl Store + 'static) -> Result<Running, Error> {
        let mut seed = [0; 32];
        seed.copy_from_slice(&self.dice.bytes(32));
        // The device is drawn here, and found again by the peer.
        let device = Peer::device(&store).await;
        let builder = Peer::builder()
            .store(store)
            .clock(self.clock.clone())
            .seed(seed);
        let builder = match device {
            Ok(device) => {
                let id = leno::PeerId(device.verifying_key().to_bytes());
                builder.transport(self.network.endpoint(id))
            }
            Err(error) => return Err(error),
        };
        let (peer, driver) = builder.build().await?;
        let (tell, ended) = oneshot::channel();
        let run = async move {
            // Nobody may wait for it any more.
            let _ = tell.send(driver.run().await);
        };
        self.spawner.spawn_local(run).unwrap();
        Ok(Running { peer, ended })
    }
}

/// What the application of a peer was told, and what of it must be there ever after.
#[derive(Clone, Debug, Default)]
struct Kept {
    band: Option<ThreadId>,
    /// Whether Bob has joined.
    is_shared: bool,
    documents: BTreeMap<String, Option<Song>>,
    /// What was begun and not acknowledged: it may be there or not.
    uncertain: Option<String>,
}

type Song = BTreeMap<String, String>;

fn song(title: &str, bytes: usize) -> Song {
    let text = title.repeat(bytes / title.len());
    BTreeMap::from([
        ("title".to_owned(), title.to_owned()),
        ("text".to_owned(), text),
    ])
}

fn songs(thread: &Thread) -> Collection<Song> {
    thread.collection("songs")
}

async fn put(thread: &Thread, title: &str, bytes: usize, kept: &mut Kept) -> Result<(), Error> {
    let song = song(title, bytes);
    kept.uncertain = Some(title.to_owned());
    songs(thread).put(&id(title), &song).await?;
    kept.documents.insert(title.to_owned(), Some(song));
    kept.uncertain = None;
    Ok(())
}

fn id(title: &str) -> DocumentId {
    DocumentId::natural(title).unwrap()
}

/// Alice makes a thread and writes; Bob joins and writes; all the while they sync. Ends at the first
/// error of Alice's.
async fn write_together(alice: &Peer, bob: &Peer, kept: &mut Kept) -> Result<(), Error> {
    let band = alice.create_thread("band").await?;
    kept.band = Some(band.id());
    for number in 0..3 {
        put(&band, &format!("before {number}"), 100, kept).await?;
    }
    let card = bob.card("Bob").await.unwrap();
    let ticket = band.grant(&card, Role::Writer).await?;
    let bobs = bob.join(&ticket).await.unwrap();
    kept.is_shared = true;
    alice.sync_once(DEADLINE).await?;
    for number in 0..14 {
        let bytes = if number % 5 == 4 { 20_000 } else { 150 };
        put(&band, &format!("alice {number}"), bytes, kept).await?;
        // Bob answers, also on the same document, as long as there is somebody.
        let title = format!("bob {number}");
        songs(&bobs)
            .put(&id(&title), &song(&title, bytes))
            .await
            .unwrap();
        songs(&bobs)
            .put(&id("both"), &song(&title, 50))
            .await
            .unwrap();
        if number % 4 == 3 {
            let gone = format!("alice {}", number - 2);
            kept.uncertain = Some(gone.clone());
            songs(&band).delete(&id(&gone)).await?;
            kept.documents.insert(gone, None);
            kept.uncertain = None;
            alice.sync_once(DEADLINE).await?;
        }
    }
    Ok(())
}

/// Runs [`write_together`] with Alice on a store, until it ends or the store does; gives what she was
/// told.
async fn live(world: &mut World, store: impl Store + 'static, bobs: &MemoryStore) -> Kept {
    let mut kept = Kept::default();
    let bob = world.start(bobs.clone()).await.unwrap();
    if let Ok(alice) = world.start(store).await {
        if write_together(&alice.peer, &bob.peer, &mut kept)
            .await
            .is_ok()
        {
            // It may fail; that is the same as a crash to whoever opens the store again.
            let _ = alice.peer.close().await;
        }
        drop(alice.peer);
        // The store is released when the driver is.
        let _ = alice.ended.await;
    }
    bob.peer.close().await.unwrap();
    let _ = bob.ended.await;
    kept
}

/// Opens Alice's disk, checks what she was told, writes, and syncs with Bob.
async fn check(world: &mut World, image: Vec<u8>, bobs: &MemoryStore, kept: &Kept) {
    let disk = Disk::new(image, Trouble::None);
    let store = Redb::options()
        .settle_after(None)
        .open_backend(disk)
        .unwrap();
    let alice = world.start(store).await.unwrap().peer;
    let Some(band) = kept.band else {
        // Nothing was acknowledged; the peer is good for something new.
        alice.create_thread("new").await.unwrap();
        return;
    };
    let band = alice
        .thread(band)
        .await
        .expect("the thread was acknowledged");
    for (title, song) in &kept.documents {
        if kept.uncertain.as_ref() != Some(title) {
            let found = songs(&band).get(&id(title)).await.unwrap();
            assert_eq!(found, *song, "{title} was acknowledged");
        }
    }
    let mut events = [alice.events().await.unwrap()]
        .into_iter()
        .collect::<Vec<_>>();
    let after = song("after", 50);
    songs(&band).put(&id("after"), &after).await.unwrap();
    if !kept.is_shared {
        return;
    }
    let bob = world.start(bobs.clone()).await.unwrap().peer;
    events.push(bob.events().await.unwrap());
    let bobs = bob.thread(band.id()).await.unwrap();
    bob.connect(&alice.addresses()[0]).await.unwrap();
    for peer in [&bob, &alice, &bob] {
        let report = peer.sync_once(DEADLINE).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
    }
    assert_eq!(songs(&bobs).get(&id("after")).await.unwrap(), Some(after));
    assert_eq!(
        band.state_hash().await.unwrap(),
        bobs.state_hash().await.unwrap(),
        "equal states"
    );
    events.iter_mut().for_each(nobody_forked);
    for thread in [&band, &bobs] {
        assert_eq!(thread.quarantined().await.unwrap(), [], "all records stand");
    }
}

/// Neither forks nor anything refused among the events so far.
fn nobody_forked(events: &mut Events) {
    while let Some(Some(event)) = events.next().now_or_never() {
        let is_bad = matches!(
            event,
            Event::Forked { .. }
                | Event::OwnLogAhead { .. }
                | Event::Refused { .. }
                | Event::Quarantined { .. }
                | Event::Lagged { .. }
        );
        assert!(!is_bad, "{event:?}");
    }
}

fn open(disk: &Disk) -> Result<Redb, StoreError> {
    Redb::options()
        .settle_after(None)
        .journal_bytes(SMALL_JOURNAL)
        .open_backend(disk.clone())
}

#[test]
fn peer_whose_disk_loses_power_keeps_what_it_acknowledged_and_never_forks() {
    // How many operations there are differs by a few from run to run: what waits for a commit shares
    // the next.
    let whole = Disk::new(Vec::new(), Trouble::None);
    let store = open(&whole).unwrap();
    let kept = run(1, async |mut world| {
        live(&mut world, store, &MemoryStore::new()).await
    });
    assert!(
        kept.uncertain.is_none() && kept.documents.len() == 17,
        "{kept:?}"
    );
    let rounds = if is_long() { 50 } else { 2 };
    let (mut crashes, mut shared) = (0, 0);
    for round in 0..rounds {
        let mut dice = Dice::new(round);
        for at in 0..=whole.operations() {
            shared += usize::from(crash_peer(at, &mut dice));
            crashes += 1;
        }
    }
    println!("{crashes} crashes of a peer, {shared} of them after another one had joined");
    assert!(
        crashes > 200 && shared > crashes / 2,
        "{shared} of {crashes}"
    );
}

/// Runs a peer into a crash at an operation, in every third case into another one while it recovers,
/// and checks it then. Tells whether another peer had joined its thread.
fn crash_peer(at: u64, dice: &mut Dice) -> bool {
    let disk = Disk::new(Vec::new(), Trouble::PowerLoss { at });
    let bobs = MemoryStore::new();
    let mut kept = match open(&disk) {
        Ok(store) => run(dice.next() >> 40, async |mut world| {
            live(&mut world, store, &bobs).await
        }),
        Err(_) => Kept::default(),
    };
    let loss = Loss::ALL[dice.below(Loss::ALL.len())];
    let mut image = disk.after_crash(loss, dice);
    if dice.below(3) == 0 {
        let again = dice.next() % 30;
        let disk = Disk::new(image, Trouble::PowerLoss { at: again });
        if let Ok(store) = open(&disk) {
            run(dice.next() >> 40, async |mut world| {
                recover(&mut world, store, &mut kept).await;
            });
        }
        let loss = Loss::ALL[dice.below(Loss::ALL.len())];
        image = disk.after_crash(loss, dice);
    }
    run(dice.next() >> 40, async |mut world| {
        check(&mut world, image, &bobs, &kept).await;
    });
    kept.is_shared
}

/// Opens a peer after a crash and writes until the power goes again.
async fn recover(world: &mut World, store: Redb, kept: &mut Kept) {
    let Ok(alice) = world.start(store).await else {
        return;
    };
    if let Some(band) = kept.band
        && let Ok(band) = alice.peer.thread(band).await
    {
        // What was uncertain stays so.
        let uncertain = kept.uncertain.take();
        for number in 0..4 {
            if put(&band, &format!("again {number}"), 100, kept)
                .await
                .is_err()
            {
                break;
            }
        }
        if let Some(uncertain) = uncertain {
            kept.documents.remove(&uncertain);
        }
        let _ = alice.peer.close().await;
    }
    drop(alice.peer);
    let _ = alice.ended.await;
}

/// A store in memory that notes all batches.
#[derive(Clone, Debug, Default)]
struct Recording {
    rows: MemoryStore,
    batches: Arc<Mutex<Vec<Batch>>>,
}

#[async_trait]
impl Store for Recording {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        self.rows.view()
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.batches.lock().unwrap().push(batch.clone());
        self.rows.commit(batch).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The batches that the driver of a peer makes who owns a thread, and of one who joins it.
pub(crate) fn batches() -> (Vec<Batch>, Vec<Batch>) {
    let (alices, bobs) = (Recording::default(), Recording::default());
    run(2, async |mut world| {
        let mut kept = Kept::default();
        let alice = world.start(alices.clone()).await.unwrap();
        let bob = world.start(bobs.clone()).await.unwrap();
        write_together(&alice.peer, &bob.peer, &mut kept)
            .await
            .unwrap();
        for running in [alice, bob] {
            running.peer.close().await.unwrap();
            running.ended.await.unwrap().unwrap();
        }
    });
    let take = |it: Recording| std::mem::take(&mut *it.batches.lock().unwrap());
    (take(alices), take(bobs))
}

//! Copies of a peer's store that are put back: noticed, and harmless.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex};

use leno::store::{Batch, Direction, MemoryStore, Store, Table};
use leno::{Error, Event, FileGeneration, Generation, Peer, Role};
use leno_threads_core::NonceSecret;
use leno_threads_core::sync::{PeerKey, Replica};

use crate::support::{Pair, Running, Song, World, connect, id, level, run, song};

/// A count kept elsewhere, such as on a server.
#[derive(Clone, Debug, Default)]
struct Elsewhere {
    count: Arc<Mutex<Option<u64>>>,
    /// Whether to fail in place of keeping a number, as a crash would.
    is_broken: Arc<Mutex<bool>>,
}

impl Generation for Elsewhere {
    fn load(&mut self) -> Result<Option<u64>, Error> {
        Ok(*self.count.lock().unwrap())
    }

    fn store(&mut self, generation: u64) -> Result<(), Error> {
        if *self.is_broken.lock().unwrap() {
            return Err(std::io::Error::other("no room").into());
        }
        *self.count.lock().unwrap() = Some(generation);
        Ok(())
    }
}

/// A copy of all rows.
pub(crate) async fn copy(store: &MemoryStore) -> MemoryStore {
    let mut batch = Batch::new();
    let view = store.view().unwrap();
    for table in Table::ALL {
        let all = (Bound::Unbounded, Bound::Unbounded);
        view.scan(
            table,
            all.0,
            all.1,
            Direction::Forward,
            &mut |key, value| {
                batch.put(table, key.to_vec(), value.to_vec());
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    }
    let copy = MemoryStore::new();
    copy.commit(batch).await.unwrap();
    copy
}

async fn counted(world: &World, store: &MemoryStore, count: &Elsewhere) -> Running {
    let builder = world.networked(store.clone()).await;
    world
        .start(builder.generation(count.clone()))
        .await
        .unwrap()
}

/// The incarnations of the data logs that the peer of a store opened in its only thread.
async fn incarnations(store: &MemoryStore) -> BTreeSet<u64> {
    let device = Peer::device(store).await.unwrap();
    let secret = NonceSecret::new(device.nonce_secret().as_bytes());
    let local = PeerKey(device.verifying_key().to_bytes());
    let replica = Replica::load(&*store.view().unwrap(), local, secret).unwrap();
    let thread = replica.threads().next().unwrap();
    let own = thread.seat().id();
    let openings = thread.governance().openings();
    let own = openings.filter(|(_, opening)| opening.seat == own);
    own.map(|(_, opening)| opening.incarnation).collect()
}

/// Neither forks nor anything refused among the events so far.
async fn nobody_forked(events: &mut leno::Events, peer: &Peer) {
    // An event of one's own marks the end.
    peer.create_thread("end").await.unwrap();
    let mut threads = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Forked { .. } | Event::OwnLogAhead { .. } | Event::Refused { .. } => {
                panic!("{event:?}")
            }
            Event::Admitted { thread, .. } => {
                threads.insert(thread);
                let known = peer.threads().await.unwrap().len();
                if threads.len() == known {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// ```text
/// Bob     one ── copy ── two ── closed      copy ── refused ── level ── three
///          │              │                                       │       │
/// Alice    one            two                                    two    three
/// ```
#[test]
fn restored_copy_writes_nothing_before_it_is_level_and_then_a_log_of_its_own() {
    run(async |world| {
        let (store, count) = (MemoryStore::new(), Elsewhere::default());
        let alice = world.fresh().await;
        let bob = counted(&world, &store, &count).await.peer;
        let pair = Pair::of(alice, bob, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        let mut events = pair.alice.events().await.unwrap();
        bobs.put(&id("one"), &song("one")).await.unwrap();
        pair.converge().await;
        let unused = pair.bob.card("unused").await.unwrap();
        pair.bob.close().await.unwrap();
        let restored = copy(&store).await;
        let bob = counted(&world, &store, &count).await.peer;
        connect(&bob, &pair.alice).await;
        let bobs = bob.thread(pair.alices.id()).await.unwrap();
        bobs.collection("songs")
            .put(&id("two"), &song("two"))
            .await
            .unwrap();
        level(&bob).await;
        level(&pair.alice).await;
        bob.close().await.unwrap();

        // It stays so over a restart: only a sync, or the user's word, ends it.
        for _ in 0..2 {
            let builder = world.builder(restored.clone()).generation(count.clone());
            let bob = world.start(builder).await.unwrap().peer;
            let thread = bob.thread(pair.alices.id()).await.unwrap();
            let songs = thread.collection::<Song>("songs");
            assert_eq!(songs.get(&id("one")).await.unwrap(), Some(song("one")));
            let refused = songs.put(&id("three"), &song("three")).await;
            assert!(matches!(refused, Err(Error::Restored)), "{refused:?}");
            let card = world.fresh().await.card("Carol").await.unwrap();
            let refused = thread.grant(&card, Role::Reader).await;
            assert!(matches!(refused, Err(Error::Restored)));
            bob.close().await.unwrap();
        }

        let bob = counted(&world, &restored, &count).await.peer;
        connect(&bob, &pair.alice).await;
        level(&bob).await;
        level(&pair.alice).await;
        let thread = bob.thread(pair.alices.id()).await.unwrap();
        let songs = thread.collection::<Song>("songs");
        assert_eq!(
            songs.get(&id("two")).await.unwrap(),
            Some(song("two")),
            "it came back"
        );
        songs.put(&id("three"), &song("three")).await.unwrap();
        level(&bob).await;
        level(&pair.alice).await;
        assert_eq!(alices.count().await.unwrap(), 3);
        assert_eq!(
            thread.state_hash().await.unwrap(),
            pair.alices.state_hash().await.unwrap()
        );
        assert_eq!(incarnations(&restored).await, BTreeSet::from([0, 1]));

        // A card may have been used after the copy was made.
        let ticket = pair.alice.create_thread("other").await.unwrap();
        let ticket = ticket.grant(&unused, Role::Writer).await.unwrap();
        let refused = bob.join(&ticket).await;
        assert!(
            matches!(refused, Err(Error::TicketOfAnother)),
            "{refused:?}"
        );
        nobody_forked(&mut events, &pair.alice).await;
    });
}

#[test]
fn crash_between_the_two_counts_is_no_copy() {
    run(async |world| {
        let (store, count) = (MemoryStore::new(), Elsewhere::default());
        let open = async || {
            let builder = world.builder(store.clone()).generation(count.clone());
            world.start(builder).await
        };
        let peer = open().await.unwrap().peer;
        let band = peer.create_thread("band").await.unwrap();
        peer.close().await.unwrap();
        for _ in 0..3 {
            *count.is_broken.lock().unwrap() = true;
            assert!(matches!(open().await.map(|_| ()), Err(Error::File(_))));
            *count.is_broken.lock().unwrap() = false;
            let peer = open().await.unwrap().peer;
            let band = peer.thread(band.id()).await.unwrap();
            band.collection("songs").insert(&song("one")).await.unwrap();
            peer.close().await.unwrap();
        }
        assert_eq!(incarnations(&store).await, BTreeSet::from([0]));
    });
}

#[tokio::test]
async fn restored_folder_is_noticed_by_the_file_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("alice");
    let file = home.join("leno.redb");
    let saved = folder.path().join("saved");
    let open = async || Peer::folder(&home).unwrap().start().await.unwrap();

    let peer = open().await;
    let band = peer.create_thread("band").await.unwrap().id();
    peer.close().await.unwrap();
    std::fs::copy(&file, &saved).unwrap();
    let peer = open().await;
    let songs = peer.thread(band).await.unwrap().collection::<Song>("songs");
    songs.put(&id("one"), &song("one")).await.unwrap();
    peer.close().await.unwrap();
    assert!(folder.path().join("alice.generation").exists());
    // A neighbour's file is left alone.
    assert!(!folder.path().join("alice.new").exists());

    std::fs::copy(&saved, &file).unwrap();
    let peer = open().await;
    let thread = peer.thread(band).await.unwrap();
    let songs = thread.collection::<Song>("songs");
    let refused = songs.put(&id("two"), &song("two")).await;
    assert!(matches!(refused, Err(Error::Restored)), "{refused:?}");
    // Nobody else ever had the thread, so nobody can bring it back: the user says so.
    thread.assume_newest().await.unwrap();
    songs.put(&id("two"), &song("two")).await.unwrap();
    peer.close().await.unwrap();
    let peer = open().await;
    let songs = peer.thread(band).await.unwrap().collection::<Song>("songs");
    songs.put(&id("three"), &song("three")).await.unwrap();
    assert_eq!(songs.count().await.unwrap(), 2);
    peer.close().await.unwrap();
}

#[test]
fn count_that_does_not_read_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count");
    let mut generation = FileGeneration::new(&path);
    assert_eq!(generation.load().unwrap(), None);
    generation.store(7).unwrap();
    assert_eq!(generation.load().unwrap(), Some(7));
    for garbage in [&b""[..], b"seven", b"\xff\xfe", b"-1"] {
        std::fs::write(&path, garbage).unwrap();
        assert_eq!(generation.load().unwrap(), None, "{garbage:?}");
    }
}

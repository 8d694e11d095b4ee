//! Threads on a store that peers share: what one saved, another one serves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use leno::store::{
    HeadsVersion, ListedSegment, MemoryShared, MemoryStore, ObjectError, SegmentId, SharedStore,
    ThreadPlace,
};
use leno::{Error, Objects, Peer, Quota, Role, Saved, SharedError, Thread};

use crate::support::{Pair, Song, connect, id, join, level, run, song};

#[test]
fn new_node_serves_what_another_one_saved() {
    run(async |world| {
        let objects = Objects::memory();
        let pair = Pair::of(world.fresh().await, world.fresh().await, Role::Replicator).await;
        let (alice, alices) = (pair.alice.clone(), pair.alices.clone());
        let songs = alices.collection::<Song>("songs");
        for number in 0..30 {
            let name = id(&number.to_string());
            songs.put(&name, &song("Psalm")).await.unwrap();
        }
        // Another node and a reader have tickets, and nothing else.
        let (node, reader) = (world.fresh().await, world.fresh().await);
        let grant = async |peer: &Peer, role| {
            let card = peer.card("somebody").await.unwrap();
            alices.grant(&card, role).await.unwrap()
        };
        let nodes = grant(&node, Role::Replicator).await;
        let readers = grant(&reader, Role::Reader).await;
        level(&alice).await;
        let shared = pair.bob.shared(objects.clone()).await.unwrap();
        assert_eq!(shared.unsaved().await.unwrap(), [alices.id()]);
        let saved = shared.save(&pair.bobs).await.unwrap();
        let stored = alices.status().await.unwrap().stored;
        assert_eq!((saved.records, saved.has_more), (stored, false));
        assert!(saved.wraps > 0, "keys go along");
        assert_eq!(shared.unsaved().await.unwrap(), []);
        let state = alices.state_hash().await.unwrap();
        alice.close().await.unwrap();
        pair.bob.close().await.unwrap();

        let carried = node.join(&nodes).await.unwrap();
        let nothing = carried.export(None).await;
        assert!(
            matches!(nothing, Err(Error::NotSyncedYet(_))),
            "{nothing:?}"
        );
        let shared = node.shared(objects).await.unwrap();
        let loaded = shared.load(&carried).await.unwrap();
        assert_eq!((loaded.records, loaded.admitted), (stored, stored));
        assert!(
            loaded.damaged.is_empty() && loaded.refused.is_empty(),
            "{loaded:?}"
        );
        assert_eq!(loaded.left, 0);
        assert_eq!(carried.status().await.unwrap().role, Some(Role::Replicator));

        // All of it is there: nothing is saved twice, the keys neither.
        let again = shared.save(&carried).await.unwrap();
        assert_eq!(again, Saved::default());
        assert_eq!(shared.load(&carried).await.unwrap().records, 0);

        let read = reader.join(&readers).await.unwrap();
        connect(&reader, &node).await;
        level(&reader).await;
        assert_eq!(read.state_hash().await.unwrap(), state);
        let songs = read.collection::<Song>("songs");
        assert_eq!(songs.count().await.unwrap(), 30);
        assert_eq!(songs.get(&id("7")).await.unwrap(), Some(song("Psalm")));
    });
}

#[test]
fn nothing_there_is_no_error_and_quotas_hold() {
    run(async |world| {
        let objects = Objects::memory();
        let alice = world.offline(MemoryStore::new()).await.peer;
        let bob = world.offline(MemoryStore::new()).await.peer;
        let alices = alice.create_thread("band").await.unwrap();
        let bobs = join(&alices, &bob, Role::Replicator).await;
        let shared = bob.shared(objects.clone()).await.unwrap();
        assert_eq!(shared.load(&bobs).await.unwrap().records, 0);
        let early = shared.save(&bobs).await;
        assert!(matches!(early, Err(Error::NotSyncedYet(_))), "{early:?}");

        let songs = alices.collection::<Song>("songs");
        for number in 0..9 {
            let long = song(&number.to_string().repeat(2_000));
            songs.put(&id(&number.to_string()), &long).await.unwrap();
        }
        let alices_store = alice.shared(objects).await.unwrap();
        alices_store.save(&alices).await.unwrap();
        let quota = Quota {
            bytes: 100,
            ..Quota::default()
        };
        bobs.set_quota(Some(quota)).await.unwrap();
        let loaded = shared.load(&bobs).await.unwrap();
        assert!(!loaded.refused.is_empty() && loaded.left > 0, "{loaded:?}");
        assert!(bobs.status().await.unwrap().stored < alices.status().await.unwrap().stored);
        // Whoever has less is told, and adds nothing.
        let saved = shared.save(&bobs).await.unwrap();
        assert_eq!((saved.records, saved.has_more), (0, true));
        bobs.set_quota(None).await.unwrap();
        let loaded = shared.load(&bobs).await.unwrap();
        assert_eq!((loaded.refused.len(), loaded.left), (0, 0));
        let stored = alices.status().await.unwrap().stored;
        assert_eq!(bobs.status().await.unwrap().stored, stored);
    });
}

async fn offline() -> Peer {
    Peer::builder().start().await.unwrap()
}

async fn put(thread: &Thread, name: &str) {
    let songs = thread.collection::<Song>("songs");
    songs.put(&id(name), &song(name)).await.unwrap();
}

fn segments(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.map(|it| it.unwrap().path()).collect::<Vec<_>>()
    };
    let places = entries(&folder.join("threads"));
    let all = places
        .iter()
        .flat_map(|place| entries(&place.join("segments")));
    all.collect()
}

#[tokio::test]
async fn damaged_segment_is_told_and_the_rest_comes() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let (alice, carol, dave) = (offline().await, offline().await, offline().await);
    let alices = alice.create_thread("band").await.unwrap();
    let carols = join(&alices, &carol, Role::Writer).await;
    let daves = join(&alices, &dave, Role::Reader).await;
    let open = async |peer: &Peer| peer.shared(Objects::open(&url).unwrap()).await.unwrap();
    let (one, two, three) = (open(&alice).await, open(&carol).await, open(&dave).await);
    put(&alices, "first").await;
    one.save(&alices).await.unwrap();
    two.load(&carols).await.unwrap();
    let before = segments(folder.path());
    put(&alices, "second").await;
    one.save(&alices).await.unwrap();
    let after = segments(folder.path());
    let [victim] = after.difference(&before).collect::<Vec<_>>()[..] else {
        panic!("{before:?} {after:?}");
    };
    put(&carols, "third").await;
    let saved = two.save(&carols).await.unwrap();
    assert!(saved.has_more, "Alice's second song");

    let good = std::fs::read(victim).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(victim, bad).unwrap();
    let loaded = three.load(&daves).await.unwrap();
    let told: Vec<_> = loaded
        .damaged
        .iter()
        .map(|(id, _)| id.to_string())
        .collect();
    let name = victim.file_name().unwrap().to_str().unwrap();
    assert_eq!(told, [name]);
    assert!(matches!(
        loaded.damaged[0].1,
        SharedError::BadSegment { .. }
    ));
    assert_eq!(loaded.left, 1);
    let songs = daves.collection::<Song>("songs");
    let count = songs.count().await.unwrap();
    assert_eq!(count, 2, "the first and the third");
    std::fs::remove_file(victim).unwrap();
    let lost = three.load(&daves).await.unwrap();
    assert_eq!((lost.damaged.len(), lost.records), (1, 0));

    std::fs::write(victim, good).unwrap();
    let loaded = three.load(&daves).await.unwrap();
    assert_eq!((loaded.damaged.len(), loaded.left), (0, 0));
    assert_eq!(
        songs.get(&id("second")).await.unwrap(),
        Some(song("second"))
    );
}

/// Has others go first at every request, and counts who came too late.
#[derive(Clone, Debug, Default)]
struct Polite {
    inner: MemoryShared,
    conflicts: Arc<AtomicUsize>,
    /// Length of the heads that were written last.
    heads_bytes: Arc<AtomicUsize>,
}

#[async_trait]
impl SharedStore for Polite {
    async fn put_segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
        sealed: Vec<u8>,
    ) -> Result<(), ObjectError> {
        tokio::task::yield_now().await;
        self.inner.put_segment(place, id, sealed).await
    }

    async fn segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
    ) -> Result<Option<Vec<u8>>, ObjectError> {
        tokio::task::yield_now().await;
        self.inner.segment(place, id).await
    }

    async fn delete_segment(&self, place: &ThreadPlace, id: &SegmentId) -> Result<(), ObjectError> {
        tokio::task::yield_now().await;
        self.inner.delete_segment(place, id).await
    }

    async fn list_segments(
        &self,
        place: &ThreadPlace,
        after: Option<&SegmentId>,
        limit: usize,
    ) -> Result<Vec<ListedSegment>, ObjectError> {
        self.inner.list_segments(place, after, limit).await
    }

    async fn heads(
        &self,
        place: &ThreadPlace,
    ) -> Result<Option<(Vec<u8>, HeadsVersion)>, ObjectError> {
        let heads = self.inner.heads(place).await;
        tokio::task::yield_now().await;
        heads
    }

    async fn replace_heads(
        &self,
        place: &ThreadPlace,
        sealed: Vec<u8>,
        expected: Option<&HeadsVersion>,
    ) -> Result<HeadsVersion, ObjectError> {
        tokio::task::yield_now().await;
        self.heads_bytes.store(sealed.len(), Ordering::SeqCst);
        let replaced = self.inner.replace_heads(place, sealed, expected).await;
        if let Err(ObjectError::Conflict) = &replaced {
            self.conflicts.fetch_add(1, Ordering::SeqCst);
        }
        replaced
    }
}

#[tokio::test]
async fn nodes_that_save_at_once_lose_nothing() {
    let store = Polite::default();
    let (alice, bob, carol) = (offline().await, offline().await, offline().await);
    let alices = alice.create_thread("band").await.unwrap();
    let bobs = join(&alices, &bob, Role::Writer).await;
    let carols = join(&alices, &carol, Role::Reader).await;
    let open = async |peer: &Peer| peer.shared(store.clone()).await.unwrap();
    let (one, two, three) = (open(&alice).await, open(&bob).await, open(&carol).await);
    one.save(&alices).await.unwrap();
    two.load(&bobs).await.unwrap();
    for round in 0..20 {
        put(&alices, &format!("a{round}")).await;
        put(&bobs, &format!("b{round}")).await;
        let (ones, twos) = tokio::join!(one.save(&alices), two.save(&bobs));
        let (ones, twos) = (ones.unwrap(), twos.unwrap());
        assert!(ones.records > 0 && twos.records > 0, "{ones:?} {twos:?}");
    }
    assert!(store.conflicts.load(Ordering::SeqCst) > 0, "they met");

    three.load(&carols).await.unwrap();
    let songs = carols.collection::<Song>("songs");
    assert_eq!(songs.count().await.unwrap(), 40);
    // And those who never met are level.
    assert!(one.save(&alices).await.unwrap().has_more);
    one.load(&alices).await.unwrap();
    two.load(&bobs).await.unwrap();
    let state = carols.state_hash().await.unwrap();
    assert_eq!(alices.state_hash().await.unwrap(), state);
    assert_eq!(bobs.state_hash().await.unwrap(), state);
}

/// A store that was restored from a copy lost what was saved since: it is told, and made good.
#[tokio::test]
async fn store_that_lost_some_is_told_and_made_good() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, bob) = (offline().await, offline().await);
    let alices = alice.create_thread("band").await.unwrap();
    let bobs = join(&alices, &bob, Role::Reader).await;
    let open = async |peer: &Peer| {
        let objects = Objects::folder(folder.path()).unwrap();
        peer.shared(objects).await.unwrap()
    };
    let shared = open(&alice).await;
    put(&alices, "first").await;
    shared.save(&alices).await.unwrap();
    let place = std::fs::read_dir(folder.path().join("threads")).unwrap();
    let heads = place.last().unwrap().unwrap().path().join("heads");
    let copy = std::fs::read(&heads).unwrap();
    put(&alices, "second").await;
    shared.save(&alices).await.unwrap();
    std::fs::write(&heads, copy).unwrap();

    put(&alices, "third").await;
    let told = shared.save(&alices).await;
    let rolled_back = matches!(&told, Err(Error::Shared(SharedError::RolledBack { .. })));
    assert!(rolled_back, "{told:?}");
    assert_eq!(shared.unsaved().await.unwrap(), [alices.id()]);
    shared.accept_older(&alices).await.unwrap();
    assert_eq!(shared.save(&alices).await.unwrap().records, 2);
    open(&bob).await.load(&bobs).await.unwrap();
    let songs = bobs.collection::<Song>("songs");
    assert_eq!(songs.count().await.unwrap(), 3);
}

/// A save for each record would make as many segments: they are merged, and nothing is lost.
#[tokio::test]
async fn many_saves_stay_few_segments() {
    let store = Polite::default();
    let (alice, bob) = (offline().await, offline().await);
    let alices = alice.create_thread("band").await.unwrap();
    let bobs = join(&alices, &bob, Role::Reader).await;
    let shared = alice.shared(store.clone()).await.unwrap();
    let mut lengths = Vec::new();
    for round in 0..150 {
        put(&alices, &format!("{round}")).await;
        shared.save(&alices).await.unwrap();
        lengths.push(store.heads_bytes.load(Ordering::SeqCst));
    }
    let (end, longest) = (lengths[149], *lengths.iter().max().unwrap());
    assert!(end < longest / 2, "{end} of {longest}: {lengths:?}");
    bob.shared(store).await.unwrap().load(&bobs).await.unwrap();
    let songs = bobs.collection::<Song>("songs");
    assert_eq!(songs.count().await.unwrap(), 150);
}

//! What is committed, and when: a sync is the dearest thing that a peer does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leno::store::{Batch, MemoryStore, Store, StoreError, Table, View};
use leno::{Event, Events, Role, Thread};

use crate::restored::copy;
use crate::support::{Pair, World, connect, id, level, run, song};

/// Notes into which tables each commit writes.
#[derive(Clone, Debug, Default)]
struct Counting {
    rows: MemoryStore,
    commits: Arc<Mutex<Vec<BTreeSet<Table>>>>,
}

impl Counting {
    fn take(&self) -> Vec<BTreeSet<Table>> {
        std::mem::take(&mut self.commits.lock().unwrap())
    }
}

#[async_trait]
impl Store for Counting {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        self.rows.view()
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let tables = batch.writes().map(|(table, ..)| table).collect();
        self.commits.lock().unwrap().push(tables);
        self.rows.commit(batch).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Alice, whose commits are counted and whose events are read, and Bob, who keeps what she writes.
async fn share(world: &World) -> (Counting, Pair, Events) {
    let store = Counting::default();
    let alice = world.online(store.clone()).await.peer;
    let pair = Pair::of(alice, world.fresh().await, Role::Writer).await;
    // The first write opens a log, and what is held from before is committed.
    let mut events = pair.alice.events().await.unwrap();
    put_and_keep(&pair, &mut events, "zero").await;
    world.clock.advance(1_000);
    assert_eq!(outbox(&pair.alices).await, 0);
    store.take();
    (store, pair, events)
}

async fn outbox(thread: &Thread) -> u64 {
    thread.status().await.unwrap().outbox
}

/// Writes a song and waits until it is known that Bob keeps it.
async fn put_and_keep(pair: &Pair, events: &mut Events, title: &str) {
    pair.songs().0.put(&id("a"), &song(title)).await.unwrap();
    loop {
        if let Event::Replicated { .. } = events.next().await.unwrap() {
            return;
        }
    }
}

#[test]
fn what_a_peer_keeps_is_noted_with_the_next_write() {
    run(async |world| {
        let (store, pair, mut events) = share(&world).await;
        for title in ["one", "two", "three"] {
            put_and_keep(&pair, &mut events, title).await;
            assert_eq!(outbox(&pair.alices).await, 0, "status shows what is held");
        }
        let commits = store.take();
        assert_eq!(commits.len(), 3, "one commit for each write: {commits:?}");
        let with_outbox = commits.iter().filter(|it| it.contains(&Table::Outbox));
        assert_eq!(with_outbox.count(), 2, "{commits:?}");

        // The last one waits for its time alone.
        world.clock.advance(999);
        assert_eq!(outbox(&pair.alices).await, 0);
        assert_eq!(store.take(), []);
        world.clock.advance(1);
        assert_eq!(outbox(&pair.alices).await, 0);
        assert_eq!(store.take(), [BTreeSet::from([Table::Outbox])]);
    });
}

#[test]
fn closing_commits_what_is_held() {
    run(async |world| {
        let (store, pair, mut events) = share(&world).await;
        put_and_keep(&pair, &mut events, "one").await;
        store.take();
        pair.alice.close().await.unwrap();
        let commits = store.take();
        assert!(
            commits.iter().any(|it| it.contains(&Table::Outbox)),
            "{commits:?}"
        );
        let alice = world.offline(store).await.peer;
        let alices = alice.thread(pair.alices.id()).await.unwrap();
        assert_eq!(outbox(&alices).await, 0);
    });
}

#[test]
fn crash_forgets_only_who_keeps_it() {
    run(async |world| {
        let (store, pair, mut events) = share(&world).await;
        put_and_keep(&pair, &mut events, "one").await;
        // What a crash would leave.
        let left = copy(&store.rows).await;
        drop(events);
        let thread = pair.alices.id();
        pair.alice.pause().await.unwrap();
        let alice = world.online(left).await.peer;
        let alices = alice.thread(thread).await.unwrap();
        assert_eq!(outbox(&alices).await, 1, "nobody is known to keep it");
        connect(&alice, &pair.bob).await;
        level(&alice).await;
        assert_eq!(outbox(&alices).await, 0, "Bob said again what he has");
        let songs = alices.collection::<crate::support::Song>("songs");
        assert_eq!(songs.get(&id("a")).await.unwrap(), Some(song("one")));
        assert_eq!(
            alices.state_hash().await.unwrap(),
            pair.bobs.state_hash().await.unwrap()
        );
    });
}

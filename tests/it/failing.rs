//! Stores that fail: callers are told, nothing acknowledged is lost.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use leno::store::{Batch, Direction, MemoryStore, Store, StoreError, Table, View, Visit};
use leno::{Error, Role};

use crate::support::{Ended, Pair, Song, World, connect, id, level, run, song};

/// Fails the n-th commit, or the n-th read, from when it is told to.
#[derive(Clone, Debug, Default)]
struct Failing {
    rows: MemoryStore,
    commits_left: Arc<Countdown>,
    reads_left: Arc<Countdown>,
}

#[derive(Debug)]
struct Countdown(AtomicI64);

impl Default for Countdown {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl Countdown {
    fn set(&self, left: i64) {
        self.0.store(left, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(StoreError::Full),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Failing {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        Ok(Box::new(FailingView {
            view: self.rows.view()?,
            reads_left: &self.reads_left,
        }))
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.commits_left.check()?;
        self.rows.commit(batch).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct FailingView<'a> {
    view: Box<dyn View + 'a>,
    reads_left: &'a Countdown,
}

impl View for FailingView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reads_left.check()?;
        self.view.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.reads_left.check()?;
        self.view.scan(table, from, to, direction, visit)
    }
}

/// Alice, on the store that is about to fail, and Bob, who is not.
async fn share(world: &World, store: &Failing) -> (Pair, Ended) {
    let running = world.online(store.clone()).await;
    let pair = Pair::of(running.peer, world.fresh().await, Role::Writer).await;
    (pair, running.ended)
}

/// Opens Alice's store again: what was acknowledged is there, and Bob agrees.
async fn check_after(world: &World, store: &Failing, pair: &Pair, acknowledged: &[u32]) {
    store.commits_left.set(i64::MAX);
    store.reads_left.set(i64::MAX);
    let alice = world.online(store.clone()).await.peer;
    let alices = alice.thread(pair.alices.id()).await.unwrap();
    let songs = alices.collection::<Song>("songs");
    for number in acknowledged {
        let read = songs.get(&id(&format!("{number:03}"))).await.unwrap();
        assert_eq!(read, Some(song("one")), "{number} was acknowledged");
    }
    songs.put(&id("after"), &song("three")).await.unwrap();
    connect(&pair.bob, &alice).await;
    level(&pair.bob).await;
    level(&alice).await;
    assert_eq!(
        alices.state_hash().await.unwrap(),
        pair.bobs.state_hash().await.unwrap()
    );
}

#[test]
fn commit_that_fails_ends_the_peer_and_loses_nothing() {
    for left in 0..25 {
        run(async move |world| {
            let store = Failing::default();
            let (pair, ended) = share(&world, &store).await;
            let (alices, bobs) = pair.songs();
            store.commits_left.set(left);
            let mut acknowledged = Vec::new();
            let reason = loop {
                let number = acknowledged.len() as u32;
                match alices.put(&id(&format!("{number:03}")), &song("one")).await {
                    Ok(_) => acknowledged.push(number),
                    Err(error) => break error,
                }
                // What comes in is committed too.
                let name = id(&format!("bob {number:03}"));
                bobs.put(&name, &song("two")).await.unwrap();
            };
            assert!(
                matches!(reason, Error::Store(StoreError::Full)),
                "{reason:?}"
            );
            let ended = ended.await.unwrap();
            assert!(
                matches!(ended, Err(Error::Store(StoreError::Full))),
                "{ended:?}"
            );
            // Later callers are told the same, not that somebody closed the peer.
            let late = alices.get(&id("000")).await;
            assert!(
                matches!(late, Err(Error::Store(StoreError::Full))),
                "{late:?}"
            );
            assert!(matches!(pair.alice.close().await, Err(Error::Store(_))));
            check_after(&world, &store, &pair, &acknowledged).await;
        });
    }
}

/// A read that fails half-way may leave memory ahead of the store: nothing of that is committed.
#[test]
fn read_that_fails_while_writing_loses_nothing() {
    for left in 0..60 {
        run(async move |world| {
            let store = Failing::default();
            let (pair, _ended) = share(&world, &store).await;
            let (alices, bobs) = pair.songs();
            store.reads_left.set(left);
            let mut acknowledged = Vec::new();
            for number in 0..20 {
                match alices.put(&id(&format!("{number:03}")), &song("one")).await {
                    Ok(_) => acknowledged.push(number),
                    Err(error) => assert!(is_of_the_store(&error), "{error:?}"),
                }
                let name = id(&format!("bob {number:03}"));
                bobs.put(&name, &song("two")).await.unwrap();
            }
            // It may have ended by itself.
            drop(pair.alice.close().await);
            check_after(&world, &store, &pair, &acknowledged).await;
        });
    }
}

/// Whether the error, or what it comes from, is the store's.
fn is_of_the_store(error: &Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    causes.any(|cause| cause.is::<StoreError>())
}

//! What a peer tells without being asked.

use leno::store::MemoryStore;
use leno::transport::{Event as NetEvent, Transport};
use leno::{Event, Events, PeerId, Role, SyncError};

use crate::support::{Pair, connect, id, join, level, run, song};

/// The first event that is one of these.
async fn first<T>(events: &mut Events, wanted: impl Fn(&Event) -> Option<T>) -> T {
    loop {
        let event = events.next().await.expect("the peer is open");
        if let Some(found) = wanted(&event) {
            return found;
        }
    }
}

#[test]
fn what_is_to_come_is_announced_before_it_comes() {
    run(async |world| {
        let (alice, bob) = (world.fresh().await, world.fresh().await);
        let alices = alice.create_thread("band").await.unwrap();
        let songs = alices.collection("songs");
        let many = (0..500).map(|at| (id(&format!("{at:03}")), song("one")));
        songs.put_all(many.collect()).await.unwrap();
        let mut events = bob.events().await.unwrap();
        let bobs = join(&alices, &bob, Role::Reader).await;
        level(&bob).await;
        let mut announced = Vec::new();
        let progress = |event: &Event| match event {
            Event::Progress {
                thread,
                peer,
                to_receive,
                ..
            } => {
                assert_eq!((*thread, *peer), (bobs.id(), alice.id()));
                Some(*to_receive)
            }
            _ => None,
        };
        loop {
            let left = first(&mut events, progress).await;
            announced.push(left);
            if left == 0 && announced.len() > 1 {
                break;
            }
        }
        // 500 songs, the thread's first record, the grant and the log's opening.
        assert_eq!(announced.first(), Some(&503), "{announced:?}");
        assert!(announced.is_sorted_by(|a, b| a >= b), "{announced:?}");
    });
}

#[test]
fn writer_is_told_who_keeps_its_records() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Replicator).await;
        let mut events = pair.alice.events().await.unwrap();
        let (thread, carol) = (pair.alices.id(), pair.bob.id());
        let kept = |event: &Event| match event {
            Event::Replicated { thread: of, peer } => Some((*of, *peer)),
            _ => None,
        };
        for title in ["one", "two"] {
            pair.songs().0.put(&id("a"), &song(title)).await.unwrap();
            assert_eq!(first(&mut events, kept).await, (thread, carol));
            assert_eq!(pair.alices.status().await.unwrap().outbox, 0);
        }
        // Another one is told apart, also for records that were kept before.
        let dave = world.fresh().await;
        join(&pair.alices, &dave, Role::Replicator).await;
        assert_eq!(first(&mut events, kept).await, (thread, dave.id()));
        // Nobody keeps what nobody got.
        pair.bob.pause().await.unwrap();
        dave.pause().await.unwrap();
        pair.songs().0.put(&id("a"), &song("three")).await.unwrap();
        assert_eq!(pair.alices.status().await.unwrap().outbox, 1);
        pair.alice.close().await.unwrap();
        while let Some(event) = events.next().await {
            assert_eq!(kept(&event), None);
        }
    });
}

#[test]
fn who_breaks_the_protocol_is_named_and_cut_off() {
    run(async |world| {
        let alice = world.fresh().await;
        let mut events = alice.events().await.unwrap();
        let mallory = world.network.endpoint(PeerId([9; 32]));
        mallory.dial(&alice.addresses()[0]).await.unwrap();
        let Some(NetEvent::Connected { link, .. }) = mallory.next().await else {
            panic!("connected");
        };
        mallory.send(link, b"garbage".to_vec()).await.unwrap();
        mallory.send(link, b"more garbage".to_vec()).await.unwrap();
        let refused = first(&mut events, |event| match event {
            Event::Refused { peer, error } => Some((*peer, error.clone())),
            _ => None,
        });
        let (peer, error) = refused.await;
        assert_eq!(peer, mallory.local());
        assert!(
            matches!(&*error, SyncError::Malformed { peer: of, .. } if of.0 == peer.0),
            "{error}"
        );
        // Nothing that came behind it is looked at.
        let next = events.next().await.unwrap();
        assert!(
            matches!(next, Event::Disconnected { peer: it, .. } if it == peer),
            "{next:?}"
        );
        alice.close().await.unwrap();
        assert!(events.next().await.is_none());
    });
}

/// Two copies of Bob's store go on by themselves, and nothing counts their starts.
#[test]
fn fork_is_told_and_its_range_names_the_peer() {
    run(async |world| {
        let store = MemoryStore::new();
        let (alice, bob) = (world.fresh().await, world.online(store.clone()).await.peer);
        let pair = Pair::of(alice, bob, Role::Writer).await;
        pair.songs().1.put(&id("one"), &song("one")).await.unwrap();
        pair.converge().await;
        let copied = crate::restored::copy(&store).await;
        let mut events = pair.alice.events().await.unwrap();
        pair.songs().1.put(&id("two"), &song("two")).await.unwrap();
        pair.converge().await;
        pair.bob.close().await.unwrap();

        let clone = world.online(copied).await.peer;
        clone.pause().await.unwrap();
        let songs = clone
            .thread(pair.alices.id())
            .await
            .unwrap()
            .collection("songs");
        songs.put(&id("two"), &song("another")).await.unwrap();
        let mut clones_events = clone.events().await.unwrap();
        clone.resume().await.unwrap();
        connect(&clone, &pair.alice).await;
        let forked = first(&mut events, |event| match event {
            Event::Forked { thread, .. } => Some(*thread),
            Event::Refused { peer, .. } => {
                assert_eq!(*peer, clone.id());
                None
            }
            _ => None,
        });
        assert_eq!(forked.await, pair.alices.id());
        // The clone learns it too, and what it writes from then on is everybody's.
        let given_up = |event: &Event| matches!(event, Event::OwnLogAhead { .. }).then_some(());
        first(&mut clones_events, given_up).await;
        songs.put(&id("four"), &song("four")).await.unwrap();
        clone.sync_once(crate::support::DEADLINE).await.unwrap();
        level(&pair.alice).await;
        let read = pair.songs().0.get(&id("four")).await.unwrap();
        assert_eq!(read, Some(song("four")));
    });
}

//! Replicators: let in, bounded, removed, given up; and several of them.

use leno::store::MemoryStore;
use leno::{Error, Event, Peer, Quota, Role, SeatId, Thread, Unsent};

use crate::support::{DEADLINE, Pair, Song, World, connect, id, join, level, run, song};

async fn seat_of(thread: &Thread) -> SeatId {
    let members = thread.members().await.unwrap();
    members.iter().find(|it| it.is_self).unwrap().seat
}

async fn write(thread: &Thread, from: usize, many: usize) {
    let songs = thread.collection("songs");
    for number in from..from + many {
        let name = number.to_string();
        let long = song(&name.repeat(1000));
        songs.put(&id(&name), &long).await.unwrap();
    }
}

async fn title(thread: &Thread, name: &str) -> Option<String> {
    let songs = thread.collection::<Song>("songs");
    songs.get(&id(name)).await.unwrap().map(|song| song.title)
}

#[test]
fn quota_holds_over_restarts_and_the_writer_is_told() {
    run(async |world| {
        let disk = MemoryStore::new();
        let carol = world.online(disk.clone()).await.peer;
        let pair = Pair::of(world.fresh().await, carol, Role::Replicator).await;
        let room = pair.bobs.status().await.unwrap().bytes + 5_000;
        let quota = Quota {
            bytes: room,
            ..Quota::default()
        };
        pair.bobs.set_quota(Some(quota)).await.unwrap();
        pair.bob.close().await.unwrap();
        let carol = world.online(disk).await.peer;
        let carols = carol.thread(pair.alices.id()).await.unwrap();
        assert_eq!(carols.status().await.unwrap().quota, Some(quota));

        let mut events = pair.alice.events().await.unwrap();
        connect(&carol, &pair.alice).await;
        write(&pair.alices, 0, 9).await;
        let told = async {
            loop {
                if let Event::NoRoom { thread, peer } = events.next().await.unwrap() {
                    return (thread, peer);
                }
            }
        };
        assert_eq!(told.await, (pair.alices.id(), carol.id()));
        let status = carols.status().await.unwrap();
        assert!(status.bytes <= room && status.bytes > room - 2_000);

        // With more room the rest comes, without anybody asking.
        carols.set_quota(None).await.unwrap();
        level(&pair.alice).await;
        let bytes = pair.alices.status().await.unwrap().bytes;
        assert_eq!(carols.status().await.unwrap().bytes, bytes);
    });
}

#[test]
fn full_replicator_is_not_level() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Replicator).await;
        let quota = Quota {
            bytes: 0,
            ..Quota::default()
        };
        pair.bobs.set_quota(Some(quota)).await.unwrap();
        write(&pair.alices, 0, 1).await;
        let report = pair.alice.sync_once(std::time::Duration::ZERO);
        assert!(!report.await.unwrap().is_complete());
        assert!(!pair.alices.is_level_with(pair.bob.id()).await.unwrap());
        assert_eq!(pair.alices.status().await.unwrap().outbox, 1);
    });
}

#[test]
fn removed_replicator_gets_nothing_more_and_may_forget() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Replicator).await;
        write(&pair.alices, 0, 1).await;
        level(&pair.alice).await;
        let carols = seat_of(&pair.bobs).await;
        pair.alices.remove_replicator(carols).await.unwrap();
        let again = pair.alices.remove_replicator(carols).await;
        assert!(matches!(again, Err(Error::NotAReplicator(it)) if it == carols));
        let mine = seat_of(&pair.alices).await;
        let owner = pair.alices.remove_replicator(mine).await;
        assert!(matches!(owner, Err(Error::NotAReplicator(it)) if it == mine));
        write(&pair.alices, 1, 1).await;
        // Neither waits for the other any more.
        level(&pair.alice).await;
        level(&pair.bob).await;
        let status = pair.bobs.status().await.unwrap();
        assert_eq!((status.role, status.removed), (None, true));
        assert!(status.stored < pair.alices.status().await.unwrap().stored);
        assert_eq!(pair.alices.members().await.unwrap().len(), 1);

        pair.bobs.forget(Unsent::Keep).await.unwrap();
        assert!(pair.bob.threads().await.unwrap().is_empty());
        let gone = pair.bobs.status().await;
        assert!(matches!(gone, Err(Error::NoSuchThread(_))), "{gone:?}");
        let twice = pair.bobs.forget(Unsent::Keep).await;
        assert!(matches!(twice, Err(Error::NoSuchThread(_))), "{twice:?}");
        level(&pair.alice).await;
    });
}

#[test]
fn replicator_may_leave_by_itself() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Replicator).await;
        let seat = seat_of(&pair.bobs).await;
        pair.bobs.remove_replicator(seat).await.unwrap();
        level(&pair.alice).await;
        assert_eq!(pair.alices.members().await.unwrap().len(), 1);
        // A writer may not send it away.
        let dave = world.fresh().await;
        let daves = join(&pair.alices, &dave, Role::Writer).await;
        let rex = world.fresh().await;
        let rexs = join(&pair.alices, &rex, Role::Replicator).await;
        for peer in [&dave, &rex, &pair.alice] {
            level(peer).await;
        }
        let refused = daves.remove_replicator(seat_of(&rexs).await).await;
        assert!(matches!(refused, Err(Error::MayNotGrant)), "{refused:?}");
    });
}

#[test]
fn unsent_records_are_not_lost_by_mistake() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        pair.part().await;
        write(&pair.bobs, 0, 2).await;
        let mut watch = pair.songs().1.watch().await.unwrap();
        let kept = pair.bobs.forget(Unsent::Keep).await;
        assert!(
            matches!(kept, Err(Error::Unsent { records: 2 })),
            "{kept:?}"
        );
        assert!(title(&pair.bobs, "1").await.is_some());
        pair.bobs.forget(Unsent::Discard).await.unwrap();
        pair.bob.close().await.unwrap();
        assert!(watch.next().await.is_none());
    });
}

/// Alice reaches only the first replicator, Bob only the last.
#[test]
fn replicators_feed_and_heal_each_other() {
    run(async |world: World| {
        let alice = world.fresh().await;
        let alices = alice.create_thread("band").await.unwrap();
        let mut replicators: Vec<Peer> = Vec::new();
        for _ in 0..3 {
            let peer = world.fresh().await;
            join(&alices, &peer, Role::Replicator).await;
            level(&peer).await;
            level(&alice).await;
            replicators.push(peer);
        }
        let bob = world.fresh().await;
        let bobs = join(&alices, &bob, Role::Writer).await;
        level(&bob).await;
        level(&alice).await;
        let [first, middle, last] = &replicators[..] else {
            unreachable!()
        };
        // All of them know all roles before they part.
        for peer in [first, middle, last] {
            level(peer).await;
        }
        for (one, other) in [
            (&alice, middle),
            (&alice, last),
            (&alice, &bob),
            (&bob, first),
            (&bob, middle),
        ] {
            world.network.partition(one.id(), other.id());
        }
        connect(middle, first).await;
        connect(last, middle).await;
        connect(&bob, last).await;
        write(&alices, 0, 1).await;
        for peer in [&alice, first, middle, last, &bob] {
            level(peer).await;
        }
        assert_eq!(title(&bobs, "0").await.as_deref(), Some(&*"0".repeat(1000)));
        write(&bobs, 1, 1).await;
        for peer in [&bob, last, middle, first, &alice] {
            level(peer).await;
        }
        assert!(title(&alices, "1").await.is_some());

        // One that lost its disk is a new one: it takes a new grant, and the others fill it.
        last.close().await.unwrap();
        let fresh = world.fresh().await;
        join(&alices, &fresh, Role::Replicator).await;
        world.network.partition(alice.id(), fresh.id());
        connect(&fresh, middle).await;
        for peer in [&alice, first, middle, &fresh] {
            let report = peer.sync_once(DEADLINE).await.unwrap();
            assert!(report.behind.is_empty(), "{report:?}");
        }
    });
}

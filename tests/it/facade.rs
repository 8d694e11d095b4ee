//! The facade, call by call.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, poll};
use leno::store::{MemoryStore, Store, Table, scan_prefix};
use leno::transport::memory::Conditions;
use leno::{
    CHANGES_MAX, Card, Change, Definition, EVENTS_MAX, Error, Event, FieldChange, FieldEdit,
    Fields, Ipld, Peer, PeerId, Role, Strategy, Suite, SyncReport, TextError,
};
use leno_crdt_codec::cbor::Decoder;
use leno_threads_core::Genesis;

use crate::support::{DEADLINE, Pair, Song, connect, id, join, level, run, song};

#[test]
fn documents_are_put_patched_updated_deleted_and_listed() {
    run(async |world| {
        let peer = world.offline(MemoryStore::new()).await.peer;
        let band = peer.create_thread("band").await.unwrap();
        let songs = band.collection::<Song>("songs");
        assert!(songs.put(&id("b"), &song("two")).await.unwrap());
        assert!(
            !songs.put(&id("b"), &song("two")).await.unwrap(),
            "as it was"
        );
        assert!(songs.put(&id("a"), &song("one")).await.unwrap());
        let made = songs.insert(&song("three")).await.unwrap();
        assert_eq!(songs.count().await.unwrap(), 3);
        let listed = songs.list(None, 10).await.unwrap();
        let ids: BTreeSet<_> = listed.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(ids, BTreeSet::from([id("a"), id("b"), made.clone()]));
        let (first, second) = (&listed[0].0, &listed[1].0);
        let behind = songs.list(Some(first), 1).await.unwrap();
        assert_eq!(&behind[0].0, second, "the list goes on behind a document");

        let plays = BTreeMap::from([("plays", 5)]);
        assert!(songs.patch(&id("a"), &plays).await.unwrap());
        assert!(songs.update(&id("a"), |it| it.plays += 1).await.unwrap());
        let read = songs.get(&id("a")).await.unwrap().unwrap();
        assert_eq!((read.title.as_str(), read.plays), ("one", 6));
        assert_eq!(songs.conflicts(&id("a")).await.unwrap(), []);

        assert!(songs.delete(&id("a")).await.unwrap());
        assert!(!songs.delete(&id("a")).await.unwrap());
        assert_eq!(songs.get(&id("a")).await.unwrap(), None);
        let missing = songs.update(&id("a"), |it| it.plays += 1).await;
        assert!(matches!(missing, Err(Error::Db(_))), "{missing:?}");
        assert_eq!(songs.count().await.unwrap(), 2);
    });
}

#[test]
fn values_that_are_no_documents_say_so() {
    run(async |world| {
        let peer = world.offline(MemoryStore::new()).await.peer;
        let band = peer.create_thread("band").await.unwrap();
        let numbers = band.collection::<u32>("numbers");
        let refused = numbers.insert(&1).await;
        assert!(
            matches!(refused, Err(Error::NotADocument { .. })),
            "{refused:?}"
        );

        let any = band.collection::<Ipld>("songs");
        let map = Ipld::Map(BTreeMap::from([("title".to_owned(), Ipld::from(1))]));
        any.put(&id("a"), &map).await.unwrap();
        let read = band.collection::<Song>("songs").get(&id("a")).await;
        assert!(matches!(read, Err(Error::OtherForm { .. })), "{read:?}");
        let name = "x".repeat(257);
        let text = TextError::NameTooLong { bytes: 257 };
        let refused = peer.create_thread(&name).await;
        assert!(matches!(refused, Err(Error::Text(it)) if it == text));
        let refused = peer.card(&name).await;
        assert!(matches!(refused, Err(Error::Text(it)) if it == text));
    });
}

#[test]
fn definition_decides_how_fields_merge() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let strategies = Fields::default().field("plays", Strategy::Counter);
        let definition = Definition {
            version: 1,
            strategies,
        };
        for _ in 0..2 {
            pair.alices.define("songs", &definition).await.unwrap();
        }
        for version in [0, 1, u64::MAX] {
            let other = Definition {
                version,
                strategies: Fields::default(),
            };
            let refused = pair.alices.define("songs", &other).await;
            assert!(matches!(refused, Err(Error::OldVersion { .. })));
        }
        let (alices, bobs) = pair.songs();
        alices.put(&id("a"), &song("one")).await.unwrap();
        pair.converge().await;
        let plays = |by: i64| {
            vec![FieldEdit {
                path: vec!["plays".to_owned()],
                change: FieldChange::Increment(by),
            }]
        };
        pair.part().await;
        alices.edit(&id("a"), plays(2)).await.unwrap();
        bobs.edit(&id("a"), plays(3)).await.unwrap();
        pair.meet().await;
        pair.converge().await;
        assert_eq!(alices.get(&id("a")).await.unwrap().unwrap().plays, 5);
    });
}

#[test]
fn changes_of_others_are_watched() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        let mut live = alices.watch().await.unwrap();
        bobs.put(&id("a"), &song("one")).await.unwrap();
        bobs.put(&id("a"), &song("two")).await.unwrap();
        bobs.delete(&id("a")).await.unwrap();
        let mut shown = None;
        loop {
            match live.next().await.unwrap().unwrap() {
                Change::Put { before, after, .. } => {
                    assert_eq!(before, shown, "changes join on to each other");
                    shown = Some(after);
                }
                Change::Deleted { before, .. } => {
                    assert_eq!(before, shown);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(shown, Some(song("two")));
        pair.converge().await;
    });
}

#[test]
fn peer_without_a_network_works() {
    run(async |world| {
        let peer = world.offline(MemoryStore::new()).await.peer;
        let band = peer.create_thread("band").await.unwrap();
        band.collection("songs")
            .put(&id("a"), &song("one"))
            .await
            .unwrap();
        assert_eq!(peer.addresses(), []);
        let refused = peer.connect(&"memory/x".parse().unwrap()).await;
        assert!(matches!(refused, Err(Error::NoTransport)), "{refused:?}");
        let report = peer.sync_once(Duration::ZERO).await.unwrap();
        assert_eq!(report, SyncReport::default());
        assert!(!report.is_complete());
    });
}

#[test]
fn paused_peer_hears_nothing_until_it_is_resumed() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        pair.bob.pause().await.unwrap();
        alices.put(&id("a"), &song("one")).await.unwrap();
        bobs.put(&id("b"), &song("two")).await.unwrap();
        let refused = pair.bob.connect(&pair.alice.addresses()[0]).await;
        assert!(matches!(refused, Err(Error::Paused)), "{refused:?}");
        assert_eq!(bobs.get(&id("a")).await.unwrap(), None);
        // The address of the ticket is dialled again by itself.
        pair.bob.resume().await.unwrap();
        pair.converge().await;
        assert_eq!(bobs.get(&id("a")).await.unwrap(), Some(song("one")));
        assert_eq!(alices.get(&id("b")).await.unwrap(), Some(song("two")));
    });
}

#[test]
fn peer_that_hung_up_is_dialled_again() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        // Bob dialled Alice. She hangs up, and knows no address of his.
        pair.alice.pause().await.unwrap();
        alices.put(&id("a"), &song("one")).await.unwrap();
        pair.alice.resume().await.unwrap();
        assert!(
            pair.bob
                .sync_once(Duration::ZERO)
                .await
                .unwrap()
                .level
                .is_empty()
        );
        world.clock.advance(500);
        pair.converge().await;
        assert_eq!(bobs.get(&id("a")).await.unwrap(), Some(song("one")));
    });
}

#[test]
fn sync_once_says_who_is_behind() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let slow = Conditions {
            latency_millis: 60_000..=60_000,
            ..Conditions::default()
        };
        world.network.set_conditions(slow);
        pair.songs().0.put(&id("a"), &song("one")).await.unwrap();
        let waiting = pair.alice.sync_once(DEADLINE);
        let passing = async { world.clock.advance(1_000) };
        let (report, ()) = futures_util::join!(waiting, passing);
        let report = report.unwrap();
        assert!(!report.is_complete());
        assert_eq!(report.behind, BTreeSet::from([pair.bob.id()]));
    });
}

#[test]
fn sync_once_is_complete_only_when_all_has_arrived() {
    run(|world| async move {
        let pair = Pair::new(&world, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        pair.part().await;
        world.network.set_conditions(Conditions {
            latency_millis: 20..=20,
            bytes_per_second: Some(10_000),
            ..Conditions::default()
        });
        let text = "x".repeat(10_000);
        for at in 0..20 {
            let song = song(&text);
            alices.put(&id(&format!("song {at}")), &song).await.unwrap();
        }
        world.network.drive(pair.meet()).await;
        // What is sent is not there yet: a slow link takes 20 seconds for it.
        world.network.drive(level(&pair.alice)).await;
        let status = pair.alices.status().await.unwrap();
        assert_eq!((bobs.count().await.unwrap(), status.outbox), (20, 0));
    });
}

#[test]
fn of_two_concurrent_writes_the_loser_is_kept() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        alices.put(&id("a"), &song("one")).await.unwrap();
        pair.converge().await;
        pair.part().await;
        alices.put(&id("a"), &song("Alice's")).await.unwrap();
        bobs.put(&id("a"), &song("Bob's")).await.unwrap();
        pair.meet().await;
        pair.converge().await;
        let shown = alices.get(&id("a")).await.unwrap();
        assert_eq!(shown, bobs.get(&id("a")).await.unwrap());
        let conflicts = alices.conflicts(&id("a")).await.unwrap();
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts, bobs.conflicts(&id("a")).await.unwrap());
        alices.put(&id("a"), &song("both")).await.unwrap();
        pair.converge().await;
        assert_eq!(bobs.conflicts(&id("a")).await.unwrap(), []);
    });
}

#[test]
fn reader_cannot_write() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Reader).await;
        let (alices, bobs) = pair.songs();
        alices.put(&id("a"), &song("one")).await.unwrap();
        pair.converge().await;
        assert_eq!(bobs.get(&id("a")).await.unwrap(), Some(song("one")));
        let refused = bobs.put(&id("b"), &song("two")).await;
        assert!(matches!(refused, Err(Error::Append(_))), "{refused:?}");
        let refused = pair.bobs.define("songs", &Definition::default()).await;
        assert!(matches!(refused, Err(Error::Append(_))), "{refused:?}");
        let card = world.fresh().await.card("Carol").await.unwrap();
        let refused = pair.bobs.grant(&card, Role::Reader).await;
        assert!(matches!(refused, Err(Error::MayNotGrant)));
        pair.converge().await;
        assert_eq!(alices.count().await.unwrap(), 1);
    });
}

#[test]
fn replicator_carries_what_it_can_neither_read_nor_write() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Replicator).await;
        let (alices, carols) = pair.songs();
        alices.put(&id("a"), &song("one")).await.unwrap();
        level(&pair.alice).await;
        level(&pair.bob).await;
        let (at_alices, at_carols) = (
            pair.alices.status().await.unwrap(),
            pair.bobs.status().await.unwrap(),
        );
        assert_eq!(at_alices.stored, at_carols.stored);
        assert_eq!((at_carols.name, at_carols.quarantined), (None, 0));
        let refused = carols.get(&id("a")).await;
        assert!(matches!(refused, Err(Error::MayNotRead)), "{refused:?}");
        assert!(matches!(carols.count().await, Err(Error::MayNotRead)));
        assert!(matches!(carols.watch().await, Err(Error::MayNotRead)));
        let refused = carols.put(&id("b"), &song("two")).await;
        assert!(matches!(refused, Err(Error::Append(_))), "{refused:?}");

        // It carries between two who never meet.
        let bob = world.fresh().await;
        let bobs = join(&pair.alices, &bob, Role::Reader).await;
        level(&pair.alice).await;
        level(&pair.bob).await;
        pair.alice.pause().await.unwrap();
        connect(&bob, &pair.bob).await;
        level(&bob).await;
        let read = bobs.collection("songs").get(&id("a")).await.unwrap();
        assert_eq!(read, Some(song("one")));
    });
}

#[test]
fn thread_can_be_joined_before_the_granter_is_reachable() {
    run(async |world| {
        let (alice, bob) = (world.fresh().await, world.fresh().await);
        let alices = alice.create_thread("band").await.unwrap();
        alices
            .collection("songs")
            .put(&id("a"), &song("one"))
            .await
            .unwrap();
        let card = bob.card("Bob").await.unwrap();
        let ticket = alices.grant(&card, Role::Writer).await.unwrap();
        world.network.partition(alice.id(), bob.id());
        let bobs = bob.join(&ticket).await.unwrap();
        let early = bobs.collection::<Song>("songs").get(&id("a")).await;
        assert!(matches!(early, Err(Error::NotSyncedYet(it)) if it == alices.id()));
        let early = bobs.collection("songs").insert(&song("two")).await;
        assert!(early.unwrap_err().may_retry());
        world.network.heal(alice.id(), bob.id());
        world.clock.advance(500);
        level(&bob).await;
        let read = bobs.collection("songs").get(&id("a")).await.unwrap();
        assert_eq!(read, Some(song("one")));
    });
}

#[test]
fn join_dials_even_if_its_caller_goes_away() {
    run(async |world| {
        let (alice, bob) = (world.fresh().await, world.fresh().await);
        let band = alice.create_thread("band").await.unwrap();
        let card = bob.card("Bob").await.unwrap();
        let ticket = band.grant(&card, Role::Reader).await.unwrap();
        {
            let join = pin!(bob.join(&ticket));
            assert!(poll!(join).is_pending(), "the peer was asked");
        }
        // Waits for a dial that is under way, and for ever if there is none.
        level(&bob).await;
        assert!(bob.thread(band.id()).await.is_ok());
    });
}

#[test]
fn newcomer_is_not_shown_the_thread_as_it_was_before_the_grant() {
    run(async |world| {
        let (alice, carol) = (world.fresh().await, world.fresh().await);
        let disk = MemoryStore::new();
        let bob = world.online(disk.clone()).await.peer;
        let alices = alice.create_thread("band").await.unwrap();
        join(&alices, &carol, Role::Replicator).await;
        let card = bob.card("Bob").await.unwrap();
        alices.grant(&card, Role::Reader).await.unwrap();
        alices
            .collection("songs")
            .put(&id("a"), &song("one"))
            .await
            .unwrap();
        level(&carol).await;
        for (one, other) in [(&alice, &carol), (&alice, &bob)] {
            world.network.partition(one.id(), other.id());
        }
        let ticket = alices.grant(&card, Role::Writer).await.unwrap();

        // Carol has the thread, with another grant to the same seat.
        let bobs = bob.join(&ticket).await.unwrap();
        connect(&bob, &carol).await;
        level(&bob).await;
        assert_eq!(bobs.status().await.unwrap().role, Some(Role::Reader));
        let shown = bobs.collection::<Song>("songs").get(&id("a")).await;
        assert!(
            matches!(shown, Err(Error::NotSyncedYet(it)) if it == alices.id()),
            "{shown:?}"
        );
        bob.close().await.unwrap();
        let bob = world.online(disk).await.peer;
        let songs = bob.thread(alices.id()).await.unwrap().collection("songs");
        let early = songs.put(&id("a"), &song("two")).await;
        assert!(
            matches!(early, Err(Error::NotSyncedYet(_))),
            "also after a restart: {early:?}"
        );

        world.network.heal(alice.id(), bob.id());
        connect(&bob, &alice).await;
        level(&bob).await;
        assert_eq!(songs.get(&id("a")).await.unwrap(), Some(song("one")));
        songs.put(&id("a"), &song("two")).await.unwrap();
    });
}

#[test]
fn thread_that_is_not_here_is_named() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let stranger = world.fresh().await;
        let refused = stranger.thread(pair.alices.id()).await;
        assert!(matches!(refused, Err(Error::NoSuchThread(it)) if it == pair.alices.id()));
        assert_eq!(pair.bob.threads().await.unwrap().len(), 1);
        assert!(stranger.threads().await.unwrap().is_empty());
    });
}

#[test]
fn ticket_serves_only_the_peer_whose_card_it_answers() {
    run(async |world| {
        let (alice, bob, carol) = (
            world.fresh().await,
            world.fresh().await,
            world.fresh().await,
        );
        let alices = alice.create_thread("band").await.unwrap();
        let card = bob.card("Bob").await.unwrap();
        let ticket = alices.grant(&card, Role::Writer).await.unwrap();
        let refused = carol.join(&ticket).await;
        assert!(
            matches!(refused, Err(Error::TicketOfAnother)),
            "{refused:?}"
        );
        assert!(carol.threads().await.unwrap().is_empty());
        bob.join(&ticket).await.unwrap();
        bob.join(&ticket).await.unwrap();
        level(&bob).await;
        assert_eq!(bob.threads().await.unwrap().len(), 1);
    });
}

#[test]
fn seat_that_no_device_vouches_for_is_not_granted() {
    run(async |world| {
        let (alice, bob) = (world.fresh().await, world.fresh().await);
        let alices = alice.create_thread("band").await.unwrap();
        let text = bob.card("Bob").await.unwrap().to_string();
        let body = text.strip_prefix("leno-card:").unwrap();
        let mut bytes = multibase::Base::Base32Lower.decode(body).unwrap();
        // Within the KEM key: whoever changes it wants to read along.
        bytes[50] ^= 1;
        let body = multibase::Base::Base32Lower.encode(bytes);
        let forged: Card = format!("leno-card:{body}").parse().unwrap();
        let refused = alices.grant(&forged, Role::Writer).await;
        assert!(matches!(refused, Err(Error::Text(TextError::NotVouched))));
        assert_eq!(alices.members().await.unwrap().len(), 1);
        alices
            .grant(&text.parse().unwrap(), Role::Writer)
            .await
            .unwrap();
        let members = alices.members().await.unwrap();
        let bobs = members.iter().find(|it| !it.is_self).unwrap();
        assert_eq!((bobs.name.as_str(), bobs.role), ("Bob", Role::Writer));
        assert_eq!(bobs.identity, Some(bob.identity()));
    });
}

#[test]
fn restart_keeps_identity_threads_and_documents() {
    run(async |world| {
        let store = MemoryStore::new();
        let alice = world.fresh().await;
        let bob = world.online(store.clone()).await;
        let pair = Pair::of(alice, bob.peer, Role::Writer).await;
        pair.songs().0.put(&id("a"), &song("one")).await.unwrap();
        pair.songs().1.put(&id("b"), &song("two")).await.unwrap();
        pair.converge().await;
        let (who, device) = (pair.bob.identity(), pair.bob.id());
        let hash = pair.bobs.state_hash().await.unwrap();
        pair.bob.close().await.unwrap();
        assert!(bob.ended.await.unwrap().is_ok());
        pair.songs()
            .0
            .put(&id("c"), &song("meanwhile"))
            .await
            .unwrap();

        let bob = world.offline(store.clone()).await.peer;
        assert_eq!((bob.identity(), bob.id()), (who, device));
        let bobs = bob.thread(pair.alices.id()).await.unwrap();
        assert_eq!(bobs.state_hash().await.unwrap(), hash);
        assert_eq!(bobs.status().await.unwrap().name.as_deref(), Some("band"));
        bob.close().await.unwrap();

        // What comes is folded into what was there, although nobody asked for that yet.
        let bob = world.online(store).await.peer;
        level(&bob).await;
        let songs = bob
            .thread(pair.alices.id())
            .await
            .unwrap()
            .collection::<Song>("songs");
        assert_eq!(songs.count().await.unwrap(), 3);
        songs.put(&id("d"), &song("after")).await.unwrap();
        level(&bob).await;
        level(&pair.alice).await;
        assert_eq!(
            pair.songs().0.get(&id("d")).await.unwrap(),
            Some(song("after"))
        );
    });
}

#[test]
fn transport_of_another_device_is_refused() {
    run(async |world| {
        let endpoint = world.network.endpoint(PeerId([9; 32]));
        let builder = world.builder(MemoryStore::new()).transport(endpoint);
        let refused = builder.build().await;
        assert!(matches!(refused, Err(Error::TransportOfAnotherDevice)));
    });
}

#[test]
fn transaction_is_whole_or_not_at_all() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let before = pair.alices.status().await.unwrap().stored;
        let outcome = pair
            .alices
            .transact(|transaction| {
                transaction.put("songs", &id("a"), &song("one"))?;
                transaction.put("sets", &id("s"), &song("set"))?;
                let read: Option<Song> = transaction.get("songs", &id("a"))?;
                assert_eq!(read, Some(song("one")), "it sees its own writes");
                Err::<(), _>(Error::MayNotGrant)
            })
            .await;
        assert!(matches!(outcome, Err(Error::MayNotGrant)));
        assert_eq!(pair.alices.status().await.unwrap().stored, before);
        assert_eq!(pair.songs().0.get(&id("a")).await.unwrap(), None);
        pair.alices
            .transact(|transaction| {
                transaction.put("songs", &id("a"), &song("one"))?;
                transaction.put("sets", &id("s"), &song("set"))
            })
            .await
            .unwrap();
        let status = pair.alices.status().await.unwrap();
        assert_eq!(
            status.stored,
            before + 2,
            "the log's opening, and one record"
        );
        pair.converge().await;
        assert_eq!(pair.songs().1.count().await.unwrap(), 1);
    });
}

#[test]
fn panic_in_a_transaction_is_its_callers_alone() {
    run(async |world| {
        let peer = world.offline(MemoryStore::new()).await.peer;
        let band = peer.create_thread("band").await.unwrap();
        let songs = band.collection::<Song>("songs");
        songs.put(&id("a"), &song("A")).await.unwrap();
        let a = id("a");
        let update = songs.update(&a, |song| {
            song.title = "B".to_owned();
            assert_eq!(song.plays, 1, "a bug of the caller");
        });
        assert!(AssertUnwindSafe(update).catch_unwind().await.is_err());
        let transact = band.transact(|transaction| -> Result<(), Error> {
            transaction.put("songs", &id("b"), &song("B"))?;
            panic!("a bug of the caller")
        });
        assert!(AssertUnwindSafe(transact).catch_unwind().await.is_err());
        let all = songs.list(None, 9).await.unwrap();
        assert_eq!(all, [(id("a"), song("A"))], "nothing was written");
        assert!(songs.update(&a, |song| song.plays += 1).await.unwrap());
    });
}

#[test]
fn slow_watcher_is_told_to_read_again() {
    run(async |world| {
        let peer = world.offline(MemoryStore::new()).await.peer;
        let band = peer.create_thread("band").await.unwrap();
        let songs = band.collection::<Song>("songs");
        let mut slow = songs.watch().await.unwrap();
        let many = (0..CHANGES_MAX + 10).map(|at| (id(&format!("{at:05}")), song("one")));
        songs.put_all(many.collect()).await.unwrap();
        for _ in 0..CHANGES_MAX {
            let change = slow.next().await.unwrap().unwrap();
            assert!(matches!(change, Change::Put { .. }));
        }
        // It comes although nothing happens any more.
        assert_eq!(slow.next().await.unwrap().unwrap(), Change::Resync);
        songs.put(&id("last"), &song("two")).await.unwrap();
        let change = slow.next().await.unwrap().unwrap();
        assert!(matches!(change, Change::Put { after, .. } if after == song("two")));
    });
}

#[test]
fn slow_subscriber_is_told_how_much_it_missed() {
    run(async |world| {
        let peer = world.offline(MemoryStore::new()).await.peer;
        let band = peer.create_thread("band").await.unwrap();
        let songs = band.collection::<Song>("songs");
        songs.put(&id("a"), &song("0")).await.unwrap();
        let mut events = peer.events().await.unwrap();
        for at in 0..EVENTS_MAX + 3 {
            songs
                .put(&id("a"), &song(&format!("take {at}")))
                .await
                .unwrap();
        }
        for _ in 0..EVENTS_MAX {
            let event = events.next().await.unwrap();
            assert!(
                matches!(event, Event::Admitted { records: 1, .. }),
                "{event:?}"
            );
        }
        let event = events.next().await.unwrap();
        assert!(matches!(event, Event::Lagged { dropped: 3 }), "{event:?}");
    });
}

#[test]
fn closing_ends_calls_watches_and_events() {
    run(async |world| {
        let running = world.offline(MemoryStore::new()).await;
        let peer = running.peer;
        let band = peer.create_thread("band").await.unwrap();
        let songs = band.collection::<Song>("songs");
        let (mut live, mut events) = (songs.watch().await.unwrap(), peer.events().await.unwrap());
        peer.close().await.unwrap();
        assert!(running.ended.await.unwrap().is_ok());
        assert!(matches!(peer.close().await, Err(Error::Closed)));
        assert!(matches!(songs.get(&id("a")).await, Err(Error::Closed)));
        assert!(matches!(songs.watch().await, Err(Error::Closed)));
        let late = peer.sync_once(Duration::ZERO).await;
        assert!(matches!(late, Err(Error::Closed)));
        assert!(live.next().await.is_none());
        assert!(events.next().await.is_none());
    });
}

#[test]
fn dropping_the_last_handle_ends_the_driver() {
    run(async |world| {
        let store = MemoryStore::new();
        let running = world.offline(store.clone()).await;
        let band = running.peer.create_thread("band").await.unwrap();
        let songs = band.collection::<Song>("songs");
        drop((running.peer, band));
        songs.put(&id("a"), &song("one")).await.unwrap();
        drop(songs);
        assert!(running.ended.await.unwrap().is_ok());
        let peer = world.offline(store).await.peer;
        assert_eq!(peer.threads().await.unwrap().len(), 1);
    });
}

/// A seat may be granted one role after another. Each grant is an op of its own, so the member that
/// writes must be told by the log's own opening, on its own peer as on all others.
#[test]
fn documents_of_a_seat_with_several_grants_are_everywhere() {
    run(async |world| {
        let (alice, bob) = (world.fresh().await, world.fresh().await);
        let alices = alice.create_thread("band").await.unwrap();
        let card = bob.card("Bob").await.unwrap();
        let ticket = alices.grant(&card, Role::Writer).await.unwrap();
        let bobs = bob.join(&ticket).await.unwrap();
        level(&bob).await;
        let songs = bobs.collection::<Song>("songs");
        let first = songs.insert(&song("as writer")).await.unwrap();
        alices.grant(&card, Role::Admin).await.unwrap();
        level(&alice).await;
        level(&bob).await;
        let second = songs.insert(&song("as admin")).await.unwrap();
        level(&bob).await;
        level(&alice).await;
        let read = alices.collection::<Song>("songs");
        assert_eq!(read.get(&first).await.unwrap(), Some(song("as writer")));
        assert_eq!(read.get(&second).await.unwrap(), Some(song("as admin")));
        let hashes = (alices.state_hash().await, bobs.state_hash().await);
        assert_eq!(hashes.0.unwrap(), hashes.1.unwrap());
    });
}

#[test]
fn peers_share_many_threads_over_one_link() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let mut threads = Vec::new();
        for at in 0..20 {
            let thread = pair
                .alice
                .create_thread(&format!("band {at}"))
                .await
                .unwrap();
            let bobs = join(&thread, &pair.bob, Role::Writer).await;
            thread
                .collection("songs")
                .put(&id("a"), &song("one"))
                .await
                .unwrap();
            threads.push((thread, bobs));
        }
        pair.converge().await;
        for (alices, bobs) in &threads {
            assert_eq!(
                alices.state_hash().await.unwrap(),
                bobs.state_hash().await.unwrap()
            );
            assert!(bobs.is_level_with(pair.alice.id()).await.unwrap());
        }
        let traffic = pair.alice.traffic().await.unwrap();
        assert!(traffic.sent > 0 && traffic.received > 0, "{traffic}");
    });
}

/// Whoever writes without a pause must not keep what was written from being sent.
#[test]
fn records_are_sent_while_writing_goes_on() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        let write = async |name: &str| {
            // Far more than it takes; ends at once when Bob has seen one.
            for at in 0..10_000 {
                alices
                    .put(&id(name), &song(&format!("take {at}")))
                    .await
                    .unwrap();
                if at > 100 && bobs.get(&id(name)).await.unwrap().is_some() {
                    return;
                }
            }
            panic!("nothing was sent while somebody wrote");
        };
        futures_util::join!(write("a"), write("b"), write("c"));
    });
}

#[test]
fn peer_builds_without_a_clock_only_if_there_is_a_default() {
    run(async |_| {
        let built = Peer::builder().build().await;
        assert_eq!(built.is_ok(), cfg!(feature = "tokio"));
    });
}

#[test]
fn suite_of_a_thread_is_its_makers_choice_and_all_follow_it() {
    run(async |world| {
        let store = MemoryStore::new();
        let builder = world.networked(store.clone()).await;
        let alice = world.start(builder.suite(Suite::ChaCha20Poly1305)).await;
        let alice = alice.unwrap().peer;
        let pair = Pair::of(alice, world.fresh().await, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        alices.put(&id("a"), &song("one")).await.unwrap();
        bobs.put(&id("b"), &song("two")).await.unwrap();
        pair.converge().await;
        assert_eq!(alices.count().await.unwrap(), 2);

        let mut suites = Vec::new();
        let view = store.view().unwrap();
        scan_prefix(&*view, Table::Threads, &[], &mut |_, row| {
            let mut decoder = Decoder::new(row);
            decoder.array().unwrap();
            suites.push(Genesis::decode(decoder.bytes().unwrap()).unwrap().suite);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(suites, [Suite::ChaCha20Poly1305]);
    });
}

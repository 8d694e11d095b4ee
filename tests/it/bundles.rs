//! Threads as files, from peer to peer without a network.

use leno::bundle::{BundleError, ExportOptions, PART_BYTES_MIN};
use leno::store::MemoryStore;
use leno::{Error, Event, Role};

use crate::support::{Pair, Song, connect, id, join, level, run, song};

#[test]
fn newcomer_joins_by_ticket_and_file_and_answers() {
    run(async |world| {
        let alice = world.offline(MemoryStore::new()).await.peer;
        let bob = world.offline(MemoryStore::new()).await.peer;
        let alices = alice.create_thread("band").await.unwrap();
        let bobs = join(&alices, &bob, Role::Writer).await;
        let songs = alices.collection::<Song>("songs");
        for number in 0..20 {
            songs
                .put(&id(&format!("{number}")), &song("one"))
                .await
                .unwrap();
        }
        let refused = bobs.export(None).await;
        assert!(
            matches!(refused, Err(Error::NotSyncedYet(_))),
            "{refused:?}"
        );

        let file = alices.export(None).await.unwrap();
        let mut live = bob.events().await.unwrap();
        let it = bob.import(file.clone()).await.unwrap();
        assert!(it.is_complete && it.refused.is_empty(), "{it:?}");
        assert!(matches!(
            live.next().await,
            Some(Event::GovernanceChanged { .. })
        ));
        assert_eq!(
            bobs.state_hash().await.unwrap(),
            alices.state_hash().await.unwrap()
        );

        let theirs = bobs.collection::<Song>("songs");
        theirs.put(&id("0"), &song("two")).await.unwrap();
        let back = bobs.export(it.has.as_ref()).await.unwrap();
        assert!(back.len() * 2 < file.len());
        alice.import(back).await.unwrap();
        assert_eq!(songs.get(&id("0")).await.unwrap(), Some(song("two")));
        assert_eq!(
            alices.status().await.unwrap().outbox,
            0,
            "the answer shows that Bob keeps all"
        );
        let again = bob.import(file).await.unwrap();
        assert_eq!((again.stored, again.is_complete), (0, true));
    });
}

#[test]
fn file_longer_than_a_step_may_be_cut_and_split() {
    run(async |world| {
        let alice = world.offline(MemoryStore::new()).await.peer;
        let bob = world.offline(MemoryStore::new()).await.peer;
        let alices = alice.create_thread("band").await.unwrap();
        let bobs = join(&alices, &bob, Role::Reader).await;
        let songs = alices.collection::<Song>("songs");
        let long = "x".repeat(200 << 10);
        for number in 0..12 {
            songs
                .put(&id(&format!("{number}")), &song(&long))
                .await
                .unwrap();
        }
        let file = alices.export(None).await.unwrap();
        assert!(file.len() > 2 << 20);
        let it = bob.import(&file[..file.len() - 100_000]).await.unwrap();
        assert!(it.is_cut && !it.is_complete, "{it:?}");
        let read = bobs.collection::<Song>("songs");
        assert!(read.count().await.unwrap() >= 10);
        assert!(bob.import(file).await.unwrap().is_complete);
        assert_eq!(
            bobs.state_hash().await.unwrap(),
            alices.state_hash().await.unwrap()
        );

        songs.put(&id("0"), &song("short")).await.unwrap();
        let options = ExportOptions {
            since: bobs.vector().await.unwrap(),
            part_bytes_max: PART_BYTES_MIN,
            ..ExportOptions::default()
        };
        let parts = alices.export_parts(options).await.unwrap();
        assert!(parts.len() > 2);
        for part in parts.iter().skip(1).chain(parts.first()) {
            bob.import(part.as_slice()).await.unwrap();
        }
        assert_eq!(read.get(&id("0")).await.unwrap(), Some(song("short")));
    });
}

/// Wherever the sync of who may read from now on stops, the thread is not there yet or can be read and
/// written: a newcomer, or who has carried it so far.
#[test]
fn who_has_a_grant_and_no_key_waits_for_it() {
    run(async |world| {
        for carried in [false, true] {
            let alice = world.offline(MemoryStore::new()).await.peer;
            let bob = world.offline(MemoryStore::new()).await.peer;
            let alices = alice.create_thread("band").await.unwrap();
            let card = bob.card("Bob").await.unwrap();
            let role = if carried {
                Role::Replicator
            } else {
                Role::Writer
            };
            let ticket = alices.grant(&card, role).await.unwrap();
            let bobs = bob.join(&ticket).await.unwrap();
            if carried {
                let all = alices.export(None).await.unwrap();
                assert!(bob.import(all).await.unwrap().is_complete);
                alices.grant(&card, Role::Writer).await.unwrap();
            }
            let options = ExportOptions {
                part_bytes_max: PART_BYTES_MIN,
                ..ExportOptions::default()
            };
            let songs = bobs.collection("songs");
            let (mut had_no_key, mut wrote) = (false, false);
            for part in alices.export_parts(options).await.unwrap() {
                bob.import(part).await.unwrap();
                let role = bobs.status().await.ok().and_then(|it| it.role);
                let is_granted = role == Some(Role::Writer);
                match songs.put(&id("a"), &song("one")).await {
                    Ok(_) => wrote = true,
                    Err(Error::NotSyncedYet(_)) => had_no_key |= is_granted,
                    Err(_) if carried && !is_granted => continue,
                    Err(error) => panic!("{error:?}"),
                }
                let read = songs.get(&id("a")).await;
                match wrote {
                    true => assert_eq!(read.unwrap(), Some(song("one"))),
                    false => assert!(matches!(read, Err(Error::NotSyncedYet(_))), "{read:?}"),
                }
            }
            assert!(had_no_key && wrote, "{carried}");
        }
    });
}

#[test]
fn file_for_one_card_is_for_nobody_else() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Reader).await;
        let carol = world.offline(MemoryStore::new()).await.peer;
        let card = carol.card("Carol").await.unwrap();
        let ticket = pair.alices.grant(&card, Role::Reader).await.unwrap();
        carol.join(&ticket).await.unwrap();
        let options = ExportOptions {
            to: Some(card.seat()),
            ..ExportOptions::default()
        };
        let file = pair.alices.export_parts(options).await.unwrap().concat();
        let refused = pair.bob.import(file.clone()).await;
        assert!(
            matches!(refused, Err(Error::Bundle(BundleError::DoesNotOpen))),
            "{refused:?}"
        );
        assert!(carol.import(file).await.unwrap().is_complete);
        let stranger = world.offline(MemoryStore::new()).await.peer;
        let file = pair.alices.export(None).await.unwrap();
        let refused = stranger.import(file).await;
        assert!(
            matches!(refused, Err(Error::Bundle(BundleError::NoSuchThread))),
            "{refused:?}"
        );
        let refused = stranger.import(b"GIF89a".to_vec()).await;
        assert!(
            matches!(refused, Err(Error::Bundle(BundleError::Malformed(_)))),
            "{refused:?}"
        );
    });
}

/// What came by a file goes on over the network.
#[test]
fn what_came_by_a_file_is_passed_on() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let dora = world.offline(MemoryStore::new()).await.peer;
        let doras = join(&pair.alices, &dora, Role::Writer).await;
        let it = dora
            .import(pair.alices.export(None).await.unwrap())
            .await
            .unwrap();
        doras
            .collection("songs")
            .put(&id("d"), &song("four"))
            .await
            .unwrap();
        let file = doras.export(it.has.as_ref()).await.unwrap();
        pair.alice.import(file).await.unwrap();
        level(&pair.alice).await;
        let (_, bobs) = pair.songs();
        assert_eq!(bobs.get(&id("d")).await.unwrap(), Some(song("four")));
        connect(&pair.bob, &pair.alice).await;
        pair.converge().await;
    });
}

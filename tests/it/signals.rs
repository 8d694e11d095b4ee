//! Signals, as an application sends and hears them.

use leno::{Error, Presence, Role, SIGNAL_VALUE_BYTES_MAX, Signal, SignalError, Signals, Thread};
use serde::{Deserialize, Serialize};

use crate::support::{Pair, World, connect, join, level, run};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Cursor {
    song: String,
    at: u32,
}

fn cursor(at: u32) -> Cursor {
    let song = "Psalm 1".to_owned();
    Cursor { song, at }
}

async fn next(signals: &mut Signals) -> Signal {
    signals.next().await.unwrap()
}

/// What has come by now.
fn waiting(signals: &mut Signals) -> Vec<(String, Option<u32>)> {
    let mut all = Vec::new();
    while let Some(signal) = futures_util::FutureExt::now_or_never(signals.next()).flatten() {
        let value = signal.read().unwrap();
        all.push((signal.key, value));
    }
    all
}

/// Gives everything under way the turns that it needs.
async fn settle(world: &World, threads: &[&Thread]) {
    world.clock.advance(0);
    for _ in 0..8 {
        for thread in threads {
            thread.status().await.unwrap();
        }
    }
}

async fn seat_of(thread: &Thread) -> leno::SeatId {
    let members = thread.members().await.unwrap();
    members.iter().find(|it| it.is_self).unwrap().seat
}

#[test]
fn signal_says_who_says_what() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Reader).await;
        let mut signals = pair.alices.signals().await.unwrap();
        let mut own = pair.bobs.signals().await.unwrap();
        pair.bobs.signal("cursor", &cursor(3)).await.unwrap();
        let signal = next(&mut signals).await;
        assert_eq!((signal.key.as_str(), signal.is_gone()), ("cursor", false));
        assert_eq!(signal.read::<Cursor>().unwrap(), Some(cursor(3)));
        assert!(matches!(signal.read::<u32>(), Err(Error::OtherForm { .. })));
        let member = pair.alices.member(signal.seat).await.unwrap().unwrap();
        assert_eq!(member.seat, seat_of(&pair.bobs).await);
        assert_eq!(
            (member.name.as_str(), member.role),
            ("somebody", Role::Reader)
        );
        assert_eq!(member.identity, Some(pair.bob.identity()));

        // Who listens later begins with what is said already; the end comes to both.
        let mut later = pair.alices.signals().await.unwrap();
        assert_eq!(next(&mut later).await, signal);
        pair.bobs.withdraw("cursor").await.unwrap();
        for signals in [&mut signals, &mut later] {
            let gone = next(signals).await;
            assert!(gone.is_gone() && gone.key == "cursor");
            assert_eq!(gone.read::<Cursor>().unwrap(), None);
        }
        assert!(waiting(&mut own).is_empty(), "nobody hears himself");
        pair.bob.close().await.unwrap();
        assert_eq!(own.next().await, None);
    });
}

#[test]
fn refusals_are_typed() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Replicator).await;
        let long = "x".repeat(SIGNAL_VALUE_BYTES_MAX);
        let too_long = pair.alices.signal("a", &long).await;
        assert!(matches!(
            too_long,
            Err(Error::Signal(SignalError::ValueTooLong { .. }))
        ));
        let name = pair.alices.signal(&"k".repeat(65), &1).await;
        assert!(matches!(
            name,
            Err(Error::Signal(SignalError::NameTooLong { bytes: 65 }))
        ));
        let reserved = pair.alices.presence("leno/a", &1).await;
        assert!(matches!(reserved, Err(Error::ReservedKey)));
        let float = pair.alices.signal("a", &f64::NAN).await;
        assert!(matches!(float, Err(Error::NotADocument { .. })));
        let blind = pair.bobs.signal("a", &1).await;
        assert!(matches!(blind, Err(Error::Signal(SignalError::NotReader))));

        let mut refused = None;
        for count in 0..100 {
            if let Err(error) = pair.alices.signal("a", &count).await {
                refused = Some((count, error));
                break;
            }
        }
        let (count, error) = refused.unwrap();
        assert_eq!(count, 32, "so many at once");
        assert!(error.may_retry());
        let Error::Signal(SignalError::TooFast { wait_millis }) = error else {
            panic!("{error:?}");
        };
        world.clock.advance(wait_millis);
        pair.alices.signal("a", &count).await.unwrap();
    });
}

#[test]
fn presence_lasts_as_long_as_its_handle() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let mut signals = pair.bobs.signals().await.unwrap();
        let here = pair.alices.presence("here", &1).await.unwrap();
        pair.alices.signal("once", &2).await.unwrap();
        let both = [next(&mut signals).await, next(&mut signals).await];
        assert_eq!(both.map(|it| it.key), ["here", "once"]);
        // For three minutes: what was said once is over, what is present is not.
        let mut ended = Vec::new();
        for _ in 0..18 {
            world.clock.advance(10_000);
            settle(&world, &[&pair.alices, &pair.bobs]).await;
            let gone = waiting(&mut signals).into_iter();
            ended.extend(gone.filter(|(_, value)| value.is_none()));
        }
        assert_eq!(ended, [("once".to_owned(), None)]);
        here.set(&3).await.unwrap();
        assert_eq!(next(&mut signals).await.read::<u32>().unwrap(), Some(3));

        // The last call counts, and the older handle's end is none of its business.
        let again = pair.alices.presence("here", &4).await.unwrap();
        assert_eq!(next(&mut signals).await.read::<u32>().unwrap(), Some(4));
        drop(here);
        settle(&world, &[&pair.alices, &pair.bobs]).await;
        assert!(waiting(&mut signals).is_empty());
        drop(again);
        assert!(next(&mut signals).await.is_gone());
    });
}

#[test]
fn presence_is_gone_with_its_peer_and_there_again_with_it() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let mut signals = pair.alices.signals().await.unwrap();
        let _here: Presence = pair.bobs.presence("here", &1).await.unwrap();
        assert!(!next(&mut signals).await.is_gone());
        pair.part().await;
        assert!(next(&mut signals).await.is_gone());
        world.clock.advance(2_000);
        pair.meet().await;
        assert_eq!(next(&mut signals).await.read::<u32>().unwrap(), Some(1));
        pair.bob.close().await.unwrap();
        assert!(next(&mut signals).await.is_gone());
    });
}

#[test]
fn replicator_in_the_middle_carries_what_it_cannot_read() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Replicator).await;
        let dave = world.fresh().await;
        let daves = join(&pair.alices, &dave, Role::Writer).await;
        level(&dave).await;
        level(&pair.bob).await;
        // From now on Alice and Dave meet only by Bob, who may not read.
        world.network.partition(pair.alice.id(), dave.id());
        connect(&dave, &pair.bob).await;
        level(&dave).await;
        let mut middle = pair.bobs.signals().await.unwrap();
        let mut signals = daves.signals().await.unwrap();
        let here = pair.alices.presence("here", &7).await.unwrap();
        let signal = next(&mut signals).await;
        assert_eq!(signal.read::<u32>().unwrap(), Some(7));
        assert_eq!(signal.seat, seat_of(&pair.alices).await);
        drop(here);
        assert!(next(&mut signals).await.is_gone());
        assert!(waiting(&mut middle).is_empty(), "there is nothing to show");
    });
}

#[test]
fn degree_of_fan_out_bounds_what_a_peer_pushes() {
    run(async |world| {
        let mut sent = Vec::new();
        for degree in [1, 8] {
            let store = leno::store::MemoryStore::new();
            let builder = world.networked(store).await.fan_out(degree);
            let alice = world.start(builder).await.unwrap().peer;
            let band = alice.create_thread("band").await.unwrap();
            let mut viewers = Vec::new();
            for _ in 0..6 {
                let viewer = world.fresh().await;
                join(&band, &viewer, Role::Reader).await;
                level(&viewer).await;
                viewers.push(viewer);
            }
            for (number, viewer) in viewers.iter().enumerate() {
                for other in viewers.iter().skip(number + 1) {
                    connect(viewer, other).await;
                }
                level(viewer).await;
            }
            let before = alice.traffic().await.unwrap().sent;
            let songs = band.collection("songs");
            for number in 0..8 {
                let title = "a line of a song ".repeat(100);
                let song = crate::support::song(&title);
                let name = crate::support::id(&number.to_string());
                songs.put(&name, &song).await.unwrap();
                settle(&world, &[&band]).await;
                world.clock.advance(500);
            }
            level(&alice).await;
            sent.push(alice.traffic().await.unwrap().sent - before);
        }
        let [few, many] = sent.try_into().unwrap();
        assert!(few * 2 < many, "{few} and {many} bytes");
    });
}

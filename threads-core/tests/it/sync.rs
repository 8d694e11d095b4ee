//! Two peers and a blind replicator.

use leno_threads_core::Role;
use leno_threads_core::sync::{HaveLog, Level, LogName, Message, SyncError};

use crate::util::{Peer, connect, level, new_seat, sync, talk, talk_through};

#[test]
fn newcomer_reads_everything() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.write(id, "one");
    alice.write_many(id, ["two", "three"]);
    alice.seat(&mut bob, id, Role::Writer);
    sync(&mut alice, &mut bob);
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    assert!(alice.errors.is_empty(), "{:?}", alice.errors);
    assert_eq!(bob.reads(id), alice.reads(id));
    assert_eq!(bob.reads(id).len(), 3);
    assert_eq!(
        bob.replica.thread(&id).unwrap().roster().name(),
        Some("band")
    );
    assert!(level(&alice, &bob, id));
}

#[test]
fn live_writes_go_both_ways() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    sync(&mut alice, &mut bob);
    bob.write(id, "from bob");
    talk(&mut alice, &mut bob);
    alice.write(id, "from alice");
    talk(&mut alice, &mut bob);
    bob.write(id, "again");
    talk(&mut alice, &mut bob);
    assert!(
        bob.errors.is_empty() && alice.errors.is_empty(),
        "{:?} {:?}",
        alice.errors,
        bob.errors
    );
    assert_eq!(bob.reads(id), alice.reads(id));
    assert_eq!(bob.reads(id).len(), 3);
}

/// Alice writes, Carol replicates, Alice goes; Bob gets it from Carol, who cannot read.
#[test]
fn replicator_serves_what_it_cannot_read() {
    let (mut alice, mut bob, mut carol) = (Peer::new(1), Peer::new(2), Peer::new(3));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.seat(&mut carol, id, Role::Replicator);
    sync(&mut alice, &mut bob);
    bob.write(id, "offline at bob's");
    alice.write_many(id, ["a", "b"]);
    sync(&mut alice, &mut carol);
    sync(&mut carol, &mut bob);
    sync(&mut alice, &mut carol);
    assert_eq!(carol.reads(id), []);
    assert_eq!(bob.reads(id), alice.reads(id));
    assert_eq!(bob.reads(id).len(), 3);
    for peer in [&alice, &bob, &carol] {
        assert!(peer.errors.is_empty(), "{:?}", peer.errors);
    }
    let keys = carol.replica.thread(&id).unwrap();
    assert!(
        keys.governance()
            .epochs()
            .all(|epoch| !keys.holds_key(&epoch.epoch))
    );
}

#[test]
fn restart_forgets_nothing() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write(id, "before");
    sync(&mut alice, &mut bob);
    bob.write(id, "reply");
    alice.restart();
    bob.restart();
    alice.write(id, "after");
    sync(&mut alice, &mut bob);
    assert!(
        bob.errors.is_empty() && alice.errors.is_empty(),
        "{:?} {:?}",
        alice.errors,
        bob.errors
    );
    assert_eq!(bob.reads(id), alice.reads(id));
    assert_eq!(bob.reads(id).len(), 3);
}

#[test]
fn second_sync_of_equals_is_small() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write_many(id, ["x"; 500]);
    sync(&mut alice, &mut bob);
    let bytes = sync(&mut alice, &mut bob);
    assert!(bytes < 1_000, "{bytes}");
    assert!(level(&alice, &bob, id));
}

/// A stranger with the service key, but without a seat, is served nothing.
#[test]
fn stranger_is_not_served() {
    let (mut alice, mut mallory) = (Peer::new(1), Peer::new(9));
    let id = alice.create();
    alice.write(id, "secret");
    let service = alice.replica.thread(&id).unwrap().service_key().clone();
    let seat = new_seat(&mut mallory.rng);
    mallory.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
    sync(&mut alice, &mut mallory);
    assert!(mallory.replica.thread(&id).is_none());
    assert_eq!(mallory.reads(id), []);
}

/// Pitfall 43: who holds only the service key hears of no log and of no place in one, whatever it
/// asks and however it guesses.
#[test]
fn service_key_alone_gets_no_metadata() {
    let (mut alice, mut mallory) = (Peer::new(1), Peer::new(9));
    let id = alice.create();
    alice.write_many(id, ["one", "two", "three"]);
    let service = alice.thread(id).service_key().clone();
    let own = alice.thread(id).own_log().unwrap();
    // The id of a control log is that of its seat, which a proof shows.
    let control = alice.thread(id).seat().id().control_log();
    let run = alice.runs(id).pop().unwrap().1;
    let seat = new_seat(&mut mallory.rng);
    mallory.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
    let mut heard = Vec::new();
    connect(&mut alice, &mut mallory);
    talk_through(&mut alice, &mut mallory, |bytes| {
        heard.push(bytes.clone());
        Some(bytes)
    });
    let thread = 0;
    let hash = [7; 8];
    for log in [control, own] {
        for seq in 1..6 {
            let logs = vec![HaveLog { log, seq, hash }];
            let (subscribe, wraps) = (true, [0; 8]);
            let guess = Message::Have {
                thread,
                subscribe,
                wraps,
                logs,
            };
            alice.receive(mallory.key, &guess.encode()).unwrap();
            let from = seq;
            let question = Message::Question { thread, log, from };
            alice.receive(mallory.key, &question.encode()).unwrap();
            while let Some(bytes) = alice.poll(mallory.key) {
                heard.push(bytes);
            }
        }
        let junk = leno_threads_core::Run::from_parts(&run.1, &[9; 64]).unwrap();
        for first in 1..6 {
            let log = if first == 1 {
                LogName::New(log)
            } else {
                LogName::Known(u32::from(log == own))
            };
            let runs = vec![junk];
            let range = Message::Range {
                thread,
                log,
                first,
                runs,
            };
            alice.receive(mallory.key, &range.encode()).unwrap();
            alice.replica.refresh(&mallory.key);
            while let Some(bytes) = alice.poll(mallory.key) {
                heard.push(bytes);
            }
        }
    }
    let mut vectors = 0;
    for bytes in &heard {
        let message = Message::decode(bytes).unwrap();
        if let Message::Have { wraps, logs, .. } = &message {
            vectors += 1;
            assert_eq!((*wraps, logs.len()), ([0; 8], 0));
            continue;
        }
        let is_greeting = matches!(
            message,
            Message::Hello { .. }
                | Message::Threads { .. }
                | Message::Seen { .. }
                | Message::Prove { .. }
                | Message::Compare { .. }
                | Message::Compared { .. }
        );
        assert!(is_greeting, "{message:?}");
    }
    assert!(vectors > 0);
}

/// A peer that proved no seat at all is told nothing after the proof of this side.
#[test]
fn unproven_peer_gets_no_vector() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    connect(&mut alice, &mut bob);
    let mut heard = Vec::new();
    for _ in 0..20 {
        while let Some(bytes) = bob.poll(alice.key) {
            let is_proof = matches!(Message::decode(&bytes), Ok(Message::Prove { .. }));
            if !is_proof {
                alice.receive(bob.key, &bytes).unwrap();
            }
        }
        while let Some(bytes) = alice.poll(bob.key) {
            bob.receive(alice.key, &bytes).unwrap();
            heard.push(bytes);
        }
    }
    for bytes in heard {
        let message = Message::decode(&bytes).unwrap();
        let is_greeting = matches!(
            message,
            Message::Hello { .. }
                | Message::Threads { .. }
                | Message::Seen { .. }
                | Message::Prove { .. }
                | Message::Compare { .. }
                | Message::Compared { .. }
        );
        assert!(is_greeting, "{message:?}");
    }
}

/// Bob has much and has not heard that Carol was seated: she shows him the governance that says so,
/// and nothing that he has comes again.
#[test]
fn seat_that_one_side_does_not_know_shows_who_seated_it() {
    for first in [true, false] {
        let (mut alice, mut bob, mut carol) = (Peer::new(1), Peer::new(2), Peer::new(3));
        let id = alice.create();
        alice.seat(&mut bob, id, Role::Writer);
        let line = "x".repeat(1_000);
        alice.write_many(id, vec![line.as_str(); 500]);
        sync(&mut alice, &mut bob);
        alice.seat(&mut carol, id, Role::Writer);
        sync(&mut alice, &mut carol);
        bob.write(id, "from bob");
        carol.write(id, "from carol");
        let bytes = if first {
            sync(&mut bob, &mut carol)
        } else {
            sync(&mut carol, &mut bob)
        };
        assert!(bytes < 10_000, "{bytes}");
        assert_eq!(bob.reads(id), carol.reads(id));
        assert_eq!(bob.reads(id).len(), 502);
        assert!(level(&bob, &carol, id));
        assert!(bob.errors.is_empty() && carol.errors.is_empty());
    }
}

/// ```text
/// Alice ─seats─► Bob      Dave (admin) ─seats─► Carol
/// ```
/// Bob and Carol do not know each other's seats and say nothing, until governance comes to one.
#[test]
fn two_that_do_not_know_each_other_go_on_once_one_does() {
    let mut peers = [1, 2, 3, 4].map(Peer::new);
    let [alice, bob, carol, dave] = &mut peers;
    let id = alice.create();
    alice.seat(dave, id, Role::Admin);
    sync(alice, dave);
    alice.seat(bob, id, Role::Writer);
    sync(alice, bob);
    dave.seat(carol, id, Role::Writer);
    sync(dave, carol);
    bob.write(id, "from bob");
    carol.write(id, "from carol");
    sync(bob, carol);
    assert_eq!((bob.reads(id).len(), carol.reads(id).len()), (1, 1));
    assert!(!level(bob, carol, id));
    // Bob stays connected to Carol.
    sync(dave, alice);
    sync(alice, bob);
    talk(bob, carol);
    assert_eq!(bob.reads(id), carol.reads(id));
    assert_eq!(bob.reads(id).len(), 2);
    assert!(level(bob, carol, id));
}

/// Members end level in as few messages as there are things to say.
#[test]
fn equals_end_level_in_three_messages_each() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write(id, "x");
    sync(&mut alice, &mut bob);
    connect(&mut alice, &mut bob);
    let mut messages = 0;
    talk_through(&mut alice, &mut bob, |bytes| {
        messages += 1;
        Some(bytes)
    });
    assert_eq!(messages, 3);
    assert!(level(&alice, &bob, id));
}

/// Vectors that are exchanged again while ranges are under way bring nothing twice.
#[test]
fn refresh_in_mid_flight_sends_nothing_twice() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    let line = "x".repeat(1_000);
    for _ in 0..8 {
        alice.write_many(id, [line.as_str(); 400]);
    }
    let mut bytes = 0;
    alice.connected(bob.key);
    bob.connected(alice.key);
    // Bob reads one message for every two that Alice sends, and asks again each time.
    let mut under_way = std::collections::VecDeque::new();
    for _ in 0..200 {
        for _ in 0..2 {
            under_way.extend(alice.poll(bob.key));
        }
        if let Some(message) = under_way.pop_front() {
            bytes += message.len();
            bob.receive(alice.key, &message).unwrap();
            bob.replica.refresh(&alice.key);
        }
        while let Some(message) = bob.poll(alice.key) {
            alice.receive(bob.key, &message).unwrap();
        }
    }
    assert_eq!(bob.reads(id), alice.reads(id));
    assert!(bytes < 3_200 * 1_150 + 10_000, "{bytes}");
    assert!(bob.errors.is_empty() && alice.errors.is_empty());
}

/// ```text
/// bob                        alice
///  | compare 1 ------------>  |  has the same: answers it
///  | compare 2 -- (slow) -->  |  writes
///  |  <---- the answer to 1   |
///  not level: what Alice wrote is still to come
/// ```
#[test]
fn late_answer_makes_nobody_level() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    connect(&mut alice, &mut bob);
    talk(&mut alice, &mut bob);
    let is_level = |bob: &Peer, alice: &Peer| bob.replica.level(&alice.key, &id) == Level::Level;
    assert!(is_level(&bob, &alice));

    bob.replica.refresh(&alice.key);
    let second = bob.poll(alice.key).unwrap();
    alice.receive(bob.key, &second).unwrap();
    let late = alice.poll(bob.key).unwrap();
    assert!(matches!(
        Message::decode(&late).unwrap(),
        Message::Compared { .. }
    ));
    alice.write(id, "news");
    bob.replica.refresh(&alice.key);
    let mut under_way: Vec<_> = std::iter::from_fn(|| bob.poll(alice.key)).collect();
    // Even before the second comparison is asked for the first one's answer is of no use any more.
    bob.receive(alice.key, &late).unwrap();
    under_way.extend(std::iter::from_fn(|| bob.poll(alice.key)));
    assert!(!is_level(&bob, &alice), "Alice has more, and Bob asked");
    for message in under_way {
        alice.receive(bob.key, &message).unwrap();
    }
    talk(&mut alice, &mut bob);
    assert!(is_level(&bob, &alice));
    assert_eq!(bob.reads(id), alice.reads(id));
    assert!(bob.errors.is_empty() && alice.errors.is_empty());
}

#[test]
fn answer_to_a_vector_that_was_not_sent_ends_the_session() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    sync(&mut alice, &mut bob);
    let answer = |vectors| Message::UpToDate { thread: 0, vectors }.encode();
    alice.receive(bob.key, &answer(1)).unwrap();
    assert!(alice.receive(bob.key, &answer(2)).is_err());
    let error = alice.errors.pop().unwrap();
    assert!(error.ends_session());
    assert!(matches!(error, SyncError::OutOfTurn { .. }), "{error}");
}

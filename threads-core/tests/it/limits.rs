//! Limits that are far away, lowered: each refuses, loses nothing, and is left behind.

use std::collections::BTreeSet;

use leno_identity::SigningKey;
use leno_threads_core::store::Store;
use leno_threads_core::sync::Message;
use leno_threads_core::thread::{AppendError, ReceiveError};
use leno_threads_core::{FrameOp, LogId, OpenOp, Role, SeatId, Stamp, ThreadId};

use crate::util::{Peer, connect, grant_op, level, secrets, sync, talk, talk_through};

/// Bob writes first; Alice writes much that names it. Dave has neither yet, and Alice's log is opened
/// first, so it comes first.
fn world() -> ([Peer; 3], ThreadId) {
    let mut peers = [1, 2, 3].map(Peer::new);
    let [alice, bob, dave] = &mut peers;
    let id = alice.create();
    alice.write(id, "opens alice's log");
    alice.seat(bob, id, Role::Writer);
    alice.seat(dave, id, Role::Reader);
    sync(alice, bob);
    sync(alice, dave);
    bob.write(id, "bob");
    sync(bob, alice);
    for _ in 0..40 {
        alice.write_many(id, ["named bob's"; 10]);
    }
    (peers, id)
}

fn lower(peer: &mut Peer, id: ThreadId, records: u64, bytes: u64) {
    let thread = peer.replica.thread_mut(&id).unwrap();
    thread.set_parked_max(records, bytes);
}

/// What waits is bounded, by records or by bytes; the log behind it gets through, and then the rest.
#[test]
fn parked_quota_refuses_and_recovers() {
    for (records, bytes) in [(50, u64::MAX), (u64::MAX, 4_000)] {
        let (mut peers, id) = world();
        let [alice, _, dave] = &mut peers;
        lower(dave, id, records, bytes);
        let log = alice.thread(id).own_log().unwrap();
        let mut waited = 0;
        connect(alice, dave);
        for _ in 0..10_000 {
            let (to_dave, to_alice) = (alice.poll(dave.key), dave.poll(alice.key));
            if to_dave.is_none() && to_alice.is_none() {
                break;
            }
            if let Some(bytes) = to_dave {
                dave.receive(alice.key, &bytes).unwrap();
                let at = dave.thread(id).log(&log).unwrap();
                waited = waited.max(at.tip.seq - at.admitted);
            }
            if let Some(bytes) = to_alice {
                alice.receive(dave.key, &bytes).unwrap();
            }
        }
        assert!(waited > 0 && waited <= 50, "{waited}");
        // Nobody is blamed, nothing is lost, and it needed no other session.
        assert!(dave.errors.is_empty(), "{:?}", dave.errors);
        assert_eq!(dave.reads(id), alice.reads(id));
        assert_eq!(dave.reads(id).len(), 402);
        assert!(level(alice, dave, id));
    }
}

/// While what is waited for does not come, both sides fall silent, and say that they are not level.
#[test]
fn full_log_waits_in_silence() {
    let (mut peers, id) = world();
    let [alice, bob, dave] = &mut peers;
    lower(dave, id, 50, u64::MAX);
    let bobs = bob.thread(id).own_log().unwrap();
    // Alice keeps Bob's log from Dave.
    let mut ranges = 0;
    let keep = |bytes: Vec<u8>| match Message::decode(&bytes) {
        Ok(Message::Range { log, .. }) => {
            ranges += 1;
            let is_bobs = log == leno_threads_core::sync::LogName::New(bobs);
            (!is_bobs).then_some(bytes)
        }
        _ => Some(bytes),
    };
    connect(alice, dave);
    talk_through(alice, dave, keep);
    assert!(ranges < 10, "{ranges}");
    assert!(!level(dave, alice, id));
    assert_eq!(dave.reads(id).len(), 1);
    let log = alice.thread(id).own_log().unwrap();
    let at = dave.thread(id).log(&log).unwrap();
    assert!(at.tip.seq > at.admitted && at.parked.is_some());
    // A run that is too much is a typed refusal and changes nothing.
    let run = alice.runs(id).into_iter().rfind(|(of, _)| *of == log);
    let run = run.unwrap().1;
    let before = crate::util::rows(&dave.store);
    let next = (at.tip.seq + 1, run.1.clone(), run.2);
    let refused = dave.take(id, log, &next);
    assert!(matches!(refused, Err(ReceiveError::TooManyParked { .. })));
    assert_eq!(crate::util::rows(&dave.store), before);
    // What is stored outlives a restart, and the rest comes with what it waited for.
    dave.restart();
    dave.tick();
    lower(dave, id, 50, u64::MAX);
    sync(bob, dave);
    sync(alice, dave);
    assert_eq!(dave.reads(id), alice.reads(id));
    assert!(dave.errors.is_empty(), "{:?}", dave.errors);
}

/// A key seals so many records of a log and no more: the next ones go to another log, which has
/// another key under the same epoch.
#[test]
fn full_log_is_followed_by_another() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    let lower = |alice: &mut Peer| {
        let thread = alice.replica.thread_mut(&id).unwrap();
        thread.set_records_per_epoch_max(8);
    };
    lower(&mut alice);
    let mut appended = alice.write_many(id, ["x"; 20]);
    alice.restart();
    lower(&mut alice);
    for _ in 0..7 {
        appended.extend(alice.write_many(id, ["y"]));
    }
    let logs: BTreeSet<LogId> = appended.iter().map(|it| it.log).collect();
    assert_eq!(logs.len(), 4);
    assert!(appended.iter().all(|it| it.seq <= 8));
    sync(&mut alice, &mut bob);
    talk(&mut alice, &mut bob);
    assert_eq!(bob.reads(id), alice.reads(id));
    assert_eq!(bob.reads(id).len(), 27);
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    let governance = bob.thread(id).governance();
    let openings = governance.openings().map(|(_, opening)| opening);
    let incarnations: BTreeSet<u64> = openings.map(|it| it.incarnation).collect();
    assert_eq!(incarnations, BTreeSet::from([0, 1, 2, 3]));
}

/// A control log has one key for ever, so its limit is an error with a name.
#[test]
fn full_control_log_is_an_error() {
    let mut alice = Peer::new(1);
    let id = alice.create();
    let now = alice.now;
    let thread = alice.replica.thread_mut(&id).unwrap();
    thread.set_records_per_epoch_max(3);
    alice.govern(id, &[]);
    alice.govern(id, &[]);
    let before = alice.state(id);
    let refused = alice.step(|replica, view, rng, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        thread.govern(view, &[], &[], now, rng, changes)
    });
    assert!(matches!(refused, Err(AppendError::LogFull)), "{refused:?}");
    assert_eq!(alice.state(id), before);
}

fn lower_refs(peer: &mut Peer, id: ThreadId, refs: usize) {
    peer.replica
        .thread_mut(&id)
        .unwrap()
        .set_refs_named_max(refs);
}

fn quarantined(peer: &Peer, id: ThreadId) -> usize {
    let view = peer.store.view().unwrap();
    peer.thread(id).quarantined(&*view).unwrap().len()
}

/// Mallory writes more logs than one record names. Bob names some of them, and the rest with his next
/// records, each of which everybody reads.
#[test]
fn logs_beyond_the_limit_are_named_by_later_records() {
    let [mut alice, mut bob, mut mallory] = [1, 2, 9].map(Peer::new);
    let id = alice.create();
    for peer in [&mut bob, &mut mallory] {
        alice.seat(peer, id, Role::Writer);
        sync(&mut alice, peer);
    }
    sync(&mut alice, &mut bob);
    bob.write(id, "before");
    let seat = mallory.thread(id).seat().id();
    let grant = mallory.thread(id).governance().writing_grant(seat).unwrap();
    let signers: Vec<SigningKey> = (0..10)
        .map(|_| SigningKey::generate(&mut mallory.rng).unwrap())
        .collect();
    let opened = (0..).zip(&signers).map(|(incarnation, key)| {
        FrameOp::Open(OpenOp::sign(key, id, seat, grant, incarnation, None))
    });
    mallory.govern(id, &opened.collect::<Vec<_>>());
    sync(&mut alice, &mut mallory);
    sync(&mut alice, &mut bob);
    let keys = secrets(&mallory, id);
    let log_of = |key: &SigningKey| LogId(key.verifying_key().to_bytes());
    for key in &signers {
        let tip = mallory.tip(id, log_of(key));
        let text = keys.text(Stamp(tip.stamp.0 + 10_000), "x");
        let (run, _) = keys.craft(id, key, &tip, &[text]);
        for peer in [&mut alice, &mut bob] {
            assert_eq!(peer.take(id, log_of(key), &run).unwrap().admitted, 1);
        }
    }
    lower_refs(&mut bob, id, 4);
    let own = bob.thread(id).own_log().unwrap();
    for (texts, expected) in [(vec!["a", "b"], 8), (vec!["c"], 10), (vec!["d"], 10)] {
        bob.write_many(id, texts);
        sync(&mut alice, &mut bob);
        let seen = alice.thread(id).acknowledged(&own).unwrap();
        let named = signers.iter().filter(|key| seen.seq(&log_of(key)) > 0);
        assert_eq!(named.count(), expected);
        assert_eq!(alice.reads(id), bob.reads(id));
    }
    assert!(level(&alice, &bob, id));
    assert_eq!((quarantined(&alice, id), quarantined(&bob, id)), (0, 0));
}

/// Mallory's seats write more control logs than one record names, and two writers have logs that only
/// some of them tell of: whoever governs and writes next names what is covered, and the rest later.
#[test]
fn control_logs_beyond_the_limit_are_named_by_later_records() {
    let [mut alice, mut bob, mut carol, mut mallory] = [1, 2, 3, 9].map(Peer::new);
    let id = alice.create();
    alice.seat(&mut mallory, id, Role::Admin);
    for peer in [&mut bob, &mut carol] {
        alice.seat(peer, id, Role::Writer);
        sync(&mut alice, peer);
    }
    sync(&mut alice, &mut mallory);
    let keys: Vec<SigningKey> = (0..8)
        .map(|_| SigningKey::generate(&mut mallory.rng).unwrap())
        .collect();
    let seat_of = |key: &SigningKey| SeatId(key.verifying_key().to_bytes());
    let grants = keys
        .iter()
        .map(|key| FrameOp::Grant(grant_op(seat_of(key), [0; 32], Role::Replicator)));
    mallory.govern(id, &grants.collect::<Vec<_>>());
    sync(&mut alice, &mut mallory);
    let secrets = secrets(&mallory, id);
    for key in &keys {
        let log = seat_of(key).control_log();
        let tip = mallory.tip(id, log);
        let record = secrets.frame(Stamp(tip.stamp.0 + 10_000), &[]);
        let (run, _) = secrets.craft(id, key, &tip, &[record]);
        assert_eq!(alice.take(id, log, &run).unwrap().admitted, 1);
    }
    bob.write(id, "bob");
    carol.write(id, "carol");
    sync(&mut alice, &mut bob);
    sync(&mut alice, &mut carol);
    lower_refs(&mut alice, id, 1);
    for _ in 0..12 {
        alice.write(id, "alice");
    }
    for peer in [&mut bob, &mut carol] {
        sync(&mut alice, peer);
        assert_eq!(peer.reads(id), alice.reads(id));
        assert_eq!(quarantined(peer, id), 0);
    }
    let own = alice.thread(id).own_log().unwrap();
    let seen = bob.thread(id).acknowledged(&own).unwrap();
    for peer in [&bob, &carol] {
        assert!(seen.seq(&peer.thread(id).own_log().unwrap()) > 0);
    }
}

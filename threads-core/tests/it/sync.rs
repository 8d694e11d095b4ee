//! Two peers and a blind replicator.

use leno_threads_core::Role;

use crate::util::{Peer, level, sync, talk};

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
    let seat = crate::util::new_seat(&mut mallory.rng);
    mallory.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
    sync(&mut alice, &mut mallory);
    assert!(mallory.replica.thread(&id).is_none());
    assert_eq!(mallory.reads(id), []);
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

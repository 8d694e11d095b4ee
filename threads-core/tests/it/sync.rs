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

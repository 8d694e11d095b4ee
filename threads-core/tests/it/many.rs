//! Two peers who share many threads.

use leno_threads_core::Role;

use crate::util::{Peer, level, sync};

/// More than a peer may ask at once: each thread takes a proof of either side, and these wait until
/// the other side takes them.
const THREADS: usize = 1_100;

#[test]
fn many_shared_threads_are_no_misdeed() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let ids: Vec<_> = (0..THREADS).map(|_| alice.create()).collect();
    for id in &ids {
        alice.seat(&mut bob, *id, Role::Reader);
    }
    for _ in 0..2 {
        sync(&mut alice, &mut bob);
        assert!(alice.errors.is_empty(), "{:?}", alice.errors.first());
        assert!(bob.errors.is_empty(), "{:?}", bob.errors.first());
    }
    assert!(ids.iter().all(|id| level(&alice, &bob, *id)));
}

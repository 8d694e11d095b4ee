//! Logs with two branches, restored devices, and accusations that do not hold.

use leno_threads_core::fork::{Branch, ForkProof};
use leno_threads_core::store::Store;
use leno_threads_core::sync::{HaveLog, Message};
use leno_threads_core::thread::ThreadEvent;
use leno_threads_core::{LogId, Role, ThreadId};

use crate::util::{Peer, backup, connect, sync, talk};

/// Alice owns, Mallory writes with one key on two machines, Bob and Carol read.
///
/// ```text
///        /- 3 - 4 ..   -> Bob
/// 1 - 2 <
///        \- 3'- 4'..   -> Carol
/// ```
fn forked(left: usize, right: usize) -> ([Peer; 3], ThreadId, LogId) {
    let mut peers = [1, 2, 3].map(Peer::new);
    let mut mallory = Peer::new(9);
    let [alice, bob, carol] = &mut peers;
    let id = alice.create();
    for peer in [&mut *bob, &mut *carol] {
        alice.seat(peer, id, Role::Writer);
        sync(alice, peer);
    }
    alice.seat(&mut mallory, id, Role::Writer);
    sync(alice, &mut mallory);
    mallory.write_many(id, ["1", "2"]);
    sync(&mut mallory, alice);
    sync(alice, bob);
    sync(alice, carol);
    let mut twin = Peer::new(9);
    twin.store = backup(&mallory.store);
    twin.restart();
    for _ in 0..left {
        mallory.write(id, "left");
    }
    for _ in 0..right {
        twin.write(id, "right");
    }
    sync(&mut mallory, bob);
    sync(&mut twin, carol);
    let log = mallory.thread(id).own_log().unwrap();
    (peers, id, log)
}

fn proofs(peer: &Peer, id: ThreadId) -> Vec<ForkProof> {
    let view = peer.store.view().unwrap();
    peer.thread(id).forks(&*view).unwrap()
}

#[test]
fn forks_are_proven_at_equal_and_at_different_heights() {
    for (left, right) in [(1, 1), (3, 1), (1, 3), (2, 2)] {
        let ([_, mut bob, mut carol], id, log) = forked(left, right);
        sync(&mut bob, &mut carol);
        let found: Vec<_> = [&bob, &carol]
            .into_iter()
            .flat_map(|peer| proofs(peer, id))
            .collect();
        assert!(!found.is_empty(), "{left} {right}");
        for proof in found {
            assert_eq!((proof.log(), proof.thread()), (log, id));
            assert!(proof.seq() >= 3);
            // Holds for anybody, offline.
            assert_eq!(ForkProof::decode(&proof.encode()), Ok(proof));
        }
        let both = bob.forks + carol.forks;
        assert!(both >= 1);
        // Kept, not found again and again.
        sync(&mut bob, &mut carol);
        sync(&mut bob, &mut carol);
        assert!(bob.forks <= 2 && carol.forks <= 2);
        assert!(proofs(&bob, id).len() <= 1 && proofs(&carol, id).len() <= 1);
        // The thread never halts.
        bob.write(id, "goes on");
        sync(&mut bob, &mut carol);
        let texts: Vec<_> = carol.reads(id).into_iter().map(|it| it.2).collect();
        assert!(texts.contains(&"goes on".to_owned()));
    }
}

#[test]
fn nothing_less_than_two_branches_is_a_proof() {
    let ([_, mut bob, mut carol], id, log) = forked(2, 2);
    let branch = |peer: &Peer, from| {
        let view = peer.store.view().unwrap();
        peer.thread(id).branch(&*view, &log, from).unwrap().unwrap()
    };
    let (left, right) = (branch(&bob, 3), branch(&carol, 3));
    let proof = ForkProof::new(left.clone(), right.clone()).unwrap();
    // The same, the other way round.
    assert_eq!(
        ForkProof::new(right.clone(), left.clone()),
        Ok(proof.clone())
    );
    assert!(ForkProof::new(left.clone(), left.clone()).is_err());
    let shared = branch(&bob, 1);
    assert!(ForkProof::new(shared.clone(), branch(&carol, 1)).is_err());
    let unsigned = Branch {
        headers: left.headers.clone(),
        head: leno_threads_core::SignedHead {
            signature: right.head.signature,
            ..left.head
        },
    };
    assert!(ForkProof::new(unsigned, right.clone()).is_err());
    let mut moved = left.clone();
    moved.headers[0].context.stamp = moved.headers[0].context.stamp.next().unwrap();
    assert!(ForkProof::new(moved, right).is_err());
    let bytes = proof.encode();
    for byte in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1 << (byte % 8);
        assert!(ForkProof::decode(&flipped).is_err(), "{byte}");
    }
    sync(&mut bob, &mut carol);
}

/// A crash at any moment of an honest device never makes a proof against it.
#[test]
fn honest_crashes_prove_nothing() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    for step in 0..12 {
        alice.write(id, "x");
        if step % 2 == 0 {
            alice.restart();
        }
        if step % 3 == 0 {
            sync(&mut alice, &mut bob);
            bob.write(id, "y");
            bob.restart();
        }
        // Written and not committed: never signed anywhere else.
        let now = alice.now;
        let mut changes = leno_threads_core::thread::Changes::new();
        {
            let view = alice.store.view().unwrap();
            let thread = alice.replica.thread_mut(&id).unwrap();
            let content = [0x61, b'z'];
            thread
                .append(&*view, 1, &content, now, &mut alice.rng, &mut changes)
                .unwrap();
            thread.publish(&mut changes);
        }
        alice.restart();
    }
    sync(&mut alice, &mut bob);
    assert_eq!(alice.forks + bob.forks, 0);
    assert!(alice.errors.is_empty() && bob.errors.is_empty());
    assert_eq!(alice.reads(id), bob.reads(id));
}

/// A peer that only claims to have more of my log costs me nothing.
#[test]
fn claims_alone_cost_no_log() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write(id, "mine");
    sync(&mut alice, &mut bob);
    let own = alice.thread(id).own_log();
    for (seq, hash) in [(99, [0; 8]), (1, [7; 8])] {
        connect(&mut alice, &mut bob);
        talk(&mut alice, &mut bob);
        let lie = Message::Have {
            thread: 0,
            subscribe: true,
            wraps: [0; 8],
            logs: vec![HaveLog {
                log: own.unwrap(),
                seq,
                hash,
            }],
        };
        let _ = alice.receive(bob.key, &lie.encode());
        talk(&mut alice, &mut bob);
        assert_eq!(alice.thread(id).own_log(), own);
    }
    // An answer that shows no other branch names its sender, and costs nothing either.
    assert!(!alice.errors.is_empty());
    assert_eq!(alice.forks, 0);
    assert!(
        !alice
            .events
            .iter()
            .any(|it| matches!(it, ThreadEvent::OwnLogAhead { .. }))
    );
}

/// A device restored from a copy before it wrote again: it takes its own records back, and goes on
/// in a new log that names the old one.
#[test]
fn restored_device_goes_on_in_a_new_log() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    sync(&mut alice, &mut bob);
    bob.write(id, "1");
    let copy = backup(&bob.store);
    bob.write_many(id, ["2", "3"]);
    sync(&mut alice, &mut bob);
    let old = bob.thread(id).own_log().unwrap();
    bob.store = copy;
    bob.read.clear();
    bob.restart();
    sync(&mut alice, &mut bob);
    let ahead = ThreadEvent::OwnLogAhead { log: old };
    assert!(bob.events.contains(&ahead));
    assert_eq!(bob.tip(id, old).seq, 3);
    bob.write(id, "4");
    let new = bob.thread(id).own_log().unwrap();
    assert_ne!(new, old);
    let opening = bob.thread(id).governance().opening(&new).unwrap();
    assert_eq!(opening.incarnation, 1);
    sync(&mut alice, &mut bob);
    let texts: Vec<_> = alice.reads(id).into_iter().map(|it| it.2).collect();
    assert_eq!(texts.len(), 4);
    assert_eq!(alice.forks + bob.forks, 0);
    assert!(
        alice.errors.is_empty() && bob.errors.is_empty(),
        "{:?}",
        alice.errors
    );
}

/// Restored and written before it met anybody: both branches stay readable where they are, there is
/// a proof, and the device goes on in a new log.
#[test]
fn restored_device_that_wrote_first_is_healed() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    sync(&mut alice, &mut bob);
    bob.write(id, "1");
    let copy = backup(&bob.store);
    bob.write(id, "lost branch");
    sync(&mut alice, &mut bob);
    let old = bob.thread(id).own_log().unwrap();
    bob.store = copy;
    bob.restart();
    bob.write(id, "new branch");
    sync(&mut alice, &mut bob);
    assert!(bob.forks > 0, "{:?} {:?}", bob.errors, alice.errors);
    assert_eq!(bob.thread(id).own_log(), None);
    alice.errors.clear();
    bob.errors.clear();
    bob.write(id, "goes on");
    let new = bob.thread(id).own_log().unwrap();
    assert_ne!(new, old);
    sync(&mut alice, &mut bob);
    let texts: Vec<_> = alice.reads(id).into_iter().map(|it| it.2).collect();
    assert!(texts.contains(&"lost branch".to_owned()));
    assert!(texts.contains(&"goes on".to_owned()));
}

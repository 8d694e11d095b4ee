//! Logs with two branches, restored devices, and accusations that do not hold.

use leno_threads_core::fork::{Branch, ForkProof};
use leno_threads_core::store::Store;
use leno_threads_core::sync::{HaveLog, Message};
use leno_threads_core::thread::{Fenced, Quarantine, ThreadEvent};
use leno_threads_core::{FrameOp, LogId, RemoveOp, Role, THREAD_DOMAIN, ThreadId};

use crate::util::{Peer, backup, connect, sync, talk, talk_through};

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

/// Bob wrote after he had seen `3`, and nobody who holds the other branch asked about so low a place.
#[test]
fn records_that_name_the_beginning_of_a_branch_come_in() {
    let ([mut alice, mut bob, mut carol], mut mallory) = ([1, 2, 3].map(Peer::new), Peer::new(9));
    let id = alice.create();
    for peer in [&mut bob, &mut carol, &mut mallory] {
        alice.seat(peer, id, Role::Writer);
        sync(&mut alice, peer);
    }
    sync(&mut alice, &mut bob);
    sync(&mut alice, &mut carol);
    mallory.write_many(id, ["1", "2"]);
    let mut twin = Peer::new(9);
    twin.store = backup(&mallory.store);
    twin.restart();
    mallory.write(id, "3");
    sync(&mut mallory, &mut bob);
    bob.write(id, "after 3");
    for text in ["4", "5", "6"] {
        mallory.write(id, text);
    }
    sync(&mut mallory, &mut bob);
    for text in ["3'", "4'", "5'", "6'"] {
        twin.write(id, text);
    }
    sync(&mut twin, &mut carol);
    // The vectors differ at 6, so that is what is asked about first; and the answer takes longer than
    // what Bob wrote.
    let mut slow = Vec::new();
    connect(&mut carol, &mut bob);
    talk_through(&mut carol, &mut bob, |message| {
        let asks = matches!(Message::decode(&message), Ok(Message::Question { .. }));
        if !asks && slow.is_empty() {
            return Some(message);
        }
        slow.push(message);
        None
    });
    assert!(!slow.is_empty());
    for message in slow {
        bob.receive(carol.key, &message).unwrap();
    }
    talk(&mut carol, &mut bob);
    let log = mallory.thread(id).own_log().unwrap();
    let texts: Vec<_> = carol.reads(id).into_iter().map(|it| it.2).collect();
    assert!(texts.contains(&"after 3".to_owned()), "{texts:?}");
    let own = bob.thread(id).own_log().unwrap();
    let of_bob = carol.thread(id).log(&own).unwrap();
    assert_eq!((of_bob.admitted, of_bob.parked), (of_bob.tip.seq, None));
    assert!(
        proofs(&carol, id)
            .iter()
            .all(|it| it.log() == log && it.seq() == 3)
    );
    assert!(
        carol.errors.is_empty() && bob.errors.is_empty(),
        "{:?} {:?}",
        carol.errors,
        bob.errors
    );
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

/// Restored and written before it met anybody: there is a proof, neither branch stands before somebody
/// accepts it who may, and the device goes on in a new log.
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
    assert_eq!(texts(&alice, id), ["1", "goes on"]);
    assert_eq!(texts(&bob, id), ["1", "goes on"]);
    let fenced = alice.thread(id).fenced(&old);
    let expected = Fenced {
        seqs: 2..=2,
        reason: Quarantine::Forked,
    };
    assert_eq!(fenced, [expected]);
    let lost = alice.newest(id, old);
    alice.govern(id, &[FrameOp::Accept(vec![lost])]);
    assert_eq!(texts(&alice, id), ["1", "goes on", "lost branch"]);
    sync(&mut alice, &mut bob);
    assert_eq!(texts(&bob, id), ["1", "goes on"], "it holds the other one");
    // As it was, also after a restart.
    alice.restart();
    assert_eq!(alice.thread(id).fenced(&old), []);
    bob.restart();
    assert_eq!(bob.thread(id).fenced(&old).len(), 1);
}

fn texts(peer: &Peer, id: ThreadId) -> Vec<String> {
    let mut texts: Vec<_> = peer.reads(id).into_iter().map(|it| it.2).collect();
    texts.sort();
    texts
}

/// The other branch is under way, and both of its records in one run, while the device writes.
#[test]
fn branch_that_crosses_a_write_ends_the_own_log() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    sync(&mut alice, &mut bob);
    bob.write(id, "1");
    let copy = backup(&bob.store);
    bob.write_many(id, ["lost", "lost"]);
    sync(&mut alice, &mut bob);
    let old = bob.thread(id).own_log().unwrap();
    bob.store = copy;
    bob.restart();
    connect(&mut alice, &mut bob);
    let mut crossing = None;
    talk_through(&mut alice, &mut bob, |bytes| {
        if matches!(Message::decode(&bytes), Ok(Message::Range { .. })) {
            crossing = Some(bytes);
            return None;
        }
        Some(bytes)
    });
    bob.write(id, "new");
    assert_eq!(bob.thread(id).own_log(), Some(old));
    let crossing = crossing.expect("Alice sends the branch that she has");
    bob.receive(alice.key, &crossing).unwrap();
    assert_eq!(proofs(&bob, id).len(), 1, "{:?}", bob.errors);
    assert_eq!(bob.thread(id).own_log(), None);
}

/// Mallory forks a control log; Bob names one branch, which tells of Dave's log. Whoever learned of
/// the fork before cannot see that in the branch, and takes Bob's record all the same.
#[test]
fn forked_control_log_hides_no_honest_record() {
    let [mut alice, mut bob, mut carol, mut dave] = [1, 2, 3, 4].map(Peer::new);
    let mut mallory = Peer::new(9);
    let id = alice.create();
    for peer in [&mut bob, &mut carol, &mut dave, &mut mallory] {
        alice.seat(peer, id, Role::Writer);
    }
    for peer in [&mut bob, &mut carol, &mut dave, &mut mallory] {
        sync(&mut alice, peer);
    }
    bob.write(id, "bob 1");
    let mut twin = Peer::new(9);
    twin.store = backup(&mallory.store);
    twin.restart();
    // Dave opens a log; Mallory has seen that, and Bob hears of it from Mallory.
    dave.write(id, "dave 1");
    sync(&mut dave, &mut mallory);
    mallory.now += 1;
    mallory.govern(id, &[]);
    sync(&mut mallory, &mut bob);
    bob.write(id, "bob 2");
    // Carol knows Dave's log, and the other branch of Mallory's control log.
    sync(&mut dave, &mut carol);
    twin.govern(id, &[]);
    sync(&mut twin, &mut carol);
    // Alice meets Bob first, Carol learns of the fork in the same sync as of Bob's record.
    sync(&mut bob, &mut alice);
    sync(&mut bob, &mut carol);
    assert!(alice.reads(id).iter().any(|it| it.2 == "bob 2"));
    assert!(carol.reads(id).iter().any(|it| it.2 == "bob 2"));
}

/// Two vectors are on the way when a fork is known already: nobody asks about it again.
#[test]
fn known_fork_ends_no_session() {
    let ([_, mut bob, mut carol], ..) = forked(1, 1);
    let (bob, carol) = (&mut bob, &mut carol);
    sync(bob, carol);
    assert!(bob.forks > 0 && carol.forks > 0);
    assert!(bob.errors.is_empty() && carol.errors.is_empty());
    // Two calls of `sync_once` within one round trip.
    let one = |from: &mut Peer, to: &Peer| {
        from.replica.refresh(&to.key);
        std::iter::from_fn(|| from.poll(to.key)).collect::<Vec<_>>()
    };
    let (first, second) = (one(bob, carol), one(bob, carol));
    let mut questions = Vec::new();
    for messages in [first, second] {
        for message in messages {
            carol.receive(bob.key, &message).unwrap();
        }
        questions.push(std::iter::from_fn(|| carol.poll(bob.key)).collect::<Vec<_>>());
    }
    let mut answers = Vec::new();
    for messages in questions {
        for message in messages {
            bob.receive(carol.key, &message).unwrap();
        }
        answers.extend(std::iter::from_fn(|| bob.poll(carol.key)));
    }
    let mut ended = false;
    for message in answers {
        ended |= carol.receive(bob.key, &message).is_err();
    }
    assert!(!ended);
}

/// Bob may write since Alice's last record, which Mallory's forked control log covers: he names hers
/// all the same, so that his right is seen by those who cannot look into the branch.
#[test]
fn forked_control_log_hides_no_grant() {
    let [mut alice, mut bob, mut carol, mut mallory] = [1, 2, 3, 9].map(Peer::new);
    let id = alice.create();
    let seat = alice.seat(&mut bob, id, Role::Reader);
    alice.seat(&mut carol, id, Role::Reader);
    alice.seat(&mut mallory, id, Role::Writer);
    for peer in [&mut bob, &mut carol, &mut mallory] {
        sync(&mut alice, peer);
    }
    let mut twin = Peer::new(9);
    twin.store = backup(&mallory.store);
    twin.restart();
    let kem = bob.thread(id).seat().kem.public_key().to_bytes();
    alice.grant(id, seat, kem, Role::Writer);
    sync(&mut alice, &mut mallory);
    mallory.now += 1;
    mallory.govern(id, &[]);
    sync(&mut mallory, &mut bob);
    bob.write(id, "bob");
    twin.govern(id, &[]);
    sync(&mut alice, &mut carol);
    sync(&mut twin, &mut carol);
    sync(&mut bob, &mut carol);
    assert!(carol.forks > 0);
    assert_eq!(carol.reads(id), bob.reads(id));
}

/// A fork that is shown has keys changed only if whoever did it governs: no reader or writer can have them
/// changed again and again, nor can an admin who was removed.
#[test]
fn only_forks_of_those_who_govern_change_keys() {
    for (role, is_removed) in [
        (Role::Reader, false),
        (Role::Writer, false),
        (Role::Admin, true),
        (Role::Admin, false),
    ] {
        let [mut alice, mut mallory] = [1, 9].map(Peer::new);
        let id = alice.create();
        let seat = alice.seat(&mut mallory, id, role);
        sync(&mut alice, &mut mallory);
        let mut twin = Peer::new(9);
        twin.store = backup(&mallory.store);
        twin.restart();
        mallory.now += 1;
        mallory.govern(id, &[]);
        twin.govern(id, &[]);
        sync(&mut mallory, &mut alice);
        sync(&mut twin, &mut alice);
        assert!(alice.forks > 0);
        if is_removed {
            let accepts = Vec::new();
            let remove = RemoveOp {
                member: seat,
                accepts,
            };
            alice.govern(id, &[FrameOp::Remove(remove)]);
            alice.write(id, "without");
        }
        let safe = |peer: &Peer| peer.thread(id).governance().sealing_epoch(THREAD_DOMAIN);
        let before = safe(&alice);
        assert!(before.is_some());
        let now = alice.time();
        alice.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            thread.show_forks(view, now, rng, changes).unwrap();
            assert!(!thread.has_unshown_forks());
        });
        let is_costly = role == Role::Admin && !is_removed;
        assert_eq!(safe(&alice) == before, !is_costly, "{role:?}");
        // Whoever writes next begins a new one.
        alice.write(id, "on");
        assert!(safe(&alice).is_some());
    }
}

//! Junk among key wraps: nobody but the recipient can tell it, and it takes nobody else's room.

use leno_threads_core::sync::Message;
use leno_threads_core::thread::WRAPS_PER_STEP_MAX;
use leno_threads_core::{
    EpochKey, EpochOp, EpochParent, FrameOp, KeyLink, Role, SeatId, THREAD_DOMAIN, ThreadId, Wrap,
};

use crate::util::{Peer, connect, forget_each_other, grant_op, new_seat, sync, talk, talk_through};

/// Alice owns, Rex and Mal replicate, Bob is to read. All know who Bob is; no key went out yet.
struct World {
    alice: Peer,
    bob: Peer,
    rex: Peer,
    id: ThreadId,
    bobs: SeatId,
    mals: SeatId,
    rexs: SeatId,
}

fn world() -> World {
    let [mut alice, mut bob, mut rex, mut mal] = [1, 2, 3, 4].map(Peer::new);
    let id = alice.create();
    let rexs = alice.seat(&mut rex, id, Role::Replicator);
    let mals = alice.seat(&mut mal, id, Role::Replicator);
    let bobs = alice.seat(&mut bob, id, Role::Reader);
    alice.write(id, "secret");
    connect(&mut alice, &mut rex);
    talk_through(&mut alice, &mut rex, |bytes| {
        let is_wraps = matches!(Message::decode(&bytes), Ok(Message::Wraps { .. }));
        (!is_wraps).then_some(bytes)
    });
    World {
        alice,
        bob,
        rex,
        id,
        bobs,
        mals,
        rexs,
    }
}

fn wraps(peer: &Peer, id: ThreadId) -> Vec<Wrap> {
    use leno_threads_core::store::Store;
    let view = peer.store.view().unwrap();
    peer.thread(id).wraps(&*view).unwrap()
}

/// Hands over junk for a seat, under every epoch; returns how much of it was taken in.
fn flood(peer: &mut Peer, id: ThreadId, from: SeatId, to: SeatId, first: u8) -> usize {
    let epochs: Vec<_> = peer.thread(id).governance().epochs().cloned().collect();
    let mut taken = 0;
    for epoch in &epochs {
        for byte in first..first + 40 {
            let junk = Wrap {
                domain: epoch.domain,
                epoch: epoch.epoch,
                seat: to,
                encapsulated: [byte; 32],
                sealed: [byte; 48],
            };
            taken += usize::from(peer.take_wrap_from(id, from, &junk).is_ok());
        }
    }
    taken
}

/// Mal fills all the room that Mal has at Rex; Alice's wraps find theirs, and Bob reads through Rex.
#[test]
fn junk_of_one_seat_blocks_no_other() {
    let World {
        mut alice,
        mut bob,
        mut rex,
        id,
        bobs,
        mals,
        ..
    } = world();
    assert_eq!(flood(&mut rex, id, mals, bobs, 0), 2 * 4);
    rex.restart();
    assert_eq!(flood(&mut rex, id, mals, bobs, 100), 0);
    assert_eq!(wraps(&rex, id).len(), 2 * 4);
    sync(&mut alice, &mut rex);
    assert!(rex.errors.is_empty(), "{:?}", rex.errors);
    sync(&mut rex, &mut bob);
    assert_eq!(bob.reads(id), alice.reads(id));
    assert_eq!(bob.reads(id).len(), 1);
    assert!(bob.thread(id).missing_keys().is_empty());
}

/// A relay hands on what readers handed over before what replicators did: junk that came through the
/// relay does not take the relay's room elsewhere.
#[test]
fn relay_hands_on_good_wraps_first() {
    let World {
        mut alice,
        mut rex,
        id,
        bobs,
        mals,
        rexs,
        ..
    } = world();
    let good: Vec<Wrap> = wraps(&alice, id)
        .into_iter()
        .filter(|it| it.seat == bobs)
        .collect();
    flood(&mut rex, id, mals, bobs, 0);
    sync(&mut alice, &mut rex);
    let mut far = Peer::new(5);
    let seat = crate::util::new_seat(&mut far.rng);
    let kem = seat.kem.public_key().to_bytes();
    alice.grant(id, seat.id(), kem, Role::Replicator);
    far.join_directly(&alice, id, seat);
    for (log, run) in alice.runs(id) {
        let _ = far.take(id, log, &run);
    }
    for wrap in wraps(&rex, id) {
        let _ = far.take_wrap_from(id, rexs, &wrap);
    }
    assert_eq!(good.len(), 2);
    let kept = wraps(&far, id);
    assert!(good.iter().all(|wrap| kept.contains(wrap)));
    // Of Rex, four for Bob under each epoch.
    assert_eq!(kept.iter().filter(|wrap| wrap.seat == bobs).count(), 2 * 4);
}

/// A holder of the keys trusts what a replicator handed over to serve nobody.
#[test]
fn junk_of_a_replicator_does_not_count_as_served() {
    let World {
        mut alice,
        id,
        mals,
        ..
    } = world();
    let mut carol = Peer::new(6);
    let seat = crate::util::new_seat(&mut carol.rng);
    let (carols, kem) = (seat.id(), seat.kem.public_key().to_bytes());
    let now = alice.now;
    alice.step(|replica, view, rng, changes| {
        let grant = crate::util::grant_op(carols, kem, Role::Reader);
        let thread = replica.thread_mut(&id).unwrap();
        let grant = [leno_threads_core::FrameOp::Grant(grant)];
        thread.govern(view, &grant, &[], now, rng, changes).unwrap();
    });
    assert_eq!(flood(&mut alice, id, mals, carols, 0), 2 * 4);
    let wrap = |alice: &mut Peer| {
        alice.step(|replica, _, rng, changes| {
            replica.thread_mut(&id).unwrap().wrap_missing(rng, changes)
        })
    };
    assert_eq!(wrap(&mut alice), 2);
    assert_eq!(wrap(&mut alice), 0);
}

/// Lets a peer claim in a session that it lacks every key; returns how many there are.
fn lack_all(peer: &mut Peer, holder: &mut Peer, id: ThreadId) -> usize {
    let governance = holder.thread(id).governance();
    let mut epochs: Vec<_> = governance.epochs().map(|it| it.epoch).collect();
    epochs.sort();
    let mut is_asked = false;
    talk_through(peer, holder, |bytes| match Message::decode(&bytes) {
        Ok(Message::UpToDate { thread, .. }) if !is_asked => {
            is_asked = true;
            let epochs = epochs.clone();
            Some(Message::NeedKeys { thread, epochs }.encode())
        }
        _ => Some(bytes),
    });
    assert!(is_asked);
    epochs.len()
}

/// Whoever asks for keys in session after session gets them, and leaves behind no more than the seats
/// that hand them over may: Alice's four, and four that Bob hands back.
#[test]
fn wraps_made_anew_are_bounded() {
    let World {
        mut alice,
        mut bob,
        id,
        bobs,
        ..
    } = world();
    let before = wraps(&alice, id).len();
    for _ in 0..20 {
        connect(&mut bob, &mut alice);
        lack_all(&mut bob, &mut alice, id);
    }
    let for_bob = wraps(&alice, id)
        .into_iter()
        .filter(|wrap| wrap.seat == bobs);
    assert!(for_bob.count() <= 2 * (4 + 4));
    assert!(before <= 2 * 4);
    assert_eq!(bob.reads(id), alice.reads(id));
}

/// Whoever asks for keys again and again makes nobody blame those who hand wraps on.
#[test]
fn asking_for_keys_again_and_again_harms_nobody() {
    let [mut alice, mut bob, mut carol] = [1, 2, 3].map(Peer::new);
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    alice.seat(&mut carol, id, Role::Reader);
    for _ in 0..20 {
        forget_each_other(&mut alice, &mut bob);
        sync(&mut alice, &mut bob);
        let governance = alice.thread(id).governance();
        let mut epochs: Vec<_> = governance.epochs().map(|it| it.epoch).collect();
        epochs.sort();
        let ask = Message::NeedKeys { thread: 0, epochs };
        alice.receive(bob.key, &ask.encode()).unwrap();
    }
    assert!(wraps(&alice, id).len() <= 2 * (1 + 4) + 2);
    for _ in 0..2 {
        sync(&mut alice, &mut carol);
    }
    assert!(carol.errors.is_empty(), "{:?}", carol.errors);
    assert!(alice.errors.is_empty(), "{:?}", alice.errors);
}

/// Seven members are there when an eighth is seated, and each wraps the keys: nobody is blamed for
/// handing them on, and in the end there is nothing left to hand on.
#[test]
fn wraps_of_many_members_converge() {
    let mut peers: Vec<Peer> = (1..8).map(Peer::new).collect();
    let mut alice = peers.remove(0);
    let id = alice.create();
    for peer in &mut peers {
        alice.seat(peer, id, Role::Writer);
    }
    for _ in 0..2 {
        for peer in &mut peers {
            sync(&mut alice, peer);
        }
    }
    let mut newcomer = Peer::new(77);
    alice.seat(&mut newcomer, id, Role::Writer);
    for _ in 0..2 {
        for peer in &mut peers {
            sync(&mut alice, peer);
        }
    }
    for peer in &peers {
        assert!(peer.errors.is_empty(), "{:?}", peer.errors);
        let digests = [&alice, peer].map(|it| it.thread(id).wraps_digest());
        assert_eq!(digests[0], digests[1]);
    }
    assert!(alice.errors.is_empty(), "{:?}", alice.errors);
}

/// Carol's clock is a quarter of an hour behind, so governance is held when her keys come.
#[test]
fn newcomer_with_a_slow_clock_gets_the_keys_later() {
    let (mut alice, mut carol) = (Peer::new(1), Peer::new(3));
    let id = alice.create();
    alice.now += 3_600_000;
    alice.seat(&mut carol, id, Role::Reader);
    alice.write(id, "secret");
    carol.now = alice.now - 15 * 60_000;
    connect(&mut alice, &mut carol);
    talk(&mut alice, &mut carol);
    assert!(carol.reads(id).is_empty());
    assert!(carol.errors.is_empty(), "{:?}", carol.errors);
    carol.now = alice.now;
    carol.tick();
    talk(&mut alice, &mut carol);
    assert_eq!(alice.reads(id), carol.reads(id));
    alice.write(id, "more");
    talk(&mut alice, &mut carol);
    assert_eq!(carol.reads(id).len(), 2);
}

/// Mallory begins an epoch and hands its key to Bob alone. As a reader she has no say; as an admin
/// she has, and Bob hands the key on to those he talks with.
#[test]
fn key_that_came_is_handed_on_in_the_same_session() {
    for role in [Role::Reader, Role::Admin] {
        let (mut alice, mut bob, mut mallory) = (Peer::new(1), Peer::new(2), Peer::new(9));
        let id = alice.create();
        alice.seat(&mut bob, id, Role::Writer);
        alice.seat(&mut mallory, id, role);
        sync(&mut alice, &mut mallory);
        connect(&mut alice, &mut bob);
        talk(&mut alice, &mut bob);
        bob.write(id, "before");
        talk(&mut alice, &mut bob);
        let governance = mallory.thread(id).governance();
        let parents = governance
            .sealing_epoch(THREAD_DOMAIN)
            .into_iter()
            .map(EpochParent::from)
            .collect();
        let key = EpochKey::generate(&mut mallory.rng);
        let epoch = key.id(id, THREAD_DOMAIN);
        let domain = THREAD_DOMAIN;
        let op = EpochOp {
            domain,
            epoch,
            parents,
        };
        mallory.govern(id, &[FrameOp::Epoch(op)]);
        connect(&mut mallory, &mut bob);
        talk(&mut mallory, &mut bob);
        let seat = bob.thread(id).seat();
        let (seat, kem) = (seat.id(), seat.kem.public_key().to_bytes());
        let wrap = Wrap::seal(&key, id, domain, seat, &kem, &mut mallory.rng).unwrap();
        let wraps = vec![wrap];
        let message = Message::Wraps { thread: 0, wraps };
        bob.receive(mallory.key, &message.encode()).unwrap();
        talk(&mut alice, &mut bob);
        assert_eq!(bob.thread(id).holds_key(&epoch), role == Role::Admin);
        bob.write(id, "after");
        talk(&mut alice, &mut bob);
        assert_eq!(alice.reads(id), bob.reads(id), "{role:?}");
        assert_eq!(alice.reads(id).len(), 2);
    }
}

/// Many readers are wrapped for in several steps.
#[test]
fn wraps_of_one_step_are_bounded() {
    let mut alice = Peer::new(1);
    let id = alice.create();
    let grants: Vec<_> = (0..200)
        .map(|_| {
            let seat = new_seat(&mut alice.rng);
            let kem = seat.kem.public_key().to_bytes();
            FrameOp::Grant(grant_op(seat.id(), kem, Role::Reader))
        })
        .collect();
    // Does the first step.
    alice.govern(id, &grants);
    assert_eq!(wraps(&alice, id).len(), WRAPS_PER_STEP_MAX);
    let made: Vec<_> = (0..2)
        .map(|_| {
            alice.step(|replica, _, rng, changes| {
                replica.thread_mut(&id).unwrap().wrap_missing(rng, changes)
            })
        })
        .collect();
    assert_eq!(made, [400 - WRAPS_PER_STEP_MAX, 0]);
}

fn rotate(peer: &mut Peer, id: ThreadId) {
    let now = peer.time();
    peer.step(|replica, view, rng, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        thread
            .govern_and_rotate(view, &[], now, rng, changes)
            .unwrap();
    });
}

/// Whoever has the newest key has those before it, and needs no wrap of them.
#[test]
fn newcomer_is_handed_the_newest_key_and_opens_all() {
    let (mut alice, mut bob, mut carol) = (Peer::new(1), Peer::new(2), Peer::new(3));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    for round in 0..5 {
        alice.write(id, &format!("alice {round}"));
        sync(&mut alice, &mut bob);
        bob.write(id, &format!("bob {round}"));
        sync(&mut alice, &mut bob);
        rotate(&mut alice, id);
    }
    let carols = alice.seat(&mut carol, id, Role::Reader);
    // One of the roster, one of the documents.
    let of_carol = wraps(&alice, id).into_iter();
    assert_eq!(of_carol.filter(|it| it.seat == carols).count(), 2);
    sync(&mut alice, &mut bob);
    sync(&mut bob, &mut carol);
    assert_eq!(carol.reads(id), alice.reads(id));
    assert_eq!(carol.reads(id).len(), 10);
    assert!(carol.thread(id).missing_keys().is_empty());
    carol.restart();
    assert!(carol.thread(id).missing_keys().is_empty());
    // Nor does anybody make more once all keys are here.
    let (carol_made, bob_made) = (wrap_all(&mut carol, id), wrap_all(&mut bob, id));
    assert_eq!((carol_made, bob_made), (0, 0));
}

fn wrap_all(peer: &mut Peer, id: ThreadId) -> usize {
    peer.step(|replica, _, rng, changes| {
        replica.thread_mut(&id).unwrap().wrap_missing(rng, changes)
    })
}

/// A member who begins an epoch and links it to the one before with junk hides nothing: those who hold both
/// keys wrap what he did not link.
#[test]
fn junk_link_hides_nothing() {
    for link in [None, Some(KeyLink([7; 48]))] {
        let (mut alice, mut mallory, mut carol) = (Peer::new(1), Peer::new(9), Peer::new(3));
        let id = alice.create();
        alice.seat(&mut mallory, id, Role::Writer);
        alice.write(id, "before");
        sync(&mut alice, &mut mallory);
        let governance = mallory.thread(id).governance();
        let before = governance.sealing_epoch(THREAD_DOMAIN).unwrap();
        let key = EpochKey::generate(&mut mallory.rng);
        let epoch = key.id(id, THREAD_DOMAIN);
        let parent = EpochParent {
            epoch: before,
            link,
        };
        let op = EpochOp {
            domain: THREAD_DOMAIN,
            epoch,
            parents: vec![parent],
        };
        mallory.govern(id, &[FrameOp::Epoch(op)]);
        sync(&mut alice, &mut mallory);
        let seat = alice.thread(id).seat();
        let (seat, kem) = (seat.id(), seat.kem.public_key().to_bytes());
        let wrap = Wrap::seal(&key, id, THREAD_DOMAIN, seat, &kem, &mut mallory.rng).unwrap();
        assert!(alice.take_wrap(id, &wrap).unwrap());
        alice.write(id, "after");
        let carols = alice.seat(&mut carol, id, Role::Reader);
        let made = wraps(&alice, id).into_iter().filter(|it| it.seat == carols);
        assert_eq!(made.count(), 3);
        sync(&mut alice, &mut carol);
        assert_eq!(carol.reads(id), alice.reads(id));
        assert_eq!(carol.reads(id).len(), 2);
    }
}

/// Whoever asks for all keys is served with one wrap for all that it leads to.
#[test]
fn all_keys_are_asked_for_and_few_are_wrapped() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    for _ in 0..20 {
        alice.write(id, "line");
        rotate(&mut alice, id);
    }
    let bobs = alice.seat(&mut bob, id, Role::Reader);
    connect(&mut alice, &mut bob);
    assert_eq!(lack_all(&mut bob, &mut alice, id), 22);
    assert_eq!(bob.reads(id).len(), 20);
    let of_bob = wraps(&alice, id).into_iter().filter(|it| it.seat == bobs);
    assert!(of_bob.count() <= 4, "at most twice those of two domains");
}

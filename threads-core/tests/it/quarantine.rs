//! Records that are put aside: a reason each, on every peer the same, and nothing else stands still.
//!
//! Reasons of references and grants stand in `parked.rs` (`BadReference`) and `governance.rs`
//! (`NoSuchEpoch`, `Expired`).

use std::cell::RefCell;

use leno_threads_core::store::Store;
use leno_threads_core::sync::Message;
use leno_threads_core::thread::{Quarantine, Seat};
use leno_threads_core::{
    EpochKey, FrameOp, GrantOp, LogId, RecordRef, Role, ServiceKey, Stamp, ThreadId, Tip,
};

use crate::util::{
    Crafted, NOW, Peer, Secrets, connect, grant_op, new_seat, rng, secrets, sync, talk_through,
};

/// Alice owns, Bob and Carol write, Dave reads and has heard nothing yet, Rex replicates. Bob's
/// device is Mallory's now: only his keys are left.
struct World {
    alice: Peer,
    carol: Peer,
    dave: Peer,
    rex: Peer,
    id: ThreadId,
    bob: Secrets,
    bob_seat: Seat,
}

/// A record that Mallory adds to one of Bob's logs, behind which a good one stands.
struct Bad {
    log: LogId,
    crafted: Crafted,
    reason: Quarantine,
    /// The keys that it is sealed under, if not Bob's.
    sealed_by: Option<Secrets>,
}

fn world() -> World {
    let [mut alice, mut bob, mut carol, mut dave, mut rex] = [1, 2, 3, 4, 5].map(Peer::new);
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.seat(&mut carol, id, Role::Writer);
    alice.seat(&mut dave, id, Role::Reader);
    alice.seat(&mut rex, id, Role::Replicator);
    sync(&mut alice, &mut bob);
    sync(&mut alice, &mut carol);
    bob.write(id, "b1");
    carol.write(id, "c1");
    for _ in 0..2 {
        for peer in [&mut bob, &mut carol, &mut rex] {
            sync(&mut alice, peer);
        }
    }
    // Bob has seen that Carol's log is open.
    bob.write(id, "b2");
    for peer in [&mut bob, &mut carol, &mut rex] {
        sync(&mut alice, peer);
    }
    let seat = Seat {
        signing: secrets(&bob, id).seat,
        kem: new_seat(&mut rng(2)).kem,
    };
    World {
        bob: secrets(&bob, id),
        bob_seat: seat,
        alice,
        carol,
        dave,
        rex,
        id,
    }
}

impl World {
    fn data_log(&self) -> LogId {
        let writer = self.bob.writer.as_ref().unwrap();
        LogId(writer.verifying_key().to_bytes())
    }

    fn control_log(&self) -> LogId {
        self.bob_seat.id().control_log()
    }

    fn tip(&self, log: LogId) -> Tip {
        self.alice.tip(self.id, log)
    }

    fn after(&self, log: LogId, steps: u64) -> Stamp {
        Stamp(self.tip(log).stamp.0 + steps)
    }

    /// All that Mallory would name as control records if she were honest.
    fn control(&self, log: LogId) -> Vec<RecordRef> {
        self.alice.control(self.id, log)
    }
}

fn quarantined(peer: &Peer, id: ThreadId) -> Vec<(RecordRef, Quarantine)> {
    let view = peer.store.view().unwrap();
    peer.thread(id).quarantined(&*view).unwrap()
}

/// The bad record and the good one behind it come to Alice, and from her to the others: to Rex, who
/// reads nothing, and by him to Dave, whose keys come behind the records.
fn check(mut world: World, bad: Bad) {
    let id = world.id;
    let Bad {
        log,
        mut crafted,
        reason,
        sealed_by,
    } = bad;
    let is_control = log == world.control_log();
    let signer = match is_control {
        true => &world.bob.seat,
        false => world.bob.writer.as_ref().unwrap(),
    };
    crafted.deps.sort();
    crafted.control.sort();
    let stamp = crafted.stamp;
    let tip = world.tip(log);
    let sealed_by = sealed_by.as_ref().unwrap_or(&world.bob);
    let (bad, bad_tip) = sealed_by.craft(id, signer, &tip, &[crafted]);
    // Later than all that the bad one named, so that it is good whatever was wrong before.
    let stamp = Stamp(stamp.max(world.alice.thread(id).newest_stamp()).0 + 1);
    let good = match is_control {
        true => world.bob.frame(stamp, &[]),
        false => world.bob.text(stamp, "good"),
    };
    let (good, _) = world.bob.craft(id, signer, &bad_tip, &[good]);

    let World {
        alice,
        carol,
        dave,
        rex,
        ..
    } = &mut world;
    for run in [&bad, &good] {
        let received = alice.take(id, log, run).unwrap();
        assert_eq!((received.stored, received.admitted), (1, 1), "{reason:?}");
        alice.replica.touched(id);
    }
    let expected = [(
        RecordRef {
            log,
            seq: bad_tip.seq,
            id: bad_tip.id,
        },
        reason,
    )];
    assert_eq!(quarantined(alice, id), expected);
    sync(alice, rex);
    sync(rex, dave);
    sync(carol, rex);
    // Others go on, and build on the log.
    carol.write(id, "c2");
    alice.write(id, "a-last");
    for _ in 0..2 {
        for peer in [&mut *carol, &mut *dave, &mut *rex] {
            sync(alice, peer);
        }
    }
    let texts = |peer: &Peer| {
        let reads = peer.reads(id).into_iter();
        reads.map(|(.., text)| text).collect::<Vec<_>>()
    };
    for text in ["c2", "a-last"] {
        assert!(texts(alice).iter().any(|it| it == text), "{reason:?}");
    }
    assert_eq!(texts(alice).iter().any(|it| it == "good"), !is_control);
    for round in 0..2 {
        for peer in [&mut *alice, carol, dave] {
            assert!(peer.errors.is_empty(), "{reason:?}: {:?}", peer.errors);
            assert_eq!(quarantined(peer, id), expected, "{reason:?} {round}");
            // Whoever carries it without the key cannot tell that a body does not open.
            if round > 0 {
                peer.restart();
                peer.tick();
            }
        }
        assert_eq!(carol.state(id), alice.state(id), "{reason:?} {round}");
        assert_eq!(dave.state(id), alice.state(id), "{reason:?} {round}");
        let blind = reason == Quarantine::DoesNotOpen && !is_control;
        assert_eq!(quarantined(rex, id), expected[..usize::from(!blind)]);
        assert!(rex.errors.is_empty(), "{reason:?}: {:?}", rex.errors);
        // What its writer has shown to have seen is told by what it names, not by who reads it.
        for of in alice.thread(id).logs().map(|log| log.id) {
            for peer in [&*carol, dave, rex] {
                assert_eq!(
                    peer.thread(id).acknowledged(&of),
                    alice.thread(id).acknowledged(&of),
                    "{reason:?} {round} {of}"
                );
            }
        }
    }
}

#[test]
fn stamp_not_above_that_of_a_dep() {
    let mut world = world();
    let (id, log) = (world.id, world.data_log());
    world.alice.now += 60_000;
    world.alice.write(id, "a1");
    let mut crafted = world
        .bob
        .text(world.after(log, 1), "before what it follows");
    let alices = world.alice.thread(id).own_log().unwrap();
    crafted.deps = vec![world.alice.newest(id, alices)];
    crafted.control = world.control(log);
    // Of Alice's two newest control records the last opens her log, at her new time.
    let controls = world.alice.thread(id).seat().id().control_log();
    let opening = world.alice.newest(id, controls);
    assert!(crafted.control.contains(&opening));
    check(
        world,
        Bad {
            log,
            crafted,
            reason: Quarantine::StampNotAbove,
            sealed_by: None,
        },
    );
}

/// The stamp lies between that of the control record, which is good, and that of the dep.
#[test]
fn stamp_of_a_dep_alone() {
    let mut world = world();
    let (id, log) = (world.id, world.data_log());
    world.alice.write(id, "opens the log");
    world.alice.now += 60_000;
    world.alice.write(id, "a2");
    let alices = world.alice.thread(id).own_log().unwrap();
    let newest = world.alice.newest(id, alices);
    for (steps, is_good) in [(0, false), (1, true)] {
        let mut world = self::world();
        world.alice.write(id, "opens the log");
        world.alice.now += 60_000;
        world.alice.write(id, "a2");
        assert_eq!(world.alice.newest(id, alices), newest);
        // The same stamp is not above, the next one is.
        let stamp = Stamp(world.tip(alices).stamp.0 + steps);
        let mut crafted = world.bob.text(stamp, "as late as what it follows");
        crafted.deps = vec![newest];
        crafted.control = world.control(log);
        if is_good {
            let tip = world.tip(log);
            let signer = world.bob.writer.as_ref().unwrap();
            let (run, _) = world.bob.craft(id, signer, &tip, &[crafted]);
            assert_eq!(world.alice.take(id, log, &run).unwrap().admitted, 1);
            assert_eq!(quarantined(&world.alice, id), []);
            continue;
        }
        check(
            world,
            Bad {
                log,
                crafted,
                reason: Quarantine::StampNotAbove,
                sealed_by: None,
            },
        );
    }
}

#[test]
fn stamp_not_above_that_of_a_control_record() {
    for is_control in [false, true] {
        let mut world = world();
        let id = world.id;
        world.alice.now += 60_000;
        world.alice.govern(id, &[]);
        let log = match is_control {
            true => world.control_log(),
            false => world.data_log(),
        };
        let stamp = world.after(log, 1);
        let mut crafted = match is_control {
            true => world.bob.frame(stamp, &[]),
            false => world.bob.text(stamp, "before the rules it follows"),
        };
        crafted.control = world.control(log);
        check(
            world,
            Bad {
                log,
                crafted,
                reason: Quarantine::StampNotAbove,
                sealed_by: None,
            },
        );
    }
}

/// B29: to stand on records of today and on rules of yesterday.
///
/// ```text
/// Alice: g (a control record)
/// Carol: c2, which has seen g
/// Bob:   names c2, and no control record since he opened his log
/// ```
#[test]
fn frontier_older_than_that_of_a_dep() {
    for named in 0..2 {
        let mut world = world();
        let (id, log) = (world.id, world.data_log());
        world.alice.govern(id, &[]);
        sync(&mut world.alice, &mut world.carol);
        world.carol.now += 1_000;
        world.carol.write(id, "knows the new rules");
        sync(&mut world.alice, &mut world.carol);
        let carols = world.carol.thread(id).own_log().unwrap();
        let stamp = Stamp(world.tip(carols).stamp.0 + 1);
        let mut crafted = world.bob.text(stamp, "knows c2 and not its rules");
        crafted.deps = vec![world.alice.newest(id, carols)];
        // Also if others of the control records that c2 had seen are named.
        let carols_rules = world.carol.thread(id).seat().id().control_log();
        if named == 1 {
            crafted.control = vec![world.alice.newest(id, carols_rules)];
        }
        // With all of them named it is good.
        let mut good = world.bob.text(stamp, "knows both");
        good.deps.clone_from(&crafted.deps);
        good.control = world.control(log);
        let signer = world.bob.writer.as_ref().unwrap();
        let (run, _) = world.bob.craft(id, signer, &world.tip(log), &[good]);
        let mut copy = Peer::new(8);
        copy.store = crate::util::backup(&world.alice.store);
        copy.restart();
        assert_eq!(copy.take(id, log, &run).unwrap().admitted, 1);
        assert_eq!(quarantined(&copy, id), []);
        check(
            world,
            Bad {
                log,
                crafted,
                reason: Quarantine::FrontierTooOld,
                sealed_by: None,
            },
        );
    }
}

/// The epoch is named rightly, and the body is sealed under another key.
#[test]
fn body_that_does_not_open() {
    for deps in [false, true] {
        let mut world = world();
        let (id, log) = (world.id, world.data_log());
        world.alice.write(id, "a1");
        let mut sealed_by = secrets_again(&world);
        for (.., key) in &mut sealed_by.epochs {
            *key = EpochKey::from_bytes([9; 32]);
        }
        let alices = world.alice.thread(id).own_log().unwrap();
        let stamp = Stamp(world.tip(alices).stamp.0 + 1);
        let mut crafted = world.bob.text(stamp, "sealed under a key of my own");
        if deps {
            crafted.deps = vec![world.alice.newest(id, alices)];
            crafted.control = world.control(log);
        }
        check(
            world,
            Bad {
                log,
                crafted,
                reason: Quarantine::DoesNotOpen,
                sealed_by: Some(sealed_by),
            },
        );
    }
}

#[test]
fn frame_that_does_not_open() {
    let world = world();
    let log = world.control_log();
    let sealed_by = Secrets {
        service: ServiceKey::from_bytes([9; 32]),
        ..secrets_again(&world)
    };
    let crafted = world.bob.frame(world.after(log, 1), &[]);
    check(
        world,
        Bad {
            log,
            crafted,
            reason: Quarantine::DoesNotOpen,
            sealed_by: Some(sealed_by),
        },
    );
}

/// Frames that open and are none: bytes that are no dag-cbor, a list that is cut short, and padding
/// that is not what it must be.
#[test]
fn frame_that_is_malformed() {
    let grant = {
        let seat = new_seat(&mut rng(77));
        let kem = seat.kem.public_key().to_bytes();
        FrameOp::Grant(crate::util::grant_op(seat.id(), kem, Role::Reader))
    };
    for kind in 0..3 {
        let world = world();
        let log = world.control_log();
        let mut crafted = world
            .bob
            .frame(world.after(log, 1), std::slice::from_ref(&grant));
        match kind {
            0 => crafted.plaintext = vec![0, 0xff, 0xff],
            1 => crafted.plaintext.truncate(crafted.plaintext.len() - 1),
            _ => crafted.plaintext.push(1),
        }
        check(
            world,
            Bad {
                log,
                crafted,
                reason: Quarantine::Malformed,
                sealed_by: None,
            },
        );
    }
}

/// Bob's secrets once more, as [`Secrets`] hold keys that are not copied.
fn secrets_again(world: &World) -> Secrets {
    let key = |key: &leno_identity::SigningKey| {
        leno_identity::SigningKey::from_secret_bytes(&key.to_secret_bytes()).unwrap()
    };
    Secrets {
        service: world.bob.service.clone(),
        seat: key(&world.bob.seat),
        epochs: world.bob.epochs.clone(),
        writer: world.bob.writer.as_ref().map(key),
    }
}

/// What was put aside stays so where the key comes after it.
#[test]
fn late_key_opens_nothing_that_was_put_aside() {
    let (mut alice, mut mallory, mut carol) = (Peer::new(1), Peer::new(9), Peer::new(3));
    let id = alice.create();
    let seat = new_seat(&mut mallory.rng);
    let op = GrantOp {
        expires_millis: Some(NOW + 10_000),
        ..grant_op(seat.id(), seat.kem.public_key().to_bytes(), Role::Writer)
    };
    alice.govern(id, &[FrameOp::Grant(op)]);
    let service = alice.thread(id).service_key().clone();
    mallory.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
    let reader = alice.seat(&mut carol, id, Role::Reader);
    sync(&mut alice, &mut mallory);
    mallory.write(id, "in time");
    sync(&mut alice, &mut mallory);
    for peer in [&mut alice, &mut mallory, &mut carol] {
        peer.now += 60_000;
    }
    let log = mallory.thread(id).own_log().unwrap();
    let keys = secrets(&mallory, id);
    let late = keys.text(
        Stamp::from_millis(NOW + 20_000),
        "after the end of the grant",
    );
    let tip = mallory.tip(id, log);
    let (run, _) = keys.craft(id, keys.writer.as_ref().unwrap(), &tip, &[late]);
    alice.take(id, log, &run).unwrap();
    // Carol hears the keys last.
    let held = RefCell::new(Vec::new());
    connect(&mut alice, &mut carol);
    talk_through(&mut alice, &mut carol, |bytes| {
        if let Ok(Message::Wraps { wraps, .. }) = Message::decode(&bytes) {
            held.borrow_mut().extend(wraps);
            return None;
        }
        Some(bytes)
    });
    for wrap in held.borrow().iter().filter(|wrap| wrap.seat == reader) {
        carol.take_wrap(id, wrap).unwrap();
    }
    assert_eq!(alice.reads(id), carol.reads(id));
    assert_eq!(alice.reads(id).len(), 1);
}

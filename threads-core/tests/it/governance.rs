//! Who may do what: every rule with its refusal. Numbers are those of the module `acl`.

use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::acl::{EPOCHS_PER_SEAT_MAX, OPENINGS_PER_SEAT_MAX, VoidReason};
use leno_threads_core::store::Store;
use leno_threads_core::thread::{AppendError, Changes, Quarantine, Seat};
use leno_threads_core::{
    DeviceOp, EpochId, EpochOp, EpochParent, FrameOp, GrantOp, LogId, OpRef, OpenOp, Role,
    RosterOp, SeatId, Stamp, THREAD_DOMAIN, ThreadId,
};

use crate::util::{NOW, Peer, grant_op, new_seat, rng, secrets, sync};

/// Alice owns; the others hold the other roles.
struct World {
    alice: Peer,
    others: Vec<(Role, Peer, SeatId)>,
    id: ThreadId,
}

fn world() -> World {
    let mut alice = Peer::new(1);
    let id = alice.create();
    let roles = [Role::Admin, Role::Writer, Role::Reader, Role::Replicator];
    let mut others = Vec::new();
    for (seed, role) in (2..).zip(roles) {
        let mut peer = Peer::new(seed);
        let seat = alice.seat(&mut peer, id, role);
        sync(&mut alice, &mut peer);
        others.push((role, peer, seat));
    }
    for (_, peer, _) in &mut others {
        sync(&mut alice, peer);
    }
    World { alice, others, id }
}

fn grant_to(seed: u8, role: Role) -> GrantOp {
    let seat = new_seat(&mut rng(seed));
    grant_op(seat.id(), seat.kem.public_key().to_bytes(), role)
}

fn void(peer: &Peer, id: ThreadId) -> Vec<VoidReason> {
    let void = peer.thread(id).governance().void();
    void.map(|(_, reason)| reason).collect()
}

/// Rules 1 and 2, as a table: who may give what.
#[test]
fn roles_table() {
    let all = [
        Role::Owner,
        Role::Admin,
        Role::Writer,
        Role::Reader,
        Role::Replicator,
    ];
    for (author, allowed) in [
        (
            Role::Admin,
            &[Role::Writer, Role::Reader, Role::Replicator][..],
        ),
        (Role::Writer, &[]),
        (Role::Reader, &[]),
        (Role::Replicator, &[]),
    ] {
        for (seed, given) in (100..).zip(all) {
            let mut world = world();
            let (_, peer, _) = world.others.iter_mut().find(|it| it.0 == author).unwrap();
            let op = grant_to(seed, given);
            let seat = op.seat;
            // The liar's own software would say no; this one does not ask.
            peer.govern(world.id, &[FrameOp::Grant(op)]);
            sync(&mut world.alice, peer);
            let governance = world.alice.thread(world.id).governance();
            let stands = allowed.contains(&given);
            assert_eq!(
                governance.role(seat),
                stands.then_some(given),
                "{author:?} {given:?}"
            );
            let reasons = void(&world.alice, world.id);
            assert_eq!(reasons.len(), usize::from(!stands));
            // Rule 7: the record and its log go on, also where nobody reads.
            assert!(world.alice.errors.is_empty(), "{:?}", world.alice.errors);
        }
    }
}

/// Rules 3 and 4: an opening needs the author's own writing grant, and the log's key.
#[test]
fn openings_need_grant_and_key() {
    let mut world = world();
    let id = world.id;
    let alices = OpRef {
        ..world.alice.thread(id).genesis().owner_grant()
    };
    for (role, peer, seat) in &mut world.others {
        let own = peer
            .thread(id)
            .governance()
            .grants_of(*seat)
            .next()
            .unwrap()
            .0;
        let key = SigningKey::generate(&mut rng(50 + role.number() as u8)).unwrap();
        let stolen = OpenOp::sign(&key, id, *seat, alices, 0, None);
        let mut unsigned = OpenOp::sign(&key, id, *seat, own, 0, None);
        unsigned.incarnation = 1;
        let elsewhere = OpenOp::sign(&key, id, SeatId([1; 32]), own, 0, None);
        let before = void(peer, id).len();
        peer.govern(
            id,
            &[
                FrameOp::Open(stolen),
                FrameOp::Open(unsigned),
                FrameOp::Open(elsewhere),
            ],
        );
        let reasons: Vec<_> = peer.thread(id).governance().void().collect();
        assert_eq!(reasons.len(), before + 3);
        let log = LogId(key.verifying_key().to_bytes());
        assert_eq!(peer.thread(id).governance().opening(&log), None);
        let good = OpenOp::sign(&key, id, *seat, own, 0, None);
        peer.govern(id, &[FrameOp::Open(good)]);
        let opening = peer.thread(id).governance().opening(&log).cloned();
        assert_eq!(opening.is_some(), role.writes(), "{role:?}");
        sync(&mut world.alice, peer);
        let seen = world.alice.thread(id).governance().opening(&log).cloned();
        assert_eq!(seen.is_some(), role.writes());
    }
    let reasons = void(&world.alice, id);
    let count = |wanted| reasons.iter().filter(|it| **it == wanted).count();
    assert_eq!(count(VoidReason::NotAuthorsGrant), 4);
    // Those who may not write learn that first.
    assert_eq!(count(VoidReason::NotSigned), 4);
    assert_eq!(count(VoidReason::NotPermitted), 6);
}

/// Rule 6: an epoch needs a role that writes, parents in its past, and a key that is new.
#[test]
fn epochs_need_a_writer_and_parents() {
    let mut world = world();
    let id = world.id;
    let sealing = world
        .alice
        .thread(id)
        .governance()
        .sealing_epoch(THREAD_DOMAIN);
    let current = sealing.unwrap();
    let epoch = |byte: u8, parents: Vec<EpochId>| {
        FrameOp::Epoch(EpochOp {
            domain: THREAD_DOMAIN,
            epoch: EpochId([byte; 32]),
            parents: parents.into_iter().map(EpochParent::from).collect(),
        })
    };
    let again = FrameOp::Epoch(EpochOp {
        domain: THREAD_DOMAIN,
        epoch: current,
        parents: vec![current.into()],
    });
    let (_, rex, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Replicator)
        .unwrap();
    rex.govern(id, &[epoch(7, vec![current])]);
    sync(&mut world.alice, rex);
    let (_, rita, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Reader)
        .unwrap();
    rita.govern(id, &[epoch(7, vec![current])]);
    sync(&mut world.alice, rita);
    let (_, will, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Writer)
        .unwrap();
    will.govern(id, &[epoch(11, vec![current])]);
    sync(&mut world.alice, will);
    let (_, ada, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Admin)
        .unwrap();
    sync(&mut world.alice, ada);
    ada.govern(
        id,
        &[
            again,
            epoch(8, vec![EpochId([8; 32])]),
            epoch(9, vec![EpochId([99; 32])]),
            epoch(10, vec![current]),
        ],
    );
    sync(&mut world.alice, ada);
    let governance = world.alice.thread(id).governance();
    let known = |byte| governance.epoch(&EpochId([byte; 32])).is_some();
    assert_eq!(
        [7, 8, 9, 10, 11].map(known),
        [false, false, false, true, true]
    );
    let reasons = void(&world.alice, id);
    assert_eq!(
        reasons
            .iter()
            .filter(|it| **it == VoidReason::BadParents)
            .count(),
        2
    );
    assert!(reasons.contains(&VoidReason::EpochTaken));
    assert!(reasons.contains(&VoidReason::NotPermitted));
    // An epoch whose key nobody was given stops nobody: Alice writes on under the one she holds.
    assert_eq!(
        governance.sealing_epoch(THREAD_DOMAIN),
        Some(EpochId([10; 32]))
    );
    world.alice.write(id, "goes on");
}

/// An epoch of another key domain takes no record's key away.
#[test]
fn epoch_of_another_domain_shadows_nothing() {
    let mut world = world();
    let id = world.id;
    let governance = world.alice.thread(id).governance();
    let current = governance.sealing_epoch(THREAD_DOMAIN).unwrap();
    let (_, ada, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Admin)
        .unwrap();
    for domain in [0, 7] {
        let shadow = FrameOp::Epoch(EpochOp {
            domain,
            epoch: current,
            parents: Vec::new(),
        });
        ada.govern(id, &[shadow]);
    }
    sync(&mut world.alice, ada);
    world.alice.write(id, "still here");
    sync(&mut world.alice, ada);
    assert_eq!(ada.reads(id), world.alice.reads(id));
    let view = ada.store.view().unwrap();
    assert_eq!(ada.thread(id).quarantined(&*view).unwrap(), []);
}

/// A data record is judged by the epochs that its own past shows, so that peers agree.
#[test]
fn epoch_outside_the_past_is_no_epoch() {
    let mut world = world();
    let id = world.id;
    let (_, will, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Writer)
        .unwrap();
    will.write(id, "opens");
    let log = will.thread(id).own_log().unwrap();
    sync(&mut world.alice, will);
    let keys = secrets(will, id);
    let fresh = EpochId([42; 32]);
    world.alice.govern(
        id,
        &[FrameOp::Epoch(EpochOp {
            domain: THREAD_DOMAIN,
            epoch: fresh,
            parents: Vec::new(),
        })],
    );
    let tip = world.alice.tip(id, log);
    let mut record = keys.text(Stamp(tip.stamp.0 + 1_000_000), "under a hidden epoch");
    record.key = leno_threads_core::KeyRef::Data {
        domain: THREAD_DOMAIN,
        epoch: fresh,
    };
    let (run, _) = keys.craft(id, keys.writer.as_ref().unwrap(), &tip, &[record]);
    world.alice.take(id, log, &run).unwrap();
    let view = world.alice.store.view().unwrap();
    let quarantined = world.alice.thread(id).quarantined(&*view).unwrap();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].1, Quarantine::NoSuchEpoch);
}

#[test]
fn expired_readers_get_no_keys() {
    let mut alice = Peer::new(1);
    let id = alice.create();
    alice.now += 20_000;
    alice.write(id, "later");
    for (expires_millis, made) in [(NOW + 10_000, 0), (NOW + 30_000, 2)] {
        let seat = new_seat(&mut alice.rng);
        let op = GrantOp {
            expires_millis: Some(expires_millis),
            ..grant_op(seat.id(), seat.kem.public_key().to_bytes(), Role::Reader)
        };
        let now = alice.now;
        let wrapped = alice.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let grant = [FrameOp::Grant(op)];
            thread.govern(view, &grant, &[], now, rng, changes).unwrap();
            thread.wrap_missing(rng, changes)
        });
        assert_eq!(wrapped, made, "roster and documents, or nothing");
    }
}

/// Rule 2: what a grant permits ends with it, for records, control ops and one's own writes.
#[test]
fn expired_grants_permit_nothing() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    let seat = new_seat(&mut bob.rng);
    let op = GrantOp {
        expires_millis: Some(NOW + 10_000),
        ..grant_op(seat.id(), seat.kem.public_key().to_bytes(), Role::Admin)
    };
    alice.govern(id, &[FrameOp::Grant(op)]);
    let service = alice.thread(id).service_key().clone();
    bob.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
    sync(&mut alice, &mut bob);
    bob.write(id, "in time");
    bob.govern(id, &[FrameOp::Grant(grant_to(60, Role::Writer))]);
    sync(&mut alice, &mut bob);
    let log = bob.thread(id).own_log().unwrap();
    bob.now += 20_000;
    let keys = secrets(&bob, id);
    let late = keys.text(Stamp::from_millis(bob.now), "too late");
    let (run, _) = keys.craft(
        id,
        keys.writer.as_ref().unwrap(),
        &bob.tip(id, log),
        &[late],
    );
    // Bob's own software says so before it writes.
    let refused = bob.step(|replica, view, rng, _| {
        let thread = replica.thread_mut(&id).unwrap();
        let mut nothing = Changes::new();
        thread.append(
            view,
            THREAD_DOMAIN,
            &[0x60],
            NOW + 20_000,
            rng,
            &mut nothing,
        )
    });
    assert!(
        matches!(refused, Err(AppendError::NotWriter)),
        "{refused:?}"
    );
    alice.take(id, log, &run).unwrap();
    let late = grant_to(61, Role::Writer);
    let late_seat = late.seat;
    bob.govern(id, &[FrameOp::Grant(late)]);
    sync(&mut alice, &mut bob);
    let view = alice.store.view().unwrap();
    let quarantined = alice.thread(id).quarantined(&*view).unwrap();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].1, Quarantine::Expired);
    let governance = alice.thread(id).governance();
    assert_eq!(
        governance.role(new_seat(&mut rng(60)).id()),
        Some(Role::Writer)
    );
    assert_eq!(governance.role(late_seat), None);
    assert_eq!(alice.reads(id).len(), 1);
}

/// Rule 5: nobody adds a device to another member, and a second grant moves nobody.
#[test]
fn devices_belong_to_their_members() {
    let mut world = world();
    let id = world.id;
    let (_, will, will_seat) = world.others.iter().find(|it| it.0 == Role::Writer).unwrap();
    let (line, will_seat) = (will.thread(id).governance().member(*will_seat), *will_seat);
    let (_, ann, ann_seat) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Admin)
        .unwrap();
    let (ann_line, ann_seat) = (ann.thread(id).governance().member(*ann_seat), *ann_seat);
    let device = |seed: u8, member: SeatId| {
        let seat = new_seat(&mut rng(seed));
        let kem = seat.kem.public_key().to_bytes();
        DeviceOp::sign(&seat.signing, id, member, kem)
    };
    let (thief, second) = (device(70, will_seat), device(71, ann_seat));
    let unsigned = DeviceOp {
        kem: [1; 32],
        ..device(73, ann_seat)
    };
    let (thief_seat, second_seat, unsigned_seat) = (thief.seat, second.seat, unsigned.seat);
    let kem = AgreementKey::generate(&mut rng(72)).unwrap().public_key();
    let regrant = grant_op(will_seat, kem.to_bytes(), Role::Reader);
    ann.govern(
        id,
        &[
            FrameOp::Device(thief),
            FrameOp::Device(second),
            FrameOp::Device(unsigned),
            FrameOp::Grant(regrant),
        ],
    );
    sync(&mut world.alice, ann);
    let governance = world.alice.thread(id).governance();
    assert_eq!(governance.role(thief_seat), None);
    assert_eq!(governance.role(unsigned_seat), None);
    let reasons = [VoidReason::NotAuthorsMember, VoidReason::DeviceNotSigned];
    assert_eq!(void(&world.alice, id), reasons);
    assert_eq!(governance.member(second_seat), ann_line);
    assert_eq!(governance.role(second_seat), Some(Role::Admin));
    // A second grant takes the place of the first, and moves nobody.
    assert_eq!(governance.member(will_seat), line);
    assert_eq!(governance.role(will_seat), Some(Role::Reader));
}

/// Rule 8: one key opened by two seats; the chain tells which opening it began at.
#[test]
fn log_opened_twice_begins_where_its_first_record_says() {
    for first in [0, 1] {
        let mut world = world();
        let id = world.id;
        let key = SigningKey::generate(&mut rng(80)).unwrap();
        let log = LogId(key.verifying_key().to_bytes());
        let mut openings = Vec::new();
        for (role, peer, seat) in &mut world.others {
            if !role.writes() {
                continue;
            }
            let own = peer
                .thread(id)
                .governance()
                .grants_of(*seat)
                .next()
                .unwrap()
                .0;
            let open = OpenOp::sign(&key, id, *seat, own, 0, None);
            let record = peer.govern(id, &[FrameOp::Open(open)]);
            let control = peer.thread(id).seat().id().control_log();
            let run = peer
                .runs(id)
                .into_iter()
                .rfind(|it| it.0 == control)
                .unwrap();
            openings.push((*seat, record, run, peer.tip(id, log), secrets(peer, id)));
        }
        // The second opening is the one that the log begins at.
        let (seat, record, _, tip, keys) = &openings[1];
        let mut text = keys.text(Stamp(tip.stamp.0 + 5), "begun");
        text.control = vec![];
        let (run, _) = keys.craft(id, &key, tip, &[text]);
        for at in [first, 1 - first] {
            let (_, _, (control, opening), ..) = &openings[at];
            world.alice.take(id, *control, opening).unwrap();
        }
        world.alice.take(id, log, &run).unwrap();
        let opening = world.alice.thread(id).governance().opening(&log).unwrap();
        assert_eq!((opening.seat, opening.record), (*seat, *record));
        let before = world.alice.state(id);
        world.alice.restart();
        world.alice.tick();
        assert_eq!(world.alice.state(id), before);
    }
}

/// Who holds no key evaluates the same.
#[test]
fn replicators_evaluate_frames_without_keys() {
    let mut world = world();
    let id = world.id;
    let (_, ann, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Admin)
        .unwrap();
    ann.govern(id, &[FrameOp::Grant(grant_to(90, Role::Owner))]);
    ann.write(id, "sealed");
    sync(&mut world.alice, ann);
    let (_, rex, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Replicator)
        .unwrap();
    sync(&mut world.alice, rex);
    let all = |peer: &Peer| {
        let governance = peer.thread(id).governance();
        let grants: Vec<_> = governance
            .grants()
            .map(|(name, it)| (name, it.clone()))
            .collect();
        let void: Vec<_> = governance.void().collect();
        let openings: Vec<_> = governance
            .openings()
            .map(|(log, it)| (log, it.clone()))
            .collect();
        (grants, void, openings)
    };
    assert_eq!(all(rex), all(&world.alice));
    assert_eq!(rex.reads(id), []);
    assert_eq!(rex.thread(id).roster().name(), None);
    assert!(rex.thread(id).missing_keys().is_empty());
}

/// A seat that is nobody yet cannot govern.
#[test]
fn seat_without_grant_writes_nothing() {
    let (alice, mut eve) = {
        let mut alice = Peer::new(1);
        alice.create();
        (alice, Peer::new(5))
    };
    let id = alice.replica.ids().next().unwrap();
    let seat: Seat = new_seat(&mut eve.rng);
    eve.join_directly(&alice, id, seat);
    let refused = eve.step(|replica, view, rng, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        thread.govern(view, &[], &[], NOW, rng, changes)
    });
    assert!(
        matches!(refused, Err(AppendError::NotWriter)),
        "{refused:?}"
    );
}

/// Rule 9: a seat opens so many logs, and then no more; it is told when it writes.
#[test]
fn openings_of_a_seat_are_counted() {
    let mut world = world();
    let id = world.id;
    let (_, will, seat) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Writer)
        .unwrap();
    let grant = will.thread(id).governance().writing_grant(*seat).unwrap();
    let ops: Vec<_> = (0..u64::from(OPENINGS_PER_SEAT_MAX) + 2)
        .map(|incarnation| {
            let key = SigningKey::generate(&mut will.rng).unwrap();
            FrameOp::Open(OpenOp::sign(&key, id, *seat, grant, incarnation, None))
        })
        .collect();
    for ops in ops.chunks(500) {
        will.govern(id, ops);
    }
    sync(&mut world.alice, will);
    for peer in [&world.alice, &*will] {
        let governance = peer.thread(id).governance();
        assert_eq!(
            governance.openings().count(),
            OPENINGS_PER_SEAT_MAX as usize
        );
        assert_eq!(void(peer, id), [VoidReason::TooMany; 2]);
    }
    let refused = will.step(|replica, view, rng, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        thread.append(view, THREAD_DOMAIN, &[0x60], NOW, rng, changes)
    });
    assert!(
        matches!(refused, Err(AppendError::TooManyLogs)),
        "{refused:?}"
    );
    // Others go on.
    world.alice.write(id, "opens a log");
    sync(&mut world.alice, will);
    assert_eq!(will.reads(id).len(), 1);
}

/// Rule 9: an admin begins so many epochs, and then no more.
#[test]
fn epochs_of_a_seat_are_counted() {
    let mut world = world();
    let id = world.id;
    let (_, ada, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Admin)
        .unwrap();
    let before = ada.thread(id).governance().epochs().count();
    let ops: Vec<_> = (0..EPOCHS_PER_SEAT_MAX + 2)
        .map(|number| {
            let mut epoch = EpochId([7; 32]);
            epoch.0[..4].copy_from_slice(&number.to_be_bytes());
            FrameOp::Epoch(EpochOp {
                domain: THREAD_DOMAIN,
                epoch,
                parents: Vec::new(),
            })
        })
        .collect();
    for ops in ops.chunks(1000) {
        ada.govern(id, ops);
    }
    sync(&mut world.alice, ada);
    for peer in [&world.alice, &*ada] {
        let epochs = peer.thread(id).governance().epochs().count();
        assert_eq!(epochs, before + EPOCHS_PER_SEAT_MAX as usize);
        assert_eq!(void(peer, id), [VoidReason::TooMany; 2]);
    }
}

/// A version above the stamp of its record is made up, so a higher one is always left. What does not
/// fit into a record is refused.
#[test]
fn versions_of_facts_never_run_out() {
    let mut world = world();
    let id = world.id;
    let (_, will, _) = world
        .others
        .iter_mut()
        .find(|it| it.0 == Role::Writer)
        .unwrap();
    let mut state = |version: u64, bytes: usize| {
        let fact = RosterOp::Fact {
            key: "collection/songs".to_owned(),
            version,
            value: vec![7; bytes],
        };
        will.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let stated = thread.govern(view, &[], &[fact], NOW, rng, changes);
            replica.touched(id);
            stated.map(drop)
        })
    };
    state(1, 1).unwrap();
    state(u64::MAX, 2).unwrap();
    let refused = state(2, (64 << 10) + 1);
    assert!(matches!(refused, Err(AppendError::Ops(_))), "{refused:?}");
    state(2, 3).unwrap();
    sync(&mut world.alice, will);
    for peer in [&world.alice, &*will] {
        let fact = peer.thread(id).roster().fact("collection/songs");
        assert_eq!(fact, Some((2, &[7; 3][..])));
    }
}

//! Removing a replicator, and what sync makes of it.

use leno_threads_core::acl::VoidReason;
use leno_threads_core::sync::Level;
use leno_threads_core::{FrameOp, RemoveOp, Role, SeatId, ThreadId};

use crate::util::{Peer, level, sync};

/// Alice owns, Ann administers, Bob writes, Rex and Roy replicate.
struct World {
    alice: Peer,
    ann: Peer,
    bob: Peer,
    rex: Peer,
    roy: Peer,
    rex_seat: SeatId,
    id: ThreadId,
}

fn world() -> World {
    let mut peers = (1..=5).map(Peer::new);
    let [alice, ann, bob, rex, roy] = std::array::from_fn(|_| peers.next().unwrap());
    let (mut alice, mut ann, mut bob, mut rex, mut roy) = (alice, ann, bob, rex, roy);
    let id = alice.create();
    alice.seat(&mut ann, id, Role::Admin);
    alice.seat(&mut bob, id, Role::Writer);
    let rex_seat = alice.seat(&mut rex, id, Role::Replicator);
    alice.seat(&mut roy, id, Role::Replicator);
    alice.write(id, "before");
    for peer in [&mut ann, &mut bob, &mut rex, &mut roy] {
        sync(&mut alice, peer);
    }
    World {
        alice,
        ann,
        bob,
        rex,
        roy,
        rex_seat,
        id,
    }
}

fn kem_of(peer: &Peer, id: ThreadId, seat: SeatId) -> [u8; 32] {
    let mut grants = peer.thread(id).governance().grants_of(seat);
    grants.next().unwrap().1.op.kem
}

fn remove(peer: &mut Peer, id: ThreadId, member: SeatId) {
    let op = match peer.thread(id).seat().id() == member {
        true => FrameOp::Leave,
        false => FrameOp::Remove(RemoveOp {
            member,
            accepts: Vec::new(),
        }),
    };
    peer.govern(id, &[op]);
}

fn role(peer: &Peer, id: ThreadId, seat: SeatId) -> Option<Role> {
    peer.thread(id).governance().role(seat)
}

fn records(peer: &Peer, id: ThreadId) -> u64 {
    peer.thread(id).logs().map(|log| log.tip.seq).sum()
}

#[test]
fn owners_admins_and_the_replicator_itself_may_end_it() {
    type Who = fn(&mut World) -> &mut Peer;
    let table: [(Who, Option<Role>); 5] = [
        (|world| &mut world.alice, None),
        (|world| &mut world.ann, None),
        (|world| &mut world.rex, None),
        (|world| &mut world.bob, Some(Role::Replicator)),
        (|world| &mut world.roy, Some(Role::Replicator)),
    ];
    for (who, expected) in table {
        let mut world = world();
        let (id, seat) = (world.id, world.rex_seat);
        remove(who(&mut world), id, seat);
        assert_eq!(role(who(&mut world), id, seat), expected);
        let World {
            alice,
            ann,
            bob,
            rex,
            roy,
            ..
        } = &mut world;
        for peer in [ann, bob, rex, roy] {
            sync(alice, peer);
        }
        assert_eq!(role(alice, id, seat), expected);
        let reasons: Vec<_> = alice.thread(id).governance().void().collect();
        let reasons: Vec<_> = reasons.into_iter().map(|(_, reason)| reason).collect();
        let void = expected.map(|_| VoidReason::NotPermitted);
        assert_eq!(reasons, Vec::from_iter(void));
        assert!(alice.errors.is_empty(), "{:?}", alice.errors);
    }
}

/// One removes whom one has seen, and ends what ranks below oneself.
#[test]
fn only_what_ranks_below_and_was_seen_is_ended() {
    let mut world = world();
    let id = world.id;
    let alices = world.alice.thread(id).seat().id();
    let anns = world.ann.thread(id).seat().id();
    let bobs = world.bob.thread(id).seat().id();
    // Ann has not seen this one.
    let mut rob = Peer::new(6);
    let robs = world.alice.seat(&mut rob, id, Role::Replicator);
    for member in [SeatId([9; 32]), robs, alices, bobs] {
        remove(&mut world.ann, id, member);
    }
    let mut other = Peer::new(8);
    let others = world.alice.seat(&mut other, id, Role::Admin);
    sync(&mut world.alice, &mut world.ann);
    remove(&mut world.ann, id, others);
    sync(&mut world.alice, &mut world.ann);
    let governance = world.alice.thread(id).governance();
    let void: Vec<_> = governance.void().map(|(_, reason)| reason).collect();
    assert_eq!(void, [VoidReason::NoSuchMember; 2]);
    assert_eq!(governance.role(alices), Some(Role::Owner));
    assert_eq!(governance.role(anns), Some(Role::Admin));
    assert_eq!(governance.role(others), Some(Role::Admin));
    assert_eq!(governance.role(bobs), None);
    assert_eq!(governance.role(robs), Some(Role::Replicator));
}

#[test]
fn removed_replicator_learns_of_it_and_of_nothing_after() {
    for is_connected in [true, false] {
        let mut world = world();
        let (id, seat) = (world.id, world.rex_seat);
        let before = records(&world.rex, id);
        if !is_connected {
            world.alice.replica.disconnected(&world.rex.key);
            world.rex.replica.disconnected(&world.alice.key);
        }
        remove(&mut world.alice, id, seat);
        world.alice.write(id, "after");
        let mut late = Peer::new(7);
        world.alice.seat(&mut late, id, Role::Reader);
        match is_connected {
            true => crate::util::talk(&mut world.alice, &mut world.rex),
            false => sync(&mut world.alice, &mut world.rex),
        };
        assert_eq!(role(&world.rex, id, seat), None);
        assert_eq!(records(&world.rex, id), before + 1, "the removal alone");
        for (a, b) in [(&world.alice, &world.rex), (&world.rex, &world.alice)] {
            assert_eq!(a.replica.level(&b.key, &id), Level::NotShared);
        }
        // Nor from others who know of it.
        sync(&mut world.alice, &mut world.bob);
        sync(&mut world.bob, &mut world.rex);
        assert_eq!(records(&world.rex, id), before + 1);
        // The others go on.
        sync(&mut world.alice, &mut world.roy);
        assert!(level(&world.alice, &world.roy, id));
        assert_eq!(records(&world.roy, id), records(&world.alice, id));
        // After a restart it knows it still.
        world.rex.restart();
        assert_eq!(role(&world.rex, id, seat), None);
    }
}

#[test]
fn removed_replicator_may_be_granted_anew() {
    let mut world = world();
    let (id, seat) = (world.id, world.rex_seat);
    let kem = kem_of(&world.alice, id, seat);
    remove(&mut world.alice, id, seat);
    sync(&mut world.alice, &mut world.rex);
    world.alice.grant(id, seat, kem, Role::Replicator);
    world.alice.write(id, "again");
    sync(&mut world.alice, &mut world.rex);
    assert_eq!(role(&world.rex, id, seat), Some(Role::Replicator));
    assert!(level(&world.alice, &world.rex, id));
    assert_eq!(records(&world.rex, id), records(&world.alice, id));
}

/// Ann removes while Alice grants anew: all three orders of meeting agree.
#[test]
fn concurrent_removal_and_grant_agree_in_any_order() {
    let mut outcomes = Vec::new();
    for order in 0..3 {
        let mut world = world();
        let (id, seat) = (world.id, world.rex_seat);
        let kem = kem_of(&world.alice, id, seat);
        remove(&mut world.ann, id, seat);
        world.alice.grant(id, seat, kem, Role::Replicator);
        let World {
            alice, ann, bob, ..
        } = &mut world;
        match order {
            0 => {
                sync(alice, bob);
                sync(ann, bob);
            }
            1 => {
                sync(ann, bob);
                sync(alice, bob);
            }
            _ => {
                sync(alice, ann);
                sync(ann, bob);
            }
        }
        outcomes.push(role(bob, id, seat));
    }
    // A removal ends what was granted without knowing of it.
    assert_eq!(outcomes, [None; 3]);
}

/// Who was removed before he ever came is told so, the genesis first, and takes nobody for a liar: other threads
/// of the same two peers go on.
#[test]
fn removed_before_the_first_meeting_learns_of_it() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    let seat = alice.seat(&mut bob, id, Role::Writer);
    remove(&mut alice, id, seat);
    let other = alice.create();
    alice.seat(&mut bob, other, Role::Writer);
    alice.write(other, "hello");
    sync(&mut alice, &mut bob);
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    assert_eq!(role(&bob, id, seat), None);
    assert!(bob.thread(id).governance().was_removed(seat));
    assert_eq!(bob.reads(other), alice.reads(other));
    assert_eq!(bob.reads(other).len(), 1);
}

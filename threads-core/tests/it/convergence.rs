//! Same set of records, any order of arrival: same state.

use leno_threads_core::thread::ReceiveError;
use leno_threads_core::{FrameOp, LogId, Role, ThreadId, Wrap};
use proptest::prelude::*;

use crate::util::{OwnedRun, Peer, backup, grant_op, new_seat, rows, sync};

#[derive(Clone, Debug)]
enum Act {
    Write(usize, u8),
    Sync(usize, usize),
    Restart(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..3usize, 1..4u8).prop_map(|(who, many)| Act::Write(who, many)),
        4 => (0..4usize, 1..4usize).prop_map(|(a, step)| Act::Sync(a, (a + step) % 4)),
        1 => (0..4usize).prop_map(Act::Restart),
    ]
}

fn sync_two(peers: &mut [Peer], a: usize, b: usize) {
    let (low, high) = (a.min(b), a.max(b));
    let (left, right) = peers.split_at_mut(high);
    sync(&mut left[low], &mut right[0]);
}

/// Alice owns, Bob and Carol write, Rex replicates; all are seated.
fn band() -> (Vec<Peer>, ThreadId) {
    let mut alice = Peer::new(1);
    let id = alice.create();
    let mut others: Vec<Peer> = (2..5).map(Peer::new).collect();
    for (peer, role) in others
        .iter_mut()
        .zip([Role::Writer, Role::Writer, Role::Replicator])
    {
        alice.seat(peer, id, role);
    }
    let mut peers = vec![alice];
    peers.append(&mut others);
    for other in 1..4 {
        sync_two(&mut peers, 0, other);
    }
    (peers, id)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random writes, syncs and restarts; after everybody met everybody, all hold the same.
    #[test]
    fn replicas_that_met_agree(acts in prop::collection::vec(act(), 1..16)) {
        let (mut peers, id) = band();
        for act in acts {
            match act {
                Act::Write(who, many) => {
                    let texts: Vec<String> = (0..many).map(|it| format!("{who}-{it}")).collect();
                    peers[who].write_many(id, texts.iter().map(String::as_str));
                }
                Act::Sync(a, b) => sync_two(&mut peers, a, b),
                Act::Restart(who) => peers[who].restart(),
            }
        }
        for _ in 0..2 {
            for a in 0..4 {
                for b in a + 1..4 {
                    sync_two(&mut peers, a, b);
                }
            }
        }
        for peer in &peers {
            prop_assert!(peer.errors.is_empty(), "{:?}", peer.errors);
        }
        prop_assert_eq!(peers[1].state(id), peers[0].state(id));
        prop_assert_eq!(peers[2].state(id), peers[0].state(id));
        prop_assert_eq!(peers[3].reads(id), []);
        let without_reads = |peer: &Peer| {
            let logs = peer.thread(id).logs().filter(|log| log.tip.seq > 0);
            logs.map(|log| (log.tip, log.admitted)).collect::<Vec<_>>()
        };
        prop_assert_eq!(without_reads(&peers[3]), without_reads(&peers[0]));
    }
}

/// A history with everything that could tempt a peer to judge by order of arrival.
///
/// ```text
/// Alice: genesis, seats Bob (admin), Eve (writer), again Bob (writer)
/// Bob:   seats Carol and Eve (again), both write; Carol cites Bob's records and Alice's
/// ```
fn tangled() -> (Peer, Peer, ThreadId) {
    let (mut alice, mut bob, mut carol, mut eve) =
        (Peer::new(1), Peer::new(2), Peer::new(3), Peer::new(5));
    let id = alice.create();
    let bob_seat = alice.seat(&mut bob, id, Role::Admin);
    sync(&mut alice, &mut bob);
    // Two grants to one seat that know nothing of each other.
    let eve_seat = alice.seat(&mut eve, id, Role::Writer);
    let kem = {
        let thread = alice.thread(id).governance();
        let grant = thread.grants_of(eve_seat).next().unwrap().1.op.kem;
        bob.grant(id, eve_seat, grant, Role::Reader);
        grant
    };
    assert_ne!(kem, [0; 32]);
    bob.seat(&mut carol, id, Role::Writer);
    alice.write_many(id, ["a1", "a2"]);
    bob.write(id, "b1");
    sync(&mut bob, &mut carol);
    carol.write(id, "c1");
    sync(&mut alice, &mut eve);
    eve.write(id, "e1");
    eve.now += 5;
    sync(&mut carol, &mut eve);
    eve.write_many(id, ["e2", "e3"]);
    sync(&mut alice, &mut bob);
    bob.write(id, "b2");
    let grants = alice.thread(id).governance();
    let kem = grants.grants_of(bob_seat).next().unwrap().1.op.kem;
    alice.grant(id, bob_seat, kem, Role::Writer);
    alice.write(id, "a3");
    for _ in 0..2 {
        sync(&mut alice, &mut bob);
        sync(&mut bob, &mut carol);
        sync(&mut carol, &mut eve);
        sync(&mut alice, &mut eve);
    }
    let mut dave = Peer::new(6);
    let seat = new_seat(&mut dave.rng);
    alice.govern(
        id,
        &[FrameOp::Grant(grant_op(
            seat.id(),
            seat.kem.public_key().to_bytes(),
            Role::Reader,
        ))],
    );
    dave.join_directly(&alice, id, seat);
    for peer in [&alice, &bob, &carol, &eve] {
        assert!(peer.errors.is_empty(), "{:?}", peer.errors);
    }
    (alice, dave, id)
}

/// A peer over a copy of another one's store.
fn copy_of(peer: &Peer, seed: u8) -> Peer {
    let mut copy = Peer::new(seed);
    copy.store = backup(&peer.store);
    copy.restart();
    copy
}

fn wraps(peer: &Peer, id: ThreadId) -> Vec<Wrap> {
    use leno_threads_core::store::Store;
    let view = peer.store.view().unwrap();
    peer.thread(id).wraps(&*view).unwrap()
}

/// Delivers all runs, and the keys, in the order of `order`, each as often as it takes.
fn deliver(to: &mut Peer, id: ThreadId, runs: &[(LogId, OwnedRun)], wraps: &[Wrap], order: &[u64]) {
    let mut parcels: Vec<usize> = (0..runs.len() + wraps.len()).collect();
    parcels.sort_by_key(|it| (order.get(it % order.len()).copied(), *it));
    for _ in 0..runs.len() + 2 {
        for parcel in &parcels {
            match runs.get(*parcel) {
                Some((log, run)) => match to.take(id, *log, run) {
                    Ok(_) => {}
                    Err(
                        ReceiveError::UnknownLog { .. }
                        | ReceiveError::Gap { .. }
                        // The grant that the log begins at is not here yet.
                        | ReceiveError::Refused { .. },
                    ) => {}
                    Err(error) => panic!("{error}"),
                },
                None => {
                    let _ = to.take_wrap(id, &wraps[parcel - runs.len()]);
                }
            }
        }
        parcels.reverse();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Single runs in any order, each several times: the same records are admitted, the same are
    /// readable, governance is the same; and a restart changes nothing.
    #[test]
    fn any_order_of_delivery_gives_the_same(order in prop::collection::vec(any::<u64>(), 40)) {
        let (alice, dave, id) = tangled();
        let (runs, wraps) = (alice.runs(id), wraps(&alice, id));
        let mut expected = copy_of(&dave, 6);
        deliver(&mut expected, id, &runs, &wraps, &[0]);
        let mut shuffled = copy_of(&dave, 6);
        deliver(&mut shuffled, id, &runs, &wraps, &order);
        prop_assert_eq!(shuffled.state(id), expected.state(id));
        prop_assert_eq!(expected.reads(id).len(), alice.reads(id).len());
        let before = rows(&shuffled.store);
        shuffled.restart();
        shuffled.tick();
        prop_assert_eq!(shuffled.state(id), expected.state(id));
        prop_assert_eq!(rows(&shuffled.store), before);
    }
}

/// The same world over whole sessions: errors are none, although control logs come in an order of
/// ids that has nothing to do with who seated whom.
#[test]
fn newcomer_needs_one_session() {
    let (mut alice, mut dave, id) = tangled();
    sync(&mut alice, &mut dave);
    assert!(dave.errors.is_empty(), "{:?}", dave.errors);
    assert_eq!(dave.reads(id), alice.reads(id));
}

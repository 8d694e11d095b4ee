//! What two peers remember of each other, and what that spares them.

use std::cell::Cell;
use std::collections::BTreeSet;

use futures_executor::block_on;
use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::store::testing::Counting;
use leno_threads_core::store::{MemoryStore, Store, Table};
use leno_threads_core::sync::{Below, Level, Message, Name, Prefix, Shown, SyncError};
use leno_threads_core::thread::Changes;
use leno_threads_core::{FrameOp, RemoveOp, Role, SeatId, ThreadId};
use proptest::prelude::*;

use crate::util::{Peer, backup, connect, level, sync, talk, talk_through};

/// What went over the wire, and what it cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    messages: usize,
    bytes: usize,
    /// Looks into the stores of both.
    looks: u64,
}

/// Lets two connected peers talk until both are silent, and counts what it costs.
fn counted(a: &mut Peer, b: &mut Peer) -> Cost {
    let looks = Cell::new(0);
    let mut cost = Cost::default();
    loop {
        let mut is_silent = true;
        for at in [0, 1] {
            let (from, to) = match at {
                0 => (&mut *a, &mut *b),
                _ => (&mut *b, &mut *a),
            };
            let message = {
                let view = from.store.view().unwrap();
                let view = Counting::new(&*view, &looks);
                from.replica.poll_message(&view, &to.key).unwrap()
            };
            let Some(message) = message else { continue };
            is_silent = false;
            cost.messages += 1;
            cost.bytes += message.len();
            let mut changes = Changes::new();
            {
                let view = to.store.view().unwrap();
                let view = Counting::new(&*view, &looks);
                let (now, rng) = (to.time(), &mut to.rng);
                to.replica
                    .handle_message(
                        &view,
                        from.key,
                        &message,
                        now,
                        rng,
                        &mut changes,
                        &mut |_, _| {},
                    )
                    .unwrap();
            }
            block_on(to.store.commit(changes.batch)).unwrap();
        }
        if is_silent {
            cost.looks = looks.get();
            return cost;
        }
    }
}

fn reconnected(a: &mut Peer, b: &mut Peer) -> Cost {
    connect(a, b);
    counted(a, b)
}

fn pair(threads: usize) -> (Peer, Peer, Vec<ThreadId>) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let ids: Vec<_> = (0..threads)
        .map(|_| {
            let id = alice.create();
            alice.seat(&mut bob, id, Role::Writer);
            id
        })
        .collect();
    (alice, bob, ids)
}

/// All threads that both follow are level, asked one by one and all at once.
fn all_level(a: &mut Peer, b: &mut Peer, ids: &[ThreadId]) -> bool {
    let each = ids.iter().all(|id| level(a, b, *id));
    each && a.replica.is_level(&b.key) && b.replica.is_level(&a.key)
}

/// The goal: 10,000 unchanged threads cost at most 2 KB a round, and as much work as one thread; ten
/// that changed cost ten paths.
#[test]
fn ten_thousand_threads_cost_what_changed() {
    let (mut one, mut other, few) = pair(1);
    sync(&mut one, &mut other);
    let small = reconnected(&mut one, &mut other);
    assert!(all_level(&mut one, &mut other, &few));

    let (mut alice, mut bob, ids) = pair(10_000);
    connect(&mut alice, &mut bob);
    let first = counted(&mut alice, &mut bob);
    assert!(all_level(&mut alice, &mut bob, &ids));

    // On the live link of the first session.
    alice.replica.refresh(&bob.key);
    assert_eq!(alice.replica.level(&bob.key, &ids[7]), Level::Behind);
    let live = counted(&mut alice, &mut bob);
    assert!(all_level(&mut alice, &mut bob, &ids));
    assert!(live.bytes <= 64 && live.looks == 0, "{live:?}");

    let again = reconnected(&mut alice, &mut bob);
    assert!(all_level(&mut alice, &mut bob, &ids));
    assert_eq!(
        (again.messages, again.bytes, again.looks),
        (small.messages, small.bytes, small.looks),
        "as much as for one thread"
    );
    assert!(again.bytes <= 200, "{again:?}");

    // Ten threads change while both are apart, five on each side.
    alice.replica.disconnected(&bob.key);
    bob.replica.disconnected(&alice.key);
    for at in 0..5 {
        alice.write(ids[at * 1_999], "from alice");
        bob.write(ids[at * 1_999 + 1], "from bob");
    }
    let changed = reconnected(&mut alice, &mut bob);
    assert!(all_level(&mut alice, &mut bob, &ids));
    // Paths of at most four nodes, each shown as sixteen hashes of 16 bytes; the records themselves,
    // which open a log each, and their vectors take about 1 KB a thread.
    assert!(changed.bytes <= 10 * (4 * 300 + 1_200), "{changed:?}");
    assert!(changed.looks <= 10 * 40, "{changed:?}");

    // After a restart the names are read once.
    alice.restart();
    bob.restart();
    let started = reconnected(&mut alice, &mut bob);
    assert!(all_level(&mut alice, &mut bob, &ids));
    assert_eq!(started.bytes, small.bytes);
    assert!(started.looks <= 2 * (10_000 + 10), "{started:?}");
    println!(
        "first {first:?}\nlive {live:?}\nagain {again:?}\nten {changed:?}\nstarted {started:?}"
    );
}

/// News of a thread that both remember come without proofs; it is named by 16 bytes on each side.
#[test]
fn thread_that_both_remember_is_called_when_there_is_news() {
    let (mut alice, mut bob, ids) = pair(3);
    sync(&mut alice, &mut bob);
    connect(&mut alice, &mut bob);
    talk(&mut alice, &mut bob);
    for (round, id) in ids.iter().enumerate() {
        alice.write(*id, "live");
        let mut heard = Vec::new();
        talk_through(&mut alice, &mut bob, |bytes| {
            heard.push(bytes.clone());
            Some(bytes)
        });
        let named = heard.iter().filter(
            |it| matches!(Message::decode(it), Ok(Message::Threads { tags }) if tags.len() == 1),
        );
        assert_eq!(named.count(), 1, "in round {round}");
        let is_proof = |it: &&Vec<u8>| matches!(Message::decode(it), Ok(Message::Prove { .. }));
        assert_eq!(heard.iter().find(is_proof), None);
        assert_eq!(bob.reads(*id), alice.reads(*id));
        assert!(level(&alice, &bob, *id));
    }
    // Both write at once, so both call.
    let fresh = pair(1);
    let (mut alice, mut bob, id) = (fresh.0, fresh.1, fresh.2[0]);
    sync(&mut alice, &mut bob);
    connect(&mut alice, &mut bob);
    talk(&mut alice, &mut bob);
    alice.write(id, "a");
    bob.write(id, "b");
    talk(&mut alice, &mut bob);
    assert_eq!(bob.reads(id), alice.reads(id));
    assert_eq!(bob.reads(id).len(), 2);
    assert!(alice.errors.is_empty() && bob.errors.is_empty());
}

/// The tags and names that went from one side to the other.
fn named(heard: &[Vec<u8>]) -> usize {
    let tags = heard.iter().map(|it| match Message::decode(it) {
        Ok(Message::Threads { tags }) => tags.len(),
        _ => 0,
    });
    tags.sum()
}

#[test]
fn only_what_is_new_is_named() {
    let (mut alice, mut bob, mut ids) = pair(20);
    // Alice has threads that Bob does not follow: they are named to him once.
    for _ in 0..30 {
        alice.create();
    }
    let mut heard = Vec::new();
    let listen = |heard: &mut Vec<Vec<u8>>, alice: &mut Peer, bob: &mut Peer| {
        heard.clear();
        connect(alice, bob);
        talk_through(alice, bob, |bytes| {
            heard.push(bytes.clone());
            Some(bytes)
        });
    };
    listen(&mut heard, &mut alice, &mut bob);
    assert_eq!(named(&heard), 50);
    listen(&mut heard, &mut alice, &mut bob);
    assert_eq!(named(&heard), 0);
    // One of those that were named in vain becomes Bob's too: he names it, and so does she.
    let late = alice.create();
    listen(&mut heard, &mut alice, &mut bob);
    assert_eq!(named(&heard), 1);
    alice.seat(&mut bob, late, Role::Writer);
    ids.push(late);
    listen(&mut heard, &mut alice, &mut bob);
    assert_eq!(named(&heard), 1);
    assert!(all_level(&mut alice, &mut bob, &ids));
    // The same on a live link.
    let live = alice.create();
    talk(&mut alice, &mut bob);
    alice.seat(&mut bob, live, Role::Writer);
    ids.push(live);
    talk(&mut alice, &mut bob);
    assert!(all_level(&mut alice, &mut bob, &ids));
    assert!(alice.errors.is_empty() && bob.errors.is_empty());
}

/// Whatever one side forgot, or remembers of an older day, heals in one session.
#[test]
fn memory_of_one_side_is_lost() {
    for case in 0..4 {
        let (mut alice, mut bob, ids) = pair(40);
        let old = backup(&bob.store);
        sync(&mut alice, &mut bob);
        match case {
            0 => alice.step(|replica, view, _, changes| {
                replica.forget_peer(view, &bob.key, changes).unwrap();
            }),
            1 => bob.step(|replica, view, _, changes| {
                replica.forget_peer(view, &alice.key, changes).unwrap();
            }),
            // Bob's machine as it was before both met.
            2 => {
                bob.store = old;
                bob.restart();
            }
            // Bob gives up threads while both are apart.
            _ => {
                for peer in [&mut alice, &mut bob] {
                    let others = [peer.replica.peers().next().unwrap()];
                    peer.replica.disconnected(&others[0]);
                }
                for id in &ids[..10] {
                    let forgotten = bob.step(|replica, view, _, changes| {
                        replica.forget(view, id, changes).unwrap()
                    });
                    assert!(forgotten);
                }
            }
        }
        sync(&mut alice, &mut bob);
        let shared = if case == 3 { &ids[10..] } else { &ids[..] };
        assert!(all_level(&mut alice, &mut bob, shared), "case {case}");
        for id in ids.iter().filter(|id| !shared.contains(id)) {
            assert_eq!(alice.replica.level(&bob.key, id), Level::NotShared);
        }
        // From then on it is remembered again.
        let again = reconnected(&mut alice, &mut bob);
        assert!(again.bytes <= 200, "case {case}: {again:?}");
        assert!(all_level(&mut alice, &mut bob, shared), "case {case}");
        assert!(alice.errors.is_empty() && bob.errors.is_empty());
    }
}

/// A thread that Bob gave up and joins anew is named again by him, whatever Alice remembers.
#[test]
fn thread_that_was_given_up_is_joined_anew() {
    let (mut alice, mut bob, ids) = pair(3);
    sync(&mut alice, &mut bob);
    for is_live in [false, true] {
        if !is_live {
            alice.replica.disconnected(&bob.key);
            bob.replica.disconnected(&alice.key);
        }
        bob.step(|replica, view, _, changes| replica.forget(view, &ids[0], changes).unwrap());
        if is_live {
            talk(&mut alice, &mut bob);
        }
        sync(&mut alice, &mut bob);
        assert_eq!(alice.replica.level(&bob.key, &ids[0]), Level::NotShared);
        alice.seat(&mut bob, ids[0], Role::Writer);
        sync(&mut alice, &mut bob);
        assert!(all_level(&mut alice, &mut bob, &ids), "live {is_live}");
    }
    assert!(alice.errors.is_empty() && bob.errors.is_empty());
}

/// A seat that was removed is not remembered: nothing of the thread is hashed for its peer.
#[test]
fn removed_seat_is_not_remembered() {
    let (mut alice, mut carol) = (Peer::new(1), Peer::new(3));
    let id = alice.create();
    let seat = alice.seat(&mut carol, id, Role::Replicator);
    sync(&mut alice, &mut carol);
    assert!(reconnected(&mut alice, &mut carol).bytes <= 200);
    alice.replica.disconnected(&carol.key);
    carol.replica.disconnected(&alice.key);
    remove(&mut alice, id, seat);
    sync(&mut alice, &mut carol);
    assert!(carol.thread(id).governance().was_removed(seat));
    assert_eq!(alice.replica.level(&carol.key, &id), Level::NotShared);
    alice.write(id, "not for carol");
    let before = carol.thread(id).logs().count();
    let mut heard = Vec::new();
    connect(&mut alice, &mut carol);
    talk_through(&mut alice, &mut carol, |bytes| {
        heard.push(bytes.clone());
        Some(bytes)
    });
    let shows = |it: &&Vec<u8>| {
        matches!(
            Message::decode(it),
            Ok(Message::Nodes { .. } | Message::Range { .. })
        )
    };
    assert_eq!(heard.iter().find(shows), None);
    assert_eq!(carol.thread(id).logs().count(), before);
}

fn remove(peer: &mut Peer, id: ThreadId, seat: SeatId) {
    let remove = RemoveOp {
        member: seat,
        accepts: Vec::new(),
    };
    peer.govern(id, &[FrameOp::Remove(remove)]);
}

/// A comparison that is answered with lies costs a session, or a few messages: never a panic, nothing
/// kept, no end of questions.
#[test]
fn comparison_is_lied_about() {
    let name = |byte: u8| -> Name { [byte; 16] };
    let leaves = |prefix, names: &[u8]| Shown {
        prefix,
        below: Below::Leaves(names.iter().map(|it| (name(*it), [7; 16])).collect()),
    };
    let inner = |prefix| Shown {
        prefix,
        below: Below::Inner(Box::new([[7; 16]; 16])),
    };
    let (mut alice, mut bob, _) = pair(5);
    sync(&mut alice, &mut bob);
    let before = crate::util::rows(&alice.store);
    // To questions of Alice, who begins.
    let out_of_turn = [
        Message::Compared { round: 2 },
        Message::Compared { round: 5 },
        Message::Seen { tags: 9 },
        Message::Ask {
            round: 3,
            nodes: vec![Prefix::ROOT],
        },
        Message::Nodes {
            round: 5,
            nodes: vec![inner(Prefix::ROOT)],
        },
        Message::Nodes {
            round: 3,
            nodes: vec![inner(Prefix::new([0; 16], 1).unwrap())],
        },
    ];
    for (at, lie) in out_of_turn.iter().enumerate() {
        connect(&mut alice, &mut bob);
        while let Some(bytes) = alice.poll(bob.key) {
            bob.receive(alice.key, &bytes).unwrap();
        }
        let hello = bob.poll(alice.key).unwrap();
        alice.receive(bob.key, &hello).unwrap();
        let outcome = alice.receive(bob.key, &lie.encode());
        let errors = std::mem::take(&mut alice.errors);
        assert!(
            matches!(errors[..], [SyncError::OutOfTurn { .. }]) && outcome.is_err(),
            "{at}: {errors:?}"
        );
        assert_eq!(crate::util::rows(&alice.store), before, "{at}");
    }
    // Nodes that go on for ever: the depth of the tree and the number of looks are bounded.
    connect(&mut alice, &mut bob);
    let hello = bob.poll(alice.key).unwrap();
    alice.receive(bob.key, &hello).unwrap();
    let mut asked = 0;
    let ended = loop {
        let mut nodes = None;
        while let Some(bytes) = alice.poll(bob.key) {
            let message = Message::decode(&bytes).unwrap();
            if let Message::Compare { round, .. } = &message {
                nodes = Some((*round, vec![Prefix::ROOT]));
            } else if let Message::Ask { round, nodes: asks } = message {
                nodes = Some((round, asks));
            }
        }
        let Some((round, asks)) = nodes else {
            break false;
        };
        asked += asks.len();
        let nodes = asks.into_iter().map(inner).collect();
        let lie = Message::Nodes { round, nodes };
        if alice.receive(bob.key, &lie.encode()).is_err() {
            break true;
        }
    };
    assert!(ended && asked <= 1 << 17, "{asked}");
    assert!(matches!(alice.errors[..], [SyncError::TooMany { .. }]));
    // Strange leaves are answered by their names, once.
    alice.errors.clear();
    connect(&mut alice, &mut bob);
    let hello = bob.poll(alice.key).unwrap();
    alice.receive(bob.key, &hello).unwrap();
    let mut round = 0;
    while let Some(bytes) = alice.poll(bob.key) {
        if let Ok(Message::Compare { round: it, .. }) = Message::decode(&bytes) {
            round = it;
        }
    }
    let nodes = vec![leaves(Prefix::ROOT, &[1, 2, 3])];
    alice
        .receive(bob.key, &Message::Nodes { round, nodes }.encode())
        .unwrap();
    let mut unknown = Vec::new();
    while let Some(bytes) = alice.poll(bob.key) {
        if let Ok(Message::Unknown { names }) = Message::decode(&bytes) {
            unknown = names;
        }
    }
    assert_eq!(unknown, [name(1), name(2), name(3)]);
    // The truth is believed afterwards.
    sync(&mut alice, &mut bob);
    assert!(alice.errors.is_empty() && bob.errors.is_empty());
    assert!(alice.replica.is_level(&bob.key));
}

/// What happens to three peers.
#[derive(Clone, Debug)]
enum Act {
    Create(usize, usize),
    Write(usize, usize),
    Forget(usize, usize),
    ForgetPeer(usize, usize),
    Restart(usize),
    Backup(usize),
    Restore(usize),
    Sync(usize, usize),
    /// Connects, and loses the link after so many messages.
    Cut(usize, usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    let who = || 0..3_usize;
    prop_oneof![
        3 => (who(), who()).prop_map(|(a, b)| Act::Create(a, b)),
        6 => (who(), 0..12_usize).prop_map(|(a, b)| Act::Write(a, b)),
        1 => (who(), 0..12_usize).prop_map(|(a, b)| Act::Forget(a, b)),
        1 => (who(), who()).prop_map(|(a, b)| Act::ForgetPeer(a, b)),
        2 => who().prop_map(Act::Restart),
        1 => who().prop_map(Act::Backup),
        1 => who().prop_map(Act::Restore),
        6 => (who(), who()).prop_map(|(a, b)| Act::Sync(a, b)),
        4 => (who(), who(), 0..40_usize).prop_map(|(a, b, c)| Act::Cut(a, b, c)),
    ]
}

fn two(peers: &mut [Peer; 3], a: usize, b: usize) -> Option<(&mut Peer, &mut Peer)> {
    let [low, high] = [a.min(b), a.max(b)];
    if low == high {
        return None;
    }
    let (front, back) = peers.split_at_mut(high);
    let (low, high) = (&mut front[low], &mut back[0]);
    Some(if a < b { (low, high) } else { (high, low) })
}

fn run(
    peers: &mut [Peer; 3],
    backups: &mut [Option<MemoryStore>; 3],
    ids: &mut Vec<ThreadId>,
    act: Act,
) {
    match act {
        Act::Create(a, b) => {
            let id = peers[a].create();
            if let Some((one, other)) = two(peers, a, b) {
                one.seat(other, id, Role::Writer);
            }
            ids.push(id);
        }
        Act::Write(a, at) => {
            let id = ids.get(at).copied();
            if let Some(id) = id.filter(|id| may_write(&peers[a], *id)) {
                peers[a].write(id, "x");
            }
        }
        Act::Forget(a, at) => {
            if let Some(id) = ids.get(at) {
                peers[a]
                    .step(|replica, view, _, changes| replica.forget(view, id, changes).unwrap());
            }
        }
        Act::ForgetPeer(a, b) => {
            let other = peers[b].key;
            peers[a].step(|replica, view, _, changes| {
                replica.forget_peer(view, &other, changes).unwrap();
            });
        }
        Act::Restart(a) => peers[a].restart(),
        Act::Backup(a) => backups[a] = Some(backup(&peers[a].store)),
        // Only what is not written by the copy: forks are for other tests.
        Act::Restore(a) => {
            if let Some(store) = &backups[a] {
                let own: Vec<_> = ids
                    .iter()
                    .filter(|id| is_written(&peers[a], **id))
                    .collect();
                if own.is_empty() {
                    peers[a].store = backup(store);
                    peers[a].restart();
                }
            }
        }
        Act::Sync(a, b) => {
            if let Some((one, other)) = two(peers, a, b) {
                sync(one, other);
            }
        }
        Act::Cut(a, b, messages) => {
            if let Some((one, other)) = two(peers, a, b) {
                connect(one, other);
                let mut left = messages;
                talk_through(one, other, |bytes| {
                    left = left.checked_sub(1)?;
                    Some(bytes)
                });
                one.replica.disconnected(&other.key);
                other.replica.disconnected(&one.key);
            }
        }
    }
}

fn may_write(peer: &Peer, id: ThreadId) -> bool {
    let thread = peer.replica.thread(&id);
    thread.is_some_and(|it| {
        let role = it.governance().role(it.seat().id());
        // A session that was cut may have brought the role and not the key.
        role.is_some_and(Role::writes) && it.missing_keys().is_empty()
    })
}

/// Whether a peer wrote to a thread, governance too.
fn is_written(peer: &Peer, id: ThreadId) -> bool {
    let thread = peer.replica.thread(&id);
    thread.is_some_and(|it| {
        let control = it.seat().id().control_log();
        let governs = it.log(&control).is_some_and(|log| log.tip.seq > 0);
        governs || it.own_log().is_some()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever each side remembers, forgot or remembers of an older day, and wherever links were cut:
    /// two sessions later all that both follow is level and the same.
    #[test]
    fn any_memory_comes_level(acts in prop::collection::vec(act(), 1..60)) {
        let mut peers = [Peer::new(1), Peer::new(2), Peer::new(3)];
        let (mut backups, mut ids) = ([None, None, None], Vec::new());
        for act in acts {
            run(&mut peers, &mut backups, &mut ids, act);
        }
        for _ in 0..2 {
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                let (one, other) = two(&mut peers, a, b).unwrap();
                sync(one, other);
            }
        }
        for (a, b) in [(0, 1), (1, 2), (0, 2)] {
            let (one, other) = two(&mut peers, a, b).unwrap();
            sync(one, other);
            let shared: BTreeSet<_> = ids
                .iter()
                .filter(|id| may_write(one, **id) && may_write(other, **id))
                .collect();
            for id in shared {
                prop_assert!(level(one, other, *id), "{} and {} are not level", a, b);
                let heads = |peer: &Peer| {
                    let logs = peer.thread(*id).logs().filter(|log| log.tip.seq > 0);
                    logs.map(|log| (log.id, log.tip.seq, log.tip.id)).collect::<Vec<_>>()
                };
                prop_assert_eq!(heads(one), heads(other));
            }
            prop_assert!(one.replica.is_level(&other.key) && other.replica.is_level(&one.key));
        }
        for peer in &peers {
            prop_assert!(peer.errors.is_empty(), "{:?}", peer.errors);
        }
    }
}

/// Both sides noted that a thread was named, by a session that went wrong, and neither remembers it: they
/// find it again once they have not seen each other for a day.
#[test]
fn thread_that_both_take_for_named_is_named_again_after_a_day() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let known = alice.create();
    alice.seat(&mut bob, known, Role::Writer);
    sync(&mut alice, &mut bob);
    let lost = alice.create();
    alice.seat(&mut bob, lost, Role::Writer);
    let keys = [bob.key, alice.key];
    for (peer, other) in [&mut alice, &mut bob].into_iter().zip(keys) {
        let mut row = Encoder::new();
        row.array(2).uint(2).uint(peer.now);
        let mut changes = Changes::new();
        let key = [&[0], &other.0[..]].concat();
        changes.batch.put(Table::Pairs, key, row.into_vec());
        peer.commit(changes);
        peer.restart();
    }
    sync(&mut alice, &mut bob);
    assert_eq!(alice.replica.level(&bob.key, &lost), Level::NotShared);
    assert_eq!(bob.replica.level(&alice.key, &lost), Level::NotShared);
    for peer in [&mut alice, &mut bob] {
        peer.now += 24 * 60 * 60 * 1_000;
    }
    sync(&mut alice, &mut bob);
    assert!(level(&alice, &bob, lost) && level(&alice, &bob, known));
}

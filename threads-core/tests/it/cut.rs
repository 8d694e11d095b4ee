//! A cut is a prefix of the total order, and joining cannot write below it (pitfall 2).

use leno_threads_core::cut::{CutLog, compute_cut};
use leno_threads_core::store::Store;
use leno_threads_core::{LogId, RecordId, Role, Seq, Stamp, ThreadId};
use proptest::prelude::*;

use crate::util::{Peer, sync};

#[derive(Clone, Debug)]
struct Shape {
    opened: u64,
    deltas: Vec<u64>,
    counts: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let deltas = prop::collection::vec(1..6u64, 0..6);
    (1..10u64, deltas, any::<bool>()).prop_map(|(opened, deltas, counts)| Shape {
        opened,
        deltas,
        counts,
    })
}

fn stamps(shape: &Shape) -> Vec<u64> {
    let rising = shape.deltas.iter().scan(shape.opened, |at, delta| {
        *at += delta;
        Some(*at)
    });
    rising.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Naively: T is good if no counting log can still write at or below it; the highest good one
    /// below everything that is known is the cut.
    #[test]
    fn cut_is_the_highest_safe_prefix(shapes in prop::collection::vec(shape(), 1..6)) {
        let logs: Vec<(LogId, Vec<u64>)> = (0..)
            .zip(&shapes)
            .map(|(log, shape)| (LogId([log; 32]), stamps(shape)))
            .collect();
        let newest = |at: usize| logs[at].1.last().copied().unwrap_or(shapes[at].opened);
        let inputs: Vec<CutLog> = (0..logs.len())
            .map(|at| CutLog {
                log: logs[at].0,
                is_control: false,
                newest: Stamp(newest(at)),
                counts: shapes[at].counts,
            })
            .collect();
        let last = |log: &LogId, stamp: Stamp| {
            let stamps = &logs.iter().find(|(id, _)| id == log).unwrap().1;
            let seq = stamps.iter().filter(|it| **it <= stamp.0).count() as Seq;
            Ok::<_, ()>((seq > 0).then_some((seq, RecordId([0; 32]))))
        };
        let cut = compute_cut(inputs.clone(), last).unwrap();

        let top = (0..logs.len()).map(newest).max().unwrap();
        let has_shown_later = |t: u64| {
            (0..logs.len()).all(|at| !shapes[at].counts || newest(at) > t)
        };
        let naive = (0..=top).rev().find(|t| has_shown_later(*t)).unwrap();
        prop_assert_eq!(cut.stamp, Stamp(naive));
        // A prefix: what is in it lies at or below T, what is not lies above.
        for (log, stamps) in &logs {
            let seq = cut.logs.iter().find(|it| it.log == *log).map_or(0, |it| it.seq);
            for (at, stamp) in (1..).zip(stamps) {
                prop_assert_eq!(at <= seq, *stamp <= naive);
            }
        }
        // Whoever holds it back would let it rise.
        for log in &cut.held_by {
            let input = inputs.iter().find(|it| it.log == *log).unwrap();
            prop_assert_eq!(input.newest.0, naive + 1);
        }
        prop_assert_eq!(cut.held_by.is_empty(), shapes.iter().all(|it| !it.counts));
    }
}

fn cut(peer: &Peer, id: ThreadId) -> leno_threads_core::cut::Cut {
    let view = peer.store.view().unwrap();
    peer.thread(id).compute_cut(&*view).unwrap()
}

/// Alice and Bob write in turn; the cut follows the one who is behind, and a seat that has never
/// written holds it back because it may open a log.
#[test]
fn silent_writers_hold_the_cut_back() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    let seat = alice.seat(&mut bob, id, Role::Writer);
    alice.now += 1_000;
    alice.write_many(id, ["a1", "a2", "a3"]);
    let silent = cut(&alice, id);
    assert_eq!(silent.held_by, [seat.control_log()]);
    // Nothing of Alice's data log is below the grant of Bob's seat.
    let own = alice.thread(id).own_log().unwrap();
    assert!(silent.logs.iter().all(|it| it.log != own));

    // Bob opens a log above all that he has seen: never below the cut.
    sync(&mut alice, &mut bob);
    bob.now += 5_000;
    bob.write(id, "b1");
    let bobs = bob.thread(id).own_log().unwrap();
    assert!(bob.tip(id, bobs).stamp > silent.stamp);
    sync(&mut alice, &mut bob);
    alice.now += 9_000;
    alice.write(id, "a4");
    let (shown, later) = (cut(&alice, id), silent);
    assert!(shown.stamp >= later.stamp);
    for named in &shown.logs {
        assert!(named.seq <= alice.tip(id, named.log).seq);
    }
    assert_eq!(cut(&bob, id).stamp.max(shown.stamp), shown.stamp);
}

/// Records of one run on both sides of the cut: the place within the run is found.
#[test]
fn cut_falls_into_a_run() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    alice.write_many(id, ["1", "2", "3", "4"]);
    let own = alice.thread(id).own_log().unwrap();
    // Only Alice counts: her control log has shown less than her data log.
    alice.now += 1_000;
    alice.govern(id, &[]);
    let found = cut(&alice, id);
    let named = found.logs.iter().find(|it| it.log == own).unwrap();
    assert_eq!(named.seq, 3);
    assert_eq!(found.held_by, [own]);
    assert_eq!(found.stamp.next(), Some(alice.tip(id, own).stamp));
}

//! The showpiece: creates, saves and deletes of one document by three writers at once. Whatever the
//! order of delivery, and however often each op arrives: the same bytes.

use std::collections::BTreeMap;

use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{JsonCodec, Op, State, conflicts, render};
use leno_crdt_codec::{Codec, Place, Reducer, naive};
use proptest::prelude::*;

use crate::oracle;
use crate::world::{
    ALICE, BOB, Delivery, Step, World, definition, document, place, song, steps, steps_with_lies,
};

/// Applies ops one after the other, with no regard to order or causality.
pub(crate) fn apply_all<'a>(ops: impl IntoIterator<Item = &'a (Place, Op)>) -> State {
    let mut state = State::default();
    for (place, op) in ops {
        JsonCodec::apply(&mut state, place, op);
    }
    state
}

fn naive_bytes(ops: &Delivery) -> Vec<u8> {
    naive::<JsonCodec>(ops.iter().cloned()).encode()
}

/// Visits every order (Heap's algorithm).
pub(crate) fn each_order<T>(items: &mut [T], count: usize, visit: &mut impl FnMut(&[T])) {
    if count <= 1 {
        return visit(items);
    }
    for at in 0..count {
        each_order(items, count - 1, visit);
        if at + 1 < count {
            items.swap(if count.is_multiple_of(2) { at } else { 0 }, count - 1);
        }
    }
}

/// Every order and every duplication, in memory and through bytes, gives what the rules say.
fn check_any_order(steps: &[Step], picks: &[u8]) -> Result<(), TestCaseError> {
    let world = World::run(steps);
    let ops = world.deliveries();
    let expected = naive_bytes(&ops);
    if ops.is_empty() {
        return Ok(());
    }

    // A random order, in which each op comes up to a few times.
    let mut reducer = Reducer::<JsonCodec>::new();
    for pick in picks {
        let (place, op) = &ops[usize::from(*pick) % ops.len()];
        reducer.insert(*place, op.clone());
    }
    for (place, op) in ops.iter().rev() {
        reducer.insert(*place, op.clone());
    }
    prop_assert_eq!(reducer.len(), ops.len());
    prop_assert_eq!(&reducer.state().encode(), &expected);

    // The same through bytes, last op first.
    let mut state = State::default();
    for (place, op) in ops.iter().rev() {
        JsonCodec::apply_encoded(&mut state, place, &op.encode()).unwrap();
    }
    prop_assert_eq!(state.encode(), expected.clone());

    // Going on from a stored state is no different.
    let half = apply_all(ops.iter().step_by(2));
    let mut state = State::decode(&half.encode()).unwrap();
    prop_assert_eq!(&state, &half);
    for (place, op) in ops.iter().skip(1).step_by(2) {
        JsonCodec::apply(&mut state, place, op);
    }
    prop_assert_eq!(state.encode(), expected);

    // And it shows what the rules say, on any subset: no op needs another one to be there.
    prop_assert_eq!(
        render(&state, &definition()),
        oracle::shown(&world.ops, &definition())
    );
    let some: BTreeMap<_, _> = ops.iter().step_by(2).cloned().collect();
    prop_assert_eq!(
        render(&half, &definition()),
        oracle::shown(&some, &definition())
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn any_order_and_any_duplication_give_the_same_bytes(
        steps in steps(24),
        picks in proptest::collection::vec(any::<u8>(), 96),
    ) {
        check_any_order(&steps, &picks)?;
    }

    #[test]
    fn any_order_gives_the_same_bytes_with_lies_among_the_ops(
        steps in steps_with_lies(24),
        picks in proptest::collection::vec(any::<u8>(), 96),
    ) {
        check_any_order(&steps, &picks)?;
    }

    #[test]
    fn writers_who_have_seen_everything_agree(steps in steps(24), last in document()) {
        let mut world = World::run(&steps);
        for (to, from) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            world.sync(to, from);
        }
        let states: Vec<_> = world.writers.iter().map(|it| it.state.encode()).collect();
        prop_assert_eq!(&states[0], &states[1]);
        prop_assert_eq!(&states[0], &states[2]);
        // A put over everything is the last word of its registers.
        world.step(&Step::Put(2, last));
        let left = conflicts(&world.writers[2].state);
        let before = conflicts(&world.writers[0].state);
        prop_assert!(left.iter().all(|it| before.contains(it)), "a put makes no new conflict");
    }

    #[test]
    fn all_orders_of_five_random_ops_agree(steps in prop_oneof![steps(12), steps_with_lies(12)]) {
        let world = World::run(&steps);
        let mut ops = world.deliveries();
        ops.truncate(5);
        let expected = naive_bytes(&ops);
        let count = ops.len();
        each_order(&mut ops, count, &mut |order| {
            assert_eq!(apply_all(order).encode(), expected);
        });
    }
}

/// Seven ops of every kind by three writers, in all 5,040 orders:
///
/// ```text
/// alice   create(1) ------- save ------- delete(1) ---- create(2)
///             \           /
/// bob          save -----+
/// carol   create(1) ------------------------- save(1)
/// ```
#[test]
fn all_orders_of_seven_ops_agree() {
    let mut world = World::new();
    let (alice, bob, carol) = (0, 1, 2);
    let put = |title: &str, tags: Vec<Ipld>, plays: i64| {
        ipld!({
            "title": title,
            "tags": tags,
            "plays": plays,
            "verses": ["one", title, "two"],
            "best": plays,
            "meta": {"key": title, "uses": 1},
        })
    };
    world.step(&Step::Put(alice, put("Blue", vec!["folk".into()], 1)));
    world.sync(bob, alice);
    world.step(&Step::Put(bob, put("Blues", vec!["jazz".into()], 4)));
    world.step(&Step::Put(carol, put("Green", vec!["pop".into()], 2)));
    world.sync(alice, bob);
    world.step(&Step::Put(
        alice,
        put("Bluest", vec!["folk".into(), "jazz".into()], 6),
    ));
    world.step(&Step::Delete(alice));
    world.step(&Step::Put(carol, put("Greener", vec![], 9)));
    world.step(&Step::Put(alice, put("Red", vec!["rock".into()], 1)));

    let mut ops = world.deliveries();
    assert_eq!(ops.len(), 7);
    let expected = naive_bytes(&ops);
    let mut orders = 0;
    each_order(&mut ops, 7, &mut |order| {
        orders += 1;
        assert_eq!(apply_all(order).encode(), expected);
    });
    assert_eq!(orders, 5_040);
    let shown = render(&apply_all(&ops), &definition()).unwrap();
    assert_eq!(shown, put("Red", vec!["rock".into()], 1));
}

/// ```text
/// alice   create(1) - save A
/// bob     (sees the create)   - save B
/// ```
#[test]
fn concurrent_saves_keep_the_loser_until_it_is_overwritten() {
    let mut world = World::new();
    let (alice, bob) = (0, 1);
    world.step(&Step::Put(alice, ipld!({"title": "Blue"})));
    world.sync(bob, alice);
    world.step(&Step::Put(alice, ipld!({"title": "A"})));
    world.step(&Step::Put(bob, ipld!({"title": "B"})));
    world.sync(alice, bob);

    // Stamps are equal; the log id breaks the tie.
    assert_eq!(
        (ALICE < BOB, place(2, ALICE, 2) < place(2, BOB, 1)),
        (true, true)
    );
    let state = &world.writers[alice].state;
    assert_eq!(render(state, &definition()), Some(ipld!({"title": "B"})));
    let found = conflicts(state);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, ["title"]);
    assert_eq!(
        found[0].winner,
        (place(2, BOB, 1), Some("B".to_owned().into()))
    );
    assert_eq!(
        found[0].losers,
        [(place(2, ALICE, 2), Some("A".to_owned().into()))]
    );

    world.step(&Step::Put(alice, ipld!({"title": "C"})));
    let state = &world.writers[alice].state;
    assert_eq!(render(state, &definition()), Some(ipld!({"title": "C"})));
    assert_eq!(conflicts(state), []);
}

#[test]
fn concurrent_update_loses_to_the_delete() {
    let mut world = World::new();
    let (alice, bob) = (0, 1);
    world.step(&Step::Put(alice, ipld!({"title": "Blue"})));
    world.sync(bob, alice);
    world.step(&Step::Delete(alice));
    for title in ["Blues", "Bluest"] {
        world.step(&Step::Put(bob, ipld!({"title": title})));
    }
    world.sync(alice, bob);
    assert_eq!(render(&world.writers[alice].state, &definition()), None);
    assert_eq!(world.writers[alice].state.next_life(), 2);
}

#[test]
fn update_of_an_unknown_document_shows_once_its_create_is_known() {
    let mut world = World::new();
    world.step(&Step::Put(0, ipld!({"title": "Blue"})));
    world.step(&Step::Put(0, ipld!({"title": "Blues"})));
    let ops = world.deliveries();
    let mut state = apply_all(&ops[1..]);
    assert_eq!((render(&state, &definition()), state.life()), (None, None));
    JsonCodec::apply(&mut state, &ops[0].0, &ops[0].1);
    assert_eq!(
        render(&state, &definition()),
        Some(ipld!({"title": "Blues"}))
    );
}

#[test]
fn update_after_a_delete_revives_nothing() {
    let mut state = State::default();
    let create = Op::create(song(), 1, None, vec![]).unwrap();
    let delete = Op::delete(song(), 1).unwrap();
    state.apply(&place(1, ALICE, 1), &create);
    state.apply(&place(2, ALICE, 2), &delete);
    let gone = state.clone();
    state.apply(&place(3, BOB, 1), &create);
    assert_eq!(state, gone);
}

#[test]
fn creator_is_the_create_of_least_place() {
    let create = |nonce| Op::create(song(), 1, Some([nonce; 16]), vec![]).unwrap();
    let ops = [
        (place(5, ALICE, 1), create(1)),
        (place(4, BOB, 7), create(2)),
    ];
    for order in [[0, 1], [1, 0]] {
        let state = apply_all(order.map(|at| ops[at].clone()).iter());
        let creation = state.creation().unwrap();
        assert_eq!((creation.place, creation.nonce), (ops[1].0, Some([2; 16])));
        assert_eq!(state.creations().len(), 2);
    }
}

//! Ops that claim what their writer cannot know: what others will write, and lives that nobody
//! lived. Every order of delivery is tried.

use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{
    Action, Change, Edit, ElementId, Op, Position, State, Value, conflicts, diff, render,
};
use leno_crdt_codec::{Dot, LogId, Place};
use proptest::prelude::*;

use crate::showpiece::{apply_all, each_order};
use crate::world::{
    ALICE, BOB, CAROL, Delivery, Step, World, definition, document, place, song, steps,
    steps_with_lies,
};

/// All that ALICE and BOB will ever write.
fn everything() -> Vec<Dot> {
    [ALICE, BOB].map(|log| place(0, log, u64::MAX).dot).to_vec()
}

fn edit(path: &[&str], change: Change, seen: Vec<Dot>) -> Edit {
    let path = path.iter().map(|key| (*key).to_owned()).collect();
    Edit { path, change, seen }
}

fn update(at: Place, edits: Vec<Edit>) -> (Place, Op) {
    (at, Op::update(song(), 1, edits).unwrap())
}

fn create(at: Place) -> (Place, Op) {
    (at, Op::create(song(), 1, None, Vec::new()).unwrap())
}

/// Checks what all orders of delivery show, and that going on from bytes is no different.
fn check(mut ops: Delivery, expected: &Ipld) {
    let bytes = apply_all(&ops).encode();
    let count = ops.len();
    each_order(&mut ops, count, &mut |order| {
        let mut state = State::default();
        for (place, op) in order.iter().chain(order) {
            state.apply(place, op);
            state = State::decode(&state.encode()).unwrap();
        }
        assert_eq!(render(&state, &definition()).as_ref(), Some(expected));
        assert_eq!(state.encode(), bytes);
    });
}

fn position(byte: u8) -> Position {
    Position::new([byte]).unwrap()
}

/// ```text
/// alice   create(1) - title(2) ------------------------------ title(6)
/// carol              \\_ everything that alice ever writes(5)
/// ```
#[test]
fn a_claim_on_the_future_hides_no_register() {
    let set = |text| Change::Set(Value::text(text).unwrap());
    let ops = vec![
        create(place(1, ALICE, 1)),
        update(place(2, ALICE, 2), vec![edit(&["title"], set("a"), vec![])]),
        update(
            place(5, CAROL, 1),
            vec![edit(&["title"], Change::Unset, everything())],
        ),
        update(place(6, ALICE, 3), vec![edit(&["title"], set("b"), vec![])]),
    ];
    check(ops[..3].to_vec(), &ipld!({}));
    check(ops, &ipld!({"title": "b"}));
}

/// As above; BOB writes beside the lie, at its stamp and below, without having seen it.
#[test]
fn what_is_stamped_no_lower_than_a_claim_was_not_seen() {
    let set = |text| Change::Set(Value::text(text).unwrap());
    let ops = vec![
        create(place(1, ALICE, 1)),
        update(
            place(5, CAROL, 1),
            vec![edit(&["title"], set("lie"), everything())],
        ),
        update(place(4, BOB, 1), vec![edit(&["title"], set("4"), vec![])]),
        update(place(5, BOB, 2), vec![edit(&["title"], set("5"), vec![])]),
    ];
    // What was stamped before would have lost to the lie's own write anyhow.
    check(ops[..3].to_vec(), &ipld!({"title": "lie"}));
    check(ops.clone(), &ipld!({"title": "5"}));
    let found = conflicts(&apply_all(&ops));
    assert_eq!((found.len(), found[0].losers.len()), (1, 1));
}

#[test]
fn a_claim_on_the_future_removes_nothing_from_a_set() {
    let rock = || Value::text("rock").unwrap();
    let add = |at| update(at, vec![edit(&["tags"], Change::Add(rock()), vec![])]);
    let remove = edit(&["tags"], Change::Remove(rock()), everything());
    let untouch = edit(&["tags"], Change::Untouch, everything());
    let ops = vec![
        create(place(1, ALICE, 1)),
        add(place(2, ALICE, 2)),
        update(place(5, CAROL, 1), vec![remove, untouch]),
        add(place(6, BOB, 1)),
    ];
    check(ops[..3].to_vec(), &ipld!({}));
    check(ops, &ipld!({"tags": ["rock"]}));
}

#[test]
fn a_claim_on_the_future_makes_no_empty_list_absent() {
    let touch = |at| update(at, vec![edit(&["verses"], Change::Touch, vec![])]);
    let ops = vec![
        create(place(1, ALICE, 1)),
        touch(place(2, ALICE, 2)),
        update(
            place(5, CAROL, 1),
            vec![edit(&["verses"], Change::Untouch, everything())],
        ),
        touch(place(6, BOB, 1)),
    ];
    check(ops[..3].to_vec(), &ipld!({}));
    check(ops, &ipld!({"verses": []}));
}

/// Even if the liar guesses where an element will stand and which op will insert it.
#[test]
fn an_element_is_not_taken_before_it_is_inserted() {
    let inserted = place(6, ALICE, 2);
    let element = || ElementId {
        position: position(5),
        dot: inserted.dot,
    };
    let insert = Change::Insert {
        position: position(5),
        value: Value::int(1),
    };
    let replace = Change::Replace {
        element: element(),
        value: Value::int(2),
    };
    let seen_by_bob = vec![inserted.dot];
    let ops = vec![
        create(place(1, ALICE, 1)),
        update(
            place(5, CAROL, 1),
            vec![edit(
                &["verses"],
                Change::Take { element: element() },
                everything(),
            )],
        ),
        update(inserted, vec![edit(&["verses"], insert, vec![])]),
        update(
            place(7, BOB, 1),
            vec![edit(&["verses"], replace, seen_by_bob)],
        ),
    ];
    check(ops[..3].to_vec(), &ipld!({"verses": [1]}));
    check(ops, &ipld!({"verses": [2]}));
}

/// Of many claims those stay that say something of their own, whatever the order.
#[test]
fn claims_of_many_reaches_and_stamps_are_one_in_every_order() {
    let claim = |stamp, seq, reach| {
        let seen = vec![place(0, ALICE, reach).dot];
        let change = Change::Set(Value::int(stamp as i64));
        update(
            place(stamp, CAROL, seq),
            vec![edit(&["title"], change, seen)],
        )
    };
    let write = |stamp, seq| {
        let change = Change::Set(Value::int(-(stamp as i64)));
        update(
            place(stamp, ALICE, seq),
            vec![edit(&["title"], change, vec![])],
        )
    };
    // Nothing that CAROL claims is true: ALICE writes her dots 2, 4 and 6 at 12, 14 and 16.
    let ops = vec![
        create(place(1, BOB, 1)),
        claim(9, 1, 8),
        claim(10, 2, 4),
        claim(11, 3, 6),
        write(12, 2),
        claim(13, 4, 3),
        write(14, 4),
    ];
    check(ops, &ipld!({"title": (-14)}));
    // Her dot 4 is replaced by one who saw it, and a claim that reaches farther says nothing more.
    let ops = vec![
        create(place(1, BOB, 1)),
        write(12, 2),
        write(14, 4),
        claim(15, 1, 4),
        claim(16, 2, 9),
        claim(17, 3, 5),
    ];
    check(ops, &ipld!({"title": 17}));
}

/// A life that nobody can have come to is neither deleted nor created.
#[test]
fn lives_never_run_out() {
    for life in [8, u64::MAX - 1, u64::MAX] {
        let ops = vec![
            create(place(1, ALICE, 1)),
            (place(5, CAROL, 1), Op::delete(song(), life).unwrap()),
            (
                place(6, CAROL, 2),
                Op::create(song(), life, None, vec![]).unwrap(),
            ),
            (
                place(7, CAROL, 3),
                Op::update(song(), life, vec![edit(&["a"], Change::Touch, vec![])]).unwrap(),
            ),
        ];
        check(ops.clone(), &ipld!({}));
        assert_eq!(apply_all(&ops).life(), Some(1));
    }
    // The highest life that he can claim leaves room for the next record of anybody.
    let mut state = apply_all(&[create(place(1, ALICE, 1))]);
    state.apply(&place(5, CAROL, 1), &Op::delete(song(), 5).unwrap());
    assert_eq!((state.life(), state.next_life()), (None, 6));
    let again = Op::create(song(), state.next_life(), None, vec![]).unwrap();
    assert!(!again.is_ahead_of(place(6, ALICE, 2).stamp));
    state.apply(&place(6, ALICE, 2), &again);
    assert_eq!(state.life(), Some(6));
}

fn sync_all(world: &mut World) {
    for (to, from) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        world.sync(to, from);
    }
}

/// Tells whether the encoded fields hold claims.
fn has_claims(fields: &Ipld) -> bool {
    let Ipld::Map(fields) = fields else {
        return false;
    };
    let list = |value: &Ipld| match value {
        Ipld::List(items) => items.clone(),
        _ => Vec::new(),
    };
    let claims = |dots: &Ipld| {
        let last = list(dots).last().map(list).unwrap_or_default();
        matches!(last.first(), Some(Ipld::List(_)))
    };
    fields.values().any(|field| {
        let facets = list(field);
        facets.chunks(2).any(|facet| match &facet[0] {
            Ipld::Integer(0 | 7) => claims(&facet[1]),
            Ipld::Integer(4 | 6) => {
                let items = list(&facet[1]);
                items.iter().any(|it| claims(list(it).last().unwrap()))
            }
            Ipld::Integer(5) => has_claims(&facet[1]),
            _ => false,
        })
    })
}

fn state_has_claims(state: &State) -> bool {
    let Ipld::List(items) = leno_crdt_codec::cbor::decode_ipld(&state.encode()).unwrap() else {
        return false;
    };
    let Ipld::List(lives) = &items[3] else {
        return false;
    };
    let has = |life: &Ipld| matches!(life, Ipld::List(life) if has_claims(&life[2]));
    lives.iter().any(has)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever lies there are: a put by one who knows of them shows everywhere.
    #[test]
    fn the_last_word_is_heard(
        steps in steps_with_lies(24),
        who in 0..3_usize,
        last in document(),
    ) {
        let mut world = World::run(&steps);
        sync_all(&mut world);
        // `World::put` checks what shows to the writer himself.
        world.step(&Step::Put(who, last));
        let shown = render(&world.writers[who].state, &definition());
        prop_assert!(shown.is_some());
        sync_all(&mut world);
        sync_all(&mut world);
        for writer in &world.writers {
            prop_assert_eq!(&render(&writer.state, &definition()), &shown);
        }
    }

    /// Claims cost nothing where nobody lies: they are gone when all that is seen has come.
    #[test]
    fn what_honest_writers_know_holds_no_claims(steps in steps(24)) {
        let mut world = World::run(&steps);
        sync_all(&mut world);
        for writer in &world.writers {
            prop_assert!(!state_has_claims(&writer.state));
        }
    }
}

#[test]
fn a_lie_leaves_a_claim() {
    let lie = vec![edit(&["tags"], Change::Touch, everything())];
    let ops = [create(place(1, ALICE, 1)), update(place(5, CAROL, 1), lie)];
    assert!(state_has_claims(&apply_all(&ops)));
    assert!(!state_has_claims(&apply_all(&ops[..1])));
}

/// What is beyond the record of whoever claims it stays as long as it is not written.
#[test]
fn a_life_ends_its_claims() {
    let lie = vec![edit(&["tags"], Change::Touch, everything())];
    let delete = (place(6, BOB, 1), Op::delete(song(), 1).unwrap());
    assert_eq!(*delete.1.action(), Action::Delete);
    let ops = [
        create(place(1, ALICE, 1)),
        update(place(5, CAROL, 1), lie),
        delete,
    ];
    assert_eq!(apply_all(&ops).encode(), apply_all(&ops[2..]).encode());
}

/// A writer who diffs over claims names what shows, and nothing of what they claim.
#[test]
fn a_diff_names_no_claims() {
    let lie = vec![edit(&["title"], Change::Unset, everything())];
    let ops = [create(place(1, ALICE, 1)), update(place(5, CAROL, 1), lie)];
    let new = ipld!({"title": "a"});
    let own = LogId([7; 32]);
    let edits = diff(&apply_all(&ops), &definition(), &new, own, || [1; 4]).unwrap();
    assert_eq!(edits[0].seen, [place(5, CAROL, 1).dot]);
}

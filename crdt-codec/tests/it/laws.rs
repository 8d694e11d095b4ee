//! Laws of diffs, patches, positions and lists.

use std::collections::BTreeSet;

use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{
    Change, Definition, EDITS_MAX, Edit, Op, POSITION_BYTES_MAX, Position, PositionError, State,
    Strategy, Value, ValueError, between, conflicts, diff, overwrite, patch, render, render_field,
    run_between,
};
use leno_crdt_codec::{LogId, OpError};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{ALICE, BOB, Step, World, definition, document, place, scalar, song, steps};

/// Writes one document after the other by one log, and returns the state and its next seq.
fn written(documents: &[Ipld], definition: &Definition) -> (State, u64) {
    let mut state = State::default();
    for (seq, new) in (1..).zip(documents) {
        save(&mut state, definition, new, ALICE, seq);
    }
    (state, documents.len() as u64 + 1)
}

fn save(state: &mut State, definition: &Definition, new: &Ipld, log: LogId, seq: u64) -> Vec<Edit> {
    let unique = || (seq as u32).to_be_bytes();
    let edits = diff(state, definition, new, log, unique).unwrap();
    write(state, edits.clone(), log, seq);
    edits
}

fn write(state: &mut State, edits: Vec<Edit>, log: LogId, seq: u64) {
    let op = match state.life() {
        Some(life) => Op::update(song(), life, edits),
        None => Op::create(song(), state.next_life(), None, edits),
    };
    state.apply(&place(seq, log, seq), &op.unwrap());
}

fn list(items: &[Ipld]) -> Ipld {
    ipld!({"verses": items.to_vec()})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn diff_of_what_shows_is_empty(steps in steps(12)) {
        for writer in World::run(&steps).writers {
            if let Some(shown) = render(&writer.state, &definition()) {
                let edits = diff(&writer.state, &definition(), &shown, BOB, || [1; 4]);
                prop_assert_eq!(edits, Ok(vec![]));
            }
        }
    }

    #[test]
    fn diff_without_a_definition_takes_any_map(documents in vec(document(), 1..5)) {
        let (state, _) = written(&documents, &Definition::default());
        prop_assert_eq!(render(&state, &Definition::default()), documents.last().cloned());
    }

    #[test]
    fn lists_become_what_is_put(lists in vec(vec(scalar(), 0..12), 1..8)) {
        let mut state = State::default();
        for (seq, items) in (1..).zip(&lists) {
            save(&mut state, &definition(), &list(items), ALICE, seq);
            prop_assert_eq!(render(&state, &definition()), Some(list(items)));
        }
    }

    #[test]
    fn two_writers_of_one_list_converge_and_keep_their_runs(
        common in vec(0..9_i64, 0..6),
        at in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        runs in (1..6_i64, 1..6_i64),
    ) {
        let common: Vec<Ipld> = common.into_iter().map(Ipld::from).collect();
        let mut world = World::new();
        world.collide = false;
        world.step(&Step::Put(0, list(&common)));
        world.sync(1, 0);
        let run = |first: i64, count: i64| (first..first + count).map(Ipld::from);
        let insert = |at: &prop::sample::Index, items: Vec<Ipld>| {
            let (left, right) = common.split_at(at.index(common.len() + 1));
            list(&[left, &items, right].concat())
        };
        world.step(&Step::Put(0, insert(&at.0, run(100, runs.0).collect())));
        world.step(&Step::Put(1, insert(&at.1, run(200, runs.1).collect())));
        world.sync(0, 1);
        world.sync(1, 0);
        let [a, b] = [0, 1].map(|it| render(&world.writers[it].state, &definition()));
        prop_assert_eq!(&a, &b);
        let Some(Ipld::List(merged)) = render_field(&world.writers[0].state, &definition(), "verses")
        else {
            panic!("the list shows");
        };
        // Nobody's insertion is lost or torn apart, and what was common stays in order.
        prop_assert_eq!(merged.len(), common.len() + (runs.0 + runs.1) as usize);
        for (first, count) in [(100, runs.0), (200, runs.1)] {
            let run: Vec<_> = run(first, count).collect();
            prop_assert!(merged.windows(run.len()).any(|it| it == run), "{:?}", merged);
        }
        let is_common = |it: &Ipld| matches!(it, Ipld::Integer(it) if *it < 100);
        let rest: Vec<_> = merged.into_iter().filter(is_common).collect();
        prop_assert_eq!(rest, common);
    }

    #[test]
    fn inserted_positions_lie_between_and_never_collide(
        picks in vec((any::<prop::sample::Index>(), any::<[u8; 2]>(), 0..4_usize), 1..80),
    ) {
        let mut positions: Vec<Position> = Vec::new();
        for (at, unique, count) in picks {
            let at = at.index(positions.len() + 1);
            let left = at.checked_sub(1).map(|at| positions[at].clone());
            let right = positions.get(at).cloned();
            let new = match count {
                0 => vec![between(left.as_ref(), right.as_ref(), &unique).unwrap()],
                count => run_between(left.as_ref(), right.as_ref(), &unique, count).unwrap(),
            };
            positions.splice(at..at, new);
            prop_assert!(positions.is_sorted_by(|a, b| a < b), "{:?}", positions);
        }
    }

    #[test]
    fn hostile_positions_leave_room(
        a in vec(any::<u8>(), 0..12),
        b in vec(any::<u8>(), 0..12),
        near in vec(prop_oneof![Just(0_u8), Just(0x80), Just(0xff), Just(1)], 0..6),
        unique in any::<[u8; 4]>(),
    ) {
        let beside = [a.clone(), near].concat();
        for (a, b) in [(&a, &b), (&a, &beside), (&beside, &b)] {
            let (Ok(a), Ok(b)) = (Position::new(a.as_slice()), Position::new(b.as_slice())) else {
                continue;
            };
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            if low == high {
                let refused = between(Some(&low), Some(&high), &unique);
                prop_assert_eq!(refused, Err(PositionError::NotAscending));
                continue;
            }
            let middle = between(Some(&low), Some(&high), &unique).unwrap();
            prop_assert!(low < middle && middle < high);
            prop_assert!(between(None, Some(&low), &unique).unwrap() < low);
            prop_assert!(between(Some(&high), None, &unique).unwrap() > high);
            // Two writers at one place differ, and leave room between them.
            let other = between(Some(&low), Some(&high), &[unique[0] ^ 1, 7, 7, 7]).unwrap();
            prop_assert_ne!(&middle, &other);
            let (a, b) = (middle.clone().min(other.clone()), middle.max(other));
            let inner = between(Some(&a), Some(&b), &unique).unwrap();
            prop_assert!(a < inner && inner < b);
        }
    }
}

#[test]
fn counting_insertions_keep_positions_short() {
    let mut unique = 0_u32;
    let mut unique = || {
        unique = unique.wrapping_mul(0x9e37_79b9).wrapping_add(0x7f4a_7c15);
        unique.to_be_bytes()
    };
    let first = between(None, None, &unique()).unwrap();
    let last = between(Some(&first), None, &unique()).unwrap();
    let (mut end, mut start, mut typed) = (last.clone(), first.clone(), first.clone());
    for _ in 0..20_000 {
        end = between(Some(&end), None, &unique()).unwrap();
        start = between(None, Some(&start), &unique()).unwrap();
        typed = between(Some(&typed), Some(&last), &unique()).unwrap();
    }
    assert!(typed > first && typed < last);
    let lengths = [&end, &start, &typed].map(|it| it.as_bytes().len());
    assert!(lengths.iter().all(|it| *it <= 20), "{lengths:?}");
}

#[test]
fn a_list_without_room_is_rewritten() {
    // Two elements whose positions collide, as only a broken generator makes them.
    let position = Position::new([5]).unwrap();
    let insert = |log, value| {
        let value = Value::int(value);
        let position = position.clone();
        let edit = Edit::new("verses", Change::Insert { position, value });
        (place(2, log, 2), Op::update(song(), 1, vec![edit]).unwrap())
    };
    let (mut state, _) = written(&[list(&[])], &definition());
    for (place, op) in [insert(BOB, 2), insert(ALICE, 1)] {
        state.apply(&place, &op);
    }
    assert_eq!(
        render(&state, &definition()),
        Some(list(&[1.into(), 2.into()]))
    );
    let new = list(&[1.into(), 7.into(), 2.into()]);
    let edits = save(&mut state, &definition(), &new, ALICE, 3);
    assert_eq!(render(&state, &definition()), Some(new));
    assert_eq!(
        edits
            .iter()
            .filter(|it| matches!(it.change, Change::Take { .. }))
            .count(),
        2
    );
}

#[test]
fn long_positions_are_refused_by_name() {
    let long = Position::new([vec![1; POSITION_BYTES_MAX - 1], vec![1]].concat()).unwrap();
    let longer = Position::new([vec![1; POSITION_BYTES_MAX - 1], vec![2]].concat()).unwrap();
    let refused = between(Some(&long), Some(&longer), &[1; 4]);
    assert_eq!(
        refused,
        Err(PositionError::TooLong {
            bytes: POSITION_BYTES_MAX + 6
        })
    );
    assert_eq!(Position::new([1, 0]), Err(PositionError::Invalid));
    assert_eq!(Position::new([]), Err(PositionError::Invalid));
}

#[test]
fn small_changes_of_a_list_are_small_edits() {
    let items: Vec<Ipld> = (0..100_i64).map(Ipld::from).collect();
    let (mut state, seq) = written(&[list(&items)], &definition());
    let mut new = items.clone();
    new.insert(50, "x".to_owned().into());
    new.remove(10);
    new[90] = "y".to_owned().into();
    let edits = save(&mut state, &definition(), &list(&new), ALICE, seq);
    assert_eq!(edits.len(), 3, "{edits:?}");
    assert_eq!(render(&state, &definition()), Some(list(&new)));
}

#[test]
fn an_edit_names_what_it_replaces_of_other_logs_only() {
    let (mut state, _) = written(&[ipld!({"title": "A", "tags": ["x"]})], &definition());
    save(
        &mut state,
        &definition(),
        &ipld!({"title": "B", "tags": ["x"]}),
        BOB,
        2,
    );
    let edits = save(&mut state, &definition(), &ipld!({"title": "C"}), ALICE, 3);
    let seen: Vec<_> = edits
        .iter()
        .map(|it| (it.path[0].as_str(), it.seen.clone()))
        .collect();
    assert_eq!(
        seen,
        [("title", vec![place(2, BOB, 2).dot]), ("tags", vec![])]
    );
    let edits = save(&mut state, &definition(), &ipld!({"title": "D"}), ALICE, 4);
    assert_eq!(edits[0].seen, []);
}

#[test]
fn overwrite_ends_a_conflict() {
    let mut state = State::default();
    save(&mut state, &definition(), &ipld!({"title": "A"}), ALICE, 1);
    let concurrent = Op::create(song(), 1, None, vec![set("title", "B")]).unwrap();
    state.apply(&place(1, BOB, 1), &concurrent);
    assert_eq!(conflicts(&state).len(), 1);
    let edit = overwrite(&state, &["title"], Some(&"B".to_owned().into()), ALICE).unwrap();
    write(&mut state, vec![edit], ALICE, 2);
    assert_eq!(conflicts(&state), []);
    assert_eq!(render(&state, &definition()), Some(ipld!({"title": "B"})));
}

fn set(field: &str, text: &str) -> Edit {
    Edit::new(field, Change::Set(Value::text(text).unwrap()))
}

#[test]
fn patch_merges_as_rfc_7396_says() {
    let old =
        ipld!({"title": "A", "year": 1971, "info": {"a": 1, "b": {"c": 2, "d": 3}}, "plays": 2});
    let (mut state, seq) = written(&[old], &definition());
    let partial = ipld!({"title": null, "info": {"b": {"c": null}, "e": [1, null]}, "plays": 5});
    let edits = patch(&state, &definition(), &partial, BOB, || [1; 4]).unwrap();
    assert_eq!(edits.len(), 3);
    write(&mut state, edits, BOB, seq);
    let merged = ipld!({"year": 1971, "info": {"a": 1, "b": {"d": 3}, "e": [1, null]}, "plays": 5});
    assert_eq!(render(&state, &definition()), Some(merged));
}

#[test]
fn values_that_a_strategy_does_not_take_are_refused_by_path() {
    let refused = |new: Ipld| diff(&State::default(), &definition(), &new, ALICE, || [1; 4]);
    let check = |new: Ipld, path: &[&str], expected| {
        let path = path.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(refused(new), Err(ValueError::Expected { path, expected }));
    };
    check(ipld!([1]), &[], "a map");
    check(ipld!({"plays": "x"}), &["plays"], "an integer within i64");
    check(
        ipld!({"plays": (u64::MAX)}),
        &["plays"],
        "an integer within i64",
    );
    check(ipld!({"tags": "x"}), &["tags"], "a list");
    check(ipld!({"verses": {}}), &["verses"], "a list");
    check(ipld!({"best": "x"}), &["best"], "a number");
    check(ipld!({"meta": [1]}), &["meta"], "a map");
    check(
        ipld!({"meta": {"inner": {"x": 1}}}),
        &["meta", "inner", "x"],
        "a list",
    );
}

#[test]
fn counters_add_up_beyond_i64_and_are_clamped_when_read() {
    let add = |by| vec![Edit::new("plays", Change::Increment(by))];
    let (mut state, _) = written(&[ipld!({})], &definition());
    for seq in 2..5 {
        write(&mut state, add(i64::MAX), ALICE, seq);
    }
    let plays = |state: &State| render_field(state, &definition(), "plays");
    assert_eq!(plays(&state), Some(i64::MAX.into()));
    assert_eq!(State::decode(&state.encode()), Ok(state.clone()));
    for seq in 5..8 {
        write(&mut state, add(-i64::MAX), ALICE, seq);
    }
    assert_eq!(plays(&state), Some(0.into()));
}

#[test]
fn an_op_within_bounds_is_made_and_another_is_refused() {
    let fields = |count: usize| (0..count).map(|at| set(&at.to_string(), "x")).collect();
    let largest = Op::update(song(), 1, fields(EDITS_MAX)).unwrap();
    assert_eq!(Op::decode(&largest.encode()), Ok(largest));
    let check = |edits: Vec<Edit>, expected: fn(&ValueError) -> bool| {
        let error = Op::update(song(), 1, edits).unwrap_err();
        assert!(expected(&error), "{error:?}");
    };
    check(fields(EDITS_MAX + 1), |it| {
        matches!(it, ValueError::Count { what: "edits", .. })
    });
    check(vec![set("a", "x"), set("a", "y")], |it| {
        matches!(it, ValueError::Duplicate { .. })
    });
    let at = |path: &[&str], change| Edit {
        path: path.iter().map(|it| (*it).to_owned()).collect(),
        change,
        seen: vec![],
    };
    check(vec![at(&[], Change::Touch)], |it| {
        matches!(it, ValueError::Count { count: 0, .. })
    });
    check(vec![at(&["a"; 9], Change::Touch)], |it| {
        matches!(it, ValueError::Count { count: 9, .. })
    });
    let mut seen = at(&["a"], Change::Increment(1));
    seen.seen = vec![place(1, BOB, 1).dot];
    check(vec![seen.clone()], |it| {
        matches!(it, ValueError::Seen { .. })
    });
    seen.change = Change::Touch;
    seen.seen = vec![place(1, BOB, 1).dot, place(1, BOB, 2).dot];
    check(vec![seen], |it| matches!(it, ValueError::Seen { .. }));
    let text = Value::text("x").unwrap();
    check(vec![at(&["a"], Change::Max(text))], |it| {
        matches!(it, ValueError::Expected { .. })
    });
    let deep = (0..31).fold(Ipld::Null, |inner, _| Ipld::List(vec![inner]));
    let deep = Change::Set(Value::new(&deep).unwrap());
    assert!(Op::update(song(), 1, vec![at(&["a"], deep.clone())]).is_ok());
    check(vec![at(&["a", "b"], deep)], |it| *it == ValueError::TooDeep);
    let long = "x".repeat(200_000);
    let long = ["a", "b", "c"].map(|field| set(field, &long)).to_vec();
    check(long, |it| matches!(it, ValueError::TooLarge { .. }));
    assert_eq!(Op::delete(song(), 0), Err(ValueError::Life));
}

#[test]
fn a_plain_update_costs_two_bytes_beyond_its_parts() {
    let edits = vec![set("title", "Blue"), set("by", "Joni")];
    let op = Op::update(song(), 1, edits).unwrap().encode();
    let parts = song().encode().len()
        + leno_crdt_codec::cbor::encode_ipld(&ipld!({"title": "Blue", "by": "Joni"})).len();
    assert_eq!(op.len(), parts + 2);
}

#[test]
fn an_op_of_a_later_version_names_its_document() {
    // [9, "song", anything]
    let later = [&[0x83, 9][..], &song().encode(), &[0xff]].concat();
    assert_eq!(Op::decode(&later), Err(OpError::Unknown { kind: 9 }));
    // [3, "song", 1, [["a", 12]]]
    let change = [&[0x84, 3][..], &song().encode(), b"\x01\x81\x82\x61a\x0c"].concat();
    assert_eq!(Op::decode(&change), Err(OpError::Unknown { kind: 12 }));
    let mut state = State::default();
    let place = place(1, ALICE, 1);
    assert_eq!(
        state.apply_encoded(&place, &later),
        Err(OpError::Unknown { kind: 9 })
    );
    assert_eq!(state, State::default());
}

#[test]
fn undeclared_fields_show_whatever_they_have() {
    let new = ipld!({
        "plays": 3, "fans": ["a"], "tags": ["b"], "verses": ["c"], "best": 9, "worst": 1,
        "meta": {"key": "d", "inner": {"x": [1]}},
    });
    let (mut state, seq) = written(std::slice::from_ref(&new), &definition());
    let plain = Definition::default();
    assert_eq!(render(&state, &plain), Some(new));
    // What can be removed is.
    save(&mut state, &plain, &ipld!({}), BOB, seq);
    let left = ipld!({"plays": 3, "best": 9, "worst": 1});
    assert_eq!(render(&state, &plain), Some(left));
}

#[test]
fn null_removes_unless_it_is_a_value() {
    let new = ipld!({"title": "A", "note": "B", "tags": ["x"], "verses": [], "meta": {"key": 1}});
    let (mut state, seq) = written(&[new], &definition());
    let nulls = ipld!({"title": null, "note": null, "tags": null, "verses": null, "meta": null});
    save(&mut state, &definition(), &nulls, BOB, seq);
    assert_eq!(
        render(&state, &definition()),
        Some(ipld!({"title": null, "note": null}))
    );
}

#[test]
fn strategies_are_distinct_in_bytes() {
    let all = [
        Strategy::Register,
        Strategy::Counter,
        Strategy::GrowSet,
        Strategy::Set,
        Strategy::Map(Definition::default()),
        Strategy::List,
        Strategy::Max,
        Strategy::Min,
    ];
    let bytes: BTreeSet<_> = all
        .into_iter()
        .map(|it| Definition::default().other(it).encode())
        .collect();
    assert_eq!(bytes.len(), 8);
}

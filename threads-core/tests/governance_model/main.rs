//! The rules of governance, modelled before they are coded: whatever members do at once, there is one
//! answer, and it is one that people can live with. The rules stand in `rules.rs`, why they are so in
//! `docs/decisions/0014-governance-rules.md`.
//!
//! `LENO_LONG=1` looks at larger histories, and at more of them.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a model, in which everything may panic"
)]

mod every;
mod history;
mod production;
mod random;
mod rules;
mod scenarios;
mod wrong;

use every::{Seen, Size, check_every, walk};
use history::Act;
use rules::Rules;

fn is_long() -> bool {
    std::env::var("LENO_LONG").is_ok_and(|it| it == "1")
}

fn assert_is_no_empty_walk(seen: &Seen) {
    let counts = [
        seen.barred,
        seen.accepted,
        seen.granted_again,
        seen.overruled,
        seen.ambiguous,
    ];
    assert!(counts.iter().all(|it| *it > 0), "{seen:?}");
}

/// An owner, two admins and two writers; all that is done, seen and accepted.
#[test]
fn every_history_has_one_answer() {
    let mut sizes = vec![(3, 2, false)];
    if is_long() {
        sizes.push((4, 0, false));
    }
    check_sizes(sizes);
}

/// As before, and each member may write two branches of a log.
#[test]
fn every_history_with_forks_has_one_answer() {
    let mut sizes = vec![(3, 0, true), (2, 3, true)];
    if is_long() {
        sizes.push((3, 2, true));
    }
    let seen = check_sizes(sizes);
    assert!(seen.settled > 0 && seen.put_aside > 0, "{seen:?}");
}

fn check_sizes(sizes: Vec<(usize, usize, bool)>) -> Seen {
    let mut all = Seen::default();
    for (governance, writes, forks) in sizes {
        let seen = check_every(Size {
            governance,
            writes,
            forks,
        });
        let of = if forks { " with forks" } else { "" };
        println!("up to {governance} control records and {writes} data records{of}: {seen:?}");
        assert_is_no_empty_walk(&seen);
        all += seen;
    }
    all
}

/// The product gives the answer of the model, op by op and whatever comes first.
#[test]
fn product_follows_the_model() {
    let mut sizes = vec![(3, 0), (2, 2)];
    if is_long() {
        sizes.extend([(3, 2), (4, 0)]);
    }
    for (governance, writes) in sizes {
        let seen = production::compare_every(Size {
            governance,
            writes,
            forks: false,
        });
        println!("up to {governance} control records and {writes} data records: {seen:?}");
        assert!(seen.is_no_empty_walk(), "{seen:?}");
    }
    let count = if is_long() { 1_000_000 } else { 20_000 };
    let mut seen = production::Compared::default();
    for seed in 0..count {
        let size = Size {
            governance: 6,
            writes: 4,
            forks: false,
        };
        let history = random::history(seed, size);
        seen += production::compare(&history, &Rules::of(&history).evaluate(), Some(seed));
    }
    println!("{count} at random: {seen:?}");
    assert!(seen.is_no_empty_walk(), "{seen:?}");
}

#[test]
fn large_histories_have_one_answer() {
    let count = if is_long() { 1_000_000 } else { 10_000 };
    let mut seen = Seen::default();
    for seed in 0..count {
        let size = Size {
            governance: 6,
            writes: 4,
            forks: seed % 2 == 1,
        };
        seen += random::check_one(seed, size);
    }
    println!("{count} at random: {seen:?}");
    assert_is_no_empty_walk(&seen);
}

/// The model tells a wrong way to judge from a right one.
#[test]
fn judging_at_arrival_and_by_person_are_rejected() {
    let (mut by_order, mut by_person) = (Vec::new(), Vec::new());
    let size = Size {
        governance: 2,
        writes: 0,
        forks: false,
    };
    walk(size, (0, 1), |history, _| {
        if wrong::orders_differ(history) {
            by_order.push(history.clone());
        }
        let leaves = history.events.iter().any(|it| it.act == Act::Leave);
        if !leaves && wrong::by_person(history) != 1 {
            by_person.push(history.clone());
        }
        Rules::of(history).evaluate()
    });
    println!(
        "by arrival, {} histories: {:?}",
        by_order.len(),
        by_order.first()
    );
    println!(
        "by person, {} histories: {:?}",
        by_person.len(),
        by_person.first()
    );
    assert!(!by_order.is_empty() && !by_person.is_empty());
}

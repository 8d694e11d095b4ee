//! What people do, drawn, and what it comes to.

use crate::history::{ANN, Acceptance, Act, BEN, History, OLGA, Person, Role, WILL, XENA};
use crate::rules::{Outcome, Rules};

const NOTHING: Acceptance = Acceptance {
    control: 0,
    data: 0,
};

fn remove(whom: Person) -> Act {
    let accepts = NOTHING;
    Act::Remove { whom, accepts }
}

fn remove_accepting(whom: Person, data: u8) -> Act {
    let accepts = Acceptance { control: 0, data };
    Act::Remove { whom, accepts }
}

fn grant(to: Person, role: Role) -> Act {
    let accepts = NOTHING;
    Act::Grant { to, role, accepts }
}

fn outcome(history: &History) -> Outcome {
    let outcome = Rules::of(history).evaluate();
    crate::every::check_solution(history, &outcome);
    outcome
}

/// ```text
/// Olga:  grant Will admin
/// Ann:   remove Will
/// ```
/// Ann outranks the writer that Will was, not the admin that he became.
#[test]
fn power_belongs_to_grants() {
    let mut history = History::default();
    history.add(OLGA, &[], grant(WILL, Role::Admin));
    let removal = history.add(ANN, &[], remove(WILL));
    let outcome = outcome(&history);
    assert!(outcome.stands(removal));
    assert_eq!(outcome.role(WILL), Some(Role::Admin));
}

/// ```text
/// Ann:  remove Will, accepting 1 ─┐
/// Will: w1 ───────────────────────┘ w2   w3 (having seen the removal)
/// Ben:  remove Will, accepting nothing
/// ```
#[test]
fn highest_acceptance_of_equals_counts() {
    let mut history = History::default();
    let first = history.add(WILL, &[], Act::Write);
    let removal = history.add(ANN, &[first], remove_accepting(WILL, 1));
    history.add(BEN, &[], remove(WILL));
    let second = history.add(WILL, &[first], Act::Write);
    let third = history.add(WILL, &[second, removal], Act::Write);
    let outcome = outcome(&history);
    let stand = [first, second, third].map(|it| outcome.stands(it));
    assert_eq!(stand, [true, false, false]);
}

/// ```text
/// Ben:  remove Xena
/// Olga: remove Ben, accepting nothing
/// ```
/// The denial of a removed admin falls with what was not accepted of him, and stands if it was.
#[test]
fn denial_ends_by_a_higher_rank() {
    for control in [0, 1] {
        let mut history = History::default();
        let denial = history.add(BEN, &[], remove(XENA));
        let whom = BEN;
        let accepts = Acceptance { control, data: 0 };
        history.add(OLGA, &[denial], Act::Remove { whom, accepts });
        let outcome = outcome(&history);
        assert_eq!(outcome.stands(denial), control == 1);
        assert_eq!(outcome.role(XENA).is_none(), control == 1);
    }
}

/// ```text
/// Olga: remove Will ──> grant Will reader
/// Ann:  grant Will writer (having seen the removal)
/// ```
/// A colluding admin does not undo what an owner did, neither in advance nor afterwards.
#[test]
fn removal_by_an_owner_is_undone_by_owners() {
    for has_seen in [false, true] {
        let mut history = History::default();
        let removal = history.add(OLGA, &[], remove(WILL));
        let past: &[usize] = if has_seen { &[removal] } else { &[] };
        history.add(ANN, past, grant(WILL, Role::Writer));
        assert_eq!(outcome(&history).role(WILL), None);
        history.add(OLGA, &[removal], grant(WILL, Role::Reader));
        assert_eq!(outcome(&history).role(WILL), Some(Role::Reader));
    }
}

/// ```text
/// Olga: grant Will reader ──┐
/// Ann:                      └─ grant Will writer
/// Ben:  grant Will reader
/// ```
/// Whom nobody removed keeps a role: Olga's grant was replaced, so it ends Ben's no more.
#[test]
fn nobody_is_left_without_a_role_by_grants() {
    let mut history = History::default();
    let replaced = history.add(OLGA, &[], grant(WILL, Role::Reader));
    history.add(ANN, &[replaced], grant(WILL, Role::Writer));
    history.add(BEN, &[], grant(WILL, Role::Reader));
    assert_eq!(outcome(&history).role(WILL), Some(Role::Reader));
}

/// ```text
/// Olga: grant Will admin
/// Will: w1
/// ```
/// Who gets more keeps what he wrote meanwhile.
#[test]
fn promotion_bars_from_nothing_that_it_permits() {
    let mut history = History::default();
    history.add(OLGA, &[], grant(WILL, Role::Admin));
    let write = history.add(WILL, &[], Act::Write);
    assert!(outcome(&history).stands(write));
}

/// ```text
/// Olga: grant Ann owner ─┬─ leave
/// Ann:                   └─ leave
/// ```
/// The most senior owner stays, and goes once there is another one.
#[test]
fn last_owner_stays_until_there_is_another() {
    let mut history = History::default();
    let made = history.add(OLGA, &[], grant(ANN, Role::Owner));
    let olgas = history.add(OLGA, &[made], Act::Leave);
    let anns = history.add(ANN, &[made], Act::Leave);
    let it = outcome(&history);
    assert_eq!((it.role(OLGA), it.role(ANN)), (Some(Role::Owner), None));
    let next = history.add(OLGA, &[olgas, anns], grant(BEN, Role::Owner));
    let it = outcome(&history);
    assert!(it.stands(next));
    assert_eq!((it.role(OLGA), it.role(BEN)), (None, Some(Role::Owner)));
}

/// ```text
/// Ann: remove Ben      Ben: remove Ann
/// ```
/// Admins do not remove each other; owners do, the senior one.
#[test]
fn of_two_owners_who_remove_each_other_the_senior_stays() {
    let mut history = History::default();
    history.add(ANN, &[], remove(BEN));
    history.add(BEN, &[], remove(ANN));
    let it = outcome(&history);
    assert_eq!(
        (it.role(ANN), it.role(BEN)),
        (Some(Role::Admin), Some(Role::Admin))
    );
    let first = history.add(OLGA, &[], grant(ANN, Role::Owner));
    let second = history.add(OLGA, &[first], grant(BEN, Role::Owner));
    history.add(ANN, &[second], remove(BEN));
    history.add(BEN, &[second], remove(ANN));
    let it = outcome(&history);
    assert_eq!((it.role(ANN), it.role(BEN)), (Some(Role::Owner), None));
}

//! What people do, drawn, and what it comes to.

use crate::history::{ANN, Acceptance, Act, BEN, History, OLGA, Person, Role, WILL, XENA};
use crate::rules::{Outcome, Rules};

const NOTHING: Acceptance = Acceptance {
    control: None,
    data: None,
};

fn remove(whom: Person) -> Act {
    let accepts = NOTHING;
    Act::Remove { whom, accepts }
}

fn up_to(data: usize) -> Acceptance {
    let (control, data) = (None, Some(data));
    Acceptance { control, data }
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
    let (whom, accepts) = (WILL, up_to(first));
    let removal = history.add(ANN, &[first], Act::Remove { whom, accepts });
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
    for is_accepted in [false, true] {
        let mut history = History::default();
        let denial = history.add(BEN, &[], remove(XENA));
        let (whom, data) = (BEN, None);
        let control = is_accepted.then_some(denial);
        let accepts = Acceptance { control, data };
        history.add(OLGA, &[denial], Act::Remove { whom, accepts });
        let outcome = outcome(&history);
        assert_eq!(outcome.stands(denial), is_accepted);
        assert_eq!(outcome.role(XENA).is_none(), is_accepted);
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

/// Two branches of Will's data log: w1, w2, w3, and x2, which follows w1 too.
fn forked() -> (History, [usize; 4]) {
    let mut history = History::default();
    let first = history.add(WILL, &[], Act::Write);
    let second = history.add(WILL, &[first], Act::Write);
    let third = history.add(WILL, &[second], Act::Write);
    let other = history.add(WILL, &[first], Act::Write);
    (history, [first, second, third, other])
}

/// ```text
/// Will: w1 ─┬─ w2 ─── w3
///           └─ x2                 (the same log, another branch)
/// Ann:  accepts up to w2, or nothing      Xena: shows the fork
/// ```
/// A fork erases nothing that was accepted, and nobody who forks chooses the branch.
#[test]
fn fork_stands_up_to_where_it_was_accepted() {
    for is_accepted in [false, true] {
        let (mut history, all) = forked();
        let [_, second, ..] = all;
        let stand = |history: &History| {
            let outcome = outcome(history);
            all.map(|it| outcome.stands(it))
        };
        assert_eq!(stand(&history), [true; 4], "nobody has shown it");
        if is_accepted {
            let (whom, accepts) = (WILL, up_to(second));
            history.add(ANN, &[second], Act::Readmit { whom, accepts });
        }
        let (of, is_control) = (WILL, false);
        history.add(XENA, &all, Act::Prove { of, is_control });
        assert_eq!(stand(&history), [true, is_accepted, false, false]);
    }
}

/// ```text
/// Will: w1 ─┬─ w2 ─── w3      Ann accepts up to w3, Ben up to x2, Olga up to w2
///           └─ x2
/// ```
/// Equals who accepted two branches leave what they have in common; an owner settles it.
#[test]
fn branch_is_settled_by_the_most_senior() {
    let (mut history, all) = forked();
    let [_, second, third, other] = all;
    let (of, is_control, whom) = (WILL, false, WILL);
    history.add(XENA, &all, Act::Prove { of, is_control });
    for (author, last) in [(ANN, third), (BEN, other)] {
        let accepts = up_to(last);
        history.add(author, &[last], Act::Readmit { whom, accepts });
    }
    let it = outcome(&history);
    assert_eq!(
        all.map(|event| it.stands(event)),
        [true, false, false, false]
    );
    let accepts = up_to(second);
    history.add(OLGA, &[second], Act::Readmit { whom, accepts });
    let it = outcome(&history);
    assert_eq!(all.map(|event| it.stands(event)), [true, true, true, false]);
}

/// ```text
/// Ann: grant Xena reader ─┐
/// Ann: remove Will        │ (two branches of her control log)
/// Ben: shows the fork ────┘
/// ```
/// What an admin did on either branch falls unless an owner accepted it; an admin's word does not help.
#[test]
fn fork_of_an_admin_is_for_owners_to_settle() {
    for (by, stands) in [(BEN, false), (OLGA, true)] {
        let mut history = History::default();
        let granted = history.add(ANN, &[], grant(XENA, Role::Reader));
        let removed = history.add(ANN, &[], remove(WILL));
        let (of, is_control) = (ANN, true);
        history.add(BEN, &[granted, removed], Act::Prove { of, is_control });
        let (control, data) = (Some(removed), None);
        let accepts = Acceptance { control, data };
        history.add(by, &[removed], Act::Readmit { whom: ANN, accepts });
        let it = outcome(&history);
        assert_eq!((it.stands(granted), it.stands(removed)), (false, stands));
        assert_eq!(it.role(XENA), Some(Role::Writer));
        assert_eq!(it.role(WILL).is_none(), stands);
    }
}

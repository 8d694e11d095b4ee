//! Every history of a size, but for those that another one is the mirror of.

use std::ops::AddAssign;

use crate::history::{ANN, Acceptance, Act, BEN, History, Person, Role, Set, WILL, XENA, people};
use crate::rules::{Outcome, Rules};

/// How large histories are.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) governance: usize,
    pub(crate) writes: usize,
    /// Whether members may write two branches of a log.
    pub(crate) forks: bool,
}

/// What was seen, so that nobody takes a walk past nothing for a proof.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) histories: u64,
    /// Events that somebody bars and that do not stand, and those that stand by an acceptance.
    pub(crate) barred: u64,
    pub(crate) accepted: u64,
    /// Removals that were undone, by a new grant and by an event of higher rank.
    pub(crate) granted_again: u64,
    pub(crate) overruled: u64,
    /// Histories with more than one candidate for an event.
    pub(crate) ambiguous: u64,
    /// Events of a log that was just shown to be forked, on the branch that is settled, and put aside.
    pub(crate) settled: u64,
    pub(crate) put_aside: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.barred += other.barred;
        self.accepted += other.accepted;
        self.granted_again += other.granted_again;
        self.overruled += other.overruled;
        self.ambiguous += other.ambiguous;
        self.settled += other.settled;
        self.put_aside += other.put_aside;
    }
}

/// Checks every history of up to this size, on several threads.
pub(crate) fn check_every(size: Size) -> Seen {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let shares = (0..threads).map(|share| {
            scope.spawn(move || {
                let mut seen = Seen::default();
                walk(size, (share, threads), |history, before| {
                    let (outcome, of_this) = check(history, before);
                    seen += of_this;
                    outcome
                });
                seen
            })
        });
        let shares: Vec<_> = shares.collect();
        let mut seen = Seen::default();
        for share in shares {
            seen += share.join().unwrap();
        }
        seen
    })
}

/// Shows every history of a share of those up to this size, with what it came to without its last event.
pub(crate) fn walk(
    size: Size,
    share: (usize, usize),
    visit: impl FnMut(&History, &Outcome) -> Outcome,
) {
    let history = History::default();
    let before = Rules::of(&history).evaluate();
    let mut walk = Walk {
        size,
        history,
        visit,
        share,
        turn: 0,
    };
    walk.go(&before);
}

struct Walk<F> {
    size: Size,
    history: History,
    visit: F,
    /// Which share of the histories of two events this walk goes on with, and of how many.
    share: (usize, usize),
    turn: usize,
}

impl<F: FnMut(&History, &Outcome) -> Outcome> Walk<F> {
    fn go(&mut self, before: &Outcome) {
        let length = self.history.events.len();
        if length == 2 {
            self.turn += 1;
            if self.turn % self.share.1 != self.share.0 {
                return;
            }
        }
        for author in people() {
            for past in pasts(&self.history, author, self.size.forks) {
                for act in self.acts(author, past) {
                    self.history.push(author, past, act);
                    if self.is_wanted() {
                        // What is short is on the way of each share, and belongs to the first.
                        let is_own = length >= 2 || self.share.0 == 0;
                        let outcome = match is_own {
                            true => (self.visit)(&self.history, before),
                            false => Rules::of(&self.history).evaluate(),
                        };
                        self.go(&outcome);
                    }
                    self.history.events.pop();
                }
            }
        }
    }

    /// What somebody may try; what no grant in its past permits stands in no history.
    fn acts(&self, author: Person, past: Set) -> Vec<Act> {
        let events = &self.history.events;
        let governance = events.iter().filter(|it| it.act.is_control()).count();
        let mut acts = Vec::new();
        if events.len() - governance < self.size.writes {
            acts.push(Act::Write);
        }
        if governance < self.size.governance {
            acts.push(Act::Leave);
            for to in people().filter(|it| *it != author) {
                let accepted = |is_control| {
                    let log = self.history.log(to, is_control, past);
                    std::iter::once(None).chain(log.into_iter().map(Some))
                };
                for accepts in accepted(true).flat_map(|control| {
                    accepted(false).map(move |data| Acceptance { control, data })
                }) {
                    acts.push(Act::Remove { whom: to, accepts });
                    acts.push(Act::Readmit { whom: to, accepts });
                }
                let all = Acceptance {
                    control: accepted(true).last().flatten(),
                    data: accepted(false).last().flatten(),
                };
                for role in [Role::Owner, Role::Admin, Role::Writer, Role::Reader] {
                    for accepts in [Acceptance::default(), all] {
                        acts.push(Act::Grant { to, role, accepts });
                    }
                }
            }
            for of in people() {
                for is_control in [false, true] {
                    if self.history.forked_behind(of, is_control, past).is_some() {
                        acts.push(Act::Prove { of, is_control });
                    }
                }
            }
        }
        let grants: Vec<_> = self.history.grants().collect();
        acts.retain(|act| {
            let mut own = grants.iter().filter(|it| it.to == author);
            let is_void =
                matches!(act, Act::Readmit { accepts, .. } if *accepts == Acceptance::default());
            !is_void
                && own.any(|it| it.by.is_none_or(|by| past.contains(by)) && it.role.permits(*act))
                && self.writes_matter(author, past, *act)
        });
        acts.dedup();
        acts
    }

    /// Whether each write that is seen here first is accepted here, and all writes are by one author: to see
    /// one changes nothing else, and logs of two authors are judged apart.
    fn writes_matter(&self, author: Person, past: Set, act: Act) -> bool {
        let events = &self.history.events;
        let mut writes = events.iter().filter(|it| !it.act.is_control());
        if act == Act::Write && writes.any(|it| it.author != author) {
            return false;
        }
        let mut known = Set::default();
        for (number, event) in events.iter().enumerate() {
            if past.contains(number) && event.act.is_control() {
                known.0 |= event.past.0;
            }
        }
        events.iter().enumerate().all(|(number, it)| {
            let is_news = past.contains(number) && !known.contains(number);
            let is_proof = matches!(act, Act::Prove { of, .. } if of == it.author);
            let matters = is_proof || it.author == author || self.history.accepts(act, number);
            it.act.is_control() || !is_news || matters
        })
    }

    /// Whether no mirror of the history is looked at instead: Ann and Ben begin alike, Will and Xena too,
    /// and two events that know nothing of each other may come in either order.
    fn is_wanted(&self) -> bool {
        let events = &self.history.events;
        let [.., last] = events.as_slice() else {
            return true;
        };
        let named = |one, other| {
            let names = events.iter().flat_map(|event| {
                let whom = match event.act {
                    Act::Grant { to, .. } => Some(to),
                    Act::Remove { whom, .. } | Act::Readmit { whom, .. } => Some(whom),
                    Act::Prove { of, .. } => Some(of),
                    Act::Leave | Act::Write => None,
                };
                std::iter::once(event.author).chain(whom)
            });
            names
                .into_iter()
                .find(|it: &Person| [one, other].contains(it))
        };
        if named(ANN, BEN) == Some(BEN) || named(WILL, XENA) == Some(XENA) {
            return false;
        }
        let count = events.len();
        let Some(previous) = count.checked_sub(2).map(|at| (at, events[at])) else {
            return true;
        };
        let makes_owner = |act| {
            matches!(
                act,
                Act::Grant {
                    role: Role::Owner,
                    ..
                }
            )
        };
        // Which of two owners was made first decides who is senior.
        last.past.contains(previous.0)
            || previous.1.author <= last.author
            || (makes_owner(last.act) && makes_owner(previous.1.act))
    }
}

/// What somebody may have seen: what belongs together, and everything of his own unless he forks.
fn pasts(history: &History, author: Person, forks: bool) -> Vec<Set> {
    let sets = (0..=history.all().0).map(Set);
    let is_past = |set: &Set| {
        let mut events = history.events.iter().enumerate();
        events.all(|(number, it)| match set.contains(number) {
            true => set.covers(it.past),
            false => forks || it.author != author,
        })
    };
    sets.filter(is_past).collect()
}

/// Checks a history, `before` being what it came to without its last event.
///
/// # Panics
///
/// Panics if something does not hold.
pub(crate) fn check(history: &History, before: &Outcome) -> (Outcome, Seen) {
    let rules = Rules::of(history);
    let outcome = rules.evaluate();
    let last = history.events.len() - 1;
    let event = history.events[last];
    let mut seen = Seen {
        histories: 1,
        ..Seen::default()
    };
    seen.ambiguous += u64::from(history.candidates(last).count() > 1);
    check_fences(history, &outcome, &mut seen);
    if !event.act.is_control() {
        assert_eq!(
            outcome.roles, before.roles,
            "data changed rights\n{history:?}"
        );
        let same = outcome.ranks[..last] == before.ranks[..last];
        assert!(same, "data changed what stands\n{history:?}");
        return (outcome, seen);
    }
    check_solution(history, &outcome);
    let has_owner = outcome.roles.contains(&Some(Role::Owner));
    assert!(has_owner, "nobody is an owner\n{history:?}");
    check_denials(history, before, &outcome, &mut seen);
    check_roles(history, &outcome);
    check_branches(history, before, &outcome, &mut seen);
    (outcome, seen)
}

/// There is one solution, and one pass per rank finds it.
pub(crate) fn check_solution(history: &History, outcome: &Outcome) {
    let mut expected = outcome.ranks;
    for (number, event) in history.events.iter().enumerate() {
        if !event.act.is_control() {
            expected[number] = None;
        }
    }
    let solutions = Rules::of(history).solutions();
    assert_eq!(solutions, [expected], "not one solution\n{history:?}");
}

/// What a removal bars stands only if somebody of no lower rank accepted it.
fn check_fences(history: &History, outcome: &Outcome, seen: &mut Seen) {
    let rules = Rules::of(history);
    let last = history.events.len() - 1;
    for (number, event) in history.events.iter().enumerate() {
        for (by, removal) in history.events.iter().enumerate() {
            let (Act::Remove { whom, .. }, Some(rank)) = (removal.act, outcome.ranks[by]) else {
                continue;
            };
            let is_subject = |grant| {
                let ranks_below = rules.rank(&outcome.ranks, grant).is_none_or(|it| it > rank);
                ranks_below
                    && grant
                        .by
                        .is_none_or(|it| !history.events[it].past.contains(by))
            };
            if whom != event.author || !history.candidates(number).all(is_subject) {
                continue;
            }
            let accepted = history.events.iter().enumerate().any(|(other, it)| {
                outcome.ranks[other].is_some_and(|it| it <= rank) && history.accepts(it.act, number)
            });
            let stands = outcome.stands(number);
            assert!(
                accepted || !stands,
                "{number} stands beyond its fence\n{history:?}"
            );
            if number == last || by == last {
                seen.barred += u64::from(!stands);
                seen.accepted += u64::from(stands);
            }
        }
    }
}

/// A grant that was ended lasts again only because of an event that outranks all that ended it.
fn check_denials(history: &History, before: &Outcome, after: &Outcome, seen: &mut Seen) {
    let last = history.events.len() - 1;
    let (rules, rank) = (Rules::of(history), after.ranks[last]);
    let old = Rules {
        within: Set::first(last),
        ..rules
    };
    for grant in history
        .grants()
        .filter(|it| rules.remains(&after.ranks, *it))
    {
        let ended = old.ended_by(&before.ranks, grant);
        let overrules = ended.is_some_and(|ended| rank.is_some_and(|it| it < ended));
        let is_granted =
            matches!(history.events[last].act, Act::Grant { to, .. } if to == grant.to);
        // The denial of whoever forks falls with his branch.
        let is_proof = matches!(history.events[last].act, Act::Prove { .. });
        let is_good = ended.is_none() || overrules || is_granted || is_proof;
        assert!(is_good, "{grant:?} came back by itself\n{history:?}");
        seen.overruled += u64::from(overrules);
        if grant.by == Some(last) {
            seen.granted_again += u64::from(before.role(grant.to).is_none());
        }
    }
}

/// A fork puts nothing aside that somebody accepted who outranks it, unless others accepted another branch.
fn check_branches(history: &History, before: &Outcome, after: &Outcome, seen: &mut Seen) {
    let last = history.events.len() - 1;
    let Act::Prove { of, is_control } = history.events[last].act else {
        return;
    };
    let past = history.events[last].past;
    let parting = history.forked_behind(of, is_control, past).unwrap();
    for event in history.log(of, is_control, Set::first(last)) {
        let Some(rank) = before.ranks[event].filter(|_| history.events[event].seq > parting) else {
            continue;
        };
        // It may stand under another of its grants by now.
        let under = after.ranks[event].unwrap_or(rank);
        let accepted = history
            .events
            .iter()
            .enumerate()
            .filter_map(|(number, it)| {
                let (whose, accepted) = it.act.acceptance()?;
                let up_to = if is_control {
                    accepted.control
                } else {
                    accepted.data
                };
                let outranks = after.ranks[number].is_some_and(|it| it < under);
                up_to.filter(|_| whose == of && outranks)
            });
        let accepted: Vec<_> = accepted.collect();
        let is_accepted = accepted.iter().any(|it| history.leads_to(event, *it));
        let is_disputed = accepted
            .iter()
            .any(|it| !history.leads_to(event, *it) && !history.leads_to(*it, event));
        let stands = after.stands(event);
        assert!(
            stands || !is_accepted || is_disputed,
            "{event} was erased\n{history:?}"
        );
        assert!(
            !stands || is_accepted,
            "{event} stands on a branch that nobody accepted\n{history:?}"
        );
        seen.settled += u64::from(stands);
        seen.put_aside += u64::from(!stands);
    }
}

/// Whoever nobody removed and who did not leave has a role.
fn check_roles(history: &History, outcome: &Outcome) {
    for person in people() {
        let is_over = history.events.iter().any(|it| match it.act {
            Act::Remove { whom, .. } => whom == person,
            Act::Leave => it.author == person,
            Act::Grant { .. } | Act::Readmit { .. } | Act::Prove { .. } | Act::Write => false,
        });
        let has_role = outcome.role(person).is_some();
        assert!(
            is_over || has_role,
            "{person:?} lost all roles\n{history:?}"
        );
    }
}

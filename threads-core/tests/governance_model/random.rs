//! Larger histories than can all be looked at, at random.

use crate::every::{Seen, Size, check};
use crate::history::{Acceptance, Act, History, PEOPLE, Person, Role, Set, people};
use crate::rules::Rules;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ bits >> 31) % count as u64).unwrap()
    }
}

/// Checks a history of a seed after each of its events.
pub(crate) fn check_one(seed: u64, size: Size) -> Seen {
    let mut before = Rules::of(&History::default()).evaluate();
    let mut seen = Seen::default();
    grow(seed, size, |history| {
        let (outcome, of_this) = check(history, &before);
        seen += of_this;
        before = outcome;
    });
    seen
}

/// The history of a seed.
pub(crate) fn history(seed: u64, size: Size) -> History {
    grow(seed, size, |_| {})
}

/// Makes the history of a seed, and shows it after each of its events.
fn grow(seed: u64, size: Size, mut visit: impl FnMut(&History)) -> History {
    let mut dice = Dice(seed);
    let mut history = History::default();
    let mut left = size;
    while left.governance + left.writes > 0 {
        let is_control = dice.below(left.governance + left.writes) < left.governance;
        // Whom nothing in his past permits it tries again, and somebody else after a while.
        for _ in 0..32 {
            let author = Person(dice.below(PEOPLE));
            let past = past(&mut dice, &history, author, size.forks);
            let act = match is_control {
                true => act(&mut dice, &history, author, past),
                false => Act::Write,
            };
            history.push(author, past, act);
            if history
                .candidates(history.events.len() - 1)
                .next()
                .is_some()
            {
                visit(&history);
                break;
            }
            history.events.pop();
        }
        match is_control {
            true => left.governance -= 1,
            false => left.writes -= 1,
        }
    }
    history
}

fn past(dice: &mut Dice, history: &History, author: Person, forks: bool) -> Set {
    let mut past = Set::default();
    let share = dice.below(4);
    let forks = forks && dice.below(4) == 0;
    for (number, event) in history.events.iter().enumerate() {
        if (event.author == author && !forks) || dice.below(4) < share {
            past = past.with(number);
            past.0 |= event.past.0;
        }
    }
    past
}

fn act(dice: &mut Dice, history: &History, author: Person, past: Set) -> Act {
    let others: Vec<_> = people().filter(|it| *it != author).collect();
    let whom = others[dice.below(others.len())];
    let mut one_of = |is_control| {
        let log = history.log(whom, is_control, past);
        let at = dice.below(log.len() + 1);
        log.get(at).copied()
    };
    let accepts = Acceptance {
        control: one_of(true),
        data: one_of(false),
    };
    let forked = people().flat_map(|of| [(of, false), (of, true)]);
    let mut forked =
        forked.filter(|(of, is_control)| history.forked_behind(*of, *is_control, past).is_some());
    if let Some((of, is_control)) = forked.next()
        && dice.below(2) == 0
    {
        return Act::Prove { of, is_control };
    }
    let roles = [Role::Owner, Role::Admin, Role::Writer, Role::Reader];
    match dice.below(12) {
        0..=5 => Act::Grant {
            to: whom,
            role: roles[dice.below(4)],
            accepts,
        },
        6..=9 => Act::Remove { whom, accepts },
        10 => Act::Readmit { whom, accepts },
        _ => Act::Leave,
    }
}

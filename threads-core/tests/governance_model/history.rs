//! Histories: who did what, having seen what. Five people at first: an owner, two admins, two writers.

use std::fmt;

/// Most events of a history.
pub(crate) const EVENTS_MAX: usize = 12;

pub(crate) const PEOPLE: usize = 5;
pub(crate) const OLGA: Person = Person(0);
pub(crate) const ANN: Person = Person(1);
pub(crate) const BEN: Person = Person(2);
pub(crate) const WILL: Person = Person(3);
pub(crate) const XENA: Person = Person(4);

/// A member, with one device: one control log and one data log.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Person(pub(crate) usize);

impl fmt::Debug for Person {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(["Olga", "Ann", "Ben", "Will", "Xena"][self.0])
    }
}

pub(crate) fn people() -> impl Iterator<Item = Person> {
    (0..PEOPLE).map(Person)
}

/// The more privileged the less.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Role {
    Owner,
    Admin,
    Writer,
    Reader,
}

impl Role {
    pub(crate) fn permits(self, act: Act) -> bool {
        match act {
            Act::Grant { role, .. } => {
                self == Self::Owner || (self == Self::Admin && role > Self::Admin)
            }
            Act::Remove { .. } | Act::Readmit { .. } => self <= Self::Admin,
            Act::Write => self <= Self::Writer,
            Act::Leave | Act::Prove { .. } => true,
        }
    }
}

/// Up to which event somebody's logs are accepted: that one, and those before it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Acceptance {
    pub(crate) control: Option<usize>,
    pub(crate) data: Option<usize>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    /// Gives a role in place of those that its author saw.
    Grant {
        to: Person,
        role: Role,
        accepts: Acceptance,
    },
    Remove {
        whom: Person,
        accepts: Acceptance,
    },
    Readmit {
        whom: Person,
        accepts: Acceptance,
    },
    Leave,
    /// Shows that a log has two branches, both of which its author has seen.
    Prove {
        of: Person,
        is_control: bool,
    },
    /// A data record: it changes nobody's rights.
    Write,
}

impl Act {
    pub(crate) fn is_control(self) -> bool {
        self != Self::Write
    }

    /// What it accepts of whose logs.
    pub(crate) fn acceptance(self) -> Option<(Person, Acceptance)> {
        match self {
            Self::Grant { to, accepts, .. } => Some((to, accepts)),
            Self::Remove { whom, accepts } | Self::Readmit { whom, accepts } => {
                Some((whom, accepts))
            }
            Self::Leave | Self::Prove { .. } | Self::Write => None,
        }
    }
}

/// A set of events.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Set(pub(crate) u16);

impl Set {
    pub(crate) fn first(count: usize) -> Self {
        Self((1 << count) - 1)
    }

    pub(crate) fn contains(self, event: usize) -> bool {
        self.0 >> event & 1 == 1
    }

    pub(crate) fn with(self, event: usize) -> Self {
        Self(self.0 | 1 << event)
    }

    pub(crate) fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) author: Person,
    pub(crate) act: Act,
    /// All that its author had seen.
    pub(crate) past: Set,
    /// The one before it in its author's control log or data log.
    pub(crate) prev: Option<usize>,
    /// Its place there, from 1.
    pub(crate) seq: u8,
}

/// A role that somebody was given: at the beginning, or by an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Grant {
    pub(crate) to: Person,
    pub(crate) role: Role,
    /// The event; nothing for those of the beginning, which everybody has seen.
    pub(crate) by: Option<usize>,
}

/// Events, each after all that it has seen.
#[derive(Clone, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
}

impl History {
    /// Adds an event; `past` is made whole.
    pub(crate) fn add(&mut self, author: Person, past: &[usize], act: Act) -> usize {
        let mut set = Set::default();
        for event in past {
            set = set.with(*event);
            set.0 |= self.events[*event].past.0;
        }
        self.push(author, set, act);
        self.events.len() - 1
    }

    pub(crate) fn push(&mut self, author: Person, past: Set, act: Act) {
        assert!(self.events.len() < EVENTS_MAX);
        let log = self.log(author, act.is_control(), past);
        let prev = log.into_iter().max_by_key(|it| self.events[*it].seq);
        let seq = prev.map_or(0, |it| self.events[it].seq) + 1;
        self.events.push(Event {
            author,
            act,
            past,
            prev,
            seq,
        });
    }

    pub(crate) fn all(&self) -> Set {
        Set::first(self.events.len())
    }

    /// The events of a log that are in a set.
    pub(crate) fn log(&self, of: Person, is_control: bool, within: Set) -> Vec<usize> {
        let events = self.events.iter().enumerate().filter(|(number, it)| {
            it.author == of && it.act.is_control() == is_control && within.contains(*number)
        });
        events.map(|(number, _)| number).collect()
    }

    /// Whether an event is another one of its log, or comes before it there.
    pub(crate) fn leads_to(&self, event: usize, other: usize) -> bool {
        let mut chain = std::iter::successors(Some(other), |it| self.events[*it].prev);
        chain.any(|it| it == event)
    }

    /// Whether an act accepts an event.
    pub(crate) fn accepts(&self, act: Act, event: usize) -> bool {
        let it = self.events[event];
        act.acceptance().is_some_and(|(of, accepted)| {
            let up_to = match it.act.is_control() {
                true => accepted.control,
                false => accepted.data,
            };
            of == it.author && up_to.is_some_and(|up_to| self.leads_to(event, up_to))
        })
    }

    /// The last place of a log at which a set of events shows no second branch.
    pub(crate) fn forked_behind(&self, of: Person, is_control: bool, within: Set) -> Option<u8> {
        let log = self.log(of, is_control, within);
        let forked = log.iter().filter(|one| {
            let prev = self.events[**one].prev;
            log.iter()
                .any(|it| it != *one && self.events[*it].prev == prev)
        });
        forked.map(|it| self.events[*it].seq - 1).min()
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = Grant> + '_ {
        let given = self.events.iter().enumerate().filter_map(|(number, it)| {
            let Act::Grant { to, role, .. } = it.act else {
                return None;
            };
            let by = Some(number);
            Some(Grant { to, role, by })
        });
        initial().into_iter().chain(given)
    }

    /// The grants that an event may act under: its author's, in its past, that permit it.
    pub(crate) fn candidates(&self, event: usize) -> impl Iterator<Item = Grant> + '_ {
        let it = self.events[event];
        self.grants().filter(move |grant| {
            grant.to == it.author
                && grant.by.is_none_or(|by| it.past.contains(by))
                && grant.role.permits(it.act)
        })
    }
}

impl fmt::Debug for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, event) in self.events.iter().enumerate() {
            let saw: Vec<_> = (0..number).filter(|it| event.past.contains(*it)).collect();
            let (author, act) = (event.author, event.act);
            writeln!(
                formatter,
                "{number}: {author:?}, having seen {saw:?}: {act:?}"
            )?;
        }
        Ok(())
    }
}

pub(crate) fn initial() -> [Grant; PEOPLE] {
    use Role::{Admin, Owner, Writer};
    let roles = [Owner, Admin, Admin, Writer, Writer];
    std::array::from_fn(|person| Grant {
        to: Person(person),
        role: roles[person],
        by: None,
    })
}

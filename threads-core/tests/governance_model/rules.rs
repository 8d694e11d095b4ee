//! The rules, as equations and as one pass.
//!
//! 1. **Power belongs to grants.** An event stands if a grant to its author, in its past and itself standing,
//!    permits it, and nothing bars it from that grant.
//! 2. **Rank.** An event has the rank of the most senior grant that it stands under. An owner's grant ranks
//!    by its path: that of the event that gave it, and that event. Paths compare as sequences, a prefix being
//!    senior. Then come admins, then the rest.
//! 3. **A removal** bars from all grants of a member that rank below it, save those that have seen it and were
//!    given by no lower class (owner, admin, rest).
//! 4. **A grant replaces** those of its member that rank below its event and that it has seen; and of those
//!    that it knows nothing of, and that know nothing of it, those given by a lower class, or by the same class
//!    and of a higher role, unless what outranks these has ended it. It bars from what it replaces as far as
//!    its own role does not permit it.
//! 5. **Fences.** What is barred stands all the same up to the highest acceptance by a standing event that
//!    the most senior one of those that bar it does not outrank.
//! 6. **A leave** ends its author's grants that it has seen: for what he does having seen it, and in the end, if
//!    it stands. It bars from nothing that does not know of it. If it would leave no owner, the most senior
//!    owner's does not stand; so an owner who has left may go on if what he had seen shows that, forks aside.
//! 7. **A fork.** Once anybody has shown two branches of a log, what lies behind their parting stands only on
//!    the branch that is settled: the one that the most senior of those accepted who outrank the grant, as far
//!    as they accepted it, if equals differ as far as they agree; and what others of those accepted behind it,
//!    in the order of their rank.
//! 8. Data records change none of this.
//!
//! Each question looks at higher ranks only, so there is one answer, and one pass per rank finds it.

use crate::history::{Act, EVENTS_MAX, Event, Grant, History, PEOPLE, Person, Role, Set, people};

/// The more senior the less.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Rank(u64);

impl Rank {
    const FOUNDER: Self = Self(0);
    const ADMIN: Self = Self(u64::MAX - 1);
    const REST: Self = Self(u64::MAX);

    pub(crate) fn class(self) -> u8 {
        match self {
            Self::REST => 2,
            Self::ADMIN => 1,
            Self(_) => 0,
        }
    }

    /// The path of an owner whom an event of this path made one: a byte for each step, zeros behind.
    fn then(self, event: usize) -> Self {
        let free = (0..8).find(|at| self.0 << (8 * at) == 0).unwrap();
        Self(self.0 | (event as u64 + 1) << (56 - 8 * free))
    }
}

/// The rank of each event, if it stands.
pub(crate) type Ranks = [Option<Rank>; EVENTS_MAX];

/// What a history comes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) ranks: Ranks,
    pub(crate) roles: [Option<Role>; PEOPLE],
}

impl Outcome {
    pub(crate) fn stands(&self, event: usize) -> bool {
        self.ranks[event].is_some()
    }

    pub(crate) fn role(&self, of: Person) -> Option<Role> {
        self.roles[of.0]
    }
}

/// Rules of a history, or of what somebody has seen of it.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) history: &'a History,
    pub(crate) within: Set,
    /// Whether forks count.
    pub(crate) forks: bool,
}

impl<'a> Rules<'a> {
    pub(crate) fn of(history: &'a History) -> Self {
        Self {
            history,
            within: history.all(),
            forks: true,
        }
    }

    fn events(self) -> impl Iterator<Item = (usize, Event)> + 'a {
        let events = self.history.events.iter().copied().enumerate();
        events.filter(move |(number, _)| self.within.contains(*number))
    }

    fn grants(self) -> impl Iterator<Item = Grant> + 'a {
        let is_within = move |grant: &Grant| grant.by.is_none_or(|by| self.within.contains(by));
        self.history.grants().filter(is_within)
    }

    fn standing(self, ranks: &Ranks) -> impl Iterator<Item = (usize, Event, Rank)> {
        let events = self.events();
        events.filter_map(|(number, event)| ranks[number].map(|rank| (number, event, rank)))
    }

    /// Rule 2.
    pub(crate) fn rank(self, ranks: &Ranks, grant: Grant) -> Option<Rank> {
        let given = match grant.by {
            Some(by) => Some((ranks[by]?, by)),
            None => None,
        };
        Some(match (grant.role, given) {
            (Role::Owner, None) => Rank::FOUNDER,
            (Role::Owner, Some((rank, by))) => rank.then(by),
            (Role::Admin, _) => Rank::ADMIN,
            (Role::Writer | Role::Reader, _) => Rank::REST,
        })
    }

    /// Rules 1, 5, 6: whether an event stands under a grant that is one of its candidates.
    pub(crate) fn stands_under(self, ranks: &Ranks, number: usize, grant: Grant) -> bool {
        let event = self.history.events[number];
        let Some(of) = self.rank(ranks, grant) else {
            return false;
        };
        if self.has_left(event, grant) {
            return false;
        }
        let bars = self.standing(ranks).filter(|(by, it, rank)| {
            let act = Some(event.act);
            *rank < of && self.ends(ranks, (*by, it.act, *rank), grant, act)
        });
        let strongest = bars.map(|(.., rank)| rank).min();
        let is_accepted = strongest.is_none_or(|strongest| {
            let mut accepting = self.standing(ranks).filter(|(.., rank)| *rank <= strongest);
            accepting.any(|(_, it, _)| self.history.accepts(it.act, number))
        });
        is_accepted && self.is_on_branch(ranks, number, of)
    }

    /// Rule 7: whether an event is before the parting of branches, or on the one that is settled.
    fn is_on_branch(self, ranks: &Ranks, number: usize, of: Rank) -> bool {
        if !self.forks {
            return true;
        }
        let (author, is_control, seq) = {
            let event = self.history.events[number];
            (event.author, event.act.is_control(), event.seq)
        };
        let proof = Act::Prove {
            of: author,
            is_control,
        };
        let proofs = self.events().filter(|(_, it)| it.act == proof);
        let parting = proofs.filter_map(|(_, it)| {
            let history = self.history;
            history.forked_behind(author, is_control, it.past)
        });
        if parting.min().is_none_or(|parting| seq <= parting) {
            return true;
        }
        let accepted = self.standing(ranks).filter_map(|(_, it, rank)| {
            let (whose, accepted) = it.act.acceptance()?;
            let up_to = match is_control {
                true => accepted.control,
                false => accepted.data,
            };
            (rank < of && whose == author).then_some((rank, up_to?))
        });
        let mut accepted: Vec<_> = accepted.collect();
        accepted.sort();
        let mut settled = None;
        for equals in accepted.chunk_by(|one, other| one.0 == other.0) {
            let goes_on =
                |it: &usize| settled.is_none_or(|settled| self.history.leads_to(settled, *it));
            let ends: Vec<_> = equals.iter().map(|it| it.1).filter(goes_on).collect();
            settled = self.agreed(&ends).or(settled);
        }
        settled.is_some_and(|settled| self.history.leads_to(number, settled))
    }

    /// The last event of a log that is on the same branch as each of these.
    fn agreed(self, ends: &[usize]) -> Option<usize> {
        let events = &self.history.events;
        let on_the_way = ends
            .iter()
            .flat_map(|end| std::iter::successors(Some(*end), |it| events[*it].prev));
        let agreed = on_the_way.filter(|it| {
            ends.iter()
                .all(|end| self.history.leads_to(*it, *end) || self.history.leads_to(*end, *it))
        });
        agreed.max_by_key(|it| events[*it].seq)
    }

    /// Rules 3, 4: whether what stands ends a grant that ranks below it; as far as an act needs it, if one is
    /// given.
    fn ends(
        self,
        ranks: &Ranks,
        (by, what, rank): (usize, Act, Rank),
        grant: Grant,
        act: Option<Act>,
    ) -> bool {
        match what {
            Act::Remove { whom, .. } => whom == grant.to && !self.survives(ranks, grant, by, rank),
            Act::Grant { to, role, .. } => {
                let is_kept = act.is_some_and(|act| role.permits(act));
                to == grant.to && !is_kept && self.replaces(ranks, by, rank, grant)
            }
            Act::Readmit { .. } | Act::Leave | Act::Prove { .. } | Act::Write => false,
        }
    }

    /// Rule 3: whether a grant is left by a removal that its member is subject to.
    fn survives(self, ranks: &Ranks, grant: Grant, removal: usize, rank: Rank) -> bool {
        grant.by.is_some_and(|by| {
            let has_seen = self.history.events[by].past.contains(removal);
            has_seen && ranks[by].is_some_and(|it| it.class() <= rank.class())
        })
    }

    /// Rule 4: whether a grant takes the place of another one to the same member, which ranks below it.
    fn replaces(self, ranks: &Ranks, number: usize, rank: Rank, other: Grant) -> bool {
        let event = self.history.events[number];
        let Some(by) = other.by else {
            return true;
        };
        if event.past.contains(by) {
            return true;
        }
        let is_older = self.history.events[by].past.contains(number);
        let Act::Grant { to, role, .. } = event.act else {
            return false;
        };
        let wins = ranks[by].is_some_and(|it| {
            rank.class() < it.class() || (rank.class() == it.class() && role > other.role)
        });
        if !wins || is_older {
            return false;
        }
        let by = Some(number);
        let ended = self.ended_by(ranks, Grant { to, role, by });
        ended.is_none_or(|it| Some(it) >= self.rank(ranks, other))
    }

    /// Rule 6: whether an event's author had left by what he had seen.
    fn has_left(self, event: Event, grant: Grant) -> bool {
        let leaves = self.leaves(event.author, event.past, grant);
        let mut leaves = leaves.peekable();
        if leaves.peek().is_none() || grant.role != Role::Owner {
            return leaves.peek().is_some();
        }
        let then = Rules {
            within: event.past,
            forks: false,
            ..self
        };
        let ranks = then.pass();
        let left = then.leaving(&ranks);
        leaves.any(|leave| left.contains(leave))
    }

    /// The leaves of a member that end a grant.
    fn leaves(self, of: Person, within: Set, grant: Grant) -> impl Iterator<Item = usize> + 'a {
        let events = self.events().filter(move |(number, it)| {
            it.author == of
                && it.act == Act::Leave
                && within.contains(*number)
                && grant.by.is_none_or(|by| it.past.contains(by))
        });
        events.map(|(number, _)| number)
    }

    /// The leaves that stand.
    fn leaving(self, ranks: &Ranks) -> Set {
        let mut all = Set::default();
        for (number, event, _) in self.standing(ranks) {
            if event.act == Act::Leave {
                all = all.with(number);
            }
        }
        let owners = self.grants().filter(|it| it.role == Role::Owner);
        let owners: Vec<_> = owners.filter(|it| self.remains(ranks, *it)).collect();
        let is_left = |grant: &Grant| self.leaves(grant.to, all, *grant).next().is_some();
        if owners.iter().all(is_left)
            && let Some(senior) = owners.iter().min_by_key(|it| self.rank(ranks, **it))
        {
            for leave in self.leaves(senior.to, all, *senior) {
                all.0 &= !(1 << leave);
            }
        }
        all
    }

    /// Whether a grant stands and nothing but a leave may have ended it.
    pub(crate) fn remains(self, ranks: &Ranks, grant: Grant) -> bool {
        self.rank(ranks, grant).is_some() && self.ended_by(ranks, grant).is_none()
    }

    /// The most senior rank of what ended a grant that stands.
    pub(crate) fn ended_by(self, ranks: &Ranks, grant: Grant) -> Option<Rank> {
        let of = self.rank(ranks, grant)?;
        let ends = self.standing(ranks).filter(|(by, it, rank)| {
            *rank < of && self.ends(ranks, (*by, it.act, *rank), grant, None)
        });
        ends.map(|(.., rank)| rank).min()
    }

    /// One pass per rank, the most senior first.
    fn pass(self) -> Ranks {
        let mut ranks = Ranks::default();
        let mut last = None;
        loop {
            let known = self.grants().filter_map(|it| self.rank(&ranks, it));
            let Some(rank) = known.filter(|it| Some(*it) > last).min() else {
                return ranks;
            };
            for (number, _) in self.events() {
                let mut candidates = self.history.candidates(number);
                if ranks[number].is_none()
                    && candidates.any(|it| {
                        self.rank(&ranks, it) == Some(rank) && self.stands_under(&ranks, number, it)
                    })
                {
                    ranks[number] = Some(rank);
                }
            }
            last = Some(rank);
        }
    }

    pub(crate) fn evaluate(self) -> Outcome {
        let ranks = self.pass();
        let left = self.leaving(&ranks);
        let mut roles = [None; PEOPLE];
        for person in people() {
            let grants = self.grants().filter(|it| it.to == person);
            let lasting = grants.filter(|it| {
                self.remains(&ranks, *it) && self.leaves(person, left, *it).next().is_none()
            });
            roles[person.0] = lasting.map(|it| it.role).min();
        }
        Outcome { ranks, roles }
    }

    /// All solutions of rules 1 to 7 as equations: which control events stand under which of their
    /// candidates, with the rank that each event has by that.
    pub(crate) fn solutions(self) -> Vec<Ranks> {
        let mut unknown = Vec::new();
        for (number, _) in self.events().filter(|(_, it)| it.act.is_control()) {
            unknown.extend(self.history.candidates(number).map(|it| (number, it)));
        }
        assert!(unknown.len() < 20);
        let mut solutions = Vec::new();
        for guess in 0..1_u32 << unknown.len() {
            let is_guessed = |at: usize| guess >> at & 1 == 1;
            let mut ranks = Ranks::default();
            // Candidates are given before what acts under them, so their rank is known by then.
            for (at, (number, grant)) in unknown.iter().enumerate() {
                if is_guessed(at)
                    && let Some(rank) = self.rank(&ranks, *grant)
                {
                    let best = ranks[*number].map_or(rank, |it| it.min(rank));
                    ranks[*number] = Some(best);
                }
            }
            let mut all = unknown.iter().enumerate();
            if all
                .all(|(at, (number, it))| self.stands_under(&ranks, *number, *it) == is_guessed(at))
            {
                solutions.push(ranks);
            }
        }
        solutions
    }
}

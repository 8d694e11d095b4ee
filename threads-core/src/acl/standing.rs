//! Which ops stand, kept up to date op by op.
//!
//! Each control record is an *entry*. What it may do is one rank for each [`Power`]: that of the most
//! senior grant in its past that has the power, and from which nothing bars it. Grants and what ends
//! them are kept by *member*. If something changes for a member, its entries are looked at again, and
//! the members that these have to do with after them. Each question looks at more senior ranks only,
//! so this ends, and in the one answer that there is.

mod acceptance;
mod grants;
mod leaves;
mod losses;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use leno_crdt_codec::{LogId, Seq, Stamp};

use super::rank::{PerPower, Power, Rank};
use crate::control::Role;
use crate::frontier::Frontier;
use crate::{OpRef, RecordId, RecordRef, SeatId};

use acceptance::Accepted;
use grants::{Devices, Given, Member};
use losses::{Clash, Ends};

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct EntryAt(u32);

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct MemberAt(u32);

/// An op that changes for members what stands, and by it what they accept.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Grant {
        to: SeatId,
        role: Role,
        /// The grant ends with this stamp.
        expires: Option<Stamp>,
    },
    Remove {
        whom: SeatId,
    },
    Accept,
    Leave,
    Device {
        member: SeatId,
        seat: SeatId,
    },
}

impl Act {
    /// What the op needs of its author.
    pub(super) fn power(&self) -> Power {
        match self {
            Self::Grant { role, .. } => Power::to_grant(*role),
            Self::Remove { .. } => Power::to_remove(),
            Self::Accept => Power::Govern,
            Self::Leave | Self::Device { .. } => Power::Belong,
        }
    }
}

/// What a control record has to say to members.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) place: RecordRef,
    pub(super) stamp: Stamp,
    /// Each with its index in the record, and the records that it accepts.
    pub(super) acts: Vec<(u32, Act, Vec<RecordRef>)>,
    /// Logs that it shows to have two branches, and the first place at which they may differ.
    pub(super) forks: Vec<(LogId, Seq)>,
}

/// What somebody has seen: the newest records of logs by their numbers, sorted by these.
pub(super) type Seen = Arc<[(u32, Seq)]>;

/// A control record.
#[derive(Clone, Debug)]
struct Entry {
    log: u32,
    said: Arc<Said>,
    past: Seen,
    belongs: Belongs,
    /// The leaves of its author that stand by its past, if he might be an owner who left.
    left: Arc<[RecordId]>,
    ranks: PerPower<Option<Rank>>,
}

/// An op: which entry, and its index there.
pub(super) type OpAt = (EntryAt, u32);

/// The members that a seat belongs to, each with the ops by which it was added.
type Belongs = Vec<(MemberAt, u64)>;

/// How a member's first seat belongs to it: a bit more than there are ops that add devices.
const FIRST_SEAT: u64 = u64::MAX;

/// What is known of a seat.
#[derive(Clone, Debug, Default)]
struct SeatFile {
    members: Vec<MemberAt>,
    entries: Vec<EntryAt>,
}

/// What an author had seen and whom he belongs to: all that it takes to judge him.
#[derive(Clone, Copy)]
pub(super) struct Author<'a> {
    /// His own log and the record at hand, if it is a control log.
    own: Option<(u32, Seq)>,
    past: &'a [(u32, Seq)],
    belongs: &'a [(MemberAt, u64)],
    left: &'a [RecordId],
}

/// Up to where a data log stands, for an author who has seen so much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// The last record that stands; [`Seq::MAX`] if all do.
    pub up_to: Seq,
    /// What is wrong with those beyond it.
    pub beyond: Beyond,
}

impl Limit {
    /// Everything stands.
    pub(crate) const NONE: Self = Self {
        up_to: Seq::MAX,
        beyond: Beyond::NoRole,
    };
}

/// Why a record beyond a [`Limit`] does not stand.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Beyond {
    /// No grant in its past that stands permits it.
    NoRole,
    /// Its author was removed or has another role, and it lies above what was accepted.
    Fenced,
    /// Its author had left.
    Left,
    /// Its log has two branches from there on, and neither was accepted.
    Forked,
}

#[derive(Clone, Debug)]
pub(super) struct Standing {
    founder: SeatId,
    numbers: HashMap<LogId, u32>,
    logs: Vec<LogId>,
    entries: Vec<Entry>,
    /// By the records' ids.
    at: HashMap<RecordId, EntryAt>,
    members: Vec<Member>,
    /// By their first seats.
    member_at: HashMap<SeatId, MemberAt>,
    seats: HashMap<SeatId, SeatFile>,
    accepted: HashMap<LogId, Vec<Accepted>>,
    /// Logs with two branches, and the first place at which they may differ.
    forked: BTreeMap<LogId, Seq>,
    /// All grants that make owners.
    owners: Vec<(MemberAt, usize)>,
    /// Leaves that would leave no owner.
    void_leaves: BTreeSet<EntryAt>,
    /// By log, the records that may end rights to read, and the place of the first of them.
    endings: BTreeMap<u32, (Vec<(EntryAt, Ends)>, Seq)>,
    clashes: BTreeSet<Clash>,
    has_leaves: bool,
    queue: VecDeque<MemberAt>,
    /// Members for whom something else than their grants changed.
    forced: BTreeSet<MemberAt>,
    /// Members for whom something changed since this was taken.
    touched: BTreeSet<MemberAt>,
    /// Data logs of which something else was accepted.
    reaccepted: BTreeSet<LogId>,
    /// Whether a record stands otherwise than when it came.
    has_fallen: bool,
    /// Whether somebody may have lost the right to read, or not, otherwise than when it was told.
    have_losses_changed: bool,
}

/// For whom something changed.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Seats whose records may stand otherwise than before.
    pub(crate) seats: BTreeSet<SeatId>,
    /// Data logs of which something else is accepted than before.
    pub(crate) logs: BTreeSet<LogId>,
    /// Whether a control record stands otherwise than when it came.
    pub(crate) has_fallen: bool,
    /// Whether somebody may have lost the right to read, or not, otherwise than when it was told.
    pub(crate) have_losses_changed: bool,
}

impl Standing {
    /// What stands right after a genesis.
    pub(super) fn new(founder: SeatId) -> Self {
        let mut standing = Self {
            founder,
            numbers: HashMap::new(),
            logs: Vec::new(),
            entries: Vec::new(),
            at: HashMap::new(),
            members: Vec::new(),
            member_at: HashMap::new(),
            seats: HashMap::new(),
            accepted: HashMap::new(),
            forked: BTreeMap::new(),
            owners: Vec::new(),
            void_leaves: BTreeSet::new(),
            endings: BTreeMap::new(),
            clashes: BTreeSet::new(),
            has_leaves: false,
            queue: VecDeque::new(),
            forced: BTreeSet::new(),
            touched: BTreeSet::new(),
            reaccepted: BTreeSet::new(),
            has_fallen: false,
            have_losses_changed: false,
        };
        let member = standing.member_or_new(founder);
        standing.member_mut(member).grants.push(Given::founders());
        standing.owners.push((member, 0));
        standing.rebar(member);
        standing
    }

    fn entry(&self, at: EntryAt) -> &Entry {
        let entry = self.entries.get(at.0 as usize);
        entry.expect("entries are never taken out")
    }

    fn entry_mut(&mut self, at: EntryAt) -> &mut Entry {
        let entry = self.entries.get_mut(at.0 as usize);
        entry.expect("entries are never taken out")
    }

    fn member(&self, at: MemberAt) -> &Member {
        let member = self.members.get(at.0 as usize);
        member.expect("members are never taken out")
    }

    fn member_mut(&mut self, at: MemberAt) -> &mut Member {
        let member = self.members.get_mut(at.0 as usize);
        member.expect("members are never taken out")
    }

    fn member_or_new(&mut self, first: SeatId) -> MemberAt {
        if let Some(at) = self.member_at.get(&first) {
            return *at;
        }
        let at = MemberAt(u32::try_from(self.members.len()).expect("fewer than 2^32 members"));
        self.members.push(Member::new(first));
        self.member_at.insert(first, at);
        self.seats.entry(first).or_default().members.push(at);
        at
    }

    fn number(&mut self, log: LogId) -> u32 {
        let next = u32::try_from(self.logs.len()).expect("fewer than 2^32 logs");
        *self.numbers.entry(log).or_insert_with(|| {
            self.logs.push(log);
            next
        })
    }

    /// A frontier by the numbers of logs, one's own left out.
    fn numbered(&self, past: &Frontier, own: Option<LogId>) -> Vec<(u32, Seq)> {
        let others = past.iter().filter(|(log, _)| Some(*log) != own);
        let known = others.filter_map(|(log, seq)| Some((*self.numbers.get(&log)?, seq)));
        let mut numbered: Vec<_> = known.collect();
        numbered.sort_unstable();
        numbered
    }

    /// Takes in a control record whose past was taken in before.
    pub(super) fn insert(&mut self, said: Said, past: &Frontier) {
        let log = said.place.log;
        let number = self.number(log);
        let numbered = self.numbered(past, Some(log));
        let seat = SeatId(log.0);
        // Most records have seen what the one before them had seen.
        let before = self.seats.get(&seat).and_then(|it| it.entries.last());
        let before = before.map(|it| &self.entry(*it).past);
        let seen = match before {
            Some(before) if **before == *numbered => Arc::clone(before),
            _ => numbered.into(),
        };
        self.put(number, Arc::new(said), seen, None);
        self.settle();
    }

    /// Puts an entry in its places. `left` is what its author had left, if that is known.
    fn put(&mut self, log: u32, said: Arc<Said>, past: Seen, left: Option<Arc<[RecordId]>>) {
        let at = EntryAt(u32::try_from(self.entries.len()).expect("fewer than 2^32 records"));
        let seat = SeatId(said.place.log.0);
        let seq = said.place.seq;
        let belongs = self.belongs(seat, Devices::ThatCount, Some((log, seq)), &past);
        let author = Author {
            own: Some((log, seq)),
            past: &past,
            belongs: &belongs,
            left: &[],
        };
        let left = left.unwrap_or_else(|| self.leaves_that_stand(author));
        self.at.insert(said.place.id, at);
        self.seats.entry(seat).or_default().entries.push(at);
        self.entries.push(Entry {
            log,
            said: Arc::clone(&said),
            past,
            belongs,
            left,
            ranks: PerPower::default(),
        });
        for (index, act, accepts) in &said.acts {
            self.note(at, *index, act);
            self.note_acceptances(at, act.power(), accepts);
        }
        self.note_endings(at, &said);
        self.look_at(at);
    }

    /// Notes with whom an op has to do.
    fn note(&mut self, at: EntryAt, index: u32, act: &Act) {
        match act {
            Act::Grant { to, role, expires } => {
                let member = self.member_or_new(*to);
                let grants = &mut self.member_mut(member).grants;
                grants.push(Given::by((at, index), *role, *expires));
                let grant = grants.len() - 1;
                if *role == Role::Owner {
                    self.owners.push((member, grant));
                }
            }
            Act::Remove { whom } => {
                let member = self.member_or_new(*whom);
                self.member_mut(member).removals.push((at, index));
            }
            Act::Accept => {}
            Act::Leave => {
                self.has_leaves = true;
                for (member, _) in self.entry(at).belongs.clone() {
                    self.member_mut(member).leaves.push(at);
                }
            }
            Act::Device { member, seat } => {
                let member = self.member_or_new(*member);
                let is_on_a_branch = self.is_on_a_branch(at);
                self.member_mut(member)
                    .add_device(at, *seat, is_on_a_branch);
                let members = &mut self.seats.entry(*seat).or_default().members;
                if !members.contains(&member) {
                    members.push(member);
                }
            }
        }
    }

    /// Judges an entry again, and has those looked at whom a change concerns.
    fn look_at(&mut self, at: EntryAt) {
        let ranks = self.evaluate(at);
        let is_newest = at.0 as usize + 1 == self.entries.len();
        let entry = self.entry_mut(at);
        if entry.ranks == ranks {
            return;
        }
        entry.ranks = ranks;
        let says_something = !entry.said.acts.is_empty();
        self.has_fallen |= !is_newest;
        self.have_losses_changed |= !is_newest && says_something;
        let entry = self.entry(at);
        let said = Arc::clone(&entry.said);
        for (_, act, accepts) in &said.acts {
            match act {
                Act::Grant { to, .. } => self.queue.extend(self.member_at.get(to)),
                Act::Remove { whom } => {
                    let member = self.member_at.get(whom).copied();
                    self.queue.extend(member);
                    // Devices of whoever came back by a new grant are out by it.
                    self.forced.extend(member);
                }
                Act::Leave => {
                    let members = self.entry(at).belongs.iter().map(|it| it.0);
                    let members: Vec<_> = members.collect();
                    self.touched.extend(members);
                }
                Act::Accept | Act::Device { .. } => {}
            }
            for accepted in accepts {
                self.reaccepted.insert(accepted.log);
                self.force(SeatId(accepted.log.0));
            }
        }
    }

    fn force(&mut self, seat: SeatId) {
        if let Some(file) = self.seats.get(&seat) {
            self.queue.extend(file.members.iter());
            self.forced.extend(file.members.iter());
        }
    }

    /// Looks at members until nothing changes any more.
    fn settle(&mut self) {
        while let Some(member) = self.queue.pop_front() {
            let is_forced = self.forced.remove(&member);
            let is_otherwise = self.rebar(member);
            if !is_otherwise && !is_forced {
                continue;
            }
            // What a fork takes from somebody depends on who was let do it.
            self.have_losses_changed |= !self.forked.is_empty();
            self.touched.insert(member);
            let seats = self.member(member).seats();
            for seat in seats {
                let entries = self.seats.get(&seat).map(|it| it.entries.clone());
                for entry in entries.unwrap_or_default() {
                    self.look_at(entry);
                }
            }
        }
        if self.has_leaves {
            self.void_leaves = self.leaves_of_last_owner();
        }
    }

    /// Notes that a log has two branches, which part at a place or before it.
    pub(super) fn fork(&mut self, log: LogId, first: Seq) {
        let kept = self.forked.entry(log).or_insert(first);
        *kept = first.min(*kept);
        self.reaccepted.insert(log);
        let seat = SeatId(log.0);
        let members = self.seats.get(&seat).map(|it| it.members.clone());
        for member in members.unwrap_or_default() {
            self.find_devices(member);
        }
        self.force(seat);
        self.settle();
    }

    /// For whom something changed since this was asked.
    pub(super) fn take_touched(&mut self) -> Touched {
        let members = std::mem::take(&mut self.touched);
        let seats = members.iter().flat_map(|it| self.member(*it).seats());
        Touched {
            seats: seats.collect(),
            logs: std::mem::take(&mut self.reaccepted),
            has_fallen: std::mem::take(&mut self.has_fallen),
            have_losses_changed: std::mem::take(&mut self.have_losses_changed),
        }
    }

    /// What an entry may do: see rules 1 and 2.
    fn evaluate(&self, at: EntryAt) -> PerPower<Option<Rank>> {
        let entry = self.entry(at);
        let place = entry.said.place;
        let author = self.author(at);
        let mut ranks = PerPower::default();
        for (grant, rank) in self.candidates(author) {
            if grant.expires.is_some_and(|end| entry.said.stamp > end) {
                continue;
            }
            for power in Power::ALL {
                let best: &mut Option<Rank> = ranks.get_mut(power);
                let is_better = best.as_ref().is_none_or(|best| rank < best);
                if is_better && grant.role.has(power) && self.stands(grant, rank, power, place) {
                    *best = Some(rank.clone());
                }
            }
        }
        ranks
    }

    fn author(&self, at: EntryAt) -> Author<'_> {
        let entry = self.entry(at);
        Author {
            own: Some((entry.log, entry.said.place.seq)),
            past: &entry.past,
            belongs: &entry.belongs,
            left: &entry.left,
        }
    }

    /// The grants that an author may act under, each with its rank.
    fn candidates<'a>(&'a self, author: Author<'a>) -> impl Iterator<Item = (&'a Given, &'a Rank)> {
        let members = author.belongs.iter();
        members.flat_map(move |(at, added)| {
            let member = self.member(*at);
            let grants = member.grants.iter();
            grants.filter_map(move |grant| {
                let rank = grant.rank.as_ref()?;
                let is_seen = grant
                    .by
                    .is_none_or(|(by, _)| self.has_seen(author.own, author.past, by));
                let serves = *added == FIRST_SEAT || added & grant.added != 0;
                let left = || self.has_left(author, member, grant);
                (is_seen && serves && !left()).then_some((grant, rank))
            })
        })
    }

    /// Whether nothing bars a control record from what a grant permits.
    fn stands(&self, grant: &Given, rank: &Rank, power: Power, place: RecordRef) -> bool {
        if let Some(strongest) = grant.bars.get(power)
            && !self.is_accepted(place, |by| by <= strongest)
        {
            return false;
        }
        let parting = self.forked.get(&place.log);
        parting.is_none_or(|first| place.seq < *first || self.is_accepted(place, |by| by < rank))
    }

    /// Up to where a data log stands whose author has seen so much.
    ///
    /// `id_at` tells which record is here at a place of that log; it was opened under a grant, which its
    /// opening names, by a control record. Of grants that expire only that one serves the log.
    pub(super) fn limit(
        &self,
        seat: SeatId,
        log: LogId,
        (opened_under, opened_by): (OpRef, RecordRef),
        past: &Frontier,
        id_at: &mut dyn FnMut(Seq) -> Option<RecordId>,
    ) -> Limit {
        let past = self.numbered(past, None);
        let belongs = self.belongs(seat, Devices::ThatCount, None, &past);
        let mut author = Author {
            own: None,
            past: &past,
            belongs: &belongs,
            left: &[],
        };
        let left = self.leaves_that_stand(author);
        author.left = &left;
        let mut limit = Limit {
            up_to: 0,
            beyond: Beyond::NoRole,
        };
        if self.candidates_but_left(author) {
            limit.beyond = Beyond::Left;
        }
        for (grant, rank) in self.candidates(author) {
            let serves = grant.expires.is_none() || self.is_op(grant, opened_under);
            if !serves || !grant.role.has(Power::Write) {
                continue;
            }
            let (mut up_to, mut beyond) = (Seq::MAX, Beyond::Fenced);
            if let Some(strongest) = grant.bars.get(Power::Write) {
                up_to = self.accepted_up_to(&log, |by| by <= strongest, id_at);
            }
            if self
                .forked
                .get(&opened_by.log)
                .is_some_and(|first| opened_by.seq >= *first)
                && !self.is_accepted(opened_by, |by| by < rank)
            {
                (up_to, beyond) = (0, Beyond::Forked);
            }
            if let Some(first) = self.forked.get(&log) {
                let settled = self.accepted_up_to(&log, |by| by < rank, id_at);
                let on_branch = settled.max(first.saturating_sub(1));
                if on_branch < up_to {
                    (up_to, beyond) = (on_branch, Beyond::Forked);
                }
            }
            if up_to >= limit.up_to {
                limit = Limit { up_to, beyond };
            }
        }
        limit
    }

    /// Whether nothing ever ended what a seat was given, so that all it wrote in a log stands.
    pub(super) fn is_unbarred(&self, seat: SeatId, log: &LogId) -> bool {
        let file = self.seats.get(&seat);
        let mut members = file.into_iter().flat_map(|it| &it.members);
        !self.forked.contains_key(log)
            && !self.forked.contains_key(&seat.control_log())
            && members.all(|at| {
                let member = self.member(*at);
                let mut grants = member.grants.iter();
                member.leaves.is_empty()
                    && member.removals.is_empty()
                    && grants.all(|it| it.rank.is_some() && it.bars.get(Power::Write).is_none())
            })
    }

    /// Whether a grant is the one that an op made.
    fn is_op(&self, grant: &Given, name: OpRef) -> bool {
        grant.by.is_none_or(|(by, index)| {
            self.entry(by).said.place.id == name.record && index == name.op
        })
    }

    /// Whether somebody has seen an entry: his own ones before the one at hand, and those of others in his
    /// past.
    fn has_seen(&self, own: Option<(u32, Seq)>, past: &[(u32, Seq)], at: EntryAt) -> bool {
        let entry = self.entry(at);
        let seq = entry.said.place.seq;
        if let Some((log, before)) = own
            && log == entry.log
        {
            return seq < before;
        }
        let found = past.binary_search_by_key(&entry.log, |it| it.0);
        let newest = found.ok().and_then(|at| past.get(at));
        newest.is_some_and(|(_, newest)| *newest >= seq)
    }

    /// Whether an op has seen another one. Ops of one record have seen those before them.
    fn op_has_seen(&self, op: OpAt, other: OpAt) -> bool {
        if op.0 == other.0 {
            return other.1 < op.1;
        }
        let entry = self.entry(op.0);
        let own = Some((entry.log, entry.said.place.seq));
        self.has_seen(own, &entry.past, other.0)
    }

    /// The rank of what an entry does with a power, if it stands.
    fn rank(&self, at: EntryAt, power: Power) -> Option<&Rank> {
        self.entry(at).ranks.get(power).as_ref()
    }

    /// Whether what a control record does with a power stands; nothing if it is not here.
    pub(super) fn may(&self, record: &RecordId, power: Power) -> Option<bool> {
        let at = self.at.get(record)?;
        Some(self.rank(*at, power).is_some())
    }

    /// The grants of a seat that last, each by the op that gave it; nothing for the founder's.
    pub(super) fn lasting(&self, seat: SeatId) -> impl Iterator<Item = Option<OpRef>> {
        let file = self.seats.get(&seat);
        let members = file.into_iter().flat_map(|it| &it.members);
        members.flat_map(move |at| {
            let member = self.member(*at);
            let added = member.added(seat);
            let grants = member.grants.iter();
            let lasting = grants.filter(move |it| {
                let serves = added == FIRST_SEAT || added & it.added != 0;
                serves && self.lasts(member, it)
            });
            lasting.map(|it| it.by.map(|by| self.name(by)))
        })
    }

    /// The op of an entry, by its name.
    fn name(&self, (at, op): OpAt) -> OpRef {
        let record = self.entry(at).said.place.id;
        OpRef { record, op }
    }

    /// The first seats of the members that a control record's author belongs to.
    pub(super) fn members_of(
        &self,
        seat: SeatId,
        place: RecordRef,
        past: &Frontier,
    ) -> Vec<SeatId> {
        let past = self.numbered(past, Some(place.log));
        let own = self.numbers.get(&place.log).map(|log| (*log, place.seq));
        let belongs = self.belongs(seat, Devices::All, own, &past);
        belongs
            .iter()
            .map(|(at, _)| self.member(*at).first)
            .collect()
    }

    /// The first seats of all members that a seat ever belonged to.
    pub(super) fn members_ever(&self, seat: SeatId) -> impl Iterator<Item = SeatId> {
        let file = self.seats.get(&seat);
        let members = file.into_iter().flat_map(|it| &it.members);
        members.map(|at| self.member(*at).first)
    }

    /// All seats that were ever of a member, by the first of them.
    pub(super) fn seats_of(&self, member: SeatId) -> BTreeSet<SeatId> {
        let at = self.member_at.get(&member);
        at.map_or_else(BTreeSet::new, |at| self.member(*at).seats())
    }

    /// What to tell somebody who lost all roles: what ended his grants, or those of who gave them.
    pub(super) fn farewell(&self, seat: SeatId) -> Frontier {
        let mut told = Frontier::new();
        let of_seat = self.seats.get(&seat);
        let mut to_tell: Vec<_> = of_seat.map(|it| it.members.clone()).unwrap_or_default();
        let mut told_of: BTreeSet<_> = to_tell.iter().copied().collect();
        while let Some(member) = to_tell.pop() {
            let member = self.member(member);
            let removals = member.removals.iter().map(|it| (it.0, Power::to_remove()));
            let leaves = member.leaves.iter().map(|it| (*it, Power::Belong));
            let by = member.grants.iter().filter_map(|it| Some((it.by?.0, it)));
            let given = by.clone().map(|(by, it)| (by, Power::to_grant(it.role)));
            for (at, power) in removals.chain(leaves).chain(given) {
                if self.rank(at, power).is_some() {
                    self.tell(at, &mut told);
                }
            }
            for (by, it) in by {
                if self.rank(by, Power::to_grant(it.role)).is_none() {
                    let givers = self.entry(by).belongs.iter().map(|it| it.0);
                    to_tell.extend(givers.filter(|it| told_of.insert(*it)));
                }
            }
        }
        told
    }

    /// Adds an entry and what its author had seen.
    fn tell(&self, at: EntryAt, told: &mut Frontier) {
        let entry = self.entry(at);
        told.raise(entry.said.place.log, entry.said.place.seq);
        for (number, seq) in entry.past.iter() {
            if let Some(log) = self.logs.get(*number as usize) {
                told.raise(*log, *seq);
            }
        }
    }
}

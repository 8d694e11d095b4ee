//! The grants of members, and what ends them.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use leno_crdt_codec::{Seq, Stamp};

use super::{Belongs, EntryAt, FIRST_SEAT, MemberAt, OpAt, PerPower, Power, Rank, Standing};
use crate::SeatId;
use crate::acl::DEVICES_PER_SEAT_MAX;
use crate::acl::rank::{Step, keep_least};
use crate::control::Role;

/// Somebody to whom roles are given: a seat, and the devices that it added.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) first: SeatId,
    pub(super) grants: Vec<Given>,
    pub(super) removals: Vec<OpAt>,
    pub(super) leaves: Vec<EntryAt>,
    /// What the first seat added. Each has its bit.
    devices: Vec<DeviceOf>,
}

/// A seat that was added to a member.
#[derive(Clone, Copy, Debug)]
struct DeviceOf {
    seat: SeatId,
    by: EntryAt,
    /// Whether it was added on a branch of a forked log: then it counts no more.
    is_on_a_branch: bool,
}

/// A role that was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// The op; nothing for the founder's.
    pub(super) by: Option<OpAt>,
    pub(super) role: Role,
    /// It ends with this stamp.
    pub(super) expires: Option<Stamp>,
    /// Nothing if it does not stand.
    pub(super) rank: Option<Rank>,
    /// The most senior rank that bars from it, for each power.
    pub(super) bars: Bars,
    /// The most senior rank that ended it, whatever it is needed for.
    pub(super) ended: Option<Rank>,
    /// The ops by which devices were added that it serves.
    pub(super) added: u64,
}

/// The most senior rank that bars from a grant, for each power.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Bars(PerPower<Option<Rank>>);

impl Bars {
    pub(super) fn get(&self, power: Power) -> Option<&Rank> {
        self.0.get(power).as_ref()
    }
}

impl Given {
    pub(super) fn founders() -> Self {
        Self {
            by: None,
            role: Role::Owner,
            expires: None,
            rank: None,
            bars: Bars::default(),
            ended: None,
            added: FIRST_SEAT,
        }
    }

    pub(super) fn by(op: OpAt, role: Role, expires: Option<Stamp>) -> Self {
        Self {
            by: Some(op),
            role,
            expires,
            ..Self::founders()
        }
    }
}

/// What became of a grant.
#[derive(Clone, Debug, Default)]
struct Fate {
    rank: Option<Rank>,
    bars: Bars,
    ended: Option<Rank>,
    added: u64,
}

impl Member {
    pub(super) fn new(first: SeatId) -> Self {
        Self {
            first,
            grants: Vec::new(),
            removals: Vec::new(),
            leaves: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// All seats that were ever the member's.
    pub(super) fn seats(&self) -> BTreeSet<SeatId> {
        let devices = self.devices.iter().map(|it| it.seat);
        devices.chain([self.first]).collect()
    }

    /// Adds a device, unless there are too many.
    pub(super) fn add_device(&mut self, by: EntryAt, seat: SeatId, is_on_a_branch: bool) {
        if self.devices.len() < DEVICES_PER_SEAT_MAX as usize {
            self.devices.push(DeviceOf {
                seat,
                by,
                is_on_a_branch,
            });
        }
    }

    /// The ops by which a seat was added to the member, by all that is known.
    pub(super) fn added(&self, seat: SeatId) -> u64 {
        self.added_as_seen(seat, Devices::ThatCount, |_| true)
    }

    fn added_as_seen(
        &self,
        seat: SeatId,
        which: Devices,
        is_seen: impl Fn(EntryAt) -> bool,
    ) -> u64 {
        if seat == self.first {
            return FIRST_SEAT;
        }
        let devices = self.devices.iter().enumerate();
        let devices = devices.filter(|(_, it)| {
            let counts = which == Devices::All || !it.is_on_a_branch;
            counts && it.seat == seat && is_seen(it.by)
        });
        devices.fold(0, |added, (bit, _)| added | 1 << bit)
    }
}

/// Which devices are meant.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Devices {
    /// Also those that were added on a branch of a forked log.
    All,
    ThatCount,
}

impl Standing {
    /// The members that a seat belongs to, by what somebody has seen.
    pub(super) fn belongs(
        &self,
        seat: SeatId,
        which: Devices,
        own: Option<(u32, Seq)>,
        past: &[(u32, Seq)],
    ) -> Belongs {
        let members = self.seats.get(&seat).into_iter();
        let members = members.flat_map(|it| &it.members).map(|at| {
            let is_seen = |by| self.has_seen(own, past, by);
            let added = self.member(*at).added_as_seen(seat, which, is_seen);
            (*at, added)
        });
        members.filter(|(_, added)| *added != 0).collect()
    }

    /// Whether an entry is on a branch of a forked log.
    pub(super) fn is_on_a_branch(&self, at: EntryAt) -> bool {
        let place = self.entry(at).said.place;
        let forked = self.forked.get(&place.log);
        forked.is_some_and(|first| place.seq >= *first)
    }

    /// Finds again which devices of a member count, and what belongs to it by that.
    pub(super) fn find_devices(&mut self, at: MemberAt) {
        let devices = self.member(at).devices.iter();
        let found: Vec<bool> = devices.map(|it| self.is_on_a_branch(it.by)).collect();
        for (device, is_on_a_branch) in self.member_mut(at).devices.iter_mut().zip(found) {
            device.is_on_a_branch = is_on_a_branch;
        }
        for seat in self.member(at).seats() {
            let entries = self.seats.get(&seat).map(|it| it.entries.clone());
            for at in entries.unwrap_or_default() {
                let entry = self.entry(at);
                let own = Some((entry.log, entry.said.place.seq));
                let belongs = self.belongs(seat, Devices::ThatCount, own, &entry.past);
                self.entry_mut(at).belongs = belongs;
            }
        }
    }

    /// Judges again what ended the grants of a member; tells whether something is otherwise than before.
    pub(super) fn rebar(&mut self, at: MemberAt) -> bool {
        let fates = self.fates(self.member(at));
        let mut has_changed = false;
        for (grant, fate) in self.member_mut(at).grants.iter_mut().zip(fates) {
            let is_same = (&grant.rank, &grant.bars, &grant.ended, grant.added)
                == (&fate.rank, &fate.bars, &fate.ended, fate.added);
            if !is_same {
                has_changed = true;
                grant.rank = fate.rank;
                grant.bars = fate.bars;
                grant.ended = fate.ended;
                grant.added = fate.added;
            }
        }
        has_changed
    }

    /// The rank of the op that gave a grant, if it stands.
    pub(super) fn giver(&self, grant: &Given) -> Option<&Rank> {
        let (by, _) = grant.by?;
        self.rank(by, Power::to_grant(grant.role))
    }

    /// Rule 2.
    fn rank_of(&self, grant: &Given) -> Option<Rank> {
        let Some((by, op)) = grant.by else {
            return Some(Rank::founder());
        };
        let giver = self.giver(grant)?;
        let said = &self.entry(by).said;
        let step: Step = (said.stamp, said.place.log, said.place.seq, op);
        Some(giver.of_given(grant.role, step))
    }

    /// What became of each grant of a member, in their order.
    fn fates(&self, member: &Member) -> Vec<Fate> {
        let grants = &member.grants;
        let mut fates: Vec<Fate> = grants
            .iter()
            .map(|grant| Fate {
                rank: self.rank_of(grant),
                added: FIRST_SEAT,
                ..Fate::default()
            })
            .collect();
        // A grant that ends another one which knows nothing of it wins against it, so it comes first.
        let mut order: Vec<_> = grants.iter().enumerate().collect();
        order.sort_by_key(|(_, grant)| {
            let class = self.giver(grant).map(Rank::class);
            (class, Reverse(grant.role))
        });
        for (index, grant) in order {
            let Some(rank) = fates.get(index).and_then(|it| it.rank.clone()) else {
                continue;
            };
            let mut fate = Fate {
                added: FIRST_SEAT,
                ..Fate::default()
            };
            for removal in &member.removals {
                let Some(by) = self
                    .rank(removal.0, Power::to_remove())
                    .filter(|it| **it < rank)
                else {
                    continue;
                };
                if !self.survives(grant, *removal, by) {
                    fate.end(by, None);
                    continue;
                }
                // A device serves under a grant if the removals that this has seen were seen when it was added.
                let is_out = |it: &DeviceOf| !self.op_has_seen((it.by, 0), *removal);
                for (bit, _) in member.devices.iter().enumerate().filter(|it| is_out(it.1)) {
                    fate.added &= !(1 << bit);
                }
            }
            for (other, winner) in grants.iter().zip(&fates) {
                let Some(by) = self.giver(other).filter(|it| **it < rank) else {
                    continue;
                };
                if self.replaces(other, winner.ended.as_ref(), grant, &rank) {
                    fate.end(by, Some(other.role));
                }
            }
            fate.rank = Some(rank);
            if let Some(it) = fates.get_mut(index) {
                *it = fate;
            }
        }
        fates
    }

    /// Rule 3: whether a grant is left by a removal that its member is subject to.
    pub(super) fn survives(&self, grant: &Given, removal: OpAt, rank: &Rank) -> bool {
        grant.by.is_some_and(|by| {
            let has_seen = self.op_has_seen(by, removal);
            has_seen
                && self
                    .giver(grant)
                    .is_some_and(|it| it.class() <= rank.class())
        })
    }

    /// Rule 4: whether a grant takes the place of another one to the same member, which ranks below its op.
    /// `ended` is the most senior rank that ended the winner.
    pub(super) fn replaces(
        &self,
        winner: &Given,
        ended: Option<&Rank>,
        grant: &Given,
        rank: &Rank,
    ) -> bool {
        let (Some(by), Some(other)) = (winner.by, grant.by) else {
            // The founder's grant replaces none, and was seen by all.
            return winner.by.is_some();
        };
        if self.op_has_seen(by, other) {
            return true;
        }
        if by == other || self.op_has_seen(other, by) {
            return false;
        }
        let class = |it| self.giver(it).map(Rank::class);
        let wins = match class(winner).cmp(&class(grant)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => winner.role > grant.role,
            std::cmp::Ordering::Greater => false,
        };
        wins && ended.is_none_or(|ended| ended >= rank)
    }
}

impl Fate {
    /// Notes that something of a rank ends the grant, but for what another role that was given by it permits.
    fn end(&mut self, by: &Rank, given: Option<Role>) {
        keep_least(&mut self.ended, by);
        for power in Power::ALL {
            if !given.is_some_and(|role| role.has(power)) {
                keep_least(self.bars.0.get_mut(power), by);
            }
        }
    }
}

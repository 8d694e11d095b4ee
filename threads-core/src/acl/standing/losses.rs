//! Losses of the right to read, and which epochs are safe from them.
//!
//! A record may end rights to read by what it says: whether it does depends on what stands. An epoch may be
//! sealed under as long as its own record had seen each record that does, and that its user has seen: then
//! nobody who holds its key has lost the right to read.
//!
//! It is not enough that it had seen what ended the right of each. Who was let in meanwhile, because a removal
//! fell, was given the key; and something else made the removal stand again.

use std::collections::BTreeSet;

use leno_crdt_codec::{LogId, Seq};

use super::{Act, EntryAt, Power, Said, Standing};
use crate::control::Role;
use crate::frontier::Frontier;
use crate::{RecordId, SeatId};

/// By what a record may end rights to read.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// Control logs that it shows to have two branches, and where: what whoever governs did there falls.
    forks: Vec<(LogId, Seq)>,
    /// What its author needs for what may end them.
    powers: BTreeSet<Power>,
    /// Whether it says that an owner leaves: whether that stands, later records decide.
    owner_leaves: bool,
}

impl Ends {
    fn is_empty(&self) -> bool {
        self.forks.is_empty() && self.powers.is_empty() && !self.owner_leaves
    }
}

/// Two grants to one member that know nothing of each other: one may take from the other what it permits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Clash {
    one: (EntryAt, Power),
    other: (EntryAt, Power),
}

impl Standing {
    /// Notes by what a record may end rights to read. Its own past tells that.
    pub(super) fn note_endings(&mut self, at: EntryAt, said: &Said) {
        let mut ends = Ends {
            forks: said.forks.clone(),
            ..Ends::default()
        };
        for (index, act, accepts) in &said.acts {
            let may_end = match act {
                Act::Remove { .. } => true,
                Act::Accept | Act::Device { .. } => false,
                Act::Grant { to, role, .. } => {
                    self.note_clashes((at, *index), *to, *role);
                    let is_lower = |it: Role| loses_power(it, *role);
                    self.was_given(at, *to, is_lower)
                        // Then there is another one if an owner left.
                        || (*role == Role::Owner && self.has_seen_leave(at))
                }
                Act::Leave => {
                    let members = self.entry(at).belongs.iter();
                    let firsts = members.map(|it| self.member(it.0).first);
                    let is_owner = |role| role == Role::Owner;
                    let is_owners = firsts
                        .into_iter()
                        .any(|it| self.was_given(at, it, is_owner));
                    ends.owner_leaves |= is_owners;
                    !is_owners
                }
            };
            // A removal that fell stands again by being accepted, by who had seen it.
            let accepts_endings = || {
                accepts.iter().any(|it| {
                    let accepted = self.at.get(&it.id).filter(|accepted| {
                        let is_meant = self.entry(**accepted).said.place == *it;
                        is_meant && self.op_has_seen((at, 0), (**accepted, 0))
                    });
                    let log = accepted.map(|it| self.entry(*it).log);
                    let of_log = log.and_then(|log| self.endings.get(&log));
                    of_log.is_some_and(|(_, first)| *first <= it.seq)
                })
            };
            if may_end || accepts_endings() {
                ends.powers.insert(act.power());
            }
        }
        if !ends.is_empty() {
            let (log, seq) = (self.entry(at).log, said.place.seq);
            let of_log = self.endings.entry(log).or_insert((Vec::new(), seq));
            of_log.0.push((at, ends));
        }
    }

    /// Whether a record's author has seen that somebody was given such a role.
    fn was_given(&self, at: EntryAt, to: SeatId, is_such: impl Fn(Role) -> bool) -> bool {
        let member = self.member_at.get(&to).map(|it| self.member(*it));
        let mut grants = member.into_iter().flat_map(|it| &it.grants);
        grants.any(|grant| {
            let is_seen = grant
                .by
                .is_none_or(|(by, _)| self.op_has_seen((at, 0), (by, 0)));
            is_such(grant.role) && is_seen
        })
    }

    fn has_seen_leave(&self, at: EntryAt) -> bool {
        self.has_leaves && {
            let all = self.endings.values().flat_map(|it| &it.0);
            let mut leaves = all.filter(|it| it.1.owner_leaves);
            leaves.any(|(leave, _)| self.op_has_seen((at, 0), (*leave, 0)))
        }
    }

    /// Notes the grants to the same member that know nothing of one and permit other things.
    fn note_clashes(&mut self, (at, index): (EntryAt, u32), to: SeatId, role: Role) {
        let Some(member) = self.member_at.get(&to).map(|it| self.member(*it)) else {
            return;
        };
        let clashes = member.grants.iter().filter_map(|grant| {
            let (by, _) = grant.by?;
            let clash = by != at
                && (loses_power(role, grant.role) || loses_power(grant.role, role))
                && !self.op_has_seen((at, index), (by, 0));
            clash.then(|| Clash {
                one: (at, Power::to_grant(role)),
                other: (by, Power::to_grant(grant.role)),
            })
        });
        let clashes: Vec<_> = clashes.collect();
        self.clashes.extend(clashes);
    }

    /// Whether an epoch that these records began is safe to seal under for somebody who has seen so much;
    /// all that is here if nothing is given.
    pub(in crate::acl) fn is_safe(&self, began_by: &[RecordId], past: Option<&Frontier>) -> bool {
        self.covers(began_by, &self.ends(past))
    }

    /// What ends rights to read by what stands, as far as somebody has seen it: of each log the newest record, by
    /// which those before it were seen.
    pub(in crate::acl) fn ends(&self, past: Option<&Frontier>) -> BTreeSet<EntryAt> {
        let past = past.map(|past| self.numbered(past, None));
        let past = past.as_deref();
        let newest = self.endings.iter().filter_map(|(log, (of_log, _))| {
            let seen = past.map_or(Seq::MAX, |past| {
                let found = past.binary_search_by_key(log, |it| it.0).ok();
                found.and_then(|at| past.get(at)).map_or(0, |it| it.1)
            });
            let is_seen = |at: EntryAt| self.entry(at).said.place.seq <= seen;
            let mut of_log = of_log.iter().rev();
            let newest = of_log.find(|(at, ends)| is_seen(*at) && self.ends_now(*at, ends, past));
            newest.map(|it| it.0)
        });
        let clashes = self.clashes.iter().filter(|clash| {
            let mut both = [clash.one, clash.other].into_iter();
            both.all(|(at, power)| self.is_known(past, at) && self.rank(at, power).is_some())
        });
        let clashing = clashes.flat_map(|it| [it.one.0, it.other.0]);
        newest.chain(clashing).collect()
    }

    /// Whether the records that began an epoch had seen all of these.
    pub(in crate::acl) fn covers(&self, began_by: &[RecordId], ends: &BTreeSet<EntryAt>) -> bool {
        let mut began = began_by.iter().filter_map(|id| self.at.get(id));
        began.all(|by| {
            // Who leaves holds the key that he begins.
            let mut acts = self.entry(*by).said.acts.iter();
            let leaves = acts.any(|it| matches!(it.1, Act::Leave));
            let mut ends = ends.iter();
            !leaves && ends.all(|it| it == by || self.op_has_seen((*by, 0), (*it, 0)))
        })
    }

    fn is_known(&self, past: Option<&[(u32, Seq)]>, at: EntryAt) -> bool {
        past.is_none_or(|past| self.has_seen(None, past, at))
    }

    /// Whether what a record says ends something by what stands.
    fn ends_now(&self, at: EntryAt, ends: &Ends, past: Option<&[(u32, Seq)]>) -> bool {
        let mut powers = ends.powers.iter();
        powers.any(|power| self.rank(at, *power).is_some())
            || (past.is_none()
                && ends.owner_leaves
                && self.rank(at, Power::Belong).is_some()
                && !self.void_leaves.contains(&at))
            || ends.forks.iter().any(|fork| self.is_costly(*fork, past))
    }

    /// Whether a fork of a control log may take something from others: if whoever wrote it governs, or what he
    /// wrote behind the parting was accepted. Otherwise anybody could have keys changed again and again. What
    /// stands there is no question: each peer may hold another branch.
    fn is_costly(&self, (log, first): (LogId, Seq), past: Option<&[(u32, Seq)]>) -> bool {
        let file = self.seats.get(&SeatId(log.0));
        let members = file.into_iter().flat_map(|it| &it.members);
        let mut grants = members.flat_map(|at| &self.member(*at).grants);
        grants.any(|grant| {
            let is_known = grant.by.is_none_or(|(by, _)| self.is_known(past, by));
            let bar = grant.bars.get(Power::Govern);
            let is_open = || {
                bar.is_none_or(|bar| {
                    let mut accepted = self.acceptances(&log, |by| by <= bar);
                    accepted.any(|it| it.reaches(first))
                })
            };
            grant.role.has(Power::Govern) && grant.rank.is_some() && is_known && is_open()
        })
    }
}

/// Whether the one who gets another role may not read any more, or those to whom he gave roles.
fn loses_power(before: Role, after: Role) -> bool {
    before < after && (before.governs() || (before.reads() && !after.reads()))
}

//! Losses of the right to read, and which epochs are safe from them.
//!
//! An epoch may be sealed under as long as each reading grant that its user has seen, and seen ended, was
//! ended by what the epoch's own record had seen: then nobody who holds its key has lost the right to read.
//!
//! What a record is put aside for must be what its author could know, and all peers judge alike: so whether an
//! owner's leave stands, which later ops decide, counts only for whoever seals now.

use std::collections::BTreeSet;

use leno_crdt_codec::Seq;

use super::grants::{Given, Member};
use super::{EntryAt, MemberAt, Power, Rank, Standing};
use crate::RecordId;
use crate::control::Role;
use crate::frontier::Frontier;

impl Standing {
    /// Whether an epoch that these records began is safe to seal under for somebody who has seen so much;
    /// all that is here if nothing is given.
    pub(in crate::acl) fn is_safe(&self, began_by: &[RecordId], past: Option<&Frontier>) -> bool {
        if self.ending.is_empty() {
            return true;
        }
        let past = past.map(|past| self.numbered(past, None));
        let began: Vec<_> = began_by.iter().filter_map(|id| self.at.get(id)).collect();
        self.ending.iter().all(|at| {
            let member = self.member(*at);
            let mut grants = member.grants.iter().filter(|it| {
                let is_seen = |by| self.is_known(past.as_deref(), by);
                it.role.reads() && it.by.is_none_or(|(by, _)| is_seen(by))
            });
            grants.all(|grant| {
                let mut ends = self.losses(*at, grant, &mut BTreeSet::new());
                if past.is_none() || grant.role != Role::Owner {
                    ends.extend(self.leaves_that_end(member, grant));
                }
                let mut known = ends
                    .iter()
                    .filter(|it| self.is_known(past.as_deref(), **it));
                known.next().is_none()
                    || began.iter().all(|by| {
                        let mut ends = ends.iter();
                        ends.any(|it| it == *by || self.op_has_seen((**by, 0), (*it, 0)))
                    })
            })
        })
    }

    fn is_known(&self, past: Option<&[(u32, Seq)]>, at: EntryAt) -> bool {
        past.is_none_or(|past| self.has_seen(None, past, at))
    }

    /// The records that took the right to read from a grant, or from whoever gave it the right to give it.
    fn losses(
        &self,
        at: MemberAt,
        grant: &Given,
        looked_at: &mut BTreeSet<MemberAt>,
    ) -> Vec<EntryAt> {
        let member = self.member(at);
        let Some(rank) = &grant.rank else {
            return self.losses_of_giver(grant, looked_at);
        };
        let mut ends = self.removals_of(member, grant, rank);
        for (other, fate) in member.grants.iter().map(|it| (it, &it.ended)) {
            let Some((by, giver)) = other.by.zip(self.giver(other)) else {
                continue;
            };
            let is_loss = !other.role.reads() && giver < rank;
            if is_loss && self.replaces(other, fate.as_ref(), grant, rank) {
                ends.push(by.0);
            }
        }
        ends
    }

    fn leaves_that_end(&self, member: &Member, grant: &Given) -> Vec<EntryAt> {
        let leaves = self.leaves_of(member, grant);
        let stand = leaves.filter(|it| {
            let counts = grant.role != Role::Owner || !self.void_leaves.contains(it);
            counts && self.rank(*it, Power::Belong).is_some()
        });
        stand.collect()
    }

    fn removals_of(&self, member: &Member, grant: &Given, rank: &Rank) -> Vec<EntryAt> {
        let removals = member.removals.iter().filter(|removal| {
            let by = self
                .rank(removal.0, Power::to_remove())
                .filter(|it| *it < rank);
            by.is_some_and(|by| !self.survives(grant, **removal, by))
        });
        removals.map(|it| it.0).collect()
    }

    /// What ended the power of whoever gave a grant that does not stand by that.
    fn losses_of_giver(&self, grant: &Given, looked_at: &mut BTreeSet<MemberAt>) -> Vec<EntryAt> {
        let Some((by, _)) = grant.by else {
            return Vec::new();
        };
        let power = Power::to_grant(grant.role);
        let mut ends = Vec::new();
        for (at, _) in &self.entry(by).belongs {
            if !looked_at.insert(*at) {
                continue;
            }
            let member = self.member(*at);
            for given in member.grants.iter().filter(|it| it.role.has(power)) {
                match &given.rank {
                    None => ends.extend(self.losses_of_giver(given, looked_at)),
                    Some(rank) => {
                        ends.extend(self.removals_of(member, given, rank));
                        let others = member.grants.iter().filter(|it| !it.role.has(power));
                        ends.extend(others.filter_map(|it| {
                            let stands = self.giver(it).is_some_and(|giver| giver < rank);
                            it.by.filter(|_| stands).map(|it| it.0)
                        }));
                    }
                }
            }
        }
        ends
    }

    /// Notes whether anything was ever ended for a member.
    pub(super) fn note_endings(&mut self, at: MemberAt) {
        let member = self.member(at);
        let mut grants = member.grants.iter();
        let is_whole = member.removals.is_empty()
            && member.leaves.is_empty()
            && grants.all(|it| it.rank.is_some() && it.role.reads());
        if !is_whole {
            self.ending.insert(at);
        }
    }
}

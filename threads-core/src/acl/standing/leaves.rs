//! Leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::grants::{Given, Member};
use super::{Author, EntryAt, Power, Standing};
use crate::RecordId;
use crate::control::Role;

impl Standing {
    /// The leaves of a member that end a grant: those that have seen it.
    pub(super) fn leaves_of<'a>(
        &'a self,
        member: &'a Member,
        grant: &'a Given,
    ) -> impl Iterator<Item = EntryAt> + 'a {
        let leaves = member.leaves.iter().copied();
        leaves.filter(move |leave| {
            grant
                .by
                .is_none_or(|by| self.op_has_seen((*leave, u32::MAX), by))
        })
    }

    /// Rule 6: whether somebody had left a grant by what he had seen.
    pub(super) fn has_left(&self, author: Author<'_>, member: &Member, grant: &Given) -> bool {
        let mut leaves = self.leaves_of(member, grant);
        leaves.any(|leave| {
            let is_seen = self.has_seen(author.own, author.past, leave);
            let stands = || author.left.contains(&self.entry(leave).said.place.id);
            is_seen && (grant.role != Role::Owner || stands())
        })
    }

    /// Whether somebody would have a grant, had he not left.
    pub(super) fn candidates_but_left(&self, author: Author<'_>) -> bool {
        author.belongs.iter().any(|(at, _)| {
            let member = self.member(*at);
            let mut leaves = member.leaves.iter();
            leaves.any(|it| self.has_seen(author.own, author.past, *it))
        })
    }

    /// The leaves of somebody who may have been an owner that stand by what he had seen, of which others may
    /// tell him that he was the last one. Forks are no question here: what somebody has seen does not change.
    pub(super) fn leaves_that_stand(&self, author: Author<'_>) -> Arc<[RecordId]> {
        let nothing = || Arc::new([]);
        if !self.has_leaves {
            return nothing();
        }
        let members = author.belongs.iter().map(|(at, _)| self.member(*at));
        let was_owner = |member: &Member| member.grants.iter().any(|it| it.role == Role::Owner);
        let owners = members.filter(|it| was_owner(it));
        let leaves = owners.flat_map(|it| it.leaves.iter().copied());
        let seen = leaves.filter(|it| self.has_seen(author.own, author.past, *it));
        let seen: Vec<_> = seen.collect();
        if seen.is_empty() {
            return nothing();
        }
        let mut then = Self::new(self.founder);
        then.numbers.clone_from(&self.numbers);
        for (at, entry) in (0..).map(EntryAt).zip(&self.entries) {
            if self.has_seen(author.own, author.past, at) {
                let (said, past) = (Arc::clone(&entry.said), Arc::clone(&entry.past));
                then.put(entry.log, said, past, Some(Arc::clone(&entry.left)));
                then.settle();
            }
        }
        let ids = seen.into_iter().map(|it| self.entry(it).said.place.id);
        ids.filter(|id| then.is_left_by(id)).collect()
    }

    fn is_left_by(&self, leave: &RecordId) -> bool {
        let at = self.at.get(leave);
        at.is_some_and(|at| {
            self.rank(*at, Power::Belong).is_some() && !self.void_leaves.contains(at)
        })
    }

    /// Whether a leave ends a grant in the end.
    fn is_left(&self, member: &Member, grant: &Given, void: &BTreeSet<EntryAt>) -> bool {
        let mut leaves = self.leaves_of(member, grant);
        leaves.any(|it| self.rank(it, Power::Belong).is_some() && !void.contains(&it))
    }

    /// Whether a grant stands and nothing has ended it.
    pub(super) fn lasts(&self, member: &Member, grant: &Given) -> bool {
        let remains = grant.rank.is_some() && grant.ended.is_none();
        remains && !self.is_left(member, grant, &self.void_leaves)
    }

    /// The leaves of the most senior owner, if all owners leave.
    pub(super) fn leaves_of_last_owner(&self) -> BTreeSet<EntryAt> {
        let owners = self.owners.iter().filter_map(|(at, grant)| {
            let member = self.member(*at);
            let grant = member.grants.get(*grant)?;
            let rank = grant.rank.as_ref().filter(|_| grant.ended.is_none())?;
            Some((rank, member, grant))
        });
        let owners: Vec<_> = owners.collect();
        let none = BTreeSet::new();
        let all_leave = owners
            .iter()
            .all(|(_, member, grant)| self.is_left(member, grant, &none));
        let senior = owners.iter().min_by_key(|it| it.0);
        match senior.filter(|_| all_leave) {
            Some((_, member, grant)) => self.leaves_of(member, grant).collect(),
            None => none,
        }
    }
}

//! Epochs: which there are, and which are safe to seal under.

use std::collections::{BTreeMap, BTreeSet};

use super::possible::Author;
use super::{EPOCHS_PER_SEAT_MAX, Governance, GovernanceChange, Power, VoidReason};
use crate::control::{EPOCH_PARENTS_MAX, EpochOp, EpochParent};
use crate::epoch::KeyLink;
use crate::frontier::Frontier;
use crate::{EpochId, RecordId};

/// An epoch of one key domain, by all the records that began it.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    op: EpochOp,
    /// The first record of each control log that began it.
    began: Frontier,
    /// All records that did.
    by: Vec<RecordId>,
}

impl Governance {
    pub(super) fn begin(
        &mut self,
        op: &EpochOp,
        author: &Author<'_>,
    ) -> Result<GovernanceChange, VoidReason> {
        let record = author.record;
        self.check_power(Power::Write, author)?;
        let counts = self.counts.get(&author.seat);
        if counts.is_some_and(|it| it.epochs >= EPOCHS_PER_SEAT_MAX) {
            return Err(VoidReason::TooMany);
        }
        let mut seen = record.past.clone();
        seen.raise(record.place.log, record.place.seq);
        if self.epoch_began(op.domain, &op.epoch, &seen) {
            return Err(VoidReason::EpochTaken);
        }
        if !op
            .parents
            .iter()
            .all(|parent| self.epoch_began(op.domain, &parent.epoch, &seen))
        {
            return Err(VoidReason::BadParents);
        }
        let (of_id, place) = (self.epochs.entry(op.epoch).or_default(), record.place);
        let epoch = of_id.entry(op.domain).or_insert_with(|| Epoch {
            op: op.clone(),
            began: Frontier::new(),
            by: Vec::new(),
        });
        // The same commitment again is the same key: what is known of it adds up.
        let mut parents: BTreeMap<EpochId, Option<KeyLink>> = BTreeMap::new();
        for parent in epoch.op.parents.iter().chain(&op.parents) {
            let link = parents.entry(parent.epoch).or_default();
            *link = parent.link.max(*link);
        }
        let parents = parents.into_iter();
        epoch.op.parents = parents
            .map(|(epoch, link)| EpochParent { epoch, link })
            .collect();
        if epoch.began.seq(&place.log) == 0 {
            epoch.began.raise(place.log, place.seq);
        }
        epoch.by.push(place.id);
        self.counts.entry(author.seat).or_default().epochs += 1;
        Ok(GovernanceChange::Began(op.epoch))
    }

    /// An epoch that began, in the lowest key domain if there are several.
    #[must_use]
    pub fn epoch(&self, id: &EpochId) -> Option<&EpochOp> {
        let domains = self.epochs.get(id)?;
        domains.values().next().map(|epoch| &epoch.op)
    }

    /// An epoch of a key domain that began.
    #[must_use]
    pub fn epoch_in(&self, domain: u32, id: &EpochId) -> Option<&EpochOp> {
        let epoch = self.epochs.get(id)?.get(&domain)?;
        Some(&epoch.op)
    }

    /// Tells whether an epoch began at or below a control frontier.
    #[must_use]
    pub fn epoch_began(&self, domain: u32, id: &EpochId, frontier: &Frontier) -> bool {
        let epoch = self.epochs.get(id).and_then(|it| it.get(&domain));
        epoch.is_some_and(|epoch| {
            let mut began = epoch.began.iter();
            began.any(|(log, seq)| frontier.seq(&log) >= seq)
        })
    }

    /// All epochs.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochOp> {
        self.epochs
            .values()
            .flat_map(BTreeMap::values)
            .map(|it| &it.op)
    }

    /// Tells whether an epoch is safe to seal under for somebody who has seen so much of the control logs, or
    /// all that is here: whether nobody who holds its key has lost the right to read by that.
    ///
    /// Its own record must have seen, or be, each record that ends rights to read by what stands: removals,
    /// leaves, lower roles, shown forks, and acceptances of these.
    #[must_use]
    pub fn is_safe(&self, domain: u32, id: &EpochId, past: Option<&Frontier>) -> bool {
        let epoch = self.epochs.get(id).and_then(|it| it.get(&domain));
        epoch.is_some_and(|epoch| self.standing.is_safe(&epoch.by, past))
    }

    /// The epoch to seal under: a safe one that no other safe one descends from, of several the lowest id.
    /// Nothing if there is none: then one is begun.
    #[must_use]
    pub fn sealing_epoch(&self, domain: u32) -> Option<EpochId> {
        self.sealing_epoch_among(domain, |_| true)
    }

    /// As [`Governance::sealing_epoch`], among the epochs that `held` tells: one whose key was never
    /// handed over stops nobody from writing.
    pub(crate) fn sealing_epoch_among(
        &self,
        domain: u32,
        held: impl Fn(&EpochId) -> bool,
    ) -> Option<EpochId> {
        let ends = self.standing.ends(None);
        let standing = self.standing_epochs(domain);
        let safe = standing.filter(|it| held(&it.op.epoch) && self.standing.covers(&it.by, &ends));
        newest_of(&safe.map(|it| &it.op).collect::<Vec<_>>())
    }

    /// Epochs of a domain that no other one descends from, sorted, at most as many as one may follow.
    pub(crate) fn tips(&self, domain: u32) -> Vec<EpochId> {
        let all: Vec<_> = self.standing_epochs(domain).map(|it| &it.op).collect();
        let parents = all.iter().flat_map(|it| &it.parents);
        let parents: BTreeSet<_> = parents.map(|it| it.epoch).collect();
        let tips = all.iter().map(|it| it.epoch);
        let tips: BTreeSet<_> = tips.filter(|it| !parents.contains(it)).collect();
        tips.into_iter().take(EPOCH_PARENTS_MAX).collect()
    }

    /// The epochs of a domain whose beginning stands. Others still open, and never seal.
    fn standing_epochs(&self, domain: u32) -> impl Iterator<Item = &Epoch> {
        let of_domain = self.epochs.values().filter_map(move |it| it.get(&domain));
        of_domain.filter(|epoch| {
            let mut by = epoch.by.iter();
            by.any(|record| self.stands(record, Power::Write))
        })
    }
}

/// Of epochs, one that no other one descends from, the lowest of several.
fn newest_of(epochs: &[&EpochOp]) -> Option<EpochId> {
    let parents = epochs.iter().flat_map(|it| &it.parents);
    let parents: BTreeSet<_> = parents.map(|it| it.epoch).collect();
    let ids = || epochs.iter().map(|it| it.epoch);
    // Colluding minters of one key could make a circle; then all of them are as good.
    ids()
        .filter(|id| !parents.contains(id))
        .min()
        .or(ids().min())
}

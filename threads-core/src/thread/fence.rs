//! Which data records stand, as far as governance tells: what lies beyond the fence of whoever was removed
//! does not, whenever that was learned.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow, RangeInclusive};

use leno_crdt_codec::cbor::Decoder;
use leno_crdt_codec::{LogId, Seq};

use super::log::{Log, decode_frontier};
use super::{Changes, Quarantine, Thread, ThreadEvent};
use crate::acl::{Beyond, Limit};
use crate::frontier::Frontier;
use crate::store::{Direction, Overlay, StoreError, Table, View};
use crate::{RecordRef, SeatId, keys};

/// Records of a data log, one after the other, that do not stand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fenced {
    /// First and last.
    pub seqs: RangeInclusive<Seq>,
    /// Why.
    pub reason: Quarantine,
}

/// Records that were admitted before and stand now, or do not stand any more: whoever folds records
/// into something folds again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejudged {
    /// Their log.
    pub log: LogId,
    /// First and last.
    pub seqs: RangeInclusive<Seq>,
    /// Whether they stand now.
    pub stands: bool,
}

impl From<Beyond> for Quarantine {
    fn from(beyond: Beyond) -> Self {
        match beyond {
            Beyond::NoRole => Self::NoRole,
            Beyond::Fenced => Self::Fenced,
            Beyond::Left => Self::Left,
            Beyond::Forked => Self::Forked,
        }
    }
}

impl Thread {
    /// The admitted records of a data log that do not stand, oldest first.
    pub fn fenced(&self, log: &LogId) -> &[Fenced] {
        self.logs.get(log).map_or(&[], |log| &log.fenced)
    }

    /// How many records [`Thread::put_aside`] lists.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn count_put_aside(&self, view: &dyn View) -> Result<u64, StoreError> {
        let quarantined = self.quarantined(view)?;
        let others = quarantined
            .iter()
            .filter(|(it, _)| !self.is_fenced(&it.log, it.seq));
        let fenced = self.logs.values().flat_map(|log| &log.fenced);
        let fenced = fenced.map(|it| it.seqs.end() - it.seqs.start() + 1);
        Ok(others.count() as u64 + fenced.sum::<u64>())
    }

    /// What a removal of a member accepts that puts nothing aside which stands here: each log of its seats, up
    /// to the last record that is admitted and stands. Sorted, as an op takes it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn acceptances(
        &self,
        view: &dyn View,
        member: SeatId,
    ) -> Result<Vec<RecordRef>, StoreError> {
        let seats = self.governance.seats_of(member);
        let logs = seats.into_iter().flat_map(|seat| {
            let data = self.governance.logs_of(seat);
            data.chain([seat.control_log()])
        });
        let logs: BTreeSet<LogId> = logs.collect();
        let mut accepts = Vec::new();
        for id in logs {
            let Some(log) = self.logs.get(&id) else {
                continue;
            };
            let mut seq = log.admitted;
            if let Some(last) = log.fenced.last().filter(|it| *it.seqs.end() == seq) {
                seq = last.seqs.start() - 1;
            }
            if seq == 0 {
                continue;
            }
            if let Some((record, _)) = self.place_of(view, id, log, seq)? {
                let (log, id) = (id, record);
                accepts.push(RecordRef { log, seq, id });
            }
        }
        Ok(accepts)
    }

    /// Tells whether a data record is beyond a fence.
    pub(super) fn is_fenced(&self, log: &LogId, seq: Seq) -> bool {
        self.fenced(log).iter().any(|it| it.seqs.contains(&seq))
    }

    /// Up to where a data log stands for records with this control frontier.
    pub(super) fn limit_of(
        &self,
        view: &dyn View,
        id: LogId,
        log: &Log,
        past: &Frontier,
    ) -> Result<Limit, StoreError> {
        if self.governance.is_unbarred(&id) {
            return Ok(Limit::NONE);
        }
        let mut failed = None;
        let mut id_at = |seq| {
            let place = (seq <= log.tip.seq).then(|| self.place_of(view, id, log, seq));
            place?.unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        };
        let limit = self
            .governance
            .limit(&id, past, &mut |seq| id_at(seq).map(|(id, _)| id));
        failed.map_or(Ok(limit), Err)
    }

    /// Judges data records again for whose authors governance changed, and the roster.
    pub(super) fn rejudge(
        &mut self,
        view: &dyn View,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let touched = self.governance.take_touched();
        let of_seats = touched.seats.iter();
        let of_seats = of_seats.flat_map(|seat| self.governance.logs_of(*seat));
        let logs: BTreeSet<LogId> = of_seats.chain(touched.logs).collect();
        for id in logs {
            self.rejudge_log(view, id, changes)?;
        }
        if touched.have_losses_changed {
            self.rejudge_leaks(view, changes)?;
        }
        if touched.has_fallen && self.build_roster(view, changes)? {
            changes.tell(self.id, ThreadEvent::RosterChanged);
        }
        Ok(())
    }

    /// Judges all data records, after loading.
    pub(super) fn fence_all(&mut self, view: &dyn View) -> Result<(), StoreError> {
        let _ = self.governance.take_touched();
        let data = self.logs.iter().filter(|(_, log)| !log.is_control);
        let fences = data.map(|(id, log)| Ok((*id, self.fences_of(view, *id, log)?)));
        let fences: Vec<_> = fences.collect::<Result<_, StoreError>>()?;
        for (id, fenced) in fences {
            if let Some(log) = self.logs.get_mut(&id) {
                log.fenced = fenced;
            }
        }
        Ok(())
    }

    pub(super) fn rejudge_log(
        &mut self,
        view: &dyn View,
        id: LogId,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let Some(log) = self.logs.get(&id).filter(|it| !it.is_control) else {
            return Ok(());
        };
        let overlay = Overlay::new(view, &changes.batch);
        let fenced = self.fences_of(&overlay, id, log)?;
        if fenced == log.fenced {
            return Ok(());
        }
        let before = self.set_fences(id, fenced);
        self.save_log(id, changes);
        let now = self.fenced(&id);
        let (fallen, risen) = (minus(now, &before), minus(&before, now));
        let fallen = fallen.into_iter().map(|seqs| (seqs, false));
        for (seqs, stands) in fallen.chain(risen.into_iter().map(|seqs| (seqs, true))) {
            let log = id;
            changes
                .rejudged
                .push((self.id, Rejudged { log, seqs, stands }));
        }
        changes.tell(self.id, ThreadEvent::Rejudged { log: id });
        Ok(())
    }

    /// Keeps what does not stand of a log; returns what did not before.
    fn set_fences(&mut self, id: LogId, fenced: Vec<Fenced>) -> Vec<Fenced> {
        let Some(log) = self.logs.get_mut(&id) else {
            return Vec::new();
        };
        // What was not opened while it was fenced may lack its key.
        let risen = minus(&log.fenced, &fenced);
        if let Some(first) = risen.first() {
            log.gap = Some(
                log.gap
                    .map_or(*first.start(), |gap| gap.min(*first.start())),
            );
        }
        std::mem::replace(&mut log.fenced, fenced)
    }

    /// Judges again of all data records whether they were sealed under a safe epoch: that was kept when they
    /// came, and seldom changes.
    fn rejudge_leaks(&mut self, view: &dyn View, changes: &mut Changes) -> Result<(), StoreError> {
        let overlay = Overlay::new(view, &changes.batch);
        let kept: BTreeMap<(LogId, Seq), Quarantine> = self
            .quarantined(&overlay)?
            .into_iter()
            .map(|(record, reason)| ((record.log, record.seq), reason))
            .collect();
        let mut news = Vec::new();
        for (id, log) in self.logs.iter().filter(|(_, log)| !log.is_control) {
            let mut steps = self.steps(&overlay, log)?.into_iter().peekable();
            let mut past = log.opened.clone();
            let mut safe = None;
            self.each_record(&overlay, *id, log, &(1..=log.admitted), &mut |record| {
                while let Some((_, next)) = steps.next_if(|(at, _)| *at <= record.seq) {
                    (past, safe) = (next, None);
                }
                let reason = kept.get(&(*id, record.seq));
                let is_bad = reason.is_some_and(|it| *it != Quarantine::Leaky);
                let is_safe = self.is_safe(record.key, &past, &mut safe);
                if !is_bad && is_safe == reason.is_some() {
                    let (log, seq, id) = (*id, record.seq, record.id);
                    news.push((RecordRef { log, seq, id }, is_safe));
                }
            })?;
        }
        for (record, is_safe) in news {
            let Some(number) = self.logs.get(&record.log).map(|log| log.number) else {
                continue;
            };
            if is_safe {
                let key = keys::record(self.number, number, record.seq);
                changes.batch.delete(Table::Parked, key);
                if let Some(log) = self.logs.get_mut(&record.log) {
                    // Its key may not be here.
                    log.gap = Some(log.gap.map_or(record.seq, |gap| gap.min(record.seq)));
                }
                self.save_log(record.log, changes);
            } else {
                self.quarantine(record, number, Quarantine::Leaky, changes);
            }
            let rejudged = Rejudged {
                log: record.log,
                seqs: record.seq..=record.seq,
                stands: is_safe,
            };
            changes.rejudged.push((self.id, rejudged));
        }
        Ok(())
    }

    /// Visits stored records of a log in order.
    pub(super) fn each_record(
        &self,
        view: &dyn View,
        id: LogId,
        log: &Log,
        seqs: &RangeInclusive<Seq>,
        visit: &mut dyn FnMut(&crate::Record<'_>),
    ) -> Result<(), StoreError> {
        let mut failed = None;
        let from = *seqs.start();
        self.scan_entry(
            view,
            log,
            from,
            &mut |_, row| match self.derive_row(id, row) {
                Ok(run) => {
                    let wanted = run.records().iter().filter(|it| seqs.contains(&it.seq));
                    wanted.for_each(&mut *visit);
                    match run.tip().seq < *seqs.end() {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        failed.map_or(Ok(()), Err)
    }

    /// What does not stand of the admitted records of a log.
    pub(super) fn fences_of(
        &self,
        view: &dyn View,
        id: LogId,
        log: &Log,
    ) -> Result<Vec<Fenced>, StoreError> {
        let mut fenced = Vec::new();
        if log.admitted == 0 || self.governance.is_unbarred(&id) {
            return Ok(fenced);
        }
        let mut from = 1;
        let mut past = log.opened.clone();
        for (at, next) in self.steps(view, log)? {
            if at > log.admitted {
                break;
            }
            self.fence(view, (id, log), &past, from..=at - 1, &mut fenced)?;
            (from, past) = (at, next);
        }
        self.fence(view, (id, log), &past, from..=log.admitted, &mut fenced)?;
        Ok(fenced)
    }

    fn fence(
        &self,
        view: &dyn View,
        (id, log): (LogId, &Log),
        past: &Frontier,
        seqs: RangeInclusive<Seq>,
        fenced: &mut Vec<Fenced>,
    ) -> Result<(), StoreError> {
        if seqs.is_empty() {
            return Ok(());
        }
        let limit = self.limit_of(view, id, log, past)?;
        if let Some(first) = limit.up_to.checked_add(1).map(|it| it.max(*seqs.start()))
            && first <= *seqs.end()
        {
            add_fenced(fenced, first..=*seqs.end(), limit.beyond.into());
        }
        Ok(())
    }

    /// The places at which the control frontier of a log changes, and what it is from there on.
    fn steps(&self, view: &dyn View, log: &Log) -> Result<Vec<(Seq, Frontier)>, StoreError> {
        let (low, high) = (
            keys::step(self.number, log.number, 0),
            keys::step(self.number, log.number, Seq::MAX),
        );
        let (from, to) = (
            Bound::Included(low.as_slice()),
            Bound::Included(high.as_slice()),
        );
        let (mut steps, mut failed) = (Vec::new(), None);
        view.scan(
            Table::Logs,
            from,
            to,
            Direction::Forward,
            &mut |key, row| {
                let frontier = decode_frontier(&mut Decoder::new(row), &self.ids);
                match (keys::seq(key), frontier) {
                    (Some(seq), Ok(frontier)) => steps.push((seq, frontier)),
                    (_, Err(error)) => failed = Some(error.to_string()),
                    (None, _) => failed = Some("its place".to_owned()),
                }
                ControlFlow::Continue(())
            },
        )?;
        match failed {
            None => Ok(steps),
            Some(error) => Err(StoreError::Corrupt {
                what: format!("a frontier: {error}"),
            }),
        }
    }
}

/// Adds records that do not stand behind those that were found before.
pub(super) fn add_fenced(fenced: &mut Vec<Fenced>, seqs: RangeInclusive<Seq>, reason: Quarantine) {
    if let Some(last) = fenced.last_mut()
        && last.reason == reason
        && last.seqs.end() + 1 == *seqs.start()
    {
        last.seqs = *last.seqs.start()..=*seqs.end();
        return;
    }
    fenced.push(Fenced { seqs, reason });
}

/// The records of the one that are none of the other, both in their order.
fn minus(one: &[Fenced], other: &[Fenced]) -> Vec<RangeInclusive<Seq>> {
    let mut left = Vec::new();
    for it in one {
        let mut from = *it.seqs.start();
        for taken in other.iter().map(|it| &it.seqs) {
            if taken.end() < &from || taken.start() > it.seqs.end() {
                continue;
            }
            if *taken.start() > from {
                left.push(from..=taken.start() - 1);
            }
            from = from.max(taken.end() + 1);
        }
        if from <= *it.seqs.end() {
            left.push(from..=*it.seqs.end());
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fenced_anew_is_told_apart() {
        let ranges = |all: &[(Seq, Seq)]| {
            let all = all.iter().map(|(from, to)| Fenced {
                seqs: *from..=*to,
                reason: Quarantine::Fenced,
            });
            all.collect::<Vec<_>>()
        };
        for (one, other, expected) in [
            (&[(1, 9)][..], &[][..], &[1..=9][..]),
            (&[(1, 9)], &[(1, 9)], &[]),
            (&[(1, 9)], &[(3, 4), (7, 20)], &[1..=2, 5..=6]),
            (&[(1, 2), (5, 9)], &[(2, 5)], &[1..=1, 6..=9]),
            (&[(4, 6)], &[(1, 3), (7, 9)], &[4..=6]),
        ] {
            assert_eq!(minus(&ranges(one), &ranges(other)), expected);
        }
        let mut fenced = Vec::new();
        for (seqs, reason) in [
            (1..=2, Quarantine::Fenced),
            (3..=3, Quarantine::Fenced),
            (4..=9, Quarantine::NoRole),
            (11..=11, Quarantine::NoRole),
        ] {
            add_fenced(&mut fenced, seqs, reason);
        }
        let found: Vec<_> = fenced.into_iter().map(|it| it.seqs).collect();
        assert_eq!(found, [1..=3, 4..=9, 11..=11]);
    }
}

//! Ranges: taking in runs, and what follows from it.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use leno_crdt_codec::{LogId, Seq, bug};

use super::Step;
use crate::store::StoreError;
use crate::sync::error::SyncError;
use crate::sync::message::{LogName, Message};
use crate::sync::slot::Slot;
use crate::thread::{Opened, Parked, ReceiveError, ThreadEvent};
use crate::{RecordRef, Run, ThreadId, VerifyError};

/// What became of runs.
pub(in crate::sync) struct Taken {
    pub(in crate::sync) stored: u64,
    pub(in crate::sync) admitted: u64,
    /// Behind the last record that was looked at.
    pub(in crate::sync) at: Seq,
    /// The newest record of the log that is here now.
    pub(in crate::sync) tip: Seq,
    /// Why the rest was not taken in.
    pub(in crate::sync) outcome: Result<(), ReceiveError>,
}

impl Step<'_, '_> {
    pub(super) fn range(
        &mut self,
        number: u32,
        name: LogName,
        first: Seq,
        runs: &[Run<'_>],
    ) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        let thread = self.replica.thread(&id);
        let is_here = |log: &LogId| thread.is_some_and(|it| it.log(log).is_some());
        let is_strange = matches!(&name, LogName::New(log) if !is_here(log));
        if self.matched(id)?.is_muted {
            return Ok(());
        }
        // Whoever may open logs bounds those that are here. Others take room for nothing.
        let may_be_named = !is_strange || self.session("a range")?.admit_sent(&id);
        let matched = self.matched(id)?;
        let (log, log_number) = match name {
            LogName::New(log) => {
                if !may_be_named {
                    matched.is_muted = true;
                    return Err(SyncError::TooManyLogs { peer, thread: id });
                }
                if !matched.known_in.insert(log) {
                    let what = "a second name of a log";
                    return Err(SyncError::OutOfTurn { peer, what });
                }
                matched.named_in.push(log);
                (log, matched.named_in.len() - 1)
            }
            LogName::Known(number) => {
                let log = matched.named_in.get(number as usize).copied();
                let what = "a range of a log that was not named";
                (
                    log.ok_or(SyncError::OutOfTurn { peer, what })?,
                    number as usize,
                )
            }
        };
        let log_number = u32::try_from(log_number).unwrap_or(u32::MAX);
        *matched.ranges_in.entry(log_number).or_default() += 1;
        if matched.is_unwanted(&log) {
            // Told all the same, or the other side takes it for under way and never sends it again.
            let tip = self.replica.thread(&id).and_then(|it| it.log(&log));
            let tip = tip.map_or(0, |log| log.tip.seq);
            self.matched(id)?.acks.insert(log_number, tip);
            self.wake(id);
            return Ok(());
        }
        let Some(taken) = self.take_runs(id, log, first, runs) else {
            return Err(SyncError::OutOfTurn {
                peer,
                what: "a range before the genesis",
            });
        };
        let Taken { at, tip, .. } = taken;
        let matched = self.matched(id)?;
        let records: u64 = runs.iter().map(|run| run.count() as u64).sum();
        if !bug!(ProgressLeaks) {
            matched.expected = matched.expected.saturating_sub(records);
        }
        if at > first {
            let theirs = matched.theirs.entry(log).or_default();
            *theirs = (at - 1).max(*theirs);
            // It keeps what it sends, also what it did not keep when it was sent here.
            let acked = matched.acked.entry(log).or_default();
            *acked = (at - 1).max(*acked);
        }
        matched.acks.insert(log_number, tip);
        if taken.stored > 0 && taken.outcome.is_ok() {
            self.replica.refusals.healed(peer, id, log);
        }
        if taken.stored > 0 || taken.admitted > 0 {
            self.replica.touched(id);
        } else if taken.outcome.is_ok() {
            self.replica.was_duplicate(peer, id);
        }
        self.note_delivery(id, &log, records, &taken)?;
        self.after_runs(id, log, &taken)?;
        self.ask_about_forks(id)?;
        self.wake(id);
        match taken.outcome {
            Ok(()) => Ok(()),
            Err(source) => self.refuse(id, log, tip, source),
        }
    }

    /// Has the other side pause if somebody else sends the same.
    fn note_delivery(
        &mut self,
        id: ThreadId,
        log: &LogId,
        records: u64,
        taken: &Taken,
    ) -> Result<(), SyncError> {
        let peer = self.peer;
        if taken.outcome.is_err() {
            self.replica.delivery_over(&peer, &id);
            return Ok(());
        }
        let log = self.replica.thread(&id).and_then(|it| it.log(log));
        let is_data = log.is_some_and(|log| !log.is_control);
        if is_data && self.knows_peer(id) && self.replica.delivered(peer, id, records, taken.stored)
        {
            let thread = self.matched(id)?.number;
            let pause = Message::Pause { thread }.encode();
            self.session("a range")?.urgent.push_back(pause);
        }
        Ok(())
    }

    /// Takes in runs of a log that begin at `first`, up to one that is refused; nothing before the
    /// genesis is here.
    pub(in crate::sync) fn take_runs(
        &mut self,
        id: ThreadId,
        log: LogId,
        first: Seq,
        runs: &[Run<'_>],
    ) -> Option<Taken> {
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return None;
        };
        let mut taken = Taken {
            stored: 0,
            admitted: 0,
            at: first,
            tip: 0,
            outcome: Ok(()),
        };
        for run in runs {
            let mut sink = |opened: &Opened<'_>| (self.sink)(id, opened);
            let (view, at, now) = (self.view, taken.at, self.now);
            match thread.receive(view, log, at, *run, now, self.changes, &mut sink) {
                Ok(received) => {
                    taken.stored += received.stored;
                    taken.admitted += received.admitted;
                }
                Err(source) => {
                    taken.outcome = Err(source);
                    break;
                }
            }
            taken.at = at.saturating_add(run.count() as u64);
        }
        taken.tip = thread.log(&log).map_or(0, |log| log.tip.seq);
        Some(taken)
    }

    /// What follows for the thread from runs that were taken in.
    pub(in crate::sync) fn after_runs(
        &mut self,
        id: ThreadId,
        log: LogId,
        taken: &Taken,
    ) -> Result<(), StoreError> {
        self.after_governance(id);
        if matches!(taken.outcome, Err(ReceiveError::Forked { .. })) {
            self.after_fork(id, log)?;
        }
        Ok(())
    }

    /// Notes that a range was refused, and asks about a branch if that may be the reason.
    fn refuse(
        &mut self,
        id: ThreadId,
        log: LogId,
        tip: Seq,
        source: ReceiveError,
    ) -> Result<(), SyncError> {
        let peer = self.peer;
        let knows_peer = self.knows_peer(id);
        let status = self.replica.thread(&id).and_then(|thread| thread.log(&log));
        let matched = self.matched(id)?;
        let thread = matched.number;
        let declined = |is_full| {
            let refused = Message::Refused {
                thread,
                log,
                is_full,
            };
            refused.encode()
        };
        let answer = match &source {
            ReceiveError::Store(error) => return Err(SyncError::Store(error.clone())),
            // Governance that opens the log may come yet: vectors are exchanged again then.
            // Nobody's fault: the record that opens it may be held, or under way from another peer.
            ReceiveError::UnknownLog { .. } => {
                matched.unknown.insert(log);
                matched.let_go.insert(log);
                return Ok(());
            }
            // Nobody's fault either, and told when the first of them began to wait. What they wait for
            // may be behind them in the queue, so the other side is to go on with other logs.
            ReceiveError::TooManyParked { .. } => {
                let admitted = status.map_or(0, |log| log.admitted);
                let waiting = tip.saturating_sub(admitted);
                matched.full.insert(log, admitted + waiting.div_ceil(2));
                matched.let_go.insert(log);
                return self.answer(id, "a range", declined(true));
            }
            // Until the quota is raised, or another session tries again.
            ReceiveError::OverQuota { .. } => {
                matched.full.insert(log, Seq::MAX);
                Some(declined(true))
            }
            ReceiveError::NotPublished { .. } => None,
            ReceiveError::Gap { .. } if matched.let_go.contains(&log) => {
                if knows_peer {
                    matched.refresh();
                }
                self.wake(id);
                return Ok(());
            }
            ReceiveError::Gap { .. } => {
                // A stranger would learn where the log stands.
                if knows_peer {
                    matched.refresh();
                }
                None
            }
            ReceiveError::Refused {
                source: VerifyError::NotSigned { .. },
                ..
            } => {
                matched.refused.insert(log);
                self.replica
                    .refusals
                    .refused(peer, id, log, self.now.millis());
                let matched = self.matched(id)?;
                if tip > 0 && !matched.asked.contains_key(&log) {
                    matched.to_ask.insert(log, tip);
                }
                Some(declined(false))
            }
            ReceiveError::Refused { .. } | ReceiveError::Forked { .. } => {
                matched.refused.insert(log);
                self.replica
                    .refusals
                    .refused(peer, id, log, self.now.millis());
                Some(declined(false))
            }
        };
        if let Some(answer) = answer {
            self.answer(id, "a range", answer)?;
        }
        self.wake(id);
        Err(SyncError::Range {
            peer,
            thread: id,
            source,
        })
    }

    /// New logs may have been opened: what peers have of them was refused before.
    pub(super) fn after_governance(&mut self, id: ThreadId) {
        let governed = self
            .changes
            .events
            .contains(&(id, ThreadEvent::GovernanceChanged));
        if !governed {
            return;
        }
        if let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) {
            thread.wrap_missing(self.rng, self.changes);
        }
        self.replica.governed(id);
    }

    /// Asks about records that this range names and that differ from those which are here.
    fn ask_about_forks(&mut self, id: ThreadId) -> Result<(), SyncError> {
        let named: Vec<RecordRef> = self
            .changes
            .events
            .iter()
            .filter_map(|(thread, event)| {
                let ThreadEvent::Waits { parked, .. } = event else {
                    return None;
                };
                let Parked::Fork(it) = parked else {
                    return None;
                };
                (*thread == id).then_some(*it)
            })
            .collect();
        for it in named {
            let matched = self.matched(id)?;
            if !matched.asked.contains_key(&it.log) {
                matched.to_ask.insert(it.log, it.seq);
            }
        }
        Ok(())
    }
}

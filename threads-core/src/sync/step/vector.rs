//! Vectors, announcements and acknowledgements: what the other side has.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use leno_crdt_codec::{LogId, Seq, bug};

use super::Step;
use crate::ThreadId;
use crate::store::{Overlay, StoreError, Table, View};
use crate::sync::error::SyncError;
use crate::sync::message::{AckLog, HaveLog};
use crate::sync::replica::{Replica, outbox_key};
use crate::sync::slot::Slot;
use crate::thread::{Changes, Thread};

impl Step<'_, '_> {
    pub(super) fn have(
        &mut self,
        number: u32,
        subscribe: bool,
        wraps: [u8; 8],
        mut logs: Vec<HaveLog>,
    ) -> Result<(), SyncError> {
        let id = self.thread_id(number)?;
        let wraps_level = self
            .replica
            .thread(&id)
            .filter(|thread| thread.wraps_digest() == wraps)
            .map(Thread::wraps_kept);
        let knows_peer = self.knows_peer(id);
        let (mut differing, level_logs) = self.judge(id, &logs)?;
        if knows_peer {
            // Who was asked before may not have had the branch that is waited for.
            let thread = self.replica.thread(&id);
            differing.extend(thread.into_iter().flat_map(Thread::unproven_forks));
        }
        self.forget_strange(id, &mut logs);
        let matched = self.matched(id)?;
        // What it did not keep when it was sent here may have come to it from others since.
        for (log, seq) in level_logs {
            let acked = matched.acked.entry(log).or_default();
            *acked = seq.max(*acked);
        }
        matched.ask_about(differing);
        let is_new = subscribe && !matched.subscribed;
        matched.wraps_level = wraps_level;
        matched.haves_in = matched.haves_in.saturating_add(1);
        matched.subscribed = subscribe;
        matched.theirs = logs.iter().map(|it| (it.log, it.seq)).collect();
        if bug!(AckOfUnsent) && !logs.is_empty() {
            let here = self.replica.thread(&id).map(Thread::logs);
            let here: Vec<_> = here
                .into_iter()
                .flatten()
                .map(|it| (it.id, it.tip.seq))
                .collect();
            self.matched(id)?.theirs.extend(here);
        }
        let matched = self.matched(id)?;
        let declined = logs.iter().filter(|it| it.is_declined());
        matched.unwanted = declined.map(|it| it.log).collect();
        let full = logs.iter().filter(|it| it.lacks_room());
        matched.full_there = full.map(|it| it.log).collect();
        matched.unjudged = if knows_peer { Vec::new() } else { logs };
        // What is under way was not there yet when the other side wrote its vector.
        for (log, last) in matched.under_way().collect::<Vec<_>>() {
            let theirs = matched.theirs.entry(log).or_default();
            *theirs = last.max(*theirs);
        }
        matched.restart_data();
        matched.up_to_date_sent = false;
        matched.totals_sent = false;
        let peer = self.peer;
        if subscribe {
            self.replica.follow(peer, id);
        }
        let Replica {
            sessions,
            slots,
            signals,
            ..
        } = &mut *self.replica;
        let matched = sessions
            .get_mut(&peer)
            .and_then(|it| it.matched.get_mut(&id));
        if let (Some(matched), Some(Slot::Open(thread))) = (matched, slots.get(&id)) {
            matched.pull_all(thread);
            if is_new {
                matched.greet(id, signals);
            }
        }
        self.wake(id);
        Ok(())
    }

    /// What a peer says to have is compared with what is here: which logs differ, and which are shown to
    /// be level, by the hash of the newest record here; that they are kept is noted.
    fn judge(&mut self, id: ThreadId, logs: &[HaveLog]) -> Result<Judged, StoreError> {
        let session = self.replica.sessions.get(&self.peer);
        let (Some(session), Some(thread)) = (session, self.replica.thread(&id)) else {
            return Ok(Judged::default());
        };
        if !self.knows_peer(id) {
            return Ok(Judged::default());
        }
        // Whoever knows the hash has the record: it is kept, although its acknowledgement, or the
        // row that noted it, was lost.
        let is_same = |it: &&HaveLog| {
            let here = thread.log(&it.log).filter(|log| log.tip.seq == it.seq);
            here.is_some_and(|log| session.short_hash(&log.tip.id) == it.hash)
        };
        let same: Vec<_> = logs
            .iter()
            .filter(is_same)
            .map(|it| (it.log, it.seq))
            .collect();
        note_kept(self.view, self.changes, thread, &same)?;
        Ok((session.differing(thread, logs), same))
    }

    /// Forgets of a vector what there is no room for.
    fn forget_strange(&mut self, id: ThreadId, logs: &mut Vec<HaveLog>) {
        let Replica {
            sessions, slots, ..
        } = &mut *self.replica;
        let thread = match slots.get(&id) {
            Some(Slot::Open(thread)) => Some(thread.as_ref()),
            _ => None,
        };
        if let Some(session) = sessions.get_mut(&self.peer) {
            session.forget_strange(&id, thread, logs);
        }
    }

    /// Takes in what a peer has by now and does not push.
    pub(super) fn announce(
        &mut self,
        number: u32,
        has_room: bool,
        logs: &[HaveLog],
    ) -> Result<(), SyncError> {
        let (id, peer) = (self.thread_id(number)?, self.peer);
        self.matched(id)?;
        if !self.knows_peer(id) {
            return Ok(());
        }
        let (differing, kept) = self.judge(id, logs)?;
        let is_same = |it: &&HaveLog| !differing.iter().any(|(log, _)| *log == it.log);
        let same: Vec<_> = logs.iter().filter(is_same).copied().collect();
        let matched = self.matched(id)?;
        matched.ask_about(differing);
        for (log, seq) in kept {
            let acked = matched.acked.entry(log).or_default();
            *acked = seq.max(*acked);
        }
        self.replica.announced(peer, id, has_room, &same);
        Ok(())
    }

    pub(super) fn ack(&mut self, number: u32, logs: &[AckLog]) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        self.wrap_due(id);
        let mut kept = Vec::new();
        for AckLog {
            number,
            seq,
            ranges,
        } in logs
        {
            let matched = self.matched(id)?;
            let log = matched.log_of_number.get(number).copied();
            let what = "an acknowledgement of a log that was not named";
            let log = log.ok_or(SyncError::OutOfTurn { peer, what })?;
            let tip = self.replica.thread(&id).and_then(|it| it.log(&log));
            let tip = tip.map_or(0, |log| log.tip.seq);
            let matched = self.matched(id)?;
            let before = matched.ranges_done.insert(log, *ranges);
            let more = ranges.saturating_sub(before.unwrap_or_default());
            matched.ranges_looked_at = matched.ranges_looked_at.saturating_add(more);
            // It can keep no more than it was sent.
            let sent = matched.theirs.get(&log).copied().unwrap_or_default();
            let seq = sent.min(tip).min(*seq);
            let acked = matched.acked.entry(log).or_default();
            *acked = seq.max(*acked);
            kept.push((log, seq));
        }
        if self.matched(id)?.data_looked_at() {
            self.wake(id);
        }
        if let Some(thread) = self.replica.thread(&id) {
            note_kept(self.view, self.changes, thread, &kept)?;
        }
        Ok(())
    }
}

/// Logs that differ and logs that are level, each with its newest record.
type Judged = (Vec<(LogId, Seq)>, Vec<(LogId, Seq)>);

/// Notes which records of the own log somebody else keeps.
pub(in crate::sync) fn note_kept(
    view: &dyn View,
    changes: &mut Changes,
    thread: &Thread,
    kept: &[(LogId, Seq)],
) -> Result<(), StoreError> {
    for (log, seq) in kept {
        if thread.own_log() != Some(*log) {
            continue;
        }
        let key = outbox_key(thread, log);
        let known = Overlay::new(view, &changes.batch).get(Table::Outbox, &key)?;
        let known = known.and_then(|row| row.first_chunk().copied());
        if known.is_none_or(|known| Seq::from_be_bytes(known) < *seq) {
            changes
                .batch
                .put(Table::Outbox, key, seq.to_be_bytes().to_vec());
        }
    }
    Ok(())
}

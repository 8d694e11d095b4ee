//! Questions about a log of which both sides hold different records, and their answers.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use leno_crdt_codec::{LogId, Seq};

use super::Step;
use crate::fork::Branch;
use crate::store::StoreError;
use crate::sync::error::SyncError;
use crate::sync::slot::Slot;
use crate::thread::{Opened, Thread};
use crate::{Header, SignedHead, ThreadId};

/// Most questions that a peer may ask about one thread in a session: an answer is long.
const QUESTIONS_MAX: u32 = 1024;

impl Step<'_, '_> {
    pub(super) fn question(&mut self, number: u32, log: LogId, from: Seq) -> Result<(), SyncError> {
        let id = self.thread_id(number)?;
        let peer = self.peer;
        let is_known = self.replica.thread(&id).and_then(|it| it.log(&log));
        let matched = self.matched(id)?;
        if matched.questions_count >= QUESTIONS_MAX {
            let what = "questions";
            return Err(SyncError::TooMany { peer, what });
        }
        matched.questions_count += 1;
        if is_known.is_some() {
            matched.questions.insert(log, from);
            self.wake(id);
        }
        Ok(())
    }

    pub(super) fn branch(
        &mut self,
        number: u32,
        log: LogId,
        signature: [u8; 64],
        headers: Vec<Header>,
    ) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        let asked = self.matched(id)?.asked.remove(&log);
        let Some(asked) = asked else {
            // The vectors crossed, and it was asked twice.
            let thread = self.replica.thread(&id);
            if thread.is_some_and(|thread| thread.is_forked(&log)) {
                return Ok(());
            }
            let what = "an answer that was not asked for";
            return Err(SyncError::OutOfTurn { peer, what });
        };
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Ok(());
        };
        let error = SyncError::NoBranch {
            peer,
            thread: id,
            log,
        };
        let Some(last) = headers.last() else {
            return Err(error);
        };
        let head = SignedHead {
            thread: id,
            log,
            seq: last.context.seq,
            id: last.id(),
            signature,
        };
        let theirs = Branch { head, headers };
        let was_forked = thread.is_forked(&log);
        if !thread.find_fork(self.view, log, asked, theirs, self.changes)? {
            // Of two branches it holds the one that is here, or it was asked because of what a third one
            // wrote, which is no fault of it.
            let is_doubted = thread.unproven_forks().any(|(of, _)| of == log);
            return match was_forked || is_doubted {
                true => Ok(()),
                false => Err(error),
            };
        }
        self.after_fork(id, log)?;
        // Ever lower places, so this comes to an end.
        let thread = self.replica.thread(&id);
        let lower = thread.into_iter().flat_map(Thread::unproven_forks);
        let lower: Vec<_> = lower
            .filter(|(of, from)| *of == log && *from < asked)
            .collect();
        self.matched(id)?.ask_about(lower);
        self.wake(id);
        Ok(())
    }

    /// Gives up a log that was proven to have two branches if it is the own one, and lets in what
    /// waited for the proof because it names either branch.
    pub(super) fn after_fork(&mut self, id: ThreadId, log: LogId) -> Result<(), StoreError> {
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Ok(());
        };
        if thread.own_log() == Some(log) {
            thread.publish(self.changes);
            thread.retire_log(self.changes);
        }
        let mut sink = |opened: &Opened<'_>| (self.sink)(id, opened);
        if thread.release(self.view, self.now, self.changes, &mut sink)? > 0 {
            self.replica.touched(id);
            self.after_governance(id);
        }
        Ok(())
    }
}

//! Logs that a peer names and that are not open here.
//!
//! Governance may open them before long, so what a peer says of them is remembered; but whoever names
//! logs pays nothing for it, so that a session remembers only so many, in all its threads together.

use leno_crdt_codec::LogId;

use super::message::HaveLog;
use super::session::{Matched, Session};
use crate::ThreadId;
use crate::thread::Thread;

/// Most logs that are not open here and that a session remembers: once for those that vectors and
/// announcements name, and once for those of which ranges came. What is beyond is forgotten of vectors,
/// so that it may be sent to a peer that has it; a range of it ends the thread, until the next session.
pub const STRANGE_LOGS_MAX: usize = 4096;

/// How many strange logs a session remembers, or a thread in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strange {
    /// Those that vectors and announcements named.
    pub(super) told: usize,
    /// Those that ranges named.
    pub(super) sent: usize,
}

impl Session {
    /// Takes out of a vector which logs are not open here and have no room.
    pub(super) fn forget_strange(
        &mut self,
        id: &ThreadId,
        thread: Option<&Thread>,
        logs: &mut Vec<HaveLog>,
    ) {
        let Some(matched) = self.matched.get_mut(id) else {
            return;
        };
        self.strange.told -= matched.strange.told;
        let offered = matched.strange_offers(thread);
        let mut room = STRANGE_LOGS_MAX.saturating_sub(self.strange.told + offered);
        let before = room;
        logs.retain(|it| {
            let is_here = thread.is_some_and(|thread| thread.log(&it.log).is_some());
            let stays = is_here || room > 0;
            room -= usize::from(stays && !is_here);
            stays
        });
        // A vector of a stranger is kept as it is.
        logs.shrink_to_fit();
        matched.strange.told = offered + before - room;
        self.strange.told += matched.strange.told;
    }

    /// Makes room for a strange log that an announcement names. Returns whether there is.
    pub(super) fn admit_told(&mut self, id: &ThreadId, log: &LogId) -> bool {
        let Some(matched) = self.matched.get_mut(id) else {
            return false;
        };
        if matched.theirs.contains_key(log) {
            return true;
        }
        let has_room = self.strange.told < STRANGE_LOGS_MAX;
        self.strange.told += usize::from(has_room);
        matched.strange.told += usize::from(has_room);
        matched.has_ignored |= !has_room;
        has_room
    }

    /// Makes room for a strange log that a range names. Returns whether there is.
    pub(super) fn admit_sent(&mut self, id: &ThreadId) -> bool {
        let Some(matched) = self.matched.get_mut(id) else {
            return false;
        };
        let has_room = self.strange.sent < STRANGE_LOGS_MAX;
        self.strange.sent += usize::from(has_room);
        matched.strange.sent += usize::from(has_room);
        has_room
    }

    /// Counts anew after governance opened logs, and asks for what was announced and ignored.
    pub(super) fn recount_strange(&mut self, thread: &Thread) {
        let Some(matched) = self.matched.get_mut(&thread.id()) else {
            return;
        };
        let before = matched.strange;
        let is_strange = |log: &&LogId| thread.log(log).is_none();
        if before.told > 0 {
            let theirs = matched.theirs.keys().filter(is_strange).count();
            matched.strange.told = theirs + matched.strange_offers(Some(thread));
        }
        if before.sent > 0 {
            matched.strange.sent = matched.named_in.iter().filter(is_strange).count();
        }
        if std::mem::take(&mut matched.has_ignored) {
            matched.have_sent = false;
        }
        let after = matched.strange;
        self.strange.told = self.strange.told + after.told - before.told;
        self.strange.sent = self.strange.sent + after.sent - before.sent;
    }

    /// Ends what is known of a thread.
    pub(super) fn unmatch(&mut self, id: &ThreadId) -> Option<Matched> {
        let matched = self.matched.remove(id)?;
        self.strange.told -= matched.strange.told;
        self.strange.sent -= matched.strange.sent;
        Some(matched)
    }
}

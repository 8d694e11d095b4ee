//! When which thread has something to do by itself, so that nothing has to look at all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::slot::Slot;
use crate::{Now, ThreadId};

/// When which thread has something to do.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    at: BTreeMap<ThreadId, u64>,
    order: BTreeSet<(u64, ThreadId)>,
    /// Threads that somebody may be changing.
    open: BTreeSet<ThreadId>,
    /// Threads of which it is not known yet what waits in them.
    fresh: BTreeSet<ThreadId>,
}

impl Agenda {
    /// A thread was loaded: what waited in it when the store was closed may be ready.
    pub(super) fn begin(&mut self, id: ThreadId) {
        self.open.insert(id);
        self.fresh.insert(id);
    }

    /// Somebody may change a thread: it is looked at again before long.
    pub(super) fn open(&mut self, id: ThreadId) {
        self.open.insert(id);
    }

    /// Notes when a thread has something to do, if it is there.
    pub(super) fn plan(&mut self, id: ThreadId, slot: Option<&Slot>) {
        self.open.remove(&id);
        if slot.is_none() {
            self.fresh.remove(&id);
        }
        if let Some(at) = self.at.remove(&id) {
            self.order.remove(&(at, id));
        }
        let Some(Slot::Open(thread)) = slot else {
            return;
        };
        let next = match thread.is_wrapping() {
            true => Some(0),
            false => thread.next_release_millis(),
        };
        if let Some(at) = next {
            self.at.insert(id, at);
            self.order.insert((at, id));
        }
    }

    /// Plans whatever may have been changed.
    pub(super) fn plan_open(&mut self, slots: &BTreeMap<ThreadId, Slot>) {
        for id in std::mem::take(&mut self.open) {
            self.plan(id, slots.get(&id));
        }
    }

    /// The threads that have something to do by now. While the clock is not set nothing waits for it.
    pub(super) fn due(&mut self, now: Now) -> BTreeSet<ThreadId> {
        let until = now.utc_millis().unwrap_or(u64::MAX);
        let due = self.order.iter().take_while(|(at, _)| *at <= until);
        let mut due: BTreeSet<_> = due.map(|(_, id)| *id).collect();
        due.append(&mut self.fresh);
        due
    }

    /// When the next one has.
    pub(super) fn next_millis(&self, slots: &BTreeMap<ThreadId, Slot>) -> Option<u64> {
        let open = self.open.iter().filter_map(|id| match slots.get(id) {
            Some(Slot::Open(thread)) if thread.is_wrapping() => Some(0),
            Some(Slot::Open(thread)) => thread.next_release_millis(),
            _ => None,
        });
        let first = self.order.first().map(|(at, _)| *at);
        open.chain(first).min()
    }
}

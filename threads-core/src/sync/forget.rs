//! Giving up this peer's copy of a thread, and how much of one is kept.

use std::ops::ControlFlow;

use super::message::Message;
use super::replica::Replica;
use super::slot::Slot;
use crate::store::{Overlay, StoreError, Table, View, scan_prefix};
use crate::thread::{Changes, Quota};
use crate::{ThreadId, keys};

impl Replica {
    /// Deletes this peer's copy of a thread, joined or not yet, in one batch. Tells whether it was here.
    ///
    /// Peers are told that this one follows the thread no longer. Others keep what they have; a grant
    /// stands until it is removed. Rows of the application stay.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn forget(
        &mut self,
        view: &dyn View,
        id: &ThreadId,
        changes: &mut Changes,
    ) -> Result<bool, StoreError> {
        let Some(slot) = self.slots.get(id) else {
            return Ok(false);
        };
        let number = slot.number();
        delete_rows(view, number, changes)?;
        for (peer, session) in &mut self.sessions {
            let pair = self.pairs.get(peer);
            let known = pair.and_then(|pair| pair.known(id));
            // Of what is talked about, it is told below.
            if let Some(known) = known.filter(|_| !session.matched.contains_key(id)) {
                let names = vec![known.name];
                session
                    .urgent
                    .push_back(Message::Unknown { names }.encode());
            }
            session.called.remove(id);
            session.unproven.remove(id);
        }
        self.pairs.forget_thread(id, number, &mut changes.batch);
        self.slots.remove(id);
        self.numbers.remove(&number);
        self.unkept.remove(id);
        self.agenda.plan(*id, None);
        self.quotas.remove(id);
        self.spreads.forget(id);
        self.deliveries.forget(id);
        self.signals.forget(id);
        for session in self.sessions.values_mut() {
            if let Some(matched) = session.unmatch(id) {
                let thread = matched.number;
                session.urgent.push_back(Message::Left { thread }.encode());
                session.left.insert(*id);
            }
        }
        Ok(true)
    }

    /// Sets how much of a thread is kept of what others write; without a quota, all of it. Holds until
    /// the replica is loaded again, also for a thread whose genesis has not come. Peers are asked again
    /// for what there was no room for.
    pub fn set_quota(&mut self, id: ThreadId, quota: Option<Quota>) {
        match quota {
            Some(quota) => self.quotas.insert(id, quota),
            None => self.quotas.remove(&id),
        };
        if let Some(Slot::Open(thread)) = self.slots.get_mut(&id) {
            thread.set_quota(quota);
        }
        for session in self.sessions.values_mut() {
            let Some(matched) = session.matched.get_mut(&id) else {
                continue;
            };
            let before = matched.full.len();
            matched.full.retain(|_, until| *until != u64::MAX);
            if matched.full.len() < before {
                matched.have_sent = false;
                session.wake(id);
            }
        }
    }

    /// Tells whether a peer said that it has no room for more of a thread.
    #[must_use]
    pub fn lacks_room(&self, peer: &super::PeerKey, thread: &ThreadId) -> bool {
        let session = self.sessions.get(peer);
        let matched = session.and_then(|session| session.matched.get(thread));
        matched.is_some_and(|matched| !matched.full_there.is_empty())
    }
}

/// Deletes every row of a thread, those of this step too.
fn delete_rows(view: &dyn View, number: u32, changes: &mut Changes) -> Result<(), StoreError> {
    let prefix = keys::thread(number);
    let steps = keys::steps(number);
    let of_thread = [
        (Table::Threads, &prefix),
        (Table::Logs, &prefix),
        (Table::Logs, &steps),
        (Table::Runs, &prefix),
        (Table::Governance, &prefix),
        (Table::Wraps, &prefix),
        (Table::Parked, &prefix),
        (Table::Documents, &prefix),
        (Table::Cursors, &prefix),
        (Table::Outbox, &prefix),
        (Table::Evidence, &prefix),
    ];
    let mut gone = Vec::new();
    let overlay = Overlay::new(view, &changes.batch);
    for (table, prefix) in of_thread {
        scan_prefix(&overlay, table, prefix, &mut |key, _| {
            gone.push((table, key.to_vec()));
            ControlFlow::Continue(())
        })?;
    }
    for (table, key) in gone {
        changes.batch.delete(table, key);
    }
    Ok(())
}

//! Finding the threads that both sides follow, without naming them to strangers.
//!
//! Threads that both sides remember to share have a [`Name`] that says nothing to others, and are
//! not mentioned until there is news of them. All others are named by tags of this session, of
//! which whoever does not hold the service key learns only how many there are. A tag that says
//! nothing to its receiver is not kept: whoever sent it is told by [`Message::Seen`] that it was
//! looked at, and sends it again if the other side names that thread later.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::error::SyncError;
use super::message::{Message, TAGS_MAX};
use super::pair::Pair;
use super::session::{Matched, Offered, Session};
use super::slot::Slot;
use super::step::Step;
use super::tree::Name;
use super::{PeerKey, Tag, replica::Replica};
use crate::thread::Seat;
use crate::{SeatId, ThreadId};

/// Most threads that follow without a proof of both seats while what was named to a peer is noted:
/// each of them is named again in the next session.
pub(super) const UNPROVEN_MAX: usize = 64;

/// Most tags in one message of ours, so that others come in between.
const TAGS_PER_MESSAGE: usize = 1 << 14;

impl Session {
    /// Takes a number for a tag, unless there are as many as may be.
    fn next_number(&mut self) -> Option<u32> {
        let number = self.tags_out;
        if number as usize >= TAGS_MAX {
            return None;
        }
        self.tags_out = number + 1;
        Some(number)
    }

    /// Knows a thread when the other side names it.
    fn want(&mut self, id: ThreadId, slot: &Slot) {
        if let Some(theirs) = self.tag(slot.service(), false) {
            self.wanted.insert(theirs, id);
        }
    }

    /// Names threads by tags of this session. Tells of none too, once.
    pub(super) fn offer<'a>(
        &mut self,
        threads: impl IntoIterator<Item = (ThreadId, &'a Slot)>,
        named_until: u32,
    ) {
        if self.remote_nonce.is_none() {
            return;
        }
        self.named_until = named_until;
        let mut tags = Vec::new();
        for (id, slot) in threads {
            let (Some(own), Some(number)) = (self.tag(slot.service(), true), self.next_number())
            else {
                continue;
            };
            self.want(id, slot);
            let by_tag = true;
            self.offered.insert(id, Offered { number, by_tag });
            tags.push(own);
        }
        self.send_tags(tags);
    }

    /// The proof of the own seat in a thread, if the other side needs it.
    pub(super) fn next_proof(&mut self, id: ThreadId, slot: &Slot) -> Option<Vec<u8>> {
        let (key, statement) = (slot.signing()?, self.statement(id, true)?);
        let matched = self.matched.get_mut(&id)?;
        if !std::mem::take(&mut matched.proof_due) {
            return None;
        }
        let prove = Message::Prove {
            thread: matched.number,
            seat: SeatId(key.verifying_key().to_bytes()),
            signature: key.sign_message(&statement),
        };
        Some(prove.encode())
    }

    fn send_tags(&mut self, tags: Vec<Tag>) {
        let is_first = !std::mem::replace(&mut self.tags_sent, true);
        if is_first && tags.is_empty() {
            self.urgent.push_back(Message::Threads { tags }.encode());
            return;
        }
        for tags in tags.chunks(TAGS_PER_MESSAGE) {
            let tags = tags.to_vec();
            self.urgent.push_back(Message::Threads { tags }.encode());
        }
    }

    /// Names threads that both sides remember, to talk about them.
    pub(super) fn call(&mut self, pair: &Pair, ids: impl IntoIterator<Item = ThreadId>) {
        let mut names: Vec<Name> = Vec::new();
        for id in ids {
            let is_talked_of = self.matched.contains_key(&id) || self.called.contains_key(&id);
            let (false, Some(known)) = (is_talked_of, pair.known(&id)) else {
                continue;
            };
            let Some(number) = self.next_number() else {
                continue;
            };
            let by_tag = false;
            self.offered.insert(id, Offered { number, by_tag });
            self.called.insert(id, number);
            names.push(known.name);
        }
        if !names.is_empty() {
            self.send_tags(names);
        }
    }
}

impl Replica {
    /// Names a new thread in all sessions.
    pub(super) fn offer(&mut self, id: ThreadId) {
        let named_until = self.next_number();
        let Some((id, slot)) = self.slots.get_key_value(&id) else {
            return;
        };
        for session in self.sessions.values_mut() {
            session.offer([(*id, slot)], named_until);
        }
    }

    /// Names all threads to a peer that it was not told of and does not remember.
    pub(super) fn offer_all(&mut self, peer: &PeerKey) {
        let (named_until, next) = (self.pairs.named_until(peer), self.next_number());
        let Self {
            sessions,
            slots,
            pairs,
            numbers,
            ..
        } = self;
        let Some(session) = sessions.get_mut(peer) else {
            return;
        };
        let pair = pairs.get(peer);
        let again = pair.into_iter().flat_map(Pair::again);
        let new = numbers.range(named_until..).map(|(number, _)| *number);
        let to_name: BTreeSet<u32> = again.chain(new).collect();
        let threads = to_name.iter().filter_map(|number| {
            let id = numbers.get(number)?;
            let is_known = pair.is_some_and(|pair| pair.known(id).is_some());
            let slot = slots.get(id).filter(|_| !is_known)?;
            Some((*id, slot))
        });
        session.offer(threads, next);
    }

    /// Does not rely on what is remembered of threads with a peer any more: names them by tags.
    pub(super) fn unlearn(&mut self, peer: &PeerKey, ids: impl IntoIterator<Item = ThreadId>) {
        let next = self.next_number();
        let Self {
            sessions,
            slots,
            pairs,
            ..
        } = self;
        let (Some(session), Some(pair)) = (sessions.get_mut(peer), pairs.get_mut(peer)) else {
            return;
        };
        let mut threads = Vec::new();
        for id in ids {
            pair.unlearn(&id, true);
            session.called.remove(&id);
            if let Some(slot) = slots.get(&id)
                && !session.matched.contains_key(&id)
            {
                threads.push((id, slot));
            }
        }
        session.offer(threads, next);
    }
}

impl Step<'_, '_> {
    /// Takes in tags and names of the other side.
    pub(super) fn threads(&mut self, tags: &[Tag]) -> Result<(), SyncError> {
        let peer = self.peer;
        let what = "tags before hello";
        let session = self.session(what)?;
        if session.remote_nonce.is_none() {
            return Err(SyncError::OutOfTurn { peer, what });
        }
        let first = session.tags_in;
        if first as usize + tags.len() > TAGS_MAX {
            let what = "threads";
            return Err(SyncError::TooMany { peer, what });
        }
        let count = u32::try_from(tags.len()).unwrap_or(u32::MAX);
        session.tags_in = first + count;
        session.tags_received = true;
        self.want_all(tags);
        for (number, tag) in (first..).zip(tags) {
            self.named(number, tag)?;
        }
        let seen = Message::Seen {
            tags: first + count,
        };
        if count > 0 {
            self.session(what)?.urgent.push_back(seen.encode());
        }
        Ok(())
    }

    /// If there is a tag that is not known, it may be of a thread that was not named here. That costs a
    /// MAC per thread, once in a session.
    fn want_all(&mut self, tags: &[Tag]) {
        let Replica {
            sessions,
            slots,
            pairs,
            ..
        } = &mut *self.replica;
        let (Some(session), pair) = (sessions.get_mut(&self.peer), pairs.get(&self.peer)) else {
            return;
        };
        let is_known = |tag: &Tag| {
            session.wanted.contains_key(tag) || pair.is_some_and(|pair| pair.id(tag).is_some())
        };
        if session.wants_all || tags.iter().all(is_known) {
            return;
        }
        session.wants_all = true;
        let wanted: BTreeSet<ThreadId> = session.wanted.values().copied().collect();
        for (id, slot) in slots.iter().filter(|(id, _)| !wanted.contains(id)) {
            session.want(*id, slot);
        }
    }

    /// The other side named a thread.
    fn named(&mut self, number: u32, tag: &Tag) -> Result<(), SyncError> {
        let next = self.replica.next_number();
        let Replica {
            sessions,
            slots,
            pairs,
            ..
        } = &mut *self.replica;
        let (Some(session), pair) = (sessions.get_mut(&self.peer), pairs.get_mut(&self.peer))
        else {
            return Ok(());
        };
        let by_tag = session.wanted.get(tag).copied();
        let by_name = pair.as_ref().and_then(|pair| pair.id(tag));
        let Some(id) = by_tag.or(by_name).filter(|id| slots.contains_key(id)) else {
            return Ok(());
        };
        session.thread_of_number.insert(number, id);
        if session.matched.contains_key(&id) || session.left.contains(&id) {
            return Ok(());
        }
        if by_tag.is_some() {
            // It does not remember: nor does this side.
            if let Some(pair) = pair {
                pair.unlearn(&id, true);
            }
            session.called.remove(&id);
            // A tag that was looked at in vain was not kept; one that is under way will tell it something.
            let is_under_way = |it: &Offered| it.by_tag && it.number >= session.tags_seen;
            let is_named = session.offered.get(&id).is_some_and(is_under_way);
            if let Some(slot) = slots.get(&id).filter(|_| !is_named) {
                session.offer([(id, slot)], next);
            }
        } else if let Some(pair) = pair
            && !session.called.contains_key(&id)
        {
            session.call(pair, [id]);
        }
        share(session, slots, pairs.get(&self.peer), id);
        Ok(())
    }
}

/// Begins to talk of a thread that both sides named.
fn share(
    session: &mut Session,
    slots: &BTreeMap<ThreadId, Slot>,
    pair: Option<&Pair>,
    id: ThreadId,
) {
    let Some(own) = session.offered.get(&id).map(|it| it.number) else {
        return;
    };
    session.called.remove(&id);
    let known = pair.and_then(|pair| pair.known(&id));
    if known.is_none() {
        session.unproven.insert(id);
        session.is_named_due = true;
    }
    let mut matched = Matched {
        number: own,
        ..Matched::default()
    };
    matched.seat = known.map(|known| known.remote);
    // Once is enough between two devices.
    let seat = slots.get(&id).and_then(Slot::seat).map(Seat::id);
    matched.proof_due = known.map(|known| known.own) != seat;
    session.unmatch(&id);
    session.matched.insert(id, matched);
    session.wake(id);
}

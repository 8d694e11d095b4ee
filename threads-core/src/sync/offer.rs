//! Finding the threads that both sides follow, without naming them to strangers.

use std::collections::BTreeMap;

use super::message::{Message, TAGS_MAX};
use super::session::{Matched, Session};
use super::slot::Slot;
use crate::{SeatId, ThreadId};

/// Sends tags of threads that a session has not named yet.
pub(super) fn offer_in(session: &mut Session, slots: &BTreeMap<ThreadId, Slot>) {
    if session.remote_nonce.is_none() {
        return;
    }
    let mut tags = Vec::new();
    let mut found = Vec::new();
    for (id, slot) in slots {
        if session.offered.contains_key(id) || session.offered.len() >= TAGS_MAX {
            continue;
        }
        let (own, theirs) = (
            session.tag(slot.service(), true),
            session.tag(slot.service(), false),
        );
        let (Some(own), Some(theirs)) = (own, theirs) else {
            continue;
        };
        let number = u32::try_from(session.offered.len()).unwrap_or(u32::MAX);
        session.offered.insert(*id, number);
        tags.push(own);
        found.extend(session.tags.get(&theirs).map(|number| (*number, *id)));
        session.wanted.insert(theirs, *id);
    }
    if !tags.is_empty() || !session.tags_sent {
        session.tags_sent = true;
        session.urgent.push_back(Message::Threads { tags }.encode());
    }
    for (number, id) in found {
        share(session, slots, number, id);
    }
}

/// Takes in tags of the other side. The work follows their number, not that of the threads.
pub(super) fn take_tags(
    session: &mut Session,
    slots: &BTreeMap<ThreadId, Slot>,
    tags: Vec<super::Tag>,
) {
    session.tags_received = true;
    for tag in tags {
        let number = session.tags_count;
        session.tags_count = number.saturating_add(1);
        session.tags.entry(tag).or_insert(number);
        if let Some(id) = session.wanted.get(&tag).copied() {
            share(session, slots, number, id);
        }
    }
}

/// Begins to talk of a thread that both sides named.
fn share(session: &mut Session, slots: &BTreeMap<ThreadId, Slot>, number: u32, id: ThreadId) {
    let Some(own) = session.offered.get(&id).copied() else {
        return;
    };
    if session.matched.contains_key(&id) || session.left.contains(&id) {
        return;
    }
    session.thread_of_number.insert(number, id);
    let matched = Matched {
        number: own,
        ..Matched::default()
    };
    session.matched.insert(id, matched);
    let signing = slots.get(&id).and_then(Slot::signing);
    if let (Some(key), Some(statement)) = (signing, session.statement(id, true)) {
        let prove = Message::Prove {
            thread: own,
            seat: SeatId(key.verifying_key().to_bytes()),
            signature: key.sign_message(&statement),
        };
        session.urgent.push_back(prove.encode());
    }
    session.wake(id);
}

//! Handling one message.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

mod branch;
mod keys;
mod range;
mod vector;

use rand_core::CryptoRng;

use super::PeerKey;
use super::error::SyncError;
use super::message::Message;
use super::offer::UNPROVEN_MAX;
use super::pair::{Known, pair_name};
use super::replica::{Replica, ReplicaSink};
use super::session::{Matched, Session};
use super::slot::Slot;
use crate::store::{StoreError, View};
use crate::thread::{Changes, Thread};
use crate::{Genesis, Now, ThreadId};

pub(super) use keys::TakenWraps;
pub(super) use vector::note_kept;

/// Most urgent messages, but for proofs, that wait for a peer; beyond that it asks too much and is cut
/// off.
const URGENT_MAX: usize = 1024;

/// One message being handled: the replica and all that the step may need.
pub(super) struct Step<'a, 'b> {
    pub(super) replica: &'a mut Replica,
    pub(super) view: &'a dyn View,
    pub(super) peer: PeerKey,
    pub(super) now: Now,
    pub(super) rng: &'a mut dyn CryptoRng,
    pub(super) changes: &'a mut Changes,
    pub(super) sink: ReplicaSink<'b>,
}

impl Step<'_, '_> {
    pub(super) fn handle(&mut self, message: Message<'_>) -> Result<(), SyncError> {
        let number = message.thread();
        if number.is_some_and(|number| self.has_left(number)) {
            return Ok(());
        }
        let outcome = self.dispatch(message);
        self.settle(number);
        outcome
    }

    /// Notes what a message may have changed, whatever became of it.
    fn settle(&mut self, number: Option<u32>) {
        let peer = self.peer;
        let Replica {
            sessions,
            slots,
            pairs,
            agenda,
            ..
        } = &mut *self.replica;
        pairs.settle(&peer, &mut self.changes.batch);
        let Some(session) = sessions.get_mut(&peer) else {
            return;
        };
        let id = number.and_then(|number| session.thread_of_number.get(&number).copied());
        if let Some(id) = id {
            session.stirred.insert(id);
            session.unsettled.insert(id);
            pairs.touched(id);
            agenda.plan(id, slots.get(&id));
        }
        // Each thread that is not proven is named again in the next session.
        let is_named = session.tags_seen == session.tags_out;
        if session.is_named_due && is_named && session.unproven.len() <= UNPROVEN_MAX {
            session.is_named_due = false;
            let unproven = session.unproven.iter().filter_map(|id| slots.get(id));
            let unproven = unproven.map(Slot::number);
            let until = session.named_until;
            let now = self.now.millis();
            pairs.named(peer, until, unproven, now, &mut self.changes.batch);
        }
    }

    /// Both sides said hello: threads are named.
    fn begin(&mut self) -> Result<(), SyncError> {
        let peer = self.peer;
        let Replica {
            sessions,
            slots,
            pairs,
            numbers,
            local,
            ..
        } = &mut *self.replica;
        let between = (*local, peer);
        let now = self.now.millis();
        let (view, batch) = (self.view, &mut self.changes.batch);
        pairs.recall(view, batch, between, slots, numbers, now)?;
        if let (Some(session), Some(pair)) = (sessions.get_mut(&peer), pairs.get(&peer)) {
            session.is_proven = !pair.is_empty();
        }
        self.replica.offer_all(&peer);
        // One of the two begins.
        if self.replica.local() < peer {
            self.replica.compare(&peer);
        }
        Ok(())
    }

    /// Remembers a thread in which both sides proved their seats and told each other what they have.
    fn learn(&mut self, id: ThreadId) -> Result<(), StoreError> {
        let peer = self.peer;
        let Replica {
            sessions,
            slots,
            pairs,
            local,
            ..
        } = &mut *self.replica;
        let (Some(session), Some(Slot::Open(thread))) = (sessions.get_mut(&peer), slots.get(&id))
        else {
            return Ok(());
        };
        let Some(matched) = session.matched.get(&id).filter(|it| it.is_answered()) else {
            return Ok(());
        };
        let own = thread.seat().id();
        let Some(remote) = matched.seat.filter(|_| matched.may_follow(thread)) else {
            return Ok(());
        };
        if thread.governance().role(own).is_none() {
            return Ok(());
        }
        if session.unproven.remove(&id) {
            session.is_named_due = true;
        }
        let known = pairs.get(&peer).and_then(|pair| pair.known(&id));
        if known.is_some_and(|it| (it.own, it.remote) == (own, remote)) {
            return Ok(());
        }
        let known = Known {
            number: thread.number(),
            name: pair_name(thread.service_key(), *local, peer),
            own,
            remote,
        };
        let (now, store) = (self.now.millis(), (self.view, &mut self.changes.batch));
        pairs.remember(peer, id, known, now, store)
    }

    pub(super) fn after_hello(&mut self) -> Result<(), SyncError> {
        let (peer, what) = (self.peer, "a comparison before hello");
        match self.session(what)?.remote_nonce {
            Some(_) => Ok(()),
            None => Err(SyncError::OutOfTurn { peer, what }),
        }
    }

    fn dispatch(&mut self, message: Message<'_>) -> Result<(), SyncError> {
        let peer = self.peer;
        match message {
            Message::Hello { nonce } => {
                let session = self.session("a message")?;
                if session.remote_nonce.is_some() {
                    let what = "a second hello";
                    return Err(SyncError::OutOfTurn { peer, what });
                }
                session.remote_nonce = Some(nonce);
                self.begin()
            }
            Message::Threads { tags } => {
                self.threads(&tags)?;
                self.recall();
                Ok(())
            }
            Message::Seen { tags } => self.seen(tags),
            Message::Compare { round, root } => self.compare(round, root),
            Message::Compared { round } => self.compared(round),
            Message::Ask { round, nodes } => self.ask(round, &nodes),
            Message::Nodes { round, nodes } => self.nodes(round, &nodes),
            Message::Unknown { names } => self.unknown(&names),
            Message::Prove {
                thread,
                seat,
                signature,
            } => {
                let id = self.thread_id(thread)?;
                let session = self.session("a proof")?;
                if !session.proves(id, seat, &signature) {
                    return Err(SyncError::NotProven { peer, seat });
                }
                session.is_proven = true;
                self.matched(id)?.seat = Some(seat);
                self.wake(id);
                Ok(())
            }
            Message::Have {
                thread,
                subscribe,
                wraps,
                logs,
            } => self.have(thread, subscribe, wraps, logs),
            Message::Totals { thread, records } => {
                let id = self.thread_id(thread)?;
                self.matched(id)?.expected = records;
                Ok(())
            }
            Message::Range {
                thread,
                log,
                first,
                runs,
            } => self.range(thread, log, first, &runs),
            Message::Wraps { thread, wraps } => self.wraps(thread, &wraps),
            Message::Ack { thread, logs } => self.ack(thread, &logs),
            Message::Branch {
                thread,
                log,
                signature,
                headers,
            } => self.branch(thread, log, signature, headers),
            Message::Question { thread, log, from } => self.question(thread, log, from),
            Message::Genesis { thread, genesis } => self.genesis(thread, genesis),
            Message::Refused {
                thread,
                log,
                is_full,
            } => {
                let id = self.thread_id(thread)?;
                // Others cannot have been sent, and would only take room.
                let is_known = self.replica.thread(&id).and_then(|it| it.log(&log));
                if is_known.is_some() {
                    let matched = self.matched(id)?;
                    matched.unwanted.insert(log);
                    if is_full {
                        matched.full_there.insert(log);
                    }
                    self.wake(id);
                }
                Ok(())
            }
            Message::Left { thread } => {
                let id = self.thread_id(thread)?;
                let session = self.session("a farewell")?;
                session.unmatch(&id);
                session.unproven.remove(&id);
                // Whoever joins anew names the thread anew.
                if let Some(pair) = self.replica.pairs.get_mut(&peer) {
                    pair.unlearn(&id, false);
                }
                self.replica.part(&peer, &id);
                Ok(())
            }
            Message::UpToDate { thread, vectors } => {
                let id = self.thread_id(thread)?;
                let matched = self.matched(id)?;
                if vectors > matched.haves_out {
                    let what = "an answer to a vector that was not sent";
                    return Err(SyncError::OutOfTurn { peer, what });
                }
                matched.haves_answered = vectors.max(matched.haves_answered);
                matched.expected = 0;
                if matched.is_answered() {
                    matched.has_waited = false;
                    self.replica.delivery_over(&peer, &id);
                }
                self.wrap_due(id);
                self.wake(id);
                Ok(self.learn(id)?)
            }
            Message::NeedKeys { thread, epochs } => self.need_keys(thread, &epochs),
            Message::Signal { thread, signal } => self.signal(thread, signal),
            Message::Announce {
                thread,
                has_room,
                logs,
            } => self.announce(thread, has_room, &logs),
            Message::Graft {
                thread,
                always,
                logs,
            } => {
                let id = self.thread_id(thread)?;
                self.matched(id)?;
                if self.knows_peer(id) {
                    self.replica.grafted(peer, id, always, &logs);
                }
                Ok(())
            }
            Message::Pause { thread } => {
                let id = self.thread_id(thread)?;
                self.matched(id)?.is_paused = true;
                Ok(())
            }
            Message::Prune { thread } => {
                let id = self.thread_id(thread)?;
                self.matched(id)?;
                self.replica.pruned(peer, id);
                Ok(())
            }
        }
    }

    /// Tells whether a message is about a thread that this side does not follow any more: it was under
    /// way when the other side was told.
    fn has_left(&self, number: u32) -> bool {
        let session = self.replica.sessions.get(&self.peer);
        session.is_some_and(|session| {
            let id = session.thread_of_number.get(&number);
            id.is_some_and(|id| session.left.contains(id))
        })
    }

    /// Leaves alone what this peer sent in earlier sessions and had to be refused.
    fn recall(&mut self) {
        let Replica {
            sessions, refusals, ..
        } = &mut *self.replica;
        let Some(session) = sessions.get_mut(&self.peer) else {
            return;
        };
        for (thread, log) in refusals.standing(self.peer, self.now.millis()) {
            // Once a vector was sent, the session has found out for itself.
            if let Some(matched) = session.matched.get_mut(&thread)
                && !matched.have_sent
            {
                matched.shunned.insert(log);
                matched.refused.insert(log);
            }
        }
    }

    pub(super) fn session(&mut self, what: &'static str) -> Result<&mut Session, SyncError> {
        let peer = self.peer;
        let session = self.replica.sessions.get_mut(&peer);
        let session = session.ok_or(SyncError::OutOfTurn { peer, what })?;
        if session.urgent.len() > URGENT_MAX {
            return Err(SyncError::TooMany {
                peer,
                what: "questions",
            });
        }
        Ok(session)
    }

    pub(super) fn thread_id(&mut self, number: u32) -> Result<ThreadId, SyncError> {
        let peer = self.peer;
        let session = self.session("a thread's message")?;
        let id = session.thread_of_number.get(&number).copied();
        id.ok_or(SyncError::OutOfTurn {
            peer,
            what: "a message of a thread that is not shared",
        })
    }

    fn matched(&mut self, id: ThreadId) -> Result<&mut Matched, SyncError> {
        let peer = self.peer;
        let matched = self.session("a thread's message")?.matched.get_mut(&id);
        matched.ok_or(SyncError::OutOfTurn {
            peer,
            what: "a message of a thread that is not shared",
        })
    }

    fn wake(&mut self, id: ThreadId) {
        if let Some(session) = self.replica.sessions.get_mut(&self.peer) {
            session.wake(id);
        }
    }

    /// Tells whether the other side may be answered, see [`Matched::may_follow`].
    pub(super) fn knows_peer(&self, id: ThreadId) -> bool {
        let session = self.replica.sessions.get(&self.peer);
        let matched = session.and_then(|session| session.matched.get(&id));
        let thread = self.replica.thread(&id);
        matched.is_some_and(|matched| thread.is_some_and(|thread| matched.may_follow(thread)))
    }

    /// Answers the other side out of turn, if it may be answered.
    fn answer(
        &mut self,
        id: ThreadId,
        what: &'static str,
        answer: Vec<u8>,
    ) -> Result<(), SyncError> {
        if self.knows_peer(id) {
            self.session(what)?.urgent.push_back(answer);
        } else {
            // The vector that is sent once it is known who this is says the same.
            self.matched(id)?.is_open = false;
        }
        Ok(())
    }

    fn genesis(&mut self, number: u32, genesis: &[u8]) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        if self.open_genesis(id, genesis) {
            return Ok(());
        }
        Err(SyncError::WrongGenesis { peer })
    }

    /// Begins a thread of which only a ticket was here, unless the genesis is not its own.
    pub(super) fn open_genesis(&mut self, id: ThreadId, genesis: &[u8]) -> bool {
        let Some(Slot::Joining(joining)) = self.replica.slots.get_mut(&id) else {
            // Known already: nothing to learn.
            return true;
        };
        if ThreadId::of(genesis) != id || Genesis::decode(genesis).is_err() {
            return false;
        }
        let Some(seat) = joining.seat.take() else {
            return true;
        };
        let (number, service) = (joining.number, joining.service.clone());
        let (peer, secret) = (self.peer, self.replica.nonce_secret.clone());
        let joined = Thread::join(number, id, genesis, service, seat, secret, self.changes);
        let Ok(mut thread) = joined else { return false };
        thread.set_quota(self.replica.quotas.get(&id).copied());
        self.replica.slots.insert(id, Slot::Open(Box::new(thread)));
        for session in self.replica.sessions.values_mut() {
            if let Some(matched) = session.matched.get_mut(&id) {
                matched.have_sent = session.remote == peer && matched.have_sent;
            }
            session.wake(id);
        }
        true
    }
}

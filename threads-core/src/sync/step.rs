//! Handling one message.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use leno_crdt_codec::{LogId, Seq, bug};
use rand_core::CryptoRng;

use super::PeerKey;
use super::error::SyncError;
use super::message::{AckLog, HaveLog, LOGS_MAX, LogName, Message, TAGS_MAX};
use super::offer::{offer_in, take_tags};
use super::replica::{Replica, ReplicaSink, outbox_key};
use super::session::{Matched, Session};
use super::slot::Slot;
use crate::fork::Branch;
use crate::store::{Overlay, StoreError, Table, View};
use crate::thread::{
    Changes, Opened, Parked, ReceiveError, TakeWrapError, Thread, ThreadEvent, tag_of,
};
use crate::{
    EpochId, Genesis, Now, RecordRef, Role, Run, SeatId, SignedHead, ThreadId, VerifyError, Wrap,
};

/// Most urgent messages that wait for a peer; beyond that it asks too much and is cut off.
const URGENT_MAX: usize = 1024;

/// Most questions that a peer may ask about one thread in a session: an answer is long.
const QUESTIONS_MAX: u32 = 1024;

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

/// What became of runs.
pub(super) struct Taken {
    pub(super) stored: u64,
    pub(super) admitted: u64,
    /// Behind the last record that was looked at.
    pub(super) at: Seq,
    /// The newest record of the log that is here now.
    pub(super) tip: Seq,
    /// Why the rest was not taken in.
    pub(super) outcome: Result<(), ReceiveError>,
}

/// What became of wraps.
#[derive(Default)]
pub(super) struct TakenWraps {
    /// Whether one of them was news.
    pub(super) news: bool,
    /// Why the last of those that are bad is.
    pub(super) refused: Option<TakeWrapError>,
}

impl Step<'_, '_> {
    pub(super) fn handle(&mut self, message: Message<'_>) -> Result<(), SyncError> {
        let peer = self.peer;
        if message.thread().is_some_and(|number| self.has_left(number)) {
            return Ok(());
        }
        match message {
            Message::Hello { nonce } => {
                let session = self.session("a message")?;
                if session.remote_nonce.is_some() {
                    let what = "a second hello";
                    return Err(SyncError::OutOfTurn { peer, what });
                }
                session.remote_nonce = Some(nonce);
                let Replica {
                    sessions, slots, ..
                } = &mut *self.replica;
                if let Some(session) = sessions.get_mut(&peer) {
                    offer_in(session, slots);
                }
                self.recall();
                Ok(())
            }
            Message::Threads { tags } => {
                let Replica {
                    sessions, slots, ..
                } = &mut *self.replica;
                let session = sessions
                    .get_mut(&peer)
                    .filter(|it| it.remote_nonce.is_some());
                let session = session.ok_or(SyncError::OutOfTurn {
                    peer,
                    what: "tags before hello",
                })?;
                if session.tags_count as usize + tags.len() > TAGS_MAX {
                    return Err(SyncError::TooMany {
                        peer,
                        what: "threads",
                    });
                }
                take_tags(session, slots, tags);
                self.recall();
                Ok(())
            }
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
                self.matched(id)?.seat = Some(seat);
                self.wake(id);
                Ok(())
            }
            Message::Have {
                thread,
                subscribe,
                wraps,
                logs,
            } => self.have(thread, subscribe, wraps, &logs),
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
                self.session("a farewell")?.matched.remove(&id);
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
                self.wrap_due(id);
                self.wake(id);
                Ok(())
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

    fn have(
        &mut self,
        number: u32,
        subscribe: bool,
        wraps: [u8; 8],
        logs: &[HaveLog],
    ) -> Result<(), SyncError> {
        let id = self.thread_id(number)?;
        let wraps_level = self
            .replica
            .thread(&id)
            .filter(|thread| thread.wraps_digest() == wraps)
            .map(Thread::wraps_kept);
        let knows_peer = self.knows_peer(id);
        let (differing, level_logs) = self.judge(id, logs)?;
        let matched = self.matched(id)?;
        // What it did not keep when it was sent here may have come to it from others since.
        for (log, seq) in level_logs {
            let acked = matched.acked.entry(log).or_default();
            *acked = seq.max(*acked);
        }
        matched.unjudged = if knows_peer {
            Vec::new()
        } else {
            logs.to_vec()
        };
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
        // What is under way was not there yet when the other side wrote its vector.
        for (log, last) in matched.under_way().collect::<Vec<_>>() {
            let theirs = matched.theirs.entry(log).or_default();
            *theirs = last.max(*theirs);
        }
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

    /// Takes in what a peer has by now and does not push.
    fn announce(&mut self, number: u32, has_room: bool, logs: &[HaveLog]) -> Result<(), SyncError> {
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

    fn range(
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
        let matched = self.matched(id)?;
        if matched.is_muted {
            return Ok(());
        }
        let (log, log_number) = match name {
            LogName::New(log) => {
                // Whoever may open logs bounds those that are here. Others take room for nothing.
                if is_strange && matched.strange_in >= LOGS_MAX {
                    matched.is_muted = true;
                    return Err(SyncError::TooManyLogs { peer, thread: id });
                }
                if !matched.known_in.insert(log) {
                    let what = "a second name of a log";
                    return Err(SyncError::OutOfTurn { peer, what });
                }
                matched.strange_in += usize::from(is_strange);
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
        self.after_runs(id, log, &taken)?;
        self.ask_about_forks(id)?;
        self.wake(id);
        match taken.outcome {
            Ok(()) => Ok(()),
            Err(source) => self.refuse(id, log, tip, source),
        }
    }

    /// Takes in runs of a log that begin at `first`, up to one that is refused; nothing before the
    /// genesis is here.
    pub(super) fn take_runs(
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
    pub(super) fn after_runs(
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
    fn after_governance(&mut self, id: ThreadId) {
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

    fn wraps(&mut self, number: u32, wraps: &[Wrap]) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        let seat = self.matched(id)?.seat;
        let out_of_turn = SyncError::OutOfTurn {
            peer,
            what: "keys before the genesis",
        };
        let Some(thread) = self.replica.thread(&id) else {
            return Err(out_of_turn);
        };
        let Some(seat) = seat.filter(|seat| thread.governance().role(*seat).is_some()) else {
            return Ok(());
        };
        let told = self.changes.events.len();
        let taken = self.take_wraps(id, seat, wraps)?.ok_or(out_of_turn)?;
        let mut told = self.changes.events.iter().skip(told);
        let key_came = told.any(|(of, it)| *of == id && matches!(it, ThreadEvent::KeyCame { .. }));
        let matched = self.matched(id)?;
        // There are more than one message asks for.
        matched.keys_asked &= !key_came;
        let is_live = matched.is_answered();
        matched.wraps_sent.extend(
            wraps
                .iter()
                .map(|wrap| (wrap.epoch, wrap.seat, tag_of(wrap))),
        );
        if taken.news {
            self.replica.touched(id);
        }
        // Before the other side told all it has, wraps for others may be under way.
        if is_live {
            self.wrap_due(id);
        }
        match taken.refused {
            Some(source) => Err(SyncError::Wrap {
                peer,
                thread: id,
                source,
            }),
            None => Ok(()),
        }
    }

    /// Takes in wraps that a seat hands over; nothing before the genesis is here.
    pub(super) fn take_wraps(
        &mut self,
        id: ThreadId,
        seat: SeatId,
        wraps: &[Wrap],
    ) -> Result<Option<TakenWraps>, StoreError> {
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Ok(None);
        };
        let mut taken = TakenWraps::default();
        // Nobody can tell a good wrap for another seat from junk: strangers hand over none.
        if thread.governance().role(seat).is_none() {
            return Ok(Some(taken));
        }
        for wrap in wraps {
            let mut sink = |opened: &Opened<'_>| (self.sink)(id, opened);
            match thread.take_wrap(self.view, seat, wrap, self.changes, &mut sink) {
                Ok(it) => taken.news |= it,
                Err(TakeWrapError::Store(error)) => return Err(error),
                // Nobody's fault: governance that tells of the epoch or the seat may be held here, and
                // several members may have wrapped the same key.
                Err(
                    TakeWrapError::UnknownEpoch
                    | TakeWrapError::Ghost { .. }
                    | TakeWrapError::TooMany { .. },
                ) => {}
                Err(source) => taken.refused = Some(source),
            }
        }
        Ok(Some(taken))
    }

    /// Wraps keys that came for the readers who lack them.
    pub(super) fn wrap_due(&mut self, id: ThreadId) {
        if let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id)
            && thread.wrap_due(self.rng, self.changes) > 0
        {
            self.replica.touched(id);
        }
    }

    fn ack(&mut self, number: u32, logs: &[AckLog]) -> Result<(), SyncError> {
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
            matched.ranges_done.insert(log, *ranges);
            // It can keep no more than it was sent.
            let sent = matched.theirs.get(&log).copied().unwrap_or_default();
            let seq = sent.min(tip).min(*seq);
            let acked = matched.acked.entry(log).or_default();
            *acked = seq.max(*acked);
            kept.push((log, seq));
        }
        if let Some(thread) = self.replica.thread(&id) {
            note_kept(self.view, self.changes, thread, &kept)?;
        }
        Ok(())
    }

    fn question(&mut self, number: u32, log: LogId, from: Seq) -> Result<(), SyncError> {
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

    fn branch(
        &mut self,
        number: u32,
        log: LogId,
        signature: [u8; 64],
        headers: Vec<crate::Header>,
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
        if !thread.find_fork(self.view, log, asked, theirs, self.changes)? {
            return Err(error);
        }
        Ok(self.after_fork(id, log)?)
    }

    /// Gives up a log that was proven to have two branches if it is the own one, and lets in what
    /// waited for the proof because it names either branch.
    fn after_fork(&mut self, id: ThreadId, log: LogId) -> Result<(), StoreError> {
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

    /// Wraps keys anew for the seat at the other end, each once in a session.
    fn need_keys(&mut self, number: u32, epochs: &[EpochId]) -> Result<(), SyncError> {
        let id = self.thread_id(number)?;
        let matched = self.matched(id)?;
        let (seat, done) = (matched.seat, matched.wrapped_anew.clone());
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Ok(());
        };
        let reads = |seat| thread.governance().role(seat).is_some_and(Role::reads);
        let Some(seat) = seat.filter(|seat| reads(*seat)) else {
            return Ok(());
        };
        let mut anew = Vec::new();
        for epoch in epochs.iter().filter(|epoch| !done.contains(epoch)) {
            let made = thread.wrap_again(*epoch, seat, self.rng, self.changes);
            anew.extend(made.map(|wrap| wrap.epoch));
        }
        self.matched(id)?.wrapped_anew.extend(anew);
        self.replica.touched(id);
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

/// Logs that differ and logs that are level, each with its newest record.
type Judged = (Vec<(LogId, Seq)>, Vec<(LogId, Seq)>);

/// Notes which records of the own log somebody else keeps.
pub(super) fn note_kept(
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

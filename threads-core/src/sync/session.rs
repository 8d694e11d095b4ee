//! What one peer knows of another while they are connected.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hmac::{Hmac, KeyInit, Mac};
use leno_crdt_codec::{LogId, Seq, bug};
use leno_identity::{Label, VerifyingKey};
use sha2::Sha256;

use super::PeerKey;
use super::compare::Comparison;
use super::delivery::Probe;
use super::message::{HaveLog, SHORT_HASH_BYTES, ShortNode, Tag};
use super::signal::{Hearing, SignalTag};
use super::spread::Link;
use super::strange::Strange;
use super::tree::Digest;
use crate::thread::{Thread, WrapTag};
use crate::{EpochId, RecordId, SeatId, ServiceKey, ThreadId};

/// The state of a session with one peer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) local: PeerKey,
    pub(super) remote: PeerKey,
    pub(super) nonce: [u8; 32],
    pub(super) remote_nonce: Option<[u8; 32]>,
    /// Threads that were named to the other side.
    pub(super) offered: BTreeMap<ThreadId, Offered>,
    /// The tags by which the other side would name threads.
    pub(super) wanted: BTreeMap<Tag, ThreadId>,
    /// Whether those of all threads are known.
    pub(super) wants_all: bool,
    /// Threads that both sides remember, that were named to talk about them, and that the other side did
    /// not name yet; by their numbers.
    pub(super) called: BTreeMap<ThreadId, u32>,
    /// Threads that both sides follow, and whose seats are not both proven and remembered.
    pub(super) unproven: BTreeSet<ThreadId>,
    /// How many tags were sent to the other side, and how many of them it looked at.
    pub(super) tags_out: u32,
    pub(super) tags_seen: u32,
    /// The threads with lower numbers were named, as far as they had to be.
    pub(super) named_until: u32,
    /// Whether that is to be noted.
    pub(super) is_named_due: bool,
    /// How many tags the other side sent.
    pub(super) tags_in: u32,
    /// Whether the other side sent its tags, even none.
    pub(super) tags_received: bool,
    /// Whether tags were sent to the other side, even none.
    pub(super) tags_sent: bool,
    /// How far both sides are in finding which threads that they remember differ.
    pub(super) comparison: Comparison,
    /// Whether the other side proved a seat, in this session or an earlier one.
    pub(super) is_proven: bool,
    pub(super) matched: BTreeMap<ThreadId, Matched>,
    /// How many logs that are not open here are remembered, in all threads.
    pub(super) strange: Strange,
    pub(super) thread_of_number: BTreeMap<u32, ThreadId>,
    /// Threads that this side followed when the session began, and no longer.
    pub(super) left: BTreeSet<ThreadId>,
    /// Encoded messages that wait to be sent before anything else.
    pub(super) urgent: VecDeque<Vec<u8>>,
    /// How well the other side behaves as to signals.
    pub(super) hearing: Hearing,
    /// Threads that may have something to send, in turn, and the same as a set.
    pub(super) ready: VecDeque<ThreadId>,
    pub(super) is_ready: BTreeSet<ThreadId>,
    /// Threads that may not be level.
    pub(super) unsettled: BTreeSet<ThreadId>,
    /// Threads about which something changed since this was last asked.
    pub(super) stirred: BTreeSet<ThreadId>,
}

/// How a thread was named to the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Offered {
    /// Its number in messages to the other side.
    pub(super) number: u32,
    /// Whether by a tag of this session; otherwise by the name that both sides remember.
    pub(super) by_tag: bool,
}

/// What a session knows of a thread that both sides follow.
#[derive(Debug, Default)]
pub(super) struct Matched {
    /// The thread's number in messages to the other side.
    pub(super) number: u32,
    /// The seat that the other side proved.
    pub(super) seat: Option<SeatId>,
    /// Whether the other side is to be shown that the own seat is held.
    pub(super) proof_due: bool,
    /// Whether the other side was sent a vector, and none has to be sent anew.
    pub(super) have_sent: bool,
    /// How many vectors the other side was sent, and how many of them it answered: the last one by
    /// which it had nothing more.
    pub(super) haves_out: u64,
    pub(super) haves_answered: u64,
    /// How many vectors came from the other side.
    pub(super) haves_in: u64,
    pub(super) subscribed: bool,
    /// Whether the last vector said what is here: to a seat that holds no role it says nothing.
    pub(super) is_open: bool,
    /// The vector of the other side, from a time when its seat held no role here.
    pub(super) unjudged: Vec<HaveLog>,
    /// The newest record of each log that the other side has, or was sent.
    pub(super) theirs: BTreeMap<LogId, Seq>,
    /// How records go over the session.
    pub(super) link: Link,
    /// Signals that are to be sent to the other side.
    pub(super) signals: BTreeSet<(SeatId, SignalTag)>,
    /// The newest record of each log that the other side said to keep.
    pub(super) acked: BTreeMap<LogId, Seq>,
    /// Numbers of the logs that ranges to the other side named.
    pub(super) named_out: BTreeMap<LogId, u32>,
    pub(super) log_of_number: BTreeMap<u32, LogId>,
    /// Logs that ranges from the other side named, in order, and the same as a set.
    pub(super) named_in: Vec<LogId>,
    pub(super) known_in: BTreeSet<LogId>,
    /// How many logs that are not open here are remembered.
    pub(super) strange: Strange,
    /// Whether an announcement of such a log found no room.
    pub(super) has_ignored: bool,
    /// Whether the other side named too many of those: no more ranges of the thread are looked at.
    pub(super) is_muted: bool,
    /// What the next acknowledgement says, by the other side's log numbers.
    pub(super) acks: BTreeMap<u32, Seq>,
    /// How many ranges of each log were looked at, by the other side's log numbers.
    pub(super) ranges_in: BTreeMap<u32, u64>,
    /// How many ranges of each log were sent, and the last record of the last one.
    pub(super) ranges_out: BTreeMap<LogId, (u64, Seq)>,
    /// How many of them the other side looked at.
    pub(super) ranges_done: BTreeMap<LogId, u64>,
    /// How many ranges of all logs were sent, and how many of them were looked at.
    pub(super) ranges_sent: u64,
    pub(super) ranges_looked_at: u64,
    /// How far the answer to the other side's vector was looked at.
    pub(super) probe: Probe,
    /// Whether the other side wants no data logs until its next vector: they come from somebody else.
    pub(super) is_paused: bool,
    /// Whether the other side was told so.
    pub(super) pauses: bool,
    /// Whether it waited in vain for somebody who sent the same, and has not told everything since.
    pub(super) has_waited: bool,
    /// Whether a vector was sent because what came was here already, and nothing new came since.
    pub(super) is_corrected: bool,
    pub(super) wraps_sent: BTreeSet<(EpochId, SeatId, WrapTag)>,
    /// Keys that were wrapped anew because the other side asked.
    pub(super) wrapped_anew: BTreeSet<EpochId>,
    /// Whether the other side was asked for keys.
    pub(super) keys_asked: bool,
    /// How many wraps had been kept here when the other side last had them all, if it ever had.
    pub(super) wraps_level: Option<u64>,
    pub(super) genesis_sent: bool,
    pub(super) totals_sent: bool,
    pub(super) up_to_date_sent: bool,
    /// Logs whose ranges from this peer were refused.
    pub(super) refused: BTreeSet<LogId>,
    /// Those that this session refused because earlier ones had to.
    pub(super) shunned: BTreeSet<LogId>,
    /// Logs of which no more is taken in because so much of them waits here, and the admitted record at
    /// which they are asked for again; the highest number if it is for the thread's quota.
    pub(super) full: BTreeMap<LogId, Seq>,
    /// Logs whose ranges this peer refused, or has no room for.
    pub(super) unwanted: BTreeSet<LogId>,
    /// Those that it has no room for.
    pub(super) full_there: BTreeSet<LogId>,
    /// Logs whose ranges from this peer came before the record that opens them.
    pub(super) unknown: BTreeSet<LogId>,
    /// Logs of which this side let go ranges that nobody is to blame for: what was under way behind
    /// them does not follow what is here.
    pub(super) let_go: BTreeSet<LogId>,
    /// Logs about which the other side is to be asked, and from where on.
    pub(super) to_ask: BTreeMap<LogId, Seq>,
    /// Logs about which the other side was asked.
    pub(super) asked: BTreeMap<LogId, Seq>,
    /// What the other side asks, to be answered in turn.
    pub(super) questions: BTreeMap<LogId, Seq>,
    /// How many questions the other side asked.
    pub(super) questions_count: u32,
    /// Records that the other side announced and that have not come yet.
    pub(super) expected: u64,
}

impl Session {
    pub(super) fn new(local: PeerKey, remote: PeerKey, nonce: [u8; 32]) -> Self {
        Self {
            local,
            remote,
            nonce,
            remote_nonce: None,
            offered: BTreeMap::new(),
            wanted: BTreeMap::new(),
            wants_all: false,
            called: BTreeMap::new(),
            unproven: BTreeSet::new(),
            tags_out: 0,
            tags_seen: 0,
            named_until: 0,
            is_named_due: false,
            tags_in: 0,
            tags_received: false,
            tags_sent: false,
            comparison: Comparison::default(),
            is_proven: false,
            matched: BTreeMap::new(),
            strange: Strange::default(),
            thread_of_number: BTreeMap::new(),
            left: BTreeSet::new(),
            urgent: VecDeque::new(),
            ready: VecDeque::new(),
            is_ready: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            stirred: BTreeSet::new(),
            hearing: Hearing::default(),
        }
    }

    /// What both sides, and nobody else, agree that this session is.
    pub(super) fn binding(&self) -> Option<[u8; 32]> {
        let remote_nonce = self.remote_nonce?;
        let mut sides = [(self.local, self.nonce), (self.remote, remote_nonce)];
        sides.sort_unstable();
        let [(low, low_nonce), (high, high_nonce)] = sides;
        Some(Label::SESSION_BINDING.hash(&[&low.0, &high.0, &low_nonce, &high_nonce]))
    }

    fn side(&self, own: bool) -> [u8; 1] {
        [u8::from((self.local < self.remote) == own)]
    }

    /// The tag by which one side names a thread.
    pub(super) fn tag(&self, service: &ServiceKey, own: bool) -> Option<Tag> {
        let binding = self.binding()?;
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(service.expose())
            .expect("HMAC takes any key length");
        mac.update(&Label::THREAD_TAG.message(&[&binding, &self.side(own)]));
        mac.finalize().into_bytes().first_chunk().copied()
    }

    /// What a seat signs to show that it is at this end of the channel.
    pub(super) fn statement(&self, thread: ThreadId, own: bool) -> Option<Vec<u8>> {
        let binding = self
            .binding()
            .map(|it| if bug!(ProofNotBound) { [0; 32] } else { it })?;
        Some(Label::SESSION_PROOF.message(&[&binding, &thread.0, &self.side(own)]))
    }

    pub(super) fn proves(&self, thread: ThreadId, seat: SeatId, signature: &[u8; 64]) -> bool {
        let Some(statement) = self.statement(thread, false) else {
            return false;
        };
        let key = VerifyingKey::from_bytes(&seat.0);
        key.is_ok_and(|key| key.verify_message(&statement, signature).is_ok())
    }

    /// The short hash of a head, which nobody can have prepared for: both nonces key it.
    pub(super) fn short_hash(&self, id: &RecordId) -> [u8; SHORT_HASH_BYTES] {
        short_hash(&self.binding().unwrap_or_default(), id)
    }

    /// The short hash of a node or leaf of the tree over shared threads, keyed as the one of a head.
    pub(super) fn short_node(&self, digest: &Digest) -> ShortNode {
        let binding = self.binding().unwrap_or_default();
        let hash = Label::SHORT_NODE_HASH.hash(&[&binding, digest]);
        *hash
            .first_chunk()
            .expect("a hash is longer than its short form")
    }

    /// Logs of a vector whose newest record here is another one at the same place, but for proven forks.
    ///
    /// What it says to have beyond that is believed when it comes, the own log too: a claim alone
    /// must not cost anybody a log.
    pub(super) fn differing(&self, thread: &Thread, logs: &[HaveLog]) -> Vec<(LogId, Seq)> {
        let differs = |it: &&HaveLog| {
            let here = thread.log(&it.log).filter(|log| log.tip.seq == it.seq);
            let here = here.filter(|log| !thread.is_forked_at(&log.id, log.tip.seq));
            here.is_some_and(|log| self.short_hash(&log.tip.id) != it.hash)
        };
        let differing = logs.iter().filter(differs);
        differing.map(|it| (it.log, it.seq)).collect()
    }

    pub(super) fn wake(&mut self, thread: ThreadId) {
        if self.matched.contains_key(&thread) {
            self.unsettled.insert(thread);
            self.stirred.insert(thread);
            if self.is_ready.insert(thread) {
                self.ready.push_back(thread);
            }
        }
    }

    /// The next thread that may have something to send.
    pub(super) fn next_ready(&mut self) -> Option<ThreadId> {
        let thread = self.ready.pop_front()?;
        self.is_ready.remove(&thread);
        Some(thread)
    }
}

/// The short hash of a head under what nobody could foresee: the binding of a session, or the id of a
/// bundle.
pub(super) fn short_hash(binding: &[u8], id: &RecordId) -> [u8; SHORT_HASH_BYTES] {
    let hash = Label::SHORT_HEAD_HASH.hash(&[binding, &id.0]);
    *hash
        .first_chunk()
        .expect("a hash is longer than its short form")
}

impl Matched {
    /// Tells whether something of a log is to be sent on by itself.
    pub(super) fn is_pushed(&self, log: &LogId, tip: Seq) -> bool {
        let theirs = self.theirs.get(log).copied().unwrap_or_default();
        self.link.until(log, tip) > theirs && !self.unwanted.contains(log)
    }

    /// Tells whether something of a data log is to be sent.
    pub(super) fn owes_data(&self, thread: &Thread) -> bool {
        let mut data = thread.logs().filter(|log| !log.is_control);
        data.any(|log| self.is_pushed(&log.id, log.tip.seq))
    }

    /// Has the other side asked about logs that differ, each once.
    pub(super) fn ask_about(&mut self, differing: impl IntoIterator<Item = (LogId, Seq)>) {
        for (log, from) in differing {
            if !self.asked.contains_key(&log) {
                self.to_ask.insert(log, from);
            }
        }
    }

    /// The last record of each log that is under way to the other side.
    pub(super) fn under_way(&self) -> impl Iterator<Item = (LogId, Seq)> + '_ {
        let done = |log: &LogId| self.ranges_done.get(log).copied().unwrap_or_default();
        let sent = self
            .ranges_out
            .iter()
            .filter(move |(log, (sent, _))| *sent > done(log));
        sent.map(|(log, (_, last))| (*log, *last))
    }

    /// Tells whether the other side proved a seat that holds a role: nobody else is told anything.
    pub(super) fn may_follow(&self, thread: &Thread) -> bool {
        let seat = self.seat;
        seat.is_some_and(|seat| thread.governance().role(seat).is_some())
    }

    /// Tells whether the other side's seat was removed.
    pub(super) fn is_removed(&self, thread: &Thread) -> bool {
        let seat = self.seat;
        seat.is_some_and(|seat| thread.governance().was_removed(seat))
    }

    /// Begins anew: vectors are exchanged again.
    pub(super) fn refresh(&mut self) {
        self.have_sent = false;
        self.up_to_date_sent = false;
        self.totals_sent = false;
        self.keys_asked = false;
    }

    /// Notes that the other side is sent a vector.
    pub(super) fn count_have(&mut self) {
        self.have_sent = true;
        self.pauses = false;
        self.haves_out = self.haves_out.saturating_add(1);
    }

    /// Tells whether the other side has nothing more than what the newest vector says. An answer to an
    /// earlier one may be under way for long, while there is news that it does not know of.
    pub(super) fn is_answered(&self) -> bool {
        self.have_sent && self.haves_answered == self.haves_out
    }

    /// Tells whether each side said that it has nothing more for the other, and the other side keeps
    /// what it was sent: that it was sent all does not mean that anything arrived.
    pub(super) fn is_level(&self) -> bool {
        let is_done = self.up_to_date_sent && self.is_answered();
        let has_room = self.full.is_empty() && self.full_there.is_empty();
        is_done && self.expected == 0 && has_room && self.is_kept()
    }

    /// Tells whether the other side keeps all records that it was sent and did not decline.
    fn is_kept(&self) -> bool {
        let done = |log: &LogId| self.ranges_done.get(log).copied().unwrap_or_default();
        let acked = |log: &LogId| self.acked.get(log).copied().unwrap_or_default();
        self.ranges_out.iter().all(|(log, (sent, last))| {
            self.unwanted.contains(log) || (*sent <= done(log) && *last <= acked(log))
        })
    }

    /// Tells whether nothing of a log is taken from the other side now.
    pub(super) fn is_unwanted(&self, log: &LogId) -> bool {
        self.refused.contains(log) || self.full.contains_key(log)
    }
}

#[cfg(test)]
mod tests;

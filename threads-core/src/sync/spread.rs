//! Fan-out: over which sessions records are pushed, and over which they are only announced.
//!
//! A peer pushes what it admits over at most [`SPREAD_DEGREE`] sessions of a thread and announces it
//! over the others. Whoever is pushed what is here already asks for announcements instead; whoever
//! is announced what does not come asks for it, and to be pushed from then on. So the sessions that
//! push grow into a tree, and the announcements mend it. Vectors still answer everything that a peer
//! lacks, whatever is pushed. Between few peers everything is always pushed.
//!
//! Source: Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", SRDS 2007 (Plumtree). Here a place
//! in a log stands for a message id, and degree and room bound what one peer has to send.

use std::collections::{BTreeMap, BTreeSet};

use leno_crdt_codec::{LogId, Seq};

use super::PeerKey;
use super::message::{HaveLog, LOGS_MAX, Message};
use super::replica::Replica;
use super::session::{Matched, Session};
use crate::ThreadId;
use crate::thread::Thread;

/// Over how many sessions of a thread a peer pushes unless another number is set.
pub const SPREAD_DEGREE: usize = 12;

/// With at most so many sessions of a thread, a peer wants everything pushed by all.
const FEW: usize = 3;

/// How long announcements wait for more of them.
const ANNOUNCE_MILLIS: u64 = 200;

/// How long what was announced may take to come by itself.
const GRAFT_MILLIS: u64 = 1_000;

/// The same if who announced it has no room for more to push to: others are to be asked first.
const GRAFT_NO_ROOM_MILLIS: u64 = 3_000;

/// The longest time between asking one peer twice; it doubles up to here.
const GRAFT_MILLIS_MAX: u64 = 60_000;

/// How records of a thread go over a session.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether records are announced only.
    is_lazy: bool,
    /// Whether the other side wants it so.
    is_pruned: bool,
    /// What is sent all the same: what the other side asked for, by a vector or by name.
    pull: BTreeMap<LogId, Seq>,
    /// What was announced to the other side.
    announced: BTreeMap<LogId, Seq>,
    /// Logs whose newest record here the other side waits to hear of.
    to_tell: BTreeSet<LogId>,
    announce_at: Option<u64>,
    announce_due: bool,
    /// What the other side announced and what is not here, and since when it is missed.
    offered: BTreeMap<LogId, (Seq, u64)>,
    /// How long it may take to come by itself.
    patience_millis: u64,
    graft_at: Option<u64>,
    graft_wait_millis: u64,
    /// Logs to ask the other side for, and whether it is to push always.
    grafts: BTreeSet<LogId>,
    graft_always: bool,
    prune_due: bool,
    /// A timer that was set while messages were made.
    new_timer: Option<u64>,
}

/// Who follows a thread.
#[derive(Debug, Default)]
struct Followers {
    eager: BTreeSet<PeerKey>,
    lazy: BTreeSet<PeerKey>,
    /// Logs that somebody was asked for, and until when nobody else is.
    asked: BTreeMap<LogId, u64>,
}

/// The fan-out of all threads.
#[derive(Debug)]
pub(super) struct Spreads {
    degree: usize,
    of: BTreeMap<ThreadId, Followers>,
    timers: BTreeSet<(u64, PeerKey, ThreadId)>,
    /// The time of the last step.
    pub(super) now_millis: u64,
}

impl Default for Spreads {
    fn default() -> Self {
        Self {
            degree: SPREAD_DEGREE,
            of: BTreeMap::new(),
            timers: BTreeSet::new(),
            now_millis: 0,
        }
    }
}

impl Spreads {
    /// Tells whether another session of a thread can be pushed over.
    fn may_push(&self, id: &ThreadId) -> bool {
        let eager = self.of.get(id).map_or(0, |it| it.eager.len());
        eager < self.degree
    }

    /// Tells whether all who are announced to may be told that there is room: a place for one of a
    /// thousand is not said to be one for each.
    pub(super) fn has_room(&self, id: &ThreadId) -> bool {
        let lazy = self.of.get(id).map_or(0, |it| it.lazy.len());
        self.may_push(id) && lazy <= self.degree
    }

    /// Tells whether so few follow a thread that duplicates do not matter.
    fn is_few(&self, id: &ThreadId) -> bool {
        let count = |it: &Followers| it.eager.len() + it.lazy.len();
        self.of.get(id).map_or(0, count) <= FEW
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Ends the fan-out of a thread that is not followed here any more.
    pub(super) fn forget(&mut self, id: &ThreadId) {
        self.of.remove(id);
        self.timers.retain(|(.., of)| of != id);
    }

    /// Takes over a timer that was set while messages were made.
    pub(super) fn take_timer(&mut self, peer: PeerKey, id: ThreadId, session: &mut Session) {
        let matched = session.matched.get_mut(&id);
        if let Some(at) = matched.and_then(|matched| matched.link.new_timer.take()) {
            self.timers.insert((at, peer, id));
        }
    }
}

impl Link {
    /// What a bundle is made by: everything up to there, and nothing that comes meanwhile.
    pub(super) fn only(pull: BTreeMap<LogId, Seq>) -> Self {
        Self {
            is_lazy: true,
            pull,
            ..Self::default()
        }
    }

    /// The newest record of a log that is to be sent by itself.
    pub(super) fn until(&self, log: &LogId, tip: Seq) -> Seq {
        if !self.is_lazy {
            return tip;
        }
        self.pull.get(log).copied().unwrap_or_default().min(tip)
    }

    fn announce_soon(&mut self, now_millis: u64) {
        if self.announce_at.is_none() && !self.announce_due {
            let at = now_millis.saturating_add(ANNOUNCE_MILLIS);
            self.announce_at = Some(at);
            self.new_timer = Some(at);
        }
    }
}

impl Matched {
    /// Tells whether records are announced only.
    pub(super) fn is_lazy(&self) -> bool {
        self.link.is_lazy
    }

    /// Answers a vector in full, however records go otherwise.
    pub(super) fn pull_all(&mut self, thread: &Thread) {
        self.link.pull.clear();
        if self.link.is_lazy {
            self.link.pull = thread.logs().map(|log| (log.id, log.tip.seq)).collect();
        }
    }

    /// How many of the logs that were announced, and did not come, are not open here.
    pub(super) fn strange_offers(&self, thread: Option<&Thread>) -> usize {
        let offered = self.link.offered.keys();
        let is_strange = |log: &&LogId| thread.is_none_or(|it| it.log(log).is_none());
        offered.filter(is_strange).count()
    }

    /// What came by another way needs not be asked for; who announced it waits to hear so.
    pub(super) fn settle_offers(&mut self, thread: &Thread) {
        let link = &mut self.link;
        let came = |log: &LogId, seq: Seq| thread.log(log).is_some_and(|it| it.tip.seq >= seq);
        link.offered.retain(|log, (seq, _)| {
            let is_here = came(log, *seq);
            if is_here {
                link.to_tell.insert(*log);
            }
            !is_here
        });
    }

    /// The next message about how records go.
    pub(super) fn next_of_link(
        &mut self,
        session: &Session,
        thread: &Thread,
        has_room: bool,
        now_millis: u64,
    ) -> Option<Vec<u8>> {
        let number = self.number;
        if std::mem::take(&mut self.link.prune_due) {
            return Some(Message::Prune { thread: number }.encode());
        }
        let grafts = std::mem::take(&mut self.link.grafts);
        if !grafts.is_empty() {
            let here = |log: LogId| (log, thread.log(&log).map_or(0, |it| it.tip.seq));
            let graft = Message::Graft {
                thread: number,
                always: self.link.graft_always,
                logs: grafts.into_iter().take(LOGS_MAX).map(here).collect(),
            };
            return Some(graft.encode());
        }
        let is_news = |matched: &Self, log: &LogId, tip: Seq| {
            let known = |map: &BTreeMap<LogId, Seq>| map.get(log).copied().unwrap_or_default();
            let told = known(&matched.theirs).max(known(&matched.link.announced));
            let is_told_only = matched.link.is_lazy && tip > matched.link.until(log, tip).max(told);
            tip > 0 && (is_told_only || matched.link.to_tell.contains(log))
        };
        if !self.link.announce_due {
            let mut logs = thread.logs();
            if logs.any(|log| is_news(self, &log.id, log.tip.seq)) {
                self.link.announce_soon(now_millis);
            }
            return None;
        }
        let logs = thread
            .logs()
            .filter(|log| is_news(self, &log.id, log.tip.seq));
        let logs: Vec<_> = logs
            .take(LOGS_MAX)
            .map(|log| HaveLog {
                log: log.id,
                seq: log.tip.seq,
                hash: session.short_hash(&log.tip.id),
            })
            .collect();
        self.link.announce_due = logs.len() == LOGS_MAX;
        if logs.is_empty() {
            self.link.to_tell.clear();
            return None;
        }
        for it in &logs {
            self.link.announced.insert(it.log, it.seq);
            self.link.to_tell.remove(&it.log);
        }
        let announce = Message::Announce {
            thread: number,
            has_room,
            logs,
        };
        Some(announce.encode())
    }
}

impl Replica {
    /// Sets over how many sessions of a thread records are pushed: [`SPREAD_DEGREE`] by default. For
    /// sessions to come.
    pub fn set_degree(&mut self, degree: usize) {
        self.spreads.degree = degree.max(1);
    }

    fn link(&mut self, peer: &PeerKey, id: &ThreadId) -> Option<&mut Link> {
        let matched = self.sessions.get_mut(peer)?.matched.get_mut(id)?;
        Some(&mut matched.link)
    }

    /// The other side of a session follows a thread from now on.
    pub(super) fn follow(&mut self, peer: PeerKey, id: ThreadId) {
        let degree = self.spreads.degree;
        let followers = self.spreads.of.entry(id).or_default();
        if followers.eager.contains(&peer) || followers.lazy.contains(&peer) {
            return;
        }
        let is_lazy = followers.eager.len() >= degree;
        let side = match is_lazy {
            true => &mut followers.lazy,
            false => &mut followers.eager,
        };
        side.insert(peer);
        if let Some(link) = self.link(&peer, &id) {
            link.is_lazy = is_lazy;
        }
    }

    /// A session is over: others take its place.
    pub(super) fn unfollow(&mut self, peer: &PeerKey) {
        let session = self.sessions.get(peer);
        let ids: Vec<_> = session.map_or_else(Vec::new, |it| it.matched.keys().copied().collect());
        for id in ids {
            self.part(peer, &id);
            let is_followed = |it: &Followers| !it.eager.is_empty() || !it.lazy.is_empty();
            if self.spreads.of.get(&id).is_some_and(|it| !is_followed(it)) {
                self.spreads.of.remove(&id);
            }
        }
    }

    /// One side of a session does not follow a thread any more.
    pub(super) fn part(&mut self, peer: &PeerKey, id: &ThreadId) {
        self.delivery_over(peer, id);
        let Some(followers) = self.spreads.of.get_mut(id) else {
            return;
        };
        followers.lazy.remove(peer);
        if followers.eager.remove(peer) {
            self.refill(*id, self.spreads.degree);
        }
    }

    /// Pushes over more sessions, up to so many, but for those that do not want it. If nobody is left
    /// who does, somebody is pushed to all the same.
    fn refill(&mut self, id: ThreadId, count: usize) {
        loop {
            let Some(followers) = self.spreads.of.get(&id) else {
                return;
            };
            if followers.eager.len() >= count {
                return;
            }
            let is_willing = |peer: &&PeerKey| {
                let matched = self.sessions.get(peer).and_then(|it| it.matched.get(&id));
                matched.is_some_and(|matched| !matched.link.is_pruned)
            };
            let mut next = followers.lazy.iter().find(is_willing);
            if followers.eager.is_empty() {
                next = next.or(followers.lazy.first());
            }
            let Some(next) = next.copied() else { return };
            self.promote(next, id);
        }
    }

    fn promote(&mut self, peer: PeerKey, id: ThreadId) {
        if let Some(followers) = self.spreads.of.get_mut(&id) {
            followers.lazy.remove(&peer);
            followers.eager.insert(peer);
        }
        if let Some(link) = self.link(&peer, &id) {
            (link.is_lazy, link.is_pruned) = (false, false);
        }
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.wake(id);
        }
    }

    /// The other side has what it was pushed from elsewhere.
    pub(super) fn pruned(&mut self, peer: PeerKey, id: ThreadId) {
        let degree = self.spreads.degree;
        let Some(followers) = self.spreads.of.get_mut(&id) else {
            return;
        };
        if followers.eager.remove(&peer) {
            followers.lazy.insert(peer);
        }
        let Self {
            sessions, slots, ..
        } = self;
        let matched = sessions
            .get_mut(&peer)
            .and_then(|it| it.matched.get_mut(&id));
        if let (Some(matched), Some(super::Slot::Open(thread))) = (matched, slots.get(&id)) {
            (matched.link.is_lazy, matched.link.is_pruned) = (true, true);
            matched.link.pull.clear();
            if !matched.up_to_date_sent {
                matched.pull_all(thread);
            }
        }
        // A single one would have the next one pushed what is just on its way by others.
        self.refill(id, degree.div_ceil(2));
    }

    /// The other side asks for records that were announced.
    pub(super) fn grafted(
        &mut self,
        peer: PeerKey,
        id: ThreadId,
        always: bool,
        logs: &[(LogId, Seq)],
    ) {
        let may_push = self.spreads.may_push(&id);
        let Self {
            sessions, slots, ..
        } = self;
        let session = sessions.get_mut(&peer);
        let (Some(session), Some(super::Slot::Open(thread))) = (session, slots.get(&id)) else {
            return;
        };
        let Some(matched) = session.matched.get_mut(&id) else {
            return;
        };
        let under_way: BTreeMap<_, _> = matched.under_way().collect();
        for (log, seq) in logs {
            let Some(here) = thread.log(log) else {
                continue;
            };
            let sent = under_way.get(log).copied().unwrap_or_default();
            matched.theirs.insert(*log, sent.max(*seq));
            matched.link.pull.insert(*log, here.tip.seq);
        }
        session.wake(id);
        if always || may_push {
            self.promote(peer, id);
        }
    }

    /// Notes that a peer pushed what was here already.
    pub(super) fn was_duplicate(&mut self, peer: PeerKey, id: ThreadId) {
        let is_few = self.spreads.is_few(&id);
        let matched = self
            .sessions
            .get_mut(&peer)
            .and_then(|it| it.matched.get_mut(&id));
        if let Some(matched) = matched
            && !is_few
            // What answers a vector may come from several.
            && matched.is_answered()
        {
            matched.link.prune_due = true;
        }
    }

    /// Notes what a peer announced: what is here is answered, what is not may come by itself.
    pub(super) fn announced(
        &mut self,
        peer: PeerKey,
        id: ThreadId,
        has_room: bool,
        logs: &[HaveLog],
    ) {
        let (is_few, now) = (self.spreads.is_few(&id), self.spreads.now_millis);
        let Self {
            sessions,
            slots,
            spreads,
            ..
        } = self;
        let session = sessions.get_mut(&peer);
        let (Some(session), Some(super::Slot::Open(thread))) = (session, slots.get(&id)) else {
            return;
        };
        for it in logs {
            let here = thread.log(&it.log);
            // Of logs that are not open here, only so many take room.
            if here.is_none() && !session.admit_told(&id, &it.log) {
                continue;
            }
            let Some(matched) = session.matched.get_mut(&id) else {
                return;
            };
            let link = &mut matched.link;
            let is_offered = link.offered.contains_key(&it.log) || link.offered.len() < LOGS_MAX;
            let tip = here.map_or(0, |log| log.tip.seq);
            let theirs = matched.theirs.entry(it.log).or_default();
            *theirs = it.seq.max(*theirs);
            if tip >= it.seq {
                if link.announced.get(&it.log).is_none_or(|told| *told < tip) {
                    link.to_tell.insert(it.log);
                }
            } else if is_offered {
                // What is newer waits no less than what was missed before.
                let offer = link.offered.entry(it.log).or_insert((it.seq, now));
                offer.0 = it.seq.max(offer.0);
                if is_few {
                    link.grafts.insert(it.log);
                    link.graft_always = true;
                }
            }
        }
        let Some(matched) = session.matched.get_mut(&id) else {
            return;
        };
        let link = &mut matched.link;
        // Not all at once, and those with room first.
        let spread = u64::from(session.local.0[0] ^ session.remote.0[0]);
        link.patience_millis = spread
            + match has_room {
                true => GRAFT_MILLIS,
                false => GRAFT_NO_ROOM_MILLIS,
            };
        if !link.offered.is_empty() && link.graft_at.is_none() {
            let at = now.saturating_add(link.patience_millis);
            link.graft_wait_millis = GRAFT_MILLIS;
            link.graft_at = Some(at);
            spreads.timers.insert((at, peer, id));
        }
        session.wake(id);
    }

    /// Brings forward what is planned by as much as the clock was set back.
    pub(super) fn spread_clock_went_back(&mut self, millis: u64) {
        let back = |at: &mut u64| *at = at.saturating_sub(millis);
        let timers = std::mem::take(&mut self.spreads.timers).into_iter();
        let timers = timers.map(|(at, peer, id)| (at.saturating_sub(millis), peer, id));
        self.spreads.timers = timers.collect();
        let followers = self.spreads.of.values_mut();
        followers.for_each(|it| it.asked.values_mut().for_each(back));
        let sessions = self.sessions.values_mut();
        for matched in sessions.flat_map(|it| it.matched.values_mut()) {
            let link = &mut matched.link;
            let planned = [
                &mut link.announce_at,
                &mut link.graft_at,
                &mut link.new_timer,
            ];
            planned.into_iter().flatten().for_each(back);
            let since = link.offered.values_mut().map(|(_, since)| since);
            since.for_each(back);
        }
    }

    /// Announces what waited for its time, and asks for what was announced and did not come.
    pub(super) fn spread_timeout(&mut self, now_millis: u64) {
        while let Some((at, peer, id)) = self.spreads.timers.first().copied() {
            if at > now_millis {
                return;
            }
            self.spreads.timers.pop_first();
            self.link_due(peer, id, now_millis);
        }
    }

    fn link_due(&mut self, peer: PeerKey, id: ThreadId, now_millis: u64) {
        let Self {
            sessions,
            slots,
            spreads,
            ..
        } = self;
        let session = sessions.get_mut(&peer);
        let (Some(session), Some(super::Slot::Open(thread))) = (session, slots.get(&id)) else {
            return;
        };
        let Some(matched) = session.matched.get_mut(&id) else {
            return;
        };
        let is_due = |at: &mut Option<u64>| at.take_if(|at| *at <= now_millis).is_some();
        if is_due(&mut matched.link.announce_at) {
            matched.link.announce_due = true;
        }
        if is_due(&mut matched.link.graft_at) {
            matched.settle_offers(thread);
            let patience = matched.link.patience_millis;
            let due = |since: u64| since.saturating_add(patience);
            let late = matched
                .link
                .offered
                .iter()
                .filter(|(_, (_, since))| due(*since) <= now_millis);
            let late: Vec<_> = late.map(|(log, _)| *log).collect();
            let asked = &mut spreads.of.entry(id).or_default().asked;
            asked.retain(|_, until| *until > now_millis);
            let mut next = matched
                .link
                .offered
                .values()
                .map(|(_, since)| due(*since))
                .min();
            for log in &late {
                if !asked.contains_key(log) && !matched.is_unwanted(log) {
                    asked.insert(*log, now_millis.saturating_add(GRAFT_MILLIS));
                    matched.link.grafts.insert(*log);
                }
            }
            let link = &mut matched.link;
            if !late.is_empty() {
                next = Some(now_millis.saturating_add(link.graft_wait_millis));
                link.graft_wait_millis = (link.graft_wait_millis * 2).min(GRAFT_MILLIS_MAX);
            }
            if let Some(at) = next {
                link.graft_at = Some(at);
                spreads.timers.insert((at, peer, id));
            }
        }
        session.wake(id);
    }
}

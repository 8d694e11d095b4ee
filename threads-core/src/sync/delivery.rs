//! One sender at a time: of several peers that answer a vector with the same records, one goes on.
//!
//! Whoever answers a vector sends little of data logs at first, and more the more of it was looked at, so
//! that little is under way that nobody needs. Whoever asked several, and is sent by one what another
//! sent it already, has the one pause until the next vector: that is sent when the other has nothing more,
//! goes away, sends what has to be refused, or is silent, and after a minute in any case. Who waited for
//! that pauses no more until it said that it has nothing more, so that nobody who sends slowly, or in
//! spurts, holds up what others have. So a record comes about once, however many have it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::PeerKey;
use super::message::RANGE_BYTES;
use super::replica::Replica;
use super::session::Matched;
use crate::ThreadId;

/// Bytes of data logs that answer a vector before any of them was looked at.
pub(super) const PROBE_BYTES: usize = 64 << 10;

/// How much more may be under way for each byte that was looked at.
const GROWTH: usize = 2;

/// How long whoever delivers may send nothing new, and how long on a slow link: three times what it took
/// before, up to the maximum.
const SILENT_MILLIS_MIN: u64 = 5_000;
const SILENT_MILLIS_MAX: u64 = 60_000;

/// How long somebody pauses at most.
const PAUSE_MILLIS: u64 = 60_000;

/// How much of the answer to a vector may be under way: at first [`PROBE_BYTES`], and more the more was
/// looked at, until it is [`RANGE_BYTES`] and no more counted.
#[derive(Debug)]
pub(super) struct Probe {
    window_bytes: usize,
    /// What is under way: bytes of ranges, by how many had been sent then.
    ranges: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            window_bytes: PROBE_BYTES,
            ranges: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl Probe {
    fn is_over(&self) -> bool {
        self.window_bytes >= RANGE_BYTES
    }

    /// How many bytes more may be sent now.
    fn room(&self) -> usize {
        match self.is_over() {
            true => RANGE_BYTES,
            false => self.window_bytes.saturating_sub(self.bytes),
        }
    }

    fn sent(&mut self, ranges: u64, bytes: usize) {
        if !self.is_over() {
            self.bytes = self.bytes.saturating_add(bytes);
            self.ranges.push_back((ranges, bytes));
        }
    }

    fn looked_at(&mut self, ranges: u64) {
        while let Some((at, bytes)) = self.ranges.front().copied()
            && at <= ranges
        {
            self.ranges.pop_front();
            self.bytes = self.bytes.saturating_sub(bytes);
            let more = bytes.saturating_mul(GROWTH);
            self.window_bytes = self.window_bytes.saturating_add(more);
        }
        if self.is_over() {
            self.ranges = VecDeque::new();
        }
    }
}

impl Matched {
    /// How many bytes of data logs may be sent now.
    pub(super) fn data_room(&self) -> usize {
        match self.is_paused {
            true => 0,
            false => self.probe.room(),
        }
    }

    /// Notes that a range of a data log was sent.
    pub(super) fn data_sent(&mut self, bytes: usize) {
        self.probe.sent(self.ranges_sent, bytes);
    }

    /// Notes that the other side looked at ranges. Returns whether more may be sent for it.
    pub(super) fn data_looked_at(&mut self) -> bool {
        let had_room = self.probe.room() > 0;
        self.probe.looked_at(self.ranges_looked_at);
        !had_room && self.data_room() > 0
    }

    /// A vector came, which ends a pause and is answered from its beginning.
    pub(super) fn restart_data(&mut self) {
        self.is_paused = false;
        self.probe = Probe::default();
    }
}

/// Who sends what of which thread, while several do.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    of: BTreeMap<ThreadId, Delivery>,
    timers: BTreeSet<(u64, ThreadId)>,
}

/// Who sends a thread.
#[derive(Debug)]
struct Delivery {
    /// Who sent something new last. It never pauses.
    by: PeerKey,
    /// When, and the longest time between two such.
    at_millis: u64,
    gap_millis: u64,
    /// Who was to pause meanwhile, and until when at most.
    paused: BTreeMap<PeerKey, u64>,
    /// The timer that is set.
    timer: Option<u64>,
}

impl Delivery {
    /// Until when nothing new has to come from whoever delivers.
    fn patient_until(&self) -> u64 {
        let patience = self.gap_millis.saturating_mul(3);
        let patience = patience.clamp(SILENT_MILLIS_MIN, SILENT_MILLIS_MAX);
        self.at_millis.saturating_add(patience)
    }

    /// Notes that something new came.
    fn delivers(&mut self, peer: PeerKey, now_millis: u64) {
        match self.by == peer {
            true => {
                let gap = now_millis.saturating_sub(self.at_millis);
                self.gap_millis = self.gap_millis.max(gap);
            }
            false => (self.by, self.gap_millis) = (peer, 0),
        }
        self.at_millis = now_millis;
    }

    /// Takes out who pauses no longer.
    fn take_due(&mut self, now_millis: u64) -> Vec<PeerKey> {
        let is_silent = self.patient_until() <= now_millis;
        let mut due = Vec::new();
        self.paused.retain(|peer, until| {
            let is_due = is_silent || *until <= now_millis;
            if is_due {
                due.push(*peer);
            }
            !is_due
        });
        due
    }
}

impl Deliveries {
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Ends what is known of a thread that is not followed here any more.
    pub(super) fn forget(&mut self, id: &ThreadId) {
        let timer = self.of.remove(id).and_then(|it| it.timer);
        if let Some(at) = timer {
            self.timers.remove(&(at, *id));
        }
    }

    /// Sets the timer of a thread anew.
    fn plan(&mut self, id: ThreadId) {
        let Some(delivery) = self.of.get_mut(&id) else {
            return;
        };
        if let Some(at) = delivery.timer.take() {
            self.timers.remove(&(at, id));
        }
        if let Some(until) = delivery.paused.values().min() {
            let at = delivery.patient_until().min(*until);
            delivery.timer = Some(at);
            self.timers.insert((at, id));
        }
    }
}

impl Replica {
    fn matched_mut(&mut self, peer: &PeerKey, id: &ThreadId) -> Option<&mut Matched> {
        self.sessions.get_mut(peer)?.matched.get_mut(id)
    }

    /// Notes how much of a range of a data log was new. Returns whether the peer is to pause: another one
    /// sends the same.
    pub(super) fn delivered(
        &mut self,
        peer: PeerKey,
        id: ThreadId,
        records: u64,
        stored: u64,
    ) -> bool {
        let now = self.spreads.now_millis;
        let is_news = stored > records / 2;
        let Some(matched) = self.matched_mut(&peer, &id) else {
            return false;
        };
        // What comes during a pause was under way, and by itself it comes once everything was told.
        if matched.pauses || matched.is_answered() {
            return false;
        }
        if is_news {
            matched.is_corrected = false;
            let delivery = self.deliveries.of.entry(id).or_insert_with(|| Delivery {
                by: peer,
                at_millis: now,
                gap_millis: 0,
                paused: BTreeMap::new(),
                timer: None,
            });
            delivery.delivers(peer, now);
            return false;
        }
        let has_waited = matched.has_waited;
        let delivery = self.deliveries.of.get_mut(&id);
        let may_pause = |it: &&mut Delivery| it.by != peer && it.patient_until() > now;
        let delivery = delivery.filter(|it| !has_waited && may_pause(it));
        if let Some(delivery) = delivery {
            delivery
                .paused
                .insert(peer, now.saturating_add(PAUSE_MILLIS));
            self.deliveries.plan(id);
            if let Some(matched) = self.matched_mut(&peer, &id) {
                matched.pauses = true;
            }
            return true;
        }
        // Nobody sends it any more: it is here. What was under way by then may still come.
        if let Some(matched) = self.matched_mut(&peer, &id)
            && !std::mem::replace(&mut matched.is_corrected, true)
        {
            matched.have_sent = false;
        }
        false
    }

    /// A peer sends no more of a thread, for whatever reason: the next one is asked.
    pub(super) fn delivery_over(&mut self, peer: &PeerKey, id: &ThreadId) {
        let Some(delivery) = self.deliveries.of.get_mut(id) else {
            return;
        };
        if delivery.by != *peer {
            // Who pauses may have nothing left by now, and hears of the end of its pause all the same.
            if delivery.paused.remove(peer).is_some() {
                self.deliveries.plan(*id);
                self.resume([*peer], *id);
            }
            return;
        }
        let paused = std::mem::take(&mut delivery.paused);
        self.deliveries.forget(id);
        self.resume(paused.into_keys(), *id);
    }

    /// Brings forward what is planned by as much as the clock was set back.
    pub(super) fn delivery_clock_went_back(&mut self, millis: u64) {
        let ids: Vec<_> = self.deliveries.of.keys().copied().collect();
        for id in ids {
            if let Some(delivery) = self.deliveries.of.get_mut(&id) {
                delivery.at_millis = delivery.at_millis.saturating_sub(millis);
                let untils = delivery.paused.values_mut();
                untils.for_each(|until| *until = until.saturating_sub(millis));
            }
            self.deliveries.plan(id);
        }
    }

    /// Asks peers again that were to pause.
    fn resume(&mut self, peers: impl IntoIterator<Item = PeerKey>, id: ThreadId) {
        for peer in peers {
            let Some(session) = self.sessions.get_mut(&peer) else {
                continue;
            };
            if let Some(matched) = session.matched.get_mut(&id)
                && matched.pauses
            {
                matched.have_sent = false;
                session.wake(id);
            }
        }
    }

    /// Asks those whose pause is over by now.
    pub(super) fn delivery_timeout(&mut self, now_millis: u64) {
        while let Some((_, id)) = self.deliveries.timers.first().copied() {
            if self.deliveries.poll_timeout() > Some(now_millis) {
                return;
            }
            self.deliveries.timers.pop_first();
            let Some(delivery) = self.deliveries.of.get_mut(&id) else {
                continue;
            };
            delivery.timer = None;
            let due = delivery.take_due(now_millis);
            self.deliveries.plan(id);
            for peer in &due {
                if let Some(matched) = self.matched_mut(peer, &id) {
                    matched.has_waited = true;
                }
            }
            self.resume(due, id);
        }
    }
}

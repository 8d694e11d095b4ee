//! All threads of a peer and its sessions.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use leno_crdt_codec::{LogId, Seq, bug};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::PeerKey;
use super::agenda::Agenda;
use super::bundle::Imports;
use super::delivery::Deliveries;
use super::error::SyncError;
use super::message::Message;
use super::pair::{Pair, Pairs};
use super::refusal::Refusals;
use super::send::{Around, next_message, next_message_while_joining, owed};
use super::session::{Matched, Session};
use super::signal::Signals;
use super::slot::{Joining, Slot, decode_joining, encode_joining};
use super::spread::Spreads;
use super::step::Step;
use crate::seal::NonceSecret;
use crate::store::{StoreError, Table, View, scan_prefix};
use crate::thread::{Changes, LoadError, Opened, Quota, Seat, Thread, ThreadEvent};
use crate::{Now, SeatId, ServiceKey, ThreadId, keys};

/// Where opened records of any thread go.
pub type ReplicaSink<'a> = &'a mut dyn FnMut(ThreadId, &Opened<'_>);

/// How far a thread is from level with a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Records that the peer announced and that have not come yet.
    pub to_receive: u64,
    /// Records that are here and that the peer lacks.
    pub to_send: u64,
}

/// Whether a thread and a peer have told each other everything.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Level {
    /// The peer does not follow the thread, as far as is known.
    NotShared,
    /// Something is still to be told.
    Behind,
    /// Each side said that it has nothing more for the other, and the other side keeps all that this
    /// one sent.
    Level,
}

/// All threads of a peer, and a session with each peer that it is connected to.
pub struct Replica {
    pub(super) local: PeerKey,
    pub(super) nonce_secret: NonceSecret,
    pub(super) slots: BTreeMap<ThreadId, Slot>,
    /// The threads by the numbers that they have in this store.
    pub(super) numbers: BTreeMap<u32, ThreadId>,
    pub(super) sessions: BTreeMap<PeerKey, Session>,
    pub(super) refusals: Refusals,
    /// How much of a thread is kept, where that is bounded.
    pub(super) quotas: BTreeMap<ThreadId, Quota>,
    pub(super) imports: Imports,
    pub(super) signals: Signals,
    pub(super) spreads: Spreads,
    pub(super) deliveries: Deliveries,
    pub(super) pairs: Pairs,
    pub(super) agenda: Agenda,
    /// Threads of which a peer that has the same may keep more than is noted.
    pub(super) unkept: BTreeSet<ThreadId>,
    next_number: u32,
}

impl fmt::Debug for Replica {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Replica")
            .field("threads", &self.slots.len())
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Loads all threads of a store.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails or a row does not read as written.
    pub fn load(
        view: &dyn View,
        local: PeerKey,
        nonce_secret: NonceSecret,
    ) -> Result<Self, StoreError> {
        let mut rows = Vec::new();
        scan_prefix(view, Table::Threads, &[], &mut |key, row| {
            let number = key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            rows.push((number.unwrap_or_default(), Zeroizing::new(row.to_vec())));
            ControlFlow::Continue(())
        })?;
        let pairs = Pairs::load(view)?;
        let mut replica = Self {
            local,
            nonce_secret,
            slots: BTreeMap::new(),
            numbers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            refusals: Refusals::default(),
            quotas: BTreeMap::new(),
            imports: Imports::default(),
            signals: Signals::default(),
            spreads: Spreads::default(),
            deliveries: Deliveries::default(),
            next_number: pairs.numbers_until(),
            pairs,
            agenda: Agenda::default(),
            unkept: BTreeSet::new(),
        };
        for (number, row) in rows {
            let (id, slot) = match decode_joining(&row, number) {
                Ok(Some((id, joining))) => (id, Slot::Joining(Box::new(joining))),
                Ok(None) => {
                    let thread = Thread::load(view, number, replica.nonce_secret.clone());
                    let thread = thread.map_err(|error| match error {
                        LoadError::Store(error) => error,
                        other @ (LoadError::NotHere | LoadError::WrongGenesis) => {
                            StoreError::Corrupt {
                                what: other.to_string(),
                            }
                        }
                    })?;
                    (thread.id(), Slot::Open(Box::new(thread)))
                }
                Err(error) => {
                    return Err(StoreError::Corrupt {
                        what: format!("a row of a thread: {error}"),
                    });
                }
            };
            replica.insert(id, slot);
        }
        Ok(replica)
    }

    /// This peer.
    pub(super) fn local(&self) -> PeerKey {
        self.local
    }

    /// The number for the next thread of this store.
    #[must_use]
    pub fn next_number(&self) -> u32 {
        self.next_number
    }

    /// The device's nonce secret, for a thread that is about to be made.
    #[must_use]
    pub fn nonce_secret(&self) -> NonceSecret {
        self.nonce_secret.clone()
    }

    /// Takes in a thread that was made with [`Replica::next_number`], and offers it to peers.
    pub fn add(&mut self, thread: Thread) {
        let id = thread.id();
        self.insert(id, Slot::Open(Box::new(thread)));
        self.offer(id);
    }

    pub(super) fn insert(&mut self, id: ThreadId, slot: Slot) {
        let number = slot.number();
        if slot.has_own_log() {
            self.unkept.insert(id);
        }
        self.next_number = self.next_number.max(number + 1);
        self.numbers.insert(number, id);
        self.slots.insert(id, slot);
        self.agenda.begin(id);
    }

    /// Wishes to join a thread by its ticket; the genesis comes with the first sync.
    ///
    /// Does nothing if the thread is here already.
    pub fn join(&mut self, id: ThreadId, service: ServiceKey, seat: Seat, changes: &mut Changes) {
        if self.slots.contains_key(&id) {
            return;
        }
        let number = self.next_number;
        let row = encode_joining(id, &service, &seat);
        changes.batch.put(Table::Threads, keys::thread(number), row);
        let joining = Joining {
            number,
            service,
            seat: Some(seat),
        };
        self.insert(id, Slot::Joining(Box::new(joining)));
        self.offer(id);
    }

    /// The ids of all threads, joined or not yet.
    pub fn ids(&self) -> impl Iterator<Item = ThreadId> + '_ {
        self.slots.keys().copied()
    }

    /// A thread whose genesis is here.
    #[must_use]
    pub fn thread(&self, id: &ThreadId) -> Option<&Thread> {
        match self.slots.get(id) {
            Some(Slot::Open(thread)) => Some(thread),
            _ => None,
        }
    }

    /// A thread to write to; call [`Replica::touched`] afterwards.
    pub fn thread_mut(&mut self, id: &ThreadId) -> Option<&mut Thread> {
        match self.slots.get_mut(id) {
            Some(Slot::Open(thread)) => {
                self.agenda.open(*id);
                self.pairs.touched(*id);
                Some(thread)
            }
            _ => None,
        }
    }

    /// All threads whose genesis is here.
    pub fn threads(&self) -> impl Iterator<Item = &Thread> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Open(thread) => Some(thread.as_ref()),
            Slot::Joining(_) => None,
        })
    }

    /// Tells the sessions that a thread has news.
    pub fn touched(&mut self, id: ThreadId) {
        if !bug!(NewsNotSent) {
            self.reconsider(id, false);
        }
    }

    /// As [`Replica::touched`], after governance changed.
    pub(super) fn governed(&mut self, id: ThreadId) {
        self.reconsider(id, true);
    }

    /// Wakes sessions, and asks again for logs that are open by now.
    fn reconsider(&mut self, id: ThreadId, governed: bool) {
        let Self {
            sessions,
            slots,
            refusals,
            pairs,
            agenda,
            unkept,
            ..
        } = self;
        if slots.get(&id).is_some_and(Slot::has_own_log) {
            unkept.insert(id);
        }
        agenda.plan(id, slots.get(&id));
        pairs.touched(id);
        let thread = match slots.get(&id) {
            Some(Slot::Open(thread)) => Some(thread.as_ref()),
            _ => None,
        };
        // An empty log may begin elsewhere than was known when its range was refused.
        let is_empty =
            |log: &LogId| thread.is_some_and(|it| it.log(log).is_some_and(|it| it.tip.seq == 0));
        if governed {
            refusals.retry(id, is_empty);
        }
        for session in sessions.values_mut() {
            let matched = session.matched.get_mut(&id);
            if let (Some(matched), Some(thread)) = (matched, thread) {
                let count = |it: &Matched| it.unknown.len() + it.refused.len() + it.full.len();
                let before = count(matched);
                let is_full = |log: &LogId, until: &mut Seq| {
                    thread.log(log).is_some_and(|log| log.admitted < *until)
                };
                matched.full.retain(is_full);
                matched.unknown.retain(|log| thread.log(log).is_none());
                matched.settle_offers(thread);
                if governed {
                    matched.refused.retain(|log| !is_empty(log));
                    // Epochs may have begun, or this seat may read by now.
                    matched.keys_asked = false;
                }
                if count(matched) < before && !bug!(VectorNotRefreshed) {
                    matched.have_sent = false;
                }
                if governed {
                    session.recount_strange(thread);
                }
            }
            session.wake(id);
            if let Some(pair) = pairs.get(&session.remote) {
                session.call(pair, [id]);
            }
        }
    }

    /// The peers that there is a session with.
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.sessions.keys().copied()
    }

    /// Whether a thread and a peer have told each other everything.
    #[must_use]
    pub fn level(&self, peer: &PeerKey, thread: &ThreadId) -> Level {
        let Some(session) = self.sessions.get(peer) else {
            return Level::NotShared;
        };
        let pair = self.pairs.get(peer);
        let is_known = pair.is_some_and(|pair| pair.known(thread).is_some());
        // Until it is known which of the threads that both remember differ, any of them may.
        let is_compared = session.comparison.is_settled() && !session.called.contains_key(thread);
        match session.matched.get(thread) {
            None if !is_known || !self.slots.contains_key(thread) => Level::NotShared,
            None if is_compared => Level::Level,
            None => Level::Behind,
            Some(matched) if self.is_over(thread, matched) => Level::NotShared,
            Some(_) if is_known && !is_compared => Level::Behind,
            Some(matched) if matched.is_level() && self.is_settled(thread, matched) => Level::Level,
            Some(_) => Level::Behind,
        }
    }

    /// Whether a peer and this one have told each other which threads both follow, and everything of
    /// these. What this costs follows the number of threads that changed since it was asked last.
    pub fn is_level(&mut self, peer: &PeerKey) -> bool {
        if !self.introduced(peer) {
            return false;
        }
        let Some(session) = self.sessions.get_mut(peer) else {
            return false;
        };
        if !session.comparison.is_settled() || !session.called.is_empty() {
            return false;
        }
        let mut unsettled = std::mem::take(&mut session.unsettled);
        unsettled.retain(|id| self.level(peer, id) == Level::Behind);
        let is_level = unsettled.is_empty();
        if let Some(session) = self.sessions.get_mut(peer) {
            session.unsettled = unsettled;
        }
        is_level
    }

    /// Threads about which something changed in the session with a peer since this was last asked.
    pub fn take_stirred(&mut self, peer: &PeerKey) -> BTreeSet<ThreadId> {
        let session = self.sessions.get_mut(peer);
        session.map_or_else(BTreeSet::new, |it| std::mem::take(&mut it.stirred))
    }

    /// Whether a peer proved a seat in one of the threads here, in this session or an earlier one.
    #[must_use]
    pub fn has_proved(&self, peer: &PeerKey) -> bool {
        self.sessions.get(peer).is_some_and(|it| it.is_proven)
    }

    /// Forgets which threads a peer shares: in the next session with it all of them are named and both
    /// sides prove their seats, as with a stranger.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn forget_peer(
        &mut self,
        view: &dyn View,
        peer: &PeerKey,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        self.pairs.forget_peer(peer, view, &mut changes.batch)
    }

    /// Tells whether the seat of either side was removed, so that there is nothing to share any more.
    fn is_over(&self, thread: &ThreadId, matched: &Matched) -> bool {
        self.thread(thread).is_some_and(|thread| {
            let own = thread.seat().id();
            thread.governance().was_removed(own) || matched.is_removed(thread)
        })
    }

    /// Tells whether nothing of a thread is to be sent or let in.
    fn is_settled(&self, thread: &ThreadId, matched: &Matched) -> bool {
        let thread = self.thread(thread);
        thread.is_none_or(|it| owed(it, matched) == 0 && !it.is_releasing())
    }

    /// Tells whether a peer and this one have told each other which threads they follow.
    #[must_use]
    pub fn introduced(&self, peer: &PeerKey) -> bool {
        self.sessions
            .get(peer)
            .is_some_and(|it| it.tags_sent && it.tags_received)
    }

    /// How far a thread is from level with a peer.
    #[must_use]
    pub fn progress(&self, peer: &PeerKey, thread: &ThreadId) -> Option<Progress> {
        let Some(matched) = self.sessions.get(peer)?.matched.get(thread) else {
            let is_level = self.level(peer, thread) == Level::Level;
            return is_level.then_some(Progress {
                to_receive: 0,
                to_send: 0,
            });
        };
        if self.is_over(thread, matched) {
            return None;
        }
        let to_send = self
            .thread(thread)
            .map_or(0, |thread| owed(thread, matched));
        Some(Progress {
            to_receive: matched.expected,
            to_send,
        })
    }

    /// The seat that a peer proved to hold in a thread.
    #[must_use]
    pub fn seat_of(&self, peer: &PeerKey, thread: &ThreadId) -> Option<SeatId> {
        match self.sessions.get(peer)?.matched.get(thread) {
            Some(matched) => matched.seat,
            None => Some(self.pairs.get(peer)?.known(thread)?.remote),
        }
    }

    /// The threads that a connected peer shares: in which it proved a seat, in this session or an earlier
    /// one.
    pub fn shared_with<'a>(&'a self, peer: &PeerKey) -> impl Iterator<Item = ThreadId> + use<'a> {
        let session = self.sessions.get(peer);
        let pair = session.and_then(|_| self.pairs.get(peer));
        let known = pair.into_iter().flat_map(Pair::ids);
        let matched = session.into_iter().flat_map(|it| &it.matched);
        let proven = matched.filter(|(_, matched)| matched.seat.is_some());
        let is_matched = move |id: &ThreadId| session.is_some_and(|it| it.matched.contains_key(id));
        let proven = proven.map(|(id, _)| *id);
        proven.chain(known.filter(move |id| !is_matched(id)))
    }

    /// The newest record of a log that a peer said to keep, in this session.
    #[must_use]
    pub fn acked(&self, peer: &PeerKey, thread: &ThreadId, log: &LogId) -> Option<Seq> {
        match self.sessions.get(peer)?.matched.get(thread) {
            Some(matched) => matched.acked.get(log).copied(),
            // Whoever has the same has this too.
            None if self.level(peer, thread) == Level::Level => {
                Some(self.thread(thread)?.log(log)?.tip.seq)
            }
            None => None,
        }
    }

    /// Records of this peer's own log that no other peer ever said to keep.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn outbox(&self, view: &dyn View, id: &ThreadId) -> Result<u64, StoreError> {
        let Some(thread) = self.thread(id) else {
            return Ok(0);
        };
        let Some(log) = thread.own_log().and_then(|log| thread.log(&log)) else {
            return Ok(0);
        };
        let row = view.get(Table::Outbox, &outbox_key(thread, &log.id))?;
        let kept = row.and_then(|row| row.first_chunk().map(|bytes| Seq::from_be_bytes(*bytes)));
        Ok(log.tip.seq - kept.unwrap_or_default().min(log.tip.seq))
    }

    /// Begins a session.
    pub fn connected(&mut self, peer: PeerKey, rng: &mut dyn CryptoRng) {
        if bug!(SessionKept) && self.sessions.contains_key(&peer) {
            return;
        }
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        self.disconnected(&peer);
        let mut session = Session::new(self.local, peer, nonce);
        session.urgent.push_back(Message::Hello { nonce }.encode());
        self.sessions.insert(peer, session);
    }

    /// Ends a session. What was not acknowledged is offered again in the next one.
    pub fn disconnected(&mut self, peer: &PeerKey) {
        self.signals.disconnected(peer);
        self.unfollow(peer);
        if !bug!(SessionKept) {
            self.sessions.remove(peer);
        }
        let Self {
            sessions, pairs, ..
        } = self;
        pairs.rest(|peer| sessions.contains_key(peer));
    }

    /// Compares with a peer again what both have of all threads.
    ///
    /// Threads that both remember to share are compared at once, in a few bytes; for each other one
    /// vectors are exchanged.
    pub fn refresh(&mut self, peer: &PeerKey) {
        let Self {
            sessions, pairs, ..
        } = self;
        let Some(session) = sessions.get_mut(peer) else {
            return;
        };
        let pair = pairs.get(peer);
        let is_known = |id: &ThreadId| pair.is_some_and(|pair| pair.known(id).is_some());
        let others = session.unproven.iter().chain(&session.unsettled);
        let others: BTreeSet<_> = others.filter(|id| !is_known(id)).copied().collect();
        for id in others {
            if let Some(matched) = session.matched.get_mut(&id) {
                matched.refresh();
                session.wake(id);
            }
        }
        if session.remote_nonce.is_some() {
            self.compare(peer);
        }
    }

    /// Lets in what waited for time to pass, and asks again for logs that were refused.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn handle_timeout(
        &mut self,
        view: &dyn View,
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
        sink: ReplicaSink<'_>,
    ) -> Result<(), StoreError> {
        let now = now.into();
        self.spreads.now_millis = now.millis();
        self.signals.handle_timeout(now.millis());
        self.spread_timeout(now.millis());
        self.delivery_timeout(now.millis());
        let mut news = Vec::new();
        self.agenda.plan_open(&self.slots);
        for id in self.agenda.due(now) {
            let Some(Slot::Open(thread)) = self.slots.get_mut(&id) else {
                continue;
            };
            let mut sink = |opened: &Opened<'_>| sink(id, opened);
            let is_news = thread.release(view, now, changes, &mut sink)? > 0;
            if is_news || (thread.is_wrapping() && thread.wrap_missing(rng, changes) > 0) {
                news.push(id);
            }
            self.agenda.open(id);
        }
        for (peer, id, log) in self.refusals.due(now.millis()) {
            let Some(session) = self.sessions.get_mut(&peer) else {
                continue;
            };
            if let Some(matched) = session.matched.get_mut(&id)
                && matched.refused.remove(&log)
            {
                matched.have_sent = false;
                session.wake(id);
            }
        }
        for id in news {
            let governed = (id, ThreadEvent::GovernanceChanged);
            let governed = changes.events.contains(&governed);
            if let Some(thread) = self.thread_mut(&id).filter(|_| governed) {
                thread.wrap_missing(rng, changes);
            }
            self.reconsider(id, governed);
        }
        Ok(())
    }

    /// Brings forward what is planned by as much as the clock was set back, so that nobody waits longer for
    /// it. What waits for a time of day goes on waiting for that.
    pub fn clock_went_back(&mut self, millis: u64) {
        self.spread_clock_went_back(millis);
        self.delivery_clock_went_back(millis);
    }

    /// When [`Replica::handle_timeout`] has something to do, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let threads = self.agenda.next_millis(&self.slots);
        let (spread, signals) = (self.spreads.poll_timeout(), self.signals.poll_timeout());
        let delivery = self.deliveries.poll_timeout();
        let others = [
            threads,
            self.refusals.next_millis(),
            spread,
            delivery,
            signals,
        ];
        others.into_iter().flatten().min()
    }

    /// Takes in a message.
    ///
    /// # Errors
    ///
    /// [`SyncError`] names the peer; if [`SyncError::ends_session`], hang up. What the message
    /// changed before the error, if anything, is sound and in `changes`: commit it.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, all that a step may need"
    )]
    pub fn handle_message(
        &mut self,
        view: &dyn View,
        peer: PeerKey,
        bytes: &[u8],
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
        sink: ReplicaSink<'_>,
    ) -> Result<(), SyncError> {
        let message =
            Message::decode(bytes).map_err(|source| SyncError::Malformed { peer, source })?;
        let now = now.into();
        self.spreads.now_millis = now.millis();
        let mut step = Step {
            replica: self,
            view,
            peer,
            now,
            rng,
            changes,
            sink,
        };
        step.handle(message)
    }

    /// The next message for a peer, if there is one. Take `view` after the last commit.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn poll_message(
        &mut self,
        view: &dyn View,
        peer: &PeerKey,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(session) = self.sessions.get_mut(peer) else {
            return Ok(None);
        };
        if let Some(message) = session.urgent.pop_front() {
            return Ok(Some(message));
        }
        if let Some(message) = self.next_shown(peer) {
            return Ok(Some(message));
        }
        let Some(session) = self.sessions.get_mut(peer) else {
            return Ok(None);
        };
        // Each thread in turn, so that a large one does not starve the others.
        while let Some(id) = session.next_ready() {
            if let Some(proof) = self
                .slots
                .get(&id)
                .and_then(|it| session.next_proof(id, it))
            {
                session.wake(id);
                return Ok(Some(proof));
            }
            let message = match self.slots.get_mut(&id) {
                Some(Slot::Open(thread)) => {
                    let around = Around {
                        signals: &self.signals,
                        has_room: self.spreads.has_room(&id),
                        now_millis: self.spreads.now_millis,
                    };
                    let message = next_message(session, thread, view, around)?;
                    self.spreads.take_timer(*peer, id, session);
                    message
                }
                Some(Slot::Joining(_)) => next_message_while_joining(session, id),
                None => None,
            };
            if let Some(message) = message {
                if !bug!(ThreadStarves) {
                    session.wake(id);
                }
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

pub(super) fn outbox_key(thread: &Thread, log: &LogId) -> Vec<u8> {
    keys::suffixed(thread.number(), &[&log.0])
}

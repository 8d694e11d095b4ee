//! All threads of a peer and its sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq};
use leno_identity::{AgreementKey, SigningKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::PeerKey;
use super::message::{HaveLog, LogName, Message, RANGE_BYTES, TAGS_MAX, WRAPS_MAX};
use super::session::{Matched, Session};
use crate::fork::{Branch, ForkProof};
use crate::run::decode_row;
use crate::seal::NonceSecret;
use crate::store::{Overlay, StoreError, Table, View, scan_prefix};
use crate::thread::{
    Changes, LoadError, Opened, ReceiveError, Seat, TakeWrapError, Thread, ThreadEvent,
};
use crate::{Run, SeatId, ServiceKey, SignedHead, ThreadId, VerifyError, keys};

/// Where opened records of any thread go.
pub type ReplicaSink<'a> = &'a mut dyn FnMut(ThreadId, &Opened<'_>);

/// Most urgent messages that wait for a peer; beyond that it asks too much and is cut off.
const URGENT_MAX: usize = 1024;

/// A thread, or the wish to join one.
#[derive(Debug)]
pub enum Slot {
    /// A thread whose genesis is here.
    Open(Box<Thread>),
    /// A thread of which only a ticket is here.
    Joining(Box<Joining>),
}

/// What is known of a thread before its genesis comes.
pub struct Joining {
    number: u32,
    service: ServiceKey,
    seat: Option<Seat>,
}

impl fmt::Debug for Joining {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Joining")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Why something that a peer sent is not taken in. Names the peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The message does not decode. The session is over.
    #[error("peer {} sent a message that does not decode", short(.peer))]
    Malformed {
        /// Who.
        peer: PeerKey,
        /// Why not.
        #[source]
        source: VerifyError,
    },
    /// The message comes out of turn, or names what was never named. The session is over.
    #[error("peer {} sent {what} out of turn", short(.peer))]
    OutOfTurn {
        /// Who.
        peer: PeerKey,
        /// Which message.
        what: &'static str,
    },
    /// The peer asks for more than it may. The session is over.
    #[error("peer {} sends {what} beyond the limit", short(.peer))]
    TooMany {
        /// Who.
        peer: PeerKey,
        /// What.
        what: &'static str,
    },
    /// The signature of a seat does not hold. The session is over.
    #[error("peer {} does not hold seat {seat}", short(.peer))]
    NotProven {
        /// Who.
        peer: PeerKey,
        /// The seat that it claimed.
        seat: SeatId,
    },
    /// A range is refused; other logs go on.
    #[error("a range from peer {} is refused", short(.peer))]
    Range {
        /// Who sent it.
        peer: PeerKey,
        /// The thread.
        thread: ThreadId,
        /// Why.
        #[source]
        source: ReceiveError,
    },
    /// A key wrap is refused; others go on.
    #[error("a key wrap from peer {} is refused", short(.peer))]
    Wrap {
        /// Who sent it.
        peer: PeerKey,
        /// The thread.
        thread: ThreadId,
        /// Why.
        #[source]
        source: TakeWrapError,
    },
    /// The genesis of a thread is not what its id is the hash of.
    #[error("peer {} sent a genesis that is not the thread's", short(.peer))]
    WrongGenesis {
        /// Who.
        peer: PeerKey,
    },
    /// The store failed; nobody's fault but the machine's.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

fn short(peer: &PeerKey) -> LogId {
    LogId(peer.0)
}

impl SyncError {
    /// Tells whether the session ends: the caller hangs up.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::OutOfTurn { .. }
            | Self::TooMany { .. }
            | Self::NotProven { .. }
            | Self::WrongGenesis { .. } => true,
            Self::Range { .. } | Self::Wrap { .. } | Self::Store(_) => false,
        }
    }
}

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
    /// Each side said that it has nothing more for the other.
    Level,
}

/// All threads of a peer, and a session with each peer that it is connected to.
pub struct Replica {
    local: PeerKey,
    nonce_secret: NonceSecret,
    slots: BTreeMap<ThreadId, Slot>,
    sessions: BTreeMap<PeerKey, Session>,
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
        let mut replica = Self {
            local,
            nonce_secret,
            slots: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_number: 0,
        };
        for (number, row) in rows {
            let (id, slot) = match decode_joining(&row, number) {
                Ok(Some((id, joining))) => (id, Slot::Joining(Box::new(joining))),
                Ok(None) => {
                    let thread = Thread::load(view, number, replica.nonce_secret.clone());
                    let thread = thread.map_err(|error| match error {
                        LoadError::Store(error) => error,
                        other => StoreError::Corrupt {
                            what: other.to_string(),
                        },
                    })?;
                    (thread.id(), Slot::Open(Box::new(thread)))
                }
                Err(error) => {
                    return Err(StoreError::Corrupt {
                        what: format!("a row of a thread: {error}"),
                    });
                }
            };
            replica.next_number = replica.next_number.max(number + 1);
            replica.slots.insert(id, slot);
        }
        Ok(replica)
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
        self.next_number = self.next_number.max(thread.number() + 1);
        let id = thread.id();
        self.slots.insert(id, Slot::Open(Box::new(thread)));
        self.offer();
    }

    /// Wishes to join a thread by its ticket; the genesis comes with the first sync.
    ///
    /// Does nothing if the thread is here already.
    pub fn join(&mut self, id: ThreadId, service: ServiceKey, seat: Seat, changes: &mut Changes) {
        if self.slots.contains_key(&id) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let row = encode_joining(id, &service, &seat);
        changes.batch.put(Table::Threads, keys::thread(number), row);
        let joining = Joining {
            number,
            service,
            seat: Some(seat),
        };
        self.slots.insert(id, Slot::Joining(Box::new(joining)));
        self.offer();
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
            Some(Slot::Open(thread)) => Some(thread),
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
        for session in self.sessions.values_mut() {
            session.wake(id);
        }
    }

    /// The peers that there is a session with.
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.sessions.keys().copied()
    }

    /// Whether a thread and a peer have told each other everything.
    #[must_use]
    pub fn level(&self, peer: &PeerKey, thread: &ThreadId) -> Level {
        let matched = self
            .sessions
            .get(peer)
            .and_then(|session| session.matched.get(thread));
        match matched {
            None => Level::NotShared,
            Some(matched) if matched.is_level() => Level::Level,
            Some(_) => Level::Behind,
        }
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
        let matched = self.sessions.get(peer)?.matched.get(thread)?;
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
        self.sessions.get(peer)?.matched.get(thread)?.seat
    }

    /// The newest record of a log that a peer said to keep, in this session.
    #[must_use]
    pub fn acked(&self, peer: &PeerKey, thread: &ThreadId, log: &LogId) -> Option<Seq> {
        self.sessions
            .get(peer)?
            .matched
            .get(thread)?
            .acked
            .get(log)
            .copied()
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
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let mut session = Session::new(self.local, peer, nonce);
        session.urgent.push_back(Message::Hello { nonce }.encode());
        self.sessions.insert(peer, session);
    }

    /// Ends a session. What was not acknowledged is offered again in the next one.
    pub fn disconnected(&mut self, peer: &PeerKey) {
        self.sessions.remove(peer);
    }

    /// Exchanges vectors with a peer again, for all threads.
    pub fn refresh(&mut self, peer: &PeerKey) {
        let Some(session) = self.sessions.get_mut(peer) else {
            return;
        };
        for matched in session.matched.values_mut() {
            matched.refresh();
        }
        for id in session.matched.keys().copied().collect::<Vec<_>>() {
            session.wake(id);
        }
    }

    /// Lets in what waited for time to pass.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn handle_timeout(
        &mut self,
        view: &dyn View,
        now_millis: u64,
        changes: &mut Changes,
        sink: ReplicaSink<'_>,
    ) -> Result<(), StoreError> {
        let mut news = Vec::new();
        for (id, slot) in &mut self.slots {
            let Slot::Open(thread) = slot else { continue };
            let mut sink = |opened: &Opened<'_>| sink(*id, opened);
            if thread.release(view, now_millis, changes, &mut sink)? > 0 {
                news.push(*id);
            }
        }
        for id in news {
            self.touched(id);
        }
        Ok(())
    }

    /// When [`Replica::handle_timeout`] has something to do, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.threads().filter_map(Thread::next_release_millis).min()
    }

    /// Takes in a message.
    ///
    /// # Errors
    ///
    /// [`SyncError`] names the peer; if [`SyncError::ends_session`], hang up. What the message
    /// changed before the error, if anything, is sound and in `changes`: commit it.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, all that a step may need"
    )]
    pub fn handle_message(
        &mut self,
        view: &dyn View,
        peer: PeerKey,
        bytes: &[u8],
        now_millis: u64,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
        sink: ReplicaSink<'_>,
    ) -> Result<(), SyncError> {
        let message =
            Message::decode(bytes).map_err(|source| SyncError::Malformed { peer, source })?;
        let mut step = Step {
            replica: self,
            view,
            peer,
            now_millis,
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
        // Each thread in turn, so that a large one does not starve the others.
        while let Some(id) = session.ready.pop_front() {
            let message = match self.slots.get_mut(&id) {
                Some(Slot::Open(thread)) => next_message(session, thread, view)?,
                Some(Slot::Joining(_)) => next_message_while_joining(session, id),
                None => None,
            };
            if let Some(message) = message {
                session.ready.push_back(id);
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Sends tags of threads that a session has not named yet.
    fn offer(&mut self) {
        for session in self.sessions.values_mut() {
            offer_in(session, &self.slots);
        }
    }
}

fn service_of(slot: &Slot) -> &ServiceKey {
    match slot {
        Slot::Open(thread) => thread.service_key(),
        Slot::Joining(joining) => &joining.service,
    }
}

fn offer_in(session: &mut Session, slots: &BTreeMap<ThreadId, Slot>) {
    if session.remote_nonce.is_none() {
        return;
    }
    let named: BTreeSet<_> = session.offered.iter().copied().collect();
    let fresh: Vec<_> = slots.iter().filter(|(id, _)| !named.contains(id)).collect();
    let room = TAGS_MAX - session.offered.len().min(TAGS_MAX);
    let tags: Vec<_> = fresh
        .iter()
        .take(room)
        .filter_map(|(_, slot)| session.tag(service_of(slot), true))
        .collect();
    session
        .offered
        .extend(fresh.iter().take(tags.len()).map(|(id, _)| **id));
    if !tags.is_empty() || !session.tags_sent {
        session.tags_sent = true;
        session.urgent.push_back(Message::Threads { tags }.encode());
    }
    match_in(session, slots);
}

/// Finds threads that both sides named.
fn match_in(session: &mut Session, slots: &BTreeMap<ThreadId, Slot>) {
    if session.thread_of_number.len() == session.tags.len() {
        return;
    }
    let wanted: BTreeMap<_, _> = slots
        .iter()
        .filter(|(id, _)| !session.matched.contains_key(id))
        .filter_map(|(id, slot)| Some((session.tag(service_of(slot), false)?, *id)))
        .collect();
    let found: Vec<_> = (0..)
        .zip(&session.tags)
        .filter(|(number, _)| !session.thread_of_number.contains_key(number))
        .filter_map(|(number, tag)| wanted.get(tag).map(|id| (number, *id)))
        .collect();
    for (number, id) in found {
        let own = session.offered.iter().position(|offered| *offered == id);
        let Some(own) = own.and_then(|own| u32::try_from(own).ok()) else {
            continue;
        };
        if session.matched.contains_key(&id) {
            continue;
        }
        session.thread_of_number.insert(number, id);
        session.matched.insert(
            id,
            Matched {
                number: own,
                ..Matched::default()
            },
        );
        let signing = match slots.get(&id) {
            Some(Slot::Open(thread)) => Some(&thread.seat().signing),
            Some(Slot::Joining(joining)) => joining.seat.as_ref().map(|seat| &seat.signing),
            None => None,
        };
        if let (Some(key), Some(statement)) = (signing, session.statement(id, true)) {
            let signature = key.sign_message(&statement);
            let seat = SeatId(key.verifying_key().to_bytes());
            let prove = Message::Prove {
                thread: own,
                seat,
                signature,
            };
            session.urgent.push_back(prove.encode());
        }
        session.wake(id);
    }
}

/// Records that are here and that the other side lacks.
fn owed(thread: &Thread, matched: &Matched) -> u64 {
    let theirs = |log: &LogId| matched.theirs.get(log).copied().unwrap_or_default();
    let logs = thread
        .logs()
        .filter(|log| !matched.unwanted.contains(&log.id));
    logs.map(|log| log.tip.seq.saturating_sub(theirs(&log.id)))
        .sum()
}

fn next_message_while_joining(session: &mut Session, id: ThreadId) -> Option<Vec<u8>> {
    let matched = session.matched.get_mut(&id)?;
    if matched.have_sent {
        return None;
    }
    matched.have_sent = true;
    Some(
        Message::Have {
            thread: matched.number,
            subscribe: true,
            wraps: [0; 8],
            logs: Vec::new(),
        }
        .encode(),
    )
}

fn next_message(
    session: &mut Session,
    thread: &mut Thread,
    view: &dyn View,
) -> Result<Option<Vec<u8>>, StoreError> {
    let id = thread.id();
    let Some(mut matched) = session.matched.remove(&id) else {
        return Ok(None);
    };
    let message = next_in(session, &mut matched, thread, view);
    session.matched.insert(id, matched);
    message
}

fn next_in(
    session: &Session,
    matched: &mut Matched,
    thread: &mut Thread,
    view: &dyn View,
) -> Result<Option<Vec<u8>>, StoreError> {
    let number = matched.number;
    if !matched.acks.is_empty() {
        let logs = std::mem::take(&mut matched.acks).into_iter().collect();
        return Ok(Some(
            Message::Ack {
                thread: number,
                logs,
            }
            .encode(),
        ));
    }
    if !matched.have_sent {
        matched.have_sent = true;
        let logs = thread
            .logs()
            .filter(|log| log.tip.seq > 0)
            .map(|log| HaveLog {
                log: log.id,
                seq: log.tip.seq,
                hash: session.short_hash(&log.tip.id),
            })
            .collect();
        return Ok(Some(
            Message::Have {
                thread: number,
                subscribe: true,
                wraps: thread.wraps_digest(),
                logs,
            }
            .encode(),
        ));
    }
    // Only who holds a seat is served, and only what he does not have.
    let may_follow = matched
        .seat
        .is_some_and(|seat| thread.governance().role(seat).is_some());
    if !matched.have_received || !may_follow {
        return Ok(None);
    }
    if matched.theirs.is_empty() && !matched.genesis_sent {
        matched.genesis_sent = true;
        let genesis = thread.genesis().encode();
        return Ok(Some(
            Message::Genesis {
                thread: number,
                genesis: &genesis,
            }
            .encode(),
        ));
    }
    if matched.up_to_date_sent && !matched.subscribed {
        return Ok(None);
    }
    if !matched.totals_sent {
        matched.totals_sent = true;
        let records = owed(thread, matched);
        if records > 0 {
            return Ok(Some(
                Message::Totals {
                    thread: number,
                    records,
                }
                .encode(),
            ));
        }
    }
    if let Some(range) = next_range(matched, thread, view, true)? {
        return Ok(Some(range));
    }
    if matched.wraps_level != thread.wraps_count() {
        let wraps: Vec<_> = thread
            .wraps(view)?
            .into_iter()
            .filter(|wrap| !matched.wraps_sent.contains(&(wrap.epoch, wrap.seat)))
            .take(WRAPS_MAX)
            .collect();
        if !wraps.is_empty() {
            matched
                .wraps_sent
                .extend(wraps.iter().map(|wrap| (wrap.epoch, wrap.seat)));
            return Ok(Some(
                Message::Wraps {
                    thread: number,
                    wraps,
                }
                .encode(),
            ));
        }
        matched.wraps_level = thread.wraps_count();
    }
    if let Some(range) = next_range(matched, thread, view, false)? {
        return Ok(Some(range));
    }
    if !matched.up_to_date_sent {
        matched.up_to_date_sent = true;
        return Ok(Some(Message::UpToDate { thread: number }.encode()));
    }
    Ok(None)
}

/// The next range of control logs, or of data logs: oldest first, up to [`RANGE_BYTES`].
fn next_range(
    matched: &mut Matched,
    thread: &Thread,
    view: &dyn View,
    is_control: bool,
) -> Result<Option<Vec<u8>>, StoreError> {
    let theirs = |log: &LogId| matched.theirs.get(log).copied().unwrap_or_default();
    let next = thread.logs().find(|log| {
        log.is_control == is_control
            && log.tip.seq > theirs(&log.id)
            && !matched.unwanted.contains(&log.id)
    });
    let Some(log) = next else { return Ok(None) };
    let mut rows: Vec<(Seq, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    thread.scan_rows(view, &log.id, theirs(&log.id) + 1, &mut |first, row| {
        if !rows.is_empty() && bytes + row.len() > RANGE_BYTES {
            return ControlFlow::Break(());
        }
        bytes += row.len();
        rows.push((first, row.to_vec()));
        ControlFlow::Continue(())
    })?;
    let damaged = |error: VerifyError| StoreError::Corrupt {
        what: format!("a run of log {}: {error}", log.id),
    };
    let mut runs: Vec<Run<'_>> = Vec::new();
    let Some((first, _)) = rows.first() else {
        return Err(StoreError::Corrupt {
            what: format!("log {} lacks its last records", log.id),
        });
    };
    let mut last = 0;
    for (at, row) in &rows {
        let (_, run) = decode_row(row).map_err(damaged)?;
        // A row that overlaps the one before begins the next message.
        if !runs.is_empty() && *at != last + 1 {
            break;
        }
        last = at + run.count() as u64 - 1;
        runs.push(run);
    }
    let name = match matched.named_out.iter().position(|named| *named == log.id) {
        Some(place) => LogName::Known(u32::try_from(place).unwrap_or(u32::MAX)),
        None => {
            matched.named_out.push(log.id);
            LogName::New(log.id)
        }
    };
    let message = Message::Range {
        thread: matched.number,
        log: name,
        first: *first,
        runs,
    };
    let message = message.encode();
    matched.theirs.insert(log.id, last);
    Ok(Some(message))
}

/// One message being handled: the replica and all that the step may need.
struct Step<'a, 'b> {
    replica: &'a mut Replica,
    view: &'a dyn View,
    peer: PeerKey,
    now_millis: u64,
    rng: &'a mut dyn CryptoRng,
    changes: &'a mut Changes,
    sink: ReplicaSink<'b>,
}

impl Step<'_, '_> {
    fn handle(&mut self, message: Message<'_>) -> Result<(), SyncError> {
        let peer = self.peer;
        match message {
            Message::Hello { nonce } => {
                let session = self.session("a message")?;
                if session.remote_nonce.replace(nonce).is_some() {
                    return Err(SyncError::OutOfTurn {
                        peer,
                        what: "a second hello",
                    });
                }
                let Replica {
                    sessions, slots, ..
                } = &mut *self.replica;
                if let Some(session) = sessions.get_mut(&peer) {
                    offer_in(session, slots);
                }
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
                if session.tags.len() + tags.len() > TAGS_MAX {
                    return Err(SyncError::TooMany {
                        peer,
                        what: "threads",
                    });
                }
                session.tags.extend(tags);
                session.tags_received = true;
                match_in(session, slots);
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
            Message::Refused { thread, log } => {
                let id = self.thread_id(thread)?;
                self.matched(id)?.unwanted.insert(log);
                self.wake(id);
                Ok(())
            }
            Message::UpToDate { thread } => {
                let id = self.thread_id(thread)?;
                let matched = self.matched(id)?;
                matched.up_to_date_received = true;
                matched.expected = 0;
                Ok(())
            }
        }
    }

    fn session(&mut self, what: &'static str) -> Result<&mut Session, SyncError> {
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

    fn thread_id(&mut self, number: u32) -> Result<ThreadId, SyncError> {
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
        let peer = self.peer;
        let mut forked = Vec::new();
        let mut retire = false;
        if let Some(thread) = self.replica.thread(&id) {
            let own = thread.own_log();
            let session = self.replica.sessions.get(&peer);
            let hash = |it: &HaveLog| session.map(|session| (session, it.hash));
            for it in logs {
                let Some(log) = thread.log(&it.log) else {
                    continue;
                };
                let differs = log.tip.seq == it.seq
                    && hash(it)
                        .is_some_and(|(session, hash)| session.short_hash(&log.tip.id) != hash);
                if differs {
                    forked.push((it.log, it.seq));
                }
                retire |= own == Some(it.log) && (differs || it.seq > log.tip.seq);
            }
        }
        if retire && let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) {
            thread.publish(self.changes);
            thread.retire_log(self.changes);
        }
        let wraps_level = self
            .replica
            .thread(&id)
            .filter(|thread| thread.wraps_digest() == wraps)
            .map(Thread::wraps_count);
        let matched = self.matched(id)?;
        matched.wraps_level = wraps_level.unwrap_or(usize::MAX);
        matched.have_received = true;
        matched.subscribed = subscribe;
        matched.theirs = logs.iter().map(|it| (it.log, it.seq)).collect();
        matched.up_to_date_sent = false;
        matched.totals_sent = false;
        let thread = matched.number;
        for (log, from) in forked {
            self.matched(id)?.asked.insert(log, from);
            let question = Message::Question { thread, log, from }.encode();
            self.session("a vector")?.urgent.push_back(question);
        }
        self.wake(id);
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
        let matched = self.matched(id)?;
        let (log, log_number) = match name {
            LogName::New(log) => {
                if matched.named_in.len() >= super::LOGS_MAX {
                    return Err(SyncError::TooMany { peer, what: "logs" });
                }
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
        // A log whose range was refused is not looked at again in this session.
        if matched.refused.contains(&log) {
            return Ok(());
        }
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Err(SyncError::OutOfTurn {
                peer,
                what: "a range before the genesis",
            });
        };
        let mut at = first;
        let (mut stored, mut admitted) = (0, 0);
        let mut outcome = Ok(());
        for run in runs {
            let mut sink = |opened: &Opened<'_>| (self.sink)(id, opened);
            match thread.receive(
                self.view,
                log,
                at,
                *run,
                self.now_millis,
                self.changes,
                &mut sink,
            ) {
                Ok(received) => {
                    stored += received.stored;
                    admitted += received.admitted;
                }
                Err(source) => {
                    outcome = Err(source);
                    break;
                }
            }
            at += run.count() as u64;
        }
        let tip = thread.log(&log).map_or(0, |log| log.tip.seq);
        let matched = self.matched(id)?;
        let records: u64 = runs.iter().map(|run| run.count() as u64).sum();
        matched.expected = matched.expected.saturating_sub(records);
        if at > first {
            let theirs = matched.theirs.entry(log).or_default();
            *theirs = (at - 1).max(*theirs);
        }
        if let Ok(number) = u32::try_from(log_number) {
            matched.acks.insert(number, tip);
        }
        if stored > 0 || admitted > 0 {
            self.replica.touched(id);
        }
        self.after_governance(id)?;
        self.wake(id);
        match outcome {
            Ok(()) => Ok(()),
            Err(source) => self.refuse(id, log, tip, source),
        }
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
        let matched = self.matched(id)?;
        let thread = matched.number;
        let answer = match &source {
            ReceiveError::Store(error) => return Err(SyncError::Store(error.clone())),
            // Governance that opens the log may come yet: vectors are exchanged again then.
            ReceiveError::UnknownLog { .. } | ReceiveError::TooManyParked { .. } => None,
            ReceiveError::Gap { .. } => {
                matched.refresh();
                None
            }
            ReceiveError::Refused {
                source: VerifyError::NotSigned { .. },
                ..
            } => {
                matched.refused.insert(log);
                matched.asked.insert(log, tip.max(1));
                Some(
                    Message::Question {
                        thread,
                        log,
                        from: tip.max(1),
                    }
                    .encode(),
                )
            }
            ReceiveError::Refused { .. } | ReceiveError::Forked { .. } => {
                matched.refused.insert(log);
                Some(Message::Refused { thread, log }.encode())
            }
        };
        if let Some(answer) = answer {
            self.session("a range")?.urgent.push_back(answer);
        }
        self.wake(id);
        Err(SyncError::Range {
            peer,
            thread: id,
            source,
        })
    }

    /// New logs may have been opened: what peers have of them was refused before.
    fn after_governance(&mut self, id: ThreadId) -> Result<(), SyncError> {
        let governed = self
            .changes
            .events
            .contains(&(id, ThreadEvent::GovernanceChanged));
        if !governed {
            return Ok(());
        }
        if let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) {
            thread.wrap_missing(self.rng, self.changes);
        }
        for session in self.replica.sessions.values_mut() {
            if let Some(matched) = session.matched.get_mut(&id)
                && session.remote != self.peer
            {
                matched.have_sent = false;
            }
            session.wake(id);
        }
        Ok(())
    }

    fn wraps(&mut self, number: u32, wraps: &[crate::Wrap]) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Err(SyncError::OutOfTurn {
                peer,
                what: "keys before the genesis",
            });
        };
        let mut refused = None;
        let mut news = false;
        for wrap in wraps {
            let mut sink = |opened: &Opened<'_>| (self.sink)(id, opened);
            match thread.take_wrap(self.view, wrap, self.changes, &mut sink) {
                Ok(it) => news |= it,
                Err(TakeWrapError::Store(error)) => return Err(SyncError::Store(error)),
                Err(source) => refused = Some(source),
            }
        }
        let matched = self.matched(id)?;
        matched
            .wraps_sent
            .extend(wraps.iter().map(|wrap| (wrap.epoch, wrap.seat)));
        if news {
            self.replica.touched(id);
        }
        match refused {
            Some(source) => Err(SyncError::Wrap {
                peer,
                thread: id,
                source,
            }),
            None => Ok(()),
        }
    }

    fn ack(&mut self, number: u32, logs: &[(u32, Seq)]) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        let mut kept = Vec::new();
        for (number, seq) in logs {
            let matched = self.matched(id)?;
            let log = matched.named_out.get(*number as usize).copied();
            let what = "an acknowledgement of a log that was not named";
            let log = log.ok_or(SyncError::OutOfTurn { peer, what })?;
            matched.acked.insert(log, *seq);
            kept.push((log, *seq));
        }
        let Some(thread) = self.replica.thread(&id) else {
            return Ok(());
        };
        for (log, seq) in kept {
            let Some(tip) = thread.log(&log).map(|log| log.tip.seq) else {
                continue;
            };
            if thread.own_log() == Some(log) && seq <= tip {
                let key = outbox_key(thread, &log);
                let overlay = Overlay::new(self.view, &self.changes.batch);
                let known = overlay.get(Table::Outbox, &key)?;
                let known = known.and_then(|row| row.first_chunk().copied());
                if known.is_none_or(|known| Seq::from_be_bytes(known) < seq) {
                    self.changes
                        .batch
                        .put(Table::Outbox, key, seq.to_be_bytes().to_vec());
                }
            }
        }
        Ok(())
    }

    fn question(&mut self, number: u32, log: LogId, from: Seq) -> Result<(), SyncError> {
        let id = self.thread_id(number)?;
        let matched = self.matched(id)?;
        let thread_number = matched.number;
        let Some(seat) = matched.seat else {
            return Ok(());
        };
        let Some(thread) = self.replica.thread(&id) else {
            return Ok(());
        };
        if thread.governance().role(seat).is_none() {
            return Ok(());
        }
        let Some(head) = thread.log(&log).and_then(|log| log.head) else {
            return Ok(());
        };
        let span = crate::fork::BRANCH_HEADERS_MAX as u64;
        if from == 0 || from > head.seq || head.seq - from >= span {
            return Ok(());
        }
        let headers = thread.headers(self.view, &log, from, head.seq)?;
        let signature = head.signature;
        let branch = Message::Branch {
            thread: thread_number,
            log,
            signature,
            headers,
        };
        let branch = branch.encode();
        self.session("a question")?.urgent.push_back(branch);
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
        let what = "an answer that was not asked for";
        let asked = self.matched(id)?.asked.remove(&log);
        let asked = asked.ok_or(SyncError::OutOfTurn { peer, what })?;
        let Some(thread) = self.replica.thread(&id) else {
            return Ok(());
        };
        let Some(own) = thread.log(&log).and_then(|log| log.head) else {
            return Ok(());
        };
        let Some(last) = headers.last() else {
            return Ok(());
        };
        let theirs = SignedHead {
            thread: id,
            log,
            seq: last.context.seq,
            id: last.id(),
            signature,
        };
        let ours = thread.headers(self.view, &log, asked, own.seq)?;
        // The proof begins where the branches part.
        let same = ours
            .iter()
            .zip(&headers)
            .take_while(|(a, b)| a == b)
            .count();
        let ours = Branch {
            head: own,
            headers: ours.into_iter().skip(same).collect(),
        };
        let theirs = Branch {
            head: theirs,
            headers: headers.into_iter().skip(same).collect(),
        };
        if let Ok(proof) = ForkProof::new(ours, theirs) {
            thread.keep_fork(proof, self.changes);
            if thread.own_log() == Some(log)
                && let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id)
            {
                thread.publish(self.changes);
                thread.retire_log(self.changes);
            }
        }
        Ok(())
    }

    fn genesis(&mut self, number: u32, genesis: &[u8]) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        let Some(Slot::Joining(joining)) = self.replica.slots.get_mut(&id) else {
            // Known already: nothing to learn.
            return Ok(());
        };
        if ThreadId::of(genesis) != id {
            return Err(SyncError::WrongGenesis { peer });
        }
        let Some(seat) = joining.seat.take() else {
            return Ok(());
        };
        let (number, service) = (joining.number, joining.service.clone());
        let secret = self.replica.nonce_secret.clone();
        let thread = Thread::join(number, id, genesis, service, seat, secret, self.changes)
            .map_err(|_| SyncError::WrongGenesis { peer })?;
        self.replica.slots.insert(id, Slot::Open(Box::new(thread)));
        for session in self.replica.sessions.values_mut() {
            if let Some(matched) = session.matched.get_mut(&id) {
                matched.have_sent = session.remote == peer && matched.have_sent;
            }
            session.wake(id);
        }
        Ok(())
    }
}

fn outbox_key(thread: &Thread, log: &LogId) -> Vec<u8> {
    keys::suffixed(thread.number(), &[&log.0])
}

/// The row of a thread that is not here yet: `[id, service key, seat secret, KEM secret]`.
fn encode_joining(id: ThreadId, service: &ServiceKey, seat: &Seat) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .array(4)
        .bytes(&id.0)
        .bytes(service.expose())
        .bytes(&*seat.signing.to_secret_bytes())
        .bytes(&*seat.kem.to_secret_bytes());
    encoder.into_vec()
}

/// Reads the row of a thread that is not here yet, or nothing if it is another kind of row.
fn decode_joining(
    row: &[u8],
    number: u32,
) -> Result<Option<(ThreadId, Joining)>, Box<dyn std::error::Error>> {
    let mut decoder = Decoder::new(row);
    if decoder.array()? != 4 {
        return Ok(None);
    }
    let id = ThreadId(*decoder.fixed()?);
    let service = ServiceKey::from_bytes(*decoder.fixed()?);
    let signing = SigningKey::from_secret_bytes(decoder.fixed()?)?;
    let kem = AgreementKey::from_secret_bytes(decoder.fixed()?)?;
    let finished: Result<(), DecodeError> = decoder.finish();
    finished?;
    Ok(Some((
        id,
        Joining {
            number,
            service,
            seat: Some(Seat { signing, kem }),
        },
    )))
}

//! A thread as one peer holds it: its governance, its logs, the keys held, and the own seat.
//!
//! [`Thread::receive`] takes in what peers send, [`Thread::append`] and [`Thread::publish`] write,
//! [`Thread::release`] lets in what waited. Each reads through a view, changes the thread in memory
//! and adds to a [`Changes`] the writes that keep it; the caller commits them before anything leaves
//! the machine, and throws the thread away if a commit does not succeed.
//!
//! stored, verified, admitted and applied are four states of a record: a chain that verifies is
//! stored; a record is admitted once what it names is here and its time has come; its ops are
//! applied once its key is held too.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use leno_crdt_codec::{LogId, Seq, Stamp};
use leno_identity::{AgreementKey, SigningKey};
use zeroize::Zeroizing;

use crate::acl::Governance;
use crate::control::RosterOp;
use crate::fork::ForkProof;
use crate::seal::{EpochKey, NonceSecret, Padding, RECORDS_PER_EPOCH_MAX, Sealer, ServiceKey};
use crate::store::Batch;
use crate::{EpochId, Genesis, RecordId, RecordRef, SeatId, ThreadId};

mod admit;
mod append;
mod audit;
mod cut;
mod fence;
mod govern;
mod load;
mod log;
mod pack;
mod quota;
mod read;
mod receive;
mod roster;
mod wraps;

pub use append::{AppendError, Appended, BODY_ENCODING};
pub use audit::{AuditedOp, Explained, Verdict};
pub use fence::{Fenced, Rejudged};
pub use load::LoadError;
pub use log::{LogStatus, Parked};
pub use pack::{LOOSE_ROWS, PACKED_BYTES_MAX};
pub use quota::Quota;
pub use receive::{ReceiveError, Received};
pub use roster::{Roster, SeatFact};
pub use wraps::TakeWrapError;
pub(crate) use wraps::{WrapTag, tag_of};

use append::DataWriter;
use log::{Log, Origin};

/// How far ahead of the receiver's clock a stamp may be before its record is held.
pub const SKEW_MILLIS_MAX: u64 = 10 * 60 * 1000;

/// Most records of one log that are stored and not admitted.
pub const PARKED_RECORDS_MAX: u64 = 1 << 20;

/// Most bytes of records of one log that are stored and not admitted. One run more may be.
pub const PARKED_BYTES_MAX: u64 = 64 << 20;

/// Most bytes of records that waited and are let in by one step, about: all of a log may wait for one
/// record.
pub const RELEASE_BYTES_MAX: u64 = 1 << 20;

/// Most wraps of one epoch for one recipient that one seat may hand over, junk or good. What others
/// hand over does not count, so no seat can take the room of another.
pub const WRAPS_PER_SEAT_MAX: usize = 4;

/// Most keys that are wrapped in one step: each costs as much as a signature.
pub const WRAPS_PER_STEP_MAX: usize = 256;

/// Most control logs that a record written here names, and again most data logs. What is beyond waits
/// for the next record, so that one with the longest body fits into a run.
pub const REFS_NAMED_MAX: usize = 1024;

/// Most sealers that are kept ready.
const SEALERS_MAX: usize = 4096;

/// A member's keys in one thread.
pub struct Seat {
    /// Signs the seat's control log.
    pub signing: SigningKey,
    /// Opens wraps.
    pub kem: AgreementKey,
}

impl Seat {
    /// The id of the seat.
    #[must_use]
    pub fn id(&self) -> SeatId {
        SeatId(self.signing.verifying_key().to_bytes())
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Seat")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// A thread as one peer holds it.
pub struct Thread {
    id: ThreadId,
    number: u32,
    genesis: Genesis,
    service: ServiceKey,
    seat: Seat,
    nonce_secret: NonceSecret,
    padding: Padding,
    governance: Governance,
    roster: Roster,
    control_rows: u64,
    keys: BTreeMap<EpochId, (u32, EpochKey)>,
    /// Wraps that are kept here and the seat that handed each over: several for one recipient, because
    /// nobody else can tell a good one from junk.
    wrapped: wraps::Wrapped,
    /// Counts wraps that were kept: while it stays, there are no new ones.
    wraps_kept: u64,
    /// Whether each key that is held opens the link to another one that is.
    links: BTreeMap<EpochId, BTreeMap<EpochId, bool>>,
    /// How many keys were held when links were looked at.
    links_checked: usize,
    /// Whether readers may lack wraps of keys that are held here.
    wraps_due: bool,
    /// Whether wrapping stopped because a step made as many as it may.
    wraps_cut: bool,
    // Looked up, never iterated.
    sealers: HashMap<(LogId, Option<EpochId>), Sealer>,
    logs: BTreeMap<LogId, Log>,
    numbers: BTreeMap<LogId, u32>,
    ids: BTreeMap<u32, LogId>,
    /// Logs that were proven to have two branches, and from where on.
    forked: BTreeMap<LogId, leno_crdt_codec::Seq>,
    writer: Option<DataWriter>,
    /// The incarnation of the own data log that was given up last.
    retired: Option<u64>,
    /// Counts admissions: while it stays, there is nothing new to refer to.
    admissions: u64,
    newest: Stamp,
    /// Whether more is ready to be admitted than the last step took.
    is_releasing: bool,
    /// Bytes of all logs.
    stored_bytes: u64,
    /// How much of others' records is kept.
    quota: Option<Quota>,
    scratch: Zeroizing<Vec<u8>>,
    limits: Limits,
    /// Records that were derived again from the store.
    #[cfg(feature = "test-util")]
    derived: std::sync::atomic::AtomicU64,
}

/// Limits that tests lower, because they are far away.
#[derive(Clone, Copy, Debug)]
struct Limits {
    parked_records: u64,
    parked_bytes: u64,
    release_bytes: u64,
    records_per_epoch: u64,
    refs_named: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parked_records: PARKED_RECORDS_MAX,
            parked_bytes: PARKED_BYTES_MAX,
            release_bytes: RELEASE_BYTES_MAX,
            records_per_epoch: RECORDS_PER_EPOCH_MAX,
            refs_named: REFS_NAMED_MAX,
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Thread")
            .field("id", &self.id)
            .field("logs", &self.logs.len())
            .finish_non_exhaustive()
    }
}

/// A data record that was admitted and opened, or written here.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// Its place.
    pub record: RecordRef,
    /// Its stamp.
    pub stamp: Stamp,
    /// Who wrote it.
    pub seat: SeatId,
    /// The key domain that it was sealed in.
    pub domain: u32,
    /// Its plaintext, padding and all.
    pub plaintext: &'a [u8],
}

/// What happened to a thread, for the application and for sync.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ThreadEvent {
    /// Records of a log were admitted.
    Admitted {
        /// The log.
        log: LogId,
        /// The newest of them.
        seq: Seq,
        /// How many.
        records: u64,
    },
    /// Roles, logs or epochs changed.
    GovernanceChanged,
    /// The roster changed: names, certificates or facts.
    RosterChanged,
    /// An epoch's key came.
    KeyCame {
        /// The key domain.
        domain: u32,
        /// The epoch.
        epoch: EpochId,
    },
    /// Records of a log wait for a fact.
    Waits {
        /// The log.
        log: LogId,
        /// The first of them and what it waits for.
        parked: Parked,
    },
    /// A record was put aside for a person to look at.
    Quarantined {
        /// The record.
        record: RecordRef,
        /// Why.
        reason: Quarantine,
    },
    /// A log has two branches; the proof holds for anybody.
    Forked {
        /// The log.
        log: LogId,
    },
    /// Records of a log that were admitted stand otherwise than before: [`Changes::rejudged`].
    Rejudged {
        /// The log.
        log: LogId,
    },
    /// A peer has more of this device's log than this device: it was restored from a copy. The log
    /// is left alone and the next write opens a new one.
    OwnLogAhead {
        /// The log.
        log: LogId,
    },
}

/// Why a record is put aside although its chain is good.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[non_exhaustive]
pub enum Quarantine {
    /// It names a record that does not exist at that place.
    #[error("it names a record that is not at that place")]
    BadReference,
    /// Its stamp is not above those of what it names.
    #[error("its stamp is not above the stamps of what it names")]
    StampNotAbove,
    /// Its control frontier does not cover those of its deps.
    #[error("its control frontier does not cover those of its deps")]
    FrontierTooOld,
    /// Its sealed part does not open under the key that it names.
    #[error("its body does not open under the key that it names")]
    DoesNotOpen,
    /// Its sealed part opens and is not what it must be.
    #[error("its body is not well-formed")]
    Malformed,
    /// The grant that its log writes under had expired.
    #[error("the grant that its log writes under had expired")]
    Expired,
    /// It is sealed under a key domain or an epoch that does not exist.
    #[error("it is sealed under an epoch that does not exist")]
    NoSuchEpoch,
    /// No grant in its past that stands permits it.
    #[error("its author had no grant that permits it")]
    NoRole,
    /// Its author was removed or has another role, and it lies above what was accepted of its log.
    #[error("it lies beyond the fence of its log")]
    Fenced,
    /// Its author had left.
    #[error("its author had left")]
    Left,
    /// Its log has two branches from there on, and nobody whose word counts accepted one.
    #[error("its log has two branches there")]
    Forked,
    /// It is sealed under an epoch whose key somebody holds who had lost the right to read, as its author
    /// knew.
    #[error("its author knew of somebody who may not read it and can")]
    Leaky,
}

impl Quarantine {
    const ALL: [Self; 12] = [
        Self::BadReference,
        Self::StampNotAbove,
        Self::FrontierTooOld,
        Self::DoesNotOpen,
        Self::Malformed,
        Self::Expired,
        Self::NoSuchEpoch,
        Self::NoRole,
        Self::Fenced,
        Self::Left,
        Self::Forked,
        Self::Leaky,
    ];

    fn number(self) -> u64 {
        Self::ALL
            .into_iter()
            .zip(0..)
            .find(|(it, _)| *it == self)
            .map_or(0, |(_, number)| number)
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .zip(0..)
            .find(|(_, it)| *it == number)
            .map(|(it, _)| it)
    }
}

/// What the steps of a thread add up to until the caller commits: writes, and events to tell after.
#[derive(Debug, Default)]
pub struct Changes {
    /// Rows to write.
    pub batch: Batch,
    /// What to tell once they are durable.
    pub events: Vec<(ThreadId, ThreadEvent)>,
    /// Forks that were found.
    pub forks: Vec<ForkProof>,
    /// Records that stand otherwise than before.
    pub rejudged: Vec<(ThreadId, Rejudged)>,
}

impl Changes {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn tell(&mut self, thread: ThreadId, event: ThreadEvent) {
        // A range of many short runs is one event: else the events would take more than the range.
        if let ThreadEvent::Admitted { log, seq, records } = &event
            && let Some((
                of,
                ThreadEvent::Admitted {
                    log: last,
                    seq: newest,
                    records: sum,
                },
            )) = self.events.last_mut()
            && (*of, *last) == (thread, *log)
        {
            *newest = *seq;
            *sum += records;
            return;
        }
        self.events.push((thread, event));
    }

    /// Tells whether there is nothing to commit or tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
            && self.events.is_empty()
            && self.forks.is_empty()
            && self.rejudged.is_empty()
    }
}

/// Where opened records go: the layer above folds them into documents.
pub type Sink<'a> = &'a mut dyn FnMut(&Opened<'_>);

impl Thread {
    /// The id.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// The number that stands for the thread in this store.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What made the thread.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The key that names the thread to peers and opens its frames.
    #[must_use]
    pub fn service_key(&self) -> &ServiceKey {
        &self.service
    }

    /// This peer's own seat.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The device's secret that hedges nonces and salts.
    pub(crate) fn nonce_secret(&self) -> &NonceSecret {
        &self.nonce_secret
    }

    /// The key of an epoch, if it is held.
    pub(crate) fn epoch_key(&self, epoch: &EpochId) -> Option<&EpochKey> {
        self.keys.get(epoch).map(|(_, key)| key)
    }

    /// The epoch that seals now, and its key, if it is held.
    pub(crate) fn sealing_key(&self) -> Option<(EpochId, &EpochKey)> {
        let held = |epoch: &EpochId| self.holds_key(epoch);
        let epoch = self
            .governance
            .sealing_epoch_among(crate::THREAD_DOMAIN, held)?;
        Some((epoch, self.epoch_key(&epoch)?))
    }

    /// Who may do what.
    #[must_use]
    pub fn governance(&self) -> &Governance {
        &self.governance
    }

    /// Names, certificates and facts that members state.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Sets whether bodies written from now on are padded.
    pub fn set_padding(&mut self, padding: Padding) {
        self.padding = padding;
    }

    /// Takes the place of [`PARKED_RECORDS_MAX`] and [`PARKED_BYTES_MAX`], until the thread is loaded
    /// again.
    #[cfg(feature = "test-util")]
    pub fn set_parked_max(&mut self, records: u64, bytes: u64) {
        self.limits.parked_records = records;
        self.limits.parked_bytes = bytes;
    }

    /// Takes the place of [`RELEASE_BYTES_MAX`], until the thread is loaded again.
    #[cfg(feature = "test-util")]
    pub fn set_release_max(&mut self, bytes: u64) {
        self.limits.release_bytes = bytes;
    }

    /// Takes the place of [`RECORDS_PER_EPOCH_MAX`], until the thread is loaded again.
    #[cfg(feature = "test-util")]
    pub fn set_records_per_epoch_max(&mut self, records: u64) {
        self.limits.records_per_epoch = records;
    }

    /// Records of stored rows that were derived again since the thread was loaded: what reading back
    /// costs.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn derived(&self) -> u64 {
        self.derived.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn note_derived(&self, records: usize) {
        #[cfg(feature = "test-util")]
        self.derived
            .fetch_add(records as u64, std::sync::atomic::Ordering::Relaxed);
        #[cfg(not(feature = "test-util"))]
        let _ = records;
    }

    /// Tells whether records are here that wait for nothing but the next step.
    pub(crate) fn is_releasing(&self) -> bool {
        self.is_releasing
    }

    /// Takes the place of [`REFS_NAMED_MAX`], until the thread is loaded again.
    #[cfg(feature = "test-util")]
    pub fn set_refs_named_max(&mut self, refs: usize) {
        self.limits.refs_named = refs;
    }

    /// The newest stamp of any admitted record.
    #[must_use]
    pub fn newest_stamp(&self) -> Stamp {
        self.newest
    }

    /// Tells whether an epoch's key is held.
    #[must_use]
    pub fn holds_key(&self, epoch: &EpochId) -> bool {
        self.keys.contains_key(epoch)
    }

    /// The logs that may exist here and where each stands, sorted by id.
    pub fn logs(&self) -> impl Iterator<Item = LogStatus> + '_ {
        self.logs.iter().map(|(id, log)| log.status(*id))
    }

    /// The logs in the order in which they were opened here: none before the record that opens it.
    pub(crate) fn logs_as_opened(&self) -> impl Iterator<Item = LogStatus> + '_ {
        let logs = self.ids.values();
        logs.filter_map(|id| self.logs.get(id).map(|log| log.status(*id)))
    }

    /// Where one log stands.
    #[must_use]
    pub fn log(&self, id: &LogId) -> Option<LogStatus> {
        self.logs.get(id).map(|log| log.status(*id))
    }

    /// The data log that this peer writes now, if it has one.
    #[must_use]
    pub fn own_log(&self) -> Option<LogId> {
        self.writer.as_ref().map(DataWriter::log)
    }

    /// What a log's writer has shown to have seen of the others, by its newest admitted record.
    #[must_use]
    pub fn acknowledged(&self, log: &LogId) -> Option<&crate::Frontier> {
        self.logs.get(log).map(|log| &log.seen)
    }

    fn sealer(&mut self, log: LogId, epoch: Option<EpochId>) -> Option<&Sealer> {
        if !self.sealers.contains_key(&(log, epoch)) {
            let suite = self.genesis.suite;
            let sealer = match epoch {
                None => Sealer::for_frames(suite, &self.service, self.id, log),
                Some(epoch) => {
                    let (_, key) = self.keys.get(&epoch)?;
                    Sealer::for_bodies(suite, key, self.id, log)
                }
            };
            if self.sealers.len() >= SEALERS_MAX {
                self.sealers.clear();
            }
            self.sealers.insert((log, epoch), sealer);
        }
        self.sealers.get(&(log, epoch))
    }

    /// Gives a newly opened log a number and a place among the others, or another place to begin.
    fn add_log(&mut self, id: LogId, origin: Origin) {
        if let Some(log) = self.logs.get_mut(&id) {
            if log.tip.seq == 0 {
                log.add_origin(origin);
            }
            return;
        }
        let next = u32::try_from(self.numbers.len()).expect("a thread has fewer than 2^32 logs");
        // A log that is being loaded has its number already.
        let number = *self.numbers.entry(id).or_insert(next);
        self.ids.insert(number, id);
        self.logs.insert(id, Log::new(number, origin));
    }

    fn ops_of_roster(&mut self, record: RecordId, ops: &[RosterOp]) -> bool {
        self.roster.admit(record, ops)
    }
}

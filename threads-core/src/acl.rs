//! Governance: who may do what, as a function of the set of control records.
//!
//! 1. Power belongs to grants. The genesis makes the owner's; every other one is made by an op of a
//!    control record.
//! 2. An op stands if a grant to its author's seat, itself standing, in the op's causal past and not
//!    expired at the op's stamp, permits it: [`Role::may_grant`] for grants, [`Role::governs`] for
//!    epochs, a writing role for openings.
//! 3. A grant is in the past of an op if the op's control frontier reaches it.
//! 4. An opening stands if its grant is its author's, and the log's key signed it for this seat.
//! 5. A grant that names a line stands if the line begins in its past, and its author is a seat of
//!    that line or an owner.
//! 6. An epoch stands if its parents began in its past, and it did not begin there itself.
//! 7. An op that does not stand is void, alone; its record and its log go on.
//! 8. A log may be opened twice, and a seat granted twice, by records that know nothing of each
//!    other. All of them stand; the log's first record names the one that it begins at.
//! 9. Of the openings of one seat the first [`OPENINGS_PER_SEAT_MAX`] stand, of its epochs the first
//!    [`EPOCHS_PER_SEAT_MAX`]: all of them are in its own control log. There is no limit for all seats
//!    together, which few could use up for the others; who gets a seat is for admins to say.
//! 10. A revocation stands if the grant that it names is a replicator's and in its past, and its author
//!     may give that role, or holds the grant. It ends that grant for good, and no other: a replicator
//!     neither writes nor governs, so nothing else depends on it, and a later grant is a new one.
//!
//! Each rule looks only at an op's own past, so the outcome is a function of the set of records,
//! whatever the order in which they came. Nothing here reads data records. With these rules the
//! answer only grows with the set, but for replicators; removals and fences, which take away more, are
//! evaluated over the same records and bytes.

use std::collections::{BTreeMap, BTreeSet};

use leno_crdt_codec::{LogId, Stamp, bug};

use crate::control::{EpochOp, FrameOp, GrantOp, OpenOp, Role};
use crate::frontier::Frontier;
use crate::{EpochId, Genesis, OpRef, RecordId, RecordRef, SeatId, ThreadId, Tip};

/// Most data logs that one seat opens in a thread.
pub const OPENINGS_PER_SEAT_MAX: u32 = 1024;

/// Most epochs that one seat begins in a thread.
pub const EPOCHS_PER_SEAT_MAX: u32 = 1024;

/// A control record as evaluation sees it: where it stands, what it has seen, what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControlRecord {
    /// Its place.
    pub place: RecordRef,
    /// Its stamp.
    pub stamp: Stamp,
    /// The control records in its past, its own predecessors among them.
    pub past: Frontier,
    /// The ops of its frame.
    pub ops: Vec<FrameOp>,
}

/// A right that stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The op that gave it; for the owner's, what it would have been.
    pub op: GrantOp,
    /// The record that gave it; nothing for the owner's.
    pub record: Option<RecordRef>,
    /// The grant under which it was given.
    pub issuer: Option<OpRef>,
    /// The line that the seat belongs to by this grant: the grant that began it.
    pub line: OpRef,
    /// Whether the seat had no grant in the past of this one.
    pub is_first: bool,
}

impl Grant {
    /// Tells whether the grant has not ended at a stamp.
    #[must_use]
    pub fn holds_at(&self, stamp: Stamp) -> bool {
        let expires = self.op.expires_millis.map(Stamp::from_millis);
        expires.is_none_or(|expires| stamp <= expires)
    }
}

/// A data log that may be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opening {
    /// The seat that writes it.
    pub seat: SeatId,
    /// The grant it writes under.
    pub grant: OpRef,
    /// Which of the seat's data logs it is.
    pub incarnation: u64,
    /// The control record that opened it.
    pub record: RecordRef,
    /// Where its chain begins.
    pub tip: Tip,
}

/// Why an op does not stand.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[non_exhaustive]
pub enum VoidReason {
    /// No standing grant of the author in the op's past permits it.
    #[error("the author had no grant that permits it")]
    NotPermitted,
    /// It names a grant that is not its author's, or not in its past.
    #[error("it names a grant that its author does not have")]
    NotAuthorsGrant,
    /// The log's key did not sign the opening.
    #[error("the log's key did not sign its opening")]
    NotSigned,
    /// An op before it in the same record opens the same log.
    #[error("the key already serves in this thread")]
    KeyTaken,
    /// The line that a grant names does not begin in its past, or is not its author's.
    #[error("it names a line that its author is not of")]
    NotAuthorsLine,
    /// An epoch names itself as parent, or a parent that did not begin in its past.
    #[error("it names parents that did not begin before it")]
    BadParents,
    /// The epoch began in the op's past already: its key is not new.
    #[error("the epoch began before")]
    EpochTaken,
    /// It revokes a grant that is not in its past, or not a replicator's.
    #[error("it revokes what is not a replicator's grant in its past")]
    NotRevocable,
    /// The author's seat opened [`OPENINGS_PER_SEAT_MAX`] logs before, or began
    /// [`EPOCHS_PER_SEAT_MAX`] epochs.
    #[error("the author's seat did so too often")]
    TooMany,
}

/// What a control record changed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum GovernanceChange {
    /// A seat got a role.
    Granted(OpRef),
    /// A log was opened.
    Opened(LogId),
    /// An epoch began.
    Began(EpochId),
    /// A replicator's grant ended.
    Revoked(OpRef),
    /// An op does not stand.
    Void(OpRef, VoidReason),
}

/// The state that the control records of a thread add up to.
///
/// # Examples
///
/// ```
/// # use leno_identity::{AgreementKey, SigningKey};
/// # use leno_threads_core::store::{MemoryStore, Store};
/// # use leno_threads_core::thread::{Changes, Seat, Thread};
/// # use leno_threads_core::*;
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
/// # let mut new_seat = || -> Result<Seat, leno_identity::KeyError> {
/// #     let signing = SigningKey::generate(&mut rng)?;
/// #     let kem = AgreementKey::generate(&mut rng)?;
/// #     Ok(Seat { signing, kem })
/// # };
/// # let (seat, other) = (new_seat()?, new_seat()?);
/// # let (store, now_millis) = (MemoryStore::new(), 1_700_000_000_000);
/// # let (mut changes, secret) = (Changes::new(), NonceSecret::new(&[7; 32]));
/// # let (view, suite) = (store.view()?, Suite::Aes256Gcm);
/// # let mut band =
/// #     Thread::create(&*view, 0, seat, secret, suite, &[], now_millis, &mut rng, &mut changes)?;
/// use leno_threads_core::acl::Governance;
///
/// // `band` was just made: its genesis names the owner.
/// let governance = Governance::new(band.genesis());
/// let owner = band.seat().id();
/// assert_eq!(governance.role(owner), Some(Role::Owner));
/// assert_eq!(governance.role(SeatId([9; 32])), None);
/// // What was granted since stands in the thread's own.
/// assert_eq!(band.governance().seats().count(), 1);
/// assert_eq!(band.governance().epochs().count(), 2); // of the roster, of the documents
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Governance {
    thread: ThreadId,
    grants: BTreeMap<OpRef, Grant>,
    seats: BTreeMap<SeatId, BTreeSet<OpRef>>,
    /// Grants that ended, by the first revocation of each in the order of their ids.
    revoked: BTreeMap<OpRef, BTreeMap<OpRef, Frontier>>,
    /// Every opening of a log, sorted by the op that made it.
    openings: BTreeMap<LogId, BTreeMap<OpRef, Opening>>,
    /// The opening that a log's first record names.
    begun: BTreeMap<LogId, OpRef>,
    epochs: BTreeMap<EpochId, BTreeMap<u32, Epoch>>,
    void: BTreeMap<OpRef, VoidReason>,
    /// How many ops of each seat stand, by its own control log.
    counts: BTreeMap<SeatId, Counts>,
}

/// How many ops of a seat stand.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    openings: u32,
    epochs: u32,
}

/// An epoch of one key domain, by all the records that began it.
#[derive(Clone, Debug)]
struct Epoch {
    op: EpochOp,
    /// The first record of each control log that began it.
    began: Frontier,
}

impl Governance {
    /// The state right after a genesis: one owner.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        let op = GrantOp {
            line: None,
            seat: genesis.owner,
            kem: genesis.owner_kem,
            role: Role::Owner,
            scope: crate::Scope::Thread,
            expires_millis: None,
            identity: None,
            recovery: None,
        };
        let name = genesis.owner_grant();
        Self {
            thread: genesis.thread(),
            grants: BTreeMap::from([(
                name,
                Grant {
                    op,
                    record: None,
                    issuer: None,
                    line: name,
                    is_first: true,
                },
            )]),
            seats: BTreeMap::from([(genesis.owner, BTreeSet::from([name]))]),
            revoked: BTreeMap::new(),
            openings: BTreeMap::new(),
            begun: BTreeMap::new(),
            epochs: BTreeMap::new(),
            void: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Takes in a control record whose past was taken in before.
    pub fn admit(&mut self, record: &ControlRecord) -> Vec<GovernanceChange> {
        let seat = SeatId(record.place.log.0);
        let mut changes = Vec::new();
        for (index, op) in (0..).zip(&record.ops) {
            let name = OpRef {
                record: record.place.id,
                op: index,
            };
            let change = match op {
                FrameOp::Grant(op) => self.grant(name, seat, op, record),
                FrameOp::Open(op) => self.open(name, seat, op, record),
                FrameOp::Epoch(op) => self.begin(seat, op, record),
                FrameOp::Revoke(grant) => self.revoke(name, seat, *grant, record),
            };
            changes.push(change.unwrap_or_else(|reason| {
                self.void.insert(name, reason);
                GovernanceChange::Void(name, reason)
            }));
        }
        changes
    }

    fn grant(
        &mut self,
        name: OpRef,
        author: SeatId,
        op: &GrantOp,
        record: &ControlRecord,
    ) -> Result<GovernanceChange, VoidReason> {
        let issuer = self
            .grants_in_past(author, record)
            .filter(|(_, grant)| grant.op.role.may_grant(op.role) || bug!(RoleNotChecked))
            .min_by_key(|(name, grant)| (grant.op.role, *name))
            .map(|(name, _)| name)
            .ok_or(VoidReason::NotPermitted)?;
        let before: Vec<OpRef> = self
            .grants_in_past(op.seat, record)
            .filter(|(_, grant)| grant.is_first)
            .map(|(_, grant)| grant.line)
            .collect();
        let line = match op.line {
            Some(line) => self.line_in_past(line, author, record)?,
            // A seat that has a grant stays in its line.
            None => before.iter().min().copied().unwrap_or(name),
        };
        let grant = Grant {
            op: op.clone(),
            record: Some(record.place),
            issuer: Some(issuer),
            line,
            is_first: before.is_empty(),
        };
        self.grants.insert(name, grant);
        self.seats.entry(op.seat).or_default().insert(name);
        Ok(GovernanceChange::Granted(name))
    }

    /// Checks that `author` may add seats to a line.
    fn line_in_past(
        &self,
        line: OpRef,
        author: SeatId,
        record: &ControlRecord,
    ) -> Result<OpRef, VoidReason> {
        let begins = self.grants.get(&line).is_some_and(|grant| {
            grant.line == line
                && grant
                    .record
                    .is_none_or(|at| at == record.place || record.past.seq(&at.log) >= at.seq)
        });
        let is_authors = self
            .grants_in_past(author, record)
            .any(|(_, grant)| grant.line == line || grant.op.role == Role::Owner);
        if begins && is_authors {
            return Ok(line);
        }
        Err(VoidReason::NotAuthorsLine)
    }

    fn open(
        &mut self,
        name: OpRef,
        author: SeatId,
        op: &OpenOp,
        record: &ControlRecord,
    ) -> Result<GovernanceChange, VoidReason> {
        let role = self
            .grants_in_past(author, record)
            .find(|(name, _)| *name == op.grant)
            .map(|(_, grant)| grant.op.role)
            .ok_or(VoidReason::NotAuthorsGrant)?;
        if !role.writes() {
            return Err(VoidReason::NotPermitted);
        }
        if self.opening_by(&op.log, &record.place.id).is_some() {
            return Err(VoidReason::KeyTaken);
        }
        if self.openings_are_used_up(author) {
            return Err(VoidReason::TooMany);
        }
        if !op.is_signed(self.thread, author) {
            return Err(VoidReason::NotSigned);
        }
        let opening = Opening {
            seat: author,
            grant: op.grant,
            incarnation: op.incarnation,
            record: record.place,
            tip: Tip::opened_by(record.place.id, record.stamp),
        };
        self.openings
            .entry(op.log)
            .or_default()
            .insert(name, opening);
        self.counts.entry(author).or_default().openings += 1;
        Ok(GovernanceChange::Opened(op.log))
    }

    /// Tells whether a seat opened as many logs as it may.
    pub(crate) fn openings_are_used_up(&self, seat: SeatId) -> bool {
        let counts = self.counts.get(&seat).copied().unwrap_or_default();
        counts.openings >= OPENINGS_PER_SEAT_MAX
    }

    fn begin(
        &mut self,
        author: SeatId,
        op: &EpochOp,
        record: &ControlRecord,
    ) -> Result<GovernanceChange, VoidReason> {
        if !self
            .grants_in_past(author, record)
            .any(|(_, grant)| grant.op.role.governs())
        {
            return Err(VoidReason::NotPermitted);
        }
        let counts = self.counts.get(&author).copied().unwrap_or_default();
        if counts.epochs >= EPOCHS_PER_SEAT_MAX {
            return Err(VoidReason::TooMany);
        }
        let mut seen = record.past.clone();
        seen.raise(record.place.log, record.place.seq);
        if self.epoch_began(op.domain, &op.epoch, &seen) {
            return Err(VoidReason::EpochTaken);
        }
        if !op
            .parents
            .iter()
            .all(|parent| self.epoch_began(op.domain, parent, &seen))
        {
            return Err(VoidReason::BadParents);
        }
        let (of_id, place) = (self.epochs.entry(op.epoch).or_default(), record.place);
        let epoch = of_id.entry(op.domain).or_insert_with(|| Epoch {
            op: op.clone(),
            began: Frontier::new(),
        });
        // The same commitment again is the same key: what is known of it adds up.
        let parents: BTreeSet<_> = epoch
            .op
            .parents
            .iter()
            .chain(&op.parents)
            .copied()
            .collect();
        epoch.op.parents = parents.into_iter().collect();
        if epoch.began.seq(&place.log) == 0 {
            epoch.began.raise(place.log, place.seq);
        }
        self.counts.entry(author).or_default().epochs += 1;
        Ok(GovernanceChange::Began(op.epoch))
    }

    fn revoke(
        &mut self,
        name: OpRef,
        author: SeatId,
        grant: OpRef,
        record: &ControlRecord,
    ) -> Result<GovernanceChange, VoidReason> {
        let named = self.grants.get(&grant).filter(|it| {
            let is_past = it.record.is_some_and(|at| is_past(at, record));
            it.op.role == Role::Replicator && is_past
        });
        let named = named.ok_or(VoidReason::NotRevocable)?;
        let may = named.op.seat == author
            || self
                .grants_in_past(author, record)
                .any(|(_, it)| it.op.role.may_grant(named.op.role));
        if !may && !bug!(RevokeNotChecked) {
            return Err(VoidReason::NotPermitted);
        }
        let mut told = record.past.clone();
        told.raise(record.place.log, record.place.seq);
        self.revoked.entry(grant).or_default().insert(name, told);
        Ok(GovernanceChange::Revoked(grant))
    }

    fn grants_in_past<'a>(
        &'a self,
        seat: SeatId,
        record: &'a ControlRecord,
    ) -> impl Iterator<Item = (OpRef, &'a Grant)> {
        self.grants_of(seat).filter(|(_, grant)| {
            let is_past = grant.record.is_none_or(|at| is_past(at, record));
            is_past && grant.holds_at(record.stamp)
        })
    }

    /// The most privileged role that a control record's author had by its own past.
    pub(crate) fn role_in(&self, record: &ControlRecord) -> Option<Role> {
        self.grants_in_past(SeatId(record.place.log.0), record)
            .map(|(_, grant)| grant.op.role)
            .min()
    }

    /// The grants of a seat, those that were revoked too.
    pub fn grants_of(&self, seat: SeatId) -> impl Iterator<Item = (OpRef, &Grant)> {
        let names = self.seats.get(&seat).into_iter().flatten();
        names.filter_map(|name| self.grants.get(name).map(|grant| (*name, grant)))
    }

    /// The number of the member that a seat belongs to: the grant that began its line.
    #[must_use]
    pub fn member(&self, seat: SeatId) -> Option<OpRef> {
        let first = self.grants_of(seat).filter(|(_, grant)| grant.is_first);
        first.map(|(_, grant)| grant.line).min()
    }

    /// The most privileged role of a seat.
    #[must_use]
    pub fn role(&self, seat: SeatId) -> Option<Role> {
        let standing = self
            .grants_of(seat)
            .filter(|(name, _)| !self.is_revoked(name));
        standing.map(|(_, grant)| grant.op.role).min()
    }

    /// Tells whether a grant was revoked.
    #[must_use]
    pub fn is_revoked(&self, grant: &OpRef) -> bool {
        self.revoked.contains_key(grant)
    }

    /// Tells whether a seat had grants and all of them were revoked.
    #[must_use]
    pub fn was_removed(&self, seat: SeatId) -> bool {
        self.farewell(seat).is_some()
    }

    /// Up to where governance may still be told to a seat whose grants were all revoked: to the
    /// revocations, so that it learns of them, and no further.
    pub(crate) fn farewell(&self, seat: SeatId) -> Option<Frontier> {
        if self.role(seat).is_some() {
            return None;
        }
        let ends = self.grants_of(seat);
        let ends = ends.filter_map(|(name, _)| self.revoked.get(&name)?.values().next());
        ends.cloned().reduce(|mut told, end| {
            for (log, seq) in end.iter() {
                told.raise(log, seq);
            }
            told
        })
    }

    /// The grant under which a seat would write.
    #[must_use]
    pub fn writing_grant(&self, seat: SeatId) -> Option<OpRef> {
        self.writing_grant_at(seat, Stamp::ZERO)
    }

    /// The grant under which a seat would write at a stamp: one that has not ended by then.
    #[must_use]
    pub fn writing_grant_at(&self, seat: SeatId, stamp: Stamp) -> Option<OpRef> {
        self.grants_of(seat)
            .filter(|(_, grant)| grant.op.role.writes() && grant.holds_at(stamp))
            .min_by_key(|(name, grant)| (grant.op.role, *name))
            .map(|(name, _)| name)
    }

    /// All standing grants.
    pub fn grants(&self) -> impl Iterator<Item = (OpRef, &Grant)> {
        self.grants.iter().map(|(name, grant)| (*name, grant))
    }

    /// The grant that an op made, if it stands.
    #[must_use]
    pub fn grant_named(&self, name: &OpRef) -> Option<&Grant> {
        self.grants.get(name)
    }

    /// All seats, in the order of their keys.
    pub fn seats(&self) -> impl Iterator<Item = SeatId> + '_ {
        self.seats.keys().copied()
    }

    /// The seats that may read a key domain, each with a KEM key to wrap for. Roster and documents
    /// have the same readers as long as there is one scope.
    pub fn readers(&self) -> impl Iterator<Item = (SeatId, [u8; 32])> + '_ {
        let reads = |role: Role| role.reads() || bug!(WrapForAll);
        let readers = self.grants.values().filter(move |it| reads(it.op.role));
        readers.map(|grant| (grant.op.seat, grant.op.kem))
    }

    /// As [`Governance::readers`], those whose grants have not ended at a stamp.
    pub fn readers_at(&self, stamp: Stamp) -> impl Iterator<Item = (SeatId, [u8; 32])> + '_ {
        let grants = self.grants.values();
        let reads = |role: Role| role.reads() || bug!(WrapForAll);
        let readers = grants.filter(move |it| reads(it.op.role) && it.holds_at(stamp));
        readers.map(|grant| (grant.op.seat, grant.op.kem))
    }

    /// The opening of a data log, if it stands: the one that its first record names; while the log is
    /// empty, of several the lowest.
    #[must_use]
    pub fn opening(&self, log: &LogId) -> Option<&Opening> {
        let openings = self.openings.get(log)?;
        let begun = self.begun.get(log).and_then(|name| openings.get(name));
        begun.or_else(|| openings.values().next())
    }

    /// The opening of a data log that a control record made.
    pub(crate) fn opening_by(&self, log: &LogId, record: &RecordId) -> Option<(OpRef, &Opening)> {
        let openings = self.openings.get(log)?;
        openings
            .iter()
            .find(|(name, _)| name.record == *record)
            .map(|(name, opening)| (*name, opening))
    }

    /// Settles which opening a log begins at: the one that its first record names.
    pub(crate) fn settle(&mut self, log: LogId, record: &RecordId) {
        if let Some((name, _)) = self.opening_by(&log, record) {
            self.begun.insert(log, name);
        }
    }

    /// All data logs that may be written.
    pub fn openings(&self) -> impl Iterator<Item = (LogId, &Opening)> {
        let logs = self.openings.keys();
        logs.filter_map(|log| self.opening(log).map(|opening| (*log, opening)))
    }

    /// An epoch that began, in the lowest key domain if there are several.
    #[must_use]
    pub fn epoch(&self, id: &EpochId) -> Option<&EpochOp> {
        let domains = self.epochs.get(id)?;
        domains.values().next().map(|epoch| &epoch.op)
    }

    /// An epoch of a key domain that began.
    #[must_use]
    pub fn epoch_in(&self, domain: u32, id: &EpochId) -> Option<&EpochOp> {
        let epoch = self.epochs.get(id)?.get(&domain)?;
        Some(&epoch.op)
    }

    /// Tells whether an epoch began at or below a control frontier.
    #[must_use]
    pub fn epoch_began(&self, domain: u32, id: &EpochId, frontier: &Frontier) -> bool {
        let epoch = self.epochs.get(id).and_then(|it| it.get(&domain));
        epoch.is_some_and(|epoch| {
            let mut began = epoch.began.iter();
            began.any(|(log, seq)| frontier.seq(&log) >= seq)
        })
    }

    /// All epochs.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochOp> {
        self.epochs
            .values()
            .flat_map(BTreeMap::values)
            .map(|it| &it.op)
    }

    /// The epoch to seal under: one that no other one descends from, of several the lowest id.
    #[must_use]
    pub fn sealing_epoch(&self, domain: u32) -> Option<EpochId> {
        self.sealing_epoch_among(domain, |_| true)
    }

    /// As [`Governance::sealing_epoch`], among the epochs that `held` tells: one whose key was never
    /// handed over stops nobody from writing.
    pub(crate) fn sealing_epoch_among(
        &self,
        domain: u32,
        held: impl Fn(&EpochId) -> bool,
    ) -> Option<EpochId> {
        let of_domain: Vec<&EpochOp> = self
            .epochs()
            .filter(|it| it.domain == domain && held(&it.epoch))
            .collect();
        let parents: BTreeSet<_> = of_domain.iter().flat_map(|it| &it.parents).collect();
        let ids = || of_domain.iter().map(|it| it.epoch);
        // Colluding minters of one key could make a circle; then all of them are as good.
        ids()
            .filter(|id| !parents.contains(id))
            .min()
            .or(ids().min())
    }

    /// The ops that do not stand, and why.
    pub fn void(&self) -> impl Iterator<Item = (OpRef, VoidReason)> + '_ {
        self.void.iter().map(|(name, reason)| (*name, *reason))
    }
}

/// Tells whether what stands at a place is in a record's past; ops of one record see those before them.
fn is_past(at: RecordRef, record: &ControlRecord) -> bool {
    at == record.place || record.past.seq(&at.log) >= at.seq
}

//! Governance: who may do what, as a function of the set of control records.
//!
//! Two questions are asked of each op.
//!
//! **Is it possible?** That is told by its own past alone, and never changes:
//!
//! 1. Power belongs to grants. The genesis makes the owner's; every other one is made by an op of a
//!    control record.
//! 2. An op is possible if a grant to its author, itself possible, in the op's causal past and not
//!    expired at the op's stamp, permits it: [`Role::may_grant`] for grants, [`Role::governs`] for
//!    removals and acceptances, a writing role for openings and epochs, any for leaves and devices.
//! 3. A grant is in the past of an op if the op's control frontier reaches it.
//! 4. An opening is possible if its grant is its author's, and the log's key signed it for this seat.
//! 5. A device is possible if its key signed that it belongs to this member, and its author is that
//!    member's first seat.
//! 6. An epoch is possible if its parents began in its past, and it did not begin there itself.
//! 7. An op that is not possible is void, alone; its record and its log go on.
//! 8. A log may be opened twice by records that know nothing of each other. Both are possible; the log's
//!    first record names the one that it begins at.
//! 9. Of the openings of one seat the first [`OPENINGS_PER_SEAT_MAX`] are possible, of its epochs the first
//!    [`EPOCHS_PER_SEAT_MAX`], of its devices the first [`DEVICES_PER_SEAT_MAX`], of what it says of one
//!    member the first [`OPS_PER_MEMBER_MAX`]: all of them are in its own control log. There is no limit for
//!    all seats together, which few could use up for the others; who gets a seat is for admins to say.
//!
//! What is possible decides which logs there are, so all peers keep the same ones.
//!
//! **Does it stand?** That depends on who was removed, by whom, and up to where: the rules are those of
//! `docs/governance.md`, and the answer may change with each op that comes. What stands decides who has
//! which role, who reads, and which records count.
//!
//! Nothing here reads data records.

use std::collections::{BTreeMap, BTreeSet};

use leno_crdt_codec::{LogId, Seq, Stamp, bug};

use crate::control::{FrameOp, GrantOp, Role};
use crate::frontier::Frontier;
use crate::{EpochId, Genesis, OpRef, RecordId, RecordRef, SeatId, ThreadId, Tip};

mod epochs;
mod possible;
mod rank;
mod standing;

pub use rank::Power;
pub use standing::{Beyond, Limit};

use epochs::Epoch;
use standing::Standing;
pub(crate) use standing::Touched;

/// Most data logs that one seat opens in a thread.
pub const OPENINGS_PER_SEAT_MAX: u32 = 1024;

/// Most epochs that one seat begins in a thread.
pub const EPOCHS_PER_SEAT_MAX: u32 = 1024;

/// Most devices that one seat adds to a member.
pub const DEVICES_PER_SEAT_MAX: u32 = 63;

/// Most grants and removals of one member by one seat.
pub const OPS_PER_MEMBER_MAX: u32 = 256;

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

/// A right that was given: whether it stands is another question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The op that gave it; for the owner's, what it would have been.
    pub op: GrantOp,
    /// The record that gave it; nothing for the owner's.
    pub record: Option<RecordRef>,
    /// The grant under which it was given.
    pub issuer: Option<OpRef>,
    /// The member's number: the grant to this seat that came first, as far as this one has seen.
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
    /// The device's key did not sign that it belongs to the member.
    #[error("the device's key did not sign that it belongs to the member")]
    DeviceNotSigned,
    /// It adds a device to a member of which its author is not the first seat.
    #[error("its author is not the first seat of the member")]
    NotAuthorsMember,
    /// An epoch names itself as parent, or a parent that did not begin in its past.
    #[error("it names parents that did not begin before it")]
    BadParents,
    /// The epoch began in the op's past already: its key is not new.
    #[error("the epoch began before")]
    EpochTaken,
    /// It removes a seat that was given nothing in its past.
    #[error("it removes a seat that was given nothing")]
    NoSuchMember,
    /// What it shows is no proof of a fork in this thread.
    #[error("what it shows is no proof of a fork")]
    BadProof,
    /// The author's seat did so as often as one may: see rule 9 of the [module](self).
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
    /// A seat of somebody is one more device.
    DeviceAdded(SeatId),
    /// A member was removed, if the op stands.
    Removed(SeatId),
    /// Logs were accepted, if the op stands.
    Accepted,
    /// A member left, if the op stands.
    Left(SeatId),
    /// A log was shown to have two branches, which differ at a place at the latest.
    Forked(LogId, Seq),
    /// An op is not possible.
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
    owner_grant: OpRef,
    grants: BTreeMap<OpRef, Grant>,
    seats: BTreeMap<SeatId, BTreeSet<OpRef>>,
    /// KEM keys of devices, by the ops that added them.
    devices: BTreeMap<SeatId, BTreeMap<OpRef, [u8; 32]>>,
    /// Every opening of a log, sorted by the op that made it.
    openings: BTreeMap<LogId, BTreeMap<OpRef, Opening>>,
    /// The logs that each seat opened.
    logs: BTreeMap<SeatId, BTreeSet<LogId>>,
    /// The opening that a log's first record names.
    begun: BTreeMap<LogId, OpRef>,
    epochs: BTreeMap<EpochId, BTreeMap<u32, Epoch>>,
    void: BTreeMap<OpRef, VoidReason>,
    /// How many ops of each seat are possible, by its own control log.
    counts: BTreeMap<SeatId, Counts>,
    /// Forks that control records show.
    shown: BTreeMap<LogId, Seq>,
    standing: Standing,
}

/// How many ops of a seat are possible.
#[derive(Clone, Debug, Default)]
struct Counts {
    openings: u32,
    epochs: u32,
    devices: u32,
    /// Grants and removals, by member.
    of_members: BTreeMap<SeatId, u32>,
}

impl Governance {
    /// The state right after a genesis: one owner.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        let op = GrantOp {
            seat: genesis.owner,
            kem: genesis.owner_kem,
            role: Role::Owner,
            scope: crate::Scope::Thread,
            expires_millis: None,
            identity: None,
            recovery: None,
            accepts: Vec::new(),
        };
        let name = genesis.owner_grant();
        Self {
            thread: genesis.thread(),
            owner_grant: name,
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
            devices: BTreeMap::new(),
            openings: BTreeMap::new(),
            logs: BTreeMap::new(),
            begun: BTreeMap::new(),
            epochs: BTreeMap::new(),
            void: BTreeMap::new(),
            counts: BTreeMap::new(),
            shown: BTreeMap::new(),
            standing: Standing::new(genesis.owner),
        }
    }

    /// The first place at which a control record shows that a log has two branches.
    #[must_use]
    pub fn shown_fork(&self, log: &LogId) -> Option<Seq> {
        self.shown.get(log).copied()
    }

    /// The possible grants to a member, by the first of its seats.
    fn grants_to(&self, member: SeatId) -> impl Iterator<Item = (OpRef, &Grant)> {
        let names = self.seats.get(&member).into_iter().flatten();
        names.filter_map(|name| self.grants.get(name).map(|grant| (*name, grant)))
    }

    /// The grants to the members that a seat belongs to, those that ended too.
    pub fn grants_of(&self, seat: SeatId) -> impl Iterator<Item = (OpRef, &Grant)> {
        let members = self.standing.members_ever(seat);
        members.flat_map(|member| self.grants_to(member))
    }

    /// The grants of a seat that stand and that nothing ended.
    pub fn lasting_grants(&self, seat: SeatId) -> impl Iterator<Item = (OpRef, &Grant)> {
        let lasting = self.standing.lasting(seat);
        lasting.filter_map(|name| {
            let name = name.unwrap_or(self.owner_grant);
            Some((name, self.grants.get(&name)?))
        })
    }

    /// The number of the member that a seat belongs to: the grant that came first.
    #[must_use]
    pub fn member(&self, seat: SeatId) -> Option<OpRef> {
        let first = self.grants_of(seat).filter(|(_, grant)| grant.is_first);
        first.map(|(_, grant)| grant.line).min()
    }

    /// The most privileged role of a seat.
    #[must_use]
    pub fn role(&self, seat: SeatId) -> Option<Role> {
        let lasting = self.lasting_grants(seat);
        lasting.map(|(_, grant)| grant.op.role).min()
    }

    /// Tells whether what a control record does stands, as far as it needs a power; `false` too if the
    /// record is not here.
    #[must_use]
    pub fn stands(&self, record: &RecordId, power: Power) -> bool {
        self.standing.may(record, power).unwrap_or(false)
    }

    /// Up to where a data log stands for an author who has seen so much of the control logs. `id_at` tells
    /// which record is here at a place of the log.
    #[must_use]
    pub fn limit(
        &self,
        log: &LogId,
        past: &Frontier,
        id_at: &mut dyn FnMut(Seq) -> Option<RecordId>,
    ) -> Limit {
        let Some(opening) = self.opening(log) else {
            return Limit {
                up_to: 0,
                beyond: Beyond::NoRole,
            };
        };
        let opened = (opening.grant, opening.record);
        self.standing.limit(opening.seat, *log, opened, past, id_at)
    }

    /// Tells whether all that was written in a data log stands, because nothing was ever ended for its
    /// author.
    pub(crate) fn is_unbarred(&self, log: &LogId) -> bool {
        self.opening(log)
            .is_some_and(|it| self.standing.is_unbarred(it.seat, log))
    }

    /// All seats that were ever of a member, by the first of them.
    pub(crate) fn seats_of(&self, member: SeatId) -> BTreeSet<SeatId> {
        self.standing.seats_of(member)
    }

    /// The data logs that a seat opened.
    pub(crate) fn logs_of(&self, seat: SeatId) -> impl Iterator<Item = LogId> + '_ {
        self.logs.get(&seat).into_iter().flatten().copied()
    }

    /// Notes that a log was proven to have two branches, and the first place at which they differ.
    pub(crate) fn fork(&mut self, log: LogId, first: Seq) {
        self.standing.fork(log, first);
    }

    /// For whom something else stands than when this was asked before.
    pub(crate) fn take_touched(&mut self) -> Touched {
        self.standing.take_touched()
    }

    /// Tells whether a seat had grants and none lasts.
    #[must_use]
    pub fn was_removed(&self, seat: SeatId) -> bool {
        self.grants_of(seat).next().is_some() && self.role(seat).is_none()
    }

    /// Up to where governance may still be told to a seat none of whose grants lasts: to what ended them,
    /// so that it learns of that, and no further.
    pub(crate) fn farewell(&self, seat: SeatId) -> Option<Frontier> {
        let is_told = self.was_removed(seat);
        is_told.then(|| self.standing.farewell(seat))
    }

    /// The grant under which a seat would write.
    #[must_use]
    pub fn writing_grant(&self, seat: SeatId) -> Option<OpRef> {
        self.writing_grant_at(seat, Stamp::ZERO)
    }

    /// The grant under which a seat would write at a stamp: one that has not ended by then.
    #[must_use]
    pub fn writing_grant_at(&self, seat: SeatId, stamp: Stamp) -> Option<OpRef> {
        self.lasting_grants(seat)
            .filter(|(_, grant)| grant.op.role.writes() && grant.holds_at(stamp))
            .min_by_key(|(name, grant)| (grant.op.role, *name))
            .map(|(name, _)| name)
    }

    /// All possible grants.
    pub fn grants(&self) -> impl Iterator<Item = (OpRef, &Grant)> {
        self.grants.iter().map(|(name, grant)| (*name, grant))
    }

    /// The grant that an op made, if it is possible.
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
        self.readers_at(Stamp::ZERO)
    }

    /// As [`Governance::readers`], those whose grants have not ended at a stamp.
    pub fn readers_at(&self, stamp: Stamp) -> impl Iterator<Item = (SeatId, [u8; 32])> + '_ {
        self.seats()
            .flat_map(move |seat| self.kems_at(seat, stamp).map(move |kem| (seat, kem)))
    }

    /// The KEM keys of a seat that may read at a stamp; none if it may not.
    pub(crate) fn kems_at(
        &self,
        seat: SeatId,
        stamp: Stamp,
    ) -> impl Iterator<Item = [u8; 32]> + use<> {
        let reads =
            |grant: &Grant| (grant.op.role.reads() || bug!(WrapForAll)) && grant.holds_at(stamp);
        let mut kems = Vec::new();
        for (_, grant) in self.lasting_grants(seat).filter(|it| reads(it.1)) {
            if grant.op.seat == seat {
                kems.push(grant.op.kem);
            } else {
                kems.extend(
                    self.devices
                        .get(&seat)
                        .into_iter()
                        .flatten()
                        .map(|it| *it.1),
                );
            }
        }
        kems.sort_unstable();
        kems.dedup();
        kems.into_iter()
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

    /// The ops that are not possible, and why.
    pub fn void(&self) -> impl Iterator<Item = (OpRef, VoidReason)> + '_ {
        self.void.iter().map(|(name, reason)| (*name, *reason))
    }
}

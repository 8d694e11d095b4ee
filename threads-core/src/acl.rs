//! Governance: who may do what, as a function of the set of control records.
//!
//! 1. Power belongs to grants. The genesis makes the owner's; every other one is made by an op of a
//!    control record.
//! 2. An op stands if a grant to its author's seat, itself standing and in the op's causal past,
//!    permits it: [`Role::may_grant`] for grants, a reading role for epochs, a writing role for
//!    openings.
//! 3. A grant is in the past of an op if the op's control frontier reaches it.
//! 4. An opening stands if its grant is its author's, and the log's key signed it for this seat.
//! 5. An op that does not stand is void, alone; its record and its log go on.
//!
//! Nothing here reads data records. With these rules the answer only grows with the set; removals
//! and fences, which take away, are evaluated over the same records and bytes.

use std::collections::{BTreeMap, BTreeSet};

use leno_crdt_codec::{LogId, Stamp};

use crate::control::{EpochOp, FrameOp, GrantOp, OpenOp, Role};
use crate::frontier::Frontier;
use crate::{EpochId, Genesis, OpRef, RecordRef, SeatId, ThreadId, Tip};

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
    /// The key already serves as a log or a seat.
    #[error("the key already serves in this thread")]
    KeyTaken,
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
    /// An op does not stand.
    Void(OpRef, VoidReason),
}

/// The state that the control records of a thread add up to.
#[derive(Clone, Debug)]
pub struct Governance {
    thread: ThreadId,
    grants: BTreeMap<OpRef, Grant>,
    seats: BTreeMap<SeatId, BTreeSet<OpRef>>,
    openings: BTreeMap<LogId, Opening>,
    epochs: BTreeMap<EpochId, EpochOp>,
    void: BTreeMap<OpRef, VoidReason>,
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
                },
            )]),
            seats: BTreeMap::from([(genesis.owner, BTreeSet::from([name]))]),
            openings: BTreeMap::new(),
            epochs: BTreeMap::new(),
            void: BTreeMap::new(),
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
                FrameOp::Open(op) => self.open(seat, op, record),
                FrameOp::Epoch(op) => self.begin(seat, op, record),
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
            .filter(|(_, grant)| grant.op.role.may_grant(op.role))
            .min_by_key(|(name, grant)| (grant.op.role, *name))
            .map(|(name, _)| name)
            .ok_or(VoidReason::NotPermitted)?;
        if self.openings.contains_key(&op.seat.control_log()) {
            return Err(VoidReason::KeyTaken);
        }
        let grant = Grant {
            op: op.clone(),
            record: Some(record.place),
            issuer: Some(issuer),
        };
        self.grants.insert(name, grant);
        self.seats.entry(op.seat).or_default().insert(name);
        Ok(GovernanceChange::Granted(name))
    }

    fn open(
        &mut self,
        author: SeatId,
        op: &OpenOp,
        record: &ControlRecord,
    ) -> Result<GovernanceChange, VoidReason> {
        let grant = self
            .grants_in_past(author, record)
            .find(|(name, _)| *name == op.grant)
            .map(|(_, grant)| grant.op.role)
            .ok_or(VoidReason::NotAuthorsGrant)?;
        if !grant.writes() {
            return Err(VoidReason::NotPermitted);
        }
        if self.openings.contains_key(&op.log) || self.seats.contains_key(&SeatId(op.log.0)) {
            return Err(VoidReason::KeyTaken);
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
        self.openings.insert(op.log, opening);
        Ok(GovernanceChange::Opened(op.log))
    }

    fn begin(
        &mut self,
        author: SeatId,
        op: &EpochOp,
        record: &ControlRecord,
    ) -> Result<GovernanceChange, VoidReason> {
        if !self
            .grants_in_past(author, record)
            .any(|(_, grant)| grant.op.role.reads())
        {
            return Err(VoidReason::NotPermitted);
        }
        // The same commitment again is the same key: what is known of it adds up.
        let epoch = self.epochs.entry(op.epoch).or_insert_with(|| op.clone());
        let parents: BTreeSet<_> = epoch.parents.iter().chain(&op.parents).copied().collect();
        epoch.parents = parents.into_iter().collect();
        Ok(GovernanceChange::Began(op.epoch))
    }

    fn grants_in_past<'a>(
        &'a self,
        seat: SeatId,
        record: &'a ControlRecord,
    ) -> impl Iterator<Item = (OpRef, &'a Grant)> {
        self.grants_of(seat).filter(|(_, grant)| {
            grant.record.is_none_or(|at| {
                // Ops of one record see the ones before them.
                at == record.place || record.past.seq(&at.log) >= at.seq
            })
        })
    }

    /// The standing grants of a seat.
    pub fn grants_of(&self, seat: SeatId) -> impl Iterator<Item = (OpRef, &Grant)> {
        let names = self.seats.get(&seat).into_iter().flatten();
        names.filter_map(|name| self.grants.get(name).map(|grant| (*name, grant)))
    }

    /// The number of the member that a seat belongs to: the grant that began its line.
    #[must_use]
    pub fn member(&self, seat: SeatId) -> Option<OpRef> {
        self.grants_of(seat)
            .map(|(name, grant)| grant.op.line.unwrap_or(name))
            .min()
    }

    /// The most privileged role of a seat.
    #[must_use]
    pub fn role(&self, seat: SeatId) -> Option<Role> {
        self.grants_of(seat).map(|(_, grant)| grant.op.role).min()
    }

    /// The grant under which a seat would write.
    #[must_use]
    pub fn writing_grant(&self, seat: SeatId) -> Option<OpRef> {
        self.grants_of(seat)
            .filter(|(_, grant)| grant.op.role.writes())
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
        let readers = self.grants.values().filter(|grant| grant.op.role.reads());
        readers.map(|grant| (grant.op.seat, grant.op.kem))
    }

    /// The opening of a data log, if it stands.
    #[must_use]
    pub fn opening(&self, log: &LogId) -> Option<&Opening> {
        self.openings.get(log)
    }

    /// All data logs that may be written.
    pub fn openings(&self) -> impl Iterator<Item = (LogId, &Opening)> {
        self.openings.iter().map(|(log, opening)| (*log, opening))
    }

    /// An epoch that began.
    #[must_use]
    pub fn epoch(&self, id: &EpochId) -> Option<&EpochOp> {
        self.epochs.get(id)
    }

    /// All epochs.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochOp> {
        self.epochs.values()
    }

    /// The epoch to seal under: one that no other one descends from, of several the lowest id.
    #[must_use]
    pub fn sealing_epoch(&self, domain: u32) -> Option<EpochId> {
        let of_domain = || {
            self.epochs
                .values()
                .filter(move |epoch| epoch.domain == domain)
        };
        let parents: BTreeSet<_> = of_domain().flat_map(|epoch| &epoch.parents).collect();
        of_domain()
            .map(|epoch| epoch.epoch)
            .filter(|id| !parents.contains(id))
            .min()
    }

    /// The ops that do not stand, and why.
    pub fn void(&self) -> impl Iterator<Item = (OpRef, VoidReason)> + '_ {
        self.void.iter().map(|(name, reason)| (*name, *reason))
    }
}

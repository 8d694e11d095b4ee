//! What is possible: whether an op's own past permits it.

use leno_crdt_codec::{Stamp, bug};

use super::standing::{Act, Said};
use super::{
    ControlRecord, DEVICES_PER_SEAT_MAX, Governance, GovernanceChange, Grant,
    OPENINGS_PER_SEAT_MAX, OPS_PER_MEMBER_MAX, Opening, Power, VoidReason,
};
use crate::control::{DeviceOp, FrameOp, GrantOp, OpenOp, RemoveOp};
use crate::fork::ForkProof;
use crate::{OpRef, RecordRef, SeatId, Tip};

/// Who wrote a control record.
pub(super) struct Author<'a> {
    pub(super) seat: SeatId,
    /// The first seats of the members that it belongs to.
    members: Vec<SeatId>,
    pub(super) record: &'a ControlRecord,
}

impl Governance {
    /// Takes in a control record whose past was taken in before.
    pub fn admit(&mut self, record: &ControlRecord) -> Vec<GovernanceChange> {
        let author = Author {
            seat: SeatId(record.place.log.0),
            members: self.members_in_past(record),
            record,
        };
        let mut changes = Vec::new();
        let mut acts = Vec::new();
        for (index, op) in (0..).zip(&record.ops) {
            let name = OpRef {
                record: record.place.id,
                op: index,
            };
            let (change, accepts) = match op {
                FrameOp::Grant(op) => (self.grant(name, op, &author), op.accepts.as_slice()),
                FrameOp::Open(op) => (self.open(name, op, &author), &[][..]),
                FrameOp::Epoch(op) => (self.begin(op, &author), &[][..]),
                FrameOp::Remove(op) => (self.remove(op, &author), op.accepts.as_slice()),
                FrameOp::Accept(accepts) => (self.accept(&author), accepts.as_slice()),
                FrameOp::Leave => (self.leave(&author), &[][..]),
                FrameOp::Device(op) => (self.device(name, op, &author), &[][..]),
                FrameOp::Fork(proof) => (self.show(proof), &[][..]),
            };
            if change.is_ok()
                && let Some(act) = act_of(op)
            {
                acts.push((index, act, accepts.to_vec()));
            }
            changes.push(change.unwrap_or_else(|reason| {
                self.void.insert(name, reason);
                GovernanceChange::Void(name, reason)
            }));
        }
        let forks = changes.iter().filter_map(|it| {
            let GovernanceChange::Forked(log, first) = it else {
                return None;
            };
            Some((*log, *first))
        });
        let forks: Vec<_> = forks.collect();
        let said = Said {
            place: record.place,
            stamp: record.stamp,
            acts,
            forks: forks.clone(),
        };
        self.standing.insert(said, &record.past);
        for (log, first) in forks {
            self.fork(log, first);
            let shown = self.shown.entry(log).or_insert(first);
            *shown = first.min(*shown);
        }
        changes
    }

    fn show(&self, proof: &[u8]) -> Result<GovernanceChange, VoidReason> {
        let proof = ForkProof::decode(proof).map_err(|_| VoidReason::BadProof)?;
        if proof.thread() != self.thread {
            return Err(VoidReason::BadProof);
        }
        Ok(GovernanceChange::Forked(proof.log(), proof.seq()))
    }

    /// The first seats of the members that a record's author belongs to.
    fn members_in_past(&self, record: &ControlRecord) -> Vec<SeatId> {
        let seat = SeatId(record.place.log.0);
        self.standing.members_of(seat, record.place, &record.past)
    }

    fn grant(
        &mut self,
        name: OpRef,
        op: &GrantOp,
        author: &Author<'_>,
    ) -> Result<GovernanceChange, VoidReason> {
        let record = author.record;
        let issuer = self
            .grants_of_author(author)
            .filter(|(_, grant)| grant.op.role.may_grant(op.role) || bug!(RoleNotChecked))
            .min_by_key(|(name, grant)| (grant.op.role, *name))
            .map(|(name, _)| name)
            .ok_or(VoidReason::NotPermitted)?;
        self.count_op_on(op.seat, author.seat)?;
        let before: Option<OpRef> = self
            .grants_in_past(op.seat, record)
            .filter(|(_, grant)| grant.is_first)
            .map(|(_, grant)| grant.line)
            .min();
        let grant = Grant {
            op: op.clone(),
            record: Some(record.place),
            issuer: Some(issuer),
            line: before.unwrap_or(name),
            is_first: before.is_none(),
        };
        self.grants.insert(name, grant);
        self.seats.entry(op.seat).or_default().insert(name);
        Ok(GovernanceChange::Granted(name))
    }

    /// Counts a grant to a member, or a removal: see rule 9.
    fn count_op_on(&mut self, member: SeatId, author: SeatId) -> Result<(), VoidReason> {
        let of_members = &mut self.counts.entry(author).or_default().of_members;
        let count = of_members.entry(member).or_default();
        if *count >= OPS_PER_MEMBER_MAX {
            return Err(VoidReason::TooMany);
        }
        *count += 1;
        Ok(())
    }

    fn open(
        &mut self,
        name: OpRef,
        op: &OpenOp,
        author: &Author<'_>,
    ) -> Result<GovernanceChange, VoidReason> {
        let (record, seat) = (author.record, author.seat);
        let role = self
            .grants_of_author(author)
            .find(|(name, _)| *name == op.grant)
            .map(|(_, grant)| grant.op.role)
            .ok_or(VoidReason::NotAuthorsGrant)?;
        if !role.writes() {
            return Err(VoidReason::NotPermitted);
        }
        if self.opening_by(&op.log, &record.place.id).is_some() {
            return Err(VoidReason::KeyTaken);
        }
        if self.openings_are_used_up(seat) {
            return Err(VoidReason::TooMany);
        }
        if !op.is_signed(self.thread, seat) {
            return Err(VoidReason::NotSigned);
        }
        let opening = Opening {
            seat,
            grant: op.grant,
            incarnation: op.incarnation,
            record: record.place,
            tip: Tip::opened_by(record.place.id, record.stamp),
        };
        self.openings
            .entry(op.log)
            .or_default()
            .insert(name, opening);
        self.logs.entry(seat).or_default().insert(op.log);
        self.counts.entry(seat).or_default().openings += 1;
        Ok(GovernanceChange::Opened(op.log))
    }

    /// Tells whether a seat opened as many logs as it may.
    pub(crate) fn openings_are_used_up(&self, seat: SeatId) -> bool {
        let counts = self.counts.get(&seat);
        counts.is_some_and(|it| it.openings >= OPENINGS_PER_SEAT_MAX)
    }

    fn remove(
        &mut self,
        op: &RemoveOp,
        author: &Author<'_>,
    ) -> Result<GovernanceChange, VoidReason> {
        if self
            .grants_in_past(op.member, author.record)
            .next()
            .is_none()
        {
            return Err(VoidReason::NoSuchMember);
        }
        if !bug!(RevokeNotChecked) {
            self.check_power(Power::Govern, author)?;
        }
        self.count_op_on(op.member, author.seat)?;
        Ok(GovernanceChange::Removed(op.member))
    }

    fn accept(&self, author: &Author<'_>) -> Result<GovernanceChange, VoidReason> {
        self.check_power(Power::Govern, author)?;
        Ok(GovernanceChange::Accepted)
    }

    fn leave(&self, author: &Author<'_>) -> Result<GovernanceChange, VoidReason> {
        self.check_power(Power::Belong, author)?;
        Ok(GovernanceChange::Left(author.seat))
    }

    fn device(
        &mut self,
        name: OpRef,
        op: &DeviceOp,
        author: &Author<'_>,
    ) -> Result<GovernanceChange, VoidReason> {
        // Others could add more than anybody could count.
        if op.member != author.seat {
            return Err(VoidReason::NotAuthorsMember);
        }
        self.check_power(Power::Belong, author)?;
        let counts = self.counts.get(&author.seat);
        if counts.is_some_and(|it| it.devices >= DEVICES_PER_SEAT_MAX) {
            return Err(VoidReason::TooMany);
        }
        if !op.is_signed(self.thread) {
            return Err(VoidReason::DeviceNotSigned);
        }
        self.counts.entry(author.seat).or_default().devices += 1;
        self.devices
            .entry(op.seat)
            .or_default()
            .insert(name, op.kem);
        self.seats.entry(op.seat).or_default();
        Ok(GovernanceChange::DeviceAdded(op.seat))
    }

    pub(super) fn check_power(&self, power: Power, author: &Author<'_>) -> Result<(), VoidReason> {
        let mut grants = self.grants_of_author(author);
        let has = grants.any(|(_, grant)| grant.op.role.has(power));
        has.then_some(()).ok_or(VoidReason::NotPermitted)
    }

    /// The grants in a record's past of the members that its author belongs to.
    fn grants_of_author<'a>(
        &'a self,
        author: &'a Author<'_>,
    ) -> impl Iterator<Item = (OpRef, &'a Grant)> {
        let members = author.members.iter();
        members.flat_map(|member| self.grants_in_past(*member, author.record))
    }

    fn grants_in_past<'a>(
        &'a self,
        member: SeatId,
        record: &'a ControlRecord,
    ) -> impl Iterator<Item = (OpRef, &'a Grant)> {
        self.grants_to(member).filter(|(_, grant)| {
            let is_past = grant.record.is_none_or(|at| is_past(at, record));
            is_past && grant.holds_at(record.stamp)
        })
    }
}

/// What an op may change for members.
fn act_of(op: &FrameOp) -> Option<Act> {
    Some(match op {
        FrameOp::Grant(op) => Act::Grant {
            to: op.seat,
            role: op.role,
            expires: op.expires_millis.map(Stamp::from_millis),
        },
        FrameOp::Remove(op) => Act::Remove { whom: op.member },
        FrameOp::Accept(_) => Act::Accept,
        FrameOp::Leave => Act::Leave,
        FrameOp::Device(op) => Act::Device {
            member: op.member,
            seat: op.seat,
        },
        FrameOp::Open(_) | FrameOp::Epoch(_) | FrameOp::Fork(_) => return None,
    })
}

/// Tells whether what stands at a place is in a record's past; ops of one record see those before them.
fn is_past(at: RecordRef, record: &ControlRecord) -> bool {
    at == record.place || record.past.seq(&at.log) >= at.seq
}

//! Taking in runs: verify, store, admit, open.

use std::collections::BTreeSet;

use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq, Stamp};

use super::log::Log;
use super::{
    Changes, Opened, PARKED_RECORDS_MAX, Parked, Quarantine, SKEW_MILLIS_MAX, Sink, Thread,
    ThreadEvent,
};
use crate::acl::{ControlRecord, GovernanceChange};
use crate::control::{ControlError, decode_frame, decode_roster};
use crate::fork::{Branch, ForkProof};
use crate::frontier::Frontier;
use crate::store::{Overlay, StoreError, Table, View, scan_prefix};
use crate::{
    EpochId, KeyRef, Record, RecordId, RecordRef, Run, Sealer, SeatId, Tip, VerifiedRun,
    VerifyError, keys,
};

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// Records that were not here before.
    pub stored: u64,
    /// Records, of any log, that were admitted.
    pub admitted: u64,
}

/// Why a run is not taken in. The thread is as it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// No opening of this log is known: governance must come first, or there is none.
    #[error("log {log} is not open in this thread")]
    UnknownLog {
        /// The log.
        log: LogId,
    },
    /// Records between are missing.
    #[error("log {log} is known up to {known}, the run begins at {first}")]
    Gap {
        /// The log.
        log: LogId,
        /// The last record here.
        known: Seq,
        /// The first record of the run.
        first: Seq,
    },
    /// The run is bad, or of another branch; its sender or its writer misbehaves.
    #[error("the run of log {log} from {first} is refused")]
    Refused {
        /// The log.
        log: LogId,
        /// The first record of the run.
        first: Seq,
        /// Why.
        #[source]
        source: VerifyError,
    },
    /// The run is of another branch than the one that is here. The proof is in the changes.
    #[error("log {log} is forked at {seq}")]
    Forked {
        /// The log.
        log: LogId,
        /// The first record that differs.
        seq: Seq,
    },
    /// Too many records of this log wait already; the run may come again later.
    #[error("too many records of log {log} wait already")]
    TooManyParked {
        /// The log.
        log: LogId,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What the facts that a record names say of it.
enum Judgement {
    Good(Option<Frontier>),
    Waits(Parked),
    Bad(Quarantine),
}

/// The arguments that every step of admission needs.
pub(super) struct Admission<'a, 'b> {
    pub(super) view: &'a dyn View,
    pub(super) now_millis: u64,
    pub(super) changes: &'a mut Changes,
    pub(super) sink: Sink<'b>,
}

impl Thread {
    /// Takes in a run of a log that begins at `first`.
    ///
    /// What is here already is passed over. What follows is verified, stored, and admitted as far as
    /// the facts that it names are here; other logs that waited for it are admitted too.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; nothing changed, but for evidence in `changes`.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, six unlike things, no state to group"
    )]
    pub fn receive(
        &mut self,
        view: &dyn View,
        log: LogId,
        first: Seq,
        run: Run<'_>,
        now_millis: u64,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<Received, ReceiveError> {
        let mut admission = Admission {
            view,
            now_millis,
            changes,
            sink,
        };
        let entry = self
            .logs
            .get(&log)
            .ok_or(ReceiveError::UnknownLog { log })?;
        let known = entry.tip.seq;
        let last = first.saturating_add(run.count() as u64).saturating_sub(1);
        if first == 0 || first > known + 1 {
            return Err(ReceiveError::Gap { log, known, first });
        }
        if last <= known {
            return Ok(Received::default());
        }
        if last - entry.admitted > PARKED_RECORDS_MAX {
            return Err(ReceiveError::TooManyParked { log });
        }
        let base = if first == known + 1 {
            entry.tip
        } else {
            let overlay = Overlay::new(view, &admission.changes.batch);
            self.tip_before(&overlay, log, entry, first)?
        };
        let refused = |source| ReceiveError::Refused { log, first, source };
        let run = run.verify(self.id, log, &base).map_err(refused)?;
        self.check_branch(&mut admission, log, &run)?;
        self.store_run(&run, admission.changes);
        let mut admitted = 0;
        if let Some(mut entry) = self.logs.remove(&log) {
            entry.advance(*run.head(), *run.tip());
            let result = self.admit_run(&mut admission, log, &mut entry, &run);
            self.logs.insert(log, entry);
            admitted += result?;
        }
        self.save_log(log, admission.changes);
        if admitted > 0 {
            admitted += self.release_with(&mut admission)?;
        }
        Ok(Received {
            stored: last - known,
            admitted,
        })
    }

    /// Lets in what waited and waits no longer: call when time has passed, and after loading.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn release(
        &mut self,
        view: &dyn View,
        now_millis: u64,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<u64, StoreError> {
        self.release_with(&mut Admission {
            view,
            now_millis,
            changes,
            sink,
        })
    }

    /// The earliest time at which a record that is held for its stamp may come in.
    #[must_use]
    pub fn next_release_millis(&self) -> Option<u64> {
        let stamps = self.logs.values().filter_map(|log| match log.parked {
            Some(Parked::Time(stamp)) => Some(stamp),
            _ => None,
        });
        stamps
            .min()
            .map(|stamp| stamp.millis().saturating_sub(SKEW_MILLIS_MAX))
    }

    /// Records that were put aside, with the reason, oldest first within each log.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn quarantined(&self, view: &dyn View) -> Result<Vec<(RecordRef, Quarantine)>, StoreError> {
        let mut found = Vec::new();
        scan_prefix(
            view,
            Table::Parked,
            &keys::thread(self.number),
            &mut |_, row| {
                let mut decoder = Decoder::new(row);
                let mut read = || -> Result<_, leno_crdt_codec::cbor::DecodeError> {
                    decoder.array_of(2)?;
                    Ok((RecordRef::decode(&mut decoder)?, decoder.uint()?))
                };
                if let Ok((record, reason)) = read()
                    && let Some(reason) = Quarantine::from_number(reason)
                {
                    found.push((record, reason));
                }
                std::ops::ControlFlow::Continue(())
            },
        )?;
        Ok(found)
    }

    pub(super) fn store_run(&self, run: &VerifiedRun<'_>, changes: &mut Changes) {
        if let Some(entry) = self.logs.get(&run.head().log) {
            let key = keys::record(self.number, entry.number, run.first().seq + 1);
            changes.batch.put(Table::Runs, key, run.to_row());
        }
    }

    pub(super) fn save_log(&self, log: LogId, changes: &mut Changes) {
        if let Some(entry) = self.logs.get(&log) {
            let key = keys::log(self.number, entry.number);
            changes
                .batch
                .put(Table::Logs, key, entry.encode(log, &self.numbers));
        }
    }

    /// A run that overlaps with what is here must agree with it.
    fn check_branch(
        &self,
        admission: &mut Admission<'_, '_>,
        log: LogId,
        run: &VerifiedRun<'_>,
    ) -> Result<(), ReceiveError> {
        let Some(entry) = self.logs.get(&log) else {
            return Ok(());
        };
        let (known, head) = (entry.tip.seq, entry.head);
        let overlapping = run.records().iter().find(|record| record.seq == known);
        let (Some(theirs), Some(head)) = (overlapping, head) else {
            return Ok(());
        };
        if theirs.id == entry.tip.id {
            return Ok(());
        }
        let first = run.first().seq + 1;
        let overlay = Overlay::new(admission.view, &admission.changes.batch);
        let mut ours = self.headers(&overlay, &log, first, known)?;
        let mut prev = run.first().id;
        let mut theirs = Vec::new();
        for record in run.records() {
            theirs.push(self.header_of(log, prev, record));
            prev = record.id;
        }
        // The proof begins where the branches part.
        while let (Some(a), Some(b)) = (ours.first(), theirs.first())
            && a == b
        {
            ours.remove(0);
            theirs.remove(0);
        }
        let ours = Branch {
            head,
            headers: ours,
        };
        let theirs = Branch {
            head: *run.head(),
            headers: theirs,
        };
        let Ok(proof) = ForkProof::new(ours, theirs) else {
            return Ok(());
        };
        let seq = proof.seq();
        self.keep_fork(proof, admission.changes);
        Err(ReceiveError::Forked { log, seq })
    }

    /// Keeps the evidence of a fork, once per log and place.
    pub(crate) fn keep_fork(&self, proof: ForkProof, changes: &mut Changes) {
        let key = keys::suffixed(self.number, &[&proof.log().0, &proof.seq().to_be_bytes()]);
        changes.batch.put(Table::Evidence, key, proof.encode());
        changes.tell(self.id, ThreadEvent::Forked { log: proof.log() });
        changes.forks.push(proof);
    }

    fn release_with(&mut self, admission: &mut Admission<'_, '_>) -> Result<u64, StoreError> {
        let mut admitted = 0;
        loop {
            let ready: Vec<LogId> = self
                .logs
                .iter()
                .filter(|(_, log)| {
                    log.admitted < log.tip.seq && self.is_ready(log, admission.now_millis)
                })
                .map(|(id, _)| *id)
                .collect();
            let mut progress = 0;
            for id in ready {
                progress += self.resume(admission, id)?;
            }
            if progress == 0 {
                return Ok(admitted);
            }
            admitted += progress;
        }
    }

    fn is_ready(&self, log: &Log, now_millis: u64) -> bool {
        match log.parked {
            None => true,
            Some(Parked::Dep(it) | Parked::Control(it)) => self
                .logs
                .get(&it.log)
                .is_some_and(|named| named.admitted >= it.seq),
            Some(Parked::Time(stamp)) => {
                stamp.millis() <= now_millis.saturating_add(SKEW_MILLIS_MAX)
            }
            Some(Parked::Version) => false,
        }
    }

    /// Admits what rests in the store and was not admitted yet.
    fn resume(&mut self, admission: &mut Admission<'_, '_>, id: LogId) -> Result<u64, StoreError> {
        let mut admitted = 0;
        loop {
            let Some(entry) = self.logs.get(&id) else {
                return Ok(admitted);
            };
            let mut row = None;
            let next = entry.admitted + 1;
            let overlay = Overlay::new(admission.view, &admission.changes.batch);
            self.scan_entry(&overlay, entry, next, &mut |_, bytes| {
                row = Some(bytes.to_vec());
                std::ops::ControlFlow::Break(())
            })?;
            let Some(row) = row.filter(|_| next <= entry.tip.seq) else {
                return Ok(admitted);
            };
            let run = self.derive_row(id, &row)?;
            let mut progress = 0;
            if let Some(mut entry) = self.logs.remove(&id) {
                entry.parked = None;
                let result = self.admit_run(admission, id, &mut entry, &run);
                self.logs.insert(id, entry);
                progress = result?;
            }
            if progress == 0 {
                return Ok(admitted);
            }
            admitted += progress;
            self.save_log(id, admission.changes);
        }
    }

    pub(super) fn admit_run(
        &mut self,
        admission: &mut Admission<'_, '_>,
        id: LogId,
        log: &mut Log,
        run: &VerifiedRun<'_>,
    ) -> Result<u64, StoreError> {
        if log.parked.is_some() {
            return Ok(0);
        }
        let mut admitted = 0;
        // The sealer of the epoch at hand: a log changes its epoch rarely.
        let mut sealer: Option<(EpochId, Sealer)> = None;
        let author = self.author_of(id, log);
        for record in run.records() {
            if record.seq <= log.admitted {
                continue;
            }
            if record.seq != log.admitted + 1 {
                break;
            }
            let context = run.context(record);
            let judgement = match self.judge(admission, log, record)? {
                Judgement::Good(frontier) if log.is_control => {
                    let past = frontier.unwrap_or_else(|| log.frontier.clone());
                    self.take_control(admission, id, log, record, context, past)
                }
                Judgement::Good(frontier) => {
                    match self.take_data(admission, id, log, record, context, author, &mut sealer) {
                        Some(reason) => Judgement::Bad(reason),
                        None => Judgement::Good(frontier),
                    }
                }
                other => other,
            };
            match judgement {
                Judgement::Good(frontier) => {
                    for dep in &record.deps {
                        log.seen.raise(dep.log, dep.seq);
                    }
                    if let Some(frontier) = frontier {
                        log.step(record.seq, frontier);
                    }
                }
                Judgement::Waits(parked) => {
                    log.parked = Some(parked);
                    admission
                        .changes
                        .tell(self.id, ThreadEvent::Waits { log: id, parked });
                    break;
                }
                Judgement::Bad(reason) => {
                    let record = RecordRef {
                        log: id,
                        seq: record.seq,
                        id: record.id,
                    };
                    self.quarantine(record, log.number, reason, admission.changes);
                }
            }
            log.admitted = record.seq;
            log.admitted_stamp = record.stamp;
            self.newest = self.newest.max(record.stamp);
            admitted += 1;
        }
        if admitted > 0 {
            self.admissions += 1;
            let (log, seq) = (id, log.admitted);
            let event = ThreadEvent::Admitted {
                log,
                seq,
                records: admitted,
            };
            admission.changes.tell(self.id, event);
        }
        Ok(admitted)
    }

    fn author_of(&self, id: LogId, log: &Log) -> SeatId {
        if log.is_control {
            return SeatId(id.0);
        }
        self.governance
            .opening(&id)
            .map_or(SeatId(id.0), |opening| opening.seat)
    }

    fn quarantine(
        &self,
        record: RecordRef,
        log_number: u32,
        reason: Quarantine,
        changes: &mut Changes,
    ) {
        let mut encoder = Encoder::new();
        encoder.array(2);
        record.encode(&mut encoder);
        encoder.uint(reason.number());
        let key = keys::record(self.number, log_number, record.seq);
        changes.batch.put(Table::Parked, key, encoder.into_vec());
        changes.tell(self.id, ThreadEvent::Quarantined { record, reason });
    }

    /// Judges a record by the facts that it names. See the rules in `docs/format.md`, "Admission".
    fn judge(
        &self,
        admission: &Admission<'_, '_>,
        log: &Log,
        record: &Record<'_>,
    ) -> Result<Judgement, StoreError> {
        if record.stamp.millis() > admission.now_millis.saturating_add(SKEW_MILLIS_MAX) {
            return Ok(Judgement::Waits(Parked::Time(record.stamp)));
        }
        if log.expires.is_some_and(|expires| record.stamp > expires) {
            return Ok(Judgement::Bad(Quarantine::Expired));
        }
        if record.deps.is_empty() && record.control.is_empty() {
            return Ok(Judgement::Good(None));
        }
        let overlay = Overlay::new(admission.view, &admission.changes.batch);
        let mut frontier = log.frontier.clone();
        for (it, is_control) in record
            .control
            .iter()
            .map(|it| (it, true))
            .chain(record.deps.iter().map(|it| (it, false)))
        {
            let waits = if is_control {
                Parked::Control(*it)
            } else {
                Parked::Dep(*it)
            };
            let Some(named) = self
                .logs
                .get(&it.log)
                .filter(|named| named.admitted >= it.seq)
            else {
                return Ok(Judgement::Waits(waits));
            };
            if named.is_control != is_control {
                return Ok(Judgement::Bad(Quarantine::BadReference));
            }
            match self.place_of(&overlay, it.log, named, it.seq)? {
                Some((id, stamp)) if id == it.id => {
                    if stamp >= record.stamp {
                        return Ok(Judgement::Bad(Quarantine::StampNotAbove));
                    }
                }
                _ => return Ok(Judgement::Bad(Quarantine::BadReference)),
            }
            if is_control {
                frontier.merge(named.frontier_at(it.seq));
                frontier.raise(it.log, it.seq);
            } else if !frontier.covers(named.frontier_at(it.seq)) {
                return Ok(Judgement::Bad(Quarantine::FrontierTooOld));
            }
        }
        Ok(Judgement::Good(Some(frontier)))
    }

    /// Opens a data record's body and hands it on; returns why not, if it is the record's fault.
    #[allow(
        clippy::too_many_arguments,
        reason = "the hot path borrows its parts separately"
    )]
    fn take_data(
        &mut self,
        admission: &mut Admission<'_, '_>,
        id: LogId,
        log: &mut Log,
        record: &Record<'_>,
        context: &[u8],
        seat: SeatId,
        sealer: &mut Option<(EpochId, Sealer)>,
    ) -> Option<Quarantine> {
        let KeyRef::Data { domain, epoch } = record.key else {
            return Some(Quarantine::Malformed);
        };
        if sealer.as_ref().is_none_or(|(of, _)| *of != epoch) {
            if self
                .governance
                .epoch(&epoch)
                .is_none_or(|it| it.domain != domain)
            {
                return Some(Quarantine::NoSuchEpoch);
            }
            *sealer = self
                .sealer(id, Some(epoch))
                .cloned()
                .map(|sealer| (epoch, sealer));
        }
        let Some((_, sealer)) = sealer else {
            log.gap = log.gap.or(Some(record.seq));
            return None;
        };
        if sealer
            .open(context, record.body, &mut self.scratch)
            .is_err()
        {
            return Some(Quarantine::DoesNotOpen);
        }
        (admission.sink)(&Opened {
            record: RecordRef {
                log: id,
                seq: record.seq,
                id: record.id,
            },
            stamp: record.stamp,
            seat,
            domain,
            plaintext: &self.scratch,
        });
        None
    }

    /// Opens a control record's frame, lets it change governance, and keeps it.
    fn take_control(
        &mut self,
        admission: &mut Admission<'_, '_>,
        id: LogId,
        log: &mut Log,
        record: &Record<'_>,
        context: &[u8],
        mut past: Frontier,
    ) -> Judgement {
        let Some(sealer) = self.sealer(id, None).cloned() else {
            return Judgement::Bad(Quarantine::DoesNotOpen);
        };
        let mut frame = Vec::new();
        if sealer.open(context, record.body, &mut frame).is_err() {
            return Judgement::Bad(Quarantine::DoesNotOpen);
        }
        let ops = match decode_frame(&frame) {
            Ok(ops) => ops,
            Err(ControlError::Unknown) => return Judgement::Waits(Parked::Version),
            Err(_) => return Judgement::Bad(Quarantine::Malformed),
        };
        let place = RecordRef {
            log: id,
            seq: record.seq,
            id: record.id,
        };
        past.raise(id, record.seq);
        let control = ControlRecord {
            place,
            stamp: record.stamp,
            past: past.clone(),
            ops,
        };
        let changed = self.apply_control(&control);
        if changed {
            admission
                .changes
                .tell(self.id, ThreadEvent::GovernanceChanged);
        }
        let roster = match (record.roster, record.key) {
            (
                Some(sealed),
                KeyRef::Control {
                    roster: Some(epoch),
                },
            ) => self.open_roster(id, epoch, sealed, context),
            _ => None,
        };
        if roster.is_none() && record.roster.is_some() {
            log.gap = log.gap.or(Some(record.seq));
        }
        if let Some(roster) = &roster
            && self.apply_roster(SeatId(id.0), record.id, roster)
        {
            admission.changes.tell(self.id, ThreadEvent::RosterChanged);
        }
        self.save_control(&control, &frame, roster.as_deref(), admission.changes);
        for log in self.logs_opened_by(&control) {
            self.save_log(log, admission.changes);
        }
        Judgement::Good(Some(past))
    }

    pub(super) fn open_roster(
        &mut self,
        id: LogId,
        epoch: EpochId,
        sealed: &[u8],
        context: &[u8],
    ) -> Option<Vec<u8>> {
        let sealer = self.sealer(id, Some(epoch))?.clone();
        let mut plaintext = Vec::new();
        sealer.open(context, sealed, &mut plaintext).ok()?;
        Some(plaintext)
    }

    /// Lets a roster part speak, as far as its author's role reaches; tells whether it is news.
    pub(super) fn apply_roster(&mut self, author: SeatId, record: RecordId, roster: &[u8]) -> bool {
        use crate::control::{Role, RosterOp};
        let Ok(mut ops) = decode_roster(roster) else {
            return false;
        };
        let role = self.governance.role(author);
        ops.retain(|op| match op {
            RosterOp::Seat { seat, .. } => {
                *seat == author || role.is_some_and(|it| it <= Role::Admin)
            }
            RosterOp::Name(_) => role.is_some_and(|it| it <= Role::Admin),
            RosterOp::Fact { .. } => role.is_some_and(Role::writes),
        });
        self.ops_of_roster(record, &ops)
    }

    /// Lets a control record change governance, and makes room for the logs that it opens.
    pub(super) fn apply_control(&mut self, control: &ControlRecord) -> bool {
        let changes = self.governance.admit(control);
        let mut changed = false;
        for change in changes {
            match change {
                GovernanceChange::Granted(name) => {
                    changed = true;
                    let Some(grant) = self.governance.grant_named(&name) else {
                        continue;
                    };
                    let seat = grant.op.seat.control_log();
                    let tip = Tip::opened_by(control.place.id, control.stamp);
                    let past = control.past.clone();
                    self.add_log(seat, |number| Log::new(number, true, tip, past));
                }
                GovernanceChange::Opened(id) => {
                    changed = true;
                    let Some(opening) = self.governance.opening(&id) else {
                        continue;
                    };
                    let (tip, grant) = (opening.tip, opening.grant);
                    let expires = self.expiry(&grant);
                    let past = control.past.clone();
                    self.add_log(id, |number| {
                        let mut log = Log::new(number, false, tip, past);
                        log.expires = expires;
                        log
                    });
                }
                GovernanceChange::Began(_) => changed = true,
                GovernanceChange::Void(..) => {}
            }
        }
        changed
    }

    pub(super) fn expiry(&self, grant: &crate::OpRef) -> Option<Stamp> {
        let grant = self.governance.grant_named(grant)?;
        grant.op.expires_millis.map(Stamp::from_millis)
    }

    fn logs_opened_by(&self, control: &ControlRecord) -> BTreeSet<LogId> {
        use crate::control::FrameOp;
        let ids = control.ops.iter().filter_map(|op| match op {
            FrameOp::Grant(op) => Some(op.seat.control_log()),
            FrameOp::Open(op) => Some(op.log),
            FrameOp::Epoch(_) => None,
        });
        ids.filter(|id| self.logs.contains_key(id)).collect()
    }
}

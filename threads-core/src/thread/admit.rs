//! Admission: judging verified records by the facts that they name, opening them, and handing them
//! on.

use leno_crdt_codec::cbor::Encoder;
use leno_crdt_codec::{LogId, Seq, bug};

use super::fence::add_fenced;
use super::log::{Log, Origin, encode_frontier};
use super::{Changes, Opened, Parked, Quarantine, Sink, Thread, ThreadEvent};
use crate::acl::{Beyond, ControlRecord, GovernanceChange, Limit, Power};
use crate::control::{ControlError, FrameOp, RosterOp, decode_frame, decode_roster};
use crate::fork::ForkProof;
use crate::frontier::Frontier;
use crate::run::{Derived, Pieces, decode_row};
use crate::store::{Overlay, StoreError, Table, View};
use crate::{
    EpochId, KeyRef, Now, RUN_RECORDS_MAX, Record, RecordRef, Sealer, SeatId, Stamp, Tip,
    VerifyError, keys,
};

/// Records that are derived first when a log goes on: one that was waited for, and the next.
const PIECE_RECORDS: usize = 2;

/// What a record costs besides its body, in bytes.
const RECORD_BYTES: u64 = 256;

/// What the facts that a record names say of it.
enum Judgement {
    Good(Option<Frontier>),
    Waits(Parked),
    /// Put aside, with the control frontier of its chain as far as that is good.
    Bad(Quarantine, Option<Frontier>),
}

/// What is known of a record that another one names.
enum Named<'a> {
    /// It is here, and its log.
    Here(&'a Log),
    /// Its log has two branches at its place.
    OnForkedLog,
    Waits(Parked),
    Bad(Quarantine),
}

/// The arguments that every step of admission needs.
pub(super) struct Admission<'a, 'b> {
    pub(super) view: &'a dyn View,
    pub(super) now: Now,
    pub(super) changes: &'a mut Changes,
    pub(super) sink: Sink<'b>,
    /// Bytes that may still be admitted in this step.
    pub(super) left: u64,
}

impl Thread {
    pub(super) fn save_log(&self, log: LogId, changes: &mut Changes) {
        if let Some(entry) = self.logs.get(&log) {
            let key = keys::log(self.number, entry.number);
            changes
                .batch
                .put(Table::Logs, key, entry.encode(log, &self.numbers));
        }
    }

    /// Admits what is ready, up to a limit: one record may be what a whole log waits for. What is left
    /// goes on at once, in another step.
    pub(super) fn release_with(
        &mut self,
        admission: &mut Admission<'_, '_>,
    ) -> Result<u64, StoreError> {
        admission.left = self.limits.release_bytes;
        self.is_releasing = false;
        let mut admitted = 0;
        loop {
            let ready: Vec<LogId> = self
                .logs
                .iter()
                .filter(|(_, log)| log.admitted < log.tip.seq)
                .take_while(|(_, log)| {
                    !bug!(FirstParkedBlocks) || self.is_ready(log, admission.now)
                })
                .filter(|(_, log)| self.is_ready(log, admission.now))
                .map(|(id, _)| *id)
                .collect();
            let mut progress = 0;
            for id in ready {
                progress += self.resume(admission, id)?;
                if admission.left == 0 {
                    self.is_releasing = true;
                    return Ok(admitted + progress);
                }
            }
            if progress == 0 {
                self.doubt_what_waits(admission.view, admission.changes)?;
                return Ok(admitted);
            }
            admitted += progress;
        }
    }

    fn is_ready(&self, log: &Log, now: Now) -> bool {
        match log.parked {
            None => true,
            Some(Parked::Dep(_) | Parked::Control(_)) if bug!(ParkedLost) => false,
            Some(Parked::Dep(it) | Parked::Control(it)) => {
                let named = self.logs.get(&it.log);
                named.is_some_and(|named| named.admitted >= it.seq)
                    || self.is_forked_at(&it.log, it.seq)
            }
            Some(Parked::Time(stamp)) => now.admits(stamp),
            Some(Parked::Fork(it)) => self.is_forked_at(&it.log, it.seq),
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
            let (tip, run) = decode_row(&row).map_err(|error| damaged(id, &error))?;
            let pieces = run.pieces(&tip, entry.mark);
            let mut pieces = pieces.map_err(|error| damaged(id, &error))?;
            let mut progress = 0;
            if let Some(mut entry) = self.logs.remove(&id) {
                entry.parked = None;
                let result = self.admit_pieces(admission, id, &mut entry, &mut pieces);
                entry.mark = Some(pieces.mark());
                self.logs.insert(id, entry);
                progress = result?;
                self.check_accepted(admission, id)?;
            }
            if progress == 0 {
                return Ok(admitted);
            }
            admitted += progress;
            self.save_log(id, admission.changes);
            if admission.left == 0 {
                return Ok(admitted);
            }
        }
    }

    /// Admits what follows in a row. A piece is twice as long as the one before it, of which all came
    /// in: so no more is derived in vain than was admitted, in a log that waits at each of its records
    /// as in one that never does.
    fn admit_pieces(
        &mut self,
        admission: &mut Admission<'_, '_>,
        id: LogId,
        log: &mut Log,
        pieces: &mut Pieces<'_>,
    ) -> Result<u64, StoreError> {
        let mut admitted = 0;
        let mut length = PIECE_RECORDS;
        loop {
            let known = log.admitted.saturating_sub(pieces.at());
            let known = usize::try_from(known).unwrap_or(RUN_RECORDS_MAX);
            let piece = pieces.peek(self.id, id, known.saturating_add(length));
            let piece = piece.map_err(|error| damaged(id, &error))?;
            self.note_derived(piece.records().len());
            admitted += self.admit_run(admission, id, log, &piece)?;
            pieces.pass(&piece, log.admitted);
            let last = piece.records().last().map(|record| record.seq);
            if last != Some(log.admitted) {
                return Ok(admitted);
            }
            length = (length * 2).min(RUN_RECORDS_MAX);
        }
    }

    pub(super) fn admit_run(
        &mut self,
        admission: &mut Admission<'_, '_>,
        id: LogId,
        log: &mut Log,
        run: &Derived<'_>,
    ) -> Result<u64, StoreError> {
        if log.parked.is_some() {
            return Ok(0);
        }
        let mut admitted = 0;
        // The sealer of the epoch at hand: a log changes its epoch rarely.
        let mut sealer: Option<(EpochId, Sealer)> = None;
        let mut began: Option<(u32, EpochId)> = None;
        let mut limit: Option<Limit> = None;
        // The epoch that was safe for records with this frontier.
        let mut safe: Option<EpochId> = None;
        let author = self.author_of(id, log);
        for record in run.records() {
            if record.seq <= log.admitted {
                continue;
            }
            if record.seq != log.admitted + 1 || admission.left == 0 {
                break;
            }
            let context = run.context(record);
            let judgement = self.judge(admission, log, record)?;
            let names_are_good = matches!(judgement, Judgement::Good(_));
            let judgement = match judgement {
                Judgement::Good(frontier) if log.is_control => {
                    let past = frontier.unwrap_or_else(|| log.frontier.clone());
                    self.take_control(admission, id, log, record, context, past)?
                }
                Judgement::Good(frontier) => {
                    let past = frontier.as_ref().unwrap_or(&log.frontier);
                    let known = match record.key {
                        // Frontiers only grow: what began once has begun.
                        KeyRef::Data { domain, epoch } => {
                            began == Some((domain, epoch))
                                || self.governance.epoch_began(domain, &epoch, past)
                                || self.is_partial(past) && self.is_key_of(domain, &epoch)
                        }
                        KeyRef::Control { .. } => false,
                    };
                    if frontier.is_some() {
                        (limit, safe) = (None, None);
                    }
                    let limit = match limit {
                        Some(limit) => limit,
                        None => {
                            let overlay = Overlay::new(admission.view, &admission.changes.batch);
                            let found = self.limit_of(&overlay, id, log, past)?;
                            limit = Some(found);
                            found
                        }
                    };
                    // Told of what is fenced too: the fence may be lifted.
                    let is_leaky = known && !self.is_safe(record.key, past, &mut safe);
                    if known && record.seq > limit.up_to {
                        self.fence_off(id, log, record, limit.beyond, admission.changes);
                    }
                    if is_leaky {
                        Judgement::Bad(Quarantine::Leaky, frontier)
                    } else if known && record.seq > limit.up_to {
                        Judgement::Good(frontier)
                    } else if known {
                        if let KeyRef::Data { domain, epoch } = record.key {
                            began = Some((domain, epoch));
                        }
                        match self.take_data(
                            admission,
                            id,
                            log,
                            record,
                            context,
                            author,
                            &mut sealer,
                        ) {
                            Some(reason) => Judgement::Bad(reason, frontier),
                            None => Judgement::Good(frontier),
                        }
                    } else {
                        Judgement::Bad(Quarantine::NoSuchEpoch, frontier)
                    }
                }
                other @ (Judgement::Waits(_) | Judgement::Bad(..)) => other,
            };
            // What it has seen is told by what it names, and not by who holds the key to its body.
            if names_are_good && !matches!(judgement, Judgement::Waits(_)) {
                for dep in &record.deps {
                    log.seen.raise(dep.log, dep.seq);
                }
            }
            match judgement {
                Judgement::Good(frontier) => {
                    if let Some(frontier) = frontier {
                        self.note_step(log, record.seq, frontier, admission.changes);
                    }
                }
                Judgement::Waits(parked) => {
                    log.parked = Some(parked);
                    admission
                        .changes
                        .tell(self.id, ThreadEvent::Waits { log: id, parked });
                    break;
                }
                Judgement::Bad(..) if bug!(QuarantineBlocks) => break,
                Judgement::Bad(reason, frontier) => {
                    // It is put aside alone: what it has seen, its successors need not repeat.
                    if let Some(frontier) = frontier {
                        self.note_step(log, record.seq, frontier, admission.changes);
                    }
                    let record = RecordRef {
                        log: id,
                        seq: record.seq,
                        id: record.id,
                    };
                    self.quarantine(record, log.number, reason, admission.changes);
                }
            }
            log.admit(record.seq, record.id, record.stamp);
            let bytes = RECORD_BYTES + record.body.len() as u64;
            admission.left = admission.left.saturating_sub(bytes);
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

    /// Whether nobody holds the key of a record who had lost the right to read by its control frontier.
    pub(super) fn is_safe(&self, key: KeyRef, past: &Frontier, safe: &mut Option<EpochId>) -> bool {
        let KeyRef::Data { domain, epoch } = key else {
            return true;
        };
        if *safe == Some(epoch) {
            return true;
        }
        // Of an epoch that began on a branch that is not here, nothing can be told.
        let is_here = self.governance.epoch_in(domain, &epoch).is_some();
        let is_safe = !is_here || self.governance.is_safe(domain, &epoch, Some(past));
        if is_safe {
            *safe = Some(epoch);
        }
        is_safe
    }

    /// Judges a log again of which records came: what was accepted up to a record counts no more if another
    /// one turns out to be at that place.
    pub(super) fn check_accepted(
        &mut self,
        admission: &mut Admission<'_, '_>,
        id: LogId,
    ) -> Result<(), StoreError> {
        if self.governance.is_unbarred(&id) {
            return Ok(());
        }
        self.rejudge_log(admission.view, id, admission.changes)
    }

    /// Notes that an admitted record does not stand.
    fn fence_off(
        &self,
        id: LogId,
        log: &mut Log,
        record: &Record<'_>,
        beyond: Beyond,
        changes: &mut Changes,
    ) {
        let (seq, reason) = (record.seq, Quarantine::from(beyond));
        add_fenced(&mut log.fenced, seq..=seq, reason);
        let record = RecordRef {
            log: id,
            seq,
            id: record.id,
        };
        changes.tell(self.id, ThreadEvent::Quarantined { record, reason });
    }

    fn author_of(&self, id: LogId, log: &Log) -> SeatId {
        if log.is_control {
            return SeatId(id.0);
        }
        self.governance
            .opening(&id)
            .map_or(SeatId(id.0), |opening| opening.seat)
    }

    pub(super) fn quarantine(
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
        if !admission.now.admits(record.stamp) && !bug!(FutureNotHeld) {
            return Ok(Judgement::Waits(Parked::Time(record.stamp)));
        }
        if log.expires.is_some_and(|expires| record.stamp > expires) {
            return Ok(Judgement::Bad(Quarantine::Expired, None));
        }
        if record.deps.is_empty() && record.control.is_empty() {
            return Ok(Judgement::Good(None));
        }
        let overlay = Overlay::new(admission.view, &admission.changes.batch);
        let mut frontier = log.frontier.clone();
        for it in &record.control {
            if bug!(ControlNotAwaited) {
                frontier.raise(it.log, it.seq);
                continue;
            }
            match self.named(&overlay, *it, true, record.stamp)? {
                Named::Here(named) => {
                    let past = self.frontier_at(&overlay, named, it.seq)?;
                    frontier.merge(&past);
                }
                Named::OnForkedLog => {}
                Named::Waits(parked) => return Ok(Judgement::Waits(parked)),
                Named::Bad(reason) => return Ok(Judgement::Bad(reason, None)),
            }
            frontier.raise(it.log, it.seq);
        }
        for it in &record.deps {
            if bug!(DepNotAwaited) {
                break;
            }
            // Its log must be open where the record stands, by the record's own past: else its
            // author made it up, and there is nothing to wait for.
            if !self.is_open_at(&it.log, &frontier) && !self.is_partial(&frontier) {
                return Ok(Judgement::Bad(Quarantine::BadReference, Some(frontier)));
            }
            match self.named(&overlay, *it, false, record.stamp)? {
                Named::Here(named) => {
                    let past = self.frontier_at(&overlay, named, it.seq)?;
                    if !frontier.covers(&past) && !self.is_partial(&frontier) {
                        return Ok(Judgement::Bad(Quarantine::FrontierTooOld, Some(frontier)));
                    }
                }
                Named::OnForkedLog => {}
                Named::Waits(parked) => return Ok(Judgement::Waits(parked)),
                Named::Bad(reason) => return Ok(Judgement::Bad(reason, Some(frontier))),
            }
        }
        Ok(Judgement::Good(Some(frontier)))
    }

    /// Looks up a record that another one names.
    fn named(
        &self,
        view: &dyn View,
        it: RecordRef,
        is_control: bool,
        stamp: Stamp,
    ) -> Result<Named<'_>, StoreError> {
        // Two peers may hold two branches, so nothing of either is compared, on any peer.
        if self.is_forked_at(&it.log, it.seq) {
            return Ok(Named::OnForkedLog);
        }
        let Some(named) = self
            .logs
            .get(&it.log)
            .filter(|named| named.admitted >= it.seq)
        else {
            return Ok(Named::Waits(if is_control {
                Parked::Control(it)
            } else {
                Parked::Dep(it)
            }));
        };
        if named.is_control != is_control {
            return Ok(Named::Bad(Quarantine::BadReference));
        }
        Ok(match self.place_of(view, it.log, named, it.seq)? {
            Some((id, at)) if id == it.id && at < stamp => Named::Here(named),
            Some((id, _)) if id == it.id => Named::Bad(Quarantine::StampNotAbove),
            // Made up, or of another branch: a proof of the fork tells.
            _ => Named::Waits(Parked::Fork(it)),
        })
    }

    /// Has nothing wait for a record of a branch that is not here, because another branch is, and waits
    /// itself, perhaps for ever: a proof of the fork is waited for instead. Each record that waits is
    /// looked at once.
    pub(super) fn doubt_what_waits(
        &mut self,
        view: &dyn View,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let doubted = self.logs.iter().filter_map(|(id, log)| {
            let Some(Parked::Dep(it) | Parked::Control(it)) = log.parked else {
                return None;
            };
            let named = self.logs.get(&it.log)?;
            let is_stored = (named.admitted + 1..=named.tip.seq).contains(&it.seq);
            (is_stored && log.doubted != Some(it)).then_some((*id, it))
        });
        for (id, it) in doubted.collect::<Vec<_>>() {
            let overlay = Overlay::new(view, &changes.batch);
            let is_other = self.id_at(&overlay, &it.log, it.seq)? != Some(it.id);
            let Some(log) = self.logs.get_mut(&id) else {
                continue;
            };
            log.doubted = Some(it);
            if is_other {
                let parked = Parked::Fork(it);
                log.parked = Some(parked);
                changes.tell(self.id, ThreadEvent::Waits { log: id, parked });
            }
        }
        Ok(())
    }

    /// Tells whether a log was proven to have two branches at a place.
    pub(crate) fn is_forked_at(&self, log: &LogId, seq: Seq) -> bool {
        self.forked.get(log).is_some_and(|from| *from <= seq)
    }

    /// Places at which a record that waits says that a log has two branches, and no proof shows it yet.
    /// There may be a proof for a place above: two peers that talk about the newest records find one where
    /// the branches differ, and they may part before it. Or nobody has another branch, and the record
    /// names what never was.
    pub(crate) fn unproven_forks(&self) -> impl Iterator<Item = (LogId, Seq)> + '_ {
        self.logs.values().filter_map(|log| match log.parked {
            Some(Parked::Fork(it)) => {
                (!self.is_forked_at(&it.log, it.seq)).then_some((it.log, it.seq))
            }
            _ => None,
        })
    }

    /// Tells whether a log was proven to have two branches.
    pub(crate) fn is_forked(&self, log: &LogId) -> bool {
        self.forked.contains_key(log)
    }

    /// Tells whether a control frontier reaches a branch of a forked log. Others may hold the other one,
    /// so what lies behind it is left out, and to miss something in it proves nothing.
    fn is_partial(&self, frontier: &Frontier) -> bool {
        let mut forked = self.forked.iter();
        forked.any(|(log, from)| frontier.seq(log) >= *from)
    }

    /// Tells whether the key of an epoch, if it is held, is of a key domain.
    pub(super) fn is_key_of(&self, domain: u32, epoch: &EpochId) -> bool {
        self.keys.get(epoch).is_none_or(|(of, _)| *of == domain)
    }

    /// Tells whether a data log is open for whoever has seen a control frontier.
    fn is_open_at(&self, log: &LogId, frontier: &Frontier) -> bool {
        self.logs.get(log).is_some_and(|log| {
            if log.tip.seq > 0 {
                return !log.is_control && frontier.covers(&log.opened);
            }
            let mut origins = log.origins().iter();
            origins.any(|it| !it.is_control && frontier.covers(&it.past))
        })
    }

    /// Notes the frontier of a record that was just admitted.
    pub(super) fn note_step(
        &self,
        log: &mut Log,
        seq: Seq,
        frontier: Frontier,
        changes: &mut Changes,
    ) {
        if log.step(seq, frontier) {
            let mut encoder = Encoder::new();
            encode_frontier(&mut encoder, &log.frontier, &self.numbers);
            let key = keys::step(self.number, log.number, seq);
            changes.batch.put(Table::Logs, key, encoder.into_vec());
        }
    }

    /// Opens a data record's body and hands it on; returns why not, if it is the record's fault.
    #[expect(
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
    ) -> Result<Judgement, StoreError> {
        let Some(sealer) = self.sealer(id, None).cloned() else {
            return Ok(Judgement::Bad(Quarantine::DoesNotOpen, Some(past)));
        };
        let mut frame = Vec::new();
        if sealer.open(context, record.body, &mut frame).is_err() {
            return Ok(Judgement::Bad(Quarantine::DoesNotOpen, Some(past)));
        }
        let ops = match decode_frame(&frame) {
            Ok(ops) => ops,
            Err(ControlError::Unknown) => return Ok(Judgement::Waits(Parked::Version)),
            Err(_) => return Ok(Judgement::Bad(Quarantine::Malformed, Some(past))),
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
            && self.apply_roster(control.place, control.stamp, roster)
        {
            admission.changes.tell(self.id, ThreadEvent::RosterChanged);
        }
        self.save_control(&control, &frame, roster.as_deref(), admission.changes);
        for log in self.logs_opened_by(&control) {
            self.save_log(log, admission.changes);
        }
        for op in &control.ops {
            if let FrameOp::Fork(proof) = op
                && let Ok(proof) = ForkProof::decode(proof)
                && proof.thread() == self.id
            {
                if self.own_log() == Some(proof.log()) {
                    self.publish(admission.changes);
                    self.retire_log(admission.changes);
                }
                self.keep_fork(proof, admission.changes);
            }
        }
        self.rejudge(admission.view, admission.changes)?;
        Ok(Judgement::Good(Some(past)))
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

    /// Lets a roster part speak, as far as its record stands; tells whether it is news.
    pub(super) fn apply_roster(&mut self, place: RecordRef, stamp: Stamp, roster: &[u8]) -> bool {
        let Ok(mut ops) = decode_roster(roster) else {
            return false;
        };
        let author = SeatId(place.log.0);
        let record = place.id;
        let governs = self.governance.stands(&record, Power::Govern);
        let writes = self.governance.stands(&record, Power::Write);
        let belongs = self.governance.stands(&record, Power::Belong);
        ops.retain(|op| match op {
            // No grant committed to the founder's identity, so nobody else states it.
            RosterOp::Seat { seat, .. } if *seat == self.genesis.owner => *seat == author,
            RosterOp::Seat { seat, .. } => governs || (*seat == author && belongs),
            RosterOp::Name(_) => governs,
            // Stamps rise, so there is always a higher version left for the next statement.
            RosterOp::Fact { version, .. } => writes && *version <= stamp.0,
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
                    let origin = Origin {
                        is_control: true,
                        tip: Tip::opened_by(control.place.id, control.stamp),
                        past: control.past.clone(),
                        expires: None,
                    };
                    self.add_log(seat, origin);
                }
                GovernanceChange::Opened(id) => {
                    changed = true;
                    let opening = self.governance.opening_by(&id, &control.place.id);
                    let Some((_, opening)) = opening else {
                        continue;
                    };
                    let origin = Origin {
                        is_control: false,
                        tip: opening.tip,
                        past: control.past.clone(),
                        expires: self.expiry(&opening.grant),
                    };
                    self.add_log(id, origin);
                }
                GovernanceChange::DeviceAdded(seat) => {
                    changed = true;
                    let origin = Origin {
                        is_control: true,
                        tip: Tip::opened_by(control.place.id, control.stamp),
                        past: control.past.clone(),
                        expires: None,
                    };
                    self.add_log(seat.control_log(), origin);
                }
                GovernanceChange::Began(_)
                | GovernanceChange::Removed(_)
                | GovernanceChange::Accepted
                | GovernanceChange::Left(_)
                | GovernanceChange::Forked(..) => changed = true,
                GovernanceChange::Void(..) => {}
            }
        }
        changed
    }

    fn expiry(&self, grant: &crate::OpRef) -> Option<Stamp> {
        let grant = self.governance.grant_named(grant)?;
        grant.op.expires_millis.map(Stamp::from_millis)
    }

    fn logs_opened_by(&self, control: &ControlRecord) -> Vec<LogId> {
        let ids = control.ops.iter().filter_map(|op| match op {
            FrameOp::Grant(op) => Some(op.seat.control_log()),
            FrameOp::Open(op) => Some(op.log),
            FrameOp::Device(op) => Some(op.seat.control_log()),
            FrameOp::Epoch(_)
            | FrameOp::Remove(_)
            | FrameOp::Accept(_)
            | FrameOp::Leave
            | FrameOp::Fork(_) => None,
        });
        ids.filter(|id| self.logs.contains_key(id)).collect()
    }
}

fn damaged(log: LogId, error: &VerifyError) -> StoreError {
    StoreError::Corrupt {
        what: format!("a run of log {log}: {error}"),
    }
}

//! Taking in runs: verify them, keep them, and find forks.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq, bug};
use leno_identity::VerifyingKey;
use rand_core::CryptoRng;

#[cfg(doc)]
use super::RELEASE_BYTES_MAX;
use super::admit::Admission;
use super::append::AppendError;
use super::log::{Log, Origin};
use super::{Changes, Parked, Quarantine, SKEW_MILLIS_MAX, Sink, Thread, ThreadEvent};
use crate::control::{FrameOp, SHOWN_PROOF_BYTES_MAX};
use crate::fork::{Branch, ForkProof};
use crate::store::{Overlay, StoreError, Table, View, scan_prefix};
use crate::{Header, Now, RecordRef, Run, VerifiedRun, VerifyError, keys};

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
    /// So much of this log waits for something else that no more is taken in. Nobody's fault: it comes
    /// again once some of it is admitted.
    #[error("too much of log {log} waits already")]
    TooManyParked {
        /// The log.
        log: LogId,
    },
    /// The quota of the thread is used up, see [`Quota`](super::Quota). Nobody's fault: it comes again
    /// once there is more room.
    #[error("the thread's quota has no room for {bytes} more bytes of log {log}")]
    OverQuota {
        /// The log.
        log: LogId,
        /// What the run would have taken.
        bytes: u64,
    },
    /// Records of this peer's own log are written and not signed yet: publish them first.
    #[error("log {log} has records that are not published yet")]
    NotPublished {
        /// The log.
        log: LogId,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl ReceiveError {
    /// The log of the run, unless the store failed.
    #[must_use]
    pub fn log(&self) -> Option<LogId> {
        match self {
            Self::UnknownLog { log }
            | Self::Gap { log, .. }
            | Self::Refused { log, .. }
            | Self::Forked { log, .. }
            | Self::TooManyParked { log }
            | Self::OverQuota { log, .. }
            | Self::NotPublished { log } => Some(*log),
            Self::Store(_) => None,
        }
    }
}

impl Thread {
    /// Takes in a run of a log that begins at `first`.
    ///
    /// What is here already is passed over. What follows is verified, stored, and admitted as far as
    /// the facts that it names are here; other logs that waited for it are admitted too. A run that
    /// goes beyond what this device wrote in its own log shows that the device was restored from a
    /// copy: the run is taken in and the log is given up, see [`Thread::retire_log`].
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; nothing changed, but for evidence in `changes`.
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
    /// use std::ops::ControlFlow;
    ///
    /// # let word = [0x62, b'h', b'i'];
    /// # band.append(&*view, THREAD_DOMAIN, &word, now_millis, &mut rng, &mut changes)?;
    /// # band.publish(&mut changes);
    /// # drop(view);
    /// # futures_executor::block_on(store.commit(changes.batch))?;
    /// # let (here, secret, mut changes) = (MemoryStore::new(), NonceSecret::new(&[8; 32]), Changes::new());
    /// # let (genesis, service) = (band.genesis().encode(), band.service_key().clone());
    /// # let view = here.view()?;
    /// // A replicator, who holds the service key alone, takes in what it cannot read.
    /// let mut copy = Thread::join(0, band.id(), &genesis, service, other, secret, &mut changes)?;
    /// for log in [Some(band.seat().id().control_log()), band.own_log()].into_iter().flatten() {
    ///     let mut rows = Vec::new();
    ///     band.scan_rows(&*store.view()?, &log, 1, &mut |first, row| {
    ///         rows.push((first, row.to_vec()));
    ///         ControlFlow::Continue(())
    ///     })?;
    ///     for (first, row) in rows {
    ///         let (_, run) = decode_row(&row)?;
    ///         let sink = &mut |_: &thread::Opened<'_>| panic!("it holds no key");
    ///         let received = copy.receive(&*view, log, first, run, now_millis, &mut changes, sink)?;
    ///         assert_eq!((received.stored, received.admitted), (1, 1));
    ///         // Once more, and nothing happens.
    ///         let sink = &mut |_: &thread::Opened<'_>| panic!("it holds no key");
    ///         let again = copy.receive(&*view, log, first, run, now_millis, &mut changes, sink)?;
    ///         assert_eq!(again, thread::Received::default());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, six unlike things, no state to group"
    )]
    pub fn receive(
        &mut self,
        view: &dyn View,
        log: LogId,
        first: Seq,
        run: Run<'_>,
        now: impl Into<Now>,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<Received, ReceiveError> {
        let mut admission = Admission {
            view,
            now: now.into(),
            changes,
            sink,
            // A run is short enough.
            left: u64::MAX,
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
        let overlay = Overlay::new(view, &admission.changes.batch);
        let waiting = self.waiting_bytes(&overlay, entry)?;
        let bytes = waiting.saturating_add(run.items().len() as u64);
        if last - entry.admitted > self.limits.parked_records
            || (waiting > 0 && bytes > self.limits.parked_bytes)
        {
            return Err(ReceiveError::TooManyParked { log });
        }
        let is_own = self.own_log() == Some(log);
        let bytes = run.items().len() as u64;
        if !is_own && !self.has_room(entry, bytes) && !bug!(QuotaNotKept) {
            return Err(ReceiveError::OverQuota { log, bytes });
        }
        if is_own && self.has_draft() {
            return Err(ReceiveError::NotPublished { log });
        }
        let refused = |source| ReceiveError::Refused { log, first, source };
        let made_ready = || VerifyingKey::from_bytes(&log.0).ok().map(Box::new);
        let key = entry.key.clone().or_else(made_ready);
        let by = key.as_deref();
        let (run, origin) = if known == 0 {
            let (run, origin) = self.verify_first(log, entry, run, by).map_err(refused)?;
            (run, Some(origin))
        } else {
            let base = if first == known + 1 {
                entry.tip
            } else {
                let overlay = Overlay::new(view, &admission.changes.batch);
                self.tip_before(&overlay, log, entry, first)?
            };
            (
                run.verify_by(self.id, log, &base, by).map_err(refused)?,
                None,
            )
        };
        if !bug!(BranchNotCompared) {
            self.check_branch(&mut admission, log, &run)?;
        }
        // Only what is news is kept, so that rows never overlap however their writer grouped them.
        let items = run.items_after(known).map_err(refused)?;
        let signature = run.head().signature;
        if let Some(origin) = origin {
            self.begin_log(log, &origin);
        }
        if !bug!(RunRowForgotten) {
            self.store_run(log, &items, &signature, admission.changes);
        }
        let mut admitted = 0;
        if let Some(mut entry) = self.logs.remove(&log) {
            entry.waiting = Some((entry.admitted, waiting + items.len() as u64));
            entry.advance(*run.head(), *run.tip(), items.len());
            self.stored_bytes += items.len() as u64;
            entry.key = key;
            let result = self.admit_run(&mut admission, log, &mut entry, run.derived());
            self.logs.insert(log, entry);
            admitted += result?;
            self.check_accepted(&mut admission, log)?;
        }
        if !bug!(LogRowForgotten) {
            self.save_log(log, admission.changes);
        }
        if admitted > 0 {
            admitted += self.release_with(&mut admission)?;
        } else {
            self.doubt_what_waits(view, admission.changes)?;
        }
        if is_own && !bug!(OwnLogKept) {
            self.retire_log(admission.changes);
        }
        Ok(Received {
            stored: last - known,
            admitted,
        })
    }

    /// Bytes of a log's rows that are stored and not admitted. Read again only after some were.
    fn waiting_bytes(&self, view: &dyn View, entry: &Log) -> Result<u64, StoreError> {
        if entry.admitted == entry.tip.seq {
            return Ok(0);
        }
        if let Some((admitted, bytes)) = entry.waiting
            && admitted == entry.admitted
        {
            return Ok(bytes);
        }
        let mut bytes = 0;
        self.scan_entry(view, entry, entry.admitted + 1, &mut |_, row| {
            bytes += row.len() as u64;
            ControlFlow::Continue(())
        })?;
        Ok(bytes)
    }

    /// Lets in what waited and waits no longer: call when time has passed, and after loading.
    ///
    /// At most about [`RELEASE_BYTES_MAX`] at once; the rest is due at once, see
    /// [`Thread::next_release_millis`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn release(
        &mut self,
        view: &dyn View,
        now: impl Into<Now>,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<u64, StoreError> {
        self.release_with(&mut Admission {
            view,
            now: now.into(),
            changes,
            sink,
            left: 0,
        })
    }

    /// The earliest time at which a record that waits may come in: that of its stamp, or 0 if more was
    /// ready than one step lets in.
    #[must_use]
    pub fn next_release_millis(&self) -> Option<u64> {
        if self.is_releasing {
            return Some(0);
        }
        if bug!(TimerForgotten) {
            return None;
        }
        let stamps = self.logs.values().filter_map(|log| match log.parked {
            Some(Parked::Time(stamp)) => Some(stamp),
            _ => None,
        });
        stamps
            .min()
            .map(|stamp| stamp.millis().saturating_sub(SKEW_MILLIS_MAX))
    }

    /// Records that were put aside for good, with the reason, oldest first within each log. Those beyond a
    /// fence are told by [`Thread::fenced`].
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

    /// All records that do not count: those that were [put aside](Self::quarantined), and those beyond a
    /// [fence](Self::fenced), which are read back for it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn put_aside(&self, view: &dyn View) -> Result<Vec<(RecordRef, Quarantine)>, StoreError> {
        let mut found: BTreeMap<_, _> = self
            .quarantined(view)?
            .into_iter()
            .map(|(record, reason)| ((record.log, record.seq), (record, reason)))
            .collect();
        for (id, log) in &self.logs {
            for fenced in &log.fenced {
                self.each_record(view, *id, log, &fenced.seqs, &mut |record| {
                    let (log, seq, id) = (*id, record.seq, record.id);
                    let place = RecordRef { log, seq, id };
                    // What broke a rule did so beyond the fence, too.
                    found.entry((log, seq)).or_insert((place, fenced.reason));
                })?;
            }
        }
        Ok(found.into_values().collect())
    }

    /// Keeps the items of a run that follow what is here of a log.
    pub(super) fn store_run(
        &self,
        log: LogId,
        items: &[u8],
        signature: &[u8; 64],
        changes: &mut Changes,
    ) {
        if let Some(entry) = self.logs.get(&log) {
            let mut encoder = Encoder::append_to(Vec::with_capacity(items.len() + 192));
            encoder.array(3);
            entry.tip.encode(&mut encoder);
            encoder.bytes(items).bytes(signature);
            let key = keys::record(self.number, entry.number, entry.tip.seq + 1);
            changes.batch.put(Table::Runs, key, encoder.into_vec());
        }
    }

    /// Verifies the first run of a log against each record that it may begin at.
    fn verify_first<'a>(
        &self,
        log: LogId,
        entry: &Log,
        run: Run<'a>,
        key: Option<&VerifyingKey>,
    ) -> Result<(VerifiedRun<'a>, Origin), VerifyError> {
        let mut outcome = None;
        for origin in entry.origins() {
            let verified = run.verify_by(self.id, log, &origin.tip, key);
            let verified = verified.and_then(|run| {
                let of_kind = |run: &VerifiedRun<'_>| {
                    let key = run.tip().key;
                    key.is_some_and(|key| key.is_control() == origin.is_control)
                };
                of_kind(&run)
                    .then_some(run)
                    .ok_or(VerifyError::WrongKind { seq: 1 })
            });
            match verified {
                Ok(run) => return Ok((run, origin.clone())),
                Err(error) => outcome = Some(error),
            }
        }
        Err(outcome.unwrap_or(VerifyError::NotSigned { log, seq: 0 }))
    }

    /// Settles where a log begins.
    pub(super) fn begin_log(&mut self, log: LogId, origin: &Origin) {
        if let Some(entry) = self.logs.get_mut(&log) {
            entry.begin_at(origin);
        }
        if !origin.is_control {
            self.governance.settle(log, &origin.tip.id);
        }
    }

    /// A run that overlaps with what is here must agree with it.
    fn check_branch(
        &mut self,
        admission: &mut Admission<'_, '_>,
        log: LogId,
        run: &VerifiedRun<'_>,
    ) -> Result<(), ReceiveError> {
        let Some(entry) = self.logs.get(&log) else {
            return Ok(());
        };
        let known = entry.tip.seq;
        let overlapping = run.records().iter().find(|record| record.seq == known);
        if overlapping.is_none_or(|theirs| theirs.id == entry.tip.id) {
            return Ok(());
        }
        let first = run.first().seq + 1;
        let mut prev = run.first().id;
        let mut headers = Vec::new();
        for record in run.records() {
            headers.push(self.header_of(log, prev, record));
            prev = record.id;
        }
        let theirs = Branch {
            head: *run.head(),
            headers,
        };
        if self.find_fork(admission.view, log, first, theirs, admission.changes)? {
            return Err(ReceiveError::Forked { log, seq: first });
        }
        // Never reached while rows are whole: of two chains one would be a lie of the store.
        let source = VerifyError::NotSigned { log, seq: known };
        Err(ReceiveError::Refused { log, first, source })
    }

    /// The branch of a log that is here, from a record on up to the end of the run that holds it:
    /// what answers a question about it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn branch(
        &self,
        view: &dyn View,
        log: &LogId,
        from: Seq,
    ) -> Result<Option<Branch>, StoreError> {
        let Some(entry) = self.logs.get(log) else {
            return Ok(None);
        };
        if from == 0 || from > entry.tip.seq {
            return Ok(None);
        }
        let Some(row) = self.row_with(view, entry, from)? else {
            return Ok(None);
        };
        let run = self.derive_row(*log, &row)?;
        let mut prev = run.first().id;
        let mut headers: Vec<Header> = Vec::new();
        for record in run.records() {
            if record.seq >= from {
                headers.push(self.header_of(*log, prev, record));
            }
            prev = record.id;
        }
        Ok(Some(Branch {
            head: *run.head(),
            headers,
        }))
    }

    /// Compares a branch that begins at `from` with the one that is here. Keeps the proof if they
    /// part; tells whether they do.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub(crate) fn find_fork(
        &mut self,
        view: &dyn View,
        log: LogId,
        from: Seq,
        theirs: Branch,
        changes: &mut Changes,
    ) -> Result<bool, StoreError> {
        let mut from = from;
        let mut theirs = theirs;
        // Each step compares with one run of this side; the other side's ends within 1,024 records.
        loop {
            let starts_there = theirs.headers.first().map(|it| it.context.seq) == Some(from);
            let overlay = Overlay::new(view, &changes.batch);
            let Some(ours) = self.branch(&overlay, &log, from)?.filter(|_| starts_there) else {
                return Ok(false);
            };
            let pairs = ours.headers.iter().zip(&theirs.headers);
            let same = pairs.take_while(|(a, b)| a == b).count();
            let length = ours.headers.len();
            let tail = |branch: Branch| Branch {
                head: branch.head,
                headers: branch.headers.into_iter().skip(same).collect(),
            };
            theirs = tail(theirs);
            if same < length {
                let Ok(proof) = ForkProof::new(tail(ours), theirs) else {
                    return Ok(false);
                };
                self.keep_fork(proof, changes);
                self.rejudge(view, changes)?;
                return Ok(true);
            }
            from += same as u64;
        }
    }

    /// Keeps the evidence of a fork, once per log.
    pub(super) fn keep_fork(&mut self, proof: ForkProof, changes: &mut Changes) {
        let key = keys::suffixed(self.number, &[&proof.log().0]);
        // One proof says all; of two the one nearer to the common prefix says more.
        let kept = self.forked.get(&proof.log());
        if kept.is_some_and(|kept| *kept <= proof.seq()) {
            return;
        }
        self.note_fork(proof.log(), proof.seq());
        changes.batch.put(Table::Evidence, key, proof.encode());
        changes.tell(self.id, ThreadEvent::Forked { log: proof.log() });
        changes.forks.push(proof);
    }

    /// Shows the forks that were found here and that no control record shows, so that all members judge the
    /// same. Not for a device that may have been restored from a copy: it would fork its own control log.
    ///
    /// A proof longer than [`SHOWN_PROOF_BYTES_MAX`] is kept here and not shown.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; those that are left are shown by a later call.
    pub fn show_forks(
        &mut self,
        view: &dyn View,
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<(), AppendError> {
        if !self.has_unshown_forks() || self.governance.role(self.seat.id()).is_none() {
            return Ok(());
        }
        let now = now.into();
        let overlay = Overlay::new(view, &changes.batch);
        for proof in self.forks(&overlay)? {
            let shown = self.governance.shown_fork(&proof.log());
            let is_shown = shown.is_some_and(|shown| shown <= proof.seq());
            let bytes = proof.encode();
            if !is_shown && bytes.len() <= SHOWN_PROOF_BYTES_MAX {
                self.govern(view, &[FrameOp::Fork(bytes)], &[], now, rng, changes)?;
            }
        }
        Ok(())
    }

    /// Tells whether forks were found here that no control record shows.
    #[must_use]
    pub fn has_unshown_forks(&self) -> bool {
        self.forked.iter().any(|(log, first)| {
            let shown = self.governance.shown_fork(log);
            shown.is_none_or(|shown| shown > *first)
        })
    }

    /// Notes from where on a log has two branches.
    pub(super) fn note_fork(&mut self, log: LogId, from: Seq) {
        self.forked.insert(log, from);
        self.governance.fork(log, from);
    }

    /// The forks that were found, one proof per log.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn forks(&self, view: &dyn View) -> Result<Vec<ForkProof>, StoreError> {
        let mut proofs = Vec::new();
        let prefix = keys::thread(self.number);
        scan_prefix(view, Table::Evidence, &prefix, &mut |_, row| {
            proofs.extend(ForkProof::decode(row).ok());
            ControlFlow::Continue(())
        })?;
        Ok(proofs)
    }
}

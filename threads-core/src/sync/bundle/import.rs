//! Taking in a bundle, part by part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use leno_crdt_codec::cbor::{DecodeError, Decoder};
use leno_crdt_codec::{LogId, Seq};
use rand_core::CryptoRng;

use super::part::{BundleId, BundleKey, Part, key_for, parts, shared_key, tag};
use super::{BundleError, Imported, NotTaken, Vector};
use crate::store::View;
use crate::sync::message::{HaveLog, LogName, Message, SYNC_MESSAGE_BYTES_MAX};
use crate::sync::replica::{Replica, ReplicaSink};
use crate::sync::session::short_hash;
use crate::sync::slot::Slot;
use crate::sync::step::{Step, note_kept};
use crate::thread::{Changes, ReceiveError};
use crate::{Now, Run, SeatId, ThreadId, Wrap};

/// Most bundles that are remembered. Beyond it the one that came first is forgotten, and is to be
/// imported anew if it was not complete.
pub const IMPORTS_MAX: usize = 16;

/// Most bytes of parts of one bundle that wait for an earlier one.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// Most of what was not taken in that an import lists.
pub const REFUSED_MAX: usize = 64;

/// Bundles that are being taken in. In memory only: what is lost with it is to be imported again.
#[derive(Debug, Default)]
pub(in crate::sync) struct Imports {
    open: BTreeMap<BundleId, Import>,
    /// In the order in which they began.
    order: VecDeque<BundleId>,
}

/// A bundle of which parts came.
#[derive(Debug)]
struct Import {
    thread: ThreadId,
    key: BundleKey,
    from: SeatId,
    /// The number of the next part.
    next: u32,
    /// The number of the last part, once it is known.
    last: Option<u32>,
    /// Pieces that wait for an earlier one.
    waiting: BTreeMap<u32, Vec<u8>>,
    waiting_bytes: usize,
    /// What came of a message that is not whole yet.
    stream: Vec<u8>,
    /// Logs of which nothing more is taken from this bundle.
    shunned: BTreeSet<LogId>,
    /// Whether something was not taken in: then the bundle may be imported once more.
    has_refused: bool,
    has: Option<Vector>,
    differing: Vec<LogId>,
}

/// What the parts of one call came to.
#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    admitted: u64,
    refused: Vec<NotTaken>,
}

impl Tally {
    fn refuse(&mut self, what: impl Into<NotTaken>) {
        if self.refused.len() < REFUSED_MAX {
            self.refused.push(what.into());
        }
    }
}

impl Replica {
    /// Takes in parts of a bundle, in any order: what a session would do with the same messages.
    ///
    /// Parts that wait for an earlier one are kept in memory, up to [`WAITING_BYTES_MAX`]. Parts that
    /// came already, and records that are here already, are passed over. Bytes that end inside a part
    /// are no error: what is before is taken in, and [`Imported::is_cut`] says so.
    ///
    /// # Errors
    ///
    /// [`BundleError`]. What came before it is sound and in `changes`: commit it.
    pub fn import(
        &mut self,
        view: &dyn View,
        bytes: &[u8],
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
        sink: ReplicaSink<'_>,
    ) -> Result<Imported, BundleError> {
        let now = now.into();
        let mut tally = Tally::default();
        let mut bundle = None;
        let mut is_cut = false;
        for part in parts(bytes) {
            let part = match Part::decode(part) {
                Err(DecodeError::Truncated { .. }) if bundle.is_some() => {
                    is_cut = true;
                    break;
                }
                part => part?,
            };
            if *bundle.get_or_insert(part.bundle) != part.bundle {
                return Err(BundleError::Mixed);
            }
            let mut import = self.take_part(&part)?;
            let mut step = Step {
                peer: self.local(),
                replica: self,
                view,
                now,
                rng,
                changes,
                sink,
            };
            let outcome = import.advance(part.bundle, &mut step, &mut tally);
            self.imports.put_back(part.bundle, import);
            outcome?;
        }
        // Nothing at all is no bundle either.
        let bundle = bundle.ok_or(DecodeError::Truncated {
            offset: 0,
            needed: 1,
            had: 0,
        })?;
        self.outcome(bundle, tally, is_cut)
    }

    /// Opens a part and puts it in its place; returns its bundle, which is to be put back.
    fn take_part(&mut self, part: &Part<'_>) -> Result<Import, BundleError> {
        let mut import = match self.imports.open.remove(&part.bundle) {
            Some(import) => import,
            None => self.begin_import(part)?,
        };
        match import.take(part) {
            Ok(()) => Ok(import),
            Err(error) => {
                self.imports.put_back(part.bundle, import);
                Err(error)
            }
        }
    }

    /// Finds the thread of a bundle, by its tag, and the bundle's key.
    fn begin_import(&mut self, part: &Part<'_>) -> Result<Import, BundleError> {
        let is_named = |slot: &Slot| tag(slot.service(), &part.bundle) == part.tag;
        let found = self.slots.iter().find(|(_, slot)| is_named(slot));
        let (thread, slot) = found.ok_or(BundleError::NoSuchThread)?;
        let key = match (&part.encapsulated, slot.seat()) {
            (None, _) => Some(shared_key(slot.service(), *thread, &part.bundle)),
            (Some(key), Some(seat)) => key_for(*thread, seat.id(), &seat.kem, &part.bundle, key),
            (Some(_), None) => None,
        };
        let key = key.ok_or(BundleError::DoesNotOpen)?;
        // Nothing is kept of what does not open.
        let (from, _) = part.open(*thread, &key)?;
        Ok(Import::new(*thread, key, from))
    }

    fn outcome(
        &self,
        bundle: BundleId,
        tally: Tally,
        is_cut: bool,
    ) -> Result<Imported, BundleError> {
        let import = self.imports.open.get(&bundle);
        let import = import.ok_or(BundleError::Mixed)?;
        let is_complete = import.is_complete();
        Ok(Imported {
            bundle,
            thread: import.thread,
            from: import.from,
            stored: tally.stored,
            admitted: tally.admitted,
            has: import.has.clone(),
            differing: import.differing.clone(),
            refused: tally.refused,
            missing: (!is_complete).then_some(import.next),
            is_complete,
            is_cut,
        })
    }
}

impl Imports {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn put_back(&mut self, bundle: BundleId, import: Import) {
        if self.open.insert(bundle, import).is_none() && !self.order.contains(&bundle) {
            self.order.push_back(bundle);
        }
        while self.order.len() > IMPORTS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.open.remove(&oldest);
            }
        }
    }
}

impl Import {
    fn new(thread: ThreadId, key: BundleKey, from: SeatId) -> Self {
        Self {
            thread,
            key,
            from,
            next: 0,
            last: None,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            stream: Vec::new(),
            shunned: BTreeSet::new(),
            has_refused: false,
            has: None,
            differing: Vec::new(),
        }
    }

    fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| self.next > last)
    }

    /// Opens a part and keeps its piece, unless it came already.
    fn take(&mut self, part: &Part<'_>) -> Result<(), BundleError> {
        let (from, piece) = part.open(self.thread, &self.key)?;
        if self.is_complete() && self.has_refused && part.number == 0 {
            // What was not taken in may be by now.
            let (last, key) = (self.last, self.key.clone());
            *self = Self::new(self.thread, key, from);
            self.last = last;
        }
        let is_beyond = self.last.is_some_and(|last| part.number > last);
        let is_other_end = part.is_last && self.last.is_some_and(|last| part.number != last);
        if from != self.from || is_beyond || is_other_end {
            return Err(BundleError::Mixed);
        }
        if part.is_last {
            self.last = Some(part.number);
        }
        if part.number < self.next || self.waiting.contains_key(&part.number) {
            return Ok(());
        }
        // The next one waits for nothing.
        if part.number > self.next && self.waiting_bytes + piece.len() > WAITING_BYTES_MAX {
            let missing = self.next;
            return Err(BundleError::TooMuchWaits { missing });
        }
        self.waiting_bytes += piece.len();
        self.waiting.insert(part.number, piece);
        Ok(())
    }

    /// Takes in what is here without a gap.
    fn advance(
        &mut self,
        bundle: BundleId,
        step: &mut Step<'_, '_>,
        tally: &mut Tally,
    ) -> Result<(), BundleError> {
        while let Some(piece) = self.waiting.remove(&self.next) {
            self.waiting_bytes -= piece.len();
            self.next += 1;
            self.stream.extend_from_slice(&piece);
            let stream = std::mem::take(&mut self.stream);
            let mut decoder = Decoder::new(&stream);
            let mut at = 0;
            while decoder.remaining() > 0 {
                match decoder.bytes() {
                    Ok(message) => self.handle(bundle, message, step, tally)?,
                    Err(DecodeError::Truncated { needed, .. })
                        if needed <= SYNC_MESSAGE_BYTES_MAX as u64 && !self.is_complete() =>
                    {
                        break;
                    }
                    Err(error) => return Err(BundleError::BadContent(error.into())),
                }
                at = decoder.offset();
            }
            self.stream = stream.get(at..).unwrap_or_default().to_vec();
        }
        if self.is_complete() {
            step.wrap_due(self.thread);
        }
        Ok(())
    }

    fn handle(
        &mut self,
        bundle: BundleId,
        message: &[u8],
        step: &mut Step<'_, '_>,
        tally: &mut Tally,
    ) -> Result<(), BundleError> {
        let message = Message::decode(message).map_err(BundleError::BadContent)?;
        if let Message::Have { wraps, logs, .. } = &message {
            return self.vector(bundle, *wraps, logs, step);
        }
        if let Message::Genesis { genesis, .. } = message {
            let is_good = step.open_genesis(self.thread, genesis);
            return is_good.then_some(()).ok_or(BundleError::WrongGenesis);
        }
        if let Message::Wraps { wraps, .. } = &message {
            return self.wraps(wraps, step, tally);
        }
        if let Message::Range {
            log: LogName::New(log),
            first,
            runs,
            ..
        } = &message
        {
            return self.range(*log, *first, runs, step, tally);
        }
        let what = "a message that only a session has";
        Err(BundleError::OutOfPlace { what })
    }

    fn range(
        &mut self,
        log: LogId,
        first: Seq,
        runs: &[Run<'_>],
        step: &mut Step<'_, '_>,
        tally: &mut Tally,
    ) -> Result<(), BundleError> {
        if self.shunned.contains(&log) {
            return Ok(());
        }
        let taken = step.take_runs(self.thread, log, first, runs);
        let what = "records before the genesis";
        let taken = taken.ok_or(BundleError::OutOfPlace { what })?;
        tally.stored += taken.stored;
        tally.admitted += taken.admitted;
        if taken.stored > 0 || taken.admitted > 0 {
            step.replica.touched(self.thread);
        }
        step.after_runs(self.thread, log, &taken)?;
        match taken.outcome {
            Ok(()) => Ok(()),
            Err(ReceiveError::Store(error)) => Err(error.into()),
            Err(error) => {
                self.shunned.insert(log);
                self.has_refused = true;
                tally.refuse(error);
                Ok(())
            }
        }
    }

    fn wraps(
        &mut self,
        wraps: &[Wrap],
        step: &mut Step<'_, '_>,
        tally: &mut Tally,
    ) -> Result<(), BundleError> {
        let taken = step.take_wraps(self.thread, self.from, wraps)?;
        let what = "keys before the genesis";
        let taken = taken.ok_or(BundleError::OutOfPlace { what })?;
        if taken.news {
            step.replica.touched(self.thread);
        }
        if let Some(refused) = taken.refused {
            self.has_refused = true;
            tally.refuse(refused);
        }
        Ok(())
    }

    /// Takes in what the maker of the bundle had.
    fn vector(
        &mut self,
        bundle: BundleId,
        wraps: [u8; 8],
        logs: &[HaveLog],
        step: &mut Step<'_, '_>,
    ) -> Result<(), BundleError> {
        self.has = Some(Vector {
            logs: logs.iter().map(|it| (it.log, it.seq)).collect(),
            wraps,
        });
        let Some(thread) = step.replica.thread(&self.thread) else {
            return Ok(());
        };
        // Strangers can name heads that they have not.
        if thread.governance().role(self.from).is_none() {
            return Ok(());
        }
        let (mut kept, mut differing) = (Vec::new(), Vec::new());
        for it in logs {
            let here = thread.log(&it.log).filter(|log| log.tip.seq == it.seq);
            let Some(here) = here else { continue };
            if short_hash(&bundle, &here.tip.id) == it.hash {
                // Whoever knows the hash has the record.
                kept.push((it.log, it.seq));
            } else if !thread.is_forked_at(&it.log, it.seq) {
                differing.push(it.log);
            }
        }
        self.differing = differing;
        note_kept(step.view, step.changes, thread, &kept)?;
        Ok(())
    }
}

//! Runs as segments hold them: rows that prove themselves.

use std::fmt;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq};

use crate::run::decode_row;
use crate::{
    RUN_BYTES_MAX, RUN_RECORDS_MAX, RecordId, Run, SignedHead, ThreadId, Tip, VerifyError,
};

/// Which records a run is. The ids at its ends say which branch, should the log be forked.
// The order is that of bytes in heads: do not derive it anew from other fields.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span {
    /// The log.
    pub log: LogId,
    /// Place of the first record.
    pub first: Seq,
    /// Place of the last record.
    pub last: Seq,
    /// Id of the last record.
    pub id: RecordId,
    /// Id of the record before the first; before the first of a log, of what opened it.
    pub before: RecordId,
}

impl Span {
    /// Writes all but the log.
    pub(super) fn encode(&self, log: usize, encoder: &mut Encoder) {
        encoder.array(5).uint(log as u64);
        encoder.uint(self.first).uint(self.last);
        encoder.bytes(&self.id.0).bytes(&self.before.0);
    }

    pub(super) fn decode(
        decoder: &mut Decoder<'_>,
        log: impl FnOnce(u64) -> Option<LogId>,
    ) -> Result<Self, DecodeError> {
        let offset = decoder.offset();
        decoder.array_of(5)?;
        let out = |what| DecodeError::OutOfBounds { offset, what };
        let log = log(decoder.uint()?).ok_or(out("the number of a log"))?;
        let (first, last) = (decoder.uint()?, decoder.uint()?);
        if first == 0 || last < first || last - first >= RUN_RECORDS_MAX as u64 {
            return Err(out("the places of a run"));
        }
        Ok(Self {
            log,
            first,
            last,
            id: RecordId(*decoder.fixed()?),
            before: RecordId(*decoder.fixed()?),
        })
    }
}

/// A run, verified, with where its log stood before it: whoever holds it needs nothing else to know
/// that the log's writer signed it.
#[derive(Clone, Eq, PartialEq)]
pub struct StoredRun {
    span: Span,
    row: Vec<u8>,
    head: SignedHead,
    /// Of all its records, in order.
    ids: Vec<RecordId>,
}

impl fmt::Debug for StoredRun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StoredRun")
            .field("span", &self.span)
            .field("bytes", &self.row.len())
            .finish_non_exhaustive()
    }
}

impl StoredRun {
    /// Takes a row as a store keeps it ([`crate::VerifiedRun::to_row`]), and verifies it.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn verify(thread: ThreadId, log: LogId, row: Vec<u8>) -> Result<Self, VerifyError> {
        let (tip, run) = decode_row(&row)?;
        let verified = run.verify(thread, log, &tip)?;
        let (before, after) = (*verified.first(), *verified.tip());
        let ids = verified.records().iter().map(|record| record.id).collect();
        let span = Span {
            log,
            first: before.seq + 1,
            last: after.seq,
            id: after.id,
            before: before.id,
        };
        let head = *verified.head();
        Ok(Self {
            span,
            row,
            head,
            ids,
        })
    }

    /// Which records it is.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The row, as a store keeps it; [`decode_row`](crate::decode_row) reads it.
    #[must_use]
    pub fn row(&self) -> &[u8] {
        &self.row
    }

    /// The signed head at its end.
    #[must_use]
    pub fn head(&self) -> &SignedHead {
        &self.head
    }

    /// The id of a record in it.
    #[must_use]
    pub fn id_at(&self, seq: Seq) -> Option<RecordId> {
        let at = usize::try_from(seq.checked_sub(self.span.first)?).ok()?;
        self.ids.get(at).copied()
    }

    /// The records behind a place in it, as a run of their own under the same signature; nothing if
    /// there are none.
    ///
    /// # Panics
    ///
    /// Never: what was verified once can be taken apart.
    #[must_use]
    pub fn behind(&self, seq: Seq) -> Option<Self> {
        if seq >= self.span.last {
            return None;
        }
        if seq < self.span.first {
            return Some(self.clone());
        }
        let cut = || {
            let (tip, run) = decode_row(&self.row)?;
            let verified = run.derive(self.head.thread, self.span.log, &tip)?;
            let skipped = usize::try_from(seq - tip.seq).unwrap_or(usize::MAX);
            let (tip, items) = (verified.tip_at(seq), run.items_behind(skipped)?);
            let row = encode_row(&tip.unwrap_or(*verified.tip()), &items, run.signature());
            Self::verify(self.head.thread, self.span.log, row)
        };
        Some(cut().expect("what was verified once can be taken apart"))
    }

    /// The two as one run under the later one's signature, if `later` follows this one and both fit
    /// one run.
    #[must_use]
    pub fn joined(&self, later: &Self) -> Option<Self> {
        let follows = (later.span.log, later.span.first, later.span.before)
            == (self.span.log, self.span.last + 1, self.span.id);
        let (tip, run) = decode_row(&self.row).ok()?;
        let (_, next) = decode_row(&later.row).ok()?;
        let count = run.count() + next.count();
        let fits = count <= RUN_RECORDS_MAX
            && run.items().len() + next.items().len() + 16 <= RUN_BYTES_MAX;
        if !follows || !fits || self.head.thread != later.head.thread {
            return None;
        }
        let mut encoder = Encoder::new();
        encoder.array(count);
        for run in [run, next] {
            let mut decoder = Decoder::new(run.items());
            decoder.array().ok()?;
            encoder.raw(run.items().get(decoder.offset()..)?);
        }
        let row = encode_row(&tip, encoder.as_slice(), next.signature());
        Self::verify(self.head.thread, self.span.log, row).ok()
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder.array(2).bytes(&self.span.log.0).bytes(&self.row);
    }
}

fn encode_row(tip: &Tip, items: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let mut encoder = Encoder::append_to(Vec::with_capacity(items.len() + 192));
    encoder.array(3);
    tip.encode(&mut encoder);
    if let Ok(run) = Run::from_parts(items, signature) {
        run.encode(&mut encoder);
    }
    encoder.into_vec()
}

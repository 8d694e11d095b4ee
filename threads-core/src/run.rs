//! Runs: consecutive records of one log and the signed head that covers them.
//!
//! A run is how records travel and how they rest. It leaves out what the record before it tells:
//! thread, log, seq, `prev`, digests and unchanged fields. [`Run::verify`] derives them, hashes the
//! chain and checks the one signature at its end; nothing of a run is believed before that.

use std::borrow::Cow;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq, Stamp, bug};
use leno_identity::VerifyingKey;

use crate::header::{ContextParts, begin_header, decode_refs, encode_header, encode_refs};
use crate::{KeyRef, RecordId, RecordRef, SEALED_BYTES_MAX, SealedPart, SignedHead, ThreadId};

/// Most records in a run: a log has a signed head at least this often.
pub const RUN_RECORDS_MAX: usize = 1024;

/// Longest run, in bytes.
pub const RUN_BYTES_MAX: usize = 1 << 20;

/// Longest run that is written here, but for one of a single long record: a row fits one page of a
/// store with pages of up to 64 KiB, such as redb's, with the tip, the signature and the key.
const WRITTEN_BYTES_MAX: usize = (64 << 10) - 64 - 256;

/// Where a log stands: its last record, as far as the next one is coded against it.
///
/// Before the first record it describes what opened the log: seq 0, the opening's id and stamp.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Tip {
    /// Place of the last record; 0 before the first.
    pub seq: Seq,
    /// Its id; before the first record, the id of the record or genesis that opened the log.
    pub id: RecordId,
    /// Its stamp; before the first record, that of the opening.
    pub stamp: Stamp,
    /// What it is sealed under; nothing before the first record.
    pub key: Option<KeyRef>,
}

impl Tip {
    /// Where a log begins.
    #[must_use]
    pub fn opened_by(id: RecordId, stamp: Stamp) -> Self {
        Self {
            seq: 0,
            id,
            stamp,
            key: None,
        }
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.array(if self.key.is_some() { 4 } else { 3 });
        encoder.uint(self.seq).bytes(&self.id.0).uint(self.stamp.0);
        if let Some(key) = &self.key {
            key.encode(encoder);
        }
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = decoder.offset();
        let count = decoder.array_up_to(4)?;
        if count < 3 {
            let what = "the length of a tip";
            return Err(DecodeError::OutOfBounds { offset, what });
        }
        Ok(Self {
            seq: decoder.uint()?,
            id: RecordId(*decoder.fixed()?),
            stamp: Stamp(decoder.uint()?),
            key: (count == 4).then(|| KeyRef::decode(decoder)).transpose()?,
        })
    }
}

/// Why a run is refused. The log is as it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The bytes are no run.
    #[error("the run does not decode")]
    Decode(#[from] DecodeError),
    /// The run is longer than [`RUN_RECORDS_MAX`] or [`RUN_BYTES_MAX`], or empty.
    #[error("a run of {records} records and {bytes} bytes is out of bounds")]
    OutOfBounds {
        /// Records that it claims.
        records: usize,
        /// Its length.
        bytes: usize,
    },
    /// A stamp or a seq goes beyond its last value.
    #[error("record {seq} goes beyond the last stamp or seq")]
    Exhausted {
        /// Place of the record.
        seq: Seq,
    },
    /// A record of the other kind than the log holds.
    #[error("record {seq} is a control record in a data log, or the other way round")]
    WrongKind {
        /// Place of the record.
        seq: Seq,
    },
    /// The chain that the run makes is not what the log's key signed: forged, changed, cut, moved,
    /// re-ordered, or another branch of a forked log.
    #[error("log {log} up to {seq} is not what its key signed")]
    NotSigned {
        /// The log.
        log: LogId,
        /// Place of the last record of the run.
        seq: Seq,
    },
}

/// A run as it came: a view of bytes that nobody vouches for.
///
/// # Shape
///
/// `items, signature: 64 bytes`. An item is a list of 2, 4 or 5 for a data record,
/// `[stamp - stamp before, body]`, then `deps, control` if either is not empty, then the key if it
/// is not that of the record before; and a list of 5 or 6 for a control record,
/// `[stamp - stamp before, frame, deps, control, roster epoch or null]`, then the roster part if
/// there is an epoch.
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
/// // `band` has one record in its owner's control log. This is how it rests, and travels:
/// let (thread, log) = (band.id(), band.seat().id().control_log());
/// # drop(view);
/// # futures_executor::block_on(store.commit(changes.batch))?;
/// # let view = store.view()?;
/// let mut row = Vec::new();
/// band.scan_rows(&*view, &log, 1, &mut |_, bytes| {
///     row = bytes.to_vec();
///     ControlFlow::Break(())
/// })?;
/// let (before, run) = decode_row(&row)?;
/// let verified = run.verify(thread, log, &before)?;
/// assert_eq!(verified.tip().seq, 1);
/// // It is a run of this log in this thread at this place, and of no other.
/// let moved = run.verify(ThreadId([9; 32]), log, &before);
/// assert!(matches!(moved, Err(VerifyError::NotSigned { seq: 1, .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    items: &'a [u8],
    count: usize,
    signature: &'a [u8; 64],
}

impl<'a> Run<'a> {
    /// Reads a run: a list of items, then a signature. The items are checked by [`Run::verify`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`] for bad bytes, or if the run is out of bounds.
    pub fn decode(decoder: &mut Decoder<'a>) -> Result<Self, VerifyError> {
        let items = decoder.bytes()?;
        let signature = decoder.fixed()?;
        Self::from_parts(items, signature)
    }

    /// Puts a run together from its parts.
    ///
    /// # Errors
    ///
    /// As [`Run::decode`].
    pub fn from_parts(items: &'a [u8], signature: &'a [u8; 64]) -> Result<Self, VerifyError> {
        let count = Decoder::new(items).array()?;
        if items.len() > RUN_BYTES_MAX || count == 0 || count > RUN_RECORDS_MAX {
            return Err(VerifyError::OutOfBounds {
                records: count,
                bytes: items.len(),
            });
        }
        Ok(Self {
            items,
            count,
            signature,
        })
    }

    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The encoded items.
    #[must_use]
    pub fn items(&self) -> &'a [u8] {
        self.items
    }

    /// The signature at its end.
    #[must_use]
    pub fn signature(&self) -> &'a [u8; 64] {
        self.signature
    }

    /// The items behind the first `skip` ones, as a run of their own has them.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if an item does not decode.
    pub(crate) fn items_behind(&self, skip: usize) -> Result<Vec<u8>, VerifyError> {
        let mut decoder = Decoder::new(self.items);
        decoder.array()?;
        for _ in 0..skip {
            decoder.skip()?;
        }
        let rest = self.items.get(decoder.offset()..).unwrap_or_default();
        let mut encoder = Encoder::append_to(Vec::with_capacity(rest.len() + 3));
        encoder.array(self.count.saturating_sub(skip)).raw(rest);
        Ok(encoder.into_vec())
    }

    /// Writes the run for the wire.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.bytes(self.items).bytes(self.signature);
    }

    /// Derives the records that follow `tip` in a log and checks that the log's key signed them.
    ///
    /// Memory is bounded by the run: headers of some 200 bytes per record beside the input.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]. Nothing is returned of a run that is not good as a whole.
    pub fn verify(
        self,
        thread: ThreadId,
        log: LogId,
        tip: &Tip,
    ) -> Result<VerifiedRun<'a>, VerifyError> {
        let key = VerifyingKey::from_bytes(&log.0).ok();
        self.verify_by(thread, log, tip, key.as_ref())
    }

    /// As [`Run::verify`], with the log's key made ready before; none if the log's id is no key.
    pub(crate) fn verify_by(
        self,
        thread: ThreadId,
        log: LogId,
        tip: &Tip,
        key: Option<&VerifyingKey>,
    ) -> Result<VerifiedRun<'a>, VerifyError> {
        let run = self.derive(thread, log, tip)?;
        let seq = run.tip.seq;
        let signed = run.head.verify_by(key);
        if signed.is_err() && !bug!(UnsignedAccepted) {
            return Err(VerifyError::NotSigned { log, seq });
        }
        Ok(run)
    }

    /// As [`Run::verify`] for a run that this peer verified before it stored it.
    pub(crate) fn derive(
        self,
        thread: ThreadId,
        log: LogId,
        tip: &Tip,
    ) -> Result<VerifiedRun<'a>, VerifyError> {
        let mut decoder = Decoder::new(self.items);
        let count = decoder.array()?;
        let first = *tip;
        let derived = Derived::read(&mut decoder, count, thread, log, tip)?;
        decoder.finish()?;
        let tip = derived.tip;
        let signature = *self.signature;
        let head = SignedHead {
            thread,
            log,
            seq: tip.seq,
            id: tip.id,
            signature,
        };
        Ok(VerifiedRun {
            run: self,
            first,
            tip,
            head,
            derived,
        })
    }

    /// Begins to derive a run that this peer verified before it stored it, piece by piece, from where
    /// `mark` points if that is in this run.
    pub(crate) fn pieces(self, tip: &Tip, mark: Option<Mark>) -> Result<Pieces<'a>, VerifyError> {
        let mut decoder = Decoder::new(self.items);
        let left = decoder.array()?;
        let items = self.items.get(decoder.offset()..).unwrap_or_default();
        // A mark of another row points before or behind this one.
        let end = tip.seq + left as u64;
        let is_here = |mark: &Mark| mark.base == tip.seq && mark.tip.seq <= end;
        let mark = mark.filter(is_here).unwrap_or(Mark {
            base: tip.seq,
            offset: 0,
            tip: *tip,
        });
        Ok(Pieces { items, end, mark })
    }
}

/// A place in a stored row: what is before it need not be derived again. Packing appends to a row and
/// moves none of its items, so the place stays the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// The record before the row.
    base: Seq,
    /// Bytes of items before the place.
    offset: usize,
    /// Where the log stood there.
    tip: Tip,
}

/// A stored run that is derived piece by piece: a record that has to wait costs no more than itself.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    items: &'a [u8],
    /// The last record of the row.
    end: Seq,
    mark: Mark,
}

impl<'a> Pieces<'a> {
    /// The place up to which records were passed.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// The last record that was passed.
    pub(crate) fn at(&self) -> Seq {
        self.mark.tip.seq
    }

    /// Derives the next records, at most so many, none at the end.
    pub(crate) fn peek(
        &self,
        thread: ThreadId,
        log: LogId,
        count: usize,
    ) -> Result<Derived<'a>, VerifyError> {
        let rest = self.items.get(self.mark.offset..).unwrap_or_default();
        let left = usize::try_from(self.end - self.mark.tip.seq).unwrap_or(usize::MAX);
        let mut decoder = Decoder::new(rest);
        Derived::read(&mut decoder, count.min(left), thread, log, &self.mark.tip)
    }

    /// Passes derived records up to one of them.
    pub(crate) fn pass(&mut self, derived: &Derived<'_>, seq: Seq) {
        let Some(record) = derived.records.iter().find(|record| record.seq == seq) else {
            return;
        };
        self.mark.offset += record.end;
        self.mark.tip = record.tip();
    }
}

/// Records that follow each other in a log, and their encoded headers.
#[derive(Clone, Debug)]
pub(crate) struct Derived<'a> {
    records: Vec<Record<'a>>,
    headers: Vec<u8>,
    tip: Tip,
}

impl<'a> Derived<'a> {
    fn read(
        decoder: &mut Decoder<'a>,
        count: usize,
        thread: ThreadId,
        log: LogId,
        tip: &Tip,
    ) -> Result<Self, VerifyError> {
        let mut headers = Encoder::append_to(Vec::with_capacity(count * 216));
        let mut records = Vec::with_capacity(count);
        let mut tip = *tip;
        for _ in 0..count {
            let record = next_record(decoder, &mut headers, thread, log, &tip)?;
            tip = record.tip();
            records.push(record);
        }
        Ok(Self {
            records,
            headers: headers.into_vec(),
            tip,
        })
    }

    /// The records, in the order of the log.
    pub(crate) fn records(&self) -> &[Record<'a>] {
        &self.records
    }

    /// The encoded seal context of one of these records.
    pub(crate) fn context(&self, record: &Record<'_>) -> &[u8] {
        self.headers.get(record.context.clone()).unwrap_or_default()
    }
}

fn next_record<'a>(
    decoder: &mut Decoder<'a>,
    headers: &mut Encoder,
    thread: ThreadId,
    log: LogId,
    tip: &Tip,
) -> Result<Record<'a>, VerifyError> {
    let offset = decoder.offset();
    let count = decoder.array_up_to(6)?;
    let seq = tip.seq + 1;
    let delta = decoder.uint()?;
    let stamp = tip
        .stamp
        .0
        .checked_add(delta)
        .filter(|_| delta > 0 && seq < Seq::MAX - 1);
    let stamp = Stamp(stamp.ok_or(VerifyError::Exhausted { seq })?);
    let body = sealed(decoder)?;
    let (mut deps, mut control) = (Vec::new(), Vec::new());
    if count >= 4 {
        deps = decode_refs(decoder, log)?;
        control = decode_refs(decoder, log)?;
    }
    let key = if count >= 5 {
        Some(KeyRef::decode(decoder)?)
    } else {
        tip.key
    };
    let key = key.ok_or(DecodeError::OutOfBounds {
        offset,
        what: "the first item of a log",
    })?;
    let has_roster = matches!(key, KeyRef::Control { roster: Some(_) });
    // One encoding per record: the shortest form that says it.
    let fits = match (count, key.is_control()) {
        (2, false) => true,
        (4, false) => !deps.is_empty() || !control.is_empty(),
        (5, false) => tip.key != Some(key),
        (5, true) => !has_roster,
        (6, true) => has_roster,
        _ => false,
    };
    if !fits {
        return Err(DecodeError::OutOfBounds {
            offset,
            what: "the length of an item",
        }
        .into());
    }
    if tip
        .key
        .is_some_and(|before| before.is_control() != key.is_control())
    {
        return Err(VerifyError::WrongKind { seq });
    }
    let roster = has_roster.then(|| sealed(decoder)).transpose()?;
    let context = ContextParts {
        thread,
        log,
        seq,
        prev: tip.id,
        deps: &deps,
        control: &control,
        stamp,
        key: &key,
    };
    let start = headers.len();
    let part = SealedPart::of(body);
    let context = encode_header(
        headers,
        &context,
        &part,
        roster.map(SealedPart::of).as_ref(),
    );
    let id = RecordId::of(headers.as_slice().get(start..).unwrap_or_default());
    Ok(Record {
        seq,
        id,
        stamp,
        key,
        deps,
        control,
        body,
        roster,
        context,
        end: decoder.offset(),
    })
}

fn sealed<'a>(decoder: &mut Decoder<'a>) -> Result<&'a [u8], DecodeError> {
    let offset = decoder.offset();
    let sealed = decoder.bytes()?;
    if sealed.len() > SEALED_BYTES_MAX {
        return Err(DecodeError::OutOfBounds {
            offset,
            what: "the length of a body",
        });
    }
    Ok(sealed)
}

/// A record of a [`VerifiedRun`]: its header's fields and its sealed parts.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Place in the log.
    pub seq: Seq,
    /// Its id.
    pub id: RecordId,
    /// Place in time.
    pub stamp: Stamp,
    /// What it is sealed under.
    pub key: KeyRef,
    /// Heads of data logs that became visible since the record before.
    pub deps: Vec<RecordRef>,
    /// Control records that became visible since the record before.
    pub control: Vec<RecordRef>,
    /// The sealed body, or the sealed frame of a control record.
    pub body: &'a [u8],
    /// The sealed roster part of a control record.
    pub roster: Option<&'a [u8]>,
    context: std::ops::Range<usize>,
    /// Where its item ends.
    end: usize,
}

impl Record<'_> {
    /// Where the log stands after it.
    fn tip(&self) -> Tip {
        Tip {
            seq: self.seq,
            id: self.id,
            stamp: self.stamp,
            key: Some(self.key),
        }
    }
}

/// A run whose every record is covered by the log's signature.
#[derive(Clone, Debug)]
pub struct VerifiedRun<'a> {
    run: Run<'a>,
    first: Tip,
    tip: Tip,
    head: SignedHead,
    derived: Derived<'a>,
}

impl<'a> VerifiedRun<'a> {
    /// The records, in the order of the log.
    #[must_use]
    pub fn records(&self) -> &[Record<'a>] {
        self.derived.records()
    }

    pub(crate) fn derived(&self) -> &Derived<'a> {
        &self.derived
    }

    /// Where the log stood before the run.
    #[must_use]
    pub fn first(&self) -> &Tip {
        &self.first
    }

    /// Where the log stands after the run.
    #[must_use]
    pub fn tip(&self) -> &Tip {
        &self.tip
    }

    /// Where the log stands after one of the records.
    pub(crate) fn tip_at(&self, seq: Seq) -> Option<Tip> {
        let record = self.records().iter().find(|record| record.seq == seq);
        record.map(Record::tip)
    }

    /// The signed head at the end of the run.
    #[must_use]
    pub fn head(&self) -> &SignedHead {
        &self.head
    }

    /// The run as it came.
    #[must_use]
    pub fn as_run(&self) -> Run<'a> {
        self.run
    }

    /// The encoded items of the records after `seq`. An item is coded against the record before it,
    /// so they are a run of their own under the same signature.
    pub(crate) fn items_after(&self, seq: Seq) -> Result<Cow<'a, [u8]>, VerifyError> {
        let skipped = seq.saturating_sub(self.first.seq);
        if skipped == 0 {
            return Ok(Cow::Borrowed(self.run.items));
        }
        let mut decoder = Decoder::new(self.run.items);
        let count = decoder.array()?;
        let mut left = count;
        for _ in 0..skipped {
            decoder.skip()?;
            left = left.saturating_sub(1);
        }
        let rest = self.run.items.get(decoder.offset()..).unwrap_or_default();
        let mut encoder = Encoder::append_to(Vec::with_capacity(rest.len() + 3));
        encoder.array(left).raw(rest);
        Ok(Cow::Owned(encoder.into_vec()))
    }

    /// The encoded seal context of one of this run's records: the associated data of its parts.
    #[must_use]
    pub fn context(&self, record: &Record<'_>) -> &[u8] {
        self.derived.context(record)
    }

    /// The row that keeps this run in a store: where the log stood, the items, the signature.
    #[must_use]
    pub fn to_row(&self) -> Vec<u8> {
        let mut encoder = Encoder::append_to(Vec::with_capacity(self.run.items.len() + 192));
        encoder.array(3);
        self.first.encode(&mut encoder);
        self.run.encode(&mut encoder);
        encoder.into_vec()
    }
}

/// Reads a row written by [`VerifiedRun::to_row`]: where the log stood, and the run.
///
/// # Errors
///
/// [`VerifyError`] if the row does not read as written.
pub fn decode_row(row: &[u8]) -> Result<(Tip, Run<'_>), VerifyError> {
    let mut decoder = Decoder::new(row);
    decoder.array_of(3)?;
    let tip = Tip::decode(&mut decoder)?;
    let run = Run::decode(&mut decoder)?;
    decoder.finish()?;
    Ok((tip, run))
}

/// Builds the items of a run while a log is written.
#[derive(Debug)]
pub(crate) struct RunBuilder {
    thread: ThreadId,
    log: LogId,
    first: Tip,
    tip: Tip,
    count: usize,
    items: Encoder,
    header: Encoder,
    body: Vec<u8>,
}

/// A record to be appended: where it stands and what it was sealed under, then its sealed parts.
#[derive(Debug)]
pub(crate) struct NewRecord {
    pub(crate) deps: Vec<RecordRef>,
    pub(crate) control: Vec<RecordRef>,
    pub(crate) stamp: Stamp,
    pub(crate) key: KeyRef,
}

impl RunBuilder {
    pub(crate) fn new(thread: ThreadId, log: LogId, tip: Tip) -> Self {
        let (items, header, body) = (Encoder::new(), Encoder::new(), Vec::new());
        Self {
            thread,
            log,
            first: tip,
            tip,
            count: 0,
            items,
            header,
            body,
        }
    }

    pub(crate) fn tip(&self) -> &Tip {
        &self.tip
    }

    pub(crate) fn is_full(&self, next: usize) -> bool {
        let bytes = self.items.len() + next + 16;
        self.count >= RUN_RECORDS_MAX || (self.count > 0 && bytes > WRITTEN_BYTES_MAX)
    }

    /// Appends a record; `seal` gets the encoded seal context, writes the body behind it, and returns
    /// the roster part, if the record's key says that there is one.
    pub(crate) fn push(
        &mut self,
        new: &NewRecord,
        seal: impl FnOnce(&[u8], &mut Vec<u8>) -> Option<Vec<u8>>,
    ) {
        let context = ContextParts {
            thread: self.thread,
            log: self.log,
            seq: self.tip.seq + 1,
            prev: self.tip.id,
            deps: &new.deps,
            control: &new.control,
            stamp: new.stamp,
            key: &new.key,
        };
        let has_roster = matches!(new.key, KeyRef::Control { roster: Some(_) });
        self.header.clear();
        let context = begin_header(&mut self.header, &context, has_roster);
        self.body.clear();
        let context = self.header.as_slice().get(context).unwrap_or_default();
        let roster = seal(context, &mut self.body);
        assert_eq!(
            has_roster,
            roster.is_some(),
            "a key of a roster part seals one"
        );
        SealedPart::of(&self.body).encode(&mut self.header);
        if let Some(roster) = &roster {
            SealedPart::of(roster).encode(&mut self.header);
        }

        let delta = new.stamp.0 - self.tip.stamp.0;
        let is_control = new.key.is_control();
        let key_changes = self.tip.key != Some(new.key);
        let has_refs = !new.deps.is_empty() || !new.control.is_empty();
        let count = match (is_control, has_roster) {
            (true, true) => 6,
            (true, false) => 5,
            (false, _) if key_changes => 5,
            (false, _) if has_refs => 4,
            (false, _) => 2,
        };
        self.items.array(count).uint(delta).bytes(&self.body);
        if count >= 4 {
            encode_refs(&mut self.items, &new.deps);
            encode_refs(&mut self.items, &new.control);
        }
        if count >= 5 {
            new.key.encode(&mut self.items);
        }
        if let Some(roster) = &roster {
            self.items.bytes(roster);
        }
        self.count += 1;
        self.tip = Tip {
            seq: self.tip.seq + 1,
            id: RecordId::of(self.header.as_slice()),
            stamp: new.stamp,
            key: Some(new.key),
        };
    }

    /// The encoded items, where the log stood before them and where it stands now.
    pub(crate) fn finish(self) -> (Vec<u8>, Tip, Tip) {
        let mut encoder = Encoder::append_to(Vec::with_capacity(self.items.len() + 3));
        encoder.array(self.count).raw(self.items.as_slice());
        (encoder.into_vec(), self.first, self.tip)
    }
}

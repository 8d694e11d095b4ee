//! What a segment holds, sealed and opened.

use std::collections::BTreeSet;

use leno_crdt_codec::LogId;
use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use rand_core::CryptoRng;

use super::{SegmentError, SharedThread, Span, StoredRun};
use crate::store::{SEGMENT_BYTES_MAX, SegmentId, check_segment};
use crate::{NonceSecret, OnceKind, SEALED_ONCE_BYTES, Suite, Wrap, open_once, seal_once};

/// Longest segment before it is sealed, in bytes.
pub const SEGMENT_PLAIN_BYTES_MAX: usize = SEGMENT_BYTES_MAX - SEALED_ONCE_BYTES;

/// Most runs in a segment.
pub const SEGMENT_RUNS_MAX: usize = 16_384;

/// Most key wraps in a segment.
pub const SEGMENT_WRAPS_MAX: usize = 16_384;

const VERSION: u64 = 1;

/// Runs of records of a thread, and key wraps, that are put together.
///
/// # Shape
///
/// Sealed ([`seal_once`], kind `segment`) strict dag-cbor:
/// `[1, thread, [[log, row], ..], [wrap, ..]]`, runs ascending by their [`Span`], wraps by their
/// bytes, each once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Segment {
    runs: Vec<StoredRun>,
    /// Encoded.
    wraps: BTreeSet<Vec<u8>>,
}

impl Segment {
    /// Puts a segment together; what is there twice counts once.
    #[must_use]
    pub fn new(
        runs: impl IntoIterator<Item = StoredRun>,
        wraps: impl IntoIterator<Item = Wrap>,
    ) -> Self {
        let mut runs: Vec<StoredRun> = runs.into_iter().collect();
        runs.sort_by_key(|run| *run.span());
        runs.dedup_by_key(|run| *run.span());
        let wraps = wraps.into_iter().map(|wrap| {
            let mut encoder = Encoder::new();
            wrap.encode(&mut encoder);
            encoder.into_vec()
        });
        Self {
            runs,
            wraps: wraps.collect(),
        }
    }

    /// The runs, ascending by their [`Span`].
    #[must_use]
    pub fn runs(&self) -> &[StoredRun] {
        &self.runs
    }

    /// The key wraps.
    pub fn wraps(&self) -> impl Iterator<Item = Wrap> {
        let decode = |bytes: &Vec<u8>| Wrap::decode(&mut Decoder::new(bytes)).ok();
        self.wraps.iter().filter_map(decode)
    }

    /// Tells whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.wraps.is_empty()
    }

    /// Which records it holds.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.runs.iter().map(|run| *run.span())
    }

    /// How many wraps it holds.
    #[must_use]
    pub fn wraps_count(&self) -> usize {
        self.wraps.len()
    }

    /// Bytes of one more run or wrap, at most, beside its own.
    pub const ITEM_BYTES: usize = 64;

    /// Bytes of its parts, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let runs = self.runs.iter().map(|run| run.row().len());
        let wraps = self.wraps.iter().map(Vec::len);
        let items = runs.chain(wraps).map(|bytes| bytes + Self::ITEM_BYTES);
        items.sum::<usize>() + Self::ITEM_BYTES
    }

    /// Seals the segment, and names it. Each sealing is another segment.
    ///
    /// # Errors
    ///
    /// [`SegmentError::TooLong`] beyond [`SEGMENT_PLAIN_BYTES_MAX`], [`SEGMENT_RUNS_MAX`] or
    /// [`SEGMENT_WRAPS_MAX`].
    pub fn seal(
        &self,
        thread: &SharedThread,
        suite: Suite,
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(SegmentId, Vec<u8>), SegmentError> {
        let mut encoder = Encoder::with_capacity(self.bytes());
        encoder.array(4).uint(VERSION);
        thread.id().encode(&mut encoder);
        encoder.array(self.runs.len());
        self.runs.iter().for_each(|run| run.encode(&mut encoder));
        encoder.array(self.wraps.len());
        for wrap in &self.wraps {
            encoder.raw(wrap);
        }
        let plain = encoder.into_vec();
        let lengths = [
            ("a segment", plain.len(), SEGMENT_PLAIN_BYTES_MAX),
            ("a list of runs", self.runs.len(), SEGMENT_RUNS_MAX),
            ("a list of wraps", self.wraps.len(), SEGMENT_WRAPS_MAX),
        ];
        for (what, bytes, bytes_max) in lengths {
            if bytes > bytes_max {
                return Err(SegmentError::TooLong {
                    what,
                    bytes,
                    bytes_max,
                });
            }
        }
        let (key, kind) = (thread.service(), OnceKind::Segment);
        let sealed = seal_once(suite, key, thread.id(), kind, &plain, secret, rng);
        Ok((SegmentId::of(&sealed), sealed))
    }

    /// Opens what a store gave for a name: compares the name, the seal, and the signature of every
    /// run. The chain of each log, from run to run, is who admits records' to judge.
    ///
    /// # Errors
    ///
    /// [`SegmentError`].
    pub fn open(
        thread: &SharedThread,
        id: &SegmentId,
        sealed: &[u8],
    ) -> Result<Self, SegmentError> {
        check_segment(id, sealed)?;
        let kind = OnceKind::Segment;
        let (_, plain) = open_once(thread.service(), thread.id(), kind, sealed)?;
        let mut decoder = Decoder::new(&plain);
        decoder.array_of(4)?;
        check_version(&mut decoder)?;
        if crate::ThreadId::decode(&mut decoder)? != thread.id() {
            return Err(SegmentError::OfAnotherThread);
        }
        let mut segment = Self::default();
        for _ in 0..decoder.array_up_to(SEGMENT_RUNS_MAX)? {
            segment.decode_run(thread, &mut decoder)?;
        }
        for _ in 0..decoder.array_up_to(SEGMENT_WRAPS_MAX)? {
            segment.decode_wrap(&mut decoder)?;
        }
        decoder.finish()?;
        Ok(segment)
    }

    fn decode_run(
        &mut self,
        thread: &SharedThread,
        decoder: &mut Decoder<'_>,
    ) -> Result<(), SegmentError> {
        let offset = decoder.offset();
        decoder.array_of(2)?;
        let log = LogId(*decoder.fixed()?);
        let row = decoder.bytes()?.to_vec();
        let run = StoredRun::verify(thread.id(), log, row)
            .map_err(|source| SegmentError::Run { log, source })?;
        if self.runs.last().is_some_and(|it| it.span() >= run.span()) {
            return Err(out_of_order(offset).into());
        }
        self.runs.push(run);
        Ok(())
    }

    fn decode_wrap(&mut self, decoder: &mut Decoder<'_>) -> Result<(), SegmentError> {
        let offset = decoder.offset();
        Wrap::decode(decoder)?;
        let wrap = decoder.since(offset).to_vec();
        if self.wraps.last().is_some_and(|last| *last >= wrap) {
            return Err(out_of_order(offset).into());
        }
        self.wraps.insert(wrap);
        Ok(())
    }
}

pub(super) fn check_version(decoder: &mut Decoder<'_>) -> Result<(), DecodeError> {
    let offset = decoder.offset();
    if decoder.uint()? == VERSION {
        return Ok(());
    }
    let what = "the version";
    Err(DecodeError::OutOfBounds { offset, what })
}

pub(super) fn out_of_order(offset: usize) -> DecodeError {
    DecodeError::OutOfBounds {
        offset,
        what: "the order of a list",
    }
}

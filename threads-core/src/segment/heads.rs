//! The heads of a thread: which segments count, what they hold, and how far each log goes.

use std::collections::{BTreeMap, BTreeSet};

use leno_crdt_codec::LogId;
use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use rand_core::CryptoRng;

use super::body::{check_version, out_of_order};
use super::{Segment, SegmentError, SharedThread, Span, StoredRun};
use crate::store::{HEADS_BYTES_MAX, SEGMENT_BYTES_MAX, SegmentId, check_heads};
use crate::{Genesis, NonceSecret, OnceKind, SEALED_ONCE_BYTES, SignedHead, open_once, seal_once};

const VERSION: u64 = 1;

/// What heads say of a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmentEntry {
    /// Its length, sealed, in bytes.
    pub bytes: u64,
    /// How many key wraps it holds.
    pub wraps: u64,
    /// Which records it holds, ascending.
    pub spans: Vec<Span>,
}

/// The heads of a thread on a shared store.
///
/// # Shape
///
/// Sealed ([`seal_once`], kind `heads`) strict dag-cbor:
/// `[1, genesis, collections, [[log, signature], ..], [[segment, bytes, wraps, [span, ..]], ..]]`,
/// logs, segments and spans ascending. A span is
/// `[number of the log in the list, first, last, id, id before]`. The signature is that of the head
/// at the end of the log's newest span: the one with the highest `last`, of several the lowest id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedHeads {
    genesis: Genesis,
    collections: u64,
    heads: BTreeMap<LogId, SignedHead>,
    segments: BTreeMap<SegmentId, SegmentEntry>,
    /// What the segments hold, by log.
    spans: BTreeMap<LogId, BTreeSet<(Span, SegmentId)>>,
}

impl SharedHeads {
    /// The heads of a thread of which nothing is stored yet.
    #[must_use]
    pub fn new(genesis: Genesis) -> Self {
        Self {
            genesis,
            collections: 0,
            heads: BTreeMap::new(),
            segments: BTreeMap::new(),
            spans: BTreeMap::new(),
        }
    }

    /// What began the thread.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// How often segments that nobody names were collected.
    #[must_use]
    pub fn collections(&self) -> u64 {
        self.collections
    }

    /// The newest signed head of each log that is stored.
    pub fn heads(&self) -> impl Iterator<Item = &SignedHead> {
        self.heads.values()
    }

    /// The newest signed head of a log, if anything of it is stored.
    #[must_use]
    pub fn head(&self, log: &LogId) -> Option<&SignedHead> {
        self.heads.get(log)
    }

    /// The segments that count.
    pub fn segments(&self) -> impl Iterator<Item = (&SegmentId, &SegmentEntry)> {
        self.segments.iter()
    }

    /// What is said of a segment, if it counts.
    #[must_use]
    pub fn segment(&self, id: &SegmentId) -> Option<&SegmentEntry> {
        self.segments.get(id)
    }

    /// Bytes of all segments that count.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = self.segments.values().map(|entry| entry.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Has a segment count, of so many bytes when sealed.
    pub fn add(&mut self, id: SegmentId, bytes: u64, segment: &Segment) {
        let entry = SegmentEntry {
            bytes,
            wraps: segment.wraps_count() as u64,
            spans: segment.spans().collect(),
        };
        for run in segment.runs() {
            let newer = self
                .heads
                .get(&run.span().log)
                .is_none_or(|known| is_newer(run.head(), known));
            if newer {
                self.heads.insert(run.span().log, *run.head());
            }
        }
        self.index(id, &entry);
        self.segments.insert(id, entry);
    }

    /// Has one segment count in place of others, which hold no more than it does.
    ///
    /// # Panics
    ///
    /// If records would be lost.
    pub fn replace(&mut self, old: &[SegmentId], id: SegmentId, bytes: u64, segment: &Segment) {
        let newest: Vec<SignedHead> = self.heads.values().copied().collect();
        for id in old {
            self.segments.remove(id);
        }
        for spans in self.spans.values_mut() {
            spans.retain(|(_, id)| !old.contains(id));
        }
        self.add(id, bytes, segment);
        for head in newest {
            let mut spans = self.spans.get(&head.log).into_iter().flatten();
            let is_there = spans.any(|(span, _)| (span.last, span.id) == (head.seq, head.id));
            assert!(is_there, "the newest record of each log stays");
        }
    }

    /// Notes that segments which are not named are about to be deleted.
    pub fn collect(&mut self) {
        self.collections = self.collections.saturating_add(1);
    }

    /// What of a run is not stored yet: all of it, its end, or nothing.
    ///
    /// `opened` are segments that were read. Whether a run lies within a longer one cannot be told
    /// from spans alone.
    ///
    /// # Errors
    ///
    /// A segment that must be read to tell.
    pub fn missing(
        &self,
        run: &StoredRun,
        opened: &BTreeMap<SegmentId, Segment>,
    ) -> Result<Option<StoredRun>, SegmentId> {
        let span = run.span();
        let mut stored_to = span.first - 1;
        // Ascending by their first records, so one pass finds where the first gap is.
        for (other, segment) in self.spans.get(&span.log).into_iter().flatten() {
            let extends = other.first <= stored_to + 1 && other.last > stored_to;
            if !extends || stored_to >= span.last {
                continue;
            }
            let at = other.last.min(span.last);
            let id = if at == other.last {
                Some(other.id)
            } else {
                let opened = opened.get(segment).ok_or(*segment)?;
                let mut runs = opened.runs().iter();
                let found = runs.find(|it| it.span() == other);
                found.and_then(|it| it.id_at(at))
            };
            // One record in common, and all before it are too: an id covers what is before it.
            if id.is_some() && id == run.id_at(at) {
                stored_to = at;
            }
        }
        Ok(run.behind(stored_to))
    }

    /// Seals the heads.
    ///
    /// # Errors
    ///
    /// [`SegmentError::TooLong`] if there are too many segments.
    pub fn seal(
        &self,
        thread: &SharedThread,
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SegmentError> {
        let plain = self.encode();
        let bytes_max = HEADS_BYTES_MAX - SEALED_ONCE_BYTES;
        if plain.len() > bytes_max {
            return Err(SegmentError::TooLong {
                what: "a list of segments",
                bytes: plain.len(),
                bytes_max,
            });
        }
        let (suite, key, kind) = (self.genesis.suite, thread.service(), OnceKind::Heads);
        Ok(seal_once(
            suite,
            key,
            thread.id(),
            kind,
            &plain,
            secret,
            rng,
        ))
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(5).uint(VERSION);
        encoder.bytes(&self.genesis.encode()).uint(self.collections);
        encoder.array(self.heads.len());
        let mut numbers = BTreeMap::new();
        for (number, (log, head)) in self.heads.iter().enumerate() {
            encoder.array(2).bytes(&log.0).bytes(&head.signature);
            numbers.insert(*log, number);
        }
        encoder.array(self.segments.len());
        for (id, entry) in &self.segments {
            encoder.array(4).bytes(&id.0);
            encoder.uint(entry.bytes).uint(entry.wraps);
            encoder.array(entry.spans.len());
            for span in &entry.spans {
                let number = numbers.get(&span.log).copied().unwrap_or_default();
                span.encode(number, &mut encoder);
            }
        }
        encoder.into_vec()
    }

    /// Opens what a store gave: compares the seal, and the signature of every head.
    ///
    /// # Errors
    ///
    /// [`SegmentError`].
    pub fn open(thread: &SharedThread, sealed: &[u8]) -> Result<Self, SegmentError> {
        check_heads(&thread.place(), sealed)?;
        let kind = OnceKind::Heads;
        let (_, plain) = open_once(thread.service(), thread.id(), kind, sealed)?;
        let mut decoder = Decoder::new(&plain);
        decoder.array_of(5)?;
        check_version(&mut decoder)?;
        let genesis = Genesis::decode(decoder.bytes()?)?;
        if genesis.thread() != thread.id() {
            return Err(SegmentError::OfAnotherThread);
        }
        let mut heads = Self::new(genesis);
        heads.collections = decoder.uint()?;
        let signatures = decode_signatures(&mut decoder)?;
        heads.decode_segments(&mut decoder, &signatures)?;
        decoder.finish()?;
        heads.take_signatures(thread, signatures)?;
        Ok(heads)
    }

    fn decode_segments(
        &mut self,
        decoder: &mut Decoder<'_>,
        signatures: &[(LogId, [u8; 64])],
    ) -> Result<(), DecodeError> {
        let log = |number: u64| {
            let number = usize::try_from(number).ok()?;
            signatures.get(number).map(|(log, _)| *log)
        };
        for _ in 0..decoder.array()? {
            let offset = decoder.offset();
            decoder.array_of(4)?;
            let id = SegmentId(*decoder.fixed()?);
            let (bytes, wraps) = (decoder.uint()?, decoder.uint()?);
            if bytes > SEGMENT_BYTES_MAX as u64 {
                let what = "the length of a segment";
                return Err(DecodeError::OutOfBounds { offset, what });
            }
            let mut spans: Vec<Span> = Vec::new();
            for _ in 0..decoder.array()? {
                let span = Span::decode(decoder, log)?;
                if spans.last().is_some_and(|last| *last >= span) {
                    return Err(out_of_order(offset));
                }
                spans.push(span);
            }
            if self.segments.last_key_value().is_some_and(|it| *it.0 >= id) {
                return Err(out_of_order(offset));
            }
            let entry = SegmentEntry {
                bytes,
                wraps,
                spans,
            };
            self.index(id, &entry);
            self.segments.insert(id, entry);
        }
        Ok(())
    }

    /// Verifies the newest head of each log.
    fn take_signatures(
        &mut self,
        thread: &SharedThread,
        signatures: Vec<(LogId, [u8; 64])>,
    ) -> Result<(), SegmentError> {
        for (log, signature) in signatures {
            let spans = self.spans.get(&log).into_iter().flatten();
            let claimed = spans.map(|(span, _)| SignedHead {
                thread: thread.id(),
                log,
                seq: span.last,
                id: span.id,
                signature,
            });
            let newest = claimed.reduce(|known, it| if is_newer(&it, &known) { it } else { known });
            let Some(newest) = newest else {
                let (offset, what) = (0, "a log without records");
                return Err(DecodeError::OutOfBounds { offset, what }.into());
            };
            self.heads.insert(log, *newest.verify()?.head());
        }
        Ok(())
    }

    fn index(&mut self, id: SegmentId, entry: &SegmentEntry) {
        for span in &entry.spans {
            self.spans.entry(span.log).or_default().insert((*span, id));
        }
    }
}

/// Of two heads at one place the lower id counts, so that all nodes name the same one.
fn is_newer(head: &SignedHead, known: &SignedHead) -> bool {
    (head.seq, std::cmp::Reverse(head.id)) > (known.seq, std::cmp::Reverse(known.id))
}

fn decode_signatures(decoder: &mut Decoder<'_>) -> Result<Vec<(LogId, [u8; 64])>, DecodeError> {
    let mut signatures: Vec<(LogId, [u8; 64])> = Vec::new();
    for _ in 0..decoder.array()? {
        let offset = decoder.offset();
        decoder.array_of(2)?;
        let log = LogId(*decoder.fixed()?);
        if signatures.last().is_some_and(|(last, _)| *last >= log) {
            return Err(out_of_order(offset));
        }
        signatures.push((log, *decoder.fixed()?));
    }
    Ok(signatures)
}

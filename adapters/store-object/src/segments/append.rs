//! Writing: segments first, then the heads that name them.

use std::collections::BTreeMap;

use leno_threads_core::Wrap;
use leno_threads_core::segment::{
    SEGMENT_PLAIN_BYTES_MAX, SEGMENT_RUNS_MAX, SEGMENT_WRAPS_MAX, Segment, SegmentError,
    SharedHeads, SharedThread, Span, StoredRun,
};
use leno_threads_core::store::{ObjectError, SegmentId};

use super::{SegmentStore, SharedError, lock};

/// What an append came to.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The heads that name all of it.
    pub heads: SharedHeads,
    /// The runs that were not there before, as they are stored: whole, or their ends.
    pub stored: Vec<Span>,
}

/// A segment that was put and is not named yet.
struct Pending {
    id: SegmentId,
    bytes: u64,
    segment: Segment,
}

/// Segments that were put and are not named yet.
#[derive(Default)]
struct PendingAll {
    segments: Vec<Pending>,
    /// [`SharedHeads::collections`] of the heads that were read before they were put.
    collections: u64,
}

impl PendingAll {
    fn are_named_by(&self, heads: &SharedHeads) -> bool {
        let mut ids = self.segments.iter();
        !self.segments.is_empty() && ids.all(|it| heads.segment(&it.id).is_some())
    }

    /// Tells whether they are still good for what is to be stored.
    fn are(&self, parts: &[Segment], heads: &SharedHeads) -> bool {
        let segments = self.segments.iter().map(|pending| &pending.segment);
        self.collections == heads.collections() && segments.eq(parts)
    }

    fn spans(&self) -> Vec<Span> {
        let segments = self.segments.iter();
        segments
            .flat_map(|pending| pending.segment.spans())
            .collect()
    }
}

impl SegmentStore {
    /// Stores runs and key wraps of a thread, unless they are there.
    ///
    /// Done means durable, and named by the heads: every node that reads them later has it. Of a run
    /// that is there in part only the end is stored. Both branches of a log that is forked are kept.
    /// Idempotent for runs; a wrap that is appended again is stored again, and counts once when it is
    /// loaded. A future that is dropped leaves everything stored or nothing named.
    ///
    /// # Errors
    ///
    /// - [`SharedError::OverQuota`], [`SharedError::TooLong`], [`SharedError::OfAnotherThread`],
    ///   [`SharedError::NoGenesis`]: nothing is named.
    /// - [`SharedError::Busy`] and [`SharedError::Store`]: unknown whether it is named; appending it
    ///   again is the thing to do.
    /// - As [`SegmentStore::heads`], and [`SharedError::BadSegment`] if a segment must be read to tell
    ///   what is there and does not hold.
    pub async fn append(
        &self,
        thread: &SharedThread,
        runs: Vec<StoredRun>,
        wraps: Vec<Wrap>,
    ) -> Result<Appended, SharedError> {
        if let Some(run) = runs.iter().find(|run| run.head().thread != thread.id()) {
            let log = run.span().log;
            return Err(SharedError::OfAnotherThread { log });
        }
        let mut opened = BTreeMap::new();
        let mut pending = PendingAll::default();
        let mut gone_at = None;
        let mut last = ObjectError::Conflict;
        for tries in 1..=self.limits.tries_max {
            let mut read = self.read_or_begin(thread).await?;
            if pending.are_named_by(&read.heads) {
                // The answer to the last try was lost.
                return Ok(Appended {
                    heads: read.heads,
                    stored: pending.spans(),
                });
            }
            let missing = self.missing(thread, &read.heads, &runs, &mut opened).await;
            let missing = match missing {
                // It was merged into another one and collected since, unless the heads are the same.
                Err(SharedError::BadSegment { source: None, .. })
                    if gone_at.as_ref() != Some(&read.version) =>
                {
                    gone_at = Some(read.version);
                    self.pause(tries).await;
                    continue;
                }
                missing => missing?,
            };
            let parts = parts(missing, &wraps);
            if parts.is_empty() {
                return Ok(Appended {
                    heads: read.heads,
                    stored: Vec::new(),
                });
            }
            if !pending.are(&parts, &read.heads) {
                pending = self.put_all(thread, &read.heads, parts).await?;
            }
            for it in &pending.segments {
                read.heads.add(it.id, it.bytes, &it.segment);
            }
            let replaced = self
                .replace(thread, &read.heads, read.version.as_ref())
                .await?;
            match replaced {
                Ok(()) => {
                    return Ok(Appended {
                        heads: read.heads,
                        stored: pending.spans(),
                    });
                }
                Err(error @ (ObjectError::Conflict | ObjectError::Medium { .. })) => last = error,
                Err(error) => return Err(SharedError::Store(error)),
            }
            self.pause(tries).await;
        }
        Err(given_up(last, self.limits.tries_max))
    }

    /// What of some runs is not stored yet.
    async fn missing(
        &self,
        thread: &SharedThread,
        heads: &SharedHeads,
        runs: &[StoredRun],
        opened: &mut BTreeMap<SegmentId, Segment>,
    ) -> Result<Vec<StoredRun>, SharedError> {
        // As if those before were stored, so that runs may overlap each other, too.
        let mut known = heads.clone();
        let mut sorted: Vec<&StoredRun> = runs.iter().collect();
        sorted.sort_by_key(|run| *run.span());
        let mut missing = Vec::new();
        for run in sorted {
            let rest = loop {
                match known.missing(run, opened) {
                    Ok(rest) => break rest,
                    Err(id) => {
                        let segment = self.open_segment(thread, heads, id).await?;
                        opened.insert(id, segment);
                    }
                }
            };
            if let Some(rest) = rest {
                let segment = Segment::new([rest.clone()], []);
                let name = name_of(rest.span());
                known.add(name, 0, &segment);
                opened.insert(name, segment);
                missing.push(rest);
            }
        }
        opened.retain(|id, _| heads.segment(id).is_some());
        Ok(missing)
    }

    /// Seals and puts segments that heads read before are to name.
    async fn put_all(
        &self,
        thread: &SharedThread,
        heads: &SharedHeads,
        parts: Vec<Segment>,
    ) -> Result<PendingAll, SharedError> {
        let mut sealed = Vec::new();
        for segment in parts {
            let (id, bytes) = self.seal(thread, heads, &segment)?;
            sealed.push((id, bytes, segment));
        }
        let fresh = sealed.iter().map(|(_, bytes, _)| bytes.len() as u64);
        let bytes = fresh.fold(heads.bytes(), u64::saturating_add);
        let bytes_max = self.limits.thread_bytes_max;
        if bytes > bytes_max {
            return Err(SharedError::OverQuota { bytes, bytes_max });
        }
        let mut segments = Vec::new();
        for (id, bytes, segment) in sealed {
            self.put(thread, &id, &bytes).await?;
            let bytes = bytes.len() as u64;
            segments.push(Pending { id, bytes, segment });
        }
        Ok(PendingAll {
            segments,
            collections: heads.collections(),
        })
    }

    pub(super) fn seal(
        &self,
        thread: &SharedThread,
        heads: &SharedHeads,
        segment: &Segment,
    ) -> Result<(SegmentId, Vec<u8>), SharedError> {
        let mut rng = lock(&self.node.rng);
        let suite = heads.genesis().suite;
        let sealed = segment.seal(thread, suite, &self.node.secret, &mut *rng);
        sealed.map_err(too_long)
    }
}

/// A name that is no segment's, for what is only looked up.
fn name_of(span: &Span) -> SegmentId {
    let parts: [&[u8]; 4] = [
        &span.log.0,
        &span.first.to_be_bytes(),
        &span.id.0,
        &span.before.0,
    ];
    SegmentId::of(&parts.concat())
}

pub(super) fn given_up(last: ObjectError, tries: u32) -> SharedError {
    if matches!(last, ObjectError::Conflict) {
        SharedError::Busy { tries }
    } else {
        SharedError::Store(last)
    }
}

fn too_long(error: SegmentError) -> SharedError {
    SharedError::TooLong(Box::new(error))
}

/// Puts runs and wraps into as few segments as they fit. Neighbouring runs become one.
pub(super) fn parts(runs: Vec<StoredRun>, wraps: &[Wrap]) -> Vec<Segment> {
    let mut parts = Vec::new();
    let (mut some, mut bytes) = (Vec::new(), 0);
    for run in join(runs) {
        let own = run.row().len() + Segment::ITEM_BYTES;
        if !some.is_empty() && (bytes + own > ROOM_FOR_RUNS || some.len() >= SEGMENT_RUNS_MAX) {
            parts.push(Segment::new(std::mem::take(&mut some), []));
            bytes = 0;
        }
        bytes += own;
        some.push(run);
    }
    // A wrap has some 250 bytes, so as many as are allowed fit beside the last runs.
    let mut wraps: Vec<Wrap> = wraps.to_vec();
    wraps.sort_by_key(wrap_order);
    wraps.dedup_by_key(|wrap| wrap_order(wrap));
    let mut chunks = wraps.chunks(WRAPS_PER_SEGMENT);
    let first = chunks.next().unwrap_or_default();
    let last = Segment::new(some, first.iter().cloned());
    if !last.is_empty() {
        parts.push(last);
    }
    parts.extend(chunks.map(|wraps| Segment::new([], wraps.iter().cloned())));
    parts
}

/// Room that is left for wraps in the last segment of an append.
const WRAPS_PER_SEGMENT: usize = if SEGMENT_WRAPS_MAX < 4_096 {
    SEGMENT_WRAPS_MAX
} else {
    4_096
};
const WRAP_BYTES_MAX: usize = 256 + Segment::ITEM_BYTES;
const ROOM_FOR_RUNS: usize =
    SEGMENT_PLAIN_BYTES_MAX - WRAPS_PER_SEGMENT * WRAP_BYTES_MAX - Segment::ITEM_BYTES;

fn wrap_order(wrap: &Wrap) -> (u32, [u8; 32], [u8; 32], [u8; 32], [u8; 48]) {
    let (epoch, seat) = (wrap.epoch.0, wrap.seat.0);
    (wrap.domain, epoch, seat, wrap.encapsulated, wrap.sealed)
}

/// Makes neighbouring runs one, where they fit.
fn join(mut runs: Vec<StoredRun>) -> Vec<StoredRun> {
    runs.sort_by_key(|run| *run.span());
    let mut joined: Vec<StoredRun> = Vec::new();
    for run in runs {
        match joined.last().and_then(|last| last.joined(&run)) {
            Some(both) => {
                joined.pop();
                joined.push(both);
            }
            None => joined.push(run),
        }
    }
    joined
}

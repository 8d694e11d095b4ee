//! Reading a thread back in an order in which its records can be admitted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use leno_threads_core::segment::{Segment, SegmentEntry, SharedHeads, SharedThread};
use leno_threads_core::store::SegmentId;
use leno_threads_core::{LogId, Seq};

use super::{Read, SegmentStore, SharedError};

/// A thread of a shared store that is being read, segment by segment.
///
/// Memory is bounded by one segment and the heads.
pub struct Reading {
    store: SegmentStore,
    thread: SharedThread,
    read: Read,
    /// What of the present round is still to be looked at.
    round: VecDeque<SegmentId>,
    /// What was known when the round began; nothing before the first.
    known: Option<BTreeMap<LogId, Seq>>,
    /// Segments of which the key wraps were shown.
    shown: BTreeSet<SegmentId>,
    damaged: BTreeMap<SegmentId, SharedError>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reading")
            .field("thread", &self.thread.id())
            .field("damaged", &self.damaged)
            .finish_non_exhaustive()
    }
}

impl SegmentStore {
    /// Begins to read a thread in an order in which its records can be admitted: for who admits what
    /// it is shown before it asks for more. [`SegmentStore::load`] shows all at once, in any order.
    ///
    /// # Errors
    ///
    /// As [`SegmentStore::load`].
    pub async fn read(&self, thread: &SharedThread) -> Result<Reading, SharedError> {
        Ok(Reading {
            store: self.clone(),
            thread: thread.clone(),
            read: self.read_or_begin(thread).await?,
            round: VecDeque::new(),
            known: None,
            shown: BTreeSet::new(),
            damaged: BTreeMap::new(),
        })
    }
}

impl Reading {
    /// The heads that were read: the genesis too, for who has nothing of the thread.
    #[must_use]
    pub fn heads(&self) -> &SharedHeads {
        &self.read.heads
    }

    /// A segment with a run that follows what is known: of each log that is open, its last record, 0 if
    /// it has none. Nothing once a whole round over the segments brought nothing new.
    ///
    /// Leave logs out of `known` of which nothing more is to be read. A segment is shown once in a round;
    /// what of it could not be used then comes again in the next one.
    ///
    /// # Errors
    ///
    /// As [`SegmentStore::load`]. A segment that does not hold is no error: see [`Reading::damaged`].
    pub async fn next(
        &mut self,
        known: &BTreeMap<LogId, Seq>,
    ) -> Result<Option<Segment>, SharedError> {
        loop {
            let Some(id) = self.round.pop_front() else {
                if self.known.as_ref() == Some(known) {
                    return Ok(None);
                }
                self.known = Some(known.clone());
                self.round = self.in_order(known);
                continue;
            };
            let entry = self.read.heads.segment(&id);
            if entry.is_some_and(|entry| follows(entry, known))
                && let Some(segment) = self.open(id).await?
            {
                return Ok(Some(segment));
            }
        }
    }

    /// A segment with key wraps, each once; nothing after the last.
    ///
    /// # Errors
    ///
    /// As [`Reading::next`].
    pub async fn next_wraps(&mut self) -> Result<Option<Segment>, SharedError> {
        loop {
            let Some(id) = self.unshown() else {
                return Ok(None);
            };
            if let Some(segment) = self.open(id).await? {
                self.shown.insert(id);
                return Ok(Some(segment));
            }
        }
    }

    /// A segment with key wraps that were not shown.
    fn unshown(&self) -> Option<SegmentId> {
        let mut segments = self.read.heads.segments();
        let next = segments.find(|(id, entry)| {
            entry.wraps > 0 && !self.shown.contains(id) && !self.damaged.contains_key(id)
        });
        next.map(|(id, _)| *id)
    }

    /// Segments that do not hold or are not there, each with the reason.
    pub fn damaged(&self) -> impl Iterator<Item = (&SegmentId, &SharedError)> {
        self.damaged.iter()
    }

    /// How many segments hold more of a log than is known.
    #[must_use]
    pub fn left(&self, known: &BTreeMap<LogId, Seq>) -> usize {
        let segments = self.read.heads.segments();
        segments.filter(|(_, entry)| has_news(entry, known)).count()
    }

    /// Segments with news, those first that end first: as they were appended, more or less.
    fn in_order(&self, known: &BTreeMap<LogId, Seq>) -> VecDeque<SegmentId> {
        let segments = self.read.heads.segments();
        let news =
            segments.filter(|(id, entry)| has_news(entry, known) && !self.damaged.contains_key(id));
        let mut order: Vec<(Seq, Reverse<usize>, SegmentId)> = news
            .map(|(id, entry)| {
                let firsts = entry.spans.iter().map(|span| span.first);
                let last = firsts.max().unwrap_or_default();
                (last, Reverse(entry.spans.len()), *id)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., id)| id).collect()
    }

    /// Opens a segment; nothing if it is damaged, or was merged into others by now.
    async fn open(&mut self, id: SegmentId) -> Result<Option<Segment>, SharedError> {
        match self
            .store
            .open_segment(&self.thread, &self.read.heads, id)
            .await
        {
            Ok(segment) => return Ok(Some(segment)),
            Err(error @ SharedError::BadSegment { source: None, .. }) => {
                let newer = self.store.read_or_begin(&self.thread).await?;
                if newer.heads.segment(&id).is_some() || newer.version == self.read.version {
                    self.damaged.insert(id, error);
                } else {
                    // All that it held is in others.
                    self.read = newer;
                    self.round.clear();
                    self.known = None;
                }
            }
            Err(error @ SharedError::BadSegment { .. }) => {
                self.damaged.insert(id, error);
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}

/// Tells whether a segment holds anything that is not known.
fn has_news(entry: &SegmentEntry, known: &BTreeMap<LogId, Seq>) -> bool {
    let mut spans = entry.spans.iter();
    spans.any(|span| known.get(&span.log).is_none_or(|seq| *seq < span.last))
}

/// Tells whether a segment holds a run that can be taken in behind what is known.
fn follows(entry: &SegmentEntry, known: &BTreeMap<LogId, Seq>) -> bool {
    let mut spans = entry.spans.iter();
    spans.any(|span| {
        let seq = known.get(&span.log);
        seq.is_some_and(|seq| *seq < span.last && span.first <= seq.saturating_add(1))
    })
}

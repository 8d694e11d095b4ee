//! Reading a thread back, segment by segment.

use std::collections::BTreeMap;

use leno_threads_core::segment::{Segment, SegmentEntry, SharedHeads, SharedThread};
use leno_threads_core::store::SegmentId;
use leno_threads_core::{LogId, Seq};

use super::{SegmentStore, SharedError};

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The heads that were read: the genesis too, for who had nothing of the thread.
    pub heads: SharedHeads,
    /// How many segments were read.
    pub segments: usize,
    /// Segments that do not hold or are not there, each with the reason; all others were shown.
    pub damaged: Vec<(SegmentId, SharedError)>,
}

impl SegmentStore {
    /// Reads the segments of a thread that hold more of a log than `known` says, and shows each.
    ///
    /// With nothing known it is the whole thread. Segments come one at a time, so memory is bounded
    /// by one, and in no particular order: put runs in the order of [`Span`] before they are admitted,
    /// or let them wait. Each run proves itself; the chain from run to run, and whether its log was
    /// opened, is for who admits it to judge, as with what a peer sends. Segments with key wraps are
    /// always read.
    ///
    /// [`Span`]: leno_threads_core::segment::Span
    ///
    /// # Errors
    ///
    /// As [`SegmentStore::heads`], and [`SharedError::NoGenesis`] if nothing of the thread is stored
    /// and its genesis is not known. [`SharedError::Store`] if the store fails in the midst; what was
    /// shown before is good.
    pub async fn load(
        &self,
        thread: &SharedThread,
        known: &BTreeMap<LogId, Seq>,
        mut show: impl FnMut(&Segment),
    ) -> Result<Loaded, SharedError> {
        let mut read = self.read_or_begin(thread).await?;
        let mut loaded = Loaded {
            heads: read.heads.clone(),
            segments: 0,
            damaged: Vec::new(),
        };
        let mut wanted = wanted(&read.heads, known);
        while let Some(id) = wanted.pop() {
            match self.open_segment(thread, &read.heads, id).await {
                Ok(segment) => {
                    loaded.segments += 1;
                    show(&segment);
                }
                Err(error @ SharedError::BadSegment { source: None, .. }) => {
                    // Segments were merged meanwhile, if newer heads do not name it.
                    let newer = self.read_or_begin(thread).await?;
                    if newer.heads.segment(&id).is_some() || newer.version == read.version {
                        loaded.damaged.push((id, error));
                        continue;
                    }
                    // What was shown, or is damaged, is not read again.
                    let mut fresh = self::wanted(&newer.heads, known);
                    fresh.retain(|id| read.heads.segment(id).is_none() || wanted.contains(id));
                    wanted = fresh;
                    read = newer;
                    loaded.heads = read.heads.clone();
                }
                Err(error @ SharedError::BadSegment { .. }) => loaded.damaged.push((id, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(loaded)
    }
}

/// The segments that hold anything that is not known.
fn wanted(heads: &SharedHeads, known: &BTreeMap<LogId, Seq>) -> Vec<SegmentId> {
    let is_news = |entry: &SegmentEntry| {
        let mut spans = entry.spans.iter();
        entry.wraps > 0 || spans.any(|span| known.get(&span.log).is_none_or(|seq| *seq < span.last))
    };
    let segments = heads.segments();
    let wanted = segments.filter(|(_, entry)| is_news(entry));
    wanted.map(|(id, _)| *id).collect()
}

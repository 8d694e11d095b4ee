//! Merging small segments into larger ones, so that heads stay short and loading takes few requests.

use leno_threads_core::segment::{Segment, SharedHeads, SharedThread};
use leno_threads_core::store::{ObjectError, SEGMENT_BYTES_MAX, SegmentId};

use super::append::{given_up, parts};
use super::{SegmentStore, SharedError};

/// Segments below this many bytes are merged.
const SMALL_BYTES: u64 = SEGMENT_BYTES_MAX as u64 / 4;

/// Bytes of segments that are merged at once, at most: what they hold fits one.
const MERGED_BYTES_MAX: u64 = SEGMENT_BYTES_MAX as u64 / 2;

/// Segments that are merged at once, at most.
const MERGED_MAX: usize = 1_000;

impl SegmentStore {
    /// Merges small segments of a thread into one; tells how many segments there are less.
    ///
    /// Changes no record. Worth a call when a thread has some hundred segments; each call merges at
    /// most 4 MiB. What was merged is deleted by [`SegmentStore::collect`] in time.
    ///
    /// # Errors
    ///
    /// As [`SegmentStore::append`]. Segments that do not hold are left as they are.
    pub async fn compact(&self, thread: &SharedThread) -> Result<usize, SharedError> {
        let mut last = ObjectError::Conflict;
        for tries in 1..=self.limits.tries_max {
            let Some((mut heads, version)) = self.read_heads(thread).await? else {
                return Ok(0);
            };
            let (old, merged) = self.merge(thread, &heads).await?;
            let (Some(merged), true) = (merged, old.len() > 1) else {
                return Ok(0);
            };
            let (id, sealed) = self.seal(thread, &heads, &merged)?;
            self.put(thread, &id, &sealed).await?;
            heads.replace(&old, id, sealed.len() as u64, &merged);
            match self.replace(thread, &heads, Some(&version)).await? {
                Ok(()) => return Ok(old.len() - 1),
                Err(error @ (ObjectError::Conflict | ObjectError::Medium { .. })) => last = error,
                Err(error) => return Err(SharedError::Store(error)),
            }
            self.pause(tries).await;
        }
        Err(given_up(last, self.limits.tries_max))
    }

    /// Reads small segments and puts together what they hold.
    async fn merge(
        &self,
        thread: &SharedThread,
        heads: &SharedHeads,
    ) -> Result<(Vec<SegmentId>, Option<Segment>), SharedError> {
        let (mut old, mut runs, mut wraps) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for (id, entry) in heads.segments() {
            let is_small = entry.bytes < SMALL_BYTES;
            if !is_small || bytes + entry.bytes > MERGED_BYTES_MAX || old.len() >= MERGED_MAX {
                continue;
            }
            let segment = match self.open_segment(thread, heads, *id).await {
                Ok(segment) => segment,
                Err(SharedError::BadSegment { .. }) => continue,
                Err(error) => return Err(error),
            };
            bytes += entry.bytes;
            runs.extend_from_slice(segment.runs());
            wraps.extend(segment.wraps());
            old.push(*id);
        }
        let mut parts = parts(runs, &wraps);
        // More than one if there are very many wraps: nothing is won then.
        Ok((old, parts.pop().filter(|_| parts.is_empty())))
    }
}

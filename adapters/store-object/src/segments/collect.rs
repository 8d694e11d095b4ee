//! Deleting segments that no heads name: what was put by who then crashed, lost a race, or merged.

use std::collections::BTreeSet;

use leno_threads_core::segment::SharedThread;
use leno_threads_core::store::{ObjectError, SEGMENTS_PER_PAGE_MAX, SegmentId};

use super::append::given_up;
use super::{SegmentStore, SharedError};

/// Most segments that one call deletes.
const COLLECTED_MAX: usize = 10_000;

impl SegmentStore {
    /// Deletes segments of a thread that no heads name and that were put longer ago than
    /// [`Limits::grace_millis`](super::Limits::grace_millis); tells how many. `now_millis` is
    /// milliseconds since the Unix epoch, UTC.
    ///
    /// Safe beside everything else that nodes do, also if clocks are wrong: one that was about to name
    /// a segment which is deleted here puts another one. Deletes at most 10,000 at once.
    ///
    /// # Errors
    ///
    /// As [`SegmentStore::append`]. Deleting goes on with the next call.
    pub async fn collect(
        &self,
        thread: &SharedThread,
        now_millis: u64,
    ) -> Result<usize, SharedError> {
        let old = self.list_old(thread, now_millis).await?;
        let Some(unnamed) = self.announce(thread, old).await? else {
            return Ok(0);
        };
        let place = thread.place();
        for id in &unnamed {
            self.retry(|| self.shared.delete_segment(&place, id))
                .await?;
        }
        Ok(unnamed.len())
    }

    /// Segments that are older than the time of grace.
    async fn list_old(
        &self,
        thread: &SharedThread,
        now_millis: u64,
    ) -> Result<BTreeSet<SegmentId>, SharedError> {
        let (place, mut after) = (thread.place(), None);
        let named = self.heads(thread).await?;
        let mut old = BTreeSet::new();
        loop {
            let list = || {
                let limit = SEGMENTS_PER_PAGE_MAX;
                self.shared.list_segments(&place, after.as_ref(), limit)
            };
            let page = self.retry(list).await?;
            let last = page.last().map(|listed| listed.id);
            let is_old = |put: u64| put.saturating_add(self.limits.grace_millis) <= now_millis;
            let is_named = |id: &SegmentId| {
                let heads = named.as_ref();
                heads.is_some_and(|heads| heads.segment(id).is_some())
            };
            let listed = page.into_iter().filter(|it| is_old(it.put_millis));
            old.extend(listed.map(|it| it.id).filter(|id| !is_named(id)));
            // A store that lists in circles ends nobody's loop.
            let goes_on = last.is_some() && last > after && old.len() < COLLECTED_MAX;
            if !goes_on {
                return Ok(old);
            }
            after = last;
        }
    }

    /// Replaces the heads, so that nobody names any more what was put before and is not named now.
    /// Gives which of `old` those are; nothing if there are none.
    async fn announce(
        &self,
        thread: &SharedThread,
        old: BTreeSet<SegmentId>,
    ) -> Result<Option<Vec<SegmentId>>, SharedError> {
        let mut last = ObjectError::Conflict;
        for tries in 1..=self.limits.tries_max {
            // Without heads somebody may be about to make them.
            let Some((mut heads, version)) = self.read_heads(thread).await? else {
                return Ok(None);
            };
            let unnamed = old.iter().filter(|id| heads.segment(id).is_none());
            let unnamed: Vec<SegmentId> = unnamed.copied().take(COLLECTED_MAX).collect();
            if unnamed.is_empty() {
                return Ok(None);
            }
            heads.collect();
            match self.replace(thread, &heads, Some(&version)).await? {
                Ok(()) => return Ok(Some(unnamed)),
                Err(error @ (ObjectError::Conflict | ObjectError::Medium { .. })) => last = error,
                Err(error) => return Err(SharedError::Store(error)),
            }
            self.pause(tries).await;
        }
        Err(given_up(last, self.limits.tries_max))
    }
}

//! A shared store that fails, loses answers, and does late what it said had failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leno_threads_core::store::{
    HeadsVersion, ListedSegment, MemoryShared, ObjectError, SegmentId, SharedStore, ThreadPlace,
};

/// A small seeded generator (xorshift64*).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1))
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8;
        usize::try_from(drawn % end as u64).unwrap()
    }
}

type Late = (ThreadPlace, Vec<u8>, Option<HeadsVersion>);

/// What went wrong, and how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    pub(crate) failed: usize,
    pub(crate) lost_answers: usize,
    pub(crate) late: usize,
    pub(crate) late_done: usize,
    pub(crate) conflicts: usize,
}

/// Wraps a store; clones share the troubles.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    inner: MemoryShared,
    state: Arc<Mutex<(Dice, VecDeque<Late>, Count)>>,
    /// Of a hundred requests so many meet trouble.
    percent: usize,
}

enum Fate {
    Good,
    Fails,
    AnswerIsLost,
    DoneLater,
}

impl Faulty {
    pub(crate) fn new(inner: MemoryShared, seed: u64, percent: usize) -> Self {
        let state = (Dice::new(seed), VecDeque::new(), Count::default());
        Self {
            inner,
            state: Arc::new(Mutex::new(state)),
            percent,
        }
    }

    pub(crate) fn count(&self) -> Count {
        self.state.lock().unwrap().2.clone()
    }

    /// Lets others go first now and then, does what is late, and draws what happens.
    async fn fate(&self) -> Fate {
        let (yields, late, fate) = {
            let mut state = self.state.lock().unwrap();
            let yields = state.0.below(4);
            let late = (state.0.below(3) == 0)
                .then(|| state.1.pop_front())
                .flatten();
            let fate = match (state.0.below(100) < self.percent, state.0.below(3)) {
                (false, _) => Fate::Good,
                (true, 0) => Fate::Fails,
                (true, 1) => Fate::AnswerIsLost,
                (true, _) => Fate::DoneLater,
            };
            match fate {
                Fate::Good => {}
                Fate::Fails => state.2.failed += 1,
                Fate::AnswerIsLost => state.2.lost_answers += 1,
                Fate::DoneLater => state.2.late += 1,
            }
            (yields, late, fate)
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if let Some((place, sealed, expected)) = late {
            let done = self
                .inner
                .replace_heads(&place, sealed, expected.as_ref())
                .await;
            self.state.lock().unwrap().2.late_done += usize::from(done.is_ok());
        }
        fate
    }

    async fn around<T>(
        &self,
        request: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, ObjectError> {
        match self.fate().await {
            Fate::Good => request.await,
            Fate::AnswerIsLost => request.await.and(Err(lost())),
            // Nothing but a replacement does harm when it comes late.
            Fate::Fails | Fate::DoneLater => Err(lost()),
        }
    }
}

fn lost() -> ObjectError {
    ObjectError::Medium {
        doing: "asked for",
        source: Arc::new(std::io::Error::other("the answer was lost")),
    }
}

#[async_trait]
impl SharedStore for Faulty {
    async fn put_segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
        sealed: Vec<u8>,
    ) -> Result<(), ObjectError> {
        self.around(self.inner.put_segment(place, id, sealed)).await
    }

    async fn segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
    ) -> Result<Option<Vec<u8>>, ObjectError> {
        self.around(self.inner.segment(place, id)).await
    }

    async fn delete_segment(&self, place: &ThreadPlace, id: &SegmentId) -> Result<(), ObjectError> {
        self.around(self.inner.delete_segment(place, id)).await
    }

    async fn list_segments(
        &self,
        place: &ThreadPlace,
        after: Option<&SegmentId>,
        limit: usize,
    ) -> Result<Vec<ListedSegment>, ObjectError> {
        self.around(self.inner.list_segments(place, after, limit))
            .await
    }

    async fn heads(
        &self,
        place: &ThreadPlace,
    ) -> Result<Option<(Vec<u8>, HeadsVersion)>, ObjectError> {
        self.around(self.inner.heads(place)).await
    }

    async fn replace_heads(
        &self,
        place: &ThreadPlace,
        sealed: Vec<u8>,
        expected: Option<&HeadsVersion>,
    ) -> Result<HeadsVersion, ObjectError> {
        let fate = self.fate().await;
        if let Fate::DoneLater = fate {
            let late = (*place, sealed, expected.cloned());
            self.state.lock().unwrap().1.push_back(late);
            return Err(lost());
        }
        if let Fate::Fails = fate {
            return Err(lost());
        }
        let replaced = self.inner.replace_heads(place, sealed, expected).await;
        if let Err(ObjectError::Conflict) = replaced {
            self.state.lock().unwrap().2.conflicts += 1;
        }
        match fate {
            Fate::AnswerIsLost => replaced.and(Err(lost())),
            Fate::Good | Fate::Fails | Fate::DoneLater => replaced,
        }
    }
}

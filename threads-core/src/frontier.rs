//! Frontiers: the newest record known of each log.

use std::collections::BTreeMap;

use leno_crdt_codec::{LogId, Seq};

/// The newest record known of each log, by its place. A log that is absent counts as 0.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{Frontier, LogId};
///
/// let (ann, ben) = (LogId([1; 32]), LogId([2; 32]));
/// let older = Frontier::from_iter([(ann, 4)]);
/// let mut newer = Frontier::from_iter([(ann, 3), (ben, 9)]);
/// assert!(!newer.covers(&older));
/// newer.merge(&older);
/// assert!(newer.covers(&older));
/// assert_eq!((newer.seq(&ann), newer.seq(&ben)), (4, 9));
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Frontier(BTreeMap<LogId, Seq>);

impl Frontier {
    /// A frontier that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest record known of a log; 0 if there is none.
    #[must_use]
    pub fn seq(&self, log: &LogId) -> Seq {
        self.0.get(log).copied().unwrap_or_default()
    }

    /// Notes a record; tells whether it is news.
    pub fn raise(&mut self, log: LogId, seq: Seq) -> bool {
        let known = self.0.entry(log).or_default();
        let news = *known < seq;
        *known = seq.max(*known);
        news
    }

    /// Notes all that `other` knows.
    pub fn merge(&mut self, other: &Self) {
        for (log, seq) in &other.0 {
            self.raise(*log, *seq);
        }
    }

    /// Tells whether this knows at least what `other` knows.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(log, seq)| self.seq(log) >= *seq)
    }

    /// The logs and their newest records, sorted by log.
    pub fn iter(&self) -> impl Iterator<Item = (LogId, Seq)> + '_ {
        self.0.iter().map(|(log, seq)| (*log, *seq))
    }
}

impl FromIterator<(LogId, Seq)> for Frontier {
    fn from_iter<I: IntoIterator<Item = (LogId, Seq)>>(entries: I) -> Self {
        let mut frontier = Self::new();
        for (log, seq) in entries {
            frontier.raise(log, seq);
        }
        frontier
    }
}

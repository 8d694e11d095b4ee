//! Rows that may wait for others to share a commit with.

use leno_threads_core::store::{Batch, Table};

/// How long rows of the outbox wait at most for other rows, in milliseconds.
///
/// What a peer acknowledges is noted in the outbox. A row of it that is lost costs that its records
/// count as kept by nobody until the next acknowledgement, so no sync is worth it alone.
pub(super) const OUTBOX_MILLIS_MAX: u64 = 1_000;

/// Rows of [`Table::Outbox`] that are not committed yet. They show in every step, since each begins
/// with them.
#[derive(Debug, Default)]
pub(super) struct Held {
    rows: Batch,
    /// When they are committed at the latest; none if there are none.
    until_millis: Option<u64>,
}

impl Held {
    /// Takes out what is held, for a step to add to.
    pub(super) fn take(&mut self) -> Batch {
        std::mem::take(&mut self.rows)
    }

    /// Takes what a step came to, and gives back what is to be committed now: nothing, if only rows
    /// are in it that may wait.
    pub(super) fn pass(&mut self, batch: Batch, now_millis: u64) -> Batch {
        let latest = now_millis.saturating_add(OUTBOX_MILLIS_MAX);
        // A clock that was set back makes nothing wait longer.
        let until = self.until_millis.map_or(latest, |until| until.min(latest));
        let may_wait = batch.writes().all(|(table, ..)| table == Table::Outbox);
        if batch.is_empty() || !may_wait || until <= now_millis {
            self.until_millis = None;
            return batch;
        }
        self.until_millis = Some(until);
        self.rows = batch;
        Batch::new()
    }

    /// When a step is due although nothing happens.
    pub(super) fn wake_millis(&self) -> Option<u64> {
        self.until_millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(tables: &[Table]) -> Batch {
        let mut batch = Batch::new();
        for table in tables {
            batch.put(*table, vec![1], vec![2]);
        }
        batch
    }

    #[test]
    fn outbox_alone_waits_until_its_time() {
        let mut held = Held::default();
        assert_eq!(held.pass(batch(&[Table::Outbox]), 10), Batch::new());
        assert_eq!(held.wake_millis(), Some(10 + OUTBOX_MILLIS_MAX));
        // More of the same does not prolong it.
        let rows = held.take();
        assert_eq!(rows, batch(&[Table::Outbox]));
        assert_eq!(held.pass(rows, 500), Batch::new());
        assert_eq!(held.wake_millis(), Some(10 + OUTBOX_MILLIS_MAX));
        // A clock that is set back does not either.
        let rows = held.take();
        assert_eq!(held.pass(rows, 0), Batch::new());
        assert_eq!(held.wake_millis(), Some(OUTBOX_MILLIS_MAX));
        let rows = held.take();
        let now = held.pass(rows, OUTBOX_MILLIS_MAX);
        assert_eq!(now, batch(&[Table::Outbox]));
        assert_eq!(held.wake_millis(), None);
    }

    #[test]
    fn anything_else_takes_it_along() {
        let mut held = Held::default();
        held.pass(batch(&[Table::Outbox]), 0);
        let mut both = held.take();
        both.extend(batch(&[Table::Runs]));
        assert_eq!(held.pass(both, 1), batch(&[Table::Outbox, Table::Runs]));
        assert_eq!((held.take(), held.wake_millis()), (Batch::new(), None));
    }
}

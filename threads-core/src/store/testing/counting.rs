//! How often a store is looked into.

use std::cell::Cell;
use std::ops::Bound;

use crate::store::{Direction, StoreError, Table, View, Visit};

/// A view that counts the rows that are read: each look-up, found or not, and each row of a scan.
pub struct Counting<'a> {
    view: &'a dyn View,
    rows: &'a Cell<u64>,
}

impl std::fmt::Debug for Counting<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Counting")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<'a> Counting<'a> {
    /// Counts what is read from `view` on top of what `rows` says.
    #[must_use]
    pub fn new(view: &'a dyn View, rows: &'a Cell<u64>) -> Self {
        Self { view, rows }
    }

    fn count(&self) {
        self.rows.set(self.rows.get() + 1);
    }
}

impl View for Counting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.count();
        self.view.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.view.scan(table, from, to, direction, &mut |key, row| {
            self.count();
            visit(key, row)
        })
    }
}

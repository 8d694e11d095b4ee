//! Where the rows of a disk rest.

use std::cell::Cell;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use futures_util::FutureExt as _;
use leno::store::{Batch, Direction, MemoryStore, Store, StoreError, Table, View, Visit};

use super::{DiskKind, medium};
use crate::dice::Dice;

/// The rows of a disk.
#[derive(Debug)]
pub(super) enum Rows {
    Memory(MemoryStore),
    #[cfg(feature = "redb")]
    File(Box<super::file::File>),
}

impl Rows {
    pub(super) fn new(kind: DiskKind) -> Self {
        match kind {
            DiskKind::Rows => Self::Memory(MemoryStore::new()),
            #[cfg(feature = "redb")]
            DiskKind::Redb => Self::File(Box::default()),
        }
    }

    /// The store, if it is open.
    pub(super) fn store(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Memory(rows) => Ok(Arc::new(rows.clone())),
            #[cfg(feature = "redb")]
            Self::File(file) => file.store(),
        }
    }

    pub(super) fn open(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            #[cfg(feature = "redb")]
            Self::File(file) => file.open(),
        }
    }

    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            #[cfg(feature = "redb")]
            Self::File(file) => file.close(),
        }
    }

    pub(super) fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        match self {
            // It never waits.
            Self::Memory(rows) => rows.commit(batch).now_or_never().unwrap_or(Ok(())),
            #[cfg(feature = "redb")]
            Self::File(file) => file.commit(batch),
        }
    }

    /// The power goes in the midst of a commit.
    #[cfg_attr(
        not(feature = "redb"),
        expect(unused_variables, reason = "rows lose nothing")
    )]
    pub(super) fn apply_in_part(&mut self, batch: Batch, dice: &mut Dice) {
        match self {
            Self::Memory(_) => {}
            #[cfg(feature = "redb")]
            Self::File(file) => file.commit_in_part(batch, dice),
        }
    }

    /// The power goes. Tells how many writes were lost, and how many torn.
    #[cfg_attr(
        not(feature = "redb"),
        expect(unused_variables, reason = "rows lose nothing")
    )]
    pub(super) fn crash(&mut self, dice: &mut Dice) -> (u64, u64) {
        match self {
            Self::Memory(_) => (0, 0),
            #[cfg(feature = "redb")]
            Self::File(file) => file.crash(dice),
        }
    }

    /// A copy of everything.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Memory(rows) => Self::Memory(match rows.view() {
                Ok(view) => copy(&*view),
                // Memory does not fail.
                Err(_) => MemoryStore::new(),
            }),
            #[cfg(feature = "redb")]
            Self::File(file) => Self::File(Box::new(file.copy())),
        }
    }
}

/// Copies all rows that a picture shows, as far as it reads.
pub(super) fn copy(view: &dyn View) -> MemoryStore {
    let mut batch = Batch::new();
    for table in Table::ALL {
        let mut put = |key: &[u8], value: &[u8]| {
            batch.put(table, key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        };
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        // What is looked at here does not fail.
        drop(view.scan(table, from, to, Direction::Forward, &mut put));
    }
    let copy = MemoryStore::new();
    drop(copy.commit(batch).now_or_never());
    copy
}

/// A picture of which one read may fail.
pub(super) struct FailingView<'a> {
    view: Box<dyn View + 'a>,
    /// How many reads are left before one fails.
    left: Cell<Option<u64>>,
}

impl<'a> FailingView<'a> {
    pub(super) fn new(view: Box<dyn View + 'a>, left: Option<u64>) -> Self {
        let left = Cell::new(left);
        Self { view, left }
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.left.get() {
            Some(0) => Err(medium("read a row")),
            left => {
                self.left.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

impl View for FailingView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check()?;
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
        self.check()?;
        self.view.scan(table, from, to, direction, visit)
    }
}

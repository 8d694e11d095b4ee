//! What a view reads from: the rows that redb holds, and newer ones that are only in the journal.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use leno_threads_core::store::{
    Batch, Direction, Overlay, StoreError, Table, View, Visit, is_empty_range,
};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition, TableError,
};

use crate::error::{Doing, guard};
use crate::row;
use crate::store::Shared;

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The redb table that holds the rows of a table of the port.
pub(crate) fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// A picture of a store: rows in redb, and what was committed since they were put there.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) base: Arc<Base>,
    pub(crate) fresh: Arc<Batch>,
}

impl Picture {
    /// Takes a picture of what redb holds.
    pub(crate) fn of(database: &Database) -> Result<Self, redb::Error> {
        Ok(Self {
            base: Arc::new(Base::new(database.begin_read()?)),
            fresh: Arc::default(),
        })
    }
}

/// A picture that is read from, as long as its store is open.
pub(crate) struct RedbView<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) picture: Picture,
}

impl View for RedbView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.check()?;
        Overlay::new(&*self.picture.base, &self.picture.fresh).get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.shared.check()?;
        let rows = Overlay::new(&*self.picture.base, &self.picture.fresh);
        rows.scan(table, from, to, direction, visit)
    }
}

/// A read transaction of redb, and the tables that were read from so far.
pub(crate) struct Base {
    // Emptied by `drop` alone.
    inner: Option<Inner>,
}

struct Inner {
    tables: [OnceLock<Option<Rows>>; Table::ALL.len()],
    transaction: ReadTransaction,
}

impl Base {
    fn new(transaction: ReadTransaction) -> Self {
        let tables = [const { OnceLock::new() }; Table::ALL.len()];
        Self {
            inner: Some(Inner {
                tables,
                transaction,
            }),
        }
    }

    fn rows(&self, table: Table) -> Result<Option<&Rows>, StoreError> {
        let inner = self.inner.as_ref().ok_or(StoreError::Poisoned)?;
        let cell = inner
            .tables
            .get(usize::from(table as u8))
            .ok_or(StoreError::Poisoned)?;
        if let Some(rows) = cell.get() {
            return Ok(rows.as_ref());
        }
        let rows = guard(Doing::Read, || {
            match inner.transaction.open_table(definition(table)) {
                Ok(rows) => Ok(Some(rows)),
                // A table comes to be with its first row.
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        Ok(cell.get_or_init(|| rows).as_ref())
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let inner = self.inner.take();
        // There is nobody to tell; the next call of the store meets the same trouble and says so.
        let _ = guard(Doing::Read, || {
            drop(inner);
            Ok(())
        });
    }
}

impl View for Base {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(rows) = self.rows(table)? else {
            return Ok(None);
        };
        guard(Doing::Read, || match rows.get(key)? {
            Some(stored) => Ok(Some(
                row::open(table, key, stored.value()).map(<[u8]>::to_vec),
            )),
            None => Ok(None),
        })?
        .transpose()
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let Some(rows) = self.rows(table)?.filter(|_| !is_empty_range(from, to)) else {
            return Ok(());
        };
        let mut range = guard(Doing::Read, || Ok(rows.range::<&[u8]>((from, to))?))?;
        loop {
            // `visit` stays outside of the guard: the caller's panics are the caller's.
            let next = guard(Doing::Read, || {
                let next = match direction {
                    Direction::Forward => range.next(),
                    Direction::Backward => range.next_back(),
                };
                let Some((key, stored)) = next.transpose()? else {
                    return Ok(None);
                };
                let checked = row::open(table, key.value(), stored.value()).map(<[u8]>::len);
                Ok(Some(checked.map(|bytes| (key, stored, bytes))))
            })?;
            let Some((key, stored, bytes)) = next.transpose()? else {
                return Ok(());
            };
            let value = stored.value().get(..bytes).unwrap_or_default();
            if visit(key.value(), value).is_break() {
                return Ok(());
            }
        }
    }
}

//! The store that forgets: for tests, benchmarks, and applications that keep nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Batch, Direction, Store, StoreError, Table, View, Visit, is_empty_range};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Tables = BTreeMap<Table, Arc<Rows>>;

/// A store in memory. Clones share their rows, so that a test can "restart" a peer on them.
///
/// # Examples
///
/// ```
/// use futures_executor::block_on;
/// use leno_threads_core::store::{Batch, MemoryStore, Store, Table};
///
/// let store = MemoryStore::new();
/// let before = store.view()?;
/// let mut batch = Batch::new();
/// batch.put(Table::Application, b"key".to_vec(), b"row".to_vec());
/// block_on(store.commit(batch))?;
/// // A view does not move; another handle shows the same rows.
/// assert_eq!(before.get(Table::Application, b"key")?, None);
/// let again = store.clone();
/// assert_eq!(again.view()?.get(Table::Application, b"key")?, Some(b"row".to_vec()));
/// # Ok::<(), leno_threads_core::store::StoreError>(())
/// ```
// The lock belongs to this port implementation, not to the logic of the crate.
#[derive(Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    tables: Tables,
}

impl MemoryStore {
    /// Makes a store without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock means that a caller's `visit` panicked; the rows are whole all the same.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self.lock().tables.values().map(|rows| rows.len()).sum();
        formatter
            .debug_struct("MemoryStore")
            .field("rows", &rows)
            .finish()
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Store for MemoryStore {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        Ok(Box::new(MemoryView {
            tables: self.lock().tables.clone(),
        }))
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        let mut inner = self.lock();
        for (table, key, value) in batch.into_writes() {
            // Copied only while a view of it is alive.
            let rows = Arc::make_mut(inner.tables.entry(table).or_default());
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct MemoryView {
    tables: Tables,
}

impl View for MemoryView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .tables
            .get(&table)
            .and_then(|rows| rows.get(key))
            .cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let Some(rows) = self
            .tables
            .get(&table)
            .filter(|_| !is_empty_range(from, to))
        else {
            return Ok(());
        };
        let range = rows.range::<[u8], _>((from, to));
        let mut forward;
        let mut backward;
        let rows: &mut dyn Iterator<Item = (&Vec<u8>, &Vec<u8>)> = match direction {
            Direction::Forward => {
                forward = range;
                &mut forward
            }
            Direction::Backward => {
                backward = range.rev();
                &mut backward
            }
        };
        for (key, value) in rows {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

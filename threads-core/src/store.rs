//! The store port: ordered tables of bytes, a consistent view to read from, atomic batches to write.
//!
//! Pure logic reads through a [`View`] that it borrows and returns one [`Batch`]; only the driver
//! commits it. A store keeps bytes and never learns what they mean. Keys are ordered by their bytes.
//!
//! Two more ports keep objects, which may lie far away and with strangers: [`BlockStore`] bytes under
//! their hash, [`SharedStore`] what several nodes keep of a thread together.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use async_trait::async_trait;

mod blocks;
mod memory;
mod object;
mod shared;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(test)]
mod tests;

pub use blocks::{
    BLOCK_BYTES_MAX, BLOCKS_PER_PAGE_MAX, BlockStore, MemoryBlocks, check_block, check_block_name,
};
pub use memory::MemoryStore;
pub use object::ObjectError;
pub use shared::{
    HEADS_BYTES_MAX, HeadsVersion, ListedSegment, MemoryShared, SEGMENT_BYTES_MAX,
    SEGMENTS_PER_PAGE_MAX, SegmentId, SharedStore, ThreadPlace, check_heads, check_segment,
};

/// Longest key of a row, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest value of a row, in bytes. Records travel in ranges of at most 1 MiB.
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// A table of a store. The number is its name on disk; it never changes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Table {
    /// One row per fact about this peer: device keys, certificate, generation.
    Meta = 0,
    /// One row per thread: genesis, keys held, own seat.
    Threads = 1,
    /// Where each log stands, and how its control frontier grew.
    Logs = 2,
    /// Runs of records, keyed by thread, log and first seq.
    Runs = 3,
    /// Control records, opened, keyed by thread and order of admission.
    Governance = 4,
    /// Key wraps, keyed by thread, epoch, recipient and tag.
    Wraps = 5,
    /// Records that were put aside, with the reason.
    Parked = 6,
    /// Documents' state, keyed by thread, collection and document.
    Documents = 7,
    /// How far each reader of a thread has come.
    Cursors = 8,
    /// How much of each own log another peer keeps.
    Outbox = 9,
    /// Proofs of forks.
    Evidence = 10,
    /// Rows of the application.
    Application = 11,
    /// What this peer and others remember of each other.
    Pairs = 12,
}

impl Table {
    /// All tables, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Meta,
        Self::Threads,
        Self::Logs,
        Self::Runs,
        Self::Governance,
        Self::Wraps,
        Self::Parked,
        Self::Documents,
        Self::Cursors,
        Self::Outbox,
        Self::Evidence,
        Self::Application,
        Self::Pairs,
    ];

    /// The lower-case name, for stores that name their tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Threads => "threads",
            Self::Logs => "logs",
            Self::Runs => "runs",
            Self::Governance => "governance",
            Self::Wraps => "wraps",
            Self::Parked => "parked",
            Self::Documents => "documents",
            Self::Cursors => "cursors",
            Self::Outbox => "outbox",
            Self::Evidence => "evidence",
            Self::Application => "application",
            Self::Pairs => "pairs",
        }
    }
}

/// Why a store did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds the store; close it there.
    #[error("the store is open elsewhere")]
    Locked,
    /// No room is left; free some and open the store again.
    #[error("no room is left for the store")]
    Full,
    /// A part of the store does not read as written; restore it or let peers send it again.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// Which part.
        what: String,
    },
    /// The store was written by a newer version; update, or open a copy.
    #[error("the store has format {found}, this version knows up to {known}")]
    NewerFormat {
        /// Format of the store.
        found: u64,
        /// Newest format that is known.
        known: u64,
    },
    /// A commit did not succeed before, so nothing is certain until the store is opened again.
    #[error("an earlier commit did not succeed; open the store again")]
    Poisoned,
    /// The store was written by an older version, in a format that is no longer read; open it with
    /// that version, or let peers send everything to a new store.
    #[error(
        "the store has format {found}, this version reads from {known} on; open it with an older \
         version, or let peers send everything to a new store"
    )]
    OlderFormat {
        /// Format of the store.
        found: u64,
        /// Oldest format that is read.
        known: u64,
    },
    /// A key or value is longer than [`KEY_BYTES_MAX`] or [`VALUE_BYTES_MAX`].
    #[error("a {what} of {bytes} bytes is too long for the store")]
    TooLong {
        /// "key" or "value".
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// The medium did not do as asked.
    #[error("the store's medium failed while it {doing}")]
    Medium {
        /// What was attempted.
        doing: &'static str,
        /// The adapter's own error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

/// Direction of a scan.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Direction {
    /// From the lowest key up.
    Forward,
    /// From the highest key down.
    Backward,
}

/// What a scan calls with each key and value until it breaks.
pub type Visit<'a> = &'a mut (dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a);

/// A consistent, read-only picture of a store: commits after it was taken do not show.
pub trait View {
    /// Reads one row. A key longer than [`KEY_BYTES_MAX`] is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the medium fails or the row does not read as written.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the rows between two bounds in key order until `visit` breaks.
    ///
    /// Memory does not grow with the number of rows. Bounds that are the wrong way round hold no
    /// rows, which is no error; [`is_empty_range`] tells them.
    ///
    /// # Errors
    ///
    /// As [`View::get`]. Rows visited before the error were good.
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// Where records rest. Implemented by applications and adapters; `MemoryStore` ships here.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait Store: fmt::Debug + Send + Sync {
    /// Takes a consistent picture of everything that is committed. Cheap; many may live at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the medium fails or the store is poisoned.
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError>;

    /// Writes a batch: all of it or nothing, the last write to a row counts.
    ///
    /// Done means durable: after a crash at any later moment the batch is there, and every view
    /// taken from then on shows it. Commits take effect in the order in which their futures are
    /// first polled, also if more than one is under way. A future that is dropped after that leaves
    /// its batch written or not, but whole and in its place. Not idempotent by itself, but every
    /// batch of leno's is: writing it twice leaves the same rows.
    ///
    /// # Errors
    ///
    /// - [`StoreError::TooLong`] as [`Batch::check`] tells; nothing is written, and the store goes on.
    /// - Any other [`StoreError`]; afterwards the store answers [`StoreError::Poisoned`] to every
    ///   further call, because it is unknown what of the batch will survive; opening it again tells.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Waits for what runs and releases the medium. Idempotent; later calls of the others may answer
    /// [`StoreError::Poisoned`]. Dropping a store without it loses nothing that was committed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the medium fails.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Writes that belong together: all of them happen, or none.
///
/// Reading one's own writes before they are committed is [`Overlay`]'s work.
///
/// # Examples
///
/// ```
/// use leno_threads_core::store::{Batch, MemoryStore, Store, Table};
///
/// let store = MemoryStore::new();
/// let mut batch = Batch::new();
/// batch.put(Table::Application, b"colour".to_vec(), b"green".to_vec());
/// futures_executor::block_on(store.commit(batch))?;
/// assert_eq!(store.view()?.get(Table::Application, b"colour")?, Some(b"green".to_vec()));
/// # Ok::<(), leno_threads_core::store::StoreError>(())
/// ```
///
/// # Security
///
/// Rows hold keys and opened documents, so `Debug` shows how much is written, never what.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Batch {
    // Sorted, so that a store writes each table in key order.
    writes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.writes.values().flatten().map(Vec::len).sum();
        formatter
            .debug_struct("Batch")
            .field("writes", &self.writes.len())
            .field("value_bytes", &bytes)
            .finish()
    }
}

impl Batch {
    /// Makes a batch without writes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a row.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert((table, key), Some(value));
    }

    /// Removes a row, if it is there.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.insert((table, key), None);
    }

    /// Adds all writes of a later batch.
    pub fn extend(&mut self, later: Self) {
        self.writes.extend(later.writes);
    }

    /// Tells whether nothing would be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The writes, at most one per row, sorted by table and key; `None` removes the row.
    pub fn writes(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.writes
            .iter()
            .map(|((table, key), value)| (*table, key.as_slice(), value.as_deref()))
    }

    /// Takes the writes out, at most one per row, sorted by table and key.
    pub fn into_writes(self) -> impl Iterator<Item = (Table, Vec<u8>, Option<Vec<u8>>)> {
        self.writes
            .into_iter()
            .map(|((table, key), value)| (table, key, value))
    }

    /// Checks that every key and value is within the bounds of the port.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLong`].
    pub fn check(&self) -> Result<(), StoreError> {
        for ((_, key), value) in &self.writes {
            if key.len() > KEY_BYTES_MAX {
                return Err(StoreError::TooLong {
                    what: "key",
                    bytes: key.len(),
                });
            }
            let bytes = value.as_ref().map_or(0, Vec::len);
            if bytes > VALUE_BYTES_MAX {
                return Err(StoreError::TooLong {
                    what: "value",
                    bytes,
                });
            }
        }
        Ok(())
    }
}

/// A view in which the writes of a batch already show.
pub struct Overlay<'a> {
    under: &'a dyn View,
    batch: &'a Batch,
}

impl<'a> Overlay<'a> {
    /// Lays a batch over a view.
    #[must_use]
    pub fn new(under: &'a dyn View, batch: &'a Batch) -> Self {
        Self { under, batch }
    }
}

impl fmt::Debug for Overlay<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Overlay")
            .field("batch", self.batch)
            .finish_non_exhaustive()
    }
}

impl View for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if self.batch.is_empty() {
            return self.under.get(table, key);
        }
        match self.batch.writes.get(&(table, key.to_vec())) {
            Some(value) => Ok(value.clone()),
            None => self.under.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let Some(mut fresh) = self.writes_between(table, from, to) else {
            return self.under.scan(table, from, to, direction, visit);
        };
        if direction == Direction::Backward {
            fresh.reverse();
        }
        let before = |a: &[u8], b: &[u8]| match direction {
            Direction::Forward => a < b,
            Direction::Backward => a > b,
        };
        let mut fresh = fresh.into_iter().peekable();
        let mut stopped = false;
        self.under
            .scan(table, from, to, direction, &mut |key, value| {
                while let Some((own_key, own)) = fresh.next_if(|(own_key, _)| before(own_key, key))
                {
                    if let Some(own) = own
                        && visit(own_key, own).is_break()
                    {
                        stopped = true;
                        return ControlFlow::Break(());
                    }
                }
                let replaced = fresh.next_if(|(own_key, _)| *own_key == key);
                let flow = match replaced {
                    Some((_, None)) => ControlFlow::Continue(()),
                    Some((_, Some(own))) => visit(key, own),
                    None => visit(key, value),
                };
                stopped |= flow.is_break();
                flow
            })?;
        for (key, own) in fresh {
            if stopped {
                break;
            }
            if let Some(own) = own {
                stopped = visit(key, own).is_break();
            }
        }
        Ok(())
    }
}

type FreshRow<'a> = (&'a [u8], Option<&'a [u8]>);

impl Overlay<'_> {
    fn writes_between(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Option<Vec<FreshRow<'_>>> {
        if self.batch.is_empty() || is_empty_range(from, to) {
            return None;
        }
        // Only the start is given to the map, so that its end need not be found for each table.
        let start = match from {
            Bound::Included(from) => Bound::Included((table, from.to_vec())),
            Bound::Excluded(from) => Bound::Excluded((table, from.to_vec())),
            Bound::Unbounded => Bound::Included((table, Vec::new())),
        };
        let before_end = |key: &[u8]| match to {
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
            Bound::Unbounded => true,
        };
        let rows: Vec<FreshRow<'_>> = self
            .batch
            .writes
            .range((start, Bound::Unbounded))
            .take_while(|((at, key), _)| *at == table && before_end(key))
            .map(|((_, key), value)| (key.as_slice(), value.as_deref()))
            .collect();
        (!rows.is_empty()).then_some(rows)
    }
}

/// Tells whether no key can lie between two bounds: they are the wrong way round, or meet and one
/// of them is excluded.
///
/// For implementers of [`View::scan`]: the ranges of `BTreeMap`, for one, panic on such bounds.
#[must_use]
pub fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

/// Visits the rows whose keys begin with `prefix`, in key order.
///
/// # Errors
///
/// As [`View::scan`].
pub fn scan_prefix(
    view: &dyn View,
    table: Table,
    prefix: &[u8],
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    let end = prefix_end(prefix);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    view.scan(
        table,
        Bound::Included(prefix),
        to,
        Direction::Forward,
        visit,
    )
}

/// The least key above all keys that begin with `prefix`, or `None` if there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

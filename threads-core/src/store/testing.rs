//! The contracts of [`Store`], [`BlockStore`](super::BlockStore) and
//! [`SharedStore`](super::SharedStore) as checks that every implementer runs.
//!
//! Each check panics with the clause that is broken. None needs a runtime, a clock or a second
//! thread, so they run under any executor.

mod blocks;
mod calls;
mod counting;
mod dice;
mod places;
mod random;
mod reads;
mod shared;
mod writes;

use async_trait::async_trait;

use super::{Store, StoreError};
use calls::fresh;

pub use blocks::{
    block_conformance, blocks_are_listed_in_pages, blocks_are_put_read_and_deleted,
    bytes_that_are_not_as_named_are_refused, names_of_other_kinds_are_refused,
};
pub use counting::Counting;
pub use places::{closing_twice_is_no_error, rows_outlive_their_handle, second_open_is_refused};
pub use random::random_batches_match_a_map;
pub use reads::{
    keys_are_ordered_by_their_bytes, scan_stops_when_told, scans_keep_to_their_bounds,
    views_do_not_move,
};
pub use shared::{
    heads_are_created_once, heads_are_replaced_only_by_who_knows_them,
    segments_are_listed_in_pages, segments_are_put_read_and_deleted,
    segments_that_are_not_as_named_are_refused, shared_conformance, threads_are_apart,
};
pub use writes::{
    abandoned_commit_is_whole, batch_is_whole, commits_keep_their_order,
    empty_keys_and_values_are_rows, last_write_counts, limits_are_refused_whole,
    rows_are_written_read_and_deleted, tables_are_apart,
};

/// Opens the stores that are checked.
///
/// # Examples
///
/// ```
/// use async_trait::async_trait;
/// use leno_threads_core::store::testing::{StoreFactory, conformance};
/// use leno_threads_core::store::{MemoryStore, Store, StoreError};
///
/// struct Forgetful;
///
/// #[async_trait]
/// impl StoreFactory for Forgetful {
///     async fn open(&self, _place: u32) -> Result<Box<dyn Store>, StoreError> {
///         Ok(Box::new(MemoryStore::new()))
///     }
///     fn keeps_rows(&self) -> bool {
///         false
///     }
/// }
///
/// futures_executor::block_on(conformance(&Forgetful));
/// ```
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait StoreFactory: Send + Sync {
    /// Opens the store at a place: without rows the first time, what was left there later on.
    ///
    /// Places share nothing. A check that opens a place again has closed or dropped the store there,
    /// but for [`second_open_is_refused`].
    ///
    /// # Errors
    ///
    /// [`StoreError`], as an application would meet it.
    async fn open(&self, place: u32) -> Result<Box<dyn Store>, StoreError>;

    /// Tells whether rows outlive their handle. If not, the checks of opening again are left out.
    fn keeps_rows(&self) -> bool {
        true
    }

    /// Tells whether a second open of a place gives [`StoreError::Locked`] while the first lives.
    fn is_exclusive(&self) -> bool {
        false
    }
}

/// Runs all checks, each at a place of its own from 0 up.
///
/// # Panics
///
/// With the clause that is broken.
pub async fn conformance(factory: &dyn StoreFactory) {
    rows_are_written_read_and_deleted(&*fresh(factory, 0).await).await;
    batch_is_whole(&*fresh(factory, 1).await).await;
    last_write_counts(&*fresh(factory, 2).await).await;
    keys_are_ordered_by_their_bytes(&*fresh(factory, 3).await).await;
    scans_keep_to_their_bounds(&*fresh(factory, 4).await).await;
    scan_stops_when_told(&*fresh(factory, 5).await).await;
    views_do_not_move(&*fresh(factory, 6).await).await;
    limits_are_refused_whole(&*fresh(factory, 7).await).await;
    empty_keys_and_values_are_rows(&*fresh(factory, 8).await).await;
    tables_are_apart(&*fresh(factory, 9).await).await;
    commits_keep_their_order(&*fresh(factory, 10).await).await;
    abandoned_commit_is_whole(&*fresh(factory, 11).await).await;
    random_batches_match_a_map(&*fresh(factory, 12).await, 12).await;
    closing_twice_is_no_error(&*fresh(factory, 13).await).await;
    if factory.keeps_rows() {
        rows_outlive_their_handle(factory, 14).await;
    }
    if factory.is_exclusive() {
        second_open_is_refused(factory, 15).await;
    }
}

//! Checks of places that are closed and opened again.

use super::super::{Batch, Store, StoreError, Table};
use super::StoreFactory;
use super::calls::{Rows, commit, good, open, put, rows};
use super::dice::Dice;

/// Checks that a store may be closed more than once.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn closing_twice_is_no_error(store: &dyn Store) {
    put(store, Table::Meta, b"key", b"value").await;
    good("close", store.close().await);
    good("closing again", store.close().await);
    if let Err(error) = store.view() {
        assert!(
            matches!(error, StoreError::Poisoned),
            "a closed store is Poisoned, not {error:?}"
        );
    }
}

/// Checks that all rows are there when a place is opened again, whether its store was closed or
/// only dropped.
///
/// # Panics
///
/// With the clause that is broken. The store at `place` has no rows.
pub async fn rows_outlive_their_handle(factory: &dyn StoreFactory, place: u32) {
    let mut dice = Dice::new(u64::from(place));
    let mut model = Rows::new();
    for generation in 0..4_u8 {
        let store = open(factory, place).await;
        let rows: Rows = rows(&*store, Table::Evidence).into_iter().collect();
        assert!(
            rows == model,
            "rows outlive their handle: generation {generation}"
        );
        let mut batch = Batch::new();
        for _ in 0..50 {
            let (key, value) = (dice.key(), dice.value());
            model.insert(key.clone(), value.clone());
            batch.put(Table::Evidence, key, value);
        }
        if let Some((key, _)) = model.pop_first() {
            batch.delete(Table::Evidence, key);
        }
        commit(&*store, batch).await;
        if generation % 2 == 0 {
            good("close", store.close().await);
        }
    }
}

/// Checks that a place that is open cannot be opened, and that it can once it is closed.
///
/// # Panics
///
/// With the clause that is broken. The store at `place` has no rows.
pub async fn second_open_is_refused(factory: &dyn StoreFactory, place: u32) {
    let first = open(factory, place).await;
    put(&*first, Table::Meta, b"key", b"value").await;
    match factory.open(place).await {
        Err(StoreError::Locked) => {}
        Err(error) => panic!("a second open is refused as Locked, not as {error:?}"),
        Ok(_) => panic!("a second open is refused as Locked, but it was let in"),
    }
    put(&*first, Table::Meta, b"after", b"value").await;
    good("close", first.close().await);
    let second = open(factory, place).await;
    assert_eq!(
        rows(&*second, Table::Meta).len(),
        2,
        "a refused open harms nothing"
    );
    drop(first);
    drop(second);
    drop(open(factory, place).await);
}

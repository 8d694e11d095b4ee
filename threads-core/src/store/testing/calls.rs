//! Calls that panic where a good medium gives no error, and comparisons.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{Bound, ControlFlow};
use std::task::{Context, Poll, Waker};

use super::super::{Batch, Direction, Store, StoreError, Table, View};
use super::StoreFactory;

pub(super) type Row = (Vec<u8>, Vec<u8>);
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn good<T>(call: &str, result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{call} succeeds on a good medium, but: {error}"),
    }
}

pub(super) async fn open(factory: &dyn StoreFactory, place: u32) -> Box<dyn Store> {
    good("open", factory.open(place).await)
}

pub(super) async fn fresh(factory: &dyn StoreFactory, place: u32) -> Box<dyn Store> {
    let store = open(factory, place).await;
    for table in Table::ALL {
        assert_eq!(
            rows(&*store, table),
            [],
            "a place is opened without rows the first time"
        );
    }
    store
}

pub(super) fn view(store: &dyn Store) -> Box<dyn View + '_> {
    good("view", store.view())
}

pub(super) async fn commit(store: &dyn Store, batch: Batch) {
    good("commit", store.commit(batch).await);
}

pub(super) async fn put(store: &dyn Store, table: Table, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(table, key.to_vec(), value.to_vec());
    commit(store, batch).await;
}

pub(super) async fn delete(store: &dyn Store, table: Table, key: &[u8]) {
    let mut batch = Batch::new();
    batch.delete(table, key.to_vec());
    commit(store, batch).await;
}

pub(super) fn get(store: &dyn Store, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    good("get", view(store).get(table, key))
}

pub(super) fn rows(store: &dyn Store, table: Table) -> Vec<Row> {
    scan(&*view(store), table)
}

pub(super) fn scan(view: &dyn View, table: Table) -> Vec<Row> {
    scan_between(
        view,
        table,
        Bound::Unbounded,
        Bound::Unbounded,
        Direction::Forward,
    )
}

pub(super) fn scan_between(
    view: &dyn View,
    table: Table,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    direction: Direction,
) -> Vec<Row> {
    let mut found = Vec::new();
    let scanned = view.scan(table, from, to, direction, &mut |key, value| {
        found.push(row(key, value));
        ControlFlow::Continue(())
    });
    good("scan", scanned);
    found
}

pub(super) fn row(key: &[u8], value: &[u8]) -> Row {
    (key.to_vec(), value.to_vec())
}

pub(super) fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> Row {
    row(key, value)
}

// The length is part of the type of literals like `b"one"`.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it is compared with what `get` gives"
)]
pub(super) fn some(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec())
}

/// Polls a future once, with nobody to wake.
pub(super) fn poll_once<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

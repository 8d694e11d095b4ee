//! The contract of [`Store`] as checks that every implementer runs.
//!
//! Each check panics with the clause that is broken. None needs a runtime, a clock or a second
//! thread, so they run under any executor.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{Bound, ControlFlow};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;

use super::{
    Batch, Direction, KEY_BYTES_MAX, Overlay, Store, StoreError, Table, VALUE_BYTES_MAX, View,
    scan_prefix,
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

/// Checks that a row reads as written, is replaced, and is gone once deleted.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn rows_are_written_read_and_deleted(store: &dyn Store) {
    for table in Table::ALL {
        assert_eq!(
            get(store, table, b"key"),
            None,
            "a new store has no rows: {table:?}"
        );
        assert_eq!(rows(store, table), [], "a new store has no rows: {table:?}");
    }
    put(store, Table::Logs, b"key", b"one").await;
    assert_eq!(
        get(store, Table::Logs, b"key"),
        some(b"one"),
        "get gives what was put"
    );
    assert_eq!(
        get(store, Table::Logs, b"ke"),
        None,
        "get takes the whole key"
    );
    assert_eq!(
        get(store, Table::Logs, b"key\0"),
        None,
        "get takes no longer key"
    );
    put(store, Table::Logs, b"key", b"another").await;
    assert_eq!(
        get(store, Table::Logs, b"key"),
        some(b"another"),
        "put replaces"
    );
    assert_eq!(
        rows(store, Table::Logs).len(),
        1,
        "put replaces, and adds no row"
    );
    delete(store, Table::Logs, b"key").await;
    assert_eq!(get(store, Table::Logs, b"key"), None, "delete removes");
    assert_eq!(rows(store, Table::Logs), [], "delete removes from scans");
    delete(store, Table::Logs, b"key").await;
    assert_eq!(
        get(store, Table::Logs, b"key"),
        None,
        "deleting what is not there is no error"
    );
    commit(store, Batch::new()).await;
}

/// Checks that a batch over several tables shows as one.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn batch_is_whole(store: &dyn Store) {
    put(store, Table::Meta, b"old", b"old").await;
    let mut batch = Batch::new();
    for table in Table::ALL {
        batch.put(table, b"new".to_vec(), table.name().as_bytes().to_vec());
    }
    batch.delete(Table::Meta, b"old".to_vec());
    commit(store, batch).await;
    let view = view(store);
    for table in Table::ALL {
        let found = good("get", view.get(table, b"new"));
        assert_eq!(
            found,
            some(table.name().as_bytes()),
            "a batch writes all tables: {table:?}"
        );
    }
    assert_eq!(
        good("get", view.get(Table::Meta, b"old")),
        None,
        "a batch deletes and puts"
    );
}

/// Checks that of several writes to one row in a batch the last counts.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn last_write_counts(store: &dyn Store) {
    let mut batch = Batch::new();
    batch.put(Table::Cursors, b"a".to_vec(), b"first".to_vec());
    batch.put(Table::Cursors, b"a".to_vec(), b"second".to_vec());
    batch.put(Table::Cursors, b"b".to_vec(), b"first".to_vec());
    batch.delete(Table::Cursors, b"b".to_vec());
    batch.delete(Table::Cursors, b"c".to_vec());
    batch.put(Table::Cursors, b"c".to_vec(), b"last".to_vec());
    let mut later = Batch::new();
    later.put(Table::Cursors, b"d".to_vec(), b"later".to_vec());
    batch.put(Table::Cursors, b"d".to_vec(), b"earlier".to_vec());
    batch.extend(later);
    commit(store, batch).await;
    let expected = [
        row(b"a", b"second"),
        row(b"c", b"last"),
        row(b"d", b"later"),
    ];
    assert_eq!(
        rows(store, Table::Cursors),
        expected,
        "the last write to a row counts"
    );
}

/// Checks that scans go by the bytes of keys: unsigned, and a prefix before what it begins.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn keys_are_ordered_by_their_bytes(store: &dyn Store) {
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    keys.extend((0..=u8::MAX).map(|byte| vec![0x7f, byte]));
    keys.extend([
        vec![0, 0, 1],
        vec![0xff; 9],
        vec![0xff; KEY_BYTES_MAX],
        b"a".repeat(100),
    ]);
    keys.sort();
    let mut batch = Batch::new();
    for key in keys.iter().rev() {
        batch.put(Table::Runs, key.clone(), b"value".to_vec());
    }
    commit(store, batch).await;
    let found: Vec<Vec<u8>> = rows(store, Table::Runs)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert!(found == keys, "keys are ordered by their bytes");
}

/// Checks all kinds of bounds, both directions, and bounds the wrong way round.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn scans_keep_to_their_bounds(store: &dyn Store) {
    let model: Rows = (0..40_u8)
        .map(|at| (vec![at / 5 * 2, at % 5], vec![at]))
        .collect();
    let mut batch = Batch::new();
    for (key, value) in &model {
        batch.put(Table::Documents, key.clone(), value.clone());
    }
    // Neighbours that no scan of the table between them may show.
    batch.put(Table::Parked, vec![255], b"below".to_vec());
    batch.put(Table::Cursors, vec![0], b"above".to_vec());
    commit(store, batch).await;
    let view = view(store);
    let ends = [
        &[][..],
        &[0],
        &[4, 2],
        &[5],
        &[4, 2, 0],
        &[14, 4],
        &[255, 255],
    ];
    let bounds = || {
        let each = |end| [Bound::Included(end), Bound::Excluded(end)];
        ends.into_iter().flat_map(each).chain([Bound::Unbounded])
    };
    for from in bounds() {
        for to in bounds() {
            check_scan(&*view, &model, Table::Documents, from, to);
        }
    }
    for prefix in [&[][..], &[4], &[5], &[4, 2], &[255]] {
        let mut found = Vec::new();
        good(
            "scan",
            scan_prefix(&*view, Table::Documents, prefix, &mut |key, value| {
                found.push(row(key, value));
                ControlFlow::Continue(())
            }),
        );
        let expected: Vec<Row> = model
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(owned)
            .collect();
        assert_eq!(
            found, expected,
            "scan_prefix shows the rows with the prefix {prefix:?}"
        );
    }
}

/// Checks that a scan visits nothing after the visitor breaks, in both directions.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn scan_stops_when_told(store: &dyn Store) {
    let mut batch = Batch::new();
    for at in 0..100_u8 {
        batch.put(Table::Outbox, vec![at], vec![at; 100]);
    }
    commit(store, batch).await;
    let view = view(store);
    for (direction, last) in [(Direction::Forward, 2), (Direction::Backward, 97)] {
        let mut seen = Vec::new();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let scanned = view.scan(Table::Outbox, all.0, all.1, direction, &mut |key, _| {
            seen.extend_from_slice(key);
            let found = good("get", view.get(Table::Outbox, key));
            assert_eq!(
                found,
                Some(key.repeat(100)),
                "a view is read while it is scanned"
            );
            if seen.len() == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        good("scan", scanned);
        assert_eq!(seen.len(), 3, "a scan stops when told: {direction:?}");
        assert_eq!(
            seen.last(),
            Some(&last),
            "a scan goes its direction: {direction:?}"
        );
    }
}

/// Checks that a view shows the moment it was taken, whatever is committed later, also while it is
/// scanned; and that views of several moments live side by side.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn views_do_not_move(store: &dyn Store) {
    let before = view(store);
    let mut batch = Batch::new();
    for at in 0..200_u8 {
        batch.put(Table::Governance, vec![at], b"first".to_vec());
    }
    commit(store, batch).await;
    let first = view(store);

    let mut later = Batch::new();
    for at in 0..=u8::MAX {
        match at % 3 {
            0 => later.delete(Table::Governance, vec![at]),
            1 => later.put(Table::Governance, vec![at], b"second".to_vec()),
            _ => {}
        }
    }
    // The scan is under way when the commit is made.
    let mut under_way = Box::pin(store.commit(later));
    let mut polled = Poll::Pending;
    let mut visited = 0;
    let scanned = first.scan(
        Table::Governance,
        Bound::Unbounded,
        Bound::Unbounded,
        Direction::Forward,
        &mut |key, value| {
            if polled.is_pending() {
                polled = poll_once(under_way.as_mut());
            }
            assert_eq!(
                row(key, value),
                row(&[visited], b"first"),
                "a scan shows its view only"
            );
            visited += 1;
            ControlFlow::Continue(())
        },
    );
    good("scan", scanned);
    assert_eq!(visited, 200, "a scan shows all of its view");
    let result = match polled {
        Poll::Ready(result) => result,
        Poll::Pending => under_way.await,
    };
    good("commit", result);

    let second = view(store);
    for (at, expected) in [(0_u8, None), (1, some(b"second")), (2, some(b"first"))] {
        assert_eq!(
            good("get", second.get(Table::Governance, &[at])),
            expected,
            "a new view"
        );
        assert_eq!(
            good("get", first.get(Table::Governance, &[at])),
            some(b"first"),
            "an old view"
        );
        assert_eq!(
            good("get", before.get(Table::Governance, &[at])),
            None,
            "the oldest view"
        );
    }
    assert_eq!(
        scan(&*before, Table::Governance),
        [],
        "the oldest view has no rows"
    );
    drop(first);
    assert_eq!(
        scan(&*second, Table::Governance).len(),
        151,
        "views end independently"
    );
}

/// Checks the longest key and value, and that anything longer refuses the whole batch and leaves
/// the store usable.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn limits_are_refused_whole(store: &dyn Store) {
    let longest_key = vec![b'k'; KEY_BYTES_MAX];
    let longest_value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    put(store, Table::Runs, &longest_key, &longest_value).await;
    let found = get(store, Table::Runs, &longest_key);
    assert!(
        found.as_ref() == Some(&longest_value),
        "the longest key and value are a row"
    );

    let refused = |key: usize, value: Option<usize>| {
        let mut batch = Batch::new();
        batch.put(Table::Meta, b"beside".to_vec(), b"value".to_vec());
        match value {
            Some(value) => batch.put(Table::Runs, vec![b'k'; key], vec![0; value]),
            None => batch.delete(Table::Runs, vec![b'k'; key]),
        }
        batch
    };
    let (key, value) = (KEY_BYTES_MAX + 1, VALUE_BYTES_MAX + 1);
    let cases = [
        (refused(key, Some(0)), "key", key),
        (refused(key, None), "key", key),
        (refused(1, Some(value)), "value", value),
    ];
    for (batch, expected_what, expected_bytes) in cases {
        match store.commit(batch).await {
            Err(StoreError::TooLong { what, bytes }) => {
                assert_eq!(
                    (what, bytes),
                    (expected_what, expected_bytes),
                    "TooLong says what"
                );
            }
            other => panic!("too long a {expected_what} is refused as TooLong, not {other:?}"),
        }
        assert_eq!(
            get(store, Table::Meta, b"beside"),
            None,
            "a refused batch writes nothing"
        );
    }
    let too_long = vec![b'k'; KEY_BYTES_MAX + 1];
    assert_eq!(
        get(store, Table::Runs, &too_long),
        None,
        "no row has too long a key"
    );
    put(store, Table::Meta, b"after", b"value").await;
    assert_eq!(
        get(store, Table::Meta, b"after"),
        some(b"value"),
        "a refusal poisons nothing"
    );
}

/// Checks that the empty key is the first of its table, and the empty value is a value.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn empty_keys_and_values_are_rows(store: &dyn Store) {
    put(store, Table::Wraps, b"", b"").await;
    put(store, Table::Wraps, b"\0", b"").await;
    assert_eq!(
        get(store, Table::Wraps, b""),
        some(b""),
        "the empty key and value are a row"
    );
    assert_eq!(
        rows(store, Table::Wraps),
        [row(b"", b""), row(b"\0", b"")],
        "the empty key is first"
    );
    delete(store, Table::Wraps, b"").await;
    assert_eq!(
        rows(store, Table::Wraps),
        [row(b"\0", b"")],
        "the empty key is deleted alone"
    );
}

/// Checks that one key names another row in each table.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn tables_are_apart(store: &dyn Store) {
    for table in Table::ALL {
        put(store, table, b"key", table.name().as_bytes()).await;
    }
    delete(store, Table::Documents, b"key").await;
    for table in Table::ALL {
        let expected = (table != Table::Documents).then(|| row(b"key", table.name().as_bytes()));
        assert_eq!(
            rows(store, table),
            Vec::from_iter(expected),
            "tables are apart: {table:?}"
        );
    }
}

/// Checks that commits take effect in the order in which they are first polled.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn commits_keep_their_order(store: &dyn Store) {
    let numbered = |at: u8| {
        let mut batch = Batch::new();
        batch.put(Table::Threads, b"row".to_vec(), vec![at]);
        batch.put(Table::Threads, vec![at], vec![at]);
        batch
    };
    let mut under_way = Vec::new();
    for at in 0..8 {
        let mut commit = Box::pin(store.commit(numbered(at)));
        let polled = poll_once(commit.as_mut());
        under_way.push((commit, polled));
    }
    // The last is awaited first; those before it are done by then.
    for (commit, polled) in under_way.into_iter().rev() {
        let result = match polled {
            Poll::Ready(result) => result,
            Poll::Pending => commit.await,
        };
        good("commit", result);
        assert_eq!(
            get(store, Table::Threads, b"row"),
            Some(vec![7]),
            "commits keep their order"
        );
    }
    assert_eq!(
        rows(store, Table::Threads).len(),
        9,
        "commits under way are all written"
    );
}

/// Checks that a commit whose future is dropped leaves all of its batch or nothing.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn abandoned_commit_is_whole(store: &dyn Store) {
    for at in 0..8_u8 {
        let mut batch = Batch::new();
        for table in Table::ALL {
            batch.put(table, vec![at], vec![at]);
        }
        {
            let mut abandoned = pin!(store.commit(batch));
            let _ = poll_once(abandoned.as_mut());
        }
        put(store, Table::Meta, b"row", &[at]).await;
        let view = view(store);
        let found: Vec<_> = Table::ALL
            .iter()
            .map(|table| good("get", view.get(*table, &[at])))
            .collect();
        let whole = found.iter().all(Option::is_some) || found.iter().all(Option::is_none);
        assert!(whole, "an abandoned commit is written whole or not at all");
        let row = good("get", view.get(Table::Meta, b"row"));
        assert_eq!(
            row,
            Some(vec![at]),
            "a store goes on after an abandoned commit"
        );
    }
}

/// Checks random batches and reads, from `seed`, against sorted maps.
///
/// # Panics
///
/// With the clause that is broken. `store` has no rows.
pub async fn random_batches_match_a_map(store: &dyn Store, seed: u64) {
    let tables = [
        Table::Meta,
        Table::Runs,
        Table::Documents,
        Table::Application,
    ];
    let mut dice = Dice::new(seed);
    let mut model: BTreeMap<Table, Rows> = BTreeMap::new();
    for _ in 0..60 {
        let mut batch = Batch::new();
        for _ in 0..dice.below(40) {
            let table = dice.pick(&tables);
            let key = dice.key();
            let model = model.entry(table).or_default();
            if dice.below(3) == 0 {
                batch.delete(table, key.clone());
                model.remove(&key);
            } else {
                let value = dice.value();
                batch.put(table, key.clone(), value.clone());
                model.insert(key, value);
            }
        }
        // Reading one's own writes must give what the commit will.
        {
            let view = view(store);
            let overlay = Overlay::new(&*view, &batch);
            compare(&overlay, &model, &tables, &mut dice);
        }
        commit(store, batch).await;
        compare(&*view(store), &model, &tables, &mut dice);
    }
}

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

type Row = (Vec<u8>, Vec<u8>);
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn good<T>(call: &str, result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{call} succeeds on a good medium, but: {error}"),
    }
}

async fn open(factory: &dyn StoreFactory, place: u32) -> Box<dyn Store> {
    good("open", factory.open(place).await)
}

async fn fresh(factory: &dyn StoreFactory, place: u32) -> Box<dyn Store> {
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

fn view(store: &dyn Store) -> Box<dyn View + '_> {
    good("view", store.view())
}

async fn commit(store: &dyn Store, batch: Batch) {
    good("commit", store.commit(batch).await);
}

async fn put(store: &dyn Store, table: Table, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(table, key.to_vec(), value.to_vec());
    commit(store, batch).await;
}

async fn delete(store: &dyn Store, table: Table, key: &[u8]) {
    let mut batch = Batch::new();
    batch.delete(table, key.to_vec());
    commit(store, batch).await;
}

fn get(store: &dyn Store, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    good("get", view(store).get(table, key))
}

fn rows(store: &dyn Store, table: Table) -> Vec<Row> {
    scan(&*view(store), table)
}

fn scan(view: &dyn View, table: Table) -> Vec<Row> {
    scan_between(
        view,
        table,
        Bound::Unbounded,
        Bound::Unbounded,
        Direction::Forward,
    )
}

fn scan_between(
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

fn row(key: &[u8], value: &[u8]) -> Row {
    (key.to_vec(), value.to_vec())
}

fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> Row {
    row(key, value)
}

// The length is part of the type of literals like `b"one"`.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it is compared with what `get` gives"
)]
fn some(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec())
}

/// Compares a scan with a filter over all rows, which knows nothing of order or ranges.
fn check_scan(view: &dyn View, model: &Rows, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) {
    let inside = |key: &[u8]| {
        let after = match from {
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
            Bound::Unbounded => true,
        };
        let before = match to {
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
            Bound::Unbounded => true,
        };
        after && before
    };
    let mut expected: Vec<Row> = model
        .iter()
        .filter(|(key, _)| inside(key))
        .map(owned)
        .collect();
    for direction in [Direction::Forward, Direction::Backward] {
        let found = scan_between(view, table, from, to, direction);
        assert!(
            found == expected,
            "a scan keeps to its bounds: {from:?} {to:?} {direction:?} gave {} rows, not {}",
            found.len(),
            expected.len(),
        );
        expected.reverse();
    }
}

fn compare(view: &dyn View, model: &BTreeMap<Table, Rows>, tables: &[Table], dice: &mut Dice) {
    let none = Rows::new();
    for table in tables {
        let model = model.get(table).unwrap_or(&none);
        check_scan(view, model, *table, Bound::Unbounded, Bound::Unbounded);
        let (from, to) = (dice.key(), dice.key());
        let mut bound = |key| match dice.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Excluded(key),
            _ => Bound::Included(key),
        };
        check_scan(
            view,
            model,
            *table,
            bound(from.as_slice()),
            bound(to.as_slice()),
        );
        let key = dice.key();
        let found = good("get", view.get(*table, &key));
        assert_eq!(found.as_ref(), model.get(&key), "get agrees with a map");
    }
}

/// Polls a future once, with nobody to wake.
fn poll_once<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A small generator (xorshift64*), so that the suite needs no dependency.
struct Dice {
    state: u64,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self {
            state: seed ^ 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    fn pick<T: Copy, const N: usize>(&mut self, of: &[T; N]) -> T {
        let [first, ..] = of.as_slice() else {
            panic!("there is something to pick from")
        };
        of.get(self.below(N)).copied().unwrap_or(*first)
    }

    /// Short keys over few letters, so that rows meet.
    fn key(&mut self) -> Vec<u8> {
        (0..self.below(5))
            .map(|_| self.pick(&[0, 1, 127, 255]))
            .collect()
    }

    /// Mostly small values; some that need pages of their own.
    fn value(&mut self) -> Vec<u8> {
        let bytes = match self.below(20) {
            0 => self.below(20_000),
            1 => 0,
            _ => self.below(300),
        };
        let seed = self.next().to_le_bytes();
        seed.into_iter().cycle().take(bytes).collect()
    }
}

//! Checks of what is written: rows, batches, limits, and the order of commits.

use std::pin::pin;
use std::task::Poll;

use super::super::{Batch, KEY_BYTES_MAX, Store, StoreError, Table, VALUE_BYTES_MAX};
use super::calls::{commit, delete, get, good, poll_once, put, row, rows, some, view};

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

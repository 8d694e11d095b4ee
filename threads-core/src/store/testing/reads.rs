//! Checks of what is read: the order of keys, bounds, and views that do not move.

use std::ops::{Bound, ControlFlow};
use std::task::Poll;

use super::super::{Batch, Direction, KEY_BYTES_MAX, Store, Table, scan_prefix};
use super::calls::{Row, Rows, commit, good, owned, poll_once, row, rows, scan, some, view};
use super::random::check_scan;

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

//! Random batches and reads beside sorted maps.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::{Batch, Direction, Overlay, Store, Table, View};
use super::calls::{Row, Rows, commit, good, owned, scan_between, view};
use super::dice::Dice;

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

/// Compares a scan with a filter over all rows, which knows nothing of order or ranges.
pub(super) fn check_scan(
    view: &dyn View,
    model: &Rows,
    table: Table,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) {
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

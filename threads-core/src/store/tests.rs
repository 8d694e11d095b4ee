//! The port's own pieces: batches, overlays, ranges; and the memory store against the contract.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_executor::block_on;
use proptest::prelude::*;

use super::testing::{StoreFactory, conformance};
use super::*;

#[derive(Default)]
struct Places {
    stores: Mutex<BTreeMap<u32, MemoryStore>>,
}

#[async_trait]
impl StoreFactory for Places {
    async fn open(&self, place: u32) -> Result<Box<dyn Store>, StoreError> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(stores.entry(place).or_default().clone()))
    }
}

#[test]
fn memory_store_keeps_the_contract() {
    block_on(conformance(&Places::default()));
}

/// A suite that passes everything proves nothing: each broken store must be caught.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a fault is one way among many to be right"
)]
mod broken {
    use super::*;

    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Fault {
        KeepsDeletedRows,
        ForgetsTheLastWrite,
        MixesTables,
        ChecksNothing,
        ReadsThroughViews,
        IgnoresBreak,
        IncludesTheEnd,
        ScansForwardOnly,
        LosesEmptyValues,
    }

    #[derive(Debug)]
    struct Broken {
        fault: Fault,
        inner: MemoryStore,
    }

    struct BrokenView<'a> {
        fault: Fault,
        store: &'a MemoryStore,
        view: Box<dyn View + 'a>,
    }

    impl BrokenView<'_> {
        fn table(&self, table: Table) -> Table {
            if self.fault == Fault::MixesTables {
                Table::Meta
            } else {
                table
            }
        }
    }

    #[async_trait]
    impl Store for Broken {
        fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
            let (fault, store) = (self.fault, &self.inner);
            Ok(Box::new(BrokenView {
                fault,
                store,
                view: store.view()?,
            }))
        }

        async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
            if self.fault != Fault::ChecksNothing {
                batch.check()?;
            }
            let mut other = Batch::new();
            let count = batch.writes().count();
            for (at, (table, key, value)) in batch.into_writes().enumerate() {
                let table = if self.fault == Fault::MixesTables {
                    Table::Meta
                } else {
                    table
                };
                match value {
                    _ if self.fault == Fault::ForgetsTheLastWrite
                        && count > 1
                        && at + 1 == count => {}
                    Some(value) if self.fault == Fault::LosesEmptyValues && value.is_empty() => {}
                    Some(value) => other.put(table, key, value),
                    None if self.fault == Fault::KeepsDeletedRows => {}
                    None => other.delete(table, key),
                }
            }
            match self.inner.commit(other).await {
                Err(StoreError::TooLong { .. }) => Ok(()),
                result => result,
            }
        }

        async fn close(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    impl View for BrokenView<'_> {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            let table = self.table(table);
            if self.fault == Fault::ReadsThroughViews {
                return self.store.view()?.get(table, key);
            }
            self.view.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            from: Bound<&[u8]>,
            to: Bound<&[u8]>,
            direction: Direction,
            visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
        ) -> Result<(), StoreError> {
            let to = match to {
                Bound::Excluded(to) if self.fault == Fault::IncludesTheEnd => Bound::Included(to),
                to => to,
            };
            let direction = match self.fault {
                Fault::ScansForwardOnly => Direction::Forward,
                _ => direction,
            };
            self.view.scan(
                self.table(table),
                from,
                to,
                direction,
                &mut |key, value| match visit(key, value) {
                    ControlFlow::Break(()) if self.fault == Fault::IgnoresBreak => {
                        ControlFlow::Continue(())
                    }
                    flow => flow,
                },
            )
        }
    }

    struct Breaking(Fault);

    #[async_trait]
    impl StoreFactory for Breaking {
        async fn open(&self, _place: u32) -> Result<Box<dyn Store>, StoreError> {
            Ok(Box::new(Broken {
                fault: self.0,
                inner: MemoryStore::new(),
            }))
        }
        fn keeps_rows(&self) -> bool {
            false
        }
    }

    #[test]
    fn broken_stores_are_caught() {
        let faults = [
            (Fault::KeepsDeletedRows, "delete removes"),
            (Fault::ForgetsTheLastWrite, "a batch writes all tables"),
            (Fault::MixesTables, "tables"),
            (Fault::ChecksNothing, "is refused as TooLong"),
            (Fault::ReadsThroughViews, "an old view"),
            (Fault::IgnoresBreak, "a scan stops when told"),
            (Fault::IncludesTheEnd, "a scan keeps to its bounds"),
            (Fault::ScansForwardOnly, "a scan keeps to its bounds"),
            (Fault::LosesEmptyValues, "the empty key and value are a row"),
        ];
        for (fault, clause) in faults {
            let caught = std::panic::catch_unwind(|| block_on(conformance(&Breaking(fault))));
            let panic = caught.expect_err("a broken store does not pass");
            let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            assert!(
                said.contains(clause),
                "{fault:?} was caught by another clause: {said}"
            );
        }
    }
}

#[test]
fn batch_keeps_the_last_write_to_a_row() {
    let mut batch = Batch::new();
    assert!(batch.is_empty());
    batch.put(Table::Runs, b"b".to_vec(), b"1".to_vec());
    batch.put(Table::Logs, b"z".to_vec(), b"2".to_vec());
    batch.delete(Table::Runs, b"b".to_vec());
    let mut later = Batch::new();
    later.put(Table::Runs, b"a".to_vec(), b"3".to_vec());
    batch.extend(later);
    let writes: Vec<_> = batch.into_writes().collect();
    let expected = [
        (Table::Logs, b"z".to_vec(), Some(b"2".to_vec())),
        (Table::Runs, b"a".to_vec(), Some(b"3".to_vec())),
        (Table::Runs, b"b".to_vec(), None),
    ];
    assert_eq!(writes, expected);
}

#[test]
fn batch_shows_no_contents_when_debugged() {
    let mut batch = Batch::new();
    batch.put(
        Table::Meta,
        b"canary key".to_vec(),
        b"canary value".to_vec(),
    );
    let view_of_nothing = MemoryStore::new();
    let view = view_of_nothing.view().unwrap();
    let shown = format!("{batch:?} {:?}", Overlay::new(&*view, &batch));
    assert!(shown.contains("writes: 1, value_bytes: 12"), "{shown}");
    assert!(
        !shown.contains("canary") && !shown.contains("99"),
        "{shown}"
    );
}

#[test]
fn prefixes_end_where_no_key_has_them() {
    let check = |prefix: &[u8], expected: Option<&[u8]>| {
        assert_eq!(prefix_end(prefix).as_deref(), expected, "{prefix:?}");
    };
    check(b"", None);
    check(b"a", Some(b"b"));
    check(&[1, 255], Some(&[2]));
    check(&[255, 255], None);
    check(&[0], Some(&[1]));
    check(&[254, 255, 255], Some(&[255]));
}

#[test]
fn table_numbers_and_names_are_pinned() {
    // Both are bytes at rest.
    let names: Vec<&str> = Table::ALL.iter().map(|table| table.name()).collect();
    let expected = [
        "meta",
        "threads",
        "logs",
        "runs",
        "governance",
        "wraps",
        "parked",
        "documents",
        "cursors",
        "outbox",
        "evidence",
        "application",
        "pairs",
    ];
    assert_eq!(names, expected);
    for (number, table) in Table::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(table as u8), number);
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, 128, 255]), 0..4)
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        1 => Just(Bound::Unbounded),
        3 => key().prop_map(Bound::Included),
        3 => key().prop_map(Bound::Excluded),
    ]
}

fn writes() -> impl Strategy<Value = Vec<(bool, Vec<u8>, Option<u8>)>> {
    prop::collection::vec((any::<bool>(), key(), any::<Option<u8>>()), 0..40)
}

fn batch_of(writes: &[(bool, Vec<u8>, Option<u8>)]) -> Batch {
    let mut batch = Batch::new();
    for (first, key, value) in writes {
        let table = if *first {
            Table::Runs
        } else {
            Table::Governance
        };
        match value {
            Some(value) => batch.put(table, key.clone(), vec![*value]),
            None => batch.delete(table, key.clone()),
        }
    }
    batch
}

fn collect(
    view: &dyn View,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    direction: Direction,
    at_most: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    if at_most == 0 {
        return found;
    }
    view.scan(Table::Runs, from, to, direction, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        if found.len() == at_most {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    found
}

proptest! {
    /// Law: an overlay reads as the store will read once its batch is committed.
    #[test]
    fn overlay_equals_the_merged_map(
        under in writes(),
        over in writes(),
        from in bound(),
        to in bound(),
        at_most in 0_usize..12,
        probe in key(),
    ) {
        let store = MemoryStore::new();
        block_on(store.commit(batch_of(&under))).unwrap();
        let batch = batch_of(&over);
        let mut merged = Rows::new();
        for (first, key, value) in under.iter().chain(&over) {
            match value {
                Some(value) if *first => merged.insert(key.clone(), vec![*value]),
                None if *first => merged.remove(key),
                _ => None,
            };
        }
        let view = store.view().unwrap();
        let overlay = Overlay::new(&*view, &batch);
        prop_assert_eq!(overlay.get(Table::Runs, &probe).unwrap(), merged.get(&probe).cloned());

        let (from, to) = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let inside = |key: &[u8]| {
            (match from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            }) && (match to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            })
        };
        let mut expected: Vec<_> = merged.into_iter().filter(|(key, _)| inside(key)).collect();
        if is_empty_range(from, to) {
            prop_assert!(expected.is_empty());
        }
        for direction in [Direction::Forward, Direction::Backward] {
            let found = collect(&overlay, from, to, direction, at_most);
            let first: Vec<_> = expected.iter().take(at_most).cloned().collect();
            prop_assert_eq!(&found, &first);
            expected.reverse();
        }

        block_on(store.commit(batch.clone())).unwrap();
        let after = store.view().unwrap();
        prop_assert_eq!(
            collect(&*after, from, to, Direction::Forward, usize::MAX),
            collect(&overlay, from, to, Direction::Forward, usize::MAX)
        );
    }

    /// Law: a scan by prefix shows exactly the keys that begin with it.
    #[test]
    fn prefix_scans_show_exactly_their_rows(under in writes(), prefix in key()) {
        let store = MemoryStore::new();
        block_on(store.commit(batch_of(&under))).unwrap();
        let view = store.view().unwrap();
        let mut found = Vec::new();
        scan_prefix(&*view, Table::Runs, &prefix, &mut |key, _| {
            found.push(key.to_vec());
            ControlFlow::Continue(())
        }).unwrap();
        let all = collect(&*view, Bound::Unbounded, Bound::Unbounded, Direction::Forward, usize::MAX);
        let expected: Vec<_> =
            all.into_iter().map(|(key, _)| key).filter(|key| key.starts_with(&prefix)).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn memory_blocks_keep_the_contract() {
    block_on(super::testing::block_conformance(&MemoryBlocks::new()));
}

#[test]
fn memory_shared_keeps_the_contract() {
    let shared = MemoryShared::new();
    block_on(super::testing::shared_conformance(&shared, &shared.clone()));
}

#[test]
fn names_of_segments_have_one_spelling() {
    let id = SegmentId::of(b"segment");
    let text = id.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(SegmentId::from_text(&text), Some(id));
    let wrong = [
        text.to_uppercase(),
        format!("{text}0"),
        text[1..].to_owned(),
        format!("+{}", &text[1..]),
        format!("{}g", &text[1..]),
        "ä".repeat(32),
        String::new(),
    ];
    for wrong in wrong {
        assert_eq!(SegmentId::from_text(&wrong), None, "{wrong}");
    }
}

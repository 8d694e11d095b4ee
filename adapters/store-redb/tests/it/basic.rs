//! The contract on files and in memory, and what an open refuses.

use std::error::Error;
use std::fs;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_executor::block_on;
use leno_store_redb::{FORMAT, Redb};
use leno_threads_core::store::testing::{StoreFactory, conformance};
use leno_threads_core::store::{Batch, Direction, Store, StoreError, Table};
use redb::{Database, TableDefinition};

use crate::disk::{Disk, Trouble};
use crate::workload::{Folder, batch, check, check_goes_on};

struct Files {
    folder: Folder,
    cache_bytes: usize,
}

#[async_trait]
impl StoreFactory for Files {
    async fn open(&self, place: u32) -> Result<Box<dyn Store>, StoreError> {
        let options = Redb::options().cache_bytes(self.cache_bytes);
        Ok(Box::new(
            options.open(self.folder.file(&format!("{place}.redb")))?,
        ))
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

struct InMemory;

#[async_trait]
impl StoreFactory for InMemory {
    async fn open(&self, _place: u32) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(Redb::in_memory()?))
    }

    fn keeps_rows(&self) -> bool {
        false
    }
}

#[test]
fn files_keep_the_contract() {
    let cache_bytes = leno_store_redb::CACHE_BYTES;
    block_on(conformance(&Files {
        folder: Folder::new(),
        cache_bytes,
    }));
}

#[test]
fn contract_holds_in_memory() {
    block_on(conformance(&InMemory));
}

#[test]
fn contract_holds_without_a_cache() {
    block_on(conformance(&Files {
        folder: Folder::new(),
        cache_bytes: 0,
    }));
}

fn sees(path: &Path, found: Result<Redb, StoreError>, expected: fn(&StoreError) -> bool) {
    let before = fs::read(path).ok();
    let error = found.expect_err("the open is refused");
    assert!(expected(&error), "{error:?}");
    assert_eq!(
        fs::read(path).ok(),
        before,
        "a refused file is left as it is"
    );
}

#[test]
fn file_of_another_kind_is_refused_and_left_alone() {
    let folder = Folder::new();
    let path = folder.file("letter.txt");
    fs::write(&path, "Dear Bob, ".repeat(10_000)).unwrap();
    sees(&path, Redb::open(&path), |error| {
        matches!(error, StoreError::Corrupt { .. })
    });
    fs::write(&path, "short").unwrap();
    sees(&path, Redb::open(&path), |error| {
        matches!(error, StoreError::Corrupt { .. })
    });
}

#[test]
fn unfinished_file_opens_as_a_new_store() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    drop(Redb::open(&path).unwrap());
    let header = fs::read(&path).unwrap();
    // redb writes the magic number last.
    let mut unfinished = vec![0; 72 << 10];
    unfinished[9..320].copy_from_slice(&header[9..320]);
    fs::write(&path, &unfinished).unwrap();
    check_goes_on(
        &Redb::open(&path).unwrap(),
        0,
        "after an interrupted creation",
    );

    // One byte more may be somebody's.
    unfinished[70_000] = 1;
    fs::write(&path, &unfinished).unwrap();
    sees(&path, Redb::open(&path), |error| {
        matches!(error, StoreError::Corrupt { .. })
    });
}

#[test]
fn database_of_another_program_is_refused() {
    let folder = Folder::new();
    let path = folder.file("other.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = TableDefinition::<&str, u64>::new("birds");
    transaction
        .open_table(table)
        .unwrap()
        .insert("wren", 3)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Redb::open(&path).expect_err("the open is refused");
    assert_eq!(
        error.to_string(),
        "the store is damaged: the file's table leno-store: missing beside a table \"birds\""
    );
}

#[test]
fn newer_format_is_refused() {
    let folder = Folder::new();
    let path = folder.file("newer.redb");
    drop(Redb::open(&path).unwrap());
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = TableDefinition::<&str, u64>::new("leno-store");
    transaction
        .open_table(table)
        .unwrap()
        .insert("format", FORMAT + 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Redb::open(&path).expect_err("the open is refused");
    let expected = (FORMAT + 1, FORMAT);
    assert!(
        matches!(error, StoreError::NewerFormat { found, known } if (found, known) == expected)
    );
}

#[test]
fn missing_folder_is_the_mediums_fault() {
    let folder = Folder::new();
    let error = Redb::open(folder.file("none/store.redb")).expect_err("there is no folder");
    assert_eq!(
        error.to_string(),
        "the store's medium failed while it was opened"
    );
    assert!(error.source().is_some(), "the cause is kept");
    let error = Redb::open(folder.file("")).expect_err("a folder is no file");
    assert!(matches!(error, StoreError::Medium { .. }), "{error:?}");
}

#[test]
fn second_open_is_locked_until_the_first_is_dropped() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    let first = Redb::open(&path).unwrap();
    assert!(matches!(Redb::open(&path), Err(StoreError::Locked)));
    block_on(first.commit(batch(1))).unwrap();
    drop(first);
    check(&Redb::open(&path).unwrap(), 1, 1, "after the lock");
}

#[test]
fn views_of_a_closed_store_are_poisoned() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    let store = Redb::open(&path).unwrap();
    block_on(store.commit(batch(1))).unwrap();
    let view = store.view().unwrap();
    block_on(store.close()).unwrap();
    assert!(matches!(
        view.get(Table::Meta, b"last"),
        Err(StoreError::Poisoned)
    ));
    assert!(matches!(store.view().err(), Some(StoreError::Poisoned)));
    assert!(matches!(
        block_on(store.commit(batch(2))),
        Err(StoreError::Poisoned)
    ));
    assert!(matches!(
        block_on(store.compact()),
        Err(StoreError::Poisoned)
    ));
    // Released although the old handle and a view of it are alive.
    check_goes_on(&Redb::open(&path).unwrap(), 1, "beside a closed handle");
}

#[test]
fn panicking_visitor_is_the_callers() {
    let store = Redb::in_memory().unwrap();
    block_on(store.commit(batch(1))).unwrap();
    let view = store.view().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let _ = view.scan(
            Table::Runs,
            all.0,
            all.1,
            Direction::Forward,
            &mut |_, _| {
                std::panic::resume_unwind(Box::new("the caller's"));
            },
        );
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"the caller's"));
    drop(view);
    check_goes_on(&store, 1, "after a panic of the caller");
}

#[test]
fn compacting_gives_room_back_and_keeps_rows() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    let store = Redb::open(&path).unwrap();
    let mut ballast = Batch::new();
    for at in 0..100_u8 {
        ballast.put(Table::Application, vec![at], vec![at; 60_000]);
    }
    block_on(store.commit(ballast)).unwrap();
    block_on(store.commit(batch(1))).unwrap();
    let mut gone = Batch::new();
    for at in 0..100_u8 {
        gone.delete(Table::Application, vec![at]);
    }
    block_on(store.commit(gone)).unwrap();
    let view = store.view().unwrap();
    assert!(
        !block_on(store.compact()).unwrap(),
        "a view holds compaction back"
    );
    drop(view);
    let before = fs::metadata(&path).unwrap().len();
    assert!(block_on(store.compact()).unwrap());
    let after = fs::metadata(&path).unwrap().len();
    assert!(after * 10 < before, "{before} to {after} bytes");
    check_goes_on(&store, 1, "after compacting");
}

#[test]
fn value_just_under_a_page_wastes_little() {
    let bytes_for = |value: usize| {
        let folder = Folder::new();
        let path = folder.file("store.redb");
        let store = Redb::open(&path).unwrap();
        let mut batch = Batch::new();
        for at in 0..64_u8 {
            batch.put(Table::Runs, vec![at; 48], vec![at; value]);
        }
        block_on(store.commit(batch)).unwrap();
        block_on(store.compact()).unwrap();
        block_on(store.close()).unwrap();
        usize::try_from(fs::metadata(&path).unwrap().len()).unwrap()
    };
    for page in [1 << 14, 1 << 16, 1 << 17] {
        // The front page of the crate names this size.
        let fits = bytes_for(page - 64);
        assert!(
            fits < 64 * page * 110 / 100,
            "{fits} bytes for pages of {page}"
        );
        let spills = bytes_for(page - 63);
        assert!(
            spills > 64 * page * 190 / 100,
            "{spills} bytes for pages of {page}"
        );
    }
}

#[test]
fn open_after_a_kill_repairs_unless_the_store_had_settled() {
    let folder = Folder::new();
    let (path, copy) = (folder.file("store.redb"), folder.file("copy.redb"));
    // A copy of the file in use is what a kill leaves.
    let repairs = |expected: bool, context: &str| {
        fs::copy(&path, &copy).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let options = Redb::options().on_repair(move |done| {
            assert!((0.0..=1.0).contains(&done));
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let store = options.open(&copy).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed) > 0, expected, "{context}");
        store
    };
    let store = Redb::options().settle_after(None).open(&path).unwrap();
    drop(repairs(false, "a new store"));
    block_on(store.commit(batch(1))).unwrap();
    check(&repairs(true, "after a commit"), 1, 1, "repaired");
    block_on(store.close()).unwrap();
    check(&repairs(false, "after closing"), 1, 1, "closed");
}

#[test]
fn idle_store_settles() {
    let disk = Disk::new(Vec::new(), Trouble::None);
    let options = Redb::options().settle_after(Some(std::time::Duration::ZERO));
    let store = options.open_backend(disk.clone()).unwrap();
    let before = disk.syncs();
    block_on(store.commit(batch(1))).unwrap();
    // One sync is the commit's, two come with settling, by itself.
    let settled = disk.after_syncs(before + 3);
    let repaired = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&repaired);
    let options = Redb::options().on_repair(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let reopened = options
        .open_backend(Disk::new(settled, Trouble::None))
        .unwrap();
    check(&reopened, 1, 1, "settled");
    assert_eq!(
        repaired.load(Ordering::Relaxed),
        0,
        "a settled store needs no repair"
    );
}

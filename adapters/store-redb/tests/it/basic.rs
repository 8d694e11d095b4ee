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
use leno_store_redb::{FORMAT, Redb, RedbOptions};
use leno_threads_core::store::testing::{StoreFactory, conformance};
use leno_threads_core::store::{Batch, Direction, Store, StoreError, Table};
use redb::{Database, TableDefinition};

use crate::disk::{Disk, Trouble};
use crate::workload::{Folder, SMALL_JOURNAL, batch, check, check_goes_on, read_all, state_after};

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

/// Settings with a journal that leaves little to compare.
fn small() -> RedbOptions {
    Redb::options().journal_bytes(SMALL_JOURNAL)
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

const BEING_MADE: &[u8] = b"leno: being made";

#[test]
fn unfinished_file_opens_as_a_new_store() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    drop(small().open(&path).unwrap());
    let whole = fs::read(&path).unwrap();
    let front = usize::try_from(SMALL_JOURNAL).unwrap();
    let opens_as_new = |bytes: &[u8], context: &str| {
        fs::write(&path, bytes).unwrap();
        check_goes_on(&small().open(&path).unwrap(), 0, context);
        check(&small().open(&path).unwrap(), 1, 1, context);
        assert_eq!(
            fs::read(&path).unwrap()[512..512 + BEING_MADE.len()],
            [0; BEING_MADE.len()],
            "{context}: it is whole now"
        );
    };
    // As long as the file says that it is being made, nothing else in it matters.
    let mut being_made = whole.clone();
    being_made[512..512 + BEING_MADE.len()].copy_from_slice(BEING_MADE);
    for length in [whole.len(), front + 100, front, front - 1, 600] {
        for noise in [0..0, 0..100, 0..512, 4_096..length, 530..length] {
            let mut bytes = being_made[..length].to_vec();
            let noise = noise.start.min(length)..noise.end.min(length);
            bytes[noise.clone()].fill(7);
            opens_as_new(&bytes, &format!("{length} bytes, noise: {noise:?}"));
        }
    }
    // Before that, there are parts of what is written first.
    for (header, note) in [(0, 0), (0, 5), (4, 0), (20, 16), (30, 0), (256, 3)] {
        for length in [front, front - 1, 600] {
            let mut bytes = vec![0; length];
            bytes[..header].copy_from_slice(&whole[..header]);
            bytes[512..512 + note].copy_from_slice(&BEING_MADE[..note]);
            let context = format!("{length} bytes, header: {header}, note: {note}");
            opens_as_new(&bytes, &context);
            if note < BEING_MADE.len() {
                // One byte more may be somebody's.
                bytes[length - 1] = 1;
                fs::write(&path, &bytes).unwrap();
                sees(&path, small().open(&path), |error| {
                    matches!(error, StoreError::Corrupt { .. })
                });
            }
        }
    }
    for length in [100, 0] {
        opens_as_new(&vec![0; length], &format!("{length} zeros"));
    }
}

#[test]
fn file_that_is_cut_is_refused_and_left_alone() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    drop(small().open(&path).unwrap());
    let whole = fs::read(&path).unwrap();
    let front = usize::try_from(SMALL_JOURNAL).unwrap();
    for length in [front, front - 1, 5_000, 513, 512] {
        fs::write(&path, &whole[..length]).unwrap();
        sees(&path, small().open(&path), |error| {
            error.to_string() == "the store is damaged: the file is cut before its rows"
        });
    }
}

/// A file of redb with one table, as another program writes it.
fn foreign(path: &Path, table: &str) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = TableDefinition::<&str, u64>::new(table);
    transaction
        .open_table(table)
        .unwrap()
        .insert("format", 1)
        .unwrap();
    transaction.commit().unwrap();
}

#[test]
fn file_without_journal_is_refused_and_left_alone() {
    let folder = Folder::new();
    let path = folder.file("old.redb");
    foreign(&path, "leno-store");
    sees(&path, Redb::open(&path), |error| {
        let expected = "the store has format 1, this version reads from 2 on; open it with an older \
                        version, or let peers send everything to a new store";
        matches!(
            error,
            StoreError::OlderFormat {
                found: 1,
                known: FORMAT
            }
        ) && error.to_string() == expected
    });
}

#[test]
fn foreign_tables_are_refused() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    for (table, expected) in [
        ("birds", "missing beside a table \"birds\""),
        ("leno-store", "the lap of the journal is missing"),
    ] {
        drop(small().open(&path).unwrap());
        let other = folder.file("other.redb");
        foreign(&other, table);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(usize::try_from(SMALL_JOURNAL).unwrap());
        bytes.extend(fs::read(&other).unwrap());
        fs::write(&path, bytes).unwrap();
        let error = small().open(&path).expect_err("the open is refused");
        assert_eq!(
            error.to_string(),
            format!("the store is damaged: the file's table leno-store: {expected}")
        );
        fs::remove_file(&path).unwrap();
        fs::remove_file(&other).unwrap();
    }
}

/// Changes the header of a file, and its checksum with it.
fn change_header(path: &Path, at: usize, value: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..508]);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn newer_format_is_refused() {
    let folder = Folder::new();
    let path = folder.file("newer.redb");
    drop(Redb::open(&path).unwrap());
    change_header(&path, 8, FORMAT + 1);
    sees(&path, Redb::open(&path), |error| {
        let expected = (FORMAT + 1, FORMAT);
        matches!(error, StoreError::NewerFormat { found, known } if (*found, *known) == expected)
    });
    for (at, value) in [
        (8, 0),
        (8, 1),
        (16, 0),
        (16, SMALL_JOURNAL + 1),
        (16, u64::MAX),
    ] {
        change_header(&path, 8, FORMAT);
        change_header(&path, 16, SMALL_JOURNAL);
        change_header(&path, at, value);
        sees(&path, Redb::open(&path), |error| {
            matches!(error, StoreError::Corrupt { .. })
        });
    }
}

#[test]
fn every_flipped_bit_of_the_header_is_found() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    drop(small().open(&path).unwrap());
    let whole = fs::read(&path).unwrap();
    for bit in 0..512 * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let disk = Disk::new(bytes, Trouble::None);
        let error = small().open_backend(disk).expect_err("the open is refused");
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "bit {bit}: {error:?}"
        );
    }
}

#[test]
fn length_of_the_journal_is_the_files() {
    for bytes in [0, 20_000, SMALL_JOURNAL, 1 << 20] {
        let disk = Disk::new(Vec::new(), Trouble::None);
        let options = Redb::options().journal_bytes(bytes);
        check_goes_on(&options.open_backend(disk.clone()).unwrap(), 0, "new");
        let store = Redb::options().open_backend(disk.clone()).unwrap();
        check(&store, 1, 1, "with another wish");
        check_goes_on(&store, 1, "with another wish");
        let start = u64::from_le_bytes(disk.live()[16..24].try_into().unwrap());
        assert_eq!(start, bytes.max(16 << 10) / 4096 * 4096);
    }
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
    let store = small().open(&path).unwrap();
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
        let store = small().open(&path).unwrap();
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
fn open_after_a_kill_repairs_nothing() {
    let folder = Folder::new();
    let (path, copy) = (folder.file("store.redb"), folder.file("copy.redb"));
    let store = small().settle_after(None).open(&path).unwrap();
    // A copy of the file in use is what a kill leaves.
    let check_copy = |number: u64, context: &str| {
        fs::copy(&path, &copy).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let options = Redb::options().on_repair(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let store = options.open(&copy).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 0, "{context}");
        check(&store, number, number, context);
        check_goes_on(&store, number, context);
    };
    check_copy(0, "a new store");
    for number in 1..20 {
        block_on(store.commit(batch(number))).unwrap();
        check_copy(number, &format!("after commit {number}"));
    }
    block_on(store.close()).unwrap();
    check_copy(19, "after closing");
}

#[test]
fn checked_open_shows_progress() {
    let disk = Disk::new(Vec::new(), Trouble::None);
    let store = small().open_backend(disk.clone()).unwrap();
    block_on(store.commit(batch(1))).unwrap();
    drop(store);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let options = small().check_on_open(true).on_repair(move |done| {
        assert!((0.0..=1.0).contains(&done));
        seen.fetch_add(1, Ordering::Relaxed);
    });
    check(&options.open_backend(disk).unwrap(), 1, 1, "checked");
    assert!(calls.load(Ordering::Relaxed) > 0);
}

#[test]
fn idle_store_settles() {
    let disk = Disk::new(Vec::new(), Trouble::None);
    let options = small().settle_after(Some(std::time::Duration::ZERO));
    let store = options.open_backend(disk.clone()).unwrap();
    let before = disk.syncs();
    block_on(store.commit(batch(1))).unwrap();
    // One sync is the commit's; two or three come with settling, by itself.
    let settled = (before + 3..).find_map(|syncs| {
        let mut bytes = disk.after_syncs(syncs);
        // Nothing is left that only the journal has.
        let front = usize::try_from(SMALL_JOURNAL).unwrap();
        bytes[4096..front].fill(0);
        let store = small().open_backend(Disk::new(bytes, Trouble::None));
        let store = store.unwrap();
        (read_all(&*store.view().unwrap()).unwrap() == state_after(1)).then_some(syncs - before)
    });
    assert!(settled.is_some_and(|syncs| syncs <= 4), "{settled:?}");
}

#[test]
fn views_stay_as_they_were_taken() {
    let store = Redb::options()
        .journal_bytes(SMALL_JOURNAL)
        .open_backend(Disk::new(Vec::new(), Trouble::None))
        .unwrap();
    let mut views = vec![(0, store.view().unwrap())];
    // Some batches go to the journal, some move it on, some are too long for it.
    for number in 1..=23 {
        block_on(store.commit(batch(number))).unwrap();
        views.push((number, store.view().unwrap()));
    }
    for (number, view) in &views {
        let state = read_all(&**view).unwrap();
        assert!(state == state_after(*number), "the view of batch {number}");
        for ((table, key), value) in &state {
            assert_eq!(view.get(*table, key).unwrap().as_ref(), Some(value));
        }
    }
}

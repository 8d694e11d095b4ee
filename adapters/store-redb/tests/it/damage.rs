//! Files that were changed behind redb's back.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::panic;
use std::sync::{LazyLock, Once, mpsc};
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::{Direction, Store, StoreError, Table};

use crate::disk::{Disk, Trouble};
use crate::workload::{Dice, SMALL_JOURNAL, State, batch, read_all, state_after};

/// The newest three are only in the journal of a store that was not closed.
const BATCHES: u64 = 23;
/// Far above what a test needs: it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// The bytes of a store that was closed, or of one whose process was killed.
fn file(closed: bool) -> Vec<u8> {
    let disk = Disk::new(Vec::new(), Trouble::None);
    let store = Redb::options()
        .settle_after(None)
        .journal_bytes(SMALL_JOURNAL)
        .open_backend(disk.clone())
        .unwrap();
    for number in 1..=BATCHES {
        block_on(store.commit(batch(number))).unwrap();
    }
    if closed {
        block_on(store.close()).unwrap();
    }
    disk.live()
}

/// What a damaged file gave.
#[derive(Debug, Default)]
struct Tally {
    refused: u32,
    errors_on_reading: u32,
    panics_caught: u32,
    files_hiding_rows: u32,
    older: u32,
    unharmed: u32,
}

/// Opens, reads and writes; any row that reads must be one that was written.
fn try_out(bytes: Vec<u8>, check: bool, tally: &mut Tally, context: &str) {
    let disk = Disk::new(bytes, Trouble::None);
    let options = Redb::options().settle_after(None).check_on_open(check);
    let store = match options.open_backend(disk) {
        Ok(store) => store,
        Err(error) => {
            note(&error, tally, context);
            tally.refused += 1;
            return;
        }
    };
    let (expected, older) = states().split_last().expect("there are states");
    let mut failed = false;
    let mut good = State::new();
    match store.view() {
        Err(error) => {
            note(&error, tally, context);
            failed = true;
        }
        Ok(view) => {
            for (table, key) in expected.keys() {
                match view.get(*table, key) {
                    Ok(Some(value)) => drop(good.insert((*table, key.clone()), value)),
                    Ok(None) => {}
                    Err(error) => {
                        note(&error, tally, context);
                        failed = true;
                    }
                }
            }
            for table in Table::ALL {
                for direction in [Direction::Forward, Direction::Backward] {
                    let all = (Bound::Unbounded, Bound::Unbounded);
                    let mut rows = 0;
                    let scanned = view.scan(table, all.0, all.1, direction, &mut |key, value| {
                        rows += 1;
                        good.insert((table, key.to_vec()), value.to_vec());
                        if rows > 10_000 {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    });
                    assert!(rows <= 10_000, "{context}: a scan without end");
                    if let Err(error) = scanned {
                        note(&error, tally, context);
                        failed = true;
                    }
                }
            }
        }
    }
    if !failed && older.contains(&good) {
        // Damage to a commit slot leads to the other one: an older state, but a whole one.
        tally.older += 1;
        assert!(!check, "{context}: a checked file is not an older one");
    } else {
        for (place, value) in &good {
            // A page from before may come back, with rows that were written but replaced since.
            assert!(
                was_written(place, value),
                "{context}: {place:?} was never written"
            );
        }
        if failed {
            tally.errors_on_reading += 1;
        } else if good == *expected {
            tally.unharmed += 1;
        } else {
            tally.files_hiding_rows += 1;
            assert!(!check, "{context}: a checked file hides no rows");
        }
    }
    if let Err(error) = block_on(store.commit(batch(BATCHES + 1))) {
        note(&error, tally, context);
    }
    if let Err(error) = block_on(store.close()) {
        note(&error, tally, context);
    }
}

fn was_written((table, key): &(Table, Vec<u8>), value: &[u8]) -> bool {
    type Rows = BTreeSet<(Table, Vec<u8>, Vec<u8>)>;
    static WRITTEN: LazyLock<Rows> = LazyLock::new(|| {
        let writes = (1..=BATCHES).flat_map(|number| batch(number).into_writes());
        writes
            .filter_map(|(table, key, value)| Some((table, key, value?)))
            .collect()
    });
    WRITTEN.contains(&(*table, key.clone(), value.to_vec()))
}

/// The states after each number of batches, from none to all.
fn states() -> &'static [State] {
    static STATES: LazyLock<Vec<State>> =
        LazyLock::new(|| (0..=BATCHES).map(state_after).collect());
    &STATES
}

fn note(error: &StoreError, tally: &mut Tally, context: &str) {
    match error {
        StoreError::Corrupt { what } => {
            tally.panics_caught += u32::from(what.contains("panicked"));
        }
        StoreError::Poisoned | StoreError::NewerFormat { .. } => {}
        // A length that was damaged asks for more than a disk has.
        StoreError::Full => {}
        error => panic!("{context}: {error:?}"),
    }
}

/// Runs a test elsewhere, so that a hang is a failure, and without redb's own panics on the screen.
fn bounded(work: impl FnOnce() + Send + 'static) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let in_redb = |file: &str| file.contains("redb-4") || file.contains("/core/src/");
            if !info
                .location()
                .is_some_and(|location| in_redb(location.file()))
            {
                usual(info);
            }
        }));
    });
    let (done, waiting) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match waiting.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a damaged file makes the store hang"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {}
    }
    if let Err(panic) = worker.join() {
        panic::resume_unwind(panic);
    }
}

fn flips() -> usize {
    if std::env::var_os("LENO_LONG").is_some() {
        5_000
    } else {
        300
    }
}

fn flip_bits(closed: bool, check: bool, seed: u64) {
    bounded(move || {
        let whole = file(closed);
        let mut dice = Dice::new(seed);
        let mut tally = Tally::default();
        for round in 0..flips() {
            let mut bytes = whole.clone();
            // Many flips go to the headers, which are small and matter most, and to the journal.
            let front = usize::try_from(SMALL_JOURNAL).unwrap();
            let at = match round % 8 {
                0 => dice.below(512),
                1 => front + dice.below(320),
                2 => 4096 + dice.below(6 * 4096),
                _ => dice.below(bytes.len()),
            };
            let bit = dice.below(8);
            bytes[at] ^= 1 << bit;
            let context = format!("seed {seed}, round {round}: bit {bit} of byte {at} flipped");
            try_out(bytes, check, &mut tally, &context);
        }
        println!("closed: {closed}, checked: {check}: {tally:?}");
        assert!(
            tally.unharmed > 0 && tally.refused + tally.errors_on_reading > 0,
            "{tally:?}"
        );
    });
}

#[test]
fn flipped_bits_of_a_closed_file_give_good_rows_or_errors() {
    flip_bits(true, false, 11);
}

#[test]
fn flipped_bits_of_a_crashed_file_give_good_rows_or_errors() {
    flip_bits(false, false, 12);
}

#[test]
fn checked_open_finds_every_harmful_flip() {
    flip_bits(true, true, 13);
}

#[test]
fn cut_files_give_good_rows_or_errors() {
    bounded(|| {
        let mut dice = Dice::new(14);
        let mut tally = Tally::default();
        for closed in [true, false] {
            let whole = file(closed);
            for round in 0..flips() / 6 {
                let length = 1 + dice.below(whole.len() - 1);
                let kept = whole[..length].to_vec();
                let context = format!("closed: {closed}, round {round}: cut to {length} bytes");
                try_out(kept, false, &mut tally, &context);
            }
        }
        println!("cut: {tally:?}");
        assert!(tally.refused > 0, "{tally:?}");
    });
}

#[test]
fn overwritten_pages_give_good_rows_or_errors() {
    bounded(|| {
        let whole = file(true);
        let mut dice = Dice::new(15);
        let mut tally = Tally::default();
        let pages = whole.len() / 4096;
        for round in 0..flips() / 3 {
            let mut bytes = whole.clone();
            let page = 1 + dice.below(pages - 1);
            let other = dice.below(pages);
            let into = page * 4096..(page + 1) * 4096;
            let context = match round % 3 {
                0 => {
                    bytes[into].fill(0);
                    format!("round {round}: page {page} is empty")
                }
                1 => {
                    bytes[into].copy_from_slice(&dice.bytes(4096));
                    format!("round {round}: page {page} is noise")
                }
                _ => {
                    bytes.copy_within(other * 4096..(other + 1) * 4096, into.start);
                    format!("round {round}: page {page} is page {other}")
                }
            };
            try_out(bytes, false, &mut tally, &context);
        }
        println!("pages: {tally:?}");
    });
}

#[test]
fn damaged_row_is_named() {
    let whole = file(true);
    let (place, value) = state_after(BATCHES)
        .into_iter()
        .find(|((table, _), value)| *table == Table::Documents && value.len() == 300)
        .expect("there are documents");
    let mut bytes = whole;
    // Older copies may lie in free pages; all are damaged alike.
    let offsets: Vec<usize> = (0..bytes.len() - 300)
        .filter(|at| bytes[*at..*at + 300] == value[..])
        .collect();
    assert!(!offsets.is_empty(), "values lie in the file as they are");
    for at in offsets {
        bytes[at + 150] ^= 1;
    }
    let store = Redb::options()
        .open_backend(Disk::new(bytes, Trouble::None))
        .unwrap();
    let view = store.view().unwrap();
    let name: String = place.1.iter().map(|byte| format!("{byte:02x}")).collect();
    let error = view.get(place.0, &place.1).expect_err("the row is damaged");
    let expected = format!("the store is damaged: table documents, row 0x{name}: checksum");
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        read_all(&*view).expect_err("a scan meets it").to_string(),
        expected
    );
}

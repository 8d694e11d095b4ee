//! The journal: what counts of it after a crash, and what damage to it comes to.

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::{Batch, Store, StoreError, Table};

use crate::disk::{Disk, Trouble};
use crate::workload::{SMALL_JOURNAL, batch, check, check_goes_on};

const PAGE: usize = 4096;

/// The first sectors of the frames of batches 1 to 4, of two pages each.
const FRAMES: [usize; 4] = [PAGE, 3 * PAGE, 5 * PAGE, 7 * PAGE];

fn open(bytes: Vec<u8>) -> Result<Redb, StoreError> {
    open_on(&Disk::new(bytes, Trouble::None))
}

fn open_on(disk: &Disk) -> Result<Redb, StoreError> {
    let options = Redb::options()
        .settle_after(None)
        .journal_bytes(SMALL_JOURNAL);
    options.open_backend(disk.clone())
}

/// The file of a store with some batches, whose process was killed.
fn killed(batches: u64) -> Vec<u8> {
    let disk = Disk::new(Vec::new(), Trouble::None);
    let store = open_on(&disk).unwrap();
    for number in 1..=batches {
        block_on(store.commit(batch(number))).unwrap();
    }
    disk.live()
}

fn front() -> usize {
    usize::try_from(SMALL_JOURNAL).unwrap()
}

fn corrupt(found: Result<Redb, StoreError>, expected: &str) {
    let error = found.expect_err("the open is refused");
    assert_eq!(
        error.to_string(),
        format!("the store is damaged: {expected}")
    );
}

#[test]
fn commits_of_a_killed_process_are_read_from_the_journal() {
    let bytes = killed(3);
    for (number, at) in FRAMES.into_iter().take(3).enumerate() {
        assert_eq!(
            bytes[at..at + 16],
            [
                1,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                u8::try_from(number).unwrap(),
                0,
                0,
                0,
                0,
                0,
                0,
                0
            ]
        );
    }
    let store = open(bytes.clone()).unwrap();
    check(&store, 3, 3, "as it was left");
    check_goes_on(&store, 3, "as it was left");
    let mut erased = bytes;
    erased[PAGE..front()].fill(0);
    check(&open(erased).unwrap(), 0, 0, "without journal");
}

#[test]
fn damaged_frame_before_others_is_corrupt() {
    let whole = killed(3);
    for (number, at) in FRAMES.into_iter().take(2).enumerate() {
        for byte in [0, 8, 12, 16, 300, 511, 512, 1_500, 4_200] {
            let mut bytes = whole.clone();
            bytes[at + byte] ^= 4;
            corrupt(
                open(bytes),
                &format!("frame {number} of the journal: checksum"),
            );
        }
        let mut bytes = whole.clone();
        bytes[at..at + 2 * PAGE].fill(9);
        corrupt(
            open(bytes),
            &format!("frame {number} of the journal: checksum"),
        );
    }
}

#[test]
fn damaged_last_frame_is_taken_for_torn() {
    let whole = killed(3);
    for byte in [0, 8, 12, 16, 300, 511, 512, 1_500, 4_200] {
        let mut bytes = whole.clone();
        bytes[FRAMES[2] + byte] ^= 4;
        let context = format!("byte {byte} of the last frame");
        let store = open(bytes).unwrap();
        check(&store, 2, 2, &context);
        check_goes_on(&store, 2, &context);
    }
}

#[test]
fn journal_of_a_closed_store_does_not_matter() {
    let disk = Disk::new(killed(3), Trouble::None);
    let store = Redb::options().open_backend(disk.clone()).unwrap();
    block_on(store.close()).unwrap();
    for byte in PAGE..PAGE + 600 {
        let mut bytes = disk.live();
        bytes[byte] ^= 255;
        check(&open(bytes).unwrap(), 3, 3, &format!("byte {byte}"));
    }
    let mut bytes = disk.live();
    bytes[PAGE..front()].fill(9);
    check(&open(bytes).unwrap(), 3, 3, "noise");
}

#[test]
fn rows_older_than_the_journal_are_corrupt() {
    let (old, new) = (killed(1), killed(7));
    // What goes back to an older state is redb's part alone.
    let mixed = [&new[..front()], &old[front()..]].concat();
    corrupt(open(mixed), "the rows are older than the journal");
}

#[test]
fn frames_of_an_older_lap_do_not_count() {
    // Batch 5 is longer than the journal takes, so it ends a lap, and 6 lies where 1 was.
    let bytes = killed(6);
    assert_eq!(bytes[FRAMES[0]], bytes[FRAMES[1]] + 1, "laps of frames");
    check(&open(bytes).unwrap(), 6, 6, "frames of two laps");
}

#[test]
fn nothing_is_appended_to_a_lap_that_was_read() {
    let before = killed(2);
    let disk = Disk::new(before.clone(), Trouble::None);
    let store = open_on(&disk).unwrap();
    check(&store, 2, 2, "as it was left");
    block_on(store.commit(batch(3))).unwrap();
    assert!(
        disk.live()[PAGE..front()] == before[PAGE..front()],
        "it went to redb"
    );
    block_on(store.commit(batch(4))).unwrap();
    assert_eq!(disk.live()[FRAMES[0]], before[FRAMES[0]] + 1, "its lap");
    check(&open(disk.live()).unwrap(), 4, 4, "afterwards");
}

#[test]
fn frame_forged_in_a_value_is_not_read() {
    // The first sector of the next frame, as somebody could make it who knows all numbers, at every
    // place of a value where it could come to lie at the beginning of a sector.
    let whole = killed(1);
    let mut forged = whole[FRAMES[0]..FRAMES[0] + 512].to_vec();
    (forged[0], forged[8]) = (2, 1);
    let sum = crc32fast::hash(&forged[..508]);
    forged[508..].copy_from_slice(&sum.to_le_bytes());
    for shift in 0..512 {
        let disk = Disk::new(Vec::new(), Trouble::None);
        let store = open_on(&disk).unwrap();
        let mut value = forged.repeat(14);
        value.rotate_left(shift);
        let mut long = Batch::new();
        long.put(Table::Application, b"forged".to_vec(), value.clone());
        block_on(store.commit(long)).unwrap();
        // The next lap begins with a short frame, and what is behind it lay in the long one.
        drop(store);
        let store = open_on(&disk).unwrap();
        let mut short = Batch::new();
        short.put(Table::Application, b"short".to_vec(), Vec::new());
        block_on(store.commit(short)).unwrap();
        let store = open(disk.live()).unwrap();
        let view = store.view().unwrap();
        assert_eq!(
            view.get(Table::Application, b"forged").unwrap(),
            Some(value)
        );
        assert_eq!(
            view.get(Table::Application, b"short").unwrap(),
            Some(Vec::new())
        );
        assert_eq!(
            view.get(Table::Meta, b"last").unwrap(),
            None,
            "shifted by {shift}"
        );
    }
}

//! Errors of the disk at every operation of every history.

use std::io::ErrorKind;
use std::thread;

use leno_store_redb::Redb;
use leno_threads_core::store::StoreError;

use crate::crash::{check_goes_on, reopen};
use crate::disk::{Disk, Loss, Trouble};
use crate::history::{self, History};
use crate::workload::{Dice, is_long};

/// What an operation that changes the disk may end with: no room, a medium that does not write or
/// sync, a call that was interrupted, and a write that ended half-way.
fn troubles(at: u64) -> [(Trouble, Expected); 4] {
    let once = |kind| Trouble::Once { at, kind };
    [
        (once(ErrorKind::StorageFull), Expected::Full),
        (once(ErrorKind::Other), Expected::Medium),
        (once(ErrorKind::Interrupted), Expected::Medium),
        (Trouble::ShortWrite { at }, Expected::Medium),
    ]
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    Full,
    Medium,
}

impl Expected {
    fn is(self, error: &StoreError) -> bool {
        match error {
            StoreError::Full => self == Self::Full,
            StoreError::Medium { .. } => self == Self::Medium,
            _ => false,
        }
    }
}

/// Runs a check on all histories at once and sums up what they count.
fn sum_over_all(check: fn(&History) -> usize) -> usize {
    thread::scope(|scope| {
        let threads: Vec<_> = history::ALL
            .iter()
            .map(|history| scope.spawn(move || check(history)))
            .collect();
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().expect("no error is found wanting"));
        counts.sum()
    })
}

#[test]
fn error_at_every_operation_is_typed_and_loses_nothing() {
    let errors = sum_over_all(|history| {
        let mut dice = Dice::new(5);
        let mut told = 0;
        for at in 0..history.operations().0 {
            for (number, (trouble, expected)) in troubles(at).into_iter().enumerate() {
                // The others take turns at the other histories.
                let is_due = at % 4 == number as u64 || history.name == "mixed rows";
                if is_due || is_long() {
                    told += usize::from(check_error(history, trouble, expected, &mut dice));
                }
            }
        }
        told
    });
    println!("{errors} errors of writes reached the caller");
    assert!(errors > 1_500, "only {errors} errors reached the caller");
}

/// Tells whether the error reached the caller.
fn check_error(history: &History, trouble: Trouble, expected: Expected, dice: &mut Dice) -> bool {
    let context = format!("{trouble:?}");
    let disk = Disk::new(Vec::new(), trouble);
    let progress = history.run(&disk);
    if let Some(error) = &progress.error {
        assert!(expected.is(error), "{}, {context}: {error:?}", history.name);
    }
    // As the running system shows it, and after a loss of power: a sync that failed may have
    // forgotten what it was to make durable.
    for image in [
        disk.live(),
        disk.after_crash(Loss::All, dice),
        disk.after_crash(Loss::Sectors, dice),
    ] {
        let store = reopen(image, &context);
        history.check(&store, &progress, &context);
        check_goes_on(&store, &context);
    }
    // Writing early, to make room in the cache, may fail without harm.
    progress.error.is_some()
}

#[test]
fn error_at_every_read_is_typed_and_loses_nothing() {
    let errors = sum_over_all(|history| {
        let mut told = 0;
        for at in 0..history.operations().1 {
            let trouble = Trouble::Read {
                at,
                kind: ErrorKind::Other,
            };
            let disk = Disk::new(Vec::new(), trouble);
            let progress = history.run(&disk);
            let context = format!("{trouble:?}");
            if let Some(error) = &progress.error {
                assert!(Expected::Medium.is(error), "{context}: {error:?}");
                told += 1;
            }
            let store = reopen(disk.live(), &context);
            history.check(&store, &progress, &context);
            check_goes_on(&store, &context);
        }
        told
    });
    println!("{errors} errors of reads reached the caller");
    assert!(errors > 1_000, "only {errors} errors reached the caller");
}

#[test]
fn full_disk_leaves_a_readable_store() {
    let refused = sum_over_all(|history| {
        let mut refused = 0;
        for kibibytes in (64..700).step_by(40) {
            refused += usize::from(check_full(history, kibibytes << 10));
        }
        refused
    });
    assert!(refused > 20, "the disk was full only {refused} times");
}

/// Tells whether the disk was full.
fn check_full(history: &History, bytes: u64) -> bool {
    let context = format!("a disk of {bytes} bytes");
    let trouble = Trouble::Full { bytes };
    let disk = Disk::new(Vec::new(), trouble);
    let progress = history.run(&disk);
    if let Some(error) = &progress.error {
        assert!(Expected::Full.is(error), "{context}: {error:?}");
    }
    // The disk is as full as before.
    match Redb::options().open_backend(Disk::new(disk.live(), trouble)) {
        Ok(store) => {
            history.check(&store, &progress, &context);
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Full), "{context}: {error:?}");
            assert_eq!(
                progress.acknowledged, 0,
                "{context}: a store with rows opens"
            );
        }
    }
    let store = reopen(disk.live(), &context);
    history.check(&store, &progress, &context);
    check_goes_on(&store, &context);
    progress.error.is_some()
}

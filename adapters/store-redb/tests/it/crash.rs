//! Loss of power, and errors of the disk, at every operation of a workload.

use std::io::ErrorKind;
use std::time::Duration;

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::{Store, StoreError};

use crate::disk::{Disk, Loss, Trouble};
use crate::workload::{Dice, batch, check, check_goes_on};

const BATCHES: u64 = 12;

/// How far a workload came.
#[derive(Debug, Default)]
struct Progress {
    acknowledged: u64,
    started: u64,
    error: Option<StoreError>,
    closed: bool,
}

/// Commits batches on a disk, compacts in the midst, closes; stops at the first error.
fn run(disk: &Disk, settle_after: Option<Duration>) -> Progress {
    let mut progress = Progress::default();
    // A small cache makes pages go to the disk before their commit, too.
    let options = Redb::options()
        .settle_after(settle_after)
        .cache_bytes(64 << 10);
    let store = match options.open_backend(disk.clone()) {
        Ok(store) => store,
        Err(error) => {
            progress.error = Some(error);
            return progress;
        }
    };
    for number in 1..=BATCHES {
        progress.started = number;
        if let Err(error) = block_on(store.commit(batch(number))) {
            check_poisoned(&store);
            progress.error = Some(error);
            return progress;
        }
        progress.acknowledged = number;
        if number == BATCHES / 2
            && let Err(error) = block_on(store.compact())
        {
            check_poisoned(&store);
            progress.error = Some(error);
            return progress;
        }
    }
    match block_on(store.close()) {
        Ok(()) => progress.closed = true,
        Err(error) => progress.error = Some(error),
    }
    progress
}

fn check_poisoned(store: &Redb) {
    assert!(
        matches!(store.view().err(), Some(StoreError::Poisoned)),
        "no view of a failed store"
    );
    let again = block_on(store.commit(batch(1)));
    assert!(
        matches!(again, Err(StoreError::Poisoned)),
        "no second try: {again:?}"
    );
}

fn reopen(bytes: Vec<u8>, context: &str) -> Redb {
    Redb::options()
        .settle_after(None)
        .open_backend(Disk::new(bytes, Trouble::None))
        .unwrap_or_else(|error| panic!("{context}: does not open: {error:?}"))
}

fn operations(settle_after: Option<Duration>) -> u64 {
    let disk = Disk::new(Vec::new(), Trouble::None);
    let progress = run(&disk, settle_after);
    assert!(progress.closed, "{progress:?}");
    disk.operations()
}

#[test]
fn power_loss_at_every_operation_keeps_every_acknowledged_batch() {
    let mut dice = Dice::new(1);
    let mut images = 0;
    for at in 0..=operations(None) {
        let disk = Disk::new(Vec::new(), Trouble::PowerLoss { at });
        let progress = run(&disk, None);
        for loss in Loss::ALL {
            let context = format!("power loss at operation {at}, losing {loss:?}");
            let store = reopen(disk.after_crash(loss, &mut dice), &context);
            let last = check(&store, progress.acknowledged, progress.started, &context);
            check_goes_on(&store, last, &context);
            images += 1;
        }
    }
    assert!(images > 1_500, "only {images} crashes were tried");
}

#[test]
fn power_loss_while_settling_keeps_every_acknowledged_batch() {
    // The thread settles whenever it has nothing to do, so operations differ from run to run.
    let settle_after = Some(Duration::ZERO);
    let mut dice = Dice::new(2);
    for at in (0..=operations(settle_after)).step_by(7) {
        let disk = Disk::new(Vec::new(), Trouble::PowerLoss { at });
        let progress = run(&disk, settle_after);
        for loss in Loss::ALL {
            let context = format!("power loss at operation {at}, settling, losing {loss:?}");
            let store = reopen(disk.after_crash(loss, &mut dice), &context);
            check(&store, progress.acknowledged, progress.started, &context);
        }
    }
}

#[test]
fn power_loss_during_recovery_keeps_every_acknowledged_batch() {
    let mut dice = Dice::new(3);
    for at in (0..=operations(None)).step_by(9) {
        let disk = Disk::new(Vec::new(), Trouble::PowerLoss { at });
        let progress = run(&disk, None);
        for first in [Loss::None, Loss::Subset, Loss::Torn] {
            let image = disk.after_crash(first, &mut dice);
            for again in 0..12 {
                let disk = Disk::new(image.clone(), Trouble::PowerLoss { at: again });
                drop(Redb::options().open_backend(disk.clone()));
                let second = Loss::ALL[dice.below(Loss::ALL.len())];
                let context = format!(
                    "power loss at operation {at}, losing {first:?}, and at operation {again} of \
                     the recovery, losing {second:?}"
                );
                let store = reopen(disk.after_crash(second, &mut dice), &context);
                check(&store, progress.acknowledged, progress.started, &context);
            }
        }
    }
}

#[test]
fn errors_of_the_disk_are_typed_and_poison_the_store() {
    let mut seen = (0, 0);
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        for at in 0..=operations(None) {
            let context = format!("{kind:?} at operation {at}");
            let disk = Disk::new(Vec::new(), Trouble::Once { at, kind });
            let progress = run(&disk, None);
            match (&progress.error, kind) {
                (Some(StoreError::Full), ErrorKind::StorageFull) => seen.0 += 1,
                (Some(StoreError::Medium { .. }), ErrorKind::Other) => seen.1 += 1,
                // Writing early, to make room in the cache, may fail without harm.
                (None, _) => {}
                (Some(error), _) => panic!("{context}: {error:?}"),
            }
            let store = reopen(disk.live(), &context);
            let last = check(&store, progress.acknowledged, progress.started, &context);
            check_goes_on(&store, last, &context);
        }
    }
    assert!(
        seen.0 > 50 && seen.1 > 50,
        "errors reached the caller: {seen:?}"
    );
}

#[test]
fn full_disk_leaves_a_readable_store() {
    let mut refused = 0;
    for kibibytes in (64..700).step_by(40) {
        let context = format!("a disk of {kibibytes} KiB");
        let trouble = Trouble::Full {
            bytes: kibibytes << 10,
        };
        let disk = Disk::new(Vec::new(), trouble);
        let progress = run(&disk, None);
        match progress.error {
            Some(StoreError::Full) => refused += 1,
            None => {}
            Some(error) => panic!("{context}: {error:?}"),
        }
        // The disk is as full as before.
        match Redb::options().open_backend(Disk::new(disk.live(), trouble)) {
            Ok(store) => {
                check(&store, progress.acknowledged, progress.started, &context);
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
        let last = check(&store, progress.acknowledged, progress.started, &context);
        check_goes_on(&store, last, &context);
    }
    assert!(refused > 3, "the disk was full only {refused} times");
}

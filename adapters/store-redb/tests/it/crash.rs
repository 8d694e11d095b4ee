//! Loss of power, and errors of the disk, at every operation of a workload.

use std::io::ErrorKind;
use std::time::Duration;

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::{Store, StoreError};

use crate::disk::{Disk, Loss, Trouble};
use crate::workload::{Dice, SMALL_JOURNAL, batch, check, check_goes_on};

/// Enough for several laps of the journal.
const BATCHES: u64 = 14;

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
        .journal_bytes(SMALL_JOURNAL)
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
fn power_loss_after_power_loss_keeps_every_acknowledged_batch() {
    let mut dice = Dice::new(3);
    for at in (0..=operations(None)).step_by(9) {
        let disk = Disk::new(Vec::new(), Trouble::PowerLoss { at });
        let before = run(&disk, None);
        for first in [Loss::None, Loss::Subset, Loss::Torn, Loss::Sectors] {
            let image = disk.after_crash(first, &mut dice);
            for again in 0..24 {
                let disk = Disk::new(image.clone(), Trouble::PowerLoss { at: again });
                let context = format!(
                    "power loss at operation {at}, losing {first:?}, and at operation {again} of \
                     the next life"
                );
                let after = live_on(&disk, &before, &context);
                let second = Loss::ALL[dice.below(Loss::ALL.len())];
                let context = format!("{context}, losing {second:?}");
                let store = reopen(disk.after_crash(second, &mut dice), &context);
                let last = check(&store, after.acknowledged, after.started, &context);
                check_goes_on(&store, last, &context);
            }
        }
    }
}

/// Opens what a crash left, checks it, and commits until the power goes again.
fn live_on(disk: &Disk, before: &Progress, context: &str) -> Progress {
    let mut after = Progress {
        acknowledged: before.acknowledged,
        started: before.started,
        ..Progress::default()
    };
    let options = Redb::options()
        .settle_after(None)
        .journal_bytes(SMALL_JOURNAL);
    let Ok(store) = options.open_backend(disk.clone()) else {
        return after;
    };
    let last = check(&store, before.acknowledged, before.started, context);
    // What was read once is there for good, even if nobody was told of it when it was written.
    (after.acknowledged, after.started) = (last, last);
    for number in last + 1..=last + 3 {
        after.started = number;
        if block_on(store.commit(batch(number))).is_err() {
            return after;
        }
        after.acknowledged = number;
    }
    after
}

#[test]
fn many_lives_keep_every_acknowledged_batch() {
    let lives = if std::env::var_os("LENO_LONG").is_some() {
        5_000
    } else {
        400
    };
    let mut dice = Dice::new(4);
    let mut image = Vec::new();
    let (mut acknowledged, mut started) = (0, 0);
    let mut closed = 0;
    for life in 0..lives {
        let at = u64::try_from(dice.below(90)).unwrap();
        let disk = Disk::new(image, Trouble::PowerLoss { at });
        let options = Redb::options()
            .settle_after(None)
            .journal_bytes(SMALL_JOURNAL)
            .cache_bytes(dice.below(100_000));
        if let Ok(store) = options.open_backend(disk.clone()) {
            let last = check(&store, acknowledged, started, &format!("life {life}"));
            (acknowledged, started) = (last, last);
            for _ in 0..dice.below(12) {
                started = acknowledged + 1;
                if block_on(store.commit(batch(started))).is_err() {
                    break;
                }
                acknowledged = started;
                // Most lives end by a crash, some after the store was compacted or closed.
                if dice.below(20) == 0 && block_on(store.compact()).is_err() {
                    break;
                }
            }
            if dice.below(3) == 0 && block_on(store.close()).is_ok() {
                closed += 1;
            }
        }
        let loss = Loss::ALL[dice.below(Loss::ALL.len())];
        image = disk.after_crash(loss, &mut dice);
        if acknowledged > 60 {
            (image, acknowledged, started) = (Vec::new(), 0, 0);
        }
    }
    assert!(
        closed > lives / 20,
        "only {closed} of {lives} lives ended well"
    );
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

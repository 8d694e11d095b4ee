//! Disks that live through many crashes, and crashes while the store settles by itself.

use std::time::Duration;

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::Store;

use crate::crash::reopen;
use crate::disk::{Disk, Loss, Trouble};
use crate::workload::{Dice, SMALL_JOURNAL, batch, check, is_long};

#[test]
fn many_lives_keep_every_acknowledged_batch() {
    let lives = if is_long() { 5_000 } else { 400 };
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

/// Commits some batches while the store settles whenever it has nothing to do; gives how many were
/// acknowledged, and how many begun.
fn settling(disk: &Disk) -> (u64, u64) {
    let options = Redb::options()
        .settle_after(Some(Duration::ZERO))
        .journal_bytes(SMALL_JOURNAL)
        .cache_bytes(64 << 10);
    let Ok(store) = options.open_backend(disk.clone()) else {
        return (0, 0);
    };
    for number in 1..=14 {
        if block_on(store.commit(batch(number))).is_err() {
            return (number - 1, number);
        }
    }
    // Whether closing succeeds is not what is asked here.
    let _ = block_on(store.close());
    (14, 14)
}

#[test]
fn power_loss_while_settling_keeps_every_acknowledged_batch() {
    // The thread settles whenever it has nothing to do, so operations differ from run to run.
    let whole = Disk::new(Vec::new(), Trouble::None);
    assert_eq!(settling(&whole), (14, 14));
    let mut dice = Dice::new(2);
    for at in (0..=whole.operations()).step_by(7) {
        let disk = Disk::new(Vec::new(), Trouble::PowerLoss { at });
        let (acknowledged, started) = settling(&disk);
        for loss in Loss::ALL {
            let context = format!("power loss at operation {at}, settling, losing {loss:?}");
            let store = reopen(disk.after_crash(loss, &mut dice), &context);
            check(&store, acknowledged, started, &context);
        }
    }
}

//! Loss of power at every operation of every history, under every loss model, and again while the
//! store recovers.

use std::collections::VecDeque;
use std::thread;

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::{Batch, Store, Table};

use crate::disk::{Disk, Loss, Trouble};
use crate::history::{self, History, Progress};
use crate::workload::{Dice, is_long};

/// Crash points that are tried at least, in all.
const POINTS_MIN: usize = 20_000;

/// Of so many operations one is where power is lost before it is lost again.
const DOUBLES_EVERY: usize = 11;

#[test]
fn every_crash_point_keeps_every_acknowledged_commit() {
    let rounds = if is_long() { 20 } else { 1 };
    let mut sum = Count::default();
    thread::scope(|scope| {
        let threads: Vec<_> = history::ALL
            .iter()
            .map(|history| scope.spawn(move || Enumeration::new(history).run(rounds)))
            .collect();
        for (history, thread) in history::ALL.iter().zip(threads) {
            let count = thread.join().expect("no crash point is found wanting");
            println!("{}: {count:?}", history.name);
            sum.single += count.single;
            sum.double += count.double;
            sum.images += count.images;
        }
    });
    let points = sum.single + sum.double;
    println!("{points} crash points: {sum:?}");
    assert!(points >= POINTS_MIN, "only {points} crash points: {sum:?}");
}

/// Crash points that were tried.
#[derive(Debug, Default)]
struct Count {
    /// Operation of the life that crashed, and loss model.
    single: usize,
    /// Operation, loss model, operation of the life after that, and loss model.
    double: usize,
    /// Images of the disk that differed from those just before.
    images: usize,
}

struct Enumeration<'a> {
    history: &'a History,
    dice: Dice,
    count: Count,
    /// The last few images, and what was found in them: many crash points leave the same one.
    seen: VecDeque<(Vec<u8>, usize)>,
}

impl<'a> Enumeration<'a> {
    fn new(history: &'a History) -> Self {
        Self {
            history,
            dice: Dice::new(1),
            count: Count::default(),
            seen: VecDeque::new(),
        }
    }

    /// Power may be lost after the last operation, too.
    fn run(mut self, rounds: usize) -> Count {
        let (operations, _) = self.history.operations();
        for round in 0..rounds {
            for at in 0..=operations {
                self.lose_power(at, round);
            }
        }
        self.count
    }

    fn lose_power(&mut self, at: u64, round: usize) {
        let disk = Disk::new(Vec::new(), Trouble::PowerLoss { at });
        let progress = self.history.run(&disk);
        for loss in Loss::ALL {
            let context = format!("power loss at operation {at}, losing {loss:?}");
            let image = disk.after_crash(loss, &mut self.dice);
            self.check(&image, &progress, &context);
            self.count.single += 1;
        }
        if usize::try_from(at).unwrap() % DOUBLES_EVERY == round % DOUBLES_EVERY {
            let loss = self.loss();
            let context = format!("power loss at operation {at}, losing {loss:?}");
            let image = disk.after_crash(loss, &mut self.dice);
            self.lose_power_again(&image, &progress, &context);
        }
    }

    fn lose_power_again(&mut self, image: &[u8], before: &Progress, context: &str) {
        let disk = Disk::new(image.to_vec(), Trouble::None);
        let whole = self.history.live_on(&disk, before, context);
        assert!(whole.closed, "{context}: {whole:?}");
        for again in 0..=disk.operations() {
            let disk = Disk::new(image.to_vec(), Trouble::PowerLoss { at: again });
            let after = self.history.live_on(&disk, before, context);
            let loss = self.loss();
            let context = format!("{context}, and at {again} of the next life, losing {loss:?}");
            let image = disk.after_crash(loss, &mut self.dice);
            self.check(&image, &after, &context);
            self.count.double += 1;
        }
    }

    fn loss(&mut self) -> Loss {
        Loss::ALL[self.dice.below(Loss::ALL.len())]
    }

    /// Checks that the store opens by itself with what was acknowledged, and goes on.
    fn check(&mut self, image: &[u8], progress: &Progress, context: &str) {
        if let Some((_, last)) = self.seen.iter().find(|(seen, _)| seen == image) {
            let Progress {
                acknowledged,
                started,
                ..
            } = progress;
            assert!((acknowledged..=started).contains(&last), "{context}");
            return;
        }
        let store = reopen(image.to_vec(), context);
        let last = self.history.check(&store, progress, context);
        check_goes_on(&store, context);
        self.count.images += 1;
        self.seen.push_back((image.to_vec(), last));
        if self.seen.len() > 2 * Loss::ALL.len() {
            self.seen.pop_front();
        }
    }
}

pub(crate) fn reopen(bytes: Vec<u8>, context: &str) -> Redb {
    Redb::options()
        .settle_after(None)
        .open_backend(Disk::new(bytes, Trouble::None))
        .unwrap_or_else(|error| panic!("{context}: does not open: {error:?}"))
}

/// Commits a row and reads it back.
pub(crate) fn check_goes_on(store: &Redb, context: &str) {
    let mut batch = Batch::new();
    batch.put(Table::Application, b"after".to_vec(), b"row".to_vec());
    block_on(store.commit(batch)).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let row = store.view().unwrap().get(Table::Application, b"after");
    assert_eq!(row.unwrap(), Some(b"row".to_vec()), "{context}");
}

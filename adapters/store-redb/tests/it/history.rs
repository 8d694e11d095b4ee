//! Histories: what a store is asked to do in one life, and the rows that each commit leaves.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use futures_executor::block_on;
use leno_store_redb::{Redb, RedbOptions};
use leno_threads_core::store::{Batch, Store, StoreError, Table};

use crate::disk::Disk;
use crate::peers;
use crate::workload::{Dice, SMALL_JOURNAL, State, batch, read_all};

/// The row that each commit of a history writes besides its own: its number.
const NUMBER: (Table, &[u8]) = (Table::Application, b"number of the commit");

#[derive(Debug)]
pub(crate) enum Step {
    Commit(Batch),
    Compact,
    /// Closes the store and opens it again.
    Reopen,
}

#[derive(Debug)]
pub(crate) struct History {
    pub(crate) name: &'static str,
    cache_bytes: usize,
    steps: Vec<Step>,
    /// A digest of all rows after so many commits, from 0 on.
    digests: Vec<u64>,
}

/// How far a life came.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) acknowledged: usize,
    pub(crate) started: usize,
    pub(crate) error: Option<StoreError>,
    pub(crate) closed: bool,
}

/// Those that are tried at every operation.
pub(crate) static ALL: LazyLock<Vec<History>> = LazyLock::new(|| {
    let (alice, bob) = peers::batches();
    vec![
        // A small cache makes pages go to the disk before their commit, too.
        History::new("mixed rows", 64 << 10, mixed()),
        History::new("small rows", 64 << 10, small()),
        History::new("large rows", 0, large()),
        History::new("reopened", 4 << 20, reopened()),
        History::new("compacted", 64 << 10, compacted()),
        History::new("a peer who owns a thread", 64 << 10, commits(alice)),
        History::new("a peer who joins a thread", 4 << 20, commits(bob)),
    ]
});

fn commits(batches: Vec<Batch>) -> Vec<Step> {
    batches.into_iter().map(Step::Commit).collect()
}

/// Small and large rows, several laps of the journal, compacted in the midst.
fn mixed() -> Vec<Step> {
    let mut steps = commits((1..=14).map(batch).collect());
    steps.insert(7, Step::Compact);
    steps
}

/// One short row each, as many as fill the journal several times.
fn small() -> Vec<Step> {
    let mut dice = Dice::new(11);
    let batches = (0..50_u8).map(|number| {
        let mut batch = Batch::new();
        let row = dice.below(300);
        batch.put(Table::Runs, vec![number], dice.bytes(row));
        batch
    });
    commits(batches.collect())
}

/// Rows that are too long for the journal, put and deleted, so that the file grows and its pages are
/// used again.
fn large() -> Vec<Step> {
    let mut dice = Dice::new(12);
    let batches = (0..10_u8).map(|number| {
        let mut batch = Batch::new();
        for at in 0..3 {
            batch.put(Table::Runs, vec![number, at], dice.bytes(40_000));
        }
        if let Some(old) = number.checked_sub(3) {
            batch.delete(Table::Runs, vec![old, 0]);
            batch.delete(Table::Runs, vec![old, 1]);
        }
        batch
    });
    commits(batches.collect())
}

/// Closed and opened again after a few commits each.
fn reopened() -> Vec<Step> {
    let mut steps = Vec::new();
    for number in 1..=12 {
        steps.push(Step::Commit(batch(number)));
        if number % 3 == 0 {
            steps.push(Step::Reopen);
        }
    }
    steps
}

/// Much is deleted, and the file made smaller.
fn compacted() -> Vec<Step> {
    let (mut fill, mut clear) = (Batch::new(), Batch::new());
    for at in 0..12_u8 {
        fill.put(Table::Application, vec![at], vec![at; 20_000]);
        clear.delete(Table::Application, vec![at]);
    }
    let steps = [
        Step::Commit(fill),
        Step::Commit(batch(1)),
        Step::Commit(clear),
        Step::Compact,
        Step::Commit(batch(2)),
        Step::Compact,
        Step::Commit(batch(3)),
    ];
    steps.into()
}

impl History {
    fn new(name: &'static str, cache_bytes: usize, mut steps: Vec<Step>) -> Self {
        let mut state = State::new();
        let mut digests = vec![digest(&state)];
        for step in &mut steps {
            if let Step::Commit(batch) = step {
                let number = digests.len();
                batch.put(NUMBER.0, NUMBER.1.to_vec(), number.to_be_bytes().to_vec());
                for (table, key, value) in batch.writes() {
                    match value {
                        Some(value) => state.insert((table, key.to_vec()), value.to_vec()),
                        None => state.remove(&(table, key.to_vec())),
                    };
                }
                digests.push(digest(&state));
            }
        }
        Self {
            name,
            cache_bytes,
            steps,
            digests,
        }
    }

    fn options(&self) -> RedbOptions {
        Redb::options()
            .settle_after(None)
            .journal_bytes(SMALL_JOURNAL)
            .cache_bytes(self.cache_bytes)
    }

    /// Does all steps on a new disk; stops at the first error.
    pub(crate) fn run(&self, disk: &Disk) -> Progress {
        let mut progress = Progress::default();
        let result = self
            .options()
            .open_backend(disk.clone())
            .and_then(|store| self.steps_behind(store, disk, usize::MAX, &mut progress));
        progress.error = result.err();
        progress
    }

    /// Opens what a crash left, checks it, and goes on for a few commits until trouble comes again.
    pub(crate) fn live_on(&self, disk: &Disk, before: &Progress, context: &str) -> Progress {
        let mut after = Progress {
            acknowledged: before.acknowledged,
            started: before.started,
            ..Progress::default()
        };
        let result = self.options().open_backend(disk.clone()).and_then(|store| {
            // What was read once is there for good, even if nobody was told of it when it was
            // written.
            let last = self.check(&store, before, context);
            (after.acknowledged, after.started) = (last, last);
            self.steps_behind(store, disk, 2, &mut after)
        });
        after.error = result.err();
        after
    }

    /// Does what comes behind the commits that were acknowledged, with at most `count` commits, and
    /// closes the store.
    fn steps_behind(
        &self,
        mut store: Redb,
        disk: &Disk,
        count: usize,
        progress: &mut Progress,
    ) -> Result<(), StoreError> {
        let done = progress.acknowledged;
        let mut number = 0;
        for step in &self.steps {
            number += usize::from(matches!(step, Step::Commit(_)));
            if number > done.saturating_add(count) {
                break;
            }
            match step {
                Step::Commit(_) if number <= done => {}
                Step::Commit(batch) => {
                    progress.started = number;
                    ended_by(&store, block_on(store.commit(batch.clone())))?;
                    progress.acknowledged = number;
                }
                _ if number < done => {}
                Step::Compact => ended_by(&store, block_on(store.compact()).map(|_| ()))?,
                Step::Reopen => {
                    block_on(store.close())?;
                    drop(store);
                    store = self.options().open_backend(disk.clone())?;
                }
            }
        }
        block_on(store.close())?;
        progress.closed = true;
        Ok(())
    }

    /// Operations of a life without trouble, and reads.
    pub(crate) fn operations(&self) -> (u64, u64) {
        let disk = Disk::new(Vec::new(), crate::disk::Trouble::None);
        let progress = self.run(&disk);
        assert!(progress.closed, "{}: {progress:?}", self.name);
        (disk.operations(), disk.reads())
    }

    /// Checks that a store holds whole commits only, and all those that were acknowledged; gives the
    /// number of the newest.
    pub(crate) fn check(&self, store: &Redb, progress: &Progress, context: &str) -> usize {
        let state = read_all(&*store.view().unwrap()).unwrap();
        let number = state.get(&(NUMBER.0, NUMBER.1.to_vec()));
        let last = number.map_or(0, |it| {
            usize::from_be_bytes(it.as_slice().try_into().unwrap())
        });
        let Progress {
            acknowledged,
            started,
            ..
        } = progress;
        let name = self.name;
        assert!(
            last >= *acknowledged,
            "{name}, {context}: {acknowledged} was acknowledged, {last} is there"
        );
        assert!(
            last <= *started,
            "{name}, {context}: {last} is there before it was written"
        );
        assert!(
            digest(&state) == self.digests[last],
            "{name}, {context}: the rows are not those after commit {last}"
        );
        last
    }
}

/// After a commit that did not succeed a store does nothing more.
fn ended_by(store: &Redb, result: Result<(), StoreError>) -> Result<(), StoreError> {
    if result.is_err() {
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
    result
}

fn digest(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

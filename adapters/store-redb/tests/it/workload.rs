//! Numbered batches, and the exact rows that each prefix of them leaves.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::{Batch, Direction, Store, StoreError, Table, View};

/// Every row of a store.
pub(crate) type State = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// The key, in `Table::Meta`, of the number of the newest batch.
pub(crate) const LAST: &[u8] = b"last";

/// A journal in which four batches find room, and a fifth, which is longer, does not.
pub(crate) const SMALL_JOURNAL: u64 = 44 << 10;

/// A batch of small and large rows over several tables, which also deletes rows of an older one.
pub(crate) fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    let mut dice = Dice::new(number);
    batch.put(Table::Meta, LAST.to_vec(), number.to_be_bytes().to_vec());
    for at in 0..4 {
        batch.put(Table::Runs, key(number, at), dice.bytes(190));
    }
    if number.is_multiple_of(5) {
        batch.put(Table::Runs, key(number, 9), dice.bytes(30_000));
    }
    for _ in 0..10 {
        let document = u64::try_from(dice.below(60)).unwrap();
        batch.put(Table::Documents, key(document, 0), dice.bytes(300));
    }
    batch.put(Table::Outbox, key(number, 0), dice.bytes(20));
    if let Some(old) = number.checked_sub(5) {
        batch.delete(Table::Outbox, key(old, 0));
        batch.delete(Table::Runs, key(old, 2));
    }
    batch
}

/// The rows after batches 1 to `count`.
pub(crate) fn state_after(count: u64) -> State {
    let mut state = State::new();
    for number in 1..=count {
        for (table, key, value) in batch(number).into_writes() {
            match value {
                Some(value) => state.insert((table, key), value),
                None => state.remove(&(table, key)),
            };
        }
    }
    state
}

/// Reads every row there is.
pub(crate) fn read_all(view: &dyn View) -> Result<State, StoreError> {
    let mut state = State::new();
    for table in Table::ALL {
        let all = (Bound::Unbounded, Bound::Unbounded);
        view.scan(
            table,
            all.0,
            all.1,
            Direction::Forward,
            &mut |key, value| {
                state.insert((table, key.to_vec()), value.to_vec());
                ControlFlow::Continue(())
            },
        )?;
    }
    Ok(state)
}

/// The number of the newest batch of a state, 0 if there is none.
pub(crate) fn last(state: &State) -> u64 {
    let last = state.get(&(Table::Meta, LAST.to_vec()));
    last.map_or(0, |last| {
        u64::from_be_bytes(last.as_slice().try_into().unwrap())
    })
}

/// Checks that a store holds whole batches only, and all those that were acknowledged; gives the
/// number of the newest.
pub(crate) fn check(store: &Redb, acknowledged: u64, started: u64, context: &str) -> u64 {
    let state = read_all(&*store.view().unwrap()).unwrap();
    let last = last(&state);
    assert!(
        last >= acknowledged,
        "{context}: {acknowledged} was acknowledged, {last} is there"
    );
    assert!(
        last <= started,
        "{context}: {last} is there before it was written"
    );
    assert!(
        state == state_after(last),
        "{context}: the rows are not those after batch {last}"
    );
    last
}

/// Commits one more batch and reads it back.
pub(crate) fn check_goes_on(store: &Redb, last: u64, context: &str) {
    block_on(store.commit(batch(last + 1))).unwrap();
    check(store, last + 1, last + 1, context);
}

fn key(number: u64, at: u8) -> Vec<u8> {
    [number.to_be_bytes().as_slice(), &[at]].concat()
}

/// Whether tests are to try more than fits the usual run.
pub(crate) fn is_long() -> bool {
    std::env::var_os("LENO_LONG").is_some()
}

/// A small seeded generator (xorshift64*).
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: (seed ^ 0x9e37_79b9_7f4a_7c15).max(1),
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 8) % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// A folder of its own for a test, removed at its end.
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("store-redb-{}-{count}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

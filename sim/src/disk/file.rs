//! A file in memory that remembers what was synced and can lose power, and the store of
//! `leno-store-redb` on it.
//!
//! The store has a thread of its own. Each commit is waited for, and so is what the thread does behind
//! it, so that the order of what reaches the file follows from the seed alone.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_executor::block_on;
use leno::store::{Batch, Store, StoreError};
use leno_store_redb::{Redb, StorageBackend};

use crate::dice::Dice;

/// Room for the journal of a file: short, so that rows are moved on often.
const JOURNAL_BYTES: u64 = 64 << 10;

/// Bytes of a file that reach the medium together.
const SECTOR_BYTES: usize = 512;

/// A file, and the store on it while it is open.
#[derive(Debug, Default)]
pub(super) struct File {
    bytes: Bytes,
    redb: Option<Arc<Redb>>,
}

impl File {
    pub(super) fn open(&mut self) -> Result<(), StoreError> {
        if self.redb.is_some() {
            return Ok(());
        }
        let options = Redb::options()
            .journal_bytes(JOURNAL_BYTES)
            // By no clock but the world's.
            .settle_after(None);
        let redb = options.open_backend(self.bytes.clone())?;
        self.redb = Some(Arc::new(redb));
        Ok(())
    }

    pub(super) fn store(&self) -> Result<Arc<dyn Store>, StoreError> {
        let redb = self.redb.clone().ok_or(StoreError::Poisoned)?;
        Ok(redb)
    }

    pub(super) fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let redb = self.redb.clone().ok_or(StoreError::Poisoned)?;
        block_on(redb.commit(batch))?;
        // Answered once the thread has done what it does behind a commit.
        block_on(redb.commit(Batch::new()))
    }

    /// Commits until the power goes, a few operations later.
    pub(super) fn commit_in_part(&mut self, batch: Batch, dice: &mut Dice) {
        self.bytes.lock().operations_left = Some(dice.below(6));
        // Nobody is told how it ended.
        drop(self.commit(batch));
    }

    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        match self.redb.take() {
            Some(redb) => block_on(redb.close()),
            None => Ok(()),
        }
    }

    /// The power goes: what was not synced may be lost, in part, or torn.
    /// Tells how many writes were lost, and how many torn.
    pub(super) fn crash(&mut self, dice: &mut Dice) -> (u64, u64) {
        self.bytes.lock().is_off = true;
        // What the thread still wants to write goes nowhere.
        self.redb = None;
        let (after, lost, torn) = self.bytes.lock().after_crash(dice);
        self.bytes = Bytes::of(after);
        (lost, torn)
    }

    pub(super) fn copy(&self) -> Self {
        // As a backup program does that reads a file while it is written, but at one moment.
        Self {
            bytes: Bytes::of(self.bytes.lock().live.clone()),
            redb: None,
        }
    }
}

/// The bytes of a file. Clones are the same file.
#[derive(Clone, Debug, Default)]
struct Bytes {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    is_off: bool,
    /// How many more operations there are before the power goes.
    operations_left: Option<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Bytes {
    fn of(bytes: Vec<u8>) -> Self {
        let state = State {
            live: bytes.clone(),
            durable: bytes,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: Change) -> Result<(), Error> {
        let mut state = self.lock();
        state.count()?;
        apply(&mut state.live, &change);
        state.unsynced.push(change);
        Ok(())
    }
}

impl State {
    /// Counts an operation that changes the file.
    fn count(&mut self) -> Result<(), Error> {
        if let Some(left) = &mut self.operations_left {
            self.is_off |= *left == 0;
            *left = left.saturating_sub(1);
        }
        match self.is_off {
            true => Err(Error::other("no power")),
            false => Ok(()),
        }
    }

    /// What is on the medium after the power went: of what was not synced nothing, all, the first of
    /// it, the first of it with a torn write, or any part.
    fn after_crash(&self, dice: &mut Dice) -> (Vec<u8>, u64, u64) {
        let mut bytes = self.durable.clone();
        let (mut lost, mut torn) = (0, 0);
        let loss = dice.below(6);
        let end = dice.index(self.unsynced.len() + 1);
        for (at, change) in self.unsynced.iter().enumerate() {
            match loss {
                0 => lost += 1,
                1 => apply(&mut bytes, change),
                2 | 3 if at < end => apply(&mut bytes, change),
                3 if at == end => {
                    torn += 1;
                    let reaches = &mut |sector, dice: &mut Dice| sector == 0 || dice.coin();
                    tear(&mut bytes, change, reaches, dice);
                }
                4 if dice.coin() => apply(&mut bytes, change),
                5 => {
                    torn += 1;
                    tear(&mut bytes, change, &mut |_, dice| dice.coin(), dice);
                }
                _ => lost += 1,
            }
        }
        (bytes, lost, torn)
    }
}

/// Lets some sectors of a write reach the medium.
fn tear(
    bytes: &mut Vec<u8>,
    change: &Change,
    reaches: &mut dyn FnMut(usize, &mut Dice) -> bool,
    dice: &mut Dice,
) {
    match change {
        Change::Length(_) => {
            if reaches(0, dice) {
                apply(bytes, change);
            }
        }
        Change::Write { at, bytes: written } => {
            for (number, sector) in written.chunks(SECTOR_BYTES).enumerate() {
                if reaches(number, dice) {
                    let at = at + number * SECTOR_BYTES;
                    let bytes_of = sector.to_vec();
                    let part = Change::Write {
                        at,
                        bytes: bytes_of,
                    };
                    apply(bytes, &part);
                }
            }
        }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length, 0),
        Change::Write { at, bytes: written } => {
            let end = at + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            if let Some(place) = bytes.get_mut(*at..end) {
                place.copy_from_slice(written);
            }
        }
    }
}

fn place(offset: u64) -> Result<usize, Error> {
    // As a file system does, rather than to use up the memory of the simulator.
    let place = usize::try_from(offset).ok().filter(|it| *it < 1 << 30);
    place.ok_or_else(|| ErrorKind::FileTooLarge.into())
}

impl StorageBackend for Bytes {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let state = self.lock();
        let from = place(offset)?;
        let bytes = state
            .live
            .get(from..)
            .and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.change(Change::Length(place(len)?))
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.count()?;
        let changes = std::mem::take(&mut state.unsynced);
        for change in &changes {
            apply(&mut state.durable, change);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let bytes = data.to_vec();
        self.change(Change::Write {
            at: place(offset)?,
            bytes,
        })
    }
}

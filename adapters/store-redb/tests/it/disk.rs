//! A disk in memory that remembers what was synced, can fail on demand, and can lose power.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use leno_store_redb::StorageBackend;

use crate::workload::Dice;

/// What goes wrong. Operations that write, resize or sync are counted from 0, reads apart from them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    None,
    /// The power goes at this operation: it and all later ones have no effect.
    PowerLoss {
        at: u64,
    },
    /// This one operation fails and has no effect, but that a sync which fails forgets what it was
    /// to make durable: it shows until the power goes, and no later sync writes it.
    Once {
        at: u64,
        kind: ErrorKind,
    },
    /// This one operation fails half-way, if it is a write.
    ShortWrite {
        at: u64,
    },
    /// This one read fails.
    Read {
        at: u64,
        kind: ErrorKind,
    },
    /// The disk has this much room.
    Full {
        bytes: u64,
    },
}

/// What of the operations since the last sync reaches the medium when the power goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    None,
    All,
    /// All up to a random one.
    Prefix,
    /// Each with even odds: the disk reordered them.
    Subset,
    /// All up to a random one, which is torn at a sector of 512 bytes.
    Torn,
    /// Each sector of each write with even odds.
    Sectors,
    /// Each sector shows one of its states since the last sync, and room that was added and not
    /// written shows old bytes of the medium.
    Stale,
}

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

impl Loss {
    pub(crate) const ALL: [Self; 7] = [
        Self::None,
        Self::All,
        Self::Prefix,
        Self::Subset,
        Self::Torn,
        Self::Sectors,
        Self::Stale,
    ];
}

/// A disk; clones are handles of the same one.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    inner: Arc<(Mutex<Inner>, Condvar)>,
}

#[derive(Debug)]
struct Inner {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    operations: u64,
    reads: u64,
    syncs: u64,
    trouble: Trouble,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Disk {
    pub(crate) fn new(bytes: Vec<u8>, trouble: Trouble) -> Self {
        let inner = Inner {
            live: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
            operations: 0,
            reads: 0,
            syncs: 0,
            trouble,
        };
        Self {
            inner: Arc::new((Mutex::new(inner), Condvar::new())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap()
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Waits until there were this many syncs, and gives the bytes of then.
    pub(crate) fn after_syncs(&self, syncs: u64) -> Vec<u8> {
        let mut inner = self.lock();
        while inner.syncs < syncs {
            inner = self.inner.1.wait(inner).unwrap();
        }
        inner.durable.clone()
    }

    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(crate) fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// The bytes as a running system reads them.
    pub(crate) fn live(&self) -> Vec<u8> {
        self.lock().live.clone()
    }

    /// The bytes after the power went.
    pub(crate) fn after_crash(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let inner = self.lock();
        let mut bytes = inner.durable.clone();
        let end = dice.below(inner.unsynced.len() + 1);
        match loss {
            Loss::None => apply_all(&mut bytes, &inner.unsynced),
            Loss::All => {}
            Loss::Prefix => apply_all(&mut bytes, &inner.unsynced[..end]),
            Loss::Subset => {
                for change in &inner.unsynced {
                    if dice.below(2) == 0 {
                        apply(&mut bytes, change);
                    }
                }
            }
            Loss::Torn => {
                apply_all(&mut bytes, &inner.unsynced[..end]);
                if let Some(Change::Write { at, bytes: torn }) = inner.unsynced.get(end) {
                    let kept = dice.below(torn.len().div_ceil(SECTOR)) * SECTOR;
                    write(&mut bytes, *at, &torn[..kept]);
                }
            }
            Loss::Sectors => {
                for change in &inner.unsynced {
                    keep_some_sectors(&mut bytes, change, dice);
                }
            }
            Loss::Stale => keep_some_states(&mut bytes, &inner.unsynced, dice),
        }
        bytes
    }

    fn change(&self, change: Change) -> Result<(), Error> {
        let mut inner = self.lock();
        let half = match &change {
            Change::Write { at, bytes } => Some((*at, bytes[..bytes.len() / 2].to_vec())),
            Change::Length(_) => None,
        };
        if let Err(error) = inner.count(half.is_some()) {
            if let (Trouble::ShortWrite { .. }, Some((at, bytes))) = (inner.trouble, half) {
                inner.keep(Change::Write { at, bytes });
            }
            return Err(error);
        }
        let end = match &change {
            Change::Write { at, bytes } => at + bytes.len(),
            Change::Length(length) => *length,
        };
        if let Trouble::Full { bytes } = inner.trouble
            && u64::try_from(end).unwrap() > bytes
        {
            return Err(ErrorKind::StorageFull.into());
        }
        inner.keep(change);
        Ok(())
    }
}

impl Inner {
    fn count(&mut self, is_write: bool) -> Result<(), Error> {
        let operation = self.operations;
        self.operations += 1;
        match self.trouble {
            Trouble::PowerLoss { at } if operation >= at => Err(Error::other("no power")),
            Trouble::Once { at, kind } if operation == at => Err(kind.into()),
            Trouble::ShortWrite { at } if is_write && operation == at => {
                Err(ErrorKind::WriteZero.into())
            }
            _ => Ok(()),
        }
    }

    fn count_read(&mut self) -> Result<(), Error> {
        let read = self.reads;
        self.reads += 1;
        match self.trouble {
            Trouble::Read { at, kind } if read == at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn keep(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.unsynced.push(change);
    }
}

fn apply_all(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        apply(bytes, change);
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length, 0),
        Change::Write { at, bytes: written } => write(bytes, *at, written),
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    let end = at + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(written);
}

fn keep_some_sectors(bytes: &mut Vec<u8>, change: &Change, dice: &mut Dice) {
    match change {
        Change::Length(_) if dice.below(2) == 0 => apply(bytes, change),
        Change::Length(_) => {}
        Change::Write { at, bytes: written } => {
            for (part, sector) in written.chunks(SECTOR).enumerate() {
                if dice.below(2) == 0 {
                    write(bytes, at + part * SECTOR, sector);
                }
            }
        }
    }
}

/// Gives each sector one of its states between the last sync and the loss of power, and the file one
/// of its lengths. What lies behind the old end may be what the medium held there before: here, what
/// lies in the file just before its old end.
fn keep_some_states(bytes: &mut Vec<u8>, changes: &[Change], dice: &mut Dice) {
    let old = bytes.len();
    let mut lengths = vec![old];
    let mut states: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    let mut running = bytes.clone();
    for change in changes {
        apply(&mut running, change);
        lengths.push(running.len());
        if let Change::Write { at, bytes: written } = change {
            for sector in at / SECTOR..(at + written.len()).div_ceil(SECTOR) {
                let end = running.len().min((sector + 1) * SECTOR);
                let state = running[sector * SECTOR..end].to_vec();
                states.entry(sector).or_default().push(state);
            }
        }
    }
    let length = lengths[dice.below(lengths.len())];
    let shows_old_bytes = dice.below(2) == 0;
    bytes.resize(length, 0);
    if shows_old_bytes && length > old {
        let shown = (length - old).min(old);
        bytes.copy_within(old - shown..old, old);
    }
    for (sector, states) in states {
        // One more than there are: the state before all of them.
        let state = states.get(dice.below(states.len() + 1));
        let at = sector * SECTOR;
        if let Some(state) = state.filter(|_| at < length) {
            let end = length.min(at + state.len());
            bytes[at..end].copy_from_slice(&state[..end - at]);
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, Error> {
        Ok(u64::try_from(self.lock().live.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.count_read()?;
        let from = usize::try_from(offset).unwrap();
        let bytes = inner
            .live
            .get(from..)
            .and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        // As a file system does, rather than to use up the memory of the test.
        let length = usize::try_from(len).ok().filter(|length| *length < 1 << 30);
        self.change(Change::Length(length.ok_or(ErrorKind::FileTooLarge)?))
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        let counted = inner.count(false);
        let unsynced = match &counted {
            // Without power nothing is decided yet; that is the loss model's.
            Err(_) if matches!(inner.trouble, Trouble::PowerLoss { .. }) => return counted,
            _ => std::mem::take(&mut inner.unsynced),
        };
        counted?;
        apply_all(&mut inner.durable, &unsynced);
        inner.syncs += 1;
        self.inner.1.notify_all();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let at = usize::try_from(offset).unwrap();
        self.change(Change::Write {
            at,
            bytes: data.to_vec(),
        })
    }
}

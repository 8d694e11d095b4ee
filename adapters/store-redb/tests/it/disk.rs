//! A disk in memory that remembers what was synced, can fail on demand, and can lose power.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use leno_store_redb::StorageBackend;

use crate::workload::Dice;

/// What goes wrong. Operations that write, resize or sync are counted from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    None,
    /// The power goes at this operation: it and all later ones have no effect.
    PowerLoss {
        at: u64,
    },
    /// This one operation fails.
    Once {
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
}

impl Loss {
    pub(crate) const ALL: [Self; 6] = [
        Self::None,
        Self::All,
        Self::Prefix,
        Self::Subset,
        Self::Torn,
        Self::Sectors,
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

    /// The bytes as a running system reads them.
    pub(crate) fn live(&self) -> Vec<u8> {
        self.lock().live.clone()
    }

    /// The bytes after the power went.
    pub(crate) fn after_crash(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let inner = self.lock();
        let mut bytes = inner.durable.clone();
        let end = dice.below(inner.unsynced.len() + 1);
        for (at, change) in inner.unsynced.iter().enumerate() {
            let reaches = match loss {
                Loss::None => true,
                Loss::All => false,
                Loss::Prefix | Loss::Torn => at < end,
                Loss::Subset => dice.below(2) == 0,
                Loss::Sectors => match change {
                    Change::Length(_) => dice.below(2) == 0,
                    Change::Write { at, bytes: written } => {
                        for (part, sector) in written.chunks(512).enumerate() {
                            if dice.below(2) == 0 {
                                let sector = Change::Write {
                                    at: at + part * 512,
                                    bytes: sector.to_vec(),
                                };
                                apply(&mut bytes, &sector);
                            }
                        }
                        false
                    }
                },
            };
            if reaches {
                apply(&mut bytes, change);
            }
        }
        if let (Loss::Torn, Some(Change::Write { at, bytes: torn })) =
            (loss, inner.unsynced.get(end))
        {
            let kept = dice.below(torn.len().div_ceil(512)) * 512;
            let torn = torn.get(..kept).unwrap_or_default().to_vec();
            apply(
                &mut bytes,
                &Change::Write {
                    at: *at,
                    bytes: torn,
                },
            );
        }
        bytes
    }

    fn change(&self, change: Change) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.count()?;
        let end = match &change {
            Change::Write { at, bytes } => at + bytes.len(),
            Change::Length(length) => *length,
        };
        if let Trouble::Full { bytes } = inner.trouble
            && u64::try_from(end).unwrap() > bytes
        {
            return Err(ErrorKind::StorageFull.into());
        }
        apply(&mut inner.live, &change);
        inner.unsynced.push(change);
        Ok(())
    }
}

impl Inner {
    fn count(&mut self) -> Result<(), Error> {
        let operation = self.operations;
        self.operations += 1;
        match self.trouble {
            Trouble::PowerLoss { at } if operation >= at => Err(Error::other("no power")),
            Trouble::Once { at, kind } if operation == at => Err(kind.into()),
            _ => Ok(()),
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
            bytes[*at..end].copy_from_slice(written);
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, Error> {
        Ok(u64::try_from(self.lock().live.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let inner = self.lock();
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
        inner.count()?;
        inner.durable = inner.live.clone();
        inner.unsynced.clear();
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

//! The bytes of a store's file: a header, room for the journal, and behind it redb's own.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use leno_threads_core::store::StoreError;
use redb::{BackendError, StorageBackend};

use crate::journal::{PAGE_BYTES, SECTOR_BYTES};
use crate::store::FORMAT;

type IoResult<T> = Result<T, std::io::Error>;
type LockResult<T> = Result<T, BackendError>;

/// What every file begins with. The bytes behind the name show a transfer that takes it for text.
const MAGIC: [u8; 8] = *b"leno\x1a\x0a\xa9\x0d";

/// What a redb file begins with, once it is made.
const REDB_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// Bounds of the place at which redb's part begins.
pub(crate) const START_BYTES_MIN: u64 = 4 * PAGE_BYTES as u64;
pub(crate) const START_BYTES_MAX: u64 = 1 << 30;

/// Longest part of redb that can be an unfinished one; redb begins with 72 KiB.
const UNFINISHED_BYTES_MAX: u64 = 1 << 20;

/// Length of redb's header; what follows belongs to pages.
const REDB_HEADER_BYTES: u64 = 512;

/// Bytes that are read or written at once where there may be many.
const CHUNK_BYTES: usize = 64 << 10;

/// The medium that redb and the journal share.
#[derive(Debug)]
pub(crate) struct Medium {
    bytes: Box<dyn StorageBackend>,
    /// Where redb's part begins in a file that is made anew.
    start_if_new: u64,
    start: OnceLock<u64>,
}

impl Medium {
    pub(crate) fn new(bytes: impl StorageBackend, start_if_new: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes: Box::new(bytes),
            start_if_new,
            start: OnceLock::new(),
        })
    }

    /// Reads from the front of the file, where header and journal lie.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> IoResult<()> {
        self.bytes.read(offset, out)
    }

    /// Writes to the front of the file and waits until it is durable.
    pub(crate) fn write_durably(&self, offset: u64, data: &[u8]) -> IoResult<()> {
        self.bytes.write(offset, data)?;
        self.bytes.sync_data()
    }

    /// Where redb's part begins. Makes the front of the file if there is none yet.
    ///
    /// redb asks for the length first, which is after it took its locks.
    pub(crate) fn start(&self) -> IoResult<u64> {
        if let Some(start) = self.start.get() {
            return Ok(*start);
        }
        let start = self.find_start()?;
        self.empty_unfinished(start)?;
        Ok(*self.start.get_or_init(|| start))
    }

    fn find_start(&self) -> IoResult<u64> {
        let length = self.bytes.len()?;
        if length == 0 {
            return self.make();
        }
        let mut header = [0; SECTOR_BYTES];
        let known = usize::try_from(length).map_or(SECTOR_BYTES, |it| it.min(SECTOR_BYTES));
        if let Some(known) = header.get_mut(..known) {
            self.bytes.read(0, known)?;
        }
        let is_blank = header.iter().all(|byte| *byte == 0);
        if !is_blank {
            let start = decode_header(&header).map_err(std::io::Error::other)?;
            if length >= start {
                return Ok(start);
            }
        }
        // Power was lost while the front was made, which is before there is any row.
        if length <= START_BYTES_MAX && self.is_zero(SECTOR_BYTES as u64, length)? {
            return self.make();
        }
        let what = if is_blank {
            "the file's header is empty"
        } else {
            "the file is cut within its journal"
        };
        Err(std::io::Error::other(corrupt(what)))
    }

    /// Writes all of the front, not only its length: the disk then need not find room for the
    /// journal while a commit waits.
    fn make(&self) -> IoResult<u64> {
        let start = self.start_if_new;
        self.bytes.set_len(start)?;
        let zeros = [0; CHUNK_BYTES];
        let mut at = 0;
        while at < start {
            let count = start.saturating_sub(at).min(CHUNK_BYTES as u64);
            let zeros = usize::try_from(count).ok().and_then(|it| zeros.get(..it));
            self.bytes.write(at, zeros.unwrap_or_default())?;
            at = at.saturating_add(count);
        }
        self.write_durably(0, &encode_header(start))?;
        Ok(start)
    }

    /// Empties what an interrupted creation left of redb's part.
    ///
    /// redb sizes a new file and writes its header before its magic number, and refuses to open a
    /// file that lacks the number: without this, power lost in that moment would leave a store that
    /// never opens again. A part without magic number and with nothing but zeros behind the header
    /// holds no page, so no row of anybody: emptying it loses nothing, and redb then begins anew.
    fn empty_unfinished(&self, start: u64) -> IoResult<()> {
        let length = self.bytes.len()?;
        let redb = length.saturating_sub(start);
        if redb == 0 || redb > UNFINISHED_BYTES_MAX {
            return Ok(());
        }
        let magic = start.saturating_add(REDB_MAGIC.len() as u64).min(length);
        let pages = start.saturating_add(REDB_HEADER_BYTES).min(length);
        if self.is_zero(start, magic)? && self.is_zero(pages, length)? {
            self.bytes.set_len(start)?;
        }
        Ok(())
    }

    fn is_zero(&self, from: u64, to: u64) -> IoResult<bool> {
        let mut bytes = vec![0; CHUNK_BYTES];
        let mut at = from;
        while at < to {
            let count = to.saturating_sub(at).min(CHUNK_BYTES as u64);
            let chunk = usize::try_from(count)
                .ok()
                .and_then(|it| bytes.get_mut(..it));
            let chunk = chunk.unwrap_or_default();
            self.bytes.read(at, chunk)?;
            if chunk.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at = at.saturating_add(count);
        }
        Ok(true)
    }
}

fn encode_header(start: u64) -> [u8; SECTOR_BYTES] {
    let mut header = [0; SECTOR_BYTES];
    let fields = [MAGIC, FORMAT.to_le_bytes(), start.to_le_bytes()].concat();
    for (to, from) in header.iter_mut().zip(fields) {
        *to = from;
    }
    if let Some((body, end)) = header.split_last_chunk_mut() {
        *end = crc32fast::hash(body).to_le_bytes();
    }
    header
}

/// Where redb's part begins, as a header tells.
fn decode_header(header: &[u8; SECTOR_BYTES]) -> Result<u64, StoreError> {
    if header.starts_with(&REDB_MAGIC) {
        // The first format was a redb file from its first byte on.
        return Err(StoreError::OlderFormat {
            found: 1,
            known: FORMAT,
        });
    }
    let foreign = || corrupt("the file's header is none of a store");
    let (magic, rest) = header.split_first_chunk::<8>().ok_or_else(foreign)?;
    let (format, rest) = rest.split_first_chunk::<8>().ok_or_else(foreign)?;
    let (start, _) = rest.split_first_chunk::<8>().ok_or_else(foreign)?;
    if *magic != MAGIC {
        return Err(foreign());
    }
    let sum = header.split_last_chunk::<4>();
    if sum.is_none_or(|(body, sum)| *sum != crc32fast::hash(body).to_le_bytes()) {
        return Err(corrupt("the file's header: checksum"));
    }
    let found = u64::from_le_bytes(*format);
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            found,
            known: FORMAT,
        });
    }
    let start = u64::from_le_bytes(*start);
    let is_known = (START_BYTES_MIN..=START_BYTES_MAX).contains(&start)
        && start.is_multiple_of(PAGE_BYTES as u64);
    if found < FORMAT || !is_known {
        return Err(corrupt("the file's header: no such format"));
    }
    Ok(start)
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt {
        what: what.to_owned(),
    }
}

/// redb's part of a medium.
#[derive(Debug)]
pub(crate) struct Backend {
    medium: Arc<Medium>,
}

impl Backend {
    pub(crate) fn new(medium: Arc<Medium>) -> Self {
        Self { medium }
    }

    fn place(&self, offset: u64) -> IoResult<u64> {
        let place = self.medium.start()?.checked_add(offset);
        place.ok_or_else(|| std::io::ErrorKind::FileTooLarge.into())
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> IoResult<u64> {
        let start = self.medium.start()?;
        Ok(self.medium.bytes.len()?.saturating_sub(start))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> IoResult<()> {
        self.medium.bytes.read(self.place(offset)?, out)
    }

    fn set_len(&self, len: u64) -> IoResult<()> {
        self.medium.bytes.set_len(self.place(len)?)
    }

    fn sync_data(&self) -> IoResult<()> {
        self.medium.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> IoResult<()> {
        self.medium.bytes.write(self.place(offset)?, data)
    }

    fn close(&self) -> IoResult<()> {
        self.medium.bytes.close()
    }

    // Locks stand for the file as a whole, so they are where redb wants them: an older version,
    // which knows of no front, meets the same ones.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.medium.bytes.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.medium.bytes.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.medium.bytes.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.medium.bytes.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.medium.bytes.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.medium.bytes.query_lock_range(start, end)
    }
}

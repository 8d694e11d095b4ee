//! The bytes of a store's file: a header, room for the journal, and behind it redb's own.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use leno_threads_core::bug;
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

/// What stands behind the header until a new file is whole.
const BEING_MADE: [u8; 16] = *b"leno: being made";
const BEING_MADE_AT: u64 = SECTOR_BYTES as u64;

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
        if bug!(JournalNotSynced) {
            return Ok(());
        }
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
        Ok(*self.start.get_or_init(|| start))
    }

    fn find_start(&self) -> IoResult<u64> {
        let length = self.bytes.len()?;
        if length == 0 || self.is_being_made(length)? {
            return self.make();
        }
        let mut header = [0; SECTOR_BYTES];
        self.read_as_far(0, &mut header, length)?;
        let start = match decode_header(&header) {
            Ok(start) => start,
            Err(StoreError::Corrupt { .. }) if self.is_barely_begun(&header, length)? => {
                return self.make();
            }
            Err(error) => return Err(std::io::Error::other(error)),
        };
        if length <= start {
            let what = "the file is cut before its rows";
            return Err(std::io::Error::other(corrupt(what)));
        }
        Ok(start)
    }

    /// Makes the front of the file, and gives up all that is behind it.
    ///
    /// Writes all of it, not only its length: the disk then need not find room for the journal while
    /// a commit waits. What says that the file is being made is durable before there is a header, and
    /// until [`Medium::finish`]: whoever opens a file that says so begins anew, whatever else a loss
    /// of power left in it. It holds no row of anybody.
    fn make(&self) -> IoResult<u64> {
        let start = self.start_if_new;
        self.bytes.set_len(start)?;
        let zeros = [0; CHUNK_BYTES];
        // Behind the page of the header, which may say already that the file is being made.
        let mut at = PAGE_BYTES as u64;
        while at < start {
            let count = start.saturating_sub(at).min(CHUNK_BYTES as u64);
            let zeros = usize::try_from(count).ok().and_then(|it| zeros.get(..it));
            self.bytes.write(at, zeros.unwrap_or_default())?;
            at = at.saturating_add(count);
        }
        self.write_durably(BEING_MADE_AT, &BEING_MADE)?;
        self.write_durably(0, &encode_header(start))?;
        Ok(start)
    }

    /// Notes that a new file is whole: redb's part is made, and durable.
    pub(crate) fn finish(&self) -> IoResult<()> {
        if self.is_being_made(self.bytes.len()?)? {
            self.write_durably(BEING_MADE_AT, &[0; BEING_MADE.len()])?;
        }
        Ok(())
    }

    fn is_being_made(&self, length: u64) -> IoResult<bool> {
        let mut found = [0; BEING_MADE.len()];
        self.read_as_far(BEING_MADE_AT, &mut found, length)?;
        Ok(found == BEING_MADE)
    }

    /// Tells whether there is nothing but parts of what [`Medium::make`] writes first, so that power
    /// was lost meanwhile.
    fn is_barely_begun(&self, header: &[u8; SECTOR_BYTES], length: u64) -> IoResult<bool> {
        let (_, fields) = header.split_at(2 * size_of::<u64>());
        let start = fields.first_chunk().map_or(0, |it| u64::from_le_bytes(*it));
        let mut note = [0; BEING_MADE.len()];
        self.read_as_far(BEING_MADE_AT, &mut note, length)?;
        let behind = BEING_MADE_AT.saturating_add(note.len() as u64);
        Ok(is_part_of(header, &encode_header(start))
            && is_part_of(&note, &BEING_MADE)
            && length <= START_BYTES_MAX
            && self.is_zero(behind, length)?)
    }

    /// Reads as much as there is before the end of the file.
    fn read_as_far(&self, offset: u64, out: &mut [u8], length: u64) -> IoResult<()> {
        let room = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let known = out.len().min(room);
        match out.get_mut(..known) {
            Some(out) if known > 0 => self.bytes.read(offset, out),
            _ => Ok(()),
        }
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

/// Tells whether bytes are as in `whole`, or zero where they were not written.
fn is_part_of(bytes: &[u8], whole: &[u8]) -> bool {
    let mut pairs = bytes.iter().zip(whole);
    pairs.all(|(byte, own)| *byte == 0 || byte == own)
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

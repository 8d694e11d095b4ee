//! Bytes of a file whose creation may not have been finished.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

type IoResult<T> = Result<T, std::io::Error>;
type LockResult<T> = Result<T, BackendError>;

/// Longest file that can be an unfinished one; redb begins with 72 KiB.
const UNFINISHED_BYTES_MAX: u64 = 1 << 20;

/// What a redb file begins with, once it is made.
const MAGIC_BYTES: usize = 9;

/// Length of redb's header; what follows belongs to pages.
const HEADER_BYTES: usize = 512;

/// A backend that empties what an interrupted creation left.
///
/// redb sizes a new file and writes its header before its magic number, and refuses to open a file
/// that lacks the number: without this, power lost in that moment would leave a store that never
/// opens again. A file without magic number and with nothing but zeros behind the header holds no
/// page, so no row of anybody: emptying it loses nothing, and redb then begins anew.
///
/// It happens when redb first asks for the length, which is after it took its locks.
#[derive(Debug)]
pub(crate) struct Backend<B> {
    inner: B,
    looked: AtomicBool,
}

impl<B: StorageBackend> Backend<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self {
            inner,
            looked: AtomicBool::new(false),
        }
    }

    fn is_unfinished(&self, length: u64) -> IoResult<bool> {
        if length == 0 || length > UNFINISHED_BYTES_MAX {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.inner.read(0, &mut bytes)?;
        let mut blank = bytes
            .iter()
            .take(MAGIC_BYTES)
            .chain(bytes.iter().skip(HEADER_BYTES));
        Ok(blank.all(|byte| *byte == 0))
    }
}

impl<B: StorageBackend> StorageBackend for Backend<B> {
    fn len(&self) -> IoResult<u64> {
        let length = self.inner.len()?;
        if !self.looked.swap(true, Ordering::AcqRel) && self.is_unfinished(length)? {
            self.inner.set_len(0)?;
            return Ok(0);
        }
        Ok(length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> IoResult<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> IoResult<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> IoResult<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> IoResult<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> IoResult<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.inner.query_lock_range(start, end)
    }
}

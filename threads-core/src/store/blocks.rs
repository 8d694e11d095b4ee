//! The block store port: bytes under the hash of themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cid::Cid;
use sha2::{Digest, Sha256};

use super::ObjectError;

/// Longest block, in bytes.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// Most blocks on a page of a list.
pub const BLOCKS_PER_PAGE_MAX: usize = 1_000;

/// Multicodec of sha2-256.
const SHA2_256: u64 = 0x12;

/// Where blocks rest: bytes that are named by their hash, whoever put them. Implemented by
/// applications and adapters; [`MemoryBlocks`] ships here.
///
/// A name is a CID of version 1 with a sha2-256 hash, of any codec ([`check_block_name`]); two CIDs
/// that differ in the codec name two blocks. Bytes are compared with the name whenever they go in or
/// come out ([`check_block`]), because a medium may be somebody else's.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait BlockStore: fmt::Debug + Send + Sync {
    /// Keeps a block. Done means durable. Idempotent; it also mends a block that was damaged.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BadName`], [`ObjectError::NotAsNamed`] and [`ObjectError::TooLong`] if the
    /// bytes and the name do not go together; nothing is kept. [`ObjectError::Full`] and
    /// [`ObjectError::Medium`] if the medium does not do as asked.
    async fn put(&self, cid: &Cid, bytes: Vec<u8>) -> Result<(), ObjectError>;

    /// Reads a block, if it is there.
    ///
    /// # Errors
    ///
    /// [`ObjectError::NotAsNamed`] and [`ObjectError::TooLong`] if what is there is not the block,
    /// [`ObjectError::BadName`], [`ObjectError::Medium`].
    async fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, ObjectError>;

    /// Tells whether something is there under the name; only [`BlockStore::get`] tells whether it is
    /// the block.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BadName`], [`ObjectError::Medium`].
    async fn has(&self, cid: &Cid) -> Result<bool, ObjectError>;

    /// Removes a block. Idempotent; also one that is not there.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BadName`], [`ObjectError::Medium`].
    async fn delete(&self, cid: &Cid) -> Result<(), ObjectError>;

    /// The names behind `after` in the order of their bytes, at most `limit` of them and at most
    /// [`BLOCKS_PER_PAGE_MAX`]; none at the end.
    ///
    /// Blocks that come or go meanwhile are listed or not; all others are listed once.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Medium`].
    async fn list(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Cid>, ObjectError>;
}

/// Checks that a name is one that a block store keeps: version 1, sha2-256.
///
/// # Errors
///
/// [`ObjectError::BadName`].
pub fn check_block_name(cid: &Cid) -> Result<(), ObjectError> {
    let hash = cid.hash();
    let is_known = cid.version() == cid::Version::V1
        && hash.code() == SHA2_256
        && hash.digest().len() == size_of::<[u8; 32]>();
    if is_known {
        Ok(())
    } else {
        let what = format!("block {cid}");
        Err(ObjectError::BadName { what })
    }
}

/// Checks that bytes are the block that a name stands for.
///
/// # Errors
///
/// [`ObjectError::BadName`], [`ObjectError::TooLong`], [`ObjectError::NotAsNamed`].
///
/// # Examples
///
/// ```
/// use leno_threads_core::RecordId;
/// use leno_threads_core::store::{ObjectError, check_block};
///
/// let cid = RecordId::of(b"bytes").to_cid();
/// check_block(&cid, b"bytes")?;
/// assert!(matches!(check_block(&cid, b"others"), Err(ObjectError::NotAsNamed { .. })));
/// # Ok::<(), ObjectError>(())
/// ```
pub fn check_block(cid: &Cid, bytes: &[u8]) -> Result<(), ObjectError> {
    check_block_name(cid)?;
    if bytes.len() > BLOCK_BYTES_MAX {
        return Err(ObjectError::TooLong {
            what: format!("block {cid}"),
            bytes: bytes.len() as u64,
            bytes_max: BLOCK_BYTES_MAX as u64,
        });
    }
    if cid.hash().digest() != Sha256::digest(bytes).as_slice() {
        let what = format!("block {cid}");
        return Err(ObjectError::NotAsNamed { what });
    }
    Ok(())
}

/// Blocks in memory. Clones share them.
///
/// # Examples
///
/// ```
/// use leno_threads_core::RecordId;
/// use leno_threads_core::store::{BlockStore, MemoryBlocks, ObjectError};
///
/// # futures_executor::block_on(async {
/// let blocks = MemoryBlocks::new();
/// let cid = RecordId::of(b"bytes").to_cid();
/// blocks.put(&cid, b"bytes".to_vec()).await?;
/// assert_eq!(blocks.get(&cid).await?, Some(b"bytes".to_vec()));
/// assert_eq!(blocks.list(None, 10).await?, [cid]);
/// # Ok::<(), ObjectError>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct MemoryBlocks {
    blocks: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl MemoryBlocks {
    /// Makes a store without blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        // Nothing panics while it is held.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBlocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryBlocks")
            .field("blocks", &self.lock().len())
            .finish()
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl BlockStore for MemoryBlocks {
    async fn put(&self, cid: &Cid, bytes: Vec<u8>) -> Result<(), ObjectError> {
        check_block(cid, &bytes)?;
        self.lock().insert(cid.to_bytes(), bytes);
        Ok(())
    }

    async fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, ObjectError> {
        check_block_name(cid)?;
        let block = self.lock().get(&cid.to_bytes()).cloned();
        if let Some(bytes) = &block {
            check_block(cid, bytes)?;
        }
        Ok(block)
    }

    async fn has(&self, cid: &Cid) -> Result<bool, ObjectError> {
        check_block_name(cid)?;
        Ok(self.lock().contains_key(&cid.to_bytes()))
    }

    async fn delete(&self, cid: &Cid) -> Result<(), ObjectError> {
        check_block_name(cid)?;
        self.lock().remove(&cid.to_bytes());
        Ok(())
    }

    async fn list(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Cid>, ObjectError> {
        let after = after.map(Cid::to_bytes);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let blocks = self.lock();
        let names = blocks.range((from, Bound::Unbounded)).map(|(name, _)| name);
        let names = names.take(limit.min(BLOCKS_PER_PAGE_MAX));
        Ok(names
            .filter_map(|name| Cid::try_from(name.as_slice()).ok())
            .collect())
    }
}

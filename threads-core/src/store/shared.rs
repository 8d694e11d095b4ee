//! The shared store port: sealed objects of threads that several nodes keep in one place.
//!
//! Per thread there are *segments*, put once and named by their content, and one object of *heads*,
//! which names the segments that count. It is replaced only by who knows its newest version, so that
//! no node loses what another one wrote. What the objects hold, [`crate::segment`] tells.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::ObjectError;

/// Longest segment, in bytes, as it rests.
pub const SEGMENT_BYTES_MAX: usize = 8 << 20;

/// Longest object of heads, in bytes, as it rests.
pub const HEADS_BYTES_MAX: usize = 4 << 20;

/// Most segments on a page of a list.
pub const SEGMENTS_PER_PAGE_MAX: usize = 1_000;

/// Where a thread's objects lie: a name that tells nobody which thread it is.
///
/// Made by [`crate::segment::SharedThread::place`].
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ThreadPlace(pub [u8; 32]);

/// Names a segment: the sha2-256 digest of its sealed bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentId(pub [u8; 32]);

impl SegmentId {
    /// The name of a sealed segment.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self(Sha256::digest(sealed).into())
    }
}

macro_rules! hexadecimal {
    ($name:ident) => {
        /// 64 digits, lower case.
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0
                    .iter()
                    .try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl $name {
            /// Reads the text form, in its one spelling.
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                let mut bytes = [0; 32];
                for (to, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let digits = std::str::from_utf8(pair).ok()?;
                    *to = u8::from_str_radix(digits, 16).ok()?;
                }
                let name = Self(bytes);
                (name.to_string() == text).then_some(name)
            }
        }
    };
}

hexadecimal!(ThreadPlace);
hexadecimal!(SegmentId);

/// Which state of a thread's heads it was that was read or written: an etag, opaque here.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HeadsVersion(pub String);

/// A segment as a list shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListedSegment {
    /// Its name.
    pub id: SegmentId,
    /// Its length, as the medium claims.
    pub bytes: u64,
    /// When it was last put, in milliseconds since the Unix epoch, by the medium's clock.
    pub put_millis: u64,
}

/// Where segments and heads rest that several nodes share. Implemented by adapters;
/// [`MemoryShared`] ships here.
///
/// The implementation sees sealed bytes and believes nothing; whoever reads checks names, lengths and
/// seals. It does bound what it takes into memory, by [`SEGMENT_BYTES_MAX`] and [`HEADS_BYTES_MAX`].
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait SharedStore: fmt::Debug + Send + Sync {
    /// Keeps a segment. Done means durable. Idempotent: another put of the same bytes only renews
    /// [`ListedSegment::put_millis`].
    ///
    /// # Errors
    ///
    /// [`ObjectError::NotAsNamed`] and [`ObjectError::TooLong`]; nothing is kept.
    /// [`ObjectError::Full`], [`ObjectError::Medium`].
    async fn put_segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
        sealed: Vec<u8>,
    ) -> Result<(), ObjectError>;

    /// Reads a segment, if it is there.
    ///
    /// # Errors
    ///
    /// [`ObjectError::NotAsNamed`], [`ObjectError::TooLong`], [`ObjectError::Medium`].
    async fn segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
    ) -> Result<Option<Vec<u8>>, ObjectError>;

    /// Removes a segment. Idempotent; also one that is not there.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Medium`].
    async fn delete_segment(&self, place: &ThreadPlace, id: &SegmentId) -> Result<(), ObjectError>;

    /// The segments of a thread behind `after`, in the order of their names, at most `limit` of them
    /// and at most [`SEGMENTS_PER_PAGE_MAX`]; none at the end.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Medium`].
    async fn list_segments(
        &self,
        place: &ThreadPlace,
        after: Option<&SegmentId>,
        limit: usize,
    ) -> Result<Vec<ListedSegment>, ObjectError>;

    /// Reads a thread's heads and which version they are, if there are any. What a replacement that
    /// was done wrote is seen by every read after it.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLong`], [`ObjectError::Medium`].
    async fn heads(
        &self,
        place: &ThreadPlace,
    ) -> Result<Option<(Vec<u8>, HeadsVersion)>, ObjectError>;

    /// Replaces a thread's heads if they still are the version that is expected; none expects that
    /// there are no heads yet. Atomic; done means durable.
    ///
    /// # Errors
    ///
    /// - [`ObjectError::Conflict`] if they are another version; nothing changed.
    /// - [`ObjectError::TooLong`]; nothing changed. [`ObjectError::Unsupported`].
    /// - [`ObjectError::Full`], and [`ObjectError::Medium`]: unknown whether they were replaced, and
    ///   whether they will be; a replacement that comes late is judged by its version like any other.
    async fn replace_heads(
        &self,
        place: &ThreadPlace,
        sealed: Vec<u8>,
        expected: Option<&HeadsVersion>,
    ) -> Result<HeadsVersion, ObjectError>;
}

/// Checks that bytes are the segment that a name stands for.
///
/// # Errors
///
/// [`ObjectError::TooLong`], [`ObjectError::NotAsNamed`].
pub fn check_segment(id: &SegmentId, sealed: &[u8]) -> Result<(), ObjectError> {
    check_length(|| format!("segment {id}"), sealed.len(), SEGMENT_BYTES_MAX)?;
    if SegmentId::of(sealed) != *id {
        let what = format!("segment {id}");
        return Err(ObjectError::NotAsNamed { what });
    }
    Ok(())
}

/// Checks the length of an object of heads.
///
/// # Errors
///
/// [`ObjectError::TooLong`].
pub fn check_heads(place: &ThreadPlace, sealed: &[u8]) -> Result<(), ObjectError> {
    check_length(
        || format!("the heads at {place}"),
        sealed.len(),
        HEADS_BYTES_MAX,
    )
}

fn check_length(
    what: impl FnOnce() -> String,
    bytes: usize,
    bytes_max: usize,
) -> Result<(), ObjectError> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(ObjectError::TooLong {
        what: what(),
        bytes: bytes as u64,
        bytes_max: bytes_max as u64,
    })
}

/// A shared store in memory. Clones share it, as nodes do. Its clock counts puts.
///
/// # Examples
///
/// ```
/// use leno_threads_core::store::{MemoryShared, ObjectError, SharedStore, ThreadPlace};
///
/// # futures_executor::block_on(async {
/// let (one, place) = (MemoryShared::new(), ThreadPlace([1; 32]));
/// let other = one.clone();
/// let first = one.replace_heads(&place, b"a".to_vec(), None).await?;
/// one.replace_heads(&place, b"b".to_vec(), Some(&first)).await?;
/// // Whoever does not know the newest version is told, and nothing is lost.
/// let late = other.replace_heads(&place, b"c".to_vec(), Some(&first)).await;
/// assert!(matches!(late, Err(ObjectError::Conflict)));
/// # Ok::<(), ObjectError>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct MemoryShared {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    segments: BTreeMap<(ThreadPlace, SegmentId), (Vec<u8>, u64)>,
    heads: BTreeMap<ThreadPlace, (Vec<u8>, u64)>,
    puts: u64,
}

impl Inner {
    fn count(&mut self) -> u64 {
        self.puts = self.puts.saturating_add(1);
        self.puts
    }
}

impl MemoryShared {
    /// Makes a store without objects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryShared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        formatter
            .debug_struct("MemoryShared")
            .field("threads", &inner.heads.len())
            .field("segments", &inner.segments.len())
            .finish()
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl SharedStore for MemoryShared {
    async fn put_segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
        sealed: Vec<u8>,
    ) -> Result<(), ObjectError> {
        check_segment(id, &sealed)?;
        let mut inner = self.lock();
        let put = inner.count();
        inner.segments.insert((*place, *id), (sealed, put));
        Ok(())
    }

    async fn segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
    ) -> Result<Option<Vec<u8>>, ObjectError> {
        let inner = self.lock();
        let segment = inner.segments.get(&(*place, *id));
        Ok(segment.map(|(sealed, _)| sealed.clone()))
    }

    async fn delete_segment(&self, place: &ThreadPlace, id: &SegmentId) -> Result<(), ObjectError> {
        self.lock().segments.remove(&(*place, *id));
        Ok(())
    }

    async fn list_segments(
        &self,
        place: &ThreadPlace,
        after: Option<&SegmentId>,
        limit: usize,
    ) -> Result<Vec<ListedSegment>, ObjectError> {
        let from = match after {
            Some(after) => Bound::Excluded((*place, *after)),
            None => Bound::Included((*place, SegmentId([0; 32]))),
        };
        let to = Bound::Included((*place, SegmentId([255; 32])));
        let inner = self.lock();
        let listed = inner.segments.range((from, to));
        let listed = listed.map(|((_, id), (sealed, put))| ListedSegment {
            id: *id,
            bytes: sealed.len() as u64,
            put_millis: *put,
        });
        Ok(listed.take(limit.min(SEGMENTS_PER_PAGE_MAX)).collect())
    }

    async fn heads(
        &self,
        place: &ThreadPlace,
    ) -> Result<Option<(Vec<u8>, HeadsVersion)>, ObjectError> {
        let inner = self.lock();
        let heads = inner.heads.get(place);
        Ok(heads.map(|(sealed, version)| (sealed.clone(), HeadsVersion(version.to_string()))))
    }

    async fn replace_heads(
        &self,
        place: &ThreadPlace,
        sealed: Vec<u8>,
        expected: Option<&HeadsVersion>,
    ) -> Result<HeadsVersion, ObjectError> {
        check_heads(place, &sealed)?;
        let mut inner = self.lock();
        let found = inner
            .heads
            .get(place)
            .map(|(_, version)| version.to_string());
        if found.as_ref() != expected.map(|version| &version.0) {
            return Err(ObjectError::Conflict);
        }
        let version = inner.count();
        inner.heads.insert(*place, (sealed, version));
        Ok(HeadsVersion(version.to_string()))
    }
}

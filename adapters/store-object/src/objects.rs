//! The two ports of objects on an object store: where they lie, and how heads are replaced.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cid::Cid;
use futures_util::TryStreamExt;
use leno_threads_core::store::{
    BLOCK_BYTES_MAX, BLOCKS_PER_PAGE_MAX, BlockStore, HEADS_BYTES_MAX, HeadsVersion, ListedSegment,
    ObjectError, SEGMENT_BYTES_MAX, SEGMENTS_PER_PAGE_MAX, SegmentId, SharedStore, ThreadPlace,
    check_block, check_block_name, check_heads, check_segment,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};

#[cfg(feature = "files")]
use crate::error::medium;
use crate::error::{Doing, object_error};
use crate::page::first_of;

/// Blocks and segments on an object store, under a prefix.
///
/// It implements both ports: [`BlockStore`] and [`SharedStore`].
///
/// # Examples
///
/// ```
/// use leno_store_object::Objects;
/// use leno_threads_core::RecordId;
/// use leno_threads_core::store::{BlockStore, ObjectError};
///
/// # futures_executor::block_on(async {
/// let objects = Objects::memory();
/// let cid = RecordId::of(b"bytes").to_cid();
/// objects.put(&cid, b"bytes".to_vec()).await?;
/// assert_eq!(objects.get(&cid).await?, Some(b"bytes".to_vec()));
/// # Ok::<(), ObjectError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    swap: Swap,
    is_ordered: bool,
}

/// How heads are replaced.
#[derive(Clone, Debug)]
enum Swap {
    /// The store compares versions itself.
    Conditional,
    /// Under a lock on a file beside them.
    #[cfg(feature = "files")]
    Locked(Arc<crate::files::Locks>),
}

impl fmt::Debug for Objects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Objects")
            .field("store", &self.store.to_string())
            .field("prefix", &self.prefix.as_ref())
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// Takes any object store that can put conditionally (`PutMode::Create` and `PutMode::Update`)
    /// and lists in the order of names, as S3, Google Cloud Storage and Azure do.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BadName`] if the prefix is no path.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, ObjectError> {
        Ok(Self {
            store,
            prefix: parse(prefix)?,
            swap: Swap::Conditional,
            is_ordered: true,
        })
    }

    /// By a URL:
    ///
    /// - `memory:///`: as [`Objects::memory`].
    /// - `file:///var/lib/leno`: as [`Objects::folder`].
    /// - `s3://bucket/prefix`, with the feature `s3`: as `Objects::s3`. Keys, region and endpoint come
    ///   from the environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT` and so on,
    ///   see `AmazonS3Builder::from_env`.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BadName`] if it is no URL, [`ObjectError::Unsupported`] if it is of another kind or
    /// its feature is not on; or as the functions above.
    ///
    /// # Examples
    ///
    /// ```
    /// use leno_store_object::Objects;
    /// use leno_threads_core::store::ObjectError;
    ///
    /// let objects = Objects::open("memory:///")?;
    /// let other = Objects::open("ftp://hub.example/");
    /// assert!(matches!(other, Err(ObjectError::Unsupported { .. })));
    /// # Ok::<(), ObjectError>(())
    /// ```
    pub fn open(url: &str) -> Result<Self, ObjectError> {
        let bad = || ObjectError::BadName {
            what: format!("the URL {url:?}"),
        };
        let parsed = url::Url::parse(url).map_err(|_| bad())?;
        match parsed.scheme() {
            "memory" => Ok(Self::memory()),
            #[cfg(feature = "files")]
            "file" => Self::folder(parsed.to_file_path().map_err(|()| bad())?),
            #[cfg(feature = "s3")]
            "s3" => {
                let bucket = parsed.host_str().ok_or_else(bad)?;
                let prefix = Path::from_url_path(parsed.path()).map_err(|_| bad())?;
                let settings = object_store::aws::AmazonS3Builder::from_env();
                Self::s3(settings.with_bucket_name(bucket), prefix.as_ref())
            }
            _ => Err(ObjectError::Unsupported {
                what: "this kind of URL",
            }),
        }
    }

    /// In memory: for tests. Clones share it.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            store: Arc::new(InMemory::new()),
            prefix: Path::default(),
            swap: Swap::Conditional,
            is_ordered: true,
        }
    }

    /// In a folder, which must exist. Several processes of one machine may share it; every put is
    /// synced before it is done. Needs tokio.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Medium`] if there is no such folder.
    #[cfg(feature = "files")]
    pub fn folder(folder: impl AsRef<std::path::Path>) -> Result<Self, ObjectError> {
        let store = object_store::local::LocalFileSystem::new_with_prefix(&folder);
        let store = store.map_err(|error| object_error(Doing::Open, error))?;
        let locks = crate::files::Locks::new(folder.as_ref());
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            prefix: Path::default(),
            swap: Swap::Locked(Arc::new(locks)),
            is_ordered: false,
        })
    }

    /// In a bucket of S3, or of what speaks like it and knows `If-Match` and `If-None-Match` on puts.
    /// Needs tokio.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Medium`] if the settings do not suffice, [`ObjectError::BadName`] if the prefix
    /// is no path.
    #[cfg(feature = "s3")]
    pub fn s3(
        settings: object_store::aws::AmazonS3Builder,
        prefix: &str,
    ) -> Result<Self, ObjectError> {
        let store = settings
            .with_conditional_put(object_store::aws::S3ConditionalPut::ETagMatch)
            .build()
            .map_err(|error| object_error(Doing::Open, error))?;
        Self::new(Arc::new(store), prefix)
    }

    fn block_path(&self, cid: &Cid) -> Path {
        let name: String = cid
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.prefix.clone().join("blocks").join(name)
    }

    fn thread_path(&self, place: &ThreadPlace) -> Path {
        self.prefix.clone().join("threads").join(place.to_string())
    }

    fn segments_path(&self, place: &ThreadPlace) -> Path {
        self.thread_path(place).join("segments")
    }

    fn segment_path(&self, place: &ThreadPlace, id: &SegmentId) -> Path {
        self.segments_path(place).join(id.to_string())
    }

    fn heads_path(&self, place: &ThreadPlace) -> Path {
        self.thread_path(place).join("heads")
    }

    /// Reads an object of bounded length, whatever length the store claims.
    async fn read(
        &self,
        path: &Path,
        bytes_max: usize,
    ) -> Result<Option<(Vec<u8>, ObjectMeta)>, ObjectError> {
        read(&*self.store, path, bytes_max).await
    }

    async fn put_bytes(&self, path: &Path, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let put = self.store.put(path, PutPayload::from(bytes)).await;
        put.map_err(|error| object_error(Doing::Put, error))?;
        Ok(())
    }

    async fn delete_at(&self, path: &Path) -> Result<(), ObjectError> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(object_error(Doing::Delete, error)),
        }
    }

    /// The first objects of a folder behind a name, in the order of names. What else lies there is
    /// not ours.
    async fn page<T>(
        &self,
        folder: &Path,
        after: Option<Path>,
        limit: usize,
        parse: impl Fn(&ObjectMeta) -> Option<T>,
    ) -> Result<Vec<T>, ObjectError> {
        let listed = match after {
            Some(after) => self.store.list_with_offset(Some(folder), &after),
            None => self.store.list(Some(folder)),
        };
        first_of(listed, limit, self.is_ordered, parse)
            .await
            .map_err(|error| object_error(Doing::List, error))
    }

    async fn swap_conditionally(
        &self,
        path: &Path,
        sealed: Vec<u8>,
        expected: Option<&HeadsVersion>,
    ) -> Result<HeadsVersion, ObjectError> {
        let mode = match expected {
            None => PutMode::Create,
            Some(HeadsVersion(etag)) => PutMode::Update(UpdateVersion {
                e_tag: Some(etag.clone()),
                version: None,
            }),
        };
        let options = PutOptions::from(mode);
        match self
            .store
            .put_opts(path, PutPayload::from(sealed), options)
            .await
        {
            Ok(put) => put.e_tag.map(HeadsVersion).ok_or_else(no_versions),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotFound { .. },
            ) => Err(ObjectError::Conflict),
            Err(error) => Err(object_error(Doing::Replace, error)),
        }
    }
}

fn parse(prefix: &str) -> Result<Path, ObjectError> {
    Path::parse(prefix).map_err(|_| ObjectError::BadName {
        what: format!("the prefix {prefix:?}"),
    })
}

fn no_versions() -> ObjectError {
    ObjectError::Unsupported {
        what: "versions of objects (etags)",
    }
}

/// As [`Objects::read`].
pub(crate) async fn read(
    store: &dyn ObjectStore,
    path: &Path,
    bytes_max: usize,
) -> Result<Option<(Vec<u8>, ObjectMeta)>, ObjectError> {
    let found = match store.get_opts(path, GetOptions::default()).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(object_error(Doing::Read, error)),
    };
    let meta = found.meta.clone();
    let too_long = |bytes| ObjectError::TooLong {
        what: path.to_string(),
        bytes,
        bytes_max: bytes_max as u64,
    };
    if meta.size > bytes_max as u64 {
        return Err(too_long(meta.size));
    }
    let mut bytes = Vec::new();
    let mut stream = found.into_stream();
    while let Some(chunk) = stream
        .try_next()
        .await
        .map_err(|error| object_error(Doing::Read, error))?
    {
        let length = bytes.len().saturating_add(chunk.len());
        if length > bytes_max {
            return Err(too_long(length as u64));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some((bytes, meta)))
}

#[async_trait]
impl BlockStore for Objects {
    async fn put(&self, cid: &Cid, bytes: Vec<u8>) -> Result<(), ObjectError> {
        check_block(cid, &bytes)?;
        self.put_bytes(&self.block_path(cid), bytes).await
    }

    async fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, ObjectError> {
        check_block_name(cid)?;
        let found = self.read(&self.block_path(cid), BLOCK_BYTES_MAX).await?;
        let Some((bytes, _)) = found else {
            return Ok(None);
        };
        check_block(cid, &bytes)?;
        Ok(Some(bytes))
    }

    async fn has(&self, cid: &Cid) -> Result<bool, ObjectError> {
        check_block_name(cid)?;
        match self.store.head(&self.block_path(cid)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(object_error(Doing::Read, error)),
        }
    }

    async fn delete(&self, cid: &Cid) -> Result<(), ObjectError> {
        check_block_name(cid)?;
        self.delete_at(&self.block_path(cid)).await
    }

    async fn list(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Cid>, ObjectError> {
        let folder = self.prefix.clone().join("blocks");
        let after = after.map(|cid| self.block_path(cid));
        let limit = limit.min(BLOCKS_PER_PAGE_MAX);
        self.page(&folder, after, limit, |meta| cid_of(&meta.location))
            .await
    }
}

fn listed_of(meta: &ObjectMeta) -> Option<ListedSegment> {
    Some(ListedSegment {
        id: SegmentId::from_text(meta.location.filename()?)?,
        bytes: meta.size,
        put_millis: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
    })
}

fn cid_of(path: &Path) -> Option<Cid> {
    let name = path.filename()?;
    let bytes: Option<Vec<u8>> = name
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let cid = Cid::try_from(bytes?.as_slice()).ok()?;
    check_block_name(&cid).is_ok().then_some(cid)
}

#[async_trait]
impl SharedStore for Objects {
    async fn put_segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
        sealed: Vec<u8>,
    ) -> Result<(), ObjectError> {
        check_segment(id, &sealed)?;
        self.put_bytes(&self.segment_path(place, id), sealed).await
    }

    async fn segment(
        &self,
        place: &ThreadPlace,
        id: &SegmentId,
    ) -> Result<Option<Vec<u8>>, ObjectError> {
        let path = self.segment_path(place, id);
        let Some((sealed, _)) = self.read(&path, SEGMENT_BYTES_MAX).await? else {
            return Ok(None);
        };
        check_segment(id, &sealed)?;
        Ok(Some(sealed))
    }

    async fn delete_segment(&self, place: &ThreadPlace, id: &SegmentId) -> Result<(), ObjectError> {
        self.delete_at(&self.segment_path(place, id)).await
    }

    async fn list_segments(
        &self,
        place: &ThreadPlace,
        after: Option<&SegmentId>,
        limit: usize,
    ) -> Result<Vec<ListedSegment>, ObjectError> {
        let after = after.map(|id| self.segment_path(place, id));
        let limit = limit.min(SEGMENTS_PER_PAGE_MAX);
        let folder = self.segments_path(place);
        self.page(&folder, after, limit, listed_of).await
    }

    async fn heads(
        &self,
        place: &ThreadPlace,
    ) -> Result<Option<(Vec<u8>, HeadsVersion)>, ObjectError> {
        let path = self.heads_path(place);
        let Some((sealed, meta)) = self.read(&path, HEADS_BYTES_MAX).await? else {
            return Ok(None);
        };
        let version = match &self.swap {
            Swap::Conditional => HeadsVersion(meta.e_tag.ok_or_else(no_versions)?),
            #[cfg(feature = "files")]
            Swap::Locked(_) => crate::files::version_of(&sealed),
        };
        Ok(Some((sealed, version)))
    }

    async fn replace_heads(
        &self,
        place: &ThreadPlace,
        sealed: Vec<u8>,
        expected: Option<&HeadsVersion>,
    ) -> Result<HeadsVersion, ObjectError> {
        check_heads(place, &sealed)?;
        let path = self.heads_path(place);
        match &self.swap {
            Swap::Conditional => self.swap_conditionally(&path, sealed, expected).await,
            #[cfg(feature = "files")]
            Swap::Locked(locks) => {
                let (store, locks) = (Arc::clone(&self.store), Arc::clone(locks));
                let expected = expected.cloned();
                // A task of its own, so that whoever stops waiting does not let go of the lock
                // while the heads are written.
                let swap = tokio::spawn(async move {
                    locks.swap(&*store, &path, sealed, expected.as_ref()).await
                });
                swap.await.map_err(|error| medium(Doing::Replace, error))?
            }
        }
    }
}

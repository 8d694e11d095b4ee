//! An S3 server in memory, on a port of the loopback interface: real requests, real signatures, and
//! puts that are conditional (`If-Match`, `If-None-Match`) as Amazon's are.
//!
//! It can lose the answer to a request that it did, which is what a client cannot tell from one that
//! it did not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::TryStreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput,
    StreamingBlob, Timestamp,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

/// The one bucket that there is.
pub const BUCKET: &str = "leno";

/// The key that is let in, and its secret.
pub const KEYS: (&str, &str) = ("key", "secret");

/// Objects on a page of a list, at most: few, so that lists of tests have several.
const PAGE: usize = 10;

/// A server; clones are handles of the same one. It ends with the runtime.
#[derive(Clone, Debug)]
pub struct Server {
    address: SocketAddr,
    bucket: Bucket,
}

impl Server {
    /// Starts a server with an empty bucket.
    ///
    /// # Errors
    ///
    /// If there is no free port on the loopback interface.
    pub async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let bucket = Bucket::default();
        let mut builder = S3ServiceBuilder::new(bucket.clone());
        builder.set_auth(SimpleAuth::from_single(KEYS.0, KEYS.1));
        let service = builder.build();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    // A client that goes away is no matter of the server's.
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Self { address, bucket })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers every n-th put, which is done, as if something had failed; 0 for none.
    pub fn lose_answers(&self, every: u64) {
        self.bucket.lose_every.store(every, Ordering::SeqCst);
    }

    /// How many answers were lost, and how many conditional puts were refused.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let count = |it: &AtomicU64| it.load(Ordering::SeqCst);
        (count(&self.bucket.lost), count(&self.bucket.refused))
    }
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    version: u64,
    modified: SystemTime,
}

impl Stored {
    fn etag(&self) -> ETag {
        ETag::Strong(format!("{:032x}", self.version))
    }
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Stored>>>,
    puts: Arc<AtomicU64>,
    lose_every: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Bucket {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        check(bucket)?;
        let found = self.lock().get(key).cloned();
        found.ok_or_else(|| s3_error!(NoSuchKey))
    }
}

fn check(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET {
        Ok(())
    } else {
        Err(s3_error!(NoSuchBucket))
    }
}

/// Whether a condition is met by what is there.
fn holds(condition: &ETagCondition, found: Option<&Stored>) -> bool {
    match (condition, found) {
        (_, None) => false,
        (ETagCondition::Any, Some(_)) => true,
        (ETagCondition::ETag(etag), Some(stored)) => etag.strong_cmp(&stored.etag()),
    }
}

fn length(bytes: usize) -> Option<i64> {
    i64::try_from(bytes).ok()
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        check(&input.bucket)?;
        let mut bytes = Vec::new();
        if let Some(mut body) = input.body {
            let next = |_| s3_error!(IncompleteBody);
            while let Some(chunk) = body.try_next().await.map_err(next)? {
                bytes.extend_from_slice(&chunk);
            }
        }
        let number = self.puts.fetch_add(1, Ordering::SeqCst) + 1;
        let stored = Stored {
            bytes: bytes.into(),
            version: number,
            // Its clock counts puts.
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
        };
        let etag = stored.etag();
        {
            // Compared and replaced in one step.
            let mut objects = self.lock();
            let found = objects.get(&input.key);
            let is_refused = input.if_match.is_some_and(|it| !holds(&it, found))
                || input.if_none_match.is_some_and(|it| holds(&it, found));
            if is_refused {
                self.refused.fetch_add(1, Ordering::SeqCst);
                return Err(s3_error!(PreconditionFailed));
            }
            objects.insert(input.key, stored);
        }
        let every = self.lose_every.load(Ordering::SeqCst);
        if every > 0 && number.is_multiple_of(every) {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return Err(s3_error!(InternalError));
        }
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(etag),
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let stored = self.find(&request.input.bucket, &request.input.key)?;
        let bytes = stored.bytes.clone();
        let body = futures_util::stream::once(async { Ok::<_, std::io::Error>(bytes) });
        Ok(S3Response::new(GetObjectOutput {
            content_length: length(stored.bytes.len()),
            e_tag: Some(stored.etag()),
            last_modified: Some(Timestamp::from(stored.modified)),
            body: Some(StreamingBlob::wrap(body)),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let stored = self.find(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: length(stored.bytes.len()),
            e_tag: Some(stored.etag()),
            last_modified: Some(Timestamp::from(stored.modified)),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        check(&request.input.bucket)?;
        self.lock().remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        check(&request.input.bucket)?;
        let mut objects = self.lock();
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            objects.remove(&object.key);
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            });
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        check(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        // A token is the key that the page before ended with.
        let after = input.continuation_token.or(input.start_after);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let objects = self.lock();
        let mut found = objects
            .range((from, Bound::Unbounded))
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, stored)| Object {
                key: Some(key.clone()),
                size: length(stored.bytes.len()),
                e_tag: Some(stored.etag()),
                last_modified: Some(Timestamp::from(stored.modified)),
                ..Object::default()
            });
        let contents: Vec<Object> = found.by_ref().take(PAGE).collect();
        let is_truncated = found.next().is_some();
        let last = contents.last().and_then(|object| object.key.clone());
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            is_truncated: Some(is_truncated),
            next_continuation_token: last.filter(|_| is_truncated),
            prefix: input.prefix,
            name: Some(input.bucket),
            ..ListObjectsV2Output::default()
        }))
    }
}

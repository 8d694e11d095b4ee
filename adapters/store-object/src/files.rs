//! Heads in a folder, which a file system cannot replace conditionally: under a lock.

use std::fs::File;
use std::path::PathBuf;

use leno_threads_core::store::{HEADS_BYTES_MAX, HeadsVersion, ObjectError, SegmentId};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::error::{Doing, medium, object_error};
use crate::objects::read;

/// Locks of the operating system on files beside heads. They die with their process.
#[derive(Debug)]
pub(crate) struct Locks {
    folder: PathBuf,
}

/// The version of heads is what they are: sealing never gives the same bytes twice.
pub(crate) fn version_of(sealed: &[u8]) -> HeadsVersion {
    HeadsVersion(SegmentId::of(sealed).to_string())
}

impl Locks {
    pub(crate) fn new(folder: &std::path::Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Replaces heads if they are what is expected.
    pub(crate) async fn swap(
        &self,
        store: &dyn ObjectStore,
        path: &Path,
        sealed: Vec<u8>,
        expected: Option<&HeadsVersion>,
    ) -> Result<HeadsVersion, ObjectError> {
        let lock = self.take(path).await?;
        let found = read(store, path, HEADS_BYTES_MAX).await?;
        let found = found.map(|(sealed, _)| version_of(&sealed));
        if found.as_ref() != expected {
            return Err(ObjectError::Conflict);
        }
        let version = version_of(&sealed);
        // Written beside, synced and renamed.
        let put = store.put(path, PutPayload::from(sealed)).await;
        put.map_err(|error| object_error(Doing::Replace, error))?;
        drop(lock);
        Ok(version)
    }

    /// Waits for the lock; it is given back when the file is dropped.
    async fn take(&self, path: &Path) -> Result<File, ObjectError> {
        let mut place = self.folder.clone();
        place.extend(path.parts().map(|part| part.as_ref().to_owned()));
        place.set_extension("lock");
        let locked = tokio::task::spawn_blocking(move || {
            if let Some(folder) = place.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut options = File::options();
            let file = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(place)?;
            file.lock()?;
            Ok::<File, std::io::Error>(file)
        });
        let locked = locked
            .await
            .map_err(|error| medium(Doing::Replace, error))?;
        locked.map_err(|error| medium(Doing::Replace, error))
    }
}

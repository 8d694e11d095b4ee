//! A store of one's own: one file to which every batch is appended, and the rows in memory.
//!
//! ```sh
//! cargo run --example own_store
//! ```
//!
//! Fit for small data: all rows are in memory, and the file, a line of JSON for each batch,
//! only grows. The conformance suite checks that it keeps the contract of `leno::store::Store`.

use std::fs::File;
use std::io::{Error, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use leno::store::testing::{StoreFactory, conformance};
use leno::store::{Batch, MemoryStore, Store, StoreError, Table, View};
use leno::{Ipld, Peer};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A file, and the rows it amounts to, of which `MemoryStore` gives the views.
#[derive(Debug)]
struct Journal {
    /// `None` once a write failed or the store was closed: then nothing is certain any more.
    file: Mutex<Option<File>>,
    rows: MemoryStore,
}

fn failed(error: Error) -> StoreError {
    let (doing, source) = ("used the journal", Arc::new(error));
    StoreError::Medium { doing, source }
}

/// Reads one batch: a line of JSON. `None` if a crash cut it short.
fn read_batch(line: &[u8]) -> Option<Batch> {
    let line = line.strip_suffix(b"\n")?;
    let writes: Vec<(u8, Vec<u8>, Option<Vec<u8>>)> = serde_json::from_slice(line).ok()?;
    let mut batch = Batch::new();
    for (table, key, value) in writes {
        let table = *Table::ALL.get(usize::from(table))?;
        match value {
            Some(value) => batch.put(table, key, value),
            None => batch.delete(table, key),
        }
    }
    Some(batch)
}

impl Journal {
    async fn open(path: &Path) -> Result<Self, StoreError> {
        let mut options = File::options();
        let opened = options.read(true).append(true).create(true).open(path);
        let mut file = opened.map_err(failed)?;
        // One process at a time; the lock dies with its process.
        file.try_lock().map_err(|_| StoreError::Locked)?;
        let (mut bytes, rows, mut whole) = (Vec::new(), MemoryStore::new(), 0);
        file.read_to_end(&mut bytes).map_err(failed)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(batch) = read_batch(line) else { break };
            rows.commit(batch).await?;
            whole += line.len();
        }
        // What follows the last whole batch was being written in a crash, and never acknowledged.
        file.set_len(whole as u64).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let file = Mutex::new(Some(file));
        Ok(Self { file, rows })
    }
}

#[async_trait]
impl Store for Journal {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        let file = self.file.lock().map_err(|_| StoreError::Poisoned)?;
        file.as_ref().ok_or(StoreError::Poisoned)?;
        self.rows.view()
    }

    // Nothing is awaited, so whoever polls it once has written it whole.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        let writes = batch
            .writes()
            .map(|(table, key, value)| (table as u8, key, value));
        let line = serde_json::to_string(&writes.collect::<Vec<_>>()).map_err(Error::from);
        let line = line.map_err(failed)? + "\n";
        let mut slot = self.file.lock().map_err(|_| StoreError::Poisoned)?;
        // Taken out: if the write fails, the store is poisoned.
        let mut file = slot.take().ok_or(StoreError::Poisoned)?;
        let written = file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_data());
        written.map_err(failed)?;
        let shown = self.rows.commit(batch).now_or_never();
        shown.ok_or(StoreError::Poisoned)??;
        *slot = Some(file);
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        // Dropping the file gives up its lock.
        let slot = self.file.lock().map(|mut slot| drop(slot.take()));
        slot.map_err(|_| StoreError::Poisoned)
    }
}

/// Opens journals in a folder, for the conformance suite.
struct Folder(PathBuf);

#[async_trait]
impl StoreFactory for Folder {
    async fn open(&self, place: u32) -> Result<Box<dyn Store>, StoreError> {
        let store = Journal::open(&self.0.join(place.to_string())).await?;
        Ok(Box::new(store))
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

pub(crate) async fn run() -> Outcome {
    let folder = tempfile::tempdir()?;
    // Panics with the clause that is broken.
    conformance(&Folder(folder.path().to_owned())).await;
    println!("  ok  the store keeps the contract");
    let path = folder.path().join("peer");
    let store = Journal::open(&path).await?;
    let peer = Peer::builder().store(store).start().await?;
    let thread = peer.create_thread("band").await?;
    let colour = Ipld::Map([("colour".to_owned(), Ipld::from("green"))].into());
    let id = thread.collection::<Ipld>("things").insert(&colour).await?;
    peer.close().await?;
    let store = Journal::open(&path).await?;
    let peer = Peer::builder().store(store).start().await?;
    let thread = peer.thread(thread.id()).await?;
    let kept = thread.collection::<Ipld>("things").get(&id).await?;
    if kept != Some(colour) {
        return Err("the document did not outlive the peer".into());
    }
    println!("  ok  a peer finds its document again");
    Ok(peer.close().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    run().await
}

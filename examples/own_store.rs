//! A store of one's own: one file to which every batch is appended, and the rows in memory.
//!
//! ```sh
//! cargo run --example own_store
//! ```
//!
//! Small, and fit for small data: all rows are in memory, and the file only grows. It keeps the
//! whole contract of `leno::store::Store`, which the conformance suite checks before a peer uses it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leno::store::testing::{StoreFactory, conformance};
use leno::store::{Batch, Direction, Store, StoreError, Table, View, Visit, is_empty_range};
use leno::{Ipld, Peer};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// The file is `(length of the body: u32 | its FNV-1a hash: u64 | body)*`, a body is
/// `(table: u8 | key length: u32 | key | 0, or 1 | value length: u32 | value)*`; numbers big-endian.
#[derive(Debug)]
struct Journal {
    /// `None` once a write failed or the store was closed: then nothing is certain any more.
    inner: Mutex<Option<(File, Arc<Rows>)>>,
}

fn failed(doing: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |error| {
        let source = Arc::new(error);
        StoreError::Medium { doing, source }
    }
}

fn hash(body: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    body.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Journal {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(failed("opened"))?;
        // One process at a time; the lock dies with its process.
        file.try_lock().map_err(|_| StoreError::Locked)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let mut rows = Rows::new();
        let mut rest = bytes.as_slice();
        while let Some(body) = take_body(&mut rest) {
            let damaged = || StoreError::Corrupt {
                what: "a batch of the journal".to_owned(),
            };
            read_body(body, &mut rows).ok_or_else(damaged)?;
        }
        // What follows the last whole batch was being written in a crash, and never acknowledged.
        let whole = bytes.len() - rest.len();
        file.set_len(whole as u64).map_err(failed("cut"))?;
        file.seek(SeekFrom::End(0)).map_err(failed("sought"))?;
        file.sync_all().map_err(failed("synced"))?;
        Ok(Self {
            inner: Mutex::new(Some((file, Arc::new(rows)))),
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_be_bytes(take(rest, 4)?.try_into().ok()?);
    take(rest, len as usize)
}

fn take_body<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut ahead = *rest;
    let len = u32::from_be_bytes(take(&mut ahead, 4)?.try_into().ok()?);
    let expected = u64::from_be_bytes(take(&mut ahead, 8)?.try_into().ok()?);
    let body = take(&mut ahead, len as usize).filter(|body| hash(body) == expected)?;
    *rest = ahead;
    Some(body)
}

fn read_body(mut rest: &[u8], rows: &mut Rows) -> Option<()> {
    while let Some(table) = take(&mut rest, 1) {
        let table = *Table::ALL.get(usize::from(*table.first()?))?;
        let key = (table, take_sized(&mut rest)?.to_vec());
        match take(&mut rest, 1)? {
            [0] => drop(rows.remove(&key)),
            _ => drop(rows.insert(key, take_sized(&mut rest)?.to_vec())),
        }
    }
    Some(())
}

fn write_sized(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend((bytes.len() as u32).to_be_bytes());
    body.extend(bytes);
}

fn encode(batch: &Batch) -> Vec<u8> {
    let mut body = Vec::new();
    for (table, key, value) in batch.writes() {
        body.push(table as u8);
        write_sized(&mut body, key);
        body.push(u8::from(value.is_some()));
        value
            .into_iter()
            .for_each(|value| write_sized(&mut body, value));
    }
    let len = (body.len() as u32).to_be_bytes();
    [&len[..], &hash(&body).to_be_bytes(), &body].concat()
}

#[async_trait]
impl Store for Journal {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreError> {
        let inner = self.inner.lock().map_err(|_| StoreError::Poisoned)?;
        let (_, rows) = inner.as_ref().ok_or(StoreError::Poisoned)?;
        Ok(Box::new(Picture(rows.clone())))
    }

    // Nothing is awaited, so whoever polls it once has written it whole.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        let mut inner = self.inner.lock().map_err(|_| StoreError::Poisoned)?;
        // Taken out: if the write fails, the store is poisoned.
        let (mut file, mut rows) = inner.take().ok_or(StoreError::Poisoned)?;
        file.write_all(&encode(&batch)).map_err(failed("wrote"))?;
        file.sync_data().map_err(failed("synced"))?;
        for (table, key, value) in batch.into_writes() {
            let rows = Arc::make_mut(&mut rows);
            match value {
                Some(value) => rows.insert((table, key), value),
                None => rows.remove(&(table, key)),
            };
        }
        *inner = Some((file, rows));
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        // Dropping the file gives up its lock.
        self.inner.lock().map_err(|_| StoreError::Poisoned)?.take();
        Ok(())
    }
}

/// Rows as they were when the view was taken: a commit changes a copy while anybody looks.
struct Picture(Arc<Rows>);

impl View for Picture {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        if is_empty_range(from, to) {
            return Ok(());
        }
        let at = |key: &[u8]| (table, key.to_vec());
        let from = match from {
            Bound::Unbounded => Bound::Included(at(&[])),
            Bound::Included(_) | Bound::Excluded(_) => from.map(at),
        };
        let inside = |key: &[u8]| match to {
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
            Bound::Unbounded => true,
        };
        let rows = self.0.range((from, Bound::Unbounded));
        let mut rows: Vec<_> = rows
            .take_while(|((of, key), _)| *of == table && inside(key))
            .collect();
        if direction == Direction::Backward {
            rows.reverse();
        }
        for ((_, key), value) in rows {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Opens journals in a folder, for the conformance suite.
struct Folder(PathBuf);

#[async_trait]
impl StoreFactory for Folder {
    async fn open(&self, place: u32) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(Journal::open(&self.0.join(place.to_string()))?))
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
    let peer = Peer::builder().store(Journal::open(&path)?).start().await?;
    let thread = peer.create_thread("band").await?;
    let colour = Ipld::Map(BTreeMap::from([("colour".to_owned(), Ipld::from("green"))]));
    let id = thread.collection::<Ipld>("things").insert(&colour).await?;
    peer.close().await?;

    let peer = Peer::builder().store(Journal::open(&path)?).start().await?;
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

//! The documents of a thread that are in memory, over the rows of the store.
//!
//! A document is *dirty* while it differs from what the last flush wrote, and *fresh* while a view
//! may not show its newest row: until the flush that wrote it is settled. Only documents that are
//! neither are given up for room.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use leno_crdt_codec::bug;
use leno_threads_core::store::{Batch, StoreError, Table, View};

use crate::event::Events;
use crate::key::{self, Key};
use crate::reduced::{Head, PART_BYTES, Reduced};

/// What a document in memory takes besides its state, in bytes, about.
const OVERHEAD_BYTES: usize = 512;

/// How much more room a state takes than its encoding, about.
const STATE_FACTOR: usize = 3;

/// Proof that documents were flushed into a batch; see [`crate::Documents::settle`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[must_use = "documents stay in memory until the flush is settled"]
pub struct Flushed(u64);

/// Where a document is in memory, until the next call that may give documents up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Slot(usize);

#[derive(Debug)]
struct Cached {
    document: Reduced,
    key: Key,
    /// Rows that it has in the store.
    parts: u32,
    size: usize,
    is_dirty: bool,
    /// The flush that wrote it last.
    flush: u64,
    /// Asked for since the last look for documents to give up.
    is_used: bool,
}

#[derive(Debug)]
pub(crate) struct Cache {
    thread: u32,
    // Looked up, never iterated.
    slots: HashMap<Key, Slot>,
    /// By slot; the slots that are nothing are in `free`.
    documents: Vec<Option<Cached>>,
    free: Vec<Slot>,
    /// Every document in memory once, in the order in which they may be given up.
    queue: VecDeque<Slot>,
    dirty: BTreeSet<Key>,
    fresh: BTreeSet<Key>,
    size: usize,
    dirty_size: usize,
    budget: usize,
    /// The size above which it is worth while to look for documents to give up.
    evict_above: usize,
    /// Ops since the last flush, and their bytes.
    pub(crate) ops: usize,
    pub(crate) op_bytes: usize,
    flushes: u64,
    settled: u64,
}

impl Cache {
    pub(crate) fn new(thread: u32, budget: usize) -> Self {
        Self {
            thread,
            slots: HashMap::new(),
            documents: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            dirty: BTreeSet::new(),
            fresh: BTreeSet::new(),
            size: 0,
            dirty_size: 0,
            budget,
            evict_above: budget,
            ops: 0,
            op_bytes: 0,
            flushes: 0,
            settled: 0,
        }
    }

    /// Finds a document, from its rows if it is not in memory.
    pub(crate) fn load(&mut self, view: &dyn View, key: &[u8]) -> Result<Slot, StoreError> {
        let Some(slot) = self.slots.get(key).copied() else {
            return self.read(view, key);
        };
        self.cached_mut(slot).is_used = true;
        Ok(slot)
    }

    /// A document in memory.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<&Reduced> {
        self.slots.get(key).map(|slot| self.document(*slot))
    }

    pub(crate) fn document(&self, slot: Slot) -> &Reduced {
        &self.cached(slot).document
    }

    pub(crate) fn document_mut(&mut self, slot: Slot) -> &mut Reduced {
        &mut self.cached_mut(slot).document
    }

    pub(crate) fn key(&self, slot: Slot) -> &Key {
        &self.cached(slot).key
    }

    fn cached(&self, slot: Slot) -> &Cached {
        let cached = self.documents.get(slot.0).and_then(Option::as_ref);
        cached.expect("a slot is used before documents are given up")
    }

    fn cached_mut(&mut self, slot: Slot) -> &mut Cached {
        let cached = self.documents.get_mut(slot.0).and_then(Option::as_mut);
        cached.expect("a slot is used before documents are given up")
    }

    /// Notes that an op of so many bytes was folded into a document.
    pub(crate) fn note(&mut self, slot: Slot, op_bytes: usize) {
        self.ops += 1;
        self.op_bytes += op_bytes;
        self.dirty(slot, op_bytes);
    }

    /// Takes all ops out of a document.
    pub(crate) fn empty(&mut self, slot: Slot) {
        *self.document_mut(slot) = Reduced::default();
        self.dirty(slot, 0);
    }

    fn dirty(&mut self, slot: Slot, bytes: usize) {
        let grown = STATE_FACTOR * bytes;
        let cached = self.cached_mut(slot);
        cached.size += grown;
        let is_news = !std::mem::replace(&mut cached.is_dirty, true);
        let news = is_news.then(|| (cached.key.clone(), cached.size - grown));
        self.size += grown;
        self.dirty_size += grown;
        if let Some((key, size)) = news {
            self.dirty_size += size;
            self.dirty.insert(key.clone());
            self.fresh.insert(key);
        }
    }

    fn read(&mut self, view: &dyn View, key: &[u8]) -> Result<Slot, StoreError> {
        let row = view.get(Table::Documents, &key::row(self.thread, key))?;
        let bytes = row.map(|row| self.join(view, key, row)).transpose()?;
        let (document, is_news) = match &bytes {
            Some(bytes) => Reduced::decode(bytes).map_err(|error| damaged(key, error))?,
            None => (Reduced::default(), false),
        };
        let parts = bytes.as_deref().and_then(Head::parts).unwrap_or(0);
        let size = size_of(bytes.as_ref().map_or(0, Vec::len));
        let key: Key = key.into();
        let cached = Cached {
            document,
            key: key.clone(),
            parts,
            size,
            is_dirty: false,
            flush: 0,
            is_used: true,
        };
        let slot = self.free.pop().unwrap_or(Slot(self.documents.len()));
        match self.documents.get_mut(slot.0) {
            Some(free) => *free = Some(cached),
            None => self.documents.push(Some(cached)),
        }
        self.size += size;
        self.slots.insert(key, slot);
        self.queue.push_back(slot);
        if is_news {
            self.dirty(slot, 0);
        }
        Ok(slot)
    }

    /// Reads the further rows of a document behind its first.
    pub(crate) fn join(
        &self,
        view: &dyn View,
        key: &[u8],
        mut row: Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        let parts = Head::parts(&row).ok_or_else(|| damaged(key, "unknown version"))?;
        for part in 1..parts {
            let more = view.get(Table::Documents, &key::part(self.thread, key, part))?;
            row.extend_from_slice(&more.ok_or_else(|| damaged(key, "a part is missing"))?);
        }
        Ok(row)
    }

    /// Documents that a view may not show as they are, from one key to another.
    pub(crate) fn fresh(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&[u8], &Reduced)> {
        let keys = self.fresh.range::<[u8], _>((from, to));
        keys.filter_map(|key| Some((&**key, self.peek(key)?)))
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// How much room the documents take that cannot be given up before a flush, about.
    pub(crate) fn dirty_size(&self) -> usize {
        self.dirty_size
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn flush(&mut self, batch: &mut Batch) -> Flushed {
        self.flushes += 1;
        for key in std::mem::take(&mut self.dirty) {
            let Some(slot) = self.slots.get(&key) else {
                continue;
            };
            let Some(Some(cached)) = self.documents.get_mut(slot.0) else {
                continue;
            };
            cached.is_dirty = false;
            cached.flush = self.flushes;
            if cached.document.is_empty() {
                let before = std::mem::replace(&mut cached.parts, 0);
                erase(batch, self.thread, &key, 0..before);
                continue;
            }
            let (bytes, parts) = cached.document.encode();
            let size = size_of(bytes.len());
            self.size = self.size - cached.size + size;
            cached.size = size;
            let before = std::mem::replace(&mut cached.parts, parts);
            if bug!(CursorAhead) && self.dirty_size > 0 {
                self.dirty_size = 0;
                continue;
            }
            write(batch, self.thread, &key, &bytes, before);
        }
        self.dirty_size = 0;
        self.ops = 0;
        self.op_bytes = 0;
        Flushed(self.flushes)
    }

    pub(crate) fn settle(&mut self, flushed: Flushed) {
        self.settled = self.settled.max(flushed.0);
        self.evict_above = self.budget;
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|key| {
            let slot = self.slots.get(key);
            slot.is_some_and(|slot| !self.cached(*slot).is_settled(self.settled))
        });
        self.fresh = fresh;
    }

    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    pub(crate) fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
        self.evict_above = budget;
    }

    /// Learns that documents are pinned no more, as events were taken.
    pub(crate) fn unpin(&mut self) {
        self.evict_above = self.budget;
    }

    /// Gives up documents that were not asked for lately until the rest fits the budget.
    #[inline]
    pub(crate) fn evict(&mut self, events: &Events) {
        if self.size > self.evict_above {
            self.look_around(events);
        }
    }

    fn look_around(&mut self, events: &Events) {
        // Twice around, as the first time only takes the mark of use away.
        let mut tries = 2 * self.queue.len();
        while self.size > self.budget && tries > 0 {
            tries -= 1;
            let Some(slot) = self.queue.pop_front() else {
                return;
            };
            let Some(place) = self.documents.get_mut(slot.0) else {
                continue;
            };
            let Some(cached) = place else { continue };
            let is_pinned = !cached.is_settled(self.settled) || events.is_touched(&cached.key);
            if is_pinned || std::mem::take(&mut cached.is_used) {
                self.queue.push_back(slot);
                continue;
            }
            self.size -= cached.size;
            self.slots.remove(&cached.key);
            *place = None;
            self.free.push(slot);
        }
        // If most of it is pinned, looking again at every op would not help.
        self.evict_above = self.budget.max(self.size + self.size / 4);
    }
}

impl Cached {
    fn is_settled(&self, settled: u64) -> bool {
        !self.is_dirty && self.flush <= settled
    }
}

fn write(batch: &mut Batch, thread: u32, key: &[u8], bytes: &[u8], before: u32) {
    let mut count = 0;
    for (part, bytes) in (0..).zip(bytes.chunks(PART_BYTES)) {
        let row = match part {
            0 => key::row(thread, key),
            part => key::part(thread, key, part),
        };
        batch.put(Table::Documents, row, bytes.to_vec());
        count = part + 1;
    }
    erase(batch, thread, key, count..before);
}

fn erase(batch: &mut Batch, thread: u32, key: &[u8], parts: std::ops::Range<u32>) {
    for part in parts {
        let row = match part {
            0 => key::row(thread, key),
            part => key::part(thread, key, part),
        };
        batch.delete(Table::Documents, row);
    }
}

fn size_of(bytes: usize) -> usize {
    OVERHEAD_BYTES + STATE_FACTOR * bytes
}

pub(crate) fn damaged(key: &[u8], why: impl std::fmt::Display) -> StoreError {
    let (collection, id) = key::split(key).map_or(("?", None), |it| (it.0, key::id(key)));
    let id = id.map(|id| id.to_string()).unwrap_or_default();
    StoreError::Corrupt {
        what: format!("document {id} in {collection}: {why}"),
    }
}

//! The reduced documents of one thread.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{self, Op, render};
use leno_crdt_codec::{Dot, LogId, OpError, Place, Seq, bug};
use leno_threads_core::store::{Batch, StoreError, View};
use leno_threads_core::thread::{Appended, Opened};
use leno_threads_core::{OpRef, RecordRef};

use crate::body::{Body, RawOp, SkipReason};
use crate::cache::{Cache, Flushed, Slot};
use crate::cursor::{Arrival, Cursors};
use crate::definition::{Definition, DefinitionError};
use crate::event::{Event, Events};
use crate::key;
use crate::reduced::Folded;
use crate::transaction::{Transaction, length};

mod read;
mod refold;

pub use read::Document;
pub(crate) use read::{Staging, check_name};
pub use refold::Refold;

/// Documents in memory take about this many bytes, unless [`Documents::set_budget`] says otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 8 << 20;

/// After this many ops [`Documents::needs_flush`].
pub const FLUSH_OPS: usize = 16_384;

/// After this many bytes of ops [`Documents::needs_flush`].
pub const FLUSH_BYTES: usize = 4 << 20;

/// Fewer ops than this are not flushed for want of room alone: it would write large documents over
/// and over.
const FLUSH_OPS_MIN: usize = 256;

/// The documents of one thread: what its data records add up to.
///
/// Held lazily: loading reads how far the rows go, one row per log; a document is read when it is
/// asked for or written to, and given up again for room once it rests in the store.
///
/// # The contract
///
/// 1. Records come in by [`Documents::apply`], one's own by [`Documents::commit`], in any order. Each
///    counts once: which ones were folded is kept exactly, record by record, so those that come
///    twice change nothing, and those that come late (their key came late) are not missed.
/// 2. Before each commit of the thread's changes, `if needs_flush() { flush(&mut changes.batch) }`.
///    The batch holds the records that were folded since the last flush, or they were committed
///    before: never flush into a batch that is committed *before* they are. After
///    [`leno_threads_core::thread::Thread::append`], publish first.
/// 3. Once that batch is committed and views show it, [`Documents::settle`]. Until then what was
///    flushed stays in memory.
/// 4. After loading, replay each log from [`Documents::cursor`] into [`Documents::apply`]. Whatever
///    was folded and not flushed before a crash comes back by that.
/// 5. After an error of the store, throw this away and load it again, as the thread.
///
/// State is a function of the set of records folded. Definitions decide what it shows and how it is
/// written, and are no part of it.
///
/// # Examples
///
/// What a crash costs:
///
/// ```
/// use ipld_core::ipld;
/// use leno_crdt_codec::{LogId, Stamp};
/// use leno_threads_core::store::{Batch, MemoryStore, Store};
/// use leno_threads_core::thread::Appended;
/// use leno_threads_core::{OpRef, RecordId};
/// use leno_threads_db::{DocumentId, Documents, Transaction};
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
/// # let (alice, log) = (OpRef { record: RecordId([1; 32]), op: 0 }, LogId([2; 32]));
///
/// let store = MemoryStore::new();
/// let mut documents = Documents::load(&*store.view()?, 0)?;
/// let id = DocumentId::natural("blue")?;
/// for seq in 1..=2 {
///     let view = store.view()?;
///     let mut transaction = Transaction::new(alice, Some(log), 0);
///     let mut writer = documents.writer(&*view, &mut transaction, &mut rng);
///     writer.put("songs", Some(&id), &ipld!({"plays": seq}))?;
///     documents.commit(&*view, transaction, &Appended { log, seq, stamp: Stamp(seq) })?;
///     if seq == 1 {
///         let mut batch = Batch::new();
///         let flushed = documents.flush(&mut batch);
///         futures_executor::block_on(store.commit(batch))?;
///         documents.settle(flushed);
///     }
/// }
/// assert_eq!((documents.cursor(&log), documents.newest(&log)), (1, 2));
///
/// // The second record was not flushed: it is to be replayed.
/// let view = store.view()?;
/// let mut documents = Documents::load(&*view, 0)?;
/// assert_eq!(documents.cursor(&log), 1);
/// let song = documents.get(&*view, "songs", &id)?.expect("it was flushed");
/// assert_eq!(song.value, ipld!({"plays": 1}));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Documents {
    cursors: Cursors,
    pub(crate) cache: Cache,
    pub(crate) events: Events,
    definitions: BTreeMap<String, Definition>,
    /// How collections without a definition are shown.
    plain: Definition,
    /// Whether a record came late since the last flush.
    is_late: bool,
    /// The key that is looked up, to spare an allocation per op.
    pub(crate) scratch: Vec<u8>,
    thread: u32,
}

impl Documents {
    /// Reads how far the rows of a thread go; the work grows with the number of its logs only.
    ///
    /// `thread` is the thread's number in this store, `Thread::number`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn load(view: &dyn View, thread: u32) -> Result<Self, StoreError> {
        Ok(Self {
            cursors: Cursors::load(view, thread)?,
            cache: Cache::new(thread, CACHE_BYTES_DEFAULT),
            events: Events::default(),
            definitions: BTreeMap::new(),
            plain: Definition::default(),
            is_late: false,
            scratch: Vec::new(),
            thread,
        })
    }

    /// The number of the thread in its store.
    #[must_use]
    pub fn thread(&self) -> u32 {
        self.thread
    }

    /// The newest record of a log whose ops are in the flushed rows: replay the ones after it.
    #[must_use]
    pub fn cursor(&self, log: &LogId) -> Seq {
        self.cursors.flushed(log)
    }

    /// The newest record of a log whose ops are folded, flushed or not; 0 if there is none.
    #[must_use]
    pub fn newest(&self, log: &LogId) -> Seq {
        self.cursors.newest(log)
    }

    /// The first record of a log that is missing below its newest folded one: its key is not here,
    /// it is quarantined, or a later version wrote it.
    ///
    /// Replaying from the record before it is only of use after an update of this program, or if a
    /// flush was left out that [`Documents::needs_flush`] asked for.
    #[must_use]
    pub fn gap(&self, log: &LogId) -> Option<Seq> {
        self.cursors.gap(log)
    }

    /// Sets about how many bytes documents may take in memory, besides those that are not flushed.
    pub fn set_budget(&mut self, bytes: usize) {
        self.cache.set_budget(bytes);
        self.cache.evict(&self.events);
    }

    /// About how many bytes the documents in memory take.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.cache.size()
    }

    /// Takes in the definition of a collection, as the roster has it now: a fact whose key is
    /// [`crate::COLLECTION_FACT_PREFIX`] and the name. Tells whether that changed anything.
    ///
    /// A lower version than the known one changes nothing. Of two with one version the roster
    /// decides, the same everywhere, so an equal one takes the place of the known.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`]; the known definition stays.
    pub fn define(
        &mut self,
        collection: &str,
        version: u64,
        bytes: &[u8],
    ) -> Result<bool, DefinitionError> {
        if !key::is_collection_name(collection) {
            return Err(DefinitionError::Name {
                name: collection.chars().take(200).collect(),
            });
        }
        let definition = Definition::decode(version, bytes)?;
        match self.definitions.get_mut(collection) {
            Some(known) if known.version > version || *known == definition => return Ok(false),
            Some(known) => *known = definition,
            None => drop(self.definitions.insert(collection.to_owned(), definition)),
        }
        Ok(true)
    }

    /// The definition of a collection, if it has one.
    #[must_use]
    pub fn definition(&self, collection: &str) -> Option<&Definition> {
        self.definitions.get(collection)
    }

    /// The collections that have a definition, in the order of their names.
    pub fn definitions(&self) -> impl Iterator<Item = (&str, &Definition)> {
        self.definitions
            .iter()
            .map(|(name, definition)| (name.as_str(), definition))
    }

    pub(crate) fn strategies(&self, collection: &str) -> &json::Definition {
        // Most threads define nothing, or one collection after another.
        &self
            .definitions
            .get(collection)
            .unwrap_or(&self.plain)
            .strategies
    }

    /// Folds a record into its documents, unless it was folded before.
    ///
    /// `member` is the author's number, which a create of a generated id must match; see
    /// [`crate::new_id`]. It must be the same on every peer and at every time: the beginning of the
    /// line of the grant that the record's log was opened under.
    ///
    /// What cannot be folded is told by [`Documents::take_events`], and harms nothing else:
    ///
    /// 1. A body that does not decode is skipped as a whole: [`Event::Skipped`].
    /// 2. An op that breaks the format voids its record, if it is of a kind that version 1 of the
    ///    format has. Kinds that come later are judged op by op, so that versions agree.
    /// 3. An op of an unknown kind waits with its document, which is stopped: [`Event::Stopped`].
    ///    It is folded when a later version loads the document.
    /// 4. A create of a generated id that its author did not make is void, and so is an op on a life
    ///    above its stamp: [`Event::Void`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn apply(
        &mut self,
        view: &dyn View,
        opened: &Opened<'_>,
        member: Option<OpRef>,
    ) -> Result<(), StoreError> {
        let record = opened.record;
        let arrival = self.cursors.judge(&record.log, record.seq);
        match arrival {
            Arrival::New | Arrival::Late => {}
            Arrival::Duplicate if bug!(CounterTwice) => {}
            Arrival::Duplicate => return Ok(()),
            Arrival::HeldBack => {
                self.events.push(Event::Skipped {
                    record,
                    reason: SkipReason::HeldBack,
                });
                return Ok(());
            }
        }
        let result = match Body::decode(opened.plaintext) {
            Ok(body) if body.rest.is_empty() => self.apply_one(view, opened, member, &body.first),
            Ok(body) => self.apply_many(view, opened, member, &body, None),
            Err(reason) => Ok(Err(reason)),
        };
        if let Err(reason) = result? {
            let is_missing = matches!(reason, SkipReason::UnknownEncoding { .. });
            self.events.push(Event::Skipped { record, reason });
            if is_missing {
                return Ok(());
            }
        }
        self.is_late |= arrival == Arrival::Late;
        self.cursors.take(record.log, record.seq);
        self.cache.evict(&self.events);
        Ok(())
    }

    fn apply_one(
        &mut self,
        view: &dyn View,
        opened: &Opened<'_>,
        member: Option<OpRef>,
        op: &RawOp<'_>,
    ) -> Result<Result<(), SkipReason>, StoreError> {
        key::write(&mut self.scratch, op.collection, op.document);
        let slot = self.cache.load(view, &self.scratch)?;
        self.touch(op.collection, slot);
        let document = self.cache.document_mut(slot);
        match document.fold_bytes(&place(opened, op.index), member, op.kind, op.bytes) {
            Ok(folded) => {
                self.cache.note(slot, op.bytes.len());
                self.tell(opened.record, op, folded);
                Ok(Ok(()))
            }
            Err(source) => Ok(Err(SkipReason::MalformedOp {
                index: op.index,
                source,
            })),
        }
    }

    fn apply_many(
        &mut self,
        view: &dyn View,
        opened: &Opened<'_>,
        member: Option<OpRef>,
        body: &Body<'_>,
        refold: Option<&Refold>,
    ) -> Result<Result<(), SkipReason>, StoreError> {
        // Everything that may fail comes before anything changes: one record, one fate.
        let mut ops = Vec::with_capacity(1 + body.rest.len());
        for raw in std::iter::once(&body.first).chain(&body.rest) {
            let op = match Op::decode(raw.bytes) {
                Ok(op) => Ok(op),
                Err(OpError::Malformed(source)) => {
                    return Ok(Err(SkipReason::MalformedOp {
                        index: raw.index,
                        source,
                    }));
                }
                Err(OpError::Unknown { kind }) => Err(kind),
                Err(_) => Err(raw.kind),
            };
            key::write(&mut self.scratch, raw.collection, raw.document);
            if refold.is_none_or(|refold| refold.contains(&self.scratch)) {
                ops.push((raw, self.cache.load(view, &self.scratch)?, op));
            }
        }
        for (raw, slot, op) in ops {
            let place = place(opened, raw.index);
            self.touch(raw.collection, slot);
            let document = self.cache.document_mut(slot);
            let folded = match op {
                Ok(op) => document.fold(&place, member, op),
                Err(kind) => document.wait(&place, member, kind, raw.bytes),
            };
            self.cache.note(slot, raw.bytes.len());
            self.tell(opened.record, raw, folded);
        }
        Ok(Ok(()))
    }

    /// Notes what a document shows before it is written to, if anybody watches.
    #[inline]
    fn touch(&mut self, collection: &str, slot: Slot) {
        if self.events.is_watched(collection) {
            let strategies = &self
                .definitions
                .get(collection)
                .unwrap_or(&self.plain)
                .strategies;
            let state = &self.cache.document(slot).state;
            self.events
                .touch(self.cache.key(slot), || render(state, strategies));
        }
    }

    fn tell(&mut self, record: RecordRef, op: &RawOp<'_>, folded: Folded) {
        if folded == Folded::Done {
            return;
        }
        let Some(id) = key::id(&key_of(op)) else {
            return;
        };
        let (collection, index) = (op.collection.to_owned(), op.index);
        match folded {
            Folded::Done => {}
            Folded::Void(reason) => {
                self.events.push(Event::Void {
                    record,
                    index,
                    collection,
                    id,
                    reason,
                });
            }
            Folded::Unknown(kind) => {
                self.events.push(Event::Stopped {
                    record,
                    index,
                    collection,
                    id,
                    kind,
                });
            }
        }
    }

    /// Folds a transaction that was written as a record just now, without decoding it again.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn commit(
        &mut self,
        view: &dyn View,
        transaction: Transaction,
        appended: &Appended,
    ) -> Result<(), StoreError> {
        let member = Some(transaction.member());
        let arrival = self.cursors.judge(&appended.log, appended.seq);
        if arrival == Arrival::Duplicate {
            return Ok(());
        }
        let mut index = 0;
        for (collection, ops) in transaction.into_groups() {
            for (key, op) in ops {
                let dot = Dot {
                    log: appended.log,
                    seq: appended.seq,
                    index,
                };
                let place = Place {
                    stamp: appended.stamp,
                    dot,
                };
                let slot = self.cache.load(view, &key)?;
                self.touch(&collection, slot);
                let bytes = length(&op);
                self.cache.document_mut(slot).fold(&place, member, op);
                self.cache.note(slot, bytes);
                index += 1;
            }
            if bug!(TransactionTorn) {
                break;
            }
        }
        self.cursors.take(appended.log, appended.seq);
        self.cache.evict(&self.events);
        Ok(())
    }

    /// Tells whether to flush before the next commit: much was folded since the last flush, so a
    /// crash would replay much; or a record came late, and after a crash nobody would bring it
    /// again if the commit that keeps its key does not keep its ops.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        let is_tight =
            self.cache.ops >= FLUSH_OPS_MIN && self.cache.dirty_size() >= self.cache.budget();
        self.is_late
            || is_tight
            || self.cache.ops >= FLUSH_OPS
            || self.cache.op_bytes >= FLUSH_BYTES
    }

    /// Tells whether anything was folded that no flush has written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.cache.is_dirty()
    }

    /// Adds the rows of all documents that were written to, and how far they go, to a batch.
    ///
    /// See the contract above for which batch; [`Documents::settle`] takes the result.
    pub fn flush(&mut self, batch: &mut Batch) -> Flushed {
        self.is_late = false;
        self.cursors.flush(batch);
        self.cache.flush(batch)
    }

    /// Learns that the batch of a flush, and those of all flushes before it, are committed, and that
    /// every view given from now on shows them. Only then may what they wrote leave memory.
    pub fn settle(&mut self, flushed: Flushed) {
        self.cache.settle(flushed);
        self.cache.evict(&self.events);
    }

    /// Has changes to the documents of a collection told by [`Documents::take_events`]. Counts: watch
    /// and unwatch come in pairs.
    pub fn watch(&mut self, collection: &str) {
        self.events.watch(collection);
    }

    /// Ends what one [`Documents::watch`] began.
    pub fn unwatch(&mut self, collection: &str) {
        self.events.unwatch(collection);
    }

    /// Takes what happened since the last call: one [`Event::Changed`] per document of a watched
    /// collection that shows something else now, in the order of their keys; then all other events
    /// in the order in which they happened.
    ///
    /// Call it once what was folded is durable. Documents that changed stay in memory until then.
    pub fn take_events(&mut self) -> Vec<Event> {
        if self.events.is_empty() {
            return Vec::new();
        }
        let (touched, others) = self.events.take();
        let changed = touched
            .into_iter()
            .filter_map(|(key, before)| self.changed(&key, before));
        let mut events: Vec<_> = changed.collect();
        if bug!(WatchLost) {
            events.pop();
        }
        events.extend(others);
        self.cache.unpin();
        self.cache.evict(&self.events);
        events
    }

    fn changed(&self, key: &[u8], before: Option<Ipld>) -> Option<Event> {
        let (collection, _) = key::split(key)?;
        let document = self.cache.peek(key)?;
        let after = render(&document.state, self.strategies(collection));
        (before != after).then_some(Event::Changed {
            collection: collection.to_owned(),
            id: key::id(key)?,
            before,
            after,
        })
    }
}

fn place(opened: &Opened<'_>, index: u32) -> Place {
    let RecordRef { log, seq, .. } = opened.record;
    Place {
        stamp: opened.stamp,
        dot: Dot { log, seq, index },
    }
}

fn key_of(op: &RawOp<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    key::write(&mut key, op.collection, op.document);
    key
}

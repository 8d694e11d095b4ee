//! Peers that hold one thread: its records as bytes, a store, and the documents over it.

use std::collections::{BTreeMap, BTreeSet};

use futures_executor::block_on;
use ipld_core::ipld::Ipld;
use leno_crdt_codec::cbor::Decoder;
use leno_crdt_codec::json::{Action, Definition as Strategies, JsonCodec, Op, State, render};
use leno_crdt_codec::{Dot, LogId, Place, Stamp, naive, state_hash};
use leno_threads_core::store::{Batch, MemoryStore, Store};
use leno_threads_core::thread::{Appended, Opened};
use leno_threads_core::{OpRef, Padding, RecordId, RecordRef, SeatId};
use leno_threads_db::{
    DbError, Definition, DocumentId, Documents, Flushed, Strategy, Transaction, Writer,
    is_of_member,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) const THREAD: u32 = 7;
pub(crate) const ALICE: u8 = 1;
pub(crate) const BOB: u8 = 2;
pub(crate) const CAROL: u8 = 3;

/// A data record: what `Opened` borrows.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) stamp: u64,
    pub(crate) member: Option<OpRef>,
    pub(crate) plaintext: Vec<u8>,
}

impl Record {
    pub(crate) fn of(writer: u8, seq: u64, content: &[u8]) -> Self {
        let mut plaintext = [&[0], content].concat();
        Padding::Padme.pad(&mut plaintext);
        Self {
            log: log(writer),
            seq,
            stamp: seq,
            member: Some(member(writer)),
            plaintext,
        }
    }
}

pub(crate) fn log(writer: u8) -> LogId {
    LogId([writer; 32])
}

pub(crate) fn member(writer: u8) -> OpRef {
    OpRef {
        record: RecordId([writer; 32]),
        op: 0,
    }
}

pub(crate) fn natural(name: &str) -> DocumentId {
    DocumentId::natural(name).unwrap()
}

/// One field of every strategy; `title` is not declared.
pub(crate) fn strategies() -> Strategies {
    let meta = Strategies::default()
        .field("uses", Strategy::Counter)
        .field("tags", Strategy::Set);
    Strategies::default()
        .field("plays", Strategy::Counter)
        .field("tags", Strategy::Set)
        .field("fans", Strategy::GrowSet)
        .field("verses", Strategy::List)
        .field("best", Strategy::Max)
        .field("worst", Strategy::Min)
        .field("meta", Strategy::Map(meta))
        .field("note", Strategy::Register)
}

/// One peer. Its thread is modelled by the records that it admitted, which are always durable.
pub(crate) struct Peer {
    pub(crate) writer: u8,
    pub(crate) store: MemoryStore,
    pub(crate) documents: Documents,
    pub(crate) admitted: Vec<Record>,
    pub(crate) written: u64,
    pub(crate) stamp: u64,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) budget: Option<usize>,
    /// Batches that are not committed yet, in order.
    under_way: Vec<(Batch, Flushed)>,
}

impl Peer {
    pub(crate) fn new(writer: u8) -> Self {
        let store = MemoryStore::new();
        let documents = Documents::load(&*store.view().unwrap(), THREAD).unwrap();
        let mut peer = Self {
            writer,
            store,
            documents,
            admitted: Vec::new(),
            written: 0,
            stamp: 0,
            rng: ChaCha20Rng::seed_from_u64(writer.into()),
            budget: None,
            under_way: Vec::new(),
        };
        peer.define();
        peer
    }

    fn define(&mut self) {
        let definition = Definition {
            version: 1,
            strategies: strategies(),
        };
        let fact = definition.to_fact("songs").unwrap();
        let leno_threads_core::RosterOp::Fact { version, value, .. } = fact else {
            unreachable!()
        };
        for collection in ["songs", "bands"] {
            assert_eq!(self.documents.define(collection, version, &value), Ok(true));
        }
    }

    /// Writes a transaction as a record, if there is anything to write.
    pub(crate) fn write<T>(
        &mut self,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let own = (self.written > 0).then(|| log(self.writer));
        let mut transaction = Transaction::new(member(self.writer), own, 1_000);
        let store = self.store.clone();
        let view = store.view()?;
        let result = fill(
            &mut self
                .documents
                .writer(&*view, &mut transaction, &mut self.rng),
        )?;
        if let Some(content) = transaction.to_body() {
            self.written += 1;
            self.stamp += 1;
            let mut record = Record::of(self.writer, self.written, &content);
            record.stamp = self.stamp;
            let (log, seq) = (record.log, record.seq);
            let appended = Appended {
                log,
                seq,
                stamp: Stamp(self.stamp),
            };
            self.admitted.push(record);
            self.documents.commit(&*view, transaction, &appended)?;
        }
        self.flush_if_needed();
        Ok(result)
    }

    pub(crate) fn apply(&mut self, record: &Record) {
        let store = self.store.clone();
        apply(&mut self.documents, &store, record);
    }

    /// Takes a record in and commits.
    pub(crate) fn receive(&mut self, record: &Record) {
        let known = |it: &Record| (it.log, it.seq) == (record.log, record.seq);
        if !self.admitted.iter().any(known) {
            self.admitted.push(record.clone());
        }
        self.stamp = self.stamp.max(record.stamp);
        self.apply(record);
        self.flush_if_needed();
    }

    /// What comes with the records of the same commit is durable as soon as they are.
    fn flush_if_needed(&mut self) {
        if self.documents.needs_flush() {
            self.flush();
            self.commit();
        }
    }

    /// Flushes into a batch that is committed later.
    pub(crate) fn flush(&mut self) {
        let mut batch = Batch::new();
        let flushed = self.documents.flush(&mut batch);
        self.under_way.push((batch, flushed));
    }

    /// Commits what is under way, but does not say so.
    fn commit(&mut self) {
        for (batch, _) in &mut self.under_way {
            block_on(self.store.commit(std::mem::take(batch))).unwrap();
        }
    }

    /// Commits what is under way.
    pub(crate) fn settle(&mut self) {
        self.commit();
        for (_, flushed) in std::mem::take(&mut self.under_way) {
            self.documents.settle(flushed);
        }
    }

    /// Loses everything in memory, opens the store again and replays.
    pub(crate) fn crash(&mut self) {
        let view = self.store.view().unwrap();
        self.documents = Documents::load(&*view, THREAD).unwrap();
        drop(view);
        self.under_way.clear();
        self.documents.set_budget(self.budget.unwrap_or(usize::MAX));
        self.define();
        let logs: BTreeSet<_> = self.admitted.iter().map(|it| it.log).collect();
        for log in logs {
            let after = self.documents.cursor(&log);
            let mut records: Vec<_> = self
                .admitted
                .iter()
                .filter(|it| it.log == log && it.seq > after)
                .cloned()
                .collect();
            records.sort_by_key(|it| it.seq);
            for record in records {
                self.apply(&record);
            }
        }
    }

    pub(crate) fn get(&mut self, collection: &str, id: &DocumentId) -> Option<Ipld> {
        let store = self.store.clone();
        let view = store.view().unwrap();
        self.documents
            .get(&*view, collection, id)
            .unwrap()
            .map(|it| it.value)
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        self.documents
            .state_hash(&*self.store.view().unwrap())
            .unwrap()
    }

    /// All documents of a collection, `limit` at a time.
    pub(crate) fn pages(&self, collection: &str, limit: usize) -> Vec<(DocumentId, Ipld)> {
        let view = self.store.view().unwrap();
        let mut all: Vec<(DocumentId, Ipld)> = Vec::new();
        loop {
            let after = all.last().map(|it| it.0.clone());
            let page = self
                .documents
                .list(&*view, collection, after.as_ref(), limit)
                .unwrap();
            if page.is_empty() {
                return all;
            }
            assert!(page.len() <= limit);
            all.extend(page.into_iter().map(|it| (it.id, it.value)));
        }
    }
}

pub(crate) fn apply(documents: &mut Documents, store: &MemoryStore, record: &Record) {
    let Record {
        log,
        seq,
        stamp,
        member,
        plaintext,
    } = record;
    let opened = Opened {
        record: RecordRef {
            log: *log,
            seq: *seq,
            id: RecordId([0; 32]),
        },
        stamp: Stamp(*stamp),
        seat: SeatId([0; 32]),
        domain: leno_threads_core::THREAD_DOMAIN,
        plaintext,
    };
    documents
        .apply(&*store.view().unwrap(), &opened, *member)
        .unwrap();
}

/// The states that records mean, the plain way: all ops of a document, folded in the total order.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) states: BTreeMap<(String, DocumentId), State>,
}

impl Oracle {
    pub(crate) fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut ops: BTreeMap<(String, DocumentId), Vec<(Place, Op)>> = BTreeMap::new();
        for record in records {
            for (index, (collection, op)) in (0..).zip(decode(record)) {
                let is_void = match op.action() {
                    Action::Create { nonce, .. } if op.document().as_generated().is_some() => {
                        !nonce.is_some_and(|nonce| {
                            record
                                .member
                                .is_some_and(|it| is_of_member(op.document(), it, &nonce))
                        })
                    }
                    _ => false,
                };
                let dot = Dot {
                    log: record.log,
                    seq: record.seq,
                    index,
                };
                let place = Place {
                    stamp: Stamp(record.stamp),
                    dot,
                };
                if !is_void {
                    let document = (collection, op.document().clone());
                    ops.entry(document).or_default().push((place, op));
                }
            }
        }
        let fold = |(document, ops)| (document, naive::<JsonCodec>(ops));
        let states = ops
            .into_iter()
            .map(fold)
            .filter(|(_, state)| *state != State::default());
        Self {
            states: states.collect(),
        }
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        let rows: Vec<_> = self
            .states
            .iter()
            .map(|((collection, id), state)| {
                let id = match id.as_generated() {
                    Some(id) => [&[0], &id[..]].concat(),
                    None => [&[1], id.as_natural().unwrap().as_bytes()].concat(),
                };
                (collection, id, state.encode())
            })
            .collect();
        state_hash(
            rows.iter().map(|(collection, id, state)| {
                (collection.as_str(), id.as_slice(), state.as_slice())
            }),
        )
    }

    pub(crate) fn shown(&self, collection: &str) -> Vec<(DocumentId, Ipld)> {
        let strategies = strategies();
        let documents = self.states.iter().filter(|((of, _), _)| of == collection);
        documents
            .filter_map(|((_, id), state)| Some((id.clone(), render(state, &strategies)?)))
            .collect()
    }
}

fn decode(record: &Record) -> Vec<(String, Op)> {
    let mut decoder = Decoder::new(&record.plaintext[1..]);
    let mut ops = Vec::new();
    for _ in 0..decoder.array().unwrap() {
        decoder.array_of(2).unwrap();
        let collection = decoder.text().unwrap();
        for _ in 0..decoder.array().unwrap() {
            ops.push((
                collection.to_owned(),
                Op::decode(decoder.skip().unwrap()).unwrap(),
            ));
        }
    }
    ops
}

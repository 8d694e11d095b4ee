//! Writing: ops that become one record, staged and readable before it is written.

use std::collections::BTreeMap;
use std::fmt;

use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{
    Action, Change, Definition as Strategies, DocumentId, Edit, Op, State, Strategy, diff,
    overwrite, patch, render_field,
};
use leno_crdt_codec::{Dot, LogId, Place, Seq, Stamp};
use leno_threads_core::OpRef;
use leno_threads_core::store::View;
use rand_core::CryptoRng;

use crate::body::{self, BODY_COLLECTIONS_MAX, BODY_OPS_MAX};
use crate::cache::Slot;
use crate::documents::{Document, Documents, Staging, check_name};
use crate::error::DbError;
use crate::id::{is_of_member, new_id};
use crate::key::{self, Key};
use crate::reduced::Reduced;

mod field;

pub use field::{FieldChange, FieldEdit};

/// Stands for the log of a writer who has none yet; no key of a log has these bytes.
const NO_LOG: LogId = LogId([0xff; 32]);

/// Stands for the seq of the record that will be written.
const SEQ_STAGED: Seq = Seq::MAX;

/// Writes to documents that will be one record: all of them happen, or none.
///
/// A [`Writer`] fills it and reads through it. Nothing of it shows elsewhere before
/// [`Documents::commit`]; dropped before, it never was.
///
/// # Examples
///
/// See the front page of this crate for the way of a transaction into a record.
#[derive(Clone, Debug)]
pub struct Transaction {
    member: OpRef,
    log: LogId,
    now_millis: u64,
    /// Ascending by their collections. Most transactions have one op: a list costs less than a map.
    groups: Vec<Group>,
    /// Empty also while there is one op only, of which nobody has asked.
    documents: BTreeMap<Key, Touched>,
    count: usize,
}

/// The ops of a collection, in the order in which they were staged.
#[derive(Clone, Debug)]
struct Group {
    collection: Box<str>,
    ops: Vec<Staged>,
}

#[derive(Clone, Debug)]
struct Staged {
    key: Key,
    op: Op,
}

/// A document that is written to.
#[derive(Clone, Debug, Default)]
struct Touched {
    /// Which ops of its collection are its own.
    ops: Vec<usize>,
    /// The document after them, once anybody asks.
    copy: Option<Box<Reduced>>,
}

/// What became of a put.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// The document.
    pub id: DocumentId,
    /// Whether anything is written: not if the document showed the value already.
    pub is_changed: bool,
}

impl Transaction {
    /// Begins a transaction without writes.
    ///
    /// `member` is the own number, as for [`Documents::apply`]; `log` the own data log, if there is
    /// one already (`Thread::own_log`); `now_millis` milliseconds since the Unix epoch, for new ids.
    #[must_use]
    pub fn new(member: OpRef, log: Option<LogId>, now_millis: u64) -> Self {
        Self {
            member,
            log: log.unwrap_or(NO_LOG),
            now_millis,
            groups: Vec::new(),
            documents: BTreeMap::new(),
            count: 0,
        }
    }

    /// Tells whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many ops are staged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Encodes what `Thread::append` takes as content; nothing if there is nothing to write.
    ///
    /// # Shape
    ///
    /// `[[collection, [op, ..]], ..]`, strict dag-cbor: collections ascending by their bytes, each
    /// once; ops in the order in which they were staged.
    #[must_use]
    pub fn to_body(&self) -> Option<Vec<u8>> {
        let groups = self.groups.iter().map(|group| {
            (
                &*group.collection,
                group.ops.iter().map(|staged| staged.op.encode()),
            )
        });
        (!self.is_empty()).then(|| body::encode(groups))
    }

    pub(crate) fn member(&self) -> OpRef {
        self.member
    }

    /// The ops in the order of the body.
    pub(crate) fn into_groups(
        self,
    ) -> impl Iterator<Item = (Box<str>, impl Iterator<Item = (Key, Op)>)> {
        self.groups.into_iter().map(|group| {
            (
                group.collection,
                group.ops.into_iter().map(|Staged { key, op }| (key, op)),
            )
        })
    }

    fn group_at(&self, collection: &str) -> Result<usize, usize> {
        self.groups
            .binary_search_by(|group| (*group.collection).cmp(collection))
    }

    fn ops(&self, collection: &str) -> &[Staged] {
        let group = self
            .group_at(collection)
            .ok()
            .and_then(|at| self.groups.get(at));
        group.map_or(&[][..], |group| group.ops.as_slice())
    }

    fn ops_mut(&mut self, collection: &str) -> Option<&mut Vec<Staged>> {
        let at = self.group_at(collection).ok()?;
        self.groups.get_mut(at).map(|group| &mut group.ops)
    }

    fn stage(&mut self, collection: &str, key: Key, op: Op) -> Result<(), DbError> {
        let found = self.group_at(collection);
        let is_full = found.is_err() && self.groups.len() >= BODY_COLLECTIONS_MAX;
        if is_full || self.count >= BODY_OPS_MAX {
            return Err(DbError::TransactionTooLarge);
        }
        let at = found.unwrap_or_else(|at| {
            let group = Group {
                collection: collection.into(),
                ops: Vec::with_capacity(1),
            };
            self.groups.insert(at, group);
            at
        });
        let index = self.groups.get(at).map_or(0, |group| group.ops.len());
        if self.count > 0 {
            self.touch_first();
            let touched = self.documents.entry(key.clone()).or_default();
            touched.ops.push(index);
            if let Some(copy) = &mut touched.copy {
                copy.fold(
                    &staged_place(self.log, index),
                    Some(self.member),
                    op.clone(),
                );
            }
        }
        if let Some(group) = self.groups.get_mut(at) {
            group.ops.push(Staged { key, op });
        }
        self.count += 1;
        Ok(())
    }

    /// Makes up for that the first op was not entered.
    fn touch_first(&mut self) {
        let first = self.groups.iter().find_map(|group| group.ops.first());
        if let Some(first) = first.filter(|_| self.documents.is_empty()) {
            self.documents.insert(
                first.key.clone(),
                Touched {
                    ops: vec![0],
                    copy: None,
                },
            );
        }
    }

    /// Makes the copy of a document that has staged ops, from what it is without them.
    fn copy(&mut self, collection: &str, key: &[u8], base: &Reduced) {
        self.touch_first();
        let Some(touched) = self.documents.get(key).filter(|it| it.copy.is_none()) else {
            return;
        };
        let mut copy = base.clone();
        let ops = self.ops(collection);
        for index in &touched.ops {
            if let Some(staged) = ops.get(*index) {
                copy.fold(
                    &staged_place(self.log, *index),
                    Some(self.member),
                    staged.op.clone(),
                );
            }
        }
        if let Some(touched) = self.documents.get_mut(key) {
            touched.copy = Some(Box::new(copy));
        }
    }

    fn copied(&self, key: &[u8]) -> Option<&Reduced> {
        self.documents.get(key)?.copy.as_deref()
    }

    /// Takes out edits of list elements that this transaction inserted, by writing its inserts anew:
    /// an element has no name yet that another op could use.
    fn absorb(
        &mut self,
        collection: &str,
        key: &[u8],
        edits: Vec<Edit>,
    ) -> Result<Vec<Edit>, DbError> {
        let is_own = |edit: &Edit| match &edit.change {
            Change::Replace { element, .. } | Change::Take { element } => {
                element.dot.log == self.log && element.dot.seq == SEQ_STAGED
            }
            _ => false,
        };
        let (own, others): (Vec<_>, Vec<_>) = edits.into_iter().partition(is_own);
        if own.is_empty() {
            return Ok(others);
        }
        let mut rewritten: BTreeMap<usize, Op> = BTreeMap::new();
        let group = self.ops(collection);
        for edit in own {
            let (element, value) = match edit.change {
                Change::Replace { element, value } => (element, Some(value)),
                Change::Take { element } => (element, None),
                _ => continue,
            };
            let index = element.dot.index as usize;
            let old = rewritten
                .remove(&index)
                .or_else(|| Some(group.get(index)?.op.clone()));
            if let Some(old) = old {
                let new = reinsert(old, &edit.path, &element.position, value)?;
                rewritten.insert(index, new);
            }
        }
        let mut ops = self.ops_mut(collection);
        for (index, op) in rewritten {
            if let Some(staged) = ops.as_mut().and_then(|ops| ops.get_mut(index)) {
                staged.op = op;
            }
        }
        if let Some(touched) = self.documents.get_mut(key) {
            touched.copy = None;
        }
        Ok(others)
    }
}

/// Where a staged op stands until its record is written.
fn staged_place(log: LogId, index: usize) -> Place {
    let index = u32::try_from(index).expect("a transaction has at most BODY_OPS_MAX ops");
    // Above all stamps, as the record's will be above all that is seen here.
    Place {
        stamp: Stamp(u64::MAX),
        dot: Dot {
            log,
            seq: SEQ_STAGED,
            index,
        },
    }
}

/// Gives an insert of an op another value, or takes it out.
fn reinsert(
    op: Op,
    path: &[String],
    at: &leno_crdt_codec::json::Position,
    new: Option<leno_crdt_codec::json::Value>,
) -> Result<Op, DbError> {
    let (document, life, action) = op.into_parts();
    let rewrite = |edits: Vec<Edit>| -> Vec<Edit> {
        let edits = edits.into_iter().filter_map(|mut edit| {
            if edit.path == path
                && let Change::Insert { position, value } = &mut edit.change
                && position == at
            {
                *value = new.clone()?;
            }
            Some(edit)
        });
        edits.collect()
    };
    Ok(match action {
        Action::Create { nonce, edits } => Op::create(document, life, nonce, rewrite(edits))?,
        Action::Update { edits } => Op::update(document, life, rewrite(edits))?,
        Action::Delete => Op::delete(document, life)?,
    })
}

/// About how long an op is when it is encoded, in bytes.
pub(crate) fn length(op: &Op) -> usize {
    let edits = op.edits().iter().map(|edit| {
        let path: usize = edit.path.iter().map(String::len).sum();
        16 + path
            + edit
                .change
                .value()
                .map_or(0, |value| value.as_bytes().len())
    });
    32 + edits.sum::<usize>()
}

/// Writes to a [`Transaction`] and reads through it; made by [`Documents::writer`].
pub struct Writer<'a> {
    documents: &'a mut Documents,
    view: &'a dyn View,
    transaction: &'a mut Transaction,
    rng: &'a mut dyn CryptoRng,
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Writer")
            .field("transaction", self.transaction)
            .finish_non_exhaustive()
    }
}

impl Documents {
    /// Borrows what writing to a transaction takes. `rng` makes nonces of ids, and tells places in
    /// lists apart.
    pub fn writer<'a>(
        &'a mut self,
        view: &'a dyn View,
        transaction: &'a mut Transaction,
        rng: &'a mut dyn CryptoRng,
    ) -> Writer<'a> {
        Writer {
            documents: self,
            view,
            transaction,
            rng,
        }
    }
}

impl Writer<'_> {
    /// Makes a document show a value, a map: creates it, or changes what differs.
    ///
    /// Without an id a new one is generated. A document that was deleted is created anew as its next
    /// life. What strategies cannot take back stays: see `leno_crdt_codec::json::diff`.
    ///
    /// # Errors
    ///
    /// [`DbError`]; nothing was staged.
    pub fn put(
        &mut self,
        collection: &str,
        id: Option<&DocumentId>,
        value: &Ipld,
    ) -> Result<Written, DbError> {
        check_name(collection)?;
        match id {
            Some(id) => self.put_with(collection, id, None, value),
            None => {
                let transaction = &self.transaction;
                let (id, nonce) = new_id(transaction.now_millis, transaction.member, self.rng);
                self.put_with(collection, &id, Some(nonce), value)
            }
        }
    }

    /// As [`Writer::put`], for an id that the app got from [`new_id`] with its nonce.
    ///
    /// # Errors
    ///
    /// As [`Writer::put`]; [`DbError::NotAuthor`] if the nonce does not give the id.
    pub fn put_new(
        &mut self,
        collection: &str,
        id: &DocumentId,
        nonce: [u8; 16],
        value: &Ipld,
    ) -> Result<Written, DbError> {
        check_name(collection)?;
        self.put_with(collection, id, Some(nonce), value)
    }

    fn put_with(
        &mut self,
        collection: &str,
        id: &DocumentId,
        nonce: Option<[u8; 16]>,
        value: &Ipld,
    ) -> Result<Written, DbError> {
        let slot = self.load(collection, id)?;
        let member = self.transaction.member;
        let current = self.current(slot);
        let (life, next) = (current.state.life(), current.state.next_life());
        let known = nonce.or(current.nonce);
        let edits = self.edits(slot, |documents, state, log, unique| {
            Ok(diff(
                state,
                documents.strategies(collection),
                value,
                log,
                unique,
            )?)
        })?;
        let op = match life {
            Some(_) if edits.is_empty() => None,
            Some(life) => Some((life, edits, None)),
            None => Some((next, edits, Some(self.shown_nonce(id, member, known)?))),
        };
        let Some((life, edits, nonce)) = op else {
            return Ok(Written {
                id: id.clone(),
                is_changed: false,
            });
        };
        let is_changed = match nonce {
            None => self.update(collection, slot, id, life, edits)?,
            Some(nonce) => {
                let op = Op::create(id.clone(), life, nonce, edits)?;
                self.transaction.stage(collection, self.key(slot), op)?;
                true
            }
        };
        Ok(Written {
            id: id.clone(),
            is_changed,
        })
    }

    /// What a create has to show.
    fn shown_nonce(
        &self,
        id: &DocumentId,
        member: OpRef,
        known: Option<[u8; 16]>,
    ) -> Result<Option<[u8; 16]>, DbError> {
        if id.as_natural().is_some() {
            return Ok(None);
        }
        match known.filter(|nonce| is_of_member(id, member, nonce)) {
            Some(nonce) => Ok(Some(nonce)),
            None => Err(DbError::NotAuthor { id: id.clone() }),
        }
    }

    /// Changes the fields that `partial`, a map, has: a merge patch (RFC 7396). Null makes a field
    /// absent, maps are merged, all else takes the place of what is there. Tells whether anything is
    /// written.
    ///
    /// # Errors
    ///
    /// [`DbError`]; nothing was staged.
    pub fn patch(
        &mut self,
        collection: &str,
        id: &DocumentId,
        partial: &Ipld,
    ) -> Result<bool, DbError> {
        check_name(collection)?;
        let (slot, life) = self.load_alive(collection, id)?;
        let edits = self.edits(slot, |documents, state, log, unique| {
            let strategies = documents.strategies(collection);
            match patch_registers(state, strategies, partial, log)? {
                Some(edits) => Ok(edits),
                None => Ok(patch(state, strategies, partial, log, unique)?),
            }
        })?;
        self.update(collection, slot, id, life, edits)
    }

    /// Deletes a document with all that is ever written to this life of it. Tells whether anything
    /// is written: not if there is no such document.
    ///
    /// # Errors
    ///
    /// [`DbError`]; nothing was staged.
    pub fn delete(&mut self, collection: &str, id: &DocumentId) -> Result<bool, DbError> {
        check_name(collection)?;
        let slot = self.load(collection, id)?;
        let Some(life) = self.current(slot).state.life() else {
            return Ok(false);
        };
        self.transaction
            .stage(collection, self.key(slot), Op::delete(id.clone(), life)?)?;
        Ok(true)
    }

    /// Reads a document as the transaction would leave it.
    ///
    /// # Errors
    ///
    /// As [`Documents::get`].
    pub fn get(&mut self, collection: &str, id: &DocumentId) -> Result<Option<Document>, DbError> {
        check_name(collection)?;
        let slot = self.load_any(collection, id)?;
        Ok(self.documents.show(collection, id, self.current(slot)))
    }

    /// Lists documents as the transaction would leave them; otherwise as [`Documents::list`].
    ///
    /// # Errors
    ///
    /// As [`Documents::list`].
    pub fn list(
        &mut self,
        collection: &str,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<Document>, DbError> {
        check_name(collection)?;
        self.transaction.touch_first();
        let keys: Vec<Key> = self.transaction.documents.keys().cloned().collect();
        for key in keys {
            let collection = key::split(&key).map_or("", |it| it.0);
            let slot = self.documents.cache.load(self.view, &key)?;
            self.transaction
                .copy(collection, &key, self.documents.cache.document(slot));
        }
        let documents = self.transaction.documents.iter();
        let staging: Staging<'_> = documents
            .filter_map(|(key, it)| Some((&**key, it.copy.as_deref()?)))
            .collect();
        self.documents
            .list_with(self.view, &staging, collection, after, limit)
    }

    /// Finds a document that may be written to.
    fn load(&mut self, collection: &str, id: &DocumentId) -> Result<Slot, DbError> {
        let slot = self.load_any(collection, id)?;
        if self.current(slot).is_stopped() {
            return Err(DbError::Stopped {
                collection: collection.to_owned(),
                id: id.clone(),
            });
        }
        Ok(slot)
    }

    fn load_alive(&mut self, collection: &str, id: &DocumentId) -> Result<(Slot, u64), DbError> {
        let slot = self.load(collection, id)?;
        match self.current(slot).state.life() {
            Some(life) => Ok((slot, life)),
            None => Err(DbError::NotFound {
                collection: collection.to_owned(),
                id: id.clone(),
            }),
        }
    }

    fn load_any(&mut self, collection: &str, id: &DocumentId) -> Result<Slot, DbError> {
        let Documents {
            cache,
            events,
            scratch,
            ..
        } = &mut *self.documents;
        // Documents are given up only here, so that what is loaded stays for the rest of the call.
        cache.evict(events);
        key::write(scratch, collection, id.into());
        let slot = cache.load(self.view, scratch)?;
        if !self.transaction.is_empty() {
            self.transaction
                .copy(collection, scratch, cache.document(slot));
        }
        Ok(slot)
    }

    fn key(&self, slot: Slot) -> Key {
        self.documents.cache.key(slot).clone()
    }

    /// A document that was loaded just now, with what is staged.
    fn current(&self, slot: Slot) -> &Reduced {
        let cache = &self.documents.cache;
        let copied = match self.transaction.is_empty() {
            true => None,
            false => self.transaction.copied(cache.key(slot)),
        };
        copied.unwrap_or_else(|| cache.document(slot))
    }

    /// Asks `make` for the edits of a document that was loaded just now.
    fn edits(
        &mut self,
        slot: Slot,
        make: impl FnOnce(
            &Documents,
            &State,
            LogId,
            &mut dyn FnMut() -> [u8; 4],
        ) -> Result<Vec<Edit>, DbError>,
    ) -> Result<Vec<Edit>, DbError> {
        let Self {
            documents,
            transaction,
            rng,
            ..
        } = self;
        let cache = &documents.cache;
        let current = transaction
            .copied(cache.key(slot))
            .unwrap_or_else(|| cache.document(slot));
        let mut unique = || {
            let mut bytes = [0; 4];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        make(documents, &current.state, transaction.log, &mut unique)
    }

    /// Stages an update, unless nothing is edited.
    fn update(
        &mut self,
        collection: &str,
        slot: Slot,
        id: &DocumentId,
        life: u64,
        edits: Vec<Edit>,
    ) -> Result<bool, DbError> {
        if edits.is_empty() {
            return Ok(false);
        }
        let key = self.key(slot);
        let edits = self.transaction.absorb(collection, &key, edits)?;
        if !edits.is_empty() {
            let op = Op::update(id.clone(), life, edits)?;
            self.transaction.stage(collection, key, op)?;
        }
        Ok(true)
    }
}

/// As [`patch`], if it only concerns top-level registers, which is what most patches do: then each
/// field is looked at once.
fn patch_registers(
    state: &State,
    strategies: &Strategies,
    partial: &Ipld,
    own: LogId,
) -> Result<Option<Vec<Edit>>, DbError> {
    let Ipld::Map(fields) = partial else {
        return Ok(None);
    };
    let is_plain = |(name, value): (&String, &Ipld)| {
        !matches!(value, Ipld::Null | Ipld::Map(_))
            && matches!(strategies.of(name), None | Some(Strategy::Register))
    };
    if !fields.iter().all(is_plain) {
        return Ok(None);
    }
    let mut edits = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        if render_field(state, strategies, name).as_ref() != Some(value) {
            edits.push(overwrite(state, &[name], Some(value), own)?);
        }
    }
    Ok(Some(edits))
}

//! Writing: ops that become one record, staged and readable before it is written.

use std::collections::BTreeMap;

use leno_crdt_codec::json::{Action, Change, Edit, ElementId, Op, Position, Value};
use leno_crdt_codec::{Dot, LogId, Place, Seq, Stamp};
use leno_threads_core::OpRef;

use crate::body::{self, BODY_COLLECTIONS_MAX, BODY_OPS_MAX};
use crate::error::DbError;
use crate::key::Key;
use crate::reduced::Reduced;

mod field;
mod writer;

pub use field::{FieldChange, FieldEdit};
pub use writer::{Writer, Written};

/// Stands for the log of a writer who has none yet; no key of a log has these bytes.
const NO_LOG: LogId = LogId([0xff; 32]);

/// Stands for the seq of the record that will be written.
const SEQ_STAGED: Seq = Seq::MAX;

/// Writes to documents that will be one record: all of them happen, or none.
///
/// A [`Writer`] fills it and reads through it. Nothing of it shows elsewhere before
/// [`crate::Documents::commit`]; dropped before, it never was.
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

impl Transaction {
    /// Begins a transaction without writes.
    ///
    /// `member` is the own number, as for [`crate::Documents::apply`]; `log` the own data log, if there is
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
                group.ops.iter().map(|staged| &staged.op),
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
        let is_own = |edit: &Edit| {
            element_of(&edit.change)
                .is_some_and(|it| it.dot.log == self.log && it.dot.seq == SEQ_STAGED)
        };
        if !edits.iter().any(is_own) {
            return Ok(edits);
        }
        let (own, others): (Vec<_>, Vec<_>) = edits.into_iter().partition(is_own);
        let mut rewritten: BTreeMap<usize, Op> = BTreeMap::new();
        let group = self.ops(collection);
        for edit in own {
            let Some(element) = element_of(&edit.change) else {
                continue;
            };
            let value = edit.change.value().cloned();
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

/// The element of a list that a change is about, if it was there before.
fn element_of(change: &Change) -> Option<&ElementId> {
    if let Change::Replace { element, .. } | Change::Take { element } = change {
        return Some(element);
    }
    None
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
fn reinsert(op: Op, path: &[String], at: &Position, new: Option<Value>) -> Result<Op, DbError> {
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

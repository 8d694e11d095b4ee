//! Reading documents: one, many in order, all for a hash.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{Conflict, DocumentId, conflicts, render};
use leno_crdt_codec::{Place, STATE_HASH_LABEL};
use leno_threads_core::store::{Direction, StoreError, Table, View};
use sha2::{Digest, Sha256};

use super::Documents;
use crate::cache::damaged;
use crate::error::DbError;
use crate::key::{self, THREAD_BYTES};
use crate::reduced::{Head, Reduced};

/// A document as it shows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// Its content, a map.
    pub value: Ipld,
    /// Which life it lives, from 1: one more after each delete and new create.
    pub life: u64,
    /// The first create of this life in the total order. Its log tells who made the document; for a
    /// natural id that is provisional, as an earlier create may still come.
    pub created: Place,
    /// Whether a later version of this program changed it in ways that do not show here.
    pub is_stopped: bool,
}

/// Documents as a transaction would leave them.
pub(crate) type Staging<'a> = BTreeMap<&'a [u8], &'a Reduced>;

/// Where the newest state of a document was found.
enum Source<'a> {
    Memory(&'a Reduced),
    Row(&'a [u8]),
}

/// Called with each document until it says that it has enough.
type Visit<'a> = &'a mut dyn FnMut(&[u8], Source<'_>) -> Result<bool, StoreError>;

impl Documents {
    /// Reads one document.
    ///
    /// # Errors
    ///
    /// [`DbError::CollectionName`], [`DbError::Store`].
    pub fn get(
        &mut self,
        view: &dyn View,
        collection: &str,
        id: &DocumentId,
    ) -> Result<Option<Document>, DbError> {
        check_name(collection)?;
        let key = key::of(collection, id);
        let slot = self.cache.load(view, &key)?;
        let document = self.show(collection, id, self.cache.document(slot));
        self.cache.evict(&self.events);
        Ok(document)
    }

    /// What was written concurrently to a document and does not show, in the order of the fields.
    ///
    /// # Errors
    ///
    /// As [`Documents::get`].
    pub fn conflicts(
        &mut self,
        view: &dyn View,
        collection: &str,
        id: &DocumentId,
    ) -> Result<Vec<Conflict>, DbError> {
        check_name(collection)?;
        let key = key::of(collection, id);
        let slot = self.cache.load(view, &key)?;
        let conflicts = conflicts(&self.cache.document(slot).state);
        self.cache.evict(&self.events);
        Ok(conflicts)
    }

    /// Reads up to `limit` documents of a collection in the order of their ids, from the first one
    /// behind `after`.
    ///
    /// # Errors
    ///
    /// As [`Documents::get`].
    pub fn list(
        &self,
        view: &dyn View,
        collection: &str,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<Document>, DbError> {
        self.list_with(view, &Staging::new(), collection, after, limit)
    }

    pub(crate) fn list_with(
        &self,
        view: &dyn View,
        staging: &Staging<'_>,
        collection: &str,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<Document>, DbError> {
        check_name(collection)?;
        let (first, end) = key::bounds(collection);
        let after = after.map(|id| key::of(collection, id));
        let from = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(first.as_slice()),
        };
        let mut documents = Vec::new();
        if limit == 0 {
            return Ok(documents);
        }
        self.each(
            view,
            staging,
            (from, Bound::Excluded(&end)),
            &mut |key, source| {
                let id = key::id(key).ok_or_else(|| damaged(key, "its key"))?;
                let document = match source {
                    Source::Memory(reduced) => self.show(collection, &id, reduced),
                    Source::Row(row) => {
                        let (reduced, _) = Reduced::decode(row).map_err(|it| damaged(key, it))?;
                        self.show(collection, &id, &reduced)
                    }
                };
                documents.extend(document);
                Ok(documents.len() < limit)
            },
        )?;
        Ok(documents)
    }

    /// Counts the documents of a collection; reads all their rows.
    ///
    /// # Errors
    ///
    /// As [`Documents::get`].
    pub fn count(&self, view: &dyn View, collection: &str) -> Result<u64, DbError> {
        check_name(collection)?;
        let (first, end) = key::bounds(collection);
        let bounds = (
            Bound::Included(first.as_slice()),
            Bound::Excluded(end.as_slice()),
        );
        let mut count = 0;
        self.each(view, &Staging::new(), bounds, &mut |key, source| {
            count += u64::from(match source {
                Source::Memory(reduced) => reduced.state.life().is_some(),
                Source::Row(row) => {
                    let head = Head::decode(row).map_err(|it| damaged(key, it))?;
                    if head.waiting.is_empty() {
                        head.life > 0
                    } else {
                        let (reduced, _) = Reduced::decode(row).map_err(|it| damaged(key, it))?;
                        reduced.state.life().is_some()
                    }
                }
            });
            Ok(true)
        })?;
        Ok(count)
    }

    /// Hashes the states of all documents of the thread: equal states give equal hashes, and others
    /// do not, as far as SHA-256 goes. Reads all their rows.
    ///
    /// # Shape
    ///
    /// As `leno_crdt_codec::state_hash`, over the documents that any op changed. In the place of the
    /// encoded id stands 0x00 and the 16 bytes of a generated one, or 0x01 and the UTF-8 of a natural
    /// one. Ops that wait for a later version follow the state of their document.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn state_hash(&self, view: &dyn View) -> Result<[u8; 32], StoreError> {
        let mut hash = Sha256::new();
        hash.update(STATE_HASH_LABEL);
        // Collections are ASCII, so this is above all keys of documents.
        let bounds = (Bound::Unbounded, Bound::Excluded(&[0xff_u8][..]));
        self.each(view, &Staging::new(), bounds, &mut |key, source| {
            let state = match source {
                Source::Memory(reduced) if reduced.is_empty() => return Ok(true),
                Source::Memory(reduced) => reduced.hashed(),
                Source::Row(row) => {
                    let head = Head::decode(row).map_err(|it| damaged(key, it))?;
                    match head.waiting.is_empty() {
                        true => head.state.to_vec(),
                        false => {
                            let document = Reduced::decode(row).map_err(|it| damaged(key, it))?.0;
                            document.hashed()
                        }
                    }
                }
            };
            let (collection, id) = key::split(key).ok_or_else(|| damaged(key, "its key"))?;
            for part in [collection.as_bytes(), id, &state] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            Ok(true)
        })?;
        Ok(hash.finalize().into())
    }

    pub(crate) fn show(
        &self,
        collection: &str,
        id: &DocumentId,
        document: &Reduced,
    ) -> Option<Document> {
        let state = &document.state;
        Some(Document {
            id: id.clone(),
            life: state.life()?,
            created: state.creation()?.place,
            value: render(state, self.strategies(collection))?,
            is_stopped: document.is_stopped(),
        })
    }

    /// Visits the newest state of all documents between two keys, in order, while `visit` says so.
    fn each(
        &self,
        view: &dyn View,
        staging: &Staging<'_>,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let staged = staging
            .range::<[u8], _>((from, to))
            .map(|(key, it)| (*key, *it));
        let mut newer = merge(staged, self.cache.fresh(from, to)).peekable();
        let row_key = |key: &[u8]| key::row(self.thread, key);
        let to = to.map(row_key);
        let mut from = match from {
            // All keys of documents of the thread; the number alone is below them.
            Bound::Unbounded => Bound::Excluded(row_key(&[])),
            Bound::Included(_) | Bound::Excluded(_) => from.map(row_key),
        };
        let mut outcome = Ok(true);
        loop {
            let mut large = None;
            let bounds = (
                from.as_ref().map(Vec::as_slice),
                to.as_ref().map(Vec::as_slice),
            );
            view.scan(
                Table::Documents,
                bounds.0,
                bounds.1,
                Direction::Forward,
                &mut |row_key, row| {
                    let key = row_key.get(THREAD_BYTES..).unwrap_or_default();
                    outcome = visit_below(&mut newer, key, visit);
                    if !matches!(outcome, Ok(true)) {
                        return ControlFlow::Break(());
                    }
                    outcome = match newer.next_if(|(newer, _)| *newer == key) {
                        Some((_, reduced)) => visit(key, Source::Memory(reduced)),
                        None if Head::parts(row) == Some(1) => visit(key, Source::Row(row)),
                        None => {
                            // Its other rows cannot be read within a scan.
                            large = Some((row_key.to_vec(), row.to_vec()));
                            return ControlFlow::Break(());
                        }
                    };
                    match outcome {
                        Ok(true) => ControlFlow::Continue(()),
                        _ => ControlFlow::Break(()),
                    }
                },
            )?;
            if !outcome.clone()? {
                return Ok(());
            }
            let Some((row_key, row)) = large else { break };
            let key = row_key.get(THREAD_BYTES..).unwrap_or_default();
            let joined = self.cache.join(view, key, row)?;
            if !visit(key, Source::Row(&joined))? {
                return Ok(());
            }
            from = Bound::Excluded(row_key);
        }
        for (key, reduced) in newer {
            if !visit(key, Source::Memory(reduced))? {
                break;
            }
        }
        Ok(())
    }
}

type Newer<'a> = (&'a [u8], &'a Reduced);

/// Visits what lies below a key.
fn visit_below<'a>(
    newer: &mut Peekable<impl Iterator<Item = Newer<'a>>>,
    key: &[u8],
    visit: Visit<'_>,
) -> Result<bool, StoreError> {
    while let Some((key, reduced)) = newer.next_if(|(newer, _)| *newer < key) {
        if !visit(key, Source::Memory(reduced))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Merges two ascending sequences; of two items with one key, the first sequence's is taken.
fn merge<'a>(
    first: impl Iterator<Item = Newer<'a>>,
    second: impl Iterator<Item = Newer<'a>>,
) -> impl Iterator<Item = Newer<'a>> {
    let (mut first, mut second) = (first.peekable(), second.peekable());
    std::iter::from_fn(move || match (first.peek(), second.peek()) {
        (Some((a, _)), Some((b, _))) => {
            let (a, b) = (*a, *b);
            if a == b {
                second.next();
            }
            if a <= b { first.next() } else { second.next() }
        }
        (Some(_), None) => first.next(),
        (None, _) => second.next(),
    })
}

pub(crate) fn check_name(collection: &str) -> Result<(), DbError> {
    if key::is_collection_name(collection) {
        return Ok(());
    }
    Err(DbError::CollectionName {
        name: collection.chars().take(200).collect(),
    })
}

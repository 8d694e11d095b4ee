//! Documents, fields and patches turned into the ops of a transaction.

use std::fmt;

use ipld_core::ipld::Ipld;
use leno_crdt_codec::LogId;
use leno_crdt_codec::json::{DocumentId, Edit, Op, State, diff, patch};
use leno_threads_core::OpRef;
use leno_threads_core::store::View;
use rand_core::CryptoRng;

use super::Transaction;
use crate::cache::Slot;
use crate::documents::{Document, Documents, Staging, check_name};
use crate::error::DbError;
use crate::id::{is_of_member, new_id};
use crate::key::{self, Key};
use crate::reduced::Reduced;

/// Writes to a [`Transaction`] and reads through it; made by [`Documents::writer`].
///
/// # Examples
///
/// ```
/// use ipld_core::ipld;
/// use leno_threads_core::store::{MemoryStore, Store};
/// use leno_threads_core::{OpRef, RecordId};
/// use leno_threads_db::{
///     Definition, DocumentId, Documents, FieldChange, FieldEdit, Strategies, Strategy, Transaction,
/// };
/// # use leno_threads_core::RosterOp;
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
/// # let alice = OpRef { record: RecordId([1; 32]), op: 0 };
///
/// let store = MemoryStore::new();
/// let view = store.view()?;
/// let mut documents = Documents::load(&*view, 0)?;
/// let strategies = Strategies::default()
///     .field("plays", Strategy::Counter)
///     .field("verses", Strategy::List);
/// let definition = Definition { version: 1, strategies };
/// # let RosterOp::Fact { version, value, .. } = definition.to_fact("songs")? else { unreachable!() };
/// documents.define("songs", version, &value)?; // As the roster has it.
///
/// let mut transaction = Transaction::new(alice, None, 0);
/// let mut writer = documents.writer(&*view, &mut transaction, &mut rng);
/// let id = DocumentId::natural("blue")?;
/// writer.put("songs", Some(&id), &ipld!({"title": "Blue", "verses": ["one"]}))?;
/// writer.edit("songs", &id, &[
///     FieldEdit::new(["plays"], FieldChange::Increment(1)),
///     FieldEdit::new(["verses"], FieldChange::Insert { index: 0, value: "intro".into() }),
/// ])?;
/// let song = writer.get("songs", &id)?.expect("it was put");
/// let expected = ipld!({"title": "Blue", "plays": 1, "verses": ["intro", "one"]});
/// assert_eq!(song.value, expected);
///
/// // What shows already is not written again.
/// assert!(!writer.put("songs", Some(&id), &expected)?.is_changed);
/// assert_eq!(transaction.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer<'a> {
    documents: &'a mut Documents,
    view: &'a dyn View,
    pub(super) transaction: &'a mut Transaction,
    rng: &'a mut dyn CryptoRng,
}

/// What became of a put.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// The document.
    pub id: DocumentId,
    /// Whether anything is written: not if the document showed the value already.
    pub is_changed: bool,
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
        let slot = self.load_any(collection, id)?;
        let member = self.transaction.member;
        // A new life begins whatever waits.
        if self.current(slot).state.life().is_some() {
            self.check_not_stopped(slot, collection, id)?;
        }
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
            Ok(patch(state, strategies, partial, log, unique)?)
        })?;
        self.update(collection, slot, id, life, edits)
    }

    /// Deletes a document with all that is ever written to this life of it, also one that is stopped at
    /// an op of an unknown kind. Tells whether anything is written: not if there is no such document.
    ///
    /// # Errors
    ///
    /// [`DbError`]; nothing was staged.
    pub fn delete(&mut self, collection: &str, id: &DocumentId) -> Result<bool, DbError> {
        check_name(collection)?;
        let slot = self.load_any(collection, id)?;
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
        self.check_not_stopped(slot, collection, id)?;
        Ok(slot)
    }

    fn check_not_stopped(
        &self,
        slot: Slot,
        collection: &str,
        id: &DocumentId,
    ) -> Result<(), DbError> {
        if self.current(slot).is_stopped() {
            return Err(DbError::Stopped {
                collection: collection.to_owned(),
                id: id.clone(),
            });
        }
        Ok(())
    }

    pub(super) fn load_alive(
        &mut self,
        collection: &str,
        id: &DocumentId,
    ) -> Result<(Slot, u64), DbError> {
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

    pub(super) fn key(&self, slot: Slot) -> Key {
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
    pub(super) fn edits(
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
    pub(super) fn update(
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

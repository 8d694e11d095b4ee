//! Folding documents again, because records that were folded do not stand any more.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use leno_crdt_codec::{LogId, Seq};
use leno_threads_core::OpRef;
use leno_threads_core::store::{StoreError, View};
use leno_threads_core::thread::Opened;

use super::Documents;
use crate::body::Body;
use crate::cursor::Arrival;
use crate::key::{self, Key};

/// Records that stand otherwise than before, and the documents that they write to.
///
/// # Examples
///
/// What [`Documents::begin_again`] and [`Documents::apply_again`] are for, in this order:
///
/// ```
/// use ipld_core::ipld;
/// use leno_crdt_codec::{LogId, Stamp};
/// use leno_threads_core::store::{MemoryStore, Store};
/// use leno_threads_core::thread::Appended;
/// use leno_threads_core::{OpRef, RecordId};
/// use leno_threads_db::{DocumentId, Documents, Refold, Transaction};
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
/// # let (alice, log) = (OpRef { record: RecordId([1; 32]), op: 0 }, LogId([2; 32]));
/// let store = MemoryStore::new();
/// let view = store.view()?;
/// let mut documents = Documents::load(&*view, 0)?;
/// let id = DocumentId::natural("blue")?;
/// let mut transaction = Transaction::new(alice, Some(log), 0);
/// let mut writer = documents.writer(&*view, &mut transaction, &mut rng);
/// writer.put("songs", Some(&id), &ipld!({"plays": 1}))?;
/// documents.commit(&*view, transaction, &Appended { log, seq: 1, stamp: Stamp(1) })?;
///
/// // The record does not stand any more.
/// let mut refold = Refold::new();
/// refold.fell(log, 1..=1);
/// // For each record that fell or rose: `refold.add(&opened)`.
/// documents.begin_again(&*view, &refold)?;
/// // For each record that stands: `documents.apply_again(&*view, &opened, member, &refold)?`.
/// assert_eq!(documents.newest(&log), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Refold {
    keys: BTreeSet<Key>,
    fallen: Vec<(LogId, RangeInclusive<Seq>)>,
}

impl Refold {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that records do not stand any more.
    pub fn fell(&mut self, log: LogId, seqs: RangeInclusive<Seq>) {
        self.fallen.push((log, seqs));
    }

    /// Notes the documents of a record that stands otherwise than before.
    pub fn add(&mut self, opened: &Opened<'_>) {
        // What is not folded anyway is in no document.
        let Ok(body) = Body::decode(opened.plaintext) else {
            return;
        };
        for op in std::iter::once(&body.first).chain(&body.rest) {
            let mut key = Vec::new();
            key::write(&mut key, op.collection, op.document);
            self.keys.insert(key.into());
        }
    }

    /// Tells whether no document is concerned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }
}

impl Documents {
    /// Empties the documents of a [`Refold`]. All records that stand are to be folded into them again, by
    /// [`Documents::apply_again`], before anything is read or flushed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn begin_again(&mut self, view: &dyn View, refold: &Refold) -> Result<(), StoreError> {
        for key in &refold.keys {
            let slot = self.cache.load(view, key)?;
            if let Some((collection, _)) = key::split(key) {
                let collection = collection.to_owned();
                self.touch(&collection, slot);
            }
            self.cache.empty(slot);
        }
        for (log, seqs) in &refold.fallen {
            self.cursors.take_out(*log, seqs);
        }
        // If a flush were left for later, a crash would bring back what fell.
        self.is_late = true;
        Ok(())
    }

    /// Folds a record into those of its documents that begin again, or into all if it is news.
    ///
    /// # Errors
    ///
    /// As [`Documents::apply`].
    pub fn apply_again(
        &mut self,
        view: &dyn View,
        opened: &Opened<'_>,
        member: Option<OpRef>,
        refold: &Refold,
    ) -> Result<(), StoreError> {
        let record = opened.record;
        if self.cursors.judge(&record.log, record.seq) != Arrival::Duplicate {
            return self.apply(view, opened, member);
        }
        let Ok(body) = Body::decode(opened.plaintext) else {
            return Ok(());
        };
        let mut ops = std::iter::once(&body.first).chain(&body.rest);
        let concerns = ops.any(|op| {
            key::write(&mut self.scratch, op.collection, op.document);
            refold.contains(&self.scratch)
        });
        if concerns {
            // Whether it can be folded at all was told when it came.
            let _ = self.apply_many(view, opened, member, &body, Some(refold))?;
        }
        Ok(())
    }
}

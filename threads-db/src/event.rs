//! What happened to documents, for whoever watches.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::DocumentId;
use leno_threads_core::RecordRef;

use crate::SkipReason;
use crate::key::Key;

/// Most events besides changes that wait to be taken; further ones are counted.
pub const EVENTS_MAX: usize = 1_024;

/// What happened to documents since events were last taken.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A document of a watched collection shows something else than before.
    Changed {
        /// The collection.
        collection: String,
        /// The document.
        id: DocumentId,
        /// What it showed; nothing if it did not exist.
        before: Option<Ipld>,
        /// What it shows; nothing if it does not exist any more.
        after: Option<Ipld>,
    },
    /// A record is not folded into documents.
    Skipped {
        /// The record.
        record: RecordRef,
        /// Why.
        reason: SkipReason,
    },
    /// An op has no effect, alone: the others of its record stand.
    Void {
        /// The record.
        record: RecordRef,
        /// The op in it.
        index: u32,
        /// The collection.
        collection: String,
        /// The document.
        id: DocumentId,
        /// Why.
        reason: VoidReason,
    },
    /// A document has an op that only a later version of this program understands. It shows what the
    /// known ops add up to, and is not written to until the program is updated.
    Stopped {
        /// The record.
        record: RecordRef,
        /// The op in it.
        index: u32,
        /// The collection.
        collection: String,
        /// The document.
        id: DocumentId,
        /// The kind of op, or of change within it.
        kind: u64,
    },
    /// More happened than [`EVENTS_MAX`]; no change to a watched document is among it.
    Dropped {
        /// How many events are not listed.
        count: u64,
    },
}

/// Why an op has no effect.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[non_exhaustive]
pub enum VoidReason {
    /// It creates a document with a generated id, and does not show that its author made the id.
    #[error("its author did not make the id of the document")]
    NotAuthor,
    /// It names a life of the document that cannot have begun by its stamp.
    #[error("the document cannot have lived that often")]
    LifeAhead,
}

/// Who watches what, and what happened.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// How often each collection is watched.
    watched: BTreeMap<String, usize>,
    /// Watched documents that were written to, and what they showed before.
    touched: BTreeMap<Key, Option<Ipld>>,
    others: Vec<Event>,
    dropped: u64,
}

impl Events {
    pub(crate) fn watch(&mut self, collection: &str) {
        *self.watched.entry(collection.to_owned()).or_default() += 1;
    }

    pub(crate) fn unwatch(&mut self, collection: &str) {
        if let Some(count) = self.watched.get_mut(collection) {
            *count -= 1;
            if *count == 0 {
                self.watched.remove(collection);
            }
        }
    }

    #[inline]
    pub(crate) fn is_watched(&self, collection: &str) -> bool {
        !self.watched.is_empty() && self.watched.contains_key(collection)
    }

    /// Notes what a document showed, unless that is known.
    pub(crate) fn touch(&mut self, key: &Key, before: impl FnOnce() -> Option<Ipld>) {
        if let Entry::Vacant(entry) = self.touched.entry(key.clone()) {
            entry.insert(before());
        }
    }

    /// Tells whether a document must stay in memory until events are taken.
    pub(crate) fn is_touched(&self, key: &Key) -> bool {
        !self.touched.is_empty() && self.touched.contains_key(key)
    }

    pub(crate) fn push(&mut self, event: Event) {
        if self.others.len() < EVENTS_MAX {
            self.others.push(event);
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.others.is_empty()
    }

    /// Takes out the touched documents, and then all other events.
    pub(crate) fn take(&mut self) -> (BTreeMap<Key, Option<Ipld>>, Vec<Event>) {
        let mut others = std::mem::take(&mut self.others);
        if self.dropped > 0 {
            others.push(Event::Dropped {
                count: std::mem::take(&mut self.dropped),
            });
        }
        (std::mem::take(&mut self.touched), others)
    }
}

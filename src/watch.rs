//! Watches: the changes of one collection, as they become durable.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_channel::mpsc;
use futures_util::Stream;
use ipld_core::ipld::Ipld;
use leno_threads_core::ThreadId;
use leno_threads_db::{DocumentId, Event as DbEvent};
use serde::de::DeserializeOwned;

use crate::convert::from_ipld;
use crate::error::Error;

/// Most changes that wait for a slow watcher. Beyond that it gets [`Change::Resync`].
pub const CHANGES_MAX: usize = 4096;

/// A change of a watched collection.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Change<T> {
    /// A document was created or changed.
    Put {
        /// Which.
        id: DocumentId,
        /// What it was; nothing if it is new.
        before: Option<T>,
        /// What it is.
        after: T,
    },
    /// A document was deleted.
    Deleted {
        /// Which.
        id: DocumentId,
        /// What it was.
        before: Option<T>,
    },
    /// Changes were dropped here because this watcher was slow: read the collection again.
    Resync,
}

/// The changes of a collection, in the order in which they became durable here.
#[derive(Debug)]
pub struct Watch<T> {
    receiver: mpsc::Receiver<RawChange>,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Watch<T> {
    pub(crate) fn new(receiver: mpsc::Receiver<RawChange>) -> Self {
        Self {
            receiver,
            kind: PhantomData,
        }
    }

    /// The next change, or nothing once the peer is closed.
    ///
    /// # Errors
    ///
    /// [`Error::OtherForm`] if a document does not have the form of `T`; later changes still come.
    pub async fn next(&mut self) -> Option<Result<Change<T>, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<T: DeserializeOwned> Stream for Watch<T> {
    type Item = Result<Change<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let change = Pin::new(&mut self.receiver).poll_next(context);
        change.map(|change| change.map(RawChange::read))
    }
}

#[derive(Clone, Debug)]
pub(crate) enum RawChange {
    Changed {
        id: DocumentId,
        before: Option<Ipld>,
        after: Option<Ipld>,
    },
    Resync,
}

impl RawChange {
    fn read<T: DeserializeOwned>(self) -> Result<Change<T>, Error> {
        let Self::Changed { id, before, after } = self else {
            return Ok(Change::Resync);
        };
        // What it was may have had another form; that is no reason to withhold what it is.
        let before = before.and_then(|before| from_ipld(before).ok());
        match after {
            Some(after) => Ok(Change::Put {
                id,
                before,
                after: from_ipld(after)?,
            }),
            None => Ok(Change::Deleted { id, before }),
        }
    }
}

/// Who watches what.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    watchers: BTreeMap<(ThreadId, String), Vec<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    sender: mpsc::Sender<RawChange>,
    lost: bool,
}

impl Watches {
    pub(crate) fn add(
        &mut self,
        thread: ThreadId,
        collection: String,
    ) -> mpsc::Receiver<RawChange> {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        let watchers = self.watchers.entry((thread, collection)).or_default();
        watchers.push(Watcher {
            sender,
            lost: false,
        });
        receiver
    }

    /// Hands a change to its watchers. Returns events that are none.
    pub(crate) fn tell(&mut self, thread: ThreadId, event: DbEvent) -> Option<DbEvent> {
        let DbEvent::Changed {
            collection,
            id,
            before,
            after,
        } = event
        else {
            return Some(event);
        };
        let key = (thread, collection);
        if let Some(watchers) = self.watchers.get_mut(&key) {
            let change = RawChange::Changed { id, before, after };
            watchers.retain_mut(|watcher| watcher.tell(&change));
        }
        None
    }
}

impl Watcher {
    /// Returns whether the watcher is still there.
    fn tell(&mut self, change: &RawChange) -> bool {
        if self.lost {
            match self.sender.try_send(RawChange::Resync) {
                Ok(()) => self.lost = false,
                Err(error) => return !error.is_disconnected(),
            }
            // The change at hand is part of what the watcher reads again.
            return true;
        }
        match self.sender.try_send(change.clone()) {
            Ok(()) => true,
            Err(error) if error.is_disconnected() => false,
            Err(_) => {
                self.lost = true;
                true
            }
        }
    }
}

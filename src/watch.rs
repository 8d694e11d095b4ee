//! Watches: the changes of one collection, as they become durable.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use ipld_core::ipld::Ipld;
use leno_threads_core::ThreadId;
use leno_threads_db::{DocumentId, Event as DbEvent};
use serde::de::DeserializeOwned;

use crate::convert::from_ipld;
use crate::error::Error;
use crate::queue::{Next, Receiver, Sender, queue};

/// Most changes that wait for a slow watcher. Beyond that it gets [`Change::Resync`] in their place.
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
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use leno::{Change, ManualClock, Peer};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
/// struct Song {
///     title: String,
/// }
///
/// let (peer, driver) = Peer::builder().clock(ManualClock::new(0)).build().await?;
/// let app = async {
///     let songs = peer.create_thread("band").await?.collection::<Song>("songs");
///     let mut live = songs.watch().await?;
///
///     let song = Song { title: "Psalm 1".to_owned() };
///     let id = songs.insert(&song).await?;
///     songs.delete(&id).await?;
///
///     let (before, after) = (None, song.clone());
///     let change = live.next().await.transpose()?;
///     assert_eq!(change, Some(Change::Put { id: id.clone(), before, after }));
///     let change = live.next().await.transpose()?;
///     assert_eq!(change, Some(Change::Deleted { id, before: Some(song) }));
///     peer.close().await
/// };
/// futures_util::try_join!(driver.run(), app)?;
/// # Ok(()) }) }
/// ```
#[derive(Debug)]
pub struct Watch<T> {
    receiver: Receiver<RawChange>,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Watch<T> {
    pub(crate) fn new(receiver: Receiver<RawChange>) -> Self {
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
        let next = self.receiver.poll_next(context);
        next.map(|next| {
            next.map(|next| match next {
                Next::Item(change) => change.read(),
                Next::Lost(_) => Ok(Change::Resync),
            })
        })
    }
}

/// A change whose values are not read yet.
#[derive(Clone, Debug)]
pub(crate) struct RawChange {
    id: DocumentId,
    before: Option<Ipld>,
    after: Option<Ipld>,
}

impl RawChange {
    fn read<T: DeserializeOwned>(self) -> Result<Change<T>, Error> {
        let Self { id, before, after } = self;
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
    watchers: BTreeMap<(ThreadId, String), Vec<Sender<RawChange>>>,
}

/// What is left of an event after the watchers had their part.
pub(crate) enum Told {
    /// It is no change.
    Other(Box<DbEvent>),
    /// It was a change of this collection, and so many of its watchers are gone.
    Change { collection: String, gone: usize },
}

impl Watches {
    pub(crate) fn add(&mut self, thread: ThreadId, collection: String) -> Receiver<RawChange> {
        let (sender, receiver) = queue(CHANGES_MAX);
        let watchers = self.watchers.entry((thread, collection)).or_default();
        watchers.push(sender);
        receiver
    }

    /// Hands a change to its watchers.
    pub(crate) fn tell(&mut self, thread: ThreadId, event: DbEvent) -> Told {
        let DbEvent::Changed {
            collection,
            id,
            before,
            after,
        } = event
        else {
            return Told::Other(Box::new(event));
        };
        let key = (thread, collection);
        let mut gone = 0;
        if let Some(watchers) = self.watchers.get_mut(&key) {
            let change = RawChange { id, before, after };
            let were = watchers.len();
            watchers.retain(|watcher| watcher.push(|| change.clone()));
            gone = were - watchers.len();
            if watchers.is_empty() {
                self.watchers.remove(&key);
            }
        }
        let (_, collection) = key;
        Told::Change { collection, gone }
    }
}

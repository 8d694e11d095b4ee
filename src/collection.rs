//! The handle of a collection.

use std::fmt;
use std::marker::PhantomData;

use leno_crdt_codec::json::{Conflict, DocumentId};
use leno_threads_db::FieldEdit;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::convert::{from_ipld, to_ipld};
use crate::driver::Command;
use crate::error::Error;
use crate::thread::Thread;
use crate::watch::Watch;

/// A collection of documents of type `T` in a thread. A handle: cheap to clone.
///
/// `T` is any type that serde turns into a map. Use [`Ipld`](crate::Ipld) for documents of any form.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use leno::{ManualClock, Peer};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
/// struct Song {
///     title: String,
///     plays: u32,
/// }
///
/// let (peer, driver) = Peer::builder().clock(ManualClock::new(0)).build().await?;
/// let app = async {
///     let songs = peer.create_thread("band").await?.collection::<Song>("songs");
///     let song = Song { title: "Psalm 1".to_owned(), plays: 0 };
///     let id = songs.insert(&song).await?;
///
///     // Only the field that changed is written, so it merges with edits of others.
///     songs.update(&id, |song| song.plays += 1).await?;
///     assert_eq!(songs.get(&id).await?, Some(Song { plays: 1, ..song }));
///
///     assert!(songs.delete(&id).await?);
///     assert_eq!(songs.count().await?, 0);
///     peer.close().await
/// };
/// futures_util::try_join!(driver.run(), app)?;
/// # Ok(()) }) }
/// ```
pub struct Collection<T> {
    thread: Thread,
    name: String,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self {
            thread: self.thread.clone(),
            name: self.name.clone(),
            kind: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Collection<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Collection")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<T> Collection<T> {
    pub(crate) fn new(thread: Thread, name: &str) -> Self {
        Self {
            thread,
            name: name.to_owned(),
            kind: PhantomData,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes a document, if it is there. Tells whether it was.
    ///
    /// # Errors
    ///
    /// [`Error`]; the document is as it was.
    pub async fn delete(&self, id: &DocumentId) -> Result<bool, Error> {
        let (name, id) = (self.name.clone(), id.clone());
        self.thread
            .transact(move |transaction| transaction.delete(&name, &id))
            .await
    }

    /// Edits single fields: counts up, adds to a set, inserts into a list. Tells whether anything
    /// was written.
    ///
    /// # Errors
    ///
    /// [`Error`]; the document is as it was.
    pub async fn edit(&self, id: &DocumentId, edits: Vec<FieldEdit>) -> Result<bool, Error> {
        let (name, id) = (self.name.clone(), id.clone());
        self.thread
            .transact(move |transaction| transaction.edit(&name, &id, &edits))
            .await
    }

    /// Writes the given fields of a document and leaves the others; null takes a field away
    /// (RFC 7396). Tells whether anything was written.
    ///
    /// # Errors
    ///
    /// [`Error`]; the document is as it was.
    pub async fn patch<P: Serialize + ?Sized>(
        &self,
        id: &DocumentId,
        partial: &P,
    ) -> Result<bool, Error> {
        let (name, id, partial) = (self.name.clone(), id.clone(), to_ipld(partial)?);
        self.thread
            .transact(move |transaction| transaction.patch(&name, &id, &partial))
            .await
    }

    /// What was written concurrently to a document and does not show, until it is overwritten.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn conflicts(&self, id: &DocumentId) -> Result<Vec<Conflict>, Error> {
        let (name, id, thread) = (self.name.clone(), id.clone(), self.thread.id());
        self.thread
            .peer()
            .call(move |work| {
                let view = work.view;
                Ok(work.documents(thread)?.conflicts(view, &name, &id)?)
            })
            .await
    }

    /// How many documents there are.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn count(&self) -> Result<u64, Error> {
        let (name, thread) = (self.name.clone(), self.thread.id());
        self.thread
            .peer()
            .call(move |work| {
                let view = work.view;
                Ok(work.documents(thread)?.count(view, &name)?)
            })
            .await
    }
}

impl<T: Serialize> Collection<T> {
    /// Writes a new document and returns its id, which sorts by time and which only this member can
    /// have made.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing was written.
    pub async fn insert(&self, value: &T) -> Result<DocumentId, Error> {
        let (name, value) = (self.name.clone(), to_ipld(value)?);
        self.thread
            .transact(move |transaction| transaction.insert(&name, &value))
            .await
    }

    /// Makes a document show a value: creates it, or writes the fields that differ. Tells whether
    /// anything was written.
    ///
    /// # Errors
    ///
    /// [`Error`]; the document is as it was.
    pub async fn put(&self, id: &DocumentId, value: &T) -> Result<bool, Error> {
        let (name, id, value) = (self.name.clone(), id.clone(), to_ipld(value)?);
        self.thread
            .transact(move |transaction| transaction.put(&name, &id, &value))
            .await
    }

    /// Puts many documents, each as a record of its own, in one commit under one signature.
    ///
    /// # Errors
    ///
    /// [`Error`]. Documents before the one that is refused are written.
    pub async fn put_all(&self, documents: Vec<(DocumentId, T)>) -> Result<(), Error> {
        let (name, thread) = (self.name.clone(), self.thread.id());
        let documents = documents
            .into_iter()
            .map(|(id, value)| Ok((id, to_ipld(&value)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        self.thread
            .peer()
            .call(move |work| {
                for (id, value) in &documents {
                    work.transact(thread, |transaction| transaction.put(&name, id, value))?;
                }
                Ok(())
            })
            .await
    }
}

impl<T: DeserializeOwned> Collection<T> {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::OtherForm`] if the document does not have the form of `T`.
    pub async fn get(&self, id: &DocumentId) -> Result<Option<T>, Error> {
        let (name, id, thread) = (self.name.clone(), id.clone(), self.thread.id());
        let document = self
            .thread
            .peer()
            .call(move |work| {
                let view = work.view;
                Ok(work.documents(thread)?.get(view, &name, &id)?)
            })
            .await?;
        document
            .map(|document| from_ipld(document.value))
            .transpose()
    }

    /// Reads up to `limit` documents in the order of their ids, from the first one behind `after`.
    ///
    /// # Errors
    ///
    /// As [`Collection::get`].
    pub async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, T)>, Error> {
        let (name, after, thread) = (self.name.clone(), after.cloned(), self.thread.id());
        let documents = self
            .thread
            .peer()
            .call(move |work| {
                let view = work.view;
                Ok(work
                    .documents(thread)?
                    .list(view, &name, after.as_ref(), limit)?)
            })
            .await?;
        let read =
            |document: leno_threads_db::Document| Ok((document.id, from_ipld(document.value)?));
        documents.into_iter().map(read).collect()
    }

    /// The changes of the collection from now on, as they become durable here.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn watch(&self) -> Result<Watch<T>, Error> {
        let (name, thread) = (self.name.clone(), self.thread.id());
        let (reply, answer) = futures_channel::oneshot::channel();
        let command = Command::Watch(Box::new(move |work, watches| {
            let result = work.documents(thread).map(|documents| {
                documents.watch(&name);
                watches.add(thread, name)
            });
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(result);
        }));
        self.thread.peer().send(command).await?;
        Ok(Watch::new(
            answer.await.map_err(|_| self.thread.peer().gone())??,
        ))
    }
}

impl<T: DeserializeOwned + Serialize + Send + 'static> Collection<T> {
    /// Reads a document, changes it, and writes the fields that differ, with nothing in between.
    /// Tells whether anything was written.
    ///
    /// `change` runs inside the peer and must not block. What it returns is dropped.
    ///
    /// # Errors
    ///
    /// [`Error`]; the document is as it was. [`Error::Db`] if there is none.
    ///
    /// # Panics
    ///
    /// If `change` does; nothing is written.
    pub async fn update<R>(
        &self,
        id: &DocumentId,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<bool, Error> {
        let (name, id) = (self.name.clone(), id.clone());
        self.thread
            .transact(move |transaction| {
                let missing = || leno_threads_db::DbError::NotFound {
                    collection: name.clone(),
                    id: id.clone(),
                };
                let mut value: T = transaction.get(&name, &id)?.ok_or_else(missing)?;
                change(&mut value);
                transaction.put(&name, &id, &value)
            })
            .await
    }
}

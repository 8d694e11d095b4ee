//! The handle of a thread.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use leno_identity::Did;
use leno_threads_core::store::Overlay;
use leno_threads_core::thread::{AppendError, LogStatus, Quarantine, Quota, Thread as CoreThread};
use leno_threads_core::{
    FrameOp, GrantOp, Now, RecordRef, Role, RosterOp, Scope, SeatId, THREAD_DOMAIN, ThreadId,
};
use leno_threads_db::{Definition, DocumentId, FieldEdit, Transaction as DbTransaction, Writer};
use leno_transport_trait::PeerId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::collection::Collection;
use crate::convert::{from_ipld, to_ipld};
use crate::driver::SyncReport;
use crate::error::Error;
use crate::member::{commitment, proven};
use crate::peer::{Peer, salt};
use crate::text::{ADDRESSES_MAX, Card, Ticket};
use crate::work::{Work, member_of_grant, member_of_log, thread_mut};

/// A thread of a peer. A handle: cheap to clone.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use std::collections::BTreeMap;
/// use leno::{ManualClock, Peer};
///
/// let (peer, driver) = Peer::builder().clock(ManualClock::new(0)).build().await?;
/// let app = async {
///     let band = peer.create_thread("band").await?;
///     let title = |text: &str| BTreeMap::from([("title".to_owned(), text.to_owned())]);
///
///     // Two documents in one record: others see both or none.
///     let both = band.transact(move |transaction| {
///         transaction.insert("news", &title("A new song"))?;
///         transaction.insert("songs", &title("Psalm 96"))
///     });
///     let song = both.await?;
///     let songs = band.collection::<BTreeMap<String, String>>("songs");
///     assert_eq!(songs.get(&song).await?, Some(title("Psalm 96")));
///
///     // Later, or after a restart, it is found by its id.
///     let again = peer.thread(band.id()).await?;
///     assert_eq!(again.state_hash().await?, band.state_hash().await?);
///     peer.close().await
/// };
/// futures_util::try_join!(driver.run(), app)?;
/// # Ok(()) }) }
/// ```
#[derive(Clone, Debug)]
pub struct Thread {
    peer: Peer,
    id: ThreadId,
}

/// A member's seat in a thread.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// The seat.
    pub seat: SeatId,
    /// Its role.
    pub role: Role,
    /// What the member wants to be called; empty if nothing was said.
    pub name: String,
    /// Who the member is, if a certificate proves it that the grant of the seat committed to.
    pub identity: Option<Did>,
    /// Whether it is this peer's own seat.
    pub is_self: bool,
}

impl Member {
    fn of(thread: &CoreThread, seat: SeatId, now: Now) -> Option<Self> {
        let role = thread.governance().role(seat)?;
        let fact = thread.roster().seat(&seat);
        let identity = proven(thread, seat, now);
        Some(Self {
            seat,
            role,
            name: fact.map(|fact| fact.name.clone()).unwrap_or_default(),
            identity: identity.map(|it| it.identity().to_did()),
            is_self: seat == thread.seat().id(),
        })
    }
}

/// Where a thread stands on this peer.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use std::collections::BTreeMap;
/// use leno::{ManualClock, Peer, Role};
///
/// let (peer, driver) = Peer::builder().clock(ManualClock::new(0)).build().await?;
/// let app = async {
///     let band = peer.create_thread("band").await?;
///     let songs = band.collection("songs");
///     songs.insert(&BTreeMap::from([("title", "Psalm 1")])).await?;
///
///     let status = band.status().await?;
///     assert_eq!((status.name.as_deref(), status.role), (Some("band"), Some(Role::Owner)));
///     assert_eq!(status.stored, status.admitted, "nothing waits");
///     assert_eq!(status.outbox, 1, "nobody else has the song yet");
///     peer.close().await
/// };
/// futures_util::try_join!(driver.run(), app)?;
/// # Ok(()) }) }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ThreadStatus {
    /// What the thread is called, if its roster could be read.
    pub name: Option<String>,
    /// What this peer may do, as far as the thread has come.
    pub role: Option<Role>,
    /// Whether this peer had a role and was removed.
    pub removed: bool,
    /// Records that are here, of all logs.
    pub stored: u64,
    /// Records that are admitted.
    pub admitted: u64,
    /// Records of this peer that no other peer is known to keep.
    pub outbox: u64,
    /// Records that were put aside.
    pub quarantined: u64,
    /// Logs whose next record waits for a fact.
    pub waiting: Vec<LogStatus>,
    /// Bytes of the records that are here, as they travel.
    pub bytes: u64,
    /// How much of the thread this peer keeps, if that is bounded: see [`Thread::set_quota`].
    pub quota: Option<Quota>,
    /// Whether this peer's clock knows the time of day. If not, nothing is held for its stamp, and
    /// what was just written may seem older than it is.
    pub clock_is_set: bool,
}

impl Thread {
    pub(crate) fn new(peer: Peer, id: ThreadId) -> Self {
        Self { peer, id }
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// The peer that this handle belongs to.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Gives a role to the seat of a card, and returns the ticket with which its peer joins.
    ///
    /// If the seat has a role, this one takes its place, as by [`Thread::set_role`]. Who was removed is let in
    /// again by it.
    ///
    /// A reader gets the keys to everything that was written before. A replicator gets none.
    ///
    /// # Errors
    ///
    /// [`Error::MayNotGrant`] if this peer's role does not reach, [`Error::Outranked`] if the seat would not have
    /// the role by it, since somebody more senior gave it another one or removed it; [`Error::Text`] if the card's
    /// seat is not vouched for by its device.
    pub async fn grant(&self, card: &Card, role: Role) -> Result<Ticket, Error> {
        let (id, card) = (self.id, card.clone());
        let (peer, addresses) = (self.peer.id(), self.peer.addresses());
        self.peer
            .call(move |work| {
                let proven = card.proof.verify(card.seat, &card.kem, work.now());
                let proven = proven.ok_or(crate::text::TextError::NotVouched)?;
                let salt = salt(work);
                let identity = proven.identity().to_bytes();
                let identity = commitment(&salt, &identity);
                let now = work.now();
                // Of somebody who has a role it takes the place, and puts nothing aside.
                let (accepts, rest) = work.acceptances(id, card.seat)?;
                work.check_role(id, |own| own.may_grant(role))?;
                let grant = FrameOp::Grant(GrantOp {
                    seat: card.seat,
                    kem: card.kem,
                    role,
                    scope: Scope::Thread,
                    expires_millis: None,
                    identity: Some(identity),
                    recovery: None,
                    accepts,
                });
                let ops = [grant];
                work.check_outcome(id, card.seat, &ops, Some(role))?;
                let Work {
                    core,
                    view,
                    changes,
                    ..
                } = work;
                let thread = thread_mut(&mut core.replica, id)?;
                let about = RosterOp::Seat {
                    seat: card.seat,
                    certificate: card.proof.encode(),
                    salt,
                    name: card.name,
                };
                let rng = &mut core.rng;
                let record = thread.govern(*view, &ops, &[about], now, rng, changes);
                let record = work.wrote(record)?;
                work.accept_rest(id, &rest)?;
                let Work { core, changes, .. } = work;
                let thread = thread_mut(&mut core.replica, id)?;
                thread.wrap_missing(&mut core.rng, changes);
                let service = thread.service_key().clone();
                core.replica.touched(id);
                let granted_by = record.id.0.first_chunk().copied().unwrap_or_default();
                let seat = card.seat.0.first_chunk().copied().unwrap_or_default();
                let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
                Ok(Ticket {
                    thread: id,
                    service,
                    granted_by,
                    seat,
                    peer,
                    addresses,
                })
            })
            .await
    }

    /// A collection of documents of type `T`. Costs nothing; the collection need not exist.
    #[must_use]
    pub fn collection<T>(&self, name: &str) -> Collection<T> {
        Collection::new(self.clone(), name)
    }

    /// States how the fields of a collection's documents merge, for all members.
    ///
    /// Of two definitions the higher version counts. Changes nothing that was written. The definition
    /// that counts already is not stated again.
    ///
    /// # Errors
    ///
    /// [`Error::OldVersion`] if it would not count; [`Error`] if this peer may not write, or the
    /// definition is too long.
    pub async fn define(&self, name: &str, definition: &Definition) -> Result<(), Error> {
        let fact = definition
            .to_fact(name)
            .map_err(|error| Error::NotADocument {
                reason: error.to_string(),
            })?;
        let RosterOp::Fact {
            key,
            version,
            value,
        } = fact
        else {
            return Ok(());
        };
        let id = self.id;
        self.peer
            .call(move |work| {
                let now = work.now();
                work.writable(id)?;
                let Work {
                    core,
                    view,
                    changes,
                    ..
                } = &mut *work;
                let thread = thread_mut(&mut core.replica, id)?;
                let own = thread.governance().role(thread.seat().id());
                if !own.is_some_and(Role::writes) {
                    // It could be written, and would mean nothing to anybody.
                    return Err(AppendError::NotWriter.into());
                }
                let known = thread.roster().fact(&key);
                if known == Some((version, value.as_slice())) {
                    return Ok(());
                }
                let known = known.map(|(known, _)| known);
                if known.is_some_and(|known| version <= known) || version > thread.newest_stamp().0
                {
                    let known = known.unwrap_or(0);
                    return Err(Error::OldVersion { version, known });
                }
                let fact = RosterOp::Fact {
                    key,
                    version,
                    value,
                };
                let record = thread.govern(*view, &[], &[fact], now, &mut core.rng, changes);
                work.wrote(record)?;
                work.core.replica.touched(id);
                work.core.define(id);
                Ok(())
            })
            .await
    }

    /// Writes several documents, of one or more collections, as one record with one fate.
    ///
    /// `transact` runs inside the peer and must not block. It sees its own writes. If it fails,
    /// nothing is written.
    ///
    /// # Errors
    ///
    /// What `transact` returns, or [`Error`] if the record cannot be written.
    ///
    /// # Panics
    ///
    /// If `transact` does; nothing is written.
    pub async fn transact<R: Send + 'static>(
        &self,
        transact: impl FnOnce(&mut Transaction<'_>) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let id = self.id;
        let outcome = self.peer.call(move |work| {
            let mut panicked = None;
            let result = work.transact(id, |transaction| {
                // What it staged is dropped with it, and the peer is not for a caller to end.
                let outcome = catch_unwind(AssertUnwindSafe(|| transact(transaction)));
                outcome.unwrap_or_else(|panic| {
                    panicked = Some(panic);
                    Err(Error::Closed)
                })
            });
            match panicked {
                Some(panic) => Ok(Err(panic)),
                None => result.map(Ok),
            }
        });
        outcome.await?.or_else(|panic| resume_unwind(panic))
    }

    /// The seats of the thread and what is known of them.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let id = self.id;
        self.peer
            .call(move |work| {
                let now = work.now();
                let thread = &*thread_mut(&mut work.core.replica, id)?;
                let seats = thread.governance().seats();
                Ok(seats
                    .filter_map(|seat| Member::of(thread, seat, now))
                    .collect())
            })
            .await
    }

    /// A seat of the thread and what is known of it; nothing if it has no role, or not any more.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn member(&self, seat: SeatId) -> Result<Option<Member>, Error> {
        let id = self.id;
        self.peer
            .call(move |work| {
                let now = work.now();
                let thread = thread_mut(&mut work.core.replica, id)?;
                Ok(Member::of(thread, seat, now))
            })
            .await
    }

    /// Where the thread stands on this peer.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn status(&self) -> Result<ThreadStatus, Error> {
        let id = self.id;
        self.peer
            .call(move |work| {
                let clock_is_set = work.core.clock.is_set();
                let thread = thread_mut(&mut work.core.replica, id)?;
                let logs: Vec<_> = thread.logs().collect();
                let removed = thread.governance().was_removed(thread.seat().id());
                let (thread_bytes, quota) = (thread.stored_bytes(), thread.quota());
                let name = thread.roster().name().map(str::to_owned);
                let role = thread.governance().role(thread.seat().id());
                // What peers keep may be noted and not committed yet.
                let view = Overlay::new(work.view, &work.changes.batch);
                let quarantined = thread.count_put_aside(&view)?;
                Ok(ThreadStatus {
                    name,
                    role,
                    removed,
                    stored: logs.iter().map(|log| log.tip.seq).sum(),
                    admitted: logs.iter().map(|log| log.admitted).sum(),
                    outbox: work.core.replica.outbox(&view, &id)?,
                    quarantined,
                    bytes: thread_bytes,
                    quota,
                    waiting: logs
                        .into_iter()
                        .filter(|log| log.parked.is_some())
                        .collect(),
                    clock_is_set,
                })
            })
            .await
    }

    /// Records that do not count, with the reason: those that break a rule, and those of members who were
    /// removed or had no such role.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn quarantined(&self) -> Result<Vec<(RecordRef, Quarantine)>, Error> {
        let id = self.id;
        self.peer
            .call(move |work| {
                let thread = thread_mut(&mut work.core.replica, id)?;
                Ok(thread.put_aside(work.view)?)
            })
            .await
    }

    /// A hash of all documents. Equal on peers that hold the same records and keys.
    ///
    /// # Errors
    ///
    /// [`Error::MayNotRead`], [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn state_hash(&self) -> Result<[u8; 32], Error> {
        let id = self.id;
        self.peer
            .call(move |work| {
                let view = work.view;
                Ok(work.documents(id)?.state_hash(view)?)
            })
            .await
    }

    /// Whether a connected peer and this one have told each other everything about the thread.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn is_level_with(&self, peer: PeerId) -> Result<bool, Error> {
        use leno_threads_core::sync::{Level, PeerKey};
        let id = self.id;
        self.peer
            .call(move |work| Ok(work.core.replica.level(&PeerKey(peer.0), &id) == Level::Level))
            .await
    }

    /// Declares that no other copy of this data wrote to the thread since it was copied, so that it
    /// can be written again without a sync: the way out of [`Error::Restored`] if there is nobody to
    /// sync with, for example because a folder was moved.
    ///
    /// If it is not true, governance that both copies wrote may be lost as a fork.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn assume_newest(&self) -> Result<(), Error> {
        let id = self.id;
        self.peer
            .call(move |work| {
                work.lift_restored(id);
                Ok(())
            })
            .await
    }

    /// Waits until level with all connected peers: [`Peer::sync_once`] of this thread's peer.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn sync_once(&self, deadline: std::time::Duration) -> Result<SyncReport, Error> {
        self.peer.sync_once(deadline).await
    }
}

/// Writes that belong together, and reads that see them. See [`Thread::transact`].
#[derive(Debug)]
pub struct Transaction<'a> {
    writer: Writer<'a>,
}

impl Transaction<'_> {
    /// Reads a document as the transaction would leave it.
    ///
    /// # Errors
    ///
    /// [`Error::Db`], or [`Error::OtherForm`].
    pub fn get<T: DeserializeOwned>(
        &mut self,
        collection: &str,
        id: &DocumentId,
    ) -> Result<Option<T>, Error> {
        let document = self.writer.get(collection, id)?;
        document
            .map(|document| from_ipld(document.value))
            .transpose()
    }

    /// Writes a new document under a fresh id, which sorts by time.
    ///
    /// # Errors
    ///
    /// [`Error::NotADocument`], or [`Error::Db`].
    pub fn insert<T: Serialize + ?Sized>(
        &mut self,
        collection: &str,
        value: &T,
    ) -> Result<DocumentId, Error> {
        Ok(self.writer.put(collection, None, &to_ipld(value)?)?.id)
    }

    /// Makes a document show a value: creates it, or writes the fields that differ. Tells whether
    /// anything is written.
    ///
    /// # Errors
    ///
    /// As [`Transaction::insert`].
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        collection: &str,
        id: &DocumentId,
        value: &T,
    ) -> Result<bool, Error> {
        Ok(self
            .writer
            .put(collection, Some(id), &to_ipld(value)?)?
            .is_changed)
    }

    /// Writes the given fields of a document and leaves the others; null takes a field away
    /// (RFC 7396). Tells whether anything is written.
    ///
    /// # Errors
    ///
    /// As [`Transaction::insert`].
    pub fn patch<T: Serialize + ?Sized>(
        &mut self,
        collection: &str,
        id: &DocumentId,
        partial: &T,
    ) -> Result<bool, Error> {
        Ok(self.writer.patch(collection, id, &to_ipld(partial)?)?)
    }

    /// Edits single fields: counts up, adds to a set, inserts into a list. Tells whether anything is
    /// written.
    ///
    /// # Errors
    ///
    /// [`Error::Db`].
    pub fn edit(
        &mut self,
        collection: &str,
        id: &DocumentId,
        edits: &[FieldEdit],
    ) -> Result<bool, Error> {
        Ok(self.writer.edit(collection, id, edits)?)
    }

    /// Deletes a document, if it is there. Tells whether it was.
    ///
    /// # Errors
    ///
    /// [`Error::Db`].
    pub fn delete(&mut self, collection: &str, id: &DocumentId) -> Result<bool, Error> {
        Ok(self.writer.delete(collection, id)?)
    }
}

impl Work<'_> {
    /// Runs a transaction and writes it as one record.
    pub(crate) fn transact<R>(
        &mut self,
        id: ThreadId,
        transact: impl FnOnce(&mut Transaction<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let now = self.now();
        self.writable(id)?;
        self.load_documents(id)?;
        let Work {
            core,
            view,
            changes,
            ..
        } = &mut *self;
        let thread = thread_mut(&mut core.replica, id)?;
        let documents = core.documents.get_mut(&id).ok_or(Error::NoSuchThread(id))?;
        // The member is who the log's own grant makes him, as every other peer will judge: of several
        // grants a later one may be the better, and still begins another line.
        let own_log = thread.own_log();
        let member = match own_log.and_then(|log| member_of_log(thread, &log)) {
            Some(member) => Some(member),
            None => {
                let grant = thread.governance().writing_grant(thread.seat().id());
                grant.and_then(|grant| member_of_grant(thread, grant))
            }
        };
        let member = member.ok_or(AppendError::NotWriter)?;
        // Ids sort by time: by what was seen, if the clock does not know it.
        let seen_millis = thread.newest_stamp().millis();
        let id_millis = now.utc_millis().unwrap_or(seen_millis);
        let mut staged = DbTransaction::new(member, thread.own_log(), id_millis);
        let writer = documents.writer(*view, &mut staged, &mut core.rng);
        let result = transact(&mut Transaction { writer })?;
        let Some(content) = staged.to_body() else {
            return Ok(result);
        };
        let rng = &mut core.rng;
        let appended = thread.append(*view, THREAD_DOMAIN, &content, now, rng, changes);
        let appended = self.wrote(appended)?;
        self.written.insert(id);
        let documents = self.core.documents.get_mut(&id);
        let documents = documents.ok_or(Error::NoSuchThread(id))?;
        let folded = documents.commit(self.view, staged, &appended);
        self.wrote(folded.map_err(AppendError::Store))?;
        Ok(result)
    }
}

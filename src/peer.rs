//! The handle of a peer.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::SinkExt;
use leno_identity::{AgreementKey, Device, Did, PublicKey, SigningKey};
use leno_threads_core::store::{Store, StoreError, Table};
use leno_threads_core::thread::{Seat, Thread as CoreThread};
use leno_threads_core::{RosterOp, ThreadId};
use leno_transport_trait::{Address, PeerId, Transport};
use zeroize::Zeroizing;

use crate::builder::{Builder, load_or_make_device, system_rng};
use crate::clock::Clock;
use crate::driver::{Command, Finish, SyncReport, Traffic};
use crate::error::Error;
use crate::event::Events;
use crate::text::{ADDRESSES_MAX, Card, SeatProof, Ticket, check_name};
use crate::thread::Thread;
use crate::work::{Work, meta, put_meta};

/// A running instance of leno: its threads, its documents, its peers.
///
/// A handle: cheap to clone, usable from any task. The peer ends when it is closed or its last
/// handle is dropped.
///
/// # Examples
///
/// Two peers share a thread. They live in memory; [`Peer::open`] makes one on disk and on the network.
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use std::time::Duration;
/// use leno::store::MemoryStore;
/// use leno::transport::memory::{Conditions, MemoryNetwork};
/// use leno::{Driver, Error, ManualClock, Peer, PeerId, Role};
///
/// async fn open(network: &MemoryNetwork) -> Result<(Peer, Driver), Error> {
///     let store = MemoryStore::new();
///     let device = Peer::device(&store).await?;
///     let endpoint = network.endpoint(PeerId(device.verifying_key().to_bytes()));
///     let clock = ManualClock::new(0);
///     Peer::builder().store(store).transport(endpoint).clock(clock).build().await
/// }
///
/// let network = MemoryNetwork::new(1, Conditions::default());
/// let (alice, alices_driver) = open(&network).await?;
/// let (bob, bobs_driver) = open(&network).await?;
/// let app = async {
///     let band = alice.create_thread("band").await?;
///     let card = bob.card("Bob").await?;
///     let ticket = band.grant(&card, Role::Writer).await?;
///
///     let bobs_band = bob.join(&ticket).await?;
///     let report = bob.sync_once(Duration::from_secs(1)).await?;
///     assert!(report.is_complete());
///     assert_eq!(bobs_band.status().await?.name.as_deref(), Some("band"));
///
///     bob.close().await?;
///     alice.close().await
/// };
/// futures_util::try_join!(alices_driver.run(), bobs_driver.run(), app)?;
/// # Ok(()) }) }
/// ```
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    commands: mpsc::Sender<Command>,
    id: PeerId,
    identity: PublicKey,
    transport: Option<Arc<dyn Transport>>,
    clock: Arc<dyn Clock>,
    /// Why the driver ended, if its store failed.
    ended: Arc<OnceLock<StoreError>>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Peer")
            .field("id", &self.inner.id)
            .finish_non_exhaustive()
    }
}

impl Peer {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        id: PeerId,
        identity: PublicKey,
        transport: Option<Arc<dyn Transport>>,
        clock: Arc<dyn Clock>,
        ended: Arc<OnceLock<StoreError>>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                commands,
                id,
                identity,
                transport,
                clock,
                ended,
            }),
        }
    }

    /// Begins to put a peer together.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens the peer that lives in a folder, or makes one there: a store, a device, an identity,
    /// and libp2p on any free TCP and UDP port. Works offline.
    ///
    /// Beside the folder lies a file that counts starts, so that a restored folder is noticed.
    ///
    /// # Errors
    ///
    /// [`Error`] if the folder cannot be used, or is open in another process.
    ///
    /// # Examples
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, Deserialize, Serialize)]
    /// struct Song {
    ///     title: String,
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), leno::Error> {
    /// # let home = tempfile::tempdir()?;
    /// # let folder = home.path().join("songs");
    /// let band = leno::Peer::open(folder).await?.create_thread("band").await?;
    /// let songs = band.collection::<Song>("songs");
    /// let mut live = songs.watch().await?;
    ///
    /// songs.insert(&Song { title: "Psalm 1".to_owned() }).await?;
    /// while let Some(change) = live.next().await {
    ///     println!("{:?}", change?);
    /// #   return band.peer().close().await;
    /// }
    /// # Err(leno::Error::Closed)
    /// # }
    /// ```
    #[cfg(all(feature = "redb", feature = "libp2p"))]
    pub async fn open(folder: impl AsRef<std::path::Path>) -> Result<Self, Error> {
        let addresses = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"];
        Self::folder(folder)?.listen(addresses).start().await
    }

    /// Begins to put together the peer that lives in a folder, as [`Peer::open`] does, without a
    /// network.
    ///
    /// # Errors
    ///
    /// As [`Peer::open`].
    #[cfg(feature = "redb")]
    pub fn folder(folder: impl AsRef<std::path::Path>) -> Result<Builder, Error> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder)?;
        let store = leno_store_redb::Redb::open(folder.join("leno.redb"))?;
        let mut beside = folder.canonicalize()?.into_os_string();
        beside.push(".generation");
        Ok(Builder::default()
            .store(store)
            .generation(crate::generation::FileGeneration::new(beside)))
    }

    /// The device of a store, made if there is none: for a transport that is bound to its key.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], or [`Error::NoRandomness`].
    pub async fn device(store: &dyn Store) -> Result<Device, Error> {
        load_or_make_device(store, &mut system_rng()?).await
    }

    /// The id under which other peers know this one: its device's key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.inner.id
    }

    /// Who this peer acts for.
    #[must_use]
    pub fn identity(&self) -> Did {
        self.inner.identity.to_did()
    }

    /// Where others can dial this peer now, what is most likely to lead here first. Tickets and cards
    /// name the first four.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.inner
            .transport
            .as_ref()
            .map(|transport| transport.addresses())
            .unwrap_or_default()
    }

    /// Makes a thread, owned by this peer and sealed by the suite of [`Builder::suite`].
    ///
    /// # Errors
    ///
    /// [`Error::Text`] if the name is longer than [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX).
    pub async fn create_thread(&self, name: &str) -> Result<Thread, Error> {
        check_name(name)?;
        let name = name.to_owned();
        let id = self
            .call(move |work| {
                let seat = new_seat(work)?;
                let me = RosterOp::Seat {
                    seat: seat.id(),
                    certificate: proof_of(work, &seat).encode(),
                    salt: salt(work),
                    name: String::new(),
                };
                let about = [me, RosterOp::Name(name)];
                let now = work.now();
                let number = work.core.replica.next_number();
                let secret = work.core.replica.nonce_secret();
                let suite = work.core.suite;
                let thread = CoreThread::create(
                    work.view,
                    number,
                    seat,
                    secret,
                    suite,
                    &about,
                    now,
                    &mut work.core.rng,
                    work.changes,
                );
                let thread = work.wrote(thread)?;
                let id = thread.id();
                work.core.replica.add(thread);
                Ok(id)
            })
            .await?;
        Ok(Thread::new(self.clone(), id))
    }

    /// Makes a card: a new seat that an owner or admin of a thread can grant a role to.
    ///
    /// `name` is what the member wants to be called in the thread. One card serves one thread.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] if the name is longer than [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX).
    pub async fn card(&self, name: &str) -> Result<Card, Error> {
        check_name(name)?;
        let name = name.to_owned();
        let mut addresses = self.addresses();
        addresses.truncate(ADDRESSES_MAX);
        self.call(move |work| {
            let seat = new_seat(work)?;
            let proof = proof_of(work, &seat);
            let kem = seat.kem.public_key().to_bytes();
            let mut secrets = Zeroizing::new(seat.signing.to_secret_bytes().to_vec());
            secrets.extend_from_slice(&*seat.kem.to_secret_bytes());
            let key = meta::key(meta::SEAT_PREFIX, &seat.id().0);
            put_meta(&mut work.changes.batch, &key, secrets.to_vec());
            Ok(Card {
                seat: seat.id(),
                kem,
                name,
                proof,
                addresses,
            })
        })
        .await
    }

    /// Joins a thread by the ticket that a grant returned. Its content comes with the next sync;
    /// the peer that made the ticket is dialled by itself, at all addresses that the ticket names.
    ///
    /// # Errors
    ///
    /// [`Error::TicketOfAnother`] if the ticket is not for a card of this peer.
    pub async fn join(&self, ticket: &Ticket) -> Result<Thread, Error> {
        let ticket = ticket.clone();
        let id = ticket.thread;
        self.call(move |work| {
            if work.core.replica.ids().any(|known| known == ticket.thread) {
                work.core.to_dial.extend(ticket.addresses);
                return Ok(());
            }
            let (key, seat) = offered_seat(work, &ticket.seat)?;
            work.core
                .replica
                .join(ticket.thread, ticket.service, seat, work.changes);
            work.changes.batch.delete(Table::Meta, key);
            let awaited = meta::key(meta::AWAITED_PREFIX, &ticket.thread.0);
            put_meta(
                &mut work.changes.batch,
                &awaited,
                ticket.granted_by.to_vec(),
            );
            work.core.awaited.insert(ticket.thread, ticket.granted_by);
            for address in ticket.addresses {
                work.remember_address(&address);
                // By the step, and not by whoever waits for it and may be gone by then.
                work.core.to_dial.push(address);
            }
            Ok(())
        })
        .await?;
        Ok(Thread::new(self.clone(), id))
    }

    /// The threads that are here or were joined.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn threads(&self) -> Result<Vec<Thread>, Error> {
        let ids = self
            .call(|work| Ok(work.core.replica.ids().collect::<Vec<_>>()))
            .await?;
        Ok(ids
            .into_iter()
            .map(|id| Thread::new(self.clone(), id))
            .collect())
    }

    /// A thread that is here or was joined.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`].
    pub async fn thread(&self, id: ThreadId) -> Result<Thread, Error> {
        let known = self
            .call(move |work| Ok(work.core.replica.ids().any(|it| it == id)))
            .await?;
        if known {
            Ok(Thread::new(self.clone(), id))
        } else {
            Err(Error::NoSuchThread(id))
        }
    }

    /// Dials a peer and resolves when it is connected. The address is remembered, for later starts
    /// too, unless it can never lead to anybody else.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] if it cannot be reached now; the driver goes on trying.
    /// [`Error::Paused`]; the address is dialled when the peer is resumed. [`Error::NoTransport`].
    pub async fn connect(&self, address: &Address) -> Result<PeerId, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Connect(address.clone(), reply)).await?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Waits until every thread is level with every connected peer, for at most `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]. A deadline that passes is no error: the report tells.
    pub async fn sync_once(&self, deadline: Duration) -> Result<SyncReport, Error> {
        let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let until = self.inner.clock.now_millis().saturating_add(millis);
        let (reply, answer) = oneshot::channel();
        self.send(Command::SyncOnce(until, reply)).await?;
        answer.await.map_err(|_| self.gone())
    }

    /// Hangs up on all peers and talks to none until [`Peer::resume`]. Reading and writing go on.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn pause(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Pause(true, reply)).await?;
        answer.await.map_err(|_| self.gone())
    }

    /// Talks to peers again, and dials those whose addresses are known.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn resume(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Pause(false, reply)).await?;
        answer.await.map_err(|_| self.gone())
    }

    /// How many bytes went to and came from peers since the start.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn traffic(&self) -> Result<Traffic, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Traffic(reply)).await?;
        answer.await.map_err(|_| self.gone())
    }

    /// Everything that happens from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub async fn events(&self) -> Result<Events, Error> {
        self.call(|work| Ok(work.core.subscribers.add())).await
    }

    /// Writes what is left to write, hangs up, closes the store and ends the driver. Later calls of
    /// any handle answer [`Error::Closed`]; once this resolves the store can be opened again.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the peer is closed already.
    pub async fn close(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Close(reply)).await?;
        answer.await.map_err(|_| self.gone())
    }

    /// Runs `work` inside a step of the driver and resolves when what it changed is durable.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Work<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Work(Box::new(move |step| {
            let result = work(step);
            let finish: Finish = Box::new(move |committed| {
                // Whoever asked may have gone meanwhile.
                let _ = reply.send(committed.and(result));
            });
            finish
        }));
        self.send(command).await?;
        answer.await.map_err(|_| self.gone())?
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Error> {
        self.inner
            .commands
            .clone()
            .send(command)
            .await
            .map_err(|_| self.gone())
    }

    /// Hands over a command without waiting for room, of which each sender has some of its own.
    pub(crate) fn send_now(&self, command: Command) {
        // If the peer is closed, there is nothing left to be done.
        let _ = self.inner.commands.clone().try_send(command);
    }

    /// Why there is no answer any more.
    pub(crate) fn gone(&self) -> Error {
        let ended = self.inner.ended.get();
        ended.map_or(Error::Closed, |error| Error::Store(error.clone()))
    }
}

fn new_seat(work: &mut Work<'_>) -> Result<Seat, Error> {
    let rng = &mut work.core.rng;
    Ok(Seat {
        signing: SigningKey::generate(rng)?,
        kem: AgreementKey::generate(rng)?,
    })
}

fn proof_of(work: &Work<'_>, seat: &Seat) -> SeatProof {
    let kem = seat.kem.public_key().to_bytes();
    SeatProof::sign(&work.core.certificate, &work.core.device, seat.id(), &kem)
}

pub(crate) fn salt(work: &mut Work<'_>) -> [u8; 16] {
    use rand_core::Rng as _;
    let mut salt = [0; 16];
    work.core.rng.fill_bytes(&mut salt);
    salt
}

/// The seat of a card that this peer made, and the key of the row that keeps it.
fn offered_seat(work: &Work<'_>, hint: &[u8; 8]) -> Result<(Vec<u8>, Seat), Error> {
    let prefix = meta::key(meta::SEAT_PREFIX, hint);
    let mut found = None;
    let overlay = leno_threads_core::store::Overlay::new(work.view, &work.changes.batch);
    leno_threads_core::store::scan_prefix(&overlay, Table::Meta, &prefix, &mut |key, row| {
        found = Some((key.to_vec(), Zeroizing::new(row.to_vec())));
        std::ops::ControlFlow::Break(())
    })?;
    let (key, row) = found.ok_or(Error::TicketOfAnother)?;
    let damaged = || leno_threads_core::store::StoreError::Corrupt {
        what: "the seat of a card".to_owned(),
    };
    let (signing, kem) = row.split_first_chunk::<32>().ok_or_else(damaged)?;
    let kem = kem.try_into().map_err(|_| damaged())?;
    let signing = SigningKey::from_secret_bytes(signing).map_err(|_| damaged())?;
    let kem = AgreementKey::from_secret_bytes(kem).map_err(|_| damaged())?;
    Ok((key, Seat { signing, kem }))
}

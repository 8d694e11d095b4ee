//! Putting a peer together from its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use futures_channel::mpsc;
use leno_identity::{
    Device, DeviceCertificate, Ed25519Identity, Identity, MILLIS_MAX, Scope as CertificateScope,
};
use leno_threads_core::store::{Batch, MemoryStore, Store, StoreError, Table, View, scan_prefix};
use leno_threads_core::sync::{PeerKey, Replica, SPREAD_DEGREE};
use leno_threads_core::thread::Changes;
use leno_threads_core::{Padding, Suite, ThreadId, bug};
use leno_transport_trait::{Address, PeerId, Transport, Transports};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::driver::Driver;
use crate::error::Error;
use crate::event::Subscribers;
use crate::generation::Generation;
use crate::peer::Peer;
use crate::rendezvous::Rendezvous;
use crate::replicate::load_quotas;
use crate::signal::Signalling;
use crate::work::{Core, meta, put_meta};

/// Commands that wait for the driver before callers wait.
const COMMANDS_WAITING: usize = 1024;

/// Collects the parts of a [`Peer`]. What is left out has a default: a store in memory, no network,
/// an identity made and kept in the store, the system's clock and randomness.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use leno::store::MemoryStore;
/// use leno::transport::memory::{Conditions, MemoryNetwork};
/// use leno::{ManualClock, Peer, PeerId};
///
/// // A transport is bound to the key of the store's device.
/// let store = MemoryStore::new();
/// let device = Peer::device(&store).await?;
/// let id = PeerId(device.verifying_key().to_bytes());
/// let network = MemoryNetwork::new(1, Conditions::default());
///
/// let (peer, driver) = Peer::builder()
///     .store(store)
///     .transport(network.endpoint(id))
///     .clock(ManualClock::new(0))
///     .build()
///     .await?;
/// assert_eq!(peer.id(), id);
/// // The driver is a future: here it runs until the peer is closed, beside the application.
/// futures_util::try_join!(driver.run(), peer.close())?;
/// # Ok(()) }) }
/// ```
pub struct Builder {
    store: Arc<dyn Store>,
    identity: Option<Arc<dyn Identity>>,
    networks: Vec<Network>,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<Zeroizing<[u8; 32]>>,
    generation: Option<Box<dyn Generation>>,
    padding: Padding,
    suite: Suite,
    degree: usize,
    shares_addresses: bool,
}

enum Network {
    Given(Arc<dyn Transport>),
    #[cfg(feature = "libp2p")]
    Libp2p(Vec<String>),
    #[cfg(feature = "ws")]
    Ws(Vec<String>),
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Builder")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            identity: None,
            networks: Vec::new(),
            clock: None,
            seed: None,
            generation: None,
            padding: Padding::Padme,
            suite: Suite::Aes256Gcm,
            degree: SPREAD_DEGREE,
            shares_addresses: false,
        }
    }
}

impl Builder {
    /// Keeps everything in `store`, the device's keys too.
    #[must_use]
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// The device of the store that was given, made if there is none: for a transport that is bound to
    /// its key.
    ///
    /// # Errors
    ///
    /// As [`Peer::device`].
    pub async fn device(&self) -> Result<Device, Error> {
        Peer::device(&*self.store).await
    }

    /// Certifies the device by `identity`, which is asked to sign once. A later start with another
    /// identity keeps the first one's certificate.
    #[must_use]
    pub fn identity(mut self, identity: impl Identity + 'static) -> Self {
        self.identity = Some(Arc::new(identity));
        self
    }

    /// Talks through `transport`, which must be bound to the key of this store's device: see
    /// [`Builder::device`]. Beside what was given before: each address is dialled by the network that
    /// understands it, and a peer has one connection over all of them.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.networks.push(Network::Given(Arc::new(transport)));
        self
    }

    /// Talks through libp2p and listens on these multiaddresses, such as `/ip4/0.0.0.0/tcp/0`.
    #[cfg(feature = "libp2p")]
    #[must_use]
    pub fn listen<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        let addresses = addresses.into_iter().map(Into::into).collect();
        self.networks.push(Network::Libp2p(addresses));
        self
    }

    /// Talks through web sockets and listens on these socket addresses, such as `0.0.0.0:4001`; none
    /// at all makes a peer that only dials. For more than that make a [`Ws`](crate::Ws) of your own.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn listen_ws<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        let addresses = addresses.into_iter().map(Into::into).collect();
        self.networks.push(Network::Ws(addresses));
        self
    }

    /// Reads the time from `clock`. Without the feature `tokio` this is required.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Draws all randomness from a seed: for tests and simulations only.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(Zeroizing::new(seed));
        self
    }

    /// Counts starts outside the store, so that a restored copy of the store is noticed before it
    /// writes: it answers [`Error::Restored`] until it was level with a peer once, and then writes
    /// logs of its own. Without it, a copy is noticed when a peer shows more of the own log.
    #[must_use]
    pub fn generation(mut self, generation: impl Generation + 'static) -> Self {
        self.generation = Some(Box::new(generation));
        self
    }

    /// Sets whether bodies are padded to size classes; they are unless this says otherwise.
    #[must_use]
    pub fn padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Seals the threads that this peer creates by `suite`; by AES-256-GCM unless this says otherwise.
    /// A thread keeps its suite, and peers follow it whatever their own is: choose
    /// [`Suite::ChaCha20Poly1305`] where the devices of a thread compute AES without hardware.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// Sets to how many peers of a thread records are pushed as they come: [`SPREAD_DEGREE`] unless
    /// this says otherwise, and at least one. To the others they are announced, and those ask for what
    /// does not come by another way: with many peers, viewers feed viewers.
    ///
    /// A peer on a thin line takes fewer, such as three; a hub of many viewers gains nothing by more.
    #[must_use]
    pub fn fan_out(mut self, degree: usize) -> Self {
        self.degree = degree;
        self
    }

    /// Tells those who read its threads where this peer can be dialled, through whatever peer they are
    /// both connected to, and dials those who tell so too: members who only know a hub find each other by
    /// it, and go on when it is gone. Off unless this says otherwise.
    ///
    /// Every reader of a thread then learns this peer's addresses, the first four of
    /// [`Peer::addresses`]. Replicators that pass them on cannot read them, and nobody else is sent them.
    /// A member may name addresses at which somebody else is, but only for its own device: they are
    /// dialled, and ever more rarely if it is not there.
    ///
    /// Addresses are told in up to 64 threads that somebody connected shares, every 30 seconds, so a peer
    /// that is idle sends more than without. With 32 links nobody else is looked for.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
    /// use leno::store::MemoryStore;
    /// use leno::transport::memory::{Conditions, MemoryNetwork};
    /// use leno::{ManualClock, Peer, PeerId};
    ///
    /// # let (network, clock) = (MemoryNetwork::new(1, Conditions::default()), ManualClock::new(0));
    /// let store = MemoryStore::new();
    /// let device = Peer::device(&store).await?;
    /// let transport = network.endpoint(PeerId(device.verifying_key().to_bytes()));
    /// let builder = Peer::builder().store(store).transport(transport).clock(clock);
    /// let (peer, driver) = builder.share_addresses(true).build().await?;
    /// // Whoever reads a thread of this peer, and shares a hub with it, now finds it.
    /// assert_eq!(peer.addresses().len(), 1);
    /// # futures_util::try_join!(driver.run(), peer.close())?;
    /// # Ok(()) }) }
    /// ```
    #[must_use]
    pub fn share_addresses(mut self, share: bool) -> Self {
        self.shares_addresses = share;
        self
    }

    /// Builds the peer and spawns its driver on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[cfg(feature = "tokio")]
    pub async fn start(self) -> Result<Peer, Error> {
        let (peer, driver) = self.build().await?;
        tokio::spawn(driver.run());
        Ok(peer)
    }

    /// Builds the peer and its driver, which the caller runs with any executor.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store does not open as written, the transport is another device's, or there
    /// is no randomness.
    pub async fn build(self) -> Result<(Peer, Driver), Error> {
        let clock = self.clock.map_or_else(default_clock, Ok)?;
        let mut rng = match &self.seed {
            Some(seed) => ChaCha20Rng::from_seed(**seed),
            None => system_rng()?,
        };
        let now_millis = clock.now_millis();
        let device = load_or_make_device(&*self.store, &mut rng).await?;
        let certificate =
            load_or_issue(&*self.store, self.identity, &device, now_millis, &mut rng).await?;
        let local = PeerId(device.verifying_key().to_bytes());
        let transport = join_networks(self.networks, &device, local).await?;
        let start = Start::of(&*self.store, self.generation)?;
        let (mut replica, addresses, mut restored, awaited) = {
            let view = self.store.view()?;
            let secret = Core::nonce_secret(&device);
            let mut replica = Replica::load(&*view, PeerKey(local.0), secret)?;
            replica.set_degree(self.degree);
            for (id, quota) in load_quotas(&*view)? {
                replica.set_quota(id, Some(quota));
            }
            let (restored, awaited) = (load_restored(&*view)?, load_awaited(&*view)?);
            (replica, load_addresses(&*view)?, restored, awaited)
        };
        let mut changes = Changes::new();
        if start.is_restored {
            give_up(&*self.store.view()?, &mut replica, &mut changes)?;
            restored.extend(replica.ids());
        }
        start.keep(&*self.store, changes.batch).await?;
        let shared = transport.clone().filter(|_| self.shares_addresses);
        let core = Core {
            identity: *certificate.claim().identity(),
            certificate: certificate.certificate().clone(),
            device: Arc::new(device),
            replica,
            documents: BTreeMap::new(),
            rng,
            padding: self.padding,
            suite: self.suite,
            subscribers: Subscribers::default(),
            signals: Signalling::default(),
            rendezvous: Rendezvous::new(shared),
            restored,
            awaited,
            told: BTreeMap::new(),
            addresses,
            to_dial: Vec::new(),
            paused: false,
            clock: clock.clone(),
        };
        let (sender, receiver) = mpsc::channel(COMMANDS_WAITING);
        let ended = Arc::new(OnceLock::new());
        let peer = Peer::new(
            sender,
            local,
            core.identity,
            transport.clone(),
            clock.clone(),
            ended.clone(),
        );
        let driver = Driver::new(core, self.store, transport, clock, receiver, ended);
        Ok((peer, driver))
    }
}

#[cfg(feature = "tokio")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "without tokio there is no default"
)]
fn default_clock() -> Result<Arc<dyn Clock>, Error> {
    Ok(Arc::new(crate::clock::SystemClock))
}

#[cfg(not(feature = "tokio"))]
fn default_clock() -> Result<Arc<dyn Clock>, Error> {
    Err(Error::NoClock)
}

impl Network {
    async fn open(self, device: &Device) -> Result<Arc<dyn Transport>, Error> {
        // Without adapters the key is of no use here.
        let _ = device;
        Ok(match self {
            Self::Given(transport) => transport,
            #[cfg(feature = "libp2p")]
            Self::Libp2p(addresses) => {
                let secret = device.signing_key().to_secret_bytes();
                let builder = leno_transport_libp2p::Builder::new(secret).listen_on(addresses);
                Arc::new(leno_transport_libp2p::Libp2p::listen(builder).await?)
            }
            #[cfg(feature = "ws")]
            Self::Ws(addresses) => {
                let secret = device.signing_key().to_secret_bytes();
                let builder = leno_transport_ws::Builder::new(secret).listen_on(addresses);
                Arc::new(leno_transport_ws::Ws::listen(builder).await?)
            }
        })
    }
}

/// Opens all networks, and makes one of them if there are several.
async fn join_networks(
    networks: Vec<Network>,
    device: &Device,
    local: PeerId,
) -> Result<Option<Arc<dyn Transport>>, Error> {
    let mut opened = Vec::new();
    for network in networks {
        let transport = network.open(device).await?;
        if transport.local() != local {
            return Err(Error::TransportOfAnotherDevice);
        }
        opened.push(transport);
    }
    let mut opened = opened.into_iter();
    let Some(first) = opened.next() else {
        return Ok(None);
    };
    let Some(second) = opened.next() else {
        return Ok(Some(first));
    };
    let mut joined = Transports::new(first);
    for transport in [second].into_iter().chain(opened) {
        let added = joined.with(transport);
        joined = added.map_err(|_| Error::TransportOfAnotherDevice)?;
    }
    Ok(Some(Arc::new(joined)))
}

pub(crate) fn system_rng() -> Result<ChaCha20Rng, Error> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| Error::NoRandomness(error.to_string()))?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

fn read_meta(store: &dyn Store, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    store.view()?.get(Table::Meta, key)
}

fn damaged(what: &str) -> Error {
    Error::Store(StoreError::Corrupt {
        what: format!("the {what} of this peer"),
    })
}

pub(crate) async fn load_or_make_device(
    store: &dyn Store,
    rng: &mut ChaCha20Rng,
) -> Result<Device, Error> {
    if let Some(bytes) = read_meta(store, meta::DEVICE)? {
        let bytes = Zeroizing::new(bytes);
        return Device::from_secret_bytes(&bytes).map_err(|_| damaged("device key"));
    }
    let device = Device::generate(rng)?;
    let mut batch = Batch::new();
    put_meta(&mut batch, meta::DEVICE, device.to_secret_bytes().to_vec());
    store.commit(batch).await?;
    Ok(device)
}

async fn load_or_issue(
    store: &dyn Store,
    identity: Option<Arc<dyn Identity>>,
    device: &Device,
    now_millis: u64,
    rng: &mut ChaCha20Rng,
) -> Result<leno_identity::VerifiedCertificate, Error> {
    // The clock may have gone back since the certificate was issued; that does not unmake it here,
    // where it was made, and it has no expiry.
    if let Some(bytes) = read_meta(store, meta::CERTIFICATE)? {
        let certificate = DeviceCertificate::decode(&bytes).map_err(|_| damaged("certificate"))?;
        return certificate
            .verify(MILLIS_MAX)
            .map_err(|_| damaged("certificate"));
    }
    let mut batch = Batch::new();
    let identity: Arc<dyn Identity> = match identity {
        Some(identity) => identity,
        None => {
            let identity = Ed25519Identity::generate(rng)?;
            put_meta(
                &mut batch,
                meta::IDENTITY,
                identity.to_secret_bytes().to_vec(),
            );
            Arc::new(identity)
        }
    };
    let scope = CertificateScope::All;
    let certificate = DeviceCertificate::issue(&*identity, device, scope, now_millis, None).await?;
    put_meta(&mut batch, meta::CERTIFICATE, certificate.to_bytes());
    store.commit(batch).await?;
    certificate
        .verify(now_millis)
        .map_err(|_| damaged("certificate"))
}

/// The count of starts, inside and outside of the store.
struct Start {
    outside: Option<Box<dyn Generation>>,
    next: u64,
    /// Whether the store is an older copy of itself, or was taken elsewhere.
    is_restored: bool,
}

impl Start {
    fn of(store: &dyn Store, outside: Option<Box<dyn Generation>>) -> Result<Self, Error> {
        let kept = read_meta(store, meta::GENERATION)?;
        let inside = match kept.as_deref().map(<[u8; 8]>::try_from) {
            None => None,
            Some(Ok(bytes)) => Some(u64::from_be_bytes(bytes)),
            Some(Err(_)) => return Err(damaged("generation")),
        };
        let mut outside = outside;
        let shown = match &mut outside {
            Some(outside) => outside.load()?,
            None => None,
        };
        // The one inside is raised first, so a crash between the two leaves it ahead: that is no
        // copy. A number that nobody shows any more may be that of another machine.
        let is_restored =
            outside.is_some() && inside.is_some_and(|it| shown.is_none_or(|n| n > it));
        let is_restored = is_restored && !bug!(CopyNotNoticed);
        Ok(Self {
            outside,
            next: inside.max(shown).unwrap_or(0).saturating_add(1),
            is_restored,
        })
    }

    /// Raises the count. `batch` is what a restored copy changes, in the same commit: once the count
    /// is raised, nobody can tell any more that it was one.
    async fn keep(self, store: &dyn Store, mut batch: Batch) -> Result<(), Error> {
        if let Some(mut outside) = self.outside {
            put_meta(
                &mut batch,
                meta::GENERATION,
                self.next.to_be_bytes().to_vec(),
            );
            store.commit(batch).await?;
            outside.store(self.next)?;
        }
        Ok(())
    }
}

/// What a restored copy must not go on with: logs, and seats of cards that may have been used.
fn give_up(
    view: &dyn View,
    replica: &mut Replica,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    for id in replica.ids().collect::<Vec<_>>() {
        if let Some(thread) = replica.thread_mut(&id) {
            thread.retire_log(changes);
        }
        let key = meta::key(meta::RESTORED_PREFIX, &id.0);
        put_meta(&mut changes.batch, &key, Vec::new());
    }
    scan_prefix(view, Table::Meta, meta::SEAT_PREFIX, &mut |key, _| {
        changes.batch.delete(Table::Meta, key.to_vec());
        ControlFlow::Continue(())
    })
}

/// The threads that were restored from a copy and were not level with anybody since.
fn load_restored(view: &dyn View) -> Result<BTreeSet<ThreadId>, StoreError> {
    let mut restored = BTreeSet::new();
    scan_prefix(view, Table::Meta, meta::RESTORED_PREFIX, &mut |key, _| {
        let id = key.strip_prefix(meta::RESTORED_PREFIX);
        restored.extend(id.and_then(|id| id.try_into().ok()).map(ThreadId));
        ControlFlow::Continue(())
    })?;
    Ok(restored)
}

/// The grants that joined threads were not seen with yet.
fn load_awaited(view: &dyn View) -> Result<BTreeMap<ThreadId, [u8; 16]>, StoreError> {
    let mut awaited = BTreeMap::new();
    scan_prefix(view, Table::Meta, meta::AWAITED_PREFIX, &mut |key, row| {
        let id = key.strip_prefix(meta::AWAITED_PREFIX);
        let id = id.and_then(|id| id.try_into().ok()).map(ThreadId);
        awaited.extend(id.zip(row.try_into().ok()));
        ControlFlow::Continue(())
    })?;
    Ok(awaited)
}

fn load_addresses(view: &dyn View) -> Result<BTreeSet<Address>, StoreError> {
    let mut addresses = BTreeSet::new();
    scan_prefix(view, Table::Meta, meta::ADDRESS_PREFIX, &mut |key, _| {
        let text = key.strip_prefix(meta::ADDRESS_PREFIX).unwrap_or_default();
        if let Some(address) = std::str::from_utf8(text)
            .ok()
            .and_then(|it| it.parse().ok())
        {
            addresses.insert(address);
        }
        ControlFlow::Continue(())
    })?;
    Ok(addresses)
}

//! Putting a peer together from its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_channel::mpsc;
use leno_identity::{
    Device, DeviceCertificate, Ed25519Identity, Identity, MILLIS_MAX, Scope as CertificateScope,
};
use leno_threads_core::Padding;
use leno_threads_core::store::{Batch, MemoryStore, Store, StoreError, Table, View, scan_prefix};
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::thread::Changes;
use leno_transport_trait::{Address, PeerId, Transport};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::driver::Driver;
use crate::error::Error;
use crate::event::Subscribers;
use crate::generation::Generation;
use crate::peer::Peer;
use crate::work::{Core, meta, put_meta};

/// Commands that wait for the driver before callers wait.
const COMMANDS_WAITING: usize = 1024;

/// Collects the parts of a [`Peer`]. What is left out has a default: a store in memory, no network,
/// an identity made and kept in the store, the system's clock and randomness.
pub struct Builder {
    store: Arc<dyn Store>,
    identity: Option<Arc<dyn Identity>>,
    network: Network,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<Zeroizing<[u8; 32]>>,
    generation: Option<Box<dyn Generation>>,
    padding: Padding,
}

enum Network {
    None,
    Given(Arc<dyn Transport>),
    #[cfg(feature = "libp2p")]
    Libp2p(Vec<String>),
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
            network: Network::None,
            clock: None,
            seed: None,
            generation: None,
            padding: Padding::Padme,
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

    /// Certifies the device by `identity`, which is asked to sign once. A later start with another
    /// identity keeps the first one's certificate.
    #[must_use]
    pub fn identity(mut self, identity: impl Identity + 'static) -> Self {
        self.identity = Some(Arc::new(identity));
        self
    }

    /// Talks through `transport`, which must be bound to the key of this store's device: see
    /// [`Peer::device`].
    #[must_use]
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.network = Network::Given(Arc::new(transport));
        self
    }

    /// Talks through libp2p and listens on these multiaddresses, such as `/ip4/0.0.0.0/tcp/0`.
    #[cfg(feature = "libp2p")]
    #[must_use]
    pub fn listen<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.network = Network::Libp2p(addresses.into_iter().map(Into::into).collect());
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
    /// writes. Without it, a copy is noticed when a peer shows more of the own log.
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
        let transport: Option<Arc<dyn Transport>> = match self.network {
            Network::None => None,
            Network::Given(transport) => Some(transport),
            #[cfg(feature = "libp2p")]
            Network::Libp2p(addresses) => Some(Arc::new(listen(&device, addresses).await?)),
        };
        if transport
            .as_ref()
            .is_some_and(|transport| transport.local() != local)
        {
            return Err(Error::TransportOfAnotherDevice);
        }
        let restored = check_generation(&*self.store, self.generation).await?;
        let (mut replica, addresses) = {
            let view = self.store.view()?;
            let secret = Core::nonce_secret(&device);
            let replica = Replica::load(&*view, PeerKey(local.0), secret)?;
            (replica, load_addresses(&*view)?)
        };
        let mut waiting = BTreeSet::new();
        if restored {
            let mut changes = Changes::new();
            for id in replica.ids().collect::<Vec<_>>() {
                if let Some(thread) = replica.thread_mut(&id) {
                    thread.retire_log(&mut changes);
                    waiting.insert(id);
                }
            }
            self.store.commit(changes.batch).await?;
        }
        let core = Core {
            identity: *certificate.claim().identity(),
            certificate: certificate.certificate().clone(),
            device: Arc::new(device),
            replica,
            documents: BTreeMap::new(),
            rng,
            padding: self.padding,
            subscribers: Subscribers::default(),
            restored: waiting,
            addresses,
            paused: false,
        };
        let (sender, receiver) = mpsc::channel(COMMANDS_WAITING);
        let peer = Peer::new(
            sender,
            local,
            core.identity,
            transport.clone(),
            clock.clone(),
        );
        let driver = Driver::new(core, self.store, transport, clock, receiver);
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

#[cfg(feature = "libp2p")]
async fn listen(
    device: &Device,
    addresses: Vec<String>,
) -> Result<leno_transport_libp2p::Libp2p, Error> {
    let secret = device.signing_key().to_secret_bytes();
    let builder = leno_transport_libp2p::Builder::new(secret).listen_on(addresses);
    Ok(leno_transport_libp2p::Libp2p::listen(builder).await?)
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

/// Raises the count of starts, inside and outside; tells whether the store is a restored copy.
async fn check_generation(
    store: &dyn Store,
    outside: Option<Box<dyn Generation>>,
) -> Result<bool, Error> {
    let kept = read_meta(store, meta::GENERATION)?;
    let inside = match kept.as_deref().map(<[u8; 8]>::try_from) {
        None => None,
        Some(Ok(bytes)) => Some(u64::from_be_bytes(bytes)),
        Some(Err(_)) => return Err(damaged("generation")),
    };
    let Some(mut outside) = outside else {
        return Ok(false);
    };
    let shown = outside.load()?;
    // A crash between the two writes below leaves the outside one ahead: that is no copy, but the
    // caution costs only one sync.
    let restored = inside.is_some() && inside != shown;
    let next = inside.max(shown).unwrap_or(0) + 1;
    outside.store(next)?;
    let mut batch = Batch::new();
    put_meta(&mut batch, meta::GENERATION, next.to_be_bytes().to_vec());
    store.commit(batch).await?;
    Ok(restored)
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

//! Sync: all threads of a peer, and a session with each peer that it is connected to.
//!
//! [`Replica`] does no I/O. Its contract, in four steps:
//!
//! 1. Tell it what happens: [`Replica::connected`], [`Replica::handle_message`],
//!    [`Replica::disconnected`], [`Replica::handle_timeout`], and local writes through
//!    [`Replica::thread_mut`] followed by [`Replica::touched`].
//! 2. Commit the [`Changes`] of the step.
//! 3. Only then ask [`Replica::poll_message`] for each peer that has room, with a view taken after
//!    the commit, and send what it returns; until it returns nothing.
//! 4. Call [`Replica::handle_timeout`] at [`Replica::poll_timeout`].
//!
//! Nothing polls per thread: a session looks only at threads that changed.
//!
//! # Examples
//!
//! Two peers, one thread; the network is a loop.
//!
//! ```
//! use futures_executor::block_on;
//! use leno_threads_core::store::{MemoryStore, Store};
//! use leno_threads_core::sync::{Level, PeerKey, Replica};
//! use leno_threads_core::thread::{Changes, Seat, Thread};
//! use leno_threads_core::*;
//! # use leno_identity::{AgreementKey, SigningKey};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//! # let mut new_seat = || -> Result<Seat, leno_identity::KeyError> {
//! #     let signing = SigningKey::generate(&mut rng)?;
//! #     let kem = AgreementKey::generate(&mut rng)?;
//! #     Ok(Seat { signing, kem })
//! # };
//! # let (alices, bobs) = (new_seat()?, new_seat()?);
//!
//! let now_millis = 1_700_000_000_000;
//! let keys = [PeerKey([1; 32]), PeerKey([2; 32])];
//! let stores = [MemoryStore::new(), MemoryStore::new()];
//! let alice = Replica::load(&*stores[0].view()?, keys[0], NonceSecret::new(&[1; 32]))?;
//! let bob = Replica::load(&*stores[1].view()?, keys[1], NonceSecret::new(&[2; 32]))?;
//! let mut peers = [alice, bob];
//!
//! // Alice makes a thread, lets Bob's seat read, and writes.
//! let grant = FrameOp::Grant(GrantOp {
//!     seat: bobs.id(),
//!     kem: bobs.kem.public_key().to_bytes(),
//!     role: Role::Reader,
//!     scope: Scope::Thread,
//!     expires_millis: None,
//!     identity: None,
//!     recovery: None,
//!     accepts: Vec::new(),
//! });
//! let (view, mut changes) = (stores[0].view()?, Changes::new());
//! let (number, secret) = (peers[0].next_number(), peers[0].nonce_secret());
//! let suite = Suite::Aes256Gcm;
//! let mut band =
//!     Thread::create(&*view, number, alices, secret, suite, &[], now_millis, &mut rng, &mut changes)?;
//! band.govern(&*view, &[grant], &[], now_millis, &mut rng, &mut changes)?;
//! band.wrap_missing(&mut rng, &mut changes);
//! band.append(&*view, THREAD_DOMAIN, &[0x62, b'h', b'i'], now_millis, &mut rng, &mut changes)?;
//! band.publish(&mut changes);
//! let (id, service) = (band.id(), band.service_key().clone());
//! peers[0].add(band);
//! drop(view);
//! block_on(stores[0].commit(changes.batch))?;
//!
//! // Bob has a ticket: the thread's id and its service key.
//! let mut changes = Changes::new();
//! peers[1].join(id, service, bobs, &mut changes);
//! block_on(stores[1].commit(changes.batch))?;
//!
//! let mut read = Vec::new();
//! for (at, other) in [(0, 1), (1, 0)] {
//!     peers[at].connected(keys[other], &mut rng);
//! }
//! loop {
//!     let mut is_silent = true;
//!     for (from, to) in [(0, 1), (1, 0)] {
//!         let message = peers[from].poll_message(&*stores[from].view()?, &keys[to])?;
//!         let Some(message) = message else { continue };
//!         is_silent = false;
//!         let (view, mut changes) = (stores[to].view()?, Changes::new());
//!         let mut sink = |_, opened: &thread::Opened<'_>| read.push(opened.plaintext[..4].to_vec());
//!         let (peer, rng) = (keys[from], &mut rng);
//!         peers[to]
//!             .handle_message(&*view, peer, &message, now_millis, rng, &mut changes, &mut sink)?;
//!         drop(view);
//!         block_on(stores[to].commit(changes.batch))?; // before anything is sent
//!     }
//!     if is_silent {
//!         break;
//!     }
//! }
//! assert_eq!(read, [[0, 0x62, b'h', b'i']]); // not compressed; dag-cbor
//! assert_eq!(peers[0].level(&keys[1], &id), Level::Level);
//! # Ok(())
//! # }
//! ```
//!
//! [`Changes`]: crate::thread::Changes

mod agenda;
mod bucket;
pub mod bundle;
mod compare;
mod delivery;
mod error;
mod forget;
mod message;
mod offer;
mod pair;
mod refusal;
mod replica;
mod send;
mod session;
pub mod shared;
mod signal;
mod slot;
mod spread;
mod step;
mod strange;
mod tree;

pub use error::SyncError;
pub use message::{
    AckLog, Below, EPOCHS_MAX, HaveLog, LOGS_MAX, LogName, Message, NAMES_MAX, NODES_MAX,
    RANGE_BYTES, SHORT_HASH_BYTES, SYNC_MESSAGE_BYTES_MAX, SYNC_VERSION, ShortNode, Shown,
    TAGS_MAX, Tag, WRAPS_MAX,
};
pub use pair::PAIRS_MAX;
pub use replica::{Level, Progress, Replica, ReplicaSink};
pub use signal::{
    SIGNAL_KEYS_MAX, SIGNAL_NAME_BYTES_MAX, SIGNAL_SEALED_BYTES_MAX, SIGNAL_TTL_MILLIS,
    SIGNAL_TTL_MILLIS_MAX, SIGNAL_VALUE_BYTES_MAX, SIGNALS_MAX, SIGNALS_PER_THREAD_MAX, Signal,
    SignalError, SignalEvent, SignalTag,
};
pub use slot::{Joining, Slot};
pub use spread::SPREAD_DEGREE;
pub use strange::STRANGE_LOGS_MAX;
pub use tree::{CHILDREN, LEAVES_MAX, Name, Prefix};

/// A peer: the Ed25519 key of its device, proven by the transport.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerKey(pub [u8; 32]);

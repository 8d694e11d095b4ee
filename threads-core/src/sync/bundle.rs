//! Bundles: what a session would send, as bytes for a USB stick, a mail, or a row of QR codes.
//!
//! A bundle is one or more **parts**, one after the other in a file or each for itself. Each is
//! sealed, numbered and signed by the seat that made it, so that parts may come in any order and more
//! than once. What they hold together is a stream of sync messages: a vector, the genesis, control
//! records, keys, data records. [`Replica::import`](super::Replica::import) takes them in as a session
//! does, by the same code: what is here already is passed over.
//!
//! Nobody who finds a bundle learns more than how long it is and of how many parts. It opens for
//! those who hold the thread's service key, members and replicators, or for one seat alone. What is
//! inside a record stays sealed under its epoch in any case.
//!
//! # Examples
//!
//! Bob joins by a ticket and a file; nobody is connected.
//!
//! ```
//! use futures_executor::block_on;
//! use leno_threads_core::store::{MemoryStore, Store};
//! use leno_threads_core::sync::{PeerKey, Replica};
//! use leno_threads_core::sync::bundle::{Export, ExportOptions};
//! use leno_threads_core::thread::{Changes, Opened, Seat, Thread};
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
//! # let (now_millis, suite) = (1_700_000_000_000, Suite::Aes256Gcm);
//! # let stores = [MemoryStore::new(), MemoryStore::new()];
//! # let grant = FrameOp::Grant(GrantOp {
//! #     seat: bobs.id(),
//! #     kem: bobs.kem.public_key().to_bytes(),
//! #     role: Role::Reader,
//! #     scope: Scope::Thread,
//! #     expires_millis: None,
//! #     identity: None,
//! #     recovery: None,
//! #     accepts: Vec::new(),
//! # });
//! # let (view, mut changes, secret) = (stores[0].view()?, Changes::new(), NonceSecret::new(&[1; 32]));
//! # let mut band =
//! #     Thread::create(&*view, 0, alices, secret, suite, &[], now_millis, &mut rng, &mut changes)?;
//! # band.govern(&*view, &[grant], &[], now_millis, &mut rng, &mut changes)?;
//! # band.wrap_missing(&mut rng, &mut changes);
//! # band.append(&*view, THREAD_DOMAIN, &[0x62, b'h', b'i'], now_millis, &mut rng, &mut changes)?;
//! # band.publish(&mut changes);
//! # drop(view);
//! # block_on(stores[0].commit(changes.batch))?;
//! // `band` is Alice's thread; it grants Bob's seat a role and has a record.
//! let mut export = Export::new(&band, ExportOptions::default(), &mut rng)?;
//! let mut file = Vec::new();
//! while let Some(part) = export.next_part(&band, &*stores[0].view()?, &mut rng)? {
//!     file.extend(part);
//! }
//!
//! let secret = NonceSecret::new(&[2; 32]);
//! let mut bob = Replica::load(&*stores[1].view()?, PeerKey([2; 32]), secret)?;
//! let (view, mut changes, mut read) = (stores[1].view()?, Changes::new(), 0);
//! bob.join(band.id(), band.service_key().clone(), bobs, &mut changes);
//! let mut sink = |_: ThreadId, _: &Opened<'_>| read += 1;
//! let it = bob.import(&*view, &file, now_millis, &mut rng, &mut changes, &mut sink)?;
//! block_on(stores[1].commit(changes.batch))?;
//! assert!(it.is_complete && it.refused.is_empty());
//! assert_eq!((it.from, read), (band.seat().id(), 1));
//! # Ok(())
//! # }
//! ```

mod export;
mod import;
mod part;

use std::collections::BTreeMap;

use leno_crdt_codec::cbor::DecodeError;
use leno_crdt_codec::{LogId, Seq};

use crate::store::StoreError;
use crate::thread::{ReceiveError, TakeWrapError, Thread};
use crate::{SeatId, ThreadId, VerifyError};

pub use export::{Export, ExportOptions, PART_BYTES, PART_BYTES_MIN};
pub(super) use import::Imports;
pub use import::{IMPORTS_MAX, REFUSED_MAX, WAITING_BYTES_MAX};
pub use part::{BUNDLE_VERSION, BundleId, PART_BYTES_MAX, Part, parts};

/// What a peer has of a thread: the newest record of each log, and a name for its set of key wraps.
///
/// A bundle carries that of its maker, so that the answer to it can leave out what he has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Vector {
    /// The newest record of each log.
    pub logs: BTreeMap<LogId, Seq>,
    /// Names the set of key wraps, see [`Thread::wraps_digest`].
    pub wraps: [u8; 8],
}

impl Vector {
    /// What is here of a thread.
    #[must_use]
    pub fn of(thread: &Thread) -> Self {
        let logs = thread.logs().filter(|log| log.tip.seq > 0);
        Self {
            logs: logs.map(|log| (log.id, log.tip.seq)).collect(),
            wraps: thread.wraps_digest(),
        }
    }
}

/// What an import came to.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The bundle.
    pub bundle: BundleId,
    /// The thread.
    pub thread: ThreadId,
    /// The seat that made the bundle, as its signature shows.
    pub from: SeatId,
    /// Records that were not here before.
    pub stored: u64,
    /// Records, of any log, that were admitted.
    pub admitted: u64,
    /// What the maker of the bundle had, if the part that says so has come.
    pub has: Option<Vector>,
    /// Logs of which the maker of the bundle has another branch. A session with him brings the proof.
    pub differing: Vec<LogId>,
    /// What was not taken in, and why: the first [`REFUSED_MAX`] of it.
    pub refused: Vec<NotTaken>,
    /// The first part that is missing; none if the bundle is complete.
    pub missing: Option<u32>,
    /// Whether all parts have come.
    pub is_complete: bool,
    /// Whether the bytes end inside a part: what was before it is taken in.
    pub is_cut: bool,
}

impl Imported {
    /// Adds what more parts of the same bundle came to.
    #[must_use]
    pub fn and_then(self, later: Self) -> Self {
        let mut refused = self.refused;
        refused.extend(later.refused);
        refused.truncate(REFUSED_MAX);
        Self {
            stored: self.stored + later.stored,
            admitted: self.admitted + later.admitted,
            refused,
            ..later
        }
    }
}

/// What of a bundle was not taken in; the rest was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// Records. Of their log nothing more is taken from the bundle.
    #[error(transparent)]
    Range(#[from] ReceiveError),
    /// A key wrap.
    #[error(transparent)]
    Wrap(#[from] TakeWrapError),
}

/// Why a bundle is not made or not taken in. What came before the part in question stays.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The bytes are no bundle, or one of another version.
    #[error("the bytes are no bundle of this version")]
    Malformed(#[from] DecodeError),
    /// No thread here has the key that the bundle is sealed under: join by a ticket first.
    #[error("the bundle is of no thread that is here")]
    NoSuchThread,
    /// The bundle is sealed to another seat, or damaged.
    #[error("the bundle does not open for this seat: it is for another, or damaged")]
    DoesNotOpen,
    /// The seat that the part names did not sign it.
    #[error("the part is not signed by seat {seat}")]
    NotSigned {
        /// The seat.
        seat: SeatId,
    },
    /// Parts of more than one bundle in one call, or two different ones with one number.
    #[error("the parts are not of one bundle")]
    Mixed,
    /// So many bytes wait for an earlier part that no more are kept: bring that part first.
    #[error("part {missing} is missing, and too much waits for it")]
    TooMuchWaits {
        /// The first missing part.
        missing: u32,
    },
    /// What the parts hold does not read as messages.
    #[error("the content of the bundle is not well-formed")]
    BadContent(#[source] VerifyError),
    /// A message that has no place there.
    #[error("the bundle holds {what} out of place")]
    OutOfPlace {
        /// Which message.
        what: &'static str,
    },
    /// The genesis is not what the thread's id is the hash of.
    #[error("the bundle's genesis is not the thread's")]
    WrongGenesis,
    /// Parts of so few bytes would hold nothing, or of so many would not be read.
    #[error("parts of {bytes} bytes are not possible")]
    PartBytes {
        /// The length that was asked for.
        bytes: usize,
    },
    /// The seat that the bundle is to be sealed to has no grant in the thread, or no usable key.
    #[error("seat {seat} cannot be the recipient")]
    NoRecipient {
        /// The seat.
        seat: SeatId,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;

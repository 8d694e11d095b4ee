//! Records, logs, sealing, governance and sync of leno threads, without I/O.
//!
//! ```
//! use leno_identity::{AgreementKey, SigningKey};
//! use leno_threads_core::store::{MemoryStore, Store};
//! use leno_threads_core::thread::{Changes, Seat, Thread};
//! use leno_threads_core::{NonceSecret, RosterOp, Suite, THREAD_DOMAIN};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//!
//! let (store, now_millis) = (MemoryStore::new(), 1_700_000_000_000_u64);
//! let seat = Seat {
//!     signing: SigningKey::generate(&mut rng)?,
//!     kem: AgreementKey::generate(&mut rng)?,
//! };
//! let (mut changes, about) = (Changes::new(), [RosterOp::Name("band".to_owned())]);
//! let (secret, suite) = (NonceSecret::new(&[7; 32]), Suite::Aes256Gcm);
//! let view = store.view()?;
//! let mut band =
//!     Thread::create(&*view, 0, seat, secret, suite, &about, now_millis, &mut rng, &mut changes)?;
//! let text = [0x65, b'h', b'e', b'l', b'l', b'o']; // dag-cbor
//! let record = band.append(&*view, THREAD_DOMAIN, &text, now_millis, &mut rng, &mut changes)?;
//! band.publish(&mut changes); // one signature for all that was appended
//! futures_executor::block_on(store.commit(changes.batch))?; // only then does anything leave
//! assert_eq!(band.log(&record.log).map(|log| log.admitted), Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! # Ideas, in the order of need
//!
//! 1. A [`Genesis`] makes a thread; its CID is the thread's id. It names the owner's seat.
//! 2. A record is a [`Header`] and a sealed body. Its [`SealContext`] places it and is the associated
//!    data of the body, so that nothing can be moved. Its id is the CID of the header.
//! 3. Records of one log travel and rest as a [`Run`] with one signature at its end. [`Run::verify`]
//!    is the only way to a [`VerifiedRun`]: an unverified record has no readable payload.
//! 4. Control records carry [`FrameOp`]s, which the [`ServiceKey`] opens, and [`RosterOp`]s, which
//!    members open. [`acl::Governance`] is a function of the set of control records.
//! 5. Bodies are sealed under an [`EpochKey`]; a [`Wrap`] hands it to one seat.
//! 6. [`thread::Thread`] admits what is verified once all that it names is here, and writes.
//! 7. [`sync::Replica`] brings peers level, message by message.
//! 8. [`cut`] finds the prefix of the total order that nothing can change any more; [`fork`] proves
//!    that a log has two branches.
//!
//! State machines read through a borrowed [`store::View`] and return effects in
//! [`thread::Changes`]; `now` and `rng` are arguments. Every byte is described in `docs/format.md`.
//!
//! # Features
//!
//! - `test-util`: [`store`]'s conformance suite for those who implement the port.
//!
//! # Modules
//!
//! | Module | Holds |
//! |---|---|
//! | [`acl`] | who may do what |
//! | [`cut`] | prefixes of the total order |
//! | [`fork`] | proofs that a log has two branches |
//! | [`segment`] | records on a store that several nodes share |
//! | [`store`] | the ports to where rows, blocks and segments rest, and each in memory |
//! | [`sync`] | sessions with peers |
//! | [`thread`] | one thread as a peer holds it |

pub mod acl;
mod control;
pub mod cut;
mod epoch;
pub mod fork;
mod frontier;
mod genesis;
mod head;
mod header;
mod id;
mod keys;
mod now;
mod run;
mod seal;
pub mod segment;
pub mod store;
pub mod sync;
pub mod thread;

pub use control::*;
pub use epoch::{KeyLink, ROSTER_DOMAIN, THREAD_DOMAIN, Wrap, WrapError};
pub use frontier::Frontier;
pub use genesis::{FORMAT_VERSION, GENESIS_BYTES_MAX, Genesis, Policy};
pub use head::{HeadError, SignedHead, VerifiedHead};
pub use header::{Header, KeyRef, REFS_MAX, SealContext, SealedPart};
pub use id::{BodyDigest, EpochId, OpRef, RecordId, RecordRef, SeatId, ThreadId};
#[doc(hidden)]
pub use leno_crdt_codec::bug;
pub use leno_crdt_codec::{Dot, LogId, Place, Seq, Stamp};
pub use now::Now;
pub use run::{
    RUN_BYTES_MAX, RUN_RECORDS_MAX, Record, Run, Tip, VerifiedRun, VerifyError, decode_row,
};
pub use seal::{
    EpochKey, NonceSecret, OnceKind, OpenError, PLAINTEXT_BYTES_MAX, Padding,
    RECORDS_PER_EPOCH_MAX, SEAL_BYTES, SEALED_BYTES_MAX, SEALED_ONCE_BYTES, Sealer, ServiceKey,
    Suite, open_once, padding_is_good, seal_once,
};

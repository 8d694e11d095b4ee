//! Records, logs, sealing, governance and sync of leno threads, without I/O.

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
mod run;
mod seal;
pub mod store;
pub mod sync;
pub mod thread;

pub use control::*;
pub use epoch::{ROSTER_DOMAIN, THREAD_DOMAIN, Wrap, WrapError};
pub use frontier::Frontier;
pub use genesis::{FORMAT_VERSION, GENESIS_BYTES_MAX, Genesis, Policy};
pub use head::{HeadError, SignedHead, VerifiedHead};
pub use header::{Header, KeyRef, REFS_MAX, SealContext, SealedPart};
pub use id::{BodyDigest, EpochId, OpRef, RecordId, RecordRef, SeatId, ThreadId};
pub use leno_crdt_codec::{Dot, LogId, Place, Seq, Stamp};
pub use run::{
    RUN_BYTES_MAX, RUN_RECORDS_MAX, Record, Run, Tip, VerifiedRun, VerifyError, decode_row,
};
pub use seal::{
    EpochKey, NonceSecret, OpenError, PLAINTEXT_BYTES_MAX, Padding, RECORDS_PER_EPOCH_MAX,
    SEAL_BYTES, SEALED_BYTES_MAX, Sealer, ServiceKey, Suite, padding_is_good,
};

//! Stamps, the one total order, operations and the deterministic reducers of leno.

pub mod cbor;
mod codec;
mod hash;
pub mod json;
mod order;
mod reduce;

pub use codec::{Codec, OpError};
pub use hash::{STATE_HASH_LABEL, state_hash};
pub use order::{Dot, LogId, Place, Seq, Stamp};
pub use reduce::{CHECKPOINT_OPS, ImpureError, Inserted, Reducer, check_purity, naive};

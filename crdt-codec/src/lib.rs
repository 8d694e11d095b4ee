//! Stamps, the one total order, operations and the deterministic reducers of leno.

pub mod cbor;
mod order;

pub use order::{Dot, LogId, Place, Seq, Stamp};

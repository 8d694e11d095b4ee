//! A machine that does not keep to the rules: it lies in its messages, writes records that no honest
//! peer writes, tells others another branch of its logs than some, and goes on from copies of itself.
//!
//! It holds what it was given: nothing, the service key alone (a replicator), or a seat that writes or
//! governs. The honest machines must come level among themselves whatever it does.

mod double;
mod forge;
mod liar;
mod lie;

pub(crate) use forge::{FAR_MILLIS, forge, seats_of};
pub(crate) use liar::{Liar, Memory};

//! Scenarios and properties of threads: records, governance and sync, without I/O.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests, which may panic as the tests do"
)]

mod attack;
mod bundle;
mod bytes;
mod clock;
mod convergence;
mod cut;
mod delivery;
mod fences;
mod forgery;
mod forget;
mod forks;
mod governance;
mod hostile;
mod labels;
mod limits;
mod many;
mod multiformats;
mod pack;
mod pair;
mod parked;
mod poison;
mod quarantine;
mod quota;
mod removal;
mod segment;
mod session;
mod shared;
mod signal;
mod size;
mod spread;
mod sync;
mod util;
mod vectors;
mod wraps;
mod wycheproof;

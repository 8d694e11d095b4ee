//! Object stores against the ports' contracts, and nodes that share them.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests stop at what they do not expect, like tests"
)]

mod band;
mod contract;
mod faults;
mod hostile;
mod nodes;
mod serve;

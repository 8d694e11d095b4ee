//! The redb store against the port's contract, crashes, and damaged files.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests stop at what they do not expect, like tests"
)]

mod basic;
mod crash;
mod damage;
mod disk;
mod errors;
mod history;
mod journal;
mod kill;
mod lives;
mod peers;
mod workload;

//! Tests of documents as applications and the facade see them.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests, which may panic and look at one variant of many"
)]

mod band;
mod events;
mod limits;
mod lives;
mod props;
mod rows;
mod sealed;
mod transactions;
mod world;

//! Laws and scenarios of the codec.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests, which may panic and look at one variant of many"
)]

mod laws;
mod lies;
mod oracle;
mod props;
mod reduce;
mod showpiece;
mod vectors;
mod world;

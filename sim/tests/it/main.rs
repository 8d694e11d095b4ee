//! Runs of many seeds, and scenarios.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it does not expect"
)]

mod scenario;
mod swarm;

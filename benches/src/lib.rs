//! What the benchmarks of leno share: events, replicas without a network, clocks, and the table.
//!
//! The benchmarks themselves are in `goals/`, each beside its floor, and in `paths/`, for work on one
//! path. `README.md` says how to run them and what each line of the table means.
//!
//! - [`bare`]: a peer of `leno-threads-core` alone, without documents.
//! - [`event`]: the workload, from a fixed seed.
//! - [`replica`]: a peer of `leno-threads-core` and `leno-threads-db` on any store, driven by hand.
//! - [`measure`]: samples of time.
//! - [`report`]: goals beside what was measured.

pub mod bare;
pub mod event;
pub mod measure;
pub mod replica;
pub mod report;

/// What a benchmark may fail with: it stops there.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

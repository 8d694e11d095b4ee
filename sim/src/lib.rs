//! A deterministic simulator of leno: whole peers on a faulty network, disk and clock, from one seed.
//!
//! ```
//! use leno_sim::RunOptions;
//!
//! // Three to seven machines, a random subset of faults, two hundred steps; then the faults stop, all
//! // must come level, and every invariant is checked.
//! let outcome = leno_sim::run(&RunOptions { steps: 200, ..RunOptions::new(17) });
//! assert_eq!(outcome.failure, None);
//! ```
//!
//! # Ideas
//!
//! 1. A [`World`] holds machines. On each runs a real [`Peer`](leno::Peer) with its real
//!    [`Driver`](leno::Driver), on one executor for all that polls what is woken in an order drawn
//!    from the seed. There are no threads, no clock of the computer, and no other randomness.
//! 2. A machine has a [`SimClock`], a [`Disk`] and an endpoint of the [`SimNetwork`], each of which
//!    fails as told, and keeps to the contract of its port while it does.
//! 3. A [`Scenario`] tells named peers what to do, and what to expect: for the tests of applications.
//! 4. A [`run`] draws a [`Plan`] from its seed: how many machines, and which [`Fault`]s. Applications
//!    write and read meanwhile; a ledger outside of the peers notes what each was told and shown.
//! 5. The [`catalogue`] lists all invariants, and how each is checked.
//! 6. The same [`RunOptions`] give the same run to the last byte, which its [`TraceHash`] shows. What
//!    fails is [shrunk](shrink()) to the least run that still does.
//!
//! # Features
//!
//! - `redb` (default): a share of the runs rests on the store of `leno-store-redb`, in a file that
//!   loses what was not synced.

mod byzantine;
mod catalogue;
mod clock;
mod counter;
mod dice;
mod disk;
mod evidence;
mod executor;
mod fault;
mod ledger;
mod machine;
mod network;
mod probe;
mod scenario;
mod shrink;
mod swarm;
mod tap;
mod time;
mod trace;
mod workload;
mod world;

pub use catalogue::{Check, Invariant, catalogue};
pub use clock::{START_MILLIS, SimClock};
pub use counter::Counter;
pub use dice::Dice;
pub use disk::{Disk, DiskCounts, DiskFaults, DiskKind, SimStore};
pub use evidence::{Evidence, Heads, Sight};
pub use fault::{Fault, UnknownFault};
pub use machine::{Machine, MachineOptions, Power};
pub use network::{
    Breach, Conditions, Counts, MESSAGE_OVERHEAD_BYTES, SimNetwork, SimTransport, address_of,
};
pub use probe::Probe;
pub use scenario::{Actor, Scenario};
pub use shrink::shrink;
pub use swarm::{Failure, Outcome, PEERS_MAX, PEERS_MIN, Plan, Profile, RunOptions, run};
pub use time::Time;
pub use trace::TraceHash;
pub use world::World;

/// Compiles the examples of the page that people see first.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

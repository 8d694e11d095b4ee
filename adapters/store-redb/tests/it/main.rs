//! The redb store against the port's contract, crashes, and damaged files.

mod basic;
mod crash;
mod damage;
mod disk;
mod kill;
mod workload;

//! Scenarios and properties of threads: records, governance and sync, without I/O.

mod clock;
mod convergence;
mod cut;
mod forgery;
mod forks;
mod governance;
mod hostile;
mod parked;
mod size;
mod sync;
mod util;

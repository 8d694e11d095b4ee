//! Scenarios of threads: records, governance and sync, without I/O.

mod sync;
mod util;

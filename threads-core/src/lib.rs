//! Records, logs, sealing, governance and sync of leno threads, without I/O.

pub mod store;

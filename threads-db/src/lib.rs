//! Collections of documents on leno threads, without I/O.

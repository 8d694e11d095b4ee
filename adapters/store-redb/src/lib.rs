//! The default on-disk store of leno: one redb file.

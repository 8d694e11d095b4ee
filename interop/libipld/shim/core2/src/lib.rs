//! What libipld takes from `core2`, which is what `std` has.

/// I/O traits and errors.
pub mod io {
    pub use std::io::*;
}

/// The error trait.
pub mod error {
    pub use std::error::*;
}

//! A hub as its own process, used as its accounts use it.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops at what it does not expect"
)]

mod api;
mod process;
mod shared;
mod support;

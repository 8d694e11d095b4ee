//! The tests of the crate's public face, one module per idea.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests may panic as the tests do; clippy lets only the tests themselves"
)]

mod agreement;
mod certificate;
mod did;
mod ed25519;
mod identity;
mod key;
mod props;
mod secret;
mod support;

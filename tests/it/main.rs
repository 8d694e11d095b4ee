//! Whole peers, as an application sees them.

#![cfg(all(feature = "redb", feature = "libp2p", feature = "tokio"))]
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops at what it does not expect, and looks for what it does"
)]

mod bundles;
mod clock;
mod commits;
mod delivery;
mod discovery;
mod events;
#[path = "../../examples/roles.rs"]
mod example_roles;
#[expect(dead_code, reason = "its `main` runs as an example")]
#[path = "../../examples/own_store.rs"]
mod example_store;
#[path = "../../examples/own_transport.rs"]
mod example_transport;
mod facade;
mod failing;
mod flood;
mod governance;
mod kill;
#[cfg(feature = "ws")]
mod networks;
mod processes;
mod readme;
mod rendezvous;
mod replicate;
mod restored;
#[cfg(feature = "shared")]
mod shared;
mod signals;
mod strangers;
mod support;
mod ticket;

#[tokio::test]
async fn example_of_an_own_store_holds() {
    example_store::run().await.unwrap();
}

#[test]
fn example_of_roles_holds() {
    example_roles::main().unwrap();
}

#[test]
fn example_of_an_own_transport_holds() {
    example_transport::main().unwrap();
}

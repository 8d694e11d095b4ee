//! The transport port of leno: how opaque messages reach another device.
//!
//! ```
//! use futures_executor::block_on;
//! use leno_transport_trait::memory::{Conditions, MemoryNetwork};
//! use leno_transport_trait::{Event, PeerId, Transport, TransportError};
//!
//! # fn main() -> Result<(), TransportError> {
//! let network = MemoryNetwork::new(7, Conditions::default());
//! let alice = network.endpoint(PeerId([1; 32]));
//! let bob = network.endpoint(PeerId([2; 32]));
//!
//! block_on(async {
//!     alice.dial(&bob.addresses()[0]).await?;
//!     let Some(Event::Connected { link, .. }) = alice.next().await else { panic!() };
//!     alice.send(link, b"hello".to_vec()).await?;
//!
//!     assert!(matches!(bob.next().await, Some(Event::Connected { .. })));
//!     let Some(Event::Message { from, bytes, .. }) = bob.next().await else { panic!() };
//!     assert_eq!((from, bytes.as_slice()), (alice.local(), &b"hello"[..]));
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # The ideas
//!
//! - A **message** is opaque bytes, at most [`MESSAGE_BYTES_MAX`] of them. Nothing here knows what is
//!   in one.
//! - A **peer** is a device that proved, while connecting, that it holds the Ed25519 key that is its
//!   [`PeerId`]. What that device may do is decided above.
//! - A **link** is one connection to one peer: an ordered, reliable stream of messages both ways
//!   until it ends, and then nothing. A peer has at most one live link. Each has a [`LinkId`] of its
//!   own, under which messages come and go, so that none of an old link is taken for one of the next.
//! - **Room**, not delivery, is what [`Transport::send`] waits for. Delivery is at most once; whoever
//!   needs to know that a message arrived says so in a message of its own.
//!
//! # Features
//!
//! - `test-util`: the module `testing`, the conformance checks that every implementation runs.
//!
//! # Modules
//!
//! - [`memory`]: a network within one process, with latency, loss, bandwidth and partitions from one
//!   seed and a clock that the test moves.

mod address;
mod backoff;
mod error;
mod event;
mod link_id;
mod links;
pub mod memory;
mod outbox;
mod peer_id;
#[cfg(feature = "test-util")]
pub mod testing;
mod transport;
mod transports;
mod turns;

pub use address::{ADDRESS_BYTES_MAX, Address, AddressError};
pub use backoff::Backoff;
pub use error::TransportError;
pub use event::{DisconnectReason, Event};
pub use link_id::LinkId;
pub use links::Links;
pub use outbox::Outbox;
pub use peer_id::{PeerId, PeerIdError};
pub use transport::{MESSAGE_BYTES_MAX, Transport};
pub use transports::{OtherDevice, Transports};

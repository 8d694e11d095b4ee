//! The default network of leno: libp2p over TCP, Noise, Yamux and QUIC.
//!
//! ```
//! use leno_transport_libp2p::{Builder, Libp2p};
//! use leno_transport_trait::{Event, Transport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let here = ["/ip4/127.0.0.1/tcp/0"];
//! let alice = Libp2p::listen(Builder::new([1; 32]).listen_on(here)).await?;
//! let bob = Libp2p::listen(Builder::new([2; 32]).listen_on(here)).await?;
//!
//! alice.dial(&bob.addresses()[0]).await?;
//! let Some(Event::Connected { link, .. }) = alice.next().await else { panic!() };
//! alice.send(link, b"hello".to_vec()).await?;
//!
//! assert!(matches!(bob.next().await, Some(Event::Connected { .. })));
//! let Some(Event::Message { from, bytes, .. }) = bob.next().await else { panic!() };
//! assert_eq!((from, bytes.as_slice()), (alice.local(), &b"hello"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # The ideas
//!
//! - A [`Libp2p`] is an endpoint: it listens, and is a
//!   [`Transport`](leno_transport_trait::Transport). The [`Builder`] says how.
//! - The [`PeerId`](leno_transport_trait::PeerId) of a device is its Ed25519 key, proven by Noise or
//!   by QUIC's TLS. Devices with other keys are refused. An address is a multiaddr over TCP or QUIC to
//!   an IP address; with `/p2p/..` at its end, only that device will do.
//! - A link is one stream of the protocol `/leno/1`, which both sides keep open and write frames to
//!   whenever they have something: a push costs half a round trip. The source file `wire.rs` has the
//!   bytes.
//! - If there is more than one connection to a peer, the side with the lower id says which of them is
//!   the link (`behaviour.rs` has the rules), and the others are closed without a word.
//! - A peer that this side dialled is dialled again when its link is lost, at growing intervals, until
//!   either side hangs up or this one closes. Nothing else is ever dialled; in particular no address
//!   that a peer named. Whoever passes on addresses of strangers filters them first.
//! - Everything held for a peer is bounded: connections by count, queues by bytes, a frame by its
//!   length before memory is taken, silence by time.
//!
//! # Features
//!
//! - `mdns`: finds peers on the local network; `Builder::find_neighbours`.
//! - `relay`: reaches others, and is reached, through a relay, and can be one: an address may be
//!   `<relay>/p2p-circuit/p2p/<peer>`. What is relayed is encrypted between the two ends. To dial
//!   through a relay, or to listen through one, makes a link to the relay as well.
//!   `Builder::relay_for_others`.

mod behaviour;
mod builder;
mod dial;
mod driver;
mod handle;
mod handler;
mod link;
mod peer;
mod place;
mod redial;
#[cfg(feature = "relay")]
mod relay;
mod swarm;
mod wire;

pub use builder::{Builder, ListenError};
pub use handle::Libp2p;

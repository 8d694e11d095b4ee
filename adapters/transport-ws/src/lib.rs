//! Web sockets for leno, client and server: encrypted by Noise, bound to device keys.
//!
//! ```
//! use leno_transport_trait::{Event, Transport};
//! use leno_transport_ws::{Builder, Ws};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let alice = Ws::listen(Builder::new([1; 32])).await?;
//! let bob = Ws::listen(Builder::new([2; 32]).listen_on(["127.0.0.1:0"])).await?;
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
//! - A [`Ws`] is an endpoint: it listens, dials, and is a
//!   [`Transport`](leno_transport_trait::Transport). The [`Builder`] says how. What it speaks, a
//!   browser's `WebSocket` can speak: binary messages, a path, a subprotocol, and no header of ours.
//! - An address is a URL that ends in `/leno`, or in `/leno/` and the 64 hexadecimal digits of the
//!   device's key; then only that device will do.
//! - Both sides prove their device's key in a Noise handshake within the web socket, and everything
//!   after it is encrypted and authenticated, over plain `ws://` too: to a proxy that ends TLS, and to
//!   whoever is on the way, it is noise. The source file `noise.rs` has the handshake.
//! - Messages are cut into frames that fit into a Noise message ([`wire`]).
//! - If there is more than one connection to a peer, the side with the lower id says which of them is
//!   the link (`table.rs` has the rules), and the others are closed without a word.
//! - A peer that this side dialled is dialled again when its link is lost, at growing intervals, until
//!   either side hangs up or this one closes.
//! - Everything held for a peer is bounded: connections by count, strangers by count and time and per
//!   IP address, queues and messages by bytes, silence and stalls by time.
//! - A hub that serves pages and peers on one port hands over what it accepted: see [`Ws::accept`].
//!
//! # Features
//!
//! - `tls`: dials `wss://` too. To serve it, put a proxy in front, or hand over what your own TLS
//!   accepted.
//!
//! # Modules
//!
//! - [`wire`]: the frames within the channel.

mod address;
mod attempt;
mod builder;
mod connection;
mod endpoint;
mod gate;
mod handle;
mod listen;
mod noise;
mod socket;
mod table;
mod tls;
pub mod wire;

pub use builder::{Builder, ListenError};
pub use handle::Ws;
pub use tokio_tungstenite::tungstenite::http;

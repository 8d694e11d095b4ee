//! The libp2p adapter over loopback: the port's conformance suite, hostile peers, restarts.

#![expect(
    clippy::unwrap_used,
    reason = "a test says by its line what went wrong"
)]

mod conformance;
mod hostile;
mod link;
#[cfg(feature = "mdns")]
mod neighbours;
#[cfg(feature = "relay")]
mod relay;

use std::future::Future;
use std::time::Duration;

use leno_transport_libp2p::{Builder, Libp2p};
use leno_transport_trait::{Address, DisconnectReason, Event, LinkId, PeerId, Transport};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Runs a test on one thread, and ends it with a failure if it takes far too long.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("ends in time");
    });
}

/// An endpoint whose secret is this byte, repeated.
fn builder(secret: u8, listen_on: &str) -> Builder {
    Builder::new([secret; 32])
        .listen_on([listen_on])
        .redial(Duration::from_millis(5)..=Duration::from_millis(50))
}

async fn listen(secret: u8, listen_on: &str) -> Libp2p {
    Libp2p::listen(builder(secret, listen_on))
        .await
        .expect("listens")
}

fn address(of: &Libp2p) -> Address {
    of.addresses().into_iter().next().expect("has an address")
}

async fn connected(at: &Libp2p) -> (PeerId, LinkId) {
    match at.next().await {
        Some(Event::Connected { peer, link }) => (peer, link),
        other => panic!("expected Connected, not {other:?}"),
    }
}

async fn disconnected(at: &Libp2p) -> (LinkId, DisconnectReason) {
    match at.next().await {
        Some(Event::Disconnected { link, reason, .. }) => (link, reason),
        other => panic!("expected Disconnected, not {other:?}"),
    }
}

async fn message(at: &Libp2p) -> Vec<u8> {
    match at.next().await {
        Some(Event::Message { bytes, .. }) => bytes,
        other => panic!("expected Message, not {other:?}"),
    }
}

//! The adapter over loopback: the port's conformance suite, hostile strangers, restarts.

#![expect(
    clippy::unwrap_used,
    reason = "a test says by its line what went wrong"
)]

mod conformance;
mod hostile;
mod link;
mod served;
#[cfg(feature = "tls")]
mod tls;

use std::future::Future;
use std::time::Duration;

use leno_transport_trait::{Address, DisconnectReason, Event, LinkId, PeerId, Transport};
use leno_transport_ws::{Builder, Ws};

const HERE: &str = "127.0.0.1:0";

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
fn builder(secret: u8) -> Builder {
    Builder::new([secret; 32])
        .listen_on([HERE])
        .redial(Duration::from_millis(5)..=Duration::from_millis(50))
}

async fn listen(secret: u8) -> Ws {
    Ws::listen(builder(secret)).await.expect("listens")
}

/// Where to dial it, and only it.
fn address(of: &Ws) -> Address {
    of.addresses().into_iter().next().expect("has an address")
}

/// Where to dial whoever is there.
fn place(of: &Ws) -> String {
    let address = address(of).to_string();
    let (place, _) = address.rsplit_once('/').unwrap();
    place.to_owned()
}

async fn connected(at: &Ws) -> (PeerId, LinkId) {
    match at.next().await {
        Some(Event::Connected { peer, link }) => (peer, link),
        other => panic!("expected Connected, not {other:?}"),
    }
}

async fn disconnected(at: &Ws) -> (LinkId, DisconnectReason) {
    match at.next().await {
        Some(Event::Disconnected { link, reason, .. }) => (link, reason),
        other => panic!("expected Disconnected, not {other:?}"),
    }
}

async fn message(at: &Ws) -> Vec<u8> {
    match at.next().await {
        Some(Event::Message { bytes, .. }) => bytes,
        other => panic!("expected Message, not {other:?}"),
    }
}

//! Tickets and cards between peers on libp2p.

use std::time::Duration;

use leno::store::MemoryStore;
use leno::{Card, Libp2p, Libp2pBuilder, Peer, Role, Ticket};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joiner_dials_all_addresses_of_a_ticket() {
    let store = MemoryStore::new();
    let device = Peer::device(&store).await.unwrap();
    let builder = Libp2pBuilder::new(device.signing_key().to_secret_bytes())
        .listen_on(["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"])
        // It comes first, and nobody is there.
        .announce(["/ip4/127.0.0.1/tcp/1"]);
    let alice = Peer::builder()
        .store(store)
        .transport(Libp2p::listen(builder).await.unwrap())
        .start()
        .await
        .unwrap();
    let nowhere: [&str; 0] = [];
    let bob = Peer::builder().listen(nowhere).start().await.unwrap();
    let band = alice.create_thread("band").await.unwrap();

    let card: Card = reread(&bob.card("Bob").await.unwrap());
    assert_eq!(card.addresses(), []);
    let ticket: Ticket = reread(&band.grant(&card, Role::Writer).await.unwrap());
    assert_eq!(ticket.addresses(), alice.addresses());
    assert_eq!(ticket.addresses().len(), 3);
    // The ends by which libp2p names the peer are left out.
    let text = ticket.to_string();
    assert!(text.len() <= 400, "{}", text.len());
    let first = &ticket.addresses()[0];
    assert!(first.as_str().contains("/tcp/1/"), "{first}");

    let bobs_band = bob.join(&ticket).await.unwrap();
    assert!(bob.sync_once(DEADLINE).await.unwrap().is_complete());
    assert_eq!(
        bobs_band.state_hash().await.unwrap(),
        band.state_hash().await.unwrap()
    );

    let card: Card = reread(&alice.card("Alice").await.unwrap());
    assert_eq!(card.addresses(), alice.addresses(), "cards name them too");
    for peer in [alice, bob] {
        peer.close().await.unwrap();
    }
}

/// Sends something as text.
fn reread<T: ToString + std::str::FromStr<Err = leno::TextError>>(it: &T) -> T {
    it.to_string().parse().unwrap()
}

//! Peers on real networks, several at once.

use leno::store::MemoryStore;
use leno::{Event, Ipld, Peer, Role};

use crate::support::{id, song};

const TIME: std::time::Duration = std::time::Duration::from_secs(20);

/// Alice on libp2p and web sockets, Bob on web sockets alone, Carol on libp2p alone: Bob and Carol
/// have no network in common, and meet by Alice.
#[tokio::test]
async fn peers_of_different_networks_meet_by_one_that_has_both() {
    let both = Peer::builder()
        .store(MemoryStore::new())
        .listen(["/ip4/127.0.0.1/tcp/0"])
        .listen_ws(["127.0.0.1:0"]);
    let alice = both.start().await.unwrap();
    let schemes: Vec<_> = alice
        .addresses()
        .iter()
        .map(|it| it.as_str()[..5].to_owned())
        .collect();
    assert_eq!(schemes, ["/ip4/", "ws://"]);
    let bob = Peer::builder().listen_ws([""; 0]).start().await.unwrap();
    let carol = Peer::builder().listen([""; 0]).start().await.unwrap();

    let band = alice.create_thread("band").await.unwrap();
    band.collection("songs")
        .put(&id("a"), &song("one"))
        .await
        .unwrap();
    for peer in [&bob, &carol] {
        let mut events = peer.events().await.unwrap();
        let card = peer.card("x").await.unwrap();
        // The ticket names both addresses; each dials the one that it understands.
        let ticket = band.grant(&card, Role::Writer).await.unwrap();
        let joined = peer.join(&ticket).await.unwrap();
        assert!(peer.sync_once(TIME).await.unwrap().is_complete());
        let read: Option<Ipld> = joined.collection("songs").get(&id("a")).await.unwrap();
        assert!(read.is_some());
        let mut connected = 0;
        while let Some(event) = futures_util::FutureExt::now_or_never(events.next()).flatten() {
            connected += usize::from(matches!(event, Event::Connected { .. }));
        }
        assert_eq!(connected, 1, "one link, though two addresses were dialled");
    }

    let bobs = bob.thread(band.id()).await.unwrap();
    bobs.collection("songs")
        .put(&id("b"), &song("two"))
        .await
        .unwrap();
    let carols = carol.thread(band.id()).await.unwrap();
    let mut live = carols.collection::<Ipld>("songs").watch().await.unwrap();
    let seen = async {
        while carols
            .collection::<Ipld>("songs")
            .get(&id("b"))
            .await
            .unwrap()
            .is_none()
        {
            live.next().await;
        }
    };
    tokio::time::timeout(TIME, seen)
        .await
        .expect("it comes by Alice");
    for peer in [alice, bob, carol] {
        peer.close().await.unwrap();
    }
}

//! What a hub is for: it carries, survives, and lets go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leno::{Event, Role};

use crate::support::{
    ANN, DEADLINE, Network, OPERATOR, Process, Song, configure, peer, peer_on, until,
};

fn song(number: u64) -> Song {
    Song {
        title: format!("Psalm {number}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_carries_between_those_who_never_meet() {
    carries(Network::Libp2p, Network::Libp2p).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_carries_between_networks() {
    carries(Network::Ws, Network::WsBesideHttp).await;
    carries(Network::WsBesideHttp, Network::Libp2p).await;
}

/// Alice and Bob are never there at the same time.
async fn carries(alices: Network, bobs: Network) {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let hub = Process::start(folder.path());

    let (at_alice, at_bob) = (hub.address(alices), hub.address(bobs));
    let (alice, bob) = (peer_on(alices).await, peer_on(bobs).await);
    let band = alice.create_thread("band").await.unwrap();
    let (status, answer) = hub.carry(ANN, &band, Role::Replicator).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["bytes_promised"], 10_000_000);
    let songs = band.collection::<Song>("songs");
    songs.insert(&song(1)).await.unwrap();
    let card = bob.card("Bob").await.unwrap();
    let ticket = band.grant(&card, Role::Writer).await.unwrap();
    alice.connect(&at_alice).await.unwrap();
    assert!(alice.sync_once(DEADLINE).await.unwrap().is_complete());
    let (status, seen) = hub.ask(OPERATOR, "GET /v1/status", None);
    assert_eq!(
        (status, &seen["connected"], &seen["threads"]),
        (200, &1.into(), &1.into())
    );
    alice.close().await.unwrap();

    let bobs = bob.join(&ticket).await.unwrap();
    bob.connect(&at_bob).await.unwrap();
    let theirs = bobs.collection::<Song>("songs");
    until("Bob's copy", || async {
        theirs.count().await.ok() == Some(1)
    })
    .await;
    theirs.insert(&song(2)).await.unwrap();
    assert_eq!(theirs.count().await.unwrap(), 2);
    hub.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_it_loses_nothing() {
    killed_under_load(Network::Libp2p).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_of_web_sockets_it_loses_nothing() {
    killed_under_load(Network::WsBesideHttp).await;
}

/// Killed again and again while two peers write through it: nothing that it acknowledged is lost, and
/// everything arrives.
async fn killed_under_load(network: Network) {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let mut hub = Process::start(folder.path());
    let (alice, bob) = (peer_on(network).await, peer_on(network).await);
    let band = alice.create_thread("band").await.unwrap();
    assert_eq!(hub.carry(ANN, &band, Role::Replicator).await.0, 201);
    alice.connect(&hub.address(network)).await.unwrap();
    assert!(alice.sync_once(DEADLINE).await.unwrap().is_complete());
    let card = bob.card("Bob").await.unwrap();
    let ticket = band.grant(&card, Role::Writer).await.unwrap();
    let bobs = bob.join(&ticket).await.unwrap();
    let (alices, theirs) = (
        band.collection::<Song>("songs"),
        bobs.collection::<Song>("songs"),
    );
    until("Bob's role and his key", || async {
        theirs.count().await.is_ok()
    })
    .await;
    // From here on they meet only through the hub.
    let (acknowledged, writes) = (Arc::new(AtomicU64::new(0)), 600_u64);
    let mut events = alice.events().await.unwrap();
    let seen = acknowledged.clone();
    let told = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Replicated { .. } = event {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let writer = tokio::spawn({
        let (alices, theirs) = (alices.clone(), theirs.clone());
        async move {
            for number in 0..writes / 2 {
                alices.insert(&song(number)).await.unwrap();
                theirs.insert(&song(number)).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    });
    for _ in 0..5 {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        hub.kill();
        hub = Process::start(folder.path());
        for peer in [&alice, &bob] {
            peer.connect(&hub.address(network)).await.unwrap();
        }
    }
    writer.await.unwrap();
    for (thread, songs) in [(&band, &alices), (&bobs, &theirs)] {
        until("all songs", || async {
            songs.count().await.ok() == Some(writes)
        })
        .await;
        until("an empty outbox", || async {
            thread
                .status()
                .await
                .is_ok_and(|it| it.outbox == 0 && it.quarantined == 0)
        })
        .await;
    }
    let hashes = (
        band.state_hash().await.unwrap(),
        bobs.state_hash().await.unwrap(),
    );
    assert_eq!(hashes.0, hashes.1);
    assert!(acknowledged.load(Ordering::SeqCst) > 0);
    told.abort();

    // What was acknowledged is there without its authors, after one more loss of power.
    for peer in [&alice, &bob] {
        peer.pause().await.unwrap();
    }
    hub.kill();
    let hub = Process::start(folder.path());
    let carried = hub.thread(ANN, band.id()).unwrap();
    let stored = band.status().await.unwrap().stored;
    assert_eq!(carried["records"], stored);
    hub.stop();
}

/// Whoever reads that the hub is there may tell it to end at once.
#[test]
fn hub_that_is_told_to_stop_at_once_stops_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    for _ in 0..10 {
        Process::start(folder.path()).stop();
    }
}

/// A member removes the hub: it deletes its copy by itself, and the account has room again.
#[tokio::test(flavor = "multi_thread")]
async fn removed_hub_lets_go() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let hub = Process::start(folder.path());
    let alice = peer().await;
    let band = alice.create_thread("band").await.unwrap();
    assert_eq!(hub.carry(ANN, &band, Role::Replicator).await.0, 201);
    alice.connect(&hub.address).await.unwrap();
    assert!(alice.sync_once(DEADLINE).await.unwrap().is_complete());
    let members = band.members().await.unwrap();
    let seat = members
        .iter()
        .find(|it| it.role == Role::Replicator)
        .unwrap();
    band.remove_replicator(seat.seat).await.unwrap();
    until("the end of the copy", || async {
        hub.thread(ANN, band.id()).is_none()
    })
    .await;
    let (_, status) = hub.ask(ANN, "GET /v1/status", None);
    assert_eq!(status["bytes_promised"], 0);
}

/// It is asked to leave: members see it go.
#[tokio::test(flavor = "multi_thread")]
async fn released_thread_is_left_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let hub = Process::start(folder.path());
    let alice = peer().await;
    let band = alice.create_thread("band").await.unwrap();
    assert_eq!(hub.carry(ANN, &band, Role::Replicator).await.0, 201);
    alice.connect(&hub.address).await.unwrap();
    assert!(alice.sync_once(DEADLINE).await.unwrap().is_complete());
    let release = format!("DELETE /v1/threads/{}", band.id());
    assert_eq!(hub.ask(ANN, &release, None).0, 204);
    assert!(hub.thread(ANN, band.id()).is_none());
    until("the hub's leave", || async {
        band.members().await.unwrap().len() == 1
    })
    .await;
    assert_eq!(hub.ask(ANN, &release, None).0, 404);
}

/// Whoever grants it a key by mistake, or to frame it: it gives the thread up.
#[tokio::test(flavor = "multi_thread")]
async fn hub_that_could_read_gives_up() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let hub = Process::start(folder.path());
    let alice = peer().await;
    for role in [Role::Reader, Role::Writer] {
        let band = alice.create_thread("band").await.unwrap();
        assert_eq!(hub.carry(ANN, &band, role).await.0, 201);
        until("the end of the copy", || async {
            hub.thread(ANN, band.id()).is_none()
        })
        .await;
    }
}

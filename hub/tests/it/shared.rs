//! Hubs that share a store: one of them is lost with its disk, and another one goes on.

use std::io::Write;
use std::path::Path;

use leno::Role;
use serde_json::json;

use crate::support::{ANN, DEADLINE, Process, Song, configure, peer, until};

/// As [`configure`], with a shared store.
fn configure_shared(folder: &Path, objects: &Path) {
    configure(folder);
    let path = folder.join("hub.toml");
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    let url = format!("file://{}", objects.display());
    write!(file, "\n[shared]\nurl = {url:?}\n").unwrap();
}

fn song(number: u64) -> Song {
    Song {
        title: format!("Psalm {number}"),
    }
}

/// Whether all of a thread is on the shared store, as the hub says.
fn is_shared(hub: &Process, id: leno::ThreadId) -> bool {
    let carried = hub.thread(ANN, id);
    carried.is_some_and(|carried| carried["shared"] == true)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hub_takes_the_place_of_one_that_is_lost_with_its_disk() {
    let objects = tempfile::tempdir().unwrap();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    configure_shared(one.path(), objects.path());
    configure_shared(two.path(), objects.path());
    let hub = Process::start(one.path());
    let other = Process::start(two.path());

    let (alice, bob) = (peer().await, peer().await);
    let band = alice.create_thread("band").await.unwrap();
    assert_eq!(hub.carry(ANN, &band, Role::Replicator).await.0, 201);
    // The other hub has a seat too, and is not asked to carry anything yet.
    let others = band
        .grant(&other.card(ANN), Role::Replicator)
        .await
        .unwrap();
    let bobs = bob.card("Bob").await.unwrap();
    let bobs = band.grant(&bobs, Role::Reader).await.unwrap();
    alice.connect(&hub.address).await.unwrap();
    let songs = band.collection::<Song>("songs");
    for number in 0..50 {
        songs.insert(&song(number)).await.unwrap();
    }
    assert!(alice.sync_once(DEADLINE).await.unwrap().is_complete());
    let acknowledged = band.status().await.unwrap();
    assert_eq!(acknowledged.outbox, 0, "the hub keeps all");
    until("the shared copy", || async { is_shared(&hub, band.id()) }).await;

    alice.close().await.unwrap();
    hub.kill();
    one.close().unwrap();

    let wish = json!({ "ticket": others.to_string() });
    let (status, answer) = other.ask(ANN, "POST /v1/threads", Some(&wish));
    assert_eq!(status, 201, "{answer}");
    until("the other hub's copy", || async {
        let carried = other.thread(ANN, band.id()).unwrap();
        carried["records"] == acknowledged.stored && carried["synced"] == true
    })
    .await;
    let theirs = bob.join(&bobs).await.unwrap();
    bob.connect(&other.address).await.unwrap();
    let theirs = theirs.collection::<Song>("songs");
    until("Bob's copy", || async {
        theirs.count().await.ok() == Some(50)
    })
    .await;
    let mut titles: Vec<String> = Vec::new();
    for (_, song) in theirs.list(None, 100).await.unwrap() {
        titles.push(song.title);
    }
    titles.sort();
    let mut all: Vec<String> = (0..50).map(|number| song(number).title).collect();
    all.sort();
    assert_eq!(titles, all);
    other.stop();
}

/// The store is away, and the hub is killed meanwhile: what it acknowledged is shared all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_shared_is_shared_after_a_restart() {
    let (objects, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    configure_shared(folder.path(), objects.path());
    // Nothing can be put where a file stands in the place of a folder.
    let threads = objects.path().join("threads");
    std::fs::write(&threads, "").unwrap();
    let hub = Process::start(folder.path());
    let alice = peer().await;
    let band = alice.create_thread("band").await.unwrap();
    assert_eq!(hub.carry(ANN, &band, Role::Replicator).await.0, 201);
    alice.connect(&hub.address).await.unwrap();
    let songs = band.collection::<Song>("songs");
    songs.insert(&song(1)).await.unwrap();
    assert!(alice.sync_once(DEADLINE).await.unwrap().is_complete());
    alice.close().await.unwrap();
    assert!(!is_shared(&hub, band.id()));
    hub.kill();

    std::fs::remove_file(&threads).unwrap();
    let hub = Process::start(folder.path());
    until("the shared copy", || async { is_shared(&hub, band.id()) }).await;
    assert_eq!(std::fs::read_dir(&threads).unwrap().count(), 1);
    hub.stop();
}

//! A peer that is killed in the middle of writing and syncing, again and again.
//!
//! The child is this test binary, run once more with an environment variable. It opens the peer in a
//! folder, connects to the parent's peer, and writes numbered songs, several at a time, printing each
//! number once its write is acknowledged. The parent kills it after so many lines, drawn from a seed,
//! while further writes and their sync are under way: in every second round it begins to count when
//! the child is connected.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leno::store::{MemoryStore, Store, Table, scan_prefix};
use leno::{Event, Events, Peer, Role, Thread};

use crate::support::{Song, connect, id, join, song};

const KILLS: u64 = 50;

/// Rounds in which the child must have been connected when it was killed.
const CONNECTED_MIN: usize = 25;

/// Rounds in which records of that round must have reached the parent's peer by then.
const SYNCED_MIN: usize = 12;

/// Rounds in which there must have been more to send.
const CUT_OFF_MIN: usize = 5;

const DEADLINE: Duration = Duration::from_secs(30);

/// What tells the child that it is one: its folder, the parent's address, and the first number.
const CHILD: &str = "LENO_TEST_KILL_CHILD";

/// What the child prints once, when it has a link to the parent.
const CONNECTED: &str = "connected";

const LOOPBACK: [&str; 1] = ["/ip4/127.0.0.1/tcp/0"];

/// Writes that are under way at once in the child.
const LANES: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_peer_keeps_what_it_acknowledged_and_never_forks() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("child");
    let store = MemoryStore::new();
    let alice = Peer::builder()
        .store(store.clone())
        .listen(LOOPBACK)
        .start()
        .await
        .unwrap();
    let mut events = alice.events().await.unwrap();
    let watching = tokio::spawn(async move {
        let mut bad = Vec::new();
        while let Some(event) = events.next().await {
            if matches!(
                event,
                Event::Forked { .. }
                    | Event::OwnLogAhead { .. }
                    | Event::Refused { .. }
                    | Event::Quarantined { .. }
                    | Event::Lagged { .. }
            ) {
                bad.push(event);
            }
        }
        bad
    });

    let counting = tokio::spawn(count(alice.events().await.unwrap()));

    let alices = alice.create_thread("band").await.unwrap();
    let bob = open(&home).await;
    join(&alices, &bob, Role::Writer).await;
    assert!(bob.sync_once(DEADLINE).await.unwrap().is_complete());
    bob.close().await.unwrap();

    let address = alice.addresses()[0].to_string();
    let mut acknowledged = BTreeSet::new();
    let mut reached = BTreeSet::new();
    let (mut synced, mut cut_off) = (0, 0);
    let mut dice = 7_u64;
    for round in 0..KILLS {
        let first = round * 10_000;
        let (home, address) = (home.clone(), address.clone());
        // Some are killed before their first write is done, some after many.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let lines = [0, 1, 5, 40, 120][(dice >> 33) as usize % 5];
        let count_connected = round % 2 == 1;
        let run = move || run_and_kill(&home, &address, first, lines, count_connected);
        let told = tokio::task::spawn_blocking(run).await.unwrap();
        // The child is dead and the next one not begun: what is here came before the kill.
        let there = numbers(&alices).await;
        synced += usize::from(there.range(first..).next().is_some());
        cut_off += usize::from(told.iter().any(|number| !there.contains(number)));
        reached.extend(there);
        acknowledged.extend(told);
    }

    let bob = open(&home).await;
    connect(&bob, &alice).await;
    assert!(bob.sync_once(DEADLINE).await.unwrap().is_complete());
    assert!(alice.sync_once(DEADLINE).await.unwrap().is_complete());
    let bobs = bob.thread(alices.id()).await.unwrap();
    for thread in [&alices, &bobs] {
        let there = numbers(thread).await;
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let lost: Vec<_> = reached.difference(&there).collect();
        assert!(lost.is_empty(), "received and lost: {lost:?}");
    }
    assert_eq!(
        alices.state_hash().await.unwrap(),
        bobs.state_hash().await.unwrap()
    );
    assert!(acknowledged.len() as u64 > KILLS, "the child wrote");
    let status = alices.status().await.unwrap();
    assert_eq!(status.stored, status.admitted, "all that came is in");
    bob.close().await.unwrap();
    alice.close().await.unwrap();
    let bad = watching.await.unwrap();
    assert!(bad.is_empty(), "{bad:?}");
    let (links, admitted) = counting.await.unwrap();
    assert_eq!(admitted, status.admitted, "what was told of was kept");
    // The first and the last one were not killed.
    let connected = links - 2;
    println!("of {KILLS} rounds {connected} connected, {synced} synced, {cut_off} cut off");
    assert!(connected >= CONNECTED_MIN, "{connected}");
    assert!(synced >= SYNCED_MIN, "{synced}");
    assert!(cut_off >= CUT_OFF_MIN, "{cut_off}");
    scan_prefix(
        &*store.view().unwrap(),
        Table::Evidence,
        &[],
        &mut |_, _| panic!("the killed peer forked"),
    )
    .unwrap();
}

/// How many links there were and how many records were admitted, until the peer is closed.
async fn count(mut events: Events) -> (usize, u64) {
    let (mut links, mut admitted) = (0, 0);
    while let Some(event) = events.next().await {
        match event {
            Event::Connected { .. } => links += 1,
            Event::Admitted { records, .. } => admitted += records,
            _ => {}
        }
    }
    (links, admitted)
}

async fn open(home: &Path) -> Peer {
    Peer::folder(home)
        .unwrap()
        .listen(LOOPBACK)
        .start()
        .await
        .unwrap()
}

async fn numbers(thread: &Thread) -> BTreeSet<u64> {
    let songs = thread
        .collection::<Song>("songs")
        .list(None, usize::MAX)
        .await
        .unwrap();
    songs
        .iter()
        .map(|(_, song)| song.title.parse().unwrap())
        .collect()
}

/// Starts the child and kills it after so many acknowledged writes, counted from its start or from when
/// it is connected. Returns all that it told.
fn run_and_kill(
    home: &Path,
    address: &str,
    first: u64,
    lines: usize,
    count_connected: bool,
) -> Vec<u64> {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--nocapture"])
        .env(CHILD, format!("{}\n{address}\n{first}", home.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    // The harness prints lines of its own.
    let mut next = || loop {
        let line = told.next()?.unwrap();
        if let Some(line) = line.strip_prefix("leno ") {
            return Some(line.to_owned());
        }
    };
    assert_eq!(
        next().as_deref(),
        Some("open"),
        "the child opened its folder by itself"
    );
    let mut counted = 0;
    let mut is_counting = !count_connected;
    while counted < lines || !is_counting {
        let line = next().expect("the child writes and connects");
        if line == CONNECTED {
            is_counting = true;
        } else {
            acknowledged.push(line.parse().unwrap());
            counted += usize::from(is_counting);
        }
    }
    // SIGKILL on Unix: nothing of the child runs after it.
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had printed by then was acknowledged.
    while let Some(line) = next() {
        if line != CONNECTED {
            acknowledged.push(line.parse().unwrap());
        }
    }
    acknowledged
}

/// Not a test but the child: passes at once unless the parent runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else {
        return;
    };
    let [home, address, first] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    let first: u64 = first.parse().unwrap();
    let bob = open(Path::new(home)).await;
    let band = bob.threads().await.unwrap().remove(0);
    // The harness prints "test .. " without an end of line.
    println!("\nleno open");
    let address = address.parse().unwrap();
    let connecting = async {
        bob.connect(&address).await.unwrap();
        println!("leno {CONNECTED}");
    };
    let write = async |lane: u64| {
        let songs = band.collection::<Song>("songs");
        // Until the parent kills it.
        for number in (first + lane..).step_by(LANES as usize) {
            let title = number.to_string();
            songs.put(&id(&title), &song(&title)).await.unwrap();
            println!("leno {number}");
        }
    };
    let lanes = futures_util::future::join_all((0..LANES).map(write));
    futures_util::join!(connecting, lanes);
}

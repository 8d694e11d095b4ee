//! Alice and Bob share an encrypted songbook; Carol's always-on replicator carries it and cannot
//! read it. Three peers, three stores on disk, real connections: TCP with Noise and Yamux, and QUIC.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! Prints what it measured, and exits with an error if anything does not hold.

#![expect(
    clippy::disallowed_methods,
    reason = "an example may measure the time it takes"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use leno::{
    Address, Change, Collection, Conflict, Definition, DocumentId, Fields, Ipld, Peer, Role,
    Strategy, Thread,
};
use serde::{Deserialize, Serialize};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// 150 psalms, the Song of Solomon and the Lamentations: see `examples/data/README.md`.
const SONGBOOK: &str = include_str!("data/songbook.json");

/// How many live writes are timed.
const LIVE_WRITES: usize = 100;

/// What Psalm 23 is called by each.
const ALICES_TITLE: &str = "The Lord is my shepherd";
const BOBS_TITLE: &str = "The Shepherd Psalm";

/// Everything on loopback is level long before this.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Song {
    title: String,
    book: String,
    number: u32,
    year: u32,
    language: String,
    tags: BTreeSet<String>,
    first_line: String,
    verses: Vec<String>,
}

fn id_of(song: &Song) -> Outcome<DocumentId> {
    let book = song.book.to_lowercase().replace(' ', "-");
    Ok(DocumentId::natural(format!("{book}/{:03}", song.number))?)
}

fn psalm(number: u32) -> Outcome<DocumentId> {
    Ok(DocumentId::natural(format!("psalms/{number:03}"))?)
}

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let begun = Instant::now();

    // Three peers. Who is dialled decides what a link is made of: Alice is reached by TCP only, Carol
    // by QUIC only, and Bob not at all, as behind a router.
    let (tcp, quic) = ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1");
    let alice = open(folder.path(), "alice", &[tcp]).await?;
    let bob = open(folder.path(), "bob", &[]).await?;
    let carol = open(folder.path(), "carol", &[quic]).await?;
    check("nobody can dial Bob", bob.addresses().is_empty())?;

    // Alice makes a thread and imports the songs.
    let thread = alice.create_thread("songbook").await?;
    let strategies = Fields::default().field("tags", Strategy::Set);
    thread
        .define(
            "songs",
            &Definition {
                version: 1,
                strategies,
            },
        )
        .await?;
    let songs: Vec<Song> = serde_json::from_str(SONGBOOK)?;
    let importing = Instant::now();
    let alices: Collection<Song> = thread.collection("songs");
    let documents = songs.iter().map(|song| Ok((id_of(song)?, song.clone())));
    alices
        .put_all(documents.collect::<Outcome<Vec<_>>>()?)
        .await?;
    let imported = importing.elapsed();

    // Each hands Alice a card, and joins by the ticket that the grant returns.
    let bob_ticket = thread.grant(&bob.card("Bob").await?, Role::Writer).await?;
    let carol_ticket = thread
        .grant(&carol.card("Carol").await?, Role::Replicator)
        .await?;
    let joining = Instant::now();
    let bobs_thread = bob.join(&bob_ticket).await?;
    let carols_thread = carol.join(&carol_ticket).await?;
    let bobs: Collection<Song> = bobs_thread.collection("songs");
    connect(&bob, &alice, "tcp").await?;
    connect(&carol, &alice, "tcp").await?;
    level("everybody has the songs", &[&bob, &carol, &alice]).await?;
    let joined = joining.elapsed();
    check(
        "Bob reads all songs",
        bobs.count().await? == songs.len() as u64,
    )?;
    equal_states("after the import", &thread, &bobs_thread).await?;

    // Bob goes offline. Both edit the same songs at the same time.
    bob.pause().await?;
    // Psalm 1: different fields.
    alices
        .update(&psalm(1)?, |song| song.language = "en-GB".to_owned())
        .await?;
    bobs.update(&psalm(1)?, |song| song.tags.insert("beatitude".to_owned()))
        .await?;
    // Psalm 23: the same field.
    alices
        .update(&psalm(23)?, |song| song.title = ALICES_TITLE.to_owned())
        .await?;
    bobs.update(&psalm(23)?, |song| song.title = BOBS_TITLE.to_owned())
        .await?;
    // Psalm 137: Alice deletes what Bob edits.
    alices.delete(&psalm(137)?).await?;
    bobs.update(&psalm(137)?, |song| {
        song.title = "By the rivers of Babylon".to_owned()
    })
    .await?;
    // One set, two additions.
    alices
        .update(&psalm(150)?, |song| song.tags.insert("alleluia".to_owned()))
        .await?;
    bobs.update(&psalm(150)?, |song| song.tags.insert("finale".to_owned()))
        .await?;

    // Carol carries: Alice syncs with her and leaves; Bob comes back and finds only Carol.
    level("Carol has Alice's edits", &[&alice, &carol]).await?;
    let alice_sent = alice.traffic().await?;
    alice.close().await?;
    let converging = Instant::now();
    bob.resume().await?;
    connect(&bob, &carol, "quic-v1").await?;
    level("Bob has Alice's edits from Carol", &[&bob, &carol]).await?;
    let bobs_conflicts = merged("Bob's", &bobs).await?;

    // Alice opens her folder again and finds Bob's edits at Carol's.
    let alice = open(folder.path(), "alice", &[tcp]).await?;
    let thread = alice.thread(thread.id()).await?;
    let alices: Collection<Song> = thread.collection("songs");
    connect(&alice, &carol, "quic-v1").await?;
    level("Alice has Bob's edits from Carol", &[&alice, &carol]).await?;
    let converged = converging.elapsed();
    let hash = equal_states("after concurrent edits", &thread, &bobs_thread).await?;

    let conflicts = merged("Alice's", &alices).await?;
    check("conflicts are the same", conflicts == bobs_conflicts)?;

    // Live: Alice writes, Bob watches.
    connect(&bob, &alice, "tcp").await?;
    level("Alice and Bob are connected", &[&alice, &bob]).await?;
    let latencies = live(&alices, &bobs, &psalm(2)?).await?;
    equal_states("after live writes", &thread, &bobs_thread).await?;

    // Carol held all of it, and none of it in the clear.
    level("Carol has the live writes", &[&alice, &bob, &carol]).await?;
    let alices_status = thread.status().await?;
    let carols = carols_thread.status().await?;
    check(
        "Carol stores every record",
        carols.stored == alices_status.stored,
    )?;
    let (alice_traffic, bob_traffic, carol_traffic) = (
        alice.traffic().await?,
        bob.traffic().await?,
        carol.traffic().await?,
    );
    for peer in [&alice, &bob, &carol] {
        peer.close().await?;
    }
    let line = "The LORD is my shepherd; I shall not want.";
    check(
        "the line is in the songbook",
        songs.iter().any(|it| it.verses.iter().any(|it| it == line)),
    )?;
    for text in [line, BOBS_TITLE, "songs"] {
        check(
            &format!("the search finds `{text}` in Alice's files"),
            contains(&folder.path().join("alice"), text)?,
        )?;
        check(
            "and not in Carol's",
            !contains(&folder.path().join("carol"), text)?,
        )?;
    }

    let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!();
    row("songs imported", songs.len());
    row("import, durable", millis(imported));
    row("join and first sync of Bob and Carol", millis(joined));
    row(
        "concurrent edits to convergence through Carol",
        millis(converged),
    );
    row(
        "records at Alice's / stored by Carol",
        format!("{} / {}", alices_status.stored, carols.stored),
    );
    row("conflicts kept", conflicts.len());
    row("Alice, bytes sent / received before she left", alice_sent);
    row("Alice, bytes sent / received since", alice_traffic);
    row("Bob, bytes sent / received", bob_traffic);
    row("Carol, bytes sent / received", carol_traffic);
    row("live write to visible, median", millis(latencies.0));
    row("live write to visible, 99th of 100", millis(latencies.1));
    row("state, Alice and Bob", hash);
    row("whole run", millis(begun.elapsed()));
    println!("\nEverything held.");
    Ok(())
}

async fn open(folder: &Path, name: &str, listen: &[&str]) -> Outcome<Peer> {
    let listen = listen.iter().copied();
    Ok(Peer::folder(folder.join(name))?
        .listen(listen)
        .start()
        .await?)
}

/// Dials a peer over one protocol. It listens on no other, so no link to it can be of another.
async fn connect(from: &Peer, to: &Peer, protocol: &str) -> Outcome {
    let addresses = to.addresses();
    let of_protocol = |it: &&Address| it.as_str().split('/').any(|part| part == protocol);
    let address = addresses.iter().find(of_protocol);
    let address = address.ok_or_else(|| format!("the peer is not reached by {protocol}"))?;
    let reached = from.connect(address).await?;
    check(
        &format!("a link over {protocol}"),
        reached == to.id() && addresses.iter().all(|it| of_protocol(&it)),
    )
}

/// Checks what must have become of the concurrent edits, with whoever holds both sides of them.
async fn merged(whose: &str, songs: &Collection<Song>) -> Outcome<Vec<Conflict>> {
    let one = read(songs, &psalm(1)?).await?;
    check(
        &format!("{whose} Psalm 1 has both edits of different fields"),
        one.language == "en-GB" && one.tags.contains("beatitude"),
    )?;
    let conflicts = songs.conflicts(&psalm(23)?).await?;
    let losers = conflicts.iter().flat_map(|it| &it.losers);
    let kept: Vec<_> = losers.map(|(_, value)| value.clone()).collect();
    let shown = read(songs, &psalm(23)?).await?.title;
    let other = match shown.as_str() {
        ALICES_TITLE => BOBS_TITLE,
        BOBS_TITLE => ALICES_TITLE,
        _ => return Err(format!("nobody wrote {shown}").into()),
    };
    check(
        &format!("{whose} Psalm 23 shows one title and keeps the other as a conflict"),
        conflicts.len() == 1 && kept == [Some(Ipld::from(other))],
    )?;
    check(
        &format!("{whose} Psalm 137 is gone: a delete wins over a concurrent edit"),
        songs.get(&psalm(137)?).await?.is_none(),
    )?;
    let last = read(songs, &psalm(150)?).await?;
    check(
        &format!("{whose} Psalm 150 has both additions to a set"),
        last.tags.contains("alleluia") && last.tags.contains("finale"),
    )?;
    Ok(conflicts)
}

/// Waits until each of these peers is level with all peers that it is connected to.
async fn level(what: &str, peers: &[&Peer]) -> Outcome {
    for peer in peers {
        let report = peer.sync_once(DEADLINE).await?;
        if !report.is_complete() {
            return Err(format!("not level in time: {what}: {report:?}").into());
        }
    }
    println!("  ok  {what}");
    Ok(())
}

async fn read(songs: &Collection<Song>, id: &DocumentId) -> Outcome<Song> {
    Ok(songs
        .get(id)
        .await?
        .ok_or_else(|| format!("there is no song {id}"))?)
}

/// Times from just before a write at Alice's to its visibility at Bob's: median and 99th of 100.
async fn live(
    alices: &Collection<Song>,
    bobs: &Collection<Song>,
    id: &DocumentId,
) -> Outcome<(Duration, Duration)> {
    let mut watch = bobs.watch().await?;
    let mut times = Vec::new();
    for number in 0..LIVE_WRITES {
        let title = format!("Psalm 2, take {number}");
        let begun = Instant::now();
        let fresh = title.clone();
        alices.update(id, |song| song.title = fresh).await?;
        loop {
            let change = watch.next().await.ok_or("the watch ended")??;
            if matches!(change, Change::Put { after, .. } if after.title == title) {
                break;
            }
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    Ok((at(LIVE_WRITES / 2), at(LIVE_WRITES * 99 / 100)))
}

async fn equal_states(when: &str, a: &Thread, b: &Thread) -> Outcome<String> {
    let hash = a.state_hash().await?;
    check(
        &format!("equal states {when}"),
        hash == b.state_hash().await?,
    )?;
    Ok(hash
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn check(what: &str, holds: bool) -> Outcome {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("  ok  {what}");
    Ok(())
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("{what:<52} {value}");
}

/// Tells whether any file below a folder holds a text.
fn contains(folder: &Path, text: &str) -> Outcome<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            contains(&path, text)?
        } else {
            std::fs::read(&path)?
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

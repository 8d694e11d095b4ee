//! Five peers, each a process of its own with a store on disk, over libp2p: by TCP, and by QUIC to
//! those who listen on nothing else. One leaves early, killed, and one joins late.
//!
//! Each child is this test binary, run once more with an environment variable; it does what it reads,
//! line by line, and answers each line. [`PLACES`] puts each into a network namespace: `.ci/namespaces`
//! makes five of them with a bad network in between, and runs this test in it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use leno::{Peer, Role, Thread};

use crate::support::{Song, id, song};

/// What tells a child that it is one: its name, its folder, and what it listens on.
const CHILD: &str = "LENO_TEST_PROCESSES_CHILD";

/// Where each of the five is: `<namespace>=<IPv4 address>`, by spaces. All on this machine if not set.
const PLACES: &str = "LENO_TEST_PLACES";

/// What each writes in a round.
const SONGS: usize = 20;

/// Long enough for a bad network. Nothing is decided by it: who waits longer waits for ever.
const DEADLINE: Duration = Duration::from_secs(550);

#[test]
fn five_processes_of_whom_one_leaves_early_and_one_joins_late_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let places = std::env::var(PLACES).unwrap_or_else(|_| "=127.0.0.1 ".repeat(5));
    let mut places = places.split_whitespace();
    let mut start = |name: &str, protocols: &str| {
        let (namespace, ip) = places.next().unwrap().split_once('=').unwrap();
        let listen = format!("/ip4/{ip}/{protocols}");
        Actor::start(name, folder.path(), namespace, &listen)
    };
    let (tcp, quic) = ("tcp/0", "udp/0/quic-v1");
    let mut alice = start("alice", tcp);
    let mut bob = start("bob", quic);
    let mut carol = start("carol", quic);
    let mut dave = start("dave", tcp);
    assert_eq!(alice.ask("create"), "done");
    for other in [&mut bob, &mut carol, &mut dave] {
        alice.lets_in(other);
    }
    let bobs = bob.ask("address");
    assert_eq!(carol.ask(&format!("connect {bobs}")), "done");
    let four = &mut [&mut alice, &mut bob, &mut carol, &mut dave];
    // Who just joined may write once the grant has come.
    ask_all(four, "await 0", |_, _| {});
    ask_all(four, "write 0", |_, answer| assert_eq!(answer, "done"));

    // Dave leaves once Alice keeps what he wrote, and without a word.
    let of_four = 4 * SONGS + 1;
    let had = alice.ask(&format!("await {of_four}"));
    println!("alice, when dave leaves: {had}");
    drop(dave);

    let mut eve = start("eve", tcp);
    alice.lets_in(&mut eve);
    let carols = carol.ask("address");
    assert_eq!(eve.ask(&format!("connect {carols}")), "done");
    eve.ask(&format!("await {of_four}"));
    let four = &mut [&mut alice, &mut bob, &mut carol, &mut eve];
    ask_all(four, "write 1", |_, answer| assert_eq!(answer, "done"));
    let mut states = BTreeSet::new();
    let of_all = 8 * SONGS + 1;
    ask_all(four, &format!("await {of_all}"), |name, answer| {
        println!("{name}: {answer}");
        let mut words = answer.split_whitespace();
        assert_eq!(words.next(), Some(of_all.to_string().as_str()));
        states.insert(words.find(|it| it.len() == 64).unwrap().to_owned());
    });
    assert_eq!(states.len(), 1, "{states:?}");
}

/// Has several do something at once.
fn ask_all(actors: &mut [&mut Actor], request: &str, mut told: impl FnMut(&str, String)) {
    for actor in &mut *actors {
        actor.send(request);
    }
    for actor in actors {
        let answer = actor.hear();
        told(&actor.name, answer);
    }
}

/// A peer in a process, which is killed when this is dropped.
struct Actor {
    name: String,
    child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Actor {
    fn start(name: &str, folder: &Path, namespace: &str, listen: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match namespace {
            "" => Command::new(program),
            _ => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
        };
        let home = folder.join(name);
        let mut child = command
            .args(["processes::child", "--exact", "--nocapture"])
            .env(CHILD, format!("{name}\n{}\n{listen}", home.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let name = name.to_owned();
        Self {
            name,
            child,
            requests,
            answers,
        }
    }

    fn lets_in(&mut self, other: &mut Self) {
        let card = other.ask("card");
        let ticket = self.ask(&format!("grant {card}"));
        assert_eq!(other.ask(&format!("join {ticket}")), "done");
    }

    fn ask(&mut self, request: &str) -> String {
        self.send(request);
        self.hear()
    }

    fn send(&mut self, request: &str) {
        writeln!(self.requests, "{request}").unwrap();
    }

    fn hear(&mut self) -> String {
        // The harness prints lines of its own.
        loop {
            let line = self.answers.next();
            let line = line.unwrap_or_else(|| panic!("{} ended", self.name));
            if let Some(answer) = line.unwrap().strip_prefix("leno ") {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // SIGKILL on Unix: nothing of the child runs after it. It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test but a child: passes at once unless the parent runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else {
        return;
    };
    let [name, home, listen] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    let builder = Peer::folder(Path::new(home)).unwrap().listen([listen]);
    let peer = builder.share_addresses(true).start().await.unwrap();
    // The harness prints "test .. " without an end of line.
    println!();
    let mut band = None;
    let mut requests = std::io::stdin().lines();
    loop {
        let request = tokio::task::block_in_place(|| requests.next());
        let Some(request) = request else {
            return;
        };
        let request = request.unwrap();
        let (verb, rest) = request.split_once(' ').unwrap_or((&request, ""));
        let doing = obey(name, &peer, &mut band, verb, rest);
        let answer = tokio::time::timeout(DEADLINE, doing).await;
        let answer = answer.unwrap_or_else(|_| panic!("{name} waits for ever: {request}"));
        println!("leno {answer}");
    }
}

async fn obey(
    name: &str,
    peer: &Peer,
    band: &mut Option<Thread>,
    verb: &str,
    rest: &str,
) -> String {
    match verb {
        "address" => return peer.addresses().into_iter().next().unwrap().to_string(),
        "card" => return peer.card(name).await.unwrap().to_string(),
        "create" => *band = Some(peer.create_thread("band").await.unwrap()),
        "join" => *band = Some(peer.join(&rest.parse().unwrap()).await.unwrap()),
        "connect" => {
            let (peer, address) = (peer.clone(), rest.parse().unwrap());
            // Nobody waits for it: what does not succeed is tried again by the driver.
            tokio::spawn(async move { peer.connect(&address).await });
        }
        "grant" => {
            let card = rest.parse().unwrap();
            let ticket = band.as_ref().unwrap().grant(&card, Role::Writer).await;
            return ticket.unwrap().to_string();
        }
        "write" => write(band.as_ref().unwrap(), name, rest).await,
        "await" => return await_songs(peer, band.as_ref().unwrap(), rest.parse().unwrap()).await,
        _ => panic!("{verb:?} means nothing"),
    }
    "done".to_owned()
}

/// Writes one document that all write, then some of its own: who has these has that.
async fn write(band: &Thread, name: &str, round: &str) {
    let songs = band.collection::<Song>("songs");
    songs.put(&id("of all"), &song(name)).await.unwrap();
    for number in 0..SONGS {
        let title = format!("{name} {round} {number}");
        songs.put(&id(&title), &song(&title)).await.unwrap();
    }
}

/// Waits until there are so many songs; tells how many, their hash, and what it took.
async fn await_songs(peer: &Peer, band: &Thread, count: usize) -> String {
    let songs = band.collection::<Song>("songs");
    // A newcomer may read once the grant has come.
    let mut events = peer.events().await.unwrap();
    let mut live = loop {
        match songs.watch().await {
            Ok(live) => break live,
            Err(leno::Error::NotSyncedYet(_)) => drop(events.next().await),
            Err(error) => panic!("{error}"),
        }
    };
    drop(events);
    let count = loop {
        let there = songs.list(None, usize::MAX).await.unwrap().len();
        if there >= count {
            break there;
        }
        live.next().await.unwrap().unwrap();
    };
    let hash = band.state_hash().await.unwrap();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let peers = peer.sync_once(Duration::ZERO).await.unwrap();
    let links = peers.level.len() + peers.behind.len();
    let traffic = peer.traffic().await.unwrap();
    let (sent, received) = (traffic.sent, traffic.received);
    format!(
        "{count} songs, state {hash} with {links} links, {sent} bytes sent, {received} received"
    )
}

//! Goal 8: sessions. What they cost beside what they carry, many viewers of one writer, and many
//! threads in which nothing happens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leno_benches::Outcome;
use leno_benches::bare::{Bare, seat};
use leno_benches::event::Events;
use leno_benches::measure::{Samples, timed};
use leno_benches::replica::{Peer, begin, exchange, runs, sync};
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_threads_core::store::MemoryStore;
use leno_threads_core::sync::{Message, PeerKey};
use leno_threads_core::{Role, ThreadId};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

/// Records that are signed together.
const SIGNED: usize = 1_000;

/// Bytes of runs that are committed together, as a range holds them.
const COMMITTED_BYTES: usize = 1 << 20;

const VIEWERS: usize = 100;

/// Other viewers that each viewer dials.
const DIALS: [usize; 3] = [1, 7, 31];

/// Records that go to all viewers, one after the other.
const SPREAD: usize = 100;

const IDLE_THREADS: usize = 10_000;

pub(crate) fn run(_: &Path, report: &mut Report) -> Outcome {
    for (records, samples) in [(1, 50), (10_000, 3), (100_000, 1)] {
        catch_up(records, samples, report)?;
    }
    fan_out(report)?;
    idle(report)
}

/// A reader comes back after so many records, and another one takes in the same without a session.
fn catch_up(records: usize, samples: usize, report: &mut Report) -> Outcome {
    let mut alice = Peer::create(1, Arc::new(MemoryStore::new()))?;
    let mut events = Events::new(1)?;
    alice.write_all(&events.creates(), 100, true)?;
    alice.commit()?;
    let mut bob = alice.invite(2, Arc::new(MemoryStore::new()), Role::Reader)?;
    let mut carol = alice.invite(3, Arc::new(MemoryStore::new()), Role::Reader)?;
    sync(&mut alice, &mut bob)?;
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    let (mut bytes, mut own) = (0, 0);
    for _ in 0..samples {
        let log = alice.thread()?.own_log().ok_or("Alice writes")?;
        let tip = alice.thread()?.log(&log).ok_or("her log is here")?.tip.seq;
        for events in events.patches(records).chunks(SIGNED) {
            alice.write_all(events, 1, false)?;
            alice.commit()?;
        }
        let rows = alice.rows(log, tip + 1)?;
        let runs = runs(&rows)?;
        own += runs
            .iter()
            .map(|(_, run)| run.items().len() + 64)
            .sum::<usize>();

        let (took, ()) = timed(|| {
            begin(&mut alice, &mut bob);
            exchange(&mut alice, &mut bob, |_, message| bytes += message.len())
        })?;
        ours.push(took);
        let (took, ()) = timed(|| {
            let store = carol.store.clone();
            let mut waiting = 0;
            for (first, run) in runs {
                waiting += run.items().len();
                let view = store.view()?;
                carol.receive(&*view, log, [(first, run)])?;
                drop(view);
                if waiting >= COMMITTED_BYTES {
                    carol.commit()?;
                    waiting = 0;
                }
            }
            carol.commit()
        })?;
        floors.push(took);
        if bob.hash()? != alice.hash()? || carol.hash()? != alice.hash()? {
            return Err("two peers are level and differ".into());
        }
    }
    let count = records as f64;
    let best = |times: Vec<Duration>| count / Samples::new(times).best();
    report.add(
        Line::new(
            format!("8a sync of {records} records between two peers"),
            Unit::PerSecond,
            Goal::None,
            best(ours),
        )
        .floor("the same runs without a session", best(floors)),
    );
    let each = |bytes: usize| bytes as f64 / (count * samples as f64);
    let goal = match records {
        1 => Goal::None,
        _ => Goal::AtMost(1.15 * each(own)),
    };
    report.add(
        Line::new(
            "8a   of that: bytes both ways, a record",
            Unit::Bytes,
            goal,
            each(bytes),
        )
        .floor("the records as they rest", each(own)),
    );
    Ok(())
}

/// Peers on links, on one core; every message takes one round.
struct Crowd {
    peers: Vec<Bare>,
    links: Vec<Vec<usize>>,
    /// Bytes and number of the messages with records that the first one sent, and of all messages.
    ranges: (usize, usize),
    all: (usize, usize),
}

impl Crowd {
    fn new() -> Outcome<(Self, ThreadId)> {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let guest = seat(&mut rng)?;
        let (signing, kem) = (guest.signing.to_secret_bytes(), guest.kem.to_secret_bytes());
        let mut source = Bare::new(1)?;
        let (id, service) = source.create(&guest, Role::Reader)?;
        let mut peers = vec![source];
        // All viewers have copies of one seat.
        for at in 0..VIEWERS {
            let mut viewer = Bare::new(100 + at as u64)?;
            let seat = leno_threads_core::thread::Seat {
                signing: leno_identity::SigningKey::from_secret_bytes(&signing)?,
                kem: leno_identity::AgreementKey::from_secret_bytes(&kem)?,
            };
            viewer.join(id, service.clone(), seat)?;
            peers.push(viewer);
        }
        let mut crowd = Self {
            links: vec![Vec::new(); peers.len()],
            peers,
            ranges: (0, 0),
            all: (0, 0),
        };
        for at in 1..=VIEWERS {
            crowd.connect(0, at)?;
            for step in DIALS {
                crowd.connect(at, 1 + (at - 1 + step) % VIEWERS)?;
            }
        }
        crowd.settle(100)?;
        Ok((crowd, id))
    }

    fn peer(&mut self, at: usize) -> Outcome<&mut Bare> {
        Ok(self.peers.get_mut(at).ok_or("there is no such peer")?)
    }

    fn connect(&mut self, a: usize, b: usize) -> Outcome {
        for (from, to) in [(a, b), (b, a)] {
            let key = self.peer(to)?.key;
            self.peer(from)?.connected(key);
            self.links
                .get_mut(from)
                .ok_or("there is no such peer")?
                .push(to);
        }
        Ok(())
    }

    /// Rounds until all are silent, and so many times again after what waits for its time.
    fn settle(&mut self, waits: usize) -> Outcome {
        for _ in 0..waits {
            while self.round()? {}
            for peer in &mut self.peers {
                peer.now_millis += 100;
                peer.tick()?;
            }
        }
        Ok(())
    }

    fn round(&mut self) -> Outcome<bool> {
        let mut under_way: Vec<(PeerKey, usize, Vec<u8>)> = Vec::new();
        for from in 0..self.peers.len() {
            let links = self.links.get(from).cloned().unwrap_or_default();
            for to in links {
                let to_key = self.peer(to)?.key;
                let sender = self.peer(from)?;
                let key = sender.key;
                if let Some(message) = sender.poll(to_key)? {
                    let is_range = matches!(Message::decode(&message), Ok(Message::Range { .. }));
                    if from == 0 && is_range {
                        self.ranges = (self.ranges.0 + message.len(), self.ranges.1 + 1);
                    }
                    self.all = (self.all.0 + message.len(), self.all.1 + 1);
                    under_way.push((key, to, message));
                }
            }
        }
        let is_busy = !under_way.is_empty();
        for (from, to, message) in under_way {
            self.peer(to)?.receive(from, &message)?;
        }
        Ok(is_busy)
    }
}

/// One writer, and viewers who are all linked to it and to some of the others.
fn fan_out(report: &mut Report) -> Outcome {
    let (mut crowd, id) = Crowd::new()?;
    let content = [&[0x78, 148][..], &[b'x'; 148]].concat();
    for _ in 0..20 {
        // The tree grows.
        crowd.peer(0)?.write(id, &content)?;
        crowd.settle(20)?;
    }
    (crowd.ranges, crowd.all) = ((0, 0), (0, 0));
    let (took, ()) = timed(|| {
        for _ in 0..SPREAD {
            crowd.peer(0)?.write(id, &content)?;
            crowd.settle(20)?;
        }
        Ok(())
    })?;
    let tip = |peer: &Bare| {
        peer.replica
            .thread(&id)
            .map(|it| it.logs().map(|log| log.tip.seq).max())
    };
    let first = crowd.peers.first().and_then(tip);
    if crowd.peers.iter().any(|peer| tip(peer) != first) {
        return Err("a viewer lacks a record".into());
    }
    let records = SPREAD as f64;
    report.add(
        Line::new(
            format!("8b fan-out to {VIEWERS} viewers: copies that the writer sends"),
            Unit::Times,
            Goal::AtMost(16.0),
            crowd.ranges.1 as f64 / records,
        )
        .floor("one each", VIEWERS as f64),
    );
    report.add(Line::new(
        "8b   all messages of all, a record and viewer",
        Unit::Bytes,
        Goal::None,
        crowd.all.0 as f64 / records / VIEWERS as f64,
    ));
    report.add(Line::new(
        "8b   time of all 101 peers on one core, a record",
        Unit::Seconds,
        Goal::None,
        took.as_secs_f64() / records,
    ));
    Ok(())
}

/// Two peers who share many threads, all level, come together again.
fn idle(report: &mut Report) -> Outcome {
    let (mut alice, mut bob) = (Bare::new(1)?, Bare::new(2)?);
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let content = [&[0x78, 148][..], &[b'x'; 148]].concat();
    let mut last = None;
    for _ in 0..IDLE_THREADS {
        let guest = seat(&mut rng)?;
        let (id, service) = alice.create(&guest, Role::Writer)?;
        alice.write(id, &content)?;
        bob.join(id, service, guest)?;
        last = Some(id);
    }
    meet(&mut alice, &mut bob)?;
    // Keys that were wrapped and what came of them are told once more.
    meet(&mut alice, &mut bob)?;
    let rows = alice.rows_read() + bob.rows_read();
    let (took, (messages, bytes)) = timed(|| meet(&mut alice, &mut bob))?;
    let rows = alice.rows_read() + bob.rows_read() - rows;
    let last = last.ok_or("there is a thread")?;
    let is_level = alice.replica.level(&bob.key, &last) == leno_threads_core::sync::Level::Level;
    if !is_level {
        return Err("two peers who told each other everything are not level".into());
    }
    let name = format!("8c {IDLE_THREADS} unchanged threads, reconnect: bytes both ways");
    report.add(Line::new(name, Unit::Bytes, Goal::None, bytes as f64));
    report.add(Line::new(
        "8c   of that: time of both on one core",
        Unit::Seconds,
        Goal::None,
        took.as_secs_f64(),
    ));
    report.note(format!("8c: {messages} messages, {rows} rows read by both"));
    Ok(())
}

/// Connects two peers and lets them talk until both are silent. Returns messages and bytes.
fn meet(a: &mut Bare, b: &mut Bare) -> Outcome<(usize, usize)> {
    a.connected(b.key);
    b.connected(a.key);
    let (mut messages, mut bytes) = (0, 0);
    loop {
        let (to_b, to_a) = (a.poll(b.key)?, b.poll(a.key)?);
        if to_a.is_none() && to_b.is_none() {
            if a.tick()? | b.tick()? {
                continue;
            }
            return Ok((messages, bytes));
        }
        for message in [&to_b, &to_a].into_iter().flatten() {
            messages += 1;
            bytes += message.len();
        }
        if let Some(message) = to_b {
            b.receive(a.key, &message)?;
        }
        if let Some(message) = to_a {
            a.receive(b.key, &message)?;
        }
    }
}

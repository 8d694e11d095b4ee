//! Fan-out: a thousand viewers of one writer, and what is left when some of them go.

use std::collections::{BTreeMap, BTreeSet};

use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::sync::{Level, LogName, Message, PeerKey, SPREAD_DEGREE};
use leno_threads_core::thread::Seat;
use leno_threads_core::{LogId, Role, Seq, ThreadId};
use rand_core::Rng as _;

use crate::util::{Peer, new_seat, rng};

/// How long a message is under way.
const ROUND_MILLIS: u64 = 50;

/// Peers on links; every message takes one round.
struct Crowd {
    peers: Vec<Peer>,
    id: ThreadId,
    /// Who is connected to whom.
    links: Vec<BTreeSet<usize>>,
    gone: BTreeSet<usize>,
    /// Who takes in and says nothing.
    silent: BTreeSet<usize>,
    under_way: Vec<(usize, usize, Vec<u8>)>,
    /// Names of logs by sender and receiver, in the order in which ranges named them.
    named: BTreeMap<(usize, usize), Vec<LogId>>,
    /// Copies of records of the data log that each peer sent, and received.
    sent: BTreeMap<(usize, Seq), u32>,
    received: BTreeMap<(usize, Seq), u32>,
    data_log: Option<LogId>,
    bytes: usize,
}

fn key(at: usize) -> PeerKey {
    let mut key = [0; 32];
    // The source is not the first one, nor are neighbours next to each other.
    key[..4].copy_from_slice(&(at as u32).wrapping_mul(2_654_435_761).to_be_bytes());
    key[31] = 1;
    PeerKey(key)
}

impl Crowd {
    /// Peer 0 writes, all others read, with copies of one seat. Nobody is connected yet.
    fn new(viewers: usize) -> Self {
        let mut source = Peer::with_key(key(0));
        let id = source.create();
        let mut rng = rng(9);
        let seat = new_seat(&mut rng);
        let kem = seat.kem.public_key().to_bytes();
        let service = source.grant(id, seat.id(), kem, Role::Reader);
        let (signing, kem) = (seat.signing.to_secret_bytes(), seat.kem.to_secret_bytes());
        let mut peers = vec![source];
        for at in 1..=viewers {
            let mut viewer = Peer::with_key(key(at));
            let seat = Seat {
                signing: SigningKey::from_secret_bytes(&signing).unwrap(),
                kem: AgreementKey::from_secret_bytes(&kem).unwrap(),
            };
            let service = service.clone();
            viewer.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
            peers.push(viewer);
        }
        Self {
            links: vec![BTreeSet::new(); peers.len()],
            peers,
            id,
            gone: BTreeSet::new(),
            silent: BTreeSet::new(),
            under_way: Vec::new(),
            named: BTreeMap::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            data_log: None,
            bytes: 0,
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a != b && self.links[a].insert(b) {
            self.links[b].insert(a);
            self.peers[a].connected(key(b));
            self.peers[b].connected(key(a));
        }
    }

    /// The source knows so many viewers, and each viewer dials some others.
    fn connect_all(&mut self, of_source: usize, dials: usize) {
        let mut rng = rng(5);
        let count = self.peers.len();
        for at in 1..=of_source {
            self.connect(0, at);
        }
        for at in 1..count {
            for _ in 0..dials {
                let other = 1 + rng.next_u32() as usize % (count - 1);
                self.connect(at, other);
            }
        }
    }

    fn write(&mut self, text: &str) -> Seq {
        let written = self.peers[0].write(self.id, text);
        self.data_log = Some(written.log);
        written.seq
    }

    /// One round: everybody sends what there is, and gets what was sent before.
    fn round(&mut self) -> bool {
        let mut is_busy = false;
        for (from, to, message) in std::mem::take(&mut self.under_way) {
            if self.gone.contains(&to) || self.gone.contains(&from) {
                continue;
            }
            is_busy = true;
            self.bytes += message.len();
            self.count(from, to, &message);
            let taken = self.peers[to].receive(key(from), &message);
            assert!(
                taken.is_ok() && self.peers[to].errors.is_empty(),
                "{:?}",
                self.peers[to].errors
            );
        }
        for from in 0..self.peers.len() {
            if self.gone.contains(&from) || self.silent.contains(&from) {
                continue;
            }
            let peer = &mut self.peers[from];
            peer.now += ROUND_MILLIS;
            if peer.replica.poll_timeout().is_some_and(|at| at <= peer.now) {
                peer.tick();
            }
            for to in self.links[from].clone() {
                while let Some(message) = self.peers[from].poll(key(to)) {
                    is_busy = true;
                    self.under_way.push((from, to, message));
                }
            }
        }
        is_busy
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round();
        }
    }

    /// Rounds until everybody who is there has all, at most so many. Returns how many it took.
    fn until_read(&mut self, count: usize, max: usize) -> usize {
        for round in 0..max {
            if self.has_everybody(count) {
                return round;
            }
            self.round();
        }
        let behind = self.speaking().filter(|at| self.read(*at) < count).count();
        panic!("{behind} have not read {count} records after {max} rounds");
    }

    fn here(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.peers.len()).filter(|at| !self.gone.contains(at))
    }

    fn read(&self, at: usize) -> usize {
        self.peers[at].read.get(&self.id).map_or(0, Vec::len)
    }

    /// Those who are there and say something: whoever is silent cannot ask for what he lacks.
    fn speaking(&self) -> impl Iterator<Item = usize> + '_ {
        self.here().filter(|at| !self.silent.contains(at))
    }

    fn has_everybody(&self, count: usize) -> bool {
        self.speaking().all(|at| self.read(at) == count)
    }

    fn leave(&mut self, at: usize) {
        self.gone.insert(at);
        for other in std::mem::take(&mut self.links[at]) {
            self.links[other].remove(&at);
            self.peers[other].replica.disconnected(&key(at));
        }
    }

    fn count(&mut self, from: usize, to: usize, message: &[u8]) {
        let Message::Range {
            log, first, runs, ..
        } = Message::decode(message).unwrap()
        else {
            return;
        };
        let named = self.named.entry((from, to)).or_default();
        let log = match log {
            LogName::New(log) => {
                named.push(log);
                log
            }
            LogName::Known(number) => named[number as usize],
        };
        if Some(log) != self.data_log {
            return;
        }
        let records: usize = runs.iter().map(|run| run.count()).sum();
        for seq in first..first + records as u64 {
            *self.sent.entry((from, seq)).or_default() += 1;
            *self.received.entry((to, seq)).or_default() += 1;
        }
    }

    /// Most copies of one record that the source sent.
    fn of_source(&self, from: Seq) -> u32 {
        let own = self
            .sent
            .iter()
            .filter(|((at, seq), _)| *at == 0 && *seq >= from);
        own.map(|(_, copies)| *copies).max().unwrap_or_default()
    }

    /// Copies per record that a viewer sent, on average; and those that one received.
    fn of_viewers(&self, from: Seq, to: Seq) -> (f64, f64) {
        let sum = |map: &BTreeMap<(usize, Seq), u32>| {
            let of = map
                .iter()
                .filter(|((at, seq), _)| *at != 0 && (from..=to).contains(seq));
            f64::from(of.map(|(_, copies)| *copies).sum::<u32>())
        };
        let records = (to - from + 1) as f64 * (self.here().count() - 1) as f64;
        (sum(&self.sent) / records, sum(&self.received) / records)
    }

    fn is_level(&self) -> bool {
        self.here().all(|a| {
            let level = |b: &usize| self.peers[a].replica.level(&key(*b), &self.id);
            self.links[a].iter().all(|b| level(b) == Level::Level)
        })
    }

    /// Rounds until nobody has anything to say.
    fn until_silent(&mut self, max: usize) {
        let mut silent = 0;
        for _ in 0..max {
            silent = if self.round() { 0 } else { silent + 1 };
            if silent > 8 {
                return;
            }
        }
        panic!("still busy after {max} rounds");
    }
}

/// A thousand viewers, all known to the source, each also to some eight others.
#[test]
fn thousand_viewers_feed_each_other() {
    let mut crowd = Crowd::new(1_000);
    crowd.connect_all(1_000, 4);
    crowd.until_silent(200);

    // The first record finds no tree yet; from then on there is one.
    crowd.write("0");
    crowd.until_read(1, 120);
    for number in 1..16_usize {
        crowd.write(&number.to_string());
        let rounds = crowd.until_read(number + 1, 120);
        assert!(rounds <= 40, "record {number} took {rounds} rounds");
        crowd.rounds(8);
    }
    crowd.until_silent(400);
    assert!(
        crowd.is_level(),
        "whoever is only told of records is level too"
    );
    let (sent, received) = crowd.of_viewers(1, 16);
    let (settled, duplicates) = crowd.of_viewers(5, 16);
    assert!(crowd.of_source(1) <= 16, "{}", crowd.of_source(1));
    assert!(sent <= 1.5 && received <= 1.6, "{sent} {received}");
    assert!(
        settled <= 1.1 && duplicates <= 1.1,
        "{settled} {duplicates}"
    );

    // A tenth goes in the middle of a record, another tenth falls silent.
    let next = crowd.write("16");
    crowd.rounds(3);
    let mut rng = rng(6);
    let drawn = |rng: &mut rand_chacha::ChaCha20Rng| 1 + rng.next_u32() as usize % 1_000;
    while crowd.gone.len() < 100 {
        let at = drawn(&mut rng);
        if !crowd.gone.contains(&at) {
            crowd.leave(at);
        }
    }
    // Announced after 200 ms, missed after 1 s, asked for, sent.
    let rounds = crowd.until_read(17, 400);
    assert!(rounds <= 60, "{rounds}");
    while crowd.silent.len() < 100 {
        let at = drawn(&mut rng);
        if !crowd.gone.contains(&at) {
            crowd.silent.insert(at);
        }
    }
    for number in 17..22_usize {
        crowd.write(&number.to_string());
        let rounds = crowd.until_read(number + 1, 400);
        assert!(rounds <= 200, "record {number} took {rounds} rounds");
        crowd.rounds(8);
    }
    let (sent, received) = crowd.of_viewers(next, next + 5);
    assert!(crowd.of_source(next) <= 16, "{}", crowd.of_source(next));
    assert!(sent <= 1.5 && received <= 1.6, "{sent} {received}");
}

/// Few peers push as if there were no fan-out: nothing is announced.
#[test]
fn few_peers_push_everything() {
    let mut crowd = Crowd::new(3);
    for a in 0..4 {
        for b in 0..a {
            crowd.connect(a, b);
        }
    }
    crowd.until_silent(100);
    for number in 0..10_usize {
        crowd.write(&number.to_string());
        assert_eq!(crowd.until_read(number + 1, 10), 2, "one way");
        crowd.until_silent(20);
    }
    assert!(crowd.is_level());
    assert_eq!(crowd.of_source(1), 3);
}

/// Viewers who know nobody but the source are pushed to by it, however many they are.
#[test]
fn star_is_served_by_its_middle() {
    let mut crowd = Crowd::new(2 * SPREAD_DEGREE);
    crowd.connect_all(2 * SPREAD_DEGREE, 0);
    crowd.until_silent(100);
    crowd.write("0");
    crowd.until_read(1, 40);
    crowd.until_silent(100);
    for number in 1..5_usize {
        crowd.write(&number.to_string());
        assert_eq!(
            crowd.until_read(number + 1, 10),
            2,
            "asked once, pushed from then on"
        );
        crowd.until_silent(100);
    }
    assert!(crowd.is_level());
}

/// A chain of viewers behind a source that does not know most of them.
#[test]
fn viewers_that_the_source_does_not_know_are_fed() {
    let mut crowd = Crowd::new(120);
    crowd.connect_all(3, 3);
    crowd.until_silent(300);
    for number in 0..6_usize {
        crowd.write(&number.to_string());
        crowd.until_read(number + 1, 200);
    }
    crowd.until_silent(400);
    assert!(crowd.is_level());
    assert!(crowd.of_source(1) <= 3);
    let (sent, _) = crowd.of_viewers(3, 6);
    assert!(sent <= 1.5, "{sent}");
}

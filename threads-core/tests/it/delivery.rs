//! Several peers have what one lacks: it comes once, and whoever sends it may fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use leno_threads_core::sync::{Level, Message, RANGE_BYTES};
use leno_threads_core::{Padding, Role, ThreadId};
use proptest::prelude::*;

use crate::util::{Peer, sync};

/// How long a round lasts.
const ROUND_MILLIS: u64 = 20;

/// Everything is over by then, on any link.
const ROUNDS_MAX: usize = 20_000;

/// Bytes that wait on a link before no more is asked for.
const QUEUE_BYTES: usize = 1 << 20;

/// What of data logs answers a vector before anything was looked at.
const PROBE_BYTES: usize = 64 << 10;

/// Peers on links that each carry so many bytes in a round.
struct Net {
    peers: Vec<Peer>,
    id: ThreadId,
    links: BTreeMap<(usize, usize), Wire>,
    /// Who takes in nothing and says nothing, though connected.
    dead: BTreeSet<usize>,
    /// Bytes that came to the last peer, by who sent them.
    came: BTreeMap<usize, usize>,
    pauses: usize,
    /// Whom the last peer had pause last.
    paused: usize,
}

struct Wire {
    queue: VecDeque<Vec<u8>>,
    bytes_a_round: usize,
    /// What of the first message is through.
    through: usize,
}

impl Net {
    /// So many peers that have a thread, and a last one who joins it and has nothing. Nobody is
    /// connected.
    fn new(having: usize, writers: usize, records: usize, text: usize) -> Self {
        let mut peers: Vec<_> = (0..=having)
            .map(|at| Peer::new(u8::try_from(at + 1).unwrap()))
            .collect();
        let id = peers[0].create();
        for at in 1..=having {
            let (alice, others) = peers.split_first_mut().unwrap();
            alice.seat(&mut others[at - 1], id, Role::Writer);
            if at < having {
                sync(alice, &mut others[at - 1]);
            }
        }
        for (at, peer) in peers.iter_mut().enumerate().take(writers) {
            let thread = peer.replica.thread_mut(&id).unwrap();
            thread.set_padding(Padding::Off);
            let texts: Vec<_> = (0..records / writers)
                .map(|it| format!("{at} {it} ").repeat(text / 8))
                .collect();
            for texts in texts.chunks(100) {
                peer.write_many(id, texts.iter().map(String::as_str));
            }
        }
        for _ in 0..2 {
            let (alice, others) = peers.split_first_mut().unwrap();
            for other in &mut others[..having - 1] {
                sync(alice, other);
            }
        }
        Self {
            peers,
            id,
            links: BTreeMap::new(),
            dead: BTreeSet::new(),
            came: BTreeMap::new(),
            pauses: 0,
            paused: 0,
        }
    }

    fn last(&self) -> usize {
        self.peers.len() - 1
    }

    /// Connects two peers anew.
    fn connect(&mut self, a: usize, b: usize, bytes_a_round: usize) {
        self.part(a, b);
        for (from, to) in [(a, b), (b, a)] {
            let other = self.peers[to].key;
            self.peers[from].connected(other);
            let wire = Wire {
                queue: VecDeque::new(),
                bytes_a_round,
                through: 0,
            };
            self.links.insert((from, to), wire);
        }
    }

    fn part(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let other = self.peers[to].key;
            self.peers[from].replica.disconnected(&other);
            self.links.remove(&(from, to));
        }
    }

    /// One round; tells whether anything was under way.
    fn round(&mut self) -> bool {
        for peer in &mut self.peers {
            peer.now += ROUND_MILLIS;
            let due = peer.replica.poll_timeout();
            if due.is_some_and(|at| at <= peer.now) {
                peer.tick();
            }
        }
        let mut is_busy = false;
        for (from, to) in self.links.keys().copied().collect::<Vec<_>>() {
            let other = self.peers[to].key;
            let queue = self.links[&(from, to)].queue.iter();
            let mut waiting: usize = queue.map(Vec::len).sum();
            while waiting < QUEUE_BYTES && !self.dead.contains(&from) {
                let Some(message) = self.peers[from].poll(other) else {
                    break;
                };
                waiting += message.len();
                let wire = self.links.get_mut(&(from, to)).unwrap();
                wire.queue.push_back(message);
            }
        }
        for (from, to) in self.links.keys().copied().collect::<Vec<_>>() {
            let wire = self.links.get_mut(&(from, to)).unwrap();
            is_busy |= !wire.queue.is_empty();
            wire.through += wire.bytes_a_round;
            while let Some(first) = self.links[&(from, to)].queue.front() {
                let (length, wire) = (first.len(), &self.links[&(from, to)]);
                if wire.through < length {
                    break;
                }
                let wire = self.links.get_mut(&(from, to)).unwrap();
                wire.through -= length;
                let message = wire.queue.pop_front().unwrap();
                if self.dead.contains(&to) {
                    continue;
                }
                if to == self.last() {
                    *self.came.entry(from).or_default() += length;
                }
                let is_pause = matches!(Message::decode(&message), Ok(Message::Pause { .. }));
                if is_pause {
                    self.pauses += 1;
                    self.paused = to;
                }
                let other = self.peers[from].key;
                let taken = self.peers[to].receive(other, &message);
                assert!(
                    taken.is_ok() && self.peers[to].errors.is_empty(),
                    "{:?}",
                    self.peers[to].errors
                );
            }
            let wire = self.links.get_mut(&(from, to)).unwrap();
            if wire.queue.is_empty() {
                wire.through = 0;
            }
        }
        is_busy
    }

    /// Tells whether the last peer has all, and is level with whoever it is connected to and alive.
    fn is_done(&self) -> bool {
        let last = self.last();
        let others = self.links.keys().filter(|(_, to)| *to == last);
        let alive = others.filter(|(from, _)| !self.dead.contains(from));
        self.peers[last].reads(self.id).len() == self.peers[0].reads(self.id).len()
            && alive.copied().all(|(from, _)| self.is_level(from))
    }

    /// Tells whether the last peer and another one both say that they are level.
    fn is_level(&self, other: usize) -> bool {
        let [a, b] = [other, self.last()].map(|at| &self.peers[at]);
        let level = |a: &Peer, b: &Peer| a.replica.level(&b.key, &self.id) == Level::Level;
        level(a, b) && level(b, a)
    }

    /// Rounds until the last peer has all. Returns how many.
    fn run(&mut self) -> usize {
        for rounds in 0..ROUNDS_MAX {
            if self.is_done() {
                assert_eq!(
                    self.peers[self.last()].reads(self.id),
                    self.peers[0].reads(self.id)
                );
                return rounds;
            }
            self.round();
        }
        let reads: Vec<_> = self
            .peers
            .iter()
            .map(|it| it.reads(self.id).len())
            .collect();
        panic!("it never comes: {reads:?}, {:?}", self.came);
    }

    fn bytes(&self) -> usize {
        self.came.values().sum()
    }
}

/// Bytes that come to a newcomer from one peer.
fn from_one(writers: usize, records: usize, text: usize) -> usize {
    let mut net = Net::new(2, writers, records, text);
    let last = net.last();
    net.connect(last, 1, 256 << 10);
    net.run();
    net.bytes()
}

/// What comes from several is what comes from one, and a little of each of the others.
#[test]
fn what_several_have_comes_once() {
    for (writers, records, text) in [(1, 20_000, 200), (2, 10_000, 1_000)] {
        let once = from_one(writers, records, text);
        for senders in [2, 4] {
            let mut net = Net::new(senders, writers, records, text);
            let last = net.last();
            for at in 0..senders {
                net.connect(last, at, 256 << 10);
            }
            net.run();
            // A newcomer's first vector is sent before it knows anybody's role, the second one after.
            // With one log of each writer all send another one first, until they meet: a range that is
            // looked at then, and what each has under way behind it, comes twice.
            let most = match writers {
                1 => once + (senders - 1) * 4 * (PROBE_BYTES + (16 << 10)),
                _ => once + senders * (QUEUE_BYTES + 2 * RANGE_BYTES),
            };
            println!(
                "{writers} writers, {senders} senders: {} B, {once} B from one, {:?}",
                net.bytes(),
                net.came
            );
            assert!(once > 3_000_000, "{once}");
            assert!(net.bytes() <= most, "{} > {most}", net.bytes());
            assert!(net.pauses < 2 * senders, "{}", net.pauses);
        }
    }
}

/// A slow peer may be the first whose answer comes; the faster one goes on.
#[test]
fn faster_one_goes_on() {
    let once = from_one(1, 20_000, 200);
    let mut net = Net::new(2, 1, 20_000, 200);
    let last = net.last();
    net.connect(last, 0, 2 << 10);
    net.connect(last, 1, 256 << 10);
    net.run();
    println!("{once} B from one, {:?}", net.came);
    let most = once + 2 * PROBE_BYTES + (16 << 10);
    assert!(net.bytes() <= most, "{} > {most}", net.bytes());
}

#[test]
fn next_one_goes_on_when_whoever_sends_goes_away() {
    for is_told in [true, false] {
        let mut net = Net::new(3, 1, 20_000, 200);
        let last = net.last();
        for at in 0..3 {
            net.connect(last, at, 64 << 10);
        }
        while net.bytes() < 1_500_000 {
            assert!(net.round());
        }
        let sender = *net.came.iter().max_by_key(|(_, bytes)| **bytes).unwrap().0;
        assert!(net.came[&sender] > 1_000_000, "one sends: {:?}", net.came);
        match is_told {
            true => net.part(last, sender),
            // Its link stands, and nothing comes over it.
            false => {
                net.dead.insert(sender);
                net.links.get_mut(&(sender, last)).unwrap().queue.clear();
            }
        }
        let rounds = net.run();
        let patience = if is_told { 0 } else { 15_000 / ROUND_MILLIS };
        assert!(rounds < 300 + patience as usize, "{rounds}");
    }
}

/// Whoever is on a link that grows slow holds up for a while what another one has, and not for long.
#[test]
fn slow_one_holds_nobody_up_for_long() {
    let mut net = Net::new(2, 1, 4_000, 200);
    let last = net.last();
    net.connect(last, 0, 256 << 10);
    net.connect(last, 1, 256 << 10);
    while net.pauses == 0 {
        net.round();
    }
    // From now on all that is left would take this sender ten minutes.
    let sender = *net.came.iter().max_by_key(|(_, bytes)| **bytes).unwrap().0;
    net.links.get_mut(&(sender, last)).unwrap().bytes_a_round = 20;
    let all = net.peers[0].reads(net.id);
    let mut rounds = 0;
    while net.peers[last].reads(net.id) != all {
        net.round();
        rounds += 1;
        assert!(rounds < 30_000 / ROUND_MILLIS, "{:?}", net.came);
    }
}

/// Whoever sends something new every few seconds holds up nobody for more than a minute.
#[test]
fn who_sends_now_and_then_holds_nobody_up_for_long() {
    let mut net = Net::new(50, 50, 5_000, 1_000);
    let last = net.last();
    net.connect(last, 0, 256 << 10);
    net.connect(last, 1, 256 << 10);
    while net.pauses == 0 {
        net.round();
    }
    // Each log is one range, and comes in less than what counts as silence. All would take two minutes.
    let sender = 1 - net.paused;
    net.links.get_mut(&(sender, last)).unwrap().bytes_a_round = 600;
    let all = net.peers[0].reads(net.id);
    let mut rounds = 0;
    while net.peers[last].reads(net.id) != all {
        net.round();
        rounds += 1;
        assert!(rounds < 75_000 / ROUND_MILLIS, "{:?}", net.came);
    }
    assert!(rounds > 50_000 / ROUND_MILLIS, "it was held up: {rounds}");
}

/// A clock that is set back makes nobody wait longer.
#[test]
fn clock_that_is_set_back_holds_nobody_up() {
    const DAY_MILLIS: u64 = 24 * 60 * 60 * 1_000;
    let mut net = Net::new(2, 1, 20_000, 200);
    let last = net.last();
    // Or it would hold what was written before.
    net.peers[last].clock_is_set = false;
    net.connect(last, 0, 64 << 10);
    net.connect(last, 1, 64 << 10);
    while net.pauses < 2 {
        net.round();
    }
    let sender = 1 - net.paused;
    net.dead.insert(sender);
    net.links.get_mut(&(sender, last)).unwrap().queue.clear();
    let peer = &mut net.peers[last];
    peer.now -= DAY_MILLIS;
    peer.replica.clock_went_back(DAY_MILLIS);
    let rounds = net.run();
    assert!(rounds < 30_000 / ROUND_MILLIS as usize, "{rounds}");
}

/// Somebody has a small part of what another one sends, so he pauses and has nothing more. What he writes
/// later comes.
#[test]
fn who_paused_and_told_all_is_asked_again() {
    let mut net = Net::new(2, 1, 300, 200);
    let (id, last) = (net.id, net.last());
    let texts: Vec<_> = (0..20_000).map(|it| format!("{it} ").repeat(30)).collect();
    for texts in texts.chunks(100) {
        net.peers[0].write_many(id, texts.iter().map(String::as_str));
    }
    net.connect(last, 0, 256 << 10);
    net.connect(last, 1, 16 << 10);
    net.run();
    assert!(net.pauses > 0, "he sent what was here");
    net.peers[1].write(id, "later");
    for _ in 0..200 {
        net.round();
    }
    let reads = net.peers[last].reads(id);
    assert!(reads.iter().any(|(.., text)| text == "later"));
    assert!(net.is_level(1), "and both know it");
}

/// Somebody who pauses is heard all the same.
#[test]
fn signals_do_not_pause() {
    let mut net = Net::new(2, 1, 20_000, 200);
    let (id, last) = (net.id, net.last());
    net.connect(last, 0, 64 << 10);
    net.connect(last, 1, 64 << 10);
    while net.pauses < 2 {
        net.round();
    }
    for _ in 0..5 {
        net.round();
    }
    let paused = *net.came.iter().min_by_key(|(_, bytes)| **bytes).unwrap().0;
    let peer = &mut net.peers[paused];
    let (replica, rng) = (&mut peer.replica, &mut peer.rng);
    replica
        .signal(id, "cursor", Some(b"here"), peer.now, rng)
        .unwrap();
    for _ in 0..5 {
        net.round();
    }
    assert!(!net.is_done(), "records are still under way");
    let heard = net.peers[last].replica.take_signal_events();
    assert!(heard.iter().any(|it| it.name == "cursor"), "{heard:?}");
}

#[derive(Clone, Debug)]
enum Blow {
    /// A link breaks and is made anew, as fast as this.
    Anew(usize, usize),
    /// A peer falls silent.
    Dies(usize),
    /// Somebody writes.
    Writes(usize),
    Nothing,
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        (0..4_usize, 256..200_000_usize).prop_map(|(at, rate)| Blow::Anew(at, rate)),
        (1..4_usize).prop_map(Blow::Dies),
        (0..4_usize).prop_map(Blow::Writes),
        Just(Blow::Nothing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.min(64) / 4, ..ProptestConfig::default() })]

    /// Whatever links do and whoever falls silent: what somebody alive has comes.
    #[test]
    fn what_somebody_has_comes(
        blows in prop::collection::vec((blow(), 1..400_usize), 0..12),
        writers in 1..4_usize,
    ) {
        let mut net = Net::new(4, writers, 3_000, 200);
        let last = net.last();
        // All have been level: whoever writes later tells the first one, who never dies.
        for at in 0..4 {
            net.connect(last, at, 64 << 10);
            if at > 0 {
                net.connect(0, at, 64 << 10);
            }
        }
        for (blow, rounds) in blows {
            match blow {
                Blow::Anew(at, rate) => net.connect(last, at, rate),
                Blow::Dies(at) => {
                    net.dead.insert(at);
                }
                Blow::Writes(at) => {
                    if !net.dead.contains(&at) {
                        let id = net.id;
                        net.peers[at].write(id, "more");
                    }
                }
                Blow::Nothing => {}
            }
            for _ in 0..rounds {
                net.round();
            }
        }
        // What a dead one wrote may be with nobody.
        for at in net.dead.clone() {
            net.dead.remove(&at);
            net.connect(0, at, 64 << 10);
            net.connect(last, at, 64 << 10);
        }
        net.run();
    }
}

//! Logs that come damaged from one peer, session after session.

use leno_threads_core::sync::{LogName, Message};
use leno_threads_core::{LogId, Role, ThreadId};

use crate::util::{NOW, Peer, connect, level, sync, talk_through};

const MINUTE_MILLIS: u64 = 60_000;

/// Alice and Bob write, Dave reads. Alice brings Dave both logs, Bob's damaged.
fn world() -> ([Peer; 3], ThreadId, LogId) {
    let mut peers = [1, 2, 3].map(Peer::new);
    let [alice, bob, dave] = &mut peers;
    let id = alice.create();
    alice.seat(bob, id, Role::Writer);
    alice.seat(dave, id, Role::Reader);
    sync(alice, bob);
    sync(alice, dave);
    bob.write(id, "bob");
    sync(bob, alice);
    let log = bob.thread(id).own_log().unwrap();
    (peers, id, log)
}

/// A session in which ranges of a log come damaged; returns how many came.
fn damaged_session(alice: &mut Peer, dave: &mut Peer, log: LogId) -> usize {
    connect(alice, dave);
    damaged_talk(alice, dave, log)
}

fn damaged_talk(alice: &mut Peer, dave: &mut Peer, poison: LogId) -> usize {
    let mut named = None;
    let mut seen = 0;
    let mut poisoned = 0;
    talk_through(alice, dave, |mut bytes| {
        let Ok(Message::Range { log, .. }) = Message::decode(&bytes) else {
            return Some(bytes);
        };
        if let LogName::New(id) = log {
            if id == poison {
                named = Some(seen);
            }
            seen += 1;
        }
        let is_poison = log == LogName::New(poison) || named.map(LogName::Known) == Some(log);
        if is_poison {
            poisoned += 1;
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        Some(bytes)
    });
    poisoned
}

/// The first time may be an accident of the wire; then it is fetched again ever more rarely. What
/// else the peer has gets through all the time.
#[test]
fn damaged_log_is_fetched_ever_more_rarely() {
    let (mut peers, id, log) = world();
    let [alice, _, dave] = &mut peers;
    let mut fetched = 0;
    for round in 1..=100 {
        alice.write(id, "sound");
        fetched += damaged_session(alice, dave, log);
        // It comes, and waits for the damaged log only because Alice has read that.
        let sound = alice.thread(id).own_log().unwrap();
        assert_eq!(dave.thread(id).log(&sound).unwrap().tip.seq, round);
        // A reconnect every ten seconds.
        dave.now += MINUTE_MILLIS / 6;
        dave.tick();
    }
    // At 0 and 10 s, then 2, 4, 8 minutes later.
    assert_eq!(fetched, 5);
    assert_eq!(dave.errors.len(), 5);
    // Healed, it comes in the first session that tries it; others were never blocked.
    sync(alice, dave);
    assert_eq!(dave.reads(id), []);
    dave.now += 24 * 60 * MINUTE_MILLIS;
    dave.tick();
    sync(alice, dave);
    assert_eq!(dave.reads(id), alice.reads(id));
    assert_eq!(dave.reads(id).len(), 101);
    assert_eq!(dave.replica.poll_timeout(), None);
}

/// A session that lasts tries again by itself, when the time has come.
#[test]
fn healed_log_comes_within_the_session() {
    let (mut peers, id, log) = world();
    let [alice, bob, dave] = &mut peers;
    assert_eq!(damaged_session(alice, dave, log), 1);
    assert_eq!(dave.replica.poll_timeout(), Some(NOW + MINUTE_MILLIS));
    dave.replica.refresh(&alice.key);
    assert_eq!(damaged_talk(alice, dave, log), 0);
    assert_eq!(dave.reads(id), []);
    dave.now += MINUTE_MILLIS;
    dave.tick();
    crate::util::talk(alice, dave);
    assert_eq!(dave.reads(id), bob.reads(id));
    assert!(level(alice, dave, id));
}

/// What one peer damages, another brings.
#[test]
fn other_peers_are_asked_all_the_time() {
    let (mut peers, id, log) = world();
    let [alice, bob, dave] = &mut peers;
    for _ in 0..3 {
        damaged_session(alice, dave, log);
    }
    assert_eq!(dave.reads(id), []);
    sync(bob, dave);
    assert_eq!(dave.reads(id), bob.reads(id));
}

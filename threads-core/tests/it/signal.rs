//! Signals: who hears them, for how long, and what others could make of them.

use leno_threads_core::Role;
use leno_threads_core::ThreadId;
use leno_threads_core::sync::{
    Level, Message, SIGNAL_KEYS_MAX, SIGNAL_TTL_MILLIS, SIGNAL_VALUE_BYTES_MAX, Signal,
    SignalError, SyncError,
};

use crate::util::{Peer, connect, rows, sync, talk, talk_through};

impl Peer {
    fn signal(&mut self, id: ThreadId, name: &str, value: &str) -> Result<(), SignalError> {
        let now = self.time();
        self.replica
            .signal(id, name, Some(value.as_bytes()), now, &mut self.rng)
    }

    fn heard(&mut self) -> Vec<(String, Option<String>)> {
        let events = self.replica.take_signal_events();
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        events
            .into_iter()
            .map(|it| (it.name, it.value.map(text)))
            .collect()
    }

    fn known(&self, id: ThreadId) -> Vec<(String, String)> {
        let known = self.replica.signals(id);
        known
            .map(|(_, name, value)| (name.to_owned(), String::from_utf8(value.to_vec()).unwrap()))
            .collect()
    }
}

fn said(name: &str, value: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(value.to_owned()))
}

fn gone(name: &str) -> (String, Option<String>) {
    (name.to_owned(), None)
}

/// Alice owns a thread; Bob has the role, and both are level.
fn pair(role: Role) -> (Peer, Peer, ThreadId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, role);
    alice.write(id, "one");
    sync(&mut alice, &mut bob);
    (alice, bob, id)
}

/// The signals among messages.
fn signal_of(message: &[u8]) -> Option<Signal> {
    let Ok(Message::Signal { signal, .. }) = Message::decode(message) else {
        return None;
    };
    Some(signal)
}

#[test]
fn signal_is_heard_at_once_and_stored_nowhere() {
    let (mut alice, mut bob, id) = pair(Role::Reader);
    let before = (rows(&alice.store), rows(&bob.store));
    alice.signal(id, "verse", "3").unwrap();
    let bytes = talk(&mut alice, &mut bob);
    assert!(bytes < 400, "{bytes}");
    assert_eq!(bob.heard(), [said("verse", "3")]);
    // A reader is heard too: presence is of all who are there.
    bob.signal(id, "here", "Bob").unwrap();
    bob.signal(id, "here", "Bobby").unwrap();
    talk(&mut alice, &mut bob);
    assert_eq!(
        alice.heard(),
        [said("here", "Bobby")],
        "only the newest goes"
    );
    assert_eq!(
        (alice.heard(), bob.heard()),
        (vec![], vec![]),
        "nobody hears himself"
    );
    assert_eq!((rows(&alice.store), rows(&bob.store)), before);
    assert_eq!(alice.replica.level(&bob.key, &id), Level::Level);
    bob.restart();
    assert_eq!(bob.known(id), []);
}

#[test]
fn signal_is_gone_after_its_time_or_with_its_session() {
    let (mut alice, mut bob, id) = pair(Role::Writer);
    alice.signal(id, "verse", "3").unwrap();
    talk(&mut alice, &mut bob);
    bob.heard();
    assert_eq!(
        bob.replica.poll_timeout(),
        Some(bob.now + u64::from(SIGNAL_TTL_MILLIS))
    );
    bob.now += u64::from(SIGNAL_TTL_MILLIS) - 1;
    bob.tick();
    assert_eq!(bob.heard(), []);
    bob.now += 1;
    bob.tick();
    assert_eq!(
        (bob.heard(), bob.replica.poll_timeout()),
        (vec![gone("verse")], None)
    );
    assert_eq!(bob.known(id), []);

    alice.now = bob.now;
    alice.signal(id, "verse", "4").unwrap();
    alice.signal(id, "here", "Alice").unwrap();
    talk(&mut alice, &mut bob);
    assert_eq!(bob.known(id).len(), 2);
    bob.heard();
    bob.replica.disconnected(&alice.key);
    let mut heard = bob.heard();
    heard.sort();
    assert_eq!(heard, [gone("here"), gone("verse")]);
    // Whoever connects again hears what still lasts: it is not older than what was known.
    connect(&mut alice, &mut bob);
    talk(&mut alice, &mut bob);
    assert_eq!(
        bob.known(id).len(),
        0,
        "what ended with its session is not shown again"
    );
    alice.signal(id, "verse", "5").unwrap();
    talk(&mut alice, &mut bob);
    assert_eq!(bob.known(id), [("verse".to_owned(), "5".to_owned())]);
}

#[test]
fn newcomer_hears_what_lasts() {
    let (mut alice, mut bob, id) = pair(Role::Writer);
    let mut carol = Peer::new(3);
    alice.seat(&mut carol, id, Role::Reader);
    alice.signal(id, "verse", "3").unwrap();
    bob.signal(id, "here", "Bob").unwrap();
    talk(&mut alice, &mut bob);
    sync(&mut alice, &mut carol);
    let mut heard = carol.heard();
    heard.sort();
    assert_eq!(heard, [said("here", "Bob"), said("verse", "3")]);
}

#[test]
fn withdrawn_key_is_over() {
    let (mut alice, mut bob, id) = pair(Role::Writer);
    alice.signal(id, "verse", "3").unwrap();
    talk(&mut alice, &mut bob);
    let now = alice.time();
    alice
        .replica
        .signal(id, "verse", None, now, &mut alice.rng)
        .unwrap();
    talk(&mut alice, &mut bob);
    assert_eq!(bob.heard(), [said("verse", "3"), gone("verse")]);
    assert_eq!(bob.known(id), []);
}

#[test]
fn replicator_hands_on_what_it_cannot_read() {
    let (mut alice, mut rex, id) = pair(Role::Replicator);
    let mut bob = Peer::new(3);
    alice.seat(&mut bob, id, Role::Writer);
    talk(&mut alice, &mut rex);
    rex.connected(bob.key);
    bob.connected(rex.key);
    talk(&mut bob, &mut rex);
    talk(&mut alice, &mut rex);
    alice.signal(id, "verse", "a secret verse").unwrap();
    let mut through = Vec::new();
    talk_through(&mut alice, &mut rex, |message| {
        through.push(message.clone());
        Some(message)
    });
    for secret in [&b"verse"[..], b"secret"] {
        assert!(
            !through
                .concat()
                .windows(secret.len())
                .any(|it| it == secret)
        );
    }
    talk(&mut rex, &mut bob);
    assert_eq!(bob.heard(), [said("verse", "a secret verse")]);
    assert_eq!((rex.heard(), rex.known(id)), (vec![], vec![]));
    let now = rex.time();
    let refused = rex
        .replica
        .signal(id, "here", Some(b"Rex"), now, &mut rex.rng);
    assert_eq!(refused, Err(SignalError::NotReader));
    // What Bob has came over one session; that it went through Rex changes nothing.
    bob.replica.disconnected(&rex.key);
    assert_eq!(bob.heard(), [gone("verse")]);
}

#[test]
fn forged_moved_and_changed_signals_are_refused() {
    let (mut alice, mut bob, id) = pair(Role::Writer);
    alice.signal(id, "verse", "3").unwrap();
    let mut good = None;
    talk_through(&mut alice, &mut bob, |message| {
        good = signal_of(&message).or(good.take());
        signal_of(&message).is_none().then_some(message)
    });
    let good = good.unwrap();
    assert!(
        good.verify(id) && !good.verify(ThreadId([9; 32])),
        "it is of one thread"
    );
    let change = |edit: &dyn Fn(&mut Signal)| {
        let mut signal = good.clone();
        edit(&mut signal);
        signal
    };
    let forged = [
        change(&|it| it.tag[0] ^= 1),
        change(&|it| it.at.0 += 1),
        change(&|it| it.ttl_millis += 1),
        change(&|it| it.sealed[40] ^= 1),
        change(&|it| it.signature[0] ^= 1),
    ];
    let send = |bob: &mut Peer, signal: Signal| {
        let message = Message::Signal { thread: 0, signal }.encode();
        bob.receive(alice.key, &message)
    };
    for signal in forged {
        assert_eq!(send(&mut bob, signal), Ok(()), "the session goes on");
        let error = bob.errors.pop();
        assert!(matches!(error, Some(SyncError::Signal { .. })), "{error:?}");
    }
    // A seat that is none, an epoch that is none: nobody's fault, and nothing.
    let bobs = bob.thread(id).seat().id();
    for signal in [
        change(&|it| it.seat.0[0] ^= 1),
        change(&|it| it.epoch.0[0] ^= 1),
        change(&|it| it.seat = bobs),
    ] {
        send(&mut bob, signal).unwrap();
    }
    assert_eq!((bob.heard(), bob.errors.len()), (vec![], 0));
    send(&mut bob, good).unwrap();
    assert_eq!(bob.heard(), [said("verse", "3")]);
}

#[test]
fn replayed_signal_is_not_heard_again() {
    let (mut alice, mut bob, id) = pair(Role::Writer);
    let mut signals = Vec::new();
    for value in ["3", "4"] {
        alice.signal(id, "verse", value).unwrap();
        talk_through(&mut alice, &mut bob, |message| {
            signals.extend(signal_of(&message));
            Some(message)
        });
    }
    assert_eq!(bob.heard(), [said("verse", "3"), said("verse", "4")]);
    let replay = |bob: &mut Peer| {
        for signal in signals.clone() {
            let message = Message::Signal { thread: 0, signal }.encode();
            bob.receive(alice.key, &message).unwrap();
        }
        bob.heard()
    };
    assert_eq!(replay(&mut bob), []);
    // Not after its time either: it stays known until its stamp is too old for anybody.
    for millis in [u64::from(SIGNAL_TTL_MILLIS), 300_000, 700_000, 10_000_000] {
        bob.now += millis;
        bob.tick();
        bob.heard();
        assert_eq!(replay(&mut bob), []);
    }
    // Nor from a clock that is far ahead.
    alice.now = bob.now + 700_000;
    alice.signal(id, "verse", "5").unwrap();
    talk(&mut alice, &mut bob);
    assert_eq!((bob.heard(), bob.errors.len()), (vec![], 0));
}

#[test]
fn application_that_sends_too_much_is_told() {
    let (mut alice, mut bob, id) = pair(Role::Writer);
    for number in 0..32 {
        alice.signal(id, "cursor", &number.to_string()).unwrap();
    }
    assert_eq!(
        alice.signal(id, "cursor", "x"),
        Err(SignalError::TooFast { wait_millis: 50 })
    );
    talk(&mut alice, &mut bob);
    assert_eq!(bob.heard(), [said("cursor", "31")]);
    alice.now += 50;
    alice.signal(id, "cursor", "x").unwrap();
    alice.now += 10_000;
    for number in 1..SIGNAL_KEYS_MAX {
        alice.signal(id, &number.to_string(), "x").unwrap();
    }
    assert_eq!(
        alice.signal(id, "one more", "x"),
        Err(SignalError::TooManyKeys)
    );
    let long = "x".repeat(SIGNAL_VALUE_BYTES_MAX + 1);
    let refused = alice.signal(id, "cursor", &long);
    assert_eq!(refused, Err(SignalError::ValueTooLong { bytes: 1_025 }));
    let refused = alice.signal(id, &long[..65], "x");
    assert_eq!(refused, Err(SignalError::NameTooLong { bytes: 65 }));
    alice.signal(id, "cursor", &long[1..]).unwrap();
    talk(&mut alice, &mut bob);
    assert_eq!(bob.known(id).len(), SIGNAL_KEYS_MAX);
    let refused = alice.signal(ThreadId([1; 32]), "cursor", "x");
    assert_eq!(refused, Err(SignalError::NoSuchThread));
}

/// A peer that floods is not listened to for a while; records go on meanwhile.
#[test]
fn flood_is_dropped_and_records_go_on() {
    let (mut alice, mut bob, id) = pair(Role::Writer);
    alice.signal(id, "verse", "3").unwrap();
    let mut signal = None;
    talk_through(&mut alice, &mut bob, |message| {
        signal = signal_of(&message).or(signal.take());
        Some(message)
    });
    bob.heard();
    let mut junk = signal.unwrap();
    junk.signature = [7; 64];
    for number in 0..10_000 {
        junk.at.0 += 1;
        junk.tag[..4].copy_from_slice(&u32::to_be_bytes(number));
        let message = Message::Signal {
            thread: 0,
            signal: junk.clone(),
        };
        bob.receive(alice.key, &message.encode()).unwrap();
    }
    // Each is a signature that was checked; the good one before was one too.
    assert_eq!(bob.errors.len(), 1_999);
    bob.errors.clear();
    alice.signal(id, "verse", "4").unwrap();
    alice.write(id, "two");
    talk(&mut alice, &mut bob);
    assert_eq!((bob.heard(), bob.reads(id).len()), (vec![], 2));
    for peer in [&mut alice, &mut bob] {
        peer.now += 2_000;
    }
    alice.signal(id, "verse", "5").unwrap();
    talk(&mut alice, &mut bob);
    assert_eq!(bob.heard(), [said("verse", "5")]);
}

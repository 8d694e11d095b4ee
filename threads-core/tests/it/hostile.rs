//! Hostile bytes and messages: no panic, bounded state, and an honest session converges afterwards.

use leno_crdt_codec::cbor::DecodeError;
use leno_threads_core::sync::{
    AckLog, EPOCHS_MAX, HaveLog, LogName, Message, STRANGE_LOGS_MAX, SYNC_MESSAGE_BYTES_MAX,
    SyncError,
};
use leno_threads_core::{EpochId, LogId, Role, Run, SeatId, ThreadId, VerifyError, Wrap};
use proptest::prelude::*;

use crate::util::{Peer, connect, level, sync, talk, talk_through};

fn pair() -> (Peer, Peer, ThreadId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write_many(id, ["one", "two"]);
    (alice, bob, id)
}

/// After whatever happened, a new session makes both equal and finds nothing to complain about.
fn converges(mut alice: Peer, mut bob: Peer, id: ThreadId) {
    alice.errors.clear();
    bob.errors.clear();
    for _ in 0..2 {
        sync(&mut alice, &mut bob);
    }
    assert!(
        alice.errors.is_empty() && bob.errors.is_empty(),
        "{:?} {:?}",
        alice.errors,
        bob.errors
    );
    assert!(level(&alice, &bob, id));
    bob.write(id, "alive");
    talk(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), bob.reads(id));
}

/// The messages of a real session, from Alice to Bob.
fn recording() -> Vec<Vec<u8>> {
    let (mut alice, mut bob, _) = pair();
    connect(&mut alice, &mut bob);
    let mut messages = Vec::new();
    talk_through(&mut alice, &mut bob, |bytes| {
        messages.push(bytes.clone());
        Some(bytes)
    });
    assert!(messages.len() >= 6, "{}", messages.len());
    messages
}

/// Each message of a session, changed in many places and ways.
#[test]
fn mutated_sessions_leave_sound_peers() {
    let messages = recording();
    let mut seen = 0;
    for (at, message) in messages.iter().enumerate() {
        // Every byte of a short message, a sample of a long one.
        let step = (message.len() / 24).max(1);
        for byte in (0..message.len()).step_by(step) {
            for kind in 0..3 {
                let (mut alice, mut bob, id) = pair();
                connect(&mut alice, &mut bob);
                let mut count = 0;
                talk_through(&mut alice, &mut bob, |mut bytes| {
                    if count == at && byte < bytes.len() {
                        match kind {
                            0 => bytes[byte] ^= 1 << (byte % 8),
                            1 => bytes.truncate(byte),
                            _ => bytes.insert(byte, 0xff),
                        }
                    }
                    count += 1;
                    Some(bytes)
                });
                for error in &bob.errors {
                    assert!(error.to_string().contains("01010101"), "{error}");
                }
                seen += bob.errors.len();
                converges(alice, bob, id);
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

fn log_id() -> impl Strategy<Value = u8> {
    0..4u8
}

#[derive(Clone, Debug)]
enum Lie {
    Threads(usize),
    Have(Vec<(u8, u64, u64)>),
    Totals(u64),
    Ack(Vec<(u32, u64)>),
    Question(u8, u64),
    Refused(u8),
    UpToDate(u64),
    NeedKeys(u8),
    Wrap(u8, u8),
    Branch(u8),
    Range(u32, u64, Vec<u8>),
    Bytes(Vec<u8>),
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..6u64, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
}

fn lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        (0..40usize).prop_map(Lie::Threads),
        prop::collection::vec((log_id(), number(), any::<u64>()), 0..5).prop_map(Lie::Have),
        number().prop_map(Lie::Totals),
        prop::collection::vec((0..5u32, number()), 0..5).prop_map(Lie::Ack),
        (log_id(), number()).prop_map(|(log, from)| Lie::Question(log, from)),
        log_id().prop_map(Lie::Refused),
        number().prop_map(Lie::UpToDate),
        any::<u8>().prop_map(Lie::NeedKeys),
        (any::<u8>(), any::<u8>()).prop_map(|(seat, byte)| Lie::Wrap(seat, byte)),
        log_id().prop_map(Lie::Branch),
        (0..4u32, number(), prop::collection::vec(any::<u8>(), 1..80))
            .prop_map(|(log, first, items)| Lie::Range(log, first, items)),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(Lie::Bytes),
    ]
}

impl Lie {
    fn encode(&self, peer: &Peer, id: ThreadId) -> Vec<u8> {
        let real: Vec<LogId> = peer.thread(id).logs().map(|log| log.id).collect();
        let log = |at: u8| {
            real.get(usize::from(at))
                .copied()
                .unwrap_or(LogId([at; 32]))
        };
        let thread = 0;
        let items;
        let message = match self {
            Self::Bytes(bytes) => return bytes.clone(),
            Self::Threads(count) => Message::Threads {
                tags: vec![[7; 16]; *count],
            },
            Self::Have(logs) => {
                let mut logs: Vec<HaveLog> = logs
                    .iter()
                    .map(|(at, seq, hash)| HaveLog {
                        log: log(*at),
                        seq: (*seq).max(1),
                        hash: hash.to_be_bytes(),
                    })
                    .collect();
                logs.sort_by_key(|it| it.log);
                logs.dedup_by_key(|it| it.log);
                Message::Have {
                    thread,
                    subscribe: true,
                    wraps: [1; 8],
                    logs,
                }
            }
            Self::Totals(records) => Message::Totals {
                thread,
                records: *records,
            },
            Self::Ack(logs) => Message::Ack {
                thread,
                logs: logs
                    .iter()
                    .map(|(number, seq)| AckLog {
                        number: *number,
                        seq: *seq,
                        ranges: *seq,
                    })
                    .collect(),
            },
            Self::Question(at, from) => Message::Question {
                thread,
                log: log(*at),
                from: *from,
            },
            Self::Refused(at) => Message::Refused {
                thread,
                log: log(*at),
                is_full: *at % 2 == 1,
            },
            Self::UpToDate(vectors) => Message::UpToDate {
                thread,
                vectors: *vectors,
            },
            Self::NeedKeys(byte) => Message::NeedKeys {
                thread,
                epochs: vec![EpochId([*byte; 32])],
            },
            Self::Wrap(seat, byte) => {
                let epochs = peer.thread(id).governance().epochs();
                let epoch = epochs.last().unwrap();
                let seats: Vec<SeatId> = peer.thread(id).governance().seats().collect();
                let seat = seats[usize::from(*seat) % seats.len()];
                Message::Wraps {
                    thread,
                    wraps: vec![Wrap {
                        domain: epoch.domain,
                        epoch: epoch.epoch,
                        seat,
                        encapsulated: [*byte; 32],
                        sealed: [*byte; 48],
                    }],
                }
            }
            Self::Branch(at) => Message::Branch {
                thread,
                log: log(*at),
                signature: [3; 64],
                headers: Vec::new(),
            },
            Self::Range(at, first, bytes) => {
                items = [&[0x81][..], bytes].concat();
                let Ok(run) = leno_threads_core::Run::from_parts(&items, &[5; 64]) else {
                    return items;
                };
                Message::Range {
                    thread,
                    log: LogName::Known(*at),
                    first: *first,
                    runs: vec![run],
                }
            }
        };
        message.encode()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A peer that keeps to the format and lies about everything else.
    #[test]
    fn liars_change_nothing(lies in prop::collection::vec(lie(), 1..24)) {
        let (mut alice, mut bob, id) = pair();
        sync(&mut alice, &mut bob);
        let before = alice.state(id);
        let own = alice.thread(id).own_log();
        for lie in &lies {
            let message = lie.encode(&alice, id);
            let ended = alice.receive(bob.key, &message).is_err();
            while let Some(answer) = alice.poll(bob.key) {
                prop_assert!(answer.len() <= SYNC_MESSAGE_BYTES_MAX);
            }
            if ended {
                break;
            }
        }
        prop_assert_eq!(alice.state(id), before);
        prop_assert_eq!(alice.thread(id).own_log(), own);
        let acked = alice.replica.acked(&bob.key, &id, &own.unwrap()).unwrap_or(0);
        prop_assert!(acked <= alice.tip(id, own.unwrap()).seq);
        converges(alice, bob, id);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(&bytes);
        let _ = leno_threads_core::Header::decode(&bytes);
        let _ = leno_threads_core::Genesis::decode(&bytes);
        let _ = leno_threads_core::fork::ForkProof::decode(&bytes);
        let _ = leno_threads_core::decode_frame(&bytes);
        let _ = leno_threads_core::decode_roster(&bytes);
        let _ = leno_threads_core::decode_row(&bytes);
    }
}

fn refused(bytes: &[u8]) -> DecodeError {
    match Message::decode(bytes) {
        Err(VerifyError::Decode(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn malformed_messages_have_typed_errors() {
    // Claims more than there is.
    for claim in [
        &[0x9b_u8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &[0x9a, 1, 0, 0, 0],
    ] {
        assert!(matches!(refused(claim), DecodeError::Truncated { .. }));
    }
    // A list of lists of lists.
    assert!(matches!(
        refused(&[0x81; 100_000]),
        DecodeError::Unexpected { .. }
    ));
    // Not the shortest form, indefinite, trailing, an unknown kind, an unknown version.
    assert!(matches!(
        refused(&[0x82, 0x18, 12, 0]),
        DecodeError::NotMinimal { .. }
    ));
    assert!(matches!(
        refused(&[0x9f, 12, 0, 0xff]),
        DecodeError::Forbidden { .. }
    ));
    assert!(matches!(
        refused(&[0x83, 12, 0, 0, 0]),
        DecodeError::Trailing { .. }
    ));
    assert!(matches!(
        refused(&[0x82, 0x18, 99, 0]),
        DecodeError::OutOfBounds { .. }
    ));
    let mut hello = Message::Hello { nonce: [1; 32] }.encode();
    hello[2] = 2;
    assert!(matches!(refused(&hello), DecodeError::OutOfBounds { .. }));
    let long = vec![0; SYNC_MESSAGE_BYTES_MAX + 1];
    assert!(matches!(refused(&long), DecodeError::OutOfBounds { .. }));
    let epochs = vec![EpochId([1; 32]); 2];
    let twice = Message::NeedKeys { thread: 0, epochs }.encode();
    assert!(matches!(refused(&twice), DecodeError::OutOfBounds { .. }));
    let epochs = (0..=EPOCHS_MAX as u8).map(|it| EpochId([it; 32])).collect();
    let many = Message::NeedKeys { thread: 0, epochs }.encode();
    assert!(matches!(refused(&many), DecodeError::OutOfBounds { .. }));
}

/// Questions are cheap and answers long: answers are made one at a time, and counted.
#[test]
fn questions_are_bounded() {
    let (mut alice, mut bob, id) = pair();
    sync(&mut alice, &mut bob);
    let log = alice.thread(id).own_log().unwrap();
    let question = Message::Question {
        thread: 0,
        log,
        from: 1,
    };
    for _ in 0..1_024 {
        alice.receive(bob.key, &question.encode()).unwrap();
    }
    let answers = std::iter::from_fn(|| alice.poll(bob.key)).count();
    assert_eq!(answers, 1);
    assert!(alice.receive(bob.key, &question.encode()).is_err());
    assert!(matches!(
        alice.errors.last(),
        Some(SyncError::TooMany { .. })
    ));
}

/// Logs that a peer makes up cost it the thread, in this session, and nothing else.
#[test]
fn too_many_strange_logs_end_one_thread_and_not_the_session() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let [noisy, quiet] = [(); 2].map(|()| {
        let id = alice.create();
        alice.seat(&mut bob, id, Role::Writer);
        id
    });
    sync(&mut alice, &mut bob);
    bob.write(noisy, "heard");
    // Bob named them in the order in which he wished to join.
    let thread = 0;
    let invented = |number: usize| {
        let mut log = LogId([0x55; 32]);
        log.0[..8].copy_from_slice(&number.to_be_bytes());
        log
    };
    let items = [0x81, 0];
    let range = |log| Message::Range {
        thread,
        log: LogName::New(log),
        first: 1,
        runs: vec![Run::from_parts(&items, &[5; 64]).unwrap()],
    };
    // Bob, who is honest, is not told of what was done in his name.
    let no_acks = |bytes: Vec<u8>| {
        let is_ack = matches!(Message::decode(&bytes), Ok(Message::Ack { .. }));
        (!is_ack).then_some(bytes)
    };
    for number in 0..STRANGE_LOGS_MAX {
        alice
            .receive(bob.key, &range(invented(number)).encode())
            .unwrap();
    }
    talk_through(&mut alice, &mut bob, no_acks);
    assert_eq!(
        alice.reads(noisy),
        bob.reads(noisy),
        "a log that is open comes all the same"
    );
    assert!(alice.errors.is_empty(), "{:?}", alice.errors.first());
    let one_more = range(invented(STRANGE_LOGS_MAX)).encode();
    alice.receive(bob.key, &one_more).unwrap();
    assert!(matches!(
        alice.errors.pop(),
        Some(SyncError::TooManyLogs { .. })
    ));
    bob.write(noisy, "not heard");
    bob.write(quiet, "heard");
    talk_through(&mut alice, &mut bob, no_acks);
    assert!(alice.errors.is_empty(), "{:?}", alice.errors.first());
    assert_eq!(alice.reads(quiet), bob.reads(quiet));
    assert_eq!(
        (alice.reads(noisy).len(), level(&alice, &bob, noisy)),
        (1, false)
    );
    // The next session begins anew.
    sync(&mut alice, &mut bob);
    assert_eq!(alice.reads(noisy), bob.reads(noisy));
}

/// Messages out of turn end the session and name the peer.
#[test]
fn out_of_turn() {
    let (mut alice, bob, _) = pair();
    let hello = Message::Hello { nonce: [1; 32] }.encode();
    assert!(alice.receive(bob.key, &hello).is_err());
    alice.connected(bob.key);
    let early = Message::Threads { tags: Vec::new() }.encode();
    assert!(alice.receive(bob.key, &early).is_err());
    alice.receive(bob.key, &hello).unwrap();
    assert!(alice.receive(bob.key, &hello).is_err());
    let foreign = Message::UpToDate {
        thread: 3,
        vectors: 0,
    }
    .encode();
    assert!(alice.receive(bob.key, &foreign).is_err());
    for error in &alice.errors {
        assert!(
            error.ends_session() && error.to_string().contains("02020202"),
            "{error}"
        );
    }
}

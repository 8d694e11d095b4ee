//! What an attacker in the middle of a session, or at its other end, can do with ranges: a typed error
//! that names the peer and the reason, no change, and no harm to sessions with others.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_threads_core::sync::{LogName, Message, SyncError};
use leno_threads_core::thread::ReceiveError;
use leno_threads_core::{LogId, Role, Run, Stamp, ThreadId, VerifyError};

use crate::util::{OwnedRun, Peer, connect, rows, secrets, sync, talk, talk_through};

/// Alice owns, Bob and Carol write, Rex replicates and is the one who lies.
///
/// Alice's log has three records, of which Bob has none; he knows that it is open.
struct World {
    alice: Peer,
    bob: Peer,
    carol: Peer,
    rex: Peer,
    id: ThreadId,
    /// Alice's data log, and its only run.
    log: LogId,
    run: OwnedRun,
    /// Carol's data log, of which Bob has nothing either.
    carols: LogId,
}

fn run_of(peer: &Peer, id: ThreadId, log: LogId) -> OwnedRun {
    let runs = peer.runs(id).into_iter();
    let mut runs = runs.filter(|(of, _)| *of == log).map(|(_, run)| run);
    let run = runs.next().unwrap();
    assert!(runs.next().is_none());
    run
}

/// Lets two peers talk, but for ranges of the data logs.
fn talk_of_rules(from: &mut Peer, to: &mut Peer, logs: &[LogId]) {
    connect(from, to);
    talk_through(from, to, |bytes| {
        let is_data = matches!(
            Message::decode(&bytes),
            Ok(Message::Range { log: LogName::New(log), .. }) if logs.contains(&log)
        );
        (!is_data).then_some(bytes)
    });
}

fn world() -> World {
    let [mut alice, mut bob, mut carol, mut rex] = [1, 2, 3, 4].map(Peer::new);
    let id = alice.create();
    for (peer, role) in [
        (&mut bob, Role::Writer),
        (&mut carol, Role::Writer),
        (&mut rex, Role::Replicator),
    ] {
        alice.seat(peer, id, role);
    }
    sync(&mut alice, &mut carol);
    carol.write(id, "from carol");
    alice.write_many(id, ["one", "two", "three"]);
    sync(&mut alice, &mut carol);
    sync(&mut alice, &mut rex);
    let log = alice.thread(id).own_log().unwrap();
    let carols = carol.thread(id).own_log().unwrap();
    talk_of_rules(&mut alice, &mut bob, &[log, carols]);
    bob.errors.clear();
    for log in [log, carols] {
        assert_eq!(bob.thread(id).log(&log).map(|it| it.tip.seq), Some(0));
    }
    let run = run_of(&alice, id, log);
    assert_eq!(run.0, 1);
    World {
        alice,
        bob,
        carol,
        rex,
        id,
        log,
        run,
        carols,
    }
}

/// The items of a run, one by one.
fn items((_, items, _): &OwnedRun) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(items);
    let count = decoder.array().unwrap();
    (0..count)
        .map(|_| decoder.skip().unwrap().to_vec())
        .collect()
}

/// A run of these items under the signature of another one.
fn of_items(first: u64, items: &[Vec<u8>], like: &OwnedRun) -> OwnedRun {
    let mut encoder = Encoder::new();
    encoder.array(items.len());
    for item in items {
        encoder.raw(item);
    }
    (first, encoder.into_vec(), like.2)
}

impl World {
    /// Rex sends this instead of the range of Alice's log, and says which log it is of.
    fn send(&mut self, log: LogId, run: &OwnedRun) {
        let (of, other) = (self.log, self.carols);
        self.bob.connected(self.carol.key);
        self.carol.connected(self.bob.key);
        // Long after what was refused before, so that it is asked for again.
        self.bob.now += 24 * 60 * 60_000;
        self.bob.tick();
        connect(&mut self.rex, &mut self.bob);
        let mut sent = 0;
        talk_through(&mut self.rex, &mut self.bob, |bytes| {
            let Ok(Message::Range {
                thread,
                log: LogName::New(name),
                ..
            }) = Message::decode(&bytes)
            else {
                return Some(bytes);
            };
            // Carol's log comes from nobody but Carol here.
            if name == other {
                return None;
            }
            if name != of {
                return Some(bytes);
            }
            sent += 1;
            let (first, items, signature) = run;
            let message = Message::Range {
                thread,
                log: LogName::New(log),
                first: *first,
                runs: vec![Run::from_parts(items, signature).unwrap()],
            };
            Some(message.encode())
        });
        assert_eq!(sent, 1, "refused once, and not sent again");
    }

    /// The range is refused for this reason, which names Rex; nothing changes; Carol's session and
    /// the rest of Rex's go on; and the true range is still taken in.
    fn refused(&mut self, log: LogId, run: &OwnedRun) -> ReceiveError {
        let id = self.id;
        let before = (rows(&self.bob.store), self.bob.state(id));
        self.send(log, run);
        assert_eq!((rows(&self.bob.store), self.bob.state(id)), before);
        let mut errors = std::mem::take(&mut self.bob.errors);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let error = errors.remove(0);
        assert!(!error.ends_session());
        assert!(error.to_string().contains("04040404"), "{error}");
        let SyncError::Range {
            peer,
            thread,
            source,
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((peer, thread), (self.rex.key, id));
        source
    }

    /// Afterwards all is as if nothing had happened: in the session with Carol, which was open all
    /// the time, and in a new one with Rex.
    fn recovers(mut self) {
        let id = self.id;
        let before = self.bob.reads(id).len();
        talk(&mut self.carol, &mut self.bob);
        assert!(self.bob.errors.is_empty(), "{:?}", self.bob.errors);
        assert_eq!(self.bob.tip(id, self.carols).seq, 1);
        assert!(self.bob.reads(id).len() > before);
        sync(&mut self.rex, &mut self.bob);
        for peer in [&self.bob, &self.carol, &self.rex] {
            assert!(peer.errors.is_empty(), "{:?}", peer.errors);
        }
        assert_eq!(self.bob.reads(id), self.alice.reads(id));
    }
}

fn not_signed(error: &ReceiveError, of: LogId, last: u64) {
    let ReceiveError::Refused { log, first, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!((*log, *first), (of, 1));
    assert_eq!(*source, VerifyError::NotSigned { log: of, seq: last });
}

/// The ancestor's bug: whoever held the keys could swap the first record under an old signature.
#[test]
fn forged_first_record() {
    let mut world = world();
    let (id, log) = (world.id, world.log);
    let keys = secrets(&world.carol, id);
    let opened = world.bob.tip(id, log);
    let text = keys.text(Stamp(opened.stamp.0 + 1), "forged");
    let ((_, mut forged, _), _) = keys.craft(id, &keys.seat, &opened, &[text]);
    // Alone, and in front of the true rest.
    let run = world.run.clone();
    let error = world.refused(log, &(1, forged.clone(), run.2));
    not_signed(&error, log, 1);
    let mut all = items(&run);
    all[0] = forged.split_off(1);
    let error = world.refused(log, &of_items(1, &all, &run));
    not_signed(&error, log, 3);
    world.recovers();
}

#[test]
fn record_moved_to_another_log() {
    let mut world = world();
    let (carols, run) = (world.carols, world.run.clone());
    let error = world.refused(carols, &run);
    not_signed(&error, carols, 3);
    world.recovers();
}

/// To another thread of the same people: under the log that is open there, and under its own name,
/// which nobody opened there. The latter is nobody's fault, as the opening may be under way.
#[test]
fn record_moved_to_another_thread() {
    let World {
        mut alice,
        mut bob,
        mut rex,
        id,
        log,
        run,
        carols,
        ..
    } = world();
    let (alice, bob, rex) = (&mut alice, &mut bob, &mut rex);
    let other = alice.create();
    alice.seat(bob, other, Role::Writer);
    alice.seat(rex, other, Role::Replicator);
    alice.write(other, "elsewhere");
    let elsewhere = alice.thread(other).own_log().unwrap();
    sync(alice, rex);
    talk_of_rules(alice, bob, &[elsewhere, log, carols]);
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    for name in [elsewhere, log] {
        let before = (rows(&bob.store), bob.state(other));
        connect(rex, bob);
        let mut sent = 0;
        talk_through(rex, bob, |bytes| {
            let Ok(Message::Range {
                thread,
                log: LogName::New(of),
                ..
            }) = Message::decode(&bytes)
            else {
                return Some(bytes);
            };
            if of != elsewhere {
                return None;
            }
            sent += 1;
            let (first, items, signature) = &run;
            let message = Message::Range {
                thread,
                log: LogName::New(name),
                first: *first,
                runs: vec![Run::from_parts(items, signature).unwrap()],
            };
            Some(message.encode())
        });
        assert_eq!(sent, 1);
        assert_eq!((rows(&bob.store), bob.state(other)), before);
        let errors = std::mem::take(&mut bob.errors);
        if name == log {
            assert!(errors.is_empty(), "{errors:?}");
            continue;
        }
        let [
            SyncError::Range {
                peer,
                thread,
                source,
            },
        ] = &errors[..]
        else {
            panic!("{errors:?}")
        };
        assert_eq!((*peer, *thread), (rex.key, other));
        not_signed(source, elsewhere, 3);
    }
    sync(rex, bob);
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    assert_eq!(bob.reads(other), alice.reads(other));
    assert_eq!(bob.reads(id), alice.reads(id));
}

/// A record that Carol made and signed, in Alice's log.
#[test]
fn swapped_author() {
    let mut world = world();
    let (id, log) = (world.id, world.log);
    let keys = secrets(&world.carol, id);
    let opened = world.bob.tip(id, log);
    for signer in [&keys.seat, keys.writer.as_ref().unwrap()] {
        let text = keys.text(Stamp(opened.stamp.0 + 1), "as alice");
        let (run, _) = keys.craft(id, signer, &opened, &[text]);
        let error = world.refused(log, &run);
        not_signed(&error, log, 1);
    }
    world.recovers();
}

#[test]
fn reordered_records() {
    let mut world = world();
    let (log, run) = (world.log, world.run.clone());
    let all = items(&run);
    let swapped = [0, 2, 1].map(|at: usize| all[at].clone());
    let error = world.refused(log, &of_items(1, &swapped, &run));
    not_signed(&error, log, 3);
    // The first record of a log names its key, which the others leave out.
    let swapped = [1, 0, 2].map(|at: usize| all[at].clone());
    let error = world.refused(log, &of_items(1, &swapped, &run));
    decode_error(&error);
    world.recovers();
}

fn decode_error(error: &ReceiveError) -> &DecodeError {
    let ReceiveError::Refused {
        source: VerifyError::Decode(error),
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    error
}

#[test]
fn truncated_ranges() {
    let mut world = world();
    let (log, run) = (world.log, world.run.clone());
    let all = items(&run);
    // Records off the end, off the start, out of the middle.
    for kept in [&[0][..], &[0, 1], &[0, 2], &[1, 2], &[2]] {
        let rest: Vec<_> = kept.iter().map(|at| all[*at].clone()).collect();
        let error = world.refused(log, &of_items(1, &rest, &run));
        match kept[0] {
            0 => not_signed(&error, log, kept.len() as u64),
            _ => assert!(matches!(
                decode_error(&error),
                DecodeError::OutOfBounds { .. }
            )),
        }
    }
    // Bytes off the end.
    // Of fewer bytes than items there is no run, and the message does not decode: see `hostile.rs`.
    for length in 4..run.1.len() {
        let mut cut = run.clone();
        cut.1.truncate(length);
        let error = world.refused(log, &cut);
        assert!(
            matches!(decode_error(&error), DecodeError::Truncated { .. }),
            "{length}: {error:?}"
        );
    }
    world.recovers();
}

/// Good records whose beginning is missing: they are not taken in, and vectors are exchanged again, so
/// that all of them come in the same session.
#[test]
fn range_without_its_beginning() {
    let mut world = world();
    let (id, log, run) = (world.id, world.log, world.run.clone());
    let rest = of_items(2, &items(&run)[1..], &run);
    world.send(log, &rest);
    let rex = world.rex.key;
    let errors = std::mem::take(&mut world.bob.errors);
    let [
        SyncError::Range {
            peer,
            thread,
            source,
        },
    ] = &errors[..]
    else {
        panic!("{errors:?}")
    };
    assert_eq!((*peer, *thread), (rex, id));
    assert!(
        matches!(source, ReceiveError::Gap { log: of, known: 0, first: 2 } if *of == log),
        "{source:?}"
    );
    assert_eq!(world.bob.tip(id, log).seq, 3);
    world.recovers();
}

#[test]
fn flipped_bits() {
    let mut world = world();
    let (log, run) = (world.log, world.run.clone());
    let mut reasons = [0, 0];
    for byte in 0..run.1.len() + 64 {
        let mut flipped = run.clone();
        let bit = 1 << (byte % 8);
        match flipped.1.get_mut(byte) {
            Some(of_items) => *of_items ^= bit,
            None => flipped.2[byte - run.1.len()] ^= bit,
        }
        // A list that claims no or too many records is no message, see `hostile.rs`.
        if Run::from_parts(&flipped.1, &flipped.2).is_err() {
            continue;
        }
        let error = world.refused(log, &flipped);
        let ReceiveError::Refused { source, .. } = error else {
            panic!("{byte}: {error:?}")
        };
        let is_signature = matches!(source, VerifyError::NotSigned { .. });
        reasons[usize::from(is_signature)] += 1;
    }
    assert!(reasons[0] > 10 && reasons[1] > 100, "{reasons:?}");
    world.recovers();
}

/// A range that is here already says nothing new: it is passed over and acknowledged. Old messages
/// mean nothing in a session that they were not made for.
#[test]
fn replayed_ranges_and_sessions() {
    let World {
        mut bob,
        mut rex,
        id,
        log,
        run,
        ..
    } = world();
    let (bob, rex) = (&mut bob, &mut rex);
    connect(rex, bob);
    let mut old = Vec::new();
    talk_through(rex, bob, |bytes| {
        old.push(bytes.clone());
        Some(bytes)
    });
    assert_eq!(bob.tip(id, log).seq, 3);
    let (stored, state) = (rows(&bob.store), bob.state(id));

    // The same range once more in the same session, whole and in part.
    let mut names = Vec::new();
    for message in &old {
        if let Ok(Message::Range {
            log: LogName::New(log),
            ..
        }) = Message::decode(message)
        {
            names.push(log);
        }
    }
    let number = names.iter().position(|it| *it == log).unwrap();
    let (first, items, signature) = &run;
    for _ in 0..3 {
        let again = Message::Range {
            thread: 0,
            log: LogName::Known(u32::try_from(number).unwrap()),
            first: *first,
            runs: vec![Run::from_parts(items, signature).unwrap()],
        };
        bob.receive(rex.key, &again.encode()).unwrap();
        let answer = bob.poll(rex.key).unwrap();
        assert!(
            matches!(Message::decode(&answer), Ok(Message::Ack { ref logs, .. })
                if logs.iter().any(|it| it.number as usize == number && it.seq == 3)),
        );
    }
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    assert_eq!((rows(&bob.store), bob.state(id)), (stored, state));

    // The very message would name its log a second time: out of turn.
    let (stored, state) = (rows(&bob.store), bob.state(id));
    let ranges = old.iter().filter(|it| {
        let message = Message::decode(it);
        matches!(message, Ok(Message::Range { log: LogName::New(of), .. }) if of == log)
    });
    for range in ranges {
        assert!(bob.receive(rex.key, range).is_err());
        assert!(
            matches!(bob.errors[..], [SyncError::OutOfTurn { peer, what }]
                if peer == rex.key && what == "a second name of a log"),
            "{:?}",
            bob.errors
        );
        bob.errors.clear();
    }
    assert_eq!((rows(&bob.store), bob.state(id)), (stored, state));

    // The whole old session in a new one: tags and proofs are of the old nonces.
    for from in [rex.key, Peer::new(9).key] {
        let (stored, state) = (rows(&bob.store), bob.state(id));
        bob.step(|replica, view, _, changes| {
            replica.forget_peer(view, &from, changes).unwrap();
        });
        bob.connected(from);
        let ended = old.iter().position(|it| bob.receive(from, it).is_err());
        assert!(ended.is_some());
        assert!(
            matches!(bob.errors[..], [SyncError::OutOfTurn { peer, what }]
                if peer == from && what == "a message of a thread that is not shared"),
            "{:?}",
            bob.errors
        );
        bob.errors.clear();
        assert_eq!((rows(&bob.store), bob.state(id)), (stored, state));
        assert_eq!(bob.replica.seat_of(&from, &id), None);
        bob.replica.disconnected(&from);
    }
}

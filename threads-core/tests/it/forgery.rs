//! Forged, moved, changed, cut and replayed records: a typed error that names the peer, and nothing
//! changes.

use leno_threads_core::sync::{Message, SyncError};
use leno_threads_core::thread::{ReceiveError, Received};
use leno_threads_core::{LogId, Role, Stamp, ThreadId, VerifyError};

use crate::util::{OwnedRun, Peer, connect, rows, secrets, sync, talk_through};

fn world() -> (Peer, Peer, ThreadId, LogId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write(id, "one");
    sync(&mut alice, &mut bob);
    let log = alice.thread(id).own_log().unwrap();
    (alice, bob, id, log)
}

fn next_run(alice: &mut Peer, id: ThreadId, log: LogId) -> OwnedRun {
    alice.write_many(id, ["two", "three", "four"]);
    let last = alice.runs(id).into_iter().rfind(|(of, _)| *of == log);
    last.unwrap().1
}

fn refused(bob: &mut Peer, id: ThreadId, log: LogId, run: &OwnedRun) -> ReceiveError {
    let (before, state) = (rows(&bob.store), bob.state(id));
    let error = bob.take(id, log, run).unwrap_err();
    assert_eq!(rows(&bob.store), before);
    assert_eq!(bob.state(id), state);
    error
}

#[test]
fn every_flipped_bit_of_a_run_is_refused() {
    let (mut alice, mut bob, id, log) = world();
    let run = next_run(&mut alice, id, log);
    for byte in 0..run.1.len() {
        let mut flipped = run.clone();
        flipped.1[byte] ^= 1 << (byte % 8);
        let error = refused(&mut bob, id, log, &flipped);
        assert!(matches!(error, ReceiveError::Refused { .. }), "{error:?}");
    }
    for byte in 0..64 {
        let mut flipped = run.clone();
        flipped.2[byte] ^= 1 << (byte % 8);
        let error = refused(&mut bob, id, log, &flipped);
        assert!(matches!(error, ReceiveError::Refused { .. }), "{error:?}");
    }
    for length in 0..run.1.len() {
        let mut cut = run.clone();
        cut.1.truncate(length);
        refused(&mut bob, id, log, &cut);
    }
    let whole = bob.take(id, log, &run).unwrap();
    assert_eq!((whole.stored, whole.admitted), (3, 3));
    // Replayed: nothing.
    let before = rows(&bob.store);
    assert_eq!(bob.take(id, log, &run).unwrap(), Received::default());
    assert_eq!(rows(&bob.store), before);
}

/// The ancestor's bug: the first record could be swapped under the old signature.
#[test]
fn first_record_cannot_be_forged() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write(id, "true");
    let mut carol = Peer::new(3);
    alice.seat(&mut carol, id, Role::Writer);
    let log = alice.thread(id).own_log().unwrap();
    sync(&mut alice, &mut carol);
    // Carol knows all keys but Alice's log key.
    let keys = secrets(&carol, id);
    let mut view_of_bob = |bob: &mut Peer| {
        connect(&mut alice, bob);
        talk_through(&mut alice, bob, |bytes| {
            let is_data = |it: &Message<'_>| matches!(it, Message::Range { log: leno_threads_core::sync::LogName::New(it), .. } if *it == log);
            Message::decode(&bytes)
                .is_ok_and(|it| !is_data(&it))
                .then_some(bytes)
        });
    };
    view_of_bob(&mut bob);
    let opened = bob.thread(id).log(&log).unwrap().tip;
    let text = keys.text(Stamp(opened.stamp.0 + 1), "forged");
    let ((first, items, _), _) = keys.craft(id, &keys.seat, &opened, &[text]);
    let old = alice.runs(id).into_iter().find(|(of, _)| *of == log);
    let signature = old.unwrap().1.2;
    let error = refused(&mut bob, id, log, &(first, items.clone(), signature));
    let source = VerifyError::NotSigned { log, seq: 1 };
    assert!(
        matches!(&error, ReceiveError::Refused { source: it, .. } if *it == source),
        "{error:?}"
    );
    // Nor under another writer's signature: swapped author.
    let text = keys.text(Stamp(opened.stamp.0 + 1), "forged");
    let (run, _) = keys.craft(id, &keys.seat, &opened, &[text]);
    refused(&mut bob, id, log, &run);
}

#[test]
fn records_cannot_be_moved_or_reordered() {
    let (mut alice, mut bob, id, log) = world();
    bob.write(id, "bob's own");
    sync(&mut alice, &mut bob);
    let bobs = bob.thread(id).own_log().unwrap();
    let run = next_run(&mut alice, id, log);
    // To another log.
    let moved = (2, run.1.clone(), run.2);
    refused(&mut alice, id, bobs, &moved);
    // To another thread, where the same peers meet.
    let other = alice.create();
    alice.seat(&mut bob, other, Role::Writer);
    alice.write(other, "elsewhere");
    sync(&mut alice, &mut bob);
    let elsewhere = alice.thread(other).own_log().unwrap();
    refused(&mut bob, other, elsewhere, &(2, run.1.clone(), run.2));
    let error = bob.take(other, log, &run).unwrap_err();
    assert!(
        matches!(error, ReceiveError::UnknownLog { .. }),
        "{error:?}"
    );
    // Within the run: records two and three change places.
    let mut carol = Peer::new(3);
    alice.seat(&mut carol, id, Role::Reader);
    let mut items = leno_crdt_codec::cbor::Decoder::new(&run.1);
    items.array().unwrap();
    let each: Vec<&[u8]> = (0..3).map(|_| items.skip().unwrap()).collect();
    let mut swapped = run.1[..1].to_vec();
    for item in [each[0], each[2], each[1]] {
        swapped.extend_from_slice(item);
    }
    // Bob has these already; a newcomer is told the tale.
    sync(&mut alice, &mut carol);
    let mut dave = Peer::new(4);
    dave.join_directly(&alice, id, crate::util::new_seat(&mut crate::util::rng(4)));
    for (of, run) in alice.runs(id).into_iter().filter(|(of, _)| *of != log) {
        let _ = dave.take(id, of, &run);
    }
    let first = alice
        .runs(id)
        .into_iter()
        .find(|(of, _)| *of == log)
        .unwrap()
        .1;
    dave.take(id, log, &first).unwrap();
    refused(&mut dave, id, log, &(run.0, swapped, run.2));
    // Taken off the end, or off the start.
    let mut shorter = run.1[..1].to_vec();
    shorter[0] -= 1;
    shorter.extend_from_slice(each[0]);
    shorter.extend_from_slice(each[1]);
    refused(&mut dave, id, log, &(run.0, shorter, run.2));
    let mut headless = run.1[..1].to_vec();
    headless[0] -= 1;
    headless.extend_from_slice(each[1]);
    headless.extend_from_slice(each[2]);
    refused(&mut dave, id, log, &(run.0, headless, run.2));
    let gap = dave.take(id, log, &(run.0 + 1, run.1.clone(), run.2));
    assert!(
        matches!(
            gap,
            Err(ReceiveError::Gap {
                known: 1,
                first: 3,
                ..
            })
        ),
        "{gap:?}"
    );
    dave.take(id, log, &run).unwrap();
}

/// However a writer groups its records into runs, what is kept stays whole.
#[test]
fn overlapping_runs_leave_nothing_unreadable() {
    let (mut alice, mut bob, id, log) = world();
    alice.write(id, "two");
    let keys = secrets(&alice, id);
    let signer = keys.writer.as_ref().unwrap();
    let opened = bob.tip(id, log);
    let mut tips = vec![opened];
    let texts: Vec<String> = (0..12).map(|it| format!("t{it}")).collect();
    let make = |from: usize, to: usize, tip: &leno_threads_core::Tip| {
        let each: Vec<_> = (from..to)
            .map(|at| keys.text(Stamp(opened.stamp.0 + 1 + at as u64), &texts[at]))
            .collect();
        keys.craft(id, signer, tip, &each)
    };
    for at in 0..12 {
        let (_, tip) = make(at, at + 1, &tips[at]);
        tips.push(tip);
    }
    // Rows of 3 and 3; then one run that spans all, and more.
    for (from, to) in [(0, 3), (3, 6), (0, 9), (4, 12), (2, 11)] {
        let (run, _) = make(from, to, &tips[from]);
        bob.take(id, log, &run).unwrap();
    }
    assert_eq!(bob.tip(id, log).seq, 13);
    let view = leno_threads_core::store::Store::view(&bob.store).unwrap();
    for seq in 2..=13 {
        let headers = bob.thread(id).headers(&*view, &log, seq, seq).unwrap();
        assert_eq!(headers[0].id(), tips[seq as usize - 1].id);
    }
    drop(view);
    // And a third peer gets them all from Bob.
    let mut carol = Peer::new(3);
    alice.seat(&mut carol, id, Role::Reader);
    sync(&mut bob, &mut carol);
    let control = alice.thread(id).seat().id().control_log();
    let last = alice.runs(id).into_iter().rfind(|(of, _)| *of == control);
    bob.take(id, control, &last.unwrap().1).unwrap();
    sync(&mut bob, &mut carol);
    assert_eq!(carol.tip(id, log).seq, 13);
}

/// A poisoned range: its sender is named, other logs go on, and it is not fetched again and again.
#[test]
fn poison_blocks_nothing_else() {
    let (mut alice, mut bob, id, log) = world();
    bob.write(id, "bob was here");
    sync(&mut alice, &mut bob);
    let (mut carol, bobs) = (Peer::new(3), bob.thread(id).own_log().unwrap());
    alice.seat(&mut carol, id, Role::Reader);
    alice.write_many(id, ["two", "three"]);
    connect(&mut alice, &mut carol);
    let seen = std::cell::Cell::new(0);
    let poison = |bytes: Vec<u8>| {
        let is_poisoned = match Message::decode(&bytes) {
            Ok(Message::Range {
                log: leno_threads_core::sync::LogName::New(of),
                ..
            }) => of == log,
            _ => false,
        };
        if !is_poisoned {
            return Some(bytes);
        }
        seen.set(seen.get() + 1);
        let mut bytes = bytes;
        *bytes.last_mut().unwrap() ^= 1;
        Some(bytes)
    };
    talk_through(&mut alice, &mut carol, poison);
    let named: Vec<_> = carol
        .errors
        .iter()
        .filter(|it| matches!(it, SyncError::Range { peer, .. } if *peer == alice.key))
        .collect();
    assert_eq!(named.len(), 1, "{:?}", carol.errors);
    // The run before the poisoned one is good.
    assert_eq!(carol.tip(id, log).seq, 1);
    assert_eq!(carol.tip(id, bobs).seq, 1);
    // More vectors, more writes: the refused log stays out of this session.
    alice.write(id, "four");
    carol.replica.refresh(&alice.key);
    alice.replica.refresh(&carol.key);
    talk_through(&mut alice, &mut carol, poison);
    assert_eq!(seen.get(), 1);
    // A new session heals.
    carol.errors.clear();
    sync(&mut alice, &mut carol);
    assert!(carol.errors.is_empty(), "{:?}", carol.errors);
    assert_eq!(carol.reads(id), alice.reads(id));
}

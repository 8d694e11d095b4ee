//! Records that wait for a named fact, and only for that.

use leno_threads_core::store::Store;
use leno_threads_core::thread::{Parked, Quarantine, TakeWrapError};
use leno_threads_core::{LogId, RecordId, RecordRef, Role, Stamp, ThreadId, Wrap};
use proptest::prelude::*;

use crate::util::{Peer, Secrets, connect, level, rows, secrets, sync, talk};

/// Alice, Bob and Carol write; Dave has heard nothing yet.
fn world() -> ([Peer; 4], ThreadId) {
    let mut peers = [1, 2, 3, 4].map(Peer::new);
    let [alice, bob, carol, dave] = &mut peers;
    let id = alice.create();
    for peer in [&mut *bob, &mut *carol, &mut *dave] {
        alice.seat(peer, id, Role::Writer);
    }
    for peer in [bob, carol, dave] {
        sync(alice, peer);
    }
    (peers, id)
}

fn runs_of(peer: &Peer, id: ThreadId, log: LogId) -> Vec<crate::util::OwnedRun> {
    let runs = peer.runs(id).into_iter();
    runs.filter(|(of, _)| *of == log)
        .map(|(_, run)| run)
        .collect()
}

fn copy_of(peer: &Peer) -> Peer {
    let mut copy = Peer::new(8);
    copy.store = crate::util::backup(&peer.store);
    copy.restart();
    copy
}

fn writer(peer: &Peer, id: ThreadId) -> (Secrets, LogId) {
    (secrets(peer, id), peer.thread(id).own_log().unwrap())
}

/// ```text
/// Bob:   b1
/// Carol: c1 (deps b1)
/// Alice: a1 (deps c1)     delivered to Dave: a1, c1, b1
/// ```
#[test]
fn deps_of_a_third_log_release_in_any_order() {
    let (mut peers, id) = world();
    let [alice, bob, carol, dave] = &mut peers;
    bob.write(id, "b1");
    sync(bob, carol);
    carol.write(id, "c1");
    sync(carol, alice);
    alice.write(id, "a1");
    let logs: Vec<LogId> = [&*alice, &*carol, &*bob]
        .map(|peer| peer.thread(id).own_log().unwrap())
        .into();
    // Governance first, so that the logs are known.
    for log in alice.thread(id).logs().filter(|log| log.is_control) {
        for run in runs_of(alice, id, log.id) {
            dave.take(id, log.id, &run).unwrap();
        }
    }
    for (step, log) in logs.iter().enumerate() {
        for run in runs_of(alice, id, *log) {
            let received = dave.take(id, *log, &run).unwrap();
            assert_eq!(received.stored, 1);
            assert_eq!(received.admitted, if step == 2 { 3 } else { 0 });
        }
        if step == 0 {
            let parked = dave.thread(id).log(log).unwrap().parked;
            assert!(matches!(parked, Some(Parked::Dep(_))), "{parked:?}");
            // Parked records outlive a restart.
            dave.restart();
            dave.tick();
        }
    }
    assert_eq!(dave.reads(id), alice.reads(id));
}

/// A record that names a control record which is not here waits for it, its opening and all.
#[test]
fn missing_control_record_holds_what_names_it() {
    let (mut peers, id) = world();
    let [alice, bob, carol, dave] = &mut peers;
    bob.govern(id, &[]);
    sync(bob, carol);
    carol.write(id, "names bob's control record");
    let control = carol.thread(id).seat().id().control_log();
    let run = runs_of(carol, id, control);
    assert_eq!(dave.take(id, control, &run[0]).unwrap().admitted, 0);
    let parked = dave.thread(id).log(&control).unwrap().parked;
    assert!(matches!(parked, Some(Parked::Control(_))), "{parked:?}");
    let bobs = bob.thread(id).seat().id().control_log();
    let run = runs_of(bob, id, bobs);
    assert_eq!(dave.take(id, bobs, &run[0]).unwrap().admitted, 2);
    let log = carol.thread(id).own_log().unwrap();
    dave.take(id, log, &runs_of(carol, id, log)[0]).unwrap();
    assert_eq!(dave.reads(id), carol.reads(id));
    assert_eq!(alice.reads(id), []);
}

/// A dep on a log that nobody opened is its author's error at once; one on a record that an open
/// log never had, or that differs from what is there, blocks its author's log, and no other.
#[test]
fn invented_deps_block_only_their_authors_log() {
    let (mut peers, id) = world();
    let [alice, bob, carol, dave] = &mut peers;
    bob.write(id, "b1");
    carol.write(id, "c1");
    for peer in [&mut *alice, &mut *carol, &mut *dave] {
        sync(bob, peer);
    }
    sync(carol, alice);
    sync(bob, alice);
    sync(alice, dave);
    let (keys, log) = writer(bob, id);
    let tip = alice.tip(id, log);
    let carols = carol.thread(id).own_log().unwrap();
    let control = alice.control(id, log);
    let invented = |named: LogId, seq| RecordRef {
        log: named,
        seq,
        id: RecordId([7; 32]),
    };
    let stamp = |step: u64| leno_threads_core::Stamp(tip.stamp.0 + step);
    let mut nobody = keys.text(stamp(100), "names a log that nobody opened");
    nobody.control.clone_from(&control);
    nobody.deps = vec![invented(LogId([9; 32]), 1)];
    let mut wrong = keys.text(stamp(101), "names another record than the log has there");
    wrong.deps = vec![invented(carols, 1)];
    let mut never = keys.text(stamp(102), "names a record that never comes");
    never.deps = vec![invented(carols, 99)];
    let after = keys.text(stamp(103), "stuck");
    let signer = keys.writer.as_ref().unwrap();
    let mut other = copy_of(dave);
    let (run, _) = keys.craft(id, signer, &tip, &[nobody, never, after]);
    let received = dave.take(id, log, &run).unwrap();
    assert_eq!((received.stored, received.admitted), (3, 1));
    let parked = dave.thread(id).log(&log).unwrap().parked;
    assert_eq!(parked, Some(Parked::Dep(invented(carols, 99))));
    wrong.control.clone_from(&control);
    let (run, _) = keys.craft(id, signer, &tip, &[wrong]);
    other.take(id, log, &run).unwrap();
    let parked = other.thread(id).log(&log).unwrap().parked;
    assert_eq!(parked, Some(Parked::Fork(invented(carols, 1))));
    let view = dave.store.view().unwrap();
    let quarantined = dave.thread(id).quarantined(&*view).unwrap();
    let reasons: Vec<_> = quarantined.iter().map(|(at, why)| (at.seq, *why)).collect();
    let bad = Quarantine::BadReference;
    assert_eq!(reasons, [(2, bad)]);
    drop(view);
    // Everybody else goes on.
    carol.write(id, "c2");
    alice.write(id, "a1");
    sync(carol, dave);
    sync(alice, dave);
    let texts: Vec<_> = dave.reads(id).into_iter().map(|(.., text)| text).collect();
    assert!(texts.contains(&"c2".to_owned()) && texts.contains(&"a1".to_owned()));
}

/// A branch that waits itself, perhaps for ever, is not waited for by who names the other one.
#[test]
fn branch_that_waits_holds_back_only_itself() {
    for is_first in [true, false] {
        let (mut peers, id) = world();
        let [_, bob, carol, dave] = &mut peers;
        bob.write(id, "b1");
        carol.write(id, "c1");
        sync(bob, carol);
        sync(bob, dave);
        let (keys, carols) = writer(carol, id);
        let tip = carol.tip(id, carols);
        let far = Stamp::from_millis(4_102_444_800_000);
        let signer = keys.writer.as_ref().unwrap();
        let (branch, _) = keys.craft(id, signer, &tip, &[keys.text(far, "in 2100")]);
        carol.write(id, "c2");
        sync(carol, bob);
        bob.write(id, "b2");
        let bobs = bob.thread(id).own_log().unwrap();
        let run = runs_of(bob, id, bobs).pop().unwrap();
        let mut delivered = [(carols, &branch), (bobs, &run)];
        if !is_first {
            delivered.reverse();
        }
        for (log, run) in delivered {
            assert_eq!(dave.take(id, log, run).unwrap().admitted, 0);
        }
        let named = bob.newest(id, carols);
        for _ in 0..2 {
            let parked = |log| dave.thread(id).log(&log).unwrap().parked;
            assert_eq!(parked(carols), Some(Parked::Time(far)));
            assert_eq!(parked(bobs), Some(Parked::Fork(named)));
            dave.restart();
            dave.tick();
        }
        sync(bob, dave);
        let texts: Vec<_> = dave.reads(id).into_iter().map(|(.., text)| text).collect();
        assert!(texts.contains(&"b2".to_owned()), "{texts:?}");
    }
}

/// A record under a key that is not here is admitted, its ops wait, nothing else does; the wrap lets
/// them in, also after a restart.
#[test]
fn missing_key_holds_back_only_its_own_ops() {
    for restart in [false, true] {
        let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
        let id = alice.create();
        let seat = alice.seat(&mut bob, id, Role::Reader);
        alice.write_many(id, ["1", "2"]);
        let dropped: std::cell::RefCell<Vec<Wrap>> = Vec::new().into();
        crate::util::connect(&mut alice, &mut bob);
        crate::util::talk_through(&mut alice, &mut bob, |bytes| {
            use leno_threads_core::sync::Message;
            if let Ok(Message::Wraps { wraps, .. }) = Message::decode(&bytes) {
                dropped.borrow_mut().extend(wraps);
                return None;
            }
            Some(bytes)
        });
        let log = alice.thread(id).own_log().unwrap();
        assert_eq!(bob.thread(id).log(&log).unwrap().admitted, 2);
        assert_eq!(
            (bob.reads(id), bob.thread(id).roster().name()),
            (vec![], None)
        );
        if restart {
            bob.restart();
            bob.tick();
        }
        for wrap in dropped.borrow().iter().filter(|wrap| wrap.seat == seat) {
            assert!(bob.take_wrap(id, wrap).unwrap());
        }
        assert_eq!(bob.reads(id), alice.reads(id));
        assert_eq!(bob.thread(id).roster().name(), Some("band"));
        assert!(bob.thread(id).missing_keys().is_empty());
    }
}

/// Junk for a seat does not mark it as served: the next holder of the key serves it.
#[test]
fn junk_wraps_are_healed_by_asking() {
    let (mut alice, mut bob, mut rex) = (Peer::new(1), Peer::new(2), Peer::new(3));
    let id = alice.create();
    let seat = alice.seat(&mut bob, id, Role::Reader);
    alice.seat(&mut rex, id, Role::Replicator);
    alice.write(id, "secret");
    sync(&mut alice, &mut rex);
    // Rex hands over junk instead of what Alice made.
    crate::util::connect(&mut rex, &mut bob);
    crate::util::talk_through(&mut rex, &mut bob, |bytes| {
        use leno_threads_core::sync::Message;
        match Message::decode(&bytes) {
            Ok(Message::Wraps { thread, mut wraps }) => {
                for wrap in wraps.iter_mut().filter(|wrap| wrap.seat == seat) {
                    wrap.sealed[0] ^= 1;
                }
                Some(Message::Wraps { thread, wraps }.encode())
            }
            _ => Some(bytes),
        }
    });
    assert_eq!(bob.reads(id), []);
    assert_eq!(bob.thread(id).missing_keys().len(), 2);
    assert!(!bob.errors.is_empty());
    bob.errors.clear();
    // Alice believes Bob to be served, until he asks.
    sync(&mut alice, &mut bob);
    assert_eq!(bob.reads(id), alice.reads(id));
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
}

#[test]
fn ghosts_and_bad_wraps_change_no_key() {
    let (mut peers, id) = world();
    let [alice, bob, ..] = &mut peers;
    bob.write(id, "b");
    sync(alice, bob);
    let view = alice.store.view().unwrap();
    let wraps = alice.thread(id).wraps(&*view).unwrap();
    drop(view);
    let ghost = Wrap {
        seat: leno_threads_core::SeatId([9; 32]),
        ..wraps[0].clone()
    };
    let before = rows(&alice.store);
    let error = alice.take_wrap(id, &ghost).unwrap_err();
    assert!(matches!(error, TakeWrapError::Ghost { .. }), "{error}");
    let unknown = Wrap {
        epoch: leno_threads_core::EpochId([9; 32]),
        ..wraps[0].clone()
    };
    let error = alice.take_wrap(id, &unknown).unwrap_err();
    assert!(matches!(error, TakeWrapError::UnknownEpoch), "{error}");
    let elsewhere = Wrap {
        domain: 7,
        ..wraps[0].clone()
    };
    let error = alice.take_wrap(id, &elsewhere).unwrap_err();
    assert!(matches!(error, TakeWrapError::UnknownEpoch), "{error}");
    assert_eq!(rows(&alice.store), before);
    // Junk for others is kept up to a limit, then refused.
    let mut outcome = Ok(true);
    for byte in 0..9 {
        let mut junk = wraps[0].clone();
        junk.encapsulated = [byte; 32];
        outcome = alice.take_wrap(id, &junk);
    }
    assert!(matches!(outcome, Err(TakeWrapError::TooMany { .. })));
}

/// ```text
/// Alice: a1          a2 ... a3001 (deps b1)    all of it waits for b1
/// Bob:       b1 (deps a1)
/// ```
#[test]
fn one_record_lets_in_no_more_than_a_step_may() {
    let ([mut alice, mut bob, _, mut dave], id) = world();
    alice.write(id, "a1");
    sync(&mut alice, &mut bob);
    bob.write(id, "b1");
    sync(&mut alice, &mut bob);
    let text = "x".repeat(1_000);
    for _ in 0..3 {
        alice.write_many(id, vec![text.as_str(); 1_000]);
    }
    connect(&mut alice, &mut dave);
    let mut most = 0;
    let mut before = 0;
    let mut is_told = true;
    while is_told {
        is_told = false;
        if dave.replica.poll_timeout() == Some(0) {
            is_told = true;
            assert!(!level(&dave, &alice, id), "what is here is not yet let in");
            dave.tick();
        } else if let Some(bytes) = alice.poll(dave.key) {
            is_told = true;
            dave.receive(alice.key, &bytes).unwrap();
        }
        let opened = dave.read.get(&id).map_or(0, Vec::len);
        most = most.max(opened - before);
        before = opened;
        while let Some(bytes) = dave.poll(alice.key) {
            is_told = true;
            alice.receive(dave.key, &bytes).unwrap();
        }
    }
    assert_eq!(dave.reads(id), alice.reads(id));
    assert!(level(&dave, &alice, id));
    assert!(most <= 1_000, "{most} of 3,002 records at once");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// However little a step lets in, in the end all is as if it had come at once.
    #[test]
    fn small_steps_lead_to_the_same(
        turns in prop::collection::vec((0..3_usize, 1..4_usize), 1..20),
        bytes in 1..5_000_u64,
    ) {
        let ([alice, bob, carol, mut dave], id) = world();
        let mut writers = [alice, bob, carol];
        for (who, many) in turns {
            let [alice, others @ ..] = &mut writers;
            let writer = match who.checked_sub(1) {
                None => &mut *alice,
                Some(who) => &mut others[who],
            };
            writer.write_many(id, vec!["text"; many]);
            for other in others {
                sync(alice, other);
            }
        }
        let [mut alice, ..] = writers;
        let mut whole = copy_of(&dave);
        sync(&mut alice, &mut whole);
        dave.step(|replica, _, _, _| replica.thread_mut(&id).unwrap().set_release_max(bytes));
        connect(&mut alice, &mut dave);
        talk(&mut alice, &mut dave);
        prop_assert!(level(&alice, &dave, id));
        prop_assert_eq!(dave.state(id), whole.state(id));
    }
}

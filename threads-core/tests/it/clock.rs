//! Stamps and time.

use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::store::Overlay;
use leno_threads_core::thread::{AppendError, Parked, SKEW_MILLIS_MAX};
use leno_threads_core::{FrameOp, Role, Stamp, THREAD_DOMAIN};

use crate::util::{NOW, Peer, backup, grant_op, level, new_seat, secrets, sync, talk};

fn pair() -> (Peer, Peer, leno_threads_core::ThreadId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    sync(&mut alice, &mut bob);
    (alice, bob, id)
}

/// A clock that is ahead: its records are stored, not shown, and come in when their time has come.
#[test]
fn future_stamps_are_held_and_released_by_time() {
    let (mut alice, mut bob, id) = pair();
    bob.now += SKEW_MILLIS_MAX + 60_000;
    bob.write(id, "from the future");
    sync(&mut alice, &mut bob);
    assert!(alice.errors.is_empty(), "{:?}", alice.errors);
    assert_eq!(alice.reads(id), []);
    let log = bob.thread(id).own_log().unwrap();
    // The opening in Bob's control log is held; the data log is not known before.
    let control = bob.thread(id).seat().id().control_log();
    let held = alice.thread(id).log(&control).unwrap();
    assert!(matches!(held.parked, Some(Parked::Time(_))), "{held:?}");
    assert_eq!((held.tip.seq, held.admitted), (1, 0));

    assert_eq!(alice.replica.poll_timeout(), Some(NOW + 60_000));
    alice.now = NOW + 59_999;
    alice.tick();
    assert_eq!(alice.reads(id), []);
    // A restart forgets neither the record nor what it waits for.
    alice.restart();
    alice.tick();
    assert_eq!(alice.replica.poll_timeout(), Some(NOW + 60_000));
    alice.now = NOW + 60_000;
    alice.tick();
    assert!(alice.thread(id).log(&log).is_some());
    sync(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), bob.reads(id));
    assert_eq!(alice.replica.poll_timeout(), None);
}

/// The log of a held record is asked for in the same session once governance let it open.
#[test]
fn log_of_a_held_opening_is_asked_for_again() {
    let (mut alice, mut bob, id) = pair();
    bob.now += SKEW_MILLIS_MAX + 1;
    bob.write(id, "soon");
    talk(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), []);
    alice.now += 1;
    alice.tick();
    talk(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), bob.reads(id));
}

/// What a peer did not keep when it was sent, and has from another since, it keeps all the same.
///
/// ```text
/// Bob (ahead) ── soon ──► Alice: held            Bob ── level? ── Alice
///      └────── soon ──► Carol ── soon ──► Alice ──────────┘
/// ```
#[test]
fn peer_that_got_a_refused_log_from_another_is_level() {
    let (mut alice, mut bob, id) = pair();
    let mut carol = Peer::new(3);
    alice.seat(&mut carol, id, Role::Writer);
    sync(&mut alice, &mut carol);
    bob.now += SKEW_MILLIS_MAX + 1;
    carol.now = bob.now;
    talk(&mut alice, &mut bob);
    bob.write(id, "soon");
    talk(&mut alice, &mut bob);
    sync(&mut bob, &mut carol);
    talk(&mut alice, &mut carol);
    assert_eq!(alice.reads(id), []);

    alice.now += 1;
    alice.tick();
    talk(&mut alice, &mut carol);
    assert_eq!(alice.reads(id), carol.reads(id));
    talk(&mut alice, &mut bob);
    assert!(level(&bob, &alice, id) && level(&alice, &bob, id));
    assert!(level(&carol, &alice, id) && level(&alice, &carol, id));
}

#[test]
fn clock_that_goes_back_changes_no_order() {
    let (mut alice, _, id) = pair();
    let first = alice.write(id, "first");
    alice.now = 0;
    let second = alice.write(id, "second");
    alice.restart();
    let third = alice.write(id, "third");
    assert_eq!(
        Some(second.stamp),
        first.stamp.next().unwrap().next().map(|_| second.stamp)
    );
    assert!(first.stamp < second.stamp && second.stamp < third.stamp);
    assert_eq!(third.stamp, second.stamp.next().unwrap());
}

/// Many records in one millisecond: the counter carries into the milliseconds and goes on.
#[test]
fn full_counter_carries() {
    let (mut alice, mut bob, id) = pair();
    alice.write(id, "opens the log");
    let log = alice.thread(id).own_log().unwrap();
    let keys = secrets(&alice, id);
    let full = Stamp(Stamp::from_millis(NOW + 1).0 | 0xffff);
    let (run, _) = keys.craft(
        id,
        keys.writer.as_ref().unwrap(),
        &alice.tip(id, log),
        &[keys.text(full, "last of its millisecond")],
    );
    sync(&mut alice, &mut bob);
    assert_eq!(bob.take(id, log, &run).unwrap().admitted, 1);
    bob.now = NOW;
    let next = bob.write(id, "carries");
    // One for the opening of Bob's log, one for the record.
    assert_eq!(next.stamp, Stamp(Stamp::from_millis(NOW + 2).0 + 1));
}

/// A record is always above what it names, whatever its author's clock says.
#[test]
fn stamps_are_above_those_of_deps() {
    let (mut alice, mut bob, id) = pair();
    alice.now += 100_000;
    let seen = alice.write(id, "ahead");
    sync(&mut alice, &mut bob);
    let answer = bob.write(id, "behind");
    assert!(answer.stamp > seen.stamp);
    sync(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), bob.reads(id));
}

/// Bob's clock has no battery and was not set: he shows what comes, whatever it says, and writes
/// behind it. Carol's is a day ahead: Alice holds her records until then, and all agree in the end.
#[test]
fn clock_that_is_not_set_holds_nothing_and_follows() {
    const DAY_MILLIS: u64 = 24 * 60 * 60 * 1_000;
    let (mut alice, mut bob, mut carol) = (Peer::new(1), Peer::new(2), Peer::new(3));
    (bob.now, bob.clock_is_set) = (5, false);
    carol.now += DAY_MILLIS;
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.seat(&mut carol, id, Role::Writer);
    let first = alice.write(id, "from alice");
    sync(&mut alice, &mut bob);
    assert_eq!(bob.reads(id), alice.reads(id));
    let answer = bob.write(id, "from bob");
    // One for the opening of Bob's log, one for the record.
    let next = first.stamp.next().and_then(Stamp::next);
    assert_eq!(Some(answer.stamp), next);
    sync(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), bob.reads(id));

    sync(&mut alice, &mut carol);
    let ahead = carol.write(id, "from tomorrow");
    sync(&mut carol, &mut bob);
    assert_eq!(bob.reads(id).len(), 3);
    assert_eq!(bob.replica.poll_timeout(), None);
    let follows = bob.write(id, "behind tomorrow");
    assert!(follows.stamp > ahead.stamp && follows.stamp.millis() < NOW + 2 * DAY_MILLIS);
    sync(&mut carol, &mut alice);
    sync(&mut bob, &mut alice);
    assert_eq!(alice.reads(id).len(), 2);
    assert_ne!(alice.replica.poll_timeout(), None);

    alice.now += DAY_MILLIS;
    (bob.now, bob.clock_is_set) = (alice.now, true);
    for peer in [&mut alice, &mut bob] {
        peer.tick();
    }
    sync(&mut carol, &mut alice);
    sync(&mut bob, &mut alice);
    sync(&mut bob, &mut carol);
    assert_eq!(alice.reads(id).len(), 4);
    assert_eq!(alice.state(id), bob.state(id));
    assert_eq!(alice.state(id), carol.state(id));
}

/// What is held comes in when the clock turns out not to be known.
#[test]
fn unsetting_the_clock_releases_what_is_held() {
    let (mut alice, mut bob, id) = pair();
    bob.now += 2 * SKEW_MILLIS_MAX;
    bob.write(id, "ahead");
    sync(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), []);
    alice.restart();
    (alice.now, alice.clock_is_set) = (5, false);
    alice.tick();
    sync(&mut alice, &mut bob);
    assert_eq!(alice.reads(id), bob.reads(id));
}

/// A copy of a device whose clock was once far ahead gets back what it governed then: that is held, and
/// nothing is governed behind it before its time.
#[test]
fn nothing_is_governed_behind_own_records_that_are_held() {
    const YEAR_MILLIS: u64 = 365 * 24 * 60 * 60 * 1_000;
    let (mut alice, mut rex) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut rex, id, Role::Replicator);
    sync(&mut alice, &mut rex);
    let copy = backup(&alice.store);
    alice.now += YEAR_MILLIS;
    alice.seat(&mut Peer::new(3), id, Role::Reader);
    sync(&mut alice, &mut rex);

    alice.store = copy;
    alice.now = NOW;
    alice.restart();
    sync(&mut alice, &mut rex);
    let log = alice.thread(id).seat().id().control_log();
    let held = alice.thread(id).log(&log).unwrap();
    assert!(held.admitted < held.tip.seq, "its own record came back");

    let govern = |alice: &mut Peer| {
        let now = alice.time();
        alice.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            thread.govern(view, &[], &[], now, rng, changes)
        })
    };
    let outcome = govern(&mut alice);
    assert!(matches!(outcome, Err(AppendError::Held)), "{outcome:?}");
    alice.now += YEAR_MILLIS;
    alice.tick();
    govern(&mut alice).unwrap();
    sync(&mut alice, &mut rex);
    assert!(level(&alice, &rex, id));
}

/// A record is released while the own log has more that is not published yet, which follows from newer
/// governance: what it names is judged as it was.
#[test]
fn released_record_is_not_judged_by_a_draft() {
    let (mut alice, mut bob, id) = pair();
    alice.write(id, "one");
    sync(&mut alice, &mut bob);
    bob.write(id, "two");
    sync(&mut alice, &mut bob);
    alice.write(id, "three");
    sync(&mut alice, &mut bob);
    bob.now += SKEW_MILLIS_MAX + 60_000;
    bob.write(id, "from the future");
    sync(&mut alice, &mut bob);
    let log = bob.thread(id).own_log().unwrap();
    let held = alice.thread(id).log(&log).unwrap();
    assert!(matches!(held.parked, Some(Parked::Time(_))), "{held:?}");

    alice.now = NOW + 60_000;
    let now = alice.time();
    let seat = new_seat(&mut alice.rng);
    let quarantined = alice.step(|replica, view, rng, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        let kem = seat.kem.public_key().to_bytes();
        let grant = FrameOp::Grant(grant_op(seat.id(), kem, Role::Reader));
        thread
            .govern(view, &[grant], &[], now, rng, changes)
            .unwrap();
        let mut body = Encoder::new();
        body.text("four");
        thread
            .append(view, THREAD_DOMAIN, body.as_slice(), now, rng, changes)
            .unwrap();
        replica
            .handle_timeout(view, now, rng, changes, &mut |_, _| {})
            .unwrap();
        let thread = replica.thread_mut(&id).unwrap();
        thread.publish(changes);
        replica.touched(id);
        let view = Overlay::new(view, &changes.batch);
        replica.thread(&id).unwrap().quarantined(&view).unwrap()
    });
    assert_eq!(quarantined, []);
    let released = alice.thread(id).log(&log).unwrap();
    assert_eq!(
        (released.admitted, released.parked),
        (released.tip.seq, None)
    );
    sync(&mut alice, &mut bob);
    assert!(level(&alice, &bob, id));
}

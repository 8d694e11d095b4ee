//! Bytes of whole sessions, every message both ways, beside the size of what they carry.
//!
//! The size of records is what their rows hold of them: items (of each record the sealed body and
//! its share of a header) and the signature of the head that covers them. A row keeps the tip before
//! its run as well; that is what the reader has already, so it does not count.

use std::collections::BTreeSet;

use leno_threads_core::{LogId, Padding, Role, Seq, ThreadId};

use crate::util::{Peer, sync};

/// JSON of about 150 bytes, as apps write them.
fn op(at: usize) -> String {
    let hash = |salt: usize| format!("{:054x}", (at + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (from, to) = (hash(1), hash(2));
    format!(
        r#"{{"from":"{from}","to":"{to}","n":{},"id":"abcd"}}"#,
        at % 10
    )
}

/// Writers in one thread, all level, the logs of all of them opened.
fn seated(writers: usize, padding: Padding) -> (Vec<Peer>, ThreadId) {
    let mut peers: Vec<_> = (0..writers)
        .map(|at| Peer::new(u8::try_from(at + 1).unwrap()))
        .collect();
    let (alice, guests) = peers.split_first_mut().unwrap();
    let id = alice.create();
    for guest in &mut *guests {
        alice.seat(guest, id, Role::Writer);
        sync(alice, guest);
    }
    for peer in &mut peers {
        let thread = peer.replica.thread_mut(&id).unwrap();
        thread.set_padding(padding);
        peer.write(id, "opens the log");
    }
    for _ in 0..2 {
        let (alice, guests) = peers.split_first_mut().unwrap();
        for guest in guests {
            sync(alice, guest);
        }
    }
    (peers, id)
}

type Place = (LogId, Seq);

/// The runs that rest at a peer: the place of the first record, and the bytes of run and signature.
fn resting(peer: &Peer, id: ThreadId) -> Vec<(Place, usize)> {
    let runs = peer.runs(id).into_iter();
    runs.map(|(log, (first, items, signature))| ((log, first), items.len() + signature.len()))
        .collect()
}

/// The bytes of the runs at `peer` that are not among those `before`.
fn news(peer: &Peer, id: ThreadId, before: &BTreeSet<Place>) -> usize {
    let news = resting(peer, id).into_iter();
    let news = news.filter(|(place, _)| !before.contains(place));
    news.map(|(_, bytes)| bytes).sum()
}

/// Fails unless a session cost at most 1.15 times what it brought.
fn check(name: &str, records: usize, session: usize, size: usize) {
    let (each, ratio) = (size / records, session as f64 / size as f64);
    println!("{name}: {session} B for {size} B ({each} B a record): {ratio:.4}");
    assert!(
        size >= 150 * records,
        "{name}: {size} B are no such records"
    );
    assert!(
        100 * session <= 115 * size,
        "{name}: {session} B for {size} B"
    );
}

/// A reader that was level comes back after `records` more, signed in groups.
fn come_back(records: usize, per_signature: usize, padding: Padding) {
    let (mut peers, id) = seated(2, padding);
    let [alice, bob] = peers.as_mut_slice() else {
        panic!("there are two");
    };
    let before = resting(alice, id).into_iter().map(|it| it.0).collect();
    let texts: Vec<_> = (0..records).map(op).collect();
    for texts in texts.chunks(per_signature) {
        alice.write_many(id, texts.iter().map(String::as_str));
    }
    let size = news(alice, id, &before);
    let session = sync(alice, bob);
    assert_eq!(bob.reads(id), alice.reads(id));
    let name = format!("{records} records, {per_signature} a signature, {padding:?}");
    check(&name, records, session, size);
}

#[test]
fn catching_up_costs_little_more_than_the_records() {
    for padding in [Padding::Off, Padding::default()] {
        for records in [100, 1_000, 10_000] {
            come_back(records, 1_000, padding);
        }
        // Each with a signature of its own, as somebody types.
        come_back(1_000, 1, padding);
    }
}

/// Whoever joins takes in governance and keys as well, which count against the bound here.
#[test]
fn joining_costs_little_more_than_the_records() {
    for padding in [Padding::Off, Padding::default()] {
        for records in [1_000, 10_000] {
            let (mut peers, id) = seated(1, padding);
            let mut alice = peers.pop().unwrap();
            let before = resting(&alice, id).into_iter().map(|it| it.0).collect();
            let texts: Vec<_> = (0..records).map(op).collect();
            for texts in texts.chunks(1_000) {
                alice.write_many(id, texts.iter().map(String::as_str));
            }
            let size = news(&alice, id, &before);
            let mut bob = Peer::new(99);
            alice.seat(&mut bob, id, Role::Reader);
            let session = sync(&mut alice, &mut bob);
            assert_eq!(bob.reads(id), alice.reads(id));
            let name = format!("{records} records and a join, {padding:?}");
            check(&name, records, session, size);
        }
    }
}

/// Twenty writers were apart, in two groups; one of each group meets.
///
/// ```text
/// 0 (500 records) 1 2 .. 9        10 11 .. 19
/// |_______________________|   <-> |__________|
/// ```
#[test]
fn both_ways_and_many_logs_cost_little_more_than_the_records() {
    for padding in [Padding::Off, Padding::default()] {
        let (mut peers, id) = seated(20, padding);
        let before: BTreeSet<_> = resting(&peers[0], id).into_iter().map(|it| it.0).collect();
        for peer in &mut peers {
            let texts: Vec<_> = (0..50).map(op).collect();
            peer.write_many(id, texts.iter().map(String::as_str));
        }
        let (left, right) = peers.split_at_mut(10);
        for side in [&mut *left, &mut *right] {
            let (first, rest) = side.split_first_mut().unwrap();
            for it in rest {
                sync(first, it);
            }
        }
        let (one, other) = (&mut left[0], &mut right[0]);
        let size = news(one, id, &before) + news(other, id, &before);
        let session = sync(one, other);
        assert_eq!(one.reads(id), other.reads(id));
        assert_eq!(one.reads(id).len(), 20 * 51);
        check(
            &format!("20 logs, both ways, {padding:?}"),
            1_000,
            session,
            size,
        );
    }
}

/// What two that have the same say to each other: by logs, by threads, and after how much history.
#[test]
fn equals_say_little() {
    for (writers, records) in [(2, 0), (2, 10_000), (20, 0)] {
        let (mut peers, id) = seated(writers, Padding::Off);
        let (alice, guests) = peers.split_first_mut().unwrap();
        let bob = &mut guests[0];
        let texts: Vec<_> = (0..records).map(op).collect();
        alice.write_many(id, texts.iter().map(String::as_str));
        sync(alice, bob);
        let session = sync(alice, bob);
        let logs = alice.thread(id).logs().count();
        println!("equals: {logs} logs, {records} records: {session} B");
        // A log is named once by each side.
        let bound = 700 + 2 * 48 * logs;
        assert!(session <= bound, "{logs} logs: {session} B");
    }
    for (threads, bound) in [(10, 5_000), (100, 50_000)] {
        let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
        let ids: Vec<_> = (0..threads).map(|_| alice.create()).collect();
        for id in &ids {
            alice.seat(&mut bob, *id, Role::Reader);
            alice.write(*id, "opens the log");
        }
        sync(&mut alice, &mut bob);
        let session = sync(&mut alice, &mut bob);
        println!("equals: {threads} threads: {session} B");
        assert!(session <= bound, "{threads} threads: {session} B");
        for id in ids {
            assert_eq!(bob.reads(id), alice.reads(id));
        }
    }
}

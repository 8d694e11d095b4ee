//! Packing changes rows, and nothing that anybody can see.

use std::ops::ControlFlow;

use leno_threads_core::store::{Store, Table, scan_prefix};
use leno_threads_core::thread::PACKED_BYTES_MAX;
use leno_threads_core::{Role, ThreadId};

use crate::util::{Peer, connect, level, sync, talk};

fn rows(peer: &Peer) -> Vec<usize> {
    let view = peer.store.view().unwrap();
    let mut rows = Vec::new();
    scan_prefix(&*view, Table::Runs, &[], &mut |_, row| {
        rows.push(row.len());
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

fn pack(peer: &mut Peer, id: ThreadId) -> usize {
    peer.step(|replica, view, _, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        let log = thread.own_log().unwrap();
        thread.pack(view, &log, changes).unwrap()
    })
}

#[test]
fn packed_log_is_shorter_and_reads_the_same() {
    let (mut alice, mut bob, mut carol) = (Peer::new(1), Peer::new(2), Peer::new(3));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    alice.seat(&mut carol, id, Role::Reader);
    for number in 0..300 {
        alice.write(id, &format!("song {number}"));
    }
    sync(&mut alice, &mut bob);
    for number in 300..1_500 {
        alice.write(id, &format!("song {number}"));
    }
    let before = rows(&alice);
    assert_eq!(pack(&mut alice, id), 1_497, "1,500 rows become three");
    let after = rows(&alice);
    assert!(
        after.iter().all(|row| *row <= PACKED_BYTES_MAX),
        "{after:?}"
    );
    let sum = |rows: &[usize]| rows.iter().sum::<usize>();
    assert!(
        sum(&after) * 2 < sum(&before),
        "{} to {}",
        sum(&before),
        sum(&after)
    );
    assert_eq!(pack(&mut alice, id), 0, "packed already");

    // Bob stands within the first packed row, Carol is new.
    alice.restart();
    let bytes = sync(&mut alice, &mut bob);
    assert!(bytes < sum(&after), "only what Bob lacks is sent: {bytes}");
    sync(&mut alice, &mut carol);
    alice.write(id, "after packing");
    sync(&mut alice, &mut bob);
    sync(&mut bob, &mut carol);
    for peer in [&bob, &carol] {
        assert!(peer.errors.is_empty(), "{:?}", peer.errors);
        assert_eq!(peer.reads(id), alice.reads(id));
    }
    assert!(level(&bob, &carol, id));
}

#[test]
fn records_that_are_written_together_make_rows_as_long_as_packed_ones() {
    let mut alice = Peer::new(1);
    let id = alice.create();
    let text = "x".repeat(136);
    alice.write_many(id, vec![text.as_str(); 2_000]);
    let long = "x".repeat(400 << 10);
    alice.write_many(id, vec![text.as_str(), long.as_str(), text.as_str()]);
    let rows = rows(&alice);
    let is_long = |row: &&usize| **row > PACKED_BYTES_MAX;
    assert_eq!(
        rows.iter().filter(is_long).count(),
        1,
        "a long record has a row of its own: {rows:?}"
    );
    assert!(rows.len() < 12, "{rows:?}");
}

#[test]
fn packed_conversation_is_derived_a_few_times_only() {
    const TURNS: u64 = 400;
    let (mut alice, mut bob, mut carol) = (Peer::new(1), Peer::new(2), Peer::new(3));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    connect(&mut alice, &mut bob);
    talk(&mut alice, &mut bob);
    // Each record names the one before it, in the other's log.
    for _ in 0..TURNS {
        alice.write(id, "and?");
        talk(&mut alice, &mut bob);
        bob.write(id, "well...");
        talk(&mut alice, &mut bob);
    }
    let logs: Vec<_> = alice.thread(id).logs().map(|log| log.id).collect();
    let gone: usize = alice.step(|replica, view, _, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        let packed = logs.iter().map(|log| thread.pack(view, log, changes));
        packed.map(Result::unwrap).sum()
    });
    assert!(gone > 700, "{gone}");
    alice.seat(&mut carol, id, Role::Reader);
    sync(&mut alice, &mut carol);
    assert_eq!(carol.reads(id), alice.reads(id));
    // All of one log waits when the first record of the other comes.
    let derived = carol.thread(id).derived();
    assert!(derived <= 4 * 2 * TURNS, "{derived} records");
}

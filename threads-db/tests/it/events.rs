//! What watchers are told.

use ipld_core::ipld;
use leno_threads_db::{EVENTS_MAX, Event, SkipReason};

use crate::world::{ALICE, BOB, Peer, Record, natural};

fn changed(
    collection: &str,
    name: &str,
    before: Option<ipld_core::ipld::Ipld>,
    after: Option<ipld_core::ipld::Ipld>,
) -> Event {
    Event::Changed {
        collection: collection.to_owned(),
        id: natural(name),
        before,
        after,
    }
}

#[test]
fn a_watcher_is_told_what_changed_once_per_document() {
    let mut alice = Peer::new(ALICE);
    let (a, b) = (natural("a"), natural("b"));
    alice
        .write(|it| it.put("songs", Some(&a), &ipld!({"plays": 1})))
        .unwrap();
    assert_eq!(alice.documents.take_events(), [], "nobody watched");

    alice.documents.watch("songs");
    alice.documents.watch("songs");
    alice
        .write(|it| it.patch("songs", &a, &ipld!({"plays": 2})))
        .unwrap();
    alice
        .write(|it| it.patch("songs", &a, &ipld!({"plays": 3})))
        .unwrap();
    alice
        .write(|it| it.put("songs", Some(&b), &ipld!({})))
        .unwrap();
    alice
        .write(|it| it.put("bands", Some(&b), &ipld!({})))
        .unwrap();
    // Also if the document could leave memory before anybody asks.
    alice.flush();
    alice.settle();
    alice.documents.set_budget(0);
    let plays = |plays: i64| Some(ipld!({"plays": plays}));
    assert_eq!(
        alice.documents.take_events(),
        [
            changed("songs", "a", plays(1), plays(3)),
            changed("songs", "b", None, Some(ipld!({})))
        ]
    );
    assert_eq!(alice.documents.cached_bytes(), 0);
    assert_eq!(alice.documents.take_events(), []);

    alice.documents.unwatch("songs");
    alice.write(|it| it.delete("songs", &a)).unwrap();
    assert_eq!(
        alice.documents.take_events(),
        [changed("songs", "a", plays(3), None)]
    );
    // There and back is no change.
    alice
        .write(|it| it.patch("songs", &b, &ipld!({"title": "x"})))
        .unwrap();
    alice
        .write(|it| it.put("songs", Some(&b), &ipld!({})))
        .unwrap();
    assert_eq!(alice.documents.take_events(), []);
    alice.documents.unwatch("songs");
    alice.documents.unwatch("songs");
    alice.write(|it| it.delete("songs", &b)).unwrap();
    assert_eq!(alice.documents.take_events(), []);
}

#[test]
fn records_of_others_and_transactions_are_told_too() {
    let (mut alice, mut bob) = (Peer::new(ALICE), Peer::new(BOB));
    bob.documents.watch("songs");
    alice
        .write(|it| {
            it.put("songs", Some(&natural("a")), &ipld!({"title": "A"}))?;
            it.put("songs", Some(&natural("b")), &ipld!({"title": "B"}))?;
            it.delete("songs", &natural("b"))
        })
        .unwrap();
    bob.receive(&alice.admitted[0]);
    bob.receive(&alice.admitted[0]);
    let after = Some(ipld!({"title": "A"}));
    assert_eq!(
        bob.documents.take_events(),
        [changed("songs", "a", None, after)]
    );
}

#[test]
fn events_that_nobody_takes_are_counted() {
    let mut alice = Peer::new(ALICE);
    for seq in 1..=EVENTS_MAX as u64 + 5 {
        alice.receive(&Record::of(BOB, seq, b"\x80"));
    }
    let events = alice.documents.take_events();
    assert_eq!(events.len(), EVENTS_MAX + 1);
    assert!(matches!(
        &events[0],
        Event::Skipped { record, reason: SkipReason::Malformed(_) } if record.seq == 1
    ));
    assert_eq!(events.last(), Some(&Event::Dropped { count: 5 }));
    assert_eq!(alice.documents.take_events(), []);
}

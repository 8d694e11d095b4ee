//! Bodies and ops that cannot be folded: told, and harmless to all else.

use ipld_core::ipld;
use leno_crdt_codec::cbor::DecodeError;
use leno_crdt_codec::json::Op;
use leno_threads_core::store::Store;
use leno_threads_db::{BODY_OPS_MAX, DbError, Event, SkipReason};

use crate::world::{ALICE, BOB, Oracle, Peer, Record, natural};

fn create(name: &str) -> Vec<u8> {
    Op::create(natural(name), 1, None, Vec::new())
        .unwrap()
        .encode()
}

fn one(collection: &str, op: &[u8]) -> Vec<u8> {
    let head = [0x81, 0x82, 0x60 | collection.len() as u8];
    [&head, collection.as_bytes(), &[0x81], op].concat()
}

fn skipped(peer: &mut Peer, record: &Record) -> SkipReason {
    peer.receive(record);
    let events = peer.documents.take_events();
    let [
        Event::Skipped {
            record: named,
            reason,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((named.log, named.seq), (record.log, record.seq));
    reason.clone()
}

#[test]
fn bodies_that_are_none_are_skipped() {
    let mut alice = Peer::new(ALICE);
    let op = create("a");
    let group = |collection: &str| one(collection, &op)[1..].to_vec();
    let what = |reason: SkipReason| match reason {
        SkipReason::Malformed(DecodeError::OutOfBounds { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let mut seq = 0;
    let mut skip = |content: &[u8]| {
        seq += 1;
        skipped(&mut alice, &Record::of(BOB, seq, content))
    };
    assert_eq!(what(skip(b"\x80")), "the number of ops");
    assert_eq!(what(skip(b"\x81\x82\x61a\x80")), "the number of ops");
    assert_eq!(what(skip(&one("a b", &op))), "the name of a collection");
    assert_eq!(what(skip(&one("", &op))), "the name of a collection");
    let twice = [&[0x82], group("a").as_slice(), &group("a")].concat();
    assert_eq!(what(skip(&twice)), "the name of a collection");
    let unsorted = [&[0x82], group("b").as_slice(), &group("a")].concat();
    assert_eq!(what(skip(&unsorted)), "the name of a collection");
    let many = op.repeat(BODY_OPS_MAX + 1);
    let many = [b"\x81\x82\x61a\x99\x40\x01", many.as_slice()].concat();
    assert_eq!(what(skip(&many)), "the number of ops");
    assert!(matches!(skip(b""), SkipReason::Malformed(_)));
    assert!(matches!(
        skip(&one("a", b"\x01")),
        SkipReason::MalformedOp { index: 0, .. }
    ));
    assert!(matches!(skip(&op), SkipReason::Malformed(_)));
    assert!(matches!(
        skip(&one("a", b"\x9b\0\0\xff\xff\xff\xff\xff\xff")),
        SkipReason::MalformedOp { .. }
    ));

    let mut trailing = Record::of(BOB, 20, &one("a", &op));
    *trailing.plaintext.last_mut().unwrap() = 1;
    assert_eq!(skipped(&mut alice, &trailing), SkipReason::BadPadding);
    assert_eq!(alice.hash(), Oracle::default().hash());
    // Skipped for good: it does not come again.
    alice.receive(&trailing);
    assert_eq!(alice.documents.take_events(), []);
}

#[test]
fn a_malformed_op_voids_its_whole_record() {
    let mut alice = Peer::new(ALICE);
    let bad = [create("b").as_slice(), b"\x83\x02\x61c\x00"].concat();
    let body = [b"\x81\x82\x61a\x83", create("a").as_slice(), &bad].concat();
    let reason = skipped(&mut alice, &Record::of(BOB, 1, &body));
    assert!(
        matches!(reason, SkipReason::MalformedOp { index: 2, .. }),
        "{reason:?}"
    );
    let reason = skipped(
        &mut alice,
        &Record::of(BOB, 2, &one("a", b"\x83\x00\x61a\x01")),
    );
    assert!(
        matches!(reason, SkipReason::MalformedOp { index: 0, .. }),
        "{reason:?}"
    );
    assert!(alice.pages("a", 9).is_empty());
    assert!(!alice.documents.is_dirty());
    assert_eq!(alice.hash(), Oracle::default().hash());
}

#[test]
fn an_unknown_encoding_counts_as_missing() {
    let mut alice = Peer::new(ALICE);
    let mut record = Record::of(BOB, 2, &one("a", &create("a")));
    record.plaintext[0] = 9;
    assert_eq!(
        skipped(&mut alice, &record),
        SkipReason::UnknownEncoding { encoding: 9 }
    );
    alice.receive(&Record::of(BOB, 1, &one("a", &create("b"))));
    alice.receive(&Record::of(BOB, 3, &one("a", &create("c"))));
    assert_eq!(alice.documents.gap(&crate::world::log(BOB)), Some(2));
    alice.flush();
    alice.settle();
    alice.crash();
    assert_eq!(alice.documents.cursor(&crate::world::log(BOB)), 3);
    assert_eq!(alice.documents.gap(&crate::world::log(BOB)), Some(2));
    // As if a later version had read it.
    record.plaintext[0] = 0;
    alice.receive(&record);
    assert_eq!(alice.documents.gap(&crate::world::log(BOB)), None);
    assert_eq!(alice.pages("a", 9).len(), 3);
}

/// A record with an op of this version, one of kind 9, and one with an unknown change.
#[test]
fn an_unknown_op_stops_its_document_alone() {
    let (mut alice, mut carol) = (Peer::new(ALICE), Peer::new(3));
    let kind = b"\x83\x09\x61u\x01";
    let change = b"\x84\x03\x61v\x01\x81\x82\x61f\x18\x63";
    let body = [
        b"\x81\x82\x61a\x85",
        create("a").as_slice(),
        &create("u"),
        kind,
        &create("v"),
        change,
    ]
    .concat();
    let unknown = Record::of(BOB, 1, &body);
    let single = Record::of(BOB, 2, &one("a", b"\x83\x0a\x61a\x01"));
    let later = Record::of(BOB, 3, &one("a", &create("w")));
    for (peer, order) in [
        (&mut alice, [&unknown, &single, &later]),
        (&mut carol, [&later, &single, &unknown]),
    ] {
        order.iter().for_each(|record| peer.receive(record));
        let events = peer.documents.take_events();
        let mut stopped: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Stopped {
                    id, kind, index, ..
                } => (id.to_string(), *kind, *index),
                other => panic!("{other:?}"),
            })
            .collect();
        stopped.sort();
        assert_eq!(
            stopped,
            [
                ("a".to_owned(), 10, 0),
                ("u".to_owned(), 9, 2),
                ("v".to_owned(), 99, 4)
            ]
        );
        // It shows what the known ops add up to, says so, and takes no writes.
        for restarted in [false, true] {
            let store = peer.store.clone();
            let view = store.view().unwrap();
            let shown = peer.documents.list(&*view, "a", None, 9).unwrap();
            let shown: Vec<_> = shown
                .iter()
                .map(|it| (it.id.to_string(), it.is_stopped))
                .collect();
            let stopped = |it: &str| it != "w";
            let expected = ["a", "u", "v", "w"].map(|it| (it.to_owned(), stopped(it)));
            assert_eq!(shown, expected);
            assert_eq!(peer.documents.count(&*view, "a").ok(), Some(4));
            let result = peer.write(|it| it.patch("a", &natural("u"), &ipld!({"x": 1})));
            assert!(matches!(result, Err(DbError::Stopped { .. })), "{result:?}");
            if !restarted {
                peer.flush();
                peer.settle();
                peer.crash();
            }
        }
    }
    assert_eq!(alice.hash(), carol.hash());
    // What waits is part of what peers compare.
    let mut bob = Peer::new(BOB);
    let known = [
        b"\x81\x82\x61a\x83",
        create("a").as_slice(),
        &create("u"),
        &create("v"),
    ]
    .concat();
    bob.receive(&Record::of(BOB, 1, &known));
    bob.receive(&later);
    assert_ne!(alice.hash(), bob.hash());
    assert_eq!(alice.hash(), {
        alice.crash();
        alice.hash()
    });
}

/// One op of an unknown kind does not keep a document for ever: it can be deleted, and begin anew.
#[test]
fn stopped_document_can_be_deleted_and_made_anew() {
    let mut alice = Peer::new(ALICE);
    let put = |alice: &mut Peer, title: &str| {
        let value = ipld!({"title": title});
        alice.write(|it| it.put("a", Some(&natural("u")), &value).map(drop))
    };
    put(&mut alice, "Blue").unwrap();
    alice.receive(&Record::of(BOB, 1, &one("a", b"\x83\x0a\x61u\x01")));
    let refused = put(&mut alice, "Green");
    assert!(matches!(refused, Err(DbError::Stopped { .. })));
    alice
        .write(|it| it.delete("a", &natural("u")).map(drop))
        .unwrap();
    put(&mut alice, "Green").unwrap();
    let view = alice.store.view().unwrap();
    let shown = alice.documents.get(&*view, "a", &natural("u")).unwrap();
    assert_eq!(shown.unwrap().value, ipld!({"title": "Green"}));
}

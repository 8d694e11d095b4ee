//! Documents that are created, deleted and created again, by those who may and those who may not.

use ipld_core::ipld;
use leno_crdt_codec::json::{Change, Edit, Op, Value};
use leno_threads_db::{DbError, Event, VoidReason, is_of_member, new_id};

use crate::world::{ALICE, BOB, Oracle, Peer, Record, log, member, natural};

fn body(op: &Op) -> Vec<u8> {
    [b"\x81\x82\x65songs\x81", op.encode().as_slice()].concat()
}

/// ```text
/// alice   create A (nonce) ------------------
/// mallory           create A, stamp 0, her own nonce, alice's nonce, none
/// ```
#[test]
fn nobody_creates_a_document_of_another_member() {
    let mut alice = Peer::new(ALICE);
    let song = ipld!({"title": "Blue"});
    let id = alice.write(|it| it.put("songs", None, &song)).unwrap().id;
    let view = leno_threads_core::store::Store::view(&alice.store).unwrap();
    let created = alice
        .documents
        .get(&*view, "songs", &id)
        .unwrap()
        .unwrap()
        .created;
    assert_eq!(created.dot.log, log(ALICE));
    drop(view);

    // Mallory sees the record, and so the nonce.
    let mut bob = Peer::new(BOB);
    bob.receive(&alice.admitted[0]);
    let stolen = ipld!({"title": "Mine"});
    let not_author = bob
        .write(|it| it.put_new("songs", &id, [9; 16], &stolen))
        .map(|_| ());
    assert!(
        not_author.is_ok(),
        "the document is there, so this is an update"
    );

    let mut carol = Peer::new(3);
    let edits = || {
        vec![Edit::new(
            "title",
            Change::Set(Value::text("Mine").unwrap()),
        )]
    };
    let nonce = {
        let (other, nonce) = new_id(0, member(BOB), &mut bob.rng);
        assert!(
            is_of_member(&other, member(BOB), &nonce) && !is_of_member(&id, member(BOB), &nonce)
        );
        nonce
    };
    for (seq, nonce, life) in [(1, Some(nonce), 1), (2, None, 1), (3, Some(nonce), 7)] {
        let op = Op::create(id.clone(), life, nonce, edits()).unwrap();
        let mut record = Record::of(BOB, seq, &body(&op));
        record.stamp = 0;
        carol.receive(&record);
        let void = carol.documents.take_events();
        let [
            Event::Void {
                index: 0,
                collection,
                id: named,
                reason,
                ..
            },
        ] = void.as_slice()
        else {
            panic!("{void:?}");
        };
        assert_eq!(
            (collection.as_str(), named, *reason),
            ("songs", &id, VoidReason::NotAuthor)
        );
        assert_eq!(carol.get("songs", &id), None);
    }
    // A record whose author has no number creates none either.
    let mut nameless = alice.admitted[0].clone();
    (nameless.log, nameless.member) = (log(8), None);
    carol.receive(&nameless);
    assert!(matches!(
        carol.documents.take_events().as_slice(),
        [Event::Void { .. }]
    ));
    carol.receive(&alice.admitted[0]);
    assert_eq!(carol.get("songs", &id), Some(song));
    assert_eq!(carol.hash(), Oracle::of(&carol.admitted).hash());
    assert_eq!(carol.hash(), alice.hash());
}

/// ```text
/// alice     create(1) ------------------ put
/// mallory              delete(2^64 - 1)
/// ```
#[test]
fn nobody_deletes_a_document_for_ever() {
    let mut alice = Peer::new(ALICE);
    let id = natural("settings");
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({"a": 1})))
        .unwrap();
    for (seq, life) in [(1, u64::MAX), (2, u64::MAX - 1)] {
        let op = Op::delete(id.clone(), life).unwrap();
        alice.receive(&Record::of(BOB, seq, &body(&op)));
        let void = alice.documents.take_events();
        assert!(
            matches!(
                void.as_slice(),
                [Event::Void {
                    reason: VoidReason::LifeAhead,
                    ..
                }]
            ),
            "{void:?}"
        );
    }
    assert_eq!(alice.get("songs", &id), Some(ipld!({"a": 1})));
    // A life that his stamp allows is deleted, and the next one is created.
    let record = Record::of(BOB, 3, &[]);
    let op = Op::delete(id.clone(), record.stamp).unwrap();
    let record = Record {
        plaintext: Record::of(BOB, 3, &body(&op)).plaintext,
        ..record
    };
    alice.receive(&record);
    assert_eq!(alice.get("songs", &id), None);
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({"a": 2})))
        .unwrap();
    assert_eq!(alice.get("songs", &id), Some(ipld!({"a": 2})));
    assert_eq!(alice.hash(), Oracle::of(&alice.admitted).hash());
}

#[test]
fn natural_ids_are_anybodys() {
    let mut alice = Peer::new(ALICE);
    let id = natural("blue");
    let op = Op::create(id.clone(), 1, None, Vec::new()).unwrap();
    let mut record = Record::of(BOB, 1, &body(&op));
    record.member = None;
    alice.receive(&record);
    assert_eq!(alice.get("songs", &id), Some(ipld!({})));
    assert_eq!(alice.documents.take_events(), []);
}

#[test]
fn update_of_an_unknown_document_does_nothing() {
    let mut alice = Peer::new(ALICE);
    let id = natural("blue");
    let edits = vec![Edit::new(
        "title",
        Change::Set(Value::text("Blue").unwrap()),
    )];
    let op = Op::update(id.clone(), 1, edits).unwrap();
    alice.receive(&Record::of(BOB, 1, &body(&op)));
    assert_eq!(alice.get("songs", &id), None);
    assert!(alice.pages("songs", 9).is_empty());
    for result in [
        alice.write(|it| it.patch("songs", &id, &ipld!({"title": "Green"}))),
        alice.write(|it| it.edit("songs", &id, &[])),
    ] {
        let Err(DbError::NotFound {
            collection,
            id: named,
        }) = result
        else {
            panic!("{result:?}")
        };
        assert_eq!((collection.as_str(), &named), ("songs", &id));
    }
    assert_eq!(alice.write(|it| it.delete("songs", &id)).ok(), Some(false));
    assert_eq!(alice.written, 0);
}

/// ```text
/// alice   put ---- delete ------------ put (life 2)
///            \                       /
/// bob         patch (concurrent) ---+
/// ```
#[test]
fn delete_beats_a_concurrent_patch_and_a_new_put_is_the_next_life() {
    let (mut alice, mut bob) = (Peer::new(ALICE), Peer::new(BOB));
    let id = alice
        .write(|it| it.put("songs", None, &ipld!({"title": "Blue", "plays": 3})))
        .unwrap()
        .id;
    bob.receive(&alice.admitted[0]);
    assert!(alice.write(|it| it.delete("songs", &id)).unwrap());
    assert!(
        bob.write(|it| it.patch("songs", &id, &ipld!({"plays": 9})))
            .unwrap()
    );
    alice.receive(&bob.admitted[1].clone());
    bob.receive(&alice.admitted[1].clone());
    for peer in [&mut alice, &mut bob] {
        assert_eq!(peer.get("songs", &id), None);
        assert_eq!(
            peer.write(|it| it.delete("songs", &id)).ok(),
            Some(false),
            "deleted already"
        );
    }
    // Bob did not make the id. Alice did, and her nonce outlives the document, also on disk.
    let song = ipld!({"title": "Blue again"});
    let refused = bob.write(|it| it.put("songs", Some(&id), &song));
    assert!(
        matches!(refused, Err(DbError::NotAuthor { .. })),
        "{refused:?}"
    );
    alice.flush();
    alice.settle();
    alice.crash();
    assert!(
        alice
            .write(|it| it.put("songs", Some(&id), &song))
            .unwrap()
            .is_changed
    );
    bob.receive(alice.admitted.last().unwrap());
    let store = bob.store.clone();
    let view = leno_threads_core::store::Store::view(&store).unwrap();
    let document = bob.documents.get(&*view, "songs", &id).unwrap().unwrap();
    assert_eq!((document.life, document.value), (2, song));
    assert_eq!(bob.hash(), alice.hash());
}

#[test]
fn concurrent_writes_are_conflicts_until_one_is_chosen() {
    let (mut alice, mut bob) = (Peer::new(ALICE), Peer::new(BOB));
    let id = natural("blue");
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({"title": "Blue"})))
        .unwrap();
    bob.receive(&alice.admitted[0]);
    alice
        .write(|it| it.patch("songs", &id, &ipld!({"title": "Green"})))
        .unwrap();
    bob.write(|it| it.patch("songs", &id, &ipld!({"title": "Red"})))
        .unwrap();
    alice.receive(&bob.admitted[1].clone());
    let store = alice.store.clone();
    let view = leno_threads_core::store::Store::view(&store).unwrap();
    let conflicts = alice.documents.conflicts(&*view, "songs", &id).unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].path, ["title"]);
    let shown = alice.get("songs", &id).unwrap();
    assert_eq!(
        shown,
        ipld!({"title": "Red"}),
        "equal stamps fall to the higher log"
    );
    // Writing what shows already is no write; to set it is.
    assert!(
        !alice
            .write(|it| it.put("songs", Some(&id), &shown))
            .unwrap()
            .is_changed
    );
    let set = leno_threads_db::FieldChange::Set("Red".into());
    let set = [leno_threads_db::FieldEdit::new(["title"], set)];
    assert!(alice.write(|it| it.edit("songs", &id, &set)).unwrap());
    assert_eq!(alice.documents.conflicts(&*view, "songs", &id).unwrap(), []);
}

//! Transactions: all or nothing, reading their own writes.

use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use leno_threads_core::store::Store;
use leno_threads_db::{
    BODY_COLLECTIONS_MAX, BODY_OPS_MAX, DbError, DocumentId, FieldChange, FieldEdit, Transaction,
    new_id,
};

use crate::world::{ALICE, BOB, Oracle, Peer, member, natural};

fn insert(index: usize, value: &str) -> FieldEdit {
    FieldEdit::new(
        ["verses"],
        FieldChange::Insert {
            index,
            value: value.into(),
        },
    )
}

#[test]
fn a_transaction_reads_its_writes_and_leaves_nothing_when_dropped() {
    let mut alice = Peer::new(ALICE);
    let (blue, green) = (natural("blue"), natural("green"));
    alice
        .write(|it| it.put("songs", Some(&blue), &ipld!({"plays": 1})))
        .unwrap();
    let before = alice.hash();
    let result = alice.write(|it| -> Result<(), DbError> {
        it.patch("songs", &blue, &ipld!({"plays": 5}))?;
        it.put("songs", Some(&green), &ipld!({"title": "Green"}))?;
        it.put("bands", Some(&green), &ipld!({"title": "Greens"}))?;
        it.delete("songs", &green)?;
        assert_eq!(
            it.get("songs", &blue)?.map(|it| it.value),
            Some(ipld!({"plays": 5}))
        );
        assert_eq!(it.get("songs", &green)?, None);
        it.put("songs", Some(&green), &ipld!({"title": "Greener"}))?;
        let listed = it.list("songs", None, 9)?;
        assert_eq!(listed.iter().map(|it| it.life).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(it.list("songs", Some(&blue), 9)?.len(), 1);
        assert_eq!(it.list("bands", None, 9)?.len(), 1);
        Err(DbError::TransactionTooLarge)
    });
    assert!(result.is_err());
    assert_eq!((alice.hash(), alice.written), (before, 1));
    assert_eq!(alice.get("songs", &green), None);
    assert_eq!(alice.get("songs", &blue), Some(ipld!({"plays": 1})));
}

#[test]
fn a_transaction_over_collections_is_one_record() {
    let (mut alice, mut bob) = (Peer::new(ALICE), Peer::new(BOB));
    let ids: Vec<DocumentId> = alice
        .write(|it| {
            let song = it.put("songs", None, &ipld!({"title": "Blue"}))?.id;
            let band = it.put("bands", None, &ipld!({"title": "Joni"}))?.id;
            it.patch(
                "songs",
                &song,
                &ipld!({"band": band.to_string(), "plays": 2}),
            )?;
            it.edit(
                "songs",
                &song,
                &[FieldEdit::new(["plays"], FieldChange::Increment(3))],
            )?;
            Ok(vec![song, band])
        })
        .unwrap();
    assert_eq!(alice.written, 1);
    bob.receive(&alice.admitted[0]);
    let song = ipld!({"title": "Blue", "plays": 5, "band": ids[1].to_string()});
    for peer in [&mut alice, &mut bob] {
        assert_eq!(peer.get("songs", &ids[0]), Some(song.clone()));
        assert_eq!(peer.get("bands", &ids[1]), Some(ipld!({"title": "Joni"})));
        assert_eq!(peer.hash(), Oracle::of(&peer.admitted).hash());
    }
}

#[test]
fn list_elements_of_this_transaction_can_be_edited() {
    let (mut alice, mut bob) = (Peer::new(ALICE), Peer::new(BOB));
    let id = natural("blue");
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({"verses": ["a"]})))
        .unwrap();
    let take = FieldEdit::new(["verses"], FieldChange::Take { index: 1 });
    let replace = |index, value: &str| {
        FieldEdit::new(
            ["verses"],
            FieldChange::Replace {
                index,
                value: value.into(),
            },
        )
    };
    alice
        .write(|it| {
            it.edit(
                "songs",
                &id,
                &[
                    insert(1, "b"),
                    insert(2, "c"),
                    replace(2, "d"),
                    take.clone(),
                ],
            )?;
            assert_eq!(
                it.get("songs", &id)?.map(|it| it.value),
                Some(ipld!({"verses": ["a", "d"]}))
            );
            it.patch("songs", &id, &ipld!({"verses": ["e", "d", "f"]}))?;
            // A failure goes back to before this call, also for what earlier calls inserted.
            let beyond = it.edit("songs", &id, &[take, replace(1, "x"), replace(9, "y")]);
            assert!(
                matches!(
                    beyond,
                    Err(DbError::Index {
                        index: 9,
                        len: 2,
                        ..
                    })
                ),
                "{beyond:?}"
            );
            Ok(())
        })
        .unwrap();
    alice.admitted.iter().for_each(|record| bob.receive(record));
    for peer in [&mut alice, &mut bob] {
        assert_eq!(
            peer.get("songs", &id),
            Some(ipld!({"verses": ["e", "d", "f"]}))
        );
    }
}

#[test]
fn edits_follow_the_declared_strategies() {
    let mut alice = Peer::new(ALICE);
    let id = natural("blue");
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({"tags": ["x"], "best": 3})))
        .unwrap();
    let edits = [
        FieldEdit::new(["tags"], FieldChange::Add("y".into())),
        FieldEdit::new(["tags"], FieldChange::Remove("x".into())),
        FieldEdit::new(["fans"], FieldChange::Add("z".into())),
        FieldEdit::new(["best"], FieldChange::Max(5.into())),
        FieldEdit::new(["best"], FieldChange::Max(4.into())),
        FieldEdit::new(["worst"], FieldChange::Min(Ipld::Integer(4))),
        FieldEdit::new(["meta", "uses"], FieldChange::Increment(2)),
        FieldEdit::new(["meta", "tags"], FieldChange::Add("m".into())),
        FieldEdit::new(["title"], FieldChange::Set("Blue".into())),
        insert(0, "b"),
        insert(0, "a"),
        FieldEdit::new(["note"], FieldChange::Unset),
    ];
    assert!(alice.write(|it| it.edit("songs", &id, &edits)).unwrap());
    let expected = ipld!({
        "tags": ["y"], "fans": ["z"], "best": 5, "worst": 4, "title": "Blue", "verses": ["a", "b"],
        "meta": {"uses": 2, "tags": ["m"]},
    });
    assert_eq!(alice.get("songs", &id).as_ref(), Some(&expected));
    let nothing = [
        FieldEdit::new(["tags"], FieldChange::Add("y".into())),
        FieldEdit::new(["tags"], FieldChange::Remove("x".into())),
    ];
    assert!(!alice.write(|it| it.edit("songs", &id, &nothing)).unwrap());

    let hash = alice.hash();
    for (path, change) in [
        (&["title"][..], FieldChange::Increment(1)),
        (&["plays"], FieldChange::Set(1.into())),
        (&["fans"], FieldChange::Remove("z".into())),
        (&["tags"], FieldChange::Take { index: 0 }),
        (&["undeclared"], FieldChange::Add(1.into())),
        (&["note", "inside"], FieldChange::Set(1.into())),
        (&[], FieldChange::Set(1.into())),
        (&["best"], FieldChange::Min(1.into())),
        (&["worst"], FieldChange::Max(1.into())),
    ] {
        let good = FieldEdit::new(["plays"], FieldChange::Increment(1));
        let bad = FieldEdit::new(path.iter().copied(), change);
        let result = alice.write(|it| {
            let result = it.edit("songs", &id, &[good, bad.clone()]);
            assert_eq!(
                it.get("songs", &id)?.map(|it| it.value),
                Some(expected.clone()),
                "{bad:?}"
            );
            result
        });
        let Err(DbError::Strategy { path: named, .. }) = result else {
            panic!("{bad:?} {result:?}")
        };
        assert_eq!(named, path);
    }
    assert_eq!(alice.hash(), hash);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut alice = Peer::new(ALICE);
    let id = natural("blue");
    let long = "x".repeat(129);
    for name in ["", "a b", long.as_str()] {
        let result = alice.write(|it| it.put(name, Some(&id), &ipld!({})));
        let Err(DbError::CollectionName { name: named }) = result else {
            panic!("{result:?}")
        };
        assert_eq!(named, name);
    }
    for value in [
        ipld!("no map"),
        ipld!({"plays": "many"}),
        ipld!({"x": f64::NAN}),
    ] {
        let result = alice.write(|it| it.put("songs", Some(&id), &value));
        assert!(matches!(result, Err(DbError::Value(_))), "{result:?}");
    }
    let view = alice.store.view().unwrap();
    let named = alice.documents.get(&*view, "a b", &id);
    assert!(matches!(named, Err(DbError::CollectionName { .. })));
    assert!(alice.documents.list(&*view, "a b", None, 1).is_err());
    assert!(alice.documents.count(&*view, "a b").is_err());
    drop(view);
    assert_eq!((alice.written, alice.documents.is_dirty()), (0, false));
}

#[test]
fn the_size_of_a_transaction_is_bounded() {
    let mut alice = Peer::new(ALICE);
    let store = alice.store.clone();
    let view = store.view().unwrap();
    let mut transaction = Transaction::new(member(ALICE), None, 0);
    let mut writer = alice
        .documents
        .writer(&*view, &mut transaction, &mut alice.rng);
    let too_large = |result| matches!(result, Err(DbError::TransactionTooLarge));
    for at in 0..BODY_COLLECTIONS_MAX {
        writer
            .put(&format!("c{at}"), Some(&natural("a")), &ipld!({}))
            .unwrap();
    }
    assert!(too_large(writer.put(
        "another",
        Some(&natural("a")),
        &ipld!({})
    )));
    for at in BODY_COLLECTIONS_MAX..BODY_OPS_MAX {
        writer
            .put("c0", Some(&natural(&at.to_string())), &ipld!({}))
            .unwrap();
    }
    assert!(too_large(writer.put(
        "c0",
        Some(&natural("one more")),
        &ipld!({})
    )));
    assert_eq!(transaction.len(), BODY_OPS_MAX);
    let record = crate::world::Record::of(ALICE, 1, &transaction.to_body().unwrap());
    let mut bob = Peer::new(BOB);
    bob.receive(&record);
    assert_eq!(bob.documents.take_events(), []);
    assert_eq!(
        bob.pages("c0", usize::MAX).len(),
        BODY_OPS_MAX - BODY_COLLECTIONS_MAX + 1
    );
    assert!(transaction.to_body() == transaction.clone().to_body() && !transaction.is_empty());
}

#[test]
fn an_id_made_beforehand_is_created_with_its_nonce() {
    let mut alice = Peer::new(ALICE);
    let (id, nonce) = new_id(5_000, member(ALICE), &mut alice.rng);
    let song = ipld!({"title": "Blue"});
    let refused = alice.write(|it| it.put("songs", Some(&id), &song));
    assert!(matches!(refused, Err(DbError::NotAuthor { .. })));
    let refused = alice.write(|it| it.put_new("songs", &id, [0; 16], &song));
    assert!(matches!(refused, Err(DbError::NotAuthor { .. })));
    assert!(
        alice
            .write(|it| it.put_new("songs", &id, nonce, &song))
            .unwrap()
            .is_changed
    );
    assert_eq!(id.millis(), Some(5_000));
    assert_eq!(alice.get("songs", &id), Some(song));
}

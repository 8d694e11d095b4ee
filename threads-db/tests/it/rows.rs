//! How documents rest in the store, and what a crash leaves.

use futures_executor::block_on;
use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use leno_threads_core::store::{Batch, Store, StoreError, Table};
use leno_threads_db::{DbError, Documents, FLUSH_OPS, Transaction};

use crate::world::{ALICE, BOB, Oracle, Peer, Record, THREAD, apply, member, natural};

fn rows(peer: &Peer) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let view = peer.store.view().unwrap();
    leno_threads_core::store::scan_prefix(&*view, Table::Documents, &[], &mut |key, row| {
        assert!(row.len() <= leno_threads_core::store::VALUE_BYTES_MAX);
        keys.push(key.to_vec());
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

#[test]
fn rows_have_the_documented_keys() {
    let mut alice = Peer::new(ALICE);
    alice
        .write(|it| it.put("songs", Some(&natural("a")), &ipld!({})))
        .unwrap();
    let generated = alice
        .write(|it| it.put("songs", None, &ipld!({})))
        .unwrap()
        .id;
    alice.flush();
    alice.settle();
    let key = |id: &[u8]| [b"\0\0\0\x07songs\0", id].concat();
    let id = [&[0], &generated.as_generated().unwrap()[..]].concat();
    assert_eq!(rows(&alice), [key(&id), key(b"\x01a")]);
    let view = alice.store.view().unwrap();
    let cursor = view
        .get(Table::Cursors, &[&[0, 0, 0, 7][..], &[ALICE; 32]].concat())
        .unwrap();
    assert_eq!(cursor, Some(2_u64.to_be_bytes().to_vec()));
}

#[test]
fn a_document_larger_than_a_row_is_cut_into_parts() {
    let (mut alice, mut bob) = (Peer::new(ALICE), Peer::new(BOB));
    let (large, small) = (natural("large"), natural("small"));
    for at in 0..12 {
        let text = Ipld::String("x".repeat(200_000));
        let field = Ipld::Map([(format!("f{at}"), text)].into());
        alice
            .write(|it| match at {
                0 => it.put("songs", Some(&large), &field).map(|_| true),
                _ => it.patch("songs", &large, &field),
            })
            .unwrap();
    }
    alice
        .write(|it| it.put("songs", Some(&small), &ipld!({})))
        .unwrap();
    alice.flush();
    alice.settle();
    assert_eq!(rows(&alice).len(), 4);
    let shown = alice.get("songs", &large).unwrap();
    alice.crash();
    alice.documents.set_budget(0);
    assert_eq!(alice.get("songs", &large).as_ref(), Some(&shown));
    assert_eq!(alice.pages("songs", 1).len(), 2);
    assert_eq!(alice.hash(), Oracle::of(&alice.admitted).hash());
    // The parts go with the document.
    alice.write(|it| it.delete("songs", &large)).unwrap();
    alice.flush();
    alice.settle();
    assert_eq!(rows(&alice).len(), 2);
    alice.crash();
    assert_eq!(alice.pages("songs", 9).len(), 1);
    alice.admitted.iter().for_each(|record| bob.receive(record));
    assert_eq!(alice.hash(), bob.hash());
}

#[test]
fn what_no_op_changed_leaves_no_row() {
    let mut alice = Peer::new(ALICE);
    assert_eq!(alice.get("songs", &natural("a")), None);
    // An update without edits.
    alice.receive(&Record::of(BOB, 1, b"\x81\x82\x61a\x81\x83\x00\x61a\xa0"));
    alice.flush();
    alice.settle();
    assert_eq!(rows(&alice), [[0_u8; 0]; 0]);
    assert_eq!(alice.hash(), Oracle::default().hash());
    assert_eq!(alice.documents.cursor(&crate::world::log(BOB)), 1);
}

/// A view taken before the commit does not show what was flushed; nothing may be read from it.
#[test]
fn what_is_flushed_stays_in_memory_until_it_is_settled() {
    let mut alice = Peer::new(ALICE);
    alice.documents.set_budget(0);
    let id = natural("a");
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({"plays": 1})))
        .unwrap();
    let mut batch = Batch::new();
    let first = alice.documents.flush(&mut batch);
    assert!(!alice.documents.is_dirty());
    assert_eq!(alice.get("songs", &id), Some(ipld!({"plays": 1})));
    assert_eq!(alice.pages("songs", 9).len(), 1);
    alice
        .write(|it| it.patch("songs", &id, &ipld!({"plays": 2})))
        .unwrap();
    let second = alice.documents.flush(&mut batch);
    // The first is committed, the second is not.
    alice.documents.settle(first);
    assert_eq!(alice.get("songs", &id), Some(ipld!({"plays": 2})));
    assert!(alice.documents.cached_bytes() > 0);
    block_on(alice.store.commit(batch)).unwrap();
    alice.documents.settle(second);
    assert_eq!(alice.documents.cached_bytes(), 0);
    assert_eq!(alice.get("songs", &id), Some(ipld!({"plays": 2})));
}

#[test]
fn a_flush_is_due_after_much_and_after_what_came_late() {
    let (mut alice, mut bob) = (Peer::new(ALICE), Peer::new(BOB));
    let id = natural("a");
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({"plays": 0})))
        .unwrap();
    for plays in 1..5 {
        alice
            .write(|it| it.patch("songs", &id, &ipld!({"plays": plays})))
            .unwrap();
    }
    let store = bob.store.clone();
    for at in [0, 4] {
        apply(&mut bob.documents, &store, &alice.admitted[at]);
        assert!(!bob.documents.needs_flush());
    }
    assert_eq!(bob.documents.gap(&crate::world::log(ALICE)), Some(2));
    apply(&mut bob.documents, &store, &alice.admitted[2]);
    assert!(bob.documents.needs_flush(), "nobody would bring it again");
    bob.flush();
    assert!(!bob.documents.needs_flush());
    for plays in 5..5 + FLUSH_OPS as i64 {
        assert!(!alice.documents.needs_flush());
        let store = alice.store.clone();
        let view = store.view().unwrap();
        let mut transaction = Transaction::new(member(ALICE), None, 0);
        let mut writer = alice
            .documents
            .writer(&*view, &mut transaction, &mut alice.rng);
        writer
            .patch("songs", &id, &ipld!({"plays": plays}))
            .unwrap();
        let seq = plays as u64 + 1;
        let appended = leno_threads_core::thread::Appended {
            log: crate::world::log(ALICE),
            seq,
            stamp: leno_crdt_codec::Stamp(seq),
        };
        alice
            .documents
            .commit(&*view, transaction, &appended)
            .unwrap();
        if alice.documents.needs_flush() {
            return;
        }
    }
    panic!("{FLUSH_OPS} ops and no flush");
}

#[test]
fn a_damaged_row_is_told_as_such() {
    let mut alice = Peer::new(ALICE);
    let id = natural("a");
    alice
        .write(|it| it.put("songs", Some(&id), &ipld!({})))
        .unwrap();
    alice.flush();
    alice.settle();
    let key = rows(&alice)[0].clone();
    let good = alice
        .store
        .view()
        .unwrap()
        .get(Table::Documents, &key)
        .unwrap()
        .unwrap();
    for damage in [
        &good[..good.len() - 1],
        &good[..3],
        &[2, 0, 0, 0, 1, 0x80],
        &[1, 0, 0, 0, 2, 0x80],
    ] {
        let mut batch = Batch::new();
        batch.put(Table::Documents, key.clone(), damage.to_vec());
        block_on(alice.store.commit(batch)).unwrap();
        let view = alice.store.view().unwrap();
        let mut documents = Documents::load(&*view, THREAD).unwrap();
        let is_told = |error: &StoreError| matches!(error, StoreError::Corrupt { what } if what.starts_with("document a in songs"));
        let read = documents.get(&*view, "songs", &id);
        assert!(
            matches!(&read, Err(DbError::Store(error)) if is_told(error)),
            "{read:?}"
        );
        let listed = documents.list(&*view, "songs", None, 9);
        assert!(
            matches!(&listed, Err(DbError::Store(error)) if is_told(error)),
            "{listed:?}"
        );
        let hashed = documents.state_hash(&*view);
        let is_cut_short = damage.len() == good.len() - 1;
        assert!(
            is_cut_short || matches!(&hashed, Err(error) if is_told(error)),
            "{hashed:?}"
        );
    }
    let mut batch = Batch::new();
    batch.put(
        Table::Cursors,
        [&[0, 0, 0, 7][..], &[ALICE; 32]].concat(),
        vec![1],
    );
    block_on(alice.store.commit(batch)).unwrap();
    let loaded = Documents::load(&*alice.store.view().unwrap(), THREAD).map(|_| ());
    assert!(
        matches!(loaded, Err(StoreError::Corrupt { .. })),
        "{loaded:?}"
    );
}

#[test]
fn threads_of_one_store_do_not_see_each_other() {
    let mut alice = Peer::new(ALICE);
    alice
        .write(|it| it.put("songs", Some(&natural("a")), &ipld!({})))
        .unwrap();
    alice.flush();
    alice.settle();
    let view = alice.store.view().unwrap();
    for other in [THREAD - 1, THREAD + 1] {
        let mut documents = Documents::load(&*view, other).unwrap();
        assert_eq!(documents.thread(), other);
        assert_eq!(documents.get(&*view, "songs", &natural("a")).unwrap(), None);
        assert_eq!(documents.list(&*view, "songs", None, 9).unwrap(), []);
        assert_eq!(
            documents.state_hash(&*view).unwrap(),
            Oracle::default().hash()
        );
        assert_eq!(documents.newest(&crate::world::log(ALICE)), 0);
    }
}

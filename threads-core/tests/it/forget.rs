//! Giving up a copy of a thread.

use leno_threads_core::store::{Store, Table, scan_prefix};
use leno_threads_core::sync::Level;
use leno_threads_core::{Role, ThreadId};

use crate::util::{Peer, level, sync, talk};

fn forget(peer: &mut Peer, id: ThreadId) -> bool {
    peer.step(|replica, view, _, changes| replica.forget(view, &id, changes).unwrap())
}

/// All rows but those of this device.
fn rows(peer: &Peer) -> usize {
    let view = peer.store.view().unwrap();
    let mut count = 0;
    for table in Table::ALL
        .into_iter()
        .filter(|it| !matches!(it, Table::Meta | Table::Pairs))
    {
        scan_prefix(&*view, table, &[], &mut |_, _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    count
}

#[test]
fn nothing_of_it_stays_and_others_go_on() {
    let (mut alice, mut rex) = (Peer::new(1), Peer::new(2));
    let (band, choir) = (alice.create(), alice.create());
    for id in [band, choir] {
        alice.seat(&mut rex, id, Role::Replicator);
        alice.write_many(id, ["one", "two"]);
        alice.write(id, "three");
    }
    sync(&mut alice, &mut rex);
    let both = rows(&rex);
    assert!(forget(&mut rex, band));
    assert!(!forget(&mut rex, band), "once");
    assert_eq!(rows(&rex), both / 2);
    assert!(rex.replica.thread(&band).is_none());

    // The one who shares it learns of it, and the other thread lives on in the same session.
    alice.write(band, "four");
    alice.write(choir, "four");
    talk(&mut alice, &mut rex);
    assert_eq!(alice.replica.level(&rex.key, &band), Level::NotShared);
    assert!(level(&alice, &rex, choir));
    assert!(alice.errors.is_empty() && rex.errors.is_empty());
    rex.restart();
    assert_eq!(rex.replica.ids().collect::<Vec<_>>(), [choir]);
}

#[test]
fn what_is_under_way_meanwhile_harms_nobody() {
    let (mut alice, mut rex) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut rex, id, Role::Replicator);
    sync(&mut alice, &mut rex);
    alice.write(id, "one");
    let range = alice.poll(rex.key).unwrap();
    assert!(forget(&mut rex, id));
    rex.receive(alice.key, &range).unwrap();
    talk(&mut alice, &mut rex);
    assert!(alice.errors.is_empty() && rex.errors.is_empty());
    assert_eq!(alice.replica.level(&rex.key, &id), Level::NotShared);
    assert_eq!(rows(&rex), 0);
}

#[test]
fn wish_to_join_is_given_up_too() {
    let (mut alice, mut rex) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut rex, id, Role::Replicator);
    assert!(forget(&mut rex, id));
    assert_eq!(rows(&rex), 0);
    sync(&mut alice, &mut rex);
    assert_eq!(rex.replica.ids().count(), 0);
}

/// The store's numbers are used again, and nothing of the old thread is met.
#[test]
fn thread_that_was_forgotten_may_be_joined_anew() {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write(id, "one");
    sync(&mut alice, &mut bob);
    bob.write(id, "two");
    sync(&mut alice, &mut bob);
    assert!(forget(&mut bob, id));
    bob.read.clear();
    // The seat's keys are gone with the rest: it takes another card.
    alice.seat(&mut bob, id, Role::Writer);
    sync(&mut alice, &mut bob);
    bob.write(id, "three");
    sync(&mut alice, &mut bob);
    assert!(level(&alice, &bob, id));
    assert_eq!(alice.reads(id), bob.reads(id));
    assert_eq!(bob.reads(id).len(), 3);
}

//! Lies about who one is and what a thread began with: they end the session, and cost nothing else.

use leno_threads_core::sync::{Message, SyncError};
use leno_threads_core::{Genesis, Role, SeatId, ServiceKey, ThreadId};

use crate::util::{
    Peer, connect, forget_each_other, level, new_seat, rng, rows, sync, talk, talk_through,
};

fn pair() -> (Peer, Peer, ThreadId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    alice.write(id, "one");
    (alice, bob, id)
}

/// Changes the messages that a test picks.
fn changed(
    bytes: Vec<u8>,
    change: &mut dyn FnMut(Message<'_>) -> Option<Message<'static>>,
) -> Vec<u8> {
    let message = Message::decode(&bytes).unwrap();
    change(message).map_or_else(|| bytes.clone(), |it| it.encode())
}

/// A seat that the peer at the other end does not hold: its own of another thread, that of somebody
/// else, one that is no key, and a proof that was changed on the way.
#[test]
fn seat_that_is_not_proven() {
    let (mut alice, mut bob, id) = pair();
    sync(&mut alice, &mut bob);
    let bobs = bob.thread(id).seat().id();
    let before = (rows(&bob.store), bob.state(id));
    for lie in 0..4 {
        let claimed = match lie {
            0 => new_seat(&mut rng(9)).id(),
            1 => bobs,
            2 => SeatId([0xff; 32]),
            _ => alice.thread(id).seat().id(),
        };
        forget_each_other(&mut alice, &mut bob);
        connect(&mut alice, &mut bob);
        let mut lies = 0;
        talk_through(&mut alice, &mut bob, |bytes| {
            Some(changed(bytes, &mut |message| {
                let Message::Prove {
                    thread,
                    mut signature,
                    ..
                } = message
                else {
                    return None;
                };
                lies += 1;
                signature[63] ^= u8::from(lie == 3);
                Some(Message::Prove {
                    thread,
                    seat: claimed,
                    signature,
                })
            }))
        });
        assert_eq!(lies, 1);
        let errors = std::mem::take(&mut bob.errors);
        assert!(
            matches!(errors[..], [SyncError::NotProven { peer, seat }]
                if peer == alice.key && seat == claimed),
            "{errors:?}"
        );
        assert!(errors[0].ends_session());
        assert!(errors[0].to_string().contains("01010101"));
        assert_eq!(bob.replica.seat_of(&alice.key, &id), None);
        assert_eq!(bob.replica.shared_with(&alice.key).count(), 0);
        assert_eq!((rows(&bob.store), bob.state(id)), before);
        assert!(!level(&bob, &alice, id));
    }
    // The truth is believed.
    alice.write(id, "two");
    sync(&mut alice, &mut bob);
    assert!(bob.replica.shared_with(&alice.key).eq([id]));
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    assert_eq!(bob.reads(id), alice.reads(id));
}

/// A proof is of one session: the same bytes in the next one prove nothing.
#[test]
fn proof_of_another_session() {
    let (mut alice, mut bob, id) = pair();
    let mut proof = None;
    for session in 0..2 {
        forget_each_other(&mut alice, &mut bob);
        connect(&mut alice, &mut bob);
        talk_through(&mut alice, &mut bob, |bytes| {
            if !matches!(Message::decode(&bytes), Ok(Message::Prove { .. })) {
                return Some(bytes);
            }
            Some(proof.get_or_insert(bytes).clone())
        });
        let refused = bob.errors.iter().any(|it| {
            matches!(it, SyncError::NotProven { peer, seat }
                if *peer == alice.key && *seat == alice.thread(id).seat().id())
        });
        assert_eq!(refused, session == 1, "{:?}", bob.errors);
        assert_eq!(bob.errors.len(), session);
    }
}

/// A genesis that is not that of the id in the ticket: changed, of another thread, none at all.
#[test]
fn genesis_of_another_thread() {
    for lie in 0..3 {
        let (mut alice, mut bob, id) = pair();
        let other = alice.create();
        let other = alice.thread(other).genesis().encode();
        let before = rows(&bob.store);
        connect(&mut alice, &mut bob);
        talk_through(&mut alice, &mut bob, |bytes| {
            let Ok(Message::Genesis { thread, genesis }) = Message::decode(&bytes) else {
                return Some(bytes);
            };
            let mut changed = genesis.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            assert!(Genesis::decode(&changed).is_ok());
            let genesis = match lie {
                0 => &changed,
                1 => &other,
                _ => &b"none"[..],
            };
            Some(Message::Genesis { thread, genesis }.encode())
        });
        assert!(
            matches!(bob.errors[..], [SyncError::WrongGenesis { peer }] if peer == alice.key),
            "{:?}",
            bob.errors
        );
        assert!(bob.errors[0].ends_session());
        assert!(bob.errors[0].to_string().contains("01010101"));
        assert!(bob.replica.thread(&id).is_none());
        assert_eq!(rows(&bob.store), before);
        // The seat is not used up by the lie.
        bob.errors.clear();
        sync(&mut alice, &mut bob);
        assert!(bob.errors.is_empty(), "{:?}", bob.errors);
        assert_eq!(bob.reads(id), alice.reads(id));
    }
}

/// A ticket that names bytes which are no genesis: they have the right hash, and make no thread.
#[test]
fn genesis_that_is_none_under_its_own_id() {
    let (mut alice, mut mallory) = (Peer::new(1), Peer::new(9));
    let nonsense = b"\x86\x01 is no genesis";
    let id = ThreadId::of(nonsense);
    for peer in [&mut alice, &mut mallory] {
        let seat = new_seat(&mut peer.rng);
        let service = ServiceKey::from_bytes([5; 32]);
        peer.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
    }
    let before = rows(&alice.store);
    connect(&mut alice, &mut mallory);
    talk(&mut alice, &mut mallory);
    let message = Message::Genesis {
        thread: 0,
        genesis: nonsense,
    };
    assert!(alice.receive(mallory.key, &message.encode()).is_err());
    assert!(
        matches!(alice.errors[..], [SyncError::WrongGenesis { peer }] if peer == mallory.key),
        "{:?}",
        alice.errors
    );
    assert!(alice.replica.thread(&id).is_none());
    assert_eq!(rows(&alice.store), before);
    // It still waits for the right one, over a restart too.
    alice.restart();
    assert!(alice.replica.ids().any(|it| it == id));
    assert!(secrets_of_joining_are_kept(&alice));
}

fn secrets_of_joining_are_kept(peer: &Peer) -> bool {
    use leno_threads_core::store::{Store, Table};
    let view = peer.store.view().unwrap();
    view.get(Table::Threads, &0_u32.to_be_bytes())
        .unwrap()
        .is_some()
}

//! How much of a thread a replicator keeps.

use leno_threads_core::sync::{Level, SyncError};
use leno_threads_core::thread::{Quota, ReceiveError};
use leno_threads_core::{Role, ThreadId};

use crate::util::{Peer, connect, level, sync, talk};

fn pair() -> (Peer, Peer, ThreadId) {
    let (mut alice, mut rex) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut rex, id, Role::Replicator);
    sync(&mut alice, &mut rex);
    (alice, rex, id)
}

fn set(peer: &mut Peer, id: ThreadId, quota: Quota) {
    peer.replica.set_quota(id, Some(quota));
}

fn bytes(peer: &Peer, id: ThreadId) -> u64 {
    peer.thread(id).stored_bytes()
}

/// Writes texts of about 1,000 bytes, a run each.
fn write(alice: &mut Peer, id: ThreadId, many: usize) {
    for number in 0..many {
        alice.write(id, &format!("{number}").repeat(1000));
    }
}

fn over_quota(peer: &Peer) -> usize {
    let is_it = |error: &&SyncError| {
        let SyncError::Range { source, .. } = error else {
            return false;
        };
        matches!(source, ReceiveError::OverQuota { .. })
    };
    assert!(peer.errors.iter().all(|error| is_it(&error)));
    peer.errors.iter().filter(is_it).count()
}

#[test]
fn what_is_kept_is_counted_and_the_count_survives() {
    let (mut alice, mut rex, id) = pair();
    write(&mut alice, id, 9);
    sync(&mut alice, &mut rex);
    let kept = bytes(&rex, id);
    assert!(kept > 9_000, "{kept}");
    assert_eq!(kept, bytes(&alice, id));
    let of_logs: u64 = rex.thread(id).logs().map(|log| log.bytes).sum();
    assert_eq!(kept, of_logs);
    rex.restart();
    assert_eq!(kept, bytes(&rex, id));
    // What is here already counts once.
    sync(&mut alice, &mut rex);
    assert_eq!(kept, bytes(&rex, id));
}

#[test]
fn quota_stops_data_and_the_writer_learns_it() {
    let (mut alice, mut rex, id) = pair();
    let room = bytes(&rex, id) + 5_000;
    let quota = Quota {
        bytes: room,
        ..Quota::default()
    };
    set(&mut rex, id, quota);
    connect(&mut alice, &mut rex);
    for _ in 0..9 {
        write(&mut alice, id, 1);
        talk(&mut alice, &mut rex);
    }
    assert!(bytes(&rex, id) <= room);
    assert!(bytes(&rex, id) > room - 2_000, "most of it is used");
    assert_eq!(over_quota(&rex), 1, "asked for nothing more after that");
    for (a, b) in [(&alice, &rex), (&rex, &alice)] {
        assert_eq!(a.replica.level(&b.key, &id), Level::Behind);
    }
    assert!(alice.replica.lacks_room(&rex.key, &id));

    // Governance still gets in: who pays may be told, and a replicator may be released.
    let mut bob = Peer::new(3);
    let bobs = alice.seat(&mut bob, id, Role::Writer);
    talk(&mut alice, &mut rex);
    assert_eq!(rex.thread(id).governance().role(bobs), Some(Role::Writer));

    // With more room the rest comes, in this session.
    set(&mut rex, id, Quota::default());
    talk(&mut alice, &mut rex);
    assert!(level(&alice, &rex, id));
    assert!(!alice.replica.lacks_room(&rex.key, &id));
    assert_eq!(bytes(&rex, id), bytes(&alice, id));
}

#[test]
fn lowered_quota_drops_nothing_and_holds_for_governance_in_the_end() {
    let (mut alice, mut rex, id) = pair();
    write(&mut alice, id, 4);
    sync(&mut alice, &mut rex);
    let kept = bytes(&rex, id);
    let quota = Quota {
        bytes: kept - 1,
        ..Quota::default()
    };
    set(&mut rex, id, quota);
    for seed in 10..90 {
        alice.seat(&mut Peer::new(seed), id, Role::Reader);
    }
    sync(&mut alice, &mut rex);
    assert!(bytes(&rex, id) > kept);
    assert!(bytes(&rex, id) <= quota.governance_bytes());
    assert_eq!(over_quota(&rex), 1);
}

#[test]
fn number_of_logs_is_bounded() {
    let (mut alice, mut rex, id) = pair();
    let quota = Quota {
        logs: 3,
        ..Quota::default()
    };
    set(&mut rex, id, quota);
    for seed in 10..14 {
        let mut writer = Peer::new(seed);
        alice.seat(&mut writer, id, Role::Writer);
        sync(&mut alice, &mut writer);
        writer.write(id, "mine");
        sync(&mut alice, &mut writer);
    }
    sync(&mut alice, &mut rex);
    let logs = |peer: &Peer| {
        let logs = peer.thread(id).logs().filter(|log| log.tip.seq > 0);
        logs.count()
    };
    assert_eq!(logs(&rex), 3);
    assert!(over_quota(&rex) > 0);
    set(&mut rex, id, Quota::default());
    sync(&mut alice, &mut rex);
    assert_eq!(logs(&rex), logs(&alice));
    assert!(level(&alice, &rex, id));
}

/// The own device writes what it wants; the quota is for what others hand over.
#[test]
fn own_writes_are_never_refused() {
    let (mut alice, _, id) = pair();
    let quota = Quota { bytes: 0, logs: 0 };
    set(&mut alice, id, quota);
    write(&mut alice, id, 3);
    assert!(bytes(&alice, id) > 3_000);
}

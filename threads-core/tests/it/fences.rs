//! Members who are removed, demoted and let in again: what stands of what they wrote, whoever learns of it
//! when, and what they can read. Names of rules are those of `docs/governance.md`.

use leno_threads_core::acl::{ControlRecord, Governance};
use leno_threads_core::store::Store;
use leno_threads_core::thread::{AppendError, Changes, Fenced, Quarantine};
use leno_threads_core::{
    DeviceOp, EpochId, EpochOp, FrameOp, Genesis, KeyRef, LogId, Policy, RecordId, RecordRef,
    RemoveOp, Role, SeatId, Seq, Stamp, Suite, THREAD_DOMAIN, ThreadId,
};

use crate::util::{Peer, grant_op, new_seat, secrets, sync};

/// Olga owns, Ann and Ben administer, Will and Xena write.
struct Band {
    olga: Peer,
    ann: Peer,
    ben: Peer,
    will: Peer,
    xena: Peer,
    id: ThreadId,
}

fn band() -> Band {
    let [mut olga, mut ann, mut ben, mut will, mut xena] = [1, 2, 3, 4, 5].map(Peer::new);
    let id = olga.create();
    olga.seat(&mut ann, id, Role::Admin);
    olga.seat(&mut ben, id, Role::Admin);
    olga.seat(&mut will, id, Role::Writer);
    olga.seat(&mut xena, id, Role::Writer);
    for peer in [&mut ann, &mut ben, &mut will, &mut xena] {
        sync(&mut olga, peer);
    }
    will.write(id, "w1");
    sync(&mut olga, &mut will);
    for peer in [&mut ann, &mut ben, &mut will, &mut xena] {
        sync(&mut olga, peer);
    }
    Band {
        olga,
        ann,
        ben,
        will,
        xena,
        id,
    }
}

impl Band {
    /// Everybody hears everything.
    fn level(&mut self) {
        let Self {
            olga,
            ann,
            ben,
            will,
            xena,
            ..
        } = self;
        for _ in 0..2 {
            for peer in [&mut *ann, &mut *ben, &mut *will, &mut *xena] {
                sync(olga, peer);
            }
        }
    }
}

fn seat_of(peer: &Peer, id: ThreadId) -> SeatId {
    peer.thread(id).seat().id()
}

/// Removes a member, accepts what is here of its logs, and begins epochs.
fn remove(peer: &mut Peer, id: ThreadId, member: SeatId) -> RecordRef {
    let now = peer.time();
    let record = peer.step(|replica, view, rng, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        let accepts = thread.acceptances(view, member).unwrap();
        let remove = FrameOp::Remove(RemoveOp { member, accepts });
        let record = thread.govern_and_rotate(view, &[remove], now, rng, changes);
        replica.touched(id);
        record.unwrap()
    });
    peer.read_again();
    record
}

fn texts(peer: &Peer, id: ThreadId) -> Vec<String> {
    let mut texts: Vec<_> = peer.reads(id).into_iter().map(|it| it.2).collect();
    texts.sort();
    texts
}

fn role(peer: &Peer, id: ThreadId, seat: SeatId) -> Option<Role> {
    peer.thread(id).governance().role(seat)
}

fn beyond(peer: &Peer, id: ThreadId, log: LogId) -> Vec<(Seq, Seq, Quarantine)> {
    let fenced = peer.thread(id).fenced(&log).iter();
    let range = |it: &Fenced| (*it.seqs.start(), *it.seqs.end(), it.reason);
    fenced.map(range).collect()
}

/// What was written before a removal and not accepted by it falls, wherever it was read before; what was
/// accepted stands. An acceptance brings it back.
#[test]
fn removal_fences_what_it_had_not_seen() {
    let mut band = band();
    let id = band.id;
    let (log, will) = (
        band.will.thread(id).own_log().unwrap(),
        seat_of(&band.will, id),
    );
    band.will.write_many(id, ["w2", "w3"]);
    // Xena and Ben hear Will's news, Olga does not.
    sync(&mut band.will, &mut band.xena);
    sync(&mut band.will, &mut band.ben);
    assert_eq!(texts(&band.xena, id), ["w1", "w2", "w3"]);
    remove(&mut band.olga, id, will);
    band.level();
    for peer in [&band.olga, &band.ann, &band.ben, &band.xena] {
        assert_eq!(texts(peer, id), ["w1"]);
        assert_eq!(role(peer, id, will), None);
        assert!(peer.errors.is_empty(), "{:?}", peer.errors);
    }
    // Who has the records sees what they are.
    for peer in [&band.ben, &band.xena] {
        assert_eq!(beyond(peer, id, log), [(2, 3, Quarantine::Fenced)]);
    }
    // As after a restart.
    band.xena.restart();
    assert_eq!(beyond(&band.xena, id, log), [(2, 3, Quarantine::Fenced)]);
    // Ben is outranked by who removed Will, so his word changes nothing; Olga's does.
    let all = band.ben.newest(id, log);
    band.ben.govern(id, &[FrameOp::Accept(vec![all])]);
    sync(&mut band.ben, &mut band.olga);
    sync(&mut band.ben, &mut band.xena);
    assert_eq!(beyond(&band.xena, id, log), [(2, 3, Quarantine::Fenced)]);
    let second = RecordRef {
        seq: 2,
        id: band
            .ben
            .thread(id)
            .branch(&*band.ben.store.view().unwrap(), &log, 2)
            .unwrap()
            .unwrap()
            .headers[0]
            .id(),
        ..all
    };
    band.olga.govern(id, &[FrameOp::Accept(vec![second])]);
    sync(&mut band.olga, &mut band.xena);
    assert_eq!(texts(&band.xena, id), ["w1", "w2"]);
    assert_eq!(beyond(&band.xena, id, log), [(3, 3, Quarantine::Fenced)]);
}

/// Whatever a removed writer cites, nothing changes, and everybody sees the attempt.
#[test]
fn backdating_past_a_fence_changes_nothing() {
    for attack in 0..5 {
        let mut band = band();
        let id = band.id;
        let (log, will) = (
            band.will.thread(id).own_log().unwrap(),
            seat_of(&band.will, id),
        );
        band.olga.write(id, "o1");
        band.level();
        let olgas = band.olga.thread(id).own_log().unwrap();
        let keys = secrets(&band.will, id);
        let tip = band.will.tip(id, log);
        remove(&mut band.olga, id, will);
        band.xena.write(id, "x1");
        for peer in [&mut band.ann, &mut band.ben, &mut band.xena] {
            sync(&mut band.olga, peer);
        }
        let before: Vec<_> = [&band.olga, &band.ann, &band.xena]
            .map(|it| {
                (
                    texts(it, id),
                    it.thread(id).governance().sealing_epoch(THREAD_DOMAIN),
                )
            })
            .into();
        let mut forged = keys.text(Stamp(tip.stamp.0 + 1), "forged");
        match attack {
            // An old stamp, with the frontier that the log had.
            0 => {}
            // Old deps: what others wrote before.
            1 => {
                let newest = band.olga.tip(id, olgas).stamp.max(tip.stamp);
                forged.stamp = Stamp(newest.0 + 1);
                forged.deps = vec![band.xena.newest(id, olgas)];
            }
            // A stamp of now, as if nothing had been heard.
            2 => forged.stamp = forged.stamp.max(Stamp::from_millis(band.olga.now)),
            // An old control frontier, said again.
            3 => forged.control = vec![],
            // Under the newest control frontier that still had him: the epoch is old.
            _ => {
                let control = band.will.control(id, LogId(will.0));
                forged.control = control.into_iter().take(1).collect();
            }
        }
        let (run, _) = keys.craft(id, keys.writer.as_ref().unwrap(), &tip, &[forged]);
        for peer in [&mut band.olga, &mut band.ann, &mut band.xena] {
            peer.take(id, log, &run).unwrap();
            assert_eq!(
                beyond(peer, id, log),
                [(2, 2, Quarantine::Fenced)],
                "{attack}"
            );
        }
        let after: Vec<_> = [&band.olga, &band.ann, &band.xena]
            .map(|it| {
                (
                    texts(it, id),
                    it.thread(id).governance().sealing_epoch(THREAD_DOMAIN),
                )
            })
            .into();
        assert_eq!(before, after, "{attack}");
        // A branch below the fence is proof of itself, and what was accepted stands.
        let below = band.will.thread(id).governance().opening(&log).unwrap().tip;
        let branch = keys.text(Stamp(below.stamp.0 + 1), "branch");
        let (run, _) = keys.craft(id, keys.writer.as_ref().unwrap(), &below, &[branch]);
        let mut late = Peer::new(9);
        band.olga.seat(&mut late, id, Role::Reader);
        sync(&mut band.olga, &mut late);
        drop(late.take(id, log, &run));
        assert_eq!(texts(&late, id), before[0].0);
    }
}

/// What is written after a removal, the removed cannot read; not even if it had no rotation of its own.
#[test]
fn removed_readers_hold_no_key_of_what_comes_after() {
    for rotates in [true, false] {
        let mut band = band();
        let id = band.id;
        let will = seat_of(&band.will, id);
        let old = band
            .olga
            .thread(id)
            .governance()
            .sealing_epoch(THREAD_DOMAIN);
        match rotates {
            true => {
                remove(&mut band.olga, id, will);
            }
            false => {
                let member = will;
                let accepts = Vec::new();
                band.olga
                    .govern(id, &[FrameOp::Remove(RemoveOp { member, accepts })]);
            }
        }
        let governance = band.olga.thread(id).governance();
        let safe = governance.is_safe(THREAD_DOMAIN, &old.unwrap(), None);
        assert!(!safe);
        sync(&mut band.olga, &mut band.xena);
        band.xena.write(id, "secret");
        let log = band.xena.thread(id).own_log().unwrap();
        let key = band.xena.tip(id, log).key.unwrap();
        let KeyRef::Data { epoch, .. } = key else {
            unreachable!()
        };
        assert_ne!(Some(epoch), old);
        band.level();
        assert!(!band.will.thread(id).holds_key(&epoch), "{rotates}");
        for peer in [&band.olga, &band.ann, &band.ben, &band.xena] {
            assert!(peer.thread(id).holds_key(&epoch));
            assert!(texts(peer, id).contains(&"secret".to_owned()));
        }
        assert!(band.olga.errors.is_empty(), "{:?}", band.olga.errors);
    }
}

/// Two removals that know nothing of each other leave no safe epoch; one is begun that follows both.
#[test]
fn concurrent_removals_are_followed_by_one_epoch() {
    let mut band = band();
    let id = band.id;
    let (will, xena) = (seat_of(&band.will, id), seat_of(&band.xena, id));
    remove(&mut band.ann, id, will);
    remove(&mut band.ben, id, xena);
    let tips: Vec<_> = [&band.ann, &band.ben]
        .map(|it| {
            it.thread(id)
                .governance()
                .sealing_epoch(THREAD_DOMAIN)
                .unwrap()
        })
        .into();
    band.level();
    assert_eq!(
        band.olga
            .thread(id)
            .governance()
            .sealing_epoch(THREAD_DOMAIN),
        None
    );
    band.olga.write(id, "for those who are left");
    let epoch = band
        .olga
        .thread(id)
        .governance()
        .sealing_epoch(THREAD_DOMAIN)
        .unwrap();
    let mut parents = tips;
    parents.sort();
    let governance = band.olga.thread(id).governance();
    let begun = &governance.epoch_in(THREAD_DOMAIN, &epoch).unwrap().parents;
    let followed: Vec<_> = begun.iter().map(|it| it.epoch).collect();
    assert_eq!(followed, parents);
    assert!(begun.iter().all(|it| it.link.is_some()));
    band.level();
    for (peer, reads) in [
        (&band.ann, true),
        (&band.ben, true),
        (&band.will, false),
        (&band.xena, false),
    ] {
        assert_eq!(peer.thread(id).holds_key(&epoch), reads);
    }
}

/// A record sealed for somebody whom its author knew to be removed is put aside on every peer.
#[test]
fn accomplice_who_seals_for_the_removed_is_put_aside() {
    let mut band = band();
    let id = band.id;
    let will = seat_of(&band.will, id);
    band.xena.write(id, "x1");
    sync(&mut band.olga, &mut band.xena);
    let keys = secrets(&band.xena, id);
    let log = band.xena.thread(id).own_log().unwrap();
    let removal = remove(&mut band.olga, id, will);
    sync(&mut band.olga, &mut band.xena);
    let tip = band.xena.tip(id, log);
    let mut leak = keys.text(Stamp(tip.stamp.0 + 1_000_000), "for will");
    leak.control = vec![removal];
    let mut stale = keys.text(Stamp(tip.stamp.0 + 1), "had not heard");
    stale.control = Vec::new();
    let (run, _) = keys.craft(id, keys.writer.as_ref().unwrap(), &tip, &[stale, leak]);
    for peer in [&mut band.olga, &mut band.ann] {
        sync(&mut band.xena, peer);
        peer.take(id, log, &run).unwrap();
        let view = peer.store.view().unwrap();
        let aside = peer.thread(id).quarantined(&*view).unwrap();
        let aside: Vec<_> = aside.iter().map(|(it, reason)| (it.seq, *reason)).collect();
        assert_eq!(aside, [(3, Quarantine::Leaky)]);
        assert_eq!(texts(peer, id), ["had not heard", "w1", "x1"]);
    }
    // Nor does it matter who met it beyond a fence first: Ben hears of Xena's removal before her records.
    let first = band
        .olga
        .thread(id)
        .branch(&*band.olga.store.view().unwrap(), &log, 1);
    let first = RecordRef {
        log,
        seq: 1,
        id: first.unwrap().unwrap().headers[0].id(),
    };
    let remove = FrameOp::Remove(RemoveOp {
        member: seat_of(&band.xena, id),
        accepts: vec![first],
    });
    band.olga.govern(id, &[remove]);
    sync(&mut band.olga, &mut band.ben);
    for peer in [&band.olga, &band.ben] {
        assert_eq!(beyond(peer, id, log), [(2, 3, Quarantine::Fenced)]);
        assert_eq!(texts(peer, id), ["w1", "x1"]);
        let view = peer.store.view().unwrap();
        assert_eq!(peer.thread(id).put_aside(&*view).unwrap().len(), 2);
    }
    let all = band.olga.newest(id, log);
    band.olga.govern(id, &[FrameOp::Accept(vec![all])]);
    sync(&mut band.olga, &mut band.ben);
    for peer in [&band.olga, &band.ben] {
        assert_eq!(beyond(peer, id, log), []);
        assert_eq!(texts(peer, id), ["had not heard", "w1", "x1"]);
    }
}

/// Who is let in again goes on, and old devices stay out.
#[test]
fn readded_member_goes_on_and_old_devices_stay_out() {
    let mut band = band();
    let id = band.id;
    let (old, will) = (
        band.will.thread(id).own_log().unwrap(),
        seat_of(&band.will, id),
    );
    let phone = new_seat(&mut band.will.rng);
    let (phone_seat, kem) = (phone.id(), phone.kem.public_key().to_bytes());
    let device = DeviceOp::sign(&phone.signing, id, will, kem);
    band.will.govern(id, &[FrameOp::Device(device)]);
    band.level();
    assert_eq!(role(&band.ann, id, phone_seat), Some(Role::Writer));
    remove(&mut band.ann, id, will);
    band.level();
    assert_eq!(role(&band.ben, id, phone_seat), None);
    let refused = band.will.step(|replica, view, rng, _| {
        let thread = replica.thread_mut(&id).unwrap();
        let mut nothing = Changes::new();
        thread.append(
            view,
            THREAD_DOMAIN,
            &[0x61, b'x'],
            crate::util::NOW,
            rng,
            &mut nothing,
        )
    });
    assert!(
        matches!(refused, Err(AppendError::NotWriter)),
        "{refused:?}"
    );
    let kem = band.will.thread(id).seat().kem.public_key().to_bytes();
    band.ann
        .govern(id, &[FrameOp::Grant(grant_op(will, kem, Role::Writer))]);
    band.level();
    assert_eq!(role(&band.will, id, will), Some(Role::Writer));
    assert_eq!(role(&band.ben, id, phone_seat), None);
    band.will.write(id, "again");
    // Nothing of his old log was fenced, so it goes on.
    assert_eq!(band.will.thread(id).own_log(), Some(old));
    band.level();
    for peer in [&band.olga, &band.ben, &band.xena] {
        assert_eq!(texts(peer, id), ["again", "w1"]);
    }
}

/// A demoted writer's records stand as far as they were accepted, and his reading goes on.
#[test]
fn demotion_fences_writing_alone() {
    let mut band = band();
    let id = band.id;
    let will = seat_of(&band.will, id);
    band.will.write(id, "w2");
    let kem = band.will.thread(id).seat().kem.public_key().to_bytes();
    let now = band.ann.time();
    band.ann.step(|replica, view, rng, changes| {
        let thread = replica.thread_mut(&id).unwrap();
        let mut op = grant_op(will, kem, Role::Reader);
        op.accepts = thread.acceptances(view, will).unwrap();
        let grant = [FrameOp::Grant(op)];
        thread.govern(view, &grant, &[], now, rng, changes).unwrap();
        replica.touched(id);
    });
    band.level();
    band.xena.write(id, "x1");
    band.level();
    for peer in [&band.olga, &band.ann, &band.ben, &band.will, &band.xena] {
        assert_eq!(texts(peer, id), ["w1", "x1"]);
        assert_eq!(role(peer, id, will), Some(Role::Reader));
    }
    let epochs: Vec<EpochId> = band
        .olga
        .thread(id)
        .governance()
        .epochs()
        .map(|it| it.epoch)
        .collect();
    assert_eq!(epochs.len(), 2, "who still reads costs no rotation");
}

/// Who leaves ends his rights himself; the only owner does not.
#[test]
fn leaving_is_for_all_but_the_last_owner() {
    let mut band = band();
    let id = band.id;
    let (will, olga) = (seat_of(&band.will, id), seat_of(&band.olga, id));
    band.will.govern(id, &[FrameOp::Leave]);
    band.level();
    band.olga.govern(id, &[FrameOp::Leave]);
    band.level();
    for peer in [&band.olga, &band.ann, &band.ben, &band.xena] {
        assert_eq!(role(peer, id, will), None);
        assert_eq!(role(peer, id, olga), Some(Role::Owner));
        assert_eq!(texts(peer, id), ["w1"]);
    }
    // She goes on, and leaves once there is another owner.
    let kem = band.ann.thread(id).seat().kem.public_key().to_bytes();
    let ann = seat_of(&band.ann, id);
    band.olga
        .govern(id, &[FrameOp::Grant(grant_op(ann, kem, Role::Owner))]);
    band.level();
    for peer in [&band.ben, &band.xena] {
        assert_eq!(role(peer, id, ann), Some(Role::Owner));
        assert_eq!(role(peer, id, olga), None);
    }
}

/// Nobody accepts control records that he has not seen, so nobody's later ones are accepted in advance; and
/// devices add no devices.
#[test]
fn acceptance_in_advance_and_devices_of_devices_count_for_nothing() {
    let mut band = band();
    let id = band.id;
    let ben = seat_of(&band.ben, id);
    let invented = RecordRef {
        log: LogId(ben.0),
        seq: 1_000,
        id: leno_threads_core::RecordId([7; 32]),
    };
    band.olga.govern(id, &[FrameOp::Accept(vec![invented])]);
    remove(&mut band.olga, id, ben);
    // Ben has not heard of it.
    let zoe = new_seat(&mut band.ben.rng);
    let (zoe_seat, kem) = (zoe.id(), zoe.kem.public_key().to_bytes());
    band.ben
        .govern(id, &[FrameOp::Grant(grant_op(zoe_seat, kem, Role::Writer))]);
    let log = LogId(ben.0);
    let runs = band.ben.runs(id).into_iter().filter(|it| it.0 == log);
    for (log, run) in runs.collect::<Vec<_>>() {
        band.olga.take(id, log, &run).unwrap();
    }
    assert_eq!(role(&band.olga, id, zoe_seat), None);

    let (will, phone) = (seat_of(&band.will, id), new_seat(&mut band.will.rng));
    let kem = phone.kem.public_key().to_bytes();
    let device = DeviceOp::sign(&phone.signing, id, will, kem);
    let record = band.will.govern(id, &[FrameOp::Device(device)]);
    sync(&mut band.will, &mut band.olga);
    assert_eq!(role(&band.olga, id, phone.id()), Some(Role::Writer));
    let watch = new_seat(&mut band.will.rng);
    let kem = watch.kem.public_key().to_bytes();
    let device = DeviceOp::sign(&watch.signing, id, will, kem);
    let keys = secrets(&band.will, id);
    let phones = phone.id().control_log();
    let tip = band.olga.tip(id, phones);
    let mut by_phone = keys.frame(Stamp(tip.stamp.0 + 1), &[FrameOp::Device(device)]);
    by_phone.control = vec![record];
    let (run, _) = keys.craft(id, &phone.signing, &tip, &[by_phone]);
    band.olga.take(id, phones, &run).unwrap();
    assert_eq!(role(&band.olga, id, watch.id()), None);
}

/// What somebody accepts whom he cannot have heard of changes nothing, whichever of the two comes first.
#[test]
fn acceptance_of_what_was_not_seen_makes_no_epoch_unsafe() {
    let genesis = Genesis {
        owner: SeatId([1; 32]),
        owner_kem: [1; 32],
        suite: Suite::Aes256Gcm,
        policy: Policy::Standard,
        nonce: [0; 16],
    };
    let (olga, ann, will) = (genesis.owner, SeatId([2; 32]), SeatId([3; 32]));
    let record = |seat: SeatId, seq: Seq, past: &[(SeatId, Seq)], ops| ControlRecord {
        place: RecordRef {
            log: seat.control_log(),
            seq,
            id: RecordId([seat.0[0] * 16 + seq as u8; 32]),
        },
        stamp: Stamp(1_000 + seq),
        past: past
            .iter()
            .map(|(seat, seq)| (seat.control_log(), *seq))
            .collect(),
        ops,
    };
    let admin = FrameOp::Grant(grant_op(ann, [2; 32], Role::Admin));
    let reader = FrameOp::Grant(grant_op(will, [3; 32], Role::Reader));
    let grants = record(olga, 1, &[], vec![admin, reader]);
    let remove = FrameOp::Remove(RemoveOp {
        member: will,
        accepts: Vec::new(),
    });
    let epoch = FrameOp::Epoch(EpochOp {
        domain: THREAD_DOMAIN,
        epoch: EpochId([7; 32]),
        parents: Vec::new(),
    });
    let removal = record(olga, 2, &[(olga, 1)], vec![remove, epoch]);
    let accept = FrameOp::Accept(vec![removal.place]);
    let accept = record(ann, 1, &[(olga, 1)], vec![accept]);
    for order in [[&removal, &accept], [&accept, &removal]] {
        let mut governance = Governance::new(&genesis);
        governance.admit(&grants);
        for record in order {
            governance.admit(record);
        }
        assert_eq!(governance.role(will), None);
        let sealing = governance.sealing_epoch(THREAD_DOMAIN);
        assert_eq!(sealing, Some(EpochId([7; 32])));
    }
}

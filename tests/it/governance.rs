//! Roles, removal, leaving and readmission, as an application sees them.

use leno::governance::{FrameOp, Quarantine, Verdict};
use leno::store::MemoryStore;
use leno::{Change, Error, Role};

use crate::support::{Pair, connect, id, join, level, run, song};

/// Who is removed while he writes offline: what was there stands, the rest is told and may be readmitted, and
/// watchers of documents see both.
#[test]
fn removal_takes_back_what_came_too_late() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Writer).await;
        let carol = world.fresh().await;
        let carols = join(&pair.alices, &carol, Role::Reader).await;
        connect(&carol, &pair.alice).await;
        level(&carol).await;
        let (alices, bobs) = pair.songs();
        bobs.put(&id("blue"), &song("Blue")).await.unwrap();
        pair.converge().await;
        let bob = seat(&pair.bobs).await;

        // Carol hears what Bob writes then, Alice does not.
        pair.bob.pause().await.unwrap();
        bobs.put(&id("blue"), &song("Red")).await.unwrap();
        bobs.put(&id("green"), &song("Green")).await.unwrap();
        carol.pause().await.unwrap();
        pair.bob.resume().await.unwrap();
        carol.resume().await.unwrap();
        world.network.partition(pair.alice.id(), pair.bob.id());
        world.network.partition(pair.alice.id(), carol.id());
        connect(&carol, &pair.bob).await;
        carol.sync_once(crate::support::DEADLINE).await.unwrap();
        let shown = carols.collection::<crate::support::Song>("songs");
        assert_eq!(shown.get(&id("blue")).await.unwrap(), Some(song("Red")));
        assert_eq!(alices.get(&id("blue")).await.unwrap(), Some(song("Blue")));

        let mut watch = shown.watch().await.unwrap();
        pair.alices.remove(bob).await.unwrap();
        assert_eq!(pair.alices.member(bob).await.unwrap(), None);
        world.network.heal(pair.alice.id(), carol.id());
        connect(&carol, &pair.alice).await;
        carol.sync_once(crate::support::DEADLINE).await.unwrap();
        assert_eq!(shown.get(&id("blue")).await.unwrap(), Some(song("Blue")));
        assert_eq!(shown.get(&id("green")).await.unwrap(), None);
        let mut changes = Vec::new();
        while changes.len() < 2 {
            match watch.next().await.unwrap().unwrap() {
                Change::Put { id, .. } => changes.push((id, true)),
                Change::Deleted { id, .. } => changes.push((id, false)),
                other => panic!("{other:?}"),
            }
        }
        changes.sort();
        assert_eq!(changes, [(id("blue"), true), (id("green"), false)]);
        let hash = carols.state_hash().await.unwrap();
        assert_eq!(hash, pair.alices.state_hash().await.unwrap());

        let aside = carols.quarantined().await.unwrap();
        assert_eq!(aside.len(), 2);
        assert!(aside.iter().all(|it| it.1 == Quarantine::Fenced));
        assert_eq!(carols.status().await.unwrap().quarantined, 2);
        let newest = aside.iter().max_by_key(|it| it.0.seq).unwrap().0;
        assert!(matches!(
            carols.readmit(newest).await,
            Err(Error::MayNotGrant)
        ));
        pair.alices.readmit(newest).await.unwrap();
        level(&carol).await;
        assert_eq!(shown.get(&id("green")).await.unwrap(), Some(song("Green")));
        assert_eq!(carols.quarantined().await.unwrap(), []);
        assert_eq!(
            carols.state_hash().await.unwrap(),
            pair.alices.state_hash().await.unwrap()
        );
        let ops = carols.audit().await.unwrap();
        assert!(
            ops.iter().all(|it| it.verdict == Verdict::Stands),
            "{ops:?}"
        );
    });
}

async fn seat(thread: &leno::Thread) -> leno::SeatId {
    let members = thread.members().await.unwrap();
    members.iter().find(|it| it.is_self).unwrap().seat
}

/// What is above one's role is refused before anything is written.
#[test]
fn what_is_above_a_role_is_refused() {
    run(async |world| {
        let pair = Pair::new(&world, Role::Admin).await;
        let [carol_peer, dave_peer] = [world.fresh().await, world.fresh().await];
        let carols = join(&pair.alices, &carol_peer, Role::Writer).await;
        let daves = join(&pair.alices, &dave_peer, Role::Admin).await;
        for peer in [&carol_peer, &dave_peer] {
            connect(peer, &pair.alice).await;
            level(peer).await;
        }
        level(&pair.bob).await;
        let alice = seat(&pair.alices).await;
        let (bob, carol, dave) = (
            seat(&pair.bobs).await,
            seat(&carols).await,
            seat(&daves).await,
        );
        let before = pair.bobs.audit().await.unwrap().len();
        for member in [alice, dave] {
            let refused = pair.bobs.remove(member).await;
            assert!(matches!(refused, Err(Error::Outranked(it)) if it == member));
            let refused = pair.bobs.set_role(member, Role::Reader).await;
            assert!(matches!(refused, Err(Error::Outranked(it)) if it == member));
        }
        let refused = pair.bobs.set_role(carol, Role::Admin).await;
        assert!(matches!(refused, Err(Error::MayNotGrant)));
        let refused = carols.remove(bob).await;
        assert!(matches!(refused, Err(Error::MayNotGrant)));
        let refused = carols.set_role(carol, Role::Owner).await;
        assert!(matches!(refused, Err(Error::MayNotGrant)));
        let refused = pair.alices.leave().await;
        assert!(matches!(refused, Err(Error::LastOwner)));
        let nobody = leno::SeatId([9; 32]);
        let refused = pair.alices.remove(nobody).await;
        assert!(matches!(refused, Err(Error::NoSuchMember(it)) if it == nobody));
        assert_eq!(pair.bobs.audit().await.unwrap().len(), before);

        // What is within it is done.
        pair.bobs.set_role(carol, Role::Reader).await.unwrap();
        level(&pair.bob).await;
        level(&carol_peer).await;
        let refused = carols.rotate().await;
        assert!(matches!(refused, Err(Error::MayNotGrant)), "{refused:?}");
        // Whom an owner removed, an admin does not let in again.
        let card = world.fresh().await.card("Erin").await.unwrap();
        pair.alices.grant(&card, Role::Writer).await.unwrap();
        pair.alices.remove(card.seat()).await.unwrap();
        level(&pair.bob).await;
        let refused = pair.bobs.grant(&card, Role::Reader).await;
        assert!(matches!(refused, Err(Error::Outranked(it)) if it == card.seat()));
        pair.alices.set_role(dave, Role::Owner).await.unwrap();
        pair.alices.leave().await.unwrap();
        level(&pair.bob).await;
        assert_eq!(pair.bobs.member(alice).await.unwrap(), None);
        let role = pair.bobs.member(dave).await.unwrap().map(|it| it.role);
        assert_eq!(role, Some(Role::Owner));
        assert!(pair.alices.status().await.unwrap().removed);
    });
}

/// What was taken back stays so through a restart, and a rotation shuts nobody out.
#[test]
fn restart_and_rotation_change_nothing() {
    run(async |world| {
        let store = MemoryStore::new();
        let running = world.online(store.clone()).await;
        let bob = world.fresh().await;
        let pair = Pair::of(running.peer, bob, Role::Writer).await;
        let (_, bobs) = pair.songs();
        bobs.put(&id("blue"), &song("Blue")).await.unwrap();
        pair.converge().await;
        pair.alices.rotate().await.unwrap();
        bobs.put(&id("red"), &song("Red")).await.unwrap();
        pair.converge().await;
        let member = seat(&pair.bobs).await;
        pair.alices.set_role(member, Role::Reader).await.unwrap();
        level(&pair.bob).await;
        let refused = bobs.put(&id("green"), &song("Green")).await;
        assert!(matches!(refused, Err(Error::Append(_))), "{refused:?}");
        pair.converge().await;
        let hash = pair.alices.state_hash().await.unwrap();
        pair.alice.close().await.unwrap();
        running.ended.await.unwrap().unwrap();
        let again = world.online(store).await.peer;
        let thread = again.thread(pair.alices.id()).await.unwrap();
        assert_eq!(thread.state_hash().await.unwrap(), hash);
        let role = thread.member(member).await.unwrap().map(|it| it.role);
        assert_eq!(role, Some(Role::Reader));
    });
}

/// To grant a member another role takes the place of the old one, and what was written stands.
#[test]
fn another_grant_takes_the_place_and_puts_nothing_aside() {
    run(async |world| {
        let [alice, bob] = [world.fresh().await, world.fresh().await];
        let alices = alice.create_thread("band").await.unwrap();
        let card = bob.card("Bob").await.unwrap();
        let ticket = alices.grant(&card, Role::Writer).await.unwrap();
        let bobs = bob.join(&ticket).await.unwrap();
        connect(&bob, &alice).await;
        level(&bob).await;
        let songs = bobs.collection("songs");
        songs.put(&id("blue"), &song("Blue")).await.unwrap();
        level(&bob).await;
        alices.grant(&card, Role::Reader).await.unwrap();
        level(&bob).await;
        for thread in [&alices, &bobs] {
            let shown = thread.collection::<crate::support::Song>("songs");
            assert_eq!(shown.get(&id("blue")).await.unwrap(), Some(song("Blue")));
            let role = thread.member(card.seat()).await.unwrap();
            assert_eq!(role.map(|it| it.role), Some(Role::Reader));
            assert_eq!(thread.quarantined().await.unwrap(), []);
        }
    });
}

/// A removal that fell and is accepted later makes leaky what was written meanwhile, on every peer alike: also
/// where it was read, and where it comes late.
#[test]
fn accepted_removal_takes_back_what_was_sealed_for_the_removed() {
    run(async |world| {
        let [alice, ben, will, xena, late] = [
            world.fresh().await,
            world.fresh().await,
            world.fresh().await,
            world.fresh().await,
            world.fresh().await,
        ];
        let alices = alice.create_thread("band").await.unwrap();
        let bens = join(&alices, &ben, Role::Admin).await;
        let wills = join(&alices, &will, Role::Writer).await;
        let xenas = join(&alices, &xena, Role::Writer).await;
        for peer in [&ben, &will, &xena] {
            connect(peer, &alice).await;
            level(peer).await;
        }
        level(&ben).await;
        level(&xena).await;
        // Ben removes Will, Alice removes Ben, and neither knows of the other. Xena hears of both, Ben's first.
        world.network.partition(alice.id(), ben.id());
        world.network.partition(alice.id(), xena.id());
        bens.remove(seat(&wills).await).await.unwrap();
        alices.remove(seat(&bens).await).await.unwrap();
        connect(&xena, &ben).await;
        xena.sync_once(crate::support::DEADLINE).await.unwrap();
        let will = seat(&wills).await;
        assert_eq!(xenas.member(will).await.unwrap(), None);
        world.network.heal(alice.id(), xena.id());
        connect(&xena, &alice).await;
        xena.sync_once(crate::support::DEADLINE).await.unwrap();
        let role = xenas.member(will).await.unwrap().map(|it| it.role);
        assert_eq!(role, Some(Role::Writer), "Ben's removal fell");
        let songs = xenas.collection("songs");
        songs.put(&id("blue"), &song("Blue")).await.unwrap();
        xena.sync_once(crate::support::DEADLINE).await.unwrap();
        let shown = alices.collection::<crate::support::Song>("songs");
        assert_eq!(shown.get(&id("blue")).await.unwrap(), Some(song("Blue")));

        // Alice takes Ben's word after all.
        let ops = alices.audit().await.unwrap();
        let mut fell = ops.iter().filter(|it| it.verdict == Verdict::Fell);
        let removal = fell.find(|it| matches!(it.op, FrameOp::Remove(_))).unwrap();
        alices.readmit(removal.record).await.unwrap();
        xena.sync_once(crate::support::DEADLINE).await.unwrap();
        let lates = join(&alices, &late, Role::Reader).await;
        connect(&late, &alice).await;
        level(&late).await;
        let hash = alices.state_hash().await.unwrap();
        for thread in [&alices, &xenas, &lates] {
            assert_eq!(thread.member(will).await.unwrap(), None);
            let shown = thread.collection::<crate::support::Song>("songs");
            assert_eq!(shown.get(&id("blue")).await.unwrap(), None);
            let aside = thread.quarantined().await.unwrap();
            assert!(
                aside.iter().any(|it| it.1 == Quarantine::Leaky),
                "{aside:?}"
            );
            assert_eq!(thread.state_hash().await.unwrap(), hash);
        }
    });
}

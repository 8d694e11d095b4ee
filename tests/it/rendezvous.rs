//! Members who know only a replicator find each other through it.

use leno::store::MemoryStore;
use leno::{Peer, Role, Thread};

use crate::support::{Song, World, connect, id, level, run, song};

/// Alice and Bob, readers of a thread who do not know each other's addresses, and Carol, who carries it.
struct Trio {
    alice: Peer,
    bob: Peer,
    carol: Peer,
    alices: Thread,
    bobs: Thread,
}

impl Trio {
    /// Everything is granted before anybody has an address, so that no ticket names one.
    async fn new(world: &World, alice_shares: bool, bob_shares: bool) -> Self {
        let stores = [(); 3].map(|()| MemoryStore::new());
        let shares = [alice_shares, bob_shares, true];
        let [alice, bob, carol] = [
            world.offline(stores[0].clone()).await.peer,
            world.offline(stores[1].clone()).await.peer,
            world.offline(stores[2].clone()).await.peer,
        ];
        let band = alice.create_thread("band").await.unwrap();
        for (peer, role) in [(&bob, Role::Writer), (&carol, Role::Replicator)] {
            let ticket = band
                .grant(&peer.card("").await.unwrap(), role)
                .await
                .unwrap();
            assert!(ticket.addresses().is_empty());
            peer.join(&ticket).await.unwrap();
        }
        let mut peers = Vec::new();
        for (peer, (store, shares)) in [alice, bob, carol]
            .iter()
            .zip(stores.into_iter().zip(shares))
        {
            peer.close().await.unwrap();
            let builder = world.networked(store).await.share_addresses(shares);
            peers.push(world.start(builder).await.unwrap().peer);
        }
        let [alice, bob, carol]: [Peer; 3] = peers.try_into().unwrap();
        for peer in [&alice, &bob] {
            connect(peer, &carol).await;
            level(peer).await;
        }
        let alices = alice.thread(band.id()).await.unwrap();
        let bobs = bob.thread(band.id()).await.unwrap();
        level(&carol).await;
        level(&bob).await;
        Self {
            alice,
            bob,
            carol,
            alices,
            bobs,
        }
    }

    /// Lets time pass; tells whether Alice and Bob have a link of their own in the end.
    async fn meet(&self, world: &World) -> bool {
        for _ in 0..100 {
            world.clock.advance(1_000);
            for peer in [&self.alice, &self.bob, &self.carol] {
                peer.traffic().await.unwrap();
            }
            if self.alices.is_level_with(self.bob.id()).await.unwrap() {
                return true;
            }
        }
        false
    }
}

#[test]
fn members_who_know_a_replicator_find_each_other_and_go_on_without_it() {
    run(async |world| {
        let trio = Trio::new(&world, true, true).await;
        let mut signals = trio.bobs.signals().await.unwrap();
        assert!(trio.meet(&world).await);
        trio.carol.close().await.unwrap();
        let title = song("a song");
        let songs = trio.alices.collection::<Song>("songs");
        songs.put(&id("a"), &title).await.unwrap();
        level(&trio.alice).await;
        let theirs = trio.bobs.collection::<Song>("songs");
        assert_eq!(theirs.get(&id("a")).await.unwrap(), Some(title));
        let told = futures_util::FutureExt::now_or_never(signals.next());
        assert!(told.is_none(), "an application sees none of it");
    });
}

#[test]
fn link_that_was_lost_is_found_again() {
    run(async |world| {
        let trio = Trio::new(&world, true, true).await;
        assert!(trio.meet(&world).await);
        world.network.partition(trio.alice.id(), trio.bob.id());
        for _ in 0..200 {
            world.clock.advance(1_000);
            trio.bob.traffic().await.unwrap();
        }
        assert!(!trio.alices.is_level_with(trio.bob.id()).await.unwrap());
        world.network.heal(trio.alice.id(), trio.bob.id());
        let mut is_found = false;
        for _ in 0..10 {
            is_found = is_found || trio.meet(&world).await;
        }
        assert!(is_found);
    });
}

#[test]
fn nobody_is_found_who_does_not_say_so() {
    run(async |world| {
        for (alice_shares, bob_shares) in [(false, false), (true, false), (false, true)] {
            let trio = Trio::new(&world, alice_shares, bob_shares).await;
            assert!(!trio.meet(&world).await);
        }
    });
}

//! Strangers who hold connections do not keep members out.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use leno::store::MemoryStore;
use leno::transport::memory::MemoryTransport;
use leno::transport::{Event as NetEvent, Transport};
use leno::{Event, Peer, PeerId, Role};

use crate::support::{World, connect, id, join, level, run, song};

/// Who is kept for long, of those who came by themselves and proved nothing.
const STRANGERS: usize = 64;

/// Who is kept at all, of them.
const STRANGERS_AND_NEWCOMERS: usize = 256;

/// Devices that say nothing.
fn devices(world: &World, numbers: std::ops::Range<u16>) -> Vec<MemoryTransport> {
    let device = |number: u16| {
        let mut key = [0xee; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        world.network.endpoint(PeerId(key))
    };
    numbers.map(device).collect()
}

async fn dial(strangers: &[MemoryTransport], peer: &Peer) {
    let address = peer.addresses().remove(0);
    for stranger in strangers {
        stranger.dial(&address).await.unwrap();
    }
    // A step takes in some of them, and each of these is one.
    for _ in strangers {
        peer.traffic().await.unwrap();
    }
}

/// Those whose link the other side ended.
fn hung_up(strangers: &[MemoryTransport]) -> BTreeSet<usize> {
    let is_over = |stranger: &MemoryTransport| {
        std::iter::from_fn(|| stranger.next().now_or_never().flatten())
            .any(|it| matches!(it, NetEvent::Disconnected { .. }))
    };
    let all = strangers.iter().enumerate();
    all.filter(|(_, it)| is_over(it))
        .map(|(at, _)| at)
        .collect()
}

async fn links(peer: &Peer) -> usize {
    let report = peer.sync_once(std::time::Duration::ZERO).await.unwrap();
    report.level.len() + report.behind.len()
}

#[test]
fn strangers_are_bounded_and_members_get_in_and_stay() {
    run(async |world| {
        let hub = world.fresh().await;
        let band = hub.create_thread("band").await.unwrap();
        let early = world.fresh().await;
        join(&band, &early, Role::Writer).await;
        level(&early).await;
        let mut events = hub.events().await.unwrap();

        let strangers = devices(&world, 0..512);
        dial(&strangers, &hub).await;
        assert!(links(&hub).await <= STRANGERS_AND_NEWCOMERS + 1);
        let gone = hung_up(&strangers);
        assert!(gone.contains(&0), "the oldest went: {gone:?}");
        assert!(!gone.contains(&511), "the newest has its time");

        // A member comes in the middle of it, and a newcomer with a ticket.
        let member = world.fresh().await;
        let members = join(&band, &member, Role::Writer).await;
        level(&member).await;
        members
            .collection("songs")
            .put(&id("a"), &song("one"))
            .await
            .unwrap();
        level(&member).await;

        world.clock.advance(31_000);
        hub.traffic().await.unwrap();
        assert_eq!(links(&hub).await, STRANGERS + 2);
        assert!(
            !hung_up(&strangers[448..]).contains(&63),
            "the newest ones stay"
        );
        let theirs = band.collection::<crate::support::Song>("songs");
        assert_eq!(theirs.get(&id("a")).await.unwrap(), Some(song("one")));
        let mut ended = 0;
        while let Some(event) = events.next().now_or_never().flatten() {
            if let Event::Disconnected { peer, .. } = event {
                assert!(peer != early.id() && peer != member.id());
                ended += 1;
            }
        }
        assert_eq!(ended, 512 - STRANGERS, "each was told of once");
    });
}

#[test]
fn whom_this_peer_dialled_is_no_stranger() {
    run(async |world| {
        let hub = world.fresh().await;
        let dialled = devices(&world, 0..300);
        for device in &dialled {
            hub.connect(&device.addresses().remove(0)).await.unwrap();
        }
        world.clock.advance(31_000);
        let strangers = devices(&world, 300..400);
        dial(&strangers, &hub).await;
        // One is dialled after it came.
        let first = strangers.first().unwrap();
        hub.connect(&first.addresses().remove(0)).await.unwrap();
        world.clock.advance(31_000);
        hub.traffic().await.unwrap();
        assert!(hung_up(&dialled).is_empty());
        assert_eq!(hung_up(&strangers), (1..36).collect());
        assert_eq!(links(&hub).await, 301 + STRANGERS);
    });
}

/// Nobody has to prove anything as long as there is room.
#[test]
fn few_strangers_stay() {
    run(async |world| {
        let (hub, other) = (
            world.fresh().await,
            world.online(MemoryStore::new()).await.peer,
        );
        connect(&other, &hub).await;
        let few = devices(&world, 0..63);
        dial(&few, &hub).await;
        world.clock.advance(3_600_000);
        hub.traffic().await.unwrap();
        assert_eq!((links(&hub).await, hung_up(&few).len()), (64, 0));
    });
}

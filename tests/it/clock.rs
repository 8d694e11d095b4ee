//! A peer whose clock is not set.

use leno::store::MemoryStore;
use leno::{ManualClock, Role};

use crate::support::{NOW_MILLIS, Pair, id, level, run, song};

/// Bob's device has no battery clock: he shows at once what Alice writes, writes behind it, and his
/// status says that the time is not known. Once the clock is set both agree as ever.
#[test]
fn clock_that_is_not_set_holds_nothing() {
    run(async |world| {
        let alice = world.fresh().await;
        let clock = ManualClock::unset(5);
        let store = MemoryStore::new();
        let builder = world.networked(store).await.clock(clock.clone());
        let bob = world.start(builder).await.unwrap().peer;
        let pair = Pair::of(alice, bob, Role::Writer).await;
        let (alices, bobs) = pair.songs();
        let first = alices.insert(&song("first")).await.unwrap();
        world.clock.advance(1_000);
        alices.put(&id("a"), &song("from alice")).await.unwrap();
        level(&pair.alice).await;
        assert_eq!(bobs.get(&id("a")).await.unwrap(), Some(song("from alice")));
        bobs.put(&id("a"), &song("from bob")).await.unwrap();
        let made = bobs.insert(&song("new")).await.unwrap();
        level(&pair.bob).await;
        // Bob's write counts as the later one, and the id that he drew sorts where it belongs.
        assert_eq!(alices.get(&id("a")).await.unwrap(), Some(song("from bob")));
        world.clock.advance(1_000);
        let last = alices.insert(&song("last")).await.unwrap();
        assert!(first < made && made < last);
        let status = pair.bobs.status().await.unwrap();
        assert!(!status.clock_is_set && status.waiting.is_empty());
        assert!(pair.alices.status().await.unwrap().clock_is_set);
        // Who the members are does not depend on it.
        let members = pair.bobs.members().await.unwrap();
        assert!(members.iter().all(|member| member.identity.is_some()));

        clock.set(NOW_MILLIS);
        assert!(pair.bobs.status().await.unwrap().clock_is_set);
        level(&pair.bob).await;
        let (ours, theirs) = (pair.alices.state_hash(), pair.bobs.state_hash());
        assert_eq!(ours.await.unwrap(), theirs.await.unwrap());
    });
}

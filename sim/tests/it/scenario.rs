//! Scenarios that are told, rather than drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use leno::{Ipld, Role};
use leno_sim::{Conditions, DiskFaults, MachineOptions, Scenario};
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

/// A modem: 64 kbit/s and a second away.
fn modem(loss_per_million: u32) -> Conditions {
    Conditions {
        latency_micros: 900_000..=1_100_000,
        loss_per_million,
        attempts: 6,
        bytes_per_second: Some(8_000),
        ..Conditions::default()
    }
}

/// Five peers of whom one joins late and one leaves early; a message in ten, or four in ten, is lost,
/// and six losses in a row end the connection. What the one that left had told somebody, all have.
fn five_on_a_modem(seed: u64, loss_per_million: u32) {
    let world = Scenario::new(seed);
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| world.peer(name));
    world.conditions(modem(loss_per_million));
    let band = alice.creates("band");
    for other in [&bob, &carol, &dave] {
        alice.invites(band, other, Role::Writer);
    }
    for round in 0..10 {
        for actor in [&alice, &bob, &carol, &dave] {
            let id = format!("{} {round}", actor.name());
            actor.writes(band, "songs", &id, &[("round", round)]);
            actor.writes(band, "songs", "of all", &[("last", actor.name())]);
        }
        world.run_for(Duration::from_secs(7));
    }
    dave.closes();
    for round in 0..5 {
        alice.writes(
            band,
            "songs",
            &format!("later {round}"),
            &[("round", round)],
        );
    }
    let eve = world.peer("eve");
    bob.connects_when_possible(&world, &carol);
    alice.invites(band, &eve, Role::Writer);
    eve.writes(band, "songs", "eve", &[("round", 99)]);
    world.expect_level();
    world.expect_equal();
    for actor in [&alice, &bob, &carol, &eve] {
        actor.expect(band, "songs", "carol 9", &[("round", 9)]);
        actor.expect(band, "songs", "dave 0", &[("round", 0)]);
        actor.expect(band, "songs", "eve", &[("round", 99)]);
    }
}

/// Connecting fails as often as a message is lost.
trait Patient {
    fn connects_when_possible(&self, world: &Scenario, other: &Self);
}

impl Patient for leno_sim::Actor {
    fn connects_when_possible(&self, world: &Scenario, other: &Self) {
        let address = leno_sim::address_of(other.id()).unwrap();
        let peer = self.peer();
        // The driver goes on trying.
        drop(world.run(async move { peer.connect(&address).await }));
    }
}

/// A rule that does not hold stops the scenario where it is broken, at the peer that breaks it.
#[test]
#[should_panic(expected = "\"a song has a key\" does not hold at bob")]
fn rules_of_applications_are_checked_whenever_time_passes() {
    let world = Scenario::new(5);
    let (alice, bob) = (world.peer("alice"), world.peer("bob"));
    let band = alice.creates("band");
    alice.invites(band, &bob, Role::Writer);
    world.expect_level();
    world.rule("a song has a key", move |peer| async move {
        let thread = peer.thread(band).await.map_err(|it| it.to_string())?;
        let songs = thread.collection::<Ipld>("songs").list(None, 100).await;
        let songs = songs.map_err(|it| it.to_string())?;
        match songs
            .iter()
            .all(|(_, song)| matches!(song.get("key"), Ok(Some(_))))
        {
            true => Ok(()),
            false => Err(format!("{songs:?}")),
        }
    });
    alice.writes(band, "songs", "psalm 1", &[("key", "G")]);
    world.expect_level();
    world.partition(&alice, &bob);
    bob.writes(band, "songs", "psalm 2", &[("tempo", "slow")]);
}

/// A reducer of an application's own op type: the last move of each piece on a board counts, and the
/// moves are in no order but that of their numbers.
#[test]
fn reducers_of_applications_come_to_the_same_everywhere() {
    #[derive(Serialize, Deserialize)]
    struct Move {
        number: u64,
        piece: String,
        to: u64,
    }
    let world = Scenario::new(6);
    let players = ["alice", "bob", "carol"].map(|name| world.peer(name));
    let [alice, bob, carol] = &players;
    let game = alice.creates("game");
    alice.invites(game, bob, Role::Writer);
    alice.invites(game, carol, Role::Reader);
    world.conditions(modem(100_000));
    for number in 0..6 {
        let actor = if number % 2 == 0 { alice } else { bob };
        let (piece, to) = (format!("piece {}", number % 3), number * 10);
        let peer = actor.peer();
        let inserted = world.run(async move {
            let moves = peer.thread(game).await?.collection::<Move>("moves");
            moves.insert(&Move { number, piece, to }).await
        });
        inserted.unwrap();
    }
    bob.crashes();
    bob.starts();
    world.expect_level();
    type Board = BTreeMap<String, (u64, u64)>;
    let board: Board = world.expect_reduced(game, "moves", |board: &mut Board, _, it: Move| {
        let place = board.entry(it.piece).or_default();
        *place = (it.number, it.to).max(*place);
    });
    let of = |piece: &str, number| (piece.to_owned(), (number, number * 10));
    assert_eq!(
        board,
        Board::from([of("piece 0", 3), of("piece 1", 4), of("piece 2", 5)])
    );
}

#[test]
fn five_peers_converge_with_a_tenth_of_messages_lost() {
    (1..4).for_each(|seed| five_on_a_modem(seed, 100_000));
}

#[test]
fn five_peers_converge_with_four_tenths_of_messages_lost() {
    (1..4).for_each(|seed| five_on_a_modem(seed, 400_000));
}

/// A machine without a battery in its clock boots in 1970 and offline, writes, and comes online; later
/// somebody sets its clock. Nothing is held for ever, and nothing of it is out of its own order.
#[test]
fn machine_without_a_clock_boots_in_1970_and_writes_offline() {
    for seed in 1..6 {
        let world = Scenario::new(seed);
        let alice = world.peer("alice");
        let bob = world.machine("bob", MachineOptions::default());
        bob.clock().unset();
        bob.starts();
        let band = alice.creates("band");
        alice.invites(band, &bob, Role::Writer);
        alice.writes(band, "songs", "psalm 1", &[("by", "alice")]);
        world.expect_level();

        world.partition(&alice, &bob);
        bob.crashes();
        bob.clock().unset();
        bob.starts();
        for number in 0..20 {
            bob.writes(band, "songs", "psalm 1", &[("verse", number)]);
            world.run_for(Duration::from_millis(300));
        }
        bob.writes(band, "songs", "psalm 1", &[("by", "bob")]);
        bob.expect(band, "songs", "psalm 1", &[("by", "bob")]);

        world.heal(&alice, &bob);
        world.expect_level();
        world.expect_equal();
        // What was written last shows, on both: no stamp of 1970 lies behind what was seen.
        alice.expect(band, "songs", "psalm 1", &[("by", "bob")]);

        bob.clock().correct();
        bob.writes(band, "songs", "psalm 1", &[("by", "bob, at noon")]);
        world.expect_level();
        alice.expect(band, "songs", "psalm 1", &[("by", "bob, at noon")]);
        for actor in [&alice, &bob] {
            let peer = actor.peer();
            let status = world.run(async move { peer.thread(band).await?.status().await });
            let status = status.unwrap();
            assert!(
                status.waiting.is_empty() && status.quarantined == 0,
                "{status:?}"
            );
            assert_eq!(status.stored, status.admitted);
        }
    }
}

/// A clock that is set back keeps nobody from being dialled again.
#[test]
fn clock_that_is_set_back_does_not_keep_a_peer_alone() {
    let world = Scenario::new(1);
    let (alice, bob) = (world.peer("alice"), world.peer("bob"));
    let band = alice.creates("band");
    alice.invites(band, &bob, Role::Writer);
    world.partition(&alice, &bob);
    world.run_for(2 * MINUTE);
    // A day back, while it waits to dial again.
    bob.clock().jump(-86_400_000);
    world.heal(&alice, &bob);
    alice.writes(band, "songs", "psalm 1", &[("by", "alice")]);
    world.run_for(3 * MINUTE);
    assert!(world.network().connected(alice.id(), bob.id()));
    // What Alice wrote is from tomorrow, by Bob's clock.
    bob.expect_missing(band, "songs", "psalm 1");
    bob.clock().correct();
    world.run_for(25 * 60 * MINUTE);
    bob.expect(band, "songs", "psalm 1", &[("by", "alice")]);
}

/// A full disk ends the peer; what it had acknowledged is there when it starts again.
#[test]
fn full_disk_ends_the_peer_and_loses_nothing() {
    let world = Scenario::new(1);
    let alice = world.peer("alice");
    let band = alice.creates("band");
    alice.writes(band, "songs", "psalm 1", &[("by", "alice")]);
    let full = DiskFaults {
        is_full: true,
        ..DiskFaults::default()
    };
    alice.disk().set_faults(full);
    let peer = alice.peer();
    let refused = world.run(async move { peer.create_thread("other").await });
    assert!(matches!(
        refused,
        Err(leno::Error::Store(leno::store::StoreError::Full))
    ));
    alice.disk().set_faults(DiskFaults::default());
    world.run_for(MINUTE);
    alice.starts();
    alice.expect(band, "songs", "psalm 1", &[("by", "alice")]);
}

#[test]
fn scenario_is_the_same_in_each_run() {
    let tell = |seed| {
        let world = Scenario::new(seed);
        let (alice, bob) = (world.peer("alice"), world.peer("bob"));
        let band = alice.creates("band");
        alice.invites(band, &bob, Role::Reader);
        alice.writes(band, "songs", "psalm 1", &[("by", "alice")]);
        world.expect_level();
        world.trace()
    };
    assert_eq!(tell(1), tell(1));
    assert_ne!(tell(1), tell(2));
}

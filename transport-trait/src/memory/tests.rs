use std::cell::Cell;

use futures_executor::block_on;
use futures_util::FutureExt;
use futures_util::future::join;

use super::*;
use crate::DisconnectReason;
use crate::testing::{self, Factory};

const ALICE: PeerId = PeerId([1; 32]);
const BOB: PeerId = PeerId([2; 32]);

struct Memory {
    network: MemoryNetwork,
    count: Cell<u8>,
}

impl Factory for Memory {
    type Endpoint = MemoryTransport;

    async fn endpoint(&self) -> MemoryTransport {
        self.count.set(self.count.get() + 1);
        self.network.endpoint(PeerId([self.count.get(); 32]))
    }
}

fn conform(conditions: Conditions) {
    let network = MemoryNetwork::new(1, conditions);
    let factory = Memory {
        network: network.clone(),
        count: Cell::new(0),
    };
    block_on(network.drive(testing::check_all(&factory)));
}

#[test]
fn perfect_network_conforms() {
    conform(Conditions::default());
}

#[test]
fn slow_network_conforms() {
    conform(Conditions {
        latency_millis: 5..=80,
        bytes_per_second: Some(10_000_000),
        ..Conditions::default()
    });
}

/// Two endpoints that are connected, ALICE having dialled, and have read so; and their first link,
/// which both ends of this network name alike.
fn connected(network: &MemoryNetwork) -> (MemoryTransport, MemoryTransport, LinkId) {
    let (alice, bob) = (network.endpoint(ALICE), network.endpoint(BOB));
    block_on(network.drive(alice.dial(&bob.addresses()[0]))).unwrap();
    let (near, far) = (link_up(&alice), link_up(&bob));
    assert_eq!(near, far);
    (alice, bob, near)
}

/// The link that came up just now.
fn link_up(at: &MemoryTransport) -> LinkId {
    match event(at) {
        Some(Event::Connected { link, .. }) => link,
        other => panic!("{other:?}"),
    }
}

/// The event that is there now.
fn event(at: &MemoryTransport) -> Option<Event> {
    at.next().now_or_never().flatten()
}

fn send(from: &MemoryTransport, on: LinkId, bytes: &[u8]) {
    block_on(from.send(on, bytes.to_vec())).unwrap();
}

fn with_latency(latency_millis: RangeInclusive<u64>) -> Conditions {
    Conditions {
        latency_millis,
        ..Conditions::default()
    }
}

#[test]
fn messages_take_the_latency() {
    let network = MemoryNetwork::new(1, with_latency(30..=30));
    let (alice, bob, link) = connected(&network);
    send(&alice, link, b"x");
    network.advance(29);
    assert_eq!(event(&bob), None);
    network.advance(1);
    assert!(matches!(event(&bob), Some(Event::Message { .. })));
}

#[test]
fn messages_never_overtake_one_another() {
    let network = MemoryNetwork::new(3, with_latency(0..=100));
    let (alice, bob, link) = connected(&network);
    for number in 0..50 {
        send(&alice, link, &[number]);
    }
    network.settle();
    for number in 0..50 {
        assert!(matches!(event(&bob), Some(Event::Message { bytes, .. }) if bytes == [number]));
    }
}

#[test]
fn bandwidth_spaces_messages() {
    let conditions = Conditions {
        bytes_per_second: Some(1_000),
        ..Conditions::default()
    };
    let network = MemoryNetwork::new(1, conditions);
    let (alice, bob, link) = connected(&network);
    send(&alice, link, &[0; 500]);
    send(&alice, link, &[0; 500]);
    network.advance(500);
    assert!(matches!(event(&bob), Some(Event::Message { .. })));
    assert_eq!(event(&bob), None);
    network.settle();
    assert_eq!(network.now_millis(), 1_000);
    assert!(matches!(event(&bob), Some(Event::Message { .. })));
}

#[test]
fn lost_message_breaks_the_link_and_the_dialler_dials_again() {
    let network = MemoryNetwork::new(1, Conditions::default());
    let (alice, bob, link) = connected(&network);
    network.set_conditions(Conditions {
        loss_per_million: 1_000_000,
        ..Conditions::default()
    });
    send(&alice, link, b"x");
    for endpoint in [&alice, &bob] {
        let reason = match event(endpoint) {
            Some(Event::Disconnected { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert!(matches!(reason, DisconnectReason::Lost { .. }));
        assert_eq!(event(endpoint), None);
    }
    network.advance(1_000);
    for endpoint in [&alice, &bob] {
        assert!(matches!(event(endpoint), Some(Event::Connected { .. })));
    }
}

#[test]
fn partition_cuts_refuses_and_heals() {
    let network = MemoryNetwork::new(1, Conditions::default());
    let (alice, bob, _) = connected(&network);
    network.partition(BOB, ALICE);
    for endpoint in [&alice, &bob] {
        assert!(matches!(event(endpoint), Some(Event::Disconnected { .. })));
    }
    network.advance(10_000);
    assert_eq!(event(&alice), None);
    let refused = block_on(bob.dial(&alice.addresses()[0]));
    assert!(
        matches!(refused, Err(TransportError::Unreachable { .. })),
        "{refused:?}"
    );
    network.heal(ALICE, BOB);
    network.advance(1_000);
    for endpoint in [&alice, &bob] {
        assert!(matches!(event(endpoint), Some(Event::Connected { .. })));
    }
}

#[test]
fn hung_up_peer_is_not_dialled_again() {
    let network = MemoryNetwork::new(1, Conditions::default());
    let (alice, bob, _) = connected(&network);
    block_on(bob.hang_up(ALICE));
    assert!(matches!(event(&alice), Some(Event::Disconnected { .. })));
    network.advance(100_000);
    assert_eq!(event(&alice), None);
}

#[test]
fn restart_loses_links_and_is_found_again() {
    let network = MemoryNetwork::new(1, Conditions::default());
    let (alice, old, _) = connected(&network);
    let bob = network.endpoint(BOB);
    assert_eq!(block_on(old.next()), None);
    assert!(matches!(event(&alice), Some(Event::Disconnected { .. })));
    network.advance(1_000);
    let link = link_up(&alice);
    assert_eq!(link, link_up(&bob));
    drop(old);
    send(&alice, link, b"x");
    assert!(matches!(event(&bob), Some(Event::Message { .. })));
}

#[test]
fn full_queue_waits_for_the_reader() {
    let conditions = Conditions {
        queue_bytes: 2 * (100 + 64),
        ..Conditions::default()
    };
    let network = MemoryNetwork::new(1, conditions);
    let (alice, bob, link) = connected(&network);
    send(&alice, link, &[1; 100]);
    send(&alice, link, &[2; 100]);
    let mut third = alice.send(link, vec![3; 100]);
    assert_eq!((&mut third).now_or_never(), None);
    assert!(matches!(event(&bob), Some(Event::Message { .. })));
    assert_eq!(third.now_or_never(), Some(Ok(())));
}

#[test]
fn dropped_send_sends_nothing() {
    let conditions = Conditions {
        queue_bytes: 164,
        ..Conditions::default()
    };
    let network = MemoryNetwork::new(1, conditions);
    let (alice, bob, link) = connected(&network);
    send(&alice, link, &[1; 100]);
    assert_eq!(alice.send(link, vec![2; 100]).now_or_never(), None);
    assert!(matches!(event(&bob), Some(Event::Message { .. })));
    assert_eq!(event(&bob), None);
}

/// Runs a conversation over a poor network and returns all that was seen, with the times.
fn story(seed: u64) -> Vec<(u64, Option<Event>)> {
    let conditions = Conditions {
        latency_millis: 1..=60,
        loss_per_million: 50_000,
        bytes_per_second: Some(100_000),
        ..Conditions::default()
    };
    let network = MemoryNetwork::new(seed, conditions);
    let (alice, bob, mut link) = connected(&network);
    let mut seen = Vec::new();
    for number in 0..200_u8 {
        let _ = block_on(network.drive(join(
            async { alice.send(link, vec![number; 50]).await },
            async { bob.send(link, vec![number; 20]).await },
        )));
        network.advance(10);
        for endpoint in [&alice, &bob] {
            let event = event(endpoint);
            if let Some(Event::Connected { link: next, .. }) = event {
                link = next;
            }
            seen.push((network.now_millis(), event));
        }
    }
    seen
}

#[test]
fn one_seed_gives_one_story() {
    assert_eq!(story(5), story(5));
    assert_ne!(story(5), story(6));
}

//! Two pretended networks side by side, whose addresses begin with the network's name.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test stops at what it does not expect"
)]

use std::cell::Cell;

use futures_executor::block_on;
use futures_util::FutureExt;
use futures_util::future::join;

use super::*;
use crate::memory::{Conditions, MemoryNetwork, MemoryTransport};
use crate::testing::{self, Factory};

const LOW: PeerId = PeerId([1; 32]);
const HIGH: PeerId = PeerId([2; 32]);

/// An endpoint of a network with a name.
struct Named(&'static str, MemoryTransport);

impl Named {
    fn inner_address(&self, address: &Address) -> Option<Address> {
        address.as_str().strip_prefix(self.0)?.parse().ok()
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Transport for Named {
    fn local(&self) -> PeerId {
        self.1.local()
    }

    fn addresses(&self) -> Vec<Address> {
        let named = self.1.addresses().into_iter();
        named
            .map(|it| format!("{}{it}", self.0).parse().unwrap())
            .collect()
    }

    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        self.1.peer_of(&self.inner_address(address)?)
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        let not_understood = TransportError::AddressNotUnderstood {
            address: address.clone(),
            detail: format!("it is not of {}", self.0),
        };
        let inner = self.inner_address(address).ok_or(not_understood)?;
        self.1.dial(&inner).await.map_err(|error| match error {
            TransportError::DialledSelf { .. } => TransportError::DialledSelf {
                address: address.clone(),
            },
            error => error,
        })
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        self.1.send(link, message).await
    }

    async fn next(&self) -> Option<Event> {
        self.1.next().await
    }

    async fn hang_up(&self, peer: PeerId) {
        self.1.hang_up(peer).await;
    }

    async fn close(&self) {
        self.1.close().await;
    }
}

/// The two networks, and how their endpoints are put together.
struct Both {
    networks: [MemoryNetwork; 2],
    made: Cell<u8>,
    /// Whether every second endpoint prefers the second network.
    alternates: bool,
}

impl Both {
    fn new(alternates: bool) -> Self {
        let network = |seed| MemoryNetwork::new(seed, Conditions::default());
        Self {
            networks: [network(1), network(2)],
            made: Cell::new(0),
            alternates,
        }
    }

    fn transports(&self, peer: PeerId, is_turned: bool) -> Transports {
        let [a, b] = &self.networks;
        let a = Arc::new(Named("a:", a.endpoint(peer)));
        let b = Arc::new(Named("b:", b.endpoint(peer)));
        let (first, second) = if is_turned { (b, a) } else { (a, b) };
        Transports::new(first).with(second).unwrap()
    }

    /// Runs a future, moving both clocks.
    async fn drive<F: Future>(&self, future: F) -> F::Output {
        let [a, b] = &self.networks;
        a.drive(b.drive(future)).await
    }
}

impl Factory for Both {
    type Endpoint = Transports;

    async fn endpoint(&self) -> Transports {
        self.made.set(self.made.get() + 1);
        let peer = PeerId([self.made.get(); 32]);
        self.transports(peer, self.alternates && self.made.get().is_multiple_of(2))
    }
}

#[test]
fn two_transports_conform_as_one() {
    let both = Both::new(false);
    block_on(both.drive(testing::check_all(&both)));
}

#[test]
fn two_transports_in_different_orders_conform_as_one() {
    let both = Both::new(true);
    // All but simultaneous dials, after which one side here may report that it moved.
    let checks = async {
        testing::check_identity_is_proven(&both).await;
        testing::check_messages_arrive_in_order(&both).await;
        testing::check_hang_up_is_seen_by_both(&both).await;
        testing::check_redial_gives_a_new_link(&both).await;
        testing::check_message_never_changes_its_link(&both).await;
        testing::check_dialling_twice_gives_one_link(&both).await;
        testing::check_close_ends_everything(&both).await;
    };
    block_on(both.drive(checks));
}

fn next(at: &Transports) -> Event {
    at.next().now_or_never().flatten().expect("has an event")
}

fn connected(at: &Transports) -> LinkId {
    match next(at) {
        Event::Connected { link, .. } => link,
        other => panic!("expected Connected, not {other:?}"),
    }
}

fn replaced(at: &Transports) -> LinkId {
    match next(at) {
        Event::Disconnected {
            link,
            reason: DisconnectReason::Replaced,
            ..
        } => link,
        other => panic!("expected Replaced, not {other:?}"),
    }
}

fn address(at: &Transports, network: &str) -> Address {
    let addresses = at.addresses();
    let found = addresses.iter().find(|it| it.as_str().starts_with(network));
    found.unwrap().clone()
}

#[test]
fn each_address_goes_to_the_transport_that_understands_it() {
    let both = Both::new(false);
    let (alice, bob) = (both.transports(LOW, false), both.transports(HIGH, false));
    for network in ["a:", "b:"] {
        let there = address(&bob, network);
        assert_eq!(alice.peer_of(&there), Some(HIGH));
        assert_eq!(block_on(alice.dial(&there)), Ok(HIGH));
        let index = usize::from(network == "b:");
        let link = both.networks[index].clone();
        connected(&alice);
        connected(&bob);
        link.partition(LOW, HIGH);
        assert!(matches!(next(&alice), Event::Disconnected { .. }));
        assert!(matches!(next(&bob), Event::Disconnected { .. }));
        assert!(alice.next().now_or_never().is_none(), "one network only");
        link.heal(LOW, HIGH);
        block_on(alice.hang_up(HIGH));
    }
}

#[test]
fn connected_peer_is_not_dialled_by_another_transport() {
    let both = Both::new(false);
    let (alice, bob) = (both.transports(LOW, false), both.transports(HIGH, false));
    let there = bob.addresses();
    let dials = join(alice.dial(&there[0]), alice.dial(&there[1]));
    assert_eq!(block_on(dials), (Ok(HIGH), Ok(HIGH)));
    connected(&alice);
    assert_eq!(block_on(alice.dial(&bob.addresses()[1])), Ok(HIGH));
    assert!(alice.next().now_or_never().is_none());
    connected(&bob);
    assert!(bob.next().now_or_never().is_none());
}

#[test]
fn other_network_is_tried_once_the_first_one_failed() {
    let both = Both::new(false);
    let (alice, bob) = (both.transports(LOW, false), both.transports(HIGH, false));
    let slow = Conditions {
        latency_millis: 10..=10,
        ..Conditions::default()
    };
    let [first, second] = &both.networks;
    first.set_conditions(slow);
    let there = bob.addresses();
    let mut failing = Box::pin(alice.dial(&there[0]));
    assert!((&mut failing).now_or_never().is_none());
    let mut waiting = Box::pin(alice.dial(&there[1]));
    assert!((&mut waiting).now_or_never().is_none(), "it waits");
    first.partition(LOW, HIGH);
    assert!(block_on(failing).is_err());
    assert_eq!(block_on(second.drive(waiting)), Ok(HIGH));
    connected(&alice);
    connected(&bob);
    assert!(alice.next().now_or_never().is_none());
}

/// Connects the two over both networks at once, each dialling by another one.
fn crossed(both: &Both) -> (Transports, Transports) {
    let (alice, bob) = (both.transports(LOW, false), both.transports(HIGH, false));
    let (to_bob, to_alice) = (address(&bob, "a:"), address(&alice, "b:"));
    let dials = join(alice.dial(&to_bob), bob.dial(&to_alice));
    assert_eq!(block_on(dials), (Ok(HIGH), Ok(LOW)));
    (alice, bob)
}

/// Lets both take all there is, and returns the link that each ended with.
fn settle(alice: &Transports, bob: &Transports) -> (LinkId, LinkId) {
    let mut links = (None, None);
    for _ in 0..8 {
        for (at, link) in [(alice, &mut links.0), (bob, &mut links.1)] {
            while let Some(event) = at.next().now_or_never().flatten() {
                match event {
                    Event::Connected { link: new, .. } => *link = Some(new),
                    Event::Disconnected { .. } => *link = None,
                    Event::Message { .. } | Event::Discovered { .. } => {
                        panic!("nothing was said")
                    }
                }
            }
        }
    }
    (links.0.unwrap(), links.1.unwrap())
}

#[test]
fn both_sides_settle_on_one_link_whatever_each_heard_of_first() {
    for bob_reads_first in [false, true] {
        let both = Both::new(false);
        let (alice, bob) = crossed(&both);
        if bob_reads_first {
            connected(&bob);
        }
        let (alice_link, bob_link) = settle(&alice, &bob);
        block_on(alice.send(alice_link, vec![1])).unwrap();
        block_on(bob.send(bob_link, vec![2])).unwrap();
        for (at, link, said) in [(&alice, alice_link, 2), (&bob, bob_link, 1)] {
            match next(at) {
                Event::Message {
                    link: by, bytes, ..
                } => {
                    assert_eq!((by, bytes), (link, vec![said]));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn message_shows_which_link_was_chosen() {
    let mut state = State::default();
    let mut note = |index, event| {
        state.note(HIGH, index, event);
        let texts = state.events.drain(..).map(|event| match event {
            Event::Connected { link, .. } => format!("+{link}"),
            Event::Disconnected { link, .. } => format!("-{link}"),
            Event::Message { link, bytes, .. } => format!("{bytes:?} on {link}"),
            Event::Discovered { address, .. } => format!("{address}"),
        });
        texts.collect::<Vec<_>>()
    };
    let connected = |link| Event::Connected {
        peer: LOW,
        link: LinkId(link),
    };
    let message = |link, said| Event::Message {
        from: LOW,
        link: LinkId(link),
        bytes: vec![said],
    };
    let lost = |link| Event::Disconnected {
        peer: LOW,
        link: LinkId(link),
        reason: DisconnectReason::PeerHungUp,
    };
    assert_eq!(note(0, connected(5)), ["+1"]);
    assert_eq!(note(1, connected(6)), [""; 0], "it is put aside");
    assert_eq!(note(0, message(5, 7)), ["[7] on 1"]);
    assert_eq!(note(1, message(6, 8)), ["-1", "+2", "[8] on 2"]);
    assert_eq!(note(0, message(5, 9)), [""; 0], "it was late");
    assert_eq!(note(0, lost(5)), [""; 0]);
    assert_eq!(note(0, connected(7)), [""; 0]);
    assert_eq!(note(1, lost(6)), ["-2", "+3"]);
    assert_eq!(note(0, lost(7)), ["-3"]);
    assert_eq!(state.unwanted, []);
}

#[test]
fn peer_that_comes_back_by_another_network_is_believed() {
    let both = Both::new(false);
    let (alice, bob) = (both.transports(LOW, false), both.transports(HIGH, false));
    block_on(alice.dial(&address(&bob, "a:"))).unwrap();
    let (old, _) = (connected(&alice), connected(&bob));
    // Alice does not hear of bob's end in the first network before he is there in the second one.
    let [_, second] = &both.networks;
    let bob = Transports::new(Arc::new(Named("b:", second.endpoint(HIGH))));
    block_on(bob.dial(&address(&alice, "b:"))).unwrap();
    assert_eq!(replaced(&alice), old);
    let new = connected(&alice);
    block_on(alice.send(new, vec![7])).unwrap();
    connected(&bob);
    assert!(matches!(next(&bob), Event::Message { .. }));
}

#[test]
fn hang_up_ends_what_is_aside_too() {
    let both = Both::new(false);
    let (_alice, bob) = crossed(&both);
    let link = connected(&bob);
    assert!(bob.next().now_or_never().is_none());
    block_on(bob.hang_up(LOW));
    match next(&bob) {
        Event::Disconnected {
            link: ended,
            reason,
            ..
        } => {
            assert_eq!((ended, reason), (link, DisconnectReason::HungUp));
        }
        other => panic!("{other:?}"),
    }
    assert!(bob.next().now_or_never().is_none());
}

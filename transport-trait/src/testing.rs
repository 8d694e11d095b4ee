//! The contract of [`Transport`], as checks that every implementation runs.
//!
//! Each check makes fresh endpoints, and panics with the clause that is broken. None of them keeps
//! time: wrap them in a time-out of the runtime at hand, or in
//! [`MemoryNetwork::drive`](crate::memory::MemoryNetwork::drive).
//!
//! # Examples
//!
//! ```
//! use leno_transport_trait::memory::{Conditions, MemoryNetwork, MemoryTransport};
//! use leno_transport_trait::{PeerId, testing};
//! use std::cell::Cell;
//!
//! struct Memory(MemoryNetwork, Cell<u8>);
//!
//! impl testing::Factory for Memory {
//!     type Endpoint = MemoryTransport;
//!     async fn endpoint(&self) -> MemoryTransport {
//!         self.1.set(self.1.get() + 1);
//!         self.0.endpoint(PeerId([self.1.get(); 32]))
//!     }
//! }
//!
//! let network = MemoryNetwork::new(1, Conditions::default());
//! let factory = Memory(network.clone(), Cell::new(0));
//! futures_executor::block_on(network.drive(testing::check_all(&factory)));
//! ```

use std::future::Future;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};

use crate::{
    Address, DisconnectReason, Event, LinkId, MESSAGE_BYTES_MAX, PeerId, Transport, TransportError,
};

/// How many bytes a link may hold for a peer that never reads.
pub const UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Makes endpoints for the checks.
pub trait Factory {
    /// The implementation under test.
    type Endpoint: Transport;

    /// Makes an endpoint with a new identity that others of this factory can dial.
    ///
    /// Its stall bound should be short, since one check waits for it.
    fn endpoint(&self) -> impl Future<Output = Self::Endpoint>;
}

/// Runs every check, one after another.
pub async fn check_all(factory: &impl Factory) {
    check_identity_is_proven(factory).await;
    check_messages_arrive_in_order(factory).await;
    check_message_limit_is_exact(factory).await;
    check_empty_message_is_a_message(factory).await;
    check_both_ways_at_once(factory).await;
    check_slow_reader_loses_nothing(factory).await;
    check_peer_that_never_reads_is_cut(factory).await;
    check_hang_up_is_seen_by_both(factory).await;
    check_hang_up_lets_sent_messages_arrive(factory).await;
    check_redial_gives_a_new_link(factory).await;
    check_message_never_changes_its_link(factory).await;
    check_unknown_link_is_refused(factory).await;
    check_useless_addresses_are_refused(factory).await;
    check_dialling_twice_gives_one_link(factory).await;
    check_simultaneous_dials_give_one_link(factory).await;
    check_close_ends_everything(factory).await;
    check_next_is_cancel_safe(factory).await;
}

/// Contract 1: both sides name the key of the other, and `dial` says who answered.
pub async fn check_identity_is_proven(factory: &impl Factory) {
    let (alice, bob) = (factory.endpoint().await, factory.endpoint().await);
    assert_ne!(
        alice.local(),
        bob.local(),
        "endpoints of the factory have different identities"
    );
    let dialled = alice.dial(&address(&bob)).await.expect("dials");
    assert_eq!(
        dialled,
        bob.local(),
        "1: dial names the device that answered"
    );
    assert_eq!(
        connected(&alice).await.0,
        bob.local(),
        "1: the dialler names the peer"
    );
    assert_eq!(
        connected(&bob).await.0,
        alice.local(),
        "1: the dialled names the peer"
    );
}

/// Contract 3: messages of one link arrive in order, without a gap, under their link's id.
pub async fn check_messages_arrive_in_order(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    let sending = async {
        for number in 0..500_u32 {
            pair.alice
                .send(pair.alice_link, number.to_be_bytes().to_vec())
                .await
                .expect("sends");
        }
    };
    let receiving = async {
        for number in 0..500_u32 {
            let (from, link, bytes) = message(&pair.bob).await;
            assert_eq!(bytes, number.to_be_bytes(), "3: messages arrive in order");
            assert_eq!(from, pair.alice.local(), "3: a message names its sender");
            assert_eq!(link, pair.bob_link, "3: a message names its link");
        }
    };
    join(sending, receiving).await;
}

/// A message of exactly [`MESSAGE_BYTES_MAX`] passes; one byte more is refused and harms nothing.
pub async fn check_message_limit_is_exact(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    let longest: Vec<u8> = (0..MESSAGE_BYTES_MAX).map(|it| (it % 251) as u8).collect();
    let (sent, received) = join(
        pair.alice.send(pair.alice_link, longest.clone()),
        message(&pair.bob),
    )
    .await;
    assert_eq!(sent, Ok(()), "send: the longest message is accepted");
    assert!(
        received.2 == longest,
        "3: the longest message arrives whole"
    );

    let len = MESSAGE_BYTES_MAX + 1;
    let refused = pair.alice.send(pair.alice_link, vec![0; len]).await;
    let expected = TransportError::MessageTooLarge {
        len,
        max: MESSAGE_BYTES_MAX,
    };
    assert_eq!(
        refused,
        Err(expected),
        "send: a longer message is refused by name"
    );
    pair.exchange().await;
}

/// An empty message is delivered like any other.
pub async fn check_empty_message_is_a_message(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    pair.alice
        .send(pair.alice_link, Vec::new())
        .await
        .expect("sends");
    pair.alice
        .send(pair.alice_link, vec![7])
        .await
        .expect("sends");
    assert_eq!(
        message(&pair.bob).await.2,
        [],
        "send: an empty message is a message"
    );
    assert_eq!(message(&pair.bob).await.2, [7], "3: and keeps its place");
}

/// Traffic in both directions at once, from several tasks, neither blocks nor mixes.
pub async fn check_both_ways_at_once(factory: &impl Factory) {
    const COUNT: usize = 40;
    const LANES: u8 = 3;
    let pair = Pair::connect(factory).await;
    let (near, far) = (pair.alice_link, pair.bob_link);
    let sending = join(
        join_all((0..LANES).map(|lane| send_lane(&pair.alice, near, lane, COUNT))),
        join_all((0..LANES).map(|lane| send_lane(&pair.bob, far, lane, COUNT))),
    );
    let receiving = join(
        receive_lanes(&pair.alice, LANES, COUNT),
        receive_lanes(&pair.bob, LANES, COUNT),
    );
    join(sending, receiving).await;
}

async fn send_lane(from: &impl Transport, on: LinkId, lane: u8, count: usize) {
    for number in 0..count {
        let mut bytes = vec![lane; 20_000];
        bytes.extend((number as u32).to_be_bytes());
        from.send(on, bytes).await.expect("sends");
    }
}

async fn receive_lanes(at: &impl Transport, lanes: u8, count: usize) {
    let mut expected = vec![0_u32; usize::from(lanes)];
    for _ in 0..usize::from(lanes) * count {
        let (_, _, bytes) = message(at).await;
        let (body, number) = bytes.split_last_chunk::<4>().expect("has a number");
        let lane = *body.first().expect("has a lane");
        assert!(
            body.len() == 20_000 && body.iter().all(|it| *it == lane),
            "3: messages are whole"
        );
        let next = expected.get_mut(usize::from(lane)).expect("is a lane");
        assert_eq!(
            u32::from_be_bytes(*number),
            *next,
            "3: each sender's order is kept"
        );
        *next += 1;
    }
}

/// Contract 4: a full queue makes `send` wait, and nothing is lost by it.
pub async fn check_slow_reader_loses_nothing(factory: &impl Factory) {
    const COUNT: usize = 300;
    let pair = Pair::connect(factory).await;
    let sending = async {
        for number in 0..COUNT {
            let bytes = vec![number as u8; 100_000];
            pair.alice
                .send(pair.alice_link, bytes)
                .await
                .expect("sends");
        }
    };
    let receiving = async {
        for number in 0..COUNT {
            let (_, _, bytes) = message(&pair.bob).await;
            assert!(
                bytes == vec![number as u8; 100_000],
                "3: nothing is lost under pressure"
            );
        }
    };
    join(sending, receiving).await;
}

/// Contract 4: queues are bounded, and a peer that never reads loses its link.
pub async fn check_peer_that_never_reads_is_cut(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    let mut accepted = 0;
    let refusal = loop {
        match pair.alice.send(pair.alice_link, vec![0; 256 * 1024]).await {
            Ok(()) => accepted += 256 * 1024,
            Err(refusal) => break refusal,
        }
        assert!(
            accepted <= UNREAD_BYTES_MAX,
            "4: queues are bounded in bytes"
        );
    };
    let link = pair.alice_link;
    assert_eq!(
        refusal,
        TransportError::LinkOver { link },
        "4: the link is cut"
    );
    let reason = disconnected(&pair.alice, pair.alice_link).await;
    assert!(
        matches!(reason, DisconnectReason::Stalled { .. }),
        "4: as stalled, not {reason:?}"
    );
}

/// `hang_up` ends the link for both sides, each told who did it, and is idempotent.
pub async fn check_hang_up_is_seen_by_both(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    let peer = pair.bob.local();
    pair.alice.hang_up(peer).await;
    let link = pair.alice_link;
    let refused = pair.alice.send(link, vec![1]).await;
    assert_eq!(
        refused,
        Err(TransportError::LinkOver { link }),
        "hang_up: send refuses"
    );
    pair.alice.hang_up(peer).await;
    let (near, far) = join(
        disconnected(&pair.alice, pair.alice_link),
        disconnected(&pair.bob, pair.bob_link),
    )
    .await;
    assert_eq!(near, DisconnectReason::HungUp, "hang_up: this side is told");
    assert_eq!(
        far,
        DisconnectReason::PeerHungUp,
        "hang_up: the other side is told"
    );
}

/// What was sent before `hang_up` arrives at a peer that reads.
pub async fn check_hang_up_lets_sent_messages_arrive(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    for number in 0..20_u8 {
        pair.alice
            .send(pair.alice_link, vec![number; 50_000])
            .await
            .expect("sends");
    }
    pair.alice.hang_up(pair.bob.local()).await;
    for number in 0..20_u8 {
        assert!(
            message(&pair.bob).await.2 == vec![number; 50_000],
            "hang_up: sent messages arrive"
        );
    }
    let reason = disconnected(&pair.bob, pair.bob_link).await;
    assert_eq!(
        reason,
        DisconnectReason::PeerHungUp,
        "hang_up: comes after them"
    );
}

/// After `hang_up`, from either side, `dial` makes a new link with a new id.
pub async fn check_redial_gives_a_new_link(factory: &impl Factory) {
    let mut pair = Pair::connect(factory).await;
    for round in 0..4 {
        let (near, far) = (&pair.alice, &pair.bob);
        match round % 2 {
            0 => near.hang_up(far.local()).await,
            _ => far.hang_up(near.local()).await,
        }
        // Half of the rounds dial before the other side has heard of the end.
        if round < 2 {
            join(
                disconnected(near, pair.alice_link),
                disconnected(far, pair.bob_link),
            )
            .await;
            near.dial(&address(far)).await.expect("dials again");
        } else if round == 2 {
            near.dial(&address(far)).await.expect("dials again");
            join(
                disconnected(near, pair.alice_link),
                disconnected(far, pair.bob_link),
            )
            .await;
        } else {
            far.dial(&address(near)).await.expect("dials again");
            join(
                disconnected(near, pair.alice_link),
                disconnected(far, pair.bob_link),
            )
            .await;
        }
        let ((_, alice_link), (_, bob_link)) = join(connected(near), connected(far)).await;
        assert!(
            alice_link > pair.alice_link,
            "redial: a new link has a greater id"
        );
        assert!(bob_link > pair.bob_link, "redial: on both sides");
        (pair.alice_link, pair.bob_link) = (alice_link, bob_link);
        pair.exchange().await;
    }
}

/// Contract 3: what is sent on a link that is over, or waits for room when it ends, is refused by
/// name and arrives nowhere, although the same peer has a new link by then.
pub async fn check_message_never_changes_its_link(factory: &impl Factory) {
    for waits in [false, true] {
        let mut pair = Pair::connect(factory).await;
        let old = pair.alice_link;
        // Long enough for a queue to be full with it; bob reads nothing before the new link.
        let of_old = || vec![7; MESSAGE_BYTES_MAX];
        let mut accepted = 0;
        let mut waiting = None;
        while waits && waiting.is_none() {
            let mut sending = pair.alice.send(old, of_old());
            match (&mut sending).now_or_never() {
                Some(sent) => sent.expect("sends"),
                None => waiting = Some(sending),
            }
            accepted += MESSAGE_BYTES_MAX;
            assert!(
                accepted <= UNREAD_BYTES_MAX,
                "4: queues are bounded in bytes"
            );
        }
        pair.alice.hang_up(pair.bob.local()).await;
        let over = Err(TransportError::LinkOver { link: old });
        let dialling = async {
            assert_eq!(
                disconnected(&pair.alice, old).await,
                DisconnectReason::HungUp
            );
            pair.alice.dial(&address(&pair.bob)).await.expect("dials");
            connected(&pair.alice).await.1
        };
        // Whatever came of the old link comes before its end.
        let reading = async {
            loop {
                match pair.bob.next().await {
                    Some(Event::Message { link, .. }) if link == pair.bob_link => {}
                    Some(Event::Disconnected { link, .. }) if link == pair.bob_link => break,
                    other => panic!("3: {other:?} before the end of the old link"),
                }
            }
            connected(&pair.bob).await.1
        };
        let (alice_link, bob_link) = join(dialling, reading).await;
        if let Some(waiting) = waiting {
            assert_eq!(waiting.await, over, "3: it waited for the old link");
        }
        let late = pair.alice.send(old, of_old()).await;
        assert_eq!(late, over, "3: an old link stays over");
        (pair.alice_link, pair.bob_link) = (alice_link, bob_link);
        // Panics if anything else came first.
        pair.exchange().await;
        pair.part().await;
    }
}

/// `send` on a link that never was is refused by name.
pub async fn check_unknown_link_is_refused(factory: &impl Factory) {
    let alice = factory.endpoint().await;
    let link = LinkId(u64::MAX);
    let refused = alice.send(link, vec![1]).await;
    assert_eq!(
        refused,
        Err(TransportError::LinkOver { link }),
        "send: unknown link"
    );
    alice.hang_up(PeerId([0xee; 32])).await;
}

/// `dial` names what is wrong with an address.
pub async fn check_useless_addresses_are_refused(factory: &impl Factory) {
    let (alice, bob) = (factory.endpoint().await, factory.endpoint().await);
    let gibberish: Address = "not an address of any network".parse().expect("is text");
    let refused = alice.dial(&gibberish).await;
    assert!(
        matches!(refused, Err(TransportError::AddressNotUnderstood { .. })),
        "dial: gibberish is not understood, {refused:?}"
    );
    let own = address(&alice);
    let refused = alice.dial(&own).await;
    assert_eq!(
        refused,
        Err(TransportError::DialledSelf { address: own }),
        "dial: own address"
    );
    let gone = address(&bob);
    bob.close().await;
    let refused = alice.dial(&gone).await;
    assert!(
        matches!(refused, Err(TransportError::Unreachable { .. })),
        "dial: nobody is there, {refused:?}"
    );
}

/// Contract 2: dialling twice, at once or later, gives one link.
pub async fn check_dialling_twice_gives_one_link(factory: &impl Factory) {
    let (alice, bob) = (factory.endpoint().await, factory.endpoint().await);
    let to = address(&bob);
    let (first, second) = join(alice.dial(&to), alice.dial(&to)).await;
    assert_eq!(
        (first, second),
        (Ok(bob.local()), Ok(bob.local())),
        "2: both dials succeed"
    );
    let pair = Pair::meet(alice, bob).await;
    assert_eq!(
        pair.alice.dial(&to).await,
        Ok(pair.bob.local()),
        "dial: idempotent"
    );
    pair.exchange().await;
    pair.part().await;
}

/// Contract 2: both sides dialling at once gives one link, the same on both sides.
pub async fn check_simultaneous_dials_give_one_link(factory: &impl Factory) {
    // Either side may have the lower id and either may be first, so it is tried a few times.
    for _ in 0..6 {
        let (alice, bob) = (factory.endpoint().await, factory.endpoint().await);
        let (to_alice, to_bob) = (address(&alice), address(&bob));
        let (near, far) = join(alice.dial(&to_bob), bob.dial(&to_alice)).await;
        assert_eq!(
            (near, far),
            (Ok(bob.local()), Ok(alice.local())),
            "2: both dials succeed"
        );
        let pair = Pair::meet(alice, bob).await;
        pair.exchange().await;
        pair.part().await;
    }
}

/// After `close`: no event, no address, nothing dialled or sent; the other side sees the link end.
pub async fn check_close_ends_everything(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    let (waiting, ()) = join(pair.alice.next(), pair.alice.close()).await;
    assert_eq!(waiting, None, "close: a waiting next ends");
    assert_eq!(
        pair.alice.next().await,
        None,
        "close: next is None for good"
    );
    assert_eq!(pair.alice.addresses(), [], "close: no addresses are left");
    let refused = pair.alice.send(pair.alice_link, vec![1]).await;
    assert_eq!(refused, Err(TransportError::Closed), "close: send refuses");
    let refused = pair.alice.dial(&address(&pair.bob)).await;
    assert_eq!(refused, Err(TransportError::Closed), "close: dial refuses");
    disconnected(&pair.bob, pair.bob_link).await;
    pair.alice.close().await;
}

/// A `next` that was dropped while it waited has taken nothing.
pub async fn check_next_is_cancel_safe(factory: &impl Factory) {
    let pair = Pair::connect(factory).await;
    let sending = async {
        for number in 0..200_u8 {
            pair.alice
                .send(pair.alice_link, vec![number])
                .await
                .expect("sends");
        }
    };
    let receiving = async {
        let mut number = 0;
        while number < 200 {
            let event = match pair.bob.next().now_or_never() {
                Some(event) => event,
                None => pair.bob.next().await,
            };
            let Some(Event::Message { bytes, .. }) = event else {
                panic!("3: {event:?}")
            };
            assert_eq!(bytes, [number], "next: a dropped future has taken nothing");
            number += 1;
        }
    };
    join(sending, receiving).await;
}

/// Two connected endpoints whose `Connected` events have been read.
struct Pair<T> {
    alice: T,
    bob: T,
    alice_link: LinkId,
    bob_link: LinkId,
}

impl<T: Transport> Pair<T> {
    async fn connect<F: Factory<Endpoint = T>>(factory: &F) -> Self {
        let (alice, bob) = (factory.endpoint().await, factory.endpoint().await);
        alice.dial(&address(&bob)).await.expect("dials");
        Self::meet(alice, bob).await
    }

    async fn meet(alice: T, bob: T) -> Self {
        let ((_, alice_link), (_, bob_link)) = join(connected(&alice), connected(&bob)).await;
        Self {
            alice,
            bob,
            alice_link,
            bob_link,
        }
    }

    /// Sends a message each way; any other event on the way breaks contract 2.
    async fn exchange(&self) {
        let sent = join(
            self.alice.send(self.alice_link, vec![1]),
            self.bob.send(self.bob_link, vec![2]),
        )
        .await;
        assert_eq!(sent, (Ok(()), Ok(())), "send: the link is live");
        let (near, far) = join(message(&self.alice), message(&self.bob)).await;
        assert_eq!(
            (near.1, far.1),
            (self.alice_link, self.bob_link),
            "2: the one link is used"
        );
        assert_eq!((near.2, far.2), (vec![2], vec![1]), "3: messages arrive");
    }

    /// Hangs up; any other event before the end breaks contract 2.
    async fn part(&self) {
        self.alice.hang_up(self.bob.local()).await;
        join(
            disconnected(&self.alice, self.alice_link),
            disconnected(&self.bob, self.bob_link),
        )
        .await;
    }
}

fn address(of: &impl Transport) -> Address {
    of.addresses()
        .into_iter()
        .next()
        .expect("addresses: an open endpoint has one")
}

async fn connected(at: &impl Transport) -> (PeerId, LinkId) {
    match at.next().await {
        Some(Event::Connected { peer, link }) => (peer, link),
        other => panic!("expected Connected, not {other:?}"),
    }
}

async fn disconnected(at: &impl Transport, expected: LinkId) -> DisconnectReason {
    match at.next().await {
        Some(Event::Disconnected { link, reason, .. }) if link == expected => reason,
        other => panic!("expected Disconnected of link {expected}, not {other:?}"),
    }
}

async fn message(at: &impl Transport) -> (PeerId, LinkId, Vec<u8>) {
    match at.next().await {
        Some(Event::Message { from, link, bytes }) => (from, link, bytes),
        other => panic!("expected Message, not {other:?}"),
    }
}

//! Through a real relay on loopback.

use leno_transport_trait::TransportError;

use super::*;

async fn relay(secret: u8, listen_on: &str) -> Libp2p {
    let builder = builder(secret, listen_on).relay_for_others(4);
    Libp2p::listen(builder).await.unwrap()
}

/// An endpoint that can only be reached through a relay.
async fn behind(relay: &Address, secret: u8) -> Libp2p {
    let listen_on = format!("{relay}/p2p-circuit");
    Libp2p::listen(builder(secret, &listen_on)).await.unwrap()
}

/// Reads until there is a link to this peer.
async fn linked(at: &Libp2p, with: PeerId) -> LinkId {
    loop {
        match at.next().await {
            Some(Event::Connected { peer, link }) if peer == with => return link,
            Some(Event::Connected { .. } | Event::Disconnected { .. }) => {}
            other => panic!("expected Connected, not {other:?}"),
        }
    }
}

#[test]
fn peers_meet_through_a_relay() {
    run(async {
        for network in [TCP, QUIC] {
            let hub = relay(1, network).await;
            let bob = behind(&address(&hub), 2).await;
            let there = address(&bob);
            assert!(there.as_str().contains("/p2p-circuit/p2p/"), "{there}");
            let alice = listen(3, network).await;
            assert_eq!(alice.peer_of(&there), Some(bob.local()));
            assert_eq!(alice.dial(&there).await, Ok(bob.local()));
            let link = linked(&alice, bob.local()).await;
            // More than a relay's usual 128 KiB.
            alice.send(link, vec![7; 1_000_000]).await.unwrap();
            linked(&bob, alice.local()).await;
            assert_eq!(message(&bob).await, vec![7; 1_000_000]);
        }
    });
}

#[test]
fn place_at_a_relay_that_was_restarted_is_taken_again() {
    run(async {
        let hub = relay(1, TCP).await;
        let there = address(&hub);
        let bob = behind(&there, 2).await;
        let (place, _) = there.as_str().split_once("/p2p/").unwrap();
        drop(hub);
        assert!(matches!(bob.next().await, Some(Event::Connected { .. })));
        disconnected(&bob).await;
        let hub = loop {
            match Libp2p::listen(builder(1, place).relay_for_others(4)).await {
                Ok(hub) => break hub,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        linked(&bob, hub.local()).await;
        let alice = listen(3, TCP).await;
        // The place is asked for once the link is there; a dial before that is too early.
        let route = format!("{there}/p2p-circuit/p2p/{}", name(&bob))
            .parse()
            .unwrap();
        while alice.dial(&route).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        linked(&alice, bob.local()).await;
    });
}

/// What libp2p calls it, which stands at the end of its addresses.
fn name(of: &Libp2p) -> String {
    let secret = libp2p::identity::Keypair::ed25519_from_bytes([2; 32]).unwrap();
    let name = secret.public().to_peer_id().to_string();
    assert!(of.addresses().iter().all(|it| it.as_str().ends_with(&name)));
    name
}

#[test]
fn endpoint_that_is_no_relay_passes_nobody_on() {
    run(async {
        let plain = listen(1, TCP).await;
        let there = address(&plain);
        let listening = behind(&there, 2);
        let bob = tokio::time::timeout(Duration::from_secs(10), listening).await;
        let bob = bob.expect("it does not wait for ever");
        assert_eq!(bob.addresses(), []);
        let alice = listen(3, TCP).await;
        let route = format!("{}/p2p-circuit/p2p/{}", address(&plain), name(&bob));
        let refused = alice.dial(&route.parse().unwrap()).await;
        assert!(
            matches!(refused, Err(TransportError::Unreachable { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn another_device_behind_the_relay_than_named_is_not_taken_for_it() {
    run(async {
        let hub = relay(1, TCP).await;
        let _bob = behind(&address(&hub), 2).await;
        let (alice, carol) = (listen(3, TCP).await, listen(4, TCP).await);
        let carols = address(&carol);
        let (_, carols) = carols.as_str().rsplit_once("/p2p/").unwrap();
        let route = format!("{}/p2p-circuit/p2p/{carols}", address(&hub));
        let refused = alice.dial(&route.parse().unwrap()).await;
        assert!(
            matches!(refused, Err(TransportError::Unreachable { .. })),
            "carol has no place there: {refused:?}"
        );
    });
}

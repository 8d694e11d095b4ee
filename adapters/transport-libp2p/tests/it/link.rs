use futures_util::future::{join, join_all};
use leno_transport_libp2p::ListenError;
use leno_transport_trait::{LinkId, TransportError};

use super::*;

#[test]
fn both_networks_are_listed_with_our_name() {
    run(async {
        let builder = Builder::new([1; 32])
            .listen_on([TCP, QUIC])
            .announce(["/ip4/192.0.2.1/tcp/1"]);
        let alice = Libp2p::listen(builder).await.unwrap();
        let texts: Vec<String> = alice.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[0].starts_with("/ip4/192.0.2.1/tcp/1/p2p/12D3"));
        assert!(texts[1].starts_with("/ip4/127.0.0.1/tcp/"), "{texts:?}");
        assert!(texts[2].contains("/quic-v1/p2p/12D3"), "{texts:?}");
    });
}

#[test]
fn address_without_a_name_is_dialled_and_names_who_is_there() {
    run(async {
        let (alice, bob) = (listen(1, TCP).await, listen(2, QUIC).await);
        let text = address(&bob).to_string();
        let (place, _) = text.split_once("/p2p/").unwrap();
        assert_eq!(alice.dial(&place.parse().unwrap()).await, Ok(bob.local()));
        let own = address(&alice).to_string();
        let own: Address = own.split_once("/p2p/").unwrap().0.parse().unwrap();
        let refused = alice.dial(&own).await;
        assert_eq!(refused, Err(TransportError::DialledSelf { address: own }));
    });
}

#[test]
fn another_device_than_the_address_names_is_refused() {
    run(async {
        for network in [TCP, QUIC] {
            let (alice, bob) = (listen(1, network).await, listen(2, network).await);
            let carol = listen(3, network).await;
            let (there, _) = address(&bob).as_str().split_once("/p2p/").map(own).unwrap();
            let (_, name) = address(&carol)
                .as_str()
                .split_once("/p2p/")
                .map(own)
                .unwrap();
            let mixed = format!("{there}/p2p/{name}").parse().unwrap();
            let expected = TransportError::WrongIdentity {
                expected: carol.local(),
                found: bob.local(),
            };
            assert_eq!(alice.dial(&mixed).await, Err(expected));
            // No link came of it: the next one is the first.
            alice.dial(&address(&bob)).await.unwrap();
            assert_eq!(connected(&alice).await, (bob.local(), LinkId(1)));
        }
    });
}

fn own((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

/// Listens again where somebody listened before, as soon as the system allows it.
async fn listen_again(secret: u8, at: &Address) -> Libp2p {
    let (place, _) = at.as_str().split_once("/p2p/").unwrap();
    loop {
        match Libp2p::listen(builder(secret, place)).await {
            Ok(endpoint) => return endpoint,
            Err(ListenError::CannotListen { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn restarted_peer_is_dialled_again() {
    run(async {
        // The dialler has the higher id in one of the two rounds, and is not the arbiter then.
        for (near, far, network) in [(1, 2, TCP), (2, 1, TCP), (1, 2, QUIC), (2, 1, QUIC)] {
            let (alice, bob) = (listen(near, network).await, listen(far, network).await);
            let there = address(&bob);
            alice.dial(&there).await.unwrap();
            let (peer, first) = connected(&alice).await;
            // A crash: nothing is said.
            drop(bob);
            let bob = listen_again(far, &there).await;
            let (ended, _) = disconnected(&alice).await;
            assert_eq!(ended, first);
            let (again, second) = connected(&alice).await;
            assert_eq!(again, peer);
            assert!(second > first);
            alice.send(second, vec![7]).await.unwrap();
            connected(&bob).await;
            assert_eq!(message(&bob).await, [7]);

            // A close in good order, said and seen.
            bob.close().await;
            assert_eq!(
                disconnected(&alice).await,
                (second, DisconnectReason::PeerClosed)
            );
            let bob = listen_again(far, &there).await;
            let (_, third) = connected(&alice).await;
            assert!(third > second);
            connected(&bob).await;
        }
    });
}

#[test]
fn everybody_dialling_everybody_gives_one_link_each() {
    run(async {
        let peers = join_all((1..=6).map(|it| listen(it, TCP))).await;
        let dials = peers.iter().flat_map(|from| {
            let others = peers.iter().filter(move |to| to.local() != from.local());
            others.map(move |to| {
                let there = address(to);
                async move { from.dial(&there).await.expect("dials") }
            })
        });
        join_all(dials).await;
        let mut links = Vec::new();
        for peer in &peers {
            for _ in 0..peers.len() - 1 {
                let (_, link) = connected(peer).await;
                links.push((peer, link));
            }
        }
        // Any other event would come before the message of the last one to speak.
        for (from, link) in links {
            from.send(link, vec![1]).await.unwrap();
        }
        for peer in &peers {
            for _ in 0..peers.len() - 1 {
                message(peer).await;
            }
        }
    });
}

#[test]
fn connections_are_limited() {
    run(async {
        let alice = Libp2p::listen(builder(1, TCP).connections_max(1))
            .await
            .unwrap();
        let (bob, carol) = (listen(2, TCP).await, listen(3, TCP).await);
        bob.dial(&address(&alice)).await.unwrap();
        let refused = carol.dial(&address(&alice)).await;
        assert!(
            matches!(refused, Err(TransportError::Unreachable { .. })),
            "{refused:?}"
        );
        let refused = alice.dial(&address(&carol)).await;
        assert!(
            matches!(refused, Err(TransportError::TooManyConnections { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn bytes_on_the_wire_are_counted() {
    run(async {
        let (alice, bob) = (listen(1, TCP).await, listen(2, TCP).await);
        alice.dial(&address(&bob)).await.unwrap();
        let (_, link) = connected(&alice).await;
        alice.send(link, vec![0; 1_000]).await.unwrap();
        connected(&bob).await;
        message(&bob).await;
        let greeting = 16;
        assert_eq!(bob.bytes_on_wire(), (greeting, greeting + 4 + 1_000));
        assert_eq!(alice.bytes_on_wire(), (greeting + 4 + 1_000, greeting));
    });
}

#[test]
fn unusable_addresses_to_listen_on_are_refused() {
    run(async {
        let check = |text: &'static str| async move {
            Libp2p::listen(builder(1, text)).await.expect_err("refuses")
        };
        let refused = check("here").await;
        assert!(
            matches!(refused, ListenError::AddressNotUnderstood { .. }),
            "{refused:?}"
        );
        // An address of documentation, which no machine has.
        let refused = check("/ip4/192.0.2.1/tcp/0").await;
        assert!(
            matches!(refused, ListenError::CannotListen { .. }),
            "{refused:?}"
        );
    });
}

#[test]
fn hang_up_stops_a_dial_under_way() {
    run(async {
        for (near, far) in [(1, 2), (2, 1)] {
            let (alice, bob) = (listen(near, TCP).await, listen(far, TCP).await);
            let there = address(&bob);
            let (dialled, ()) = join(alice.dial(&there), alice.hang_up(bob.local())).await;
            assert!(
                matches!(dialled, Err(TransportError::Unreachable { .. })),
                "{dialled:?}"
            );
            // Nobody heard of it: what comes first is the next link, on both sides.
            alice.dial(&there).await.unwrap();
            assert_eq!(connected(&alice).await, (bob.local(), LinkId(1)));
            assert_eq!(connected(&bob).await, (alice.local(), LinkId(1)));
            alice.send(LinkId(1), vec![1]).await.unwrap();
            assert_eq!(message(&bob).await, [1]);
        }
    });
}

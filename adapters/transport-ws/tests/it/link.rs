use futures_util::future::{join, join_all};
use leno_transport_trait::TransportError;
use leno_transport_ws::ListenError;

use super::*;

#[test]
fn addresses_name_the_device_and_what_is_announced_comes_first() {
    run(async {
        let builder = builder(1)
            .listen_on(["127.0.0.1:0", "0.0.0.0:0"])
            .announce(["ws://peer.example/some/leno"]);
        let alice = Ws::listen(builder).await.unwrap();
        let name = alice.local().to_string();
        let texts: Vec<String> = alice.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], format!("ws://peer.example/some/leno/{name}"));
        assert!(texts.iter().all(|it| it.ends_with(&name)), "{texts:?}");
        assert!(texts.iter().all(|it| !it.contains("0.0.0.0")), "{texts:?}");
        assert!(texts.last().unwrap().starts_with("ws://127.0.0.1:"));
    });
}

#[test]
fn address_without_a_name_is_dialled_and_names_who_is_there() {
    run(async {
        let (alice, bob) = (listen(1).await, listen(2).await);
        let there = place(&bob).parse().unwrap();
        assert_eq!(alice.dial(&there).await, Ok(bob.local()));
        let own: Address = place(&alice).parse().unwrap();
        let refused = alice.dial(&own).await;
        assert_eq!(refused, Err(TransportError::DialledSelf { address: own }));
    });
}

#[test]
fn another_device_than_the_address_names_is_refused() {
    run(async {
        let (alice, bob, carol) = (listen(1).await, listen(2).await, listen(3).await);
        let mixed = format!("{}/{}", place(&bob), carol.local());
        let expected = TransportError::WrongIdentity {
            expected: carol.local(),
            found: bob.local(),
        };
        assert_eq!(alice.dial(&mixed.parse().unwrap()).await, Err(expected));
        // No link came of it, and bob never heard who asked: the next link is the first.
        alice.dial(&address(&bob)).await.unwrap();
        assert_eq!(connected(&alice).await, (bob.local(), LinkId(1)));
        assert_eq!(connected(&bob).await, (alice.local(), LinkId(1)));
    });
}

/// An endpoint where another one was; the port may need a moment to be free.
async fn listen_again(secret: u8, there: &Address) -> Ws {
    let (socket, _) = there.as_str()["ws://".len()..].split_once('/').unwrap();
    loop {
        match Ws::listen(builder(secret).listen_on([socket])).await {
            Ok(ws) => return ws,
            Err(ListenError::CannotListen { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn lost_peer_is_dialled_again_until_somebody_hangs_up() {
    run(async {
        // Either side may be the arbiter.
        for (near, far) in [(1, 2), (2, 1)] {
            let (alice, bob) = (listen(near).await, listen(far).await);
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

            // A hang-up ends it for good: whatever comes next is asked for.
            bob.hang_up(alice.local()).await;
            disconnected(&bob).await;
            let (_, reason) = disconnected(&alice).await;
            assert_eq!(reason, DisconnectReason::PeerHungUp);
            bob.dial(&address(&alice)).await.unwrap();
            let (_, fourth) = connected(&alice).await;
            assert_eq!(fourth.0, third.0 + 1);
        }
    });
}

#[test]
fn everybody_dialling_everybody_gives_one_link_each() {
    run(async {
        let peers = join_all((1..=6).map(listen)).await;
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
        let alice = Ws::listen(builder(1).connections_max(1)).await.unwrap();
        let (bob, carol) = (listen(2).await, listen(3).await);
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
        let (alice, bob) = (listen(1).await, listen(2).await);
        alice.dial(&address(&bob)).await.unwrap();
        let (_, link) = connected(&alice).await;
        alice.send(link, vec![0; 40_000]).await.unwrap();
        connected(&bob).await;
        message(&bob).await;
        let tag = 16;
        let greeting = 1 + 16 + tag;
        // Two parts of 16 KiB and the rest.
        let message = 40_000 + 3 * (1 + tag);
        assert_eq!(bob.bytes_on_wire(), (greeting, greeting + message));
        assert_eq!(alice.bytes_on_wire(), (greeting + message, greeting));
    });
}

#[test]
fn unusable_addresses_to_listen_on_are_refused() {
    run(async {
        let check = |builder: Builder| async { Ws::listen(builder).await.expect_err("refuses") };
        let refused = check(builder(1).listen_on(["here"])).await;
        assert!(matches!(refused, ListenError::AddressNotUnderstood { .. }));
        let refused = check(builder(1).announce(["http://peer.example"])).await;
        assert!(matches!(refused, ListenError::AddressNotUnderstood { .. }));
        // An address of documentation, which no machine has.
        let refused = check(builder(1).listen_on(["192.0.2.1:0"])).await;
        assert!(matches!(refused, ListenError::CannotListen { .. }));
    });
}

#[test]
fn hang_up_stops_a_dial_under_way() {
    run(async {
        for (near, far) in [(1, 2), (2, 1)] {
            let (alice, bob) = (listen(near).await, listen(far).await);
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

#[test]
fn peer_without_a_sign_of_life_is_lost_and_one_with_signs_is_kept() {
    run(async {
        let (short, long) = (Duration::from_millis(300), Duration::from_secs(50));
        let alice = Ws::listen(builder(1).alive(short / 6, short))
            .await
            .unwrap();
        let quiet = builder(2).alive(long, long).listen_on([HERE; 0]);
        let quiet = Ws::listen(quiet).await.unwrap();
        quiet.dial(&address(&alice)).await.unwrap();
        let (_, link) = connected(&alice).await;
        let (ended, reason) = disconnected(&alice).await;
        assert_eq!(ended, link);
        assert!(
            matches!(reason, DisconnectReason::Lost { .. }),
            "{reason:?}"
        );
        quiet.close().await;

        let bob = Ws::listen(builder(3).alive(short / 6, long)).await.unwrap();
        alice.dial(&address(&bob)).await.unwrap();
        let (peer, link) = loop {
            // The quiet one may have come back for a moment.
            match alice.next().await {
                Some(Event::Connected { peer, link }) if peer == bob.local() => break (peer, link),
                Some(_) => {}
                None => panic!("closed"),
            }
        };
        tokio::time::sleep(2 * short).await;
        alice.send(link, vec![1]).await.unwrap();
        connected(&bob).await;
        assert_eq!((peer, message(&bob).await), (bob.local(), vec![1]));
    });
}

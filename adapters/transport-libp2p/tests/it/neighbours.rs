//! Who is on the local network, by multicast, which some machines do not have.

use std::net::{Ipv4Addr, UdpSocket};

use super::*;

/// Whether what this machine says to a group on its network comes back to it.
fn has_multicast() -> bool {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let port = socket.local_addr()?.port();
        socket.send_to(b"leno", (group, port))?;
        socket.recv(&mut [0; 16])
    };
    probe().is_ok()
}

#[test]
fn neighbours_find_each_other_and_nobody_is_dialled() {
    if !has_multicast() {
        println!("skipped: no multicast on this machine");
        return;
    }
    run(async {
        let everywhere = "/ip4/0.0.0.0/tcp/0";
        let near = |secret| Libp2p::listen(builder(secret, everywhere).find_neighbours());
        let (alice, bob) = (near(1).await.unwrap(), near(2).await.unwrap());
        for (at, other) in [(&alice, &bob), (&bob, &alice)] {
            loop {
                match at.next().await {
                    // Others may be on this network.
                    Some(Event::Discovered { peer, address }) if peer == other.local() => {
                        assert_eq!(at.peer_of(&address), Some(peer));
                        break;
                    }
                    Some(Event::Discovered { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        let silent = listen(3, everywhere).await;
        let found = async {
            loop {
                if let Some(Event::Discovered { peer, .. }) = alice.next().await {
                    assert_ne!(peer, silent.local(), "it did not ask to be found");
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_millis(500), found).await;
        assert!(waited.is_err());
    });
}

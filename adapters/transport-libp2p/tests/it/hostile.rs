use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use leno_transport_trait::MESSAGE_BYTES_MAX;
use libp2p::identity::Keypair;
use libp2p::swarm::StreamProtocol;
use libp2p::{Multiaddr, SwarmBuilder, noise, tcp, yamux};

use super::*;

const LENO: StreamProtocol = StreamProtocol::new("/leno/1");

/// What a stranger, not bound to our rules, says to alice.
struct Speech {
    keypair: Keypair,
    to: Address,
    greeting: [u8; 16],
    bytes: Vec<u8>,
    /// Whether it ends its stream after that.
    ends: bool,
}

/// Lets a stranger speak, and returns why alice's link to it ended.
async fn end_by(bytes: Vec<u8>, ends: bool) -> DisconnectReason {
    let alice = builder(1, TCP).stall_timeout(Duration::from_millis(300));
    let alice = Libp2p::listen(alice).await.unwrap();
    let keypair = Keypair::generate_ed25519();
    let to = address(&alice);
    let stranger = tokio::spawn(speak(Speech {
        keypair,
        to,
        greeting: [0; 16],
        bytes,
        ends,
    }));
    connected(&alice).await;
    let (_, reason) = disconnected(&alice).await;
    stranger.abort();

    // The endpoint is unharmed.
    let bob = listen(2, TCP).await;
    assert_eq!(bob.dial(&address(&alice)).await, Ok(alice.local()));
    reason
}

async fn speak(speech: Speech) {
    let to: Multiaddr = speech.to.as_str().parse().unwrap();
    let Some(libp2p::multiaddr::Protocol::P2p(peer)) = to.iter().last() else {
        panic!("named")
    };
    let mut swarm = SwarmBuilder::with_existing_identity(speech.keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .build();
    let mut control = swarm.behaviour().new_control();
    swarm.dial(to).unwrap();
    let speaking = async {
        let mut stream = control.open_stream(peer, LENO).await.unwrap();
        stream.write_all(&speech.greeting).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut [0; 16]).await.unwrap();
        stream.write_all(&speech.bytes).await.unwrap();
        stream.flush().await.unwrap();
        if speech.ends {
            stream.close().await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let driving = async { while swarm.next().await.is_some() {} };
    futures_util::future::join(speaking, driving).await;
}

#[test]
fn peer_that_begins_anew_replaces_its_link() {
    run(async {
        let alice = listen(1, TCP).await;
        // Alice is the arbiter: it is she who has to see that her link is stale.
        let keypair = loop {
            let keypair = Keypair::generate_ed25519();
            let key = keypair.public().try_into_ed25519().unwrap();
            if key.to_bytes() > alice.local().0 {
                break keypair;
            }
        };
        let begin = |instance: u8, said: u8| {
            let speech = Speech {
                keypair: keypair.clone(),
                to: address(&alice),
                greeting: [instance; 16],
                bytes: vec![0, 0, 0, 1, said],
                ends: false,
            };
            tokio::spawn(speak(speech))
        };
        // Its tasks go on, so the first connection is whole when the second one comes.
        let first = begin(1, 11);
        let (peer, old) = connected(&alice).await;
        assert_eq!(message(&alice).await, [11]);
        let second = begin(2, 22);
        assert_eq!(
            disconnected(&alice).await,
            (old, DisconnectReason::Replaced)
        );
        let (again, new) = connected(&alice).await;
        assert_eq!(again, peer);
        assert!(new > old);
        assert_eq!(message(&alice).await, [22]);

        // The same greeting again is a duplicate, of which nothing is heard.
        let duplicate = begin(2, 33);
        assert!(duplicate.await.is_err(), "its stream was closed");
        alice.send(new, vec![1]).await.unwrap();
        alice.hang_up(peer).await;
        assert_eq!(disconnected(&alice).await, (new, DisconnectReason::HungUp));
        first.abort();
        second.abort();
    });
}

#[test]
fn length_above_the_limit_is_refused() {
    run(async {
        let max = MESSAGE_BYTES_MAX as u64;
        for len in [
            u32::MAX,
            0x8000_0001,
            0x7fff_ffff,
            MESSAGE_BYTES_MAX as u32 + 1,
        ] {
            let reason = end_by(len.to_be_bytes().into(), false).await;
            assert_eq!(
                reason,
                DisconnectReason::MessageTooLarge {
                    len: len.into(),
                    max
                }
            );
        }
    });
}

#[test]
fn truncated_frame_is_named() {
    run(async {
        let reason = end_by(vec![0, 0], true).await;
        assert_eq!(reason, DisconnectReason::Truncated { needed: 4, had: 2 });
        let reason = end_by(vec![0, 0x10, 0, 0, 1, 2, 3], true).await;
        assert_eq!(
            reason,
            DisconnectReason::Truncated {
                needed: 0x10_0000,
                had: 3
            }
        );
    });
}

#[test]
fn frame_that_is_never_finished_is_not_waited_for() {
    run(async {
        let reason = end_by(vec![0, 0, 0, 9, 1], false).await;
        assert_eq!(reason, DisconnectReason::Stalled { millis: 300 });
    });
}

#[test]
fn end_between_frames_is_a_close() {
    run(async {
        assert_eq!(end_by(vec![], true).await, DisconnectReason::PeerClosed);
    });
}

#[test]
fn hang_up_of_a_stranger_is_a_hang_up() {
    run(async {
        assert_eq!(
            end_by(vec![0x80, 0, 0, 0], true).await,
            DisconnectReason::PeerHungUp
        );
    });
}

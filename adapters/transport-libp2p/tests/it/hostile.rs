use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use leno_transport_trait::MESSAGE_BYTES_MAX;
use libp2p::identity::Keypair;
use libp2p::swarm::StreamProtocol;
use libp2p::{Multiaddr, SwarmBuilder, noise, tcp, yamux};

use super::*;

const LENO: StreamProtocol = StreamProtocol::new("/leno/1");

/// Lets a stranger, not bound to our rules, say `bytes` after a greeting, and end its stream if told
/// so. Returns why alice's link to it ended.
async fn end_by(bytes: Vec<u8>, ends: bool) -> DisconnectReason {
    let alice = builder(1, TCP).stall_timeout(Duration::from_millis(300));
    let alice = Libp2p::listen(alice).await.unwrap();
    let stranger = tokio::spawn(speak(
        Keypair::generate_ed25519(),
        address(&alice),
        bytes,
        ends,
    ));
    connected(&alice).await;
    let (_, reason) = disconnected(&alice).await;
    stranger.abort();

    // The endpoint is unharmed.
    let bob = listen(2, TCP).await;
    assert_eq!(bob.dial(&address(&alice)).await, Ok(alice.local()));
    reason
}

async fn speak(keypair: Keypair, to: Address, bytes: Vec<u8>, ends: bool) {
    let to: Multiaddr = to.as_str().parse().unwrap();
    let Some(libp2p::multiaddr::Protocol::P2p(peer)) = to.iter().last() else {
        panic!("named")
    };
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
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
        // There has to be a connection first, which this control does not wait for.
        let mut stream = control.open_stream(peer, LENO).await.unwrap();
        let mut greeting = [0; 16];
        stream.write_all(&greeting).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        if ends {
            stream.close().await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let driving = async { while swarm.next().await.is_some() {} };
    futures_util::future::join(speaking, driving).await;
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

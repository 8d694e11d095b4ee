//! Strangers who are not bound to our rules. What they speak is written here from `docs/format.md`,
//! and not by the code under test.

use futures_util::{SinkExt, StreamExt};
use leno_identity::{AgreementKey, Label, SigningKey};
use leno_transport_trait::MESSAGE_BYTES_MAX;
use snow::TransportState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;

type Socket = WebSocketStream<TcpStream>;

/// Asks for a web socket, with this path and this subprotocol.
async fn upgrade(to: &Ws, path: &str, protocol: &str) -> Option<Socket> {
    let url = place(to).replace("/leno", path);
    let socket = url["ws://".len()..].split('/').next().unwrap().to_owned();
    let mut request = url.into_client_request().unwrap();
    let protocol = protocol.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", protocol);
    let tcp = TcpStream::connect(socket).await.unwrap();
    let upgraded = client_async(request, tcp).await;
    upgraded.ok().map(|(socket, _)| socket)
}

async fn socket(to: &Ws) -> Socket {
    upgrade(to, "/leno", "leno.1").await.unwrap()
}

/// A stranger with a device's key, and with what it proves it by.
struct Stranger {
    private: AgreementKey,
    credentials: Vec<u8>,
}

impl Stranger {
    fn new(device: u8) -> Self {
        let device = SigningKey::from_secret_bytes(&[device; 32]).unwrap();
        let private = AgreementKey::from_secret_bytes(&[99; 32]).unwrap();
        let public = private.public_key();
        let signature = device.sign(Label::CHANNEL_KEY, &[public.as_bytes()]);
        let credentials = [&device.verifying_key().to_bytes()[..], &signature].concat();
        Self {
            private,
            credentials,
        }
    }

    /// Proves itself, or tries to; returns the channel from its side.
    async fn shake_hands(&self, socket: &mut Socket) -> TransportState {
        let secret = self.private.to_secret_bytes();
        let pattern = "Noise_XX_25519_ChaChaPoly_SHA256".parse().unwrap();
        let builder = snow::Builder::new(pattern).prologue(b"leno.1").unwrap();
        let builder = builder.local_private_key(&*secret).unwrap();
        let mut state = builder.build_initiator().unwrap();
        let mut buffer = vec![0; 1024];
        let len = state.write_message(&[], &mut buffer).unwrap();
        say(socket, buffer.get(..len).unwrap()).await;
        let answer = hear(socket).await.unwrap();
        let len = state.read_message(&answer, &mut buffer).unwrap();
        assert_eq!(len, 96, "a device's key and a signature");
        let len = state.write_message(&self.credentials, &mut buffer).unwrap();
        say(socket, buffer.get(..len).unwrap()).await;
        state.into_transport_mode().unwrap()
    }
}

async fn say(socket: &mut Socket, bytes: &[u8]) {
    let sent = socket.send(Message::Binary(bytes.to_vec().into())).await;
    // The other side may have seen enough.
    let _ = sent;
}

async fn hear(socket: &mut Socket) -> Option<Vec<u8>> {
    match socket.next().await {
        Some(Ok(Message::Binary(bytes))) => Some(bytes.to_vec()),
        _ => None,
    }
}

fn seal(channel: &mut TransportState, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; plaintext.len() + 16];
    let len = channel.write_message(plaintext, &mut sealed).unwrap();
    sealed.truncate(len);
    sealed
}

async fn alice() -> Ws {
    let builder = builder(1)
        .stall_timeout(Duration::from_millis(300))
        .handshake_timeout(Duration::from_millis(500));
    Ws::listen(builder).await.unwrap()
}

/// The endpoint is unharmed, and nothing of what was before is reported.
async fn is_unharmed(alice: &Ws) {
    let bob = listen(2).await;
    assert_eq!(bob.dial(&address(alice)).await, Ok(alice.local()));
    assert_eq!(connected(alice).await.0, bob.local());
}

/// A link, on which the stranger says what it wants.
async fn linked(alice: &Ws) -> (Socket, TransportState) {
    let mut socket = socket(alice).await;
    let mut channel = Stranger::new(77).shake_hands(&mut socket).await;
    let mut greeting = vec![2];
    greeting.extend([0; 16]);
    let greeting = seal(&mut channel, &greeting);
    say(&mut socket, &greeting).await;
    let mut plaintext = vec![0; 100];
    let answer = hear(&mut socket).await.unwrap();
    let len = channel.read_message(&answer, &mut plaintext).unwrap();
    assert_eq!((len, plaintext.first()), (17, Some(&2)), "greeted");
    connected(alice).await;
    (socket, channel)
}

/// Lets a stranger say these frames on a link, and returns why it ended.
async fn end_by(frames: &[&[u8]], ends: bool) -> DisconnectReason {
    let alice = alice().await;
    let (mut socket, mut channel) = linked(&alice).await;
    for frame in frames {
        let sealed = seal(&mut channel, frame);
        say(&mut socket, &sealed).await;
    }
    let kept = (!ends).then_some(socket);
    let (_, reason) = disconnected(&alice).await;
    drop(kept);
    is_unharmed(&alice).await;
    reason
}

#[test]
fn other_requests_than_ours_are_refused() {
    run(async {
        let alice = alice().await;
        assert!(upgrade(&alice, "/leno", "leno.1").await.is_some());
        assert!(upgrade(&alice, "/leno", "chat, leno.1").await.is_some());
        assert!(upgrade(&alice, "/other", "leno.1").await.is_none());
        assert!(upgrade(&alice, "/leno", "leno.2").await.is_none());
        is_unharmed(&alice).await;
    });
}

#[test]
fn garbage_is_hung_up_on() {
    run(async {
        let alice = alice().await;
        // Before HTTP's upgrade.
        let (there, _) = (place(&alice), ());
        let there = there["ws://".len()..].split('/').next().unwrap().to_owned();
        let mut tcp = TcpStream::connect(there).await.unwrap();
        tcp.write_all(&[0xff; 4096]).await.unwrap();
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
        // As the first message, of any length, and as the third one.
        for len in [0, 31, 32, 33, 65_535] {
            let mut socket = socket(&alice).await;
            say(&mut socket, &vec![0xff; len]).await;
            let answer = hear(&mut socket).await;
            assert_eq!(answer.is_some(), len == 32, "{len}");
            say(&mut socket, &[0xff; 160]).await;
            assert_eq!(hear(&mut socket).await, None);
        }
        is_unharmed(&alice).await;
    });
}

#[test]
fn text_is_refused() {
    run(async {
        let alice = alice().await;
        let mut early = socket(&alice).await;
        early.send(Message::Text("hello".into())).await.unwrap();
        assert_eq!(hear(&mut early).await, None);

        let (mut socket, _channel) = linked(&alice).await;
        socket.send(Message::Text("hello".into())).await.unwrap();
        let (_, reason) = disconnected(&alice).await;
        assert!(
            matches!(reason, DisconnectReason::Misbehaved { .. }),
            "{reason:?}"
        );
        is_unharmed(&alice).await;
    });
}

#[test]
fn device_that_does_not_prove_its_key_is_no_peer() {
    run(async {
        let alice = alice().await;
        let honest = Stranger::new(77);
        // Somebody else's name over his own signature; a signature of another key; cut; too long.
        let other = Stranger::new(78).credentials;
        let named = [&other[..32], &honest.credentials[32..]].concat();
        let device = SigningKey::from_secret_bytes(&[77; 32]).unwrap();
        let signature = device.sign(Label::CHANNEL_KEY, &[&[5; 32]]);
        let unbound = [&honest.credentials[..32], &signature].concat();
        let signature = device.sign(
            Label::SESSION_PROOF,
            &[honest.private.public_key().as_bytes()],
        );
        let relabelled = [&honest.credentials[..32], &signature].concat();
        let cut = honest.credentials[..95].to_vec();
        let long = [&honest.credentials[..], &[0]].concat();
        for credentials in [named, unbound, relabelled, cut, long, Vec::new()] {
            let stranger = Stranger {
                private: AgreementKey::from_secret_bytes(&[99; 32]).unwrap(),
                credentials,
            };
            let mut socket = socket(&alice).await;
            let mut channel = stranger.shake_hands(&mut socket).await;
            let greeting = seal(&mut channel, &[2; 17]);
            say(&mut socket, &greeting).await;
            assert_eq!(hear(&mut socket).await, None, "no word of alice's");
        }
        is_unharmed(&alice).await;
    });
}

#[test]
fn slow_strangers_are_closed_and_counted() {
    run(async {
        let builder = builder(1)
            .handshake_timeout(Duration::from_millis(400))
            .strangers_max(3, 2);
        let alice = Ws::listen(builder).await.unwrap();
        let there = place(&alice)["ws://".len()..]
            .split('/')
            .next()
            .unwrap()
            .to_owned();
        let mut first = TcpStream::connect(&there).await.unwrap();
        first.write_all(b"GET /leno HT").await.unwrap();
        let mut second = socket(&alice).await;
        // A third one from the same place is closed at once.
        let mut third = TcpStream::connect(&there).await.unwrap();
        assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0);
        // The others in time, and then there is room.
        assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(hear(&mut second).await, None);
        is_unharmed(&alice).await;
    });
}

#[test]
fn stranger_who_proves_its_key_and_does_not_greet_is_closed() {
    run(async {
        let alice = alice().await;
        let mut socket = socket(&alice).await;
        let mut channel = Stranger::new(77).shake_hands(&mut socket).await;
        // Alice greets first if she is not the arbiter of the two; then nothing comes any more.
        let mut plaintext = vec![0; 100];
        while let Some(frame) = hear(&mut socket).await {
            channel.read_message(&frame, &mut plaintext).unwrap();
            assert_eq!(plaintext[0], 2);
        }
        is_unharmed(&alice).await;
    });
}

#[test]
fn message_above_the_limit_is_refused() {
    run(async {
        let part = [&[0][..], &[7; 65_000]].concat();
        let count = MESSAGE_BYTES_MAX / 65_000 + 1;
        let frames = vec![&part[..]; count];
        let reason = end_by(&frames, false).await;
        let (len, max) = (count as u64 * 65_000, MESSAGE_BYTES_MAX as u64);
        assert_eq!(reason, DisconnectReason::MessageTooLarge { len, max });
    });
}

#[test]
fn web_socket_message_above_the_limit_is_refused() {
    run(async {
        let alice = alice().await;
        let (mut socket, _channel) = linked(&alice).await;
        say(&mut socket, &vec![0; 65_536]).await;
        let (_, reason) = disconnected(&alice).await;
        let (len, max) = (65_536, 65_535);
        assert_eq!(reason, DisconnectReason::MessageTooLarge { len, max });
        is_unharmed(&alice).await;
    });
}

#[test]
fn broken_frames_are_named() {
    run(async {
        for frame in [&[][..], &[0], &[6], &[3, 0], &[2; 17]] {
            let reason = end_by(&[frame], false).await;
            assert!(
                matches!(reason, DisconnectReason::Misbehaved { .. }),
                "{frame:?}: {reason:?}"
            );
        }
    });
}

#[test]
fn message_that_is_never_finished_is_not_waited_for() {
    run(async {
        let reason = end_by(&[&[0, 7]], false).await;
        assert_eq!(reason, DisconnectReason::Stalled { millis: 300 });
        // Signs of life do not help.
        let reason = end_by(&[&[0, 7], &[3], &[3]], false).await;
        assert_eq!(reason, DisconnectReason::Stalled { millis: 300 });
    });
}

#[test]
fn end_without_a_farewell_is_a_loss() {
    run(async {
        let reason = end_by(&[&[0, 7, 7]], true).await;
        let (needed, had) = (3, 2);
        assert_eq!(reason, DisconnectReason::Truncated { needed, had });
        let reason = end_by(&[], true).await;
        assert!(
            matches!(reason, DisconnectReason::Lost { .. }),
            "{reason:?}"
        );
    });
}

#[test]
fn farewells_are_believed() {
    run(async {
        assert_eq!(end_by(&[&[4]], false).await, DisconnectReason::PeerHungUp);
        assert_eq!(end_by(&[&[5]], false).await, DisconnectReason::PeerClosed);
    });
}

#[test]
fn what_is_not_of_the_channel_ends_the_link() {
    run(async {
        let alice = alice().await;
        let (mut socket, mut channel) = linked(&alice).await;
        let sealed = seal(&mut channel, &[1, 7]);
        say(&mut socket, &sealed).await;
        assert_eq!(message(&alice).await, [7]);
        // The same again: somebody on the way, perhaps.
        say(&mut socket, &sealed).await;
        let (_, reason) = disconnected(&alice).await;
        assert!(
            matches!(reason, DisconnectReason::Lost { .. }),
            "{reason:?}"
        );
        is_unharmed(&alice).await;
    });
}

#[test]
fn peer_that_takes_nothing_is_cut() {
    run(async {
        let alice = alice().await;
        let (socket, _channel) = linked(&alice).await;
        // It reads nothing, while alice has much to say.
        while alice.send(LinkId(1), vec![0; 1_000_000]).await.is_ok() {}
        let (_, reason) = disconnected(&alice).await;
        assert_eq!(reason, DisconnectReason::Stalled { millis: 300 });
        drop(socket);
    });
}

#[test]
fn pings_and_tiny_fragments_cost_nothing_and_help_nobody() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    run(async {
        let alice = alice().await;
        let (mut socket, mut channel) = linked(&alice).await;
        let sealed = seal(&mut channel, &[1, 7, 8]);
        let last = sealed.len() - 1;
        for (at, byte) in sealed.iter().enumerate() {
            let kind = if at == 0 {
                Data::Binary
            } else {
                Data::Continue
            };
            let frame = Frame::message(vec![*byte], OpCode::Data(kind), at == last);
            socket.send(Message::Frame(frame)).await.unwrap();
            socket
                .send(Message::Ping(vec![0; 100].into()))
                .await
                .unwrap();
        }
        assert_eq!(message(&alice).await, [7, 8]);
    });
}

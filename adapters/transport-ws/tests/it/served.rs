//! Connections that somebody else accepted.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;

/// A web server of somebody else, which hands over the connection.
async fn web_server() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = listener.local_addr().unwrap();
    let address = format!("ws://{socket}/hub/leno").parse().unwrap();
    (listener, address)
}

#[test]
fn accepted_connection_is_handed_over() {
    run(async {
        let hub = Ws::listen(Builder::new([1; 32])).await.unwrap();
        assert_eq!(hub.addresses(), []);
        let alice = listen(2).await;
        let (listener, there) = web_server().await;
        let serving = async {
            let (tcp, from) = listener.accept().await.unwrap();
            hub.accept(tcp, Some(from.ip())).unwrap();
        };
        let (dialled, ()) = futures_util::future::join(alice.dial(&there), serving).await;
        assert_eq!(dialled, Ok(hub.local()));
        let (_, link) = connected(&hub).await;
        hub.send(link, vec![7]).await.unwrap();
        connected(&alice).await;
        assert_eq!(message(&alice).await, [7]);
    });
}

#[test]
fn upgraded_connection_is_handed_over() {
    run(async {
        let hub = Ws::listen(Builder::new([1; 32])).await.unwrap();
        let alice = listen(2).await;
        let (listener, there) = web_server().await;
        let serving = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(tcp.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let header = |name: &str| {
                let mut lines = request.lines().filter_map(|it| it.split_once(": "));
                let found = lines.find(|(it, _)| it.eq_ignore_ascii_case(name));
                found.unwrap().1.to_owned()
            };
            assert!(request.starts_with("GET /hub/leno HTTP/1.1\r\n"));
            assert_eq!(header("Sec-WebSocket-Protocol"), "leno.1");
            let key = derive_accept_key(header("Sec-WebSocket-Key").as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Protocol: leno.1\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
            );
            tcp.write_all(answer.as_bytes()).await.unwrap();
            hub.accept_upgraded(tcp, None).unwrap();
        };
        let (dialled, ()) = futures_util::future::join(alice.dial(&there), serving).await;
        assert_eq!(dialled, Ok(hub.local()));
        connected(&hub).await;
    });
}

#[test]
fn nothing_is_handed_over_to_a_full_or_closed_endpoint() {
    use leno_transport_trait::TransportError;
    run(async {
        let hub = Ws::listen(Builder::new([1; 32]).strangers_max(1, 1))
            .await
            .unwrap();
        let silent = || tokio::io::duplex(64);
        let (first, _kept) = silent();
        assert_eq!(hub.accept(first, None), Ok(()));
        let refused = hub.accept(silent().0, None);
        assert!(matches!(
            refused,
            Err(TransportError::TooManyConnections { .. })
        ));
        hub.close().await;
        let refused = hub.accept(silent().0, None);
        assert_eq!(refused, Err(TransportError::Closed));
    });
}

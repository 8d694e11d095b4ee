//! Web sockets below the channel: how one comes about, and what passes for a message on it.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use leno_transport_trait::DisconnectReason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::handshake::server::{
    Callback, ErrorResponse, Request, Response,
};
use tokio_tungstenite::tungstenite::http::{self, HeaderMap, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use crate::address::{Place, is_ours};
use crate::noise::PROTOCOL;
use crate::tls::Tls;
use crate::wire::NOISE_BYTES_MAX;

const SUBPROTOCOL: &str = "sec-websocket-protocol";

/// How much of what is to be sent is gathered before it goes out, in bytes.
const GATHERED_BYTES: usize = 32 * 1024;

/// A connection of bytes, whatever is below.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A web socket over any connection.
pub(crate) type Socket = WebSocketStream<Box<dyn Io>>;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(GATHERED_BYTES)
        // Nothing is written while this much waits to go out, so that a slow peer costs no memory.
        .max_write_buffer_size(2 * GATHERED_BYTES + NOISE_BYTES_MAX)
        .max_message_size(Some(NOISE_BYTES_MAX))
        .max_frame_size(Some(NOISE_BYTES_MAX))
}

/// Dials: TCP, TLS if the address says so, and HTTP's upgrade.
pub(crate) async fn connect(place: &Place, tls: &Tls) -> Result<Socket, String> {
    let tcp = TcpStream::connect((place.host.as_str(), place.port)).await;
    let tcp = tcp.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let io: Box<dyn Io> = match place.is_tls {
        true => tls.connect(&place.host, tcp).await?,
        false => Box::new(tcp),
    };
    let request = place.url.as_str().into_client_request();
    let mut request = request.map_err(|error| error.to_string())?;
    let offered = HeaderValue::from_static(PROTOCOL);
    request.headers_mut().insert(SUBPROTOCOL, offered);
    // It refuses a server that does not choose our protocol.
    let upgraded = client_async_with_config(request, io, Some(config())).await;
    upgraded
        .map(|(socket, _)| socket)
        .map_err(|error| error.to_string())
}

/// Answers HTTP's upgrade.
pub(crate) async fn upgrade(io: Box<dyn Io>) -> Result<Socket, String> {
    let upgraded = accept_hdr_async_with_config(io, Upgrade, Some(config())).await;
    upgraded.map_err(|error| error.to_string())
}

/// Takes a connection on which somebody else answered HTTP's upgrade.
pub(crate) async fn adopt(io: Box<dyn Io>) -> Socket {
    Socket::from_raw_socket(io, Role::Server, Some(config())).await
}

/// Lets in who asks for our path and our protocol. Where the request comes from, as browsers tell in
/// `Origin`, is of no interest: no cookie and no address opens anything here, only a device's key does.
struct Upgrade;

impl Callback for Upgrade {
    fn on_request(
        self,
        request: &Request,
        mut answer: Response,
    ) -> Result<Response, ErrorResponse> {
        if !is_ours(request.uri().path()) {
            return Err(refusal(StatusCode::NOT_FOUND));
        }
        if !offers_ours(request.headers()) {
            return Err(refusal(StatusCode::BAD_REQUEST));
        }
        let chosen = HeaderValue::from_static(PROTOCOL);
        answer.headers_mut().insert(SUBPROTOCOL, chosen);
        Ok(answer)
    }
}

/// What to answer to a request for HTTP's upgrade that somebody else read, or why it is refused.
pub(crate) fn answer<B>(request: &http::Request<B>) -> Result<http::Response<()>, StatusCode> {
    if !is_ours(request.uri().path()) {
        return Err(StatusCode::NOT_FOUND);
    }
    if !offers_ours(request.headers()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let answer = create_response_with_body(request, || ());
    let mut answer = answer.map_err(|_| StatusCode::BAD_REQUEST)?;
    let chosen = HeaderValue::from_static(PROTOCOL);
    answer.headers_mut().insert(SUBPROTOCOL, chosen);
    Ok(answer)
}

fn offers_ours(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(SUBPROTOCOL).into_iter();
    let mut offered = offered.filter_map(|it| it.to_str().ok());
    offered.any(|it| it.split(',').any(|name| name.trim() == PROTOCOL))
}

fn refusal(status: StatusCode) -> ErrorResponse {
    let mut answer = ErrorResponse::new(None);
    *answer.status_mut() = status;
    answer
}

/// Waits for the next binary message; `None` if the other side ended the connection.
///
/// The library answers pings by itself. Neither they nor the end of a web socket are authenticated, so
/// nothing is concluded from them: what they could say is said by frames within the channel.
pub(crate) async fn receive(
    stream: &mut SplitStream<Socket>,
) -> Result<Option<Bytes>, DisconnectReason> {
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                let detail = "a message of text".to_owned();
                return Err(DisconnectReason::Misbehaved { detail });
            }
            None | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) => return Ok(None),
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return Ok(None);
            }
            Some(Err(error)) => return Err(reason(&error)),
        }
    }
}

/// Hands a binary message over; it may be gathered until the next flush.
pub(crate) async fn feed(
    sink: &mut SplitSink<Socket, Message>,
    bytes: Vec<u8>,
) -> Result<(), DisconnectReason> {
    let fed = sink.feed(Message::Binary(bytes.into())).await;
    fed.map_err(|error| reason(&error))
}

/// Lets everything gathered out.
pub(crate) async fn flush(sink: &mut SplitSink<Socket, Message>) -> Result<(), DisconnectReason> {
    sink.flush().await.map_err(|error| reason(&error))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else breaks a connection, it is lost"
)]
fn reason(error: &Error) -> DisconnectReason {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            DisconnectReason::MessageTooLarge {
                len: *size as u64,
                max: *max_size as u64,
            }
        }
        error => DisconnectReason::Lost {
            detail: error.to_string(),
        },
    }
}

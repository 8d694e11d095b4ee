//! Listening sockets, and the addresses that lead to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::address::reach;
use crate::builder::ListenError;
use crate::endpoint::Endpoint;

/// How long no connection is taken after the system had none to give, out of memory or files.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn bind(text: &str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let socket: SocketAddr = text
        .parse()
        .map_err(|_| ListenError::AddressNotUnderstood {
            address: text.to_owned(),
            detail: "it is not an IP address and a port".to_owned(),
        })?;
    let cannot_listen = |error: std::io::Error| ListenError::CannotListen {
        address: text.to_owned(),
        detail: error.to_string(),
    };
    let listener = TcpListener::bind(socket).await.map_err(cannot_listen)?;
    let socket = listener.local_addr().map_err(cannot_listen)?;
    Ok((listener, socket))
}

/// Takes connections until the task is ended.
pub(crate) async fn serve(endpoint: Arc<Endpoint>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                // Without it messages are late, and nothing else is wrong.
                let _ = tcp.set_nodelay(true);
                // Beyond the limits the connection is dropped, which closes it.
                endpoint.accept(Box::new(tcp), Some(from.ip()), false);
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// The sockets by which others reach ours: in the place of "every interface" the one that leads
/// outwards, and loopback. What leads here from farthest comes first.
pub(crate) fn reachable(listening: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut sockets = Vec::new();
    for socket in listening {
        let (outward, loopback) = match socket.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (outward_v4(), Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => (outward_v6(), Ipv6Addr::LOCALHOST.into()),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => (None, ip),
        };
        let ips = outward.into_iter().chain([loopback]);
        sockets.extend(ips.map(|ip| SocketAddr::new(ip, socket.port())));
    }
    // Stable: among equals the order of listening stays.
    sockets.sort_by_key(|it| reach(it.ip()));
    sockets
}

fn outward_v4() -> Option<IpAddr> {
    outward(
        (Ipv4Addr::UNSPECIFIED, 0).into(),
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
    )
}

fn outward_v6() -> Option<IpAddr> {
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    outward((Ipv6Addr::UNSPECIFIED, 0).into(), (documentation, 9).into())
}

/// The address from which this machine would send to `to`. To connect a UDP socket asks the routing
/// table and sends nothing.
fn outward(any: SocketAddr, to: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

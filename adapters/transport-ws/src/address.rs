//! `ws://host:port/leno/<device>`: where, and who should be there.

use std::net::{IpAddr, SocketAddr};

use leno_transport_trait::{Address, PeerId, TransportError};
use tokio_tungstenite::tungstenite::http::Uri;

/// The last part of every path that we serve or ask for.
pub(crate) const PATH: &str = "/leno";

/// A dialable address, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) is_tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the server is asked for: everything but the name of the device.
    pub(crate) url: String,
    /// Who should answer, if that is said.
    pub(crate) peer: Option<PeerId>,
    /// The text that all of it came from.
    pub(crate) address: Address,
}

impl Place {
    /// Takes an address apart.
    pub(crate) fn parse(address: &Address) -> Result<Self, TransportError> {
        Self::read(address).map_err(|detail| TransportError::AddressNotUnderstood {
            address: address.clone(),
            detail: detail.to_owned(),
        })
    }

    fn read(address: &Address) -> Result<Self, &'static str> {
        let uri: Uri = address.as_str().parse().map_err(|_| "it is no URL")?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") if cfg!(feature = "tls") => true,
            Some("wss") => return Err("this build has no TLS: see the feature `tls`"),
            _ => return Err("its scheme is neither ws nor wss"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err("it has more than a host, a port and a path");
        }
        let host = authority.host();
        let host = host.strip_prefix('[').unwrap_or(host);
        let host = host.strip_suffix(']').unwrap_or(host);
        let has_no_port = authority.as_str().ends_with(host) || authority.as_str().ends_with(']');
        if authority.port_u16().is_none() && !has_no_port {
            return Err("its port is no port");
        }
        if host.is_empty() {
            return Err("it names no host");
        }
        let (path, peer) = match uri.path().rsplit_once(PATH) {
            Some((before, "")) => (before, None),
            Some((before, name)) => {
                let name = name
                    .strip_prefix('/')
                    .ok_or("its path does not end in /leno")?;
                let peer = name.parse().map_err(|_| "after /leno it names no device")?;
                (before, Some(peer))
            }
            None => return Err("its path does not end in /leno"),
        };
        let default_port = if is_tls { 443 } else { 80 };
        let scheme = if is_tls { "wss" } else { "ws" };
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            url: format!("{scheme}://{authority}{path}{PATH}"),
            peer,
            address: address.clone(),
        })
    }
}

/// Whether a request for this path is for us.
pub(crate) fn is_ours(path: &str) -> bool {
    path.ends_with(PATH)
}

/// The address at which a device listens on a socket.
pub(crate) fn of_socket(socket: SocketAddr, peer: PeerId) -> Address {
    let text = format!("ws://{socket}{PATH}/{peer}");
    text.parse().expect("a socket and a key are short text")
}

/// Adds the device's name to a URL, unless it has one.
pub(crate) fn named(url: &str, peer: PeerId) -> Result<Address, TransportError> {
    let not_understood = |error: &dyn ToString| TransportError::AddressNotUnderstood {
        // Never longer than a whole address, and free of what an address must not have.
        address: PATH.parse().expect("is text"),
        detail: format!("{url:?}: {}", error.to_string()),
    };
    let address: Address = url.parse().map_err(|error| not_understood(&error))?;
    let place = Place::parse(&address)?;
    if place.peer.is_some_and(|it| it != peer) {
        return Err(not_understood(&"it names another device"));
    }
    let text = format!("{}/{peer}", place.url);
    text.parse().map_err(|error| not_understood(&error))
}

/// Orders addresses by how likely somebody elsewhere gets through: loopback comes last.
pub(crate) fn reach(ip: IpAddr) -> u8 {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_loopback() {
        2
    } else {
        u8::from(is_link_local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0707070707070707070707070707070707070707070707070707070707070707";

    fn place(text: &str) -> Result<Place, TransportError> {
        Place::parse(&text.parse().unwrap())
    }

    #[test]
    fn addresses_are_taken_apart() {
        let check = |text: &str, host: &str, port, url: &str, peer| {
            let place = place(text).unwrap();
            assert_eq!((place.host.as_str(), place.port), (host, port), "{text}");
            assert_eq!((place.url.as_str(), place.peer), (url, peer), "{text}");
        };
        let bob = Some(PeerId([7; 32]));
        check(
            "ws://a.example/leno",
            "a.example",
            80,
            "ws://a.example/leno",
            None,
        );
        let url = "ws://127.0.0.1:9/leno";
        check(&format!("{url}/{HEX}"), "127.0.0.1", 9, url, bob);
        let url = "ws://[::1]:9/some/hub/leno";
        check(&format!("{url}/{HEX}"), "::1", 9, url, bob);
        if cfg!(feature = "tls") {
            let url = "wss://hub.example/leno";
            check(&format!("{url}/{HEX}"), "hub.example", 443, url, bob);
        }
    }

    #[test]
    fn other_texts_are_not_understood() {
        for text in [
            "nonsense",
            "/ip4/127.0.0.1/tcp/9",
            "http://a.example/leno",
            "ws://a.example",
            "ws://a.example/lenox",
            "ws://a.example/leno/",
            "ws://a.example/leno/ab",
            "ws://a.example/leno?x=1",
            "ws://user@a.example/leno",
            "ws:///leno",
            "ws://a.example:99999/leno",
            &format!("ws://a.example/leno/{HEX}/more"),
        ] {
            let refused = place(text);
            assert!(
                matches!(refused, Err(TransportError::AddressNotUnderstood { .. })),
                "{text}: {refused:?}"
            );
        }
    }

    #[test]
    fn own_addresses_name_the_device() {
        let bob = PeerId([7; 32]);
        let address = of_socket("[::1]:9".parse().unwrap(), bob);
        assert_eq!(address.as_str(), format!("ws://[::1]:9/leno/{HEX}"));
        assert_eq!(Place::parse(&address).unwrap().peer, Some(bob));
        let announced = named("ws://a.example/leno", bob).unwrap();
        assert_eq!(announced.as_str(), format!("ws://a.example/leno/{HEX}"));
        assert_eq!(named(announced.as_str(), bob), Ok(announced.clone()));
        assert!(named(announced.as_str(), PeerId([8; 32])).is_err());
        assert!(named("", bob).is_err());
    }
}

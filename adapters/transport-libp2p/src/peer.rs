//! Our names for peers and addresses, and libp2p's.

use leno_transport_trait::{Address, PeerId, TransportError};
use libp2p::Multiaddr;
use libp2p::identity::{PublicKey, ed25519};
use libp2p::multiaddr::Protocol;

/// What libp2p puts before the 32 bytes of an Ed25519 key to make a peer id: an identity multihash of
/// 36 bytes, holding a protobuf with key type 1 and 32 bytes of key.
///
/// # Source
///
/// libp2p specification "Peer Ids and Keys".
const ED25519_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Reads the key in a libp2p peer id; `None` if it is no Ed25519 key.
pub(crate) fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    let bytes = peer.to_bytes();
    let key: &[u8; 32] = bytes.strip_prefix(&ED25519_PREFIX)?.try_into().ok()?;
    // Only what is a key can have been proven; an id in an address may be anything.
    ed25519::PublicKey::try_from_bytes(key).ok()?;
    Some(PeerId(*key))
}

/// Returns the libp2p name of a peer; `None` if the bytes are no key.
pub(crate) fn to_libp2p(peer: PeerId) -> Option<libp2p::PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&peer.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// A dialable address: where, and who should be there, if that is said.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Destination {
    pub(crate) place: Multiaddr,
    pub(crate) peer: Option<PeerId>,
}

/// Takes an address apart.
pub(crate) fn destination(address: &Address) -> Result<Destination, TransportError> {
    let misunderstood = |detail: &dyn ToString| TransportError::AddressNotUnderstood {
        address: address.clone(),
        detail: detail.to_string(),
    };
    let mut place: Multiaddr = address
        .as_str()
        .parse()
        .map_err(|error| misunderstood(&error))?;
    let Some(Protocol::P2p(peer)) = place.iter().last() else {
        return Ok(Destination { place, peer: None });
    };
    place.pop();
    match from_libp2p(&peer) {
        Some(peer) => Ok(Destination {
            place,
            peer: Some(peer),
        }),
        None => Err(misunderstood(&"the peer named has no Ed25519 key")),
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn peer_ids_convert_both_ways() {
        let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let key = keypair.public().try_into_ed25519().unwrap().to_bytes();
        let theirs = keypair.public().to_peer_id();
        assert_eq!(from_libp2p(&theirs), Some(PeerId(key)));
        assert_eq!(to_libp2p(PeerId(key)), Some(theirs));
    }

    #[test]
    fn hashed_keys_are_refused() {
        // The id of an RSA key: a SHA-256 multihash.
        let rsa = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
            .parse()
            .unwrap();
        assert_eq!(from_libp2p(&rsa), None);
    }

    fn check(text: &str, place: &str, peer: Option<u8>) {
        let peer = peer.map(|it| {
            let keypair = Keypair::ed25519_from_bytes([it; 32]).unwrap();
            PeerId(keypair.public().try_into_ed25519().unwrap().to_bytes())
        });
        let expected = Destination {
            place: place.parse().unwrap(),
            peer,
        };
        assert_eq!(destination(&text.parse().unwrap()), Ok(expected));
    }

    #[test]
    fn addresses_are_taken_apart() {
        let peer = Keypair::ed25519_from_bytes([3; 32])
            .unwrap()
            .public()
            .to_peer_id();
        check("/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/9", None);
        check(
            &format!("/ip4/127.0.0.1/tcp/9/p2p/{peer}"),
            "/ip4/127.0.0.1/tcp/9",
            Some(3),
        );
        for text in [
            "nonsense",
            "/ip4/1/tcp/2",
            "/ip4/127.0.0.1/tcp/9/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ] {
            let refused = destination(&text.parse().unwrap());
            assert!(
                matches!(refused, Err(TransportError::AddressNotUnderstood { .. })),
                "{text}"
            );
        }
    }
}

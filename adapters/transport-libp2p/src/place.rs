//! Which of our own addresses others should try first.

use std::collections::BTreeMap;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// From how far away an address can lead here: the farthest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Reach {
    /// Whoever set us up says that it leads here.
    Announced,
    Public,
    /// Through a relay, which others reach wherever this endpoint is, and never fast.
    Relayed,
    Private,
    /// 172.16.0.0/12 is private too, but mostly a bridge to containers that nobody else is on.
    Bridge,
    Link,
    Machine,
}

impl Reach {
    fn of(place: &Multiaddr) -> Self {
        if place.iter().any(|part| part == Protocol::P2pCircuit) {
            return Self::Relayed;
        }
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "multiaddrs have many parts, most of which are no IP address"
        )]
        let reach = place.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(match ip.octets() {
                [127, ..] => Self::Machine,
                [169, 254, ..] => Self::Link,
                [172, 16..=31, ..] => Self::Bridge,
                // The last one is what carriers and overlay networks number their members from.
                [10, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
                _ => Self::Public,
            }),
            Protocol::Ip6(ip) if ip.is_loopback() => Some(Self::Machine),
            Protocol::Ip6(ip) if ip.is_unicast_link_local() => Some(Self::Link),
            Protocol::Ip6(ip) if ip.is_unique_local() => Some(Self::Private),
            _ => None,
        });
        reach.unwrap_or(Self::Public)
    }
}

/// Sorts addresses by how likely somebody elsewhere gets through.
///
/// Loopback comes last. Before it each network (TCP, QUIC) has its best address before any has its
/// second one, so that whoever passes on only a few passes on both. Among equals the bytes decide, so
/// that the list does not depend on the order in which interfaces were found.
pub(crate) fn in_order(
    announced: impl IntoIterator<Item = Multiaddr>,
    listening: impl IntoIterator<Item = Multiaddr>,
) -> Vec<Multiaddr> {
    let announced = announced.into_iter().map(|it| (Reach::Announced, it));
    let listening = listening.into_iter().map(|it| (Reach::of(&it), it));
    let mut places: Vec<_> = announced.chain(listening).collect();
    places.sort_by_key(|(reach, place)| (*reach, place.to_vec()));
    let mut turns: BTreeMap<(bool, bool), u32> = BTreeMap::new();
    let mut listed: Vec<(bool, u32, Multiaddr)> = Vec::new();
    for (reach, place) in places {
        if listed.iter().any(|(_, _, it)| *it == place) {
            continue;
        }
        let is_local = reach == Reach::Machine;
        let is_tcp = place.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        let turn = turns.entry((is_local, is_tcp)).or_default();
        listed.push((is_local, *turn, place));
        *turn += 1;
    }
    // Stable: within a turn the farther reach stays first.
    listed.sort_by_key(|(is_local, turn, _)| (*is_local, *turn));
    listed.into_iter().map(|(_, _, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(announced: &[&str], listening: &[&str], expected: &[&str]) {
        let parse = |texts: &[&str]| -> Vec<Multiaddr> {
            texts.iter().map(|it| it.parse().unwrap()).collect()
        };
        let (announced, expected) = (parse(announced), parse(expected));
        let mut listening = parse(listening);
        for _ in 0..listening.len() {
            listening.rotate_left(1);
            assert_eq!(in_order(announced.clone(), listening.clone()), expected);
        }
    }

    #[test]
    fn both_networks_come_before_a_second_interface_and_loopback_last() {
        check(
            &[],
            &[
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/192.168.1.5/tcp/1",
                "/ip4/172.17.0.1/tcp/1",
                "/ip4/127.0.0.1/udp/2/quic-v1",
                "/ip4/192.168.1.5/udp/2/quic-v1",
                "/ip4/172.17.0.1/udp/2/quic-v1",
            ],
            &[
                "/ip4/192.168.1.5/tcp/1",
                "/ip4/192.168.1.5/udp/2/quic-v1",
                "/ip4/172.17.0.1/tcp/1",
                "/ip4/172.17.0.1/udp/2/quic-v1",
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/127.0.0.1/udp/2/quic-v1",
            ],
        );
    }

    #[test]
    fn farther_reach_comes_first() {
        check(
            &["/dns4/peer.example/tcp/1"],
            &[
                "/ip6/::1/tcp/1",
                "/ip6/fe80::1/tcp/1",
                "/ip6/fd00::1/tcp/1",
                "/ip6/2001:db8::1/tcp/1",
                "/ip4/169.254.0.1/tcp/1",
                "/ip4/100.64.0.1/tcp/1",
                "/ip4/10.0.0.1/tcp/1",
                "/ip4/8.8.8.8/tcp/1",
            ],
            &[
                "/dns4/peer.example/tcp/1",
                "/ip4/8.8.8.8/tcp/1",
                "/ip6/2001:db8::1/tcp/1",
                "/ip4/10.0.0.1/tcp/1",
                "/ip4/100.64.0.1/tcp/1",
                "/ip6/fd00::1/tcp/1",
                "/ip4/169.254.0.1/tcp/1",
                "/ip6/fe80::1/tcp/1",
                "/ip6/::1/tcp/1",
            ],
        );
    }

    #[test]
    fn loopback_of_one_network_yields_to_all_others_of_the_other() {
        check(
            &["/ip4/192.0.2.1/tcp/1"],
            &[
                "/ip4/192.0.2.1/tcp/1",
                "/ip4/10.0.0.1/tcp/1",
                "/ip4/127.0.0.1/udp/2/quic-v1",
            ],
            &[
                "/ip4/192.0.2.1/tcp/1",
                "/ip4/10.0.0.1/tcp/1",
                "/ip4/127.0.0.1/udp/2/quic-v1",
            ],
        );
    }
}

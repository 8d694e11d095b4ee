//! When to dial again: addresses that did not answer, and peers whose link ended.

use std::collections::{BTreeMap, BTreeSet};

use leno_threads_core::sync::PeerKey;
use leno_transport_trait::{Address, TransportError};

/// Pauses before an address that did not answer is dialled again, doubled each time, in milliseconds.
const REDIAL_MILLIS_MIN: u64 = 500;
const REDIAL_MILLIS_MAX: u64 = 60_000;

/// A link that lived so long was no failure: the next pause is the shortest again. In milliseconds.
const STEADY_MILLIS: u64 = 10_000;

/// Most addresses that are tried at once because somebody on the network named them.
const TRIES_MAX: usize = 16;

/// Where peers were reached, and when to dial them again.
#[derive(Debug, Default)]
pub(super) struct Dials {
    planned: BTreeMap<Address, Redial>,
    /// Addresses that are being dialled, and whether a caller or the start of the peer wants it: what
    /// is only tried again keeps nobody waiting.
    under_way: BTreeMap<Address, bool>,
    /// Addresses that nobody vouches for, which are dialled once and not again, and keep nobody waiting.
    tries: BTreeSet<Address>,
    /// By which addresses each peer was reached.
    routes: BTreeMap<PeerKey, Route>,
}

#[derive(Debug, Default)]
struct Redial {
    at_millis: u64,
    wait_millis: u64,
}

#[derive(Debug, Default)]
struct Route {
    /// More than one, because a transport calls a peer reached that is connected by another address:
    /// which of them will lead to it later nobody knows.
    addresses: BTreeSet<Address>,
    since_millis: u64,
    wait_millis: u64,
}

/// What became of a dial.
pub(super) enum Dialled {
    /// The peer is connected, or may be later.
    Useful,
    /// Nobody will ever be reached at this address.
    Useless,
}

impl Dials {
    pub(super) fn begin(&mut self, address: &Address, is_wanted: bool) {
        if is_wanted {
            self.tries.remove(address);
        }
        let wanted = self.under_way.entry(address.clone()).or_default();
        *wanted |= is_wanted;
    }

    /// Notes that an address is to be dialled once. False if it is dialled anyway, or many are tried.
    pub(super) fn try_once(&mut self, address: &Address) -> bool {
        let is_known = self.under_way.contains_key(address) || self.planned.contains_key(address);
        !is_known && self.tries.len() < TRIES_MAX && self.tries.insert(address.clone())
    }

    pub(super) fn end(
        &mut self,
        address: &Address,
        outcome: Result<PeerKey, &TransportError>,
        now_millis: u64,
    ) -> Dialled {
        self.under_way.remove(address);
        if self.tries.remove(address) {
            return Dialled::Useful;
        }
        let planned = self.planned.remove(address);
        let wait_millis = planned.map_or(0, |redial| redial.wait_millis);
        match outcome {
            Ok(peer) => {
                let route = self.routes.entry(peer).or_default();
                route.addresses.insert(address.clone());
                route.since_millis = now_millis;
                route.wait_millis = wait_millis;
                Dialled::Useful
            }
            Err(
                TransportError::AddressNotUnderstood { .. }
                | TransportError::DialledSelf { .. }
                | TransportError::KeyTypeNotSupported { .. },
            ) => Dialled::Useless,
            Err(_) => {
                self.plan(address.clone(), wait_millis, now_millis);
                Dialled::Useful
            }
        }
    }

    /// The link to a peer ended and this side did not want it: it is dialled again where it was
    /// reached, whether or not the transport does so by itself.
    pub(super) fn lost(&mut self, peer: &PeerKey, now_millis: u64) {
        if let Some(route) = self.routes.remove(peer) {
            let lived = now_millis.saturating_sub(route.since_millis);
            let wait = if lived >= STEADY_MILLIS {
                0
            } else {
                route.wait_millis
            };
            for address in route.addresses {
                self.plan(address, wait, now_millis);
            }
        }
    }

    /// Has addresses dialled as soon as possible.
    pub(super) fn resume(&mut self, addresses: &BTreeSet<Address>) {
        for address in addresses {
            self.planned.insert(address.clone(), Redial::default());
        }
    }

    /// The addresses to dial now.
    pub(super) fn due(&self, now_millis: u64) -> Vec<Address> {
        let due = self.waiting().filter(|(_, it)| it.at_millis <= now_millis);
        let due = due.map(|(address, _)| address);
        due.chain(self.untried()).cloned().collect()
    }

    /// When an address is due.
    pub(super) fn wake_millis(&self) -> Option<u64> {
        let planned = self.waiting().map(|(_, redial)| redial.at_millis);
        planned.chain(self.untried().map(|_| 0)).min()
    }

    /// Brings everything forward by as much as the clock was set back.
    pub(super) fn clock_went_back(&mut self, millis: u64) {
        for redial in self.planned.values_mut() {
            redial.at_millis = redial.at_millis.saturating_sub(millis);
        }
        for route in self.routes.values_mut() {
            route.since_millis = route.since_millis.saturating_sub(millis);
        }
    }

    /// Tells whether somebody waits for the outcome of a dial.
    pub(super) fn is_awaited(&self) -> bool {
        self.under_way.values().any(|is_wanted| *is_wanted)
    }

    fn waiting(&self) -> impl Iterator<Item = (&Address, &Redial)> {
        let planned = self.planned.iter();
        planned.filter(|(address, _)| !self.under_way.contains_key(*address))
    }

    fn untried(&self) -> impl Iterator<Item = &Address> {
        let tries = self.tries.iter();
        tries.filter(|address| !self.under_way.contains_key(*address))
    }

    fn plan(&mut self, address: Address, last_millis: u64, now_millis: u64) {
        let wait_millis =
            (last_millis.saturating_mul(2)).clamp(REDIAL_MILLIS_MIN, REDIAL_MILLIS_MAX);
        let redial = Redial {
            at_millis: now_millis.saturating_add(wait_millis),
            wait_millis,
        };
        self.planned.insert(address, redial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dials() -> (Dials, Address) {
        let address: Address = "somewhere".parse().unwrap();
        (Dials::default(), address)
    }

    #[test]
    fn pauses_double_and_begin_anew_after_a_steady_link() {
        let (mut dials, address) = dials();
        let refused = TransportError::Unreachable {
            address: address.clone(),
            detail: String::new(),
        };
        let mut now = 0;
        for wait in [500, 1_000, 2_000] {
            dials.begin(&address, false);
            assert_eq!(dials.wake_millis(), None, "nothing twice at once");
            dials.end(&address, Err(&refused), now);
            assert_eq!(dials.wake_millis(), Some(now + wait));
            now += wait;
            assert_eq!(dials.due(now), std::slice::from_ref(&address));
        }
        let peer = PeerKey([1; 32]);
        for (lived, wait) in [(1, 4_000), (STEADY_MILLIS, 500)] {
            dials.begin(&address, false);
            dials.end(&address, Ok(peer), now);
            assert_eq!(dials.wake_millis(), None);
            now += lived;
            dials.lost(&peer, now);
            assert_eq!(dials.wake_millis(), Some(now + wait));
        }
    }

    #[test]
    fn lost_peer_is_dialled_again_wherever_it_was_reached() {
        let (mut dials, first) = dials();
        let second: Address = "somewhere else".parse().unwrap();
        let peer = PeerKey([1; 32]);
        for address in [&first, &second] {
            dials.begin(address, true);
            dials.end(address, Ok(peer), 0);
        }
        dials.lost(&peer, 0);
        assert_eq!(dials.due(REDIAL_MILLIS_MIN), [first, second]);
    }

    #[test]
    fn clock_that_goes_back_delays_nothing() {
        let (mut dials, address) = dials();
        let refused = TransportError::Unreachable {
            address: address.clone(),
            detail: String::new(),
        };
        dials.begin(&address, false);
        dials.end(&address, Err(&refused), 1_000_000);
        dials.clock_went_back(900_000);
        assert_eq!(dials.wake_millis(), Some(100_000 + REDIAL_MILLIS_MIN));
    }

    #[test]
    fn address_that_nobody_vouches_for_is_dialled_once() {
        let (mut dials, address) = dials();
        assert!(dials.try_once(&address) && !dials.try_once(&address));
        assert_eq!(dials.due(7), std::slice::from_ref(&address));
        dials.begin(&address, false);
        assert!(!dials.try_once(&address), "it is being dialled");
        assert!(dials.due(7).is_empty() && !dials.is_awaited());
        let detail = String::new();
        let address_of = address.clone();
        let refused = TransportError::Unreachable {
            address: address_of,
            detail,
        };
        dials.end(&address, Err(&refused), 0);
        assert_eq!(dials.wake_millis(), None);
        assert!(dials.try_once(&address), "somebody names it again");
        dials.begin(&address, false);
        let peer = PeerKey([1; 32]);
        dials.end(&address, Ok(peer), 0);
        dials.lost(&peer, 0);
        assert_eq!(dials.wake_millis(), None);
        assert!(dials.try_once(&address));
        dials.begin(&address, true);
        dials.end(&address, Ok(peer), 0);
        dials.lost(&peer, 0);
        assert!(dials.wake_millis().is_some(), "a caller vouched for it");
        dials.begin(&address, false);
        dials.end(&address, Ok(PeerKey([2; 32])), 0);
        for number in 0..TRIES_MAX {
            let address: Address = format!("{number}").parse().unwrap();
            assert!(dials.try_once(&address));
        }
        assert!(!dials.try_once(&address));
    }

    #[test]
    fn useless_addresses_are_not_dialled_again() {
        let (mut dials, address) = dials();
        dials.begin(&address, true);
        assert!(dials.is_awaited());
        let refused = TransportError::DialledSelf {
            address: address.clone(),
        };
        let outcome = dials.end(&address, Err(&refused), 0);
        assert!(matches!(outcome, Dialled::Useless));
        assert_eq!((dials.is_awaited(), dials.wake_millis()), (false, None));
    }
}

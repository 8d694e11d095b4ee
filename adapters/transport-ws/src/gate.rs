//! How many may be here who have not said who they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections until they are proven.
#[derive(Debug)]
pub(crate) struct Gate {
    total_max: u32,
    per_ip_max: u32,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: u32,
    by_ip: BTreeMap<IpAddr, u32>,
}

impl Gate {
    pub(crate) fn new(total_max: u32, per_ip_max: u32) -> Arc<Self> {
        Arc::new(Self {
            total_max,
            per_ip_max,
            counts: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one more in, unless there are too many; until the pass is dropped, it counts.
    pub(crate) fn enter(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Pass> {
        let from = from.map(origin);
        let mut counts = self.lock();
        let of_ip = from.and_then(|it| counts.by_ip.get(&it).copied());
        let of_ip = of_ip.unwrap_or_default();
        if counts.total >= self.total_max || (from.is_some() && of_ip >= self.per_ip_max) {
            return None;
        }
        counts.total += 1;
        if let Some(from) = from {
            counts.by_ip.insert(from, of_ip + 1);
        }
        let gate = self.clone();
        Some(Pass { gate, from })
    }
}

/// Of an IPv6 network the smallest that is given out, since who has one has all its addresses.
fn origin(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        ip => ip,
    }
}

/// A place among those who are not proven.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    from: Option<IpAddr>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.lock();
        counts.total -= 1;
        let Some(from) = self.from else { return };
        match counts.by_ip.get(&from) {
            Some(2..) => {
                counts.by_ip.entry(from).and_modify(|it| *it -= 1);
            }
            _ => {
                counts.by_ip.remove(&from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_origin_and_all_together_are_bounded() {
        let gate = Gate::new(4, 2);
        let passes: Vec<Pass> = ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"]
            .map(|it| gate.enter(ip(it)).unwrap())
            .into();
        assert!(gate.enter(ip("192.0.2.1")).is_none(), "two of one machine");
        let fourth = gate.enter(ip("2001:db8::ffff")).unwrap();
        assert!(gate.enter(None).is_none(), "four in all");
        drop(fourth);
        let nameless = gate.enter(None).unwrap();
        drop(nameless);
        drop(passes);
        assert!(gate.lock().by_ip.is_empty() && gate.lock().total == 0);
        assert!(gate.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn one_network_of_ipv6_is_one_origin() {
        let gate = Gate::new(4, 1);
        let _pass = gate.enter(ip("2001:db8:0:7::1")).unwrap();
        assert!(gate.enter(ip("2001:db8:0:7:ffff::2")).is_none());
        assert!(gate.enter(ip("2001:db8:0:8::1")).is_some());
    }
}

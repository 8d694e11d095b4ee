//! When to dial a lost peer again.

use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// How many addresses of one peer are dialled again.
const ADDRESSES_PER_PEER_MAX: usize = 8;

/// A link that lived this long was no failure, so that the next wait is the shortest again.
const PROVEN: Duration = Duration::from_secs(10);

/// A peer that this side dialled and wants to keep.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Where it was reached, the last one first.
    pub(crate) places: Vec<Multiaddr>,
    /// How often it could not be reached, or not for long, in a row.
    failures: u32,
    /// When its link came up.
    up: Option<Instant>,
    /// When to dial it again.
    pub(crate) due: Option<Instant>,
    /// The connection that is being made for that.
    pub(crate) dialling: Option<ConnectionId>,
}

impl Wanted {
    /// Remembers where the peer was reached.
    pub(crate) fn remember(&mut self, place: Multiaddr) {
        self.places.retain(|it| *it != place);
        self.places.insert(0, place);
        self.places.truncate(ADDRESSES_PER_PEER_MAX);
        self.up.get_or_insert_with(Instant::now);
    }

    /// The peer has a link.
    pub(crate) fn is_up(&mut self) {
        *self = Self {
            up: Some(Instant::now()),
            due: None,
            dialling: None,
            ..std::mem::take(self)
        };
    }

    /// The peer lost its link, and shall have a new one.
    pub(crate) fn is_down(&mut self, waits: (Duration, Duration)) {
        if self.up.take().is_some_and(|it| it.elapsed() >= PROVEN) {
            self.failures = 0;
        }
        self.schedule(waits);
    }

    /// Plans the next dial, `waits` being the shortest and the longest time until then.
    pub(crate) fn schedule(&mut self, (shortest, longest): (Duration, Duration)) {
        let wait = backoff(self.failures, shortest, longest);
        // Without randomness all wait alike, which is no reason not to dial.
        let jitter = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + wait.mul_f64(1.0 - jitter / 2.0));
    }
}

/// The wait after so many failures: doubling, and no longer than the longest.
fn backoff(failures: u32, shortest: Duration, longest: Duration) -> Duration {
    // Beyond a day of doubling, the bound alone counts; `Instant` must not be run over.
    let longest = longest.min(Duration::from_secs(24 * 60 * 60));
    shortest
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let (shortest, longest) = (Duration::from_millis(250), Duration::from_secs(60));
        let check = |failures, millis| {
            assert_eq!(
                backoff(failures, shortest, longest),
                Duration::from_millis(millis)
            );
        };
        check(0, 250);
        check(1, 500);
        check(7, 32_000);
        check(8, 60_000);
        check(u32::MAX, 60_000);
        assert_eq!(
            backoff(u32::MAX, Duration::MAX, Duration::MAX).as_secs(),
            86_400
        );
    }
}

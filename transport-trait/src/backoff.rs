use std::ops::RangeInclusive;
use std::time::Duration;

/// A link that lived this long was no failure, so that the next wait is the shortest again.
const PROVEN: Duration = Duration::from_secs(10);

/// No wait is longer, whatever is asked for: times must stay within what a clock can add.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait before a lost peer is dialled again, for those who write a
/// [`Transport`](crate::Transport): doubling, with some chance in it, up to a longest wait.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use leno_transport_trait::Backoff;
///
/// let (mut backoff, range) = (Backoff::default(), Duration::from_secs(1)..=Duration::from_secs(3));
/// // The random number shortens each wait by up to half.
/// assert_eq!(backoff.next(&range, 0), Duration::from_secs(1));
/// assert_eq!(backoff.next(&range, u32::MAX), Duration::from_secs(1));
/// assert_eq!(backoff.next(&range, 0), Duration::from_secs(3));
/// // Then there was a link, for long enough.
/// backoff.lived(Duration::from_secs(10));
/// assert_eq!(backoff.next(&range, 0), Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the next wait, from the start of `range` doubling to its end, shortened by up to half
    /// in proportion to `random`.
    pub fn next(&mut self, range: &RangeInclusive<Duration>, random: u32) -> Duration {
        let longest = (*range.end()).min(LONGEST);
        let doubled = range
            .start()
            .saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let part = f64::from(random) / f64::from(u32::MAX);
        doubled.min(longest).mul_f64(1.0 - part / 2.0)
    }

    /// There was a link for so long; if that was no failure, the next wait is the shortest.
    pub fn lived(&mut self, time: Duration) {
        if time >= PROVEN {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: u32, millis: u64) {
        let range = Duration::from_millis(250)..=Duration::from_secs(60);
        let mut backoff = Backoff { failures };
        assert_eq!(backoff.next(&range, 0), Duration::from_millis(millis));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        check(0, 250);
        check(1, 500);
        check(7, 32_000);
        check(8, 60_000);
        check(u32::MAX, 60_000);
        let range = Duration::MAX..=Duration::MAX;
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(&range, 0).as_secs(), 86_400);
    }

    #[test]
    fn short_life_is_a_failure() {
        let range = Duration::from_secs(1)..=Duration::from_secs(60);
        let mut backoff = Backoff::default();
        for wait in [1, 2, 4] {
            assert_eq!(backoff.next(&range, 0), Duration::from_secs(wait));
            backoff.lived(Duration::from_millis(9_999));
        }
    }
}

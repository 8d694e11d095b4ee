//! A token bucket: how often something may happen.

/// How often: so many at once, and so many per second in the long run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) burst: u64,
    pub(super) per_second: u64,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Thousandths of tokens that were taken and have not come back yet.
    taken: u64,
    at_millis: u64,
}

impl Bucket {
    /// Takes a token; if there is none, tells after how many milliseconds there is one.
    pub(super) fn take(&mut self, rate: Rate, now_millis: u64) -> Result<(), u64> {
        // A clock that is set back gives nothing and takes nothing.
        let passed = now_millis.saturating_sub(self.at_millis);
        self.at_millis = now_millis;
        self.taken = self
            .taken
            .saturating_sub(passed.saturating_mul(rate.per_second));
        let taken = self.taken + 1_000;
        let room = rate.burst * 1_000;
        if taken > room {
            return Err((taken - room).div_ceil(rate.per_second.max(1)));
        }
        self.taken = taken;
        Ok(())
    }

    /// Tells whether it is as good as new.
    pub(super) fn is_full(&self, rate: Rate, now_millis: u64) -> bool {
        let passed = now_millis.saturating_sub(self.at_millis);
        self.taken <= passed.saturating_mul(rate.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 3,
        per_second: 10,
    };

    #[test]
    fn gives_a_burst_and_then_what_comes_back() {
        let mut bucket = Bucket::default();
        let now = 1_000_000;
        for _ in 0..3 {
            assert_eq!(bucket.take(RATE, now), Ok(()));
        }
        assert_eq!(bucket.take(RATE, now), Err(100));
        assert_eq!(bucket.take(RATE, now + 99), Err(1));
        assert_eq!(bucket.take(RATE, now + 100), Ok(()));
        assert_eq!(bucket.take(RATE, now), Err(100), "a clock that is set back");
        assert!(!bucket.is_full(RATE, now + 200));
        assert!(bucket.is_full(RATE, now + 300));
        let count = (0..10_000).filter(|it| bucket.take(RATE, now + it).is_ok());
        assert!((99..=103).contains(&count.count()));
        assert_eq!(bucket.take(RATE, u64::MAX), Ok(()));
    }
}

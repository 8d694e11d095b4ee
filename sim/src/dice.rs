//! Randomness from a seed: the same on every platform and in every run.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// Draws numbers from a seed. Each purpose has a stream of its own, so that a fault which is switched
/// off does not change what the others draw.
///
/// # Examples
///
/// ```
/// use leno_sim::Dice;
///
/// let (mut a, mut b) = (Dice::new(7, "network"), Dice::new(7, "network"));
/// assert_eq!(a.next(), b.next());
/// assert_ne!(a.next(), Dice::new(7, "disk").next());
/// assert!(a.below(6) < 6);
/// ```
#[derive(Clone, Debug)]
pub struct Dice {
    rng: ChaCha8Rng,
}

impl Dice {
    /// Begins the stream of a purpose under a seed.
    #[must_use]
    pub fn new(seed: u64, stream: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(b"leno-sim/")
            .chain_update(seed.to_be_bytes())
            .chain_update(stream)
            .finalize();
        Self {
            rng: ChaCha8Rng::from_seed(digest.into()),
        }
    }

    /// Any number.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is no iterator: it never ends, and is drawn from in many ways"
    )]
    pub fn next(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A number below `bound`; 0 if that is 0. The bias is below one in 2^32 for small bounds.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number in a range; its start if it is empty.
    pub fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let width = range.end().saturating_sub(*range.start());
        range.start() + self.below(width.saturating_add(1))
    }

    /// A number in a range, such that each order of magnitude is as likely as another.
    pub fn magnitude(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let start = (*range.start()).max(1);
        let doublings = (*range.end()).max(start).ilog2() - start.ilog2();
        let base = start << self.below(u64::from(doublings) + 1);
        let drawn = base.saturating_add(self.below(base));
        drawn.clamp(*range.start(), (*range.end()).max(*range.start()))
    }

    /// Whether something happens that does so `per_million` times in a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// One of some; nothing if there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.index(from.len()))
    }

    /// The place of one of so many.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A seed for somebody else's generator.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_them() {
        let mut dice = Dice::new(1, "test");
        let mut seen = [false; 4];
        for _ in 0..200 {
            let drawn = dice.within(&(2..=5));
            seen[usize::try_from(drawn - 2).unwrap()] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!((dice.below(0), dice.below(1)), (0, 0));
        assert_eq!(dice.pick::<u8>(&[]), None);
        for _ in 0..200 {
            let drawn = dice.magnitude(&(10..=1_000));
            assert!((10..=1_000).contains(&drawn));
        }
        assert!(!dice.chance(0) && dice.chance(1_000_000));
    }

    /// Pins the stream: a seed that is written down must show the same run for ever.
    #[test]
    fn stream_is_pinned() {
        let mut dice = Dice::new(1, "test");
        assert_eq!(dice.next(), 0xcba5_a5c5_d6f9_969f);
        assert_ne!(Dice::new(1, "test").next(), Dice::new(2, "test").next());
    }
}

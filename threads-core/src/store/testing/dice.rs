//! Randomness of the checks.

/// A small generator (xorshift64*), so that the suite needs no dependency.
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: seed ^ 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    pub(super) fn pick<T: Copy, const N: usize>(&mut self, of: &[T; N]) -> T {
        let [first, ..] = of.as_slice() else {
            panic!("there is something to pick from")
        };
        of.get(self.below(N)).copied().unwrap_or(*first)
    }

    /// Short keys over few letters, so that rows meet.
    pub(super) fn key(&mut self) -> Vec<u8> {
        (0..self.below(5))
            .map(|_| self.pick(&[0, 1, 127, 255]))
            .collect()
    }

    /// Mostly small values; some that need pages of their own.
    pub(super) fn value(&mut self) -> Vec<u8> {
        let bytes = match self.below(20) {
            0 => self.below(20_000),
            1 => 0,
            _ => self.below(300),
        };
        let seed = self.next().to_le_bytes();
        seed.into_iter().cycle().take(bytes).collect()
    }
}

//! Samples of time.

use std::time::{Duration, Instant};

use crate::Outcome;

/// The time that `work` takes, and what it returns.
///
/// # Errors
///
/// What `work` returns.
pub fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let begun = now();
    let result = work()?;
    Ok((begun.elapsed(), result))
}

/// Now, by a clock that only goes forward.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures the time it takes"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Times of one thing, sorted.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    sorted: Vec<Duration>,
}

impl Samples {
    /// Sorts some times.
    #[must_use]
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { sorted: times }
    }

    /// Takes `count` samples.
    ///
    /// # Errors
    ///
    /// What `sample` returns.
    pub fn take(count: usize, mut sample: impl FnMut() -> Outcome<Duration>) -> Outcome<Self> {
        let times: Outcome<Vec<_>> = (0..count).map(|_| sample()).collect();
        Ok(Self::new(times?))
    }

    /// Adds times.
    pub fn extend(&mut self, times: impl IntoIterator<Item = Duration>) {
        self.sorted.extend(times);
        self.sorted.sort_unstable();
    }

    /// The shortest, in seconds. What else the machine does only ever adds, so for work of the
    /// processor alone this is the truest.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.at(0.0)
    }

    /// The middle one, in seconds.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// The one that `part` of all samples do not exceed, in seconds; `part` is 0 to 1.
    #[must_use]
    pub fn at(&self, part: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        let place = (last as f64 * part).round() as usize;
        self.sorted
            .get(place)
            .map_or(f64::NAN, Duration::as_secs_f64)
    }

    /// All of them together, in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sorted.iter().map(Duration::as_secs_f64).sum()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

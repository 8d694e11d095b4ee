//! What time it is.

use leno_crdt_codec::Stamp;

use crate::thread::SKEW_MILLIS_MAX;

/// What time it is, and whether that is known.
///
/// A device without a battery in its clock counts from some moment of its own until the clock is set.
/// Until then no stamp is too far ahead, so nothing is held, and its own stamps follow what was seen.
/// Holding never changes what all agree on in the end, so nor does not holding.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Now {
    millis: u64,
    is_set: bool,
}

impl Now {
    /// Milliseconds since the Unix epoch, UTC.
    #[must_use]
    pub fn at(millis: u64) -> Self {
        Self {
            millis,
            is_set: true,
        }
    }

    /// The time of day is not known; `millis` only tells how much time passes.
    #[must_use]
    pub fn unset(millis: u64) -> Self {
        Self {
            millis,
            is_set: false,
        }
    }

    /// What timers go by.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.millis
    }

    /// Milliseconds since the Unix epoch, UTC, if known.
    #[must_use]
    pub fn utc_millis(self) -> Option<u64> {
        self.is_set.then_some(self.millis)
    }

    /// Tells whether a stamp is not too far ahead.
    pub(crate) fn admits(self, stamp: Stamp) -> bool {
        let limit = self.millis.saturating_add(SKEW_MILLIS_MAX);
        !self.is_set || stamp.millis() <= limit
    }
}

/// Of a clock that is set.
impl From<u64> for Now {
    fn from(millis: u64) -> Self {
        Self::at(millis)
    }
}

//! Stamps and the one total order of ops.

use std::fmt;

/// Identifies a log: its Ed25519 public key, 32 bytes.
///
/// This crate knows nothing of keys; the bytes only tell logs apart and break ties.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogId(pub [u8; 32]);

impl LogId {
    /// Borrows the 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LogId({self})")
    }
}

/// The first four bytes in hexadecimal, enough for a person to tell logs apart.
impl fmt::Display for LogId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(formatter, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// A place in time by a hybrid logical clock: 48 bits of milliseconds since the Unix epoch, UTC,
/// then a 16-bit counter. One 64-bit integer, so that a full counter carries into the milliseconds.
///
/// # Examples
///
/// ```
/// use leno_crdt_codec::Stamp;
///
/// let stamp = Stamp::from_millis(1_000);
/// assert_eq!(stamp.millis(), 1_000);
/// assert!(stamp.next().expect("far from the end") > stamp);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Below every stamp of a record; a genesis counts as this.
    pub const ZERO: Self = Self(0);

    /// The first stamp of a millisecond. Milliseconds beyond 48 bits (the year 10889) saturate.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min((1 << 48) - 1) << 16)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The stamp that follows, or `None` at the very last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// Where a record stands in its log: counted from 1.
pub type Seq = u64;

/// Which op of which record of which log: unique in a thread.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Dot {
    /// The log.
    pub log: LogId,
    /// The record.
    pub seq: Seq,
    /// The op within the record, counted from 0.
    pub index: u32,
}

impl Dot {
    /// Place within the log.
    #[must_use]
    pub fn place(&self) -> (Seq, u32) {
        (self.seq, self.index)
    }
}

/// The place of an op in the one total order of a thread.
///
/// The order compares, one after the other:
///
/// 1. the stamp of the record, which extends causality because stamps are checked on admission;
/// 2. the log id by its bytes, so that equal stamps of two writers fall the same way everywhere;
/// 3. the seq of the record, then the index of the op in it: order within one log.
///
/// No two ops of a thread compare equal.
// The derived comparison follows the order of the fields; do not reorder them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Stamp of the record.
    pub stamp: Stamp,
    /// Which op it is, which breaks ties between equal stamps.
    pub dot: Dot,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(stamp: u64, log: u8, seq: Seq, index: u32) -> Place {
        let log = LogId([log; 32]);
        Place {
            stamp: Stamp(stamp),
            dot: Dot { log, seq, index },
        }
    }

    #[test]
    fn order_compares_stamp_then_log_then_seq_then_index() {
        let ascending = [
            place(1, 9, 9, 9),
            place(2, 1, 9, 9),
            place(2, 2, 1, 9),
            place(2, 2, 2, 0),
            place(2, 2, 2, 1),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn full_counter_carries_into_the_milliseconds() {
        let full = Stamp((7 << 16) | 0xffff);
        assert_eq!(full.next(), Some(Stamp::from_millis(8)));
        assert_eq!(Stamp(u64::MAX).next(), None);
        assert_eq!(Stamp::from_millis(u64::MAX).millis(), (1 << 48) - 1);
    }

    #[test]
    fn a_log_shows_as_its_first_bytes() {
        assert_eq!(format!("{:?}", LogId([0xab; 32])), "LogId(abababab)");
    }
}

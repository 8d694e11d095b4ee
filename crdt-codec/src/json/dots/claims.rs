//! Claims on dots that are not here: of ops that came before what they replace, and of lies.

use crate::{Dot, LogId, Place, Stamp};

/// An op of the stamp says that it saw the dot, and replaces what that log wrote up to there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::json) struct Claim {
    pub(in crate::json) dot: Dot,
    pub(in crate::json) stamp: Stamp,
}

/// The claims that say something no other one says: none has another beside it that reaches as far
/// in the same log with as high a stamp.
// Ascending by log and dot, so that the stamps of one log descend.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::json) struct Claims(Vec<Claim>);

impl Claims {
    /// Takes claims that are sorted and of which none says what another one says.
    pub(in crate::json) fn from_sorted(claims: Vec<Claim>) -> Option<Box<Self>> {
        (!claims.is_empty()).then(|| Box::new(Self(claims)))
    }

    /// Adds a claim, unless one says it already.
    pub(super) fn insert(&mut self, claim: Claim) {
        let (start, end) = self.range(claim.dot.log);
        let of_log = self.0.get(start..end).unwrap_or_default();
        let place = claim.dot.place();
        let at = start + of_log.partition_point(|it| it.dot.place() < place);
        // Of those that reach as far, the first has the highest stamp.
        let reaches = self.0.get(at..end).and_then(<[Claim]>::first);
        if reaches.is_some_and(|it| it.stamp >= claim.stamp) {
            return;
        }
        // What reaches less far, or only as far, and has no higher stamp, says nothing more.
        let below = self.0.get(start..at).unwrap_or_default();
        let from = start + below.partition_point(|it| it.stamp > claim.stamp);
        let to = at + usize::from(reaches.is_some_and(|it| it.dot == claim.dot));
        // Exactly one is what a place has that waits for what it replaces.
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.splice(from..to, [claim]);
    }

    /// Drops the claims that do not reach beyond a new entry, and tells whether any replaces it.
    pub(super) fn settle(&mut self, entry: &Place) -> bool {
        let (start, end) = self.range(entry.dot.log);
        let of_log = self.0.get(start..end).unwrap_or_default();
        let place = entry.dot.place();
        let first = of_log.partition_point(|it| it.dot.place() < place);
        let beyond = of_log.partition_point(|it| it.dot.place() <= place);
        let reaches = of_log.get(first);
        let is_hidden = reaches.is_some_and(|it| it.stamp > entry.stamp);
        self.0.drain(start..start + beyond);
        is_hidden
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::json) fn as_slice(&self) -> &[Claim] {
        &self.0
    }

    fn range(&self, log: LogId) -> (usize, usize) {
        let start = self.0.partition_point(|it| it.dot.log < log);
        let end = self.0.partition_point(|it| it.dot.log <= log);
        (start, end)
    }
}

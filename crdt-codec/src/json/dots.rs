//! The one merge rule below registers, sets, presence and list elements.

mod claims;
mod entries;

use std::cmp::Ordering;

pub(super) use claims::{Claim, Claims};
use entries::Entries;

use crate::{Dot, LogId, Place, Seq, Stamp};

/// What each log wrote last to one place, and whether that still shows.
///
/// Per log only the entry with the greatest (seq, index) counts: what a log wrote earlier is
/// replaced by what it wrote later. An op of another log that *claims* to have seen a dot replaces
/// the entries up to that dot whose stamps lie below its own: an op's stamp is above those of all
/// that its writer has seen, so a claim on what comes after it is a lie and hides nothing. Both
/// rules ask for a maximum per log, and the result does not depend on the order of arrival.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Dots<T> {
    entries: Entries<T>,
    /// Claims that go beyond the newest entry of their log. There are none once all that is seen has
    /// come; only a lie stays.
    claims: Option<Box<Claims>>,
}

/// The newest entry of one log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry<T> {
    pub(super) log: LogId,
    pub(super) seq: Seq,
    pub(super) index: u32,
    /// `None` once another log has replaced it.
    pub(super) content: Option<T>,
}

/// A write to a register: when, and what. `value` is `None` for "absent".
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Write<V> {
    pub(super) stamp: Stamp,
    pub(super) value: Option<V>,
}

/// What an entry leaves behind knows when it was written.
pub(super) trait Content {
    fn stamp(&self) -> Stamp;
}

impl<V> Content for Write<V> {
    fn stamp(&self) -> Stamp {
        self.stamp
    }
}

/// A mark says only that something is there.
impl Content for Stamp {
    fn stamp(&self) -> Stamp {
        *self
    }
}

impl<T> Default for Dots<T> {
    fn default() -> Self {
        Self {
            entries: Entries::default(),
            claims: None,
        }
    }
}

impl<T: Content> Dots<T> {
    /// Lets the op at `place` replace what it saw and leave `content`, or nothing.
    #[inline]
    pub(super) fn write(&mut self, place: &Place, seen: &[Dot], content: Option<T>) {
        for dot in seen {
            // What its own log wrote before is replaced without a claim.
            if dot.log != place.dot.log {
                self.claim(Claim {
                    dot: *dot,
                    stamp: place.stamp,
                });
            }
        }
        self.put(place, content);
    }

    fn put(&mut self, place: &Place, content: Option<T>) {
        let Dot { log, seq, index } = place.dot;
        let at = self.find(log);
        if let Ok(at) = at
            && let Some(entry) = self.entries().get(at)
            && (seq, index) <= (entry.seq, entry.index)
        {
            return;
        }
        let is_hidden = self.settle(place);
        let content = content.filter(|_| !is_hidden);
        let new = Entry {
            log,
            seq,
            index,
            content,
        };
        match at {
            Err(at) => self.entries.insert(at, new),
            Ok(at) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    *entry = new;
                }
            }
        }
    }

    fn claim(&mut self, claim: Claim) {
        if let Ok(at) = self.find(claim.dot.log)
            && let Some(entry) = self.entries.get_mut(at)
        {
            let order = entry.dot().place().cmp(&claim.dot.place());
            let hides = |content: &T| order.is_le() && content.stamp() < claim.stamp;
            if entry.content.as_ref().is_some_and(hides) {
                entry.content = None;
            }
            if order != Ordering::Less {
                return;
            }
        }
        self.claims.get_or_insert_default().insert(claim);
    }

    /// Tells whether a claim replaces a new entry, and drops the claims that end with it.
    fn settle(&mut self, place: &Place) -> bool {
        let Some(claims) = &mut self.claims else {
            return false;
        };
        let is_hidden = claims.settle(place);
        if claims.is_empty() {
            self.claims = None;
        }
        is_hidden
    }
}

impl<T> Dots<T> {
    #[inline]
    fn find(&self, log: LogId) -> Result<usize, usize> {
        match self.entries() {
            // The usual case, spared the search.
            [only] if only.log == log => Ok(0),
            entries => entries.binary_search_by(|entry| entry.log.cmp(&log)),
        }
    }

    /// Takes entries that are sorted by log, and claims beyond them.
    pub(super) fn from_sorted(entries: Vec<Entry<T>>, claims: Option<Box<Claims>>) -> Self {
        Self {
            entries: entries.into(),
            claims,
        }
    }

    pub(super) fn entries(&self) -> &[Entry<T>] {
        self.entries.as_slice()
    }

    /// Claims that go beyond the entries, in ascending order of their dots.
    pub(super) fn claims(&self) -> &[Claim] {
        self.claims.as_ref().map_or(&[], |claims| claims.as_slice())
    }

    /// Visits the log of each entry and claim.
    pub(super) fn each_log(&self, mut visit: impl FnMut(LogId)) {
        self.entries().iter().for_each(|it| visit(it.log));
        self.claims().iter().for_each(|it| visit(it.dot.log));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Tells whether any entry still shows.
    pub(super) fn is_visible(&self) -> bool {
        self.entries().iter().any(|entry| entry.content.is_some())
    }

    /// What an op of `own` replaces here: the visible entries of all other logs.
    pub(super) fn seen_by(&self, own: LogId) -> Vec<Dot> {
        let others = self.entries().iter().filter(|entry| entry.log != own);
        others
            .filter(|entry| entry.content.is_some())
            .map(Entry::dot)
            .collect()
    }
}

impl<V> Dots<Write<V>> {
    /// The visible write of the greatest place.
    pub(super) fn winner(&self) -> Option<(Place, Option<&V>)> {
        match self.entries() {
            [only] => only.visible(),
            entries => entries
                .iter()
                .filter_map(Entry::visible)
                .max_by_key(|(place, _)| *place),
        }
    }

    /// All visible writes, greatest place first.
    pub(super) fn visible(&self) -> Vec<(Place, Option<&V>)> {
        let mut visible: Vec<_> = self.entries().iter().filter_map(Entry::visible).collect();
        visible.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        visible
    }

    /// The value that shows, if the winner is not "absent".
    pub(super) fn value(&self) -> Option<&V> {
        self.winner().and_then(|(_, value)| value)
    }
}

impl<T> Entry<T> {
    pub(super) fn dot(&self) -> Dot {
        Dot {
            log: self.log,
            seq: self.seq,
            index: self.index,
        }
    }
}

impl<V> Entry<Write<V>> {
    fn visible(&self) -> Option<(Place, Option<&V>)> {
        let write = self.content.as_ref()?;
        let place = Place {
            stamp: write.stamp,
            dot: self.dot(),
        };
        Some((place, write.value.as_ref()))
    }
}

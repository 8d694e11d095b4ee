//! The one merge rule below registers, sets, presence and list elements.

use std::cmp::Ordering;

use crate::{Dot, LogId, Place, Seq, Stamp};

/// What each log wrote last to one place, and whether that still shows.
///
/// Per log only the entry with the greatest (seq, index) counts: what a log wrote earlier is
/// replaced by what it wrote later. An op of another log that saw an entry covers it, and with it
/// all earlier ones. A cover and an entry of one dot leave the cover. So this is one maximum per
/// log, and the result does not depend on the order of arrival.
// Sorted by log; most places have one writer, so this is one small allocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Dots<T>(Vec<Entry<T>>);

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

impl<T> Default for Dots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Dots<T> {
    /// Lets the op at `dot` replace what it saw and leave `content`, or nothing.
    pub(super) fn write(&mut self, dot: Dot, seen: &[Dot], content: Option<T>) {
        for dot in seen {
            self.put(*dot, None);
        }
        self.put(dot, content);
    }

    #[inline]
    fn put(&mut self, dot: Dot, content: Option<T>) {
        let Dot { log, seq, index } = dot;
        let at = match self.0.as_slice() {
            // The usual case, spared the search.
            [only] if only.log == log => Ok(0),
            entries => entries.binary_search_by(|entry| entry.log.cmp(&log)),
        };
        match at {
            Err(at) => {
                // Exactly one is what most places need for good.
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(
                    at,
                    Entry {
                        log,
                        seq,
                        index,
                        content,
                    },
                );
            }
            Ok(at) => {
                let Some(entry) = self.0.get_mut(at) else {
                    return;
                };
                match (seq, index).cmp(&(entry.seq, entry.index)) {
                    Ordering::Greater => {
                        entry.seq = seq;
                        entry.index = index;
                        entry.content = content;
                    }
                    Ordering::Equal if content.is_none() => entry.content = None,
                    Ordering::Equal | Ordering::Less => {}
                }
            }
        }
    }

    /// Takes entries that are sorted by log.
    pub(super) fn from_sorted(entries: Vec<Entry<T>>) -> Self {
        Self(entries)
    }

    pub(super) fn entries(&self) -> &[Entry<T>] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether any entry still shows.
    pub(super) fn is_visible(&self) -> bool {
        self.0.iter().any(|entry| entry.content.is_some())
    }

    /// What an op of `own` replaces here: the visible entries of all other logs.
    pub(super) fn seen_by(&self, own: LogId) -> Vec<Dot> {
        let others = self.0.iter().filter(|entry| entry.log != own);
        others
            .filter(|entry| entry.content.is_some())
            .map(Entry::dot)
            .collect()
    }
}

impl<V> Dots<Write<V>> {
    /// The visible write of the greatest place.
    pub(super) fn winner(&self) -> Option<(Place, Option<&V>)> {
        match self.0.as_slice() {
            [only] => only.visible(),
            entries => entries
                .iter()
                .filter_map(Entry::visible)
                .max_by_key(|(place, _)| *place),
        }
    }

    /// All visible writes, greatest place first.
    pub(super) fn visible(&self) -> Vec<(Place, Option<&V>)> {
        let mut visible: Vec<_> = self.0.iter().filter_map(Entry::visible).collect();
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

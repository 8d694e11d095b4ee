//! A list that costs no allocation while it has one item.

use super::Entry;

/// The entries of a place, sorted by log. Most places have one writer: its entry lies here and not
/// somewhere else in memory, which is what reading and folding would wait for.
// One entry is never `Many`, so that the derived equality holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Entries<T> {
    One(Entry<T>),
    Many(Vec<Entry<T>>),
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> From<Vec<Entry<T>>> for Entries<T> {
    fn from(mut entries: Vec<Entry<T>>) -> Self {
        match (entries.len(), entries.pop()) {
            (1, Some(only)) => Self::One(only),
            (_, last) => {
                entries.extend(last);
                Self::Many(entries)
            }
        }
    }
}

impl<T> Entries<T> {
    #[inline]
    pub(super) fn as_slice(&self) -> &[Entry<T>] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(entries) => entries,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Entry<T>> {
        match self {
            Self::One(only) => (at == 0).then_some(only),
            Self::Many(entries) => entries.get_mut(at),
        }
    }

    pub(super) fn insert(&mut self, at: usize, entry: Entry<T>) {
        let mut entries = match std::mem::take(self) {
            Self::One(only) => vec![only],
            Self::Many(entries) => entries,
        };
        entries.insert(at, entry);
        *self = entries.into();
    }
}

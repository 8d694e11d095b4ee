//! What was written to a thread, kept outside of the peers, to compare with what they show.
//!
//! Each write puts a document of its own, which nobody changes. So a machine that shows a write must
//! show all that the write's author had seen, and what a machine showed once it shows for ever.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use leno::DocumentId;
use serde::{Deserialize, Serialize};

/// The collection of a write's own documents.
pub(crate) const LEDGER: &str = "ledger";

/// A second collection: what a transaction writes to both shows in both or in none.
pub(crate) const MIRROR: &str = "mirror";

thread_local! {
    /// Whether applications of the run that this thread runs write other words.
    static HAS_OTHER_WORDS: Cell<bool> = const { Cell::new(false) };
}

/// Has applications write other words from now on, of the same lengths; or the usual ones. A run rests
/// on one thread.
pub(crate) fn use_other_words(other: bool) {
    HAS_OTHER_WORDS.set(other);
}

/// What applications write.
pub(crate) fn word() -> &'static str {
    match HAS_OTHER_WORDS.get() {
        false => "verse",
        true => "chant",
    }
}

/// A write: in which lane, and how many there were before it. Writes of one lane are in order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Entry {
    pub(crate) lane: u64,
    pub(crate) number: u64,
}

/// Lanes of one machine are so far apart.
const MACHINES_MAX: u64 = 1_000;

/// The document of a write.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Note {
    pub(crate) lane: u64,
    pub(crate) number: u64,
    pub(crate) text: String,
}

impl Entry {
    pub(crate) fn id(self) -> Option<DocumentId> {
        DocumentId::natural(format!("{}.{}", self.lane, self.number)).ok()
    }

    fn is_of(self, machine: usize) -> bool {
        self.lane % MACHINES_MAX == machine as u64
    }

    /// What its document shows. Long ones fill ranges.
    pub(crate) fn note(self) -> Note {
        let long = if self.number.is_multiple_of(17) {
            3_000
        } else {
            20
        };
        let len = usize::try_from(self.number % long).unwrap_or(0);
        Note {
            lane: self.lane,
            number: self.number,
            text: format!("{} ", word()).repeat(len / 6),
        }
    }
}

impl From<&Note> for Entry {
    fn from(note: &Note) -> Self {
        Self {
            lane: note.lane,
            number: note.number,
        }
    }
}

#[derive(Debug, Default)]
struct Written {
    /// The caller was told that it is durable.
    is_acknowledged: bool,
    /// It may have been lost with a disk that was put back to an older state.
    may_be_lost: bool,
    is_mirrored: bool,
    /// What its author's machine showed when it was written.
    had_seen: Vec<Entry>,
}

/// A rule that what a machine shows does not keep.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Broken {
    pub(crate) invariant: u8,
    pub(crate) what: String,
}

/// What a machine must show.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// Its own writes, as far as they were acknowledged.
    own: BTreeSet<Entry>,
    /// What it showed before.
    shown: BTreeSet<Entry>,
}

/// All writes to a thread.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    written: BTreeMap<Entry, Written>,
    next: BTreeMap<u64, u64>,
    lanes: u64,
    /// What each machine showed when it was last read.
    shown: BTreeMap<usize, BTreeSet<Entry>>,
    /// Machines whose writes may be lost with a fork of their log.
    may_fork: BTreeSet<usize>,
}

impl Ledger {
    /// A lane of a machine for writes whose order among its others is not known.
    pub(crate) fn new_lane(&mut self, machine: usize) -> u64 {
        self.lanes += 1;
        self.lanes * MACHINES_MAX + machine as u64
    }

    /// Notes a write of a machine that is being made in this very moment: it is there, or not, until
    /// it is acknowledged.
    pub(crate) fn begin(&mut self, machine: usize, had_seen: Vec<Entry>, mirror: bool) -> Entry {
        self.begin_in(machine as u64, had_seen, mirror)
    }

    pub(crate) fn begin_in(&mut self, lane: u64, had_seen: Vec<Entry>, mirror: bool) -> Entry {
        let next = self.next.entry(lane).or_default();
        *next += 1;
        let number = *next;
        let entry = Entry { lane, number };
        let machine = usize::try_from(lane % MACHINES_MAX).unwrap_or(0);
        let written = Written {
            is_acknowledged: false,
            may_be_lost: self.may_fork.contains(&machine),
            is_mirrored: mirror,
            had_seen,
        };
        self.written.insert(entry, written);
        entry
    }

    pub(crate) fn acknowledge(&mut self, entry: Entry) {
        if let Some(written) = self.written.get_mut(&entry) {
            written.is_acknowledged = true;
        }
    }

    /// Some of the latest writes of others.
    pub(crate) fn latest_of_others(&self, machine: usize) -> Vec<Entry> {
        let mut latest = BTreeMap::new();
        for entry in self.written.keys().filter(|it| !it.is_of(machine)) {
            latest.insert(entry.lane, *entry);
        }
        latest.into_values().collect()
    }

    /// The writes of a machine that are durable for sure.
    pub(crate) fn durable_of(&self, machine: usize) -> BTreeSet<Entry> {
        let own = self
            .written
            .iter()
            .filter(|(entry, _)| entry.is_of(machine));
        let durable = own.filter(|(_, written)| written.is_acknowledged);
        durable.map(|(entry, _)| *entry).collect()
    }

    /// A machine's disk was put back to when only these writes of it were durable for sure.
    pub(crate) fn forget(&mut self, machine: usize, kept: &BTreeSet<Entry>, may_fork: bool) {
        for (entry, written) in &mut self.written {
            written.may_be_lost |= entry.is_of(machine) && !kept.contains(entry);
        }
        if may_fork {
            self.may_fork.insert(machine);
        }
        self.shown.remove(&machine);
    }

    /// Whatever a machine wrote and writes may be lost.
    pub(crate) fn may_lose(&mut self, machine: usize) {
        self.forget(machine, &BTreeSet::new(), true);
    }

    /// What a machine writes may be lost: nobody else has to show it.
    pub(crate) fn distrust(&mut self, machine: usize) {
        self.may_fork.insert(machine);
    }

    fn may_be_lost(&self, entry: Entry) -> bool {
        self.written.get(&entry).is_none_or(|it| it.may_be_lost)
    }

    /// A known write of which something is not known that its author had seen.
    pub(crate) fn missing_cause(&self, known: &BTreeSet<DocumentId>) -> Option<(Entry, Entry)> {
        let is_known = |it: &Entry| it.id().is_some_and(|id| known.contains(&id));
        let mut shown = self.written.iter().filter(|(entry, _)| is_known(entry));
        shown.find_map(|(entry, written)| {
            let mut causes = written.had_seen.iter();
            let missing = causes.find(|it| !is_known(it) && !self.may_be_lost(**it));
            missing.map(|cause| (*entry, *cause))
        })
    }

    /// What a machine must show from now on, whenever it is asked.
    pub(crate) fn owed(&self, machine: usize) -> Owed {
        let shown = self.shown.get(&machine).cloned();
        Owed {
            own: self.durable_of(machine),
            shown: shown.unwrap_or_default(),
        }
    }

    /// Compares what a machine shows with what was written. `owed` was taken before the machine was
    /// asked; `after_start` tells that it is the first look after the machine was started.
    pub(crate) fn compare(
        &mut self,
        machine: usize,
        owed: &Owed,
        notes: &[Note],
        mirrored: &[Note],
        after_start: bool,
    ) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut say = |invariant: u8, what: String| broken.push(Broken { invariant, what });
        let shown: BTreeSet<Entry> = notes.iter().map(Entry::from).collect();
        for note in notes {
            let entry = Entry::from(note);
            if !self.written.contains_key(&entry) {
                say(13, format!("{machine} shows {entry:?}, which nobody wrote"));
            } else if *note != entry.note() {
                say(
                    1,
                    format!("{machine} shows {entry:?} otherwise than written"),
                );
            }
        }
        let is_missing = |it: &&Entry| !shown.contains(it) && !self.may_be_lost(**it);
        for entry in owed.own.iter().filter(is_missing) {
            let invariant = if after_start { 7 } else { 4 };
            say(
                invariant,
                format!("{machine} lost its own {entry:?}, which was acknowledged"),
            );
        }
        for entry in owed.shown.iter().filter(is_missing) {
            say(4, format!("{machine} does not show {entry:?} any more"));
        }
        let mut newest = BTreeMap::new();
        for entry in &shown {
            newest.insert(entry.lane, entry.number);
        }
        let passed_over = self.written.iter().filter(|(entry, written)| {
            written.is_acknowledged
                && !written.may_be_lost
                && newest.get(&entry.lane).is_some_and(|it| *it > entry.number)
        });
        for (entry, _) in passed_over.filter(|(entry, _)| !shown.contains(entry)) {
            say(
                4,
                format!("{machine} shows what came after {entry:?}, and not it"),
            );
        }
        for entry in &shown {
            let seen = self.written.get(entry).map(|it| it.had_seen.as_slice());
            for cause in seen.unwrap_or_default() {
                if !shown.contains(cause) && !self.may_be_lost(*cause) {
                    say(
                        4,
                        format!("{machine} shows {entry:?}, and not {cause:?}, which it saw"),
                    );
                }
            }
        }
        let mirrored: BTreeSet<Entry> = mirrored.iter().map(Entry::from).collect();
        for entry in shown.union(&mirrored) {
            let both = self.written.get(entry).is_some_and(|it| it.is_mirrored);
            if (shown.contains(entry), mirrored.contains(entry)) != (true, both) {
                say(4, format!("{machine} shows a part of {entry:?}"));
            }
        }
        self.shown.entry(machine).or_default().extend(shown);
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ledger: &mut Ledger, machine: usize, entries: &[Entry]) -> Vec<u8> {
        let notes: Vec<_> = entries.iter().map(|it| it.note()).collect();
        let owed = ledger.owed(machine);
        let broken = ledger.compare(machine, &owed, &notes, &[], false);
        broken.into_iter().map(|it| it.invariant).collect()
    }

    #[test]
    fn breaches_of_each_guarantee_are_seen() {
        let mut ledger = Ledger::default();
        let first = ledger.begin(0, Vec::new(), false);
        let second = ledger.begin(0, Vec::new(), false);
        let other = ledger.begin(1, vec![second], false);
        assert_eq!(shown(&mut ledger, 2, &[first, second, other]), [0; 0]);
        assert_eq!(
            shown(&mut ledger, 2, &[first, second]),
            [4],
            "monotonic reads"
        );
        assert_eq!(shown(&mut ledger, 3, &[other]), [4], "writes follow reads");
        assert_eq!(
            shown(&mut ledger, 0, &[]),
            [0; 0],
            "nothing was acknowledged"
        );
        ledger.acknowledge(first);
        assert_eq!(shown(&mut ledger, 0, &[]), [4], "own writes");
        assert_eq!(shown(&mut ledger, 4, &[second]), [4], "order of a writer");
        ledger.forget(0, &BTreeSet::new(), false);
        assert_eq!(shown(&mut ledger, 0, &[]), [0; 0], "it was put back");
        let strange = Entry { lane: 9, number: 1 };
        assert_eq!(shown(&mut ledger, 5, &[strange]), [13]);
    }

    #[test]
    fn transactions_show_as_a_whole() {
        let mut ledger = Ledger::default();
        let entry = ledger.begin(0, Vec::new(), true);
        let (note, owed) = ([entry.note()], Owed::default());
        assert_eq!(ledger.compare(1, &owed, &note, &note, false), []);
        assert_eq!(ledger.compare(1, &owed, &note, &[], false).len(), 1);
        assert_eq!(ledger.compare(2, &owed, &[], &note, false).len(), 1);
    }
}

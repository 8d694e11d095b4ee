//! Which records of each log are in the documents.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use leno_crdt_codec::{LogId, Seq};
use leno_threads_core::store::{Batch, StoreError, Table, View, scan_prefix};

/// Most stretches of records of one log that may be missing below its newest folded one.
///
/// Beyond it newer records are held back, until some of the missing ones have come and the log is
/// replayed: a log can only harm itself by that.
pub const GAPS_MAX: usize = 1 << 16;

/// What a record is to a log's cursor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    /// Behind all others.
    New,
    /// One that was missing.
    Late,
    /// Folded before.
    Duplicate,
    /// It would leave too many gaps.
    HeldBack,
}

/// All cursors of a thread.
#[derive(Debug)]
pub(crate) struct Cursors {
    thread: u32,
    logs: BTreeMap<LogId, Cursor>,
}

/// The records of one log that are folded: all up to `newest` but for the gaps.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Cursor {
    newest: Seq,
    /// First and last of each stretch that is missing, ascending.
    gaps: Vec<(Seq, Seq)>,
    flushed: Seq,
    dirty: bool,
}

impl Cursors {
    pub(crate) fn load(view: &dyn View, thread: u32) -> Result<Self, StoreError> {
        let mut logs = BTreeMap::new();
        let mut damaged = false;
        scan_prefix(
            view,
            Table::Cursors,
            &thread.to_be_bytes(),
            &mut |key, row| {
                // Rows of other readers have keys of other lengths.
                if let Some(log) = key.get(4..).and_then(|log| log.try_into().ok()) {
                    match Cursor::decode(row) {
                        Some(cursor) => drop(logs.insert(LogId(log), cursor)),
                        None => damaged = true,
                    }
                }
                ControlFlow::Continue(())
            },
        )?;
        match damaged {
            false => Ok(Self { thread, logs }),
            true => Err(StoreError::Corrupt {
                what: "a cursor of documents".to_owned(),
            }),
        }
    }

    /// The newest record of a log that is in the rows.
    pub(crate) fn flushed(&self, log: &LogId) -> Seq {
        self.logs.get(log).map_or(0, |cursor| cursor.flushed)
    }

    /// The newest folded record of a log.
    pub(crate) fn newest(&self, log: &LogId) -> Seq {
        self.logs.get(log).map_or(0, |cursor| cursor.newest)
    }

    /// The first record of a log that is missing below its newest folded one.
    pub(crate) fn gap(&self, log: &LogId) -> Option<Seq> {
        self.logs.get(log)?.gaps.first().map(|(first, _)| *first)
    }

    pub(crate) fn judge(&self, log: &LogId, seq: Seq) -> Arrival {
        match self.logs.get(log) {
            Some(cursor) => cursor.judge(seq),
            None => Cursor::default().judge(seq),
        }
    }

    /// Notes that a record is folded.
    pub(crate) fn take(&mut self, log: LogId, seq: Seq) {
        self.logs.entry(log).or_default().take(seq);
    }

    /// Notes that records are folded no more.
    pub(crate) fn take_out(&mut self, log: LogId, seqs: &RangeInclusive<Seq>) {
        if let Some(cursor) = self.logs.get_mut(&log) {
            cursor.take_out(seqs);
        }
    }

    pub(crate) fn flush(&mut self, batch: &mut Batch) {
        for (log, cursor) in self.logs.iter_mut().filter(|(_, cursor)| cursor.dirty) {
            cursor.dirty = false;
            cursor.flushed = cursor.newest;
            let key = [&self.thread.to_be_bytes()[..], &log.0].concat();
            batch.put(Table::Cursors, key, cursor.encode());
        }
    }
}

impl Cursor {
    fn judge(&self, seq: Seq) -> Arrival {
        let full = self.gaps.len() >= GAPS_MAX;
        if seq > self.newest {
            return match full && seq - self.newest > 1 {
                false => Arrival::New,
                true => Arrival::HeldBack,
            };
        }
        match self.gap_with(seq) {
            None => Arrival::Duplicate,
            Some((_, (first, last))) if full && first < seq && seq < last => Arrival::HeldBack,
            Some(_) => Arrival::Late,
        }
    }

    fn take(&mut self, seq: Seq) {
        self.dirty = true;
        if seq > self.newest {
            if seq - self.newest > 1 {
                self.gaps.push((self.newest + 1, seq - 1));
            }
            self.newest = seq;
        } else if let Some((at, (first, last))) = self.gap_with(seq) {
            let left = (first < seq).then(|| (first, seq - 1));
            let right = (seq < last).then(|| (seq + 1, last));
            self.gaps.splice(at..=at, left.into_iter().chain(right));
        }
    }

    fn take_out(&mut self, seqs: &RangeInclusive<Seq>) {
        let (first, last) = (*seqs.start(), (*seqs.end()).min(self.newest));
        if first > last {
            return;
        }
        self.dirty = true;
        // The gap takes in those that it meets.
        let (mut first, mut last) = (first, last);
        self.gaps.retain(|gap| {
            let meets = gap.0 <= last + 1 && first <= gap.1 + 1;
            if meets {
                first = first.min(gap.0);
                last = last.max(gap.1);
            }
            !meets
        });
        if last == self.newest {
            self.newest = first - 1;
            self.flushed = self.flushed.min(self.newest);
            return;
        }
        let at = self.gaps.partition_point(|gap| gap.0 < first);
        self.gaps.insert(at, (first, last));
    }

    fn gap_with(&self, seq: Seq) -> Option<(usize, (Seq, Seq))> {
        let at = self.gaps.partition_point(|(_, last)| *last < seq);
        let gap = *self.gaps.get(at)?;
        (gap.0 <= seq).then_some((at, gap))
    }

    /// `newest | (first | last) of each gap`, 8 bytes each, big-endian.
    fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(8 + 16 * self.gaps.len());
        row.extend_from_slice(&self.newest.to_be_bytes());
        for (first, last) in &self.gaps {
            row.extend_from_slice(&first.to_be_bytes());
            row.extend_from_slice(&last.to_be_bytes());
        }
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (numbers, rest) = row.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| Seq::from_be_bytes(*bytes));
        let newest = numbers.next().filter(|_| rest.is_empty())?;
        let mut gaps = Vec::new();
        let mut above = 0;
        while let Some(first) = numbers.next() {
            let last = numbers.next()?;
            if first <= above || last < first || last >= newest {
                return None;
            }
            // Two gaps have a record between them.
            above = last + 1;
            gaps.push((first, last));
        }
        Some(Self {
            newest,
            gaps,
            flushed: newest,
            dirty: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cursor: &Cursor, newest: Seq, gaps: &[(Seq, Seq)]) {
        assert_eq!((cursor.newest, cursor.gaps.as_slice()), (newest, gaps));
        let mut decoded = Cursor::decode(&cursor.encode()).unwrap();
        decoded.flushed = cursor.flushed;
        decoded.dirty = cursor.dirty;
        assert_eq!(decoded, *cursor);
    }

    #[test]
    fn each_record_is_taken_once() {
        let mut cursor = Cursor::default();
        for (seq, expected) in [
            (0, Arrival::Duplicate),
            (1, Arrival::New),
            (1, Arrival::Duplicate),
            (7, Arrival::New),
            (4, Arrival::Late),
            (4, Arrival::Duplicate),
            (2, Arrival::Late),
        ] {
            assert_eq!(cursor.judge(seq), expected, "{seq}");
            if matches!(expected, Arrival::New | Arrival::Late) {
                cursor.take(seq);
            }
        }
        check(&cursor, 7, &[(3, 3), (5, 6)]);
        for seq in [6, 3, 5] {
            assert_eq!(cursor.judge(seq), Arrival::Late);
            cursor.take(seq);
        }
        check(&cursor, 7, &[]);
    }

    #[test]
    fn what_is_taken_out_is_missing() {
        let taken = |seqs: RangeInclusive<Seq>| {
            let mut cursor = Cursor::default();
            [1, 2, 3, 5, 6, 9].iter().for_each(|seq| cursor.take(*seq));
            cursor.take_out(&seqs);
            cursor
        };
        check(&taken(2..=2), 9, &[(2, 2), (4, 4), (7, 8)]);
        check(&taken(3..=3), 9, &[(3, 4), (7, 8)]);
        check(&taken(2..=6), 9, &[(2, 8)]);
        check(&taken(9..=9), 6, &[(4, 4)]);
        check(&taken(5..=20), 3, &[]);
        check(&taken(1..=20), 0, &[]);
        check(&taken(10..=20), 9, &[(4, 4), (7, 8)]);
        let mut cursor = taken(5..=20);
        assert_eq!(cursor.judge(5), Arrival::New);
        cursor.take(5);
        check(&cursor, 5, &[(4, 4)]);
    }

    #[test]
    fn too_many_gaps_hold_newer_records_back() {
        let mut cursor = Cursor::default();
        for gap in 1..=GAPS_MAX as u64 {
            cursor.take(gap * 5);
        }
        let newest = cursor.newest;
        assert_eq!(cursor.judge(newest + 2), Arrival::HeldBack);
        assert_eq!(cursor.judge(newest + 1), Arrival::New);
        assert_eq!(cursor.judge(3), Arrival::HeldBack, "it would split a gap");
        assert_eq!(cursor.judge(4), Arrival::Late);
        assert!(cursor.encode().len() <= leno_threads_core::store::VALUE_BYTES_MAX);
        (1..=4).for_each(|seq| cursor.take(seq));
        assert_eq!(cursor.judge(newest + 2), Arrival::New);
    }

    #[test]
    fn rows_that_make_no_sense_are_refused() {
        let row = |numbers: &[u64]| -> Vec<u8> {
            numbers.iter().flat_map(|it| it.to_be_bytes()).collect()
        };
        for bad in [
            &[][..],
            &[5, 1],
            &[5, 0, 1],
            &[5, 3, 2],
            &[5, 4, 5],
            &[9, 1, 2, 3, 4],
            &[9, 4, 5, 1, 2],
        ] {
            assert_eq!(Cursor::decode(&row(bad)), None, "{bad:?}");
        }
        assert_eq!(Cursor::decode(&[0; 9]), None);
        assert!(Cursor::decode(&row(&[9, 1, 2, 4, 5])).is_some());
    }
}

//! Reading back what rests in the store: runs, places, tips.

use std::borrow::Cow;
use std::ops::{Bound, ControlFlow};

use leno_crdt_codec::cbor::Decoder;
use leno_crdt_codec::{LogId, Seq, Stamp};

use super::Thread;
use super::log::{Log, decode_frontier};
use crate::frontier::Frontier;
use crate::run::decode_row;
use crate::store::{Direction, StoreError, Table, View};
use crate::{Header, RecordId, SealContext, SealedPart, Tip, VerifiedRun, keys};

impl Thread {
    /// Visits the stored rows of a log in order, from the one that holds record `from`: the place of
    /// the row's first record, and the row. See [`crate::decode_row`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn scan_rows(
        &self,
        view: &dyn View,
        log: &LogId,
        from: Seq,
        visit: &mut dyn FnMut(Seq, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(entry) = self.logs.get(log) else {
            return Ok(());
        };
        self.scan_entry(view, entry, from, visit)
    }

    pub(super) fn scan_entry(
        &self,
        view: &dyn View,
        log: &Log,
        from: Seq,
        visit: &mut dyn FnMut(Seq, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let low = keys::record(self.number, log.number, 0);
        let at = keys::record(self.number, log.number, from);
        let high = keys::record(self.number, log.number, Seq::MAX);
        // A row is keyed by its first record, so the row that holds `from` is the last at or below.
        let mut start = at.clone();
        let (low, to) = (
            Bound::Included(low.as_slice()),
            Bound::Included(at.as_slice()),
        );
        view.scan(Table::Runs, low, to, Direction::Backward, &mut |key, _| {
            start = key.to_vec();
            ControlFlow::Break(())
        })?;
        let (from, to) = (
            Bound::Included(start.as_slice()),
            Bound::Included(high.as_slice()),
        );
        view.scan(
            Table::Runs,
            from,
            to,
            Direction::Forward,
            &mut |key, row| visit(keys::seq(key).unwrap_or_default(), row),
        )
    }

    /// Derives the run of a row that this peer verified before it stored it.
    pub(super) fn derive_row<'a>(
        &self,
        log: LogId,
        row: &'a [u8],
    ) -> Result<VerifiedRun<'a>, StoreError> {
        let run = decode_row(row).and_then(|(tip, run)| run.derive(self.id, log, &tip));
        let run = run.map_err(|error| StoreError::Corrupt {
            what: format!("a run of log {log}: {error}"),
        })?;
        self.note_derived(run.records().len());
        Ok(run)
    }

    /// The control records in the past of an admitted record of a log.
    pub(super) fn frontier_at<'a>(
        &self,
        view: &dyn View,
        log: &'a Log,
        seq: Seq,
    ) -> Result<Cow<'a, Frontier>, StoreError> {
        // What is drafted goes beyond what is admitted.
        if seq >= log.admitted && !log.has_step_behind(seq) {
            return Ok(Cow::Borrowed(&log.frontier));
        }
        if let Some(frontier) = log.recent_frontier(seq) {
            return Ok(Cow::Borrowed(frontier));
        }
        let (low, high) = (
            keys::step(self.number, log.number, 0),
            keys::step(self.number, log.number, seq),
        );
        let (from, to) = (
            Bound::Included(low.as_slice()),
            Bound::Included(high.as_slice()),
        );
        let mut row = None;
        view.scan(
            Table::Logs,
            from,
            to,
            Direction::Backward,
            &mut |_, bytes| {
                row = Some(bytes.to_vec());
                ControlFlow::Break(())
            },
        )?;
        let Some(row) = row else {
            return Ok(Cow::Borrowed(&log.opened));
        };
        let frontier = decode_frontier(&mut Decoder::new(&row), &self.ids);
        let frontier = frontier.map_err(|error| StoreError::Corrupt {
            what: format!("a frontier: {error}"),
        })?;
        Ok(Cow::Owned(frontier))
    }

    /// The row that holds a record.
    pub(super) fn row_with(
        &self,
        view: &dyn View,
        log: &Log,
        seq: Seq,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.scan_entry(view, log, seq, &mut |first, row| {
            found = (first <= seq).then(|| row.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Id and stamp of a stored record.
    pub(super) fn place_of(
        &self,
        view: &dyn View,
        id: LogId,
        log: &Log,
        seq: Seq,
    ) -> Result<Option<(RecordId, Stamp)>, StoreError> {
        if log.tip.seq == seq {
            return Ok(Some((log.tip.id, log.tip.stamp)));
        }
        if let Some(recent) = log.recent(seq) {
            return Ok(Some(recent));
        }
        let Some(row) = self.row_with(view, log, seq)? else {
            return Ok(None);
        };
        let run = self.derive_row(id, &row)?;
        let record = run.records().iter().find(|record| record.seq == seq);
        Ok(record.map(|record| (record.id, record.stamp)))
    }

    /// The id of a stored record of a log, or nothing if it is not here.
    pub(crate) fn id_at(
        &self,
        view: &dyn View,
        id: &LogId,
        seq: Seq,
    ) -> Result<Option<RecordId>, StoreError> {
        let Some(log) = self.logs.get(id).filter(|log| log.tip.seq >= seq) else {
            return Ok(None);
        };
        Ok(self.place_of(view, *id, log, seq)?.map(|(id, _)| id))
    }

    /// Where a log stood before record `first`, which it has.
    pub(super) fn tip_before(
        &self,
        view: &dyn View,
        id: LogId,
        log: &Log,
        first: Seq,
    ) -> Result<Tip, StoreError> {
        let lost = || StoreError::Corrupt {
            what: format!("log {id} lacks record {first}"),
        };
        let row = self.row_with(view, log, first)?.ok_or_else(lost)?;
        let run = self.derive_row(id, &row)?;
        if run.first().seq + 1 == first {
            return Ok(*run.first());
        }
        let before = run.records().iter().find(|record| record.seq + 1 == first);
        before
            .map(|record| Tip {
                seq: record.seq,
                id: record.id,
                stamp: record.stamp,
                key: Some(record.key),
            })
            .ok_or_else(lost)
    }

    /// The headers of stored records of a log, from `first` to `last`, for evidence.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn headers(
        &self,
        view: &dyn View,
        id: &LogId,
        first: Seq,
        last: Seq,
    ) -> Result<Vec<Header>, StoreError> {
        let mut rows = Vec::new();
        self.scan_rows(view, id, first, &mut |at, row| {
            if at > last {
                return ControlFlow::Break(());
            }
            rows.push(row.to_vec());
            ControlFlow::Continue(())
        })?;
        let mut headers: Vec<Header> = Vec::new();
        for row in rows {
            let run = self.derive_row(*id, &row)?;
            let mut prev = run.first().id;
            for record in run.records() {
                let next = headers
                    .last()
                    .map_or(first, |header| header.context.seq + 1);
                if record.seq == next && record.seq <= last {
                    headers.push(self.header_of(*id, prev, record));
                }
                prev = record.id;
            }
        }
        Ok(headers)
    }

    pub(super) fn header_of(
        &self,
        log: LogId,
        prev: RecordId,
        record: &crate::Record<'_>,
    ) -> Header {
        Header {
            context: SealContext {
                thread: self.id,
                log,
                seq: record.seq,
                prev,
                deps: record.deps.clone(),
                control: record.control.clone(),
                stamp: record.stamp,
                key: record.key,
            },
            body: SealedPart::of(record.body),
            roster: record.roster.map(SealedPart::of),
        }
    }
}

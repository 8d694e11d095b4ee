//! Computing a cut from what is stored.

use std::ops::{Bound, ControlFlow};

use leno_crdt_codec::{LogId, Seq, Stamp};

use super::Thread;
use super::log::Log;
use crate::cut::{Cut, CutLog, compute_cut};
use crate::run::decode_row;
use crate::store::{Direction, StoreError, Table, View};
use crate::{RecordId, Role, SeatId, keys};

impl Thread {
    /// Computes the highest cut of the records that are admitted here: below it nothing can come any
    /// more. See [`crate::cut`] for the rules, and for what to do with the logs that hold it back.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails or a row does not read as written.
    pub fn compute_cut(&self, view: &dyn View) -> Result<Cut, StoreError> {
        let logs = self.logs.iter().map(|(id, log)| CutLog {
            log: *id,
            is_control: log.is_control,
            newest: log.admitted_stamp,
            counts: self.counts(*id, log),
        });
        compute_cut(logs, |id, stamp| self.last_up_to(view, id, stamp))
    }

    /// Whether a log may still bring a record into the order.
    fn counts(&self, id: LogId, log: &Log) -> bool {
        if log.is_control {
            return self.governance.role(SeatId(id.0)).is_some_and(Role::writes);
        }
        log.expires
            .is_none_or(|expires| log.admitted_stamp < expires)
    }

    /// The last admitted record of a log whose stamp is not above `stamp`.
    fn last_up_to(
        &self,
        view: &dyn View,
        id: &LogId,
        stamp: Stamp,
    ) -> Result<Option<(Seq, RecordId)>, StoreError> {
        let Some(log) = self.logs.get(id).filter(|log| log.admitted > 0) else {
            return Ok(None);
        };
        if log.tip.seq == log.admitted && log.tip.stamp <= stamp {
            return Ok(Some((log.tip.seq, log.tip.id)));
        }
        let low = keys::record(self.number, log.number, 0);
        let high = keys::record(self.number, log.number, log.admitted);
        let mut row = None;
        // Stamps rise, so the last row that begins at or below the stamp holds the record.
        view.scan(
            Table::Runs,
            Bound::Included(&low),
            Bound::Included(&high),
            Direction::Backward,
            &mut |_, bytes| match decode_row(bytes) {
                Ok((before, _)) if before.seq > 0 && before.stamp > stamp => {
                    ControlFlow::Continue(())
                }
                _ => {
                    row = Some(bytes.to_vec());
                    ControlFlow::Break(())
                }
            },
        )?;
        let Some(row) = row else { return Ok(None) };
        let run = self.derive_row(*id, &row)?;
        let in_cut = |seq: Seq, at: Stamp| seq <= log.admitted && at <= stamp;
        let last = run
            .records()
            .iter()
            .rev()
            .find(|record| in_cut(record.seq, record.stamp));
        let before = run.first();
        Ok(last.map(|record| (record.seq, record.id)).or_else(|| {
            (before.seq > 0 && in_cut(before.seq, before.stamp)).then_some((before.seq, before.id))
        }))
    }
}

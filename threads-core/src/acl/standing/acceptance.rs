//! What was accepted of logs.

use leno_crdt_codec::{LogId, Seq};

use super::{EntryAt, Power, Rank, Standing};
use crate::{RecordId, RecordRef};

/// A log accepted up to a record, by an op.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    by: EntryAt,
    /// What its author needed for the op.
    power: Power,
    up_to: RecordRef,
}

impl Accepted {
    /// Whether a place of the log was accepted, on whichever branch.
    pub(super) fn reaches(&self, seq: Seq) -> bool {
        self.up_to.seq >= seq
    }
}

impl Standing {
    pub(super) fn note_acceptances(&mut self, by: EntryAt, power: Power, accepts: &[RecordRef]) {
        for up_to in accepts {
            let up_to = *up_to;
            let of_log = self.accepted.entry(up_to.log).or_default();
            of_log.push(Accepted { by, power, up_to });
        }
    }

    pub(super) fn acceptances<'a>(
        &'a self,
        log: &LogId,
        counts: impl Fn(&Rank) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Accepted> + 'a {
        let of_log = self.accepted.get(log).into_iter().flatten();
        of_log.filter(move |it| self.rank(it.by, it.power).is_some_and(&counts))
    }

    /// Whether a control record was accepted by somebody whose rank counts, and who had seen what he accepted:
    /// that is on the branch that is here.
    pub(super) fn is_accepted(&self, place: RecordRef, counts: impl Fn(&Rank) -> bool) -> bool {
        let mut accepted = self.acceptances(&place.log, counts);
        accepted.any(|it| {
            let at = self.at.get(&it.up_to.id).copied();
            let at = at.filter(|at| self.entry(*at).said.place == it.up_to);
            it.up_to.seq >= place.seq && at.is_some_and(|at| self.op_has_seen((it.by, 0), (at, 0)))
        })
    }

    /// Up to where a data log was accepted by somebody whose rank counts.
    ///
    /// What names a record that is not the one at its place is of another branch, or made up.
    pub(super) fn accepted_up_to(
        &self,
        log: &LogId,
        counts: impl Fn(&Rank) -> bool,
        id_at: &mut dyn FnMut(Seq) -> Option<RecordId>,
    ) -> Seq {
        let mut up_to = 0;
        for it in self.acceptances(log, counts).map(|it| &it.up_to) {
            if it.seq > up_to && id_at(it.seq).is_none_or(|id| id == it.id) {
                up_to = it.seq;
            }
        }
        up_to
    }
}

//! Key wraps.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use super::Step;
use crate::store::{StoreError, View};
use crate::sync::error::SyncError;
use crate::sync::slot::Slot;
use crate::thread::{Changes, Opened, Sink, TakeWrapError, Thread, ThreadEvent, WrapTag, tag_of};
use crate::{EpochId, Role, SeatId, ThreadId, Wrap};

/// What became of wraps.
#[derive(Default)]
pub(in crate::sync) struct TakenWraps {
    /// Whether one of them was news.
    pub(in crate::sync) news: bool,
    /// Those that are here now. Others are never sent, so it would be for nothing to remember who has
    /// them.
    pub(in crate::sync) kept: Vec<(EpochId, SeatId, WrapTag)>,
    /// Why the last of those that are bad is.
    pub(in crate::sync) refused: Option<TakeWrapError>,
}

impl TakenWraps {
    /// Takes in wraps that a seat hands over.
    pub(in crate::sync) fn take(
        thread: &mut Thread,
        view: &dyn View,
        from: SeatId,
        wraps: &[Wrap],
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<Self, StoreError> {
        let mut taken = Self::default();
        for wrap in wraps {
            match thread.take_wrap(view, from, wrap, changes, sink) {
                Ok(it) => {
                    taken.news |= it;
                    taken.kept.push((wrap.epoch, wrap.seat, tag_of(wrap)));
                }
                Err(TakeWrapError::Store(error)) => return Err(error),
                // Nobody's fault: governance that tells of the epoch or the seat may be held here, and
                // several members may have wrapped the same key.
                Err(
                    TakeWrapError::UnknownEpoch
                    | TakeWrapError::Ghost { .. }
                    | TakeWrapError::TooMany { .. },
                ) => {}
                Err(source) => taken.refused = Some(source),
            }
        }
        Ok(taken)
    }
}

impl Step<'_, '_> {
    pub(super) fn wraps(&mut self, number: u32, wraps: &[Wrap]) -> Result<(), SyncError> {
        let peer = self.peer;
        let id = self.thread_id(number)?;
        let seat = self.matched(id)?.seat;
        let out_of_turn = SyncError::OutOfTurn {
            peer,
            what: "keys before the genesis",
        };
        let Some(thread) = self.replica.thread(&id) else {
            return Err(out_of_turn);
        };
        let Some(seat) = seat.filter(|seat| thread.governance().role(*seat).is_some()) else {
            return Ok(());
        };
        let told = self.changes.events.len();
        let taken = self.take_wraps(id, seat, wraps)?.ok_or(out_of_turn)?;
        let mut told = self.changes.events.iter().skip(told);
        let key_came = told.any(|(of, it)| *of == id && matches!(it, ThreadEvent::KeyCame { .. }));
        let matched = self.matched(id)?;
        // There are more than one message asks for.
        matched.keys_asked &= !key_came;
        let is_live = matched.is_answered();
        matched.wraps_sent.extend(taken.kept);
        if taken.news {
            self.replica.touched(id);
        }
        // Before the other side told all it has, wraps for others may be under way.
        if is_live {
            self.wrap_due(id);
        }
        match taken.refused {
            Some(source) => Err(SyncError::Wrap {
                peer,
                thread: id,
                source,
            }),
            None => Ok(()),
        }
    }

    /// Takes in wraps that a seat hands over; nothing before the genesis is here.
    pub(in crate::sync) fn take_wraps(
        &mut self,
        id: ThreadId,
        seat: SeatId,
        wraps: &[Wrap],
    ) -> Result<Option<TakenWraps>, StoreError> {
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Ok(None);
        };
        // Nobody can tell a good wrap for another seat from junk: strangers hand over none.
        if thread.governance().role(seat).is_none() {
            return Ok(Some(TakenWraps::default()));
        }
        let mut sink = |opened: &Opened<'_>| (self.sink)(id, opened);
        TakenWraps::take(thread, self.view, seat, wraps, self.changes, &mut sink).map(Some)
    }

    /// Wraps keys that came for the readers who lack them.
    pub(in crate::sync) fn wrap_due(&mut self, id: ThreadId) {
        if let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id)
            && thread.wrap_due(self.rng, self.changes) > 0
        {
            self.replica.touched(id);
        }
    }

    /// Wraps keys anew for the seat at the other end, each once in a session.
    pub(super) fn need_keys(&mut self, number: u32, epochs: &[EpochId]) -> Result<(), SyncError> {
        let id = self.thread_id(number)?;
        let matched = self.matched(id)?;
        let (seat, done) = (matched.seat, matched.wrapped_anew.clone());
        let Some(Slot::Open(thread)) = self.replica.slots.get_mut(&id) else {
            return Ok(());
        };
        let reads = |seat| thread.governance().role(seat).is_some_and(Role::reads);
        let Some(seat) = seat.filter(|seat| reads(*seat)) else {
            return Ok(());
        };
        let mut anew = Vec::new();
        for epoch in thread.unlinked(epochs) {
            if done.contains(&epoch) {
                continue;
            }
            let made = thread.wrap_again(epoch, seat, self.rng, self.changes);
            anew.extend(made.map(|wrap| wrap.epoch));
        }
        self.matched(id)?.wrapped_anew.extend(anew);
        self.replica.touched(id);
        Ok(())
    }
}

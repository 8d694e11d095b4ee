//! How many strangers stay connected: peers that came by themselves and proved no seat here.
//!
//! A transport keeps a bounded number of connections, so strangers who hold all of them would keep
//! members out. A newcomer has some time to prove a seat, or to be proved one to; then it is a
//! stranger, and beyond a number of them the oldest one is hung up on. Beyond a number of newcomers the
//! oldest one does not get its time. Nobody is hung up on as long as there is room.

use std::collections::VecDeque;

use leno_threads_core::sync::PeerKey;
use leno_transport_trait::LinkId;

/// How long a newcomer has to prove a seat. It takes a few messages each way.
const GRACE_MILLIS: u64 = 30_000;

/// Most strangers. With the newcomers, half of what the networks of leno keep by default.
const STRANGERS_MAX: usize = 64;

/// Most newcomers, of whom any may turn out to be a stranger.
const NEWCOMERS_MAX: usize = 192;

/// Links of peers that came by themselves, in the order in which they came.
///
/// Who left, or proved a seat, is only noticed when it matters: a step costs the same however many
/// there are, but for those that it moves or removes.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    newcomers: VecDeque<Newcomer>,
    strangers: VecDeque<Place>,
}

/// A link, and whose it is.
pub(super) type Place = (PeerKey, LinkId);

#[derive(Debug)]
struct Newcomer {
    place: Place,
    until_millis: u64,
}

impl Strangers {
    /// Somebody came.
    pub(super) fn come(&mut self, place: Place, now_millis: u64) {
        self.newcomers.push_back(Newcomer {
            place,
            until_millis: now_millis.saturating_add(GRACE_MILLIS),
        });
    }

    /// Tells on whom to hang up now. `is_unknown` tells whether a link still is there, was not dialled
    /// from here, and shows no seat.
    pub(super) fn surplus(
        &mut self,
        is_unknown: impl Fn(&Place) -> bool,
        now_millis: u64,
    ) -> Vec<Place> {
        while let Some(newcomer) = self.newcomers.front()
            && newcomer.until_millis <= now_millis
        {
            let newcomer = self.newcomers.pop_front().map(|it| it.place);
            self.strangers.extend(newcomer.filter(&is_unknown));
        }
        let mut surplus = Vec::new();
        if self.strangers.len() > STRANGERS_MAX {
            self.strangers.retain(&is_unknown);
            let count = self.strangers.len().saturating_sub(STRANGERS_MAX);
            surplus.extend(self.strangers.drain(..count));
        }
        if self.newcomers.len() > NEWCOMERS_MAX {
            self.newcomers.retain(|it| is_unknown(&it.place));
            let count = self.newcomers.len().saturating_sub(NEWCOMERS_MAX);
            surplus.extend(self.newcomers.drain(..count).map(|it| it.place));
        }
        surplus
    }

    /// When the time of a newcomer is up and there may be a stranger too many.
    pub(super) fn wake_millis(&self) -> Option<u64> {
        let is_full = self.newcomers.len() + self.strangers.len() > STRANGERS_MAX;
        let first = self.newcomers.front().filter(|_| is_full);
        first.map(|newcomer| newcomer.until_millis)
    }

    /// Brings everything forward by as much as the clock was set back.
    pub(super) fn clock_went_back(&mut self, millis: u64) {
        for newcomer in &mut self.newcomers {
            newcomer.until_millis = newcomer.until_millis.saturating_sub(millis);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: usize) -> Place {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        (PeerKey(key), LinkId(number as u64))
    }

    /// So many come at once; then on whom is hung up in the end, `is_unknown` being who may be.
    fn left(count: usize, is_unknown: impl Fn(&Place) -> bool) -> Vec<Place> {
        let mut strangers = Strangers::default();
        let mut gone = Vec::new();
        for number in 0..count {
            strangers.come(place(number), 0);
            gone.extend(strangers.surplus(&is_unknown, 0));
        }
        while let Some(wake_millis) = strangers.wake_millis() {
            assert_eq!(wake_millis, GRACE_MILLIS);
            gone.extend(strangers.surplus(&is_unknown, wake_millis));
        }
        gone
    }

    #[test]
    fn oldest_strangers_go_once_there_are_too_many() {
        for (count, expected) in [(0, 0), (STRANGERS_MAX, 0), (100, 36), (1_000, 936)] {
            let expected: Vec<_> = (0..expected).map(place).collect();
            assert_eq!(left(count, |_| true), expected, "{count}");
        }
    }

    #[test]
    fn who_is_known_or_gone_stays_out_of_it() {
        let is_unknown = |it: &Place| it.1.0.is_multiple_of(10);
        assert!(left(640, is_unknown).is_empty());
        let gone = left(1_000, is_unknown);
        let expected: Vec<_> = (0..36).map(|it| place(it * 10)).collect();
        assert_eq!(gone, expected);
    }

    #[test]
    fn newcomers_have_their_time_unless_there_are_too_many() {
        let mut strangers = Strangers::default();
        for number in 0..NEWCOMERS_MAX {
            strangers.come(place(number), 1_000_000);
        }
        let before = 1_000_000 + GRACE_MILLIS - 1;
        assert!(strangers.surplus(|_| true, before).is_empty());
        strangers.come(place(NEWCOMERS_MAX), before);
        assert_eq!(strangers.surplus(|_| true, before), [place(0)]);
        strangers.clock_went_back(1_000_000);
        let gone = strangers.surplus(|_| true, GRACE_MILLIS);
        assert_eq!(gone.len(), NEWCOMERS_MAX - 1 - STRANGERS_MAX);
        assert_eq!(gone.first(), Some(&place(1)));
    }
}

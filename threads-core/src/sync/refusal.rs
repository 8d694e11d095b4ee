//! Remembers which logs a peer sent in a form that had to be refused, beyond the session.

use std::collections::BTreeMap;

use leno_crdt_codec::LogId;

use super::PeerKey;
use crate::ThreadId;

/// Most refusals that are remembered. Beyond it the one that would be tried first is forgotten, which
/// costs that it is tried at once.
const REFUSALS_MAX: usize = 4096;

/// How long a log is left alone after it was refused.
const WAIT_MILLIS: u64 = 60_000;

/// The longest such time; each refusal doubles it up to here.
const WAIT_MILLIS_MAX: u64 = 24 * 60 * WAIT_MILLIS;

/// The refusals of a run of the program. In memory only: to forget them costs one try each.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    of: BTreeMap<(PeerKey, ThreadId, LogId), Refusal>,
}

#[derive(Debug)]
struct Refusal {
    /// How often in a row.
    count: u32,
    /// When it is tried again; nothing once it may be.
    until_millis: Option<u64>,
}

impl Refusals {
    /// Notes that a log of a peer was refused.
    pub(super) fn refused(&mut self, peer: PeerKey, thread: ThreadId, log: LogId, now_millis: u64) {
        let key = (peer, thread, log);
        if !self.of.contains_key(&key) && self.of.len() >= REFUSALS_MAX {
            let soonest = self.of.iter().min_by_key(|(_, it)| it.until_millis);
            if let Some(soonest) = soonest.map(|(key, _)| *key) {
                self.of.remove(&soonest);
            }
        }
        let refusal = self.of.entry(key).or_insert(Refusal {
            count: 0,
            until_millis: None,
        });
        let doubled = WAIT_MILLIS.checked_shl(refusal.count);
        let wait = doubled.map_or(WAIT_MILLIS_MAX, |wait| wait.min(WAIT_MILLIS_MAX));
        refusal.count = (refusal.count + 1).min(32);
        refusal.until_millis = Some(now_millis.saturating_add(wait));
    }

    /// Notes that a log of a peer is sound.
    pub(super) fn healed(&mut self, peer: PeerKey, thread: ThreadId, log: LogId) {
        self.of.remove(&(peer, thread, log));
    }

    /// Lets logs of a thread be tried again at once; the next refusal counts on.
    pub(super) fn retry(&mut self, thread: ThreadId, may_be: impl Fn(&LogId) -> bool) {
        for ((_, of, log), refusal) in &mut self.of {
            if *of == thread && may_be(log) {
                refusal.until_millis = None;
            }
        }
    }

    /// The logs that a new session with a peer leaves alone at first. What was refused only once may
    /// have been damaged under way, and is tried again at once.
    pub(super) fn standing(
        &self,
        peer: PeerKey,
        now_millis: u64,
    ) -> impl Iterator<Item = (ThreadId, LogId)> + '_ {
        let low = (peer, ThreadId([0; 32]), LogId([0; 32]));
        let of_peer = self
            .of
            .range(low..)
            .take_while(move |(key, _)| key.0 == peer);
        let stands = move |it: &Refusal| it.count > 1 && it.waits(now_millis);
        of_peer
            .filter(move |(_, it)| stands(it))
            .map(|((_, thread, log), _)| (*thread, *log))
    }

    /// Lets logs be tried again whose time has come; returns them.
    pub(super) fn due(&mut self, now_millis: u64) -> Vec<(PeerKey, ThreadId, LogId)> {
        let mut due = Vec::new();
        for (key, refusal) in &mut self.of {
            if refusal
                .until_millis
                .is_some_and(|until| until <= now_millis)
            {
                refusal.until_millis = None;
                due.push(*key);
            }
        }
        due
    }

    /// When the next one is due.
    pub(super) fn next_millis(&self) -> Option<u64> {
        self.of.values().filter_map(|it| it.until_millis).min()
    }
}

impl Refusal {
    fn waits(&self, now_millis: u64) -> bool {
        // A clock that was set back does not make it wait longer than the longest time.
        let latest = now_millis.saturating_add(WAIT_MILLIS_MAX);
        let until = self.until_millis;
        until.is_some_and(|until| until > now_millis && until <= latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerKey = PeerKey([1; 32]);
    const THREAD: ThreadId = ThreadId([2; 32]);
    const LOG: LogId = LogId([3; 32]);

    fn standing(refusals: &Refusals, now_millis: u64) -> usize {
        refusals.standing(PEER, now_millis).count()
    }

    #[test]
    fn waits_longer_each_time_and_forgets_what_healed() {
        let mut refusals = Refusals::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..40 {
            refusals.refused(PEER, THREAD, LOG, now);
            let next = refusals.next_millis().unwrap();
            waits.push((next - now) / WAIT_MILLIS);
            assert_eq!(refusals.due(next - 1), []);
            assert_eq!(refusals.due(next), [(PEER, THREAD, LOG)]);
            assert_eq!((refusals.due(next), refusals.next_millis()), (vec![], None));
            now = next;
        }
        assert_eq!(waits[..5], [1, 2, 4, 8, 16]);
        assert_eq!(waits[39], WAIT_MILLIS_MAX / WAIT_MILLIS);
        refusals.healed(PEER, THREAD, LOG);
        refusals.refused(PEER, THREAD, LOG, now);
        assert_eq!(refusals.next_millis(), Some(now + WAIT_MILLIS));
    }

    #[test]
    fn one_refusal_does_not_outlive_the_session() {
        let mut refusals = Refusals::default();
        refusals.refused(PEER, THREAD, LOG, 0);
        assert_eq!(standing(&refusals, 0), 0);
        refusals.refused(PEER, THREAD, LOG, 0);
        assert_eq!(standing(&refusals, 0), 1);
        assert_eq!(standing(&refusals, 2 * WAIT_MILLIS), 0);
        assert_eq!(refusals.standing(PeerKey([9; 32]), 0).count(), 0);
        refusals.retry(THREAD, |log| *log != LOG);
        assert_eq!(standing(&refusals, 0), 1);
        refusals.retry(THREAD, |log| *log == LOG);
        assert_eq!(standing(&refusals, 0), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut refusals = Refusals::default();
        for number in 0..10_000_u32 {
            let mut log = [0; 32];
            log[..4].copy_from_slice(&number.to_be_bytes());
            refusals.refused(PEER, THREAD, LogId(log), number.into());
        }
        assert_eq!(refusals.of.len(), REFUSALS_MAX);
    }
}

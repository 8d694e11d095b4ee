//! The signals that are known now.

use super::*;
use crate::Now;
use crate::sync::PeerKey;
use crate::sync::bucket::{Bucket, Rate};
use crate::thread::SKEW_MILLIS_MAX;

/// Most keys of one seat in a thread.
pub const SIGNAL_KEYS_MAX: usize = 16;

/// Most signals of one thread.
pub const SIGNALS_PER_THREAD_MAX: usize = 1024;

/// Most signals of all threads.
pub const SIGNALS_MAX: usize = 4096;

/// How often a seat may send, as others see it: twice what the own side lets an application do.
const SEAT_RATE: Rate = Rate {
    burst: 64,
    per_second: 40,
};

/// A signal that is known.
#[derive(Debug)]
pub(in crate::sync) struct Held {
    pub(in crate::sync) signal: Signal,
    /// What it says, if it could be opened.
    pub(super) content: Option<Content>,
    /// Whether it was sent from here.
    pub(super) is_own: bool,
    /// Over which sessions it came.
    pub(in crate::sync) from: BTreeSet<PeerKey>,
    /// Whether it is over, and stays only so that nobody shows it again.
    pub(in crate::sync) is_gone: bool,
    expires_millis: u64,
    /// When it can be forgotten: after that its stamp is too old for anybody.
    forget_millis: u64,
}

/// All signals that are known. In memory only.
#[derive(Debug, Default)]
pub(in crate::sync) struct Signals {
    held: BTreeMap<(ThreadId, SeatId, SignalTag), Held>,
    seats: BTreeMap<(ThreadId, SeatId), Bucket>,
    /// The limit on what the application sends, per thread.
    pub(super) own: BTreeMap<ThreadId, Bucket>,
    pub(super) events: Vec<SignalEvent>,
}

impl Signals {
    pub(in crate::sync) fn get(
        &self,
        thread: ThreadId,
        (seat, tag): (SeatId, SignalTag),
    ) -> Option<&Held> {
        self.held.get(&(thread, seat, tag))
    }

    /// Gives up a thread that is not followed here any more.
    pub(in crate::sync) fn forget(&mut self, id: &ThreadId) {
        self.held.retain(|(of, ..), _| of != id);
        self.seats.retain(|(of, _), _| of != id);
        self.own.remove(id);
    }

    /// The signals of a thread that are not over.
    pub(in crate::sync) fn of(&self, thread: ThreadId) -> impl Iterator<Item = &Held> {
        let low = (thread, SeatId([0; 32]), SignalTag::default());
        let held = self
            .held
            .range(low..)
            .take_while(move |((it, ..), _)| *it == thread);
        held.map(|(_, held)| held).filter(|held| !held.is_gone)
    }

    /// Tells whether a signal is newer than what is known of its key; if it is the same, notes who
    /// has it too.
    pub(super) fn is_news(&mut self, thread: ThreadId, signal: &Signal, from: PeerKey) -> bool {
        let key = (thread, signal.seat, signal.tag);
        let Some(held) = self.held.get_mut(&key) else {
            return true;
        };
        if held.signal.at == signal.at && !held.is_gone && !held.is_own {
            held.from.insert(from);
        }
        held.signal.at < signal.at
    }

    /// Tells whether a seat may send now.
    pub(super) fn may_send(&mut self, thread: ThreadId, seat: SeatId, now_millis: u64) -> bool {
        if self.seats.len() >= SIGNALS_MAX {
            self.seats
                .retain(|_, it| !it.is_full(SEAT_RATE, now_millis));
        }
        let bucket = self.seats.entry((thread, seat)).or_default();
        bucket.take(SEAT_RATE, now_millis).is_ok()
    }

    /// Tells whether there is room for a key of a seat.
    pub(super) fn has_room(&mut self, thread: ThreadId, signal: &Signal, now_millis: u64) -> bool {
        if self.held.contains_key(&(thread, signal.seat, signal.tag)) {
            return true;
        }
        self.held
            .retain(|_, held| !held.is_gone || held.forget_millis > now_millis);
        let low = (thread, SeatId([0; 32]), SignalTag::default());
        let in_thread = self
            .held
            .range(low..)
            .take_while(|((it, ..), _)| *it == thread);
        let (mut count, mut of_seat) = (0, 0);
        for ((_, seat, _), _) in in_thread {
            count += 1;
            of_seat += usize::from(*seat == signal.seat);
        }
        of_seat < SIGNAL_KEYS_MAX && count < SIGNALS_PER_THREAD_MAX && self.held.len() < SIGNALS_MAX
    }

    /// Keeps a signal in the place of the one before.
    pub(super) fn keep(
        &mut self,
        thread: ThreadId,
        signal: Signal,
        content: Option<Content>,
        from: Option<PeerKey>,
        now: Now,
    ) {
        let expires_millis = now.millis().saturating_add(signal.ttl_millis.into());
        let latest = now.millis().max(signal.at.millis());
        let forget_millis = latest
            .saturating_add(signal.ttl_millis.into())
            .saturating_add(SKEW_MILLIS_MAX);
        // Nobody needs to be told twice that a key is withdrawn.
        let is_gone = content
            .as_ref()
            .is_some_and(|content| content.value.is_none());
        let key = (thread, signal.seat, signal.tag);
        let was_there = self.held.get(&key).is_some_and(|it| !it.is_gone);
        if let Some(content) = content.as_ref().filter(|_| from.is_some())
            && (was_there || !is_gone)
        {
            self.events.push(SignalEvent {
                thread,
                seat: signal.seat,
                name: content.name.clone(),
                value: content.value.clone(),
            });
        }
        let held = Held {
            signal,
            content,
            is_own: from.is_none(),
            from: from.into_iter().collect(),
            is_gone: false,
            expires_millis,
            forget_millis,
        };
        self.held.insert(key, held);
    }

    /// The newest stamp of what was sent from here.
    pub(super) fn newest_own(&self, thread: ThreadId, seat: SeatId) -> Stamp {
        let low = (thread, seat, SignalTag::default());
        let own = self
            .held
            .range(low..)
            .take_while(|((it, of, _), _)| (*it, *of) == (thread, seat));
        own.map(|(_, held)| held.signal.at)
            .max()
            .unwrap_or(Stamp::ZERO)
    }

    /// Ends what came over a session alone.
    pub(in crate::sync) fn disconnected(&mut self, peer: &PeerKey) {
        let over = self.held.iter_mut().filter_map(|((thread, ..), held)| {
            let was_from = held.from.remove(peer);
            (was_from && held.from.is_empty() && !held.is_own).then_some((*thread, held))
        });
        end(over, &mut self.events);
    }

    /// Ends what has lasted its time.
    pub(in crate::sync) fn handle_timeout(&mut self, now_millis: u64) {
        let over = self
            .held
            .iter_mut()
            .map(|((thread, ..), held)| (*thread, held));
        end(
            over.filter(|(_, held)| held.expires_millis <= now_millis),
            &mut self.events,
        );
    }

    /// When the next one has lasted its time.
    pub(in crate::sync) fn poll_timeout(&self) -> Option<u64> {
        let held = self.held.values().filter(|held| !held.is_gone);
        held.map(|held| held.expires_millis).min()
    }
}

fn end<'a>(over: impl Iterator<Item = (ThreadId, &'a mut Held)>, events: &mut Vec<SignalEvent>) {
    for (thread, held) in over {
        if std::mem::replace(&mut held.is_gone, true) || held.is_own {
            continue;
        }
        if let Some(content) = held.content.take().filter(|it| it.value.is_some()) {
            events.push(SignalEvent {
                thread,
                seat: held.signal.seat,
                name: content.name,
                value: None,
            });
        }
    }
}

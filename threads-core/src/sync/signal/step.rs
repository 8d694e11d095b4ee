//! Sending a signal, and taking one in.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use super::*;
use crate::sync::PeerKey;
use crate::sync::bucket::{Bucket, Rate};
use crate::sync::error::SyncError;
use crate::sync::replica::Replica;
use crate::sync::session::Matched;
use crate::sync::slot::Slot;
use crate::sync::step::Step;
use crate::thread::{SKEW_MILLIS_MAX, Thread};
use crate::{Now, Role, THREAD_DOMAIN};

/// How often an application may send in a thread.
const OWN_RATE: Rate = Rate {
    burst: 32,
    per_second: 20,
};

/// How many signals are looked at per session: each costs a signature check.
const SESSION_RATE: Rate = Rate {
    burst: 2_000,
    per_second: 1_000,
};

/// How long a session that sends more is not listened to; doubled each time.
const DEAF_MILLIS: u64 = 1_000;

/// The longest such time.
const DEAF_MILLIS_MAX: u64 = 60_000;

/// A signal of somebody else came, or is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignalEvent {
    /// The thread.
    pub thread: ThreadId,
    /// Whose.
    pub seat: SeatId,
    /// The key.
    pub name: String,
    /// The value; nothing if it is over.
    pub value: Option<Vec<u8>>,
}

/// Why a signal is not sent.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The thread is not here, or not yet.
    #[error("the thread is not here")]
    NoSuchThread,
    /// Only who may read may send signals.
    #[error("this seat may not read the thread, and so not send signals")]
    NotReader,
    /// No key is held to seal it under: it has not come yet.
    #[error("the key of the thread has not come yet")]
    NoKey,
    /// The key's name is longer than [`SIGNAL_NAME_BYTES_MAX`].
    #[error("a name of {bytes} bytes is too long")]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The value is longer than [`SIGNAL_VALUE_BYTES_MAX`].
    #[error("a value of {bytes} bytes is too long")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// There are [`SIGNAL_KEYS_MAX`] keys already, or no room for more.
    #[error("there is no room for another key")]
    TooManyKeys,
    /// Signals are sent too fast.
    #[error("signals are sent too fast; the next one in {wait_millis} ms")]
    TooFast {
        /// When the next one may be sent.
        wait_millis: u64,
    },
}

/// How well a session behaves as to signals.
#[derive(Debug, Default)]
pub(in crate::sync) struct Hearing {
    bucket: Bucket,
    deaf_until_millis: u64,
    wait_millis: u64,
}

impl Hearing {
    /// Tells whether another signal is looked at.
    fn listens(&mut self, now_millis: u64) -> bool {
        let longest = now_millis.saturating_add(DEAF_MILLIS_MAX);
        if (now_millis..=longest).contains(&self.deaf_until_millis) && self.wait_millis > 0 {
            return false;
        }
        if self.bucket.take(SESSION_RATE, now_millis).is_ok() {
            return true;
        }
        self.wait_millis = (self.wait_millis * 2).clamp(DEAF_MILLIS, DEAF_MILLIS_MAX);
        self.deaf_until_millis = now_millis.saturating_add(self.wait_millis);
        false
    }
}

impl Replica {
    /// Sends a signal to all who read the thread: a value, or nothing to withdraw the key.
    ///
    /// # Errors
    ///
    /// [`SignalError`]; nothing is sent.
    pub fn signal(
        &mut self,
        id: ThreadId,
        name: &str,
        value: Option<&[u8]>,
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), SignalError> {
        let (now, bytes) = (now.into(), value.map_or(0, <[u8]>::len));
        if name.len() > SIGNAL_NAME_BYTES_MAX {
            return Err(SignalError::NameTooLong { bytes: name.len() });
        }
        if bytes > SIGNAL_VALUE_BYTES_MAX {
            return Err(SignalError::ValueTooLong { bytes });
        }
        let Self { slots, signals, .. } = &mut *self;
        let Some(Slot::Open(thread)) = slots.get(&id) else {
            return Err(SignalError::NoSuchThread);
        };
        let seat = thread.seat().id();
        if !may_signal(thread, seat) {
            return Err(SignalError::NotReader);
        }
        let key = thread.sealing_key().ok_or(SignalError::NoKey)?;
        let newest = signals.newest_own(id, seat);
        let at = Stamp(newest.0 + 1).max(Stamp::from_millis(now.millis()));
        let content = Content {
            name: name.to_owned(),
            value: value.map(<[u8]>::to_vec),
        };
        let (signing, secret) = (&thread.seat().signing, thread.nonce_secret());
        let signal = Signal::make(id, key, signing, at, &content, secret, rng);
        if !signals.has_room(id, &signal, now.millis()) {
            return Err(SignalError::TooManyKeys);
        }
        let bucket = signals.own.entry(id).or_default();
        let taken = bucket.take(OWN_RATE, now.millis());
        taken.map_err(|wait_millis| SignalError::TooFast { wait_millis })?;
        let key = (signal.seat, signal.tag);
        signals.keep(id, signal, Some(content), None, now);
        self.spread_signal(id, key, None);
        Ok(())
    }

    /// The signals of others that are known in a thread: seat, key, value.
    pub fn signals(&self, id: ThreadId) -> impl Iterator<Item = (SeatId, &str, &[u8])> {
        let others = self.signals.of(id).filter(|held| !held.is_own);
        others.filter_map(|held| {
            let content = held.content.as_ref()?;
            Some((
                held.signal.seat,
                content.name.as_str(),
                content.value.as_deref()?,
            ))
        })
    }

    /// What became of signals of others since this was last asked.
    pub fn take_signal_events(&mut self) -> Vec<SignalEvent> {
        std::mem::take(&mut self.signals.events)
    }

    /// Has a signal sent over all sessions but those by which it came.
    fn spread_signal(&mut self, id: ThreadId, key: (SeatId, SignalTag), from: Option<PeerKey>) {
        let Self {
            sessions, pairs, ..
        } = self;
        for (peer, session) in sessions {
            if Some(*peer) == from {
                continue;
            }
            match session.matched.get_mut(&id) {
                Some(matched) if !matched.is_lazy() => {
                    matched.signals.insert(key);
                    session.wake(id);
                }
                Some(_) => {}
                // It is greeted with all signals once it answers.
                None => {
                    if let Some(pair) = pairs.get(peer) {
                        session.call(pair, [id]);
                    }
                }
            }
        }
    }
}

fn may_signal(thread: &Thread, seat: SeatId) -> bool {
    thread.governance().role(seat).is_some_and(Role::reads)
}

impl Matched {
    /// Has all that is known of a thread's signals sent, to one who only came.
    pub(in crate::sync) fn greet(&mut self, id: ThreadId, signals: &Signals) {
        let known = signals
            .of(id)
            .map(|held| (held.signal.seat, held.signal.tag));
        self.signals.extend(known);
    }
}

impl Step<'_, '_> {
    /// Takes in a signal and hands it on.
    pub(in crate::sync) fn signal(&mut self, number: u32, signal: Signal) -> Result<(), SyncError> {
        let (peer, now) = (self.peer, self.now);
        let id = self.thread_id(number)?;
        if !self.session("a signal")?.hearing.listens(now.millis()) || !self.knows_peer(id) {
            return Ok(());
        }
        let Replica { slots, signals, .. } = &mut *self.replica;
        let Some(Slot::Open(thread)) = slots.get(&id) else {
            return Ok(());
        };
        // Nobody's fault: governance that tells of the seat or the epoch may be under way.
        let epoch = thread.governance().epoch_in(THREAD_DOMAIN, &signal.epoch);
        let is_own = signal.seat == thread.seat().id();
        if !may_signal(thread, signal.seat) || epoch.is_none() || is_own {
            return Ok(());
        }
        let is_in_time = now.utc_millis().is_none_or(|now| {
            let (at, ttl) = (signal.at.millis(), u64::from(signal.ttl_millis));
            let latest = now.saturating_add(SKEW_MILLIS_MAX);
            at <= latest && at.saturating_add(ttl + SKEW_MILLIS_MAX) >= now
        });
        if !is_in_time || !signals.is_news(id, &signal, peer) {
            return Ok(());
        }
        let seat = signal.seat;
        let bad = SyncError::Signal {
            peer,
            thread: id,
            seat,
        };
        if !signal.verify(id) {
            return Err(bad);
        }
        if !signals.has_room(id, &signal, now.millis()) || !signals.may_send(id, seat, now.millis())
        {
            return Ok(());
        }
        let content = match thread.epoch_key(&signal.epoch) {
            Some(key) => Some(signal.open(id, key).ok_or(bad)?),
            None => None,
        };
        let key = (seat, signal.tag);
        signals.keep(id, signal, content, Some(peer), now);
        self.replica.spread_signal(id, key, Some(peer));
        Ok(())
    }
}

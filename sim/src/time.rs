//! Virtual time: a number that only the simulator moves, and who waits for it.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The true time of a simulated world, in microseconds since it began. Clones are the same time.
#[derive(Clone, Default)]
pub struct Time {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    now: u64,
    /// The second part of the key keeps who waits for the same moment in order.
    timers: BTreeMap<(u64, u64), Waker>,
    counter: u64,
}

impl fmt::Debug for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Time")
            .field("micros", &self.micros())
            .finish()
    }
}

impl Time {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What time it is.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.lock().now
    }

    /// Moves time forward; what lies before is passed over.
    pub(crate) fn advance_to(&self, micros: u64) {
        let mut state = self.lock();
        state.now = state.now.max(micros);
    }

    /// When somebody waits for next.
    pub(crate) fn next(&self) -> Option<u64> {
        self.lock().timers.keys().next().map(|(at, _)| *at)
    }

    /// Wakes the first who waits for a moment that has come. Tells whether there was one.
    pub(crate) fn fire(&self) -> bool {
        let mut state = self.lock();
        let now = state.now;
        let due = state
            .timers
            .first_entry()
            .filter(|timer| timer.key().0 <= now);
        let waker = due.map(|timer| timer.remove());
        drop(state);
        waker.inspect(Waker::wake_by_ref).is_some()
    }

    /// Waits until a moment has come.
    pub(crate) fn sleep_until(&self, micros: u64) -> Sleep {
        Sleep {
            time: self.clone(),
            at: micros,
            key: None,
        }
    }
}

/// Waits for a moment; forgets about it when dropped.
pub(crate) struct Sleep {
    time: Time,
    at: u64,
    key: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.time.lock();
        if state.now >= this.at {
            return Poll::Ready(());
        }
        let key = *this.key.get_or_insert_with(|| {
            state.counter += 1;
            (this.at, state.counter)
        });
        state.timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.time.lock().timers.remove(&key);
        }
    }
}

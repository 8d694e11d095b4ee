//! The clock of a simulated machine: it may be wrong, run too fast, jump, or not be set at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leno::Clock;

use crate::time::Time;

/// What the clocks of the world show when it begins: a day in January 2027, in milliseconds since the
/// Unix epoch.
pub const START_MILLIS: u64 = 1_800_000_000_000;

/// A clock of one machine. Clones are the same clock.
///
/// Who sleeps does so by steady time, as with the system's clock: if the clock is changed meanwhile, it
/// wakes when it would have, whatever the clock shows by then.
#[derive(Clone, Debug)]
pub struct SimClock {
    time: Time,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// At this true time, in microseconds..
    since: u64,
    /// ..the clock showed this, in microseconds since the Unix epoch.
    shown: u64,
    /// By how many millionths it is too fast.
    drift: i64,
    is_set: bool,
    /// Counts how often it was changed.
    changes: u64,
    /// The highest that it ever showed, up to its last change.
    highest: u64,
}

impl SimClock {
    /// A clock that is right.
    #[must_use]
    pub fn new(time: Time) -> Self {
        let (since, shown) = (time.micros(), right(&time));
        Self {
            time,
            state: Arc::new(Mutex::new(State {
                since,
                shown,
                drift: 0,
                is_set: true,
                changes: 0,
                highest: shown,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the clock show the right time, and keep it.
    pub fn correct(&self) {
        let shown = right(&self.time);
        self.change(|state, _| {
            state.shown = shown;
            state.drift = 0;
            state.is_set = true;
        });
    }

    /// Sets the clock forward or back, by so many milliseconds.
    pub fn jump(&self, millis: i64) {
        let micros = millis.saturating_mul(1_000);
        self.change(|state, now| state.shown = now.saturating_add_signed(micros));
    }

    /// Lets the clock run too fast, by so many millionths; too slow if it is negative.
    pub fn drift(&self, per_million: i64) {
        self.change(|state, _| state.drift = per_million.clamp(-900_000, 1_000_000));
    }

    /// Takes the time of day away, as on a machine without a battery that booted just now: it counts
    /// from 1970.
    pub fn unset(&self) {
        self.change(|state, _| {
            state.shown = 0;
            state.is_set = false;
        });
    }

    /// The highest that the clock ever showed, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn highest_millis(&self) -> u64 {
        let state = self.lock();
        state.highest.max(state.shows(&self.time)) / 1_000
    }

    fn change(&self, change: impl FnOnce(&mut State, u64)) {
        let mut state = self.lock();
        let now = state.shows(&self.time);
        state.highest = state.highest.max(now);
        state.since = self.time.micros();
        state.shown = now;
        change(&mut state, now);
        state.changes += 1;
    }

    /// When the clock will show so many milliseconds, in true time, unless it does.
    fn due(&self, millis: u64) -> (u64, Option<u64>) {
        let state = self.lock();
        let now = state.shows(&self.time);
        let wanted = millis.saturating_mul(1_000);
        let left = wanted.saturating_sub(now);
        let pace = u128::from(1_000_000_u64.saturating_add_signed(state.drift).max(1));
        let wait = (u128::from(left) * 1_000_000).div_ceil(pace);
        let at = self.time.micros();
        let at = at.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX));
        (state.changes, (left > 0).then_some(at))
    }
}

impl State {
    fn shows(&self, time: &Time) -> u64 {
        let passed = time.micros().saturating_sub(self.since);
        let pace = u128::from(1_000_000_u64.saturating_add_signed(self.drift));
        let passed = u128::from(passed) * pace / 1_000_000;
        self.shown
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

/// What a right clock shows, in microseconds since the Unix epoch.
fn right(time: &Time) -> u64 {
    (START_MILLIS * 1_000).saturating_add(time.micros())
}

#[async_trait]
impl Clock for SimClock {
    fn now_millis(&self) -> u64 {
        self.lock().shows(&self.time) / 1_000
    }

    fn is_set(&self) -> bool {
        self.lock().is_set
    }

    async fn sleep_until(&self, millis: u64) {
        let (began, _) = self.due(millis);
        loop {
            let (changes, due) = self.due(millis);
            let Some(due) = due.filter(|_| changes == began) else {
                return;
            };
            self.time.sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn clock_drifts_jumps_and_forgets_the_day() {
        let time = Time::default();
        let clock = SimClock::new(time.clone());
        assert_eq!(clock.now_millis(), START_MILLIS);
        clock.drift(500_000);
        time.advance_to(2_000_000);
        assert_eq!(clock.now_millis(), START_MILLIS + 3_000);
        clock.jump(-5_000);
        assert_eq!(clock.now_millis(), START_MILLIS - 2_000);
        clock.unset();
        assert_eq!((clock.now_millis(), clock.is_set()), (0, false));
        clock.correct();
        assert_eq!(
            (clock.now_millis(), clock.is_set()),
            (START_MILLIS + 2_000, true)
        );
        assert_eq!(clock.highest_millis(), START_MILLIS + 3_000);
    }

    #[test]
    fn sleeper_follows_drift_and_does_not_know_of_jumps() {
        let time = Time::default();
        let clock = SimClock::new(time.clone());
        // Half as fast: twice as long.
        clock.drift(-500_000);
        let mut sleep = Box::pin(clock.sleep_until(START_MILLIS + 1_000));
        assert_eq!((&mut sleep).now_or_never(), None);
        assert_eq!(time.next(), Some(2_000_000));
        time.advance_to(2_000_000);
        assert_eq!((&mut sleep).now_or_never(), Some(()));

        let mut sleep = Box::pin(clock.sleep_until(START_MILLIS + 2_000));
        assert_eq!((&mut sleep).now_or_never(), None);
        clock.jump(-86_400_000);
        time.advance_to(4_000_000);
        assert_eq!(
            sleep.now_or_never(),
            Some(()),
            "as the timer of a system does"
        );
        assert_eq!(time.next(), None, "what is dropped waits for nothing");
    }
}

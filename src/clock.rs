//! The clock port.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;

/// Tells the time and waits for it. The only clock that a peer has.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since the Unix epoch, UTC. May jump in either direction.
    ///
    /// While [`Clock::is_set`] is false, since any moment: it only tells how much time passes.
    fn now_millis(&self) -> u64;

    /// Whether [`Clock::now_millis`] tells the time of day. A device without a battery in its clock
    /// does not know it until somebody sets the clock.
    ///
    /// As long as it is false no record is held for a stamp that is too far ahead, and own writes get
    /// stamps right behind what was seen. What all peers agree on in the end is the same.
    fn is_set(&self) -> bool {
        true
    }

    /// Waits until [`Clock::now_millis`] is at least `millis`. Cancel-safe.
    async fn sleep_until(&self, millis: u64);
}

/// The system's clock, with tokio's timer.
#[cfg(feature = "tokio")]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[cfg(feature = "tokio")]
#[async_trait]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the port that reads the clock"
    )]
    fn now_millis(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    async fn sleep_until(&self, millis: u64) {
        let wait = millis.saturating_sub(self.now_millis());
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
    }
}

/// A clock that stands still until it is set: for tests and simulations.
///
/// # Examples
///
/// ```
/// use leno::{Clock, ManualClock};
///
/// let clock = ManualClock::new(1_000);
/// clock.advance(500);
/// assert_eq!(clock.now_millis(), 1_500);
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
}

#[derive(Debug)]
struct ManualState {
    now_millis: u64,
    is_set: bool,
    wakers: Vec<Waker>,
}

impl ManualClock {
    /// Makes a clock that shows `now_millis`.
    #[must_use]
    pub fn new(now_millis: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(ManualState {
                now_millis,
                is_set: true,
                wakers: Vec::new(),
            })),
        }
    }

    /// Makes a clock that does not know the time of day until [`ManualClock::set`] tells it.
    #[must_use]
    pub fn unset(now_millis: u64) -> Self {
        let clock = Self::new(now_millis);
        clock.lock().is_set = false;
        clock
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock forward.
    pub fn advance(&self, millis: u64) {
        let now_millis = self.now_millis().saturating_add(millis);
        let is_set = self.is_set();
        self.show(now_millis, is_set);
    }

    /// Sets the clock, backwards too.
    pub fn set(&self, now_millis: u64) {
        self.show(now_millis, true);
    }

    fn show(&self, now_millis: u64, is_set: bool) {
        let mut state = self.lock();
        state.now_millis = now_millis;
        state.is_set = is_set;
        let wakers = std::mem::take(&mut state.wakers);
        // Whom it wakes may look at the clock at once.
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Clock for ManualClock {
    fn now_millis(&self) -> u64 {
        self.lock().now_millis
    }

    fn is_set(&self) -> bool {
        self.lock().is_set
    }

    async fn sleep_until(&self, millis: u64) {
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            if state.now_millis >= millis {
                return Poll::Ready(());
            }
            // One for each task, however often it looks: a clock may stand for long.
            let waker = context.waker();
            if !state.wakers.iter().any(|known| known.will_wake(waker)) {
                state.wakers.push(waker.clone());
            }
            Poll::Pending
        })
        .await;
    }
}

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::links::{cost, wait, wake};

/// What waits to be sent on one link, for those who write a [`Transport`](crate::Transport).
///
/// Any number of tasks [`push`](Self::push), one task takes. The queue is bounded in bytes; once
/// [`end`](Self::end) was called nothing more comes in, and what is there can still be taken.
///
/// # Examples
///
/// ```
/// use futures_executor::block_on;
/// use leno_transport_trait::Outbox;
///
/// let outbox = Outbox::new(1 << 20);
/// assert!(block_on(outbox.push(b"hello".to_vec())));
/// outbox.end();
/// assert!(!block_on(outbox.push(b"too late".to_vec())));
/// assert_eq!(block_on(outbox.take()).as_deref(), Some(&b"hello"[..]));
/// assert_eq!(block_on(outbox.take()), None);
/// ```
pub struct Outbox {
    queue_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_ended: bool,
    messages: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    senders: Vec<Waker>,
    takers: Vec<Waker>,
}

impl Outbox {
    /// An empty queue. A message comes in while fewer than `queue_bytes` are waiting, however long it
    /// is: so a long one is not kept out by short ones, and the bound is passed by one message at most.
    #[must_use]
    pub fn new(queue_bytes: usize) -> Self {
        Self {
            queue_bytes,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message as soon as there is room; false if the link is over. A future dropped before
    /// it resolved has queued nothing.
    pub async fn push(&self, message: Vec<u8>) -> bool {
        let mut message = Some(message);
        poll_fn(|cx| self.poll_push(&mut message, cx)).await
    }

    fn poll_push(&self, message: &mut Option<Vec<u8>>, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        if state.is_ended {
            return Poll::Ready(false);
        }
        if state.queued_bytes > 0 && state.queued_bytes >= self.queue_bytes {
            wait(&mut state.senders, cx);
            return Poll::Pending;
        }
        let message = message.take().unwrap_or_default();
        state.queued_bytes = state.queued_bytes.saturating_add(cost(&message));
        state.messages.push_back(message);
        wake(&mut state.takers);
        Poll::Ready(true)
    }

    /// Takes the next message as soon as there is one; `None` once the link is over and all is taken.
    pub async fn take(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            let mut state = self.lock();
            match state.pop() {
                None if !state.is_ended => {
                    wait(&mut state.takers, cx);
                    Poll::Pending
                }
                taken => Poll::Ready(taken),
            }
        })
        .await
    }

    /// Takes the next message if there is one.
    #[must_use]
    pub fn try_take(&self) -> Option<Vec<u8>> {
        self.lock().pop()
    }

    /// Lets nothing more in; false if that was done before.
    pub fn end(&self) -> bool {
        let mut state = self.lock();
        wake(&mut state.senders);
        wake(&mut state.takers);
        !std::mem::replace(&mut state.is_ended, true)
    }
}

impl State {
    fn pop(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        self.queued_bytes -= cost(&message);
        wake(&mut self.senders);
        Some(message)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("queued_bytes", &self.lock().queued_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use futures_executor::block_on;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn full_queue_waits_until_something_is_taken() {
        let outbox = Outbox::new(1000);
        assert!(block_on(outbox.push(vec![0; 5000])), "one fits");
        let mut waiting = pin!(outbox.push(vec![1]));
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(block_on(outbox.take()).map(|it| it.len()), Some(5000));
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(true));
        assert_eq!(outbox.try_take(), Some(vec![1]));
        assert_eq!(outbox.try_take(), None);
        assert!(poll(pin!(outbox.take())).is_pending());
    }

    #[test]
    fn end_refuses_those_who_wait_and_keeps_what_is_in() {
        let outbox = Outbox::new(10);
        assert!(block_on(outbox.push(vec![7])));
        let mut waiting = pin!(outbox.push(vec![8]));
        assert!(poll(waiting.as_mut()).is_pending());
        assert!(outbox.end() && !outbox.end());
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(false));
        assert_eq!(block_on(outbox.take()), Some(vec![7]));
        assert_eq!(block_on(outbox.take()), None);
    }

    #[test]
    fn dropped_push_has_queued_nothing() {
        let outbox = Outbox::new(10);
        assert!(block_on(outbox.push(vec![7])));
        {
            let mut dropped = pin!(outbox.push(vec![8]));
            assert!(poll(dropped.as_mut()).is_pending());
        }
        outbox.end();
        assert_eq!(block_on(outbox.take()), Some(vec![7]));
        assert_eq!(block_on(outbox.take()), None);
    }
}

//! A bounded queue from the driver to one listener: what does not fit is counted, and told.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a listener gets.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Next<T> {
    /// The next item.
    Item(T),
    /// So many items were dropped here because the listener was slow.
    Lost(u64),
}

struct State<T> {
    items: VecDeque<T>,
    room: usize,
    lost: u64,
    waker: Option<Waker>,
    sender_is_gone: bool,
    receiver_is_gone: bool,
}

type Shared<T> = Arc<Mutex<State<T>>>;

/// The driver's end.
pub(crate) struct Sender<T>(Shared<T>);

/// The listener's end.
pub(crate) struct Receiver<T>(Shared<T>);

/// Makes a queue with room for so many items.
pub(crate) fn queue<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Mutex::new(State {
        items: VecDeque::new(),
        room,
        lost: 0,
        waker: None,
        sender_is_gone: false,
        receiver_is_gone: false,
    }));
    (Sender(shared.clone()), Receiver(shared))
}

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, State<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Sender<T> {
    /// Hands over an item, or counts it as lost. Tells whether the listener is still there.
    ///
    /// Once something was lost, all is, until the listener has taken what waits: it learns of the
    /// loss at its place, and as soon as it asks, also if nothing happens any more.
    pub(crate) fn push(&self, item: impl FnOnce() -> T) -> bool {
        let mut state = lock(&self.0);
        if state.receiver_is_gone {
            return false;
        }
        if state.lost > 0 || state.items.len() >= state.room {
            state.lost += 1;
        } else {
            state.items.push_back(item());
        }
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

impl<T> Receiver<T> {
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Next<T>>> {
        let mut state = lock(&self.0);
        if let Some(item) = state.items.pop_front() {
            return Poll::Ready(Some(Next::Item(item)));
        }
        if state.lost > 0 {
            return Poll::Ready(Some(Next::Lost(std::mem::take(&mut state.lost))));
        }
        if state.sender_is_gone {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.sender_is_gone = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.receiver_is_gone = true;
        state.items.clear();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Receiver")
            .field("waiting", &lock(&self.0).items.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(receiver: &mut Receiver<u32>) -> Poll<Option<Next<u32>>> {
        receiver.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn losses_are_told_at_their_place_without_another_item() {
        let (sender, mut receiver) = queue(2);
        assert!((1..=5).all(|item| sender.push(|| item)));
        for expected in [Next::Item(1), Next::Item(2), Next::Lost(3)] {
            assert_eq!(next(&mut receiver), Poll::Ready(Some(expected)));
        }
        assert_eq!(next(&mut receiver), Poll::Pending);
        assert!(sender.push(|| 6));
        drop(sender);
        assert_eq!(next(&mut receiver), Poll::Ready(Some(Next::Item(6))));
        assert_eq!(next(&mut receiver), Poll::Ready(None));
    }

    #[test]
    fn sender_learns_that_the_listener_is_gone() {
        let (sender, receiver) = queue::<u32>(2);
        drop(receiver);
        assert!(!sender.push(|| 1));
    }
}

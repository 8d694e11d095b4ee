use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::turns::Turns;
use crate::{Address, DisconnectReason, Event, LinkId, MESSAGE_BYTES_MAX, PeerId, TransportError};

/// What a queued message occupies besides its bytes, so that empty ones count.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// How many links may come and go unread before new ones are refused.
const UNREAD_LINKS_MAX: usize = 4096;

/// How many discoveries may wait to be read; more are dropped, since nobody vouches for them anyway.
const UNREAD_DISCOVERIES_MAX: usize = 256;

/// The links of one endpoint and what waits to be read from them, for those who write a
/// [`Transport`](crate::Transport).
///
/// It keeps the clauses of the contract that are the same on every network: a peer has one live link,
/// ids count up, each link is reported in order and once, nothing is reported after its end, the queue
/// is bounded in bytes, and no peer fills it or keeps others waiting: each has its share of the room,
/// and they are read in turns, about as many bytes of each. Everything else is the transport's:
/// finding and proving who is there, carrying bytes, cutting links that stall.
///
/// # Examples
///
/// ```
/// use futures_executor::block_on;
/// use leno_transport_trait::{DisconnectReason, Event, Links, PeerId};
///
/// let (links, peer) = (Links::new(1 << 20), PeerId([1; 32]));
/// let link = links.begin(peer)?;
/// assert!(block_on(links.deliver(link, b"hello".to_vec())));
/// assert!(links.end(link, DisconnectReason::PeerClosed));
/// assert!(!block_on(links.deliver(link, b"too late".to_vec())));
///
/// assert!(matches!(block_on(links.next()), Some(Event::Connected { .. })));
/// assert!(matches!(block_on(links.next()), Some(Event::Message { .. })));
/// assert!(matches!(block_on(links.next()), Some(Event::Disconnected { .. })));
/// # Ok::<(), leno_transport_trait::TransportError>(())
/// ```
pub struct Links {
    queue_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    links_made: u64,
    live: BTreeMap<LinkId, PeerId>,
    events: Turns,
    queued_bytes: usize,
    /// The same by link, but for those with nothing.
    queued_of: BTreeMap<LinkId, usize>,
    unread_links: usize,
    unread_discoveries: usize,
    readers: Vec<Waker>,
    senders: Vec<Waker>,
}

pub(crate) fn cost(message: &[u8]) -> usize {
    message.len().saturating_add(MESSAGE_OVERHEAD_BYTES)
}

/// Wakes all: each looks for itself, and waits again if it comes to nothing.
pub(crate) fn wake(waiting: &mut Vec<Waker>) {
    waiting.drain(..).for_each(Waker::wake);
}

pub(crate) fn wait(waiting: &mut Vec<Waker>, cx: &Context<'_>) {
    if !waiting.iter().any(|it| it.will_wake(cx.waker())) {
        waiting.push(cx.waker().clone());
    }
}

impl Links {
    /// No links yet. At most `queue_bytes` of messages wait to be read, an equal share of each live link;
    /// one message of each link always may, however long it is.
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

    /// Reports a new link to the peer and returns it; returns the live one if there is one.
    ///
    /// # Errors
    ///
    /// [`TransportError::Closed`], or [`TransportError::TooManyConnections`] while nobody reads of
    /// links that came and went.
    pub fn begin(&self, peer: PeerId) -> Result<LinkId, TransportError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(TransportError::Closed);
        }
        if let Some(link) = state.live_with(peer) {
            return Ok(link);
        }
        if state.unread_links >= UNREAD_LINKS_MAX {
            let detail = format!("{UNREAD_LINKS_MAX} were not read of");
            return Err(TransportError::TooManyConnections { detail });
        }
        state.links_made += 1;
        let link = LinkId(state.links_made);
        state.live.insert(link, peer);
        state.unread_links += 1;
        state.report(Event::Connected { peer, link });
        Ok(link)
    }

    /// Reports the end of a link; false if it was over.
    pub fn end(&self, link: LinkId, reason: DisconnectReason) -> bool {
        let mut state = self.lock();
        let Some(peer) = state.live.remove(&link) else {
            return false;
        };
        state.report(Event::Disconnected { peer, link, reason });
        // Those who wait for room on it need not wait on.
        wake(&mut state.senders);
        true
    }

    /// Reports the end of the live link to a peer; false if there is none.
    pub fn end_with(&self, peer: PeerId, reason: DisconnectReason) -> bool {
        let link = self.live(peer);
        link.is_some_and(|link| self.end(link, reason))
    }

    /// Queues a message that came on a link as soon as there is room; false if the link is over.
    pub async fn deliver(&self, link: LinkId, message: Vec<u8>) -> bool {
        let mut message = Some(message);
        poll_fn(|cx| self.poll_deliver(link, &mut message, cx)).await
    }

    fn poll_deliver(
        &self,
        link: LinkId,
        message: &mut Option<Vec<u8>>,
        cx: &Context<'_>,
    ) -> Poll<bool> {
        let mut state = self.lock();
        let Some(from) = state.live.get(&link).copied() else {
            return Poll::Ready(false);
        };
        let cost = message.as_deref().map_or(0, cost);
        let queued_bytes = state.queued_bytes.saturating_add(cost);
        let of_link = state.queued_of.get(&link).copied().unwrap_or_default();
        let of_link_after = of_link.saturating_add(cost);
        // Somebody else's flood shall not keep out a peer, nor its long message.
        let share = self.queue_bytes / state.live.len().max(1);
        if of_link > 0 && (queued_bytes > self.queue_bytes || of_link_after > share) {
            wait(&mut state.senders, cx);
            return Poll::Pending;
        }
        let bytes = message.take().unwrap_or_default();
        state.queued_bytes = queued_bytes;
        state.queued_of.insert(link, of_link_after);
        state.report(Event::Message { from, link, bytes });
        Poll::Ready(true)
    }

    /// Checks that a message may be sent on a link, and tells to whom.
    ///
    /// # Errors
    ///
    /// As [`Transport::send`](crate::Transport::send).
    pub fn check(&self, link: LinkId, message: &[u8]) -> Result<PeerId, TransportError> {
        let (len, max) = (message.len(), MESSAGE_BYTES_MAX);
        let state = self.lock();
        if state.is_closed {
            return Err(TransportError::Closed);
        }
        if len > max {
            return Err(TransportError::MessageTooLarge { len, max });
        }
        let peer = state.live.get(&link).copied();
        peer.ok_or(TransportError::LinkOver { link })
    }

    /// The live link to a peer.
    #[must_use]
    pub fn live(&self, peer: PeerId) -> Option<LinkId> {
        self.lock().live_with(peer)
    }

    /// Reports that a device is said to be at an address; dropped while many of these are unread.
    pub fn discover(&self, peer: PeerId, address: Address) {
        let mut state = self.lock();
        if !state.is_closed && state.unread_discoveries < UNREAD_DISCOVERIES_MAX {
            state.unread_discoveries += 1;
            state.report(Event::Discovered { peer, address });
        }
    }

    /// Waits for the next event, as [`Transport::next`](crate::Transport::next).
    pub async fn next(&self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.lock();
        if state.is_closed {
            return Poll::Ready(None);
        }
        let Some(event) = state.events.pop() else {
            wait(&mut state.readers, cx);
            return Poll::Pending;
        };
        match &event {
            Event::Connected { .. } => state.unread_links -= 1,
            Event::Message { link, bytes, .. } => {
                state.took(*link, cost(bytes));
                wake(&mut state.senders);
            }
            Event::Discovered { .. } => state.unread_discoveries -= 1,
            Event::Disconnected { .. } => {}
        }
        Poll::Ready(Some(event))
    }

    /// Ends all links and drops what was not read: from here on [`next`](Self::next) is `None`.
    /// Returns the peers whose links were live, who are to be told.
    pub fn close(&self) -> Vec<PeerId> {
        let closed = State {
            is_closed: true,
            ..State::default()
        };
        let state = std::mem::replace(&mut *self.lock(), closed);
        let waiting = state.readers.into_iter().chain(state.senders);
        waiting.for_each(Waker::wake);
        state.live.into_values().collect()
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }
}

impl State {
    fn live_with(&self, peer: PeerId) -> Option<LinkId> {
        let live = self.live.iter().find(|(_, it)| **it == peer);
        live.map(|(link, _)| *link)
    }

    fn took(&mut self, link: LinkId, cost: usize) {
        self.queued_bytes -= cost;
        if let Some(of_link) = self.queued_of.get_mut(&link) {
            *of_link -= cost;
            if *of_link == 0 {
                self.queued_of.remove(&link);
            }
        }
    }

    fn report(&mut self, event: Event) {
        self.events.push(event);
        wake(&mut self.readers);
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Links")
            .field("live", &state.live.len())
            .field("queued_bytes", &state.queued_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_executor::block_on;

    use super::*;

    const ALICE: PeerId = PeerId([1; 32]);
    const BOB: PeerId = PeerId([2; 32]);

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn hung_up() -> DisconnectReason {
        DisconnectReason::HungUp
    }

    #[test]
    fn peer_has_one_live_link_and_ids_count_up() {
        let links = Links::new(1024);
        let first = links.begin(ALICE).unwrap();
        assert_eq!(links.begin(ALICE), Ok(first));
        let other = links.begin(BOB).unwrap();
        assert!(links.end(first, hung_up()));
        assert!(!links.end(first, hung_up()), "it ends once");
        let second = links.begin(ALICE).unwrap();
        assert!(first < other && other < second);
        assert_eq!(
            (links.live(ALICE), links.live(BOB)),
            (Some(second), Some(other))
        );
        assert_eq!(
            links.check(first, &[]),
            Err(TransportError::LinkOver { link: first })
        );
        assert_eq!(links.check(second, &[]), Ok(ALICE));
    }

    #[test]
    fn full_queue_waits_until_it_is_read_or_the_link_ends() {
        let links = Links::new(1000);
        let (alice, bob) = (links.begin(ALICE).unwrap(), links.begin(BOB).unwrap());
        assert!(block_on(links.deliver(alice, vec![0; 5000])), "one fits");
        assert!(block_on(links.deliver(bob, vec![0; 5000])), "one of each");
        let mut waiting = pin!(links.deliver(alice, vec![1; 400]));
        let mut ending = pin!(links.deliver(bob, vec![2; 400]));
        assert!(poll(waiting.as_mut()).is_pending());
        assert!(poll(ending.as_mut()).is_pending());
        links.end(bob, hung_up());
        assert_eq!(poll(ending.as_mut()), Poll::Ready(false));
        for _ in 0..5 {
            assert!(block_on(links.next()).is_some());
        }
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(true));
    }

    /// Mallory always has more to say than there is room for. Alice has her share of the room all the
    /// same, for long messages too, and is read as much as she is.
    #[test]
    fn flood_leaves_others_their_share() {
        const MALLORY: PeerId = PeerId([9; 32]);
        for (alices, mallorys) in [(250, 0), (250, 20_000), (20_000, 0), (20_000, 20_000)] {
            let links = Links::new(100_000);
            let flood = links.begin(MALLORY).unwrap();
            let flooded = || poll(pin!(links.deliver(flood, vec![9; mallorys]))).is_ready();
            let alice = links.begin(ALICE).unwrap();
            while flooded() {}
            let (mut read, mut bytes) = ([0; 2], [0; 2]);
            let mut at = 0_u32;
            while at < 2_000 {
                while flooded() {}
                while poll(pin!(links.deliver(alice, vec![1; alices]))).is_ready() {}
                if let Some(Event::Message {
                    from, bytes: it, ..
                }) = block_on(links.next())
                {
                    read[usize::from(from == MALLORY)] += 1;
                    bytes[usize::from(from == MALLORY)] += it.len().max(4 << 10);
                    at += 1;
                }
            }
            let [alice, mallory] = bytes;
            assert!(
                10 * alice >= 9 * mallory,
                "{read:?} {bytes:?} of {alices}, {mallorys}"
            );
        }
    }

    #[test]
    fn whoever_waits_is_woken() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = std::sync::Arc::new(Count(0.into()));
        let waker = Waker::from(count.clone());
        let woken = || count.0.swap(0, std::sync::atomic::Ordering::SeqCst);
        let mut cx = Context::from_waker(&waker);

        let links = Links::new(100);
        let mut next = pin!(links.next());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        let alice = links.begin(ALICE).unwrap();
        assert_eq!(woken(), 1, "an event wakes a reader, once");
        assert!(next.as_mut().poll(&mut cx).is_ready());

        assert!(block_on(links.deliver(alice, vec![0; 90])));
        let mut more = pin!(links.deliver(alice, vec![0; 90]));
        assert!(more.as_mut().poll(&mut cx).is_pending());
        assert!(block_on(links.next()).is_some());
        assert_eq!(woken(), 1, "room wakes a sender");
        assert!(more.as_mut().poll(&mut cx).is_ready());
        assert!(block_on(links.next()).is_some());

        let mut next = pin!(links.next());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        links.close();
        assert_eq!(woken(), 1, "the end wakes a reader");
        assert_eq!(poll(next.as_mut()), Poll::Ready(None));
    }

    #[test]
    fn links_that_nobody_reads_of_are_bounded() {
        let links = Links::new(1000);
        for _ in 0..UNREAD_LINKS_MAX {
            let link = links.begin(ALICE).unwrap();
            links.end(link, hung_up());
        }
        let refused = links.begin(ALICE);
        assert!(matches!(
            refused,
            Err(TransportError::TooManyConnections { .. })
        ));
        block_on(links.next());
        assert!(links.begin(ALICE).is_ok());
    }

    #[test]
    fn discoveries_that_nobody_reads_are_bounded() {
        let links = Links::new(1000);
        let address: Address = "somewhere".parse().unwrap();
        for _ in 0..=UNREAD_DISCOVERIES_MAX {
            links.discover(ALICE, address.clone());
        }
        for _ in 0..UNREAD_DISCOVERIES_MAX {
            let peer = ALICE;
            let address = address.clone();
            let expected = Event::Discovered { peer, address };
            assert_eq!(block_on(links.next()), Some(expected));
        }
        assert!(poll(pin!(links.next())).is_pending());
        links.discover(BOB, address);
        assert!(block_on(links.next()).is_some());
    }

    #[test]
    fn closed_links_are_over() {
        let links = Links::new(1000);
        let link = links.begin(ALICE).unwrap();
        assert_eq!(links.close(), [ALICE]);
        assert_eq!(links.close(), []);
        assert_eq!(block_on(links.next()), None);
        assert_eq!(links.begin(BOB), Err(TransportError::Closed));
        assert_eq!(links.check(link, &[]), Err(TransportError::Closed));
        assert!(!block_on(links.deliver(link, vec![1])));
        assert!(links.is_closed());
    }
}

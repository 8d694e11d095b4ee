//! A network within one process: real futures, pretended distance.
//!
//! For tests of anything above the port. Futures resolve on any executor, and time is a number that
//! only [`MemoryNetwork::advance`], [`settle`](MemoryNetwork::settle) and
//! [`drive`](MemoryNetwork::drive) move. With [`Conditions::default`] nothing takes time, so links
//! open and messages arrive within the call that causes them.
//!
//! What happens depends on the seed, the conditions and the order of calls, and on nothing else.
//!
//! A link is an ordered, reliable stream, as over TCP or QUIC. So a "lost message" does not leave a
//! gap: it stands for a connection that could not recover, and **breaks the link**, for both sides,
//! at the moment when the message would have arrived.

mod state;

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;

use crate::{Address, Event, LinkId, MESSAGE_BYTES_MAX, PeerId, Transport, TransportError};
use state::{Handle, State};

/// How the pretended network behaves; the same for all pairs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conditions {
    /// The one-way delay of a message, drawn evenly for each; messages never overtake one another.
    ///
    /// Connecting takes two of them. An empty range counts as its start.
    pub latency_millis: RangeInclusive<u64>,
    /// How many messages of a million are lost, each breaking its link.
    pub loss_per_million: u32,
    /// The bandwidth of each direction of each link; `None` is endless.
    pub bytes_per_second: Option<u64>,
    /// How many bytes of one direction of a link may be on the way or unread; above it, `send` waits.
    ///
    /// A message counts [`MESSAGE_OVERHEAD_BYTES`] besides its length. One message always fits.
    pub queue_bytes: usize,
    /// How long a `send` waits for a peer that takes nothing before the link is cut.
    pub stall_millis: u64,
    /// How long after a loss the side that had dialled dials again; see [`MemoryNetwork::heal`].
    pub redial_millis: u64,
}

impl Default for Conditions {
    /// No delay, no loss, endless bandwidth; queues of 4 MiB, 30 s to a stall, 1 s to a new dial.
    fn default() -> Self {
        Self {
            latency_millis: 0..=0,
            loss_per_million: 0,
            bytes_per_second: None,
            queue_bytes: 4 * 1024 * 1024,
            stall_millis: 30_000,
            redial_millis: 1_000,
        }
    }
}

/// What a message costs in [`Conditions::queue_bytes`] besides its bytes, so that empty ones count.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// A network of [`MemoryTransport`]s and the clock that they share. Clones are the same network.
///
/// # Examples
///
/// ```
/// use futures_executor::block_on;
/// use leno_transport_trait::memory::{Conditions, MemoryNetwork};
/// use leno_transport_trait::{Event, PeerId, Transport};
///
/// let slow = Conditions { latency_millis: 20..=20, ..Conditions::default() };
/// let network = MemoryNetwork::new(1, slow);
/// let (alice, bob) = (network.endpoint(PeerId([1; 32])), network.endpoint(PeerId([2; 32])));
///
/// block_on(network.drive(alice.dial(&bob.addresses()[0])))?;
/// assert_eq!(network.now_millis(), 40);
///
/// let Some(Event::Connected { link, .. }) = block_on(alice.next()) else { panic!() };
/// block_on(alice.send(link, vec![1]))?;
/// network.advance(20);
/// assert!(matches!(block_on(bob.next()), Some(Event::Connected { .. })));
/// assert!(matches!(block_on(bob.next()), Some(Event::Message { .. })));
/// # Ok::<(), leno_transport_trait::TransportError>(())
/// ```
#[derive(Clone)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

impl MemoryNetwork {
    /// Makes an empty network at time 0.
    #[must_use]
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(seed, conditions))),
        }
    }

    /// Adds a device and returns its endpoint.
    ///
    /// If the device is there already, this is its restart after a crash: the old endpoint is closed,
    /// and its peers see their links lost.
    #[must_use]
    pub fn endpoint(&self, peer: PeerId) -> MemoryTransport {
        let handle = self.with(|state| state.add(peer));
        MemoryTransport {
            network: self.clone(),
            handle,
        }
    }

    /// Returns the time of the pretended clock, in milliseconds since the network was made.
    #[must_use]
    pub fn now_millis(&self) -> u64 {
        self.with(|state| state.now_micros() / 1_000)
    }

    /// Changes the conditions for what is sent and dialled from now on.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.with(|state| state.set_conditions(conditions));
    }

    /// Moves the clock by `millis` and lets everything due until then happen, in order.
    pub fn advance(&self, millis: u64) {
        self.with(|state| state.advance(millis.saturating_mul(1_000)));
    }

    /// Moves the clock until nothing is on the way any more.
    ///
    /// Stall bounds and new dials that lie behind that point stay ahead. Answers that a task will give
    /// only after it has run are not waited for; [`drive`](Self::drive) does.
    pub fn settle(&self) {
        self.with(State::settle);
    }

    /// Runs a future, moving the clock to the next thing due whenever the future waits.
    ///
    /// Everything that should go on meanwhile has to be part of the future (`join` them): time does not
    /// wait for other tasks. Never resolves if the future waits and nothing is due.
    pub async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut flag: Option<(Arc<Flag>, Waker)> = None;
        poll_fn(|cx| {
            // One waker for as long as the caller's stays, so that waiters can tell it is the same.
            let (flag, waker) = match flag.take().filter(|(it, _)| it.outer.will_wake(cx.waker())) {
                Some(kept) => flag.insert(kept),
                None => {
                    let raised = AtomicBool::new(false);
                    let fresh = Arc::new(Flag {
                        raised,
                        outer: cx.waker().clone(),
                    });
                    flag.insert((fresh.clone(), Waker::from(fresh)))
                }
            };
            flag.raised.store(false, Ordering::SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            // While the future still has something to do now, time stands.
            if !flag.raised.load(Ordering::SeqCst) && self.with(State::step) {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// Cuts all links between two devices, for both sides at once, and lets none come about.
    pub fn partition(&self, a: PeerId, b: PeerId) {
        self.with(|state| state.partition(a, b));
    }

    /// Ends a partition.
    ///
    /// A side that had dialled the other before dials again [`Conditions::redial_millis`] later.
    pub fn heal(&self, a: PeerId, b: PeerId) {
        self.with(|state| state.heal(a, b));
    }

    /// Runs `change` under the lock, then wakes whom it concerns, outside of it.
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, woken) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = change(&mut state);
            (result, state.take_woken())
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork")
            .field("now_millis", &self.now_millis())
            .finish_non_exhaustive()
    }
}

/// Passes a wake on and remembers that there was one.
struct Flag {
    raised: AtomicBool,
    outer: Waker,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raised.store(true, Ordering::SeqCst);
        self.outer.wake_by_ref();
    }
}

/// One device of a [`MemoryNetwork`]. Dropping it closes it.
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    handle: Handle,
}

const SCHEME: &str = "memory/";

/// Reads `memory/` and 64 hexadecimal digits.
fn peer_of(address: &Address) -> Option<PeerId> {
    let digits = address.as_str().strip_prefix(SCHEME)?;
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(PeerId(bytes))
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Transport for MemoryTransport {
    fn local(&self) -> PeerId {
        self.handle.peer
    }

    fn addresses(&self) -> Vec<Address> {
        let open = self.network.with(|state| state.is_open(self.handle));
        let address = format!("{SCHEME}{}", self.handle.peer).parse();
        open.then_some(address).into_iter().flatten().collect()
    }

    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        peer_of(address)
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        let peer = peer_of(address).ok_or_else(|| TransportError::AddressNotUnderstood {
            address: address.clone(),
            detail: format!("expected {SCHEME} and 64 hexadecimal digits"),
        })?;
        if peer == self.handle.peer {
            return Err(TransportError::DialledSelf {
                address: address.clone(),
            });
        }
        let mut opening = None;
        poll_fn(|cx| {
            self.network
                .with(|state| state.poll_dial(self.handle, peer, &mut opening, cx))
        })
        .await
        .map_err(|refusal| refusal.into_error(address))?;
        Ok(peer)
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(TransportError::MessageTooLarge {
                len: message.len(),
                max: MESSAGE_BYTES_MAX,
            });
        }
        let mut message = Some(message);
        poll_fn(|cx| {
            self.network
                .with(|state| state.poll_send(self.handle, link, &mut message, cx))
        })
        .await
    }

    async fn next(&self) -> Option<Event> {
        poll_fn(|cx| self.network.with(|state| state.poll_next(self.handle, cx))).await
    }

    async fn hang_up(&self, peer: PeerId) {
        self.network.with(|state| state.hang_up(self.handle, peer));
    }

    async fn close(&self) {
        self.network.with(|state| state.close(self.handle));
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.network.with(|state| state.close(self.handle));
    }
}

#[cfg(test)]
mod tests;

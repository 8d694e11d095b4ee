//! The network of a simulated world: each direction between two machines has conditions of its own.
//!
//! A link is an ordered, reliable stream, as over TCP or QUIC. A message that is lost stands for a
//! connection that could not recover: nothing more arrives in that direction, and each end learns of
//! it at a time of its own, so that one end may still hold a link which the other has given up.
//!
//! Only a [`Breach`] violates the contract of the transport: on purpose, to see that peers stay safe
//! on a transport that has a defect.

mod condition;
mod message;
mod state;

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use async_trait::async_trait;
use leno::transport::{Event, LinkId, MESSAGE_BYTES_MAX, Transport, TransportError};
use leno::{Address, PeerId};

use crate::dice::Dice;
use crate::time::Time;
pub use condition::{Breach, Conditions, MESSAGE_OVERHEAD_BYTES};
pub use state::Counts;
pub(crate) use state::Happened;
use state::{Handle, State};

/// A network of [`SimTransport`]s. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork {
    state: Arc<Mutex<State>>,
}

impl SimNetwork {
    /// Makes a network without machines.
    #[must_use]
    pub fn new(time: Time, seed: u64, conditions: Conditions) -> Self {
        let dice = Dice::new(seed, "network");
        Self {
            state: Arc::new(Mutex::new(State::new(time, dice, conditions))),
        }
    }

    /// Adds a device and returns its endpoint. If it is there already, this is its restart after a
    /// crash.
    #[must_use]
    pub fn endpoint(&self, peer: PeerId) -> SimTransport {
        let handle = self.with(|state| state.add(peer));
        SimTransport {
            network: self.clone(),
            handle,
        }
    }

    /// Changes the conditions of all directions, for what is sent and dialled from now on.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.with(|state| state.set_conditions(conditions));
    }

    /// Changes the conditions of one direction.
    pub fn set_conditions_between(&self, from: PeerId, to: PeerId, conditions: Conditions) {
        self.with(|state| state.set_conditions_between(from, to, conditions));
    }

    /// Cuts all links between two machines and lets none come about.
    pub fn partition(&self, a: PeerId, b: PeerId) {
        self.with(|state| state.partition(a, b));
    }

    /// Ends a partition.
    pub fn heal(&self, a: PeerId, b: PeerId) {
        self.with(|state| state.heal(a, b));
    }

    /// Lets nothing through in one direction. What is sent waits; links live on until the sender has
    /// waited for longer than the stall bound.
    pub fn silence(&self, from: PeerId, to: PeerId) {
        self.with(|state| state.silence(from, to));
    }

    /// Ends a silence: what waits arrives, in order.
    pub fn unsilence(&self, from: PeerId, to: PeerId) {
        self.with(|state| state.unsilence(from, to));
    }

    /// Has the transport violate its contract in one direction, from now on; or keep it again.
    pub fn breach(&self, from: PeerId, to: PeerId, breach: Option<Breach>) {
        self.with(|state| state.breach(from, to, breach));
    }

    /// Breaks the link between two machines, if there is one, for both.
    pub fn cut(&self, a: PeerId, b: PeerId) {
        self.with(|state| state.cut(a, b));
    }

    /// A machine is gone without a word. Its peers learn of it sooner or later.
    pub fn crash(&self, peer: PeerId) {
        self.with(|state| state.crash(peer));
    }

    /// Heals everything: partitions, silences, breaches. Links that a breach may have harmed break.
    pub fn calm(&self, conditions: Conditions) {
        self.with(|state| state.calm(conditions));
    }

    /// Pairs that have a link, as both ends hold.
    #[must_use]
    pub fn connected(&self, a: PeerId, b: PeerId) -> bool {
        self.with(|state| state.connected(a, b))
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.with(|state| state.counts())
    }

    /// When something is due next.
    pub(crate) fn next(&self) -> Option<u64> {
        self.with(|state| state.next_due())
    }

    /// Lets the next thing happen, if it is due.
    pub(crate) fn perform(&self) -> Option<Happened> {
        self.with(State::perform_next)
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

impl fmt::Debug for SimNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SimNetwork")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// The endpoint of one device of a [`SimNetwork`]. Dropping it closes it.
#[derive(Debug)]
pub struct SimTransport {
    network: SimNetwork,
    handle: Handle,
}

const SCHEME: &str = "sim/";

/// Where a device of the network is dialled.
///
/// # Examples
///
/// ```
/// use leno::PeerId;
///
/// let address = leno_sim::address_of(PeerId([1; 32]));
/// assert!(address.is_some_and(|it| it.as_str().starts_with("sim/0101")));
/// ```
#[must_use]
pub fn address_of(peer: PeerId) -> Option<Address> {
    format!("{SCHEME}{peer}").parse().ok()
}

/// Reads `sim/` and 64 hexadecimal digits.
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

#[async_trait]
impl Transport for SimTransport {
    fn local(&self) -> PeerId {
        self.handle.peer
    }

    fn addresses(&self) -> Vec<Address> {
        let is_open = self.network.with(|state| state.is_open(self.handle));
        let address = address_of(self.handle.peer).filter(|_| is_open);
        address.into_iter().collect()
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
        let dialled = poll_fn(|context| {
            let handle = self.handle;
            self.network
                .with(|state| state.poll_dial(handle, peer, &mut opening, context))
        });
        let refused = dialled.await;
        refused.map_err(|refusal| refusal.into_error(address))?;
        Ok(peer)
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        let (len, max) = (message.len(), MESSAGE_BYTES_MAX);
        if len > max {
            return Err(TransportError::MessageTooLarge { len, max });
        }
        let mut message = Some(message);
        poll_fn(|context| {
            let handle = self.handle;
            self.network
                .with(|state| state.poll_send(handle, link, &mut message, context))
        })
        .await
    }

    async fn next(&self) -> Option<Event> {
        poll_fn(|context| {
            self.network
                .with(|state| state.poll_next(self.handle, context))
        })
        .await
    }

    async fn hang_up(&self, peer: PeerId) {
        self.network.with(|state| state.hang_up(self.handle, peer));
    }

    async fn close(&self) {
        self.network.with(|state| state.close(self.handle));
    }
}

impl Drop for SimTransport {
    fn drop(&mut self) {
        self.network.with(|state| state.close(self.handle));
    }
}

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use thiserror::Error;

use crate::links::{wait, wake};
use crate::{Address, DisconnectReason, Event, LinkId, PeerId, Transport, TransportError};

/// Several transports of one device as one: each address is dialled by the transport that understands
/// it, and a peer has one live link over all of them.
///
/// # Which link
///
/// If a peer is connected over two transports, the side with the lower [`PeerId`] decides, as between
/// two connections of one transport:
///
/// 1. It moves to the newer link and hangs up on the older one: the peer may have been restarted, and
///    the older one may be an end of which nobody heard yet.
/// 2. The other side keeps the newer one aside, and moves to it when something comes by it, or when the
///    older one ends.
///
/// A move is reported as the end of one link, [`Replaced`](DisconnectReason::Replaced), and the begin of
/// another. So that it is rare, an address that says whose it is ([`Transport::peer_of`]) is not dialled
/// while its peer is connected, or being dialled, by another transport. Whoever is reached by the second
/// network only is so after the dials by the first one failed.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use leno_transport_trait::memory::{Conditions, MemoryNetwork};
/// use leno_transport_trait::{PeerId, Transport, Transports};
///
/// let (near, far) = (MemoryNetwork::new(1, Conditions::default()), MemoryNetwork::new(2, Conditions::default()));
/// let alice = PeerId([1; 32]);
/// let both = Transports::new(Arc::new(near.endpoint(alice))).with(Arc::new(far.endpoint(alice)))?;
/// assert_eq!(both.local(), alice);
/// assert_eq!(both.addresses().len(), 2);
/// assert!(both.with(Arc::new(far.endpoint(PeerId([2; 32])))).is_err());
/// # Ok::<(), leno_transport_trait::OtherDevice>(())
/// ```
pub struct Transports {
    local: PeerId,
    inner: Vec<Arc<dyn Transport>>,
    state: Mutex<State>,
}

/// A transport is bound to the key of another device than the others.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("a transport of {found} cannot be joined to those of {expected}")]
pub struct OtherDevice {
    /// The device of the transports that were there before.
    pub expected: PeerId,
    /// The device of the one that was refused.
    pub found: PeerId,
}

/// A link of one of the transports: which of them, and its name there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Inner {
    index: usize,
    link: LinkId,
}

#[derive(Default)]
struct State {
    links_made: u64,
    /// The link to each peer that is reported, under our name for it.
    shown: BTreeMap<PeerId, (LinkId, Inner)>,
    /// Links that the other side has not decided for.
    aside: BTreeMap<PeerId, Vec<Inner>>,
    /// By which transport a dial reached each peer, until its link is reported.
    reached: BTreeMap<PeerId, usize>,
    /// By which transport each peer is being dialled, and how often at once.
    dialling: BTreeMap<PeerId, (usize, u32)>,
    diallers: Vec<Waker>,
    events: VecDeque<Event>,
    /// Links that are of no use any more, to be hung up on.
    unwanted: VecDeque<(PeerId, Inner)>,
    readers: Vec<Waker>,
    /// How many links ended.
    ends: u64,
    /// Which transport is asked first, so that none keeps the others waiting.
    turn: usize,
}

impl Transports {
    /// Begins with one transport.
    #[must_use]
    pub fn new(first: Arc<dyn Transport>) -> Self {
        Self {
            local: first.local(),
            inner: vec![first],
            state: Mutex::default(),
        }
    }

    /// Adds another one. Where two understand the same address, the earlier one dials it.
    ///
    /// # Errors
    ///
    /// [`OtherDevice`] if it is bound to the key of another device.
    pub fn with(mut self, another: Arc<dyn Transport>) -> Result<Self, OtherDevice> {
        let (expected, found) = (self.local, another.local());
        if expected != found {
            return Err(OtherDevice { expected, found });
        }
        self.inner.push(another);
        Ok(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link of a transport that is ours of this name.
    fn inner_of(&self, link: LinkId) -> Option<(&Arc<dyn Transport>, Inner)> {
        let state = self.lock();
        let found = state.shown.values().find(|(it, _)| *it == link);
        let (_, inner) = *found?;
        Some((self.inner.get(inner.index)?, inner))
    }

    /// Hangs up on what is of no use. What was begun is done again if the future was dropped.
    async fn hang_up_unwanted(&self) {
        loop {
            let Some((peer, unwanted)) = self.lock().unwanted.front().copied() else {
                return;
            };
            if let Some(transport) = self.inner.get(unwanted.index) {
                transport.hang_up(peer).await;
            }
            let mut state = self.lock();
            if state.unwanted.front() == Some(&(peer, unwanted)) {
                state.unwanted.pop_front();
            }
        }
    }

    /// Takes the next event of any transport into the state; `Ready(false)` once all are closed.
    async fn take_one(&self) -> bool {
        let mut nexts: Vec<_> = self.inner.iter().map(|it| Some(it.next())).collect();
        poll_fn(|cx| {
            // Held while an event is taken and while it is noted, so that two callers keep the order.
            let mut state = self.lock();
            if !state.events.is_empty() {
                return Poll::Ready(true);
            }
            wait(&mut state.readers, cx);
            let count = nexts.len();
            for at in 0..count {
                let index = (state.turn + at) % count;
                let Some(Some(next)) = nexts.get_mut(index) else {
                    continue;
                };
                match next.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Some(event)) => {
                        state.turn = index + 1;
                        state.note(self.local, index, event);
                        return Poll::Ready(true);
                    }
                    Poll::Ready(None) => {
                        // It must not be polled again.
                        if let Some(next) = nexts.get_mut(index) {
                            *next = None;
                        }
                    }
                }
            }
            match nexts.iter().any(Option::is_some) {
                true => Poll::Pending,
                false => Poll::Ready(false),
            }
        })
        .await
    }

    /// Waits until no other transport dials this peer; says by which it is connected if it is by then.
    ///
    /// Several dials by one transport go on at once: it sees to it that one link comes of them.
    async fn begin(&self, peer: PeerId, index: usize) -> Result<Dialling<'_>, usize> {
        poll_fn(|cx| {
            let mut state = self.lock();
            let shown = state.shown.get(&peer).map(|(_, inner)| inner.index);
            if let Some(index) = shown.or_else(|| state.reached.get(&peer).copied()) {
                return Poll::Ready(Err(index));
            }
            let (by, count) = state.dialling.entry(peer).or_insert((index, 0));
            if *by != index {
                wait(&mut state.diallers, cx);
                return Poll::Pending;
            }
            *count += 1;
            let transports = self;
            Poll::Ready(Ok(Dialling { transports, peer }))
        })
        .await
    }

    /// Has the first transport dial that understands the address.
    async fn dial_by_any(&self, address: &Address) -> Result<PeerId, TransportError> {
        let mut refused = None;
        let ends = self.lock().ends;
        for (index, transport) in self.inner.iter().enumerate() {
            match transport.dial(address).await {
                Err(error @ TransportError::AddressNotUnderstood { .. }) => {
                    refused.get_or_insert(error);
                }
                Ok(peer) => {
                    let mut state = self.lock();
                    // If a link ended meanwhile, it may have been this one.
                    if state.ends == ends && !state.shown.contains_key(&peer) {
                        state.reached.insert(peer, index);
                    }
                    return Ok(peer);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or(TransportError::Closed))
    }
}

/// A dial to a peer that is named; those by another transport wait until it is dropped.
struct Dialling<'a> {
    transports: &'a Transports,
    peer: PeerId,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let mut state = self.transports.lock();
        if let Some((_, count)) = state.dialling.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                state.dialling.remove(&self.peer);
                wake(&mut state.diallers);
            }
        }
    }
}

impl State {
    fn note(&mut self, local: PeerId, index: usize, event: Event) {
        match event {
            Event::Connected { peer, link } => {
                let inner = Inner { index, link };
                self.reached.remove(&peer);
                if self.shown.contains_key(&peer) && local > peer {
                    self.aside.entry(peer).or_default().push(inner);
                } else {
                    self.replace(peer, inner);
                }
            }
            Event::Message { from, link, bytes } => {
                let inner = Inner { index, link };
                let aside = self.aside.get(&from);
                if aside.is_some_and(|it| it.contains(&inner)) {
                    // The other side has decided.
                    self.replace(from, inner);
                }
                match self.shown.get(&from) {
                    Some((link, shown)) if *shown == inner => {
                        let link = *link;
                        self.events.push_back(Event::Message { from, link, bytes });
                    }
                    // Of a link that is over on this side.
                    _ => {}
                }
            }
            event @ Event::Discovered { .. } => self.events.push_back(event),
            Event::Disconnected { peer, link, reason } => {
                self.disconnected(peer, Inner { index, link }, reason);
            }
        }
    }

    /// Makes a link the one that is reported.
    fn replace(&mut self, peer: PeerId, inner: Inner) {
        self.put_aside_no_more(peer, inner);
        if let Some((link, old)) = self.shown.remove(&peer) {
            let reason = DisconnectReason::Replaced;
            self.events
                .push_back(Event::Disconnected { peer, link, reason });
            self.unwanted.push_back((peer, old));
        }
        self.links_made += 1;
        let link = LinkId(self.links_made);
        self.shown.insert(peer, (link, inner));
        self.events.push_back(Event::Connected { peer, link });
    }

    /// Ends everything with a peer at once; what its transports still say of it is of no interest.
    fn hang_up(&mut self, peer: PeerId) {
        self.aside.remove(&peer);
        self.reached.remove(&peer);
        self.unwanted.retain(|(it, _)| *it != peer);
        if let Some((link, _)) = self.shown.remove(&peer) {
            let reason = DisconnectReason::HungUp;
            self.events
                .push_back(Event::Disconnected { peer, link, reason });
            wake(&mut self.readers);
        }
    }

    fn put_aside_no_more(&mut self, peer: PeerId, inner: Inner) {
        if let Some(aside) = self.aside.get_mut(&peer) {
            aside.retain(|it| *it != inner);
            if aside.is_empty() {
                self.aside.remove(&peer);
            }
        }
    }

    fn disconnected(&mut self, peer: PeerId, inner: Inner, reason: DisconnectReason) {
        self.ends += 1;
        self.unwanted.retain(|(_, it)| *it != inner);
        self.put_aside_no_more(peer, inner);
        self.reached.remove(&peer);
        let Some((link, shown)) = self.shown.get(&peer).copied() else {
            return;
        };
        if shown != inner {
            return;
        }
        self.shown.remove(&peer);
        let next = self.aside.get(&peer).and_then(|it| it.last()).copied();
        let reason = match next {
            Some(_) => DisconnectReason::Replaced,
            None => reason,
        };
        self.events
            .push_back(Event::Disconnected { peer, link, reason });
        if let Some(next) = next {
            self.replace(peer, next);
        }
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Transport for Transports {
    fn local(&self) -> PeerId {
        self.local
    }

    fn addresses(&self) -> Vec<Address> {
        // The best of each, then the second best of each, since some take only the first few.
        let lists: Vec<Vec<Address>> = self.inner.iter().map(|it| it.addresses()).collect();
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        let turns = (0..longest).flat_map(|turn| lists.iter().filter_map(move |it| it.get(turn)));
        turns.cloned().collect()
    }

    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        self.inner.iter().find_map(|it| it.peer_of(address))
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        let mut readers = self.inner.iter().enumerate();
        let named = readers.find_map(|(index, it)| Some((index, it.peer_of(address)?)));
        let Some((index, peer)) = named.filter(|(_, it)| *it != self.local) else {
            return self.dial_by_any(address).await;
        };
        match self.begin(peer, index).await {
            Ok(_dialling) => self.dial_by_any(address).await,
            // That transport knows best whether the link still is.
            Err(index) => match self.inner.get(index) {
                Some(it) if it.peer_of(address) == Some(peer) => it.dial(address).await,
                _ => Ok(peer),
            },
        }
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        let Some((transport, inner)) = self.inner_of(link) else {
            // A closed transport says so, and one that is not looks at the length and knows no link.
            let unknown = LinkId(u64::MAX);
            let refused = match self.inner.first() {
                Some(first) => first.send(unknown, message).await,
                None => Ok(()),
            };
            return match refused {
                Err(error @ (TransportError::Closed | TransportError::MessageTooLarge { .. })) => {
                    Err(error)
                }
                _ => Err(TransportError::LinkOver { link }),
            };
        };
        let sent = transport.send(inner.link, message).await;
        let over = matches!(sent, Err(TransportError::LinkOver { .. }));
        if over {
            Err(TransportError::LinkOver { link })
        } else {
            sent
        }
    }

    async fn next(&self) -> Option<Event> {
        loop {
            self.hang_up_unwanted().await;
            {
                let mut state = self.lock();
                if let Some(event) = state.events.pop_front() {
                    // One event of a transport may be two of ours, and another caller may wait.
                    wake(&mut state.readers);
                    return Some(event);
                }
            }
            if !self.take_one().await {
                return None;
            }
        }
    }

    async fn hang_up(&self, peer: PeerId) {
        self.lock().hang_up(peer);
        for transport in &self.inner {
            transport.hang_up(peer).await;
        }
    }

    async fn close(&self) {
        let mut closing: Vec<_> = self.inner.iter().map(|it| it.close()).collect();
        poll_fn(|cx: &mut Context<'_>| {
            closing.retain_mut(|it| it.as_mut().poll(cx).is_pending());
            match closing.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let mut state = self.lock();
        state.events.clear();
        wake(&mut state.diallers);
    }
}

impl fmt::Debug for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transports")
            .field("local", &self.local)
            .field("count", &self.inner.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

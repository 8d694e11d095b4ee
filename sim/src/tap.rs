//! What goes over the transport of an honest machine, looked at beside it: whether peers tell of all
//! progress, and how much they send at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leno::PeerId;
use leno::transport::{Address, Event, LinkId, Transport, TransportError};
use leno_threads_core::sync::Message;

use crate::ledger::Broken;
use crate::network::SimTransport;

/// From how many on it is no accident that none of them was told.
const DUE_MIN: usize = 3;

/// What was heard in one life of a machine. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody listens to what the peer tells.
    is_listened_to: bool,
    /// By thread, as the peer numbers it: what it announced and did not send yet.
    links: BTreeMap<PeerId, (LinkId, BTreeMap<u32, u64>)>,
    /// What is to be told, and what was told: how many records a peer still owes.
    due: BTreeSet<(PeerId, u64)>,
    told: BTreeSet<(PeerId, u64)>,
    /// How many messages of each link are handed over and not taken yet.
    sending: BTreeMap<LinkId, usize>,
    /// The most at once.
    sending_max: usize,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody listens from now on to what the peer tells by itself, or misses some of it.
    pub(crate) fn listens(&self, is_listened_to: bool) {
        let mut state = self.lock();
        state.is_listened_to = is_listened_to;
        state.due.clear();
    }

    /// The peer told how many records another one still owes.
    pub(crate) fn told(&self, peer: PeerId, to_receive: u64) {
        self.lock().told.insert((peer, to_receive));
    }

    /// 4: what came was not counted. All that is under way must have had time to be told. What is let
    /// go, because the record that opens its log is missing yet, is not counted, and that is no defect:
    /// so this tells only if nothing at all was.
    pub(crate) fn untold(&self) -> Option<Broken> {
        let state = self.lock();
        if state.due.len() < DUE_MIN || !state.due.is_disjoint(&state.told) {
            return None;
        }
        let (peer, records) = state.due.first()?;
        let what = format!("nobody was told that {peer} owed {records} records, after some came");
        Some(Broken { invariant: 4, what })
    }

    /// 38: a peer waits until a message of a link is taken before it makes another one.
    pub(crate) fn queued(&self) -> Option<Broken> {
        let most = self.lock().sending_max;
        let what = format!("{most} messages of one link waited at once");
        (most > 1).then_some(Broken {
            invariant: 38,
            what,
        })
    }

    /// Looks at what is handed to the peer.
    fn hear(&self, event: &Event) {
        let mut state = self.lock();
        match event {
            Event::Connected { peer, link } => {
                state.forget(*peer);
                state.links.insert(*peer, (*link, BTreeMap::new()));
            }
            Event::Disconnected { peer, .. } => state.forget(*peer),
            Event::Message { from, link, bytes } => state.message(*from, *link, bytes),
            Event::Discovered { .. } => {}
        }
    }
}

impl State {
    fn forget(&mut self, peer: PeerId) {
        self.links.remove(&peer);
        // What was handed over before may have been passed over.
        self.due.retain(|(of, _)| *of != peer);
    }

    fn message(&mut self, from: PeerId, link: LinkId, bytes: &[u8]) {
        let Some((_, owed)) = self.links.get_mut(&from).filter(|(it, _)| *it == link) else {
            return;
        };
        match Message::decode(bytes) {
            Ok(Message::Totals { thread, records }) => drop(owed.insert(thread, records)),
            Ok(Message::UpToDate { thread, .. }) => drop(owed.remove(&thread)),
            Ok(Message::Range { thread, runs, .. }) => {
                let records: usize = runs.iter().map(leno_threads_core::Run::count).sum();
                let Some(left) = owed.get_mut(&thread).filter(|it| **it > 0) else {
                    return;
                };
                *left = left.saturating_sub(records as u64);
                if *left > 0 && self.is_listened_to {
                    self.due.insert((from, *left));
                }
            }
            _ => {}
        }
    }
}

/// The endpoint of an honest machine.
#[derive(Debug)]
pub(crate) struct Tap {
    inner: SimTransport,
    heard: Heard,
}

impl Tap {
    pub(crate) fn new(inner: SimTransport, heard: Heard) -> Self {
        Self { inner, heard }
    }
}

/// A message that is handed over.
struct Sending<'a> {
    heard: &'a Heard,
    link: LinkId,
}

impl<'a> Sending<'a> {
    fn new(heard: &'a Heard, link: LinkId) -> Self {
        let mut state = heard.lock();
        let sending = state.sending.entry(link).or_default();
        *sending += 1;
        let now = *sending;
        state.sending_max = state.sending_max.max(now);
        drop(state);
        Self { heard, link }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(sending) = self.heard.lock().sending.get_mut(&self.link) {
            *sending -= 1;
        }
    }
}

#[async_trait]
impl Transport for Tap {
    fn local(&self) -> PeerId {
        self.inner.local()
    }

    fn addresses(&self) -> Vec<Address> {
        self.inner.addresses()
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        self.inner.dial(address).await
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        let _sending = Sending::new(&self.heard, link);
        self.inner.send(link, message).await
    }

    async fn next(&self) -> Option<Event> {
        let event = self.inner.next().await;
        if let Some(event) = &event {
            self.heard.hear(event);
        }
        event
    }

    async fn hang_up(&self, peer: PeerId) {
        self.heard.lock().forget(peer);
        self.inner.hang_up(peer).await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

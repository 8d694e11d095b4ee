//! A transport of one's own: a switchboard within one process.
//!
//! ```sh
//! cargo run --example own_transport
//! ```
//!
//! An endpoint is made from a device, that is, by whoever holds its secret key. Who sent what is
//! told by memory of this process, so it is trusted; across a wire, a handshake would have to sign
//! a challenge with that key.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leno::identity::Device;
use leno::store::MemoryStore;
use leno::transport::{Address, DisconnectReason as Reason, Event, LinkId, MESSAGE_BYTES_MAX};
use leno::transport::{Transport, TransportError, testing};
use leno::{Ipld, Peer, PeerId, Role};
use tokio::{sync::Notify, time::Instant, time::timeout_at};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Messages of one sender that may wait for a reader: at most 36 MB.
const MESSAGES_WAITING: usize = 32;

/// How long a send waits for room before it cuts the link.
const STALL: Duration = Duration::from_millis(200);

/// All that is known, behind one lock, and a bell that wakes whoever waits for a change.
#[derive(Clone, Default)]
struct Switchboard(Arc<(Mutex<Board>, Notify)>);

#[derive(Default)]
struct Board {
    /// What waits for each open endpoint.
    queues: BTreeMap<PeerId, VecDeque<Event>>,
    /// The name of each link, under both orders of its ends.
    links: BTreeMap<(PeerId, PeerId), LinkId>,
    links_made: u64,
}

struct Endpoint(Switchboard, PeerId);

impl Switchboard {
    fn endpoint(&self, device: &Device) -> Endpoint {
        let local = PeerId(device.verifying_key().to_bytes());
        self.lock().queues.insert(local, VecDeque::new());
        Endpoint(self.clone(), local)
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn tell(&mut self, at: PeerId, event: Event) {
        self.queues
            .entry(at)
            .and_modify(|queue| queue.push_back(event));
    }

    fn end(&mut self, near: (PeerId, Reason), far: (PeerId, Reason)) {
        for (at, peer, reason) in [(near.0, far.0, near.1), (far.0, near.0, far.1)] {
            if let Some(link) = self.links.remove(&(at, peer)) {
                self.tell(at, Event::Disconnected { peer, link, reason });
            }
        }
    }
}

#[async_trait]
impl Transport for Endpoint {
    fn local(&self) -> PeerId {
        self.1
    }

    fn addresses(&self) -> Vec<Address> {
        let is_open = self.0.lock().queues.contains_key(&self.1);
        let address = self.1.to_string().parse().ok();
        address.filter(|_| is_open).into_iter().collect()
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        let (local, mut board) = (self.1, self.0.lock());
        let (address, detail) = (address.clone(), "nobody has this name here".to_owned());
        let name = address.as_str();
        let found = board.queues.keys().find(|it| it.to_string() == name);
        let peer = match found.copied() {
            _ if !board.queues.contains_key(&local) => return Err(TransportError::Closed),
            Some(peer) if peer == local => return Err(TransportError::DialledSelf { address }),
            Some(peer) => peer,
            None if name.len() == 64 => {
                return Err(TransportError::Unreachable { address, detail });
            }
            None => return Err(TransportError::AddressNotUnderstood { address, detail }),
        };
        if !board.links.contains_key(&(local, peer)) {
            board.links_made += 1;
            let link = LinkId(board.links_made);
            for (at, peer) in [(local, peer), (peer, local)] {
                board.links.insert((at, peer), link);
                board.tell(at, Event::Connected { peer, link });
            }
        }
        self.0.0.1.notify_waiters();
        Ok(peer)
    }

    async fn send(&self, link: LinkId, bytes: Vec<u8>) -> Result<(), TransportError> {
        let (from, len, max) = (self.1, bytes.len(), MESSAGE_BYTES_MAX);
        if len > max {
            return Err(TransportError::MessageTooLarge { len, max });
        }
        let deadline = Instant::now() + STALL;
        let is_ours = |it: &&Event| matches!(it, Event::Message { from: it, .. } if *it == from);
        loop {
            // Listened for before looking, so that no change is missed.
            let changed = self.0.0.1.notified();
            let peer = {
                let mut board = self.0.lock();
                board.queues.get(&from).ok_or(TransportError::Closed)?;
                let is_it =
                    |((at, _), it): &(&(PeerId, PeerId), &LinkId)| *at == from && **it == link;
                let ends = board.links.iter().find(is_it).map(|(ends, _)| *ends);
                let (_, peer) = ends.ok_or(TransportError::LinkOver { link })?;
                let queue = board.queues.get(&peer).into_iter().flatten();
                if queue.filter(is_ours).count() < MESSAGES_WAITING {
                    board.tell(peer, Event::Message { from, link, bytes });
                    self.0.0.1.notify_waiters();
                    return Ok(());
                }
                peer
            };
            if timeout_at(deadline, changed).await.is_err() {
                let (millis, detail) = (STALL.as_millis() as u64, "it did not read".to_owned());
                let (near, far) = (Reason::Stalled { millis }, Reason::Lost { detail });
                self.0.lock().end((from, near), (peer, far));
                self.0.0.1.notify_waiters();
            }
        }
    }

    async fn next(&self) -> Option<Event> {
        loop {
            let changed = self.0.0.1.notified();
            let event = self.0.lock().queues.get_mut(&self.1)?.pop_front();
            if event.is_some() {
                self.0.0.1.notify_waiters();
                return event;
            }
            changed.await;
        }
    }

    async fn hang_up(&self, peer: PeerId) {
        let (near, far) = ((self.1, Reason::HungUp), (peer, Reason::PeerHungUp));
        self.0.lock().end(near, far);
        self.0.0.1.notify_waiters();
    }

    async fn close(&self) {
        let (mut board, local) = (self.0.lock(), self.1);
        board.queues.remove(&local);
        for peer in board.queues.keys().copied().collect::<Vec<_>>() {
            board.end((local, Reason::HungUp), (peer, Reason::PeerClosed));
        }
        self.0.0.1.notify_waiters();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Closing awaits nothing.
        let _ = futures_util::FutureExt::now_or_never(self.close());
    }
}

impl testing::Factory for Switchboard {
    type Endpoint = Endpoint;

    async fn endpoint(&self) -> Endpoint {
        let device = Peer::device(&MemoryStore::new()).await;
        Switchboard::endpoint(self, &device.expect("a store in memory keeps a device"))
    }
}

pub(crate) async fn run() -> Outcome {
    let board = Switchboard::default();
    // Panics with the clause that is broken.
    testing::check_all(&board).await;
    println!("  ok  the transport keeps the contract");

    let (alice, bob) = (open(&board).await?, open(&board).await?);
    let thread = alice.create_thread("band").await?;
    let colour = Ipld::Map([("colour".to_owned(), Ipld::from("green"))].into());
    let id = thread.collection::<Ipld>("things").insert(&colour).await?;
    let ticket = thread.grant(&bob.card("Bob").await?, Role::Reader).await?;
    let joined = bob.join(&ticket).await?;
    bob.sync_once(Duration::from_secs(5)).await?;
    if joined.collection::<Ipld>("things").get(&id).await? != Some(colour) {
        return Err("the document did not come".into());
    }
    println!("  ok  two peers sync over it");
    alice.close().await?;
    Ok(bob.close().await?)
}

async fn open(board: &Switchboard) -> Outcome<Peer> {
    let store = MemoryStore::new();
    let endpoint = board.endpoint(&Peer::device(&store).await?);
    let peer = Peer::builder().store(store).transport(endpoint);
    Ok(peer.start().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    run().await
}

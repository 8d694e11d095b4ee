//! A transport of one's own: a switchboard within one process.
//!
//! ```sh
//! cargo run --example own_transport
//! ```
//!
//! It proves identities honestly: an endpoint is made from a device, that is, by whoever holds its
//! secret key, and is named by the public one. The switchboard itself is trusted to tell the truth
//! about who sent what, because it is memory of the same process; across a wire a handshake would
//! have to sign a challenge with that key. What it carries is signed and sealed all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leno::identity::Device;
use leno::store::MemoryStore;
use leno::transport::{
    Address, DisconnectReason as Reason, Event, MESSAGE_BYTES_MAX, Transport, TransportError,
    testing,
};
use leno::{Ipld, Peer, PeerId, Role};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Messages that may wait for a reader, of each link: at most 36 MB.
const MESSAGES_WAITING: usize = 32;

/// How long a peer may take nothing before its link is cut.
const STALL: Duration = Duration::from_millis(200);

#[derive(Clone, Default)]
struct Switchboard(Arc<Mutex<BTreeMap<PeerId, Port>>>);

/// An endpoint as the switchboard knows it: gone from there once it is closed.
struct Port {
    events: UnboundedSender<(Event, Option<OwnedSemaphorePermit>)>,
    links: BTreeMap<PeerId, Link>,
    links_made: u64,
}

/// One end of a link, and the room for messages to it.
struct Link {
    number: u64,
    room: Arc<Semaphore>,
}

struct Endpoint {
    board: Switchboard,
    local: PeerId,
    events: AsyncMutex<UnboundedReceiver<(Event, Option<OwnedSemaphorePermit>)>>,
}

impl Port {
    fn tell(&self, event: Event, permit: Option<OwnedSemaphorePermit>) {
        // Fails only while the endpoint is being dropped.
        let _ = self.events.send((event, permit));
    }

    fn begin(&mut self, peer: PeerId) {
        self.links_made += 1;
        let (link, room) = (self.links_made, Arc::new(Semaphore::new(MESSAGES_WAITING)));
        self.links.insert(peer, Link { number: link, room });
        self.tell(Event::Connected { peer, link }, None);
    }

    fn end(&mut self, peer: PeerId, reason: Reason) {
        if let Some(Link { number: link, room }) = self.links.remove(&peer) {
            // Whoever waits for room to send here is told that there is no link.
            room.close();
            self.tell(Event::Disconnected { peer, link, reason }, None);
        }
    }
}

impl Switchboard {
    fn endpoint(&self, device: &Device) -> Endpoint {
        let local = PeerId(device.verifying_key().to_bytes());
        let (events, received) = unbounded_channel();
        let (links, links_made) = (BTreeMap::new(), 0);
        self.lock().insert(
            local,
            Port {
                events,
                links,
                links_made,
            },
        );
        Endpoint {
            board: self.clone(),
            local,
            events: AsyncMutex::new(received),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Port>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the link between two endpoints, at both ends at once.
    fn end(&self, (near, why): (PeerId, Reason), (far, why_far): (PeerId, Reason)) {
        let mut ports = self.lock();
        ports
            .get_mut(&near)
            .into_iter()
            .for_each(|port| port.end(far, why.clone()));
        ports
            .get_mut(&far)
            .into_iter()
            .for_each(|port| port.end(near, why_far.clone()));
    }
}

#[async_trait]
impl Transport for Endpoint {
    fn local(&self) -> PeerId {
        self.local
    }

    fn addresses(&self) -> Vec<Address> {
        let is_open = self.board.lock().contains_key(&self.local);
        let address = format!("board/{}", self.local).parse();
        is_open.then_some(address).into_iter().flatten().collect()
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        let (address, detail) = (address.clone(), "nobody has this name here".to_owned());
        let Some(name) = address.as_str().strip_prefix("board/") else {
            return Err(TransportError::AddressNotUnderstood { address, detail });
        };
        let mut ports = self.board.lock();
        let own = ports.get(&self.local).ok_or(TransportError::Closed)?;
        let Some(peer) = ports.keys().copied().find(|it| it.to_string() == name) else {
            return Err(TransportError::Unreachable { address, detail });
        };
        if peer == self.local {
            return Err(TransportError::DialledSelf { address });
        }
        if !own.links.contains_key(&peer) {
            ports
                .get_mut(&self.local)
                .into_iter()
                .for_each(|port| port.begin(peer));
            ports
                .get_mut(&peer)
                .into_iter()
                .for_each(|port| port.begin(self.local));
        }
        Ok(peer)
    }

    async fn send(&self, to: PeerId, bytes: Vec<u8>) -> Result<(), TransportError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            let (len, max) = (bytes.len(), MESSAGE_BYTES_MAX);
            return Err(TransportError::MessageTooLarge { len, max });
        }
        let from = self.local;
        let room = {
            let ports = self.board.lock();
            let is_open = ports.contains_key(&from);
            let link = ports.get(&to).and_then(|port| port.links.get(&from));
            let link = link.filter(|_| is_open).map(|link| link.room.clone());
            let peer = to;
            link.ok_or(if is_open {
                TransportError::NotConnected { peer }
            } else {
                TransportError::Closed
            })?
        };
        let permit = match tokio::time::timeout(STALL, room.clone().acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| TransportError::NotConnected { peer: to })?,
            Err(_) => {
                let millis = STALL.as_millis() as u64;
                let detail = "it did not read".to_owned();
                self.board.end(
                    (from, Reason::Stalled { millis }),
                    (to, Reason::Lost { detail }),
                );
                return Err(TransportError::NotConnected { peer: to });
            }
        };
        let ports = self.board.lock();
        let port = ports.get(&to).filter(|_| !room.is_closed());
        let port = port.ok_or(TransportError::NotConnected { peer: to })?;
        let link = port.links.get(&from).map_or(0, |link| link.number);
        port.tell(Event::Message { from, link, bytes }, Some(permit));
        Ok(())
    }

    async fn next(&self) -> Option<Event> {
        let mut events = self.events.lock().await;
        let (event, permit) = events.recv().await?;
        // The message is taken: there is room for another.
        drop(permit);
        self.board.lock().contains_key(&self.local).then_some(event)
    }

    async fn hang_up(&self, peer: PeerId) {
        self.board
            .end((self.local, Reason::HungUp), (peer, Reason::PeerHungUp));
    }

    async fn close(&self) {
        let mut ports = self.board.lock();
        let port = ports.remove(&self.local);
        for peer in port.iter().flat_map(|port| port.links.keys()) {
            let far = ports.get_mut(peer).into_iter();
            far.for_each(|far| far.end(self.local, Reason::PeerClosed));
        }
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
    let colour = Ipld::Map(BTreeMap::from([("colour".to_owned(), Ipld::from("green"))]));
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
    Ok(Peer::builder()
        .store(store)
        .transport(endpoint)
        .start()
        .await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    run().await
}

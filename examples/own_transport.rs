//! A transport of one's own: between peers of one process.
//!
//! Whoever holds a device's secret key makes its endpoint, and the process remembers who sent what;
//! across a wire, a handshake would have to sign a challenge with that key.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leno::store::MemoryStore;
use leno::transport::{Address, DisconnectReason as Reason, Event, LinkId, Links};
use leno::transport::{Transport, TransportError, testing};
use leno::{Ipld, Peer, PeerId, Role};

/// How long a send waits for room before it cuts the link.
const STALL: Duration = Duration::from_millis(200);

/// Everybody who can be dialled.
static BOARD: Mutex<BTreeMap<PeerId, Arc<Links>>> = Mutex::new(BTreeMap::new());

fn board() -> MutexGuard<'static, BTreeMap<PeerId, Arc<Links>>> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Endpoint {
    local: PeerId,
    links: Arc<Links>,
}

impl Endpoint {
    async fn new(store: &MemoryStore) -> Result<Self, leno::Error> {
        let local = PeerId(Peer::device(store).await?.verifying_key().to_bytes());
        let links = Arc::new(Links::new(16 << 20));
        board().insert(local, links.clone());
        Ok(Self { local, links })
    }

    /// Ends the link to a peer on both sides.
    fn part(&self, peer: PeerId, ours: Reason, theirs: Reason) {
        let board = board();
        self.links.end_with(peer, ours);
        board.get(&peer).map(|far| far.end_with(self.local, theirs));
    }
}

#[async_trait]
impl Transport for Endpoint {
    fn local(&self) -> PeerId {
        self.local
    }

    fn addresses(&self) -> Vec<Address> {
        let address = self.local.to_string().parse().into_iter();
        address.filter(|_| !self.links.is_closed()).collect()
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        let (address, detail) = (address.clone(), "nobody has this name".to_owned());
        let Ok(peer) = address.as_str().parse() else {
            return Err(TransportError::AddressNotUnderstood { address, detail });
        };
        if peer == self.local {
            return Err(TransportError::DialledSelf { address });
        }
        let board = board();
        let Some(far) = board.get(&peer) else {
            return Err(TransportError::Unreachable { address, detail });
        };
        let link = self.links.begin(peer)?;
        let is_linked = far.begin(self.local).map(|_| peer);
        is_linked.inspect_err(|_| _ = self.links.end(link, Reason::PeerClosed))
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        let over = TransportError::LinkOver { link };
        let (peer, far, there) = {
            let board = board();
            let peer = self.links.check(link, &message)?;
            let far = board.get(&peer).ok_or(over.clone())?;
            (peer, far.clone(), far.live(self.local).ok_or(over.clone())?)
        };
        let delivered = tokio::time::timeout(STALL, far.deliver(there, message)).await;
        if delivered.is_err() {
            let millis = STALL.as_millis() as u64;
            self.part(peer, Reason::Stalled { millis }, Reason::PeerClosed);
        }
        delivered.is_ok_and(|it| it).then_some(()).ok_or(over)
    }

    async fn next(&self) -> Option<Event> {
        self.links.next().await
    }

    async fn hang_up(&self, peer: PeerId) {
        self.part(peer, Reason::HungUp, Reason::PeerHungUp);
    }

    async fn close(&self) {
        let mut board = board();
        board.remove(&self.local);
        for far in self.links.close().iter().filter_map(|it| board.get(it)) {
            far.end_with(self.local, Reason::PeerClosed);
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Closing awaits nothing.
        let _ = futures_util::FutureExt::now_or_never(self.close());
    }
}

struct Endpoints;

impl testing::Factory for Endpoints {
    type Endpoint = Endpoint;

    async fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::new(&MemoryStore::new()).await;
        endpoint.expect("a store in memory keeps a device")
    }
}

async fn open() -> Result<Peer, leno::Error> {
    let store = MemoryStore::new();
    let endpoint = Endpoint::new(&store).await?;
    let builder = Peer::builder().store(store).transport(endpoint);
    builder.start().await
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Panics with the clause that is broken.
    testing::check_all(&Endpoints).await;

    let (alice, bob) = (open().await?, open().await?);
    let thread = alice.create_thread("band").await?;
    let colour = Ipld::Map([("colour".to_owned(), Ipld::from("green"))].into());
    let id = thread.collection("things").insert(&colour).await?;
    let joined = bob
        .join(&thread.grant(&bob.card("Bob").await?, Role::Reader).await?)
        .await?;
    bob.sync_once(Duration::from_secs(5)).await?;
    assert_eq!(joined.collection("things").get(&id).await?, Some(colour));
    alice.close().await?;
    println!("The transport keeps the contract, and two peers sync over it.");
    Ok(bob.close().await?)
}

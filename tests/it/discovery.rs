//! Who is found by looking around.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leno::store::MemoryStore;
use leno::transport::memory::MemoryTransport;
use leno::transport::{Event as NetEvent, LinkId, Transport, TransportError};
use leno::{Address, Event, PeerId, Role};

use crate::support::{join, run};

/// A transport that says at first whom it found, and notes who is dialled.
struct Around {
    inner: MemoryTransport,
    found: Mutex<Vec<NetEvent>>,
    dialled: Arc<Mutex<Vec<Address>>>,
}

#[async_trait]
impl Transport for Around {
    fn local(&self) -> PeerId {
        self.inner.local()
    }

    fn addresses(&self) -> Vec<Address> {
        self.inner.addresses()
    }

    fn peer_of(&self, address: &Address) -> Option<PeerId> {
        self.inner.peer_of(address)
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        self.dialled.lock().unwrap().push(address.clone());
        self.inner.dial(address).await
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        self.inner.send(link, message).await
    }

    async fn next(&self) -> Option<NetEvent> {
        let found = self.found.lock().unwrap().pop();
        match found {
            Some(found) => Some(found),
            None => self.inner.next().await,
        }
    }

    async fn hang_up(&self, peer: PeerId) {
        self.inner.hang_up(peer).await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[test]
fn known_peers_are_dialled_where_they_are_found_and_others_are_told_of() {
    run(async |world| {
        let (alice, carol) = (world.fresh().await, world.fresh().await);
        // Bob knows Alice by a ticket of hers.
        let store = MemoryStore::new();
        let bob = world.online(store.clone()).await;
        let band = alice.create_thread("band").await.unwrap();
        join(&band, &bob.peer, Role::Reader).await;
        bob.peer.close().await.unwrap();

        let device = leno::Peer::device(&store).await.unwrap();
        let id = PeerId(device.verifying_key().to_bytes());
        let elsewhere: Address = "elsewhere".parse().unwrap();
        let stranger = carol.addresses().remove(0);
        let dialled = Arc::<Mutex<Vec<Address>>>::default();
        let found = |peer, address: &Address| NetEvent::Discovered {
            peer,
            address: address.clone(),
        };
        world.network.partition(alice.id(), id);
        let around = Around {
            inner: world.network.endpoint(id),
            found: Mutex::new(vec![
                found(carol.id(), &stranger),
                found(alice.id(), &elsewhere),
            ]),
            dialled: dialled.clone(),
        };
        let builder = world.builder(store).transport(around);
        let bob = world.start(builder).await.unwrap().peer;
        let mut events = bob.events().await.unwrap();
        loop {
            if let Some(Event::Discovered { peer, address }) = events.next().await {
                assert_eq!((peer, address), (carol.id(), stranger.clone()));
                break;
            }
        }
        // A command is answered in a step, after which everything due was dialled.
        bob.traffic().await.unwrap();
        bob.traffic().await.unwrap();
        let dialled = dialled.lock().unwrap().clone();
        assert!(dialled.contains(&elsewhere), "{dialled:?}");
        assert!(!dialled.contains(&stranger), "{dialled:?}");
    });
}

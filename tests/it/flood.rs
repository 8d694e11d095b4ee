//! One hostile peer beside an honest one: how much of what a peer handles is whose.
//!
//! Counted is what a peer takes from its network: of each message its bytes, at least 4 KiB, which is
//! about what looking at it costs. While an honest peer has something to say, at least half of what is
//! handled must be its own.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::{Either, select};
use leno::store::MemoryStore;
use leno::transport::memory::MemoryTransport;
use leno::transport::{Address, Event as NetEvent, LinkId, Transport, TransportError};
use leno::{Event, Peer, PeerId, Role};
use leno_threads_core::sync::Message;

use crate::support::{Pair, Song, World, connect, id, join, level, run, song};

/// What looking at a message costs at least, in bytes.
const MESSAGE_COST: usize = 4 << 10;

/// Songs that Alice writes, and how long each is.
const SONGS: usize = 80;
const SONG_BYTES: usize = 200_000;

/// What went over an endpoint.
#[derive(Debug, Default)]
struct Tally {
    /// What was taken from each peer, message by message, in order.
    taken: Vec<(PeerId, usize)>,
    /// Bytes that left for each peer, with what a message costs its queue.
    sent: BTreeMap<PeerId, usize>,
    links: BTreeMap<PeerId, LinkId>,
    /// The newest vector that was sent.
    vector: Option<Vec<u8>>,
    /// Whether nothing is taken any more.
    is_deaf: bool,
    /// Whether messages are taken and thrown away.
    is_careless: bool,
}

/// An endpoint that others look over the shoulder of. Clones are the same one.
#[derive(Clone, Debug)]
struct Watched {
    inner: Arc<MemoryTransport>,
    tally: Arc<Mutex<Tally>>,
}

#[async_trait]
impl Transport for Watched {
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
        self.inner.dial(address).await
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        let length = message.len();
        if let Ok(Message::Have { .. }) = Message::decode(&message) {
            self.tally.lock().unwrap().vector = Some(message.clone());
        }
        self.inner.send(link, message).await?;
        let mut tally = self.tally.lock().unwrap();
        let to = tally.links.iter().find(|(_, it)| **it == link);
        if let Some(to) = to.map(|(peer, _)| *peer) {
            *tally.sent.entry(to).or_default() += length;
        }
        Ok(())
    }

    async fn next(&self) -> Option<NetEvent> {
        if self.tally.lock().unwrap().is_deaf {
            std::future::pending::<()>().await;
        }
        loop {
            let event = self.inner.next().await;
            let mut tally = self.tally.lock().unwrap();
            match &event {
                Some(NetEvent::Connected { peer, link }) => {
                    tally.links.insert(*peer, *link);
                }
                Some(NetEvent::Message { .. }) if tally.is_careless => continue,
                Some(NetEvent::Message { from, bytes, .. }) => {
                    tally.taken.push((*from, bytes.len().max(MESSAGE_COST)));
                }
                _ => {}
            }
            return event;
        }
    }

    async fn hang_up(&self, peer: PeerId) {
        self.inner.hang_up(peer).await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl Watched {
    async fn peer(world: &World) -> (Peer, Self) {
        let store = MemoryStore::new();
        // The device is drawn by the first start.
        let (peer, driver) = world.builder(store.clone()).build().await.unwrap();
        let endpoint = Self {
            inner: Arc::new(world.network.endpoint(peer.id())),
            tally: Arc::default(),
        };
        drop((peer, driver));
        let builder = world.builder(store).transport(endpoint.clone());
        (world.start(builder).await.unwrap().peer, endpoint)
    }
}

/// Alice and Bob, and Mallory, who is a member too. Bob's and Mallory's endpoints are watched.
struct Trio {
    pair: Pair,
    mallory: Peer,
    bobs: Watched,
    mallorys: Watched,
}

impl Trio {
    async fn new(world: &World) -> Self {
        let (bob, bobs) = Watched::peer(world).await;
        let (mallory, mallorys) = Watched::peer(world).await;
        let pair = Pair::of(world.fresh().await, bob, Role::Writer).await;
        join(&pair.alices, &mallory, Role::Writer).await;
        level(&mallory).await;
        connect(&mallory, &pair.bob).await;
        level(&mallory).await;
        level(&pair.bob).await;
        Self {
            pair,
            mallory,
            bobs,
            mallorys,
        }
    }

    /// Has Alice write while nobody is there.
    async fn write_apart(&self) {
        self.pair.alice.pause().await.unwrap();
        let songs = self.pair.alices.collection("songs");
        for number in 0..SONGS {
            let title = format!("{number:010}").repeat(SONG_BYTES / 10);
            songs
                .put(&id(&number.to_string()), &song(&title))
                .await
                .unwrap();
        }
    }

    /// Alice comes back and brings Bob what she wrote.
    async fn bring(&self) {
        self.pair.alice.resume().await.unwrap();
        connect(&self.pair.alice, &self.pair.bob).await;
        level(&self.pair.alice).await;
        let songs = self.pair.bobs.collection::<Song>("songs");
        let last = id(&(SONGS - 1).to_string());
        assert!(songs.get(&last).await.unwrap().is_some());
    }

    /// The costs of what Bob handled of Alice and of Mallory, from one of Alice's messages with songs on
    /// to her last: before and after, both wait for what the other says.
    fn costs(&self, since: usize, message: usize) -> (usize, usize) {
        let tally = self.bobs.tally.lock().unwrap();
        let taken = tally.taken.get(since..).unwrap();
        let is_alices = |(from, _): &(PeerId, usize)| *from == self.pair.alice.id();
        let has_songs = |it: &(PeerId, usize)| is_alices(it) && it.1 > SONG_BYTES;
        let mut songs = taken.iter().enumerate().filter(|(_, it)| has_songs(it));
        let (first, _) = songs.nth(message).unwrap();
        let last = taken.iter().rposition(has_songs).unwrap();
        let (mut alices, mut mallorys) = (0, 0);
        for it in taken.iter().take(last + 1).skip(first) {
            match is_alices(it) {
                true => alices += it.1,
                false => mallorys += it.1,
            }
        }
        (alices, mallorys)
    }

    fn taken(&self) -> usize {
        self.bobs.tally.lock().unwrap().taken.len()
    }
}

/// A genesis of a thread that is known already: as long as a message may be, and nobody's mistake.
fn long_genesis() -> Vec<u8> {
    let genesis = vec![0; 1 << 20];
    let (thread, genesis) = (0, genesis.as_slice());
    Message::Genesis { thread, genesis }.encode()
}

#[test]
fn flood_leaves_half_to_who_is_honest() {
    for is_long in [false, true] {
        run(async move |world| {
            let trio = Trio::new(&world).await;
            trio.write_apart().await;
            let (link, vector) = {
                let mut tally = trio.mallorys.tally.lock().unwrap();
                tally.is_careless = true;
                let link = tally.links[&trio.pair.bob.id()];
                (link, tally.vector.clone().unwrap())
            };
            let message = if is_long { long_genesis() } else { vector };
            let since = trio.taken();
            let flood = async {
                loop {
                    trio.mallorys.send(link, message.clone()).await.unwrap();
                }
            };
            let (flood, honest) = (pin!(flood), pin!(trio.bring()));
            let ended: Either<(std::convert::Infallible, _), _> = select(flood, honest).await;
            assert!(matches!(ended, Either::Right(_)));
            // At first Alice waits for Bob's looks, flood or not: four times, while more and more may be
            // under way.
            let (alices, mallorys) = trio.costs(since, 0);
            assert!(alices > SONGS * SONG_BYTES);
            assert!(mallorys <= alices + (8 << 20), "{alices}, {mallorys}");
            let (alices, mallorys) = trio.costs(since, 4);
            println!(
                "flood of {} B: Bob handled {alices} of Alice, {mallorys} of Mallory",
                message.len()
            );
            assert!(alices > SONGS * SONG_BYTES / 2);
            assert!(mallorys > 1 << 20, "there was a flood: {mallorys}");
            assert!(mallorys <= alices, "{alices} of Alice, {mallorys}");
        });
    }
}

/// Mallory takes nothing any more. What waits for her is bounded, Alice and Bob go on, and she is cut
/// off.
#[test]
fn who_never_reads_holds_nobody_back_and_is_cut_off() {
    run(async |world| {
        let trio = Trio::new(&world).await;
        let mallory = trio.mallory.id();
        let mut events = trio.pair.bob.events().await.unwrap();
        // More than may be under way before she looked at any of it.
        let (_, bobs) = trio.pair.songs();
        for number in 0..10 {
            let title = format!("{number:010}").repeat(SONG_BYTES / 10);
            let key = id(&format!("early {number}"));
            bobs.put(&key, &song(&title)).await.unwrap();
        }
        level(&trio.pair.bob).await;
        trio.mallorys.tally.lock().unwrap().is_deaf = true;
        let sent = |bobs: &Watched| {
            let tally = bobs.tally.lock().unwrap();
            tally.sent.get(&mallory).copied().unwrap_or_default()
        };
        let before = sent(&trio.bobs);
        trio.write_apart().await;
        trio.bring().await;
        // Of 16 MB only what fits into the queue of the link left, and one message.
        let after = sent(&trio.bobs) - before;
        assert!(after > 1 << 20, "Bob tried to hand it on: {after}");
        assert!(after <= 6 << 20, "{after}");
        let late = async {
            world.network.advance(31_000);
            loop {
                if let Event::Disconnected { peer, .. } = events.next().await.unwrap()
                    && peer == mallory
                {
                    return;
                }
            }
        };
        late.await;
        let (alices, bobs) = trio.pair.songs();
        alices.put(&id("after"), &song("it")).await.unwrap();
        level(&trio.pair.alice).await;
        assert!(bobs.get(&id("after")).await.unwrap().is_some());
    });
}

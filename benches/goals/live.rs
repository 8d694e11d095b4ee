//! Goal 6: from a write at one peer to its visibility at another, over libp2p on loopback.

use std::path::Path;
use std::time::Duration;

use leno::store::MemoryStore;
use leno::{Builder, Change, Collection, Ipld, Padding, Peer, Role};
use leno_benches::Outcome;
use leno_benches::event::{COLLECTION, Events};
use leno_benches::measure::{Samples, now};
use leno_benches::report::{Goal, Line, Report, Unit, shown};
use leno_store_redb::Redb;
use leno_transport_libp2p::{Builder as Libp2pBuilder, Libp2p};
use leno_transport_trait::{Event as NetEvent, LinkId, Transport as _};

use crate::disk::pairs;
use crate::floor::{self, Disk};
use crate::stock::Stock;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Writes in turn with round trips, so that both meet the same machine.
const ROUNDS: usize = 20;
const PER_ROUND: usize = 50;

/// Everything on loopback is level long before this.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn run(folder: &Path, report: &mut Report) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for (name, address) in [("TCP", TCP), ("QUIC", QUIC)] {
            over(name, address, folder, report).await?;
        }
        let [sign, verify] = [floor::sign()?, floor::verify()?].map(|it| shown(it, Unit::Seconds));
        report.note(format!(
            "6: a live write is signed once ({sign}) and checked once ({verify}); a round trip is not"
        ));
        Ok(())
    })
}

async fn over(name: &str, address: &str, folder: &Path, report: &mut Report) -> Outcome {
    let memory = || Ok(Peer::builder().store(MemoryStore::new()));
    let mut in_memory = Live::new(address, memory).await?;
    let folders = [tempfile::tempdir_in(folder)?, tempfile::tempdir_in(folder)?];
    let mut stores = folders.iter();
    let on_disk = || {
        let folder = stores.next().ok_or("there are two peers")?.path();
        Ok(Peer::builder().store(Redb::open(folder.join("leno.redb"))?))
    };
    let mut on_disk = Live::new(address, on_disk).await?;
    let bytes = in_memory.message_bytes().await?;
    let raw = Raw::new(address).await?;
    let mut disk = Disk::new(folder)?;
    let mut stock = Stock::new(address).await?;
    let (mut trips, mut stock_trips) = (Samples::default(), Samples::default());
    let mut syncs = Samples::default();
    let (mut memory, mut durable) = (Samples::default(), Samples::default());
    raw.round_trips(bytes).await?;
    stock.round_trips(bytes, PER_ROUND).await?;
    for _ in 0..ROUNDS {
        trips.extend(raw.round_trips(bytes).await?);
        stock_trips.extend(stock.round_trips(bytes, PER_ROUND).await?);
        memory.extend(in_memory.writes().await?);
        let times: Outcome<Vec<_>> = (0..PER_ROUND).map(|_| disk.sync()).collect();
        syncs.extend(times?);
        durable.extend(on_disk.writes().await?);
    }
    // The goal is about a raw libp2p round trip, which is libp2p's own way to ask and be answered. Our
    // transport keeps one stream open, and so sets a floor of its own that is lower.
    for (part, percentile, times) in [(0.5, "p50", 1.0), (0.99, "p99", 1.5)] {
        let disk = 2.0 * syncs.at(part);
        let and_disk = format!(" + 2 syncs of {}", shown(syncs.at(part), Unit::Seconds));
        let stores = [
            ("in memory", memory.at(part), 0.0, ""),
            ("redb", durable.at(part), disk, and_disk.as_str()),
        ];
        for (store, ours, disk, and_disk) in stores {
            let (stock, own) = (stock_trips.at(part) + disk, trips.at(part) + disk);
            report.add(
                Line::new(
                    format!("6  live write to visible, {name}, {store}, {percentile}"),
                    Unit::Seconds,
                    Goal::AtMost(times * stock),
                    ours,
                )
                .floor(format!("request_response, {bytes} B{and_disk}"), stock),
            );
            report.add(
                Line::new(
                    format!("6    the same, {name}, {store}, {percentile}, strict floor"),
                    Unit::Seconds,
                    Goal::None,
                    ours,
                )
                .floor(format!("open stream, {bytes} B{and_disk}"), own),
            );
        }
    }
    in_memory.close().await?;
    on_disk.close().await
}

/// Two connected peers, of whom the second watches what the first writes.
struct Live {
    alice: Peer,
    bob: Peer,
    documents: Collection<Ipld>,
    watch: leno::Watch<Ipld>,
    events: Events,
}

impl Live {
    async fn new(address: &str, mut builder: impl FnMut() -> Outcome<Builder>) -> Outcome<Self> {
        let (alice, bob) = (builder()?, builder()?);
        let alice = alice
            .padding(Padding::Off)
            .listen([address])
            .start()
            .await?;
        let bob = bob.padding(Padding::Off).listen([address]).start().await?;
        let thread = alice.create_thread("benches").await?;
        let documents: Collection<Ipld> = thread.collection(COLLECTION);
        let mut events = Events::new(6)?;
        documents.put_all(pairs(events.creates())).await?;
        let ticket = thread.grant(&bob.card("Bob").await?, Role::Reader).await?;
        let bobs = bob.join(&ticket).await?;
        let here = alice.addresses().into_iter().next();
        bob.connect(&here.ok_or("the peer listens nowhere")?)
            .await?;
        let report = bob.sync_once(DEADLINE).await?;
        if !report.is_complete() {
            return Err(format!("not level in time: {report:?}").into());
        }
        let watch = bobs.collection::<Ipld>(COLLECTION).watch().await?;
        let mut live = Self {
            alice,
            bob,
            documents,
            watch,
            events,
        };
        live.writes().await?;
        Ok(live)
    }

    /// Times from just before a write to its visibility at the other peer.
    async fn writes(&mut self) -> Outcome<Vec<Duration>> {
        let mut times = Vec::with_capacity(PER_ROUND);
        for event in self.events.patches(PER_ROUND) {
            let begun = now();
            self.documents.patch(&event.document, &event.fields).await?;
            loop {
                let change = self.watch.next().await.ok_or("the watch ended")??;
                let is_it = |id: &leno::DocumentId, after: &Ipld| {
                    *id == event.document && *after == event.fields
                };
                if matches!(change, Change::Put { id, after, .. } if is_it(&id, &after)) {
                    break;
                }
            }
            times.push(begun.elapsed());
        }
        Ok(times)
    }

    /// Bytes of the message that a write becomes.
    async fn message_bytes(&mut self) -> Outcome<usize> {
        let before = self.alice.traffic().await?.sent;
        self.writes().await?;
        let sent = self.alice.traffic().await?.sent - before;
        Ok(usize::try_from(sent)? / PER_ROUND)
    }

    async fn close(self) -> Outcome {
        self.alice.close().await?;
        Ok(self.bob.close().await?)
    }
}

/// Two endpoints with nothing above them, of which the second sends back what it gets.
struct Raw {
    alice: Libp2p,
    link: LinkId,
    echo: tokio::task::JoinHandle<()>,
}

impl Raw {
    async fn new(address: &str) -> Outcome<Self> {
        let builder = |seed| Libp2pBuilder::new([seed; 32]).listen_on([address]);
        let alice = Libp2p::listen(builder(1)).await?;
        let bob = Libp2p::listen(builder(2)).await?;
        let there = bob.addresses().into_iter().next();
        let echo = tokio::spawn(async move {
            while let Some(event) = bob.next().await {
                if let NetEvent::Message { link, bytes, .. } = event
                    && bob.send(link, bytes).await.is_err()
                {
                    return;
                }
            }
        });
        alice
            .dial(&there.ok_or("the endpoint listens nowhere")?)
            .await?;
        let Some(NetEvent::Connected { link, .. }) = alice.next().await else {
            return Err("the endpoint was dialled and has no link".into());
        };
        Ok(Self { alice, link, echo })
    }

    async fn round_trips(&self, bytes: usize) -> Outcome<Vec<Duration>> {
        let mut times = Vec::with_capacity(PER_ROUND);
        for _ in 0..PER_ROUND {
            let begun = now();
            self.alice.send(self.link, vec![7; bytes]).await?;
            loop {
                match self.alice.next().await.ok_or("the endpoint is closed")? {
                    NetEvent::Message { .. } => break,
                    NetEvent::Connected { .. }
                    | NetEvent::Disconnected { .. }
                    | NetEvent::Discovered { .. } => {}
                }
            }
            times.push(begun.elapsed());
        }
        Ok(times)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.echo.abort();
    }
}

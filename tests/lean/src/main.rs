//! Two peers on memory stores, an in-memory network and a clock that stands, all on one executor.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join3;
use leno::store::MemoryStore;
use leno::transport::memory::{Conditions, MemoryNetwork};
use leno::{Change, DocumentId, Driver, Error, Ipld, ManualClock, Peer, PeerId, Role};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    futures_executor::block_on(run())
}

async fn run() -> Outcome {
    let network = MemoryNetwork::new(1, Conditions::default());
    let clock = ManualClock::new(1_800_000_000_000);
    let (alice, alices_driver) = build(&network, &clock).await?;
    let (bob, bobs_driver) = build(&network, &clock).await?;
    let app = async { Ok(app(&alice, &bob).await) };
    let (_, _, outcome) = try_join3(alices_driver.run(), bobs_driver.run(), app).await?;
    outcome
}

async fn build(network: &MemoryNetwork, clock: &ManualClock) -> Result<(Peer, Driver), Error> {
    let store = MemoryStore::new();
    // A transport is bound to the key of the store's device.
    let device = Peer::device(&store).await?;
    let id = PeerId(device.verifying_key().to_bytes());
    Peer::builder()
        .store(store)
        .transport(network.endpoint(id))
        .clock(clock.clone())
        .build()
        .await
}

async fn app(alice: &Peer, bob: &Peer) -> Outcome {
    let outcome = share(alice, bob).await;
    // The drivers, and so the program, end whatever happened.
    alice.close().await?;
    bob.close().await?;
    outcome
}

async fn share(alice: &Peer, bob: &Peer) -> Outcome {
    let band = alice.create_thread("band").await?;
    let songs = band.collection::<Ipld>("songs");
    let id = DocumentId::natural("psalm-1")?;
    songs.put(&id, &titled("Psalm 1")).await?;

    let ticket = band.grant(&bob.card("Bob").await?, Role::Writer).await?;
    let bobs_band = bob.join(&ticket).await?;
    // The clock stands, so this ends when both are level, or never.
    let report = bob.sync_once(Duration::from_secs(1)).await?;
    check("Bob is level", report.is_complete())?;
    let bobs = bobs_band.collection::<Ipld>("songs");
    check("Bob reads", bobs.get(&id).await? == Some(titled("Psalm 1")))?;

    let mut live = songs.watch().await?;
    bobs.put(&id, &titled("The blessed man")).await?;
    let Some(Ok(Change::Put { before, after, .. })) = live.next().await else {
        return Err("Alice saw no change".into());
    };
    check("Alice sees what was", before == Some(titled("Psalm 1")))?;
    check("Alice sees what is", after == titled("The blessed man"))?;
    let equal = band.state_hash().await? == bobs_band.state_hash().await?;
    check("the states are equal", equal)
}

fn titled(title: &str) -> Ipld {
    Ipld::Map(BTreeMap::from([("title".to_owned(), Ipld::from(title))]))
}

fn check(what: &str, holds: bool) -> Outcome {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("  ok  {what}");
    Ok(())
}

//! Two peers in folders, over libp2p on loopback; and one as the README opens it, twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leno::{Change, DocumentId, Ipld, Peer, Role};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Everything on loopback is level long before this.
const DEADLINE: Duration = Duration::from_secs(10);

/// A folder that is gone when this is.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("leno-full-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let folder = Folder::make()?;
    reopen(&folder.0.join("defaults")).await?;
    let alice = open(&folder.0.join("alice"), "/ip4/127.0.0.1/tcp/0").await?;
    let bob = open(&folder.0.join("bob"), "/ip4/127.0.0.1/tcp/0").await?;

    let band = alice.create_thread("band").await?;
    let songs = band.collection::<Ipld>("songs");
    let id = DocumentId::natural("psalm-1")?;
    songs.put(&id, &titled("Psalm 1")).await?;

    // Cards and tickets are text.
    let card = bob.card("Bob").await?.to_string();
    let ticket = band.grant(&card.parse()?, Role::Writer).await?.to_string();
    let bobs_band = bob.join(&ticket.parse()?).await?;
    let report = bob.sync_once(DEADLINE).await?;
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
    check("the states are equal", equal)?;

    bob.close().await?;
    let bob = open(&folder.0.join("bob"), "/ip4/127.0.0.1/tcp/0").await?;
    let bobs_band = bob.thread(band.id()).await?;
    let equal = band.state_hash().await? == bobs_band.state_hash().await?;
    check("the state outlives the peer", equal)?;
    bob.close().await?;
    Ok(alice.close().await?)
}

/// `Peer::open`, the one line, finds the same peer and the same data when called again.
async fn reopen(folder: &Path) -> Outcome {
    let peer = Peer::open(folder).await?;
    let (id, identity) = (peer.id(), peer.identity());
    let listens = |network: &str| {
        let addresses = peer.addresses();
        addresses.iter().any(|it| it.as_str().contains(network))
    };
    check("it listens on TCP", listens("/tcp/"))?;
    check("it listens on QUIC", listens("/quic-v1/"))?;
    let taken = Peer::open(folder).await;
    check("an open folder is not opened twice", taken.is_err())?;

    let band = peer.create_thread("band").await?;
    let songs = band.collection::<Ipld>("songs");
    let made = songs.insert(&titled("Psalm 1")).await?;
    let hash = band.state_hash().await?;
    peer.close().await?;

    let peer = Peer::open(folder).await?;
    check("it is the same device", peer.id() == id)?;
    check("it is the same identity", peer.identity() == identity)?;
    let band = peer.thread(band.id()).await?;
    check(
        "it has the same name",
        band.status().await?.name.as_deref() == Some("band"),
    )?;
    check("it has the same state", band.state_hash().await? == hash)?;
    let songs = band.collection::<Ipld>("songs");
    let read = songs.get(&made).await?;
    check("the document reads", read == Some(titled("Psalm 1")))?;
    let more = songs.insert(&titled("Psalm 2")).await?;
    check(
        "it writes on",
        songs.get(&more).await? == Some(titled("Psalm 2")),
    )?;
    Ok(peer.close().await?)
}

async fn open(folder: &Path, listen: &str) -> Outcome<Peer> {
    Ok(Peer::folder(folder)?.listen([listen]).start().await?)
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

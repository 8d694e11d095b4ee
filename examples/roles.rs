//! A song database: editors write, readers read, and everybody else sees nothing. An editor is removed while
//! offline, writes on, and is let in again. Four peers, real connections.
//!
//! ```sh
//! cargo run --example roles
//! ```
//!
//! Exits with an error if anything does not hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use leno::governance::{FrameOp, Quarantine, Verdict};
use leno::{Collection, Error, Peer, Role, Thread};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Song = BTreeMap<String, String>;

/// Everything on loopback is level long before this.
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
pub(crate) async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let olga = open(folder.path(), "olga").await?;
    let ed = open(folder.path(), "ed").await?;
    let rita = open(folder.path(), "rita").await?;
    let stan = open(folder.path(), "stan").await?;

    // Olga owns the database. Ed edits, Rita reads. Stan has no role: all that he gets is the thread's id.
    let thread = olga.create_thread("songs").await?;
    let card = ed.card("Ed").await?;
    let eds_thread = ed.join(&thread.grant(&card, Role::Writer).await?).await?;
    let ritas_card = rita.card("Rita").await?;
    let ritas_thread = rita
        .join(&thread.grant(&ritas_card, Role::Reader).await?)
        .await?;
    for peer in [&ed, &rita, &stan] {
        connect(peer, &olga).await?;
    }
    level(&[&ed, &rita]).await?;
    songs(&eds_thread).insert(&song("Psalm 96")).await?;
    level(&[&ed, &olga, &rita]).await?;
    check(
        "Rita reads what Ed wrote",
        titles(&ritas_thread).await? == ["Psalm 96"],
    )?;
    let refused = songs(&ritas_thread).insert(&song("Psalm 1")).await;
    check(
        "Rita writes nothing",
        matches!(refused, Err(Error::Append(_))),
    )?;
    check("Rita gives nobody a role", {
        let refused = ritas_thread.set_role(card.seat(), Role::Reader).await;
        matches!(refused, Err(Error::MayNotGrant))
    })?;
    let stans = stan.thread(thread.id()).await;
    check(
        "Stan sees nothing",
        matches!(stans, Err(Error::NoSuchThread(_))),
    )?;

    // Ed is offline and writes. Olga, who has not seen it, asks what removing him would do, and does it.
    ed.pause().await?;
    songs(&eds_thread).insert(&song("Not for long")).await?;
    let remove = FrameOp::Remove(leno::governance::RemoveOp {
        member: card.seat(),
        accepts: Vec::new(),
    });
    let explained = thread.explain(vec![remove]).await?;
    check(
        "a removal would end Ed's role and no other",
        explained.roles == [(card.seat(), Some(Role::Writer), None)],
    )?;
    thread.remove(card.seat()).await?;
    songs(&thread)
        .insert(&song("For those who are left"))
        .await?;
    ed.resume().await?;
    connect(&ed, &olga).await?;
    level(&[&rita]).await?;
    ed.sync_once(DEADLINE).await?;
    let left = ["For those who are left", "Psalm 96"];
    check(
        "what Ed wrote before stands",
        titles(&ritas_thread).await? == left,
    )?;
    check(
        "Ed learns that he was removed",
        eds_thread.status().await?.removed,
    )?;
    let refused = songs(&eds_thread).insert(&song("Still here")).await;
    check("Ed writes no more", refused.is_err())?;

    // Let in again, he goes on. What he wrote meanwhile comes along and is put aside: that is for Olga to say.
    let again = thread.grant(&card, Role::Writer).await?;
    drop(again);
    ed.sync_once(DEADLINE).await?;
    level(&[&ed, &olga, &rita]).await?;
    songs(&eds_thread).insert(&song("Here again")).await?;
    level(&[&ed, &olga, &rita]).await?;
    let now = ["For those who are left", "Here again", "Psalm 96"];
    check("Ed is back", titles(&ritas_thread).await? == now)?;
    let aside = thread.quarantined().await?;
    let fenced = aside.iter().find(|it| it.1 == Quarantine::Fenced);
    let (record, _) = fenced.ok_or("what he wrote meanwhile is listed")?;
    thread.readmit(*record).await?;
    level(&[&ed, &olga, &rita]).await?;
    let all = [
        "For those who are left",
        "Here again",
        "Not for long",
        "Psalm 96",
    ];
    check("readmitted", titles(&ritas_thread).await? == all)?;
    let ops = thread.audit().await?;
    let stand = ops.iter().all(|it| it.verdict == Verdict::Stands);
    check("every op of governance stands", stand)?;
    let hashes = [
        thread.state_hash().await?,
        eds_thread.state_hash().await?,
        ritas_thread.state_hash().await?,
    ];
    check(
        "all show the same",
        hashes.iter().all(|it| *it == hashes[0]),
    )?;
    for peer in [olga, ed, rita, stan] {
        peer.close().await?;
    }
    Ok(())
}

fn song(title: &str) -> Song {
    BTreeMap::from([("title".to_owned(), title.to_owned())])
}

fn songs(thread: &Thread) -> Collection<Song> {
    thread.collection("songs")
}

async fn titles(thread: &Thread) -> Outcome<Vec<String>> {
    let all = songs(thread).list(None, 100).await?;
    let mut titles: Vec<String> = all
        .into_iter()
        .filter_map(|(_, mut song)| song.remove("title"))
        .collect();
    titles.sort();
    Ok(titles)
}

fn check(what: &str, holds: bool) -> Outcome {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("  ok  {what}");
    Ok(())
}

async fn open(folder: &Path, name: &str) -> Outcome<Peer> {
    let listen = ["/ip4/127.0.0.1/tcp/0"];
    Ok(Peer::folder(folder.join(name))?
        .listen(listen)
        .start()
        .await?)
}

async fn connect(from: &Peer, to: &Peer) -> Outcome {
    let address = to.addresses().into_iter().next().ok_or("no address")?;
    from.connect(&address).await?;
    Ok(())
}

async fn level(peers: &[&Peer]) -> Outcome {
    for peer in peers {
        let report = peer.sync_once(DEADLINE).await?;
        if !report.is_complete() {
            return Err(format!("not level in time: {report:?}").into());
        }
    }
    Ok(())
}

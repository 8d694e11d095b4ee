//! Goal 3: writing to disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leno::{Collection, Ipld, Padding};
use leno_benches::Outcome;
use leno_benches::event::{COLLECTION, Event, Events};
use leno_benches::measure::{Samples, now, timed};
use leno_benches::replica::Peer;
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_store_redb::Redb;
use redb::{Database, Durability, TableDefinition};

use crate::floor::Disk;

const GROUP: usize = 1_000;
const EVENTS: usize = 100_000;
const SAMPLES: usize = 3;

/// Durable writes in turn with the floor's, so that both meet the same disk.
const ROUNDS: usize = 40;
const WRITES_PER_ROUND: usize = 50;

/// Callers that write at once.
const CALLERS: usize = 16;

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

pub(crate) fn run(folder: &Path, report: &mut Report) -> Outcome {
    let raw = Samples::take(SAMPLES, || raw_redb(folder))?;
    let raw = EVENTS as f64 / raw.best();
    let ours = Samples::take(SAMPLES, || groups(folder))?;
    report.add(
        Line::new(
            "3a append to disk, core + db, commits of 1,000",
            Unit::PerSecond,
            Goal::AtLeast(300_000.0),
            EVENTS as f64 / ours.best(),
        )
        .floor("raw redb, rows of 150 B", raw),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let facade = Samples::take(SAMPLES, || runtime.block_on(facade_groups(folder)))?;
    report.add(
        Line::new(
            "3a   the same through the facade, put_all of 1,000",
            Unit::PerSecond,
            Goal::None,
            EVENTS as f64 / facade.best(),
        )
        .floor("raw redb, rows of 150 B", raw),
    );
    runtime.block_on(single(folder, report))
}

fn fresh(folder: &Path) -> Outcome<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(folder)?)
}

/// Rows in the order of their keys, in durable commits of a group each.
fn raw_redb(folder: &Path) -> Outcome<Duration> {
    let folder = fresh(folder)?;
    let database = Database::create(folder.path().join("raw.redb"))?;
    let (time, ()) = timed(|| {
        for group in 0..EVENTS / GROUP {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut rows = transaction.open_table(ROWS)?;
                for at in 0..GROUP {
                    let key = (group * GROUP + at).to_be_bytes();
                    rows.insert(key.as_slice(), [7; 150].as_slice())?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    })?;
    Ok(time)
}

fn groups(folder: &Path) -> Outcome<Duration> {
    let folder = fresh(folder)?;
    let store = Redb::open(folder.path().join("leno.redb"))?;
    let mut peer = Peer::create(1, Arc::new(store))?;
    let mut events = Events::new(1)?;
    peer.write_all(&events.creates(), 1, true)?;
    peer.commit()?;
    let mut time = Duration::ZERO;
    for _ in 0..EVENTS / GROUP {
        // Made just before, as an app does: not all of them cold in memory.
        let group = events.patches(GROUP);
        let (took, ()) = timed(|| {
            peer.write_all(&group, 1, false)?;
            peer.commit()
        })?;
        time += took;
    }
    Ok(time)
}

/// A peer of the facade in a folder, without network and padding, with all documents created.
pub(crate) async fn facade(folder: &Path) -> Outcome<(leno::Peer, Collection<Ipld>, Events)> {
    let store = Redb::open(folder.join("leno.redb"))?;
    let builder = leno::Peer::builder().store(store).padding(Padding::Off);
    let peer = builder.start().await?;
    let thread = peer.create_thread("benches").await?;
    let documents: Collection<Ipld> = thread.collection(COLLECTION);
    let mut events = Events::new(1)?;
    documents.put_all(pairs(events.creates())).await?;
    Ok((peer, documents, events))
}

pub(crate) fn pairs(events: Vec<Event>) -> Vec<(leno::DocumentId, Ipld)> {
    let pairs = events.into_iter().map(|it| (it.document, it.fields));
    pairs.collect()
}

async fn facade_groups(folder: &Path) -> Outcome<Duration> {
    let folder = fresh(folder)?;
    let (peer, documents, mut events) = facade(folder.path()).await?;
    let mut time = Duration::ZERO;
    for _ in 0..EVENTS / GROUP {
        let group = pairs(events.patches(GROUP));
        let begun = now();
        documents.put_all(group).await?;
        time += begun.elapsed();
    }
    peer.close().await?;
    Ok(time)
}

async fn single(folder: &Path, report: &mut Report) -> Outcome {
    let folder = fresh(folder)?;
    let mut disk = Disk::new(folder.path())?;
    let raw = Database::create(folder.path().join("raw.redb"))?;
    let core_folder = fresh(folder.path())?;
    let store = Redb::open(core_folder.path().join("leno.redb"))?;
    let mut core = Peer::create(1, Arc::new(store))?;
    core.write_all(&Events::new(1)?.creates(), 1, true)?;
    core.commit()?;
    let (peer, documents, mut events) = facade(folder.path()).await?;
    let (mut floor, mut raws) = (Samples::default(), Samples::default());
    let (mut cores, mut facades) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let patches = events.patches(WRITES_PER_ROUND);
        let times: Outcome<Vec<_>> = (0..WRITES_PER_ROUND).map(|_| disk.sync()).collect();
        floor.extend(times?);
        for at in 0..WRITES_PER_ROUND {
            let (time, ()) = timed(|| {
                let mut transaction = raw.begin_write()?;
                transaction.set_durability(Durability::Immediate)?;
                let key = (round * WRITES_PER_ROUND + at).to_be_bytes();
                let mut rows = transaction.open_table(ROWS)?;
                rows.insert(key.as_slice(), [7; 150].as_slice())?;
                drop(rows);
                Ok(transaction.commit()?)
            })?;
            raws.extend([time]);
        }
        for event in &patches {
            let (time, ()) = timed(|| {
                core.write_all(std::slice::from_ref(event), 1, false)?;
                core.commit()
            })?;
            cores.extend([time]);
        }
        for event in &patches {
            let begun = now();
            documents.patch(&event.document, &event.fields).await?;
            facades.extend([begun.elapsed()]);
        }
    }
    // By the median: the few longest waits of a shared disk would outweigh all others.
    let rate = |samples: &Samples| 1.0 / samples.median();
    let goal = Goal::AtLeast(0.8 * rate(&floor));
    for (name, goal, samples) in [
        (
            "3b one durable write each, through the facade",
            goal,
            &facades,
        ),
        ("3b   the same, core + db", Goal::None, &cores),
        ("3b   raw redb, one row of 150 B each", Goal::None, &raws),
    ] {
        let line = Line::new(name, Unit::PerSecond, goal, rate(samples));
        report.add(line.floor("fdatasync of 4 KiB in place", rate(&floor)));
    }
    let together = together(&documents, &mut events).await?;
    let name = format!("3b   the same from {CALLERS} callers at once, all of them");
    let line = Line::new(name, Unit::PerSecond, Goal::None, together);
    report.add(line.floor("fdatasync of 4 KiB in place", rate(&floor)));
    peer.close().await?;
    let bytes = std::fs::metadata(folder.path().join("leno.redb"))?.len();
    let writes = 2.0 * (ROUNDS * WRITES_PER_ROUND) as f64;
    report.note(format!(
        "3b: after {writes} durable writes of one event each the file has {:.0} bytes per event",
        bytes as f64 / writes
    ));
    Ok(())
}

/// Durable writes in a second of many callers, each of whom waits for his own.
async fn together(documents: &Collection<Ipld>, events: &mut Events) -> Outcome<f64> {
    let mut tasks = Vec::new();
    let each = ROUNDS * WRITES_PER_ROUND / CALLERS;
    let shares: Vec<_> = (0..CALLERS).map(|_| events.patches(each)).collect();
    let begun = now();
    for events in shares {
        let documents = documents.clone();
        tasks.push(tokio::spawn(async move {
            for event in events {
                documents.patch(&event.document, &event.fields).await?;
            }
            Ok::<_, leno::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok((each * CALLERS) as f64 / begun.elapsed().as_secs_f64())
}

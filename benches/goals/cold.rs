//! Goal 7: opening a peer that was closed, its memory, and its size on disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use leno::{Collection, Ipld};
use leno_benches::Outcome;
use leno_benches::event::COLLECTION;
use leno_benches::measure::{Samples, now, timed};
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_store_redb::Redb;
use leno_threads_core::store::Store as _;
use redb::{Database, ReadableDatabase as _, TableDefinition};

use crate::disk::{facade, pairs};

/// The first argument of a process that measures one open: memory is measured from the outside.
pub(crate) const CHILD: &str = "--child";

const GROUP: usize = 1_000;
const OPENS: usize = 15;
const MEBIBYTE: f64 = (1 << 20) as f64;

pub(crate) fn run(folder: &Path, report: &mut Report) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let empty = tempfile::tempdir_in(folder)?;
    runtime.block_on(async {
        let store = Redb::open(empty.path().join("leno.redb"))?;
        let peer = leno::Peer::builder().store(store).start().await?;
        Outcome::Ok(peer.close().await?)
    })?;
    let nothing = opens(empty.path(), false)?;
    for (name, ops, goal) in [
        ("7a 100,000 ops", 100_000, 0.001),
        ("7b 1,000,000 ops", 1_000_000, 0.0015),
    ] {
        let home = tempfile::tempdir_in(folder)?;
        runtime.block_on(fill(home.path(), ops))?;
        let file = home.path().join("leno.redb");
        let bare = bare(&file)?;
        let raw = Samples::take(OPENS, || raw_open(&bare))?;
        let opened = opens(home.path(), true)?;
        let all = opened.store.median() + opened.peer.median();
        let line = Line::new(
            format!("{name}: cold open to the first document"),
            Unit::Seconds,
            Goal::AtMost(goal),
            all,
        );
        report.add(line.floor("raw redb, open and one row", raw.median()));
        for (part, samples) in [("the store", &opened.store), ("the peer", &opened.peer)] {
            let line = Line::new(
                format!("{}   of that: {part}", &name[..2]),
                Unit::Seconds,
                Goal::None,
                samples.median(),
            );
            report.add(line);
        }
        report.add(
            Line::new(
                format!("{name}: resident memory above an empty peer"),
                Unit::Mebibytes,
                Goal::AtMost(6.0 * MEBIBYTE),
                opened.resident - nothing.resident,
            )
            .floor("an empty peer, all of it", nothing.resident),
        );
        let as_written = bytes(&file)?;
        runtime.block_on(compact(&file))?;
        for (when, goal, bytes) in [
            ("as it was written", 48e6, as_written),
            ("packed and compacted", 21e6, bytes(&file)?),
        ] {
            report.add(Line::new(
                format!("{name}: on disk {when}, per 100,000"),
                Unit::Megabytes,
                Goal::AtMost(goal),
                bytes / ops as f64 * 1e5,
            ));
        }
    }
    Ok(())
}

fn bytes(file: &Path) -> Outcome<f64> {
    Ok(std::fs::metadata(file)?.len() as f64)
}

/// What an app does in a quiet moment. Runs are packed all along; this gives the room back.
async fn compact(file: &Path) -> Outcome {
    let store = Redb::open(file)?;
    store.compact().await?;
    Ok(store.close().await?)
}

/// Makes a peer with so many ops over 1,000 documents, and closes it.
async fn fill(folder: &Path, ops: usize) -> Outcome {
    let (peer, documents, mut events) = facade(folder).await?;
    for _ in 0..ops / GROUP {
        documents.put_all(pairs(events.patches(GROUP))).await?;
    }
    Ok(peer.close().await?)
}

/// Copies what is redb's of a store's file, which begins where the header says.
fn bare(file: &Path) -> Outcome<PathBuf> {
    let bytes = std::fs::read(file)?;
    let start = bytes.get(16..24).ok_or("the store has no header")?;
    let start = usize::try_from(u64::from_le_bytes(start.try_into()?))?;
    let bare = file.with_extension("bare");
    std::fs::write(&bare, bytes.get(start..).ok_or("the store has no rows")?)?;
    // Else the first open would wait for it.
    std::fs::File::open(&bare)?.sync_all()?;
    Ok(bare)
}

/// Opens redb's part of a store's file with redb alone and reads one row.
fn raw_open(file: &Path) -> Outcome<std::time::Duration> {
    // Closing is not part of an open, so the database outlives it.
    let (time, _database) = timed(|| {
        let database = Database::create(file)?;
        let rows: TableDefinition<'_, &str, u64> = TableDefinition::new("leno-store");
        let found = database.begin_read()?.open_table(rows)?.get("lap")?;
        found.ok_or("the store has no lap")?;
        Ok(database)
    })?;
    Ok(time)
}

/// What some processes of their own measured.
struct Opens {
    store: Samples,
    peer: Samples,
    /// The median, in bytes.
    resident: f64,
}

fn opens(folder: &Path, reads: bool) -> Outcome<Opens> {
    let (mut store, mut peer, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..OPENS {
        let output = Command::new(std::env::current_exe()?)
            .args([CHILD, if reads { "read" } else { "open" }])
            .arg(folder)
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        let [store_nanos, peer_nanos, bytes] = numbers?[..] else {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("a child process failed: {why}").into());
        };
        store.push(std::time::Duration::from_nanos(store_nanos));
        peer.push(std::time::Duration::from_nanos(peer_nanos));
        resident.push(bytes);
    }
    resident.sort_unstable();
    let median = resident.get(resident.len() / 2).copied().unwrap_or(0);
    Ok(Opens {
        store: Samples::new(store),
        peer: Samples::new(peer),
        resident: median as f64,
    })
}

/// One open, in a process of its own: prints nanoseconds for the store, nanoseconds for the peer,
/// and how much memory is resident then.
pub(crate) fn child(arguments: &[String]) -> Outcome {
    let [what, folder] = arguments else {
        return Err("a child needs to know what to open".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let begun = now();
        let store = Redb::open(Path::new(folder).join("leno.redb"))?;
        let opened = begun.elapsed();
        let peer = leno::Peer::builder().store(store).start().await?;
        if what == "read" {
            let threads = peer.threads().await?;
            let thread = threads.first().ok_or("there is no thread")?;
            let documents: Collection<Ipld> = thread.collection(COLLECTION);
            let first = documents.get(&leno::DocumentId::natural("d500")?).await?;
            first.ok_or("there is no document")?;
        } else {
            peer.threads().await?;
        }
        let all = begun.elapsed();
        let peer_nanos = (all - opened).as_nanos();
        println!("{} {peer_nanos} {}", opened.as_nanos(), resident_bytes()?);
        peer.close().await?;
        Ok(())
    })
}

fn resident_bytes() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes
        .ok_or("the system does not tell")?
        .parse::<u64>()?
        * 1024)
}

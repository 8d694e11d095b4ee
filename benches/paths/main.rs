//! The hot paths one by one, for work on them: `cargo bench -p leno-benches --bench paths -- append`.
//!
//! What they have to reach stands in `goals/`, beside the floors of the same run.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use leno_benches::Outcome;
use leno_benches::event::{Event, Events};
use leno_benches::replica::{Peer, Rows, runs, sync};
use leno_threads_core::store::{MemoryStore, Store};
use leno_threads_core::{LogId, Role};

fn main() {
    divan::main();
}

fn good<T>(outcome: Outcome<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// A peer that has created the documents, and patches of them.
fn writer(patches: usize) -> Outcome<(Peer, Vec<Event>)> {
    let mut peer = Peer::create(1, memory())?;
    let mut events = Events::new(1)?;
    peer.write_all(&events.creates(), 1, true)?;
    peer.commit()?;
    Ok((peer, events.patches(patches)))
}

/// Diff, encode, seal, sign once, fold, commit in memory.
#[divan::bench(args = [1, 100, 1_000])]
fn append(bencher: Bencher<'_, '_>, patches: usize) {
    bencher
        .counter(ItemsCount::new(patches))
        .with_inputs(|| good(writer(patches)))
        .bench_local_values(|(mut peer, events)| {
            good(peer.write_all(&events, 1, false));
            good(peer.commit());
            peer
        });
}

/// A reader that has the documents, and what a writer's log says after that.
fn reader(patches: usize) -> Outcome<(Peer, LogId, Rows)> {
    let (mut writer, events) = writer(patches)?;
    let mut reader = writer.invite(2, memory(), Role::Reader)?;
    sync(&mut writer, &mut reader)?;
    let thread = writer.thread()?;
    let log = thread.own_log().ok_or("the writer has a log")?;
    let from = thread.log(&log).map_or(1, |log| log.tip.seq + 1);
    writer.write_all(&events, 1, false)?;
    writer.commit()?;
    let rows = writer.rows(log, from)?;
    Ok((reader, log, rows))
}

/// Verify, open, fold, commit in memory.
#[divan::bench(args = [1, 100, 1_000])]
fn receive(bencher: Bencher<'_, '_>, patches: usize) {
    bencher
        .counter(ItemsCount::new(patches))
        .with_inputs(|| good(reader(patches)))
        .bench_local_values(|(mut reader, log, rows)| {
            let store = reader.store.clone();
            let view = good(store.view().map_err(Into::into));
            good(reader.receive(&*view, log, good(runs(&rows))));
            drop(view);
            good(reader.commit());
            reader
        });
}

//! Goal 2: writing in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leno_benches::Outcome;
use leno_benches::event::Events;
use leno_benches::measure::{Samples, timed};
use leno_benches::replica::Peer;
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_threads_core::store::MemoryStore;

use crate::floor;

const SAMPLES: usize = 7;

pub(crate) fn run(_: &Path, report: &mut Report) -> Outcome {
    // Sealing costs what opening costs.
    let (record, signature) = (floor::hash()? + floor::open()?, floor::sign()?);
    for (name, goal, per_publish, count) in [
        ("one signature per 100", 400_000.0, 100, 100_000),
        ("one signature per event", 35_000.0, 1, 10_000),
    ] {
        let bodies = bodies(count)?;
        let floor = 1.0 / (record + signature / per_publish as f64);
        let basis = "hash + AES-GCM + share of a signature";
        let appended = Samples::take(SAMPLES, || {
            let (mut peer, _) = writer()?;
            let store = peer.store.clone();
            let (time, ()) = timed(|| {
                for bodies in bodies.chunks(per_publish) {
                    let view = store.view()?;
                    for body in bodies {
                        peer.append(&*view, body)?;
                    }
                    drop(view);
                    peer.publish()?;
                    peer.commit()?;
                }
                Ok(())
            })?;
            Ok(time)
        })?;
        let rate = count as f64 / appended.best();
        let line = Line::new(
            format!("2  append in memory, {name}"),
            Unit::PerSecond,
            Goal::AtLeast(goal),
            rate,
        );
        report.add(line.floor(basis, floor));
        let written = Samples::take(SAMPLES, || {
            let (mut peer, mut events) = writer()?;
            let mut time = Duration::ZERO;
            for _ in 0..count / per_publish {
                // Made just before, as an app does: not all of them cold in memory.
                let events = events.patches(per_publish);
                let (took, ()) = timed(|| {
                    peer.write_all(&events, 1, false)?;
                    peer.commit()
                })?;
                time += took;
            }
            Ok(time)
        })?;
        let line = Line::new(
            format!("2    the same from patches of documents, {name}"),
            Unit::PerSecond,
            Goal::None,
            count as f64 / written.best(),
        );
        report.add(line.floor(basis, floor));
    }
    Ok(())
}

/// A peer that has created the documents.
fn writer() -> Outcome<(Peer, Events)> {
    let mut peer = Peer::create(1, Arc::new(MemoryStore::new()))?;
    let mut events = Events::new(1)?;
    peer.write_all(&events.creates(), 1, true)?;
    peer.commit()?;
    Ok((peer, events))
}

/// The bodies of records of one event each.
fn bodies(count: usize) -> Outcome<Vec<Vec<u8>>> {
    let (mut peer, mut events) = writer()?;
    let store = peer.store.clone();
    let view = store.view()?;
    let mut bodies = Vec::with_capacity(count);
    for event in events.patches(count) {
        let mut transaction = peer.begin()?;
        peer.stage(&*view, &mut transaction, &event, false)?;
        bodies.push(
            transaction
                .to_body()
                .ok_or("an event changes its document")?,
        );
    }
    Ok(bodies)
}

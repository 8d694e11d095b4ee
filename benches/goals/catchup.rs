//! Goal 1: catching up.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leno_benches::Outcome;
use leno_benches::event::{DOCUMENTS, Event, Events};
use leno_benches::measure::{Samples, timed};
use leno_benches::replica::{Peer, Rows, runs, sync};
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_threads_core::store::{Batch, MemoryStore, Store, Table, View, scan_prefix};
use leno_threads_core::thread::Opened;
use leno_threads_core::{LogId, Role, Run, Seq, THREAD_DOMAIN};

use crate::floor;

const RECORDS: usize = 100_000;
const WRITERS: usize = 100;
const SAMPLES: usize = 5;

/// Runs of so many bytes share a commit, as they share a message.
const MESSAGE_BYTES: usize = 1 << 20;

pub(crate) fn run(_: &Path, report: &mut Report) -> Outcome {
    let (hash, open) = (floor::hash()?, floor::open()?);
    let apply = apply()?;
    let floor = 1.0 / (hash + open + apply);

    let mut one = Setting::one_writer()?;
    let (took, alone) = one.take(SAMPLES)?;
    let rate = RECORDS as f64 / took;
    let line = Line::new(
        "1a catch-up, 1 writer, 100,000 one-op records",
        Unit::PerSecond,
        Goal::AtLeast(500_000.0),
        rate,
    );
    report.add(line.floor("hash + AES-GCM + apply", floor));
    report.add(
        Line::new(
            "1a   of that: verified, opened, stored, not folded",
            Unit::PerSecond,
            Goal::None,
            RECORDS as f64 / alone,
        )
        .floor("hash + AES-GCM", 1.0 / (hash + open)),
    );
    report.add(Line::new(
        "1a   of that: Documents::apply",
        Unit::PerSecond,
        Goal::None,
        1.0 / apply,
    ));
    drop(one);

    let mut many = Setting::many_writers(false)?;
    let (many_took, _) = many.take(SAMPLES)?;
    report.add(Line::new(
        "1b the same from 100 writers, each of its own documents",
        Unit::Times,
        Goal::AtMost(1.15),
        many_took / took,
    ));
    drop(many);
    let mut mixed = Setting::many_writers(true)?;
    let (mixed_took, _) = mixed.take(2)?;
    report.add(Line::new(
        "1c   the same, all 100 concurrently on all 1,000 documents",
        Unit::Times,
        Goal::None,
        mixed_took / took,
    ));
    Ok(())
}

/// Seconds to fold one record, opened before.
pub(crate) fn apply() -> Outcome<f64> {
    let mut setting = Setting::one_writer()?;
    let mut bodies = Vec::new();
    // What the records say, as the reader's thread opens it.
    let mut reader = setting.reader(0)?;
    let (log, rows) = setting.logs.remove(0);
    let store = reader.store.clone();
    let view = store.view()?;
    let mut sink = |it: &Opened<'_>| {
        bodies.push((it.record, it.stamp, it.seat, it.plaintext.to_vec()));
    };
    for (first, run) in runs(&rows)? {
        let (now, mut changes) = (reader.now_millis, std::mem::take(&mut reader.changes));
        let thread = reader.thread()?;
        thread.receive(&*view, log, first, run, now, &mut changes, &mut sink)?;
    }
    let mut number = 0;
    let samples = Samples::take(SAMPLES, || {
        number += 1;
        let mut reader = setting.reader(number)?;
        let store = reader.store.clone();
        let view = store.view()?;
        let (time, ()) = timed(|| {
            for (record, stamp, seat, plaintext) in &bodies {
                let opened = Opened {
                    record: *record,
                    stamp: *stamp,
                    seat: *seat,
                    domain: THREAD_DOMAIN,
                    plaintext,
                };
                reader.documents.apply(&*view, &opened, None)?;
            }
            Ok(())
        })?;
        Ok(time)
    })?;
    Ok(samples.best() / bodies.len() as f64)
}

/// An owner whom readers can join, and what they have to catch up with.
struct Setting {
    owner: Peer,
    logs: Vec<(LogId, Rows)>,
}

impl Setting {
    fn one_writer() -> Outcome<Self> {
        let mut owner = Peer::create(1, Arc::new(MemoryStore::new()))?;
        let mut events = Events::new(1)?;
        owner.write_all(&events.creates(), 1, true)?;
        owner.commit()?;
        let log = own_log(&mut owner)?;
        let from = tip(&mut owner, log)? + 1;
        // The writer's rows are taken from a copy, so that readers of the owner do not get them.
        let before = copy(&*owner.store)?;
        owner.write_all(&events.patches(RECORDS), 1, false)?;
        owner.commit()?;
        let rows = owner.rows(log, from)?;
        let owner = Peer::load(1, Arc::new(before))?;
        Ok(Self {
            owner,
            logs: vec![(log, rows)],
        })
    }

    fn many_writers(is_shared: bool) -> Outcome<Self> {
        let mut owner = Peer::create(1, Arc::new(MemoryStore::new()))?;
        if is_shared {
            owner.write_all(&Events::new(1)?.creates(), 1, true)?;
            owner.commit()?;
        }
        let share = DOCUMENTS / WRITERS;
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let seed = 100 + number as u64;
            let store = Arc::new(MemoryStore::new());
            let mut writer = owner.invite(seed, store, Role::Writer)?;
            let documents = match is_shared {
                true => 0..DOCUMENTS,
                false => number * share..(number + 1) * share,
            };
            let mut events = Events::over(seed, documents)?;
            match is_shared {
                true => writer.write_all(&events.patches(1), 1, false)?,
                false => writer.write_all(&events.creates(), 1, true)?,
            }
            writer.commit()?;
            sync(&mut owner, &mut writer)?;
            writers.push((writer, events));
        }
        let mut logs = Vec::new();
        for (mut writer, mut events) in writers {
            let log = own_log(&mut writer)?;
            let from = tip(&mut writer, log)? + 1;
            let patches: Vec<Event> = events.patches(RECORDS / WRITERS);
            writer.write_all(&patches, 1, false)?;
            writer.commit()?;
            logs.push((log, writer.rows(log, from)?));
        }
        Ok(Self { owner, logs })
    }

    /// A new reader that is level with the owner.
    fn reader(&mut self, number: u64) -> Outcome<Peer> {
        let store = Arc::new(MemoryStore::new());
        self.owner.invite(10_000 + number, store, Role::Reader)
    }

    /// The best time of a new reader to catch up, in seconds; and without folding.
    fn take(&mut self, samples: usize) -> Outcome<(f64, f64)> {
        let mut number = 100;
        let mut one = |folds: bool| -> Outcome<Duration> {
            number += 1;
            let mut reader = self.reader(number)?;
            let (time, ()) = timed(|| catch_up(&mut reader, &self.logs, folds))?;
            Ok(time)
        };
        let folded = Samples::take(samples, || one(true))?;
        let plain = Samples::take(samples, || one(false))?;
        Ok((folded.best(), plain.best()))
    }
}

fn catch_up(reader: &mut Peer, logs: &[(LogId, Rows)], folds: bool) -> Outcome {
    let store = reader.store.clone();
    for (log, rows) in logs {
        let runs = runs(rows)?;
        let mut rest = runs.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, run)| {
                bytes += run.items().len();
                bytes <= MESSAGE_BYTES
            });
            let (message, later) = rest.split_at(fits.count().max(1));
            rest = later;
            {
                let view = store.view()?;
                if folds {
                    reader.receive(&*view, *log, message.iter().copied())?;
                } else {
                    receive_only(reader, &*view, *log, message)?;
                }
            }
            reader.commit()?;
        }
    }
    Ok(())
}

fn receive_only(
    reader: &mut Peer,
    view: &dyn View,
    log: LogId,
    runs: &[(Seq, Run<'_>)],
) -> Outcome {
    let (now, mut changes) = (reader.now_millis, std::mem::take(&mut reader.changes));
    for (first, run) in runs {
        let thread = reader.thread()?;
        thread.receive(view, log, *first, *run, now, &mut changes, &mut |_| {})?;
    }
    reader.changes = changes;
    Ok(())
}

/// The data log of a peer that has written.
pub(crate) fn own_log(peer: &mut Peer) -> Outcome<LogId> {
    Ok(peer.thread()?.own_log().ok_or("nothing was written yet")?)
}

pub(crate) fn tip(peer: &mut Peer, log: LogId) -> Outcome<u64> {
    Ok(peer.thread()?.log(&log).map_or(0, |log| log.tip.seq))
}

/// A copy of a store that shares nothing with it.
pub(crate) fn copy(store: &dyn Store) -> Outcome<MemoryStore> {
    let (copy, view) = (MemoryStore::new(), store.view()?);
    let mut batch = Batch::new();
    for table in Table::ALL {
        scan_prefix(&*view, table, &[], &mut |key, row| {
            batch.put(table, key.to_vec(), row.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    futures_executor::block_on(copy.commit(batch))?;
    Ok(copy)
}

//! Goal 4: late ops, and merging two sides that worked apart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leno_benches::Outcome;
use leno_benches::event::{COLLECTION, Event, Events};
use leno_benches::measure::{Samples, timed};
use leno_benches::replica::{Peer, runs, sync};
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_threads_core::Role;
use leno_threads_core::store::{MemoryStore, Store};
use leno_threads_core::thread::{Appended, Opened};
use leno_threads_core::{LogId, OpRef, RecordId, RecordRef, SeatId, Stamp, THREAD_DOMAIN};
use leno_threads_db::{Documents, Transaction};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::catchup::{self, own_log, tip};

const EDITS: usize = 10_000;
const SAMPLES: usize = 7;

/// Ops in a document before a late one comes.
const OPS_BEFORE: u64 = 1_000;

pub(crate) fn run(_: &Path, report: &mut Report) -> Outcome {
    let (late, in_order) = late()?;
    report.add(
        Line::new(
            "4a an op older than all 1,000 of its document",
            Unit::Seconds,
            Goal::None,
            late,
        )
        .floor("an op newer than all", in_order),
    );
    // As many folds of ops that meet no conflict, one per record.
    let (folds, basis) = (
        20_000.0 * catchup::apply()?,
        "20,000 folds without conflict",
    );
    for (per_record, goal) in [(100, Goal::AtMost(0.040)), (1, Goal::AtMost(0.040))] {
        let samples = Samples::take(SAMPLES, || documents_only(per_record))?;
        let line = Line::new(
            format!("4b merge of 2 x 10,000 edits, both sides, {per_record} per record"),
            Unit::Seconds,
            goal,
            samples.best(),
        );
        report.add(line.floor(basis, folds));
        let samples = Samples::take(SAMPLES, || whole(per_record))?;
        let line = Line::new(
            format!("4b   the same verified and opened too, {per_record} per record"),
            Unit::Seconds,
            Goal::None,
            samples.best(),
        );
        report.add(line.floor(basis, folds));
    }
    Ok(())
}

/// A record as it comes out of a thread.
struct Plain {
    record: RecordRef,
    stamp: Stamp,
    plaintext: Vec<u8>,
}

impl Plain {
    fn opened(&self) -> Opened<'_> {
        Opened {
            record: self.record,
            stamp: self.stamp,
            seat: SeatId([0; 32]),
            domain: THREAD_DOMAIN,
            plaintext: &self.plaintext,
        }
    }
}

/// A member's documents, without a thread below them.
struct Side {
    log: LogId,
    store: MemoryStore,
    documents: Documents,
    rng: ChaCha20Rng,
    seq: u64,
    stamp: u64,
}

impl Side {
    fn new(seed: u8) -> Outcome<Self> {
        let store = MemoryStore::new();
        let documents = Documents::load(&*store.view()?, 0)?;
        Ok(Self {
            log: LogId([seed; 32]),
            store,
            documents,
            rng: ChaCha20Rng::seed_from_u64(seed.into()),
            seq: 0,
            stamp: 0,
        })
    }

    fn member(&self) -> OpRef {
        OpRef {
            record: RecordId(self.log.0),
            op: 0,
        }
    }

    /// Writes events as records of so many ops.
    fn write(
        &mut self,
        events: &[Event],
        per_record: usize,
        is_create: bool,
    ) -> Outcome<Vec<Plain>> {
        let mut records = Vec::new();
        let store = self.store.clone();
        let view = store.view()?;
        for events in events.chunks(per_record) {
            let mut transaction = Transaction::new(self.member(), Some(self.log), 0);
            let mut writer = self
                .documents
                .writer(&*view, &mut transaction, &mut self.rng);
            for event in events {
                if is_create {
                    writer.put(COLLECTION, Some(&event.document), &event.fields)?;
                } else {
                    writer.patch(COLLECTION, &event.document, &event.fields)?;
                }
            }
            let body = transaction
                .to_body()
                .ok_or("an event changes its document")?;
            (self.seq, self.stamp) = (self.seq + 1, self.stamp + 1);
            let (seq, stamp, log) = (self.seq, Stamp(self.stamp), self.log);
            let appended = Appended { log, seq, stamp };
            self.documents.commit(&*view, transaction, &appended)?;
            let id = RecordId([0; 32]);
            records.push(Plain {
                record: RecordRef { log, seq, id },
                stamp,
                plaintext: [&[0], body.as_slice()].concat(),
            });
        }
        drop(view);
        self.flush_if_needed()?;
        Ok(records)
    }

    fn flush_if_needed(&mut self) -> Outcome {
        if self.documents.needs_flush() {
            let mut batch = leno_threads_core::store::Batch::new();
            let flushed = self.documents.flush(&mut batch);
            futures_executor::block_on(self.store.commit(batch))?;
            self.documents.settle(flushed);
        }
        Ok(())
    }

    fn apply(&mut self, records: &[Plain]) -> Outcome {
        let store = self.store.clone();
        let view = store.view()?;
        for record in records {
            let member = OpRef {
                record: RecordId(record.record.log.0),
                op: 0,
            };
            let opened = record.opened();
            self.documents.apply(&*view, &opened, Some(member))?;
            self.stamp = self.stamp.max(record.stamp.0);
        }
        drop(view);
        self.flush_if_needed()
    }

    fn hash(&self) -> Outcome<[u8; 32]> {
        Ok(self.documents.state_hash(&*self.store.view()?)?)
    }
}

/// Two sides that have made their edits while they were apart: what each has written.
fn apart(per_record: usize) -> Outcome<[(Side, Vec<Plain>); 2]> {
    let (mut alice, mut bob) = (Side::new(1)?, Side::new(2)?);
    let mut events = Events::new(1)?;
    let creates = alice.write(&events.creates(), 1, true)?;
    bob.apply(&creates)?;
    let alices = alice.write(&events.patches(EDITS), per_record, false)?;
    let bobs = bob.write(&events.patches(EDITS), per_record, false)?;
    Ok([(alice, alices), (bob, bobs)])
}

/// The time in which both sides fold what the other one wrote.
fn documents_only(per_record: usize) -> Outcome<Duration> {
    let [(mut alice, alices), (mut bob, bobs)] = apart(per_record)?;
    let (time, ()) = timed(|| {
        alice.apply(&bobs)?;
        bob.apply(&alices)
    })?;
    if alice.hash()? != bob.hash()? {
        return Err("two sides with the same records differ".into());
    }
    Ok(time)
}

/// The time in which both sides receive what the other one wrote.
fn whole(per_record: usize) -> Outcome<Duration> {
    let mut alice = Peer::create(1, Arc::new(MemoryStore::new()))?;
    let mut events = Events::new(1)?;
    alice.write_all(&events.creates(), 1, true)?;
    alice.commit()?;
    let mut bob = alice.invite(2, Arc::new(MemoryStore::new()), Role::Writer)?;
    // One edit, so that his log is open at hers.
    bob.write_all(&events.patches(1), 1, false)?;
    bob.commit()?;
    sync(&mut alice, &mut bob)?;
    let mut written = Vec::new();
    for peer in [&mut alice, &mut bob] {
        let log = own_log(peer)?;
        let from = tip(peer, log)? + 1;
        peer.write_all(&events.patches(EDITS), per_record, false)?;
        peer.commit()?;
        written.push((log, peer.rows(log, from)?));
    }
    let [alices, bobs] = written.as_slice() else {
        return Err("there are two sides".into());
    };
    let (time, ()) = timed(|| {
        for (peer, (log, rows)) in [(&mut alice, bobs), (&mut bob, alices)] {
            let store = peer.store.clone();
            let view = store.view()?;
            peer.receive(&*view, *log, runs(rows)?)?;
            drop(view);
            peer.commit()?;
        }
        Ok(())
    })?;
    if alice.hash()? != bob.hash()? {
        return Err("two sides with the same records differ".into());
    }
    Ok(time)
}

/// Seconds for an op that is older than all in its document, and for one that is newer.
fn late() -> Outcome<(f64, f64)> {
    let mut best = [f64::MAX; 2];
    for _ in 0..SAMPLES {
        for (is_late, best) in [true, false].into_iter().zip(&mut best) {
            let mut events = Events::over(1, 0..1)?;
            let mut writer = Side::new(1)?;
            let mut reader = Side::new(2)?;
            let creates = writer.write(&events.creates(), 1, true)?;
            reader.apply(&creates)?;
            let count = usize::try_from(OPS_BEFORE)?;
            // One writer per late op: each has an op that nobody has seen yet.
            let mut late = Vec::new();
            for number in 0..200_u8 {
                let mut other = Side::new(10 + number)?;
                other.apply(&creates)?;
                other.stamp = if is_late { 2 } else { 1 << 40 };
                late.extend(other.write(&events.patches(1), 1, false)?);
            }
            writer.stamp = 1 << 20;
            let records = writer.write(&events.patches(count), 1, false)?;
            reader.apply(&records)?;
            let (time, ()) = timed(|| reader.apply(&late))?;
            *best = best.min(time.as_secs_f64() / late.len() as f64);
        }
    }
    let [late, in_order] = best;
    Ok((late, in_order))
}

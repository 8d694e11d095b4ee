//! Goal 9: what governance costs.

use std::path::Path;

use leno_benches::Outcome;
use leno_benches::bare::{self, grant};
use leno_benches::measure::{Samples, timed};
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::acl::{ControlRecord, Governance};
use leno_threads_core::store::{MemoryStore, Store, Table, scan_prefix};
use leno_threads_core::thread::{Changes, Opened, Seat, Thread};
use leno_threads_core::{
    EpochKey, FrameOp, Frontier, Genesis, NonceSecret, Policy, RecordId, RecordRef, RemoveOp, Role,
    SeatId, Seq, Stamp, Suite, THREAD_DOMAIN, Wrap, decode_row,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

const SAMPLES: usize = 5;

/// Ops that are there.
const OPS: u64 = 10_000;

/// Who writes them: an owner and so many admins.
const ADMINS: u64 = 20;

/// Readers of whom one is removed.
const READERS: usize = 1_000;

/// Epochs that the newest key leads back to.
const EPOCHS_BACK: usize = 1_000;

const NOW_MILLIS: u64 = 1_700_000_000_000;

pub(crate) fn run(_: &Path, report: &mut Report) -> Outcome {
    let genesis = Genesis {
        owner: seat(0),
        owner_kem: [2; 32],
        suite: Suite::Aes256Gcm,
        policy: Policy::Standard,
        nonce: [3; 16],
    };
    let mut history = History::default();
    let records: Vec<_> = (0..OPS).map(|_| history.next()).collect();
    let evaluated = Samples::take(SAMPLES, || {
        let mut governance = Governance::new(&genesis);
        let (time, ()) = timed(|| {
            for record in &records {
                governance.admit(record);
            }
            Ok(())
        })?;
        Ok(time)
    })?;
    let name = format!("9a evaluating {OPS} ops of {ADMINS} admins");
    let (unit, goal) = (Unit::Seconds, Goal::AtMost(0.1));
    report.add(Line::new(name, unit, goal, evaluated.best()));

    let mut governance = Governance::new(&genesis);
    for record in &records {
        governance.admit(record);
    }
    let more: Vec<_> = (0..500).map(|_| history.next()).collect();
    let one_more = Samples::take(SAMPLES, || {
        let mut governance = governance.clone();
        let (time, ()) = timed(|| {
            for record in &more {
                governance.admit(record);
            }
            Ok(())
        })?;
        Ok(time)
    })?;
    let name = format!("9b one op more, after {OPS}");
    let time = one_more.best() / more.len() as f64;
    report.add(Line::new(name, unit, Goal::AtMost(50e-6), time));

    // The worst: an admin whose every op is judged again.
    let demote = history.demote_an_admin();
    let judged_again = Samples::take(SAMPLES, || {
        let mut governance = governance.clone();
        let (time, _) = timed(|| Ok(governance.admit(&demote)))?;
        Ok(time)
    })?;
    let name = "9b   the same, an admin is removed who wrote a twentieth";
    report.add(Line::new(name, unit, Goal::None, judged_again.best()));
    removal(report)
}

/// 9c: somebody is removed of a thousand.
fn removal(report: &mut Report) -> Outcome {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let owner = bare::seat(&mut rng)?;
    let readers = (0..READERS).map(|_| bare::seat(&mut rng));
    let readers: Vec<Seat> = readers.collect::<Outcome<_>>()?;
    let (mut times, mut bytes, mut floors) = (Vec::new(), 0, Vec::new());
    let (store, mut thread) = new_thread(owner, &mut rng)?;
    let commit = |changes: Changes| futures_executor::block_on(store.commit(changes.batch));
    let grants: Vec<_> = readers
        .iter()
        .map(|it| grant(it.id(), it.kem.public_key().to_bytes(), Role::Reader))
        .collect();
    for grants in grants.chunks(500) {
        let mut changes = Changes::new();
        let view = store.view()?;
        thread.govern(&*view, grants, &[], NOW_MILLIS, &mut rng, &mut changes)?;
        while thread.wrap_missing(&mut rng, &mut changes) > 0 {}
        commit(changes)?;
    }
    for reader in readers.iter().take(SAMPLES) {
        let before = rows(&store)?;
        let remove = FrameOp::Remove(RemoveOp {
            member: reader.id(),
            accepts: Vec::new(),
        });
        let view = store.view()?;
        let (time, changes) = timed(|| {
            let mut changes = Changes::new();
            let ops = [remove];
            thread.govern_and_rotate(&*view, &ops, NOW_MILLIS, &mut rng, &mut changes)?;
            while thread.wrap_missing(&mut rng, &mut changes) > 0 {}
            Ok(changes)
        })?;
        times.push(time);
        commit(changes)?;
        bytes = rows(&store)? - before;
        let (key, id) = (EpochKey::generate(&mut rng), thread.id());
        let (floor, ()) = timed(|| {
            for it in readers.iter().skip(1) {
                let kem = it.kem.public_key().to_bytes();
                Wrap::seal(&key, id, THREAD_DOMAIN, it.id(), &kem, &mut rng)?;
            }
            Ok(())
        })?;
        floors.push(floor);
    }
    let best = |times: Vec<std::time::Duration>| {
        let seconds = times.iter().map(std::time::Duration::as_secs_f64);
        seconds.fold(f64::MAX, f64::min)
    };
    let (ours, floor) = (best(times), best(floors));
    let name = format!("9c removal of one of {READERS} readers, times as long");
    let ratio = Line::new(name, Unit::Times, Goal::AtMost(1.3), ours / floor);
    report.add(ratio);
    let line = Line::new("9c   in seconds", Unit::Seconds, Goal::None, ours);
    report.add(line.floor("as many HPKE seals", floor));
    let (unit, goal) = (Unit::Bytes, Goal::AtMost(150_000.0));
    report.add(Line::new(
        "9c   bytes that it adds",
        unit,
        goal,
        bytes as f64,
    ));
    back(report)
}

/// A thread in a store of its own.
fn new_thread(owner: Seat, rng: &mut ChaCha20Rng) -> Outcome<(MemoryStore, Thread)> {
    let store = MemoryStore::new();
    let (view, mut changes) = (store.view()?, Changes::new());
    let (secret, suite) = (NonceSecret::new(&[7; 32]), Suite::Aes256Gcm);
    let thread = Thread::create(
        &*view,
        0,
        owner,
        secret,
        suite,
        &[],
        NOW_MILLIS,
        rng,
        &mut changes,
    )?;
    drop(view);
    futures_executor::block_on(store.commit(changes.batch))?;
    Ok((store, thread))
}

/// 9d: a reader is handed the newest key, and opens those of all epochs before it.
fn back(report: &mut Report) -> Outcome {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let (owner, reader) = (bare::seat(&mut rng)?, bare::seat(&mut rng)?);
    let (store, mut thread) = new_thread(owner, &mut rng)?;
    let commit = |store: &MemoryStore, changes: Changes| {
        futures_executor::block_on(store.commit(changes.batch))
    };
    for _ in 0..EPOCHS_BACK {
        let (view, mut changes) = (store.view()?, Changes::new());
        thread.govern_and_rotate(&*view, &[], NOW_MILLIS, &mut rng, &mut changes)?;
        commit(&store, changes)?;
    }
    let (view, mut changes) = (store.view()?, Changes::new());
    let kem = reader.kem.public_key().to_bytes();
    let grants = [grant(reader.id(), kem, Role::Reader)];
    thread.govern(&*view, &grants, &[], NOW_MILLIS, &mut rng, &mut changes)?;
    thread.wrap_missing(&mut rng, &mut changes);
    commit(&store, changes)?;
    let (view, owner) = (store.view()?, thread.seat().id());
    let wraps = thread.wraps(&*view)?.into_iter();
    let wraps: Vec<Wrap> = wraps.filter(|it| it.domain == THREAD_DOMAIN).collect();
    let [wrap] = wraps.as_slice() else {
        return Err("one wrap leads to all keys".into());
    };
    let (mut rows, log) = (Vec::new(), owner.control_log());
    thread.scan_rows(&*view, &log, 1, &mut |first, row| {
        rows.push((first, row.to_vec()));
        std::ops::ControlFlow::Continue(())
    })?;
    let (id, genesis) = (thread.id(), thread.genesis().encode());
    let opened = Samples::take(SAMPLES, || {
        let store = MemoryStore::new();
        let (secret, service) = (NonceSecret::new(&[8; 32]), thread.service_key().clone());
        let seat = Seat {
            signing: SigningKey::from_secret_bytes(&reader.signing.to_secret_bytes())?,
            kem: AgreementKey::from_secret_bytes(&reader.kem.to_secret_bytes())?,
        };
        let mut changes = Changes::new();
        let mut joined = Thread::join(0, id, &genesis, service, seat, secret, &mut changes)?;
        commit(&store, changes)?;
        let mut nothing = |_: &Opened<'_>| {};
        for (first, row) in &rows {
            let (view, mut changes) = (store.view()?, Changes::new());
            let (_, run) = decode_row(row)?;
            joined.receive(
                &*view,
                log,
                *first,
                run,
                NOW_MILLIS,
                &mut changes,
                &mut nothing,
            )?;
            commit(&store, changes)?;
        }
        let (view, mut changes) = (store.view()?, Changes::new());
        let (time, _) =
            timed(|| Ok(joined.take_wrap(&*view, owner, wrap, &mut changes, &mut nothing)?))?;
        let all = joined.governance().epochs().map(|it| &it.epoch);
        let opened = all.filter(|it| joined.holds_key(it)).count();
        match opened == EPOCHS_BACK + 1 {
            true => Ok(time),
            false => Err(format!("{opened} keys are here").into()),
        }
    })?;
    let name = format!("9d opening {EPOCHS_BACK} epochs back");
    let (unit, goal) = (Unit::Seconds, Goal::AtMost(0.02));
    report.add(Line::new(name, unit, goal, opened.best()));
    Ok(())
}

/// Bytes of the records and wraps of a store.
fn rows(store: &MemoryStore) -> Outcome<usize> {
    let view = store.view()?;
    let mut bytes = 0;
    for table in [Table::Runs, Table::Wraps] {
        scan_prefix(&*view, table, &[], &mut |_, row| {
            bytes += row.len();
            std::ops::ControlFlow::Continue(())
        })?;
    }
    Ok(bytes)
}

fn seat(number: u64) -> SeatId {
    let mut key = [0; 32];
    ChaCha20Rng::seed_from_u64(number).fill_bytes(&mut key);
    SeatId(key)
}

/// Members come, change roles, are removed and let in again, by whoever governs, in turn. Each hears of the
/// others' newest ops, but for those of the last round.
#[derive(Default)]
struct History {
    count: u64,
    seqs: std::collections::BTreeMap<SeatId, Seq>,
    heard: Frontier,
    news: Vec<(SeatId, Seq)>,
}

impl History {
    fn next(&mut self) -> ControlRecord {
        let at = self.count;
        if at <= ADMINS {
            let admin = grant(seat(at + 1), [5; 32], Role::Admin);
            return self.record(seat(0), admin);
        }
        let author = seat(1 + at % ADMINS);
        let member = seat(1_000 + at / 5);
        let op = match at % 5 {
            0 | 4 => grant(member, [5; 32], Role::Writer),
            1 => grant(seat(1_000 + at / 7), [5; 32], Role::Reader),
            2 => grant(seat(1_000 + at / 6), [5; 32], Role::Writer),
            _ => FrameOp::Remove(RemoveOp {
                member: seat(1_000 + at / 9),
                accepts: Vec::new(),
            }),
        };
        self.record(author, op)
    }

    fn demote_an_admin(&mut self) -> ControlRecord {
        let remove = FrameOp::Remove(RemoveOp {
            member: seat(2),
            accepts: Vec::new(),
        });
        self.record(seat(0), remove)
    }

    fn record(&mut self, author: SeatId, op: FrameOp) -> ControlRecord {
        self.count += 1;
        let seq = self.seqs.entry(author).or_default();
        *seq += 1;
        let mut id = [0; 32];
        ChaCha20Rng::seed_from_u64(self.count | 1 << 63).fill_bytes(&mut id);
        let place = RecordRef {
            log: author.control_log(),
            seq: *seq,
            id: RecordId(id),
        };
        self.news.push((author, *seq));
        if self.news.len() as u64 > ADMINS {
            let (seat, seq) = self.news.remove(0);
            self.heard.raise(seat.control_log(), seq);
        }
        let mut past = self.heard.clone();
        past.raise(place.log, place.seq);
        ControlRecord {
            place,
            stamp: Stamp(self.count),
            past,
            ops: vec![op],
        }
    }
}

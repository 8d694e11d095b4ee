//! A look into a disk: at what was sealed, for whom keys were wrapped, what is readable, and at what
//! the records add up to if they are folded anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use leno::identity::{Label, VerifyingKey};
use leno::store::{Direction, MemoryStore, Store as _, StoreError, Table, View};
use leno::{PeerId, Role, ThreadId};
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::thread::{Changes, Opened, SKEW_MILLIS_MAX, Thread};
use leno_threads_core::{
    EpochId, HeadError, KeyRef, LogId, NonceSecret, Now, OpRef, RecordId, RecordRef, SealContext,
    Sealer, SeatId, Seq, ServiceKey, Stamp, VerifyError, decode_row,
};
use leno_threads_db::Documents;

use crate::dice::Dice;
use crate::ledger::Broken;

/// Words that applications write, and nobody else: where they are readable, plaintext is.
pub(crate) const CANARIES: [&[u8]; 5] = [b"verse ", b"chant ", b"psalm ", b"ledger", b"mirror"];

/// Most records of one log that wait on a disk.
const PARKED_RECORDS_MAX: u64 = leno_threads_core::thread::PARKED_RECORDS_MAX;

/// How many keys of other logs each record is tried with.
const OTHER_KEYS: usize = 2;

/// In how many orders records are folded anew.
const ORDERS: usize = 3;

/// Under which key something was sealed: of which log, and of an epoch or of frames.
type SealedUnder = (ThreadId, LogId, Option<EpochId>);

/// What was found on disks.
#[derive(Debug, Default)]
pub struct Probe {
    /// Logs of a machine that does not keep to the rules.
    pub(crate) doubtful: BTreeSet<LogId>,
    /// Seats of such a machine.
    pub(crate) liars: BTreeSet<SeatId>,
    /// Seats of machines that an owner removed, or began to.
    pub(crate) removed: BTreeSet<(ThreadId, SeatId)>,
    /// Logs of theirs.
    pub(crate) logs_of_removed: BTreeSet<LogId>,
    /// Which epochs a member seals under after a removal that it knows of.
    sealing: BTreeMap<ThreadId, BTreeSet<EpochId>>,
    /// Which keys machines hold that an owner removed, or began to.
    held_by_removed: BTreeMap<(ThreadId, SeatId), BTreeSet<EpochId>>,
    /// Whom members know to be removed.
    known_removed: BTreeSet<(ThreadId, SeatId)>,
    /// What was wrong, by invariant.
    pub(crate) broken: Vec<Broken>,
    /// How often honest machines hold what only a liar makes.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// How many bytes of data, and in all, a machine keeps of a thread of what others wrote.
    pub(crate) kept: BTreeMap<(usize, ThreadId), (u64, u64)>,
    /// The service keys that were seen.
    services: BTreeMap<ThreadId, ServiceKey>,
    /// What each nonce sealed.
    nonces: BTreeMap<(SealedUnder, Vec<u8>), Vec<u8>>,
    /// Which record stands where.
    places: BTreeMap<(ThreadId, LogId, Seq), RecordId>,
    /// What the records of a thread on a machine add up to, folded anew.
    pub(crate) folded: BTreeMap<(usize, ThreadId), [u8; 32]>,
    /// Secrets that must stand in no text.
    pub(crate) secrets: Vec<Vec<u8>>,
}

/// A record that was opened, to be folded.
struct Record {
    place: RecordRef,
    stamp: Stamp,
    seat: SeatId,
    domain: u32,
    member: Option<OpRef>,
    plaintext: Vec<u8>,
}

impl Probe {
    /// What was wrong with one invariant.
    pub(crate) fn broken(&self, invariant: u8) -> Vec<String> {
        let of = self.broken.iter().filter(|it| it.invariant == invariant);
        of.map(|it| it.what.clone()).collect()
    }

    fn say(&mut self, invariant: u8, what: String) {
        self.broken.push(Broken { invariant, what });
    }

    /// Looks at a disk, and folds its records anew.
    pub(crate) fn look(
        &mut self,
        machine: usize,
        id: PeerId,
        view: &dyn View,
        dice: &mut Dice,
    ) -> Result<(), StoreError> {
        let mut replica = Replica::load(view, PeerKey(id.0), NonceSecret::new(&[0; 32]))?;
        let ids: Vec<_> = replica.threads().map(Thread::id).collect();
        let mut reads_any = false;
        let mut texts = format!("{replica:?}");
        for id in ids {
            let Some(thread) = replica.thread(&id) else {
                continue;
            };
            let reads = role(thread, thread.seat().id()).is_some_and(Role::reads);
            // Who could read keeps what he read.
            reads_any |= reads || self.is_removed(&id, thread.seat().id());
            self.removals(thread);
            self.keys(machine, thread, reads, view)?;
            self.sealings(thread, view)?;
            self.grants(machine, thread);
            for (record, reason) in thread.quarantined(view)? {
                let may_be = self.logs_of_removed.contains(&record.log);
                if !self.doubtful.is_empty() && !self.doubtful.contains(&record.log) && !may_be {
                    let what = format!("machine {machine} put {record:?} aside: {reason:?}");
                    self.say(37, what);
                }
            }
            self.storage(machine, thread, view)?;
            self.services
                .insert(thread.id(), thread.service_key().clone());
            self.keys_fit(thread, view)?;
            self.labels(thread);
            self.secrets.push(thread.service_key().expose().to_vec());
            self.secrets
                .push(thread.seat().signing.to_secret_bytes().to_vec());
            texts.push_str(&format!("{thread:?}{:?}", thread.seat()));
            if let Some(thread) = replica.thread_mut(&id) {
                if reads {
                    self.fold(machine, thread, view, dice)?;
                }
                // The last look: it lets in what waits for its time.
                self.stuck(machine, thread, view)?;
            }
        }
        self.canaries(machine, reads_any, view)?;
        self.texts(&texts);
        Ok(())
    }

    fn is_removed(&self, thread: &ThreadId, seat: SeatId) -> bool {
        self.removed.contains(&(*thread, seat))
    }

    /// Notes what tells whether the removed open what comes later.
    fn removals(&mut self, thread: &Thread) {
        let (id, own) = (thread.id(), thread.seat().id());
        let governance = thread.governance();
        let of_thread = self.removed.iter().filter(|(of, _)| *of == id);
        let removed: Vec<SeatId> = of_thread.map(|it| it.1).collect();
        for seat in &removed {
            self.logs_of_removed.insert(seat.control_log());
            let logs = governance.openings().filter(|(_, it)| it.seat == *seat);
            self.logs_of_removed.extend(logs.map(|it| it.0));
        }
        if removed.contains(&own) {
            let held = governance.epochs().map(|it| it.epoch);
            let held = held.filter(|it| thread.holds_key(it)).collect();
            self.held_by_removed.insert((id, own), held);
            return;
        }
        let known = removed.iter().filter(|it| governance.was_removed(**it));
        let known: Vec<_> = known.map(|it| (id, *it)).collect();
        if !known.is_empty() {
            let sealing = governance.sealing_epoch(leno_threads_core::THREAD_DOMAIN);
            self.sealing.entry(id).or_default().extend(sealing);
            self.known_removed.extend(known);
        }
    }

    /// 21: whom members know to be removed holds no key that they seal under.
    pub(crate) fn opened_by_removed(&self) -> Vec<String> {
        let known = self.known_removed.iter().filter_map(|(thread, seat)| {
            let held = self.held_by_removed.get(&(*thread, *seat))?;
            let epoch = self.sealing.get(thread)?.intersection(held).next()?;
            Some(format!("{seat} was removed and holds the key of {epoch:?}"))
        });
        known.collect()
    }

    /// 4: whatever is admitted names nothing that is not.
    fn causes(
        &mut self,
        machine: usize,
        thread: &Thread,
        view: &dyn View,
    ) -> Result<(), StoreError> {
        let is_here = |it: &RecordRef| {
            let named = thread.log(&it.log);
            named.is_some_and(|named| named.admitted >= it.seq) || self.doubtful.contains(&it.log)
        };
        let put_aside = thread.quarantined(view)?;
        let is_aside = |log: LogId, seq| {
            let mut aside = put_aside.iter();
            aside.any(|(it, _)| (it.log, it.seq) == (log, seq))
        };
        let mut missing = None;
        for log in thread.logs() {
            thread.scan_rows(view, &log.id, 1, &mut |_, row| {
                let read =
                    decode_row(row).and_then(|(tip, run)| run.verify(thread.id(), log.id, &tip));
                // A row that does not read is told of elsewhere.
                let Ok(run) = read else {
                    return ControlFlow::Continue(());
                };
                let admitted = run.records().iter().filter(|it| it.seq <= log.admitted);
                let admitted = admitted.filter(|it| !is_aside(log.id, it.seq));
                for record in admitted {
                    let mut named = record.deps.iter().chain(&record.control);
                    missing = missing.or(named.find(|it| !is_here(it)).copied());
                }
                ControlFlow::Continue(())
            })?;
        }
        if let Some(it) = missing {
            let what =
                format!("machine {machine} admitted what names {it:?}, which it did not admit");
            self.say(4, what);
        }
        Ok(())
    }

    /// 4, 13: looks at what is admitted in the midst of a run. What others wrote has no stamp that is
    /// too far ahead of any time that was shown here, if the time was known.
    pub(crate) fn admitted(
        &mut self,
        machine: usize,
        id: PeerId,
        view: &dyn View,
        highest_millis: Option<u64>,
    ) -> Result<(), StoreError> {
        let replica = Replica::load(view, PeerKey(id.0), NonceSecret::new(&[0; 32]))?;
        for thread in replica.threads() {
            self.causes(machine, thread, view)?;
            let own = thread.seat().id();
            for log in thread.logs() {
                let opening = thread.governance().opening(&log.id);
                let is_own =
                    log.id == own.control_log() || opening.is_some_and(|it| it.seat == own);
                let limit =
                    highest_millis.map_or(u64::MAX, |it| it.saturating_add(SKEW_MILLIS_MAX));
                let is_admitted = log.admitted == log.tip.seq && log.admitted > 0;
                if is_admitted && !is_own && log.tip.stamp.millis() > limit {
                    let ahead = log.tip.stamp.millis() - limit;
                    let what = format!(
                        "machine {machine} admitted what is {ahead} ms further ahead than may be"
                    );
                    self.say(13, what);
                }
            }
        }
        Ok(())
    }

    /// 13: each grant was given by somebody who may give it.
    fn grants(&mut self, machine: usize, thread: &Thread) {
        let governance = thread.governance();
        for seat in governance.seats() {
            for (_, grant) in governance.grants_of(seat) {
                let issuer = grant.issuer.and_then(|it| governance.grant_named(&it));
                let may = issuer.is_none_or(|it| it.op.role.may_grant(grant.op.role));
                if !may {
                    let role = grant.op.role;
                    let what = format!("on machine {machine} a role that may not gave {role:?}");
                    self.say(13, what);
                }
            }
        }
        // Nobody else is removed, and a liar that may removes nobody.
        let id = thread.id();
        let mut others = governance.seats().filter(|it| !self.is_removed(&id, *it));
        if let Some(seat) = others.find(|it| governance.was_removed(*it)) {
            let what = format!("on machine {machine} {seat} was removed by who may not");
            self.say(13, what);
        }
    }

    /// 39: what is stored was written by whoever holds a seat. And how much it is.
    fn storage(
        &mut self,
        machine: usize,
        thread: &Thread,
        view: &dyn View,
    ) -> Result<(), StoreError> {
        let (governance, own) = (thread.governance(), thread.seat().id());
        let (mut data, mut all) = (0, 0);
        for log in thread.logs().filter(|log| log.tip.seq > 0) {
            let seat = match log.is_control {
                true => Some(SeatId(log.id.0)),
                false => governance.opening(&log.id).map(|it| it.seat),
            };
            if seat.is_none_or(|it| governance.grants_of(it).next().is_none()) {
                let what = format!("machine {machine} stores log {} of a stranger", log.id);
                self.say(39, what);
            }
            if seat != Some(own) {
                all += log.bytes;
                data += if log.is_control { 0 } else { log.bytes };
            }
            if log.tip.seq - log.admitted > PARKED_RECORDS_MAX {
                let waits = log.tip.seq - log.admitted;
                let what = format!("on machine {machine} {waits} records of one log wait");
                self.say(38, what);
            }
            let of_liar = self.doubtful.contains(&log.id);
            let waits = of_liar && log.parked.is_some();
            *self.counts.entry("logs of liars that wait").or_default() += u64::from(waits);
        }
        self.kept.insert((machine, thread.id()), (data, all));
        let forks = thread.forks(view)?.len() as u64;
        *self.counts.entry("forks proven").or_default() += forks;
        let aside = thread.quarantined(view)?.len() as u64;
        *self.counts.entry("records put aside").or_default() += aside;
        let void = governance.void().count() as u64;
        *self.counts.entry("ops without effect").or_default() += void;
        Ok(())
    }

    /// 25: what is sealed for one log of one thread opens under no other key of the run.
    fn keys_fit(&mut self, thread: &Thread, view: &dyn View) -> Result<(), StoreError> {
        let (id, suite) = (thread.id(), thread.genesis().suite);
        let logs: Vec<_> = thread.logs().map(|log| log.id).collect();
        for log in &logs {
            let other_logs = logs.iter().filter(|it| *it != log).take(OTHER_KEYS);
            let service = thread.service_key();
            let mut wrong: Vec<Sealer> = other_logs
                .map(|it| Sealer::for_frames(suite, service, id, *it))
                .collect();
            for (other, key) in self.services.iter().filter(|(other, _)| **other != id) {
                wrong.push(Sealer::for_frames(suite, key, id, *log));
                wrong.push(Sealer::for_frames(suite, service, *other, *log));
            }
            let right = Sealer::for_frames(suite, service, id, *log);
            let is_doubtful = self.doubtful.contains(log);
            let mut opened = None;
            thread.scan_rows(view, log, 1, &mut |_, row| {
                let read = decode_row(row).and_then(|(tip, run)| run.verify(id, *log, &tip));
                // A row that does not read is told of elsewhere.
                let Ok(run) = read else {
                    return ControlFlow::Continue(());
                };
                let mut prev = run.first().id;
                for record in run.records() {
                    let context = SealContext {
                        thread: id,
                        log: *log,
                        seq: record.seq,
                        prev,
                        deps: record.deps.clone(),
                        control: record.control.clone(),
                        stamp: record.stamp,
                        key: record.key,
                    };
                    let context = context.encode();
                    let mut plaintext = Vec::new();
                    let mut opens = |it: &Sealer| {
                        plaintext.clear();
                        it.open(&context, record.body, &mut plaintext).is_ok()
                    };
                    let is_frame = record.key.is_control();
                    let is_good = opens(&right) == is_frame || is_doubtful;
                    if !is_good || wrong.iter().any(&mut opens) {
                        opened = opened.or(Some(record.seq));
                    }
                    prev = record.id;
                }
                ControlFlow::Continue(())
            })?;
            if let Some(seq) = opened {
                let what = format!("record {seq} of log {log} opens under a key that is not its");
                self.say(25, what);
            }
        }
        Ok(())
    }

    /// 44: what was signed as a head, or as the opening of a log, is good for nothing else.
    fn labels(&mut self, thread: &Thread) {
        for log in thread.logs() {
            let (Some(head), Ok(key)) = (log.head, VerifyingKey::from_bytes(&log.id.0)) else {
                continue;
            };
            let (thread, seq) = (thread.id(), head.seq.to_be_bytes());
            let parts: [&[u8]; 4] = [&thread.0, &log.id.0, &seq, &head.id.0];
            let mut others = Label::ALL.iter().filter(|it| **it != Label::LOG_HEAD);
            let taken = others.find(|it| key.verify(**it, &parts, &head.signature).is_ok());
            if let Some(label) = taken {
                self.say(44, format!("a head of log {} is good as {label:?}", log.id));
            }
        }
    }

    /// 37: what is here is admitted, or waits for something.
    fn stuck(
        &mut self,
        machine: usize,
        thread: &mut Thread,
        view: &dyn View,
    ) -> Result<(), StoreError> {
        // Of what is admitted here nothing is kept.
        let mut changes = Changes::new();
        let sink = &mut |_: &Opened<'_>| {};
        thread.release(view, Now::unset(0), &mut changes, sink)?;
        if thread.next_release_millis() == Some(0) {
            // There is more than one step lets in.
            return Ok(());
        }
        for log in thread.logs() {
            if log.admitted < log.tip.seq && log.parked.is_none() {
                let (id, admitted) = (log.id, log.admitted);
                let what = format!(
                    "on machine {machine} log {id} stands at {admitted} and waits for nothing"
                );
                self.say(37, what);
            }
        }
        Ok(())
    }

    /// 20, 22: keys are wrapped for those who read, and held by nobody else.
    fn keys(
        &mut self,
        machine: usize,
        thread: &Thread,
        reads: bool,
        view: &dyn View,
    ) -> Result<(), StoreError> {
        for wrap in thread.wraps(view)? {
            let role = role(thread, wrap.seat);
            if !role.is_some_and(Role::reads) && !self.is_removed(&thread.id(), wrap.seat) {
                let what = format!("machine {machine} keeps a key for a seat that is {role:?}");
                self.say(20, what);
            }
        }
        let governance = thread.governance();
        let reads = reads || self.is_removed(&thread.id(), thread.seat().id());
        if !reads && governance.epochs().any(|it| thread.holds_key(&it.epoch)) {
            self.say(
                22,
                format!("machine {machine} holds a key and may not read"),
            );
        }
        Ok(())
    }

    /// 24: no key and nonce seal two texts.
    fn sealings(&mut self, thread: &Thread, view: &dyn View) -> Result<(), StoreError> {
        let logs: Vec<_> = thread.logs().map(|log| log.id).collect();
        for log in logs {
            let mut rows = Vec::new();
            thread.scan_rows(view, &log, 1, &mut |_, row| {
                rows.push(row.to_vec());
                ControlFlow::Continue(())
            })?;
            for row in rows {
                let places = &mut self.places;
                let mut twice = None;
                let mut read = |row| -> Result<Vec<(SealedUnder, Vec<u8>)>, VerifyError> {
                    let (tip, run) = decode_row(row)?;
                    let run = run.verify(thread.id(), log, &tip)?;
                    let unsigned = |it: HeadError| VerifyError::NotSigned {
                        log: it.log,
                        seq: it.seq,
                    };
                    run.head().verify().map_err(unsigned)?;
                    let mut sealed = Vec::new();
                    for record in run.records() {
                        let place = (thread.id(), log, record.seq);
                        if *places.entry(place).or_insert(record.id) != record.id {
                            twice = Some(record.seq);
                        }
                        let body = match record.key {
                            KeyRef::Data { epoch, .. } => Some(epoch),
                            KeyRef::Control { .. } => None,
                        };
                        sealed.push(((thread.id(), log, body), record.body.to_vec()));
                        if let (Some(part), KeyRef::Control { roster: Some(of) }) =
                            (record.roster, record.key)
                        {
                            sealed.push(((thread.id(), log, Some(of)), part.to_vec()));
                        }
                    }
                    Ok(sealed)
                };
                let sealed = read(&row).map_err(|error| StoreError::Corrupt {
                    what: format!("a row of log {log} does not verify: {error}"),
                })?;
                if let Some(seq) = twice.filter(|_| !self.doubtful.contains(&log)) {
                    self.say(11, format!("log {log} has two records at {seq}"));
                }
                for (under, bytes) in sealed {
                    self.sealing(under, bytes);
                }
            }
        }
        Ok(())
    }

    fn sealing(&mut self, under: SealedUnder, bytes: Vec<u8>) {
        let nonce = bytes.iter().copied().take(12).collect();
        let known = self.nonces.entry((under, nonce)).or_insert(bytes.clone());
        if *known != bytes {
            let what = format!("two texts of log {} are sealed with one nonce", under.1);
            self.say(24, what);
        }
    }

    /// 2, 5: records folded anew, each twice, in any order, add up to the same.
    fn fold(
        &mut self,
        machine: usize,
        thread: &mut Thread,
        view: &dyn View,
        dice: &mut Dice,
    ) -> Result<(), StoreError> {
        let mut records = Vec::new();
        let logs: Vec<_> = thread.logs().filter(|it| !it.is_control).collect();
        for log in logs {
            let governance = thread.governance();
            let grant = governance.opening(&log.id).map(|it| it.grant);
            let member = grant
                .and_then(|it| governance.grant_named(&it))
                .map(|it| it.line);
            thread.replay(view, log.id, 0, &mut |opened: &Opened<'_>| {
                records.push(Record {
                    place: opened.record,
                    stamp: opened.stamp,
                    seat: opened.seat,
                    domain: opened.domain,
                    member,
                    plaintext: opened.plaintext.to_vec(),
                });
            })?;
        }
        let mut first = None;
        for order in 0..ORDERS {
            match order {
                0 => {}
                1 => records.reverse(),
                _ => shuffle(&mut records, dice),
            }
            let hash = folded(&records)?;
            if *first.get_or_insert(hash) != hash {
                let what =
                    format!("on machine {machine} order {order} of records adds up otherwise");
                self.say(2, what);
            }
        }
        if let Some(hash) = first {
            self.folded.insert((machine, thread.id()), hash);
        }
        Ok(())
    }

    /// 22: what is sealed is nowhere readable, and nothing is for whoever may read nothing.
    fn canaries(&mut self, machine: usize, reads: bool, view: &dyn View) -> Result<(), StoreError> {
        let sealed = [Table::Runs, Table::Logs, Table::Wraps];
        let tables = Table::ALL
            .iter()
            .filter(|table| !reads || sealed.contains(table));
        for table in tables {
            let mut found = None;
            let (from, to) = (Bound::Unbounded, Bound::Unbounded);
            view.scan(*table, from, to, Direction::Forward, &mut |key, row| {
                found = found.or_else(|| canary_in(key)).or_else(|| canary_in(row));
                match found {
                    None => ControlFlow::Continue(()),
                    Some(_) => ControlFlow::Break(()),
                }
            })?;
            if let Some(word) = found {
                let word = String::from_utf8_lossy(word);
                self.say(
                    22,
                    format!("machine {machine} keeps {word:?} readable in {table:?}"),
                );
            }
        }
        Ok(())
    }

    /// 27: no text that is shown holds a secret.
    pub(crate) fn texts(&mut self, text: &str) {
        for secret in self.secrets.clone() {
            let start = secret.get(..8).unwrap_or(&secret);
            let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            let list: Vec<String> = start.iter().map(u8::to_string).collect();
            if text.contains(&hex) || text.contains(&list.join(", ")) {
                let what: String = text.chars().take(80).collect();
                self.say(27, format!("a secret stands in {what:?}"));
            }
        }
    }
}

/// The canary that some bytes hold.
pub(crate) fn canary_in(bytes: &[u8]) -> Option<&'static [u8]> {
    CANARIES
        .into_iter()
        .find(|word| bytes.windows(word.len()).any(|window| window == *word))
}

fn role(thread: &Thread, seat: SeatId) -> Option<Role> {
    thread.governance().role(seat)
}

fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    for at in (1..items.len()).rev() {
        items.swap(at, dice.index(at + 1));
    }
}

/// The hash of what records add up to; each is folded twice.
fn folded(records: &[Record]) -> Result<[u8; 32], StoreError> {
    let store = MemoryStore::new();
    let nothing = store.view()?;
    let mut documents = Documents::load(&*nothing, 0)?;
    for record in records.iter().flat_map(|it| [it, it]) {
        let opened = Opened {
            record: record.place,
            stamp: record.stamp,
            seat: record.seat,
            domain: record.domain,
            plaintext: &record.plaintext,
        };
        documents.apply(&*nothing, &opened, record.member)?;
    }
    documents.state_hash(&*nothing)
}

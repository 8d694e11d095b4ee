//! What is collected of a run for the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use leno::store::{StoreError, View};
use leno::{DocumentId, Ipld, PeerId, ThreadId, ThreadStatus};
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::{LogId, NonceSecret, RecordId, SeatId, Seq, decode_row};

use crate::byzantine::FAR_MILLIS;
use crate::probe::Probe;

/// What a run left behind.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What each member showed of each thread at the end, when all were level.
    pub sights: Vec<Sight>,
    /// The heads of all logs, as they were durable at any time.
    pub heads: Heads,
    /// Logs may have forked, because a disk was put back on a machine that counts nothing.
    pub has_forks: bool,
    /// Stores that did not open.
    pub unopened: Vec<String>,
    /// What was found on disks.
    pub probe: Probe,
    /// Calls that had not ended at the end, and on which machines.
    pub calls_under_way: Vec<(usize, &'static str)>,
}

/// What a member shows of a thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// The machine.
    pub machine: usize,
    /// The thread: the place at which it was made.
    pub thread: usize,
    /// Its id.
    pub id: ThreadId,
    /// Whether its role opens records.
    pub reads: bool,
    /// Where it stands.
    pub status: Option<ThreadStatus>,
    /// The hash of all documents.
    pub state_hash: Option<[u8; 32]>,
    /// All documents, with the names of their collections.
    pub documents: Vec<(String, DocumentId, Ipld)>,
}

/// The heads of logs.
#[derive(Debug, Default)]
pub struct Heads {
    known: BTreeMap<(ThreadId, LogId), BTreeMap<Seq, RecordId>>,
    durable: BTreeMap<(usize, ThreadId), BTreeMap<LogId, (Seq, RecordId)>>,
    /// Seats of a machine that does not keep to the rules, and logs of these.
    pub distrusted: BTreeSet<SeatId>,
    /// Logs that may have two branches: those of such a seat, and those that a machine went on with
    /// that was put back and counts nothing.
    pub doubtful: BTreeSet<LogId>,
    /// Whether somebody lies while clocks are not set: whoever follows a stamp of the year 2100 then
    /// writes at that time from now on, and waits for it with everybody whose clock is set. See
    /// `docs/threats.md`.
    pub(crate) are_led_on: bool,
    /// Two records at one place.
    pub conflicts: BTreeSet<String>,
    /// Heads that went back.
    pub rollbacks: BTreeSet<String>,
}

/// The records of a machine's own data logs, by thread.
#[derive(Debug, Default)]
pub(crate) struct OwnRecords {
    logs: BTreeMap<ThreadId, (LogId, BTreeMap<Seq, RecordId>)>,
}

impl OwnRecords {
    /// Reads them from a disk.
    pub(crate) fn read(view: &dyn View, id: PeerId) -> Result<Self, StoreError> {
        let replica = Replica::load(view, PeerKey(id.0), NonceSecret::new(&[0; 32]))?;
        let mut logs = BTreeMap::new();
        for thread in replica.threads() {
            let Some(log) = thread.own_log() else {
                continue;
            };
            let mut records = BTreeMap::new();
            thread.scan_rows(view, &log, 1, &mut |_, row| {
                let read =
                    decode_row(row).and_then(|(tip, run)| run.verify(thread.id(), log, &tip));
                // A row that does not read is told of elsewhere.
                let run = read.iter();
                records.extend(run.flat_map(|run| run.records()).map(|it| (it.seq, it.id)));
                ControlFlow::Continue(())
            })?;
            logs.insert(thread.id(), (log, records));
        }
        Ok(Self { logs })
    }

    /// Their logs.
    pub(crate) fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.logs.values().map(|(log, _)| *log)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.logs.values().all(|(_, records)| records.is_empty())
    }

    /// What is here of logs that are also there, and is not there.
    pub(crate) fn without(mut self, other: Self) -> Self {
        self.logs.retain(|thread, (log, records)| {
            let same = other.logs.get(thread).filter(|(of, _)| of == log);
            let kept = same.map_or(0, |(_, kept)| kept.len() as u64);
            records.retain(|seq, _| *seq > kept);
            same.is_some()
        });
        self
    }

    /// A log that is gone on with here although what was lost of it came back from others.
    pub(crate) fn gone_on_with(&self, now: &Self) -> Option<LogId> {
        let mut logs = now.logs.iter();
        let gone_on_with = logs.find(|(thread, (log, records))| {
            let lost = self.logs.get(thread).filter(|(of, _)| of == log);
            let lost = lost.and_then(|(_, lost)| lost.first_key_value());
            lost.is_some_and(|(seq, id)| records.get(seq) == Some(id))
        });
        gone_on_with.map(|(_, (log, _))| *log)
    }
}

impl Heads {
    /// Notes what is durable on a machine.
    pub(crate) fn observe(
        &mut self,
        machine: usize,
        id: PeerId,
        view: &dyn View,
    ) -> Result<(), StoreError> {
        // Nothing is sealed, so any secret will do.
        let replica = Replica::load(view, PeerKey(id.0), NonceSecret::new(&[0; 32]))?;
        for thread in replica.threads() {
            let governance = thread.governance();
            for (log, opening) in governance.openings() {
                if self.distrusted.contains(&opening.seat) {
                    self.doubtful.insert(log);
                }
            }
            if self.are_led_on {
                let late = thread
                    .logs()
                    .filter(|log| log.tip.stamp.millis() >= FAR_MILLIS);
                self.doubtful.extend(late.map(|log| log.id));
            }
            let before = self.durable.remove(&(machine, thread.id()));
            let mut now = BTreeMap::new();
            for log in thread.logs().filter(|log| log.tip.seq > 0) {
                let (seq, record) = (log.tip.seq, log.tip.id);
                now.insert(log.id, (seq, record));
                let known = self.known.entry((thread.id(), log.id)).or_default();
                if *known.entry(seq).or_insert(record) != record && !self.doubtful.contains(&log.id)
                {
                    let what = format!("log {} has two records at {seq}", log.id);
                    self.conflicts.insert(what);
                }
            }
            for (log, (seq, record)) in before.into_iter().flatten() {
                let is_kept = now.get(&log).is_some_and(|(newer, same)| {
                    *newer > seq || (*newer == seq && *same == record)
                });
                if !is_kept && !self.doubtful.contains(&log) {
                    let what = format!("machine {machine} had log {log} up to {seq}");
                    self.rollbacks.insert(what);
                }
            }
            self.durable.insert((machine, thread.id()), now);
        }
        Ok(())
    }

    /// Whoever holds these seats does not keep to the rules.
    pub(crate) fn distrust(&mut self, seats: impl IntoIterator<Item = SeatId>) {
        for seat in seats {
            self.distrusted.insert(seat);
            self.doubtful.insert(seat.control_log());
        }
    }

    /// A machine that counts nothing was put back, so these logs of it may have two branches. Which of
    /// them stands nobody says, so each may keep the one that it has: see `docs/threats.md`.
    pub(crate) fn doubt(&mut self, logs: impl IntoIterator<Item = LogId>) {
        self.doubtful.extend(logs);
    }

    /// As [`Heads::of`], without the logs of those who do not keep to the rules.
    #[must_use]
    pub fn honest(&self, machine: usize, thread: ThreadId) -> BTreeMap<LogId, (Seq, RecordId)> {
        let mut heads = self.of(machine, thread);
        heads.retain(|log, _| !self.doubtful.contains(log));
        heads
    }

    /// The disk of a machine was put back to an older state.
    pub(crate) fn put_back(&mut self, machine: usize) {
        self.durable.retain(|(of, _), _| *of != machine);
    }

    /// How far a machine has a thread.
    #[must_use]
    pub fn of(&self, machine: usize, thread: ThreadId) -> BTreeMap<LogId, (Seq, RecordId)> {
        let durable = self.durable.get(&(machine, thread));
        durable.cloned().unwrap_or_default()
    }
}

//! What is collected of a run for the invariants.

use std::collections::{BTreeMap, BTreeSet};

use leno::store::{StoreError, View};
use leno::{DocumentId, Ipld, PeerId, ThreadId, ThreadStatus};
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::{LogId, NonceSecret, RecordId, SeatId, Seq};

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
    /// See above.
    pub doubtful: BTreeSet<LogId>,
    /// Two records at one place.
    pub conflicts: BTreeSet<String>,
    /// Heads that went back.
    pub rollbacks: BTreeSet<String>,
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
                if !is_kept {
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

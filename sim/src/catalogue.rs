//! All invariants, and how each is checked.
//!
//! To add one: write a function from [`Evidence`] to what is wrong, and name it in the table. What has
//! to be looked at during a run is pushed to `Model::broken` where it is seen.

use std::collections::BTreeSet;

use leno_threads_core::RecordRef;
use leno_threads_core::thread::Parked;

use crate::evidence::{Evidence, Sight};

/// How an invariant is checked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Check {
    /// After the run, from what it left behind: tells what is wrong.
    AtEnd(fn(&Evidence) -> Vec<String>),
    /// During the run, by what is named.
    During(&'static str),
    /// Not yet: it waits for what is named.
    Waits(&'static str),
}

/// A rule that must hold in every run.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// Its number.
    pub number: u8,
    /// What must hold.
    pub rule: &'static str,
    /// How it is checked.
    pub check: Check,
}

/// All invariants, by number.
///
/// # Examples
///
/// ```
/// use leno_sim::catalogue;
///
/// let numbers: Vec<u8> = catalogue().iter().map(|it| it.number).collect();
/// assert_eq!(numbers, (1..=49).collect::<Vec<u8>>());
/// ```
#[must_use]
pub fn catalogue() -> &'static [Invariant] {
    CATALOGUE
}

const fn row(number: u8, rule: &'static str, check: Check) -> Invariant {
    Invariant {
        number,
        rule,
        check,
    }
}

use Check::{AtEnd, During, Waits};

#[rustfmt::skip]
const CATALOGUE: &[Invariant] = &[
    row(1, "same records: same documents and state hash on every peer", AtEnd(equal_states)),
    row(2, "incremental reduction equals a naive one", AtEnd(equals_fold)),
    row(3, "snapshot and tail equal a full replay", Waits("snapshots")),
    row(4, "session guarantees at one peer, order of each writer", AtEnd(|it| it.probe.broken(4))), // and the ledger during the run: reads, and what watchers are told
    row(5, "delivering anything again changes nothing", During("breaches duplicate and replay messages; what is folded anew is folded twice, see 2")),
    row(6, "peers that reach each other come level", During("the end of each run: heads are equal within bounded time")),
    row(7, "what was acknowledged is there after a crash", During("ledger: the first read after each start")),
    row(8, "the store opens by itself", AtEnd(stores_open)),
    row(9, "a head never names a record that is not durable", During("heads are read from what is durable, and load as a whole")),
    row(10, "nothing leaves before it is durable", AtEnd(no_forks)),
    row(11, "one log key never signs two records at one place", AtEnd(no_two_at_one_place)),
    row(12, "a full or failing disk leaves a readable store", AtEnd(stores_open)),
    row(13, "nothing shows that its author may not write", AtEnd(|it| it.probe.broken(13))),
    row(14, "nothing above a fence shows", During("owners remove members, who go on: those who are left must show the same, see 1 and 2")),
    row(15, "access comes back only by a new signature", Waits("removal")),
    row(16, "a re-admission revives nothing", Waits("removal")),
    row(17, "an owner is not outranked by admins", Waits("removal")),
    row(18, "writes stay within the scopes of their author", Waits("scopes")),
    row(19, "evaluation of roles is bounded", Waits("a step counter in the acl")),
    row(20, "an epoch's readers are those who may read", AtEnd(|it| it.probe.broken(20))),
    row(21, "the removed cannot open what comes later", AtEnd(|it| it.probe.opened_by_removed())),
    row(22, "a replicator's disk and traffic show nothing", AtEnd(|it| it.probe.broken(22))),
    row(23, "equal shapes look equal to a replicator", During("a sample of seeds is run again with other words: each message on the wire has the same time, way and length")),
    row(24, "no key and nonce pair seals two texts", AtEnd(|it| it.probe.broken(24))),
    row(25, "a ciphertext opens under one key", AtEnd(|it| it.probe.broken(25))),
    row(26, "newcomers open what their grant says", Waits("rotation, and grants from now on")),
    row(27, "secrets are shown nowhere", AtEnd(|it| it.probe.broken(27))),
    row(28, "a verified head never goes back", AtEnd(no_rollbacks)),
    row(29, "no honest crash gives a proof of a fork", During("events of forks on machines that keep count")),
    row(30, "a signature has one form", During("liars and breaches change bytes of runs; a second id or a false fork shows as 1, 11 or 29; forms are tested in identity")),
    row(31, "a block's hash is its name", Waits("blocks")),
    row(32, "names never go back", Waits("buckets and IPNS")),
    row(33, "a snapshot shows no more than history", Waits("snapshots")),
    row(34, "memory is bounded under hostile input", Waits("a counting allocator per machine, which a run in one process has not; counted in tests of threads-core")),
    row(35, "no input makes anything panic", During("a panic of any task fails the run, whatever liars send")),
    row(36, "a flood leaves others half of the throughput", Waits("a cost per message of simulated processors: floods strike, and honest machines must come level in bounded time, see 6")),
    row(37, "what is poisoned blocks nobody else", AtEnd(nothing_waits)),
    row(38, "queues are bounded", AtEnd(|it| it.probe.broken(38))),
    row(39, "a writer's storage stays within its quota", AtEnd(|it| it.probe.broken(39))),
    row(40, "every call ends", AtEnd(calls_end)),
    row(41, "a pull writes only inside its root", Waits("buckets")),
    row(42, "a pull after a push is the same", Waits("buckets")),
    row(43, "no plaintext is left in temporary files", Waits("buckets")),
    row(44, "a signature for one purpose fits no other", AtEnd(|it| it.probe.broken(44))),
    row(45, "recovery restores the same identity", Waits("recovery")),
    row(46, "an aggregate equals a recomputation", Waits("aggregators")),
    row(47, "one seed, one trace", During("a sample of seeds is run twice and compared")),
    row(48, "every error is typed", During("each refused call is compared with what may refuse it")),
    row(49, "released verdicts never change", Waits("a first release")),
];

/// 1: all who read a thread show the same.
fn equal_states(evidence: &Evidence) -> Vec<String> {
    let mut broken = Vec::new();
    let readers = || evidence.sights.iter().filter(|it| it.reads);
    for sight in readers() {
        let Some(first) = readers().find(|it| it.thread == sight.thread) else {
            continue;
        };
        if is_comparable(evidence, first, sight)
            && (first.state_hash != sight.state_hash || first.documents != sight.documents)
        {
            broken.push(difference(evidence, first, sight));
        }
    }
    broken
}

/// Of a log that somebody forked, each may hold another branch: then nothing is said of what shows.
fn is_comparable(evidence: &Evidence, one: &Sight, other: &Sight) -> bool {
    let heads = |sight: &Sight| evidence.heads.of(sight.machine, sight.id);
    let waits = |sight: &Sight| {
        let status = sight.status.as_ref();
        status.is_some_and(|it| !it.waiting.is_empty())
    };
    evidence.heads.doubtful.is_empty()
        || (heads(one) == heads(other) && !waits(one) && !waits(other))
}

fn difference(evidence: &Evidence, one: &Sight, other: &Sight) -> String {
    let shown = difference_shown(one, other);
    let heads = |sight: &Sight| evidence.heads.of(sight.machine, sight.id);
    let (ours, theirs) = (heads(one), heads(other));
    let logs: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let logs = logs.into_iter().filter(|it| ours.get(it) != theirs.get(it));
    let logs: Vec<String> = logs
        .map(|it| format!("{it}: {:?} and {:?}", ours.get(it), theirs.get(it)))
        .collect();
    let waiting = |sight: &Sight| {
        let logs = sight.status.iter().flat_map(|it| &it.waiting);
        let logs = logs.map(|it| format!("{} at {}: {:?}", it.id, it.admitted, it.parked));
        logs.collect::<Vec<_>>()
    };
    let (one, other) = (waiting(one), waiting(other));
    format!("{shown}; heads that differ: {logs:?}; logs that wait: {one:?} and {other:?}")
}

fn difference_shown(one: &Sight, other: &Sight) -> String {
    let (a, b) = (one.machine, other.machine);
    let documents = one.documents.iter().zip(&other.documents);
    let differing = documents.into_iter().find(|(one, other)| one != other);
    match differing {
        Some((one, other)) => format!("machine {a} shows {one:?}, machine {b} {other:?}"),
        None => format!(
            "machines {a} and {b} show {} and {} documents, hashes {:?} and {:?}",
            one.documents.len(),
            other.documents.len(),
            one.state_hash,
            other.state_hash
        ),
    }
}

/// 2: what a peer shows is what its records add up to, folded anew and in other orders.
fn equals_fold(evidence: &Evidence) -> Vec<String> {
    let mut broken = evidence.probe.broken(2);
    for sight in &evidence.sights {
        let folded = evidence.probe.folded.get(&(sight.machine, sight.id));
        if let (Some(folded), Some(shown)) = (folded, &sight.state_hash)
            && folded != shown
        {
            let (machine, thread) = (sight.machine, sight.thread);
            broken.push(format!(
                "machine {machine} shows of thread {thread} what its records do not add up to"
            ));
        }
    }
    broken
}

/// 11: as [`no_forks`], over all records that are on any disk.
fn no_two_at_one_place(evidence: &Evidence) -> Vec<String> {
    let mut broken = no_forks(evidence);
    broken.extend(evidence.probe.broken(11));
    broken
}

/// 8, 12: every disk opened whenever it was looked at.
fn stores_open(evidence: &Evidence) -> Vec<String> {
    evidence.unopened.clone()
}

/// 10, 11: no two records at one place of a log.
fn no_forks(evidence: &Evidence) -> Vec<String> {
    evidence.heads.conflicts.iter().cloned().collect()
}

/// 28: no head went back, unless its disk was put back.
fn no_rollbacks(evidence: &Evidence) -> Vec<String> {
    evidence.heads.rollbacks.iter().cloned().collect()
}

/// 37: nothing waits for ever, and nothing is put aside.
fn nothing_waits(evidence: &Evidence) -> Vec<String> {
    let mut broken = evidence.probe.broken(37);
    for sight in &evidence.sights {
        let Some(status) = &sight.status else {
            continue;
        };
        let doubtful = &evidence.heads.doubtful;
        // Who tells some another branch of his control log opens logs that the others do not have; what
        // honest members write behind these waits there, see `docs/threats.md`.
        let here = evidence.heads.of(sight.machine, sight.id);
        let is_elsewhere =
            |it: &RecordRef| doubtful.contains(&it.log) && !here.contains_key(&it.log);
        let mut waiting = status.waiting.iter();
        let waits = waiting.any(|log| {
            let named = match &log.parked {
                Some(Parked::Dep(it) | Parked::Control(it) | Parked::Fork(it)) => Some(it),
                _ => None,
            };
            let of_removed = evidence.probe.logs_of_removed.contains(&log.id);
            !doubtful.contains(&log.id) && !of_removed && !named.is_some_and(is_elsewhere)
        });
        let mut removed = evidence.probe.removed.iter();
        let has_removed = removed.any(|(thread, _)| *thread == sight.id);
        let put_aside = doubtful.is_empty() && status.quarantined > 0 && !has_removed;
        if waits || put_aside {
            let (machine, thread) = (sight.machine, sight.thread);
            broken.push(format!("machine {machine}, thread {thread}: {status:?}"));
        }
    }
    broken
}

/// 40: every call has ended.
fn calls_end(evidence: &Evidence) -> Vec<String> {
    let calls = evidence.calls_under_way.iter();
    calls
        .map(|(machine, name)| format!("{name} on machine {machine} does not end"))
        .collect()
}

//! What a hostile peer can make a replica hold at once: at most [`BOUND`] for its connection, whatever
//! it sends, however often, and whether it reads the answers or not.
//!
//! A binary of its own, because the allocator counts for the whole process. What is
//! counted: the session and all else that the replica keeps in memory because of it, what a step takes
//! on its way, the rows that it is about to commit, the message that came and the one that goes out.
//! Not counted: rows that are committed, which are on disk elsewhere (quotas bound those).

#![expect(
    clippy::indexing_slicing,
    clippy::result_large_err,
    clippy::unwrap_used,
    reason = "helpers of tests, which may panic as the tests do"
)]

use std::collections::BTreeMap;

use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::store::Store;
use leno_threads_core::sync::{
    AckLog, EPOCHS_MAX, HaveLog, LOGS_MAX, LogName, Message, SyncError, TAGS_MAX, WRAPS_MAX,
};
use leno_threads_core::thread::Changes;
use leno_threads_core::{
    EpochId, Header, LogId, RecordId, RecordRef, Role, Run, SealContext, SealedPart, Stamp,
    THREAD_DOMAIN, ThreadId, Wrap,
};
use peak_alloc::PeakAlloc;

use crate::util::{OwnedRun, Peer, backup, forget_each_other, new_seat, secrets, sync};

#[expect(dead_code, reason = "shared with the other binary")]
#[path = "it/util.rs"]
mod util;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The most that a connection may cost.
const BOUND: usize = 8 << 20;

/// Days after which records are let in that claim to be from the future.
const FUTURE_MILLIS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    /// Has a seat that may write.
    Writer,
    /// Has the service key, and a seat that nobody granted anything.
    KeyHolder,
    /// Has nothing.
    Stranger,
}

/// Alice, who is attacked by Mallory over one connection.
struct World {
    alice: Peer,
    mallory: Peer,
    /// The threads, by Mallory's numbers for them.
    ids: Vec<ThreadId>,
    /// Whether Mallory takes what Alice sends.
    reads: bool,
    /// Bytes that Alice keeps in memory because of the connection, rows aside.
    live: isize,
    peak: isize,
    /// What Alice's rows took when they were last looked at.
    rows: isize,
    /// Logs that ranges named, by thread.
    named: BTreeMap<usize, Vec<LogId>>,
}

fn current() -> isize {
    ALLOCATOR.current_usage().try_into().unwrap()
}

impl World {
    /// What Alice's rows take in memory. Her store is made anew for it, so that it takes as much each time
    /// however it grew.
    fn size_of_rows(&mut self) -> isize {
        let before = current();
        let copy = backup(&self.alice.store);
        let size = current() - before;
        self.alice.store = copy;
        size
    }

    fn new(who: Who, threads: usize, reads: bool) -> Self {
        let (mut alice, mut mallory) = (Peer::new(1), Peer::new(9));
        let mut ids: Vec<_> = (0..threads).map(|_| alice.create()).collect();
        ids.sort();
        for id in &ids {
            alice.write(*id, "one");
            match who {
                Who::Writer => {
                    alice.seat(&mut mallory, *id, Role::Writer);
                }
                Who::KeyHolder => {
                    let seat = new_seat(&mut mallory.rng);
                    let service = alice.thread(*id).service_key().clone();
                    mallory.step(|replica, _, _, changes| {
                        replica.join(*id, service, seat, changes);
                    });
                }
                Who::Stranger => {}
            }
        }
        if who == Who::Writer {
            sync(&mut alice, &mut mallory);
            for id in &ids {
                mallory.write(*id, "opens the log");
            }
        }
        sync(&mut alice, &mut mallory);
        alice.replica.disconnected(&mallory.key);
        mallory.replica.disconnected(&alice.key);
        // What both remember and what did not change is not talked about: nothing could be attacked.
        forget_each_other(&mut alice, &mut mallory);
        let mut world = Self {
            alice,
            mallory,
            ids,
            // What is said at the beginning is heard.
            reads: false,
            live: 0,
            peak: 0,
            rows: 0,
            named: BTreeMap::new(),
        };
        world.rows = world.size_of_rows();
        world.meet();
        world.reads = reads;
        world
    }

    /// Begins a session, and says all that honest peers say at its beginning.
    fn meet(&mut self) {
        let key = self.mallory.key;
        let before = current();
        self.alice.connected(key);
        self.live += current() - before;
        self.mallory.connected(self.alice.key);
        for _ in 0..100 {
            let message = self.mallory.poll(self.alice.key);
            if let Some(message) = &message {
                self.hand(message).unwrap();
            }
            let before = current();
            let answer = self.alice.poll(key);
            self.live += current() - before;
            if let Some(answer) = &answer {
                self.live -= isize::try_from(answer.capacity()).unwrap();
                self.mallory.receive(self.alice.key, answer).unwrap();
            } else if message.is_none() {
                return;
            }
        }
        panic!("two peers talk for ever");
    }

    /// Hands a message to Alice.
    fn hand(&mut self, bytes: &[u8]) -> Result<(), SyncError> {
        let from = self.mallory.key;
        let before = current();
        ALLOCATOR.reset_peak_usage();
        let mut changes = Changes::new();
        let result = {
            let view = self.alice.store.view().unwrap();
            let mut sink = |_, _: &leno_threads_core::thread::Opened<'_>| {};
            let (now, rng) = (self.alice.now, &mut self.alice.rng);
            let replica = &mut self.alice.replica;
            replica.handle_message(&*view, from, bytes, now, rng, &mut changes, &mut sink)
        };
        let taken = isize::try_from(ALLOCATOR.peak_usage()).unwrap() - before;
        let length = isize::try_from(bytes.len()).unwrap();
        self.peak = self.peak.max(self.live + taken + length);
        let has_rows = !changes.batch.is_empty();
        futures_executor::block_on(self.alice.store.commit(changes.batch)).unwrap();
        drop((changes.events, changes.forks));
        if has_rows {
            let rows = self.size_of_rows();
            self.live -= rows - self.rows;
            self.rows = rows;
        }
        self.live += current() - before;
        if self.reads {
            self.drain();
        }
        self.peak = self.peak.max(self.live);
        result
    }

    /// Lets Alice say all that she has to say, and throws it away.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            let before = current();
            ALLOCATOR.reset_peak_usage();
            let message = self.alice.poll(self.mallory.key);
            let taken = isize::try_from(ALLOCATOR.peak_usage()).unwrap() - before;
            self.peak = self.peak.max(self.live + taken);
            let is_over = message.is_none();
            drop(message);
            self.live += current() - before;
            if is_over {
                return;
            }
        }
        panic!("a replica never falls silent");
    }
}

fn number(at: usize) -> [u8; 32] {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(at as u64).to_be_bytes());
    bytes
}

fn thread_number(thread: usize) -> u32 {
    thread.try_into().unwrap()
}

/// Logs that nobody knows, others in each round, with this number.
fn logs(round: usize, seq: u64) -> Vec<HaveLog> {
    let logs = (0..LOGS_MAX).map(|at| HaveLog {
        log: LogId(number((round << 32) + at)),
        seq,
        hash: [1; 8],
    });
    logs.collect()
}

/// One way to attack: messages of a round about a thread.
type Attack = fn(&mut World, usize, usize) -> Vec<Vec<u8>>;

/// All attacks, each with the number of its rounds.
const ATTACKS: [(&str, usize, Attack); 21] = [
    ("proofs", 50, proofs),
    ("vectors", 5, |_, thread, round| {
        have(thread, logs(round, 1))
    }),
    ("vectors without room", 5, |_, thread, round| {
        have(thread, logs(round, u64::MAX - 1))
    }),
    ("totals", 5, |_, thread, _| {
        let (thread, records) = (thread_number(thread), u64::MAX);
        vec![Message::Totals { thread, records }.encode()]
    }),
    ("announcements", 5, announcements),
    ("grafts", 5, grafts),
    ("prunes", 5, |_, thread, _| {
        let thread = thread_number(thread);
        vec![
            Message::Prune { thread }.encode(),
            Message::Pause { thread }.encode(),
        ]
    }),
    ("ranges of unknown logs", 1, strange_ranges),
    ("ranges that nobody signed", 3, unsigned),
    ("ranges from the future", 12, from_the_future),
    ("ranges that wait for others", 12, waiting),
    ("wraps of unknown epochs", 24, |world, thread, round| {
        wraps(world, thread, round, false)
    }),
    ("wraps of known epochs", 24, |world, thread, round| {
        wraps(world, thread, round, true)
    }),
    ("acknowledgements", 3, acks),
    ("questions", 4, questions),
    ("a branch", 2, branch),
    ("geneses", 3, |_, thread, _| {
        let (thread, genesis) = (thread_number(thread), &[0; 1 << 20][..]);
        vec![Message::Genesis { thread, genesis }.encode()]
    }),
    ("refusals", 300, refusals),
    ("requests for keys", 200, keys),
    ("signals", 2, signals),
    // Last: it ends what is shared.
    ("tags", 1, tags),
];

fn proofs(world: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    // Most are refused, which ends a session.
    let signature = [u8::try_from(round % 256).unwrap(); 64];
    let seat = world.alice.thread(world.ids[0]).seat().id();
    let thread = thread_number(thread);
    let prove = Message::Prove {
        thread,
        seat,
        signature,
    };
    vec![prove.encode()]
}

fn have(thread: usize, logs: Vec<HaveLog>) -> Vec<Vec<u8>> {
    let have = Message::Have {
        thread: thread_number(thread),
        subscribe: true,
        wraps: [0; 8],
        logs,
    };
    vec![have.encode()]
}

fn announcements(_: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    let announce = Message::Announce {
        thread: thread_number(thread),
        has_room: true,
        logs: logs(round, 1),
    };
    vec![announce.encode()]
}

fn grafts(_: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    let logs = logs(round, 1).into_iter().map(|it| (it.log, it.seq));
    let graft = Message::Graft {
        thread: thread_number(thread),
        always: true,
        logs: logs.collect(),
    };
    vec![graft.encode()]
}

fn range(world: &mut World, thread: usize, log: LogId, runs: &[OwnedRun]) -> Vec<u8> {
    let parts = runs.iter();
    let parts = parts.map(|(_, items, signature)| Run::from_parts(items, signature).unwrap());
    let named = world.named.entry(thread).or_default();
    let log = match named.iter().position(|it| *it == log) {
        Some(number) => LogName::Known(number.try_into().unwrap()),
        None => {
            named.push(log);
            LogName::New(log)
        }
    };
    Message::Range {
        thread: thread_number(thread),
        log,
        first: runs[0].0,
        runs: parts.collect(),
    }
    .encode()
}

/// Items as small as they can be.
fn smallest(count: usize) -> Vec<u8> {
    let mut items = Encoder::new();
    items.array(count);
    for _ in 0..count {
        items.array(2).uint(1).bytes(&[0; 28]);
    }
    items.into_vec()
}

fn strange_ranges(world: &mut World, thread: usize, _: usize) -> Vec<Vec<u8>> {
    let run = (1, smallest(1), [1; 64]);
    let logs = (0..LOGS_MAX).map(|at| LogId(number(at)));
    logs.map(|log| range(world, thread, log, std::slice::from_ref(&run)))
        .collect()
}

/// Mallory's own log in a thread, if there is one, and the runs that follow it.
fn craft(
    world: &mut World,
    thread: usize,
    make: &dyn Fn(&util::Secrets, u64, u64) -> util::Crafted,
) -> Vec<Vec<u8>> {
    let id = world.ids[thread];
    if world.mallory.replica.thread(&id).is_none() {
        return Vec::new();
    }
    let keys = secrets(&world.mallory, id);
    let Some(signer) = keys.writer.as_ref() else {
        return Vec::new();
    };
    let log = LogId(signer.verifying_key().to_bytes());
    let tip = world.alice.tip(id, log);
    let records: Vec<_> = (1..=700).map(|at| make(&keys, tip.stamp.0, at)).collect();
    let (run, _) = keys.craft(id, signer, &tip, &records);
    vec![range(world, thread, log, &[run])]
}

fn unsigned(world: &mut World, thread: usize, _: usize) -> Vec<Vec<u8>> {
    let id = world.ids[thread];
    let own = world.alice.replica.thread(&id).and_then(|it| it.own_log());
    let Some(log) = own else { return Vec::new() };
    let next = world.alice.tip(id, log).seq + 1;
    let mut long = Encoder::new();
    long.array(1)
        .array(2)
        .uint(1)
        .bytes(&vec![0; (1 << 20) - 16]);
    let runs = [smallest(1_024), long.into_vec()].map(|items| (next, items, [1; 64]));
    runs.iter()
        .map(|run| range(world, thread, log, std::slice::from_ref(run)))
        .collect()
}

/// About a megabyte of records with a stamp that nobody lets in for a month.
fn from_the_future(world: &mut World, thread: usize, _: usize) -> Vec<Vec<u8>> {
    let later = Stamp::from_millis(util::NOW + FUTURE_MILLIS).0;
    craft(world, thread, &move |keys, tip, at| {
        keys.text(Stamp(tip.max(later) + at), &"x".repeat(1_300))
    })
}

/// Records that name others that never come, each its own.
fn waiting(world: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    craft(world, thread, &move |keys, tip, at| {
        let mut record = keys.text(Stamp(tip + at), "x");
        let refs = (0..16).map(|it| RecordRef {
            log: LogId(number((round << 40) + ((at as usize) << 8) + it)),
            seq: 1,
            id: RecordId([1; 32]),
        });
        record.deps = refs.collect();
        record
    })
}

fn wraps(world: &mut World, thread: usize, round: usize, is_known: bool) -> Vec<Vec<u8>> {
    let Some(here) = world.alice.replica.thread(&world.ids[thread]) else {
        return Vec::new();
    };
    let epochs: Vec<_> = here.governance().epochs().collect();
    let seats: Vec<_> = here.governance().seats().collect();
    let wraps = (0..WRAPS_MAX).map(|at| Wrap {
        domain: THREAD_DOMAIN,
        epoch: match is_known {
            true => epochs[at % epochs.len()].epoch,
            false => EpochId(number(at)),
        },
        seat: seats[at % seats.len()],
        encapsulated: number((round << 32) + at).map(|it| it.rotate_left(3)),
        sealed: [0; 48],
    });
    let mut wraps: Vec<_> = wraps.collect();
    for (at, wrap) in wraps.iter_mut().enumerate() {
        // The first bytes tell wraps apart.
        wrap.encapsulated[..8].copy_from_slice(&(((round << 32) + at) as u64).to_le_bytes());
    }
    let thread = thread_number(thread);
    vec![Message::Wraps { thread, wraps }.encode()]
}

fn acks(_: &mut World, thread: usize, _: usize) -> Vec<Vec<u8>> {
    let ack = AckLog {
        number: 0,
        seq: u64::MAX,
        ranges: u64::MAX,
    };
    let acks = Message::Ack {
        thread: thread_number(thread),
        logs: vec![ack; LOGS_MAX],
    };
    vec![acks.encode()]
}

fn questions(world: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    let Some(here) = world.alice.replica.thread(&world.ids[thread]) else {
        return Vec::new();
    };
    let known: Vec<_> = here.logs().map(|log| log.id).collect();
    let question = |log| {
        let (thread, from) = (thread_number(thread), 1);
        Message::Question { thread, log, from }.encode()
    };
    let unknown = (0..100).map(|at| LogId(number((round << 32) + at)));
    known.into_iter().chain(unknown).map(question).collect()
}

/// A long branch of Alice's log, after a vector that claims that there is one.
fn branch(world: &mut World, thread: usize, _: usize) -> Vec<Vec<u8>> {
    let id = world.ids[thread];
    let own = world.alice.replica.thread(&id).and_then(|it| it.own_log());
    let Some(log) = own else { return Vec::new() };
    let tip = world.alice.tip(id, log);
    let key = secrets(&world.alice, id).data_key();
    let mut prev = tip.id;
    let headers = (0..1_024).map(|at| {
        let deps = (0..8).map(|it| RecordRef {
            log: LogId(number(it)),
            seq: 1,
            id: RecordId([1; 32]),
        });
        let context = SealContext {
            thread: id,
            log,
            seq: tip.seq + at,
            prev,
            deps: deps.collect(),
            control: Vec::new(),
            stamp: Stamp(tip.stamp.0 + at),
            key,
        };
        let header = Header {
            context,
            body: SealedPart::of(b""),
            roster: None,
        };
        prev = header.id();
        header
    });
    let branch = Message::Branch {
        thread: thread_number(thread),
        log,
        signature: [1; 64],
        headers: headers.collect(),
    };
    let differs = HaveLog {
        log,
        seq: tip.seq,
        hash: [0; 8],
    };
    let mut messages = have(thread, vec![differs]);
    messages.push(branch.encode());
    messages
}

fn refusals(_: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    let refusal = |at| Message::Refused {
        thread: thread_number(thread),
        log: LogId(number((round << 32) + at)),
        is_full: true,
    };
    (0..10).map(|at| refusal(at).encode()).collect()
}

fn keys(world: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    let known = world.alice.replica.thread(&world.ids[thread]);
    let known = known.into_iter().flat_map(|it| it.governance().epochs());
    let unknown = (0..EPOCHS_MAX).map(|at| EpochId(number((round << 32) + at)));
    let mut epochs: Vec<_> = known.map(|it| it.epoch).chain(unknown).collect();
    epochs.truncate(EPOCHS_MAX);
    epochs.sort();
    let thread = thread_number(thread);
    vec![Message::NeedKeys { thread, epochs }.encode()]
}

/// As many signals as a seat has keys, as long as they may be; then forged ones.
fn signals(world: &mut World, thread: usize, round: usize) -> Vec<Vec<u8>> {
    let (id, now) = (world.ids[thread], world.mallory.now);
    let value = [round.try_into().unwrap(); 1_024];
    for name in 0..16 {
        let (replica, rng) = (&mut world.mallory.replica, &mut world.mallory.rng);
        // Whoever may not send cannot make one either.
        let _ = replica.signal(id, &format!("{name}"), Some(&value), now, rng);
    }
    let mut messages = Vec::new();
    while let Some(message) = world.mallory.poll(world.alice.key) {
        messages.push(message);
    }
    let is_signal = |it: &Vec<u8>| matches!(Message::decode(it), Ok(Message::Signal { .. }));
    messages.retain(is_signal);
    let forged = messages
        .first()
        .map(|message| match Message::decode(message) {
            Ok(Message::Signal { thread, signal }) => (0..1_000_u32).map(move |at| {
                let mut signal = signal.clone();
                signal.tag[..4].copy_from_slice(&at.to_be_bytes());
                Message::Signal { thread, signal }.encode()
            }),
            other => panic!("{other:?}"),
        });
    let forged: Vec<_> = forged.into_iter().flatten().collect();
    messages.extend(forged);
    messages
}

/// As many tags as a side may name, all at once as far as they fit.
fn tags(world: &mut World, thread: usize, _: usize) -> Vec<Vec<u8>> {
    if thread > 0 {
        return Vec::new();
    }
    let left = TAGS_MAX - world.ids.len();
    let tags = (0..left).map(|at| *number(at).first_chunk().unwrap());
    let tags: Vec<_> = tags.collect();
    let messages = tags.chunks(60_000);
    messages
        .map(|tags| {
            let tags = tags.to_vec();
            Message::Threads { tags }.encode()
        })
        .collect()
}

/// Runs one attack. Returns whether the session stands.
fn run(world: &mut World, rounds: usize, attack: Attack) -> bool {
    for round in 0..rounds {
        for thread in 0..world.ids.len() {
            for message in attack(world, thread, round) {
                let outcome = world.hand(&message);
                if outcome.is_err_and(|error| error.ends_session()) {
                    return false;
                }
            }
        }
    }
    true
}

/// The allocator counts for all threads of the process.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn hostile_sessions_stay_within_bounds() {
    let _alone = ALONE.lock();
    let mut beyond = Vec::new();
    let mut check = |name: String, world: &World| {
        println!(
            "{name}: peak {} KiB, live {} KiB",
            world.peak >> 10,
            world.live >> 10
        );
        if usize::try_from(world.peak).unwrap() > BOUND {
            beyond.push(format!("{name}: {} KiB", world.peak >> 10));
        }
    };
    for who in [Who::Writer, Who::KeyHolder, Who::Stranger] {
        for reads in [true, false] {
            let how = if reads { "reads" } else { "never reads" };
            for (name, rounds, attack) in ATTACKS {
                let mut world = World::new(who, 1, reads);
                let stands = run(&mut world, rounds, attack);
                let end = if stands { "" } else { ", cut off" };
                check(format!("{who:?} {how}: {name}{end}"), &world);
            }
        }
    }
    assert!(beyond.is_empty(), "beyond {BOUND} bytes: {beyond:#?}");
}

/// What ends a session is shown on its own.
const ENDS: [&str; 4] = [
    "proofs",
    "ranges that nobody signed",
    "acknowledgements",
    "a branch",
];

/// All attacks one after the other over one connection, about one thread or several, and the other way
/// round.
#[test]
fn whole_hostile_sessions_stay_within_bounds() {
    let _alone = ALONE.lock();
    let mut beyond = Vec::new();
    let mut attacks: Vec<_> = ATTACKS.to_vec();
    attacks.retain(|(name, ..)| !ENDS.contains(name));
    let last = attacks.pop().unwrap();
    let mut backwards: Vec<_> = attacks.iter().rev().copied().collect();
    for order in [&mut attacks, &mut backwards] {
        order.push(last);
        for who in [Who::Writer, Who::KeyHolder] {
            for (threads, reads) in [(1, true), (2, false), (8, true), (8, false)] {
                let mut world = World::new(who, threads, reads);
                for (name, rounds, attack) in &*order {
                    let stands = run(&mut world, *rounds, *attack);
                    assert!(stands || *name == last.0, "{who:?}: {name} ended it");
                }
                let how = if reads { "reads" } else { "never reads" };
                let what = format!(
                    "{who:?} {how}, {threads} threads, {} first: peak {} KiB, live {} KiB",
                    order[0].0,
                    world.peak >> 10,
                    world.live >> 10,
                );
                println!("{what}");
                if usize::try_from(world.peak).unwrap() > BOUND {
                    beyond.push(what);
                }
            }
        }
    }
    assert!(beyond.is_empty(), "beyond {BOUND} bytes: {beyond:#?}");
}

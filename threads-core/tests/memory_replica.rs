//! Hostile messages never make a replica allocate much more than their length.
//!
//! A binary of its own with one test, because the allocator counts for the whole process.

#![expect(
    clippy::indexing_slicing,
    clippy::result_large_err,
    clippy::unwrap_used,
    reason = "helpers of tests, which may panic as the tests do"
)]

use std::alloc::System;

use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::store::Store;
use leno_threads_core::sync::{
    AckLog, EPOCHS_MAX, HaveLog, LOGS_MAX, LogName, Message, SYNC_MESSAGE_BYTES_MAX, SyncError,
    TAGS_MAX, WRAPS_MAX,
};
use leno_threads_core::thread::Changes;
use leno_threads_core::{
    EpochId, FrameOp, Header, LogId, RecordId, RecordRef, Role, Run, SealedPart, SeatId, Stamp,
    ThreadId, Wrap,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::util::{OwnedRun, Peer, Secrets, connect, grant_op, secrets, sync};

#[expect(dead_code, reason = "shared with the other binary")]
#[path = "it/util.rs"]
mod util;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a seat costs everybody, in bytes, at most: a role, an empty control log, a wrap per epoch, and the
/// rows that keep them.
const SEAT_BYTES: usize = 8 * 1024;

/// As many tags as a message has room for.
const TAGS_PER_MESSAGE: usize = 60_000;

/// Alice, who is attacked by Mallory: a writer in her thread, with a session.
struct World {
    alice: Peer,
    mallory: Peer,
    id: ThreadId,
}

fn world(role: Role) -> World {
    let (mut alice, mut mallory) = (Peer::new(1), Peer::new(9));
    let id = alice.create();
    alice.seat(&mut mallory, id, role);
    sync(&mut alice, &mut mallory);
    if role.writes() {
        mallory.write(id, "opens the log");
    }
    alice.write(id, "one");
    sync(&mut alice, &mut mallory);
    World { alice, mallory, id }
}

impl World {
    /// Hands a message to Alice's replica. Returns what was allocated on the way, freed bytes
    /// included, and what was kept: by the replica, and for the commit.
    fn handle(&mut self, bytes: &[u8]) -> (usize, usize, Result<(), SyncError>) {
        let from = self.mallory.key;
        let view = self.alice.store.view().unwrap();
        let mut changes = Changes::new();
        let mut sink = |_, _: &leno_threads_core::thread::Opened<'_>| {};
        let (now, rng) = (self.alice.now, &mut self.alice.rng);
        let replica = &mut self.alice.replica;
        let region = Region::new(ALLOCATOR);
        let result = replica.handle_message(&*view, from, bytes, now, rng, &mut changes, &mut sink);
        let spent = region.change();
        drop(view);
        self.alice.commit(changes);
        let kept = spent
            .bytes_allocated
            .saturating_sub(spent.bytes_deallocated);
        (spent.bytes_allocated, kept, result)
    }

    /// The peak is at most what is allocated in all.
    fn check(&mut self, name: &str, bytes: &[u8]) -> Result<(), SyncError> {
        let (spent, _, result) = self.handle(bytes);
        let bound = 4 * bytes.len() + (1 << 20);
        assert!(spent <= bound, "{name}: {spent} for {} bytes", bytes.len());
        result
    }
}

fn number(at: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(at as u64).to_be_bytes());
    bytes
}

#[test]
fn messages_cost_little() {
    before_and_without_a_session();
    lists_as_long_as_they_may_be();
    ranges();
    control_records();
}

/// Nothing that follows is announced: no session, no thread, or an unknown one.
fn before_and_without_a_session() {
    let mut world = world(Role::Writer);
    let mut bombs: Vec<Vec<u8>> = vec![
        vec![0x81; 1 << 20],
        vec![0; 1 << 20],
        vec![0xff; SYNC_MESSAGE_BYTES_MAX + 1],
    ];
    for head in [0x9b, 0xbb, 0x5b, 0x7b] {
        for kind in 0..14 {
            let mut claim = vec![0x85, kind, 0, head, 0x7f];
            claim.extend([0xff; 7]);
            bombs.push(claim);
        }
    }
    for bomb in &bombs {
        for is_connected in [true, false] {
            if is_connected {
                connect(&mut world.alice, &mut world.mallory);
            } else {
                world.alice.replica.disconnected(&world.mallory.key);
            }
            assert!(world.check("bomb", bomb).is_err());
        }
    }
}

fn lists_as_long_as_they_may_be() {
    let mut world = world(Role::Writer);
    let key = world.mallory.key;
    let id = world.id;
    let known = world.alice.thread(id).own_log().unwrap();

    // Tags, of which none is known.
    world.alice.connected(key);
    let hello = Message::Hello { nonce: [1; 32] };
    world.check("hello", &hello.encode()).unwrap();
    let tags = (0..TAGS_PER_MESSAGE).map(|at| *number(at).first_chunk().unwrap());
    let tags = Message::Threads {
        tags: tags.collect(),
    };
    world.check("tags", &tags.encode()).unwrap();
    assert_eq!(TAGS_MAX / TAGS_PER_MESSAGE, 1);
    let more = world.check("more tags", &tags.encode());
    assert!(matches!(more, Err(SyncError::TooMany { .. })), "{more:?}");

    world.meet();
    let have = |logs: &mut dyn Iterator<Item = LogId>| {
        let logs = logs.map(|log| HaveLog {
            log,
            seq: u64::MAX,
            hash: [0; 8],
        });
        Message::Have {
            thread: 0,
            subscribe: true,
            wraps: [0; 8],
            logs: logs.collect(),
        }
        .encode()
    };
    let vector = have(&mut (0..LOGS_MAX).map(|at| LogId(number(at))));
    for _ in 0..2 {
        world.check("vector", &vector).unwrap();
    }

    let ack = |number| AckLog {
        number,
        seq: u64::MAX,
        ranges: u64::MAX,
    };
    let ack = |number| Message::Ack {
        thread: 0,
        logs: vec![ack(number); LOGS_MAX],
    };
    let acked = world.check("acknowledgement of what was not sent", &ack(7).encode());
    assert!(
        matches!(acked, Err(SyncError::OutOfTurn { .. })),
        "{acked:?}"
    );

    world.meet();
    let epochs = world.alice.thread(id).governance().epochs();
    let epochs: Vec<_> = epochs.map(|it| (it.domain, it.epoch)).collect();
    let seats: Vec<_> = world.alice.thread(id).governance().seats().collect();
    for (domain, epoch) in epochs {
        let wraps = (0..WRAPS_MAX).map(|at| Wrap {
            domain,
            epoch,
            seat: seats[at % seats.len()],
            encapsulated: number(at),
            sealed: [0; 48],
        });
        let wraps = Message::Wraps {
            thread: 0,
            wraps: wraps.collect(),
        };
        // What is beyond the limit is passed over.
        world.check("wraps", &wraps.encode()).unwrap();
    }
    let epochs = (0..EPOCHS_MAX).map(|at| EpochId(number(at)));
    let epochs = Message::NeedKeys {
        thread: 0,
        epochs: epochs.collect(),
    };
    world.check("keys", &epochs.encode()).unwrap();

    // A branch of 1,024 records, first not asked for, then asked for.
    let branch = |world: &World| {
        let tip = world.alice.tip(id, known);
        let keys = secrets(&world.mallory, id);
        let mut prev = tip.id;
        let headers = (0..1_024).map(|at| {
            let mut context = leno_threads_core::SealContext {
                thread: id,
                log: known,
                seq: tip.seq + at,
                prev,
                deps: Vec::new(),
                control: Vec::new(),
                stamp: Stamp(tip.stamp.0 + at),
                key: keys.data_key(),
            };
            context.deps = (0..8)
                .map(|it| RecordRef {
                    log: LogId(number(it)),
                    seq: 1,
                    id: RecordId([1; 32]),
                })
                .collect();
            let header = Header {
                context,
                body: SealedPart::of(b""),
                roster: None,
            };
            prev = header.id();
            header
        });
        let headers: Vec<_> = headers.collect();
        Message::Branch {
            thread: 0,
            log: known,
            signature: [1; 64],
            headers,
        }
        .encode()
    };
    let bytes = branch(&world);
    let refused = world.check("branch", &bytes);
    assert!(
        matches!(refused, Err(SyncError::OutOfTurn { .. })),
        "{refused:?}"
    );
    world.meet();
    let tip = world.alice.tip(id, known);
    let differs = Message::Have {
        thread: 0,
        subscribe: true,
        wraps: [0; 8],
        logs: vec![HaveLog {
            log: known,
            seq: tip.seq,
            hash: [0; 8],
        }],
    };
    world.check("another branch", &differs.encode()).unwrap();
    // Asked is who was sent the question.
    while world.alice.poll(key).is_some() {}
    let refused = world.check("branch that was asked for", &bytes);
    assert!(
        matches!(refused, Err(SyncError::NoBranch { .. })),
        "{refused:?}"
    );

    world.meet();
    let genesis = vec![0; 1 << 20];
    let genesis = Message::Genesis {
        thread: 0,
        genesis: &genesis,
    };
    world.check("genesis", &genesis.encode()).unwrap();
}

impl World {
    /// A new session, and all that honest peers say at its beginning.
    fn meet(&mut self) {
        // As strangers, so that threads and logs are named from 0 on.
        util::forget_each_other(&mut self.alice, &mut self.mallory);
        sync(&mut self.alice, &mut self.mallory);
    }

    fn range(&self, log: LogId, runs: &[OwnedRun]) -> Vec<u8> {
        let parts = runs.iter();
        let parts = parts.map(|(_, items, signature)| Run::from_parts(items, signature).unwrap());
        Message::Range {
            thread: 0,
            log: LogName::New(log),
            first: runs[0].0,
            runs: parts.collect(),
        }
        .encode()
    }
}

/// As many items as fit, each as small as it can be: a body is at least its seal.
fn smallest(count: usize) -> Vec<u8> {
    let mut items = Encoder::new();
    items.array(count);
    for _ in 0..count {
        items.array(2).uint(1).bytes(&[0; 28]);
    }
    items.into_vec()
}

fn ranges() {
    let mut world = world(Role::Writer);
    let id = world.id;
    let keys = secrets(&world.mallory, id);
    let signer = keys.writer.as_ref().unwrap();
    let log = LogId(signer.verifying_key().to_bytes());
    let tip = world.alice.tip(id, log);

    // Records that nobody signed: as many as fit, and one that is as long as it can be.
    let mut long = Encoder::new();
    long.array(1)
        .array(2)
        .uint(1)
        .bytes(&vec![0; (1 << 20) - 16]);
    for items in [smallest(1_024), long.into_vec()] {
        let run = (tip.seq + 1, items, [1; 64]);
        for (name, is_known) in [(log, true), (LogId([7; 32]), false)] {
            world.meet();
            let message = world.range(name, std::slice::from_ref(&run));
            let result = world.check("unsigned", &message);
            assert_eq!(result.is_err(), is_known, "{result:?}");
        }
    }

    // Signed by a writer: as many records as fit in a run. Of a peer that sent damaged ones the log is
    // not looked at for a while, so this is a world like the one before, with the same keys.
    world = self::world(Role::Writer);
    assert_eq!(world.alice.tip(id, log), tip);
    let texts = |from: u64, count: u64| {
        (from..from + count)
            .map(|at| keys.text(Stamp(tip.stamp.0 + 1 + at), ""))
            .collect::<Vec<_>>()
    };
    let (run, after) = keys.craft(id, signer, &tip, &texts(0, 1_024));
    world.meet();
    let message = world.range(log, std::slice::from_ref(&run));
    world.check("signed", &message).unwrap();
    assert_eq!(world.alice.tip(id, log).seq, after.seq);

    // As many runs as fit, each of one record. What one of them takes is freed before the next one, so
    // the peak is at most what is kept and the most that one takes.
    let mut tip = after;
    let mut runs = Vec::new();
    let mut bytes = 0;
    let mut at = 1_024;
    while bytes < (1 << 20) {
        let (run, next) = keys.craft(id, signer, &tip, &texts(at, 1));
        bytes += run.1.len() + 64 + 6;
        at += 1;
        tip = next;
        runs.push(run);
    }
    world.meet();
    let first = world.range(log, &runs[..1]);
    let (one, ..) = world.handle(&first);
    world.meet();
    let message = world.range(log, &runs);
    assert!(message.len() <= SYNC_MESSAGE_BYTES_MAX);
    let (_, kept, result) = world.handle(&message);
    result.unwrap();
    assert_eq!(world.alice.tip(id, log).seq, tip.seq);
    let (peak, length) = (kept + one, message.len());
    assert!(peak <= 4 * length + (1 << 20), "{peak} for {length} bytes");
}

/// Grants that do not stand, of a writer, cost what any record costs. Those of an admin make seats, with
/// a control log and wraps each, which is what an admin may do: [`SEAT_BYTES`] each.
fn control_records() {
    for (role, seat_bytes) in [(Role::Writer, 0), (Role::Admin, SEAT_BYTES)] {
        let mut world = world(role);
        let id = world.id;
        let keys: Secrets = secrets(&world.mallory, id);
        let log = LogId(keys.seat.verifying_key().to_bytes());
        let mut seat = 0;
        let mut grants = |stamp: u64| {
            let ops = (0..1_024).map(|_| {
                seat += 1;
                let seat = SeatId(number(seat));
                FrameOp::Grant(grant_op(seat, [1; 32], Role::Reader))
            });
            keys.frame(Stamp(stamp), &ops.collect::<Vec<_>>())
        };
        // One record, and then eight: what reading one of them takes is freed before the next one.
        let mut reading = 0;
        for count in [1, 8] {
            let tip = world.alice.tip(id, log);
            let stamps = tip.stamp.0 + 1..tip.stamp.0 + 1 + count;
            let records: Vec<_> = stamps.map(&mut grants).collect();
            let (run, _) = keys.craft(id, &keys.seat, &tip, &records);
            world.meet();
            let message = world.range(log, std::slice::from_ref(&run));
            let (spent, kept, result) = world.handle(&message);
            result.unwrap();
            if count == 1 {
                reading = spent - kept;
            }
            let (peak, length) = (kept + reading, message.len());
            let seats = 1_024 * usize::try_from(count).unwrap();
            let bound = 4 * length + (1 << 20) + seats * seat_bytes;
            assert!(peak <= bound, "{role:?}: {peak} for {length} bytes");
        }
    }
}

//! Hostile bytes never make a decoder allocate much more than their length.
//!
//! A binary of its own with one test, because the allocator counts for the whole process.

use std::alloc::System;

use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::fork::ForkProof;
use leno_threads_core::sync::{AckLog, HaveLog, LOGS_MAX, Message, TAGS_MAX};
use leno_threads_core::{
    EpochId, Genesis, Header, KeyRef, LogId, RecordId, RecordRef, Run, SealContext, SealedPart,
    Stamp, ThreadId, Tip, decode_frame, decode_roster, decode_row,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated on the way, freed ones included, so at least the peak.
fn allocated<T>(run: impl FnOnce() -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    drop(run());
    region.change().bytes_allocated
}

fn verify(bytes: &[u8]) {
    let tip = Tip::opened_by(RecordId([1; 32]), Stamp(1));
    if let Ok(run) = Run::from_parts(bytes, &[1; 64]) {
        let _ = run.verify(ThreadId([1; 32]), LogId([1; 32]), &tip);
    }
}

fn check(name: &str, bytes: &[u8]) {
    let bound = 4 * bytes.len() + (1 << 20);
    for (what, spent) in [
        ("message", allocated(|| Message::decode(bytes))),
        ("header", allocated(|| Header::decode(bytes))),
        ("genesis", allocated(|| Genesis::decode(bytes))),
        ("frame", allocated(|| decode_frame(bytes))),
        ("roster", allocated(|| decode_roster(bytes))),
        ("proof", allocated(|| ForkProof::decode(bytes))),
        ("row", allocated(|| decode_row(bytes))),
        ("run", allocated(|| verify(bytes))),
    ] {
        let length = bytes.len();
        assert!(spent <= bound, "{name}, {what}: {spent} for {length} bytes");
    }
}

fn reference(byte: u8) -> RecordRef {
    RecordRef {
        log: LogId([byte; 32]),
        seq: 1,
        id: RecordId([byte; 32]),
    }
}

#[test]
fn decoders_allocate_little() {
    // Lengths that are claimed and not there.
    for head in [0x9b, 0xbb, 0x5b, 0x7b] {
        for kind in 0..14 {
            let mut claim = vec![0x85, kind, 0, head, 0x7f];
            claim.extend([0xff; 7]);
            check("claim", &claim);
            claim[3] = 0;
            check("nothing", &claim);
        }
    }
    check("depth", &vec![0x81; 1 << 20]);
    check("zeros", &vec![0; 1 << 20]);
    check("empty items", &[&[0x99, 4, 0][..], &[0x80; 1_024]].concat());
    check(
        "small items",
        &[&[0x99, 4, 0][..], &[0x82, 1, 0x40].repeat(1_024)].concat(),
    );

    let logs = (0..LOGS_MAX).map(|it| {
        let mut log = [0; 32];
        log[..8].copy_from_slice(&(it as u64).to_be_bytes());
        HaveLog {
            log: LogId(log),
            seq: 1,
            hash: [0; 8],
        }
    });
    let have = Message::Have {
        thread: 0,
        subscribe: true,
        wraps: [0; 8],
        logs: logs.collect(),
    };
    check("vector", &have.encode());
    let tags = vec![[1; 16]; TAGS_MAX];
    check("tags", &Message::Threads { tags }.encode());
    let ack = AckLog {
        number: 1,
        seq: 1,
        ranges: 1,
    };
    let logs = vec![ack; LOGS_MAX];
    check("acks", &Message::Ack { thread: 0, logs }.encode());
    let header = Header {
        context: SealContext {
            thread: ThreadId([1; 32]),
            log: LogId([5; 32]),
            seq: 2,
            prev: RecordId([3; 32]),
            deps: vec![reference(1)],
            control: vec![reference(2)],
            stamp: Stamp(9),
            key: KeyRef::Data {
                domain: 1,
                epoch: EpochId([7; 32]),
            },
        },
        body: SealedPart::of(b""),
        roster: None,
    };
    let branch = Message::Branch {
        thread: 0,
        log: LogId([5; 32]),
        signature: [1; 64],
        headers: vec![header; 1_024],
    };
    check("branch", &branch.encode());
    let mut epochs = Encoder::append_to(vec![0]);
    epochs.array(1_024);
    for _ in 0..1_024 {
        epochs.array(4).uint(2).uint(1).bytes(&[1; 32]).array(0);
    }
    check("epochs", epochs.as_slice());
}

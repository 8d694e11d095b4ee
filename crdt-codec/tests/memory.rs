//! Hostile bytes never make a decoder allocate much more than their length: 4 times that and 1 MiB.
//!
//! Two things take more, in proportion to what the bytes hold and not to what they claim: an op of many
//! small edits leaves up to [`EDIT_BYTES`] each in the state that it is applied to, and a value that the
//! application asks for as an `Ipld` has the size of an `Ipld` per item.
//!
//! A binary of its own with one test, because the allocator counts for the whole process.

use std::alloc::System;

use ipld_core::ipld::Ipld;
use leno_crdt_codec::cbor::{Decoder, Encoder, decode_ipld};
use leno_crdt_codec::json::{
    Definition, EDITS_MAX, OP_BYTES_MAX, OP_DOTS_MAX, OP_SEGMENTS_MAX, Op, PATH_SEGMENTS_MAX, State,
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

fn check(name: &str, bytes: &[u8]) {
    let bound = 4 * bytes.len() + (1 << 20);
    let spent = |what: &str, spent: usize| {
        assert!(
            spent <= bound,
            "{name}, {what}: {spent} for {} bytes",
            bytes.len()
        );
    };
    spent("op", allocated(|| Op::decode(bytes)));
    spent("skip", allocated(|| Decoder::new(bytes).skip().map(|_| ())));
}

/// What an edit leaves in a state, in bytes, at most: a name, a place in a map, a facet, a dot, a claim. It
/// does not grow with what the edit says, and an op has at most [`EDITS_MAX`] of them.
const EDIT_BYTES: usize = 832;

/// An op that is taken, each the worst of its kind: reading it is bounded as for any other bytes;
/// what it leaves behind, and what a caller asks to be unfolded, by what it holds besides.
fn check_taken(name: &str, bytes: &[u8], edits: usize, values: usize) {
    assert!(Op::decode(bytes).is_ok(), "{name}");
    check(name, bytes);
    let length = bytes.len();
    let bound = 4 * length + (1 << 20) + edits * EDIT_BYTES;
    let spent = allocated(|| apply(bytes));
    assert!(
        spent <= bound,
        "{name}, applied: {spent} for {length} bytes"
    );

    let state = apply(bytes).encode();
    let length = state.len();
    assert!(length <= 4 * bytes.len() + edits * 16, "{name}: {length}");
    let bound = 4 * length + (1 << 20) + edits * EDIT_BYTES;
    let spent = allocated(|| State::decode(&state));
    assert!(State::decode(&state).is_ok());
    assert!(spent <= bound, "{name}, state: {spent} for {length} bytes");

    // A list doubles as it grows, so that of `values` there is room for twice as many. A map has its
    // keys besides, and nodes that are not full.
    let unfolded = values * 2 * (size_of::<Ipld>() + 64);
    let bound = 4 * length + (1 << 20) + unfolded;
    let spent = allocated(|| decode_ipld(bytes));
    assert!(spent <= bound, "{name}, value: {spent} for {values} values");
}

/// Claims and depths, which cost nothing to write; every decoder refuses them early.
fn check_bomb(name: &str, bytes: &[u8]) {
    check(name, bytes);
    let bound = 4 * bytes.len() + (1 << 20);
    for (what, spent) in [
        ("value", allocated(|| decode_ipld(bytes))),
        ("state", allocated(|| State::decode(bytes))),
        ("definition", allocated(|| Definition::decode(bytes))),
        ("applied", allocated(|| apply(bytes))),
    ] {
        assert!(
            spent <= bound,
            "{name}, {what}: {spent} for {} bytes",
            bytes.len()
        );
    }
}

fn apply(bytes: &[u8]) -> State {
    let dot = leno_crdt_codec::Dot {
        log: leno_crdt_codec::LogId([1; 32]),
        seq: 1,
        index: 0,
    };
    let place = leno_crdt_codec::Place {
        stamp: leno_crdt_codec::Stamp(1),
        dot,
    };
    let mut state = State::default();
    drop(state.apply_encoded(&place, bytes));
    state
}

/// An update in its long form with the edits that `write` adds.
fn long(logs: usize, count: usize, mut write: impl FnMut(&mut Encoder, usize)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .array(4 + usize::from(logs > 0))
        .uint(3)
        .text("d")
        .uint(1);
    if logs > 0 {
        encoder.array(logs);
        for at in 0..logs as u64 {
            let mut log = [0; 32];
            log[..8].copy_from_slice(&at.to_be_bytes());
            encoder.bytes(&log);
        }
    }
    encoder.array(count);
    (0..count).for_each(|at| write(&mut encoder, at));
    encoder.into_vec()
}

#[test]
fn memory_stays_near_the_length_of_the_input() {
    // Lists, maps, texts and byte strings that claim more than there is.
    for major in [0x80, 0xa0, 0x60, 0x40_u8] {
        for claim in [1_u64 << 20, 1 << 32, 1 << 48, u64::MAX] {
            let mut bytes = vec![major | 27];
            bytes.extend_from_slice(&claim.to_be_bytes());
            check_bomb("claim", &bytes);
            for prefix in [
                &b"\x83\x00\x61d"[..],
                b"\x84\x03\x61d\x01",
                b"\x84\x01",
                b"\x82",
            ] {
                let mut wrapped = [prefix, &bytes].concat();
                check_bomb("claim in an op", &wrapped);
                // With a megabyte behind it, so that the claim is partly true.
                wrapped.resize(1 << 20, 0);
                wrapped[prefix.len()..][..9].copy_from_slice(&[
                    major | 26,
                    0,
                    7,
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ]);
                check("half-true claim in an op", &wrapped);
            }
        }
    }
    for byte in [0x81, 0x82, 0x9a, 0xa1] {
        check_bomb("depth", &vec![byte; 1 << 20]);
    }
    let mut deep = b"\x83\x00\x61d\xa1\x61a".to_vec();
    deep.resize(400_000, 0x81);
    check_bomb("depth in an op", &deep);

    // Ops at the bounds, each the worst of its kind.
    let mut wide = Encoder::new();
    wide.array(3)
        .uint(0)
        .text("d")
        .map(1)
        .text("a")
        .array(250_000);
    let mut wide = wide.into_vec();
    wide.resize(wide.len() + 250_000, 0);
    check_taken("a list of 250,000 numbers", &wide, 1, 250_000);

    let mut many = Encoder::new();
    many.array(3).uint(0).text("d").map(EDITS_MAX);
    for at in 0..EDITS_MAX as u64 {
        many.text(&format!("{at:03x}")).uint(0);
    }
    check_taken(
        "as many fields as fit",
        many.as_slice(),
        EDITS_MAX,
        EDITS_MAX,
    );

    let touched = long(0, EDITS_MAX, |out, at| {
        out.array(2)
            .array(2)
            .text("")
            .text(&format!("{at:03x}"))
            .uint(10);
    });
    check_taken("as many paths as fit", &touched, EDITS_MAX, 5 * EDITS_MAX);

    let deepest = OP_SEGMENTS_MAX / PATH_SEGMENTS_MAX;
    let paths = long(0, deepest, |out, at| {
        out.array(2).array(PATH_SEGMENTS_MAX);
        for _ in 1..PATH_SEGMENTS_MAX {
            out.text("");
        }
        out.text(&format!("{at:03x}")).uint(10);
    });
    check_taken("as many segments as fit", &paths, deepest, 11 * deepest);

    let dots = long(1, EDITS_MAX.min(OP_DOTS_MAX), |out, at| {
        out.array(3).text(&format!("{at:03x}")).uint(10);
        out.array(1).array(3).uint(0).uint(1).uint(0);
    });
    let count = EDITS_MAX.min(OP_DOTS_MAX);
    check_taken("as many dots as fit", &dots, count, 8 * count);

    let logs = long(OP_DOTS_MAX, 1, |out, _| {
        out.array(3).text("a").uint(10).array(OP_DOTS_MAX);
        for at in 0..OP_DOTS_MAX as u64 {
            out.array(3).uint(at).uint(1).uint(0);
        }
    });
    check_taken("as many logs as fit", &logs, 1, 5 * OP_DOTS_MAX);

    let mut long = vec![0x83, 0, 0x61, b'd', 0xa1, 0x61, b'a', 0x5a, 0, 8, 0, 0];
    long.resize(OP_BYTES_MAX + (1 << 19), 0);
    assert!(Op::decode(&long).is_err());
    check("an op that is too long", &long);
}

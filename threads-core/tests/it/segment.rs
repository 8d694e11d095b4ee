//! Segments and heads: they prove themselves, join without loss, and nothing else is believed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use leno_threads_core::segment::{
    Segment, SegmentError, SharedHeads, SharedThread, Span, StoredRun,
};
use leno_threads_core::store::{ObjectError, SegmentId, Store};
use leno_threads_core::{
    Genesis, LogId, NonceSecret, OnceKind, OpenError, Role, ServiceKey, Suite, ThreadId, Wrap,
    decode_row, open_once, seal_once,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::util::{Peer, backup, hex, rng, sync, unhex};

/// The runs of a thread as a peer keeps them, and its wraps.
fn content(peer: &Peer, id: ThreadId) -> (Vec<StoredRun>, Vec<Wrap>) {
    let view = peer.store.view().unwrap();
    let thread = peer.replica.threads().find(|it| it.id() == id).unwrap();
    let mut runs = Vec::new();
    for log in thread.logs() {
        thread
            .scan_rows(&*view, &log.id, 1, &mut |_, row| {
                runs.push(StoredRun::verify(id, log.id, row.to_vec()).unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    (runs, thread.wraps(&*view).unwrap())
}

fn shared(peer: &Peer, id: ThreadId) -> SharedThread {
    let thread = peer.replica.threads().find(|it| it.id() == id).unwrap();
    SharedThread::new(thread.genesis(), thread.service_key().clone())
}

/// Alice's log of one row per text, in a thread with Bob.
fn written(texts: usize) -> (Peer, ThreadId, LogId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Writer);
    let mut log = None;
    for number in 0..texts {
        log = Some(alice.write(id, &format!("song {number}")).log);
    }
    sync(&mut alice, &mut bob);
    assert!(bob.errors.is_empty(), "{:?}", bob.errors);
    (alice, id, log.unwrap())
}

fn runs_of(peer: &Peer, id: ThreadId, log: LogId) -> Vec<StoredRun> {
    let (runs, _) = content(peer, id);
    runs.into_iter()
        .filter(|run| run.span().log == log)
        .collect()
}

/// The runs of a log as one, or as many as fit.
fn joined(runs: &[StoredRun]) -> StoredRun {
    let (first, rest) = runs.split_first().unwrap();
    rest.iter()
        .fold(first.clone(), |run, next| run.joined(next).unwrap())
}

fn sealed(segment: &Segment, thread: &SharedThread) -> (SegmentId, Vec<u8>) {
    let secret = NonceSecret::new(&[3; 32]);
    segment
        .seal(thread, Suite::Aes256Gcm, &secret, &mut rng(9))
        .unwrap()
}

#[test]
fn segment_opens_as_it_was_put_together() {
    let (alice, id, _) = written(5);
    let thread = shared(&alice, id);
    let (runs, wraps) = content(&alice, id);
    assert!(runs.len() > 5 && wraps.len() > 1);
    let twice = runs.iter().chain(&runs).rev().cloned();
    let segment = Segment::new(twice, wraps.iter().chain(&wraps).cloned());
    let (name, bytes) = sealed(&segment, &thread);
    assert!(bytes.len() <= segment.bytes() + 100, "the estimate holds");
    let opened = Segment::open(&thread, &name, &bytes).unwrap();
    assert_eq!(opened, segment);
    assert_eq!(opened.runs().len(), runs.len(), "each once");
    assert_eq!(opened.wraps().count(), wraps.len(), "each once");
    let row = opened.runs()[0].row();
    assert_eq!(decode_row(row).unwrap().1.count(), 1);
    // Whoever was only told of the thread opens it too.
    let service = alice.replica.threads().next().unwrap().service_key();
    let told = SharedThread::named(id, service.clone());
    assert_eq!(told.place(), thread.place());
    assert_eq!(Segment::open(&told, &name, &bytes).unwrap(), segment);
}

#[test]
fn segment_of_others_or_changed_is_refused() {
    let (alice, id, _) = written(2);
    let thread = shared(&alice, id);
    let (runs, wraps) = content(&alice, id);
    let (name, bytes) = sealed(&Segment::new(runs, wraps), &thread);
    let refused = |bytes: &[u8], name: SegmentId| Segment::open(&thread, &name, bytes).unwrap_err();
    for bit in (0..bytes.len() * 8).step_by(97) {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let error = refused(&changed, name);
        assert!(
            matches!(error, SegmentError::Object(ObjectError::NotAsNamed { .. })),
            "{error:?}"
        );
        // The storage may name it anew; it does not hold the key.
        let error = refused(&changed, SegmentId::of(&changed));
        assert!(matches!(error, SegmentError::NotOpened(OpenError)));
    }
    let genesis = thread.genesis().unwrap();
    let stranger = SharedThread::new(genesis, ServiceKey::from_bytes([1; 32]));
    assert_ne!(stranger.place(), thread.place());
    let error = Segment::open(&stranger, &name, &bytes).unwrap_err();
    assert!(matches!(error, SegmentError::NotOpened(OpenError)));
}

/// Who holds the service key, which every member and replicator does, forges nothing of others.
#[test]
fn holder_of_the_service_key_forges_no_record() {
    let (alice, id, _) = written(3);
    let service = alice
        .replica
        .threads()
        .next()
        .unwrap()
        .service_key()
        .clone();
    let thread = shared(&alice, id);
    let (runs, wraps) = content(&alice, id);
    let (name, bytes) = sealed(&Segment::new(runs, wraps), &thread);
    let (_, plain) = open_once(&service, id, OnceKind::Segment, &bytes).unwrap();
    let secret = NonceSecret::new(&[4; 32]);
    let mut kinds = [0; 3];
    for at in 0..plain.len() {
        let mut forged = plain.clone();
        forged[at] ^= 1;
        let suite = Suite::Aes256Gcm;
        let kind = OnceKind::Segment;
        let sealed = seal_once(suite, &service, id, kind, &forged, &secret, &mut rng(8));
        let found = Segment::open(&thread, &SegmentId::of(&sealed), &sealed);
        // Only its recipient can check a wrap; and what a log was sealed under before a run says
        // nothing if the run begins by saying it.
        match found {
            Ok(found) => {
                let original = Segment::open(&thread, &name, &bytes).unwrap();
                assert!(found.spans().eq(original.spans()), "byte {at}");
                kinds[0] += 1;
            }
            Err(SegmentError::Run { .. }) => kinds[1] += 1,
            Err(_) => kinds[2] += 1,
        }
    }
    assert!(kinds[1] > 500 && kinds[2] > 5, "{kinds:?}");
}

/// Adds what is missing as a segment of its own.
fn add(heads: &mut SharedHeads, runs: &[StoredRun]) -> BTreeMap<SegmentId, Segment> {
    let segment = Segment::new(runs.iter().cloned(), []);
    let id = SegmentId::of(format!("{:?}", segment.spans().collect::<Vec<_>>()).as_bytes());
    heads.add(id, 100, &segment);
    BTreeMap::from([(id, segment)])
}

fn span_of(run: Option<StoredRun>) -> Option<(u64, u64)> {
    run.map(|run| (run.span().first, run.span().last))
}

#[test]
fn only_what_is_missing_is_stored() {
    let (alice, id, log) = written(12);
    let runs = runs_of(&alice, id, log);
    let genesis = shared(&alice, id).genesis().unwrap().clone();
    let part = |from: usize, to: usize| joined(&runs[from - 1..to]);
    let mut heads = SharedHeads::new(genesis);
    let nothing = BTreeMap::new();
    let check = |heads: &SharedHeads, run: &StoredRun, expected: Option<(u64, u64)>| {
        assert_eq!(span_of(heads.missing(run, &nothing).unwrap()), expected);
    };
    check(&heads, &part(1, 4), Some((1, 4)));
    add(&mut heads, &[part(1, 4)]);
    check(&heads, &part(1, 4), None);
    check(&heads, &part(3, 4), None);
    check(&heads, &part(3, 7), Some((5, 7)));
    check(&heads, &part(1, 12), Some((5, 12)));
    check(&heads, &part(5, 7), Some((5, 7)));
    // Behind a gap, which somebody else may fill.
    let opened = add(&mut heads, &[part(7, 9)]);
    check(&heads, &part(5, 9), Some((5, 9)));
    check(&heads, &part(7, 12), Some((10, 12)));
    assert_eq!(heads.head(&log).unwrap().seq, 9);
    // Within a longer one: it must be looked at.
    let inner = part(7, 8);
    let segment = heads.missing(&inner, &nothing).unwrap_err();
    assert_eq!(opened.keys().next(), Some(&segment));
    assert_eq!(heads.missing(&inner, &opened), Ok(None));
    add(&mut heads, &[part(5, 6)]);
    check(&heads, &part(1, 9), None);
    check(&heads, &part(2, 10), Some((10, 10)));
}

#[test]
fn both_branches_of_a_forked_log_are_stored() {
    let (mut alice, id, log) = written(4);
    let copy = backup(&alice.store);
    for text in ["one", "more"] {
        alice.write(id, text);
    }
    let first = runs_of(&alice, id, log);
    // A clone of the device goes on from the copy.
    let mut clone = Peer::new(1);
    clone.store = copy;
    clone.restart();
    for text in ["other", "words", "again"] {
        clone.write(id, text);
    }
    let second = runs_of(&clone, id, log);
    let mut heads = SharedHeads::new(shared(&alice, id).genesis().unwrap().clone());
    let nothing = BTreeMap::new();
    add(&mut heads, &[joined(&first)]);
    let branch = joined(&second);
    assert_eq!(
        span_of(heads.missing(&branch, &nothing).unwrap()),
        Some((1, 7))
    );
    // Only the end of it, if it comes in the rows in which it was written.
    let opened = [joined(&first)].map(|run| add(&mut heads.clone(), &[run]));
    let missing: Vec<_> = second
        .iter()
        .filter_map(|run| span_of(heads.missing(run, &opened[0]).unwrap()))
        .collect();
    assert_eq!(missing, [(5, 5), (6, 6), (7, 7)]);
    add(&mut heads, &second[4..]);
    assert_eq!(heads.missing(&joined(&first), &nothing), Ok(None));
    assert_eq!(heads.head(&log).unwrap().seq, 7, "the longer one is newest");
}

#[test]
fn heads_open_as_they_were_sealed() {
    let (alice, id, log) = written(6);
    let thread = shared(&alice, id);
    let genesis = thread.genesis().unwrap().clone();
    let (runs, wraps) = content(&alice, id);
    let mut heads = SharedHeads::new(genesis);
    let (one, two) = runs.split_at(3);
    for (runs, wraps) in [(one, vec![]), (two, wraps)] {
        let segment = Segment::new(runs.iter().cloned(), wraps);
        let (name, bytes) = sealed(&segment, &thread);
        heads.add(name, bytes.len() as u64, &segment);
    }
    heads.collect();
    let secret = NonceSecret::new(&[3; 32]);
    let bytes = heads.seal(&thread, &secret, &mut rng(7)).unwrap();
    let opened = SharedHeads::open(&thread, &bytes).unwrap();
    assert_eq!(opened, heads);
    assert_eq!(opened.collections(), 1);
    assert_eq!(opened.head(&log).unwrap().seq, 6);
    assert_eq!(opened.segments().count(), 2);
    let again = opened.seal(&thread, &secret, &mut rng(7)).unwrap();
    assert_eq!(again, bytes, "one encoding per value");
    for bit in (0..bytes.len() * 8).step_by(61) {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = SharedHeads::open(&thread, &changed);
        assert!(matches!(refused, Err(SegmentError::NotOpened(OpenError))));
    }
    // A segment is no heads, and heads are no segment.
    let (name, segment) = sealed(&Segment::new(runs, []), &thread);
    let refused = SharedHeads::open(&thread, &segment);
    assert!(matches!(refused, Err(SegmentError::NotOpened(OpenError))));
    let refused = Segment::open(&thread, &SegmentId::of(&bytes), &bytes);
    assert!(matches!(refused, Err(SegmentError::NotOpened(OpenError))));
    assert_ne!(name, SegmentId::of(&bytes));
}

/// Who holds the service key can leave heads out, and cannot make any up.
#[test]
fn holder_of_the_service_key_forges_no_head() {
    let (alice, id, _) = written(4);
    let service = alice
        .replica
        .threads()
        .next()
        .unwrap()
        .service_key()
        .clone();
    let thread = shared(&alice, id);
    let (runs, wraps) = content(&alice, id);
    let segment = Segment::new(runs, wraps);
    let mut heads = SharedHeads::new(thread.genesis().unwrap().clone());
    heads.add(SegmentId([5; 32]), 1_000, &segment);
    let secret = NonceSecret::new(&[4; 32]);
    let bytes = heads.seal(&thread, &secret, &mut rng(8)).unwrap();
    let (_, plain) = open_once(&service, id, OnceKind::Heads, &bytes).unwrap();
    let mut refused = 0;
    for at in 0..plain.len() {
        let mut forged = plain.clone();
        forged[at] ^= 1;
        let kind = OnceKind::Heads;
        let suite = Suite::Aes256Gcm;
        let sealed = seal_once(suite, &service, id, kind, &forged, &secret, &mut rng(8));
        match SharedHeads::open(&thread, &sealed) {
            Ok(found) => {
                for head in found.heads() {
                    assert!(head.verify().is_ok(), "byte {at}");
                    assert!(head.seq <= heads.head(&head.log).unwrap().seq, "byte {at}");
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > plain.len() / 3, "{refused} of {}", plain.len());
}

proptest! {
    /// However a log is cut into runs, in whatever order and however often they come: afterwards all
    /// records are there, each once.
    #[test]
    fn runs_that_overlap_leave_each_record_once(
        parts in prop::collection::vec((1..=20_usize, 0..8_usize), 1..12),
    ) {
        let (alice, id, log) = written(20);
        let runs = runs_of(&alice, id, log);
        let mut heads = SharedHeads::new(shared(&alice, id).genesis().unwrap().clone());
        let mut opened = BTreeMap::new();
        let mut expected = std::collections::BTreeSet::new();
        for (from, length) in parts.into_iter().chain([(1, 19)]) {
            let to = (from + length).min(20);
            expected.extend(from as u64..=to as u64);
            let run = joined(&runs[from - 1..to]);
            if let Some(missing) = heads.missing(&run, &opened).unwrap() {
                opened.extend(add(&mut heads, &[missing]));
            }
        }
        let mut spans: Vec<Span> = heads.segments().flat_map(|(_, it)| it.spans.clone()).collect();
        spans.sort_by_key(|span| span.first);
        let stored: std::collections::BTreeSet<u64> =
            spans.iter().flat_map(|span| span.first..=span.last).collect();
        prop_assert_eq!(stored, expected);
        prop_assert_eq!(heads.head(&log).unwrap().seq, 20);
        prop_assert_eq!(heads.missing(&joined(&runs), &opened).unwrap(), None);
    }
}

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/segments.json");

fn write_vectors() -> Value {
    let (alice, id, log) = written(3);
    let thread = shared(&alice, id);
    let service = alice
        .replica
        .threads()
        .next()
        .unwrap()
        .service_key()
        .clone();
    let (runs, wraps) = content(&alice, id);
    let segment = Segment::new(runs, wraps);
    let mut heads = SharedHeads::new(thread.genesis().unwrap().clone());
    let (name, bytes) = sealed(&segment, &thread);
    heads.add(name, bytes.len() as u64, &segment);
    let secret = NonceSecret::new(&[3; 32]);
    let sealed_heads = heads.seal(&thread, &secret, &mut rng(7)).unwrap();
    let plain = |kind, sealed: &[u8]| hex(open_once(&service, id, kind, sealed).unwrap().1);
    let spans: Vec<Value> = segment
        .spans()
        .map(|it| json!({"log": hex(it.log.0), "first": it.first, "last": it.last, "id": it.id.to_string()}))
        .collect();
    json!({
        "thread": id.to_string(), "service_key": hex(service.expose()),
        "genesis": hex(thread.genesis().unwrap().encode()), "place": thread.place().to_string(),
        "segment": {
            "name": name.to_string(), "hex": hex(&bytes), "plain": plain(OnceKind::Segment, &bytes),
            "spans": spans, "wraps": segment.wraps_count(),
        },
        "heads": {
            "hex": hex(&sealed_heads), "plain": plain(OnceKind::Heads, &sealed_heads),
            "log": hex(log.0), "seq": heads.head(&log).unwrap().seq,
        },
    })
}

#[test]
fn vectors_open_as_they_say() {
    if std::env::var_os("LENO_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&write_vectors()).unwrap();
        std::fs::write(VECTORS, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(VECTORS).unwrap();
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let genesis = Genesis::decode(&unhex(vectors["genesis"].as_str().unwrap())).unwrap();
    let service = ServiceKey::from_bytes(
        unhex(vectors["service_key"].as_str().unwrap())
            .try_into()
            .unwrap(),
    );
    let thread = SharedThread::new(&genesis, service.clone());
    assert_eq!(thread.id().to_string(), vectors["thread"]);
    assert_eq!(thread.place().to_string(), vectors["place"]);
    let (of_segment, of_heads) = (&vectors["segment"], &vectors["heads"]);
    let name = SegmentId::from_text(of_segment["name"].as_str().unwrap()).unwrap();
    let sealed = unhex(of_segment["hex"].as_str().unwrap());
    let plain = open_once(&service, thread.id(), OnceKind::Segment, &sealed);
    assert_eq!(
        plain.unwrap().1,
        unhex(of_segment["plain"].as_str().unwrap())
    );
    let segment = Segment::open(&thread, &name, &sealed).unwrap();
    let spans: Vec<_> = segment.spans().collect();
    assert_eq!(spans.len(), of_segment["spans"].as_array().unwrap().len());
    for (span, expected) in spans.iter().zip(of_segment["spans"].as_array().unwrap()) {
        assert_eq!(hex(span.log.0), expected["log"]);
        assert_eq!(
            (span.first, span.last),
            (
                expected["first"].as_u64().unwrap(),
                expected["last"].as_u64().unwrap()
            )
        );
        assert_eq!(span.id.to_string(), expected["id"]);
    }
    assert_eq!(segment.wraps_count() as u64, of_segment["wraps"]);
    let sealed = unhex(of_heads["hex"].as_str().unwrap());
    let plain = open_once(&service, thread.id(), OnceKind::Heads, &sealed);
    assert_eq!(plain.unwrap().1, unhex(of_heads["plain"].as_str().unwrap()));
    let heads = SharedHeads::open(&thread, &sealed).unwrap();
    let log = LogId(unhex(of_heads["log"].as_str().unwrap()).try_into().unwrap());
    assert_eq!(
        heads.head(&log).unwrap().seq,
        of_heads["seq"].as_u64().unwrap()
    );
    assert_eq!(heads.segments().next().unwrap().0, &name);
}

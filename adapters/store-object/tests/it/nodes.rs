//! Several nodes write one thread at once: nothing is lost, and nothing is there twice.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use futures_util::future::join_all;
use leno_store_object::{Limits, Objects, SegmentStore, SharedError};
use leno_threads_core::segment::StoredRun;
use leno_threads_core::store::{MemoryShared, ObjectError, SharedStore};
use leno_threads_core::{LogId, Seq};
use proptest::prelude::*;

use crate::band::{Band, joined};
use crate::faults::{Dice, Faulty};

static BAND: LazyLock<Band> = LazyLock::new(|| Band::new(3, 10));

/// Everything is old, and pauses are short.
const LIMITS: Limits = Limits {
    thread_bytes_max: 64 << 30,
    tries_max: 12,
    pause_millis: 5,
    pause_millis_max: 100,
    grace_millis: 0,
};

fn node(shared: Arc<dyn SharedStore>, number: u8) -> SegmentStore {
    SegmentStore::new(shared, [number; 32], [number ^ 0x55; 32]).with_limits(LIMITS)
}

/// How often each record is there.
async fn stored(store: &SegmentStore) -> BTreeMap<(LogId, Seq), usize> {
    let mut stored = BTreeMap::new();
    let loaded = store
        .load(&BAND.thread, &BTreeMap::new(), |segment| {
            for span in segment.spans() {
                for seq in span.first..=span.last {
                    *stored.entry((span.log, seq)).or_default() += 1;
                }
            }
        })
        .await
        .unwrap();
    assert!(loaded.damaged.is_empty(), "{:?}", loaded.damaged);
    let named: usize = loaded.heads.segments().count();
    assert_eq!(loaded.segments, named);
    stored
}

/// A node appends its part of each log, in random portions, until each is acknowledged.
async fn write(store: SegmentStore, mut dice: Dice) -> BTreeMap<LogId, Seq> {
    let mut done = BTreeMap::new();
    let ends: BTreeMap<LogId, usize> = BAND
        .runs
        .iter()
        .map(|(log, runs)| (*log, dice.below(runs.len() + 1)))
        .collect();
    while ends
        .iter()
        .any(|(log, end)| done.get(log).copied().unwrap_or(0) < *end)
    {
        let mut portion: Vec<StoredRun> = Vec::new();
        for (log, end) in &ends {
            let from: usize = done.get(log).copied().unwrap_or(0);
            let to = (from + dice.below(4)).min(*end);
            if from < to {
                // Sometimes with what was sent before.
                let from = from - dice.below(from + 1);
                portion.push(joined(&BAND.runs[log][from..to]));
                done.insert(*log, to);
            }
        }
        append(&store, portion).await;
        if dice.below(6) == 0 {
            until_done(async || store.collect(&BAND.thread, u64::MAX).await).await;
        }
        if dice.below(6) == 0 {
            until_done(async || store.compact(&BAND.thread).await).await;
        }
    }
    ends.iter().map(|(log, end)| (*log, *end as Seq)).collect()
}

async fn append(store: &SegmentStore, portion: Vec<StoredRun>) {
    until_done(async || {
        let appended = store.append(&BAND.thread, portion.clone(), vec![]).await;
        appended.map(|_| 0)
    })
    .await;
}

/// What a node that is told "unknown" does: the same again.
async fn until_done(request: impl AsyncFn() -> Result<usize, SharedError>) {
    loop {
        match request().await {
            Ok(_) => return,
            Err(SharedError::Busy { .. } | SharedError::Store(ObjectError::Medium { .. })) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn check(nodes: u8, seed: u64, percent: usize) -> crate::faults::Count {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let shared = MemoryShared::new();
        let faulty = Faulty::new(shared.clone(), seed, percent);
        let writers = (0..nodes).map(|number| {
            let store = node(Arc::new(faulty.clone()), number + 1);
            write(store, Dice::new(seed ^ u64::from(number)))
        });
        let mut expected: BTreeMap<LogId, Seq> = BTreeMap::new();
        for ends in join_all(writers).await {
            for (log, end) in ends {
                let known = expected.entry(log).or_default();
                *known = end.max(*known);
            }
        }
        let expected: BTreeMap<(LogId, Seq), usize> = expected
            .into_iter()
            .flat_map(|(log, end)| (1..=end).map(move |seq| ((log, seq), 1)))
            .collect();
        let clean = node(Arc::new(shared.clone()), 99);
        assert_eq!(stored(&clean).await, expected, "each record once");
        // What is not named goes, and nothing else.
        clean.collect(&BAND.thread, u64::MAX).await.unwrap();
        assert_eq!(stored(&clean).await, expected, "after collecting");
        let place = BAND.thread.place();
        let listed = shared.list_segments(&place, None, 1_000).await.unwrap();
        let heads = clean.heads(&BAND.thread).await.unwrap();
        let named = heads.map_or(0, |heads| heads.segments().count());
        if named > 0 {
            assert_eq!(listed.len(), named);
        }
        clean.compact(&BAND.thread).await.unwrap();
        assert_eq!(stored(&clean).await, expected, "after merging");
        faulty.count()
    })
}

/// Each is a run of several nodes.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 30, ..ProptestConfig::default() })]

    /// With failures before and after the deed, answers that are lost, replacements that come late,
    /// and others who collect and merge all the while.
    #[test]
    fn nodes_that_write_at_once_lose_nothing_and_store_nothing_twice(
        nodes in 1..5_u8,
        seed in any::<u64>(),
        percent in prop::sample::select(vec![0_usize, 10, 30, 50]),
    ) {
        check(nodes, seed, percent);
    }
}

/// A node must read a segment to tell what is there, and others merge and collect it first.
#[test]
fn segment_that_was_merged_meanwhile_is_no_damage() {
    check(4, 4_928_123_891_673_099_581, 10);
}

/// The property above means something only if everything happens.
#[test]
fn all_kinds_of_trouble_happen() {
    let mut sum = [0; 5];
    for seed in 0..12 {
        let count = check(4, seed, 30);
        let counts = [
            count.failed,
            count.lost_answers,
            count.late,
            count.late_done,
            count.conflicts,
        ];
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(sum.iter().all(|count| *count > 10), "{sum:?}");
}

#[tokio::test]
async fn nodes_of_one_folder_share_a_thread() {
    let folder = tempfile::tempdir().unwrap();
    let writers = (0..4_u8).map(|number| {
        let shared = Arc::new(Objects::folder(folder.path()).unwrap());
        let store = node(shared, number + 1);
        async move {
            for runs in BAND.runs.values() {
                for portion in runs.chunks(2 + usize::from(number)) {
                    append(&store, vec![joined(portion)]).await;
                }
            }
        }
    });
    join_all(writers).await;
    let shared = Arc::new(Objects::folder(folder.path()).unwrap());
    let stored = stored(&node(shared, 99)).await;
    let records: usize = BAND.runs.values().map(Vec::len).sum();
    assert_eq!(stored.len(), records);
    assert!(stored.values().all(|count| *count == 1), "{stored:?}");
}

#[tokio::test]
async fn wraps_and_runs_come_back_and_appending_again_stores_nothing() {
    let shared = Arc::new(MemoryShared::new());
    let store = node(shared.clone(), 1);
    let (runs, wraps) = (BAND.all(), BAND.wraps.clone());
    let first = store
        .append(&BAND.thread, runs.clone(), wraps.clone())
        .await
        .unwrap();
    assert_eq!(first.stored.len(), BAND.runs.len(), "a run per log");
    let again = store.append(&BAND.thread, runs, vec![]).await.unwrap();
    assert!(again.stored.is_empty());
    assert_eq!(again.heads, first.heads);
    let newest = BAND.newest();
    for head in again.heads.heads() {
        assert_eq!(head.seq, newest[&head.log]);
    }
    let mut found = Vec::new();
    let known = newest.clone();
    store
        .load(&BAND.thread, &known, |segment| {
            found.extend(segment.wraps())
        })
        .await
        .unwrap();
    assert_eq!(found.len(), wraps.len());
    assert!(wraps.iter().all(|wrap| found.contains(wrap)));
    // Nothing at all is no object.
    let nothing = store.append(&BAND.thread, vec![], vec![]).await.unwrap();
    assert_eq!(nothing.heads, first.heads);
}

#[tokio::test]
async fn thread_that_is_too_large_is_refused_whole() {
    let shared = Arc::new(MemoryShared::new());
    let limits = Limits {
        thread_bytes_max: 3_000,
        ..LIMITS
    };
    let store = node(shared.clone(), 1).with_limits(limits);
    let log = *BAND.runs.keys().next().unwrap();
    let small = vec![BAND.runs[&log][0].clone()];
    store
        .append(&BAND.thread, small.clone(), vec![])
        .await
        .unwrap();
    let before = store.heads(&BAND.thread).await.unwrap();
    let refused = store.append(&BAND.thread, BAND.all(), vec![]).await;
    assert!(
        matches!(
            refused,
            Err(SharedError::OverQuota {
                bytes_max: 3_000,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(store.heads(&BAND.thread).await.unwrap(), before);
    let place = BAND.thread.place();
    let listed = shared.list_segments(&place, None, 10).await.unwrap();
    assert_eq!(listed.len(), 1, "nothing was put");
    // What is there already costs nothing.
    store.append(&BAND.thread, small, vec![]).await.unwrap();
}

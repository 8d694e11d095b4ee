//! A storage that lies: everything is refused by name, and nothing keeps the rest back.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_store_object::{Limits, SegmentStore, SharedError};
use leno_threads_core::ServiceKey;
use leno_threads_core::segment::{SegmentError, SharedThread};
use leno_threads_core::store::{MemoryShared, SegmentId, SharedStore};

use crate::band::{Band, joined};

fn store(shared: &MemoryShared) -> SegmentStore {
    let limits = Limits {
        tries_max: 2,
        pause_millis: 0,
        ..Limits::default()
    };
    SegmentStore::new(Arc::new(shared.clone()), [1; 32], [2; 32]).with_limits(limits)
}

/// A thread in two segments.
async fn written() -> (Band, MemoryShared, Vec<SegmentId>) {
    let (band, shared) = (Band::new(2, 6), MemoryShared::new());
    let store = store(&shared);
    for half in [0..3, 3..6] {
        let logs = band.runs.values().filter(|runs| runs.len() >= 6);
        let runs = logs.map(|runs| joined(&runs[half.clone()])).collect();
        store.append(&band.thread, runs, vec![]).await.unwrap();
    }
    let heads = store.heads(&band.thread).await.unwrap().unwrap();
    let ids = heads.segments().map(|(id, _)| *id).collect();
    (band, shared, ids)
}

#[tokio::test]
async fn missing_segment_is_told_and_keeps_nothing_back() {
    let (band, shared, ids) = written().await;
    let place = band.thread.place();
    shared.delete_segment(&place, &ids[0]).await.unwrap();
    let mut shown = 0;
    let loaded = store(&shared)
        .load(&band.thread, &BTreeMap::new(), |_| shown += 1)
        .await
        .unwrap();
    assert_eq!((shown, loaded.segments, loaded.damaged.len()), (1, 1, 1));
    let (id, error) = &loaded.damaged[0];
    assert_eq!(*id, ids[0]);
    assert!(
        matches!(error, SharedError::BadSegment { source: None, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn heads_of_strangers_are_refused() {
    let (band, shared, _) = written().await;
    let place = band.thread.place();
    let (sealed, version) = shared.heads(&place).await.unwrap().unwrap();
    for garbage in [vec![], vec![1; 100], sealed[..sealed.len() - 1].to_vec()] {
        let (_, version) = shared.heads(&place).await.unwrap().unwrap();
        shared
            .replace_heads(&place, garbage, Some(&version))
            .await
            .unwrap();
        let refused = store(&shared).heads(&band.thread).await;
        let Err(SharedError::BadHeads { source, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(matches!(*source, SegmentError::NotOpened(_)), "{source:?}");
        let refused = store(&shared)
            .append(&band.thread, band.all(), vec![])
            .await;
        assert!(
            matches!(refused, Err(SharedError::BadHeads { .. })),
            "{refused:?}"
        );
    }
    drop(version);
    // Another key is another place.
    let genesis = band.thread.genesis().unwrap();
    let stranger = SharedThread::new(genesis, ServiceKey::from_bytes([1; 32]));
    assert_eq!(store(&shared).heads(&stranger).await.unwrap(), None);
}

#[tokio::test]
async fn older_heads_are_noticed_and_healed() {
    let (band, shared, _) = written().await;
    let place = band.thread.place();
    let node = store(&shared);
    let before = node.heads(&band.thread).await.unwrap().unwrap();
    let (old, _) = shared.heads(&place).await.unwrap().unwrap();
    node.append(&band.thread, band.all(), vec![]).await.unwrap();
    // The storage goes back to a copy.
    let (_, version) = shared.heads(&place).await.unwrap().unwrap();
    shared
        .replace_heads(&place, old, Some(&version))
        .await
        .unwrap();
    let refused = node.heads(&band.thread).await;
    assert!(
        matches!(refused, Err(SharedError::RolledBack { .. })),
        "{refused:?}"
    );
    let refused = node.append(&band.thread, band.all(), vec![]).await;
    assert!(
        matches!(refused, Err(SharedError::RolledBack { .. })),
        "{refused:?}"
    );
    // A node that starts anew cannot know.
    assert_eq!(
        store(&shared).heads(&band.thread).await.unwrap(),
        Some(before)
    );
    node.forget(&band.thread);
    let healed = node.append(&band.thread, band.all(), vec![]).await.unwrap();
    for head in healed.heads.heads() {
        assert_eq!(head.seq, band.newest()[&head.log]);
    }
}

#[tokio::test]
async fn run_of_another_thread_is_refused() {
    let (band, shared, _) = written().await;
    let other = Band::new(1, 2);
    let refused = store(&shared)
        .append(&band.thread, other.all(), vec![])
        .await;
    assert!(
        matches!(refused, Err(SharedError::OfAnotherThread { .. })),
        "{refused:?}"
    );
    let told = SharedThread::named(other.id, other.service.clone());
    let refused = store(&shared).append(&told, other.all(), vec![]).await;
    assert!(
        matches!(refused, Err(SharedError::NoGenesis)),
        "{refused:?}"
    );
}

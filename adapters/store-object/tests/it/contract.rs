//! The conformance suites in memory and in folders.

use futures_executor::block_on;
use leno_store_object::Objects;
use leno_store_object::object_store::ObjectStoreExt;
use leno_threads_core::store::testing::{block_conformance, shared_conformance};
use leno_threads_core::store::{
    BlockStore, HEADS_BYTES_MAX, ObjectError, SegmentId, SharedStore, ThreadPlace,
};

#[test]
fn objects_in_memory_keep_both_contracts() {
    block_on(block_conformance(&Objects::memory()));
    let objects = Objects::memory();
    block_on(shared_conformance(&objects, &objects.clone()));
}

#[tokio::test]
async fn folder_keeps_both_contracts() {
    let folder = tempfile::tempdir().unwrap();
    block_conformance(&Objects::folder(folder.path()).unwrap()).await;
    let (one, other) = (
        Objects::folder(folder.path()).unwrap(),
        Objects::folder(folder.path()).unwrap(),
    );
    shared_conformance(&one, &other).await;
}

#[tokio::test]
async fn objects_outlive_their_handles() {
    let folder = tempfile::tempdir().unwrap();
    let (place, segment) = (ThreadPlace([1; 32]), SegmentId::of(b"segment"));
    let objects = Objects::folder(folder.path()).unwrap();
    objects
        .put_segment(&place, &segment, b"segment".to_vec())
        .await
        .unwrap();
    let version = objects
        .replace_heads(&place, b"heads".to_vec(), None)
        .await
        .unwrap();
    drop(objects);
    let objects = Objects::folder(folder.path()).unwrap();
    let read = objects.segment(&place, &segment).await.unwrap();
    assert_eq!(read, Some(b"segment".to_vec()));
    let (heads, read) = objects.heads(&place).await.unwrap().unwrap();
    assert_eq!((heads.as_slice(), &read), (b"heads".as_slice(), &version));
    let missing = Objects::folder(folder.path().join("none"));
    assert!(
        matches!(missing, Err(ObjectError::Medium { .. })),
        "{missing:?}"
    );
}

/// Of many who replace the same heads of a folder at once, one succeeds.
#[tokio::test]
async fn heads_of_a_folder_are_replaced_by_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let place = ThreadPlace([1; 32]);
    let mut version = None;
    for round in 0..10_u8 {
        let tries = (0..8_u8).map(|node| {
            let (objects, version) = (Objects::folder(folder.path()).unwrap(), version.clone());
            tokio::spawn(async move {
                let heads = vec![round, node];
                objects.replace_heads(&place, heads, version.as_ref()).await
            })
        });
        let mut done = Vec::new();
        for tried in tries.collect::<Vec<_>>() {
            match tried.await.unwrap() {
                Ok(version) => done.push(version),
                Err(error) => assert!(matches!(error, ObjectError::Conflict), "{error:?}"),
            }
        }
        assert_eq!(done.len(), 1, "round {round}");
        version = done.pop();
    }
}

#[tokio::test]
async fn what_others_left_beside_is_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::folder(folder.path()).unwrap();
    let place = ThreadPlace([1; 32]);
    objects
        .put_segment(&place, &SegmentId::of(b"a"), b"a".to_vec())
        .await
        .unwrap();
    let segments = folder.path().join(format!("threads/{place}/segments"));
    for name in ["notes.txt", "00", &"g".repeat(64)] {
        std::fs::write(segments.join(name), "strange").unwrap();
    }
    std::fs::create_dir_all(folder.path().join("blocks")).unwrap();
    for name in ["notes.txt", "01", "017112"] {
        std::fs::write(folder.path().join("blocks").join(name), "strange").unwrap();
    }
    // Nor does it fill a page.
    let listed = objects.list_segments(&place, None, 1).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(objects.list(None, 10).await.unwrap(), []);
}

/// Lengths are bounded before and while an object is read.
#[test]
fn objects_that_are_too_long_are_not_taken_into_memory() {
    block_on(async {
        let store = std::sync::Arc::new(leno_store_object::object_store::memory::InMemory::new());
        let objects = Objects::new(store.clone(), "prefix").unwrap();
        let place = ThreadPlace([1; 32]);
        let long = vec![0; HEADS_BYTES_MAX + 1];
        let path = format!("prefix/threads/{place}/heads");
        store.put(&path.into(), long.into()).await.unwrap();
        let refused = objects.heads(&place).await;
        assert!(
            matches!(refused, Err(ObjectError::TooLong { .. })),
            "{refused:?}"
        );
        let id = SegmentId::of(b"segment");
        let path = format!("prefix/threads/{place}/segments/{id}");
        store
            .put(&path.into(), vec![0; 9 << 20].into())
            .await
            .unwrap();
        let refused = objects.segment(&place, &id).await;
        assert!(
            matches!(refused, Err(ObjectError::TooLong { .. })),
            "{refused:?}"
        );
        let refused = Objects::new(store, "a//b");
        assert!(
            matches!(refused, Err(ObjectError::BadName { .. })),
            "{refused:?}"
        );
    });
}

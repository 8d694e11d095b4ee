//! The contract of [`SharedStore`].

use crate::store::{
    HEADS_BYTES_MAX, HeadsVersion, ObjectError, SEGMENT_BYTES_MAX, SegmentId, SharedStore,
    ThreadPlace,
};

/// Runs all checks of a shared store: `one` and `other` are two nodes' handles of one store that has
/// no objects yet.
///
/// # Panics
///
/// With the clause that is broken.
pub async fn shared_conformance(one: &dyn SharedStore, other: &dyn SharedStore) {
    segments_are_put_read_and_deleted(one, other).await;
    segments_that_are_not_as_named_are_refused(one).await;
    segments_are_listed_in_pages(one).await;
    heads_are_replaced_only_by_who_knows_them(one, other).await;
    heads_are_created_once(one, other).await;
    threads_are_apart(one).await;
}

fn place(number: u8) -> ThreadPlace {
    ThreadPlace([number; 32])
}

/// A segment is there, for every node, from its put to its deletion; each of both may be repeated.
pub async fn segments_are_put_read_and_deleted(one: &dyn SharedStore, other: &dyn SharedStore) {
    let longest = vec![7; SEGMENT_BYTES_MAX];
    for bytes in [b"".as_slice(), b"segment", &longest] {
        let id = SegmentId::of(bytes);
        let read = async || {
            let read = other.segment(&place(1), &id).await;
            read.expect("reading succeeds")
        };
        assert_eq!(read().await, None, "before it was put");
        for _ in 0..2 {
            put(one, 1, bytes).await;
            assert_eq!(read().await.as_deref(), Some(bytes));
        }
        for _ in 0..2 {
            let deleted = one.delete_segment(&place(1), &id).await;
            deleted.expect("deleting succeeds");
            assert_eq!(read().await, None, "after it was deleted");
        }
    }
}

/// What a name does not stand for is not kept.
pub async fn segments_that_are_not_as_named_are_refused(one: &dyn SharedStore) {
    let id = SegmentId::of(b"as named");
    let refused = one.put_segment(&place(2), &id, b"other".to_vec()).await;
    assert!(
        matches!(refused, Err(ObjectError::NotAsNamed { .. })),
        "{refused:?}"
    );
    let long = vec![1; SEGMENT_BYTES_MAX + 1];
    let id = SegmentId::of(&long);
    let refused = one.put_segment(&place(2), &id, long).await;
    assert!(
        matches!(refused, Err(ObjectError::TooLong { .. })),
        "{refused:?}"
    );
    assert_eq!(listed(one, 2).await, [], "nothing of it is kept");
}

/// Pages follow each other in the order of the names, with true lengths.
pub async fn segments_are_listed_in_pages(one: &dyn SharedStore) {
    let mut expected = Vec::new();
    for number in 0..25_u8 {
        let bytes = vec![number; usize::from(number)];
        put(one, 3, &bytes).await;
        expected.push((SegmentId::of(&bytes), bytes.len() as u64));
    }
    expected.sort();
    assert_eq!(listed(one, 3).await, expected);
    let page = one.list_segments(&place(3), None, 0).await;
    assert_eq!(page.expect("listing succeeds"), [], "a limit of nothing");
}

/// A version that is no longer the newest replaces nothing.
pub async fn heads_are_replaced_only_by_who_knows_them(
    one: &dyn SharedStore,
    other: &dyn SharedStore,
) {
    assert_eq!(heads(one, 4).await, None);
    let mut version = replace(one, 4, b"0", None).await.expect("the first heads");
    for number in 1..5_u8 {
        let (bytes, read) = heads(other, 4).await.expect("there are heads");
        assert_eq!((bytes, &read), (vec![b'0' + number - 1], &version));
        let newer = replace(other, 4, &[b'0' + number], Some(&read)).await;
        let newer = newer.expect("the newest version is known");
        for stale in [Some(&version), None] {
            let refused = replace(one, 4, b"stale", stale).await;
            assert!(matches!(refused, Err(ObjectError::Conflict)), "{refused:?}");
        }
        version = newer;
    }
    // Also if the same bytes are there again.
    let again = replace(one, 4, b"0", Some(&version)).await;
    again.expect("the newest version is known");
    let refused = replace(one, 4, b"stale", Some(&version)).await;
    assert!(matches!(refused, Err(ObjectError::Conflict)), "{refused:?}");
    assert_eq!(heads(one, 4).await.map(|it| it.0), Some(b"0".to_vec()));
    let long = vec![1; HEADS_BYTES_MAX + 1];
    let refused = replace(one, 4, &long, None).await;
    assert!(
        matches!(refused, Err(ObjectError::TooLong { .. })),
        "{refused:?}"
    );
}

/// Of two nodes that both find no heads one makes them.
pub async fn heads_are_created_once(one: &dyn SharedStore, other: &dyn SharedStore) {
    replace(one, 5, b"mine", None).await.expect("the first");
    let refused = replace(other, 5, b"yours", None).await;
    assert!(matches!(refused, Err(ObjectError::Conflict)), "{refused:?}");
    assert_eq!(heads(other, 5).await.map(|it| it.0), Some(b"mine".to_vec()));
    // A version of something that was never there.
    let strange = HeadsVersion("\"strange\"".to_owned());
    let refused = replace(one, 6, b"mine", Some(&strange)).await;
    assert!(matches!(refused, Err(ObjectError::Conflict)), "{refused:?}");
    assert_eq!(heads(one, 6).await, None);
}

/// Objects of one thread are not seen from another.
pub async fn threads_are_apart(one: &dyn SharedStore) {
    put(one, 7, b"segment").await;
    replace(one, 7, b"heads", None).await.expect("the first");
    for number in [6, 8] {
        assert_eq!(listed(one, number).await, []);
        assert_eq!(heads(one, number).await, None);
    }
}

async fn put(store: &dyn SharedStore, number: u8, bytes: &[u8]) {
    let id = SegmentId::of(bytes);
    let put = store.put_segment(&place(number), &id, bytes.to_vec()).await;
    put.expect("putting succeeds");
}

async fn listed(store: &dyn SharedStore, number: u8) -> Vec<(SegmentId, u64)> {
    let mut all: Vec<(SegmentId, u64)> = Vec::new();
    loop {
        let after = all.last().map(|(id, _)| *id);
        let page = store.list_segments(&place(number), after.as_ref(), 7).await;
        let page = page.expect("listing succeeds");
        assert!(page.len() <= 7, "pages keep to their limit");
        if page.is_empty() {
            return all;
        }
        all.extend(page.iter().map(|listed| (listed.id, listed.bytes)));
    }
}

async fn heads(store: &dyn SharedStore, number: u8) -> Option<(Vec<u8>, HeadsVersion)> {
    let heads = store.heads(&place(number)).await;
    heads.expect("reading succeeds")
}

async fn replace(
    store: &dyn SharedStore,
    number: u8,
    bytes: &[u8],
    expected: Option<&HeadsVersion>,
) -> Result<HeadsVersion, ObjectError> {
    let place = place(number);
    store.replace_heads(&place, bytes.to_vec(), expected).await
}

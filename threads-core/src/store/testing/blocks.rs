//! The contract of [`BlockStore`].

use cid::Cid;
use multihash::Multihash;
use sha2::{Digest, Sha256};

use crate::store::{BLOCK_BYTES_MAX, BlockStore, ObjectError};

/// Runs all checks of a block store on one that has no blocks yet.
///
/// # Panics
///
/// With the clause that is broken.
pub async fn block_conformance(blocks: &dyn BlockStore) {
    blocks_are_put_read_and_deleted(blocks).await;
    bytes_that_are_not_as_named_are_refused(blocks).await;
    names_of_other_kinds_are_refused(blocks).await;
    blocks_are_listed_in_pages(blocks).await;
}

fn name(codec: u64, bytes: &[u8]) -> Cid {
    let hash = Multihash::wrap(0x12, &Sha256::digest(bytes)).expect("32 bytes fit a multihash");
    Cid::new_v1(codec, hash)
}

/// A block is there from its put to its deletion, and each of both may be repeated.
pub async fn blocks_are_put_read_and_deleted(blocks: &dyn BlockStore) {
    let longest = vec![7; BLOCK_BYTES_MAX];
    for bytes in [b"".as_slice(), b"block", &longest] {
        let cid = name(0x55, bytes);
        assert_eq!(read(blocks, &cid).await, None, "before it was put");
        assert!(!has(blocks, &cid).await, "before it was put");
        for _ in 0..2 {
            put(blocks, &cid, bytes).await;
            assert_eq!(read(blocks, &cid).await.as_deref(), Some(bytes));
            assert!(has(blocks, &cid).await);
        }
        let other = name(0x71, bytes);
        assert!(!has(blocks, &other).await, "another codec is another block");
        for _ in 0..2 {
            blocks.delete(&cid).await.expect("deleting succeeds");
            assert_eq!(read(blocks, &cid).await, None, "after it was deleted");
        }
    }
}

/// What a name does not stand for is not kept.
pub async fn bytes_that_are_not_as_named_are_refused(blocks: &dyn BlockStore) {
    let cid = name(0x55, b"as named");
    let refused = blocks.put(&cid, b"other".to_vec()).await;
    assert!(
        matches!(refused, Err(ObjectError::NotAsNamed { .. })),
        "{refused:?}"
    );
    let long = vec![1; BLOCK_BYTES_MAX + 1];
    let refused = blocks.put(&name(0x55, &long), long).await;
    assert!(
        matches!(refused, Err(ObjectError::TooLong { .. })),
        "{refused:?}"
    );
    assert_eq!(listed(blocks).await, [], "nothing of it is kept");
}

/// Only CIDs of version 1 with a sha2-256 hash of 32 bytes are names.
pub async fn names_of_other_kinds_are_refused(blocks: &dyn BlockStore) {
    let digest = Sha256::digest(b"block");
    let hash = |code, digest: &[u8]| Multihash::wrap(code, digest).expect("it fits a multihash");
    let version_0 = Cid::new_v0(hash(0x12, &digest)).expect("a sha2-256 hash");
    let identity = Cid::new_v1(0x55, hash(0, b"block"));
    let other = Cid::new_v1(0x55, hash(0x1e, &digest));
    let short = Cid::new_v1(0x55, hash(0x12, digest.get(..20).unwrap_or_default()));
    for cid in [version_0, identity, other, short] {
        let refused = [
            blocks.put(&cid, b"block".to_vec()).await.err(),
            blocks.get(&cid).await.err(),
            blocks.has(&cid).await.err(),
            blocks.delete(&cid).await.err(),
        ];
        for error in refused {
            assert!(
                matches!(error, Some(ObjectError::BadName { .. })),
                "{cid}: {error:?}"
            );
        }
    }
}

/// Pages follow each other in the order of the names' bytes.
pub async fn blocks_are_listed_in_pages(blocks: &dyn BlockStore) {
    let mut cids = Vec::new();
    for number in 0..25_u8 {
        let codec = if number % 2 == 0 { 0x55 } else { 0x70 };
        cids.push(name(codec, &[number]));
        put(blocks, &name(codec, &[number]), &[number]).await;
    }
    cids.sort_by_key(Cid::to_bytes);
    assert_eq!(listed(blocks).await, cids);
    let page = blocks.list(None, 0).await.expect("listing succeeds");
    assert_eq!(page, [], "a limit of nothing");
    for cid in &cids {
        blocks.delete(cid).await.expect("deleting succeeds");
    }
    assert_eq!(listed(blocks).await, []);
}

async fn listed(blocks: &dyn BlockStore) -> Vec<Cid> {
    let mut all: Vec<Cid> = Vec::new();
    loop {
        let page = blocks.list(all.last(), 7).await.expect("listing succeeds");
        assert!(page.len() <= 7, "pages keep to their limit");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn put(blocks: &dyn BlockStore, cid: &Cid, bytes: &[u8]) {
    let put = blocks.put(cid, bytes.to_vec()).await;
    put.expect("putting succeeds");
}

async fn read(blocks: &dyn BlockStore, cid: &Cid) -> Option<Vec<u8>> {
    blocks.get(cid).await.expect("reading succeeds")
}

async fn has(blocks: &dyn BlockStore, cid: &Cid) -> bool {
    blocks.has(cid).await.expect("asking succeeds")
}

//! Leno's object store over HTTP to an S3 server: both contracts, and nodes that meet.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use leno_interop_s3::{BUCKET, KEYS, Server};
use leno_store_object::object_store::aws::AmazonS3Builder;
use leno_store_object::{Limits, Objects, SegmentStore, SharedError};
use leno_threads_core::segment::{SharedThread, StoredRun};
use leno_threads_core::store::testing::{block_conformance, shared_conformance};
use leno_threads_core::store::{MemoryStore, ObjectError, SharedStore, Store, ThreadPlace};
use leno_threads_core::thread::{Changes, Seat, Thread};
use leno_threads_core::{NonceSecret, Suite, THREAD_DOMAIN};
use rand_chacha::rand_core::SeedableRng;

fn objects(server: &Server, secret: &str) -> Objects {
    let settings = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(KEYS.0)
        .with_secret_access_key(secret);
    Objects::s3(settings, "hub/one").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_keeps_both_contracts() {
    let server = Server::start().await.unwrap();
    block_conformance(&objects(&server, KEYS.1)).await;
    shared_conformance(&objects(&server, KEYS.1), &objects(&server, KEYS.1)).await;
    assert!(
        server.counts().1 > 5,
        "conditions were compared by the server"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_secret_is_refused() {
    let server = Server::start().await.unwrap();
    let refused = objects(&server, "wrong").heads(&ThreadPlace([1; 32])).await;
    assert!(
        matches!(refused, Err(ObjectError::Medium { .. })),
        "{refused:?}"
    );
}

/// A thread with its owner's two logs, a run per record.
fn band(records: usize) -> (SharedThread, Vec<StoredRun>) {
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([5; 32]);
    let seat = Seat {
        signing: leno_identity::SigningKey::generate(&mut rng).unwrap(),
        kem: leno_identity::AgreementKey::generate(&mut rng).unwrap(),
    };
    let store = MemoryStore::new();
    let (mut changes, secret) = (Changes::new(), NonceSecret::new(&[7; 32]));
    let (suite, now) = (Suite::Aes256Gcm, 1_800_000_000_000_u64);
    let view = store.view().unwrap();
    let mut band = Thread::create(
        &*view,
        0,
        seat,
        secret,
        suite,
        &[],
        now,
        &mut rng,
        &mut changes,
    )
    .unwrap();
    for _ in 0..records {
        let word = [0x62, b'h', b'i'];
        band.append(&*view, THREAD_DOMAIN, &word, now, &mut rng, &mut changes)
            .unwrap();
        band.publish(&mut changes);
    }
    drop(view);
    futures_executor::block_on(store.commit(changes.batch)).unwrap();
    let view = store.view().unwrap();
    let mut runs = Vec::new();
    for log in band.logs() {
        band.scan_rows(&*view, &log.id, 1, &mut |_, row| {
            runs.push(StoredRun::verify(band.id(), log.id, row.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    let service = band.service_key().clone();
    (SharedThread::new(band.genesis(), service), runs)
}

/// Four nodes write at once, every third answer to a put is lost, and one collects and merges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_bucket_lose_nothing_and_store_nothing_twice() {
    let (thread, runs) = band(24);
    let server = Server::start().await.unwrap();
    server.lose_answers(3);
    let limits = Limits {
        tries_max: 30,
        pause_millis: 2,
        pause_millis_max: 50,
        grace_millis: 0,
        ..Limits::default()
    };
    let nodes = (1..=4_u8).map(|number| {
        let (thread, runs) = (thread.clone(), runs.clone());
        let shared = Arc::new(objects(&server, KEYS.1));
        let store = SegmentStore::new(shared, [number; 32], [number; 32]).with_limits(limits);
        tokio::spawn(async move {
            for portion in runs.chunks(usize::from(number) + 2) {
                while let Err(error) = store.append(&thread, portion.to_vec(), vec![]).await {
                    let again = matches!(error, SharedError::Busy { .. } | SharedError::Store(_));
                    assert!(again, "{error:?}");
                }
                if number == 4 {
                    store.collect(&thread, u64::MAX).await.unwrap();
                    store.compact(&thread).await.unwrap();
                }
            }
        })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap();
    }
    let (lost, refused) = server.counts();
    assert!(
        lost > 5 && refused > 5,
        "{lost} answers lost, {refused} puts refused"
    );

    server.lose_answers(0);
    let shared = Arc::new(objects(&server, KEYS.1));
    let store = SegmentStore::new(shared, [9; 32], [9; 32]).with_limits(limits);
    let mut stored: BTreeMap<_, usize> = BTreeMap::new();
    let loaded = store
        .load(&thread, &BTreeMap::new(), |segment| {
            for span in segment.spans() {
                for seq in span.first..=span.last {
                    *stored.entry((span.log, seq)).or_default() += 1;
                }
            }
        })
        .await
        .unwrap();
    assert!(loaded.damaged.is_empty(), "{:?}", loaded.damaged);
    let expected: BTreeMap<_, usize> = runs
        .iter()
        .map(|run| ((run.span().log, run.span().last), 1))
        .collect();
    assert_eq!(stored, expected, "each record once");
    store.collect(&thread, u64::MAX).await.unwrap();
    store.compact(&thread).await.unwrap();
    let heads = store.heads(&thread).await.unwrap().unwrap();
    assert_eq!(heads.segments().count(), 1, "merged");
}

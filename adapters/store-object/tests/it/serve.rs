//! A node that has nothing but a thread's id and service key loads it and holds all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_identity::{AgreementKey, SigningKey};
use leno_store_object::{Objects, SegmentStore};
use leno_threads_core::segment::{SharedThread, StoredRun};
use leno_threads_core::store::{MemoryStore, Store};
use leno_threads_core::thread::{Changes, Seat, Thread};
use leno_threads_core::{NonceSecret, decode_row};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::band::{Band, NOW_MILLIS};

#[tokio::test]
async fn any_node_loads_a_thread_and_admits_all_of_it() {
    let band = Band::new(3, 5);
    let shared = Arc::new(Objects::memory());
    let one = SegmentStore::new(shared.clone(), [1; 32], [2; 32]);
    for runs in band.runs.values() {
        one.append(&band.thread, runs.clone(), vec![])
            .await
            .unwrap();
    }

    let other = SegmentStore::new(shared, [3; 32], [4; 32]);
    let told = SharedThread::named(band.id, band.service.clone());
    let mut runs: Vec<StoredRun> = Vec::new();
    let loaded = other
        .load(&told, &BTreeMap::new(), |segment| {
            runs.extend_from_slice(segment.runs())
        })
        .await
        .unwrap();

    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let seat = Seat {
        signing: SigningKey::generate(&mut rng).unwrap(),
        kem: AgreementKey::generate(&mut rng).unwrap(),
    };
    let (store, mut changes) = (MemoryStore::new(), Changes::new());
    let (genesis, secret) = (loaded.heads.genesis().encode(), NonceSecret::new(&[6; 32]));
    let service = band.service.clone();
    let mut copy = Thread::join(0, band.id, &genesis, service, seat, secret, &mut changes).unwrap();
    // Logs open each other, so some come again until all are in.
    let view = store.view().unwrap();
    runs.sort_by_key(|run| *run.span());
    while !runs.is_empty() {
        let before = runs.len();
        runs.retain(|stored| {
            let (_, run) = decode_row(stored.row()).unwrap();
            let (log, first) = (stored.span().log, stored.span().first);
            let sink = &mut |_: &leno_threads_core::thread::Opened<'_>| panic!("it holds no key");
            let changes = &mut changes;
            copy.receive(&*view, log, first, run, NOW_MILLIS, changes, sink)
                .is_err()
        });
        assert!(runs.len() < before, "{runs:?}");
    }
    for (log, seq) in band.newest() {
        assert_eq!(copy.log(&log).unwrap().admitted, seq, "{log}");
        assert_eq!(
            copy.log(&log).unwrap().head.as_ref(),
            loaded.heads.head(&log)
        );
    }
}

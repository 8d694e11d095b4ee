//! A thread with several writers, made by real peers, and its runs as their stores keep them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;
use leno::transport::memory::{Conditions, MemoryNetwork};
use leno::{DocumentId, ManualClock, Peer, PeerId, Role};
use leno_threads_core::segment::{SharedThread, StoredRun};
use leno_threads_core::store::{MemoryStore, Store};
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::{LogId, NonceSecret, Seq, ServiceKey, ThreadId, Wrap};

pub(crate) const NOW_MILLIS: u64 = 1_800_000_000_000;

/// What one peer has of a thread.
pub(crate) struct Band {
    pub(crate) thread: SharedThread,
    pub(crate) id: ThreadId,
    pub(crate) service: ServiceKey,
    /// One per record, by log and place.
    pub(crate) runs: BTreeMap<LogId, Vec<StoredRun>>,
    pub(crate) wraps: Vec<Wrap>,
}

impl Band {
    /// A thread in which so many peers wrote so many documents each, a record each.
    pub(crate) fn new(writers: usize, documents: usize) -> Self {
        let store = MemoryStore::new();
        let mut pool = LocalPool::new();
        let spawner = pool.spawner();
        let alices = store.clone();
        pool.run_until(async move {
            let network = MemoryNetwork::new(7, Conditions::default());
            let clock = ManualClock::new(NOW_MILLIS);
            // Bands of other sizes are other threads.
            let start = async |store: MemoryStore, number: usize| {
                let seed = u8::try_from(16 * writers + number).unwrap();
                let device = Peer::device(&store).await.unwrap();
                let id = PeerId(device.verifying_key().to_bytes());
                let builder = Peer::builder().store(store).clock(clock.clone());
                let builder = builder.seed([seed; 32]).transport(network.endpoint(id));
                let (peer, driver) = builder.build().await.unwrap();
                spawner
                    .spawn_local(async { driver.run().await.unwrap() })
                    .unwrap();
                peer
            };
            let alice = start(alices, 0).await;
            let band = alice.create_thread("band").await.unwrap();
            let mut threads = vec![band.clone()];
            for number in 1..writers {
                let peer = start(MemoryStore::new(), number).await;
                let card = peer.card("somebody").await.unwrap();
                let ticket = band.grant(&card, Role::Writer).await.unwrap();
                threads.push(peer.join(&ticket).await.unwrap());
                alice.sync_once(Duration::from_secs(1)).await.unwrap();
            }
            for number in 0..documents {
                for (writer, thread) in threads.iter().enumerate() {
                    let text = format!("{writer} {number}");
                    let id = DocumentId::natural(text.as_str()).unwrap();
                    let document = BTreeMap::from([("text", text)]);
                    thread
                        .collection("songs")
                        .put(&id, &document)
                        .await
                        .unwrap();
                }
                // Alone there is nobody to wait for, on a clock that stands.
                if writers > 1 {
                    alice.sync_once(Duration::from_secs(1)).await.unwrap();
                }
            }
            alice.close().await.unwrap();
        });
        Self::of(&store)
    }

    /// What a peer's store has of its one thread.
    fn of(store: &MemoryStore) -> Self {
        let view = store.view().unwrap();
        let secret = NonceSecret::new(&[0; 32]);
        let replica = Replica::load(&*view, PeerKey([0; 32]), secret).unwrap();
        let thread = replica.threads().next().unwrap();
        let (id, service) = (thread.id(), thread.service_key().clone());
        let mut runs: BTreeMap<LogId, Vec<StoredRun>> = BTreeMap::new();
        for log in thread.logs() {
            let runs = runs.entry(log.id).or_default();
            let mut split = |row: &[u8]| {
                let run = StoredRun::verify(id, log.id, row.to_vec()).unwrap();
                runs.push(run);
                ControlFlow::Continue(())
            };
            thread
                .scan_rows(&*view, &log.id, 1, &mut |_, row| split(row))
                .unwrap();
        }
        Self {
            thread: SharedThread::new(thread.genesis(), service.clone()),
            id,
            service,
            runs,
            wraps: thread.wraps(&*view).unwrap(),
        }
    }

    pub(crate) fn all(&self) -> Vec<StoredRun> {
        self.runs.values().flatten().cloned().collect()
    }

    /// How far each log goes.
    pub(crate) fn newest(&self) -> BTreeMap<LogId, Seq> {
        let newest = |runs: &Vec<StoredRun>| runs.last().unwrap().span().last;
        self.runs
            .iter()
            .map(|(log, runs)| (*log, newest(runs)))
            .collect()
    }
}

/// Runs that follow each other, as one.
pub(crate) fn joined(runs: &[StoredRun]) -> StoredRun {
    let (first, rest) = runs.split_first().unwrap();
    rest.iter()
        .fold(first.clone(), |run, next| run.joined(next).unwrap())
}

//! What a shared store held of a thread, taken in as if a peer had sent it.

use leno_crdt_codec::cbor::Decoder;
use leno_threads_core::segment::{SharedHeads, StoredRun};
use leno_threads_core::store::Store as _;
use leno_threads_core::sync::shared::{Extent, Lacking, Part, TakeSharedError, Taken};
use leno_threads_core::thread::Opened;
use leno_threads_core::{Genesis, Role, ThreadId, Wrap};

use crate::util::{Peer, rows};

impl Peer {
    /// All runs and wraps of a thread, gathered in steps of a row.
    fn shared_parts(&self, id: ThreadId) -> (Vec<StoredRun>, Vec<Wrap>) {
        let (view, thread) = (self.store.view().unwrap(), self.thread(id));
        let nothing = SharedHeads::new(thread.genesis().clone());
        let mut lacking = Lacking::new(thread, &*view, &nothing).unwrap();
        assert!(!lacking.has_more());
        let mut runs = Vec::new();
        while !lacking.is_done() {
            for (log, row) in lacking.next_rows(thread, &*view, 1).unwrap() {
                runs.push(StoredRun::verify(id, log, row).unwrap());
            }
        }
        (runs, thread.wraps(&*view).unwrap())
    }

    fn take_shared(
        &mut self,
        id: ThreadId,
        genesis: &Genesis,
        runs: Vec<StoredRun>,
        wraps: &[Wrap],
    ) -> Result<Taken, TakeSharedError> {
        let now = self.time();
        let mut opened = Vec::new();
        let part = Part {
            genesis,
            runs,
            wraps,
        };
        let taken = self.step(|replica, view, rng, changes| {
            let mut sink = |_: ThreadId, it: &Opened<'_>| {
                let text = Decoder::new(&it.plaintext[1..]).text().unwrap().to_owned();
                opened.push((it.record.log, it.record.seq, text));
            };
            replica.take_shared(view, id, part, now, rng, changes, &mut sink)
        });
        self.read.entry(id).or_default().extend(opened);
        taken
    }
}

fn alice_and_bob() -> (Peer, Peer, ThreadId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, Role::Reader);
    alice.write_many(id, ["one", "two"]);
    alice.write(id, "three");
    (alice, bob, id)
}

#[test]
fn runs_in_any_order_come_to_the_same_and_nothing_comes_twice() {
    let (alice, mut bob, id) = alice_and_bob();
    let genesis = alice.thread(id).genesis().clone();
    let (mut runs, wraps) = alice.shared_parts(id);
    runs.sort_by_key(|run| std::cmp::Reverse(*run.span()));
    let all = runs.clone();
    let mut rounds = 0;
    while !runs.is_empty() {
        let taken = bob.take_shared(id, &genesis, runs, &[]).unwrap();
        assert!(taken.stored > 0 && taken.refused.is_empty(), "{taken:?}");
        runs = taken.waiting;
        rounds += 1;
    }
    assert!(rounds > 1, "the last came first");
    assert_eq!(bob.reads(id).len(), 0, "without keys nothing is read");
    bob.take_shared(id, &genesis, Vec::new(), &wraps).unwrap();
    assert_eq!(bob.state(id), alice.state(id));
    assert_eq!(bob.reads(id).len(), 3);
    let records = Extent::of(alice.thread(id)).records;
    assert_eq!(Extent::of(bob.thread(id)).records, records);

    let (before, extent) = (rows(&bob.store), Extent::of(bob.thread(id)));
    let again = bob.take_shared(id, &genesis, all, &wraps).unwrap();
    assert_eq!(
        (again.stored, again.admitted, again.waiting.len()),
        (0, 0, 0)
    );
    assert_eq!(
        (rows(&bob.store), Extent::of(bob.thread(id))),
        (before, extent)
    );
}

#[test]
fn genesis_of_another_thread_changes_nothing() {
    let (alice, mut bob, id) = alice_and_bob();
    let mut carol = Peer::new(3);
    let hers = carol.create();
    let wrong = carol.thread(hers).genesis().clone();
    let (runs, wraps) = alice.shared_parts(id);
    let before = rows(&bob.store);
    let refused = bob.take_shared(id, &wrong, runs.clone(), &wraps);
    assert!(
        matches!(refused, Err(TakeSharedError::WrongGenesis)),
        "{refused:?}"
    );
    let unknown = bob.take_shared(hers, &wrong, runs, &wraps);
    assert!(matches!(unknown, Err(TakeSharedError::NoSuchThread(it)) if it == hers));
    assert_eq!(rows(&bob.store), before);
}

/// Whoever may write to the store can put junk there. It stands for nobody who may read.
#[test]
fn junk_keys_keep_no_good_ones_back() {
    let (mut alice, mut bob, id) = alice_and_bob();
    let mut carol = Peer::new(3);
    let carols = alice.seat(&mut carol, id, Role::Reader);
    let genesis = alice.thread(id).genesis().clone();
    let bobs = bob.replica.shared_thread(&id).unwrap();
    assert!(bobs.genesis().is_none());
    let (mut runs, wraps) = alice.shared_parts(id);
    while !runs.is_empty() {
        runs = bob.take_shared(id, &genesis, runs, &[]).unwrap().waiting;
    }
    let mut junk = wraps.clone();
    for wrap in &mut junk {
        wrap.encapsulated[0] ^= 1;
    }
    let taken = bob.take_shared(id, &genesis, Vec::new(), &junk).unwrap();
    assert!(!taken.refused.is_empty(), "what is for Bob is bad");
    assert_eq!(bob.reads(id).len(), 0);
    let own: Vec<Wrap> = wraps
        .iter()
        .filter(|it| it.seat != carols)
        .cloned()
        .collect();
    bob.take_shared(id, &genesis, Vec::new(), &own).unwrap();
    assert_eq!(bob.reads(id).len(), 3);

    // Bob holds the keys, and wraps them for Carol: that junk for her is there does not count.
    let view = bob.store.view().unwrap();
    let kept = bob.thread(id).wraps(&*view).unwrap();
    let good = kept
        .iter()
        .filter(|it| it.seat == carols && !junk.contains(it));
    assert!(good.count() > 0, "{kept:?}");
}

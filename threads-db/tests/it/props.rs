//! Whatever is written, in whatever order records come, wherever flushes and crashes fall: the state
//! is that of the naive fold over all records.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use leno_threads_core::store::Store;
use leno_threads_db::{DbError, DocumentId, Event, FieldChange, FieldEdit};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{ALICE, BOB, CAROL, Oracle, Peer, Record, natural};

/// What happens, and to which peer.
#[derive(Clone, Debug)]
enum Step {
    /// A transaction of these writes.
    Write(usize, Vec<Write>),
    /// As many records as that, counted from a random one among all there are, come in or come again.
    Receive(usize, u16, u8),
    Flush(usize),
    Settle(usize),
    Crash(usize),
    TakeEvents(usize),
    Read(usize, u8),
}

#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put(u8, Ipld),
    Insert(Ipld),
    Patch(u8, Ipld),
    Delete(u8),
    Edit(u8, Vec<FieldEdit>),
}

/// Six names for documents, three in each collection; the later ones of generated documents.
fn target(peer: &Peer, pick: u8) -> (&'static str, DocumentId) {
    let collection = if pick.is_multiple_of(2) {
        "songs"
    } else {
        "bands"
    };
    let name = ["a", "b", "ab"][usize::from(pick / 2) % 3];
    if pick >= 6 {
        let view = peer.store.view().unwrap();
        let listed = peer.documents.list(&*view, collection, None, 1).unwrap();
        if let Some(first) = listed.first() {
            return (collection, first.id.clone());
        }
    }
    (collection, natural(name))
}

fn scalar() -> impl Strategy<Value = Ipld> {
    prop_oneof![
        (-3_i64..4).prop_map(Ipld::from),
        "[a-c]{0,2}".prop_map(Ipld::String),
        Just(Ipld::Null),
    ]
}

fn list() -> impl Strategy<Value = Ipld> {
    vec("[a-d]", 0..5).prop_map(|items| {
        items
            .into_iter()
            .map(Ipld::String)
            .collect::<Vec<_>>()
            .into()
    })
}

fn value() -> impl Strategy<Value = Ipld> {
    let number = || (-9_i64..9).prop_map(Ipld::from);
    let field = prop_oneof![
        ("(title|note|year)", scalar()),
        ("(plays|best|worst)", number()),
        ("(tags|fans|verses)", list()),
        (
            "meta",
            (number(), list()).prop_map(|(uses, tags)| {
                Ipld::Map(BTreeMap::from([
                    ("uses".to_owned(), uses),
                    ("tags".to_owned(), tags),
                ]))
            })
        ),
    ];
    vec(field, 0..5).prop_map(|fields| Ipld::Map(fields.into_iter().collect()))
}

fn edit() -> impl Strategy<Value = FieldEdit> {
    let index = 0_usize..4;
    prop_oneof![
        scalar().prop_map(|it| FieldEdit::new(["title"], FieldChange::Set(it))),
        Just(FieldEdit::new(["note"], FieldChange::Unset)),
        (-3_i64..4).prop_map(|by| FieldEdit::new(["plays"], FieldChange::Increment(by))),
        (-3_i64..4).prop_map(|by| FieldEdit::new(["meta", "uses"], FieldChange::Increment(by))),
        "[a-d]".prop_map(|it| FieldEdit::new(["tags"], FieldChange::Add(it.into()))),
        "[a-d]".prop_map(|it| FieldEdit::new(["tags"], FieldChange::Remove(it.into()))),
        "[a-d]".prop_map(|it| FieldEdit::new(["meta", "tags"], FieldChange::Add(it.into()))),
        (index.clone(), "[e-h]").prop_map(|(index, it)| {
            FieldEdit::new(
                ["verses"],
                FieldChange::Insert {
                    index,
                    value: it.into(),
                },
            )
        }),
        (index.clone(), "[e-h]").prop_map(|(index, it)| {
            FieldEdit::new(
                ["verses"],
                FieldChange::Replace {
                    index,
                    value: it.into(),
                },
            )
        }),
        index.prop_map(|index| FieldEdit::new(["verses"], FieldChange::Take { index })),
    ]
}

pub(crate) fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (any::<u8>(), value()).prop_map(|(at, value)| Write::Put(at % 8, value)),
        1 => value().prop_map(Write::Insert),
        3 => (any::<u8>(), value()).prop_map(|(at, value)| Write::Patch(at % 8, value)),
        1 => any::<u8>().prop_map(|at| Write::Delete(at % 8)),
        3 => (any::<u8>(), vec(edit(), 1..4)).prop_map(|(at, edits)| Write::Edit(at % 8, edits)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = 0..3_usize;
    let step = prop_oneof![
        8 => (peer.clone(), vec(write(), 1..4)).prop_map(|(peer, writes)| Step::Write(peer, writes)),
        8 => (peer.clone(), any::<u16>(), 1..6_u8).prop_map(|(peer, at, n)| Step::Receive(peer, at, n)),
        2 => peer.clone().prop_map(Step::Flush),
        2 => peer.clone().prop_map(Step::Settle),
        1 => peer.clone().prop_map(Step::Crash),
        1 => peer.clone().prop_map(Step::TakeEvents),
        1 => (peer, any::<u8>()).prop_map(|(peer, at)| Step::Read(peer, at % 8)),
    ];
    vec(step, 1..40)
}

/// Mistakes that a random program makes; everything else is a bug.
pub(crate) fn is_expected(error: &DbError) -> bool {
    matches!(
        error,
        DbError::NotFound { .. }
            | DbError::NotAuthor { .. }
            | DbError::Index { .. }
            | DbError::Value(_)
    )
}

/// A peer, and what its events add up to.
struct Watcher {
    peer: Peer,
    mirror: BTreeMap<(String, DocumentId), Ipld>,
}

impl Watcher {
    fn new(writer: u8, budget: usize) -> Self {
        let mut peer = Peer::new(writer);
        peer.budget = Some(budget);
        peer.documents.set_budget(budget);
        peer.documents.watch("songs");
        Self {
            peer,
            mirror: BTreeMap::new(),
        }
    }

    fn write(&mut self, writes: &[Write]) {
        for write in writes {
            // The documents exist as often as not; each write is staged or refused by itself.
            let (collection, id) = match write {
                Write::Put(at, _)
                | Write::Patch(at, _)
                | Write::Delete(at)
                | Write::Edit(at, _) => target(&self.peer, *at),
                Write::Insert(_) => ("songs", natural("unused")),
            };
            let result = self.peer.write(|writer| {
                let before = writer.get(collection, &id)?;
                let result = match write {
                    Write::Put(_, value) => writer.put(collection, Some(&id), value).map(|_| ()),
                    Write::Insert(value) => writer.put(collection, None, value).map(|_| ()),
                    Write::Patch(_, value) => writer.patch(collection, &id, value).map(|_| ()),
                    Write::Delete(_) => writer.delete(collection, &id).map(|_| ()),
                    Write::Edit(_, edits) => writer.edit(collection, &id, edits).map(|_| ()),
                };
                if let Err(error) = result {
                    assert!(is_expected(&error), "{error:?}");
                    assert_eq!(writer.get(collection, &id)?, before, "nothing was staged");
                }
                Ok(())
            });
            result.unwrap();
        }
    }

    /// One record with all the writes; what the transaction showed is what shows afterwards.
    fn write_at_once(&mut self, writes: &[Write]) {
        let targets: Vec<_> = writes
            .iter()
            .map(|write| match write {
                Write::Put(at, _)
                | Write::Patch(at, _)
                | Write::Delete(at)
                | Write::Edit(at, _) => target(&self.peer, *at),
                Write::Insert(_) => ("songs", natural("unused")),
            })
            .collect();
        let expected = self.peer.write(|writer| {
            for (write, (collection, id)) in writes.iter().zip(&targets) {
                let result = match write {
                    Write::Put(_, value) => writer.put(collection, Some(id), value).map(|_| ()),
                    Write::Insert(value) => writer.put(collection, None, value).map(|_| ()),
                    Write::Patch(_, value) => writer.patch(collection, id, value).map(|_| ()),
                    Write::Delete(_) => writer.delete(collection, id).map(|_| ()),
                    Write::Edit(_, edits) => writer.edit(collection, id, edits).map(|_| ()),
                };
                if let Err(error) = result {
                    assert!(is_expected(&error), "{error:?}");
                }
            }
            let listed = writer.list("songs", None, usize::MAX)?;
            Ok(listed
                .into_iter()
                .map(|it| (it.id, it.value))
                .collect::<Vec<_>>())
        });
        assert_eq!(self.peer.pages("songs", usize::MAX), expected.unwrap());
    }

    fn take_events(&mut self) {
        for event in self.peer.documents.take_events() {
            let Event::Changed {
                collection,
                id,
                before,
                after,
            } = event
            else {
                // Ids that somebody else made may be put by whoever lists them, in vain.
                assert!(matches!(event, Event::Void { .. }), "{event:?}");
                continue;
            };
            assert_eq!(collection, "songs");
            let key = (collection, id);
            assert_eq!(self.mirror.get(&key), before.as_ref());
            match after {
                Some(after) => self.mirror.insert(key, after),
                None => self.mirror.remove(&key),
            };
        }
    }

    fn crash(&mut self) {
        self.take_events();
        self.peer.crash();
        self.peer.documents.watch("songs");
        // What was lost and came back happened before.
        let shown = self.peer.pages("songs", usize::MAX);
        let mirror = shown
            .into_iter()
            .map(|(id, value)| (("songs".to_owned(), id), value));
        assert_eq!(self.mirror, mirror.collect());
    }
}

fn run(watchers: &mut [Watcher], steps: &[Step], at_once: bool) {
    for step in steps {
        match step {
            Step::Write(peer, writes) if at_once => watchers[*peer].write_at_once(writes),
            Step::Write(peer, writes) => watchers[*peer].write(writes),
            Step::Receive(peer, at, count) => {
                let all = all_records(watchers);
                for offset in 0..usize::from(*count) {
                    if !all.is_empty() {
                        let record = &all[(usize::from(*at) + offset) % all.len()];
                        watchers[*peer].peer.receive(record);
                    }
                }
            }
            Step::Flush(peer) => watchers[*peer].peer.flush(),
            Step::Settle(peer) => watchers[*peer].peer.settle(),
            Step::Crash(peer) => watchers[*peer].crash(),
            Step::TakeEvents(peer) => watchers[*peer].take_events(),
            Step::Read(peer, at) => {
                let (collection, id) = target(&watchers[*peer].peer, *at);
                watchers[*peer].peer.get(collection, &id);
            }
        }
    }
}

fn all_records(watchers: &[Watcher]) -> Vec<Record> {
    let own = |it: &Watcher| {
        let log = crate::world::log(it.peer.writer);
        it.peer
            .admitted
            .iter()
            .filter(move |record| record.log == log)
            .cloned()
            .collect::<Vec<_>>()
    };
    watchers.iter().flat_map(own).collect()
}

fn check(watcher: &mut Watcher) {
    let oracle = Oracle::of(&watcher.peer.admitted);
    assert_eq!(watcher.peer.hash(), oracle.hash());
    for collection in ["songs", "bands"] {
        let shown = oracle.shown(collection);
        assert_eq!(watcher.peer.pages(collection, usize::MAX), shown);
        assert_eq!(watcher.peer.pages(collection, 2), shown);
        let view = watcher.peer.store.view().unwrap();
        let count = watcher.peer.documents.count(&*view, collection).unwrap();
        assert_eq!(count, shown.len() as u64);
    }
    watcher.take_events();
    let shown: BTreeMap<_, _> = watcher
        .peer
        .pages("songs", usize::MAX)
        .into_iter()
        .map(|(id, value)| (("songs".to_owned(), id), value))
        .collect();
    assert_eq!(watcher.mirror, shown);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn state_is_the_fold_of_all_records(
        steps in steps(),
        at_once in any::<bool>(),
        budget in prop_oneof![Just(0_usize), Just(3_000), Just(usize::MAX)],
        order in any::<u64>(),
    ) {
        let mut watchers = [ALICE, BOB, CAROL].map(|writer| Watcher::new(writer, budget));
        run(&mut watchers, &steps, at_once);
        watchers.iter_mut().for_each(check);

        // Everything reaches everybody, in any order: one state, and it survives a restart.
        let mut all = all_records(&watchers);
        shuffle(&mut all, order);
        let expected = Oracle::of(&all).hash();
        for watcher in &mut watchers {
            all.iter().for_each(|record| watcher.peer.receive(record));
            check(watcher);
            prop_assert_eq!(watcher.peer.hash(), expected);
            watcher.crash();
            prop_assert_eq!(watcher.peer.hash(), expected);
            watcher.peer.flush();
            watcher.peer.settle();
            watcher.peer.documents.set_budget(0);
            prop_assert_eq!(watcher.peer.documents.cached_bytes() > 0, false);
            prop_assert_eq!(watcher.peer.hash(), expected);
            check(watcher);
        }
    }
}

fn shuffle(records: &mut [Record], mut seed: u64) {
    for at in (1..records.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        records.swap(at, (seed >> 33) as usize % (at + 1));
    }
}

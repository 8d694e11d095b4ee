//! Writers who see some of each other's ops, and the documents that they put.

use std::collections::{BTreeMap, BTreeSet};

use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{
    Definition, DocumentId, JsonCodec, Op, State, Strategy, diff, patch, render,
};
use leno_crdt_codec::{Codec, Dot, LogId, Place, Stamp};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;

pub(crate) const ALICE: LogId = LogId([0xa1; 32]);
pub(crate) const BOB: LogId = LogId([0xb0; 32]);
pub(crate) const CAROL: LogId = LogId([0x0c; 32]);
pub(crate) const LOGS: [LogId; 3] = [ALICE, BOB, CAROL];

pub(crate) fn place(stamp: u64, log: LogId, seq: u64) -> Place {
    Place {
        stamp: Stamp(stamp),
        dot: Dot { log, seq, index: 0 },
    }
}

pub(crate) fn song() -> DocumentId {
    DocumentId::natural("song").unwrap()
}

/// One field of every strategy, two of them nested; `title` and `year` are not declared.
pub(crate) fn definition() -> Definition {
    let inner = Definition::default().other(Strategy::Set);
    let meta = Definition::default()
        .field("key", Strategy::Register)
        .field("uses", Strategy::Counter)
        .field("inner", Strategy::Map(inner));
    Definition::default()
        .field("plays", Strategy::Counter)
        .field("fans", Strategy::GrowSet)
        .field("tags", Strategy::Set)
        .field("verses", Strategy::List)
        .field("best", Strategy::Max)
        .field("worst", Strategy::Min)
        .field("meta", Strategy::Map(meta))
        .field("note", Strategy::Register)
}

pub(crate) type Delivery = Vec<(Place, Op)>;

/// A writer: a log, what it has seen, and the state that follows.
#[derive(Clone)]
pub(crate) struct Writer {
    log: LogId,
    seq: u64,
    stamp: u64,
    known: BTreeSet<Place>,
    pub(crate) state: State,
}

/// Three writers of one document, and all that they wrote.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) writers: Vec<Writer>,
    pub(crate) ops: BTreeMap<Place, Op>,
    definition: Definition,
    unique: u32,
    /// Whether few different unique bytes are drawn, so that positions of two writers collide.
    pub(crate) collide: bool,
}

/// What a writer does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(usize, Ipld),
    Patch(usize, Ipld),
    Delete(usize),
    /// The first learns all that the second knows.
    Sync(usize, usize),
}

impl World {
    pub(crate) fn new() -> Self {
        let writer = |log| Writer {
            log,
            seq: 0,
            stamp: 0,
            known: BTreeSet::new(),
            state: State::default(),
        };
        Self {
            writers: LOGS.map(writer).to_vec(),
            ops: BTreeMap::new(),
            definition: definition(),
            unique: 0,
            collide: true,
        }
    }

    pub(crate) fn run(steps: &[Step]) -> Self {
        let mut world = Self::new();
        for step in steps {
            world.step(step);
        }
        world
    }

    pub(crate) fn deliveries(&self) -> Delivery {
        self.ops
            .iter()
            .map(|(place, op)| (*place, op.clone()))
            .collect()
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Put(who, new) => self.put(*who, new, false),
            Step::Patch(who, new) => self.put(*who, new, true),
            Step::Delete(who) => {
                if let Some(life) = self.writers[*who].state.life() {
                    self.write(*who, Op::delete(song(), life).unwrap());
                }
            }
            Step::Sync(to, from) => self.sync(*to, *from),
        }
    }

    pub(crate) fn sync(&mut self, to: usize, from: usize) {
        for place in self.writers[from].known.clone() {
            let writer = &mut self.writers[to];
            if writer.known.insert(place) {
                writer.stamp = writer.stamp.max(place.stamp.0);
                JsonCodec::apply(&mut writer.state, &place, &self.ops[&place]);
            }
        }
    }

    /// Puts a document and checks that it shows afterwards.
    fn put(&mut self, who: usize, new: &Ipld, is_patch: bool) {
        let Writer { log, state, .. } = self.writers[who].clone();
        let (unique, collide) = (&mut self.unique, self.collide);
        let unique = || {
            *unique += 1;
            let drawn = if collide {
                *unique / 3
            } else {
                unique.wrapping_mul(0x9e37_79b9)
            };
            drawn.rotate_right(8).to_be_bytes()
        };
        let shown = render(&state, &self.definition);
        let make = if is_patch { patch } else { diff };
        let edits = make(&state, &self.definition, new, log, unique).unwrap();
        if edits.is_empty() && shown.is_some() {
            return;
        }
        let op = match state.life() {
            Some(life) => Op::update(song(), life, edits).unwrap(),
            None => Op::create(song(), state.next_life(), None, edits).unwrap(),
        };
        let was = state.life().is_some();
        self.write(who, op);
        let found = render(&self.writers[who].state, &self.definition).unwrap();
        // What others wrote to a life before its create is known joins it; nothing to compare then.
        if was && !is_patch {
            let old = shown.as_ref().unwrap();
            let expected = expected(old, Some(&Strategy::Map(self.definition.clone())), new);
            assert_eq!(Some(found), expected, "put over {old:?}");
        }
    }

    fn write(&mut self, who: usize, op: Op) {
        let writer = &mut self.writers[who];
        writer.seq += 1;
        // Behind all that it has seen, but often level with what it has not.
        writer.stamp += 1;
        let place = place(writer.stamp, writer.log, writer.seq);
        assert!(writer.known.insert(place));
        JsonCodec::apply(&mut writer.state, &place, &op);
        self.ops.insert(place, op);
    }
}

/// What shows after `new` was put over `old`: `new`, but for null and for what only grows.
pub(crate) fn expected(old: &Ipld, strategy: Option<&Strategy>, new: &Ipld) -> Option<Ipld> {
    let list = |value: &Ipld| match value {
        Ipld::List(items) => items.clone(),
        _ => Vec::new(),
    };
    let sorted = |mut items: Vec<Ipld>| {
        items.sort_by_key(leno_crdt_codec::cbor::encode_ipld);
        items.dedup();
        Some(Ipld::List(items))
    };
    match (strategy, new) {
        (None | Some(Strategy::Register), new) => Some(new.clone()),
        (Some(Strategy::Map(definition)), Ipld::Map(new)) => {
            let empty = BTreeMap::new();
            let old = if let Ipld::Map(old) = old {
                old
            } else {
                &empty
            };
            let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            let shown = names.into_iter().filter_map(|name| {
                let old = old.get(name).unwrap_or(&Ipld::Null);
                let strategy = definition.of(name);
                let value = match new.get(name) {
                    Some(new) => expected(old, strategy, new),
                    None => absent(old, strategy),
                };
                value.map(|value| (name.clone(), value))
            });
            Some(Ipld::Map(shown.collect()))
        }
        (_, Ipld::Null) => absent(old, strategy),
        (Some(Strategy::GrowSet), new) => sorted([list(old), list(new)].concat()),
        (Some(Strategy::Set), new) => sorted(list(new)),
        (Some(Strategy::Max), new) if is_greater(old, new) => Some(old.clone()),
        (Some(Strategy::Min), new) if is_greater(new, old) && *old != Ipld::Null => {
            Some(old.clone())
        }
        (Some(_), new) => Some(new.clone()),
    }
}

fn absent(old: &Ipld, strategy: Option<&Strategy>) -> Option<Ipld> {
    match strategy {
        Some(Strategy::Counter | Strategy::GrowSet | Strategy::Max | Strategy::Min) => {
            (*old != Ipld::Null).then(|| old.clone())
        }
        Some(Strategy::Map(definition)) => {
            let Ipld::Map(old) = old else { return None };
            let left = old.iter().filter_map(|(name, old)| {
                absent(old, definition.of(name)).map(|old| (name.clone(), old))
            });
            let left: BTreeMap<_, _> = left.collect();
            (!left.is_empty()).then_some(Ipld::Map(left))
        }
        _ => None,
    }
}

fn is_greater(a: &Ipld, b: &Ipld) -> bool {
    let number = |value: &Ipld| match value {
        Ipld::Integer(value) => Some(*value as f64),
        Ipld::Float(value) => Some(*value),
        _ => None,
    };
    number(a) > number(b)
}

pub(crate) fn scalar() -> impl Generate<Value = Ipld> {
    prop_oneof![
        (0..5_i64).prop_map(Ipld::from),
        Just(Ipld::Float(1.0)),
        Just(Ipld::Float(0.5)),
        Just(Ipld::Bool(true)),
        Just(Ipld::Null),
        "[abc]".prop_map(Ipld::String),
    ]
}

fn number() -> impl Generate<Value = Ipld> {
    prop_oneof![
        (-3..4_i64).prop_map(Ipld::from),
        (-3..4_i32).prop_map(|it| Ipld::Float(f64::from(it) / 2.0)),
    ]
}

fn items(most: usize) -> impl Generate<Value = Ipld> {
    vec(scalar(), 0..=most).prop_map(Ipld::List)
}

/// Documents that [`definition`] takes.
pub(crate) fn document() -> impl Generate<Value = Ipld> {
    let maybe = |name: &'static str, value: BoxedStrategy<Ipld>| {
        proptest::option::weighted(0.6, value).prop_map(move |it| (name.to_owned(), it))
    };
    let inner = btree_map("[xy]", prop_oneof![items(2), Just(Ipld::Null)], 0..2);
    let meta = (
        maybe("key", scalar().boxed()),
        maybe("uses", (-2..3_i64).prop_map(Ipld::from).boxed()),
        maybe("inner", inner.prop_map(Ipld::Map).boxed()),
    )
        .prop_map(|(a, b, c)| map([a, b, c]));
    (
        maybe("title", scalar().boxed()),
        maybe("note", scalar().boxed()),
        maybe("plays", (-3..9_i64).prop_map(Ipld::from).boxed()),
        maybe("fans", items(2).boxed()),
        maybe("tags", items(3).boxed()),
        maybe("verses", items(6).boxed()),
        maybe("best", number().boxed()),
        maybe("worst", number().boxed()),
        maybe(
            "meta",
            prop_oneof![4 => meta, 1 => Just(Ipld::Null)].boxed(),
        ),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i)| map([a, b, c, d, e, f, g, h, i]))
}

fn map<const N: usize>(entries: [(String, Option<Ipld>); N]) -> Ipld {
    let entries = entries.into_iter();
    Ipld::Map(
        entries
            .filter_map(|(name, it)| it.map(|it| (name, it)))
            .collect(),
    )
}

pub(crate) fn steps(most: usize) -> impl Generate<Value = Vec<Step>> {
    let who = || 0..LOGS.len();
    let step = prop_oneof![
        6 => (who(), document()).prop_map(|(who, new)| Step::Put(who, new)),
        2 => (who(), document()).prop_map(|(who, new)| Step::Patch(who, new)),
        1 => who().prop_map(Step::Delete),
        4 => (who(), who()).prop_map(|(to, from)| Step::Sync(to, from)),
    ];
    vec(step, 1..=most)
}

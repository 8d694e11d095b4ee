//! Writers who see some of each other's ops, and the documents that they put.

use std::collections::{BTreeMap, BTreeSet};

use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{
    Change, Definition, DocumentId, Edit, ElementId, JsonCodec, Op, Position, State, Strategy,
    Value, diff, patch, render,
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
    Lie(usize, Lie),
}

/// An op that claims what its writer cannot know.
#[derive(Clone, Debug)]
pub(crate) struct Lie {
    /// 0 is a delete, 1 a create, all else an update.
    action: u8,
    life: u64,
    /// How far its stamp jumps.
    jump: u64,
    edits: Vec<LyingEdit>,
}

#[derive(Clone, Debug)]
struct LyingEdit {
    kind: usize,
    value: i64,
    /// Which of the elements that anybody inserted; one that nobody did if there is none.
    element: prop::sample::Index,
    seen: Vec<Dot>,
}

const LIES: usize = 12;

impl LyingEdit {
    /// An edit of a field that [`definition`] declares so.
    fn to_edit(&self, inserted: &[ElementId]) -> Edit {
        let value = Value::int(self.value);
        let made_up = || ElementId {
            position: Position::new([1 + self.value.unsigned_abs() as u8]).unwrap(),
            dot: Dot {
                log: ALICE,
                seq: self.value.unsigned_abs() + 1,
                index: 0,
            },
        };
        let element = || match inserted.is_empty() {
            true => made_up(),
            false => self.element.get(inserted).clone(),
        };
        let (path, change): (&[&str], _) = match self.kind {
            0 => (&["title"], Change::Set(value)),
            1 => (&["title"], Change::Unset),
            2 => (&["meta", "key"], Change::Set(value)),
            3 => (&["tags"], Change::Add(value)),
            4 => (&["tags"], Change::Remove(value)),
            5 => (&["meta", "inner", "x"], Change::Remove(value)),
            6 => (&["tags"], Change::Touch),
            7 => (&["verses"], Change::Untouch),
            8 => (&["meta"], Change::Untouch),
            9 => (&["verses"], Change::Take { element: element() }),
            10 => {
                let element = element();
                (&["verses"], Change::Replace { element, value })
            }
            _ => {
                let element = made_up();
                (&["verses"], Change::Replace { element, value })
            }
        };
        Edit {
            path: path.iter().map(|key| (*key).to_owned()).collect(),
            change,
            seen: self.seen.clone(),
        }
    }
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
            Step::Lie(who, lie) => self.lie(*who, lie),
        }
    }

    fn lie(&mut self, who: usize, lie: &Lie) {
        let inserted = self.ops.iter().flat_map(|(place, op)| {
            op.edits().iter().filter_map(|edit| match &edit.change {
                Change::Insert { position, .. } => Some(ElementId {
                    position: position.clone(),
                    dot: place.dot,
                }),
                _ => None,
            })
        });
        let inserted: Vec<_> = inserted.collect();
        let edits = lie.edits.iter().map(|it| it.to_edit(&inserted)).collect();
        let op = match lie.action {
            0 => Op::delete(song(), lie.life),
            1 => Op::create(song(), lie.life, None, edits),
            _ => Op::update(song(), lie.life, edits),
        };
        // Two edits of one thing do not make an op.
        if let Ok(op) = op {
            self.writers[who].stamp += lie.jump;
            self.write(who, op);
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

/// What [`steps`] makes, with lies among it.
pub(crate) fn steps_with_lies(most: usize) -> impl Generate<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => steps(1).prop_map(|mut steps| steps.remove(0)),
        2 => (0..LOGS.len(), lie()).prop_map(|(who, lie)| Step::Lie(who, lie)),
    ];
    vec(step, 1..=most)
}

fn lie() -> impl Generate<Value = Lie> {
    let life = prop_oneof![6 => Just(1), 2 => 2..5_u64, 1 => Just(u64::MAX)];
    (0..9_u8, life, 0..4_u64, vec(lying_edit(), 1..4)).prop_map(|(action, life, jump, edits)| Lie {
        action,
        life,
        jump,
        edits,
    })
}

fn lying_edit() -> impl Generate<Value = LyingEdit> {
    let seq = prop_oneof![8 => 0..16_u64, 1 => Just(u64::MAX)];
    let dot = proptest::option::of((seq, 0..2_u32));
    let dots = (dot.clone(), dot.clone(), dot).prop_map(|(a, b, c)| {
        let dots = [(CAROL, a), (ALICE, b), (BOB, c)].into_iter();
        let dot = |(log, dot): (LogId, Option<(u64, u32)>)| {
            dot.map(|(seq, index)| Dot { log, seq, index })
        };
        dots.filter_map(dot).collect()
    });
    (0..LIES, 0..4_i64, any::<prop::sample::Index>(), dots).prop_map(
        |(kind, value, element, seen)| LyingEdit {
            kind,
            value,
            element,
            seen,
        },
    )
}

//! The state of a document: what its ops add up to, in any order.

mod wire;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::dots::{Dots, Write};
use super::name::Name;
use super::op::{Action, Change, Edit, ElementId, Op, decode_short};
use super::value::{Number, Value};
use crate::{Dot, LogId, OpError, Place, Stamp};

/// What the ops of one document add up to.
///
/// The same set of ops gives the same state, and the same bytes, in whatever order they are applied:
///
/// 1. **Lives.** A delete of life *n* ends all lives up to *n*, with all that is ever written to
///    them. The visible life is the highest created one above the deletes; lower ones are dropped.
///    What is written to a life that nobody is known to have created is kept and does not show.
///    An op whose life is above its stamp does nothing: lives are counted one by one and stamps rise
///    with every record, so it made its life up, and lives never run out.
/// 2. **Registers, presence, set and list elements** hold what each log wrote last; what another
///    log saw and replaced does not show. An op saw nothing whose stamp is not below its own,
///    whatever it says. Of several register values that show, the one of the greatest place wins;
///    the others are conflicts. An element is in its set while any add of it shows, so a concurrent
///    add outlives a remove.
/// 3. **Counters** are sums. They are the one part that is not idempotent: each op must be applied
///    once, which the order of each log gives for nothing.
/// 4. **Maxima and minima** hold one number; of equal ones, the one of the greatest place.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// All lives up to this one are over.
    deleted: u64,
    /// Ascending, all above `deleted`. Only the first may have creates: a create drops what lies
    /// below it.
    lives: Vec<Life>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Life {
    number: u64,
    /// The first create of each log, sorted by log.
    creates: Vec<Creation>,
    fields: Fields,
}

/// A create of a document, by which an owner may be told.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Creation {
    /// The op.
    pub place: Place,
    /// What the random part of the document id was made from, if the op showed it.
    pub nonce: Option<[u8; 16]>,
}

pub(super) type Fields = BTreeMap<Name, Field>;

/// All facets of one field. Most fields are a register and nothing else.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Field {
    pub(super) register: Dots<Write<Value>>,
    pub(super) facets: Option<Box<Facets>>,
}

/// The facets that few fields have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Facets {
    /// Within i128 for 2^64 ops; `None` if nothing was ever added.
    pub(super) counter: Option<i128>,
    pub(super) max: Option<Extreme>,
    pub(super) min: Option<Extreme>,
    pub(super) set: BTreeMap<Value, Member>,
    pub(super) list: BTreeMap<ElementId, Dots<Write<Value>>>,
    pub(super) map: Fields,
    pub(super) presence: Dots<Stamp>,
}

/// The greatest or least number so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Extreme {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// An element that a set has or had.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Member {
    /// Whether it was ever added, which is all that a grow-only set asks.
    pub(super) added: bool,
    pub(super) dots: Dots<Stamp>,
}

impl State {
    /// The life that shows: 1 for a document that was never deleted, `None` if there is none.
    #[must_use]
    pub fn life(&self) -> Option<u64> {
        self.visible().map(|life| life.number)
    }

    /// The highest life that was deleted, 0 if none was.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// The life that a create must name now.
    #[must_use]
    pub fn next_life(&self) -> u64 {
        self.life()
            .unwrap_or_else(|| self.deleted.saturating_add(1))
    }

    /// The create of the least place in the visible life.
    #[must_use]
    pub fn creation(&self) -> Option<Creation> {
        let life = self.visible()?;
        life.creates.iter().min_by_key(|it| it.place).copied()
    }

    /// The creates of the visible life: the first of each log that made one, ordered by log.
    #[must_use]
    pub fn creations(&self) -> &[Creation] {
        self.visible().map_or(&[], |life| &life.creates)
    }

    /// Changes the state by one op.
    pub fn apply(&mut self, place: &Place, op: &Op) {
        if let Some(life) = self.begin(place, op) {
            for edit in op.edits() {
                life.edit(place, &edit.path, &edit.seen, edit.change.clone());
            }
        }
    }

    /// Changes the state by one op, moving its values.
    pub fn apply_owned(&mut self, place: &Place, op: Op) {
        let Some(life) = self.begin(place, &op) else {
            return;
        };
        match op.into_parts().2 {
            Action::Create { edits, .. } | Action::Update { edits } => {
                for Edit { path, change, seen } in edits {
                    life.edit(place, &path, &seen, change);
                }
            }
            Action::Delete => {}
        }
    }

    /// Changes the state by one op in its encoded form, without building the op if it is short.
    ///
    /// # Errors
    ///
    /// As [`Op::decode`]. The state is as it was.
    pub fn apply_encoded(&mut self, place: &Place, bytes: &[u8]) -> Result<(), OpError> {
        match decode_short(bytes)? {
            Some(fields) => self.set_fields(place, &fields),
            None => self.apply_owned(place, Op::decode(bytes)?),
        }
        Ok(())
    }

    /// Sets top-level registers of life 1.
    fn set_fields(&mut self, place: &Place, fields: &[(&str, &[u8])]) {
        if fields.is_empty() {
            return;
        }
        let Some(life) = self.open(1, place.stamp) else {
            return;
        };
        for (key, value) in fields {
            let write = Write {
                stamp: place.stamp,
                value: Some(Value::from_scanned(value)),
            };
            field(&mut life.fields, key)
                .register
                .write(place, &[], Some(write));
        }
    }

    /// What a create or update of [`State::next_life`] meets.
    pub(super) fn fields(&self) -> Option<&Fields> {
        let next = self.next_life();
        let life = self.lives.first().filter(|life| life.number == next)?;
        Some(&life.fields)
    }

    /// The content of the visible life.
    pub(super) fn visible_fields(&self) -> Option<&Fields> {
        self.visible().map(|life| &life.fields)
    }

    fn visible(&self) -> Option<&Life> {
        self.lives.first().filter(|life| !life.creates.is_empty())
    }

    /// Does what an op does besides its edits, and returns where these go, if anywhere.
    fn begin(&mut self, place: &Place, op: &Op) -> Option<&mut Life> {
        match op.action() {
            Action::Delete if op.is_ahead_of(place.stamp) => None,
            Action::Delete => {
                let deleted = self.deleted.max(op.life());
                if !bug!(TombstoneDropped) {
                    self.deleted = deleted;
                }
                self.lives.retain(|life| life.number > deleted);
                None
            }
            Action::Update { edits } if edits.is_empty() => None,
            Action::Update { .. } => self.open(op.life(), place.stamp),
            Action::Create { nonce, .. } => {
                let life = self.open(op.life(), place.stamp)?;
                life.create(Creation {
                    place: *place,
                    nonce: *nonce,
                });
                self.lives.retain(|life| life.number >= op.life());
                self.lives.first_mut()
            }
        }
    }

    /// Finds or begins a life, unless it is over or cannot have begun.
    fn open(&mut self, number: u64, stamp: Stamp) -> Option<&mut Life> {
        let visible = self.life().unwrap_or(0);
        if number <= self.deleted || number < visible || number > stamp.0 {
            return None;
        }
        let at = match self.lives.binary_search_by_key(&number, |life| life.number) {
            Ok(at) => at,
            Err(at) => {
                let life = Life {
                    number,
                    ..Life::default()
                };
                self.lives.insert(at, life);
                at
            }
        };
        self.lives.get_mut(at)
    }
}

impl Life {
    fn create(&mut self, creation: Creation) {
        let log = creation.place.dot.log;
        match self
            .creates
            .binary_search_by_key(&log, |it| it.place.dot.log)
        {
            Ok(at) => {
                if let Some(first) = self.creates.get_mut(at) {
                    *first = creation.min(*first);
                }
            }
            Err(at) => self.creates.insert(at, creation),
        }
    }

    fn edit(&mut self, place: &Place, path: &[String], seen: &[Dot], change: Change) {
        let Some((key, above)) = path.split_last() else {
            return;
        };
        let mut fields = &mut self.fields;
        for key in above {
            fields = &mut field(fields, key).facets_mut().map;
        }
        field(fields, key).change(place, seen, change);
    }
}

/// Finds or makes a field, without allocating its name if it is there.
fn field<'a>(fields: &'a mut Fields, key: &str) -> &'a mut Field {
    // Asked twice because a borrow that is returned cannot also be given up.
    if !fields.contains_key(key.as_bytes()) {
        fields.insert(Name::new(key), Field::default());
    }
    fields
        .get_mut(key.as_bytes())
        .expect("the field was made just now")
}

impl Field {
    fn facets_mut(&mut self) -> &mut Facets {
        self.facets.get_or_insert_default()
    }

    fn change(&mut self, place: &Place, seen: &[Dot], change: Change) {
        let stamp = place.stamp;
        let write = |value| Some(Write { stamp, value });
        match change {
            Change::Set(value) => {
                if bug!(LwwByArrival) {
                    self.register = Dots::default();
                }
                self.register.write(place, seen, write(Some(value)));
            }
            Change::Unset => self.register.write(place, seen, write(None)),
            Change::Increment(by) => {
                let counter = self.facets_mut().counter.get_or_insert(0);
                // Wraps rather than saturates, which would depend on the order.
                *counter = counter.wrapping_add(by.into());
            }
            Change::Max(value) => {
                if bug!(MaxByArrival) {
                    self.facets_mut().max = None;
                }
                raise(&mut self.facets_mut().max, *place, value, false);
            }
            Change::Min(value) => raise(&mut self.facets_mut().min, *place, value, true),
            Change::Add(value) => {
                let member = self.facets_mut().set.entry(value).or_default();
                member.added = true;
                member.dots.write(place, seen, Some(stamp));
            }
            Change::Remove(value) => {
                let member = self.facets_mut().set.entry(value).or_default();
                if bug!(SetByArrival) {
                    member.dots = Dots::default();
                }
                member.dots.write(place, seen, None);
            }
            Change::Insert { position, value } => {
                let dot = place.dot;
                let element = ElementId { position, dot };
                self.element(element).write(place, seen, write(Some(value)));
            }
            Change::Replace { element, value } => {
                self.element(element).write(place, seen, write(Some(value)));
            }
            Change::Take { element } => self.element(element).write(place, seen, write(None)),
            Change::Touch => self.facets_mut().presence.write(place, seen, Some(stamp)),
            Change::Untouch => self.facets_mut().presence.write(place, seen, None),
        }
    }

    fn element(&mut self, element: ElementId) -> &mut Dots<Write<Value>> {
        self.facets_mut().list.entry(element).or_default()
    }
}

/// Keeps the greater of two numbers, or the lesser if `down`; of equal ones, the later.
fn raise(extreme: &mut Option<Extreme>, place: Place, value: Value, down: bool) {
    let new = Extreme { place, value };
    match extreme {
        Some(old) if new.compare(old, down).is_lt() => {}
        _ => *extreme = Some(new),
    }
}

impl Extreme {
    fn compare(&self, other: &Self, down: bool) -> Ordering {
        // Every extreme is a number: constructors and decoders see to it.
        let order = match (self.value.number(), other.value.number()) {
            (Some(a), Some(b)) => Number::compare(a, b),
            _ => Ordering::Equal,
        };
        let order = if down { order.reverse() } else { order };
        if bug!(TieByArrival) {
            return order;
        }
        order.then_with(|| self.place.cmp(&other.place))
    }
}

/// Logs that a state names, so that each stands in its bytes once.
pub(super) fn each_log(fields: &Fields, visit: &mut impl FnMut(LogId)) {
    for field in fields.values() {
        field.register.each_log(&mut *visit);
        let Some(facets) = &field.facets else {
            continue;
        };
        for extreme in [&facets.max, &facets.min].into_iter().flatten() {
            visit(extreme.place.dot.log);
        }
        for member in facets.set.values() {
            member.dots.each_log(&mut *visit);
        }
        for (element, dots) in &facets.list {
            visit(element.dot.log);
            dots.each_log(&mut *visit);
        }
        facets.presence.each_log(&mut *visit);
        each_log(&facets.map, visit);
    }
}

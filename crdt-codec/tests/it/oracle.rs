//! What a set of ops shows, computed from the rules and from nothing of the implementation:
//! every question is asked of all edits, in no order.

use std::collections::{BTreeMap, BTreeSet};

use ipld_core::ipld::Ipld;
use leno_crdt_codec::Place;
use leno_crdt_codec::json::{Action, Change, Definition, Edit, ElementId, Op, Strategy, Value};

/// The edits of the visible life at one path or below it.
type Edits<'a> = Vec<(Place, &'a Edit, &'a [String])>;

/// The document that the ops show, if there is one.
pub(crate) fn shown(ops: &BTreeMap<Place, Op>, definition: &Definition) -> Option<Ipld> {
    let possible = ops.iter().filter(|(place, op)| op.life() <= place.stamp.0);
    let possible: Vec<_> = possible.map(|(_, op)| op).collect();
    let deleted = possible.iter().filter(|op| *op.action() == Action::Delete);
    let deleted = deleted.map(|op| op.life()).max().unwrap_or(0);
    let creates = possible
        .iter()
        .filter(|op| matches!(op.action(), Action::Create { .. }));
    let life = creates
        .map(|op| op.life())
        .filter(|life| *life > deleted)
        .max()?;
    let edits = ops
        .iter()
        .filter(|(place, op)| op.life() == life && life <= place.stamp.0)
        .flat_map(|(place, op)| op.edits().iter().map(|it| (*place, it, it.path.as_slice())))
        .collect();
    Some(Ipld::Map(map(&edits, Some(definition))))
}

fn map(edits: &Edits<'_>, definition: Option<&Definition>) -> BTreeMap<String, Ipld> {
    let names: BTreeSet<&String> = edits.iter().filter_map(|it| it.2.first()).collect();
    let field = |name: &String| {
        let inside: Edits<'_> = edits
            .iter()
            .filter_map(|(place, edit, path)| match path.split_first() {
                Some((first, rest)) if first == name => Some((*place, *edit, rest)),
                _ => None,
            })
            .collect();
        let value = field(&inside, definition.and_then(|it| it.of(name)))?;
        Some((name.clone(), value))
    };
    names.into_iter().filter_map(field).collect()
}

fn field(edits: &Edits<'_>, strategy: Option<&Strategy>) -> Option<Ipld> {
    let here: Edits<'_> = edits.iter().filter(|it| it.2.is_empty()).copied().collect();
    let register = || {
        winner(&here, |change| match change {
            Change::Set(value) => Some(Some(value)),
            Change::Unset => Some(None),
            _ => None,
        })
    };
    let present = || {
        !showing(&here, |change| match change {
            Change::Touch => Some(true),
            Change::Untouch => Some(false),
            _ => None,
        })
        .is_empty()
    };
    let list = |items: Vec<Ipld>| (!items.is_empty() || present()).then_some(Ipld::List(items));
    match strategy {
        None | Some(Strategy::Register) => register().flatten(),
        Some(Strategy::Counter) => {
            let by = here.iter().filter_map(|(_, edit, _)| match edit.change {
                Change::Increment(by) => Some(i128::from(by)),
                _ => None,
            });
            by.reduce(|a, b| a + b).map(Ipld::Integer)
        }
        Some(Strategy::GrowSet) => {
            let added = here.iter().filter_map(|(_, edit, _)| match &edit.change {
                Change::Add(value) => Some(value),
                _ => None,
            });
            list(
                added
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .map(Value::to_ipld)
                    .collect(),
            )
        }
        Some(Strategy::Set) => {
            let values: BTreeSet<&Value> = here
                .iter()
                .filter_map(|(_, edit, _)| match &edit.change {
                    Change::Add(value) | Change::Remove(value) => Some(value),
                    _ => None,
                })
                .collect();
            let is_in = |value: &&Value| {
                !showing(&here, |change| match change {
                    Change::Add(it) if it == *value => Some(true),
                    Change::Remove(it) if it == *value => Some(false),
                    _ => None,
                })
                .is_empty()
            };
            list(
                values
                    .into_iter()
                    .filter(is_in)
                    .map(Value::to_ipld)
                    .collect(),
            )
        }
        Some(Strategy::List) => {
            let elements: BTreeSet<ElementId> = here.iter().filter_map(element).collect();
            let value = |id: ElementId| {
                let inside: Edits<'_> = here
                    .iter()
                    .filter(|it| element(it).as_ref() == Some(&id))
                    .copied()
                    .collect();
                winner(&inside, |change| match change {
                    Change::Insert { value, .. } | Change::Replace { value, .. } => {
                        Some(Some(value))
                    }
                    _ => Some(None),
                })
                .flatten()
            };
            list(elements.into_iter().filter_map(value).collect())
        }
        Some(Strategy::Max) => extreme(&here, false),
        Some(Strategy::Min) => extreme(&here, true),
        Some(Strategy::Map(definition)) => {
            let below = edits
                .iter()
                .filter(|it| !it.2.is_empty())
                .copied()
                .collect();
            let entries = map(&below, Some(definition));
            (!entries.is_empty() || present()).then_some(Ipld::Map(entries))
        }
        Some(_) => unreachable!("a strategy that the oracle does not know"),
    }
}

fn element((place, edit, _): &(Place, &Edit, &[String])) -> Option<ElementId> {
    match &edit.change {
        Change::Insert { position, .. } => Some(ElementId {
            position: position.clone(),
            dot: place.dot,
        }),
        Change::Replace { element, .. } | Change::Take { element } => Some(element.clone()),
        _ => None,
    }
}

/// The writes that no other edit of the same thing replaces. `reads` tells whether an edit is of
/// the thing at all, and whether it leaves something behind.
fn showing<'a>(edits: &Edits<'a>, reads: impl Fn(&'a Change) -> Option<bool>) -> Edits<'a> {
    let all: Edits<'a> = edits
        .iter()
        .filter(|it| reads(&it.1.change).is_some())
        .copied()
        .collect();
    let replaced = |(place, ..): &(Place, &Edit, &[String])| {
        all.iter().any(|(by, edit, _)| {
            let later = by.dot.log == place.dot.log && by.dot.place() > place.dot.place();
            let saw = edit
                .seen
                .iter()
                .any(|dot| dot.log == place.dot.log && dot.place() >= place.dot.place());
            later || (saw && by.stamp > place.stamp)
        })
    };
    let leaves = |it: &(Place, &'a Edit, &[String])| reads(&it.1.change) == Some(true);
    let showing = all.iter().filter(|it| leaves(it) && !replaced(it));
    showing.copied().collect()
}

fn winner<'a>(
    edits: &Edits<'a>,
    reads: impl Fn(&'a Change) -> Option<Option<&'a Value>>,
) -> Option<Option<Ipld>> {
    let showing = showing(edits, |change| reads(change).map(|_| true));
    let (_, edit, _) = showing.into_iter().max_by_key(|it| it.0)?;
    reads(&edit.change).map(|value| value.map(Value::to_ipld))
}

fn extreme(edits: &Edits<'_>, is_min: bool) -> Option<Ipld> {
    let of = |change: &Change| match change {
        Change::Max(value) if !is_min => Some(value.to_ipld()),
        Change::Min(value) if is_min => Some(value.to_ipld()),
        _ => None,
    };
    // Small numbers only, so floats compare exactly.
    let rank = |value: &Ipld| match value {
        Ipld::Integer(value) => *value as f64,
        Ipld::Float(value) => *value,
        _ => unreachable!("maxima and minima are numbers"),
    };
    let numbers = edits
        .iter()
        .filter_map(|it| Some((it.0, of(&it.1.change)?)));
    numbers
        .max_by(|a, b| {
            let order = rank(&a.1).total_cmp(&rank(&b.1));
            let order = if is_min { order.reverse() } else { order };
            order.then(a.0.cmp(&b.0))
        })
        .map(|it| it.1)
}

//! What a reader sees of a state.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;

use super::dots::{Dots, Write};
use super::name::Name;
use super::op::ElementId;
use super::state::{Facets, Field, Fields, State};
use super::strategy::{Definition, Strategy};
use super::value::Value;
use crate::Place;

/// Returns the document that a state shows, a map; `None` if it was not created or is deleted.
///
/// A field with a strategy shows the facet of that strategy and no other. A field without one
/// ([`Definition::other`] is `None`) shows the first facet it has of: register, map, list, set,
/// counter, maximum, minimum. Sets are lists in the order of their elements' encodings. A map, set
/// or list without content shows if it was made present.
///
/// # Examples
///
/// ```
/// use leno_crdt_codec::json::{Definition, State, render};
///
/// assert_eq!(render(&State::default(), &Definition::default()), None);
/// ```
#[must_use]
pub fn render(state: &State, definition: &Definition) -> Option<Ipld> {
    let fields = state.visible_fields()?;
    Some(Ipld::Map(show_fields(fields, Some(definition))))
}

/// Returns what one top-level field of the visible document shows, without rendering the rest.
#[must_use]
pub fn render_field(state: &State, definition: &Definition, field: &str) -> Option<Ipld> {
    let shown = state.visible_fields()?.get(field.as_bytes())?;
    show(shown, definition.of(field))
}

/// A register, or an element of a list, that was written concurrently.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The field.
    pub path: Vec<String>,
    /// The element, if the field is a list.
    pub element: Option<ElementId>,
    /// The write that shows; its value is `None` for "absent".
    pub winner: (Place, Option<Ipld>),
    /// The writes that do not show and that nobody has overwritten yet, greatest place first. Those
    /// of the same value as the winner are left out.
    pub losers: Vec<(Place, Option<Ipld>)>,
}

/// Lists the conflicts of the visible document, in the order of their paths.
#[must_use]
pub fn conflicts(state: &State) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    if let Some(fields) = state.visible_fields() {
        collect(fields, &mut Vec::new(), &mut conflicts);
    }
    conflicts
}

fn collect(fields: &Fields, path: &mut Vec<String>, conflicts: &mut Vec<Conflict>) {
    for (name, field) in fields {
        path.push(name.as_str().to_owned());
        conflicts.extend(conflict(path, None, &field.register));
        if let Some(facets) = &field.facets {
            let elements = facets.list.iter();
            conflicts.extend(elements.filter_map(|(id, it)| conflict(path, Some(id), it)));
            collect(&facets.map, path, conflicts);
        }
        path.pop();
    }
}

fn conflict(
    path: &[String],
    element: Option<&ElementId>,
    writes: &Dots<Write<Value>>,
) -> Option<Conflict> {
    if writes.entries().len() < 2 {
        return None;
    }
    let visible = writes.visible();
    let (winner, losers) = visible.split_first()?;
    let read = |(place, value): &(Place, Option<&Value>)| (*place, value.map(Value::to_ipld));
    let losers: Vec<_> = losers
        .iter()
        .filter(|(_, value)| *value != winner.1)
        .map(read)
        .collect();
    (!losers.is_empty()).then(|| Conflict {
        path: path.to_vec(),
        element: element.cloned(),
        winner: read(winner),
        losers,
    })
}

fn show_fields(fields: &Fields, definition: Option<&Definition>) -> BTreeMap<String, Ipld> {
    let shown = |(name, field): (&Name, &Field)| {
        let name = name.as_str();
        let strategy = definition.and_then(|it| it.of(name));
        show(field, strategy).map(|value| (name.to_owned(), value))
    };
    fields.iter().filter_map(shown).collect()
}

/// What a field shows under a strategy, or without one.
pub(super) fn show(field: &Field, strategy: Option<&Strategy>) -> Option<Ipld> {
    let facets = field.facets.as_deref();
    match strategy {
        Some(Strategy::Register) => field.register.value().map(Value::to_ipld),
        Some(Strategy::Counter) => facets?.counter().map(Ipld::from),
        Some(Strategy::GrowSet) => facets?.show_set(true),
        Some(Strategy::Set) => facets?.show_set(false),
        Some(Strategy::Map(definition)) => facets?.show_map(Some(definition)),
        Some(Strategy::List) => facets?.show_list(),
        Some(Strategy::Max) => facets?.max.as_ref().map(|it| it.value.to_ipld()),
        Some(Strategy::Min) => facets?.min.as_ref().map(|it| it.value.to_ipld()),
        None => field.register.value().map(Value::to_ipld).or_else(|| {
            let facets = facets?;
            // Presence makes an empty one of all three; it is shown as a map then.
            let list = || facets.show_list().filter(|_| !facets.list.is_empty());
            let set = || facets.show_set(false).filter(|_| !facets.set.is_empty());
            let map = || facets.show_map(None).filter(|_| !facets.map.is_empty());
            map()
                .or_else(list)
                .or_else(set)
                .or_else(|| facets.counter().map(Ipld::from))
                .or_else(|| facets.max.as_ref().map(|it| it.value.to_ipld()))
                .or_else(|| facets.min.as_ref().map(|it| it.value.to_ipld()))
                .or_else(|| facets.show_map(None))
        }),
    }
}

impl Facets {
    fn counter(&self) -> Option<i64> {
        let clamp = |sum: i128| sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        self.counter.map(clamp)
    }

    fn show_set(&self, grow_only: bool) -> Option<Ipld> {
        let members = self.set.iter().filter(|(_, member)| match grow_only {
            true => member.added,
            false => member.dots.is_visible(),
        });
        let values: Vec<_> = members.map(|(value, _)| value.to_ipld()).collect();
        self.shows(values.is_empty()).then_some(Ipld::List(values))
    }

    fn show_list(&self) -> Option<Ipld> {
        let values: Vec<_> = self
            .elements()
            .map(|(_, _, value)| value.to_ipld())
            .collect();
        self.shows(values.is_empty()).then_some(Ipld::List(values))
    }

    fn show_map(&self, definition: Option<&Definition>) -> Option<Ipld> {
        let entries = show_fields(&self.map, definition);
        self.shows(entries.is_empty()).then_some(Ipld::Map(entries))
    }

    /// The elements of the list that show, in order.
    pub(super) fn elements(
        &self,
    ) -> impl Iterator<Item = (&ElementId, &Dots<Write<Value>>, &Value)> {
        self.list
            .iter()
            .filter_map(|(id, writes)| Some((id, writes, writes.value()?)))
    }

    fn shows(&self, is_empty: bool) -> bool {
        !is_empty || self.presence.is_visible()
    }
}

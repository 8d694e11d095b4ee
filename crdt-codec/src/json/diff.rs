//! The edits that turn the document that is shown into another.

mod list;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipld_core::ipld::Ipld;

use super::dots::Dots;
use super::op::{Change, Edit};
use super::render::show;
use super::state::{Facets, Field, Fields, State};
use super::strategy::{Definition, Strategy};
use super::value::{Number, Value, ValueError};
use crate::{Dot, LogId};

/// Returns the edits by which the visible document becomes `new`, a map; for a document that does
/// not exist, the first content for a create of [`State::next_life`].
///
/// Only what differs is edited: a register is set or unset as a whole; a counter gets the
/// difference; elements are added, removed, inserted, replaced and taken one by one. Fields that
/// `new` lacks become absent. What can only grow does not shrink: counters, grow-only sets, maxima
/// and minima that `new` lacks stay, and so do elements and numbers that lie beyond those of `new`.
/// Null makes a field absent unless its strategy is a register.
///
/// `own` is the log that the op will be written to: what other logs wrote and an edit replaces is
/// named in [`Edit::seen`]. `unique` gives random bytes, by which the positions of list elements
/// that two writers insert at one place differ.
///
/// # Errors
///
/// [`ValueError`] if `new` is no map, or holds what its field's strategy does not take.
///
/// # Examples
///
/// ```
/// use ipld_core::ipld;
/// use leno_crdt_codec::LogId;
/// use leno_crdt_codec::json::{Change, Definition, State, Strategy, diff};
///
/// let definition = Definition::default().field("plays", Strategy::Counter);
/// let new = ipld!({"plays": 3, "title": "Blue"});
/// let edits = diff(&State::default(), &definition, &new, LogId([1; 32]), || [1; 4])?;
/// assert_eq!(edits.len(), 2);
/// assert_eq!(edits[0].change, Change::Increment(3));
/// # Ok::<(), leno_crdt_codec::json::ValueError>(())
/// ```
pub fn diff(
    state: &State,
    definition: &Definition,
    new: &Ipld,
    own: LogId,
    unique: impl FnMut() -> [u8; 4],
) -> Result<Vec<Edit>, ValueError> {
    let mut differ = Differ::new(own, unique);
    let new = differ.map(new)?;
    differ.fields(state.fields(), Some(definition), new)?;
    Ok(differ.edits)
}

/// Returns the edits by which a merge patch (RFC 7396) changes the visible document: fields that
/// `partial` lacks stay as they are, null removes, and maps are merged recursively.
///
/// Otherwise as [`diff`].
///
/// # Errors
///
/// As [`diff`].
pub fn patch(
    state: &State,
    definition: &Definition,
    partial: &Ipld,
    own: LogId,
    unique: impl FnMut() -> [u8; 4],
) -> Result<Vec<Edit>, ValueError> {
    let mut differ = Differ::new(own, unique);
    let fields = state.fields();
    for (name, value) in differ.map(partial)? {
        let strategy = definition.of(name);
        let field = fields.and_then(|fields| fields.get(name.as_bytes()));
        if is_plain(field, strategy, value) {
            differ.set_register(name, field, Value::new(value)?);
            continue;
        }
        let target = match value {
            Ipld::Null => None,
            Ipld::Map(_) => {
                let shown = field.and_then(|it| show(it, strategy));
                Some(Cow::Owned(merge(shown, value)))
            }
            Ipld::Bool(_)
            | Ipld::Integer(_)
            | Ipld::Float(_)
            | Ipld::String(_)
            | Ipld::Bytes(_)
            | Ipld::List(_)
            | Ipld::Link(_) => Some(Cow::Borrowed(value)),
        };
        differ.at(name, |differ| {
            differ.field(field, strategy, target.as_deref())
        })?;
    }
    Ok(differ.edits)
}

/// Returns the edit that writes a register whatever it holds, and thereby ends its conflicts; `None`
/// makes it absent.
///
/// # Errors
///
/// [`ValueError`] if the value is out of bounds.
pub fn overwrite(
    state: &State,
    path: &[&str],
    value: Option<&Ipld>,
    own: LogId,
) -> Result<Edit, ValueError> {
    let change = match value {
        Some(value) => Change::Set(Value::new(value)?),
        None => Change::Unset,
    };
    let mut field = None;
    let mut fields = state.fields();
    for key in path {
        field = fields.and_then(|fields| fields.get(key.as_bytes()));
        fields = field.and_then(|field| field.facets.as_ref().map(|facets| &facets.map));
    }
    Ok(Edit {
        path: path.iter().map(|key| (*key).to_owned()).collect(),
        change,
        seen: field.map_or_else(Vec::new, |field| field.register.seen_by(own)),
    })
}

/// Whether a patch of a field writes its register and looks at nothing else, as most do.
fn is_plain(field: Option<&Field>, strategy: Option<&Strategy>, value: &Ipld) -> bool {
    let is_register = match strategy {
        Some(strategy) => *strategy == Strategy::Register,
        None => field.is_none_or(|field| field.facets.is_none()),
    };
    is_register && !matches!(value, Ipld::Null | Ipld::Map(_))
}

/// RFC 7396.
fn merge(target: Option<Ipld>, patch: &Ipld) -> Ipld {
    let Ipld::Map(patch) = patch else {
        return patch.clone();
    };
    let mut merged = match target {
        Some(Ipld::Map(target)) => target,
        _ => BTreeMap::new(),
    };
    for (key, value) in patch {
        let old = merged.remove(key);
        if *value != Ipld::Null {
            merged.insert(key.clone(), merge(old, value));
        }
    }
    Ipld::Map(merged)
}

struct Differ<U> {
    own: LogId,
    unique: U,
    path: Vec<String>,
    edits: Vec<Edit>,
}

impl<U: FnMut() -> [u8; 4]> Differ<U> {
    fn new(own: LogId, unique: U) -> Self {
        Self {
            own,
            unique,
            path: Vec::new(),
            edits: Vec::new(),
        }
    }

    fn edit(&mut self, change: Change, seen: Vec<Dot>) {
        self.edits.push(Edit {
            path: self.path.clone(),
            change,
            seen,
        });
    }

    /// Writes the register of a top-level field, unless it shows the value already.
    fn set_register(&mut self, name: &str, old: Option<&Field>, new: Value) {
        let old = old.map(|field| &field.register);
        if old.and_then(Dots::value) == Some(&new) {
            return;
        }
        self.edits.push(Edit {
            path: vec![name.to_owned()],
            change: Change::Set(new),
            seen: old.map_or_else(Vec::new, |old| old.seen_by(self.own)),
        });
    }

    /// Goes into a field and back.
    fn at<T>(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_owned());
        let result = inside(self);
        self.path.pop();
        result
    }

    fn fields(
        &mut self,
        old: Option<&Fields>,
        definition: Option<&Definition>,
        new: &BTreeMap<String, Ipld>,
    ) -> Result<(), ValueError> {
        let strategy = |name: &str| definition.and_then(|it| it.of(name));
        for (name, value) in new {
            let field = old.and_then(|old| old.get(name.as_bytes()));
            self.at(name, |it| it.field(field, strategy(name), Some(value)))?;
        }
        for (name, field) in old.into_iter().flatten() {
            let name = name.as_str();
            if !new.contains_key(name) {
                self.at(name, |it| it.field(Some(field), strategy(name), None))?;
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        old: Option<&Field>,
        strategy: Option<&Strategy>,
        new: Option<&Ipld>,
    ) -> Result<(), ValueError> {
        let empty = Field::default();
        let old = old.unwrap_or(&empty);
        let none = Facets::default();
        let facets = old.facets.as_deref().unwrap_or(&none);
        let is_register = matches!(strategy, None | Some(Strategy::Register));
        let new = new.filter(|new| is_register || **new != Ipld::Null);
        match (strategy, new) {
            (None, None) => self.remove_all(old),
            (None, Some(new)) => {
                let new = Value::new(new)?;
                let is_shown = match (old.register.value(), &old.facets) {
                    (Some(shown), _) => *shown == new,
                    (None, None) => false,
                    (None, Some(_)) => show(old, None).as_ref() == Some(&new.to_ipld()),
                };
                if !is_shown {
                    self.edit(Change::Set(new), old.register.seen_by(self.own));
                }
            }
            (Some(Strategy::Register), None) => self.unset(old),
            (Some(Strategy::Register), Some(new)) => {
                let new = Value::new(new)?;
                if old.register.value() != Some(&new) {
                    self.edit(Change::Set(new), old.register.seen_by(self.own));
                }
            }
            (Some(Strategy::Map(definition)), Some(new)) => {
                let new = self.map(new)?;
                self.fields(Some(&facets.map), Some(definition), new)?;
                if new.values().all(|it| *it == Ipld::Null) {
                    self.touch(facets);
                }
            }
            (Some(Strategy::Map(definition)), None) => {
                self.fields(Some(&facets.map), Some(definition), &BTreeMap::new())?;
                self.untouch(facets);
            }
            (Some(Strategy::Set), new) => self.set(facets, new)?,
            (Some(Strategy::List), new) => self.list(facets, new)?,
            (Some(_), None) => {}
            (Some(Strategy::GrowSet), Some(new)) => {
                let new: BTreeSet<Value> = self.values(new)?.into_iter().collect();
                let is_new = |it: &Value| facets.set.get(it).is_none_or(|it| !it.added);
                if new.is_empty() {
                    self.touch(facets);
                }
                for value in new.into_iter().filter(is_new) {
                    self.edit(Change::Add(value), Vec::new());
                }
            }
            (Some(Strategy::Counter), Some(new)) => self.counter(facets.counter, new)?,
            (Some(Strategy::Max), Some(new)) => {
                let (value, new) = self.number(new)?;
                let old = facets.max.as_ref().map(|it| &it.value);
                if is_beyond(old, &value, |old| new.compare(old).is_ge()) {
                    self.edit(Change::Max(value), Vec::new());
                }
            }
            (Some(Strategy::Min), Some(new)) => {
                let (value, new) = self.number(new)?;
                let old = facets.min.as_ref().map(|it| &it.value);
                if is_beyond(old, &value, |old| new.compare(old).is_le()) {
                    self.edit(Change::Min(value), Vec::new());
                }
            }
        }
        Ok(())
    }

    fn counter(&mut self, old: Option<i128>, new: &Ipld) -> Result<(), ValueError> {
        let integer = if let Ipld::Integer(new) = new {
            i64::try_from(*new).ok()
        } else {
            None
        };
        let new = integer.ok_or_else(|| self.expected("an integer within i64"))?;
        let new = i128::from(new);
        let by = new - old.unwrap_or(0);
        let by = i64::try_from(by).map_err(|_| ValueError::IntegerRange { value: by })?;
        if by != 0 || old.is_none() {
            self.edit(Change::Increment(by), Vec::new());
        }
        Ok(())
    }

    fn set(&mut self, old: &Facets, new: Option<&Ipld>) -> Result<(), ValueError> {
        let wanted = match new {
            Some(new) => self.values(new)?.into_iter().collect(),
            None => BTreeSet::new(),
        };
        for (value, member) in &old.set {
            if member.dots.is_visible() && !wanted.contains(value) {
                let seen = member.dots.seen_by(self.own);
                self.edit(Change::Remove(value.clone()), seen);
            }
        }
        let is_empty = wanted.is_empty();
        for value in wanted {
            if !old.set.get(&value).is_some_and(|it| it.dots.is_visible()) {
                self.edit(Change::Add(value), Vec::new());
            }
        }
        match (new, is_empty) {
            (None, _) => self.untouch(old),
            (Some(_), true) => self.touch(old),
            (Some(_), false) => {}
        }
        Ok(())
    }

    fn unset(&mut self, old: &Field) {
        if old.register.value().is_some() {
            self.edit(Change::Unset, old.register.seen_by(self.own));
        }
    }

    fn touch(&mut self, old: &Facets) {
        if !old.presence.is_visible() {
            self.edit(Change::Touch, Vec::new());
        }
    }

    fn untouch(&mut self, old: &Facets) {
        if old.presence.is_visible() {
            self.edit(Change::Untouch, old.presence.seen_by(self.own));
        }
    }

    /// Makes every facet absent that can be.
    fn remove_all(&mut self, old: &Field) {
        self.unset(old);
        let Some(facets) = &old.facets else {
            return;
        };
        // None of these asks for a value, so none of them fails.
        let _ = self.set(facets, None);
        let _ = self.list(facets, None);
        for (name, field) in &facets.map {
            self.at(name.as_str(), |it| it.remove_all(field));
        }
    }

    fn map<'a>(&self, new: &'a Ipld) -> Result<&'a BTreeMap<String, Ipld>, ValueError> {
        let Ipld::Map(new) = new else {
            return Err(self.expected("a map"));
        };
        Ok(new)
    }

    fn values(&self, new: &Ipld) -> Result<Vec<Value>, ValueError> {
        let Ipld::List(new) = new else {
            return Err(self.expected("a list"));
        };
        new.iter().map(Value::new).collect()
    }

    fn number(&self, new: &Ipld) -> Result<(Value, Number), ValueError> {
        let value = Value::new(new)?;
        let number = value.number().ok_or_else(|| self.expected("a number"))?;
        Ok((value, number))
    }

    fn expected(&self, expected: &'static str) -> ValueError {
        ValueError::Expected {
            path: self.path.clone(),
            expected,
        }
    }
}

/// Whether a new extreme changes what shows: `1` and `1.0` rank equal and show differently.
fn is_beyond(old: Option<&Value>, new: &Value, wins: impl Fn(Number) -> bool) -> bool {
    match old {
        Some(old) => old != new && old.number().is_none_or(wins),
        None => true,
    }
}

//! Explicit edits of fields, by the strategies that the collection's definition declares.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use leno_crdt_codec::json::{
    Change, Definition, DocumentId, Edit, Strategy, Value, overwrite, patch, render_field,
};

use super::{Staged, Writer};
use crate::documents::check_name;
use crate::error::DbError;
use crate::key::Key;

/// One explicit edit of one field.
///
/// # Examples
///
/// ```
/// use leno_threads_db::{FieldChange, FieldEdit};
///
/// let edit = FieldEdit::new(["stats", "plays"], FieldChange::Increment(1));
/// assert_eq!(edit.path, ["stats", "plays"]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FieldEdit {
    /// Where: keys from the root of the document.
    pub path: Vec<String>,
    /// What.
    pub change: FieldChange,
}

/// What an edit does to a field. Each is for fields that are declared with its strategy; registers
/// need no declaration.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldChange {
    /// Writes a register, also if it shows the value already: that ends its conflicts.
    Set(Ipld),
    /// Makes a register absent.
    Unset,
    /// Adds to a counter.
    Increment(i64),
    /// Raises a maximum.
    Max(Ipld),
    /// Lowers a minimum.
    Min(Ipld),
    /// Adds an element to a set, if it is not there.
    Add(Ipld),
    /// Removes an element from a set, if it is there.
    Remove(Ipld),
    /// Inserts into a list.
    Insert {
        /// Before which element, from 0; the length of the list appends.
        index: usize,
        /// What.
        value: Ipld,
    },
    /// Writes another value to an element of a list.
    Replace {
        /// Which element, from 0.
        index: usize,
        /// What it is from now on.
        value: Ipld,
    },
    /// Takes an element out of a list.
    Take {
        /// Which element, from 0.
        index: usize,
    },
}

impl FieldEdit {
    /// Makes an edit.
    #[must_use]
    pub fn new(path: impl IntoIterator<Item = impl Into<String>>, change: FieldChange) -> Self {
        Self {
            path: path.into_iter().map(Into::into).collect(),
            change,
        }
    }
}

impl Writer<'_> {
    /// Edits fields of a document, one after the other, all or none. Tells whether anything is
    /// written.
    ///
    /// # Errors
    ///
    /// [`DbError`]; [`DbError::Strategy`] if a field is declared otherwise. Nothing was staged.
    pub fn edit(
        &mut self,
        collection: &str,
        id: &DocumentId,
        edits: &[FieldEdit],
    ) -> Result<bool, DbError> {
        check_name(collection)?;
        let (slot, _) = self.load_alive(collection, id)?;
        let key = self.key(slot);
        let before = self.staged_of(collection, &key);
        let mut is_changed = false;
        for edit in edits {
            match self.edit_one(collection, id, edit) {
                Ok(changed) => is_changed |= changed,
                Err(error) => {
                    self.unstage(collection, &key, before);
                    return Err(error);
                }
            }
        }
        Ok(is_changed)
    }

    fn edit_one(
        &mut self,
        collection: &str,
        id: &DocumentId,
        edit: &FieldEdit,
    ) -> Result<bool, DbError> {
        let (slot, life) = self.load_alive(collection, id)?;
        let FieldEdit { path, change } = edit;
        let edits = self.edits(slot, |documents, state, log, unique| {
            let strategies = documents.strategies(collection);
            change.check(path, strategies)?;
            let plain = |change| {
                Ok(vec![Edit {
                    path: path.clone(),
                    change,
                    seen: Vec::new(),
                }])
            };
            let keys: Vec<&str> = path.iter().map(String::as_str).collect();
            match change {
                FieldChange::Set(value) => Ok(vec![overwrite(state, &keys, Some(value), log)?]),
                FieldChange::Unset => Ok(vec![overwrite(state, &keys, None, log)?]),
                FieldChange::Increment(by) => plain(Change::Increment(*by)),
                FieldChange::Max(value) => plain(Change::Max(Value::new(value)?)),
                FieldChange::Min(value) => plain(Change::Min(Value::new(value)?)),
                FieldChange::Add(_)
                | FieldChange::Remove(_)
                | FieldChange::Insert { .. }
                | FieldChange::Replace { .. }
                | FieldChange::Take { .. } => {
                    let (first, inner) = path
                        .split_first()
                        .map_or(("", &[][..]), |(first, inner)| (first.as_str(), inner));
                    let shown = render_field(state, strategies, first);
                    let mut items = list_at(shown, inner);
                    change.edit_list(path, &mut items)?;
                    let partial = nested(path, Ipld::List(items));
                    Ok(patch(state, strategies, &partial, log, unique)?)
                }
            }
        })?;
        self.update(collection, slot, id, life, edits)
    }

    /// What is staged for a document, to go back to.
    fn staged_of(&mut self, collection: &str, key: &Key) -> Vec<Staged> {
        self.transaction.touch_first();
        let ops = self.transaction.ops(collection);
        let own = self
            .transaction
            .documents
            .get(key)
            .map_or(&[][..], |it| it.ops.as_slice());
        own.iter()
            .filter_map(|index| ops.get(*index).cloned())
            .collect()
    }

    /// Goes back to what was staged for a document when it was last asked; whatever was staged since
    /// is of the same document, and so at the end of its collection.
    fn unstage(&mut self, collection: &str, key: &Key, before: Vec<Staged>) {
        let transaction = &mut *self.transaction;
        transaction.touch_first();
        let Some(touched) = transaction.documents.get_mut(key) else {
            return;
        };
        touched.copy = None;
        let added = touched
            .ops
            .split_off(before.len().min(touched.ops.len()))
            .len();
        let own = touched.ops.clone();
        if own.is_empty() {
            transaction.documents.remove(key);
        }
        transaction.count -= added;
        let Ok(at) = transaction.group_at(collection) else {
            return;
        };
        let Some(group) = transaction.groups.get_mut(at) else {
            return;
        };
        group.ops.truncate(group.ops.len() - added);
        for (index, staged) in own.into_iter().zip(before) {
            if let Some(place) = group.ops.get_mut(index) {
                *place = staged;
            }
        }
        if group.ops.is_empty() {
            transaction.groups.remove(at);
        }
    }
}

impl FieldChange {
    /// Checks that the field is declared for such a change.
    fn check(&self, path: &[String], definition: &Definition) -> Result<(), DbError> {
        let strategy = strategy_at(definition, path);
        let is = |wanted| strategy == Some(Some(&wanted));
        let (is_good, expected) = match self {
            Self::Set(_) | Self::Unset => (
                strategy == Some(None) || is(Strategy::Register),
                "a register",
            ),
            Self::Increment(_) => (is(Strategy::Counter), "a counter"),
            Self::Max(_) => (is(Strategy::Max), "a maximum"),
            Self::Min(_) => (is(Strategy::Min), "a minimum"),
            Self::Add(_) => (is(Strategy::Set) || is(Strategy::GrowSet), "a set"),
            Self::Remove(_) => (is(Strategy::Set), "a set that shrinks"),
            Self::Insert { .. } | Self::Replace { .. } | Self::Take { .. } => {
                (is(Strategy::List), "a list")
            }
        };
        match is_good {
            true => Ok(()),
            false => Err(DbError::Strategy {
                path: path.to_vec(),
                expected,
            }),
        }
    }

    /// Does to the items of a set or list what this means.
    fn edit_list(&self, path: &[String], items: &mut Vec<Ipld>) -> Result<(), DbError> {
        let len = items.len();
        let beyond = |index| {
            Err(DbError::Index {
                path: path.to_vec(),
                index,
                len,
            })
        };
        match self {
            Self::Add(value) if !items.contains(value) => items.push(value.clone()),
            Self::Remove(value) => items.retain(|item| item != value),
            Self::Insert { index, value } if *index <= len => items.insert(*index, value.clone()),
            Self::Replace { index, value } => match items.get_mut(*index) {
                Some(item) => *item = value.clone(),
                None => return beyond(*index),
            },
            Self::Take { index } if *index < len => drop(items.remove(*index)),
            Self::Insert { index, .. } | Self::Take { index } => return beyond(*index),
            Self::Add(_)
            | Self::Set(_)
            | Self::Unset
            | Self::Increment(_)
            | Self::Max(_)
            | Self::Min(_) => {}
        }
        Ok(())
    }
}

/// The declared strategy of a field, if any; nothing if no such field can be.
fn strategy_at<'a>(definition: &'a Definition, path: &[String]) -> Option<Option<&'a Strategy>> {
    let (first, inner) = path.split_first()?;
    match definition.of(first) {
        Some(Strategy::Map(definition)) if !inner.is_empty() => strategy_at(definition, inner),
        // Only maps have fields.
        Some(_) if !inner.is_empty() => None,
        strategy => Some(strategy),
    }
}

fn list_at(shown: Option<Ipld>, path: &[String]) -> Vec<Ipld> {
    match (shown, path.split_first()) {
        (Some(Ipld::List(items)), None) => items,
        (Some(Ipld::Map(mut fields)), Some((first, inner))) => list_at(fields.remove(first), inner),
        _ => Vec::new(),
    }
}

fn nested(path: &[String], value: Ipld) -> Ipld {
    path.iter().rev().fold(value, |value, key| {
        Ipld::Map(BTreeMap::from([(key.clone(), value)]))
    })
}

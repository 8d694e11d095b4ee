//! Ops on a JSON document: what they say. Their bytes are in `op/wire.rs`.

mod document;
mod wire;

use std::cmp::Ordering;

pub use document::{DOCUMENT_NAME_BYTES_MAX, DocumentId};
pub(super) use wire::{decode_number, decode_position, decode_short};

use super::position::Position;
use super::value::{Value, ValueError, check_key};
use crate::cbor::{DEPTH_MAX, key_order};
use crate::{Dot, LogId, Stamp};

/// Most edits in one op.
pub const EDITS_MAX: usize = 4_096;

/// Most segments in the path of an edit.
pub const PATH_SEGMENTS_MAX: usize = 8;

/// Most segments in all paths of one op.
pub const OP_SEGMENTS_MAX: usize = 8_192;

/// Most dots that the edits of one op name: replaced ones and list elements.
pub const OP_DOTS_MAX: usize = 4_096;

/// Longest encoding of one op, in bytes; it fits a sealed body (512 KiB) with room to spare.
pub const OP_BYTES_MAX: usize = 480 * 1024;

/// One change to one document.
///
/// An op says by itself which facet of which field it touches, so it is applied without knowing
/// the collection's definition, and it names what it replaces, so it is applied in any order. Every
/// value of this type is within the bounds of the format: constructors and the decoder see to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Op {
    document: DocumentId,
    life: u64,
    action: Action,
}

/// What an op does.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Action {
    /// Begins the life, or joins another create of the same life.
    Create {
        /// What the random part of the document id was made from, if it was.
        nonce: Option<[u8; 16]>,
        /// The first content.
        edits: Vec<Edit>,
    },
    /// Changes the content of the life. Does not show until a create of that life is known.
    Update {
        /// The changes.
        edits: Vec<Edit>,
    },
    /// Ends the life and all earlier ones, with whatever is written to them at any time.
    Delete,
}

/// One change to one field.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Edit {
    /// Where: 1 to [`PATH_SEGMENTS_MAX`] keys from the root of the document.
    pub path: Vec<String>,
    /// What.
    pub change: Change,
    /// What of *other* logs this replaces: the newest dot of each; whatever that log wrote earlier
    /// to the same place is meant too, and so is what the writer's own log wrote earlier. In
    /// ascending order of the logs, each at most once. Empty for counters, maxima and minima.
    ///
    /// # Security
    ///
    /// A dot whose stamp is not below this op's was not seen, and is not replaced.
    pub seen: Vec<Dot>,
}

/// What an edit does to its field. Each kind touches one facet of the field, and facets of one field
/// never disturb each other.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// Writes the register.
    Set(Value),
    /// Writes "absent" to the register.
    Unset,
    /// Adds to the counter.
    Increment(i64),
    /// Raises the maximum; a number.
    Max(Value),
    /// Lowers the minimum; a number.
    Min(Value),
    /// Adds an element to the set.
    Add(Value),
    /// Removes from the set what was seen of an element.
    Remove(Value),
    /// Inserts an element into the list.
    Insert {
        /// Where it stands.
        position: Position,
        /// What it is.
        value: Value,
    },
    /// Writes another value to an element of the list.
    Replace {
        /// Which element.
        element: ElementId,
        /// What it is from now on.
        value: Value,
    },
    /// Takes an element out of the list.
    Take {
        /// Which element.
        element: ElementId,
    },
    /// Makes an empty map, set or list present.
    Touch,
    /// Makes a map, set or list absent once it is empty.
    Untouch,
}

/// Names an element of a list: where it stands, and the insert that made it.
// Elements are shown in this order: position first, then the dot, for two that collided.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ElementId {
    /// Where it stands.
    pub position: Position,
    /// The op that inserted it.
    pub dot: Dot,
}

impl Op {
    /// Makes an op that begins a life of a document: 1 for a new one, one more after a delete.
    ///
    /// # Errors
    ///
    /// [`ValueError`] if an edit is out of bounds or two touch the same thing.
    pub fn create(
        document: DocumentId,
        life: u64,
        nonce: Option<[u8; 16]>,
        edits: Vec<Edit>,
    ) -> Result<Self, ValueError> {
        let edits = checked(edits)?;
        Self::new(document, life, Action::Create { nonce, edits })
    }

    /// Makes an op that changes a life of a document.
    ///
    /// # Errors
    ///
    /// As [`Op::create`].
    pub fn update(document: DocumentId, life: u64, edits: Vec<Edit>) -> Result<Self, ValueError> {
        let edits = checked(edits)?;
        Self::new(document, life, Action::Update { edits })
    }

    /// Makes an op that ends a life of a document.
    ///
    /// # Errors
    ///
    /// [`ValueError::Life`].
    pub fn delete(document: DocumentId, life: u64) -> Result<Self, ValueError> {
        Self::new(document, life, Action::Delete)
    }

    fn new(document: DocumentId, life: u64, action: Action) -> Result<Self, ValueError> {
        if life == 0 {
            return Err(ValueError::Life);
        }
        let op = Self {
            document,
            life,
            action,
        };
        let bytes = op.encoded_len_max();
        if bytes > OP_BYTES_MAX {
            return Err(ValueError::TooLarge {
                bytes,
                bytes_max: OP_BYTES_MAX,
            });
        }
        Ok(op)
    }

    /// The document that it changes.
    #[must_use]
    pub fn document(&self) -> &DocumentId {
        &self.document
    }

    /// The life of the document that it belongs to, counted from 1.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Takes it apart.
    #[must_use]
    pub fn into_parts(self) -> (DocumentId, u64, Action) {
        (self.document, self.life, self.action)
    }

    /// Its edits, in ascending order; none for a delete.
    #[must_use]
    pub fn edits(&self) -> &[Edit] {
        match &self.action {
            Action::Create { edits, .. } | Action::Update { edits } => edits,
            Action::Delete => &[],
        }
    }

    /// Tells whether its life cannot have begun by its record's stamp, so that it has no effect.
    ///
    /// # Security
    ///
    /// Who deletes life `u64::MAX` would end all lives that anybody could ever create. Lives are
    /// counted one by one, with a record's stamp above the one before: an op that claims a life above
    /// its stamp made it up, and a life that is not above leaves room for others at all times.
    #[must_use]
    pub fn is_ahead_of(&self, stamp: Stamp) -> bool {
        self.life > stamp.0
    }

    /// At least the length of its encoding, and not much more.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        const HEAD: usize = 9;
        let edits: usize = self
            .edits()
            .iter()
            .map(|edit| {
                let path: usize = edit.path.iter().map(|key| key.len() + 3).sum();
                // A dot is a list of three numbers, and its log may be its own line of the table.
                let dots = edit.seen.len() + usize::from(edit.change.element_dot().is_some());
                5 + path + edit.change.payload_len() + dots * (34 + 3 + 2 * HEAD)
            })
            .sum();
        64 + self.document.encoded_len_max() + edits
    }
}

impl Edit {
    /// Makes an edit of a top-level field that names nothing of other logs.
    #[must_use]
    pub fn new(field: impl Into<String>, change: Change) -> Self {
        Self {
            path: vec![field.into()],
            change,
            seen: Vec::new(),
        }
    }

    /// The order of edits in an op; equal ones touch the same thing.
    fn order(&self, other: &Self) -> Ordering {
        path_order(&self.path, &other.path)
            .then_with(|| self.change.slot().cmp(&other.change.slot()))
    }

    fn check(&self) -> Result<(), ValueError> {
        bounded("segments in a path", self.path.len(), PATH_SEGMENTS_MAX)?;
        if self.path.is_empty() {
            return Err(ValueError::Count {
                what: "segments in a path",
                count: 0,
                max: PATH_SEGMENTS_MAX,
            });
        }
        self.path.iter().try_for_each(|key| check_key(key))?;
        let ascending = self.seen.is_sorted_by(|a, b| a.log < b.log);
        if !ascending || !(self.seen.is_empty() || self.change.replaces()) {
            return Err(ValueError::Seen {
                path: self.path.clone(),
            });
        }
        if let Change::Max(value) | Change::Min(value) = &self.change
            && value.number().is_none()
        {
            return Err(ValueError::Expected {
                path: self.path.clone(),
                expected: "a number",
            });
        }
        let depth = self.change.depth(self.path.len());
        match self.change.value() {
            Some(value) if !value.fits(depth) => Err(ValueError::TooDeep),
            _ => Ok(()),
        }
    }
}

/// What an edit touches within its field, in the order in which the format has them.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Slot<'a> {
    Register,
    Counter,
    Max,
    Min,
    Set(&'a Value),
    Insert(&'a Position),
    Element(&'a ElementId),
    Presence,
}

impl Change {
    /// The value that it writes, if it writes one.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Set(value)
            | Self::Max(value)
            | Self::Min(value)
            | Self::Add(value)
            | Self::Remove(value)
            | Self::Insert { value, .. }
            | Self::Replace { value, .. } => Some(value),
            Self::Unset | Self::Increment(_) | Self::Take { .. } | Self::Touch | Self::Untouch => {
                None
            }
        }
    }

    fn slot(&self) -> Slot<'_> {
        match self {
            Self::Set(_) | Self::Unset => Slot::Register,
            Self::Increment(_) => Slot::Counter,
            Self::Max(_) => Slot::Max,
            Self::Min(_) => Slot::Min,
            Self::Add(value) | Self::Remove(value) => Slot::Set(value),
            Self::Insert { position, .. } => Slot::Insert(position),
            Self::Replace { element, .. } | Self::Take { element } => Slot::Element(element),
            Self::Touch | Self::Untouch => Slot::Presence,
        }
    }

    /// Whether it may name replaced dots.
    fn replaces(&self) -> bool {
        !matches!(
            self,
            Self::Increment(_) | Self::Max(_) | Self::Min(_) | Self::Insert { .. }
        )
    }

    /// How deep its value may nest at a path of `segments`, so that no document nests too deep.
    fn depth(&self, segments: usize) -> usize {
        let in_list = matches!(
            self,
            Self::Add(_) | Self::Remove(_) | Self::Insert { .. } | Self::Replace { .. }
        );
        DEPTH_MAX.saturating_sub(segments + usize::from(in_list))
    }

    fn element(&self) -> Option<&ElementId> {
        if let Self::Replace { element, .. } | Self::Take { element } = self {
            return Some(element);
        }
        None
    }

    fn element_dot(&self) -> Option<Dot> {
        self.element().map(|element| element.dot)
    }

    fn position(&self) -> Option<&Position> {
        if let Self::Insert { position, .. } = self {
            return Some(position);
        }
        self.element().map(|element| &element.position)
    }

    fn payload_len(&self) -> usize {
        let position = self.position().map_or(0, |it| it.as_bytes().len());
        12 + position + self.value().map_or(0, |it| it.as_bytes().len())
    }
}

/// The order of paths: key by key as in dag-cbor, a prefix first.
fn path_order(a: &[String], b: &[String]) -> Ordering {
    let keys = a.iter().zip(b).map(|(a, b)| key_order(a, b));
    keys.fold(Ordering::Equal, Ordering::then)
        .then(a.len().cmp(&b.len()))
}

/// Sorts edits and checks them one by one and together.
fn checked(mut edits: Vec<Edit>) -> Result<Vec<Edit>, ValueError> {
    bounded("edits", edits.len(), EDITS_MAX)?;
    edits.iter().try_for_each(Edit::check)?;
    edits.sort_by(Edit::order);
    check_totals(&edits)?;
    let mut pairs = edits.iter().zip(edits.iter().skip(1));
    match pairs.find(|(a, b)| a.order(b).is_eq()) {
        Some((a, _)) => Err(ValueError::Duplicate {
            path: a.path.clone(),
        }),
        None => Ok(edits),
    }
}

fn check_totals(edits: &[Edit]) -> Result<(), ValueError> {
    let segments = edits.iter().map(|edit| edit.path.len()).sum();
    bounded("segments in the paths of an op", segments, OP_SEGMENTS_MAX)?;
    let dots = edits
        .iter()
        .map(|edit| edit.seen.len() + usize::from(edit.change.element().is_some()));
    bounded("dots in an op", dots.sum(), OP_DOTS_MAX)
}

fn bounded(what: &'static str, count: usize, max: usize) -> Result<(), ValueError> {
    if count > max {
        return Err(ValueError::Count { what, count, max });
    }
    Ok(())
}

/// All logs that edits name, ascending, each once.
fn logs(edits: &[Edit]) -> Vec<LogId> {
    let mut logs: Vec<LogId> = edits
        .iter()
        .flat_map(|edit| {
            edit.seen
                .iter()
                .map(|dot| dot.log)
                .chain(edit.change.element_dot().map(|dot| dot.log))
        })
        .collect();
    logs.sort_unstable();
    logs.dedup();
    logs
}

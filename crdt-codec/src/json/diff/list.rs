//! Edits of lists: common ends first, then a longest common subsequence of what is left.

use ipld_core::ipld::Ipld;

use super::Differ;
use crate::json::dots::{Dots, Write};
use crate::json::op::{Change, ElementId};
use crate::json::position::{Position, run_between};
use crate::json::state::Facets;
use crate::json::value::{Value, ValueError};

/// Above this many pairs of differing elements no common subsequence is looked for: elements are
/// replaced one by one.
const PAIRS_MAX: usize = 1 << 18;

type Element<'a> = (&'a ElementId, &'a Dots<Write<Value>>, &'a Value);

/// A stretch that changes: old elements `old.0..old.1` become new ones `new.0..new.1`.
struct Hunk {
    old: (usize, usize),
    new: (usize, usize),
}

impl<U: FnMut() -> [u8; 4]> Differ<U> {
    /// Makes the list show `new`; `None` makes it absent.
    pub(super) fn list(&mut self, old: &Facets, new: Option<&Ipld>) -> Result<(), ValueError> {
        let wanted = match new {
            Some(new) => self.values(new)?,
            None => Vec::new(),
        };
        let elements: Vec<Element<'_>> = old.elements().collect();
        let edits = self.edits.len();
        let hunks = hunks(&elements, &wanted);
        if hunks
            .iter()
            .any(|hunk| self.hunk(&elements, &wanted, hunk).is_err())
        {
            // No room between two neighbours: the list gets all its places anew.
            self.edits.truncate(edits);
            self.rewrite(&elements, &wanted)?;
        }
        match (new, wanted.is_empty()) {
            (None, _) => self.untouch(old),
            (Some(_), true) => self.touch(old),
            (Some(_), false) => {}
        }
        Ok(())
    }

    fn hunk(
        &mut self,
        elements: &[Element<'_>],
        wanted: &[Value],
        hunk: &Hunk,
    ) -> Result<(), ValueError> {
        let old = elements.get(hunk.old.0..hunk.old.1).unwrap_or_default();
        let new = wanted.get(hunk.new.0..hunk.new.1).unwrap_or_default();
        for ((id, writes, _), value) in old.iter().zip(new) {
            let change = Change::Replace {
                element: (*id).clone(),
                value: value.clone(),
            };
            self.edit(change, writes.seen_by(self.own));
        }
        self.take(old.get(new.len()..).unwrap_or_default());
        let rest = new.get(old.len()..).unwrap_or_default();
        let left = hunk.old.1.checked_sub(1).and_then(|at| elements.get(at));
        let right = elements.get(hunk.old.1);
        let position = |it: &Element<'_>| it.0.position.clone();
        self.insert(left.map(position), right.map(position), rest)
    }

    fn take(&mut self, elements: &[Element<'_>]) {
        for (id, writes, _) in elements {
            let change = Change::Take {
                element: (*id).clone(),
            };
            self.edit(change, writes.seen_by(self.own));
        }
    }

    fn insert(
        &mut self,
        left: Option<Position>,
        right: Option<Position>,
        values: &[Value],
    ) -> Result<(), ValueError> {
        if values.is_empty() {
            return Ok(());
        }
        let unique = (self.unique)();
        let positions = run_between(left.as_ref(), right.as_ref(), &unique, values.len())?;
        for (position, value) in positions.into_iter().zip(values) {
            let change = Change::Insert {
                position,
                value: value.clone(),
            };
            self.edit(change, Vec::new());
        }
        Ok(())
    }

    fn rewrite(&mut self, elements: &[Element<'_>], wanted: &[Value]) -> Result<(), ValueError> {
        self.take(elements);
        self.insert(None, None, wanted)
    }
}

/// What differs, in ascending order, with at least one equal element between two hunks.
fn hunks(old: &[Element<'_>], new: &[Value]) -> Vec<Hunk> {
    let same = |(a, b): &(&Element<'_>, &Value)| a.2 == *b;
    let prefix = old.iter().zip(new).take_while(same).count();
    let old_rest = old.get(prefix..).unwrap_or_default();
    let new_rest = new.get(prefix..).unwrap_or_default();
    let ends = old_rest.iter().rev().zip(new_rest.iter().rev());
    let suffix = ends.take_while(same).count();
    let old_middle = old_rest.get(..old_rest.len() - suffix).unwrap_or_default();
    let new_middle = new_rest.get(..new_rest.len() - suffix).unwrap_or_default();

    let mut kept = match old_middle.len().saturating_mul(new_middle.len()) {
        0..=PAIRS_MAX => common(old_middle, new_middle),
        _ => Vec::new(),
    };
    kept.push((old_middle.len(), new_middle.len()));
    let mut hunks = Vec::new();
    let mut from = (0, 0);
    for to in kept {
        if from != to {
            hunks.push(Hunk {
                old: (prefix + from.0, prefix + to.0),
                new: (prefix + from.1, prefix + to.1),
            });
        }
        from = (to.0 + 1, to.1 + 1);
    }
    hunks
}

/// Pairs of equal elements, both ascending, as many as possible.
fn common(old: &[Element<'_>], new: &[Value]) -> Vec<(usize, usize)> {
    // lengths[i * width + j]: the longest common subsequence of old[i..] and new[j..].
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    let at = |lengths: &[u32], i: usize, j: usize| lengths.get(i * width + j).copied().unwrap_or(0);
    for (i, (_, _, a)) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let length = if *a == b {
                at(&lengths, i + 1, j + 1) + 1
            } else {
                at(&lengths, i + 1, j).max(at(&lengths, i, j + 1))
            };
            if let Some(cell) = lengths.get_mut(i * width + j) {
                *cell = length;
            }
        }
    }
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some((_, _, a)), Some(b)) = (old.get(i), new.get(j)) {
        if *a == b {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

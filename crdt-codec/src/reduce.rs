//! Folding the ops of one document, whatever the order of their arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest, Sha256};

use crate::{Codec, Place};

/// Ops between two checkpoints of a [`Reducer`] near the end of the order.
pub const CHECKPOINT_OPS: usize = 64;

/// Keeps the state of one document equal to the fold of its ops in the one total order.
///
/// An op behind all others is applied at once. A late op of a codec that commutes is too; any other
/// makes [`Reducer::state`] fold again from the nearest checkpoint before it, so a batch of late ops
/// costs one such fold. Checkpoints lie [`CHECKPOINT_OPS`] apart near the end and ever farther apart
/// towards the start: their number grows with the logarithm of the number of ops, and folding again
/// costs at most about twice the ops behind the late one.
///
/// A reducer remembers the place of every op that it was given, to ignore duplicates, and keeps the
/// ops themselves only for codecs that do not commute.
///
/// # Examples
///
/// ```
/// use leno_crdt_codec::json::{Definition, DocumentId, JsonCodec, Op, State, diff, render};
/// use leno_crdt_codec::{Dot, LogId, Place, Reducer, Stamp};
/// use ipld_core::ipld;
///
/// let (log, definition) = (LogId([1; 32]), Definition::default());
/// let new = ipld!({"title": "Blue"});
/// let edits = diff(&State::default(), &definition, &new, log, || [1; 4])?;
/// let op = Op::create(DocumentId::natural("song-1")?, 1, None, edits)?;
///
/// let mut reducer = Reducer::<JsonCodec>::new();
/// let place = Place { stamp: Stamp(1), dot: Dot { log, seq: 1, index: 0 } };
/// reducer.insert(place, op);
/// assert_eq!(render(reducer.state(), &definition), Some(new));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reducer<C: Codec> {
    state: C::State,
    /// Ops that `state` holds: all up to this one, or none of this reducer's.
    folded: Option<Place>,
    /// How many ops of this reducer `state` holds.
    count: usize,
    base: C::State,
    settled: Option<Place>,
    /// Empty if the codec commutes.
    ops: BTreeMap<Place, C::Op>,
    /// Empty unless the codec commutes.
    places: BTreeSet<Place>,
    checkpoints: Vec<Checkpoint<C::State>>,
}

/// What became of an op that a [`Reducer`] was given.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Inserted {
    /// It came behind all others.
    InOrder,
    /// It belongs before one that was there already.
    Late,
    /// An op with this place was there already; nothing changed.
    Duplicate,
    /// It lies at or below the place that the base state had settled; nothing changed.
    Settled,
}

#[derive(Clone)]
struct Checkpoint<S> {
    last: Place,
    count: usize,
    state: S,
}

impl<C: Codec> Reducer<C> {
    /// Makes a reducer that was given no op.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_from(C::State::default(), None)
    }

    /// Makes a reducer that goes on from a reduced state, which holds all ops up to `settled`.
    #[must_use]
    pub fn starting_from(base: C::State, settled: Option<Place>) -> Self {
        Self {
            state: base.clone(),
            folded: None,
            count: 0,
            base,
            settled,
            ops: BTreeMap::new(),
            places: BTreeSet::new(),
            checkpoints: Vec::new(),
        }
    }

    /// Takes one op in.
    pub fn insert(&mut self, place: Place, op: C::Op) -> Inserted {
        if self.settled.is_some_and(|settled| place <= settled) {
            return Inserted::Settled;
        }
        if C::COMMUTES {
            self.insert_commuting(place, op)
        } else {
            self.insert_ordered(place, op)
        }
    }

    /// Returns the fold of all ops so far, after folding what is left to fold.
    pub fn state(&mut self) -> &C::State {
        self.fold();
        &self.state
    }

    /// Returns the fold of all ops so far and gives the rest up.
    #[must_use]
    pub fn into_state(mut self) -> C::State {
        self.fold();
        self.state
    }

    /// How many different ops it was given.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len() + self.places.len()
    }

    /// Tells whether it was given no op.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many states it keeps besides the newest.
    #[must_use]
    pub fn checkpoints(&self) -> usize {
        self.checkpoints.len()
    }

    fn insert_commuting(&mut self, place: Place, op: C::Op) -> Inserted {
        let newest = self.places.last().copied();
        if !self.places.insert(place) {
            return Inserted::Duplicate;
        }
        C::apply_owned(&mut self.state, &place, op);
        if newest.is_some_and(|newest| place < newest) {
            Inserted::Late
        } else {
            Inserted::InOrder
        }
    }

    fn insert_ordered(&mut self, place: Place, op: C::Op) -> Inserted {
        let newest = self.ops.last_key_value().map(|(newest, _)| *newest);
        let late = newest.is_some_and(|newest| place <= newest);
        if late && self.ops.contains_key(&place) {
            return Inserted::Duplicate;
        }
        if self.folded.is_some_and(|folded| place < folded) {
            self.rewind(place);
        } else if !late && self.folded == newest {
            self.step(place, &op);
        }
        self.ops.insert(place, op);
        if late {
            Inserted::Late
        } else {
            Inserted::InOrder
        }
    }

    /// Goes back to the newest state that holds nothing behind `place`.
    fn rewind(&mut self, place: Place) {
        self.checkpoints.retain(|it| it.last < place);
        match self.checkpoints.last() {
            Some(it) => {
                self.state = it.state.clone();
                self.folded = Some(it.last);
                self.count = it.count;
            }
            None => {
                self.state = self.base.clone();
                self.folded = None;
                self.count = 0;
            }
        }
    }

    fn fold(&mut self) {
        use std::ops::Bound::{Excluded, Unbounded};
        // Taken out so that `step` may borrow the rest.
        let ops = std::mem::take(&mut self.ops);
        let start = self.folded.map_or(Unbounded, Excluded);
        for (place, op) in ops.range((start, Unbounded)) {
            self.step(*place, op);
        }
        self.ops = ops;
    }

    fn step(&mut self, place: Place, op: &C::Op) {
        C::apply(&mut self.state, &place, op);
        self.folded = Some(place);
        self.count += 1;
        let since = self.checkpoints.last().map_or(0, |it| it.count);
        if self.count - since >= CHECKPOINT_OPS {
            self.checkpoints.push(Checkpoint {
                last: place,
                count: self.count,
                state: self.state.clone(),
            });
            self.thin();
        }
    }

    /// Drops a checkpoint if the gap that it leaves is no wider than the way from there to the end.
    fn thin(&mut self) {
        let mut newer: Option<usize> = None;
        let mut counts: Vec<usize> = self.checkpoints.iter().map(|it| it.count).collect();
        counts.insert(0, 0);
        // From the newest to the oldest; `counts` has the start of the order in front.
        let mut kept = Vec::with_capacity(self.checkpoints.len());
        for (checkpoint, older) in self.checkpoints.drain(..).zip(counts).rev() {
            let drop = newer.is_some_and(|newer| newer - older <= self.count - newer);
            if !drop {
                newer = Some(checkpoint.count);
                kept.push(checkpoint);
            }
        }
        kept.reverse();
        self.checkpoints = kept;
    }
}

impl<C: Codec> Default for Reducer<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows how far it is, not what it holds.
impl<C: Codec> fmt::Debug for Reducer<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reducer")
            .field("ops", &self.len())
            .field("folded", &self.folded)
            .field("checkpoints", &self.checkpoints.len())
            .finish_non_exhaustive()
    }
}

/// Folds ops the plain way: sorts them by place, drops duplicates, applies one after the other.
///
/// This is what a state means. [`Reducer`] must agree with it byte for byte.
#[must_use]
pub fn naive<C: Codec>(ops: impl IntoIterator<Item = (Place, C::Op)>) -> C::State {
    let mut ops: Vec<_> = ops.into_iter().collect();
    ops.sort_by_key(|(place, _)| *place);
    ops.dedup_by_key(|(place, _)| *place);
    let mut state = C::State::default();
    for (place, op) in &ops {
        C::apply(&mut state, place, op);
    }
    state
}

/// Why a codec does not keep the contract of [`Codec`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImpureError {
    /// Two orders of delivery gave two states.
    #[error("delivery {permutation} gave another state than the fold in order")]
    Differs {
        /// Which order of delivery, counted from 0.
        permutation: u32,
        /// SHA-256 of the state of the fold in order.
        expected: [u8; 32],
        /// SHA-256 of the other state.
        found: [u8; 32],
    },
    /// A state is not decoded, or not to what it was encoded from.
    #[error("a state does not survive encoding")]
    StateEncoding,
    /// An op is not decoded, or not to what it was encoded from.
    #[error("the op at {place:?} does not survive encoding")]
    OpEncoding {
        /// Which op.
        place: Place,
    },
}

/// Tests a codec on given ops: reduces them in `permutations` different orders of delivery, with
/// duplicates, and compares the hashes of the states with that of the fold in order.
///
/// The orders depend on nothing but the number of ops, so a failure repeats. Apps run this on
/// their own codecs.
///
/// # Errors
///
/// [`ImpureError`] names the clause that is broken.
pub fn check_purity<C: Codec>(
    ops: &[(Place, C::Op)],
    permutations: u32,
) -> Result<(), ImpureError> {
    let encoded: Vec<_> = ops
        .iter()
        .map(|(place, op)| (*place, C::encode_op(op)))
        .collect();
    let decode = |(place, bytes): &(Place, Vec<u8>)| match C::decode_op(bytes) {
        Ok(op) if C::encode_op(&op) == *bytes => Ok((*place, op)),
        _ => Err(ImpureError::OpEncoding { place: *place }),
    };
    let decoded: Result<Vec<_>, _> = encoded.iter().map(decode).collect();
    let state = C::encode_state(&naive::<C>(decoded?));
    match C::decode_state(&state) {
        Ok(decoded) if C::encode_state(&decoded) == state => {}
        _ => return Err(ImpureError::StateEncoding),
    }
    let expected: [u8; 32] = Sha256::digest(&state).into();

    let mut random = 0x9e37_79b9_7f4a_7c15 ^ ops.len() as u64;
    for permutation in 0..permutations {
        let mut delivery: Vec<_> = encoded.iter().collect();
        shuffle(&mut delivery, &mut random);
        let again = delivery.len() / 4;
        let repeated: Vec<_> = delivery.iter().take(again).copied().collect();
        let mut reducer = Reducer::<C>::new();
        for (at, item) in delivery.into_iter().chain(repeated).enumerate() {
            let (place, op) = decode(item)?;
            reducer.insert(place, op);
            if at % 7 == 0 {
                reducer.state();
            }
        }
        let found: [u8; 32] = Sha256::digest(C::encode_state(reducer.state())).into();
        if found != expected {
            return Err(ImpureError::Differs {
                permutation,
                expected,
                found,
            });
        }
    }
    Ok(())
}

/// Fisher-Yates over a fixed sequence (xorshift64), which is enough to visit many orders.
fn shuffle<T>(items: &mut [T], random: &mut u64) {
    for last in (1..items.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        items.swap(last, (*random % (last as u64 + 1)) as usize);
    }
}

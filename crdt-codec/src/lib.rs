//! Stamps, the one total order of ops, and the deterministic reducers that turn a set of ops into
//! the state of a document: the same state, and the same bytes, for everybody who has the same set.
//!
//! # Examples
//!
//! Two writers save one song at the same time. Whoever hears of it in whatever order sees the same,
//! and nothing is lost:
//!
//! ```
//! use ipld_core::ipld;
//! use leno_crdt_codec::json::{Definition, DocumentId, Op, State, conflicts, diff, render};
//! use leno_crdt_codec::{Dot, LogId, Place, Stamp};
//!
//! let (song, songs) = (DocumentId::natural("song-1")?, Definition::default());
//! let at = |stamp, log, seq| Place { stamp: Stamp(stamp), dot: Dot { log, seq, index: 0 } };
//! let (alice, bob) = (LogId([1; 32]), LogId([2; 32]));
//!
//! let save = |state: &State, title: &str, log| {
//!     let edits = diff(state, &songs, &ipld!({"title": title}), log, || [7; 4])?;
//!     Op::update(song.clone(), 1, edits)
//! };
//! let mut seen = State::default();
//! seen.apply(&at(1, alice, 1), &Op::create(song.clone(), 1, None, vec![])?);
//! let (a, b) = (save(&seen, "Blue", alice)?, save(&seen, "Green", bob)?);
//! let (mut one, mut two) = (seen.clone(), seen);
//! one.apply(&at(2, alice, 2), &a);
//! one.apply(&at(2, bob, 1), &b);
//! two.apply(&at(2, bob, 1), &b);
//! two.apply(&at(2, alice, 2), &a);
//! assert_eq!(one.encode(), two.encode());
//! assert_eq!(render(&one, &songs), Some(ipld!({"title": "Green"})));
//! assert_eq!(conflicts(&one)[0].losers[0].1, Some("Blue".to_owned().into()));
//! # Ok::<(), leno_crdt_codec::json::ValueError>(())
//! ```
//!
//! # Ideas, in the order in which they are needed
//!
//! 1. A [`Dot`] names an op: which log, which record, which op in it. A [`Place`] adds the record's
//!    [`Stamp`]. Places have one total order, which extends causality.
//! 2. A [`Codec`] says what an op does to a state. What the ops of a document add up to is their fold
//!    in that order, [`naive`]; a [`Reducer`] arrives at the same state whatever the order of arrival.
//! 3. [`json`] is the codec of JSON documents. Its ops name what they replace and carry their own
//!    places, so that it commutes: ops are applied as they come, late ones too, and its reducer never
//!    folds anything again.
//! 4. Ops and states have one encoding each, in strict dag-cbor ([`cbor`]); what is decoded is encoded
//!    to the same bytes again. [`state_hash`] compares replicas.
//! 5. [`check_purity`] is for codecs that apps bring along: it finds those that would make replicas
//!    differ.
//!
//! This crate does no I/O and has no clock and no randomness; it knows nothing of keys, records and
//! roles. It has no features.
//!
//! # Modules
//!
//! - [`cbor`]: strict dag-cbor, one item at a time.
//! - [`json`]: documents: definitions, diffs, ops, states, conflicts.

/// Whether a [`bug`](mod@bug) is switched on: `false` unless this is built to try the tests.
#[cfg(leno_bug)]
#[macro_export]
macro_rules! bug {
    ($name:ident) => {
        $crate::bug::Bug::$name.is_on()
    };
}

/// Whether a mistake is switched on, to try the tests: in this build there are none.
#[cfg(not(leno_bug))]
#[doc(hidden)]
#[macro_export]
macro_rules! bug {
    ($name:ident) => {
        false
    };
}

#[cfg(leno_bug)]
pub mod bug;
pub mod cbor;
mod codec;
mod hash;
pub mod json;
mod order;
mod reduce;

pub use codec::{Codec, OpError};
pub use hash::{STATE_HASH_LABEL, state_hash};
pub use order::{Dot, LogId, Place, Seq, Stamp};
pub use reduce::{CHECKPOINT_OPS, ImpureError, Inserted, Reducer, check_purity, naive};

//! The JSON document codec: registers, counters, sets, maps, lists, maxima and minima in one state.
//!
//! An app puts whole documents or patches. [`diff`] and [`patch`] turn those into [`Edit`]s, guided by
//! the collection's [`Definition`]; an [`Op`] carries them with the document, its life, and what they
//! replace. [`State`] is the sum of ops, which no order of delivery changes. [`render`] shows it, again
//! guided by the definition, and [`conflicts`] lists what was written concurrently and does not show.
//!
//! The definition chooses which facet of a field is written and shown, and plays no part in the sum:
//! two replicas that know different definitions hold the same state.

mod diff;
mod dots;
mod name;
mod op;
mod position;
mod render;
mod state;
mod strategy;
mod value;

pub use diff::{diff, overwrite, patch};
pub use op::{
    Action, Change, DOCUMENT_NAME_BYTES_MAX, DocumentId, EDITS_MAX, Edit, ElementId, OP_BYTES_MAX,
    OP_DOTS_MAX, OP_SEGMENTS_MAX, Op, PATH_SEGMENTS_MAX,
};
pub use position::{POSITION_BYTES_MAX, Position, PositionError, between, run_between};
pub use render::{Conflict, conflicts, render, render_field};
pub use state::{Creation, State};
pub use strategy::{DEFINITION_FIELDS_MAX, Definition, Strategy};
pub use value::{Number, VALUE_BYTES_MAX, Value, ValueError};

use crate::cbor::DecodeError;
use crate::{Codec, OpError, Place};

/// The codec of JSON documents. It commutes: a late op is applied where it arrives.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonCodec;

impl Codec for JsonCodec {
    type Op = Op;
    type State = State;

    const COMMUTES: bool = true;

    fn apply(state: &mut State, place: &Place, op: &Op) {
        state.apply(place, op);
    }

    fn apply_owned(state: &mut State, place: &Place, op: Op) {
        state.apply_owned(place, op);
    }

    fn apply_encoded(state: &mut State, place: &Place, bytes: &[u8]) -> Result<(), OpError> {
        state.apply_encoded(place, bytes)
    }

    fn encode_op(op: &Op) -> Vec<u8> {
        op.encode()
    }

    fn decode_op(bytes: &[u8]) -> Result<Op, OpError> {
        Op::decode(bytes)
    }

    fn encode_state(state: &State) -> Vec<u8> {
        state.encode()
    }

    fn decode_state(bytes: &[u8]) -> Result<State, DecodeError> {
        State::decode(bytes)
    }
}

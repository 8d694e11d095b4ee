//! The contract of an ordering codec: what an op is, and how it changes a document's state.

use crate::Place;
use crate::cbor::DecodeError;

/// Turns ops into the state of one document.
///
/// The state of a document is the fold of [`Codec::apply`] over its ops in the one total order
/// ([`Place`]), from `State::default()`. [`crate::Reducer`] keeps that result up to date whatever
/// the order of arrival; [`crate::check_purity`] tests that a codec keeps this contract:
///
/// 1. `apply` is a function of its arguments: no clock, no randomness, no I/O, no iteration in the
///    order of a hash map.
/// 2. `apply` is total: an op that makes no sense in a state leaves it as it was.
/// 3. One encoding per op and per state, and `decode` accepts nothing else.
/// 4. If [`Codec::COMMUTES`], the same set of ops gives the same state in *any* order.
///
/// # Examples
///
/// A text log, which does not commute:
///
/// ```
/// use leno_crdt_codec::{Codec, OpError, Place, cbor::DecodeError, naive};
///
/// struct Lines;
///
/// impl Codec for Lines {
///     type Op = String;
///     type State = String;
///     const COMMUTES: bool = false;
///
///     fn apply(state: &mut String, _: &Place, op: &String) {
///         state.push_str(op);
///         state.push('\n');
///     }
///     fn encode_op(op: &String) -> Vec<u8> {
///         op.clone().into_bytes()
///     }
///     fn decode_op(bytes: &[u8]) -> Result<String, OpError> {
///         let text = String::from_utf8(bytes.to_vec());
///         text.map_err(|_| OpError::Malformed(DecodeError::NotUtf8 { offset: 0 }))
///     }
///     fn encode_state(state: &String) -> Vec<u8> {
///         state.clone().into_bytes()
///     }
///     fn decode_state(bytes: &[u8]) -> Result<String, DecodeError> {
///         String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::NotUtf8 { offset: 0 })
///     }
/// }
///
/// assert_eq!(naive::<Lines>([]), "");
/// ```
pub trait Codec {
    /// One change to a document.
    type Op;

    /// What the ops of a document add up to.
    type State: Clone + Default;

    /// Whether ops may be applied in any order with the same result, so that a late op never makes
    /// anything be folded again.
    const COMMUTES: bool;

    /// Changes `state` by one op, which no earlier call had for this state.
    fn apply(state: &mut Self::State, place: &Place, op: &Self::Op);

    /// Changes `state` by an op that is no longer needed.
    ///
    /// Same result as [`Codec::apply`]; a codec overrides it to move values instead of copying.
    fn apply_owned(state: &mut Self::State, place: &Place, op: Self::Op) {
        Self::apply(state, place, &op);
    }

    /// Changes `state` by an op in its encoded form.
    ///
    /// Same result as [`Codec::decode_op`] and then [`Codec::apply`]; a codec overrides it to save
    /// the detour.
    ///
    /// # Errors
    ///
    /// As [`Codec::decode_op`]. The state is as it was.
    fn apply_encoded(state: &mut Self::State, place: &Place, bytes: &[u8]) -> Result<(), OpError> {
        Self::apply_owned(state, place, Self::decode_op(bytes)?);
        Ok(())
    }

    /// Encodes an op.
    fn encode_op(op: &Self::Op) -> Vec<u8>;

    /// Decodes an op, strictly.
    ///
    /// # Errors
    ///
    /// [`OpError`].
    fn decode_op(bytes: &[u8]) -> Result<Self::Op, OpError>;

    /// Encodes a state: equal states give equal bytes.
    fn encode_state(state: &Self::State) -> Vec<u8>;

    /// Decodes a state, strictly.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong and where.
    fn decode_state(bytes: &[u8]) -> Result<Self::State, DecodeError>;
}

/// Why bytes are not an op that this version can apply.
#[derive(Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The bytes break the format; no later version will read them either.
    #[error("malformed op")]
    Malformed(#[from] DecodeError),
    /// A later version wrote this. Its document stops here until this program is updated.
    #[error("op of the unknown kind {kind}")]
    Unknown {
        /// The kind of op, or of change within it.
        kind: u64,
    },
}

//! The incremental reducer agrees with the plain fold, also for a codec that does not commute.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::json::JsonCodec;
use leno_crdt_codec::{
    CHECKPOINT_OPS, Codec, ImpureError, Inserted, OpError, Place, Reducer, check_purity, naive,
};
use proptest::prelude::*;

use crate::world::{LOGS, World, place, steps};

/// `state = state * 31 + op`: every order gives another number.
struct Horner;

impl Codec for Horner {
    type Op = u64;
    type State = u64;
    const COMMUTES: bool = false;

    fn apply(state: &mut u64, _: &Place, op: &u64) {
        *state = state.wrapping_mul(31).wrapping_add(*op);
    }
    fn encode_op(op: &u64) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.uint(*op);
        encoder.into_vec()
    }
    fn decode_op(bytes: &[u8]) -> Result<u64, OpError> {
        Ok(Self::decode_state(bytes)?)
    }
    fn encode_state(state: &u64) -> Vec<u8> {
        Self::encode_op(state)
    }
    fn decode_state(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let state = decoder.uint()?;
        decoder.finish()?;
        Ok(state)
    }
}

/// The same, claiming that it commutes.
struct Liar;

impl Codec for Liar {
    type Op = u64;
    type State = u64;
    const COMMUTES: bool = true;

    fn apply(state: &mut u64, place: &Place, op: &u64) {
        Horner::apply(state, place, op);
    }
    fn encode_op(op: &u64) -> Vec<u8> {
        Horner::encode_op(op)
    }
    fn decode_op(bytes: &[u8]) -> Result<u64, OpError> {
        Horner::decode_op(bytes)
    }
    fn encode_state(state: &u64) -> Vec<u8> {
        Horner::encode_state(state)
    }
    fn decode_state(bytes: &[u8]) -> Result<u64, DecodeError> {
        Horner::decode_state(bytes)
    }
}

fn numbered(count: u64) -> Vec<(Place, u64)> {
    let log = |at: u64| LOGS[at as usize % 3];
    (0..count)
        .map(|at| (place(at / 2, log(at), at), at * at))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn incremental_equals_naive_without_commuting(
        count in 1..600_u64,
        order in proptest::collection::vec(any::<u16>(), 0..300),
        look in 1..40_usize,
    ) {
        let ops = numbered(count);
        let mut delivery: Vec<_> = order.iter().map(|it| ops[usize::from(*it) % ops.len()]).collect();
        delivery.extend(&ops);
        let mut reducer = Reducer::<Horner>::new();
        for (at, (place, op)) in delivery.iter().enumerate() {
            reducer.insert(*place, *op);
            if at % look == 0 {
                let so_far = naive::<Horner>(delivery[..=at].iter().copied());
                prop_assert_eq!(*reducer.state(), so_far);
            }
        }
        prop_assert_eq!(*reducer.state(), naive::<Horner>(ops));
    }

    #[test]
    fn json_codec_is_pure(steps in steps(16)) {
        prop_assert_eq!(check_purity::<JsonCodec>(&World::run(&steps).deliveries(), 8), Ok(()));
    }
}

#[test]
fn purity_check_finds_a_codec_that_lies() {
    assert_eq!(check_purity::<Horner>(&numbered(50), 16), Ok(()));
    let found = check_purity::<Liar>(&numbered(50), 16);
    assert!(
        matches!(found, Err(ImpureError::Differs { permutation: 0, .. })),
        "{found:?}"
    );
}

#[test]
fn checkpoints_grow_with_the_logarithm() {
    let mut reducer = Reducer::<Horner>::new();
    for at in 0..100_000 {
        assert_eq!(
            reducer.insert(place(at, LOGS[0], at), at),
            Inserted::InOrder
        );
        assert!(reducer.checkpoints() <= 32, "{reducer:?}");
    }
    assert!(reducer.checkpoints() > (100_000 / CHECKPOINT_OPS).ilog2() as usize);
}

#[test]
fn late_ops_duplicates_and_settled_ones_are_told_apart() {
    let ops = numbered(300);
    let mut reducer = Reducer::<Horner>::new();
    for (place, op) in ops.iter().filter(|it| it.1 != 49) {
        reducer.insert(*place, *op);
    }
    assert_eq!(reducer.insert(ops[7].0, ops[7].1), Inserted::Late);
    assert_eq!(reducer.insert(ops[7].0, 1_000), Inserted::Duplicate);
    assert_eq!(reducer.insert(ops[299].0, 1_000), Inserted::Duplicate);
    assert_eq!(*reducer.state(), naive::<Horner>(ops.iter().copied()));

    let base = naive::<Horner>(ops[..100].iter().copied());
    let mut resumed = Reducer::<Horner>::starting_from(base, Some(ops[99].0));
    assert_eq!(resumed.insert(ops[99].0, ops[99].1), Inserted::Settled);
    for (place, op) in ops[100..].iter().rev() {
        resumed.insert(*place, *op);
    }
    assert_eq!(resumed.len(), 200);
    assert_eq!(resumed.into_state(), reducer.into_state());
}

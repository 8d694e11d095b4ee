//! Encodings: what is encoded is decoded to the same, what is decoded is encoded to the same bytes,
//! and bytes from outside never do harm.

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use leno_crdt_codec::cbor::{Decoder, decode_ipld, encode_ipld};
use leno_crdt_codec::json::{Definition, Op, State, Strategy, Value};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;

use crate::world::{World, steps};

fn ipld() -> impl Generate<Value = Ipld> {
    let leaf = prop_oneof![
        Just(Ipld::Null),
        any::<bool>().prop_map(Ipld::Bool),
        any::<i64>().prop_map(Ipld::from),
        any::<u64>().prop_map(Ipld::from),
        any::<u8>().prop_map(Ipld::from),
        any::<f64>()
            .prop_filter("finite", |it| it.is_finite())
            .prop_map(|it| Ipld::Float(it + 0.0)),
        ".{0,8}".prop_map(Ipld::String),
        vec(any::<u8>(), 0..40).prop_map(Ipld::Bytes),
        any::<[u8; 32]>().prop_map(|digest| {
            let hash = cid::multihash::Multihash::wrap(0x12, &digest).unwrap();
            Ipld::Link(Cid::new_v1(0x71, hash))
        }),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Ipld::List),
            btree_map("[a-z]{0,3}", inner, 0..6).prop_map(Ipld::Map),
        ]
    })
}

fn strategy() -> impl Generate<Value = Strategy> {
    let leaf = prop_oneof![
        Just(Strategy::Register),
        Just(Strategy::Counter),
        Just(Strategy::GrowSet),
        Just(Strategy::Set),
        Just(Strategy::List),
        Just(Strategy::Max),
        Just(Strategy::Min),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        (
            btree_map("[a-z]{0,3}", inner.clone(), 0..4),
            proptest::option::of(inner),
        )
            .prop_map(|(fields, other)| {
                let other = other.map(Box::new);
                Strategy::Map(Definition { fields, other })
            })
    })
}

/// A few bytes changed, dropped or added.
fn damaged(bytes: &[u8], damage: &[(u16, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value, kind) in damage {
        let at = usize::from(*at) % (bytes.len() + 1);
        match kind % 4 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (value % 8),
            1 => bytes.insert(at, *value),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            _ => bytes.push(*value),
        }
    }
    bytes
}

/// Decodes with every decoder; whatever is accepted is the only encoding of what it says.
fn check_decoders(bytes: &[u8]) {
    if let Ok(value) = decode_ipld(bytes) {
        assert_eq!(encode_ipld(&value), bytes);
    }
    if let Ok(op) = Op::decode(bytes) {
        assert_eq!(op.encode(), bytes);
    }
    if let Ok(state) = State::decode(bytes) {
        assert_eq!(state.encode(), bytes);
    }
    if let Ok(definition) = Definition::decode(bytes) {
        assert_eq!(definition.encode(), bytes);
    }
    let skipped = Decoder::new(bytes).skip().map(<[u8]>::len);
    let mut decoder = Decoder::new(bytes);
    let read = decoder.ipld().map(|_| decoder.offset());
    assert_eq!(skipped, read);
    // The short way into a state and the long one agree on what is an op.
    let place = crate::world::place(1, crate::world::BOB, 1);
    let mut short = State::default();
    let applied = short.apply_encoded(&place, bytes);
    let mut long = State::default();
    let decoded = Op::decode(bytes).map(|op| long.apply(&place, &op));
    assert_eq!(applied, decoded);
    assert_eq!(short, long);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn ipld_agrees_with_the_oracle(value in ipld()) {
        let bytes = encode_ipld(&value);
        prop_assert_eq!(&serde_ipld_dagcbor::to_vec(&value).unwrap(), &bytes);
        prop_assert_eq!(&serde_ipld_dagcbor::from_slice::<Ipld>(&bytes).unwrap(), &value);
        prop_assert_eq!(decode_ipld(&bytes), Ok(value.clone()));
        prop_assert_eq!(Decoder::new(&bytes).skip(), Ok(bytes.as_slice()));
        let checked = Value::new(&value).unwrap();
        prop_assert_eq!(checked.as_bytes(), bytes.as_slice());
        prop_assert_eq!(checked.to_ipld(), value);
    }

    #[test]
    fn damaged_ipld_is_refused_or_canonical(
        value in ipld(),
        damage in vec(any::<(u16, u8, u8)>(), 1..4),
    ) {
        let bytes = damaged(&encode_ipld(&value), &damage);
        check_decoders(&bytes);
        // We accept nothing that the oracle refuses.
        if let Ok(value) = decode_ipld(&bytes) {
            let oracle = serde_ipld_dagcbor::from_slice::<Ipld>(&bytes);
            prop_assert_eq!(oracle.unwrap(), value);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_canonical(bytes in vec(any::<u8>(), 0..64)) {
        check_decoders(&bytes);
    }

    #[test]
    fn definitions_survive(strategy in strategy()) {
        let definition = match strategy {
            Strategy::Map(definition) => definition,
            other => Definition::default().other(other),
        };
        prop_assert_eq!(definition.check(), Ok(()));
        prop_assert_eq!(Definition::decode(&definition.encode()), Ok(definition));
    }

    #[test]
    fn ops_and_states_survive_and_damage_is_refused_or_canonical(
        steps in steps(10),
        damage in vec(vec(any::<(u16, u8, u8)>(), 1..3), 8),
    ) {
        let world = World::run(&steps);
        let mut encoded = Vec::new();
        for op in world.ops.values() {
            encoded.push(op.encode());
            prop_assert_eq!(Op::decode(&op.encode()), Ok(op.clone()));
        }
        for writer in &world.writers {
            encoded.push(writer.state.encode());
            prop_assert_eq!(State::decode(&writer.state.encode()), Ok(writer.state.clone()));
        }
        for bytes in encoded {
            for damage in &damage {
                check_decoders(&damaged(&bytes, damage));
            }
        }
    }
}

/// Every truncation and every single flipped bit of a state and of ops with all there is in them.
#[test]
fn every_bit_flip_and_truncation_is_refused_or_canonical() {
    let mut world = World::new();
    for at in 0..6 {
        let new = ipld_core::ipld!({
            "title": at,
            "plays": at,
            "fans": [at],
            "tags": [at, "x"],
            "verses": [at, "a", "b"],
            "best": at,
            "worst": 0.5,
            "meta": {"key": {"a": [at]}, "inner": {"x": [1]}},
        });
        world.step(&crate::world::Step::Put(at % 3, new));
        world.step(&crate::world::Step::Sync(2, at % 3));
    }
    let mut encoded: Vec<_> = world.ops.values().map(Op::encode).collect();
    encoded.push(world.writers[2].state.encode());
    let mut seen = 0;
    for bytes in encoded {
        for end in 0..bytes.len() {
            check_decoders(&bytes[..end]);
            assert!(Op::decode(&bytes[..end]).is_err() && State::decode(&bytes[..end]).is_err());
        }
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            check_decoders(&bytes);
            seen += 1;
        }
    }
    assert!(seen > 10_000, "{seen}");
}

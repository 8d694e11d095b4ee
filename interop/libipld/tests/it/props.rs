//! Laws over random values. `decode(encode(x)) == x` in each crate is not repeated here: both are
//! compared with the other instead.
//!
//! Left out on purpose: -0.0, which libipld writes with its sign while we write 0.0 and refuse the
//! other on reading ([`negative_zero_is_the_one_difference`] pins that), and floats that are not
//! finite, which dag-cbor does not have.

use cid::Cid;
use ipld_core::ipld::Ipld;
use leno_crdt_codec::cbor::{decode_ipld, encode_ipld, DecodeError};
use leno_interop_libipld::{from_libipld, to_libipld};
use libipld::cbor::DagCborCodec;
use libipld::codec::Codec;
use multihash::Multihash;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Random values per law; `LENO_LONG` asks for more.
fn config() -> ProptestConfig {
    let long = std::env::var_os("LENO_LONG").is_some_and(|it| it == "1");
    ProptestConfig {
        cases: if long { 20_000 } else { 1_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn reference_encode(value: &libipld::Ipld) -> Vec<u8> {
    DagCborCodec
        .encode(value)
        .expect("libipld encodes any value")
}

fn reference_decode(bytes: &[u8]) -> Result<libipld::Ipld, String> {
    // The reference reads one value from the front and does not look at what is left.
    DagCborCodec
        .decode(bytes)
        .map_err(|error| error.to_string())
}

fn cid() -> impl Strategy<Value = Cid> {
    let digest = vec(any::<u8>(), 0..=64);
    let version_1 = (any::<u64>(), any::<u64>(), digest).prop_map(|(codec, code, digest)| {
        // Varints of CIDs have at most 63 bits.
        let hash = Multihash::wrap(code >> 1, &digest).expect("at most 64 bytes");
        Cid::new_v1(codec >> 1, hash)
    });
    let version_0 = any::<[u8; 32]>().prop_map(|digest| {
        let hash = Multihash::wrap(0x12, &digest).expect("at most 64 bytes");
        Cid::new_v0(hash).expect("a sha2-256 digest")
    });
    prop_oneof![3 => version_1, 1 => version_0]
}

/// Integers around the places where their length in CBOR changes, and anywhere in +-2^64.
fn integer() -> impl Strategy<Value = i128> {
    let edge = prop::sample::select(vec![24_i128, 1 << 8, 1 << 16, 1 << 32, 1 << 63, 1 << 64]);
    prop_oneof![
        -(1_i128 << 64)..(1_i128 << 64),
        (edge, -2_i128..=2, any::<bool>()).prop_map(|(edge, step, negative)| {
            let value = (edge + step).min((1 << 64) - 1);
            if negative {
                -1 - value
            } else {
                value
            }
        }),
    ]
}

fn float() -> impl Strategy<Value = f64> {
    any::<u64>()
        .prop_map(f64::from_bits)
        .prop_filter("dag-cbor has it, and one way to write it", |it| {
            it.is_finite() && it.to_bits() != (-0.0_f64).to_bits()
        })
}

fn value() -> impl Strategy<Value = Ipld> {
    let leaf = prop_oneof![
        Just(Ipld::Null),
        any::<bool>().prop_map(Ipld::Bool),
        integer().prop_map(Ipld::Integer),
        float().prop_map(Ipld::Float),
        any::<String>().prop_map(Ipld::String),
        vec(any::<u8>(), 0..300).prop_map(Ipld::Bytes),
        cid().prop_map(Ipld::Link),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Ipld::List),
            // Short keys collide in length, long ones cross a length of 24.
            btree_map("\\PC{0,4}|[a-c]{20,40}", inner, 0..8).prop_map(Ipld::Map),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn conversions_are_inverse(value in value()) {
        prop_assert_eq!(from_libipld(&to_libipld(&value)), value);
    }

    #[test]
    fn both_write_the_same_bytes(value in value()) {
        prop_assert_eq!(encode_ipld(&value), reference_encode(&to_libipld(&value)));
    }

    #[test]
    fn reference_reads_our_bytes(value in value()) {
        let read = reference_decode(&encode_ipld(&value)).map(|it| from_libipld(&it));
        prop_assert_eq!(read, Ok(value));
    }

    #[test]
    fn we_read_the_bytes_of_the_reference(value in value()) {
        let read = decode_ipld(&reference_encode(&to_libipld(&value)));
        prop_assert_eq!(read, Ok(value));
    }

    /// We are the stricter one: what we take from damaged bytes, the reference takes as the same
    /// value, and writes as the same bytes.
    #[test]
    fn whatever_we_accept_the_reference_accepts(
        value in value(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode_ipld(&value);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(value) = decode_ipld(&bytes) {
            let reference = reference_decode(&bytes);
            prop_assert_eq!(reference.as_ref().map(from_libipld), Ok(value));
            prop_assert_eq!(reference.map(|it| reference_encode(&it)), Ok(bytes));
        }
    }
}

#[test]
fn negative_zero_is_the_one_difference() {
    let signed = reference_encode(&libipld::Ipld::Float(-0.0));
    let plain = reference_encode(&libipld::Ipld::Float(0.0));
    assert_eq!(signed, [0xfb, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode_ipld(&Ipld::Float(-0.0)), plain);
    assert_eq!(
        decode_ipld(&signed),
        Err(DecodeError::BadFloat { offset: 0 })
    );
}

/// Why the comparison of damaged bytes runs one way only.
#[test]
fn reference_takes_more_than_one_encoding() {
    for (bytes, refusal) in [
        // {"b": 1, "a": 2}
        (
            &b"\xa2\x61b\x01\x61a\x02"[..],
            DecodeError::KeyOrder { offset: 4 },
        ),
        (b"\x01\x02", DecodeError::Trailing { offset: 1, had: 1 }),
    ] {
        assert!(reference_decode(bytes).is_ok());
        assert_eq!(decode_ipld(bytes), Err(refusal));
    }
}

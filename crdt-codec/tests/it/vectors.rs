//! Vectors: bytes and meaning both ways, and bytes that must be refused.

use cid::Cid;
use ipld_core::ipld::Ipld;
use leno_crdt_codec::cbor::{decode_ipld, encode_ipld};
use leno_crdt_codec::json::{Definition, Op, State};
use serde_json::Value;
use sha2::{Digest, Sha256};

const IPLD: &str = include_str!("../vectors/ipld-dag-cbor.json");
const IPLD_GARBAGE: &str = include_str!("../vectors/ipld-dag-cbor-garbage.json");
const NEGATIVE: &str = include_str!("../vectors/ipld-negative.json");
const DASL: &str = include_str!("../vectors/dasl-cbor.json");
const FORMAT: &str = include_str!("../vectors/format-v1.json");

/// Cases of profiles other than dag-cbor that we decide otherwise, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("float reduction", "dag-cbor has 64-bit floats only"),
    ("short NaN", "dag-cbor has finite floats only"),
    ("zero float16", "dag-cbor has 64-bit floats only"),
    ("smallest unsigned bigint", "dag-cbor has no tag but 42"),
    (
        "map with equal int and float keys",
        "dag-cbor has text keys only",
    ),
    (
        "disallowed hash type (SHA-1)",
        "any hash may stand in a link; DASL alone narrows it",
    ),
    (
        "long hash digest",
        "whether a digest has its hash's length is for whoever follows the link",
    ),
    (
        "empty CID",
        "any digest length may stand in a link; DASL alone narrows it",
    ),
];

fn cases(list: &str) -> Vec<Value> {
    serde_json::from_str(list).unwrap()
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn ipld_fixtures_are_decoded_and_encoded_to_the_same_bytes() {
    let (cases, garbage) = (cases(IPLD), cases(IPLD_GARBAGE));
    assert_eq!((cases.len(), garbage.len()), (62, 11));
    for case in cases.into_iter().chain(garbage) {
        let name = text(&case, "name");
        let bytes = bytes(text(&case, "hex"));
        let value = decode_ipld(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(encode_ipld(&value), bytes, "{name}");
        let oracle: Ipld = serde_ipld_dagcbor::from_slice(&bytes).unwrap();
        assert_eq!(value, oracle, "{name}");
        let cid: Cid = text(&case, "cid").parse().unwrap();
        assert_eq!(cid.hash().digest(), &Sha256::digest(&bytes)[..], "{name}");
    }
}

#[test]
fn ipld_negative_fixtures_are_refused() {
    for case in cases(NEGATIVE) {
        assert!(decode_ipld(&bytes(text(&case, "hex"))).is_err(), "{case}");
    }
}

#[test]
fn dasl_cases_are_taken_and_refused() {
    let mut differences = 0;
    for case in cases(DASL) {
        let name = text(&case, "name");
        let bytes = bytes(text(&case, "data"));
        let tags: Vec<_> = case["tags"].as_array().unwrap().iter().collect();
        let binds = tags.iter().any(|tag| *tag == "basic" || *tag == "dag-cbor");
        let found = decode_ipld(&bytes).ok().map(|value| encode_ipld(&value));
        // What may not be written may not be read either.
        let expected = (text(&case, "type") == "roundtrip").then_some(bytes);
        if found == expected {
            continue;
        }
        assert!(!binds, "{name}: {found:?}");
        assert!(
            DIFFERENCES.iter().any(|(it, _)| *it == name),
            "{name}: {found:?}"
        );
        differences += 1;
    }
    assert_eq!(differences, DIFFERENCES.len());
}

/// Every op, state and definition of `format-v1.json` is read and written back, and what is marked
/// as refused is refused.
#[test]
fn format_vectors_are_read_and_written() {
    let file: Value = serde_json::from_str(FORMAT).unwrap();
    let list = |key: &str| file[key].as_array().unwrap().clone();
    for case in list("ops") {
        let bytes = bytes(text(&case, "hex"));
        let op = Op::decode(&bytes).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!(op.encode(), bytes, "{case}");
        assert_eq!(op.document().to_string(), text(&case, "document"));
        assert_eq!(op.life(), case["life"].as_u64().unwrap());
        assert_eq!(op.edits().len() as u64, case["edits"].as_u64().unwrap());
    }
    for case in list("states") {
        let bytes = bytes(text(&case, "hex"));
        let state = State::decode(&bytes).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!(state.encode(), bytes, "{case}");
    }
    for case in list("definitions") {
        let bytes = bytes(text(&case, "hex"));
        assert_eq!(
            Definition::decode(&bytes).unwrap().encode(),
            bytes,
            "{case}"
        );
    }
    for case in list("refused_ops") {
        let error = Op::decode(&bytes(text(&case, "hex"))).unwrap_err();
        assert_eq!(format!("{error:?}"), text(&case, "error"), "{case}");
    }
    for case in list("refused_states") {
        let error = State::decode(&bytes(text(&case, "hex"))).unwrap_err();
        assert_eq!(format!("{error:?}"), text(&case, "error"), "{case}");
    }
}

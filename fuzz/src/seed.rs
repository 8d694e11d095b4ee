//! Where a fuzzer starts: the vectors of the crates.

use leno_crdt_codec::cbor::Encoder;
use serde_json::Value;

/// A ticket and a card, as version 1 writes them.
const TEXTS: [(&str, &str); 2] = [
    ("ticket", include_str!("ticket.txt")),
    ("card", include_str!("card.txt")),
];

/// Files with cases of one target each: the target, and the field with the bytes.
const LISTS: [(&str, &str, &str); 2] = [
    (
        "cbor",
        "hex",
        include_str!("../../crdt-codec/tests/vectors/ipld-dag-cbor.json"),
    ),
    (
        "certificate",
        "certificate",
        include_str!("../../identity/tests/vectors/certificate.json"),
    ),
];

const DOCUMENTS: &str = include_str!("../../crdt-codec/tests/vectors/format-v1.json");

const THREADS: [&str; 2] = [
    include_str!("../../threads-core/tests/vectors/accepted.json"),
    include_str!("../../threads-core/tests/vectors/refused.json"),
];

const DIDS: [&str; 3] = [
    include_str!("../../identity/tests/vectors/did-key/ed25519-x25519.json"),
    include_str!("../../identity/tests/vectors/did-key/nist-curves.json"),
    include_str!("../../identity/tests/vectors/did-key/secp256k1.json"),
];

const WS: &str = include_str!("../../adapters/transport-ws/tests/vectors/handshake.json");

const ADDRESSES: [&str; 3] = [
    "/ip4/127.0.0.1/tcp/4001",
    "/ip6/::1/udp/4001/quic-v1",
    "memory:1",
];

/// Bytes to start from, each with the name of its target. Some are good, some must be refused.
///
/// # Panics
///
/// If a file of vectors does not read.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target: &str, bytes: Vec<u8>| seeds.push((target.to_owned(), bytes));
    for (target, text) in TEXTS {
        add(target, text.trim().as_bytes().to_vec());
    }
    for text in ADDRESSES {
        add("address", text.as_bytes().to_vec());
    }
    for (target, field, file) in LISTS {
        for case in cases(&parse(file)) {
            add(target, unhex(case, field));
        }
    }
    let handshake = parse(WS);
    for case in cases(handshake.get("frames").expect("the vector has frames")) {
        add("ws_frame", unhex(case, "frame"));
    }
    let documents = parse(DOCUMENTS);
    for (target, name) in [
        ("op", "ops"),
        ("op", "refused_ops"),
        ("state", "states"),
        ("state", "refused_states"),
        ("definition", "definitions"),
    ] {
        for case in cases(documents.get(name).expect("the vectors have this list")) {
            add(target, unhex(case, "hex"));
        }
    }
    for file in THREADS {
        for case in cases(&parse(file)) {
            match case.get("kind").and_then(Value::as_str) {
                // A wrap rides in a message.
                Some("wrap") => add("message", unhex(case, "hex")),
                // A head never stands alone.
                Some("head") => {}
                Some("run") => {
                    add("row", row(case));
                    add("run", unhex(case, "hex"));
                }
                Some(kind) => add(kind, unhex(case, "hex")),
                None => panic!("a case of the vectors has no kind"),
            }
        }
    }
    let messages: Vec<_> = THREADS
        .iter()
        .flat_map(|file| of_kind(file, "message"))
        .collect();
    for script in crate::session::scripts(&messages) {
        add("session", script);
    }
    for file in DIDS {
        let documents = parse(file);
        let documents = documents.as_object().expect("the vectors go by did");
        for did in documents.keys().filter(|key| key.starts_with("did:key:")) {
            add("did", did.as_bytes().to_vec());
            if let Ok(did) = did.parse::<leno_identity::Did>() {
                add("key", did.public_key().to_bytes());
            }
        }
    }
    seeds
}

/// The bytes of all cases of a kind.
fn of_kind(file: &str, kind: &str) -> Vec<Vec<u8>> {
    let parsed = parse(file);
    let is_it = |case: &&Value| case.get("kind").and_then(Value::as_str) == Some(kind);
    let found = cases(&parsed).filter(is_it);
    found.map(|case| unhex(case, "hex")).collect()
}

/// A run as stores keep it: `[tip before, items, signature]`.
fn row(case: &Value) -> Vec<u8> {
    let stamp = case.get("opened_at").and_then(Value::as_u64);
    let mut encoder = Encoder::new();
    encoder.array(3).array(3).uint(0);
    encoder.bytes(&unhex(case, "opened_by"));
    encoder.uint(stamp.unwrap_or_default());
    encoder.bytes(&unhex(case, "hex"));
    encoder.bytes(&unhex(case, "signature"));
    encoder.into_vec()
}

fn parse(file: &str) -> Value {
    serde_json::from_str(file).expect("the vectors are JSON")
}

fn cases(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.get("cases").unwrap_or(value).as_array();
    list.expect("the vectors have a list of cases").iter()
}

fn unhex(case: &Value, field: &str) -> Vec<u8> {
    let text = case.get(field).and_then(Value::as_str).unwrap_or_default();
    let digits = text.as_bytes().chunks_exact(2);
    let byte = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    digits
        .map(|digits| byte(digits).expect("the vectors hold hex"))
        .collect()
}

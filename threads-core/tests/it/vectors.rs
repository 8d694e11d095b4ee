//! Vectors of our own format, both ways: bytes with their meaning, and bytes that must be refused.
//!
//! `LENO_WRITE_VECTORS=1` writes the files; they are then never edited.

mod accepted;
mod refused;
mod values;

use accepted::accepted;
use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_identity::AgreementKey;
use leno_threads_core::fork::ForkProof;
use leno_threads_core::sync::Message;
use leno_threads_core::sync::bundle::Part;
use leno_threads_core::{
    EpochKey, FrameOp, Genesis, Header, LogId, Padding, RecordId, Run, SignedHead, Stamp, ThreadId,
    Tip, decode_frame, decode_roster, encode_frame, encode_roster,
};
use refused::refused;
use serde_json::{Value, json};

use crate::util::{hex, unhex};

const CBOR: &str = "dag-cbor";
const PLAINTEXT: &str = "leno-plaintext";

const THREAD: ThreadId = ThreadId([1; 32]);

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Reads a case as this version does: its bytes again, or the error.
fn read(case: &Value) -> Result<Vec<u8>, String> {
    let bytes = unhex(case["hex"].as_str().unwrap());
    let fixed =
        |field: &str| -> [u8; 32] { unhex(case[field].as_str().unwrap()).try_into().unwrap() };
    match case["kind"].as_str().unwrap() {
        "genesis" => Genesis::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "header" => Header::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "frame" => {
            let ops = decode_frame(&bytes).map_err(|it| chain(&it))?;
            if let ([FrameOp::Epoch(op)], true) = (&ops[..], case["linked_secret"].is_string()) {
                let secret = EpochKey::from_bytes(fixed("secret"));
                let link = op.parents[0].link.unwrap();
                let linked = link.open(&secret, op.parents[0].epoch, THREAD, op.domain);
                assert_eq!(linked.unwrap().expose(), &fixed("linked_secret"));
            }
            Ok(encode_frame(&ops, padding(case)))
        }
        "roster" => decode_roster(&bytes)
            .map(|ops| encode_roster(&ops, padding(case)))
            .map_err(|it| chain(&it)),
        "run" => {
            let signature: [u8; 64] = unhex(case["signature"].as_str().unwrap())
                .try_into()
                .unwrap();
            let tip = Tip::opened_by(
                RecordId(fixed("opened_by")),
                Stamp(case["opened_at"].as_u64().unwrap()),
            );
            let run = Run::from_parts(&bytes, &signature).map_err(|it| chain(&it))?;
            let verified = run
                .verify(ThreadId(fixed("thread")), LogId(fixed("log")), &tip)
                .map_err(|it| chain(&it))?;
            if let Some(ids) = case["ids"].as_array() {
                let found: Vec<_> = verified.records().iter().map(|it| hex(it.id.0)).collect();
                assert_eq!(json!(found), json!(ids));
            }
            Ok(verified.as_run().items().to_vec())
        }
        "message" => Message::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "wrap" => {
            let message = Message::decode(&bytes).map_err(|it| chain(&it))?;
            let Message::Wraps { wraps, .. } = &message else {
                return Err("no wraps".to_owned());
            };
            let kem = AgreementKey::from_secret_bytes(&fixed("kem_secret")).unwrap();
            for wrap in wraps {
                let key = wrap.open(THREAD, &kem).map_err(|it| chain(&it))?;
                assert_eq!(hex(key.expose()), case["key"].as_str().unwrap());
            }
            Ok(message.encode())
        }
        "part" => Part::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "proof" => ForkProof::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "head" => {
            let mut decoder = Decoder::new(&bytes);
            decoder.array_of(5).unwrap();
            let head = SignedHead {
                thread: ThreadId(*decoder.fixed().unwrap()),
                log: LogId(*decoder.fixed().unwrap()),
                seq: decoder.uint().unwrap(),
                id: RecordId(*decoder.fixed().unwrap()),
                signature: *decoder.fixed().unwrap(),
            };
            let verified = head.verify().map_err(|it| chain(&it))?;
            Ok(encode_head(verified.head()))
        }
        other => panic!("{other}"),
    }
}

fn padding(case: &Value) -> Padding {
    match case["padding"].as_bool() {
        Some(true) => Padding::Padme,
        _ => Padding::Off,
    }
}

/// A head as the vectors write it; it never stands alone in the format.
fn encode_head(head: &SignedHead) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .array(5)
        .bytes(&head.thread.0)
        .bytes(&head.log.0)
        .uint(head.seq)
        .bytes(&head.id.0)
        .bytes(&head.signature);
    encoder.into_vec()
}

struct Cases(Vec<Value>);

impl Cases {
    fn add(&mut self, name: &str, codec: &str, kind: &str, bytes: &[u8], fields: Value) {
        let mut case = json!({"name": name, "codec": codec, "kind": kind, "hex": hex(bytes)});
        for (key, value) in fields.as_object().unwrap() {
            case[key] = value.clone();
        }
        self.0.push(case);
    }

    /// A case that is refused: the error is what this version says.
    fn refuse(&mut self, name: &str, kind: &str, bytes: &[u8], fields: Value) {
        self.add(name, CBOR, kind, bytes, fields);
        let case = self.0.last_mut().unwrap();
        let error = read(case).expect_err(name);
        case["error"] = json!(error);
    }
}

fn check(file: &str, committed: &str, cases: &[Value]) {
    let text = json!({"cases": cases});
    let text = serde_json::to_string_pretty(&text).unwrap() + "\n";
    if std::env::var_os("LENO_WRITE_VECTORS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/");
        std::fs::write(format!("{path}{file}"), &text).unwrap();
        return;
    }
    assert!(
        text == committed,
        "{file} differs from what this version makes"
    );
}

#[test]
fn accepted_bytes_keep_their_meaning() {
    let cases = accepted();
    assert!(cases.len() >= 40, "{}", cases.len());
    check(
        "accepted.json",
        include_str!("../vectors/accepted.json"),
        &cases,
    );
    for case in &cases {
        let bytes = unhex(case["hex"].as_str().unwrap());
        assert_eq!(read(case).as_ref(), Ok(&bytes), "{}", case["name"]);
        if case["codec"] == CBOR {
            let mut decoder = Decoder::new(&bytes);
            decoder.ipld().unwrap();
            decoder.finish().unwrap();
        }
    }
}

#[test]
fn refused_bytes_stay_refused() {
    let cases = refused();
    assert!(cases.len() >= 40, "{}", cases.len());
    check(
        "refused.json",
        include_str!("../vectors/refused.json"),
        &cases,
    );
    for case in &cases {
        let error = read(case).unwrap_err();
        assert_eq!(json!(error), case["error"], "{}", case["name"]);
    }
}

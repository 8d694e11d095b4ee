//! Bytes with their meaning.

use super::values::{
    branches, frames, genesis, headers, linked_epoch, messages, opened, part, rosters, run, wrap,
};
use super::{CBOR, Cases, PLAINTEXT, THREAD, encode_head, hex, unhex};
use leno_identity::AgreementKey;
use leno_threads_core::fork::ForkProof;
use leno_threads_core::sync::Message;
use leno_threads_core::{LogId, Padding, Run, Suite, encode_frame, encode_roster};
use serde_json::{Value, json};

pub(super) fn accepted() -> Vec<Value> {
    let mut cases = Cases(Vec::new());
    for (suite, byte) in [(Suite::Aes256Gcm, 1), (Suite::ChaCha20Poly1305, 2)] {
        let it = genesis(suite, byte);
        let fields = json!({
            "version": 1, "suite": suite.number(), "policy": 0,
            "owner": hex(it.owner.0), "owner_kem": hex(it.owner_kem), "nonce": hex(it.nonce),
            "thread": it.thread().to_string(),
        });
        let name = format!("genesis of suite {}", suite.number());
        cases.add(&name, CBOR, "genesis", &it.encode(), fields);
    }
    for (name, it) in headers() {
        let fields = json!({
            "id": it.id().to_string(), "seq": it.context.seq, "stamp": it.context.stamp.0,
            "deps": it.context.deps.len(), "control": it.context.control.len(),
        });
        cases.add(name, CBOR, "header", &it.encode(), fields);
    }
    for (name, ops) in frames() {
        for (pad, padding) in [(false, Padding::Off), (true, Padding::Padme)] {
            let fields = json!({"ops": ops.len(), "padding": pad});
            cases.add(
                name,
                PLAINTEXT,
                "frame",
                &encode_frame(&ops, padding),
                fields,
            );
        }
    }
    let fields = json!({
        "ops": 1, "padding": false, "thread": hex(THREAD.0),
        "secret": hex([8; 32]), "linked_secret": hex([7; 32]),
    });
    let name = "epoch: linked to the one before";
    let linked = encode_frame(&[linked_epoch()], Padding::Off);
    cases.add(name, PLAINTEXT, "frame", &linked, fields);
    for (name, ops) in rosters() {
        let fields = json!({"ops": ops.len(), "padding": true});
        cases.add(
            name,
            PLAINTEXT,
            "roster",
            &encode_roster(&ops, Padding::Padme),
            fields,
        );
    }
    for which in 0..4 {
        let (name, items, mut fields) = run(which);
        let log: [u8; 32] = unhex(fields["log"].as_str().unwrap()).try_into().unwrap();
        let signature: [u8; 64] = unhex(fields["signature"].as_str().unwrap())
            .try_into()
            .unwrap();
        let verified = Run::from_parts(&items, &signature).unwrap();
        let verified = verified.verify(THREAD, LogId(log), &opened()).unwrap();
        let ids: Vec<_> = verified.records().iter().map(|it| hex(it.id.0)).collect();
        fields["ids"] = json!(ids);
        cases.add(name, CBOR, "run", &items, fields);
    }
    for (name, bytes) in messages() {
        cases.add(name, CBOR, "message", &bytes, json!({}));
    }
    let kem = AgreementKey::from_secret_bytes(&[9; 32]).unwrap();
    let wraps = Message::Wraps {
        thread: 0,
        wraps: vec![wrap(&kem)],
    }
    .encode();
    let fields = json!({"kem_secret": hex([9; 32]), "key": hex([8; 32]), "thread": hex(THREAD.0)});
    cases.add("wrap", CBOR, "wrap", &wraps, fields);
    let (a, b) = branches();
    let head = a.head;
    let fields = json!({"seq": head.seq});
    cases.add("signed head", CBOR, "head", &encode_head(&head), fields);
    let proof = ForkProof::new(a, b).unwrap();
    let fields = json!({"log": hex(proof.log().0), "seq": proof.seq()});
    cases.add("fork proof", CBOR, "proof", &proof.encode(), fields);
    for (name, encapsulated) in [
        ("part of a bundle", None),
        ("part of a bundle for one seat", Some([5; 32])),
    ] {
        let part = part(encapsulated);
        let fields = json!({"number": part.number, "last": part.is_last});
        cases.add(name, CBOR, "part", &part.encode(), fields);
    }
    cases.0
}

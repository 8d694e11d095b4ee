//! Bytes on the wire, padding off.

use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::sync::Message;
use leno_threads_core::{Padding, Role, ThreadId};

use crate::util::{Peer, sync, talk, talk_through};

/// An op of the workload: 136 bytes, of which 3 are the head of a text.
const OP_BYTES: usize = 136;

fn peers() -> (Peer, Peer, ThreadId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice
        .replica
        .thread_mut(&id)
        .unwrap()
        .set_padding(Padding::Off);
    alice.seat(&mut bob, id, Role::Reader);
    alice.write(id, "opens the log");
    sync(&mut alice, &mut bob);
    (alice, bob, id)
}

fn content(bytes: usize) -> String {
    let text = "x".repeat(bytes);
    let mut encoder = Encoder::new();
    encoder.text(&text);
    let head = encoder.len() - bytes;
    text[head..].to_owned()
}

/// The bytes of the messages with records that go from Alice to Bob.
fn ranges(alice: &mut Peer, bob: &mut Peer) -> (usize, usize) {
    let (mut bytes, mut messages) = (0, 0);
    talk_through(alice, bob, |message| {
        if let Ok(Message::Range { .. }) = Message::decode(&message) {
            bytes += message.len();
            messages += 1;
        }
        Some(message)
    });
    (bytes, messages)
}

#[test]
fn one_op_record_in_a_range() {
    let (mut alice, mut bob, id) = peers();
    let text = content(OP_BYTES);
    alice.write_many(id, vec![text.as_str(); 1_024]);
    let (bytes, _) = ranges(&mut alice, &mut bob);
    println!(
        "a one-op record in a range of 1,024: {:.1} bytes",
        bytes as f64 / 1_024.0
    );
    assert!(bytes <= 180 * 1_024, "{bytes}");
    assert_eq!(bob.reads(id).len(), 1_025);
}

#[test]
fn op_in_a_record_of_a_hundred() {
    let (mut alice, mut bob, id) = peers();
    let text = content(OP_BYTES * 100);
    alice.write_many(id, vec![text.as_str(); 10]);
    let (bytes, _) = ranges(&mut alice, &mut bob);
    println!(
        "an op in a record of 100: {:.1} bytes",
        bytes as f64 / 1_000.0
    );
    assert!(bytes <= 142 * 1_000, "{bytes}");
}

#[test]
fn lone_live_record() {
    let (mut alice, mut bob, id) = peers();
    talk(&mut alice, &mut bob);
    let text = content(OP_BYTES);
    alice.write(id, &text);
    let (bytes, messages) = ranges(&mut alice, &mut bob);
    println!("a lone live record with its signed head: {bytes} bytes");
    assert_eq!(messages, 1);
    assert!(bytes <= 280, "{bytes}");
    assert_eq!(bob.reads(id).len(), 2);
}

/// Two peers that have the same end within one small exchange.
#[test]
fn nothing_new() {
    let (mut alice, mut bob, id) = peers();
    let bytes = sync(&mut alice, &mut bob);
    println!("a session of equals: {bytes} bytes");
    assert!(bytes < 1_000, "{bytes}");
    assert_eq!(alice.reads(id), bob.reads(id));
}

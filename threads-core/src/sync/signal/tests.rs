use multibase::Base;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

use super::*;
use crate::sync::message::Message;

const VECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signal.json");

fn hex(bytes: impl AsRef<[u8]>) -> String {
    Base::Base16Lower.encode(bytes)
}

/// What a seat says in a thread, as it travels, and the key that reads it.
fn write_vector() -> Value {
    let (thread, epoch, key) = (ThreadId([1; 32]), EpochId([2; 32]), [3; 32]);
    let seat = SigningKey::from_secret_bytes(&[4; 32]).unwrap();
    let content = Content {
        name: "cursor".to_owned(),
        value: Some(b"verse 2".to_vec()),
    };
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let secret = NonceSecret::new(&[5; 32]);
    let epoch_key = EpochKey::from_bytes(key);
    let at = Stamp::from_millis(1_700_000_000_000);
    let by = (epoch, &epoch_key);
    let signal = Signal::make(thread, by, &seat, at, &content, &secret, &mut rng);
    let message = Message::Signal { thread: 0, signal };
    json!({
        "thread": hex(thread.0), "epoch_key": hex(key), "hex": hex(message.encode()),
        "seat": hex(seat.verifying_key().to_bytes()), "name": "cursor", "value": hex(b"verse 2"),
    })
}

#[test]
fn vector_opens_as_it_says() {
    if std::env::var_os("LENO_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&write_vector()).unwrap();
        std::fs::write(VECTOR, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(VECTOR).unwrap();
    let vector: Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| {
        let text = vector.get(name).and_then(Value::as_str);
        Base::Base16Lower.decode(text.unwrap()).unwrap()
    };
    let key = |name: &str| -> [u8; 32] { field(name).try_into().unwrap() };
    let (bytes, thread) = (field("hex"), ThreadId(key("thread")));
    let Ok(Message::Signal { signal, .. }) = Message::decode(&bytes) else {
        panic!("it is no signal");
    };
    assert_eq!(signal.seat, SeatId(key("seat")));
    assert!(signal.verify(thread) && !signal.verify(ThreadId([0; 32])));
    let content = signal.open(thread, &EpochKey::from_bytes(key("epoch_key")));
    let content = content.unwrap();
    assert_eq!(vector.get("name"), Some(&json!(content.name)));
    assert_eq!(content.value, Some(field("value")));
    assert_eq!(signal.open(thread, &EpochKey::from_bytes([0; 32])), None);
    // What is made today is the same.
    assert_eq!(write_vector(), vector);
}

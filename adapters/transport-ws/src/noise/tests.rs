//! The handshake against its vector, and against what a hostile side may send.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::wire::Frame;

const FILE: &str = "tests/vectors/handshake.json";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

/// Keys from fixed secrets.
fn keys(device: u8, private: u8) -> Keys {
    let device = SigningKey::from_secret_bytes(&[device; 32]).unwrap();
    let private = leno_identity::AgreementKey::from_secret_bytes(&[private; 32]).unwrap();
    let secret = Zeroizing::new(private.to_secret_bytes().to_vec());
    Keys::new(&device, secret, private.public_key().as_bytes())
}

fn id(device: u8) -> PeerId {
    let device = SigningKey::from_secret_bytes(&[device; 32]).unwrap();
    PeerId(device.verifying_key().to_bytes())
}

fn handshake<'a>(keys: &'a Keys, is_dialler: bool, ephemeral: u8) -> Handshake<'a> {
    Handshake::with_ephemeral(keys, is_dialler, Some(&[ephemeral; 32])).unwrap()
}

/// Three messages between two honest sides.
fn shake(dialler: &mut Handshake<'_>, listener: &mut Handshake<'_>) -> Vec<Vec<u8>> {
    let first = dialler.write().unwrap();
    assert_eq!(listener.read(&first), Ok(None));
    let second = listener.write().unwrap();
    assert_eq!(dialler.read(&second), Ok(Some(id(2))));
    let third = dialler.write().unwrap();
    assert_eq!(listener.read(&third), Ok(Some(id(1))));
    vec![first, second, third]
}

#[test]
fn handshake_is_the_one_of_the_vector() {
    let (alice, bob) = (keys(1, 11), keys(2, 12));
    let mut dialler = handshake(&alice, true, 21);
    let mut listener = handshake(&bob, false, 22);
    let messages = shake(&mut dialler, &mut listener);
    let (mut to_bob, mut from_bob) = dialler.finish().unwrap();
    let (mut to_alice, mut from_alice) = listener.finish().unwrap();
    let greeting = Frame::Greeting(crate::wire::Greeting {
        instance: 7,
        generation: 0,
    });
    let mut frames = Vec::new();
    for frame in [greeting, Frame::Last(b"hello"), Frame::HangUp] {
        let frame = frame.encode();
        let (there, back) = (to_bob.seal(&frame).unwrap(), to_alice.seal(&frame).unwrap());
        assert_eq!(from_alice.open(&there).unwrap(), frame);
        assert_eq!(from_bob.open(&back).unwrap(), frame);
        frames.push(json!({
            "frame": hex(&frame),
            "dialler to listener": hex(&there),
            "listener to dialler": hex(&back),
        }));
    }
    let side = |device: u8, private: u8, ephemeral: u8| {
        json!({
            "device secret": hex(&[device; 32]),
            "X25519 secret": hex(&[private; 32]),
            "one-time X25519 secret": hex(&[ephemeral; 32]),
            "device": id(device).to_string(),
        })
    };
    let vector = json!({
        "protocol": PATTERN,
        "prologue": PROTOCOL,
        "dialler": side(1, 11, 21),
        "listener": side(2, 12, 22),
        "handshake": messages.iter().map(|it| hex(it)).collect::<Vec<_>>(),
        "frames": frames,
    });
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("LENO_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&vector).unwrap();
        std::fs::write(&file, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(vector, expected);
}

#[test]
fn replayed_handshake_is_refused() {
    let (alice, bob) = (keys(1, 11), keys(2, 12));
    let messages = shake(
        &mut handshake(&alice, true, 21),
        &mut handshake(&bob, false, 22),
    );
    // The listener has another one-time key this time.
    let mut listener = handshake(&bob, false, 23);
    assert_eq!(listener.read(&messages[0]), Ok(None));
    let answer = listener.write().unwrap();
    assert_ne!(answer, messages[1]);
    assert!(matches!(
        listener.read(&messages[2]),
        Err(NoiseError::Snow(_))
    ));
    // And so has the dialler.
    let mut dialler = handshake(&alice, true, 24);
    dialler.write().unwrap();
    assert!(matches!(
        dialler.read(&messages[1]),
        Err(NoiseError::Snow(_))
    ));
}

#[test]
fn credentials_of_another_are_refused() {
    // Mallory holds no device's key but his own: he shows alice's, and her signature of her key.
    let (alice, bob) = (keys(1, 11), keys(2, 12));
    let mut mallory = keys(3, 13);
    mallory.credentials = alice.credentials;
    let mut dialler = handshake(&mallory, true, 21);
    let mut listener = handshake(&bob, false, 22);
    listener.read(&dialler.write().unwrap()).unwrap();
    dialler.read(&listener.write().unwrap()).unwrap();
    let third = dialler.write().unwrap();
    assert_eq!(listener.read(&third), Err(NoiseError::NotProven));
}

#[test]
fn garbage_is_refused() {
    let bob = keys(2, 12);
    for len in [0, 1, 31, 32, 33, 48, 256] {
        let refused = handshake(&bob, false, 22).read(&vec![7; len]);
        // A key alone is a whole first message.
        assert_eq!(refused.is_err(), len != 32, "{len}: {refused:?}");
    }
    let refused = handshake(&bob, false, 22).read(&[7; 257]);
    assert_eq!(refused, Err(NoiseError::HandshakeTooLong { len: 257 }));
}

#[test]
fn channel_refuses_what_is_changed_repeated_or_out_of_order() {
    let (alice, bob) = (keys(1, 11), keys(2, 12));
    let mut dialler = handshake(&alice, true, 21);
    let mut listener = handshake(&bob, false, 22);
    shake(&mut dialler, &mut listener);
    let (mut sealer, _) = dialler.finish().unwrap();
    let (_, mut opener) = listener.finish().unwrap();
    let (first, second) = (sealer.seal(b"1").unwrap(), sealer.seal(b"2").unwrap());
    assert!(opener.open(&second).is_err(), "out of order");
    let mut changed = first.clone();
    changed[0] ^= 1;
    assert!(opener.open(&changed).is_err(), "changed");
    assert!(opener.open(&first[..first.len() - 1]).is_err(), "cut");
    assert!(opener.open(&[]).is_err(), "empty");
    assert_eq!(opener.open(&first).unwrap(), b"1");
    assert!(opener.open(&first).is_err(), "repeated");
    assert_eq!(opener.open(&second).unwrap(), b"2");
}

//! What leno decodes, as fuzz targets.
//!
//! A target takes any bytes. What decodes must encode to the same bytes again, because every value
//! has one encoding; nothing may panic. [`TARGETS`] lists them; [`seeds`] are the vectors of the
//! crates, from which a fuzzer starts.
//!
//! ```sh
//! cargo install cargo-fuzz --locked
//! cd fuzz
//! cargo run --no-default-features --bin seed      # writes corpus/<target>/
//! cargo +nightly fuzz run message -- -max_total_time=600
//! cargo test --no-default-features                # the targets over their seeds, changed at random
//! ```
//!
//! Where there is no nightly compiler, a stable one does the same if it is told that it may
//! (`-O -a`: optimised, with assertions and checks of overflow, under the address sanitizer):
//!
//! ```sh
//! RUSTC_BOOTSTRAP=1 cargo fuzz build -O -a
//! RUSTC_BOOTSTRAP=1 cargo fuzz run -O -a session -- -max_total_time=600 -rss_limit_mb=2048 -timeout=25 -max_len=4096
//! ```
//!
//! `-max_len` is 4096 for scripts and short texts, 16384 for what holds records, 65536 for messages. What
//! breaks a target is made small (`cargo fuzz tmin`), mended, and kept as a test of the crate that decodes it.

#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a panic is how a target tells")]

mod seed;
mod session;

use std::str::FromStr;

use leno::{Card, Ticket};
use leno_crdt_codec::cbor::{decode_ipld, encode_ipld};
use leno_crdt_codec::json::{Definition, Op, State};
use leno_crdt_codec::{Dot, LogId, Place, Stamp};
use leno_identity::{DeviceCertificate, Did, PublicKey, Signature};
use leno_threads_core::fork::ForkProof;
use leno_threads_core::sync::Message;
use leno_threads_core::sync::bundle::{Part, parts};
use leno_threads_core::{
    Genesis, Header, Padding, RecordId, Run, ThreadId, Tip, decode_frame, decode_roster,
    decode_row, encode_frame, encode_roster,
};
use leno_transport_trait::Address;
use leno_transport_ws::wire::{Assembler, Frame};

pub use seed::seeds;
pub use session::session;

/// A check of any bytes. It panics where something is wrong.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 21] = [
    ("address", address),
    ("card", card),
    ("cbor", cbor),
    ("certificate", certificate),
    ("definition", definition),
    ("did", did),
    ("frame", frame),
    ("genesis", genesis),
    ("header", header),
    ("key", key),
    ("message", message),
    ("op", op),
    ("part", part),
    ("proof", proof),
    ("roster", roster),
    ("row", row),
    ("run", run),
    ("session", session),
    ("state", state),
    ("ticket", ticket),
    ("ws_frame", ws_frame),
];

/// Fails unless the bytes are one of the encodings.
fn same<const N: usize>(input: &[u8], encodings: [Vec<u8>; N]) {
    if !encodings.iter().any(|it| it == input) {
        panic!("what decodes has another encoding: {encodings:02x?}");
    }
}

/// Checks that a text which reads is written as itself, but for space around it.
fn text<T: FromStr + ToString>(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert!(written == text || written == text.trim(), "{written}");
    }
}

/// A network address.
pub fn address(bytes: &[u8]) {
    text::<Address>(bytes);
}

/// A card.
pub fn card(bytes: &[u8]) {
    text::<Card>(bytes);
}

/// Any value of dag-cbor.
pub fn cbor(bytes: &[u8]) {
    if let Ok(value) = decode_ipld(bytes) {
        same(bytes, [encode_ipld(&value)]);
    }
}

/// A device certificate.
pub fn certificate(bytes: &[u8]) {
    if let Ok(certificate) = DeviceCertificate::decode(bytes) {
        same(bytes, [certificate.to_bytes()]);
        // Whether it holds is another matter; deciding it must not panic either.
        drop(certificate.verify(0));
    }
}

/// A collection's definition.
pub fn definition(bytes: &[u8]) {
    if let Ok(definition) = Definition::decode(bytes) {
        same(bytes, [definition.encode()]);
    }
}

/// A did:key.
pub fn did(bytes: &[u8]) {
    text::<Did>(bytes);
}

/// The ops of a control record.
pub fn frame(bytes: &[u8]) {
    if let Ok(ops) = decode_frame(bytes) {
        same(
            bytes,
            [Padding::Off, Padding::Padme].map(|it| encode_frame(&ops, it)),
        );
    }
}

/// A genesis.
pub fn genesis(bytes: &[u8]) {
    if let Ok(genesis) = Genesis::decode(bytes) {
        same(bytes, [genesis.encode()]);
    }
}

/// A record's header.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        same(bytes, [header.encode()]);
    }
}

/// A public key and a signature.
pub fn key(bytes: &[u8]) {
    if let Ok(key) = PublicKey::decode(bytes) {
        same(bytes, [key.to_bytes()]);
    }
    if let Ok(signature) = Signature::decode(bytes) {
        same(bytes, [signature.to_bytes()]);
    }
}

/// A message of a sync session, and what rides in it.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        same(bytes, [message.encode()]);
    }
}

/// A change of a document, applied to an empty one.
pub fn op(bytes: &[u8]) {
    let Ok(op) = Op::decode(bytes) else {
        return;
    };
    same(bytes, [op.encode()]);
    let place = Place {
        stamp: Stamp::from_millis(1),
        dot: Dot {
            log: LogId([1; 32]),
            seq: 1,
            index: 0,
        },
    };
    let mut once = State::default();
    once.apply(&place, &op);
    let mut encoded = State::default();
    let applied = encoded.apply_encoded(&place, bytes);
    if applied.is_err() || once != encoded {
        panic!("an op means another thing in its encoded form: {applied:?}");
    }
    state(&once.encode());
}

/// Parts of a bundle.
pub fn part(bytes: &[u8]) {
    let whole: usize = parts(bytes).map(<[u8]>::len).sum();
    assert_eq!(whole, bytes.len(), "nothing is left out");
    for bytes in parts(bytes) {
        if let Ok(part) = Part::decode(bytes) {
            same(bytes, [part.encode()]);
        }
    }
}

/// A proof that a log has two branches.
pub fn proof(bytes: &[u8]) {
    if let Ok(proof) = ForkProof::decode(bytes) {
        same(bytes, [proof.encode()]);
    }
}

/// The sealed part of a control record.
pub fn roster(bytes: &[u8]) {
    if let Ok(ops) = decode_roster(bytes) {
        same(
            bytes,
            [Padding::Off, Padding::Padme].map(|it| encode_roster(&ops, it)),
        );
    }
}

/// A run as stores keep it.
pub fn row(bytes: &[u8]) {
    if let Ok((tip, run)) = decode_row(bytes) {
        drop(run.verify(ThreadId([1; 32]), LogId([1; 32]), &tip));
    }
}

/// A run as peers send it, from a signature of zeros on.
pub fn run(bytes: &[u8]) {
    let tip = Tip::opened_by(RecordId([1; 32]), Stamp::from_millis(1));
    if let Ok(run) = Run::from_parts(bytes, &[0; 64]) {
        // Nobody can sign with zeros.
        assert!(run.verify(ThreadId([1; 32]), LogId([1; 32]), &tip).is_err());
    }
}

/// The state of a document.
pub fn state(bytes: &[u8]) {
    if let Ok(state) = State::decode(bytes) {
        same(bytes, [state.encode()]);
    }
}

/// A ticket.
pub fn ticket(bytes: &[u8]) {
    text::<Ticket>(bytes);
}

/// A frame of a web socket's channel; then the bytes as many short frames, put together.
pub fn ws_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        same(bytes, [frame.encode()]);
    }
    let bytes_max = 16;
    let mut assembler = Assembler::new(bytes_max);
    for frame in bytes.chunks(5) {
        let taken = match Frame::decode(frame) {
            Ok(Frame::Part(part)) => assembler.part(part).map(|()| 0),
            Ok(Frame::Last(part)) => assembler.last(part).map(|whole| whole.len()),
            _ => return,
        };
        let Ok(len) = taken else { return };
        assert!(len <= bytes_max && assembler.had() <= bytes_max);
    }
}

//! Signals: small sealed messages that nobody stores, for presence, cursors, "verse now".
//!
//! A signal has a key, and of each seat the newest one per key counts. Whoever may read a thread may
//! send; every peer checks the seat's signature and hands it on, once, also those that cannot open it.
//! It is gone after its time to live, or when the last session over which it came ends. What is lost
//! is not sent again: the next one replaces it anyway.

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit, Mac};
use leno_crdt_codec::Stamp;
use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_identity::{Label, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::seal::{OncePlace, expand};
use crate::{
    EpochId, EpochKey, NonceSecret, OnceKind, Padding, SEALED_ONCE_BYTES, SeatId, Suite, ThreadId,
    padding_is_good,
};

mod held;
mod step;

pub(super) use held::{Held, Signals};
pub use held::{SIGNAL_KEYS_MAX, SIGNALS_MAX, SIGNALS_PER_THREAD_MAX};
pub(super) use step::Hearing;
pub use step::{SignalError, SignalEvent};

/// Longest name of a key, in bytes.
pub const SIGNAL_NAME_BYTES_MAX: usize = 64;

/// Longest value, in bytes.
pub const SIGNAL_VALUE_BYTES_MAX: usize = 1024;

/// How long a signal lasts unless it is replaced, in milliseconds. Send it anew in half that time.
pub const SIGNAL_TTL_MILLIS: u32 = 60_000;

/// Longest time to live that is taken from others, in milliseconds.
pub const SIGNAL_TTL_MILLIS_MAX: u32 = 600_000;

/// Longest sealed signal, in bytes: name and value, their lengths, and padding.
pub const SIGNAL_SEALED_BYTES_MAX: usize = 1_247 + SEALED_ONCE_BYTES;

/// Names a key of a seat to those who cannot read it.
pub type SignalTag = [u8; 16];

/// A signal as it travels. Nobody vouches for it before [`Signal::verify`].
///
/// # Shape
///
/// In a message of kind 14. The seat signs all of it but the signature, and the thread. The sealed
/// part holds `[name, value]`, or `[name]` if the key is withdrawn, and padding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signal {
    /// The epoch under which it is sealed.
    pub epoch: EpochId,
    /// Who sends it.
    pub seat: SeatId,
    /// Stands for its key.
    pub tag: SignalTag,
    /// Orders the signals of a seat; the higher one counts.
    pub at: Stamp,
    /// How long it lasts, in milliseconds.
    pub ttl_millis: u32,
    /// The sealed part.
    pub sealed: Vec<u8>,
    /// The seat's signature.
    pub signature: [u8; 64],
}

/// What a signal says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Content {
    pub(super) name: String,
    /// Nothing if the key is withdrawn.
    pub(super) value: Option<Vec<u8>>,
}

/// Where a signal stands: what is the same for its sender and those who check it.
struct Place {
    thread: ThreadId,
    epoch: EpochId,
    seat: SeatId,
    tag: SignalTag,
    at: Stamp,
    ttl_millis: u32,
}

impl Place {
    fn context(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder
            .array(6)
            .bytes(&self.thread.0)
            .bytes(&self.epoch.0)
            .bytes(&self.seat.0)
            .bytes(&self.tag)
            .uint(self.at.0)
            .uint(self.ttl_millis.into());
        encoder.into_vec()
    }
}

impl Signal {
    /// Seals and signs what a seat says now.
    pub(super) fn make(
        thread: ThreadId,
        (epoch, key): (EpochId, &EpochKey),
        seat: &SigningKey,
        at: Stamp,
        content: &Content,
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let (key, id) = (
            signal_key(key, thread),
            SeatId(seat.verifying_key().to_bytes()),
        );
        let place = Place {
            thread,
            epoch,
            seat: id,
            tag: tag(&key, id, &content.name),
            at,
            ttl_millis: SIGNAL_TTL_MILLIS,
        };
        let context = place.context();
        let (suite, content) = (Suite::ChaCha20Poly1305, content.encode());
        let sealed = once(thread, &context).seal(suite, &key, &content, secret, rng);
        Self {
            epoch,
            seat: id,
            tag: place.tag,
            at,
            ttl_millis: place.ttl_millis,
            signature: seat.sign(Label::SIGNAL_STATEMENT, &[&context, &sealed]),
            sealed,
        }
    }

    fn context(&self, thread: ThreadId) -> Vec<u8> {
        let place = Place {
            thread,
            epoch: self.epoch,
            seat: self.seat,
            tag: self.tag,
            at: self.at,
            ttl_millis: self.ttl_millis,
        };
        place.context()
    }

    /// Tells whether the seat signed this for this thread.
    #[must_use]
    pub fn verify(&self, thread: ThreadId) -> bool {
        let context = self.context(thread);
        let parts: [&[u8]; 2] = [&context, &self.sealed];
        let key = VerifyingKey::from_bytes(&self.seat.0);
        key.is_ok_and(|key| {
            let verdict = key.verify(Label::SIGNAL_STATEMENT, &parts, &self.signature);
            verdict.is_ok()
        })
    }

    /// Opens the signal, if it is sealed as it says and under the key that its tag stands for.
    pub(super) fn open(&self, thread: ThreadId, key: &EpochKey) -> Option<Content> {
        let key = signal_key(key, thread);
        let context = self.context(thread);
        let (_, opened) = once(thread, &context).open(&key, &self.sealed).ok()?;
        let opened = Zeroizing::new(opened);
        let content = Content::decode(&opened).ok()?;
        (tag(&key, self.seat, &content.name) == self.tag).then_some(content)
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder
            .bytes(&self.epoch.0)
            .bytes(&self.seat.0)
            .bytes(&self.tag)
            .uint(self.at.0)
            .uint(self.ttl_millis.into())
            .bytes(&self.sealed)
            .bytes(&self.signature);
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (epoch, seat) = (EpochId(*decoder.fixed()?), SeatId(*decoder.fixed()?));
        let (tag, at) = (*decoder.fixed()?, Stamp(decoder.uint()?));
        let offset = decoder.offset();
        let ttl_millis = decoder.u32()?;
        if ttl_millis > SIGNAL_TTL_MILLIS_MAX {
            let what = "the time to live of a signal";
            return Err(DecodeError::OutOfBounds { offset, what });
        }
        let offset = decoder.offset();
        let sealed = decoder.bytes()?;
        if sealed.len() > SIGNAL_SEALED_BYTES_MAX {
            let what = "the length of a signal";
            return Err(DecodeError::OutOfBounds { offset, what });
        }
        Ok(Self {
            epoch,
            seat,
            tag,
            at,
            ttl_millis,
            sealed: sealed.to_vec(),
            signature: *decoder.fixed()?,
        })
    }
}

impl Content {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut encoder = Encoder::new();
        encoder.array(1 + usize::from(self.value.is_some()));
        encoder.text(&self.name);
        if let Some(value) = &self.value {
            encoder.bytes(value);
        }
        let mut plaintext = Zeroizing::new(encoder.into_vec());
        Padding::Padme.pad(&mut plaintext);
        plaintext
    }

    fn decode(plaintext: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(plaintext);
        let count = decoder.array_up_to(2)?;
        let name = decoder.text()?.to_owned();
        let value = (count == 2).then(|| decoder.bytes().map(<[u8]>::to_vec));
        let content = Self {
            name,
            value: value.transpose()?,
        };
        let offset = decoder.offset();
        let value_bytes = content.value.as_ref().map_or(0, Vec::len);
        let is_long =
            content.name.len() > SIGNAL_NAME_BYTES_MAX || value_bytes > SIGNAL_VALUE_BYTES_MAX;
        if is_long || !padding_is_good(plaintext, offset) {
            let what = "the content of a signal";
            return Err(DecodeError::OutOfBounds { offset, what });
        }
        Ok(content)
    }
}

fn once(thread: ThreadId, context: &[u8]) -> OncePlace<'_> {
    OncePlace {
        kind: OnceKind::Signal,
        thread,
        context,
    }
}

/// The key that seals the signals of a thread under an epoch.
fn signal_key(key: &EpochKey, thread: ThreadId) -> Zeroizing<[u8; 32]> {
    expand(key.sealing(), &Label::SIGNAL_KEY.message(&[&thread.0]))
}

/// What stands for a seat's key: whoever cannot read learns only that two signals have the same one.
fn tag(key: &[u8; 32], seat: SeatId, name: &str) -> SignalTag {
    let mut mac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes any key length");
    mac.update(&Label::SIGNAL_TAG.message(&[&seat.0, name.as_bytes()]));
    let tag = mac.finalize().into_bytes();
    *tag.first_chunk().expect("a MAC is longer than a tag")
}

#[cfg(test)]
mod tests;

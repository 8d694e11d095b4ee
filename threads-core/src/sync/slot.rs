//! A thread that is here, or of which only a ticket is.

use std::fmt;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_identity::{AgreementKey, SigningKey};

use crate::thread::{Seat, Thread};
use crate::{ServiceKey, ThreadId};

/// A thread, or the wish to join one.
#[derive(Debug)]
pub enum Slot {
    /// A thread whose genesis is here.
    Open(Box<Thread>),
    /// A thread of which only a ticket is here.
    Joining(Box<Joining>),
}

/// What is known of a thread before its genesis comes.
pub struct Joining {
    pub(super) number: u32,
    pub(super) service: ServiceKey,
    pub(super) seat: Option<Seat>,
}

impl Slot {
    pub(super) fn service(&self) -> &ServiceKey {
        match self {
            Self::Open(thread) => thread.service_key(),
            Self::Joining(joining) => &joining.service,
        }
    }

    /// The number of the thread in this store.
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::Open(thread) => thread.number(),
            Self::Joining(joining) => joining.number,
        }
    }

    /// Tells whether something was written to the thread here.
    pub(super) fn has_own_log(&self) -> bool {
        matches!(self, Self::Open(thread) if thread.own_log().is_some())
    }

    /// The own seat.
    pub(super) fn seat(&self) -> Option<&Seat> {
        match self {
            Self::Open(thread) => Some(thread.seat()),
            Self::Joining(joining) => joining.seat.as_ref(),
        }
    }

    /// The key that signs the channel.
    pub(super) fn signing(&self) -> Option<&SigningKey> {
        self.seat().map(|seat| &seat.signing)
    }
}

impl fmt::Debug for Joining {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Joining")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// The row of a thread that is not here yet: `[id, service key, seat secret, KEM secret]`.
pub(super) fn encode_joining(id: ThreadId, service: &ServiceKey, seat: &Seat) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .array(4)
        .bytes(&id.0)
        .bytes(service.expose())
        .bytes(&*seat.signing.to_secret_bytes())
        .bytes(&*seat.kem.to_secret_bytes());
    encoder.into_vec()
}

/// Reads the row of a thread that is not here yet, or nothing if it is another kind of row.
pub(super) fn decode_joining(
    row: &[u8],
    number: u32,
) -> Result<Option<(ThreadId, Joining)>, Box<dyn std::error::Error>> {
    let mut decoder = Decoder::new(row);
    if decoder.array()? != 4 {
        return Ok(None);
    }
    let id = ThreadId(*decoder.fixed()?);
    let service = ServiceKey::from_bytes(*decoder.fixed()?);
    let signing = SigningKey::from_secret_bytes(decoder.fixed()?)?;
    let kem = AgreementKey::from_secret_bytes(decoder.fixed()?)?;
    let finished: Result<(), DecodeError> = decoder.finish();
    finished?;
    Ok(Some((
        id,
        Joining {
            number,
            service,
            seat: Some(Seat { signing, kem }),
        },
    )))
}

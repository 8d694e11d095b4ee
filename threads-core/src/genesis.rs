//! The genesis: what makes a thread, and gives it its id.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};

use crate::{OpRef, SeatId, Suite, ThreadId};

/// Version of the formats that a genesis begins.
pub const FORMAT_VERSION: u64 = 1;

/// Longest encoded genesis, in bytes.
pub const GENESIS_BYTES_MAX: usize = 4096;

/// The first thing of a thread. Sent as it is, so there is no identity and no name in it.
///
/// # Shape
///
/// `[version, owner seat key: 32 bytes, owner KEM key: 32 bytes, suite, policy, nonce: 16 bytes]`,
/// dag-cbor; the CID of these bytes is the id of the thread.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{Genesis, Policy, SeatId, Suite, ThreadId};
///
/// let genesis = Genesis {
///     owner: SeatId([1; 32]),
///     owner_kem: [2; 32],
///     suite: Suite::Aes256Gcm,
///     policy: Policy::Standard,
///     nonce: [3; 16],
/// };
/// let bytes = genesis.encode();
/// assert_eq!(Genesis::decode(&bytes)?, genesis);
/// assert_eq!(ThreadId::of(&bytes), genesis.thread());
/// # Ok::<(), leno_crdt_codec::cbor::DecodeError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Genesis {
    /// The owner's seat.
    pub owner: SeatId,
    /// X25519 key to which keys for the owner's seat are wrapped.
    pub owner_kem: [u8; 32],
    /// How bodies are sealed. Nothing is negotiated.
    pub suite: Suite,
    /// The policy that the thread begins with.
    pub policy: Policy,
    /// Makes two threads of one owner differ.
    pub nonce: [u8; 16],
}

/// The rules that a thread begins with.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Policy {
    /// The roles and ranks of leno, full history for new readers.
    Standard,
}

impl Genesis {
    /// Encodes the genesis.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder
            .array(6)
            .uint(FORMAT_VERSION)
            .bytes(&self.owner.0)
            .bytes(&self.owner_kem)
            .uint(self.suite.number())
            .uint(0)
            .bytes(&self.nonce);
        encoder.into_vec()
    }

    /// Decodes a genesis.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; an unknown version, suite or policy is [`DecodeError::OutOfBounds`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > GENESIS_BYTES_MAX {
            return Err(DecodeError::OutOfBounds {
                offset: 0,
                what: "the length of a genesis",
            });
        }
        let mut decoder = Decoder::new(bytes);
        decoder.array_of(6)?;
        let offset = decoder.offset();
        if decoder.uint()? != FORMAT_VERSION {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the version of a genesis",
            });
        }
        let owner = SeatId(*decoder.fixed()?);
        let owner_kem = *decoder.fixed()?;
        let offset = decoder.offset();
        let suite = Suite::from_number(decoder.uint()?).ok_or(DecodeError::OutOfBounds {
            offset,
            what: "the suite of a genesis",
        })?;
        let offset = decoder.offset();
        if decoder.uint()? != 0 {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the policy of a genesis",
            });
        }
        let nonce = *decoder.fixed()?;
        decoder.finish()?;
        Ok(Self {
            owner,
            owner_kem,
            suite,
            policy: Policy::Standard,
            nonce,
        })
    }

    /// The id of the thread that this genesis makes.
    #[must_use]
    pub fn thread(&self) -> ThreadId {
        ThreadId::of(&self.encode())
    }

    /// The name of the owner's grant, which the genesis makes.
    #[must_use]
    pub fn owner_grant(&self) -> OpRef {
        OpRef {
            record: self.thread().into(),
            op: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_encoding_and_an_id() {
        let genesis = Genesis {
            owner: SeatId([1; 32]),
            owner_kem: [2; 32],
            suite: Suite::Aes256Gcm,
            policy: Policy::Standard,
            nonce: [3; 16],
        };
        let bytes = genesis.encode();
        assert_eq!(bytes.len(), 89);
        assert_eq!(Genesis::decode(&bytes), Ok(genesis.clone()));
        assert_eq!(genesis.thread(), ThreadId::of(&bytes));
        let mut other = bytes.clone();
        other[71] = 7;
        assert!(Genesis::decode(&other).is_err());
        assert!(Genesis::decode(&bytes[..88]).is_err());
    }
}

//! Ids of threads, records, epochs and bodies, and the references that name them.

use std::fmt;

use cid::Cid;
use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq};
use multihash::Multihash;
use sha2::{Digest as _, Sha256};

/// Multicodec of dag-cbor.
const DAG_CBOR: u64 = 0x71;

/// Multicodec of sha2-256.
const SHA2_256: u64 = 0x12;

/// The first bytes of every CID that leno makes: version 1, dag-cbor, sha2-256, 32 bytes.
const CID_PREFIX: [u8; 4] = [1, DAG_CBOR as u8, SHA2_256 as u8, 32];

/// The first bytes of a sha2-256 multihash.
const MULTIHASH_PREFIX: [u8; 2] = [SHA2_256 as u8, 32];

macro_rules! cid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The id of the dag-cbor bytes that it names.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// Borrows the 32 bytes of the digest.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The CID: version 1, dag-cbor, sha2-256.
            #[must_use]
            pub fn to_cid(&self) -> Cid {
                let hash = Multihash::wrap(SHA2_256, &self.0).expect("32 bytes fit a multihash");
                Cid::new_v1(DAG_CBOR, hash)
            }

            /// Takes the digest out of a CID, if it is one that leno makes.
            #[must_use]
            pub fn from_cid(cid: &Cid) -> Option<Self> {
                let digest = cid.to_bytes().strip_prefix(&CID_PREFIX)?.try_into().ok()?;
                Some(Self(digest))
            }

            pub(crate) fn encode(&self, encoder: &mut Encoder) {
                let mut bytes = [0; 36];
                let (prefix, digest) = bytes.split_at_mut(4);
                prefix.copy_from_slice(&CID_PREFIX);
                digest.copy_from_slice(&self.0);
                encoder.link_bytes(&bytes);
            }

            pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let offset = decoder.offset();
                decoder
                    .link_bytes()?
                    .strip_prefix(&CID_PREFIX)
                    .and_then(|digest| digest.try_into().ok())
                    .map(Self)
                    .ok_or(DecodeError::BadLink { offset })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self.to_cid())
            }
        }

        /// The text form of the CID, base32.
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}", self.to_cid())
            }
        }
    };
}

cid_type! {
    /// Identifies a thread: the CID of its genesis, so that nobody can squat on it.
    ThreadId
}

cid_type! {
    /// Identifies a record: the CID of its header.
    RecordId
}

impl From<ThreadId> for RecordId {
    /// A genesis stands where a record would: as `prev` of the owner's first control record.
    fn from(thread: ThreadId) -> Self {
        Self(thread.0)
    }
}

/// The sha2-256 digest of a sealed body.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BodyDigest(pub [u8; 32]);

impl BodyDigest {
    /// The digest of a sealed body.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self(Sha256::digest(sealed).into())
    }

    /// The multihash: sha2-256.
    #[must_use]
    pub fn to_multihash(&self) -> Multihash<64> {
        Multihash::wrap(SHA2_256, &self.0).expect("32 bytes fit a multihash")
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        let mut bytes = [0; 34];
        let (prefix, digest) = bytes.split_at_mut(2);
        prefix.copy_from_slice(&MULTIHASH_PREFIX);
        digest.copy_from_slice(&self.0);
        encoder.bytes(&bytes);
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = decoder.offset();
        decoder
            .bytes()?
            .strip_prefix(&MULTIHASH_PREFIX)
            .and_then(|digest| digest.try_into().ok())
            .map(Self)
            .ok_or(DecodeError::OutOfBounds {
                offset,
                what: "the multihash of a body",
            })
    }
}

/// Identifies an epoch: a hash commitment of its key, so that a ciphertext opens under one key only.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EpochId(pub [u8; 32]);

/// Identifies a member's key in a thread: an Ed25519 public key, 32 bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SeatId(pub [u8; 32]);

impl SeatId {
    /// The log that the seat key itself signs: the first control log of the seat.
    #[must_use]
    pub fn control_log(self) -> LogId {
        LogId(self.0)
    }
}

impl fmt::Debug for SeatId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SeatId({self})")
    }
}

/// The first four bytes in hexadecimal.
impl fmt::Display for SeatId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", LogId(self.0))
    }
}

/// Names one record by its place and its id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordRef {
    /// The log it stands in.
    pub log: LogId,
    /// Its place in the log, from 1.
    pub seq: Seq,
    /// Its id.
    pub id: RecordId,
}

impl RecordRef {
    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.array(3).bytes(&self.log.0).uint(self.seq);
        self.id.encode(encoder);
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.array_of(3)?;
        Ok(Self {
            log: LogId(*decoder.fixed()?),
            seq: decoder.uint()?,
            id: RecordId::decode(decoder)?,
        })
    }
}

/// Names one op of a control record; a grant, an opening or an epoch is named by the op that made it.
///
/// The owner's grant is made by the genesis: its id, op 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OpRef {
    /// The control record, or the genesis.
    pub record: RecordId,
    /// The op in its frame, from 0.
    pub op: u32,
}

impl OpRef {
    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.array(2);
        self.record.encode(encoder);
        encoder.uint(self.op.into());
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.array_of(2)?;
        Ok(Self {
            record: RecordId::decode(decoder)?,
            op: decoder.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cid_and_back() {
        let id = RecordId::of(b"a header");
        assert_eq!(RecordId::from_cid(&id.to_cid()), Some(id));
        assert_eq!(id.to_cid().to_bytes()[..4], CID_PREFIX);
        let raw = Cid::new_v1(0x55, BodyDigest::of(b"a body").to_multihash());
        assert_eq!(RecordId::from_cid(&raw), None);
    }

    #[test]
    fn encodes_as_a_link() {
        let id = RecordId::of(b"a header");
        let mut encoder = Encoder::new();
        id.encode(&mut encoder);
        assert_eq!(encoder.len(), 41);
        let mut decoder = Decoder::new(encoder.as_slice());
        assert_eq!(decoder.clone().link(), Ok(id.to_cid()));
        assert_eq!(RecordId::decode(&mut decoder), Ok(id));
    }
}

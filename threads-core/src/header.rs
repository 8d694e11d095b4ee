//! Headers: what a record says outside its sealed body, and what its id is the hash of.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder, Kind};
use leno_crdt_codec::{LogId, Seq, Stamp};

use crate::genesis::FORMAT_VERSION;
use crate::{BodyDigest, EpochId, RecordId, RecordRef, SEALED_BYTES_MAX, ThreadId};

/// Most logs that one record names in `deps`, and again in `control`.
pub const REFS_MAX: usize = 4096;

/// Under which key a record is sealed, and with that, which kind of record it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum KeyRef {
    /// A data record: its body is sealed under an epoch of a key domain.
    Data {
        /// The key domain, from 1. Who may write there is judged without keys.
        domain: u32,
        /// The epoch.
        epoch: EpochId,
    },
    /// A control record: its frame is sealed under the service key, its roster part, if it has one,
    /// under an epoch of key domain 0.
    Control {
        /// The epoch of the roster part.
        roster: Option<EpochId>,
    },
}

impl KeyRef {
    /// Tells whether this is a control record's.
    #[must_use]
    pub fn is_control(&self) -> bool {
        matches!(self, Self::Control { .. })
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Data { domain, epoch } => {
                encoder.array(2).uint((*domain).into()).bytes(&epoch.0);
            }
            Self::Control { roster: None } => {
                encoder.null();
            }
            Self::Control {
                roster: Some(epoch),
            } => {
                encoder.bytes(&epoch.0);
            }
        }
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = decoder.offset();
        Ok(match decoder.peek()? {
            Kind::Null => {
                decoder.null()?;
                Self::Control { roster: None }
            }
            Kind::Bytes => Self::Control {
                roster: Some(EpochId(*decoder.fixed()?)),
            },
            Kind::Array => {
                decoder.array_of(2)?;
                let domain = decoder.u32()?;
                if domain == 0 {
                    return Err(DecodeError::OutOfBounds {
                        offset,
                        what: "the key domain",
                    });
                }
                Self::Data {
                    domain,
                    epoch: EpochId(*decoder.fixed()?),
                }
            }
            Kind::Unsigned
            | Kind::Negative
            | Kind::Text
            | Kind::Map
            | Kind::Link
            | Kind::Bool
            | Kind::Float => {
                return Err(DecodeError::Unexpected {
                    offset,
                    expected: "a key reference",
                });
            }
        })
    }
}

/// What places a record: everything in its header but the digests of what it seals.
///
/// These bytes are the associated data of the sealed parts, so nothing can be moved.
///
/// # Shape
///
/// `[version, thread, log: 32 bytes, seq, prev, deps, control, stamp, key]`, dag-cbor. `deps` and
/// `control` are lists of `[log, seq, id]`, sorted by log, without the record's own log.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SealContext {
    /// The thread.
    pub thread: ThreadId,
    /// The log.
    pub log: LogId,
    /// Place in the log, from 1.
    pub seq: Seq,
    /// The record before this; for the first, the record or genesis that opened the log.
    pub prev: RecordId,
    /// Heads of data logs that became visible since `prev`.
    pub deps: Vec<RecordRef>,
    /// Newest control records that became visible since `prev`.
    pub control: Vec<RecordRef>,
    /// Place in time.
    pub stamp: Stamp,
    /// What the body is sealed under.
    pub key: KeyRef,
}

impl SealContext {
    /// Encodes the context.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.as_parts().encode(&mut encoder);
        encoder.into_vec()
    }

    pub(crate) fn as_parts(&self) -> ContextParts<'_> {
        ContextParts {
            thread: self.thread,
            log: self.log,
            seq: self.seq,
            prev: self.prev,
            deps: &self.deps,
            control: &self.control,
            stamp: self.stamp,
            key: &self.key,
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.array_of(9)?;
        let offset = decoder.offset();
        if decoder.uint()? != FORMAT_VERSION {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the version of a header",
            });
        }
        let thread = ThreadId::decode(decoder)?;
        let log = LogId(*decoder.fixed()?);
        let offset = decoder.offset();
        let seq = decoder.uint()?;
        if seq == 0 || seq == Seq::MAX {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the seq of a record",
            });
        }
        Ok(Self {
            thread,
            log,
            seq,
            prev: RecordId::decode(decoder)?,
            deps: decode_refs(decoder, log)?,
            control: decode_refs(decoder, log)?,
            stamp: Stamp(decoder.uint()?),
            key: KeyRef::decode(decoder)?,
        })
    }
}

/// A [`SealContext`] whose lists are borrowed: what the hot paths encode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextParts<'a> {
    pub(crate) thread: ThreadId,
    pub(crate) log: LogId,
    pub(crate) seq: Seq,
    pub(crate) prev: RecordId,
    pub(crate) deps: &'a [RecordRef],
    pub(crate) control: &'a [RecordRef],
    pub(crate) stamp: Stamp,
    pub(crate) key: &'a KeyRef,
}

impl ContextParts<'_> {
    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.array(9).uint(FORMAT_VERSION);
        self.thread.encode(encoder);
        encoder.bytes(&self.log.0).uint(self.seq);
        self.prev.encode(encoder);
        encode_refs(encoder, self.deps);
        encode_refs(encoder, self.control);
        encoder.uint(self.stamp.0);
        self.key.encode(encoder);
    }
}

/// The digest and the length of a sealed part.
///
/// # Examples
///
/// ```
/// use leno_threads_core::SealedPart;
///
/// let part = SealedPart::of(b"sealed");
/// assert_eq!(part.bytes, 6);
/// assert_ne!(part, SealedPart::of(b"SEALED"));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SealedPart {
    /// sha2-256 of the sealed bytes.
    pub digest: BodyDigest,
    /// How many there are.
    pub bytes: u32,
}

impl SealedPart {
    /// Describes sealed bytes.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        let bytes = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        Self {
            digest: BodyDigest::of(sealed),
            bytes,
        }
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        self.digest.encode(encoder);
        encoder.uint(self.bytes.into());
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let digest = BodyDigest::decode(decoder)?;
        let offset = decoder.offset();
        let bytes = decoder.u32()?;
        if bytes as usize > SEALED_BYTES_MAX {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "the length of a body",
            });
        }
        Ok(Self { digest, bytes })
    }
}

/// The header of a record. Its CID is the id of the record.
///
/// # Shape
///
/// `[seal context, body digest, body length]`, dag-cbor; a control record with a roster part has its
/// digest and length behind them.
///
/// # Examples
///
/// ```
/// use leno_threads_core::*;
///
/// let header = |seq, body: &[u8]| Header {
///     context: SealContext {
///         thread: ThreadId([1; 32]),
///         log: LogId([2; 32]),
///         seq,
///         prev: RecordId([3; 32]),
///         deps: Vec::new(),
///         control: Vec::new(),
///         stamp: Stamp(seq),
///         key: KeyRef::Data { domain: THREAD_DOMAIN, epoch: EpochId([4; 32]) },
///     },
///     body: SealedPart::of(body),
///     roster: None,
/// };
/// let record = header(1, b"sealed");
/// assert_eq!(Header::decode(&record.encode())?, record);
/// // Whatever changes, a place or a byte of the body, makes another record.
/// assert_ne!(record.id(), header(2, b"sealed").id());
/// assert_ne!(record.id(), header(1, b"Sealed").id());
/// # Ok::<(), leno_crdt_codec::cbor::DecodeError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Header {
    /// What places the record.
    pub context: SealContext,
    /// The sealed body of a data record, or the sealed frame of a control record.
    pub body: SealedPart,
    /// The sealed roster part of a control record.
    pub roster: Option<SealedPart>,
}

impl Header {
    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encode_header(
            &mut encoder,
            &self.context.as_parts(),
            &self.body,
            self.roster.as_ref(),
        );
        encoder.into_vec()
    }

    /// Decodes a header.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let count = decoder.array_up_to(5)?;
        let context = SealContext::decode(&mut decoder)?;
        let body = SealedPart::decode(&mut decoder)?;
        let has_roster = matches!(context.key, KeyRef::Control { roster: Some(_) });
        if count != 3 + 2 * usize::from(has_roster) {
            return Err(DecodeError::OutOfBounds {
                offset: 0,
                what: "the length of a header",
            });
        }
        let roster = has_roster
            .then(|| SealedPart::decode(&mut decoder))
            .transpose()?;
        decoder.finish()?;
        Ok(Self {
            context,
            body,
            roster,
        })
    }

    /// The id of the record.
    #[must_use]
    pub fn id(&self) -> RecordId {
        RecordId::of(&self.encode())
    }
}

/// Writes a header and returns where in the encoder its seal context lies.
pub(crate) fn encode_header(
    encoder: &mut Encoder,
    context: &ContextParts<'_>,
    body: &SealedPart,
    roster: Option<&SealedPart>,
) -> std::ops::Range<usize> {
    let range = begin_header(encoder, context, roster.is_some());
    body.encode(encoder);
    if let Some(roster) = roster {
        roster.encode(encoder);
    }
    range
}

/// Writes a header up to its sealed parts, and returns where in the encoder its seal context lies.
pub(crate) fn begin_header(
    encoder: &mut Encoder,
    context: &ContextParts<'_>,
    has_roster: bool,
) -> std::ops::Range<usize> {
    encoder.array(if has_roster { 5 } else { 3 });
    let start = encoder.len();
    context.encode(encoder);
    start..encoder.len()
}

pub(crate) fn encode_refs(encoder: &mut Encoder, refs: &[RecordRef]) {
    encoder.array(refs.len());
    for it in refs {
        it.encode(encoder);
    }
}

pub(crate) fn decode_refs(
    decoder: &mut Decoder<'_>,
    own: LogId,
) -> Result<Vec<RecordRef>, DecodeError> {
    let count = decoder.array_up_to(REFS_MAX)?;
    let mut refs: Vec<RecordRef> = Vec::new();
    for _ in 0..count {
        let offset = decoder.offset();
        let it = RecordRef::decode(decoder)?;
        let ordered = refs.last().is_none_or(|last| last.log < it.log);
        if !ordered || it.log == own || it.seq == 0 || it.seq == Seq::MAX {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "a reference to a record",
            });
        }
        refs.push(it);
    }
    Ok(refs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: KeyRef) -> Header {
        let at = |byte: u8| RecordRef {
            log: LogId([byte; 32]),
            seq: 3,
            id: RecordId([byte; 32]),
        };
        let roster = matches!(key, KeyRef::Control { roster: Some(_) });
        Header {
            context: SealContext {
                thread: ThreadId([1; 32]),
                log: LogId([2; 32]),
                seq: 9,
                prev: RecordId([3; 32]),
                deps: vec![at(4), at(5)],
                control: vec![at(6)],
                stamp: Stamp::from_millis(1_700_000_000_000),
                key,
            },
            body: SealedPart::of(b"sealed"),
            roster: roster.then(|| SealedPart::of(b"roster")),
        }
    }

    #[test]
    fn has_one_encoding_for_each_kind() {
        for key in [
            KeyRef::Data {
                domain: 1,
                epoch: EpochId([7; 32]),
            },
            KeyRef::Control { roster: None },
            KeyRef::Control {
                roster: Some(EpochId([7; 32])),
            },
        ] {
            let header = header(key);
            let bytes = header.encode();
            assert_eq!(Header::decode(&bytes), Ok(header.clone()));
            let context = header.context.encode();
            assert_eq!(bytes[1..=context.len()], context);
        }
    }

    #[test]
    fn refuses_references_out_of_order() {
        let mut header = header(KeyRef::Control { roster: None });
        header.context.deps.reverse();
        let refused = Header::decode(&header.encode());
        assert!(
            matches!(refused, Err(DecodeError::OutOfBounds { .. })),
            "{refused:?}"
        );
        header.context.deps = vec![RecordRef {
            log: header.context.log,
            seq: 1,
            id: RecordId([0; 32]),
        }];
        assert!(Header::decode(&header.encode()).is_err());
    }
}

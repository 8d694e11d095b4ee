//! What a data record says: ops on documents, grouped by collection.
//!
//! `[[collection, [op, ..]], ..]` in strict dag-cbor: collections ascending by their bytes, each
//! once, none without ops. The index of an op counts through the whole body, so the ops of the
//! second collection go on where those of the first end. In the record, byte 0 tells the encoding
//! and zeros may follow; see [`leno_threads_core::padding_is_good`].

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::json::Op;
use leno_threads_core::padding_is_good;
use leno_threads_core::thread::BODY_ENCODING;

use crate::key::{IdRef, is_collection_name};

/// Most collections in one body.
pub const BODY_COLLECTIONS_MAX: usize = 256;

/// Most ops in one body.
pub const BODY_OPS_MAX: usize = 16_384;

/// Why a whole record is not folded into documents.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// A later version wrote it. It counts as missing, and may be folded after an update.
    #[error("the body has the unknown encoding {encoding}")]
    UnknownEncoding {
        /// Its first byte.
        encoding: u8,
    },
    /// It is no list of ops by collection.
    #[error("the body does not decode")]
    Malformed(#[from] DecodeError),
    /// An op of a kind that this version knows breaks the format, which voids the whole record.
    #[error("op {index} of the body does not decode")]
    MalformedOp {
        /// Which op.
        index: u32,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// What follows the ops is not padding.
    #[error("what follows the ops is not padding")]
    BadPadding,
    /// Too many records before it are missing ([`crate::GAPS_MAX`]). It counts as missing too.
    #[error("too many records before it are missing")]
    HeldBack,
}

/// An op where it stands in a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawOp<'a> {
    pub(crate) collection: &'a str,
    pub(crate) index: u32,
    pub(crate) kind: u64,
    pub(crate) document: IdRef<'a>,
    pub(crate) bytes: &'a [u8],
}

/// The ops of a body. Most have one, which costs no allocation.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub(crate) first: RawOp<'a>,
    pub(crate) rest: Vec<RawOp<'a>>,
}

impl<'a> Body<'a> {
    /// Takes a plaintext apart as far as every version can.
    pub(crate) fn decode(plaintext: &'a [u8]) -> Result<Self, SkipReason> {
        let content = match plaintext.split_first() {
            Some((&BODY_ENCODING, content)) => content,
            Some((&encoding, _)) => return Err(SkipReason::UnknownEncoding { encoding }),
            None => &[],
        };
        let mut decoder = Decoder::new(content);
        let mut first = None;
        let mut rest = Vec::new();
        let mut index = 0;
        let mut previous = "";
        let groups = decoder.array_up_to(BODY_COLLECTIONS_MAX)?;
        for _ in 0..groups {
            decoder.array_of(2)?;
            let offset = decoder.offset();
            let collection = decoder.text()?;
            // No name is empty, so the first one is above that.
            if !is_collection_name(collection) || collection <= previous {
                return Err(out_of_bounds(offset, "the name of a collection"));
            }
            previous = collection;
            let offset = decoder.offset();
            let ops = decoder.array()?;
            if ops == 0 || ops + index as usize > BODY_OPS_MAX {
                return Err(out_of_bounds(offset, "the number of ops"));
            }
            for _ in 0..ops {
                let (kind, document) = head(&mut decoder.clone())
                    .map_err(|source| SkipReason::MalformedOp { index, source })?;
                let bytes = decoder.skip()?;
                let op = RawOp {
                    collection,
                    index,
                    kind,
                    document,
                    bytes,
                };
                match first {
                    None => first = Some(op),
                    Some(_) => rest.push(op),
                }
                index += 1;
            }
        }
        let first = first.ok_or_else(|| out_of_bounds(0, "the number of ops"))?;
        if !padding_is_good(plaintext, 1 + decoder.offset()) {
            return Err(SkipReason::BadPadding);
        }
        Ok(Self { first, rest })
    }
}

/// What every op of every version begins with: its kind and its document.
fn head<'a>(decoder: &mut Decoder<'a>) -> Result<(u64, IdRef<'a>), DecodeError> {
    decoder.array()?;
    Ok((decoder.uint()?, IdRef::decode(decoder)?))
}

fn out_of_bounds(offset: usize, what: &'static str) -> SkipReason {
    SkipReason::Malformed(DecodeError::OutOfBounds { offset, what })
}

/// Encodes a body of groups of ops, whose collections ascend.
pub(crate) fn encode<'a, Ops>(
    groups: impl ExactSizeIterator<Item = (&'a str, Ops)> + Clone,
) -> Vec<u8>
where
    Ops: ExactSizeIterator<Item = &'a Op> + Clone,
{
    let bytes = groups.clone().map(|(collection, ops)| {
        let ops: usize = ops.map(Op::encoded_len_max).sum();
        8 + collection.len() + ops
    });
    let mut encoder = Encoder::with_capacity(8 + bytes.sum::<usize>());
    encoder.array(groups.len());
    for (collection, ops) in groups {
        encoder.array(2).text(collection).array(ops.len());
        for op in ops {
            op.encode_to(&mut encoder);
        }
    }
    encoder.into_vec()
}

//! What messages say of the tree over the threads that two sides share.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder, Kind};

use super::Message;
use crate::VerifyError;
use crate::sync::tree::{CHILDREN, LEAVES_MAX, Name, Prefix};

/// Most nodes that one message asks for or shows.
pub const NODES_MAX: usize = 64;

/// Most names of threads in one message.
pub const NAMES_MAX: usize = 1024;

/// The hash of a node or a leaf of the tree over the threads that two sides share, under both sides'
/// nonces.
pub type ShortNode = [u8; 16];

/// A node of the tree over the threads that two sides share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    /// Which.
    pub prefix: Prefix,
    /// What is below it.
    pub below: Below,
}

/// What is below a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Below {
    /// The hashes of its children, in order.
    Inner(Box<[ShortNode; CHILDREN]>),
    /// Its leaves, by name, ascending; up to [`LEAVES_MAX`].
    Leaves(Vec<(Name, ShortNode)>),
}

/// Decodes a message about the tree over the threads that both sides share.
pub(super) fn decode_of_tree<'a>(
    decoder: &mut Decoder<'a>,
    kind: u64,
) -> Result<Message<'a>, VerifyError> {
    let mut ascending = Ascending::default();
    if kind == 23 {
        let mut names = Vec::new();
        for _ in 0..decoder.array_up_to(NAMES_MAX)? {
            let offset = decoder.offset();
            names.push(ascending.check(*decoder.fixed()?, offset)?);
        }
        return Ok(Message::Unknown { names });
    }
    let round = decoder.u32()?;
    Ok(match kind {
        18 => Message::Compare {
            round,
            root: *decoder.fixed()?,
        },
        19 => Message::Compared { round },
        21 => {
            let mut nodes = Vec::new();
            let mut ascending = Ascending::default();
            for _ in 0..decoder.array_up_to(NODES_MAX)? {
                let offset = decoder.offset();
                nodes.push(ascending.check(decode_prefix(decoder)?, offset)?);
            }
            Message::Ask { round, nodes }
        }
        22 => {
            let mut nodes: Vec<Shown> = Vec::new();
            let mut ascending = Ascending::default();
            for _ in 0..decoder.array_up_to(NODES_MAX)? {
                let offset = decoder.offset();
                let shown = decode_shown(decoder)?;
                ascending.check(shown.prefix, offset)?;
                nodes.push(shown);
            }
            Message::Nodes { round, nodes }
        }
        _ => Message::Seen { tags: round },
    })
}

/// Refuses what does not ascend.
struct Ascending<T>(Option<T>);

impl<T> Default for Ascending<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy + Ord> Ascending<T> {
    fn check(&mut self, next: T, offset: usize) -> Result<T, DecodeError> {
        if self.0.is_some_and(|last| last >= next) {
            let what = "the order of names or nodes";
            return Err(DecodeError::OutOfBounds { offset, what });
        }
        self.0 = Some(next);
        Ok(next)
    }
}

/// The number of half bytes, then as many bytes as they take.
pub(super) fn encode_prefix(encoder: &mut Encoder, prefix: &Prefix) {
    let length = usize::from(prefix.nibbles().div_ceil(2));
    let beginning = prefix.name().iter().take(length);
    let bytes: Vec<u8> = std::iter::once(prefix.nibbles())
        .chain(beginning.copied())
        .collect();
    encoder.bytes(&bytes);
}

fn decode_prefix(decoder: &mut Decoder<'_>) -> Result<Prefix, DecodeError> {
    let offset = decoder.offset();
    let bytes = decoder.bytes()?;
    let prefix = bytes.split_first().and_then(|(nibbles, beginning)| {
        let mut name = [0; 16];
        let length = usize::from(nibbles.div_ceil(2));
        let room = name.get_mut(..length)?;
        if beginning.len() != length {
            return None;
        }
        room.copy_from_slice(beginning);
        Prefix::new(name, *nibbles)
    });
    let what = "the name of a node";
    prefix.ok_or(DecodeError::OutOfBounds { offset, what })
}

/// A byte string for an inner node, a list for one with leaves.
pub(super) fn encode_shown(encoder: &mut Encoder, shown: &Shown) {
    encoder.array(2);
    encode_prefix(encoder, &shown.prefix);
    match &shown.below {
        Below::Inner(children) => {
            encoder.bytes(children.as_flattened());
        }
        Below::Leaves(leaves) => {
            encoder.array(leaves.len() * 2);
            for (name, hash) in leaves {
                encoder.bytes(name).bytes(hash);
            }
        }
    }
}

fn decode_shown(decoder: &mut Decoder<'_>) -> Result<Shown, DecodeError> {
    decoder.array_of(2)?;
    let prefix = decode_prefix(decoder)?;
    let offset = decoder.offset();
    let bad = |what| DecodeError::OutOfBounds { offset, what };
    if decoder.peek()? == Kind::Bytes {
        let bytes: &[u8; 16 * CHILDREN] = decoder.fixed()?;
        let mut children = Box::new([[0; 16]; CHILDREN]);
        children.as_flattened_mut().copy_from_slice(bytes);
        let below = Below::Inner(children);
        return Ok(Shown { prefix, below });
    }
    let count = decoder.array_up_to(2 * LEAVES_MAX)?;
    if count % 2 == 1 {
        return Err(bad("the length of a node"));
    }
    let mut leaves = Vec::new();
    let mut ascending = Ascending::default();
    for _ in 0..count / 2 {
        let offset = decoder.offset();
        let name: Name = ascending.check(*decoder.fixed()?, offset)?;
        if !prefix.begins(&name) {
            return Err(bad("a leaf of another node"));
        }
        leaves.push((name, *decoder.fixed()?));
    }
    let below = Below::Leaves(leaves);
    Ok(Shown { prefix, below })
}

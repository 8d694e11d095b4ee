//! One document: what its ops add up to, how one more is folded in, and the bytes that it rests in.
//!
//! | part of the bytes | is |
//! |---|---|
//! | version | 1 |
//! | parts | u32, big-endian: rows that the bytes are cut into, each but the last [`PART_BYTES`] long |
//! | life | dag-cbor, 0 if no life is visible; then in the same list: |
//! | nonce | 16 bytes or null |
//! | waiting | list of `[stamp, log, seq, index, member or null, op]`, ascending |
//! | state | all that is left: [`State::encode`] |
//!
//! `member` is `[record, op]`, the author's number.

use std::collections::BTreeMap;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::json::{Action, Op, State};
use leno_crdt_codec::{Dot, LogId, OpError, Place, Stamp};
use leno_threads_core::{OpRef, RecordId};

use crate::VoidReason;
use crate::id::is_of_member;

/// Longest row of a document, in bytes.
pub(crate) const PART_BYTES: usize = 1 << 20;

const VERSION: u8 = 1;

/// The kind of op that is folded without building it, see the format of ops in `leno-crdt-codec`:
/// an update that only sets registers. It is no create, so nothing about its author is checked.
const SHORT_UPDATE: u64 = 0;

/// What the ops of one document add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reduced {
    pub(crate) state: State,
    /// Shows that the author made the id, also once the document is deleted. The least one, so that
    /// it is a function of the set of ops.
    pub(crate) nonce: Option<[u8; 16]>,
    /// Ops that only a later version understands. Ops commute, so folding them later is no loss.
    pub(crate) waiting: BTreeMap<Place, Waiting>,
}

/// An op that waits for a later version of this program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) member: Option<OpRef>,
    pub(crate) bytes: Box<[u8]>,
}

/// What became of an op.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Folded {
    Done,
    Void(VoidReason),
    /// It waits.
    Unknown(u64),
}

impl Reduced {
    /// Folds in an op as it stands in a record. On an error nothing changed.
    pub(crate) fn fold_bytes(
        &mut self,
        place: &Place,
        member: Option<OpRef>,
        kind: u64,
        bytes: &[u8],
    ) -> Result<Folded, DecodeError> {
        let result = match kind {
            SHORT_UPDATE => self
                .state
                .apply_encoded(place, bytes)
                .map(|()| Folded::Done),
            _ => Op::decode(bytes).map(|op| self.fold(place, member, op)),
        };
        result.or_else(|error| match error {
            OpError::Unknown { kind } => Ok(self.wait(place, member, kind, bytes)),
            OpError::Malformed(error) => Err(error),
            // A later codec may fail in other ways, which only a later version understands.
            _ => Ok(self.wait(place, member, kind, bytes)),
        })
    }

    /// Folds in an op, unless it is void.
    pub(crate) fn fold(&mut self, place: &Place, member: Option<OpRef>, op: Op) -> Folded {
        let mut nonce = self.nonce;
        if let Action::Create { nonce: of_op, .. } = op.action()
            && op.document().as_generated().is_some()
        {
            let shown = of_op.filter(|nonce| {
                member.is_some_and(|member| is_of_member(op.document(), member, nonce))
            });
            let Some(shown) = shown else {
                return Folded::Void(VoidReason::NotAuthor);
            };
            nonce = Some(nonce.map_or(shown, |known| known.min(shown)));
        }
        // The state would pass it over too; here it is told.
        if op.is_ahead_of(place.stamp) {
            return Folded::Void(VoidReason::LifeAhead);
        }
        self.nonce = nonce;
        self.state.apply_owned(place, op);
        Folded::Done
    }

    pub(crate) fn wait(
        &mut self,
        place: &Place,
        member: Option<OpRef>,
        kind: u64,
        bytes: &[u8],
    ) -> Folded {
        self.waiting.insert(
            *place,
            Waiting {
                member,
                bytes: bytes.into(),
            },
        );
        Folded::Unknown(kind)
    }

    /// Tells whether it is as if there were no ops, so that no row is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.state == State::default()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The bytes that hashes compare: the state, and behind it the ops that wait.
    pub(crate) fn hashed(&self) -> Vec<u8> {
        let mut bytes = self.state.encode();
        if self.is_stopped() {
            let mut encoder = Encoder::append_to(bytes);
            self.encode_waiting(&mut encoder);
            bytes = encoder.into_vec();
        }
        bytes
    }

    /// Encodes it, and returns how many rows the bytes take.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut encoder = Encoder::append_to(vec![VERSION, 0, 0, 0, 1]);
        encoder.array(3).uint(self.state.life().unwrap_or(0));
        match &self.nonce {
            Some(nonce) => encoder.bytes(nonce),
            None => encoder.null(),
        };
        self.encode_waiting(&mut encoder);
        let mut bytes = encoder.into_vec();
        bytes.extend_from_slice(&self.state.encode());
        let parts = bytes.len().div_ceil(PART_BYTES);
        let parts = u32::try_from(parts).expect("a document is shorter than 2^52 bytes");
        if let Some(at) = bytes.get_mut(1..5) {
            at.copy_from_slice(&parts.to_be_bytes());
        }
        (bytes, parts)
    }

    fn encode_waiting(&self, encoder: &mut Encoder) {
        encoder.array(self.waiting.len());
        for (place, op) in &self.waiting {
            encoder.array(6).uint(place.stamp.0).bytes(&place.dot.log.0);
            encoder.uint(place.dot.seq).uint(place.dot.index.into());
            match &op.member {
                Some(member) => {
                    encoder
                        .array(2)
                        .bytes(&member.record.0)
                        .uint(member.op.into());
                }
                None => {
                    encoder.null();
                }
            }
            encoder.bytes(&op.bytes);
        }
    }

    /// Decodes it from all its rows. Ops that waited and are known by now are folded, and the second
    /// value tells whether there were any.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, bool), DecodeError> {
        let head = Head::decode(bytes)?;
        let mut reduced = Self {
            state: State::decode(head.state)?,
            nonce: head.nonce,
            waiting: BTreeMap::new(),
        };
        let mut is_news = false;
        for (place, op) in head.waiting {
            // The kind only tells short updates apart, which never wait. An op that turns out
            // malformed is void, alone: its record was judged by an older version.
            let folded = reduced.fold_bytes(&place, op.member, u64::MAX, &op.bytes);
            is_news |= !matches!(folded, Ok(Folded::Unknown(_)));
        }
        Ok((reduced, is_news))
    }
}

/// What stands before the state.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) life: u64,
    nonce: Option<[u8; 16]>,
    pub(crate) waiting: Vec<(Place, Waiting)>,
    pub(crate) state: &'a [u8],
}

impl<'a> Head<'a> {
    /// How many rows a document has, by its first.
    pub(crate) fn parts(row: &[u8]) -> Option<u32> {
        let (version, rest) = row.split_first()?;
        let parts = u32::from_be_bytes(*rest.first_chunk()?);
        (*version == VERSION && parts > 0).then_some(parts)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let rest = bytes.get(5..).unwrap_or_default();
        let mut decoder = Decoder::new(rest);
        decoder.array_of(3)?;
        let life = decoder.uint()?;
        let nonce = match decoder.null()? {
            true => None,
            false => Some(*decoder.fixed()?),
        };
        let mut waiting = Vec::new();
        for _ in 0..decoder.array()? {
            waiting.push(decode_waiting(&mut decoder)?);
        }
        let state = rest.get(decoder.offset()..).unwrap_or_default();
        Ok(Self {
            life,
            nonce,
            waiting,
            state,
        })
    }
}

fn decode_waiting(decoder: &mut Decoder<'_>) -> Result<(Place, Waiting), DecodeError> {
    decoder.array_of(6)?;
    let stamp = Stamp(decoder.uint()?);
    let log = LogId(*decoder.fixed()?);
    let dot = Dot {
        log,
        seq: decoder.uint()?,
        index: decoder.u32()?,
    };
    let member = match decoder.null()? {
        true => None,
        false => {
            decoder.array_of(2)?;
            Some(OpRef {
                record: RecordId(*decoder.fixed()?),
                op: decoder.u32()?,
            })
        }
    };
    let bytes = decoder.bytes()?.into();
    Ok((Place { stamp, dot }, Waiting { member, bytes }))
}

#[cfg(test)]
mod tests {
    use leno_crdt_codec::json::{Change, DocumentId, Edit, Value};

    use super::*;
    use crate::new_id;

    const MEMBER: OpRef = OpRef {
        record: RecordId([1; 32]),
        op: 0,
    };

    fn place(seq: u64) -> Place {
        Place {
            stamp: Stamp(seq),
            dot: Dot {
                log: LogId([7; 32]),
                seq,
                index: 0,
            },
        }
    }

    fn rng() -> impl rand_core::CryptoRng {
        use rand_chacha::rand_core::SeedableRng;
        rand_chacha::ChaCha20Rng::seed_from_u64(1)
    }

    /// As an older version left them: a create of the author, one of somebody else, an edit, and
    /// bytes that turn out to be no op.
    #[test]
    fn ops_that_waited_are_folded_by_the_version_that_knows_them() {
        let (id, nonce) = new_id(0, MEMBER, &mut rng());
        let other = OpRef { op: 1, ..MEMBER };
        let edits = vec![Edit::new("plays", Change::Increment(2))];
        let create = Op::create(id.clone(), 1, Some(nonce), Vec::new()).unwrap();
        let stolen = Op::create(id.clone(), 9, Some(nonce), Vec::new()).unwrap();
        let update = Op::update(id, 1, edits).unwrap();

        let mut older = Reduced::default();
        older.wait(&place(1), Some(MEMBER), 1, &create.encode());
        older.wait(&place(2), Some(other), 4, &stolen.encode());
        older.wait(&place(3), None, 3, &update.encode());
        older.wait(&place(4), None, 9, b"\x81");
        let unknown = b"\x83\x18\x63\x61a\x01";
        older.wait(&place(5), Some(MEMBER), 99, unknown);
        let (bytes, parts) = older.encode();
        let (newer, is_news) = Reduced::decode(&bytes).unwrap();
        assert_eq!((parts, is_news), (1, true));

        let mut expected = Reduced::default();
        expected.fold(&place(1), Some(MEMBER), create);
        expected.fold(&place(3), None, update);
        expected.wait(&place(5), Some(MEMBER), 99, unknown);
        assert_eq!(newer, expected);
        assert_eq!(newer.state.life(), Some(1));
        assert_eq!(
            Reduced::decode(&newer.encode().0),
            Ok((newer.clone(), false))
        );
        assert_ne!(newer.hashed(), newer.state.encode());
    }

    #[test]
    fn a_short_update_and_its_op_fold_alike() {
        let id = DocumentId::natural("a").unwrap();
        let edits = vec![Edit::new(
            "title",
            Change::Set(Value::text("Blue").unwrap()),
        )];
        let op = Op::update(id, 1, edits).unwrap();
        let (mut short, mut long) = (Reduced::default(), Reduced::default());
        assert_eq!(
            short.fold_bytes(&place(1), None, SHORT_UPDATE, &op.encode()),
            Ok(Folded::Done)
        );
        assert_eq!(long.fold(&place(1), None, op.clone()), Folded::Done);
        assert_eq!(short, long);
        // The constant is the codec's number for such an op.
        assert_eq!(op.encode().get(1), Some(&0));
    }

    #[test]
    fn bytes_that_are_cut_short_are_refused() {
        let mut reduced = Reduced::default();
        reduced.wait(&place(5), Some(MEMBER), 99, b"\x83\x18\x63\x61a\x01");
        let (bytes, _) = reduced.encode();
        for length in 0..bytes.len() {
            assert!(Reduced::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Head::parts(&bytes[..4]).is_none() && Head::parts(&bytes).is_some());
    }
}

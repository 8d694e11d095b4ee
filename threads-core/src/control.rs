//! Control records: the ops of their frames, which decide roles, and of their roster parts, which
//! tell members who is who.
//!
//! A plaintext is `0 | list of ops | padding`. The numbers of ops below are taken; 8 to 31 are kept
//! for cut, invite, policy, scope, group and succession. A record with an op that this version does not know is parked, not judged.

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq};
use leno_identity::{Label, SigningKey, VerifyingKey};

use crate::epoch::KeyLink;
use crate::seal::{Padding, padding_is_good};
use crate::{EpochId, OpRef, RecordId, RecordRef, SeatId, ThreadId};

/// Most ops in a frame, and again in a roster part.
pub const CONTROL_OPS_MAX: usize = 1024;

/// Most parents of an epoch.
pub const EPOCH_PARENTS_MAX: usize = 64;

/// Most logs that one op accepts.
pub const ACCEPTANCES_MAX: usize = 1024;

/// Longest proof of a fork that a control record shows, in bytes.
pub const SHOWN_PROOF_BYTES_MAX: usize = 256 << 10;

/// Most proofs of forks that a frame shows: each takes two signatures to check.
pub const PROOFS_SHOWN_MAX: usize = 4;

/// Longest text or value in a roster part, in bytes.
pub const ROSTER_VALUE_BYTES_MAX: usize = 64 << 10;

/// A control plaintext's first byte: dag-cbor, not compressed.
const ENCODING: u8 = 0;

/// A kind of right. Ordered from most to least privileged among members.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Role {
    /// Manages everybody, admins too.
    Owner,
    /// Manages writers, readers and replicators.
    Admin,
    /// Reads and writes.
    Writer,
    /// Reads.
    Reader,
    /// Stores and serves ciphertext; reads nothing.
    Replicator,
}

impl Role {
    /// Tells whether the role opens epochs.
    #[must_use]
    pub fn reads(self) -> bool {
        self <= Self::Reader
    }

    /// Tells whether the role opens data logs.
    #[must_use]
    pub fn writes(self) -> bool {
        self <= Self::Writer
    }

    /// Tells whether the role begins epochs and states what a thread is called.
    #[must_use]
    pub fn governs(self) -> bool {
        self <= Self::Admin
    }

    /// Tells whether the role may give another one.
    ///
    /// 1. Owners give any role.
    /// 2. Admins give any role below admin.
    /// 3. Nobody else gives any.
    #[must_use]
    pub fn may_grant(self, other: Self) -> bool {
        match self {
            Self::Owner => true,
            Self::Admin => other > Self::Admin,
            Self::Writer | Self::Reader | Self::Replicator => false,
        }
    }

    /// The number in a grant.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Owner => 0,
            Self::Admin => 1,
            Self::Writer => 2,
            Self::Reader => 3,
            Self::Replicator => 4,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        [
            Self::Owner,
            Self::Admin,
            Self::Writer,
            Self::Reader,
            Self::Replicator,
        ]
        .into_iter()
        .find(|role| role.number() == number)
    }
}

/// Where a grant holds.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Scope {
    /// Everywhere in the thread.
    Thread,
}

/// A right given: the only source of power. It takes the place of the rights that its author saw.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct GrantOp {
    /// Who gets it: a member, by the first of its seats.
    pub seat: SeatId,
    /// X25519 key to which keys for the seat are wrapped.
    pub kem: [u8; 32],
    /// What.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// Until when, in milliseconds since the Unix epoch; judged by stamps.
    pub expires_millis: Option<u64>,
    /// Salted hash of the identity's key; the salt stands in the roster part.
    pub identity: Option<[u8; 32]>,
    /// Salted hash of the recovery key.
    pub recovery: Option<[u8; 32]>,
    /// Up to where logs are accepted, sorted by log: at most [`ACCEPTANCES_MAX`].
    pub accepts: Vec<RecordRef>,
}

/// The end of all rights of a member that rank below the author's, but for what is accepted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RemoveOp {
    /// The member, by the first of its seats.
    pub member: SeatId,
    /// Up to where logs are accepted, sorted by log: at most [`ACCEPTANCES_MAX`]. What is not named is
    /// not accepted at all.
    pub accepts: Vec<RecordRef>,
}

/// Another seat for a member, such as of a second device. It has the member's roles.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DeviceOp {
    /// The member, by the first of its seats.
    pub member: SeatId,
    /// The seat.
    pub seat: SeatId,
    /// X25519 key to which keys for the seat are wrapped.
    pub kem: [u8; 32],
    /// The seat key's signature, so that nobody adds a seat whose key he does not hold.
    pub signature: [u8; 64],
}

impl DeviceOp {
    /// Makes a seat another one of a member, signed by its key.
    #[must_use]
    pub fn sign(key: &SigningKey, thread: ThreadId, member: SeatId, kem: [u8; 32]) -> Self {
        let seat = SeatId(key.verifying_key().to_bytes());
        let mut op = Self {
            member,
            seat,
            kem,
            signature: [0; 64],
        };
        op.signature = key.sign(Label::DEVICE_SEAT, &[&op.statement(thread)]);
        op
    }

    /// Tells whether the seat's key signed that it belongs to this member of this thread.
    #[must_use]
    pub fn is_signed(&self, thread: ThreadId) -> bool {
        let statement = self.statement(thread);
        VerifyingKey::from_bytes(&self.seat.0).is_ok_and(|key| {
            key.verify(Label::DEVICE_SEAT, &[&statement], &self.signature)
                .is_ok()
        })
    }

    fn statement(&self, thread: ThreadId) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(4);
        thread.encode(&mut encoder);
        self.encode_unsigned(&mut encoder);
        encoder.into_vec()
    }

    fn encode_unsigned(&self, encoder: &mut Encoder) {
        encoder
            .bytes(&self.member.0)
            .bytes(&self.seat.0)
            .bytes(&self.kem);
    }
}

/// The beginning of a data log.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct OpenOp {
    /// The log's key.
    pub log: LogId,
    /// The grant it writes under.
    pub grant: OpRef,
    /// Which of the seat's data logs it is, from 0.
    pub incarnation: u64,
    /// The last record of the one before: evidence, not a fence.
    pub last: Option<(Seq, RecordId)>,
    /// The log key's signature, so that nobody opens a log whose key he does not hold.
    pub signature: [u8; 64],
}

impl OpenOp {
    /// Makes the opening of a log, signed by its key.
    #[must_use]
    pub fn sign(
        key: &SigningKey,
        thread: ThreadId,
        seat: SeatId,
        grant: OpRef,
        incarnation: u64,
        last: Option<(Seq, RecordId)>,
    ) -> Self {
        let log = LogId(key.verifying_key().to_bytes());
        let mut op = Self {
            log,
            grant,
            incarnation,
            last,
            signature: [0; 64],
        };
        op.signature = key.sign(Label::LOG_OPENING_LOG, &[&op.statement(thread, seat)]);
        op
    }

    /// Tells whether the log key signed this opening for this seat of this thread.
    #[must_use]
    pub fn is_signed(&self, thread: ThreadId, seat: SeatId) -> bool {
        let statement = self.statement(thread, seat);
        VerifyingKey::from_bytes(&self.log.0).is_ok_and(|key| {
            key.verify(Label::LOG_OPENING_LOG, &[&statement], &self.signature)
                .is_ok()
        })
    }

    fn statement(&self, thread: ThreadId, seat: SeatId) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(6);
        thread.encode(&mut encoder);
        encoder.bytes(&seat.0);
        self.encode_unsigned(&mut encoder);
        encoder.into_vec()
    }

    fn encode_unsigned(&self, encoder: &mut Encoder) {
        encoder.bytes(&self.log.0);
        self.grant.encode(encoder);
        encoder.uint(self.incarnation);
        match &self.last {
            None => {
                encoder.null();
            }
            Some((seq, id)) => {
                encoder.array(2).uint(*seq);
                id.encode(encoder);
            }
        }
    }
}

/// The beginning of an epoch: its id commits to its key.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct EpochOp {
    /// The key domain: 0 is the roster, 1 the thread's documents.
    pub domain: u32,
    /// The commitment of the key.
    pub epoch: EpochId,
    /// The epochs that it follows, sorted: at most [`EPOCH_PARENTS_MAX`].
    pub parents: Vec<EpochParent>,
}

/// An epoch that another one follows.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct EpochParent {
    /// The epoch that is followed.
    pub epoch: EpochId,
    /// Its key, sealed to whoever holds the key of the one that follows; nothing if its author did not hold it.
    pub link: Option<KeyLink>,
}

impl From<EpochId> for EpochParent {
    /// Without a link.
    fn from(epoch: EpochId) -> Self {
        Self { epoch, link: None }
    }
}

/// An op in the frame of a control record: what evaluation needs, by number.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FrameOp {
    /// Gives a right.
    Grant(GrantOp),
    /// Opens a data log.
    Open(OpenOp),
    /// Begins an epoch.
    Epoch(EpochOp),
    /// Removes a member.
    Remove(RemoveOp),
    /// Accepts logs up to records, whoever was removed: at least one, at most [`ACCEPTANCES_MAX`], sorted by
    /// log.
    Accept(Vec<RecordRef>),
    /// Ends the author's own rights.
    Leave,
    /// Adds a seat to the member whose first seat the author is.
    Device(DeviceOp),
    /// Shows that a log has two branches: an encoded [`ForkProof`](crate::fork::ForkProof), at most
    /// [`SHOWN_PROOF_BYTES_MAX`] long, [`PROOFS_SHOWN_MAX`] of them in a frame. It speaks for itself, whoever
    /// shows it.
    Fork(Vec<u8>),
}

/// An op in the roster part of a control record: what only members and invitees learn.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RosterOp {
    /// Who a seat is: the device certificate, and the salt of the hash in its grant.
    Seat {
        /// The seat.
        seat: SeatId,
        /// Encoded device certificate.
        certificate: Vec<u8>,
        /// Salt of the hash of the identity.
        salt: [u8; 16],
        /// What the member wants to be called.
        name: String,
    },
    /// What the thread is called.
    Name(String),
    /// A versioned statement of the application layer, such as a collection's definition.
    Fact {
        /// What it is about.
        key: String,
        /// Of two, the higher counts.
        version: u64,
        /// What is stated.
        value: Vec<u8>,
    },
}

/// Why a control plaintext is not judged.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The bytes are no list of ops.
    #[error("the control part does not decode")]
    Decode(#[from] DecodeError),
    /// An op, role or scope that this version does not know.
    #[error("the control part has an op, role or scope that this version does not know")]
    Unknown,
    /// What follows the ops is not padding.
    #[error("what follows the ops is not padding")]
    BadPadding,
}

/// Encodes the plaintext of a frame.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{
///     FrameOp, GrantOp, Padding, Role, Scope, SeatId, decode_frame, encode_frame,
/// };
///
/// let grant = FrameOp::Grant(GrantOp {
///     seat: SeatId([1; 32]),
///     kem: [2; 32],
///     role: Role::Reader,
///     scope: Scope::Thread,
///     expires_millis: None,
///     identity: None,
///     recovery: None,
///     accepts: Vec::new(),
/// });
/// let frame = encode_frame(&[grant.clone()], Padding::Padme);
/// assert_eq!(decode_frame(&frame)?, [grant]);
/// # Ok::<(), leno_threads_core::ControlError>(())
/// ```
#[must_use]
pub fn encode_frame(ops: &[FrameOp], padding: Padding) -> Vec<u8> {
    let mut encoder = Encoder::append_to(vec![ENCODING]);
    encoder.array(ops.len());
    for op in ops {
        encode_frame_op(&mut encoder, op);
    }
    let mut plaintext = encoder.into_vec();
    padding.pad(&mut plaintext);
    plaintext
}

fn encode_frame_op(encoder: &mut Encoder, op: &FrameOp) {
    match op {
        FrameOp::Grant(op) => {
            encoder
                .array(9)
                .uint(0)
                .bytes(&op.seat.0)
                .bytes(&op.kem)
                .uint(op.role.number());
            match op.scope {
                Scope::Thread => encoder.array(1).uint(0),
            };
            match op.expires_millis {
                Some(millis) => encoder.uint(millis),
                None => encoder.null(),
            };
            for hash in [&op.identity, &op.recovery] {
                match hash {
                    Some(hash) => encoder.bytes(hash),
                    None => encoder.null(),
                };
            }
            encode_acceptances(encoder, &op.accepts);
        }
        FrameOp::Open(op) => {
            encoder.array(6).uint(1);
            op.encode_unsigned(encoder);
            encoder.bytes(&op.signature);
        }
        FrameOp::Epoch(op) => {
            encoder
                .array(4)
                .uint(2)
                .uint(op.domain.into())
                .bytes(&op.epoch.0);
            encoder.array(op.parents.len());
            for parent in &op.parents {
                encoder.array(2).bytes(&parent.epoch.0);
                match &parent.link {
                    Some(link) => encoder.bytes(&link.0),
                    None => encoder.null(),
                };
            }
        }
        FrameOp::Remove(op) => {
            encoder.array(3).uint(3).bytes(&op.member.0);
            encode_acceptances(encoder, &op.accepts);
        }
        FrameOp::Accept(accepts) => {
            encoder.array(2).uint(4);
            encode_acceptances(encoder, accepts);
        }
        FrameOp::Leave => {
            encoder.array(1).uint(5);
        }
        FrameOp::Device(op) => {
            encoder.array(5).uint(6);
            op.encode_unsigned(encoder);
            encoder.bytes(&op.signature);
        }
        FrameOp::Fork(proof) => {
            encoder.array(2).uint(7).bytes(proof);
        }
    }
}

fn encode_acceptances(encoder: &mut Encoder, accepts: &[RecordRef]) {
    encoder.array(accepts.len());
    for it in accepts {
        it.encode(encoder);
    }
}

fn decode_acceptances(decoder: &mut Decoder<'_>) -> Result<Vec<RecordRef>, DecodeError> {
    let mut accepts: Vec<RecordRef> = Vec::new();
    for _ in 0..decoder.array_up_to(ACCEPTANCES_MAX)? {
        let offset = decoder.offset();
        let it = RecordRef::decode(decoder)?;
        if it.seq == 0 || accepts.last().is_some_and(|last| last.log >= it.log) {
            let what = "the order or place of what is accepted";
            return Err(DecodeError::OutOfBounds { offset, what });
        }
        accepts.push(it);
    }
    Ok(accepts)
}

/// Decodes the plaintext of a frame.
///
/// # Errors
///
/// [`ControlError`].
pub fn decode_frame(plaintext: &[u8]) -> Result<Vec<FrameOp>, ControlError> {
    let mut proofs = 0;
    decode_ops(plaintext, |decoder| {
        let offset = decoder.offset();
        let op = decode_frame_op(decoder)?;
        proofs += usize::from(matches!(op, FrameOp::Fork(_)));
        if proofs > PROOFS_SHOWN_MAX {
            let what = "the number of proofs in a frame";
            return Err(DecodeError::OutOfBounds { offset, what }.into());
        }
        Ok(op)
    })
}

fn decode_ops<Op>(
    plaintext: &[u8],
    mut op: impl FnMut(&mut Decoder<'_>) -> Result<Op, ControlError>,
) -> Result<Vec<Op>, ControlError> {
    let Some((&ENCODING, content)) = plaintext.split_first() else {
        return Err(ControlError::Unknown);
    };
    let mut decoder = Decoder::new(content);
    let count = decoder.array_up_to(CONTROL_OPS_MAX)?;
    let mut ops = Vec::new();
    for _ in 0..count {
        ops.push(op(&mut decoder)?);
    }
    if !padding_is_good(plaintext, 1 + decoder.offset()) {
        return Err(ControlError::BadPadding);
    }
    Ok(ops)
}

fn expect_length(count: usize, expected: usize, offset: usize) -> Result<(), ControlError> {
    if count == expected {
        return Ok(());
    }
    Err(DecodeError::OutOfBounds {
        offset,
        what: "the length of a control op",
    }
    .into())
}

fn decode_frame_op(decoder: &mut Decoder<'_>) -> Result<FrameOp, ControlError> {
    let offset = decoder.offset();
    let count = decoder.array()?;
    let kind = decoder.uint()?;
    match kind {
        0 => {
            expect_length(count, 9, offset)?;
            let seat = SeatId(*decoder.fixed()?);
            let kem = *decoder.fixed()?;
            let role = Role::from_number(decoder.uint()?).ok_or(ControlError::Unknown)?;
            let scope_length = decoder.array()?;
            if scope_length != 1 || decoder.uint()? != 0 {
                return Err(ControlError::Unknown);
            }
            let expires_millis = if decoder.null()? {
                None
            } else {
                Some(decoder.uint()?)
            };
            let mut hash = || -> Result<_, DecodeError> {
                Ok(if decoder.null()? {
                    None
                } else {
                    Some(*decoder.fixed()?)
                })
            };
            let (identity, recovery) = (hash()?, hash()?);
            let accepts = decode_acceptances(decoder)?;
            Ok(FrameOp::Grant(GrantOp {
                seat,
                kem,
                role,
                scope: Scope::Thread,
                expires_millis,
                identity,
                recovery,
                accepts,
            }))
        }
        1 => {
            expect_length(count, 6, offset)?;
            let log = LogId(*decoder.fixed()?);
            let grant = OpRef::decode(decoder)?;
            let incarnation = decoder.uint()?;
            let last = if decoder.null()? {
                None
            } else {
                decoder.array_of(2)?;
                Some((decoder.uint()?, RecordId::decode(decoder)?))
            };
            let signature = *decoder.fixed()?;
            Ok(FrameOp::Open(OpenOp {
                log,
                grant,
                incarnation,
                last,
                signature,
            }))
        }
        2 => {
            expect_length(count, 4, offset)?;
            let domain = decoder.u32()?;
            let epoch = EpochId(*decoder.fixed()?);
            let mut parents: Vec<EpochParent> = Vec::new();
            for _ in 0..decoder.array_up_to(EPOCH_PARENTS_MAX)? {
                decoder.array_of(2)?;
                let offset = decoder.offset();
                let epoch = EpochId(*decoder.fixed()?);
                if parents.last().is_some_and(|last| last.epoch >= epoch) {
                    let what = "the order of an epoch's parents";
                    return Err(DecodeError::OutOfBounds { offset, what }.into());
                }
                let link = match decoder.null()? {
                    true => None,
                    false => Some(KeyLink(*decoder.fixed()?)),
                };
                parents.push(EpochParent { epoch, link });
            }
            Ok(FrameOp::Epoch(EpochOp {
                domain,
                epoch,
                parents,
            }))
        }
        3 => {
            expect_length(count, 3, offset)?;
            Ok(FrameOp::Remove(RemoveOp {
                member: SeatId(*decoder.fixed()?),
                accepts: decode_acceptances(decoder)?,
            }))
        }
        4 => {
            expect_length(count, 2, offset)?;
            let accepts = decode_acceptances(decoder)?;
            if accepts.is_empty() {
                let what = "the number of logs that are accepted";
                return Err(DecodeError::OutOfBounds { offset, what }.into());
            }
            Ok(FrameOp::Accept(accepts))
        }
        5 => {
            expect_length(count, 1, offset)?;
            Ok(FrameOp::Leave)
        }
        6 => {
            expect_length(count, 5, offset)?;
            Ok(FrameOp::Device(DeviceOp {
                member: SeatId(*decoder.fixed()?),
                seat: SeatId(*decoder.fixed()?),
                kem: *decoder.fixed()?,
                signature: *decoder.fixed()?,
            }))
        }
        7 => {
            expect_length(count, 2, offset)?;
            let proof = decoder.bytes()?;
            if proof.len() > SHOWN_PROOF_BYTES_MAX {
                let what = "the length of a proof";
                return Err(DecodeError::OutOfBounds { offset, what }.into());
            }
            Ok(FrameOp::Fork(proof.to_vec()))
        }
        _ => Err(ControlError::Unknown),
    }
}

/// Encodes the plaintext of a roster part.
#[must_use]
pub fn encode_roster(ops: &[RosterOp], padding: Padding) -> Vec<u8> {
    let mut encoder = Encoder::append_to(vec![ENCODING]);
    encoder.array(ops.len());
    for op in ops {
        match op {
            RosterOp::Seat {
                seat,
                certificate,
                salt,
                name,
            } => {
                encoder
                    .array(5)
                    .uint(0)
                    .bytes(&seat.0)
                    .bytes(certificate)
                    .bytes(salt)
                    .text(name);
            }
            RosterOp::Name(name) => {
                encoder.array(2).uint(1).text(name);
            }
            RosterOp::Fact {
                key,
                version,
                value,
            } => {
                encoder
                    .array(4)
                    .uint(2)
                    .text(key)
                    .uint(*version)
                    .bytes(value);
            }
        }
    }
    let mut plaintext = encoder.into_vec();
    padding.pad(&mut plaintext);
    plaintext
}

/// Decodes the plaintext of a roster part.
///
/// # Errors
///
/// [`ControlError`].
pub fn decode_roster(plaintext: &[u8]) -> Result<Vec<RosterOp>, ControlError> {
    decode_ops(plaintext, |decoder| {
        let offset = decoder.offset();
        let count = decoder.array()?;
        Ok(match decoder.uint()? {
            0 => {
                expect_length(count, 5, offset)?;
                RosterOp::Seat {
                    seat: SeatId(*decoder.fixed()?),
                    certificate: bounded(decoder.bytes()?, offset)?.to_vec(),
                    salt: *decoder.fixed()?,
                    name: bounded(decoder.text()?, offset)?.to_owned(),
                }
            }
            1 => {
                expect_length(count, 2, offset)?;
                RosterOp::Name(bounded(decoder.text()?, offset)?.to_owned())
            }
            2 => {
                expect_length(count, 4, offset)?;
                RosterOp::Fact {
                    key: bounded(decoder.text()?, offset)?.to_owned(),
                    version: decoder.uint()?,
                    value: bounded(decoder.bytes()?, offset)?.to_vec(),
                }
            }
            _ => return Err(ControlError::Unknown),
        })
    })
}

fn bounded<T: AsRef<[u8]> + ?Sized>(value: &T, offset: usize) -> Result<&T, DecodeError> {
    if value.as_ref().len() <= ROSTER_VALUE_BYTES_MAX {
        return Ok(value);
    }
    Err(DecodeError::OutOfBounds {
        offset,
        what: "the length of a roster value",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_rosters_have_one_encoding() {
        let key = SigningKey::from_secret_bytes(&[5; 32]).unwrap();
        let (thread, seat) = (ThreadId([1; 32]), SeatId([2; 32]));
        let grant = OpRef {
            record: RecordId([3; 32]),
            op: 0,
        };
        let open = OpenOp::sign(&key, thread, seat, grant, 1, Some((4, RecordId([5; 32]))));
        assert!(open.is_signed(thread, seat));
        assert!(!open.is_signed(ThreadId([0; 32]), seat));
        assert!(!open.is_signed(thread, SeatId([0; 32])));
        let device = DeviceOp::sign(&key, thread, seat, [6; 32]);
        assert!(device.is_signed(thread));
        assert!(!device.is_signed(ThreadId([0; 32])));
        let elsewhere = DeviceOp {
            member: SeatId([0; 32]),
            ..device.clone()
        };
        assert!(!elsewhere.is_signed(thread));
        let accepted = RecordRef {
            log: LogId([7; 32]),
            seq: 9,
            id: RecordId([8; 32]),
        };
        let frame = vec![
            FrameOp::Grant(GrantOp {
                seat,
                kem: [6; 32],
                role: Role::Writer,
                scope: Scope::Thread,
                expires_millis: Some(7),
                identity: Some([8; 32]),
                recovery: None,
                accepts: vec![accepted],
            }),
            FrameOp::Remove(RemoveOp {
                member: seat,
                accepts: vec![accepted],
            }),
            FrameOp::Accept(vec![accepted]),
            FrameOp::Leave,
            FrameOp::Fork(vec![1, 2, 3]),
            FrameOp::Device(device),
            FrameOp::Open(open),
            FrameOp::Epoch(EpochOp {
                domain: 1,
                epoch: EpochId([9; 32]),
                parents: vec![
                    EpochId([1; 32]).into(),
                    EpochParent {
                        epoch: EpochId([2; 32]),
                        link: Some(KeyLink([3; 48])),
                    },
                ],
            }),
        ];
        for padding in [Padding::Padme, Padding::Off] {
            assert_eq!(
                decode_frame(&encode_frame(&frame, padding)),
                Ok(frame.clone())
            );
        }
        let roster = vec![
            RosterOp::Seat {
                seat,
                certificate: vec![1, 2],
                salt: [3; 16],
                name: "Ann".to_owned(),
            },
            RosterOp::Name("band".to_owned()),
            RosterOp::Fact {
                key: "collection/songs".to_owned(),
                version: 1,
                value: vec![4],
            },
        ];
        assert_eq!(
            decode_roster(&encode_roster(&roster, Padding::Padme)),
            Ok(roster)
        );
    }

    #[test]
    fn unknown_ops_and_bad_padding_are_told_apart() {
        let mut unknown = Encoder::append_to(vec![ENCODING]);
        unknown.array(1).array(1).uint(31);
        assert_eq!(decode_frame(unknown.as_slice()), Err(ControlError::Unknown));
        let mut padded = encode_frame(&[], Padding::Padme);
        padded[63] = 1;
        assert_eq!(decode_frame(&padded), Err(ControlError::BadPadding));
        assert_eq!(decode_frame(&[1]), Err(ControlError::Unknown));
    }

    #[test]
    fn roles_grant_only_downwards() {
        use Role::{Admin, Owner, Reader, Replicator, Writer};
        let all = [Owner, Admin, Writer, Reader, Replicator];
        let granted = |role: Role| {
            all.into_iter()
                .filter(move |it| role.may_grant(*it))
                .count()
        };
        assert_eq!(all.map(granted), [5, 3, 0, 0, 0]);
        assert!(!Admin.may_grant(Admin));
    }
}

//! The messages of a sync session.
//!
//! Each is a dag-cbor list that begins with the number of its kind. Threads are named by the place
//! in the sender's list of tags; logs by the place in the order in which the sender first named them
//! in [`Message::Range`].

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder, Kind};
use leno_crdt_codec::{LogId, Seq};

use super::signal::Signal;
use super::tree::{Name, Prefix};
use crate::epoch::Wrap;
use crate::fork::BRANCH_HEADERS_MAX;
use crate::{EpochId, Header, Run, SeatId, VerifyError};

mod tree;

pub use tree::{Below, NAMES_MAX, NODES_MAX, ShortNode, Shown};

use tree::{decode_of_tree, encode_prefix, encode_shown};

/// Version of the sync messages.
pub const SYNC_VERSION: u64 = 1;

/// Longest message, in bytes.
pub const SYNC_MESSAGE_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Bytes of runs after which a range message is closed.
pub const RANGE_BYTES: usize = 1 << 20;

/// Most threads that one side names in a session.
pub const TAGS_MAX: usize = 1 << 16;

/// Most logs in one message.
pub const LOGS_MAX: usize = 1 << 14;

/// Most wraps in one message.
pub const WRAPS_MAX: usize = 4096;

/// Most epochs in one message.
pub const EPOCHS_MAX: usize = 64;

/// Bytes of the short hash of a head.
pub const SHORT_HASH_BYTES: usize = 8;

/// Names a thread in one session and direction without telling strangers which it is.
pub type Tag = [u8; 16];

/// One log of a vector: the newest record, and its id hashed under both sides' nonces.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HaveLog {
    /// The log.
    pub log: LogId,
    /// Its newest record; the highest number if nothing of the log is wanted, the one below if there is
    /// no room for more of it.
    pub seq: Seq,
    /// Short hash of that record's id.
    pub hash: [u8; SHORT_HASH_BYTES],
}

/// What stands for the newest record of a log that is not wanted, and of one that there is no room for.
const UNWANTED: Seq = Seq::MAX;
const NO_ROOM: Seq = Seq::MAX - 1;

impl HaveLog {
    /// Says that nothing of a log is wanted, until the next vector.
    #[must_use]
    pub fn unwanted(log: LogId) -> Self {
        Self {
            log,
            seq: UNWANTED,
            hash: [0; SHORT_HASH_BYTES],
        }
    }

    /// Says that there is no room for more of a log, until the next vector.
    #[must_use]
    pub fn no_room(log: LogId) -> Self {
        Self {
            log,
            seq: NO_ROOM,
            hash: [0; SHORT_HASH_BYTES],
        }
    }

    /// Tells whether nothing more of the log is to be sent.
    #[must_use]
    pub fn is_declined(&self) -> bool {
        self.seq >= NO_ROOM
    }

    /// Tells whether that is for want of room.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        self.seq == NO_ROOM
    }
}

/// What became of the ranges of a log.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct AckLog {
    /// The log, by the number that the receiver of the acknowledgement gave it.
    pub number: u32,
    /// Its newest record that is durable at the sender.
    pub seq: Seq,
    /// How many ranges of it were looked at since the session began, taken in or not: what is beyond
    /// was under way.
    pub ranges: u64,
}

/// Names a log in a range.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LogName {
    /// For the first time: it takes the next number.
    New(LogId),
    /// By its number.
    Known(u32),
}

/// A message between two peers.
///
/// # Examples
///
/// ```
/// use leno_threads_core::sync::Message;
///
/// let bytes = Message::Totals { thread: 0, records: 12 }.encode();
/// assert_eq!(bytes, [0x83, 4, 0, 12]); // a list that begins with the kind
/// assert!(matches!(Message::decode(&bytes)?, Message::Totals { thread: 0, records: 12 }));
/// // Claims of more than there is are refused before anything is allocated.
/// assert!(Message::decode(&[0x83, 4, 0]).is_err());
/// # Ok::<(), leno_threads_core::VerifyError>(())
/// ```
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// 0: the first of each side.
    Hello {
        /// Random, new for each session.
        nonce: [u8; 32],
    },
    /// 1: threads that the sender follows; the list goes on with each such message.
    Threads {
        /// Their tags of this session, or the [`Name`]s of threads that both sides remember to share.
        tags: Vec<Tag>,
    },
    /// 2: the sender holds this seat of a thread that both follow.
    Prove {
        /// The thread.
        thread: u32,
        /// The seat.
        seat: SeatId,
        /// Its signature of the channel.
        signature: [u8; 64],
    },
    /// 3: what the sender has, and with that, what it wants.
    Have {
        /// The thread.
        thread: u32,
        /// Whether it wants everything, now and later. Otherwise it wants governance alone: it does not
        /// know the receiver's seat yet.
        subscribe: bool,
        /// Names the set of key wraps that it keeps.
        wraps: [u8; SHORT_HASH_BYTES],
        /// Its logs, sorted by id.
        logs: Vec<HaveLog>,
    },
    /// 4: how much will come in answer to a vector.
    Totals {
        /// The thread.
        thread: u32,
        /// Records.
        records: u64,
    },
    /// 5: records of a log, oldest first.
    Range {
        /// The thread.
        thread: u32,
        /// The log.
        log: LogName,
        /// Place of the first record.
        first: Seq,
        /// Consecutive runs.
        runs: Vec<Run<'a>>,
    },
    /// 6: epochs' keys for readers.
    Wraps {
        /// The thread.
        thread: u32,
        /// The wraps.
        wraps: Vec<Wrap>,
    },
    /// 7: what of the receiver's ranges is durable at the sender, by the receiver's log numbers.
    Ack {
        /// The thread.
        thread: u32,
        /// One line per log.
        logs: Vec<AckLog>,
    },
    /// 8: the sender's branch of a log, in answer to a question.
    Branch {
        /// The thread.
        thread: u32,
        /// The log.
        log: LogId,
        /// Signature of the head at its end.
        signature: [u8; 64],
        /// Its headers, oldest first.
        headers: Vec<Header>,
    },
    /// 9: show your headers of this log from here on: what you sent does not follow what I have.
    Question {
        /// The thread.
        thread: u32,
        /// The log.
        log: LogId,
        /// The first header wanted.
        from: Seq,
    },
    /// 10: the genesis of a thread, for a newcomer.
    Genesis {
        /// The thread.
        thread: u32,
        /// The encoded genesis.
        genesis: &'a [u8],
    },
    /// 11: the sender takes no more of this log from the receiver, until its next vector.
    Refused {
        /// The thread.
        thread: u32,
        /// The log.
        log: LogId,
        /// Whether that is for want of room.
        is_full: bool,
    },
    /// 12: nothing more is to come in answer to the vectors that came until now.
    UpToDate {
        /// The thread.
        thread: u32,
        /// How many vectors of this thread came in this session: the last of them is answered.
        vectors: u64,
    },
    /// 13: the sender's seat may read under these epochs and no wrap gave it their keys: wrap them
    /// anew.
    NeedKeys {
        /// The thread.
        thread: u32,
        /// The epochs, in ascending order.
        epochs: Vec<EpochId>,
    },
    /// 14: something that a seat says and nobody stores.
    Signal {
        /// The thread.
        thread: u32,
        /// The signal.
        signal: Signal,
    },
    /// 15: what the sender has by now of some logs, and does not send by itself.
    Announce {
        /// The thread.
        thread: u32,
        /// Whether it can push to one more peer.
        has_room: bool,
        /// The logs, sorted by id.
        logs: Vec<HaveLog>,
    },
    /// 16: send what you announced of these logs, and push from now on if you can.
    Graft {
        /// The thread.
        thread: u32,
        /// Push in any case: the sender follows the thread over few sessions.
        always: bool,
        /// The logs, sorted by id, and the newest record that the sender has.
        logs: Vec<(LogId, Seq)>,
    },
    /// 17: announce from now on: what you push is here already.
    Prune {
        /// The thread.
        thread: u32,
    },
    /// 18: the root of the sender's tree over the threads that it remembers to share.
    Compare {
        /// Tells one comparison from another: odd from the side with the lower key, else even.
        round: u32,
        /// The root.
        root: ShortNode,
    },
    /// 19: from whoever was asked to compare: its root is the same. From whoever asked: all
    /// differences are found.
    Compared {
        /// The comparison.
        round: u32,
    },
    /// 20: the sender does not follow the thread any more.
    Left {
        /// The thread.
        thread: u32,
    },
    /// 21: show these nodes.
    Ask {
        /// The comparison.
        round: u32,
        /// The nodes, ascending.
        nodes: Vec<Prefix>,
    },
    /// 22: nodes of the sender's tree.
    Nodes {
        /// The comparison.
        round: u32,
        /// The nodes, ascending.
        nodes: Vec<Shown>,
    },
    /// 23: the sender does not remember these threads.
    Unknown {
        /// Their names, ascending.
        names: Vec<Name>,
    },
    /// 24: so many of the receiver's tags were looked at.
    Seen {
        /// How many since the session began.
        tags: u32,
    },
    /// 25: send no data logs until the sender's next vector: another peer sends the same.
    Pause {
        /// The thread.
        thread: u32,
    },
}

impl<'a> Message<'a> {
    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut begin = |length: usize, kind: u64| {
            encoder.array(length).uint(kind);
        };
        match self {
            Self::Hello { nonce } => {
                begin(3, 0);
                encoder.uint(SYNC_VERSION).bytes(nonce);
            }
            Self::Threads { tags } => {
                begin(2, 1);
                encoder.array(tags.len());
                for tag in tags {
                    encoder.bytes(tag);
                }
            }
            Self::Prove {
                thread,
                seat,
                signature,
            } => {
                begin(4, 2);
                encoder
                    .uint((*thread).into())
                    .bytes(&seat.0)
                    .bytes(signature);
            }
            Self::Have {
                thread,
                subscribe,
                wraps,
                logs,
            } => {
                begin(5, 3);
                encoder.uint((*thread).into()).bool(*subscribe).bytes(wraps);
                encode_have(&mut encoder, logs);
            }
            Self::Totals { thread, records } => {
                begin(3, 4);
                encoder.uint((*thread).into()).uint(*records);
            }
            Self::Range {
                thread,
                log,
                first,
                runs,
            } => {
                begin(5, 5);
                encoder.uint((*thread).into());
                match log {
                    LogName::New(log) => encoder.bytes(&log.0),
                    LogName::Known(number) => encoder.uint((*number).into()),
                };
                encoder.uint(*first).array(runs.len() * 2);
                for run in runs {
                    run.encode(&mut encoder);
                }
            }
            Self::Wraps { thread, wraps } => {
                begin(3, 6);
                encoder.uint((*thread).into()).array(wraps.len());
                for wrap in wraps {
                    wrap.encode(&mut encoder);
                }
            }
            Self::Ack { thread, logs } => {
                begin(3, 7);
                encoder.uint((*thread).into()).array(logs.len());
                for it in logs {
                    encoder
                        .array(3)
                        .uint(it.number.into())
                        .uint(it.seq)
                        .uint(it.ranges);
                }
            }
            Self::Branch {
                thread,
                log,
                signature,
                headers,
            } => {
                begin(5, 8);
                encoder
                    .uint((*thread).into())
                    .bytes(&log.0)
                    .bytes(signature);
                encoder.array(headers.len());
                for header in headers {
                    encoder.bytes(&header.encode());
                }
            }
            Self::Question { thread, log, from } => {
                begin(4, 9);
                encoder.uint((*thread).into()).bytes(&log.0).uint(*from);
            }
            Self::Genesis { thread, genesis } => {
                begin(3, 10);
                encoder.uint((*thread).into()).bytes(genesis);
            }
            Self::Refused {
                thread,
                log,
                is_full,
            } => {
                begin(4, 11);
                encoder.uint((*thread).into()).bytes(&log.0).bool(*is_full);
            }
            Self::UpToDate { thread, vectors } => {
                begin(3, 12);
                encoder.uint((*thread).into()).uint(*vectors);
            }
            Self::Left { thread } => {
                begin(2, 20);
                encoder.uint((*thread).into());
            }
            Self::NeedKeys { thread, epochs } => {
                begin(3, 13);
                encoder.uint((*thread).into()).array(epochs.len());
                for epoch in epochs {
                    encoder.bytes(&epoch.0);
                }
            }
            Self::Signal { thread, signal } => {
                begin(9, 14);
                encoder.uint((*thread).into());
                signal.encode(&mut encoder);
            }
            Self::Announce {
                thread,
                has_room,
                logs,
            } => {
                begin(4, 15);
                encoder.uint((*thread).into()).bool(*has_room);
                encode_have(&mut encoder, logs);
            }
            Self::Graft {
                thread,
                always,
                logs,
            } => {
                begin(4, 16);
                encoder
                    .uint((*thread).into())
                    .bool(*always)
                    .array(logs.len());
                for (log, seq) in logs {
                    encoder.array(2).bytes(&log.0).uint(*seq);
                }
            }
            Self::Prune { thread } => {
                begin(2, 17);
                encoder.uint((*thread).into());
            }
            Self::Compare { round, root } => {
                begin(3, 18);
                encoder.uint((*round).into()).bytes(root);
            }
            Self::Compared { round } => {
                begin(2, 19);
                encoder.uint((*round).into());
            }
            Self::Ask { round, nodes } => {
                begin(3, 21);
                encoder.uint((*round).into()).array(nodes.len());
                for prefix in nodes {
                    encode_prefix(&mut encoder, prefix);
                }
            }
            Self::Nodes { round, nodes } => {
                begin(3, 22);
                encoder.uint((*round).into()).array(nodes.len());
                for shown in nodes {
                    encode_shown(&mut encoder, shown);
                }
            }
            Self::Unknown { names } => {
                begin(2, 23);
                encoder.array(names.len());
                for name in names {
                    encoder.bytes(name);
                }
            }
            Self::Seen { tags } => {
                begin(2, 24);
                encoder.uint((*tags).into());
            }
            Self::Pause { thread } => {
                begin(2, 25);
                encoder.uint((*thread).into());
            }
        }
        encoder.into_vec()
    }

    /// The thread that the message is about, by the sender's number.
    #[must_use]
    pub fn thread(&self) -> Option<u32> {
        match self {
            Self::Hello { .. }
            | Self::Threads { .. }
            | Self::Compare { .. }
            | Self::Compared { .. }
            | Self::Ask { .. }
            | Self::Nodes { .. }
            | Self::Unknown { .. }
            | Self::Seen { .. } => None,
            Self::Prove { thread, .. }
            | Self::Have { thread, .. }
            | Self::Totals { thread, .. }
            | Self::Range { thread, .. }
            | Self::Wraps { thread, .. }
            | Self::Ack { thread, .. }
            | Self::Branch { thread, .. }
            | Self::Question { thread, .. }
            | Self::Genesis { thread, .. }
            | Self::Refused { thread, .. }
            | Self::UpToDate { thread, .. }
            | Self::NeedKeys { thread, .. }
            | Self::Signal { thread, .. }
            | Self::Announce { thread, .. }
            | Self::Graft { thread, .. }
            | Self::Prune { thread }
            | Self::Pause { thread }
            | Self::Left { thread } => Some(*thread),
        }
    }

    /// Decodes a message. The items of runs are checked when the runs are verified.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] for bad bytes or runs out of bounds; the sender misbehaves.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, VerifyError> {
        let out_of_bounds = |what| DecodeError::OutOfBounds { offset: 0, what };
        if bytes.len() > SYNC_MESSAGE_BYTES_MAX {
            return Err(out_of_bounds("the length of a message").into());
        }
        let mut decoder = Decoder::new(bytes);
        let count = decoder.array()?;
        let kind = decoder.uint()?;
        let length = match kind {
            1 | 17 | 19 | 20 | 23..=25 => 2,
            0 | 4 | 6 | 7 | 10 | 12 | 13 | 18 | 21 | 22 => 3,
            2 | 9 | 11 | 15 | 16 => 4,
            3 | 5 | 8 => 5,
            14 => 9,
            _ => return Err(out_of_bounds("the kind of a message").into()),
        };
        if count != length {
            return Err(out_of_bounds("the length of a message").into());
        }
        let message = decode_body(&mut decoder, kind)?;
        decoder.finish()?;
        Ok(message)
    }
}

fn decode_body<'a>(decoder: &mut Decoder<'a>, kind: u64) -> Result<Message<'a>, VerifyError> {
    if kind == 0 {
        let offset = decoder.offset();
        if decoder.uint()? != SYNC_VERSION {
            let what = "the version of the sync messages";
            return Err(DecodeError::OutOfBounds { offset, what }.into());
        }
        return Ok(Message::Hello {
            nonce: *decoder.fixed()?,
        });
    }
    if kind == 1 {
        let mut tags = Vec::new();
        for _ in 0..decoder.array_up_to(TAGS_MAX)? {
            tags.push(*decoder.fixed()?);
        }
        return Ok(Message::Threads { tags });
    }
    if matches!(kind, 18 | 19 | 21..=24) {
        return decode_of_tree(decoder, kind);
    }
    let thread = decoder.u32()?;
    Ok(match kind {
        2 => Message::Prove {
            thread,
            seat: SeatId(*decoder.fixed()?),
            signature: *decoder.fixed()?,
        },
        3 => {
            let subscribe = decoder.bool()?;
            let wraps = *decoder.fixed()?;
            Message::Have {
                thread,
                subscribe,
                wraps,
                logs: decode_have(decoder)?,
            }
        }
        4 => Message::Totals {
            thread,
            records: decoder.uint()?,
        },
        5 => {
            let log = if decoder.peek()? == Kind::Bytes {
                LogName::New(LogId(*decoder.fixed()?))
            } else {
                LogName::Known(decoder.u32()?)
            };
            let first = decoder.uint()?;
            let offset = decoder.offset();
            let count = decoder.array()?;
            if count == 0 || count % 2 == 1 {
                let what = "the length of a range";
                return Err(DecodeError::OutOfBounds { offset, what }.into());
            }
            let mut runs = Vec::new();
            for _ in 0..count / 2 {
                runs.push(Run::decode(decoder)?);
            }
            Message::Range {
                thread,
                log,
                first,
                runs,
            }
        }
        6 => {
            let mut wraps = Vec::new();
            for _ in 0..decoder.array_up_to(WRAPS_MAX)? {
                wraps.push(Wrap::decode(decoder)?);
            }
            Message::Wraps { thread, wraps }
        }
        7 => {
            let mut logs = Vec::new();
            for _ in 0..decoder.array_up_to(LOGS_MAX)? {
                decoder.array_of(3)?;
                let (number, seq) = (decoder.u32()?, decoder.uint()?);
                logs.push(AckLog {
                    number,
                    seq,
                    ranges: decoder.uint()?,
                });
            }
            Message::Ack { thread, logs }
        }
        8 => {
            let log = LogId(*decoder.fixed()?);
            let signature = *decoder.fixed()?;
            let mut headers = Vec::new();
            for _ in 0..decoder.array_up_to(BRANCH_HEADERS_MAX)? {
                headers.push(Header::decode(decoder.bytes()?)?);
            }
            Message::Branch {
                thread,
                log,
                signature,
                headers,
            }
        }
        9 => Message::Question {
            thread,
            log: LogId(*decoder.fixed()?),
            from: decoder.uint()?,
        },
        10 => Message::Genesis {
            thread,
            genesis: decoder.bytes()?,
        },
        11 => Message::Refused {
            thread,
            log: LogId(*decoder.fixed()?),
            is_full: decoder.bool()?,
        },
        13 => {
            let mut epochs: Vec<EpochId> = Vec::new();
            for _ in 0..decoder.array_up_to(EPOCHS_MAX)? {
                let offset = decoder.offset();
                let epoch = EpochId(*decoder.fixed()?);
                if epochs.last().is_some_and(|last| *last >= epoch) {
                    let what = "the order of epochs";
                    return Err(DecodeError::OutOfBounds { offset, what }.into());
                }
                epochs.push(epoch);
            }
            Message::NeedKeys { thread, epochs }
        }
        14 => Message::Signal {
            thread,
            signal: Signal::decode(decoder)?,
        },
        15 => Message::Announce {
            thread,
            has_room: decoder.bool()?,
            logs: decode_have(decoder)?,
        },
        16 => Message::Graft {
            thread,
            always: decoder.bool()?,
            logs: decode_places(decoder)?,
        },
        17 => Message::Prune { thread },
        25 => Message::Pause { thread },
        20 => Message::Left { thread },
        _ => Message::UpToDate {
            thread,
            vectors: decoder.uint()?,
        },
    })
}

fn encode_have(encoder: &mut Encoder, logs: &[HaveLog]) {
    encoder.array(logs.len());
    for it in logs {
        encoder
            .array(3)
            .bytes(&it.log.0)
            .uint(it.seq)
            .bytes(&it.hash);
    }
}

fn decode_places(decoder: &mut Decoder<'_>) -> Result<Vec<(LogId, Seq)>, DecodeError> {
    let mut logs: Vec<(LogId, Seq)> = Vec::new();
    for _ in 0..decoder.array_up_to(LOGS_MAX)? {
        let offset = decoder.offset();
        decoder.array_of(2)?;
        let (log, seq) = (LogId(*decoder.fixed()?), decoder.uint()?);
        if logs.last().is_some_and(|(last, _)| *last >= log) {
            let what = "the order of logs";
            return Err(DecodeError::OutOfBounds { offset, what });
        }
        logs.push((log, seq));
    }
    Ok(logs)
}

fn decode_have(decoder: &mut Decoder<'_>) -> Result<Vec<HaveLog>, DecodeError> {
    let mut logs: Vec<HaveLog> = Vec::new();
    for _ in 0..decoder.array_up_to(LOGS_MAX)? {
        let offset = decoder.offset();
        decoder.array_of(3)?;
        let it = HaveLog {
            log: LogId(*decoder.fixed()?),
            seq: decoder.uint()?,
            hash: *decoder.fixed()?,
        };
        if it.seq == 0 || logs.last().is_some_and(|last| last.log >= it.log) {
            return Err(DecodeError::OutOfBounds {
                offset,
                what: "an entry of a vector",
            });
        }
        logs.push(it);
    }
    Ok(logs)
}

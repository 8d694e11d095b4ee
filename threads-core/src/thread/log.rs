//! Where a log stands on this peer, and the row that keeps it.

use std::collections::{BTreeMap, VecDeque};

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq, Stamp};
use leno_identity::VerifyingKey;

use super::fence::Fenced;
use crate::frontier::Frontier;
use crate::run::Mark;
use crate::{RecordId, RecordRef, SignedHead, ThreadId, Tip};

/// How many of a log's newest run ends are remembered, because deps name them.
const RECENT_MAX: usize = 64;

/// How many of a log's newest admitted records are remembered: what is released next names them.
const PLACES_MAX: usize = 64;

/// How many of a log's newest frontiers are remembered. Older ones are read from the store.
const STEPS_MAX: usize = 64;

/// Most beginnings of one log that are kept apart while it is empty.
const ORIGINS_MAX: usize = 64;

/// What a verified record waits for. It is released by itself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Parked {
    /// A data record that it depends on.
    Dep(RecordRef),
    /// A control record that its author had seen.
    Control(RecordRef),
    /// A time at which its stamp is no longer too far ahead.
    Time(Stamp),
    /// A proof that the log of a record that it names has two branches there: another record is here
    /// at that place.
    Fork(RecordRef),
    /// A version of this software that knows its ops.
    Version,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogStatus {
    /// The log.
    pub id: LogId,
    /// Whether it is a control log.
    pub is_control: bool,
    /// The last record that is stored and verified.
    pub tip: Tip,
    /// The last record that is admitted.
    pub admitted: Seq,
    /// What the next one waits for, if it is here.
    pub parked: Option<Parked>,
    /// The signed head that covers `tip`; nothing for an empty log.
    pub head: Option<SignedHead>,
    /// Bytes of its records as they travel.
    pub bytes: u64,
}

/// A control record that a log may begin at: an opening, or a grant to the seat of a control log.
///
/// A seat may be granted twice and a log opened twice, by records that know nothing of each other.
/// Which one counts is told by the log itself: its first record names it as `prev`. So peers that
/// learn of them in another order agree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Origin {
    pub(super) is_control: bool,
    pub(super) tip: Tip,
    pub(super) past: Frontier,
    /// Stamps above this are beyond the grant that the log writes under.
    pub(super) expires: Option<Stamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) number: u32,
    /// Where the log may begin, until its first record tells.
    origins: Vec<Origin>,
    /// Where it begins.
    pub(super) origin: RecordId,
    pub(super) is_control: bool,
    pub(super) tip: Tip,
    pub(super) head: Option<SignedHead>,
    /// Bytes of its stored records as they travel.
    pub(super) bytes: u64,
    pub(super) admitted: Seq,
    pub(super) admitted_stamp: Stamp,
    pub(super) parked: Option<Parked>,
    /// What is waited for, once the record at its place is here too and was compared.
    pub(super) doubted: Option<RecordRef>,
    /// Control records in the past of its beginning.
    pub(super) opened: Frontier,
    /// Control records in the past of the newest admitted record, or of what is drafted behind it.
    pub(super) frontier: Frontier,
    /// The newest changes of `frontier`, each with the record that made it.
    steps: VecDeque<(Seq, Frontier)>,
    /// Data records that the newest admitted record's author has shown to have seen.
    pub(super) seen: Frontier,
    /// The first admitted record whose key was missing.
    pub(super) gap: Option<Seq>,
    /// The admitted records that do not stand.
    pub(super) fenced: Vec<Fenced>,
    /// Bytes of the rows that are not admitted yet, and the last admitted record when that was right.
    pub(super) waiting: Option<(Seq, u64)>,
    /// The log's key, made ready when the first run of it came.
    pub(super) key: Option<Box<VerifyingKey>>,
    /// Rows that were stored since the log was packed, as far as this run of the program knows.
    pub(super) loose: u32,
    /// Ends of the newest runs.
    recent: VecDeque<(Seq, RecordId, Stamp)>,
    /// The newest admitted records.
    places: VecDeque<(Seq, RecordId, Stamp)>,
    /// Where the stored records go on that are not admitted, if that was found.
    pub(super) mark: Option<Mark>,
    /// Stamps above this are beyond the grant that the log writes under.
    pub(super) expires: Option<Stamp>,
}

impl Log {
    pub(super) fn new(number: u32, origin: Origin) -> Self {
        let mut log = Self {
            number,
            origins: Vec::new(),
            origin: origin.tip.id,
            is_control: origin.is_control,
            tip: origin.tip,
            head: None,
            bytes: 0,
            admitted: 0,
            admitted_stamp: origin.tip.stamp,
            parked: None,
            doubted: None,
            opened: Frontier::new(),
            frontier: Frontier::new(),
            steps: VecDeque::new(),
            seen: Frontier::new(),
            gap: None,
            fenced: Vec::new(),
            waiting: None,
            key: None,
            loose: 0,
            recent: VecDeque::new(),
            places: VecDeque::new(),
            mark: None,
            expires: None,
        };
        log.begin_at(&origin);
        log.origins.push(origin);
        log
    }

    /// Notes that the log may also begin here.
    pub(super) fn add_origin(&mut self, origin: Origin) {
        let known = |it: &Origin| it.tip.id == origin.tip.id && it.is_control == origin.is_control;
        if self.origins.len() < ORIGINS_MAX && !self.origins.iter().any(known) {
            self.origins.push(origin);
        }
    }

    /// Where the log may begin; only one place once it has a record.
    pub(super) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Begins an empty log at one of its origins.
    pub(super) fn begin_at(&mut self, origin: &Origin) {
        self.origin = origin.tip.id;
        self.is_control = origin.is_control;
        self.tip = origin.tip;
        self.admitted_stamp = origin.tip.stamp;
        self.opened = origin.past.clone();
        self.frontier = origin.past.clone();
        self.expires = origin.expires;
    }

    /// Takes over what the kept row of this log does not tell: what governance says of it.
    pub(super) fn adopt(&mut self, fresh: &Self) {
        self.origins.clone_from(&fresh.origins);
        let of = |it: &&Origin| it.tip.id == self.origin && it.is_control == self.is_control;
        if let Some(origin) = fresh.origins.iter().find(of) {
            self.expires = origin.expires;
            self.opened = origin.past.clone();
        }
    }

    pub(super) fn status(&self, id: LogId) -> LogStatus {
        LogStatus {
            id,
            is_control: self.is_control,
            tip: self.tip,
            admitted: self.admitted,
            parked: self.parked,
            head: self.head,
            bytes: self.bytes,
        }
    }

    pub(super) fn advance(&mut self, head: SignedHead, tip: Tip, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.tip = tip;
        self.head = Some(head);
        self.loose = self.loose.saturating_add(1);
        self.remember(tip.seq, tip.id, tip.stamp);
    }

    fn remember(&mut self, seq: Seq, id: RecordId, stamp: Stamp) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, id, stamp));
    }

    /// Notes that the next record is admitted.
    pub(super) fn admit(&mut self, seq: Seq, id: RecordId, stamp: Stamp) {
        self.admitted = seq;
        self.admitted_stamp = stamp;
        if self.places.len() == PLACES_MAX {
            self.places.pop_front();
        }
        self.places.push_back((seq, id, stamp));
    }

    pub(super) fn recent(&self, seq: Seq) -> Option<(RecordId, Stamp)> {
        let mut newest = self.places.iter().rev().chain(self.recent.iter().rev());
        let found = newest.find(|(at, _, _)| *at == seq);
        found.map(|(_, id, stamp)| (*id, *stamp))
    }

    /// The control records in the past of the record at `seq`, if that is remembered.
    pub(super) fn recent_frontier(&self, seq: Seq) -> Option<&Frontier> {
        if seq == 0 {
            return Some(&self.opened);
        }
        let after = self.steps.partition_point(|(at, _)| *at <= seq);
        let step = after.checked_sub(1).and_then(|index| self.steps.get(index));
        step.map(|(_, frontier)| frontier)
    }

    /// Tells whether a later record than the one at `seq` has a frontier of its own.
    pub(super) fn has_step_behind(&self, seq: Seq) -> bool {
        self.steps.back().is_some_and(|(at, _)| *at > seq)
    }

    /// Notes the frontier of the record at `seq`, the newest admitted or drafted one; tells whether it is
    /// new.
    pub(super) fn step(&mut self, seq: Seq, frontier: Frontier) -> bool {
        if frontier == self.frontier {
            return false;
        }
        if self.steps.len() == STEPS_MAX {
            self.steps.pop_front();
        }
        self.steps.push_back((seq, frontier.clone()));
        self.frontier = frontier;
        true
    }

    /// The row of a log: `[id, is control, tip, signature or null, admitted, its stamp, frontier,
    /// seen, gap or null, origin, bytes]`, where a frontier is a list of log number and seq in turn.
    pub(super) fn encode(&self, id: LogId, numbers: &BTreeMap<LogId, u32>) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(ROW_FIELDS).bytes(&id.0).bool(self.is_control);
        self.tip.encode(&mut encoder);
        match &self.head {
            Some(head) => encoder.bytes(&head.signature),
            None => encoder.null(),
        };
        encoder.uint(self.admitted).uint(self.admitted_stamp.0);
        encode_frontier(&mut encoder, &self.frontier, numbers);
        encode_frontier(&mut encoder, &self.seen, numbers);
        match self.gap {
            Some(seq) => encoder.uint(seq),
            None => encoder.null(),
        };
        encoder.bytes(&self.origin.0).uint(self.bytes);
        encoder.into_vec()
    }

    pub(super) fn decode(
        row: &[u8],
        number: u32,
        thread: ThreadId,
        ids: &BTreeMap<u32, LogId>,
    ) -> Result<(LogId, Self), DecodeError> {
        let mut decoder = Decoder::new(row);
        decoder.array_of(ROW_FIELDS)?;
        let id = LogId(*decoder.fixed()?);
        let is_control = decoder.bool()?;
        let tip = Tip::decode(&mut decoder)?;
        let signature = if decoder.null()? {
            None
        } else {
            Some(*decoder.fixed()?)
        };
        let admitted = decoder.uint()?;
        let admitted_stamp = Stamp(decoder.uint()?);
        let frontier = decode_frontier(&mut decoder, ids)?;
        let seen = decode_frontier(&mut decoder, ids)?;
        let gap = if decoder.null()? {
            None
        } else {
            Some(decoder.uint()?)
        };
        let origin = RecordId(*decoder.fixed()?);
        let bytes = decoder.uint()?;
        decoder.finish()?;
        let head = signature.map(|signature| SignedHead {
            thread,
            log: id,
            seq: tip.seq,
            id: tip.id,
            signature,
        });
        let mut log = Self {
            number,
            origins: Vec::new(),
            origin,
            is_control,
            tip,
            head,
            bytes,
            admitted,
            admitted_stamp,
            parked: None,
            doubted: None,
            opened: Frontier::new(),
            frontier,
            steps: VecDeque::new(),
            seen,
            gap,
            fenced: Vec::new(),
            waiting: None,
            key: None,
            loose: 0,
            recent: VecDeque::new(),
            places: VecDeque::new(),
            mark: None,
            expires: None,
        };
        if tip.seq > 0 {
            log.remember(tip.seq, tip.id, tip.stamp);
        }
        Ok((id, log))
    }
}

const ROW_FIELDS: usize = 11;

/// The log id that begins a row, which tells numbers apart before the rest is read.
pub(super) fn id_of_row(row: &[u8]) -> Result<LogId, DecodeError> {
    let mut decoder = Decoder::new(row);
    decoder.array_of(ROW_FIELDS)?;
    Ok(LogId(*decoder.fixed()?))
}

pub(super) fn encode_frontier(
    encoder: &mut Encoder,
    frontier: &Frontier,
    numbers: &BTreeMap<LogId, u32>,
) {
    let known: Vec<_> = frontier
        .iter()
        .filter_map(|(log, seq)| numbers.get(&log).map(|number| (*number, seq)))
        .collect();
    encoder.array(known.len() * 2);
    for (number, seq) in known {
        encoder.uint(number.into()).uint(seq);
    }
}

pub(super) fn decode_frontier(
    decoder: &mut Decoder<'_>,
    ids: &BTreeMap<u32, LogId>,
) -> Result<Frontier, DecodeError> {
    let offset = decoder.offset();
    let count = decoder.array()?;
    let mut frontier = Frontier::new();
    for _ in 0..count / 2 {
        let number = decoder.u32()?;
        let seq = decoder.uint()?;
        let log = ids.get(&number).ok_or(DecodeError::OutOfBounds {
            offset,
            what: "a log number",
        })?;
        frontier.raise(*log, seq);
    }
    Ok(frontier)
}

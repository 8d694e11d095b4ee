//! Where a log stands on this peer, and the row that keeps it.

use std::collections::{BTreeMap, VecDeque};

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq, Stamp};

use crate::frontier::Frontier;
use crate::{RecordId, RecordRef, SignedHead, ThreadId, Tip};

/// How many of a log's newest run ends are remembered, because deps name them.
const RECENT_MAX: usize = 64;

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
}

#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) number: u32,
    pub(super) is_control: bool,
    pub(super) tip: Tip,
    pub(super) head: Option<SignedHead>,
    pub(super) admitted: Seq,
    pub(super) admitted_stamp: Stamp,
    pub(super) parked: Option<Parked>,
    /// Control records in the past of the newest admitted record.
    pub(super) frontier: Frontier,
    /// `frontier` after each record that changed it.
    pub(super) steps: Vec<(Seq, Frontier)>,
    /// Data records that the newest admitted record's author has shown to have seen.
    pub(super) seen: Frontier,
    /// The first admitted record whose key was missing.
    pub(super) gap: Option<Seq>,
    /// Ends of the newest runs.
    pub(super) recent: VecDeque<(Seq, RecordId, Stamp)>,
    /// Stamps above this are beyond the grant that the log writes under.
    pub(super) expires: Option<Stamp>,
}

impl Log {
    pub(super) fn new(number: u32, is_control: bool, opened: Tip, past: Frontier) -> Self {
        Self {
            number,
            is_control,
            tip: opened,
            head: None,
            admitted: 0,
            admitted_stamp: opened.stamp,
            parked: None,
            steps: vec![(0, past.clone())],
            frontier: past,
            seen: Frontier::new(),
            gap: None,
            recent: VecDeque::new(),
            expires: None,
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
        }
    }

    pub(super) fn advance(&mut self, head: SignedHead, tip: Tip) {
        self.tip = tip;
        self.head = Some(head);
        self.remember(tip.seq, tip.id, tip.stamp);
    }

    pub(super) fn remember(&mut self, seq: Seq, id: RecordId, stamp: Stamp) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, id, stamp));
    }

    pub(super) fn recent(&self, seq: Seq) -> Option<(RecordId, Stamp)> {
        let found = self.recent.iter().rev().find(|(at, _, _)| *at == seq);
        found.map(|(_, id, stamp)| (*id, *stamp))
    }

    /// The control records in the past of the record at `seq`.
    pub(super) fn frontier_at(&self, seq: Seq) -> &Frontier {
        let after = self.steps.partition_point(|(at, _)| *at <= seq);
        let step = after.checked_sub(1).and_then(|index| self.steps.get(index));
        step.map_or(&self.frontier, |(_, frontier)| frontier)
    }

    /// Notes the frontier of the record at `seq`, the newest admitted one.
    pub(super) fn step(&mut self, seq: Seq, frontier: Frontier) {
        if frontier != self.frontier {
            self.steps.push((seq, frontier.clone()));
            self.frontier = frontier;
        }
    }

    pub(super) fn encode(&self, id: LogId, numbers: &BTreeMap<LogId, u32>) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(9).bytes(&id.0).bool(self.is_control);
        self.tip.encode(&mut encoder);
        match &self.head {
            Some(head) => encoder.bytes(&head.signature),
            None => encoder.null(),
        };
        encoder.uint(self.admitted).uint(self.admitted_stamp.0);
        encoder.array(self.steps.len());
        for (seq, frontier) in &self.steps {
            encoder.array(2).uint(*seq);
            encode_frontier(&mut encoder, frontier, numbers);
        }
        encode_frontier(&mut encoder, &self.seen, numbers);
        match self.gap {
            Some(seq) => encoder.uint(seq),
            None => encoder.null(),
        };
        encoder.into_vec()
    }

    pub(super) fn decode(
        row: &[u8],
        number: u32,
        thread: ThreadId,
        ids: &BTreeMap<u32, LogId>,
    ) -> Result<(LogId, Self), DecodeError> {
        let mut decoder = Decoder::new(row);
        decoder.array_of(9)?;
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
        let mut steps = Vec::new();
        for _ in 0..decoder.array()? {
            decoder.array_of(2)?;
            steps.push((decoder.uint()?, decode_frontier(&mut decoder, ids)?));
        }
        let seen = decode_frontier(&mut decoder, ids)?;
        let gap = if decoder.null()? {
            None
        } else {
            Some(decoder.uint()?)
        };
        decoder.finish()?;
        let frontier = steps
            .last()
            .map(|(_, frontier)| frontier.clone())
            .unwrap_or_default();
        let head = signature.map(|signature| SignedHead {
            thread,
            log: id,
            seq: tip.seq,
            id: tip.id,
            signature,
        });
        let mut log = Self {
            number,
            is_control,
            tip,
            head,
            admitted,
            admitted_stamp,
            parked: None,
            frontier,
            steps,
            seen,
            gap,
            recent: VecDeque::new(),
            expires: None,
        };
        if tip.seq > 0 {
            log.remember(tip.seq, tip.id, tip.stamp);
        }
        Ok((id, log))
    }
}

/// The log id that begins a row, which tells numbers apart before the rest is read.
pub(super) fn id_of_row(row: &[u8]) -> Result<LogId, DecodeError> {
    let mut decoder = Decoder::new(row);
    decoder.array_of(9)?;
    Ok(LogId(*decoder.fixed()?))
}

fn encode_frontier(encoder: &mut Encoder, frontier: &Frontier, numbers: &BTreeMap<LogId, u32>) {
    let known: Vec<_> = frontier
        .iter()
        .filter_map(|(log, seq)| numbers.get(&log).map(|number| (*number, seq)))
        .collect();
    encoder.array(known.len() * 2);
    for (number, seq) in known {
        encoder.uint(number.into()).uint(seq);
    }
}

fn decode_frontier(
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

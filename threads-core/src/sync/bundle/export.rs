//! Making a bundle, part by part.

use std::collections::VecDeque;

use leno_crdt_codec::cbor::Encoder;
use rand_core::CryptoRng;

use super::part::{
    BundleId, BundleKey, OVERHEAD_BYTES, PART_BYTES_MAX, Part, new_key_for, shared_key, tag,
};
use super::{BundleError, Vector};
use crate::store::{StoreError, View};
use crate::sync::message::{HaveLog, LOGS_MAX, Message, WRAPS_MAX};
use crate::sync::send::{Part as Logs, next_range};
use crate::sync::session::{Matched, short_hash};
use crate::sync::spread::Link;
use crate::thread::Thread;
use crate::{SeatId, ThreadId, Wrap};

/// Length of a part unless another is asked for, in bytes.
pub const PART_BYTES: usize = 64 << 10;

/// Shortest length of a part that may be asked for, in bytes.
pub const PART_BYTES_MIN: usize = OVERHEAD_BYTES + 64;

/// What a bundle is to hold, and for whom.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// What the one who gets it has already: that is left out. Nothing by default.
    pub since: Vector,
    /// The one seat that can open it. By default whoever holds the service key can.
    pub to: Option<SeatId>,
    /// Longest part, in bytes: [`PART_BYTES`] by default. 2,000 fit a QR code.
    pub part_bytes_max: usize,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            since: Vector::default(),
            to: None,
            part_bytes_max: PART_BYTES,
        }
    }
}

/// A bundle that is being made. Holds about a part and a range of records at a time.
///
/// It goes up to what was there when it was begun, see the [module](super) for an example.
#[derive(Debug)]
pub struct Export {
    thread: ThreadId,
    bundle: BundleId,
    tag: [u8; 16],
    key: BundleKey,
    encapsulated: Option<[u8; 32]>,
    piece_bytes: usize,
    /// What whoever reads the bundle up to here has, as a session keeps it.
    matched: Matched,
    stage: Stage,
    /// Messages that are not in a part yet.
    stream: VecDeque<u8>,
    number: u32,
    is_done: bool,
}

/// What comes next.
#[derive(Debug)]
enum Stage {
    Vector,
    Genesis,
    Control,
    Wraps(Option<VecDeque<Wrap>>),
    Data,
    End,
}

impl Export {
    /// Begins a bundle. What was written and not published is not in it.
    ///
    /// # Errors
    ///
    /// [`BundleError::PartBytes`], [`BundleError::NoRecipient`].
    pub fn new(
        thread: &Thread,
        options: ExportOptions,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, BundleError> {
        let ExportOptions {
            since,
            to,
            part_bytes_max: bytes,
        } = options;
        if !(PART_BYTES_MIN..=PART_BYTES_MAX).contains(&bytes) {
            return Err(BundleError::PartBytes { bytes });
        }
        let mut bundle = BundleId::default();
        rng.fill_bytes(&mut bundle);
        let (id, service) = (thread.id(), thread.service_key());
        let (key, encapsulated) = match to {
            None => (shared_key(service, id, &bundle), None),
            Some(seat) => {
                let mut grants = thread.governance().grants_of(seat);
                let key = grants
                    .find_map(|(_, grant)| new_key_for(id, seat, &grant.op.kem, &bundle, rng));
                let (key, encapsulated) = key.ok_or(BundleError::NoRecipient { seat })?;
                (key, Some(encapsulated))
            }
        };
        let matched = Matched {
            link: Link::only(Vector::of(thread).logs),
            theirs: since.logs,
            wraps_level: (since.wraps == thread.wraps_digest()).then(|| thread.wraps_kept()),
            ..Matched::default()
        };
        Ok(Self {
            thread: id,
            bundle,
            tag: tag(service, &bundle),
            key,
            encapsulated,
            piece_bytes: bytes - OVERHEAD_BYTES,
            matched,
            stage: Stage::Vector,
            stream: VecDeque::new(),
            number: 0,
            is_done: false,
        })
    }

    /// The next part; nothing after the last one. Take `view` after the last commit.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails; the same part can be asked for again.
    pub fn next_part(
        &mut self,
        thread: &Thread,
        view: &dyn View,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if self.is_done || thread.id() != self.thread {
            return Ok(None);
        }
        // One byte more than fits tells that this is not the last part.
        while self.stream.len() <= self.piece_bytes && !matches!(self.stage, Stage::End) {
            self.next_message(thread, view)?;
        }
        let count = self.piece_bytes.min(self.stream.len());
        let piece: Vec<u8> = self.stream.drain(..count).collect();
        self.is_done = self.stream.is_empty() && matches!(self.stage, Stage::End);
        let part = Part {
            bundle: self.bundle,
            tag: self.tag,
            number: self.number,
            is_last: self.is_done,
            encapsulated: self.encapsulated,
            sealed: &[],
        };
        self.number += 1;
        let (seat, secret) = (&thread.seat().signing, thread.nonce_secret());
        Ok(Some(part.seal(
            self.thread,
            &self.key,
            seat,
            &piece,
            secret,
            rng,
        )))
    }

    /// Adds the next message to the stream, or goes on to the next stage.
    fn next_message(&mut self, thread: &Thread, view: &dyn View) -> Result<(), StoreError> {
        match &mut self.stage {
            Stage::Vector => {
                self.stage = Stage::Genesis;
                self.push(&self.vector(thread));
            }
            Stage::Genesis => {
                self.stage = Stage::Control;
                if self.matched.theirs.is_empty() {
                    let genesis = thread.genesis().encode();
                    let genesis = Message::Genesis {
                        thread: 0,
                        genesis: &genesis,
                    };
                    self.push(&genesis.encode());
                }
            }
            Stage::Control => match self.range(thread, view, Logs::Governance)? {
                Some(range) => self.push(&range),
                None => self.stage = Stage::Wraps(None),
            },
            Stage::Wraps(wraps) => {
                let is_level = self.matched.wraps_level == Some(thread.wraps_kept());
                if wraps.is_none() && !is_level {
                    *wraps = Some(thread.wraps(view)?.into());
                }
                let wraps: Vec<Wrap> = match wraps {
                    Some(wraps) => wraps.drain(..WRAPS_MAX.min(wraps.len())).collect(),
                    None => Vec::new(),
                };
                if wraps.is_empty() {
                    self.stage = Stage::Data;
                    return Ok(());
                }
                self.push(&Message::Wraps { thread: 0, wraps }.encode());
            }
            Stage::Data => match self.range(thread, view, Logs::Data)? {
                Some(range) => self.push(&range),
                None => self.stage = Stage::End,
            },
            Stage::End => {}
        }
        Ok(())
    }

    /// What is here, its heads hashed with the bundle's id.
    fn vector(&self, thread: &Thread) -> Vec<u8> {
        let logs = thread.logs().filter(|log| log.tip.seq > 0).take(LOGS_MAX);
        let logs = logs.map(|log| HaveLog {
            log: log.id,
            seq: log.tip.seq,
            hash: short_hash(&self.bundle, &log.tip.id),
        });
        Message::Have {
            thread: 0,
            subscribe: true,
            wraps: thread.wraps_digest(),
            logs: logs.collect(),
        }
        .encode()
    }

    /// A range as a session sends it, but for its log, which always goes by its id, and no longer than
    /// a part where that can be: what is cut off is then little.
    fn range(
        &mut self,
        thread: &Thread,
        view: &dyn View,
        logs: Logs<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.matched.named_out.clear();
        self.matched.log_of_number.clear();
        next_range(&mut self.matched, thread, view, logs, self.piece_bytes)
    }

    fn push(&mut self, message: &[u8]) {
        let mut encoder = Encoder::with_capacity(message.len() + 5);
        encoder.bytes(message);
        self.stream.extend(encoder.into_vec());
    }
}

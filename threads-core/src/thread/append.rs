//! Writing data records, into a draft that one signature publishes.

use std::fmt;

use leno_crdt_codec::{LogId, Seq, Stamp, bug};
use leno_identity::{KeyError, SigningKey};
use rand_core::CryptoRng;

use super::{Changes, Thread, ThreadEvent};
use crate::control::{ControlError, FrameOp, OpenOp};
use crate::frontier::Frontier;
use crate::run::{NewRecord, Run, RunBuilder};
use crate::store::{Overlay, StoreError, View};
use crate::{
    EpochId, KeyRef, Now, PLAINTEXT_BYTES_MAX, RecordRef, SEAL_BYTES, Sealer, SignedHead,
    Stamp as At, VerifyError,
};

/// A data plaintext's first byte: dag-cbor, not compressed.
pub const BODY_ENCODING: u8 = 0;

/// Most bytes that a reference to a record takes.
const REF_BYTES_MAX: usize = 96;

/// The log that this peer writes.
pub(super) struct DataWriter {
    pub(super) key: SigningKey,
    pub(super) incarnation: u64,
    draft: Option<Draft>,
}

/// Records that are sealed and not yet signed.
struct Draft {
    run: RunBuilder,
    domain: u32,
    epoch: EpochId,
    sealer: Sealer,
    /// When the grant ends that the log writes under.
    expires: Option<Stamp>,
    /// [`Thread::admissions`] and the number of keys held when the last record was written: while
    /// both stay, there is nothing new to refer to, and no other epoch to seal under.
    admissions: u64,
    keys: usize,
}

impl DataWriter {
    pub(super) fn new(key: SigningKey, incarnation: u64) -> Self {
        Self {
            key,
            incarnation,
            draft: None,
        }
    }

    pub(super) fn log(&self) -> LogId {
        LogId(self.key.verifying_key().to_bytes())
    }
}

impl fmt::Debug for DataWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DataWriter")
            .field("log", &self.log())
            .finish_non_exhaustive()
    }
}

/// What became visible since a log's last record: what its next one names.
#[derive(Default)]
struct News {
    /// Whether more became visible than one record names.
    is_partial: bool,
    deps: Vec<RecordRef>,
    control: Vec<RecordRef>,
    /// The control frontier that they make; nothing if they name nothing.
    frontier: Option<Frontier>,
}

/// At least how many bytes of a run a record with so much content takes.
fn room(content: usize) -> usize {
    content + content / 8 + 64 + SEAL_BYTES
}

/// Where a record that was written stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Appended {
    /// The log.
    pub log: LogId,
    /// The record.
    pub seq: Seq,
    /// Its stamp.
    pub stamp: Stamp,
}

/// Why nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// This seat has no grant that lets it write; ask an owner or admin for one.
    #[error("this seat may not write here")]
    NotWriter,
    /// The key of the epoch to seal under has not come yet; sync with a member first.
    #[error("the key of key domain {domain} is not here yet")]
    NoKey {
        /// The key domain.
        domain: u32,
    },
    /// The content is longer than [`PLAINTEXT_BYTES_MAX`]; split it.
    #[error("a record of {bytes} bytes is too long")]
    BodyTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// This seat's control log is full: [`RECORDS_PER_EPOCH_MAX`] frames were sealed under one key.
    /// Another seat must govern from now on.
    ///
    /// [`RECORDS_PER_EPOCH_MAX`]: crate::RECORDS_PER_EPOCH_MAX
    #[error("the control log of this seat is full")]
    LogFull,
    /// Records of this seat's own control log wait here, such as for a stamp that is far ahead, and nothing
    /// is written behind them before they are admitted.
    #[error("records of this seat's own control log wait here")]
    Held,
    /// This seat opened as many logs as one may: [`OPENINGS_PER_SEAT_MAX`]. Ask for another seat.
    ///
    /// [`OPENINGS_PER_SEAT_MAX`]: crate::acl::OPENINGS_PER_SEAT_MAX
    #[error("this seat opened as many logs as one may")]
    TooManyLogs,
    /// The ops are more or longer than a control record may hold; split them.
    #[error("the ops do not fit into a control record")]
    Ops(#[from] ControlError),
    /// What was built would not be read by anybody, so it is not kept. This is a defect.
    #[error("the record would not be read by anybody")]
    Unreadable(#[from] VerifyError),
    /// The last stamp there is was given out.
    #[error("no stamp is left")]
    Exhausted,
    /// The generator gives no usable keys.
    #[error("no key could be made")]
    Key(#[from] KeyError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Thread {
    /// Writes a data record and returns its place. It is neither signed nor kept before
    /// [`Thread::publish`]; call that before the changes are committed.
    ///
    /// `content` is dag-cbor. Opens a log if the seat has none, which writes a control record.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    ///
    /// # Examples
    ///
    /// ```
    /// # use leno_identity::{AgreementKey, SigningKey};
    /// # use leno_threads_core::store::{MemoryStore, Store};
    /// # use leno_threads_core::thread::{Changes, Seat, Thread};
    /// # use leno_threads_core::*;
    /// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut rng = ChaCha20Rng::seed_from_u64(1);
    /// # let mut new_seat = || -> Result<Seat, leno_identity::KeyError> {
    /// #     let signing = SigningKey::generate(&mut rng)?;
    /// #     let kem = AgreementKey::generate(&mut rng)?;
    /// #     Ok(Seat { signing, kem })
    /// # };
    /// # let (seat, other) = (new_seat()?, new_seat()?);
    /// # let (store, now_millis) = (MemoryStore::new(), 1_700_000_000_000);
    /// # let (mut changes, secret) = (Changes::new(), NonceSecret::new(&[7; 32]));
    /// # let (view, suite) = (store.view()?, Suite::Aes256Gcm);
    /// # let mut band =
    /// #     Thread::create(&*view, 0, seat, secret, suite, &[], now_millis, &mut rng, &mut changes)?;
    /// // Two records, one signature.
    /// for word in [&[0x62, b'h', b'i'], &[0x62, b'h', b'o']] {
    ///     band.append(&*view, THREAD_DOMAIN, word, now_millis, &mut rng, &mut changes)?;
    /// }
    /// band.publish(&mut changes);
    /// let log = band.own_log().and_then(|log| band.log(&log));
    /// assert_eq!(log.map(|log| (log.tip.seq, log.admitted)), Some((2, 2)));
    /// // Now commit `changes`.
    /// # Ok(())
    /// # }
    /// ```
    pub fn append(
        &mut self,
        view: &dyn View,
        domain: u32,
        content: &[u8],
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<Appended, AppendError> {
        if content.len() >= PLAINTEXT_BYTES_MAX {
            return Err(AppendError::BodyTooLarge {
                bytes: content.len(),
            });
        }
        let now = now.into();
        let mut stamp = self.next_stamp(now)?;
        let mut news = News::default();
        if !self.draft_takes(domain, stamp, content.len()) {
            news = self.prepare_draft(view, domain, content.len(), now, rng, changes)?;
            // Opening a log gives out stamps, too.
            stamp = self.next_stamp(now)?;
        }
        let Some(writer) = &mut self.writer else {
            return Err(AppendError::NotWriter);
        };
        let log = writer.log();
        let Some(draft) = &mut writer.draft else {
            return Err(AppendError::NotWriter);
        };

        self.scratch.clear();
        self.scratch.push(BODY_ENCODING);
        self.scratch.extend_from_slice(content);
        self.padding.pad(&mut self.scratch);
        let News {
            deps,
            control,
            frontier,
            ..
        } = news;
        let epoch = draft.epoch;
        let key = KeyRef::Data { domain, epoch };
        let record = NewRecord {
            deps,
            control,
            stamp,
            key,
        };
        let (sealer, secret, plaintext) = (&draft.sealer, &self.nonce_secret, &self.scratch);
        draft.run.push(&record, |context, sealed| {
            sealer.seal_into(sealed, context, plaintext, secret, rng);
            None
        });
        let tip = *draft.run.tip();
        self.newest = stamp;
        // A record that names nothing, the usual one, changes nothing here.
        if let Some(frontier) = frontier
            && let Some(mut entry) = self.logs.remove(&log)
        {
            for dep in &record.deps {
                entry.seen.raise(dep.log, dep.seq);
            }
            self.note_step(&mut entry, tip.seq, frontier, changes);
            self.logs.insert(log, entry);
        }
        Ok(Appended {
            log,
            seq: tip.seq,
            stamp,
        })
    }

    /// Signs what was appended and adds it to the changes. Does nothing if nothing was.
    pub fn publish(&mut self, changes: &mut Changes) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let Some(draft) = writer.draft.take() else {
            return;
        };
        let log = writer.log();
        let (items, first, tip) = draft.run.finish();
        let head = SignedHead::sign(&writer.key, self.id, log, tip.seq, tip.id);
        debug_assert!(
            Run::from_parts(&items, &head.signature)
                .and_then(|run| run.derive(self.id, log, &first).map(drop))
                .is_ok(),
            "what this peer signs it can read"
        );
        let mut encoder =
            leno_crdt_codec::cbor::Encoder::append_to(Vec::with_capacity(items.len() + 192));
        encoder.array(3);
        first.encode(&mut encoder);
        encoder.bytes(&items).bytes(&head.signature);
        let Some(entry) = self.logs.get_mut(&log) else {
            return;
        };
        let key = crate::keys::record(self.number, entry.number, first.seq + 1);
        changes
            .batch
            .put(crate::store::Table::Runs, key, encoder.into_vec());
        entry.advance(head, tip, items.len());
        self.stored_bytes += items.len() as u64;
        entry.admitted = tip.seq;
        entry.admitted_stamp = tip.stamp;
        self.save_log(log, changes);
        let records = tip.seq - first.seq;
        changes.tell(
            self.id,
            ThreadEvent::Admitted {
                log,
                seq: tip.seq,
                records,
            },
        );
    }

    /// The last record of the own data log, signed or not.
    fn own_seq(&self) -> Seq {
        let Some(writer) = &self.writer else { return 0 };
        match &writer.draft {
            Some(draft) => draft.run.tip().seq,
            None => self.logs.get(&writer.log()).map_or(0, |log| log.tip.seq),
        }
    }

    /// Tells whether records are written that are not signed yet.
    pub(super) fn has_draft(&self) -> bool {
        self.draft().is_some()
    }

    /// Gives up the own data log: a copy of this device may have written it. The next write opens
    /// another, and names the last record of this one.
    pub fn retire_log(&mut self, changes: &mut Changes) {
        if let Some(writer) = self.writer.take() {
            self.retired = Some(writer.incarnation);
            changes.tell(self.id, ThreadEvent::OwnLogAhead { log: writer.log() });
            self.save(changes);
        }
    }

    fn open_log(
        &mut self,
        view: &dyn View,
        now: Now,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<(), AppendError> {
        let seat = self.seat.id();
        // The opening has the next stamp, and the log's first record one above that.
        let stamp = self.next_stamp(now)?;
        let stamp = stamp.next().ok_or(AppendError::Exhausted)?;
        let grant = self.governance.writing_grant_at(seat, stamp);
        let grant = grant.ok_or(AppendError::NotWriter)?;
        if self.governance.openings_are_used_up(seat) {
            return Err(AppendError::TooManyLogs);
        }
        let key = SigningKey::generate(rng)?;
        let before = self
            .governance
            .openings()
            .filter(|(_, opening)| opening.seat == seat)
            .max_by_key(|(_, opening)| opening.incarnation);
        let known = before.as_ref().map(|(_, opening)| opening.incarnation);
        let incarnation = known.max(self.retired).map_or(0, |newest| newest + 1);
        let last = before
            .and_then(|(log, _)| self.logs.get(&log))
            .filter(|log| log.tip.seq > 0)
            .map(|log| (log.tip.seq, log.tip.id));
        let open = OpenOp::sign(&key, self.id, seat, grant, incarnation, last);
        // The key is kept in the same batch as the opening that names it.
        let log = open.log;
        self.writer = Some(DataWriter::new(key, incarnation));
        let opened = self.govern(view, &[FrameOp::Open(open)], &[], now, rng, changes);
        if opened.is_err() {
            self.writer = None;
        }
        let opened = opened?;
        self.governance.settle(log, &opened.id);
        self.save(changes);
        Ok(())
    }

    /// Tells whether what follows in the own data log would not stand.
    fn is_own_log_over(&self, view: &dyn View, changes: &Changes) -> Result<bool, StoreError> {
        let Some(id) = self.own_log().filter(|id| !self.governance.is_unbarred(id)) else {
            return Ok(false);
        };
        let Some(log) = self.logs.get(&id) else {
            return Ok(false);
        };
        if log
            .fenced
            .last()
            .is_some_and(|it| *it.seqs.end() == log.admitted)
        {
            return Ok(true);
        }
        let overlay = Overlay::new(view, &changes.batch);
        let mut past = log.frontier.clone();
        past.merge(&self.known_control());
        let limit = self.limit_of(&overlay, id, log, &past)?;
        Ok(limit.up_to < Seq::MAX)
    }

    pub(super) fn next_stamp(&self, now: Now) -> Result<At, AppendError> {
        let next = self.newest.next().ok_or(AppendError::Exhausted)?;
        let clock = now.utc_millis().map_or(Stamp(0), Stamp::from_millis);
        Ok(next.max(clock))
    }

    fn draft(&self) -> Option<&Draft> {
        self.writer.as_ref()?.draft.as_ref()
    }

    /// Tells whether a record of `bytes` only has to be added to the draft, as most have.
    fn draft_takes(&self, domain: u32, stamp: Stamp, bytes: usize) -> bool {
        self.draft().is_some_and(|draft| {
            draft.domain == domain
                && draft.admissions == self.admissions
                && draft.keys == self.keys.len()
                && draft.expires.is_none_or(|expires| stamp <= expires)
                && draft.run.tip().seq < self.limits.records_per_epoch
                && !draft.run.is_full(room(bytes))
        })
    }

    /// Makes sure that there is a draft for a record of `bytes`, and tells what it has to name.
    fn prepare_draft(
        &mut self,
        view: &dyn View,
        domain: u32,
        bytes: usize,
        now: Now,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<News, AppendError> {
        let epoch = self.epoch_to_seal(view, domain, now, rng, changes)?;
        let stamp = self.next_stamp(now)?;
        let ended = |log: &super::log::Log| log.expires.is_some_and(|expires| stamp > expires);
        if self
            .own_log()
            .and_then(|log| self.logs.get(&log))
            .is_some_and(ended)
            || self.own_seq() >= self.limits.records_per_epoch
            || self.is_own_log_over(view, changes)?
        {
            // The grant that the log writes under has ended, or the log lies beyond a fence, or its key has
            // sealed all that it may: each log has a key of its own under an epoch.
            self.publish(changes);
            self.writer = None;
        }
        if self.writer.is_none() {
            self.open_log(view, now, rng, changes)?;
        }
        self.ready_draft(epoch, bytes, changes);
        let news = self.news_for_draft(view, changes)?;
        let expires = self.own_log().and_then(|log| self.logs.get(&log)?.expires);
        // What is left is named by the next record.
        let admissions = match news.is_partial {
            true => u64::MAX,
            false => self.admissions,
        };
        let keys = self.keys.len();
        if let Some(draft) = self.writer.as_mut().and_then(|it| it.draft.as_mut()) {
            draft.domain = domain;
            draft.expires = expires;
            draft.admissions = admissions;
            draft.keys = keys;
        }
        Ok(news)
    }

    /// Makes sure that there is a draft under `epoch` with room for `bytes`.
    fn ready_draft(&mut self, epoch: EpochId, bytes: usize, changes: &mut Changes) {
        let refs = 2 * REF_BYTES_MAX * self.limits.refs_named;
        let is_full = |draft: &Draft| {
            let has_news = draft.admissions != self.admissions;
            draft
                .run
                .is_full(room(bytes) + if has_news { refs } else { 0 })
        };
        if self.draft().is_some_and(is_full) {
            self.publish(changes);
        }
        let Some(log) = self.own_log() else { return };
        let Some(sealer) = self.sealer_for_draft(log, epoch) else {
            return;
        };
        let Some(tip) = self.logs.get(&log).map(|entry| entry.tip) else {
            return;
        };
        let id = self.id;
        let Some(writer) = &mut self.writer else {
            return;
        };
        match &mut writer.draft {
            Some(draft) if draft.epoch == epoch => {}
            Some(draft) => {
                draft.epoch = epoch;
                draft.sealer = sealer;
            }
            None => {
                let run = RunBuilder::new(id, log, tip);
                writer.draft = Some(Draft {
                    run,
                    domain: 0,
                    epoch,
                    sealer,
                    expires: None,
                    admissions: u64::MAX,
                    keys: 0,
                });
            }
        }
    }

    fn sealer_for_draft(&mut self, log: LogId, epoch: EpochId) -> Option<Sealer> {
        // A draft under this epoch keeps its sealer: cloning it would cost more than sealing.
        if self.draft().is_some_and(|draft| draft.epoch == epoch) {
            return None;
        }
        self.sealer(log, Some(epoch)).cloned()
    }

    /// What became visible since the last record of the own data log.
    fn news_for_draft(&self, view: &dyn View, changes: &Changes) -> Result<News, StoreError> {
        let nothing = Ok(News::default());
        let Some(writer) = &self.writer else {
            return nothing;
        };
        let log = writer.log();
        let drafted = writer.draft.as_ref().map(|draft| draft.admissions);
        let Some(entry) = self
            .logs
            .get(&log)
            .filter(|_| drafted != Some(self.admissions))
        else {
            return nothing;
        };
        let (control, frontier, mut is_all) =
            self.control_news(view, log, &entry.frontier, changes)?;
        let overlay = Overlay::new(view, &changes.batch);
        let mut deps = Vec::new();
        for (id, other) in &self.logs {
            let seq = other.admitted;
            if other.is_control || *id == log || seq <= entry.seen.seq(id) {
                continue;
            }
            // What the control records that are named do not cover waits with them.
            if deps.len() >= self.limits.refs_named
                || !(is_all || frontier.covers(&other.opened) && frontier.covers(&other.frontier))
            {
                is_all = false;
                continue;
            }
            if bug!(DepsNotNamed) {
                continue;
            }
            if let Some((record, _)) = self.place_of(&overlay, *id, other, seq)? {
                deps.push(RecordRef {
                    log: *id,
                    seq,
                    id: record,
                });
            }
        }
        let frontier = (!deps.is_empty() || !control.is_empty()).then_some(frontier);
        Ok(News {
            deps,
            control,
            frontier,
            is_partial: !is_all,
        })
    }
}

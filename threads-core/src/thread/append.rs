//! Writing: data records into a draft that one signature publishes, control records one at a time.

use std::collections::BTreeSet;
use std::fmt;

use leno_crdt_codec::{LogId, Seq, Stamp, bug};
use leno_identity::{KeyError, SigningKey};
use rand_core::CryptoRng;

use super::admit::Admission;
use super::{Changes, Sink, Thread, ThreadEvent};
use crate::control::{
    ControlError, EpochOp, FrameOp, OpenOp, Role, RosterOp, decode_frame, decode_roster,
    encode_frame, encode_roster,
};
use crate::epoch::ROSTER_DOMAIN;
use crate::frontier::Frontier;
use crate::run::{NewRecord, Run, RunBuilder};
use crate::seal::EpochKey;
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

    /// Writes a control record; it takes effect here at once.
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
    /// // `other` is the seat of somebody who joins.
    /// let grant = FrameOp::Grant(GrantOp {
    ///     seat: other.id(),
    ///     kem: other.kem.public_key().to_bytes(),
    ///     role: Role::Reader,
    ///     scope: Scope::Thread,
    ///     expires_millis: None,
    ///     identity: None,
    ///     recovery: None,
    ///     accepts: Vec::new(),
    /// });
    /// band.govern(&*view, &[grant], &[], now_millis, &mut rng, &mut changes)?;
    /// assert_eq!(band.governance().role(other.id()), Some(Role::Reader));
    /// // A reader needs the keys of all epochs: that of the roster and that of the documents.
    /// assert_eq!(band.wrap_missing(&mut rng, &mut changes), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn govern(
        &mut self,
        view: &dyn View,
        frame: &[FrameOp],
        roster: &[RosterOp],
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<RecordRef, AppendError> {
        let (log, now) = (self.seat.id().control_log(), now.into());
        let roster_epoch = if roster.is_empty() {
            None
        } else {
            Some(self.epoch_to_seal(view, ROSTER_DOMAIN, now, rng, changes)?)
        };
        let ops = (frame, roster);
        self.govern_under(view, log, roster_epoch, ops, now, rng, changes)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "internal: the first record of a thread differs"
    )]
    pub(super) fn govern_under(
        &mut self,
        view: &dyn View,
        log: LogId,
        roster_epoch: Option<EpochId>,
        (frame, roster): (&[FrameOp], &[RosterOp]),
        now: Now,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<RecordRef, AppendError> {
        let entry = self.logs.get(&log).ok_or(AppendError::NotWriter)?;
        let (tip, frontier) = (entry.tip, entry.frontier.clone());
        if tip.seq >= self.limits.records_per_epoch {
            return Err(AppendError::LogFull);
        }
        if entry.admitted < tip.seq {
            return Err(AppendError::Held);
        }
        let stamp = self.next_stamp(now)?;
        let (control, ..) = self.control_news(view, log, &frontier, changes)?;
        let frame = encode_frame(frame, self.padding);
        if frame.len() > PLAINTEXT_BYTES_MAX {
            return Err(AppendError::BodyTooLarge { bytes: frame.len() });
        }
        decode_frame(&frame)?;
        let frame_sealer = self.sealer(log, None).cloned();
        let frame_sealer = frame_sealer.ok_or(AppendError::NoKey {
            domain: ROSTER_DOMAIN,
        })?;
        let roster = match roster_epoch {
            None => None,
            Some(epoch) => {
                let plaintext = encode_roster(roster, self.padding);
                if plaintext.len() > PLAINTEXT_BYTES_MAX {
                    return Err(AppendError::BodyTooLarge {
                        bytes: plaintext.len(),
                    });
                }
                decode_roster(&plaintext)?;
                let no_key = AppendError::NoKey {
                    domain: ROSTER_DOMAIN,
                };
                Some((
                    self.sealer(log, Some(epoch)).cloned().ok_or(no_key)?,
                    plaintext,
                ))
            }
        };
        let key = KeyRef::Control {
            roster: roster_epoch,
        };
        let record = NewRecord {
            deps: Vec::new(),
            control,
            stamp,
            key,
        };
        let mut builder = RunBuilder::new(self.id, log, tip);
        let secret = &self.nonce_secret;
        builder.push(&record, |context, sealed| {
            frame_sealer.seal_into(sealed, context, &frame, secret, rng);
            let seal = |(sealer, plaintext): (Sealer, Vec<u8>)| {
                sealer.seal(context, &plaintext, secret, rng)
            };
            roster.map(seal)
        });
        let (items, first, tip) = builder.finish();
        let head = SignedHead::sign(&self.seat.signing, self.id, log, tip.seq, tip.id);
        // What was just written comes in by the same door as what peers send.
        let run = Run::from_parts(&items, &head.signature)
            .and_then(|run| run.derive(self.id, log, &first))?;
        self.store_run(log, &items, &head.signature, changes);
        let mut nothing = |_: &super::Opened<'_>| {};
        let sink: Sink<'_> = &mut nothing;
        let mut admission = Admission {
            view,
            // One's own record is never held.
            now: Now::unset(0),
            changes,
            sink,
            left: u64::MAX,
        };
        if let Some(mut entry) = self.logs.remove(&log) {
            entry.advance(head, tip, items.len());
            self.stored_bytes += items.len() as u64;
            let result = self.admit_run(&mut admission, log, &mut entry, run.derived());
            self.logs.insert(log, entry);
            result?;
        }
        self.save_log(log, admission.changes);
        Ok(RecordRef {
            log,
            seq: tip.seq,
            id: tip.id,
        })
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

    /// Writes a control record that begins an epoch of the documents' key domain too: whoever loses the right
    /// to read by it opens nothing that is written later. The roster's keys change once something is stated
    /// in it.
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
    /// # let (store, now) = (MemoryStore::new(), 1_700_000_000_000);
    /// # let (mut changes, secret) = (Changes::new(), NonceSecret::new(&[7; 32]));
    /// # let (view, suite) = (store.view()?, Suite::Aes256Gcm);
    /// # let mut band =
    /// #     Thread::create(&*view, 0, seat, secret, suite, &[], now, &mut rng, &mut changes)?;
    /// # let grant = FrameOp::Grant(GrantOp {
    /// #     seat: other.id(),
    /// #     kem: other.kem.public_key().to_bytes(),
    /// #     role: Role::Reader,
    /// #     scope: Scope::Thread,
    /// #     expires_millis: None,
    /// #     identity: None,
    /// #     recovery: None,
    /// #     accepts: Vec::new(),
    /// # });
    /// # band.govern(&*view, &[grant], &[], now, &mut rng, &mut changes)?;
    /// let before = band.governance().sealing_epoch(THREAD_DOMAIN);
    /// // `other` is the seat of a reader. Nothing that is there of its logs is accepted, as it has none.
    /// let remove = FrameOp::Remove(RemoveOp { member: other.id(), accepts: vec![] });
    /// band.govern_and_rotate(&*view, &[remove], now, &mut rng, &mut changes)?;
    /// assert_eq!(band.governance().role(other.id()), None);
    /// let after = band.governance().sealing_epoch(THREAD_DOMAIN);
    /// assert!(after.is_some() && after != before);
    /// # Ok(())
    /// # }
    /// ```
    pub fn govern_and_rotate(
        &mut self,
        view: &dyn View,
        frame: &[FrameOp],
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<RecordRef, AppendError> {
        let domains = [crate::THREAD_DOMAIN];
        self.govern_and_begin(view, frame, &domains, now.into(), rng, changes)
    }

    /// Writes a control record that begins epochs, and hands their keys to all readers.
    fn govern_and_begin(
        &mut self,
        view: &dyn View,
        frame: &[FrameOp],
        domains: &[u32],
        now: Now,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<RecordRef, AppendError> {
        let mut frame = frame.to_vec();
        let mut begun = Vec::new();
        for domain in domains {
            let key = EpochKey::generate(rng);
            let epoch = key.id(self.id, *domain);
            let parents = self.governance.tips(*domain);
            frame.push(FrameOp::Epoch(EpochOp {
                domain: *domain,
                epoch,
                parents,
            }));
            begun.push((epoch, (*domain, key)));
        }
        let record = self.govern(view, &frame, &[], now, rng, changes)?;
        // The keys are kept in the same batch as the record that begins their epochs.
        self.keys.extend(begun);
        self.save(changes);
        self.wrap_missing(rng, changes);
        Ok(record)
    }

    /// The epoch to seal under. If there is no safe one whose key is here, one is begun, by whoever was handed
    /// keys before: a newcomer waits for his.
    fn epoch_to_seal(
        &mut self,
        view: &dyn View,
        domain: u32,
        now: Now,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<EpochId, AppendError> {
        let found = self.sealing_epoch(domain);
        let role = self.governance.role(self.seat.id());
        let holds_key = self.keys.values().any(|(of, _)| *of == domain);
        if found.is_ok() {
            return found;
        }
        if !role.is_some_and(Role::writes) {
            return Err(AppendError::NotWriter);
        }
        if !holds_key {
            return found;
        }
        self.govern_and_begin(view, &[], &[domain], now, rng, changes)?;
        self.sealing_epoch(domain)
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

    /// All control records that are admitted.
    pub(super) fn known_control(&self) -> Frontier {
        let control = self.logs.iter().filter(|(_, log)| log.is_control);
        control.map(|(id, log)| (*id, log.admitted)).collect()
    }

    fn sealing_epoch(&self, domain: u32) -> Result<EpochId, AppendError> {
        let held = |epoch: &EpochId| {
            let key = self.keys.get(epoch);
            key.is_some_and(|(of, _)| *of == domain)
        };
        self.governance
            .sealing_epoch_among(domain, held)
            .ok_or(AppendError::NoKey { domain })
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

    /// Control records that became visible beyond `known`, none that another one has in its past, as
    /// many as a record names; the frontier that they make together; and whether they are all.
    fn control_news(
        &self,
        view: &dyn View,
        own: LogId,
        known: &Frontier,
        changes: &Changes,
    ) -> Result<(Vec<RecordRef>, Frontier, bool), StoreError> {
        let overlay = Overlay::new(view, &changes.batch);
        let fresh: Vec<_> = self
            .logs
            .iter()
            .filter(|(id, log)| log.is_control && **id != own && log.admitted > known.seq(id))
            .collect();
        let mut covered = Frontier::new();
        for (id, log) in &fresh {
            let past = log.frontier.iter().filter(|(other, _)| other != *id);
            past.for_each(|(other, seq)| {
                covered.raise(other, seq);
            });
        }
        // If the log that covers the grants of this seat forks, what it covers does not count.
        let grants = self.governance.grants_of(self.seat.id());
        let granting: BTreeSet<LogId> = grants
            .filter_map(|(_, grant)| Some(grant.record?.log))
            .collect();
        let newest = fresh
            .into_iter()
            .filter(|(id, log)| covered.seq(id) < log.admitted || granting.contains(id));
        let mut control = Vec::new();
        let mut frontier = known.clone();
        for (id, log) in newest {
            if control.len() >= self.limits.refs_named {
                return Ok((control, frontier, false));
            }
            let seq = log.admitted;
            if let Some((record, _)) = self.place_of(&overlay, *id, log, seq)? {
                frontier.merge(&log.frontier);
                frontier.raise(*id, seq);
                control.push(RecordRef {
                    log: *id,
                    seq,
                    id: record,
                });
            }
        }
        Ok((control, frontier, true))
    }
}

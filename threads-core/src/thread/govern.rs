//! Writing control records, and the keys that they begin.

use std::collections::BTreeSet;

use leno_crdt_codec::LogId;
use rand_core::CryptoRng;

use super::admit::Admission;
use super::append::AppendError;
use super::{Changes, Sink, Thread};
use crate::control::{
    EpochOp, EpochParent, FrameOp, Role, RosterOp, decode_frame, decode_roster, encode_frame,
    encode_roster,
};
use crate::epoch::{KeyLink, ROSTER_DOMAIN};
use crate::frontier::Frontier;
use crate::run::{NewRecord, Run, RunBuilder};
use crate::seal::EpochKey;
use crate::store::{Overlay, StoreError, View};
use crate::{EpochId, KeyRef, Now, PLAINTEXT_BYTES_MAX, RecordRef, Sealer, SignedHead};

impl Thread {
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
            let parents = self.governance.tips(*domain).into_iter();
            let parents = parents.map(|parent| EpochParent {
                epoch: parent,
                link: self.link(*domain, &key, &parent),
            });
            let parents = parents.collect();
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

    /// Links a new epoch to one that it follows, if that one's key is here.
    fn link(&self, domain: u32, key: &EpochKey, parent: &EpochId) -> Option<KeyLink> {
        let (of, old) = self.keys.get(parent)?;
        (*of == domain).then(|| KeyLink::seal(key, old, self.id, domain))
    }

    /// The epoch to seal under. If there is no safe one whose key is here, one is begun, by whoever was handed
    /// keys before: a newcomer waits for his.
    pub(super) fn epoch_to_seal(
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

    fn sealing_epoch(&self, domain: u32) -> Result<EpochId, AppendError> {
        let held = |epoch: &EpochId| {
            let key = self.keys.get(epoch);
            key.is_some_and(|(of, _)| *of == domain)
        };
        self.governance
            .sealing_epoch_among(domain, held)
            .ok_or(AppendError::NoKey { domain })
    }

    /// All control records that are admitted.
    pub(super) fn known_control(&self) -> Frontier {
        let control = self.logs.iter().filter(|(_, log)| log.is_control);
        control.map(|(id, log)| (*id, log.admitted)).collect()
    }

    /// Control records that became visible beyond `known`, none that another one has in its past, as
    /// many as a record names; the frontier that they make together; and whether they are all.
    pub(super) fn control_news(
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

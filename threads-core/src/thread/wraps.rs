//! Keys: handing epochs' keys to readers, and taking one's own.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use leno_crdt_codec::LogId;
use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_identity::Label;
use rand_core::CryptoRng;

use super::{Changes, Opened, Sink, Thread, ThreadEvent};
use crate::epoch::{ROSTER_DOMAIN, Wrap, WrapError};
use crate::seal::EpochKey;
use crate::store::{Overlay, StoreError, Table, View, scan_prefix};
use crate::{EpochId, KeyRef, RecordRef, SeatId, keys};

/// Why a wrap is not taken in.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeWrapError {
    /// The epoch is not known, or not of this key domain.
    #[error("the wrap is for an epoch that is not known")]
    UnknownEpoch,
    /// The recipient may not read: a ghost. The wrap is void.
    #[error("the wrap is for seat {seat}, which may not read")]
    Ghost {
        /// The recipient.
        seat: SeatId,
    },
    /// The wrap is for this seat and does not give the epoch's key.
    #[error("the wrap for this seat is bad")]
    Bad(#[from] WrapError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Thread {
    /// Wraps every key that is held for every reader who has none yet. Returns how many were made.
    pub fn wrap_missing(&mut self, rng: &mut dyn CryptoRng, changes: &mut Changes) -> usize {
        let own = self.seat.id();
        let mut made = 0;
        let readers: Vec<_> = self.governance.readers().collect();
        for (epoch, (domain, key)) in &self.keys {
            for (seat, kem) in &readers {
                if *seat == own || self.wrapped.contains(&(*epoch, *seat)) {
                    continue;
                }
                // A KEM key that nothing can be wrapped to is its owner's fault alone.
                if let Ok(wrap) = Wrap::seal(key, self.id, *domain, *seat, kem, rng) {
                    let row = wrap_key(self.number, *epoch, *seat);
                    changes.batch.put(Table::Wraps, row, encode_wrap(&wrap));
                    self.wrapped.insert((*epoch, *seat));
                    made += 1;
                }
            }
        }
        made
    }

    /// Names the set of wraps that are kept here, to tell quickly whether a peer has the same.
    #[must_use]
    pub fn wraps_digest(&self) -> [u8; 8] {
        let mut bytes = Vec::with_capacity(self.wrapped.len() * 64);
        for (epoch, seat) in &self.wrapped {
            bytes.extend_from_slice(&epoch.0);
            bytes.extend_from_slice(&seat.0);
        }
        *Label::EPOCH_WRAP
            .hash(&[&bytes])
            .first_chunk()
            .expect("a hash is longer than 8 bytes")
    }

    /// How many wraps are kept here.
    #[must_use]
    pub fn wraps_count(&self) -> usize {
        self.wrapped.len()
    }

    /// Takes in a wrap that a peer handed over; tells whether it was news.
    ///
    /// A wrap for this seat is opened, checked against the epoch's commitment, and what waited for
    /// the key is opened too. Others are kept to be handed on.
    ///
    /// # Errors
    ///
    /// [`TakeWrapError`]; nothing changed.
    pub fn take_wrap(
        &mut self,
        view: &dyn View,
        wrap: &Wrap,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<bool, TakeWrapError> {
        let known = self.governance.epoch(&wrap.epoch);
        if known.is_none_or(|epoch| epoch.domain != wrap.domain) {
            return Err(TakeWrapError::UnknownEpoch);
        }
        if !self.governance.readers().any(|(seat, _)| seat == wrap.seat) {
            return Err(TakeWrapError::Ghost { seat: wrap.seat });
        }
        let row = wrap_key(self.number, wrap.epoch, wrap.seat);
        if wrap.seat != self.seat.id() {
            // The first one is kept; the recipient asks again if it is bad.
            let news = self.wrapped.insert((wrap.epoch, wrap.seat));
            if news {
                changes.batch.put(Table::Wraps, row, encode_wrap(wrap));
            }
            return Ok(news);
        }
        if self.keys.contains_key(&wrap.epoch) {
            return Ok(false);
        }
        let key = wrap.open(self.id, &self.seat.kem)?;
        self.wrapped.insert((wrap.epoch, wrap.seat));
        changes.batch.put(Table::Wraps, row, encode_wrap(wrap));
        self.take_key(view, wrap.domain, wrap.epoch, key, changes, sink)?;
        Ok(true)
    }

    /// All wraps that are kept here.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn wraps(&self, view: &dyn View) -> Result<Vec<Wrap>, StoreError> {
        let mut wraps = Vec::new();
        let mut damaged = false;
        scan_prefix(
            view,
            Table::Wraps,
            &keys::thread(self.number),
            &mut |_, row| {
                match Wrap::decode(&mut Decoder::new(row)) {
                    Ok(wrap) => wraps.push(wrap),
                    Err(_) => damaged = true,
                }
                ControlFlow::Continue(())
            },
        )?;
        if damaged {
            return Err(StoreError::Corrupt {
                what: "a key wrap".to_owned(),
            });
        }
        Ok(wraps)
    }

    pub(super) fn take_key(
        &mut self,
        view: &dyn View,
        domain: u32,
        epoch: EpochId,
        key: EpochKey,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        self.keys.insert(epoch, (domain, key));
        self.save(changes);
        changes.tell(self.id, ThreadEvent::KeyCame { domain, epoch });
        let gaps: Vec<LogId> = self
            .logs
            .iter()
            .filter(|(_, log)| log.gap.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in gaps {
            self.fill_gap(view, id, epoch, changes, &mut *sink)?;
        }
        Ok(())
    }

    /// Opens the records of a log that waited for an epoch's key.
    fn fill_gap(
        &mut self,
        view: &dyn View,
        id: LogId,
        epoch: EpochId,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        let Some((gap, admitted)) = self
            .logs
            .get(&id)
            .and_then(|log| log.gap.map(|gap| (gap, log.admitted)))
        else {
            return Ok(());
        };
        let mut still = None;
        let mut next = gap;
        while next <= admitted {
            let mut row = None;
            let overlay = Overlay::new(view, &changes.batch);
            self.scan_rows(&overlay, &id, next, &mut |_, bytes| {
                row = Some(bytes.to_vec());
                ControlFlow::Break(())
            })?;
            let Some(row) = row else { break };
            let run = self.derive_row(id, &row)?;
            for record in run.records() {
                if record.seq < next || record.seq > admitted {
                    continue;
                }
                let context = run.context(record);
                let place = RecordRef {
                    log: id,
                    seq: record.seq,
                    id: record.id,
                };
                match record.key {
                    KeyRef::Control { roster: Some(of) } if of == epoch => {
                        let sealed = record.roster.unwrap_or_default();
                        if let Some(roster) = self.open_roster(id, of, sealed, context) {
                            if self.apply_roster(SeatId(id.0), record.id, &roster) {
                                changes.tell(self.id, ThreadEvent::RosterChanged);
                            }
                            self.save_late_roster(view, record.id, &roster, changes)?;
                        }
                    }
                    KeyRef::Data { domain, epoch: of } if of == epoch => {
                        self.open_late(place, record, context, (domain, of), changes, &mut *sink);
                    }
                    KeyRef::Data { epoch: of, .. } | KeyRef::Control { roster: Some(of) } => {
                        if !self.keys.contains_key(&of) {
                            still = still.or(Some(record.seq));
                        }
                    }
                    KeyRef::Control { roster: None } => {}
                }
            }
            next = run.tip().seq + 1;
        }
        if let Some(log) = self.logs.get_mut(&id) {
            log.gap = still;
        }
        self.save_log(id, changes);
        Ok(())
    }

    fn open_late(
        &mut self,
        place: RecordRef,
        record: &crate::Record<'_>,
        context: &[u8],
        (domain, epoch): (u32, EpochId),
        changes: &mut Changes,
        sink: Sink<'_>,
    ) {
        let Some(sealer) = self.sealer(place.log, Some(epoch)).cloned() else {
            return;
        };
        let seat = self
            .governance
            .opening(&place.log)
            .map(|opening| opening.seat);
        if sealer
            .open(context, record.body, &mut self.scratch)
            .is_err()
        {
            changes.tell(
                self.id,
                ThreadEvent::Quarantined {
                    record: place,
                    reason: super::Quarantine::DoesNotOpen,
                },
            );
            return;
        }
        sink(&Opened {
            record: place,
            stamp: record.stamp,
            seat: seat.unwrap_or(SeatId(place.log.0)),
            domain,
            plaintext: &self.scratch,
        });
    }

    /// Opens again, for the layer above, what was admitted after `from` in a log.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn replay(
        &mut self,
        view: &dyn View,
        id: LogId,
        from: leno_crdt_codec::Seq,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        let quarantined: BTreeSet<_> = self
            .quarantined(view)?
            .into_iter()
            .filter(|(record, _)| record.log == id)
            .map(|(record, _)| record.seq)
            .collect();
        let Some(admitted) = self
            .logs
            .get(&id)
            .filter(|log| !log.is_control)
            .map(|it| it.admitted)
        else {
            return Ok(());
        };
        let mut next = from + 1;
        let mut discarded = Changes::new();
        while next <= admitted {
            let mut row = None;
            self.scan_rows(view, &id, next, &mut |_, bytes| {
                row = Some(bytes.to_vec());
                ControlFlow::Break(())
            })?;
            let Some(row) = row else { break };
            let run = self.derive_row(id, &row)?;
            for record in run.records() {
                let wanted = (next..=admitted).contains(&record.seq);
                let KeyRef::Data { domain, epoch } = record.key else {
                    continue;
                };
                if wanted && !quarantined.contains(&record.seq) {
                    let place = RecordRef {
                        log: id,
                        seq: record.seq,
                        id: record.id,
                    };
                    let key = (domain, epoch);
                    let context = run.context(record);
                    self.open_late(place, record, context, key, &mut discarded, &mut *sink);
                }
            }
            next = run.tip().seq + 1;
        }
        Ok(())
    }

    /// Draws the first keys of a new thread.
    pub(super) fn first_keys(rng: &mut dyn CryptoRng) -> [(u32, EpochKey); 2] {
        [
            (ROSTER_DOMAIN, EpochKey::generate(rng)),
            (crate::THREAD_DOMAIN, EpochKey::generate(rng)),
        ]
    }
}

fn wrap_key(thread: u32, epoch: EpochId, seat: SeatId) -> Vec<u8> {
    keys::suffixed(thread, &[&epoch.0, &seat.0])
}

fn encode_wrap(wrap: &Wrap) -> Vec<u8> {
    let mut encoder = Encoder::new();
    wrap.encode(&mut encoder);
    encoder.into_vec()
}

/// The wraps that are kept of a thread.
pub(super) fn wrapped(
    view: &dyn View,
    thread: u32,
) -> Result<BTreeSet<(EpochId, SeatId)>, StoreError> {
    let mut wrapped = BTreeSet::new();
    scan_prefix(view, Table::Wraps, &keys::thread(thread), &mut |key, _| {
        if let Some((epoch, seat)) = key.get(4..).and_then(|ids| ids.split_first_chunk::<32>())
            && let Ok(seat) = seat.try_into()
        {
            wrapped.insert((EpochId(*epoch), SeatId(seat)));
        }
        ControlFlow::Continue(())
    })?;
    Ok(wrapped)
}

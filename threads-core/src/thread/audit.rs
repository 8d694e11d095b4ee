//! What became of each op of governance, for a person to read.

use std::ops::ControlFlow;

use leno_crdt_codec::Stamp;

use super::Thread;
use super::load::KeptControl;
use crate::acl::{ControlRecord, Power, VoidReason};
use crate::control::{FrameOp, decode_frame};
use crate::store::{StoreError, Table, View, scan_prefix};
use crate::{OpRef, RecordRef, Role, SeatId, keys};

/// An op of governance and what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditedOp {
    /// The control record.
    pub record: RecordRef,
    /// Its stamp.
    pub stamp: Stamp,
    /// Whose it is.
    pub author: SeatId,
    /// The op.
    pub op: FrameOp,
    /// Whether it stands.
    pub verdict: Verdict,
}

/// Whether an op of governance stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// It stands.
    Stands,
    /// Its author's rights were ended by somebody more senior, and it was not accepted; or its log has two
    /// branches there.
    Fell,
    /// It was never possible.
    Void(VoidReason),
}

/// What an op of governance would do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explained {
    /// Why it is not possible, if it is not.
    pub void: Option<VoidReason>,
    /// The seats whose role it changes: what it is, and what it would be.
    pub roles: Vec<(SeatId, Option<Role>, Option<Role>)>,
}

impl FrameOp {
    /// What an op needs of the grant that it acts under; nothing if it speaks for itself.
    #[must_use]
    pub fn power(&self) -> Option<Power> {
        Some(match self {
            Self::Grant(op) => Power::to_grant(op.role),
            Self::Remove(_) | Self::Accept(_) => Power::Govern,
            Self::Open(_) | Self::Epoch(_) => Power::Write,
            Self::Leave | Self::Device(_) => Power::Belong,
            Self::Fork(_) => return None,
        })
    }
}

impl Thread {
    /// All ops of governance that are here, in the order in which they were admitted, and what became of
    /// each.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # use leno_identity::{AgreementKey, SigningKey};
    /// # use leno_threads_core::store::{MemoryStore, Store};
    /// # use leno_threads_core::thread::{Changes, Seat, Thread, Verdict};
    /// # use leno_threads_core::*;
    /// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut rng = ChaCha20Rng::seed_from_u64(1);
    /// # let (signing, kem) = (SigningKey::generate(&mut rng)?, AgreementKey::generate(&mut rng)?);
    /// # let seat = Seat { signing, kem };
    /// # let (store, now) = (MemoryStore::new(), 1_700_000_000_000);
    /// # let (mut changes, secret) = (Changes::new(), NonceSecret::new(&[7; 32]));
    /// # let (view, suite) = (store.view()?, Suite::Aes256Gcm);
    /// # let mut band =
    /// #     Thread::create(&*view, 0, seat, secret, suite, &[], now, &mut rng, &mut changes)?;
    /// # drop(view);
    /// # futures_executor::block_on(store.commit(changes.batch))?;
    /// // `band` was just made: it began two epochs.
    /// let ops = band.audit(&*store.view()?)?;
    /// assert!(ops.iter().all(|it| it.verdict == Verdict::Stands));
    /// assert_eq!(ops.len(), 2);
    /// // What would it do if the only owner left?
    /// let leave = band.explain(&[FrameOp::Leave], now)?;
    /// assert_eq!((leave.void, leave.roles), (None, vec![])); // she stays
    /// # Ok(())
    /// # }
    /// ```
    pub fn audit(&self, view: &dyn View) -> Result<Vec<AuditedOp>, StoreError> {
        let void: std::collections::BTreeMap<OpRef, VoidReason> = self.governance.void().collect();
        let mut audited = Vec::new();
        let mut damaged = None;
        let prefix = keys::thread(self.number);
        scan_prefix(view, Table::Governance, &prefix, &mut |_, row| {
            let read = KeptControl::decode(row).map_err(|error| error.to_string());
            let read = read.and_then(|kept| {
                let ops = decode_frame(kept.frame).map_err(|error| error.to_string())?;
                Ok((kept.place, kept.stamp, ops))
            });
            let (place, stamp, ops) = match read {
                Ok(read) => read,
                Err(error) => {
                    damaged = Some(error);
                    return ControlFlow::Break(());
                }
            };
            for (index, op) in (0..).zip(ops) {
                let record = place.id;
                let verdict = match void.get(&OpRef { record, op: index }) {
                    Some(reason) => Verdict::Void(*reason),
                    None if op
                        .power()
                        .is_none_or(|it| self.governance.stands(&record, it)) =>
                    {
                        Verdict::Stands
                    }
                    None => Verdict::Fell,
                };
                audited.push(AuditedOp {
                    record: place,
                    stamp,
                    author: SeatId(place.log.0),
                    op,
                    verdict,
                });
            }
            ControlFlow::Continue(())
        })?;
        match damaged {
            None => Ok(audited),
            Some(error) => Err(StoreError::Corrupt {
                what: format!("a control record: {error}"),
            }),
        }
    }

    /// What ops would do if this seat wrote them now, by all that is here: nothing is written. What others
    /// did that is not here may change it.
    ///
    /// # Errors
    ///
    /// [`AppendError`](super::AppendError) if this seat could not write.
    pub fn explain(
        &self,
        ops: &[FrameOp],
        now: impl Into<crate::Now>,
    ) -> Result<Explained, super::AppendError> {
        let log = self.seat.id().control_log();
        let entry = self.logs.get(&log).ok_or(super::AppendError::NotWriter)?;
        let mut past = self.known_control();
        let place = RecordRef {
            log,
            seq: entry.tip.seq + 1,
            // No record has it.
            id: crate::RecordId([0; 32]),
        };
        past.raise(log, place.seq);
        let record = ControlRecord {
            place,
            stamp: self.next_stamp(now.into())?,
            past,
            ops: ops.to_vec(),
        };
        let mut then = self.governance.clone();
        then.admit(&record);
        let void = then.void().find(|(name, _)| name.record == place.id);
        let changed = then.seats().filter_map(|seat| {
            let (is, would_be) = (self.governance.role(seat), then.role(seat));
            (is != would_be).then_some((seat, is, would_be))
        });
        Ok(Explained {
            void: void.map(|(_, reason)| reason),
            roles: changed.collect(),
        })
    }
}

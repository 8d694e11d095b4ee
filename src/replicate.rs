//! Carrying threads for others: how much of one is kept, ending a replicator's grant, and giving up a copy.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use leno_threads_core::store::{Overlay, StoreError, Table, View, scan_prefix};
use leno_threads_core::thread::Quota;
use leno_threads_core::{FrameOp, RemoveOp, Role, SeatId, ThreadId};

use crate::error::Error;
use crate::thread::Thread;
use crate::work::{Work, meta, put_meta, thread_mut};

/// What to do with records that no other peer is known to keep.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Unsent {
    /// Nothing is deleted while there are any.
    Keep,
    /// They are lost.
    Discard,
}

impl Thread {
    /// Bounds how much of the thread this peer keeps of what others write; `None` keeps all of it. Holds
    /// for later starts too.
    ///
    /// A peer that sends more is told that there is no room: it goes on with other logs and threads, is
    /// not level, and sends the rest once the quota was raised. Lowering a quota deletes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`]. A thread that was joined and not synced yet may have a quota.
    pub async fn set_quota(&self, quota: Option<Quota>) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                if !work.core.replica.ids().any(|it| it == id) {
                    return Err(Error::NoSuchThread(id));
                }
                let key = meta::key(meta::QUOTA_PREFIX, &id.0);
                match quota {
                    Some(quota) => put_meta(&mut work.changes.batch, &key, encode(quota)),
                    None => work.changes.batch.delete(Table::Meta, key),
                }
                work.core.replica.set_quota(id, quota);
                Ok(())
            })
            .await
    }

    /// Ends the grants of a replicator: it learns of that and of nothing that comes after. What it has it
    /// may keep, and cannot read. A replicator may end its own.
    ///
    /// Granting its card anew lets it in again.
    ///
    /// # Errors
    ///
    /// [`Error::NotAReplicator`] if the seat has no such grant, or another role besides;
    /// [`Error::MayNotGrant`] if this peer's role does not reach.
    pub async fn remove_replicator(&self, seat: SeatId) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                let now = work.now();
                work.writable(id)?;
                let Work {
                    core,
                    view,
                    changes,
                    ..
                } = &mut *work;
                let thread = thread_mut(&mut core.replica, id)?;
                let governance = thread.governance();
                if governance.role(seat) != Some(Role::Replicator) {
                    return Err(Error::NotAReplicator(seat));
                }
                let own = thread.seat().id();
                let role = governance.role(own);
                if own != seat && !role.is_some_and(|role| role.may_grant(Role::Replicator)) {
                    return Err(Error::MayNotGrant);
                }
                let op = match own == seat {
                    true => FrameOp::Leave,
                    false => FrameOp::Remove(RemoveOp {
                        member: seat,
                        accepts: Vec::new(),
                    }),
                };
                let record = thread.govern(*view, &[op], &[], now, &mut core.rng, changes);
                work.wrote(record)?;
                work.core.replica.touched(id);
                Ok(())
            })
            .await
    }

    /// Deletes this peer's copy of the thread: records, documents and keys. Other peers keep what they
    /// have, and the seat keeps its role until it is removed; the keys to use it are gone, so coming
    /// back takes a new card. Watches of its documents tell nothing more.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] if records of this peer are kept by nobody else, unless they are to be
    /// discarded; [`Error::NoSuchThread`].
    pub async fn forget(&self, unsent: Unsent) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                let view = Overlay::new(work.view, &work.changes.batch);
                let records = work.core.replica.outbox(&view, &id)?;
                if records > 0 && unsent == Unsent::Keep {
                    return Err(Error::Unsent { records });
                }
                let Work {
                    core,
                    view,
                    changes,
                    written,
                    ..
                } = &mut *work;
                if !core.replica.forget(*view, &id, changes)? {
                    return Err(Error::NoSuchThread(id));
                }
                written.remove(&id);
                core.documents.remove(&id);
                core.restored.remove(&id);
                core.awaited.remove(&id);
                core.told.retain(|(_, thread), _| *thread != id);
                for prefix in [
                    meta::RESTORED_PREFIX,
                    meta::AWAITED_PREFIX,
                    meta::QUOTA_PREFIX,
                ] {
                    changes.batch.delete(Table::Meta, meta::key(prefix, &id.0));
                }
                Ok(())
            })
            .await
    }
}

/// The row of a quota: `bytes: u64 | logs: u32`.
fn encode(quota: Quota) -> Vec<u8> {
    let mut row = quota.bytes.to_be_bytes().to_vec();
    row.extend_from_slice(&quota.logs.to_be_bytes());
    row
}

fn decode(row: &[u8]) -> Option<Quota> {
    let (bytes, logs) = row.split_first_chunk()?;
    Some(Quota {
        bytes: u64::from_be_bytes(*bytes),
        logs: u32::from_be_bytes(logs.try_into().ok()?),
    })
}

/// The quotas that were set.
pub(crate) fn load_quotas(view: &dyn View) -> Result<BTreeMap<ThreadId, Quota>, StoreError> {
    let mut quotas = BTreeMap::new();
    let mut is_good = true;
    scan_prefix(view, Table::Meta, meta::QUOTA_PREFIX, &mut |key, row| {
        let id = key.strip_prefix(meta::QUOTA_PREFIX);
        let id = id.and_then(|id| id.try_into().ok()).map(ThreadId);
        match id.zip(decode(row)) {
            Some((id, quota)) => drop(quotas.insert(id, quota)),
            None => is_good = false,
        }
        ControlFlow::Continue(())
    })?;
    if is_good {
        return Ok(quotas);
    }
    Err(StoreError::Corrupt {
        what: "the quota of a thread".to_owned(),
    })
}

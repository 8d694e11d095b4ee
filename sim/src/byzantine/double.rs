//! A second branch of the liar's own logs: what it tells some, while it tells others the first.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures_util::FutureExt as _;
use leno::PeerId;
use leno::store::{MemoryStore, Overlay, Store as _};
use leno_threads_core::sync::{LogName, Message};
use leno_threads_core::thread::Changes;
use leno_threads_core::{LogId, Now, Run, Seq, THREAD_DOMAIN, decode_row};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::forge::load;
use crate::dice::Dice;
use crate::disk::Disk;

/// The liar as it was at some time, from which it goes on otherwise.
#[derive(Debug)]
pub(super) struct Double {
    rows: MemoryStore,
    /// The last record of each log that both branches share.
    parted: BTreeMap<LogId, Seq>,
}

impl Double {
    /// Parts from what is on a disk now.
    pub(super) fn of(disk: &Disk) -> Option<Self> {
        let rows = disk.copy_rows().ok()?;
        Some(Self {
            rows,
            parted: BTreeMap::new(),
        })
    }

    /// A range of the own log in its other branch, from where the branches part up to `last` and a bit
    /// further. Whoever is told more of it later is told the same, or yet another branch.
    pub(super) fn range(
        &mut self,
        liar: PeerId,
        (thread, name, log): (u32, LogName, LogId),
        last: Seq,
        dice: &mut Dice,
    ) -> Option<Vec<u8>> {
        let view = self.rows.view().ok()?;
        let mut replica = load(&*view, liar).ok()?;
        let mut ids = replica.threads().filter(|it| it.own_log() == Some(log));
        let id = ids.next()?.id();
        drop(ids);
        let of = replica.thread_mut(&id)?;
        let tip = of.log(&log)?.tip.seq;
        let parted = *self.parted.entry(log).or_insert(tip);
        if parted >= last {
            return None;
        }
        let mut changes = Changes::new();
        let mut rng = ChaCha20Rng::from_seed(dice.seed());
        let length = last.saturating_add(dice.below(3));
        for _ in tip..length {
            let now = Now::unset(0);
            let body = b"\x82\x01\x02";
            of.append(&*view, THREAD_DOMAIN, body, now, &mut rng, &mut changes)
                .ok()?;
        }
        of.publish(&mut changes);
        let overlay = Overlay::new(&*view, &changes.batch);
        let mut rows = Vec::new();
        of.scan_rows(&overlay, &log, parted + 1, &mut |_, row| {
            rows.push(row.to_vec());
            ControlFlow::Continue(())
        })
        .ok()?;
        let runs: Result<Vec<Run<'_>>, _> = rows
            .iter()
            .map(|row| decode_row(row).map(|(_, run)| run))
            .collect();
        let message = Message::Range {
            thread,
            log: name,
            first: parted + 1,
            runs: runs.ok()?,
        };
        let message = message.encode();
        drop(view);
        if dice.coin() {
            // Memory does not fail, and does not wait.
            drop(self.rows.commit(changes.batch).now_or_never());
        }
        Some(message)
    }
}

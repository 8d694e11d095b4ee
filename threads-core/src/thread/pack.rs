//! Packing: short rows of a log become longer ones.
//!
//! A log that is written one record at a time has a row and a signature per record. A signed head
//! covers all before it, so neighbouring rows can be merged under the last one's signature: nothing
//! is derived again, and what a peer is sent afterwards is shorter too.

use std::ops::{Bound, ControlFlow};

use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq};

use super::{Changes, Thread};
use crate::run::decode_row;
use crate::store::{Direction, Overlay, StoreError, Table, View};
use crate::{RUN_RECORDS_MAX, Run, Tip, keys};

/// Longest row that packing makes, in bytes: what redb keeps in 64 KiB without loss.
pub const PACKED_BYTES_MAX: usize = (64 << 10) - 64;

/// Rows after which packing a log is worth its writes.
pub const LOOSE_ROWS: u32 = 512;

/// Most rows that one call looks at.
const ROWS_MAX: usize = 8 * LOOSE_ROWS as usize;

/// What a row has besides its items: where the log stood, and the signature.
const ROW_OVERHEAD_BYTES: usize = 256;

impl Thread {
    /// The logs that have many short rows since they were packed.
    #[must_use]
    pub fn loose_logs(&self) -> Vec<LogId> {
        let loose = self.logs.iter().filter(|(_, log)| log.loose >= LOOSE_ROWS);
        loose.map(|(id, _)| *id).collect()
    }

    /// Merges the short rows at the end of a log. Returns how many rows there are less.
    ///
    /// Changes no record, no id and no head. Reads the rows behind the last long one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails or a row does not read as written.
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
    /// for word in [&[0x62, b'h', b'i'], &[0x62, b'h', b'o'], &[0x62, b'h', b'u']] {
    ///     band.append(&*view, THREAD_DOMAIN, word, now_millis, &mut rng, &mut changes)?;
    ///     band.publish(&mut changes); // a row each
    /// }
    /// # drop(view);
    /// # futures_executor::block_on(store.commit(changes.batch))?;
    /// # let (view, mut changes) = (store.view()?, Changes::new());
    /// let log = band.own_log().expect("it was written");
    /// let head = band.log(&log).and_then(|log| log.head);
    /// assert_eq!(band.pack(&*view, &log, &mut changes)?, 2); // three rows are one
    /// assert_eq!(band.log(&log).and_then(|log| log.head), head);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pack(
        &mut self,
        view: &dyn View,
        id: &LogId,
        changes: &mut Changes,
    ) -> Result<usize, StoreError> {
        let Some(log) = self.logs.get_mut(id) else {
            return Ok(0);
        };
        log.loose = 0;
        let number = log.number;
        let rows = short_rows(&Overlay::new(view, &changes.batch), self.number, number)?;
        let damaged = || StoreError::Corrupt {
            what: format!("a run of log {id}"),
        };
        let mut gone = 0;
        let mut group: Vec<Short<'_>> = Vec::new();
        let mut finish = |group: &mut Vec<Short<'_>>| {
            if let Some(row) = merge(group) {
                gone += group.len() - 1;
                for (place, short) in group.iter().enumerate() {
                    let key = keys::record(self.number, number, short.first);
                    match place {
                        0 => changes.batch.put(Table::Runs, key, row.clone()),
                        _ => changes.batch.delete(Table::Runs, key),
                    }
                }
            }
            group.clear();
        };
        for (first, row) in &rows {
            let (tip, run) = decode_row(row).map_err(|_| damaged())?;
            let short = Short {
                first: *first,
                tip,
                run,
            };
            if !group.is_empty() && !fits(&group, &short) {
                finish(&mut group);
            }
            group.push(short);
        }
        finish(&mut group);
        Ok(gone)
    }
}

/// A row as packing sees it.
struct Short<'a> {
    first: Seq,
    tip: Tip,
    run: Run<'a>,
}

fn fits(group: &[Short<'_>], next: &Short<'_>) -> bool {
    let count: usize = group.iter().map(|short| short.run.count()).sum();
    let bytes: usize = group.iter().map(|short| short.run.items().len()).sum();
    let follows = group
        .last()
        .is_some_and(|last| last.first + last.run.count() as u64 == next.first);
    follows
        && count + next.run.count() <= RUN_RECORDS_MAX
        && bytes + next.run.items().len() + ROW_OVERHEAD_BYTES <= PACKED_BYTES_MAX
}

/// The row that says what all rows of a group say; nothing if the group is one row already.
fn merge(group: &[Short<'_>]) -> Option<Vec<u8>> {
    let (first, last) = (group.first()?, group.last()?);
    if group.len() == 1 {
        return None;
    }
    let count: usize = group.iter().map(|short| short.run.count()).sum();
    let mut items = Encoder::new();
    items.array(count);
    for short in group {
        let mut decoder = Decoder::new(short.run.items());
        decoder.array().ok()?;
        items.raw(short.run.items().get(decoder.offset()..)?);
    }
    let mut encoder = Encoder::append_to(Vec::with_capacity(items.len() + ROW_OVERHEAD_BYTES));
    encoder.array(3);
    first.tip.encode(&mut encoder);
    encoder.bytes(items.as_slice()).bytes(last.run.signature());
    Some(encoder.into_vec())
}

/// The rows at the end of a log, oldest first, from behind the last one that is long already.
fn short_rows(view: &dyn View, thread: u32, log: u32) -> Result<Vec<(Seq, Vec<u8>)>, StoreError> {
    let (low, high) = (
        keys::record(thread, log, 0),
        keys::record(thread, log, Seq::MAX),
    );
    let (low, high) = (
        Bound::Included(low.as_slice()),
        Bound::Included(high.as_slice()),
    );
    let mut rows = Vec::new();
    view.scan(
        Table::Runs,
        low,
        high,
        Direction::Backward,
        &mut |key, row| {
            if row.len() >= PACKED_BYTES_MAX / 2 || rows.len() == ROWS_MAX {
                return ControlFlow::Break(());
            }
            rows.push((keys::seq(key).unwrap_or_default(), row.to_vec()));
            ControlFlow::Continue(())
        },
    )?;
    rows.reverse();
    Ok(rows)
}

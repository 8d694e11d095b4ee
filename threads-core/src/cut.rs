//! Cuts: prefixes of the total order below which nothing can come any more.
//!
//! 1. A log *counts* if it may still bring a record into the order: a data log of a seat that may
//!    write, and a control log of a seat that may write or admit, because it may open a data log
//!    even if it never did. Logs of readers, replicators and open links do not count, nor do those
//!    whose grant ended below what they have shown.
//! 2. The cut lies at the highest stamp `T` for which every counting log has shown a later one: one
//!    below the least of the newest stamps shown. Stamps rise along a log, so no log that is known
//!    can write at or below `T` any more.
//! 3. Of each log it holds the last record not above `T`. A log that is opened later has only later
//!    stamps: they lie above its opening's, and that above what the opening control log has shown.
//!
//! A computed cut is advice; a signed cut record makes one.

use leno_crdt_codec::{LogId, Seq, Stamp};

use crate::{RecordId, RecordRef};

/// A log as far as it matters to a cut.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CutLog {
    /// The log.
    pub log: LogId,
    /// Whether it is a control log.
    pub is_control: bool,
    /// The newest stamp that it has shown; that of its opening while it is empty.
    pub newest: Stamp,
    /// Whether it counts, by rule 1.
    pub counts: bool,
}

/// A prefix of the total order.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Cut {
    /// Every record at or below this stamp is in the cut, and none above it.
    pub stamp: Stamp,
    /// The last record of each log that has one in the cut, sorted by log.
    pub logs: Vec<RecordRef>,
    /// The counting logs that have shown no stamp above the cut's successor, sorted by log: they
    /// hold it back. Their writers may send an empty record, or be put aside.
    pub held_by: Vec<LogId>,
}

/// Computes the highest cut. `last` finds the last record of a log whose stamp is not above the
/// given one.
///
/// If no log counts, everything that is known is in the cut.
///
/// # Errors
///
/// Those of `last`.
///
/// # Examples
///
/// ```
/// use leno_threads_core::cut::{CutLog, compute_cut};
/// use leno_threads_core::{LogId, RecordId, Stamp};
///
/// // Ann has shown stamps 3 and 9, Bob 4 and 7: nothing can come at or below 6.
/// let log = |byte, newest| CutLog {
///     log: LogId([byte; 32]),
///     is_control: false,
///     newest: Stamp(newest),
///     counts: true,
/// };
/// let cut = compute_cut([log(1, 9), log(2, 7)], |_, _| {
///     Ok::<_, std::convert::Infallible>(Some((1, RecordId([0; 32]))))
/// })?;
/// assert_eq!(cut.stamp, Stamp(6));
/// assert_eq!(cut.held_by, [LogId([2; 32])]);
/// # Ok::<(), std::convert::Infallible>(())
/// ```
pub fn compute_cut<E>(
    logs: impl IntoIterator<Item = CutLog>,
    mut last: impl FnMut(&LogId, Stamp) -> Result<Option<(Seq, RecordId)>, E>,
) -> Result<Cut, E> {
    let mut logs: Vec<CutLog> = logs.into_iter().collect();
    logs.sort_unstable_by_key(|it| it.log);
    let shown_by_all = logs.iter().filter(|it| it.counts).map(|it| it.newest).min();
    let stamp = match shown_by_all {
        Some(newest) => Stamp(newest.0.saturating_sub(1)),
        None => logs.iter().map(|it| it.newest).max().unwrap_or_default(),
    };
    let held_by = logs
        .iter()
        .filter(|it| it.counts && Some(it.newest) == shown_by_all)
        .map(|it| it.log)
        .collect();
    let mut found = Vec::new();
    for it in &logs {
        if let Some((seq, id)) = last(&it.log, stamp)? {
            let log = it.log;
            found.push(RecordRef { log, seq, id });
        }
    }
    Ok(Cut {
        stamp,
        logs: found,
        held_by,
    })
}

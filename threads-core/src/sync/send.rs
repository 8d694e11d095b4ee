//! What to say next to a peer about a thread.

use std::ops::ControlFlow;

use leno_crdt_codec::{LogId, Seq, bug};

use super::message::{
    AckLog, EPOCHS_MAX, HaveLog, LOGS_MAX, LogName, Message, RANGE_BYTES, SYNC_MESSAGE_BYTES_MAX,
    WRAPS_MAX,
};
use super::session::{Matched, Session};
use super::signal::{Held, Signals};
use crate::run::decode_row;
use crate::store::{StoreError, View};
use crate::thread::{LogStatus, Thread, tag_of};
use crate::{Frontier, Run, ThreadId, VerifyError};

/// Records that are here and that the other side lacks.
pub(super) fn owed(thread: &Thread, matched: &Matched) -> u64 {
    let theirs = |log: &LogId| matched.theirs.get(log).copied().unwrap_or_default();
    let logs = thread
        .logs()
        .filter(|log| !matched.unwanted.contains(&log.id));
    logs.map(|log| log.tip.seq.saturating_sub(theirs(&log.id)))
        .sum()
}

pub(super) fn next_message_while_joining(session: &mut Session, id: ThreadId) -> Option<Vec<u8>> {
    let matched = session.matched.get_mut(&id)?;
    if matched.have_sent {
        return None;
    }
    matched.count_have();
    // Nothing is here, so this is all there is to say to anybody.
    matched.is_open = true;
    Some(
        Message::Have {
            thread: matched.number,
            subscribe: true,
            wraps: [0; 8],
            logs: Vec::new(),
        }
        .encode(),
    )
}

/// What the replica knows beside the session and the thread.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) signals: &'a Signals,
    /// Whether another session of the thread can be pushed over.
    pub(super) has_room: bool,
    /// The time of the last step.
    pub(super) now_millis: u64,
}

pub(super) fn next_message(
    session: &mut Session,
    thread: &mut Thread,
    view: &dyn View,
    around: Around<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let id = thread.id();
    let Some(mut matched) = session.matched.remove(&id) else {
        return Ok(None);
    };
    let message = next_in(session, &mut matched, thread, view, around);
    session.matched.insert(id, matched);
    message
}

fn next_in(
    session: &Session,
    matched: &mut Matched,
    thread: &mut Thread,
    view: &dyn View,
    around: Around<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let number = matched.number;
    let may_follow = matched.may_follow(thread);
    if !may_follow {
        if let Some(farewell) = next_farewell(matched, thread, view)? {
            return Ok(Some(farewell));
        }
        return Ok(next_to_stranger(matched, thread));
    }
    if !matched.is_open {
        // Only now it is known who this is: begin, with what was kept back.
        matched.refresh();
        matched.refused.retain(|log| matched.shunned.contains(log));
        let unjudged = std::mem::take(&mut matched.unjudged);
        for (log, from) in session.differing(thread, &unjudged) {
            if !matched.asked.contains_key(&log) {
                matched.to_ask.insert(log, from);
            }
        }
    }
    if !matched.acks.is_empty() {
        let beyond = matched.acks.keys().nth(LOGS_MAX).copied();
        let rest = beyond.map(|number| matched.acks.split_off(&number));
        let acks = std::mem::replace(&mut matched.acks, rest.unwrap_or_default());
        let ranges = |number: &u32| matched.ranges_in.get(number).copied().unwrap_or_default();
        let ack = |(number, seq)| AckLog {
            number,
            seq,
            ranges: ranges(&number),
        };
        let logs = acks.into_iter().map(ack).collect();
        return Ok(Some(
            Message::Ack {
                thread: number,
                logs,
            }
            .encode(),
        ));
    }
    if !matched.have_sent {
        matched.count_have();
        matched.is_open = true;
        let logs = thread
            .logs()
            .filter(|log| log.tip.seq > 0 || matched.is_unwanted(&log.id))
            // Beyond the limit a peer sends again what is here already, which changes nothing.
            .take(LOGS_MAX)
            .map(|log| {
                if matched.full.contains_key(&log.id) {
                    return HaveLog::no_room(log.id);
                }
                if matched.is_unwanted(&log.id) {
                    return HaveLog::unwanted(log.id);
                }
                HaveLog {
                    log: log.id,
                    seq: log.tip.seq,
                    hash: session.short_hash(&log.tip.id),
                }
            })
            .collect();
        return Ok(Some(
            Message::Have {
                thread: number,
                subscribe: true,
                wraps: thread.wraps_digest(),
                logs,
            }
            .encode(),
        ));
    }
    if let Some((log, from)) = matched.to_ask.pop_first() {
        matched.asked.insert(log, from);
        let thread = number;
        return Ok(Some(Message::Question { thread, log, from }.encode()));
    }
    if matched.haves_in == 0 {
        return Ok(None);
    }
    if !matched.subscribed {
        // It does not know this seat yet: governance tells it, and then it says what it lacks.
        return next_range(matched, thread, view, Part::Governance, RANGE_BYTES);
    }
    // Whoever joins needs governance and keys first to make anything of a signal: both go before data.
    if (matched.up_to_date_sent || matched.data_room() == 0)
        && let Some(signal) = next_signal(session, matched, thread.id(), around.signals)
    {
        return Ok(Some(signal));
    }
    let of_link = matched.next_of_link(session, thread, around.has_room, around.now_millis);
    if of_link.is_some() {
        return Ok(of_link);
    }
    // Answers are made one at a time, when there is room for them.
    while let Some((log, from)) = matched.questions.pop_first() {
        let Some(branch) = thread.branch(view, &log, from)? else {
            continue;
        };
        let branch = Message::Branch {
            thread: number,
            log,
            signature: branch.head.signature,
            headers: branch.headers,
        };
        let branch = branch.encode();
        if branch.len() <= SYNC_MESSAGE_BYTES_MAX {
            return Ok(Some(branch));
        }
    }
    if let Some(genesis) = next_genesis(matched, thread) {
        return Ok(Some(genesis));
    }
    if !matched.totals_sent {
        matched.totals_sent = true;
        let records = owed(thread, matched);
        if records > 0 {
            return Ok(Some(
                Message::Totals {
                    thread: number,
                    records,
                }
                .encode(),
            ));
        }
    }
    if let Some(range) = next_range(matched, thread, view, Part::Governance, RANGE_BYTES)? {
        return Ok(Some(range));
    }
    if matched.wraps_level != Some(thread.wraps_kept()) && !bug!(WrapsNotHandedOn) {
        let wraps: Vec<_> = thread
            .wraps(view)?
            .into_iter()
            .filter(|wrap| {
                !matched
                    .wraps_sent
                    .contains(&(wrap.epoch, wrap.seat, tag_of(wrap)))
            })
            .take(WRAPS_MAX)
            .collect();
        if !wraps.is_empty() {
            matched.wraps_sent.extend(
                wraps
                    .iter()
                    .map(|wrap| (wrap.epoch, wrap.seat, tag_of(wrap))),
            );
            return Ok(Some(
                Message::Wraps {
                    thread: number,
                    wraps,
                }
                .encode(),
            ));
        }
        matched.wraps_level = Some(thread.wraps_kept());
    }
    let room = matched.data_room();
    if room == 0 && matched.owes_data(thread) {
        return Ok(None);
    }
    if let Some(range) = next_range(matched, thread, view, Part::Data, room)? {
        matched.data_sent(range.len());
        return Ok(Some(range));
    }
    if !matched.up_to_date_sent {
        matched.up_to_date_sent = true;
        let vectors = matched.haves_in;
        return Ok(Some(
            Message::UpToDate {
                thread: number,
                vectors,
            }
            .encode(),
        ));
    }
    // The other side told all it has, and a key is still missing, or what came was junk.
    if matched.is_answered() && !matched.keys_asked {
        let epochs = thread.keys_to_ask(EPOCHS_MAX);
        if !epochs.is_empty() {
            matched.keys_asked = true;
            let ask = Message::NeedKeys {
                thread: number,
                epochs,
            };
            return Ok(Some(ask.encode()));
        }
    }
    Ok(None)
}

/// The next signal that is not over, and that the other side has not sent itself.
fn next_signal(
    session: &Session,
    matched: &mut Matched,
    id: ThreadId,
    signals: &Signals,
) -> Option<Vec<u8>> {
    while let Some(key) = matched.signals.pop_first() {
        let is_news = |it: &&Held| !it.is_gone && !it.from.contains(&session.remote);
        if let Some(held) = signals.get(id, key).filter(is_news) {
            let (thread, signal) = (matched.number, held.signal.clone());
            return Some(Message::Signal { thread, signal }.encode());
        }
    }
    None
}

/// All that is said to a seat that holds no role here, or to a peer that proved none: an empty
/// vector, once it proved a seat.
///
/// Governance that seats it may not have come yet, so the vector asks for governance. It names no log
/// and counts nothing: whoever holds only the service key learns nothing from it. Nor is anything
/// acknowledged or asked before the seat holds a role.
fn next_to_stranger(matched: &mut Matched, thread: &Thread) -> Option<Vec<u8>> {
    if matched.have_sent || matched.seat.is_none() {
        return None;
    }
    matched.count_have();
    matched.is_open = false;
    Some(
        Message::Have {
            thread: matched.number,
            // Where nothing is, nothing comes twice.
            subscribe: thread.logs().all(|log| log.tip.seq == 0),
            wraps: [0; 8],
            logs: Vec::new(),
        }
        .encode(),
    )
}

/// What a seat that was removed is still told: governance up to its removal, so that it learns of it.
fn next_farewell(
    matched: &mut Matched,
    thread: &Thread,
    view: &dyn View,
) -> Result<Option<Vec<u8>>, StoreError> {
    let told = matched
        .seat
        .and_then(|seat| thread.governance().farewell(seat));
    let Some(told) = told.filter(|_| matched.haves_in > 0) else {
        return Ok(None);
    };
    // It may have been removed before it ever came.
    if let Some(genesis) = next_genesis(matched, thread) {
        return Ok(Some(genesis));
    }
    next_range(matched, thread, view, Part::Until(&told), RANGE_BYTES)
}

/// The genesis, for whoever told of no log: before anything else that is told of the thread.
fn next_genesis(matched: &mut Matched, thread: &Thread) -> Option<Vec<u8>> {
    if !matched.theirs.is_empty() || matched.genesis_sent {
        return None;
    }
    matched.genesis_sent = true;
    let genesis = thread.genesis().encode();
    let message = Message::Genesis {
        thread: matched.number,
        genesis: &genesis,
    };
    Some(message.encode())
}

/// Which logs a range is of.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// Control logs.
    Governance,
    /// Control logs, up to a frontier.
    Until(&'a Frontier),
    /// Data logs.
    Data,
}

impl Part<'_> {
    /// Tells whether a record of a log belongs to it.
    fn has(self, log: &LogStatus, seq: Seq) -> bool {
        match self {
            Self::Governance => log.is_control,
            Self::Until(frontier) => log.is_control && seq <= frontier.seq(&log.id),
            Self::Data => !log.is_control,
        }
    }
}

/// The next range of control logs, or of data logs: oldest first, up to so many bytes, but for a run
/// that is longer.
pub(super) fn next_range(
    matched: &mut Matched,
    thread: &Thread,
    view: &dyn View,
    part: Part<'_>,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, StoreError> {
    let theirs = |log: &LogId| matched.theirs.get(log).copied().unwrap_or_default();
    // In the order of opening: a log never comes before the record that opens it.
    let next = thread.logs_as_opened().find(|log| {
        let tip = log.tip.seq - u64::from(bug!(RangeOffByOne)).min(log.tip.seq);
        let is_wanted = match part {
            // Whoever is told for the last time is told, whatever was announced to it.
            Part::Until(_) => tip > theirs(&log.id) && !matched.unwanted.contains(&log.id),
            Part::Governance | Part::Data => matched.is_pushed(&log.id, tip),
        };
        is_wanted && part.has(log, theirs(&log.id) + 1)
    });
    let Some(log) = next else { return Ok(None) };
    let mut rows: Vec<(Seq, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    thread.scan_rows(view, &log.id, theirs(&log.id) + 1, &mut |first, row| {
        let is_enough = bytes + row.len() > bytes_max || !part.has(&log, first);
        if !rows.is_empty() && is_enough {
            return ControlFlow::Break(());
        }
        bytes += row.len();
        rows.push((first, row.to_vec()));
        ControlFlow::Continue(())
    })?;
    let damaged = |error: VerifyError| StoreError::Corrupt {
        what: format!("a run of log {}: {error}", log.id),
    };
    let mut runs: Vec<Run<'_>> = Vec::new();
    let Some((first, _)) = rows.first() else {
        return Err(StoreError::Corrupt {
            what: format!("log {} lacks its last records", log.id),
        });
    };
    // A row may begin before what the other side lacks: only the rest of it is sent.
    let from = theirs(&log.id) + 1;
    let skip = usize::try_from(from.saturating_sub(*first)).unwrap_or(usize::MAX);
    let behind = match rows.first() {
        Some((_, row)) if skip > 0 => {
            let (_, run) = decode_row(row).map_err(damaged)?;
            run.items_behind(skip).map_err(damaged)?
        }
        _ => Vec::new(),
    };
    let mut last = 0;
    for (at, row) in &rows {
        let (_, run) = decode_row(row).map_err(damaged)?;
        if *at < from {
            last = at + run.count() as u64 - 1;
            runs.push(Run::from_parts(&behind, run.signature()).map_err(damaged)?);
            continue;
        }
        // A row that overlaps the one before begins the next message.
        if !runs.is_empty() && *at != last + 1 {
            break;
        }
        last = at + run.count() as u64 - 1;
        runs.push(run);
    }
    let name = match matched.named_out.get(&log.id) {
        Some(number) => LogName::Known(*number),
        None => {
            let number = u32::try_from(matched.named_out.len()).unwrap_or(u32::MAX);
            matched.named_out.insert(log.id, number);
            matched.log_of_number.insert(number, log.id);
            LogName::New(log.id)
        }
    };
    let message = Message::Range {
        thread: matched.number,
        log: name,
        first: from.max(*first),
        runs,
    };
    let message = message.encode();
    matched.theirs.insert(log.id, last);
    let out = matched.ranges_out.entry(log.id).or_default();
    *out = (out.0 + 1, last);
    matched.ranges_sent += 1;
    Ok(Some(message))
}

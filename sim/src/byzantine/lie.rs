//! Lies in messages. Each is a case of the catalogue of faults; its number stands beside it.

use std::collections::VecDeque;

use leno_threads_core::sync::{AckLog, Below, HaveLog, LogName, Message, Prefix, Signal};
use leno_threads_core::{EpochId, LogId, Run, SeatId, Seq, Stamp};

use super::liar::Kept;
use crate::dice::Dice;

/// How often a message is repeated in a flood.
const FLOOD: usize = 40;

/// Bytes of a message that is too long or makes no sense.
const JUNK_BYTES: u64 = 200_000;

/// What is sent in the place of a message: nothing, something else, or more than it.
pub(super) fn lie(message: Vec<u8>, kept: &Kept, dice: &mut Dice) -> Vec<Vec<u8>> {
    match dice.below(10) {
        // N12: withheld.
        0 => Vec::new(),
        // N01: a byte is another one.
        1 => vec![flip(message, dice)],
        // N01: cut short.
        2 => {
            let end = dice.index(message.len().max(1));
            vec![message.into_iter().take(end).collect()]
        }
        // C01, N04: bytes that are no message.
        3 => vec![message, junk(dice)],
        // N09: of another session or thread.
        4 => {
            let old = pick(&kept.messages, dice).cloned();
            std::iter::once(message).chain(old).collect()
        }
        // N01: twice, or a flood.
        5 => {
            let times = if dice.coin() { 2 } else { FLOOD };
            vec![message; times]
        }
        _ => {
            let told = match Message::decode(&message) {
                Ok(decoded) => falsify(decoded, kept, dice),
                Err(_) => Vec::new(),
            };
            if told.is_empty() { vec![message] } else { told }
        }
    }
}

fn flip(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let at = dice.index(bytes.len().max(1));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << dice.below(8);
    }
    bytes
}

fn junk(dice: &mut Dice) -> Vec<u8> {
    let length = usize::try_from(dice.magnitude(&(1..=JUNK_BYTES))).unwrap_or(1);
    match dice.below(3) {
        // Nested without end.
        0 => vec![0x81; length],
        1 => dice.seed().into_iter().cycle().take(length).collect(),
        // A list that claims to be very long.
        _ => vec![
            0x83, 0x05, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
    }
}

/// A message that says something else than is true.
fn falsify(message: Message<'_>, kept: &Kept, dice: &mut Dice) -> Vec<Vec<u8>> {
    let false_one = match message {
        // N08, N10: heads that are not there, or none.
        Message::Have {
            thread,
            subscribe,
            wraps,
            mut logs,
        } => {
            claim(&mut logs, dice);
            let wraps = if dice.coin() { wraps } else { [7; 8] };
            Message::Have {
                thread,
                subscribe,
                wraps,
                logs,
            }
        }
        // Acknowledges what it does not keep, or nothing.
        Message::Ack { thread, logs } => {
            let seq = if dice.coin() { Seq::MAX - 1 } else { 0 };
            let ack = |it: AckLog| AckLog {
                seq,
                ranges: it.ranges.saturating_add(dice.below(3)),
                ..it
            };
            let logs = logs.into_iter().map(ack).collect();
            Message::Ack { thread, logs }
        }
        Message::Range {
            thread,
            log,
            first,
            runs,
        } => return range((thread, log, first), &runs, kept, dice),
        // K16, K17: wraps that give no key, or are withheld.
        Message::Wraps { thread, mut wraps } => {
            for wrap in &mut wraps {
                if dice.coin() {
                    wrap.encapsulated = dice.seed();
                }
            }
            if dice.below(3) == 0 {
                wraps.clear();
            }
            Message::Wraps { thread, wraps }
        }
        // N07: a count that nothing follows.
        Message::Totals { thread, .. } => Message::Totals {
            thread,
            records: u64::MAX,
        },
        Message::UpToDate { thread, vectors } => {
            let up_to_date = Message::UpToDate {
                thread,
                vectors: vectors.saturating_add(dice.below(3)),
            };
            // And somebody says something who did not.
            let signal = Signal {
                epoch: EpochId(dice.seed()),
                seat: pick(&kept.proofs, dice).map_or(SeatId(dice.seed()), |(seat, _)| *seat),
                tag: [dice.below(4) as u8; 16],
                at: Stamp(dice.next()),
                ttl_millis: 60_000,
                sealed: dice.seed().to_vec(),
                signature: stolen(kept, dice),
            };
            let signal = Message::Signal { thread, signal };
            return vec![up_to_date.encode(), signal.encode()];
        }
        // P01: somebody else's seat.
        Message::Prove { thread, .. } => return vec![unprove(thread, kept, dice)],
        // N13: threads that nobody knows.
        Message::Threads { mut tags } => {
            tags.extend((0..dice.below(1_000)).map(|it| u128::from(it).to_be_bytes()));
            Message::Threads { tags }
        }
        // Threads that differ and do not, and some that nobody knows.
        Message::Compare { round, .. } => Message::Compare {
            round,
            root: half(dice),
        },
        Message::Nodes { round, mut nodes } => {
            for shown in &mut nodes {
                match &mut shown.below {
                    Below::Inner(children) => {
                        let at = dice.below(16);
                        let mut children = (0..).zip(children.iter_mut());
                        if let Some((_, child)) = children.find(|(it, _)| *it == at) {
                            *child = half(dice);
                        }
                    }
                    Below::Leaves(leaves) if dice.coin() => leaves.clear(),
                    Below::Leaves(leaves) => leaves.iter_mut().for_each(|it| it.1 = half(dice)),
                }
            }
            Message::Nodes { round, nodes }
        }
        Message::Ask { round, .. } => {
            let nodes = vec![Prefix::ROOT];
            Message::Ask { round, nodes }
        }
        Message::Unknown { mut names } => {
            names.push(half(dice));
            names.sort_unstable();
            names.dedup();
            Message::Unknown { names }
        }
        Message::Compared { round } => Message::Compared {
            round: round.wrapping_add(u32::from(dice.coin())),
        },
        Message::Seen { tags } => Message::Seen {
            tags: tags.saturating_sub(u32::from(dice.coin())),
        },
        Message::Question { thread, log, from } => {
            let one = Message::Question { thread, log, from }.encode();
            return vec![one; FLOOD];
        }
        Message::NeedKeys { thread, .. } => {
            let mut epochs: Vec<_> = (0..=dice.below(60)).map(|_| EpochId(dice.seed())).collect();
            epochs.sort_unstable();
            Message::NeedKeys { thread, epochs }
        }
        Message::Branch {
            thread,
            log,
            signature,
            mut headers,
        } => {
            headers.reverse();
            Message::Branch {
                thread,
                log,
                signature,
                headers,
            }
        }
        // Records that are not there, or are there already.
        Message::Announce {
            thread,
            has_room,
            mut logs,
        } => {
            claim(&mut logs, dice);
            Message::Announce {
                thread,
                has_room,
                logs,
            }
        }
        Message::Graft {
            thread, mut logs, ..
        } => {
            let seq = if dice.coin() { 0 } else { Seq::MAX - 2 };
            logs.iter_mut().for_each(|(_, it)| *it = seq);
            let always = true;
            Message::Graft {
                thread,
                always,
                logs,
            }
        }
        Message::Prune { thread } => return vec![Message::Prune { thread }.encode(); FLOOD],
        Message::Pause { thread } => return vec![Message::Pause { thread }.encode(); FLOOD],
        Message::Hello { .. }
        | Message::Genesis { .. }
        | Message::Refused { .. }
        | Message::Signal { .. }
        | Message::Left { .. } => {
            return Vec::new();
        }
    };
    vec![false_one.encode()]
}

fn claim(logs: &mut Vec<HaveLog>, dice: &mut Dice) {
    match dice.below(5) {
        0 => logs.clear(),
        1 => logs
            .iter_mut()
            .for_each(|it| it.seq = it.seq.saturating_add(1 + dice.below(50)).min(Seq::MAX - 2)),
        2 => logs
            .iter_mut()
            .for_each(|it| it.hash = [dice.below(256) as u8; 8]),
        3 => logs.iter_mut().for_each(|it| it.seq = 1.max(it.seq / 2)),
        // N13: logs that nobody opened.
        _ => {
            let (seq, hash) = (3, [1; 8]);
            logs.extend((0..dice.below(300)).map(|_| HaveLog {
                log: LogId(dice.seed()),
                seq,
                hash,
            }));
            logs.sort_unstable_by_key(|it| it.log);
        }
    }
}

/// A proof that is none: of a seat that signed it on another link, of one that signed something else,
/// or of one that nobody knows.
pub(super) fn unprove(thread: u32, kept: &Kept, dice: &mut Dice) -> Vec<u8> {
    let proof = pick(&kept.proofs, dice).copied();
    let (seat, signature) = match (proof, dice.below(4)) {
        (Some((seat, signature)), 0 | 1) => (seat, signature),
        (Some((seat, _)), 2) => (seat, stolen(kept, dice)),
        _ => (SeatId(dice.seed()), stolen(kept, dice)),
    };
    Message::Prove {
        thread,
        seat,
        signature,
    }
    .encode()
}

/// What somebody signed, for whatever it was.
fn stolen(kept: &Kept, dice: &mut Dice) -> [u8; 64] {
    let proof = pick(&kept.proofs, dice).map(|(_, signature)| *signature);
    let head = pick(&kept.heads, dice).copied();
    let (first, second) = if dice.coin() {
        (proof, head)
    } else {
        (head, proof)
    };
    first.or(second).unwrap_or([7; 64])
}

fn pick<'a, T>(items: &'a VecDeque<T>, dice: &mut Dice) -> Option<&'a T> {
    if items.is_empty() {
        return None;
    }
    items.get(dice.index(items.len()))
}

/// Ranges elsewhere than they belong, or signed by what was signed for something else.
fn range(
    (thread, log, first): (u32, LogName, Seq),
    runs: &[Run<'_>],
    kept: &Kept,
    dice: &mut Dice,
) -> Vec<Vec<u8>> {
    let of = |thread, log, first| {
        Message::Range {
            thread,
            log,
            first,
            runs: runs.to_vec(),
        }
        .encode()
    };
    let good = of(thread, log, first);
    match dice.below(8) {
        // A signature of somebody else, of another purpose or place.
        6 | 7 => {
            let signature = stolen(kept, dice);
            let runs: Result<Vec<_>, _> = runs
                .iter()
                .map(|run| Run::from_parts(run.items(), &signature))
                .collect();
            let runs = runs.unwrap_or_default();
            vec![
                Message::Range {
                    thread,
                    log,
                    first,
                    runs,
                }
                .encode(),
            ]
        }
        // K01: its signature does not hold.
        5 => vec![flip(good, dice)],
        // L01: a gap, or an overlap.
        0 => vec![of(thread, log, first.saturating_add(1 + dice.below(3)))],
        1 => vec![of(thread, log, first.saturating_sub(1))],
        // L16: of another thread.
        2 => vec![good, of(thread ^ 1, log, first)],
        // L03: of another log.
        3 => vec![good, of(thread, LogName::New(LogId(dice.seed())), first)],
        _ => vec![good, of(thread, LogName::Known(7), first)],
    }
}

fn half(dice: &mut Dice) -> [u8; 16] {
    *dice.seed().first_chunk().unwrap_or(&[0; 16])
}

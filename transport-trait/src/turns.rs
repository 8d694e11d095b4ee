//! What waits to be read, peer by peer in turns, so that none keeps the others waiting.

use std::collections::{BTreeMap, VecDeque};

use crate::{Event, PeerId};

/// What a peer may have read in one turn, and what the shortest event costs: to look at many small ones
/// takes as long as to look at few large ones.
const TURN_COST: i64 = 4 << 10;

/// Events in the order in which they are read: in the order in which they came for each peer, and
/// about as many bytes of each in turn. Whoever sent one that is longer than a turn sits out as many.
///
/// Source: Shreedhar, Varghese, "Efficient Fair Queuing using Deficit Round Robin", SIGCOMM 1995. Here
/// a queue goes into debt instead of saving up, so that one whose messages are long never waits for
/// others that have nothing to say.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lines: BTreeMap<PeerId, Line>,
    /// Who has something to be read, whose turn it is first.
    ring: VecDeque<PeerId>,
}

/// What waits of one peer. It stays when it is empty, because of what the peer owes.
#[derive(Debug, Default)]
struct Line {
    events: VecDeque<Event>,
    /// What is left of the turn; below nothing it is owed.
    left: i64,
}

impl Turns {
    /// Adds what came of a peer.
    pub(crate) fn push(&mut self, event: Event) {
        let peer = peer_of(&event);
        let line = self.lines.entry(peer).or_default();
        if line.events.is_empty() {
            self.ring.push_back(peer);
        }
        line.events.push_back(event);
    }

    /// Takes what is next.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        loop {
            let peer = *self.ring.front()?;
            let Some(line) = self.lines.get_mut(&peer) else {
                self.ring.pop_front();
                continue;
            };
            if line.left <= 0 {
                line.left = line.left.saturating_add(TURN_COST);
                if line.left <= 0 {
                    self.ring.rotate_left(1);
                    continue;
                }
            }
            let Some(event) = line.events.pop_front() else {
                self.ring.pop_front();
                continue;
            };
            line.left = line.left.saturating_sub(cost(&event));
            if line.events.is_empty() {
                self.ring.pop_front();
                // A turn is not saved up.
                line.left = line.left.min(0);
                if line.left == 0 || matches!(event, Event::Disconnected { .. }) {
                    self.lines.remove(&peer);
                }
            } else if line.left <= 0 {
                self.ring.rotate_left(1);
            }
            return Some(event);
        }
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn peer_of(event: &Event) -> PeerId {
    match event {
        Event::Connected { peer, .. }
        | Event::Disconnected { peer, .. }
        | Event::Discovered { peer, .. } => *peer,
        Event::Message { from, .. } => *from,
    }
}

fn cost(event: &Event) -> i64 {
    match event {
        Event::Message { bytes, .. } => {
            let bytes = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            bytes.max(TURN_COST)
        }
        Event::Connected { .. } | Event::Disconnected { .. } | Event::Discovered { .. } => {
            TURN_COST
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LinkId;

    const ALICE: PeerId = PeerId([1; 32]);
    const MALLORY: PeerId = PeerId([9; 32]);

    fn message(from: PeerId, bytes: usize) -> Event {
        let (link, bytes) = (LinkId(u64::from(from.0[0])), vec![0; bytes]);
        Event::Message { from, link, bytes }
    }

    /// How many bytes and events come of a peer in so many events, with a queue that stays full.
    fn share(of: PeerId, alices: usize, mallorys: usize, events: usize) -> (usize, usize) {
        let mut turns = Turns::default();
        for _ in 0..1_000 {
            turns.push(message(MALLORY, mallorys));
            turns.push(message(ALICE, alices));
        }
        let (mut bytes, mut count) = (0, 0);
        for _ in 0..events {
            if let Some(Event::Message {
                from, bytes: it, ..
            }) = turns.pop()
                && from == of
            {
                bytes += it.len();
                count += 1;
            }
        }
        (bytes, count)
    }

    #[test]
    fn equals_have_equal_shares() {
        for bytes in [0, 250, 10_000, 1 << 20] {
            let (_, count) = share(ALICE, bytes, bytes, 960);
            assert!((464..=496).contains(&count), "{count} for {bytes} bytes");
        }
    }

    #[test]
    fn long_messages_wait_for_as_many_short_ones() {
        // A megabyte of Mallory's for each megabyte of Alice's: 256 of the short ones count 4 KiB each.
        let (_, count) = share(ALICE, 250, 1 << 20, 900);
        assert!(count >= 890, "{count}");
        // And the other way round: she who sends long ones is not kept waiting by many short ones.
        let (bytes, _) = share(ALICE, 100_000, 10, 320);
        assert!(bytes >= 1_000_000, "{bytes}");
    }

    #[test]
    fn empty_line_keeps_its_debt_and_saves_nothing_up() {
        let mut turns = Turns::default();
        // Nobody else is there, so nothing is held back.
        for _ in 0..10 {
            turns.push(message(MALLORY, 1 << 20));
            assert!(turns.pop().is_some());
        }
        turns.push(message(MALLORY, 1 << 20));
        for _ in 0..100 {
            turns.push(message(ALICE, 10));
        }
        for _ in 0..100 {
            let event = turns.pop();
            assert!(
                matches!(&event, Some(Event::Message { from, .. }) if *from == ALICE),
                "{event:?}"
            );
        }
        assert!(turns.pop().is_some());
        assert_eq!(turns.pop(), None);
    }

    #[test]
    fn each_peer_is_read_in_order() {
        let mut turns = Turns::default();
        for bytes in 0..100 {
            turns.push(message(ALICE, bytes));
            turns.push(message(MALLORY, 70_000 + bytes));
        }
        let mut next = [0, 70_000];
        while let Some(event) = turns.pop() {
            let Event::Message { from, bytes, .. } = event else {
                panic!("only messages came");
            };
            let next = &mut next[usize::from(from == MALLORY)];
            assert_eq!(bytes.len(), *next);
            *next += 1;
        }
        assert_eq!(next, [100, 70_100]);
    }

    #[test]
    fn who_is_gone_takes_no_room() {
        let mut turns = Turns::default();
        let link = LinkId(1);
        turns.push(Event::Connected { peer: ALICE, link });
        turns.push(message(ALICE, 1 << 20));
        let reason = crate::DisconnectReason::HungUp;
        turns.push(Event::Disconnected {
            peer: ALICE,
            link,
            reason,
        });
        while turns.pop().is_some() {}
        assert!(turns.lines.is_empty() && turns.ring.is_empty());
    }
}

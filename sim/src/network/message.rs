//! Messages on their way.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use leno::PeerId;
use leno::transport::{DisconnectReason, Event, LinkId, TransportError};

use super::condition::{Breach, MESSAGE_OVERHEAD_BYTES, corrupt};
use super::state::{Action, Handle, State, WireId, register};

/// How long it takes to send a lost message for the second time.
const RESEND_MICROS: u64 = 1_000_000;

/// One direction of a link.
#[derive(Default)]
pub(super) struct Way {
    /// What was sent and not yet taken by the receiver, overhead included.
    outstanding: usize,
    /// How often the receiver took a message; unchanged means no progress.
    taken: u64,
    /// When the last byte leaves the sender.
    sent_at: u64,
    /// When the last message arrives.
    pub(super) arrives_at: u64,
    /// A message was lost: what follows does not arrive either.
    pub(super) is_broken: bool,
    /// What waits for the end of a silence, and which silence that is.
    held: VecDeque<Vec<u8>>,
    silences: u64,
    senders: Vec<Waker>,
    /// A look at the progress is planned.
    is_watched: bool,
}

impl Way {
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }
}

impl State {
    pub(super) fn way_mut(&mut self, wire: WireId, way: usize) -> Option<&mut Way> {
        self.wires.get_mut(&wire)?.ways.get_mut(way)
    }

    pub(super) fn wake_senders(&mut self, wire: WireId) {
        if let Some(wire) = self.wires.get_mut(&wire) {
            for way in &mut wire.ways {
                self.woken.append(&mut way.senders);
            }
        }
    }

    pub(super) fn poll_send(
        &mut self,
        from: Handle,
        link: LinkId,
        message: &mut Option<Vec<u8>>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        let wire = match self.wire_of(from, link) {
            Ok(wire) => wire,
            Err(true) => return Poll::Ready(Err(TransportError::Closed)),
            Err(false) => return Poll::Ready(Err(TransportError::LinkOver { link })),
        };
        let over = Poll::Ready(Err(TransportError::LinkOver { link }));
        let Some(ends) = self.wires.get(&wire).map(|it| it.ends) else {
            return over;
        };
        let index = usize::from(ends[0] != from.peer);
        let (near, far) = (from.peer, if index == 0 { ends[1] } else { ends[0] });
        let (queue_bytes, stall) = {
            let conditions = self.conditions(near, far);
            (conditions.queue_bytes, conditions.stall_millis)
        };
        let (Some(way), Some(bytes)) = (self.way_mut(wire, index), message.take()) else {
            return over;
        };
        let cost = bytes.len().saturating_add(MESSAGE_OVERHEAD_BYTES);
        let fits = way.outstanding.saturating_add(cost) <= queue_bytes;
        if fits || way.outstanding == 0 {
            way.outstanding = way.outstanding.saturating_add(cost);
            self.dispatch(wire, index, (near, far), bytes);
            return Poll::Ready(Ok(()));
        }
        *message = Some(bytes);
        register(&mut way.senders, cx);
        if !std::mem::replace(&mut way.is_watched, true) {
            let taken = way.taken;
            let at = self.in_millis(stall).max(self.time.micros() + 1);
            let way = index;
            self.plan(at, Action::Watch { wire, way, taken });
        }
        Poll::Pending
    }

    /// Puts a message on its way.
    fn dispatch(&mut self, wire: WireId, way: usize, ends: (PeerId, PeerId), bytes: Vec<u8>) {
        if self.silent.contains(&ends) {
            self.counts.silenced += 1;
            self.hold(wire, way, ends, bytes);
            return;
        }
        let conditions = self.conditions(ends.0, ends.1);
        let (loss, rate) = (conditions.loss_per_million, conditions.bytes_per_second);
        let attempts = conditions.attempts.clamp(1, 16);
        let mut latency = self.latency(ends.0, ends.1);
        let mut losses = 0;
        while losses < attempts && self.dice.chance(loss) {
            latency = latency.saturating_add(RESEND_MICROS << losses);
            losses += 1;
        }
        let is_lost = losses == attempts;
        self.counts.resent += u64::from(losses > 0 && !is_lost);
        let now = self.time.micros();
        let Some(it) = self.way_mut(wire, way) else {
            return;
        };
        if it.is_broken {
            return;
        }
        let micros = (bytes.len() as u64).saturating_mul(1_000_000);
        let transmission = rate.map_or(0, |rate| micros.checked_div(rate).unwrap_or(u64::MAX));
        let is_slowed = rate.is_some() && it.sent_at > now;
        it.sent_at = it.sent_at.max(now).saturating_add(transmission);
        it.arrives_at = it.arrives_at.max(it.sent_at.saturating_add(latency));
        let at = it.arrives_at;
        if is_lost {
            it.is_broken = true;
            self.counts.lost += 1;
            for end in [0, 1] {
                self.plan_loss(wire, end, "a message could not be delivered");
            }
            return;
        }
        self.counts.slowed += u64::from(is_slowed);
        match self.breaches.get(&ends).copied() {
            Some(breach) => self.violate(wire, way, ends, (at, bytes), breach),
            None => self.plan(at, Action::Deliver { wire, way, bytes }),
        }
    }

    /// Lets a message arrive as the contract does not allow.
    fn violate(
        &mut self,
        wire: WireId,
        way: usize,
        ends: (PeerId, PeerId),
        (mut at, mut bytes): (u64, Vec<u8>),
        breach: Breach,
    ) {
        if self.dice.chance(breach.corrupt_per_million) {
            corrupt(&mut bytes, &mut self.dice);
            self.counts.corrupted += 1;
        }
        if self.dice.chance(breach.reorder_per_million) {
            at = at.saturating_add(self.dice.magnitude(&(1_000..=5_000_000)));
            self.counts.reordered += 1;
        }
        if self.dice.chance(breach.duplicate_per_million) {
            let again = at.saturating_add(self.dice.magnitude(&(1..=1_000_000)));
            let bytes = bytes.clone();
            self.plan(again, Action::Deliver { wire, way, bytes });
            self.counts.duplicated += 1;
        }
        if self.dice.chance(breach.replay_per_million) {
            // What was kept before may be of a link that is over.
            let old = self.replays.insert(ends, bytes.clone());
            if let Some(bytes) = old {
                self.plan(at, Action::Deliver { wire, way, bytes });
                self.counts.replayed += 1;
            }
        }
        if self.dice.chance(breach.drop_per_million) {
            self.counts.dropped += 1;
        } else {
            self.plan(at, Action::Deliver { wire, way, bytes });
        }
    }

    pub(super) fn deliver(&mut self, wire: WireId, way: usize, bytes: Vec<u8>) {
        let Some(ends) = self.wires.get(&wire).map(|it| it.ends) else {
            return;
        };
        let (Some(from), Some(to)) = (ends.get(way).copied(), ends.get(1 - way).copied()) else {
            return;
        };
        // Otherwise that end has given the link up.
        let Some(link) = self.live(wire, 1 - way) else {
            return;
        };
        self.counts.messages += 1;
        self.counts.bytes += bytes.len() as u64;
        self.report(to, wire, Event::Message { from, link, bytes });
    }

    /// Makes room for what the receiver took.
    pub(super) fn take(&mut self, wire: WireId, from: PeerId, len: usize) {
        let Some(wire) = self.wires.get_mut(&wire) else {
            return;
        };
        let index = usize::from(wire.ends[0] != from);
        let Some(way) = wire.ways.get_mut(index) else {
            return;
        };
        let cost = len.saturating_add(MESSAGE_OVERHEAD_BYTES);
        way.outstanding = way.outstanding.saturating_sub(cost);
        way.taken += 1;
        self.woken.append(&mut way.senders);
    }

    pub(super) fn watch(&mut self, wire: WireId, way: usize, seen: u64) {
        let Some(ends) = self.wires.get(&wire).map(|it| it.ends) else {
            return;
        };
        let millis = self.conditions(ends[0], ends[1]).stall_millis;
        let at = self.in_millis(millis).max(self.time.micros() + 1);
        let Some(it) = self.way_mut(wire, way) else {
            return;
        };
        let taken = it.taken;
        if it.senders.is_empty() {
            it.is_watched = false;
        } else if taken == seen {
            self.counts.stalled += 1;
            self.end(wire, way, DisconnectReason::Stalled { millis });
            let detail = "cut by the peer, for which this side took nothing".to_owned();
            self.end(wire, 1 - way, DisconnectReason::Lost { detail });
        } else {
            self.plan(at, Action::Watch { wire, way, taken });
        }
    }
}

// Silences.
impl State {
    pub(super) fn silence(&mut self, from: PeerId, to: PeerId) {
        self.silent.insert((from, to));
    }

    /// Keeps a message until the silence ends.
    fn hold(&mut self, wire: WireId, way: usize, ends: (PeerId, PeerId), bytes: Vec<u8>) {
        let stall = self.conditions(ends.0, ends.1).stall_millis;
        let at = self.in_millis(stall);
        let Some(it) = self.way_mut(wire, way) else {
            return;
        };
        it.held.push_back(bytes);
        if it.held.len() == 1 {
            it.silences += 1;
            let since = it.silences;
            self.plan(at, Action::Silence { wire, way, since });
        }
    }

    pub(super) fn unsilence(&mut self, from: PeerId, to: PeerId) {
        if !self.silent.remove(&(from, to)) {
            return;
        }
        let wires = self.wires.iter();
        let ways = wires.flat_map(|(wire, it)| (0..2).map(|way| (*wire, way, it.ends)));
        let ways: Vec<_> = ways
            .filter(|(_, way, ends)| {
                (ends.get(*way), ends.get(1 - *way)) == (Some(&from), Some(&to))
            })
            .map(|(wire, way, _)| (wire, way))
            .collect();
        for (wire, way) in ways {
            let held = self
                .way_mut(wire, way)
                .map(|it| std::mem::take(&mut it.held));
            for bytes in held.unwrap_or_default() {
                self.dispatch(wire, way, (from, to), bytes);
            }
        }
    }

    /// Ends a link whose sender heard nothing for too long.
    pub(super) fn give_up_silent(&mut self, wire: WireId, way: usize, since: u64) {
        let Some(it) = self.way_mut(wire, way) else {
            return;
        };
        if it.held.is_empty() || it.silences != since {
            return;
        }
        it.is_broken = true;
        let detail = "nothing was acknowledged".to_owned();
        self.end(wire, way, DisconnectReason::Lost { detail });
        self.plan_loss(wire, 1 - way, "the peer gave up");
    }
}

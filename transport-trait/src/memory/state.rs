use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, Waker};

use super::{Conditions, MESSAGE_OVERHEAD_BYTES};
use crate::turns::Turns;
use crate::{Address, DisconnectReason, Event, LinkId, PeerId, TransportError};

/// Names one endpoint of one life of a device; a restart makes the handles before it void.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Handle {
    pub(super) peer: PeerId,
    life: u64,
}

/// Why a dial led nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    Closed,
    Nobody,
    Partitioned,
    Ended,
}

impl Refusal {
    pub(super) fn into_error(self, address: &Address) -> TransportError {
        let detail = match self {
            Self::Closed => return TransportError::Closed,
            Self::Nobody => "nobody is there",
            Self::Partitioned => "the network is partitioned",
            Self::Ended => "the connection ended while it was made",
        };
        TransportError::Unreachable {
            address: address.clone(),
            detail: detail.to_owned(),
        }
    }
}

// It does not stand on `Links` and `Outbox`: here both ends of a link and all that is between them are
// one value under one lock and one clock, which says when a message arrives and when a sender has room.
// Queues with locks and wakers of their own at each end would have to be kept level with it.
/// The whole network: devices, links, and what is going to happen when.
///
/// Times are microseconds. `woken` collects the wakers of futures that a change concerns; the caller
/// wakes them after it let go of the lock.
pub(super) struct State {
    now: u64,
    rng: SplitMix,
    conditions: Conditions,
    endpoints: BTreeMap<PeerId, Endpoint>,
    links: BTreeMap<LinkId, Link>,
    /// The link that is being made between two devices; keys as of `pair`.
    openings: BTreeMap<(PeerId, PeerId), LinkId>,
    partitions: BTreeSet<(PeerId, PeerId)>,
    /// The second part of the key keeps what is due at the same time in order of planning.
    schedule: BTreeMap<(u64, u64), Action>,
    /// Numbers links, lives and planned actions.
    counter: u64,
    woken: Vec<Waker>,
}

struct Endpoint {
    life: u64,
    closed: bool,
    inbox: Turns,
    /// The link that this side holds to be live, by peer.
    links: BTreeMap<PeerId, LinkId>,
    /// Whom to dial again after a loss.
    wanted: BTreeSet<PeerId>,
    readers: Vec<Waker>,
    diallers: Vec<Waker>,
}

/// A connection. `ways[0]` goes from `ends[0]` to `ends[1]`, `ways[1]` back.
struct Link {
    ends: [PeerId; 2],
    /// Whether the end has dialled; if so it dials again.
    dialled: [bool; 2],
    ways: [Way; 2],
}

/// One direction of a link.
#[derive(Default)]
struct Way {
    /// What was sent and not yet taken by the receiver, overhead included.
    outstanding: usize,
    /// How often the receiver took a message; unchanged means no progress.
    taken: u64,
    /// When the last byte leaves the sender.
    sent_at: u64,
    /// When the last message arrives.
    arrives_at: u64,
    senders: Vec<Waker>,
    /// A look at the progress is planned.
    watched: bool,
}

enum Action {
    Open {
        link: LinkId,
    },
    Deliver {
        link: LinkId,
        way: usize,
        bytes: Vec<u8>,
    },
    Break {
        link: LinkId,
    },
    /// The receiving end of `way` learns that the sending end let go.
    End {
        link: LinkId,
        way: usize,
        reason: DisconnectReason,
    },
    /// A timer: does the way still make progress?
    Watch {
        link: LinkId,
        way: usize,
        taken: u64,
    },
    /// A timer.
    Redial {
        from: Handle,
        to: PeerId,
    },
}

impl Action {
    fn is_timer(&self) -> bool {
        matches!(self, Self::Watch { .. } | Self::Redial { .. })
    }
}

// Time.
impl State {
    pub(super) fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            now: 0,
            rng: SplitMix(seed),
            conditions,
            endpoints: BTreeMap::new(),
            links: BTreeMap::new(),
            openings: BTreeMap::new(),
            partitions: BTreeSet::new(),
            schedule: BTreeMap::new(),
            counter: 0,
            woken: Vec::new(),
        }
    }

    pub(super) fn now_micros(&self) -> u64 {
        self.now
    }

    pub(super) fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }

    pub(super) fn advance(&mut self, micros: u64) {
        self.advance_to(self.now.saturating_add(micros));
    }

    pub(super) fn settle(&mut self) {
        while let Some((&(at, _), _)) = self.schedule.iter().find(|(_, action)| !action.is_timer())
        {
            self.advance_to(at);
        }
    }

    /// Moves to the next planned thing and lets it happen; false if there is none.
    pub(super) fn step(&mut self) -> bool {
        let next = self.schedule.first_key_value().map(|(&(at, _), _)| at);
        next.inspect(|at| self.advance_to(*at)).is_some()
    }

    fn advance_to(&mut self, until: u64) {
        while let Some(entry) = self.schedule.first_entry() {
            let (at, _) = *entry.key();
            if at > until {
                break;
            }
            let action = entry.remove();
            self.now = self.now.max(at);
            self.perform(action);
        }
        self.now = self.now.max(until);
    }

    /// Plans an action, or performs it now if it is due.
    fn plan(&mut self, at: u64, action: Action) {
        if at <= self.now {
            self.perform(action);
        } else {
            let number = self.count();
            self.schedule.insert((at, number), action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Open { link } => self.open(link),
            Action::Deliver { link, way, bytes } => self.deliver(link, way, bytes),
            Action::Break { link } => self.break_link(link, "a message could not be delivered"),
            Action::End { link, way, reason } => self.end(link, 1 - way, reason),
            Action::Watch { link, way, taken } => self.watch(link, way, taken),
            Action::Redial { from, to } => self.redial(from, to),
        }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn latency(&mut self) -> u64 {
        let (start, end) = self.conditions.latency_millis.clone().into_inner();
        let start = start.saturating_mul(1_000);
        let end = end.saturating_mul(1_000).max(start);
        start.saturating_add(self.rng.below((end - start).saturating_add(1)))
    }

    fn in_millis(&self, millis: u64) -> u64 {
        self.now.saturating_add(millis.saturating_mul(1_000))
    }
}

// Devices.
impl State {
    pub(super) fn add(&mut self, peer: PeerId) -> Handle {
        if let Some(old) = self.endpoints.get(&peer) {
            let old = Handle {
                peer,
                life: old.life,
            };
            let links: Vec<LinkId> = self
                .endpoints
                .get(&peer)
                .map_or_else(Vec::new, |it| it.links.values().copied().collect());
            for link in links {
                self.break_link(link, "the peer restarted");
            }
            self.close(old);
        }
        let life = self.count();
        self.endpoints.insert(
            peer,
            Endpoint {
                life,
                closed: false,
                inbox: Turns::default(),
                links: BTreeMap::new(),
                wanted: BTreeSet::new(),
                readers: Vec::new(),
                diallers: Vec::new(),
            },
        );
        let waiting: Vec<PeerId> = self
            .endpoints
            .iter()
            .filter(|(_, it)| it.wanted.contains(&peer))
            .map(|(id, _)| *id)
            .collect();
        for other in waiting {
            self.plan_redial(other, peer);
        }
        Handle { peer, life }
    }

    pub(super) fn is_open(&self, handle: Handle) -> bool {
        self.endpoint(handle).is_some()
    }

    pub(super) fn close(&mut self, handle: Handle) {
        if !self.is_open(handle) {
            return;
        }
        let Some(endpoint) = self.endpoints.get_mut(&handle.peer) else {
            return;
        };
        endpoint.closed = true;
        endpoint.inbox.clear();
        endpoint.wanted.clear();
        self.woken.append(&mut endpoint.readers);
        self.woken.append(&mut endpoint.diallers);
        for (peer, link) in std::mem::take(&mut endpoint.links) {
            self.let_go(link, handle.peer, peer, DisconnectReason::PeerClosed);
        }
        let openings: Vec<_> = self
            .openings
            .keys()
            .filter(|(a, b)| *a == handle.peer || *b == handle.peer)
            .copied()
            .collect();
        for (a, b) in openings {
            self.abandon_opening(a, b);
        }
    }

    pub(super) fn poll_next(&mut self, handle: Handle, cx: &Context<'_>) -> Poll<Option<Event>> {
        let Some(endpoint) = self.endpoint_mut(handle) else {
            return Poll::Ready(None);
        };
        match endpoint.inbox.pop() {
            None => {
                register(&mut endpoint.readers, cx);
                Poll::Pending
            }
            Some(Event::Message { from, link, bytes }) => {
                self.take(link, from, bytes.len());
                Poll::Ready(Some(Event::Message { from, link, bytes }))
            }
            Some(event) => Poll::Ready(Some(event)),
        }
    }

    fn endpoint(&self, handle: Handle) -> Option<&Endpoint> {
        self.endpoints
            .get(&handle.peer)
            .filter(|it| it.life == handle.life && !it.closed)
    }

    fn endpoint_mut(&mut self, handle: Handle) -> Option<&mut Endpoint> {
        self.endpoints
            .get_mut(&handle.peer)
            .filter(|it| it.life == handle.life && !it.closed)
    }

    fn report(&mut self, to: PeerId, event: Event) {
        if let Some(endpoint) = self.endpoints.get_mut(&to).filter(|it| !it.closed) {
            endpoint.inbox.push(event);
            self.woken.append(&mut endpoint.readers);
        }
    }
}

// Making and ending links.
impl State {
    /// Polls a dial. `opening` is the link that it waits for, once there is one.
    pub(super) fn poll_dial(
        &mut self,
        from: Handle,
        to: PeerId,
        opening: &mut Option<LinkId>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Refusal>> {
        let Some(endpoint) = self.endpoint_mut(from) else {
            return Poll::Ready(Err(Refusal::Closed));
        };
        if endpoint.links.contains_key(&to) {
            endpoint.wanted.insert(to);
            return Poll::Ready(Ok(()));
        }
        if opening.is_none() {
            *opening = match self.begin(from.peer, to) {
                Ok(link) => Some(link),
                Err(refusal) => return Poll::Ready(Err(refusal)),
            };
            // It may be open by now.
            return self.poll_dial(from, to, opening, cx);
        }
        let waiting = *opening == self.openings.get(&pair(from.peer, to)).copied();
        match self.endpoint_mut(from) {
            Some(endpoint) if waiting => {
                register(&mut endpoint.diallers, cx);
                Poll::Pending
            }
            _ => Poll::Ready(Err(Refusal::Ended)),
        }
    }

    /// Begins to make a link, or joins the making of one.
    fn begin(&mut self, from: PeerId, to: PeerId) -> Result<LinkId, Refusal> {
        let ends = pair(from, to);
        if self.partitions.contains(&ends) {
            return Err(Refusal::Partitioned);
        }
        if self.endpoints.get(&to).is_none_or(|it| it.closed) {
            return Err(Refusal::Nobody);
        }
        if let Some(number) = self.openings.get(&ends).copied() {
            if let Some(link) = self.links.get_mut(&number) {
                link.mark_dialled(from);
            }
            return Ok(number);
        }
        let mut at = self
            .now
            .saturating_add(self.latency())
            .saturating_add(self.latency());
        // What the link before still has on the way, its end above all, comes first.
        for old in self
            .links
            .values()
            .filter(|it| pair(it.ends[0], it.ends[1]) == ends)
        {
            at = at.max(old.ways[0].arrives_at).max(old.ways[1].arrives_at);
        }
        let number = LinkId(self.count());
        let mut link = Link {
            ends: [ends.0, ends.1],
            dialled: [false; 2],
            ways: Default::default(),
        };
        link.mark_dialled(from);
        self.links.insert(number, link);
        self.openings.insert(ends, number);
        self.plan(at, Action::Open { link: number });
        Ok(number)
    }

    fn open(&mut self, number: LinkId) {
        let Some(link) = self.links.get(&number) else {
            return;
        };
        let (ends, dialled) = (link.ends, link.dialled);
        self.openings.remove(&(ends[0], ends[1]));
        for (end, dialled) in ends.into_iter().zip(dialled) {
            let other = other_end(ends, end);
            let Some(endpoint) = self.endpoints.get_mut(&end) else {
                continue;
            };
            if dialled {
                endpoint.wanted.insert(other);
            }
            self.woken.append(&mut endpoint.diallers);
            if let Some(old) = endpoint.links.insert(other, number) {
                self.report(
                    end,
                    Event::Disconnected {
                        peer: other,
                        link: old,
                        reason: DisconnectReason::Replaced,
                    },
                );
                self.forget_if_over(old);
            }
            self.report(
                end,
                Event::Connected {
                    peer: other,
                    link: number,
                },
            );
        }
    }

    fn abandon_opening(&mut self, a: PeerId, b: PeerId) {
        let Some(number) = self.openings.remove(&pair(a, b)) else {
            return;
        };
        self.links.remove(&number);
        for end in [a, b] {
            if let Some(endpoint) = self.endpoints.get_mut(&end) {
                self.woken.append(&mut endpoint.diallers);
            }
        }
    }

    pub(super) fn hang_up(&mut self, handle: Handle, peer: PeerId) {
        let Some(endpoint) = self.endpoint_mut(handle) else {
            return;
        };
        endpoint.wanted.remove(&peer);
        let link = endpoint.links.remove(&peer);
        self.abandon_opening(handle.peer, peer);
        if let Some(link) = link {
            self.report(
                handle.peer,
                Event::Disconnected {
                    peer,
                    link,
                    reason: DisconnectReason::HungUp,
                },
            );
            self.let_go(link, handle.peer, peer, DisconnectReason::PeerHungUp);
        }
    }

    /// Lets the far end of a link learn, after all that is on the way, that the near end is gone.
    fn let_go(&mut self, number: LinkId, near: PeerId, far: PeerId, reason: DisconnectReason) {
        let latency = self.latency();
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        let way = link.way_from(near);
        link.ways
            .iter_mut()
            .for_each(|it| self.woken.append(&mut it.senders));
        let Some(it) = link.ways.get_mut(way) else {
            return;
        };
        it.arrives_at = it.arrives_at.max(self.now.saturating_add(latency));
        let at = it.arrives_at;
        debug_assert_eq!(other_end(link.ends, near), far);
        self.plan(
            at,
            Action::End {
                link: number,
                way,
                reason,
            },
        );
    }

    /// Ends a link at one end.
    fn end(&mut self, number: LinkId, index: usize, reason: DisconnectReason) {
        let Some(ends) = self.links.get(&number).map(|it| it.ends) else {
            return;
        };
        let Some(end) = ends.get(index).copied() else {
            return;
        };
        let other = other_end(ends, end);
        let Some(endpoint) = self.endpoints.get_mut(&end) else {
            return;
        };
        if endpoint.links.get(&other) == Some(&number) {
            endpoint.links.remove(&other);
            if reason == DisconnectReason::PeerHungUp {
                endpoint.wanted.remove(&other);
            }
            if let Some(way) = self
                .links
                .get_mut(&number)
                .and_then(|it| it.ways.get_mut(index))
            {
                self.woken.append(&mut way.senders);
            }
            let again = !matches!(reason, DisconnectReason::PeerHungUp);
            self.report(
                end,
                Event::Disconnected {
                    peer: other,
                    link: number,
                    reason,
                },
            );
            if again {
                self.plan_redial(end, other);
            }
        }
        self.forget_if_over(number);
    }

    fn break_link(&mut self, number: LinkId, detail: &str) {
        for index in [0, 1] {
            self.end(
                number,
                index,
                DisconnectReason::Lost {
                    detail: detail.to_owned(),
                },
            );
        }
    }

    fn forget_if_over(&mut self, number: LinkId) {
        let Some(ends) = self.links.get(&number).map(|it| it.ends) else {
            return;
        };
        let held = |end: PeerId| {
            let endpoint = self.endpoints.get(&end);
            endpoint.is_some_and(|it| it.links.get(&other_end(ends, end)) == Some(&number))
        };
        if !ends.into_iter().any(held) {
            self.links.remove(&number);
        }
    }

    pub(super) fn partition(&mut self, a: PeerId, b: PeerId) {
        self.partitions.insert(pair(a, b));
        self.abandon_opening(a, b);
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, it)| pair(it.ends[0], it.ends[1]) == pair(a, b))
            .map(|(number, _)| *number)
            .collect();
        for link in links {
            self.break_link(link, "the network was partitioned");
        }
    }

    pub(super) fn heal(&mut self, a: PeerId, b: PeerId) {
        if self.partitions.remove(&pair(a, b)) {
            self.plan_redial(a, b);
            self.plan_redial(b, a);
        }
    }

    fn plan_redial(&mut self, from: PeerId, to: PeerId) {
        let Some(endpoint) = self.endpoints.get(&from) else {
            return;
        };
        if endpoint.wanted.contains(&to) {
            let from = Handle {
                peer: from,
                life: endpoint.life,
            };
            // Never now: the caller is in the midst of a change.
            let at = self
                .in_millis(self.conditions.redial_millis)
                .max(self.now.saturating_add(1));
            self.plan(at, Action::Redial { from, to });
        }
    }

    fn redial(&mut self, from: Handle, to: PeerId) {
        let Some(endpoint) = self.endpoint(from) else {
            return;
        };
        if endpoint.wanted.contains(&to) && !endpoint.links.contains_key(&to) {
            // A refusal waits for `heal` or `add`, which plan the next try.
            let _ = self.begin(from.peer, to);
        }
    }
}

// Messages.
impl State {
    pub(super) fn poll_send(
        &mut self,
        from: Handle,
        number: LinkId,
        message: &mut Option<Vec<u8>>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        let Some(endpoint) = self.endpoint(from) else {
            return Poll::Ready(Err(TransportError::Closed));
        };
        let is_live = endpoint.links.values().any(|it| *it == number);
        let over = Poll::Ready(Err(TransportError::LinkOver { link: number }));
        let Some(link) = self.links.get_mut(&number).filter(|_| is_live) else {
            return over;
        };
        let index = link.way_from(from.peer);
        let (Some(way), Some(bytes)) = (link.ways.get_mut(index), message.take()) else {
            return over;
        };
        let cost = bytes.len().saturating_add(MESSAGE_OVERHEAD_BYTES);
        let fits = way.outstanding.saturating_add(cost) <= self.conditions.queue_bytes;
        if fits || way.outstanding == 0 {
            way.outstanding = way.outstanding.saturating_add(cost);
            self.dispatch(number, index, bytes);
            return Poll::Ready(Ok(()));
        }
        *message = Some(bytes);
        register(&mut way.senders, cx);
        if !std::mem::replace(&mut way.watched, true) {
            let taken = way.taken;
            let at = self
                .in_millis(self.conditions.stall_millis)
                .max(self.now.saturating_add(1));
            self.plan(
                at,
                Action::Watch {
                    link: number,
                    way: index,
                    taken,
                },
            );
        }
        Poll::Pending
    }

    /// Puts a message on its way.
    fn dispatch(&mut self, number: LinkId, index: usize, bytes: Vec<u8>) {
        let latency = self.latency();
        let lost = self.rng.below(1_000_000) < u64::from(self.conditions.loss_per_million);
        let transmission = self.conditions.bytes_per_second.map_or(0, |rate| {
            (bytes.len() as u64)
                .saturating_mul(1_000_000)
                .checked_div(rate)
                .unwrap_or(u64::MAX)
        });
        let Some(way) = self
            .links
            .get_mut(&number)
            .and_then(|it| it.ways.get_mut(index))
        else {
            return;
        };
        way.sent_at = way.sent_at.max(self.now).saturating_add(transmission);
        way.arrives_at = way.arrives_at.max(way.sent_at.saturating_add(latency));
        let at = way.arrives_at;
        let action = match lost {
            true => Action::Break { link: number },
            false => Action::Deliver {
                link: number,
                way: index,
                bytes,
            },
        };
        self.plan(at, action);
    }

    fn deliver(&mut self, number: LinkId, index: usize, bytes: Vec<u8>) {
        let Some(ends) = self.links.get(&number).map(|it| it.ends) else {
            return;
        };
        let Some(from) = ends.get(index).copied() else {
            return;
        };
        let to = other_end(ends, from);
        if self
            .endpoints
            .get(&to)
            .is_some_and(|it| it.links.get(&from) == Some(&number))
        {
            self.report(
                to,
                Event::Message {
                    from,
                    link: number,
                    bytes,
                },
            );
        }
    }

    /// Makes room for what the receiver took.
    fn take(&mut self, number: LinkId, from: PeerId, len: usize) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        let index = link.way_from(from);
        let Some(way) = link.ways.get_mut(index) else {
            return;
        };
        way.outstanding = way
            .outstanding
            .saturating_sub(len.saturating_add(MESSAGE_OVERHEAD_BYTES));
        way.taken += 1;
        self.woken.append(&mut way.senders);
    }

    fn watch(&mut self, number: LinkId, index: usize, seen: u64) {
        let stall_millis = self.conditions.stall_millis;
        let Some(way) = self
            .links
            .get_mut(&number)
            .and_then(|it| it.ways.get_mut(index))
        else {
            return;
        };
        if way.senders.is_empty() {
            way.watched = false;
        } else if way.taken == seen {
            self.end(
                number,
                index,
                DisconnectReason::Stalled {
                    millis: stall_millis,
                },
            );
            let detail = "cut by the peer, for which this side took nothing";
            self.end(
                number,
                1 - index,
                DisconnectReason::Lost {
                    detail: detail.to_owned(),
                },
            );
        } else {
            let taken = way.taken;
            let at = self.in_millis(stall_millis).max(self.now.saturating_add(1));
            self.plan(
                at,
                Action::Watch {
                    link: number,
                    way: index,
                    taken,
                },
            );
        }
    }
}

impl Link {
    /// The index of the way that leaves this end, which is the index of the end.
    fn way_from(&self, end: PeerId) -> usize {
        usize::from(self.ends[0] != end)
    }

    fn mark_dialled(&mut self, end: PeerId) {
        let [a, b] = self.ends;
        self.dialled = [self.dialled[0] || a == end, self.dialled[1] || b == end];
    }
}

fn pair(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    (a.min(b), a.max(b))
}

fn other_end([a, b]: [PeerId; 2], end: PeerId) -> PeerId {
    if end == a { b } else { a }
}

fn register(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|it| it.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

/// A small generator of even numbers, the same on every platform; not for secrets.
///
/// # Source
///
/// SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`, 0 if that is 0; the bias is below one in 2^32 for our bounds.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

//! Devices and links, and what is going to happen when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::{Context, Poll, Waker};

use leno::transport::{DisconnectReason, Event, LinkId, TransportError};
use leno::{Address, PeerId};

use super::condition::{Breach, Conditions};
use super::message::Way;
use crate::dice::Dice;
use crate::time::Time;
use crate::trace::digest;

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

/// What a network came to so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Links that came about.
    pub links: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Messages that were lost for good, each of which ended its link.
    pub lost: u64,
    /// Messages that were lost once at least, and sent again.
    pub resent: u64,
    /// Messages that waited for a line that is slow.
    pub slowed: u64,
    /// Messages that waited for the end of a silence.
    pub silenced: u64,
    /// Messages whose bytes were changed in violation of the contract.
    pub corrupted: u64,
    /// Messages that arrived twice.
    pub duplicated: u64,
    /// Messages that others overtook.
    pub reordered: u64,
    /// Messages that arrived on a later link.
    pub replayed: u64,
    /// Messages that were left out.
    pub dropped: u64,
    /// Links that ended because one side took nothing.
    pub stalled: u64,
    /// Links that ended without anybody's wish.
    pub broken: u64,
}

/// What the network just let happen, for the trace.
#[derive(Debug)]
pub(crate) enum Happened {
    /// A link came about, was refused, or ended at one end.
    Link(u64),
    /// A message arrived, or was dropped on arrival: the link, the way, a digest of the bytes, and their
    /// number.
    Message(u64, usize, u64, u64),
    /// A look at a queue, or a message that was late.
    Timer(u64),
}

/// The wire of a link, by which both ends know it.
pub(super) type WireId = u64;

pub(super) struct State {
    pub(super) time: Time,
    pub(super) dice: Dice,
    conditions: Conditions,
    between: BTreeMap<(PeerId, PeerId), Conditions>,
    partitions: BTreeSet<(PeerId, PeerId)>,
    pub(super) silent: BTreeSet<(PeerId, PeerId)>,
    pub(super) breaches: BTreeMap<(PeerId, PeerId), Breach>,
    /// Messages that a breach keeps for a later link.
    pub(super) replays: BTreeMap<(PeerId, PeerId), Vec<u8>>,
    endpoints: BTreeMap<PeerId, Endpoint>,
    pub(super) wires: BTreeMap<WireId, Wire>,
    /// The wire that is being laid between two devices; keys as of `pair`.
    openings: BTreeMap<(PeerId, PeerId), WireId>,
    /// The second part of the key keeps what is due at the same time in order of planning.
    schedule: BTreeMap<(u64, u64), Action>,
    counter: u64,
    pub(super) counts: Counts,
    pub(super) woken: Vec<Waker>,
}

struct Endpoint {
    life: u64,
    is_closed: bool,
    inbox: VecDeque<(WireId, Event)>,
    /// The links that this side holds to be live.
    links: BTreeMap<PeerId, (LinkId, WireId)>,
    links_made: u64,
    readers: Vec<Waker>,
    diallers: Vec<Waker>,
}

/// A connection. `ways[0]` goes from `ends[0]` to `ends[1]`, `ways[1]` back.
pub(super) struct Wire {
    pub(super) ends: [PeerId; 2],
    pub(super) ways: [Way; 2],
}

pub(super) enum Action {
    Open(WireId),
    /// The opening led nowhere.
    Refuse(WireId),
    Deliver {
        wire: WireId,
        way: usize,
        bytes: Vec<u8>,
    },
    /// One end learns that the link is over.
    End {
        wire: WireId,
        end: usize,
        reason: DisconnectReason,
    },
    /// Does the way still make progress?
    Watch {
        wire: WireId,
        way: usize,
        taken: u64,
    },
    /// Is the way still silent?
    Silence {
        wire: WireId,
        way: usize,
        since: u64,
    },
}

// What is due.
impl State {
    pub(super) fn new(time: Time, dice: Dice, conditions: Conditions) -> Self {
        Self {
            time,
            dice,
            conditions,
            between: BTreeMap::new(),
            partitions: BTreeSet::new(),
            silent: BTreeSet::new(),
            breaches: BTreeMap::new(),
            replays: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            wires: BTreeMap::new(),
            openings: BTreeMap::new(),
            schedule: BTreeMap::new(),
            counter: 0,
            counts: Counts::default(),
            woken: Vec::new(),
        }
    }

    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.schedule.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn perform_next(&mut self) -> Option<Happened> {
        let entry = self.schedule.first_entry()?;
        if entry.key().0 > self.time.micros() {
            return None;
        }
        Some(match entry.remove() {
            Action::Open(wire) => {
                self.open(wire);
                Happened::Link(wire)
            }
            Action::Refuse(wire) => {
                self.abandon(wire);
                Happened::Link(wire)
            }
            Action::Deliver { wire, way, bytes } => {
                let (digest, len) = (digest(&bytes), bytes.len() as u64);
                self.deliver(wire, way, bytes);
                Happened::Message(wire, way, digest, len)
            }
            Action::End { wire, end, reason } => {
                self.end(wire, end, reason);
                Happened::Link(wire)
            }
            Action::Watch { wire, way, taken } => {
                self.watch(wire, way, taken);
                Happened::Timer(wire)
            }
            Action::Silence { wire, way, since } => {
                self.give_up_silent(wire, way, since);
                Happened::Timer(wire)
            }
        })
    }

    /// Plans what is never now, so that order is drawn by the world.
    pub(super) fn plan(&mut self, at: u64, action: Action) {
        let number = self.count();
        self.schedule.insert((at, number), action);
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn conditions(&self, from: PeerId, to: PeerId) -> &Conditions {
        self.between.get(&(from, to)).unwrap_or(&self.conditions)
    }

    pub(super) fn latency(&mut self, from: PeerId, to: PeerId) -> u64 {
        let range = self.conditions(from, to).latency_micros.clone();
        self.dice.within(&range)
    }

    pub(super) fn in_millis(&self, millis: u64) -> u64 {
        let micros = millis.saturating_mul(1_000);
        self.time.micros().saturating_add(micros)
    }

    pub(super) fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
        self.between.clear();
    }

    pub(super) fn set_conditions_between(&mut self, from: PeerId, to: PeerId, it: Conditions) {
        self.between.insert((from, to), it);
    }
}

// Devices.
impl State {
    pub(super) fn add(&mut self, peer: PeerId) -> Handle {
        self.crash(peer);
        let life = self.count();
        let links_made = self.endpoints.get(&peer).map_or(0, |it| it.links_made);
        let endpoint = Endpoint {
            life,
            is_closed: false,
            inbox: VecDeque::new(),
            links: BTreeMap::new(),
            links_made,
            readers: Vec::new(),
            diallers: Vec::new(),
        };
        self.endpoints.insert(peer, endpoint);
        Handle { peer, life }
    }

    fn endpoint(&mut self, handle: Handle) -> Option<&mut Endpoint> {
        self.endpoints
            .get_mut(&handle.peer)
            .filter(|it| it.life == handle.life && !it.is_closed)
    }

    pub(super) fn is_open(&mut self, handle: Handle) -> bool {
        self.endpoint(handle).is_some()
    }

    /// Takes an endpoint away; returns the links that it had.
    fn shut(&mut self, peer: PeerId) -> Vec<WireId> {
        let Some(endpoint) = self.endpoints.get_mut(&peer) else {
            return Vec::new();
        };
        endpoint.is_closed = true;
        endpoint.inbox.clear();
        self.woken.append(&mut endpoint.readers);
        self.woken.append(&mut endpoint.diallers);
        let links = std::mem::take(&mut endpoint.links);
        let openings = self.openings.iter();
        let openings = openings.filter(|((a, b), _)| *a == peer || *b == peer);
        for wire in openings.map(|(_, wire)| *wire).collect::<Vec<_>>() {
            self.abandon(wire);
        }
        links.into_values().map(|(_, wire)| wire).collect()
    }

    pub(super) fn close(&mut self, handle: Handle) {
        if self.is_open(handle) {
            for wire in self.shut(handle.peer) {
                self.let_go(wire, handle.peer, DisconnectReason::PeerClosed);
            }
        }
    }

    pub(super) fn crash(&mut self, peer: PeerId) {
        for wire in self.shut(peer) {
            let Some(end) = self.wires.get(&wire).map(|it| it.far_end(peer)) else {
                continue;
            };
            let detail = "the peer is gone";
            self.plan_loss(wire, end, detail);
        }
    }

    pub(super) fn poll_next(&mut self, handle: Handle, cx: &Context<'_>) -> Poll<Option<Event>> {
        let Some(endpoint) = self.endpoint(handle) else {
            return Poll::Ready(None);
        };
        let Some((wire, event)) = endpoint.inbox.pop_front() else {
            register(&mut endpoint.readers, cx);
            return Poll::Pending;
        };
        if let Event::Message { from, bytes, .. } = &event {
            self.take(wire, *from, bytes.len());
        }
        Poll::Ready(Some(event))
    }

    /// Whether this end holds the wire to be live; its name of it.
    pub(super) fn live(&self, wire: WireId, end: usize) -> Option<LinkId> {
        let ends = self.wires.get(&wire)?.ends;
        let (near, far) = (ends.get(end)?, ends.get(1 - end)?);
        let endpoint = self.endpoints.get(near)?;
        let (link, live) = endpoint.links.get(far)?;
        (*live == wire).then_some(*link)
    }

    pub(super) fn wire_of(&mut self, handle: Handle, link: LinkId) -> Result<WireId, bool> {
        let endpoint = self.endpoint(handle).ok_or(true)?;
        let links = endpoint.links.values();
        let wire = links.copied().find(|(it, _)| *it == link);
        wire.map(|(_, wire)| wire).ok_or(false)
    }

    pub(super) fn report(&mut self, to: PeerId, wire: WireId, event: Event) {
        if let Some(endpoint) = self.endpoints.get_mut(&to).filter(|it| !it.is_closed) {
            endpoint.inbox.push_back((wire, event));
            self.woken.append(&mut endpoint.readers);
        }
    }

    pub(super) fn connected(&self, a: PeerId, b: PeerId) -> bool {
        let of = |near: PeerId, far: PeerId| {
            let endpoint = self.endpoints.get(&near).filter(|it| !it.is_closed);
            endpoint.and_then(|it| it.links.get(&far).map(|(_, wire)| *wire))
        };
        of(a, b).is_some() && of(a, b) == of(b, a)
    }
}

// Links come and go.
impl State {
    pub(super) fn poll_dial(
        &mut self,
        from: Handle,
        to: PeerId,
        opening: &mut Option<WireId>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Refusal>> {
        let Some(endpoint) = self.endpoint(from) else {
            return Poll::Ready(Err(Refusal::Closed));
        };
        if endpoint.links.contains_key(&to) {
            return Poll::Ready(Ok(()));
        }
        register(&mut endpoint.diallers, cx);
        match *opening {
            Some(wire) if self.openings.get(&pair(from.peer, to)) == Some(&wire) => {}
            Some(_) => return Poll::Ready(Err(Refusal::Ended)),
            None => match self.begin(from.peer, to) {
                Ok(wire) => *opening = Some(wire),
                Err(refusal) => return Poll::Ready(Err(refusal)),
            },
        }
        Poll::Pending
    }

    /// Begins to lay a wire, or joins the laying of one.
    fn begin(&mut self, from: PeerId, to: PeerId) -> Result<WireId, Refusal> {
        let ends = pair(from, to);
        if let Some(wire) = self.openings.get(&ends) {
            return Ok(*wire);
        }
        let is_cut = self.partitions.contains(&ends);
        // A network says at once that nobody is to be reached, or says nothing.
        if is_cut && self.dice.coin() {
            return Err(Refusal::Partitioned);
        }
        if self.endpoints.get(&to).is_none_or(|it| it.is_closed) {
            return Err(Refusal::Nobody);
        }
        let is_silent = self.silent.contains(&(from, to)) || self.silent.contains(&(to, from));
        let there_and_back = self
            .latency(from, to)
            .saturating_add(self.latency(to, from));
        let mut at = self.time.micros().saturating_add(there_and_back);
        // What the link before still has on the way, its end above all, comes first.
        let before = self.wires.values();
        for old in before.filter(|it| pair(it.ends[0], it.ends[1]) == ends) {
            at = at.max(old.ways[0].arrives_at).max(old.ways[1].arrives_at);
        }
        let wire = self.count();
        let ways = Default::default();
        let ends = [ends.0, ends.1];
        self.wires.insert(wire, Wire { ends, ways });
        self.openings.insert(pair(from, to), wire);
        if is_cut || is_silent {
            self.plan(self.in_millis(DIAL_MILLIS), Action::Refuse(wire));
        } else {
            self.plan(at, Action::Open(wire));
        }
        Ok(wire)
    }

    fn open(&mut self, wire: WireId) {
        let Some(ends) = self.wires.get(&wire).map(|it| it.ends) else {
            return;
        };
        if self.openings.get(&(ends[0], ends[1])) != Some(&wire) {
            return;
        }
        self.openings.remove(&(ends[0], ends[1]));
        self.counts.links += 1;
        for (near, far) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let Some(endpoint) = self.endpoints.get_mut(&near) else {
                continue;
            };
            endpoint.links_made += 1;
            let link = LinkId(endpoint.links_made);
            self.woken.append(&mut endpoint.diallers);
            let old = endpoint.links.insert(far, (link, wire));
            if let Some((old, old_wire)) = old {
                let over = Event::Disconnected {
                    peer: far,
                    link: old,
                    reason: DisconnectReason::Replaced,
                };
                self.report(near, old_wire, over);
                self.wake_senders(old_wire);
                self.forget_if_over(old_wire);
            }
            self.report(near, wire, Event::Connected { peer: far, link });
        }
    }

    /// Gives up to lay a wire.
    fn abandon(&mut self, wire: WireId) {
        let Some(ends) = self.wires.get(&wire).map(|it| it.ends) else {
            return;
        };
        if self.openings.get(&(ends[0], ends[1])) != Some(&wire) {
            return;
        }
        self.openings.remove(&(ends[0], ends[1]));
        self.wires.remove(&wire);
        for end in ends {
            if let Some(endpoint) = self.endpoints.get_mut(&end) {
                self.woken.append(&mut endpoint.diallers);
            }
        }
    }

    pub(super) fn hang_up(&mut self, handle: Handle, peer: PeerId) {
        let Some(endpoint) = self.endpoint(handle) else {
            return;
        };
        let link = endpoint.links.remove(&peer);
        if let Some(wire) = self.openings.get(&pair(handle.peer, peer)).copied() {
            self.abandon(wire);
        }
        let Some((link, wire)) = link else {
            return;
        };
        let reason = DisconnectReason::HungUp;
        self.report(
            handle.peer,
            wire,
            Event::Disconnected { peer, link, reason },
        );
        self.let_go(wire, handle.peer, DisconnectReason::PeerHungUp);
    }

    /// Lets the far end of a link learn, after all that is on the way, that the near end is gone.
    fn let_go(&mut self, wire: WireId, near: PeerId, reason: DisconnectReason) {
        self.wake_senders(wire);
        let Some((end, far)) = self.wires.get(&wire).map(|it| {
            let end = it.far_end(near);
            (end, it.ends.get(end).copied().unwrap_or(near))
        }) else {
            return;
        };
        let latency = self.latency(near, far);
        let now = self.time.micros();
        let Some(way) = self.way_mut(wire, 1 - end) else {
            return;
        };
        way.arrives_at = way.arrives_at.max(now.saturating_add(latency));
        // It does not come through either, or not behind a gap: then the far end has to find out.
        if way.is_broken || way.is_held() {
            self.plan_loss(wire, end, "the peer is gone");
        } else {
            let at = way.arrives_at;
            self.plan(at, Action::End { wire, end, reason });
        }
    }

    /// Plans that an end finds out that the link is broken: soon, or as late as may be.
    pub(super) fn plan_loss(&mut self, wire: WireId, end: usize, detail: &str) {
        let Some(ends) = self.wires.get(&wire).map(|it| it.ends) else {
            return;
        };
        let stall = self.conditions(ends[0], ends[1]).stall_millis;
        let longest = stall.saturating_mul(1_000).max(1_000);
        let after = self.dice.magnitude(&(500..=longest));
        let at = self.time.micros().saturating_add(after);
        let detail = detail.to_owned();
        let reason = DisconnectReason::Lost { detail };
        self.plan(at, Action::End { wire, end, reason });
    }

    /// Ends a link at one end.
    pub(super) fn end(&mut self, wire: WireId, end: usize, reason: DisconnectReason) {
        let Some(link) = self.live(wire, end) else {
            self.forget_if_over(wire);
            return;
        };
        let Some(ends) = self.wires.get(&wire).map(|it| it.ends) else {
            return;
        };
        let (Some(near), Some(far)) = (ends.get(end).copied(), ends.get(1 - end).copied()) else {
            return;
        };
        if let Some(endpoint) = self.endpoints.get_mut(&near) {
            endpoint.links.remove(&far);
        }
        if matches!(reason, DisconnectReason::Lost { .. }) {
            self.counts.broken += 1;
        }
        self.wake_senders(wire);
        let peer = far;
        self.report(near, wire, Event::Disconnected { peer, link, reason });
        self.forget_if_over(wire);
    }

    /// Ends a link at both ends.
    fn break_wire(&mut self, wire: WireId, detail: &str) {
        for end in [0, 1] {
            let detail = detail.to_owned();
            self.end(wire, end, DisconnectReason::Lost { detail });
        }
    }

    fn forget_if_over(&mut self, wire: WireId) {
        let is_live = (0..2).any(|end| self.live(wire, end).is_some());
        let is_opening = self.openings.values().any(|it| *it == wire);
        if !is_live && !is_opening {
            self.wires.remove(&wire);
        }
    }

    fn wires_between(&self, a: PeerId, b: PeerId) -> Vec<WireId> {
        let wires = self.wires.iter();
        let of = wires.filter(|(_, it)| pair(it.ends[0], it.ends[1]) == pair(a, b));
        of.map(|(wire, _)| *wire).collect()
    }

    pub(super) fn cut(&mut self, a: PeerId, b: PeerId) {
        for wire in self.wires_between(a, b) {
            self.abandon(wire);
            self.break_wire(wire, "the connection was reset");
        }
    }

    pub(super) fn partition(&mut self, a: PeerId, b: PeerId) {
        self.partitions.insert(pair(a, b));
        for wire in self.wires_between(a, b) {
            self.abandon(wire);
            for way in [0, 1] {
                if let Some(way) = self.way_mut(wire, way) {
                    way.is_broken = true;
                }
                self.plan_loss(wire, way, "the network was partitioned");
            }
        }
    }

    pub(super) fn heal(&mut self, a: PeerId, b: PeerId) {
        self.partitions.remove(&pair(a, b));
    }

    pub(super) fn breach(&mut self, from: PeerId, to: PeerId, breach: Option<Breach>) {
        match breach {
            Some(breach) => self.breaches.insert((from, to), breach),
            None => {
                self.replays.remove(&(from, to));
                let had = self.breaches.remove(&(from, to));
                if had.is_some() {
                    self.cut(from, to);
                }
                had
            }
        };
    }

    pub(super) fn calm(&mut self, conditions: Conditions) {
        self.set_conditions(conditions);
        self.partitions.clear();
        for (from, to) in self.breaches.keys().copied().collect::<Vec<_>>() {
            self.breach(from, to, None);
        }
        for (from, to) in self.silent.iter().copied().collect::<Vec<_>>() {
            self.unsilence(from, to);
        }
    }
}

/// How long a dial waits for an answer.
const DIAL_MILLIS: u64 = 10_000;

impl Wire {
    /// The place of the end that is not this one.
    fn far_end(&self, near: PeerId) -> usize {
        usize::from(self.ends[0] == near)
    }
}

pub(super) fn pair(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    (a.min(b), a.max(b))
}

pub(super) fn register(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|it| it.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

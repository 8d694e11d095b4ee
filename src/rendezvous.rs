//! Rendezvous: members who are connected to a third peer tell each other through it where they are.
//!
//! Each says its addresses as a signal, which is sealed to the readers of a thread and signed by its
//! seat: a replicator that carries it cannot read it, and nobody else is sent it. Who hears of a peer
//! that it is not connected to dials it there, ever more rarely, and believes nothing but that: a seat
//! speaks only for the device that its certificate names, so no member can have others dial as if for
//! many; the transport proves the device, and the session the seat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_threads_core::sync::{PeerKey, SIGNAL_VALUE_BYTES_MAX, SignalEvent};
use leno_threads_core::thread::ThreadEvent;
use leno_threads_core::{SeatId, ThreadId};
use leno_transport_trait::{Address, PeerId, Transport};

use crate::member::proven;
use crate::signal::RESERVED_PREFIX;
use crate::text::ADDRESSES_MAX;
use crate::work::{Core, Work};

/// The key of the signal.
const KEY: &str = "leno/addresses";

/// Most threads in which addresses are said.
const THREADS_MAX: usize = 64;

/// With so many links nobody else is looked for.
const LINKS_MAX: usize = 32;

/// At most so many shared threads are looked through for them, counted for each peer that shares one.
const LOOKED_AT_MAX: usize = 4096;

/// Most peers of which it is remembered when they were tried.
const PEERS_MAX: usize = 1024;

/// How often own addresses are looked at, and how long after somebody came or a thread changed.
const LOOK_MILLIS: u64 = 30_000;
const SOON_MILLIS: u64 = 1_000;

/// How long a peer that was tried is left alone, doubled each time. More than the time between two of
/// its signals, so that the shortest pause passes over one.
const RETRY_MILLIS_MIN: u64 = 45_000;
const RETRY_MILLIS_MAX: u64 = 3_600_000;

/// What a peer says and hears of addresses. Does nothing unless it has a transport.
#[derive(Default)]
pub(crate) struct Rendezvous {
    transport: Option<Arc<dyn Transport>>,
    /// What is said, and where.
    said: Vec<u8>,
    threads: BTreeSet<ThreadId>,
    due_millis: Option<u64>,
    /// Who is said to be where, for the end of the step.
    heard: Vec<Heard>,
    tried: BTreeMap<PeerKey, Tried>,
}

/// What a seat says of where its device is. That it is its device is not shown yet.
struct Heard {
    thread: ThreadId,
    seat: SeatId,
    peer: PeerId,
    addresses: Vec<Address>,
}

struct Tried {
    addresses: Vec<Address>,
    wait_millis: u64,
    next_millis: u64,
}

impl Rendezvous {
    pub(crate) fn new(transport: Option<Arc<dyn Transport>>) -> Self {
        Self {
            due_millis: transport.as_ref().map(|_| 0),
            transport,
            ..Self::default()
        }
    }

    /// When own addresses are looked at next.
    pub(crate) fn wake_millis(&self) -> Option<u64> {
        self.due_millis
    }

    /// Brings everything forward by as much as the clock was set back.
    pub(crate) fn clock_went_back(&mut self, millis: u64) {
        self.due_millis = self.due_millis.map(|due| due.saturating_sub(millis));
        for tried in self.tried.values_mut() {
            tried.next_millis = tried.next_millis.saturating_sub(millis);
        }
    }

    /// Somebody came, or a thread changed: there may be somebody new to tell.
    pub(crate) fn look_soon(&mut self, now_millis: u64) {
        let soon = now_millis.saturating_add(SOON_MILLIS);
        self.due_millis = self.due_millis.map(|due| due.min(soon));
    }

    /// Notes what a signal says, if it is about addresses.
    pub(crate) fn hear(&mut self, signal: &SignalEvent) {
        let (Some(transport), Some(value)) = (&self.transport, &signal.value) else {
            return;
        };
        if signal.name != KEY {
            return;
        }
        // What does not read, or leads to somebody else, is its sender's mistake.
        let Ok((peer, addresses)) = decode(value) else {
            return;
        };
        let is_its = |address: &Address| transport.peer_of(address) == Some(peer);
        let addresses: Vec<_> = addresses.into_iter().filter(is_its).collect();
        if peer != transport.local() && !addresses.is_empty() {
            self.heard.push(Heard {
                thread: signal.thread,
                seat: signal.seat,
                peer,
                addresses,
            });
        }
    }

    /// Leaves a member alone that broke the protocol: what it says does not bring it back at once.
    pub(crate) fn leave_alone(&mut self, key: PeerKey, now_millis: u64) {
        if self.transport.is_some() && self.has_room(key, now_millis) {
            let tried = Tried {
                addresses: Vec::new(),
                wait_millis: RETRY_MILLIS_MAX,
                next_millis: now_millis.saturating_add(RETRY_MILLIS_MAX),
            };
            self.tried.insert(key, tried);
        }
    }

    /// Takes out whom to dial now, and where. `is_linked` tells who is connected, and `is_its` whether
    /// it is known that a seat's device is the one that it names.
    fn take_dials(
        &mut self,
        links: usize,
        is_linked: impl Fn(&PeerKey) -> bool,
        is_its: impl Fn(&Heard) -> bool,
        now_millis: u64,
    ) -> Vec<(PeerId, Address)> {
        let mut to_dial = Vec::new();
        for heard in std::mem::take(&mut self.heard) {
            let key = PeerKey(heard.peer.0);
            if is_linked(&key) {
                // It was no failure. It is dialled at most once in the shortest pause all the same:
                // who comes and goes shall not have it dialled each time.
                if let Some(tried) = self.tried.get_mut(&key) {
                    tried.wait_millis = 0;
                }
            } else if links < LINKS_MAX && self.may_try(key, now_millis) && is_its(&heard) {
                self.note_tried(key, &heard.addresses, now_millis);
                let peer = heard.peer;
                to_dial.extend(heard.addresses.into_iter().map(|address| (peer, address)));
            }
        }
        to_dial
    }

    fn may_try(&mut self, key: PeerKey, now_millis: u64) -> bool {
        let tried = self.tried.get(&key);
        tried.is_none_or(|it| it.next_millis <= now_millis) && self.has_room(key, now_millis)
    }

    fn has_room(&mut self, key: PeerKey, now_millis: u64) -> bool {
        if !self.tried.contains_key(&key) && self.tried.len() >= PEERS_MAX {
            self.tried.retain(|_, it| it.next_millis > now_millis);
        }
        self.tried.contains_key(&key) || self.tried.len() < PEERS_MAX
    }

    fn note_tried(&mut self, key: PeerKey, addresses: &[Address], now_millis: u64) {
        let tried = self.tried.entry(key).or_insert_with(|| Tried {
            addresses: Vec::new(),
            wait_millis: 0,
            next_millis: 0,
        });
        // Whoever moves is tried there sooner, but not at once: addresses cost their teller nothing.
        if tried.addresses != addresses {
            (tried.addresses, tried.wait_millis) = (addresses.to_vec(), 0);
        }
        tried.wait_millis = (tried.wait_millis * 2).clamp(RETRY_MILLIS_MIN, RETRY_MILLIS_MAX);
        tried.next_millis = now_millis.saturating_add(tried.wait_millis);
    }
}

impl Work<'_> {
    /// Says own addresses in threads where somebody hears it, if they are due to be looked at.
    pub(crate) fn rendezvous(&mut self) {
        let now_millis = self.now_millis;
        let Some(transport) = self.core.rendezvous.transport.clone() else {
            return;
        };
        // A key or a grant may let it speak where it could not. Records come all the time.
        let matters = |event: &ThreadEvent| {
            use ThreadEvent::{GovernanceChanged, KeyCame, RosterChanged};
            matches!(event, GovernanceChanged | RosterChanged | KeyCame { .. })
        };
        if self.changes.events.iter().any(|(_, event)| matters(event)) {
            self.core.rendezvous.look_soon(now_millis);
        }
        let due = self.core.rendezvous.due_millis;
        if due.is_some_and(|due| due > now_millis) {
            return;
        }
        self.core.rendezvous.due_millis = Some(now_millis.saturating_add(LOOK_MILLIS));
        let addresses = transport.addresses();
        let value = encode(transport.local(), &addresses);
        let replica = &self.core.replica;
        let peers = replica.peers().filter(|_| !addresses.is_empty());
        let shared = peers.flat_map(|it| replica.shared_with(&it).take(THREADS_MAX));
        let shared: BTreeSet<_> = shared.take(LOOKED_AT_MAX).collect();
        let rendezvous = &mut self.core.rendezvous;
        let before = std::mem::take(&mut rendezvous.threads);
        let is_news = rendezvous.said != value;
        rendezvous.said.clone_from(&value);
        let shared: BTreeSet<_> = shared.into_iter().take(THREADS_MAX).collect();
        for id in before.difference(&shared) {
            self.core.signals.leave(*id, KEY);
        }
        for id in shared {
            let is_said = before.contains(&id) && !is_news;
            // Who carries a thread may not speak in it, and who just joined not yet.
            if is_said || self.stay(id, KEY.to_owned(), 0, value.clone()).is_ok() {
                self.core.rendezvous.threads.insert(id);
            }
        }
    }

    /// Takes out whom to dial because of what was heard in this step, and where.
    pub(crate) fn found(
        &mut self,
        links: usize,
        is_linked: impl Fn(&PeerKey) -> bool,
    ) -> Vec<(PeerId, Address)> {
        let (now, now_millis) = (self.now(), self.now_millis);
        let Core {
            rendezvous,
            replica,
            ..
        } = &mut *self.core;
        let is_its = |heard: &Heard| {
            let thread = replica.thread(&heard.thread);
            let certificate = thread.and_then(|thread| proven(thread, heard.seat, now));
            certificate.is_some_and(|it| it.device().to_bytes() == heard.peer.0)
        };
        rendezvous.take_dials(links, is_linked, is_its, now_millis)
    }
}

/// `[device key: 32 bytes, [address, ..]]`, at most four addresses, and fewer if they are long.
fn encode(local: PeerId, addresses: &[Address]) -> Vec<u8> {
    let mut count = addresses.len().min(ADDRESSES_MAX);
    loop {
        let mut encoder = Encoder::new();
        encoder.array(2).bytes(&local.0).array(count);
        for address in addresses.iter().take(count) {
            encoder.text(address.as_str());
        }
        let value = encoder.into_vec();
        if value.len() <= SIGNAL_VALUE_BYTES_MAX || count == 0 {
            return value;
        }
        count -= 1;
    }
}

fn decode(value: &[u8]) -> Result<(PeerId, Vec<Address>), DecodeError> {
    let mut decoder = Decoder::new(value);
    decoder.array_of(2)?;
    let peer = PeerId(*decoder.fixed()?);
    let count = decoder.array_up_to(ADDRESSES_MAX)?;
    let mut addresses = Vec::new();
    for _ in 0..count {
        addresses.extend(decoder.text()?.parse::<Address>());
    }
    decoder.finish()?;
    Ok((peer, addresses))
}

const _: () = assert!(
    KEY.len() > RESERVED_PREFIX.len(),
    "the key begins with the reserved prefix"
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_executor::block_on;
    use futures_util::future::{FutureExt, join_all, select};
    use futures_util::pin_mut;

    use leno_transport_trait::ADDRESS_BYTES_MAX;

    use super::*;
    use crate::store::MemoryStore;
    use crate::transport::memory::{Conditions, MemoryNetwork};
    use crate::{DocumentId, ManualClock, Peer, Role};

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_out_as_they_went_in_as_far_as_they_fit() {
        let local = PeerId([7; 32]);
        assert!(KEY.starts_with(RESERVED_PREFIX));
        for (length, expected) in [(10, 4), (240, 4), (ADDRESS_BYTES_MAX, 3)] {
            let all: Vec<_> = (0..6)
                .map(|it| address(&format!("{it}").repeat(length)))
                .collect();
            let value = encode(local, &all);
            assert!(value.len() <= SIGNAL_VALUE_BYTES_MAX);
            assert_eq!(decode(&value), Ok((local, all[..expected].to_vec())));
        }
        assert!(decode(b"").is_err());
    }

    /// What a rendezvous dials when a seat says that its device is at an address.
    fn hear(
        rendezvous: &mut Rendezvous,
        (peer, there): (PeerId, &str),
        (links, is_linked, is_its): (usize, bool, bool),
        now_millis: u64,
    ) -> usize {
        rendezvous.heard.push(Heard {
            thread: ThreadId([3; 32]),
            seat: SeatId([4; 32]),
            peer,
            addresses: vec![address(there)],
        });
        let (is_linked, is_its) = (|_: &PeerKey| is_linked, |_: &Heard| is_its);
        let to_dial = rendezvous.take_dials(links, is_linked, is_its, now_millis);
        to_dial.len()
    }

    const MISSING: (usize, bool, bool) = (0, false, true);
    const LINKED: (usize, bool, bool) = (0, true, true);

    #[test]
    fn peer_that_cannot_be_reached_is_tried_ever_more_rarely() {
        let (peer, mut rendezvous) = (PeerId([1; 32]), Rendezvous::default());
        let mut tried_at = Vec::new();
        for now in (0..1_000).map(|it| it * 30_000) {
            if hear(&mut rendezvous, (peer, "there"), MISSING, now) > 0 {
                tried_at.push(now / 30_000);
            }
        }
        assert_eq!(tried_at[..6], [0, 2, 5, 11, 23, 47]);
        assert!(tried_at.len() < 16, "{tried_at:?}");
    }

    #[test]
    fn peer_is_dialled_once_in_a_pause_wherever_it_says_it_is_and_however_often_it_comes() {
        let (peer, mut rendezvous) = (PeerId([1; 32]), Rendezvous::default());
        let mut dialled = 0;
        for now in (0..10 * RETRY_MILLIS_MIN).step_by(1_000) {
            let there = format!("there {now}");
            dialled += hear(&mut rendezvous, (peer, &there), MISSING, now);
            hear(&mut rendezvous, (peer, &there), LINKED, now);
        }
        assert_eq!(dialled, 10);
    }

    #[test]
    fn nobody_is_dialled_whose_device_it_is_not_and_with_many_links_nobody_at_all() {
        let (peer, mut rendezvous) = (PeerId([1; 32]), Rendezvous::default());
        for (how, expected) in [
            ((0, false, false), 0),
            ((LINKS_MAX, false, true), 0),
            (LINKED, 0),
            ((LINKS_MAX - 1, false, true), 1),
        ] {
            let dialled = hear(&mut rendezvous, (peer, "there"), how, 0);
            assert_eq!(dialled, expected, "{how:?}");
        }
        // Names of devices take no room unless they are shown.
        for number in 0..=255 {
            let other = PeerId([number; 32]);
            hear(&mut rendezvous, (other, "there"), (0, false, false), 0);
        }
        assert_eq!(rendezvous.tried.len(), 1);
    }

    #[test]
    fn room_for_peers_is_bounded_and_comes_back() {
        let mut rendezvous = Rendezvous::default();
        let mut try_it = |number: u16, now| {
            let mut peer = PeerId([0; 32]);
            peer.0[..2].copy_from_slice(&number.to_be_bytes());
            hear(&mut rendezvous, (peer, "there"), MISSING, now)
        };
        let most = u16::try_from(PEERS_MAX).unwrap();
        assert_eq!((0..2 * most).map(|it| try_it(it, 0)).sum::<usize>(), 1024);
        assert_eq!(try_it(most, RETRY_MILLIS_MIN - 1), 0);
        assert_eq!(try_it(most, RETRY_MILLIS_MIN), 1);
    }

    #[test]
    fn who_broke_the_protocol_is_left_alone_and_a_clock_that_goes_back_delays_nothing() {
        let network = MemoryNetwork::new(7, Conditions::default());
        let endpoint = network.endpoint(PeerId([9; 32]));
        let mut rendezvous = Rendezvous::new(Some(Arc::new(endpoint)));
        let (peer, now) = (PeerId([1; 32]), 1_000_000_000);
        rendezvous.leave_alone(PeerKey(peer.0), now);
        let mut dialled_at = |now| hear(&mut rendezvous, (peer, "there"), MISSING, now);
        assert_eq!(dialled_at(now + RETRY_MILLIS_MAX - 1), 0);
        rendezvous.clock_went_back(now);
        let mut dialled_at = |now| hear(&mut rendezvous, (peer, "there"), MISSING, now);
        assert_eq!(dialled_at(RETRY_MILLIS_MAX - 1), 0);
        assert_eq!(dialled_at(RETRY_MILLIS_MAX), 1);
    }

    #[test]
    fn member_does_not_speak_for_the_device_of_somebody_else() {
        block_on(async {
            let network = MemoryNetwork::new(7, Conditions::default());
            let clock = ManualClock::new(1_800_000_000_000);
            let (mut peers, mut drivers) = (Vec::new(), Vec::new());
            for number in [1, 2] {
                let store = MemoryStore::new();
                let builder = || Peer::builder().store(store.clone()).clock(clock.clone());
                let (peer, _) = builder().seed([number; 32]).build().await.unwrap();
                let builder = builder().transport(network.endpoint(peer.id()));
                let builder = builder.seed([10 + number; 32]).share_addresses(number == 1);
                let (peer, driver) = builder.build().await.unwrap();
                peers.push(peer);
                drivers.push(driver.run().boxed());
            }
            let carol = network.endpoint(PeerId([3; 32]));
            let test = async {
                let (alice, mallory) = (&peers[0], &peers[1]);
                let thread = alice.create_thread("band").await.unwrap();
                let card = mallory.card("mallory").await.unwrap();
                let ticket = thread.grant(&card, Role::Writer).await.unwrap();
                let id = mallory.join(&ticket).await.unwrap().id();
                let value = encode(carol.local(), &carol.addresses());
                let long = Duration::from_secs(1);
                mallory.sync_once(long).await.unwrap();
                let say = move |work: &mut Work<'_>| work.say(id, KEY, Some(&value));
                mallory.call(say).await.unwrap();
                mallory.sync_once(long).await.unwrap();
                // What is sent before a record comes before it.
                let songs = mallory
                    .thread(id)
                    .await
                    .unwrap()
                    .collection::<BTreeMap<String, u32>>("songs");
                let song = DocumentId::natural("a").unwrap();
                songs.put(&song, &BTreeMap::new()).await.unwrap();
                mallory.sync_once(long).await.unwrap();
                let heard = move |work: &mut Work<'_>| Ok(work.core.replica.signals(id).count());
                assert_eq!(alice.call(heard).await.unwrap(), 1, "Alice heard it");
                assert!(carol.next().now_or_never().is_none(), "nobody dialled");
            };
            pin_mut!(test);
            select(test, join_all(drivers)).await;
        });
    }
}

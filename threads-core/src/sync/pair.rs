//! What this peer and another one remember of each other beyond a session.
//!
//! Of each thread that both follow, and in which each proved its seat to the other, both keep the two
//! seats under a [`Name`] that only they can make. So a later session names and signs only what is
//! new, and a [`HashTree`] over where these threads stand tells which of them differ. Threads are
//! numbered here in the order in which they came, so one number tells which were named to the other
//! side before: they are remembered, or it does not follow them, or they stand in
//! [`Pair::again`].
//!
//! All of it may be lost: then threads are named anew. Nothing else follows from what one side
//! remembers and the other does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use hmac::{Hmac, KeyInit, Mac};
use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_identity::Label;
use sha2::Sha256;

use super::PeerKey;
use super::slot::Slot;
use super::tree::{HashTree, Name};
use crate::store::{Batch, Overlay, StoreError, Table, View, scan_prefix};
use crate::thread::Thread;
use crate::{SeatId, ServiceKey, ThreadId};

/// Most peers that are remembered. Beyond it the one that was not seen for longest is forgotten, which
/// costs that all threads are named to it anew.
pub const PAIRS_MAX: usize = 1024;

/// Of how many peers that are not connected the trees are kept in memory.
const RESTING_MAX: usize = 64;

/// How exactly it is noted when a peer was last seen: no row is written for it more often. As often, all
/// threads that are not remembered are named again: if a session went wrong and both sides noted that a
/// thread was named, nobody would ever name it.
const SEEN_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// Of a thread that both sides follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Known {
    pub(super) number: u32,
    pub(super) name: Name,
    /// The seat that this side proved.
    pub(super) own: SeatId,
    /// The seat that the other side proved.
    pub(super) remote: SeatId,
}

/// What is remembered of one peer.
#[derive(Debug, Default)]
pub(super) struct Pair {
    known: BTreeMap<ThreadId, Known>,
    ids: BTreeMap<Name, ThreadId>,
    pub(super) tree: HashTree,
    /// Threads whose leaf is to be made anew.
    stale: BTreeSet<ThreadId>,
    /// Threads that were named before, by number, and are to be named again all the same.
    again: BTreeSet<u32>,
    /// Rows that a step without a batch could not change.
    owed: BTreeSet<u32>,
    /// When it was connected last, as a count.
    used: u64,
    /// Whether all threads that are not remembered are named in this session, see [`SEEN_MILLIS`].
    names_all: bool,
}

/// The row of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// The threads with lower numbers were named to it.
    named_until: u32,
    seen_millis: u64,
}

/// All that is remembered.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    heads: BTreeMap<PeerKey, Head>,
    of: BTreeMap<PeerKey, Pair>,
    uses: u64,
}

/// The beginning of the keys of peers, and of those of their threads.
const HEAD: u8 = 0;
const THREAD: u8 = 1;

fn head_key(peer: &PeerKey) -> Vec<u8> {
    [&[HEAD], &peer.0[..]].concat()
}

fn threads_key(peer: &PeerKey) -> Vec<u8> {
    [&[THREAD], &peer.0[..]].concat()
}

fn thread_key(peer: &PeerKey, number: u32) -> Vec<u8> {
    [&threads_key(peer)[..], &number.to_be_bytes()].concat()
}

/// The name of a thread between two devices, the same for both.
pub(super) fn pair_name(service: &ServiceKey, one: PeerKey, other: PeerKey) -> Name {
    let (low, high) = (one.min(other), one.max(other));
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(service.expose())
        .expect("HMAC takes any key length");
    mac.update(&Label::PAIR_NAME.message(&[&low.0, &high.0]));
    let name = mac.finalize().into_bytes();
    *name.first_chunk().expect("a MAC is longer than a name")
}

impl Pairs {
    /// Reads whom it is remembered of.
    pub(super) fn load(view: &dyn View) -> Result<Self, StoreError> {
        let mut pairs = Self::default();
        let mut damaged = None;
        scan_prefix(view, Table::Pairs, &[HEAD], &mut |key, row| {
            let peer = key.get(1..).and_then(|peer| peer.try_into().ok());
            match (peer, decode_head(row)) {
                (Some(peer), Ok(head)) => {
                    pairs.heads.insert(PeerKey(peer), head);
                }
                _ => damaged = Some("a row of a peer"),
            }
            ControlFlow::Continue(())
        })?;
        match damaged {
            Some(what) => Err(StoreError::Corrupt { what: what.into() }),
            None => Ok(pairs),
        }
    }

    /// What is remembered of a peer whose session began, if it was asked for with [`Pairs::recall`].
    pub(super) fn get_mut(&mut self, peer: &PeerKey) -> Option<&mut Pair> {
        self.of.get_mut(peer)
    }

    pub(super) fn get(&self, peer: &PeerKey) -> Option<&Pair> {
        self.of.get(peer)
    }

    /// No thread may get a lower number: it would count as named.
    pub(super) fn numbers_until(&self) -> u32 {
        let until = self.heads.values().map(|head| head.named_until);
        until.max().unwrap_or_default()
    }

    /// The threads with lower numbers were named to a peer; 0 for a stranger, and if all are named again.
    pub(super) fn named_until(&self, peer: &PeerKey) -> u32 {
        let names_all = self.of.get(peer).is_some_and(|pair| pair.names_all);
        let head = self.heads.get(peer).filter(|_| !names_all);
        head.map_or(0, |head| head.named_until)
    }

    /// Has what is remembered of a peer in memory.
    pub(super) fn recall(
        &mut self,
        view: &dyn View,
        batch: &mut Batch,
        (local, peer): (PeerKey, PeerKey),
        slots: &BTreeMap<ThreadId, Slot>,
        numbers: &BTreeMap<u32, ThreadId>,
        now_millis: u64,
    ) -> Result<(), StoreError> {
        self.uses += 1;
        let uses = self.uses;
        let is_late = |head: &&Head| head.seen_millis.abs_diff(now_millis) >= SEEN_MILLIS;
        let late = self.heads.get(&peer).filter(is_late).copied();
        if let Some(head) = late {
            let seen_millis = now_millis;
            self.put_head(
                peer,
                Head {
                    seen_millis,
                    ..head
                },
                batch,
            );
        }
        let names_all = late.is_some();
        if let Some(pair) = self.of.get_mut(&peer) {
            (pair.used, pair.names_all) = (uses, names_all);
            return Ok(());
        }
        let mut pair = Pair {
            used: uses,
            names_all,
            ..Pair::default()
        };
        if self.heads.contains_key(&peer) {
            let mut damaged = false;
            let view = Overlay::new(view, batch);
            scan_prefix(&view, Table::Pairs, &threads_key(&peer), &mut |key, row| {
                let number = key
                    .last_chunk()
                    .map_or(0, |bytes| u32::from_be_bytes(*bytes));
                let slot = numbers.get(&number).and_then(|id| slots.get_key_value(id));
                match (decode_seats(row), slot) {
                    (Err(_), _) => damaged = true,
                    (Ok(Some((own, remote))), Some((id, slot))) => {
                        let name = pair_name(slot.service(), local, peer);
                        let known = Known {
                            number,
                            name,
                            own,
                            remote,
                        };
                        pair.insert(*id, known);
                    }
                    (Ok(None), Some(_)) => {
                        pair.again.insert(number);
                    }
                    (Ok(_), None) => {}
                }
                ControlFlow::Continue(())
            })?;
            if damaged {
                let what = "a row of a thread with a peer".to_owned();
                return Err(StoreError::Corrupt { what });
            }
        }
        self.of.insert(peer, pair);
        Ok(())
    }

    /// Lets go from memory what rests longest, but for peers that are connected.
    pub(super) fn rest(&mut self, is_connected: impl Fn(&PeerKey) -> bool) {
        // What is owed to the store is not let go.
        let may_go = |(peer, pair): &(&PeerKey, &Pair)| !is_connected(peer) && pair.owed.is_empty();
        while self.of.iter().filter(may_go).count() > RESTING_MAX {
            let oldest = self.of.iter().filter(may_go).min_by_key(|(_, it)| it.used);
            let Some(oldest) = oldest.map(|(peer, _)| *peer) else {
                return;
            };
            self.of.remove(&oldest);
        }
    }

    /// Where a thread stands may have changed.
    pub(super) fn touched(&mut self, id: ThreadId) {
        for pair in self.of.values_mut() {
            if pair.known.contains_key(&id) {
                pair.stale.insert(id);
            }
        }
    }

    /// Remembers a thread in which both sides proved their seats.
    pub(super) fn remember(
        &mut self,
        peer: PeerKey,
        id: ThreadId,
        known: Known,
        now_millis: u64,
        (view, batch): (&dyn View, &mut Batch),
    ) -> Result<(), StoreError> {
        let pair = self.of.entry(peer).or_default();
        if pair.known.get(&id) == Some(&known) {
            return Ok(());
        }
        pair.insert(id, known);
        pair.again.remove(&known.number);
        pair.owed.remove(&known.number);
        let row = encode_seats(&known.own, &known.remote);
        batch.put(Table::Pairs, thread_key(&peer, known.number), row);
        if !self.heads.contains_key(&peer) {
            self.make_room(view, batch)?;
            let head = Head {
                named_until: 0,
                seen_millis: now_millis,
            };
            self.put_head(peer, head, batch);
        }
        Ok(())
    }

    /// Notes that all threads with lower numbers were named to a peer and looked at. Those that both
    /// follow and that are not remembered are the given ones: no others are named again. Of strangers
    /// nothing is noted.
    pub(super) fn named(
        &mut self,
        peer: PeerKey,
        until: u32,
        unproven: impl IntoIterator<Item = u32>,
        now_millis: u64,
        batch: &mut Batch,
    ) {
        let (Some(head), Some(pair)) = (self.heads.get(&peer), self.of.get_mut(&peer)) else {
            return;
        };
        let again: BTreeSet<u32> = unproven.into_iter().collect();
        for number in pair.again.symmetric_difference(&again) {
            let key = thread_key(&peer, *number);
            match again.contains(number) {
                true => batch.put(Table::Pairs, key, encode_again()),
                false => batch.delete(Table::Pairs, key),
            }
        }
        pair.again = again;
        if head.named_until < until {
            let head = Head {
                named_until: until,
                seen_millis: now_millis,
            };
            self.put_head(peer, head, batch);
        }
    }

    fn put_head(&mut self, peer: PeerKey, head: Head, batch: &mut Batch) {
        self.heads.insert(peer, head);
        batch.put(Table::Pairs, head_key(&peer), encode_head(&head));
    }

    /// Forgets whoever was not seen for longest if there are as many as may be.
    fn make_room(&mut self, view: &dyn View, batch: &mut Batch) -> Result<(), StoreError> {
        while self.heads.len() >= PAIRS_MAX {
            let oldest = self.heads.iter().min_by_key(|(_, head)| head.seen_millis);
            let Some(oldest) = oldest.map(|(peer, _)| *peer) else {
                return Ok(());
            };
            self.forget_peer(&oldest, view, batch)?;
        }
        Ok(())
    }

    /// Forgets a peer.
    pub(super) fn forget_peer(
        &mut self,
        peer: &PeerKey,
        view: &dyn View,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        self.heads.remove(peer);
        // A session that is under way goes on as with a stranger.
        if let Some(pair) = self.of.get_mut(peer) {
            *pair = Pair {
                used: pair.used,
                ..Pair::default()
            };
        }
        let mut keys = vec![head_key(peer)];
        let view = Overlay::new(view, batch);
        scan_prefix(&view, Table::Pairs, &threads_key(peer), &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for key in keys {
            batch.delete(Table::Pairs, key);
        }
        Ok(())
    }

    /// Forgets a thread, whoever follows it too.
    pub(super) fn forget_thread(&mut self, id: &ThreadId, number: u32, batch: &mut Batch) {
        for pair in self.of.values_mut() {
            pair.remove(id);
            pair.again.remove(&number);
            pair.owed.remove(&number);
        }
        for peer in self.heads.keys() {
            batch.delete(Table::Pairs, thread_key(peer, number));
        }
    }

    /// Writes rows that are owed.
    pub(super) fn settle(&mut self, peer: &PeerKey, batch: &mut Batch) {
        let Some(pair) = self.of.get_mut(peer) else {
            return;
        };
        let is_head = self.heads.contains_key(peer);
        for number in std::mem::take(&mut pair.owed) {
            let key = thread_key(peer, number);
            match pair.again.contains(&number) && is_head {
                true => batch.put(Table::Pairs, key, encode_again()),
                false => batch.delete(Table::Pairs, key),
            }
        }
    }
}

impl Pair {
    fn insert(&mut self, id: ThreadId, known: Known) {
        self.remove(&id);
        self.ids.insert(known.name, id);
        self.known.insert(id, known);
        self.stale.insert(id);
    }

    fn remove(&mut self, id: &ThreadId) -> Option<Known> {
        let known = self.known.remove(id)?;
        self.ids.remove(&known.name);
        self.tree.remove(&known.name);
        self.stale.remove(id);
        Some(known)
    }

    /// Tells whether no thread is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What is remembered of a thread.
    pub(super) fn known(&self, id: &ThreadId) -> Option<&Known> {
        self.known.get(id)
    }

    /// The threads that are remembered.
    pub(super) fn ids(&self) -> impl Iterator<Item = ThreadId> + '_ {
        self.known.keys().copied()
    }

    /// Tells whether the tree shows where a thread that is remembered stands now.
    pub(super) fn shows(&self, id: &ThreadId) -> bool {
        self.known.contains_key(id) && !self.stale.contains(id)
    }

    /// The thread of a name.
    pub(super) fn id(&self, name: &Name) -> Option<ThreadId> {
        self.ids.get(name).copied()
    }

    /// Numbers of threads that are to be named again.
    pub(super) fn again(&self) -> impl Iterator<Item = u32> + '_ {
        self.again.iter().copied()
    }

    /// Does not rely on the memory of a thread any more: it is named as if it were new, in later
    /// sessions too if `again`. Tells whether it was remembered.
    pub(super) fn unlearn(&mut self, id: &ThreadId, again: bool) -> bool {
        let Some(known) = self.remove(id) else {
            return false;
        };
        if again {
            self.again.insert(known.number);
        }
        self.owed.insert(known.number);
        true
    }

    /// Brings the tree up to date. Returns threads in which one of the two seats holds no role any
    /// more: they are not remembered from now on, but for those whose names are under way.
    pub(super) fn refresh(
        &mut self,
        slots: &BTreeMap<ThreadId, Slot>,
        called: &BTreeMap<ThreadId, u32>,
    ) -> Vec<ThreadId> {
        let (mut over, mut later) = (Vec::new(), BTreeSet::new());
        for id in std::mem::take(&mut self.stale) {
            let (Some(Slot::Open(thread)), Some(known)) = (slots.get(&id), self.known.get(&id))
            else {
                continue;
            };
            let governance = thread.governance();
            let holds = |seat: SeatId| governance.role(seat).is_some();
            if holds(known.own) && holds(known.remote) {
                self.tree.set(known.name, leaf(thread, known));
            } else if called.contains_key(&id) {
                // The other side answers by the same name.
                later.insert(id);
            } else {
                over.push(id);
            }
        }
        self.stale = later;
        for id in &over {
            self.unlearn(id, true);
        }
        over
    }
}

/// Where a thread stands, for whoever can compare: all its logs, the wraps that are kept, whether a key
/// is missing here, and the seats of both sides.
fn leaf(thread: &Thread, known: &Known) -> [u8; 32] {
    let mut heads = Vec::new();
    for log in thread.logs().filter(|log| log.tip.seq > 0) {
        heads.extend_from_slice(&log.id.0);
        heads.extend_from_slice(&log.tip.seq.to_be_bytes());
        heads.extend_from_slice(&log.tip.id.0);
    }
    let (low, high) = (known.own.min(known.remote), known.own.max(known.remote));
    let lacks_keys = u8::from(!thread.missing_keys().is_empty());
    let wraps = thread.wraps_digest();
    Label::TREE_LEAF.hash(&[&heads, &wraps, &[lacks_keys], &low.0, &high.0])
}

/// `[named until, seen at]`
fn encode_head(head: &Head) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .array(2)
        .uint(head.named_until.into())
        .uint(head.seen_millis);
    encoder.into_vec()
}

fn decode_head(row: &[u8]) -> Result<Head, DecodeError> {
    let mut decoder = Decoder::new(row);
    decoder.array_of(2)?;
    let head = Head {
        named_until: decoder.u32()?,
        seen_millis: decoder.uint()?,
    };
    decoder.finish()?;
    Ok(head)
}

/// `[own seat, seat of the other side]`
fn encode_seats(own: &SeatId, remote: &SeatId) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.array(2).bytes(&own.0).bytes(&remote.0);
    encoder.into_vec()
}

/// `[]`: to be named again.
fn encode_again() -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.array(0);
    encoder.into_vec()
}

fn decode_seats(row: &[u8]) -> Result<Option<(SeatId, SeatId)>, DecodeError> {
    let mut decoder = Decoder::new(row);
    let seats = match decoder.array_up_to(2)? {
        2 => Some((SeatId(*decoder.fixed()?), SeatId(*decoder.fixed()?))),
        0 => None,
        _ => {
            let (offset, what) = (0, "the length of a row");
            return Err(DecodeError::OutOfBounds { offset, what });
        }
    };
    decoder.finish()?;
    Ok(seats)
}

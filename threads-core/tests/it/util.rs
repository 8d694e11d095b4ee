//! Whole replicas on memory stores, with a pretend clock and a pretend network.

use std::collections::BTreeMap;

use futures_executor::block_on;
use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::store::{MemoryStore, Store};
use leno_threads_core::sync::{Level, PeerKey, Replica, SyncError};
use leno_threads_core::thread::{Appended, Changes, Seat, Thread, ThreadEvent};
use leno_threads_core::{
    FrameOp, GrantOp, LogId, NonceSecret, Role, RosterOp, Scope, SeatId, Seq, ServiceKey, Suite,
    THREAD_DOMAIN, ThreadId,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Some day in 2023.
pub(crate) const NOW: u64 = 1_700_000_000_000;

/// More messages than any scenario needs: a livelock becomes a failure.
const MESSAGES_MAX: usize = 20_000;

/// A record that was opened: log, seq, and what it says.
pub(crate) type Read = (LogId, Seq, String);

pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    pub(crate) store: MemoryStore,
    pub(crate) replica: Replica,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now: u64,
    /// What was opened, by thread, sorted.
    pub(crate) read: BTreeMap<ThreadId, Vec<Read>>,
    pub(crate) events: Vec<ThreadEvent>,
    pub(crate) errors: Vec<SyncError>,
    pub(crate) forks: usize,
}

pub(crate) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(crate) fn new_seat(rng: &mut ChaCha20Rng) -> Seat {
    Seat {
        signing: SigningKey::generate(rng).unwrap(),
        kem: AgreementKey::generate(rng).unwrap(),
    }
}

impl Peer {
    pub(crate) fn new(seed: u8) -> Self {
        let store = MemoryStore::new();
        let key = PeerKey([seed; 32]);
        let secret = NonceSecret::new(&[seed; 32]);
        let replica = Replica::load(&*store.view().unwrap(), key, secret).unwrap();
        Self {
            key,
            store,
            replica,
            rng: rng(seed),
            now: NOW,
            read: BTreeMap::new(),
            events: Vec::new(),
            errors: Vec::new(),
            forks: 0,
        }
    }

    /// The same device after a crash: only the store survives.
    pub(crate) fn restart(&mut self) {
        let secret = NonceSecret::new(&self.key.0);
        let view = self.store.view().unwrap();
        self.replica = Replica::load(&*view, self.key, secret).unwrap();
    }

    pub(crate) fn step<T>(
        &mut self,
        step: impl FnOnce(
            &mut Replica,
            &dyn leno_threads_core::store::View,
            &mut ChaCha20Rng,
            &mut Changes,
        ) -> T,
    ) -> T {
        let mut changes = Changes::new();
        let result = {
            let view = self.store.view().unwrap();
            step(&mut self.replica, &*view, &mut self.rng, &mut changes)
        };
        self.commit(changes);
        result
    }

    pub(crate) fn commit(&mut self, changes: Changes) {
        self.events
            .extend(changes.events.into_iter().map(|(_, event)| event));
        self.forks += changes.forks.len();
        block_on(self.store.commit(changes.batch)).unwrap();
    }

    pub(crate) fn create(&mut self) -> ThreadId {
        let (seat, now) = (new_seat(&mut self.rng), self.now);
        self.step(|replica, view, rng, changes| {
            let about = [RosterOp::Name("band".to_owned())];
            let (number, secret) = (replica.next_number(), replica.nonce_secret());
            let suite = Suite::Aes256Gcm;
            let thread =
                Thread::create(view, number, seat, secret, suite, &about, now, rng, changes);
            let thread = thread.unwrap();
            let id = thread.id();
            replica.add(thread);
            id
        })
    }

    /// Seats another peer: a grant here, a ticket there.
    pub(crate) fn seat(&mut self, other: &mut Self, id: ThreadId, role: Role) -> SeatId {
        let seat = new_seat(&mut other.rng);
        let (seat_id, kem) = (seat.id(), seat.kem.public_key().to_bytes());
        let service = self.grant(id, seat_id, kem, role);
        other.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
        seat_id
    }

    pub(crate) fn grant(
        &mut self,
        id: ThreadId,
        seat: SeatId,
        kem: [u8; 32],
        role: Role,
    ) -> ServiceKey {
        let now = self.now;
        self.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let grant = FrameOp::Grant(GrantOp {
                line: None,
                seat,
                kem,
                role,
                scope: Scope::Thread,
                expires_millis: None,
                identity: None,
                recovery: None,
            });
            thread
                .govern(view, &[grant], &[], now, rng, changes)
                .unwrap();
            thread.wrap_missing(rng, changes);
            let service = thread.service_key().clone();
            replica.touched(id);
            service
        })
    }

    pub(crate) fn write(&mut self, id: ThreadId, text: &str) -> Appended {
        self.write_many(id, [text]).pop().unwrap()
    }

    /// Several records under one signature.
    pub(crate) fn write_many<'a>(
        &mut self,
        id: ThreadId,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Appended> {
        let now = self.now;
        let texts: Vec<_> = texts.into_iter().collect();
        let appended: Vec<_> = self.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let appended = texts
                .iter()
                .map(|text| {
                    let mut encoder = Encoder::new();
                    encoder.text(text);
                    let content = encoder.as_slice();
                    thread
                        .append(view, THREAD_DOMAIN, content, now, rng, changes)
                        .unwrap()
                })
                .collect();
            thread.publish(changes);
            replica.touched(id);
            appended
        });
        for (it, text) in appended.iter().zip(texts) {
            self.read
                .entry(id)
                .or_default()
                .push((it.log, it.seq, text.to_owned()));
        }
        appended
    }

    pub(crate) fn connected(&mut self, other: PeerKey) {
        self.replica.connected(other, &mut self.rng);
    }

    pub(crate) fn receive(&mut self, from: PeerKey, bytes: &[u8]) -> Result<(), ()> {
        let mut changes = Changes::new();
        let mut opened = Vec::new();
        let result = {
            let view = self.store.view().unwrap();
            let mut sink = |id: ThreadId, it: &leno_threads_core::thread::Opened<'_>| {
                let mut decoder = Decoder::new(&it.plaintext[1..]);
                let text = decoder.text().unwrap().to_owned();
                opened.push((id, (it.record.log, it.record.seq, text)));
            };
            let (now, rng) = (self.now, &mut self.rng);
            self.replica
                .handle_message(&*view, from, bytes, now, rng, &mut changes, &mut sink)
        };
        self.commit(changes);
        for (id, read) in opened {
            self.read.entry(id).or_default().push(read);
        }
        let Err(error) = result else { return Ok(()) };
        let ends = error.ends_session();
        self.errors.push(error);
        if ends { Err(()) } else { Ok(()) }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now;
        let mut opened = Vec::new();
        self.step(|replica, view, _, changes| {
            let mut sink = |id: ThreadId, it: &leno_threads_core::thread::Opened<'_>| {
                let text = Decoder::new(&it.plaintext[1..]).text().unwrap().to_owned();
                opened.push((id, (it.record.log, it.record.seq, text)));
            };
            replica
                .handle_timeout(view, now, changes, &mut sink)
                .unwrap();
        });
        for (id, read) in opened {
            self.read.entry(id).or_default().push(read);
        }
    }

    pub(crate) fn poll(&mut self, to: PeerKey) -> Option<Vec<u8>> {
        let view = self.store.view().unwrap();
        self.replica.poll_message(&*view, &to).unwrap()
    }

    pub(crate) fn reads(&self, id: ThreadId) -> Vec<Read> {
        let mut read = self.read.get(&id).cloned().unwrap_or_default();
        read.sort();
        read
    }
}

/// Connects two peers anew and lets them talk until both are silent. Returns bytes on the wire.
pub(crate) fn sync(a: &mut Peer, b: &mut Peer) -> usize {
    a.replica.disconnected(&b.key);
    b.replica.disconnected(&a.key);
    a.connected(b.key);
    b.connected(a.key);
    talk(a, b)
}

/// Lets two connected peers talk until both are silent.
pub(crate) fn talk(a: &mut Peer, b: &mut Peer) -> usize {
    talk_through(a, b, |bytes| Some(bytes))
}

/// As [`talk`], with a hand on the messages from `a` to `b`.
pub(crate) fn talk_through(
    a: &mut Peer,
    b: &mut Peer,
    mut tamper: impl FnMut(Vec<u8>) -> Option<Vec<u8>>,
) -> usize {
    let mut bytes = 0;
    for _ in 0..MESSAGES_MAX {
        let (to_b, to_a) = (a.poll(b.key), b.poll(a.key));
        if to_a.is_none() && to_b.is_none() {
            return bytes;
        }
        if let Some(message) = to_b.and_then(&mut tamper) {
            bytes += message.len();
            if b.receive(a.key, &message).is_err() {
                hang_up(a, b);
                return bytes;
            }
        }
        if let Some(message) = to_a {
            bytes += message.len();
            if a.receive(b.key, &message).is_err() {
                hang_up(a, b);
                return bytes;
            }
        }
    }
    panic!("two peers talk for ever");
}

fn hang_up(a: &mut Peer, b: &mut Peer) {
    a.replica.disconnected(&b.key);
    b.replica.disconnected(&a.key);
}

pub(crate) fn level(a: &Peer, b: &Peer, id: ThreadId) -> bool {
    a.replica.level(&b.key, &id) == Level::Level && b.replica.level(&a.key, &id) == Level::Level
}

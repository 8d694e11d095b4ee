//! Whole replicas on memory stores, with a pretend clock and a pretend network.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use futures_executor::block_on;
use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::store::{Batch, MemoryStore, Store, Table, scan_prefix};
use leno_threads_core::sync::{Level, PeerKey, Replica, SyncError};
use leno_threads_core::thread::{
    Appended, Changes, ReceiveError, Received, Seat, TakeWrapError, Thread, ThreadEvent,
};
use leno_threads_core::{
    EpochId, EpochKey, FrameOp, GrantOp, Header, KeyRef, LogId, NonceSecret, Now, Padding,
    RecordRef, Role, RosterOp, Run, Scope, SealContext, SealedPart, Sealer, SeatId, Seq,
    ServiceKey, SignedHead, Stamp, Suite, THREAD_DOMAIN, ThreadId, Tip, Wrap, decode_row,
    encode_frame,
};
use multibase::Base;
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
    pub(crate) clock_is_set: bool,
    /// What was opened, by thread, sorted.
    pub(crate) read: BTreeMap<ThreadId, Vec<Read>>,
    pub(crate) events: Vec<ThreadEvent>,
    pub(crate) errors: Vec<SyncError>,
    pub(crate) forks: usize,
    /// Threads of which records stand otherwise than before.
    rejudged: BTreeSet<ThreadId>,
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
        Self::with_key(PeerKey([seed; 32]))
    }

    pub(crate) fn with_key(key: PeerKey) -> Self {
        let store = MemoryStore::new();
        let secret = NonceSecret::new(&key.0);
        let replica = Replica::load(&*store.view().unwrap(), key, secret).unwrap();
        Self {
            key,
            store,
            replica,
            rng: ChaCha20Rng::from_seed(key.0),
            now: NOW,
            clock_is_set: true,
            read: BTreeMap::new(),
            events: Vec::new(),
            errors: Vec::new(),
            forks: 0,
            rejudged: BTreeSet::new(),
        }
    }

    pub(crate) fn time(&self) -> Now {
        match self.clock_is_set {
            true => Now::at(self.now),
            false => Now::unset(self.now),
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
        self.rejudged
            .extend(changes.rejudged.into_iter().map(|(id, _)| id));
    }

    /// Reads the threads again of which records stand otherwise than before.
    pub(crate) fn read_again(&mut self) {
        for id in std::mem::take(&mut self.rejudged) {
            let view = self.store.view().unwrap();
            let thread = self.replica.thread_mut(&id).unwrap();
            let logs: Vec<_> = thread.logs().map(|log| log.id).collect();
            let mut read = Vec::new();
            for log in logs {
                thread
                    .replay(&*view, log, 0, &mut |it| {
                        let text = Decoder::new(&it.plaintext[1..]).text().unwrap().to_owned();
                        read.push((it.record.log, it.record.seq, text));
                    })
                    .unwrap();
            }
            self.read.insert(id, read);
        }
    }

    pub(crate) fn create(&mut self) -> ThreadId {
        let (seat, now) = (new_seat(&mut self.rng), self.time());
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
        let now = self.time();
        self.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let grant = FrameOp::Grant(GrantOp {
                seat,
                kem,
                role,
                scope: Scope::Thread,
                expires_millis: None,
                identity: None,
                recovery: None,
                accepts: Vec::new(),
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
        let now = self.time();
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
            let (now, rng) = (self.time(), &mut self.rng);
            self.replica
                .handle_message(&*view, from, bytes, now, rng, &mut changes, &mut sink)
        };
        self.commit(changes);
        for (id, read) in opened {
            self.read.entry(id).or_default().push(read);
        }
        self.read_again();
        let Err(error) = result else { return Ok(()) };
        let ends = error.ends_session();
        self.errors.push(error);
        if ends { Err(()) } else { Ok(()) }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.time();
        let mut opened = Vec::new();
        self.step(|replica, view, rng, changes| {
            let mut sink = |id: ThreadId, it: &leno_threads_core::thread::Opened<'_>| {
                let text = Decoder::new(&it.plaintext[1..]).text().unwrap().to_owned();
                opened.push((id, (it.record.log, it.record.seq, text)));
            };
            replica
                .handle_timeout(view, now, rng, changes, &mut sink)
                .unwrap();
        });
        for (id, read) in opened {
            self.read.entry(id).or_default().push(read);
        }
        self.read_again();
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
    connect(a, b);
    talk(a, b)
}

/// Has two peers forget each other, so that they prove all their seats anew.
pub(crate) fn forget_each_other(a: &mut Peer, b: &mut Peer) {
    let keys = [a.key, b.key];
    for (peer, other) in [(a, keys[1]), (b, keys[0])] {
        peer.step(|replica, view, _, changes| {
            replica.forget_peer(view, &other, changes).unwrap();
        });
    }
}

/// Connects two peers anew.
pub(crate) fn connect(a: &mut Peer, b: &mut Peer) {
    hang_up(a, b);
    a.connected(b.key);
    b.connected(a.key);
}

/// Lets two connected peers talk until both are silent.
pub(crate) fn talk(a: &mut Peer, b: &mut Peer) -> usize {
    talk_through(a, b, Some)
}

/// As [`talk`], with a hand on the messages from `a` to `b`.
pub(crate) fn talk_through(
    a: &mut Peer,
    b: &mut Peer,
    mut tamper: impl FnMut(Vec<u8>) -> Option<Vec<u8>>,
) -> usize {
    let mut bytes = 0;
    for _ in 0..MESSAGES_MAX {
        let mut is_busy = false;
        for peer in [&mut *a, &mut *b] {
            if peer.replica.poll_timeout() == Some(0) {
                peer.tick();
                is_busy = true;
            }
        }
        let (to_b, to_a) = (a.poll(b.key), b.poll(a.key));
        if to_a.is_none() && to_b.is_none() && !is_busy {
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

/// Every row of a store but evidence and what is remembered of peers: what must not change when
/// something is refused.
pub(crate) fn rows(store: &MemoryStore) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    let view = store.view().unwrap();
    let mut rows = BTreeMap::new();
    for table in Table::ALL {
        if matches!(table, Table::Evidence | Table::Pairs) {
            continue;
        }
        scan_prefix(&*view, table, &[], &mut |key, row| {
            rows.insert((table as u8, key.to_vec()), row.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    rows
}

/// A copy of a store that shares nothing with it: a backup.
pub(crate) fn backup(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    let view = store.view().unwrap();
    let mut batch = Batch::new();
    for table in Table::ALL {
        scan_prefix(&*view, table, &[], &mut |key, row| {
            batch.put(table, key.to_vec(), row.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    block_on(copy.commit(batch)).unwrap();
    copy
}

/// The secrets of a peer in a thread, as its store keeps them.
pub(crate) struct Secrets {
    pub(crate) service: ServiceKey,
    pub(crate) seat: SigningKey,
    pub(crate) epochs: Vec<(u32, EpochId, EpochKey)>,
    pub(crate) writer: Option<SigningKey>,
}

pub(crate) fn secrets(peer: &Peer, id: ThreadId) -> Secrets {
    let number = peer.replica.thread(&id).unwrap().number();
    let view = peer.store.view().unwrap();
    let row = view.get(Table::Threads, &number.to_be_bytes()).unwrap();
    let row = row.unwrap();
    let mut decoder = Decoder::new(&row);
    decoder.array_of(7).unwrap();
    decoder.bytes().unwrap();
    let service = ServiceKey::from_bytes(*decoder.fixed().unwrap());
    let seat = SigningKey::from_secret_bytes(decoder.fixed().unwrap()).unwrap();
    decoder.bytes().unwrap();
    let mut epochs = Vec::new();
    for _ in 0..decoder.array().unwrap() {
        decoder.array_of(3).unwrap();
        let domain = decoder.u32().unwrap();
        let epoch = EpochId(*decoder.fixed().unwrap());
        let key = EpochKey::from_bytes(*decoder.fixed().unwrap());
        epochs.push((domain, epoch, key));
    }
    let writer = if decoder.null().unwrap() {
        None
    } else {
        decoder.array_of(2).unwrap();
        Some(SigningKey::from_secret_bytes(decoder.fixed().unwrap()).unwrap())
    };
    Secrets {
        service,
        seat,
        epochs,
        writer,
    }
}

/// A record as an attacker with the keys of a member would make it.
pub(crate) struct Crafted {
    pub(crate) deps: Vec<RecordRef>,
    pub(crate) control: Vec<RecordRef>,
    pub(crate) stamp: Stamp,
    pub(crate) key: KeyRef,
    pub(crate) plaintext: Vec<u8>,
}

/// A run as it was sent or made: the place of its first record, items, signature.
pub(crate) type OwnedRun = (Seq, Vec<u8>, [u8; 64]);

impl Secrets {
    pub(crate) fn data_key(&self) -> KeyRef {
        let (domain, epoch, _) = self
            .epochs
            .iter()
            .find(|(domain, ..)| *domain == THREAD_DOMAIN)
            .unwrap();
        KeyRef::Data {
            domain: *domain,
            epoch: *epoch,
        }
    }

    pub(crate) fn text(&self, stamp: Stamp, text: &str) -> Crafted {
        let mut encoder = Encoder::append_to(vec![0]);
        encoder.text(text);
        Crafted {
            deps: Vec::new(),
            control: Vec::new(),
            stamp,
            key: self.data_key(),
            plaintext: encoder.into_vec(),
        }
    }

    pub(crate) fn frame(&self, stamp: Stamp, ops: &[FrameOp]) -> Crafted {
        Crafted {
            deps: Vec::new(),
            control: Vec::new(),
            stamp,
            key: KeyRef::Control { roster: None },
            plaintext: encode_frame(ops, Padding::Off),
        }
    }

    /// Seals and signs records that follow `tip`, whatever they claim.
    pub(crate) fn craft(
        &self,
        thread: ThreadId,
        signer: &SigningKey,
        tip: &Tip,
        records: &[Crafted],
    ) -> (OwnedRun, Tip) {
        let log = LogId(signer.verifying_key().to_bytes());
        let (suite, secret) = (Suite::Aes256Gcm, NonceSecret::new(&[1; 32]));
        let mut at = *tip;
        let mut items = Encoder::new();
        items.array(records.len());
        for it in records {
            let context = SealContext {
                thread,
                log,
                seq: at.seq + 1,
                prev: at.id,
                deps: it.deps.clone(),
                control: it.control.clone(),
                stamp: it.stamp,
                key: it.key,
            };
            let sealer = match it.key {
                KeyRef::Data { epoch, .. } => {
                    let key = self.epochs.iter().find(|(_, id, _)| *id == epoch);
                    let key = key.map_or(EpochKey::from_bytes([9; 32]), |(.., key)| key.clone());
                    Sealer::for_bodies(suite, &key, thread, log)
                }
                KeyRef::Control { .. } => Sealer::for_frames(suite, &self.service, thread, log),
            };
            let body = sealer.seal(&context.encode(), &it.plaintext, &secret, &mut rng(7));
            let has_refs = !it.deps.is_empty() || !it.control.is_empty();
            let length = match it.key {
                KeyRef::Control { .. } => 5,
                KeyRef::Data { .. } if at.key != Some(it.key) => 5,
                KeyRef::Data { .. } if has_refs => 4,
                KeyRef::Data { .. } => 2,
            };
            items
                .array(length)
                .uint(it.stamp.0.wrapping_sub(at.stamp.0))
                .bytes(&body);
            if length >= 4 {
                for refs in [&it.deps, &it.control] {
                    items.array(refs.len());
                    for it in refs {
                        items.array(3).bytes(&it.log.0).uint(it.seq);
                        items.link(&it.id.to_cid());
                    }
                }
            }
            if length == 5 {
                match it.key {
                    KeyRef::Data { domain, epoch } => {
                        items.array(2).uint(domain.into()).bytes(&epoch.0);
                    }
                    KeyRef::Control { .. } => {
                        items.null();
                    }
                }
            }
            let header = Header {
                context,
                body: SealedPart::of(&body),
                roster: None,
            };
            at = Tip {
                seq: at.seq + 1,
                id: header.id(),
                stamp: it.stamp,
                key: Some(it.key),
            };
        }
        let head = SignedHead::sign(signer, thread, log, at.seq, at.id);
        ((tip.seq + 1, items.into_vec(), head.signature), at)
    }
}

impl Peer {
    pub(crate) fn thread(&self, id: ThreadId) -> &Thread {
        self.replica.thread(&id).unwrap()
    }

    pub(crate) fn tip(&self, id: ThreadId, log: LogId) -> Tip {
        self.thread(id).log(&log).unwrap().tip
    }

    /// The newest record of a log, as a reference to it.
    pub(crate) fn newest(&self, id: ThreadId, log: LogId) -> RecordRef {
        let tip = self.tip(id, log);
        RecordRef {
            log,
            seq: tip.seq,
            id: tip.id,
        }
    }

    /// The frontier of control records here, as a record would name it.
    pub(crate) fn control(&self, id: ThreadId, but: LogId) -> Vec<RecordRef> {
        let logs = self.thread(id).logs();
        let refs = logs.filter(|log| log.is_control && log.tip.seq > 0 && log.id != but);
        let mut refs: Vec<_> = refs.map(|log| self.newest(id, log.id)).collect();
        refs.sort();
        refs
    }

    /// All runs that are stored here.
    pub(crate) fn runs(&self, id: ThreadId) -> Vec<(LogId, OwnedRun)> {
        let view = self.store.view().unwrap();
        let thread = self.thread(id);
        let mut runs = Vec::new();
        for log in thread.logs() {
            thread
                .scan_rows(&*view, &log.id, 1, &mut |first, row| {
                    let (_, run) = decode_row(row).unwrap();
                    runs.push((log.id, (first, run.items().to_vec(), *run.signature())));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        runs
    }

    /// Hands a run to the thread, past any session.
    pub(crate) fn take(
        &mut self,
        id: ThreadId,
        log: LogId,
        (first, items, signature): &OwnedRun,
    ) -> Result<Received, ReceiveError> {
        let now = self.time();
        let run = Run::from_parts(items, signature).map_err(|source| ReceiveError::Refused {
            log,
            first: *first,
            source,
        })?;
        let mut opened = Vec::new();
        let result = self.step(|replica, view, _, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let mut sink = |it: &leno_threads_core::thread::Opened<'_>| {
                let text = Decoder::new(&it.plaintext[1..]).text().unwrap().to_owned();
                opened.push((it.record.log, it.record.seq, text));
            };
            thread.receive(view, log, *first, run, now, changes, &mut sink)
        });
        self.read.entry(id).or_default().extend(opened);
        result
    }

    pub(crate) fn take_wrap(&mut self, id: ThreadId, wrap: &Wrap) -> Result<bool, TakeWrapError> {
        self.take_wrap_from(id, SeatId([0xee; 32]), wrap)
    }

    /// Hands a wrap to the thread, past any session, as a seat would.
    pub(crate) fn take_wrap_from(
        &mut self,
        id: ThreadId,
        from: SeatId,
        wrap: &Wrap,
    ) -> Result<bool, TakeWrapError> {
        let mut opened = Vec::new();
        let result = self.step(|replica, view, _, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let mut sink = |it: &leno_threads_core::thread::Opened<'_>| {
                let text = Decoder::new(&it.plaintext[1..]).text().unwrap().to_owned();
                opened.push((it.record.log, it.record.seq, text));
            };
            thread.take_wrap(view, from, wrap, changes, &mut sink)
        });
        self.read.entry(id).or_default().extend(opened);
        result
    }

    /// Writes a control record.
    pub(crate) fn govern(&mut self, id: ThreadId, ops: &[FrameOp]) -> RecordRef {
        let now = self.time();
        let record = self.step(|replica, view, rng, changes| {
            let thread = replica.thread_mut(&id).unwrap();
            let record = thread.govern(view, ops, &[], now, rng, changes).unwrap();
            thread.wrap_missing(rng, changes);
            replica.touched(id);
            record
        });
        self.read_again();
        record
    }

    /// The genesis without any session, and an empty thread.
    pub(crate) fn join_directly(&mut self, from: &Self, id: ThreadId, seat: Seat) {
        let genesis = from.thread(id).genesis().encode();
        let service = from.thread(id).service_key().clone();
        self.step(|replica, _, _, changes| {
            let (number, secret) = (replica.next_number(), replica.nonce_secret());
            let thread = Thread::join(number, id, &genesis, service, seat, secret, changes);
            replica.add(thread.unwrap());
        });
    }

    /// Everything that must be a function of the set of records.
    pub(crate) fn state(&self, id: ThreadId) -> String {
        let thread = self.thread(id);
        let view = self.store.view().unwrap();
        let logs: Vec<_> = thread
            .logs()
            .filter(|log| log.tip.seq > 0)
            .map(|log| (log.id, log.is_control, log.tip, log.admitted))
            .collect();
        let mut quarantined = thread.quarantined(&*view).unwrap();
        quarantined.sort();
        let governance = thread.governance();
        let openings: Vec<_> = governance.openings().collect();
        let grants: Vec<_> = governance.grants().collect();
        let epochs: Vec<_> = governance.epochs().collect();
        let void: Vec<_> = governance.void().collect();
        let name = thread.roster().name();
        format!(
            "{logs:?}\n{quarantined:?}\n{openings:?}\n{grants:?}\n{epochs:?}\n{void:?}\n{name:?}\n{:?}",
            self.reads(id)
        )
    }
}

pub(crate) fn grant_op(seat: SeatId, kem: [u8; 32], role: Role) -> GrantOp {
    GrantOp {
        seat,
        kem,
        role,
        scope: Scope::Thread,
        expires_millis: None,
        identity: None,
        recovery: None,
        accepts: Vec::new(),
    }
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    Base::Base16Lower.encode(bytes)
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    Base::Base16Lower.decode(text).unwrap()
}

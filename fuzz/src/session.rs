//! A whole session as a fuzz target: two peers, and a hand on the wire between them.
//!
//! Alice owns a thread, Bob writes to it. The input is a script: messages are passed on, changed,
//! dropped, doubled, replayed and made up, while both write, lose the connection, and time passes.
//! Whatever came over the wire, nothing may panic, and once the hand is gone the two must be level.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use futures_executor::block_on;
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::store::{Batch, MemoryStore, Store, Table, scan_prefix};
use leno_threads_core::sync::{Level, PeerKey, Replica};
use leno_threads_core::thread::{Changes, Seat, Thread};
use leno_threads_core::{
    FrameOp, GrantOp, NonceSecret, Role, Scope, Suite, THREAD_DOMAIN, ThreadId, Tip,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const NOW_MILLIS: u64 = 1_800_000_000_000;

/// Steps of a script that are looked at.
const STEPS_MAX: usize = 256;

/// Messages that are remembered for replays.
const REMEMBERED_MAX: usize = 64;

/// Messages after which two peers that were left alone must be silent.
const MESSAGES_MAX: usize = 10_000;

type Rows = Vec<(Table, Vec<u8>, Vec<u8>)>;

struct Peer {
    key: PeerKey,
    store: MemoryStore,
    replica: Replica,
    rng: ChaCha20Rng,
}

impl Peer {
    fn load(number: u8, rows: &Rows) -> Self {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        for (table, key, value) in rows {
            batch.put(*table, key.clone(), value.clone());
        }
        block_on(store.commit(batch)).expect("the store is in memory");
        let key = PeerKey([number; 32]);
        let replica = {
            let view = store.view().expect("the store is in memory");
            Replica::load(&*view, key, NonceSecret::new(&[number; 32])).expect("the rows are good")
        };
        Self {
            key,
            store,
            replica,
            rng: ChaCha20Rng::from_seed([number; 32]),
        }
    }

    fn rows(&self) -> Rows {
        let view = self.store.view().expect("the store is in memory");
        let mut rows = Rows::new();
        for table in Table::ALL {
            let mut visit = |key: &[u8], value: &[u8]| {
                rows.push((table, key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            };
            scan_prefix(&*view, table, &[], &mut visit).expect("the store is in memory");
        }
        rows
    }

    fn step<T>(
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
            let view = self.store.view().expect("the store is in memory");
            step(&mut self.replica, &*view, &mut self.rng, &mut changes)
        };
        block_on(self.store.commit(changes.batch)).expect("the batch is within the limits");
        result
    }

    /// Takes in a message; tells whether the session goes on.
    fn receive(&mut self, from: PeerKey, message: &[u8], now: u64) -> bool {
        self.step(|replica, view, rng, changes| {
            let sink = &mut |_, _: &leno_threads_core::thread::Opened<'_>| {};
            let outcome = replica.handle_message(view, from, message, now, rng, changes, sink);
            outcome.map_or_else(|error| !error.ends_session(), |()| true)
        })
    }

    fn tick(&mut self, now: u64) {
        self.step(|replica, view, rng, changes| {
            let sink = &mut |_, _: &leno_threads_core::thread::Opened<'_>| {};
            let done = replica.handle_timeout(view, now, rng, changes, sink);
            done.expect("the store is in memory");
        });
    }

    fn poll(&mut self, to: PeerKey) -> Option<Vec<u8>> {
        let view = self.store.view().expect("the store is in memory");
        let message = self.replica.poll_message(&*view, &to);
        message.expect("the store is in memory")
    }

    fn write(&mut self, id: ThreadId, now: u64) {
        self.step(|replica, view, rng, changes| {
            let Some(thread) = replica.thread_mut(&id) else {
                return;
            };
            // A key or the clock of another may keep it from writing.
            let text = [0x62, b'h', b'i'];
            let _ = thread.append(view, THREAD_DOMAIN, &text, now, rng, changes);
            thread.publish(changes);
            replica.touched(id);
        });
    }

    fn tips(&self, id: ThreadId) -> Vec<Tip> {
        let thread = self.replica.thread(&id).expect("both hold the thread");
        let logs = thread.logs().filter(|log| log.tip.seq > 0);
        logs.map(|log| log.tip).collect()
    }
}

/// The state that every script starts from: both hold the thread, and Bob may write.
fn start() -> &'static (Rows, Rows, ThreadId) {
    static START: OnceLock<(Rows, Rows, ThreadId)> = OnceLock::new();
    START.get_or_init(|| {
        let (mut alice, mut bob) = (Peer::load(1, &Rows::new()), Peer::load(2, &Rows::new()));
        let seat = |rng: &mut ChaCha20Rng| Seat {
            signing: SigningKey::generate(rng).expect("the generator works"),
            kem: AgreementKey::generate(rng).expect("the generator works"),
        };
        let bobs = seat(&mut bob.rng);
        let grant = FrameOp::Grant(GrantOp {
            seat: bobs.id(),
            kem: bobs.kem.public_key().to_bytes(),
            role: Role::Writer,
            scope: Scope::Thread,
            expires_millis: None,
            identity: None,
            recovery: None,
            accepts: Vec::new(),
        });
        let (id, service) = alice.step(|replica, view, rng, changes| {
            let own = seat(rng);
            let (number, secret) = (replica.next_number(), replica.nonce_secret());
            let (suite, now) = (Suite::Aes256Gcm, NOW_MILLIS);
            let mut thread =
                Thread::create(view, number, own, secret, suite, &[], now, rng, changes)
                    .expect("the store is empty");
            let granted = thread.govern(view, &[grant], &[], now, rng, changes);
            granted.expect("the owner grants");
            thread.wrap_missing(rng, changes);
            let (id, service) = (thread.id(), thread.service_key().clone());
            replica.add(thread);
            (id, service)
        });
        alice.write(id, NOW_MILLIS);
        bob.step(|replica, _, _, changes| replica.join(id, service, bobs, changes));
        let mut world = World::new(alice, bob, id);
        world.connect();
        world.settle();
        world.bob.write(id, NOW_MILLIS);
        world.settle();
        (world.alice.rows(), world.bob.rows(), id)
    })
}

struct World {
    alice: Peer,
    bob: Peer,
    id: ThreadId,
    now: u64,
    remembered: VecDeque<Vec<u8>>,
}

impl World {
    fn new(alice: Peer, bob: Peer, id: ThreadId) -> Self {
        Self {
            alice,
            bob,
            id,
            now: NOW_MILLIS,
            remembered: VecDeque::new(),
        }
    }

    fn connect(&mut self) {
        let (alice, bob) = (&mut self.alice, &mut self.bob);
        alice.replica.disconnected(&bob.key);
        bob.replica.disconnected(&alice.key);
        alice.replica.connected(bob.key, &mut alice.rng);
        bob.replica.connected(alice.key, &mut bob.rng);
    }

    /// The two sides, the sender first.
    fn sides(&mut self, to_alice: bool) -> (&mut Peer, &mut Peer) {
        match to_alice {
            true => (&mut self.bob, &mut self.alice),
            false => (&mut self.alice, &mut self.bob),
        }
    }

    fn deliver(&mut self, to_alice: bool, message: &[u8]) {
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(message.to_vec());
        let now = self.now;
        let (from, to) = self.sides(to_alice);
        if !to.receive(from.key, message, now) {
            self.connect();
        }
    }

    fn poll(&mut self, to_alice: bool) -> Option<Vec<u8>> {
        let (from, to) = self.sides(to_alice);
        from.poll(to.key)
    }

    /// Passes everything on until both are silent.
    fn settle(&mut self) {
        for _ in 0..MESSAGES_MAX {
            let now = self.now;
            for peer in [&mut self.alice, &mut self.bob] {
                if peer.replica.poll_timeout().is_some_and(|at| at <= now) {
                    peer.tick(now);
                }
            }
            let mut is_silent = true;
            for to_alice in [true, false] {
                if let Some(message) = self.poll(to_alice) {
                    is_silent = false;
                    self.deliver(to_alice, &message);
                }
            }
            if is_silent {
                return;
            }
        }
        panic!("two peers talk for ever");
    }

    fn is_level(&self) -> bool {
        let (alice, bob) = (&self.alice, &self.bob);
        alice.replica.level(&bob.key, &self.id) == Level::Level
            && bob.replica.level(&alice.key, &self.id) == Level::Level
    }
}

/// Reads a script.
struct Script<'a> {
    left: &'a [u8],
}

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.left.split_first()?;
        self.left = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.number()?.min(self.left.len());
        let (bytes, rest) = self.left.split_at(length);
        self.left = rest;
        Some(bytes.to_vec())
    }
}

/// Runs one step of a script; nothing at its end.
fn act(world: &mut World, script: &mut Script<'_>) -> Option<()> {
    let step = script.byte()?;
    let to_alice = step & 1 == 1;
    match step >> 1 & 0x0f {
        0..=2 => {
            if let Some(message) = world.poll(to_alice) {
                world.deliver(to_alice, &message);
            }
        }
        3 => {
            let (at, byte) = (script.number()?, script.byte()?);
            if let Some(mut message) = world.poll(to_alice) {
                let length = message.len().max(1);
                if let Some(it) = message.get_mut(at % length) {
                    *it ^= byte;
                }
                world.deliver(to_alice, &message);
            }
        }
        4 => {
            let at = script.number()?;
            if let Some(mut message) = world.poll(to_alice) {
                message.truncate(at);
                world.deliver(to_alice, &message);
            }
        }
        5 => drop(world.poll(to_alice)),
        6 => {
            if let Some(message) = world.poll(to_alice) {
                world.deliver(to_alice, &message);
                world.deliver(to_alice, &message);
            }
        }
        7 => {
            let at = script.number()?;
            let count = world.remembered.len().max(1);
            if let Some(message) = world.remembered.get(at % count).cloned() {
                world.deliver(to_alice, &message);
            }
        }
        8 | 9 => {
            let message = script.bytes()?;
            world.deliver(to_alice, &message);
        }
        10 => {
            // Two that pass each other.
            let (first, second) = (world.poll(to_alice), world.poll(to_alice));
            for message in [second, first].into_iter().flatten() {
                world.deliver(to_alice, &message);
            }
        }
        11 => world.connect(),
        12 => {
            world.now += 1_000 * script.number()? as u64;
            let now = world.now;
            world.alice.tick(now);
            world.bob.tick(now);
        }
        _ => {
            let (id, now) = (world.id, world.now);
            world.sides(to_alice).0.write(id, now);
        }
    }
    Some(())
}

/// A script of what happens to a session.
///
/// # Panics
///
/// If the two peers are not level in the end.
pub fn session(bytes: &[u8]) {
    let (alices, bobs, id) = start();
    let mut world = World::new(Peer::load(1, alices), Peer::load(2, bobs), *id);
    world.connect();
    let mut script = Script { left: bytes };
    for _ in 0..STEPS_MAX {
        if act(&mut world, &mut script).is_none() {
            break;
        }
    }
    // What was sent damaged is asked for again after a while.
    for _ in 0..3 {
        world.now += 24 * 60 * 60 * 1_000;
        world.connect();
        world.settle();
    }
    assert!(world.is_level(), "a session does not heal");
    assert_eq!(
        world.alice.tips(*id),
        world.bob.tips(*id),
        "level peers hold different records"
    );
}

/// Scripts to start from: a plain session, and each of these messages made up within one.
pub(crate) fn scripts(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let plain = |steps: usize| (0..steps).flat_map(|_| [0x00, 0x01]).collect::<Vec<u8>>();
    let busy = [plain(8), vec![0x1a, 0x1b], plain(8)].concat();
    let mut scripts = vec![plain(40), busy];
    for message in messages.iter().filter(|it| it.len() < 4_096) {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        let made_up = [&[0x11][..], &length.to_be_bytes(), message].concat();
        scripts.push([plain(3), made_up.clone(), plain(3), made_up, plain(6)].concat());
    }
    scripts
}

//! A peer of `leno-threads-core` alone: threads and sessions on a store in memory, no documents.

use std::cell::Cell;

use futures_executor::block_on;
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::store::testing::Counting;
use leno_threads_core::store::{MemoryStore, Store, View};
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::thread::{Changes, Seat, Thread};
use leno_threads_core::{
    FrameOp, GrantOp, NonceSecret, Padding, Role, Scope, SeatId, ServiceKey, Suite, THREAD_DOMAIN,
    ThreadId,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::Outcome;
use crate::replica::NOW_MILLIS;

/// A peer without documents.
#[derive(Debug)]
pub struct Bare {
    /// Its device.
    pub key: PeerKey,
    /// Its threads and sessions.
    pub replica: Replica,
    /// Its clock, in milliseconds since the Unix epoch.
    pub now_millis: u64,
    store: MemoryStore,
    rng: ChaCha20Rng,
    rows_read: Cell<u64>,
}

/// Makes the keys of a seat.
///
/// # Errors
///
/// If the generator fails.
pub fn seat(rng: &mut ChaCha20Rng) -> Outcome<Seat> {
    Ok(Seat {
        signing: SigningKey::generate(rng)?,
        kem: AgreementKey::generate(rng)?,
    })
}

/// A grant of a role to a seat.
#[must_use]
pub fn grant(seat: SeatId, kem: [u8; 32], role: Role) -> FrameOp {
    FrameOp::Grant(GrantOp {
        seat,
        kem,
        role,
        scope: Scope::Thread,
        expires_millis: None,
        identity: None,
        recovery: None,
        accepts: Vec::new(),
    })
}

impl Bare {
    /// A peer without threads.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn new(seed: u64) -> Outcome<Self> {
        let store = MemoryStore::new();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut key = PeerKey([0; 32]);
        rand_core::Rng::fill_bytes(&mut rng, &mut key.0);
        let secret = NonceSecret::new(&key.0);
        let replica = Replica::load(&*store.view()?, key, secret)?;
        Ok(Self {
            key,
            replica,
            now_millis: NOW_MILLIS,
            store,
            rng,
            rows_read: Cell::new(0),
        })
    }

    /// Does something and commits what it changed.
    fn step<T>(
        &mut self,
        step: impl FnOnce(&mut Replica, &dyn View, u64, &mut ChaCha20Rng, &mut Changes) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut changes = Changes::new();
        let view = self.store.view()?;
        let counted = Counting::new(&*view, &self.rows_read);
        let (replica, rng) = (&mut self.replica, &mut self.rng);
        let result = step(replica, &counted, self.now_millis, rng, &mut changes)?;
        drop(view);
        block_on(self.store.commit(changes.batch))?;
        Ok(result)
    }

    /// Makes a thread without padding and grants a role to a seat.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn create(&mut self, guest: &Seat, role: Role) -> Outcome<(ThreadId, ServiceKey)> {
        let own = seat(&mut self.rng)?;
        let grant = grant(guest.id(), guest.kem.public_key().to_bytes(), role);
        let (id, service) = self.step(|replica, view, now, rng, changes| {
            let (number, secret) = (replica.next_number(), replica.nonce_secret());
            let suite = Suite::Aes256Gcm;
            let mut thread =
                Thread::create(view, number, own, secret, suite, &[], now, rng, changes)?;
            thread.set_padding(Padding::Off);
            let made = (thread.id(), thread.service_key().clone());
            replica.add(thread);
            Ok(made)
        })?;
        self.step(|replica, view, now, rng, changes| {
            let thread = replica.thread_mut(&id).ok_or("the thread was made")?;
            thread.govern(view, &[grant], &[], now, rng, changes)?;
            thread.wrap_missing(rng, changes);
            replica.touched(id);
            Ok(())
        })?;
        Ok((id, service))
    }

    /// Joins a thread; what it holds comes with the first session.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn join(&mut self, id: ThreadId, service: ServiceKey, seat: Seat) -> Outcome {
        self.step(|replica, _, _, _, changes| {
            replica.join(id, service, seat, changes);
            Ok(())
        })
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// If the store fails or this peer may not write.
    pub fn write(&mut self, id: ThreadId, content: &[u8]) -> Outcome {
        self.step(|replica, view, now, rng, changes| {
            let thread = replica.thread_mut(&id).ok_or("the thread is not here")?;
            thread.append(view, THREAD_DOMAIN, content, now, rng, changes)?;
            thread.publish(changes);
            replica.touched(id);
            Ok(())
        })
    }

    /// Begins a session.
    pub fn connected(&mut self, other: PeerKey) {
        self.replica.disconnected(&other);
        self.replica.connected(other, &mut self.rng);
    }

    /// Takes in a message.
    ///
    /// # Errors
    ///
    /// If it is refused or the store fails.
    pub fn receive(&mut self, from: PeerKey, bytes: &[u8]) -> Outcome {
        self.step(|replica, view, now, rng, changes| {
            let sink = &mut |_, _: &leno_threads_core::thread::Opened<'_>| {};
            Ok(replica.handle_message(view, from, bytes, now, rng, changes, sink)?)
        })
    }

    /// Does what is due by now. Tells whether anything was.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn tick(&mut self) -> Outcome<bool> {
        let due = self.replica.poll_timeout();
        if due.is_none_or(|at| at > self.now_millis) {
            return Ok(false);
        }
        self.step(|replica, view, now, rng, changes| {
            let sink = &mut |_, _: &leno_threads_core::thread::Opened<'_>| {};
            Ok(replica.handle_timeout(view, now, rng, changes, sink)?)
        })?;
        Ok(true)
    }

    /// The next message for a peer.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn poll(&mut self, to: PeerKey) -> Outcome<Option<Vec<u8>>> {
        let view = self.store.view()?;
        let counted = Counting::new(&*view, &self.rows_read);
        Ok(self.replica.poll_message(&counted, &to)?)
    }

    /// How many rows were read until now.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        self.rows_read.get()
    }
}

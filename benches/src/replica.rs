//! A peer of `leno-threads-core` and `leno-threads-db` on any store, without driver and network.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_executor::block_on;
use leno_threads_core::store::{Store, View};
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::thread::{Appended, Changes, Opened, Thread};
use leno_threads_core::{
    LogId, NonceSecret, OpRef, Padding, Role, RosterOp, Run, Seq, Suite, THREAD_DOMAIN, ThreadId,
    decode_row,
};
use leno_threads_db::{Documents, Transaction};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::Outcome;
use crate::bare::{grant, seat};
use crate::event::{COLLECTION, Event};

/// Some day in 2023, in milliseconds since the Unix epoch.
pub const NOW_MILLIS: u64 = 1_700_000_000_000;

/// More messages than any two peers here need: a livelock becomes an error.
const MESSAGES_MAX: usize = 100_000;

/// A peer with one thread and its documents.
#[derive(Debug)]
pub struct Peer {
    /// Its device.
    pub key: PeerKey,
    /// Where its rows rest.
    pub store: Arc<dyn Store>,
    /// Its threads and sessions.
    pub replica: Replica,
    /// The documents of the thread.
    pub documents: Documents,
    /// The thread.
    pub thread: ThreadId,
    /// What is not committed yet.
    pub changes: Changes,
    /// Its clock, in milliseconds since the Unix epoch.
    pub now_millis: u64,
    rng: ChaCha20Rng,
}

/// The runs of a log as they rest at their writer's: the place of the first record, and the row.
pub type Rows = Vec<(Seq, Vec<u8>)>;

impl Peer {
    /// Makes a thread without padding, whose owner this peer is.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn create(seed: u64, store: Arc<dyn Store>) -> Outcome<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut replica = replica_of(&*store, key_of(seed))?;
        let seat = seat(&mut rng)?;
        let (number, secret) = (replica.next_number(), replica.nonce_secret());
        let about = [RosterOp::Name("benches".to_owned())];
        let mut changes = Changes::new();
        let view = store.view()?;
        let mut thread = Thread::create(
            &*view,
            number,
            seat,
            secret,
            Suite::Aes256Gcm,
            &about,
            NOW_MILLIS,
            &mut rng,
            &mut changes,
        )?;
        thread.set_padding(Padding::Off);
        let documents = Documents::load(&*view, thread.number())?;
        drop(view);
        let id = thread.id();
        replica.add(thread);
        let mut peer = Self {
            key: key_of(seed),
            store,
            replica,
            documents,
            thread: id,
            changes,
            now_millis: NOW_MILLIS,
            rng,
        };
        peer.commit()?;
        Ok(peer)
    }

    /// Grants a role to a new peer, which joins and is brought level.
    ///
    /// # Errors
    ///
    /// If a store fails, or this peer may not grant.
    pub fn invite(&mut self, seed: u64, store: Arc<dyn Store>, role: Role) -> Outcome<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let seat = seat(&mut rng)?;
        let grant = grant(seat.id(), seat.kem.public_key().to_bytes(), role);
        let store_here = self.store.clone();
        let view = store_here.view()?;
        let thread = open(&mut self.replica, self.thread)?;
        thread.govern(
            &*view,
            &[grant],
            &[],
            NOW_MILLIS,
            &mut self.rng,
            &mut self.changes,
        )?;
        thread.wrap_missing(&mut self.rng, &mut self.changes);
        let service = thread.service_key().clone();
        drop(view);
        self.replica.touched(self.thread);
        self.commit()?;

        let mut replica = replica_of(&*store, key_of(seed))?;
        let (number, mut changes) = (replica.next_number(), Changes::new());
        replica.join(self.thread, service, seat, &mut changes);
        let documents = Documents::load(&*store.view()?, number)?;
        let mut guest = Self {
            key: key_of(seed),
            store,
            replica,
            documents,
            thread: self.thread,
            changes,
            now_millis: NOW_MILLIS,
            rng,
        };
        guest.commit()?;
        sync(self, &mut guest)?;
        open(&mut guest.replica, guest.thread)?.set_padding(Padding::Off);
        Ok(guest)
    }

    /// Opens a peer again on the rows of its thread, of which there is one.
    ///
    /// # Errors
    ///
    /// If the store fails or holds no thread.
    pub fn load(seed: u64, store: Arc<dyn Store>) -> Outcome<Self> {
        let replica = replica_of(&*store, key_of(seed))?;
        let thread = replica.threads().next().ok_or("the store has no thread")?;
        let (id, number) = (thread.id(), thread.number());
        let documents = Documents::load(&*store.view()?, number)?;
        Ok(Self {
            key: key_of(seed),
            store,
            replica,
            documents,
            thread: id,
            changes: Changes::new(),
            now_millis: NOW_MILLIS,
            rng: ChaCha20Rng::seed_from_u64(seed ^ 0xff),
        })
    }

    /// The thread.
    ///
    /// # Errors
    ///
    /// If its genesis is not here.
    pub fn thread(&mut self) -> Outcome<&mut Thread> {
        open(&mut self.replica, self.thread)
    }

    /// Stages an event: creates its document, or changes what differs.
    ///
    /// # Errors
    ///
    /// If the store fails or the document is not here.
    pub fn stage(
        &mut self,
        view: &dyn View,
        transaction: &mut Transaction,
        event: &Event,
        is_create: bool,
    ) -> Outcome {
        let mut writer = self.documents.writer(view, transaction, &mut self.rng);
        if is_create {
            writer.put(COLLECTION, Some(&event.document), &event.fields)?;
        } else {
            writer.patch(COLLECTION, &event.document, &event.fields)?;
        }
        Ok(())
    }

    /// Begins a transaction.
    ///
    /// # Errors
    ///
    /// If this peer has no grant to write under.
    pub fn begin(&mut self) -> Outcome<Transaction> {
        let thread = self.thread()?;
        let own = thread.own_log();
        let member = own.and_then(|log| member_of(thread, &log)).or_else(|| {
            let seat = thread.seat().id();
            thread.governance().member(seat)
        });
        let member = member.ok_or("this peer may not write")?;
        Ok(Transaction::new(member, own, self.now_millis))
    }

    /// Writes a transaction as one record, not yet signed.
    ///
    /// # Errors
    ///
    /// If the store fails, or there is nothing to write.
    pub fn write(&mut self, view: &dyn View, transaction: Transaction) -> Outcome<Appended> {
        let content = transaction.to_body().ok_or("there is nothing to write")?;
        let appended = self.append(view, &content)?;
        self.documents.commit(view, transaction, &appended)?;
        Ok(appended)
    }

    /// Appends a record, not yet signed.
    ///
    /// # Errors
    ///
    /// If the store fails or this peer may not write.
    pub fn append(&mut self, view: &dyn View, content: &[u8]) -> Outcome<Appended> {
        let thread = open(&mut self.replica, self.thread)?;
        let (rng, changes) = (&mut self.rng, &mut self.changes);
        let now = self.now_millis;
        Ok(thread.append(view, THREAD_DOMAIN, content, now, rng, changes)?)
    }

    /// Writes events, so many in each record, and signs them together.
    ///
    /// # Errors
    ///
    /// As [`Peer::stage`] and [`Peer::write`].
    pub fn write_all(&mut self, events: &[Event], per_record: usize, is_create: bool) -> Outcome {
        let store = self.store.clone();
        let view = store.view()?;
        for events in events.chunks(per_record.max(1)) {
            let mut transaction = self.begin()?;
            for event in events {
                self.stage(&*view, &mut transaction, event, is_create)?;
            }
            self.write(&*view, transaction)?;
        }
        drop(view);
        self.publish()
    }

    /// Signs what was written; it is not committed yet.
    ///
    /// # Errors
    ///
    /// If the thread is not here.
    pub fn publish(&mut self) -> Outcome {
        let Self {
            replica, changes, ..
        } = self;
        open(replica, self.thread)?.publish(changes);
        self.replica.touched(self.thread);
        Ok(())
    }

    /// Takes in runs of a log as sync does, and folds what they say; not committed yet.
    ///
    /// # Errors
    ///
    /// If a run is refused or the store fails.
    pub fn receive<'a>(
        &mut self,
        view: &dyn View,
        log: LogId,
        runs: impl IntoIterator<Item = (Seq, Run<'a>)>,
    ) -> Outcome {
        let thread = open(&mut self.replica, self.thread)?;
        let member = member_of(thread, &log);
        let mut failed = None;
        for (first, run) in runs {
            let documents = &mut self.documents;
            let mut sink = |opened: &Opened<'_>| {
                failed = documents
                    .apply(view, opened, member)
                    .err()
                    .or(failed.take());
            };
            thread.receive(
                view,
                log,
                first,
                run,
                self.now_millis,
                &mut self.changes,
                &mut sink,
            )?;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Commits all changes, and the documents too if enough of them changed.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn commit(&mut self) -> Outcome {
        let mut flushed = None;
        if self.documents.needs_flush() {
            flushed = Some(self.documents.flush(&mut self.changes.batch));
        }
        let changes = std::mem::take(&mut self.changes);
        block_on(self.store.commit(changes.batch))?;
        if let Some(flushed) = flushed {
            self.documents.settle(flushed);
        }
        Ok(())
    }

    /// Commits all documents, as a peer does when it is closed.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn flush(&mut self) -> Outcome {
        let flushed = self.documents.flush(&mut self.changes.batch);
        self.commit()?;
        self.documents.settle(flushed);
        Ok(())
    }

    /// The rows of a log from a record on.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn rows(&mut self, log: LogId, from: Seq) -> Outcome<Rows> {
        let store = self.store.clone();
        let view = store.view()?;
        let mut rows = Vec::new();
        self.thread()?
            .scan_rows(&*view, &log, from, &mut |first, row| {
                rows.push((first, row.to_vec()));
                ControlFlow::Continue(())
            })?;
        Ok(rows)
    }

    /// The hash of all documents.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn hash(&self) -> Outcome<[u8; 32]> {
        Ok(self.documents.state_hash(&*self.store.view()?)?)
    }

    /// Hands over a message from another peer and commits.
    fn handle(&mut self, from: PeerKey, bytes: &[u8]) -> Outcome {
        let store = self.store.clone();
        let view = store.view()?;
        let mut opened_in = Vec::new();
        let mut sink = |_: ThreadId, it: &Opened<'_>| {
            opened_in.push((it.record, it.stamp, it.seat, it.plaintext.to_vec()));
        };
        self.replica.handle_message(
            &*view,
            from,
            bytes,
            self.now_millis,
            &mut self.rng,
            &mut self.changes,
            &mut sink,
        )?;
        // What is more than one step lets in is due at once.
        while self.replica.poll_timeout() == Some(0) {
            self.replica.handle_timeout(
                &*view,
                self.now_millis,
                &mut self.rng,
                &mut self.changes,
                &mut sink,
            )?;
        }
        for (record, stamp, seat, plaintext) in opened_in {
            let thread = open(&mut self.replica, self.thread)?;
            let member = member_of(thread, &record.log);
            let opened = Opened {
                record,
                stamp,
                seat,
                domain: THREAD_DOMAIN,
                plaintext: &plaintext,
            };
            self.documents.apply(&*view, &opened, member)?;
        }
        drop(view);
        self.commit()
    }

    fn poll(&mut self, to: PeerKey) -> Outcome<Option<Vec<u8>>> {
        let store = self.store.clone();
        let view = store.view()?;
        Ok(self.replica.poll_message(&*view, &to)?)
    }
}

/// The runs of some rows.
///
/// # Errors
///
/// If a row does not read as written.
pub fn runs(rows: &[(Seq, Vec<u8>)]) -> Outcome<Vec<(Seq, Run<'_>)>> {
    rows.iter()
        .map(|(first, row)| Ok((*first, decode_row(row)?.1)))
        .collect()
}

/// Connects two peers and lets them talk until both are silent.
///
/// # Errors
///
/// If a message is refused or a store fails.
pub fn sync(a: &mut Peer, b: &mut Peer) -> Outcome {
    begin(a, b);
    talk(a, b, |_| {})
}

/// Connects two peers anew.
pub fn begin(a: &mut Peer, b: &mut Peer) {
    let (key_a, key_b) = (a.key, b.key);
    for (from, to) in [(key_a, b), (key_b, a)] {
        to.replica.disconnected(&from);
        let Peer { replica, rng, .. } = to;
        replica.connected(from, rng);
    }
}

/// Lets two connected peers talk until both are silent, and shows what goes from `a` to `b`.
///
/// # Errors
///
/// As [`sync`].
pub fn talk(a: &mut Peer, b: &mut Peer, mut show: impl FnMut(&[u8])) -> Outcome {
    let is_shown = |is_from_a, message: &[u8]| {
        if is_from_a {
            show(message);
        }
    };
    exchange(a, b, is_shown)
}

/// As [`talk`], and shows what goes either way, and whether it comes from `a`.
///
/// # Errors
///
/// As [`sync`].
pub fn exchange(a: &mut Peer, b: &mut Peer, mut show: impl FnMut(bool, &[u8])) -> Outcome {
    for _ in 0..MESSAGES_MAX {
        let (to_b, to_a) = (a.poll(b.key)?, b.poll(a.key)?);
        if to_a.is_none() && to_b.is_none() {
            return Ok(());
        }
        if let Some(message) = to_b {
            show(true, &message);
            b.handle(a.key, &message)?;
        }
        if let Some(message) = to_a {
            show(false, &message);
            a.handle(b.key, &message)?;
        }
    }
    Err("two peers talk for ever".into())
}

/// The number of the member whose log this is.
fn member_of(thread: &Thread, log: &LogId) -> Option<OpRef> {
    let grant = thread.governance().opening(log)?.grant;
    let found = thread.governance().grant_named(&grant)?;
    Some(found.line)
}

fn open(replica: &mut Replica, id: ThreadId) -> Outcome<&mut Thread> {
    Ok(replica
        .thread_mut(&id)
        .ok_or("the thread is not here yet")?)
}

fn key_of(seed: u64) -> PeerKey {
    let mut key = [0; 32];
    for (to, from) in key.iter_mut().zip(seed.to_be_bytes()) {
        *to = from;
    }
    PeerKey(key)
}

fn replica_of(store: &dyn Store, key: PeerKey) -> Outcome<Replica> {
    let secret = NonceSecret::new(&key.0);
    Ok(Replica::load(&*store.view()?, key, secret)?)
}

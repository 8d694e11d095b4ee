//! One step of a peer: inputs change threads and documents in memory and add up to one commit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use leno_identity::{Device, DeviceCertificate, PublicKey};
use leno_threads_core::store::{Batch, Overlay, StoreError, Table, View};
use leno_threads_core::sync::bundle::{BundleError, Export, Imported};
#[cfg(feature = "shared")]
use leno_threads_core::sync::shared::{Part, TakeSharedError, Taken};
use leno_threads_core::sync::{Level, PeerKey, Replica, ReplicaSink, SyncError};
use leno_threads_core::thread::{AppendError, Changes, Opened, Rejudged, Thread, ThreadEvent};
use leno_threads_core::{
    LogId, NonceSecret, Now, OpRef, Padding, RecordRef, Role, SeatId, Seq, Stamp, Suite,
    THREAD_DOMAIN, ThreadId, bug,
};
use leno_threads_db::{COLLECTION_FACT_PREFIX, Documents, Flushed, Refold};
use leno_transport_trait::{Address, PeerId};
use rand_chacha::ChaCha20Rng;

use crate::Error;
use crate::clock::Clock;
use crate::event::{Event, Subscribers};
use crate::rendezvous::Rendezvous;
use crate::signal::Signalling;

/// Everything of a peer that outlives a step and is not a port.
pub(crate) struct Core {
    pub(crate) device: Arc<Device>,
    pub(crate) certificate: DeviceCertificate,
    pub(crate) identity: PublicKey,
    pub(crate) replica: Replica,
    pub(crate) documents: BTreeMap<ThreadId, Documents>,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) padding: Padding,
    /// By what threads that are created here are sealed.
    pub(crate) suite: Suite,
    pub(crate) subscribers: Subscribers,
    pub(crate) signals: Signalling,
    pub(crate) rendezvous: Rendezvous,
    /// Threads that may have been restored from a copy: no writes before a level sync.
    pub(crate) restored: BTreeSet<ThreadId>,
    /// Joined threads that were not seen with the grant of their ticket: the beginning of its record's
    /// id. Until then what is here may be an older state that somebody chose to show.
    pub(crate) awaited: BTreeMap<ThreadId, [u8; 16]>,
    /// What subscribers were told of each thread and peer, as long as there are any.
    pub(crate) told: BTreeMap<(PeerKey, ThreadId), Told>,
    /// Where peers were reachable.
    pub(crate) addresses: BTreeSet<Address>,
    /// Where to dial after the commit.
    pub(crate) to_dial: Vec<Address>,
    pub(crate) paused: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What was told of a thread and a peer last.
#[derive(Debug, Default)]
pub(crate) struct Told {
    to_receive: u64,
    to_send: u64,
    /// The newest record of the own log that the peer keeps, if it is the newest at all.
    replicated: Option<(LogId, Seq)>,
    lacks_room: bool,
}

/// A step: the core, a picture of the store, and what is to be committed at its end.
pub(crate) struct Work<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) view: &'a dyn View,
    pub(crate) now_millis: u64,
    pub(crate) changes: &'a mut Changes,
    /// Threads whose drafts are to be published at the end of the step.
    pub(crate) written: &'a mut BTreeSet<ThreadId>,
    pub(crate) events: &'a mut Vec<Event>,
    /// Why what is in memory is no longer what the store would hold: nothing of it may be committed.
    pub(crate) broken: &'a mut Option<StoreError>,
}

impl Core {
    pub(crate) fn nonce_secret(device: &Device) -> NonceSecret {
        NonceSecret::new(device.nonce_secret().as_bytes())
    }
}

impl Work<'_> {
    /// The time of the step, and whether it is known.
    pub(crate) fn now(&self) -> Now {
        match self.core.clock.is_set() {
            true => Now::at(self.now_millis),
            false => Now::unset(self.now_millis),
        }
    }

    /// A thread that is here, ready to be written.
    pub(crate) fn writable(&mut self, id: ThreadId) -> Result<&mut Thread, Error> {
        if self.core.restored.contains(&id) {
            return Err(Error::Restored);
        }
        self.check_granted(id)?;
        let padding = self.core.padding;
        let thread = thread_mut(&mut self.core.replica, id)?;
        thread.set_padding(padding);
        Ok(thread)
    }

    /// Checks that whoever may read has a key, without which all seems empty; and that the grant of the
    /// ticket has come, so that nobody can show a newcomer the thread as it was before, with the members of
    /// then.
    pub(crate) fn check_granted(&mut self, id: ThreadId) -> Result<(), Error> {
        if lacks_every_key(thread_mut(&mut self.core.replica, id)?) {
            return Err(Error::NotSyncedYet(id));
        }
        let Some(granted_by) = self.core.awaited.get(&id) else {
            return Ok(());
        };
        let thread = thread_mut(&mut self.core.replica, id)?;
        let mut grants = thread.governance().grants_of(thread.seat().id());
        let is_awaited = |record: RecordRef| record.id.0.starts_with(granted_by);
        if !grants.any(|(_, grant)| grant.record.is_some_and(is_awaited)) {
            return Err(Error::NotSyncedYet(id));
        }
        self.core.awaited.remove(&id);
        let key = meta::key(meta::AWAITED_PREFIX, &id.0);
        self.changes.batch.delete(Table::Meta, key);
        Ok(())
    }

    /// The documents of a thread, for reading; loaded when first asked for.
    pub(crate) fn documents(&mut self, id: ThreadId) -> Result<&mut Documents, Error> {
        self.check_granted(id)?;
        let thread = thread_mut(&mut self.core.replica, id)?;
        let role = thread.governance().role(thread.seat().id());
        if role.is_some_and(|role| !role.reads()) {
            return Err(Error::MayNotRead);
        }
        self.load_documents(id)?;
        self.core
            .documents
            .get_mut(&id)
            .ok_or(Error::NoSuchThread(id))
    }

    /// Loads the documents of a thread and brings them up to what is admitted, in this step too.
    pub(crate) fn load_documents(&mut self, id: ThreadId) -> Result<(), Error> {
        self.refold_before_use()?;
        if !self.core.documents.contains_key(&id) {
            let thread = thread_mut(&mut self.core.replica, id)?;
            let view = Overlay::new(self.view, &self.changes.batch);
            let documents = load(&view, thread)?;
            self.core.documents.insert(id, documents);
        }
        Ok(())
    }

    /// Passes on what writing to a thread came to. If the store failed meanwhile, what is in memory
    /// may hold a part of it, and must not be committed.
    pub(crate) fn wrote<T>(&mut self, result: Result<T, AppendError>) -> Result<T, Error> {
        if let Err(AppendError::Store(error)) = &result {
            *self.broken = Some(error.clone());
        }
        Ok(result?)
    }

    /// Keeps an address to dial at later starts.
    pub(crate) fn remember_address(&mut self, address: &Address) {
        if self.core.addresses.insert(address.clone()) {
            let key = meta::key(meta::ADDRESS_PREFIX, address.as_str().as_bytes());
            put_meta(&mut self.changes.batch, &key, Vec::new());
        }
    }

    /// Gives up an address at which there will never be anybody.
    pub(crate) fn forget_address(&mut self, address: &Address) {
        if self.core.addresses.remove(address) {
            let key = meta::key(meta::ADDRESS_PREFIX, address.as_str().as_bytes());
            self.changes.batch.delete(Table::Meta, key);
        }
    }

    /// Lets a thread that was restored from a copy be written again.
    pub(crate) fn lift_restored(&mut self, id: ThreadId) {
        if self.core.restored.remove(&id) {
            let key = meta::key(meta::RESTORED_PREFIX, &id.0);
            self.changes.batch.delete(Table::Meta, key);
        }
    }

    /// Notes, for subscribers, how far a thread is from level with a peer.
    pub(crate) fn note_progress(&mut self, key: PeerKey, thread: ThreadId) {
        let Core { replica, told, .. } = &mut *self.core;
        let Some(progress) = replica.progress(&key, &thread) else {
            return;
        };
        let peer = PeerId(key.0);
        let told = told.entry((key, thread)).or_default();
        let (to_receive, to_send) = (progress.to_receive, progress.to_send);
        if (told.to_receive, told.to_send) != (to_receive, to_send) {
            (told.to_receive, told.to_send) = (to_receive, to_send);
            self.events.push(Event::Progress {
                thread,
                peer,
                to_receive,
                to_send,
            });
        }
        let lacks_room = replica.lacks_room(&key, &thread);
        if lacks_room && !told.lacks_room {
            self.events.push(Event::NoRoom { thread, peer });
        }
        told.lacks_room = lacks_room;
        let newest = replica.thread(&thread).and_then(|thread| {
            let log = thread.own_log()?;
            Some((log, thread.log(&log)?.tip.seq))
        });
        let kept = newest.filter(|(log, seq)| {
            *seq > 0
                && replica
                    .acked(&key, &thread, log)
                    .is_some_and(|it| it >= *seq)
        });
        if kept.is_some() && told.replicated != kept {
            told.replicated = kept;
            self.events.push(Event::Replicated { thread, peer });
        }
    }

    /// Runs a step of sync; documents follow what it opens. What becomes of these is told apart: they are
    /// loaded only if something is opened, and that may read the store and fail.
    fn sync<T>(
        &mut self,
        step: impl FnOnce(
            &mut Replica,
            &dyn View,
            Now,
            &mut ChaCha20Rng,
            &mut Changes,
            ReplicaSink<'_>,
        ) -> T,
    ) -> (T, Result<(), StoreError>) {
        let before = self.changes.events.len();
        let now = self.now();
        let Core {
            replica,
            documents,
            rng,
            ..
        } = &mut *self.core;
        let mut opened_in = Inbox::default();
        let mut sink = |id: ThreadId, opened: &Opened<'_>| opened_in.push(id, opened);
        let result = step(replica, self.view, now, rng, self.changes, &mut sink);
        let view = Overlay::new(self.view, &self.changes.batch);
        let applied = opened_in.apply(replica, documents, &view);
        let applied = applied.and_then(|()| self.refold());
        self.after(before);
        (result, applied)
    }

    /// Folds documents again of which records stand otherwise than before.
    fn refold(&mut self) -> Result<(), StoreError> {
        if self.changes.rejudged.is_empty() {
            return Ok(());
        }
        let mut by_thread: BTreeMap<ThreadId, Vec<Rejudged>> = BTreeMap::new();
        for (id, rejudged) in std::mem::take(&mut self.changes.rejudged) {
            by_thread.entry(id).or_default().push(rejudged);
        }
        let view = Overlay::new(self.view, &self.changes.batch);
        for (id, rejudged) in by_thread {
            let Some(thread) = self.core.replica.thread_mut(&id) else {
                continue;
            };
            let documents = match self.core.documents.entry(id) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(load(&view, thread)?),
            };
            refold(&view, thread, documents, &rejudged)?;
        }
        Ok(())
    }

    /// Folds documents again before they are read or written in this step.
    fn refold_before_use(&mut self) -> Result<(), Error> {
        let result = self.refold();
        if let Err(error) = &result {
            *self.broken = Some(error.clone());
        }
        Ok(result?)
    }

    /// Hands a message from a peer to sync.
    #[expect(
        clippy::result_large_err,
        reason = "an error is rare and told once, not passed along"
    )]
    pub(crate) fn handle_message(&mut self, peer: PeerKey, bytes: &[u8]) -> Result<(), SyncError> {
        // A message may go on with the own log, which must not have a draft then.
        self.publish();
        let (result, applied) = self.sync(|replica, view, now, rng, changes, sink| {
            replica.handle_message(view, peer, bytes, now, rng, changes, sink)
        });
        applied?;
        result
    }

    /// Hands parts of a bundle to sync.
    pub(crate) fn import(&mut self, bytes: &[u8]) -> Result<Imported, BundleError> {
        self.publish();
        let (result, applied) = self.sync(|replica, view, now, rng, changes, sink| {
            replica.import(view, bytes, now, rng, changes, sink)
        });
        let failed = match (&result, &applied) {
            (Err(BundleError::Store(error)), _) | (_, Err(error)) => Some(error.clone()),
            _ => None,
        };
        *self.broken = self.broken.take().or(failed);
        result
    }

    /// Hands to sync what a shared store held of a thread.
    #[cfg(feature = "shared")]
    pub(crate) fn take_shared(&mut self, id: ThreadId, part: Part<'_>) -> Result<Taken, Error> {
        self.publish();
        let (result, applied) = self.sync(|replica, view, now, rng, changes, sink| {
            replica.take_shared(view, id, part, now, rng, changes, sink)
        });
        let failed = match (&result, &applied) {
            (Err(TakeSharedError::Store(error)), _) | (_, Err(error)) => Some(error.clone()),
            _ => None,
        };
        *self.broken = self.broken.take().or(failed);
        applied?;
        result.map_err(|error| match error {
            TakeSharedError::Store(error) => Error::Store(error),
            TakeSharedError::NoSuchThread(id) => Error::NoSuchThread(id),
            TakeSharedError::WrongGenesis | _ => Error::OtherGenesis(id),
        })
    }

    /// Goes on with a bundle, up to about so many bytes; nothing once it is done.
    pub(crate) fn export(
        &mut self,
        id: ThreadId,
        export: &mut Export,
        bytes: usize,
    ) -> Result<Vec<Vec<u8>>, Error> {
        // What was written in this step goes along: the caller gets it once it is durable.
        self.publish();
        let Core { replica, rng, .. } = &mut *self.core;
        let thread = replica.thread(&id).ok_or(Error::NotSyncedYet(id))?;
        let view = Overlay::new(self.view, &self.changes.batch);
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut length = 0;
        while length < bytes {
            let Some(part) = export.next_part(thread, &view, rng)? else {
                break;
            };
            length += part.len();
            parts.push(part);
        }
        Ok(parts)
    }

    /// Lets in what waited for time.
    pub(crate) fn handle_timeout(&mut self) -> Result<(), StoreError> {
        let (result, applied) = self.sync(|replica, view, now, rng, changes, sink| {
            replica.handle_timeout(view, now, rng, changes, sink)
        });
        result.and(applied)
    }

    /// What the events of threads mean for their documents.
    fn after(&mut self, before: usize) {
        let changed: BTreeSet<_> = self
            .changes
            .events
            .iter()
            .skip(before)
            .filter(|(_, event)| matches!(event, ThreadEvent::RosterChanged))
            .map(|(thread, _)| *thread)
            .collect();
        for id in changed {
            self.core.define(id);
        }
    }

    /// Signs what was written in this step.
    pub(crate) fn publish(&mut self) {
        for id in std::mem::take(self.written) {
            if let Some(thread) = self.core.replica.thread_mut(&id) {
                thread.publish(self.changes);
            }
            self.core.replica.touched(id);
        }
    }

    /// Shows all members the forks that were found here.
    fn show_forks(&mut self) {
        let events = self.changes.events.iter();
        let may_show = events.filter(|(_, event)| {
            matches!(
                event,
                ThreadEvent::Forked { .. } | ThreadEvent::GovernanceChanged
            )
        });
        let threads: BTreeSet<_> = may_show.map(|(thread, _)| *thread).collect();
        for id in threads {
            let is_due = |thread: &Thread| thread.has_unshown_forks();
            if self.core.restored.contains(&id)
                || !self.core.replica.thread(&id).is_some_and(is_due)
                || self.check_granted(id).is_err()
            {
                continue;
            }
            let now = self.now();
            let Some(thread) = self.core.replica.thread_mut(&id) else {
                continue;
            };
            let shown = thread.show_forks(self.view, now, &mut self.core.rng, self.changes);
            // What cannot be written now is tried again when governance has changed.
            if let Err(AppendError::Store(error)) = shown {
                *self.broken = Some(error);
            }
            self.core.replica.touched(id);
        }
    }

    /// Merges the short rows of logs that got many of them.
    fn pack(&mut self) {
        let events = self.changes.events.iter();
        let admitted: BTreeSet<_> = events
            .filter(|(_, event)| matches!(event, ThreadEvent::Admitted { .. }))
            .map(|(thread, _)| *thread)
            .collect();
        for id in admitted {
            let Some(thread) = self.core.replica.thread_mut(&id) else {
                continue;
            };
            for log in thread.loose_logs() {
                // Packing is for later: a store that fails shows it at the commit, or stays loose.
                drop(thread.pack(self.view, &log, self.changes));
            }
        }
    }

    /// Ends the step: signs what was written, lets restored threads that are level be written again,
    /// flushes documents when enough is dirty. What was flushed is to be settled after the commit.
    pub(crate) fn finish(&mut self) -> Vec<(ThreadId, Flushed)> {
        self.publish();
        self.show_forks();
        if let Err(error) = self.refold() {
            *self.broken = Some(error);
        }
        self.pack();
        self.rendezvous();
        self.signals();
        for id in self.core.restored.clone() {
            let replica = &self.core.replica;
            let is_level = |peer: PeerKey| replica.level(&peer, &id) == Level::Level;
            if replica.peers().any(is_level) {
                self.lift_restored(id);
            }
        }
        let mut flushed = Vec::new();
        for (id, documents) in &mut self.core.documents {
            if documents.needs_flush() {
                flushed.push((*id, documents.flush(&mut self.changes.batch)));
            }
        }
        flushed
    }
}

/// Tells whether this seat may read and holds no key to read with.
fn lacks_every_key(thread: &Thread) -> bool {
    let governance = thread.governance();
    let role = governance.role(thread.seat().id());
    let mut epochs = governance.epochs();
    role.is_some_and(Role::reads)
        && !epochs.any(|it| it.domain == THREAD_DOMAIN && thread.holds_key(&it.epoch))
}

pub(crate) fn thread_mut(replica: &mut Replica, id: ThreadId) -> Result<&mut Thread, Error> {
    if replica.thread(&id).is_none() {
        return Err(match replica.ids().any(|known| known == id) {
            true => Error::NotSyncedYet(id),
            false => Error::NoSuchThread(id),
        });
    }
    replica.thread_mut(&id).ok_or(Error::NoSuchThread(id))
}

impl Core {
    /// Hands the collections' definitions of the roster to the documents.
    pub(crate) fn define(&mut self, id: ThreadId) {
        let Some(thread) = self.replica.thread(&id) else {
            return;
        };
        let Some(documents) = self.documents.get_mut(&id) else {
            return;
        };
        define(thread, documents);
    }
}

fn define(thread: &Thread, documents: &mut Documents) {
    let facts = thread.roster().facts(COLLECTION_FACT_PREFIX);
    for (key, version, value) in facts {
        let name = key.strip_prefix(COLLECTION_FACT_PREFIX).unwrap_or(key);
        // A definition that does not read is its author's mistake; the collection keeps its old one.
        let _ = documents.define(name, version, value);
    }
}

/// The number of the member whose log this is: where the line of the grant began that it writes under.
pub(crate) fn member_of_log(thread: &Thread, log: &LogId) -> Option<OpRef> {
    let grant = thread.governance().opening(log)?.grant;
    member_of_grant(thread, grant)
}

/// The number of the member to whom a grant was given.
pub(crate) fn member_of_grant(thread: &Thread, grant: OpRef) -> Option<OpRef> {
    thread
        .governance()
        .grant_named(&grant)
        .map(|grant| grant.line)
}

/// Loads documents and folds what was admitted after their last flush. What the step changed must
/// show in the view: whatever is admitted is looked for there.
fn load(view: &dyn View, thread: &mut Thread) -> Result<Documents, StoreError> {
    let mut documents = Documents::load(view, thread.number())?;
    define(thread, &mut documents);
    let logs: Vec<_> = thread
        .logs()
        .filter(|log| !log.is_control && log.admitted > documents.cursor(&log.id))
        .filter(|_| !bug!(ReplayForgotten))
        .map(|log| log.id)
        .collect();
    for log in logs {
        let from = documents.cursor(&log);
        let member = member_of_log(thread, &log);
        let mut failed = None;
        thread.replay(view, log, from, &mut |opened| {
            if failed.is_none() {
                failed = documents.apply(view, opened, member).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(documents)
}

/// Folds the documents again that records write to which stand otherwise than before.
fn refold(
    view: &dyn View,
    thread: &mut Thread,
    documents: &mut Documents,
    rejudged: &[Rejudged],
) -> Result<(), StoreError> {
    let mut refold = Refold::new();
    for it in rejudged {
        if !it.stands {
            refold.fell(it.log, it.seqs.clone());
        }
        thread.open_fenced(view, it.log, it.seqs.clone(), &mut |opened| {
            refold.add(opened);
        })?;
    }
    documents.begin_again(view, &refold)?;
    if refold.is_empty() {
        return Ok(());
    }
    let logs = thread.logs().filter(|log| !log.is_control);
    let logs: Vec<_> = logs.map(|log| log.id).collect();
    for log in logs {
        let member = member_of_log(thread, &log);
        let mut failed = None;
        thread.replay(view, log, 0, &mut |opened| {
            if failed.is_none() {
                failed = documents.apply_again(view, opened, member, &refold).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

/// Opened records of one message, until the threads are free to be asked about their authors.
#[derive(Default)]
struct Inbox {
    records: Vec<Kept>,
    plaintexts: Vec<u8>,
}

/// An [`Opened`] whose plaintext lies elsewhere.
struct Kept {
    thread: ThreadId,
    record: RecordRef,
    stamp: Stamp,
    seat: SeatId,
    domain: u32,
    plaintext: Range<usize>,
}

impl Inbox {
    fn push(&mut self, id: ThreadId, opened: &Opened<'_>) {
        let start = self.plaintexts.len();
        self.plaintexts.extend_from_slice(opened.plaintext);
        self.records.push(Kept {
            thread: id,
            record: opened.record,
            stamp: opened.stamp,
            seat: opened.seat,
            domain: opened.domain,
            plaintext: start..self.plaintexts.len(),
        });
    }

    /// Folds the records into documents. Documents that are not loaded yet find them in the store.
    fn apply(
        self,
        replica: &mut Replica,
        documents: &mut BTreeMap<ThreadId, Documents>,
        view: &dyn View,
    ) -> Result<(), StoreError> {
        // Records of one author come together: the last answer is nearly always the next one.
        let mut last: Option<((ThreadId, LogId), Option<OpRef>)> = None;
        for kept in self.records {
            let (id, record) = (kept.thread, kept.record);
            let documents = match documents.entry(id) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    // Loading meets these records too; each counts once.
                    let Some(thread) = replica.thread_mut(&id) else {
                        continue;
                    };
                    entry.insert(load(view, thread)?)
                }
            };
            let member = match last {
                Some((log, member)) if log == (id, record.log) => member,
                _ => replica
                    .thread(&id)
                    .and_then(|thread| member_of_log(thread, &record.log)),
            };
            last = Some(((id, record.log), member));
            let opened = Opened {
                record,
                stamp: kept.stamp,
                seat: kept.seat,
                domain: kept.domain,
                plaintext: self.plaintexts.get(kept.plaintext).unwrap_or_default(),
            };
            documents.apply(view, &opened, member)?;
        }
        Ok(())
    }
}

/// Rows of [`Table::Meta`].
pub(crate) mod meta {
    pub(crate) const DEVICE: &[u8] = b"device";
    pub(crate) const IDENTITY: &[u8] = b"identity";
    pub(crate) const CERTIFICATE: &[u8] = b"certificate";
    pub(crate) const GENERATION: &[u8] = b"generation";
    pub(crate) const ADDRESS_PREFIX: &[u8] = b"address/";
    pub(crate) const SEAT_PREFIX: &[u8] = b"seat/";
    pub(crate) const RESTORED_PREFIX: &[u8] = b"restored/";
    pub(crate) const AWAITED_PREFIX: &[u8] = b"awaited/";
    pub(crate) const QUOTA_PREFIX: &[u8] = b"quota/";

    pub(crate) fn key(prefix: &[u8], name: &[u8]) -> Vec<u8> {
        [prefix, name].concat()
    }
}

pub(crate) fn put_meta(batch: &mut Batch, key: &[u8], value: Vec<u8>) {
    batch.put(Table::Meta, key.to_vec(), value);
}

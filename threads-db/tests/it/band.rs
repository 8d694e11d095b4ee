//! Members of one thread with everything that the law of convergence speaks of: sealed records in a
//! real thread, its governance, and the documents over it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use futures_executor::block_on;
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::acl::Governance;
use leno_threads_core::store::{Batch, MemoryStore, Store, Table, View, scan_prefix};
use leno_threads_core::thread::{
    AppendError, Changes, Opened, ReceiveError, Rejudged, Seat, TakeWrapError, Thread,
};
use leno_threads_core::{
    EpochId, EpochKey, EpochOp, EpochParent, FrameOp, GrantOp, KeyRef, LogId, NonceSecret, OpRef,
    RecordRef, RemoveOp, Role, RosterOp, Run, Scope, SeatId, Seq, Stamp, Suite, THREAD_DOMAIN,
    Wrap, decode_row,
};
use leno_threads_db::{DbError, Definition, Documents, Refold, Transaction, Writer};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::world::{Oracle, Record, strategies};

/// Who is who: an owner, an admin and a writer, then a reader and a replicator who know the genesis
/// alone.
pub(crate) const WRITERS: [usize; 3] = [0, 1, 2];
pub(crate) const DAVE: usize = 3;
pub(crate) const REX: usize = 4;
const ROLES: [Role; 4] = [Role::Admin, Role::Writer, Role::Reader, Role::Replicator];

const NOW: u64 = 1_700_000_000_000;
const NUMBER: u32 = 0;

/// What travels: a run of a log, or a key wrapped to somebody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Parcel {
    Run(LogId, Seq, Vec<u8>, [u8; 64]),
    Wrap(Wrap),
}

pub(crate) struct Member {
    store: MemoryStore,
    thread: Thread,
    documents: Documents,
    rng: ChaCha20Rng,
    now: u64,
    /// Data records that were opened or written here.
    pub(crate) opened: BTreeMap<(LogId, Seq), Record>,
    /// Records that stand otherwise than before, to be folded again.
    rejudged: Vec<Rejudged>,
    /// What this member knew of governance when it wrote each of its data records.
    pub(crate) knew: BTreeMap<(LogId, Seq), Governance>,
}

type Rows = Vec<(Table, Vec<u8>, Vec<u8>)>;

/// The thread as it is before each history: seats, keys, and what rests at each member.
struct Base {
    rows: Vec<Rows>,
    /// The seats of all members, and one of somebody who never comes.
    seats: Vec<(SeatId, [u8; 32])>,
}

fn new_seat(rng: &mut ChaCha20Rng) -> Seat {
    Seat {
        signing: SigningKey::generate(rng).unwrap(),
        kem: AgreementKey::generate(rng).unwrap(),
    }
}

fn secret(member: usize) -> NonceSecret {
    NonceSecret::new(&[member as u8 + 1; 32])
}

fn rows(store: &MemoryStore) -> Rows {
    let view = store.view().unwrap();
    let mut rows = Vec::new();
    for table in Table::ALL {
        scan_prefix(&*view, table, &[], &mut |key, row| {
            rows.push((table, key.to_vec(), row.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    rows
}

fn commit(store: &MemoryStore, changes: Changes) {
    block_on(store.commit(changes.batch)).unwrap();
}

fn grant((seat, kem): (SeatId, [u8; 32]), role: Role) -> FrameOp {
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

/// Made once for all histories: keys, wraps and the first records are dear.
fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut rng = ChaCha20Rng::from_seed([42; 32]);
        let owner = new_seat(&mut rng);
        let mut seats = vec![(owner.id(), owner.kem.public_key().to_bytes())];
        let store = MemoryStore::new();
        let mut changes = Changes::new();
        let view = store.view().unwrap();
        let (about, suite) = ([RosterOp::Name("band".to_owned())], Suite::Aes256Gcm);
        let mut alice = Thread::create(
            &*view,
            NUMBER,
            owner,
            secret(0),
            suite,
            &about,
            NOW,
            &mut rng,
            &mut changes,
        )
        .unwrap();
        drop(view);
        commit(&store, changes);
        let (id, genesis) = (alice.id(), alice.genesis().encode());
        let mut stores = vec![store];
        for (at, role) in (1..).zip(ROLES) {
            let seat = new_seat(&mut rng);
            let ids = (seat.id(), seat.kem.public_key().to_bytes());
            seats.push(ids);
            let mut changes = Changes::new();
            let view = stores[0].view().unwrap();
            let ops = [grant(ids, role)];
            alice
                .govern(&*view, &ops, &[], NOW, &mut rng, &mut changes)
                .unwrap();
            alice.wrap_missing(&mut rng, &mut changes);
            drop(view);
            commit(&stores[0], changes);
            let (store, mut changes) = (MemoryStore::new(), Changes::new());
            let service = alice.service_key().clone();
            Thread::join(
                NUMBER,
                id,
                &genesis,
                service,
                seat,
                secret(at),
                &mut changes,
            )
            .unwrap();
            commit(&store, changes);
            stores.push(store);
        }
        let stranger = new_seat(&mut rng);
        seats.push((stranger.id(), stranger.kem.public_key().to_bytes()));
        let mut base = Base {
            rows: stores.iter().map(rows).collect(),
            seats,
        };
        // The other writers know what the owner did so far.
        let alice = Member::load(&base.rows[0], 0);
        for at in 1..3 {
            let mut member = Member::load(&base.rows[at], at);
            member.deliver(&alice.parcels());
            base.rows[at] = rows(&member.store);
        }
        base
    })
}

/// All members as they are before a history.
pub(crate) fn members() -> Vec<Member> {
    let base = base();
    let members = base.rows.iter().enumerate();
    members.map(|(at, rows)| Member::load(rows, at)).collect()
}

fn member_of(thread: &Thread, log: &LogId) -> Option<OpRef> {
    let governance = thread.governance();
    let grant = governance.opening(log)?.grant;
    governance.grant_named(&grant).map(|grant| grant.line)
}

impl Member {
    fn load(rows: &Rows, at: usize) -> Self {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        for (table, key, row) in rows {
            batch.put(*table, key.clone(), row.clone());
        }
        block_on(store.commit(batch)).unwrap();
        Self::open(store, at)
    }

    fn open(store: MemoryStore, at: usize) -> Self {
        let view = store.view().unwrap();
        let thread = Thread::load(&*view, NUMBER, secret(at)).unwrap();
        let mut documents = Documents::load(&*view, NUMBER).unwrap();
        drop(view);
        let definition = Definition {
            version: 1,
            strategies: strategies(),
        };
        for collection in ["songs", "bands"] {
            let Ok(RosterOp::Fact { version, value, .. }) = definition.to_fact(collection) else {
                unreachable!()
            };
            assert_eq!(documents.define(collection, version, &value), Ok(true));
        }
        Self {
            store,
            thread,
            documents,
            rng: ChaCha20Rng::from_seed([at as u8 + 1; 32]),
            now: NOW + 1_000,
            opened: BTreeMap::new(),
            rejudged: Vec::new(),
            knew: BTreeMap::new(),
        }
    }

    /// Goes on with what rests in the store: the thread, and documents folded anew from its records.
    pub(crate) fn restart(&mut self, at: usize) {
        let mut fresh = Self::open(self.store.clone(), at);
        let logs: Vec<_> = fresh.thread.logs().filter(|log| !log.is_control).collect();
        let mut inbox = Vec::new();
        let view = fresh.store.view().unwrap();
        for log in logs {
            let mut sink = |opened: &Opened<'_>| inbox.push(Kept::of(opened));
            fresh.thread.replay(&*view, log.id, 0, &mut sink).unwrap();
        }
        drop(view);
        fresh.fold(inbox);
        fresh.now = self.now;
        *self = fresh;
    }

    /// The same member once more, with a store of its own.
    pub(crate) fn copy(&self, at: usize) -> Self {
        let mut copy = Self::load(&rows(&self.store), at);
        copy.now = self.now;
        assert!(self.opened.is_empty(), "its documents would be missing");
        copy
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += millis;
    }

    /// Does something to the thread, and commits.
    fn step<T>(
        &mut self,
        step: impl FnOnce(&mut Thread, &dyn View, u64, &mut ChaCha20Rng, &mut Changes) -> T,
    ) -> T {
        let mut changes = Changes::new();
        let view = self.store.view().unwrap();
        let (now, rng) = (self.now, &mut self.rng);
        let result = step(&mut self.thread, &*view, now, rng, &mut changes);
        drop(view);
        let rejudged = std::mem::take(&mut changes.rejudged);
        self.rejudged.extend(rejudged.into_iter().map(|it| it.1));
        commit(&self.store, changes);
        result
    }

    /// Folds again the documents of records that stand otherwise than before.
    fn refold(&mut self) {
        if self.rejudged.is_empty() {
            return;
        }
        let store = self.store.clone();
        let view = store.view().unwrap();
        let mut refold = Refold::new();
        for it in std::mem::take(&mut self.rejudged) {
            if !it.stands {
                refold.fell(it.log, it.seqs.clone());
            }
            self.thread
                .open_fenced(&*view, it.log, it.seqs, &mut |opened| refold.add(opened))
                .unwrap();
        }
        self.documents.begin_again(&*view, &refold).unwrap();
        let logs: Vec<_> = self.thread.logs().filter(|log| !log.is_control).collect();
        let mut standing = Vec::new();
        for log in logs {
            let mut sink = |opened: &Opened<'_>| standing.push(Kept::of(opened));
            self.thread.replay(&*view, log.id, 0, &mut sink).unwrap();
        }
        self.opened.clear();
        for kept in standing {
            let (opened, member) = (kept.opened(), member_of(&self.thread, &kept.record.log));
            self.documents
                .apply_again(&*view, &opened, member, &refold)
                .unwrap();
            self.keep(kept, member);
        }
    }

    /// Appends a transaction, not signed yet; nothing if it is empty or a key is not here.
    fn append(&mut self, fill: impl FnOnce(&mut Writer<'_>) -> Result<(), DbError>) {
        let own = self.thread.own_log();
        let governance = self.thread.governance();
        let member = match own.and_then(|log| member_of(&self.thread, &log)) {
            Some(member) => member,
            None => {
                let Some(grant) = governance.writing_grant(self.thread.seat().id()) else {
                    return;
                };
                governance.grant_named(&grant).unwrap().line
            }
        };
        let mut transaction = Transaction::new(member, own, self.now);
        let store = self.store.clone();
        let view = store.view().unwrap();
        let (documents, rng) = (&mut self.documents, &mut self.rng);
        fill(&mut documents.writer(&*view, &mut transaction, rng)).unwrap();
        let Some(content) = transaction.to_body() else {
            return;
        };
        let appended = self.step(|thread, view, now, rng, changes| {
            let appended = thread.append(view, THREAD_DOMAIN, &content, now, rng, changes);
            match appended {
                Ok(appended) => Some(appended),
                Err(AppendError::NoKey { .. } | AppendError::NotWriter) => None,
                Err(error) => panic!("{error}"),
            }
        });
        let Some(appended) = appended else { return };
        self.documents
            .commit(&*view, transaction, &appended)
            .unwrap();
        let record = Record {
            log: appended.log,
            seq: appended.seq,
            stamp: appended.stamp.0,
            member: Some(member),
            plaintext: [&[0], &content[..]].concat(),
        };
        assert_eq!(member_of(&self.thread, &record.log), record.member);
        let place = (record.log, record.seq);
        assert!(self.opened.insert(place, record).is_none());
        let knew = self.thread.governance().clone();
        self.knew.insert(place, knew);
    }

    /// Writes transactions under one signature.
    pub(crate) fn write<Fill: FnOnce(&mut Writer<'_>) -> Result<(), DbError>>(
        &mut self,
        transactions: impl IntoIterator<Item = Fill>,
    ) {
        for fill in transactions {
            self.append(fill);
        }
        self.step(|thread, _, _, _, changes| thread.publish(changes));
    }

    fn govern(&mut self, frame: &[FrameOp], roster: &[RosterOp]) {
        self.step(|thread, view, now, rng, changes| {
            match thread.govern(view, frame, roster, now, rng, changes) {
                Ok(_) | Err(AppendError::NoKey { .. } | AppendError::NotWriter) => {}
                Err(error) => panic!("{error}"),
            }
        });
        self.refold();
    }

    /// Writes a control record that says nothing.
    pub(crate) fn nod(&mut self) {
        self.govern(&[], &[]);
    }

    /// Grants a role to the seat of a member, or of one who never comes; void if it may not be given.
    pub(crate) fn grant(&mut self, to: usize, role: Role) {
        let seats = &base().seats;
        let to = to % seats.len();
        self.govern(&[grant(seats[to], role)], &[]);
    }

    /// States how a collection merges.
    pub(crate) fn define(&mut self, version: u64) {
        let definition = Definition {
            version,
            strategies: strategies(),
        };
        let fact = definition.to_fact("songs").unwrap();
        self.govern(&[], &[fact]);
    }

    /// Begins an epoch, and wraps its key to all who read; nothing if this member may not.
    pub(crate) fn begin_epoch(&mut self) -> Vec<Parcel> {
        let governance = self.thread.governance();
        let role = governance.role(self.thread.seat().id());
        if role.is_none_or(|role| role > Role::Admin) {
            return Vec::new();
        }
        let parents = governance
            .sealing_epoch(THREAD_DOMAIN)
            .into_iter()
            .map(EpochParent::from)
            .collect();
        let key = EpochKey::generate(&mut self.rng);
        let epoch = EpochOp {
            domain: THREAD_DOMAIN,
            epoch: key.id(self.thread.id(), THREAD_DOMAIN),
            parents,
        };
        self.govern(&[FrameOp::Epoch(epoch)], &[]);
        let id = self.thread.id();
        let wraps: Vec<_> = base().seats[..=DAVE]
            .iter()
            .map(|(seat, kem)| Wrap::seal(&key, id, THREAD_DOMAIN, *seat, kem, &mut self.rng))
            .map(|wrap| Parcel::Wrap(wrap.unwrap()))
            .collect();
        for wrap in &wraps {
            // But for those who may not read any more.
            self.take(wrap);
        }
        wraps
    }

    /// Everything that rests here and travels.
    pub(crate) fn parcels(&self) -> Vec<Parcel> {
        let view = self.store.view().unwrap();
        let mut parcels = Vec::new();
        for log in self.thread.logs() {
            self.thread
                .scan_rows(&*view, &log.id, 1, &mut |first, row| {
                    let (_, run) = decode_row(row).unwrap();
                    let (items, signature) = (run.items().to_vec(), *run.signature());
                    parcels.push(Parcel::Run(log.id, first, items, signature));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        let wraps = self.thread.wraps(&*view).unwrap();
        parcels.extend(wraps.into_iter().map(Parcel::Wrap));
        parcels
    }

    /// Takes a parcel in; tells whether it must come again, as something before it is missing.
    pub(crate) fn take(&mut self, parcel: &Parcel) -> bool {
        let mut inbox = Vec::new();
        let mut sink = |opened: &Opened<'_>| inbox.push(Kept::of(opened));
        let taken = self.step(|thread, view, now, _, changes| match parcel {
            Parcel::Run(log, first, items, signature) => {
                let run = Run::from_parts(items, signature).unwrap();
                match thread.receive(view, *log, *first, run, now, changes, &mut sink) {
                    Ok(_) => true,
                    // The last: a grant or an opening that the log begins at is not here yet.
                    Err(
                        ReceiveError::UnknownLog { .. }
                        | ReceiveError::Gap { .. }
                        | ReceiveError::Refused { .. },
                    ) => false,
                    Err(error) => panic!("{error}"),
                }
            }
            Parcel::Wrap(wrap) => {
                let from = thread.genesis().owner;
                match thread.take_wrap(view, from, wrap, changes, &mut sink) {
                    Ok(_) => true,
                    // Several members made one.
                    Err(TakeWrapError::TooMany { .. }) => true,
                    Err(TakeWrapError::UnknownEpoch | TakeWrapError::Ghost { .. }) => false,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        self.fold(inbox);
        taken
    }

    fn fold(&mut self, inbox: Vec<Kept>) {
        let store = self.store.clone();
        let view = store.view().unwrap();
        for kept in inbox {
            let member = member_of(&self.thread, &kept.record.log);
            self.documents
                .apply(&*view, &kept.opened(), member)
                .unwrap();
            self.keep(kept, member);
        }
        drop(view);
        self.refold();
    }

    fn keep(&mut self, kept: Kept, member: Option<OpRef>) {
        let record = Record {
            log: kept.record.log,
            seq: kept.record.seq,
            stamp: kept.stamp.0,
            member,
            plaintext: kept.plaintext,
        };
        let place = (record.log, record.seq);
        assert!(self.opened.insert(place, record).is_none(), "opened twice");
    }

    /// Takes parcels in, again and again in the same order until there is nothing that must come
    /// again.
    pub(crate) fn deliver(&mut self, parcels: &[Parcel]) {
        let mut left: Vec<_> = parcels.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            left.retain(|parcel| !self.take(parcel));
            if left.len() == before {
                // Keys for those who may not read any more.
                let are_ghosts = left.iter().all(|it| matches!(it, Parcel::Wrap(_)));
                assert!(are_ghosts, "never taken in: {left:?}");
                return;
            }
        }
    }

    /// The epoch that each data record is sealed under.
    pub(crate) fn sealed_under(&self) -> BTreeMap<(LogId, Seq), EpochId> {
        let view = self.store.view().unwrap();
        let mut epochs = BTreeMap::new();
        for log in self.thread.logs().filter(|log| !log.is_control) {
            self.thread
                .scan_rows(&*view, &log.id, 1, &mut |_, row| {
                    let (tip, run) = decode_row(row).unwrap();
                    let run = run.verify(self.thread.id(), log.id, &tip).unwrap();
                    for record in run.records() {
                        if let KeyRef::Data { epoch, .. } = record.key {
                            epochs.insert((log.id, record.seq), epoch);
                        }
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        epochs
    }

    pub(crate) fn holds_key(&self, epoch: &EpochId) -> bool {
        self.thread.holds_key(epoch)
    }

    pub(crate) fn lacks_keys(&self) -> bool {
        !self.thread.missing_keys().is_empty()
    }

    /// Tells whether anybody gave a member a role that reads, by what this one knows.
    pub(crate) fn was_ever_let_in(&self, member: usize) -> bool {
        let seat = base().seats[member].0;
        let mut grants = self.thread.governance().grants_of(seat);
        grants.any(|(_, grant)| grant.op.role.reads())
    }

    /// Tells whether somebody who knew so much of governance knew that a member may not read, and nothing that
    /// this member knows of has let it since.
    pub(crate) fn is_out_for(&self, member: usize, knew: &Governance) -> bool {
        let seat = base().seats[member].0;
        let let_in = self.thread.governance().grants_of(seat);
        let mut let_in = let_in.filter(|(_, grant)| grant.op.role.reads());
        // What removed it may have fallen.
        !self.reads(member)
            && !knew.role(seat).is_some_and(Role::reads)
            && let_in.all(|(name, _)| knew.grant_named(&name).is_some())
    }

    /// Tells whether a member may read, by what this one knows.
    pub(crate) fn reads(&self, member: usize) -> bool {
        let role = self.thread.governance().role(base().seats[member].0);
        role.is_some_and(Role::reads)
    }

    /// Removes a member, and accepts what is here of its logs or nothing.
    pub(crate) fn remove(&mut self, whom: usize, keeps: bool) {
        let member = base().seats[whom].0;
        let view = self.store.view().unwrap();
        let accepts = match keeps {
            true => self.thread.acceptances(&*view, member).unwrap(),
            false => Vec::new(),
        };
        drop(view);
        self.govern(&[FrameOp::Remove(RemoveOp { member, accepts })], &[]);
    }

    pub(crate) fn leave(&mut self) {
        self.govern(&[FrameOp::Leave], &[]);
    }

    /// Accepts all that is here of the data logs of a member.
    pub(crate) fn accept(&mut self, whom: usize) {
        let member = base().seats[whom].0;
        let governance = self.thread.governance();
        let logs = self.thread.logs().filter(|log| {
            let opening = governance.opening(&log.id);
            log.admitted > 0
                && log.admitted == log.tip.seq
                && opening.is_some_and(|it| it.seat == member)
        });
        let accepts: Vec<_> = logs
            .map(|log| RecordRef {
                log: log.id,
                seq: log.tip.seq,
                id: log.tip.id,
            })
            .collect();
        if !accepts.is_empty() {
            self.govern(&[FrameOp::Accept(accepts)], &[]);
        }
    }

    /// Wraps all keys for all who may read, and returns all wraps.
    pub(crate) fn wraps(&mut self) -> Vec<Parcel> {
        self.step(|thread, _, _, rng, changes| while thread.wrap_missing(rng, changes) > 0 {});
        let view = self.store.view().unwrap();
        let wraps = self.thread.wraps(&*view).unwrap();
        wraps.into_iter().map(Parcel::Wrap).collect()
    }

    /// Takes in the control records of all but the owner, and returns them.
    pub(crate) fn take_openings(&mut self, parcels: &[Parcel]) -> Vec<Parcel> {
        let owner = self.thread.genesis().owner.control_log();
        let is_wanted = |parcel: &&Parcel| {
            let Parcel::Run(log, ..) = parcel else {
                return false;
            };
            let known = self.thread.log(log);
            known.is_some_and(|it| it.is_control) && *log != owner
        };
        let wanted: Vec<_> = parcels.iter().filter(is_wanted).cloned().collect();
        self.deliver(&wanted);
        wanted
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        let view = self.store.view().unwrap();
        self.documents.state_hash(&*view).unwrap()
    }

    /// The hash of the naive fold over the records that are here.
    pub(crate) fn naive(&self) -> [u8; 32] {
        Oracle::of(self.opened.values()).hash()
    }

    /// What is known to all who follow the thread.
    pub(crate) fn frames(&self) -> String {
        let logs: Vec<_> = self.thread.logs().filter(|log| log.tip.seq > 0).collect();
        let seen: Vec<_> = logs
            .iter()
            .map(|log| self.thread.acknowledged(&log.id))
            .collect();
        let governance = self.thread.governance();
        let openings: Vec<_> = governance.openings().collect();
        let grants: Vec<_> = governance.grants().collect();
        let epochs: Vec<_> = governance.epochs().collect();
        let void: Vec<_> = governance.void().collect();
        let view = self.store.view().unwrap();
        let quarantined = self.thread.quarantined(&*view).unwrap();
        // Which run a log's last signature stands under is told by how it travelled.
        let logs: Vec<_> = logs
            .iter()
            .map(|log| (log.id, log.is_control, log.tip, log.admitted, log.parked))
            .collect();
        format!(
            "{logs:?}\n{seen:?}\n{openings:?}\n{grants:?}\n{epochs:?}\n{void:?}\n{quarantined:?}"
        )
    }

    /// What members alone know besides documents.
    pub(crate) fn roster(&self) -> String {
        format!("{:?}", self.thread.roster())
    }
}

/// An [`Opened`] that is kept until the thread is free to be asked about its author.
struct Kept {
    record: RecordRef,
    stamp: Stamp,
    seat: SeatId,
    domain: u32,
    plaintext: Vec<u8>,
}

impl Kept {
    fn of(opened: &Opened<'_>) -> Self {
        Self {
            record: opened.record,
            stamp: opened.stamp,
            seat: opened.seat,
            domain: opened.domain,
            plaintext: opened.plaintext.to_vec(),
        }
    }

    fn opened(&self) -> Opened<'_> {
        Opened {
            record: self.record,
            stamp: self.stamp,
            seat: self.seat,
            domain: self.domain,
            plaintext: &self.plaintext,
        }
    }
}

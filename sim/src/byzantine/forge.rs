//! Records that no honest peer writes, put into a store of its own while nothing runs on it.

use std::collections::BTreeMap;

use leno::identity::SigningKey;
use leno::store::{Batch, StoreError, View};
use leno::{PeerId, Role, ThreadId};
use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::thread::{Changes, LogStatus, Opened, Thread};
use leno_threads_core::{
    FrameOp, GrantOp, Header, KeyRef, LogId, NonceSecret, Now, OpenOp, RecordId, RecordRef,
    RemoveOp, Run, Scope, SealContext, SealedPart, Sealer, SeatId, Seq, SignedHead, Stamp,
    THREAD_DOMAIN,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::dice::Dice;

/// A time at which nobody of a run will ever be: the year 2100.
pub(crate) const FAR_MILLIS: u64 = 4_102_444_800_000;

pub(super) fn load(view: &dyn View, id: PeerId) -> Result<Replica, StoreError> {
    Replica::load(view, PeerKey(id.0), NonceSecret::new(&[1; 32]))
}

/// The seats of a peer, by thread.
pub(crate) fn seats_of(
    view: &dyn View,
    id: PeerId,
) -> Result<BTreeMap<ThreadId, SeatId>, StoreError> {
    let replica = load(view, id)?;
    let seats = replica.threads().map(|it| (it.id(), it.seat().id()));
    Ok(seats.collect())
}

/// What is to be committed to the store of a peer so that it goes on with forged records.
pub(crate) fn forge(view: &dyn View, id: PeerId, dice: &mut Dice) -> Result<Batch, StoreError> {
    let mut replica = load(view, id)?;
    let ids: Vec<_> = replica.threads().map(Thread::id).collect();
    let mut changes = Changes::new();
    let mut rng = ChaCha20Rng::from_seed(dice.seed());
    for id in ids {
        let Some(thread) = replica.thread_mut(&id) else {
            continue;
        };
        let now = match dice.below(3) {
            0 => Now::at(FAR_MILLIS),
            _ => Now::at(0),
        };
        // What this seat may not write at all is not written, which is no failure here.
        match dice.below(10) {
            // H01: a stamp of a time that does not come. Or a body that is none.
            0 | 1 => {
                let body: &[u8] = if dice.coin() {
                    b"\x82\x01\x02"
                } else {
                    b"\xff\x00nonsense"
                };
                drop(thread.append(view, THREAD_DOMAIN, body, now, &mut rng, &mut changes));
                thread.publish(&mut changes);
            }
            // P12: rights that are not this seat's to give, to itself or somebody, or to take.
            2..=4 => {
                let op = usurp(thread, dice);
                drop(thread.govern(view, &[op], &[], now, &mut rng, &mut changes));
            }
            5..=7 => invent(view, thread, dice, &mut rng, &mut changes),
            _ => {
                let now = Now::at(0);
                invent_data(view, thread, now, dice, &mut rng, &mut changes);
            }
        }
    }
    Ok(changes.batch)
}

/// A grant or a removal that is not this seat's to make.
fn usurp(thread: &Thread, dice: &mut Dice) -> FrameOp {
    let (own, governance) = (thread.seat().id(), thread.governance());
    let governs = governance.role(own).is_some_and(Role::governs);
    let others: Vec<_> = governance.seats().filter(|it| *it != own).collect();
    // Whoever governs may do it, and then nobody were to blame.
    if !governs
        && dice.coin()
        && let Some(member) = dice.pick(&others)
    {
        return FrameOp::Remove(RemoveOp {
            member: *member,
            accepts: Vec::new(),
        });
    }
    FrameOp::Grant(GrantOp {
        seat: match dice.coin() {
            true => own,
            false => SeatId(dice.seed()),
        },
        kem: dice.seed(),
        role: Role::Owner,
        scope: Scope::Thread,
        expires_millis: None,
        identity: None,
        recovery: None,
        accepts: Vec::new(),
    })
}

/// The newest record of a log.
fn reference(log: &LogStatus) -> RecordRef {
    RecordRef {
        log: log.id,
        seq: log.tip.seq,
        id: log.tip.id,
    }
}

/// Appends a control record of this seat that is none, or names what it must not.
fn invent(
    view: &dyn View,
    thread: &mut Thread,
    dice: &mut Dice,
    rng: &mut ChaCha20Rng,
    changes: &mut Changes,
) {
    let log = thread.seat().id().control_log();
    let Some(status) = thread.log(&log) else {
        return;
    };
    let tip = |is_control: bool, dice: &mut Dice| {
        let logs = thread.logs().filter(|it| it.id != log && it.tip.seq > 0);
        let logs: Vec<_> = logs.filter(|it| it.is_control == is_control).collect();
        dice.pick(&logs).map(|it| (reference(it), it.tip.stamp))
    };
    let made_up = RecordRef {
        log: LogId(dice.seed()),
        seq: 1 + dice.below(9),
        id: RecordId(dice.seed()),
    };
    let mut newest = thread.newest_stamp();
    let mut is_sealed = true;
    let control = match dice.below(8) {
        // L14: it names a record that nobody has. It waits for ever, and so does what follows.
        0 => vec![made_up],
        // A record is there, but not this one.
        1 => {
            let named = tip(true, dice).map(|(it, _)| RecordRef {
                id: made_up.id,
                ..it
            });
            named.into_iter().collect()
        }
        // L13: it names a data record for what it is not.
        2 | 3 => tip(false, dice).map(|(it, _)| it).into_iter().collect(),
        // It claims to be older than what it names.
        4 => {
            let named = tip(true, dice);
            newest = named.map_or(newest, |_| status.tip.stamp);
            named.map(|(it, _)| it).into_iter().collect()
        }
        // Its body opens under no key.
        5 => {
            is_sealed = false;
            Vec::new()
        }
        // Its frame is none.
        _ => Vec::new(),
    };
    // What is stored of the log may wait for a stamp far ahead.
    let Some(stamp) = newest.max(status.tip.stamp).next() else {
        return;
    };
    let context = SealContext {
        thread: thread.id(),
        log,
        seq: status.tip.seq + 1,
        prev: status.tip.id,
        deps: Vec::new(),
        control,
        stamp,
        key: KeyRef::Control { roster: None },
    };
    let mut sealed = dice.seed().repeat(3);
    if is_sealed {
        let suite = thread.genesis().suite;
        let sealer = Sealer::for_frames(suite, thread.service_key(), thread.id(), log);
        let secret = NonceSecret::new(&dice.seed());
        sealed = sealer.seal(&context.encode(), &dice.seed(), &secret, rng);
    }
    let mut run = ForgedRun::new(status.tip.stamp);
    run.push(context, &sealed);
    let key = thread.seat().signing.duplicate();
    run.bring_in(view, thread, &key, changes);
}

/// Opens a log of this seat, whose key is made up here, and appends records to it which name what they
/// never saw.
fn invent_data(
    view: &dyn View,
    thread: &mut Thread,
    now: Now,
    dice: &mut Dice,
    rng: &mut ChaCha20Rng,
    changes: &mut Changes,
) {
    let seat = thread.seat().id();
    let governance = thread.governance();
    let (Some(grant), Some(epoch)) = (
        governance.writing_grant(seat),
        governance.sealing_epoch(THREAD_DOMAIN),
    ) else {
        return;
    };
    let others: Vec<_> = thread
        .logs()
        .filter(|it| it.id != seat.control_log() && it.tip.seq > 0)
        .collect();
    let Ok(key) = SigningKey::from_secret_bytes(&dice.seed()) else {
        return;
    };
    let open = OpenOp::sign(
        &key,
        thread.id(),
        seat,
        grant,
        1_000 + dice.below(1_000),
        None,
    );
    let log = open.log;
    let opened = thread.govern(view, &[FrameOp::Open(open)], &[], now, rng, changes);
    let (Ok(opened), Some(status)) = (opened, thread.log(&seat.control_log())) else {
        return;
    };
    let made_up = RecordRef {
        log: LogId(dice.seed()),
        seq: 1 + dice.below(9),
        id: RecordId(dice.seed()),
    };
    let named = dice.pick(&others).map(reference);
    let dep = match (dice.below(5), named) {
        // Of a log that nobody opened.
        (0, _) | (_, None) => made_up,
        // L14: of one that is open, and does not go so far.
        (1, Some(it)) => RecordRef {
            seq: it.seq + 1_000,
            ..it
        },
        // A record is there, but not this one.
        (2, Some(it)) => RecordRef {
            id: made_up.id,
            ..it
        },
        // One that is there, and may be a control record.
        (_, Some(it)) => it,
    };
    let mut run = ForgedRun::new(status.tip.stamp);
    let (mut prev, mut stamp) = (opened.id, status.tip.stamp);
    // What follows names nothing: it must not pay for its predecessor.
    for (seq, deps) in [(1, vec![dep]), (2, Vec::new())] {
        let Some(next) = stamp.next() else { return };
        stamp = next;
        let context = SealContext {
            thread: thread.id(),
            log,
            seq,
            prev,
            deps,
            control: Vec::new(),
            stamp,
            key: KeyRef::Data {
                domain: THREAD_DOMAIN,
                epoch,
            },
        };
        prev = run.push(context, &dice.seed().repeat(2));
    }
    run.bring_in(view, thread, &key, changes);
}

/// Records of any content, as they travel.
struct ForgedRun {
    items: Encoder,
    count: usize,
    stamp: Stamp,
    first: Option<(LogId, Seq)>,
    last: Option<(Seq, RecordId)>,
}

impl ForgedRun {
    /// Follows on a record of this stamp.
    fn new(stamp: Stamp) -> Self {
        Self {
            items: Encoder::new(),
            count: 0,
            stamp,
            first: None,
            last: None,
        }
    }

    fn push(&mut self, context: SealContext, sealed: &[u8]) -> RecordId {
        let (deps, control) = (&context.deps, &context.control);
        let is_short = self.count > 0 && deps.is_empty() && control.is_empty();
        let delta = context.stamp.0 - self.stamp.0;
        self.items.array(if is_short { 2 } else { 5 });
        self.items.uint(delta).bytes(sealed);
        if !is_short {
            for refs in [deps, control] {
                self.items.array(refs.len());
                for it in refs {
                    self.items.array(3).bytes(&it.log.0).uint(it.seq);
                    self.items.link(&it.id.to_cid());
                }
            }
            match context.key {
                KeyRef::Data { domain, epoch } => {
                    self.items.array(2).uint(domain.into()).bytes(&epoch.0);
                }
                KeyRef::Control { .. } => {
                    self.items.null();
                }
            }
        }
        self.count += 1;
        self.stamp = context.stamp;
        self.first = self.first.or(Some((context.log, context.seq)));
        let seq = context.seq;
        let header = Header {
            body: SealedPart::of(sealed),
            roster: None,
            context,
        };
        let id = header.id();
        self.last = Some((seq, id));
        id
    }

    /// It comes in by the door that others' records come in by.
    fn bring_in(
        self,
        view: &dyn View,
        thread: &mut Thread,
        key: &SigningKey,
        changes: &mut Changes,
    ) {
        let (Some((log, first)), Some((seq, id))) = (self.first, self.last) else {
            return;
        };
        let mut items = Encoder::new();
        items.array(self.count).raw(self.items.as_slice());
        let items = items.into_vec();
        let head = SignedHead::sign(key, thread.id(), log, seq, id);
        if let Ok(run) = Run::from_parts(&items, &head.signature) {
            let sink = &mut |_: &Opened<'_>| {};
            let now = Now::unset(0);
            drop(thread.receive(view, log, first, run, now, changes, sink));
        }
    }
}

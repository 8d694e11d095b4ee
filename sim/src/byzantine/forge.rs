//! Records that no honest peer writes, put into a store of its own while nothing runs on it.

use std::collections::BTreeMap;

use leno::store::{Batch, StoreError, View};
use leno::{PeerId, Role, ThreadId};
use leno_crdt_codec::cbor::Encoder;
use leno_threads_core::sync::{PeerKey, Replica};
use leno_threads_core::thread::{Changes, Thread};
use leno_threads_core::{
    FrameOp, GrantOp, Header, KeyRef, LogId, NonceSecret, Now, RecordId, RecordRef, Run, Scope,
    SealContext, SealedPart, Sealer, SeatId, SignedHead, THREAD_DOMAIN,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::dice::Dice;

/// A time at which nobody of a run will ever be: the year 2100.
const FAR_MILLIS: u64 = 4_102_444_800_000;

fn load(view: &dyn View, id: PeerId) -> Result<Replica, StoreError> {
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
        let now = match dice.coin() {
            true => Now::at(FAR_MILLIS),
            false => Now::at(0),
        };
        // What this seat may not write at all is not written, which is no failure here.
        match dice.below(5) {
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
            // P12: a grant that is not this seat's to give.
            2 => {
                let grant = FrameOp::Grant(GrantOp {
                    line: None,
                    seat: SeatId(dice.seed()),
                    kem: dice.seed(),
                    role: Role::Owner,
                    scope: Scope::Thread,
                    expires_millis: None,
                    identity: None,
                    recovery: None,
                });
                drop(thread.govern(view, &[grant], &[], now, &mut rng, &mut changes));
            }
            // L14: a control record that names records which nobody has. Or one whose frame is none.
            _ => invent(view, thread, dice, &mut rng, &mut changes),
        }
    }
    Ok(changes.batch)
}

/// Appends a control record of this seat that names what is not there.
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
    // What is stored of the log may wait for a stamp far ahead.
    let newest = thread.newest_stamp().max(status.tip.stamp);
    let Some(stamp) = newest.next() else {
        return;
    };
    let made_up = RecordRef {
        log: LogId(dice.seed()),
        seq: 1 + dice.below(9),
        id: RecordId(dice.seed()),
    };
    let control = if dice.coin() {
        vec![made_up]
    } else {
        Vec::new()
    };
    let context = SealContext {
        thread: thread.id(),
        log,
        seq: status.tip.seq + 1,
        prev: status.tip.id,
        deps: Vec::new(),
        control: control.clone(),
        stamp,
        key: KeyRef::Control { roster: None },
    };
    let suite = thread.genesis().suite;
    let sealer = Sealer::for_frames(suite, thread.service_key(), thread.id(), log);
    let secret = NonceSecret::new(&dice.seed());
    let sealed = sealer.seal(&context.encode(), &dice.seed(), &secret, rng);
    let mut items = Encoder::new();
    items.array(1).array(5);
    items
        .uint(stamp.0 - status.tip.stamp.0)
        .bytes(&sealed)
        .array(0);
    items.array(control.len());
    for it in &control {
        items.array(3).bytes(&it.log.0).uint(it.seq);
        items.link(&it.id.to_cid());
    }
    items.null();
    let items = items.into_vec();
    let header = Header {
        body: SealedPart::of(&sealed),
        roster: None,
        context,
    };
    let (seq, id) = (header.context.seq, header.id());
    let head = SignedHead::sign(&thread.seat().signing, thread.id(), log, seq, id);
    if let Ok(run) = Run::from_parts(&items, &head.signature) {
        // It comes in by the door that others' records come in by.
        let sink = &mut |_: &leno_threads_core::thread::Opened<'_>| {};
        let now = Now::unset(0);
        drop(thread.receive(view, log, seq, run, now, changes, sink));
    }
}

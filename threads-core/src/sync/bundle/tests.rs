//! What a holder of the keys could put into a bundle.

use futures_executor::block_on;
use leno_crdt_codec::cbor::Encoder;
use leno_identity::{AgreementKey, SigningKey};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::part::{Part, shared_key, tag};
use super::{BundleError, Imported, NotTaken};
use crate::store::{MemoryStore, Store};
use crate::sync::message::{HaveLog, LogName, Message, SYNC_MESSAGE_BYTES_MAX};
use crate::sync::{PeerKey, Replica};
use crate::thread::{Changes, Opened, ReceiveError, Seat, Thread};
use crate::{
    EpochId, LogId, NonceSecret, Run, SeatId, ServiceKey, Suite, THREAD_DOMAIN, ThreadId, Wrap,
};

const NOW: u64 = 1_700_000_000_000;

/// A peer with a thread that it made, or only with a ticket of it, and a member who makes bundles.
struct World {
    rng: ChaCha20Rng,
    store: MemoryStore,
    replica: Replica,
    thread: ThreadId,
    service: ServiceKey,
    genesis: Vec<u8>,
    member: SigningKey,
}

impl World {
    fn new(is_here: bool) -> Self {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (store, secret) = (MemoryStore::new(), NonceSecret::new(&[1; 32]));
        let view = store.view().unwrap();
        let mut replica = Replica::load(&*view, PeerKey([1; 32]), secret.clone()).unwrap();
        let seat = |rng: &mut ChaCha20Rng| Seat {
            signing: SigningKey::generate(rng).unwrap(),
            kem: AgreementKey::generate(rng).unwrap(),
        };
        let (mut changes, own, suite) = (Changes::new(), seat(&mut rng), Suite::Aes256Gcm);
        let made = Thread::create(
            &*view,
            0,
            own,
            secret,
            suite,
            &[],
            NOW,
            &mut rng,
            &mut changes,
        );
        let mut made = made.unwrap();
        let (thread, service) = (made.id(), made.service_key().clone());
        let genesis = made.genesis().encode();
        let member = SigningKey::from_secret_bytes(&made.seat().signing.to_secret_bytes());
        if is_here {
            let text = [0x62, b'h', b'i'];
            made.append(&*view, THREAD_DOMAIN, &text, NOW, &mut rng, &mut changes)
                .unwrap();
            made.publish(&mut changes);
            replica.add(made);
            block_on(store.commit(changes.batch)).unwrap();
        } else {
            let (other, mut changes) = (seat(&mut rng), Changes::new());
            replica.join(thread, service.clone(), other, &mut changes);
            block_on(store.commit(changes.batch)).unwrap();
        }
        drop(view);
        Self {
            rng,
            store,
            replica,
            thread,
            service,
            genesis,
            member: member.unwrap(),
        }
    }

    /// A part with any content, as a member would make it.
    fn part(&mut self, bundle: u8, number: u32, is_last: bool, content: &[u8]) -> Vec<u8> {
        let bundle = [bundle; 16];
        let part = Part {
            bundle,
            tag: tag(&self.service, &bundle),
            number,
            is_last,
            encapsulated: None,
            sealed: &[],
        };
        let key = shared_key(&self.service, self.thread, &bundle);
        let secret = NonceSecret::new(&[9; 32]);
        part.seal(
            self.thread,
            &key,
            &self.member,
            content,
            &secret,
            &mut self.rng,
        )
    }

    fn import(&mut self, bytes: &[u8]) -> Result<Imported, BundleError> {
        let (view, mut changes) = (self.store.view().unwrap(), Changes::new());
        let mut sink = |_: ThreadId, _: &Opened<'_>| {};
        let (rng, replica) = (&mut self.rng, &mut self.replica);
        let result = replica.import(&*view, bytes, NOW, rng, &mut changes, &mut sink);
        block_on(self.store.commit(changes.batch)).unwrap();
        result
    }

    /// Imports messages as one part.
    fn messages(&mut self, bundle: u8, messages: &[Message<'_>]) -> Result<Imported, BundleError> {
        let content = stream(messages);
        let part = self.part(bundle, 0, true, &content);
        self.import(&part)
    }
}

fn stream(messages: &[Message<'_>]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    for message in messages {
        encoder.bytes(&message.encode());
    }
    encoder.into_vec()
}

fn range(log: LogName, items: &[u8]) -> Message<'_> {
    Message::Range {
        thread: 0,
        log,
        first: 1,
        runs: vec![Run::from_parts(items, &[0; 64]).unwrap()],
    }
}

#[test]
fn content_that_is_none_is_refused() {
    let mut world = World::new(true);
    let mut long = Encoder::new();
    long.bytes(&vec![0; SYNC_MESSAGE_BYTES_MAX + 1]);
    let long = long.into_vec();
    let mut claims = vec![0x5a];
    claims.extend(u32::MAX.to_be_bytes());
    let half = stream(&[Message::Totals {
        thread: 0,
        records: 1,
    }]);
    let contents: [&[u8]; 5] = [
        &[0x00],
        &[0x41, 0xff],
        &long[..100_000],
        &claims,
        &half[..2],
    ];
    for (at, content) in (0..).zip(contents) {
        let part = world.part(at, 0, true, content);
        let refused = world.import(&part);
        assert!(
            matches!(refused, Err(BundleError::BadContent(_))),
            "{at}: {refused:?}"
        );
    }
    // What is claimed beyond the longest message is refused before the last part comes.
    let part = world.part(9, 0, false, &claims);
    assert!(matches!(
        world.import(&part),
        Err(BundleError::BadContent(_))
    ));
}

#[test]
fn messages_of_sessions_are_out_of_place() {
    let mut world = World::new(true);
    let (thread, log) = (0, LogId([1; 32]));
    let messages = [
        Message::Hello { nonce: [0; 32] },
        Message::Threads { tags: vec![] },
        Message::Prove {
            thread,
            seat: SeatId([1; 32]),
            signature: [0; 64],
        },
        Message::Ack {
            thread,
            logs: vec![],
        },
        Message::Refused {
            thread,
            log,
            is_full: false,
        },
        Message::Question {
            thread,
            log,
            from: 1,
        },
        Message::UpToDate { thread, vectors: 1 },
        range(LogName::Known(0), &[0x81, 0x00]),
    ];
    for (at, message) in (0..).zip(messages) {
        let refused = world.messages(at, &[message]);
        assert!(
            matches!(refused, Err(BundleError::OutOfPlace { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn newcomer_needs_the_right_genesis_first() {
    let mut world = World::new(false);
    let refused = world.messages(1, &[range(LogName::New(LogId([1; 32])), &[0x81, 0x00])]);
    assert!(
        matches!(refused, Err(BundleError::OutOfPlace { .. })),
        "{refused:?}"
    );
    let wraps = Message::Wraps {
        thread: 0,
        wraps: vec![],
    };
    let refused = world.messages(2, &[wraps]);
    assert!(
        matches!(refused, Err(BundleError::OutOfPlace { .. })),
        "{refused:?}"
    );
    let mut other = world.genesis.clone();
    other[80] ^= 1;
    for (bundle, genesis) in [(3, &other[..]), (4, b"genesis")] {
        let genesis = Message::Genesis { thread: 0, genesis };
        let refused = world.messages(bundle, &[genesis]);
        assert!(
            matches!(refused, Err(BundleError::WrongGenesis)),
            "{refused:?}"
        );
    }
    let genesis = world.genesis.clone();
    let genesis = Message::Genesis {
        thread: 0,
        genesis: &genesis,
    };
    assert!(world.messages(9, &[genesis]).unwrap().is_complete);
    assert!(world.replica.thread(&world.thread).is_some());
}

#[test]
fn records_that_nobody_signed_are_listed_and_the_rest_goes_on() {
    let mut world = World::new(true);
    let own = world
        .replica
        .thread(&world.thread)
        .unwrap()
        .own_log()
        .unwrap();
    let (strange, control) = (
        LogId([7; 32]),
        LogId(world.member.verifying_key().to_bytes()),
    );
    let bad = range(LogName::New(strange), &[0x81, 0x00]);
    let forged = Message::Range {
        thread: 0,
        log: LogName::New(control),
        first: 3,
        runs: vec![Run::from_parts(&[0x81, 0x00], &[0; 64]).unwrap()],
    };
    let gap = Message::Range {
        thread: 0,
        log: LogName::New(own),
        first: 9,
        runs: vec![Run::from_parts(&[0x81, 0x00], &[0; 64]).unwrap()],
    };
    let again = forged.clone();
    let it = world.messages(1, &[bad, gap, forged, again]).unwrap();
    let of = |it: &NotTaken| {
        let NotTaken::Range(error) = it else {
            panic!("{it}")
        };
        match error {
            ReceiveError::UnknownLog { log } => (0, *log),
            ReceiveError::Gap { log, .. } => (1, *log),
            ReceiveError::Refused { log, .. } => (2, *log),
            ReceiveError::Forked { .. }
            | ReceiveError::TooManyParked { .. }
            | ReceiveError::OverQuota { .. }
            | ReceiveError::NotPublished { .. }
            | ReceiveError::Store(_) => panic!("{error}"),
        }
    };
    let refused: Vec<_> = it.refused.iter().map(of).collect();
    assert_eq!(
        refused,
        [(0, strange), (1, own), (2, control)],
        "each log once"
    );
    assert!(it.is_complete && it.stored == 0);
}

/// A member who hands over junk takes no more room than in a session; a stranger takes none.
#[test]
fn junk_wraps_take_the_room_of_their_giver() {
    for is_member in [true, false] {
        let mut world = World::new(true);
        if !is_member {
            world.member = SigningKey::from_secret_bytes(&[5; 32]).unwrap();
        }
        let thread = world.replica.thread(&world.thread).unwrap();
        let began = thread.governance().epochs().next().unwrap();
        let (domain, epoch, seat) = (began.domain, began.epoch, thread.seat().id());
        let wraps_before = thread.wraps_digest();
        let junk = |byte| Wrap {
            domain,
            epoch,
            seat,
            encapsulated: [byte; 32],
            sealed: [0; 48],
        };
        let wraps = Message::Wraps {
            thread: 0,
            wraps: (0..40).map(junk).collect(),
        };
        let strange = Message::Wraps {
            thread: 0,
            wraps: vec![Wrap {
                epoch: EpochId([1; 32]),
                ..junk(1)
            }],
        };
        let it = world.messages(1, &[wraps, strange]).unwrap();
        assert!(it.is_complete);
        let thread = world.replica.thread(&world.thread).unwrap();
        assert_eq!(
            thread.wraps_kept() > 0 && wraps_before != thread.wraps_digest(),
            is_member
        );
        assert!(thread.wraps_kept() <= 4, "{}", thread.wraps_kept());
    }
}

/// Whoever has the service key and no seat can say what he likes of heads: nothing follows.
#[test]
fn vector_of_a_stranger_says_nothing() {
    let mut world = World::new(true);
    let thread = world.replica.thread(&world.thread).unwrap();
    let log = thread.log(&thread.own_log().unwrap()).unwrap();
    let have = |bundle: u8| Message::Have {
        thread: 0,
        subscribe: true,
        wraps: [0; 8],
        logs: vec![HaveLog {
            log: log.id,
            seq: log.tip.seq,
            hash: crate::sync::session::short_hash(&[bundle; 16], &log.tip.id),
        }],
    };
    let outbox = |world: &World| {
        let view = world.store.view().unwrap();
        world.replica.outbox(&*view, &world.thread).unwrap()
    };
    // Not this bundle's hash: another record, it seems.
    assert_eq!(world.messages(1, &[have(2)]).unwrap().differing, [log.id]);
    assert_eq!(outbox(&world), 1);
    let member = std::mem::replace(
        &mut world.member,
        SigningKey::from_secret_bytes(&[5; 32]).unwrap(),
    );
    let it = world.messages(3, &[have(4)]).unwrap();
    assert_eq!((it.differing.len(), outbox(&world)), (0, 1));
    assert_eq!(it.has.unwrap().logs.get(&log.id), Some(&1));
    let it = world.messages(5, &[have(5)]).unwrap();
    assert_eq!((it.differing.len(), outbox(&world)), (0, 1));
    world.member = member;
    world.messages(6, &[have(6)]).unwrap();
    assert_eq!(outbox(&world), 0);
}

#[test]
fn parts_of_one_bundle_are_of_one_maker_and_end_once() {
    let mut world = World::new(true);
    let first = world.part(1, 0, false, b"");
    assert_eq!(world.import(&first).unwrap().missing, Some(1));
    let member = std::mem::replace(
        &mut world.member,
        SigningKey::from_secret_bytes(&[5; 32]).unwrap(),
    );
    let other = world.part(1, 1, false, b"");
    assert!(matches!(world.import(&other), Err(BundleError::Mixed)));
    world.member = member;
    let last = world.part(1, 2, true, b"");
    assert_eq!(world.import(&last).unwrap().missing, Some(1));
    for (number, is_last) in [(3, false), (1, true), (3, true)] {
        let part = world.part(1, number, is_last, b"");
        assert!(
            matches!(world.import(&part), Err(BundleError::Mixed)),
            "{number}"
        );
    }
    let middle = world.part(1, 1, false, b"");
    assert!(world.import(&middle).unwrap().is_complete);
}

#[test]
fn memory_of_bundles_is_bounded() {
    let mut world = World::new(true);
    for bundle in 0..40 {
        let part = world.part(bundle, 1, false, &[0; 100]);
        world.import(&part).unwrap();
    }
    assert_eq!(world.replica.imports.len(), super::IMPORTS_MAX);
}

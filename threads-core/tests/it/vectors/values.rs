//! Values of every kind, to be encoded.

use super::{THREAD, hex};
use crate::util::{Secrets, rng};
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::fork::{Branch, ForkProof};
use leno_threads_core::sync::bundle::Part;
use leno_threads_core::sync::{AckLog, Below, HaveLog, LogName, Message, Prefix, Shown, Signal};
use leno_threads_core::{
    DeviceOp, EpochId, EpochKey, EpochOp, EpochParent, FrameOp, Genesis, GrantOp, Header, KeyLink,
    KeyRef, LogId, OpRef, OpenOp, Policy, RecordId, RecordRef, RemoveOp, Role, RosterOp, Run,
    Scope, SealContext, SealedPart, SeatId, SignedHead, Stamp, Suite, Tip, Wrap,
};
use serde_json::{Value, json};

pub(super) fn key(byte: u8) -> SigningKey {
    SigningKey::from_secret_bytes(&[byte; 32]).unwrap()
}

pub(super) fn genesis(suite: Suite, byte: u8) -> Genesis {
    Genesis {
        owner: SeatId(key(byte).verifying_key().to_bytes()),
        owner_kem: [2; 32],
        suite,
        policy: Policy::Standard,
        nonce: [byte; 16],
    }
}

pub(super) fn part(encapsulated: Option<[u8; 32]>) -> Part<'static> {
    Part {
        bundle: [3; 16],
        tag: [4; 16],
        number: 300,
        is_last: encapsulated.is_some(),
        encapsulated,
        sealed: b"sealed",
    }
}

pub(super) fn at(byte: u8, seq: u64) -> RecordRef {
    RecordRef {
        log: LogId([byte; 32]),
        seq,
        id: RecordId([byte; 32]),
    }
}

pub(super) fn header(
    key: KeyRef,
    deps: Vec<RecordRef>,
    control: Vec<RecordRef>,
    seq: u64,
) -> Header {
    let has_roster = matches!(key, KeyRef::Control { roster: Some(_) });
    Header {
        context: SealContext {
            thread: THREAD,
            log: LogId([5; 32]),
            seq,
            prev: RecordId([3; 32]),
            deps,
            control,
            stamp: Stamp::from_millis(1_700_000_000_000),
            key,
        },
        body: SealedPart::of(b"sealed"),
        roster: has_roster.then(|| SealedPart::of(b"roster")),
    }
}

pub(super) const DATA: KeyRef = KeyRef::Data {
    domain: 1,
    epoch: EpochId([7; 32]),
};

pub(super) fn headers() -> Vec<(&'static str, Header)> {
    let control = KeyRef::Control { roster: None };
    let roster = KeyRef::Control {
        roster: Some(EpochId([8; 32])),
    };
    let other = KeyRef::Data {
        domain: u32::MAX,
        epoch: EpochId([9; 32]),
    };
    vec![
        (
            "data record without references",
            header(DATA, vec![], vec![], 1),
        ),
        (
            "data record with a dep",
            header(DATA, vec![at(4, 2)], vec![], 2),
        ),
        (
            "data record with deps on both sides of its log and a control record",
            header(DATA, vec![at(4, 2), at(6, 9)], vec![at(7, 1)], 300),
        ),
        (
            "data record of the last key domain",
            header(other, vec![], vec![], 2),
        ),
        (
            "data record at the last seq",
            header(DATA, vec![], vec![], u64::MAX - 1),
        ),
        (
            "control record without roster part",
            header(control, vec![], vec![], 1),
        ),
        (
            "control record that has seen two others",
            header(control, vec![], vec![at(4, 2), at(6, 70_000)], 9),
        ),
        (
            "control record with roster part",
            header(roster, vec![], vec![at(1, 1)], 3),
        ),
    ]
}

pub(super) fn grant(role: Role, full: bool) -> FrameOp {
    FrameOp::Grant(GrantOp {
        seat: SeatId([4; 32]),
        kem: [5; 32],
        role,
        scope: Scope::Thread,
        expires_millis: full.then_some(1_800_000_000_000),
        identity: full.then_some([6; 32]),
        recovery: full.then_some([7; 32]),
        accepts: match full {
            true => accepted(),
            false => Vec::new(),
        },
    })
}

fn shown_fork() -> Vec<u8> {
    let (one, other) = branches();
    ForkProof::new(one, other).unwrap().encode()
}

/// A control log and a data log, each up to a record.
pub(super) fn accepted() -> Vec<RecordRef> {
    let up_to = |number, seq| RecordRef {
        log: LogId(key(number).verifying_key().to_bytes()),
        seq,
        id: RecordId([8; 32]),
    };
    let mut both = vec![up_to(1, 7), up_to(2, 1_000_000)];
    both.sort_by_key(|it| it.log);
    both
}

pub(super) fn frames() -> Vec<(&'static str, Vec<FrameOp>)> {
    let seat = SeatId(key(1).verifying_key().to_bytes());
    let name = OpRef {
        record: RecordId([3; 32]),
        op: 0,
    };
    let open = |last: bool| {
        OpenOp::sign(
            &key(2),
            THREAD,
            seat,
            name,
            u64::from(last),
            last.then_some((4, RecordId([5; 32]))),
        )
    };
    let epoch = |domain, parents| EpochOp {
        domain,
        epoch: EpochId([9; 32]),
        parents,
    };
    vec![
        ("no op", vec![]),
        ("grant: owner", vec![grant(Role::Owner, false)]),
        (
            "grant: admin with expiry, both hashes and what is accepted",
            vec![grant(Role::Admin, true)],
        ),
        ("grant: writer", vec![grant(Role::Writer, false)]),
        ("grant: reader", vec![grant(Role::Reader, false)]),
        ("grant: replicator", vec![grant(Role::Replicator, false)]),
        (
            "opening: first log of a seat",
            vec![FrameOp::Open(open(false))],
        ),
        (
            "opening: second log of a seat",
            vec![FrameOp::Open(open(true))],
        ),
        (
            "epoch: without parents",
            vec![FrameOp::Epoch(epoch(0, vec![]))],
        ),
        (
            "epoch: with two parents, linked to one",
            vec![FrameOp::Epoch(epoch(
                1,
                vec![
                    EpochId([1; 32]).into(),
                    EpochParent {
                        epoch: EpochId([2; 32]),
                        link: Some(KeyLink([3; 48])),
                    },
                ],
            ))],
        ),
        (
            "removal that accepts nothing",
            vec![FrameOp::Remove(RemoveOp {
                member: seat,
                accepts: Vec::new(),
            })],
        ),
        (
            "removal up to a fence",
            vec![FrameOp::Remove(RemoveOp {
                member: seat,
                accepts: accepted(),
            })],
        ),
        ("acceptance", vec![FrameOp::Accept(accepted())]),
        ("leave", vec![FrameOp::Leave]),
        ("shown fork", vec![FrameOp::Fork(shown_fork())]),
        (
            "device",
            vec![FrameOp::Device(DeviceOp::sign(
                &key(3),
                THREAD,
                seat,
                [5; 32],
            ))],
        ),
        (
            "all ops in one frame",
            vec![
                grant(Role::Writer, true),
                FrameOp::Open(open(true)),
                FrameOp::Epoch(epoch(1, vec![])),
            ],
        ),
    ]
}

pub(super) fn rosters() -> Vec<(&'static str, Vec<RosterOp>)> {
    let seat = RosterOp::Seat {
        seat: SeatId([4; 32]),
        certificate: vec![1, 2, 3],
        salt: [5; 16],
        name: "Ann \u{1f3b8}".to_owned(),
    };
    let fact = RosterOp::Fact {
        key: "collection/songs".to_owned(),
        version: 2,
        value: vec![0xa0],
    };
    vec![
        ("roster: who a seat is", vec![seat.clone()]),
        (
            "roster: name of the thread",
            vec![RosterOp::Name("band".to_owned())],
        ),
        ("roster: fact", vec![fact.clone()]),
        (
            "roster: all",
            vec![seat, RosterOp::Name(String::new()), fact],
        ),
    ]
}

pub(super) fn secrets() -> Secrets {
    Secrets {
        service: leno_threads_core::ServiceKey::from_bytes([3; 32]),
        seat: key(1),
        epochs: vec![(1, EpochId([7; 32]), EpochKey::from_bytes([8; 32]))],
        writer: Some(key(2)),
    }
}

pub(super) fn opened() -> Tip {
    Tip::opened_by(RecordId([6; 32]), Stamp(1_000))
}

/// A run: what it shows, its bytes, and the fields that a reader needs.
pub(super) fn run(which: usize) -> (&'static str, Vec<u8>, Value) {
    let keys = secrets();
    let text = |stamp, text| keys.text(Stamp(stamp), text);
    let (name, signer, records) = match which {
        0 => ("run of one data record", key(2), vec![text(1_001, "a")]),
        1 => (
            "run of three data records",
            key(2),
            vec![text(1_001, "a"), text(5_000, "b"), text(5_001, "c")],
        ),
        2 => {
            let mut named = text(1_002, "names others");
            named.deps = vec![at(4, 2)];
            named.control = vec![at(3, 1), at(4, 9)];
            (
                "run whose second record names others",
                key(2),
                vec![text(1_001, "a"), named],
            )
        }
        _ => (
            "run of two control records",
            key(1),
            vec![
                keys.frame(Stamp(1_001), &[grant(Role::Reader, false)]),
                keys.frame(Stamp(1_002), &[]),
            ],
        ),
    };
    let ((_, items, signature), _) = keys.craft(THREAD, &signer, &opened(), &records);
    let fields = json!({
        "signature": hex(signature),
        "thread": hex(THREAD.0),
        "log": hex(signer.verifying_key().to_bytes()),
        "opened_by": hex([6; 32]),
        "opened_at": 1_000,
    });
    (name, items, fields)
}

/// An epoch that links to the one that it follows.
pub(super) fn linked_epoch() -> FrameOp {
    let (new, old) = (EpochKey::from_bytes([8; 32]), EpochKey::from_bytes([7; 32]));
    let parent = EpochParent {
        epoch: old.id(THREAD, 1),
        link: Some(KeyLink::seal(&new, &old, THREAD, 1)),
    };
    FrameOp::Epoch(EpochOp {
        domain: 1,
        epoch: new.id(THREAD, 1),
        parents: vec![parent],
    })
}

pub(super) fn wrap(kem: &AgreementKey) -> Wrap {
    let epoch = EpochKey::from_bytes([8; 32]);
    let public = kem.public_key().to_bytes();
    Wrap::seal(&epoch, THREAD, 1, SeatId([4; 32]), &public, &mut rng(3)).unwrap()
}

pub(super) fn branches() -> (Branch, Branch) {
    let keys = secrets();
    let side = |texts: [&str; 2]| {
        let mut at = opened();
        let mut headers = Vec::new();
        let records = texts.map(|it| keys.text(Stamp(at.stamp.0 + 1 + it.len() as u64), it));
        let ((_, items, signature), tip) = keys.craft(THREAD, &key(2), &at, &records);
        let run = Run::from_parts(&items, &signature).unwrap();
        let log = LogId(key(2).verifying_key().to_bytes());
        let verified = run.verify(THREAD, log, &at).unwrap();
        for record in verified.records() {
            headers.push(Header {
                context: SealContext {
                    thread: THREAD,
                    log,
                    seq: record.seq,
                    prev: at.id,
                    deps: vec![],
                    control: vec![],
                    stamp: record.stamp,
                    key: record.key,
                },
                body: SealedPart::of(record.body),
                roster: None,
            });
            at.id = record.id;
        }
        let head = SignedHead {
            thread: THREAD,
            log,
            seq: tip.seq,
            id: tip.id,
            signature,
        };
        Branch { head, headers }
    };
    (side(["a", "bb"]), side(["cc", "ddd"]))
}

pub(super) fn signal(ttl_millis: u32, bytes: usize) -> Signal {
    Signal {
        epoch: EpochId([1; 32]),
        seat: SeatId([2; 32]),
        tag: [3; 16],
        at: Stamp::from_millis(1_700_000_000_000),
        ttl_millis,
        sealed: vec![4; bytes],
        signature: [5; 64],
    }
}

/// A prefix within the first byte of names.
fn prefix(first: u8, nibbles: u8) -> Prefix {
    let mut name = [0; 16];
    name[0] = first;
    Prefix::new(name, nibbles).unwrap()
}

pub(super) fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let (_, items, _) = run(0);
    let signature = [5; 64];
    let run = Run::from_parts(&items, &signature).unwrap();
    let log = LogId([4; 32]);
    let kem = AgreementKey::from_secret_bytes(&[9; 32]).unwrap();
    let have = |logs| Message::Have {
        thread: 3,
        subscribe: true,
        wraps: [1; 8],
        logs,
    };
    let entry = HaveLog {
        log,
        seq: 300,
        hash: [2; 8],
    };
    let range = |log| Message::Range {
        thread: 0,
        log,
        first: 1,
        runs: vec![run],
    };
    let all = [
        ("0 hello", Message::Hello { nonce: [1; 32] }),
        (
            "1 threads",
            Message::Threads {
                tags: vec![[1; 16], [2; 16]],
            },
        ),
        ("1 threads: none", Message::Threads { tags: vec![] }),
        (
            "2 prove",
            Message::Prove {
                thread: 0,
                seat: SeatId([4; 32]),
                signature,
            },
        ),
        ("3 have", have(vec![entry])),
        ("3 have: nothing", have(vec![])),
        (
            "3 have: one log is not wanted, for another there is no room",
            have(vec![
                HaveLog::unwanted(log),
                HaveLog::no_room(LogId([5; 32])),
            ]),
        ),
        (
            "4 totals",
            Message::Totals {
                thread: 0,
                records: 100_000,
            },
        ),
        ("5 range: a new log", range(LogName::New(log))),
        ("5 range: a known log", range(LogName::Known(7))),
        (
            "6 wraps",
            Message::Wraps {
                thread: 0,
                wraps: vec![wrap(&kem)],
            },
        ),
        (
            "7 ack",
            Message::Ack {
                thread: 0,
                logs: vec![
                    AckLog {
                        number: 0,
                        seq: 1,
                        ranges: 1,
                    },
                    AckLog {
                        number: 7,
                        seq: 70_000,
                        ranges: 300,
                    },
                ],
            },
        ),
        (
            "8 branch",
            Message::Branch {
                thread: 0,
                log,
                signature,
                headers: vec![header(DATA, vec![], vec![], 1)],
            },
        ),
        (
            "9 question",
            Message::Question {
                thread: 0,
                log,
                from: 9,
            },
        ),
        (
            "10 genesis",
            Message::Genesis {
                thread: 0,
                genesis: &[1, 2, 3],
            },
        ),
        (
            "11 refused",
            Message::Refused {
                thread: 0,
                log,
                is_full: false,
            },
        ),
        ("20 left", Message::Left { thread: 3 }),
        (
            "11 refused: no room",
            Message::Refused {
                thread: 0,
                log,
                is_full: true,
            },
        ),
        (
            "12 up to date",
            Message::UpToDate {
                thread: 0,
                vectors: 3,
            },
        ),
        (
            "13 need keys",
            Message::NeedKeys {
                thread: 0,
                epochs: vec![EpochId([1; 32]), EpochId([2; 32])],
            },
        ),
        (
            "14 signal",
            Message::Signal {
                thread: 0,
                signal: signal(60_000, 112),
            },
        ),
        (
            "15 announce",
            Message::Announce {
                thread: 0,
                has_room: true,
                logs: vec![entry],
            },
        ),
        (
            "16 graft",
            Message::Graft {
                thread: 0,
                always: false,
                logs: vec![(log, 0), (LogId([5; 32]), 300)],
            },
        ),
        ("17 prune", Message::Prune { thread: 3 }),
        (
            "18 compare",
            Message::Compare {
                round: 3,
                root: [1; 16],
            },
        ),
        ("19 compared", Message::Compared { round: 3 }),
        (
            "21 ask: the root, and two below it",
            Message::Ask {
                round: 3,
                nodes: vec![Prefix::ROOT, prefix(0x10, 1), prefix(0x12, 2)],
            },
        ),
        (
            "22 nodes: one with children, one with leaves, one with nothing",
            Message::Nodes {
                round: 3,
                nodes: vec![
                    Shown {
                        prefix: Prefix::ROOT,
                        below: Below::Inner(Box::new([[7; 16]; 16])),
                    },
                    Shown {
                        prefix: prefix(0x10, 1),
                        below: Below::Leaves(vec![([0x11; 16], [8; 16]), ([0x12; 16], [9; 16])]),
                    },
                    Shown {
                        prefix: prefix(0x20, 2),
                        below: Below::Leaves(vec![]),
                    },
                ],
            },
        ),
        (
            "23 unknown",
            Message::Unknown {
                names: vec![[1; 16], [2; 16]],
            },
        ),
        ("24 seen", Message::Seen { tags: 70_000 }),
        ("25 pause", Message::Pause { thread: 3 }),
    ];
    all.into_iter()
        .map(|(name, it)| (name, it.encode()))
        .collect()
}

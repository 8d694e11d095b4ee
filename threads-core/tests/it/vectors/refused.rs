//! Bytes that must be refused.

use super::values::{DATA, at, branches, genesis, grant, header, part, run, signal, wrap};
use super::{Cases, PLAINTEXT, encode_head, hex};
use leno_crdt_codec::cbor::Encoder;
use leno_identity::AgreementKey;
use leno_threads_core::fork::{Branch, ForkProof};
use leno_threads_core::sync::{Below, HaveLog, LogName, Message, Prefix, Shown};
use leno_threads_core::{
    EpochId, EpochOp, FrameOp, Header, KeyRef, LogId, Padding, RecordRef, Role, SealedPart, SeatId,
    SignedHead, Suite, Wrap, encode_frame,
};
use serde_json::{Value, json};

/// Replaces bytes at a place.
fn with(bytes: &[u8], place: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.splice(place..=place, new.iter().copied());
    bytes
}

fn shown(prefix: Option<Prefix>, leaves: Vec<([u8; 16], [u8; 16])>) -> Vec<u8> {
    let shown = Shown {
        prefix: prefix.unwrap(),
        below: Below::Leaves(leaves),
    };
    let (round, nodes) = (1, vec![shown]);
    Message::Nodes { round, nodes }.encode()
}

fn signal_message(ttl_millis: u32, bytes: usize) -> Vec<u8> {
    let signal = signal(ttl_millis, bytes);
    Message::Signal { thread: 0, signal }.encode()
}

pub(super) fn refused() -> Vec<Value> {
    let mut cases = Cases(Vec::new());
    let nothing = || json!({});
    let good = genesis(Suite::Aes256Gcm, 1).encode();
    let last = good.len() - 1;
    for (name, bytes) in [
        ("genesis: version 2", with(&good, 1, &[2])),
        ("genesis: suite 3", with(&good, 70, &[3])),
        ("genesis: policy 1", with(&good, 71, &[1])),
        ("genesis: cut", good[..last].to_vec()),
        ("genesis: trailing byte", [&good[..], &[0]].concat()),
        (
            "genesis: not the shortest number",
            with(&good, 1, &[0x18, 1]),
        ),
        ("genesis: five fields", with(&good, 0, &[0x85])),
        ("genesis: indefinite list", with(&good, 0, &[0x9f])),
        ("genesis: empty", vec![]),
        ("genesis: too long", vec![0; 4_097]),
    ] {
        cases.refuse(name, "genesis", &bytes, nothing());
    }
    let good = header(DATA, vec![at(4, 2), at(6, 9)], vec![], 2);
    let bytes = good.encode();
    let change = |edit: &dyn Fn(&mut Header)| {
        let mut header = good.clone();
        edit(&mut header);
        header.encode()
    };
    for (name, bytes) in [
        ("header: version 2", with(&bytes, 2, &[2])),
        ("header: seq 0", change(&|it| it.context.seq = 0)),
        (
            "header: the last seq",
            change(&|it| it.context.seq = u64::MAX),
        ),
        (
            "header: deps out of order",
            change(&|it| it.context.deps.reverse()),
        ),
        (
            "header: a dep twice",
            change(&|it| it.context.deps = vec![at(4, 2), at(4, 2)]),
        ),
        (
            "header: a dep on its own log",
            change(&|it| it.context.deps = vec![at(5, 1)]),
        ),
        (
            "header: a dep at seq 0",
            change(&|it| it.context.deps = vec![at(4, 0)]),
        ),
        (
            "header: data in key domain 0",
            change(&|it| {
                it.context.key = KeyRef::Data {
                    domain: 0,
                    epoch: EpochId([7; 32]),
                }
            }),
        ),
        (
            "header: body too long",
            change(&|it| it.body.bytes = (512 << 10) + 1),
        ),
        (
            "header: roster part without epoch",
            change(&|it| it.roster = Some(SealedPart::of(b""))),
        ),
        (
            "header: epoch without roster part",
            change(&|it| {
                it.context.key = KeyRef::Control {
                    roster: Some(EpochId([8; 32])),
                }
            }),
        ),
        ("header: thread is a raw CID", with(&bytes, 9, &[0x55])),
        ("header: thread is not a link", with(&bytes, 3, &[0xd9])),
        ("header: cut", bytes[..bytes.len() - 1].to_vec()),
        ("header: trailing byte", [&bytes[..], &[0]].concat()),
        ("header: four parts", with(&bytes, 0, &[0x84])),
    ] {
        cases.refuse(name, "header", &bytes, nothing());
    }
    let grant = encode_frame(&[grant(Role::Writer, false)], Padding::Off);
    let parents = |parents| {
        encode_frame(
            &[FrameOp::Epoch(EpochOp {
                domain: 1,
                epoch: EpochId([9; 32]),
                parents,
            })],
            Padding::Off,
        )
    };
    let accepts = |accepts| encode_frame(&[FrameOp::Accept(accepts)], Padding::Off);
    let up_to = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut log = [0; 32];
        (log[0], log[1]) = (high, low);
        RecordRef {
            log: LogId(log),
            ..at(1, 1)
        }
    };
    let too_many = (0..=1024).map(up_to).collect();
    let mut padded = encode_frame(&[], Padding::Padme);
    padded[63] = 1;
    let mut many = Encoder::append_to(vec![0]);
    many.array(1_025).raw(&[0; 1_025]);
    for (name, bytes) in [
        ("frame: empty", vec![]),
        ("frame: unknown encoding", with(&grant, 0, &[1])),
        ("frame: unknown op", vec![0, 0x81, 0x81, 0x18, 31]),
        ("frame: unknown role", with(&grant, 72, &[5])),
        ("frame: unknown scope", with(&grant, 74, &[1])),
        ("frame: grant of eight fields", with(&grant, 2, &[0x88])),
        ("frame: padding that is not zero", padded),
        (
            "frame: padding of another class",
            [&grant[..], &[0, 0]].concat(),
        ),
        (
            "frame: parents out of order",
            parents(vec![EpochId([2; 32]).into(), EpochId([1; 32]).into()]),
        ),
        (
            "frame: a parent twice",
            parents(vec![EpochId([1; 32]).into(), EpochId([1; 32]).into()]),
        ),
        ("frame: too many ops", many.into_vec()),
        ("frame: accepts nothing", accepts(vec![])),
        ("frame: accepts up to no record", accepts(vec![at(4, 0)])),
        (
            "frame: accepts out of order",
            accepts(vec![at(5, 1), at(4, 1)]),
        ),
        (
            "frame: accepts a log twice",
            accepts(vec![at(4, 1), at(4, 2)]),
        ),
        ("frame: accepts too many logs", accepts(too_many)),
        ("frame: leave with a field", vec![0, 0x81, 0x82, 5, 0]),
        (
            "frame: shows too many forks",
            encode_frame(&vec![FrameOp::Fork(vec![]); 5], Padding::Off),
        ),
    ] {
        cases.refuse(name, "frame", &bytes, nothing());
        cases.0.last_mut().unwrap()["codec"] = json!(PLAINTEXT);
    }
    for (name, bytes) in [
        ("roster: unknown op", vec![0, 0x81, 0x82, 3, 0x60]),
        (
            "roster: name is not UTF-8",
            vec![0, 0x81, 0x82, 1, 0x61, 0xff],
        ),
        (
            "roster: fact of three fields",
            vec![0, 0x81, 0x83, 2, 0x60, 0],
        ),
    ] {
        cases.refuse(name, "roster", &bytes, nothing());
        cases.0.last_mut().unwrap()["codec"] = json!(PLAINTEXT);
    }
    let (_, items, fields) = run(1);
    let mut forged = fields.clone();
    forged["signature"] = json!(hex([0; 64]));
    let mut moved = fields.clone();
    moved["thread"] = json!(hex([2; 32]));
    let mut renamed = fields.clone();
    renamed["log"] = json!(hex([0xff; 32]));
    let mut full = fields.clone();
    full["opened_at"] = json!(u64::MAX);
    let mut long = Encoder::new();
    long.array(1_025).raw(&[0; 1_025]);
    let mut flipped = items.clone();
    flipped[20] ^= 1;
    for (name, bytes, fields) in [
        ("run: forged signature", items.clone(), &forged),
        ("run: moved to another thread", items.clone(), &moved),
        (
            "run: moved to a log that is no key",
            items.clone(),
            &renamed,
        ),
        ("run: flipped bit in a body", flipped, &fields),
        ("run: stamp beyond the last", items.clone(), &full),
        ("run: empty", vec![0x80], &fields),
        ("run: 1,025 records", long.into_vec(), &fields),
        (
            "run: stamp that does not rise",
            with(&items, 2, &[0]),
            &fields,
        ),
        (
            "run: first record without key",
            vec![0x81, 0x82, 1, 0x40],
            &fields,
        ),
        (
            "run: item of three",
            vec![0x81, 0x83, 1, 0x40, 0x80],
            &fields,
        ),
        ("run: trailing byte", [&items[..], &[0]].concat(), &fields),
    ] {
        cases.refuse(name, "run", &bytes, fields.clone());
    }
    let log = LogId([4; 32]);
    let have = |logs| {
        Message::Have {
            thread: 0,
            subscribe: false,
            wraps: [0; 8],
            logs,
        }
        .encode()
    };
    let entry = |byte, seq| HaveLog {
        log: LogId([byte; 32]),
        seq,
        hash: [0; 8],
    };
    for (name, bytes) in [
        ("message: unknown kind", vec![0x82, 0x18, 99, 0]),
        ("message: wrong length", vec![0x82, 12, 0]),
        ("message: not a list", vec![0xa0]),
        (
            "message: hello of version 2",
            with(&Message::Hello { nonce: [1; 32] }.encode(), 2, &[2]),
        ),
        (
            "message: vector out of order",
            have(vec![entry(2, 1), entry(1, 1)]),
        ),
        (
            "message: vector with a log twice",
            have(vec![entry(1, 1), entry(1, 2)]),
        ),
        ("message: vector with seq 0", have(vec![entry(1, 0)])),
        (
            "message: range without runs",
            Message::Range {
                thread: 0,
                log: LogName::New(log),
                first: 1,
                runs: vec![],
            }
            .encode(),
        ),
        (
            "message: range with half a run",
            vec![0x85, 5, 0, 0, 1, 0x81, 0x41, 0x80],
        ),
        (
            "message: range of an empty run",
            [
                &[0x85, 5, 0, 0, 1, 0x82, 0x41, 0x80, 0x58, 64][..],
                &[0; 64],
            ]
            .concat(),
        ),
        (
            "message: epochs out of order",
            Message::NeedKeys {
                thread: 0,
                epochs: vec![EpochId([2; 32]), EpochId([1; 32])],
            }
            .encode(),
        ),
        (
            "message: graft with a log twice",
            Message::Graft {
                thread: 0,
                always: true,
                logs: vec![(log, 1), (log, 2)],
            }
            .encode(),
        ),
        (
            "message: signal that lasts too long",
            signal_message(600_001, 112),
        ),
        ("message: signal that is too long", signal_message(1, 1_329)),
        (
            "message: claims 2^63 tags",
            vec![0x82, 1, 0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("message: trailing byte", vec![0x83, 12, 0, 0, 0]),
        (
            "message: names out of order",
            Message::Unknown {
                names: vec![[2; 16], [1; 16]],
            }
            .encode(),
        ),
        (
            "message: a node twice",
            Message::Ask {
                round: 1,
                nodes: vec![Prefix::ROOT, Prefix::ROOT],
            }
            .encode(),
        ),
        (
            "message: more than zeros behind the half bytes of a node",
            vec![0x83, 21, 1, 0x81, 0x42, 1, 0x11],
        ),
        (
            "message: a node of fewer bytes than half bytes",
            vec![0x83, 21, 1, 0x81, 0x42, 3, 0x11],
        ),
        (
            "message: a node without a length",
            vec![0x83, 21, 1, 0x81, 0x40],
        ),
        (
            "message: a node longer than a name",
            [&[0x83, 21, 1, 0x81, 0x52, 33][..], &[0; 17]].concat(),
        ),
        (
            "message: a node with half a leaf",
            [
                &[0x83, 22, 1, 0x81, 0x82, 0x41, 0, 0x81, 0x50][..],
                &[1; 16],
            ]
            .concat(),
        ),
        (
            "message: a leaf of another node",
            shown(Prefix::new([0; 16], 1), vec![([0x10; 16], [1; 16])]),
        ),
        (
            "message: leaves out of order",
            shown(
                Some(Prefix::ROOT),
                vec![([2; 16], [1; 16]), ([1; 16], [1; 16])],
            ),
        ),
        (
            "message: a node with seventeen leaves",
            shown(
                Some(Prefix::ROOT),
                (0..17).map(|at| ([at; 16], [1; 16])).collect(),
            ),
        ),
        (
            "message: thread beyond 32 bits",
            vec![0x83, 12, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        ),
    ] {
        cases.refuse(name, "message", &bytes, nothing());
    }
    let kem = AgreementKey::from_secret_bytes(&[9; 32]).unwrap();
    let good = wrap(&kem);
    let wraps = |wrap| {
        Message::Wraps {
            thread: 0,
            wraps: vec![wrap],
        }
        .encode()
    };
    let fields = json!({"kem_secret": hex([9; 32]), "key": hex([8; 32])});
    let stranger = json!({"kem_secret": hex([7; 32]), "key": hex([8; 32])});
    let mut flipped = good.clone();
    flipped.sealed[0] ^= 1;
    for (name, wrap, fields) in [
        ("wrap: for another KEM key", good.clone(), &stranger),
        ("wrap: flipped bit", flipped, &fields),
        (
            "wrap: of another epoch",
            Wrap {
                epoch: EpochId([0; 32]),
                ..good.clone()
            },
            &fields,
        ),
        (
            "wrap: of another key domain",
            Wrap {
                domain: 2,
                ..good.clone()
            },
            &fields,
        ),
        (
            "wrap: for another seat",
            Wrap {
                seat: SeatId([5; 32]),
                ..good.clone()
            },
            &fields,
        ),
        (
            "wrap: small-order encapsulated key",
            Wrap {
                encapsulated: [0; 32],
                ..good
            },
            &fields,
        ),
    ] {
        cases.refuse(name, "wrap", &wraps(wrap), fields.clone());
    }
    let (a, b) = branches();
    let forged = SignedHead {
        signature: [1; 64],
        ..a.head
    };
    cases.refuse("head: forged", "head", &encode_head(&forged), nothing());
    let moved = SignedHead { seq: 3, ..a.head };
    cases.refuse("head: another seq", "head", &encode_head(&moved), nothing());
    let proof = ForkProof::new(a.clone(), b.clone()).unwrap();
    let both = |lower: &Branch, higher: &Branch| {
        ForkProof {
            lower: lower.clone(),
            higher: higher.clone(),
        }
        .encode()
    };
    let unsigned = Branch {
        head: SignedHead {
            signature: [0; 64],
            ..b.head
        },
        headers: b.headers.clone(),
    };
    let broken = Branch {
        head: b.head,
        headers: b.headers.iter().rev().cloned().collect(),
    };
    let none = Branch {
        head: b.head,
        headers: vec![],
    };
    for (name, bytes) in [
        ("proof: one branch twice", both(&a, &a)),
        (
            "proof: branches in the wrong order",
            both(&proof.higher, &proof.lower),
        ),
        ("proof: unsigned", both(&a, &unsigned)),
        ("proof: headers in the wrong order", both(&a, &broken)),
        ("proof: a side without headers", both(&a, &none)),
        ("proof: empty", vec![]),
    ] {
        cases.refuse(name, "proof", &bytes, nothing());
    }
    let good = part(None).encode();
    let mut long = good[..good.len() - 7].to_vec();
    long.extend([0x5a, 0, 0x10, 0, 1]);
    for (name, bytes) in [
        ("part: another file", with(&good, 3, b"E")),
        ("part: version 2", with(&good, 13, &[2])),
        ("part: seven fields", with(&good, 0, &[0x87])),
        ("part: longer than parts are", long),
        ("part: cut", good[..good.len() - 1].to_vec()),
        ("part: trailing byte", [&good[..], &[0]].concat()),
        ("part: empty", vec![]),
    ] {
        cases.refuse(name, "part", &bytes, nothing());
    }
    cases.0
}

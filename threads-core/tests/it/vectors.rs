//! Vectors of our own format, both ways: bytes with their meaning, and bytes that must be refused.
//!
//! `LENO_WRITE_VECTORS=1` writes the files; they are then never edited.

use leno_crdt_codec::cbor::{Decoder, Encoder};
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::fork::{Branch, ForkProof};
use leno_threads_core::sync::{AckLog, HaveLog, LogName, Message};
use leno_threads_core::{
    EpochId, EpochKey, EpochOp, FrameOp, Genesis, GrantOp, Header, KeyRef, LogId, OpRef, OpenOp,
    Padding, Policy, RecordId, RecordRef, Role, RosterOp, Run, Scope, SealContext, SealedPart,
    SeatId, SignedHead, Stamp, Suite, ThreadId, Tip, Wrap, decode_frame, decode_roster,
    encode_frame, encode_roster,
};
use serde_json::{Value, json};

use crate::util::{Secrets, rng};

const CBOR: &str = "dag-cbor";
const PLAINTEXT: &str = "leno-plaintext";

const THREAD: ThreadId = ThreadId([1; 32]);

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes
        .as_ref()
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Reads a case as this version does: its bytes again, or the error.
fn read(case: &Value) -> Result<Vec<u8>, String> {
    let bytes = unhex(case["hex"].as_str().unwrap());
    let fixed =
        |field: &str| -> [u8; 32] { unhex(case[field].as_str().unwrap()).try_into().unwrap() };
    match case["kind"].as_str().unwrap() {
        "genesis" => Genesis::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "header" => Header::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "frame" => decode_frame(&bytes)
            .map(|ops| encode_frame(&ops, padding(case)))
            .map_err(|it| chain(&it)),
        "roster" => decode_roster(&bytes)
            .map(|ops| encode_roster(&ops, padding(case)))
            .map_err(|it| chain(&it)),
        "run" => {
            let signature: [u8; 64] = unhex(case["signature"].as_str().unwrap())
                .try_into()
                .unwrap();
            let tip = Tip::opened_by(
                RecordId(fixed("opened_by")),
                Stamp(case["opened_at"].as_u64().unwrap()),
            );
            let run = Run::from_parts(&bytes, &signature).map_err(|it| chain(&it))?;
            let verified = run
                .verify(ThreadId(fixed("thread")), LogId(fixed("log")), &tip)
                .map_err(|it| chain(&it))?;
            if let Some(ids) = case["ids"].as_array() {
                let found: Vec<_> = verified.records().iter().map(|it| hex(it.id.0)).collect();
                assert_eq!(json!(found), json!(ids));
            }
            Ok(verified.as_run().items().to_vec())
        }
        "message" => Message::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "wrap" => {
            let message = Message::decode(&bytes).map_err(|it| chain(&it))?;
            let Message::Wraps { wraps, .. } = &message else {
                return Err("no wraps".to_owned());
            };
            let kem = AgreementKey::from_secret_bytes(&fixed("kem_secret")).unwrap();
            for wrap in wraps {
                let key = wrap.open(THREAD, &kem).map_err(|it| chain(&it))?;
                assert_eq!(hex(key.expose()), case["key"].as_str().unwrap());
            }
            Ok(message.encode())
        }
        "proof" => ForkProof::decode(&bytes)
            .map(|it| it.encode())
            .map_err(|it| chain(&it)),
        "head" => {
            let mut decoder = Decoder::new(&bytes);
            decoder.array_of(5).unwrap();
            let head = SignedHead {
                thread: ThreadId(*decoder.fixed().unwrap()),
                log: LogId(*decoder.fixed().unwrap()),
                seq: decoder.uint().unwrap(),
                id: RecordId(*decoder.fixed().unwrap()),
                signature: *decoder.fixed().unwrap(),
            };
            let verified = head.verify().map_err(|it| chain(&it))?;
            Ok(encode_head(verified.head()))
        }
        other => panic!("{other}"),
    }
}

fn padding(case: &Value) -> Padding {
    match case["padding"].as_bool() {
        Some(true) => Padding::Padme,
        _ => Padding::Off,
    }
}

/// A head as the vectors write it; it never stands alone in the format.
fn encode_head(head: &SignedHead) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .array(5)
        .bytes(&head.thread.0)
        .bytes(&head.log.0)
        .uint(head.seq)
        .bytes(&head.id.0)
        .bytes(&head.signature);
    encoder.into_vec()
}

struct Cases(Vec<Value>);

impl Cases {
    fn add(&mut self, name: &str, codec: &str, kind: &str, bytes: &[u8], fields: Value) {
        let mut case = json!({"name": name, "codec": codec, "kind": kind, "hex": hex(bytes)});
        for (key, value) in fields.as_object().unwrap() {
            case[key] = value.clone();
        }
        self.0.push(case);
    }

    /// A case that is refused: the error is what this version says.
    fn refuse(&mut self, name: &str, kind: &str, bytes: &[u8], fields: Value) {
        self.add(name, CBOR, kind, bytes, fields);
        let case = self.0.last_mut().unwrap();
        let error = read(case).expect_err(name);
        case["error"] = json!(error);
    }
}

fn key(byte: u8) -> SigningKey {
    SigningKey::from_secret_bytes(&[byte; 32]).unwrap()
}

fn genesis(suite: Suite, byte: u8) -> Genesis {
    Genesis {
        owner: SeatId(key(byte).verifying_key().to_bytes()),
        owner_kem: [2; 32],
        suite,
        policy: Policy::Standard,
        nonce: [byte; 16],
    }
}

fn at(byte: u8, seq: u64) -> RecordRef {
    RecordRef {
        log: LogId([byte; 32]),
        seq,
        id: RecordId([byte; 32]),
    }
}

fn header(key: KeyRef, deps: Vec<RecordRef>, control: Vec<RecordRef>, seq: u64) -> Header {
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

const DATA: KeyRef = KeyRef::Data {
    domain: 1,
    epoch: EpochId([7; 32]),
};

fn headers() -> Vec<(&'static str, Header)> {
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

fn grant(role: Role, full: bool) -> FrameOp {
    let name = OpRef {
        record: RecordId([3; 32]),
        op: 1,
    };
    FrameOp::Grant(GrantOp {
        line: full.then_some(name),
        seat: SeatId([4; 32]),
        kem: [5; 32],
        role,
        scope: Scope::Thread,
        expires_millis: full.then_some(1_800_000_000_000),
        identity: full.then_some([6; 32]),
        recovery: full.then_some([7; 32]),
    })
}

fn frames() -> Vec<(&'static str, Vec<FrameOp>)> {
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
            "grant: admin with line, expiry and both hashes",
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
            "epoch: with two parents",
            vec![FrameOp::Epoch(epoch(
                1,
                vec![EpochId([1; 32]), EpochId([2; 32])],
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

fn rosters() -> Vec<(&'static str, Vec<RosterOp>)> {
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

fn secrets() -> Secrets {
    Secrets {
        service: leno_threads_core::ServiceKey::from_bytes([3; 32]),
        seat: key(1),
        epochs: vec![(1, EpochId([7; 32]), EpochKey::from_bytes([8; 32]))],
        writer: Some(key(2)),
    }
}

fn opened() -> Tip {
    Tip::opened_by(RecordId([6; 32]), Stamp(1_000))
}

/// A run: what it shows, its bytes, and the fields that a reader needs.
fn run(which: usize) -> (&'static str, Vec<u8>, Value) {
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

fn wrap(kem: &AgreementKey) -> Wrap {
    let epoch = EpochKey::from_bytes([8; 32]);
    let public = kem.public_key().to_bytes();
    Wrap::seal(&epoch, THREAD, 1, SeatId([4; 32]), &public, &mut rng(3)).unwrap()
}

fn branches() -> (Branch, Branch) {
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

fn messages() -> Vec<(&'static str, Vec<u8>)> {
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
        ("11 refused", Message::Refused { thread: 0, log }),
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
    ];
    all.into_iter()
        .map(|(name, it)| (name, it.encode()))
        .collect()
}

fn accepted() -> Vec<Value> {
    let mut cases = Cases(Vec::new());
    for (suite, byte) in [(Suite::Aes256Gcm, 1), (Suite::ChaCha20Poly1305, 2)] {
        let it = genesis(suite, byte);
        let fields = json!({
            "version": 1, "suite": suite.number(), "policy": 0,
            "owner": hex(it.owner.0), "owner_kem": hex(it.owner_kem), "nonce": hex(it.nonce),
            "thread": it.thread().to_string(),
        });
        let name = format!("genesis of suite {}", suite.number());
        cases.add(&name, CBOR, "genesis", &it.encode(), fields);
    }
    for (name, it) in headers() {
        let fields = json!({
            "id": it.id().to_string(), "seq": it.context.seq, "stamp": it.context.stamp.0,
            "deps": it.context.deps.len(), "control": it.context.control.len(),
        });
        cases.add(name, CBOR, "header", &it.encode(), fields);
    }
    for (name, ops) in frames() {
        for (pad, padding) in [(false, Padding::Off), (true, Padding::Padme)] {
            let fields = json!({"ops": ops.len(), "padding": pad});
            cases.add(
                name,
                PLAINTEXT,
                "frame",
                &encode_frame(&ops, padding),
                fields,
            );
        }
    }
    for (name, ops) in rosters() {
        let fields = json!({"ops": ops.len(), "padding": true});
        cases.add(
            name,
            PLAINTEXT,
            "roster",
            &encode_roster(&ops, Padding::Padme),
            fields,
        );
    }
    for which in 0..4 {
        let (name, items, mut fields) = run(which);
        let log: [u8; 32] = unhex(fields["log"].as_str().unwrap()).try_into().unwrap();
        let signature: [u8; 64] = unhex(fields["signature"].as_str().unwrap())
            .try_into()
            .unwrap();
        let verified = Run::from_parts(&items, &signature).unwrap();
        let verified = verified.verify(THREAD, LogId(log), &opened()).unwrap();
        let ids: Vec<_> = verified.records().iter().map(|it| hex(it.id.0)).collect();
        fields["ids"] = json!(ids);
        cases.add(name, CBOR, "run", &items, fields);
    }
    for (name, bytes) in messages() {
        cases.add(name, CBOR, "message", &bytes, json!({}));
    }
    let kem = AgreementKey::from_secret_bytes(&[9; 32]).unwrap();
    let wraps = Message::Wraps {
        thread: 0,
        wraps: vec![wrap(&kem)],
    }
    .encode();
    let fields = json!({"kem_secret": hex([9; 32]), "key": hex([8; 32]), "thread": hex(THREAD.0)});
    cases.add("wrap", CBOR, "wrap", &wraps, fields);
    let (a, b) = branches();
    let head = a.head;
    let fields = json!({"seq": head.seq});
    cases.add("signed head", CBOR, "head", &encode_head(&head), fields);
    let proof = ForkProof::new(a, b).unwrap();
    let fields = json!({"log": hex(proof.log().0), "seq": proof.seq()});
    cases.add("fork proof", CBOR, "proof", &proof.encode(), fields);
    cases.0
}

/// Replaces bytes at a place.
fn with(bytes: &[u8], place: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.splice(place..=place, new.iter().copied());
    bytes
}

fn refused() -> Vec<Value> {
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
    let mut padded = encode_frame(&[], Padding::Padme);
    padded[63] = 1;
    let mut many = Encoder::append_to(vec![0]);
    many.array(1_025).raw(&[0; 1_025]);
    for (name, bytes) in [
        ("frame: empty", vec![]),
        ("frame: unknown encoding", with(&grant, 0, &[1])),
        ("frame: unknown op", vec![0, 0x81, 0x81, 0x18, 31]),
        ("frame: unknown role", with(&grant, 73, &[5])),
        ("frame: unknown scope", with(&grant, 75, &[1])),
        ("frame: grant of eight fields", with(&grant, 2, &[0x88])),
        ("frame: padding that is not zero", padded),
        (
            "frame: padding of another class",
            [&grant[..], &[0, 0]].concat(),
        ),
        (
            "frame: parents out of order",
            parents(vec![EpochId([2; 32]), EpochId([1; 32])]),
        ),
        (
            "frame: a parent twice",
            parents(vec![EpochId([1; 32]), EpochId([1; 32])]),
        ),
        ("frame: too many ops", many.into_vec()),
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
            "message: claims 2^63 tags",
            vec![0x82, 1, 0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("message: trailing byte", vec![0x83, 12, 0, 0, 0]),
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
    cases.0
}

fn check(file: &str, committed: &str, cases: &[Value]) {
    let text = json!({"cases": cases});
    let text = serde_json::to_string_pretty(&text).unwrap() + "\n";
    if std::env::var_os("LENO_WRITE_VECTORS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/");
        std::fs::write(format!("{path}{file}"), &text).unwrap();
        return;
    }
    assert!(
        text == committed,
        "{file} differs from what this version makes"
    );
}

#[test]
fn accepted_bytes_keep_their_meaning() {
    let cases = accepted();
    assert!(cases.len() >= 40, "{}", cases.len());
    check(
        "accepted.json",
        include_str!("../vectors/accepted.json"),
        &cases,
    );
    for case in &cases {
        let bytes = unhex(case["hex"].as_str().unwrap());
        assert_eq!(read(case).as_ref(), Ok(&bytes), "{}", case["name"]);
        if case["codec"] == CBOR {
            let mut decoder = Decoder::new(&bytes);
            decoder.ipld().unwrap();
            decoder.finish().unwrap();
        }
    }
}

#[test]
fn refused_bytes_stay_refused() {
    let cases = refused();
    assert!(cases.len() >= 40, "{}", cases.len());
    check(
        "refused.json",
        include_str!("../vectors/refused.json"),
        &cases,
    );
    for case in &cases {
        let error = read(case).unwrap_err();
        assert_eq!(json!(error), case["error"], "{}", case["name"]);
    }
}

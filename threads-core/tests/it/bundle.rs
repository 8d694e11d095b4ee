//! Bundles: peers that never meet, by bytes that may be cut, mixed up, damaged or lost.

use std::collections::BTreeSet;

use leno_crdt_codec::cbor::Decoder;
use leno_identity::{AgreementKey, SigningKey};
use leno_threads_core::sync::bundle::{
    BundleError, Export, ExportOptions, Imported, NotTaken, PART_BYTES_MIN, Part, Vector, parts,
};
use leno_threads_core::thread::{Opened, ReceiveError, Seat, ThreadEvent};
use leno_threads_core::{Role, ServiceKey, ThreadId};
use serde_json::{Value, json};

use crate::util::{Peer, backup, hex, new_seat, rng, rows, sync, unhex};

impl Peer {
    fn parts(&mut self, id: ThreadId, options: ExportOptions) -> Vec<Vec<u8>> {
        self.step(|replica, view, rng, _| {
            let thread = replica.thread(&id).unwrap();
            let mut export = Export::new(thread, options, rng).unwrap();
            let next = || export.next_part(thread, view, rng).unwrap();
            std::iter::from_fn(next).collect()
        })
    }

    fn export(&mut self, id: ThreadId, since: &Vector) -> Vec<u8> {
        let since = since.clone();
        let options = ExportOptions {
            since,
            ..ExportOptions::default()
        };
        self.parts(id, options).concat()
    }

    fn import(&mut self, bytes: &[u8]) -> Result<Imported, BundleError> {
        let now = self.time();
        let mut opened = Vec::new();
        let result = self.step(|replica, view, rng, changes| {
            let mut sink = |id: ThreadId, it: &Opened<'_>| {
                let text = Decoder::new(&it.plaintext[1..]).text().unwrap().to_owned();
                opened.push((id, (it.record.log, it.record.seq, text)));
            };
            replica.import(view, bytes, now, rng, changes, &mut sink)
        });
        for (id, read) in opened {
            self.read.entry(id).or_default().push(read);
        }
        result
    }

    fn texts(&self, id: ThreadId) -> Vec<String> {
        self.reads(id).into_iter().map(|(.., text)| text).collect()
    }
}

/// Alice's thread with some records, and Bob, who has a ticket and nothing else.
fn alice_and_bob(role: Role) -> (Peer, Peer, ThreadId) {
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    let id = alice.create();
    alice.seat(&mut bob, id, role);
    alice.write_many(id, ["one", "two"]);
    alice.write(id, "three");
    (alice, bob, id)
}

fn all() -> Vector {
    Vector::default()
}

#[test]
fn peers_that_never_meet_level_by_files_both_ways() {
    let (mut alice, mut bob, id) = alice_and_bob(Role::Writer);
    let file = alice.export(id, &all());
    let it = bob.import(&file).unwrap();
    assert!(
        it.is_complete && !it.is_cut && it.refused.is_empty(),
        "{it:?}"
    );
    assert_eq!(it.from, alice.thread(id).seat().id());
    assert_eq!(bob.texts(id).len(), 3);

    bob.write(id, "four");
    let back = bob.export(id, it.has.as_ref().unwrap());
    assert!(back.len() < file.len(), "{} {}", back.len(), file.len());
    let it = alice.import(&back).unwrap();
    assert!(it.is_complete && it.refused.is_empty(), "{it:?}");
    // The opening of Bob's log, and his record: nothing that Alice had.
    assert_eq!((it.stored, it.admitted), (2, 2));
    assert_eq!(alice.state(id), bob.state(id));
    let view = alice.store.view().unwrap();
    assert_eq!(
        alice.replica.outbox(&*view, &id).unwrap(),
        0,
        "Bob showed that he keeps it"
    );
    drop(view);

    // Level already: all that there is to say is what is here.
    let empty = alice.export(id, &Vector::of(bob.thread(id)));
    assert!(empty.len() < 600, "{}", empty.len());
    assert_eq!(bob.import(&empty).unwrap().stored, 0);
    assert_eq!((alice.errors.len(), bob.errors.len()), (0, 0));
    sync(&mut alice, &mut bob);
    assert_eq!(alice.state(id), bob.state(id));
}

use leno_threads_core::store::Store as _;

#[test]
fn second_import_changes_nothing() {
    let (mut alice, mut bob, id) = alice_and_bob(Role::Reader);
    let file = alice.export(id, &all());
    bob.import(&file).unwrap();
    let (before, events) = (rows(&bob.store), bob.events.len());
    let again = bob.import(&file).unwrap();
    assert!(again.is_complete && again.refused.is_empty());
    assert_eq!((again.stored, again.admitted), (0, 0));
    bob.restart();
    let again = bob.import(&file).unwrap();
    assert_eq!((again.stored, again.refused.len()), (0, 0));
    // Another bundle of the same.
    let other = alice.export(id, &all());
    assert_ne!(other, file);
    assert_eq!(bob.import(&other).unwrap().stored, 0);
    assert_eq!((rows(&bob.store), bob.events.len()), (before, events));
}

#[test]
fn cut_file_gives_what_is_whole_and_goes_on() {
    let (mut alice, _, id) = alice_and_bob(Role::Reader);
    let texts: Vec<_> = (0..60).map(|it| format!("song {it}")).collect();
    for text in &texts {
        alice.write(id, text);
    }
    let seat = new_seat(&mut alice.rng);
    let (seat_id, kem) = (seat.id(), seat.kem.public_key().to_bytes());
    let service = alice.grant(id, seat_id, kem, Role::Reader);
    let options = ExportOptions {
        part_bytes_max: 1_000,
        ..ExportOptions::default()
    };
    let file = alice.parts(id, options).concat();
    let mut counts = BTreeSet::new();
    let secret = seat.signing.to_secret_bytes();
    let kem = seat.kem.to_secret_bytes();
    for cut in (0..file.len()).step_by(97) {
        let mut carol = Peer::new(9);
        let seat = leno_threads_core::thread::Seat {
            signing: leno_identity::SigningKey::from_secret_bytes(&secret).unwrap(),
            kem: leno_identity::AgreementKey::from_secret_bytes(&kem).unwrap(),
        };
        let service = service.clone();
        carol.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
        let whole = file.len() - file[cut..].len();
        match carol.import(&file[..cut]) {
            Ok(it) => {
                assert!(!it.is_complete && it.refused.is_empty());
                let borders: usize = parts(&file[..cut])
                    .filter(|part| Part::decode(part).is_ok())
                    .map(<[u8]>::len)
                    .sum();
                assert_eq!(it.is_cut, borders != whole);
            }
            Err(BundleError::Malformed(_)) => assert!(cut < 1_000, "not even a part: {cut}"),
            Err(error) => panic!("{error}"),
        }
        counts.insert(carol.texts(id).len());
        // From the same file, whether or not the device restarted.
        if cut % 2 == 0 {
            carol.restart();
        }
        let it = carol.import(&file).unwrap();
        assert!(it.is_complete && it.refused.is_empty(), "{cut}: {it:?}");
        assert_eq!(carol.texts(id).len(), 63);
    }
    assert!(counts.contains(&0) && counts.len() > 1, "{counts:?}");
}

#[test]
fn parts_come_in_any_order_and_more_than_once() {
    let (mut alice, _, id) = alice_and_bob(Role::Reader);
    for number in 0..20 {
        alice.write(id, &format!("song {number}"));
    }
    for seed in 0..24_usize {
        let mut bob = Peer::new(2);
        alice.seat(&mut bob, id, Role::Reader);
        let options = ExportOptions {
            part_bytes_max: PART_BYTES_MIN + 97 * seed,
            ..ExportOptions::default()
        };
        let parts = alice.parts(id, options.clone());
        assert!(parts.iter().all(|it| it.len() <= options.part_bytes_max));
        // Steps that share no divisor with the number of parts meet each once.
        let count = parts.len();
        let stride = (seed * 7 + 3..).find(|it| gcd(*it, count) == 1).unwrap();
        let mut came = BTreeSet::new();
        for step in 0..count {
            let at = (seed + step * stride) % count;
            let it = bob.import(&parts[at]).unwrap();
            came.insert(u32::try_from(at).unwrap());
            let missing = (0..).find(|it| !came.contains(it)).unwrap();
            assert_eq!(it.is_complete, came.len() == count);
            assert_eq!(it.missing, (!it.is_complete).then_some(missing));
            assert!(it.refused.is_empty(), "{it:?}");
            let again = bob.import(&parts[at]).unwrap();
            assert_eq!((again.stored, again.missing), (0, it.missing));
        }
        assert_eq!(bob.texts(id).len(), 23);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn too_much_that_waits_is_refused_until_the_missing_part_comes() {
    let (mut alice, mut bob, id) = alice_and_bob(Role::Reader);
    let long = "x".repeat(440 << 10);
    for _ in 0..22 {
        alice.write(id, &long);
    }
    let parts = alice.parts(id, ExportOptions::default());
    let mut refused = 0;
    for part in parts.iter().rev() {
        match bob.import(part) {
            Ok(_) => {}
            Err(BundleError::TooMuchWaits { missing: 0 }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 5, "{refused}");
    assert!(!bob.import(&parts[0]).unwrap().is_complete);
    for part in &parts {
        bob.import(part).unwrap();
    }
    assert_eq!(bob.texts(id).len(), 25);
}

#[test]
fn damaged_file_is_refused_and_changes_nothing() {
    let (mut alice, mut bob, id) = alice_and_bob(Role::Reader);
    let file = alice.export(id, &all());
    let before = rows(&bob.store);
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        let refused = bob.import(&damaged);
        assert!(refused.is_err(), "{at}: {refused:?}");
    }
    let malformed = |it| matches!(it, Err(BundleError::Malformed(_)));
    assert!(malformed(bob.import(b"")));
    assert!(malformed(bob.import(b"leno-bundle")));
    let other = alice.export(id, &all());
    let mixed = [&other[..], &file[..]].concat();
    let mut carol = Peer::new(3);
    assert!(matches!(
        carol.import(&file),
        Err(BundleError::NoSuchThread)
    ));
    assert_eq!(rows(&bob.store), before);
    assert!(matches!(bob.import(&mixed), Err(BundleError::Mixed)));
    assert!(bob.import(&file).unwrap().is_complete);
}

#[test]
fn bundle_shows_strangers_nothing() {
    let (mut alice, _, id) = alice_and_bob(Role::Reader);
    let files = [alice.export(id, &all()), alice.export(id, &all())];
    let thread = alice.thread(id);
    let secrets: [&[u8]; 5] = [
        &id.0,
        &thread.seat().id().0,
        &thread.own_log().unwrap().0,
        thread.service_key().expose(),
        b"three",
    ];
    for file in &files {
        for secret in secrets {
            assert!(!file.windows(secret.len()).any(|it| it == secret));
        }
    }
    let part = |at: usize| Part::decode(parts(&files[at]).next().unwrap()).unwrap();
    assert_ne!(part(0).bundle, part(1).bundle);
    assert_ne!(
        part(0).tag,
        part(1).tag,
        "two bundles of one thread are not told to be so"
    );
}

#[test]
fn bundle_for_one_seat_opens_for_nobody_else() {
    let (mut alice, mut bob, id) = alice_and_bob(Role::Reader);
    let mut carol = Peer::new(3);
    let carols = alice.seat(&mut carol, id, Role::Reader);
    let options = ExportOptions {
        to: Some(carols),
        ..ExportOptions::default()
    };
    let file = alice.parts(id, options).concat();
    let before = rows(&bob.store);
    assert!(matches!(bob.import(&file), Err(BundleError::DoesNotOpen)));
    assert_eq!(rows(&bob.store), before);
    assert!(matches!(alice.import(&file), Err(BundleError::DoesNotOpen)));
    assert!(carol.import(&file).unwrap().is_complete);
    assert_eq!(carol.texts(id).len(), 3);
    // Also for a thread that is here, and not only for one that is joined by it.
    let options = ExportOptions {
        to: Some(carols),
        ..ExportOptions::default()
    };
    alice.write(id, "four");
    let file = alice.parts(id, options).concat();
    assert_eq!(carol.import(&file).unwrap().stored, 1);
}

#[test]
fn options_that_are_not_possible_are_refused() {
    let (mut alice, _, id) = alice_and_bob(Role::Reader);
    let nobody = new_seat(&mut alice.rng).id();
    alice.step(|replica, _, rng, _| {
        let thread = replica.thread(&id).unwrap();
        for bytes in [0, PART_BYTES_MIN - 1, (1 << 20) + 1] {
            let options = ExportOptions {
                part_bytes_max: bytes,
                ..ExportOptions::default()
            };
            let refused = Export::new(thread, options, rng).err();
            assert!(matches!(refused, Some(BundleError::PartBytes { bytes: it }) if it == bytes));
        }
        let options = ExportOptions {
            to: Some(nobody),
            ..ExportOptions::default()
        };
        let refused = Export::new(thread, options, rng).err();
        assert!(matches!(refused, Some(BundleError::NoRecipient { seat }) if seat == nobody));
    });
}

#[test]
fn replicator_carries_a_thread_by_bundles_and_reads_nothing() {
    let (mut alice, mut rex, id) = alice_and_bob(Role::Replicator);
    let mut bob = Peer::new(3);
    alice.seat(&mut bob, id, Role::Writer);
    let it = rex.import(&alice.export(id, &all())).unwrap();
    assert!(it.is_complete && it.refused.is_empty());
    assert_eq!(rex.texts(id), Vec::<String>::new());
    let it = bob.import(&rex.export(id, &all())).unwrap();
    assert!(it.is_complete && it.refused.is_empty(), "{it:?}");
    assert_eq!(bob.texts(id).len(), 3);
}

#[test]
fn restored_device_learns_from_a_bundle_that_it_is_one() {
    let (mut alice, mut bob, id) = alice_and_bob(Role::Reader);
    let old = backup(&alice.store);
    alice.write(id, "four");
    bob.import(&alice.export(id, &all())).unwrap();
    alice.store = old;
    alice.restart();
    let it = alice.import(&bob.export(id, &all())).unwrap();
    assert_eq!((it.stored, it.refused.len()), (1, 0));
    let ahead = |it: &ThreadEvent| matches!(it, ThreadEvent::OwnLogAhead { .. });
    assert!(alice.events.iter().any(ahead));
    assert_eq!(alice.write(id, "five").seq, 1, "in a new log");
}

#[test]
fn other_branch_is_refused_and_named() {
    let (mut alice, mut bob, id) = alice_and_bob(Role::Reader);
    let mut carol = Peer::new(3);
    alice.seat(&mut carol, id, Role::Reader);
    let twin = backup(&alice.store);
    let log = alice.write(id, "four").log;
    bob.import(&alice.export(id, &all())).unwrap();
    alice.store = twin;
    alice.restart();
    alice.write_many(id, ["fourth", "fifth"]);
    let it = bob
        .import(&alice.export(id, &Vector::of(bob.thread(id))))
        .unwrap();
    let refused = |it: &NotTaken| matches!(it, NotTaken::Range(ReceiveError::Refused { log: it, .. }) if *it == log);
    assert!(
        it.refused.len() == 1 && it.refused.iter().all(refused),
        "{it:?}"
    );
    assert_eq!(bob.texts(id).len(), 4);
    // Of the same length: only the hash shows it.
    carol.import(&bob.export(id, &all())).unwrap();
    let mut twin = Peer::new(1);
    twin.store = backup(&alice.store);
    twin.restart();
    alice.write(id, "sixth");
    twin.write(id, "6th");
    carol = Peer::new(4);
    alice.seat(&mut carol, id, Role::Reader);
    carol.import(&alice.export(id, &all())).unwrap();
    let it = carol.import(&twin.export(id, &all())).unwrap();
    assert_eq!(it.differing, [log], "{it:?}");
    sync(&mut carol, &mut twin);
    assert_eq!(carol.forks, 1, "a session brings the proof");
}

const VECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/bundle.json");

/// A bundle of a thread, sealed to one seat, and what it takes to read it.
fn write_vector() -> Value {
    let (mut alice, _, id) = alice_and_bob(Role::Reader);
    let seat = new_seat(&mut rng(5));
    let kem = seat.kem.public_key().to_bytes();
    let service = alice.grant(id, seat.id(), kem, Role::Reader);
    let options = ExportOptions {
        to: Some(seat.id()),
        ..ExportOptions::default()
    };
    json!({
        "thread": hex(id.0), "service_key": hex(service.expose()),
        "seat": hex(*seat.signing.to_secret_bytes()), "kem": hex(*seat.kem.to_secret_bytes()),
        "hex": hex(alice.parts(id, options).concat()), "texts": alice.texts(id),
    })
}

#[test]
fn vector_reads_as_it_says() {
    if std::env::var_os("LENO_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&write_vector()).unwrap();
        std::fs::write(VECTOR, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(VECTOR).unwrap();
    let vector: Value = serde_json::from_str(&text).unwrap();
    let key =
        |field: &str| -> [u8; 32] { unhex(vector[field].as_str().unwrap()).try_into().unwrap() };
    let (id, service) = (
        ThreadId(key("thread")),
        ServiceKey::from_bytes(key("service_key")),
    );
    let seat = Seat {
        signing: SigningKey::from_secret_bytes(&key("seat")).unwrap(),
        kem: AgreementKey::from_secret_bytes(&key("kem")).unwrap(),
    };
    let mut bob = Peer::new(2);
    bob.step(|replica, _, _, changes| replica.join(id, service, seat, changes));
    let imported = bob.import(&unhex(vector["hex"].as_str().unwrap())).unwrap();
    assert!(imported.is_complete, "{imported:?}");
    assert_eq!(json!(bob.texts(id)), vector["texts"]);
}

//! The frozen vectors of the format, read by an implementation that is not ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use leno_crdt_codec::cbor::{decode_ipld, encode_ipld, Decoder};
use leno_interop_libipld::{from_libipld, to_libipld};
use libipld::cbor::DagCborCodec;
use libipld::codec::Codec;
use serde_json::Value;

/// Folders of vectors, from the root of the repository. Every JSON file in them is a [`Source`].
const FOLDERS: [&str; 3] = [
    "threads-core/tests/vectors",
    "crdt-codec/tests/vectors",
    "identity/tests/vectors",
];

/// A list of vectors, or one alone: where it stands, and which of its cases are dag-cbor that must be accepted.
struct Source {
    file: &'static str,
    /// The key of the list, none if the file is the list.
    list: Option<&'static str>,
    /// The field with the bytes in hexadecimal.
    bytes: &'static str,
    /// Tells of each case what its bytes are.
    form: fn(&Value) -> Form,
    /// The fewest cases that must reach libipld. Vectors are added, never taken away.
    at_least: usize,
}

enum Form {
    /// One dag-cbor item.
    Item,
    /// A byte that names the encoding, a dag-cbor item, and zeros.
    Plaintext,
    /// For other tests: bytes to refuse, and bytes of profiles that do not bind dag-cbor.
    Other,
}

const SOURCES: [Source; 14] = [
    Source {
        file: "threads-core/tests/vectors/accepted.json",
        list: Some("cases"),
        bytes: "hex",
        form: |case| match case["codec"].as_str() {
            Some("dag-cbor") => Form::Item,
            Some("leno-plaintext") => Form::Plaintext,
            _ => Form::Other,
        },
        at_least: 60,
    },
    // Well-formed or not: the format refuses them, and libipld does not know it.
    none("threads-core/tests/vectors/refused.json", Some("cases")),
    // What travels sealed: a bundle's bytes are parts one after the other, and a signal is a message, whose
    // form `accepted.json` has.
    none("threads-core/tests/vectors/bundle.json", None),
    none("threads-core/tests/vectors/signal.json", None),
    opened("threads-core/tests/vectors/segments.json", "heads"),
    opened("threads-core/tests/vectors/segments.json", "segment"),
    all("crdt-codec/tests/vectors/format-v1.json", Some("ops"), 9),
    all("crdt-codec/tests/vectors/format-v1.json", Some("states"), 6),
    all(
        "crdt-codec/tests/vectors/format-v1.json",
        Some("definitions"),
        2,
    ),
    all("crdt-codec/tests/vectors/ipld-dag-cbor.json", None, 62),
    all(
        "crdt-codec/tests/vectors/ipld-dag-cbor-garbage.json",
        None,
        11,
    ),
    none("crdt-codec/tests/vectors/ipld-negative.json", None),
    Source {
        file: "crdt-codec/tests/vectors/dasl-cbor.json",
        list: None,
        bytes: "data",
        form: |case| {
            let tags = case["tags"].as_array();
            let binds = |tag: &Value| tag == "basic" || tag == "dag-cbor";
            match case["type"].as_str() {
                Some("roundtrip") if tags.is_some_and(|it| it.iter().any(binds)) => Form::Item,
                _ => Form::Other,
            }
        },
        at_least: 10,
    },
    Source {
        file: "identity/tests/vectors/certificate.json",
        list: Some("cases"),
        bytes: "certificate",
        form: |_| Form::Item,
        at_least: 2,
    },
];

const fn all(file: &'static str, list: Option<&'static str>, at_least: usize) -> Source {
    Source {
        file,
        list,
        bytes: "hex",
        form: |_| Form::Item,
        at_least,
    }
}

/// A vector of something sealed, with what it opens to.
const fn opened(file: &'static str, key: &'static str) -> Source {
    Source {
        file,
        list: Some(key),
        bytes: "plain",
        form: |_| Form::Item,
        at_least: 1,
    }
}

const fn none(file: &'static str, list: Option<&'static str>) -> Source {
    Source {
        file,
        list,
        bytes: "hex",
        form: |_| Form::Other,
        at_least: 0,
    }
}

struct Case {
    name: String,
    bytes: Vec<u8>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn accepted_cases(source: &Source) -> Vec<Case> {
    let file = source.file;
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|it| panic!("{file}: {it}"));
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|it| panic!("{file}: {it}"));
    let list = source.list.map_or(&json, |key| &json[key]);
    let one = std::slice::from_ref(list);
    let list = match list {
        Value::Array(list) => list,
        Value::Object(_) => one,
        _ => panic!("{file}: no list {:?}", source.list),
    };
    assert!(!list.is_empty(), "{file}: {:?} is empty", source.list);
    let mut cases = Vec::new();
    for case in list {
        let name = format!("{file}: {}", case["name"]);
        let read = || {
            let hex = case[source.bytes]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: `{}` is no text", source.bytes));
            hex::decode(hex).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let bytes = match (source.form)(case) {
            Form::Item => read(),
            Form::Plaintext => item_of(&name, &read()),
            Form::Other => continue,
        };
        cases.push(Case { name, bytes });
    }
    cases
}

/// The item within a plaintext. How long it is only the decoder under test can tell; that libipld
/// reads the same from it shows that it ends there.
fn item_of(name: &str, plaintext: &[u8]) -> Vec<u8> {
    let (encoding, rest) = plaintext.split_first().expect("a plaintext is not empty");
    assert_eq!(*encoding, 0, "{name}");
    let item = Decoder::new(rest)
        .skip()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let padding = &rest[item.len()..];
    assert!(padding.iter().all(|byte| *byte == 0), "{name}");
    item.to_vec()
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect()
}

/// A file that nobody listed would be left out without a word.
#[test]
fn every_file_of_vectors_is_a_source() {
    let listed: BTreeSet<_> = SOURCES.iter().map(|it| root().join(it.file)).collect();
    let folders = FOLDERS.iter().map(|folder| root().join(folder));
    let found: BTreeSet<_> = folders.flat_map(|folder| json_files(&folder)).collect();
    assert_eq!(listed, found);
}

#[test]
fn reference_reads_and_rewrites_every_accepted_vector() {
    for source in &SOURCES {
        let cases = accepted_cases(source);
        let (file, list, count) = (source.file, source.list, cases.len());
        println!("{file}, {list:?}: {count}");
        assert!(count >= source.at_least, "{file}, {list:?}: only {count}");
        for Case { name, bytes } in &cases {
            let reference: libipld::Ipld = DagCborCodec
                .decode(bytes)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let rewritten = DagCborCodec
                .encode(&reference)
                .expect("libipld encodes any value");
            assert_eq!(
                &rewritten, bytes,
                "{name}: the reference writes other bytes"
            );

            let ours = decode_ipld(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(from_libipld(&reference), ours, "{name}");
            assert_eq!(to_libipld(&ours), reference, "{name}");
            assert_eq!(&encode_ipld(&ours), bytes, "{name}");
        }
    }
}

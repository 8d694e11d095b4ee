//! The frozen vectors of the format, read by an implementation that is not ours.

use std::fs;
use std::path::{Path, PathBuf};

use leno_crdt_codec::cbor::{decode_ipld, encode_ipld};
use leno_interop_libipld::{from_libipld, to_libipld};
use libipld::cbor::DagCborCodec;
use libipld::codec::Codec;
use serde_json::Value;

/// The file that must be there, and must hold at least one case.
const REQUIRED: &str = "threads-core/tests/vectors/accepted.json";

/// Folders of vectors, from the root of the repository.
const FOLDERS: [&str; 2] = ["threads-core/tests/vectors", "crdt-codec/tests/vectors"];

struct Case {
    name: String,
    bytes: Vec<u8>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cases of a file that are whole dag-cbor items and are accepted by the format.
///
/// A file is `{"cases": [{"name": …, "codec": "dag-cbor", "hex": …}]}`. Cases of another codec, and
/// those with an `error` (they must be refused), belong to other tests.
fn accepted_cases(file: &Path) -> Vec<Case> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let json: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let cases = json["cases"].as_array().cloned().unwrap_or_default();
    cases
        .iter()
        .filter(|case| case["codec"] == "dag-cbor" && case["error"].is_null())
        .map(|case| {
            let name = format!("{}: {}", file.display(), case["name"]);
            let hex = case["hex"]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: `hex` is no text"));
            let bytes = hex::decode(hex).unwrap_or_else(|error| panic!("{name}: {error}"));
            Case { name, bytes }
        })
        .collect()
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    files.sort();
    files
}

#[test]
fn reference_reads_and_rewrites_every_accepted_vector() {
    let required = accepted_cases(&root().join(REQUIRED));
    assert!(!required.is_empty(), "{REQUIRED} has no dag-cbor case");

    let files = FOLDERS
        .iter()
        .flat_map(|folder| json_files(&root().join(folder)));
    let cases: Vec<_> = files.flat_map(|file| accepted_cases(&file)).collect();
    assert!(
        cases.len() >= required.len(),
        "the required file is one of those in the folders"
    );

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
    println!("{} vectors agree", cases.len());
}

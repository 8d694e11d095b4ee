//! Every label serves one purpose, looked up in the sources of the whole workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use leno_identity::Label;

/// Labels for what is not made yet.
const RESERVED: [Label; 2] = [Label::CONTROL_OPENING, Label::RECOVERY_COMMITMENT];

/// How a label is used at a place.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Use {
    /// Hashed: a commitment, a name or a key.
    Hash,
    /// Made into a message, for a MAC, a key derivation or a signature.
    Message,
    /// Handed on: to sign and to verify with, or to derive a key.
    Argument,
}

/// What stands in a source before its tests, without comments.
fn code(source: &str) -> String {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.starts_with("//")).collect();
    lines.concat()
}

fn find(folder: &Path, found: &mut BTreeMap<String, Vec<(Use, String)>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        }
        if path.extension().is_none_or(|it| it != "rs") || path.ends_with("labels.rs") {
            continue;
        }
        let code = code(&fs::read_to_string(&path).unwrap());
        for (at, _) in code.match_indices("Label::") {
            let rest = &code[at + "Label::".len()..];
            let end = rest.find(|it: char| !(it.is_ascii_uppercase() || it == '_'));
            let (name, rest) = rest.split_at(end.unwrap());
            let how = if rest.starts_with(".hash(") {
                Use::Hash
            } else if rest.starts_with(".message(") {
                Use::Message
            } else {
                Use::Argument
            };
            let file = path.display().to_string();
            found.entry(name.to_owned()).or_default().push((how, file));
        }
    }
}

#[test]
fn every_label_serves_one_purpose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let registry = fs::read_to_string(root.join("identity/src/labels.rs")).unwrap();
    let mut uses = BTreeMap::new();
    let folders = [
        "src",
        "identity/src",
        "threads-core/src",
        "threads-db/src",
        "adapters/transport-ws/src",
    ];
    for folder in folders {
        find(&root.join(folder), &mut uses);
    }
    for label in Label::ALL {
        let purpose = label.as_str().strip_prefix("leno/v1/").unwrap();
        let line = registry
            .lines()
            .find(|line| line.ends_with(&format!("\"{purpose}\";")));
        let name = line.unwrap().trim().split(' ').next().unwrap();
        let of_label = uses.remove(name).unwrap_or_default();
        if RESERVED.contains(label) || *label == Label::STATE_HASH {
            assert_eq!(of_label, [], "{name} is reserved");
            continue;
        }
        let kinds: BTreeSet<Use> = of_label.iter().map(|(how, _)| *how).collect();
        let files: BTreeSet<&String> = of_label.iter().map(|(_, file)| file).collect();
        // Who signs and who verifies stand side by side; what is made is made in one place.
        assert_eq!((kinds.len(), files.len()), (1, 1), "{name}: {of_label:?}");
        if !kinds.contains(&Use::Argument) {
            assert_eq!(of_label.len(), 1, "{name}: {of_label:?}");
        }
    }
    assert!(uses.is_empty(), "{uses:?}");
}

/// The codec's crate keeps its label itself: it imports nothing.
#[test]
fn codec_uses_the_label_of_the_registry() {
    let label = Label::STATE_HASH.message(&[]);
    assert_eq!(leno_crdt_codec::STATE_HASH_LABEL, label);
}

//! Our ids, digests and key tags are those of the multiformats tables.

use leno_identity::{KeyKind, SignatureKind};
use leno_threads_core::{BodyDigest, RecordId};
use multibase::Base;

use crate::util::unhex;

const MULTIHASHES: &str = include_str!("../vectors/multiformats/multihash-sha2-256.csv");
const MULTICODECS: &str = include_str!("../vectors/multiformats/multicodec-used.csv");
const MULTIBASES: [(&str, &[u8]); 2] = [
    (
        include_str!("../vectors/multiformats/multibase-basic.csv"),
        b"yes mani !",
    ),
    (
        include_str!("../vectors/multiformats/multibase-two_leading_zeros.csv"),
        b"\0\0yes mani !",
    ),
];

fn code(name: &str) -> u64 {
    let row = MULTICODECS
        .lines()
        .find(|line| line.split(',').next() == Some(name));
    let code = row.and_then(|row| row.split(',').nth(2)).unwrap().trim();
    u64::from_str_radix(code.trim_start_matches("0x"), 16).unwrap()
}

#[test]
fn digests_of_bodies_are_sha2_256_multihashes() {
    let rows: Vec<_> = MULTIHASHES.lines().skip(1).collect();
    assert_eq!(rows.len(), 10);
    for row in rows {
        let fields: Vec<_> = row.split(',').collect();
        // The input is the text itself.
        let digest = BodyDigest::of(fields[2].as_bytes());
        assert_eq!(digest.to_multihash().to_bytes(), unhex(fields[3]), "{row}");
    }
}

#[test]
fn ids_are_cids_of_the_codes_in_the_table() {
    let cid = RecordId::of(b"a header").to_cid();
    assert_eq!(u64::from(cid.version()), code("cidv1"));
    assert_eq!(cid.codec(), code("dag-cbor"));
    assert_eq!(cid.hash().code(), code("sha2-256"));
}

#[test]
fn keys_and_signatures_are_tagged_by_the_codes_in_the_table() {
    let keys = [
        (KeyKind::Ed25519, "ed25519-pub"),
        (KeyKind::X25519, "x25519-pub"),
        (KeyKind::Secp256k1, "secp256k1-pub"),
        (KeyKind::P256, "p256-pub"),
    ];
    for (kind, name) in keys {
        assert_eq!(kind.code(), code(name), "{name}");
    }
    let signatures = [
        (SignatureKind::Ed25519, "eddsa"),
        (SignatureKind::Eip191, "eip-191"),
        (SignatureKind::P256, "es256"),
    ];
    for (kind, name) in signatures {
        assert_eq!(kind.code(), code(name), "{name}");
    }
}

/// The bases of `did:key` (base58btc) and of ids and tickets (base32), both ways.
#[test]
fn texts_are_in_the_bases_of_the_table() {
    let mut seen = 0;
    for (rows, bytes) in MULTIBASES {
        for row in rows.lines().skip(1) {
            let (name, text) = row.split_once(", ").unwrap();
            let text = text.trim_matches('"');
            let base = match name {
                "base58btc" => Base::Base58Btc,
                "base32" => Base::Base32Lower,
                "base16" => Base::Base16Lower,
                _ => continue,
            };
            assert_eq!(multibase::encode(base, bytes), text, "{name}");
            assert_eq!(multibase::decode(text).unwrap(), (base, bytes.to_vec()));
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
}

use leno_identity::{
    AgreementKey, DID_BYTES_MAX, Did, DidError, KeyError, KeyKind, PublicKey, SigningKey,
};
use serde_json::Value;

use crate::support::{text, unbase64url, unhex, vectors};

/// Parses a DID of the vectors, and checks that it is shown as it was written.
fn parse(did: &str) -> PublicKey {
    let parsed: Did = did.parse().unwrap_or_else(|it| panic!("{did}: {it:?}"));
    assert_eq!(parsed.to_string(), did);
    parsed.public_key()
}

fn base58(text: &str) -> Vec<u8> {
    bs58::decode(text).into_vec().unwrap()
}

/// The key of a verification method, compressed, without a tag.
fn raw(method: &Value) -> Vec<u8> {
    if let Some(text) = method["publicKeyBase58"].as_str() {
        return base58(text);
    }
    let jwk = &method["publicKeyJwk"];
    let x = unbase64url(text(jwk, "x"));
    match jwk["y"].as_str().map(unbase64url) {
        None => x,
        Some(y) => [&[2 + (y.last().unwrap() & 1)][..], &x].concat(),
    }
}

#[test]
fn ed25519_vectors_match() {
    let file = vectors("did-key/ed25519-x25519.json");
    let mut seeds = 0;
    for (did, case) in file.as_object().unwrap() {
        let key = parse(did);
        assert_eq!(key.kind(), KeyKind::Ed25519);
        assert_eq!(key.as_raw(), raw(&case["verificationKeyPair"]), "{did}");
        let seed: [u8; 32] = unhex(text(case, "seed")).try_into().unwrap();
        match SigningKey::from_secret_bytes(&seed) {
            Ok(signing) => assert_eq!(PublicKey::from(signing.verifying_key()), key),
            // One vector has the seed that no generator gives; its key is a good key all the same.
            Err(error) => assert_eq!((error, seed), (KeyError::ZeroSecret, [0; 32])),
        }

        let pair = &case["keyAgreementKeyPair"];
        let secret = match pair["privateKeyBase58"].as_str() {
            Some(text) => base58(text),
            None => unbase64url(text(&pair["privateKeyJwk"], "d")),
        };
        let agreement = AgreementKey::from_secret_bytes(secret.as_slice().try_into().unwrap());
        let public = PublicKey::from(agreement.unwrap().public_key());
        assert_eq!(public.as_raw(), raw(pair));
        let id = text(pair, "id").rsplit('#').next().unwrap();
        assert_eq!(parse(&format!("did:key:{id}")), public);
        seeds += 1;
    }
    assert_eq!(seeds, 3);
}

#[test]
fn x25519_vectors_match() {
    let file = vectors("did-key/x25519.json");
    let documents = file["didDocument"].as_object().unwrap();
    for (did, document) in documents {
        let key = parse(did);
        assert_eq!(key.kind(), KeyKind::X25519);
        assert_eq!(
            key.as_raw(),
            raw(&document["verificationMethod"][0]),
            "{did}"
        );
    }
    assert_eq!(documents.len(), 4);
}

#[test]
fn secp256k1_vectors_match() {
    let file = vectors("did-key/secp256k1.json");
    for (did, case) in file.as_object().unwrap() {
        let key = parse(did);
        assert_eq!(key.kind(), KeyKind::Secp256k1);
        assert_eq!(key.as_raw(), raw(&case["verificationKeyPair"]), "{did}");
    }
    assert_eq!(file.as_object().unwrap().len(), 3);
}

#[test]
fn nist_vectors_match_where_the_curve_is_known() {
    let file = vectors("did-key/nist-curves.json");
    let mut known = 0;
    for (did, case) in file.as_object().unwrap() {
        if did.starts_with("did:key:zDn") {
            let key = parse(did);
            assert_eq!(key.kind(), KeyKind::P256);
            assert_eq!(key.as_raw(), raw(&case["verificationMethod"]), "{did}");
            known += 1;
        } else {
            // P-384 and P-521 are longer than any key that is known.
            let had = did.len();
            assert_eq!(did.parse::<Did>(), Err(DidError::TooLong { had }));
        }
    }
    assert_eq!(known, 2);
}

#[test]
fn other_text_is_refused() {
    let check = |text: &str, expected| assert_eq!(text.parse::<Did>(), Err(expected), "{text}");
    check("", DidError::NotDidKey);
    check("did:web:leno.example", DidError::NotDidKey);
    check("did:key:", DidError::NotDidKey);
    check(
        "DID:KEY:z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQg",
        DidError::NotDidKey,
    );
    // The same key in base16 and base32 is not written that way.
    check("did:key:fed01", DidError::NotDidKey);
    check("did:key:b5ua2", DidError::NotDidKey);
    check(
        " did:key:z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQg",
        DidError::NotDidKey,
    );
    check("did:key:z0OIl", DidError::NotBase58);
    check(
        "did:key:z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQg ",
        DidError::NotBase58,
    );
    check(
        "did:key:z6LSeu9HkTHSfLLeUs2nnzUSNedgD#z6LSeu9",
        DidError::NotBase58,
    );
    let empty = KeyError::Truncated { needed: 1, had: 0 };
    check("did:key:z", DidError::Key(empty));
    check(
        "did:key:z1",
        DidError::Key(KeyError::UnknownKind { code: 0 }),
    );
    let long = format!("did:key:z{}", "1".repeat(1 << 20));
    check(&long, DidError::TooLong { had: long.len() });
}

#[test]
fn bound_fits_the_longest_key() {
    for kind in KeyKind::ALL {
        let longest = [&[3][..], &[0xff; 32]].concat();
        let raw = &longest[..kind.raw_bytes()];
        let did = PublicKey::from_raw(*kind, raw).unwrap().to_did();
        assert_eq!(did.to_string().parse(), Ok(did));
        assert!(did.to_string().len() <= DID_BYTES_MAX);
    }
}

//! The targets over their seeds, changed at random, on any compiler.

use std::collections::BTreeMap;

use leno_fuzz::{TARGETS, seeds};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index, u8),
    End(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    use Change::{Cut, End, Insert, Set};
    let index = any::<prop::sample::Index>;
    // Heads of CBOR are where decoders decide.
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![
            0x00, 0x17, 0x18, 0x1b, 0x40, 0x5b, 0x80, 0x9b, 0xa0, 0xbb, 0xd8, 0xf6, 0xff
        ]),
    ];
    prop_oneof![
        4 => (index(), byte.clone()).prop_map(|(at, byte)| Set(at, byte)),
        2 => (index(), prop::collection::vec(byte, 1..9)).prop_map(|(at, bytes)| Insert(at, bytes)),
        1 => (index(), 1..9_u8).prop_map(|(at, bytes)| Cut(at, bytes)),
        1 => index().prop_map(End),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Set(at, byte) => {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        Change::Insert(at, more) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Cut(at, count) => {
            let at = at.index(bytes.len() + 1);
            let end = (at + usize::from(*count)).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::End(at) => bytes.truncate(at.index(bytes.len() + 1)),
    }
}

#[test]
fn every_target_has_seeds_and_takes_them() {
    let mut counts: BTreeMap<_, _> = TARGETS.iter().map(|(name, _)| (*name, 0)).collect();
    for (name, bytes) in seeds() {
        let (name, target) = TARGETS.iter().find(|it| it.0 == name).expect(&name);
        target(&bytes);
        *counts.get_mut(name).unwrap() += 1;
    }
    let without: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn seeds_of_texts_are_good() {
    for (name, bytes) in seeds() {
        let text = String::from_utf8_lossy(&bytes);
        match name.as_str() {
            "ticket" => drop(text.parse::<leno::Ticket>().unwrap()),
            "card" => drop(text.parse::<leno::Card>().unwrap()),
            "address" => drop(text.parse::<leno_transport_trait::Address>().unwrap()),
            _ => {}
        }
    }
}

/// `PROPTEST_CASES` changes of the seeds for every target.
#[test]
fn changed_seeds_never_panic() {
    let seeds = seeds();
    for (name, target) in TARGETS {
        let seeds: Vec<_> = seeds
            .iter()
            .filter(|it| it.0 == name)
            .map(|it| it.1.clone())
            .collect();
        let changed = (
            prop::sample::select(seeds),
            prop::collection::vec(change(), 1..6),
        );
        TestRunner::new(Config {
            failure_persistence: None,
            cases: Config::default().cases.max(2_000),
            ..Config::default()
        })
        .run(&changed, |(mut bytes, changes)| {
            changes.iter().for_each(|it| apply(&mut bytes, it));
            target(&bytes);
            Ok(())
        })
        .unwrap();
    }
}

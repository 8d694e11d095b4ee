use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// As names are: evenly spread.
fn name(number: u32) -> Name {
    let hash = Sha256::digest(number.to_be_bytes());
    *hash.first_chunk().unwrap()
}

fn tree(numbers: impl IntoIterator<Item = u32>) -> HashTree {
    let mut tree = HashTree::default();
    for number in numbers {
        tree.set(name(number), [7; 32]);
    }
    tree
}

/// What two trees differ in, as two sides find it, and how many nodes were looked at.
fn differences(one: &mut HashTree, other: &mut HashTree) -> (Vec<Name>, usize) {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    let mut queue = vec![Prefix::ROOT];
    while let Some(prefix) = queue.pop() {
        looked_at += 1;
        if one.digest(prefix) == other.digest(prefix) {
            continue;
        }
        match other.node(prefix) {
            Node::Inner(_) => queue.extend(prefix.children()),
            Node::Leaves(theirs) => {
                let ours: BTreeMap<_, _> = one.leaves(prefix).collect();
                let theirs: BTreeMap<_, _> = theirs.into_iter().collect();
                let names = ours.keys().chain(theirs.keys()).copied();
                found.extend(names.filter(|name| ours.get(name) != theirs.get(name)));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    (found, looked_at)
}

#[test]
fn ten_differences_among_ten_thousand_are_found_by_a_few_looks() {
    let mut one = tree(0..10_000);
    let mut other = tree(0..10_000);
    let numbers: Vec<u32> = (0..10).map(|it| it * 997).collect();
    for number in &numbers {
        other.set(name(*number), [8; 32]);
    }
    let (found, looked_at) = differences(&mut one, &mut other);
    let mut expected: Vec<_> = numbers.iter().map(|it| name(*it)).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    // Ten paths of three or four nodes, each with its fifteen siblings.
    assert!(looked_at <= 10 * 4 * 16 + 1, "{looked_at}");
}

#[test]
fn prefixes_are_masked_and_split_in_order() {
    let whole = name(1);
    for nibbles in 0..=NIBBLES_MAX {
        let prefix = Prefix::of(whole, nibbles);
        assert_eq!(Prefix::new(*prefix.name(), nibbles), Some(prefix));
        assert!(*prefix.name() <= whole && whole <= prefix.last());
        let children: Vec<_> = prefix.children().collect();
        assert_eq!(children.len(), if nibbles < 32 { CHILDREN } else { 0 });
        let holds = |child: &&Prefix| *child.name() <= whole && whole <= child.last();
        assert_eq!(children.iter().filter(holds).count(), children.len().min(1));
        assert!(children.is_sorted());
    }
    assert_eq!(Prefix::new([1; 16], 31), None, "more than zeros follows");
    assert_eq!(Prefix::new([0; 16], 33), None, "longer than a name");
}

#[test]
fn any_change_shows_in_the_root() {
    let mut tree = tree(0..40);
    let before = tree.digest(Prefix::ROOT);
    tree.set(name(3), [7; 32]);
    assert_eq!(
        tree.digest(Prefix::ROOT),
        before,
        "the same again is no change"
    );
    tree.set(name(3), [9; 32]);
    let changed = tree.digest(Prefix::ROOT);
    assert_ne!(changed, before);
    tree.remove(&name(3));
    assert_ne!(tree.digest(Prefix::ROOT), changed);
    tree.set(name(3), [7; 32]);
    assert_eq!(tree.digest(Prefix::ROOT), before);
}

proptest! {
    /// Kept hashes are those of a tree that is made anew, whatever was changed in between, also over
    /// the limit at which a node gets children.
    #[test]
    fn kept_hashes_are_those_of_a_new_tree(changes in prop::collection::vec((0_u32..60, 0_u8..3), 0..200)) {
        let mut kept = HashTree::default();
        for (number, value) in changes {
            match value {
                0 => kept.remove(&name(number)),
                value => kept.set(name(number), [value; 32]),
            }
            let mut anew = HashTree::default();
            for (name, digest) in kept.leaves(Prefix::ROOT).collect::<Vec<_>>() {
                anew.set(name, digest);
            }
            prop_assert_eq!(kept.digest(Prefix::ROOT), anew.digest(Prefix::ROOT));
        }
    }

    /// Two sides find exactly what differs.
    #[test]
    fn descent_finds_what_differs(
        one in prop::collection::btree_map(0_u32..300, 0_u8..3, 0..200),
        other in prop::collection::btree_map(0_u32..300, 0_u8..3, 0..200),
    ) {
        let of = |map: &BTreeMap<u32, u8>| {
            let mut tree = HashTree::default();
            for (number, value) in map {
                tree.set(name(*number), [*value; 32]);
            }
            tree
        };
        let (found, _) = differences(&mut of(&one), &mut of(&other));
        let mut expected: Vec<_> = (0..300)
            .filter(|number| one.get(number) != other.get(number))
            .map(name)
            .collect();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}

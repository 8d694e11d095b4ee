//! A hash tree over a set of named digests, by which two sides find where they differ.
//!
//! Names are spread evenly because they are MACs. A node stands for all names that begin with its
//! [`Prefix`]: with at most [`LEAVES_MAX`] of them it holds these, otherwise it has a child for each
//! next half byte. So the shape follows from the set alone, and a change costs one path.
//!
//! Hashes are chained, never added up: sums and XORs of hashes can be made to agree.

use std::collections::BTreeMap;

use leno_identity::Label;

/// Names a leaf.
pub type Name = [u8; 16];

/// The hash of a leaf or of a node.
pub(super) type Digest = [u8; 32];

/// Most leaves of a node that has no children.
pub const LEAVES_MAX: usize = 16;

/// Children of an inner node.
pub const CHILDREN: usize = 16;

/// Half bytes of a name.
const NIBBLES_MAX: u8 = 32;

/// What the names below a node begin with.
///
/// # Shape
///
/// `nibbles` half bytes, from 0 to 32, high half first; the rest of `name` is zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    name: Name,
    nibbles: u8,
}

impl Prefix {
    /// That of the root.
    pub const ROOT: Self = Self {
        name: [0; 16],
        nibbles: 0,
    };

    /// The beginning of a name; nothing if it is longer than a name, or more follows than zeros.
    #[must_use]
    pub fn new(name: Name, nibbles: u8) -> Option<Self> {
        let prefix = Self::of(name, nibbles);
        (nibbles <= NIBBLES_MAX && prefix.name == name).then_some(prefix)
    }

    /// The name, zeros behind the prefix.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How many half bytes it has.
    #[must_use]
    pub fn nibbles(&self) -> u8 {
        self.nibbles
    }

    /// Tells whether a name begins so.
    #[must_use]
    pub fn begins(&self, name: &Name) -> bool {
        Self::of(*name, self.nibbles) == *self
    }

    /// The beginning of any name.
    fn of(mut name: Name, nibbles: u8) -> Self {
        for (at, byte) in (0_u8..).zip(&mut name) {
            match nibbles.saturating_sub(at * 2) {
                0 => *byte = 0,
                1 => *byte &= 0xf0,
                _ => {}
            }
        }
        Self { name, nibbles }
    }

    /// The last name that begins so.
    fn last(&self) -> Name {
        let mut last = self.name;
        for (at, byte) in (0_u8..).zip(&mut last) {
            match self.nibbles.saturating_sub(at * 2) {
                0 => *byte = 0xff,
                1 => *byte |= 0x0f,
                _ => {}
            }
        }
        last
    }

    /// The prefixes one half byte longer, in order; nothing if this is a whole name.
    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        let count = if self.nibbles < NIBBLES_MAX { 16 } else { 0 };
        (0..count).map(move |nibble: u8| {
            let mut name = self.name;
            if let Some(byte) = name.get_mut(usize::from(self.nibbles / 2)) {
                *byte |= match self.nibbles % 2 {
                    0 => nibble << 4,
                    _ => nibble,
                };
            }
            Self {
                name,
                nibbles: self.nibbles + 1,
            }
        })
    }
}

/// A node as its parent's owner sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Node {
    /// The hashes of its children, in order.
    Inner(Vec<Digest>),
    /// Its leaves, ascending.
    Leaves(Vec<(Name, Digest)>),
}

/// The tree.
#[derive(Debug, Default)]
pub(super) struct HashTree {
    leaves: BTreeMap<Name, Digest>,
    /// Hashes of nodes, as far as they are known and still right.
    nodes: BTreeMap<Prefix, Digest>,
}

impl HashTree {
    /// Sets a leaf.
    pub(super) fn set(&mut self, name: Name, digest: Digest) {
        if self.leaves.insert(name, digest) != Some(digest) {
            self.forget(name);
        }
    }

    /// Takes a leaf away.
    pub(super) fn remove(&mut self, name: &Name) {
        if self.leaves.remove(name).is_some() {
            self.forget(*name);
        }
    }

    /// The hashes on the way to a leaf are to be made anew.
    fn forget(&mut self, name: Name) {
        for nibbles in 0..=NIBBLES_MAX {
            self.nodes.remove(&Prefix::of(name, nibbles));
        }
    }

    /// The leaves whose names begin so, ascending.
    pub(super) fn leaves(&self, prefix: Prefix) -> impl Iterator<Item = (Name, Digest)> + '_ {
        let leaves = self.leaves.range(prefix.name..=prefix.last());
        leaves.map(|(name, digest)| (*name, *digest))
    }

    fn is_inner(&self, prefix: Prefix) -> bool {
        self.leaves(prefix).nth(LEAVES_MAX).is_some()
    }

    /// A node. It need not be reached from the root: any prefix has one.
    pub(super) fn node(&mut self, prefix: Prefix) -> Node {
        if self.is_inner(prefix) {
            return Node::Inner(prefix.children().map(|child| self.digest(child)).collect());
        }
        Node::Leaves(self.leaves(prefix).collect())
    }

    /// The hash of a node.
    pub(super) fn digest(&mut self, prefix: Prefix) -> Digest {
        if let Some(digest) = self.nodes.get(&prefix) {
            return *digest;
        }
        let digest = match self.node(prefix) {
            Node::Inner(children) => Label::TREE_INNER.hash(&[children.as_flattened()]),
            Node::Leaves(leaves) => {
                let bytes: Vec<u8> = leaves
                    .iter()
                    .flat_map(|(name, digest)| [&name[..], digest].concat())
                    .collect();
                Label::TREE_BUCKET.hash(&[&bytes])
            }
        };
        self.nodes.insert(prefix, digest);
        digest
    }
}

#[cfg(test)]
mod tests;

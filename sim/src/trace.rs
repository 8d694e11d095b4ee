//! What a run did, as a hash: two runs of one seed must show the same.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A hash over everything that happened.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TraceHash(pub [u8; 16]);

/// Hexadecimal digits.
impl fmt::Display for TraceHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Adds up what happens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    hasher: Sha256,
}

impl Trace {
    /// Notes something: what kind it is, and its numbers.
    pub(crate) fn note(&mut self, kind: u8, numbers: &[u64]) {
        self.hasher.update([kind]);
        for number in numbers {
            self.hasher.update(number.to_be_bytes());
        }
    }

    /// Notes words or bytes.
    pub(crate) fn note_bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.note(kind, &[bytes.len() as u64]);
        self.hasher.update(bytes);
    }

    pub(crate) fn hash(&self) -> TraceHash {
        let digest = self.hasher.clone().finalize();
        let mut hash = [0; 16];
        for (to, from) in hash.iter_mut().zip(digest) {
            *to = from;
        }
        TraceHash(hash)
    }
}

/// A number for bytes.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.first_chunk().map_or(0, |it| u64::from_be_bytes(*it))
}

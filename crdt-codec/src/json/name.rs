//! Names of fields.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

/// Longest name that takes no memory of its own, in bytes.
const SHORT_BYTES_MAX: usize = 22;

/// The name of a field. A short one, as most are, lies in the map that it is a key of: looking a field
/// up touches no other memory.
#[derive(Clone)]
pub(super) struct Name(Kind);

#[derive(Clone)]
enum Kind {
    Short {
        len: u8,
        bytes: [u8; SHORT_BYTES_MAX],
    },
    Long(Box<str>),
}

impl Name {
    pub(super) fn new(name: &str) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        Self(match bytes.get_mut(..name.len()) {
            Some(short) => {
                short.copy_from_slice(name.as_bytes());
                let len = name.len() as u8;
                Kind::Short { len, bytes }
            }
            None => Kind::Long(name.into()),
        })
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Kind::Long(name) => name.as_bytes(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a name is made of a text")
    }
}

// All by the bytes, whose order is that of texts, so that a map is searched by bytes.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Eq for Name {}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_sort_as_texts_do() {
        let mut texts: Vec<String> = (0..50).map(|len| "é".repeat(len / 2) + "x").collect();
        texts.extend(["", "a", "ab", "b", "\0"].map(str::to_owned));
        for a in &texts {
            let name = Name::new(a);
            assert_eq!(name.as_str(), a);
            for b in &texts {
                assert_eq!(name.cmp(&Name::new(b)), a.cmp(b));
                assert_eq!(name == Name::new(b), a == b);
            }
        }
    }
}

//! The workload: events of 150 bytes of JSON over 1,000 documents.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use leno_threads_db::{DocumentId, ValueError};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// How many documents there are.
pub const DOCUMENTS: usize = 1_000;

/// The collection that they are in.
pub const COLLECTION: &str = "events";

/// Bytes of an event as JSON, such as
/// `{"_id":"d123","a":"<54 hex digits>","b":"<54 hex digits>","n":123456789}`.
pub const JSON_BYTES: usize = 150;

/// Bytes behind a hex text of 54 digits.
const TEXT_BYTES: usize = 27;

/// New content of three fields of one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Which document.
    pub document: DocumentId,
    /// The fields `a`, `b` and `n`.
    pub fields: Ipld,
}

/// Makes events; the same ones for the same seed.
#[derive(Debug)]
pub struct Events {
    rng: ChaCha20Rng,
    documents: Vec<DocumentId>,
}

impl Events {
    /// Begins a sequence of events over all documents.
    ///
    /// # Errors
    ///
    /// Never: the ids are short.
    pub fn new(seed: u64) -> Result<Self, ValueError> {
        Self::over(seed, 0..DOCUMENTS)
    }

    /// Begins a sequence of events over some of the documents.
    ///
    /// # Errors
    ///
    /// Never: the ids are short.
    pub fn over(seed: u64, documents: std::ops::Range<usize>) -> Result<Self, ValueError> {
        let ids = documents.map(|number| DocumentId::natural(format!("d{number:03}")));
        Ok(Self {
            rng: ChaCha20Rng::seed_from_u64(seed),
            documents: ids.collect::<Result<_, _>>()?,
        })
    }

    /// The documents.
    #[must_use]
    pub fn documents(&self) -> &[DocumentId] {
        &self.documents
    }

    /// One event for each document, in order: what they are created with.
    pub fn creates(&mut self) -> Vec<Event> {
        let documents = self.documents.clone();
        documents.into_iter().map(|it| self.of(it)).collect()
    }

    /// So many events for documents drawn at random.
    pub fn patches(&mut self, count: usize) -> Vec<Event> {
        (0..count).filter_map(|_| self.patch()).collect()
    }

    /// An event for a document drawn at random; nothing if there are no documents.
    pub fn patch(&mut self) -> Option<Event> {
        let at = self.rng.next_u64() % (self.documents.len() as u64).max(1);
        let document = self.documents.get(usize::try_from(at).ok()?)?.clone();
        Some(self.of(document))
    }

    fn of(&mut self, document: DocumentId) -> Event {
        let number = 100_000_000 + i128::from(self.rng.next_u32() % 900_000_000);
        let fields = [
            ("a", Ipld::String(self.text())),
            ("b", Ipld::String(self.text())),
            ("n", Ipld::Integer(number)),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        Event {
            document,
            fields: Ipld::Map(BTreeMap::from(fields)),
        }
    }

    fn text(&mut self) -> String {
        let mut bytes = [0; TEXT_BYTES];
        self.rng.fill_bytes(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_150_bytes_of_json() {
        let event = Events::new(1).unwrap().patch().unwrap();
        let Ipld::Map(fields) = &event.fields else {
            panic!("fields are a map")
        };
        let text = |name: &str| match &fields[name] {
            Ipld::String(text) => text.clone(),
            Ipld::Integer(number) => number.to_string(),
            Ipld::Null
            | Ipld::Bool(_)
            | Ipld::Float(_)
            | Ipld::Bytes(_)
            | Ipld::List(_)
            | Ipld::Map(_)
            | Ipld::Link(_) => panic!("a field is a text or a number"),
        };
        let (id, a, b, n) = (&event.document, text("a"), text("b"), text("n"));
        let json = format!(r#"{{"_id":"{id}","a":"{a}","b":"{b}","n":{n}}}"#);
        assert_eq!(json.len(), JSON_BYTES);
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let events = |seed| Events::new(seed).unwrap().patches(5);
        assert_eq!(events(1), events(1));
        assert_ne!(events(1), events(2));
    }
}

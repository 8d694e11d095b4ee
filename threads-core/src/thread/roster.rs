//! The roster: what members state for members only.

use std::collections::BTreeMap;

use crate::control::RosterOp;
use crate::{RecordId, SeatId};

/// Names, certificates and facts of a thread, as its members state them.
///
/// Of two statements about one thing the higher version counts, of equal ones the one from the
/// record with the lower id, so that every peer reads the same.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Roster {
    name: Option<(RecordId, String)>,
    seats: BTreeMap<SeatId, (RecordId, SeatFact)>,
    facts: BTreeMap<String, (u64, RecordId, Vec<u8>)>,
}

/// What is stated about a seat. The certificate is not verified here: that takes a clock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SeatFact {
    /// Encoded device certificate.
    pub certificate: Vec<u8>,
    /// Salt of the hash of the identity in the seat's grant.
    pub salt: [u8; 16],
    /// What the member wants to be called.
    pub name: String,
}

impl Roster {
    /// What the thread is called.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|(_, name)| name.as_str())
    }

    /// What is stated about a seat.
    #[must_use]
    pub fn seat(&self, seat: &SeatId) -> Option<&SeatFact> {
        self.seats.get(seat).map(|(_, fact)| fact)
    }

    /// The newest statement about something, and its version.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<(u64, &[u8])> {
        self.facts
            .get(key)
            .map(|(version, _, value)| (*version, value.as_slice()))
    }

    /// All statements whose key begins with `prefix`: key, version, value.
    pub fn facts(&self, prefix: &str) -> impl Iterator<Item = (&str, u64, &[u8])> {
        let prefix = prefix.to_owned();
        self.facts
            .range(prefix.clone()..)
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(key, (version, _, value))| (key.as_str(), *version, value.as_slice()))
    }

    /// Takes in the roster part of a record; tells whether anything changed.
    pub(super) fn admit(&mut self, record: RecordId, ops: &[RosterOp]) -> bool {
        let mut changed = false;
        for op in ops {
            changed |= match op {
                RosterOp::Name(name) => {
                    let news = self.name.as_ref().is_none_or(|(by, _)| record < *by);
                    if news {
                        self.name = Some((record, name.clone()));
                    }
                    news
                }
                RosterOp::Seat {
                    seat,
                    certificate,
                    salt,
                    name,
                } => {
                    let news = self.seats.get(seat).is_none_or(|(by, _)| record < *by);
                    if news {
                        let (certificate, name) = (certificate.clone(), name.clone());
                        let fact = SeatFact {
                            certificate,
                            salt: *salt,
                            name,
                        };
                        self.seats.insert(*seat, (record, fact));
                    }
                    news
                }
                RosterOp::Fact {
                    key,
                    version,
                    value,
                } => {
                    let news = self.facts.get(key).is_none_or(|(known, by, _)| {
                        known < version || (known == version && record < *by)
                    });
                    if news {
                        self.facts
                            .insert(key.clone(), (*version, record, value.clone()));
                    }
                    news
                }
            };
        }
        changed
    }
}

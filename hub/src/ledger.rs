//! Which account had which thread carried: a small file beside the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Account;

/// Most cards that an account has asked for beyond the threads that it may have.
const SPARE_CARDS: u32 = 64;

/// What was promised for a thread.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Promise {
    /// The account.
    pub account: String,
    /// Most bytes of records.
    pub bytes: u64,
}

/// What an account has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Use {
    /// Threads that are carried.
    pub threads: u32,
    /// Bytes that were promised for them.
    pub bytes: u64,
}

/// Why a promise is not made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The account has as many threads as it may.
    #[error("the account has its {0} threads already")]
    Threads(u32),
    /// The account has not so many bytes left.
    #[error("the account has {left} bytes left, {asked} were asked for")]
    Bytes {
        /// What is left.
        left: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The hub has not so many bytes left.
    #[error("the hub has no room for {asked} bytes more")]
    HubIsFull {
        /// What was asked for.
        asked: u64,
    },
    /// The thread is carried for another account.
    #[error("the thread is carried for another account")]
    Taken,
    /// The account asked for too many cards that it did not use.
    #[error("the account has too many cards that were not used")]
    Cards,
    /// The file cannot be written or read; what was promised before stands.
    #[error("the ledger cannot be used: {0}")]
    File(String),
}

impl From<io::Error> for LedgerError {
    fn from(error: io::Error) -> Self {
        Self::File(error.to_string())
    }
}

/// What rests in the file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Content {
    /// By the texts of their ids.
    threads: BTreeMap<String, Promise>,
    /// How many cards were made for each account and not used yet.
    cards: BTreeMap<String, u32>,
}

/// All promises. Every change is durable when its call returns.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    content: Content,
    bytes_max: u64,
}

impl Ledger {
    /// Opens the ledger of a folder, or begins one.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`].
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, LedgerError> {
        let path = folder.join("ledger.json");
        let content = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| LedgerError::File(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            path,
            content,
            bytes_max,
        })
    }

    /// What an account has.
    #[must_use]
    pub fn used_by(&self, account: &str) -> Use {
        let its = self.content.threads.values();
        its.filter(|it| it.account == account)
            .fold(Use::default(), |sum, it| Use {
                threads: sum.threads.saturating_add(1),
                bytes: sum.bytes.saturating_add(it.bytes),
            })
    }

    /// What was promised for a thread.
    #[must_use]
    pub fn promise(&self, thread: &str) -> Option<&Promise> {
        self.content.threads.get(thread)
    }

    /// All promises, by the texts of their threads' ids.
    pub fn promises(&self) -> impl Iterator<Item = (&str, &Promise)> {
        let threads = self.content.threads.iter();
        threads.map(|(thread, promise)| (thread.as_str(), promise))
    }

    /// Counts a card that is made for an account.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Cards`] or [`LedgerError::File`]; nothing changed.
    pub fn add_card(&mut self, account: &Account) -> Result<(), LedgerError> {
        let cards = self.content.cards.get(&account.name).copied().unwrap_or(0);
        if cards >= account.threads.saturating_add(SPARE_CARDS) {
            return Err(LedgerError::Cards);
        }
        self.change(|content| {
            content.cards.insert(account.name.clone(), cards + 1);
        })
    }

    /// Promises to carry a thread, or more or less of one that is carried already. Without `asked`, as
    /// much as the account gives a thread.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; nothing changed.
    pub fn promise_to(
        &mut self,
        account: &Account,
        thread: &str,
        asked: Option<u64>,
    ) -> Result<Promise, LedgerError> {
        let known = self.content.threads.get(thread);
        if known.is_some_and(|it| it.account != account.name) {
            return Err(LedgerError::Taken);
        }
        let before = known.map_or(0, |it| it.bytes);
        let used = self.used_by(&account.name);
        if known.is_none() && used.threads >= account.threads {
            return Err(LedgerError::Threads(account.threads));
        }
        let left = account.bytes.saturating_sub(used.bytes - before);
        let most = account.thread_bytes.unwrap_or(left).min(left);
        let bytes = asked.unwrap_or(most);
        if bytes > most || bytes == 0 {
            return Err(LedgerError::Bytes {
                left: most,
                asked: bytes,
            });
        }
        let promised = self.content.threads.values();
        let promised = promised.fold(0_u64, |sum, it| sum.saturating_add(it.bytes));
        if (promised - before).saturating_add(bytes) > self.bytes_max {
            return Err(LedgerError::HubIsFull { asked: bytes });
        }
        let promise = Promise {
            account: account.name.clone(),
            bytes,
        };
        let (is_new, kept) = (known.is_none(), promise.clone());
        self.change(|content| {
            content.threads.insert(thread.to_owned(), kept);
            if is_new && let Some(cards) = content.cards.get_mut(&account.name) {
                *cards = cards.saturating_sub(1);
            }
        })?;
        Ok(promise)
    }

    /// Takes a promise back. Does nothing if there is none.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`]; nothing changed.
    pub fn end(&mut self, thread: &str) -> Result<(), LedgerError> {
        if !self.content.threads.contains_key(thread) {
            return Ok(());
        }
        self.change(|content| drop(content.threads.remove(thread)))
    }

    /// Changes the file first, then what is in memory.
    fn change(&mut self, change: impl FnOnce(&mut Content)) -> Result<(), LedgerError> {
        let mut content = self.content.clone();
        change(&mut content);
        let text = serde_json::to_vec_pretty(&content)
            .map_err(|error| LedgerError::File(error.to_string()))?;
        let beside = self.path.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        // The new name is to survive too.
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.content = content;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Account {
        Account {
            name: name.to_owned(),
            token_sha256: String::new(),
            bytes: 100,
            thread_bytes: Some(60),
            threads: 3,
            logs: 8,
            operator: false,
        }
    }

    #[test]
    fn promises_are_bounded_and_survive() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path(), 150).unwrap();
        let (ann, bob) = (account("ann"), account("bob"));
        let bytes = |left, asked| Err(LedgerError::Bytes { left, asked });
        assert_eq!(ledger.promise_to(&ann, "t1", None).unwrap().bytes, 60);
        assert_eq!(ledger.promise_to(&ann, "t2", Some(41)), bytes(40, 41));
        assert_eq!(ledger.promise_to(&ann, "t2", Some(0)), bytes(40, 0));
        assert_eq!(ledger.promise_to(&ann, "t2", None).unwrap().bytes, 40);
        assert_eq!(ledger.promise_to(&ann, "t3", None), bytes(0, 0));
        assert_eq!(ledger.promise_to(&bob, "t1", None), Err(LedgerError::Taken));
        let full = Err(LedgerError::HubIsFull { asked: 60 });
        assert_eq!(ledger.promise_to(&bob, "t4", None), full);

        // Less of one makes room for another, at once and after a restart.
        assert_eq!(ledger.promise_to(&ann, "t1", Some(20)).unwrap().bytes, 20);
        let mut ledger = Ledger::open(folder.path(), 150).unwrap();
        let used = Use {
            threads: 2,
            bytes: 60,
        };
        assert_eq!(ledger.used_by("ann"), used);
        assert_eq!(ledger.promise_to(&ann, "t3", None).unwrap().bytes, 40);
        let threads = Err(LedgerError::Threads(3));
        assert_eq!(ledger.promise_to(&ann, "t5", Some(1)), threads);
        ledger.end("t3").unwrap();
        ledger.end("t3").unwrap();
        assert!(ledger.promise("t3").is_none());
        assert_eq!(ledger.promises().count(), 2);
    }

    #[test]
    fn cards_are_bounded_and_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path(), 150).unwrap();
        let ann = account("ann");
        for _ in 0..67 {
            ledger.add_card(&ann).unwrap();
        }
        assert_eq!(ledger.add_card(&ann), Err(LedgerError::Cards));
        ledger.promise_to(&ann, "t1", None).unwrap();
        ledger.add_card(&ann).unwrap();
    }

    #[test]
    fn damaged_file_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ledger.json"), "{").unwrap();
        let Err(LedgerError::File(what)) = Ledger::open(folder.path(), 1) else {
            panic!("it was read");
        };
        assert!(what.contains("ledger.json"));
        assert_eq!(
            std::fs::read(folder.path().join("ledger.json")).unwrap(),
            b"{"
        );
    }
}

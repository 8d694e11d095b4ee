//! Documents: written in all ways that there are, and read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use leno::{DocumentId, Error, FieldChange, FieldEdit, Ipld, Transaction};

use super::{Call, lock, store_of};
use crate::dice::Dice;
use crate::ledger::{Entry, LEDGER, MIRROR, Note, word};

/// The collection that everybody edits.
pub(crate) const SONGS: &str = "songs";

/// How many of its documents are edited again and again.
const SONGS_EDITED: u64 = 4;

/// Most documents that are read at once.
const LIST_MAX: usize = 1 << 20;

/// Most of the latest writes of others that a write looks for.
const NAMED_MAX: usize = 8;

impl Call {
    /// Writes an entry, and perhaps songs with it, as one record.
    pub(crate) async fn write(self, at: usize, mut dice: Dice) {
        let (Some(thread), Some(ledger)) = (self.thread(at).await, self.ledger(at)) else {
            return;
        };
        let machine = self.machine;
        let is_mirrored = dice.below(3) == 0;
        let made = Arc::new(Mutex::new(None));
        let (place, written) = (made.clone(), ledger.clone());
        let wrote = thread.transact(move |transaction| {
            let mut had_seen = Vec::new();
            let others = lock(&written).latest_of_others(machine);
            for other in others.into_iter().take(NAMED_MAX) {
                let Some(id) = other.id() else { continue };
                if transaction.get::<Note>(LEDGER, &id)?.is_some() {
                    had_seen.push(other);
                }
            }
            let entry = lock(&written).begin(machine, had_seen, is_mirrored);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
            let Some(id) = entry.id() else { return Ok(()) };
            transaction.put(LEDGER, &id, &entry.note())?;
            if is_mirrored {
                transaction.put(MIRROR, &id, &entry.note())?;
            }
            for _ in 0..=dice.below(4) {
                tolerate(sing(transaction, &mut dice))?;
            }
            Ok(())
        });
        let wrote = self.end("write", wrote.await);
        let entry = made.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(()), Some(entry)) = (wrote, entry) {
            lock(&ledger).acknowledge(entry);
        }
    }

    /// Writes many entries at once, each as a record of its own.
    pub(crate) async fn write_all(self, at: usize, mut dice: Dice) {
        let (Some(thread), Some(ledger)) = (self.thread(at).await, self.ledger(at)) else {
            return;
        };
        let lane = lock(&ledger).new_lane(self.machine);
        let entries: Vec<Entry> = (0..=dice.below(20))
            .map(|_| lock(&ledger).begin_in(lane, Vec::new(), false))
            .collect();
        let notes = entries.iter();
        let notes = notes.filter_map(|it| Some((it.id()?, it.note()))).collect();
        let put = thread.collection::<Note>(LEDGER).put_all(notes).await;
        if self.end("put_all", put).is_some() {
            let mut ledger = lock(&ledger);
            entries.into_iter().for_each(|it| ledger.acknowledge(it));
        }
    }

    /// Edits a song by one of the methods of a collection.
    pub(crate) async fn edit(self, at: usize, mut dice: Dice) {
        let Some(thread) = self.thread(at).await else {
            return;
        };
        let songs = thread.collection::<Ipld>(SONGS);
        let Some(id) = song_id(&mut dice) else { return };
        match dice.below(14) {
            0 => drop(self.end("insert", songs.insert(&song(&mut dice)).await)),
            1..=4 => drop(self.end("put", songs.put(&id, &song(&mut dice)).await)),
            5 => drop(self.end("patch", songs.patch(&id, &partial(&mut dice)).await)),
            6 => drop(self.end("delete", songs.delete(&id).await)),
            7 => {
                let title = dice.next();
                let update = songs.update(&id, move |song| {
                    if let Ipld::Map(fields) = song {
                        fields.insert("title".to_owned(), Ipld::String(title.to_string()));
                    }
                });
                self.end("update", update.await);
            }
            8 => drop(self.end("conflicts", songs.conflicts(&id).await)),
            _ => {
                let edits = (0..=dice.below(3)).map(|_| field_edit(&mut dice)).collect();
                self.end("edit", songs.edit(&id, edits).await);
            }
        }
    }

    /// Reads all entries and compares them with what was written.
    pub(crate) async fn read(self, at: usize, after_start: bool) {
        let (Some(thread), Some(ledger)) = (self.thread(at).await, self.ledger(at)) else {
            return;
        };
        let owed = lock(&ledger).owed(self.machine);
        let read = async |name| {
            let notes = thread.collection::<Note>(name).list(None, LIST_MAX).await;
            self.end("list", notes)
                .map(|notes| notes.into_iter().map(|(_, note)| note))
        };
        // The mirror first: what comes between the two shows in the second only.
        let Some(before) = read(LEDGER).await else {
            return;
        };
        let Some(mirrored) = read(MIRROR).await else {
            return;
        };
        let Some(after) = read(LEDGER).await else {
            return;
        };
        let (before, after): (Vec<Note>, Vec<Note>) = (before.collect(), after.collect());
        if before != after {
            // Something came in between: another time.
            return;
        }
        let mirrored: Vec<Note> = mirrored.collect();
        let broken = lock(&ledger).compare(self.machine, &owed, &after, &mirrored, after_start);
        let mut model = self.model.borrow_mut();
        for broken in broken {
            model.breaks(self.machine, broken);
        }
    }

    fn ledger(&self, at: usize) -> Option<Arc<Mutex<crate::ledger::Ledger>>> {
        let model = self.model.borrow();
        model.threads.get(at).map(|it| it.ledger.clone())
    }
}

/// Passes over what is refused for what the document is, which depends on others.
fn tolerate(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Db(error)) if store_of(&error).is_none() => Ok(()),
        result => result,
    }
}

/// Changes a song within a transaction.
fn sing(transaction: &mut Transaction<'_>, dice: &mut Dice) -> Result<(), Error> {
    let Some(id) = song_id(dice) else {
        return Ok(());
    };
    match dice.below(12) {
        0 => drop(transaction.insert(SONGS, &song(dice))?),
        1..=4 => drop(transaction.put(SONGS, &id, &song(dice))?),
        5 => drop(transaction.patch(SONGS, &id, &partial(dice))?),
        6 => drop(transaction.delete(SONGS, &id)?),
        _ => drop(transaction.edit(SONGS, &id, &[field_edit(dice)])?),
    }
    Ok(())
}

/// One of a few, so that machines edit the same.
fn song_id(dice: &mut Dice) -> Option<DocumentId> {
    DocumentId::natural(format!("psalm {}", dice.below(SONGS_EDITED))).ok()
}

/// The songs that everybody edits, as they are in the beginning.
pub(crate) fn songs() -> Vec<(DocumentId, Ipld)> {
    let id = |number| DocumentId::natural(format!("psalm {number}")).ok();
    let title = Ipld::String(word().to_owned());
    let song = Ipld::Map(BTreeMap::from([("title".to_owned(), title)]));
    let songs = (0..SONGS_EDITED).filter_map(|it| Some((id(it)?, song.clone())));
    songs.collect()
}

fn text(dice: &mut Dice) -> Ipld {
    Ipld::String(format!("{} {}", word(), dice.below(9)))
}

/// One of a few, so that one is added here while it is removed there.
fn tag(dice: &mut Dice) -> Ipld {
    Ipld::String(format!("mood {}", dice.below(2)))
}

/// So small that two machines write the same.
fn small(dice: &mut Dice) -> Ipld {
    Ipld::Integer(i128::from(dice.below(2)))
}

fn number(dice: &mut Dice) -> Ipld {
    Ipld::Integer(i128::from(dice.below(20)))
}

/// A value for any field, also one that its strategy has no use for.
fn value(dice: &mut Dice) -> Ipld {
    match dice.below(6) {
        0 => number(dice),
        1 => Ipld::Bool(dice.coin()),
        2 => Ipld::List((0..dice.below(4)).map(|_| text(dice)).collect()),
        3 => Ipld::Map(BTreeMap::from([("lights".to_owned(), number(dice))])),
        _ => text(dice),
    }
}

const FIELDS: [&str; 8] = [
    "title", "plays", "moods", "tags", "lines", "best", "least", "stage",
];

fn field(dice: &mut Dice) -> String {
    dice.pick(&FIELDS).copied().unwrap_or("title").to_owned()
}

fn song(dice: &mut Dice) -> Ipld {
    let lines = (0..dice.below(4)).map(|_| text(dice)).collect();
    let mut fields = BTreeMap::from([
        ("title".to_owned(), text(dice)),
        ("plays".to_owned(), number(dice)),
        ("lines".to_owned(), Ipld::List(lines)),
    ]);
    if dice.coin() {
        fields.insert(field(dice), value(dice));
    }
    Ipld::Map(fields)
}

fn partial(dice: &mut Dice) -> Ipld {
    let fields = (0..=dice.below(2)).map(|_| {
        let null = dice.below(4) == 0;
        (field(dice), if null { Ipld::Null } else { value(dice) })
    });
    Ipld::Map(fields.collect())
}

fn field_edit(dice: &mut Dice) -> FieldEdit {
    let index = dice.index(4);
    let (field, change) = match dice.below(16) {
        0 => ("title", FieldChange::Set(text(dice))),
        1 => ("title", FieldChange::Unset),
        2 | 3 => (
            "plays",
            FieldChange::Increment(i64::from(dice.coin()) * 2 - 1),
        ),
        4 => ("best", FieldChange::Max(small(dice))),
        5 => ("least", FieldChange::Min(small(dice))),
        6 => ("moods", FieldChange::Add(text(dice))),
        7 | 12 | 13 => ("tags", FieldChange::Add(tag(dice))),
        8 | 14 | 15 => ("tags", FieldChange::Remove(tag(dice))),
        9 => {
            let value = text(dice);
            ("lines", FieldChange::Insert { index, value })
        }
        10 => {
            let value = text(dice);
            ("lines", FieldChange::Replace { index, value })
        }
        _ => ("lines", FieldChange::Take { index }),
    };
    FieldEdit::new([field], change)
}

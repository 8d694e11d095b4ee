//! Where commits are durable before they are in redb.
//!
//! Why: a durable commit of redb writes some eight pages in as many places and waits for all of
//! them. Here it is one write of bytes that follow each other, over bytes that are there already.
//!
//! The journal is a run of *laps*. In a lap, frames follow each other from the first page of the
//! journal on. A lap ends when redb made all its rows durable, together with the number of the next
//! lap: from then on nothing in the journal counts, until the first frame of the next lap lies over
//! what was the first frame of the last one. redb is always told first, so no page of a lap is
//! written over before its rows are elsewhere; and the number in redb is the only thing that says
//! which frames count, so nothing has to be erased.
//!
//! Only the newest frame can be torn: the one before was durable before it was begun.

use std::io::Error;
use std::sync::Arc;

use leno_threads_core::bug;
use leno_threads_core::store::{Batch, StoreError};

use crate::backend::Medium;
use crate::error::{Doing, guard};
use crate::frame::{self, Tag};
pub(crate) use crate::frame::{PAGE_BYTES, SECTOR_BYTES};

/// Where frames begin; the header of the file is before.
const FIRST: u64 = PAGE_BYTES as u64;

/// Share of the journal up to which a batch goes there at all: a larger one would be written twice
/// to save one sync of many.
const FRAMES_MIN: u64 = 4;

/// The front of a store's file, open for writing.
#[derive(Debug)]
pub(crate) struct Journal {
    medium: Arc<Medium>,
    lap: u64,
    /// Number of the next frame, and where it goes.
    frame: u32,
    next: u64,
    end: u64,
    /// Kept, so that its memory is.
    bytes: Vec<u8>,
}

impl Journal {
    /// Reads the frames of a lap. Afterwards there is room in the journal only if there were none:
    /// a frame that was torn by the crash may lie behind them, and its place counts as used.
    pub(crate) fn open(medium: Arc<Medium>, lap: u64) -> Result<(Self, Batch), StoreError> {
        let end = guard(Doing::Open, || Ok(medium.start()?))?;
        let mut journal = Self {
            medium,
            lap,
            frame: 0,
            next: FIRST,
            end,
            bytes: Vec::new(),
        };
        let mut rows = Batch::new();
        if guard(Doing::Open, || Ok(journal.is_begun()?))? {
            while let Some(batch) = journal.read_next()? {
                rows.extend(batch);
                if bug!(ReplayStopsEarly) {
                    break;
                }
            }
            if !bug!(ReplayStopsEarly) {
                journal.check_rest()?;
            }
            journal.next = journal.end;
        }
        Ok((journal, rows))
    }

    pub(crate) fn lap(&self) -> u64 {
        self.lap
    }

    /// Tells whether any frame counts.
    pub(crate) fn is_empty(&self) -> bool {
        self.next == FIRST
    }

    /// Tells whether the next batch might not find room.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.end.saturating_sub(self.next) < self.end / FRAMES_MIN
    }

    /// Tells whether a batch should be appended now.
    pub(crate) fn has_room(&self, batch: &Batch) -> bool {
        let bytes = frame::frame_bytes(frame::content_bytes(batch)) as u64;
        bytes <= self.end / FRAMES_MIN && bytes <= self.end.saturating_sub(self.next)
    }

    /// Appends a batch and waits until it is durable. After an error nobody knows whether it is.
    pub(crate) fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        frame::encode(batch, self.lap, self.frame, &mut self.bytes);
        self.medium.write_durably(self.next, &self.bytes)?;
        self.next = self.next.saturating_add(self.bytes.len() as u64);
        self.frame = self.frame.saturating_add(1);
        Ok(())
    }

    /// Begins the next lap. redb holds all rows of this one, and knows of the next, durably.
    pub(crate) fn begin(&mut self, lap: u64) {
        self.lap = lap;
        self.frame = 0;
        self.next = FIRST;
    }

    /// Gives back memory in a quiet moment.
    pub(crate) fn rest(&mut self) {
        self.bytes = Vec::new();
    }

    /// Tells whether this lap may have a frame. A store that was closed is known by one sector: it
    /// is of an older lap, or was never written.
    fn is_begun(&self) -> Result<bool, Error> {
        let mut sector = [0; SECTOR_BYTES];
        self.medium.read(FIRST, &mut sector)?;
        let is_older = Tag::of_first(&sector).is_some_and(|tag| tag.lap < self.lap);
        let is_blank = sector.iter().all(|byte| *byte == 0);
        Ok(!is_older && !is_blank)
    }

    /// Reads the next frame, if it is there and whole.
    fn read_next(&mut self) -> Result<Option<Batch>, StoreError> {
        let Some(content) = guard(Doing::Open, || Ok(self.read_content()?))? else {
            return Ok(None);
        };
        let number = self.frame;
        // Its checksums hold, so it is not the disk that made it so.
        let batch = frame::decode(&content)
            .ok_or_else(|| corrupt(format!("frame {number} of the journal: rows")))?;
        self.next = self
            .next
            .saturating_add(frame::frame_bytes(content.len()) as u64);
        self.frame = self.frame.saturating_add(1);
        Ok(Some(batch))
    }

    fn read_content(&self) -> Result<Option<Vec<u8>>, Error> {
        let room = self.end.saturating_sub(self.next);
        if room == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; PAGE_BYTES];
        self.medium.read(self.next, &mut bytes)?;
        let length = bytes
            .get(..SECTOR_BYTES)
            .filter(|sector| {
                Tag::of_first(sector)
                    .is_some_and(|tag| (tag.lap, tag.frame) == (self.lap, self.frame))
            })
            .and_then(frame::first_length)
            .filter(|length| frame::frame_bytes(*length) as u64 <= room);
        let Some(length) = length else {
            return Ok(None);
        };
        bytes.resize(frame::frame_bytes(length), 0);
        if let Some(rest) = bytes.get_mut(PAGE_BYTES..) {
            let behind = self.next.saturating_add(PAGE_BYTES as u64);
            self.medium.read(behind, rest)?;
        }
        Ok(frame::content(&bytes, self.lap, self.frame, length))
    }

    /// Looks behind the last whole frame. A frame is begun when the one before is durable, so if
    /// there is a later one than the next, then the next was acknowledged, and is damaged.
    fn check_rest(&self) -> Result<(), StoreError> {
        let mut sector = [0; SECTOR_BYTES];
        let mut at = self.next;
        while at < self.end {
            guard(Doing::Open, || Ok(self.medium.read(at, &mut sector)?))?;
            let tag = Tag::of_first(&sector);
            if tag.is_some_and(|tag| tag.lap > self.lap) {
                // redb goes back to an older commit if the newest one is damaged.
                return Err(corrupt("the rows are older than the journal".to_owned()));
            }
            if tag.is_some_and(|tag| tag.lap == self.lap && tag.frame > self.frame) {
                let number = self.frame;
                return Err(corrupt(format!("frame {number} of the journal: checksum")));
            }
            at = at.saturating_add(PAGE_BYTES as u64);
        }
        Ok(())
    }
}

fn corrupt(what: String) -> StoreError {
    StoreError::Corrupt { what }
}

//! A batch as the journal keeps it: rows one after the other, in sectors that tell where they belong.

use leno_threads_core::store::{Batch, Table};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What the system writes at once. A frame begins a page, so that no page with a commit that was
/// acknowledged is written again, which on some disks may harm all of it.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Lap, frame and part before the payload of a sector, checksum behind it.
const TAG_BYTES: usize = 16;
const SUM_BYTES: usize = 4;
const PAYLOAD_BYTES: usize = SECTOR_BYTES - TAG_BYTES - SUM_BYTES;

/// The length before the rows of a frame.
const LENGTH_BYTES: usize = 4;

/// Table, length of the key and length of the value before a row.
const ROW_BYTES: usize = 7;

/// A length of a value that says: the row is deleted.
const DELETED: u32 = u32::MAX;

/// Which sector of which frame a sector is. No tag is ever used twice, so a sector of an older
/// frame, whatever bytes somebody put into its rows, is never taken for one of a newer frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tag {
    /// How often the journal was begun anew.
    pub(crate) lap: u64,
    /// Number of the frame in its lap.
    pub(crate) frame: u32,
    /// Number of the sector in its frame.
    pub(crate) part: u32,
}

impl Tag {
    fn to_bytes(self) -> [u8; TAG_BYTES] {
        let mut bytes = [0; TAG_BYTES];
        let fields = self.lap.to_le_bytes().into_iter();
        let fields = fields.chain(self.frame.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields.chain(self.part.to_le_bytes())) {
            *to = from;
        }
        bytes
    }

    /// Reads the tag of a frame's first sector, which is the one that can be checked alone.
    pub(crate) fn of_first(sector: &[u8]) -> Option<Self> {
        let (body, sum) = sector.split_last_chunk::<SUM_BYTES>()?;
        let (lap, rest) = body.split_first_chunk()?;
        let (frame, rest) = rest.split_first_chunk()?;
        let (part, _) = rest.split_first_chunk()?;
        let tag = Self {
            lap: u64::from_le_bytes(*lap),
            frame: u32::from_le_bytes(*frame),
            part: u32::from_le_bytes(*part),
        };
        (tag.part == 0 && *sum == crc32fast::hash(body).to_le_bytes()).then_some(tag)
    }
}

/// Bytes that a batch takes before it is cut into sectors.
pub(crate) fn content_bytes(batch: &Batch) -> usize {
    let rows = batch.writes().map(|(_, key, value)| {
        let bytes = key.len().saturating_add(value.map_or(0, <[u8]>::len));
        bytes.saturating_add(ROW_BYTES)
    });
    rows.fold(LENGTH_BYTES, usize::saturating_add)
}

/// Bytes of the pages that a frame of some content takes.
pub(crate) fn frame_bytes(content: usize) -> usize {
    let sectors = content.div_ceil(PAYLOAD_BYTES);
    let bytes = sectors.saturating_mul(SECTOR_BYTES);
    bytes.checked_next_multiple_of(PAGE_BYTES).unwrap_or(bytes)
}

/// Writes a batch as a frame into `bytes`, whole pages of it.
pub(crate) fn encode(batch: &Batch, lap: u64, frame: u32, bytes: &mut Vec<u8>) {
    bytes.clear();
    let content = content_bytes(batch);
    let mut sectors = Sectors {
        bytes,
        tag: Tag {
            lap,
            frame,
            part: 0,
        },
        room: 0,
        sum: crc32fast::Hasher::new(),
        summed: 0,
    };
    // The port bounds keys and values well below what these lengths hold.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(DELETED);
    sectors.push(&length(content).to_le_bytes());
    for (table, key, value) in batch.writes() {
        let mut head = [table as u8; ROW_BYTES];
        let key_bytes = u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes();
        let value_bytes = value
            .map_or(DELETED, |value| length(value.len()))
            .to_le_bytes();
        let fields = key_bytes.into_iter().chain(value_bytes);
        for (to, from) in head.iter_mut().skip(1).zip(fields) {
            *to = from;
        }
        sectors.push(&head);
        sectors.push(key);
        sectors.push(value.unwrap_or_default());
    }
    sectors.finish();
}

/// Cuts what is pushed into sectors.
struct Sectors<'a> {
    bytes: &'a mut Vec<u8>,
    /// Of the sector that is begun next.
    tag: Tag,
    /// Room for payload in the sector that was begun.
    room: usize,
    /// Over all sectors of the frame so far, so that each sector vouches for those before it.
    sum: crc32fast::Hasher,
    summed: usize,
}

impl Sectors<'_> {
    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.room == 0 {
                self.end_sector();
                self.bytes.extend(self.tag.to_bytes());
                self.tag.part = self.tag.part.saturating_add(1);
                self.room = PAYLOAD_BYTES;
            }
            let (now, later) = data.split_at(data.len().min(self.room));
            self.bytes.extend(now);
            self.room -= now.len();
            data = later;
        }
    }

    fn end_sector(&mut self) {
        if let Some(fresh) = self.bytes.get(self.summed..).filter(|it| !it.is_empty()) {
            self.sum.update(fresh);
            let sum = self.sum.clone().finalize();
            self.bytes.extend(sum.to_le_bytes());
            self.summed = self.bytes.len();
        }
    }

    fn finish(mut self) {
        self.bytes
            .resize(self.bytes.len().saturating_add(self.room), 0);
        self.end_sector();
        let pages = self.bytes.len().next_multiple_of(PAGE_BYTES);
        self.bytes.resize(pages, 0);
    }
}

/// The length of a frame's content, as its first sector tells.
pub(crate) fn first_length(sector: &[u8]) -> Option<usize> {
    let length = sector.get(TAG_BYTES..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

/// Takes the content out of a frame's sectors; `None` if any is not as it was written.
pub(crate) fn content(bytes: &[u8], lap: u64, frame: u32, length: usize) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(length.saturating_add(PAYLOAD_BYTES));
    let mut sum = crc32fast::Hasher::new();
    for part in 0..length.div_ceil(PAYLOAD_BYTES) {
        let sector = bytes.chunks_exact(SECTOR_BYTES).nth(part)?;
        let (body, found) = sector.split_last_chunk::<SUM_BYTES>()?;
        let part = u32::try_from(part).ok()?;
        let payload = body.strip_prefix(&Tag { lap, frame, part }.to_bytes())?;
        sum.update(body);
        if *found != sum.clone().finalize().to_le_bytes() {
            return None;
        }
        content.extend(payload);
    }
    content.truncate(length);
    Some(content)
}

/// Reads the rows of a frame's content; `None` if they are none.
pub(crate) fn decode(content: &[u8]) -> Option<Batch> {
    let mut batch = Batch::new();
    let (_, mut rest) = content.split_first_chunk::<LENGTH_BYTES>()?;
    while !rest.is_empty() {
        let (head, behind) = rest.split_first_chunk::<ROW_BYTES>()?;
        let [table, key_0, key_1, value @ ..] = *head;
        let table = *Table::ALL.get(usize::from(table))?;
        let (key, behind) =
            behind.split_at_checked(usize::from(u16::from_le_bytes([key_0, key_1])))?;
        let value = u32::from_le_bytes(value);
        if value == DELETED {
            batch.delete(table, key.to_vec());
            rest = behind;
        } else {
            let (value, behind) = behind.split_at_checked(usize::try_from(value).ok()?)?;
            batch.put(table, key.to_vec(), value.to_vec());
            rest = behind;
        }
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(value: usize) -> Batch {
        let mut batch = Batch::new();
        batch.put(Table::Meta, b"key".to_vec(), vec![7; value]);
        batch.put(Table::Application, Vec::new(), Vec::new());
        batch.delete(Table::Outbox, b"gone".to_vec());
        batch
    }

    fn encoded(batch: &Batch, lap: u64, frame: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(batch, lap, frame, &mut bytes);
        bytes
    }

    fn decoded(bytes: &[u8], lap: u64, frame: u32) -> Option<Batch> {
        let length = first_length(bytes)?;
        decode(&content(bytes, lap, frame, length)?)
    }

    #[test]
    fn frames_of_every_length_decode_to_their_batch() {
        for value in (0..2_000).chain([29_000, 500_000]) {
            let batch = batch(value);
            let bytes = encoded(&batch, 5, 9);
            assert_eq!(bytes.len(), frame_bytes(content_bytes(&batch)), "{value}");
            assert_eq!(decoded(&bytes, 5, 9), Some(batch), "{value}");
        }
    }

    #[test]
    fn frame_of_another_place_is_none() {
        let bytes = encoded(&batch(1_000), 5, 9);
        assert_eq!(decoded(&bytes, 4, 9), None);
        assert_eq!(decoded(&bytes, 5, 10), None);
    }

    #[test]
    fn every_flipped_bit_within_a_frame_is_found() {
        let bytes = encoded(&batch(700), 5, 9);
        for bit in 0..2 * SECTOR_BYTES * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decoded(&bytes, 5, 9), None, "bit {bit}");
        }
    }

    #[test]
    fn sectors_of_two_frames_with_one_tag_do_not_mix() {
        // A frame that was torn off, and the one that took its place after the crash.
        let (torn, fresh) = (encoded(&batch(700), 5, 0), {
            let mut batch = batch(700);
            batch.put(Table::Meta, b"key".to_vec(), vec![8; 700]);
            encoded(&batch, 5, 0)
        });
        for first in [&torn, &fresh] {
            let second = if first == &torn { &fresh } else { &torn };
            let mixed = [&first[..SECTOR_BYTES], &second[SECTOR_BYTES..]].concat();
            assert_eq!(decoded(&mixed, 5, 0), None);
        }
    }

    #[test]
    fn frame_is_pinned() {
        // Bytes at rest: they never change within a format.
        let mut batch = Batch::new();
        batch.put(Table::Runs, b"k".to_vec(), b"value".to_vec());
        batch.delete(Table::Application, b"gone".to_vec());
        let bytes = encoded(&batch, 2, 1);
        let expected = [
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[28, 0, 0, 0],
            &[3, 1, 0, 5, 0, 0, 0, b'k', b'v', b'a', b'l', b'u', b'e'],
            &[11, 4, 0, 255, 255, 255, 255, b'g', b'o', b'n', b'e'],
        ]
        .concat();
        let (sector, rest) = bytes.split_at(SECTOR_BYTES);
        let (body, sum) = sector.split_at(SECTOR_BYTES - SUM_BYTES);
        assert_eq!(&body[..expected.len()], expected);
        assert!(body[expected.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(sum, PINNED);
        assert!(rest.len() == PAGE_BYTES - SECTOR_BYTES && rest.iter().all(|byte| *byte == 0));
    }

    const PINNED: [u8; 4] = [109, 187, 15, 184];
}

//! The keys of rows: short numbers in place of long ids, so that appends are in order.

use leno_crdt_codec::Seq;

/// Length of a key that names a thread.
pub(crate) fn thread(thread: u32) -> Vec<u8> {
    thread.to_be_bytes().to_vec()
}

/// A thread, then a log or another number.
pub(crate) fn log(thread: u32, log: u32) -> Vec<u8> {
    let mut key = self::thread(thread);
    key.extend_from_slice(&log.to_be_bytes());
    key
}

/// A thread, a log, then a place in it.
pub(crate) fn record(thread: u32, log: u32, seq: Seq) -> Vec<u8> {
    let mut key = self::log(thread, log);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// A place at which a log's control frontier changed. Begins with a thread number that no thread has,
/// so that reading the rows of a thread's logs never meets one.
pub(crate) fn step(thread: u32, log: u32, seq: Seq) -> Vec<u8> {
    let mut key = u32::MAX.to_be_bytes().to_vec();
    key.extend_from_slice(&record(thread, log, seq));
    key
}

/// The beginning of the keys made by [`step`] for a thread.
pub(crate) fn steps(thread: u32) -> Vec<u8> {
    let mut key = u32::MAX.to_be_bytes().to_vec();
    key.extend_from_slice(&self::thread(thread));
    key
}

/// A thread, then anything.
pub(crate) fn suffixed(thread: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = self::thread(thread);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The place at the end of a key made by [`record`].
pub(crate) fn seq(key: &[u8]) -> Option<Seq> {
    key.last_chunk().map(|bytes| Seq::from_be_bytes(*bytes))
}

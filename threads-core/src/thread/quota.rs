//! How much of a thread a peer keeps.

use super::Thread;
use super::log::Log;

/// How much of a thread a peer keeps of what others write: what a replicator promises, and no more.
///
/// Judged here alone: other peers are told that there is no room, and keep what they have. Own writes
/// are never refused. Nothing that is kept is dropped because a quota was lowered.
///
/// # Examples
///
/// ```
/// use leno_threads_core::thread::Quota;
///
/// let quota = Quota { bytes: 1 << 30, ..Quota::default() };
/// assert_eq!(quota.logs, 1024);
/// assert_eq!(quota.governance_bytes(), (1 << 30) + (1 << 28));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Quota {
    /// Most bytes of records, as they travel, of all logs together.
    pub bytes: u64,
    /// Most logs that have records.
    pub logs: u32,
}

impl Default for Quota {
    /// Everything of up to 1,024 logs.
    fn default() -> Self {
        Self {
            bytes: u64::MAX,
            logs: 1024,
        }
    }
}

impl Quota {
    /// Up to how many bytes in all governance is taken in: a quarter more, so that a thread whose data
    /// fills the quota can still be governed, and the quota's owner be released.
    #[must_use]
    pub fn governance_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.bytes / 4)
    }
}

impl Thread {
    /// Bytes of the records that are stored, of all logs, as they travel.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// How much of others' records is kept, if that is bounded.
    #[must_use]
    pub fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// Sets how much of others' records is kept, until the thread is loaded again. In a replica, use
    /// [`Replica::set_quota`](crate::sync::Replica::set_quota), which asks peers again.
    pub fn set_quota(&mut self, quota: Option<Quota>) {
        self.quota = quota;
    }

    /// Tells whether the quota has room for so many more bytes of a log.
    pub(super) fn has_room(&self, log: &Log, bytes: u64) -> bool {
        let Some(quota) = self.quota else {
            return true;
        };
        let most = match log.is_control {
            true => quota.governance_bytes(),
            false => quota.bytes,
        };
        let is_new = log.tip.seq == 0;
        let logs = self.logs.values().filter(|log| log.tip.seq > 0);
        let has_log = !is_new || logs.count() < quota.logs as usize;
        has_log && self.stored_bytes.saturating_add(bytes) <= most
    }
}

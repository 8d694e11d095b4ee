use std::ops::RangeInclusive;

use crate::dice::Dice;

/// What a message costs in [`Conditions::queue_bytes`] besides its bytes, so that empty ones count.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// How a network behaves in one direction.
///
/// # Examples
///
/// ```
/// use leno_sim::Conditions;
///
/// // A modem: 64 kbit/s, a second away, and one message in ten is lost.
/// let modem = Conditions {
///     latency_micros: 1_000_000..=1_000_000,
///     loss_per_million: 100_000,
///     attempts: 6,
///     bytes_per_second: Some(8_000),
///     ..Conditions::default()
/// };
/// assert_eq!(modem.stall_millis, 30_000);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conditions {
    /// The one-way delay of a message, drawn for each; messages never overtake one another.
    pub latency_micros: RangeInclusive<u64>,
    /// How many messages of a million are lost.
    pub loss_per_million: u32,
    /// How often a message is sent until it arrives: each further time takes twice as long as the one
    /// before, from a second on. If it is lost as often, that ends its link.
    pub attempts: u32,
    /// The bandwidth of each link; `None` is endless.
    pub bytes_per_second: Option<u64>,
    /// How many bytes of a link may be on the way or unread; above it, `send` waits.
    pub queue_bytes: usize,
    /// How long a side waits for one that takes nothing before the link is cut, and how long it may
    /// take until a side learns that the other is gone.
    pub stall_millis: u64,
}

impl Default for Conditions {
    /// A millisecond away, without loss, of endless bandwidth; queues of 1 MiB, 30 s to a stall.
    fn default() -> Self {
        Self {
            latency_micros: 200..=1_000,
            loss_per_million: 0,
            attempts: 1,
            bytes_per_second: None,
            queue_bytes: 1 << 20,
            stall_millis: 30_000,
        }
    }
}

/// How a transport that has a defect violates its contract: in how many messages of a million.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Breach {
    /// Bytes differ, are missing, or are too many.
    pub corrupt_per_million: u32,
    /// It arrives twice.
    pub duplicate_per_million: u32,
    /// It never arrives, and what follows does.
    pub drop_per_million: u32,
    /// What follows overtakes it.
    pub reorder_per_million: u32,
    /// It arrives once more on a later link.
    pub replay_per_million: u32,
}

/// Harms a message.
pub(super) fn corrupt(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.index(bytes.len());
    match dice.below(4) {
        0 => bytes.truncate(at),
        1 => bytes.extend(std::iter::repeat_n(0, at.min(64) + 1)),
        2 => {
            for byte in bytes.iter_mut().skip(at).take(8) {
                *byte = u8::try_from(dice.below(256)).unwrap_or(0);
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
    }
}

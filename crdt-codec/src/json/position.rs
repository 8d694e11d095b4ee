//! Places of list elements: byte strings that always leave room between two of them.

use std::fmt;

/// Longest position, in bytes.
pub const POSITION_BYTES_MAX: usize = 512;

/// The byte before a counter of no bytes. A counter of `n` bytes has `ZERO + n`, one below zero
/// `ZERO - n`, so that byte order is the order of the numbers.
const ZERO: u8 = 0x80;

/// Where an element stands in its list; elements are ordered by these bytes.
///
/// Not empty, at most [`POSITION_BYTES_MAX`] bytes, and never ends in zero, so that there is always
/// another one below it.
// The order of the bytes is the order of the list; do not derive it anew from other fields.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position(Box<[u8]>);

/// Why there is no such position.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// The two neighbours are equal, or in the wrong order.
    #[error("the left neighbour does not lie below the right one")]
    NotAscending,
    /// Too many elements were inserted at one place; rewrite the list.
    #[error("the position would be {bytes} bytes long, above {POSITION_BYTES_MAX}")]
    TooLong {
        /// Length that it would have.
        bytes: usize,
    },
    /// The bytes are empty or end in zero.
    #[error("a position is not empty and does not end in zero")]
    Invalid,
}

impl Position {
    /// Takes bytes as a position.
    ///
    /// # Errors
    ///
    /// [`PositionError::Invalid`], [`PositionError::TooLong`].
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, PositionError> {
        let bytes = bytes.into();
        match bytes.last() {
            None | Some(0) => Err(PositionError::Invalid),
            Some(_) if bytes.len() > POSITION_BYTES_MAX => {
                Err(PositionError::TooLong { bytes: bytes.len() })
            }
            Some(_) => Ok(Self(bytes)),
        }
    }

    /// Borrows the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Position(")?;
        for byte in &self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        formatter.write_str(")")
    }
}

/// Returns a position between two others, either of which may be absent.
///
/// `unique` are a few random bytes, always the same number of them; they make the positions of two
/// writers who insert at one place at one time differ, so that later elements fit between. (A last
/// byte of 0 counts as 1.) Appending, prepending and inserting beside the last insertion count up or
/// down, so positions grow with the logarithm of the number of such insertions; about 15 bytes after
/// 100,000 at one place.
///
/// # Errors
///
/// [`PositionError::NotAscending`] if `left >= right`; [`PositionError::TooLong`] after a few hundred
/// insertions that alternate between two sides of one place, or others in no order that counts.
///
/// # Examples
///
/// ```
/// use leno_crdt_codec::json::between;
///
/// let first = between(None, None, &[7; 4])?;
/// let last = between(Some(&first), None, &[3; 4])?;
/// let middle = between(Some(&first), Some(&last), &[9; 4])?;
/// assert!(first < middle && middle < last);
/// # Ok::<(), leno_crdt_codec::json::PositionError>(())
/// ```
pub fn between(
    left: Option<&Position>,
    right: Option<&Position>,
    unique: &[u8],
) -> Result<Position, PositionError> {
    if let (Some(left), Some(right)) = (left, right)
        && left >= right
    {
        return Err(PositionError::NotAscending);
    }
    let lies_between =
        |it: &Position| left.is_none_or(|left| left < it) && right.is_none_or(|right| it < right);
    let (left, right) = (left.map(Position::as_bytes), right.map(Position::as_bytes));
    // Guesses first: each is only taken if it lies between, so a foreign position that merely looks
    // as if it had a counter does no harm. The shortest is the one that reads counters rightly.
    let guesses = counted(left, right, unique)
        .into_iter()
        .chain(
            left.into_iter()
                .flat_map(|left| neighbours(left, unique, 1)),
        )
        .chain(
            right
                .into_iter()
                .flat_map(|right| neighbours(right, unique, -1)),
        );
    let guess = guesses.filter(lies_between).min_by_key(|it| it.0.len());
    if let Some(guess) = guess {
        return Ok(guess);
    }
    let mut bytes = middle(left.unwrap_or_default(), right);
    bytes.extend_from_slice(unique);
    bytes.push(ZERO);
    Position::new(bytes)
}

/// Returns `count` ascending positions between two others, as [`between`] for a whole run: elements
/// that were inserted together stay together.
///
/// # Errors
///
/// As [`between`].
pub fn run_between(
    left: Option<&Position>,
    right: Option<&Position>,
    unique: &[u8],
    count: usize,
) -> Result<Vec<Position>, PositionError> {
    let first = between(left, right, unique)?;
    if count <= 1 {
        return Ok(std::iter::repeat_n(first, count).collect());
    }
    // Whatever begins with `first` lies between too, unless the right neighbour begins with it.
    let stem = match right {
        Some(right) if right.0.starts_with(&first.0) => middle(&first.0, Some(&right.0)),
        _ => first.as_bytes().to_vec(),
    };
    (0..count)
        .map(|at| {
            let mut bytes = stem.clone();
            push_counter(&mut bytes, at as i64);
            close(bytes, &[])
        })
        .collect()
}

/// Before or behind the whole list: counts at the front.
fn counted(left: Option<&[u8]>, right: Option<&[u8]>, unique: &[u8]) -> Option<Position> {
    let counter = match (left, right) {
        (None, None) => 0,
        (Some(left), None) => read_counter(left)?.0.checked_add(1)?,
        (None, Some(right)) => read_counter(right)?.0.checked_sub(1)?,
        (Some(_), Some(_)) => return None,
    };
    let mut bytes = Vec::with_capacity(9 + unique.len() + 1);
    push_counter(&mut bytes, counter);
    close(bytes, unique).ok()
}

/// Counts on from a position that ends in a counter, with or without unique bytes behind it: one
/// guess for each way to read it so.
fn neighbours(of: &[u8], unique: &[u8], step: i64) -> impl Iterator<Item = Position> {
    let stripped = of.len().checked_sub(unique.len());
    let stripped = stripped.and_then(|length| of.get(..length));
    let read = move |bytes: &[u8], length: usize| {
        let (stem, tail) = bytes.split_at_checked(bytes.len().checked_sub(1 + length)?)?;
        let (counter, _) = read_counter(tail).filter(|(_, read)| *read == tail.len())?;
        let mut bytes = stem.to_vec();
        push_counter(&mut bytes, counter.checked_add(step)?);
        close(bytes, unique).ok()
    };
    let ways = stripped.into_iter().chain([of]);
    ways.flat_map(move |bytes| (0..=4).filter_map(move |length| read(bytes, length)))
}

/// Puts unique bytes behind a counter.
fn close(mut bytes: Vec<u8>, unique: &[u8]) -> Result<Position, PositionError> {
    bytes.extend_from_slice(unique);
    match (bytes.last_mut(), unique.is_empty()) {
        // Always as many bytes as `unique` has, so that the counter is found again.
        (Some(last @ 0), false) => *last = 1,
        (Some(0), true) => bytes.push(ZERO),
        _ => {}
    }
    Position::new(bytes)
}

/// Bytes above `left` such that whatever begins with them lies below `right`, which lies above `left`
/// and does not end in zero.
fn middle(left: &[u8], right: Option<&[u8]>) -> Vec<u8> {
    // The longer neighbour is the younger one as a rule; the next insertion will be beside it, so
    // the new bytes lie close to it and leave most of the room on the other side.
    let right_length = right.map_or(0, <[u8]>::len);
    let mut right = right;
    let mut bytes = Vec::with_capacity(left.len() + 8);
    loop {
        let at = bytes.len();
        let low = u16::from(left.get(at).copied().unwrap_or(0));
        let high = right.map_or(256, |right| u16::from(right.get(at).copied().unwrap_or(0)));
        // Equal so far, so `high` is at least `low` unless the caller broke the order.
        let gap = high.saturating_sub(low);
        let step = match gap {
            0 | 1 => 0,
            _ if left.len() > right_length => (gap / 16).max(1),
            _ if left.len() < right_length => gap - (gap / 16).max(1),
            _ => gap / 2,
        };
        bytes.push((low + step) as u8);
        if step > 0 {
            return bytes;
        }
        if gap == 1 {
            right = None;
        }
    }
}

/// Reads a counter from the front and tells how many bytes it has.
fn read_counter(bytes: &[u8]) -> Option<(i64, usize)> {
    let (first, rest) = bytes.split_first()?;
    let length = first.abs_diff(ZERO);
    if length > 7 {
        return None;
    }
    let digits = rest.get(..length.into())?;
    let flip = if *first < ZERO { 0xff } else { 0 };
    let value = digits
        .iter()
        .fold(0, |value, byte| value << 8 | i64::from(byte ^ flip));
    let value = if *first < ZERO { -value } else { value };
    Some((value, 1 + digits.len()))
}

fn push_counter(bytes: &mut Vec<u8>, value: i64) {
    let digits = value.unsigned_abs().to_be_bytes();
    let significant: Vec<u8> = digits.into_iter().skip_while(|digit| *digit == 0).collect();
    let length = significant.len() as u8;
    if value < 0 {
        bytes.push(ZERO - length);
        bytes.extend(significant.iter().map(|digit| digit ^ 0xff));
    } else {
        bytes.push(ZERO + length);
        bytes.extend(significant);
    }
}

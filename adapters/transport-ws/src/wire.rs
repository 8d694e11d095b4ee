//! The plaintext of a Noise message: one frame.
//!
//! ```text
//! part       00 | 1 or more bytes     a message that goes on in the next part
//! last       01 | 0 or more bytes     the end of a message, or all of it
//! greeting   02 | instance: u64 | generation: u64     once, first, each side
//! alive      03                        nothing to say, still there
//! hang-up    04                        the last frame of a side that hung up
//! close      05                        the last frame of an endpoint that closed
//! ```
//!
//! Integers are big-endian. It is public for those who write the other side in another language or
//! environment, and for the fuzzer.

use thiserror::Error;

/// The longest Noise message, and so the longest web-socket message, in bytes.
///
/// # Source
///
/// The Noise Protocol Framework, revision 34, section 3.
pub const NOISE_BYTES_MAX: usize = 65_535;

/// How many bytes of a message this side puts into one frame. A peer may take more, up to
/// [`NOISE_BYTES_MAX`] with all that is around them; less makes a slow network report progress sooner.
pub const PART_BYTES: usize = 16 * 1024;

const PART: u8 = 0;
const LAST: u8 = 1;
const GREETING: u8 = 2;
const ALIVE: u8 = 3;
const HANG_UP: u8 = 4;
const CLOSE: u8 = 5;

/// Tells one life of an endpoint, and the state of its links to a peer, from another.
///
/// A side counts `generation` up whenever a link to the peer ends there. So two connections with the
/// same greeting were begun by a side that knew of the same links, and one of them is a duplicate; a
/// connection with another greeting comes from a side for which the earlier ones are over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Greeting {
    /// A random number of the endpoint's life.
    pub instance: u64,
    /// How many links with this peer ended in it.
    pub generation: u64,
}

/// What is in one Noise message.
///
/// # Examples
///
/// ```
/// use leno_transport_ws::wire::{Frame, FrameError};
///
/// let bytes = Frame::Last(b"hello").encode();
/// assert_eq!(bytes, b"\x01hello");
/// assert_eq!(Frame::decode(&bytes), Ok(Frame::Last(b"hello")));
/// assert_eq!(Frame::decode(&[9]), Err(FrameError::UnknownKind { kind: 9 }));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Frame<'a> {
    /// Bytes of a message that goes on.
    Part(&'a [u8]),
    /// The last bytes of a message.
    Last(&'a [u8]),
    /// Who is there, of which life.
    Greeting(Greeting),
    /// A sign of life.
    Alive,
    /// The side hung up.
    HangUp,
    /// The endpoint closed.
    Close,
}

impl<'a> Frame<'a> {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Part(bytes) => joined(PART, bytes),
            Self::Last(bytes) => joined(LAST, bytes),
            Self::Greeting(greeting) => {
                let both = u128::from(greeting.instance) << 64 | u128::from(greeting.generation);
                joined(GREETING, &both.to_be_bytes())
            }
            Self::Alive => vec![ALIVE],
            Self::HangUp => vec![HANG_UP],
            Self::Close => vec![CLOSE],
        }
    }

    /// Reads a frame, which must be all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`FrameError`] for anything that [`encode`](Self::encode) does not write.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (kind, rest) = bytes.split_first().ok_or(FrameError::Empty)?;
        let wrong_length = FrameError::WrongLength {
            kind: *kind,
            len: bytes.len(),
        };
        match (*kind, rest) {
            (PART, []) => Err(wrong_length),
            (PART, rest) => Ok(Self::Part(rest)),
            (LAST, rest) => Ok(Self::Last(rest)),
            (GREETING, rest) => {
                let both = rest.try_into().map_err(|_| wrong_length)?;
                let both = u128::from_be_bytes(both);
                Ok(Self::Greeting(Greeting {
                    instance: (both >> 64) as u64,
                    generation: both as u64,
                }))
            }
            (ALIVE, []) => Ok(Self::Alive),
            (HANG_UP, []) => Ok(Self::HangUp),
            (CLOSE, []) => Ok(Self::Close),
            (ALIVE | HANG_UP | CLOSE, _) => Err(wrong_length),
            (kind, _) => Err(FrameError::UnknownKind { kind }),
        }
    }
}

fn joined(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1 + bytes.len());
    frame.push(kind);
    frame.extend_from_slice(bytes);
    frame
}

/// Cuts a message into frames of at most [`PART_BYTES`].
pub fn frames(message: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    // The longest stretch of whole parts that leaves something, or nothing of an empty message, over.
    let ahead = message.len().saturating_sub(1) / PART_BYTES * PART_BYTES;
    let (ahead, last) = message.split_at(ahead);
    let parts = ahead.chunks(PART_BYTES).map(Frame::Part);
    parts.chain(std::iter::once(Frame::Last(last)))
}

/// Why bytes are no frame.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum FrameError {
    /// There are no bytes.
    #[error("a frame is empty")]
    Empty,
    /// The first byte names no kind of frame.
    #[error("no frame is of kind {kind}")]
    UnknownKind {
        /// The byte.
        kind: u8,
    },
    /// A frame of that kind has another length.
    #[error("no frame of kind {kind} has {len} bytes")]
    WrongLength {
        /// The first byte.
        kind: u8,
        /// How many bytes there are, the first one included.
        len: usize,
    },
}

/// Puts messages together from their parts, in bounded memory.
///
/// # Examples
///
/// ```
/// use leno_transport_ws::wire::Assembler;
///
/// let mut assembler = Assembler::new(10);
/// assembler.part(b"hel")?;
/// assert_eq!(assembler.last(b"lo")?, b"hello");
/// assembler.part(b"a message ")?;
/// assert_eq!(assembler.last(b"of 12").unwrap_err().len, 15);
/// # Ok::<(), leno_transport_ws::wire::TooLong>(())
/// ```
#[derive(Debug)]
pub struct Assembler {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Assembler {
    /// Begins between two messages, of which none may be longer than `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
        }
    }

    /// Adds bytes of a message that goes on.
    ///
    /// # Errors
    ///
    /// [`TooLong`]; there is no going on after that.
    pub fn part(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let len = self.bytes.len().saturating_add(bytes.len());
        if len > self.bytes_max {
            return Err(TooLong { len });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds the last bytes and returns the message.
    ///
    /// # Errors
    ///
    /// As [`part`](Self::part).
    pub fn last(&mut self, bytes: &[u8]) -> Result<Vec<u8>, TooLong> {
        self.part(bytes)?;
        Ok(std::mem::take(&mut self.bytes))
    }

    /// How much of a message has come that is not whole yet.
    #[must_use]
    pub fn had(&self) -> usize {
        self.bytes.len()
    }
}

/// A message is longer than allowed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("a message has {len} bytes or more")]
pub struct TooLong {
    /// How many bytes of it are known.
    pub len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_as_they_are_written() {
        let greeting = Greeting {
            instance: 0x0102_0304_0506_0708,
            generation: 9,
        };
        let check = |frame: Frame<'_>, expected: &[u8]| {
            assert_eq!(frame.encode(), expected);
            assert_eq!(Frame::decode(expected), Ok(frame));
        };
        check(Frame::Part(&[7]), &[0, 7]);
        check(Frame::Last(&[]), &[1]);
        check(Frame::Last(&[7, 8]), &[1, 7, 8]);
        check(
            Frame::Greeting(greeting),
            &[2, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9],
        );
        check(Frame::Alive, &[3]);
        check(Frame::HangUp, &[4]);
        check(Frame::Close, &[5]);
    }

    #[test]
    fn other_bytes_are_refused_by_name() {
        let check = |bytes: &[u8], expected| assert_eq!(Frame::decode(bytes), Err(expected));
        let wrong = |kind, len| FrameError::WrongLength { kind, len };
        check(&[], FrameError::Empty);
        check(&[6], FrameError::UnknownKind { kind: 6 });
        check(&[0], wrong(0, 1));
        check(&[2; 16], wrong(2, 16));
        check(&[2; 18], wrong(2, 18));
        for kind in 3..6 {
            check(&[kind, 0], wrong(kind, 2));
        }
    }

    #[test]
    fn messages_of_any_length_come_together_again() {
        for len in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 100_000] {
            let message: Vec<u8> = (0..len).map(|it| (it % 251) as u8).collect();
            let mut assembler = Assembler::new(len);
            let mut whole = None;
            for frame in frames(&message) {
                assert!(whole.is_none(), "the last one is the last one");
                let bytes = frame.encode();
                assert!(bytes.len() <= 1 + PART_BYTES);
                match Frame::decode(&bytes) {
                    Ok(Frame::Part(bytes)) => assembler.part(bytes).unwrap(),
                    Ok(Frame::Last(bytes)) => whole = Some(assembler.last(bytes).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
            assert!(whole == Some(message), "{len}");
            assert_eq!(assembler.had(), 0);
        }
    }
}

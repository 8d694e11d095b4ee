//! The bytes of `/leno/1`: a greeting, then frames, on one stream in both directions.
//!
//! ```text
//! greeting   instance: u64 | generation: u64        once, first, each side
//! message    length: u32, below 2^31 | that many bytes
//! hang-up    0x8000_0000                              the last frame, if the side hung up
//! ```
//!
//! Integers are big-endian. A stream that ends between two frames means that the side closed its
//! endpoint. Any other length with the highest bit set is refused.
//!
//! A length is compared with the limit before anything is allocated, and then memory is taken only as
//! bytes arrive, [`CHUNK_BYTES`] at a time. A chunk, once begun, has the stall bound to get through.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use leno_transport_trait::DisconnectReason;
use tokio::time::timeout;

/// How much is read, written or allocated in one go, in bytes.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

const HANG_UP: u32 = 0x8000_0000;

/// Counts what goes over the wire, greetings and lengths included.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// What a reader or a writer of frames needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The longest message in bytes.
    pub(crate) message_bytes_max: usize,
    /// How long a chunk may take.
    pub(crate) stall: Duration,
    /// How long the other side has for its greeting, once there is a connection.
    pub(crate) greeting: Duration,
}

/// Tells one life of an endpoint, and the state of its links to a peer, from another.
///
/// A side counts `generation` up whenever a link to the peer ends there. So two connections with the
/// same greeting were begun by a side that knew of the same links, and one of them is a duplicate; a
/// connection with another greeting comes from a side for which the earlier ones are over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Greeting {
    pub(crate) instance: u64,
    pub(crate) generation: u64,
}

impl Greeting {
    pub(crate) async fn write(self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let bytes = u128::from(self.instance) << 64 | u128::from(self.generation);
        to.write_all(&bytes.to_be_bytes()).await?;
        to.flush().await
    }

    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut bytes = [0; 16];
        from.read_exact(&mut bytes).await?;
        let both = u128::from_be_bytes(bytes);
        Ok(Self {
            instance: (both >> 64) as u64,
            generation: both as u64,
        })
    }
}

/// What a side said.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    Message(Vec<u8>),
    HangUp,
    /// The stream ended between two frames.
    End,
}

/// Reads one frame; waits for its first byte as long as it takes.
pub(crate) async fn read_frame(
    from: &mut (impl AsyncRead + Unpin),
    bounds: Bounds,
    counters: &Counters,
) -> Result<Frame, DisconnectReason> {
    let mut header = [0; 4];
    let (first, rest) = header.split_at_mut(1);
    if from.read(first).await.map_err(lost)? == 0 {
        return Ok(Frame::End);
    }
    fill(from, rest, bounds.stall, |had| (4, 1 + had)).await?;
    count(&counters.received, header.len());
    let length = u32::from_be_bytes(header);
    match length {
        HANG_UP => return Ok(Frame::HangUp),
        _ if length as usize <= bounds.message_bytes_max => {}
        _ => {
            let (len, max) = (u64::from(length), bounds.message_bytes_max as u64);
            return Err(DisconnectReason::MessageTooLarge { len, max });
        }
    }
    let length = length as usize;
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let had = bytes.len();
        bytes.resize(length.min(had.saturating_add(CHUNK_BYTES)), 0);
        let (_, chunk) = bytes.split_at_mut(had);
        fill(from, chunk, bounds.stall, |more| {
            (length as u64, had as u64 + more)
        })
        .await?;
        count(&counters.received, bytes.len() - had);
    }
    Ok(Frame::Message(bytes))
}

/// Fills a buffer within the stall bound. `progress` says, of the bytes that came, what a frame that
/// ends there needed and had.
async fn fill(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    stall: Duration,
    progress: impl Fn(u64) -> (u64, u64),
) -> Result<(), DisconnectReason> {
    let mut filled = 0;
    let filling = async {
        while let Some(rest) = buffer.get_mut(filled..).filter(|it| !it.is_empty()) {
            match from.read(rest).await.map_err(lost)? {
                0 => {
                    let (needed, had) = progress(filled as u64);
                    return Err(DisconnectReason::Truncated { needed, had });
                }
                more => filled += more,
            }
        }
        Ok(())
    };
    timeout(stall, filling)
        .await
        .unwrap_or_else(|_| Err(stalled(stall)))
}

/// Writes frames, gathering small ones until [`flush`](Self::flush).
pub(crate) struct FrameWriter<'a, W> {
    to: W,
    gathered: Vec<u8>,
    bounds: Bounds,
    counters: &'a Counters,
}

impl<'a, W: AsyncWrite + Unpin> FrameWriter<'a, W> {
    pub(crate) fn new(to: W, bounds: Bounds, counters: &'a Counters) -> Self {
        Self {
            to,
            gathered: Vec::new(),
            bounds,
            counters,
        }
    }

    pub(crate) async fn message(&mut self, bytes: &[u8]) -> Result<(), DisconnectReason> {
        // The port refuses what is longer than a `u32` tells, long before.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.gathered.extend(length.to_be_bytes());
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.gathered.extend_from_slice(chunk);
            if self.gathered.len() >= CHUNK_BYTES {
                self.write_out().await?;
            }
        }
        Ok(())
    }

    /// Hands everything to the connection.
    pub(crate) async fn flush(&mut self) -> Result<(), DisconnectReason> {
        self.write_out().await?;
        let flushed = timeout(self.bounds.stall, self.to.flush()).await;
        flushed
            .map_err(|_| stalled(self.bounds.stall))?
            .map_err(lost)
    }

    /// Says that this side hung up, if it did, and ends the stream.
    pub(crate) async fn finish(&mut self, hang_up: bool) -> Result<(), DisconnectReason> {
        if hang_up {
            self.gathered.extend(HANG_UP.to_be_bytes());
        }
        self.flush().await?;
        self.to.close().await.map_err(lost)
    }

    async fn write_out(&mut self) -> Result<(), DisconnectReason> {
        // One deadline for all of it would punish a slow link that does make progress.
        for chunk in self.gathered.chunks(CHUNK_BYTES) {
            let written = timeout(self.bounds.stall, self.to.write_all(chunk)).await;
            written
                .map_err(|_| stalled(self.bounds.stall))?
                .map_err(lost)?;
            count(&self.counters.sent, chunk.len());
        }
        self.gathered.clear();
        Ok(())
    }
}

pub(crate) fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

fn lost(error: io::Error) -> DisconnectReason {
    DisconnectReason::Lost {
        detail: error.to_string(),
    }
}

pub(crate) fn stalled(stall: Duration) -> DisconnectReason {
    DisconnectReason::Stalled {
        millis: u64::try_from(stall.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::io::Cursor;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        message_bytes_max: 200_000,
        stall: Duration::from_secs(5),
        greeting: Duration::from_secs(5),
    };

    async fn check(bytes: &[u8], expected: Result<Frame, DisconnectReason>) {
        let counters = Counters::default();
        assert_eq!(
            read_frame(&mut Cursor::new(bytes), BOUNDS, &counters).await,
            expected
        );
    }

    fn truncated(needed: u64, had: u64) -> Result<Frame, DisconnectReason> {
        Err(DisconnectReason::Truncated { needed, had })
    }

    fn too_large(len: u64) -> Result<Frame, DisconnectReason> {
        Err(DisconnectReason::MessageTooLarge { len, max: 200_000 })
    }

    #[tokio::test]
    async fn frames_are_read_or_refused_by_name() {
        check(&[], Ok(Frame::End)).await;
        check(&[0, 0, 0, 0], Ok(Frame::Message(vec![]))).await;
        check(&[0, 0, 0, 2, 7, 8], Ok(Frame::Message(vec![7, 8]))).await;
        check(&[0x80, 0, 0, 0], Ok(Frame::HangUp)).await;
        check(&[0, 0], truncated(4, 2)).await;
        check(&[0, 0, 0, 3, 9], truncated(3, 1)).await;
        check(&[0, 0, 0, 1], truncated(1, 0)).await;
        check(&200_001_u32.to_be_bytes(), too_large(200_001)).await;
        check(&[0x80, 0, 0, 1], too_large(0x8000_0001)).await;
        check(&[0xff; 4], too_large(0xffff_ffff)).await;
    }

    #[tokio::test]
    async fn written_frames_are_read_back() {
        let messages = [
            vec![],
            vec![1; 10],
            vec![2; CHUNK_BYTES - 4],
            vec![3; 200_000],
            vec![4],
        ];
        let (sent, received) = (Counters::default(), Counters::default());
        let mut wire = Cursor::new(Vec::new());
        let mut writer = FrameWriter::new(&mut wire, BOUNDS, &sent);
        for message in &messages {
            writer.message(message).await.unwrap();
        }
        writer.finish(true).await.unwrap();
        let length = wire.get_ref().len() as u64;

        wire.set_position(0);
        for message in messages {
            let read = read_frame(&mut wire, BOUNDS, &received).await;
            assert!(read == Ok(Frame::Message(message)));
        }
        assert_eq!(
            read_frame(&mut wire, BOUNDS, &received).await,
            Ok(Frame::HangUp)
        );
        assert_eq!(
            read_frame(&mut wire, BOUNDS, &received).await,
            Ok(Frame::End)
        );
        assert_eq!(sent.sent.into_inner(), length);
        assert_eq!(received.received.into_inner(), length);
    }

    #[tokio::test]
    async fn greeting_is_sixteen_bytes() {
        let greeting = Greeting {
            instance: 0x0102_0304_0506_0708,
            generation: 9,
        };
        let mut wire = Cursor::new(Vec::new());
        greeting.write(&mut wire).await.unwrap();
        assert_eq!(
            wire.get_ref()[..],
            [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9]
        );
        wire.set_position(0);
        assert_eq!(Greeting::read(&mut wire).await.unwrap(), greeting);
    }
}

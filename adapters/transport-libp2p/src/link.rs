//! A live link as the handle, the swarm task and the connection's task share it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::io::BufReader;
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite};
use leno_transport_trait::{DisconnectReason, LinkId, Outbox};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::behaviour::Shared;
use crate::wire::{Bounds, Counters, Frame, FrameWriter, read_frame};

/// How long the other side has to read what was sent before a hang-up or a close.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A link that was reported as connected.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) outbox: Outbox,
    /// Whether the other side is told that this one hung up.
    says_hang_up: Mutex<bool>,
    ended: Notify,
}

impl Link {
    pub(crate) fn new(id: LinkId, queue_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            id,
            outbox: Outbox::new(queue_bytes),
            says_hang_up: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// Nothing more is sent but what is queued, and that this side hung up, if it did.
    pub(crate) fn end(&self, says_hang_up: bool) {
        *lock(&self.says_hang_up) = says_hang_up;
        self.outbox.end();
        self.ended.notify_one();
    }
}

/// The live links: at most one to each peer.
pub(crate) type Live = Mutex<BTreeMap<LinkId, Arc<Link>>>;

/// Carries messages both ways until the link ends, and says why it did.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    link: Arc<Link>,
    shared: Arc<Shared>,
    bounds: Bounds,
) -> DisconnectReason {
    let carrying = pin!(carry(stream, &link, &shared, bounds));
    // A link that this side ended does not wait for the other for long.
    let ended = pin!(async {
        link.ended.notified().await;
        sleep(LINGER).await;
    });
    match select(carrying, ended).await {
        Either::Left((reason, _)) => reason,
        Either::Right(_) => DisconnectReason::HungUp,
    }
}

async fn carry(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    link: &Link,
    shared: &Shared,
    bounds: Bounds,
) -> DisconnectReason {
    let (reader, writer) = stream.split();
    let mut reader = BufReader::with_capacity(16 * 1024, reader);
    let farewell = {
        let receiving = pin!(receive(&mut reader, link, shared, bounds));
        let sending = pin!(send(writer, link, bounds, &shared.counters));
        match select(receiving, sending).await {
            Either::Left((reason, _)) => return reason,
            Either::Right((farewell, _)) => farewell,
        }
    };
    if let Err(reason) = farewell {
        return reason;
    }
    // The other side ends the connection once it has read everything: ending it here would drop what
    // is still on the way. What it sends meanwhile is of no interest.
    let mut ignored = vec![0; 16 * 1024];
    let drained = async { while reader.read(&mut ignored).await.is_ok_and(|it| it > 0) {} };
    let _ = timeout(LINGER, drained).await;
    DisconnectReason::HungUp
}

async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    link: &Link,
    shared: &Shared,
    bounds: Bounds,
) -> DisconnectReason {
    loop {
        match read_frame(reader, bounds, &shared.counters).await {
            Ok(Frame::Message(bytes)) => {
                // What comes after the end of the link is of no interest.
                shared.links.deliver(link.id, bytes).await;
            }
            Ok(Frame::HangUp) => return DisconnectReason::PeerHungUp,
            Ok(Frame::End) => return DisconnectReason::PeerClosed,
            Err(reason) => return reason,
        }
    }
}

/// Writes what is queued until this side ends the link. What queued up meanwhile goes out in one write.
async fn send(
    writer: impl AsyncWrite + Unpin,
    link: &Link,
    bounds: Bounds,
    counters: &Counters,
) -> Result<(), DisconnectReason> {
    let mut writer = FrameWriter::new(writer, bounds, counters);
    while let Some(first) = link.outbox.take().await {
        let mut next = Some(first);
        while let Some(message) = next {
            writer.message(&message).await?;
            next = link.outbox.try_take();
        }
        writer.flush().await?;
    }
    let says_hang_up = *lock(&link.says_hang_up);
    writer.finish(says_hang_up).await
}

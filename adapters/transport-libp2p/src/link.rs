//! A live link as the handle, the swarm task and the connection's task share it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::io::BufReader;
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite};
use leno_transport_trait::{DisconnectReason, Event, LinkId, PeerId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::wire::{Bounds, Counters, Frame, FrameWriter, read_frame};

/// What a message costs in a queue besides its bytes, so that empty ones count.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// How many links may come and go unread before new ones are refused.
const UNREAD_LINKS_MAX: usize = 4096;

/// How long the other side has to read what was sent before a hang-up or a close.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a message occupies in a queue.
///
/// No more than the whole queue, so that any message fits into an empty one.
fn cost(len: usize, queue_bytes: usize) -> u32 {
    let cost = len.saturating_add(MESSAGE_OVERHEAD_BYTES).min(queue_bytes);
    u32::try_from(cost).unwrap_or(u32::MAX)
}

/// A byte-bounded right to put messages into a queue.
#[derive(Debug)]
struct Room {
    semaphore: Arc<Semaphore>,
    queue_bytes: usize,
}

impl Room {
    fn new(queue_bytes: usize) -> Self {
        let queue_bytes = queue_bytes.clamp(1, u32::MAX as usize);
        // `usize` may be too narrow a promise: the semaphore has a limit of its own.
        let queue_bytes = queue_bytes.min(Semaphore::MAX_PERMITS);
        Self {
            semaphore: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
        }
    }

    /// Waits for room; `None` if the queue is gone.
    async fn take(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let cost = cost(len, self.queue_bytes);
        self.semaphore.clone().acquire_many_owned(cost).await.ok()
    }
}

/// The events of all links, until [`next`](Self::next) takes them.
///
/// Messages are bounded in bytes by `room`. The coming and going of links is bounded by refusing new
/// ones: see [`is_crowded`](Self::is_crowded).
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    filled: Notify,
    room: Room,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<(Event, Option<OwnedSemaphorePermit>)>,
    links: usize,
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(queue_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            room: Room::new(queue_bytes),
        }
    }

    fn push(&self, event: Event, permit: Option<OwnedSemaphorePermit>) {
        let mut queue = lock(&self.queue);
        if !queue.closed {
            queue.links += usize::from(matches!(event, Event::Connected { .. }));
            queue.events.push_back((event, permit));
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Whether nobody has read of so many links that no more should be made.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.queue).links >= UNREAD_LINKS_MAX
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }

    pub(crate) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.events.clear();
        drop(queue);
        self.filled.notify_waiters();
        self.filled.notify_one();
    }

    pub(crate) async fn next(&self) -> Option<Event> {
        loop {
            // Enabled before the look, so that nothing falls between the look and the wait.
            let mut filled = pin!(self.filled.notified());
            filled.as_mut().enable();
            {
                let mut queue = lock(&self.queue);
                if queue.closed {
                    return None;
                }
                if let Some((event, _permit)) = queue.events.pop_front() {
                    queue.links -= usize::from(matches!(event, Event::Connected { .. }));
                    if !queue.events.is_empty() {
                        // There may be another caller, and one notice stands for many events.
                        self.filled.notify_one();
                    }
                    return Some(event);
                }
            }
            filled.await;
        }
    }
}

/// What the connection's task shall send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(Vec<u8>, OwnedSemaphorePermit),
    /// The last: flush, say so if it is a hang-up, and end the stream.
    Farewell {
        hang_up: bool,
    },
}

/// A link that was reported as connected.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PeerId,
    pub(crate) id: LinkId,
    /// Held while reporting, so that nothing of a link is reported after its end.
    open: Mutex<bool>,
    ended: Notify,
    inbox: Arc<Inbox>,
    room: Room,
    outgoing: mpsc::UnboundedSender<Outgoing>,
}

impl Link {
    /// Reports a new link and returns it with what is to be sent on it.
    ///
    /// The channel has no bound of its own: `room` bounds it.
    pub(crate) fn open(
        peer: PeerId,
        id: LinkId,
        inbox: Arc<Inbox>,
        queue_bytes: usize,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Outgoing>) {
        let (outgoing, receiver) = mpsc::unbounded_channel();
        inbox.push(Event::Connected { peer, link: id }, None);
        let room = Room::new(queue_bytes);
        let open = Mutex::new(true);
        (
            Arc::new(Self {
                peer,
                id,
                open,
                ended: Notify::new(),
                inbox,
                room,
                outgoing,
            }),
            receiver,
        )
    }

    /// Queues a message as soon as there is room; false if the link is over.
    pub(crate) async fn send(&self, message: Vec<u8>) -> bool {
        let Some(permit) = self.room.take(message.len()).await else {
            return false;
        };
        self.outgoing
            .send(Outgoing::Message(message, permit))
            .is_ok()
    }

    /// Reports the end, unless that was done; true if it was not.
    pub(crate) fn end(&self, reason: DisconnectReason) -> bool {
        let mut open = lock(&self.open);
        let first = std::mem::replace(&mut *open, false);
        if first {
            let (peer, link) = (self.peer, self.id);
            self.inbox
                .push(Event::Disconnected { peer, link, reason }, None);
            self.room.semaphore.close();
            self.ended.notify_one();
        }
        first
    }

    /// Lets the other side know of an end, after all that was queued before.
    pub(crate) fn bid_farewell(&self, hang_up: bool) {
        // Without a receiver the connection is gone, and the other side knows.
        let _ = self.outgoing.send(Outgoing::Farewell { hang_up });
    }

    /// Queues what came in as soon as there is room; drops it if the link is over.
    async fn deliver(&self, bytes: Vec<u8>) {
        let permit = self.inbox.room.take(bytes.len()).await;
        let open = lock(&self.open);
        if *open {
            let event = Event::Message {
                from: self.peer,
                link: self.id,
                bytes,
            };
            self.inbox.push(event, permit);
        }
    }
}

/// The live links: at most one to each peer.
pub(crate) type Links = Mutex<BTreeMap<LinkId, Arc<Link>>>;

/// Carries messages both ways until the link ends, and says why it did.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    link: Arc<Link>,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    bounds: Bounds,
    counters: Arc<Counters>,
) -> DisconnectReason {
    let carrying = pin!(carry(stream, &link, outgoing, bounds, &counters));
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
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    bounds: Bounds,
    counters: &Counters,
) -> DisconnectReason {
    let (reader, writer) = stream.split();
    let mut reader = BufReader::with_capacity(16 * 1024, reader);
    let farewell = {
        let receiving = pin!(receive(&mut reader, link, bounds, counters));
        let sending = pin!(send(writer, outgoing, bounds, counters));
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
    bounds: Bounds,
    counters: &Counters,
) -> DisconnectReason {
    loop {
        match read_frame(reader, bounds, counters).await {
            Ok(Frame::Message(bytes)) => link.deliver(bytes).await,
            Ok(Frame::HangUp) => return DisconnectReason::PeerHungUp,
            Ok(Frame::End) => return DisconnectReason::PeerClosed,
            Err(reason) => return reason,
        }
    }
}

/// Writes what is queued until the farewell. What queued up meanwhile goes out in one write.
async fn send(
    writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    bounds: Bounds,
    counters: &Counters,
) -> Result<(), DisconnectReason> {
    let mut writer = FrameWriter::new(writer, bounds, counters);
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some(it) = next {
            match it {
                Outgoing::Message(bytes, _permit) => writer.message(&bytes).await?,
                Outgoing::Farewell { hang_up } => return writer.finish(hang_up).await,
            }
            next = outgoing.try_recv().ok();
        }
        writer.flush().await?;
    }
    writer.finish(false).await
}

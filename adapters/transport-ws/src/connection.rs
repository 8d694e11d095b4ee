//! One connection: proves who is there, agrees on the link, carries it.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{SplitSink, SplitStream};
use leno_transport_trait::{DisconnectReason, LinkId, Links, MESSAGE_BYTES_MAX, Outbox, PeerId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use crate::noise::{Opener, Sealer};
use crate::socket::{self, Socket};
use crate::wire::{Assembler, Frame, Greeting, frames};

/// How long the other side has to read what was sent before a hang-up or a close.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Counts the web sockets' binary messages, in bytes, those of handshakes left out.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) stall: Duration,
    pub(crate) alive: Duration,
    pub(crate) silence: Duration,
}

/// What is said last, when this side ends the link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Farewell {
    HangUp,
    Close,
    /// The link goes on elsewhere, and nobody listens here any more.
    Nothing,
}

/// A connection that is, or was, the link, as the endpoint and the connection's task share it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: PeerId,
    pub(crate) link: LinkId,
    pub(crate) outbox: Outbox,
    farewell: Mutex<Option<Farewell>>,
    ended: Notify,
}

impl Connection {
    pub(crate) fn new(peer: PeerId, link: LinkId, queue_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            peer,
            link,
            outbox: Outbox::new(queue_bytes),
            farewell: Mutex::default(),
            ended: Notify::new(),
        })
    }

    fn farewell(&self) -> MutexGuard<'_, Option<Farewell>> {
        self.farewell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it from this side, after all that was queued before.
    pub(crate) fn bid_farewell(&self, farewell: Farewell) {
        *self.farewell() = Some(farewell);
        self.outbox.end();
        self.ended.notify_one();
    }

    /// Waits until nothing more is to be expected of a link that this side ended.
    async fn given_up(&self) {
        self.ended.notified().await;
        if *self.farewell() != Some(Farewell::Nothing) {
            sleep(LINGER).await;
        }
    }
}

/// What comes, decrypted.
pub(crate) struct Receiver {
    pub(crate) stream: SplitStream<Socket>,
    pub(crate) opener: Opener,
    pub(crate) counters: Arc<Counters>,
}

impl Receiver {
    /// Waits for the plaintext of the next frame; `None` if the other side ended the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, DisconnectReason> {
        let Some(bytes) = socket::receive(&mut self.stream).await? else {
            return Ok(None);
        };
        let received = &self.counters.received;
        received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // Whoever is on the way may have done this, so the peer is not blamed.
        let opened = self
            .opener
            .open(&bytes)
            .map_err(|_| DisconnectReason::Lost {
                detail: "what came is not of this channel".to_owned(),
            })?;
        Ok(Some(opened))
    }

    /// Waits for the greeting.
    pub(crate) async fn greeting(&mut self) -> Result<Greeting, String> {
        let frame = self.next().await.map_err(|reason| reason.to_string())?;
        let frame = frame.ok_or("the connection ended without a greeting")?;
        match Frame::decode(&frame) {
            Ok(Frame::Greeting(greeting)) => Ok(greeting),
            Ok(_) => Err("there was no greeting".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What goes, encrypted.
pub(crate) struct Sender {
    pub(crate) sink: SplitSink<Socket, Message>,
    pub(crate) sealer: Sealer,
    pub(crate) counters: Arc<Counters>,
}

impl Sender {
    /// Hands a frame over; it may be gathered until [`flush`](Self::flush).
    async fn feed(&mut self, frame: Frame<'_>, stall: Duration) -> Result<(), DisconnectReason> {
        let sealed = self.sealer.seal(&frame.encode());
        let sealed = sealed.map_err(|error| DisconnectReason::Lost {
            detail: error.to_string(),
        })?;
        let len = sealed.len() as u64;
        within(stall, socket::feed(&mut self.sink, sealed)).await?;
        self.counters.sent.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    async fn flush(&mut self, stall: Duration) -> Result<(), DisconnectReason> {
        within(stall, socket::flush(&mut self.sink)).await
    }

    /// Sends a frame.
    pub(crate) async fn send(
        &mut self,
        frame: Frame<'_>,
        stall: Duration,
    ) -> Result<(), DisconnectReason> {
        self.feed(frame, stall).await?;
        self.flush(stall).await
    }
}

async fn within(
    stall: Duration,
    doing: impl Future<Output = Result<(), DisconnectReason>>,
) -> Result<(), DisconnectReason> {
    let done = timeout(stall, doing).await;
    done.unwrap_or_else(|_| Err(stalled(stall)))
}

fn stalled(stall: Duration) -> DisconnectReason {
    DisconnectReason::Stalled {
        millis: u64::try_from(stall.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Carries messages both ways until the link ends, and says why it did. `answer` is said first.
pub(crate) async fn run(
    connection: &Connection,
    links: &Links,
    mut receiver: Receiver,
    mut sender: Sender,
    answer: Option<Greeting>,
    bounds: Bounds,
) -> DisconnectReason {
    let carrying = pin!(async {
        let farewell = {
            let receiving = pin!(receive(&mut receiver, connection, links, bounds));
            let sending = pin!(send(&mut sender, connection, answer, bounds));
            match select(receiving, sending).await {
                Either::Left((reason, _)) => return reason,
                Either::Right((farewell, _)) => farewell,
            }
        };
        if let Err(reason) = farewell {
            return reason;
        }
        // The other side ends the connection once it has read everything: ending it here would drop
        // what is still on the way. What it sends meanwhile is of no interest.
        while let Ok(Some(_)) = socket::receive(&mut receiver.stream).await {}
        DisconnectReason::HungUp
    });
    // A link that this side ended does not wait for the other for long.
    let given_up = pin!(connection.given_up());
    match select(carrying, given_up).await {
        Either::Left((reason, _)) => reason,
        Either::Right(_) => DisconnectReason::HungUp,
    }
}

async fn receive(
    receiver: &mut Receiver,
    connection: &Connection,
    links: &Links,
    bounds: Bounds,
) -> DisconnectReason {
    let mut assembler = Assembler::new(MESSAGE_BYTES_MAX);
    // When a message that was begun has to go on, signs of life or not.
    let mut goes_on: Option<Instant> = None;
    loop {
        let silent = Instant::now() + bounds.silence;
        let deadline = goes_on.map_or(silent, |it| it.min(silent));
        let Ok(next) = timeout_at(deadline, receiver.next()).await else {
            if deadline < silent {
                return stalled(bounds.stall);
            }
            let detail = format!("no sign of life for {} ms", bounds.silence.as_millis());
            return DisconnectReason::Lost { detail };
        };
        let plaintext = match next {
            Ok(Some(plaintext)) => plaintext,
            Ok(None) => return ended(&assembler),
            Err(reason) => return reason,
        };
        let taken = match Frame::decode(&plaintext) {
            Ok(Frame::Part(bytes)) => {
                goes_on = Some(Instant::now() + bounds.stall);
                assembler.part(bytes).map(|()| None)
            }
            Ok(Frame::Last(bytes)) => {
                goes_on = None;
                assembler.last(bytes).map(Some)
            }
            Ok(Frame::Alive) => Ok(None),
            Ok(Frame::HangUp) => return DisconnectReason::PeerHungUp,
            Ok(Frame::Close) => return DisconnectReason::PeerClosed,
            Ok(Frame::Greeting(_)) => return misbehaved("a second greeting"),
            Err(error) => return misbehaved(&error.to_string()),
        };
        match taken {
            Ok(Some(message)) => {
                // What comes after the end of the link is of no interest.
                links.deliver(connection.link, message).await;
            }
            Ok(None) => {}
            Err(too_long) => {
                let (len, max) = (too_long.len as u64, MESSAGE_BYTES_MAX as u64);
                return DisconnectReason::MessageTooLarge { len, max };
            }
        }
    }
}

/// The connection ended without a farewell.
fn ended(assembler: &Assembler) -> DisconnectReason {
    match assembler.had() as u64 {
        0 => DisconnectReason::Lost {
            detail: "the connection ended without a farewell".to_owned(),
        },
        // A message says where it ends, and not how long it is: at least one byte was to come.
        had => DisconnectReason::Truncated {
            needed: had + 1,
            had,
        },
    }
}

fn misbehaved(detail: &str) -> DisconnectReason {
    DisconnectReason::Misbehaved {
        detail: detail.to_owned(),
    }
}

/// Sends what is queued until this side ends the link, then says so.
async fn send(
    sender: &mut Sender,
    connection: &Connection,
    answer: Option<Greeting>,
    bounds: Bounds,
) -> Result<(), DisconnectReason> {
    if let Some(greeting) = answer {
        sender.send(Frame::Greeting(greeting), bounds.stall).await?;
    }
    loop {
        let Ok(taken) = timeout(bounds.alive, connection.outbox.take()).await else {
            sender.send(Frame::Alive, bounds.stall).await?;
            continue;
        };
        let Some(mut message) = taken else {
            break;
        };
        // What queued up meanwhile goes out along with it.
        loop {
            for frame in frames(&message) {
                sender.feed(frame, bounds.stall).await?;
            }
            let Some(next) = connection.outbox.try_take() else {
                break;
            };
            message = next;
        }
        sender.flush(bounds.stall).await?;
    }
    let farewell = *connection.farewell();
    match farewell {
        Some(Farewell::HangUp) => sender.send(Frame::HangUp, bounds.stall).await,
        Some(Farewell::Close) => sender.send(Frame::Close, bounds.stall).await,
        Some(Farewell::Nothing) | None => Ok(()),
    }
}

//! What a peer tells the application without being asked.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_channel::mpsc;
use futures_util::Stream;
use leno_threads_core::thread::{Parked, Quarantine};
use leno_threads_core::{EpochId, LogId, RecordRef, ThreadId};
use leno_threads_db::Event as DbEvent;
use leno_transport_trait::PeerId;

/// Most events that wait for a slow subscriber. Beyond that they are dropped, and it is told.
pub const EVENTS_MAX: usize = 4096;

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is connected.
    Connected {
        /// Who.
        peer: PeerId,
    },
    /// A peer is no longer connected.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// Why, for a person to read.
        reason: String,
    },
    /// Records of a log came in or were written.
    Admitted {
        /// The thread.
        thread: ThreadId,
        /// How many.
        records: u64,
    },
    /// How far a thread is from level with a peer.
    Progress {
        /// The thread.
        thread: ThreadId,
        /// The peer.
        peer: PeerId,
        /// Records that the peer announced and that have not come yet.
        to_receive: u64,
        /// Records that are here and that the peer lacks.
        to_send: u64,
    },
    /// Roles, logs, epochs or the roster of a thread changed.
    GovernanceChanged {
        /// The thread.
        thread: ThreadId,
    },
    /// The key of an epoch came: what was sealed under it reads now.
    KeyCame {
        /// The thread.
        thread: ThreadId,
        /// The epoch.
        epoch: EpochId,
    },
    /// Records of a log wait for a fact; they come in by themselves.
    Waits {
        /// The thread.
        thread: ThreadId,
        /// The log.
        log: LogId,
        /// For what.
        parked: Parked,
    },
    /// A record was put aside.
    Quarantined {
        /// The thread.
        thread: ThreadId,
        /// The record.
        record: RecordRef,
        /// Why.
        reason: Quarantine,
    },
    /// A log has two branches; the evidence is kept.
    Forked {
        /// The thread.
        thread: ThreadId,
        /// The log.
        log: LogId,
    },
    /// A copy of this device wrote: the log is left alone, and the next write opens another.
    OwnLogAhead {
        /// The thread.
        thread: ThreadId,
        /// The log.
        log: LogId,
    },
    /// Something of a thread's documents that is not a change, such as an op that means nothing.
    Documents {
        /// The thread.
        thread: ThreadId,
        /// What.
        event: DbEvent,
    },
    /// What a peer sent was refused; the error names peer and record.
    Refused {
        /// Who sent it.
        peer: PeerId,
        /// What is wrong, with its causes.
        error: String,
    },
    /// Another peer keeps the newest record of the own log.
    Replicated {
        /// The thread.
        thread: ThreadId,
        /// Who keeps it.
        peer: PeerId,
    },
    /// So many events were dropped here because this subscriber was slow.
    Lagged {
        /// How many.
        dropped: u64,
    },
}

/// Events as they happen. Ends when the peer closes.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event, or nothing once the peer is closed.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        Pin::new(&mut self.receiver).poll_next(context)
    }
}

/// Who wants to hear.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    all: Vec<Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    sender: mpsc::Sender<Event>,
    dropped: u64,
}

impl Subscribers {
    pub(crate) fn add(&mut self) -> Events {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        self.all.push(Subscriber { sender, dropped: 0 });
        Events { receiver }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn tell(&mut self, event: &Event) {
        self.all.retain_mut(|subscriber| subscriber.tell(event));
    }
}

impl Subscriber {
    /// Returns whether the subscriber is still there.
    fn tell(&mut self, event: &Event) -> bool {
        if self.dropped > 0 {
            let lagged = Event::Lagged {
                dropped: self.dropped,
            };
            match self.sender.try_send(lagged) {
                Ok(()) => self.dropped = 0,
                Err(error) if error.is_disconnected() => return false,
                Err(_) => {
                    self.dropped += 1;
                    return true;
                }
            }
        }
        match self.sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(error) if error.is_disconnected() => false,
            Err(_) => {
                self.dropped += 1;
                true
            }
        }
    }
}

//! What a peer tells the application without being asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use leno_threads_core::sync::SyncError;
use leno_threads_core::thread::{Parked, Quarantine};
use leno_threads_core::{EpochId, LogId, RecordRef, ThreadId};
use leno_threads_db::Event as DbEvent;
use leno_transport_trait::{Address, PeerId};

use crate::queue::{Next, Receiver, Sender, queue};

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
    /// A network that looks around found somebody whom this peer does not know: on the local network,
    /// for instance. Nobody vouches for it, and nothing is dialled unless the application calls
    /// [`Peer::connect`](crate::Peer::connect). Whoever is known is dialled without this event.
    Discovered {
        /// Who is said to be there.
        peer: PeerId,
        /// Where.
        address: Address,
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
    /// A log has two branches, which its writer signed both; the evidence is kept.
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
        /// What is wrong; its sources say why.
        error: Arc<SyncError>,
    },
    /// Another peer keeps everything that this one wrote to the thread's documents.
    ///
    /// Told once for each newest record and peer, when the peer's acknowledgement comes.
    Replicated {
        /// The thread.
        thread: ThreadId,
        /// Who keeps it.
        peer: PeerId,
    },
    /// A peer has no room for more of a thread: its quota there is used up, or too much waits.
    ///
    /// Told once until there is room again.
    NoRoom {
        /// The thread.
        thread: ThreadId,
        /// Who has no room.
        peer: PeerId,
    },
    /// So many events were dropped here because this subscriber was slow.
    Lagged {
        /// How many.
        dropped: u64,
    },
}

/// Events as they happen. Ends when the peer closes.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use leno::{Event, ManualClock, Peer};
///
/// let (peer, driver) = Peer::builder().clock(ManualClock::new(0)).build().await?;
/// let app = async {
///     let mut events = peer.events().await?;
///     let band = peer.create_thread("band").await?;
///     let Some(Event::GovernanceChanged { thread }) = events.next().await else { panic!() };
///     assert_eq!(thread, band.id());
///     peer.close().await
/// };
/// futures_util::try_join!(driver.run(), app)?;
/// # Ok(()) }) }
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
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
        let next = self.receiver.poll_next(context);
        next.map(|next| {
            next.map(|next| match next {
                Next::Item(event) => event,
                Next::Lost(dropped) => Event::Lagged { dropped },
            })
        })
    }
}

/// Who wants to hear.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    all: Vec<Sender<Event>>,
}

impl Subscribers {
    pub(crate) fn add(&mut self) -> Events {
        let (sender, receiver) = queue(EVENTS_MAX);
        self.all.push(sender);
        Events { receiver }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn tell(&mut self, event: &Event) {
        self.all
            .retain(|subscriber| subscriber.push(|| event.clone()));
    }
}

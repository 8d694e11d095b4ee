//! Keeping carried threads on a store that several hubs share.
//!
//! One task does all of it: it loads what a hub that starts, or begins to carry a thread, finds there,
//! and saves what came in since. It looks again soon after something happened and every few seconds, so
//! nothing that it has to do is kept anywhere but in what the peer has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leno::{Error, Event, Events, Objects, Shared, SharedError, ThreadId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::hub::HubError;

/// How long what happens is gathered before it is saved: an append costs three requests.
const GATHER: Duration = Duration::from_millis(300);

/// How often it is looked whether something is unsaved of which no event told: keys, and records that wait.
const LOOK: Duration = Duration::from_secs(5);

/// Most threads that are saved or loaded at once.
const AT_ONCE: usize = 16;

/// Pause after a thread could not be saved or loaded; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long the end of the hub waits for what is unsaved.
const FAREWELL: Duration = Duration::from_secs(10);

/// The task that loads and saves. A handle.
#[derive(Debug)]
pub(crate) struct Sharing {
    shared: Shared,
    told: mpsc::UnboundedSender<Told>,
}

#[derive(Debug)]
enum Told {
    Begins(ThreadId),
    Ends(oneshot::Sender<()>),
}

impl Sharing {
    /// Opens the store of a URL, and begins to load and save.
    pub(crate) async fn start(peer: &leno::Peer, url: &str) -> Result<Self, HubError> {
        let objects = Objects::open(url).map_err(|source| HubError::Shared(Arc::new(source)))?;
        let shared = peer.shared(objects).await?;
        let (told, telling) = mpsc::unbounded_channel();
        let events = peer.events().await?;
        let unloaded = peer.threads().await?.iter().map(leno::Thread::id).collect();
        let keeper = Keeper {
            peer: peer.clone(),
            shared: shared.clone(),
            unloaded,
            late: BTreeMap::new(),
        };
        tokio::spawn(keeper.run(events, telling));
        Ok(Self { shared, told })
    }

    /// A thread is carried from now on: what is there of it is loaded.
    pub(crate) fn begins(&self, thread: ThreadId) {
        // If the task has ended, so has the peer.
        let _ = self.told.send(Told::Begins(thread));
    }

    /// The threads of which not all that is here is known to be on the shared store.
    pub(crate) async fn unsaved(&self) -> Result<BTreeSet<ThreadId>, Error> {
        Ok(self.shared.unsaved().await?.into_iter().collect())
    }

    /// Saves what is unsaved, as far as the store is there, and ends.
    pub(crate) async fn close(&self) {
        let (reply, ended) = oneshot::channel();
        let _ = self.told.send(Told::Ends(reply));
        if timeout(FAREWELL, ended).await.is_err() {
            tracing::warn!("ended before all was on the shared store; the next start goes on");
        }
    }
}

struct Keeper {
    peer: leno::Peer,
    shared: Shared,
    /// Threads of which it was not looked yet what is on the shared store.
    unloaded: BTreeSet<ThreadId>,
    /// Threads that did not go well: how often, and when they are tried again.
    late: BTreeMap<ThreadId, (u32, Instant)>,
}

impl Keeper {
    async fn run(mut self, mut events: Events, mut told: mpsc::UnboundedReceiver<Told>) {
        loop {
            if self.round().await.is_err() {
                // The peer is closed.
                return;
            }
            let retry = self.late.values().map(|(_, at)| *at).min();
            let look = Instant::now() + LOOK;
            tokio::select! {
                () = sleep_until(retry.unwrap_or(look).min(look)) => {}
                news = news(&mut events) => match news {
                    true => gather(&mut events).await,
                    false => return,
                },
                told = told.recv() => match told {
                    Some(Told::Begins(thread)) => drop(self.unloaded.insert(thread)),
                    Some(Told::Ends(reply)) => {
                        // What fails now is for the next start.
                        drop(self.round().await);
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    /// Loads and saves what is due.
    async fn round(&mut self) -> Result<(), Error> {
        let mut due: BTreeSet<ThreadId> = self.unloaded.clone();
        due.extend(self.shared.unsaved().await?);
        let now = Instant::now();
        due.retain(|id| self.late.get(id).is_none_or(|(_, at)| *at <= now));
        let mut running = JoinSet::new();
        let mut due = due.into_iter();
        loop {
            while running.len() < AT_ONCE
                && let Some(id) = due.next()
            {
                let (peer, shared) = (self.peer.clone(), self.shared.clone());
                let loads = self.unloaded.contains(&id);
                running.spawn(async move { (id, share(&peer, &shared, id, loads).await) });
            }
            match running.join_next().await {
                Some(Ok((id, outcome))) => self.ended(id, outcome),
                Some(Err(error)) => tracing::error!(%error, "a thread was not shared"),
                None => return Ok(()),
            }
        }
    }

    fn ended(&mut self, id: ThreadId, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) | Err(Error::NoSuchThread(_)) => {
                self.unloaded.remove(&id);
                self.late.remove(&id);
            }
            Err(error) => {
                let tries = self.late.get(&id).map_or(0, |(tries, _)| *tries);
                let pause = PAUSE.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(thread = %id, %error, source, tries, "not shared yet");
                self.late.insert(id, (tries + 1, Instant::now() + pause));
            }
        }
    }
}

/// Waits for something that may be worth saving; tells whether the peer is still there.
async fn news(events: &mut Events) -> bool {
    while let Some(event) = events.next().await {
        let is_news = matches!(
            event,
            Event::Admitted { .. }
                | Event::GovernanceChanged { .. }
                | Event::Waits { .. }
                | Event::Quarantined { .. }
                | Event::Forked { .. }
                | Event::Lagged { .. }
        );
        if is_news {
            return true;
        }
    }
    false
}

/// Passes over what else happens for a while: one look finds it all.
async fn gather(events: &mut Events) {
    let until = Instant::now() + GATHER;
    while let Ok(Some(_)) = timeout_at(until, events.next()).await {}
}

/// Loads a thread if that is due, and saves it.
async fn share(peer: &leno::Peer, shared: &Shared, id: ThreadId, loads: bool) -> Result<(), Error> {
    let thread = peer.thread(id).await?;
    if loads {
        load(shared, &thread).await?;
    }
    let saved = match shared.save(&thread).await {
        Err(Error::Shared(error @ SharedError::RolledBack { .. })) => {
            tracing::warn!(thread = %id, %error, "the shared store lost some: saved again");
            shared.accept_older(&thread).await?;
            shared.save(&thread).await?
        }
        // Nothing of it is here, and nothing was there.
        Err(Error::NotSyncedYet(_)) => return Ok(()),
        saved => saved?,
    };
    if saved.records > 0 || saved.wraps > 0 {
        tracing::debug!(thread = %id, records = saved.records, keys = saved.wraps, "saved");
    }
    if saved.has_more && !loads {
        load(shared, &thread).await?;
    }
    Ok(())
}

async fn load(shared: &Shared, thread: &leno::Thread) -> Result<(), Error> {
    let loaded = shared.load(thread).await?;
    let id = thread.id();
    for (segment, error) in &loaded.damaged {
        tracing::warn!(thread = %id, %segment, %error, "damaged on the shared store");
    }
    for error in &loaded.refused {
        tracing::warn!(thread = %id, %error, "not taken from the shared store");
    }
    if loaded.records > 0 {
        tracing::info!(thread = %id, records = loaded.records, left = loaded.left, "loaded");
    }
    Ok(())
}

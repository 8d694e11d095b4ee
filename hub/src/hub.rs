//! The peer of a hub and what it promised.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leno::identity::Device;
use leno::{
    Address, Card, Error, Event, Peer, Quota, Role, Thread, ThreadStatus, Ticket, Unsent, Ws,
    WsBuilder,
};
use tokio::sync::Mutex;

use crate::config::{Account, Config};
use crate::ledger::{Ledger, LedgerError, Promise};
use crate::share::Sharing;

/// How long others may take to hear that the hub leaves a thread, before it is deleted here.
const FAREWELL: Duration = Duration::from_secs(5);

/// A running hub. A handle: cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    peer: Peer,
    ws: Option<Arc<Ws>>,
    sharing: Option<Sharing>,
    config: Config,
    /// Also makes changes of promises wait for each other.
    ledger: Mutex<Ledger>,
}

/// Why a hub does not do what it is asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The account has no such thread here.
    #[error("the account has no such thread here")]
    NoSuchThread,
    /// There is no room, or the ledger cannot be used.
    #[error("no promise is made")]
    Ledger(#[from] LedgerError),
    /// The store that hubs share cannot be used.
    #[error("the shared store cannot be used")]
    Shared(#[source] Arc<leno::store::ObjectError>),
    /// The peer refused.
    #[error("the peer of the hub refused")]
    Peer(#[from] Error),
}

/// A thread that the hub carries.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The text of its id.
    pub id: String,
    /// What was promised, and to whom.
    pub promise: Promise,
    /// Where it stands; nothing before its first sync.
    pub status: Option<ThreadStatus>,
    /// Whether all of it that is here is known to be on the store that hubs share, if there is one.
    pub shared: Option<bool>,
}

impl Hub {
    /// Opens the store and listens.
    ///
    /// # Errors
    ///
    /// [`HubError`] if the folder or an address cannot be used.
    pub async fn start(config: Config) -> Result<Self, HubError> {
        let listen = config.listen.clone();
        let mut builder = Peer::folder(config.folder.join("peer"))?.listen(listen);
        let mut ws = None;
        if config.has_ws() {
            let device = builder.device().await?;
            let opened = web_sockets(&config, &device).await.map_err(Error::from)?;
            builder = builder.transport(opened.clone());
            ws = Some(opened);
        }
        let peer = builder.start().await?;
        let ledger = Ledger::open(&config.folder, config.bytes)?;
        let sharing = match &config.shared {
            Some(shared) => Some(Sharing::start(&peer, &shared.url).await?),
            None => None,
        };
        let hub = Self {
            inner: Arc::new(Inner {
                peer,
                ws,
                sharing,
                config,
                ledger: Mutex::new(ledger),
            }),
        };
        let events = hub.peer().events().await?;
        hub.settle().await?;
        tokio::spawn(hub.clone().look_after(events));
        Ok(hub)
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// The web sockets, if the hub speaks them.
    #[must_use]
    pub fn ws(&self) -> Option<&Arc<Ws>> {
        self.inner.ws.as_ref()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Where peers can reach the hub.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.peer().addresses();
        addresses.iter().map(Address::to_string).collect()
    }

    /// Writes what is left to write and hangs up.
    ///
    /// # Errors
    ///
    /// [`HubError::Peer`].
    pub async fn close(&self) -> Result<(), HubError> {
        if let Some(sharing) = &self.inner.sharing {
            sharing.close().await;
        }
        Ok(self.peer().close().await?)
    }

    /// Makes a card that the role of replicator may be granted to.
    ///
    /// # Errors
    ///
    /// [`HubError`] if the account has too many that it did not use.
    pub async fn card(&self, account: &Account) -> Result<Card, HubError> {
        self.inner.ledger.lock().await.add_card(account)?;
        // No name: members see that it is a replicator, and everybody else that it is a seat.
        Ok(self.peer().card("").await?)
    }

    /// Carries the thread of a ticket, up to `bytes`, or as much as the account gives a thread. A thread
    /// that is carried already gets another bound.
    ///
    /// # Errors
    ///
    /// [`HubError`]; nothing is promised.
    pub async fn carry(
        &self,
        account: &Account,
        ticket: &Ticket,
        bytes: Option<u64>,
    ) -> Result<Carried, HubError> {
        let mut ledger = self.inner.ledger.lock().await;
        let id = ticket.thread().to_string();
        let before = ledger.promise(&id).cloned();
        let promise = ledger.promise_to(account, &id, bytes)?;
        let quota = Quota {
            bytes: promise.bytes,
            logs: account.logs,
        };
        let joined = async {
            let thread = self.peer().join(ticket).await?;
            thread.set_quota(Some(quota)).await
        };
        if let Err(error) = joined.await {
            match before {
                Some(before) => drop(ledger.promise_to(account, &id, Some(before.bytes))?),
                None => ledger.end(&id)?,
            }
            return Err(error.into());
        }
        if let Some(sharing) = &self.inner.sharing {
            sharing.begins(ticket.thread());
        }
        tracing::info!(
            account = account.name,
            thread = id,
            bytes = promise.bytes,
            "carries"
        );
        Ok(Carried {
            id,
            promise,
            status: None,
            shared: None,
        })
    }

    /// Leaves a thread and deletes it here.
    ///
    /// # Errors
    ///
    /// [`HubError::NoSuchThread`] if it is not the account's, who may be the operator.
    pub async fn release(&self, account: &Account, id: &str) -> Result<(), HubError> {
        let mut ledger = self.inner.ledger.lock().await;
        let promise = ledger.promise(id);
        if !promise.is_some_and(|it| may_see(account, it)) {
            return Err(HubError::NoSuchThread);
        }
        if let Some(thread) = self.threads().await?.remove(id) {
            self.leave(&thread).await;
            delete(&thread).await?;
        }
        ledger.end(id)?;
        tracing::info!(thread = id, "released");
        Ok(())
    }

    /// The threads that are carried for an account; for an operator, all of them.
    ///
    /// # Errors
    ///
    /// [`HubError::Peer`].
    pub async fn carried(&self, account: &Account) -> Result<Vec<Carried>, HubError> {
        let ledger = self.inner.ledger.lock().await;
        let threads = self.threads().await?;
        let unsaved = match &self.inner.sharing {
            Some(sharing) => Some(sharing.unsaved().await?),
            None => None,
        };
        let mut carried = Vec::new();
        for (id, promise) in ledger.promises().filter(|(_, it)| may_see(account, it)) {
            let status = match threads.get(id) {
                Some(thread) => thread.status().await.ok(),
                None => None,
            };
            let shared = unsaved.as_ref().map(|unsaved| {
                let thread = threads.get(id).filter(|_| status.is_some());
                thread.is_some_and(|thread| !unsaved.contains(&thread.id()))
            });
            carried.push(Carried {
                id: id.to_owned(),
                promise: promise.clone(),
                status,
                shared,
            });
        }
        Ok(carried)
    }

    async fn threads(&self) -> Result<BTreeMap<String, Thread>, Error> {
        let threads = self.peer().threads().await?;
        Ok(threads
            .into_iter()
            .map(|it| (it.id().to_string(), it))
            .collect())
    }

    /// Tells the others that the hub carries the thread no longer, as far as they are there to hear it.
    async fn leave(&self, thread: &Thread) {
        let left = async {
            let members = thread.members().await?;
            if let Some(own) = members.iter().find(|member| member.is_self) {
                thread.remove_replicator(own.seat).await?;
                self.peer().sync_once(FAREWELL).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = left.await {
            // Before the first sync, or after it was removed, there is nobody to tell.
            tracing::debug!(thread = %thread.id(), %error, "left without a word");
        }
    }

    /// Ends promises of threads that are not here: the process ended between the two.
    async fn settle(&self) -> Result<(), HubError> {
        let threads = self.threads().await?;
        let mut ledger = self.inner.ledger.lock().await;
        let promised: Vec<_> = ledger.promises().map(|(id, _)| id.to_owned()).collect();
        for id in promised.iter().filter(|id| !threads.contains_key(*id)) {
            ledger.end(id)?;
        }
        drop(ledger);
        for thread in threads.values() {
            self.judge(thread).await?;
        }
        Ok(())
    }

    /// Gives threads up from which the hub was removed, or in which it could read.
    async fn look_after(self, mut events: leno::Events) {
        while let Some(event) = events.next().await {
            let judged = if let Event::GovernanceChanged { thread } = event {
                match self.peer().thread(thread).await {
                    Ok(thread) => self.judge(&thread).await,
                    // It was deleted meanwhile, or the hub is closed.
                    Err(_) => Ok(()),
                }
            } else if let Event::Lagged { .. } = event {
                self.settle().await
            } else {
                Ok(())
            };
            if let Err(error) = judged {
                tracing::warn!(%error, "a thread was not looked after");
            }
        }
    }

    async fn judge(&self, thread: &Thread) -> Result<(), HubError> {
        let Ok(status) = thread.status().await else {
            return Ok(());
        };
        let id = thread.id().to_string();
        match status.role {
            Some(Role::Replicator) => return Ok(()),
            None if !status.removed => return Ok(()),
            None => tracing::info!(thread = id, "no longer a replicator: deletes its copy"),
            Some(role) => {
                tracing::warn!(
                    thread = id,
                    ?role,
                    "granted more than replicating: deletes its copy"
                );
            }
        }
        let mut ledger = self.inner.ledger.lock().await;
        delete(thread).await?;
        Ok(ledger.end(&id)?)
    }
}

async fn web_sockets(config: &Config, device: &Device) -> Result<Arc<Ws>, leno::WsListenError> {
    let mut announced = config.announce_ws.clone();
    let control = config.control;
    if config.serve_ws && !control.ip().is_unspecified() && control.port() != 0 {
        announced.push(format!("ws://{control}/leno"));
    }
    let listen = config.listen_ws.iter().map(ToString::to_string);
    let builder = WsBuilder::new(device.signing_key().to_secret_bytes());
    let opened = Ws::listen(builder.listen_on(listen).announce(announced)).await?;
    Ok(Arc::new(opened))
}

async fn delete(thread: &Thread) -> Result<(), Error> {
    match thread.forget(Unsent::Discard).await {
        Err(Error::NoSuchThread(_)) => Ok(()),
        other => other,
    }
}

fn may_see(account: &Account, promise: &Promise) -> bool {
    account.operator || promise.account == account.name
}

//! A transport that changes what is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leno::PeerId;
use leno::transport::{Address, Event, LinkId, Transport, TransportError};
use leno_threads_core::sync::{LogName, Message};
use leno_threads_core::{LogId, SeatId};

use super::double::Double;
use super::lie::{lie, unprove};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::network::SimTransport;

/// How many messages of a million are lied about.
const LIES_PER_MILLION: u32 = 80_000;

/// How many ranges of its own log of a million are told otherwise, to whom both branches are told.
const DOUBLES_PER_MILLION: u32 = 500_000;

/// How many messages of earlier sessions are kept to be sent again.
const KEPT_MAX: usize = 32;

/// How many signatures of others are kept to be passed off as something else.
const STOLEN_MAX: usize = 64;

/// What a machine that lies keeps from one life to the next. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    state: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What was sent before, to whomever.
    pub(super) messages: VecDeque<Vec<u8>>,
    /// What others signed to prove their seats, on links of their own.
    pub(super) proofs: VecDeque<(SeatId, [u8; 64])>,
    /// What else they signed: heads and branches.
    pub(super) heads: VecDeque<[u8; 64]>,
    /// Whom it showed a true proof before: they remember its seats, and need no other.
    proved: BTreeSet<PeerId>,
    /// What an honest machine did that it must not.
    broken: Vec<String>,
    /// How often something special was done.
    counts: BTreeMap<&'static str, u64>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What honest machines did that they must not: they took a signature for what it is not.
    pub(crate) fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().broken)
    }

    /// How often each thing was done.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }
}

impl Kept {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Notes what others signed.
    fn steal(&mut self, message: &Message<'_>) {
        if let Message::Prove {
            seat, signature, ..
        } = message
        {
            if self.proofs.len() == STOLEN_MAX {
                self.proofs.pop_front();
            }
            self.proofs.push_back((*seat, *signature));
        } else if let Message::Range { runs, .. } = message {
            self.heads.extend(runs.iter().map(|run| *run.signature()));
        } else if let Message::Branch { signature, .. } = message {
            self.heads.push_back(*signature);
        }
        while self.heads.len() > STOLEN_MAX {
            self.heads.pop_front();
        }
    }
}

/// The endpoint of a machine that lies.
#[derive(Debug)]
pub(crate) struct Liar {
    inner: SimTransport,
    memory: Memory,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    double: Option<Double>,
    speech: Speech,
    links: BTreeMap<LinkId, Link>,
}

/// To whom the liar tells which branch of its own logs, in this life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Speech {
    /// The same to all.
    Plain,
    /// One to some, the other to the rest.
    ByTarget,
    /// Both to all.
    Both,
}

/// What is known of a link.
#[derive(Debug)]
struct Link {
    peer: PeerId,
    /// The logs that were named on it, by their numbers.
    named: Vec<LogId>,
    /// Only false proofs are given on it.
    is_impostor: bool,
}

impl Liar {
    pub(crate) fn new(inner: SimTransport, mut dice: Dice, disk: &Disk, memory: Memory) -> Self {
        let speech = match dice.below(4) {
            0 => Speech::Plain,
            1 | 2 => Speech::ByTarget,
            _ => Speech::Both,
        };
        let double = match speech {
            Speech::Plain => None,
            Speech::ByTarget | Speech::Both => Double::of(disk),
        };
        let state = Mutex::new(State {
            dice,
            double,
            speech,
            links: BTreeMap::new(),
        });
        Self {
            inner,
            memory,
            state,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is sent in the place of a message.
    fn instead_of(&self, link: LinkId, message: Vec<u8>) -> Vec<Vec<u8>> {
        let (mut state, mut kept) = (self.lock(), self.memory.lock());
        let State {
            dice,
            double,
            speech,
            links,
        } = &mut *state;
        if kept.messages.len() == KEPT_MAX {
            kept.messages.pop_front();
        }
        kept.messages.push_back(message.clone());
        let Some(link) = links.get_mut(&link) else {
            return vec![message];
        };
        let other = match Message::decode(&message) {
            // P01: whose proof it is not.
            Ok(Message::Prove { thread, .. }) if link.is_impostor => {
                kept.count("false proofs");
                return vec![unprove(thread, &kept, dice)];
            }
            Ok(Message::Prove { .. }) => {
                kept.proved.insert(link.peer);
                None
            }
            // L02: another branch than others are told.
            Ok(Message::Range {
                thread,
                log,
                first,
                runs,
            }) => {
                let id = match log {
                    LogName::New(id) => {
                        link.named.push(id);
                        Some(id)
                    }
                    LogName::Known(number) => link.named.get(number as usize).copied(),
                };
                let records: usize = runs.iter().map(|run| run.count()).sum();
                let last = first.saturating_add(records as u64).saturating_sub(1);
                let is_for_this_one = match speech {
                    Speech::Plain => false,
                    Speech::ByTarget => link.peer.0[0] % 2 == 1,
                    Speech::Both => dice.chance(DOUBLES_PER_MILLION),
                };
                // Where the true branch is told first, its log is named already.
                let name = match (*speech, log) {
                    (Speech::Both, LogName::New(_)) => {
                        LogName::Known(u32::try_from(link.named.len() - 1).unwrap_or(0))
                    }
                    (_, name) => name,
                };
                id.filter(|_| is_for_this_one)
                    .zip(double.as_mut())
                    .and_then(|(id, double)| {
                        double.range(self.inner.local(), (thread, name, id), last, dice)
                    })
            }
            _ => None,
        };
        if let Some(other) = other {
            kept.count("branches told");
            return match speech {
                Speech::Both => vec![message, other],
                Speech::Plain | Speech::ByTarget => vec![other],
            };
        }
        if !dice.chance(LIES_PER_MILLION) {
            return vec![message];
        }
        kept.count("lies");
        lie(message, &kept, dice)
    }

    /// Looks at what comes in.
    fn hear(&self, event: &Event) {
        let (mut state, mut kept) = (self.lock(), self.memory.lock());
        match event {
            Event::Connected { peer, link } => {
                let is_impostor = state.dice.below(6) == 0 && !kept.proved.contains(peer);
                let (peer, named) = (*peer, Vec::new());
                let link = state.links.insert(
                    *link,
                    Link {
                        peer,
                        named,
                        is_impostor,
                    },
                );
                drop(link);
            }
            Event::Disconnected { link, .. } => {
                state.links.remove(link);
            }
            Event::Message { from, link, bytes } => {
                let Ok(message) = Message::decode(bytes) else {
                    return;
                };
                kept.steal(&message);
                let link = state.links.get(link);
                if link.is_some_and(|it| it.is_impostor) && tells_something(&message) {
                    let what = format!("{from} took a false proof for true and sent {message:?}");
                    kept.broken.push(what);
                }
            }
            Event::Discovered { .. } => {}
        }
    }
}

/// Whether a message says what only a member may know, of whatever thread.
fn tells_something(message: &Message<'_>) -> bool {
    if let Message::Have { logs, .. } = message {
        return !logs.is_empty();
    }
    matches!(
        message,
        Message::Range { .. }
            | Message::Totals { .. }
            | Message::Wraps { .. }
            | Message::Genesis { .. }
            | Message::Announce { .. }
    )
}

#[async_trait]
impl Transport for Liar {
    fn local(&self) -> PeerId {
        self.inner.local()
    }

    fn addresses(&self) -> Vec<Address> {
        self.inner.addresses()
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        self.inner.dial(address).await
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        for message in self.instead_of(link, message) {
            self.inner.send(link, message).await?;
        }
        Ok(())
    }

    async fn next(&self) -> Option<Event> {
        let event = self.inner.next().await;
        if let Some(event) = &event {
            self.hear(event);
        }
        event
    }

    async fn hang_up(&self, peer: PeerId) {
        self.inner.hang_up(peer).await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

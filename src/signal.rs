//! Signals: small values for now, which nobody stores: presence, cursors, "verse now".

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use leno_crdt_codec::cbor::decode_ipld;
use leno_crdt_codec::json::Value;
use leno_threads_core::sync::{SIGNAL_TTL_MILLIS, SignalError, SignalEvent};
use leno_threads_core::{SeatId, ThreadId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::driver::{Command, Finish};
use crate::error::Error;
use crate::thread::Thread;
use crate::work::{Core, Work, thread_mut};

/// Keys that begin so are the peer's own.
pub(crate) const RESERVED_PREFIX: &str = "leno/";

/// How often what is present is said anew: twice in the time that it lasts.
const REFRESH_MILLIS: u64 = SIGNAL_TTL_MILLIS as u64 / 2;

/// How long at least between two times because of peers that connect.
const GREET_MILLIS: u64 = 1_000;

impl Thread {
    /// Says something to all who read the thread and are there, under a key such as `"cursor"`.
    ///
    /// It travels as records do, over replicators too, sealed and signed by this seat, and rests nowhere.
    /// The newest of a seat and key counts. It is over after a minute, when it is withdrawn, or, for
    /// those connected to this peer directly, when this peer is gone. A signal that is lost on its way is
    /// not sent again. [`Thread::presence`] says the same thing anew until its handle is dropped.
    ///
    /// Of a thread 20 signals may be sent per second, and 32 at once; what is shown with a pointer that
    /// moves is best sent at most every 50 ms. Readers may send too. Replicators cannot read what is said;
    /// they see whose seat says something, when, and about how long it is.
    ///
    /// # Errors
    ///
    /// [`Error::Signal`] if the signal is too long, there are too many keys, this seat may not read the
    /// thread, or signals are sent too fast: [`SignalError::TooFast`] says when the next one may go.
    /// [`Error::NotADocument`] if `value` has no form as JSON-like data. [`Error::ReservedKey`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
    /// # use std::time::Duration;
    /// # use leno::store::MemoryStore;
    /// # use leno::transport::memory::{Conditions, MemoryNetwork};
    /// # use leno::{Driver, Error, ManualClock, Peer, PeerId, Role};
    /// # async fn open(network: &MemoryNetwork) -> Result<(Peer, Driver), Error> {
    /// #     let store = MemoryStore::new();
    /// #     let device = Peer::device(&store).await?;
    /// #     let endpoint = network.endpoint(PeerId(device.verifying_key().to_bytes()));
    /// #     let clock = ManualClock::new(0);
    /// #     Peer::builder().store(store).transport(endpoint).clock(clock).build().await
    /// # }
    /// # let network = MemoryNetwork::new(1, Conditions::default());
    /// # let (alice, alices_driver) = open(&network).await?;
    /// # let (bob, bobs_driver) = open(&network).await?;
    /// # let app = async {
    /// # let alices = alice.create_thread("band").await?;
    /// # let ticket = alices.grant(&bob.card("Bob").await?, Role::Writer).await?;
    /// # let bobs = bob.join(&ticket).await?;
    /// # bob.sync_once(Duration::from_secs(1)).await?;
    /// // Alice leads; Bob's screen follows.
    /// let mut signals = bobs.signals().await?;
    /// alices.signal("verse", &3).await?;
    ///
    /// let Some(signal) = signals.next().await else { panic!("the peer is closed") };
    /// assert_eq!((signal.key.as_str(), signal.read::<u32>()?), ("verse", Some(3)));
    ///
    /// alices.withdraw("verse").await?;
    /// assert!(signals.next().await.is_some_and(|signal| signal.is_gone()));
    /// # bob.close().await?;
    /// # alice.close().await
    /// # };
    /// # futures_util::try_join!(alices_driver.run(), bobs_driver.run(), app)?;
    /// # Ok(()) }) }
    /// ```
    pub async fn signal<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        let (id, key, value) = (self.id(), checked(key)?, encode(value)?);
        let say = move |work: &mut Work<'_>| {
            work.say(id, &key, Some(&value))?;
            work.core.signals.present.remove(&(id, key));
            Ok(())
        };
        self.peer().call(say).await
    }

    /// Takes back what this peer says under a key, by [`Thread::signal`] or [`Thread::presence`].
    ///
    /// # Errors
    ///
    /// As [`Thread::signal`].
    pub async fn withdraw(&self, key: &str) -> Result<(), Error> {
        let (id, key) = (self.id(), checked(key)?);
        let withdraw = move |work: &mut Work<'_>| {
            work.say(id, &key, None)?;
            work.core.signals.present.remove(&(id, key));
            Ok(())
        };
        self.peer().call(withdraw).await
    }

    /// Says something for as long as the handle that this returns is kept: who is here, for instance.
    ///
    /// It is said anew twice a minute and to peers that connect, and withdrawn when the handle is
    /// dropped. Of several calls for one key, of this or of [`Thread::signal`], the last counts.
    ///
    /// # Errors
    ///
    /// As [`Thread::signal`]; then nothing is said, now or later.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
    /// use leno::{ManualClock, Peer};
    ///
    /// let (peer, driver) = Peer::builder().clock(ManualClock::new(0)).build().await?;
    /// let app = async {
    ///     let band = peer.create_thread("band").await?;
    ///     let here = band.presence("here", "Alice, with a guitar").await?;
    ///     here.set("Alice, with a harp").await?;
    ///     drop(here);
    ///     peer.close().await
    /// };
    /// futures_util::try_join!(driver.run(), app)?;
    /// # Ok(()) }) }
    /// ```
    pub async fn presence<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<Presence, Error> {
        let (id, key, value) = (self.id(), checked(key)?, encode(value)?);
        let kept = key.clone();
        let say = move |work: &mut Work<'_>| {
            let token = work.core.signals.next_token;
            work.stay(id, kept, token, value)?;
            work.core.signals.next_token += 1;
            Ok(token)
        };
        let token = self.peer().call(say).await?;
        Ok(Presence {
            thread: self.clone(),
            key,
            token,
        })
    }

    /// What others say, beginning with what they say already. Only the newest of a seat and key waits
    /// for a slow reader, so that nobody falls behind.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn signals(&self) -> Result<Signals, Error> {
        let id = self.id();
        let listen = move |work: &mut Work<'_>| {
            thread_mut(&mut work.core.replica, id)?;
            Ok(work.core.listen(id))
        };
        self.peer().call(listen).await
    }
}

/// Something that this peer says until this is dropped: see [`Thread::presence`].
#[must_use = "it is withdrawn when this is dropped"]
pub struct Presence {
    thread: Thread,
    key: String,
    token: u64,
}

impl Presence {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Says something else from now on.
    ///
    /// # Errors
    ///
    /// As [`Thread::signal`]; what was said before stays.
    pub async fn set<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        let (id, key, token) = (self.thread.id(), self.key.clone(), self.token);
        let value = encode(value)?;
        let say = move |work: &mut Work<'_>| work.stay(id, key, token, value);
        self.thread.peer().call(say).await
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Presence")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let (place, token) = ((self.thread.id(), self.key.clone()), self.token);
        let end = move |work: &mut Work<'_>| {
            let now_millis = work.now_millis;
            let present = work.core.signals.present.get_mut(&place);
            // Who said something else under this key meanwhile goes on saying it.
            if let Some(present) = present.filter(|it| it.token == token) {
                (present.value, present.due_millis) = (None, now_millis);
            }
            let finish: Finish = Box::new(|_| {});
            finish
        };
        self.thread.peer().send_now(Command::Work(Box::new(end)));
    }
}

/// What somebody else says under a key, or that this is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signal {
    /// Whose seat. [`Thread::member`] tells who holds it.
    pub seat: SeatId,
    /// Under which key.
    pub key: String,
    value: Option<Vec<u8>>,
}

impl Signal {
    /// Whether it is over: it was withdrawn, has lasted its time, or came from a peer that is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.value.is_none()
    }

    /// Reads the value; nothing if it is over.
    ///
    /// # Errors
    ///
    /// [`Error::OtherForm`] if it does not have the form of `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let Some(value) = &self.value else {
            return Ok(None);
        };
        let reason = |error: &dyn fmt::Display| Error::OtherForm {
            reason: error.to_string(),
        };
        let value = decode_ipld(value).map_err(|error| reason(&error))?;
        let value = ipld_core::serde::from_ipld(value).map_err(|error| reason(&error))?;
        Ok(Some(value))
    }
}

/// Signals of others as they come: see [`Thread::signals`]. Ends when the peer closes.
pub struct Signals {
    shared: Shared,
}

impl Signals {
    /// The next signal, or nothing once the peer is closed.
    pub async fn next(&mut self) -> Option<Signal> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Signals")
            .field("waiting", &lock(&self.shared).order.len())
            .finish_non_exhaustive()
    }
}

impl Stream for Signals {
    type Item = Signal;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Signal>> {
        let mut waiting = lock(&self.shared);
        if let Some(signal) = waiting.pop() {
            return Poll::Ready(Some(signal));
        }
        if waiting.sender_is_gone {
            return Poll::Ready(None);
        }
        waiting.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        lock(&self.shared).receiver_is_gone = true;
    }
}

/// What waits for a listener: of each seat and key the newest. No more than a replica keeps at once,
/// and the end of each that the listener saw, since an end that nobody saw begin is not kept.
#[derive(Default)]
struct Waiting {
    order: VecDeque<(SeatId, String)>,
    values: BTreeMap<(SeatId, String), Option<Vec<u8>>>,
    /// What the listener saw and did not see end.
    shown: BTreeSet<(SeatId, String)>,
    waker: Option<Waker>,
    sender_is_gone: bool,
    receiver_is_gone: bool,
}

type Shared = Arc<Mutex<Waiting>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Waiting> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    fn push(&mut self, place: (SeatId, String), value: Option<Vec<u8>>) {
        if value.is_none() && !self.shown.contains(&place) {
            if self.values.remove(&place).is_some() {
                self.order.retain(|it| *it != place);
            }
            return;
        }
        if self.values.insert(place.clone(), value).is_none() {
            self.order.push_back(place);
        }
    }

    fn pop(&mut self) -> Option<Signal> {
        let place = self.order.pop_front()?;
        let value = self.values.remove(&place)?;
        match value {
            Some(_) => self.shown.insert(place.clone()),
            None => self.shown.remove(&place),
        };
        let (seat, key) = place;
        Some(Signal { seat, key, value })
    }
}

/// The peer's end of a [`Signals`].
struct Listener(Shared);

impl Listener {
    /// Hands over a signal. Tells whether the listener is still there.
    fn push(&self, signal: &SignalEvent) -> bool {
        let mut waiting = lock(&self.0);
        if waiting.receiver_is_gone {
            return false;
        }
        waiting.push((signal.seat, signal.name.clone()), signal.value.clone());
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0);
        waiting.sender_is_gone = true;
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// What is said here, and who listens.
#[derive(Default)]
pub(crate) struct Signalling {
    present: BTreeMap<(ThreadId, String), Present>,
    next_token: u64,
    listeners: BTreeMap<ThreadId, Vec<Listener>>,
    /// What came in this step, for the listeners.
    news: Vec<SignalEvent>,
}

/// Something that is said again and again.
struct Present {
    /// Whose handle keeps it.
    token: u64,
    /// What; nothing if it is to be withdrawn.
    value: Option<Vec<u8>>,
    said_millis: u64,
    due_millis: u64,
}

impl Signalling {
    /// When there is something to say.
    pub(crate) fn wake_millis(&self) -> Option<u64> {
        self.present.values().map(|it| it.due_millis).min()
    }

    /// Says something no more. It is not withdrawn: nobody hears it.
    pub(crate) fn leave(&mut self, id: ThreadId, key: &str) {
        self.present.remove(&(id, key.to_owned()));
    }

    /// Somebody came, who may have been here before: what ended with the old session is shown again
    /// only if it is said anew. What this peer says by itself can wait: it stands in many threads.
    pub(crate) fn connected(&mut self, now_millis: u64) {
        for ((_, key), present) in &mut self.present {
            if key.starts_with(RESERVED_PREFIX) {
                continue;
            }
            let due = now_millis.max(present.said_millis.saturating_add(GREET_MILLIS));
            present.due_millis = present.due_millis.min(due);
        }
    }

    /// Brings everything forward by as much as the clock was set back.
    pub(crate) fn clock_went_back(&mut self, millis: u64) {
        for present in self.present.values_mut() {
            present.said_millis = present.said_millis.saturating_sub(millis);
            present.due_millis = present.due_millis.saturating_sub(millis);
        }
    }

    /// Tells listeners what came.
    pub(crate) fn tell(&mut self) {
        for signal in std::mem::take(&mut self.news) {
            if let Some(listeners) = self.listeners.get_mut(&signal.thread) {
                listeners.retain(|listener| listener.push(&signal));
                if listeners.is_empty() {
                    self.listeners.remove(&signal.thread);
                }
            }
        }
    }
}

impl Core {
    fn listen(&mut self, id: ThreadId) -> Signals {
        let listener = Listener(Shared::default());
        let shared = listener.0.clone();
        // What came in this step is among them, and will be pushed again, which changes nothing.
        for (seat, name, value) in self.replica.signals(id) {
            if !name.starts_with(RESERVED_PREFIX) {
                lock(&shared).push((seat, name.to_owned()), Some(value.to_vec()));
            }
        }
        self.signals.listeners.entry(id).or_default().push(listener);
        Signals { shared }
    }
}

impl Work<'_> {
    /// Sends a signal.
    pub(crate) fn say(
        &mut self,
        id: ThreadId,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        // A newcomer may be shown the thread as it was, and would tell those who were members then.
        self.check_granted(id)?;
        thread_mut(&mut self.core.replica, id)?;
        let now = self.now();
        let Core { replica, rng, .. } = &mut *self.core;
        Ok(replica.signal(id, key, value, now, rng)?)
    }

    /// Sends a signal now and from now on.
    pub(crate) fn stay(
        &mut self,
        id: ThreadId,
        key: String,
        token: u64,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        self.say(id, &key, Some(&value))?;
        let present = Present {
            token,
            value: Some(value),
            said_millis: self.now_millis,
            due_millis: self.now_millis.saturating_add(REFRESH_MILLIS),
        };
        self.core.signals.present.insert((id, key), present);
        Ok(())
    }

    /// Says what is due, and sorts what was heard.
    pub(crate) fn signals(&mut self) {
        let now_millis = self.now_millis;
        let is_due = |present: &Present| present.due_millis <= now_millis;
        let present = self.core.signals.present.iter();
        let due = present.filter(|(_, it)| is_due(it));
        for place in due.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            let Some(mut present) = self.core.signals.present.remove(&place) else {
                continue;
            };
            let (id, key) = &place;
            let said = self.say(*id, key, present.value.as_deref());
            let wait_millis = match said {
                Ok(()) if present.value.is_none() => continue,
                Ok(()) => {
                    present.said_millis = now_millis;
                    REFRESH_MILLIS
                }
                Err(Error::NoSuchThread(_)) => continue,
                Err(Error::Signal(SignalError::TooFast { wait_millis })) => wait_millis.max(1),
                // A withdrawal that nobody may hear any more is none.
                Err(_) if present.value.is_none() => continue,
                Err(_) => REFRESH_MILLIS,
            };
            present.due_millis = now_millis.saturating_add(wait_millis);
            self.core.signals.present.insert(place, present);
        }
        let heard = self.core.replica.take_signal_events();
        for signal in &heard {
            self.core.rendezvous.hear(signal);
        }
        let is_public = |event: &SignalEvent| !event.name.starts_with(RESERVED_PREFIX);
        let signals = &mut self.core.signals;
        signals.news.extend(heard.into_iter().filter(is_public));
    }
}

fn checked(key: &str) -> Result<String, Error> {
    match key.starts_with(RESERVED_PREFIX) {
        true => Err(Error::ReservedKey),
        false => Ok(key.to_owned()),
    }
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let reason = |error: &dyn fmt::Display| Error::NotADocument {
        reason: error.to_string(),
    };
    let value = ipld_core::serde::to_ipld(value).map_err(|error| reason(&error))?;
    let value = Value::new(&value).map_err(|error| reason(&error))?;
    Ok(value.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str) -> (SeatId, String) {
        (SeatId([1; 32]), key.to_owned())
    }

    #[test]
    fn slow_listener_gets_the_newest_of_each_key_and_the_end_of_what_it_saw() {
        let mut waiting = Waiting::default();
        for value in 0..100 {
            waiting.push(place("a"), Some(vec![value]));
            waiting.push(place("b"), Some(vec![value]));
        }
        waiting.push(place("b"), None);
        let next = |waiting: &mut Waiting| waiting.pop().map(|it| (it.key, it.value));
        assert_eq!(
            next(&mut waiting),
            Some(("a".to_owned(), Some(vec![99]))),
            "the newest"
        );
        assert_eq!(next(&mut waiting), None, "what it never saw is not told of");
        waiting.push(place("a"), Some(vec![100]));
        waiting.push(place("a"), None);
        assert_eq!(next(&mut waiting), Some(("a".to_owned(), None)));
        waiting.push(place("a"), None);
        assert_eq!(next(&mut waiting), None, "once is enough");
        assert!(waiting.order.is_empty() && waiting.values.is_empty() && waiting.shown.is_empty());
    }
}

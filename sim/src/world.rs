//! The world: machines, their network, their clocks, and one executor for all, under one seed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures_util::FutureExt as _;
use leno::store::StoreError;
use leno::{Error, Peer};

use crate::byzantine::{Liar, Memory};
use crate::clock::SimClock;
use crate::counter::Counter;
use crate::dice::Dice;
use crate::disk::{Disk, DiskFaults};
use crate::executor::{Executor, Owner, Polled};
use crate::machine::{Machine, MachineOptions, Power};
use crate::network::{Conditions, Happened, SimNetwork};
use crate::tap::{Heard, Tap};
use crate::time::Time;
use crate::trace::{Trace, TraceHash};

/// News from a machine to the world.
enum News {
    Opened(Peer),
    Ended(Result<(), Error>),
}

type Mailbox = Rc<RefCell<VecDeque<(usize, u64, News)>>>;

/// A simulated world. Everything in it happens in steps: a step polls one task that is woken, or lets
/// one thing happen that is due.
///
/// [`Scenario`](crate::Scenario) is the readable way to use it; this is what it is built from.
///
/// # Examples
///
/// ```
/// use leno_sim::{MachineOptions, World};
///
/// let mut world = World::new(1);
/// let alice = world.add("alice", MachineOptions::default())?;
/// world.start(alice);
/// world.run_for(1_000);
/// let peer = world.machine(alice).and_then(|it| it.peer().cloned()).ok_or(leno::Error::Closed)?;
/// let band = world.run(async move { peer.create_thread("band").await }, 1_000_000);
/// assert!(band.is_some_and(|band| band.is_ok()));
/// # Ok::<(), leno::Error>(())
/// ```
pub struct World {
    seed: u64,
    time: Time,
    executor: Executor,
    network: SimNetwork,
    machines: Vec<Machine>,
    mailbox: Mailbox,
    order: Dice,
    trace: Trace,
    /// What somebody sees who carries all messages and reads none.
    shape: Trace,
    steps: u64,
    panics: Vec<String>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("World")
            .field("seed", &self.seed)
            .field("steps", &self.steps)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let time = Time::default();
        Self {
            seed,
            network: SimNetwork::new(time.clone(), seed, Conditions::default()),
            time,
            executor: Executor::default(),
            machines: Vec::new(),
            mailbox: Mailbox::default(),
            order: Dice::new(seed, "order"),
            trace: Trace::default(),
            shape: Trace::default(),
            steps: 0,
            panics: Vec::new(),
        }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &SimNetwork {
        &self.network
    }

    /// The true time, in microseconds since the world began.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.time.micros()
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The hash of everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> TraceHash {
        self.trace.hash()
    }

    /// A hash of what somebody sees who carries all messages and reads none: when there was one, on
    /// which link, in which direction, and how long it was.
    #[must_use]
    pub fn shape(&self) -> TraceHash {
        self.shape.hash()
    }

    /// Adds something of the caller's to the trace.
    pub fn note(&mut self, words: &str) {
        self.trace.note_bytes(b'n', words.as_bytes());
    }

    /// Panics of tasks so far: each is a defect.
    #[must_use]
    pub fn panics(&self) -> &[String] {
        &self.panics
    }

    /// How many tasks are under way, drivers included.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.executor.len()
    }

    /// The machines.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// A machine.
    #[must_use]
    pub fn machine(&self, at: usize) -> Option<&Machine> {
        self.machines.get(at)
    }
}

// Machines.
impl World {
    /// Adds a machine, which is off, and returns its place.
    ///
    /// # Errors
    ///
    /// [`Error`] if its disk does not take the device's keys.
    pub fn add(&mut self, name: &str, options: MachineOptions) -> Result<usize, Error> {
        let at = self.machines.len();
        let disk = Disk::new(self.time.clone(), self.seed, name, options.disk);
        let clock = SimClock::new(self.time.clone());
        let mut seeds = Dice::new(self.seed, &format!("keys/{name}"));
        // The device is made before there is a transport, which is bound to its key.
        disk.set_faults(DiskFaults {
            latency_micros: 0..=0,
            ..DiskFaults::default()
        });
        let store = disk.open()?;
        let builder = Peer::builder().store(store).clock(clock.clone());
        let built = builder.seed(seeds.seed()).build().now_or_never();
        let id = built.ok_or(Error::Closed)??.0.id();
        disk.set_faults(DiskFaults::default());
        self.machines.push(Machine {
            name: name.to_owned(),
            id,
            disk,
            clock,
            counter: options.is_counted.then(Counter::default),
            heard: Heard::default(),
            lies: options.is_liar.then(Memory::default),
            power: Power::Off(None),
            life: 0,
            seeds,
        });
        Ok(at)
    }

    /// Starts the peer of a machine that is off. It runs some steps later, or is off again.
    pub fn start(&mut self, at: usize) {
        let Some(machine) = self.machines.get_mut(at) else {
            return;
        };
        if !matches!(machine.power, Power::Off(_)) {
            return;
        }
        machine.life += 1;
        machine.power = Power::Opening;
        let store = match machine.disk.open() {
            Ok(store) => store,
            Err(error) => {
                machine.power = Power::Off(Some(error.into()));
                return;
            }
        };
        let mut builder = Peer::builder()
            .store(store)
            .clock(machine.clock.clone())
            .seed(machine.seeds.seed());
        let endpoint = self.network.endpoint(machine.id);
        builder = match machine.lies.clone() {
            None => {
                machine.heard = Heard::default();
                builder.transport(Tap::new(endpoint, machine.heard.clone()))
            }
            Some(memory) => {
                let dice = Dice::new(self.seed, &format!("lies/{at}/{}", machine.life));
                builder.transport(Liar::new(endpoint, dice, &machine.disk, memory))
            }
        };
        if let Some(counter) = machine.counter.clone() {
            builder = builder.generation(counter);
        }
        let (mailbox, life) = (self.mailbox.clone(), machine.life);
        let tell = move |news| mailbox.borrow_mut().push_back((at, life, news));
        let run = async move {
            let ended = match builder.build().await {
                Ok((peer, driver)) => {
                    tell(News::Opened(peer));
                    driver.run().await
                }
                Err(error) => Err(error),
            };
            tell(News::Ended(ended));
        };
        self.executor.spawn(Some(at), run);
        self.trace.note(b'o', &[at as u64]);
    }

    /// A machine is gone at once: what runs on it, and what of its disk was under way.
    pub fn crash(&mut self, at: usize) {
        let Some(machine) = self.machines.get_mut(at) else {
            return;
        };
        self.trace.note(b'c', &[at as u64]);
        machine.life += 1;
        // Before what runs is dropped, which would take leave of others and close the store.
        self.network.crash(machine.id);
        machine.disk.pull_plug();
        machine.power = Power::Off(None);
        self.executor.end_all(at);
        machine.disk.crash();
    }

    /// Lets what runs on a machine stand still, as a laptop that sleeps.
    pub fn stop(&mut self, at: usize) {
        self.executor.stop(at);
        self.trace.note(b's', &[at as u64]);
    }

    /// Lets it go on.
    pub fn go_on(&mut self, at: usize) {
        self.executor.go_on(at);
        self.trace.note(b'g', &[at as u64]);
    }

    /// Begins a task on a machine, which is gone when the machine crashes; or on none.
    pub fn spawn(&mut self, owner: Owner, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(owner, task);
    }

    fn read_mail(&mut self) {
        loop {
            let Some((at, life, news)) = self.mailbox.borrow_mut().pop_front() else {
                return;
            };
            let Some(machine) = self.machines.get_mut(at).filter(|it| it.life == life) else {
                continue;
            };
            match news {
                News::Opened(peer) => machine.power = Power::On(peer),
                News::Ended(ended) => {
                    machine.power = Power::Off(ended.err());
                    // What waited for its answers is told that there are none, and ends by itself.
                }
            }
        }
    }
}

// Steps.
impl World {
    /// Takes a step, if there is one to take until the given time. Moves time only if no task is
    /// woken.
    pub fn step(&mut self, until_micros: u64) -> bool {
        if let Some((owner, task, polled)) = self.executor.poll_one(&mut self.order) {
            let owner = owner.map_or(u64::MAX, |owner| owner as u64);
            let is_over = !matches!(polled, Polled::Waits);
            self.trace.note(b'p', &[owner, task, u64::from(is_over)]);
            if let Polled::Panicked(words) = polled {
                self.panics.push(words);
            }
            self.steps += 1;
            self.read_mail();
            return true;
        }
        let next = [self.time.next(), self.network.next()];
        let Some(at) = next.into_iter().flatten().min() else {
            return false;
        };
        if at > until_micros {
            return false;
        }
        self.time.advance_to(at);
        self.steps += 1;
        match self.network.perform() {
            Some(happened) => self.note_happened(&happened),
            None => {
                self.time.fire();
                self.trace.note(b't', &[self.time.micros()]);
            }
        }
        true
    }

    fn note_happened(&mut self, happened: &Happened) {
        let now = self.time.micros();
        match happened {
            Happened::Link(wire) => self.trace.note(b'l', &[now, *wire]),
            Happened::Message(wire, way, digest, len) => {
                let way = *way as u64;
                self.shape.note(b'm', &[now, *wire, way, *len]);
                self.trace.note(b'm', &[now, *wire, way, *digest]);
            }
            Happened::Timer(wire) => self.trace.note(b'w', &[now, *wire]),
        }
    }

    /// Takes all steps of the next so many microseconds.
    pub fn run_for(&mut self, micros: u64) {
        let until = self.time.micros().saturating_add(micros);
        while self.step(until) {}
        self.time.advance_to(until);
    }

    /// Moves time forward without letting anything happen meanwhile; what was due happens next.
    pub fn skip_to(&mut self, micros: u64) {
        self.time.advance_to(micros);
    }

    /// Runs a future beside everything else; nothing if it did not end within so many microseconds.
    pub fn run<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        micros: u64,
    ) -> Option<T> {
        let until = self.time.micros().saturating_add(micros);
        let answer = Rc::new(RefCell::new(None));
        let place = answer.clone();
        self.executor.spawn(None, async move {
            let output = future.await;
            *place.borrow_mut() = Some(output);
        });
        while answer.borrow().is_none() && self.step(until) {}
        answer.take()
    }
}

/// Whether a store may fail like this where its disk has faults.
pub(crate) fn is_expected_of_a_disk(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Full | StoreError::Medium { .. } | StoreError::Poisoned
    )
}

//! A run: machines are used, faults strike, then everything must come level.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use leno::{Error, Event, Role, SyncError};
use leno_threads_core::thread::{Quarantine, ReceiveError};

use super::strike::Due;
use super::{Failure, Outcome, Plan, RunOptions};
use crate::byzantine::Memory;
use crate::dice::Dice;
use crate::disk::DiskKind;
use crate::evidence::{Evidence, OwnRecords};
use crate::fault::Fault;
use crate::ledger::{Broken, use_other_words};
use crate::machine::{MachineOptions, Power};
use crate::workload::{Call, Kept, Model, store_of};
use crate::world::{World, is_expected_of_a_disk};

/// Most calls of a machine that are under way at once.
const CALLS_MAX: usize = 4;

/// A run under way.
pub(crate) struct Run {
    pub(super) plan: Plan,
    pub(super) options: RunOptions,
    pub(super) world: World,
    pub(super) model: Rc<RefCell<Model>>,
    pub(super) seats: Vec<Seat>,
    /// What is to be undone, and what is to be done later: by time.
    pub(super) due: BTreeMap<(u64, u64), Due>,
    pub(super) planned: u64,
    pub(super) evidence: Evidence,
    pub(super) struck: BTreeMap<&'static str, u64>,
    pub(super) checked: BTreeMap<u8, u64>,
    /// Each fault strikes by dice of its own.
    pub(super) dice: BTreeMap<Fault, Dice>,
    /// When machines come back.
    pub(super) fate: Dice,
    actions: u64,
    work: Dice,
    /// Decides who changes keys and roles, if anybody does in this run.
    governing: Option<Dice>,
}

/// What is known of a machine outside of the world.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// It has come: before, it was never on.
    pub(super) is_here: bool,
    /// It has left for good.
    pub(super) is_gone: bool,
    /// It stands still.
    pub(super) is_frozen: bool,
    /// It is started again after a while.
    pub(super) is_starting: bool,
    /// The life in which its peer was first looked at.
    pub(super) looked_at: u64,
    /// How often its peer came up.
    pub(super) starts: u64,
    /// What its disk was copied with.
    pub(super) copied: Option<Copied>,
    /// Its disk was put back to an older state at some time.
    pub(super) was_put_back: bool,
    /// What it had written of its own logs and then lost with its disk.
    pub(super) lost: OwnRecords,
}

/// What is known of a copy of a disk.
#[derive(Debug)]
pub(super) struct Copied {
    /// What was durable for sure.
    pub(super) kept: Kept,
    /// What the machine had governed.
    pub(super) governed: u64,
    /// How often its peer had come up.
    pub(super) starts: u64,
}

impl Run {
    pub(crate) fn new(options: &RunOptions) -> Result<Self, Error> {
        use_other_words(options.has_other_words);
        let plan = Plan::draw(options);
        let mut world = World::new(options.seed);
        let mut seats = Vec::new();
        for at in 0..plan.peers {
            let machine = MachineOptions {
                disk: disk_of(&plan, at),
                is_counted: !(plan.has(Fault::UncountedCopy) && at % 2 == 1)
                    && plan.byzantine() != Some(at),
                is_liar: plan.byzantine() == Some(at),
            };
            world.add(&format!("m{at}"), machine)?;
            seats.push(Seat::default());
        }
        let mut run = Self {
            evidence: Evidence {
                has_forks: plan.has(Fault::UncountedCopy),
                ..Evidence::default()
            },
            dice: BTreeMap::new(),
            fate: Dice::new(options.seed, "fate"),
            work: Dice::new(options.seed, "work"),
            governing: {
                let mut dice = Dice::new(options.seed, "governing");
                (dice.below(3) == 0).then_some(dice)
            },
            options: options.clone(),
            plan,
            world,
            model: Rc::default(),
            seats,
            due: BTreeMap::new(),
            planned: 0,
            struck: BTreeMap::new(),
            checked: BTreeMap::new(),
            actions: 0,
        };
        {
            let mut model = run.model.borrow_mut();
            model.byzantine = run.plan.byzantine();
            model.quota = run.plan.quota;
        }
        run.begin();
        Ok(run)
    }

    /// Runs until the end, and tells what it came to.
    pub(crate) fn finish(mut self) -> Outcome {
        let failure = self.go().and_then(|()| self.end()).err();
        let network = self.world.network().counts();
        let mut faults = self.struck;
        faults.extend([
            ("messages lost", network.lost),
            ("messages sent again", network.resent),
            ("messages slowed by a line", network.slowed),
            ("messages held by a silence", network.silenced),
            ("messages corrupted", network.corrupted),
            ("messages doubled", network.duplicated),
            ("messages reordered", network.reordered),
            ("messages replayed", network.replayed),
            ("messages left out", network.dropped),
            ("links stalled", network.stalled),
        ]);
        for machine in self.world.machines() {
            for (what, count) in machine.lies.iter().flat_map(Memory::counts) {
                *faults.entry(what).or_default() += count;
            }
            let disk = machine.disk().counts();
            *faults.entry("writes lost in a crash").or_default() += disk.writes_lost;
            *faults.entry("writes torn in a crash").or_default() += disk.writes_torn;
            *faults.entry("commits without room").or_default() += disk.full;
            *faults.entry("failed commits").or_default() += disk.failed;
            *faults.entry("commits lost in a crash").or_default() += disk.lost;
            *faults.entry("commits kept in a crash").or_default() += disk.kept;
            *faults.entry("failed reads").or_default() += disk.reads_failed;
        }
        faults.retain(|_, count| *count > 0);
        Outcome {
            trace: self.world.trace(),
            steps: self.world.steps(),
            micros: self.world.micros(),
            faults,
            calls: self.model.borrow().done.clone(),
            events: self.model.borrow().events.clone(),
            shape: self.world.shape(),
            checked: self.checked,
            failure,
        }
    }

    /// All steps with faults, and those without that follow.
    fn go(&mut self) -> Result<(), Failure> {
        let mut is_calm = false;
        while self.world.steps() < self.options.steps {
            if !is_calm && self.world.steps() >= self.plan.steps_with_faults {
                self.calm();
                is_calm = true;
            }
            let acts = self.work.below(self.plan.action_every) == 0;
            if acts && self.actions < self.options.actions_max {
                self.act();
            }
            if !is_calm {
                self.strike();
            }
            if !self.step() {
                // Nobody waits for anything: the next action comes later.
                let later = self.world.micros() + 50_000;
                self.world
                    .run_for(later.saturating_sub(self.world.micros()));
                if self.actions >= self.options.actions_max && self.due.is_empty() {
                    break;
                }
            }
            self.check()?;
        }
        Ok(())
    }

    /// Takes a step of the world, or does what is due. False if there is nothing to do at all.
    pub(super) fn step(&mut self) -> bool {
        let due = self.due.keys().next().map(|(at, _)| *at);
        if self.world.step(due.unwrap_or(u64::MAX)) {
            return true;
        }
        let Some(entry) = self.due.first_entry() else {
            return false;
        };
        self.world.skip_to(entry.key().0);
        let due = entry.remove();
        self.undo(due);
        true
    }

    /// What must hold at any time.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let step = self.world.steps();
        if let Some(words) = self.world.panics().first() {
            return Err(Failure {
                invariant: 35,
                step,
                what: format!("a panic: {words}"),
            });
        }
        self.look_after();
        self.listen_to_liars();
        let broken = self.model.borrow_mut().broken.pop();
        match broken {
            None => Ok(()),
            Some(Broken { invariant, what }) => Err(Failure {
                invariant,
                step,
                what,
            }),
        }
    }

    /// 44: no honest machine took a signature for what it is not.
    fn listen_to_liars(&mut self) {
        // What a transport repeats of an earlier link says nothing of what it was told on this one.
        if self.plan.has(Fault::Breach) {
            return;
        }
        let liar = self.plan.byzantine().and_then(|at| self.world.machine(at));
        let broken = liar
            .and_then(|it| it.lies.as_ref())
            .map(Memory::take_broken);
        for what in broken.into_iter().flatten() {
            let invariant = 44;
            let broken = Broken { invariant, what };
            self.model.borrow_mut().broken.push(broken);
        }
    }

    /// Looks at machines whose peers came or ended.
    fn look_after(&mut self) {
        for at in 0..self.seats.len() {
            let (Some(machine), Some(seat)) = (self.world.machine(at), self.seats.get_mut(at))
            else {
                continue;
            };
            match machine.power() {
                Power::On(_) if seat.looked_at != machine.life => {
                    seat.looked_at = machine.life;
                    seat.starts += 1;
                    self.greet(at);
                }
                Power::Off(reason) if seat.is_here && !seat.is_gone && !seat.is_starting => {
                    let is_honest = self.plan.byzantine() != Some(at);
                    let reason = reason.as_ref().filter(|_| is_honest);
                    let reason = reason.and_then(unexpected_end);
                    if let Some(what) = reason {
                        let what = format!("machine {at} ended: {what}");
                        let invariant = 8;
                        self.model
                            .borrow_mut()
                            .broken
                            .push(Broken { invariant, what });
                    }
                    self.start_later(at);
                }
                Power::On(_) | Power::Off(_) | Power::Opening => {}
            }
        }
    }

    /// The first look at a peer that just came up: what was acknowledged is there.
    fn greet(&mut self, at: usize) {
        let readable = self.model.borrow().threads_of(at, Role::reads);
        for thread in readable {
            self.call(at, "read", async move |call| call.read(thread, true).await);
            self.background(at, async move |call| call.watch(thread).await);
        }
        if self.work.below(3) != 0 {
            let allowed = Allowed {
                forks: self.plan.has(Fault::UncountedCopy) || self.plan.has(Fault::Byzantine),
                // Where starts are counted, a copy is noticed before anybody shows more of its log.
                copies: self.plan.has(Fault::UncountedCopy) || self.plan.has(Fault::Byzantine),
                breaches: self.plan.has(Fault::Breach) || self.plan.has(Fault::Byzantine),
            };
            let heard = self.world.machine(at).map(|it| it.heard.clone());
            let heard = heard.unwrap_or_default();
            self.background(at, async move |call| {
                call.listen(heard, move |event| allowed.judge(at, event))
                    .await;
            });
        }
    }

    /// A call that may be under way for ever, and is dropped with its machine.
    fn background<F>(&mut self, at: usize, call: impl FnOnce(Call) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let peer = self.world.machine(at).and_then(|it| it.peer().cloned());
        if let Some(peer) = peer {
            let model = self.model.clone();
            let machine = at;
            let call = call(Call {
                model,
                peer,
                machine,
            });
            self.world.spawn(Some(at), call);
        }
    }

    /// Begins a call on a machine, if its peer runs.
    pub(super) fn call<F>(
        &mut self,
        at: usize,
        name: &'static str,
        call: impl FnOnce(Call) -> F + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let model = self.model.clone();
        let under_way = UnderWay::new(model, at, name);
        self.background(at, move |it| {
            let call = call(it);
            async move {
                call.await;
                drop(under_way);
            }
        });
    }

    fn machines_on(&self) -> Vec<usize> {
        let machines = self.world.machines().iter().enumerate();
        let on = machines.filter(|(_, machine)| machine.peer().is_some());
        // Who is about to leave begins nothing that others would rest on.
        let stays = |at: &usize| self.seats.get(*at).is_some_and(|it| !it.is_gone);
        on.map(|(at, _)| at).filter(stays).collect()
    }

    /// An application does something.
    fn act(&mut self) {
        let on = self.machines_on();
        let Some(at) = self.work.pick(&on).copied() else {
            return;
        };
        if self.model.borrow().busy(at) >= CALLS_MAX {
            return;
        }
        self.actions += 1;
        let dice = Dice::new(self.work.next(), "action");
        if self.grow(at, &dice) || self.govern(at) {
            return;
        }
        let readable = self.model.borrow().threads_of(at, Role::reads);
        let writable = self.model.borrow().threads_of(at, Role::writes);
        let (read, write) = (self.work.pick(&readable), self.work.pick(&writable));
        let (read, write) = (read.copied(), write.copied());
        let other = self.work.pick(&on).and_then(|it| self.world.machine(*it));
        let other = other.map(|it| it.id());
        match (self.work.below(100), read, write) {
            (0..35, _, Some(thread)) => {
                self.call(at, "write", async move |call| {
                    call.write(thread, dice).await
                });
            }
            (35..40, _, Some(thread)) => {
                self.call(at, "write_all", async move |call| {
                    call.write_all(thread, dice).await
                });
            }
            (40..70, _, Some(thread)) => {
                self.call(at, "edit", async move |call| call.edit(thread, dice).await);
            }
            (70..79, Some(thread), _) => {
                self.call(at, "read", async move |call| call.read(thread, false).await);
            }
            (79..83, Some(thread), _) => {
                self.background(at, async move |call| call.watch(thread).await);
            }
            (83..86, Some(thread), _) => {
                self.call(at, "look", async move |call| call.look(thread).await);
            }
            (86..89, ..) => self.call(at, "sync", async |call| call.sync().await),
            (89..91, ..) => self.call(at, "pause", async |call| call.pause().await),
            (91..95, ..) => self.call(at, "resume", async |call| call.resume().await),
            (95..97, ..) => self.call(at, "close", async |call| call.close().await),
            _ => {
                if let Some(to) = other {
                    self.call(at, "connect", async move |call| call.connect(to).await);
                }
            }
        }
    }

    /// Does what lets threads and their members grow, if it is time for it.
    fn grow(&mut self, at: usize, dice: &Dice) -> bool {
        let mut model = self.model.borrow_mut();
        let offer = model.offers.iter().position(|offer| offer.to == at);
        // What a machine that lies does is seen by those only with whom it shares something.
        let is_eager = model.byzantine == Some(at);
        if let Some(which) = offer.filter(|_| self.work.below(4) != 0 || is_eager) {
            let offer = model.offers.swap_remove(which);
            drop(model);
            self.call(at, "join", async move |call| call.join(offer).await);
            return true;
        }
        let few = model.threads.len();
        let is_honest = self.plan.byzantine() != Some(at);
        if is_honest && few == 0 || (is_honest && few < 3 && self.work.below(60) == 0) {
            drop(model);
            self.call(at, "create_thread", async |call| call.create_thread().await);
            return true;
        }
        let is_outside = model.threads.iter().any(|it| !it.members.contains_key(&at));
        let has_card = model.cards.iter().any(|(of, _)| *of == at);
        if is_outside && !has_card && (self.work.below(3) != 0 || is_eager) {
            drop(model);
            self.call(at, "card", async |call| call.card().await);
            return true;
        }
        let governed = model.threads_of(at, |role| is_honest && role.governs());
        if let Some(thread) = self.work.pick(&governed).copied() {
            let members = model.threads.get(thread).map(|it| &it.members);
            let waits = model
                .cards
                .iter()
                .any(|(of, _)| members.is_some_and(|members| !members.contains_key(of)));
            if waits {
                drop(model);
                let dice = dice.clone();
                self.call(at, "grant", async move |call| {
                    call.grant(thread, dice).await
                });
                return true;
            }
        }
        false
    }
}

impl Run {
    /// Changes keys or a role, if it is time for it.
    fn govern(&mut self, at: usize) -> bool {
        let Some(dice) = self
            .governing
            .as_mut()
            .filter(|_| self.plan.byzantine() != Some(at))
        else {
            return false;
        };
        if dice.below(25) != 0 {
            return false;
        }
        let which = dice.below(5);
        let may = |role: Role| match which {
            0 | 1 => role.writes(),
            2 | 3 => role.governs(),
            _ => role == Role::Owner,
        };
        let threads = self.model.borrow().threads_of(at, may);
        let Some(thread) = dice.pick(&threads).copied() else {
            return false;
        };
        let dice = Dice::new(dice.next(), "govern");
        match which {
            0 | 1 => self.call(at, "rotate", async move |call| call.rotate(thread).await),
            2 | 3 => self.call(at, "set_role", async move |call| {
                call.promote(thread, dice).await;
            }),
            _ => self.call(at, "remove", async move |call| {
                call.remove(thread, dice).await;
            }),
        }
        true
    }
}

/// Counts a call as under way for as long as it lives.
struct UnderWay {
    model: Rc<RefCell<Model>>,
    machine: usize,
    name: &'static str,
}

impl UnderWay {
    fn new(model: Rc<RefCell<Model>>, machine: usize, name: &'static str) -> Self {
        model.borrow_mut().begin(machine, name);
        Self {
            model,
            machine,
            name,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.model.borrow_mut().end(self.machine, self.name);
    }
}

/// Which events are no defect in this run.
#[derive(Clone, Copy)]
struct Allowed {
    forks: bool,
    copies: bool,
    breaches: bool,
}

impl Allowed {
    fn judge(self, at: usize, event: &Event) -> Option<Broken> {
        let allowed = [
            (11, self.forks, matches!(event, Event::Forked { .. })),
            (11, self.copies, matches!(event, Event::OwnLogAhead { .. })),
            (
                13,
                self.forks,
                // What somebody wrote who had not heard that he was removed is beyond the fence.
                matches!(event, Event::Quarantined { reason, .. } if *reason != Quarantine::Fenced),
            ),
            (
                37,
                self.breaches || self.forks,
                matches!(event, Event::Refused { error, .. } if !is_nobodys_fault(error)),
            ),
        ];
        let named = allowed.into_iter().find(|(_, _, is_it)| *is_it);
        let (invariant, is_allowed, _) = named?;
        let what = format!("machine {at} was told {event:?}");
        (!is_allowed).then_some(Broken { invariant, what })
    }
}

/// A range that does not link to what is here may be an honest one: the record that opens its log came
/// between it and the one before.
fn is_nobodys_fault(error: &SyncError) -> bool {
    let SyncError::Range { source, .. } = error else {
        return false;
    };
    // Nor is it anybody's that there is no room here.
    matches!(
        source,
        ReceiveError::Gap { .. } | ReceiveError::OverQuota { .. }
    )
}

/// Why a driver ended, if that is a defect.
fn unexpected_end(error: &Error) -> Option<String> {
    let is_expected = match store_of(error) {
        Some(error) => is_expected_of_a_disk(error),
        None => matches!(error, Error::File(_)),
    };
    (!is_expected).then(|| format!("{error:?}"))
}

#[cfg(feature = "redb")]
fn disk_of(plan: &Plan, at: usize) -> DiskKind {
    let is_file = plan.rests_on_files || at.is_multiple_of(2);
    match plan.has(Fault::File) && is_file {
        true => DiskKind::Redb,
        false => DiskKind::Rows,
    }
}

#[cfg(not(feature = "redb"))]
fn disk_of(_: &Plan, _: usize) -> DiskKind {
    DiskKind::Rows
}

/// Machines that take part in a thread until the end.
pub(super) fn members(run: &Run, thread: usize) -> BTreeSet<usize> {
    let model = run.model.borrow();
    let members = model.threads.get(thread).map(|it| &it.members);
    let joined = members.into_iter().flatten();
    let joined = joined.filter(|(_, it)| it.is_joined && !it.is_removed);
    joined
        .map(|(at, _)| *at)
        .filter(|at| run.plan.byzantine() != Some(*at))
        // Whoever has no room for more is not level, and says so.
        .filter(|at| !model.limited.contains_key(&(*at, thread)))
        .filter(|at| {
            run.seats
                .get(*at)
                .is_some_and(|it| it.is_here && !it.is_gone)
        })
        .collect()
}

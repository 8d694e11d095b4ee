//! Faults strike, and what they do is undone after a while.

use std::ops::RangeInclusive;

use leno::{PeerId, SeatId};
use leno_threads_core::LogId;

use super::Profile;
use super::run::{Copied, Run};
use crate::byzantine::{forge, seats_of};
use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::evidence::OwnRecords;
use crate::fault::Fault;
use crate::network::{Breach, Conditions};
use crate::world::World;

/// What is to be done at some time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// A machine is switched on.
    Start(usize),
    /// A machine goes on.
    GoOn(usize),
    /// A partition ends.
    Heal(PeerId, PeerId),
    /// A direction comes through again.
    Unsilence(PeerId, PeerId),
    /// A transport keeps its contract again.
    EndBreach(PeerId, PeerId),
    /// A disk works again.
    Repair(usize),
    /// Starts can be counted again.
    Count(usize),
    /// Somebody sets a clock right.
    Correct(usize),
}

/// How long a fault lasts, in microseconds.
const LASTS: RangeInclusive<u64> = 5_000..=60_000_000;

/// How long a machine that was put back is apart from the others, in microseconds.
const APART: RangeInclusive<u64> = 25_000_000..=120_000_000;

/// How far a clock jumps: up to two years, in milliseconds.
const JUMP_MILLIS: RangeInclusive<u64> = 1..=63_000_000_000;

// How a run begins.
impl Run {
    /// Sets up what lasts for all of the run, and switches the machines on.
    pub(super) fn begin(&mut self) {
        let mut dice = Dice::new(self.options.seed, "begin");
        let conditions = self.conditions(&mut dice);
        self.world.network().set_conditions(conditions);
        for at in 0..self.plan.peers {
            let Some(machine) = self.world.machine(at) else {
                continue;
            };
            let clock = machine.clock().clone();
            if self.plan.has(Fault::Skew) {
                let millis = dice.magnitude(&(1..=400_000)).cast_signed();
                clock.jump(if dice.coin() { millis } else { -millis });
            }
            if self.plan.has(Fault::Drift) {
                clock.drift(dice.below(20_000).cast_signed() - 10_000);
            }
            if self.plan.has(Fault::Unset) && dice.coin() {
                clock.unset();
            }
            machine.disk().set_faults(self.disk(at));
            let is_late = at > 1 && self.plan.has(Fault::LateJoin) && dice.below(3) == 0;
            match is_late {
                true => self.plan_after(dice.magnitude(&(100_000..=60_000_000)), Due::Start(at)),
                false => self.plan_after(dice.below(5_000), Due::Start(at)),
            }
        }
    }

    fn conditions(&self, dice: &mut Dice) -> Conditions {
        let mut conditions = Conditions::default();
        let longest = dice.magnitude(&(500..=20_000));
        conditions.latency_micros = 100..=longest;
        if self.plan.has(Fault::Latency) {
            let shortest = dice.magnitude(&(1_000..=1_000_000));
            conditions.latency_micros = shortest..=shortest * (1 + dice.below(5));
        }
        if self.plan.has(Fault::Loss) {
            let loss = dice.magnitude(&(1_000..=300_000));
            conditions.loss_per_million = u32::try_from(loss).unwrap_or(0);
            conditions.attempts = if dice.coin() { 1 } else { 4 };
        }
        if self.plan.has(Fault::SlowLine) {
            conditions.bytes_per_second = Some(dice.magnitude(&(2_000..=200_000)));
            conditions.queue_bytes = 16 << 10;
        }
        conditions
    }

    /// What a disk is like as long as nothing strikes it.
    fn disk(&self, at: usize) -> DiskFaults {
        let mut faults = DiskFaults::default();
        if self.plan.has(Fault::SlowDisk) {
            let mut dice = Dice::new(self.options.seed, &format!("slow disk {at}"));
            faults.latency_micros = 100..=dice.magnitude(&(1_000..=500_000));
        }
        faults
    }

    pub(super) fn plan_after(&mut self, micros: u64, due: Due) {
        self.planned += 1;
        let at = self.world.micros().saturating_add(micros);
        self.due.insert((at, self.planned), due);
    }

    /// Has a machine that is off started after a while.
    pub(super) fn start_later(&mut self, at: usize) {
        let after = self.fate.magnitude(&(1_000..=20_000_000));
        if let Some(seat) = self.seats.get_mut(at) {
            seat.is_starting = true;
            self.plan_after(after, Due::Start(at));
        }
    }
}

// Strikes.
impl Run {
    /// Lets each fault strike that is due to.
    pub(super) fn strike(&mut self) {
        let faults: Vec<_> = self
            .plan
            .faults
            .iter()
            .map(|(it, every)| (*it, *every))
            .collect();
        for (fault, every) in faults {
            let seed = self.options.seed;
            let dice = self.dice.entry(fault);
            let dice = dice.or_insert_with(|| Dice::new(seed, &format!("strike/{fault}")));
            if dice.below(every) != 0 {
                continue;
            }
            let mut dice = Dice::new(dice.next(), "strike");
            if self.strike_with(fault, &mut dice) {
                *self.struck.entry(fault.name()).or_default() += 1;
            }
        }
    }

    /// Lets a fault strike; false if it found nobody to strike.
    fn strike_with(&mut self, fault: Fault, dice: &mut Dice) -> bool {
        let any = dice.index(self.plan.peers);
        let at = match (fault, self.plan.byzantine()) {
            (Fault::Byzantine, Some(liar)) => liar,
            (Fault::Byzantine, None) => return false,
            // A copy is of use only where it was made.
            (Fault::StaleCopy | Fault::UncountedCopy, _) => {
                let made = self.seats.iter().position(|seat| seat.copied.is_some());
                made.unwrap_or(any)
            }
            // Power that goes while nothing is written loses nothing.
            (Fault::Crash, _) if self.options.profile == Profile::Disk => {
                let is_writing = |at: &usize| {
                    let machine = self.world.machine(*at);
                    machine.is_some_and(|it| it.disk().is_writing())
                };
                match (0..self.plan.peers).find(is_writing) {
                    Some(writing) => writing,
                    None => return false,
                }
            }
            _ => any,
        };
        let lasts = dice.magnitude(&LASTS);
        let Some(seat) = self.seats.get(at).filter(|it| it.is_here && !it.is_gone) else {
            return false;
        };
        let is_on = self.world.machine(at).is_some_and(|it| it.peer().is_some());
        match fault {
            Fault::Cut | Fault::Partition | Fault::Silence | Fault::Breach => {
                return self.strike_line(fault, at, dice, lasts);
            }
            Fault::Jump => {
                let millis = dice.magnitude(&JUMP_MILLIS).cast_signed();
                self.clock(at, |it| it.jump(if dice.coin() { millis } else { -millis }));
                if dice.coin() {
                    self.plan_after(lasts, Due::Correct(at));
                }
            }
            Fault::Unset => {
                self.clock(at, crate::SimClock::unset);
                if dice.coin() {
                    self.plan_after(lasts, Due::Correct(at));
                }
            }
            Fault::Crash => {
                if seat.is_starting {
                    return false;
                }
                self.crash(at);
            }
            Fault::Freeze => {
                if seat.is_frozen || !is_on {
                    return false;
                }
                if let Some(seat) = self.seats.get_mut(at) {
                    seat.is_frozen = true;
                }
                self.world.stop(at);
                self.plan_after(lasts, Due::GoOn(at));
            }
            Fault::CommitError | Fault::ReadError | Fault::FullDisk => {
                let mut faults = self.disk(at);
                let often = u32::try_from(dice.magnitude(&(10_000..=1_000_000))).unwrap_or(0);
                faults.is_full = fault == Fault::FullDisk;
                if fault == Fault::CommitError {
                    faults.commit_errors_per_million = often;
                }
                if fault == Fault::ReadError {
                    faults.read_errors_per_million = often;
                }
                self.set_disk(at, faults);
                self.plan_after(lasts, Due::Repair(at));
            }
            Fault::StaleCopy | Fault::UncountedCopy => return self.strike_copy(fault, at),
            Fault::Count => {
                let counter = self.world.machine(at).and_then(|it| it.counter().cloned());
                let Some(counter) = counter else {
                    return false;
                };
                counter.fail(true);
                self.plan_after(lasts, Due::Count(at));
            }
            Fault::EarlyLeave => return self.strike_leave(at, dice),
            Fault::Byzantine => return self.strike_byzantine(at, dice),
            // These last for all of the run.
            Fault::Latency
            | Fault::Loss
            | Fault::SlowLine
            | Fault::Skew
            | Fault::Drift
            | Fault::SlowDisk
            | Fault::LateJoin
            | Fault::SmallQuota
            | Fault::File => return false,
        }
        true
    }

    fn strike_line(&mut self, fault: Fault, at: usize, dice: &mut Dice, lasts: u64) -> bool {
        let others = self.plan.peers.saturating_sub(1) as u64;
        let step = 1 + usize::try_from(dice.below(others)).unwrap_or(0);
        let other = (at + step) % self.plan.peers.max(1);
        let (Some(a), Some(b)) = (id(&self.world, at), id(&self.world, other)) else {
            return false;
        };
        let network = self.world.network();
        if fault == Fault::Partition {
            network.partition(a, b);
            self.plan_after(lasts, Due::Heal(a, b));
        } else if fault == Fault::Silence {
            network.silence(a, b);
            self.plan_after(lasts, Due::Unsilence(a, b));
        } else if fault == Fault::Breach {
            let mut share = || u32::try_from(dice.magnitude(&(20_000..=300_000))).unwrap_or(0);
            let breach = Breach {
                corrupt_per_million: share(),
                duplicate_per_million: share(),
                drop_per_million: share(),
                reorder_per_million: share(),
                replay_per_million: share(),
            };
            network.breach(a, b, Some(breach));
            self.plan_after(lasts, Due::EndBreach(a, b));
        } else {
            network.cut(a, b);
        }
        true
    }

    /// Has a machine that was put back begin without a network, more often than not: what it writes
    /// before it meets anybody shows whether it knows what it is.
    fn start_apart(&mut self, at: usize) {
        // Longer than it takes to be started.
        let lasts = self.fate.magnitude(&APART);
        if self.fate.below(4) == 0 {
            return;
        }
        let own = id(&self.world, at);
        for other in (0..self.plan.peers).filter(|other| *other != at) {
            if let (Some(a), Some(b)) = (own, id(&self.world, other)) {
                self.world.network().partition(a, b);
                self.plan_after(lasts, Due::Heal(a, b));
            }
        }
    }

    /// Copies a disk, or puts the copy back.
    fn strike_copy(&mut self, fault: Fault, at: usize) -> bool {
        let governed = self.model.borrow().governed.get(&at).copied();
        let governed = governed.unwrap_or(0);
        let is_counted = self
            .world
            .machine(at)
            .is_some_and(|it| it.counter().is_some());
        let Some(seat) = self.seats.get_mut(at) else {
            return false;
        };
        let is_uncounted = fault == Fault::UncountedCopy;
        // What others were granted by a machine must not be lost with its disk: nobody could tell
        // whether they should come level. A fork of such a log is for byzantine machines.
        if is_uncounted == is_counted || (is_uncounted && governed > 0) {
            return false;
        }
        // A copy that was put back before the next start is noticed only by other peers.
        let is_noticed = |copied: &Copied| is_uncounted || copied.starts < seat.starts;
        match seat.copied.take() {
            Some(copied) if copied.governed == governed && is_noticed(&copied) => {
                seat.was_put_back = true;
                self.crash(at);
                let before = self.own_records(at);
                let mut control = self.control_logs(at);
                if let Some(machine) = self.world.machine(at) {
                    machine.disk().restore();
                }
                let after = self.own_records(at);
                if is_uncounted {
                    control.extend(self.control_logs(at));
                    let logs = before.logs().chain(after.logs()).chain(control);
                    self.evidence.heads.doubt(logs);
                }
                if let Some(seat) = self.seats.get_mut(at) {
                    seat.lost = before.without(after);
                }
                self.evidence.heads.put_back(at);
                self.model
                    .borrow_mut()
                    .forget(at, &copied.kept, is_uncounted);
                self.start_apart(at);
            }
            // Once it was started again the copy is an older one.
            Some(copied) if copied.governed == governed => {
                seat.copied = Some(copied);
                self.crash(at);
            }
            _ => {
                let model = self.model.borrow();
                // What is being started or done right now may be in the copy, or not.
                let machine = self.world.machine(at);
                let is_settled = machine
                    .is_some_and(|it| it.peer().is_some() && it.life == seat.looked_at)
                    && model.busy(at) == 0;
                if !is_settled {
                    return false;
                }
                seat.copied = Some(Copied {
                    kept: model.kept_by(at),
                    governed,
                    starts: seat.starts,
                });
                drop(model);
                if let Some(machine) = self.world.machine(at) {
                    machine.disk().back_up();
                }
            }
        }
        true
    }

    /// The control logs of a machine.
    fn control_logs(&self, at: usize) -> Vec<LogId> {
        let Some(machine) = self.world.machine(at) else {
            return Vec::new();
        };
        let (disk, id) = (machine.disk(), machine.id());
        let seats = disk.inspect(|view| seats_of(view, id)).and_then(|it| it);
        let seats = seats.unwrap_or_default().into_values();
        seats.map(SeatId::control_log).collect()
    }

    /// What is durable on a machine of its own data logs.
    fn own_records(&self, at: usize) -> OwnRecords {
        let Some(machine) = self.world.machine(at) else {
            return OwnRecords::default();
        };
        let (disk, id) = (machine.disk(), machine.id());
        // A store that does not open is told of elsewhere.
        let read = disk.inspect(|view| OwnRecords::read(view, id));
        read.and_then(|it| it).unwrap_or_default()
    }

    /// A machine goes on from a copy of itself, or with records that it forged.
    fn strike_byzantine(&mut self, at: usize, dice: &mut Dice) -> bool {
        if self.model.borrow().threads_of(at, |_| true).is_empty() {
            return false;
        }
        let Some(machine) = self.world.machine(at) else {
            return false;
        };
        let disk = machine.disk().clone();
        match dice.below(4) {
            0 => disk.back_up(),
            1 => {
                self.crash(at);
                disk.restore();
            }
            _ => self.forge(at, dice),
        }
        true
    }

    /// Has a machine go on with records that it forged.
    pub(super) fn forge(&mut self, at: usize, dice: &mut Dice) {
        self.crash(at);
        let Some(machine) = self.world.machine(at) else {
            return;
        };
        let (disk, id) = (machine.disk().clone(), machine.id());
        let forged = disk.inspect(|view| forge(view, id, dice));
        if let Ok(Ok(batch)) = forged {
            // Its own store may fail as any other.
            drop(disk.write(batch));
        }
    }

    /// A machine leaves for good, with what it did not tell anybody.
    fn strike_leave(&mut self, at: usize, dice: &mut Dice) -> bool {
        let governs = self.model.borrow().governed.contains_key(&at);
        let gone = self.seats.iter().filter(|it| it.is_gone).count();
        if governs || gone > 0 || self.plan.peers < 3 {
            return false;
        }
        if let Some(seat) = self.seats.get_mut(at) {
            seat.is_gone = true;
        }
        match dice.coin() {
            true => self.world.crash(at),
            false => self.call(at, "close", async |call| call.close().await),
        }
        true
    }

    pub(super) fn crash(&mut self, at: usize) {
        self.world.crash(at);
        // Whom not to trust is to be known first.
        if let Some(liar) = self.plan.byzantine() {
            self.observe(liar);
        }
        self.observe(at);
        self.look_at(at);
        if let Some(seat) = self.seats.get_mut(at) {
            seat.is_frozen = false;
        }
        // The next look sees that it is off.
    }

    fn clock(&self, at: usize, change: impl FnOnce(&crate::SimClock)) {
        if let Some(machine) = self.world.machine(at) {
            change(machine.clock());
        }
    }

    fn set_disk(&self, at: usize, faults: DiskFaults) {
        if let Some(machine) = self.world.machine(at) {
            machine.disk().set_faults(faults);
        }
    }

    /// Does what is due.
    pub(super) fn undo(&mut self, due: Due) {
        match due {
            Due::Start(at) => {
                if let Some(seat) = self.seats.get_mut(at).filter(|it| !it.is_gone) {
                    seat.is_here = true;
                    seat.is_starting = false;
                    self.world.start(at);
                }
            }
            Due::GoOn(at) => {
                if let Some(seat) = self.seats.get_mut(at) {
                    seat.is_frozen = false;
                }
                self.world.go_on(at);
            }
            Due::Heal(a, b) => self.world.network().heal(a, b),
            Due::Unsilence(a, b) => self.world.network().unsilence(a, b),
            Due::EndBreach(a, b) => self.world.network().breach(a, b, None),
            Due::Repair(at) => self.set_disk(at, self.disk(at)),
            Due::Count(at) => {
                if let Some(counter) = self.world.machine(at).and_then(|it| it.counter()) {
                    counter.fail(false);
                }
            }
            Due::Correct(at) => self.clock(at, crate::SimClock::correct),
        }
    }

    /// Ends all faults: from here on everything works, and everybody who has not left is there.
    pub(super) fn calm(&mut self) {
        for due in std::mem::take(&mut self.due).into_values() {
            self.undo(due);
        }
        self.world.network().calm(Conditions::default());
        // Records are compared at a time that lies behind all stamps.
        let clocks = self.world.machines().iter().map(|it| it.clock());
        let highest = clocks.map(|it| it.highest_millis()).max().unwrap_or(0);
        let ahead = highest
            .saturating_sub(crate::START_MILLIS)
            .saturating_mul(1_000);
        if ahead > self.world.micros() {
            self.world.skip_to(ahead);
        }
        for at in 0..self.plan.peers {
            self.clock(at, crate::SimClock::correct);
            self.set_disk(at, DiskFaults::default());
            if self.seats.get(at).is_some_and(|it| !it.is_here) {
                self.undo(Due::Start(at));
            }
        }
    }
}

fn id(world: &World, at: usize) -> Option<PeerId> {
    world.machine(at).map(|it| it.id())
}

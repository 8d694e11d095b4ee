//! What is looked at beside the peers: their disks, their watchers, and whether they come level alone.

use std::collections::BTreeSet;

use leno::DocumentId;

use super::Failure;
use super::run::Run;
use crate::dice::Dice;
use crate::fault::Fault;
use crate::ledger::{Broken, LEDGER};

/// How long peers have to come level if nobody asks them to, in microseconds.
const ALONE_MICROS: u64 = 1_800_000_000;

/// How many steps they have.
const ALONE_STEPS: u64 = 200_000;

impl Run {
    /// Looks for what was admitted before its time on any machine. To be called while clocks show what
    /// they showed.
    pub(super) fn look_at_all(&mut self) {
        for at in (0..self.seats.len()).rev() {
            self.look_at(at);
        }
    }

    /// As [`Run::look_at_all`], on one.
    pub(super) fn look_at(&mut self, at: usize) {
        let Some(machine) = self.world.machine(at) else {
            return;
        };
        // Who forks a log leaves it open what a reference means.
        if self.plan.byzantine() == Some(at) || self.evidence.has_forks {
            return;
        }
        let (disk, id) = (machine.disk().clone(), machine.id());
        // Without the time of day nothing is held.
        let is_timed = !self.plan.has(Fault::Unset);
        let highest = is_timed.then(|| machine.clock().highest_millis());
        let probe = &mut self.evidence.probe;
        probe.doubtful.clone_from(&self.evidence.heads.doubtful);
        // A store that does not open is told of elsewhere.
        drop(disk.inspect(|view| probe.admitted(at, id, view, highest)));
    }

    /// In some runs, has peers that are connected come level without anybody asking them to, also if
    /// each of their links breaks once.
    pub(super) fn level_alone(&mut self) -> Result<(), Failure> {
        let mut dice = Dice::new(self.options.seed, "alone");
        if self.evidence.has_forks || dice.coin() {
            return Ok(());
        }
        let until = self.world.micros().saturating_add(ALONE_MICROS);
        let steps = self.world.steps().saturating_add(ALONE_STEPS);
        let mut pause = 1_000_000;
        let mut is_connected = false;
        let mut reason = "they were not connected".to_owned();
        while self.world.micros() < until && self.world.steps() < steps {
            self.wait(pause)?;
            pause = (pause * 2).min(60_000_000);
            if !is_connected {
                match self.connect_all()? {
                    Ok(_) => is_connected = true,
                    Err(why) => reason = why,
                }
                if is_connected && dice.coin() {
                    self.cut_all();
                }
                continue;
            }
            match self.unequal() {
                None => return Ok(()),
                Some(why) => reason = why,
            }
        }
        Err(Failure {
            invariant: 6,
            step: self.world.steps(),
            what: format!("not level unless they are asked: {reason}"),
        })
    }

    /// Breaks all links.
    fn cut_all(&self) {
        let ids: Vec<_> = self.world.machines().iter().map(|it| it.id()).collect();
        for (at, a) in ids.iter().enumerate() {
            for b in ids.iter().skip(at + 1) {
                self.world.network().cut(*a, *b);
            }
        }
    }

    /// Looks into all disks, and at all that was shown to people.
    pub(super) fn probe(&mut self) {
        let mut dice = Dice::new(self.options.seed, "probe");
        self.evidence.probe.doubtful = self.evidence.heads.doubtful.clone();
        self.evidence.probe.liars = self.evidence.heads.distrusted.clone();
        self.evidence.probe.removed = self.removed_seats();
        for at in 0..self.seats.len() {
            let Some(machine) = self.world.machine(at) else {
                continue;
            };
            if self.plan.byzantine() == Some(at) {
                continue;
            }
            let (disk, id) = (machine.disk().clone(), machine.id());
            let peer = machine.peer().map(|peer| format!("{peer:?}"));
            let probe = &mut self.evidence.probe;
            let looked = disk.inspect(|view| probe.look(at, id, view, &mut dice));
            if let Err(error) | Ok(Err(error)) = looked {
                let what = format!("the disk of machine {at} does not read: {error:?}");
                self.evidence.unopened.push(what);
            }
            self.evidence.probe.texts(&peer.unwrap_or_default());
        }
        for (what, count) in self.evidence.probe.counts.clone() {
            *self.struck.entry(what).or_default() += count;
        }
        let model = self.model.borrow();
        for ((at, thread), limit) in &model.limited {
            let (Some(limit), Some(thread)) = (limit, model.threads.get(*thread)) else {
                continue;
            };
            let kept = self.evidence.probe.kept.get(&(*at, thread.id)).copied();
            if let Some(what) = limit.exceeded_by(kept.unwrap_or_default()) {
                let invariant = 39;
                let what = format!("machine {at}: {what}");
                self.evidence.probe.broken.push(Broken { invariant, what });
            }
        }
        for text in &model.shown {
            self.evidence.probe.texts(text);
        }
    }

    /// The seats of machines that an owner removed, or began to.
    fn removed_seats(&self) -> BTreeSet<(leno::ThreadId, leno::SeatId)> {
        let model = self.model.borrow();
        let threads = model.threads.iter().flat_map(|thread| {
            let removed = thread.members.values().filter(|it| it.is_removed);
            removed.filter_map(|it| Some((thread.id, it.seat?)))
        });
        threads.collect()
    }

    /// Looks at what went over the transports of honest machines.
    fn compare_taps_of(&self, at: usize) -> Vec<Broken> {
        let Some(machine) = self.world.machine(at).filter(|it| it.lies.is_none()) else {
            return Vec::new();
        };
        // Who lies, a transport that has a defect, and branches of a log make peers let ranges go.
        // So does a clock that holds back the record that opens a log.
        let loud = [
            Fault::Breach,
            Fault::Skew,
            Fault::Drift,
            Fault::Jump,
            Fault::Unset,
        ];
        let counts_all = self.plan.byzantine().is_none()
            && !loud.iter().any(|it| self.plan.has(*it))
            && !self.evidence.has_forks;
        let untold = counts_all.then(|| machine.heard.untold()).flatten();
        untold.into_iter().chain(machine.heard.queued()).collect()
    }

    /// See above.
    pub(super) fn compare_taps(&mut self) {
        let broken: Vec<Broken> = (0..self.seats.len())
            .flat_map(|at| self.compare_taps_of(at))
            .collect();
        self.model.borrow_mut().broken.extend(broken);
    }

    /// Compares what watchers know with what shows.
    pub(super) fn compare_watchers(&mut self) {
        let mut model = self.model.borrow_mut();
        let mut broken = Vec::new();
        for watcher in model.watchers.values().filter(|it| it.is_ready) {
            let (machine, thread) = (watcher.machine, watcher.thread);
            let sights = &self.evidence.sights;
            let of = |it: &&crate::Sight| (it.machine, it.thread) == (machine, thread) && it.reads;
            let Some(sight) = sights.iter().find(of) else {
                continue;
            };
            let notes = sight.documents.iter().filter(|(name, ..)| name == LEDGER);
            let shown: BTreeSet<&DocumentId> = notes.map(|(_, id, _)| id).collect();
            let known: BTreeSet<&DocumentId> = watcher.known.iter().collect();
            if let Some(id) = shown.symmetric_difference(&known).next() {
                let what = format!("a watcher on machine {machine} was not told of {id:?}");
                let invariant = 4;
                broken.push(Broken { invariant, what });
            }
        }
        model.broken.extend(broken);
    }
}

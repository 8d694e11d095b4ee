//! The end of a run: all come level, then everything is compared.

use std::collections::BTreeSet;
use std::time::Duration;

use leno::{Error, Ipld, Peer, Role};

use super::Failure;
use super::run::{Run, members};
use crate::byzantine::seats_of;
use crate::catalogue::{Check, catalogue};
use crate::dice::Dice;
use crate::evidence::{OwnRecords, Sight};
use crate::fault::Fault;
use crate::ledger::{Broken, LEDGER, MIRROR};
use crate::network::address_of;
use crate::workload::SONGS;

/// How long it may take until all are level once nothing goes wrong any more, in microseconds.
const LEVEL_MICROS: u64 = 1_800_000_000;

/// How long a call may take when nothing goes wrong, in microseconds.
const CALL_MICROS: u64 = 60_000_000;

/// How often members are looked at until nothing changes any more in between.
const LOOKS_MAX: usize = 8;

/// How many steps that may take.
const LEVEL_STEPS: u64 = 400_000;

impl Run {
    /// Waits until all are level, then checks everything.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        self.unequal();
        self.look_at_all();
        self.calm();
        self.meet_liar()?;
        self.level_alone()?;
        let until = self.world.micros().saturating_add(LEVEL_MICROS);
        let steps = self.world.steps().saturating_add(LEVEL_STEPS);
        let mut behind = "nothing was tried".to_owned();
        let mut pause = 1_000_000;
        loop {
            if self.world.micros() > until || self.world.steps() > steps {
                let stand = self.describe()?;
                let step = self.world.steps();
                let what =
                    format!("not level although nothing goes wrong any more: {behind}; {stand}");
                let invariant = 6;
                return Err(Failure {
                    invariant,
                    step,
                    what,
                });
            }
            self.wait(pause)?;
            pause = (pause * 2).min(60_000_000);
            match self.level()? {
                None => break,
                Some(reason) => behind = reason,
            }
        }
        self.gather()?;
        self.judge()
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, micros: u64) -> Result<(), Failure> {
        let until = self.world.micros().saturating_add(micros);
        loop {
            let due = self.due.keys().next().map(|(at, _)| *at);
            if !self.world.step(due.unwrap_or(u64::MAX).min(until)) {
                if due.is_none_or(|due| due > until) {
                    break;
                }
                self.step();
            }
            self.check()?;
        }
        self.world.skip_to(until);
        Ok(())
    }

    /// Runs a call on a machine that is on.
    fn ask<T: 'static, F: Future<Output = Result<T, Error>> + 'static>(
        &mut self,
        at: usize,
        call: impl FnOnce(Peer) -> F,
    ) -> Result<Option<T>, Failure> {
        let peer = self.world.machine(at).and_then(|it| it.peer().cloned());
        let Some(peer) = peer else {
            return Ok(None);
        };
        let answer = self.world.run(call(peer), 300_000_000);
        self.check()?;
        match answer {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Ok(None),
            None => Err(Failure {
                invariant: 40,
                step: self.world.steps(),
                what: format!("a call on machine {at} does not end"),
            }),
        }
    }

    /// Connects who shares a thread and has all tell each other everything. Tells who is behind.
    fn level(&mut self) -> Result<Option<String>, Failure> {
        let sharing = match self.connect_all()? {
            Ok(sharing) => sharing,
            Err(reason) => return Ok(Some(reason)),
        };
        for at in sharing {
            let wait = Duration::from_secs(120);
            let report = self.ask(at, async move |peer| peer.sync_once(wait).await)?;
            // Nobody comes level with a liar.
            let is_alone =
                self.plan.byzantine().is_none() && self.model.borrow().limited.is_empty();
            if is_alone && !report.as_ref().is_some_and(leno::SyncReport::is_complete) {
                return Ok(Some(format!("machine {at}: {report:?}")));
            }
        }
        Ok(self.unequal())
    }

    /// Connects honest machines to the one that lies: what it forged and where its logs part is to
    /// reach them, and only then are they looked at.
    fn meet_liar(&mut self) -> Result<(), Failure> {
        let Some(liar) = self.plan.byzantine() else {
            return Ok(());
        };
        let mut dice = Dice::new(self.options.seed, "meeting");
        // Those that were off are on by then.
        self.wait(1_000_000)?;
        (0..=dice.below(2)).for_each(|_| self.forge(liar, &mut dice));
        self.world.start(liar);
        self.wait(1_000_000)?;
        if let Some(machine) = self.world.machine(liar) {
            machine.disk().back_up();
        }
        self.listen_to(liar, &mut dice)?;
        if dice.coin() {
            self.crash(liar);
            if let Some(machine) = self.world.machine(liar) {
                machine.disk().restore();
            }
            self.world.start(liar);
            self.wait(1_000_000)?;
            self.listen_to(liar, &mut dice)?;
        }
        Ok(())
    }

    /// Has honest machines connect to the one that lies, which then writes.
    fn listen_to(&mut self, liar: usize, dice: &mut Dice) -> Result<(), Failure> {
        let machine = self.world.machine(liar);
        let Some(address) = machine.and_then(|it| address_of(it.id())) else {
            return Ok(());
        };
        self.call(liar, "resume", async |call| call.resume().await);
        let sharing = (0..liar).filter(|at| self.shares_with(*at, liar));
        for at in sharing.collect::<Vec<_>>() {
            let address = address.clone();
            self.ask(at, async |peer| peer.resume().await)?;
            self.ask(at, async move |peer| peer.connect(&address).await)?;
        }
        self.wait(2_000_000)?;
        let threads = self.model.borrow().threads_of(liar, Role::writes);
        for thread in threads {
            for _ in 0..=dice.below(3) {
                let dice = Dice::new(dice.next(), "action");
                self.call(liar, "write", async move |call| {
                    call.write(thread, dice).await
                });
                self.wait(500_000)?;
            }
        }
        self.wait(5_000_000)
    }

    /// Whether both are members of a thread.
    fn shares_with(&self, at: usize, other: usize) -> bool {
        let model = self.model.borrow();
        let mut members = model.threads.iter().map(|it| &it.members);
        members.any(|it| it.contains_key(&at) && it.contains_key(&other))
    }

    /// Connects who shares a thread; returns them, or who is not to be reached.
    pub(super) fn connect_all(&mut self) -> Result<Result<BTreeSet<usize>, String>, Failure> {
        let here: Vec<_> = (0..self.seats.len())
            .filter(|at| self.seats.get(*at).is_some_and(|it| !it.is_gone))
            .filter(|at| self.plan.byzantine() != Some(*at))
            .collect();
        for at in &here {
            if self.ask(*at, async |peer| peer.resume().await)?.is_none() {
                return Ok(Err(format!("machine {at} is not on")));
            }
        }
        let threads = self.model.borrow().threads.len();
        let mut sharing = BTreeSet::new();
        for thread in 0..threads {
            let members: Vec<_> = members(self, thread).into_iter().collect();
            for pair in members.windows(2) {
                let &[a, b] = pair else { continue };
                sharing.extend([a, b]);
                let Some(to) = self.world.machine(b).and_then(|it| address_of(it.id())) else {
                    continue;
                };
                let connected = self.ask(a, async move |peer| peer.connect(&to).await)?;
                if connected.is_none() {
                    return Ok(Err(format!("machine {a} does not reach {b}")));
                }
            }
        }
        Ok(Ok(sharing))
    }

    /// Where each member stands, for a person to read.
    fn describe(&mut self) -> Result<String, Failure> {
        let threads: Vec<_> = self.model.borrow().threads.iter().map(|it| it.id).collect();
        let mut words = Vec::new();
        for (number, id) in threads.into_iter().enumerate() {
            for at in members(self, number) {
                let status = async move |peer: Peer| peer.thread(id).await?.status().await;
                let status = self.ask(at, status)?;
                let name = self.world.machine(at).map(|it| it.id());
                words.push(format!(
                    "thread {number}, machine {at} {name:?}: {status:?}"
                ));
            }
        }
        Ok(words.join("; "))
    }

    /// Who of a thread's members holds other records than another.
    pub(super) fn unequal(&mut self) -> Option<String> {
        self.observe_all();
        let threads: Vec<_> = self.model.borrow().threads.iter().map(|it| it.id).collect();
        for (number, thread) in threads.into_iter().enumerate() {
            let members = members(self, number);
            let mut frontiers = members
                .iter()
                .map(|at| (at, self.evidence.heads.honest(*at, thread)));
            let first = frontiers.next();
            for (at, frontier) in frontiers {
                if let Some((other, expected)) = &first
                    && frontier != *expected
                {
                    return Some(format!(
                        "machines {other} and {at} differ in thread {number}"
                    ));
                }
            }
        }
        None
    }

    /// As [`Run::observe`], on all machines; whom not to trust is to be known first.
    fn observe_all(&mut self) {
        for at in (0..self.seats.len()).rev() {
            self.observe(at);
        }
    }

    /// Notes the heads that are durable on a machine.
    pub(super) fn observe(&mut self, at: usize) {
        let Some(machine) = self.world.machine(at) else {
            return;
        };
        let (disk, id) = (machine.disk().clone(), machine.id());
        let heads = &mut self.evidence.heads;
        if self.plan.byzantine() == Some(at) {
            if let Ok(Ok(seats)) = disk.inspect(|view| seats_of(view, id)) {
                heads.distrust(seats.into_values());
            }
            return;
        }
        heads.are_led_on = self.plan.byzantine().is_some() && self.plan.has(Fault::Unset);
        let seen = disk.inspect(|view| heads.observe(at, id, view));
        if let Err(error) | Ok(Err(error)) = seen {
            let what = format!("the store of machine {at} does not open: {error:?}");
            self.evidence.unopened.push(what);
        }
        // 11: peers showed more of an own log, so somebody else may go on with it.
        let lost = self
            .seats
            .get(at)
            .map(|it| &it.lost)
            .filter(|it| !it.is_empty());
        let now = lost.and_then(|_| disk.inspect(|view| OwnRecords::read(view, id)).ok());
        if let (Some(lost), Some(Ok(now))) = (lost, now)
            && let Some(log) = lost.gone_on_with(&now)
        {
            let what = format!("machine {at} goes on with log {log}, of which others showed more");
            let invariant = 11;
            let broken = Broken { invariant, what };
            self.model.borrow_mut().broken.push(broken);
        }
    }

    /// Collects what all members show.
    fn gather(&mut self) -> Result<(), Failure> {
        let threads: Vec<_> = self.model.borrow().threads.iter().map(|it| it.id).collect();
        for (number, id) in threads.into_iter().enumerate() {
            for at in members(self, number) {
                self.ask(at, async move |peer| look(peer, at, number, id).await)?;
                self.call(at, "read", async move |call| call.read(number, false).await);
            }
        }
        // As long as any call may take: what was begun before may write until then.
        self.wait(CALL_MICROS)?;
        let mut sights = self.sights()?;
        for _ in 0..LOOKS_MAX {
            let again = self.sights()?;
            let is_still = again == sights;
            sights = again;
            if is_still {
                break;
            }
        }
        self.evidence.sights = sights;
        // Of who lies something may have come since all were level.
        self.observe_all();
        self.probe();
        self.compare_taps();
        self.compare_watchers();
        self.check()?;
        self.evidence.calls_under_way = self.model.borrow().under_way.clone();
        let byzantine = self.plan.byzantine();
        let under_way = &mut self.evidence.calls_under_way;
        under_way.retain(|(at, _)| byzantine != Some(*at));
        Ok(())
    }

    /// What every member shows of every thread.
    fn sights(&mut self) -> Result<Vec<Sight>, Failure> {
        let threads: Vec<_> = self.model.borrow().threads.iter().map(|it| it.id).collect();
        let mut sights = Vec::new();
        for (number, id) in threads.into_iter().enumerate() {
            for at in members(self, number) {
                sights.extend(self.ask(at, async move |peer| look(peer, at, number, id).await)?);
            }
        }
        Ok(sights)
    }

    /// Checks every invariant that is checked at the end.
    fn judge(&mut self) -> Result<(), Failure> {
        let step = self.world.steps();
        for invariant in catalogue() {
            let broken = match invariant.check {
                Check::AtEnd(check) => check(&self.evidence),
                Check::During(_) => Vec::new(),
                Check::Waits(_) => continue,
            };
            *self.checked.entry(invariant.number).or_default() += 1;
            if let Some(what) = broken.into_iter().next() {
                let invariant = invariant.number;
                return Err(Failure {
                    invariant,
                    step,
                    what,
                });
            }
        }
        for sight in &self.evidence.sights {
            let hash = sight.state_hash.unwrap_or_default();
            self.world.note(&format!("{hash:?}"));
        }
        Ok(())
    }
}

/// What a member shows of a thread.
async fn look(
    peer: Peer,
    machine: usize,
    number: usize,
    id: leno::ThreadId,
) -> Result<Sight, Error> {
    let thread = peer.thread(id).await?;
    let status = thread.status().await?;
    let mut sight = Sight {
        machine,
        thread: number,
        id,
        reads: status.role.is_some_and(Role::reads),
        status: Some(status),
        state_hash: None,
        documents: Vec::new(),
    };
    if sight.reads {
        sight.state_hash = Some(thread.state_hash().await?);
        for name in [LEDGER, MIRROR, SONGS] {
            let documents = thread.collection::<Ipld>(name).list(None, 1 << 20).await?;
            let documents = documents.into_iter();
            let named = documents.map(|(id, document)| (name.to_owned(), id, document));
            sight.documents.extend(named);
        }
    }
    Ok(sight)
}

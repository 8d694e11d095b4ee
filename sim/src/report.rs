//! What the command line shows.

use std::collections::BTreeMap;
use std::time::Instant;

use leno_sim::{Check, Outcome, Plan, RunOptions, catalogue};

use crate::args::Swarm;

/// Seconds between lines of progress.
const PROGRESS_SECONDS: u64 = 10;

/// Totals of many runs.
#[derive(Debug)]
pub(crate) struct Report {
    seeds: u64,
    of: u64,
    steps: u64,
    micros: u128,
    faults: BTreeMap<&'static str, u64>,
    calls: BTreeMap<&'static str, u64>,
    events: BTreeMap<&'static str, u64>,
    checked: BTreeMap<u8, u64>,
    failures: usize,
    began: Instant,
    shown: u64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "tells a person how fast it goes; no run sees it"
)]
fn now() -> Instant {
    Instant::now()
}

impl Report {
    pub(crate) fn new(swarm: &Swarm) -> Self {
        Self {
            seeds: 0,
            of: swarm.seeds.end.saturating_sub(swarm.seeds.start),
            steps: 0,
            micros: 0,
            faults: BTreeMap::new(),
            calls: BTreeMap::new(),
            events: BTreeMap::new(),
            checked: BTreeMap::new(),
            failures: 0,
            began: now(),
            shown: 0,
        }
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures
    }

    /// Adds a run; `small` is the least run that fails as this one does.
    pub(crate) fn add(
        &mut self,
        options: &RunOptions,
        outcome: &Outcome,
        small: Option<RunOptions>,
    ) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.micros += u128::from(outcome.micros);
        add(&mut self.faults, &outcome.faults);
        add(&mut self.calls, &outcome.calls);
        add(&mut self.events, &outcome.events);
        add(&mut self.checked, &outcome.checked);
        if let Some(failure) = &outcome.failure {
            self.failures += 1;
            println!("seed {}: {failure}", options.seed);
            println!("    {}", small.as_ref().unwrap_or(options).command());
        }
        let seconds = now().duration_since(self.began).as_secs();
        if seconds / PROGRESS_SECONDS > self.shown {
            self.shown = seconds / PROGRESS_SECONDS;
            eprintln!(
                "{} of {} seeds, {} steps, {seconds} s",
                self.seeds, self.of, self.steps
            );
        }
    }

    /// Shows all of it.
    pub(crate) fn total(&self) {
        let seconds = now().duration_since(self.began).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
        let (pace, hours) = (
            self.steps as f64 / seconds,
            self.micros as f64 / 3_600_000_000.0,
        );
        println!("seeds: {}", self.seeds);
        println!(
            "steps: {} in {seconds:.1} s, {pace:.0} per second",
            self.steps
        );
        println!("time simulated: {hours:.1} h");
        list("faults", &self.faults);
        list("calls", &self.calls);
        list("events", &self.events);
        let checked = self
            .checked
            .iter()
            .map(|(number, times)| format!("{number}: {times}"));
        println!("invariants: {}", checked.collect::<Vec<_>>().join(", "));
        println!("failures: {}", self.failures);
    }
}

fn add<K: Ord + Copy>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(*key).or_default() += count;
    }
}

fn list(title: &str, counts: &BTreeMap<&'static str, u64>) {
    let counts = counts
        .iter()
        .map(|(name, count)| format!("{name}: {count}"));
    println!("{title}: {}", counts.collect::<Vec<_>>().join(", "));
}

/// Shows one run.
pub(crate) fn outcome(options: &RunOptions, outcome: &Outcome) {
    let plan = Plan::draw(options);
    println!("{}", options.command());
    println!("machines: {}", plan.peers);
    let faults = plan.faults.iter();
    let faults = faults.map(|(fault, every)| format!("{fault} (every {every} steps)"));
    println!("faults on: {}", faults.collect::<Vec<_>>().join(", "));
    println!("steps: {}", outcome.steps);
    println!("time simulated: {} s", outcome.micros / 1_000_000);
    list("faults", &outcome.faults);
    list("calls", &outcome.calls);
    println!("trace: {}", outcome.trace);
    match &outcome.failure {
        None => println!("every invariant held"),
        Some(failure) => println!("{failure}"),
    }
}

/// Shows the catalogue.
pub(crate) fn invariants() {
    for it in catalogue() {
        let how = match it.check {
            Check::AtEnd(_) => "checked at the end".to_owned(),
            Check::During(how) => format!("checked: {how}"),
            Check::Waits(for_what) => format!("waits for {for_what}"),
            _ => "checked".to_owned(),
        };
        println!("{:>2}  {} ({how})", it.number, it.rule);
    }
}

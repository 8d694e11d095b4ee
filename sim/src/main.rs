//! The command line of the simulator: see `sim/README.md`.

mod args;
mod bugs;
mod report;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use args::{Command, HELP};
use leno_sim::{Failure, Fault, Outcome, Plan, RunOptions, run, shrink};
use report::Report;

fn main() -> ExitCode {
    // A panic of a task is caught, told as a failure of its seed, and shown by it.
    std::panic::set_hook(Box::new(|_| {}));
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::Run(swarm)) => run_all(&swarm),
        Ok(Command::Bugs(swarm)) => bugs::find(&swarm),
        Ok(Command::Replay(options)) => replay(&options),
        Ok(Command::Invariants) => {
            report::invariants();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one seed twice and shows what it came to.
fn replay(options: &RunOptions) -> ExitCode {
    let outcome = run_checked(options, true);
    report::outcome(options, &outcome);
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    }
}

/// Runs a seed, and once more if it is in the sample: both must show the same.
fn run_checked(options: &RunOptions, is_in_sample: bool) -> Outcome {
    let mut outcome = run(options);
    if is_in_sample {
        let again = run(options);
        *outcome.checked.entry(47).or_default() += 1;
        if again.trace != outcome.trace && outcome.failure.is_none() {
            outcome.failure = Some(Failure {
                invariant: 47,
                step: outcome.steps,
                what: format!("trace {} and {}", outcome.trace, again.trace),
            });
        }
        if outcome.failure.is_none() && is_quiet(options) {
            let other = run(&RunOptions {
                has_other_words: true,
                ..options.clone()
            });
            *outcome.checked.entry(23).or_default() += 1;
            if other.shape != outcome.shape {
                let failure = Failure {
                    invariant: 23,
                    step: outcome.steps,
                    what: "other words of the same lengths look otherwise on the wire".to_owned(),
                };
                outcome.failure = Some(other.failure.unwrap_or(failure));
            }
        }
    }
    outcome
}

/// Whether the words of a run show in nothing but ciphertexts: bytes that are harmed at random, and
/// branches of a log, of which the lower one counts, make a difference of them.
fn is_quiet(options: &RunOptions) -> bool {
    let plan = Plan::draw(options);
    let loud = [Fault::Byzantine, Fault::Breach, Fault::UncountedCopy];
    loud.iter().all(|fault| !plan.has(*fault))
}

/// Runs all seeds, on as many threads as asked.
fn run_all(swarm: &args::Swarm) -> ExitCode {
    let next = AtomicU64::new(swarm.seeds.start);
    let stops = AtomicBool::new(false);
    let report = Mutex::new(Report::new(swarm));
    std::thread::scope(|scope| {
        for _ in 0..swarm.threads {
            scope.spawn(|| {
                while !stops.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= swarm.seeds.end {
                        break;
                    }
                    let options = RunOptions {
                        seed,
                        ..swarm.options.clone()
                    };
                    let is_in_sample = seed.is_multiple_of(swarm.sample);
                    let outcome = run_checked(&options, is_in_sample);
                    let small = outcome.failure.is_some().then(|| shrink(&options));
                    let mut report = report
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    report.add(&options, &outcome, small);
                    if report.failures() >= swarm.failures_max {
                        stops.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let report = report
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    report.total();
    match report.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

//! Tries the simulator itself: switches known mistakes on one by one, and runs seeds until each is
//! found. Needs a build with `--cfg leno_bug`, see `leno_threads_core::bug`.

/// How many seeds a mistake has at most to be found, unless told otherwise.
pub(crate) const SEEDS_MAX: u64 = 300;

#[cfg(not(leno_bug))]
pub(crate) fn find(_: &crate::args::Swarm) -> std::process::ExitCode {
    eprintln!("this needs a build that holds the mistakes:\n");
    eprintln!("    RUSTFLAGS=\"--cfg leno_bug\" cargo run --release -p leno-sim -- bugs");
    std::process::ExitCode::FAILURE
}

#[cfg(leno_bug)]
pub(crate) use with_bugs::find;

#[cfg(leno_bug)]
mod with_bugs {
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use leno_sim::{Failure, Outcome, RunOptions, run};
    use leno_threads_core::bug::Bug;

    use crate::args::Swarm;

    /// What the runs with one mistake came to.
    struct Hunt {
        seeds: u64,
        steps: u64,
        seconds: f64,
        /// The lowest seed that failed, and how.
        found: Option<(u64, Failure)>,
    }

    pub(crate) fn find(swarm: &Swarm) -> ExitCode {
        let named =
            |bug: &&Bug| swarm.bugs.is_empty() || swarm.bugs.iter().any(|it| it == bug.name());
        let bugs: Vec<Bug> = Bug::ALL.iter().filter(named).copied().collect();
        if let Some(name) = swarm
            .bugs
            .iter()
            .find(|it| bugs.iter().all(|bug| bug.name() != **it))
        {
            eprintln!("there is no bug {name:?}");
            return ExitCode::FAILURE;
        }
        println!(
            "at most {} seeds of {} steps each",
            swarm.seeds.end - swarm.seeds.start,
            swarm.options.steps
        );
        let mut is_good = true;
        // What fails without any mistake finds nothing.
        if swarm.bugs.is_empty() {
            let sound = hunt(swarm, None);
            is_good = sound.found.is_none();
            show("(none)", "the code as it is", &sound);
        }
        let mut missed = Vec::new();
        for bug in &bugs {
            let hunt = hunt(swarm, Some(*bug));
            show(bug.name(), bug.what(), &hunt);
            if hunt.found.is_none() {
                missed.push(bug.name());
            }
        }
        println!(
            "found {} of {}; missed: {missed:?}",
            bugs.len() - missed.len(),
            bugs.len()
        );
        match is_good && missed.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    fn show(name: &str, what: &str, hunt: &Hunt) {
        let Hunt {
            seeds,
            steps,
            seconds,
            found,
        } = hunt;
        println!("{name}: {what}");
        let tried = format!("{seeds} seeds, {steps} steps, {seconds:.1} s");
        match found {
            None => println!("    nothing found in {tried}"),
            Some((seed, failure)) => {
                let words: String = failure.what.chars().take(160).collect();
                println!(
                    "    {tried}: seed {seed}, invariant {}: {words}",
                    failure.invariant
                );
            }
        }
    }

    /// What a run came to that panicked itself.
    fn panicked() -> Outcome {
        let failure = Failure {
            invariant: 35,
            step: 0,
            what: "a panic outside of the peers".to_owned(),
        };
        Outcome {
            failure: Some(failure),
            ..Outcome::default()
        }
    }

    /// Runs seeds until one fails.
    #[expect(
        clippy::disallowed_methods,
        reason = "tells a person how fast it was found; no run sees it"
    )]
    fn hunt(swarm: &Swarm, bug: Option<Bug>) -> Hunt {
        let began = Instant::now();
        Bug::switch(bug);
        let next = AtomicU64::new(swarm.seeds.start);
        let hunt = Mutex::new(Hunt {
            seeds: 0,
            steps: 0,
            seconds: 0.0,
            found: None,
        });
        let lock = || {
            hunt.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        std::thread::scope(|scope| {
            for _ in 0..swarm.threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= swarm.seeds.end || lock().found.is_some() {
                            return;
                        }
                        let options = RunOptions {
                            seed,
                            ..swarm.options.clone()
                        };
                        let outcome = std::panic::catch_unwind(|| run(&options));
                        // Outside of the peers: where the simulator reads or forges what they keep.
                        let outcome = outcome.unwrap_or_else(|_| panicked());
                        let mut hunt = lock();
                        hunt.seeds += 1;
                        hunt.steps += outcome.steps;
                        let before = hunt.found.as_ref().map(|(seed, _)| *seed);
                        if let Some(failure) = outcome.failure
                            && before.is_none_or(|before| seed < before)
                        {
                            hunt.found = Some((seed, failure));
                        }
                    }
                });
            }
        });
        Bug::switch(None);
        let hunt = hunt
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Hunt {
            seconds: began.elapsed().as_secs_f64(),
            ..hunt
        }
    }
}

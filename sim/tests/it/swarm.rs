//! Many seeds, each a run of its own. A failure is told as the command that shows it again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use leno_sim::{Profile, RunOptions, run, shrink};

/// Threads of this computer that are used.
const THREADS: usize = 2;

/// Each so-manieth seed is run twice.
const SAMPLE: u64 = 20;

/// Runs seeds, and fails with the least run that fails as the first one did which failed. Returns how often
/// each fault struck.
fn run_all(seeds: Range<u64>, options: &RunOptions) -> BTreeMap<&'static str, u64> {
    let next = AtomicU64::new(seeds.start);
    let faults = Mutex::new(BTreeMap::new());
    let failure = Mutex::new(None);
    let one = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end || failure.lock().unwrap().is_some() {
            return;
        }
        let options = RunOptions {
            seed,
            ..options.clone()
        };
        let outcome = run(&options);
        for (fault, count) in &outcome.faults {
            *faults.lock().unwrap().entry(*fault).or_default() += count;
        }
        if let Some(found) = outcome.failure {
            let command = shrink(&options).command();
            *failure.lock().unwrap() = Some(format!("seed {seed}: {found}\n    {command}"));
        } else if seed.is_multiple_of(SAMPLE) {
            // 47: the same run, to the last byte.
            assert_eq!(run(&options).trace, outcome.trace, "seed {seed}");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(one);
        }
    });
    if let Some(failure) = failure.into_inner().unwrap() {
        panic!("{failure}");
    }
    faults.into_inner().unwrap()
}

#[test]
fn every_invariant_holds_whatever_goes_wrong() {
    run_all(0..400, &RunOptions::new(0));
}

#[test]
fn every_invariant_holds_when_faults_stop_half_way() {
    let profile = Profile::Liveness;
    let options = RunOptions {
        profile,
        ..RunOptions::new(0)
    };
    run_all(10_000..10_060, &options);
}

#[test]
fn every_invariant_holds_in_long_runs_with_few_faults() {
    let options = RunOptions {
        profile: Profile::Calm,
        steps: 10_000,
        ..RunOptions::new(0)
    };
    run_all(20_000..20_010, &options);
}

#[test]
fn every_invariant_holds_when_power_goes_amid_writes() {
    let options = RunOptions {
        profile: Profile::Disk,
        ..RunOptions::new(0)
    };
    let faults = run_all(40_000..40_040, &options);
    // It is no test of torn writes if there are none.
    assert!(faults["writes torn in a crash"] > 0, "{faults:?}");
}

/// What millions of steps found, once each. What each seed comes to changes with the code.
#[test]
fn every_invariant_holds_where_one_did_not() {
    for seed in [
        30, 80, 1_865, 20_016, 30_933, 700_268, 701_253, 802_359, 950_841,
    ] {
        run_all(seed..seed + 1, &RunOptions::new(0));
    }
}

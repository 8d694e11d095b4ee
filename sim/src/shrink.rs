//! Finds the least run that fails as another one does.

use crate::fault::Fault;
use crate::swarm::{Outcome, PEERS_MIN, Plan, RunOptions, run};

/// Most runs that are tried.
const TRIES_MAX: u32 = 200;

/// Makes a failing run smaller as long as it breaks the same invariant: switches faults off one by
/// one, takes machines away, and cuts actions and steps by halves.
///
/// Gives the options back as they are if the run does not fail.
///
/// # Examples
///
/// ```
/// use leno_sim::{RunOptions, shrink};
///
/// let sound = RunOptions { steps: 200, ..RunOptions::new(1) };
/// assert_eq!(shrink(&sound), sound);
/// ```
#[must_use]
pub fn shrink(options: &RunOptions) -> RunOptions {
    shrink_with(options, run)
}

/// As [`shrink`], with the run itself as an argument.
fn shrink_with(options: &RunOptions, run: impl Fn(&RunOptions) -> Outcome) -> RunOptions {
    let Some(failure) = run(options).failure else {
        return options.clone();
    };
    let mut small = options.clone();
    let mut tries = 0;
    let mut fails = |candidate: &RunOptions| {
        tries += 1;
        let again = (tries <= TRIES_MAX)
            .then(|| run(candidate).failure)
            .flatten();
        again.is_some_and(|again| again.invariant == failure.invariant)
    };
    for fault in Fault::ALL {
        if Plan::draw(&small).has(*fault) {
            let mut candidate = small.clone();
            candidate.without.insert(*fault);
            if fails(&candidate) {
                small = candidate;
            }
        }
    }
    for peers in PEERS_MIN.saturating_sub(1)..Plan::draw(&small).peers {
        let candidate = RunOptions {
            peers: Some(peers),
            ..small.clone()
        };
        if fails(&candidate) {
            small = candidate;
            break;
        }
    }
    let most = small.actions_max.min(small.steps);
    small.actions_max = halve(most, |actions_max| {
        fails(&RunOptions {
            actions_max,
            ..small.clone()
        })
    })
    .unwrap_or(small.actions_max);
    small.steps = halve(small.steps, |steps| {
        fails(&RunOptions {
            steps,
            ..small.clone()
        })
    })
    .unwrap_or(small.steps);
    small
}

/// The least number up to this one that fails, if any below it does; looked for by halves, as if each
/// above one that fails did so too.
fn halve(most: u64, mut fails: impl FnMut(u64) -> bool) -> Option<u64> {
    let (mut low, mut high) = (0, most);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        if fails(middle) {
            found = Some(middle);
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::Failure;

    /// Fails with three machines, from step 70 and action 9 on, if machines crash.
    fn fake(options: &RunOptions) -> Outcome {
        let plan = Plan::draw(options);
        let is_broken = plan.has(Fault::Crash)
            && plan.peers >= 3
            && options.steps >= 70
            && options.actions_max >= 9;
        Outcome {
            failure: is_broken.then(|| Failure {
                invariant: 1,
                step: 0,
                what: String::new(),
            }),
            ..Outcome::default()
        }
    }

    #[test]
    fn only_what_matters_is_left() {
        let seeds = (0..50).map(RunOptions::new);
        let mut failing = seeds.filter(|options| fake(options).failure.is_some());
        let options = failing.next().unwrap();
        let small = shrink_with(&options, fake);
        assert_eq!((small.steps, small.actions_max), (70, 9));
        assert_eq!(small.peers, (Plan::draw(&options).peers > 3).then_some(3));
        assert_eq!(
            Plan::draw(&small).faults.keys().collect::<Vec<_>>(),
            [&Fault::Crash]
        );
        assert!(small.command().contains("--steps 70 ") && small.command().contains("--actions 9"));
    }
}

//! Swarm testing: each seed is a run of its own, with a random subset of faults.

mod end;
mod look;
mod plan;
mod run;
mod strike;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::fault::Fault;
use crate::trace::TraceHash;
pub use plan::{PEERS_MAX, PEERS_MIN, Plan};
pub(crate) use run::Run;

/// What a run is for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Profile {
    /// Faults strike all along; at the end they stop, and all must come level.
    #[default]
    Safety,
    /// Faults stop half-way; from then on the peers are used without any.
    Liveness,
    /// Few faults, so that logs grow long.
    Calm,
    /// As [`Profile::Safety`], with stores in files on slow disks and power that goes often: writes are
    /// lost and torn.
    Disk,
}

impl Profile {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Safety => "safety",
            Self::Liveness => "liveness",
            Self::Calm => "calm",
            Self::Disk => "disk",
        }
    }

    /// The profile of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Safety, Self::Liveness, Self::Calm, Self::Disk];
        all.into_iter().find(|it| it.name() == name)
    }
}

/// Which run: the same options give the same run, down to the last byte.
///
/// # Examples
///
/// ```
/// use leno_sim::RunOptions;
///
/// let outcome = leno_sim::run(&RunOptions { steps: 300, ..RunOptions::new(1) });
/// assert_eq!(outcome.failure, None);
/// assert_eq!(outcome.trace, leno_sim::run(&RunOptions { steps: 300, ..RunOptions::new(1) }).trace);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunOptions {
    /// From what everything is drawn.
    pub seed: u64,
    /// How many steps there are before the faults stop and all must come level.
    pub steps: u64,
    /// What the run is for.
    pub profile: Profile,
    /// How many machines there are; drawn unless given.
    pub peers: Option<usize>,
    /// Faults that are switched off although they are drawn.
    pub without: BTreeSet<Fault>,
    /// How many actions of applications there are at most.
    pub actions_max: u64,
    /// Whether applications write other words, of the same lengths.
    pub has_other_words: bool,
}

impl RunOptions {
    /// A thousand steps of the safety profile.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: 1_000,
            profile: Profile::default(),
            peers: None,
            without: BTreeSet::new(),
            actions_max: u64::MAX,
            has_other_words: false,
        }
    }

    /// The command that shows the run again.
    #[must_use]
    pub fn command(&self) -> String {
        let mut words = format!(
            "cargo run --release -p leno-sim -- replay --seed {} --steps {}",
            self.seed, self.steps
        );
        if self.profile != Profile::default() {
            words.push_str(&format!(" --profile {}", self.profile.name()));
        }
        if let Some(peers) = self.peers {
            words.push_str(&format!(" --peers {peers}"));
        }
        if self.actions_max != u64::MAX {
            words.push_str(&format!(" --actions {}", self.actions_max));
        }
        for fault in &self.without {
            words.push_str(&format!(" --without {fault}"));
        }
        words
    }
}

/// A rule that did not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The number of the invariant, as in [`catalogue`](crate::catalogue).
    pub invariant: u8,
    /// At which step it was seen.
    pub step: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invariant,
            step,
            what,
        } = self;
        write!(formatter, "invariant {invariant}, at step {step}: {what}")
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// Everything that happened, as a hash.
    pub trace: TraceHash,
    /// How many steps there were in all.
    pub steps: u64,
    /// How much time passed in the world, in microseconds.
    pub micros: u64,
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each method was called and did as asked.
    pub calls: BTreeMap<&'static str, u64>,
    /// How often peers told of each kind of event.
    pub events: BTreeMap<&'static str, u64>,
    /// What somebody saw who carried all messages and read none, as a hash.
    pub shape: TraceHash,
    /// How often each invariant was checked.
    pub checked: BTreeMap<u8, u64>,
    /// What did not hold.
    pub failure: Option<Failure>,
}

/// Runs a seed.
#[must_use]
pub fn run(options: &RunOptions) -> Outcome {
    match Run::new(options) {
        Ok(run) => run.finish(),
        Err(error) => Outcome {
            failure: Some(Failure {
                invariant: 8,
                step: 0,
                what: format!("the world could not be made: {error:?}"),
            }),
            ..Outcome::default()
        },
    }
}

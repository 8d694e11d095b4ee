//! What is drawn before a run begins.

use std::collections::BTreeMap;

use super::{Profile, RunOptions};
use crate::dice::Dice;
use crate::fault::Fault;

/// Fewest machines in a run.
pub const PEERS_MIN: usize = 3;

/// Most machines in a run.
pub const PEERS_MAX: usize = 7;

/// What a run is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// How many machines there are.
    pub peers: usize,
    /// The faults that are on, and after how many steps each strikes again on average.
    pub faults: BTreeMap<Fault, u64>,
    /// After how many steps an application acts again on average.
    pub action_every: u64,
    /// How many steps there are with faults.
    pub steps_with_faults: u64,
    /// How many bytes of a thread a replicator keeps, if that is bounded.
    pub quota: Option<u64>,
    /// Whether all machines have their store in a file, where there are such; otherwise every other one.
    pub rests_on_files: bool,
}

impl Plan {
    /// Draws the plan of a run.
    #[must_use]
    pub fn draw(options: &RunOptions) -> Self {
        let mut dice = Dice::new(options.seed, "plan");
        let width = (PEERS_MAX - PEERS_MIN + 1) as u64;
        let drawn = PEERS_MIN + usize::try_from(dice.below(width)).unwrap_or(0);
        let action_every = dice.magnitude(&(2..=24));
        let mut faults = Fault::draw(options.seed, options.profile);
        faults.retain(|fault, _| !options.without.contains(fault));
        // Only one kind of copy: what may be lost with one is judged otherwise.
        if faults.contains_key(&Fault::UncountedCopy) {
            faults.remove(&Fault::StaleCopy);
        }
        // Nor is it told apart who forked a log.
        if faults.contains_key(&Fault::Byzantine) {
            faults.remove(&Fault::UncountedCopy);
        }
        let has_quota = faults.contains_key(&Fault::SmallQuota);
        let quota = Dice::new(options.seed, "quota").magnitude(&(300..=5_000));
        Self {
            peers: options.peers.unwrap_or(drawn),
            faults,
            action_every,
            quota: has_quota.then_some(quota),
            rests_on_files: options.profile == Profile::Disk,
            steps_with_faults: match options.profile {
                Profile::Liveness => options.steps / 2,
                Profile::Safety | Profile::Calm | Profile::Disk => options.steps,
            },
        }
    }

    /// The machine that does not keep to the rules, if there is one.
    #[must_use]
    pub fn byzantine(&self) -> Option<usize> {
        let is_on = self.has(Fault::Byzantine) && self.peers > 2;
        is_on.then(|| self.peers - 1)
    }

    /// Whether a fault is on.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains_key(&fault)
    }
}

//! What goes wrong in a run: a subset drawn from the seed, each with an intensity of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::dice::Dice;
use crate::swarm::Profile;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    /// Messages take up to seconds, and their delay varies.
    Latency = "latency",
    /// Messages are lost, each of which ends its link.
    Loss = "loss",
    /// Lines carry a few kilobytes per second.
    SlowLine = "slow-line",
    /// Connections are reset.
    Cut = "cut",
    /// Two machines do not reach each other.
    Partition = "partition",
    /// Nothing comes through in one direction.
    Silence = "silence",
    /// The transport violates its contract.
    Breach = "breach",
    /// Clocks are wrong by up to minutes.
    Skew = "skew",
    /// Clocks run too fast or too slow.
    Drift = "drift",
    /// Clocks jump forward and back, by up to years.
    Jump = "jump",
    /// Machines do not know the time of day.
    Unset = "unset",
    /// Machines crash, and come back.
    Crash = "crash",
    /// Machines stand still for a while.
    Freeze = "freeze",
    /// Commits take up to half a second.
    SlowDisk = "slow-disk",
    /// Commits fail.
    CommitError = "commit-error",
    /// Reads fail.
    ReadError = "read-error",
    /// Disks are full for a while.
    FullDisk = "full-disk",
    /// A disk is put back to an older state, on a machine that counts its starts elsewhere.
    StaleCopy = "stale-copy",
    /// The same on a machine that does not.
    UncountedCopy = "uncounted-copy",
    /// Starts cannot be counted for a while.
    Count = "count",
    /// Machines join late.
    LateJoin = "late-join",
    /// A machine leaves for good.
    EarlyLeave = "early-leave",
    /// Replicators keep little of a thread.
    SmallQuota = "small-quota",
    /// Stores rest in a file that loses what was not synced, and tears it.
    File = "file",
    /// One machine does not keep to the rules.
    Byzantine = "byzantine",
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// No fault has this name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no fault {0:?}")]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let all = Self::ALL.iter().copied();
        let mut named = all.filter(|fault| fault.name() == name);
        named.next().ok_or_else(|| UnknownFault(name.to_owned()))
    }
}

impl Fault {
    /// How many runs of a million it is switched on in.
    fn share(self, profile: Profile) -> u32 {
        if profile == Profile::Calm {
            80_000
        } else if profile == Profile::Disk && self.is_of_disks_that_lose_power() {
            1_000_000
        } else if self == Self::Byzantine {
            250_000
        } else if self == Self::SmallQuota {
            150_000
        } else if matches!(
            self,
            Self::File | Self::UncountedCopy | Self::Breach | Self::Unset | Self::SmallQuota
        ) {
            120_000
        } else {
            350_000
        }
    }

    /// What it takes that writes are lost or torn: files, and power that goes while commits are under way.
    fn is_of_disks_that_lose_power(self) -> bool {
        matches!(self, Self::File | Self::Crash | Self::SlowDisk)
    }

    /// Draws which faults a run has, and after how many steps each strikes again on average. Each has
    /// dice of its own, so that one that is switched off does not change the others.
    pub(crate) fn draw(seed: u64, profile: Profile) -> BTreeMap<Self, u64> {
        let mut drawn = BTreeMap::new();
        for fault in Self::ALL {
            let mut dice = Dice::new(seed, &format!("fault/{fault}"));
            if dice.chance(fault.share(profile)) {
                let rarest = if profile == Profile::Calm {
                    20_000
                } else if profile == Profile::Disk && *fault == Self::Crash {
                    60
                } else if *fault == Self::Byzantine {
                    // It strikes only once that machine has joined something.
                    250
                } else {
                    1_500
                };
                drawn.insert(*fault, dice.magnitude(&(60..=rarest)));
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse::<Fault>(), Ok(*fault));
        }
        assert_eq!("x".parse::<Fault>(), Err(UnknownFault("x".to_owned())));
    }

    #[test]
    fn every_fault_is_on_in_some_runs_and_off_in_others() {
        let runs: Vec<_> = (0..200)
            .map(|seed| Fault::draw(seed, Profile::Safety))
            .collect();
        for fault in Fault::ALL {
            let on = runs.iter().filter(|run| run.contains_key(fault)).count();
            assert!((1..200).contains(&on), "{fault}: {on}");
        }
    }
}

//! What is asked for on the command line.

use std::ffi::OsString;
use std::ops::Range;

use leno_sim::{Profile, RunOptions};
use lexopt::prelude::*;

use crate::bugs::SEEDS_MAX;

pub(crate) const HELP: &str = "\
leno-sim: whole peers of leno on a faulty network, disk and clock, from one seed.

    run --seeds 0..30000          runs each seed; shrinks those that fail, and prints how to see them again
    replay --seed 17              runs one seed twice and shows what it came to
    bugs                          switches known mistakes on one by one, and tells how fast each is found
    invariants                    lists what is checked, and what waits for what

    --steps 1000                  steps before the faults stop and all must come level
    --profile safety              safety, liveness, calm, or disk
    --peers 5                     how many machines; 3 to 7 are drawn if it is not given
    --without crash               switches a fault off; may be given again
    --actions 40                  at most so many actions of applications
    --threads 2                   (run) how many threads of this computer to use
    --sample 20                   (run) each so-manieth seed is run twice and compared
    --bug ack-of-unsent           (bugs) this one only; may be given again
    --failures 1                  (run) stop after so many
";

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Swarm),
    Bugs(Swarm),
    Replay(RunOptions),
    Invariants,
    Help,
}

/// Which seeds to run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) seeds: Range<u64>,
    pub(crate) options: RunOptions,
    pub(crate) threads: usize,
    pub(crate) sample: u64,
    pub(crate) failures_max: usize,
    /// The mistakes to try; all if none is named.
    pub(crate) bugs: Vec<String>,
}

pub(crate) fn parse(
    words: impl IntoIterator<Item = OsString>,
) -> Result<Command, Box<dyn std::error::Error>> {
    let mut parser = lexopt::Parser::from_args(words);
    let mut command = None;
    let mut swarm = Swarm {
        seeds: 0..1_000,
        options: RunOptions::new(0),
        threads: std::thread::available_parallelism().map_or(1, Into::into),
        sample: 20,
        failures_max: 1,
        bugs: Vec::new(),
    };
    let mut seeds = None;
    let options = &mut swarm.options;
    while let Some(word) = parser.next()? {
        match word {
            Value(name) if command.is_none() => command = Some(name.string()?),
            Long("seeds") => seeds = Some(parser.value()?.string()?),
            Long("bug") => swarm.bugs.push(parser.value()?.string()?),
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("steps") => options.steps = parser.value()?.parse()?,
            Long("profile") => {
                let name = parser.value()?.string()?;
                let profile = Profile::named(&name);
                options.profile = profile.ok_or_else(|| format!("no profile {name:?}"))?;
            }
            Long("peers") => options.peers = Some(parser.value()?.parse()?),
            Long("without") => {
                options.without.insert(parser.value()?.parse()?);
            }
            Long("actions") => options.actions_max = parser.value()?.parse()?,
            Long("threads") => swarm.threads = parser.value()?.parse::<usize>()?.max(1),
            Long("sample") => swarm.sample = parser.value()?.parse::<u64>()?.max(1),
            Long("failures") => swarm.failures_max = parser.value()?.parse::<usize>()?.max(1),
            Long("help") | Short('h') => return Ok(Command::Help),
            word @ (Value(_) | Long(_) | Short(_)) => return Err(word.unexpected().into()),
        }
    }
    swarm.seeds = match (command.as_deref(), seeds) {
        (Some("bugs"), None) => 0..SEEDS_MAX,
        (Some("bugs"), Some(seeds)) if !seeds.contains("..") => 0..seeds.parse()?,
        (_, Some(seeds)) => range(&seeds)?,
        (_, None) => swarm.seeds,
    };
    match command.as_deref() {
        Some("bugs") => Ok(Command::Bugs(swarm)),
        Some("run") => Ok(Command::Run(swarm)),
        Some("replay") => Ok(Command::Replay(swarm.options)),
        Some("invariants") => Ok(Command::Invariants),
        Some("help") | None => Ok(Command::Help),
        Some(other) => Err(format!("there is no command {other:?}").into()),
    }
}

/// Reads `7` or `0..30000`.
fn range(text: &str) -> Result<Range<u64>, Box<dyn std::error::Error>> {
    match text.split_once("..") {
        Some((from, to)) => Ok(from.parse()?..to.parse()?),
        None => {
            let one: u64 = text.parse()?;
            Ok(one..one.saturating_add(1))
        }
    }
}

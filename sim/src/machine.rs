//! A machine of the world: what outlives the peer that runs on it.

use leno::{Error, Peer, PeerId};

use crate::byzantine::Memory;
use crate::clock::SimClock;
use crate::counter::Counter;
use crate::dice::Dice;
use crate::disk::{Disk, DiskKind};
use crate::tap::Heard;

/// How a machine is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MachineOptions {
    /// The kind of its disk.
    pub disk: DiskKind,
    /// Whether starts are counted outside of the disk, so that a restored copy is noticed.
    pub is_counted: bool,
    /// Whether it lies in its messages.
    pub is_liar: bool,
}

impl Default for MachineOptions {
    /// Rows in memory, and starts are counted.
    fn default() -> Self {
        Self {
            disk: DiskKind::default(),
            is_counted: true,
            is_liar: false,
        }
    }
}

/// Whether a peer runs on a machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Power {
    /// Nothing runs; how the last peer ended, if one did by itself.
    Off(Option<Error>),
    /// A peer is being opened.
    Opening,
    /// A peer runs.
    On(Peer),
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    pub(crate) name: String,
    pub(crate) id: PeerId,
    pub(crate) disk: Disk,
    pub(crate) clock: SimClock,
    pub(crate) counter: Option<Counter>,
    /// What went over its transport in this life, if it does not lie.
    pub(crate) heard: Heard,
    /// What it keeps of its lies, if it lies.
    pub(crate) lies: Option<Memory>,
    pub(crate) power: Power,
    /// Counts up with each start, so that news of an earlier one is told apart.
    pub(crate) life: u64,
    /// Each start draws keys from a seed of its own.
    pub(crate) seeds: Dice,
}

impl Machine {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of its device.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// The count of starts outside of the disk, if there is one.
    #[must_use]
    pub fn counter(&self) -> Option<&Counter> {
        self.counter.as_ref()
    }

    /// Whether a peer runs.
    #[must_use]
    pub fn power(&self) -> &Power {
        &self.power
    }

    /// The peer, if it runs.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        match &self.power {
            Power::On(peer) => Some(peer),
            Power::Off(_) | Power::Opening => None,
        }
    }
}

//! What an op needs of a grant, and how grants rank.

use std::sync::Arc;

use leno_crdt_codec::{LogId, Seq, Stamp, bug};

use crate::control::Role;

/// What an op needs of the grant that it acts under.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Power {
    /// Makes owners and admins.
    Own,
    /// Gives other roles, removes, accepts, names the thread.
    Govern,
    /// Opens data logs, writes to them, begins epochs, states facts.
    Write,
    /// Leaves, adds a device: what every member may.
    Belong,
}

impl Power {
    pub(super) const ALL: [Self; 4] = [Self::Own, Self::Govern, Self::Write, Self::Belong];

    /// What it takes to give a role.
    #[must_use]
    pub fn to_grant(role: Role) -> Self {
        match role {
            _ if bug!(RoleNotChecked) => Self::Belong,
            Role::Owner | Role::Admin => Self::Own,
            Role::Writer | Role::Reader | Role::Replicator => Self::Govern,
        }
    }

    /// What it takes to remove a member.
    pub(super) fn to_remove() -> Self {
        match bug!(RevokeNotChecked) {
            true => Self::Belong,
            false => Self::Govern,
        }
    }
}

impl Role {
    /// Tells whether a grant of this role has a power.
    #[must_use]
    pub fn has(self, power: Power) -> bool {
        match power {
            Power::Own => self == Self::Owner,
            Power::Govern => self.governs(),
            Power::Write => self.writes(),
            Power::Belong => true,
        }
    }
}

/// A place in the total order, by which equals are told apart: stamp, log, seq, op.
pub(super) type Step = (Stamp, LogId, Seq, u32);

/// How senior a grant is, and what was done under it: the more senior the less.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Rank {
    /// An owner's: the ops that made him one, from genesis on. A prefix is senior.
    Owner(Arc<[Step]>),
    Admin,
    Rest,
}

impl Rank {
    /// The rank of the grant that the genesis makes.
    pub(super) fn founder() -> Self {
        Self::Owner(Arc::new([]))
    }

    /// The rank of a grant that an op of this rank gave.
    pub(super) fn of_given(&self, role: Role, step: Step) -> Self {
        match (role, self) {
            (Role::Owner, Self::Owner(path)) => {
                Self::Owner(path.iter().copied().chain([step]).collect())
            }
            (Role::Admin, _) => Self::Admin,
            _ => Self::Rest,
        }
    }

    /// Owners, admins, the rest: the first is the highest.
    pub(super) fn class(&self) -> u8 {
        match self {
            Self::Owner(_) => 0,
            Self::Admin => 1,
            Self::Rest => 2,
        }
    }
}

/// Something for each power.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct PerPower<T>([T; 4]);

impl<T> PerPower<T> {
    pub(super) fn get(&self, power: Power) -> &T {
        let [own, govern, write, belong] = &self.0;
        match power {
            Power::Own => own,
            Power::Govern => govern,
            Power::Write => write,
            Power::Belong => belong,
        }
    }

    pub(super) fn get_mut(&mut self, power: Power) -> &mut T {
        let [own, govern, write, belong] = &mut self.0;
        match power {
            Power::Own => own,
            Power::Govern => govern,
            Power::Write => write,
            Power::Belong => belong,
        }
    }
}

/// Lowers what is kept to something more senior.
pub(super) fn keep_least(kept: &mut Option<Rank>, rank: &Rank) {
    if kept.as_ref().is_none_or(|kept| rank < kept) {
        *kept = Some(rank.clone());
    }
}

//! Comparing all threads that two sides remember to share, at once.
//!
//! Either side may ask. If the roots of both trees are the same, all these threads are level, and
//! that is all: the same few bytes for one thread as for ten thousand. Otherwise whoever asked
//! looks down the other side's tree along the differences; threads that differ are talked about,
//! and those that only one side remembers are named anew. Which threads differ is found as of the
//! time at which the other side answers: what changes later wakes its thread by itself.
#![expect(
    clippy::result_large_err,
    reason = "an error names peer, thread and log; it is made once per misdeed, not per record"
)]

use std::collections::{BTreeMap, BTreeSet};

use leno_crdt_codec::bug;

use super::PeerKey;
use super::error::SyncError;
use super::message::{Below, Message, NAMES_MAX, NODES_MAX, ShortNode, Shown};
use super::replica::Replica;
use super::session::Session;
use super::slot::Slot;
use super::step::{Step, note_kept};
use super::tree::{HashTree, Name, Node, Prefix};
use crate::ThreadId;

/// Most nodes that are looked at in one comparison: more than the tree over as many threads as a
/// session may name has.
const LOOKS_MAX: usize = 1 << 17;

/// How far both sides of a session are.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// What this side asked, until all is found.
    round: Option<Round>,
    /// How many times this side asked.
    rounds: u32,
    /// Whether it is to ask again.
    is_wanted: bool,
    /// The comparison of the other side that goes on.
    theirs: Option<u32>,
    /// Nodes that the other side wants to see.
    to_show: BTreeSet<Prefix>,
    /// Whether one was finished.
    is_done: bool,
}

/// One comparison that this side asked for.
#[derive(Debug)]
struct Round {
    number: u32,
    to_ask: BTreeSet<Prefix>,
    awaited: BTreeSet<Prefix>,
    looks: usize,
}

impl Comparison {
    /// Tells whether one was finished and none goes on.
    pub(super) fn is_settled(&self) -> bool {
        self.is_done && self.round.is_none() && self.theirs.is_none()
    }
}

/// What a node of the other side shows.
#[derive(Debug, Default)]
struct Found {
    /// Remembered by both, and not the same.
    differing: BTreeSet<ThreadId>,
    /// Remembered here only.
    ours: BTreeSet<ThreadId>,
    /// Remembered there only.
    theirs: Vec<Name>,
    /// Where to look further.
    further: Vec<Prefix>,
}

impl Replica {
    /// Brings the tree with a peer up to date. What ended is named by tags from now on.
    fn refresh_tree(&mut self, peer: &PeerKey) {
        let Self {
            slots,
            pairs,
            sessions,
            ..
        } = &mut *self;
        let (Some(pair), Some(session)) = (pairs.get_mut(peer), sessions.get(peer)) else {
            return;
        };
        let over = pair.refresh(slots, &session.called);
        if !over.is_empty() {
            self.unlearn(peer, over);
        }
    }

    /// Asks the other side to compare, at once or after the comparison that goes on.
    pub(super) fn compare(&mut self, peer: &PeerKey) {
        self.refresh_tree(peer);
        let Self {
            sessions, pairs, ..
        } = &mut *self;
        let (Some(session), Some(pair)) = (sessions.get_mut(peer), pairs.get_mut(peer)) else {
            return;
        };
        if session.comparison.round.is_some() {
            session.comparison.is_wanted = true;
            return;
        }
        let root = session.short_node(&pair.tree.digest(Prefix::ROOT));
        let is_low = session.local < session.remote;
        let comparison = &mut session.comparison;
        comparison.is_wanted = false;
        comparison.rounds = comparison.rounds.wrapping_add(1);
        let round = comparison.rounds.wrapping_mul(2) | u32::from(is_low);
        comparison.round = Some(Round {
            number: round,
            to_ask: BTreeSet::new(),
            awaited: BTreeSet::from([Prefix::ROOT]),
            looks: 1,
        });
        let compare = Message::Compare { round, root };
        session.urgent.push_back(compare.encode());
    }

    /// The nodes that the other side asked for, made when there is room to send them.
    pub(super) fn next_shown(&mut self, peer: &PeerKey) -> Option<Vec<u8>> {
        let Self {
            sessions, pairs, ..
        } = &mut *self;
        let (session, pair) = (sessions.get_mut(peer)?, pairs.get_mut(peer)?);
        let round = session.comparison.theirs?;
        let to_show = std::mem::take(&mut session.comparison.to_show);
        if to_show.is_empty() {
            return None;
        }
        let nodes = to_show
            .into_iter()
            .map(|prefix| show(session, &mut pair.tree, prefix))
            .collect();
        Some(Message::Nodes { round, nodes }.encode())
    }
}

/// A node as the other side may see it.
fn show(session: &Session, tree: &mut HashTree, prefix: Prefix) -> Shown {
    let below = match tree.node(prefix) {
        Node::Inner(digests) => {
            let mut children = Box::new([ShortNode::default(); _]);
            for (child, digest) in children.iter_mut().zip(&digests) {
                *child = session.short_node(digest);
            }
            Below::Inner(children)
        }
        Node::Leaves(leaves) => {
            let short = |(name, digest)| (name, session.short_node(&digest));
            Below::Leaves(leaves.into_iter().map(short).collect())
        }
    };
    Shown { prefix, below }
}

impl Step<'_, '_> {
    /// The other side asks to compare.
    pub(super) fn compare(&mut self, round: u32, root: ShortNode) -> Result<(), SyncError> {
        let peer = self.peer;
        self.after_hello()?;
        self.replica.refresh_tree(&peer);
        let Replica {
            sessions, pairs, ..
        } = &mut *self.replica;
        let (Some(session), Some(pair)) = (sessions.get_mut(&peer), pairs.get_mut(&peer)) else {
            return Ok(());
        };
        let is_same = session.short_node(&pair.tree.digest(Prefix::ROOT)) == root;
        session.comparison.to_show.clear();
        if is_same || bug!(RootNotCompared) {
            session.comparison.theirs = None;
            session.comparison.is_done = true;
            session
                .urgent
                .push_back(Message::Compared { round }.encode());
            self.note_kept()?;
        } else {
            session.comparison.theirs = Some(round);
            session.comparison.to_show.insert(Prefix::ROOT);
        }
        Ok(())
    }

    /// Notes that the other side keeps what it has too. Threads that are talked about are told of by
    /// acknowledgements.
    fn note_kept(&mut self) -> Result<(), SyncError> {
        let Replica {
            sessions,
            slots,
            pairs,
            unkept,
            ..
        } = &mut *self.replica;
        let (Some(session), Some(pair)) = (sessions.get_mut(&self.peer), pairs.get(&self.peer))
        else {
            return Ok(());
        };
        let is_same = |id: &&ThreadId| {
            let is_talked_of = session.matched.contains_key(id) || session.called.contains_key(id);
            pair.shows(id) && !is_talked_of
        };
        let same: Vec<ThreadId> = unkept.iter().filter(is_same).copied().collect();
        for id in same {
            unkept.remove(&id);
            session.stirred.insert(id);
            let Some(Slot::Open(thread)) = slots.get(&id) else {
                continue;
            };
            let own = thread.own_log().and_then(|log| thread.log(&log));
            if let Some(log) = own {
                let kept = [(log.id, log.tip.seq)];
                note_kept(self.view, self.changes, thread, &kept)?;
            }
        }
        Ok(())
    }

    /// All is found, by either side.
    pub(super) fn compared(&mut self, round: u32) -> Result<(), SyncError> {
        let (peer, comparison) = (self.peer, &mut self.session("a comparison")?.comparison);
        if comparison.theirs == Some(round) {
            comparison.theirs = None;
            comparison.to_show.clear();
            comparison.is_done = true;
            return self.note_kept();
        }
        let is_ours = |it: &Round| it.number == round && it.looks == 1;
        if comparison.round.take_if(|it| is_ours(it)).is_none() {
            let what = "the end of a comparison";
            return Err(SyncError::OutOfTurn { peer, what });
        }
        comparison.is_done = true;
        self.note_kept()?;
        self.compare_again();
        Ok(())
    }

    fn compare_again(&mut self) {
        let session = self.replica.sessions.get(&self.peer);
        if session.is_some_and(|session| session.comparison.is_wanted) {
            self.replica.compare(&self.peer);
        }
    }

    /// The other side wants to see nodes. It waits for an answer before it asks again.
    pub(super) fn ask(&mut self, round: u32, nodes: &[Prefix]) -> Result<(), SyncError> {
        let (peer, comparison) = (self.peer, &mut self.session("a comparison")?.comparison);
        if comparison.theirs != Some(round) || !comparison.to_show.is_empty() {
            let what = "a question about a comparison";
            return Err(SyncError::OutOfTurn { peer, what });
        }
        comparison.to_show.extend(nodes);
        Ok(())
    }

    /// The other side shows nodes.
    pub(super) fn nodes(&mut self, round: u32, nodes: &[Shown]) -> Result<(), SyncError> {
        let peer = self.peer;
        let mut found = Found::default();
        let Replica {
            sessions, pairs, ..
        } = &mut *self.replica;
        let (Some(session), Some(pair)) = (sessions.get_mut(&peer), pairs.get_mut(&peer)) else {
            return Ok(());
        };
        for shown in nodes {
            let ours = session.comparison.round.as_mut();
            let ours = ours.filter(|it| it.number == round);
            if !ours.is_some_and(|it| it.awaited.remove(&shown.prefix)) {
                let what = "nodes that were not asked for";
                return Err(SyncError::OutOfTurn { peer, what });
            }
            look(session, pair, shown, &mut found);
        }
        let Some(ours) = session.comparison.round.as_mut() else {
            return Ok(());
        };
        ours.looks += found.further.len();
        if ours.looks > LOOKS_MAX {
            let what = "nodes";
            return Err(SyncError::TooMany { peer, what });
        }
        ours.to_ask.extend(&found.further);
        if ours.awaited.is_empty() {
            while ours.awaited.len() < NODES_MAX {
                let Some(next) = ours.to_ask.pop_first() else {
                    break;
                };
                ours.awaited.insert(next);
            }
            let nodes: Vec<_> = ours.awaited.iter().copied().collect();
            // What differs comes before the end.
            if nodes.is_empty() {
                session.comparison.round = None;
                session.comparison.is_done = true;
            } else {
                let ask = Message::Ask { round, nodes };
                session.urgent.push_back(ask.encode());
            }
        }
        self.follow_up(&found);
        let session = self.session("nodes")?;
        if session.comparison.round.is_none() {
            session
                .urgent
                .push_back(Message::Compared { round }.encode());
            self.note_kept()?;
            self.compare_again();
        }
        Ok(())
    }

    /// What follows from differences.
    fn follow_up(&mut self, found: &Found) {
        let peer = self.peer;
        let Replica {
            sessions, pairs, ..
        } = &mut *self.replica;
        let (Some(session), Some(pair)) = (sessions.get_mut(&peer), pairs.get(&peer)) else {
            return;
        };
        for id in found.differing.iter().chain(&found.ours) {
            if let Some(matched) = session.matched.get_mut(id) {
                matched.refresh();
                session.wake(*id);
            }
        }
        session.call(pair, found.differing.iter().copied());
        for names in found.theirs.chunks(NAMES_MAX) {
            let names = names.to_vec();
            session
                .urgent
                .push_back(Message::Unknown { names }.encode());
        }
        let is_new = |id: &&ThreadId| !session.matched.contains_key(id);
        let ours: Vec<_> = found.ours.iter().filter(is_new).copied().collect();
        self.replica.unlearn(&peer, ours);
    }

    /// The other side does not remember threads: they are named by tags.
    pub(super) fn unknown(&mut self, names: &[Name]) -> Result<(), SyncError> {
        let peer = self.peer;
        let session = self.session("names")?;
        let matched: BTreeSet<_> = session.matched.keys().copied().collect();
        let Some(pair) = self.replica.pairs.get(&peer) else {
            return Ok(());
        };
        let ids = names.iter().filter_map(|name| pair.id(name));
        let ids: Vec<_> = ids.filter(|id| !matched.contains(id)).collect();
        self.replica.unlearn(&peer, ids);
        Ok(())
    }

    /// The other side looked at tags.
    pub(super) fn seen(&mut self, tags: u32) -> Result<(), SyncError> {
        let peer = self.peer;
        let session = self.session("tags")?;
        if tags > session.tags_out {
            let what = "a count of tags that were not sent";
            return Err(SyncError::OutOfTurn { peer, what });
        }
        session.tags_seen = tags;
        session.is_named_due = true;
        // What it remembers it named before it said so.
        let in_vain = session.called.iter().filter(|(_, number)| **number < tags);
        let in_vain: Vec<_> = in_vain.map(|(id, _)| *id).collect();
        self.replica.unlearn(&peer, in_vain);
        Ok(())
    }
}

/// Looks at a node of the other side.
fn look(session: &Session, pair: &mut super::pair::Pair, shown: &Shown, found: &mut Found) {
    match &shown.below {
        Below::Inner(children) => {
            for (child, theirs) in shown.prefix.children().zip(children.iter()) {
                if session.short_node(&pair.tree.digest(child)) != *theirs {
                    found.further.push(child);
                }
            }
        }
        Below::Leaves(leaves) => {
            let theirs: BTreeMap<&Name, &ShortNode> =
                leaves.iter().map(|(name, hash)| (name, hash)).collect();
            let ours: Vec<_> = pair.tree.leaves(shown.prefix).collect();
            for (name, digest) in &ours {
                let Some(id) = pair.id(name) else { continue };
                match theirs.get(name) {
                    None => found.ours.insert(id),
                    Some(hash) if **hash != session.short_node(digest) => {
                        found.differing.insert(id)
                    }
                    Some(_) => false,
                };
            }
            let is_strange = |name: &&&Name| pair.id(name).is_none();
            let strange = theirs.keys().filter(is_strange).map(|name| **name);
            found.theirs.extend(strange);
        }
    }
}

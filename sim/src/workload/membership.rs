//! Threads, cards, grants and tickets.

use std::collections::BTreeMap;

use leno::{Definition, Fields, Quota, Role, Strategy};

use super::document::{SONGS, songs};
use super::{Call, Limit, Member, Offer, ThreadModel};
use crate::dice::Dice;

impl Call {
    /// Makes a thread, and states how its songs merge.
    pub(crate) async fn create_thread(self) {
        let Some(thread) = self.end("create", self.peer.create_thread("band").await) else {
            return;
        };
        {
            let mut model = self.model.borrow_mut();
            *model.governed.entry(self.machine).or_default() += 1;
            let member = Member {
                role: Role::Owner,
                seat: None,
                is_removed: false,
                is_joined: true,
            };
            model.threads.push(ThreadModel {
                id: thread.id(),
                members: BTreeMap::from([(self.machine, member)]),
                ledger: std::sync::Arc::default(),
            });
            if let (Some(liar), Some(thread)) = (model.byzantine, model.threads.last()) {
                thread.ledger().distrust(liar);
            }
        }
        let definition = Definition {
            version: 1,
            strategies: strategies(),
        };
        self.end("define", thread.define(SONGS, &definition).await);
        // So that everybody edits the same from the beginning.
        let songs = thread.collection(SONGS).put_all(songs()).await;
        self.end("put_all", songs);
    }

    /// Makes a card, for somebody to grant a role to.
    pub(crate) async fn card(self) {
        if let Some(card) = self.end("card", self.peer.card("somebody").await) {
            self.model.borrow_mut().cards.push((self.machine, card));
        }
    }

    /// Grants a role to a card that waits for one.
    pub(crate) async fn grant(self, at: usize, mut dice: Dice) {
        let (to, card, role) = {
            let mut model = self.model.borrow_mut();
            let Some(thread) = model.threads.get(at) else {
                return;
            };
            let own = thread.members.get(&self.machine).map(|it| it.role);
            let role = match model.quota {
                // Only they have one.
                Some(_) if dice.coin() => Role::Replicator,
                _ => super::role(&mut dice),
            };
            if !own.is_some_and(|own| own.may_grant(role)) {
                return;
            }
            let is_new = |to: &usize| !thread.members.contains_key(to);
            let place = |test: &dyn Fn(&usize) -> bool| {
                let mut waiting = model.cards.iter();
                waiting.position(|(to, _)| is_new(to) && test(to))
            };
            let liar = place(&|to| model.byzantine == Some(*to));
            let Some(which) = liar.or_else(|| place(&|_| true)) else {
                return;
            };
            let (to, card) = model.cards.swap_remove(which);
            // From now on, so that nobody else grants to the same machine.
            let member = Member {
                role,
                seat: Some(card.seat()),
                is_removed: false,
                is_joined: false,
            };
            *model.governed.entry(self.machine).or_default() += 1;
            if let Some(thread) = model.threads.get_mut(at) {
                thread.members.insert(to, member);
            }
            (to, card, role)
        };
        let granted = match self.thread(at).await {
            Some(thread) => self.end("grant", thread.grant(&card, role).await),
            None => None,
        };
        let mut model = self.model.borrow_mut();
        match granted {
            Some(ticket) => model.offers.push(Offer {
                to,
                thread: at,
                role,
                seat: card.seat(),
                ticket,
            }),
            // It may have become durable all the same, so the card is not used again.
            None => {
                if let Some(thread) = model.threads.get_mut(at) {
                    thread.members.remove(&to);
                }
            }
        }
    }

    /// Changes the keys of a thread.
    pub(crate) async fn rotate(self, at: usize) {
        // Others seal under what is begun.
        *self
            .model
            .borrow_mut()
            .governed
            .entry(self.machine)
            .or_default() += 1;
        if let Some(thread) = self.thread(at).await {
            self.end("rotate", thread.rotate().await);
        }
    }

    /// Gives somebody who writes or reads a role that permits more.
    pub(crate) async fn promote(self, at: usize, mut dice: Dice) {
        let (to, seat, role) = {
            let mut model = self.model.borrow_mut();
            let Some(thread) = model.threads.get(at) else {
                return;
            };
            let own = thread.members.get(&self.machine).map(|it| it.role);
            let may = |role: Role| own.is_some_and(|own| own.may_grant(role));
            let members = thread.members.iter();
            let members = members.filter(|(_, it)| it.is_joined && !it.is_removed);
            let higher = members.filter_map(|(to, member)| {
                let role = match member.role {
                    Role::Reader => Role::Writer,
                    Role::Writer => Role::Admin,
                    Role::Owner | Role::Admin | Role::Replicator | _ => return None,
                };
                let seat = member.seat.filter(|_| may(role))?;
                Some((*to, seat, role))
            });
            let higher: Vec<_> = higher.collect();
            let Some(found) = dice.pick(&higher).copied() else {
                return;
            };
            *model.governed.entry(self.machine).or_default() += 1;
            found
        };
        let Some(thread) = self.thread(at).await else {
            return;
        };
        let given = self.end("set_role", thread.set_role(seat, role).await);
        let mut model = self.model.borrow_mut();
        let members = model.threads.get_mut(at).map(|it| &mut it.members);
        let member = members.and_then(|it| it.get_mut(&to));
        if let (Some(member), Some(())) = (member, given) {
            member.role = member.role.min(role);
        }
    }

    /// Removes somebody who reads or writes.
    pub(crate) async fn remove(self, at: usize, mut dice: Dice) {
        let seat = {
            let mut model = self.model.borrow_mut();
            let liar = model.byzantine;
            let Some(thread) = model.threads.get_mut(at) else {
                return;
            };
            let members = thread.members.iter().filter(|(to, it)| {
                let may_be = matches!(it.role, Role::Reader | Role::Writer);
                may_be && it.is_joined && !it.is_removed && liar != Some(**to)
            });
            let members: Vec<_> = members
                .filter_map(|(to, it)| Some((*to, it.seat?)))
                .collect();
            let Some((to, seat)) = dice.pick(&members).copied() else {
                return;
            };
            // It may become durable also if the call is never answered.
            if let Some(member) = thread.members.get_mut(&to) {
                member.is_removed = true;
            }
            thread.ledger().may_lose(to);
            *model.governed.entry(self.machine).or_default() += 1;
            seat
        };
        if let Some(thread) = self.thread(at).await {
            self.end("remove", thread.remove(seat).await);
        }
    }

    /// Bounds how much of a thread is kept here, if that is part of the run.
    async fn bound(&self, at: usize, thread: &leno::Thread) {
        let place = (self.machine, at);
        let Some(bytes) = self.model.borrow().quota else {
            return;
        };
        // From now on nobody knows whether it has room for all.
        self.model.borrow_mut().limited.insert(place, None);
        let quota = Quota {
            bytes,
            ..Quota::default()
        };
        let bounded = self.end("set_quota", thread.set_quota(Some(quota)).await);
        let status = thread.status().await;
        if let (Some(()), Ok(status)) = (bounded, status) {
            let before = status.bytes;
            let limit = Limit { quota, before };
            self.model.borrow_mut().limited.insert(place, Some(limit));
        }
    }

    /// Joins a thread by a ticket.
    pub(crate) async fn join(self, offer: Offer) {
        let joined = self.end("join", self.peer.join(&offer.ticket).await);
        let is_joined = joined.is_some();
        if let Some(thread) = joined.filter(|_| offer.role == Role::Replicator) {
            self.bound(offer.thread, &thread).await;
        }
        let mut model = self.model.borrow_mut();
        if let Some(thread) = model.threads.get_mut(offer.thread) {
            let member = Member {
                role: offer.role,
                seat: Some(offer.seat),
                is_removed: false,
                is_joined,
            };
            thread.members.insert(self.machine, member);
        }
        if !is_joined {
            // The ticket is still good, unless the card is gone.
            model.offers.push(offer);
        }
    }
}

/// A field of each strategy.
fn strategies() -> Fields {
    let stage = Fields::default()
        .field("lights", Strategy::Counter)
        .field("people", Strategy::Set);
    Fields::default()
        .field("plays", Strategy::Counter)
        .field("moods", Strategy::GrowSet)
        .field("tags", Strategy::Set)
        .field("lines", Strategy::List)
        .field("best", Strategy::Max)
        .field("least", Strategy::Min)
        .field("stage", Strategy::Map(stage))
}

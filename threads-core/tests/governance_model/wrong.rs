//! Two ways to judge that seem right and are not. The model has to find out.

use crate::history::{Act, History, PEOPLE, Person, Role, Set, initial};

/// Judging at arrival: what comes is permitted or not by the roles of then.
pub(crate) fn at_arrival(history: &History, order: &[usize]) -> [Option<Role>; PEOPLE] {
    let mut roles = initial().map(|it| Some(it.role));
    for event in order {
        let event = history.events[*event];
        let Some(role) = roles[event.author.0].filter(|it| it.permits(event.act)) else {
            continue;
        };
        match event.act {
            Act::Grant { to, role: new, .. } => {
                if roles[to.0].is_none_or(|it| role < it) {
                    roles[to.0] = Some(new);
                }
            }
            Act::Remove { whom, .. } => {
                if roles[whom.0].is_some_and(|it| role < it) {
                    roles[whom.0] = None;
                }
            }
            Act::Leave => roles[event.author.0] = None,
            Act::Readmit { .. } | Act::Prove { .. } | Act::Write => {}
        }
    }
    roles
}

/// All orders in which a history may come to a peer: each event after all that it has seen.
pub(crate) fn deliveries(history: &History, tell: &mut dyn FnMut(&[usize])) {
    fn go(history: &History, had: Set, order: &mut Vec<usize>, tell: &mut dyn FnMut(&[usize])) {
        if order.len() == history.events.len() {
            return tell(order);
        }
        for (number, event) in history.events.iter().enumerate() {
            if !had.contains(number) && had.covers(event.past) {
                order.push(number);
                go(history, had.with(number), order, tell);
                order.pop();
            }
        }
    }
    go(history, Set::default(), &mut Vec::new(), tell);
}

/// The rank of a person: a removal stands if whoever made it has a more privileged role than whom it
/// removes, as it is once everything is judged. How many ways there are to judge a history so, in which nobody
/// leaves.
pub(crate) fn by_person(history: &History) -> usize {
    let control = |number: &usize| history.events[*number].act.is_control();
    let events: Vec<usize> = (0..history.events.len()).filter(control).collect();
    let sets = (0..=history.all().0).map(Set);
    let sets =
        sets.filter(|it| (0..history.events.len()).all(|at| !it.contains(at) || control(&at)));
    let is_solution = |standing: &Set| {
        events.iter().all(|number| {
            let event = history.events[*number];
            let own = role_of(history, *standing, event.author);
            let may = own.is_some_and(|it| it.permits(event.act));
            let stands = match event.act {
                Act::Remove { whom, .. } => {
                    let theirs = role_of(history, *standing, whom);
                    may && theirs.is_none_or(|it| own.is_some_and(|own| own < it))
                }
                Act::Grant { .. }
                | Act::Readmit { .. }
                | Act::Leave
                | Act::Prove { .. }
                | Act::Write => may,
            };
            stands == standing.contains(*number)
        })
    };
    sets.filter(is_solution).count()
}

/// The most privileged role that somebody was given and not deprived of.
fn role_of(history: &History, standing: Set, of: Person) -> Option<Role> {
    let grants = history.grants().filter(|grant| {
        let has_seen = |removal: usize| {
            grant
                .by
                .is_some_and(|by| history.events[by].past.contains(removal))
        };
        let stands = grant.by.is_none_or(|by| standing.contains(by));
        let mut events = history.events.iter().enumerate();
        let is_ended = events.any(|(number, it)| {
            let removes = matches!(it.act, Act::Remove { whom, .. } if whom == of);
            standing.contains(number) && removes && !has_seen(number)
        });
        grant.to == of && stands && !is_ended
    });
    grants.map(|grant| grant.role).min()
}

pub(crate) fn orders_differ(history: &History) -> bool {
    let mut first = None;
    let mut differ = false;
    deliveries(history, &mut |order| {
        let roles = at_arrival(history, order);
        differ |= *first.get_or_insert(roles) != roles;
    });
    differ
}

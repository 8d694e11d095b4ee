//! The product beside the model: the same histories, the same answers, whatever comes first.

use std::ops::AddAssign;
use std::sync::OnceLock;

use leno_crdt_codec::{LogId, Seq, Stamp};
use leno_identity::SigningKey;
use leno_threads_core::acl::{ControlRecord, Governance, Power};
use leno_threads_core::{
    FrameOp, Frontier, Genesis, GrantOp, OpRef, OpenOp, Policy, RecordId, RecordRef, RemoveOp,
    Scope, SeatId, Suite,
};

use crate::every::{Size, walk};
use crate::history::{Acceptance, Act, History, PEOPLE, Role, people};
use crate::random::Dice;
use crate::rules::{Outcome, Rules};

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compared {
    pub(crate) histories: u64,
    pub(crate) deliveries: u64,
    /// Events that do not stand in the end.
    pub(crate) fallen: u64,
    /// Events whose answer another one changed that came after it.
    pub(crate) changed: u64,
}

impl Compared {
    pub(crate) fn is_no_empty_walk(self) -> bool {
        self.deliveries > self.histories && self.fallen > 0 && self.changed > 0
    }
}

impl AddAssign for Compared {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.deliveries += other.deliveries;
        self.fallen += other.fallen;
        self.changed += other.changed;
    }
}

/// Compares every history of up to this size, on several threads.
pub(crate) fn compare_every(size: Size) -> Compared {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let shares = (0..threads).map(|share| {
            scope.spawn(move || {
                let mut seen = Compared::default();
                walk(size, (share, threads), |history, _| {
                    let outcome = Rules::of(history).evaluate();
                    seen += compare(history, &outcome, None);
                    outcome
                });
                seen
            })
        });
        let shares: Vec<_> = shares.collect();
        let mut seen = Compared::default();
        for share in shares {
            seen += share.join().unwrap();
        }
        seen
    })
}

/// The thread as each history finds it: roles were given, and everybody has opened a data log.
struct Beginning {
    governance: Governance,
    seats: [SeatId; PEOPLE],
    logs: [LogId; PEOPLE],
    /// Records that each control log has by then.
    lengths: [Seq; PEOPLE],
    seen: Frontier,
}

fn beginning() -> &'static Beginning {
    static BEGINNING: OnceLock<Beginning> = OnceLock::new();
    BEGINNING.get_or_init(begin)
}

fn begin() -> Beginning {
    let key = |number| SigningKey::from_secret_bytes(&[number; 32]).unwrap();
    let id_of = |key: &SigningKey| key.verifying_key().to_bytes();
    let seats: [_; PEOPLE] = std::array::from_fn(|it| SeatId(id_of(&key(it as u8 + 1))));
    let genesis = Genesis {
        owner: seats[0],
        owner_kem: [9; 32],
        suite: Suite::Aes256Gcm,
        policy: Policy::Standard,
        nonce: [0; 16],
    };
    let mut governance = Governance::new(&genesis);
    let (mut lengths, mut seen) = ([0; PEOPLE], Frontier::new());
    let mut number = 200_u8;
    let mut admit = |person: usize, seen: &mut Frontier, ops: Vec<FrameOp>| {
        number += 1;
        lengths[person] += 1;
        let place = RecordRef {
            log: seats[person].control_log(),
            seq: lengths[person],
            id: RecordId([number; 32]),
        };
        seen.raise(place.log, place.seq);
        let stamp = Stamp(number.into());
        let past = seen.clone();
        governance.admit(&ControlRecord {
            place,
            stamp,
            past,
            ops,
        });
        place.id
    };
    let roles = crate::history::initial();
    let given = roles.iter().skip(1);
    let given = given.map(|it| grant(seats[it.to.0], it.role, Vec::new()));
    let record = admit(0, &mut seen, given.collect());
    let mut logs = [LogId([0; 32]); PEOPLE];
    for person in 0..PEOPLE {
        let log = key(person as u8 + 101);
        logs[person] = LogId(id_of(&log));
        let under = match person.checked_sub(1) {
            None => genesis.owner_grant(),
            Some(op) => OpRef {
                record,
                op: op as u32,
            },
        };
        let open = OpenOp::sign(&log, genesis.thread(), seats[person], under, 0, None);
        admit(person, &mut seen, vec![FrameOp::Open(open)]);
    }
    assert_eq!(governance.void().count(), 0);
    Beginning {
        governance,
        seats,
        logs,
        lengths,
        seen,
    }
}

fn role_of(role: Role) -> leno_threads_core::Role {
    match role {
        Role::Owner => leno_threads_core::Role::Owner,
        Role::Admin => leno_threads_core::Role::Admin,
        Role::Writer => leno_threads_core::Role::Writer,
        Role::Reader => leno_threads_core::Role::Reader,
    }
}

fn grant(seat: SeatId, role: Role, accepts: Vec<RecordRef>) -> FrameOp {
    FrameOp::Grant(GrantOp {
        seat,
        kem: [8; 32],
        role: role_of(role),
        scope: Scope::Thread,
        expires_millis: None,
        identity: None,
        recovery: None,
        accepts,
    })
}

impl Beginning {
    fn place(&self, history: &History, event: usize) -> RecordRef {
        let it = history.events[event];
        let (log, before) = match it.act.is_control() {
            true => (
                self.seats[it.author.0].control_log(),
                self.lengths[it.author.0],
            ),
            false => (self.logs[it.author.0], 0),
        };
        RecordRef {
            log,
            seq: before + Seq::from(it.seq),
            id: RecordId([event as u8 + 1; 32]),
        }
    }

    fn past(&self, history: &History, event: usize) -> Frontier {
        let mut past = self.seen.clone();
        for it in 0..event {
            let is_seen = history.events[event].past.contains(it);
            if is_seen && history.events[it].act.is_control() {
                let place = self.place(history, it);
                past.raise(place.log, place.seq);
            }
        }
        past
    }

    fn record(&self, history: &History, event: usize) -> ControlRecord {
        let place = self.place(history, event);
        let mut past = self.past(history, event);
        past.raise(place.log, place.seq);
        let accepted = |accepts: Acceptance| {
            let both = [accepts.control, accepts.data].into_iter().flatten();
            let mut places: Vec<_> = both.map(|it| self.place(history, it)).collect();
            places.sort_by_key(|it| it.log);
            places
        };
        let op = match history.events[event].act {
            Act::Grant { to, role, accepts } => grant(self.seats[to.0], role, accepted(accepts)),
            Act::Remove { whom, accepts } => FrameOp::Remove(RemoveOp {
                member: self.seats[whom.0],
                accepts: accepted(accepts),
            }),
            Act::Readmit { accepts, .. } => FrameOp::Accept(accepted(accepts)),
            Act::Leave => FrameOp::Leave,
            Act::Prove { .. } | Act::Write => unreachable!("not a control record here"),
        };
        ControlRecord {
            place,
            stamp: Stamp(1000 + event as u64),
            past,
            ops: vec![op],
        }
    }

    fn answer(&self, governance: &Governance, history: &History, event: usize) -> bool {
        let place = self.place(history, event);
        let power = match history.events[event].act {
            Act::Grant { role, .. } => Power::to_grant(role_of(role)),
            Act::Remove { .. } | Act::Readmit { .. } => Power::Govern,
            Act::Leave | Act::Prove { .. } => Power::Belong,
            Act::Write => {
                let past = self.past(history, event);
                let id_at = |seq: Seq| {
                    let author = history.events[event].author;
                    let log = history.log(author, false, history.all());
                    let at = usize::try_from(seq).ok()?.checked_sub(1)?;
                    Some(self.place(history, *log.get(at)?).id)
                };
                let limit = governance.limit(&place.log, &past, &mut { id_at });
                return place.seq <= limit.up_to;
            }
        };
        governance.stands(&place.id, power)
    }
}

/// Compares what a history comes to, for all orders of its control records in which each comes after those
/// that it has seen; for one order by a seed if there is one.
pub(crate) fn compare(history: &History, expected: &Outcome, seed: Option<u64>) -> Compared {
    let mut seen = Compared {
        histories: 1,
        ..Compared::default()
    };
    let beginning = beginning();
    let records: Vec<_> = (0..history.events.len())
        .filter(|it| history.events[*it].act.is_control())
        .map(|it| (it, beginning.record(history, it)))
        .collect();
    let mut compare_order = |order: &[usize]| {
        let mut governance = beginning.governance.clone();
        let mut first_answers = vec![None; history.events.len()];
        for at in order {
            let (event, record) = &records[*at];
            governance.admit(record);
            first_answers[*event] = Some(beginning.answer(&governance, history, *event));
        }
        seen.deliveries += 1;
        for (event, first) in first_answers.into_iter().enumerate() {
            let answer = beginning.answer(&governance, history, event);
            let right = expected.stands(event);
            assert_eq!(answer, right, "{event} in the order {order:?}\n{history:?}");
            seen.fallen += u64::from(!answer);
            seen.changed += u64::from(first.is_some_and(|it| it != answer));
        }
        for person in people() {
            let role = governance.role(beginning.seats[person.0]);
            let right = expected.role(person).map(role_of);
            assert_eq!(
                role, right,
                "{person:?} in the order {order:?}\n{history:?}"
            );
        }
    };
    match seed {
        None => for_each_order(&records, history, &mut Vec::new(), &mut compare_order),
        Some(seed) => {
            let straight: Vec<_> = (0..records.len()).collect();
            compare_order(&straight);
            let mut dice = Dice(seed);
            let mut order = Vec::new();
            while order.len() < records.len() {
                let next = ready(&records, history, &order);
                order.push(next[dice.below(next.len())]);
            }
            compare_order(&order);
        }
    }
    seen
}

/// The records that may come next.
fn ready(records: &[(usize, ControlRecord)], history: &History, order: &[usize]) -> Vec<usize> {
    let is_ready = |at: &usize| {
        let past = history.events[records[*at].0].past;
        let mut others = records.iter().enumerate();
        !order.contains(at)
            && others.all(|(it, (event, _))| !past.contains(*event) || order.contains(&it))
    };
    (0..records.len()).filter(is_ready).collect()
}

fn for_each_order(
    records: &[(usize, ControlRecord)],
    history: &History,
    order: &mut Vec<usize>,
    visit: &mut impl FnMut(&[usize]),
) {
    if order.len() == records.len() {
        return visit(order);
    }
    for next in ready(records, history, order) {
        order.push(next);
        for_each_order(records, history, order, visit);
        order.pop();
    }
}

//! The law of convergence: the same set of sealed records, in any order of arrival and any number of
//! copies, gives the same state to the byte, and it is the one of the naive fold.

use ipld_core::ipld::Ipld;
use leno_threads_core::Role;
use leno_threads_db::{DbError, Writer};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::band::{DAVE, Member, Parcel, REX, WRITERS, members};
use crate::props::{Write, is_expected, write};
use crate::world::natural;

#[derive(Clone, Debug)]
enum Act {
    /// Transactions under one signature.
    Write(usize, Vec<Vec<Write>>),
    Nod(usize),
    Grant(usize, usize, Role),
    /// Whether what was seen of the removed is accepted.
    Remove(usize, usize, bool),
    Accept(usize, usize),
    Leave(usize),
    Define(usize, u64),
    Epoch(usize),
    /// One member hears all that another one has.
    Hear(usize, usize),
    Wait(usize, u64),
}

fn act() -> impl Strategy<Value = Act> {
    let who = || prop::sample::select(&WRITERS[..]);
    let role = prop::sample::select(vec![
        Role::Owner,
        Role::Admin,
        Role::Writer,
        Role::Reader,
        Role::Replicator,
    ]);
    let transactions = vec(vec(write(), 1..3), 1..3);
    prop_oneof![
        8 => (who(), transactions).prop_map(|(who, all)| Act::Write(who, all)),
        6 => (who(), 1..3_usize).prop_map(|(who, by)| Act::Hear(who, (who + by) % 3)),
        1 => who().prop_map(Act::Nod),
        1 => (who(), 0..6_usize, role).prop_map(|(who, to, role)| Act::Grant(who, to, role)),
        1 => (who(), 0..5_usize, any::<bool>())
            .prop_map(|(who, whom, keeps)| Act::Remove(who, whom, keeps)),
        1 => (who(), 0..3_usize).prop_map(|(who, whom)| Act::Accept(who, whom)),
        1 => who().prop_map(Act::Leave),
        1 => (who(), 1..4_u64).prop_map(|(who, version)| Act::Define(who, version)),
        1 => who().prop_map(Act::Epoch),
        1 => (who(), 1..90_000_u64).prop_map(|(who, millis)| Act::Wait(who, millis)),
    ]
}

fn fill(writer: &mut Writer<'_>, writes: &[Write]) -> Result<(), DbError> {
    for write in writes {
        let (Write::Put(at, _) | Write::Patch(at, _) | Write::Delete(at) | Write::Edit(at, _)) =
            write
        else {
            if let Write::Insert(value) = write {
                writer.put("songs", None, value)?;
            }
            continue;
        };
        let collection = ["songs", "bands"][usize::from(at % 2)];
        let mut id = natural(["a", "b", "ab"][usize::from(at / 2) % 3]);
        if *at >= 6 {
            // A document with a generated id, if there is one: they come before the others.
            let listed = writer.list(collection, None, 1)?;
            id = listed.into_iter().next().map_or(id, |first| first.id);
        }
        let result = match write {
            Write::Put(_, value) => writer.put(collection, Some(&id), value).map(|_| ()),
            Write::Patch(_, value) => writer.patch(collection, &id, value).map(|_| ()),
            Write::Delete(_) => writer.delete(collection, &id).map(|_| ()),
            Write::Edit(_, edits) => writer.edit(collection, &id, edits).map(|_| ()),
            Write::Insert(_) => Ok(()),
        };
        if let Err(error) = result {
            assert!(is_expected(&error), "{error:?}");
        }
    }
    Ok(())
}

/// Lets the acts happen; returns the members, and all that must have reached all of them in the end.
fn play(acts: &[Act]) -> (Vec<Member>, Vec<Parcel>) {
    let mut members = members();
    let mut wraps = Vec::new();
    for act in acts {
        match act {
            Act::Write(who, all) => {
                let fills = all
                    .iter()
                    .map(|writes| |writer: &mut Writer<'_>| fill(writer, writes));
                members[*who].write(fills);
            }
            Act::Nod(who) => members[*who].nod(),
            Act::Grant(who, to, role) => members[*who].grant(*to, *role),
            Act::Remove(who, whom, keeps) => members[*who].remove(*whom, *keeps),
            Act::Accept(who, whom) => members[*who].accept(*whom),
            Act::Leave(who) => members[*who].leave(),
            Act::Define(who, version) => members[*who].define(*version),
            Act::Epoch(who) => wraps.extend(members[*who].begin_epoch()),
            Act::Hear(who, from) => {
                let parcels = members[*from].parcels();
                members[*who].deliver(&parcels);
            }
            Act::Wait(who, millis) => members[*who].wait(*millis),
        }
    }
    let mut parcels = wraps;
    for who in WRITERS {
        for parcel in members[who].parcels() {
            if !parcels.contains(&parcel) {
                parcels.push(parcel);
            }
        }
    }
    (members, parcels)
}

/// A number generator for shuffles; a history has a seed of its own.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    /// The parcels in any order, some of them twice or three times.
    fn shuffle(&mut self, parcels: &[Parcel]) -> Vec<Parcel> {
        let mut all = parcels.to_vec();
        for parcel in parcels {
            let copies = self.roll(4).saturating_sub(1);
            all.extend(std::iter::repeat_n(parcel.clone(), copies));
        }
        for at in (1..all.len()).rev() {
            all.swap(at, self.roll(at + 1));
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 1_000,
        failure_persistence: None,
        ..ProptestConfig::with_cases(2_000)
    })]

    #[test]
    fn any_order_of_sealed_records_gives_the_same_state(
        acts in vec(act(), 1..14),
        seed in any::<u64>(),
    ) {
        agree(&acts, seed)?;
    }
}

/// Three write, govern, remove and hear of each other as it comes; then everything reaches everybody, a
/// newcomer and a replicator too, each in an order of its own. All hold the same, to the state's
/// hash, and it is the naive fold of all records; a restart changes nothing. Who may read in the end has
/// all keys, and who was removed none that anybody sealed under who knew of it.
fn agree(acts: &[Act], seed: u64) -> Result<(), TestCaseError> {
    let (mut members, parcels) = play(acts);
    let mut dice = Dice(seed);
    for member in &mut members {
        // Partial sets converge as well: what is here is folded as it is.
        prop_assert_eq!(member.hash(), member.naive());
        member.deliver(&dice.shuffle(&parcels));
    }
    let wraps: Vec<_> = WRITERS.iter().flat_map(|it| members[*it].wraps()).collect();
    for member in &mut members {
        member.deliver(&wraps);
    }
    let readers: Vec<_> = (0..=REX).filter(|it| members[0].reads(*it)).collect();
    prop_assert!(!readers.is_empty(), "there is always an owner");
    let first = &members[readers[0]];
    for (at, member) in members.iter().enumerate() {
        prop_assert_eq!(member.frames(), first.frames());
        prop_assert_eq!(member.hash(), member.naive());
        if readers.contains(&at) {
            prop_assert_eq!(member.hash(), first.naive());
            prop_assert!(member.opened.keys().eq(first.opened.keys()));
            prop_assert_eq!(member.roster(), first.roster());
            prop_assert!(!member.lacks_keys());
        }
    }
    // Who was known to be out when something was written never gets its key.
    let epochs = first.sealed_under();
    for (place, knew) in members.iter().flat_map(|it| &it.knew) {
        for (at, member) in members.iter().enumerate() {
            let is_out = first.is_out_for(at, knew);
            prop_assert!(
                !is_out || !member.holds_key(&epochs[place]),
                "{at} {place:?}"
            );
        }
    }
    // Whoever has no key carries the same records and knows the same rules.
    prop_assert!(first.was_ever_let_in(REX) || members[REX].opened.is_empty());
    let newcomer = &mut members[DAVE];
    let before = (newcomer.hash(), newcomer.frames(), newcomer.roster());
    newcomer.restart(DAVE);
    prop_assert_eq!(newcomer.hash(), before.0);
    prop_assert_eq!(newcomer.frames(), before.1);
    prop_assert_eq!(newcomer.roster(), before.2);
    Ok(())
}

/// Six runs, three of them control records, and whom they come to.
///
/// ```text
/// Alice: g (a grant)
/// Bob:   o (opens his log), b1, b2 (has seen c1)
/// Carol: p (opens her log, has seen b1), c1
/// ```
fn six_runs() -> (Member, Vec<Parcel>) {
    let mut members = members();
    let before = members[0].parcels();
    let put = |plays: i64| {
        move |writer: &mut Writer<'_>| {
            let song = [("plays".to_owned(), Ipld::from(plays))];
            let song = Ipld::Map(song.into());
            writer.put("songs", Some(&natural("a")), &song).map(|_| ())
        }
    };
    members[1].write([put(1)]);
    let parcels = members[1].parcels();
    members[2].deliver(&parcels);
    members[2].write([put(2)]);
    let parcels = members[2].parcels();
    members[1].deliver(&parcels);
    members[1].write([put(5)]);
    members[0].grant(5, Role::Writer);
    let mut all = members[1].parcels();
    let news = members[0].parcels().into_iter();
    let news: Vec<_> = news.filter(|parcel| !all.contains(parcel)).collect();
    all.extend(news);
    all.retain(|parcel| !before.contains(parcel));
    assert_eq!(all.len(), 6);
    let mut newcomer = members.swap_remove(DAVE);
    newcomer.deliver(&before);
    (newcomer, all)
}

/// Calls back with each order of the items. Equal items are not told apart.
fn arrangements(items: &mut [usize], at: usize, visit: &mut dyn FnMut(&[usize])) {
    if at == items.len() {
        return visit(items);
    }
    for other in at..items.len() {
        let item = items[other];
        if items[at..other].contains(&item) {
            continue;
        }
        items.swap(at, other);
        arrangements(items, at + 1, visit);
        items.swap(at, other);
    }
}

/// Whoever knows `newcomer` takes the runs in this order, and those that came too early again: after
/// each of them the state is the naive fold of the records that are in.
fn arrive(newcomer: &Member, runs: &[Parcel], order: &[usize]) -> Member {
    let mut member = newcomer.copy(DAVE);
    let mut left = order.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|at| {
            let taken = member.take(&runs[*at]);
            assert_eq!(member.hash(), member.naive(), "{order:?} at {at}");
            !taken
        });
        assert!(left.len() < before, "{order:?}");
    }
    member
}

/// All 720 orders of six runs, and each run once more, as early as it can come again.
#[test]
fn all_orders_of_six_runs_give_the_same_state() {
    let (newcomer, runs) = six_runs();
    let expected = arrive(&newcomer, &runs, &[0, 1, 2, 3, 4, 5]);
    assert_eq!(expected.opened.len(), 3);
    let mut orders = 0;
    arrangements(&mut [0, 1, 2, 3, 4, 5], 0, &mut |order| {
        orders += 1;
        let twice: Vec<_> = order.iter().flat_map(|at| [*at, *at]).collect();
        let member = arrive(&newcomer, &runs, &twice);
        assert_eq!(member.hash(), expected.hash(), "{order:?}");
        assert_eq!(member.frames(), expected.frames(), "{order:?}");
        assert_eq!(member.roster(), expected.roster(), "{order:?}");
    });
    assert_eq!(orders, 720);
}

/// All 2,520 orders of four runs that come twice each, after the two that open the logs.
#[test]
fn all_orders_of_runs_that_come_twice_give_the_same_state() {
    let (mut newcomer, mut runs) = six_runs();
    // Control records of Bob and Carol that only open a log are in before.
    let opened = newcomer.take_openings(&runs);
    assert_eq!(opened.len(), 2);
    runs.retain(|run| !opened.contains(run));
    let expected = arrive(&newcomer, &runs, &[0, 1, 2, 3]);
    let mut orders = 0;
    arrangements(&mut [0, 0, 1, 1, 2, 2, 3, 3], 0, &mut |order| {
        orders += 1;
        let member = arrive(&newcomer, &runs, order);
        assert_eq!(member.hash(), expected.hash(), "{order:?}");
        assert_eq!(member.frames(), expected.frames(), "{order:?}");
    });
    assert_eq!(orders, 2_520);
}

/// Histories that the property found, each of which a former rule got wrong.
#[test]
fn histories_that_were_found_agree() {
    let write = || {
        let nothing = Ipld::Map(std::collections::BTreeMap::new());
        vec![vec![Write::Put(0, nothing)]]
    };
    // The last owner leaves, which stands only once she has made somebody else one: the epoch that she began
    // in between had seen the leave, and yet she holds its key.
    let leaves_at_last = vec![
        Act::Leave(0),
        Act::Epoch(0),
        Act::Grant(0, 1, Role::Owner),
        Act::Hear(2, 0),
        Act::Write(2, write()),
    ];
    // All who hold keys leave, the last of them by what she says last: she still hands hers on.
    let all_leave = vec![
        Act::Leave(1),
        Act::Leave(2),
        Act::Leave(0),
        Act::Grant(0, 4, Role::Owner),
    ];
    for acts in [leaves_at_last, all_leave] {
        for seed in 0..16 {
            agree(&acts, seed).unwrap();
        }
    }
}

/// An admin who was demoted gave a grant before he heard of it: what was written by who could not know of
/// the grant is not put aside for it, whoever learns of both first.
#[test]
fn grant_that_nobody_knew_of_puts_nothing_aside() {
    let acts = [
        Act::Grant(0, 1, Role::Writer),
        Act::Grant(1, 0, Role::Writer),
        Act::Write(
            0,
            vec![vec![Write::Put(
                0,
                Ipld::Map(std::collections::BTreeMap::new()),
            )]],
        ),
    ];
    for seed in 0..16 {
        let (mut members, parcels) = play(&acts);
        let mut dice = Dice(seed);
        for member in &mut members {
            member.deliver(&dice.shuffle(&parcels));
        }
        let expected = members[0].naive();
        assert_eq!(members[0].opened.len(), 1);
        for member in &members[..=DAVE] {
            assert_eq!(member.hash(), expected);
        }
    }
}

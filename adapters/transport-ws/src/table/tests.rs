use futures_util::FutureExt;
use leno_transport_trait::Event;

use super::*;

const LOW: PeerId = PeerId([1; 32]);
const HIGH: PeerId = PeerId([2; 32]);

fn greeting(instance: u64, generation: u64) -> Greeting {
    Greeting {
        instance,
        generation,
    }
}

/// The events so far, as text.
fn events(links: &Links) -> Vec<String> {
    std::iter::from_fn(|| links.next().now_or_never().flatten())
        .map(|event| match event {
            Event::Connected { link, .. } => format!("+{link}"),
            Event::Disconnected { link, reason, .. } => format!("-{link} {reason}"),
            other @ (Event::Message { .. } | Event::Discovered { .. }) => format!("{other:?}"),
        })
        .collect()
}

fn table(local: PeerId) -> (Table, Links) {
    (Table::new(local, 9), Links::new(1024))
}

#[test]
fn arbiter_drops_duplicates_and_moves_to_a_new_life() {
    let (mut table, links) = table(LOW);
    let mut greeted = |number, theirs| table.greeted(&links, HIGH, number, theirs, 10).map(|_| ());
    assert_eq!(greeted(1, greeting(5, 0)), Ok(()));
    assert_eq!(greeted(2, greeting(5, 0)), Err(Refused::Duplicate));
    assert_eq!(greeted(3, greeting(6, 0)), Ok(()), "it was restarted");
    assert_eq!(greeted(4, greeting(6, 1)), Ok(()), "it saw an end");
    let replaced = "replaced by a newer connection of the same peer";
    let expected = [
        "+1",
        &format!("-1 {replaced}"),
        "+2",
        &format!("-2 {replaced}"),
        "+3",
    ];
    assert_eq!(events(&links), expected);
}

#[test]
fn other_side_moves_wherever_the_arbiter_answers() {
    let (mut table, links) = table(HIGH);
    for number in 1..3 {
        let moved = table.greeted(&links, LOW, number, greeting(5, 0), 10);
        assert!(moved.is_ok());
    }
    assert_eq!(events(&links).len(), 3);
}

#[test]
fn own_greeting_counts_links_that_ended() {
    let (mut table, links) = table(LOW);
    assert_eq!(table.greeting_for(HIGH), greeting(9, 0));
    let first = table.greeted(&links, HIGH, 1, greeting(5, 0), 10).unwrap();
    // A link that moved goes on.
    let second = table.greeted(&links, HIGH, 2, greeting(5, 1), 10).unwrap();
    assert_eq!(table.greeting_for(HIGH), greeting(9, 0));
    let lost = DisconnectReason::PeerClosed;
    assert!(!table.ended(&links, &first, &lost), "it is not the link");
    assert!(table.is_live(HIGH));
    assert!(!table.ended(&links, &second, &lost), "nobody wanted it");
    assert_eq!(table.greeting_for(HIGH), greeting(9, 1));
    table.greeted(&links, HIGH, 3, greeting(5, 2), 10).unwrap();
    table.hang_up(&links, HIGH);
    table.hang_up(&links, HIGH);
    assert_eq!(table.greeting_for(HIGH), greeting(9, 2));
    assert!(table.is_lingering(HIGH));
    table.leave(3);
    assert!(!table.is_lingering(HIGH));
}

#[tokio::test]
async fn lost_peer_is_redialled_once_and_only_if_it_is_wanted() {
    let place = Place::parse(&"ws://a.example/leno".parse().unwrap()).unwrap();
    let check = |reason: DisconnectReason, expected: bool| {
        let (mut table, links) = table(LOW);
        let link = table.greeted(&links, HIGH, 1, greeting(5, 0), 10).unwrap();
        table.remember(HIGH, &place);
        assert_eq!(table.ended(&links, &link, &reason), expected, "{reason}");
        let link = table.greeted(&links, HIGH, 2, greeting(5, 1), 10).unwrap();
        assert!(!table.ended(&links, &link, &reason), "one task sees to it");
    };
    check(DisconnectReason::PeerClosed, true);
    check(DisconnectReason::Stalled { millis: 1 }, true);
    check(DisconnectReason::PeerHungUp, false);
    check(DisconnectReason::MessageTooLarge { len: 2, max: 1 }, false);
    let detail = String::new();
    check(DisconnectReason::Misbehaved { detail }, false);
}

#[test]
fn connections_are_bounded_per_peer_and_in_all() {
    let (mut table, _) = table(LOW);
    let first = table.enter(HIGH, 3, 2).unwrap();
    table.enter(HIGH, 3, 2).unwrap();
    assert!(matches!(table.enter(HIGH, 3, 2), Err(Refused::TooMany(_))));
    table.enter(LOW, 3, 2).unwrap();
    let other = PeerId([3; 32]);
    assert!(matches!(table.enter(other, 3, 2), Err(Refused::TooMany(_))));
    table.leave(first);
    assert!(table.enter(other, 3, 2).is_ok());
}

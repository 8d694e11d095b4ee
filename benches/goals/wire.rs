//! Goal 5: bytes on the wire, padding off.

use std::path::Path;
use std::sync::Arc;

use leno_benches::Outcome;
use leno_benches::event::{Event, Events};
use leno_benches::replica::{Peer, sync, talk};
use leno_benches::report::{Goal, Line, Report, Unit};
use leno_threads_core::Role;
use leno_threads_core::store::MemoryStore;
use leno_threads_core::sync::Message;

/// Records of a range.
const RANGE: usize = 1_024;

/// Ops of a long record.
const LONG: usize = 100;

pub(crate) fn run(_: &Path, report: &mut Report) -> Outcome {
    let mut alice = Peer::create(1, Arc::new(MemoryStore::new()))?;
    let mut events = Events::new(1)?;
    alice.write_all(&events.creates(), LONG, true)?;
    alice.commit()?;
    let mut bob = alice.invite(2, Arc::new(MemoryStore::new()), Role::Reader)?;
    // The first record of a session names its log, which later ones need not.
    write(&mut alice, &events.patches(1), 1)?;
    sync(&mut alice, &mut bob)?;

    write(&mut alice, &events.patches(RANGE), 1)?;
    let (range, _) = ranges(&mut alice, &mut bob)?;
    write(&mut alice, &events.patches(10 * LONG), LONG)?;
    let (long, _) = ranges(&mut alice, &mut bob)?;
    write(&mut alice, &events.patches(1), 1)?;
    let (lone, messages) = ranges(&mut alice, &mut bob)?;
    if messages != 1 {
        return Err(format!("a lone record went in {messages} messages").into());
    }
    let lines = [
        (
            "5  a one-op record in a range of 1,024",
            180.0,
            range / RANGE as f64,
        ),
        (
            "5  an op in a record of 100",
            142.0,
            long / (10 * LONG) as f64,
        ),
        ("5  a lone live record with its signed head", 280.0, lone),
    ];
    for (name, goal, bytes) in lines {
        report.add(Line::new(name, Unit::Bytes, Goal::AtMost(goal), bytes));
    }
    Ok(())
}

/// Writes records a millisecond apart.
fn write(peer: &mut Peer, events: &[Event], per_record: usize) -> Outcome {
    let store = peer.store.clone();
    let view = store.view()?;
    for events in events.chunks(per_record) {
        peer.now_millis += 1;
        let mut transaction = peer.begin()?;
        for event in events {
            peer.stage(&*view, &mut transaction, event, false)?;
        }
        peer.write(&*view, transaction)?;
    }
    drop(view);
    peer.publish()?;
    peer.commit()
}

/// The bytes, and the number, of the messages with records that go from one peer to the other.
fn ranges(from: &mut Peer, to: &mut Peer) -> Outcome<(f64, usize)> {
    let (mut bytes, mut messages) = (0, 0);
    talk(from, to, |message| {
        if let Ok(Message::Range { .. }) = Message::decode(message) {
            bytes += message.len();
            messages += 1;
        }
    })?;
    Ok((bytes as f64, messages))
}

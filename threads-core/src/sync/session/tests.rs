//! What names a thread, proves a seat or shortens a hash in one session means nothing in another.

use leno_identity::{KeyError, SigningKey};

use super::*;

const THREAD: ThreadId = ThreadId([4; 32]);

/// A session between two peers with their nonces, as each of the two holds it.
fn pair(low: [u8; 32], high: [u8; 32], low_nonce: u8, high_nonce: u8) -> [Session; 2] {
    let (low, high) = (PeerKey(low), PeerKey(high));
    let [low_nonce, high_nonce] = [low_nonce, high_nonce].map(|it| [it; 32]);
    let mut of_low = Session::new(low, high, low_nonce);
    let mut of_high = Session::new(high, low, high_nonce);
    of_low.remote_nonce = Some(high_nonce);
    of_high.remote_nonce = Some(low_nonce);
    [of_low, of_high]
}

/// The session that the others are compared with.
fn usual() -> [Session; 2] {
    pair([1; 32], [2; 32], 7, 8)
}

/// Sessions that differ from the usual one in one thing each: a nonce or a peer. The last has the
/// nonces of the two sides the other way around.
fn others() -> [[Session; 2]; 5] {
    [
        pair([1; 32], [2; 32], 9, 8),
        pair([1; 32], [2; 32], 7, 9),
        pair([0; 32], [2; 32], 7, 8),
        pair([1; 32], [3; 32], 7, 8),
        pair([1; 32], [2; 32], 8, 7),
    ]
}

#[test]
fn nothing_is_said_before_the_other_nonce_came() {
    let service = ServiceKey::from_bytes([5; 32]);
    let session = Session::new(PeerKey([1; 32]), PeerKey([2; 32]), [7; 32]);
    assert_eq!(session.binding(), None);
    assert_eq!(session.tag(&service, true), None);
    assert_eq!(session.statement(THREAD, true), None);
    assert!(!session.proves(THREAD, SeatId([6; 32]), &[0; 64]));
}

#[test]
fn short_hash_is_keyed_by_peers_and_nonces() {
    let (id, other) = (RecordId([3; 32]), RecordId([4; 32]));
    let [low, high] = usual();
    assert_eq!(low.short_hash(&id), high.short_hash(&id));
    assert_ne!(low.short_hash(&id), low.short_hash(&other));
    for session in others().iter().flatten() {
        assert_ne!(session.short_hash(&id), low.short_hash(&id), "{session:?}");
    }
}

#[test]
fn tag_is_keyed_by_service_key_peers_nonces_and_side() {
    let service = ServiceKey::from_bytes([5; 32]);
    let [low, high] = usual();
    // What one side says is what the other one expects, and it is not what the other one says.
    let (of_low, of_high) = (low.tag(&service, true), high.tag(&service, true));
    assert_eq!(high.tag(&service, false), of_low);
    assert_eq!(low.tag(&service, false), of_high);
    assert_ne!(of_low, of_high);
    // Whoever lacks the service key cannot make it.
    assert_ne!(low.tag(&ServiceKey::from_bytes([6; 32]), true), of_low);
    for session in others().iter().flatten() {
        for own in [true, false] {
            let tag = session.tag(&service, own);
            assert!(tag != of_low && tag != of_high, "{session:?}");
        }
    }
}

#[test]
fn statement_is_bound_to_thread_peers_nonces_and_side() -> Result<(), KeyError> {
    let key = SigningKey::from_secret_bytes(&[9; 32])?;
    let seat = SeatId(key.verifying_key().to_bytes());
    let [low, high] = usual();
    let statement = low.statement(THREAD, true).expect("both nonces are known");
    let signature = key.sign_message(&statement);
    assert!(high.proves(THREAD, seat, &signature));
    // Reflected to the one who made it, for another thread, by another seat.
    assert!(!low.proves(THREAD, seat, &signature));
    assert!(!high.proves(ThreadId([5; 32]), seat, &signature));
    let other = SigningKey::from_secret_bytes(&[8; 32])?.verifying_key();
    assert!(!high.proves(THREAD, SeatId(other.to_bytes()), &signature));
    // Carried over to another session: one with a new nonce of either side, or with other peers.
    for session in others().iter().flatten() {
        assert!(!session.proves(THREAD, seat, &signature), "{session:?}");
    }
    Ok(())
}

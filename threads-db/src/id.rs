//! Ids of documents that nobody but their author can create.

use leno_crdt_codec::json::DocumentId;
use leno_identity::Label;
use leno_threads_core::OpRef;
use rand_core::CryptoRng;

/// Makes an id for a document that `member` will create, and the nonce that the create shows.
///
/// # Shape
///
/// 48 bits of `now_millis` (milliseconds since the Unix epoch), big-endian, then the first 80 bits of
/// [`Label::DOCUMENT_ID`]'s hash of three parts: the digest in the id of the member's record, the
/// member's op as u32, big-endian, and the nonce, 16 random bytes.
///
/// # Security
///
/// A create that shows no nonce which gives the id, with the number of the record's author, is void
/// on every peer. Whoever learns an id can therefore not claim to have made the document, with
/// whatever stamp.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{OpRef, RecordId};
/// use leno_threads_db::{is_of_member, new_id};
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
///
/// let alice = OpRef { record: RecordId([1; 32]), op: 0 };
/// let mallory = OpRef { record: RecordId([1; 32]), op: 1 };
/// let (id, nonce) = new_id(1_700_000_000_000, alice, &mut rng);
/// assert_eq!(id.millis(), Some(1_700_000_000_000));
/// assert!(is_of_member(&id, alice, &nonce));
/// assert!(!is_of_member(&id, mallory, &nonce));
/// ```
pub fn new_id(now_millis: u64, member: OpRef, rng: &mut dyn CryptoRng) -> (DocumentId, [u8; 16]) {
    let mut nonce = [0; 16];
    rng.fill_bytes(&mut nonce);
    let mut id = [0; 16];
    let (time, hash) = id.split_at_mut(6);
    time.copy_from_slice(now_millis.to_be_bytes().split_at(2).1);
    hash.copy_from_slice(&author_hash(member, &nonce));
    (DocumentId::generated(id), nonce)
}

/// Tells whether [`new_id`] makes this id for this member and nonce; never for a natural id.
#[must_use]
pub fn is_of_member(id: &DocumentId, member: OpRef, nonce: &[u8; 16]) -> bool {
    id.as_generated()
        .is_some_and(|id| id.ends_with(&author_hash(member, nonce)))
}

fn author_hash(member: OpRef, nonce: &[u8; 16]) -> [u8; 10] {
    let parts: [&[u8]; 3] = [&member.record.0, &member.op.to_be_bytes(), nonce];
    let hash = Label::DOCUMENT_ID.hash(&parts);
    let mut first = [0; 10];
    first.copy_from_slice(hash.split_at(10).0);
    first
}

//! Sealing what is sealed once: segments and heads on storage that somebody else may own, parts of
//! bundles, signals.
//!
//! Many writers hold the one key and know nothing of each other, so no counter and no random nonce of
//! 12 bytes would keep them apart. Each sealing has a key of its own instead, derived from the shared
//! one and a salt of 32 bytes, and the nonce is zero.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf;
use hmac::Mac;
use leno_identity::Label;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{NONCE_BYTES, NonceSecret, OpenError, ServiceKey, Suite, TAG_BYTES};
use crate::ThreadId;

/// Bytes that sealing once adds.
pub const SEALED_ONCE_BYTES: usize = 1 + SALT_BYTES + COMMITMENT_BYTES + TAG_BYTES;

const SALT_BYTES: usize = 32;
const COMMITMENT_BYTES: usize = 32;

/// What a sealing is for: what was sealed as one does not open as the other.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum OnceKind {
    /// A segment of a thread.
    Segment,
    /// The heads of a thread on a shared store.
    Heads,
    /// A part of a bundle.
    Part,
    /// A signal.
    Signal,
}

impl OnceKind {
    fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Heads => "heads",
            Self::Part => "part",
            Self::Signal => "signal",
        }
    }
}

/// Seals a plaintext under a key of its own, which holders of the service key derive again.
///
/// # Shape
///
/// `suite: 1 byte | salt: 32 | commitment: 32 | ciphertext | tag: 16`. Key and commitment are the 64
/// bytes of HKDF-SHA-256 of the service key with the salt, info = labelled message
/// `one-time-sealing` of kind, thread, suite. The nonce is zero, and there is no associated data: all
/// that places the bytes is in the key. (Parts of bundles and signals have keys of their own, and
/// associated data.)
///
/// # Security
///
/// The salt is hedged: a MAC under the device's nonce secret over labelled message `one-time-salt` of kind, thread, plaintext and fresh
/// randomness. A generator that is stuck or cloned pairs one key with two plaintexts as little as two
/// devices do. The commitment is compared before anything is opened, so no ciphertext opens under two
/// service keys.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{
///     NonceSecret, OnceKind, OpenError, ServiceKey, Suite, ThreadId, open_once, seal_once,
/// };
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
///
/// let (thread, kind) = (ThreadId([1; 32]), OnceKind::Segment);
/// let (key, secret) = (ServiceKey::generate(&mut rng), NonceSecret::new(&[3; 32]));
/// let suite = Suite::Aes256Gcm;
/// let sealed = seal_once(suite, &key, thread, kind, b"hello", &secret, &mut rng);
/// assert_eq!(open_once(&key, thread, kind, &sealed)?, (suite, b"hello".to_vec()));
/// assert_eq!(open_once(&key, thread, OnceKind::Heads, &sealed), Err(OpenError));
/// # Ok::<(), OpenError>(())
/// ```
#[must_use]
pub fn seal_once(
    suite: Suite,
    key: &ServiceKey,
    thread: ThreadId,
    kind: OnceKind,
    plaintext: &[u8],
    secret: &NonceSecret,
    rng: &mut dyn CryptoRng,
) -> Vec<u8> {
    let place = OncePlace {
        kind,
        thread,
        context: &[],
    };
    place.seal(suite, key.expose(), plaintext, secret, rng)
}

/// Opens what [`seal_once`] sealed, and tells under which suite.
///
/// # Errors
///
/// [`OpenError`] if it was not sealed as this, for this thread, under this key, or was changed.
pub fn open_once(
    key: &ServiceKey,
    thread: ThreadId,
    kind: OnceKind,
    sealed: &[u8],
) -> Result<(Suite, Vec<u8>), OpenError> {
    let place = OncePlace {
        kind,
        thread,
        context: &[],
    };
    place.open(key.expose(), sealed)
}

/// Where something is sealed once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OncePlace<'a> {
    pub(crate) kind: OnceKind,
    pub(crate) thread: ThreadId,
    /// Authenticated beside it.
    pub(crate) context: &'a [u8],
}

impl OncePlace<'_> {
    /// As [`seal_once`], under any key that is for this alone.
    pub(crate) fn seal(
        self,
        suite: Suite,
        key: &[u8; 32],
        plaintext: &[u8],
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        let salt = self.salt(plaintext, secret, rng);
        let keys = Keys::derive(suite, key, self, &salt);
        let context = self.context;
        let mut sealed = Vec::with_capacity(plaintext.len() + SEALED_ONCE_BYTES);
        sealed.push(number(suite));
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&keys.commitment);
        let start = sealed.len();
        sealed.extend_from_slice(plaintext);
        let body = InOutBuf::from(sealed.get_mut(start..).unwrap_or_default());
        let nonce = Nonce::from([0; NONCE_BYTES]);
        let tag = match suite {
            Suite::Aes256Gcm => {
                Aes256Gcm::new((&*keys.key).into()).encrypt_inout_detached(&nonce, context, body)
            }
            Suite::ChaCha20Poly1305 => ChaCha20Poly1305::new((&*keys.key).into())
                .encrypt_inout_detached(&nonce, context, body),
        };
        sealed.extend_from_slice(&tag.expect("it is far shorter than the limit of the AEAD"));
        sealed
    }

    /// Opens what was sealed at this place, and tells under which suite.
    pub(crate) fn open(self, key: &[u8; 32], sealed: &[u8]) -> Result<(Suite, Vec<u8>), OpenError> {
        let (number, rest) = sealed.split_first().ok_or(OpenError)?;
        let suite = Suite::from_number(u64::from(*number)).ok_or(OpenError)?;
        let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>().ok_or(OpenError)?;
        let (commitment, rest) = rest
            .split_first_chunk::<COMMITMENT_BYTES>()
            .ok_or(OpenError)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(OpenError)?;
        let keys = Keys::derive(suite, key, self, salt);
        if !bool::from(keys.commitment.ct_eq(commitment)) {
            return Err(OpenError);
        }
        let mut plaintext = body.to_vec();
        let buffer = InOutBuf::from(plaintext.as_mut_slice());
        let (nonce, tag) = (Nonce::from([0; NONCE_BYTES]), Tag::from(*tag));
        let opened = match suite {
            Suite::Aes256Gcm => {
                let cipher = Aes256Gcm::new((&*keys.key).into());
                cipher.decrypt_inout_detached(&nonce, self.context, buffer, &tag)
            }
            Suite::ChaCha20Poly1305 => {
                let cipher = ChaCha20Poly1305::new((&*keys.key).into());
                cipher.decrypt_inout_detached(&nonce, self.context, buffer, &tag)
            }
        };
        opened.map_err(|_| OpenError)?;
        Ok((suite, plaintext))
    }

    fn salt(
        self,
        plaintext: &[u8],
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) -> [u8; SALT_BYTES] {
        let mut random = [0; 32];
        rng.fill_bytes(&mut random);
        let (text, context) = (Sha256::digest(plaintext), Sha256::digest(self.context));
        let parts: [&[u8]; 5] = [
            self.kind.name().as_bytes(),
            &self.thread.0,
            &text,
            &random,
            &context,
        ];
        // One key for two contexts would be as bad as for two plaintexts: the tags would give it away.
        let length = 4 + usize::from(!self.context.is_empty());
        let mut mac = secret.mac.clone();
        // Longer than what a nonce is made of, so the two never meet under the one secret.
        mac.update(&Label::ONE_TIME_SALT.message(parts.get(..length).unwrap_or(&parts)));
        mac.finalize().into_bytes().into()
    }
}

fn number(suite: Suite) -> u8 {
    u8::try_from(suite.number()).expect("suites have small numbers")
}

/// What one sealing has for itself.
struct Keys {
    key: Zeroizing<[u8; 32]>,
    commitment: [u8; COMMITMENT_BYTES],
}

impl Keys {
    fn derive(suite: Suite, key: &[u8; 32], place: OncePlace<'_>, salt: &[u8; SALT_BYTES]) -> Self {
        let name = place.kind.name().as_bytes();
        let parts: [&[u8]; 3] = [name, &place.thread.0, &[number(suite)]];
        let mut derived = Zeroizing::new([0; 64]);
        Hkdf::<Sha256>::new(Some(salt), key)
            .expand(&Label::ONE_TIME_SEALING.message(&parts), &mut *derived)
            .expect("64 bytes are within the reach of HKDF-SHA-256");
        let mut keys = Self {
            key: Zeroizing::new([0; 32]),
            commitment: [0; COMMITMENT_BYTES],
        };
        let (first, second) = derived.split_at(32);
        keys.key.copy_from_slice(first);
        keys.commitment.copy_from_slice(second);
        keys
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const THREAD: ThreadId = ThreadId([7; 32]);

    fn sealed(suite: Suite, plaintext: &[u8]) -> Vec<u8> {
        let (key, secret) = (ServiceKey::from_bytes([5; 32]), NonceSecret::new(&[9; 32]));
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let kind = OnceKind::Segment;
        seal_once(suite, &key, THREAD, kind, plaintext, &secret, &mut rng)
    }

    #[test]
    fn opens_only_as_what_it_was_sealed_as() {
        let key = ServiceKey::from_bytes([5; 32]);
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let sealed = sealed(suite, b"text");
            assert_eq!(sealed.len(), 4 + SEALED_ONCE_BYTES);
            let opened = open_once(&key, THREAD, OnceKind::Segment, &sealed);
            assert_eq!(opened, Ok((suite, b"text".to_vec())));
            let other = ServiceKey::from_bytes([6; 32]);
            for opened in [
                open_once(&other, THREAD, OnceKind::Segment, &sealed),
                open_once(&key, ThreadId([8; 32]), OnceKind::Segment, &sealed),
                open_once(&key, THREAD, OnceKind::Heads, &sealed),
            ] {
                assert_eq!(opened, Err(OpenError));
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let key = ServiceKey::from_bytes([5; 32]);
        let sealed = sealed(Suite::Aes256Gcm, b"text");
        let opens = |bytes: &[u8]| open_once(&key, THREAD, OnceKind::Segment, bytes).is_ok();
        assert!(opens(&sealed));
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&bytes), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(!opens(&sealed[..length]), "{length} bytes");
        }
        assert!(!opens(&[&sealed[..], &[0]].concat()));
    }

    #[test]
    fn context_is_authenticated_and_has_a_key_of_its_own() {
        let secret = NonceSecret::new(&[9; 32]);
        let seal = |kind, context: &[u8]| {
            let place = OncePlace {
                kind,
                thread: THREAD,
                context,
            };
            let mut stuck = ChaCha20Rng::from_seed([0; 32]);
            let suite = Suite::ChaCha20Poly1305;
            (
                place.seal(suite, &[5; 32], b"text", &secret, &mut stuck),
                suite,
            )
        };
        let open = |kind, context: &[u8], key: u8, sealed: &[u8]| {
            let place = OncePlace {
                kind,
                thread: THREAD,
                context,
            };
            place.open(&[key; 32], sealed)
        };
        let (sealed, suite) = seal(OnceKind::Part, b"place");
        assert_eq!(sealed.len(), 4 + SEALED_ONCE_BYTES);
        let opened = open(OnceKind::Part, b"place", 5, &sealed);
        assert_eq!(opened, Ok((suite, b"text".to_vec())));
        for opened in [
            open(OnceKind::Part, b"other", 5, &sealed),
            open(OnceKind::Part, b"", 5, &sealed),
            open(OnceKind::Signal, b"place", 5, &sealed),
            open(OnceKind::Part, b"place", 6, &sealed),
        ] {
            assert_eq!(opened, Err(OpenError));
        }
        let salt = |context: &[u8]| seal(OnceKind::Part, context).0[1..33].to_vec();
        assert_eq!(salt(b"place"), salt(b"place"));
        assert_ne!(salt(b"place"), salt(b"other"));
        assert_ne!(salt(b"place"), salt(b""));
    }

    #[test]
    fn stuck_generator_gives_each_plaintext_a_key_of_its_own() {
        let salt = |plaintext: &[u8]| sealed(Suite::Aes256Gcm, plaintext)[1..33].to_vec();
        assert_ne!(salt(b"one"), salt(b"two"));
        assert_eq!(salt(b"one"), salt(b"one"), "equal bytes are harmless");
    }
}

//! Sealing: bodies under an epoch key, frames under the service key, with everything that places
//! them as associated data.
//!
//! A sealed body is `nonce: 12 bytes | ciphertext | tag: 16 bytes`. The nonce is hedged: a MAC under
//! a secret of the device over the seal context, the padded plaintext and fresh randomness, so that
//! a generator that is stuck or cloned never pairs one nonce with two messages.
//!
//! What many writers seal under one key, such as segments, has a one-time key each: [`seal_once`].

mod once;

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use leno_crdt_codec::{LogId, bug};
use leno_identity::Label;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{EpochId, ThreadId};
pub(crate) use once::OncePlace;
pub use once::{OnceKind, SEALED_ONCE_BYTES, open_once, seal_once};

/// Bytes that sealing adds.
pub const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// Longest sealed body, in bytes.
pub const SEALED_BYTES_MAX: usize = 512 << 10;

/// Longest plaintext before padding, so that it fits sealed whatever its size class.
pub const PLAINTEXT_BYTES_MAX: usize = 448 << 10;

/// Most records that one log seals under one epoch: bounds the chance of a nonce collision.
pub const RECORDS_PER_EPOCH_MAX: u64 = 1 << 32;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Smallest size class of padding.
const PADDING_FLOOR: usize = 64;

/// The AEAD of a thread, fixed by its genesis.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Suite {
    /// AES-256-GCM: fastest where the processor has AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305: for threads of devices without AES instructions.
    ChaCha20Poly1305,
}

impl Suite {
    /// The number in a genesis.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite of a number, if there is one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// Whether bodies are padded to size classes.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{Padding, padding_is_good};
///
/// let mut plaintext = b"hello".to_vec();
/// Padding::Padme.pad(&mut plaintext);
/// assert_eq!(plaintext.len(), 64);
/// assert!(padding_is_good(&plaintext, 5));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Padding {
    /// Padmé with a floor of 64 bytes: a length tells little; at most 12 % longer.
    #[default]
    Padme,
    /// No padding: a replicator sees exact lengths.
    Off,
}

impl Padding {
    /// Appends the zeros that bring `plaintext` to its size class.
    pub fn pad(self, plaintext: &mut Vec<u8>) {
        if self == Self::Padme {
            plaintext.resize(padme(plaintext.len()), 0);
        }
    }
}

/// Checks what follows the content of a plaintext: nothing, or exactly the zeros of its size class.
///
/// `content` is how many of the bytes of `plaintext` mean something.
#[must_use]
pub fn padding_is_good(plaintext: &[u8], content: usize) -> bool {
    let tail = plaintext.get(content..).unwrap_or_default();
    let class = plaintext.len() == content || plaintext.len() == padme(content);
    class && tail.iter().all(|byte| *byte == 0)
}

/// The Padmé size class of a length, with a floor.
///
/// Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with
/// PURBs", PETS 2019, algorithm 1.
fn padme(length: usize) -> usize {
    if length <= PADDING_FLOOR {
        return PADDING_FLOOR;
    }
    let exponent = length.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1 << (exponent - significant)) - 1;
    (length + mask) & !mask
}

/// A generation of read keys: 32 random bytes, and the key that they give; wiped on drop.
///
/// What is sealed in the epoch is sealed under the key. The bytes themselves also open the links to the
/// epochs before: see [`KeyLink`](crate::KeyLink).
#[derive(Clone)]
pub struct EpochKey {
    secret: Zeroizing<[u8; 32]>,
    key: Zeroizing<[u8; 32]>,
}

impl EpochKey {
    /// Draws a key.
    ///
    /// # Panics
    ///
    /// If the generator returns only zeros: sealing under a known key must not go on.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::of(random_key(rng))
    }

    /// Takes a key that was stored or unwrapped.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self::of(Zeroizing::new(bytes))
    }

    fn of(secret: Zeroizing<[u8; 32]>) -> Self {
        let key = expand(&secret, &Label::EPOCH_KEY.message(&[]));
        Self { secret, key }
    }

    /// Shows the bytes, to store or wrap them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The key of what is sealed in the epoch.
    pub(crate) fn sealing(&self) -> &[u8; 32] {
        &self.key
    }

    /// The commitment of this key: the id of its epoch.
    #[must_use]
    pub fn id(&self, thread: ThreadId, domain: u32) -> EpochId {
        let parts: [&[u8]; 3] = [&thread.0, &domain.to_be_bytes(), &*self.key];
        EpochId(Label::EPOCH_COMMITMENT.hash(&parts))
    }
}

/// Draws 32 bytes.
///
/// # Panics
///
/// If the generator returns only zeros.
fn random_key(rng: &mut dyn CryptoRng) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *key);
    assert_ne!(*key, [0; 32], "the generator returns zeros");
    key
}

/// HKDF-SHA-256 without salt.
pub(crate) fn expand(key: &[u8; 32], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut expanded = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, key)
        .expand(info, &mut *expanded)
        .expect("32 bytes are within the reach of HKDF-SHA-256");
    expanded
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EpochKey")
    }
}

/// What members and replicators of a thread hold: it opens frames and names the thread to peers.
#[derive(Clone)]
pub struct ServiceKey(Zeroizing<[u8; 32]>);

impl ServiceKey {
    /// Draws a key.
    ///
    /// # Panics
    ///
    /// If the generator returns only zeros.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self(random_key(rng))
    }

    /// Takes a key that was stored or came with a ticket.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Shows the key, to store it or put it in a ticket.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ServiceKey")
    }
}

/// A secret of a device that hedges nonces and the salts of one-time sealings, and does nothing else.
#[derive(Clone)]
pub struct NonceSecret {
    // Keyed once: the two inner hash states are copied per record instead of rebuilt.
    mac: Hmac<Sha256>,
}

impl NonceSecret {
    /// Takes the 32 bytes of the device's nonce secret.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let key = Zeroizing::new(Label::NONCE.hash(&[secret]));
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&*key);
        Self {
            mac: mac.expect("HMAC takes any key length"),
        }
    }

    fn nonce(&self, context: &[u8], plaintext: &[u8], rng: &mut dyn CryptoRng) -> [u8; 12] {
        if bug!(NonceReused) {
            return [7; NONCE_BYTES];
        }
        let hedged = hedge(self.mac.clone(), context, plaintext, rng);
        let mut nonce = [0; NONCE_BYTES];
        for (to, from) in nonce.iter_mut().zip(hedged) {
            *to = from;
        }
        nonce
    }
}

/// A MAC over all that a sealing is about, and randomness.
fn hedge(
    mut mac: Hmac<Sha256>,
    context: &[u8],
    plaintext: &[u8],
    rng: &mut dyn CryptoRng,
) -> [u8; 32] {
    let mut random = [0; 32];
    rng.fill_bytes(&mut random);
    mac.update(&Sha256::digest(context));
    mac.update(&Sha256::digest(plaintext));
    mac.update(&random);
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for NonceSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NonceSecret")
    }
}

/// A sealed body does not open: damaged, moved, or sealed under another key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[error("the body does not open under this key at this place")]
pub struct OpenError;

/// Seals and opens the bodies of one log under one key. Made once per log and key, then kept.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{EpochKey, LogId, NonceSecret, OpenError, Sealer, Suite, ThreadId};
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
///
/// let (thread, log) = (ThreadId([1; 32]), LogId([2; 32]));
/// let (key, secret) = (EpochKey::generate(&mut rng), NonceSecret::new(&[3; 32]));
/// let sealer = Sealer::for_bodies(Suite::Aes256Gcm, &key, thread, log);
/// let sealed = sealer.seal(b"its place", b"hello", &secret, &mut rng);
/// let mut plaintext = Vec::new();
/// sealer.open(b"its place", &sealed, &mut plaintext)?;
/// assert_eq!(plaintext, b"hello");
/// // Whatever is moved does not open.
/// assert_eq!(sealer.open(b"elsewhere", &sealed, &mut plaintext), Err(OpenError));
/// # Ok::<(), OpenError>(())
/// ```
#[derive(Clone)]
pub struct Sealer {
    cipher: Cipher,
}

#[derive(Clone)]
enum Cipher {
    // Boxed: an AES key schedule is large, and sealers live in maps.
    Aes(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sealer")
    }
}

impl Sealer {
    /// For the bodies of a log under an epoch key: data, and roster parts under key domain 0.
    #[must_use]
    pub fn for_bodies(suite: Suite, key: &EpochKey, thread: ThreadId, log: LogId) -> Self {
        Self::derive(suite, key.sealing(), Label::BODY_SUBKEY, thread, log)
    }

    /// For the frames of a control log under the service key.
    #[must_use]
    pub fn for_frames(suite: Suite, key: &ServiceKey, thread: ThreadId, log: LogId) -> Self {
        Self::derive(suite, key.expose(), Label::FRAME_SUBKEY, thread, log)
    }

    fn derive(suite: Suite, key: &[u8; 32], label: Label, thread: ThreadId, log: LogId) -> Self {
        let of_log = if bug!(SubkeyShared) {
            &thread.0
        } else {
            &log.0
        };
        let subkey = expand(key, &label.message(&[&thread.0, of_log]));
        let cipher = match suite {
            Suite::Aes256Gcm => Cipher::Aes(Box::new(Aes256Gcm::new((&*subkey).into()))),
            Suite::ChaCha20Poly1305 => {
                Cipher::ChaCha(Box::new(ChaCha20Poly1305::new((&*subkey).into())))
            }
        };
        Self { cipher }
    }

    /// Seals a padded plaintext; `context` is authenticated beside it.
    #[must_use]
    pub fn seal(
        &self,
        context: &[u8],
        plaintext: &[u8],
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        let mut sealed = Vec::new();
        self.seal_into(&mut sealed, context, plaintext, secret, rng);
        sealed
    }

    /// As [`Sealer::seal`], behind what `sealed` holds.
    pub fn seal_into(
        &self,
        sealed: &mut Vec<u8>,
        context: &[u8],
        plaintext: &[u8],
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) {
        let nonce = Nonce::from(secret.nonce(context, plaintext, rng));
        sealed.reserve(plaintext.len() + SEAL_BYTES);
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(plaintext);
        let body = InOutBuf::from(sealed.get_mut(start..).unwrap_or_default());
        let tag = match &self.cipher {
            Cipher::Aes(cipher) => cipher.encrypt_inout_detached(&nonce, context, body),
            Cipher::ChaCha(cipher) => cipher.encrypt_inout_detached(&nonce, context, body),
        };
        sealed.extend_from_slice(&tag.expect("a body is far shorter than the limit of the AEAD"));
    }

    /// Opens a sealed body into `plaintext`, which is overwritten.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; `plaintext` is then empty.
    pub fn open(
        &self,
        context: &[u8],
        sealed: &[u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        plaintext.clear();
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(OpenError)?;
        plaintext.extend_from_slice(body);
        let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
        let buffer = InOutBuf::from(plaintext.as_mut_slice());
        let opened = match &self.cipher {
            Cipher::Aes(cipher) => cipher.decrypt_inout_detached(&nonce, context, buffer, &tag),
            Cipher::ChaCha(cipher) => cipher.decrypt_inout_detached(&nonce, context, buffer, &tag),
        };
        opened.map_err(|_| {
            plaintext.clear();
            OpenError
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const THREAD: ThreadId = ThreadId([7; 32]);
    const LOG: LogId = LogId([8; 32]);

    #[test]
    fn opens_only_at_its_place_and_under_its_key() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let secret = NonceSecret::new(&[9; 32]);
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let key = EpochKey::generate(&mut rng);
            let sealer = Sealer::for_bodies(suite, &key, THREAD, LOG);
            let sealed = sealer.seal(b"place", b"text", &secret, &mut rng);
            assert_eq!(sealed.len(), 4 + SEAL_BYTES);
            let mut plaintext = Vec::new();
            assert_eq!(sealer.open(b"place", &sealed, &mut plaintext), Ok(()));
            assert_eq!(plaintext, b"text");
            assert_eq!(
                sealer.open(b"other", &sealed, &mut plaintext),
                Err(OpenError)
            );
            assert!(plaintext.is_empty());
            for length in 0..sealed.len() {
                assert_eq!(
                    sealer.open(b"place", &sealed[..length], &mut plaintext),
                    Err(OpenError)
                );
            }
            for other in [
                Sealer::for_bodies(suite, &EpochKey::generate(&mut rng), THREAD, LOG),
                Sealer::for_bodies(suite, &key, ThreadId([0; 32]), LOG),
                Sealer::for_bodies(suite, &key, THREAD, LogId([0; 32])),
                Sealer::for_frames(suite, &ServiceKey::from_bytes(*key.expose()), THREAD, LOG),
            ] {
                assert_eq!(
                    other.open(b"place", &sealed, &mut plaintext),
                    Err(OpenError)
                );
            }
        }
    }

    /// Pitfall 38: with a generator that is stuck, nonces still differ as soon as anything does.
    #[test]
    fn stuck_generator_repeats_no_nonce() {
        let stuck = || ChaCha20Rng::from_seed([0; 32]);
        let secret = NonceSecret::new(&[9; 32]);
        let nonce = |context: &[u8], text: &[u8]| secret.nonce(context, text, &mut stuck());
        assert_eq!(nonce(b"stamp 1", b"text"), nonce(b"stamp 1", b"text"));
        assert_ne!(nonce(b"stamp 1", b"text"), nonce(b"stamp 2", b"text"));
        assert_ne!(nonce(b"stamp 1", b"text"), nonce(b"stamp 1", b"test"));
        let other_device = NonceSecret::new(&[8; 32]);
        assert_ne!(
            nonce(b"stamp 1", b"text"),
            other_device.nonce(b"stamp 1", b"text", &mut stuck())
        );
    }

    #[test]
    fn padding_has_a_floor_and_costs_little() {
        for length in 1..20_000 {
            let class = padme(length);
            assert!(class >= length.max(PADDING_FLOOR));
            assert!(length <= PADDING_FLOOR || (class - length) * 100 <= length * 12);
            assert_eq!(padme(class), class);
        }
        let mut plaintext = vec![1; 70];
        Padding::Padme.pad(&mut plaintext);
        assert!(padding_is_good(&plaintext, 70));
        assert!(padding_is_good(&plaintext[..70], 70));
        assert!(!padding_is_good(&plaintext[..71], 70));
        *plaintext.last_mut().unwrap() = 1;
        assert!(!padding_is_good(&plaintext, 70));
    }

    #[test]
    fn secrets_do_not_show() {
        let key = EpochKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "EpochKey");
        let sealer = Sealer::for_bodies(Suite::Aes256Gcm, &key, THREAD, LOG);
        assert_eq!(format!("{sealer:?}"), "Sealer");
        assert_eq!(
            format!("{:?}", NonceSecret::new(&[0xab; 32])),
            "NonceSecret"
        );
    }
}

//! Sealing with a key that is made once: bundles and signals.
//!
//! A sealing is `salt: 32 bytes | ciphertext | tag: 16 bytes`, by ChaCha20-Poly1305 whatever the
//! suite of the thread: it is opened by some who do not know the genesis yet. The key is made of the
//! salt, which is hedged as nonces are, so the nonce can be zero: whoever has many writers under one
//! key has no nonces to share among them.

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use hkdf::Hkdf;
use leno_identity::Label;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{NonceSecret, OpenError};

/// Bytes that such a sealing adds.
pub(crate) const ONCE_BYTES: usize = SALT_BYTES + TAG_BYTES;

const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// Seals a plaintext; `context` is authenticated beside it.
pub(crate) fn seal_once(
    key: &[u8; 32],
    context: &[u8],
    plaintext: &[u8],
    secret: &NonceSecret,
    rng: &mut dyn CryptoRng,
) -> Vec<u8> {
    let salt = secret.salt(context, plaintext, rng);
    let mut sealed = Vec::with_capacity(plaintext.len() + ONCE_BYTES);
    sealed.extend_from_slice(&salt);
    sealed.extend_from_slice(plaintext);
    let body = InOutBuf::from(sealed.get_mut(SALT_BYTES..).unwrap_or_default());
    let tag = cipher(key, &salt).encrypt_inout_detached(&Nonce::default(), context, body);
    sealed.extend_from_slice(&tag.expect("a plaintext is far shorter than the limit of the AEAD"));
    sealed
}

/// Opens what [`seal_once`] sealed at the same place under the same key.
pub(crate) fn open_once(
    key: &[u8; 32],
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (salt, rest) = sealed.split_first_chunk().ok_or(OpenError)?;
    let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(OpenError)?;
    let mut plaintext = Zeroizing::new(body.to_vec());
    let buffer = InOutBuf::from(plaintext.as_mut_slice());
    cipher(key, salt)
        .decrypt_inout_detached(&Nonce::default(), context, buffer, &Tag::from(*tag))
        .map_err(|_| OpenError)?;
    Ok(plaintext)
}

fn cipher(key: &[u8; 32], salt: &[u8; SALT_BYTES]) -> ChaCha20Poly1305 {
    let mut once = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand(&Label::PART_SEALING.message(&[]), &mut *once)
        .expect("32 bytes are within the reach of HKDF-SHA-256");
    ChaCha20Poly1305::new((&*once).into())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn opens_only_at_its_place_and_under_its_key() {
        let (mut rng, secret) = (ChaCha20Rng::from_seed([1; 32]), NonceSecret::new(&[9; 32]));
        let sealed = seal_once(&[1; 32], b"place", b"text", &secret, &mut rng);
        assert_eq!(sealed.len(), 4 + ONCE_BYTES);
        let opened = open_once(&[1; 32], b"place", &sealed).unwrap();
        assert_eq!(*opened, b"text");
        assert!(open_once(&[2; 32], b"place", &sealed).is_err());
        assert!(open_once(&[1; 32], b"other", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open_once(&[1; 32], b"place", &changed).is_err());
            assert!(open_once(&[1; 32], b"place", &sealed[..at]).is_err());
        }
    }

    /// Pitfalls 38 and 39: a stuck generator makes no two sealings under one key.
    #[test]
    fn stuck_generator_repeats_no_salt() {
        let secret = NonceSecret::new(&[9; 32]);
        let salt = |context: &[u8], text: &[u8]| {
            let mut stuck = ChaCha20Rng::from_seed([0; 32]);
            seal_once(&[1; 32], context, text, &secret, &mut stuck)[..32].to_vec()
        };
        assert_eq!(salt(b"place", b"text"), salt(b"place", b"text"));
        assert_ne!(salt(b"place", b"text"), salt(b"other", b"text"));
        assert_ne!(salt(b"place", b"text"), salt(b"place", b"test"));
    }
}

//! Epochs: random read keys, wrapped to each reader's seat, and linked to those before them.

use std::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Nonce, Tag};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_identity::{AgreementKey, Label};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::seal::{EpochKey, expand};
use crate::{EpochId, SeatId, ThreadId};

/// The key domain of roster parts.
pub const ROSTER_DOMAIN: u32 = 0;

/// The key domain of a thread's documents.
pub const THREAD_DOMAIN: u32 = 1;

/// An epoch key for one seat, sealed to its KEM key by HPKE in base mode.
///
/// # Shape
///
/// `[domain, epoch: 32 bytes, seat: 32 bytes, encapsulated key: 32 bytes, sealed key: 48 bytes]`.
/// The HPKE info holds the label, the thread, the domain, the epoch and the seat.
///
/// # Examples
///
/// ```
/// use leno_identity::AgreementKey;
/// use leno_threads_core::{EpochKey, SeatId, THREAD_DOMAIN, ThreadId, Wrap};
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
///
/// let (thread, seat) = (ThreadId([1; 32]), SeatId([2; 32]));
/// let (key, kem) = (EpochKey::generate(&mut rng), AgreementKey::generate(&mut rng)?);
/// let public = kem.public_key().to_bytes();
/// let wrap = Wrap::seal(&key, thread, THREAD_DOMAIN, seat, &public, &mut rng)?;
/// assert_eq!(wrap.epoch, key.id(thread, THREAD_DOMAIN));
/// assert_eq!(wrap.open(thread, &kem)?.expose(), key.expose());
/// // Nobody else opens it, and it opens nothing elsewhere.
/// assert!(wrap.open(thread, &AgreementKey::generate(&mut rng)?).is_err());
/// assert!(wrap.open(ThreadId([9; 32]), &kem).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
///
/// RFC 9180, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Wrap {
    /// The key domain.
    pub domain: u32,
    /// The epoch.
    pub epoch: EpochId,
    /// The recipient.
    pub seat: SeatId,
    /// The encapsulated key.
    pub encapsulated: [u8; 32],
    /// The sealed epoch key.
    pub sealed: [u8; 48],
}

/// Why a key is not wrapped, or a wrap does not give one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WrapError {
    /// The recipient's KEM key is of small order, or no key.
    #[error("the KEM key of seat {seat} is not usable")]
    BadKem {
        /// The recipient.
        seat: SeatId,
    },
    /// The wrap does not open with this seat's key.
    #[error("the wrap for seat {seat} does not open")]
    NotForMe {
        /// The recipient that it names.
        seat: SeatId,
    },
    /// The wrap opens to a key that the epoch does not commit to: its maker misbehaved.
    #[error("the wrap for seat {seat} holds another key than its epoch commits to")]
    WrongKey {
        /// The recipient.
        seat: SeatId,
    },
}

impl Wrap {
    /// Wraps an epoch's key to a seat.
    ///
    /// # Errors
    ///
    /// [`WrapError::BadKem`].
    pub fn seal(
        key: &EpochKey,
        thread: ThreadId,
        domain: u32,
        seat: SeatId,
        kem: &[u8; 32],
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, WrapError> {
        let error = WrapError::BadKem { seat };
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(kem).map_err(|_| error)?;
        let epoch = key.id(thread, domain);
        let info = info(thread, domain, epoch, seat);
        let (encapsulated, sealed) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &public,
                &info,
                key.expose(),
                &[],
                &mut &mut *rng,
            )
            .map_err(|_| error)?;
        Ok(Self {
            domain,
            epoch,
            seat,
            encapsulated: encapsulated.to_bytes().into(),
            sealed: sealed.try_into().map_err(|_| error)?,
        })
    }

    /// Opens a wrap with the seat's KEM key and checks the key against the epoch's commitment.
    ///
    /// # Errors
    ///
    /// [`WrapError`].
    pub fn open(&self, thread: ThreadId, kem: &AgreementKey) -> Result<EpochKey, WrapError> {
        let error = WrapError::NotForMe { seat: self.seat };
        let secret = kem.to_secret_bytes();
        let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&*secret);
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&self.encapsulated);
        let info = info(thread, self.domain, self.epoch, self.seat);
        let mut opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &secret.map_err(|_| error)?,
            &encapsulated.map_err(|_| error)?,
            &info,
            &self.sealed,
            &[],
        )
        .map_err(|_| error)?;
        let bytes: Result<[u8; 32], _> = opened.as_slice().try_into();
        opened.zeroize();
        let key = EpochKey::from_bytes(bytes.map_err(|_| error)?);
        if key.id(thread, self.domain) != self.epoch {
            return Err(WrapError::WrongKey { seat: self.seat });
        }
        Ok(key)
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder
            .array(5)
            .uint(self.domain.into())
            .bytes(&self.epoch.0)
            .bytes(&self.seat.0)
            .bytes(&self.encapsulated)
            .bytes(&self.sealed);
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.array_of(5)?;
        Ok(Self {
            domain: decoder.u32()?,
            epoch: EpochId(*decoder.fixed()?),
            seat: SeatId(*decoder.fixed()?),
            encapsulated: *decoder.fixed()?,
            sealed: *decoder.fixed()?,
        })
    }
}

/// The key of an epoch, sealed under a key that only the one that follows it gives: who holds the key of an
/// epoch opens all those before it, one after the other.
///
/// # Shape
///
/// `ciphertext: 32 bytes | tag: 16 bytes`, ChaCha20-Poly1305 with nonce zero and no associated data. Its key is
/// HKDF-SHA-256 without salt of the following epoch's 32 bytes, info = labelled message `epoch-link` of thread,
/// domain, following epoch, followed epoch: it seals nothing else, since the followed epoch's id commits to its
/// key.
///
/// # Examples
///
/// ```
/// use leno_threads_core::{EpochKey, KeyLink, THREAD_DOMAIN, ThreadId};
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::seed_from_u64(1);
///
/// let (thread, domain) = (ThreadId([1; 32]), THREAD_DOMAIN);
/// let (old, new) = (EpochKey::generate(&mut rng), EpochKey::generate(&mut rng));
/// let link = KeyLink::seal(&new, &old, thread, domain);
/// let opened = link.open(&new, old.id(thread, domain), thread, domain);
/// assert_eq!(opened.map(|key| *key.expose()), Some(*old.expose()));
/// // The old key opens nothing of the new one.
/// assert!(link.open(&old, new.id(thread, domain), thread, domain).is_none());
/// ```
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyLink(pub [u8; 48]);

impl KeyLink {
    /// Seals the key of an epoch to who holds the one that follows it.
    #[must_use]
    pub fn seal(new: &EpochKey, old: &EpochKey, thread: ThreadId, domain: u32) -> Self {
        let key = link_key(new, old.id(thread, domain), thread, domain);
        let mut sealed = [0; 48];
        let (content, tag) = sealed.split_at_mut(32);
        content.copy_from_slice(old.expose());
        let cipher = chacha20poly1305::ChaCha20Poly1305::new((&*key).into());
        let made = cipher.encrypt_inout_detached(&Nonce::default(), &[], content.into());
        tag.copy_from_slice(&made.expect("32 bytes are within the reach of ChaCha20-Poly1305"));
        Self(sealed)
    }

    /// Opens a link: gives the key of the epoch `old`, if this is one and `new` the key that it was sealed to.
    #[must_use]
    pub fn open(
        &self,
        new: &EpochKey,
        old: EpochId,
        thread: ThreadId,
        domain: u32,
    ) -> Option<EpochKey> {
        let key = link_key(new, old, thread, domain);
        let (content, tag) = self.0.split_first_chunk::<32>()?;
        let mut content = Zeroizing::new(*content);
        let tag: &[u8; 16] = tag.first_chunk()?;
        let cipher = chacha20poly1305::ChaCha20Poly1305::new((&*key).into());
        let tag = Tag::from(*tag);
        cipher
            .decrypt_inout_detached(&Nonce::default(), &[], content.as_mut_slice().into(), &tag)
            .ok()?;
        let key = EpochKey::from_bytes(*content);
        (key.id(thread, domain) == old).then_some(key)
    }
}

impl fmt::Debug for KeyLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(formatter, "KeyLink({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

fn link_key(new: &EpochKey, old: EpochId, thread: ThreadId, domain: u32) -> Zeroizing<[u8; 32]> {
    let following = new.id(thread, domain);
    let info = Label::EPOCH_LINK.message(&[&thread.0, &domain.to_be_bytes(), &following.0, &old.0]);
    expand(new.expose(), &info)
}

fn info(thread: ThreadId, domain: u32, epoch: EpochId, seat: SeatId) -> Vec<u8> {
    Label::EPOCH_WRAP.message(&[&thread.0, &domain.to_be_bytes(), &epoch.0, &seat.0])
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn only_the_recipient_opens_only_for_this_epoch() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (thread, seat) = (ThreadId([2; 32]), SeatId([3; 32]));
        let kem = AgreementKey::generate(&mut rng).unwrap();
        let key = EpochKey::generate(&mut rng);
        let public = *kem.public_key().as_bytes();
        let wrap = Wrap::seal(&key, thread, 1, seat, &public, &mut rng).unwrap();
        assert_eq!(wrap.open(thread, &kem).unwrap().expose(), key.expose());

        let not_for_me = Some(WrapError::NotForMe { seat });
        let other = AgreementKey::generate(&mut rng).unwrap();
        assert_eq!(wrap.open(thread, &other).err(), not_for_me);
        assert_eq!(wrap.open(ThreadId([0; 32]), &kem).err(), not_for_me);
        let moved = Wrap {
            domain: 2,
            ..wrap.clone()
        };
        assert_eq!(moved.open(thread, &kem).err(), not_for_me);
        let renamed = Wrap {
            epoch: EpochId([0; 32]),
            ..wrap
        };
        assert_eq!(renamed.open(thread, &kem).err(), not_for_me);
    }

    /// A maker who wraps another key than the one committed to is found out.
    #[test]
    fn key_that_the_epoch_does_not_commit_to_is_refused() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (thread, seat) = (ThreadId([2; 32]), SeatId([3; 32]));
        let kem = AgreementKey::generate(&mut rng).unwrap();
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(kem.public_key().as_bytes());
        let epoch = EpochKey::generate(&mut rng).id(thread, 1);
        let (encapsulated, sealed) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &public.unwrap(),
                &info(thread, 1, epoch, seat),
                EpochKey::generate(&mut rng).expose(),
                &[],
                &mut rng,
            )
            .unwrap();
        let wrap = Wrap {
            domain: 1,
            epoch,
            seat,
            encapsulated: encapsulated.to_bytes().into(),
            sealed: sealed.try_into().unwrap(),
        };
        assert_eq!(
            wrap.open(thread, &kem).err(),
            Some(WrapError::WrongKey { seat })
        );
    }

    #[test]
    fn small_order_kem_key_is_refused() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = EpochKey::generate(&mut rng);
        let seat = SeatId([3; 32]);
        let refused = Wrap::seal(&key, ThreadId([2; 32]), 1, seat, &[0; 32], &mut rng);
        assert_eq!(refused, Err(WrapError::BadKem { seat }));
    }
}

//! A part: a numbered, sealed and signed piece of a bundle.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_identity::{AgreementKey, Label, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::BundleError;
use crate::seal::OncePlace;
use crate::{NonceSecret, OnceKind, SEALED_ONCE_BYTES, SeatId, ServiceKey, Suite, ThreadId};

/// Version of bundles.
pub const BUNDLE_VERSION: u64 = 1;

/// Longest part, in bytes.
pub const PART_BYTES_MAX: usize = 1 << 20;

/// What a part begins with, to be told from other files.
const MAGIC: &str = "leno-bundle";

/// What a part holds before its piece: a seat and its signature.
const SIGNED_BYTES: usize = 96;

/// The most bytes that a part has besides its piece.
pub(super) const OVERHEAD_BYTES: usize =
    1 + 12 + 1 + 17 + 17 + 5 + 1 + 34 + 5 + SEALED_ONCE_BYTES + SIGNED_BYTES;

/// Identifies a bundle: random.
pub type BundleId = [u8; 16];

/// What the parts of one bundle are sealed under.
pub(super) type BundleKey = Zeroizing<[u8; 32]>;

/// A part as it travels: a view of bytes that nobody vouches for.
///
/// # Shape
///
/// `["leno-bundle", 1, bundle: 16 bytes, tag: 16 bytes, number from 0, is last, encapsulated key: 32
/// bytes or null, sealed: bytes]`, dag-cbor. A bundle is its parts one after the other.
///
/// # Examples
///
/// ```
/// use leno_threads_core::sync::bundle::{Part, parts};
///
/// let part = Part {
///     bundle: [1; 16],
///     tag: [2; 16],
///     number: 0,
///     is_last: true,
///     encapsulated: None,
///     sealed: b"sealed",
/// };
/// let file = part.encode();
/// assert_eq!(Part::decode(&file)?, part);
/// // A file that was cut ends in what is no whole part.
/// let two = [&file[..], &file[..20]].concat();
/// let lengths: Vec<_> = parts(&two).map(|part| part.len()).collect();
/// assert_eq!(lengths, [file.len(), 20]);
/// # Ok::<(), leno_crdt_codec::cbor::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part<'a> {
    /// The bundle.
    pub bundle: BundleId,
    /// Names the thread to those who hold its service key.
    pub tag: [u8; 16],
    /// Its place, from 0.
    pub number: u32,
    /// Whether it is the last one.
    pub is_last: bool,
    /// By what the one seat finds the key to which the bundle is sealed, if it is.
    pub encapsulated: Option<[u8; 32]>,
    /// The sealed piece.
    pub sealed: &'a [u8],
}

impl<'a> Part<'a> {
    /// Encodes the part.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(8);
        self.encode_head(&mut encoder);
        encoder.bytes(self.sealed);
        encoder.into_vec()
    }

    fn encode_head(&self, encoder: &mut Encoder) {
        encoder
            .text(MAGIC)
            .uint(BUNDLE_VERSION)
            .bytes(&self.bundle)
            .bytes(&self.tag)
            .uint(self.number.into())
            .bool(self.is_last);
        match &self.encapsulated {
            Some(key) => encoder.bytes(key),
            None => encoder.null(),
        };
    }

    /// Decodes one part and nothing behind it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; an unknown version is [`DecodeError::OutOfBounds`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let part = Self::read(&mut decoder)?;
        decoder.finish()?;
        Ok(part)
    }

    fn read(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        decoder.array_of(8)?;
        let out_of_bounds = |offset, what| Err(DecodeError::OutOfBounds { offset, what });
        let offset = decoder.offset();
        if decoder.text()? != MAGIC {
            return out_of_bounds(offset, "the beginning of a bundle");
        }
        let offset = decoder.offset();
        if decoder.uint()? != BUNDLE_VERSION {
            return out_of_bounds(offset, "the version of a bundle");
        }
        let (bundle, tag) = (*decoder.fixed()?, *decoder.fixed()?);
        let (number, is_last) = (decoder.u32()?, decoder.bool()?);
        let encapsulated = match decoder.null()? {
            true => None,
            false => Some(*decoder.fixed()?),
        };
        let offset = decoder.offset();
        let sealed = decoder.bytes();
        let claimed = match &sealed {
            Ok(sealed) => sealed.len() as u64,
            Err(DecodeError::Truncated { needed, .. }) => *needed,
            Err(_) => 0,
        };
        if claimed > PART_BYTES_MAX as u64 {
            return out_of_bounds(offset, "the length of a part");
        }
        Ok(Self {
            bundle,
            tag,
            number,
            is_last,
            encapsulated,
            sealed: sealed?,
        })
    }

    /// What is authenticated beside the piece: the place of the part, and the thread.
    fn context(&self, thread: ThreadId) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(8);
        self.encode_head(&mut encoder);
        encoder.bytes(&thread.0);
        encoder.into_vec()
    }

    /// Signs and seals a piece at the place of this part.
    pub(super) fn seal(
        self,
        thread: ThreadId,
        key: &BundleKey,
        seat: &SigningKey,
        piece: &[u8],
        secret: &NonceSecret,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        let context = self.context(thread);
        let signature = seat.sign(Label::BUNDLE_PART, &[&context, piece]);
        let mut plaintext = Zeroizing::new(Vec::with_capacity(SIGNED_BYTES + piece.len()));
        plaintext.extend_from_slice(&seat.verifying_key().to_bytes());
        plaintext.extend_from_slice(&signature);
        plaintext.extend_from_slice(piece);
        // Every reader has it, and the bundle is made long before it is known who reads it.
        let suite = Suite::ChaCha20Poly1305;
        let sealed = place(thread, &context).seal(suite, key, &plaintext, secret, rng);
        Part {
            sealed: &sealed,
            ..self
        }
        .encode()
    }

    /// Opens the piece and checks who signed it.
    pub(super) fn open(
        &self,
        thread: ThreadId,
        key: &BundleKey,
    ) -> Result<(SeatId, Vec<u8>), BundleError> {
        let context = self.context(thread);
        let opened = place(thread, &context).open(key, self.sealed);
        let (_, plaintext) = opened.map_err(|_| BundleError::DoesNotOpen)?;
        let plaintext = Zeroizing::new(plaintext);
        let (seat, rest) = plaintext
            .split_first_chunk()
            .ok_or(BundleError::DoesNotOpen)?;
        let (signature, piece) = rest.split_first_chunk().ok_or(BundleError::DoesNotOpen)?;
        let seat = SeatId(*seat);
        let signed = VerifyingKey::from_bytes(&seat.0).is_ok_and(|it| {
            it.verify(Label::BUNDLE_PART, &[&context, piece], signature)
                .is_ok()
        });
        if !signed {
            return Err(BundleError::NotSigned { seat });
        }
        Ok((seat, piece.to_vec()))
    }
}

fn place(thread: ThreadId, context: &[u8]) -> OncePlace<'_> {
    OncePlace {
        kind: OnceKind::Part,
        thread,
        context,
    }
}

/// Takes bytes apart into parts, whole ones as far as they go; what is left is the last item.
///
/// Each is for [`Replica::import`](crate::sync::Replica::import), which says what is wrong with the
/// last one.
pub fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut decoder = Decoder::new(rest);
        let length = match Part::read(&mut decoder) {
            Ok(_) => decoder.offset(),
            Err(_) => rest.len(),
        };
        let (part, behind) = rest.split_at(length);
        rest = behind;
        Some(part)
    })
}

/// Names a thread in one bundle.
pub(super) fn tag(service: &ServiceKey, bundle: &BundleId) -> [u8; 16] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(service.expose())
        .expect("HMAC takes any key length");
    mac.update(&Label::BUNDLE_TAG.message(&[bundle]));
    let tag = mac.finalize().into_bytes();
    *tag.first_chunk().expect("a MAC is longer than a tag")
}

/// The key of a bundle for all who hold the service key.
pub(super) fn shared_key(service: &ServiceKey, thread: ThreadId, bundle: &BundleId) -> BundleKey {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, service.expose())
        .expand(&Label::BUNDLE_KEY.message(&[&thread.0, bundle]), &mut *key)
        .expect("32 bytes are within the reach of HKDF-SHA-256");
    key
}

fn recipient_info(thread: ThreadId, seat: SeatId, bundle: &BundleId) -> Vec<u8> {
    Label::BUNDLE_RECIPIENT.message(&[&thread.0, &seat.0, bundle])
}

/// A key of a bundle for one seat, and by what the seat finds it; none if its KEM key is not usable.
pub(super) fn new_key_for(
    thread: ThreadId,
    seat: SeatId,
    kem: &[u8; 32],
    bundle: &BundleId,
    rng: &mut dyn CryptoRng,
) -> Option<(BundleKey, [u8; 32])> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(kem).ok()?;
    let info = recipient_info(thread, seat, bundle);
    let (encapsulated, context) = hpke::setup_sender_with_rng::<
        ChaCha20Poly1305,
        HkdfSha256,
        X25519HkdfSha256,
    >(&OpModeS::Base, &public, &info, &mut &mut *rng)
    .ok()?;
    let mut key = Zeroizing::new([0; 32]);
    context.export(&[], &mut *key).ok()?;
    Some((key, encapsulated.to_bytes().into()))
}

/// The key of a bundle for this seat; none if it cannot be.
pub(super) fn key_for(
    thread: ThreadId,
    seat: SeatId,
    kem: &AgreementKey,
    bundle: &BundleId,
    encapsulated: &[u8; 32],
) -> Option<BundleKey> {
    let secret = kem.to_secret_bytes();
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&*secret).ok()?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    let info = recipient_info(thread, seat, bundle);
    let context = hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        &info,
    )
    .ok()?;
    let mut key = Zeroizing::new([0; 32]);
    context.export(&[], &mut *key).ok()?;
    Some(key)
}

//! The one registry of labels that keep signatures, MACs, keys and hashes of different purposes
//! apart.
//!
//! Every signature, MAC, derived key and commitment of the product is computed over a message that
//! begins with one of these labels and a zero byte. No label is a prefix of another, so bytes made
//! for one purpose never mean anything for another one. A purpose that is missing here is added
//! here, and nowhere else. Each label serves one purpose; a reserved one serves none yet, and keeps its
//! name from being taken for another.

use std::fmt;

use sha2::{Digest, Sha256};

/// What a signature, a MAC, a derived key or a hash is for.
///
/// A label has the form `leno/v1/<purpose>`, in lower case letters, digits and hyphens. There is no
/// public constructor: the constants below are all that exist.
///
/// # Examples
///
/// ```
/// use leno_identity::Label;
///
/// let message = Label::LOG_HEAD.message(&[b"ab", b""]);
/// assert_eq!(message, b"leno/v1/log-head\0\x00\x00\x00\x02ab\x00\x00\x00\x00");
/// assert_ne!(Label::LOG_HEAD.hash(&[b"ab"]), Label::LOG_HEAD.hash(&[b"a", b"b"]));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Label(&'static str);

// One macro writes the constants and the list, so that the list cannot miss one.
macro_rules! registry {
    ($($(#[$doc:meta])+ $name:ident = $purpose:literal;)+) => {
        impl Label {
            $($(#[$doc])+ pub const $name: Self = Self(concat!("leno/v1/", $purpose));)+

            /// Every label there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

registry! {
    /// The identity's signature in a device certificate.
    DEVICE_CERTIFICATE_IDENTITY = "device-certificate-identity";
    /// The device's signature in a device certificate.
    DEVICE_CERTIFICATE_DEVICE = "device-certificate-device";
    /// A log key's signature of the log's newest record.
    LOG_HEAD = "log-head";
    /// A log key's signature in the opening of its log.
    LOG_OPENING_LOG = "log-opening-log";
    /// A seat key's signature that it is another seat of a member.
    DEVICE_SEAT = "device-seat";
    /// Reserved: a seat key's signature in the opening of its next control log.
    CONTROL_OPENING = "control-opening";
    /// A device's signature of a seat that it vouches for.
    SEAT_OFFER = "seat-offer";
    /// A device's signature of the key by which it speaks in an encrypted channel.
    CHANNEL_KEY = "channel-key";
    /// The hash of both sides' keys and nonces that stands for a sync session.
    SESSION_BINDING = "session-binding";
    /// A seat's signature of a sync session: that it is at this end.
    SESSION_PROOF = "session-proof";
    /// The MAC under the service key that names a thread in one sync session.
    THREAD_TAG = "thread-tag";
    /// The short hash of a head in a sync session, keyed by the nonces of both sides.
    SHORT_HEAD_HASH = "short-head-hash";
    /// The MAC under the service key that names a thread between two devices, in all their sessions.
    PAIR_NAME = "pair-name";
    /// The hash of where a thread stands, in the tree of what two devices share.
    TREE_LEAF = "tree-leaf";
    /// The hash of an inner node of that tree.
    TREE_INNER = "tree-inner";
    /// The hash of a node of that tree that holds leaves.
    TREE_BUCKET = "tree-bucket";
    /// The short hash of a node in a sync session, keyed by the nonces of both sides.
    SHORT_NODE_HASH = "short-node-hash";
    /// The hash that names a set of key wraps in a sync session.
    WRAPS_DIGEST = "wraps-digest";
    /// The key, made from a device's nonce secret, of the MAC that yields the nonces of bodies.
    NONCE = "nonce";
    /// The key that seals bodies, roster parts too, derived from an epoch key.
    BODY_SUBKEY = "body-subkey";
    /// The key that seals frames of control records, derived from the service key.
    FRAME_SUBKEY = "frame-subkey";
    /// The MAC that yields the salt of what is sealed once.
    ONE_TIME_SALT = "one-time-salt";
    /// The key of what is sealed once: segments and the heads that name them, parts of bundles, signals.
    ONE_TIME_SEALING = "one-time-sealing";
    /// The hash of service key and thread that names a thread's place on a shared store.
    SHARED_PLACE = "shared-place";
    /// The MAC under the service key that names a thread in one bundle.
    BUNDLE_TAG = "bundle-tag";
    /// The key, derived from the service key, that the parts of a bundle are sealed under.
    BUNDLE_KEY = "bundle-key";
    /// The HPKE info of a bundle that is sealed to one seat.
    BUNDLE_RECIPIENT = "bundle-recipient";
    /// A seat's signature of a part of a bundle.
    BUNDLE_PART = "bundle-part";
    /// The hash that commits an epoch id to its key.
    EPOCH_COMMITMENT = "epoch-commitment";
    /// The HPKE info of an epoch key wrapped to a device.
    EPOCH_WRAP = "epoch-wrap";
    /// HKDF info: from the bytes of an epoch to the key that its content is sealed under.
    EPOCH_KEY = "epoch-key";
    /// HKDF info: from the bytes of an epoch to the key that links it to one that it follows.
    EPOCH_LINK = "epoch-link";
    /// The key, derived from an epoch key, that seals the signals of a thread.
    SIGNAL_KEY = "signal-key";
    /// The MAC that stands for a seat's key in its signals.
    SIGNAL_TAG = "signal-tag";
    /// A seat's signature of a signal.
    SIGNAL_STATEMENT = "signal-statement";
    /// The hash of an author's member number and a nonce that a document id is made of.
    DOCUMENT_ID = "document-id";
    /// The salted hash of a member's identity key in its first grant.
    IDENTITY_COMMITMENT = "identity-commitment";
    /// Reserved: the salted hash of a member's recovery key in its first grant.
    RECOVERY_COMMITMENT = "recovery-commitment";
    /// The hash of reduced state. Used by the crate of the codec, which knows of no keys and so does
    /// not import this one.
    STATE_HASH = "state-hash";
}

impl Label {
    /// Returns the label's text.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.0
    }

    /// Builds the message that is signed, authenticated or fed to a key derivation.
    ///
    /// # Shape
    ///
    /// `label | 0x00 | (length: u32, big-endian | bytes) for each part`. Two different pairs of
    /// label and parts never give the same message.
    ///
    /// # Panics
    ///
    /// If a part is 4 GiB long or longer.
    #[must_use]
    pub fn message(&self, parts: &[&[u8]]) -> Vec<u8> {
        let length: usize = parts.iter().map(|part| 4 + part.len()).sum();
        let mut message = Vec::with_capacity(self.0.len() + 1 + length);
        self.feed(parts, |bytes| message.extend_from_slice(bytes));
        message
    }

    /// Computes SHA-256 of [`Label::message`] without building the message.
    ///
    /// # Panics
    ///
    /// As [`Label::message`].
    #[must_use]
    pub fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        self.feed(parts, |bytes| hasher.update(bytes));
        hasher.finalize().into()
    }

    fn feed(&self, parts: &[&[u8]], mut sink: impl FnMut(&[u8])) {
        sink(self.0.as_bytes());
        sink(&[0]);
        for part in parts {
            let length = u32::try_from(part.len()).expect("parts are shorter than 4 GiB");
            sink(&length.to_be_bytes());
            sink(part);
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_a_prefix_of_another() {
        for (at, one) in Label::ALL.iter().enumerate() {
            for (other_at, other) in Label::ALL.iter().enumerate() {
                assert!(
                    at == other_at || !other.as_str().starts_with(one.as_str()),
                    "{one} is a prefix of {other}"
                );
            }
        }
    }

    #[test]
    fn every_label_has_the_documented_form() {
        for label in Label::ALL {
            let purpose = label.as_str().strip_prefix("leno/v1/");
            let purpose = purpose.expect("labels begin with the product and the version");
            let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            assert!(!purpose.is_empty() && purpose.bytes().all(plain), "{label}");
        }
    }

    #[test]
    fn message_delimits_its_parts() {
        let check = |parts: &[&[u8]], expected: &[u8]| {
            let message = Label::NONCE.message(parts);
            assert_eq!(message.strip_prefix(b"leno/v1/nonce\0"), Some(expected));
        };
        check(&[], b"");
        check(&[b""], b"\0\0\0\0");
        check(&[b"ab"], b"\0\0\0\x02ab");
        check(&[b"a", b"b"], b"\0\0\0\x01a\0\0\0\x01b");
    }

    #[test]
    fn hash_is_sha256_of_the_message() {
        let parts: &[&[u8]] = &[b"one", b"", b"three"];
        let expected: [u8; 32] = Sha256::digest(Label::STATE_HASH.message(parts)).into();
        assert_eq!(Label::STATE_HASH.hash(parts), expected);
    }
}

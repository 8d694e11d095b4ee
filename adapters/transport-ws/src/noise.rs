//! The handshake that proves both devices' keys, and the channel that comes of it.
//!
//! `Noise_XX_25519_ChaChaPoly_SHA256` with the prologue `leno.1`. Each endpoint makes an X25519 key at
//! its start, and its device signs the public half of it once. The second and the third message of the
//! handshake carry, encrypted, `device key: 32 bytes | signature: 64 bytes`. The dialling side checks
//! who answered before it says who it is.

use std::fmt;
use std::sync::Arc;

use leno_identity::{Label, SigningKey, VerifyingKey};
use leno_transport_trait::PeerId;
use snow::{Builder, HandshakeState, StatelessTransportState};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::wire::NOISE_BYTES_MAX;

const PATTERN: &str = "Noise_XX_25519_ChaChaPoly_SHA256";

/// Bound into the handshake by both sides; the web sockets' subprotocol has the same name.
pub(crate) const PROTOCOL: &str = "leno.1";

/// What a Noise message has besides its plaintext, in bytes.
const TAG_BYTES: usize = 16;

/// Longer messages of a handshake are not ours.
const HANDSHAKE_BYTES_MAX: usize = 256;

/// Why there is no channel.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum NoiseError {
    #[error("the cryptography of the channel failed: {0}")]
    Snow(String),
    #[error("a handshake message has {len} bytes")]
    HandshakeTooLong { len: usize },
    #[error("a handshake message carries {len} bytes")]
    WrongPayload { len: usize },
    #[error("the device did not prove its key")]
    NotProven,
}

impl From<snow::Error> for NoiseError {
    fn from(error: snow::Error) -> Self {
        Self::Snow(error.to_string())
    }
}

/// What an endpoint proves itself by.
pub(crate) struct Keys {
    private: Zeroizing<Vec<u8>>,
    credentials: [u8; 96],
}

impl Keys {
    /// Makes a new X25519 key and has the device sign it.
    pub(crate) fn generate(device: &SigningKey) -> Result<Self, NoiseError> {
        let pair = Builder::new(PATTERN.parse()?).generate_keypair()?;
        let private = Zeroizing::new(pair.private);
        Ok(Self::new(device, private, &pair.public))
    }

    fn new(device: &SigningKey, private: Zeroizing<Vec<u8>>, public: &[u8]) -> Self {
        let mut credentials = [0; 96];
        let (key, signature) = credentials.split_at_mut(32);
        key.copy_from_slice(device.verifying_key().as_bytes());
        signature.copy_from_slice(&device.sign(Label::CHANNEL_KEY, &[public]));
        Self {
            private,
            credentials,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// A handshake under way. The dialling side writes, reads and writes; the other one reads, writes and
/// reads.
pub(crate) struct Handshake<'a> {
    keys: &'a Keys,
    state: HandshakeState,
    messages: u8,
}

impl<'a> Handshake<'a> {
    pub(crate) fn new(keys: &'a Keys, is_dialler: bool) -> Result<Self, NoiseError> {
        Self::with_ephemeral(keys, is_dialler, None)
    }

    /// With a given one-time key, for vectors.
    fn with_ephemeral(
        keys: &'a Keys,
        is_dialler: bool,
        ephemeral: Option<&[u8; 32]>,
    ) -> Result<Self, NoiseError> {
        let mut builder = Builder::new(PATTERN.parse()?)
            .prologue(PROTOCOL.as_bytes())?
            .local_private_key(&keys.private)?;
        if let Some(ephemeral) = ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral);
        }
        let state = match is_dialler {
            true => builder.build_initiator()?,
            false => builder.build_responder()?,
        };
        Ok(Self {
            keys,
            state,
            messages: 0,
        })
    }

    /// Writes the next message.
    pub(crate) fn write(&mut self) -> Result<Vec<u8>, NoiseError> {
        // The first message is not encrypted, so nothing is in it.
        let payload: &[u8] = match self.messages {
            0 => &[],
            _ => &self.keys.credentials,
        };
        let mut message = vec![0; HANDSHAKE_BYTES_MAX];
        let len = self.state.write_message(payload, &mut message)?;
        message.truncate(len);
        self.messages += 1;
        Ok(message)
    }

    /// Reads the next message; the second and the third one say who sent it.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Option<PeerId>, NoiseError> {
        let len = message.len();
        if len > HANDSHAKE_BYTES_MAX {
            return Err(NoiseError::HandshakeTooLong { len });
        }
        let mut payload = vec![0; HANDSHAKE_BYTES_MAX];
        let len = self.state.read_message(message, &mut payload)?;
        payload.truncate(len);
        self.messages += 1;
        match (self.messages, payload.as_slice()) {
            (1, []) => Ok(None),
            (2 | 3, payload) => self.proven(payload).map(Some),
            _ => Err(NoiseError::WrongPayload { len }),
        }
    }

    fn proven(&self, payload: &[u8]) -> Result<PeerId, NoiseError> {
        let len = payload.len();
        let wrong = NoiseError::WrongPayload { len };
        let (key, signature) = payload.split_first_chunk::<32>().ok_or(wrong.clone())?;
        let signature: &[u8; 64] = signature.try_into().map_err(|_| wrong)?;
        let signed = self.state.get_remote_static();
        let signed = signed.ok_or(NoiseError::NotProven)?;
        let device = VerifyingKey::from_bytes(key).map_err(|_| NoiseError::NotProven)?;
        device
            .verify(Label::CHANNEL_KEY, &[signed], signature)
            .map_err(|_| NoiseError::NotProven)?;
        Ok(PeerId(*key))
    }

    /// Takes the two ways of the channel, once all three messages went.
    pub(crate) fn finish(self) -> Result<(Sealer, Opener), NoiseError> {
        let state = Arc::new(self.state.into_stateless_transport_mode()?);
        let sealer = Sealer {
            state: state.clone(),
            nonce: 0,
        };
        Ok((sealer, Opener { state, nonce: 0 }))
    }
}

/// Encrypts what this side sends, in order.
pub(crate) struct Sealer {
    state: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Sealer {
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut message = vec![0; plaintext.len() + TAG_BYTES];
        let len = self
            .state
            .write_message(self.nonce, plaintext, &mut message)?;
        message.truncate(len);
        // 2^64 messages take longer than anything lasts.
        self.nonce += 1;
        Ok(message)
    }
}

/// Decrypts what the other side sent, in order: anything out of order, twice or changed is refused.
pub(crate) struct Opener {
    state: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Opener {
    pub(crate) fn open(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut plaintext = vec![0; message.len().min(NOISE_BYTES_MAX)];
        let len = self
            .state
            .read_message(self.nonce, message, &mut plaintext)?;
        plaintext.truncate(len);
        self.nonce += 1;
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests;

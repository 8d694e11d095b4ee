use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Names a remote device: the Ed25519 public key that it proved to hold while connecting.
///
/// Any 32 bytes are a value of this type; only a transport's handshake makes one worth trusting.
/// Bytes order is the order of ids, and transports settle simultaneous dials by it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// Borrows the 32 bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PeerId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for PeerId {
    /// Writes the key as 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text is not the 64 lower-case hexadecimal digits of a [`PeerId`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a peer is named by 64 lower-case hexadecimal digits")]
pub struct PeerIdError;

impl FromStr for PeerId {
    type Err = PeerIdError;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes().chunks(2);
        if text.len() != 64 {
            return Err(PeerIdError);
        }
        for (byte, digits) in bytes.iter_mut().zip(digits) {
            for digit in digits {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(PeerIdError),
                };
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for PeerId {
    /// Writes the first four bytes, enough to tell the peers of a log apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PeerId({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_is_written() {
        let peer = PeerId(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(peer.to_string().parse(), Ok(peer));
        for text in [
            "",
            "ab",
            &"AB".repeat(32),
            &"ag".repeat(32),
            &"ab".repeat(33),
        ] {
            assert_eq!(text.parse::<PeerId>(), Err(PeerIdError), "{text}");
        }
    }

    #[test]
    fn display_is_the_whole_key_and_debug_its_start() {
        let peer = PeerId([0xab; 32]);
        assert_eq!(peer.to_string(), "ab".repeat(32));
        assert_eq!(format!("{peer:?}"), "PeerId(abababab..)");
    }
}

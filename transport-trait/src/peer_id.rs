use std::fmt;

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
    fn display_is_the_whole_key_and_debug_its_start() {
        let peer = PeerId([0xab; 32]);
        assert_eq!(peer.to_string(), "ab".repeat(32));
        assert_eq!(format!("{peer:?}"), "PeerId(abababab..)");
    }
}

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest text of an [`Address`], in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// Says where a peer can be dialled, in words that only the transport understands.
///
/// For the libp2p adapter it is a multiaddr (`/ip4/192.0.2.1/tcp/4001/p2p/12D3..`). Here it is only
/// known to be 1 to [`ADDRESS_BYTES_MAX`] bytes of text without control characters, so that it may
/// be logged, stored and sent.
///
/// # Examples
///
/// ```
/// use leno_transport_trait::{Address, AddressError};
///
/// let address: Address = "/ip4/127.0.0.1/tcp/4001".parse()?;
/// assert_eq!(address.as_str(), "/ip4/127.0.0.1/tcp/4001");
/// assert_eq!("".parse::<Address>(), Err(AddressError::Empty));
/// # Ok::<(), AddressError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address(String);

impl Address {
    /// Borrows the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    /// Takes the text as an address.
    ///
    /// # Errors
    ///
    /// - [`AddressError::Empty`] for no text at all.
    /// - [`AddressError::TooLong`] above [`ADDRESS_BYTES_MAX`] bytes.
    /// - [`AddressError::ControlCharacter`] for text that would garble a log.
    fn try_from(text: String) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::TooLong { len: text.len() });
        }
        match text.char_indices().find(|(_, it)| it.is_control()) {
            Some((offset, _)) => Err(AddressError::ControlCharacter { offset }),
            None => Ok(Self(text)),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // The length is looked at before the copy, since the text may come from a peer.
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::TooLong { len: text.len() });
        }
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddressError {
    /// The text has no bytes.
    #[error("address is empty")]
    Empty,
    /// The text is longer than [`ADDRESS_BYTES_MAX`].
    #[error("address has {len} bytes, more than {ADDRESS_BYTES_MAX}")]
    TooLong {
        /// The length of the refused text, in bytes.
        len: usize,
    },
    /// The text has a control character.
    #[error("address has a control character at byte {offset}")]
    ControlCharacter {
        /// Where it is, in bytes from the start.
        offset: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), AddressError>) {
        assert_eq!(text.parse::<Address>().map(|_| ()), expected, "{text:?}");
        assert_eq!(
            Address::try_from(text.to_owned()).map(|_| ()),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn addresses_are_bounded_printable_text() {
        check("x", Ok(()));
        check(&"x".repeat(256), Ok(()));
        check("", Err(AddressError::Empty));
        check(&"x".repeat(257), Err(AddressError::TooLong { len: 257 }));
        check("a\nb", Err(AddressError::ControlCharacter { offset: 1 }));
    }
}

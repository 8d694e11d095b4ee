//! What a device may act in, as its certificate says.

use std::{fmt, str::FromStr};

/// Longest name of a [`Scope`], in bytes.
pub const SCOPE_BYTES_MAX: usize = 128;

/// What a device acts in: everything, or one named part of what its identity may do.
///
/// A name is the app's own. It has 1 to [`SCOPE_BYTES_MAX`] ASCII letters, digits and `- . _ / :`,
/// so that it cannot break out of the line that a wallet shows, nor look like another.
///
/// # Examples
///
/// ```
/// use leno_identity::Scope;
///
/// let songs = Scope::named("songs")?;
/// assert!(songs.covers("songs") && !songs.covers("songs/covers"));
/// assert!(Scope::All.covers("anything"));
/// # Ok::<(), leno_identity::ScopeError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// Everything.
    All,
    /// What one name stands for.
    Named(ScopeName),
}

impl Scope {
    /// Makes a scope of one name.
    ///
    /// # Errors
    ///
    /// As [`ScopeName::from_str`].
    pub fn named(name: &str) -> Result<Self, ScopeError> {
        name.parse().map(Self::Named)
    }

    /// Tells whether the scope holds what `name` stands for. Names are compared whole.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(own) => own.as_str() == name,
        }
    }

    /// Returns the name, if it is not everything.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Named(name) => Some(name.as_str()),
        }
    }
}

/// The name of a [`Scope`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ScopeName(String);

impl ScopeName {
    /// Borrows the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ScopeName {
    type Err = ScopeError;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// - [`ScopeError::Length`] for an empty name, or one longer than [`SCOPE_BYTES_MAX`].
    /// - [`ScopeError::Character`] for the first character that is not allowed.
    fn from_str(name: &str) -> Result<Self, ScopeError> {
        if !(1..=SCOPE_BYTES_MAX).contains(&name.len()) {
            return Err(ScopeError::Length { had: name.len() });
        }
        let refused = |it: &char| !it.is_ascii_alphanumeric() && !"-._/:".contains(*it);
        match name.chars().find(refused) {
            Some(character) => Err(ScopeError::Character { character }),
            None => Ok(Self(name.to_owned())),
        }
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the name of a scope.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// The name is empty or too long.
    #[error("name of a scope has {had} bytes instead of 1 to {SCOPE_BYTES_MAX}")]
    Length {
        /// Bytes of the name.
        had: usize,
    },
    /// The name holds a character that is not allowed.
    #[error("name of a scope holds {character:?}")]
    Character {
        /// The first such character.
        character: char,
    },
}

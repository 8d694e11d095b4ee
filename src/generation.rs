//! Counting starts outside the store, so that a restored copy is noticed.

use std::fmt;

use crate::error::Error;

/// Keeps one number outside of the peer's store: in a file beside its folder, a keystore, a server.
///
/// The peer raises it at each start, in the store too. If the two differ, the store is an older copy
/// of itself, and to write on where it stands could sign two records at one place.
pub trait Generation: fmt::Debug + Send {
    /// The number as it was kept, or nothing if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::File`] or what fits.
    fn load(&mut self) -> Result<Option<u64>, Error>;

    /// Keeps a number, durably.
    ///
    /// # Errors
    ///
    /// [`Error::File`] or what fits.
    fn store(&mut self, generation: u64) -> Result<(), Error>;
}

/// Keeps the number in a file.
#[cfg(feature = "redb")]
#[derive(Debug)]
pub struct FileGeneration {
    path: std::path::PathBuf,
}

#[cfg(feature = "redb")]
impl FileGeneration {
    /// Keeps the number in the file at `path`, which must lie outside the folder of the store.
    #[must_use]
    pub fn new(path: impl Into<std::path::PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[cfg(feature = "redb")]
impl Generation for FileGeneration {
    fn load(&mut self) -> Result<Option<u64>, Error> {
        match std::fs::read_to_string(&self.path) {
            // A file that does not read is no number, and so differs from any.
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn store(&mut self, generation: u64) -> Result<(), Error> {
        use std::io::Write as _;
        let fresh = self.path.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        writeln!(file, "{generation}")?;
        file.sync_all()?;
        Ok(std::fs::rename(&fresh, &self.path)?)
    }
}

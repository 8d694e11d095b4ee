//! Counting starts outside the store, so that a restored copy is noticed.

use std::fmt;

use crate::error::Error;

/// Keeps one number outside of the peer's store: in a file beside its folder, a keystore, a server.
///
/// The peer raises it at each start: first in its store, then here. So the store is never behind,
/// unless it is an older copy of itself; to write on where that stands could sign two records at one
/// place. No number at all counts as a copy too: the store may have been taken to another machine.
///
/// A copy that was made while the peer ran, and is put back before the next start, shows the same
/// number. It is noticed when a peer shows more of the own log, as without this port.
pub trait Generation: fmt::Debug + Send {
    /// The number as it was kept, or nothing if there is none.
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
        match std::fs::read(&self.path) {
            // A file that does not read is no number.
            Ok(bytes) => Ok(std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse().ok())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn store(&mut self, generation: u64) -> Result<(), Error> {
        use std::io::Write as _;
        // The whole name and more, so that no file of anybody else's is meant.
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let mut file = std::fs::File::create(&fresh)?;
        writeln!(file, "{generation}")?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        #[cfg(unix)]
        if let Some(folder) = self.path.parent().filter(|it| !it.as_os_str().is_empty()) {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

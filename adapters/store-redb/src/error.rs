//! From redb's errors, and its panics, to the errors of the port.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use leno_threads_core::store::StoreError;

/// What is being done, for messages: "while it {doing}".
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing {
    Open,
    Read,
    Commit,
    Compact,
    Close,
}

impl Doing {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "was opened",
            Self::Read => "was read",
            Self::Commit => "took a commit",
            Self::Compact => "was compacted",
            Self::Close => "was closed",
        }
    }
}

/// Runs a piece of redb, so that neither its errors nor its panics escape untyped.
///
/// redb checks what it reads only while it repairs. Over a file that was damaged after it was
/// closed in good order, it may panic in the midst of a tree, and again at the locks which that
/// panic poisoned; so every call of redb goes through here, destructors too. Asserting unwind
/// safety is sound: after a panic redb refuses to write, and nothing of ours is half changed.
pub(crate) fn guard<T>(
    doing: Doing,
    work: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| store_error(doing, error)),
        Err(panic) => Err(StoreError::Corrupt {
            what: format!(
                "redb panicked while it {}: {}",
                doing.name(),
                words(panic.as_ref())
            ),
        }),
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a word")
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "redb's error is not exhaustive"
)]
fn store_error(doing: Doing, error: redb::Error) -> StoreError {
    // What our own part of the file has to say comes through redb.
    if let redb::Error::Io(error) = &error
        && let Some(told) = error.get_ref().and_then(|it| it.downcast_ref())
    {
        return StoreError::clone(told);
    }
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::Locked,
        redb::Error::Corrupted(what) => StoreError::Corrupt { what },
        // Older formats of redb were never used here: it is the header that is wrong.
        redb::Error::UpgradeRequired(found) => StoreError::Corrupt {
            what: format!("the file's header: redb format {found}"),
        },
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => StoreError::Corrupt {
            what: error.to_string(),
        },
        // The file's length and magic number are redb's to judge; it reports both as I/O errors.
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Corrupt {
                what: format!("the file: {error}"),
            }
        }
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            ) =>
        {
            StoreError::Full
        }
        redb::Error::PreviousIo
        | redb::Error::DatabaseClosed
        | redb::Error::LockPoisoned(_)
        | redb::Error::TransactionPoisoned => StoreError::Poisoned,
        error => StoreError::Medium {
            doing: doing.name(),
            source: Arc::new(error),
        },
    }
}

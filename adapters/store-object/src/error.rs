//! From an object store's errors to those of the ports.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;

use leno_threads_core::store::ObjectError;

/// What is being done, for messages: "while an object was {doing}".
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing {
    #[cfg_attr(
        not(any(feature = "files", feature = "s3")),
        expect(dead_code, reason = "only media that are opened can fail to open")
    )]
    Open,
    Put,
    Read,
    Delete,
    List,
    Replace,
}

impl Doing {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "looked for",
            Self::Put => "put",
            Self::Read => "read",
            Self::Delete => "deleted",
            Self::List => "listed",
            Self::Replace => "replaced",
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the error of object stores is not exhaustive"
)]
pub(crate) fn object_error(doing: Doing, error: object_store::Error) -> ObjectError {
    match error {
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            ObjectError::Unsupported {
                what: "conditional puts",
            }
        }
        error => medium(doing, error),
    }
}

/// What a medium's error is, by the cause that is deepest.
pub(crate) fn medium(doing: Doing, error: impl Error + Send + Sync + 'static) -> ObjectError {
    if is_full(&error) {
        return ObjectError::Full;
    }
    ObjectError::Medium {
        doing: doing.name(),
        source: Arc::new(error),
    }
}

fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref().map(std::io::Error::kind);
        if matches!(
            kind,
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

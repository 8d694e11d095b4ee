//! What goes wrong with objects, the things that a block store and a shared store keep.

use std::sync::Arc;

/// Why a store of objects did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The bytes are not those that the name stands for. Nothing was written, or the medium is
    /// damaged or hostile: delete the object, and put it anew.
    #[error("{what} does not hold what its name says")]
    NotAsNamed {
        /// Which object.
        what: String,
    },
    /// The name is none that the store keeps.
    #[error("{what} is not a name of an object here")]
    BadName {
        /// The name.
        what: String,
    },
    /// An object is longer than such objects may be.
    #[error("{what} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Which object.
        what: String,
        /// Its length.
        bytes: u64,
        /// The longest that is allowed.
        bytes_max: u64,
    },
    /// Somebody else replaced the heads meanwhile: read them again, and decide anew.
    #[error("the heads were replaced by another node")]
    Conflict,
    /// No room is left.
    #[error("no room is left for the object")]
    Full,
    /// The medium lacks an ability that is needed, such as conditional puts.
    #[error("the medium does not support {what}")]
    Unsupported {
        /// Which ability.
        what: &'static str,
    },
    /// The medium did not do as asked, or its answer was lost: it is unknown whether it did. Asking
    /// again does no harm.
    #[error("the medium failed while an object was {doing}")]
    Medium {
        /// What was attempted.
        doing: &'static str,
        /// The adapter's own error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

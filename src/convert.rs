//! Between documents, which are [`Ipld`] maps, and the application's own types.

use ipld_core::ipld::Ipld;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Turns a value into a document.
///
/// # Errors
///
/// [`Error::NotADocument`] if the value has no such form: documents are maps with text keys.
///
/// # Examples
///
/// ```
/// use leno::{from_ipld, to_ipld};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Deserialize, PartialEq, Serialize)]
/// struct Song {
///     title: String,
///     year: i32,
/// }
///
/// let song = Song { title: "Psalm 1".to_owned(), year: 1611 };
/// let document = to_ipld(&song)?;
/// assert_eq!(from_ipld::<Song>(document)?, song);
/// # Ok::<(), leno::Error>(())
/// ```
pub fn to_ipld<T: Serialize + ?Sized>(value: &T) -> Result<Ipld, Error> {
    let reason = |error: &dyn std::fmt::Display| Error::NotADocument {
        reason: error.to_string(),
    };
    let ipld = ipld_core::serde::to_ipld(value).map_err(|error| reason(&error))?;
    if matches!(ipld, Ipld::Map(_)) {
        return Ok(ipld);
    }
    Err(reason(&"it is not a map"))
}

/// Turns a document into a value.
///
/// # Errors
///
/// [`Error::OtherForm`] if the document does not have the form of the type.
pub fn from_ipld<T: DeserializeOwned>(document: Ipld) -> Result<T, Error> {
    let reason = |error: &dyn std::fmt::Display| Error::OtherForm {
        reason: error.to_string(),
    };
    ipld_core::serde::from_ipld(document).map_err(|error| reason(&error))
}

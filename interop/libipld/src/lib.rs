//! Values of libipld as values of ipld-core, its successor, and back.
//!
//! The two crates have the same data model under two generations of `cid`. The conversions change
//! types and nothing else, so that an application that holds libipld values can hand them to leno,
//! and so that libipld can stand as the reference of our dag-cbor in `tests/`.
//!
//! ```
//! use ipld_core::ipld::Ipld;
//! use leno_interop_libipld::{from_libipld, to_libipld};
//!
//! let song = Ipld::List(vec![Ipld::String("Ain't No Grave".into()), Ipld::Integer(1934)]);
//! assert_eq!(from_libipld(&to_libipld(&song)), song);
//! ```

use ipld_core::ipld::Ipld;

/// Copies a value into libipld's type.
///
/// # Panics
///
/// Never: a CID that one generation of the `cid` crate holds is read by the other.
#[must_use]
pub fn to_libipld(value: &Ipld) -> libipld::Ipld {
    match value {
        Ipld::Null => libipld::Ipld::Null,
        Ipld::Bool(value) => libipld::Ipld::Bool(*value),
        Ipld::Integer(value) => libipld::Ipld::Integer(*value),
        Ipld::Float(value) => libipld::Ipld::Float(*value),
        Ipld::String(value) => libipld::Ipld::String(value.clone()),
        Ipld::Bytes(value) => libipld::Ipld::Bytes(value.clone()),
        Ipld::List(items) => libipld::Ipld::List(items.iter().map(to_libipld).collect()),
        Ipld::Map(entries) => libipld::Ipld::Map(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), to_libipld(value)))
                .collect(),
        ),
        Ipld::Link(cid) => libipld::Ipld::Link(
            libipld::Cid::try_from(cid.to_bytes()).expect("both generations of cid read the bytes"),
        ),
    }
}

/// Copies a value out of libipld's type.
///
/// # Panics
///
/// Never, as [`to_libipld`].
#[must_use]
pub fn from_libipld(value: &libipld::Ipld) -> Ipld {
    match value {
        libipld::Ipld::Null => Ipld::Null,
        libipld::Ipld::Bool(value) => Ipld::Bool(*value),
        libipld::Ipld::Integer(value) => Ipld::Integer(*value),
        libipld::Ipld::Float(value) => Ipld::Float(*value),
        libipld::Ipld::String(value) => Ipld::String(value.clone()),
        libipld::Ipld::Bytes(value) => Ipld::Bytes(value.clone()),
        libipld::Ipld::List(items) => Ipld::List(items.iter().map(from_libipld).collect()),
        libipld::Ipld::Map(entries) => Ipld::Map(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), from_libipld(value)))
                .collect(),
        ),
        libipld::Ipld::Link(cid) => Ipld::Link(
            cid::Cid::try_from(cid.to_bytes()).expect("both generations of cid read the bytes"),
        ),
    }
}

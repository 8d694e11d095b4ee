//! libipld as the reference of our strict dag-cbor.

mod props;
mod vectors;

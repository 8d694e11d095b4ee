//! Laws and scenarios of the codec.

mod laws;
mod oracle;
mod props;
mod reduce;
mod showpiece;
mod vectors;
mod world;

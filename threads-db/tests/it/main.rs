//! Tests of documents as applications and the facade see them.

mod events;
mod limits;
mod lives;
mod props;
mod rows;
mod transactions;
mod world;

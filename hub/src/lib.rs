//! An always-on peer that carries threads for others and cannot read them.
//!
//! `leno-hub --config hub.toml` runs one; `hub/README.md` says how to set it up and use it. A hub is a
//! [`leno::Peer`] whose seats are replicators, and a small HTTP interface by which its accounts ask it
//! to carry a thread:
//!
//! 1. An application gets a **card** from the hub (`POST /v1/cards`): the hub's word that it may be asked.
//! 2. An owner or admin of a thread grants the card the role of replicator, which makes a **ticket**.
//! 3. The application hands the ticket to the hub (`POST /v1/threads`). The hub checks that the account
//!    has room, and joins. From then on it takes in and hands out what members and other replicators of
//!    the thread send, up to the quota, and serves nobody else.
//!
//! A hub that is granted more than the role of replicator gives the thread up again: it never holds a
//! key with which it could read.
//!
//! # Modules
//!
//! - [`config`]: what the operator sets.
//! - [`ledger`]: which account had which thread carried; kept on disk.
//! - [`hub`]: the peer and its promises.
//! - [`http`]: the interface.

pub mod config;
pub mod http;
pub mod hub;
pub mod ledger;
mod share;

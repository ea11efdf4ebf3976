//! The law that both sides of the market share.
//!
//! Does: units, keys and tweaks, account scripts, orders and their digests, prices and fees, verification of batches,
//! funding outputs of leased channels, sidecar tickets. Everything here is synchronous and pure: a function of its
//! arguments.
//!
//! Never does: read a clock, a file, a socket or a random number; hold a private key longer than a call.

pub mod account;
pub mod auth;
pub mod backup;
pub mod batch;
pub mod channel;
mod curve;
mod execution_fee;
pub mod fees;
pub mod keys;
pub mod label;
pub mod modification;
pub mod musig2;
pub mod order;
pub mod psbt;
pub mod recovery;
pub mod script;
pub mod sizes;
pub mod spend;
pub mod ticket;
pub mod units;
pub mod verify;

pub use bitcoin;

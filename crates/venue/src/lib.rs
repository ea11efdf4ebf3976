//! The auctioneer: book, batch building and execution, as flows over ports.
//!
//! Does: keeps accounts and orders, clears the market at every tick, leads the traders through prepare, sign and
//! finalize, signs its half of every account input, and answers the public calls.
//!
//! Never does: hold a trader's coins, look at a clock, a socket or a file of its own, or trust a trader: every message
//! is bounded and checked, and whatever a trader does wrong costs only that trader's orders of the round.
//!
//! Invariants: a signature that spends an account, a finalize message and a batch transaction leave only with the
//! receipt of the commit that makes them true; nonces are fresh in every attempt; a batch that was shown to traders for
//! signing is never shown again under the same transaction id.

mod accounts;
mod actor;
mod archive;
mod bans;
mod book;
mod changes;
mod config;
mod deposits;
mod error;
mod execution;
mod handle;
mod leases;
mod machine;
mod master;
mod node;
mod orders;
mod proposal;
mod queries;
mod recovery;
mod rejects;
mod round;
mod settle;
mod streams;
mod witness;

pub use actor::Venue;
pub use bans::{Ban, Banned};
pub use book::OperatorWish;
pub use config::{Ratings, Sweep, VenueConfig};
pub use deposits::{Deposit, DepositState};
pub use error::{Gone, Halt, KeyMismatch, ServeClass, ServeError};
pub use handle::{Handle, Status, TickOutcome, TickReason, venue};
pub use machine::{AccountEvent, Transition, VenueAccountState, next};

#[cfg(test)]
mod tests;

//! The buyer: keeps a target of leased inbound capacity, bidding higher as the deadline comes nearer and never more
//! than the capacity is worth.

mod config;
mod deadline;
mod pricing;
mod strategy;

pub use config::BuyerConfig;
pub use deadline::{DeadlineBid, deadline_bid};
pub use strategy::{Buyer, BuyerState};

/// The shipped configuration for a live market.
pub const PRESET: &str = include_str!("buyer.toml");
/// The configuration for the sandbox, where a clearing follows a simulated day.
pub const SANDBOX_PRESET: &str = include_str!("sandbox.toml");

#[cfg(test)]
mod tests;

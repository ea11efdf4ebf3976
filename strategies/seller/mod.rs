//! The seller: leases idle coins out at the best expected yield, never below the own reservation rate.

mod config;
mod pricing;
mod strategy;

pub use config::SellerConfig;
pub use strategy::{Seller, SellerState};

/// The shipped configuration for a live market.
pub const PRESET: &str = include_str!("seller.toml");
/// The configuration for the sandbox, where a clearing follows a simulated day.
pub const SANDBOX_PRESET: &str = include_str!("sandbox.toml");

#[cfg(test)]
mod tests;

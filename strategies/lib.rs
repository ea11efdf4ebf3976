//! Strategies on the engine: one folder each, with code, preset, notes and tests.
//!
//! Does: builds a strategy from its TOML text and decides with it. Never does: I/O, trading, limits of the whole
//! program (the risk gate's task).

pub mod any;
pub mod buyer;
pub mod common;
pub mod quoting;
pub mod seller;

pub use any::{AnyStrategy, StrategyConfigError};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod simulation;

//! Composition: ports, flows and strategy put together into running processes.

mod agent;
pub(crate) mod books;
mod brain;
mod connect;
mod crew;
mod data_dir;
mod observe;
#[cfg(test)]
mod operator_tests;
mod parts;
mod report;
pub mod sandbox;
mod venue;

pub use agent::run_agent;
pub use venue::run_venue;

//! Composition: ports, flows and strategy put together into running processes.

mod agent;
mod brain;
mod connect;
mod data_dir;
mod observe;
mod parts;
mod report;
pub mod sandbox;
mod venue;

pub use agent::run_agent;
pub use venue::run_venue;

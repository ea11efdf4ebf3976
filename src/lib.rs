//! tidegate: an automated market maker for Lightning channel leases.
//!
//! This package is the shell: the only place with sockets, files, clocks and randomness. It implements the ports of
//! `tidegate-ports` with a real node, SQLite and gRPC, and puts the flows of the `crates/` together into commands.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod node;
pub mod runtime;
pub mod store;
pub mod venue;

//! The operator's interface end to end: real TLS, real macaroons, real flows, a simulated chain.

mod access;
mod bench;
mod calls;
mod cli;
mod prometheus;
mod refusals;
mod rest;
mod switch;
mod watching;

//! Whole flows of traders against nodes with real keys, a chain that checks scripts, and a scripted auctioneer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod changes;
mod channels;
mod crash;
mod orders;
mod pending;
mod sim;
mod tiers;
mod trade;
mod turns;
mod venue;
